"""The fit of the root: exact data, a dense least-squares twin, outliers, gaps, very short clips."""

from __future__ import annotations

import numpy as np
import pytest
from filmed_walker import walk_in_camera

from lifting.skeletons import get_skeleton
from lifting.trajectory import NEAREST, SHARED, TrajectoryConfig, fit_trajectory

H36M, LIFT = get_skeleton("h36m17"), get_skeleton("lift17")
FPS = 50.0


def evidence(frames):
    """Joints (T, 17, 3) relative to the root, root (T, 3), sigma, and the rays and scores that see them exactly."""
    absolute = walk_in_camera(frames, FPS).astype(np.float64)
    root = absolute[:, 0]
    rays, scores = np.full((frames, 17, 2), np.nan), np.zeros((frames, 17))
    seen = absolute[:, H36M.indices(SHARED)]
    rays[:, LIFT.indices(SHARED)] = seen[..., :2] / seen[..., 2:]
    scores[:, LIFT.indices(SHARED)] = 0.8
    return absolute - root[:, None], root, np.full((frames, 17), 0.02), rays, scores


def hide(rays, scores, frames):
    rays[frames], scores[frames] = np.nan, 0


def dense_step(joints, estimate, start, sigma, rays, scores, fps, config):
    """One reweighted least-squares step, an equation at a time."""
    frames = len(joints)
    rows, values = [], []
    unknowns = np.eye(3 * frames).reshape(3 * frames, frames, 3)

    def equation(left, value, weight):
        rows.append(left * np.sqrt(weight))
        values.append(value * np.sqrt(weight))

    seen = (scores > 0) & np.isfinite(rays).all(-1)
    shared = [LIFT.index(name) for name in SHARED]
    for t in range(frames):
        for name in SHARED:
            i, j = LIFT.index(name), H36M.index(name)
            if not seen[t, i]:
                continue
            u, p = rays[t, i], joints[t, j]
            miss = (estimate[t] + p)[:2] - u * (estimate[t] + p)[2]
            weight = scores[t, i] / (config.keypoint**2 + (config.sigma_share * sigma[t, j]) ** 2)
            weight /= (1 + miss @ miss / config.outlier**2) ** 2
            for axis in range(2):
                left = unknowns[:, t, axis] - u[axis] * unknowns[:, t, 2]
                equation(left, u[axis] * p[2] - p[axis], weight)
        visible = seen[t, shared].any()
        pull = visible / (config.network_depth * max(start[t, 2], NEAREST)) ** 2 + 1e-6
        for axis in range(3):
            equation(unknowns[:, t, axis], start[t, axis], pull)
            if 0 < t < frames - 1:
                bend = unknowns[:, t - 1, axis] - 2 * unknowns[:, t, axis] + unknowns[:, t + 1, axis]
                equation(bend, 0, (fps**2 / config.acceleration[axis]) ** 2)
            if t and not (visible and seen[t - 1, shared].any()):
                step = unknowns[:, t, axis] - unknowns[:, t - 1, axis]
                equation(step, start[t, axis] - start[t - 1, axis], (fps / config.blind_speed) ** 2)
    solution = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0].reshape(frames, 3)
    solution[:, 2] = np.maximum(solution[:, 2], NEAREST)
    return solution


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 60])
def test_exact_data_give_the_exact_root(frames):
    joints, root, sigma, rays, scores = evidence(frames)
    fitted = fit_trajectory(joints, root, sigma, rays, scores, FPS)
    assert fitted.shape == (frames, 3) and fitted.dtype == np.float32
    np.testing.assert_allclose(fitted, root, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 60])
def test_a_wrong_first_estimate_is_corrected(frames):
    joints, root, sigma, rays, scores = evidence(frames)
    fitted = fit_trajectory(joints, root * 1.15 + [0.1, -0.1, 0], sigma, rays, scores, FPS)
    np.testing.assert_allclose(fitted[:, :2], root[:, :2], atol=0.02)
    np.testing.assert_allclose(fitted[:, 2], root[:, 2], rtol=0.02)


