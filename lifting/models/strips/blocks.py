"""The residual block of movie strips, in a form that never normalises across time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

Memory = tuple[tuple[Tensor, Tensor], ...]
"""The last two inputs (N, C) of every convolution."""


class StripBlock(nn.Module):
    """(Layer norm over channels, ReLU, convolution of width 3) twice, added to the input.

    causal: a convolution sees a frame and the two before it, the sequence being continued to the left by its first
    frame (PHD's edge padding); else one on either side, with zeros beyond the ends (HMMR). The released code of both
    normalises groups of channels over time as well, so that every frame depends on all later ones; a layer norm per
    frame does not. The second convolution starts near zero: a fresh block passes its input on.
    """

    def __init__(self, width: int, causal: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.convolutions = nn.ModuleList([nn.Linear(3 * width, width) for _ in range(2)])
        self.drop, self.causal = nn.Dropout(dropout), causal
        with torch.no_grad():
            self.convolutions[1].weight *= 1e-3

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, C)."""
        return self.read(x)[0]

    def read(self, x: Tensor) -> tuple[Tensor, Memory]:
        """The block's output (N, T, C), and what `step` must remember to go on after it."""
        h, kept = x, []
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = functional.relu(norm(h))
            if self.causal:
                padded = torch.cat([h[:, :1], h[:, :1], h], 1)
            else:
                padded = functional.pad(h, (0, 0, 1, 1))
            kept.append((padded[:, -2], padded[:, -1]))
            h = convolution(torch.cat([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], -1))
        return x + self.drop(h), tuple(kept)

    def step(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """The output (N, C) of a causal block for the next frame, and what it must remember then."""
        h, kept = x, []
        for number, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            h = functional.relu(norm(h))
            before, last = (h, h) if memory is None else memory[number]
            kept.append((last, h))
            h = convolution(torch.cat([before, last, h], -1))
        return x + self.drop(h), tuple(kept)
