"""Levenberg-Marquardt against first-order methods: one energy, one start, cost over time.

The energy is the fit's own without contacts, on a window with white noise, with the deviations that the fit's first
pass finds; the start is the closed-form one. All methods take the same robust stages. Adam's learning rate falls along
a cosine that must be told its end, so it runs with several budgets, and the fastest of these counts. Every run is
observed from inside: a term that costs nothing keeps the states that are visited, and they are priced afterwards with
the final robust scale. All use one thread, with which torch, too, is faster on matrices this small.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from experiments.fit_accuracy import FRAMES
from experiments.fit_speed import read_evidence
from experiments.fit_table import Row, Target
from experiments.fit_truth import CAMERA
from lifting.body import BodyModel
from lifting.body.energy import FREE, State, Term
from lifting.body.evidence import observe
from lifting.body.fit import pose_problem
from lifting.body.problem import FitConfig
from lifting.body.solver import evaluate, solve
from lifting.body.torch_energy import TorchState
from lifting.body.torch_first_order import energy, minimise_first_order

FREE_HERE = tuple(name for name in FREE if name != "focal")
STEPS_WITHIN = 0.9  # of a budget: the rest is for steps that take longer than the first ones
PILOT = 20  # steps by which the time of one is told
KEPT_EVERY = 1.02  # factor of the time between two states that are kept
NEAR = 1.01  # times the lowest cost that a rival reaches: there a method has arrived


@dataclass(frozen=True)
class Curve:
    """One method's lowest cost so far, (N,), over the seconds since its start, (N,)."""

    method: str
    seconds: np.ndarray
    costs: np.ndarray

    def arrival(self, cost: float) -> float:
        """Seconds until a cost is reached; infinite when it is not."""
        reached = np.flatnonzero(self.costs <= cost)
        return float(self.seconds[reached[0]]) if len(reached) else float("inf")


class TimeIsUp(Exception):
    """Ends a run at its budget."""


class Trace:
    """Keeps the states that a minimisation visits: a term for the numpy solver and a user term for the torch ones."""

    name = "trace"

    def __init__(self, budget: float) -> None:
        self.budget, self.began = budget, time.perf_counter()
        self.visits: list[tuple[float, State | TorchState]] = []
        self.latest: tuple[float, State | TorchState] | None = None

    def cost(self, state: State, kinematics: object) -> float:
        """Nothing."""
        self._visit(state)
        return 0.0

    def add_to(self, system: object, state: State, kinematics: object) -> float:
        """Nothing."""
        return 0.0

    def annealed(self, factor: float) -> Trace:
        """Itself, in every stage."""
        return self

    def __call__(self, state: TorchState) -> torch.Tensor:
        """Zero, for the torch methods."""
        self._visit(state)
        return state.trajectory.new_zeros(())

    def _visit(self, state: State | TorchState) -> None:
        now = time.perf_counter() - self.began
        self.latest = (now, state)
        if not self.visits or now >= KEPT_EVERY * self.visits[-1][0]:
            self.visits.append(self.latest)
        if now > self.budget:
            raise TimeIsUp

    def curve(self, method: str, price: Callable[[State | TorchState], float]) -> Curve:
        """The lowest cost so far over time; `price` tells the cost of a state."""
        visits = [*self.visits, self.latest]
        costs = np.minimum.accumulate([price(state) for _, state in visits])
        return Curve(method, np.array([seconds for seconds, _ in visits]), costs)


def rivals(path: str, body: BodyModel, plot: Path, budget: float = 60.0) -> list[Row]:
    """A row for each method; draws their curves."""
    terms, start = _contest(path, body)
    curves = [run_second_order(terms, start, body, budget)]
    with _torch_threads(1):
        runs = [("lbfgs", budget), *(("adam", budget / part) for part in (1, 3, 10))]
        curves += [run_first_order(terms, start, body, method, seconds) for method, seconds in runs]
    draw(curves, plot)
    return compare(curves)


