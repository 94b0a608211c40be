"""How long training takes to a given error: the paper's recipe in plain convolutions against ours, step by step.

    python -m experiments.time_to_error [--data data/mocap/mocap17.h5] [--only plain] [--only strided]

The plain implementation runs the dilated network of 27 frames over every window with ordinary convolutions, in float32,
on the paper's schedule (batches of 1024, AMSGrad, 0.95 per epoch). Each following row changes one thing: strides that
skip the hidden frames nobody needs (the training form of the paper's own appendix), bfloat16 where the processor
multiplies it in hardware, smaller batches. Same data, same supervision, true 2D keypoints; the reduced recipe has 256
channels and a schedule of 1,200 steps of 1024 frames.

Given errors are what the plain run has reached after half, three quarters and all of its time. Seconds are wall time of
training without validation, as it ran; "undisturbed" are the steps to that error at the fastest rate between any two
reports of the row, which other work on the machine disturbs less. Target: at least twice as fast. Draws
``runs/paper/time_to_error.png``, writes ``.json`` and ``.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.fit_table import Row as Line
from experiments.fit_table import Target, markdown
from experiments.paper_runs import P1, P2, SUPERVISED, Experiment, Row, Setting, command, result_path
from lifting.files import atomic_path
from lifting.training.config import TrainConfig
from lifting.training.metrics_log import read_metrics

ERROR = f"validation_{P1}"
TWICE = Target(2.0, at_most=False)
FRAMES = 1200 * 1024  # of the reduced recipe
SMALL = 256  # frames per step
RECIPES = {
    "reduced": {**SUPERVISED, "channels": 256, "batch": 1024, "max_steps": FRAMES // 1024, "report_every": 50},
    "paper": {**SUPERVISED, "report_every": 500},
}


class PlainConfig(TrainConfig):
    """Training without the strided form: the dilated network computes every hidden frame of every window."""

    @property
    def strided(self) -> bool:
        """Never."""
        return False


PLAIN = Row("plain convolutions", config=PlainConfig)
ROWS = (
    PLAIN,
    Row("strided"),
    Row("strided, bfloat16", {"bfloat16": True}),
    Row("strided, smaller batches", {"batch": SMALL, "max_steps": FRAMES // SMALL, "report_every": 200}),
)

Curve = list[tuple[float, float, int]]
"""Seconds of training, lowest error so far and steps at each report."""


def curve_of(row: Row, setting: Setting) -> Curve:
    """The reports of a finished row."""
    curve, lowest = [], float("inf")
    for report in read_metrics(result_path(row, setting).parent):
        lowest = min(lowest, report[ERROR])
        curve.append((report["seconds"], lowest, report["step"]))
    return curve


def reached(curve: Curve, error: float) -> tuple[float, int] | None:
    """Seconds and steps at the first report at most that high; None if there is none."""
    return next(((seconds, step) for seconds, lowest, step in curve if lowest <= error), None)


def fastest_step(curve: Curve) -> float:
    """Seconds of a step in the fastest stretch between two reports."""
    stretches = zip([(0.0, 0.0, 0), *curve], curve, strict=False)
    return min((after[0] - before[0]) / (after[2] - before[2]) for before, after in stretches)


def compare(curves: dict[str, Curve]) -> list[Line]:
    """How much sooner each row reaches the errors of the plain one."""
    plain, lines = curves[PLAIN.name], []
    for share in (0.5, 0.75, 1.0):
        error = plain[round(share * len(plain)) - 1][1]
        for name, curve in curves.items():
            lines.append(_line(name, error, curve, plain))
    return lines


def _line(name: str, error: float, curve: Curve, plain: Curve) -> Line:
    mine, theirs = reached(curve, error), reached(plain, error)
    values = {"error mm": error, "row": name, "seconds": mine and mine[0], "steps": mine and mine[1]}
    if mine is None or name == PLAIN.name:
        return Line(values)
    undisturbed = theirs[1] * fastest_step(plain) / (mine[1] * fastest_step(curve))
    values |= {"times faster": theirs[0] / mine[0], "undisturbed": undisturbed}
    return Line(values, {"times faster": TWICE, "undisturbed": TWICE})


def plot(curves: dict[str, Curve], path: Path) -> None:
    """Draw the lowest error so far over the seconds of training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for name, curve in curves.items():
        seconds, errors, _ = zip(*curve, strict=True)
        axis.plot(seconds, errors, marker=".", label=name)
    axis.set(xscale="log", xlabel="seconds of training", ylabel="lowest MPJPE on validation subjects so far, mm")
    axis.grid(alpha=0.3)
    axis.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def report(setting: Setting, rows: Sequence[Row]) -> dict:
    """Times to the plain run's errors, where that is finished, and the plot."""
    curves = {row.name: curve_of(row, setting) for row in rows}
    if PLAIN.name not in curves:
        return {}
    lines = compare(curves)
    plot(curves, setting.folder.with_suffix(".png"))
    return {"curves": curves, "times": [line.to_dict() for line in lines], "markdown": [markdown(lines)]}


EXPERIMENT = Experiment("time_to_error", "Wall time to a given error", ROWS, (P1, P2), RECIPES, report=report)
main = command(EXPERIMENT)

if __name__ == "__main__":
    main()
