"""Trains a predictor of future motion on lifted, noisy motion capture.

    python -m experiments.lift_mocap
    python -m experiments.train_future --kind dct_mlp [--seed 0]

Resumes from the last checkpoint of its folder. Loss: mean distance of joints, of their velocities and of the root's way
and velocity (siMLPe), and the radius that holds 68 % of the errors. Recurrent and convolutional predictors follow their
own predictions ever more often, from never to always over the first third of the run (scheduled sampling). One in
twelve recordings of the training set is held out: settings are chosen on these, and how large the errors are and how
they hang together, for sigma and samples, is measured on them. Val pieces serve `benchmark_future` alone.
Writes ``weights.safetensors`` and ``scores.json`` (held-out errors) into the folder.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

from experiments.lift_mocap import PATH, load_pieces
from experiments.paper_runs import write_json
from lifting import __version__
from lifting.checkpoints import Header, save_weights
from lifting.datasets.future_windows import (
    FutureBatch,
    FuturePiece,
    FutureWindows,
    Variation,
    encode_windows,
)
from lifting.forecast_metrics import HORIZONS_MS, mpjpe_at
from lifting.forecasters import KIND
from lifting.models.future import JOINTS, KINDS, FutureConfig, WithMirrorImage, build_future
from lifting.seen_motion import FPS
from lifting.training.loop import LoopConfig, Run, fit
from lifting.training.losses import SIGMA_QUANTILE, distance, quantile_loss

LOSS_WEIGHTS = {"pose": 1.0, "velocity": 1.0, "root": 0.5, "root_velocity": 0.5, "sigma": 0.02}
STEP = 5  # frames between the starts of the windows that are scored
WEIGHT_DECAY = 0.05
RANK = 32  # patterns of errors
HELD_OUT = 12  # one in so many recordings
# Width, layers, batch and learning rate: of a run of three to seven minutes of a core.
SETTINGS = {"dct_mlp": (128, 4, 128, 2e-3), "gru": (256, 1, 64, 1e-3), "pose_convolution": (128, 3, 48, 1e-3)}


class Batches(torch.utils.data.Dataset):
    """Batch k of the endless stream, a pure function of the seed and k."""

    def __init__(self, windows: FutureWindows, batch: int, seed: int) -> None:
        self.windows, self.batch, self.seed = windows, batch, seed

    def __getitem__(self, step: int) -> list[Tensor]:
        batch = self.windows(self.batch, np.random.default_rng([self.seed, step]))
        return [torch.from_numpy(batch.features), torch.from_numpy(batch.target)]


def as_points(values: Tensor) -> Tensor:
    """Outputs (..., OUTPUTS) as points (..., SIGMAS, 3): the root's way, then the joints."""
    return torch.cat([values[..., 3 * JOINTS :], values[..., : 3 * JOINTS]], -1).unflatten(-1, (JOINTS + 1, 3))


def future_losses(prediction: tuple[Tensor, Tensor], target: Tensor) -> dict[str, Tensor]:
    """Named losses of futures (N, Tf, OUTPUTS), metres, velocities in metres per frame, and of log sigma."""
    said, truth = as_points(prediction[0]), as_points(target)
    error, moved = distance(said, truth), distance(said.diff(dim=1), truth.diff(dim=1))
    return {
        "pose": error[..., 1:].mean(), "velocity": moved[..., 1:].mean(),
        "root": error[..., 0].mean(), "root_velocity": moved[..., 0].mean(),
        "sigma": quantile_loss(prediction[1], error.detach(), SIGMA_QUANTILE),
    }  # fmt: skip


def scored_windows(pieces: list[FuturePiece], context: int, future: int) -> list[np.ndarray]:
    """All windows of the pieces, (n, context + future, ...) each: joints, root, seen joints, seen root, sigma."""
    cut = []
    for p in pieces:
        for start in range(0, len(p) - context - future + 1, STEP):
            stop = slice(start, start + context + future)
            cut.append((p.joints[stop], p.root[stop], p.seen_joints[stop], p.seen_root[stop], p.seen_sigma[stop]))
    return [np.stack(arrays) for arrays in zip(*cut, strict=True)]


