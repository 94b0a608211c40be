"""Trains a predictor of future motion on lifted, noisy motion capture.

    python -m experiments.lift_mocap
    python -m experiments.train_future --kind dct_mlp [--seed 0]

Resumes from the last checkpoint of its folder. Loss: mean distance of joints, of their velocities and of the root's way
and velocity (siMLPe). Recurrent and convolutional predictors follow their own predictions ever more often, from never
to always over the first two thirds of the run (scheduled sampling). Prints errors on the val pieces.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

from experiments.lift_mocap import PATH, load_pieces
from lifting.datasets.future_windows import FPS, FuturePiece, FutureWindows, decode_future, encode_context
from lifting.forecast_metrics import HORIZONS_MS, mpjpe_at
from lifting.models.future import JOINTS, KINDS, FutureConfig, build_future
from lifting.training.loop import LoopConfig, Run, fit
from lifting.training.losses import distance

LOSS_WEIGHTS = {"pose": 1.0, "velocity": 1.0, "root": 0.5, "root_velocity": 0.5}
STEP = 5  # frames between the starts of the windows that are scored


class Batches(torch.utils.data.Dataset):
    """Batch k of the endless stream, a pure function of the seed and k."""

    def __init__(self, windows: FutureWindows, batch: int, seed: int) -> None:
        self.windows, self.batch, self.seed = windows, batch, seed

    def __getitem__(self, step: int) -> list[Tensor]:
        batch = self.windows(self.batch, np.random.default_rng([self.seed, step]))
        return [torch.from_numpy(batch.features), torch.from_numpy(batch.target)]


def future_losses(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Named losses of futures (N, Tf, OUTPUTS): metres, velocities in metres per frame."""
    poses, truths = (v[..., : 3 * JOINTS].unflatten(-1, (JOINTS, 3)) for v in (prediction, target))
    roots, ways = prediction[..., 3 * JOINTS :], target[..., 3 * JOINTS :]
    return {
        "pose": distance(poses, truths).mean(),
        "velocity": distance(poses.diff(dim=1), truths.diff(dim=1)).mean(),
        "root": distance(roots, ways).mean(),
        "root_velocity": distance(roots.diff(dim=1), ways.diff(dim=1)).mean(),
    }


def scored_windows(pieces: list[FuturePiece], context: int, future: int) -> list[np.ndarray]:
    """All windows of the pieces, (n, context + future, ...) each: joints, root, seen joints, seen root, sigma."""
    cut = []
    for p in pieces:
        for start in range(0, len(p) - context - future + 1, STEP):
            stop = slice(start, start + context + future)
            cut.append((p.joints[stop], p.root[stop], p.seen_joints[stop], p.seen_root[stop], p.seen_sigma[stop]))
    return [np.stack(arrays) for arrays in zip(*cut, strict=True)]


@torch.no_grad()
def scores(network: nn.Module | None, windows: list[np.ndarray], context: int) -> dict[str, list[float]]:
    """Root-relative MPJPE and the root's error at the horizons, mm; without a network those of standing still."""
    joints, root, seen_joints, seen_root, sigma = windows
    features, heading = encode_context(seen_joints[:, :context], seen_root[:, :context], sigma[:, :context])
    future = joints.shape[1] - context
    values = np.zeros((len(features), future, 3 * JOINTS + 3), np.float32)
    if network is not None:
        network.eval()
        parts = torch.from_numpy(features).split(512)
        values = torch.cat([network(part) for part in parts]).float().numpy()
    poses, way = decode_future(values, features, root[:, context - 1], heading)
    error = 1000 * mpjpe_at(poses, joints[:, context:], FPS)
    missed = 1000 * mpjpe_at(way[:, :, None], root[:, context:, None], FPS)
    return {"pose_mm": error.round(1).tolist(), "root_mm": missed.round(1).tolist()}


@click.command()
@click.option("--pieces", default=str(PATH), show_default=True)
@click.option("--kind", type=click.Choice(KINDS), default="dct_mlp", show_default=True)
@click.option("--folder", default=None, help="[default: runs/future/KIND_SEED]")
@click.option("--steps", default=4000, show_default=True)
@click.option("--batch", default=256, show_default=True)
@click.option("--width", default=128, show_default=True)
@click.option("--layers", default=8, show_default=True)
@click.option("--dropout", default=0.1, show_default=True)
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(pieces: str, kind: str, folder: str | None, steps: int, batch: int, width: int, layers: int, dropout: float,
         learning_rate: float, seed: int) -> None:  # fmt: skip
    """Trains and prints errors."""
    torch.manual_seed(seed)
    config = FutureConfig(kind, width=width, layers=layers, dropout=dropout)
    place = Path(folder or f"runs/future/{kind}_{seed}")
    run = Run(build_future(config), LoopConfig(steps=steps, learning_rate=learning_rate, bfloat16=False), place)
    run.resume()
    windows = FutureWindows(load_pieces(Path(pieces), "train"), config.context, config.future)
    held_out = scored_windows(load_pieces(Path(pieces), "val"), config.context, config.future)
    loader = torch.utils.data.DataLoader(Batches(windows, batch, seed), batch_size=None, sampler=range(run.step, steps))

    def losses_of(network: nn.Module, pair: list[Tensor]) -> dict[str, Tensor]:
        if kind == "dct_mlp":
            return future_losses(network(pair[0]), pair[1])
        own = min(1.0, 1.5 * run.step / steps)
        return future_losses(network(pair[0], pair[1], own), pair[1])

    def evaluate(network: nn.Module) -> dict[str, list[float]]:
        return scores(network, held_out, config.context)

    fit(run, loader, losses_of, LOSS_WEIGHTS, evaluate)
    found = {"config": asdict(config), "steps": run.step, "horizons_ms": HORIZONS_MS, "windows": len(held_out[0]),
             "constant": scores(None, held_out, config.context), "ours": evaluate(run.averaged)}  # fmt: skip
    (place / "scores.json").write_text(json.dumps(found, indent=1))
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
