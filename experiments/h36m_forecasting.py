"""Human3.6M's short and long term forecasting: standing still, constant velocity and a forecaster of ours.

    python -m experiments.h36m_forecasting --data data/h36m_expmap [--forecaster dct_mlp] [--windows 8]

Needs the files `S5/walking_1.txt` to `S5/walkingtogether_2.txt`, which ask for a registration with Human3.6M;
`lifting.datasets.h36m_expmap` tells of them and of the protocol. Without them it ends with one sentence and exit code
2. Not run on the real files so far. MPJPE AT each horizon in mm, mean over 15 actions of 256 windows each (siMLPe, Guo
et al., WACV 2023, short term):

    ms                    80   160   320   400
    repeat last frame   23.8  44.4  76.1  88.2
    siMLPe               9.6  21.7  46.3  57.3

The first row checks the protocol: whoever gets something else has other files or reads them in another way. Our
forecasters were not trained on Human3.6M, see 17 joints, and know people who turn and lean, where here the root never
turns. Feet and hands beyond ankle and wrist keep their last place relative to these. Writes
``runs/future/h36m.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from experiments.paper_runs import write_json
from lifting.console import one_sentence_errors
from lifting.datasets.h36m_expmap import (
    ACTIONS,
    FUTURE,
    H36M32,
    PAST,
    PROTOCOL_FPS,
    complete_prediction,
    read_test_windows,
)
from lifting.datasets.mocap import Z_UP_FROM_Y_UP
from lifting.forecast_metrics import HORIZONS_MS, mpjpe_at
from lifting.forecasters import load_forecaster, roll_on
from lifting.seen_motion import SeenMotion
from lifting.skeletons import get_skeleton, joint_map

PAPER = {"repeat last frame": (23.8, 44.4, 76.1, 88.2), "siMLPe": (9.6, 21.7, 46.3, 57.3)}
SIGMA = 0.01  # metres: what is said of joints that were not lifted
SEEN = get_skeleton("h36m17")

Predictor = Callable[[np.ndarray], np.ndarray]
"""Windows' pasts (N, 50, 32, 3) metres, +y up, to their futures (N, 25, 32, 3)."""


def repeat_last_frame(past: np.ndarray) -> np.ndarray:
    """Every joint stays where it was last seen."""
    return np.repeat(past[:, -1:], FUTURE, axis=1)


def constant_velocity(past: np.ndarray) -> np.ndarray:
    """Every joint goes on as between the last two frames."""
    steps = np.arange(1, FUTURE + 1)[:, None, None]
    return past[:, -1:] + steps * (past[:, -1:] - past[:, -2:-1])


def through_17_joints(forecaster) -> Predictor:  # noqa: ANN001
    """A forecaster of `lifting.forecasters` as a predictor of all 32 joints; the others are carried along."""
    place = [SEEN.index(_nearest_seen(joint)) for joint in H36M32.joints]
    mapping = joint_map(H36M32, SEEN)

    def predict(past: np.ndarray) -> np.ndarray:
        joints = mapping.apply((past @ Z_UP_FROM_Y_UP.T).astype(np.float32))
        seen = SeenMotion(joints, np.zeros_like(joints[:, :, 0]), np.full(joints.shape[:3], SIGMA, np.float32))
        said = roll_on(forecaster, seen, FUTURE).joints @ Z_UP_FROM_Y_UP
        beyond = past[:, -1] - mapping.apply(past[:, -1])[:, place]
        return said[:, :, place] + beyond[:, None]

    return predict


def _nearest_seen(joint: str) -> str:
    while joint not in SEEN.joints:
        joint = H36M32.joints[H36M32.parents[H36M32.index(joint)]]
    return joint


def score(predict: Predictor, windows: np.ndarray) -> np.ndarray:
    """MPJPE in mm at each of the protocol's horizons of windows (N, 75, 32, 3) metres."""
    truth = windows[:, PAST:]
    return 1000 * mpjpe_at(complete_prediction(predict(windows[:, :PAST]), truth), truth, PROTOCOL_FPS)


def format_row(name: str, errors: tuple[float, ...] | np.ndarray) -> str:
    """One line of the table."""
    return f"{name:<28}" + "".join(f"{error:7.1f}" for error in errors)


@click.command()
@click.option("--data", default="data/h36m_expmap", show_default=True, help="The folder that holds S5.")
@click.option("--forecaster", default="dct_mlp", show_default=True, help="A name, or a file of weights.")
@click.option("--windows", default=256, show_default=True, help="Windows of each action: 256, or 8.")
@click.option("--output", default="runs/future/h36m.json", show_default=True)
@one_sentence_errors
def main(data: str, forecaster: str, windows: int, output: str) -> None:
    """Prints ours beside the papers' and writes both."""
    of_action = {action: read_test_windows(data, action, windows) for action in ACTIONS}
    predictors = {"repeat last frame": repeat_last_frame, "constant velocity": constant_velocity,
                  Path(forecaster).stem: through_17_joints(load_forecaster(forecaster))}  # fmt: skip
    click.echo(f"{'MPJPE mm at ms':<28}" + "".join(f"{horizon:7d}" for horizon in HORIZONS_MS))
    rows = {}
    for name, predict in predictors.items():
        actions = {action: score(predict, some).tolist() for action, some in of_action.items()}
        rows[name] = {"mean": np.mean([*actions.values()], axis=0).tolist(), "actions": actions}
        click.echo(format_row(name, rows[name]["mean"]))
    for name, errors in PAPER.items():
        click.echo(format_row(f"paper: {name}", errors))
    write_json(Path(output), {"horizons_ms": HORIZONS_MS, "windows": windows, "rows": rows, "paper": PAPER})


if __name__ == "__main__":
    main()
