"""Predictors of future motion: what is known of the last frames in, poses and root of the next ones out.

All work in the heading frame of the last seen frame (`lifting.headings`) and say how far the future lies from that
frame's pose: a network that says nothing predicts a person who stands still. Per frame in: `FEATURES` numbers
(`lifting.datasets.future_windows`); per frame out: `OUTPUTS`, 16 joints relative to the root and the root's own way,
and the logarithm of `SIGMAS` radii in metres that hold 68 % of the errors, the root's first. What is said of the errors
teaches the rest of a network nothing.

`DctMlp` after siMLPe (Guo et al., WACV 2023), `PoseConvolution` is the pose-space variant of PHD (Zhang et al., ICCV
2019, equation 8), `PoseGru` a residual recurrent network in the manner of Martinez et al. (CVPR 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lifting.datasets.future_windows import FEATURES, H36M, JOINTS, OUTPUTS
from lifting.models.strips.blocks import StripBlock

SIGMAS = JOINTS + 1
KINDS = ("dct_mlp", "gru", "pose_convolution")
SPEED = 25.0  # metres per frame to metres per second, of the size of the poses


@dataclass(frozen=True)
class FutureConfig:
    """A predictor of `future` frames from `context` frames.

    kind: one of `KINDS`. width: channels. layers: blocks of the network. dropout: share of channels.
    Raises ValueError for an unknown kind or sizes below 1.
    """

    kind: str = "dct_mlp"
    context: int = 25
    future: int = 25
    width: int = 128
    layers: int = 4
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


class Heads(nn.Module):
    """Channels (..., C) to outputs (..., OUTPUTS), at first zero, and log sigma (..., SIGMAS), at first that of 10 cm.

    The errors are learned on top of what the poses need, without a gradient into it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.values, self.doubt = nn.Linear(width, OUTPUTS), nn.Linear(width, width // 2)
        self.log_sigma = nn.Linear(width // 2, SIGMAS)
        for layer in (self.values, self.log_sigma):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (..., C)."""
        doubt = functional.gelu(self.doubt(x.detach()))
        return self.values(x).float(), self.log_sigma(doubt).float() + math.log(0.1)


class DctMlp(nn.Module):
    """The whole future in one shot: blocks that mix coefficients over time, each joint coordinate alike.

    siMLPe: DCT, a linear layer over channels, blocks of one linear layer over time with a layer norm over channels and
    a residual, a linear layer, inverse DCT. With a non-linear layer over channels in every block. Time comes first
    inside, so that both kinds of layers are single matrix products.
    """

    def __init__(self, context: int, future: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("into", cosine_basis(context), persistent=False)
        self.register_buffer("back", cosine_basis(future).T.contiguous(), persistent=False)
        self.stem = nn.Linear(FEATURES + 2 * OUTPUTS, width)
        self.blocks = nn.ModuleList([_TimeMix(context, width, dropout) for _ in range(layers)])
        self.resize = nn.Linear(context, future)
        self.heads = Heads(width)

    def forward(self, context: Tensor, truth: Tensor | None = None, own: float = 1.0) -> tuple[Tensor, Tensor]:
        """Context (N, Tc, FEATURES) to the future (N, Tf, OUTPUTS), relative to the last seen pose, and log sigma.

        log sigma: (N, Tf, SIGMAS). truth and own are for predictors that follow up their own frames.
        """
        way = context[..., :OUTPUTS] - context[:, -1:, :OUTPUTS]
        inputs = torch.cat([context, SPEED / 5 * way, _speeds(context)], -1)
        x = self.stem((self.into @ inputs).transpose(0, 1))
        for block in self.blocks:
            x = block(x)
        x = _over_time(x, self.back @ self.resize.weight, self.back @ self.resize.bias)
        values, log_sigma = self.heads(x)
        return values.transpose(0, 1), log_sigma.transpose(0, 1)


def _speeds(context: Tensor) -> Tensor:
    """How poses and root (N, T, OUTPUTS) change from the frame before to each frame, metres per second."""
    points = context[..., :OUTPUTS]
    return SPEED * torch.cat([torch.zeros_like(points[:, :1]), points.diff(dim=1)], 1)


def _over_time(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer over the first axis of x (T, N, C): weight (K, T), bias (K,)."""
    return torch.addmm(bias[:, None], weight, x.flatten(1)).unflatten(1, x.shape[1:])


class _TimeMix(nn.Module):
    """A linear layer over time and one over channels, each with a layer norm and a residual."""

    def __init__(self, frames: int, width: int, dropout: float) -> None:
        super().__init__()
        self.time, self.time_norm = nn.Linear(frames, frames), nn.LayerNorm(width)
        self.channels, self.channel_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (T, N, C). Channels are dropped at all times at once."""
        x = x + _over_time(self.time_norm(x), self.time.weight, self.time.bias)
        mixed = functional.gelu(self.channels(self.channel_norm(x)))
        return x + mixed * self.drop(torch.ones_like(mixed[:1]))


class _FrameAfterFrame(nn.Module):
    """A network that says by how much pose and root change in the next frame, and goes on from what it said.

    A subclass has `read`: inputs (N, FEATURES) of one frame, the change from the frame before (N, OUTPUTS) in metres
    per second and its state, or None at first, to channels (N, C) and the new state.
    """

    def __init__(self, future: int, width: int) -> None:
        super().__init__()
        self.future, self.heads = future, Heads(width)

    def forward(self, context: Tensor, truth: Tensor | None = None, own: float = 1.0) -> tuple[Tensor, Tensor]:
        """As `DctMlp.forward`.

        truth: (N, Tf, OUTPUTS), relative to the last seen pose, for scheduled sampling (Bengio et al., NeurIPS 2015):
        each frame is followed up with the network's `own` prediction with that probability, else with the truth.
        """
        speeds, state = _speeds(context), None
        for k in range(context.shape[1]):
            x, state = self.read(context[:, k], speeds[:, k], state)
        last, place, said = context[:, -1], torch.zeros_like(context[:, 0, :OUTPUTS]), []
        for k in range(self.future):
            before, (step, log_sigma) = place, self.heads(x)
            place = place + step
            said.append((place, log_sigma))
            if truth is not None and own < 1:
                place = torch.where(torch.rand(len(place), 1, device=place.device) < own, place, truth[:, k])
            following = torch.cat([last[:, :OUTPUTS] + place, last[:, OUTPUTS:]], -1)
            x, state = self.read(following, SPEED * (place - before), state)
        return tuple(torch.stack(parts, 1) for parts in zip(*said, strict=True))


class PoseGru(_FrameAfterFrame):
    """Frame after frame with gated recurrent units, which see poses and speeds."""

    def __init__(self, context: int, future: int, width: int, layers: int, dropout: float) -> None:
        super().__init__(future, width)
        self.stem = nn.Linear(FEATURES + OUTPUTS, width)
        self.cells = nn.ModuleList([nn.GRUCell(width, width) for _ in range(layers)])
        self.drop = nn.Dropout(dropout)

    def read(self, inputs: Tensor, change: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """The channels of the last layer."""
        x, after = self.drop(functional.gelu(self.stem(torch.cat([inputs, change], -1)))), []
        for number, cell in enumerate(self.cells):
            x = cell(x, None if state is None else state[number])
            after.append(x)
        return x, after


class PoseConvolution(_FrameAfterFrame):
    """Frame after frame with causal convolutions over the last poses, seen or predicted."""

    def __init__(self, context: int, future: int, width: int, layers: int, dropout: float) -> None:
        super().__init__(future, width)
        self.stem = nn.Linear(FEATURES, width)
        self.blocks = nn.ModuleList([StripBlock(width, True, dropout) for _ in range(layers)])

    def read(self, inputs: Tensor, change: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """The channels of the last block; PHD's network sees poses alone."""
        x, after = self.stem(inputs), []
        for number, block in enumerate(self.blocks):
            x, kept = block.step(x, None if state is None else state[number])
            after.append(kept)
        return x, after


class WithMirrorImage(nn.Module):
    """The mean of what a network says of a past and, mirrored back, of the past's mirror image: errors less by chance.

    Makes the forecast of a mirror image the mirror image of the forecast.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        joints = np.arange(3 * JOINTS).reshape(JOINTS, 3)[np.array(H36M.flip)[1:] - 1].ravel()
        sign = np.tile([-1.0, 1.0, 1.0], JOINTS + 1)
        self._order = torch.from_numpy(np.concatenate([joints, np.arange(3 * JOINTS, OUTPUTS)]))
        self._sign = torch.from_numpy(sign.astype(np.float32))
        self._flip = torch.tensor(H36M.flip)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """As the network's own."""
        points, doubt = context[..., :OUTPUTS], context[..., OUTPUTS:]
        image = torch.cat([self._mirror(points), doubt[..., self._flip[1:] - 1]], -1)
        (values, other), (log_sigma, other_sigma) = (v.chunk(2) for v in self.network(torch.cat([context, image])))
        return (values + self._mirror(other)) / 2, (log_sigma + other_sigma[..., self._flip]) / 2

    def _mirror(self, points: Tensor) -> Tensor:
        return points[..., self._order] * self._sign


def build_future(config: FutureConfig) -> nn.Module:
    """A freshly initialised predictor."""
    made = {"dct_mlp": DctMlp, "gru": PoseGru, "pose_convolution": PoseConvolution}[config.kind]
    return made(config.context, config.future, config.width, config.layers, config.dropout)
