"""Losses of temporal body models: 3D, 2D by the best orthographic camera, shape, and a factorised adversarial prior.

After HMMR (Kanazawa et al., CVPR 2019, section 3.2), PHD (Zhang et al., ICCV 2019, equations 1 and 6) and HMR (Kanazawa
et al., CVPR 2018, equation 5). Every loss is a mean over what is labelled, so that weights do not depend on sizes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from lifting.datasets.strip_windows import StripBatch
from lifting.models.strips.body import StripBody
from lifting.models.strips.readout import BodyState
from lifting.strip_features import SOURCE, WAY_UNITS

LOSS_WEIGHTS: Mapping[str, float] = {
    "joints": 10.0, "rotations": 1.0, "shape": 0.02, "way": 0.2, "keypoints": 10.0, "constant_shape": 0.02,
    "prior": 0.02, "adversarial": 0.02,
}  # fmt: skip
"""Joints and keypoints in metres, rotations as matrices, shape in deviations, way in `WAY_UNITS`."""
SCALES = (0.7, 1.4)  # of Eq. 6, whose points are in metres already; the gradient does not pass through it
KEYPOINT_REACH = 0.2  # metres beyond which a keypoint does not pull harder (Geman-McClure)


def tensors(batch: StripBatch, device: str = "cpu") -> StripBatch:
    """The batch as tensors."""
    return StripBatch(*(torch.as_tensor(array, device=device) for array in batch))


def body_losses(state: BodyState, truth: StripBatch, body: StripBody, shape_sigma: Tensor) -> dict[str, Tensor]:
    """Named losses of the bodies (N, T, ...) told for the frames of a batch.

    joints: mean distance to the true joints, metres. rotations: mean squared Frobenius distance of matrices. shape:
    mean squared error in standard deviations, `shape_sigma` (S,). way: mean absolute error in `WAY_UNITS`.
    keypoints: see `keypoint_loss`. prior: squared shape, of all bodies. constant_shape: change from frame to frame.
    """
    joints = body.joints(state)
    shape, units = state.shape / shape_sigma, state.way.new_tensor(WAY_UNITS)
    losses = {
        "joints": _labelled((joints - truth.joints)[:, :, 1:].norm(dim=-1).mean(-1), truth),
        "rotations": _labelled((state.rotations - truth.rotations).square().sum((-1, -2)).mean(-1), truth),
        "shape": _labelled((shape - (truth.shape / shape_sigma)[:, None]).square().mean(-1), truth),
        "way": _labelled(((state.way - truth.way) / units).abs().mean(-1), truth),
        "keypoints": keypoint_loss(joints, truth),
        "prior": shape.square().mean(),
    }
    if shape.shape[1] > 1:
        losses["constant_shape"] = shape.diff(dim=1).square().mean()
    return losses


def keypoint_loss(joints: Tensor, seen: StripBatch) -> Tensor:
    """How far joints (N, T, 17, 3), in the heading, lie beside their keypoints, as seen by the best camera; metres.

    Keypoints are brought from rays into metres at the depth of the joint that they belong to, so that the camera of
    PHD's equation 6, a scale and a shift, explains them exactly when the pose is right whatever the lens. Errors count
    by Geman-McClure's cost, squared for small ones, weighted by the keypoints' scores.
    """
    points = torch.einsum("ntij,ntkj->ntki", seen.camera, joints[:, :, SOURCE])
    reach = (seen.depth[..., None] + points[..., 2].detach()).clamp_min(0.5)
    visible = seen.scores * (seen.scores > 0)
    target = torch.where((visible > 0)[..., None], torch.nan_to_num(seen.rays) * reach[..., None], 0.0)
    scale, shift = orthographic_camera(points[..., :2].detach(), target, visible)
    miss = (scale[..., None, None] * points[..., :2] + shift[..., None, :] - target).square().sum(-1)
    cost = KEYPOINT_REACH * miss / (KEYPOINT_REACH**2 + miss)
    return (visible * cost).sum() / visible.sum().clamp_min(1.0)


def orthographic_camera(points: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (...,) and shift (..., 2) of least weighted squared distance from points to targets (..., J, 2).

    PHD, equation 6, in closed form; the scale is kept within `SCALES`. weight: (..., J).
    """
    weight = weight[..., None]
    total = weight.sum(-2).clamp_min(1e-6)
    mean, goal = ((weight * values).sum(-2) / total for values in (points, target))
    centred = points - mean[..., None, :]
    overlap = (weight * centred * (target - goal[..., None, :])).sum((-1, -2))
    scale = (overlap / (weight * centred.square()).sum((-1, -2)).clamp_min(1e-9)).clamp(*SCALES)
    return scale, goal - scale[..., None] * mean


def adversarial_loss(answers: Tensor) -> Tensor:
    """What a network wants of the discriminator's answers (..., K) to its rotations: 1 everywhere (least squares)."""
    return (answers - 1).square().sum(-1).mean()


def discriminator_loss(real: Tensor, made: Tensor) -> Tensor:
    """What the discriminator wants: 1 for real rotations, 0 for made ones, answers (..., K)."""
    return (real - 1).square().sum(-1).mean() + made.square().sum(-1).mean()


def distillation_loss(predicted: Tensor, strips: Tensor) -> Tensor:
    """Mean squared distance of predicted or hallucinated strips to real ones (..., C), which do not learn from it."""
    return functional.mse_loss(predicted, strips.detach())


def _labelled(values: Tensor, truth: StripBatch) -> Tensor:
    """The mean of values (N, T) over labelled windows."""
    return (values * truth.labelled[:, None]).sum() / (truth.labelled.sum() * values.shape[1]).clamp_min(1.0)
