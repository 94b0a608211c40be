"""The reference models: the paper's sizes, and every fast form against a slow or independent one."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from lifting.models import build
from lifting.models.temporal import TemporalConfig, TemporalModel, lift_sequence, trajectory_config

WIDTHS = [(1, 1, 1), (3,), (3, 3), (3, 3, 3), (5, 3), (3, 1, 5)]


def small_model(widths=(3, 3, 3), seed: int = 0, **options) -> TemporalModel:
    """A float64 model in eval mode whose batch norms do something and leave the ReLUs alive."""
    torch.manual_seed(seed)
    model = TemporalModel(5, 2, 4, widths, channels=16, **options).double().eval()
    for name, values in model.named_buffers():
        if "running_var" in name:
            values.uniform_(0.02, 0.1)
        elif "running_mean" in name:
            values.uniform_(-0.3, 0.1)
    return model


def sequence(frames: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, frames, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(frames))


def parameters(config: TemporalConfig) -> int:
    with torch.device("meta"):
        return sum(values.numel() for values in build(config).parameters())


@pytest.mark.parametrize(("widths", "field", "pose", "trajectory"), [
    ((1,) * 5, 1, 8_494_131, 8_444_931), ((3,) * 3, 27, 8_555_571, 8_506_371),
    ((3,) * 4, 81, 12_753_971, 12_704_771), ((3,) * 5, 243, 16_952_371, 16_903_171)])
def test_parameters_and_receptive_fields_are_the_papers(widths, field, pose, trajectory):
    config = TemporalConfig(widths=widths)
    assert config.receptive_field == field
    assert parameters(config) == pose and parameters(trajectory_config(config)) == trajectory


@pytest.mark.parametrize(("joints_in", "features", "joints_out", "widths", "count"), [
    (17, 3, 17, (3,) * 5, 17_004_595), (17, 2, 15, (3,) * 3, 8_549_421)])
def test_parameters_of_other_published_models(joints_in, features, joints_out, widths, count):
    assert parameters(TemporalConfig(joints_in, features, joints_out, widths)) == count


def test_tensor_shapes_are_those_of_the_published_checkpoints():
    with torch.device("meta"):
        model = build(TemporalConfig(widths=(3,) * 5))
    shapes = {name: tuple(values.shape) for name, values in model.state_dict().items()}
    assert shapes["expand_conv.weight"] == (1024, 34, 3)
    assert all(shapes[f"blocks.{index}.time_conv.weight"] == (1024, 1024, 3) for index in range(4))
    assert all(shapes[f"blocks.{index}.mix_conv.weight"] == (1024, 1024, 1) for index in range(4))
    assert shapes["shrink.weight"] == (51, 1024, 1) and shapes["shrink.bias"] == (51,)
    assert len(shapes) == 1 + 5 + 4 * 12 + 2  # expansion with its norm, four blocks, shrink


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("causal", [False, True])
def test_receptive_field_and_alignment_are_what_the_gradient_says(widths, causal):
    model = small_model(widths, causal=causal)
    field = math.prod(widths)
    x = sequence(field + 4, batch=1).requires_grad_()
    model(x)[0, 2].sum().backward()
    touched = torch.nonzero(x.grad.abs().sum((0, 2, 3)))[:, 0]
    assert (touched.min().item(), touched.max().item()) == (2, 2 + field - 1)
    before, after = model.padding
    assert before + after == field - 1 and after == (0 if causal else before)


@pytest.mark.parametrize("causal", [False, True])
def test_the_residual_path_carries_the_frame_that_the_output_belongs_to(causal):
    model = small_model((3, 3, 3), causal=causal)
    for block in model.blocks:
        torch.nn.init.zeros_(block.mix_norm.weight)  # only the residual path is left, and the expansion's three frames
        torch.nn.init.zeros_(block.mix_norm.bias)
    x = sequence(27, batch=1).requires_grad_()
    model(x).sum().backward()
    touched = torch.nonzero(x.grad.abs().sum((0, 2, 3)))[:, 0].tolist()
    assert touched == ([24, 25, 26] if causal else [12, 13, 14])


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("causal", [False, True])
def test_strided_form_equals_the_dilated_one(widths, causal):
    model = small_model(widths, causal=causal)
    x = sequence(model.receptive_field, batch=3)
    assert torch.max(torch.abs(model.forward_strided(x) - model(x))) < 1e-10


def test_strided_form_shares_its_parameters_gradients():
    model = small_model((3, 3))
    x = sequence(9)
    gradients = []
    for form in (model.forward, model.forward_strided):
        model.zero_grad()
        form(x).square().sum().backward()
        gradients.append([values.grad.clone() for values in model.parameters()])
    for dilated, strided in zip(*gradients, strict=True):
        torch.testing.assert_close(strided, dilated, rtol=1e-9, atol=1e-10)


def test_strided_form_normalises_only_the_frames_it_computes():
    model = small_model((3, 3), dropout=0.0).train()
    x = sequence(9)
    hidden = functional.conv1d(x.flatten(2).transpose(1, 2), model.expand_conv.weight, stride=3)
    model.forward_strided(x)
    expected = 0.9 * small_model((3, 3)).expand_norm.running_mean + 0.1 * hidden.mean((0, 2))
    torch.testing.assert_close(model.expand_norm.running_mean, expected)


@pytest.mark.parametrize("frames", [1, 2, 26, 27, 40])
@pytest.mark.parametrize("causal", [False, True])
def test_sequences_equal_one_padded_window_per_frame(frames, causal):
    model = small_model(causal=causal)
    x = sequence(frames)
    before, after = model.padding
    padded = torch.cat([x[:, :1]] * before + [x] + [x[:, -1:]] * after, dim=1)
    slow = torch.cat([model.forward_strided(padded[:, start : start + 27]) for start in range(frames)], dim=1)
    fast = lift_sequence(model, x)
    assert fast.shape == (2, frames, 4, 3)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-10)


@pytest.mark.parametrize("block_frames", [1, 7, 50, 51])
def test_blocks_have_no_seams(block_frames):
    model = small_model()
    x = sequence(50)
    torch.testing.assert_close(lift_sequence(model, x, block_frames), lift_sequence(model, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dense", [False, True])
def test_causal_model_never_looks_ahead(dense):
    model = small_model(causal=True, dense=dense)
    x = sequence(60)
    later = x.clone()
    later[:, 30:] = sequence(30) + 2
    before, after = lift_sequence(model, x), lift_sequence(model, later)
    assert torch.equal(before[:, :30], after[:, :30])
    assert not torch.equal(before[:, 30], after[:, 30])


def test_symmetric_model_does_look_ahead():
    model = small_model()
    x = sequence(60)
    later = x.clone()
    later[:, 30:] = sequence(30) + 2
    same = [torch.equal(a, b) for a, b in zip(lift_sequence(model, x)[0], lift_sequence(model, later)[0], strict=True)]
    assert same == [True] * 17 + [False] * 43  # 13 frames ahead


def test_causal_shift_counts_each_dilation_once():
    assert small_model((3, 3, 3, 3), causal=True).causal_shift == 40
    assert small_model((3, 3, 3, 3)).causal_shift == 0


@pytest.mark.parametrize("causal", [False, True])
def test_dense_model_with_the_dilated_taps_and_zeros_between_is_the_dilated_model(causal):
    dilated, dense = small_model(causal=causal), small_model(causal=causal, dense=True, seed=1)
    state = dilated.state_dict()
    for index, dilation in enumerate((3, 9)):
        name = f"blocks.{index}.time_conv.weight"
        filled = torch.zeros_like(dense.state_dict()[name])
        assert filled.shape[2] == 2 * dilation + 1
        filled[:, :, ::dilation] = state[name]
        state[name] = filled
    dense.load_state_dict(state)
    x = sequence(40)
    torch.testing.assert_close(dense(x), dilated(x), rtol=0, atol=1e-12)


def test_trajectory_net_gives_one_point_per_frame():
    config = trajectory_config(TemporalConfig(5, 2, 4, (3, 3), 8, causal=True))
    assert config.causal and config.joints_out == 1
    assert lift_sequence(build(config).eval(), sequence(6).float()).shape == (2, 6, 1, 3)


def test_dropout_and_norm_momentum_reach_every_layer():
    model = TemporalModel(5, 2, 4, (3, 3, 3), channels=8, dropout=0.4)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.4}
    model.set_norm_momentum(0.02)
    momenta = [module.momentum for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert momenta == [0.02] * 5
    with pytest.raises(ValueError, match="momentum is 0"):
        model.set_norm_momentum(0)


@pytest.mark.parametrize("values", [
    {"widths": ()}, {"widths": (3, 2)}, {"widths": (3, -1)}, {"widths": (3.0,)}, {"channels": 0}, {"joints_in": -1},
    {"features_in": 1.5}, {"dropout": 1.0}, {"dropout": float("nan")}])
def test_impossible_configurations_are_refused(values):
    with pytest.raises(ValueError, match="expected"):
        TemporalConfig(**values)


def test_configuration_from_json_builds_the_same_model():
    assert TemporalConfig(widths=[3, 3]) == TemporalConfig(widths=(3, 3))
    assert build(TemporalConfig(5, 2, 4, [3, 3], 8)).config == TemporalConfig(5, 2, 4, (3, 3), 8)
    with pytest.raises(ValueError, match="The config is a dict"):
        build({"widths": (3, 3)})


def test_wrong_inputs_are_refused_in_a_sentence():
    model = small_model()
    with pytest.raises(ValueError, match=r"expected \(N, T, 5, 2\)"):
        model(torch.zeros(1, 30, 10, dtype=torch.float64))
    with pytest.raises(ValueError, match="26 frames, expected 27 or more"):
        model(sequence(26))
    with pytest.raises(ValueError, match="28 frames, expected 27"):
        model.forward_strided(sequence(28))
    with pytest.raises(ValueError, match="The model is dense"):
        small_model(dense=True).forward_strided(sequence(27))
    with pytest.raises(ValueError, match="T >= 1"):
        lift_sequence(model, sequence(0))
    with pytest.raises(ValueError, match="block_frames is 0"):
        lift_sequence(model, sequence(3), 0)
    with pytest.raises(ValueError, match="training mode"):
        lift_sequence(model.train(), sequence(3))
