"""Smoothness of motion: angular accelerations of the joints and the acceleration of the trajectory are small.

Both residuals are second differences, so they couple a joint with itself in three consecutive frames only and cost 3x3
blocks. For rotations the difference is taken on the group: phi_t = log(R_t^T R_{t+1}) is the turn from one frame to the
next, and the angular acceleration is (phi_{t+1} - phi_t) fps^2 in the joint's own axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifting.body.energy import FixedTerm, State
from lifting.body.normal_equations import NormalEquations
from lifting.body.so3 import inverse_right_jacobian
from lifting.rotations import matrix_to_rotvec


@dataclass(frozen=True, eq=False)
class RotationSmoothness(FixedTerm):
    """Small angular accelerations: fps in frames per second, sigma (K,) or one number in rad/s^2, infinite = none."""

    fps: float
    sigma: np.ndarray | float
    name: str = "rotation smoothness"

    def cost(self, state: State, kinematics) -> float:
        """Return 0.5 sum of the squared whitened accelerations."""
        whitened = self.residuals(state, kinematics) * _inverse(self.sigma)[..., None]
        return float(0.5 * np.vdot(whitened, whitened))

    def residuals(self, state: State, kinematics) -> np.ndarray:
        """Return the angular accelerations (max(T - 2, 0), K, 3) in rad/s^2."""
        turns = _turns(state.rotations)
        return (turns[1:] - turns[:-1]) * self.fps**2

    def add_to(self, system: NormalEquations, state: State, kinematics) -> float:
        """Add the rows to `system` and return the cost.

        phi_t changes by J_r^-1(phi_t) w_{t+1} - J_r^-T(phi_t) w_t under right perturbations of both rotations.
        """
        turns = _turns(state.rotations)
        weight = self.fps**2 * np.broadcast_to(_inverse(self.sigma), turns.shape[1:2])
        later = inverse_right_jacobian(turns) * weight[:, None, None]
        earlier = np.swapaxes(later, -1, -2)
        whitened = (turns[1:] - turns[:-1]) * weight[:, None]
        jacobians = [earlier[:-1], -later[:-1] - earlier[1:], later[1:]]
        system.add_chains(jacobians, whitened, slice(0, turns.shape[1]))
        return float(0.5 * np.vdot(whitened, whitened))


@dataclass(frozen=True, eq=False)
class TranslationSmoothness(FixedTerm):
    """Small accelerations of the trajectory: fps in frames per second, sigma in m/s^2, one number or (3,) per axis."""

    fps: float
    sigma: np.ndarray | float
    name: str = "translation smoothness"

    def cost(self, state: State, kinematics) -> float:
        """Return 0.5 sum of the squared whitened accelerations."""
        whitened = self.residuals(state, kinematics) * _inverse(self.sigma)
        return float(0.5 * np.vdot(whitened, whitened))

    def residuals(self, state: State, kinematics) -> np.ndarray:
        """Return the accelerations (max(T - 2, 0), 3) in m/s^2."""
        return np.diff(state.trajectory, n=2, axis=0) * self.fps**2

    def add_to(self, system: NormalEquations, state: State, kinematics) -> float:
        """Add the rows to `system` and return the cost."""
        weight = np.broadcast_to(_inverse(self.sigma), (3,))
        whitened = self.residuals(state, kinematics) * weight
        block = np.broadcast_to(np.diag(weight * self.fps**2), (len(whitened), 1, 3, 3))
        last = system.frame_size // 3 - 1
        system.add_chains([block, -2 * block, block], whitened[:, None], slice(last, last + 1))
        return float(0.5 * np.vdot(whitened, whitened))


def _turns(rotations: np.ndarray) -> np.ndarray:
    """Return the rotation vectors (T - 1, K, 3) from each frame to the next, in the joints' own axes."""
    return matrix_to_rotvec(np.swapaxes(rotations[:-1], -1, -2) @ rotations[1:])


def _inverse(sigma) -> np.ndarray:
    """Return 1 / sigma with 0 where sigma is infinite; raises ValueError for other than positive numbers."""
    sigma = np.asarray(sigma, dtype=np.float64)
    if not np.all(sigma > 0):
        raise ValueError(f"sigma is {sigma.tolist()}, expected positive numbers; use infinity for no smoothness.")
    return 1.0 / sigma
