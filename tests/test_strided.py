"""Training of the strided form on little memory: the same numbers as plain layers, masks, processes and memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lifting.models import strided
from lifting.models.temporal import TemporalModel, lift_sequence

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTHS = [(3, 3), (3, 3, 3), (5, 3), (3, 1, 5), (1, 1, 1)]
CHANNELS = 16


def training_model(widths=(3, 3, 3), dtype=torch.float64, **options) -> TemporalModel:
    """A model in training mode whose norms are far from where they start."""
    torch.manual_seed(0)
    model = TemporalModel(5, 2, 4, widths, CHANNELS, **options).train()
    model.set_norm_momentum(0.3)
    for name, values in [*model.named_buffers(), *model.named_parameters()]:
        if "running_mean" in name or name.endswith("norm.bias"):
            nn.init.uniform_(values, -0.3, 0.5)
        elif "running_var" in name or name.endswith("norm.weight"):
            nn.init.uniform_(values, -0.5 if name.endswith("weight") else 0.5, 1.5)
    return model.to(dtype)


def windows(model: TemporalModel, count: int = 7) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, model.receptive_field, 5, 2, dtype=model.shrink.weight.dtype) + 3


def step(model: TemporalModel, x: Tensor, bfloat16: bool = False) -> dict[str, Tensor]:
    """Outputs, all gradients and the state after a step that depends on every output differently."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        y = model.forward_strided(x)
    (y.square() + y * torch.arange(y.numel()).view_as(y).sin()).mean().backward()
    gradients = {f"gradient of {name}": values.grad.clone() for name, values in model.named_parameters()}
    return {"outputs": y.detach(), **gradients, **{name: values.clone() for name, values in model.state_dict().items()}}


def plainly(monkeypatch, model: TemporalModel, x: Tensor, **options) -> dict[str, Tensor]:
    """The same step with torch's layers."""
    with monkeypatch.context() as patch:
        patch.setattr(strided, "supports", lambda *_: False)
        return step(model, x, **options)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        difference = (found[name].double() - values.double()).abs().max()
        assert difference <= tolerance * max(1e-3, values.abs().max().item()), name


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("chunk_rows", [10, 4096])
def test_step_is_that_of_plain_layers(monkeypatch, widths, causal, chunk_rows):
    monkeypatch.setattr(strided, "CHUNK_ROWS", chunk_rows)
    one, other = (training_model(widths, causal=causal, dropout=0.0) for _ in range(2))
    assert strided.supports(one, windows(one))
    assert_same(step(one, windows(one)), plainly(monkeypatch, other, windows(other)), 1e-11)


def test_step_in_single_precision_is_that_in_double():
    exact = step(training_model(dropout=0.0), windows(training_model(), 64))
    single = windows(training_model(), 64).float()
    own = step(training_model(dtype=torch.float32, dropout=0.0), single)
    assert_same(own, exact, 2e-5)


def test_step_under_autocast_is_as_close_as_plain_layers_and_outputs_are_not_rounded(monkeypatch):
    x = windows(training_model(), 64)
    exact = step(training_model(dropout=0.0), x)
    own = step(training_model(dtype=torch.float32, dropout=0.0), x.float(), bfloat16=True)
    plain = plainly(monkeypatch, training_model(dtype=torch.float32, dropout=0.0), x.float(), bfloat16=True)
    names = [name for name in exact if name == "outputs" or "gradient" in name]
    error, theirs = (sum((found[name] - exact[name]).norm() / exact[name].norm() for name in names)
                     for found in (own, plain))
    assert error <= 1.2 * theirs
    assert own["outputs"].dtype == torch.float32
    assert not torch.equal(own["outputs"], own["outputs"].bfloat16().float())


@pytest.mark.parametrize("training", [False, True])
def test_last_layer_is_exact_under_autocast(training):
    model = training_model(dtype=torch.float32).train(training)
    with torch.autocast("cpu", torch.bfloat16):
        y = model.forward_strided(windows(model))
        dilated = model(windows(model))
    assert y.dtype == dilated.dtype == torch.float32
    assert not torch.equal(y, y.bfloat16().float())


@pytest.mark.parametrize("probability", [0.25, 0.1])
def test_masks_drop_the_given_share_independently_and_keep_the_mean(probability):
    torch.manual_seed(3)
    dropout = strided._Dropout.draw(probability)
    values = torch.ones(1000, 333)
    first = dropout.apply_(values.clone(), generator := dropout.generator())
    second = dropout.apply_(values.clone(), generator)
    again = dropout.apply_(values.clone(), dropout.generator())
    assert torch.equal(first, again) and not torch.equal(first, second)
    spread = (probability * (1 - probability) / values.numel()) ** 0.5
    for dropped in (first == 0, second == 0):
        assert abs(dropped.float().mean() - probability) < 4 * spread
    both = ((first == 0) & (second == 0)).float().mean()
    assert abs(both - probability**2) < 4 * (probability**2 / values.numel()) ** 0.5
    for axis in (0, 1):  # no row and no column is special
        share = (first == 0).float().mean(axis)
        assert (share - probability).abs().max() < 5 * (probability * (1 - probability) / values.shape[axis]) ** 0.5
    neighbours = ((first[:, 1:] == 0) & (first[:, :-1] == 0)).float().mean()
    assert abs(neighbours - probability**2) < 0.003
    assert dropout.keep == pytest.approx(1 - probability, abs=1e-5)


