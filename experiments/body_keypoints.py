"""Keypoints of the embedded body: each a convex combination of vertices and joint centres, for every known layout.

Used by `experiments.build_body` and `experiments.fit_body_regressors`. COCO's points and the feet are anny's own
regressors, thinned; centres of joints and middles of points follow from them; the rest are single vertices of the skin.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import optimize, sparse
from scipy.spatial import cKDTree

from lifting.skeletons import get_skeleton

SUM_WEIGHT = 30.0  # of the equation "weights sum to 1", in metres
LAYOUTS = ("coco17", "coco17_feet", "lift17", "halpe26", "body25", "openpose18", "mpii16", "mediapipe33", "smpl24",
           "h36m17")  # fmt: skip
"""Layouts that the body has points for."""


def convex_weights(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights (C,), >= 0 with sum 1, with which candidates come closest to a target (Lawson and Hanson 1974).

    Args:
        points: (C, E) coordinates of the candidates in E equations (several people, several frames), metres.
        target: (E,) coordinates to be met.
    """
    matrix = np.vstack([np.asarray(points, float).T, np.full(len(points), SUM_WEIGHT)])
    weights, _ = optimize.nnls(matrix, np.append(target, SUM_WEIGHT), maxiter=50 * len(points) + 1000)
    return weights / weights.sum()


def thin_row(weights: np.ndarray, people: np.ndarray, skin_weights: np.ndarray, keep: int = 150) -> np.ndarray:
    """Replace a dense regressor by one of few vertices that means the same for all people and in all poses.

    Linear blend skinning sees a regressor only through its weight and first moment on each bone; these are matched
    on the first of the people, the place at rest on all.

    Args:
        weights: (V,) convex weights over vertices.
        people: (N, V, 3) rest vertices, metres.
        skin_weights: (V, K).
        keep: how many of the heaviest vertices may be used.
    """
    chosen = np.argsort(weights)[-keep:]
    bones = np.flatnonzero(weights @ skin_weights > 1e-3)

    def equations(vertices: np.ndarray) -> np.ndarray:
        blend = skin_weights[vertices][:, bones]
        moments = blend[:, :, None] * np.concatenate([people[0, vertices], np.ones((len(vertices), 1))], 1)[:, None]
        places = np.moveaxis(people[:, vertices], 0, 1)
        return np.concatenate([places.reshape(len(vertices), -1), moments.reshape(len(vertices), -1)], axis=1)

    used = np.flatnonzero(weights)
    target = weights[used] @ equations(used)
    thin = np.zeros_like(weights)
    thin[chosen] = convex_weights(equations(chosen), target)
    thin[thin < 1e-3] = 0
    return thin / thin.sum()


def skin_vertex(vertices: np.ndarray, skin: np.ndarray, place: np.ndarray) -> int:
    """Number of the vertex of the skin nearest to a place (3,)."""
    return int(skin[cKDTree(vertices[skin]).query(place)[1]])


def landmark_vertices(vertices: np.ndarray, skin: np.ndarray, coco: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Find vertices of the left half and the middle that mark points which COCO lacks.

    Args:
        vertices: (V, 3) mean body at rest, metres, Y up, +Z forward, +X left.
        skin: numbers of the vertices of the skin.
        coco: places (3,) of COCO's points on the mean body.
    """
    eye, nose, head_middle = coco["left_eye"], coco["nose"], (coco["left_ear"] + coco["right_ear"]) / 2
    offsets = {  # metres from another point, read off the mean body
        "head_top": head_middle + [0, 0.30, 0.0],
        "left_eye_inner": eye + [-0.016, -0.004, 0.0],
        "left_eye_outer": eye + [0.019, -0.002, -0.004],
        "left_mouth": nose + [0.024, -0.052, -0.022],
    }
    return {name: skin_vertex(vertices, skin, place) for name, place in offsets.items()}


class Rows:
    """Named rows over V vertices and K joint centres, mirrored from the left to the right on demand."""

    def __init__(self, mirror: np.ndarray, joints: tuple[str, ...], joint_mirror: np.ndarray) -> None:
        self.mirror = np.concatenate([mirror, len(mirror) + joint_mirror])
        self.rows: dict[str, np.ndarray] = {}
        self.joints = {name: self.unit(len(mirror) + number) for number, name in enumerate(joints)}

    def unit(self, column: int) -> np.ndarray:
        """Return the row that is 1 in one column."""
        return np.eye(1, len(self.mirror), column)[0]

    def add(self, name: str, row: np.ndarray) -> None:
        """Keep a row; of a paired point the left one is given and the right one is its mirror image."""
        if name.startswith("left_"):
            self.rows[name] = row
            self.rows[name.replace("left_", "right_", 1)] = row[self.mirror]
        else:
            self.rows[name] = (row + row[self.mirror]) / 2

    def middle(self, name: str) -> np.ndarray:
        """Middle of a left and a right point."""
        return (self.rows[f"left_{name}"] + self.rows[f"right_{name}"]) / 2

    def layout(self, layout: str, other: Mapping[str, np.ndarray]) -> sparse.csr_matrix:
        """Matrix of a layout: rows by joint name, those of `other` before the common ones."""
        names = get_skeleton(layout).joints
        return sparse.csr_matrix(np.array([other[name] if name in other else self.rows[name] for name in names]))


def build_regressors(rows: Rows) -> dict[str, sparse.csr_matrix]:
    """Matrices (J, V+K) of all LAYOUTS from the common rows; `h36m17` is approximate until it is fitted."""
    hips, shoulders = rows.middle("hip"), rows.middle("shoulder")
    head_top, joints = rows.rows["head_top"], rows.joints
    special: dict[str, dict[str, np.ndarray]] = {layout: {} for layout in LAYOUTS}
    special["halpe26"] = {"head": head_top, "neck": shoulders, "hip": hips}
    special["body25"] = {"neck": shoulders, "mid_hip": hips}
    special["openpose18"] = {"neck": shoulders}
    special["mpii16"] = {"pelvis": hips, "thorax": shoulders, "upper_neck": joints["head"], "head_top": head_top}
    special["smpl24"] = joints
    special["h36m17"] = joints | {
        "hip": (joints["left_hip"] + joints["right_hip"]) / 2,
        "spine": joints["spine2"],
        "thorax": (joints["left_shoulder"] + joints["right_shoulder"]) / 2,
        "neck_nose": rows.rows["nose"],
        "head": head_top,
    }
    return {layout: rows.layout(layout, special[layout]) for layout in LAYOUTS}
