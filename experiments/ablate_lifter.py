"""What each idea of the default lifter is worth: the same short training with one idea taken away at a time.

    python -m experiments.ablate_lifter [--mocap data/mocap/mocap17.h5] [--rotations mocap_rot24.h5]

Equal steps, batches, schedule and seed for every row, and a network of 256 channels; scores of the averaged, bare
network (no flip, no cleaning) on every eighth view of the protocol. Short runs rank ideas, they do not show final
accuracy: what makes the training harder, as poses, cameras and noise do, pays later than it costs. A row resumes from
its own checkpoint. Prints a table and writes ``runs/ablation/ablation.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import torch

from experiments.protocol import CAMERAS, VIEWS, benchmark_pieces, training_pieces, views
from experiments.train_lifter import Batches, losses_of, quick_scores
from lifting.datasets.detector_noise import TRAINING_NOISE, NoiseModel
from lifting.datasets.mocap import DEFAULT_PATH
from lifting.datasets.pose_augmentation import PoseRanges
from lifting.datasets.synthesis import Synthesiser
from lifting.models import build
from lifting.models.lifter import LifterConfig
from lifting.training.loop import LoopConfig, Run, fit, follow_trapezoid
from lifting.training.losses import DEFAULT_WEIGHTS
from lifting.training.muon import MuonAndAdamW

CHANNELS, LEARNING_RATE = 256, 2e-3


@dataclass(frozen=True)
class Row:
    """One training: what differs from the full recipe."""

    name: str
    data: dict = field(default_factory=dict)  # fields of Synthesiser
    losses: dict = field(default_factory=dict)  # weights of losses
    network: dict = field(default_factory=dict)  # fields of LifterConfig
    muon: bool = True  # else AdamW alone, at half the rate, which is better for it


ROWS = (
    Row("full recipe"),
    Row("AdamW alone", muon=False),
    Row("joints not relative to the keypoints' rays", network={"anchored": False}),
    Row("poses as captured", data={"poses": PoseRanges(mixed=0.0, turned=0.0, tumbling=0.0)}),
    Row("no loss across the line of sight", losses={"across": 0.0}),
    Row("no velocity loss", losses={"velocity": 0.0}),
    Row("no bone-length loss", losses={"bones": 0.0}),
    Row("no scale-free pose loss", losses={"scaled_pose": 0.0}),
    Row("cameras as in the standard set only", data={"cameras": ((1.0, CAMERAS["standard"]),)}),
    Row("noise of the protocol only", data={"noise": NoiseModel()}),
    Row("no joint-definition noise", data={"noise": replace(TRAINING_NOISE, definition=0.0)}),
    Row("no slips of arms and legs", data={"noise": replace(TRAINING_NOISE, slip_share=(0.0, 0.0))}),
    Row("no random speed", data={"speed": (1.0, 1.0)}),
    Row("statures as recorded", data={"stature": None}),
    Row("no mixing of bodies", data={"mix_share": 0.0}),
    Row("receptive field 31", network={"dilations": (1, 2, 4, 4, 2, 2)}),
)


def train(row: Row, pieces: list, held_out: dict, folder: Path, steps: int, frames: int, batch: int) -> dict:
    """Trains one row to its end and returns its scores."""
    torch.manual_seed(0)
    config = replace(LifterConfig(channels=CHANNELS), **row.network)
    network, rate = build(config), LEARNING_RATE if row.muon else LEARNING_RATE / 2
    loop = LoopConfig(steps=steps, learning_rate=rate, warmup=100, average=0.997)
    optimiser = MuonAndAdamW(network, rate, loop.weight_decay) if row.muon else None
    run = Run(network, loop, folder, optimiser=optimiser, schedule=follow_trapezoid)
    run.resume()
    stream = Batches(Synthesiser(pieces, frames, **row.data), batch, seed=0)
    loader = torch.utils.data.DataLoader(
        stream, batch_size=None, sampler=range(run.step, steps), num_workers=1, prefetch_factor=4
    )
    fit(run, loader, losses_of, DEFAULT_WEIGHTS | row.losses)
    scores = [quick_scores(run.averaged, kind, seen) for kind, seen in held_out.items()]
    return {name: value for part in scores for name, value in part.items()}


@click.command()
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--rotations", default=None, help="mocap_rot24.h5, for the feet of pieces that come without.")
@click.option("--folder", default="runs/ablation", show_default=True)
@click.option("--steps", default=500, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--frames", default=128, show_default=True)
def main(mocap: str, rotations: str | None, folder: str, steps: int, batch: int, frames: int) -> None:
    """Trains every row and prints the table."""
    pieces = training_pieces(mocap, rotations)
    held_out = {k: list(views(benchmark_pieces(mocap, k), k))[:: 2 * VIEWS] for k in ("standard", "hard")}
    results = {}
    for row in ROWS:
        place = Path(folder) / row.name.replace(" ", "_").replace("'", "")
        results[row.name] = train(row, pieces, held_out, place, steps, frames, batch)
        (Path(folder) / "ablation.json").write_text(json.dumps({"steps": steps, "rows": results}, indent=1))
    columns = list(next(iter(results.values())))
    click.echo("| row | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for name, scores in results.items():
        click.echo(f"| {name} | " + " | ".join(f"{scores[c]:.2f}" for c in columns) + " |")


if __name__ == "__main__":
    main()
