"""Normal equations of many clips at once in torch: block-tridiagonal Cholesky, shared unknowns by Schur complement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FLOOR = 1e-9  # as in lifting.body.normal_equations


@dataclass
class BatchEquations:
    """J^T J and J^T r of N clips with T frames, D unknowns to a frame and G shared ones to a clip.

    diagonal (N, T, D, D); first (N, T - 1, D, D) and second (N, T - 2, D, D) couple frames t with t + 1 and t + 2;
    border (N, T, D, G); corner (N, G, G); gradient (N, T, D); global_gradient (N, G).
    """

    diagonal: Tensor
    first: Tensor
    second: Tensor
    border: Tensor
    corner: Tensor
    gradient: Tensor
    global_gradient: Tensor

    @classmethod
    def zeros(cls, clips: int, frames: int, size: int, shared: int, like: Tensor) -> BatchEquations:
        """Return empty equations in the precision and on the device of `like`."""
        shapes = [(frames, size, size), (max(frames - 1, 0), size, size), (max(frames - 2, 0), size, size),
                  (frames, size, shared), (shared, shared), (frames, size), (shared,)]  # fmt: skip
        return cls(*(like.new_zeros(clips, *shape) for shape in shapes))

    def add_frames(self, jacobian: Tensor, residual: Tensor) -> None:
        """Add rows of single frames: jacobian (N, T, m, D + G), residual (N, T, m)."""
        size = self.diagonal.shape[-1]
        rows = torch.cat([jacobian, residual[..., None]], dim=-1)
        product = rows.transpose(-1, -2) @ rows
        self.diagonal += product[..., :size, :size]
        self.gradient += product[..., :size, -1]
        self.border += product[..., :size, size:-1]
        self.corner += product[..., size:-1, size:-1].sum(dim=1)
        self.global_gradient += product[..., size:-1, -1].sum(dim=1)

    def add_chains(self, jacobians: list[Tensor], residual: Tensor, start: int) -> None:
        """Add rows on triples of unknowns from the triple `start` on, in three consecutive frames.

        jacobians: three of (N, T - 2, c, 3, 3); residual (N, T - 2, c, 3).
        """
        span, count = residual.shape[1:3]
        if span < 1:
            return
        couplings = (self.diagonal, self.first, self.second)
        for shift, jacobian in enumerate(jacobians):
            gradient = self.gradient[:, shift : shift + span, 3 * start : 3 * (start + count)].unflatten(-1, (count, 3))
            gradient += (jacobian.transpose(-1, -2) @ residual[..., None])[..., 0]
            for distance, later in enumerate(jacobians[shift:]):
                chains = _chains_of(couplings[distance])[:, shift : shift + span, :, :, start : start + count]
                chains += (jacobian.transpose(-1, -2) @ later).permute(0, 1, 3, 4, 2)

    def scale(self) -> tuple[Tensor, Tensor]:
        """Return the diagonals (N, T, D) and (N, G) that damping scales with."""
        diagonals = (self.diagonal.diagonal(dim1=-2, dim2=-1), self.corner.diagonal(dim1=-2, dim2=-1))
        return tuple(part.clamp(min=_FLOOR) for part in diagonals)

    def solve(self, damping: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the damped steps (N, T, D), (N, G), and which clips (N,) were positive definite; damping (N,)."""
        (clips, frames, size), shared = self.gradient.shape, self.corner.shape[-1]
        frame_scale, shared_scale = self.scale()
        raised = self.diagonal + torch.diag_embed(damping[:, None, None] * frame_scale + _FLOOR)
        blocks, couplings = _pairs_of_frames(raised, self.first, self.second)
        right = torch.cat([self.border, self.gradient[..., None]], dim=-1)
        right = torch.cat([right, right.new_zeros(clips, frames % 2, size, shared + 1)], dim=1)
        right = right.reshape(clips, -1, 2 * size, shared + 1)
        lower, below, reduced, good = _eliminate(blocks, couplings, right)
        flat = reduced.flatten(1, 2)
        schur = self.corner - flat[..., :-1].transpose(-1, -2) @ flat[..., :-1]
        schur = schur + torch.diag_embed(damping[:, None] * shared_scale + _FLOOR)
        factor, info = torch.linalg.cholesky_ex(schur)
        left = self.global_gradient - (flat[..., :-1].transpose(-1, -2) @ flat[..., -1:])[..., 0]
        shared_step = -torch.cholesky_solve(left[..., None], factor)
        known = reduced[..., -1:] + reduced[..., :-1] @ shared_step[:, None]
        step = -_substitute(lower, below, known).reshape(clips, -1, size)[:, :frames]
        return step, shared_step[..., 0], good & (info == 0)

    def predicted_decrease(self, step: Tensor, shared_step: Tensor, damping: Tensor) -> Tensor:
        """Return by how much each clip's quadratic model falls (N,)."""
        frame_scale, shared_scale = self.scale()
        slope = (self.gradient * step).sum(dim=(1, 2)) + (self.global_gradient * shared_step).sum(dim=1)
        length = (frame_scale * step**2).sum(dim=(1, 2)) + (shared_scale * shared_step**2).sum(dim=1)
        return 0.5 * damping * length - 0.5 * slope


