"""Between frame rates: straight lines and sines, gaps, slow twins, and the lengths of both grids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline

from lifting.resampling import grid_length, resample_keypoints, resample_values, same_rate

RATES = [(30, 50), (25, 50), (24, 50), (59.94, 50), (60, 50), (100, 50), (120, 50), (240, 50), (90, 50), (1, 50)]


def straight(frames, fps, joints=3):
    """Joints (T, J, 2) that move evenly, in pixels, and the function of time behind them."""
    offset, speed = np.arange(2.0 * joints).reshape(joints, 2), 10.0 + np.arange(2.0 * joints).reshape(joints, 2)[::-1]
    return lambda seconds: (offset + np.asarray(seconds)[:, None, None] * speed).astype(np.float32)


def seen_everywhere(xy):
    return np.ones(xy.shape[:2], np.float32)


@pytest.mark.parametrize(("fps", "other", "same"), [(50, 50, True), (29.97, 30, True), (50, 49.5, True),
                                                    (30, 50, False), (24, 25, False), (59.94, 50, False)])
def test_nearly_equal_rates_count_as_one(fps, other, same):
    assert same_rate(fps, other) is same


@given(st.integers(1, 500), st.floats(1, 300), st.floats(1, 300))
def test_grid_covers_every_frame_and_no_more(frames, fps, rate):
    length = grid_length(frames, fps, rate)
    last = (frames - 1) / fps
    assert (length - 1) / rate >= last - 1e-6 / rate
    assert length == 1 or (length - 2) / rate < last


@pytest.mark.parametrize("fps", [7.5, 50])
def test_the_same_rate_changes_nothing(fps):
    rng = np.random.default_rng(0)
    xy, scores = rng.normal(size=(9, 4, 2)).astype(np.float32), rng.uniform(0.1, 1, (9, 4)).astype(np.float32)
    scores[3:5, 1], xy[3:5, 1] = 0, np.nan
    resampled, kept = resample_keypoints(xy, scores, fps, fps)
    np.testing.assert_array_equal(resampled, xy)
    np.testing.assert_array_equal(kept, scores)
    np.testing.assert_allclose(resample_values(xy[:, 0], fps, fps, 9), xy[:, 0], rtol=1e-6)


@pytest.mark.parametrize(("fps", "rate"), RATES)
@pytest.mark.parametrize("frames", [1, 2, 3, 40])
def test_even_motion_stays_on_its_way(fps, rate, frames):
    path = straight(frames, fps)
    xy = path(np.arange(frames) / fps)
    resampled, scores = resample_keypoints(xy, seen_everywhere(xy), fps, rate)
    assert len(resampled) == grid_length(frames, fps, rate)
    seconds = np.minimum(np.arange(len(resampled)) / rate, (frames - 1) / fps)  # the last sample may lie beyond
    np.testing.assert_allclose(resampled, path(seconds), rtol=2e-5, atol=1e-4)
    np.testing.assert_allclose(scores, 1, rtol=1e-6)
    assert resampled.dtype == scores.dtype == np.float32


@pytest.mark.parametrize(("fps", "rate"), [(30, 50), (60, 50), (25, 50)])
def test_going_up_is_linear_interpolation(fps, rate):
    xy = np.random.default_rng(1).normal(size=(30, 2, 2)).astype(np.float32)
    resampled, _ = resample_keypoints(xy, seen_everywhere(xy), fps, rate)
    at = np.arange(len(resampled)) / rate
    twin = [[np.interp(at, np.arange(30) / fps, xy[:, j, c]) for c in range(2)] for j in range(2)]
    np.testing.assert_allclose(resampled, np.transpose(twin, (2, 0, 1)), atol=1e-5)


def averaged_slowly(xy, scores, half):
    """Each frame: the mean of itself and of pairs at equal distances that are both seen, a frame at a time."""
    mean, score = np.full_like(xy, np.nan), np.zeros_like(scores)
    for t, j in np.ndindex(*scores.shape):
        entries = [(1.0, t)] if scores[t, j] > 0 else []
        for away in range(1, len(xy)):
            share = min(1.0, half + 0.5 - away)
            inside = t - away >= 0 and t + away < len(xy)
            if share > 0 and inside and scores[t - away, j] > 0 and scores[t + away, j] > 0:
                entries += [(share, t - away), (share, t + away)]
        if entries:
            weight = sum(w for w, _ in entries)
            mean[t, j] = sum(w * xy[i, j] for w, i in entries) / weight
            score[t, j] = sum(w * scores[i, j] for w, i in entries) / weight
    return mean, score


@pytest.mark.parametrize(("fps", "rate"), [(100, 50), (120, 50), (240, 50), (70, 50), (90, 50)])
def test_going_down_averages_first(fps, rate):
    rng = np.random.default_rng(2)
    xy, scores = rng.normal(size=(49, 3, 2)).astype(np.float32), rng.uniform(0.2, 1, (49, 3)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = 0
    xy[scores == 0] = np.nan
    expected = averaged_slowly(xy, scores, 0.5 * fps / rate)
    found = resample_keypoints(xy, scores, fps, rate)
    samples = [i for i in range(len(found[0])) if i * fps % rate == 0 and i * fps // rate < 49]  # those on a frame
    frames = [i * fps // rate for i in samples]
    assert len(frames) >= 3
    np.testing.assert_allclose(found[0][samples], expected[0][frames], atol=1e-5)
    np.testing.assert_allclose(found[1][samples], expected[1][frames], atol=1e-5)


def test_going_down_lowers_the_noise():
    noise = np.random.default_rng(3).normal(size=(2000, 1, 2)).astype(np.float32)
    averaged, _ = resample_keypoints(noise, seen_everywhere(noise), 200, 50)
    assert 0.4 < averaged.std() < 0.6  # four frames: half the noise


def test_next_to_a_gap_the_nearer_frame_serves_half_the_way():
    xy = np.arange(6, dtype=np.float32)[:, None, None] * [10, 1]
    scores = np.array([0.9, 0.8, 0, 0, 0.7, 0.6], np.float32)[:, None]
    xy = np.where(scores[..., None] > 0, xy, np.nan)
    resampled, kept = resample_keypoints(xy, scores, 10, 40)
    assert len(resampled) == 21
    expected = np.interp(np.arange(21) / 4, [0, 1, 1.5, 3.5, 4, 5], [0, 10, 10, 40, 40, 50])
    unseen = np.arange(21)[7:14]  # from 1.75 to 3.25
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(resampled[:, 0, 0])), unseen)
    np.testing.assert_array_equal(kept[:, 0] == 0, np.isnan(resampled[:, 0, 0]))
    seen = np.setdiff1d(np.arange(21), unseen)
    np.testing.assert_allclose(resampled[seen, 0, 0], expected[seen], atol=1e-4)
    np.testing.assert_allclose(kept[[0, 1, 4, 6, 14, 16, 18, 20], 0], [0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6])


@pytest.mark.parametrize(("gap", "filled"), [(1, True), (9, False)])
def test_going_down_fills_a_missing_frame(gap, filled):
    path = straight(40, 200, joints=1)
    xy, scores = path(np.arange(40) / 200), np.ones((40, 1), np.float32)
    scores[20 - gap // 2 : 21 + gap // 2] = 0  # around the fifth sample
    xy[scores == 0] = np.nan
    resampled, kept = resample_keypoints(xy, scores, 200, 50)
    assert (kept > 0).all() == filled
    assert np.isnan(resampled[kept == 0]).all()
    if filled:
        np.testing.assert_allclose(resampled[:10], path(np.arange(10) / 50), atol=1e-4)


def test_joints_never_seen_stay_unseen():
    xy, scores = np.full((8, 2, 2), np.nan, np.float32), np.zeros((8, 2), np.float32)
    xy[:, 0], scores[:, 0] = 3.0, 0.5
    for rate in (20, 50, 80):
        resampled, kept = resample_keypoints(xy, scores, 50, rate)
        assert np.isnan(resampled[:, 1]).all() and (kept[:, 1] == 0).all()
        np.testing.assert_allclose(resampled[:, 0], 3.0, rtol=1e-6)


@pytest.mark.parametrize(("rate", "fps"), [(50, 30), (50, 60), (50, 25), (50, 240)])
@pytest.mark.parametrize("frames", [1, 2, 3, 31])
def test_values_come_back_on_a_cubic(rate, fps, frames):
    length = grid_length(frames, fps, rate)
    values = np.random.default_rng(4).normal(size=(length, 2, 3)).astype(np.float32)
    back = resample_values(values, rate, fps, frames)
    assert back.shape == (frames, 2, 3) and back.dtype == np.float32
    if length == 1:
        np.testing.assert_array_equal(back, np.repeat(values, frames, 0))
        return
    cubic = CubicHermiteSpline(np.arange(length) / rate, values, np.gradient(values, 1 / rate, axis=0))
    np.testing.assert_allclose(back, cubic(np.arange(frames) / fps), atol=1e-4)


@pytest.mark.parametrize(("fps", "tolerance"), [(30, 0.006), (60, 0.002), (120, 0.004), (240, 0.004)])
def test_a_sine_survives_both_ways(fps, tolerance):
    """1 Hz, as arms swing: what interpolation at 50 Hz and back costs, in shares of the amplitude."""
    frames = 2 * fps + 1
    wave = np.sin(2 * np.pi * np.arange(frames) / fps).astype(np.float32)
    xy = np.stack([wave, -wave], -1)[:, None]
    there, scores = resample_keypoints(xy, seen_everywhere(xy), fps, 50)
    back = resample_values(there, 50, fps, frames)
    assert (scores > 0).all()
    middle = slice(fps // 10, -fps // 10)  # an average at the very ends cannot be symmetrical
    np.testing.assert_allclose(back[middle], xy[middle], atol=tolerance)
