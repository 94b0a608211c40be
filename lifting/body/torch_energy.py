"""The terms of the fit's energy in torch: the same numbers as the numpy terms, differentiable, on any device.

`torch_cost` reads the fields of a numpy term, so that targets, deviations and robust scales exist once. It works on any
leading axes before the frames: rotations (..., T, K, 3, 3), shape (..., 1, S) against T frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from lifting.body.energy import Term
from lifting.body.point_terms import Points2D, Points3D
from lifting.body.prior_terms import FocalPrior, OffsetPrior, PosePriorTerm, ShapePrior, StaturePrior, TwistPrior
from lifting.body.projection import NEAR
from lifting.body.smoothness import RotationSmoothness, TranslationSmoothness
from lifting.body.torch_model import PosedBones, TorchBody
from lifting.cameras import _square_radius_limit


@dataclass(frozen=True)
class TorchState:
    """A state with its kinematics in torch: `bones` of `body`, offsets (J, 3), log_focal ()."""

    body: TorchBody
    bones: PosedBones
    offsets: Tensor
    log_focal: Tensor

    @property
    def trajectory(self) -> Tensor:
        """(T, 3) metres, position of joint 0."""
        return self.bones.joints[..., 0, :]

    def tensor(self, array) -> Tensor:
        """Return an array of numbers as a tensor beside the state's."""
        return torch.tensor(np.asarray(array), dtype=self.offsets.dtype, device=self.offsets.device)


UserTerm = Callable[[TorchState], Tensor]


@singledispatch
def torch_cost(term: Term, state: TorchState) -> Tensor:
    """Return a term's cost, a scalar tensor. Raises ValueError for a term that has no form in torch."""
    raise ValueError(f"The term {term.name!r} has no form in torch, expected one of the base terms; pass it as a "
                     "function in user_terms.")


@torch_cost.register
def _(term: Points3D, state: TorchState) -> Tensor:
    return _point_cost(term, state, _points(term, state))


@torch_cost.register
def _(term: Points2D, state: TorchState) -> Tensor:
    return _point_cost(term, state, project(_points(term, state), term.camera, state))


def _points(term: Points3D | Points2D, state: TorchState) -> Tensor:
    """Return a term's points (T, J, 3) in metres with their offsets."""
    points = state.body.points(term.points, state.bones)
    if term.offset_rows is None or not len(state.offsets):
        return points
    moved = np.flatnonzero(term.offset_rows >= 0)
    turned = state.bones.global_rotations[..., term.points.anchor_bones[moved], :, :]
    shift = torch.zeros_like(points)
    shift[..., moved, :] = (turned @ state.offsets[term.offset_rows[moved], :, None])[..., 0]
    return points + shift


def _point_cost(term: Points3D | Points2D, state: TorchState, predicted: Tensor) -> Tensor:
    whitened = (predicted - state.tensor(term.filled_target)) * state.tensor(term.inverse_sigma)[..., None]
    square = (whitened * whitened).sum(dim=-1)
    if term.robust is None:
        return 0.5 * square.sum()
    limit = term.robust**2 * predicted.shape[-1]
    return 0.5 * (limit * square / (limit + square)).sum()


def project(points: Tensor, camera, state: TorchState) -> Tensor:
    """Project points (T, J, 3) to pixels (T, J, 2) as `lifting.body.projection.project` does."""
    rotation, translation = state.tensor(camera.rotation), state.tensor(camera.translation)
    rotation = rotation if rotation.dim() == 2 else rotation[:, None]
    translation = translation if translation.dim() == 1 else translation[:, None]
    points = (rotation @ points[..., None])[..., 0] + translation
    safe = points[..., 2:].clamp(min=NEAR)
    flat = points[..., :2] * (1.0 / safe - (points[..., 2:] - safe) / safe.detach() ** 2)
    if camera.distortion.any():
        flat = _distort(flat, camera.distortion.tolist(), _square_radius_limit(camera.distortion))
    return flat * state.tensor(camera.focal) * state.log_focal.exp() + state.tensor(camera.center)


