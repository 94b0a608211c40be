"""Many independent small minimisations at once: L-BFGS with a strong Wolfe line search, in numpy.

Every problem has its own curvature history, line search and end, exactly as if it were solved alone; only the
evaluations of the function are shared. That is what makes a fit "frame by frame, as published" fast.

Source: Nocedal & Wright, "Numerical optimization", 2nd ed., algorithms 7.4 and 7.5 (two-loop recursion), 3.5 and 3.6
(line search).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

# Values (n,) and gradients (n, D) of the problems numbered `rows` (n,) at `x` (n, D).
Function = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

_DECREASE, _CURVATURE = 1e-4, 0.9  # the two constants of the strong Wolfe conditions
_LINE_EVALUATIONS = 25
_SMALLEST_CURVATURE = 1e-10
_GRADIENT_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Minimum:
    """Where N minimisations ended.

    Attributes:
        x: (N, D) the best points.
        value: (N,) the function there.
        iterations: (N,) steps taken.
        converged: (N,) False where the limit of iterations came first.
    """

    x: np.ndarray
    value: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray


def minimise(
    function: Function, start: np.ndarray, *, max_iterations: int = 900, history: int = 20, tolerance: float = 1e-9
) -> Minimum:
    """Minimise N smooth functions of D variables, each on its own.

    Args:
        function: ``function(x (n, D), rows (n,)) -> values (n,), gradients (n, D)`` of the problems `rows`.
        start: (N, D) where to start.
        max_iterations: most steps of one problem.
        history: steps remembered for the curvature.
        tolerance: a problem ends when a step lowers its value by less than this fraction of it.

    Raises ValueError when `start` is no (N, D) array or a function is not finite there.
    """
    x = np.array(start, np.float64)
    if x.ndim != 2:
        raise ValueError(f"start has the shape {x.shape}, expected (N, D): one row per problem.")
    every = np.arange(len(x))
    value, gradient = function(x, every)
    if not (np.isfinite(value).all() and np.isfinite(gradient).all()):
        raise ValueError("the function is not finite where the minimisation starts; check the start and the data.")
    value, gradient = value.copy(), gradient.copy()
    memory = _Memory(*x.shape, history)
    iterations = np.zeros(len(x), int)
    active = np.abs(gradient).max(axis=1, initial=0.0) > _GRADIENT_TOLERANCE
    for iteration in range(max_iterations):
        rows = every[active]
        if not len(rows):
            break
        direction = memory.direction(rows, gradient[rows])
        length = _first_length(gradient[rows]) if iteration == 0 else np.ones(len(rows))
        found = _search(function, rows, x[rows], direction, _Point(np.zeros(len(rows)), value[rows], gradient[rows],
                        _dot(gradient[rows], direction)), length)
        step = found.length[:, None] * direction
        memory.add(rows, step, found.gradient - gradient[rows])
        decrease = value[rows] - found.value
        x[rows] += step
        value[rows], gradient[rows] = found.value, found.gradient
        iterations[rows] += 1
        going_on = decrease > tolerance * np.maximum(np.abs(value[rows]), 1e-12)
        active[rows] = going_on & (np.abs(found.gradient).max(axis=1) > _GRADIENT_TOLERANCE)
    return Minimum(x, value, iterations, ~active)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", a, b)


def _first_length(gradient: np.ndarray) -> np.ndarray:
    """Length of the first step, before any curvature is known: the step moves by 1 in all, or less."""
    return np.minimum(1.0, 1.0 / np.maximum(np.abs(gradient).sum(axis=1), 1e-300))


class _Memory:
    """The last steps and changes of gradient of every problem, for the two-loop recursion."""

    def __init__(self, problems: int, variables: int, history: int) -> None:
        self._steps = np.zeros((history, problems, variables))
        self._changes = np.zeros((history, problems, variables))
        self._inverse = np.zeros((history, problems))  # 1 / (step . change); 0 where nothing is stored
        self._scale = np.ones(problems)
        self._next = 0

    def add(self, rows: np.ndarray, step: np.ndarray, change: np.ndarray) -> None:
        """Remember a step of the problems `rows`, unless its curvature is not positive."""
        slot, curvature = self._next % len(self._steps), _dot(step, change)
        kept = curvature > _SMALLEST_CURVATURE * _dot(change, change).clip(1e-300)
        self._inverse[slot] = 0.0
        rows, step, change, curvature = rows[kept], step[kept], change[kept], curvature[kept]
        self._steps[slot, rows], self._changes[slot, rows] = step, change
        self._inverse[slot, rows] = 1.0 / curvature
        self._scale[rows] = curvature / _dot(change, change)
        self._next += 1

    def direction(self, rows: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Downhill directions (n, D): minus the inverse Hessian times the gradient, as far as it is known."""
        count = len(self._steps)
        order = [slot % count for slot in range(self._next - 1, max(self._next - count, 0) - 1, -1)]
        result, weights = -gradient, {}
        for slot in order:
            weights[slot] = self._inverse[slot, rows] * _dot(self._steps[slot, rows], result)
            result = result - weights[slot][:, None] * self._changes[slot, rows]
        result = result * self._scale[rows, None]
        for slot in reversed(order):
            back = self._inverse[slot, rows] * _dot(self._changes[slot, rows], result)
            result = result + (weights[slot] - back)[:, None] * self._steps[slot, rows]
        uphill = ~(_dot(result, gradient) < 0)
        result[uphill] = -gradient[uphill]
        return result


