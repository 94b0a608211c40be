"""Trains PHD on lifted motion of true bodies: the bodies that are seen, and those that will be.

    python -m experiments.lift_bodies
    python -m experiments.train_phd [--row latent] [--width 256]

Two steps (Zhang et al., "Predicting 3D human dynamics from video", ICCV 2019, section 4). First encoder and readouts
learn the present and the poses 10 and 5 frames before it (equation 1). Then the readouts are frozen, and encoder and
predictor learn together; the predictor follows up its own predictions, one at first and 25 after `CURRICULUM` of the
step (equation 7). Rows of the ablation differ in this second step: ``latent`` is PHD, ``no_strip`` leaves out the
distillation of strips (equation 5), ``body`` predicts bodies instead of strips (equation 8); they share the first step.

Losses: joints, rotations, shape, way of the root, 2D with the camera of equation 6, shape that does not change, and the
factorised adversarial prior, whose real rotations are those of the training pieces. They are taken of some random
frames of every window. One in twelve recordings of the training set is held out: the checkpoint of the second step that
errs least on these is kept, and how large the errors of the future are is measured on them. Resumes from the last
checkpoint. Writes ``weights.safetensors`` into the row's folder of ``runs/future``; those of PHD itself are the ones in
``lifting/weights``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from experiments.lift_bodies import PATH, load_bodies
from lifting import __version__
from lifting.body import load_body
from lifting.body.model import BodyModel
from lifting.datasets.strip_windows import (
    BodyPiece,
    StripBatch,
    StripWindows,
    body_flip,
    every_window,
    make_batch,
    stack_seen,
)
from lifting.files import atomic_path
from lifting.models.strips.body import StripBody
from lifting.models.strips.files import build_strips, save_strips
from lifting.models.strips.hmmr import PoseDiscriminator
from lifting.models.strips.phd import FARTHEST, Phd, PhdConfig
from lifting.models.strips.readout import BodyState
from lifting.strip_features import FEATURES, without_evidence
from lifting.strips_forecaster import PhdForecaster
from lifting.training.loop import LoopConfig, Run, fit
from lifting.training.losses import SIGMA_QUANTILE
from lifting.training.strip_losses import (
    LOSS_WEIGHTS,
    adversarial_loss,
    body_losses,
    discriminator_loss,
    distillation_loss,
    tensors,
)

HELD_OUT = 12  # one in so many recordings
CONTEXT = (15, 25)  # frames that are seen: PHD's tables have 15, `lift.future` has 25
OWN = 25  # own predictions in a row
CURRICULUM = 0.6  # of the second step, after which there are so many
BLIND = 0.5  # of the windows: predictors are asked by those who know no keypoints, too
FOLDER = Path("runs/future")
HIDDEN = 128


@dataclass(frozen=True)
class Row:
    """A row of the ablation: whether the predictor goes from strip to strip, and whether strips are distilled."""

    latent: bool = True
    strips: bool = True


ROWS = {"latent": Row(), "no_strip": Row(strips=False), "body": Row(latent=False, strips=False)}
DELTA_LOSSES = ("joints", "rotations", "keypoints")
WEIGHTS = LOSS_WEIGHTS | {f"delta_{name}": 0.5 * LOSS_WEIGHTS[name] for name in DELTA_LOSSES} | {
    "strip": 1.0, "next_strip": 1.0, "judge": LOSS_WEIGHTS["adversarial"],
}  # fmt: skip


class Batches(torch.utils.data.Dataset):
    """Batch k of the endless stream, a pure function of the seed and k: windows, and how many of their frames are seen.

    steps: of the second step of training; None in the first, where all are seen. Some windows come without 2D evidence.
    """

    def __init__(self, windows: StripWindows, batch: int, seed: int, steps: int | None) -> None:
        self.windows, self.batch, self.seed, self.steps = windows, batch, seed, steps

    def __getitem__(self, step: int) -> tuple[StripBatch, int]:
        rng = np.random.default_rng([self.seed, step])
        windows, seen = self.windows, self.windows.frames
        if self.steps is not None:
            seen = int(rng.integers(CONTEXT[0], CONTEXT[1] + 1))
            windows = replace(windows, frames=seen + own_predictions(step, self.steps))
        batch, blind = windows(self.batch, rng), rng.random(self.batch) < BLIND
        batch.features[blind] = without_evidence(batch.features[blind])
        return tensors(batch), seen


def own_predictions(step: int, steps: int) -> int:
    """How many predictions the predictor makes from its own at a step of training: from 1 to `OWN`."""
    return 1 + round((OWN - 1) * min(1.0, step / (CURRICULUM * steps)))


def at_frames(batch: StripBatch, frames: Sequence[int]) -> StripBatch:
    """Some frames of a batch."""
    still = {"shape": batch.shape, "labelled": batch.labelled}
    return StripBatch(**{name: still.get(name, value[:, frames]) for name, value in batch._asdict().items()
                         if name not in still}, **still)  # fmt: skip


class Trainee(nn.Module):
    """PHD and the discriminator of its adversarial prior, which learn side by side."""

    def __init__(self, config: PhdConfig) -> None:
        super().__init__()
        self.config, self.phd, self.judge = config, build_strips(config), PoseDiscriminator(config.joints)

    def start_from(self, trained: Trainee) -> None:
        """Takes over what the first step of training has learned, and freezes the readouts (PHD, section 4)."""
        learned = {k: v for k, v in trained.state_dict().items() if not k.startswith("phd.predictor.")}
        self.load_state_dict(learned, strict=False)
        for part in (self.phd.readout, self.phd.delta_readouts):
            part.requires_grad_(False)

    def prior_losses(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The adversarial prior of rotations (N, T, K, 3, 3), and what the discriminator learns from."""
        fixed = {name: value.detach() for name, value in self.judge.named_parameters()}
        return {"adversarial": adversarial_loss(torch.func.functional_call(self.judge, fixed, (made,))),
                "judge": discriminator_loss(self.judge(real), self.judge(made.detach()))}  # fmt: skip


