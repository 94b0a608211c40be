"""A lifted motion as a figure of bones that turn: what the formats with rotations hold where no body was fitted.

The tree is Human3.6M's own: the 17 joints, and three that lie on others (``spine_base`` on the hip, ``left_collar`` and
``right_collar`` on the thorax), which leave pelvis, lower spine and shoulders free to turn apart. At rest the figure
stands in a T-pose in the axes of a scene: +y up, +z forward, +x to the person's left.

Bone lengths are constant: the median over all frames. Every bone points from where its start came to lie to where the
motion has its end, so that a difference in length does not add up along a limb; where the bones of the motion are
constant and its pelvis is rigid, the figure's joints are the motion's.

Points on a bone's axis do not tell its twist. The convention for it: pelvis and upper trunk turn with the lines from
right to left hip and shoulder. A thigh or upper arm turns about itself so that its knee or elbow bends as a hinge, as
far as the limb is bent (by half at `HALF_BEND`); a straight one does not twist against the trunk. All other bones turn
the shortest way from the bone before them; hands, feet and head do not turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lifting.meshes import SkinnedMesh
from lifting.motion import Motion
from lifting.rotations import matrix_to_rotvec, rotation_between, unit_vectors
from lifting.skeletons import get_skeleton

Vector = tuple[float, float, float]

H36M = get_skeleton("h36m17")
PARENTS = {
    "hip": None, "right_hip": "hip", "right_knee": "right_hip", "right_ankle": "right_knee", "left_hip": "hip",
    "left_knee": "left_hip", "left_ankle": "left_knee", "spine_base": "hip", "spine": "spine_base", "thorax": "spine",
    "neck_nose": "thorax", "head": "neck_nose", "left_collar": "spine", "left_shoulder": "left_collar",
    "left_elbow": "left_shoulder", "left_wrist": "left_elbow", "right_collar": "spine",
    "right_shoulder": "right_collar", "right_elbow": "right_shoulder", "right_wrist": "right_elbow",
}  # fmt: skip
"""The joints of the figure and what each hangs on."""
JOINTS = tuple(PARENTS)
PLACES = {"spine_base": "hip", "left_collar": "thorax", "right_collar": "thorax"}
"""Joints of the figure that lie on another joint of the motion."""
_UP, _DOWN, _LEFT, _RIGHT = (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)
# Joint -> (the end of the bone that it turns, direction of that bone at rest). Those of neck and head are the mean of
# the motion capture (data/README.md) in the axes of the upper trunk: the joint between them lies in front.
AIMS: dict[str, tuple[str, Vector]] = {
    "spine_base": ("spine", _UP), "spine": ("thorax", _UP), "thorax": ("neck_nose", (0.0, 0.96, 0.28)),
    "neck_nose": ("head", (0.0, 0.87, -0.49)), "left_collar": ("left_shoulder", _LEFT),
    "left_shoulder": ("left_elbow", _LEFT), "left_elbow": ("left_wrist", _LEFT),
    "right_collar": ("right_shoulder", _RIGHT), "right_shoulder": ("right_elbow", _RIGHT),
    "right_elbow": ("right_wrist", _RIGHT), "right_hip": ("right_knee", _DOWN), "right_knee": ("right_ankle", _DOWN),
    "left_hip": ("left_knee", _DOWN), "left_knee": ("left_ankle", _DOWN),
}  # fmt: skip
# Joint -> (middle and end of its limb, the axis at rest about which the middle joint bends).
HINGES: dict[str, tuple[str, str, Vector]] = {
    "left_hip": ("left_knee", "left_ankle", (1.0, 0.0, 0.0)), "right_hip": ("right_knee", "right_ankle", _LEFT),
    "left_shoulder": ("left_elbow", "left_wrist", (0.0, -1.0, 0.0)),
    "right_shoulder": ("right_elbow", "right_wrist", (0.0, 1.0, 0.0)),
}  # fmt: skip
HALF_BEND = np.radians(15.0)
TWIST = ("pelvis and trunk: hip and shoulder lines; thigh, upper arm: knee, elbow as a hinge where bent, else none; "
         "others: shortest way, hands, feet and head none")
"""The convention of this module in a line, for files."""
NAME = "h36m17 skeleton"
BONE_WIDTH, BONE_WAIST = 0.11, 0.15  # of a bone's length: how wide it is, and where it is widest


def stick_figure(motion: Motion, person_id: int = 0) -> SkinnedMesh:
    """The figure that moves as a motion does, every bone with an octahedron around it.

    Args:
        motion: a motion of the layout h36m17, in any frame; without a trajectory, its root stays at the origin.
        person_id: whose it is.

    Returns a SkinnedMesh in the motion's frame, NaN where the person is absent. Raises ValueError for another layout,
    or a person who is in no frame.
    """
    check_layout(motion)
    joints = motion.joints if motion.trajectory is None else motion.absolute
    joints = joints.astype(np.float64)
    present = np.isfinite(joints).all(axis=(1, 2))
    if not present.any():
        raise ValueError(f"person {person_id} is in no frame, expected at least one whole pose; leave them out.")
    offsets, turned = solve_rotations(dict(zip(H36M.joints, np.moveaxis(joints[present], 1, 0), strict=True)))
    rotations = np.full((len(joints), len(JOINTS), 3), np.nan)
    rotations[present] = matrix_to_rotvec(_local(turned))
    rest = _rest_joints(offsets)
    parents = tuple(-1 if parent is None else JOINTS.index(parent) for parent in PARENTS.values())
    vertices, faces, bones = _octahedra(rest, parents)
    return SkinnedMesh(
        name=NAME, joints=JOINTS, parents=parents, rest_joints=rest, rest_vertices=vertices, faces=faces,
        bone_indices=bones[:, None], bone_weights=np.ones((len(bones), 1)), rotations=rotations,
        trajectory=joints[:, H36M.index("hip")], fps=motion.fps, frame=motion.frame, person_id=person_id,
    )  # fmt: skip


def check_layout(motion: Motion) -> None:
    """ValueError for a motion of another layout than h36m17."""
    if motion.skeleton != H36M:
        raise ValueError(f"got a motion of the layout {motion.skeleton.name!r}, expected {H36M.name!r}; only that has "
                         "known bones.")


def solve_rotations(points: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Constant offsets (3,) metres, and global rotations (T, 3, 3), of all `JOINTS` from the points (T, 3) by name."""
    points = {**points, **{joint: points[place] for joint, place in PLACES.items()}}
    turned = {"hip": _frames(points["left_hip"] - points["right_hip"], points["spine"] - points["hip"], first=True)}
    offsets = _constant_offsets(points, turned["hip"])
    places = {"hip": points["hip"]}
    for joint in JOINTS[1:]:
        above = PARENTS[joint]
        places[joint] = places[above] + turned[above] @ offsets[joint]
        turned[joint] = _turn(joint, turned[above], points, places[joint])
    return offsets, turned


