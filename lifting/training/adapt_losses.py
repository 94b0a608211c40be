"""What unlabelled footage says about a lift: it must project onto the keypoints, and bones do not change their lengths.

Terms after Pavllo et al. 2019 (section 4, back-projection and bone lengths), Sun et al. 2020 and Zhang et al. 2020
(inference-stage adaptation, anchored to the network that it starts from). Everything works on rays, where no camera is
outside the training range, and is a share of the person's size in view, so that distance does not matter.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lifting.models.lifter import Lift
from lifting.skeletons import get_skeleton
from lifting.training.losses import bone_lengths

_INPUT, _OUTPUT = get_skeleton("lift17"), get_skeleton("h36m17")
# Joints that both layouts have; a detector's nose is not H36M's joint 9, feet are not lifted.
SHARED = tuple(name for name in _INPUT.joints if name in _OUTPUT.joints)
_IN, _OUT = list(_INPUT.indices(SHARED)), list(_OUTPUT.indices(SHARED))
NEAREST = 0.2  # metres: nearer points project as if they were this far ahead
OUTLIER = 0.15  # Geman-McClure scale, in spreads of the person's keypoints (about half a metre)
SYSTEMATIC = 0.7  # share of a joint's mean error over a clip that is taken for the detector's, not the network's
USUAL = 2.0  # spreads within which every bone is as good as another
SHORTEST = 0.01  # metres, where the logarithm of a bone's length stops


class Sight(NamedTuple):
    """What was seen: rays (N, T, 17, 2) as x/z, y/z in the layout ``lift17``, NaN unseen; scores (N, T, 17), 0 unseen;
    spread (N, T), root mean square distance of the keypoints from their centre in ray units (`encode_rays`)."""

    rays: Tensor
    scores: Tensor
    spread: Tensor


class Bodies(NamedTuple):
    """Logarithms of the bone lengths (metres) of the bodies trained on: mean (16,) and spread (16,), a deviation."""

    mean: Tensor
    spread: Tensor


class Start(NamedTuple):
    """What the network said before it was adapted: joints (N, T, 17, 3) and root (N, T, 3), metres, camera axes."""

    joints: Tensor
    root: Tensor


def adapt_losses(lift: Lift, sight: Sight, start: Start, bodies: Bodies) -> dict[str, Tensor]:
    """Named losses, scalars: projection, bones (constant in time), typical (like the bodies trained on), anchor."""
    logs = log_bone_lengths(lift.joints)
    return {
        "projection": projection_error(lift.joints, lift.root, sight),
        "bones": bone_change(logs),
        "typical": bone_deviation(logs, bodies),
        "anchor": anchor_error(lift, start),
    }


def projection_error(joints: Tensor, root: Tensor, sight: Sight) -> Tensor:
    """Mean robust squared angle between joints and their rays, in spreads of the person, weighted by the scores.

    joints (N, T, 17, 3) metres relative to the root (N, T, 3). What a joint is off by in the mean over the clip is not
    counted: a detector means another point by a joint's name than motion capture does, and to follow it there costs
    more accuracy than it gains. Geman-McClure: an error far above `OUTLIER` has no pull.
    """
    rays = sight.rays[:, :, _IN]
    seen = torch.isfinite(rays).all(-1) & (sight.scores[:, :, _IN] > 0)
    rays = torch.where(seen[..., None], rays, 0.0)
    weight = torch.where(seen, sight.scores[:, :, _IN], 0.0)
    points = joints[:, :, _OUT] + root[:, :, None]
    offset = points[..., :2] / points[..., 2:].clamp_min(NEAREST) - rays
    # Tangents grow with the square of the ray's length along it: without the division wide views would count more.
    offset = offset / sight.spread[..., None, None] / (1 + rays.square().sum(-1, keepdim=True)).sqrt()
    offset = offset - SYSTEMATIC * systematic_offset(offset.detach(), weight)
    square = offset.square().sum(-1)
    return (weight * square / (1 + square / OUTLIER**2)).sum() / weight.sum().clamp_min(1e-6)


def systematic_offset(offset: Tensor, weight: Tensor) -> Tensor:
    """Each joint's mean over the frames (N, 1, K, 2) of offsets (N, T, K, 2), far ones cut short; 0 where unseen."""
    total = (weight[..., None] * offset.clamp(-3 * OUTLIER, 3 * OUTLIER)).sum(1, keepdim=True)
    return total / weight.sum(1, keepdim=True).clamp_min(1e-6)[..., None]


def log_bone_lengths(joints: Tensor) -> Tensor:
    """Logarithms of the lengths (..., 16) of the bones of H36M-17 joints (..., 17, 3) metres."""
    return bone_lengths(joints).clamp_min(SHORTEST).log()


def bone_change(logs: Tensor) -> Tensor:
    """Mean relative difference of the bones from their own median over the clip. logs: (N, T, 16) log metres."""
    return (logs - logs.median(1, keepdim=True).values.detach()).abs().mean()


def bone_deviation(logs: Tensor, bodies: Bodies) -> Tensor:
    """Mean square of what the clip's mean log lengths are beyond `USUAL` spreads from the bodies'. logs: (N, T, 16)."""
    away = ((logs.mean(1) - bodies.mean) / bodies.spread).abs()
    return (away - USUAL).clamp_min(0).square().mean()


def anchor_error(lift: Lift, start: Start) -> Tensor:
    """Mean squared distance of the joints from where they were, m^2, and of the root in shares of its depth."""
    moved = (lift.joints - start.joints).square().sum(-1).mean()
    root = (lift.root - start.root) / start.root[..., 2:].clamp_min(NEAREST)
    return moved + root.square().sum(-1).mean()
