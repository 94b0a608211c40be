"""Adapts a lifter to unlabelled clips: the same network, trained further on what the footage itself shows.

All clips together adapt one network (a folder of one's own footage); a single clip adapts a network of its own. Every
step sees about `AdaptConfig.frames` frames in long stretches, mirrored at random. The same seed gives the same weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lifting import __version__
from lifting.anatomy import H36M
from lifting.cameras import Camera, estimate_focal
from lifting.checkpoints import Header, save_weights
from lifting.cleaning import clean
from lifting.datasets.clips import Clip
from lifting.models.lifter import NUM_CORE, LiftNet, encode_rays
from lifting.predict import CHUNK, INPUT, Lifter
from lifting.resampling import resample_keypoints, same_rate
from lifting.training.adapt_losses import Bodies, Sight, Start, adapt_losses

Progress = Callable[[Iterable, int | None, str], Iterable]

BODIES_KEY = "bodies"
# Natural logarithms of bone lengths in metres, in the order of H36M-17's bones, mean and deviation: of 1,500 bodies of
# `lifting.datasets.synthesis.Synthesiser` (seed 0) on the motion that the default lifter was trained on.
DEFAULT_BODIES = {
    "mean": [-2.216, -0.884, -0.833, -2.216, -0.885, -0.833, -1.433, -1.225, -1.991, -2.037, -1.688, -1.206, -1.383,
             -1.688, -1.206, -1.383],
    "spread": [0.192, 0.098, 0.104, 0.192, 0.098, 0.104, 0.111, 0.106, 0.170, 0.112, 0.131, 0.108, 0.112, 0.134, 0.107,
               0.110],
}  # fmt: skip
_IN_FLIP, _OUT_FLIP = list(INPUT.flip), list(H36M.flip)
_FIELDS = ("rays", "scores", "joints", "root")


@dataclass(frozen=True)
class AdaptConfig:
    """How long and how hard; the defaults were tuned as `experiments.adapt_footage` says.

    steps: of Adam. frames: seen in one step, at the lifter's rate. warmup: steps in which the learning rate grows;
    afterwards it falls to a tenth. weights: of the terms of `adapt_losses`; 0 switches one off. seed: of the order of
    the stretches and the mirroring. Raises ValueError for counts below 1 and for unknown or negative weights.
    """

    steps: int = 120
    learning_rate: float = 3e-4
    frames: int = 3000
    warmup: int = 10
    clip: float = 1.0
    weights: Mapping[str, float] = field(
        default_factory=lambda: {"projection": 10.0, "bones": 0.5, "typical": 0.1, "anchor": 10.0}
    )
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.steps, self.frames, self.warmup) < 1:
            raise ValueError(
                f"got {self.steps} steps of {self.frames} frames, {self.warmup} of warm-up; all must be at least 1"
            )
        names = {"projection", "bones", "typical", "anchor"}
        if set(self.weights) != names or min(self.weights.values()) < 0:
            raise ValueError(f"got the weights {dict(self.weights)}; give {', '.join(sorted(names))}, none below 0")


@dataclass(frozen=True)
class AdaptReport:
    """What adapting did.

    lifter: the adapted one, ready to use. before, after: mean of each term over all frames, of both networks, with
    ``reprojection_px``, the mean over clips of the median distance in pixels of keypoints and reprojected joints of
    `Lifter.lift`. clips, frames, steps, seconds: what it took. skipped: (clip, reason in one sentence).
    """

    lifter: Lifter
    before: dict[str, float]
    after: dict[str, float]
    clips: int
    frames: int
    steps: int
    seconds: float
    skipped: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[str]:
        """What to tell the user: what was done, and what changed."""
        bones = 100 * self.before["bones"], 100 * self.after["bones"]
        pixels = self.before["reprojection_px"], self.after["reprojection_px"]
        return [
            *(f"{name} is left out: {reason}" for name, reason in self.skipped),
            f"adapted to {_counted(self.clips, 'clip')}, {self.frames} frames, in {self.steps} steps and "
            f"{self.seconds:.0f} s",
            f"bone lengths change within a clip by {bones[0]:.1f} % before, {bones[1]:.1f} % after",
            f"reprojection error {pixels[0]:.1f} px before, {pixels[1]:.1f} px after",
        ]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Observed:
    """One clip as the network sees it, at its rate, and what the network says of it at the start; CPU tensors.

    rays (T, 17, 2), scores (T, 17), joints (T, 17, 3) and root (T, 3) metres.
    """

    rays: Tensor
    scores: Tensor
    joints: Tensor
    root: Tensor

    def __len__(self) -> int:
        """T."""
        return len(self.rays)

    def slice(self, start: int, stop: int) -> Observed:
        """Frames start..stop."""
        return Observed(*(getattr(self, name)[start:stop] for name in _FIELDS))

    def cut(self, frames: int) -> list[Observed]:
        """Parts of at most so many frames, one after the other."""
        return [self.slice(start, start + frames) for start in range(0, len(self), frames)]


def adapt(
    lifter: Lifter,
    clips: Iterable[Clip],
    config: AdaptConfig | None = None,
    *,
    progress: Progress | None = None,
) -> AdaptReport:
    """One lifter adapted to all clips; the given one stays as it is.

    Clips without a camera are seen through one whose focal length is the image diagonal, as in `Lifter.lift`. Labels
    are not looked at. ``progress(iterable, total, title)`` wraps the steps.

    Raises ValueError when no clip has a visible body joint and FloatingPointError, naming the step, when a loss is not
    finite.
    """
    config = config or AdaptConfig()
    started, clips = time.monotonic(), list(clips)
    usable, observed, skipped = _observe_all(lifter, clips)
    network = copy.deepcopy(lifter.network).train()
    bodies = _on(read_bodies(lifter.header), lifter.device)
    optimiser = torch.optim.Adam(_trainable(network), config.learning_rate, betas=(0.9, 0.98))
    steps = range(config.steps)
    for step in progress(steps, config.steps, "adapting") if progress else steps:
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(step, config)
        _update(network, optimiser, stretches(observed, step, config), bodies, config, step)
    frames = sum(map(len, observed))
    adapted = Lifter(network, adapted_header(lifter, bodies, len(usable), frames, config), lifter.device, "adapted")
    seconds = time.monotonic() - started
    before, after = (_measure(one, usable, observed, bodies) for one in (lifter, adapted))
    return AdaptReport(adapted, before, after, len(usable), frames, config.steps, seconds, skipped)


def save_adapted(report: AdaptReport, path: str | Path) -> Path:
    """Writes the adapted weights as a lifter file (float16) for `Lifter.load`; OSError for an unwritable place."""
    header = report.lifter.header
    metrics = {**header.metrics, "before": report.before, "after": report.after}
    save_weights(path, report.lifter.network.state_dict(), replace(header, metrics=metrics))
    return Path(path)


def read_bodies(header: Header) -> Bodies:
    """The bone lengths of the bodies that a lifter was trained on: its header's, else those of the default lifter."""
    stated = header.metrics.get(BODIES_KEY, DEFAULT_BODIES)
    return Bodies(*(torch.tensor(stated[name], dtype=torch.float32) for name in Bodies._fields))


