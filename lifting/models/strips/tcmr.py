"""TCMR: the body of one frame from all frames around it, and from past and future without the frame itself.

Choi, Moon, Chang and Lee, "Beyond static features for temporally consistent 3D human pose and shape from a video", CVPR
2021: a bidirectional recurrent network reads all frames; two more read only the past and only the future and forecast
the present (PoseForecast). There is no short cut from the present frame's own features, which is what makes the result
smooth. All three are supervised by the present frame, an attention joins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lifting.models.strips.readout import BodyReadout, BodyState


@dataclass(frozen=True)
class TcmrConfig:
    """Sizes of a `Tcmr`.

    frames: of a window; the body is that of frame ``frames // 2``. residual: add the present frame's own features, as
    in VIBE and the ablation. forecast: whether past and future are read apart. peek: let both of them see the present
    frame, too; an ablation.
    Raises ValueError for sizes below 1 and windows of fewer than three frames.
    """

    features: int
    joints: int
    shapes: int
    frames: int = 16
    width: int = 256
    hidden: int = 256
    layers: int = 2
    dropout: float = 0.0
    residual: bool = False
    forecast: bool = True
    peek: bool = False

    def __post_init__(self) -> None:
        if min(self.features, self.joints, self.shapes, self.width, self.hidden, self.layers) < 1 or self.frames < 3:
            raise ValueError(f"got a model with a size below 1 or fewer than 3 frames: {self}")


class TcmrLift(NamedTuple):
    """Bodies (N, ...) of the middle frame: joined, and from past and future alone (None without forecast).

    attention: (N, 3), how much all frames, past and future count; they sum to 1.
    """

    joined: BodyState
    past: BodyState | None
    future: BodyState | None
    attention: Tensor | None


class Tcmr(nn.Module):
    """Recurrent encoders, attention and readout."""

    def __init__(self, features: int, joints: int, shapes: int, frames: int, width: int, hidden: int, layers: int,
                 dropout: float, residual: bool, forecast: bool, peek: bool) -> None:  # fmt: skip
        super().__init__()
        self.frames, self.middle, self.residual, self.forecast = frames, frames // 2, residual, forecast
        self.last, self.next = self.middle + peek, self.middle + 1 - peek
        self.stem = nn.Linear(features, width)
        drop = dropout if layers > 1 else 0.0
        self.all_frames = nn.GRU(width, width, layers, batch_first=True, bidirectional=True, dropout=drop)
        self.project = nn.ModuleList([nn.Linear(2 * width, width)])
        if forecast:
            self.past, self.future = (nn.GRU(width, width, layers, batch_first=True, dropout=drop) for _ in range(2))
            self.project.extend([nn.Linear(width, width), nn.Linear(width, width)])
            self.reduce = nn.Linear(width, width // 4)
            # Without the released code's last tanh, which keeps every weight between 0.06 and 0.79.
            small = width // 4
            self.attend = nn.Sequential(
                nn.Linear(3 * small, small), nn.Tanh(), nn.Linear(small, small), nn.Tanh(), nn.Linear(small, 3)
            )
        self.readout = BodyReadout(width, joints, shapes, hidden, dropout)

    def forward(self, features: Tensor) -> TcmrLift:
        """The body of the middle frame of windows (N, frames, F)."""
        x = self.stem(features)
        read = [self.all_frames(x)[0][:, self.middle]]
        if self.forecast:
            read.append(self.past(x[:, : self.last])[0][:, -1])
            read.append(self.future(x[:, self.next :].flip(1))[0][:, -1])
        read = [project(functional.relu(r)) for project, r in zip(self.project, read, strict=True)]
        if self.residual:
            read = [r + x[:, self.middle] for r in read]
        if not self.forecast:
            return TcmrLift(self.readout(read[0]), None, None, None)
        attention = self.attend(torch.cat([self.reduce(r) for r in read], -1)).softmax(-1)
        joined = (attention[..., None] * torch.stack(read, -2)).sum(-2)
        return TcmrLift(self.readout(joined), self.readout(read[1]), self.readout(read[2]), attention)
