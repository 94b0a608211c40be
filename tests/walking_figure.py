"""A procedural 17-joint walker for tests that need motion capture but no files."""

from __future__ import annotations

import numpy as np

from lifting.datasets.mocap import MocapPiece
from lifting.skeletons import get_skeleton

H36M = get_skeleton("h36m17")
THIGH, SHIN, UPPER_ARM, FOREARM = 0.43, 0.41, 0.29, 0.25
PELVIS_HEIGHT, SPINE, TRUNK, NECK, HEAD = 0.92, 0.24, 0.26, 0.11, 0.22
STATURE = 1.095 * (THIGH + SHIN + SPINE + TRUNK + HEAD)  # HEAD reaches from the thorax


def walker(frames: int = 60, speed: float = 1.0, fps: float = 50.0, phase: float = 0.0) -> np.ndarray:
    """Joints (T, 17, 3) metres, Z up, of somebody who walks along +Y (left is -X) and swings arms and legs."""
    time = np.arange(frames) / fps
    points = {"hip": _points(0.0, speed * time, PELVIS_HEIGHT)}
    points["spine"] = points["hip"] + [0, 0, SPINE]
    points["thorax"] = points["spine"] + [0, 0, TRUNK]
    points["neck_nose"] = points["thorax"] + NECK * np.array([0, 0.6, 0.8])
    points["head"] = points["thorax"] + HEAD * np.array([0, 0.28, 0.96])
    for side, sign in (("left", -1), ("right", 1)):
        swing = 0.5 * sign * np.sin(2 * np.pi * 0.9 * time + phase)
        points[f"{side}_hip"] = points["hip"] + [0.11 * sign, 0, 0]
        points[f"{side}_knee"] = points[f"{side}_hip"] + THIGH * _downward(swing)
        points[f"{side}_ankle"] = points[f"{side}_knee"] + SHIN * _downward(swing - 0.4)
        points[f"{side}_shoulder"] = points["thorax"] + [0.19 * sign, 0, 0]
        points[f"{side}_elbow"] = points[f"{side}_shoulder"] + UPPER_ARM * _downward(-swing)
        points[f"{side}_wrist"] = points[f"{side}_elbow"] + FOREARM * _downward(0.6 - swing)
    return np.stack([points[name] for name in H36M.joints], axis=1).astype(np.float32)


def walker_feet(joints: np.ndarray) -> np.ndarray:
    """Feet (T, 4, 3): left and right big toe, left and right heel."""
    ankles = joints[:, H36M.indices(["left_ankle", "right_ankle", "left_ankle", "right_ankle"])]
    return ankles + np.float32([[0, 0.18, -0.06], [0, 0.18, -0.06], [0, -0.05, -0.07], [0, -0.05, -0.07]])


def walking_piece(name: str = "walk", frames: int = 60, feet: bool = True, **options) -> MocapPiece:
    """The walker as a piece of motion capture; options are those of `walker`."""
    joints = walker(frames, **options)
    return MocapPiece(name, "7", "walk", "locomotion", "train", "asf/amc", joints, options.get("fps", 50.0),
                      walker_feet(joints) if feet else None)


def _points(x, y, z) -> np.ndarray:
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1)


def _downward(angle: np.ndarray) -> np.ndarray:
    return _points(0.0, np.sin(angle), -np.cos(angle))
