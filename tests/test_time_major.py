"""The fast form of the lifter's blocks against the layers, one after the other: values, gradients, when it is taken."""

from __future__ import annotations

import pytest
import torch

from lifting.models import time_major
from lifting.models.lifter import TemporalBlock

pytestmark = pytest.mark.usefixtures("one_thread")


def blocks_of(causal: bool, dropout: float = 0.0, channels: int = 6) -> torch.nn.ModuleList:
    torch.manual_seed(3)
    blocks = torch.nn.ModuleList([TemporalBlock(channels, dilation, causal, dropout) for dilation in (1, 3, 9)])
    for parameter in blocks.parameters():  # norms begin as ones and zeros, which would hide mistakes
        torch.nn.init.normal_(parameter)
    return blocks


def layers(blocks: torch.nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
    for block in blocks:
        x = block(x)
    return x


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (2, 40)])  # shorter than the reach of 18 frames, too
def test_values_and_gradients_are_those_of_the_layers(causal, shape):
    blocks = blocks_of(causal).double()
    x = torch.randn(*shape, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(*shape, 6, dtype=torch.float64)
    outcomes = []
    for run in (layers, time_major.run_blocks):
        y = run(blocks, x)
        gradients = torch.autograd.grad((y * weights).sum(), [x, *blocks.parameters()])
        outcomes.append([y.detach(), *gradients])
    for one, two in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_gradients_are_right_by_finite_differences():
    blocks = blocks_of(False, channels=3).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: time_major.run_blocks(blocks, x), (x,), eps=1e-6, atol=1e-6)


def test_mixed_precision_keeps_the_residual_stream_in_float32():
    blocks = blocks_of(False)
    for parameter in blocks.parameters():
        parameter.data *= 0.3
    x = torch.randn(4, 30, 6)
    with torch.no_grad():
        exact = layers(blocks, x)
        with torch.autocast("cpu", torch.bfloat16):
            fast, slow = time_major.run_blocks(blocks, x), layers(blocks, x)
    assert fast.dtype == torch.float32
    deviation = (exact - x).abs().max()
    assert (fast - exact).abs().max() < 0.03 * deviation
    assert (fast - exact).abs().mean() < 1.5 * (slow - exact).abs().mean()


def test_dropout_and_other_devices_stay_with_the_layers():
    x = torch.zeros(1, 2, 6)
    assert time_major.supports(x, blocks_of(False)) and time_major.supports(x, blocks_of(False, 0.1).eval())
    assert not time_major.supports(x, blocks_of(False, 0.1))
    assert not time_major.supports(x.to("meta"), blocks_of(False))
