"""A small random body of human proportions with every part that a body model can have, for tests."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from lifting.body.model import BodyModel, Preview
from lifting.skeletons import get_skeleton

# SMPL's joints with plausible rest positions in metres: Y up, +Z forward, +X to the person's left, arms half down.
_REST = {
    "pelvis": (0, 0.95, 0), "left_hip": (0.08, 0.87, 0), "right_hip": (-0.08, 0.87, 0), "spine1": (0, 1.06, -0.02),
    "left_knee": (0.11, 0.49, 0.01), "right_knee": (-0.11, 0.49, 0.01), "spine2": (0, 1.19, -0.02),
    "left_ankle": (0.12, 0.08, -0.02), "right_ankle": (-0.12, 0.08, -0.02), "spine3": (0, 1.26, 0),
    "left_foot": (0.14, 0.03, 0.11), "right_foot": (-0.14, 0.03, 0.11), "neck": (0, 1.47, -0.01),
    "left_collar": (0.07, 1.38, -0.01), "right_collar": (-0.07, 1.38, -0.01), "head": (0, 1.56, 0.03),
    "left_shoulder": (0.17, 1.39, -0.02), "right_shoulder": (-0.17, 1.39, -0.02), "left_elbow": (0.36, 1.23, -0.03),
    "right_elbow": (-0.36, 1.23, -0.03), "left_wrist": (0.55, 1.07, -0.02), "right_wrist": (-0.55, 1.07, -0.02),
    "left_hand": (0.61, 1.02, -0.01), "right_hand": (-0.61, 1.02, -0.01),
}  # fmt: skip
# Where the bones without a child end.
_ENDS = {"head": (0, 0.2, 0), "left_foot": (0.02, -0.01, 0.08), "right_foot": (-0.02, -0.01, 0.08),
         "left_wrist": (0.13, -0.1, 0.02), "right_wrist": (-0.13, -0.1, 0.02), "left_hand": (0.07, -0.06, 0),
         "right_hand": (-0.07, -0.06, 0)}  # fmt: skip
# Keypoints as (joint, offset from it in metres); the rest of the layouts' names are joints of the body.
_FACE = {"nose": (0, 0.06, 0.1), "left_eye": (0.03, 0.09, 0.08), "right_eye": (-0.03, 0.09, 0.08),
         "left_ear": (0.07, 0.07, 0), "right_ear": (-0.07, 0.07, 0)}  # fmt: skip
_FOOT = {"big_toe": (0, -0.02, 0.07), "small_toe": (0.04, -0.02, 0.05), "heel": (0, -0.02, -0.18)}
_H36M = {"hip": "pelvis", "spine": "spine2", "thorax": "neck", "neck_nose": "head", "head": "head"}
_RING = 6


def small_body(seed: int = 0, joints: int = 22, shape: int = 4, vertices: int = 300, pose: bool = False) -> BodyModel:
    """A body of the first `joints` joints of SMPL-24 and about `vertices` vertices in tubes around its bones.

    Shape coefficient 0 is the size, the others are random smooth fields that joints and vertices share. Regressors of
    h36m17 and coco17_feet need 22 joints or more; `pose` adds pose blendshapes. The same seed gives the same body.
    """
    rng = np.random.default_rng(seed)
    layout = get_skeleton("smpl24")
    names, parents = layout.joints[:joints], layout.parents[:joints]
    rest = np.array([_REST[name] for name in names], np.float64)
    segments = _segments(names, parents, rest)
    rings = max(2, round(vertices / (len(segments) * _RING)))
    template = np.concatenate([_tube(start, end, rings, rng) for _, start, end in segments])
    count = len(template)
    field = _smooth_field(rng, shape)
    pose_directions = rng.normal(0, 0.004, (count, 3, 9 * (joints - 1))) if pose else None
    regressors = _regressors(names, rest, template) if joints >= 22 else {}
    coarse = np.arange(count).reshape(len(segments), rings, _RING)[:, :, ::2]
    return BodyModel(
        name="small", joints=names, parents=parents, template=template, shape_directions=field(template),
        joint_template=rest, joint_directions=field(rest), skin_weights=_weights(template, segments, joints),
        faces=_faces(len(segments), rings, _RING), pose_directions=pose_directions, regressors=regressors,
        shape_sigma=np.linspace(1, 0.5, shape), licence="none", metadata={"seed": seed},
        previews={"coarse": Preview(coarse.ravel(), _faces(len(segments), rings, _RING // 2))},
        extras={"numbers": np.arange(5)})


def random_pose(body: BodyModel, frames: int, seed: int = 0, angle: float = 0.4) -> tuple[np.ndarray, ...]:
    """Random rotation vectors (T, K, 3), trajectory (T, 3) some metres away, and shape (S,)."""
    rng = np.random.default_rng(seed)
    rotations = rng.normal(0, angle, (frames, body.num_joints, 3))
    return rotations, rng.normal(0, 1, (frames, 3)) + [0, 0, 4], rng.normal(0, 1, body.num_shape)


def _segments(names, parents, rest) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(joint, start, end) of what each joint carries: the bones to its children, or its end."""
    found = []
    for joint, name in enumerate(names):
        children = [child for child, parent in enumerate(parents) if parent == joint]
        ends = [rest[child] for child in children] or [rest[joint] + _ENDS.get(name, (0, -0.2, 0))]
        found += [(joint, rest[joint], end) for end in ends]
    return found


