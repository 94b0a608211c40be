"""Losses of adapting: against slow twins in numpy, closed forms, and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lifting.anatomy import H36M, bone_lengths
from lifting.models.lifter import Lift, encode_rays
from lifting.predict import INPUT
from lifting.rotations import rotvec_to_matrix
from lifting.training.adapt_losses import (
    OUTLIER,
    SHARED,
    SYSTEMATIC,
    Bodies,
    Sight,
    Start,
    adapt_losses,
    anchor_error,
    bone_change,
    bone_deviation,
    log_bone_lengths,
    projection_error,
)
from lifting.trajectory import SHARED as SHARED_IN_TRAJECTORY

FRAMES = 6


@pytest.fixture
def seen():
    """Random poses 3 m away and keypoints near them: joints, root, rays, scores (two clips)."""
    rng = np.random.default_rng(0)
    joints = rng.normal(0, 0.4, (2, FRAMES, 17, 3))
    joints -= joints[:, :, :1]
    root = rng.normal([0.5, 0, 3.5], 0.2, (2, FRAMES, 3))
    rays = rng.normal(0, 0.2, (2, FRAMES, 17, 2))
    points = joints + root[:, :, None]
    shared = points[..., :2] / points[..., 2:]
    rays[:, :, INPUT.indices(SHARED)] = shared[:, :, H36M.indices(SHARED)] + rng.normal(0, 0.02, (2, FRAMES, 12, 2))
    scores = rng.uniform(0.2, 1, (2, FRAMES, 17))
    hidden = rng.random(scores.shape) < 0.2
    rays[hidden], scores[hidden] = np.nan, 0
    return joints, root, rays, scores


def tensors(*arrays) -> list[torch.Tensor]:
    return [torch.tensor(array, dtype=torch.float64) for array in arrays]


def sight_of(rays, scores) -> Sight:
    rays, scores = (torch.tensor(a, dtype=torch.float32) for a in (rays, scores))
    spread = encode_rays(rays, scores)[1].spread
    return Sight(rays.double(), scores.double(), spread.double())


def test_compared_joints_are_those_of_the_trajectory():
    assert SHARED == SHARED_IN_TRAJECTORY
    assert "nose" not in SHARED and len(SHARED) == 12


def test_projection_error_is_that_of_a_slow_twin(seen):
    joints, root, rays, scores = seen
    sight = sight_of(rays, scores)
    total = weights = 0.0
    for n in range(2):
        for name in SHARED:
            rows = []
            for t in np.flatnonzero(scores[n, :, INPUT.index(name)]):
                at, score = rays[n, t, INPUT.index(name)], scores[n, t, INPUT.index(name)]
                x, y, z = joints[n, t, H36M.index(name)] + root[n, t]
                size = float(sight.spread[n, t]) * np.sqrt(1 + at @ at)
                rows.append((score, (x / z - at[0]) / size, (y / z - at[1]) / size))
            score, across, down = np.array(rows).T
            means = [SYSTEMATIC * np.average(values, weights=score) for values in (across, down)]
            square = (across - means[0]) ** 2 + (down - means[1]) ** 2
            total += (score * square * OUTLIER**2 / (OUTLIER**2 + square)).sum()
            weights += score.sum()
    found = projection_error(*tensors(joints, root), sight)
    assert float(found) == pytest.approx(total / weights, rel=1e-6)


def test_most_of_a_constant_offset_is_the_detectors(seen):
    joints, root, _, scores = seen
    points = joints + root[:, :, None]
    exact = (points[..., :2] / points[..., 2:])[:, :, H36M.indices(SHARED)]
    length = np.sqrt(1 + np.square(exact).sum(-1, keepdims=True))
    spread = torch.full((2, FRAMES), 0.5, dtype=torch.float64)

    def error(offset: np.ndarray) -> float:
        rays = np.full((2, FRAMES, 17, 2), np.nan)
        rays[:, :, INPUT.indices(SHARED)] = exact + 1e-3 * length * offset
        return float(projection_error(*tensors(joints, root), Sight(*tensors(rays, np.ones_like(scores)), spread)))

    constant, jumping = error(np.ones((FRAMES, 1, 1))), error(np.resize([1.0, -1], FRAMES)[:, None, None])
    assert jumping == pytest.approx(2 * 2e-3**2, rel=1e-2)
    assert constant == pytest.approx((1 - SYSTEMATIC) ** 2 * jumping, rel=0.05)


def test_projection_error_vanishes_on_exact_rays_and_without_any(seen):
    joints, root, rays, scores = seen
    points = joints + root[:, :, None]
    rays[:, :, INPUT.indices(SHARED)] = (points[..., :2] / points[..., 2:])[:, :, H36M.indices(SHARED)]
    assert float(projection_error(*tensors(joints, root), sight_of(rays, scores))) < 1e-12
    blind = Sight(*tensors(np.full_like(rays, np.nan), np.zeros_like(scores), np.ones((2, FRAMES))))
    assert float(projection_error(*tensors(joints, root), blind)) == 0


def test_projection_error_does_not_depend_on_the_size_of_the_scene(seen):
    joints, root, rays, scores = seen
    sight = sight_of(rays, scores)
    once, thrice = (float(projection_error(*tensors(k * joints, k * root), sight)) for k in (1, 3))
    assert once == pytest.approx(thrice, rel=1e-9)


def test_far_outliers_have_no_pull(seen):
    joints, root, rays, scores = seen
    rays[0, 0, INPUT.index("left_wrist")], scores[0, 0, INPUT.index("left_wrist")] = [9.0, 9.0], 1
    pose, place = tensors(joints, root)
    pose.requires_grad_(True)
    sight = sight_of(rays, scores)._replace(spread=torch.full((2, FRAMES), 0.15, dtype=torch.float64))
    projection_error(pose, place, sight).backward()
    pull = pose.grad.norm(dim=-1)
    assert pull[0, 0, H36M.index("left_wrist")] < 1e-2 * pull.max()


def test_gradients_are_finite_where_nothing_is_seen_and_behind_the_camera(seen):
    joints, root, rays, scores = seen
    rays[0, 0], scores[0, 0] = np.nan, 0
    root[1, 0, 2] = -1
    pose, place = tensors(joints, root)
    pose.requires_grad_(True), place.requires_grad_(True)
    projection_error(pose, place, sight_of(rays, scores)).backward()
    assert torch.isfinite(pose.grad).all() and torch.isfinite(place.grad).all()
    assert not pose.grad[0, 0].any()


def test_bones_that_keep_their_lengths_cost_nothing_whatever_the_pose(seen):
    joints, *_ = seen
    rng = np.random.default_rng(1)
    turns = rotvec_to_matrix(rng.normal(0, 1, (FRAMES, 3)))
    rigid = np.einsum("tij,kj->tki", turns, joints[0, 0])[None]
    assert float(bone_change(log_bone_lengths(*tensors(rigid)))) < 1e-7
    assert float(bone_change(log_bone_lengths(*tensors(joints)))) > 0.1


def test_bone_change_of_one_longer_frame():
    logs = torch.zeros(1, 5, 16)
    logs[0, 2, 3] = np.log(1.1)
    assert float(bone_change(logs)) == pytest.approx(np.log(1.1) / 80)


def test_log_lengths_are_those_of_anatomy(seen):
    joints, *_ = seen
    np.testing.assert_allclose(log_bone_lengths(*tensors(joints)).exp(), bone_lengths(joints), rtol=1e-6)


def test_deviation_from_the_bodies_counts_beyond_two_spreads():
    mean, spread = torch.linspace(-2, -1, 16), torch.linspace(0.05, 0.2, 16)
    for away, expected in ((3.5, 1.5**2), (-3.0, 1.0), (1.9, 0.0), (-1.9, 0.0)):
        logs = (mean + away * spread).expand(1, 4, 16)
        assert float(bone_deviation(logs, Bodies(mean, spread))) == pytest.approx(expected, rel=1e-4)


def test_anchor_is_the_squared_distance_from_the_start(seen):
    joints, root, *_ = seen
    pose, place = tensors(joints, root)
    moved = Lift(pose + torch.tensor([0.03, 0.0, 0.04]), place * 1.1, torch.zeros(2, FRAMES, 17))
    expected = 0.05**2 + float((0.1 * place / place[..., 2:]).square().sum(-1).mean())
    assert float(anchor_error(moved, Start(pose, place))) == pytest.approx(expected)


def test_all_terms_come_by_name_and_start_at_no_anchor(seen):
    joints, root, rays, scores = seen
    pose, place = tensors(joints, root)
    lift = Lift(pose, place, torch.zeros(2, FRAMES, 17))
    bodies = Bodies(torch.zeros(16), torch.ones(16))
    losses = adapt_losses(lift, sight_of(rays, scores), Start(pose, place), bodies)
    assert set(losses) == {"projection", "bones", "typical", "anchor"}
    assert float(losses["anchor"]) == 0 and all(loss.ndim == 0 for loss in losses.values())
