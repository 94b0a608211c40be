"""PHD: the future of a body, told frame after frame in the latent space of movie strips.

Zhang, Felsen, Kanazawa and Malik, "Predicting 3D human dynamics from video", ICCV 2019: a causal encoder makes a strip
of every frame (f_movie), a readout makes a body of every strip (f_3D), and an autoregressive predictor of the encoder's
shape makes the next strip from those before it (f_AR). Here the frames are lifted keypoints, not images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from lifting.models.strips.encoder import StripEncoder
from lifting.models.strips.readout import BodyReadout, BodyState, DeltaReadout


@dataclass(frozen=True)
class PhdConfig:
    """Sizes of a `Phd`.

    features: numbers per frame. joints, shapes: of the body. deltas: frames from the present whose pose is told, too:
    a causal strip can only know the past.
    Raises ValueError for sizes below 1 and deltas that are not in the past.
    """

    features: int
    joints: int
    shapes: int
    width: int = 256
    hidden: int = 256
    dropout: float = 0.0
    deltas: tuple[int, ...] = (-10, -5)

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", tuple(self.deltas))
        if min(self.features, self.joints, self.shapes, self.width, self.hidden) < 1:
            raise ValueError(f"got a model with a size below 1: {self}; all sizes must be positive")
        if any(delta >= 0 for delta in self.deltas):
            raise ValueError(f"got the deltas {self.deltas}, expected frames before the present such as -5")


class StripLift(NamedTuple):
    """What is read out of strips (N, T, C): the body now, and where it is `delta` frames away, by delta."""

    strips: Tensor
    present: BodyState
    deltas: dict[int, BodyState]


class Phd(nn.Module):
    """f_movie, f_AR and f_3D."""

    def __init__(self, features: int, joints: int, shapes: int, width: int, hidden: int, dropout: float,
                 deltas: tuple[int, ...]) -> None:  # fmt: skip
        super().__init__()
        self.encoder = StripEncoder(features, width, causal=True, dropout=dropout)
        self.predictor = StripEncoder(width, width, causal=True, dropout=dropout)
        self.readout = BodyReadout(width, joints, shapes, hidden, dropout)
        self.delta_readouts = nn.ModuleDict({str(d): DeltaReadout(width, joints, hidden, dropout) for d in deltas})

    def forward(self, features: Tensor) -> StripLift:
        """Bodies of the frames (N, T, F) that are seen; each depends on none after it."""
        return self.read(self.encoder(features))

    def read(self, strips: Tensor) -> StripLift:
        """The bodies in strips (N, T, C), seen or predicted."""
        present = self.readout(strips)
        deltas = {int(d): readout(strips, present) for d, readout in self.delta_readouts.items()}
        return StripLift(strips, present, deltas)

    def next_strips(self, strips: Tensor) -> Tensor:
        """What the predictor says follows each strip (N, T, C), from it and those before it (equation 4)."""
        return self.predictor(strips)

    def future(self, features: Tensor, frames: int) -> StripLift:
        """The bodies of the next frames after (N, T, F), from strips that are predicted from predicted ones."""
        return self.read(self.predictor.extend(self.encoder(features), frames))
