"""The predictors' networks against slow twins and published forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dct
from torch import nn
from torch.nn import functional

from experiments.train_future import error_statistics
from lifting.models.future import (
    FEATURES,
    JOINTS,
    KINDS,
    OUTPUTS,
    SIGMAS,
    SPEED,
    FutureConfig,
    WithMirrorImage,
    build_future,
    cosine_basis,
)
from lifting.skeletons import get_skeleton

WIDTH, CONTEXT, FUTURE = 12, 7, 5


def network_of(kind: str, layers: int = 2, awake: bool = True) -> nn.Module:
    torch.manual_seed(0)
    network = build_future(FutureConfig(kind, CONTEXT, FUTURE, WIDTH, layers)).eval()
    if awake:  # heads start at zero
        for layer in (network.heads.values, network.heads.log_sigma):
            nn.init.normal_(layer.weight, std=0.1)
    return network


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_basis_is_the_orthonormal_cosine_transform():
    signal = np.random.default_rng(0).normal(size=(6, 3))
    np.testing.assert_allclose(cosine_basis(6).double().numpy() @ signal, dct(signal, axis=0, norm="ortho"), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_network_says_that_nobody_moves_and_ten_centimetres(kind):
    values, log_sigma = network_of(kind, awake=False)(random(3, CONTEXT, FEATURES))
    assert values.shape == (3, FUTURE, OUTPUTS) and not values.any()
    assert log_sigma.shape == (3, FUTURE, SIGMAS)
    torch.testing.assert_close(log_sigma.exp(), torch.full_like(log_sigma, 0.1))


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_a_batch_do_not_see_each_other(kind):
    network, context = network_of(kind), random(3, CONTEXT, FEATURES)
    together, alone = network(context), network(context[1:2])
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one[1:2], other)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_teach_the_sigma_head_alone(kind):
    network = network_of(kind)
    network(random(2, CONTEXT, FEATURES))[1].sum().backward()
    taught = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert taught == {f"heads.{layer}.{part}" for layer in ("doubt", "log_sigma") for part in ("weight", "bias")}


def test_one_shot_network_is_that_of_the_paper_written_channel_by_channel():
    network, context = network_of("dct_mlp"), random(2, CONTEXT, FEATURES)
    points = context[..., :OUTPUTS]
    speeds = SPEED * torch.cat([torch.zeros(2, 1, OUTPUTS), points[:, 1:] - points[:, :-1]], 1)
    inputs = torch.cat([context, 5 * (points - points[:, -1:]), speeds], -1)
    x = network.stem(torch.einsum("kt,ntc->nkc", cosine_basis(CONTEXT), inputs))
    for block in network.blocks:
        x = x + block.time(block.time_norm(x).transpose(1, 2)).transpose(1, 2)
        x = x + functional.gelu(block.channels(block.channel_norm(x)))
    x = network.resize(x.transpose(1, 2)).transpose(1, 2)
    expected = network.heads.values(torch.einsum("kt,nkc->ntc", cosine_basis(FUTURE), x))
    torch.testing.assert_close(network(context)[0], expected, atol=1e-5, rtol=1e-4)


def test_recurrent_network_reads_the_past_as_a_plain_gru():
    network, context = network_of("gru"), random(2, CONTEXT, FEATURES)
    plain = nn.GRU(WIDTH, WIDTH, 2, batch_first=True)
    with torch.no_grad():
        for number, cell in enumerate(network.cells):
            for name, value in cell.named_parameters():
                getattr(plain, f"{name}_l{number}").copy_(value)
    points = context[..., :OUTPUTS]
    speeds = SPEED * torch.cat([torch.zeros(2, 1, OUTPUTS), points[:, 1:] - points[:, :-1]], 1)
    x, _ = plain(functional.gelu(network.stem(torch.cat([context, speeds], -1))))
    torch.testing.assert_close(network(context)[0][:, 0], network.heads.values(x[:, -1]))


def test_convolutions_frame_by_frame_are_those_over_the_whole_sequence():
    network, context = network_of("pose_convolution"), random(2, CONTEXT, FEATURES)
    said = network(context)[0]
    followed = torch.cat([context[:, -1:, :OUTPUTS] + said, context[:, -1:, OUTPUTS:].expand(-1, FUTURE, -1)], -1)
    x = network.stem(torch.cat([context, followed[:, :-1]], 1))
    for block in network.blocks:
        x = block(x)
    torch.testing.assert_close(said, network.heads.values(x[:, CONTEXT - 1 :]).cumsum(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gru", "pose_convolution"])
def test_with_the_truth_shown_a_frame_depends_on_true_frames_before_it_alone(kind):
    network, context, truth = network_of(kind), random(2, CONTEXT, FEATURES), random(2, FUTURE, OUTPUTS, seed=2)
    said = network(context, truth, 0.0)[0]
    changed = truth.clone()
    changed[:, 2] += 1
    other = network(context, changed, 0.0)[0]
    assert torch.equal(said[:, :3], other[:, :3])
    assert (said[:, 3] != other[:, 3]).all()
    # What follows the truth starts from it.
    step = network.heads.values.bias.abs().max() + network.heads.values.weight.abs().sum(1).max() * 50
    assert (said[:, 1:] - truth[:, :-1]).abs().max() < step


@pytest.mark.parametrize("kind", ["gru", "pose_convolution"])
def test_scheduled_sampling_ends_with_own_predictions_alone(kind):
    network, context, truth = network_of(kind), random(2, CONTEXT, FEATURES), random(2, FUTURE, OUTPUTS, seed=2)
    assert torch.equal(network(context, truth, 1.0)[0], network(context)[0])
    torch.manual_seed(3)
    halfway = network(context.repeat(40, 1, 1), truth.repeat(40, 1, 1), 0.5)[0]
    shown = network(context.repeat(40, 1, 1), truth.repeat(40, 1, 1), 0.0)[0]
    followed_truth = torch.isclose(halfway[:, 1], shown[:, 1])
    assert 0.2 < followed_truth.all(-1).float().mean() < 0.8


def test_unknown_kinds_and_empty_networks_are_refused():
    with pytest.raises(ValueError, match="'lstm', expected one of dct_mlp, gru"):
        FutureConfig("lstm")
    with pytest.raises(ValueError, match="size below 1"):
        FutureConfig(width=0)


def test_the_mean_with_the_mirror_image_is_that_of_both_sides():
    network = network_of("gru")
    both, context = WithMirrorImage(network), random(2, CONTEXT, FEATURES)
    values, log_sigma = both(context)
    joints, flip = get_skeleton("h36m17").joints, get_skeleton("h36m17").flip

    def mirrored(points: torch.Tensor) -> torch.Tensor:
        rows = points[..., : 3 * JOINTS].unflatten(-1, (JOINTS, 3))
        rows = torch.stack([rows[..., flip[k] - 1, :] for k in range(1, len(joints))], -2) * torch.tensor([-1.0, 1, 1])
        return torch.cat([rows.flatten(-2), points[..., 3 * JOINTS :] * torch.tensor([-1.0, 1, 1])], -1)

    doubt = torch.stack([context[..., OUTPUTS + flip[k] - 1] for k in range(1, len(joints))], -1)
    one, (two, two_sigma) = network(context), network(torch.cat([mirrored(context[..., :OUTPUTS]), doubt], -1))
    torch.testing.assert_close(values, (one[0] + mirrored(two)) / 2)
    torch.testing.assert_close(log_sigma, (one[1] + two_sigma[..., list(flip)]) / 2)


def test_statistics_of_errors_hold_the_share_they_promise():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(4000, 2)) @ rng.normal(size=(2, FUTURE * SIGMAS * 3))  # all errors hang together
    errors = 0.05 * hidden.reshape(4000, FUTURE, SIGMAS, 3)
    target = torch.from_numpy(np.concatenate([errors[..., 1:, :].reshape(4000, FUTURE, -1), errors[..., 0, :]], -1))
    log_sigma = torch.full((4000, FUTURE, SIGMAS), float(np.log(0.02)))
    found = error_statistics(torch.zeros_like(target), log_sigma, target)
    sigma = 0.02 * found["sigma_factor"].numpy()
    inside = np.linalg.norm(errors, axis=-1) < sigma
    np.testing.assert_allclose(inside[..., 0].mean(0), 0.68, atol=1e-3)
    np.testing.assert_allclose(inside[..., 1:].mean((0, 2)), 0.68, atol=1e-3)
    patterns = found["error_patterns"].numpy()
    drawn = np.tensordot(rng.normal(size=(4000, len(patterns))), patterns, 1)
    shares = (errors / sigma[..., None] < np.quantile(drawn, 0.84, axis=0)).mean(0)
    np.testing.assert_allclose(shares, 0.84, atol=0.03)
