"""Keypoints of SMPL-family bodies: which joint centres and mesh vertices stand for the joints of each layout.

The face, toes and heels are vertices whose numbers are published for the meshes of SMPL and SMPL-H (6890 vertices) and
of SMPL-X (10475). The rest are joint centres, which only approximates layouts that place a joint elsewhere: SMPL's
hips lie lower and nearer to each other than those of Human3.6M or of COCO's annotators, its head joint is not exactly
Human3.6M's joint between neck and nose, and the spine and neck are taken from the nearest joint. The fit's shared
offsets per joint absorb such differences. A mesh with another number of vertices gets layouts made of joints only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse

from lifting.skeletons import get_skeleton

# Vertex numbers of face and feet, by the number of vertices of the mesh.
LANDMARKS: dict[int, dict[str, int]] = {
    6890: {
        "nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583, "head_top": 411,
        "left_big_toe": 3216, "left_small_toe": 3226, "left_heel": 3387,
        "right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787,
    },
    10475: {
        "nose": 9120, "right_eye": 9929, "left_eye": 9448, "right_ear": 616, "left_ear": 6,
        "left_big_toe": 5770, "left_small_toe": 5780, "left_heel": 8846,
        "right_big_toe": 8463, "right_small_toe": 8474, "right_heel": 8635,
    },
}  # fmt: skip

_HIPS, _SHOULDERS = ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder")
_KNUCKLES = {side: tuple(f"{side}_{finger}1" for finger in ("index", "middle", "ring", "pinky"))
             for side in ("left", "right")}  # fmt: skip

# Layout -> {its joint: landmarks or joints of the body, averaged}; other joints are what has their own name.
_SOURCES: dict[str, dict[str, tuple[str, ...]]] = {
    "h36m17": {
        "hip": _HIPS, "spine": ("spine2",), "thorax": ("neck",), "neck_nose": ("head",), "head": ("head_top",)},
    "lift17": {},
    "coco17": {},
    "coco17_feet": {},
    "body25": {"neck": _SHOULDERS, "mid_hip": _HIPS},
    "halpe26": {"neck": _SHOULDERS, "hip": _HIPS, "head": ("head_top",)},
    "smpl24": {},
}  # fmt: skip


def layout_regressors(joints: Sequence[str], template: np.ndarray) -> dict[str, scipy.sparse.csr_matrix]:
    """Build the regressor (J, V + K) of every layout that the body can offer.

    Args:
        joints: names of the K joints of the body, SMPL's where they mean the same.
        template: (V, 3) metres, the mean mesh in its rest pose, Y up.

    Returns layout name -> sparse matrix whose rows sum to 1: columns 0..V-1 weigh vertices, V..V+K-1 joint centres.
    """
    sources = _source_columns(joints, template)
    regressors = {}
    for layout, table in _SOURCES.items():
        wanted = {name: table.get(name, (name,)) for name in get_skeleton(layout).joints}
        if layout == "smpl24":
            wanted = {name: _hand_source(name, sources) for name in wanted}
        if all(source in sources for names in wanted.values() for source in names):
            regressors[layout] = _mean_rows([[sources[s] for s in names] for names in wanted.values()],
                                            len(template) + len(joints))
    return regressors


def _source_columns(joints: Sequence[str], template: np.ndarray) -> dict[str, int]:
    """Regressor column of each named landmark and joint; where a name is both, the joint's."""
    landmarks = dict(LANDMARKS.get(len(template), {}))
    if landmarks:
        landmarks.setdefault("head_top", int(np.argmax(template[:, 1])))
    return landmarks | {joint: len(template) + column for column, joint in enumerate(joints)}


def _hand_source(name: str, sources: Mapping[str, int]) -> tuple[str, ...]:
    """SMPL's hand joint, for bodies with fingers instead: the middle of the knuckles."""
    side, _, part = name.partition("_")
    return (name,) if part != "hand" or name in sources else _KNUCKLES[side]


def _mean_rows(rows: Sequence[Sequence[int]], num_columns: int) -> scipy.sparse.csr_matrix:
    """Sparse matrix whose row i averages the columns rows[i]."""
    lengths = np.array([len(row) for row in rows])
    row_numbers = np.repeat(np.arange(len(rows)), lengths)
    weights = np.repeat(1.0 / lengths, lengths)
    columns = np.concatenate([np.asarray(row) for row in rows])
    return scipy.sparse.csr_matrix((weights, (row_numbers, columns)), shape=(len(rows), num_columns))
