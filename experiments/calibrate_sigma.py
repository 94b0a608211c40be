"""Calibrates the uncertainty of lifter weights: 68 % of each joint's errors shall lie inside its sigma.

    python -m experiments.calibrate_sigma WEIGHTS [--mocap data/mocap/mocap17.h5] [--every 1] [--held-out]

A network learns its sigma on training motion, where it errs less than on motion of people it has not seen, and under
heavier noise. So each joint's sigma is multiplied by the factor that makes it right on the views of the protocol,
lifted as `lifting.predict` does it: nine people that no training has seen. Both sets count alike, however many views
they have: the mean of their coverages is made right, since errors change from people to people more than by chance.
``--held-out`` leaves the val pieces out; their coverage, which `experiments.benchmark_lifter` prints, then says what to
expect of other people. The factors go into the last bias of the network, so nothing changes at inference. For each
look-ahead of causal weights: its own factors. Prints coverage and factors per joint; replaces the file as a whole or
not at all.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch

from experiments.protocol import CAMERAS, HARD_SUBJECTS, benchmark_pieces, views
from lifting.checkpoints import load_weights, save_weights
from lifting.console import one_sentence_errors, say
from lifting.datasets.mocap import DEFAULT_PATH, read_mocap
from lifting.metrics import joint_errors
from lifting.predict import Lifter
from lifting.skeletons import get_skeleton
from lifting.training.losses import SIGMA_QUANTILE

SMALLEST = 1e-9


def error_ratios(lifter: Lifter, seen: list, lookahead: int) -> np.ndarray:
    """Errors over sigma, (twice the frames of all views, 17): of both sides for either side."""
    causal = len(lifter.network.lookaheads) > 1
    ratios = []
    for view in seen:
        motion = lifter.predict(view.keypoints, view.camera, causal=causal, lookahead=lookahead)
        ratios.append(joint_errors(motion.joints, view.truth.joints) / np.maximum(motion.sigma, SMALLEST))
    ratios = np.concatenate(ratios)
    return np.concatenate([ratios, ratios[:, list(get_skeleton("h36m17").flip)]])


def factors_of(sets: list[np.ndarray]) -> np.ndarray:
    """Factors (17,) of the sigmas, from error ratios (frames, 17) of several sets; 1 for a joint without errors."""
    ratios, weights = np.concatenate(sets), np.repeat([1 / len(some) for some in sets], [len(some) for some in sets])
    order = np.argsort(ratios, axis=0)
    covered = np.cumsum(weights[order], axis=0) / len(sets)
    factors = np.take_along_axis(ratios, order, 0)[(covered < SIGMA_QUANTILE).sum(0), np.arange(ratios.shape[1])]
    return np.where(factors > 0, factors, 1.0)


def calibrated(tensors: dict[str, torch.Tensor], head: int, factors: np.ndarray) -> dict[str, torch.Tensor]:
    """The weights with a head's sigmas multiplied by factors (17,); the root's own stays as it is."""
    name = f"heads.{head}.sigma.2.bias"
    shift = torch.from_numpy(np.log(factors)).float()
    shift[0] = 0.0
    return tensors | {name: tensors[name] + shift}


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--every", default=1, show_default=True, help="Only every n-th view.")
@click.option("--held-out", is_flag=True, help="Leave the val pieces out.")
@one_sentence_errors
def main(weights: Path, mocap: str, every: int, held_out: bool) -> None:
    """Calibrates a weight file in place."""
    tensors, header = load_weights(weights)
    lifter = Lifter.load(weights)
    strangers = read_mocap(mocap, split="train", subjects=HARD_SUBJECTS)
    pieces = {kind: strangers if held_out else benchmark_pieces(mocap, kind) for kind in CAMERAS}
    if not all(pieces.values()):
        raise ValueError(f"{mocap} has no pieces to calibrate on; expected the subjects of `experiments.protocol`.")
    seen = [list(views(pieces[kind], kind))[::every] for kind in CAMERAS]
    for head, lookahead in enumerate(lifter.network.lookaheads):
        sets = [error_ratios(lifter, some, lookahead) for some in seen]
        ratios, factors = np.concatenate(sets), factors_of(sets)
        tensors = calibrated(tensors, head, factors)
        say(f"look-ahead {lookahead}: {100 * (ratios[:, 1:] < 1).mean():.1f} % inside before")
        for joint, inside, factor in zip(get_skeleton("h36m17").joints, (ratios < 1).mean(0), factors, strict=True):
            say(f"  {joint}: {100 * inside:.1f} % inside, factor {factor:.3f}")
    half = all(torch.equal(t, t.half().float()) for t in load_weights(weights)[0].values() if t.is_floating_point())
    save_weights(weights, tensors, header, half=half)


if __name__ == "__main__":
    main()
