"""The terms of the fit's energy in torch: the same numbers as the numpy terms, differentiable, on any device.

`whitened` reads the fields of a numpy term, so that targets, deviations and robust scales exist once. A state may hold
one clip, rotations (T, K, 3, 3), or N of them: (N, T, K, 3, 3), shape (N, 1, S), offsets (N, J, 3), log_focal (N,).
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
from lifting.cameras import Camera, square_radius_limit


@dataclass(frozen=True)
class TorchState:
    """A state with its kinematics in torch: `bones` of `body`, offsets (J, 3), log_focal (); or a batch of them."""

    body: TorchBody
    bones: PosedBones
    offsets: Tensor
    log_focal: Tensor

    @property
    def trajectory(self) -> Tensor:
        """(..., T, 3) metres, position of joint 0."""
        return self.bones.joints[..., 0, :]

    def tensor(self, array) -> Tensor:
        """Return an array of numbers as a tensor beside the state's."""
        return torch.tensor(np.asarray(array), dtype=self.offsets.dtype, device=self.offsets.device)


UserTerm = Callable[[TorchState], Tensor]


def torch_cost(term: Term, state: TorchState) -> Tensor:
    """Return a term's cost: a scalar, or (N,) for a batch. Raises ValueError for a term that has no form in torch."""
    residual = whitened(term, state)
    return robust_cost(term, residual).flatten(state.trajectory.dim() - 2).sum(dim=-1)


def robust_cost(term: Term, residual: Tensor) -> Tensor:
    """Return 0.5 rho(|r|^2) of whitened residuals (..., axes), one value to each row."""
    square = (residual * residual).sum(dim=-1)
    limit = squared_scale(term, residual)
    if limit is None:
        return 0.5 * square
    return 0.5 * (limit * torch.log1p(square / limit) if _heavy_tailed(term) else limit * square / (limit + square))


def root_weight(term: Term, residual: Tensor) -> Tensor:
    """Return the factor (..., 1) of a term's rows and whitened residuals (..., axes) in reweighted least squares."""
    square = (residual * residual).sum(dim=-1, keepdim=True)
    limit = squared_scale(term, residual)
    if limit is None:
        return torch.ones_like(square)
    return (limit / (limit + square)).sqrt() if _heavy_tailed(term) else limit / (limit + square)


def _heavy_tailed(term: Term) -> bool:
    """Whether a term's robust cost is that of the smoothness terms, a logarithm, and not Geman-McClure's."""
    return isinstance(term, (RotationSmoothness, TranslationSmoothness))


def squared_scale(term: Term, residual: Tensor) -> float | None:
    """Return the square of a term's robust scale for residuals (..., axes); None for least squares."""
    scale = getattr(term, "robust", None)
    if scale is None:
        return None
    return scale**2 if _heavy_tailed(term) else scale**2 * residual.shape[-1]


@singledispatch
def whitened(term: Term, state: TorchState) -> Tensor:
    """Return a term's whitened residuals (..., rows, axes): the robust cost is of the length along the last axis.

    Terms of single frames have (T, rows, axes). Raises ValueError for a term that has no form in torch.
    """
    raise ValueError(f"The term {term.name!r} has no form in torch, expected one of the base terms; pass it as a "
                     "function in user_terms.")


@whitened.register
def _(term: Points3D, state: TorchState) -> Tensor:
    return (_points(term, state) - state.tensor(term.filled_target)) * state.tensor(term.inverse_sigma)[..., None]


@whitened.register
def _(term: Points2D, state: TorchState) -> Tensor:
    pixels = project(_points(term, state), term.camera, state)
    return (pixels - state.tensor(term.filled_target)) * state.tensor(term.inverse_sigma)[..., None]


def _points(term: Points3D | Points2D, state: TorchState) -> Tensor:
    """Return a term's points (T, J, 3) in metres with their offsets."""
    points = state.body.points(term.points, state.bones)
    if term.offset_rows is None or not state.offsets.shape[-2]:
        return points
    moved = np.flatnonzero(term.offset_rows >= 0)
    turned = state.bones.global_rotations[..., term.points.anchor_bones[moved], :, :]
    offsets = state.offsets[..., term.offset_rows[moved], :].unsqueeze(-3)
    place = state.tensor(np.eye(term.points.num_points)[:, moved])
    return points + place @ (turned @ offsets[..., None])[..., 0]


