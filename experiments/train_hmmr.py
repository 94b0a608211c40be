"""Trains HMMR on bodies as the default lifter sees them: bodies now, before and after, from a clip or a single frame.

    python -m experiments.lift_bodies
    python -m experiments.train_hmmr [--seed 0]

Windows of 20 frames (as in the paper), read out at eight random ones. Real strips come from lifted clips; the
hallucinator sees every frame lifted alone, without its motion, and learns the real strip of that frame (distillation)
and, through the same readouts, the body now and five frames before and after. A factorised discriminator learns the
rotations of the labelled windows, those of mocap_rot24. With ``--labelled 0.25 --unlabelled 0.67`` a quarter of the
recordings has 3D labels and 67 % of the others are 2D-only clips, half of every batch: keypoints by the camera of PHD's
equation 6, priors and constant shape are all that they teach.

Losses are those of the paper with the weights of `lifting.training.strip_losses`, which are ours (inputs are lifted
keypoints, joints are in metres, the 2D loss is Geman-McClure's). One in twelve recordings is held out to choose
settings. Resumes from the last checkpoint of its folder; writes ``weights.safetensors`` and ``scores.json`` there.
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

import lifting
from experiments.lift_bodies import PATH, load_bodies
from experiments.train_future import HELD_OUT
from lifting.body import load_body
from lifting.datasets.strip_windows import BodyPiece, StripBatch, StripWindows, body_flip, every_window, make_batch
from lifting.metrics import joint_errors, procrustes_align
from lifting.models.strips.body import StripBody
from lifting.models.strips.files import build_strips, save_strips
from lifting.models.strips.hmmr import Hmmr, HmmrConfig, PoseDiscriminator
from lifting.models.strips.phd import StripLift
from lifting.strip_features import FEATURES, without_motion
from lifting.training.loop import LoopConfig, Run, fit
from lifting.training.strip_losses import (
    LOSS_WEIGHTS,
    adversarial_loss,
    body_losses,
    discriminator_loss,
    distillation_loss,
    tensors,
)

FRAMES, READ = 20, 8  # of a window, and how many of them are read out in a step
DELTA = 5
DELTA_LOSSES = ("joints", "rotations", "keypoints")  # the others are those of the present
PARTS = ("deltas", "hallucinator", "adversarial", "constant_shape", "context")
OTHER_WEIGHTS = {"discriminator": 0.1, "distillation": 1.0}  # the first moves the discriminator alone


class HmmrTraining(nn.Module):
    """The network and its discriminator as one module: the loop keeps, clips and resumes both."""

    def __init__(self, hmmr: Hmmr, joints: int) -> None:
        super().__init__()
        self.hmmr, self.judge = hmmr, PoseDiscriminator(joints)

    def answers(self, rotations: Tensor) -> Tensor:
        """What the discriminator says of rotations (..., K, 3, 3), with gradients to the rotations only."""
        fixed = {name: parameter.detach() for name, parameter in self.judge.named_parameters()}
        return torch.func.functional_call(self.judge, fixed, (rotations,))


class Batches(torch.utils.data.Dataset):
    """Batch k of the endless stream: the same windows lifted as clips and frame by frame; pure in the seed and k."""

    def __init__(self, seen: StripWindows, alone: StripWindows, batch: int, seed: int) -> None:
        self.seen, self.alone, self.batch, self.seed = seen, alone, batch, seed

    def __getitem__(self, step: int) -> list[StripBatch]:
        return [tensors(windows(self.batch, np.random.default_rng([self.seed, step])))
                for windows in (self.seen, self.alone)]  # fmt: skip


def at_frames(batch: StripBatch, frames: Tensor) -> StripBatch:
    """Some of the frames of a batch of tensors."""
    kept = {"shape": batch.shape, "labelled": batch.labelled}
    return StripBatch(**{name: value[:, frames] for name, value in batch._asdict().items() if name not in kept}, **kept)


def seen_from(batch: StripBatch, frames: Tensor, delta: int) -> StripBatch:
    """What is true `delta` frames after `frames`, told in the headings of `frames`: what a delta readout has to say."""
    here, there = at_frames(batch, frames), at_frames(batch, frames + delta)
    turn = here.heading @ there.heading.mT
    rotations = torch.cat([turn[:, :, None] @ there.rotations[:, :, :1], there.rotations[:, :, 1:]], 2)
    return there._replace(rotations=rotations, joints=there.joints @ turn.mT, camera=here.camera, heading=here.heading)


@dataclass(frozen=True)
class HmmrLosses:
    """The losses of a step; a callable for `lifting.training.loop.fit`. without: of `PARTS`, what is left out."""

    body: StripBody
    shape_sigma: Tensor
    without: frozenset[str] = frozenset()

    def __call__(self, training: HmmrTraining, batches: list[StripBatch]) -> dict[str, Tensor]:
        """Named losses of windows lifted as clips and of the same windows lifted frame by frame."""
        seen, alone = batches
        frames = torch.randperm(seen.features.shape[1])[:READ].sort().values
        clip = alone if "context" in self.without else seen
        strips = real_strips(training.hmmr, clip, self.without)[:, frames]
        lift, losses = self.read(training, strips, clip, frames)
        made = [lift]
        if "hallucinator" not in self.without:
            still = training.hmmr.hallucinator(without_motion_of(alone.features[:, frames]))
            lift, of_still = self.read(training, still, alone, frames)
            losses |= {f"still_{name}": loss for name, loss in of_still.items()}
            losses["distillation"] = distillation_loss(still, strips)
            made.append(lift)
        if "adversarial" not in self.without:
            judged = torch.cat([lift.present.rotations.detach() for lift in made])
            real = seen.rotations[seen.labelled > 0][:, frames]
            losses["discriminator"] = discriminator_loss(training.judge(real), training.judge(judged))
        return losses

    def read(self, training: HmmrTraining, strips: Tensor, truth: StripBatch, frames: Tensor,
             ) -> tuple[StripLift, dict[str, Tensor]]:  # fmt: skip
        """Bodies in strips (N, READ, C) of some frames, and their losses, summed over present, past and future."""
        lift = training.hmmr.read(strips)
        losses = body_losses(lift.present, at_frames(truth, frames), self.body, self.shape_sigma)
        if "adversarial" not in self.without:
            losses["adversarial"] = adversarial_loss(training.answers(lift.present.rotations))
        if "constant_shape" in self.without:
            del losses["constant_shape"]
        for delta, state in lift.deltas.items() if "deltas" not in self.without else ():
            known = torch.nonzero((frames + delta >= 0) & (frames + delta < truth.features.shape[1]))[:, 0]
            if len(known):
                state = type(state)(*(value[:, known] for value in state))
                moved = body_losses(state, seen_from(truth, frames[known], delta), self.body, self.shape_sigma)
                losses |= {name: losses[name] + moved[name] for name in DELTA_LOSSES}
        return lift, losses


def real_strips(hmmr: Hmmr, clip: StripBatch, without: frozenset[str] = frozenset()) -> Tensor:
    """Strips (N, T, C) of clips; ``context`` left out: every frame by itself, zeros around it."""
    if "context" not in without:
        return hmmr.encoder(clip.features)
    return hmmr.encoder(without_motion_of(clip.features).flatten(0, 1)[:, None]).unflatten(0, clip.features.shape[:2])[
        :, :, 0
    ]


def without_motion_of(features: Tensor) -> Tensor:
    """`without_motion` of tensors."""
    return torch.from_numpy(without_motion(features.numpy()))


def loss_weights(keypoints: float) -> dict[str, float]:
    """The weight of every loss; keypoints: that of the 2D loss."""
    weights = {**LOSS_WEIGHTS, "keypoints": keypoints}
    return weights | {f"still_{name}": weight for name, weight in weights.items()} | OTHER_WEIGHTS


def recording_of(piece: BodyPiece) -> str:
    """The recording that a piece is of; its views share it."""
    return piece.name.split("/")[0]


def split_pieces(path: Path) -> tuple[list[BodyPiece], list[BodyPiece]]:
    """Pieces of the training set to learn from, and those held out."""
    parts = ([], [])
    for piece in load_bodies(path, "train"):
        parts[zlib.crc32(recording_of(piece).encode()) % HELD_OUT == 0].append(piece)
    return parts


def label(pieces: list[BodyPiece], labelled: float, unlabelled: float) -> tuple[list[BodyPiece], list[BodyPiece]]:
    """Those with 3D labels, a share of the recordings, and of the others that share which are 2D-only clips."""
    names = sorted({recording_of(piece) for piece in pieces}, key=lambda name: zlib.crc32(name[::-1].encode()))
    known = round(labelled * len(names))
    filmed = known + round(unlabelled * (len(names) - known))
    parts = [set(names[:known]), set(names[known:filmed])]
    return tuple([piece for piece in pieces if recording_of(piece) in part] for part in parts)


def mean_body(windows: StripWindows) -> tuple[Tensor, Tensor]:
    """Mean rotations (K, 3, 3), projected to rotations, and mean shape (S,) of many windows."""
    batch = tensors(windows(256, np.random.default_rng(0)))
    left, _, right = torch.linalg.svd(batch.rotations[batch.labelled > 0].flatten(0, 1).mean(0))
    left = torch.cat([left[..., :2], left[..., 2:] * torch.linalg.det(left @ right)[:, None, None]], -1)
    return left @ right, batch.shape[batch.labelled > 0].mean(0)


@torch.no_grad()
def scores(hmmr: Hmmr, batches: list[StripBatch], losses: HmmrLosses) -> dict[str, list[float]]:
    """MPJPE and PA-MPJPE, mm, of the past, the present and the future, from clips and from single frames."""
    hmmr.eval()
    found, frames = {}, torch.arange(DELTA, batches[0].features.shape[1] - DELTA)
    seen, alone = batches
    clip = alone if "context" in losses.without else seen
    lifts = {"clip": (real_strips(hmmr, clip, losses.without), clip),
             "still": (hmmr.hallucinator(without_motion_of(alone.features)), alone)}  # fmt: skip
    for name, (strips, truth) in lifts.items():
        lift = hmmr.read(strips[:, frames])
        states = {-DELTA: lift.deltas.get(-DELTA), 0: lift.present, DELTA: lift.deltas.get(DELTA)}
        pairs = [(losses.body.joints(state).numpy(), seen_from(truth, frames, delta).joints.numpy())
                 for delta, state in states.items() if state is not None]  # fmt: skip
        for metric, change in (("mpjpe", lambda said, true: said), ("pa", procrustes_align)):
            found[f"{name}_{metric}"] = [round(1000 * float(joint_errors(change(*p), p[1]).mean()), 1) for p in pairs]
    return found


@click.command()
@click.option("--bodies", default=str(PATH), show_default=True)
@click.option("--folder", default="runs/future/hmmr", show_default=True)
@click.option("--steps", default=4000, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--width", default=256, show_default=True)
@click.option("--hidden", default=128, show_default=True)
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--weight-decay", default=0.02, show_default=True)
@click.option("--dropout", default=0.0, show_default=True)
@click.option("--without", type=click.Choice(PARTS), multiple=True, help="Leave a part out, as ablations do.")
@click.option("--source", type=click.Choice(["seen", "alone"]), default="seen", show_default=True,
              help="What the encoder reads: lifted clips, or clips of frames lifted alone.")  # fmt: skip
@click.option("--labelled", default=1.0, show_default=True, help="Share of the recordings with 3D labels.")
@click.option("--unlabelled", default=0.0, show_default=True, help="Share of the others that are 2D-only clips.")
@click.option("--keypoints", default=LOSS_WEIGHTS["keypoints"], show_default=True, help="Weight of the 2D loss.")
@click.option("--seed", default=0, show_default=True)
def main(bodies: str, folder: str, steps: int, batch: int, width: int, hidden: int, learning_rate: float,
         weight_decay: float, dropout: float, without: tuple[str, ...], source: str, labelled: float,
         unlabelled: float, keypoints: float, seed: int) -> None:  # fmt: skip
    """Trains and prints held-out errors."""
    torch.manual_seed(seed)
    settings, place, body = dict(click.get_current_context().params), Path(folder), load_body("lite")
    learned, held_out = split_pieces(Path(bodies))
    known, filmed = label(learned, labelled, unlabelled)
    flip = body_flip(body.joints)
    windows = [StripWindows(known, flip, FRAMES, filmed, source=kind) for kind in (source, "alone")]
    config = HmmrConfig(FEATURES, body.num_joints, body.num_shape, width, hidden, dropout, (-DELTA, DELTA))
    hmmr = build_strips(config)
    hmmr.readout.set_mean(*mean_body(windows[0]))
    run = Run(HmmrTraining(hmmr, body.num_joints),
              LoopConfig(steps, learning_rate, weight_decay=weight_decay, bfloat16=False), place,
              settings={"settings": {k: v for k, v in settings.items() if k not in ("folder", "bodies")}})  # fmt: skip
    run.resume()
    # 2D-only clips come on top of the labelled windows, whose number per step is that of a run without them.
    batches = Batches(*windows, 2 * batch if filmed else batch, seed)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, sampler=range(run.step, steps))
    shape_sigma = torch.as_tensor(body.shape_sigma, dtype=torch.float32)
    losses = HmmrLosses(StripBody(body), shape_sigma, frozenset(without))
    cuts = every_window(held_out, 40, 120)
    fixed = [tensors(make_batch(cuts, flip, source=kind)) for kind in (source, "alone")]

    def evaluate(training: nn.Module) -> dict[str, list[float]]:
        return scores(training.hmmr, fixed, losses)

    fit(run, loader, losses, loss_weights(keypoints), evaluate)
    found = {"settings": settings, "config": asdict(config), "steps": run.step, "minutes": round(run.seconds / 60, 1),
             "pieces": [len(known), len(filmed), len(held_out)], "held_out": evaluate(run.averaged)}  # fmt: skip
    save_strips(place / "weights.safetensors", run.averaged.hmmr, config, training=f"{steps} steps of {batch} windows "
                f"of {FRAMES} frames of CMU motion capture worn by random adults, lifted from noisy 2D",
                licence="Apache-2.0", version=lifting.__version__, metrics=found["held_out"])  # fmt: skip
    (place / "scores.json").write_text(json.dumps(found, indent=1))
    click.echo(json.dumps(found["held_out"]))


if __name__ == "__main__":
    main()
