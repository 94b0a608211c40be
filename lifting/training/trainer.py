"""Training of the temporal model, supervised or semi-supervised, from clips to a weight file.

Everything that a step sees follows from (seed, step): the samples of both halves, the dropout, the schedule. So a run
that was stopped goes on as if it had not been, on any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lifting.datasets.clips import ClipSet
from lifting.datasets.loader import prefetch
from lifting.datasets.windows import Batch, WindowConfig, Windows
from lifting.files import check_writable
from lifting.models.temporal_file import TemporalWeights, describe_temporal, write_temporal
from lifting.skeletons import SkeletonMismatch
from lifting.training.config import FREE, TrainConfig
from lifting.training.curves import plot_curves
from lifting.training.distributed import process_group, rank, wait_for_all, world
from lifting.training.loop import LoopConfig, Run, fit
from lifting.training.metrics_log import METRICS
from lifting.training.networks import ClipCameras, Networks, Trainee
from lifting.training.snapshots import remove_snapshots
from lifting.training.steps import Labelled, Layouts, Unlabelled, semi_step, supervised_step
from lifting.training.validation import validate

WEIGHTS, CURVES = "weights.safetensors", "curves.png"
SHORTEST_REPORT = 200  # steps between reports at least, where an epoch is shorter
Ranges = Mapping[int, tuple[int, int]]


def train(
    config: TrainConfig,
    labelled: ClipSet,
    unlabelled: ClipSet | None = None,
    validation: ClipSet | None = None,
    folder: str | Path = "runs/train",
    *,
    ranges: Ranges | None = None,
    unlabelled_ranges: Ranges | None = None,
    start: TemporalWeights | None = None,
    resume: bool = True,
) -> Path:
    """Trains and returns the path of the weights; also leaves ``metrics.jsonl``, ``curves.png`` and checkpoints.

    Args:
        config: how.
        labelled: clips with motions.
        unlabelled: clips whose motions are not looked at; None, or neither projection nor bones among the terms:
            supervised training.
        validation: clips with motions to report errors of, at intervals and at the end.
        folder: where everything goes.
        ranges, unlabelled_ranges: frames to use, index of a clip -> (start, stop); None: all.
        start: weights to begin from.
        resume: go on where a run in the folder stopped; otherwise start again and forget that one.

    Raises ValueError for data, weights or a checkpoint that do not fit and a device that is not there;
    FloatingPointError, naming the step, when a loss is not finite (the last checkpoint is kept); KeyboardInterrupt
    after Ctrl-C, once a checkpoint is written; OSError when the place cannot be written or is full.
    """
    check_device(config.device)
    with process_group(config.device):
        trainer = Trainer(config, labelled, unlabelled, folder, ranges, unlabelled_ranges, start)
        if resume:
            trainer.run.resume()
        elif rank() == 0:
            remove_snapshots(trainer.run.folder)
        trainer.fit(validation)
        return trainer.finish(validation)


def check_device(device: str) -> None:
    """Raises ValueError for a device that this machine or this build of torch lacks."""
    kind = torch.device(device).type
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(kind, lambda: True)
    if not there():
        raise ValueError(f"the device is {device}, but torch {torch.__version__} finds none here; use --device cpu, or "
                         f"install a torch that supports {kind}.")


class Trainer:
    """One training: its networks and data, and the run that changes."""

    def __init__(
        self, config: TrainConfig, labelled: ClipSet, unlabelled: ClipSet | None, folder: str | Path,
        ranges: Ranges | None = None, unlabelled_ranges: Ranges | None = None, start: TemporalWeights | None = None,
    ) -> None:  # fmt: skip
        used = config.terms.projection or config.terms.bones
        self.config, self.clips, self.others = config, labelled, unlabelled if used else None
        self._check_data()
        torch.manual_seed(config.seed)
        architecture = config.architecture(labelled.skeleton_in.num_joints, labelled.skeleton_out.num_joints)
        networks = Networks(architecture, config.trajectory, config.strided)
        if start is not None:
            _take_weights(networks, start, labelled)
        self.fps = _shared_fps(labelled, self.others) / config.downsample
        self.trainee = Trainee(networks, None if self.others is None else ClipCameras(self.others.infos))
        self.labelled = Windows(labelled, self._cut(0), ranges)
        self.unlabelled = None if self.others is None else Windows(self.others, self._cut(1), unlabelled_ranges)
        self.steps = config.max_steps or config.epochs * self.labelled.steps_per_epoch
        self.layouts = None if self.others is None else Layouts.of(labelled.skeleton_out, labelled.skeleton_in)
        self.warm_steps = min(self.steps, math.ceil(config.warmup * self.steps / config.epochs))
        self.describe({})  # what cannot be saved should not be trained
        self.trainee.to(config.device)
        self._lift = self.trainee.wrapped()
        self.run = self._run(Path(folder))

    def _check_data(self) -> None:
        labelled, unlabelled, terms = self.clips, self.others, self.config.terms
        if labelled.skeleton_out is None:
            raise ValueError(f"no clip of {labelled.name} has a motion to learn from; give labelled clips.")
        if self.config.trajectory and labelled.read(0, 0, 1).motion.trajectory is None:
            raise ValueError(f"{labelled.name} does not say where the person is, which the trajectory net would learn; "
                             "train without it.")
        if unlabelled is None:
            return
        if unlabelled.skeleton_in != labelled.skeleton_in:
            raise SkeletonMismatch(f"the labelled keypoints are in the layout {labelled.skeleton_in.name}, the "
                                   f"unlabelled in {unlabelled.skeleton_in.name}; map them to the same one first.")
        if terms.projection and not self.config.trajectory:
            raise ValueError("back-projection needs to know where the person is, but no trajectory net is trained; "
                             "train one, or train without projection.")

    def _cut(self, stream: int) -> WindowConfig:
        """How batches are cut; both streams have a random order of their own."""
        config = self.config
        around = config.receptive_field - 1
        before, after = (around, 0) if config.causal else (around // 2, around // 2)
        return WindowConfig(before, after, config.stride, config.batch, config.downsample, config.flip,
                            2 * config.seed + stream, config.scores)

    def _run(self, folder: Path) -> Run:
        config = self.config
        every = min(self.steps, config.report_every or max(SHORTEST_REPORT, self.labelled.steps_per_epoch))
        loop = LoopConfig(self.steps, clip=math.inf, average=None, checkpoint_every=every, bfloat16=config.bfloat16,
                          device=config.device)
        optimiser = torch.optim.Adam(self.trainee.parameters(), config.learning_rate,
                                     amsgrad=config.optimizer == "amsgrad")
        check_writable(folder / METRICS)
        return Run(self.trainee, loop, folder, optimiser=optimiser, schedule=self._follow, settings=self._settings())

    def _settings(self) -> dict:
        """What a resumed run must share."""
        options = asdict(self.config)
        options |= options.pop("terms")
        options = {name: list(value) if isinstance(value, tuple) else value
                   for name, value in options.items() if name not in FREE}
        return options | {"data": _words(self.clips, self.labelled),
                          "unlabelled data": self.others and _words(self.others, self.unlabelled)}

    def _follow(self, run: Run) -> None:
        """The schedule: rate and momentum of the batch norms by the epoch of the run's step."""
        epoch = self.config.epoch(min(run.step, self.steps - 1), self.steps)
        run.set_learning_rate(self.config.rate(epoch))
        self.trainee.networks.set_norm_momentum(self.config.norm_momentum(epoch, self.steps))

    def fit(self, validation: ClipSet | None = None) -> None:
        """Trains from where the run stands to its end."""
        weights = dict.fromkeys(("pose", "trajectory", "projection", "bones"), 1.0)
        report = None if validation is None else lambda _: self.validate(validation, self.config.validation_frames)
        with closing(self._batches()) as batches:
            fit(self.run, batches, self._losses, weights, report)

    def _batches(self) -> Iterator[tuple[Batch, Batch | None]]:
        """What is left of both streams, side by side; in warm-up steps the unlabelled one is not read."""
        first, options = self.run.step, dict(workers=self.config.workers, rank=rank(), world=world(),
                                             device=self.config.device)
        warm = self.steps if self.unlabelled is None else self.warm_steps
        labelled = prefetch(self.labelled, range(first, self.steps), **options)
        others = prefetch(self.unlabelled, range(max(first, warm), self.steps), **options)
        with closing(labelled), closing(others):
            for step, batch in enumerate(labelled, first):
                yield batch, None if step < warm else next(others)

    def _losses(self, _: nn.Module, batches: tuple[Batch, Batch | None]) -> dict[str, Tensor]:
        """Named losses of the run's step."""
        torch.manual_seed(_seed(self.config.seed, self.run.step, rank()))
        batch, other = (half and half.map(self._as_parameters) for half in batches)
        labelled = Labelled(batch.keypoints, batch.joints, batch.root, batch.valid)
        if other is None:
            return supervised_step(self._lift, labelled)
        cameras = self.trainee.cameras(other.clips, other.intrinsics)
        unlabelled = Unlabelled(other.keypoints, other.pixels, other.image_size[:, 0], cameras, other.valid)
        return semi_step(self._lift, labelled, unlabelled, self.config.terms, self.layouts)

    def _as_parameters(self, values: Tensor) -> Tensor:
        """In the parameters' precision."""
        return values.to(self.trainee.networks.pose.shrink.weight.dtype) if values.is_floating_point() else values

    def validate(self, clips: ClipSet, frames: int | None = None) -> dict[str, float]:
        """Errors in mm of the networks as they are; frames: about so many, None for all."""
        config = self.config
        errors = validate(self.trainee.networks, clips, downsample=config.downsample, scores=config.scores,
                          frames=frames)
        return {f"validation_{name}": value for name, value in errors.items()}

    def describe(self, metrics: dict) -> TemporalWeights:
        """The networks with their header."""
        clips, networks, data = self.clips, self.trainee.networks, _words(self.clips, self.labelled)
        if self.others is not None:
            data += f", unlabelled {_words(self.others, self.unlabelled)}"
        return describe_temporal(
            networks.pose, networks.trajectory, skeleton_in=clips.skeleton_in, skeleton_out=clips.skeleton_out,
            fps=self.fps, training=f"{data}; {self.steps} steps", licence=f"as the training data's: {clips.name}",
            metrics=metrics)

    def finish(self, validation: ClipSet | None) -> Path:
        """Writes weights and curves on rank 0, after a validation on all frames; returns the weights' path."""
        folder = self.run.folder
        if rank() == 0:
            errors = {} if validation is None else self.validate(validation)
            metrics = {name.removeprefix("validation_"): value for name, value in errors.items()}
            write_temporal(folder / WEIGHTS, self.describe(metrics))
            plot_curves(folder, folder / CURVES)
        wait_for_all()
        return folder / WEIGHTS


