"""HMMR: a body for every frame from the frames around it, and past and future from a single one.

Kanazawa, Zhang, Felsen and Malik, "Learning 3D human dynamics from video", CVPR 2019: a centred encoder makes a strip
of every frame, readouts tell the body now and some frames before and after; a hallucinator makes such a strip from one
frame alone, by distillation, so that a still can be set in motion. A factorised discriminator (HMR, Kanazawa et al.,
CVPR 2018, section 3.3) tells rotations of people from rotations of networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lifting.models.strips.encoder import StripEncoder
from lifting.models.strips.readout import StripLift, StripReader


@dataclass(frozen=True)
class HmmrConfig:
    """Sizes of an `Hmmr`; fields as of `PhdConfig`. Raises ValueError for sizes below 1 and a delta of 0."""

    features: int
    joints: int
    shapes: int
    width: int = 256
    hidden: int = 256
    dropout: float = 0.0
    deltas: tuple[int, ...] = (-5, 5)

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", tuple(self.deltas))
        if min(self.features, self.joints, self.shapes, self.width, self.hidden) < 1 or 0 in self.deltas:
            raise ValueError(f"got a model with a size below 1 or a delta of 0: {self}; sizes must be positive")


class Hmmr(StripReader):
    """Encoder, readouts and hallucinator."""

    def __init__(self, features: int, joints: int, shapes: int, width: int, hidden: int, dropout: float,
                 deltas: tuple[int, ...]) -> None:  # fmt: skip
        super().__init__(width, joints, shapes, hidden, dropout, deltas)
        self.encoder = StripEncoder(features, width, causal=False, dropout=dropout)
        self.hallucinator = Hallucinator(features, width)

    def forward(self, features: Tensor) -> StripLift:
        """Bodies of the frames (N, T, F), each from up to six frames on either side."""
        return self.read(self.encoder(features))

    def hallucinate(self, features: Tensor) -> StripLift:
        """The same from every frame alone."""
        return self.read(self.hallucinator(features))


class Hallucinator(nn.Module):
    """A movie strip from one frame's features (..., F): two hidden layers and a short cut (HMMR, section 3.4)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                                    nn.Linear(width, width))  # fmt: skip
        with torch.no_grad():
            self.layers[-1].weight *= 1e-3

    def forward(self, features: Tensor) -> Tensor:
        """Strips (..., C)."""
        x = self.stem(features)
        return x + self.layers(x)


class PoseDiscriminator(nn.Module):
    """Are these the rotations of a person? One answer per joint and one for all joints together.

    Least-squares GAN: real rotations should be answered with 1, a network's with 0. The root's rotation is not looked
    at: people may face anywhere.
    """

    def __init__(self, joints: int, hidden: int = 256) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(9, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.heads = nn.Parameter(torch.randn(joints - 1, 32) / 32**0.5)
        self.bias = nn.Parameter(torch.zeros(joints - 1))
        self.whole = nn.Sequential(
            nn.Linear(32 * (joints - 1), hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1),
        )  # fmt: skip

    def forward(self, rotations: Tensor) -> Tensor:
        """Answers (..., K) for local rotations (..., K, 3, 3): of K - 1 joints, and of the whole."""
        x = self.embed(rotations[..., 1:, :, :].flatten(-2))
        return torch.cat([(x * self.heads).sum(-1) + self.bias, self.whole(x.flatten(-2))], -1)
