"""Errors on clips with labels, cheap enough to watch a run; the full tables are `lifting.training.evaluate`'s."""

from __future__ import annotations

import math

import numpy as np
import torch

from lifting.datasets.clips import ClipSet
from lifting.datasets.frame_store import fill_unseen, frame_table
from lifting.metrics import mpjpe, mpjve, p_mpjpe, root_error
from lifting.models.temporal import lift_sequence
from lifting.training.networks import Networks

MILLIMETRES = 1000.0


def validate(networks: Networks, clips: ClipSet, *, downsample: int = 1, scores: bool = False,
             frames: int | None = None) -> dict[str, float]:
    """Mean errors in mm over frames, without flip: Protocol 1 and 2, velocity per frame and the root's if predicted.

    frames: take every so manieth clip that about so many frames are left; None: all of them. Leaves the networks in
    eval mode. Raises ValueError for clips without labels.
    """
    networks.eval()
    every = 1 if frames is None else math.ceil(clips.frames / downsample / frames)
    rows = [_errors(networks, clips, index, downsample, scores) for index in range(0, len(clips), every)]
    names = {name: None for row in rows for name in row}
    return {name: round(_mean(rows, name), 3) for name in names if name != "frames"}


def _errors(networks: Networks, clips: ClipSet, index: int, downsample: int, scores: bool) -> dict[str, float]:
    clip = clips.read(index)
    if clip.motion is None:
        raise ValueError(f"clip {clip.name} has no labels to validate on; choose other subjects.")
    parameter = next(networks.parameters())
    features = fill_unseen(frame_table(clip, scores, downsample)["keypoints"])  # with scores, nothing is left to fill
    keypoints = torch.from_numpy(features)[None].to(parameter)
    pose = lift_sequence(networks.pose, keypoints)[0].cpu().numpy()
    joints = clip.motion.joints[::downsample]
    errors = {"mpjpe_mm": mpjpe(pose, joints), "p_mpjpe_mm": p_mpjpe(pose, joints)}
    if len(pose) > 1:
        errors["mpjve_mm_frame"] = mpjve(pose, joints)
    if networks.trajectory is not None and clip.motion.trajectory is not None:
        root = lift_sequence(networks.trajectory, keypoints)[0, :, 0].cpu().numpy()
        errors["root_mm"] = root_error(root, clip.motion.trajectory[::downsample])
    return {name: MILLIMETRES * value for name, value in errors.items()} | {"frames": len(pose)}


def _mean(rows: list[dict[str, float]], name: str) -> float:
    values, weights = zip(*((row[name], row["frames"]) for row in rows if name in row), strict=True)
    return float(np.average(values, weights=weights))
