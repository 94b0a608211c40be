"""Training curves as a picture, from a run's metrics."""

from __future__ import annotations

from pathlib import Path

from lifting.files import atomic_path
from lifting.training.metrics_log import read_metrics

_NO_CURVES = ("step", "seconds")


def plot_curves(folder: str | Path, path: str | Path) -> Path:
    """Draws every metric of a run's ``metrics.jsonl`` over the steps, one small plot each, as a PNG; returns its path.

    Draws nothing where there are no reports. Raises OSError when the place cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, path = read_metrics(folder), Path(path)
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in _NO_CURVES]
    if not names:
        return path
    columns = min(len(names), 3)
    figure = Figure(figsize=(4.5 * columns, 3 * -(-len(names) // columns)), layout="constrained")
    FigureCanvasAgg(figure)  # no display is needed, and pyplot's global state is left alone
    axes = figure.subplots(-(-len(names) // columns), columns, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else "")
        axis.set_title(name.replace("_", " "))
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    for axis in axes[len(names):]:
        axis.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path