def project(points: Tensor, camera: Camera, state: TorchState) -> Tensor:
    """Project points (T, J, 3) to pixels (T, J, 2) as `lifting.body.projection.project` does."""
    rotation, translation = state.tensor(camera.rotation), state.tensor(camera.translation)
    rotation = rotation if rotation.dim() == 2 else rotation[:, None]
    translation = translation if translation.dim() == 1 else translation[:, None]
    points = (rotation @ points[..., None])[..., 0] + translation
    safe = points[..., 2:].clamp(min=NEAR)
    flat = points[..., :2] * (1.0 / safe - (points[..., 2:] - safe) / safe.detach() ** 2)
    if camera.distortion.any():
        flat = _distort(flat, camera.distortion.tolist(), square_radius_limit(camera.distortion))
    focal = state.tensor(camera.focal) * state.log_focal.exp()[..., None, None, None]
    return flat * focal + state.tensor(camera.center)


def _distort(flat: Tensor, distortion: list[float], limit: float) -> Tensor:
    k1, k2, p1, p2, k3 = distortion
    true_square = (flat * flat).sum(dim=-1)
    square = true_square.clamp(max=limit)
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    scale = (square / torch.where(true_square > 0, true_square, 1.0)).sqrt()
    x, y = (flat * torch.where(true_square > 0, scale, 1.0)[..., None]).unbind(-1)
    shift = [2 * p1 * x * y + p2 * (square + 2 * x * x), p1 * (square + 2 * y * y) + 2 * p2 * x * y]
    return flat * radial[..., None] + torch.stack(shift, dim=-1)


@whitened.register
def _(term: RotationSmoothness, state: TorchState) -> Tensor:
    rotations = state.bones.rotations
    turns = matrix_to_rotvec(rotations[..., :-1, :, :, :].transpose(-1, -2) @ rotations[..., 1:, :, :, :])
    return (turns[..., 1:, :, :] - turns[..., :-1, :, :]) * term.fps**2 / state.tensor(term.sigma)[..., None]


@whitened.register
def _(term: TranslationSmoothness, state: TorchState) -> Tensor:
    return (state.trajectory.diff(n=2, dim=-2) * term.fps**2 / state.tensor(term.sigma))[..., None, :]


@whitened.register
def _(term: PosePriorTerm, state: TorchState) -> Tensor:
    prior = term.prior
    local = state.bones.rotations[..., prior.columns, :, :]
    features = matrix_to_rotvec(state.tensor(prior.before) @ local @ state.tensor(prior.after)).flatten(-2)
    apart = features[..., None, :] - state.tensor(prior.means)
    residual = (state.tensor(prior.whiteners) @ apart[..., None])[..., 0]
    constant = (2 * state.tensor(prior.constants)).sqrt().expand(residual.shape[:-1])[..., None]
    residual = torch.cat([residual, constant], dim=-1)  # what choosing a component costs, as one more residual
    best = (residual * residual).sum(dim=-1).argmin(dim=-1)[..., None, None]
    chosen = residual.gather(-2, best.expand(*best.shape[:-1], residual.shape[-1])).transpose(-1, -2)
    return term.weight**0.5 * chosen


@whitened.register
def _(term: TwistPrior, state: TorchState) -> Tensor:
    quat = matrix_to_quat(state.bones.rotations)
    along = (quat[..., 1:] * state.tensor(term.axes)).sum(dim=-1)
    return (2 * torch.atan2(along, quat[..., 0]) / state.tensor(term.sigma))[..., None]


@whitened.register
def _(term: ShapePrior, state: TorchState) -> Tensor:
    return (state.bones.shape / state.tensor(term.sigma))[..., None]


@whitened.register
def _(term: StaturePrior, state: TorchState) -> Tensor:
    axis = "xyz".index(term.body.up[-1])
    heights = state.body.template[:, axis] + state.bones.shape @ state.body.shape_directions[:, axis].T
    stature = heights.max(dim=-1).values - heights.min(dim=-1).values
    return ((stature - state.tensor(term.height)) / term.sigma)[..., None, None]


@whitened.register
def _(term: OffsetPrior, state: TorchState) -> Tensor:
    return state.offsets / state.tensor(np.broadcast_to(term.sigma, state.offsets.shape[-2]))[:, None]


@whitened.register
def _(term: FocalPrior, state: TorchState) -> Tensor:
    return (state.log_focal / term.sigma)[..., None, None]


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
