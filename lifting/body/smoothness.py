"""Smoothness of motion: angular accelerations of the joints and the acceleration of the trajectory are mostly small.

Both residuals are second differences, so they couple a joint with itself in three consecutive frames only and cost 3x3
blocks. For rotations the difference is taken on the group: phi_t = log(R_t^T R_{t+1}) is the turn from one frame to the
next, and the angular acceleration is (phi_{t+1} - phi_t) fps^2 in the joint's own axes.

People's accelerations are nothing like normally distributed: most are a third of the deviation, kicks and landings many
times it. A Gaussian that smooths the ones flattens the others, so the cost is Student's t with few degrees of freedom
(Cauchy's, up to a factor): rho(e) = c^2 log(1 + e / c^2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lifting.body.energy import State
from lifting.body.normal_equations import NormalEquations
from lifting.body.so3 import inverse_right_jacobian
from lifting.rotations import matrix_to_rotvec


@dataclass(frozen=True, eq=False)
class _Smoothness:
    """What both terms share: a cost of squared whitened accelerations, one for each joint and frame."""

    fps: float
    sigma: np.ndarray | float
    robust: float | None = None

    def cost(self, state: State, kinematics) -> float:
        """Return 0.5 sum rho(|r|^2) over the whitened accelerations r."""
        whitened = self.residuals(state, kinematics) * self._scale(state)
        return float(0.5 * np.sum(self._rho(np.sum(whitened**2, axis=-1))))

    def annealed(self, factor: float):
        """Return the term with its robust scale multiplied by `factor`; itself if it is not robust."""
        return self if self.robust is None else replace(self, robust=self.robust * factor)

    def sliced(self, frames: slice):
        """Return the term itself: it holds nothing per frame."""
        return self

    def _rho(self, square: np.ndarray) -> np.ndarray:
        if self.robust is None:
            return square
        limit = self.robust**2
        return limit * np.log1p(square / limit)

    def _root_weight(self, square: np.ndarray) -> np.ndarray:
        """Return the square root of rho'(square): what rows of the least squares are multiplied by."""
        return np.ones_like(square) if self.robust is None else 1.0 / np.sqrt(1.0 + square / self.robust**2)


@dataclass(frozen=True, eq=False)
class RotationSmoothness(_Smoothness):
    """Small angular accelerations of the joints.

    fps in frames per second; sigma (K,) or one number in rad/s^2, infinite = none; robust: scale c in sigmas of the
    heavy tails, None for Gaussian accelerations.
    """

    name: str = "rotation smoothness"

    def residuals(self, state: State, kinematics) -> np.ndarray:
        """Return the angular accelerations (max(T - 2, 0), K, 3) in rad/s^2."""
        turns = _turns(state.rotations)
        return (turns[1:] - turns[:-1]) * self.fps**2

    def add_to(self, system: NormalEquations, state: State, kinematics) -> float:
        """Add the rows to `system` and return the cost.

        phi_t changes by J_r^-1(phi_t) w_{t+1} - J_r^-T(phi_t) w_t under right perturbations of both rotations.
        """
        turns = _turns(state.rotations)
        scale = self.fps**2 * self._scale(state)
        later = inverse_right_jacobian(turns) * scale[..., None]
        earlier = np.swapaxes(later, -1, -2)
        whitened = (turns[1:] - turns[:-1]) * scale
        square = np.sum(whitened**2, axis=-1)
        weight = self._root_weight(square)[..., None]
        rows = (earlier[:-1], -later[:-1] - earlier[1:], later[1:])
        system.add_chains([weight[..., None] * row for row in rows], weight * whitened, slice(0, turns.shape[1]))
        return float(0.5 * np.sum(self._rho(square)))

    def _scale(self, state: State) -> np.ndarray:
        """Return 1 / sigma, (K, 1)."""
        return np.broadcast_to(_inverse(self.sigma), state.rotations.shape[1:2])[:, None]


@dataclass(frozen=True, eq=False)
class TranslationSmoothness(_Smoothness):
    """Small accelerations of the trajectory.

    fps in frames per second; sigma in m/s^2, one number or per axis (3,); robust: scale c in sigmas of the heavy tails,
    None for Gaussian accelerations.
    """

    name: str = "translation smoothness"

    def residuals(self, state: State, kinematics) -> np.ndarray:
        """Return the accelerations (max(T - 2, 0), 3) in m/s^2."""
        return np.diff(state.trajectory, n=2, axis=0) * self.fps**2

    def add_to(self, system: NormalEquations, state: State, kinematics) -> float:
        """Add the rows to `system` and return the cost."""
        scale = self._scale(state)
        whitened = self.residuals(state, kinematics) * scale
        square = np.sum(whitened**2, axis=-1)
        weight = self._root_weight(square)[:, None]
        block = weight[..., None, None] * np.diag(scale * self.fps**2)
        last = system.frame_size // 3 - 1
        system.add_chains([block, -2 * block, block], (weight * whitened)[:, None], slice(last, last + 1))
        return float(0.5 * np.sum(self._rho(square)))

    def _scale(self, state: State) -> np.ndarray:
        """Return 1 / sigma, (3,)."""
        return np.broadcast_to(_inverse(self.sigma), (3,))


def _turns(rotations: np.ndarray) -> np.ndarray:
    """Return the rotation vectors (T - 1, K, 3) from each frame to the next, in the joints' own axes."""
    return matrix_to_rotvec(np.swapaxes(rotations[:-1], -1, -2) @ rotations[1:])


def _inverse(sigma) -> np.ndarray:
    """Return 1 / sigma with 0 where sigma is infinite; raises ValueError for other than positive numbers."""
    sigma = np.asarray(sigma, dtype=np.float64)
    if not np.all(sigma > 0):
        raise ValueError(f"sigma is {sigma.tolist()}, expected positive numbers; use infinity for no smoothness.")
    return 1.0 / sigma
