"""How a temporal model is trained: architecture, schedule, terms of the loss, machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lifting.models.temporal import TemporalConfig
from lifting.training.temporal_losses import BONE_NORMS

WIDTHS = {
    1: (1, 1, 1, 1, 1),
    3: (3, 1, 1),
    9: (3, 3, 1),
    27: (3, 3, 3),
    81: (3, 3, 3, 3),
    243: (3, 3, 3, 3, 3),
}
"""Receptive field in frames -> kernel widths: 3 and 9 keep the depth of 27, 1 is the paper's single-frame model."""
OPTIMIZERS = ("amsgrad", "adam")
DEVICES = ("cpu", "cuda", "mps")
FIRST_MOMENTUM, LAST_MOMENTUM = 0.1, 0.001
LONGEST_AVERAGE = 0.05  # share of a run that the batch norms' averages reach back
FREE = ("device", "workers", "report_every", "validation_frames")
"""Fields that may change when a run goes on: they say where it happens and what is reported, not what it gives."""


@dataclass(frozen=True)
class Terms:
    """Which terms the semi-supervised loss has beside the supervised ones.

    Attributes:
        projection: 2D error of the back-projected pose and trajectory.
        bones: difference of the mean bone lengths of labelled and unlabelled poses.
        linear_projection: back-projection ignores the lens distortion.
        bone_norm: of the difference of mean bone lengths, ``absolute`` as the released code, or ``squared``; ``each``:
            that of every frame from the labelled mean.

    Raises ValueError for another bone norm.
    """

    projection: bool = True
    bones: bool = True
    linear_projection: bool = False
    bone_norm: str = "absolute"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.bone_norm not in BONE_NORMS:
            raise ValueError(f"the bone norm is {self.bone_norm!r}, expected one of {', '.join(BONE_NORMS)}.")


@dataclass(frozen=True)
class TrainConfig:
    """The paper's recipe by default (Pavllo et al., CVPR 2019, sections 5.2 and 6.2, and the released code's options).

    Attributes:
        widths: odd kernel widths, see `WIDTHS`. channels, causal, dense, dropout: as `TemporalConfig`.
        trajectory: train a trajectory net beside the pose net; back-projection needs it.
        epochs: of the schedule. max_steps: optimiser steps in all, of which an epoch of the schedule (decay, batch
            norms, warm-up) is then an equal share, whatever the size of the data; None: an epoch is one pass.
        batch: output frames per step, of the labelled half. stride: frames predicted per sample.
        downsample: every so manieth frame is used. scores: the keypoints' confidences are input, too. flip: train on
            the mirrored clips, too.
        optimizer: ``amsgrad`` or ``adam``. learning_rate, and decay: its factor per epoch.
        warmup: epochs with only the supervised terms. terms: those of the unlabelled half.
        seed: of everything random. bfloat16: automatic mixed precision.
        device: ``cpu``, ``cuda`` or ``mps``. workers: processes that cut the batches.
        report_every: steps between two reports (metrics, validation, checkpoint); None: an epoch, but at least 200.
        validation_frames: frames that a report's validation takes at most; the last one takes all.

    Raises ValueError for values outside these meanings.
    """

    widths: tuple[int, ...] = WIDTHS[27]
    channels: int = 1024
    causal: bool = False
    dense: bool = False
    dropout: float = 0.25
    trajectory: bool = True
    epochs: int = 60
    max_steps: int | None = None
    batch: int = 1024
    stride: int = 1
    downsample: int = 1
    scores: bool = False
    flip: bool = True
    optimizer: str = "amsgrad"
    learning_rate: float = 1e-3
    decay: float = 0.95
    warmup: int = 1
    terms: Terms = Terms()
    seed: int = 0
    bfloat16: bool = False
    device: str = "cpu"
    workers: int = 1
    report_every: int | None = None
    validation_frames: int = 20_000

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "widths", tuple(self.widths))
        self.architecture(1, 1)
        self._check_counts()
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"the optimizer is {self.optimizer!r}, expected one of {', '.join(OPTIMIZERS)}.")
        if not (0 < self.learning_rate < math.inf and 0 < self.decay <= 1):
            raise ValueError(f"got a learning rate of {self.learning_rate:g} and a decay of {self.decay:g}; the rate "
                             "must be positive, its factor per epoch more than 0 and at most 1.")
        if self.batch < self.stride:
            raise ValueError(f"got batches of {self.batch} frames for samples of {self.stride}; one sample must fit.")
        if self.device.split(":")[0] not in DEVICES:
            raise ValueError(f"the device is {self.device!r}, expected one of {', '.join(DEVICES)}.")

    def _check_counts(self) -> None:
        least = {"epochs": 1, "max_steps": 1, "batch": 1, "stride": 1, "downsample": 1, "warmup": 0, "workers": 0,
                 "report_every": 1, "validation_frames": 1, "seed": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < lowest):
                raise ValueError(f"{name} is {value!r}, expected a whole number of at least {lowest}.")

    @property
    def receptive_field(self) -> int:
        """Frames that one output depends on."""
        return math.prod(self.widths)

    @property
    def strided(self) -> bool:
        """Whether the training form that computes only one output frame's needs is the one to use."""
        return self.stride == 1 and not self.dense

    def architecture(self, joints_in: int, joints_out: int) -> TemporalConfig:
        """The pose net for layouts of so many joints."""
        return TemporalConfig(joints_in, 3 if self.scores else 2, joints_out, self.widths, self.channels, self.causal,
                              self.dense, self.dropout)

    def epoch(self, step: int, steps: int) -> int:
        """The schedule's epoch at a step of so many."""
        return step * self.epochs // steps

    def norm_momentum(self, epoch: int, steps: int) -> float:
        """Momentum of the batch norms in an epoch of a run of so many steps: from 0.1 towards 0.001, as in the paper.

        A momentum m averages over about 1 / m steps. In runs of less than 20,000 steps that would be more than a
        twentieth of the run, and the averages would be of networks long gone; there it falls less far.
        """
        scheduled = FIRST_MOMENTUM * math.exp(-epoch / self.epochs * math.log(FIRST_MOMENTUM / LAST_MOMENTUM))
        return max(scheduled, min(FIRST_MOMENTUM, 1 / (LONGEST_AVERAGE * steps)))

    def rate(self, epoch: int) -> float:
        """Learning rate in an epoch."""
        return self.learning_rate * self.decay**epoch
