"""Joint limits: a hinge penalty on the twist and swing of every joint beyond what people reach.

The convention is that of `lifting.body.priors`: rotations from the reference rest pose are split as R = S T, the twist
T about the bone, the swing S about an axis at right angles to it; angles are (twist, swing, swing) in a joint's `axes`.
Written in these axes, M = axes R axes^T, they have a closed form without quaternions: with c = M_00 = cos |swing|,

    twist = atan2(M_21 - M_12, M_11 + M_22),   swing = f(c) (-M_20, M_10),   f(cos x) = x / sin x,
    d twist / d w = (e_0 + M_0.) / (1 + c)      for M <- M exp([w]x).

Both are smooth except where the swing is half a turn. The penalty is zero with zero slope at the limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lifting.body.energy import FixedTerm, State

if TYPE_CHECKING:
    from lifting.body.model import BodyModel
    from lifting.body.normal_equations import NormalEquations
    from lifting.body.points import Kinematics
    from lifting.body.priors import BodyPriors

_LEAST_COSINE = -0.9998  # swings beyond 178.9 degrees are treated as that: their direction is not defined at 180
_SERIES = 1e-3  # 1 - cos below which the series of x / sin x is used


def swing_twist_angles(local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Twist and swing of rotations written in their joint's axes, and their derivatives.

    local: (..., 3, 3) matrices M; axis 0 is the bone.
    Returns angles (..., 3) radians: twist about axis 0 in [-pi, pi], swing about axes 1 and 2; and derivatives
    (..., 3, 3) by a right perturbation M exp([w]x), w in the same axes.
    """
    cosine = np.clip(local[..., 0, 0], _LEAST_COSINE, 1.0)
    side, back = local[..., 1, 0], local[..., 2, 0]
    factor, slope = _angle_over_sine(cosine)
    twist = np.arctan2(local[..., 2, 1] - local[..., 1, 2], local[..., 1, 1] + local[..., 2, 2])
    angles = np.stack([twist, -factor * back, factor * side], axis=-1)
    by_twist = local[..., 0, :] + np.array([1.0, 0.0, 0.0])
    rows = [by_twist / (1 + cosine)[..., None]]
    for sign, axis, other in ((-1, 2, back), (1, 1, side)):
        pull = sign * (factor[..., None] * local[..., axis, :] + (slope * other)[..., None] * local[..., 0, :])
        rows.append(np.stack([np.zeros_like(cosine), -pull[..., 2], pull[..., 1]], axis=-1))
    return angles, np.stack(rows, axis=-2)


