"""Whole sequences through the temporal model on a CPU that multiplies bfloat16: matrix products and little else.

In eval mode batch norm is an affine map of each channel, which is folded into the weights before it. With the channels
of a frame side by side (time-major rows), the inputs of a dilated convolution are a few contiguous slices of the rows,
side by side: one matrix product each. A block works in place and some rows at a time, so that nothing of a layer's size
is copied, and what lies between two products stays in the caches.

Products take and give bfloat16, of which three digits are right. So only what a block adds is rounded: the residual
path, the first layer (screen coordinates are worth more) and the last one (metres) stay in the model's own type, and
biases are added inside the products: a product can be much larger than what its bias leaves of it. What rounding takes
from a bias is added too. On trained nets with 1024 channels joints move by 0.1 to 0.3 mm in the mean and by less than
1 mm at most; narrower nets average less of the rounding, and gain less.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from lifting.models.temporal import DilatedBlock, TemporalModel

CHUNK_ROWS = 2048  # rows worked on at a time: 4 MB in bfloat16 with 1024 channels
LEAST_CHANNELS = 1024  # the reference; what rounding does to narrower nets exceeds a millimetre
_ONES = 16  # columns for the bias; two would do, but rows 6 KB apart collide in the caches


def pays(model: TemporalModel, x: Tensor) -> bool:
    """Whether bfloat16 in a `FoldedModel` is faster on x than plain layers, and within a millimetre of them.

    Not for a trajectory net: its outputs, and with them what rounding does, are ten times as large as a pose.
    """
    config, plain = model.config, x.dtype == model.shrink.weight.dtype == torch.float32
    suited = config.channels >= LEAST_CHANNELS and config.joints_out > 1 and not config.dense
    return suited and plain and x.device.type == "cpu" and multiplies_bfloat16()


@lru_cache(maxsize=1)
def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16 (AMX or AVX512-BF16) and PyTorch uses them."""
    questions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # missing in old versions of PyTorch
    return torch.backends.mkldnn.is_available() and any(getattr(torch.cpu, name, bool)() for name in questions)


class FoldedModel:
    """What a `TemporalModel` in eval mode computes, from a copy of its weights as they are now. Keeps no gradient."""

    @torch.no_grad()
    def __init__(self, model: TemporalModel, products: torch.dtype = torch.bfloat16) -> None:
        """Fold the norms; `products`: what type the products of the blocks take and give."""
        self.check_input, self.products = model.check_input, products
        weight, self._bias = _fold(model.expand_conv, model.expand_norm)
        self._width, self._expand = weight.shape[2], weight.flatten(1)
        self._blocks = [_Block.fold(block, products) for block in model.blocks]
        self._shrink = model.shrink.weight[:, :, 0].clone(), model.shrink.bias.clone()

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Lift (N, T, J_in, C_in) to (N, T - receptive_field + 1, J_out, 3) metres as the model; errors as there."""
        self.check_input(x)
        windows = x.flatten(2).unfold(1, self._width, 1).flatten(2)  # (N, T, inputs * width)
        with torch.autocast("cpu", enabled=False):
            residual = functional.linear(windows, self._expand, self._bias).relu_()
            rounded = residual.to(self.products)
            for block in self._blocks:
                for sequence, rows in zip(residual, rounded, strict=True):
                    block.work_through(sequence, rows)
                frames = residual.shape[1] - block.reach
                residual, rounded = residual[:, :frames], rounded[:, :frames]
            return functional.linear(residual, *self._shrink).unflatten(2, (-1, 3))


class _Block(NamedTuple):
    """A residual block, folded.

    weight: (C, width * C + `_ONES`) of all taps side by side and of columns for the bias; mix: (C, C), its bias (C,),
    all in the products' type. rest: (C,), what rounding took from that bias. shifts: frames from the first tap to each.
    kept: to the residual path's.
    """

    weight: Tensor
    mix: Tensor
    mix_bias: Tensor
    rest: Tensor
    shifts: range
    kept: int

    @classmethod
    def fold(cls, block: DilatedBlock, products: torch.dtype) -> _Block:
        weight, bias = _fold(block.time_conv, block.time_norm)
        mix, mix_bias = _fold(block.mix_conv, block.mix_norm)
        taps = weight.to(products).transpose(1, 2).flatten(1)
        ones = taps.new_zeros(len(taps), _ONES)
        ones[:, 0] = bias
        ones[:, 1] = bias - ones[:, 0]  # what rounding took
        shifts = range(0, block.reach + 1, block.time_conv.dilation[0])
        kept = block.reach if block.causal else block.reach // 2
        rounded = mix_bias.to(products)
        weight = torch.cat([taps, ones], dim=1)
        return cls(weight, mix[:, :, 0].to(products), rounded, mix_bias - rounded, shifts, kept)

    @property
    def reach(self) -> int:
        """Frames by which the outputs are fewer than the inputs."""
        return self.shifts[-1]

    def work_through(self, residual: Tensor, rounded: Tensor) -> None:
        """Replace the first T - reach rows of residual (T, C), and of the same in the products' type, by the outputs.

        An output is written where no later one looks.
        """
        frames = len(residual) - self.reach
        for start in range(0, frames, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, frames)
            taps = [rounded[start + shift : stop + shift] for shift in self.shifts]
            inputs = torch.cat([*taps, rounded.new_ones(stop - start, _ONES)], dim=1)
            hidden = torch.mm(inputs, self.weight.T).relu_()
            added = functional.linear(hidden, self.mix, self.mix_bias)
            added = torch.add(added, self.rest).relu_()  # in the residual's type
            added += residual[start + self.kept : stop + self.kept]
            residual[start:stop] = added
            rounded[start:stop] = added


def _fold(convolution: nn.Conv1d, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Weight (C_out, C, width) and bias (C_out,) of the convolution followed by its norm in eval mode."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return convolution.weight * scale[:, None, None], norm.bias - norm.running_mean * scale
