"""The causal networks one frame at a time: every convolution keeps its last inputs in a ring, so a frame costs a frame.

Each layer is one matrix product over its taps side by side; batch norms are folded into the products. The numbers are
those of the whole sequence at once, up to rounding. Memory is what the receptive field needs and never grows.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn
from torch.nn import functional

from lifting.models.lifter import Lift, LiftNet, ViewFrame, encode_rays, turned_back
from lifting.models.temporal import TemporalModel


class RingBuffer:
    """The last inputs of one dilated convolution over time.

    Args:
        taps: width of the kernel; the last tap is the newest frame.
        spacing: frames between two taps.
        repeats_first: whether the first frame also stands for all before it; else these are zero.
    """

    def __init__(self, taps: int, spacing: int, repeats_first: bool = False) -> None:
        self._ages = [(taps - 1 - tap) * spacing for tap in range(taps)]
        self._repeats_first = repeats_first
        self._frames: Tensor | None = None
        self._newest = 0

    def push(self, x: Tensor) -> Tensor:
        """Take the next frame (B, C) and return the taps side by side (B, taps * C), oldest first."""
        if self._frames is None:
            self._frames = x.new_zeros(len(x), self._ages[0] + 1, x.shape[1])
            if self._repeats_first:
                self._frames[:] = x[:, None]
        length = self._frames.shape[1]
        self._newest = (self._newest + 1) % length
        self._frames[:, self._newest] = x
        return torch.cat([self._frames[:, (self._newest - age) % length] for age in self._ages], dim=-1)

    def clear(self) -> None:
        """Forget all frames."""
        self._frames = None

    @property
    def size(self) -> int:
        """Numbers held."""
        return 0 if self._frames is None else self._frames.numel()


class LiftNetStream:
    """A causal `LiftNet` frame by frame: the same as `LiftNet.lift` of the whole sequence.

    Args:
        network: in eval mode, on any device.
        lookahead: one of the network's; what comes out describes the frame that went in so many frames before.

    Raises ValueError for a network that sees later frames and for another look-ahead.
    """

    def __init__(self, network: LiftNet, lookahead: int = 0) -> None:
        if any(block.pad[1] for block in network.blocks):
            raise ValueError("got a lifter that looks at later frames, expected a causal one for a stream; load causal "
                             "weights, such as Lifter.load(causal=True)")  # fmt: skip
        if lookahead not in network.lookaheads:
            raise ValueError(f"got a look-ahead of {lookahead} frames, expected one of {network.lookaheads}")
        self.network, self.lookahead = network, lookahead
        self._rings = [RingBuffer(3, block.dilation) for block in network.blocks]
        self._steps: deque[tuple[tuple[Tensor, ...], ViewFrame]] = deque(maxlen=lookahead + 1)

    @torch.inference_mode()
    def push(self, rays: Tensor, scores: Tensor) -> Lift | None:
        """Take the next frame, rays (B, 17, 2) and scores (B, 17); None until the look-ahead is full.

        Returns joints (B, 17, 3), root (B, 3) and log sigma (B, 17) of the frame `lookahead` frames ago.
        """
        features, view = encode_rays(rays, scores)
        self._steps.append((self.network.heads(self._trunk(features)), view))
        return self._describe(self.lookahead) if len(self._steps) > self.lookahead else None

    @torch.inference_mode()
    def flush(self) -> list[Lift]:
        """The last frames, each from the head with the largest look-ahead that was reached; then as new."""
        known = self.network.lookaheads
        remaining = range(min(self.lookahead, len(self._steps)) - 1, -1, -1)
        lifts = [self._describe(age, max(lag for lag in known if lag <= age)) for age in remaining]
        self.clear()
        return lifts

    def clear(self) -> None:
        """Forget all frames."""
        self._steps.clear()
        for ring in self._rings:
            ring.clear()

    @property
    def size(self) -> int:
        """Numbers held between two frames."""
        held = sum(values.numel() for step in self._steps for part in step for values in part)
        return held + sum(ring.size for ring in self._rings)

    def _trunk(self, features: Tensor) -> Tensor:
        """What the heads read (B, C), from the features (B, F) of one frame; as `LiftNet.trunk`."""
        x = self.network.stem(features)
        for block, ring in zip(self.network.blocks, self._rings, strict=True):
            x = x + block.mix(functional.gelu(block.conv(ring.push(block.norm(x)))))
        return self.network.norm(x)

    def _describe(self, age: int, lag: int | None = None) -> Lift:
        """The frame that came `age` frames ago, by the head with look-ahead `lag`."""
        lag = age if lag is None else lag
        head, newest = self.network.lookaheads.index(lag), len(self._steps) - 1
        outputs, view = self._steps[newest - age + lag][0], self._steps[newest - age][1]
        return turned_back(*(values[:, head] for values in outputs), view)


class TemporalStream:
    """A causal `TemporalModel` frame by frame: the same as `lift_sequence`, which repeats the first frame.

    model: in eval mode, on any device. Raises ValueError for one that sees later frames.
    """

    def __init__(self, model: TemporalModel) -> None:
        if not model.config.causal:
            raise ValueError("got temporal weights that look at later frames, expected causal ones for a stream; train "
                             "with --causal")  # fmt: skip
        self.config = model.config
        self._expand = _Layer(model.expand_conv, model.expand_norm)
        self._blocks = [(_Layer(block.time_conv, block.time_norm), _Layer(block.mix_conv, block.mix_norm))
                        for block in model.blocks]  # fmt: skip
        self._shrink = _matrix(model.shrink.weight).contiguous(), model.shrink.bias.detach()

    @torch.inference_mode()
    def push(self, x: Tensor) -> Tensor:
        """Lift the next frame (B, J_in, C) to (B, J_out, 3) metres."""
        x = self._expand(x.flatten(1))
        for convolve, mix in self._blocks:
            x = x + mix(convolve(x))
        return functional.linear(x, *self._shrink).unflatten(1, (self.config.joints_out, 3))

    def clear(self) -> None:
        """Forget all frames."""
        for layer in self._layers:
            layer.ring.clear()

    @property
    def size(self) -> int:
        """Numbers held between two frames."""
        return sum(layer.ring.size for layer in self._layers)

    @property
    def _layers(self) -> list[_Layer]:
        return [self._expand, *(layer for block in self._blocks for layer in block)]


class _Layer:
    """Convolution, batch norm and ReLU as one matrix product over the taps of a ring."""

    def __init__(self, convolution: nn.Conv1d, norm: nn.BatchNorm1d) -> None:
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        self.weight = (_matrix(convolution.weight).double() * scale[:, None]).float().contiguous()
        self.bias = (norm.bias.detach().double() - norm.running_mean.double() * scale).float()
        self.ring = RingBuffer(convolution.kernel_size[0], convolution.dilation[0], repeats_first=True)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(self.ring.push(x), self.weight, self.bias).relu_()


def _matrix(weight: Tensor) -> Tensor:
    """Weight (C_out, C_in, taps) of a convolution as (C_out, taps * C_in), the order of a ring's output."""
    return weight.detach().transpose(1, 2).flatten(1)