@torch.no_grad()
def predict(network: nn.Module, features: np.ndarray) -> tuple[Tensor, Tensor]:
    """What a network says of contexts (n, Tc, FEATURES): values (n, Tf, OUTPUTS), log sigma (n, Tf, SIGMAS)."""
    both = WithMirrorImage(network.eval())
    parts = [both(part) for part in torch.from_numpy(features).split(256)]
    return torch.cat([values for values, _ in parts]), torch.cat([log_sigma for _, log_sigma in parts])


def scores(values: Tensor, target: Tensor) -> dict[str, list[float]]:
    """Root-relative MPJPE over all 17 joints, the root included, and the root's error at the horizons, mm."""
    said, truth = as_points(values).numpy(), as_points(target).numpy()
    pose = 1000 * mpjpe_at(said[..., 1:, :], truth[..., 1:, :], FPS) * JOINTS / (JOINTS + 1)
    root = 1000 * mpjpe_at(said[..., :1, :], truth[..., :1, :], FPS)
    return {"pose_mm": pose.round(1).tolist(), "root_mm": root.round(1).tolist()}


def split_pieces(path: Path, without: str = "") -> tuple[list[FuturePiece], list[FuturePiece]]:
    """Pieces of the training set to learn from, and those held out."""
    parts = ([], [])
    for piece in load_pieces(path, "train"):
        recording = piece.name.split("/")[0]
        held_out = zlib.crc32(recording.encode()) % HELD_OUT == 0
        parts[recording.split("_")[0] in without.split(",") if without else held_out].append(piece)
    return parts


def error_statistics(values: Tensor, log_sigma: Tensor, target: Tensor) -> dict[str, Tensor]:
    """How large errors are beside sigma, and how they hang together, from predictions that were not trained for.

    sigma_factor (Tf, SIGMAS): what makes sigma hold 68 % of the errors at every frame, for the root and, together, the
    joints. error_patterns (RANK, Tf, SIGMAS, 3): principal components of the errors in units of that sigma, of the
    length of one standard deviation, at every place stretched so that their sum holds 68 % of the errors in +-1 as a
    standard normal number does.
    """
    errors, sigma = as_points(target - values).numpy(), log_sigma.exp().numpy()
    ratio = np.linalg.norm(errors, axis=-1) / sigma
    root, joints = (np.quantile(part, SIGMA_QUANTILE, axis=(0, 2)) for part in (ratio[..., :1], ratio[..., 1:]))
    factor = np.concatenate([root[:, None], np.repeat(joints[:, None], JOINTS, 1)], 1)
    whitened = (errors / (sigma * factor)[..., None]).reshape(len(errors), -1)
    power, directions = np.linalg.eigh(whitened.T @ whitened / len(whitened))
    patterns = directions[:, -RANK:].T * np.sqrt(power[-RANK:, None])
    patterns *= np.quantile(np.abs(whitened), SIGMA_QUANTILE, axis=0) / np.linalg.norm(patterns, axis=0)
    found = {"sigma_factor": factor, "error_patterns": patterns.reshape(RANK, *errors.shape[1:])}
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in found.items()}


def save_predictor(path: Path, network: nn.Module, config: FutureConfig, statistics: dict, training: str) -> None:
    """Writes what `lifting.forecasters.NetworkForecaster` reads."""
    said = "joints relative to the root and the root's way, seen from the person in the last frame, and log sigma"
    header = Header(KIND, asdict(config), "h36m17", "h36m17", FPS, said, "Apache-2.0", training, __version__, {})
    save_weights(path, {**network.state_dict(), **statistics}, header)


