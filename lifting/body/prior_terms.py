"""Terms that need no observations: priors of pose, twist, shape, stature, point offsets and focal length."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lifting.body.energy import FixedTerm, State
from lifting.body.normal_equations import NormalEquations
from lifting.body.priors import PosePrior
from lifting.body.so3 import inverse_right_jacobian, twist_angle

if TYPE_CHECKING:
    from lifting.body.model import BodyModel

_FRAMES_AT_ONCE = 32  # matrices of the pose prior that are held at once: they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class PosePriorTerm(FixedTerm):
    """Plausible poses, by a `prior` such as `priors.PosePrior`; `weight` multiplies its cost.

    The prior has linearise(rotations (T, K, 3, 3)) -> residual (T, m) in standard deviations and Jacobian (T, m, 3 K)
    by right perturbations, and cost(rotations): half the squared residuals, among which is the constant of a component.
    """

    prior: object
    weight: float = 1.0
    name: str = "pose prior"

    def cost(self, state: State, kinematics) -> float:
        """Return the prior's cost times the weight."""
        return self.weight * self.prior.cost(state.rotations)

    def residuals(self, state: State, kinematics) -> np.ndarray:
        """Return the prior's residuals (T, m), in standard deviations."""
        return self.prior.linearise(state.rotations)[0]

    def add_to(self, system: NormalEquations, state: State, kinematics) -> float:
        """Add the rows to `system` and return the cost."""
        if isinstance(self.prior, PosePrior):
            return self._add_products(system, state.rotations)
        residual, jacobian = self.prior.linearise(state.rotations)
        root = np.sqrt(self.weight)
        jacobian *= root
        system.add_frames(jacobian, root * residual, columns=slice(0, system.frame_size - 3))
        return float(0.5 * self.weight * np.vdot(residual, residual))

    def _add_products(self, system: NormalEquations, rotations: np.ndarray) -> float:
        """Do what the rows would, without making them: of W S, S being a 3x3 block to a joint, it is S^T (W^T W) S."""
        prior = self.prior
        features = prior.features(rotations)
        best, residual, costs = prior.choose(features)
        slopes = self.weight**0.5 * prior.after @ np.swapaxes(inverse_right_jacobian(features), -1, -2)  # S^T
        columns = (3 * prior.columns[:, None] + np.arange(3)).ravel()
        for start in range(0, len(residual), _FRAMES_AT_ONCE):
            frames = slice(start, start + _FRAMES_AT_ONCE)
            turned, component = slopes[frames], 0 if len(prior.means) == 1 else best[frames]
            pull = residual[frames, None] @ (self.weight**0.5 * prior.whiteners[component])
            half = _times_blocks(turned, self._precisions[component])
            system.add_products(frames, _times_blocks(turned, np.swapaxes(half, -1, -2)),
                                _times_blocks(turned, np.swapaxes(pull, -1, -2))[..., 0], columns)  # fmt: skip
        return self.weight * float(costs.sum())

    @cached_property
    def _precisions(self) -> np.ndarray:
        """W^T W of each component, (M, 3 J, 3 J)."""
        return np.swapaxes(self.prior.whiteners, 1, 2) @ self.prior.whiteners


