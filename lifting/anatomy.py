"""Measures of a human figure in the H36M-17 layout: bone lengths, stature, a frame fixed to the trunk.

Everything here is numpy, works on any leading axes and takes metres.
"""

from __future__ import annotations

import numpy as np

from lifting.skeletons import get_skeleton

H36M = get_skeleton("h36m17")
HIP, THORAX, HEAD, NECK_NOSE, SPINE = H36M.indices(["hip", "thorax", "head", "neck_nose", "spine"])
_SIDES = ("left", "right")
# Stature over the length of the chain ankle-knee-hip, root-spine-thorax-head. The chain leaves out the height of the
# ankle above the sole (4 % of stature) and of the crown above Human3.6M's head point (4 to 5 %).
STATURE_PER_CHAIN = 1.095


def bone_lengths(joints: np.ndarray) -> np.ndarray:
    """Lengths of the 16 bones of H36M-17 in the order of ``Skeleton.bones``.

    joints: (..., 17, 3) metres, any frame. Returns (..., 16) metres.
    """
    parents, children = np.array(H36M.bones).T
    return np.linalg.norm(joints[..., children, :] - joints[..., parents, :], axis=-1)


def stature(joints: np.ndarray) -> float:
    """Standing height of a person in metres, from the median bone lengths of a motion.

    joints: (T, 17, 3) metres, any frame; frames with NaN are left out. Raises ValueError without a finite frame.
    """
    joints = np.asarray(joints, dtype=np.float64).reshape(-1, H36M.num_joints, 3)
    joints = joints[np.isfinite(joints).all(axis=(1, 2))]
    if not len(joints):
        raise ValueError("cannot measure the stature of a motion without a finite frame; give at least one frame")
    return float(STATURE_PER_CHAIN * np.median(chain_length(joints)))


def chain_length(joints: np.ndarray) -> np.ndarray:
    """Leg (mean of both sides) plus trunk plus neck and head, (...,) metres."""

    def distance(a: str, b: str) -> np.ndarray:
        return np.linalg.norm(joints[..., H36M.index(a), :] - joints[..., H36M.index(b), :], axis=-1)

    leg = sum(distance(f"{s}_hip", f"{s}_knee") + distance(f"{s}_knee", f"{s}_ankle") for s in _SIDES) / 2
    return leg + distance("hip", "spine") + distance("spine", "thorax") + distance("thorax", "head")


def check_height(height: float | None) -> None:
    """ValueError for a stature that no person has."""
    if height is not None and not 0.3 <= height <= 3.0:
        raise ValueError(f"got a height of {height} m, expected between 0.3 and 3; give the person's stature in metres")


def trunk_frames(joints: np.ndarray) -> np.ndarray:
    """Rotation of the trunk, columns (to the person's left, up, forward), from hips and thorax.

    joints: (..., 17, 3). Returns (..., 3, 3), a proper rotation; the identity where the trunk has no extent.
    """
    up = joints[..., THORAX, :] - joints[..., HIP, :]
    across = joints[..., H36M.index("left_shoulder"), :] - joints[..., H36M.index("right_shoulder"), :]
    across = across + joints[..., H36M.index("left_hip"), :] - joints[..., H36M.index("right_hip"), :]
    return frame_from_axes(across, up)


def frame_from_axes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rotation matrices whose second column is ``second`` and whose first lies closest to ``first``.

    first, second: (..., 3) of any length. Returns (..., 3, 3); the identity where one of the two is zero or they are
    parallel to the last bit (next to that, rounding decides which rotation around ``second`` comes out).
    """
    y = _unit(second)
    x = _unit(first - (first * y).sum(-1, keepdims=True) * y)
    z = np.cross(x, y)
    frame = np.stack([x, y, z], axis=-1)
    broken = np.abs(np.linalg.norm(z, axis=-1) - 1) > 1e-3
    frame[broken] = np.eye(3, dtype=frame.dtype)
    return frame


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-9)
