"""What movie strips are made of: per frame the lifted pose seen from the person, and how the 2D evidence disagrees.

PHD, HMMR and TCMR read a vector of image features per frame; here it is made of what a lifter knows. The pose is told
in the person's own heading, so that a strip does not depend on where somebody stands, which way they face, or where the
camera is. The 2D evidence is told as the way from every lifted joint to the ray of its keypoint, in metres and in the
same axes: nought where the lift explains the image. Image features of a backbone go behind these numbers on the last
axis (`lifting.datasets.image_features`).
"""

from __future__ import annotations

import numpy as np

from lifting.anatomy import H36M
from lifting.headings import Heading, heading_of, turn_of
from lifting.seen_motion import SeenMotion
from lifting.skeletons import get_skeleton, joint_map

EVIDENCE = 13
"""Keypoints that count: nose to ankles, the first of the layout `lift17`."""
SOURCE = joint_map(H36M, get_skeleton("lift17")).weights[:EVIDENCE].argmax(-1)
"""The H36M-17 joint of every such keypoint."""
PARTS = {"joints": 3 * (H36M.num_joints - 1), "offsets": 3 * EVIDENCE, "scores": EVIDENCE,
         "doubt": H36M.num_joints - 1, "view": 3, "depth": 1, "way": 4}  # fmt: skip
"""Numbers per frame, in this order; the last are the only ones that come from two frames."""
FEATURES = sum(PARTS.values())
FARTHEST = 0.3  # metres: a keypoint further off its joint is wrong
JOINT_UNIT, OFFSET_UNIT, SIGMA_UNIT, DEPTH_UNIT, WAY_UNIT = 0.25, 0.05, 0.1, 4.0, 0.05  # metres
TURN_UNIT = 0.05  # radians
WAY_UNITS = np.array([WAY_UNIT, WAY_UNIT, WAY_UNIT, TURN_UNIT])


def strip_features(seen: SeenMotion, heading: Heading | None = None) -> np.ndarray:
    """The features (N, T, FEATURES), float32, of what was seen, in units that make them about one.

    heading: whose axes the numbers are told in: of every frame (..., 3, 3), by default its own. Without 2D evidence its
    numbers are nought. A frame depends on itself and, in its last four numbers (`way_of`), on the frame before it.
    """
    heading = heading or heading_of(seen.joints, seen.root)
    turn = np.broadcast_to(heading.rotation, (len(seen), seen.frames, 3, 3))
    offsets, scores, view, depth = _evidence(seen, turn)
    parts = [
        _flat(seen.joints[:, :, 1:] @ np.swapaxes(turn, -1, -2)) / JOINT_UNIT,
        _flat(offsets) / OFFSET_UNIT,
        scores,
        np.log(np.maximum(seen.sigma[..., 1:], 1e-3) / SIGMA_UNIT),
        view,
        depth,
        way_of(seen.joints, seen.root, turn) / WAY_UNITS,
    ]
    return np.concatenate(parts, -1).astype(np.float32)


def without_motion(features: np.ndarray) -> np.ndarray:
    """The same features as those of a single picture: nothing of them comes from the frame before."""
    still = features.copy()
    still[..., -PARTS["way"] :] = 0.0
    return still


def without_evidence(features: np.ndarray) -> np.ndarray:
    """The same features as those of a motion whose keypoints are not known, as after other tools."""
    blind, start = features.copy(), PARTS["joints"]
    blind[..., start : start + PARTS["offsets"] + PARTS["scores"]] = 0.0
    blind[..., -sum(PARTS[name] for name in ("view", "depth", "way")) : -PARTS["way"]] = 0.0
    return blind


def way_of(joints: np.ndarray, root: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """How people moved since the frame before, (N, T, 4): metres to their left, back, up, and the turn in radians.

    joints (N, T, 17, 3), root (N, T, 3): metres, world; rotation: (N, T, 3, 3), the heading that the way is told in;
    the turn is that of the poses' own headings. Nought in the first frame.
    """
    steps = np.diff(root, axis=1, prepend=root[:, :1])
    turns = np.diff(turn_of(heading_of(joints, root)), axis=1)
    turns = np.pad(np.angle(np.exp(1j * turns)), ((0, 0), (1, 0)))
    return np.concatenate([np.einsum("ntij,ntj->nti", rotation, steps), turns[..., None]], -1)


def _evidence(seen: SeenMotion, turn: np.ndarray) -> tuple[np.ndarray, ...]:
    """Ways from joints to rays, scores, the camera's direction and the logarithm of depth, in the axes of `turn`."""
    if not seen.has_evidence:
        sizes = [(EVIDENCE, 3), (EVIDENCE,), (3,), (1,)]
        return tuple(np.zeros((len(seen), seen.frames, *size), np.float32) for size in sizes)
    camera = np.einsum("nij,ntkj->ntki", seen.view, seen.joints[:, :, SOURCE]) + seen.root_in_camera[:, :, None]
    scores = seen.scores[..., :EVIDENCE]
    offsets = np.zeros_like(camera)
    offsets[..., :2] = seen.rays[..., :EVIDENCE, :] * camera[..., 2:] - camera[..., :2]
    near = (scores > 0) & (np.linalg.norm(offsets, axis=-1) < FARTHEST)
    offsets = np.where(near[..., None], offsets, 0.0)
    axes = np.einsum("ntij,nkj->ntik", turn, seen.view)  # person's axes from camera axes
    depth = np.log(np.maximum(seen.root_in_camera[..., 2:], 0.1) / DEPTH_UNIT)
    return np.einsum("ntij,ntkj->ntki", axes, offsets), np.where(near, scores, 0.0), axes[..., 2], depth


def _flat(points: np.ndarray) -> np.ndarray:
    return points.reshape(*points.shape[:-2], -1)