class JointLimits(FixedTerm):
    """Energy term: angles outside [low, high], each divided by `sigma` radians.

    Attributes:
        columns: (J,) joint numbers of the body.
        low, high: (J, 3) radians: twist, swing, swing.
    """

    name = "joint_limits"

    def __init__(
        self,
        columns: np.ndarray,
        axes: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        *,
        before: np.ndarray | None = None,
        after: np.ndarray | None = None,
        sigma: float = 0.1,
    ):
        """Limits of J joints.

        Args:
            columns: (J,) joint numbers of the body.
            axes: (J, 3, 3) orthonormal right-handed rows: the bone, then the two axes of the swing.
            low, high: (J, 3) radians; infinite where there is no limit.
            before, after: (J, 3, 3) with ``R_reference = before R after`` for the body's local rotation R; identity.
            sigma: radians.

        Raises ValueError for shapes that do not fit, low above high, axes that are no rotation, sigma not positive.
        """
        self.columns, joints = np.asarray(columns, dtype=int), len(columns)
        self.low, self.high = (np.asarray(limit, dtype=np.float64) for limit in (low, high))
        still = np.broadcast_to(np.eye(3), (joints, 3, 3))
        axes, before, after = (still if part is None else np.asarray(part, float) for part in (axes, before, after))
        shapes = [part.shape for part in (self.low, self.high, axes, before, after)]
        if shapes != [(joints, 3)] * 2 + [(joints, 3, 3)] * 3:
            raise ValueError(f"low, high, axes, before and after have shapes {shapes}, expected (J, 3) for the limits "
                             f"and (J, 3, 3) for the others, J = {joints} joints.")
        if not (self.low <= self.high).all() or not sigma > 0:
            raise ValueError("expected low <= high for every joint and a positive sigma; swap or correct the limits.")
        if not np.allclose(axes @ np.swapaxes(axes, 1, 2), np.eye(3), atol=1e-4) or (np.linalg.det(axes) < 0).any():
            raise ValueError("axes must be orthonormal, right-handed rows; the third is the first times the second.")
        self.sigma = float(sigma)
        self._left, self._right = axes @ before, after @ np.swapaxes(axes, 1, 2)
        middle = np.clip(self.low[:, 0], -np.pi, None) + np.clip(self.high[:, 0], None, np.pi)
        self._twist_centre = middle / 2

    @classmethod
    def from_priors(
        cls, priors: BodyPriors, body: BodyModel, sigma: float = 0.1, offsets: np.ndarray | None = None
    ) -> JointLimits:
        """The limits of a prior file for a body; offsets as in `BodyPriors.conversion`."""
        before, after = priors.conversion(body, offsets)
        return cls(priors.columns(body), priors.axes, priors.limit_low, priors.limit_high,
                   before=before, after=after, sigma=sigma)

    def angles(self, rotations: np.ndarray) -> np.ndarray:
        """Angles (T, J, 3) radians (twist, swing, swing) of local rotations (T, K, 3, 3) of the body."""
        return swing_twist_angles(self._local(rotations))[0]

    def residuals(self, state: State, kinematics: Kinematics) -> np.ndarray:
        """Radians (T, J, 3) beyond the limits: negative below, positive above, 0 inside."""
        return self._excess(self.angles(state.rotations))

    def cost(self, state: State, kinematics: Kinematics) -> float:
        """Half the sum of squared excesses over sigma."""
        return 0.5 * float(np.sum(self.residuals(state, kinematics) ** 2)) / self.sigma**2

    def add_to(self, system: NormalEquations, state: State, kinematics: Kinematics) -> float:
        """Add three rows per joint and frame, each touching one joint; returns the cost."""
        angles, slopes = swing_twist_angles(self._local(state.rotations))
        excess = self._excess(angles)
        if not excess.any():
            return 0.0
        frames, joints = state.rotations.shape[:2]
        jacobian, residual = np.zeros((frames, joints, 3, 3)), np.zeros((frames, joints, 3))
        outside = (excess != 0)[..., None] / self.sigma
        jacobian[:, self.columns] = (slopes * outside) @ np.swapaxes(self._right, 1, 2)
        residual[:, self.columns] = excess / self.sigma
        system.add_chains([jacobian], residual, slice(0, joints))
        return 0.5 * float(np.sum(residual**2))

    def _local(self, rotations: np.ndarray) -> np.ndarray:
        return self._left @ rotations[:, self.columns] @ self._right

    def _excess(self, angles: np.ndarray) -> np.ndarray:
        # A twist just past half a turn belongs to the limit on its side of the range's centre.
        start = self._twist_centre - np.pi
        turned = start + np.remainder(angles[..., 0] - start, 2 * np.pi)
        angles = np.concatenate([turned[..., None], angles[..., 1:]], axis=-1)
        return np.maximum(angles - self.high, 0.0) - np.maximum(self.low - angles, 0.0)


def _angle_over_sine(cosine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f(c) = x / sin x and its derivative by c = cos x."""
    rest = 1 - cosine
    near = rest < _SERIES
    safe = np.where(near, 0.0, cosine)
    sine2 = 1 - safe**2
    angle_over_sine = np.arccos(safe) / np.sqrt(sine2)
    factor = np.where(near, 1 + rest * (1 / 3 + rest * (2 / 15 + rest * 2 / 35)), angle_over_sine)
    slope = np.where(near, -(1 / 3 + rest * (4 / 15 + rest * 6 / 35)), (safe * angle_over_sine - 1) / sine2)
    return factor, slope
