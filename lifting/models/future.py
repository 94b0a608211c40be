"""Predictors of future motion: what is known of the last frames in, poses and root of the next ones out.

All work in the heading frame of the last seen frame (`lifting.headings`) and say how far the future lies from that
frame's pose: a network that says nothing predicts a person who stands still. Per frame in: `FEATURES` numbers
(`lifting.datasets.future_windows`); per frame out: `OUTPUTS`, 16 joints relative to the root and the root's own way.

`DctMlp` after siMLPe (Guo et al., WACV 2023), `PoseConvolution` is the pose-space variant of PHD (Zhang et al., ICCV
2019, equation 8), `PoseGru` a residual recurrent network in the manner of Martinez et al. (CVPR 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lifting.models.strips.blocks import StripBlock

JOINTS = 16  # beside the root
OUTPUTS = 3 * JOINTS + 3
FEATURES = OUTPUTS + JOINTS
KINDS = ("dct_mlp", "gru", "pose_convolution")


@dataclass(frozen=True)
class FutureConfig:
    """A predictor of `future` frames from `context` frames.

    kind: one of `KINDS`. width: channels. layers: blocks of the network. dropout: share of channels.
    Raises ValueError for an unknown kind or sizes below 1.
    """

    kind: str = "dct_mlp"
    context: int = 25
    future: int = 25
    width: int = 256
    layers: int = 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"got the predictor {self.kind!r}, expected one of {', '.join(KINDS)}")
        if min(self.context, self.future, self.width, self.layers) < 1:
            raise ValueError(f"got a predictor with a size below 1: {self}; all sizes must be positive")


def cosine_basis(frames: int) -> Tensor:
    """Orthonormal discrete cosine transform (DCT-II) as a matrix (frames, frames): coefficients = basis @ signal."""
    k, t = torch.arange(frames)[:, None], torch.arange(frames)
    basis = torch.cos(math.pi * (2 * t + 1) * k / (2 * frames)) * math.sqrt(2 / frames)
    basis[0] /= math.sqrt(2)
    return basis


class DctMlp(nn.Module):
    """The whole future in one shot: blocks that mix coefficients over time, each joint coordinate alike.

    siMLPe: DCT, a linear layer over channels, blocks of one linear layer over time with a layer norm over channels and
    a residual, a linear layer, inverse DCT. With a non-linear layer over channels in every block.
    """

    def __init__(self, context: int, future: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("into", cosine_basis(context), persistent=False)
        self.register_buffer("back", cosine_basis(future).T.contiguous(), persistent=False)
        self.stem = nn.Linear(FEATURES, width)
        self.blocks = nn.ModuleList([_TimeMix(context, width, dropout) for _ in range(layers)])
        self.resize = nn.Linear(context, future)
        self.head = nn.Linear(width, OUTPUTS)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, context: Tensor) -> Tensor:
        """Context (N, Tc, FEATURES) to the future (N, Tf, OUTPUTS), relative to the last seen pose."""
        x = self.stem(self.into @ context)
        for block in self.blocks:
            x = block(x)
        x = self.resize(x.transpose(1, 2)).transpose(1, 2)
        return self.back @ self.head(x)


class _TimeMix(nn.Module):
    """A linear layer over time and one over channels, each with a layer norm and a residual."""

    def __init__(self, frames: int, width: int, dropout: float) -> None:
        super().__init__()
        self.time, self.time_norm = nn.Linear(frames, frames), nn.LayerNorm(width)
        self.channels, self.channel_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, C)."""
        x = x + self.time(self.time_norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.drop(functional.gelu(self.channels(self.channel_norm(x))))


class PoseGru(nn.Module):
    """Frame after frame with a recurrent network, which sees its own predictions as if they had been seen.

    Each frame says by how much pose and root change from the one before.
    """

    def __init__(self, context: int, future: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.future = future
        self.stem = nn.Linear(FEATURES, width)
        self.gru = nn.GRU(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.head = nn.Linear(width, OUTPUTS)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, context: Tensor, truth: Tensor | None = None, own: float = 1.0) -> Tensor:
        """Context (N, Tc, FEATURES) to the future (N, Tf, OUTPUTS), relative to the last seen pose.

        truth: (N, Tf, OUTPUTS), relative to the last seen pose, for scheduled sampling (Bengio et al. 2015): each frame
        is followed up with the network's `own` prediction with that probability, else with the truth.
        """
        x, state = self.gru(functional.gelu(self.stem(context)))
        last, x, place, frames = context[:, -1], x[:, -1], torch.zeros_like(context[:, -1, :OUTPUTS]), []
        for k in range(self.future):
            place = place + self.head(x)
            frames.append(place)
            if truth is not None and own < 1:
                place = torch.where(torch.rand(len(place), 1, device=place.device) < own, place, truth[:, k])
            following = torch.cat([last[:, :OUTPUTS] + place, last[:, OUTPUTS:]], -1)
            x, state = self.gru(functional.gelu(self.stem(following))[:, None], state)
            x = x[:, 0]
        return torch.stack(frames, 1)


class PoseConvolution(nn.Module):
    """Frame after frame with causal convolutions over the last poses, seen or predicted."""

    def __init__(self, context: int, future: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.future = future
        self.stem = nn.Linear(FEATURES, width)
        self.blocks = nn.ModuleList([StripBlock(width, True, dropout) for _ in range(layers)])
        self.head = nn.Linear(width, OUTPUTS)
        self.window = 1 + 4 * layers  # frames that one output depends on
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, context: Tensor, truth: Tensor | None = None, own: float = 1.0) -> Tensor:
        """As `PoseGru.forward`."""
        last, seen, frames = context[:, -1], context[:, -self.window :], []
        place = torch.zeros_like(last[:, :OUTPUTS])
        for k in range(self.future):
            x = self.stem(seen)
            for block in self.blocks:
                x = block(x)
            place = place + self.head(x[:, -1])
            frames.append(place)
            if truth is not None and own < 1:
                place = torch.where(torch.rand(len(place), 1, device=place.device) < own, place, truth[:, k])
            following = torch.cat([last[:, :OUTPUTS] + place, last[:, OUTPUTS:]], -1)
            seen = torch.cat([seen, following[:, None]], 1)[:, -self.window :]
        return torch.stack(frames, 1)


def build_future(config: FutureConfig) -> nn.Module:
    """A freshly initialised predictor."""
    made = {"dct_mlp": DctMlp, "gru": PoseGru, "pose_convolution": PoseConvolution}[config.kind]
    return made(config.context, config.future, config.width, config.layers, config.dropout)