def _contest(path: str, body: BodyModel) -> tuple[list[Term], State]:
    """The energy's terms and the closed-form start."""
    given, config = read_evidence(path, body, FRAMES), FitConfig()
    problem = pose_problem(body, observe(given.motion, given.keypoints, CAMERA), None, None, config)
    start = problem.start()
    problem = problem.reweighed(problem.solve(start, problem.terms(), config.wide))
    return problem.terms(), start


def run_second_order(terms: Sequence[Term], start: State, body: BodyModel, budget: float) -> Curve:
    """The package's solver, run much longer than the fit runs it."""
    trace = Trace(budget)
    try:
        solve([*terms, trace], start, body=body, robust_factors=_factors(), max_iterations=10**6, tolerance=1e-7,
              free=FREE_HERE)  # fmt: skip
    except TimeIsUp:
        pass
    return trace.curve("Levenberg-Marquardt", lambda state: sum(evaluate(body, terms, state).values()))


def run_first_order(terms: Sequence[Term], start: State, body: BodyModel, method: str, budget: float) -> Curve:
    """Adam or L-BFGS of torch for so many seconds."""
    options = dict(body=body, method=method, free=FREE_HERE)
    pilot = Trace(float("inf"))
    minimise_first_order(terms, start, max_iterations=PILOT, robust_factors=(1.0,), user_terms=[pilot], **options)
    per_step = (pilot.latest[0] - pilot.visits[0][0]) / PILOT  # the first visit comes after everything is set up
    trace = Trace(budget)
    try:
        minimise_first_order(terms, start, max_iterations=int(STEPS_WITHIN * budget / per_step),
                             robust_factors=_factors(), user_terms=[trace], **options)  # fmt: skip
    except TimeIsUp:
        pass
    name = {"adam": "Adam", "lbfgs": "L-BFGS"}[method]
    with torch.no_grad():
        return trace.curve(f"{name}, {budget:.0f} s", lambda state: float(energy(terms, _detached(state))))


def _factors() -> tuple[float, ...]:
    """The robust stages of the fit."""
    config = FitConfig()
    return config.wide + config.narrow


def _detached(state: TorchState) -> TorchState:
    return replace(state, offsets=state.offsets.detach(), log_focal=state.log_focal.detach())


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compare(curves: Sequence[Curve]) -> list[Row]:
    """The first curve against the others, its rivals; and all against the lowest cost of the rivals."""
    best = min(curve.costs[-1] for curve in curves[1:])
    fastest = min(curve.arrival(NEAR * best) for curve in curves[1:])
    rows = []
    for curve in curves:
        arrival = curve.arrival(NEAR * best)
        values = {
            "method": curve.method, "final cost": float(curve.costs[-1]),
            "over rivals' best %": float(100 * (curve.costs[-1] / best - 1)), "run s": float(curve.seconds[-1]),
            "s to within 1 %": arrival if np.isfinite(arrival) else "never", "of rivals' fastest": arrival / fastest,
        }  # fmt: skip
        targets = {"over rivals' best %": Target(1.0), "of rivals' fastest": Target(1 / 3)}
        points = [{"seconds": float(t), "cost": float(c)} for t, c in zip(curve.seconds, curve.costs, strict=True)]
        rows.append(Row(values, targets if curve is curves[0] else {}, points))
    return rows


def draw(curves: Sequence[Curve], path: Path) -> None:
    """How far each method is above the lowest cost of all, over time; both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lowest = min(curve.costs[-1] for curve in curves)
    figure, axes = pyplot.subplots(figsize=(7.0, 4.5), layout="constrained")
    for curve in curves:
        above = 100 * (curve.costs / lowest - 1)
        axes.plot(np.maximum(curve.seconds, 1e-2), np.maximum(above, 1e-3), label=curve.method, drawstyle="steps-post")
    axes.axhline(100 * (NEAR - 1), color="grey", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="seconds", ylabel="cost above the lowest found, %")
    axes.set_title(f"One energy, one start: {FRAMES} frames, 3D and 2D with white noise", fontsize=10)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