def test_dropout_has_the_moments_of_plain_layers(monkeypatch):
    def outputs(model, x):
        with torch.no_grad():
            return torch.stack([model.forward_strided(x) for _ in range(150)])

    model = training_model((3, 3), dropout=0.25)
    x = windows(model, 4)
    own = outputs(model, x)
    monkeypatch.setattr(strided, "supports", lambda *_: False)
    plain = outputs(model, x)
    torch.testing.assert_close(own.mean(0), plain.mean(0), rtol=0, atol=5 * plain.std(0).max().item() / 150**0.5)
    torch.testing.assert_close(own.std(0), plain.std(0), rtol=0.5, atol=0)


def test_dropout_follows_from_torchs_generator_and_gradients_see_the_same_masks():
    model = training_model(dropout=0.25)
    x = windows(model)

    def lift(seed):
        torch.manual_seed(seed)
        return model.forward_strided(x)

    assert torch.equal(lift(5), lift(5)) and not torch.equal(lift(5), lift(6))
    weight = model.blocks[0].time_conv.weight
    lift(5).square().sum().backward()
    direction = torch.sin(torch.arange(weight.numel(), dtype=torch.float64)).view_as(weight)
    slopes = []
    for sign in (1e-6, -1e-6):
        with torch.no_grad():
            weight += sign * direction
            slopes.append(lift(5).square().sum().item())
            weight -= sign * direction
    assert (weight.grad * direction).sum().item() == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=1e-5)


class DoublingNorm(nn.BatchNorm1d):
    """As if another process held the same rows: sums are doubled, means and gradients stay."""

    messages = 0

    @classmethod
    def sum_over_ranks(cls, values: Tensor) -> Tensor:
        cls.messages += 1
        return 2 * values


def test_norms_that_share_sums_with_other_processes_are_asked():
    model, alone = training_model(dropout=0.0), training_model(dropout=0.0)
    for norm in [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]:
        norm.__class__ = DoublingNorm
    found, expected = step(model, windows(model)), step(alone, windows(alone))
    assert DoublingNorm.messages == 5
    for norm in ("expand_norm", "blocks.0.time_norm"):  # only the count in the unbiased variance differs
        rows = 7 * (9 if norm == "expand_norm" else 3)
        start = training_model().state_dict()[f"{norm}.running_var"]
        taken = found[f"{norm}.running_var"] - 0.7 * start, expected[f"{norm}.running_var"] - 0.7 * start
        torch.testing.assert_close(taken[0] * (2 * rows - 1) / (2 * rows), taken[1] * (rows - 1) / rows)
    rest = [name for name in expected if not name.endswith("running_var")]
    assert_same({name: found[name] for name in rest}, {name: expected[name] for name in rest}, 1e-11)


class OtherNorm(nn.BatchNorm1d):
    """One that says nothing of how it shares its sums."""


def test_plain_layers_serve_what_is_not_supported():
    model = training_model()
    x = windows(model).flatten(2)
    assert strided.supports(model, x)
    assert not strided.supports(training_model((3,)), x)
    assert not strided.supports(model, x.clone().requires_grad_())
    assert not strided.supports(model.eval(), x)
    assert not strided.supports(model.train().to("meta"), x.to("meta"))
    model = training_model()
    model.expand_norm.eval()
    assert not strided.supports(model, x)
    model.train().blocks[1].mix_norm.__class__ = OtherNorm
    assert not strided.supports(model, x)


def test_gradient_of_the_input_is_still_there():
    model = training_model(dropout=0.0)
    x = windows(model).requires_grad_()
    model.forward_strided(x).square().sum().backward()
    assert x.grad.abs().max() > 0


def test_evaluation_after_a_step_uses_its_running_statistics():
    own = training_model(dropout=0.0)
    x = windows(own)
    own.forward_strided(x)
    torch.testing.assert_close(lift_sequence(own.eval(), x)[:, 13:14], own.forward_strided(x), rtol=0, atol=1e-11)


def test_nothing_but_products_is_kept_for_the_backward_pass():
    model, kept = training_model(dropout=0.25), {}
    x = windows(model)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        model.forward_strided(x)
    rows = [values.shape[0] for values in kept.values() if values.ndim == 2 and values.shape[1] == CHANNELS]
    hidden = sorted(count for count in rows if count != CHANNELS)  # those are weights
    assert hidden == [7, 7, 21, 21, 21]  # of both blocks two products, and the frames between; nothing of 63 rows
