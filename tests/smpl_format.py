"""Body files in the exact layout of the official ones, with random content, and a slow skinning to compare with."""

from __future__ import annotations

import pickle
import struct
import sys
import types
from contextlib import contextmanager

import numpy as np
import scipy.sparse

PARENTS = {24: [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]}
_FINGERS = [parent for wrist, first in ((20, 0), (21, 15)) for finger in range(5)
            for parent in (wrist, first + 3 * finger, first + 3 * finger + 1)]
PARENTS[52] = PARENTS[24][:22] + [p if p in (20, 21) and i % 3 == 0 else p + 22 for i, p in enumerate(_FINGERS)]
PARENTS[55] = PARENTS[24][:22] + [15, 15, 15] + [p if p in (20, 21) and i % 3 == 0 else p + 25
                                                 for i, p in enumerate(_FINGERS)]


def smpl_arrays(joints: int = 24, vertices: int = 60, shapes: int = 10, seed: int = 0) -> dict:
    """The arrays of a body file by their official names; joints 24, 52 or 55."""
    rng = np.random.default_rng(seed)
    weights = rng.random((vertices, joints)) * (rng.random((vertices, joints)) < 4 / joints)
    weights[np.arange(vertices), rng.integers(0, joints, vertices)] += 0.1
    regressor = rng.random((joints, vertices)) * (rng.random((joints, vertices)) < 0.2)
    regressor[:, 0] += 0.01
    table = np.array([PARENTS[joints], range(joints)])
    table[0, 0] = 2**32 - 1
    return {
        "v_template": rng.normal(0, 0.5, (vertices, 3)),
        "shapedirs": rng.normal(0, 0.02, (vertices, 3, shapes)),
        "posedirs": rng.normal(0, 0.01, (vertices, 3, 9 * (joints - 1))),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": table.astype(np.uint32),
        "f": rng.integers(0, vertices, (30, 3)).astype(np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def slow_vertices(arrays: dict, pose: np.ndarray, betas: np.ndarray, trans: np.ndarray) -> np.ndarray:
    """SMPL's published formulas, vertex by vertex, for one frame: pose (K, 3), betas (S,), trans (3,) -> (V, 3)."""
    joints, count = len(pose), len(betas)
    shaped = arrays["v_template"] + arrays["shapedirs"][:, :, :count] @ betas
    places = arrays["J_regressor"] @ shaped
    local = [_rodrigues(vector) for vector in pose]
    features = np.concatenate([(rotation - np.eye(3)).ravel() for rotation in local[1:]])
    posed = shaped + arrays["posedirs"] @ features
    parents = PARENTS[joints]
    world = []
    for joint in range(joints):
        transform = np.eye(4)
        transform[:3, :3] = local[joint]
        transform[:3, 3] = places[joint] - (places[parents[joint]] if joint else 0)
        world.append(world[parents[joint]] @ transform if joint else transform)
    result = []
    for vertex, weights in zip(posed, arrays["weights"], strict=True):
        total = np.zeros(3)
        for weight, transform, place in zip(weights, world, places, strict=True):
            total += weight * (transform @ [*(vertex - place), 1.0])[:3]
        result.append(total + trans)
    return np.array(result)


def _rodrigues(vector: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


# ---- pickles as Python 2 wrote them


class _Python2Pickler(pickle._Pickler):
    """Writes text and bytes alike as the byte strings of Python 2."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, value):
        content = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


@contextmanager
def fake_chumpy():
    """The modules of chumpy that pickles name, for as long as the context lasts."""
    ch, reordering = types.ModuleType("chumpy.ch"), types.ModuleType("chumpy.reordering")
    ch.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
    reordering.Select = type("Select", (ch.Ch,), {"__module__": "chumpy.reordering"})
    modules = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": ch, "chumpy.reordering": reordering}
    sys.modules.update(modules)
    try:
        yield types.SimpleNamespace(Ch=ch.Ch, Select=reordering.Select)
    finally:
        for name in modules:
            del sys.modules[name]


def made(kind: type, **state) -> object:
    """An object of a class with that state."""
    value = kind()
    value.__dict__.update(state)
    return value


def official_pickle(arrays: dict, protocol: int = 2) -> bytes:
    """The bytes of a ``.pkl`` with a chumpy array, a chumpy selection and a sparse matrix of old scipy inside."""
    import io

    with fake_chumpy() as chumpy:
        directions = arrays["shapedirs"]
        whole = np.concatenate([directions.ravel()[::-1], [7.0]])
        inner = made(chumpy.Ch, x=whole, _dirty_vars={"x"}, _itr=None)
        number = np.arange(directions.size)[::-1].copy()
        select = made(chumpy.Select, a=inner, idxs=number, preferred_shape=directions.shape, _depends_on_deps={})
        content = {**arrays, "shapedirs": select, "v_template": made(chumpy.Ch, x=arrays["v_template"]),
                   "J_regressor": scipy.sparse.csc_matrix(arrays["J_regressor"]), "vert_sym_idxs": np.arange(4),
                   "J_regressor_prior": scipy.sparse.csc_matrix(arrays["J_regressor"])}
        buffer = io.BytesIO()
        (_Python2Pickler if protocol == 2 else pickle._Pickler)(buffer, protocol).dump(content)
    return buffer.getvalue().replace(b"scipy.sparse._csc\n", b"scipy.sparse.csc\n")