def load_data(path: Path, config: FutureConfig, variation: Variation, without: str,
              ) -> tuple[FutureWindows, FutureBatch]:  # fmt: skip
    """What is learned from, and all held-out pairs."""
    learned, held_out = split_pieces(path, without)
    windows = scored_windows(held_out, config.context, config.future)
    return (FutureWindows(learned, config.context, config.future, variation),
            encode_windows(*windows, config.context))  # fmt: skip


def train(run: Run, windows: FutureWindows, held_out: FutureBatch, batch: int, seed: int) -> None:
    """Goes on to the last step."""
    steps = run.config.steps
    loader = torch.utils.data.DataLoader(Batches(windows, batch, seed), batch_size=None, sampler=range(run.step, steps))

    def losses_of(network: nn.Module, pair: list[Tensor]) -> dict[str, Tensor]:
        return future_losses(network(*pair, own=min(1.0, 3 * run.step / steps)), pair[1])

    fit(run, loader, losses_of, LOSS_WEIGHTS, lambda network: held_out_scores(network, held_out))


def held_out_scores(network: nn.Module, held_out: FutureBatch) -> dict[str, list[float]]:
    """`scores` of a network."""
    return scores(predict(network, held_out.features)[0], torch.from_numpy(held_out.target))


@click.command()
@click.option("--pieces", default=str(PATH), show_default=True)
@click.option("--kind", type=click.Choice(KINDS), default="dct_mlp", show_default=True)
@click.option("--folder", default=None, help="[default: runs/future/KIND_SEED]")
@click.option("--steps", default=3000, show_default=True)
@click.option("--batch", default=None, type=int, help="[default: that of the kind]")
@click.option("--width", default=None, type=int, help="[default: that of the kind]")
@click.option("--layers", default=None, type=int, help="[default: those of the kind]")
@click.option("--learning-rate", default=None, type=float, help="[default: that of the kind]")
@click.option("--dropout", default=0.0, show_default=True)
@click.option("--reversed", "backwards", default=Variation.reversed, show_default=True)
@click.option("--speed", default=Variation.speed, show_default=True)
@click.option("--exact", default=Variation.exact, show_default=True)
@click.option("--without", default="", help="Subjects held out instead of one in twelve recordings, as 03,06")
@click.option("--seed", default=0, show_default=True)
def main(pieces: str, kind: str, folder: str | None, steps: int, batch: int | None, width: int | None,
         layers: int | None, learning_rate: float | None, dropout: float, backwards: float, speed: float, exact: float,
         without: str, seed: int) -> None:  # fmt: skip
    """Trains and prints errors."""
    torch.manual_seed(seed)
    asked = zip((width, layers, batch, learning_rate), SETTINGS[kind], strict=True)
    width, layers, batch, learning_rate = (default if given is None else given for given, default in asked)
    config = FutureConfig(kind, width=width, layers=layers, dropout=dropout)
    place = Path(folder or f"runs/future/{kind}_{seed}")
    schedule = LoopConfig(steps, learning_rate, weight_decay=WEIGHT_DECAY, checkpoint_every=1000)
    run = Run(build_future(config), schedule, place)
    run.resume()
    variation = Variation(reversed=backwards, speed=speed, exact=exact)
    windows, held_out = load_data(Path(pieces), config, variation, without)
    train(run, windows, held_out, batch, seed)
    target = torch.from_numpy(held_out.target)
    statistics = error_statistics(*predict(run.averaged, held_out.features), target)
    training = f"CMU motion capture as the default lifter sees it, {steps} steps of {batch}, seed {seed}"
    save_predictor(place / "weights.safetensors", run.averaged, config, statistics, training)
    found = {"config": asdict(config), "steps": run.step, "horizons_ms": HORIZONS_MS, "windows": len(target),
             "constant": scores(torch.zeros_like(target), target),
             "ours": held_out_scores(run.averaged, held_out)}  # fmt: skip
    write_json(place / "scores.json", found)
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