def _distort(flat: Tensor, distortion: list[float], limit: float) -> Tensor:
    k1, k2, p1, p2, k3 = distortion
    true_square = (flat * flat).sum(dim=-1)
    square = true_square.clamp(max=limit)
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    scale = (square / torch.where(true_square > 0, true_square, 1.0)).sqrt()
    x, y = (flat * torch.where(true_square > 0, scale, 1.0)[..., None]).unbind(-1)
    shift = [2 * p1 * x * y + p2 * (square + 2 * x * x), p1 * (square + 2 * y * y) + 2 * p2 * x * y]
    return flat * radial[..., None] + torch.stack(shift, dim=-1)


@torch_cost.register
def _(term: RotationSmoothness, state: TorchState) -> Tensor:
    rotations = state.bones.rotations
    turns = matrix_to_rotvec(rotations[..., :-1, :, :, :].transpose(-1, -2) @ rotations[..., 1:, :, :, :])
    whitened = (turns[..., 1:, :, :] - turns[..., :-1, :, :]) * term.fps**2 / state.tensor(term.sigma)[..., None]
    return 0.5 * (whitened * whitened).sum()


@torch_cost.register
def _(term: TranslationSmoothness, state: TorchState) -> Tensor:
    whitened = state.trajectory.diff(n=2, dim=-2) * term.fps**2 / state.tensor(term.sigma)
    return 0.5 * (whitened * whitened).sum()


@torch_cost.register
def _(term: PosePriorTerm, state: TorchState) -> Tensor:
    prior = term.prior
    local = state.bones.rotations[..., prior.columns, :, :]
    features = matrix_to_rotvec(state.tensor(prior.before) @ local @ state.tensor(prior.after)).flatten(-2)
    apart = features[..., None, :] - state.tensor(prior.means)
    residual = (state.tensor(prior.whiteners) @ apart[..., None])[..., 0]
    costs = 0.5 * (residual * residual).sum(dim=-1) + state.tensor(prior.constants)
    return term.weight * costs.amin(dim=-1).sum()


@torch_cost.register
def _(term: TwistPrior, state: TorchState) -> Tensor:
    quat = matrix_to_quat(state.bones.rotations)
    along = (quat[..., 1:] * state.tensor(term.axes)).sum(dim=-1)
    whitened = 2 * torch.atan2(along, quat[..., 0]) / state.tensor(term.sigma)
    return 0.5 * (whitened * whitened).sum()


@torch_cost.register
def _(term: ShapePrior, state: TorchState) -> Tensor:
    return 0.5 * (state.bones.shape / state.tensor(term.sigma)).square().sum()


@torch_cost.register
def _(term: StaturePrior, state: TorchState) -> Tensor:
    axis = "xyz".index(term.body.up[-1])
    heights = state.body.template[:, axis] + state.bones.shape @ state.body.shape_directions[:, axis].T
    stature = heights.amax(dim=-1) - heights.amin(dim=-1)
    return 0.5 * ((stature - term.height) / term.sigma).square().sum()


@torch_cost.register
def _(term: OffsetPrior, state: TorchState) -> Tensor:
    sigma = state.tensor(np.broadcast_to(term.sigma, len(state.offsets)))
    return 0.5 * (state.offsets / sigma[:, None]).square().sum()


@torch_cost.register
def _(term: FocalPrior, state: TorchState) -> Tensor:
    return 0.5 * (state.log_focal / term.sigma).square()


def matrix_to_quat(matrix: Tensor) -> Tensor:
    """Return unit quaternions (..., 4), w, x, y, z with w >= 0, of rotation matrices (..., 3, 3) (Shepperd 1978)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in matrix.unbind(-2))
    rows = [[1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], [zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx],
            [xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz], [yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz]]
    outer = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # 4 q q^T
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    quat = outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
    quat = quat / quat.norm(dim=-1, keepdim=True)
    return torch.where(quat[..., :1] < 0, -quat, quat)


def matrix_to_rotvec(matrix: Tensor) -> Tensor:
    """Return rotation vectors (..., 3) of rotation matrices (..., 3, 3); gradients are finite at the identity."""
    quat = matrix_to_quat(matrix)
    square = (quat[..., 1:] * quat[..., 1:]).sum(dim=-1, keepdim=True)
    small = square < 1e-8
    sine = torch.where(small, 1.0, square).sqrt()
    factor = torch.where(small, 2 + square / 3, 2 * torch.atan2(sine, quat[..., :1]) / sine)
    return quat[..., 1:] * factor