class Losses:
    """Named losses of a batch; called by the training loop.

    frames: how many frames of the seen part, of the deltas and of the future of every window are looked at.
    """

    def __init__(self, body: StripBody, shape_sigma: Tensor, row: Row, frames: tuple[int, int, int]) -> None:
        self.body, self.shape_sigma, self.row, self.frames = body, shape_sigma, row, frames

    def __call__(self, trainee: Trainee, pair: tuple[StripBatch, int]) -> dict[str, Tensor]:
        """pair: a batch, and how many of its frames are seen."""
        batch, seen = pair
        phd, total = trainee.phd, batch.features.shape[1]
        strips = phd.encoder(batch.features if self.row.strips else batch.features[:, :seen])
        frames = some_of(range(1, seen), self.frames[0])  # the way of the first frame is not known
        states, losses = [phd.readout(strips[:, frames])], {}
        if seen < total:
            said, future = phd.predict(strips[:, :seen], total - seen)
            chosen = some_of(range(total - seen), self.frames[2])
            states.append(phd.bodies(future[:, chosen]))
            frames = [*frames, *(seen + k for k in chosen)]
            if self.row.strips:
                losses["strip"] = distillation_loss(future, strips[:, seen:])
                losses["next_strip"] = distillation_loss(said[:, :-1], strips[:, 1:seen])
        told, truth = joined(states), at_frames(batch, frames)
        losses |= self._delta_losses(phd, strips[:, :seen], batch)
        with torch.autocast("cpu", enabled=False):
            losses |= body_losses(told, truth, self.body, self.shape_sigma)
        return losses | trainee.prior_losses(told.rotations[:, ::2], truth.rotations[:, ::2])

    def _delta_losses(self, phd: Phd, strips: Tensor, batch: StripBatch) -> dict[str, Tensor]:
        """Of the poses some frames before, each in its own heading."""
        frames = some_of(range(1 - min(map(int, phd.delta_readouts)), strips.shape[1]), self.frames[1])
        deltas = phd.read(strips[:, frames]).deltas
        truth = at_frames(batch, [frame + delta for delta in deltas for frame in frames])
        with torch.autocast("cpu", enabled=False):
            found = body_losses(joined(list(deltas.values())), truth, self.body, self.shape_sigma)
        return {f"delta_{name}": found[name] for name in DELTA_LOSSES}


def joined(states: Sequence[BodyState]) -> BodyState:
    """Bodies (N, T, ...) one after the other."""
    return BodyState(*(torch.cat(values, 1) for values in zip(*states, strict=True)))


