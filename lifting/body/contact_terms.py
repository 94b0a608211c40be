"""Terms of the energy that tie a body to the floor: feet in contact are at its height, do not slip, nothing sinks in.

The floor is a constant plane in the frame of the motion: the points x with ``up . x = offset``. Foot points are those
of a `PointSet`: toes and heels of a keypoint layout, which lie inside the foot and stand at a `clearance` above the
floor, or vertices of the sole, which stand at 0. `contact_terms` builds the usual three with one shared Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from lifting.body.energy import State, robust_cost, robust_weight
from lifting.ground import Ground

if TYPE_CHECKING:
    from lifting.body.model import BodyModel
    from lifting.body.normal_equations import NormalEquations
    from lifting.body.points import Kinematics, PointSet


SOLE_THICKNESS = 0.012  # metres: how far above the lowest vertex of a standing body its soles reach


class ContactPoints:
    """Points of a body whose last Jacobian is remembered, for terms that need the same one.

    Attributes:
        points: the `PointSet` of F points.
    """

    def __init__(self, points: PointSet):
        self.points = points
        self._last: tuple[Kinematics, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    def positions(self, state: State, kinematics: Kinematics) -> np.ndarray:
        """Points (T, F, 3) metres."""
        return self.points.evaluate(kinematics, state.shape)

    def jacobian(self, state: State, kinematics: Kinematics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points (T, F, 3), derivatives (T, F, 3, D) by a frame's unknowns and (T, F, 3, S) by the shape."""
        if self._last is None or self._last[0] is not kinematics:
            points, rows = self.points.rows(kinematics, state.shape)
            size = state.frame_size
            self._last = kinematics, (points, rows[..., :size], rows[..., size:])
        return self._last[1]


@dataclass(frozen=True, eq=False)
class GroundContact:
    """Standing points are at the height of the floor: ``sqrt(p) (up . x - offset - clearance) / sigma``.

    Attributes:
        points: F foot points.
        probability: (T, F) that a point stands.
        ground: the floor in the frame of the motion.
        clearance: (F,) metres over the floor at which points stand, or one number.
        sigma: metres.
        robust: Geman-McClure scale in sigmas for contacts that are none, None for least squares.
    """

    points: ContactPoints
    probability: np.ndarray
    ground: Ground
    clearance: np.ndarray | float = 0.0
    sigma: float = 0.015
    robust: float | None = 4.0

    name = "ground_contact"

    def __post_init__(self) -> None:
        """Check the shapes."""
        _check(self.probability, self.points, self.sigma)

    def residuals(self, state: State, kinematics: Kinematics) -> np.ndarray:
        """Heights (T, F) metres of all points over the height at which they stand, in contact or not."""
        return self.ground.height(self.points.positions(state, kinematics)) - self.clearance

    def cost(self, state: State, kinematics: Kinematics) -> float:
        """Half the sum of robust squared heights in contact over sigma."""
        return robust_cost(self._squares(self.residuals(state, kinematics)), self.robust)

    def add_to(self, system: NormalEquations, state: State, kinematics: Kinematics) -> float:
        """Add one row per point and frame; returns the cost."""
        points, by_frame, by_shape = self.points.jacobian(state, kinematics)
        height = self.ground.height(points) - self.clearance
        squares = self._squares(height)
        scale = np.sqrt(self.probability * robust_weight(squares, self.robust)) / self.sigma
        rows, shape_rows = ((self.ground.up @ part) * scale[..., None] for part in (by_frame, by_shape))
        system.add_frames(rows, height * scale, system.layout.jacobian(scale.shape, shape=shape_rows))
        return robust_cost(squares, self.robust)

    def _squares(self, height: np.ndarray) -> np.ndarray:
        return self.probability * (height / self.sigma) ** 2

    def annealed(self, factor: float) -> GroundContact:
        """The term with its robust scale multiplied by `factor`."""
        return _annealed(self, factor)

    def sliced(self, frames: slice) -> GroundContact:
        """The term of some frames."""
        return replace(self, probability=self.probability[frames])