def _chains_of(blocks: Tensor) -> Tensor:
    """Return the writable view (N, T, 3, 3, D / 3) of the 3x3 blocks on the diagonals of blocks (N, T, D, D)."""
    chains = blocks.shape[-1] // 3
    return blocks.view(*blocks.shape[:2], chains, 3, chains, 3).diagonal(dim1=2, dim2=4)


def _pairs_of_frames(diagonal: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return diagonal blocks (N, M, 2D, 2D) and couplings (N, M - 1, 2D, 2D) of blocks of two frames each.

    An odd last frame is joined by one that is alone with itself (the identity).
    """
    clips, frames, size, _ = diagonal.shape
    pairs = (frames + 1) // 2
    blocks = diagonal.new_zeros(clips, pairs, 2, size, 2, size)
    couplings = diagonal.new_zeros(clips, max(pairs - 1, 0), 2, size, 2, size)
    blocks[:, :, 0, :, 0] = diagonal[:, 0::2]
    blocks[:, : frames // 2, 1, :, 1] = diagonal[:, 1::2]
    if frames % 2:
        blocks[:, -1, 1, :, 1] = torch.eye(size, dtype=diagonal.dtype, device=diagonal.device)
    inside, between = first[:, 0::2], first[:, 1::2]
    blocks[:, : inside.shape[1], 0, :, 1] = inside
    blocks[:, : inside.shape[1], 1, :, 0] = inside.transpose(-1, -2)
    couplings[:, :, 1, :, 0] = between
    couplings[:, : second[:, 0::2].shape[1], 0, :, 0] = second[:, 0::2]
    couplings[:, : second[:, 1::2].shape[1], 1, :, 1] = second[:, 1::2]
    return (part.reshape(clips, -1, 2 * size, 2 * size) for part in (blocks, couplings))


def _eliminate(blocks: Tensor, couplings: Tensor, right: Tensor) -> tuple[list, list, Tensor, Tensor]:
    """Factorise by blocks, A = L L^T: L's diagonal blocks, those below them, L^-1 right and success (N,)."""
    lower, below, reduced, block = [], [], [], blocks[:, 0]
    good = torch.ones(len(blocks), dtype=torch.bool, device=blocks.device)
    for index in range(blocks.shape[1]):
        factor, info = torch.linalg.cholesky_ex(block)
        good = good & (info == 0)
        part = right[:, index] - below[-1] @ reduced[-1] if index else right[:, index]
        reduced.append(torch.linalg.solve_triangular(factor, part, upper=False))
        lower.append(factor)
        if index + 1 < blocks.shape[1]:
            below.append(torch.linalg.solve_triangular(factor, couplings[:, index], upper=False).transpose(-1, -2))
            block = blocks[:, index + 1] - below[-1] @ below[-1].transpose(-1, -2)
    return lower, below, torch.stack(reduced, dim=1), good


def _substitute(lower: list[Tensor], below: list[Tensor], right: Tensor) -> Tensor:
    """Return L^-T right for right (N, M, 2D, 1)."""
    found = [torch.linalg.solve_triangular(lower[-1].transpose(-1, -2), right[:, -1], upper=True)]
    for index in range(len(below) - 1, -1, -1):
        part = right[:, index] - below[index].transpose(-1, -2) @ found[-1]
        found.append(torch.linalg.solve_triangular(lower[index].transpose(-1, -2), part, upper=True))
    return torch.stack(found[::-1], dim=1)