def some_of(frames: range, count: int) -> list[int]:
    """Up to so many of the frames, at random, in order."""
    return sorted(frames[int(k)] for k in torch.randperm(len(frames))[:count])


def state_at(state: BodyState, frames: Sequence[int]) -> BodyState:
    """Some frames of bodies (N, T, ...)."""
    return BodyState(*(value[:, frames] for value in state))


def split_pieces(pieces: Sequence[BodyPiece]) -> tuple[list[BodyPiece], list[BodyPiece]]:
    """Pieces of the training set to learn from, and those held out."""
    parts = ([], [])
    for piece in pieces:
        parts[zlib.crc32(piece.name.split("/")[0].encode()) % HELD_OUT == 0].append(piece)
    return parts


def mean_rotations(rotations: np.ndarray) -> Tensor:
    """The rotations (K, 3, 3) nearest to the mean of matrices (..., K, 3, 3)."""
    u, _, vt = np.linalg.svd(rotations.reshape(-1, *rotations.shape[-3:]).mean(0))
    u[..., -1] *= np.linalg.det(u @ vt)[:, None]
    return torch.from_numpy((u @ vt).astype(np.float32))


class Validation:
    """Errors of the bodies told for held-out windows, mm: of the present and, where it is trained, of the future."""

    def __init__(self, pieces: Sequence[BodyPiece], flip: np.ndarray, body: StripBody, future: bool) -> None:
        windows = every_window(pieces, CONTEXT[1] + OWN, 100)
        self.batch, self.body, self.future = tensors(make_batch(windows, flip)), body, future

    @torch.no_grad()
    def __call__(self, trainee: Trainee) -> dict[str, list[float]]:
        """The errors, of the future at the frames 1, 5, 10, 20 and 25."""
        phd, seen, truth = trainee.phd.eval(), CONTEXT[1], self.batch.joints
        lift = phd(self.batch.features)
        said = {"present_mm": (self.body.joints(state_at(lift.present, slice(1, None))), truth[:, 1:])}
        for delta, state in lift.deltas.items():
            said[f"delta_{-delta}_mm"] = (self.body.joints(state)[:, -delta:], truth[:, :delta])
        scores = {name: [round(mean_mm(*pair), 2)] for name, pair in said.items()}
        if self.future:
            future = self.body.joints(phd.future(self.batch.features[:, :seen], OWN))
            still = self.body.joints(state_at(lift.present, slice(seen - 1, seen)))
            for name, joints in (("future_mm", future), ("constant_mm", still.expand_as(future))):
                scores[name] = [round(mean_mm(joints[:, k], truth[:, seen + k]), 2) for k in (0, 4, 9, 19, 24)]
        return scores


class KeptBest:
    """Validates, and keeps the network that errs least in the future of held-out windows: trained on, it forgets them.

    path: a safetensors file with the network and, as metadata, its error.
    """

    def __init__(self, held_out: Validation, path: Path) -> None:
        self.held_out, self.path = held_out, path

    def __call__(self, trainee: Trainee) -> dict[str, list[float]]:
        """The errors of the network, which is kept if no better one is."""
        scores = self.held_out(trainee)
        error = float(np.mean(scores["future_mm"]))
        if not self.path.exists() or error < self._error():
            state = {name: value.contiguous() for name, value in trainee.state_dict().items()}
            with atomic_path(self.path) as temporary:
                save_file(state, str(temporary), metadata={"error": str(error)})
        return scores

    def _error(self) -> float:
        with safe_open(str(self.path), framework="pt") as file:
            return float(file.metadata()["error"])

    def load_into(self, trainee: Trainee) -> None:
        """Puts the best network into one of the same sizes."""
        trainee.load_state_dict(load_file(str(self.path)))


def mean_mm(joints: Tensor, truth: Tensor) -> float:
    """MPJPE in millimetres."""
    return 1000 * float((joints - truth).norm(dim=-1).mean())


def make_trainee(width: int, row: Row, windows: StripWindows, seed: int) -> Trainee:
    """A fresh network that tells the mean body of the training pieces."""
    torch.manual_seed(seed)
    joints, shapes = windows.pieces[0].rotations.shape[1], len(windows.pieces[0].shape)
    trainee = Trainee(PhdConfig(FEATURES, joints, shapes, width, HIDDEN, latent=row.latent))
    batch = windows(256, np.random.default_rng(seed))
    trainee.phd.readout.set_mean(mean_rotations(batch.rotations), torch.from_numpy(batch.shape.mean(0)))
    return trainee


