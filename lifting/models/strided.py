"""Training of the strided form on a CPU: little memory, and little else than matrix products.

The strided form of the temporal model (Pavllo et al., CVPR 2019, appendix A) needs no convolutions: with channels last,
`width` frames of `channels` numbers lie side by side, and a strided convolution is one matrix product. Plain autograd
would keep three or four tensors per layer (before and after norm, ReLU and dropout). Here only what a product gives is
kept; the activation that follows is computed again in the backward pass, some rows at a time, so that it never exists
as a whole. The largest layer, the expansion, is not kept either: it is a small product of the network's input, and the
statistics for its batch norm follow from mean and covariance of that input.

Batch norm is an affine map whose coefficients depend on the moments of the batch: `_Moments` differentiates those,
ordinary autograd the few numbers between, so that sums over several processes may stand there. Dropout masks come from
a seed that is drawn from torch's generator, and are made twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

CHUNK_ROWS = 2048  # rows worked on at a time: temporaries of at most 8 MB with 1024 channels stay in the caches
_LEVELS = 1 << 16  # a dropout probability is rounded to multiples of its inverse


@dataclass(frozen=True)
class _Dropout:
    """Masks that can be made again. keep: probability, exact; an activation is divided by it."""

    probability: float
    seed: int

    @classmethod
    def draw(cls, probability: float) -> _Dropout:
        """One whose seed comes from torch's generator."""
        seed = int(torch.randint(1 << 62, ())) if probability else 0
        return cls(round(probability * _LEVELS) / _LEVELS, seed)

    @property
    def keep(self) -> float:
        return 1 - self.probability

    def generator(self) -> torch.Generator:
        """Where the masks come from, in the order of the rows."""
        return torch.Generator().manual_seed(self.seed)

    def apply_(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Set dropped ones of the values (R, C) to zero, in place."""
        if not self.probability:
            return values
        words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None, generator=generator)
        levels = words.view(torch.int16)[: values.numel()].view_as(values)
        return values.mul_(levels >= round(self.probability * _LEVELS) - _LEVELS // 2)


def supports(model: nn.Module, windows: Tensor) -> bool:
    """Whether `lift_windows` can take the place of plain layers: training with residual blocks, on a CPU."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    known = all(norm.training and (type(norm) is nn.BatchNorm1d or hasattr(norm, "sum_over_ranks")) for norm in norms)
    return known and len(norms) > 1 and windows.device.type == "cpu" and not windows.requires_grad


def lift_windows(model: nn.Module, windows: Tensor) -> Tensor:
    """The last hidden layer (N, channels) of a `TemporalModel` for windows (N, receptive field, inputs per frame).

    Norms, running statistics and dropout as in training mode, the same as with plain layers up to rounding. Under
    autocast, products take and give its type.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else model.shrink.weight.dtype
    with torch.autocast("cpu", enabled=False):
        weight = _matrix(model.expand_conv.weight)
        rows, norm = windows.reshape(-1, weight.shape[1]), model.expand_norm
        x = None
        for block in model.blocks:
            time_weight, tap = block.time_conv.weight, block.kept_tap
            if x is None:
                dropout = _Dropout.draw(model.dropout.p)
                mean, folded, bias = _fold(norm, rows, weight, dropout.keep)
                hidden, kept = _ExpandConvolve.apply(rows, mean, folded.to(dtype), bias.to(dtype), time_weight, tap,
                                                     dropout)
            else:
                hidden, kept = _Convolve.apply(x, time_weight, tap)
            dropout = _Dropout.draw(block.dropout.p)
            hidden = _ActivateMix.apply(*_affine(block.time_norm, hidden, dropout.keep),
                                        block.mix_conv.weight, dropout)
            dropout = _Dropout.draw(block.dropout.p)
            x = _ActivateAdd.apply(*_affine(block.mix_norm, hidden, dropout.keep), kept, dropout)
        return x


def _matrix(weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Weight (C_out, C, width) of a convolution as (C_out, width * C), the order of numbers in rows of frames."""
    return weight.transpose(1, 2).flatten(1).to(dtype or weight.dtype)


def _weight(matrix: Tensor, width: int) -> Tensor:
    """The reverse of `_matrix`."""
    return matrix.unflatten(1, (width, -1)).transpose(1, 2)


def _fold(norm: nn.BatchNorm1d, rows: Tensor, weight: Tensor, keep: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of the rows, and weight and bias of the expansion of rows about it with its norm, divided by ``keep``.

    Mean and variance of weight @ row are weight @ mean and weight @ covariance @ weight, in double precision.
    """
    sums, squares = 0, 0
    with torch.no_grad():
        for part in rows.split(CHUNK_ROWS):
            exact = part.double()
            sums, squares = sums + exact.sum(0), squares + exact.T @ exact
        count, (mean, square) = _mean_over_ranks(norm, len(rows), sums, squares)
        covariance = square - torch.outer(mean, mean)
    exact = weight.double()
    scale, _ = _coefficients(norm, exact @ mean, ((exact @ covariance) * exact).sum(1), count)
    return mean.to(rows.dtype), (exact * (scale / keep)[:, None]).to(weight.dtype), norm.bias / keep


def _affine(norm: nn.BatchNorm1d, hidden: Tensor, keep: float) -> tuple[Tensor, Tensor, Tensor]:
    """The hidden rows, and the scale and shift per channel that normalise them, divided by ``keep``."""
    hidden, sums, squares = _Moments.apply(hidden)
    count, (mean, square) = _mean_over_ranks(norm, len(hidden), sums, squares)
    scale, shift = _coefficients(norm, mean, square - mean.square(), count)
    return hidden, (scale / keep).to(norm.weight.dtype), (shift / keep).to(norm.weight.dtype)


def _mean_over_ranks(norm: nn.BatchNorm1d, rows: int, *sums: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The number of rows and the means of what was summed over them, of all processes that share the norm."""
    message = torch.cat([part.flatten() for part in sums] + [sums[0].new_tensor([rows])])
    if hasattr(norm, "sum_over_ranks"):
        message = norm.sum_over_ranks(message)
    means = (message[:-1] / message[-1]).split([part.numel() for part in sums])
    return message[-1].detach(), [mean.view_as(part) for mean, part in zip(means, sums, strict=True)]


def _coefficients(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of batch norm, in double precision; the running statistics take note of the batch."""
    variance = variance.clamp_min(0)
    with torch.no_grad():
        unbiased = variance * count / (count - 1).clamp_min(1)
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return scale, norm.bias - mean * scale


def _chunks(rows: int, width: int = 1) -> Iterator[slice]:
    """Slices of so many rows that stand for ``width`` frames each."""
    size = max(1, CHUNK_ROWS // width)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _scaled(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """values * scale + shift in one pass, in the values' type but with nothing else rounded to it."""
    return functional.batch_norm(values, torch.zeros_like(scale), torch.ones_like(scale), scale, shift, eps=0.0)


def _scaled_backward(gradient: Tensor, values: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values, scale and shift, in one call."""
    zeros, ones = torch.zeros_like(scale), torch.ones_like(scale)
    return torch.ops.aten.native_batch_norm_backward(gradient, values, scale, zeros, ones, zeros, ones, False, 0.0,
                                                     [True, True, True])


def _through_relu(gradient: Tensor, activation: Tensor) -> Tensor:
    """The gradient where the activation is alive: neither cut off nor dropped."""
    return torch.ops.aten.threshold_backward(gradient, activation, 0)


class _Moments(Function):
    """(R, C) as it is, and the sums over its rows of values and of squares, (C,), in double precision."""

    @staticmethod
    def forward(ctx, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(hidden)
        sums, squares = 0, 0
        for rows in _chunks(len(hidden)):
            part = hidden[rows]
            mean, variance = (moment.double() for moment in torch.batch_norm_update_stats(part, None, None, 0.0))
            sums, squares = sums + len(part) * mean, squares + len(part) * (variance + mean.square())
        return hidden.view_as(hidden), sums, squares

    @staticmethod
    def backward(ctx, gradient: Tensor, of_sums: Tensor, of_squares: Tensor) -> Tensor:
        hidden, = ctx.saved_tensors
        exact = torch.promote_types(hidden.dtype, torch.float32)
        scale, shift = (2 * of_squares).to(exact), of_sums.to(exact)
        for rows in _chunks(len(hidden)):  # in place: the gradient was made by the activation below, for this alone
            gradient[rows] += _scaled(hidden[rows], scale, shift)
        return gradient


class _Activation:
    """dropout(relu(hidden * scale + shift)), some rows at a time, in order."""

    def __init__(self, hidden: Tensor, scale: Tensor, shift: Tensor, dropout: _Dropout) -> None:
        self.hidden, self.scale, self.shift, self.dropout = hidden, scale, shift, dropout
        self.generator = dropout.generator()
        self.of_scale, self.of_shift = torch.zeros_like(scale), torch.zeros_like(shift)

    def forward(self, rows: slice) -> Tensor:
        return self.dropout.apply_(_scaled(self.hidden[rows], self.scale, self.shift).relu_(), self.generator)

    def backward(self, rows: slice, gradient: Tensor, activation: Tensor) -> Tensor:
        """Gradient of the hidden rows; those of scale and shift are summed."""
        gradient, of_scale, of_shift = _scaled_backward(_through_relu(gradient, activation), self.hidden[rows],
                                                        self.scale)
        self.of_scale += of_scale
        self.of_shift += of_shift
        return gradient


class _ActivateMix(Function):
    """Activation of (R, C), then the product with weight (C_out, C, 1)."""

    @staticmethod
    def forward(ctx, hidden: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, dropout: _Dropout) -> Tensor:
        ctx.save_for_backward(hidden, scale, shift, weight)
        ctx.dropout = dropout
        activation, out = _Activation(hidden, scale, shift, dropout), hidden.new_empty(len(hidden), len(weight))
        matrix = _matrix(weight, hidden.dtype)
        for rows in _chunks(len(hidden)):
            torch.mm(activation.forward(rows), matrix.T, out=out[rows])
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, scale, shift, weight = ctx.saved_tensors
        activation = _Activation(hidden, scale, shift, ctx.dropout)
        of_hidden, matrix = torch.empty_like(hidden), _matrix(weight, hidden.dtype)
        of_matrix = torch.zeros_like(matrix, dtype=weight.dtype)
        for rows in _chunks(len(hidden)):
            values = activation.forward(rows)
            of_matrix += gradient[rows].T @ values
            of_hidden[rows] = activation.backward(rows, gradient[rows] @ matrix, values)
        return of_hidden, activation.of_scale, activation.of_shift, _weight(of_matrix, 1), None


class _ActivateAdd(Function):
    """kept (R, C) plus the activation of (R, C), in place of ``kept``."""

    @staticmethod
    def forward(ctx, hidden: Tensor, scale: Tensor, shift: Tensor, kept: Tensor, dropout: _Dropout) -> Tensor:
        ctx.save_for_backward(hidden, scale, shift)
        ctx.mark_dirty(kept)
        ctx.dropout = dropout
        activation = _Activation(hidden, scale, shift, dropout)
        for rows in _chunks(len(hidden)):
            kept[rows] += activation.forward(rows)
        return kept

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, scale, shift = ctx.saved_tensors
        activation, of_hidden = _Activation(hidden, scale, shift, ctx.dropout), torch.empty_like(hidden)
        for rows in _chunks(len(hidden)):
            of_hidden[rows] = activation.backward(rows, gradient[rows], activation.forward(rows))
        return of_hidden, activation.of_scale, activation.of_shift, gradient, None


class _Convolve(Function):
    """Strided convolution of frames (R, C) by weight (C_out, C, width), and the frames that the residual path keeps.

    tap: which of `width` frames is kept.
    """

    @staticmethod
    def forward(ctx, frames: Tensor, weight: Tensor, tap: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(frames, weight)
        ctx.tap, width = tap, weight.shape[2]
        return frames.view(len(frames) // width, -1) @ _matrix(weight, frames.dtype).T, frames[tap::width].clone()

    @staticmethod
    def backward(ctx, gradient: Tensor, of_kept: Tensor) -> tuple[Tensor | None, ...]:
        frames, weight = ctx.saved_tensors
        width = weight.shape[2]
        of_frames = (gradient @ _matrix(weight, frames.dtype)).view_as(frames)
        of_frames[ctx.tap :: width] += of_kept
        of_matrix = gradient.T @ frames.view(len(gradient), -1)
        return of_frames, _weight(of_matrix.to(weight.dtype), width), None


class _ExpandConvolve(Function):
    """Expansion of rows (R, K) about a mean, ReLU, dropout, then as `_Convolve`; expanded frames are not kept."""

    @staticmethod
    def forward(ctx, rows: Tensor, mean: Tensor, expand: Tensor, bias: Tensor, weight: Tensor, tap: int,
                dropout: _Dropout) -> tuple[Tensor, Tensor]:  # fmt: skip
        ctx.save_for_backward(rows, mean, expand, bias, weight)
        ctx.tap, ctx.dropout, generator = tap, dropout, dropout.generator()
        matrix, width = _matrix(weight, expand.dtype), weight.shape[2]
        count = len(rows) // width
        hidden, kept = expand.new_empty(count, len(weight)), expand.new_empty(count, len(expand))
        for part in _chunks(count, width):
            inputs = _centred(rows, mean, part, width, expand.dtype)
            frames = dropout.apply_(torch.addmm(bias, inputs, expand.T).relu_(), generator)
            torch.mm(frames.view(-1, matrix.shape[1]), matrix.T, out=hidden[part])
            kept[part] = frames[tap::width]
        return hidden, kept

    @staticmethod
    def backward(ctx, gradient: Tensor, of_kept: Tensor) -> tuple[Tensor | None, ...]:
        rows, mean, expand, bias, weight = ctx.saved_tensors
        matrix, width, generator = _matrix(weight, expand.dtype), weight.shape[2], ctx.dropout.generator()
        of_expand, of_bias, of_matrix = (torch.zeros_like(values, dtype=weight.dtype)
                                         for values in (expand, bias, matrix))
        for part in _chunks(len(gradient), width):
            inputs = _centred(rows, mean, part, width, expand.dtype)
            frames = ctx.dropout.apply_(torch.addmm(bias, inputs, expand.T).relu_(), generator)
            of_matrix += gradient[part].T @ frames.view(-1, matrix.shape[1])
            of_frames = (gradient[part] @ matrix).view_as(frames)
            of_frames[ctx.tap :: width] += of_kept[part]
            of_frames = _through_relu(of_frames, frames)
            of_expand += of_frames.T @ inputs
            of_bias += of_frames.sum(0)
        return None, None, of_expand, of_bias, _weight(of_matrix, width), None, None


def _centred(rows: Tensor, mean: Tensor, part: slice, width: int, dtype: torch.dtype) -> Tensor:
    """The inputs of a slice of the convolution, ``width`` rows each, about their mean."""
    return (rows[part.start * width : part.stop * width] - mean).to(dtype)
