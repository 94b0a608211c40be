"""Joint angles of a lifted motion or a fitted body, by the definitions of the International Society of Biomechanics.

A segment is a rotation whose columns are its axes: x forward, y up along the segment, z to the person's right. Angles
are those of the distal segment in the axes of the proximal one:

    hip, knee, ankle   Cardan Z-X-Y: flexion, adduction, internal rotation (Grood & Suntay 1983; Wu et al. 2002, ISB
                       recommendation part I)
    trunk, neck        the same sequence, of the upper trunk in the pelvis, and the head in the upper trunk
    shoulder           Y-X-Y: plane of elevation, elevation, axial rotation of the humerus in the thorax (Wu et al.
                       2005, part II)
    elbow              flexion (Wu et al. 2005)
    pelvis             Y-X-Z in the axes of the frame, turned to +y up: rotation, obliquity, tilt (Baker 2001); the
                       rotation is zero for somebody who faces along +x

Left sides are mirrored, so that a sign means the same on both. Angles are radians.

What 17 joints tell: no segment has the three markers of the recommendations. The pelvis is taken from hips and lower
spine, so its tilt is that of the lower spine; the thorax from shoulders and upper spine; axial rotations of thigh and
upper arm from the plane in which knee and elbow bend, where they bend by `LEAST_BEND`, and are NaN elsewhere. Not
observable are the ankle, rotation and abduction of the knee, pronation of the forearm, the wrist, the shoulder blade,
and turning of the head; `UNOBSERVED` names them. Joint centres are the network's. With a fitted body, ankles, the
turning of the head and all axial rotations are there too, as far as the fit knew them (`BodyMotion.rotation_sigma`);
zero is then its rest pose with straight limbs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lifting.meshes import SkinnedMesh, forward_kinematics
from lifting.motion import Motion
from lifting.rotations import rotation_between, rotvec_to_matrix, unit_vectors
from lifting.skeletons import get_skeleton

__all__ = ["ANGLES", "UNOBSERVED", "Angle", "JointAngles", "body_angles", "joint_angles"]

H36M = get_skeleton("h36m17")
TO_Y_UP = {"camera": np.diag([1.0, -1.0, -1.0]), "world": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])}
LEAST_BEND = np.radians(20.0)
LOCK = 1e-9  # sine or cosine of the middle angle below which the other two are one
MIRROR = np.diag([1.0, 1.0, -1.0])
UNOBSERVED = ("ankle dorsiflexion", "knee rotation and abduction", "forearm pronation", "wrist", "shoulder blade",
              "turning of the head")
"""What 17 joints do not tell."""


@dataclass(frozen=True)
class Angle:
    """The definition of one angle.

    Attributes:
        name: its name, as a column of a table.
        proximal: the segment whose axes it is in, "ground" for those of the frame; distal: the segment that turns.
        sequence: the order of the axes; axis: which of the three angles it is; sign: 1, or -1 where the clinical
            direction is the other one.
        axial: whether it takes the turning of the distal segment about its own length.
        opensim: whether it is what OpenSim's full-body models call a coordinate of this name.
    """

    name: str
    proximal: str
    distal: str
    sequence: str
    axis: int
    sign: float = 1.0
    axial: bool = False
    opensim: bool = False


def _of_side(side: str) -> list[Angle]:
    thigh, shank, arm = f"{side}_thigh", f"{side}_shank", f"{side}_upper_arm"
    letter = side[0]
    return [
        Angle(f"{side}_hip_flexion", "pelvis", thigh, "ZXY", 0),
        Angle(f"{side}_hip_adduction", "pelvis", thigh, "ZXY", 1),
        Angle(f"{side}_hip_internal_rotation", "pelvis", thigh, "ZXY", 2, axial=True),
        Angle(f"{side}_knee_flexion", thigh, shank, "bend", 0),
        Angle(f"{side}_ankle_dorsiflexion", shank, f"{side}_foot", "ZXY", 0),
        Angle(f"{side}_shoulder_plane_of_elevation", "thorax", arm, "YXY", 0),
        Angle(f"{side}_shoulder_elevation", "thorax", arm, "YXY", 1, -1),
        Angle(f"{side}_shoulder_axial_rotation", "thorax", arm, "YXY", 2, axial=True),
        Angle(f"{side}_elbow_flexion", arm, f"{side}_forearm", "bend", 0),
        Angle(f"hip_flexion_{letter}", "pelvis", thigh, "ZXY", 0, opensim=True),
        Angle(f"hip_adduction_{letter}", "pelvis", thigh, "ZXY", 1, opensim=True),
        Angle(f"hip_rotation_{letter}", "pelvis", thigh, "ZXY", 2, axial=True, opensim=True),
        Angle(f"knee_angle_{letter}", thigh, shank, "bend", 0, opensim=True),
        Angle(f"ankle_angle_{letter}", shank, f"{side}_foot", "ZXY", 0, opensim=True),
        Angle(f"arm_flex_{letter}", "thorax", arm, "ZXY", 0, opensim=True),
        Angle(f"arm_add_{letter}", "thorax", arm, "ZXY", 1, opensim=True),
        Angle(f"arm_rot_{letter}", "thorax", arm, "ZXY", 2, axial=True, opensim=True),
        Angle(f"elbow_flex_{letter}", arm, f"{side}_forearm", "bend", 0, opensim=True),
    ]


ANGLES: tuple[Angle, ...] = (
    Angle("pelvis_rotation", "ground", "pelvis", "YXZ", 0),
    Angle("pelvis_obliquity", "ground", "pelvis", "YXZ", 1),
    Angle("pelvis_tilt", "ground", "pelvis", "YXZ", 2),
    Angle("trunk_flexion", "pelvis", "thorax", "ZXY", 0, -1),
    Angle("trunk_lateral_bending", "pelvis", "thorax", "ZXY", 1),
    Angle("trunk_rotation", "pelvis", "thorax", "ZXY", 2),
    Angle("neck_flexion", "thorax", "head", "ZXY", 0, -1),
    Angle("neck_lateral_bending", "thorax", "head", "ZXY", 1),
    Angle("neck_rotation", "thorax", "head", "ZXY", 2, axial=True),
    Angle("pelvis_tilt", "ground", "pelvis", "ZXY", 0, opensim=True),
    Angle("pelvis_list", "ground", "pelvis", "ZXY", 1, opensim=True),
    Angle("pelvis_rotation", "ground", "pelvis", "ZXY", 2, opensim=True),
    Angle("lumbar_extension", "pelvis", "thorax", "ZXY", 0, opensim=True),
    Angle("lumbar_bending", "pelvis", "thorax", "ZXY", 1, opensim=True),
    Angle("lumbar_rotation", "pelvis", "thorax", "ZXY", 2, opensim=True),
    *_of_side("right"),
    *_of_side("left"),
)  # fmt: skip
"""All angles; those of OpenSim's models differ in the sequences of pelvis and shoulder, and in their names."""


