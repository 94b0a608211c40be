"""From a movie strip to a body: rotations, shape and motion of the root, improved in a few rounds.

Iterative error feedback of HMR (Kanazawa et al., CVPR 2018), section 3.2, with the continuous rotations of Zhou et al.
("On the continuity of rotation representations in neural networks", CVPR 2019) in place of rotation vectors. Rotations
of the root are those seen from the person's heading; the root's way is told as speed and turn per frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

WAY = 4  # metres per frame to the left, back and up, and the turn to the left in radians per frame


class BodyState(NamedTuple):
    """A body in motion, leading axes (...): rotations (..., K, 3, 3), local, the root's in the heading frame; shape
    (..., S); way (..., 4), `WAY`; codes (..., 6 K), the rotations as the network says them."""

    rotations: Tensor
    shape: Tensor
    way: Tensor
    codes: Tensor


def rotations_from_codes(codes: Tensor) -> Tensor:
    """Rotation matrices (..., K, 3, 3) of codes (..., 6 K): the first two columns, made orthonormal (Gram-Schmidt)."""
    first, second = codes.unflatten(-1, (-1, 2, 3)).unbind(-2)
    x = functional.normalize(first, dim=-1)
    y = functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.cross(x, y, dim=-1)], -1)


def codes_from_rotations(rotations: Tensor) -> Tensor:
    """Codes (..., 6 K) of rotation matrices (..., K, 3, 3)."""
    return rotations[..., :2].transpose(-1, -2).flatten(-3)


class IterativeRegressor(nn.Module):
    """Reads a vector and a guess, says how to change the guess, a few times; starts from the mean of the data.

    outputs: numbers to tell. rounds: how often the same layers are applied.
    """

    def __init__(self, width: int, outputs: int, hidden: int, rounds: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width + outputs, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs),
        )  # fmt: skip
        self.rounds = rounds
        self.register_buffer("mean", torch.zeros(outputs))
        with torch.no_grad():
            self.layers[-1].weight *= 0.01

    def forward(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """x: (..., C), start: (..., outputs) to begin with in place of the mean. Returns (..., outputs)."""
        guess = self.mean.expand(*x.shape[:-1], -1) if start is None else start
        for _ in range(self.rounds):
            guess = guess + self.layers(torch.cat([x, guess], -1))
        return guess


class BodyReadout(nn.Module):
    """f_3D of HMMR and PHD: body and way of a person from a movie strip (..., C)."""

    def __init__(self, width: int, joints: int, shapes: int, hidden: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes = (6 * joints, shapes, WAY)
        self.regressor = IterativeRegressor(width, sum(self.sizes), hidden, dropout=dropout)

    def set_mean(self, rotations: Tensor, shape: Tensor) -> None:
        """Start from a pose: rotations (K, 3, 3), shape (S,), standing still."""
        self.regressor.mean.copy_(torch.cat([codes_from_rotations(rotations), shape, torch.zeros(WAY)]))

    def forward(self, strips: Tensor) -> BodyState:
        """The state at every strip."""
        return self.state(self.values(strips))

    def values(self, strips: Tensor) -> Tensor:
        """The state as numbers (..., sum of `sizes`): codes, shape, way."""
        return self.regressor(strips).float()

    def state(self, values: Tensor) -> BodyState:
        """The state that numbers (..., sum of `sizes`) stand for."""
        codes, shape, way = values.split(self.sizes, -1)
        return BodyState(rotations_from_codes(codes), shape, way, codes)


class DeltaReadout(nn.Module):
    """The pose some frames away, from a strip: changes to the pose of the present, shape and all else kept (HMMR)."""

    def __init__(self, width: int, joints: int, hidden: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.regressor = IterativeRegressor(width, 6 * joints, hidden, dropout=dropout)

    def forward(self, strips: Tensor, present: BodyState) -> BodyState:
        """The state of the other frame; its way is the present's."""
        codes = self.regressor(strips, present.codes)
        return present._replace(rotations=rotations_from_codes(codes), codes=codes)


class StripLift(NamedTuple):
    """What is read out of strips (N, T, C): the body now, and where it is `delta` frames away, by delta."""

    strips: Tensor
    present: BodyState
    deltas: dict[int, BodyState]


class StripReader(nn.Module):
    """The readouts that HMMR and PHD have in common: of the present, and of frames `deltas` away from it.

    The poses of those other frames are told in the heading that the network was trained for: the present's with HMMR,
    their own with PHD.
    """

    def __init__(self, width: int, joints: int, shapes: int, hidden: int, dropout: float,
                 deltas: tuple[int, ...]) -> None:  # fmt: skip
        super().__init__()
        self.readout = BodyReadout(width, joints, shapes, hidden, dropout)
        self.delta_readouts = nn.ModuleDict({str(d): DeltaReadout(width, joints, hidden, dropout) for d in deltas})

    def read(self, strips: Tensor) -> StripLift:
        """The bodies in strips (N, T, C), whether seen, predicted or hallucinated."""
        present = self.readout(strips)
        deltas = {int(d): readout(strips, present) for d, readout in self.delta_readouts.items()}
        return StripLift(strips, present, deltas)
