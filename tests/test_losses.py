"""Losses against closed forms, the metrics' numpy code and finite gradients at their singular points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from walking_figure import walker

from lifting import anatomy, metrics
from lifting.models.lifter import Lift
from lifting.training.losses import (
    DEFAULT_WEIGHTS,
    SIGMA_QUANTILE,
    across_sight,
    best_scale,
    bone_lengths,
    distance,
    lift_losses,
    quantile_loss,
)

FRAMES = 12


pytestmark = pytest.mark.usefixtures("one_thread")


def truth() -> tuple[torch.Tensor, torch.Tensor]:
    """Relative joints (2, T, 17, 3) and roots (2, T, 3) of two walkers 4 and 6 m ahead."""
    joints = np.stack([walker(FRAMES), walker(FRAMES, phase=1.0)]).astype(np.float64)
    root = joints[:, :, 0] * [1, 0.1, 1] + np.array([[[0, 0, 4.0]], [[0, 0, 6.0]]])
    return torch.from_numpy(joints - joints[:, :, :1]), torch.from_numpy(root)


def lift_of(joints: torch.Tensor, root: torch.Tensor, log_sigma: float = -3.0) -> Lift:
    return Lift(joints, root, torch.full(joints.shape[:-1], log_sigma, dtype=joints.dtype))


def noisy(seed: int = 0) -> Lift:
    joints, root = truth()
    offsets = 0.05 * torch.randn(joints.shape, dtype=joints.dtype, generator=torch.Generator().manual_seed(seed))
    offsets[:, :, 0] = 0
    return lift_of(joints + offsets, root + offsets[:, :, 1])


def test_every_loss_has_a_weight():
    assert lift_losses(noisy(), *truth()).keys() == DEFAULT_WEIGHTS.keys()
    assert all(weight > 0 for weight in DEFAULT_WEIGHTS.values())


def test_the_truth_costs_nothing_but_its_uncertainty():
    losses = lift_losses(lift_of(*truth()), *truth())
    assert all(losses[name] < 2e-5 for name in losses if name != "sigma")
    assert losses["sigma"] > 1  # an announced 5 cm where errors count as 0.1 mm


def test_errors_across_the_line_of_sight_are_those_of_the_projection():
    """A small step along the ray of a joint costs nothing, one across it its length: that which a camera sees."""
    joints, root = truth()
    place = joints + root[:, :, None]
    assert across_sight(0.3 * place, place).max() < 2e-5
    aside = torch.linalg.cross(place, torch.tensor([0.2, -0.3, 0.1], dtype=place.dtype).expand_as(place))
    torch.testing.assert_close(across_sight(aside + place, place), aside.norm(dim=-1), rtol=1e-6, atol=1e-6)
    lift = noisy()
    moved = lift.joints - joints
    seen = [point[..., :2] / point[..., 2:] for point in (place, place + 1e-4 * moved)]
    pixels = 1e4 * (seen[1] - seen[0]).norm(dim=-1) * place[..., 2]
    expected = across_sight(moved, place)
    assert (pixels[..., 1:] / expected[..., 1:] - 1).abs().mean() < 0.05  # the people are near the optical axis
    torch.testing.assert_close(lift_losses(lift, joints, root)["across"], expected[..., 1:].mean())


def test_losses_are_the_metrics_without_the_root_joint():
    joints, root = truth()
    lift, losses = noisy(), lift_losses(noisy(), joints, root)
    pairs = [(a.numpy(), b.numpy()) for a, b in zip(lift.joints, joints, strict=True)]
    share = 17 / 16  # a metric's mean holds the root's zero
    assert losses["pose"] == pytest.approx(share * np.mean([metrics.mpjpe(*pair) for pair in pairs]), rel=1e-5)
    assert losses["scaled_pose"] == pytest.approx(share * np.mean([metrics.n_mpjpe(*pair) for pair in pairs]), rel=1e-5)
    assert losses["velocity"] == pytest.approx(np.mean([metrics.mpjve(*pair) for pair in pairs]), rel=1e-3)
    bones = [np.abs(anatomy.bone_lengths(a) - anatomy.bone_lengths(b)).mean() for a, b in pairs]
    assert losses["bones"] == pytest.approx(np.mean(bones), rel=1e-5)


def test_root_losses_are_shares_of_depth():
    joints, root = truth()
    offset = torch.tensor([0.3, 0.0, 0.4], dtype=root.dtype)  # half a metre
    losses = lift_losses(lift_of(joints, root + offset), joints, root)
    assert losses["root"] == pytest.approx(np.mean(0.5 / root[..., 2].numpy()), rel=1e-6)
    losses = lift_losses(lift_of(joints, root * 1.1), joints, root)
    expected = 0.1 * (root / root[..., 2:]).diff(dim=1).norm(dim=-1).mean()
    assert losses["root_velocity"] == pytest.approx(expected.item(), rel=1e-6)


def test_root_behind_the_camera_does_not_blow_up():
    joints, root = truth()
    root[..., 2] = -1.0
    offset = torch.tensor([0.0, 0.0, 0.5], dtype=root.dtype)
    assert lift_losses(lift_of(joints, root + offset), joints, root)["root"] == pytest.approx(1.0)


@given(factor=st.floats(0.1, 10))
def test_size_is_free_for_the_scaled_loss(factor):
    joints, root = truth()
    losses = lift_losses(lift_of(joints * factor, root), joints, root)
    assert losses["scaled_pose"] < 2e-5
    assert losses["pose"] == pytest.approx(abs(factor - 1) * joints[:, :, 1:].norm(dim=-1).mean().item(), abs=2e-5)


def test_best_scale_is_the_least_squares_solution():
    joints, _ = truth()
    scale = best_scale(noisy().joints, joints)
    assert scale.shape == (2, FRAMES, 1, 1)
    for prediction, target, value in zip(noisy().joints[0], joints[0], scale[0].flatten(), strict=True):
        expected = np.linalg.lstsq(prediction.reshape(-1, 1).numpy(), target.reshape(-1).numpy(), rcond=None)[0][0]
        assert value == pytest.approx(expected, rel=1e-9)


def test_uncertainty_is_least_wrong_at_the_quantile():
    errors = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 0.03, 20_000))
    radii = torch.linspace(-6, 0, 1201, dtype=torch.float64)
    losses = torch.stack([quantile_loss(radius.expand_as(errors), errors, SIGMA_QUANTILE) for radius in radii])
    best = radii[losses.argmin()].exp()
    assert (errors <= best).double().mean() == pytest.approx(0.68, abs=0.01)
    assert best == pytest.approx(np.quantile(errors.numpy(), 0.68), rel=0.01)


@pytest.mark.parametrize(("error", "slope"), [(0.2, -0.68), (0.001, 0.32)])
def test_uncertainty_grows_twice_as_fast_as_it_shrinks(error, slope):
    radius = torch.tensor([0.02]).log().requires_grad_()
    quantile_loss(radius, torch.tensor([error]), SIGMA_QUANTILE).backward()
    assert radius.grad.item() == pytest.approx(slope)


def test_uncertainty_moves_no_joint_and_leaves_out_the_root_joint():
    lift = Lift(*(values.clone().requires_grad_() for values in noisy()))
    lift_losses(lift, *truth())["sigma"].backward()
    assert lift.joints.grad is None and lift.root.grad is None
    assert (lift.log_sigma.grad[..., 0] == 0).all() and (lift.log_sigma.grad[..., 1:] != 0).all()


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_gradients_are_finite_at_zero_error_and_at_a_pose_of_zeros(factor):
    joints, root = truth()
    lift = Lift(*(values.clone().requires_grad_() for values in lift_of(joints * factor, root)))
    losses = lift_losses(lift, joints, root)
    sum(DEFAULT_WEIGHTS[name] * loss for name, loss in losses.items()).backward()
    assert all(torch.isfinite(values.grad).all() for values in lift)


def test_distance_and_bones():
    a = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    b = torch.tensor([[3.0, 4, 0], [1, 1, 1]])
    torch.testing.assert_close(distance(a, b), torch.tensor([5.0, 1e-5]))
    joints = torch.from_numpy(walker(3))
    np.testing.assert_allclose(bone_lengths(joints), anatomy.bone_lengths(joints.numpy()), atol=1e-6)


def test_a_single_frame_is_refused():
    joints, root = (values[:, :1] for values in truth())
    with pytest.raises(ValueError, match="at least 2"):
        lift_losses(lift_of(joints, root), joints, root)
