"""The causal networks one frame at a time: every convolution keeps its last inputs in a ring, so a frame costs a frame.

Batch norms are folded into the convolutions. The numbers are those of the whole sequence at once, up to rounding.
Memory is what the receptive field needs and never grows.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn
from torch.nn import functional

from lifting.models.lifter import Lift, LiftNet, TemporalBlock, ViewFrame, turned_back
from lifting.models.temporal import TemporalModel

FRAMES_AHEAD = 16  # of a dilated convolution whose earlier taps are computed together


class CausalConvolution:
    """A dilated convolution over time, frame by frame: a ring of its last inputs and a matrix product over the taps.

    A product for one frame costs what reading the weights costs. All taps but the newest see frames that came `spacing`
    or more frames ago, so their part is computed ahead, for up to `FRAMES_AHEAD` frames in one product, which reads
    their weights once.

    Args:
        weight: (C_out, C_in, taps), the newest frame's last.
        bias: (C_out,).
        spacing: frames between two taps.
        repeats_first: whether the first frame also stands for all before it; else these are zero.
        phase: shifts the frames in which it works ahead.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, spacing: int, *, repeats_first: bool = False, phase: int = 0
    ) -> None:
        weight = weight.detach()
        self._taps, self._spacing, self._repeats_first = weight.shape[2], spacing, repeats_first
        self._newest = weight[..., -1].contiguous().t()  # one row of memory for each output
        self._earlier = weight[..., :-1].transpose(1, 2).flatten(1)  # taps side by side, oldest first
        self._bias = bias.detach()
        self._block = min(spacing, FRAMES_AHEAD)
        self._phase = phase % self._block
        self.clear()

    def push(self, x: Tensor) -> Tensor:
        """Take the next frame (B, C_in) and return its outputs (B, C_out)."""
        if self._taps == 1:
            return torch.addmm(self._bias, x, self._newest)
        if self._frames is None:
            before = x if self._repeats_first else torch.zeros_like(x)
            self._frames = before[:, None].repeat(1, (self._taps - 1) * self._spacing, 1)
        row = (self._count + self._phase) % self._block
        if self._ahead is None or row == 0:
            self._ahead = self._work_ahead(self._count - row)
        outputs = torch.addmm(self._ahead[:, row], x, self._newest)
        self._frames[:, self._count % self._frames.shape[1]] = x
        self._count += 1
        return outputs

    def clear(self) -> None:
        """Forget all frames."""
        self._frames: Tensor | None = None  # (B, (taps - 1) * spacing, C_in), frame t in column t modulo their number
        self._ahead: Tensor | None = None  # (B, block, C_out)
        self._count = 0

    @property
    def size(self) -> int:
        """Numbers held."""
        return 0 if self._frames is None else self._frames.numel() + self._ahead.numel()

    def _work_ahead(self, start: int) -> Tensor:
        """What bias and earlier taps give for a block of frames from number `start` on: (B, block, C_out)."""
        frames = torch.arange(start, start + self._block, device=self._frames.device)[:, None]
        taps = torch.arange(self._taps - 1, device=self._frames.device)
        columns = (frames + self._spacing * taps) % self._frames.shape[1]
        return functional.linear(self._frames[:, columns].flatten(2), self._earlier, self._bias)


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
        self._blocks = [_Block(block, phase=2 * k) for k, block in enumerate(network.blocks)]
        self._steps: deque[tuple[Tensor, ViewFrame]] = deque(maxlen=lookahead + 1)

    @torch.inference_mode()
    def push(self, rays: Tensor, scores: Tensor) -> Lift | None:
        """Take the next frame, rays (B, 17, 2) and scores (B, 17); None until the look-ahead is full.

        Returns joints (B, 17, 3), root (B, 3) and log sigma (B, 17) of the frame `lookahead` frames ago.
        """
        features, view = self.network.encode(rays, scores)
        self._steps.append((self._trunk(features), view))
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
        for block in self._blocks:
            block.ring.clear()

    @property
    def size(self) -> int:
        """Numbers held between two frames."""
        held = sum(values.numel() for x, view in self._steps for values in (x, *view))
        return held + sum(block.ring.size for block in self._blocks)

    def _trunk(self, features: Tensor) -> Tensor:
        """What the heads read (B, C), from the features (B, F) of one frame; as `LiftNet.trunk`."""
        x = self.network.stem(features)
        for block in self._blocks:
            x = block(x)
        return self.network.norm(x)

    def _describe(self, age: int, lag: int | None = None) -> Lift:
        """The frame that came `age` frames ago, by the head with look-ahead `lag`."""
        lag = age if lag is None else lag
        head, newest = self.network.heads[self.network.lookaheads.index(lag)], len(self._steps) - 1
        described = newest - age
        trunk = (self._steps[described + later][0] for later in head.reads)
        return turned_back(head(*trunk), self._steps[described][1])


class _Block:
    """A `TemporalBlock` frame by frame. phase: of its convolution."""

    def __init__(self, block: TemporalBlock, phase: int) -> None:
        weight = block.conv.weight.detach().unflatten(1, (3, -1)).transpose(1, 2)
        self.ring = CausalConvolution(weight, block.conv.bias, block.dilation, phase=phase)
        self._norm = block.norm.normalized_shape, block.norm.weight.detach(), block.norm.bias.detach(), block.norm.eps
        self._mix = block.mix.weight.detach(), block.mix.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        h = functional.gelu(self.ring.push(functional.layer_norm(x, *self._norm)))
        return x + functional.linear(h, *self._mix)


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
        # The blocks work ahead in different frames, so that none costs much more than another.
        self._blocks = [(_Layer(block.time_conv, block.time_norm, phase=2 * k), _Layer(block.mix_conv, block.mix_norm))
                        for k, block in enumerate(model.blocks)]  # fmt: skip
        self._shrink = model.shrink.weight.detach().flatten(1), model.shrink.bias.detach()

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
    """Convolution, batch norm and ReLU, frame by frame, with the norm folded into the convolution."""

    def __init__(self, convolution: nn.Conv1d, norm: nn.BatchNorm1d, phase: int = 0) -> None:
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = (convolution.weight.detach().double() * scale[:, None, None]).float()
        bias = (norm.bias.detach().double() - norm.running_mean.double() * scale).float()
        self.ring = CausalConvolution(weight, bias, convolution.dilation[0], repeats_first=True, phase=phase)

    def __call__(self, x: Tensor) -> Tensor:
        return self.ring.push(x).relu_()