def adapted_header(lifter: Lifter, bodies: Bodies, clips: int, frames: int, config: AdaptConfig) -> Header:
    """The lifter's header, saying what it was adapted to and holding the bones of the bodies it was trained on."""
    seconds = frames / lifter.fps
    training = f"{lifter.header.training}; adapted to {clips} unlabelled clips ({seconds:.0f} s), {config.steps} steps"
    stated = {name: [round(value, 4) for value in values.tolist()] for name, values in bodies._asdict().items()}
    metrics = {BODIES_KEY: stated, "adapted_from": lifter.source}
    return replace(lifter.header, training=training, version=__version__, metrics=metrics)


def _observe_all(lifter: Lifter, clips: list[Clip]) -> tuple[list[Clip], list[Observed], tuple[tuple[str, str], ...]]:
    usable, observed, skipped = [], [], []
    for clip in clips:
        try:
            observed.append(observe(lifter, clip))
            usable.append(clip)
        except ValueError as error:
            skipped.append((clip.name, str(error)))
    if not usable:
        reason = f"; of the first, {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise ValueError(f"none of {len(clips)} clips can be adapted to; give footage that shows people{reason}")
    return usable, observed, tuple(skipped)


def observe(lifter: Lifter, clip: Clip) -> Observed:
    """What `Lifter.lift` shows its network of a clip, and what the network says; ValueError when no joint is seen."""
    points = clean(clip.keypoints.to(INPUT)).keypoints
    rays = camera_of(clip).rays(points.xy).astype(np.float32)
    scores = np.where(np.isfinite(rays).all(-1), points.score, 0).astype(np.float32)
    if not same_rate(points.fps, lifter.fps):
        rays, scores = resample_keypoints(rays, scores, points.fps, lifter.fps)
    if not (scores[:, :NUM_CORE] > 0).any():
        raise ValueError(f"none of its {len(points)} frames has a visible body joint; check scores and layout")
    joints, root, _ = lifter.run(rays, scores)
    return Observed(*map(torch.from_numpy, (rays, scores, joints, root)))


