"""Levenberg-Marquardt over a whole clip: all frames, the shape and the camera's focal length at once.

Each iteration linearises the terms, solves the block-banded normal equations by one Cholesky factorisation and moves
the state on its manifold. Robust terms start with a wide scale that narrows stage by stage (graduated non-convexity:
Blake and Zisserman, "Visual reconstruction", 1987; Yang et al., RA-L 2020), so that gross errors lose their pull only
once the rest of the clip has found its place. Damping follows K. Madsen, H. B. Nielsen, O. Tingleff, "Methods for
non-linear least squares problems", 2004, section 3.2. The same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lifting.body.energy import FREE, State, Term
from lifting.body.normal_equations import NormalEquations
from lifting.body.threads import one_blas_thread
from lifting.body.windows import WindowedEquations, split

if TYPE_CHECKING:
    from lifting.body.model import BodyModel

ROBUST_FACTORS = (8.0, 3.0, 1.0)
STAGE_TOLERANCE = 0.05  # relative fall of the cost below which a stage that is not the last is left
_FIRST_DAMPING = 1e-4
_MOST_DAMPING = 1e10


@dataclass(frozen=True, eq=False)
class Solution:
    """Where the solver stopped.

    state; cost of the energy with the final robust scales; costs by term name; iterations: accepted and rejected steps
    together; converged: whether the last step changed the cost by less than the tolerance; history: the cost before
    each stage's first step and after every accepted one, per stage; windows: frames of the windows of a clip solved in
    chunks.
    """

    body: BodyModel
    terms: tuple[Term, ...]
    state: State
    cost: float
    costs: dict[str, float]
    iterations: int
    converged: bool
    free: tuple[str, ...] = FREE
    history: tuple[tuple[float, ...], ...] = ()
    windows: tuple[slice, ...] = ()

    @cached_property
    def system(self) -> NormalEquations:
        """The undamped normal equations of the whole clip at the solution; large for long clips."""
        return linearise(self.body, self.terms, self.state, self.free)

    def marginals(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield frames and the covariances (T', D, D) of their unknowns: rotation vectors in rad, trajectory in metres.

        A clip comes at once, a clip solved in chunks window by window, the last first, with a window's memory. The
        inverse of the Gauss-Newton matrix: right where the residuals' deviations are, for small residuals.
        Raises numpy.linalg.LinAlgError when something is neither observed nor held by a prior.
        """
        with one_blas_thread():
            if len(self.windows) < 2:
                yield slice(0, self.state.num_frames), self.system.marginal_covariances()
            else:
                yield from windowed(self.body, self.terms, self.state, self.free, self.windows).marginals()

    def marginal_covariances(self) -> np.ndarray:
        """Return the covariances of all frames, (T, D, D); see `marginals`."""
        return np.concatenate([covariances for _, covariances in self.marginals()][::-1])


def linearise(body: BodyModel, terms: Sequence[Term], state: State, free: Sequence[str] = FREE,
              system: NormalEquations | None = None) -> NormalEquations:
    """Return the normal equations of the terms at a state; `system` may be given to use its memory again."""
    if system is None:
        system = NormalEquations(state.num_frames, state.frame_size, state.layout(free))
    else:
        system.clear()
    kinematics = body.kinematics(state.rotations, state.trajectory, state.shape)
    for term in terms:
        term.add_to(system, state, kinematics)
    return system


def windowed(body: BodyModel, terms: Sequence[Term], state: State, free: Sequence[str],
             windows: Sequence[slice]) -> WindowedEquations:
    """Return the normal equations of the terms at a state, to be linearised window by window."""

    def equations(frames: slice) -> NormalEquations:
        return linearise(body, [term.sliced(frames) for term in terms], state.sliced(frames), free)

    return WindowedEquations(equations, windows, state.frame_size, state.layout(free))


def evaluate(body: BodyModel, terms: Sequence[Term], state: State) -> dict[str, float]:
    """Return the cost of each term at a state, by name; terms of one name are summed."""
    kinematics = body.kinematics(state.rotations, state.trajectory, state.shape)
    costs: dict[str, float] = {}
    for term in terms:
        costs[term.name] = costs.get(term.name, 0.0) + term.cost(state, kinematics)
    return costs


def solve(terms: Sequence[Term], state: State, *, body: BodyModel, max_iterations: int = 20,
          robust_factors: Sequence[float] = ROBUST_FACTORS, tolerance: float = 1e-4, free: Sequence[str] = FREE,
          progress: Callable[[int, float], None] | None = None) -> Solution:
    """Minimise the sum of the terms from `state`.

    max_iterations bounds the steps of all stages together, rejected ones included. robust_factors multiply the terms'
    robust scales, one stage to each; the last should be 1. A stage ends when a step lowers the cost by less than
    `tolerance` of it (by less than 5 % in stages before the last). free: which shared unknowns move. progress is called
    with the number of steps and the cost. Raises ValueError for a start that is not finite or for unknown names in
    `free`.
    """
    search = _Search(body, tuple(terms), state, tuple(free), progress)
    return search.run(robust_factors, tolerance, max_iterations)


