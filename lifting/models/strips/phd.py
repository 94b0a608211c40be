"""PHD: the future of a body, told frame after frame in the latent space of movie strips.

Zhang, Felsen, Kanazawa and Malik, "Predicting 3D human dynamics from video", ICCV 2019: a causal encoder makes a strip
of every frame (f_movie), a readout makes a body of every strip (f_3D), and an autoregressive predictor of the encoder's
shape makes the next strip from those before it (f_AR). Here the frames are lifted keypoints, not images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lifting.models.strips.blocks import Memory
from lifting.models.strips.encoder import StripEncoder, go_on
from lifting.models.strips.readout import BodyState, StripLift, StripReader

FARTHEST = 50  # frames ahead of which the errors are known
JOINTS = 17


@dataclass(frozen=True)
class PhdConfig:
    """Sizes of a `Phd`.

    features: numbers per frame. joints, shapes: of the body. deltas: frames from the present whose pose is told, too:
    a causal strip can only know the past. latent: whether the predictor goes from strip to strip, or, PHD's ablation
    (equation 8), from body to body.
    Raises ValueError for sizes below 1 and deltas that are not in the past.
    """

    features: int
    joints: int
    shapes: int
    width: int = 256
    hidden: int = 256
    dropout: float = 0.0
    deltas: tuple[int, ...] = (-10, -5)
    latent: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", tuple(self.deltas))
        if min(self.features, self.joints, self.shapes, self.width, self.hidden) < 1:
            raise ValueError(f"got a model with a size below 1: {self}; all sizes must be positive")
        if any(delta >= 0 for delta in self.deltas):
            raise ValueError(f"got the deltas {self.deltas}, expected frames before the present such as -5")


class StreamState(NamedTuple):
    """What a stream remembers: of encoder and predictor, and what the predictor says comes next (N, C)."""

    encoder: list[Memory]
    predictor: list[Memory]
    following: Tensor


class Phd(StripReader):
    """f_movie, f_AR and f_3D.

    growth: (FARTHEST, 17) metres, how far joints of a future are off, the root's way first, with 68 % of the errors
    within; of every frame, beside the doubt of the last seen one. Measured after training, nought before.
    """

    def __init__(self, features: int, joints: int, shapes: int, width: int, hidden: int, dropout: float,
                 deltas: tuple[int, ...], latent: bool) -> None:  # fmt: skip
        super().__init__(width, joints, shapes, hidden, dropout, deltas)
        self.encoder = StripEncoder(features, width, causal=True, dropout=dropout)
        if latent:
            self.predictor = StripEncoder(width, width, causal=True, dropout=dropout)
        else:
            self.predictor = BodyPredictor(sum(self.readout.sizes), width, dropout)
        self.latent = latent
        self.register_buffer("growth", torch.zeros(FARTHEST, JOINTS))

    def forward(self, features: Tensor) -> StripLift:
        """Bodies of the frames (N, T, F) that are seen; each depends on none after it."""
        return self.read(self.encoder(features))

    def predict(self, strips: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """What the predictor says after strips (N, T, C): of the frame after each (N, T, D), and of the next frames.

        Those, (N, frames, D), go on after the last strip, own predictions being made from own predictions (equation 4).
        D numbers are a strip, or a body where the predictor goes from body to body.
        """
        said, state = self.predictor.read(strips if self.latent else self.readout.values(strips))
        return said, go_on(self.predictor, said[:, -1], state, frames)

    def bodies(self, predicted: Tensor) -> BodyState:
        """The bodies of what was predicted (..., D)."""
        return self.readout(predicted) if self.latent else self.readout.state(predicted)

    def future(self, features: Tensor, frames: int) -> BodyState:
        """The bodies of the next frames after (N, T, F)."""
        return self.bodies(self.predict(self.encoder(features), frames)[1])

    def step(self, frame: Tensor, state: StreamState | None = None) -> tuple[BodyState, StreamState]:
        """The bodies (N, 1, ...) of the next frame (N, F), and the state to pass with the one after it.

        The same numbers as `forward` on all frames so far. Without a state the frame is the first one.
        """
        strip, encoder = self.encoder.step(frame, state and state.encoder)
        values = self.readout.values(strip)
        following, predictor = self.predictor.step(strip if self.latent else values, state and state.predictor)
        return self.readout.state(values[:, None]), StreamState(encoder, predictor, following)

    def go_on(self, state: StreamState, frames: int) -> BodyState:
        """The bodies (N, frames, ...) that follow the last frame given to `step`: the same numbers as `future`."""
        return self.bodies(go_on(self.predictor, state.following, state.predictor, frames))


class BodyPredictor(nn.Module):
    """The next body from those before it, as a change of the last (PHD, equation 8): bodies (..., C) as numbers.

    The convolutions of the predictor of strips, between two linear layers.
    """

    def __init__(self, numbers: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.change = StripEncoder(numbers, width, True, dropout=dropout), nn.Linear(width, numbers)
        with torch.no_grad():
            self.change.weight *= 0.01

    def forward(self, bodies: Tensor) -> Tensor:
        """What follows each of the bodies (N, T, C)."""
        return self.read(bodies)[0]

    def read(self, bodies: Tensor) -> tuple[Tensor, list[Memory]]:
        """As `StripEncoder.read`."""
        x, state = self.encoder.read(bodies)
        return bodies + self.change(x), state

    def step(self, body: Tensor, state: list[Memory] | None = None) -> tuple[Tensor, list[Memory]]:
        """As `StripEncoder.step`."""
        x, state = self.encoder.step(body, state)
        return body + self.change(x), state