@dataclass(frozen=True, eq=False)
class JointAngles:
    """Joint angles over time.

    Attributes:
        names: A names of `ANGLES`.
        values: (T, A) float64 radians, those of the shoulder (Y-X-Y) within half a turn, all others without jumps by
            full turns; NaN where the person is absent or the angle is not observed.
        fps: frames per second.
        source: ``17 joints`` or the name of the body.
    """

    names: tuple[str, ...]
    values: np.ndarray
    fps: float
    source: str

    def __getitem__(self, name: str) -> np.ndarray:
        """(T,) radians; ValueError with the known names for another."""
        if name not in self.names:
            raise ValueError(f"there is no joint angle {name!r}; known are {', '.join(self.names)}.")
        return self.values[:, self.names.index(name)]


@dataclass(frozen=True)
class _Segments:
    """Axes (T, 3, 3) of each segment by name, and where their turning about their own length is known, (T,) bool."""

    axes: Mapping[str, np.ndarray]
    axial: Mapping[str, np.ndarray]
    fps: float
    source: str


def joint_angles(motion: Motion, *, opensim: bool = False) -> JointAngles:
    """The joint angles that the 17 joints of a motion tell.

    Args:
        motion: a motion of the layout h36m17. In the frame ``camera``, the pelvis's angles are those to the camera.
        opensim: the coordinates of OpenSim's full-body models instead of the ISB's.

    Raises ValueError for another layout.
    """
    if motion.skeleton != H36M:
        raise ValueError(f"got a motion of the layout {motion.skeleton.name!r}, expected {H36M.name!r}.")
    return _measure(_segments_of_joints(motion), opensim)


