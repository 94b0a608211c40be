"""The residual blocks of a `LiftNet` on a CPU, time the slowest axis: the same sums as the layers in fewer passes.

Rows are (time, sample), so the frames that a tap of a dilated convolution reads are one contiguous slice of the rows:
each tap is a matrix product on memory as it lies, without copying taps side by side, forwards and backwards. Outside
the sequence the normalised signal is zero, so a few rows of zeros stand before the first and after the last frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lifting.models.lifter import TemporalBlock

TAPS = 3


def supports(x: Tensor, blocks: Sequence[TemporalBlock]) -> bool:
    """Whether `run_blocks` can take the place of the layers: on a CPU, without dropout, outside of tracing."""
    dropping = any(block.training and block.drop.p > 0 for block in blocks)
    return x.device.type == "cpu" and not dropping and not torch.jit.is_tracing() and not torch.compiler.is_compiling()


def run_blocks(blocks: Sequence[TemporalBlock], x: Tensor) -> Tensor:
    """The residual blocks one after the other on x (N, T, C); under autocast products take its type.

    Gradients are those of the layers up to rounding; there are none of second order.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    samples, frames, channels = x.shape
    with torch.autocast("cpu", enabled=False):
        rows = x.transpose(0, 1).reshape(frames * samples, channels)
        for block in blocks:
            rows = _Block.apply(rows, block.norm.weight, block.norm.bias, block.conv.weight, block.conv.bias,
                                block.mix.weight, block.mix.bias, block.norm.eps, samples, block.dilation, block.pad,
                                dtype)  # fmt: skip
        return rows.view(frames, samples, channels).transpose(0, 1)


class _Block(Function):
    """rows + mix(gelu(convolution(layer norm(rows)))) of rows (T * N, C), all of one frame next to each other."""

    @staticmethod
    def forward(ctx, rows: Tensor, scale: Tensor, shift: Tensor, conv: Tensor, conv_bias: Tensor, mix: Tensor,
                mix_bias: Tensor, eps: float, samples: int, dilation: int, pad: tuple[int, int],
                dtype: torch.dtype) -> Tensor:  # fmt: skip
        normed, mean, rstd = torch.native_layer_norm(rows, rows.shape[1:], scale, shift, eps)
        padded = _padded(normed, pad, samples, dtype)
        conv, mix = conv.to(dtype), mix.to(dtype)
        hidden = functional.linear(_tap(padded, 0, len(rows), dilation, samples), _part(conv, 0), conv_bias.to(dtype))
        for tap in range(1, TAPS):
            hidden.addmm_(_tap(padded, tap, len(rows), dilation, samples), _part(conv, tap).T)
        out = functional.linear(functional.gelu(hidden), mix, mix_bias.to(dtype)).to(rows.dtype).add_(rows)
        ctx.save_for_backward(rows, scale, shift, mean, rstd, padded, hidden, conv, mix)
        ctx.shape = samples, dilation, pad
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, scale, shift, mean, rstd, padded, hidden, conv, mix = ctx.saved_tensors
        samples, dilation, pad = ctx.shape
        of_out = gradient.to(hidden.dtype)
        of_mix = of_out.T @ functional.gelu(hidden)
        of_hidden = torch.ops.aten.gelu_backward(of_out @ mix, hidden)
        of_padded, of_conv = torch.zeros_like(padded), torch.empty_like(conv)
        for tap in range(TAPS):
            _tap(of_padded, tap, len(rows), dilation, samples).addmm_(of_hidden, _part(conv, tap))
            torch.mm(of_hidden.T, _tap(padded, tap, len(rows), dilation, samples), out=_part(of_conv, tap))
        of_normed = _inside(of_padded, pad, samples).to(rows.dtype)
        of_rows, of_scale, of_shift = torch.ops.aten.native_layer_norm_backward(
            of_normed, rows, rows.shape[1:], mean, rstd, scale, shift, [True, True, True])  # fmt: skip
        kind = scale.dtype
        of_bias = torch.mm(of_hidden.new_ones(1, len(rows)), of_hidden)[0]  # summed in float32, faster than `sum`
        return (of_rows.add_(gradient), of_scale, of_shift, of_conv.to(kind), of_bias.to(kind), of_mix.to(kind),
                gradient.sum(0), None, None, None, None, None)  # fmt: skip


def _padded(normed: Tensor, pad: tuple[int, int], samples: int, dtype: torch.dtype) -> Tensor:
    """Rows of zeros for frames before and after, and the normalised rows between them, in the products' type."""
    before, after = (count * samples for count in pad)
    padded = normed.new_empty(before + len(normed) + after, normed.shape[1], dtype=dtype)
    padded[:before] = 0
    padded[before : before + len(normed)] = normed
    padded[before + len(normed) :] = 0
    return padded


def _inside(padded: Tensor, pad: tuple[int, int], samples: int) -> Tensor:
    return padded[pad[0] * samples : len(padded) - pad[1] * samples]


def _tap(padded: Tensor, tap: int, rows: int, dilation: int, samples: int) -> Tensor:
    """The rows that a tap reads."""
    start = tap * dilation * samples
    return padded[start : start + rows]


def _part(conv: Tensor, tap: int) -> Tensor:
    """The weights (C_out, C) of a tap of (C_out, 3 C)."""
    width = conv.shape[1] // TAPS
    return conv[:, tap * width : (tap + 1) * width]
