"""What the fit minimises: the state of a clip, the terms of its energy, and the robust cost that terms share.

The energy is the sum over terms of 0.5 sum rho(|r|^2): r are residuals divided by their standard deviation
("whitened"), rho is the identity or Geman-McClure's. A rotation moves by a perturbation on its right,
R <- R exp([w]x), so that w is a rotation vector in the joint's own axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lifting.body.normal_equations import GlobalLayout, NormalEquations
from lifting.rotations import rotvec_to_matrix

if TYPE_CHECKING:
    from lifting.body.model import Kinematics

FREE = ("shape", "offsets", "focal")


@dataclass(frozen=True, eq=False)
class State:
    """The unknowns of one person's clip, float64.

    rotations (T, K, 3, 3) local; trajectory (T, 3) metres, joint 0 in the frame; shape (S,) shared by all frames;
    offsets (J, 3) metres, shared: what a detector's points lie off the body's, in the axes of each point's bone;
    log_focal: the camera's focal length is multiplied by its exponential.
    """

    rotations: np.ndarray
    trajectory: np.ndarray
    shape: np.ndarray
    offsets: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    log_focal: float = 0.0

    def __post_init__(self):
        """Convert to float64 and check the shapes."""
        for name in ("rotations", "trajectory", "shape", "offsets"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        shapes = [getattr(self, name).shape for name in ("rotations", "trajectory", "shape", "offsets")]
        rotations, trajectory, shape, offsets = shapes
        if (len(rotations) != 4 or rotations[2:] != (3, 3) or trajectory != (rotations[0], 3) or len(shape) != 1
                or len(offsets) != 2 or offsets[1] != 3):
            raise ValueError(f"The state's rotations, trajectory, shape and offsets have the shapes {shapes}, expected "
                             "(T, K, 3, 3), (T, 3), (S,) and (J, 3); correct them.")

    @property
    def num_frames(self) -> int:
        """The number T of frames."""
        return len(self.rotations)

    @property
    def frame_size(self) -> int:
        """The number D = 3 K + 3 of unknowns in a frame: rotation updates, joint after joint, then the trajectory."""
        return 3 * self.rotations.shape[1] + 3

    def layout(self, free: Sequence[str] = FREE) -> GlobalLayout:
        """Return where the shared unknowns lie when those named in `free` move and the others are held."""
        unknown = sorted(set(free) - set(FREE))
        if unknown:
            raise ValueError(f"free holds {unknown[0]!r}, expected only {', '.join(FREE)}; remove it.")
        return GlobalLayout(len(self.shape) * ("shape" in free), len(self.offsets) * ("offsets" in free),
                            int("focal" in free))

    def retract(self, frame_step: np.ndarray, global_step: np.ndarray, layout: GlobalLayout | None = None) -> State:
        """Return the state after the steps (T, D) and (G,), the latter laid out by `layout` (default: all free)."""
        layout = self.layout() if layout is None else layout
        turns = rotvec_to_matrix(frame_step[:, :-3].reshape(self.num_frames, -1, 3))
        changes = {"rotations": self.rotations @ turns, "trajectory": self.trajectory + frame_step[:, -3:]}
        if layout.num_shape:
            changes["shape"] = self.shape + global_step[layout.shape]
        if layout.num_offsets:
            changes["offsets"] = self.offsets + global_step[layout.offsets].reshape(-1, 3)
        if layout.num_focal:
            changes["log_focal"] = self.log_focal + float(global_step[layout.focal][0])
        return replace(self, **changes)

    def sliced(self, frames: slice) -> State:
        """Return the state of some frames, with the same shared unknowns."""
        return replace(self, rotations=self.rotations[frames], trajectory=self.trajectory[frames])


class Term(Protocol):
    """One addend of the energy. Terms are immutable; `annealed` and `sliced` return altered copies."""

    name: str

    def cost(self, state: State, kinematics: Kinematics) -> float:
        """Return 0.5 sum rho(|r|^2) over the whitened residuals r."""

    def add_to(self, system: NormalEquations, state: State, kinematics: Kinematics) -> float:
        """Add J^T W J and J^T W r (W: the robust weights) to `system` and return the cost."""

    def residuals(self, state: State, kinematics: Kinematics) -> np.ndarray:
        """Return the residuals in their own unit (metres, pixels, ...), (T, ...) where they belong to frames."""

    def annealed(self, factor: float) -> Term:
        """Return the term with its robust scale multiplied by `factor`; itself if it is not robust."""

    def sliced(self, frames: slice) -> Term:
        """Return the term for some consecutive frames of the clip; itself if it holds nothing per frame."""


class FixedTerm:
    """Base of terms that are neither robust nor hold anything per frame: the same in every stage and chunk."""

    def annealed(self, factor: float):
        """Return the term itself: it has no robust scale."""
        return self

    def sliced(self, frames: slice):
        """Return the term itself: it holds nothing per frame."""
        return self


def robust_cost(square: np.ndarray, scale: float | None) -> float:
    """Return 0.5 sum rho(square), rho(e) = c^2 e / (c^2 + e) with c = `scale`; rho(e) = e for None.

    `square` holds squared lengths of whitened residuals. Source: S. Geman, D. McClure, "Statistical methods for
    tomographic image reconstruction", 1987.
    """
    if scale is None:
        return float(0.5 * np.sum(square))
    limit = scale * scale
    return float(0.5 * np.sum(limit * square / (limit + square)))


def robust_weight(square: np.ndarray, scale: float | None) -> np.ndarray:
    """Return rho'(square), the weight of iteratively reweighted least squares: (c^2 / (c^2 + e))^2, ones for None."""
    if scale is None:
        return np.ones_like(square)
    limit = scale * scale
    return (limit / (limit + square)) ** 2


def inverse_sigma(sigma: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return 1 / sigma, and 0 where sigma is not a positive finite number or a number of the target's last axis is NaN.

    Raises ValueError when `sigma` does not have the target's leading shape.
    """
    if sigma.shape != target.shape[:-1]:
        raise ValueError(f"sigma has shape {sigma.shape}, expected the targets' {target.shape[:-1]}; pass one each.")
    usable = np.isfinite(sigma) & (sigma > 0) & np.isfinite(target).all(axis=-1)
    return np.where(usable, 1.0 / np.where(usable, sigma, 1.0), 0.0)