def _times_blocks(blocks: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return (T, 3 J, n): block-diagonal matrices of 3x3 blocks (T, J, 3, 3) times one matrix ([T,] 3 J, n)."""
    product = blocks @ matrix.reshape(*matrix.shape[:-2], -1, 3, matrix.shape[-1])
    return product.reshape(len(blocks), -1, matrix.shape[-1])


@dataclass(frozen=True, eq=False)
class TwistPrior(FixedTerm):
    """Small twists about the bones: axes (K, 3) unit, in each joint's own axes, sigma (K,) rad, infinite = none.

    Positions alone leave the turn of a straight limb about itself open; this closes it.
    """

    axes: np.ndarray
    sigma: np.ndarray
    name: str = "twist prior"

    def cost(self, state: State, kinematics) -> float:
        """Return 0.5 sum of the squared whitened twists."""
        whitened = self.residuals(state, kinematics) / self.sigma
        return float(0.5 * np.vdot(whitened, whitened))

    def residuals(self, state: State, kinematics) -> np.ndarray:
        """Return the twists (T, K) in radians."""
        return twist_angle(state.rotations, self.axes)[0]

    def add_to(self, system: NormalEquations, state: State, kinematics) -> float:
        """Add the rows to `system` and return the cost."""
        angle, slope = twist_angle(state.rotations, self.axes)
        jacobian, residual = np.zeros((*slope.shape, 3)), np.zeros(slope.shape)
        jacobian[..., 0, :] = slope / self.sigma[:, None]
        residual[..., 0] = angle / self.sigma
        system.add_chains([jacobian], residual, slice(0, angle.shape[1]))
        return float(0.5 * np.vdot(residual, residual))


class _GlobalTerm(FixedTerm):
    """Base of terms on shared unknowns: subclasses give whitened residuals and a Jacobian by their part of them."""

    part = "shape"
    on_shared_unknowns = True

    def cost(self, state: State, kinematics) -> float:
        """Return 0.5 sum of the squared whitened residuals."""
        whitened = self._linearised(state)[0]
        return float(0.5 * whitened @ whitened)

    def add_to(self, system: NormalEquations, state: State, kinematics) -> float:
        """Add the rows to `system` and return the cost."""
        whitened, jacobian = self._linearised(state)
        whole = system.layout.jacobian(whitened.shape, **{self.part: jacobian})
        if whole is not None:
            system.add_globals(whole, whitened if whole.any() else np.zeros_like(whitened))
        return float(0.5 * whitened @ whitened)


@dataclass(frozen=True, eq=False)
class ShapePrior(_GlobalTerm):
    """Usual shapes: sigma (S,), the deviation of each coefficient in the population (`BodyModel.shape_sigma`)."""

    sigma: np.ndarray
    name: str = "shape prior"

    def residuals(self, state: State, kinematics) -> np.ndarray:
        """Return the shape (S,)."""
        return state.shape

    def _linearised(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        return state.shape / self.sigma, np.diag(1.0 / np.broadcast_to(self.sigma, state.shape.shape))


@dataclass(frozen=True, eq=False)
class StaturePrior(_GlobalTerm):
    """The known standing height of the person: `height` and `sigma` in metres, compared with `body.stature(shape)`."""

    body: BodyModel
    height: float
    sigma: float
    name: str = "stature prior"

    def residuals(self, state: State, kinematics) -> np.ndarray:
        """Return the body's stature minus the known one, (1,) metres."""
        return np.array([self.body.stature(state.shape) - self.height])

    def _linearised(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        axis = "xyz".index(self.body.up[-1])
        directions = self.body.shape_directions[:, axis]
        heights = self.body.template[:, axis] + directions @ state.shape
        top, bottom = heights.argmax(), heights.argmin()  # the stature is linear as long as these stay
        apart = heights[top] - heights[bottom] - self.height
        return np.array([apart]) / self.sigma, (directions[top] - directions[bottom])[None] / self.sigma


@dataclass(frozen=True, eq=False)
class OffsetPrior(_GlobalTerm):
    """Point offsets are small: sigma in metres, one number or one per offset (J,)."""

    sigma: np.ndarray | float
    name: str = "offset prior"
    part = "offsets"

    def residuals(self, state: State, kinematics) -> np.ndarray:
        """Return the offsets (J, 3) in metres."""
        return state.offsets

    def _linearised(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        sigma = np.repeat(np.broadcast_to(self.sigma, len(state.offsets)), 3)
        return state.offsets.reshape(-1) / sigma, np.diag(1.0 / sigma)


@dataclass(frozen=True, eq=False)
class FocalPrior(_GlobalTerm):
    """The focal length is about the given one: sigma of its logarithm (0.1 = ten per cent)."""

    sigma: float
    name: str = "focal prior"
    part = "focal"

    def residuals(self, state: State, kinematics) -> np.ndarray:
        """Return the log of the focal length's factor, (1,)."""
        return np.array([state.log_focal])

    def _linearised(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        return np.array([state.log_focal / self.sigma]), np.array([[1.0 / self.sigma]])
