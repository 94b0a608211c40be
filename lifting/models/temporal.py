"""The reference lifter: dilated temporal convolutions from 2D keypoints to 3D joints, or to the root's trajectory.

Pavllo, Feichtenhofer, Grangier and Auli, "3D human pose estimation in video with temporal convolutions and
semi-supervised training", CVPR 2019, section 3 (architecture), section 4 (trajectory model) and appendix A (training
form).

Sequences are (N, T, J, C): batch, frames, joints, channels. All convolutions are valid: T frames in give
T - receptive_field + 1 frames out; `lift_sequence` repeats the edge frames and gives T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from lifting.models import full_sequence, strided


@dataclass(frozen=True)
class TemporalConfig:
    """Architecture of a `TemporalModel`.

    widths: odd kernel widths, the first of the expanding convolution, one more per residual block; their product is
    the receptive field in frames. causal: see no later frame. dense: the paper's ablation, every dilated convolution
    replaced by a dense one of the same reach. dropout: probability. Raises ValueError for values outside these
    meanings.
    """

    joints_in: int = 17
    features_in: int = 2
    joints_out: int = 17
    widths: tuple[int, ...] = (3, 3, 3)
    channels: int = 1024
    causal: bool = False
    dense: bool = False
    dropout: float = 0.25

    def __post_init__(self):
        """Check the values; JSON's lists become tuples."""
        object.__setattr__(self, "widths", tuple(self.widths))
        for name in ("joints_in", "features_in", "joints_out", "channels"):
            size = getattr(self, name)
            if not (isinstance(size, int) and size > 0):
                raise ValueError(f"{name} is {size!r}, expected a positive whole number; correct the configuration.")
        if not self.widths or any(not isinstance(width, int) or width < 1 or width % 2 == 0 for width in self.widths):
            raise ValueError(f"widths is {self.widths}, expected one or more odd numbers like (3, 3, 3); correct them.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, expected 0 or more and less than 1; 0.25 is the paper's.")

    @property
    def receptive_field(self) -> int:
        """Frames that one output depends on."""
        return math.prod(self.widths)


def trajectory_config(config: TemporalConfig) -> TemporalConfig:
    """Return the configuration of the trajectory net beside a pose net: the same, with the root as its only output."""
    return replace(config, joints_out=1)


def build_temporal(config: TemporalConfig) -> TemporalModel:
    """Build the freshly initialised model that `config` describes."""
    return TemporalModel(config.joints_in, config.features_in, config.joints_out, config.widths, config.channels,
                         causal=config.causal, dense=config.dense, dropout=config.dropout)


