"""Terms that hold points of the body to observations: 3D positions in metres, 2D keypoints in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lifting.body.energy import State, inverse_sigma, robust_cost, robust_weight
from lifting.body.normal_equations import NormalEquations
from lifting.body.points import Kinematics, PointSet
from lifting.body.projection import camera_of_frames, project, project_with_jacobian
from lifting.cameras import Camera

_FRAMES_AT_ONCE = 32  # rows of the Jacobian that are held at once: they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class _PointTerm:
    """What both point terms share: targets, deviations, a robust scale in deviations, offsets of the definition."""

    points: PointSet
    target: np.ndarray
    sigma: np.ndarray
    robust: float | None = 3.0
    offset_rows: np.ndarray | None = None

    def __post_init__(self):
        """Convert to float64 and check the shapes."""
        target, sigma = np.asarray(self.target, np.float64), np.asarray(self.sigma, np.float64)
        if target.ndim != 3 or target.shape[1:] != (self.points.num_points, self._axes):
            raise ValueError(f"target has shape {target.shape}, expected (T, {self.points.num_points}, {self._axes}); "
                             "pass one target for each point of the set.")
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "sigma", np.broadcast_to(sigma, target.shape[:2]) if sigma.ndim < 2 else sigma)
        if self.offset_rows is not None:
            rows = np.asarray(self.offset_rows, int)
            if rows.shape != (self.points.num_points,):
                raise ValueError(f"offset_rows has shape {rows.shape}, expected ({self.points.num_points},); name one "
                                 "row of the state's offsets for each point, -1 for none.")
            object.__setattr__(self, "offset_rows", rows)

    @cached_property
    def inverse_sigma(self) -> np.ndarray:
        """(T, J) 1 / sigma; 0 where a point was not seen."""
        return inverse_sigma(self.sigma, self.target)

    @cached_property
    def filled_target(self) -> np.ndarray:
        """The targets with zeros where a point was not seen."""
        return np.where(self.inverse_sigma[..., None] > 0, self.target, 0.0)

    @property
    def _scale(self) -> float | None:
        """Robust scale of a point's residual length, whose mean square grows with the number of axes."""
        return None if self.robust is None else self.robust * self._axes**0.5

    def annealed(self, factor: float):
        """Return the term with its robust scale multiplied by `factor`; itself if it is not robust."""
        return self if self.robust is None else replace(self, robust=self.robust * factor)

    def cost(self, state: State, kinematics: Kinematics) -> float:
        """Return 0.5 sum rho(|r|^2), one r to a point."""
        whitened = (self._predict(state, kinematics) - self.filled_target) * self.inverse_sigma[..., None]
        return robust_cost(np.einsum("tji,tji->tj", whitened, whitened), self._scale)

    def residuals(self, state: State, kinematics: Kinematics) -> np.ndarray:
        """Return predicted minus observed (T, J, 3 or 2) in metres or pixels; NaN where a point was not seen."""
        seen = self.inverse_sigma[..., None] > 0
        return np.where(seen, self._predict(state, kinematics) - self.filled_target, np.nan)

    def add_to(self, system: NormalEquations, state: State, kinematics: Kinematics) -> float:
        """Add the rows to `system` and return the cost."""
        points, cost = self._points(state), 0.0
        for frames, part in frame_blocks(kinematics):
            positions, by_state = points.rows(part, state.shape, bool(system.layout.num_shape))
            residual, by_position, by_focal = self._observed(positions, frames, state)
            inverse = self.inverse_sigma[frames]
            square = np.einsum("tji,tji,tj,tj->tj", residual, residual, inverse, inverse)
            weight = (inverse * np.sqrt(robust_weight(square, self._scale)))[..., None]
            by_position = by_position * weight[..., None]
            columns = self._shared_columns(system)
            rows = np.zeros((*residual.shape, system.frame_size + len(columns) + 1))
            np.matmul(by_position, by_state, out=rows[..., : by_state.shape[-1]])
            if len(columns) == system.num_globals:
                self._add_offsets(rows, by_position @ part.global_rotations[:, points.anchor_bones], system)
            if system.layout.num_focal and by_focal is not None:
                rows[..., -2] = weight * by_focal
            rows[..., -1] = weight * residual
            system.add_rows(frames, rows.reshape(len(rows), -1, rows.shape[-1]), columns)
            cost += robust_cost(square, self._scale)
        return cost

    def _shared_columns(self, system: NormalEquations) -> np.ndarray:
        """Return which shared unknowns (n,) the term depends on."""
        if self.offset_rows is None:
            return system.layout.dense_columns
        return np.arange(system.num_globals)

    def _add_offsets(self, rows: np.ndarray, by_offset: np.ndarray, system: NormalEquations) -> None:
        """Write how points depend on their offsets, (T, J, axes, 3), into rows (T, J, axes, D + G + 1)."""
        if self.offset_rows is None or not system.layout.num_offsets:
            return
        used = np.flatnonzero(self.offset_rows >= 0)
        start = system.frame_size + system.layout.offsets.start
        columns = start + 3 * self.offset_rows[used, None] + np.arange(3)
        rows[:, used[:, None, None], np.arange(self._axes)[:, None], columns[:, None]] = by_offset[:, used]

    def _points(self, state: State) -> PointSet:
        """Return the points with the state's offsets added, each in the axes of its anchor bone."""
        if self.offset_rows is None or not len(state.offsets):
            return self.points
        shifted = (self.offset_rows >= 0)[:, None]
        return self.points.shifted(np.where(shifted, state.offsets[self.offset_rows], 0.0))