def stretches(observed: list[Observed], step: int, config: AdaptConfig) -> Iterator[tuple[Observed, bool]]:
    """Parts of the clips that one step sees, each with whether it is mirrored: a pure function of seed and step.

    Clips come in random order, longer ones cut at a random place, until ``config.frames`` are together; all clips are
    taken when there are fewer.
    """
    rng = np.random.default_rng([config.seed, step])
    left = config.frames
    for index in rng.permutation(len(observed)):
        clip = observed[index]
        length = min(left, len(clip))
        start = int(rng.integers(len(clip) - length + 1))
        yield clip.slice(start, start + length), bool(rng.random() < 0.5)
        left -= length
        if left <= 0:
            return


def mirrored(part: Observed) -> Observed:
    """The same stretch seen in a mirror: x negated, left and right exchanged."""
    sign = torch.tensor([-1.0, 1.0, 1.0])
    return Observed(part.rays[:, _IN_FLIP] * sign[:2], part.scores[:, _IN_FLIP], part.joints[:, _OUT_FLIP] * sign,
                    part.root * sign)  # fmt: skip


def _update(
    network: LiftNet, optimiser: torch.optim.Optimizer, parts: Iterable[tuple[Observed, bool]], bodies: Bodies,
    config: AdaptConfig, step: int,
) -> None:  # fmt: skip
    """One step on the mean over the frames of all parts; FloatingPointError, with nothing changed, when not finite."""
    parts = list(parts)
    frames = sum(len(part) for part, _ in parts)
    optimiser.zero_grad(set_to_none=True)
    for part, flip in parts:
        losses = losses_of(network, mirrored(part) if flip else part, bodies)
        total = sum(config.weights[name] * loss for name, loss in losses.items())
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss at step {step} of adapting is not finite; lower the learning rate")
        (total * len(part) / frames).backward()
    nn.utils.clip_grad_norm_(_trainable(network), config.clip)
    optimiser.step()


def losses_of(network: LiftNet, part: Observed, bodies: Bodies) -> dict[str, Tensor]:
    """The named losses of one stretch, on the network's device."""
    device = bodies.mean.device
    rays, scores, joints, root = (getattr(part, name)[None].to(device) for name in _FIELDS)
    spread = encode_rays(rays, scores)[1].spread
    return adapt_losses(network.lift(rays, scores), Sight(rays, scores, spread), Start(joints, root), bodies)


def _trainable(network: LiftNet) -> list[nn.Parameter]:
    """All but the uncertainty, which has nothing to learn from without truth."""
    return [
        parameter.requires_grad_(".sigma." not in name)
        for name, parameter in network.named_parameters()
        if ".sigma." not in name
    ]


def _learning_rate(step: int, config: AdaptConfig) -> float:
    return config.learning_rate * min(1.0, (step + 1) / config.warmup) * (1 - 0.9 * step / config.steps)


def _on(bodies: Bodies, device: str) -> Bodies:
    return Bodies(*(values.to(device) for values in bodies))


@torch.no_grad()
def _measure(lifter: Lifter, clips: list[Clip], observed: list[Observed], bodies: Bodies) -> dict[str, float]:
    """Mean of each term over the frames of all clips, and the reprojection error in pixels."""
    parts = [part for whole in observed for part in whole.cut(CHUNK)]
    rows = [losses_of(lifter.network, part, bodies) for part in parts]
    frames = [len(part) for part in parts]
    terms = {name: float(np.average([float(row[name]) for row in rows], weights=frames)) for name in rows[0]}
    pixels = [lifter.lift(clip.keypoints, camera_of(clip)).reprojection_px for clip in clips]
    return {"reprojection_px": float(np.mean(pixels)), **terms}


def camera_of(clip: Clip) -> Camera:
    """The clip's camera; without one, the camera whose focal length is the image diagonal."""
    size = clip.keypoints.image_size
    return clip.camera or Camera.from_focal(estimate_focal(size)[0], size)