class DilatedBlock(nn.Module):
    """One residual block: a temporal convolution, `width` taps `dilation` frames apart, then one over channels only."""

    def __init__(self, channels: int, width: int, dilation: int, *, causal: bool, dense: bool, dropout: float):
        """Make the layers; `channels` in and out."""
        super().__init__()
        self.width, self.causal = width, causal
        self.kept_tap = width - 1 if causal else width // 2  # in the strided form
        self.reach = (width - 1) * dilation
        taps, spacing = (self.reach + 1, 1) if dense else (width, dilation)
        self.time_conv = nn.Conv1d(channels, channels, taps, dilation=spacing, bias=False)
        self.time_norm = nn.BatchNorm1d(channels)
        self.mix_conv = nn.Conv1d(channels, channels, 1, bias=False)
        self.mix_norm = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, T) to (N, channels, T - reach)."""
        before = self.reach if self.causal else self.reach // 2
        kept = x[:, :, before : x.shape[2] - self.reach + before]
        return kept + self._mix(self.time_conv(x))

    def forward_strided(self, x: Tensor) -> Tensor:
        """Map (N, channels, T), frames `dilation` apart, to (N, channels, T / width): what one last output needs."""
        kept = x[:, :, self.kept_tap :: self.width]
        return kept + self._mix(functional.conv1d(x, self.time_conv.weight, stride=self.width))

    def _mix(self, x: Tensor) -> Tensor:
        x = self.dropout(functional.relu(self.time_norm(x)))
        return self.dropout(functional.relu(self.mix_norm(self.mix_conv(x))))


class TemporalModel(nn.Module):
    """The paper's network as pose net (joints_out joints relative to the root) or trajectory net (joints_out = 1).

    Arguments as `TemporalConfig`. An output frame belongs to the middle input frame of its receptive field, with
    ``causal=True`` to the last. Raises ValueError as `TemporalConfig`.
    """

    def __init__(self, joints_in: int, features_in: int, joints_out: int, widths: tuple[int, ...] = (3, 3, 3),
                 channels: int = 1024, *, causal: bool = False, dense: bool = False, dropout: float = 0.25):
        """Make the layers, initialised as PyTorch does."""
        super().__init__()
        self.config = TemporalConfig(joints_in, features_in, joints_out, widths, channels, causal, dense, dropout)
        widths = self.config.widths
        self.expand_conv = nn.Conv1d(joints_in * features_in, channels, widths[0], bias=False)
        self.expand_norm = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            DilatedBlock(channels, width, math.prod(widths[:index]), causal=causal, dense=dense, dropout=dropout)
            for index, width in enumerate(widths) if index > 0)
        self.shrink = nn.Conv1d(channels, joints_out * 3, 1)

    @property
    def receptive_field(self) -> int:
        """Frames that one output depends on."""
        return self.config.receptive_field

    @property
    def padding(self) -> tuple[int, int]:
        """Frames to repeat before the first and after the last, so that every input frame gets its output."""
        around = self.receptive_field - 1
        return (around, 0) if self.config.causal else (around // 2, around // 2)

    @property
    def causal_shift(self) -> int:
        """Frames by which a causal model's window is shifted into the past: half its reach (40 for 3,3,3,3), else 0.

        Counts every width's dilation once; multiplying twice gives 820 here, a known slip of other code.
        """
        return (self.receptive_field - 1) // 2 if self.config.causal else 0

    def set_norm_momentum(self, momentum: float) -> None:
        """Set the momentum of every batch norm; the paper lets it decay from 0.1 to 0.001 in training.

        Raises ValueError unless 0 < momentum <= 1.
        """
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum is {momentum}, expected more than 0 and at most 1; the paper starts at 0.1.")
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = momentum

    def forward(self, x: Tensor) -> Tensor:
        """Lift (N, T, joints_in, features_in) to (N, T - receptive_field + 1, joints_out, 3) metres.

        Raises ValueError for other shapes and for T < receptive_field.
        """
        x = self._expand_input(x)
        x = self.dropout(functional.relu(self.expand_norm(self.expand_conv(x))))
        for block in self.blocks:
            x = block(x)
        return self._shrink_output(x)

    def forward_strided(self, x: Tensor) -> Tensor:
        """Lift (N, receptive_field, joints_in, features_in) to the one frame (N, 1, joints_out, 3): the training form.

        The same parameters as `forward`, and in eval mode the same result; strides skip the hidden frames that the one
        output does not need. In training mode batch norm sees only the frames that are computed, as in the paper.
        Raises ValueError for other shapes and for a dense model, which needs every frame.
        """
        if self.config.dense:
            raise ValueError("The model is dense, expected a dilated one for strides; call forward.")
        if x.ndim == 4 and x.shape[1] != self.receptive_field:
            raise ValueError(f"The input has {x.shape[1]} frames, expected {self.receptive_field}, the receptive "
                             "field, for the strided form; cut windows of that length.")
        x = self._expand_input(x)
        if strided.supports(self, x):
            return self._shrink_output(strided.lift_windows(self, x.transpose(1, 2))[:, :, None])
        x = functional.conv1d(x, self.expand_conv.weight, stride=self.config.widths[0])
        x = self.dropout(functional.relu(self.expand_norm(x)))
        for block in self.blocks:
            x = block.forward_strided(x)
        return self._shrink_output(x)

    def check_input(self, x: Tensor) -> None:
        """Raise ValueError unless x is (N, T, joints_in, features_in) with T >= receptive_field."""
        expected = (self.config.joints_in, self.config.features_in)
        if x.ndim != 4 or x.shape[2:] != expected:
            raise ValueError(f"The input has shape {tuple(x.shape)}, expected (N, T, {expected[0]}, {expected[1]}); "
                             "map the keypoints to the model's layout first.")
        if x.shape[1] < self.receptive_field:
            raise ValueError(f"The input has {x.shape[1]} frames, expected {self.receptive_field} or more; use "
                             "lift_sequence, which repeats the edge frames.")

    def _expand_input(self, x: Tensor) -> Tensor:
        """Check (N, T, J, C) and return it as (N, J * C, T)."""
        self.check_input(x)
        return x.flatten(2).transpose(1, 2)

    def _shrink_output(self, x: Tensor) -> Tensor:
        """Return (N, channels, T) as (N, T, joints_out, 3), without autocast: bfloat16 has steps of 2 cm at 4 m."""
        if x.is_meta:  # has no autocast
            return self.shrink(x).transpose(1, 2).unflatten(2, (self.config.joints_out, 3))
        with torch.autocast(x.device.type, enabled=False):
            x = self.shrink(x.to(self.shrink.weight.dtype))
        return x.transpose(1, 2).unflatten(2, (self.config.joints_out, 3))


def lift_sequence(model: TemporalModel, x: Tensor, block_frames: int = 4096, *, exact: bool = False) -> Tensor:
    """Lift whole sequences (N, T, J_in, C_in), T >= 1, to (N, T, J_out, 3), the edge frames repeated as in the paper.

    Works through `block_frames` output frames at a time, so that the hidden layers' memory does not grow with T; a
    model in eval mode gives the same numbers for any block size, up to rounding. Wide nets take products of bfloat16
    where the CPU has them, which moves joints by a fraction of a millimetre (`lifting.models.full_sequence`); not with
    ``exact``. No gradient is kept: it is for inference. Raises ValueError for an empty sequence, another shape, a model
    in training mode or block_frames < 1.
    """
    if x.ndim != 4 or x.shape[1] < 1:
        raise ValueError(f"The sequences have shape {tuple(x.shape)}, expected (N, T, J, C), T >= 1; pass some frames.")
    if model.training:
        raise ValueError("The model is in training mode, expected eval mode for inference; call model.eval() first.")
    if block_frames < 1:
        raise ValueError(f"block_frames is {block_frames}, expected 1 or more; 4096 is the default.")
    fast = not exact and full_sequence.pays(model, x)
    lift = full_sequence.FoldedModel(model) if fast else model
    before, after = model.padding
    frames, outputs = x.shape[1], []
    with torch.no_grad():
        for start in range(0, frames, block_frames):
            stop = min(start + block_frames, frames)
            window = torch.arange(start - before, stop + after, device=x.device).clamp(0, frames - 1)
            outputs.append(lift(x[:, window]))
    return torch.cat(outputs, dim=1)