@dataclass(frozen=True, eq=False)
class NoSlip:
    """Points that stand in two frames do not move between them: ``sqrt(p_t p_t+1) fps (x_t+1 - x_t) / sigma``.

    Attributes:
        points: F foot points.
        probability: (T, F) that a point stands.
        fps: frames per second.
        sigma: m/s, speed of standing points.
        up: (3,) unit vector: only movement at right angles to it counts; None for movement in all directions.
        robust: Geman-McClure scale in sigmas for contacts that are none, None for least squares.
    """

    points: ContactPoints
    probability: np.ndarray
    fps: float
    sigma: float = 0.05
    up: np.ndarray | None = None
    robust: float | None = 4.0

    name = "no_slip"

    def __post_init__(self) -> None:
        """Check the shapes."""
        _check(self.probability, self.points, self.sigma)
        if not self.fps > 0:
            raise ValueError(f"fps must be positive, got {self.fps}.")

    def residuals(self, state: State, kinematics: Kinematics) -> np.ndarray:
        """Displacements (T - 1, F, C) metres from frame to frame, C = 3, or 2 along the floor, in contact or not."""
        return np.diff(self.points.positions(state, kinematics), axis=0) @ self._directions.T

    def cost(self, state: State, kinematics: Kinematics) -> float:
        """Half the sum of robust squared speeds in contact over sigma."""
        return robust_cost(self._squares(self.residuals(state, kinematics)), self.robust)

    def add_to(self, system: NormalEquations, state: State, kinematics: Kinematics) -> float:
        """Add C rows per point and pair of frames; returns the cost."""
        if len(self.probability) < 2:
            return 0.0
        points, by_frame, by_shape = self.points.jacobian(state, kinematics)
        steps = np.diff(points, axis=0) @ self._directions.T
        squares = self._squares(steps)
        scale = np.sqrt(self._both * robust_weight(squares, self.robust)) * self.fps / self.sigma
        before, after, shape_rows = (
            _as_rows(self._along(part) * scale[:, :, None, None])
            for part in (by_frame[:-1], by_frame[1:], np.diff(by_shape, axis=0)))
        residual = (steps * scale[..., None]).reshape(len(steps), -1)
        system.add_pairs(-before, after, residual, system.layout.jacobian(residual.shape, shape=shape_rows))
        return robust_cost(squares, self.robust)

    @property
    def _directions(self) -> np.ndarray:
        """(C, 3) orthonormal directions in which movement counts."""
        return np.eye(3) if self.up is None else _plane_axes(self.up)

    def _along(self, jacobian: np.ndarray) -> np.ndarray:
        """(..., 3, N) to (..., C, N): the directions in which movement counts."""
        return jacobian if self.up is None else self._directions @ jacobian

    @property
    def _both(self) -> np.ndarray:
        """(T - 1, F) probability that a point stands in a frame and in the next."""
        return self.probability[:-1] * self.probability[1:]

    def _squares(self, steps: np.ndarray) -> np.ndarray:
        return self._both * (steps**2).sum(-1) * (self.fps / self.sigma) ** 2

    def annealed(self, factor: float) -> NoSlip:
        """The term with its robust scale multiplied by `factor`."""
        return _annealed(self, factor)

    def sliced(self, frames: slice) -> NoSlip:
        """The term of some frames."""
        return replace(self, probability=self.probability[frames])


