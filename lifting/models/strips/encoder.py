"""Movie strips: every frame's features together with those of the frames around it, as one vector per frame.

PHD (Zhang et al., "Predicting 3D human dynamics from video", ICCV 2019) and HMMR (Kanazawa et al., "Learning 3D human
dynamics from video", CVPR 2019) use three residual blocks of two convolutions each, a receptive field of 13 frames:
PHD only those up to the present, HMMR six on either side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifting.models.strips.blocks import Memory, StripBlock

RECEPTIVE_FIELD = 13


class StripEncoder(nn.Module):
    """Three residual blocks over time, from features or from movie strips.

    causal: looks at the frame and the twelve before it, else at six before and six after.
    """

    def __init__(self, features: int, width: int, causal: bool, blocks: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width) if features != width else nn.Identity()
        self.blocks = nn.ModuleList([StripBlock(width, causal, dropout) for _ in range(blocks)])
        self.causal = causal

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, T, F) to movie strips (N, T, C)."""
        return self.read(features)[0]

    def read(self, features: Tensor) -> tuple[Tensor, list[Memory]]:
        """Movie strips (N, T, C) and, of a causal encoder, the state to pass to `step` with the frame after them."""
        x, states = self.stem(features).float(), []  # in full precision from block to block
        for block in self.blocks:
            x, kept = block.read(x)
            states.append(kept)
        return x, states

    def step(self, frame: Tensor, state: list[Memory] | None = None) -> tuple[Tensor, list[Memory]]:
        """The strip (N, C) of the next frame (N, F) of a causal encoder, and the state to pass with the one after it.

        The same numbers as `forward` on all frames so far. Without a state the frame is the first one.
        """
        x, states = self.stem(frame).float(), []
        for number, block in enumerate(self.blocks):
            x, kept = block.step(x, None if state is None else state[number])
            states.append(kept)
        return x, states


def go_on(predictor: nn.Module, following: Tensor, state: list[Memory], frames: int) -> Tensor:
    """Own predictions (N, frames, C), each made from those before it, what was said last (N, C) being the first.

    The predictor reads values and says the next one: a causal `StripEncoder`, or anything with the same `step`; state
    is what it returned with what it said last.
    """
    future = [following]
    while len(future) < frames:
        following, state = predictor.step(following, state)
        future.append(following)
    return torch.stack(future, 1)