@dataclass
class _Point:
    """Points on the search lines of n problems: length along the line, value, gradient, slope along the line."""

    length: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    slope: np.ndarray

    def copy(self) -> _Point:
        return _Point(*(getattr(self, field.name).copy() for field in fields(self)))

    def put(self, mask: np.ndarray, other: _Point) -> None:
        """Replace the problems of the mask by those of another point."""
        for field in fields(self):
            getattr(self, field.name)[mask] = getattr(other, field.name)[mask]


def _search(
    function: Function, rows: np.ndarray, x: np.ndarray, direction: np.ndarray, start: _Point, length: np.ndarray
) -> _Point:
    """Find points that satisfy the strong Wolfe conditions, or else the lowest sufficient decrease that was met."""
    low, high, current = start.copy(), start.copy(), start.copy()
    bracketed, done = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    length = length.copy()
    for _ in range(_LINE_EVALUATIONS):
        todo = np.flatnonzero(~done)
        if not len(todo):
            break
        current.length[todo] = length[todo]
        values, gradients = function(x[todo] + length[todo, None] * direction[todo], rows[todo])
        current.value[todo], current.gradient[todo] = values, gradients
        current.slope[todo] = _dot(gradients, direction[todo])
        with np.errstate(invalid="ignore"):
            too_high = ~((current.value <= start.value + _DECREASE * current.length * start.slope)
                         & (current.value < low.value))
            flat = ~too_high & (np.abs(current.slope) <= -_CURVATURE * start.slope) & ~done
        turned = ~too_high & (current.slope * np.where(bracketed, high.length - low.length, 1) >= 0) & ~flat & ~done
        high.put(too_high & ~done, current)
        high.put(turned, low)
        low.put(~too_high & ~done, current)  # the accepted ones too: `low` is the answer
        bracketed |= (too_high | turned) & ~done
        done |= flat | (bracketed & (np.abs(high.length - low.length) < 1e-12))
        length = np.where(bracketed, _between(low, high), 2.0 * current.length)
    return low


def _between(low: _Point, high: _Point) -> np.ndarray:
    """A length between two points: the minimum of the parabola through them, kept off the ends of the interval."""
    width = high.length - low.length
    with np.errstate(all="ignore"):
        fraction = -low.slope * width / (2 * (high.value - low.value - low.slope * width))
    fraction = np.where(np.isfinite(fraction) & (fraction > 0), fraction, 0.5)
    return low.length + np.clip(fraction, 0.1, 0.9) * width
