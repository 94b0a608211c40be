"""The term of lifted joints: their errors relative to each other, and the one that all joints of a frame share.

A lifter knows a pose better than where it is: the error of its trajectory, centimetres to decimetres along the viewing
ray, moves all joints of a frame alike. Taken for independent errors of seventeen joints it would look seventeen times as
certain, and as depth and size go together in an image, would make the body too large or too small. So the residual of
joint j is r_j = e_j + m with e_j of deviation sigma_j and one m per frame of covariance C, eliminated in closed form:

    min over m of sum_j w_j |r_j - m|^2 + m' C^-1 m  =  sum_j w_j |r_j - r|^2 + r' (C + 1/W)^-1 r

where w_j = 1 / sigma_j^2 (times the robust weight), W their sum and r the weighted mean of the residuals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lifting.body.energy import State, robust_cost, robust_weight
from lifting.body.normal_equations import NormalEquations
from lifting.body.point_terms import Points3D, frame_blocks
from lifting.body.points import Kinematics

_ROUNDS = 3  # of reweighting, to find the common error among outliers
_LEAST_WEIGHT = 1e-12


@dataclass(frozen=True, eq=False)
class LiftedPoints(Points3D):
    """Points of the body at lifted positions whose errors have a part in common.

    common: (T, 3, 3) square metres, covariance of the error that all points of a frame share; None for none. The other
    fields are those of `Points3D`.
    """

    common: np.ndarray | None = None
    name: str = "points 3d"

    def sliced(self, frames: slice) -> LiftedPoints:
        """Return the term for some frames."""
        common = None if self.common is None else self.common[frames]
        return replace(self, target=self.target[frames], sigma=self.sigma[frames], common=common)

    def common_error(self, state: State, kinematics: Kinematics) -> tuple[np.ndarray, np.ndarray]:
        """Return every frame's weighted mean residual (T, 3) metres and its variance (T,) if nothing were shared."""
        residual = self._predict(state, kinematics) - self.filled_target
        split = _split(residual, self.inverse_sigma, self._common(slice(None)), self._scale)
        return split.mean, 1.0 / split.total

    def cost(self, state: State, kinematics: Kinematics) -> float:
        """Return 0.5 sum rho(|r - m|^2) plus 0.5 m' C^-1 m at the best m of every frame."""
        residual = self._predict(state, kinematics) - self.filled_target
        return _split(residual, self.inverse_sigma, self._common(slice(None)), self._scale).cost(self._scale)

    def add_to(self, system: NormalEquations, state: State, kinematics: Kinematics) -> float:
        """Add the rows to `system` and return the cost."""
        points, cost = self._points(state), 0.0
        for frames, part in frame_blocks(kinematics):
            residual, _, rows = self._rows(points, part, frames, state, system)
            split = _split(residual, self.inverse_sigma[frames], self._common(frames), self._scale)
            rows[..., -1] = residual
            system.add_rows(frames, split.whitened(rows))
            cost += split.cost(self._scale)
        return cost

    def _common(self, frames: slice) -> np.ndarray:
        return np.zeros((1, 3, 3)) if self.common is None else self.common[frames]


@dataclass(frozen=True, eq=False)
class _Split:
    """Residuals of some frames taken apart: weights (T, J) and their sum (T,), mean (T, 3), the common error (T, 3)."""

    square: np.ndarray
    weight: np.ndarray
    total: np.ndarray
    mean: np.ndarray
    precision: np.ndarray

    def cost(self, scale: float | None) -> float:
        """The cost of these frames."""
        shared = np.einsum("ti,tij,tj->", self.mean, self.precision @ self._covariance @ self.precision, self.mean)
        return robust_cost(self.square, scale) + 0.5 * float(shared)

    @property
    def _covariance(self) -> np.ndarray:
        """(T, 3, 3) the common covariance C, from (C + 1/W)^-1."""
        return np.linalg.inv(self.precision) - np.eye(3) / self.total[:, None, None]

    def whitened(self, rows: np.ndarray) -> np.ndarray:
        """Rows (T, 3 J + 3, N) of the least squares, from rows (T, J, 3, N) in metres, which are overwritten."""
        share = self.weight / self.total[:, None]
        mean = np.einsum("tj,tjin->tin", share, rows)
        rows -= mean[:, None]
        rows *= np.sqrt(self.weight)[..., None, None]
        root = np.swapaxes(np.linalg.cholesky(self.precision), -1, -2)
        return np.concatenate([rows.reshape(len(rows), -1, rows.shape[-1]), root @ mean], axis=1)


def _split(residual: np.ndarray, inverse_sigma: np.ndarray, common: np.ndarray, scale: float | None) -> _Split:
    """Take residuals (T, J, 3) metres apart; inverse_sigma (T, J), 0 where not seen; common (T or 1, 3, 3)."""
    inverse = inverse_sigma**2
    weight = inverse
    error = _median(residual, inverse)
    for final in (*[False] * _ROUNDS, True):
        total = np.maximum(weight.sum(axis=1), _LEAST_WEIGHT)
        precision = np.linalg.inv(common + np.eye(3) / total[:, None, None])
        mean = error if not final and weight is inverse else np.einsum("tj,tji->ti", weight, residual) / total[:, None]
        shared = np.einsum("tij,tjk,tk->ti", np.broadcast_to(common, precision.shape), precision, mean)
        apart = residual - shared[:, None]
        square = np.einsum("tji,tji->tj", apart, apart) * inverse
        if not final:
            weight = inverse * robust_weight(square, scale)
    return _Split(square, weight, total, mean, precision)


def _median(residual: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Median (T, 3) of the residuals of seen points, 0 without one."""
    seen = np.where(inverse[..., None] > 0, residual, np.nan)
    known = np.isfinite(seen).any(axis=1)
    return np.where(known, np.nanmedian(np.where(known[:, None], seen, 0.0), axis=1), 0.0)