def body_angles(mesh: SkinnedMesh, *, opensim: bool = False) -> JointAngles:
    """The joint angles of a fitted body; arguments as of `joint_angles`.

    Raises ValueError for a body without the joints of the limbs of `smpl24`.
    """
    return _measure(_segments_of_body(mesh), opensim)


def _measure(segments: _Segments, opensim: bool) -> JointAngles:
    wanted = [angle for angle in ANGLES if angle.opensim == opensim and angle.distal in segments.axes
              and not (angle.axial and not segments.axial[angle.distal].any())]
    frames = len(next(iter(segments.axes.values())))
    values = np.full((frames, len(wanted)), np.nan)
    for column, angle in enumerate(wanted):
        values[:, column] = _value(angle, segments)
    return JointAngles(tuple(angle.name for angle in wanted), values, segments.fps, segments.source)


def _value(angle: Angle, segments: _Segments) -> np.ndarray:
    """(T,) radians of one angle."""
    distal = segments.axes[angle.distal]
    relative = distal
    if angle.proximal != "ground":
        relative = segments.axes[angle.proximal].swapaxes(-1, -2) @ distal
    if angle.sequence == "bend":
        return np.arccos(np.clip(relative[:, 1, 1], -1, 1))
    if angle.distal.startswith("left_"):
        relative = MIRROR @ relative @ MIRROR
    values = angle.sign * DECOMPOSE[angle.sequence](relative)[angle.axis]
    values = np.where(segments.axial[angle.distal], values, np.nan) if angle.axial else values
    return values if angle.sequence == "YXY" else _unwrapped(values)  # next to its pole, full turns would pile up


