"""Long clips window by window: the same normal equations as of the whole clip, with a window's memory.

Neighbouring windows share two frames, and no residual reaches farther than two frames. So every row of the clip lies
within one window, except those within two shared frames, which lie within two and are taken off one of them. What the
elimination of one window leaves to its last two frames is handed to the next window; the steps come on the way back,
for which each window is linearised once more instead of being kept. The step is that of the whole clip, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lifting.body.normal_equations import Carried, GlobalLayout, NormalEquations, shared_matrix, solve_shared

SHARED_FRAMES = 2
_LEAST_FRAMES = 8  # of a window


def split(num_frames: int, chunk: int) -> tuple[slice, ...]:
    """Return windows of about `chunk` frames that cover the clip; neighbours share two frames.

    Raises ValueError for a chunk of less than 8 frames.
    """
    if chunk < _LEAST_FRAMES:
        raise ValueError(f"chunk is {chunk} frames, expected at least {_LEAST_FRAMES}; try 512.")
    edges = np.linspace(0, num_frames, max(1, round(num_frames / chunk)) + 1).round().astype(int).tolist()
    return tuple(slice(start, min(stop + SHARED_FRAMES, num_frames))
                 for start, stop in zip(edges[:-1], edges[1:], strict=True))


@dataclass(frozen=True, eq=False)
class _Totals:
    """Sums over all windows: product (G + 1, G + 1), corner (G, G), global gradient (G,)."""

    product: np.ndarray
    corner: np.ndarray
    gradient: np.ndarray


class WindowedEquations:
    """Stands for the `NormalEquations` of a whole clip whose frames are linearised window by window.

    linearise: gives the `NormalEquations` of some consecutive frames with all rows that lie within them.
    """

    def __init__(self, linearise: Callable[[slice], NormalEquations], windows: Sequence[slice], frame_size: int,
                 layout: GlobalLayout):
        self.linearise, self.windows, self.layout = linearise, tuple(windows), layout
        self.num_frames, self.frame_size = windows[-1].stop, frame_size
        self._totals: _Totals | None = None
        self._gradient = np.zeros((self.num_frames, frame_size))
        self._scale = np.zeros((self.num_frames, frame_size))

    def solve(self, damping: float) -> tuple[np.ndarray, np.ndarray]:
        """Return what `NormalEquations.solve` returns for the whole clip."""
        carried = self._eliminate(damping)
        totals = self._totals
        global_step = solve_shared(totals.product, totals.corner, totals.gradient, damping)
        step, last = np.zeros((self.num_frames, self.frame_size)), None
        for window, system, reduced in self._backwards(damping, carried):
            step[window] = system.substitute(reduced, global_step, last)
            last = step[window][:SHARED_FRAMES].copy()
        return step, global_step

    def predicted_decrease(self, frame_step: np.ndarray, global_step: np.ndarray, damping: float) -> float:
        """Return what `NormalEquations.predicted_decrease` returns, for the step of `solve(damping)`."""
        totals = self._totals
        slope = np.vdot(self._gradient, frame_step) + totals.gradient @ global_step
        length = np.vdot(self._scale, frame_step**2) + np.diag(totals.corner) @ global_step**2
        return float(0.5 * damping * length - 0.5 * slope)

    def marginals(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield frames of the clip and their blocks (T', D, D) of the inverse, window by window, the last first."""
        carried, after = self._eliminate(0.0), None
        information = shared_matrix(self._totals.product, self._totals.corner, 0.0)
        for window, system, reduced in self._backwards(0.0, carried):
            blocks, after = system.inverse_blocks(reduced, information, after)
            yield slice(window.start, window.start + len(blocks)), blocks

    def _eliminate(self, damping: float) -> list[Carried | None]:
        """Eliminate all windows from the first to the last; returns what each one got from those before."""
        size = self.layout.size
        totals = _Totals(np.zeros((size + 1, size + 1)), np.zeros((size, size)), np.zeros(size))
        self._gradient[:], self._scale[:] = 0.0, 0.0
        carried: list[Carried | None] = [None]
        for index, window in enumerate(self.windows):
            system, closed = self._system(index), index == len(self.windows) - 1
            reduced, left = system.eliminate(damping, carried[-1], closed)
            gone = reduced if closed else reduced[: -SHARED_FRAMES * self.frame_size]
            totals.product[...] += gone.T @ gone
            totals.corner[...] += system.corner
            totals.gradient[...] += system.global_gradient
            self._gradient[window] += system.gradient
            self._scale[window] += np.einsum("tii->ti", system.diagonal)
            carried.append(left)
        self._totals, self._last = totals, (system, reduced)
        return carried[:-1]

    def _backwards(self, damping: float, carried: list[Carried | None]) -> Iterator[tuple]:
        """Yield the windows from the last to the first, their systems and reduced right sides."""
        yield self.windows[-1], *self._last
        self._last = None
        for index in range(len(self.windows) - 2, -1, -1):
            system = self._system(index)
            yield self.windows[index], system, system.eliminate(damping, carried[index], False)[0]

    def _system(self, index: int) -> NormalEquations:
        """Return the equations of a window's rows without those that the window before has."""
        window = self.windows[index]
        system = self.linearise(window)
        if index:
            system.subtract(self.linearise(slice(window.start, window.start + SHARED_FRAMES)))
        return system
