"""Losses of temporal body models: nought at the truth, Eq. 6 against a solver, who learns from what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from body_pieces import body_piece, lite
from hypothesis import given, settings
from hypothesis import strategies as st

from lifting.datasets.strip_windows import StripBatch, body_flip, make_batch
from lifting.models.strips.body import StripBody
from lifting.models.strips.readout import BodyState, codes_from_rotations
from lifting.strip_features import SOURCE
from lifting.training.strip_losses import (
    KEYPOINT_REACH,
    LOSS_WEIGHTS,
    adversarial_loss,
    body_losses,
    discriminator_loss,
    distillation_loss,
    keypoint_loss,
    orthographic_camera,
    tensors,
)

BODY = StripBody(lite())
SIGMA = torch.ones(lite().num_shape)


def batch_of(frames: int = 6, noise: float = 0.0) -> StripBatch:
    return tensors(make_batch([body_piece(frames, seed, noise) for seed in range(2)], body_flip(lite().joints)))


def truth_of(batch: StripBatch) -> BodyState:
    shape = batch.shape[:, None].expand(-1, batch.rotations.shape[1], -1)
    return BodyState(batch.rotations, shape, batch.way, codes_from_rotations(batch.rotations))


def bent(state: BodyState) -> BodyState:
    """Another pose: every joint turned by a tenth of a radian."""
    c, s = np.cos(0.1), np.sin(0.1)
    turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float32)
    return state._replace(rotations=state.rotations @ turn)


def test_the_truth_costs_nothing():
    batch = batch_of()
    losses = body_losses(truth_of(batch), batch, BODY, SIGMA)
    assert set(losses) == set(LOSS_WEIGHTS) - {"adversarial"}
    for name in ("joints", "rotations", "shape", "way", "constant_shape"):
        assert losses[name] < 1e-4, name
    assert losses["keypoints"] < 1e-6
    assert losses["prior"] == pytest.approx(float(batch.shape.square().mean()), rel=1e-5)


def test_errors_cost_what_they_are():
    batch = batch_of()
    state = truth_of(batch)
    moved = state._replace(way=state.way + torch.tensor([0.05, 0, 0, 0.05]), shape=state.shape + 0.5)
    losses = body_losses(moved, batch, BODY, SIGMA / 2)
    assert losses["way"] == pytest.approx(0.5, rel=1e-4)  # a unit in two of four
    assert losses["shape"] == pytest.approx(1.0, rel=1e-4)  # half is one standard deviation
    turned = body_losses(bent(state), batch, BODY, SIGMA)
    assert turned["rotations"] == pytest.approx(2 * (2 - 2 * np.cos(0.1)), rel=1e-3)  # |R - I|^2 about one axis
    by_hand = (BODY.joints(bent(state)) - batch.joints)[:, :, 1:].norm(dim=-1).mean()
    assert turned["joints"] == pytest.approx(float(by_hand), rel=1e-5) and by_hand > 0.01


def test_a_single_frame_has_no_change_of_shape():
    batch = batch_of(1)
    assert "constant_shape" not in body_losses(truth_of(batch), batch, BODY, SIGMA)


def test_shape_that_changes_costs():
    batch = batch_of(3)
    state = truth_of(batch)
    steps = torch.tensor([0.0, 1.0, 3.0])[None, :, None]
    losses = body_losses(state._replace(shape=state.shape + steps), batch, BODY, SIGMA)
    assert losses["constant_shape"] == pytest.approx((1 + 4) / 2, rel=1e-4)


def test_clips_with_2d_only_teach_by_their_keypoints_only():
    batch = batch_of()._replace(labelled=torch.tensor([1.0, 0.0]))
    state = bent(truth_of(batch))
    state = BodyState(*(value.detach().requires_grad_() for value in state))
    losses = body_losses(state, batch, BODY, SIGMA)
    alone = body_losses(BodyState(*(value[:1] for value in state)),
                        StripBatch(*(value[:1] for value in batch)), BODY, SIGMA)  # fmt: skip
    for name in ("joints", "rotations", "shape", "way"):
        assert losses[name].item() == pytest.approx(alone[name].item(), rel=1e-5)
    sum(losses[name] for name in ("joints", "rotations", "shape", "way")).backward(retain_graph=True)
    assert not state.rotations.grad[1].any() and state.rotations.grad[0].any()
    losses["keypoints"].backward()
    assert state.rotations.grad[1].any()


def test_a_batch_without_truth_costs_nothing_in_3d():
    batch = batch_of()._replace(labelled=torch.zeros(2))
    losses = body_losses(bent(truth_of(batch)), batch, BODY, SIGMA)
    assert losses["joints"] == losses["rotations"] == 0 and losses["keypoints"] > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_camera_of_equation_6_is_that_of_a_least_squares_solver(seed):
    rng = np.random.default_rng(seed)
    points, weight = rng.normal(size=(13, 2)), rng.uniform(0, 1, 13) * (rng.uniform(size=13) < 0.8) + 1e-3
    target = rng.uniform(0.8, 1.3) * points + rng.normal(size=2) + 0.05 * rng.normal(size=(13, 2))
    scale, shift = orthographic_camera(*(torch.from_numpy(a)[None] for a in (points, target, weight)))
    rows = np.concatenate([np.stack([points[:, k], np.full(13, k == 0), np.full(13, k == 1)], 1) for k in range(2)])
    root = np.sqrt(np.concatenate([weight, weight]))
    best = np.linalg.lstsq(rows * root[:, None], target.T.ravel() * root, rcond=None)[0]
    np.testing.assert_allclose([scale[0], *shift[0]], best, atol=1e-4)


def test_the_scale_stays_near_one_and_nothing_visible_does_not_matter():
    points, weight = torch.randn(1, 13, 2, generator=torch.Generator().manual_seed(0)), torch.ones(1, 13)
    for factor, scale in ((5.0, 1.4), (0.1, 0.7), (-1.0, 0.7)):
        assert orthographic_camera(points, factor * points, weight)[0] == pytest.approx(scale)
    scale, shift = orthographic_camera(points, points, torch.zeros(1, 13))
    assert scale.isfinite().all() and shift.isfinite().all()


def test_the_keypoint_loss_by_hand():
    batch = batch_of(3, noise=0.05)
    batch.scores[0, 1, 4], batch.rays[0, 1, 4] = 0.0, torch.nan
    state = bent(truth_of(batch))
    joints, cost, total = BODY.joints(state), 0.0, 0.0
    for n in range(2):
        for t in range(3):
            camera = (joints[n, t, SOURCE] @ batch.camera[n, t].T).double()
            weight = batch.scores[n, t].double()
            goal = torch.nan_to_num(batch.rays[n, t].double()) * (batch.depth[n, t] + camera[:, 2:])
            mean, goal_mean = (weight @ values / weight.sum() for values in (camera[:, :2], goal))
            x, y = camera[:, :2] - mean, goal - goal_mean
            scale = float((weight[:, None] * x * y).sum() / (weight[:, None] * x * x).sum())
            miss = (min(max(scale, 0.7), 1.4) * x - y).square().sum(-1)
            cost += float((weight * miss / KEYPOINT_REACH / (1 + miss / KEYPOINT_REACH**2)).sum())
            total += float(weight.sum())
    assert keypoint_loss(joints, batch) == pytest.approx(cost / total, rel=1e-3)


def test_gradients_are_finite_when_nothing_is_visible():
    batch = batch_of()
    batch = batch._replace(scores=torch.zeros_like(batch.scores), rays=torch.full_like(batch.rays, torch.nan))
    joints = batch.joints.clone().requires_grad_()
    loss = keypoint_loss(joints, batch)
    loss.backward()
    assert loss == 0 and joints.grad.isfinite().all()


def test_a_keypoint_that_is_far_off_pulls_no_harder():
    batch = batch_of(1)
    grads = []
    for off in (0.05, 3.0):
        rays = batch.rays.clone()
        rays[0, 0, 5, 0] += off
        joints = batch.joints.clone().requires_grad_()
        keypoint_loss(joints, batch._replace(rays=rays)).backward()
        grads.append(joints.grad[0, 0, SOURCE[5]].norm())
    assert grads[1] < 0.2 * grads[0]


def test_answers_that_network_and_discriminator_want():
    real, made = torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.5]])
    assert adversarial_loss(made) == 1 + 0.25
    assert discriminator_loss(real, made) == 0.5 + 0.25
    assert discriminator_loss(torch.ones(3, 2), torch.zeros(3, 2)) == 0 == adversarial_loss(torch.ones(3, 2))


def test_real_strips_do_not_learn_from_distillation():
    predicted, strips = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    loss = distillation_loss(predicted, strips)
    assert loss.item() == pytest.approx((predicted - strips).square().mean().item())
    loss.backward()
    assert strips.grad is None and predicted.grad.any()
