"""From bones at any frame rate to clean 50 Hz pieces on the floor, as the lifters train on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lifting.datasets.h36m_joints import BoneMotion, build_feet, build_joints, lowest_toe
from lifting.datasets.mocap import FPS, JOINTS, MocapPiece

MAX_ACCELERATION = 350.0
"""m/s^2; recorded people stay below, marker mistakes do not."""
CUT_MARGIN = 2
"""Frames at 50 Hz left out on either side of a mistake: the spline rings there."""
MIN_FRAMES = 50
VAL_SUBJECTS = ("05", "09", "10")
"""Subjects whose pieces get the split `val`, as in the project's benchmark."""

LEG_LENGTHS = (0.4, 1.4)  # metres, children to giants: outside, the length unit is wrong


@dataclass(frozen=True)
class ClipLabels:
    """What is known of a clip besides its motion.

    Attributes:
        name: unique, such as `14_24`.
        subject: the person, such as `14`.
        action, category: what is done.
        kind: the file format it came from.
        source: the file it came from.
        skeleton: whose bone lengths it has.
    """

    name: str
    subject: str
    action: str = ""
    category: str = "unknown"
    kind: str = ""
    source: str = ""
    skeleton: str = ""


def convert_clip(bones: BoneMotion, labels: ClipLabels) -> list[MocapPiece]:
    """Turn one recording into pieces at 50 Hz: cut at marker mistakes, lowest toes on the floor, feet included.

    Returns:
        the pieces, called `labels.name`, then with `b`, `c`, ... behind it; none where less than a second is left.

    Raises:
        ValueError: the body is not the size of a human: the length unit is wrong.
    """
    points = np.concatenate([build_joints(bones), build_feet(bones)], axis=1)
    _check_size(points, labels)
    floor = lowest_toe(bones)
    points[..., 2] -= floor
    points = resample(points, bones.fps, FPS)
    spans = list(_clean_spans(points[:, : len(JOINTS)]))
    pieces = [_cut(points, span, labels, number) for number, span in enumerate(spans)]
    for piece in pieces:
        piece.attributes.update(floor_shift=floor, source_fps=bones.fps)
    return pieces


def _check_size(points: np.ndarray, labels: ClipLabels) -> None:
    leg = np.linalg.norm(
        np.diff(points[0, [JOINTS.index(name) for name in ("RHip", "RKnee", "RFoot")]], axis=0), axis=-1
    ).sum()
    if not LEG_LENGTHS[0] <= leg <= LEG_LENGTHS[1]:
        raise ValueError(
            f"{labels.source or labels.name}: the leg is {leg:.3g} m long; expected {LEG_LENGTHS[0]} to "
            f"{LEG_LENGTHS[1]} m; correct the length unit (`--unit` for .bvh, :units in an .asf)."
        )


def resample(points: np.ndarray, source_fps: float, fps: float) -> np.ndarray:
    """Resample (T, ...) over time by a cubic spline; the first frame keeps its time, nothing is extrapolated."""
    from scipy.interpolate import CubicSpline

    if len(points) < 4 or source_fps == fps:
        return points
    times = np.arange(len(points)) / source_fps
    count = int(np.floor(times[-1] * fps + 1e-6)) + 1
    return CubicSpline(times, points)(np.minimum(np.arange(count) / fps, times[-1]))


def _clean_spans(joints: np.ndarray) -> Iterator[slice]:
    if len(joints) < MIN_FRAMES:
        return
    acceleration = np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1).max(axis=1) * FPS**2
    bad = np.zeros(len(joints), dtype=bool)
    for frame in np.flatnonzero(acceleration > MAX_ACCELERATION) + 1:
        bad[max(frame - CUT_MARGIN, 0) : frame + CUT_MARGIN + 1] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[True], bad, [True]]).astype(int)))
    for start, stop in edges.reshape(-1, 2):
        if stop - start >= MIN_FRAMES:
            yield slice(int(start), int(stop))


def _cut(points: np.ndarray, span: slice, labels: ClipLabels, number: int) -> MocapPiece:
    points = points[span].astype(np.float32)
    suffix = "" if number == 0 else chr(ord("a") + number) if number < 26 else f"_{number + 1}"
    speed = np.linalg.norm(np.diff(points[:, : len(JOINTS)], axis=0), axis=-1).max() * FPS
    return MocapPiece(
        name=labels.name + suffix,
        subject=labels.subject,
        action=labels.action,
        category=labels.category,
        split="val" if labels.subject in VAL_SUBJECTS else "train",
        kind=labels.kind,
        joints=points[:, : len(JOINTS)],
        feet=points[:, len(JOINTS) :],
        attributes={
            "quality": "original",
            "skeleton": labels.skeleton,
            "source": labels.source,
            "first_frame": span.start,
            "max_joint_speed": float(speed),
        },
    )