def _tube(start, end, rings, rng) -> np.ndarray:
    along = (end - start) / np.linalg.norm(end - start)
    first = np.cross(along, [0.3, 0.5, 0.81])
    first /= np.linalg.norm(first)
    second = np.cross(along, first)
    turn = np.arange(_RING) * 2 * np.pi / _RING
    circle = np.cos(turn)[:, None] * first + np.sin(turn)[:, None] * second
    centres = start + np.linspace(0, 1, rings)[:, None] * (end - start)
    radius = rng.uniform(0.04, 0.07, (rings, 1, 1))
    return (centres[:, None] + radius * circle).reshape(-1, 3)


def _faces(tubes: int, rings: int, ring: int) -> np.ndarray:
    """Triangles of closed tubes with `ring` vertices around, counter-clockwise from outside."""
    grid = np.arange(rings * ring).reshape(rings, ring)
    a, b = grid[:-1], np.roll(grid, -1, axis=1)[:-1]
    c, d = grid[1:], np.roll(grid, -1, axis=1)[1:]
    sides = np.stack([np.stack([a, b, d], -1), np.stack([a, d, c], -1)]).reshape(-1, 3)
    fan = np.stack([np.zeros(ring - 2, int), np.arange(2, ring), np.arange(1, ring - 1)], axis=1)
    caps = np.concatenate([grid[0][fan], grid[-1][fan[:, ::-1]]])
    tube = np.concatenate([sides, caps])
    return (np.arange(tubes)[:, None, None] * rings * ring + tube).reshape(-1, 3)


def _weights(template, segments, joints) -> sparse.csr_matrix:
    """Weights that fall off with the distance to a joint's bones; the best four bones of a vertex, no tiny ones."""
    distance = np.full((len(template), joints), np.inf)
    for joint, start, end in segments:
        along = end - start
        share = np.clip((template - start) @ along / (along @ along), 0, 1)
        gap = np.linalg.norm(template - start - share[:, None] * along, axis=1)
        distance[:, joint] = np.minimum(distance[:, joint], gap)
    weights = np.exp(-((distance / 0.05) ** 2))
    weights[weights < np.sort(weights, axis=1)[:, [-min(4, joints)]]] = 0
    weights[weights < 1e-2 * weights.max(axis=1, keepdims=True)] = 0
    return sparse.csr_matrix(weights / weights.sum(axis=1, keepdims=True))


def _smooth_field(rng, size):
    """Displacements (N, 3, S) that are smooth in space; the first direction is the size."""
    slopes, waves, phases = rng.normal(0, 0.02, (size, 3, 3)), rng.normal(0, 2, (size, 3)), rng.uniform(0, 6, size)

    def field(points: np.ndarray) -> np.ndarray:
        parts = [0.05 * points]
        for k in range(1, size):
            parts.append(points @ slopes[k].T * (1 + 0.3 * np.sin(points @ waves[k] + phases[k]))[:, None])
        return np.stack(parts[:size], axis=-1) if size else np.zeros((*points.shape, 0))

    return field


def _regressors(names, rest, template) -> dict[str, sparse.csr_matrix]:
    rows = {layout: [_row(_place(joint, names, rest), template, len(names)) for joint in get_skeleton(layout).joints]
            for layout in ("h36m17", "coco17_feet")}
    return {layout: sparse.csr_matrix(np.array(matrix)) for layout, matrix in rows.items()}


def _place(name, names, rest) -> tuple[int, np.ndarray]:
    """The joint next to a keypoint and where the keypoint lies."""
    side, _, part = name.partition("_")
    if name in _FACE:
        joint, offset = "head", _FACE[name]
    elif part in _FOOT:
        mirror = -1 if side == "right" else 1
        joint, offset = f"{side}_foot", _FOOT[part] * np.array([mirror, 1, 1])
    else:
        joint, offset = _H36M.get(name, name), (0, 0.12, 0) if name == "head" else (0, 0, 0)
    number = names.index(joint)
    return number, rest[number] + offset


def _row(place, template, joints) -> np.ndarray:
    """Weights over vertices and joint centres: half the joint where the point is one, else the nearest vertices."""
    joint, point = place
    nearest = np.argsort(np.linalg.norm(template - point, axis=1))[:6]
    row = np.zeros(len(template) + joints)
    row[nearest] = 1 / len(nearest)
    row[len(template) + joint] = 1
    return row / row.sum()