def _words(clips: ClipSet, windows: Windows) -> str:
    """A data set in words that change with what is used of it."""
    return f"{clips.name} ({len({info.subject for info in clips.infos})} subjects, {windows.samples} samples)"


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _shared_fps(*sets: ClipSet | None) -> float:
    rates = sorted({info.fps for clips in sets if clips is not None for info in clips.infos})
    if rates[-1] > 1.01 * rates[0]:
        raise ValueError(f"the clips have from {rates[0]:g} to {rates[-1]:g} frames per second, expected one rate for "
                         "all; resample them first.")
    return rates[0]


def _take_weights(networks: Networks, start: TemporalWeights, clips: ClipSet) -> None:
    """Begins from other weights of the same architecture and layouts; ValueError naming the difference."""
    theirs, ours = (asdict(net.config) for net in (start.pose, networks.pose))
    if differing := [name for name in ours if theirs[name] != ours[name] and name != "dropout"]:
        has, expected = (", ".join(f"{name} {values[name]}" for name in differing) for values in (theirs, ours))
        raise ValueError(f"the weights to begin from have {has}, expected {expected}; give the options that they were "
                         "trained with.")
    for what, theirs, ours in (("keypoints", start.skeleton_in, clips.skeleton_in),
                               ("joints", start.skeleton_out, clips.skeleton_out)):
        if theirs != ours:
            raise SkeletonMismatch(f"the weights to begin from have {what} in the layout {theirs.name}, the data in "
                                   f"{ours.name}; use data in that layout.")
    networks.pose.load_state_dict(start.pose.state_dict())
    if networks.trajectory is not None and start.trajectory is not None:
        networks.trajectory.load_state_dict(start.trajectory.state_dict())