def _zxy(m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angles of ``Rz @ Rx @ Ry``; in gimbal lock the last is zero."""
    cosine = np.hypot(m[:, 0, 1], m[:, 1, 1])
    first = np.where(cosine < LOCK, np.arctan2(m[:, 1, 0], m[:, 0, 0]), np.arctan2(-m[:, 0, 1], m[:, 1, 1]))
    return first, np.arctan2(m[:, 2, 1], cosine), np.where(cosine < LOCK, 0, np.arctan2(-m[:, 2, 0], m[:, 2, 2]))


def _yxz(m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angles of ``Ry @ Rx @ Rz``; in gimbal lock the last is zero."""
    cosine = np.hypot(m[:, 0, 2], m[:, 2, 2])
    first = np.where(cosine < LOCK, np.arctan2(-m[:, 2, 0], m[:, 0, 0]), np.arctan2(m[:, 0, 2], m[:, 2, 2]))
    return first, np.arctan2(-m[:, 1, 2], cosine), np.where(cosine < LOCK, 0, np.arctan2(m[:, 1, 0], m[:, 1, 1]))


def _yxy(m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angles of ``Ry @ Rx @ Ry`` with the middle one in -180..0 degrees, as of an arm; at its ends the last is zero."""
    sine = np.hypot(m[:, 0, 1], m[:, 2, 1])
    first = np.where(sine < LOCK, np.arctan2(-m[:, 2, 0], m[:, 0, 0]), np.arctan2(-m[:, 0, 1], -m[:, 2, 1]))
    return first, -np.arctan2(sine, m[:, 1, 1]), np.where(sine < LOCK, 0, np.arctan2(-m[:, 1, 0], m[:, 1, 2]))


DECOMPOSE = {"ZXY": _zxy, "YXZ": _yxz, "YXY": _yxy}


def _unwrapped(values: np.ndarray) -> np.ndarray:
    """Angles without jumps by full turns, also across gaps."""
    values, known = values.copy(), np.isfinite(values)
    values[known] = np.unwrap(values[known])
    return values


# ---- segments from 17 joints


def _segments_of_joints(motion: Motion) -> _Segments:
    points = motion.joints.astype(np.float64) @ TO_Y_UP[motion.frame].T
    at = dict(zip(H36M.joints, np.moveaxis(points, 1, 0), strict=True))
    axes = {"pelvis": _axes(at["spine"] - at["hip"], at["right_hip"] - at["left_hip"], exact_side=True),
            "thorax": _axes(at["thorax"] - at["spine"], at["right_shoulder"] - at["left_shoulder"])}
    axes["head"] = _axes(at["head"] - at["thorax"], axes["thorax"][..., 2])
    everywhere, nowhere = np.ones(len(motion), bool), np.zeros(len(motion), bool)
    axial = {"pelvis": everywhere, "thorax": everywhere, "head": nowhere}
    for side in ("left", "right"):
        for upper, lower, names, trunk, bends in (
            ("thigh", "shank", ("hip", "knee", "ankle"), "pelvis", -1.0),
            ("upper_arm", "forearm", ("shoulder", "elbow", "wrist"), "thorax", 1.0),
        ):
            start, middle, end = (at[f"{side}_{name}"] for name in names)
            hinge = np.cross(unit_vectors(middle - start), unit_vectors(end - middle))
            seen = np.arctan2(np.linalg.norm(hinge, axis=-1),
                              (unit_vectors(middle - start) * unit_vectors(end - middle)).sum(-1)) >= LEAST_BEND
            side_axis = np.where(seen[:, None], bends * hinge, _carried(axes[trunk], start - middle))
            axes[f"{side}_{upper}"] = _axes(start - middle, side_axis)
            axes[f"{side}_{lower}"] = _axes(middle - end, side_axis)
            axial |= {f"{side}_{upper}": seen, f"{side}_{lower}": seen}
    return _Segments(axes, axial, motion.fps, "17 joints")


def _carried(axes: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The z axis (T, 3) of a segment turned the shortest way until its y axis points along `up` (T, 3)."""
    return np.einsum("tij,tj->ti", rotation_between(axes[..., 1], up), axes[..., 2])


def _axes(up: np.ndarray, side: np.ndarray, exact_side: bool = False) -> np.ndarray:
    """Axes (T, 3, 3) with y along `up` and z near `side` (T, 3), or the other way round; NaN where parallel."""
    y, z = unit_vectors(up), unit_vectors(side)
    if exact_side:
        y = unit_vectors(y - (y * z).sum(-1, keepdims=True) * z)
    else:
        z = unit_vectors(z - (y * z).sum(-1, keepdims=True) * y)
    axes = np.stack([np.cross(y, z), y, z], axis=-1)
    axes[np.abs(np.linalg.norm(axes[..., 0], axis=-1) - 1) > 1e-3] = np.nan
    return axes



# ---- segments of a body


def _segments_of_body(mesh: SkinnedMesh) -> _Segments:
    rest = dict(zip(mesh.joints, mesh.rest_joints.astype(np.float64), strict=True))
    missing = [name for name in BODY_LIMBS if name not in rest]
    if missing:
        raise ValueError(f"the body {mesh.name!r} has no joint {missing[0]!r}, expected the joints of smpl24.")
    rotations = rotvec_to_matrix(mesh.rotations)
    turned, _ = forward_kinematics(rotations, mesh.trajectory, mesh.rest_joints.astype(np.float64), mesh.parents)
    turned = TO_Y_UP[mesh.frame] @ turned
    at_rest = _rest_segments(rest)
    axes = {name: turned[:, mesh.joints.index(joint)] @ axes for name, (joint, axes) in at_rest.items()}
    return _Segments(axes, dict.fromkeys(axes, np.ones(len(mesh), bool)), mesh.fps, mesh.name)


BODY_LIMBS = tuple(f"{side}_{joint}" for side in ("left", "right")
                   for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")) + ("spine3", "head")
BODY_AXES = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
"""Columns: forward, up and right in the rest axes of a body (+y up, +z forward, +x to its left)."""


def _rest_segments(rest: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """For each segment the joint that turns it, and its axes (3, 3) at rest.

    Trunk, head and feet stand at rest as they do when all angles are zero; limbs have the axis of their knee or elbow
    at right angles to the limb and to the body's front.
    """
    segments = {"pelvis": (next(iter(rest)), BODY_AXES), "thorax": ("spine3", BODY_AXES), "head": ("head", BODY_AXES)}
    front = BODY_AXES[:, 0]
    for side in ("left", "right"):
        segments[f"{side}_foot"] = (f"{side}_ankle", BODY_AXES)
        for upper, lower, names in (("thigh", "shank", ("hip", "knee", "ankle")),
                                    ("upper_arm", "forearm", ("shoulder", "elbow", "wrist"))):
            start, middle, end = (rest[f"{side}_{name}"] for name in names)
            for segment, joint, along in ((upper, names[0], start - middle), (lower, names[1], middle - end)):
                axes = _axes(along[None], np.cross(front, along)[None])[0]
                segments[f"{side}_{segment}"] = (f"{side}_{joint}", axes)
    return segments
