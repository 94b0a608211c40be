"""Inference by folded norms and matrix products: the same as plain layers, and what bfloat16 changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lifting.models import full_sequence
from lifting.models.full_sequence import FoldedModel
from lifting.models.temporal import TemporalModel, lift_sequence

pytestmark = pytest.mark.usefixtures("one_thread")


def model(widths=(3, 3, 3), channels: int = 16, joints_out: int = 4, **options) -> TemporalModel:
    """A model in eval mode whose norms are far from where they start."""
    torch.manual_seed(0)
    made = TemporalModel(5, 2, joints_out, widths, channels, **options).eval()
    for name, values in [*made.named_buffers(), *made.named_parameters()]:
        if "running_mean" in name or name.endswith("norm.bias"):
            nn.init.uniform_(values, -0.3, 0.3)
        elif "running_var" in name or name.endswith("norm.weight"):
            nn.init.uniform_(values, 0.5, 1.5)
    return made


def frames(count: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, count, 5, 2, generator=torch.Generator().manual_seed(count))


def trained(channels: int = 1024) -> tuple[TemporalModel, Tensor]:
    """A wide model and sequences whose poses its last layer has learned, in closed form: outputs as of trained nets."""
    net = model(channels=channels, joints_out=17).train()
    steps = torch.arange(300) / 50
    phases = torch.rand(3, 1, 10) * 6
    x = (torch.sin(steps[:, None] * torch.linspace(1, 5, 10) + phases) * 0.4).unflatten(2, (5, 2))
    hidden = []
    net.shrink.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0].transpose(1, 2).flatten(0, 1)))
    with torch.no_grad():
        for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm1d)):
            norm.momentum = 1.0
        net(x)
        net.eval()(x)
        features = torch.cat([hidden[-1], torch.ones(len(hidden[-1]), 1)], dim=1).double()
        poses = 0.5 * torch.tanh(x[:, 13:-13].flatten(2) @ torch.randn(10, 51) / 2).flatten(0, 1).double()
        ridge = 1e-2 * features.square().mean() * len(features) * torch.eye(channels + 1, dtype=torch.double)
        weights = torch.linalg.solve(features.T @ features + ridge, features.T @ poses).float()
        net.shrink.weight.copy_(weights[:-1].T[:, :, None])
        net.shrink.bias.copy_(weights[-1])
    net.shrink._forward_pre_hooks.clear()
    return net, x


@pytest.mark.parametrize("widths", [(1, 1, 1), (3,), (3, 3, 3), (5, 3), (3, 1, 5)])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"dense": True}, {"causal": True, "dense": True}])
@pytest.mark.parametrize("chunk_rows", [4, 2048])
def test_exact_products_are_the_plain_layers(monkeypatch, widths, options, chunk_rows):
    monkeypatch.setattr(full_sequence, "CHUNK_ROWS", chunk_rows)
    net, x = model(widths, **options).double(), frames(60).double()
    found = FoldedModel(net, torch.float64)(x)
    assert found.shape == (2, 60 - net.receptive_field + 1, 4, 3)
    torch.testing.assert_close(found, net(x), rtol=1e-11, atol=1e-11)
    single = FoldedModel(net.float(), torch.float32)(x.float())
    torch.testing.assert_close(single.double(), found, rtol=1e-4, atol=1e-5)


def test_trajectory_net_with_exact_products():
    net = model(joints_out=1)
    torch.testing.assert_close(FoldedModel(net, torch.float32)(frames(40)), net(frames(40)), rtol=1e-4, atol=1e-5)


def test_bfloat16_moves_learned_poses_by_less_than_a_millimetre():
    net, x = trained()
    with torch.no_grad():
        exact = net(x)
    off = 1000 * (FoldedModel(net)(x) - exact).norm(dim=-1)
    assert exact.std() > 0.15  # metres: as large as poses are
    assert 0 < off.mean() < 0.3 and off.max() < 1


def test_bfloat16_is_kept_out_of_the_first_and_the_last_layer_and_the_residual_path():
    net = model(channels=64)
    for block in net.blocks:
        nn.init.zeros_(block.mix_norm.weight)  # blocks add nothing, whatever they round
        nn.init.zeros_(block.mix_norm.bias)
    torch.testing.assert_close(FoldedModel(net)(frames(40)), net(frames(40)), rtol=1e-4, atol=1e-6)


def test_biases_are_not_rounded_to_three_digits():
    net = model(channels=64)
    for block in net.blocks:
        nn.init.zeros_(block.time_norm.weight)  # the bias is all that is left of the convolution
        nn.init.uniform_(block.time_norm.bias, 0.1, 1.0)
    bias = net.blocks[0].time_norm.bias
    columns = FoldedModel(net)._blocks[0].weight[:, 3 * 64 :].float()
    assert (columns.sum(1) - bias).abs().max() < 2e-5 and (bias.bfloat16().float() - bias).abs().max() > 5e-4


def test_products_are_rounded_after_their_bias():
    net = model(channels=64)
    for block in net.blocks:
        nn.init.zeros_(block.time_norm.weight)
        nn.init.ones_(block.time_norm.bias)  # so all that is hidden is 1
        nn.init.constant_(block.mix_conv.weight, 0.25)
        nn.init.constant_(block.mix_conv.weight[:, :32], 0.25 + 2**-9)  # 16.0625 in all, 0.06 from a bfloat16
        nn.init.constant_(block.mix_norm.running_mean, 16.05)
        nn.init.constant_(block.mix_norm.running_var, 1 - block.mix_norm.eps)
        nn.init.ones_(block.mix_norm.weight)
        nn.init.zeros_(block.mix_norm.bias)
    net.shrink.weight.data.abs_()  # what is rounded to one side adds up
    torch.testing.assert_close(FoldedModel(net)(frames(40)), net(frames(40)), rtol=0, atol=1e-3)


def test_weights_that_change_are_used_at_once(monkeypatch):
    monkeypatch.setattr(full_sequence, "pays", lambda *_: True)
    net, x = model(channels=32), frames(30)
    before = lift_sequence(net, x)
    net.blocks[0].mix_conv.weight.data.mul_(-1)  # behind autograd's back
    net.blocks[1].time_norm.running_mean.add_(0.5)
    after = lift_sequence(net, x)
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(after, lift_sequence(net, x, exact=True), rtol=0.02, atol=0.01)


@pytest.mark.parametrize("causal", [False, True])
def test_blocks_of_frames_have_no_seams(monkeypatch, causal):
    monkeypatch.setattr(full_sequence, "pays", lambda *_: True)
    net, x = model(channels=32, causal=causal), frames(50)
    whole = lift_sequence(net, x)
    assert not torch.equal(whole, lift_sequence(net, x, exact=True))
    for block_frames in (7, 50, 51):
        torch.testing.assert_close(lift_sequence(net, x, block_frames), whole, rtol=0, atol=0.01)


def test_the_model_is_left_as_it_was():
    net, x = model(), frames(40)
    state = {name: values.clone() for name, values in net.state_dict().items()}
    given = x.clone()
    assert not FoldedModel(net)(x).requires_grad
    assert torch.equal(x, given) and all(torch.equal(state[name], values) for name, values in net.state_dict().items())


def test_only_wide_pose_nets_in_single_precision_take_bfloat16_and_only_where_the_cpu_has_it(monkeypatch):
    def answer(channels: int = 1024, double: bool = False, **options) -> bool:
        with torch.device("meta"):
            net = TemporalModel(5, 2, options.pop("joints_out", 4), (3, 3), channels, **options)
        x = torch.zeros(1, 9, 5, 2, dtype=torch.float64 if double else torch.float32)
        return full_sequence.pays(net.double() if double else net, x)

    monkeypatch.setattr(full_sequence, "multiplies_bfloat16", lambda: True)
    assert answer() and answer(causal=True)
    assert not (answer(channels=512) or answer(joints_out=1) or answer(dense=True) or answer(double=True))
    monkeypatch.setattr(full_sequence, "multiplies_bfloat16", lambda: False)
    assert not answer()


def test_the_cpu_is_asked(monkeypatch):
    questions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    for answers in ((False, False), (False, True), (True, False)):
        for name, yes in zip(questions, answers, strict=True):
            monkeypatch.setattr(torch.cpu, name, lambda yes=yes: yes, raising=False)
        expected = any(answers) and torch.backends.mkldnn.is_available()
        assert full_sequence.multiplies_bfloat16.__wrapped__() is expected
    for name in questions:
        monkeypatch.delattr(torch.cpu, name)  # as in old versions
    assert full_sequence.multiplies_bfloat16.__wrapped__() is False


def test_wrong_inputs_are_refused_as_by_the_model():
    folded = FoldedModel(model())
    with pytest.raises(ValueError, match=r"expected \(N, T, 5, 2\)"):
        folded(torch.zeros(1, 30, 10))
    with pytest.raises(ValueError, match="26 frames, expected 27 or more"):
        folded(frames(26))
