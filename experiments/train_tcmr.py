"""Trains TCMR on lifted motion capture: the body of the middle frame of 16, from all the others as much as from it.

    python -m experiments.lift_bodies
    python -m experiments.train_tcmr [--width 256] [--seed 0]

Choi et al., "Beyond static features for temporally consistent 3D human pose and shape from a video", CVPR 2021. One
network learns from lifts of clips and from lifts of single frames, half a batch each (`--seen`), so that it refines
both. Some windows have no 2D evidence (`BLIND`), so that it also reads motion without keypoints. All three bodies, from
all frames, from the past and from the future, are supervised by the middle frame; `--target` is the paper's ablation.
Resumes from the last checkpoint of its folder. One in twelve recordings of the training set is held out: settings are
chosen on these, val pieces serve `experiments.tcmr_tables` alone. Writes ``tcmr.safetensors`` and ``scores.json``.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

from experiments.lift_bodies import PATH, load_bodies
from lifting import __version__
from lifting.body import load_body
from lifting.body.model import BodyModel
from lifting.datasets.strip_windows import BodyPiece, StripBatch, StripWindows, body_flip
from lifting.models.strips.body import StripBody
from lifting.models.strips.files import build_strips, save_strips
from lifting.models.strips.readout import BodyState
from lifting.models.strips.tcmr import TcmrConfig, TcmrLift
from lifting.strip_features import FEATURES, without_evidence
from lifting.strips_refine import tcmr_bodies
from lifting.training.loop import LoopConfig, Run, fit
from lifting.training.strip_losses import LOSS_WEIGHTS, body_losses, tensors

FRAMES, BLIND = 16, 0.1
HELD_OUT, SCORED = 12, 4  # one in so many recordings; every so many of those held out are scored while training
TARGETS = {"current": (0, 0), "neighbours": (-1, 1), "none": None}  # frames that past and future are to tell
TRAINING = ("bodies in motion as the default lifter sees them, clips and single frames (experiments.lift_bodies: CMU "
            "motion capture, mocap.cs.cmu.edu, worn by random adults of the embedded body)")  # fmt: skip


class Batches(torch.utils.data.Dataset):
    """Batch k of the endless stream, a pure function of the seed and k: lifts of clips, then of single frames."""

    def __init__(self, pieces: list[BodyPiece], flip: np.ndarray, batch: int, seen: float, seed: int) -> None:
        sizes = {"seen": round(batch * seen), "alone": batch - round(batch * seen)}
        self.parts = [(StripWindows(pieces, flip, FRAMES, heading="shared", source=source), size)
                      for source, size in sizes.items() if size]  # fmt: skip
        self.seed = seed

    def __getitem__(self, step: int) -> StripBatch:
        rng = np.random.default_rng([self.seed, step])
        drawn = [windows(size, rng) for windows, size in self.parts]
        batch = StripBatch(*(np.concatenate(arrays) for arrays in zip(*drawn, strict=True)))
        blind = rng.random(len(batch.features)) < BLIND
        features = np.where(blind[:, None, None], without_evidence(batch.features), batch.features)
        return tensors(batch._replace(features=features))


@dataclass(frozen=True)
class Losses:
    """The losses of the three bodies that TCMR tells of a batch; all weigh the same.

    target: a name in `TARGETS`, which frames past and future are compared with.
    """

    body: StripBody
    shape_sigma: Tensor
    target: str = "current"

    def __call__(self, network: nn.Module, batch: StripBatch) -> dict[str, Tensor]:
        """Named losses, means over the bodies; keys as of `body_losses`."""
        lift: TcmrLift = network(batch.features)
        told = [(lift.joined, 0)]
        if lift.past is not None and TARGETS[self.target] is not None:
            told += zip((lift.past, lift.future), TARGETS[self.target], strict=True)
        states = BodyState(*(torch.cat(values)[:, None] for values in zip(*(state for state, _ in told), strict=True)))
        truth = [at_frame(batch, FRAMES // 2 + away) for _, away in told]
        truth = StripBatch(*(torch.cat(values) for values in zip(*truth, strict=True)))
        return body_losses(states, truth, self.body, self.shape_sigma)


def at_frame(batch: StripBatch, frame: int) -> StripBatch:
    """One frame of the windows of a batch, as windows of one frame."""
    whole = ("shape", "labelled")
    return StripBatch(*(value if name in whole else value[:, frame : frame + 1]
                        for name, value in zip(batch._fields, batch, strict=True)))


def split_pieces(path: Path) -> tuple[list[BodyPiece], list[BodyPiece]]:
    """Pieces of the training set to learn from, and those held out."""
    parts = ([], [])
    for piece in load_bodies(path, "train"):
        parts[zlib.crc32(piece.name.split("/")[0].encode()) % HELD_OUT == 0].append(piece)
    return parts


def with_edges(piece: BodyPiece) -> BodyPiece:
    """The piece with its first and last frame repeated, so that windows are drawn around each of its frames."""
    half = FRAMES // 2
    return piece.cut(np.clip(np.arange(-half, len(piece) + half), 0, len(piece) - 1))


def mean_body(batch: StripBatch) -> tuple[Tensor, Tensor]:
    """Mean local rotations (K, 3, 3), the root's as seen from the heading, and mean shape (S,).

    The rotation nearest to a mean of matrices is the orthogonal part of its polar decomposition.
    """
    u, _, v = np.linalg.svd(np.asarray(batch.rotations, np.float64).mean((0, 1)))
    u[..., -1] *= np.linalg.det(u @ v)[..., None]
    return torch.tensor(u @ v, dtype=torch.float32), torch.tensor(batch.shape.mean(0))


def errors_of(network: nn.Module, body: BodyModel, pieces: list[BodyPiece], source: str) -> dict[str, float]:
    """Root-relative MPJPE over 17 joints in mm and acceleration error in mm/frame^2 over all frames of the pieces."""
    misses, bends = [], []
    for piece in pieces:
        made = tcmr_bodies(network, getattr(piece, source), body)
        points = body.points("h36m17", made.rotations, made.trajectory, made.shape)
        miss = points - points[:, :1] - piece.joints
        misses.append(np.linalg.norm(miss, axis=-1).mean(-1))
        bends.append(np.linalg.norm(np.diff(miss, 2, axis=0), axis=-1).mean(-1))
    return {f"{source}_mpjpe": round(1000 * float(np.concatenate(misses).mean()), 2),
            f"{source}_accel": round(1000 * float(np.concatenate(bends).mean()), 2)}  # fmt: skip


@click.command()
@click.option("--pieces", default=str(PATH), show_default=True)
@click.option("--folder", default=None, help="[default: runs/future/tcmr_SEED]")
@click.option("--steps", default=8000, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--width", default=256, show_default=True)
@click.option("--hidden", default=96, show_default=True)
@click.option("--dropout", default=0.1, show_default=True)
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--weight-decay", default=0.05, show_default=True)
@click.option("--seen", default=0.5, show_default=True, help="Share of windows of clips lifted as clips.")
@click.option("--residual/--no-residual", default=False, show_default=True)
@click.option("--forecast/--no-forecast", default=True, show_default=True)
@click.option("--peek/--no-peek", default=False, show_default=True)
@click.option("--target", type=click.Choice(TARGETS), default="current", show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(pieces: str, folder: str | None, steps: int, batch: int, learning_rate: float, weight_decay: float,
         seen: float, target: str, seed: int, **sizes: object) -> None:  # fmt: skip
    """Trains and prints errors."""
    torch.manual_seed(seed)
    place, model = Path(folder or f"runs/future/tcmr_{seed}"), load_body("lite")
    config = TcmrConfig(FEATURES, model.num_joints, model.num_shape, FRAMES, layers=1, **sizes)
    learned, held_out = split_pieces(Path(pieces))
    batches = Batches([with_edges(piece) for piece in learned], body_flip(model.joints), batch, seen, seed)
    network = build_strips(config)
    network.readout.set_mean(*mean_body(batches.parts[0][0](1024, np.random.default_rng(seed))))
    run = Run(network, LoopConfig(steps, learning_rate, weight_decay=weight_decay, bfloat16=False), place)
    run.resume()
    loader = torch.utils.data.DataLoader(batches, batch_size=None, sampler=range(run.step, steps))

    def evaluate(network: nn.Module, every: int = SCORED) -> dict[str, float]:
        network.eval()
        return {key: value for source in ("seen", "alone")
                for key, value in errors_of(network, model, held_out[::every], source).items()}  # fmt: skip

    losses_of = Losses(StripBody(model), torch.tensor(model.shape_sigma, dtype=torch.float32), target)
    fit(run, loader, losses_of, LOSS_WEIGHTS, evaluate)
    found = {"config": asdict(config), "target": target, "steps": run.step, "held_out": len(held_out),
             **evaluate(run.averaged, 1)}  # fmt: skip
    (place / "scores.json").write_text(json.dumps(found, indent=1))
    save_strips(place / "tcmr.safetensors", run.averaged, config, training=TRAINING,
                licence="Apache-2.0", version=__version__, metrics=found)  # fmt: skip
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