@dataclass(frozen=True, eq=False)
class Points3D(_PointTerm):
    """Points of the body at observed positions.

    points: PointSet of J points; target (T, J, 3) metres, NaN = not seen; sigma (T, J), (J,) or one number, metres,
    infinite = not seen; robust: Geman-McClure's scale in sigmas of one axis, None for least squares; offset_rows (J,)
    which row of the state's offsets moves each point, -1 for none. Raises ValueError for wrong shapes.
    """

    name: str = "points 3d"
    _axes = 3

    def sliced(self, frames: slice) -> Points3D:
        """Return the term for some frames."""
        return replace(self, target=self.target[frames], sigma=self.sigma[frames])

    def _predict(self, state: State, kinematics: Kinematics) -> np.ndarray:
        return self._points(state).evaluate(kinematics, state.shape)

    def _observed(self, positions: np.ndarray, frames: slice, state: State):
        """Return residuals (T, J, 3) in metres, their derivative by the position and by the focal length (none)."""
        return positions - self.filled_target[frames], np.eye(3), None


@dataclass(frozen=True, eq=False)
class Points2D(_PointTerm):
    """Points of the body at the pixels where a detector saw them.

    points: PointSet of J points; target (T, J, 2) pixels, NaN = not seen; sigma (T, J), (J,) or one number, pixels,
    which grows as confidence falls, infinite = not seen; camera: still or moving, with its distortion. The camera's
    rotation and translation lead from the state's frame to the camera (leave them out when that is the camera frame).
    Points behind the camera keep a finite cost that pushes them to its front (`project_with_jacobian`). The remaining
    fields are `Points3D`'s. Raises ValueError for wrong shapes.
    """

    camera: Camera | None = None
    name: str = "points 2d"
    _axes = 2

    def __post_init__(self):
        """Check the shapes and that there is a camera."""
        super().__post_init__()
        if self.camera is None:
            raise ValueError("Points2D got no camera, expected a Camera; pass camera=.")

    def sliced(self, frames: slice) -> Points2D:
        """Return the term for some frames."""
        camera = camera_of_frames(self.camera, frames)
        return replace(self, target=self.target[frames], sigma=self.sigma[frames], camera=camera)

    def _predict(self, state: State, kinematics: Kinematics) -> np.ndarray:
        return project(self._points(state).evaluate(kinematics, state.shape), self.camera, state.log_focal)

    def _observed(self, positions: np.ndarray, frames: slice, state: State):
        """Return residuals (T, J, 2) in pixels, their derivative by the position and by the log focal length."""
        camera = camera_of_frames(self.camera, frames)
        pixels, by_point, by_focal = project_with_jacobian(positions, camera, state.log_focal)
        return pixels - self.filled_target[frames], by_point, by_focal


def frame_blocks(kinematics: Kinematics) -> Iterator[tuple[slice, Kinematics]]:
    """Yield consecutive frames and the kinematics of them, few enough that their Jacobian stays small."""
    total = len(kinematics.joints)
    for start in range(0, total, _FRAMES_AT_ONCE):
        frames = slice(start, min(start + _FRAMES_AT_ONCE, total))
        yield frames, kinematics.sliced(frames)