def train(trainee: Trainee, folder: Path, stream: Batches, losses: Losses, evaluate: Callable, config: LoopConfig,
          ) -> Trainee:  # fmt: skip
    """One of the two steps of training; the averaged network."""
    run = Run(trainee, config, folder)
    run.resume()
    loader = torch.utils.data.DataLoader(stream, batch_size=None, sampler=range(run.step, config.steps))
    fit(run, loader, losses, WEIGHTS, evaluate)
    return run.averaged


def measure_growth(forecaster: PhdForecaster, pieces: Sequence[BodyPiece]) -> np.ndarray:
    """`Phd.growth`: what has to be added to the last seen sigma, in squares, so that 68 % of the errors lie within."""
    cuts = every_window(pieces, CONTEXT[1] + FARTHEST, 10)
    seen = stack_seen([cut.seen for cut in cuts]).cut(slice(CONTEXT[1]))
    joints, root = (np.stack([getattr(cut, name)[CONTEXT[1] - 1 :] for cut in cuts]) for name in ("joints", "root"))
    said = forecaster(seen, FARTHEST)
    excess = np.square(said.joints - joints[:, 1:]).sum(-1) - np.square(seen.sigma[:, -1:])
    way = (said.root - seen.root[:, -1:]) - (root[:, 1:] - root[:, :1])
    excess[..., 0] = np.square(way).sum(-1)
    growth = np.sqrt(np.maximum(np.quantile(excess, SIGMA_QUANTILE, axis=0), 0.0))
    return np.maximum.accumulate(growth, 0)  # nothing becomes more certain by lying further ahead


def finish(phd: Phd, config: PhdConfig, body: BodyModel, held_out: Sequence[BodyPiece], scores: dict, path: Path,
           ) -> None:  # fmt: skip
    """Measures the errors of the future and writes the weights."""
    phd.requires_grad_(False).growth.copy_(torch.from_numpy(measure_growth(PhdForecaster(phd, body), held_out)))
    training = (
        "CMU motion capture worn by random bodies, synthetic views, lifted with the default weights; python -m "
        "experiments.train_phd"
    )
    save_strips(path, phd, config, training=training, licence="Apache-2.0", version=__version__, metrics=scores)


@click.command()
@click.option("--pieces", default=str(PATH), show_default=True)
@click.option("--row", type=click.Choice(sorted(ROWS)), default="latent", show_default=True)
@click.option("--width", default=256, show_default=True)
@click.option("--movie-steps", default=3000, show_default=True, help="Of the first step, which all rows share.")
@click.option("--steps", default=3000, show_default=True, help="Of the second step.")
@click.option("--batch", default=32, show_default=True)
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(pieces: str, row: str, width: int, movie_steps: int, steps: int, batch: int, learning_rate: float,
         seed: int) -> None:  # fmt: skip
    """Trains both steps, the first one where its folder does not hold it yet."""
    torch.set_num_threads(1)
    model = load_body("lite")
    body, flip = StripBody(model), body_flip(model.joints)
    learned, held_out = split_pieces(load_bodies(Path(pieces), "train"))
    shape_sigma = torch.from_numpy(np.stack([piece.shape for piece in learned]).std(0))
    windows = StripWindows(learned, flip, 32)
    movie = train(make_trainee(width, Row(), windows, seed), FOLDER / f"phd_movie_{width}_{seed}",
                  Batches(windows, batch, seed, None), Losses(body, shape_sigma, Row(), (8, 3, 0)),
                  Validation(held_out, flip, body, False), LoopConfig(movie_steps, learning_rate))  # fmt: skip
    trainee, folder = make_trainee(width, ROWS[row], windows, seed), FOLDER / f"phd_{row}_{width}_{seed}"
    trainee.start_from(movie)
    best = KeptBest(Validation(held_out, flip, body, True), folder / "best.safetensors")
    train(trainee, folder, Batches(windows, batch, seed + 1, steps), Losses(body, shape_sigma, ROWS[row], (4, 2, 8)),
          best, LoopConfig(steps, learning_rate))  # fmt: skip
    best.load_into(trainee)
    finish(trainee.phd, trainee.config, model, held_out, best(trainee), folder / "weights.safetensors")


if __name__ == "__main__":
    main()