@dataclass(frozen=True, eq=False)
class Penetration:
    """No point is below the floor: ``max(0, offset + clearance - up . x) / sigma``, 0 above it.

    Attributes:
        points: F points that may come low: feet, knees, hands, pelvis.
        ground: the floor in the frame of the motion.
        clearance: (F,) metres over the floor that a point keeps because of the flesh around it, or one number.
        sigma: metres.
    """

    points: ContactPoints
    ground: Ground
    clearance: np.ndarray | float = 0.0
    sigma: float = 0.01

    name = "penetration"

    def __post_init__(self) -> None:
        """Check sigma."""
        _check(None, self.points, self.sigma)

    def residuals(self, state: State, kinematics: Kinematics) -> np.ndarray:
        """Depths (T, F) metres below the floor, 0 above it."""
        return self._depth(self.points.positions(state, kinematics))

    def cost(self, state: State, kinematics: Kinematics) -> float:
        """Half the sum of squared depths over sigma."""
        return robust_cost((self.residuals(state, kinematics) / self.sigma) ** 2, None)

    def add_to(self, system: NormalEquations, state: State, kinematics: Kinematics) -> float:
        """Add one row per point and frame; returns the cost."""
        points = self.points.positions(state, kinematics)
        depth = self._depth(points)
        sunk = depth.any(axis=0)
        if not sunk.any():
            return 0.0
        _, by_frame, by_shape = self.points.jacobian(state, kinematics)
        active = np.where(depth[:, sunk, None] > 0, -1.0, 0.0) / self.sigma
        rows, shape_rows = ((self.ground.up @ part[:, sunk]) * active for part in (by_frame, by_shape))
        residual = depth[:, sunk] / self.sigma
        system.add_frames(rows, residual, system.layout.jacobian(residual.shape, shape=shape_rows))
        return robust_cost(residual**2, None)

    def _depth(self, points: np.ndarray) -> np.ndarray:
        return np.maximum(self.clearance - self.ground.height(points), 0.0)

    def annealed(self, factor: float) -> Penetration:
        """The term itself: it has no robust scale."""
        return self

    def sliced(self, frames: slice) -> Penetration:
        """The term itself: it holds nothing per frame."""
        return self


def standing_clearances(body: BodyModel, points: PointSet, shape: np.ndarray | None = None) -> np.ndarray:
    """Heights (F,) metres over the floor of foot points of a body that stands: those of its rest pose over its soles.

    shape: (S,), the mean body by default.
    """
    rest = np.tile(np.eye(3), (1, body.num_joints, 1, 1))
    joints = body.rest_joints(shape)
    shape, up = body.shape_of(shape), body.axes()[:, 1]
    heights = points.evaluate(body.kinematics(rest, joints[:1], shape), shape)[0] @ up
    return heights - (body.rest_vertices(shape) @ up).min()


def sole_points(body: BodyModel, per_foot: int = 8) -> PointSet:
    """Vertices spread over the soles of both feet: what must not sink into the floor.

    Of the vertices within `SOLE_THICKNESS` of the lowest of the rest mesh, on each side of the body the outermost ones
    (farthest-point sampling, Gonzalez 1985).
    """
    left, up, forward = body.axes().T
    height = body.template @ up
    low = np.flatnonzero(height < height.min() + SOLE_THICKNESS)
    side = (body.template[low] - body.joint_template[0]) @ left > 0
    chosen = [low[mask][_spread(body.template[low[mask]] @ np.stack([left, forward], axis=1), per_foot)]
              for mask in (side, ~side) if mask.any()]  # fmt: skip
    columns = np.concatenate(chosen)
    picks = np.ones(len(columns)), (np.arange(len(columns)), columns)
    return body.point_set(sparse.csr_matrix(picks, (len(columns), body.num_vertices + body.num_joints)))


def _spread(places: np.ndarray, count: int) -> list[int]:
    """Numbers of up to `count` places (N, 2), each as far as possible from those before it."""
    chosen = [int(places[:, 1].argmax())]
    distance = np.linalg.norm(places - places[chosen[0]], axis=1)
    while len(chosen) < min(count, len(places)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(places - places[chosen[-1]], axis=1))
    return chosen


def _as_rows(jacobian: np.ndarray) -> np.ndarray:
    """(T, F, C, N) to (T, F C, N)."""
    return jacobian.reshape(len(jacobian), -1, jacobian.shape[-1])


def _plane_axes(up: np.ndarray) -> np.ndarray:
    """Two unit vectors (2, 3) at right angles to `up` and each other."""
    return np.linalg.svd(np.asarray(up, dtype=np.float64)[None])[2][1:]


def _annealed(term, factor: float):
    return term if term.robust is None else replace(term, robust=term.robust * factor)


def _check(probability: np.ndarray | None, points: ContactPoints, sigma: float) -> None:
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}.")
    if probability is None:
        return
    expected = points.points.num_points
    if probability.ndim != 2 or probability.shape[1] != expected:
        raise ValueError(f"probability has shape {probability.shape}, expected (T, {expected}): one for each point.")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probability must lie in 0..1 and must not be NaN; set it to 0 where nothing is known.")
