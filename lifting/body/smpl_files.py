"""Body files of the SMPL family that a user has: SMPL, SMPL-H and SMPL-X, as ``.pkl`` or ``.npz``.

The official ``.pkl`` files of SMPL are Python 2 pickles that hold objects of the packages chumpy and scipy. They are
read here without chumpy, and without running anything that is inside: see `lifting.files.restricted_load`. The files
themselves are licensed by the Max Planck Society for non-commercial research only; none of them comes with this
library, and nothing is downloaded.

Source: Loper et al., "SMPL: a skinned multi-person linear model", SIGGRAPH Asia 2015 (model and file layout); Romero et
al., "Embodied hands", 2017 (SMPL-H); Pavlakos et al., "Expressive body capture", CVPR 2019 (SMPL-X).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from lifting.body.model import BodyModel
from lifting.body.smpl_points import layout_regressors
from lifting.files import StandIn, load_npz, restricted_load
from lifting.skeletons import get_skeleton

LICENCE = (
    "SMPL-family body model of the Max Planck Institute for Intelligent Systems: for non-commercial scientific "
    "research after registration, and not to be redistributed. The terms that came with the file apply ("
    "smpl.is.tue.mpg.de, mano.is.tue.mpg.de, smpl-x.is.tue.mpg.de)."
)

_BODY = get_skeleton("smpl24").joints[:22]
_HANDS = tuple(f"{side}_{finger}{number}" for side in ("left", "right")
               for finger in ("index", "middle", "pinky", "ring", "thumb") for number in (1, 2, 3))  # fmt: skip
# Number of joints -> name of the family and its joints, in the order of the files.
FAMILIES: dict[int, tuple[str, tuple[str, ...]]] = {
    24: ("smpl", get_skeleton("smpl24").joints),
    52: ("smplh", _BODY + _HANDS),
    55: ("smplx", (*_BODY, "jaw", "left_eye_smplhf", "right_eye_smplhf", *_HANDS)),
}

_REQUIRED = ("v_template", "shapedirs", "J_regressor", "weights", "kintree_table", "f")
_OPTIONAL = ("posedirs", "bs_type", "bs_style")
_PACKAGES = ("chumpy", "scipy.sparse")
_SMPLX_SHAPES, _MAX_NESTING = 300, 8


def read_smpl(path: str | PathLike[str], num_shape: int = 10) -> BodyModel:
    """Read a body of the SMPL family.

    Args:
        path: an official ``.pkl`` or ``.npz`` file of SMPL (24 joints), SMPL-H (52) or SMPL-X (55).
        num_shape: how many shape coefficients to keep, the most important first; fewer when the file has fewer. The
            expression coefficients of SMPL-X are left out, its face is neutral.

    Rotations of the hands are absolute: zero is the flat hand, not the mean hand that other tools add.

    Raises FileNotFoundError; OSError when the file cannot be opened; ValueError for another kind of file, one that is
    damaged or hostile, arrays that do not belong together, and a `num_shape` below 1.
    """
    path = Path(path)
    if isinstance(num_shape, bool) or not isinstance(num_shape, int) or num_shape < 1:
        raise ValueError(f"num_shape is {num_shape!r}, expected a whole number from 1; SMPL is mostly used with 10.")
    arrays = _read_arrays(path)
    try:
        return _build(arrays, path, num_shape)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not a body of the SMPL family: {error}") from error


# ---- from bytes to arrays


def _read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a body file by their official names."""
    if path.suffix.lower() == ".npz":
        found: Any = load_npz(path, allow_objects=True, only=_REQUIRED + _OPTIONAL, stand_ins=_PACKAGES)
    elif path.suffix.lower() == ".pkl":
        found = _read_pickle(path)
    else:
        raise ValueError(f"{str(path)!r} has the suffix {path.suffix!r}, expected .pkl or .npz of SMPL, SMPL-H or "
                         "SMPL-X.")
    missing = [name for name in _REQUIRED if not isinstance(found, Mapping) or name not in found]
    if missing:
        raise ValueError(f"{str(path)!r} lacks {', '.join(missing)}; expected the official file of SMPL, SMPL-H or "
                         "SMPL-X.")
    try:
        return {name: plain_array(found[name]) for name in _REQUIRED + _OPTIONAL if name in found}
    except ValueError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error}") from error


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return restricted_load(file, stand_ins=_PACKAGES)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file at {str(path)!r}: expected a body of the SMPL family.") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(f"cannot read {str(path)!r}: {reason}; expected a body of the SMPL family.") from error
    except ValueError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error}") from error


