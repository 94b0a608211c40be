"""Twenty futures to look at: what was seen, what was predicted, what came.

    python -m experiments.lift_mocap
    python -m experiments.picture_futures [--predictor dct_mlp]

Windows of val pieces, one in so many, each in a row of moments: the lifted past (grey), then the prediction (red) over
the truth (black, thin), seen from where the person faced last, hips on hips; the number is the root-relative MPJPE in
mm. Writes ``runs/future/pictures_PREDICTOR.png``.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from experiments.benchmark_future import CONTEXT, FUTURE, seen_and_truth
from experiments.lift_mocap import PATH
from lifting.anatomy import H36M
from lifting.files import atomic_path
from lifting.forecasters import FPS, load_forecaster
from lifting.headings import Heading, heading_of
from lifting.seen_motion import SeenMotion

ROWS, COLUMNS = 10, 2
PAST, AHEAD = (-20, -10, -1), (1, 4, 9, 14, 19, 24)  # frames before the last seen one, and of the future
STEP = 0.9  # metres between two moments on paper


def draw_pose(axis, joints: np.ndarray, shift: float, **style: object) -> None:  # noqa: ANN001
    """Bones of joints (17, 3) metres, the first axis to the right, the last up."""
    for child, parent in enumerate(H36M.parents):
        if parent >= 0:
            axis.plot(joints[[parent, child], 0] + shift, joints[[parent, child], 2], **style)


def draw_future(axis, heading: Heading, past: np.ndarray, said: np.ndarray, truth: np.ndarray, title: str) -> None:  # noqa: ANN001
    """One row: poses (T, 17, 3) relative to the root, seen from the person's front."""
    turn = heading.rotation.T
    for number, frame in enumerate(PAST):
        draw_pose(axis, past[frame] @ turn, STEP * number, color="0.6", lw=1.2)
    for number, frame in enumerate(AHEAD, start=len(PAST)):
        draw_pose(axis, truth[frame] @ turn, STEP * number, color="black", lw=0.7)
        draw_pose(axis, said[frame] @ turn, STEP * number, color="tab:red", lw=1.3, alpha=0.8)
        miss = 1000 * np.linalg.norm(said[frame] - truth[frame], axis=-1).mean()
        axis.text(STEP * number, -1.12, f"{1000 * (frame + 1) / FPS:.0f} ms: {miss:.0f}", ha="center", fontsize=6)
    axis.set_aspect("equal")
    axis.set_ylim(-1.2, 0.9)
    axis.set_axis_off()
    axis.set_title(title, fontsize=7, loc="left", pad=0)


@click.command()
@click.option("--pieces", default=str(PATH), show_default=True)
@click.option("--predictor", default="dct_mlp", show_default=True)
def main(pieces: str, predictor: str) -> None:
    """Draws the sheet."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seen, joints, _ = seen_and_truth(Path(pieces))
    chosen = np.linspace(0, len(joints) - 1, ROWS * COLUMNS).round().astype(int)
    past = seen["lifted"]
    past = SeenMotion(past.joints[chosen], past.root[chosen], past.sigma[chosen])
    said = load_forecaster(predictor)(past, FUTURE).joints
    figure, axes = pyplot.subplots(ROWS, COLUMNS, figsize=(15, 21), layout="constrained")
    for row, (axis, window) in enumerate(zip(axes.flat, chosen, strict=True)):
        heading = heading_of(past.joints[row, CONTEXT - 1], past.root[row, CONTEXT - 1])
        draw_future(axis, heading, past.joints[row], said[row], joints[window], f"window {window}")
    path = Path(pieces).parent / f"pictures_{predictor}.png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    click.echo(f"wrote {path}: grey what was seen, black what came, red what {predictor} said")


if __name__ == "__main__":
    main()