def solve_chunked(terms: Sequence[Term], state: State, *, body: BodyModel, chunk: int = 512,
                  max_iterations: int = 20, robust_factors: Sequence[float] = ROBUST_FACTORS, tolerance: float = 1e-4,
                  free: Sequence[str] = FREE, progress: Callable[[int, float], None] | None = None) -> Solution:
    """Minimise like `solve`, for long clips: linear algebra in windows of about `chunk` frames.

    The steps are those of `solve` up to rounding, the memory for them is that of a window, and a step takes twice the
    time, as each window is linearised and factorised once more on the way back. Arguments and errors are `solve`'s, and
    ValueError for a chunk of less than 8 frames.
    """
    search = _Search(body, tuple(terms), state, tuple(free), progress, split(state.num_frames, chunk))
    return search.run(robust_factors, tolerance, max_iterations)


class _Search:
    """The state of one Levenberg-Marquardt search, carried through its stages."""

    def __init__(self, body, terms, state, free, progress, windows=()):
        self.body, self.original_terms, self.state, self.free, self.progress = body, terms, state, free, progress
        self.terms, self.windows = terms, windows
        self.layout = state.layout(free)
        self.system: NormalEquations | WindowedEquations | None = None
        self.damping, self.growth = _FIRST_DAMPING, 2.0
        self.iterations, self.converged = 0, False
        self.history: list[tuple[float, ...]] = []

    def run(self, robust_factors: Sequence[float], tolerance: float, max_iterations: int) -> Solution:
        """Run one stage for each factor of the robust scales and return where the last one stopped."""
        with one_blas_thread():
            for index, factor in enumerate(robust_factors):
                later = len(robust_factors) - 1 - index
                self.run_stage(factor, max(tolerance, STAGE_TOLERANCE) if later else tolerance, max_iterations - later)
            return self.solution()

    def run_stage(self, factor: float, tolerance: float, max_iterations: int) -> None:
        """Take steps with the robust scales times `factor` until the cost settles or `max_iterations` is reached."""
        self.terms = tuple(term.annealed(factor) for term in self.original_terms)
        cost = self._cost(self.state)
        if not np.isfinite(cost):
            raise ValueError("The energy at the start is not finite, expected a start without NaN; fill its gaps.")
        costs, self.converged = [cost], False
        while self.iterations < max_iterations and not self.converged:
            new_cost = self._step(cost)
            costs.append(new_cost)
            self.converged = cost - new_cost <= tolerance * abs(cost) + 1e-12
            cost = new_cost
        self.history.append(tuple(costs))

    def _step(self, cost: float) -> float:
        """Linearise, then raise the damping until a step lowers the cost; return the cost then reached."""
        if len(self.windows) > 1:
            self.system = windowed(self.body, self.terms, self.state, self.free, self.windows)
        else:
            self.system = linearise(self.body, self.terms, self.state, self.free, self.system)
        while self.damping < _MOST_DAMPING:
            self.iterations += 1
            candidate, predicted = self._candidate()
            new_cost = np.inf if candidate is None else self._cost(candidate)
            if new_cost <= cost:
                self._accept(candidate, (cost - new_cost) / max(predicted, 1e-300))
                self._report(new_cost)
                return new_cost
            self.damping *= self.growth
            self.growth *= 2.0
        self.damping, self.growth = _FIRST_DAMPING, 2.0
        return cost

    def _candidate(self) -> tuple[State | None, float]:
        """Return the state after the damped step, None where there is none, and the cost's predicted fall."""
        try:
            step, global_step = self.system.solve(self.damping)
        except np.linalg.LinAlgError:
            return None, 0.0
        if not (np.isfinite(step).all() and np.isfinite(global_step).all()):
            return None, 0.0
        predicted = self.system.predicted_decrease(step, global_step, self.damping)
        return self.state.retract(step, global_step, self.layout), predicted

    def _accept(self, candidate: State, gain: float) -> None:
        self.state = candidate
        self.damping = max(self.damping * max(1 / 10, 1 - (2 * min(gain, 1.0) - 1) ** 3), 1e-12)
        self.growth = 2.0

    def _cost(self, state: State) -> float:
        kinematics = self.body.kinematics(state.rotations, state.trajectory, state.shape)
        return sum(term.cost(state, kinematics) for term in self.terms)

    def _report(self, cost: float) -> None:
        if self.progress is not None:
            self.progress(self.iterations, cost)

    def solution(self) -> Solution:
        costs = evaluate(self.body, self.original_terms, self.state)
        return Solution(self.body, self.original_terms, self.state, sum(costs.values()), costs, self.iterations,
                        self.converged, self.free, tuple(self.history), tuple(self.windows))
