"""Long clips in overlapping windows that share the unknowns of the whole clip.

Each window is solved alone; then the shape, offsets and focal length that minimise the sum of the windows' energies
follow from their Schur complements, and the frames are solved once more with these held. What lies farther away than
the overlap does not reach a window's core through the smoothness terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lifting.body.energy import State
from lifting.body.normal_equations import GlobalLayout, NormalEquations


@dataclass(frozen=True)
class Window:
    """Frames `start` to `stop` that are solved together, of which `first` to `last` are kept."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def frames(self) -> slice:
        """The frames to solve."""
        return slice(self.start, self.stop)

    @property
    def kept(self) -> slice:
        """The frames to keep, in the whole clip."""
        return slice(self.first, self.last)

    @property
    def core(self) -> slice:
        """The frames to keep, counted from the window's first."""
        return slice(self.first - self.start, self.last - self.start)


def split(num_frames: int, chunk: int, overlap: int) -> tuple[Window, ...]:
    """Return windows whose cores of about `chunk` frames cover the clip; neighbours share `overlap` frames.

    Raises ValueError unless 0 <= overlap < chunk.
    """
    if not 0 <= overlap < chunk:
        raise ValueError(f"chunk is {chunk} and overlap {overlap} frames, expected 0 <= overlap < chunk; try 512, 64.")
    edges = np.linspace(0, num_frames, max(1, round(num_frames / chunk)) + 1).round().astype(int).tolist()
    margin = (overlap + 1) // 2
    return tuple(Window(max(first - margin, 0), min(last + margin, num_frames), first, last)
                 for first, last in zip(edges[:-1], edges[1:], strict=True))


def shared_values(state: State, layout: GlobalLayout) -> np.ndarray:
    """Return the shared unknowns (G,) of a state that `layout` holds."""
    values = np.zeros(layout.size)
    values[layout.shape] = state.shape[: layout.num_shape]
    values[layout.offsets] = state.offsets[: layout.num_offsets].reshape(-1)
    values[layout.focal] = state.log_focal
    return values


def with_shared_values(state: State, layout: GlobalLayout, values: np.ndarray) -> State:
    """Return the state with the shared unknowns of `layout` set to `values` (G,)."""
    still = np.zeros((state.num_frames, state.frame_size))
    return state.retract(still, values - shared_values(state, layout), layout)


def shared_priors(terms, state: State, layout: GlobalLayout) -> NormalEquations:
    """Return the normal equations of the terms on shared unknowns only (in `corner` and `global_gradient`)."""
    system = NormalEquations(1, state.frame_size, layout)
    for term in terms:
        if getattr(term, "on_shared_unknowns", False):
            term.add_to(system, state, None)
    return system


def consensus(values: Sequence[np.ndarray], equations: Sequence[tuple[np.ndarray, np.ndarray]],
              priors: NormalEquations, at: np.ndarray) -> np.ndarray:
    """Return the shared unknowns (G,) that minimise the sum of the windows' energies.

    values, equations: each window's estimate and its `NormalEquations.global_equations`; priors: `shared_priors`,
    linearised where the shared unknowns are `at` (G,). They take part in every window and are counted once.
    """
    surplus = len(values) - 1
    whole = sum(matrix for matrix, _ in equations) - surplus * priors.corner
    right = sum(matrix @ value - gradient for (matrix, gradient), value in zip(equations, values, strict=True))
    return np.linalg.solve(whole, right + surplus * (priors.global_gradient - priors.corner @ at))