@pytest.mark.parametrize("frames", [1, 2, 3, 12])
@pytest.mark.parametrize("steps", [1, 3])
def test_banded_system_equals_dense_least_squares(frames, steps):
    rng = np.random.default_rng(frames)
    joints, root, sigma, rays, scores = evidence(frames)
    rays = rays + rng.normal(0, 0.02, rays.shape)
    scores *= rng.random(scores.shape) < 0.8
    scores[4:7] = 0  # blind where the clip is long enough
    rays[5:6] = np.nan
    sigma, start = rng.uniform(0.01, 0.1, sigma.shape), root * 1.1 + rng.normal(0, 0.05, root.shape)
    config = TrajectoryConfig(iterations=steps)
    expected = start
    for _ in range(steps):
        expected = dense_step(joints, expected, start, sigma, rays, scores, FPS, config)
    fitted = fit_trajectory(joints, start, sigma, rays, scores, FPS, config)
    np.testing.assert_allclose(fitted, expected, atol=2e-5)


def test_outliers_hardly_pull():
    rng = np.random.default_rng(1)
    joints, root, sigma, rays, scores = evidence(50)
    wild = rng.random(scores.shape) < 0.15
    rays[wild] += rng.choice([-0.4, 0.4], (wild.sum(), 2))  # 1.6 m at 4 m
    fitted = fit_trajectory(joints, root, sigma, rays, scores, FPS)
    np.testing.assert_allclose(fitted, root, atol=0.03)


@pytest.mark.parametrize("gap", [slice(20, 45), slice(0, 25), slice(35, 60)])
def test_gaps_stay_plausible(gap):
    joints, root, sigma, rays, scores = evidence(60)
    hide(rays, scores, gap)
    seen = np.setdiff1d(np.arange(60), np.arange(60)[gap])
    start = np.stack([np.interp(np.arange(60), seen, column) for column in root[seen].T * 1.1], -1)
    fitted = fit_trajectory(joints, start, sigma, rays, scores, FPS)
    assert np.isfinite(fitted).all()
    inside = np.zeros(60, bool)
    inside[gap] = True
    # The walk goes on at 1 m/s: a bridge finds it again, an end cannot know and stays within that half a second's way.
    near, far = (0.03, 0.05) if gap == slice(20, 45) else (0.1, 0.5)
    np.testing.assert_allclose(fitted[~inside], root[~inside], atol=near)
    np.testing.assert_allclose(fitted[inside], root[inside], atol=far)
    assert np.linalg.norm(np.diff(fitted, axis=0), axis=-1).max() * FPS < 2.0


def test_noise_becomes_smooth():
    rng = np.random.default_rng(2)
    joints, root, sigma, rays, scores = evidence(200)
    start = root + rng.normal(0, 0.1, root.shape)
    fitted = fit_trajectory(joints, start, sigma, rays + rng.normal(0, 0.005, rays.shape), scores, FPS)
    np.testing.assert_allclose(fitted[:, :2], root[:, :2], atol=0.05)
    np.testing.assert_allclose(fitted[:, 2], root[:, 2], rtol=0.03)
    assert np.abs(np.diff(fitted, 2, axis=0)).max() * FPS**2 < 3.0  # m/s^2; the noise alone would be at hundreds


def test_nobody_ends_up_behind_the_camera():
    joints, root, sigma, rays, scores = evidence(20)
    fitted = fit_trajectory(joints, root, sigma, -rays, scores, FPS)  # the mirrored image of a point reflection
    assert np.isfinite(fitted).all()
    assert (fitted[:, 2] >= NEAREST - 1e-6).all()
    fitted = fit_trajectory(joints, root * [1, 1, -1], sigma, rays, scores, FPS)
    assert (fitted[:, 2] >= NEAREST - 1e-6).all()


@pytest.mark.parametrize("frames", [1, 2, 3, 500])
def test_nothing_seen_keeps_near_the_first_estimate(frames):
    joints, root, sigma, rays, scores = evidence(frames)
    hide(rays, scores, slice(None))
    root = np.repeat(root[:1], frames, 0)
    np.testing.assert_allclose(fit_trajectory(joints, root, sigma, rays, scores, FPS), root, atol=1e-3)


def test_scores_without_rays_count_as_unseen():
    joints, root, sigma, rays, scores = evidence(10)
    rays[3:6] = np.nan
    with_scores = fit_trajectory(joints, root, sigma, rays, scores, FPS)
    hide(rays, scores, slice(3, 6))
    np.testing.assert_array_equal(with_scores, fit_trajectory(joints, root, sigma, rays, scores, FPS))


def test_inputs_are_left_alone():
    arrays = evidence(5)
    copies = [array.copy() for array in arrays]
    joints, root, sigma, rays, scores = arrays
    fit_trajectory(joints, root, sigma, rays, scores, FPS)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
