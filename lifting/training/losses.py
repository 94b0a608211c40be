"""Losses of the lifters: pure functions of tensors.

Lengths are in metres (``velocity`` in metres per frame), the root's errors in shares of its depth, ``sigma`` in natural
logarithms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lifting.models.lifter import Lift
from lifting.skeletons import get_skeleton

SIGMA_QUANTILE = 0.68
_PARENTS, _CHILDREN = (list(ends) for ends in zip(*get_skeleton("h36m17").bones, strict=True))
DEFAULT_WEIGHTS = {
    "pose": 1.0, "across": 1.0, "scaled_pose": 0.5, "velocity": 8.0, "bones": 0.3, "root": 1.0, "root_velocity": 4.0,
    "sigma": 0.2,
}  # fmt: skip


def lift_losses(lift: Lift, joints: Tensor, root: Tensor) -> dict[str, Tensor]:
    """Named losses, scalars, of a lift against the truth.

    joints: (N, T, 17, 3) metres relative to the root, root: (N, T, 3) metres, camera axes. Raises ValueError for a
    single frame, which has no velocity.
    """
    if root.shape[1] < 2:
        raise ValueError(f"got windows of {root.shape[1]} frame; expected at least 2, since one has no velocity")
    depth = root[..., 2:].clamp_min(0.5)
    error = distance(lift.joints, joints)
    root_error = (lift.root - root) / depth
    return {
        "pose": error[..., 1:].mean(),
        "across": across_sight(lift.joints - joints, joints + root[:, :, None])[..., 1:].mean(),
        "scaled_pose": distance(best_scale(lift.joints, joints) * lift.joints, joints)[..., 1:].mean(),
        "velocity": distance(lift.joints.diff(dim=1), joints.diff(dim=1)).mean(),
        "bones": (bone_lengths(lift.joints) - bone_lengths(joints)).abs().mean(),
        "root": root_error.norm(dim=-1).mean(),
        "root_velocity": root_error.diff(dim=1).norm(dim=-1).mean(),
        "sigma": quantile_loss(lift.log_sigma[..., 1:], error[..., 1:].detach(), SIGMA_QUANTILE),
    }


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance over the last axis with a finite gradient at zero, where it is 0.01 mm."""
    return ((a - b).square().sum(-1) + 1e-10).sqrt()


def across_sight(error: Tensor, place: Tensor) -> Tensor:
    """Length (...) of the part of an error (..., 3) at right angles to the line of sight to a place (..., 3).

    Depth is the larger part of a lift's error, so the gradient of the whole length hardly looks at the image plane.
    """
    sight = place / distance(place, torch.zeros_like(place))[..., None]
    return distance(error, (error * sight).sum(-1, keepdim=True) * sight)


def best_scale(prediction: Tensor, truth: Tensor) -> Tensor:
    """Least-squares scale of each frame's prediction, (..., 1, 1) (N-MPJPE, Rhodin et al. 2018)."""
    power = prediction.square().sum((-1, -2), keepdim=True).clamp_min(1e-4)
    return (prediction * truth).sum((-1, -2), keepdim=True) / power


def bone_lengths(joints: Tensor) -> Tensor:
    """Bone lengths (..., 16) metres of H36M-17 joints (..., 17, 3)."""
    return distance(joints[..., _CHILDREN, :], joints[..., _PARENTS, :])


def quantile_loss(log_radius: Tensor, error: Tensor, quantile: float) -> Tensor:
    """Pinball loss in the log domain: its minimum is the radius that holds ``quantile`` of the errors (Koenker 1978).

    log_radius and error (metres, counted as at least 0.1 mm) have one shape. Returns a scalar.
    """
    excess = error.clamp_min(1e-4).log() - log_radius
    return torch.maximum(quantile * excess, (quantile - 1) * excess).mean()
