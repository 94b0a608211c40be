"""Errors of predicted motion against closed forms and slow twins."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize
from small_body import small_body

from lifting.forecast_metrics import (
    at_frames,
    at_horizons,
    best_of_samples,
    best_scale_and_shift,
    body_errors,
    coverage,
    frame_distances,
    frame_of,
    future_errors,
    mean_of_matches,
    mpjpe_at,
    npss,
    pck_2d,
    time_warp,
    time_warped_errors,
    warped_pck_2d,
)
from lifting.metrics import acceleration_error_m_s2, acceleration_error_mm_frame2, jitter, p_mpjpe
from lifting.motion import BodyMotion


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


def warp_one(cost: np.ndarray) -> np.ndarray:
    """Slow twin: one matrix, cell after cell."""
    rows, columns = cost.shape
    total = {(-1, -1): 0.0}
    for place in product(range(rows), range(columns)):
        before = [total.get((place[0] - a, place[1] - b), np.inf) for a, b in STEPS]
        total[place] = cost[place] + min(before)
    matches, place = np.zeros(cost.shape, bool), (rows - 1, columns - 1)
    while place != (-1, -1):
        matches[place] = True
        place = min(((place[0] - a, place[1] - b) for a, b in STEPS), key=lambda at: total.get(at, np.inf))
    return matches


STEPS = ((1, 1), (1, 0), (0, 1))


def walks(*shape: int, seed: int = 0) -> np.ndarray:
    """One set of motions (N, T, J, 3) in metres, in a timing and with disturbances that the seed says."""
    rng = np.random.default_rng(seed)
    time = np.cumsum(rng.exponential(size=shape[:2]), 1)[..., None, None]
    phase, speed = random(shape[0], 1, *shape[2:]), random(shape[0], 1, *shape[2:], seed=1)
    return 0.3 * np.sin(phase + 0.3 * speed * time) + rng.normal(0, 0.01, shape)


@pytest.mark.parametrize("size", [(30, 30), (12, 5), (5, 12), (1, 1)])
def test_warping_many_futures_equals_warping_each(size):
    cost = np.random.default_rng(1).exponential(size=(3, 4, *size))
    expected = [[warp_one(one) for one in row] for row in cost]
    np.testing.assert_array_equal(time_warp(cost), expected)


def test_every_frame_is_matched_in_order():
    matches = time_warp(np.random.default_rng(2).uniform(size=(20, 9, 13)))
    assert matches.any(-1).all() and matches.any(-2).all()
    assert matches[:, 0, 0].all() and matches[:, -1, -1].all()
    for one in matches:
        steps = np.diff(np.argwhere(one), axis=0)  # in rows, and by columns within one
        assert set(map(tuple, steps)) <= set(STEPS)


def test_equal_costs_keep_in_step():
    np.testing.assert_array_equal(time_warp(np.ones((6, 6))), np.eye(6, dtype=bool))


def test_poses_are_compared_with_those_of_every_frame():
    prediction, truth = random(2, 4, 5, 3), random(2, 6, 5, 3, seed=1)
    expected = [[[np.mean([np.linalg.norm(prediction[n, i, k] - truth[n, j, k]) for k in range(5)]) for j in range(6)]
                 for i in range(4)] for n in range(2)]  # fmt: skip
    np.testing.assert_allclose(frame_distances(prediction, truth), expected)
    with pytest.raises(ValueError, match="differ in the number of frames"):
        frame_distances(prediction, truth[:, :, :4])


@pytest.mark.parametrize("aligned", [False, True])
def test_warped_errors_are_means_over_the_matches_of_one_alignment(aligned):
    prediction, truth = walks(3, 12, 6, 3), walks(3, 12, 6, 3, seed=5)
    expected = np.zeros((3, 12))
    for n, j in product(range(3), range(12)):
        partners = np.flatnonzero(warp_one(frame_distances(prediction[n], truth[n]))[:, j])
        expected[n, j] = np.mean([_pose_error(prediction[n, i], truth[n, j], aligned) for i in partners])
    found = future_errors(prediction, truth, aligned=aligned, warped=True)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert not np.allclose(found, future_errors(prediction, truth, aligned=aligned))


def _pose_error(prediction: np.ndarray, truth: np.ndarray, aligned: bool) -> float:
    if aligned:
        return p_mpjpe(prediction[None], truth[None])
    return np.linalg.norm(prediction - truth, axis=-1).mean()


def test_the_warp_never_costs_more_than_keeping_step():
    prediction, truth = walks(20, 15, 4, 3), walks(20, 15, 4, 3, seed=7)
    cost = frame_distances(prediction, truth)
    least, in_step = np.where(time_warp(cost), cost, 0).sum((-1, -2)), np.trace(cost, axis1=-2, axis2=-1)
    assert (least <= in_step + 1e-9).all()
    assert least.mean() < 0.9 * in_step.mean()
    single = future_errors(prediction[3], truth[3], warped=True)
    np.testing.assert_allclose(single, future_errors(prediction, truth, warped=True)[3])


def test_warping_does_nothing_for_a_prediction_that_stands_still():
    """All predicted frames are alike, and so are all matches of a true one: PHD's "Constant" with and without it."""
    truth = walks(4, 30, 17, 3)
    still = np.repeat(truth[:, :1], 30, axis=1)
    for aligned in (False, True):
        raw, warped = (future_errors(still, truth, aligned=aligned, warped=w) for w in (False, True))
        np.testing.assert_allclose(warped, raw, atol=1e-9)