def plain_array(value: Any, nesting: int = 0) -> Any:
    """The array that a pickled value stands for; a scipy sparse matrix stays sparse.

    Understands arrays, a 0-dimensional array around another value, ``chumpy.ch.Ch`` and
    ``chumpy.reordering.Select``, and the csc, csr and coo matrices of scipy. Raises ValueError for other objects.
    """
    if nesting > _MAX_NESTING:
        raise ValueError(f"its pickled objects are nested more than {_MAX_NESTING} deep; it is damaged.")
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 0:
        return plain_array(value.item(), nesting + 1)
    if not isinstance(value, StandIn):
        return value if isinstance(value, str) else _numbers(value)
    state = value.state if isinstance(value.state, dict) else {}
    if value.origin.startswith("scipy.sparse."):
        return _sparse_matrix(value.origin.rpartition(".")[2], state)
    if value.origin == "chumpy.reordering.Select" and {"a", "idxs"} <= state.keys():
        return _selected(state, nesting)
    if "x" in state:
        return plain_array(state["x"], nesting + 1)
    raise ValueError(f"it holds a '{value.origin}' without a value; save the body again as plain arrays.")


def _numbers(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiubU":
        raise ValueError(f"it holds a {type(value).__name__} of type {array.dtype}, expected numbers.")
    return array


def _selected(state: Mapping[str, Any], nesting: int) -> np.ndarray:
    """chumpy's Select: some elements of an array, counted in its flattened form, in a shape of their own."""
    source, numbers = np.ravel(plain_array(state["a"], nesting + 1)), np.ravel(_numbers(state["idxs"]))
    shape = state.get("preferred_shape")
    try:
        picked = source[numbers]
        return picked if shape is None else picked.reshape(tuple(int(length) for length in np.ravel(shape)))
    except (IndexError, ValueError) as error:
        raise ValueError(f"a 'chumpy.reordering.Select' in it is damaged: {error}.") from error


def _sparse_matrix(kind: str, state: Mapping[str, Any]) -> scipy.sparse.spmatrix:
    """A scipy matrix from its pickled arrays, checked: scipy would follow false indices out of its memory."""
    shape = state.get("_shape", state.get("shape"))
    try:
        rows, columns = (int(length) for length in shape)  # type: ignore[union-attr]
        data = _numbers(state["data"])
        if kind.startswith("coo"):
            pair = state["coords"] if "coords" in state else (state["row"], state["col"])
            return scipy.sparse.coo_matrix((data, tuple(map(_numbers, pair))), shape=(rows, columns))
        made = {"csc": scipy.sparse.csc_matrix, "csr": scipy.sparse.csr_matrix}[kind[:3]]
        matrix = made((data, _numbers(state["indices"]), _numbers(state["indptr"])), shape=(rows, columns))
        matrix.check_format(full_check=True)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a scipy.sparse matrix of it, a {kind}, cannot be used: {error}.") from error
    return matrix


# ---- from arrays to a body


def _build(arrays: Mapping[str, Any], path: Path, num_shape: int) -> BodyModel:
    _check_style(arrays)
    template = _shaped("v_template", arrays["v_template"], (None, 3))
    parents = _parents(arrays["kintree_table"])
    num_vertices, num_joints = len(template), len(parents)
    if num_joints not in FAMILIES:
        known = ", ".join(f"{count} ({name})" for count, (name, _) in FAMILIES.items())
        raise ValueError(f"it has {num_joints} joints, expected {known}.")
    family, joints = FAMILIES[num_joints]
    directions = _shaped("shapedirs", arrays["shapedirs"], (num_vertices, 3, None))
    available = _count_shapes(directions.shape[2], family)
    directions = directions[:, :, :min(num_shape, available)]
    regressor = scipy.sparse.csr_matrix(_shaped("J_regressor", arrays["J_regressor"], (num_joints, num_vertices)))
    pose = arrays.get("posedirs")
    return BodyModel(
        name=family,
        joints=joints,
        parents=parents,
        template=template,
        shape_directions=directions,
        joint_template=regressor @ template,
        joint_directions=(regressor @ directions.reshape(num_vertices, -1)).reshape(num_joints, 3, -1),
        skin_weights=scipy.sparse.csr_matrix(_shaped("weights", arrays["weights"], (num_vertices, num_joints))),
        faces=_faces(arrays["f"], num_vertices),
        pose_directions=None if pose is None else _shaped("posedirs", pose, (num_vertices, 3, 9 * (num_joints - 1))),
        regressors=layout_regressors(joints, template),
        shape_sigma=np.ones(directions.shape[2]),
        licence=LICENCE,
        metadata={"family": family, "gender": _gender(path), "num_shape_in_file": available, "source": path.name},
    )


def _check_style(arrays: Mapping[str, Any]) -> None:
    for name, expected in (("bs_style", "lbs"), ("bs_type", "lrotmin")):
        found = str(arrays.get(name, expected))
        if found != expected:
            raise ValueError(f"its {name} is {found!r}, expected {expected!r}; other kinds of skinning are not read.")


def _shaped(name: str, values: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """`values` as a float64 array of that shape (None = any length), finite."""
    found = values.shape
    fits = len(found) == len(shape) and all(want in (None, got) for want, got in zip(shape, found, strict=True))
    if not fits or 0 in found:
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"its {name} has the shape {found}, expected ({expected}).")
    array = values.toarray() if scipy.sparse.issparse(values) else np.asarray(values)
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise ValueError(f"its {name} holds values that are no finite numbers.")
    return np.ascontiguousarray(array, np.float64)


def _parents(table: Any) -> tuple[int, ...]:
    """Parents as joint numbers: row 1 of the table names each joint, row 0 its parent; the root's is -1 or 2^32 - 1."""
    table = _shaped("kintree_table", table, (2, None)).astype(np.int64)
    column_of = {int(name): column for column, name in enumerate(table[1])}
    parents = [-1, *(column_of.get(int(name), -1) for name in table[0, 1:])]
    for joint, parent in enumerate(parents[1:], start=1):
        if not 0 <= parent < joint:
            raise ValueError(f"in its kintree_table joint {joint} has the parent {int(table[0, joint])}, expected one "
                             "that comes before it.")
    return tuple(parents)


def _faces(values: Any, num_vertices: int) -> np.ndarray:
    faces = _shaped("f", values, (None, 3))
    if faces.min() < 0 or faces.max() >= num_vertices:
        raise ValueError(f"its faces name vertices up to {int(faces.max())}, but there are only {num_vertices}.")
    return faces.astype(np.int32)


def _count_shapes(columns: int, family: str) -> int:
    """How many of the shape directions are shape: SMPL-X adds 100 of expression (10 in its small files)."""
    if family != "smplx":
        return columns
    return 10 if columns == 20 else min(columns, _SMPLX_SHAPES)


def _gender(path: Path) -> str:
    """The gender that official file names tell: ``basicModel_f_lbs...``, ``SMPLX_FEMALE.npz``, ``male/model.npz``."""
    words = re.split(r"[^a-z]+", "/".join(path.parts[-2:]).lower())
    for gender, names in (("female", ("female", "f")), ("male", ("male", "m"))):
        if any(name in words for name in names):
            return gender
    return "neutral"
