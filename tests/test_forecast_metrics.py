"""Errors of predicted motion against closed forms and slow twins."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize

from lifting.forecast_metrics import (
    best_of_samples,
    best_scale_and_shift,
    coverage,
    frame_of,
    mpjpe_at,
    npss,
    pck_2d,
    time_warped_errors,
)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


HORIZONS = [(80, 25, 1), (400, 25, 9), (1000, 25, 24), (40, 25, 0), (20, 50, 0)]


@pytest.mark.parametrize(("horizon", "fps", "frame"), HORIZONS)
def test_horizons_are_frames_after_the_last_seen_one(horizon, fps, frame):
    assert frame_of(horizon, fps) == frame


def test_errors_are_those_at_the_horizon_not_up_to_it():
    truth = random(3, 25, 17, 3)
    prediction = truth + np.arange(1, 26)[:, None, None] * np.array([0.0, 0.003, 0.004])
    np.testing.assert_allclose(mpjpe_at(prediction, truth, 25.0), 0.005 * np.array([2, 4, 8, 10, 14, 18, 22, 25]))


def test_horizons_beyond_the_future_are_refused():
    with pytest.raises(ValueError, match="expected 25 for a horizon of 1000 ms"):
        mpjpe_at(random(2, 24, 17, 3), random(2, 24, 17, 3), 25.0)
    with pytest.raises(ValueError, match="at least one frame: 40 ms"):
        frame_of(10, 25)


@lru_cache
def every_path(rows: int, columns: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """All monotone paths from corner to corner, by brute force."""
    if (rows, columns) == (1, 1):
        return (((0, 0),),)
    before = [(rows - i, columns - j) for i, j in ((1, 0), (0, 1), (1, 1)) if rows > i and columns > j]
    return tuple((*path, (rows - 1, columns - 1)) for size in before for path in every_path(*size))


@pytest.mark.parametrize(("rows", "columns", "seed"), [(4, 4, 0), (5, 5, 1), (3, 6, 2), (1, 4, 3), (5, 2, 4)])
def test_time_warping_is_the_cheapest_of_all_paths(rows, columns, seed):
    cost = np.random.default_rng(seed).uniform(size=(rows, columns))
    best = min(every_path(rows, columns), key=lambda path: sum(cost[at] for at in path))
    expected = [np.mean([cost[at] for at in best if at[1] == j]) for j in range(columns)]
    np.testing.assert_allclose(time_warped_errors(cost), expected)


def test_a_motion_at_another_speed_is_warped_onto_the_truth():
    slow = np.repeat(np.arange(6.0), 2)
    fast = np.array([0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5.0])
    np.testing.assert_array_equal(time_warped_errors(np.abs(fast[:, None] - slow)), np.zeros(12))


@pytest.mark.parametrize("cost", [np.zeros(3), np.zeros((0, 3)), np.full((2, 2), np.nan)])
def test_time_warping_needs_a_matrix(cost):
    with pytest.raises(ValueError, match="expected a matrix"):
        time_warped_errors(cost)


def test_scale_and_shift_are_the_least_squares_ones():
    points, target = random(9, 2), 3 * random(9, 2, seed=1) + 5
    visible = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1], dtype=bool)
    points[2] = np.nan  # whatever stands where nothing is seen

    def cost(x: np.ndarray) -> float:
        return ((x[0] * points[visible] + x[1:] - target[visible]) ** 2).sum()

    scale, shift = best_scale_and_shift(points, target, visible)
    np.testing.assert_allclose([scale, *shift], minimize(cost, np.zeros(3), tol=1e-12).x, atol=1e-5)


def test_degenerate_poses_have_no_scale():
    scale, shift = best_scale_and_shift(np.ones((4, 2)), random(4, 2), np.ones(4, bool))
    assert scale == 0
    np.testing.assert_allclose(shift, random(4, 2).mean(0))
    assert best_scale_and_shift(np.ones((4, 2)), random(4, 2), np.zeros(4, bool))[0] == 0


def test_pck_forgives_scale_and_shift_and_counts_visible_points():
    target = np.array([[0.0, 0], [10, 0], [0, 20], [10, 20], [5, 10]])
    visible = np.array([1, 1, 1, 1, 0], bool)
    assert pck_2d(0.3 * target - 7, target, visible) == 1.0
    spoiled = target.copy()
    spoiled[3] += [4.0, 0]  # after the fit every point is off by at least a bit; the threshold is 5 % of 20
    scale, shift = best_scale_and_shift(spoiled, target, visible)
    near = np.linalg.norm(scale * spoiled + shift - target, axis=-1)[:4] <= 1.0
    assert pck_2d(spoiled, target, visible) == near.mean() < 1
    assert np.isnan(pck_2d(target, target, np.array([1, 0, 0, 0, 0], bool)))


def test_spectra_forgive_the_phase_and_not_the_frequency():
    time = np.arange(50) / 50
    truth, shifted, faster = (np.sin(2 * np.pi * (f * time + p))[None, :, None] for f, p in ((2, 0), (2, 0.3), (5, 0)))
    assert npss(truth, truth) == 0
    assert npss(shifted, truth) < 1e-12
    # Both halves of the spectrum move by three bins, each with half of the power: 3 * 0.5 + 3 * 0.5.
    assert npss(faster, truth) == pytest.approx(3.0)


def test_spectra_weigh_features_by_the_power_of_the_truth():
    prediction, truth = random(2, 8, 3), random(2, 8, 3, seed=1)
    total = weight = 0.0
    for n, f in product(range(2), range(3)):
        one, two = (np.abs(np.fft.fft(v[n, :, f])) ** 2 for v in (prediction, truth))
        total += np.abs(np.cumsum(one / one.sum()) - np.cumsum(two / two.sum())).sum() * two.sum()
        weight += two.sum()
    assert npss(prediction, truth) == pytest.approx(total / weight)
    with pytest.raises(ValueError, match="at least two frames"):
        npss(prediction[:, :1], truth[:, :1])


def test_the_best_sample_of_each_future_counts():
    truth = random(4, 25, 17, 3)
    offsets = np.array([[3.0, 1, 2], [1, 2, 3], [2, 3, 1], [5, 5, 4]])
    samples = truth[:, None] + offsets[:, :, None, None, None] * np.array([0, 0, 0.01])
    np.testing.assert_allclose(best_of_samples(samples, truth, 25.0), np.mean([1, 1, 1, 4]) * 0.01)


def test_samples_of_the_truths_own_distribution_are_calibrated():
    samples, truth = random(200, 400, 1, 1, 3), random(200, 1, 1, 3, seed=1)
    assert coverage(samples, truth) == pytest.approx(0.68, abs=0.05)
    assert coverage(0.1 * samples, truth) < 0.15