def test_means_over_matches():
    matches = np.array([[True, False], [True, True]])
    np.testing.assert_allclose(mean_of_matches([[1.0, np.nan], [3.0, 5.0]], matches), [2.0, 5.0])


def test_frames_of_the_tables_are_counted_from_one():
    errors = np.arange(1.0, 31.0) + np.array([[0.0], [2.0]])
    np.testing.assert_allclose(at_frames(errors), [2, 6, 11, 21, 31])
    np.testing.assert_allclose(at_horizons(errors, 25.0, [40, 200]), at_frames(errors, [1, 5]))
    for frames in ([0, 5], [5, 31]):
        with pytest.raises(ValueError, match="expected frames from 1 to 30"):
            at_frames(errors, frames)


def test_alignment_forgives_where_a_pose_faces():
    truth = walks(2, 25, 17, 3)
    turned = 1.2 * truth @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + 0.3
    assert future_errors(turned, truth, aligned=True).max() < 1e-12
    assert at_horizons(future_errors(turned, truth), 25.0).min() > 0.05


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


def test_warped_pck_follows_the_match_of_frames():
    """A future that lags two frames behind is found again, in another scale; frames without points are NaN."""
    truth = walks(1, 14, 6, 3, seed=3)[..., :2]
    late = 4.0 * truth[:, np.maximum(np.arange(14) - 2, 0)] + 1.0
    visible = np.ones((1, 14, 6), bool)
    visible[0, 6, 1:] = False
    found = warped_pck_2d(late, truth, visible)
    assert np.isnan(found[0, 6]) and found.shape == (1, 14)
    # The last true frame has no predicted one like it; all before have.
    assert (np.delete(found[0, :12], 6) == 1.0).all()
    assert np.nanmean(pck_2d(late, truth, visible)) < np.nanmean(found)


def test_warped_pck_equals_a_loop():
    points, target = walks(2, 6, 5, 3)[..., :2], walks(2, 6, 5, 3, seed=9)[..., :2]
    visible = np.random.default_rng(0).uniform(size=(2, 6, 5)) < 0.8
    assert (visible.sum(-1) >= 2).all()
    for n in range(2):
        cost, near = np.zeros((2, 6, 6))
        for i, j in product(range(6), repeat=2):
            seen = visible[n, j]
            scale, shift = best_scale_and_shift(points[n, i], target[n, j], seen)
            away = np.linalg.norm(scale * points[n, i] + shift - target[n, j], axis=-1)[seen]
            away /= np.ptp(target[n, j][seen], axis=0).max()
            cost[i, j], near[i, j] = away.mean(), (away <= 0.2).mean()
        matches = warp_one(cost)
        expected = [near[matches[:, j], j].mean() for j in range(6)]
        np.testing.assert_allclose(warped_pck_2d(points, target, visible, share=0.2)[n], expected)


BODY = small_body()


def body_motion(seed: int = 0, frames: int = 4) -> BodyMotion:
    return BodyMotion(0.3 * random(frames, 22, 3, seed=seed), random(frames, 3, seed=seed), random(4, seed=seed),
                      BODY.name, fps=25)  # fmt: skip


def test_vertex_errors_are_of_roots_in_one_place_and_of_the_shape_alone():
    prediction, truth = body_motion(), body_motion(1)
    meshes = []
    for motion in (prediction, truth):
        vertices = BODY.vertices(motion.rotations, motion.trajectory, motion.shape)
        meshes.append(vertices - BODY.points("joints", motion.rotations, motion.trajectory, motion.shape)[:, :1])
    found = body_errors(prediction, truth, BODY)
    np.testing.assert_allclose(found.posed, np.linalg.norm(meshes[0] - meshes[1], axis=-1).mean(-1), atol=1e-6)
    rest = [BODY.rest_vertices(motion.shape) for motion in (prediction, truth)]
    rest = [vertices - vertices.mean(0) for vertices in rest]
    assert found.unposed == pytest.approx(np.linalg.norm(rest[0] - rest[1], axis=-1).mean(), abs=1e-6)


def test_place_and_pose_do_not_count_as_shape():
    truth = body_motion()
    moved = truth.replace(trajectory=truth.trajectory + 3)
    assert body_errors(moved, truth, BODY).posed.max() < 1e-6
    bent = truth.replace(rotations=truth.rotations + 0.5)
    assert body_errors(bent, truth, BODY).unposed < 1e-9 < body_errors(bent, truth, BODY).posed.min()


def test_bodies_that_cannot_be_compared_are_refused():
    truth = body_motion()
    for other in (body_motion(frames=3), truth.replace(frame="world"), truth.replace(body="smpl")):
        with pytest.raises(ValueError, match="expected two motions of the same length and axes"):
            body_errors(other, truth, BODY)
    gone = truth.replace(trajectory=np.full((4, 3), np.nan), rotations=np.full((4, 22, 3), np.nan))
    with pytest.raises(ValueError, match="person is absent at times"):
        body_errors(gone, truth, BODY)


def test_acceleration_errors_and_jitter_of_futures_have_closed_forms():
    """Cubic in time: the second difference of t^3 is 6 t at the middle frame, the third 6."""
    time = np.arange(30.0)[:, None, None]
    truth = np.zeros((5, 30, 17, 3))
    prediction = truth + time**3 * np.array([0.0, 0.003, 0.004])
    mean = 6 * np.arange(1, 29).mean() * 0.005
    assert acceleration_error_mm_frame2(prediction, truth) == pytest.approx(1000 * mean)
    assert acceleration_error_m_s2(prediction, truth, 25.0) == pytest.approx(625 * mean)
    assert jitter(prediction, 25.0) == pytest.approx(6 * 0.005 * 25**3 / 10)