def _turn(joint: str, above: np.ndarray, points: Mapping[str, np.ndarray], place: np.ndarray) -> np.ndarray:
    """Global rotations (T, 3, 3) of a joint at `place` (T, 3), its parent's being `above`."""
    if joint not in AIMS:
        return above
    end, direction = AIMS[joint]
    bone = points[end] - place
    if joint == "spine":
        return _frames(points["left_shoulder"] - points["right_shoulder"], bone, first=False)
    swung = rotation_between(above @ np.array(direction), bone) @ above
    return _twisted(joint, swung, points) if joint in HINGES else swung


def _twisted(joint: str, swung: np.ndarray, points: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rotations (T, 3, 3) turned on about the bone, so that the next joint bends about its hinge where it is bent."""
    middle, end, axis = HINGES[joint]
    upper, lower = unit_vectors(points[middle] - points[joint]), unit_vectors(points[end] - points[middle])
    seen = np.cross(upper, lower)
    sine = np.linalg.norm(seen, axis=-1, keepdims=True)
    share = sine**2 / (sine**2 + np.sin(HALF_BEND) ** 2)
    untwisted = swung @ np.array(axis)
    hinge = share * unit_vectors(seen) + (1 - share) * untwisted
    bone = swung @ np.array(AIMS[joint][1])
    return rotation_between(untwisted, hinge - (hinge * bone).sum(-1, keepdims=True) * bone) @ swung


def _constant_offsets(points: Mapping[str, np.ndarray], pelvis: np.ndarray) -> dict[str, np.ndarray]:
    """Where each joint lies from its parent at rest, (3,) metres; those of the hips as they lie in the pelvis."""
    offsets = {"hip": np.zeros(3)}
    for joint, (end, direction) in AIMS.items():
        length = np.median(np.linalg.norm(points[end] - points[joint], axis=-1))
        offsets[end] = length * unit_vectors(np.array(direction))
    for joint in ("left_hip", "right_hip"):
        inside = pelvis.swapaxes(-1, -2) @ (points[joint] - points["hip"])[..., None]
        offsets[joint] = np.median(inside[..., 0], axis=0)
    return offsets | {"spine_base": np.zeros(3), **dict.fromkeys(("left_collar", "right_collar"), offsets["thorax"])}


def _rest_joints(offsets: Mapping[str, np.ndarray]) -> np.ndarray:
    """(20, 3) metres, the joints at rest, the hip at the origin."""
    rest: dict[str, np.ndarray] = {}
    for joint, parent in PARENTS.items():
        rest[joint] = offsets[joint] + (0 if parent is None else rest[parent])
    return np.stack([rest[joint] for joint in JOINTS])


def _local(turned: Mapping[str, np.ndarray]) -> np.ndarray:
    """(T, 20, 3, 3) rotations of each joint's axes to its parent's."""
    return np.stack([turned[joint] if parent is None else turned[parent].swapaxes(-1, -2) @ turned[joint]
                     for joint, parent in PARENTS.items()], axis=1)


def _frames(across: np.ndarray, up: np.ndarray, first: bool) -> np.ndarray:
    """Rotations (T, 3, 3) whose x axis points along `across` and whose y axis along `up`, one of them exactly."""
    x, y = unit_vectors(across), unit_vectors(up)
    if first:
        y = unit_vectors(y - (x * y).sum(-1, keepdims=True) * x)
    else:
        x = unit_vectors(x - (x * y).sum(-1, keepdims=True) * y)
    frames = np.stack([x, y, np.cross(x, y)], axis=-1)
    frames[np.abs(np.linalg.det(frames) - 1) > 1e-3] = np.eye(3)  # a line without extent, or the two are parallel
    return frames



def _octahedra(rest: np.ndarray, parents: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3), faces (F, 3) and the joint that carries each vertex (V,): one octahedron around every bone."""
    bones = [(parent, joint) for joint, parent in enumerate(parents) if parent >= 0 and JOINTS[joint] not in PLACES]
    start, end = (rest[list(numbers)] for numbers in zip(*bones, strict=True))
    along = end - start
    side = unit_vectors(np.cross(along, np.where(np.abs(unit_vectors(along)[:, 2:]) < 0.9, [0.0, 0, 1], [1.0, 0, 0])))
    other = np.cross(unit_vectors(along), side)
    width = BONE_WIDTH / 2 * np.linalg.norm(along, axis=-1, keepdims=True)
    waist = start + BONE_WAIST * along
    ring = [waist + width * direction for direction in (side, other, -side, -other)]
    vertices = np.stack([start, *ring, end], axis=1).reshape(-1, 3)
    one = np.array([(0, b, a) for a, b in ((1, 2), (2, 3), (3, 4), (4, 1))] + [
        (5, a, b) for a, b in ((1, 2), (2, 3), (3, 4), (4, 1))])
    faces = (6 * np.arange(len(bones))[:, None, None] + one).reshape(-1, 3)
    return vertices, faces, np.repeat([parent for parent, _ in bones], 6)
