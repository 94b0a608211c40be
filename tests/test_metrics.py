"""Metrics against slow twins written out as loops, their invariances, and missing values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lifting import metrics

POSE_METRICS = [metrics.mpjpe, metrics.p_mpjpe, metrics.n_mpjpe, metrics.mpjve, metrics.acceleration_error_mm_frame2]


def random_poses(frames: int = 12, joints: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.normal(0, 0.4, (frames, joints, 3))
    return truth + generator.normal(0, 0.05, truth.shape), truth


def align_one(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Slow twin: one frame, with scipy's Wahba solver for the rotation and a least-squares scale."""
    source, goal = prediction - prediction.mean(0), truth - truth.mean(0)
    rotated = Rotation.align_vectors(goal, source)[0].apply(source)
    return np.sum(rotated * goal) / np.sum(rotated**2) * rotated + truth.mean(0)


def test_mpjpe_of_a_known_offset():
    _, truth = random_poses()
    assert metrics.mpjpe(truth + [0.03, 0, 0.04], truth) == pytest.approx(0.05, abs=1e-12)


def test_mpjpe_equals_a_loop():
    prediction, truth = random_poses()
    errors = [np.sqrt(sum((p - t) ** 2)) for p, t in zip(prediction.reshape(-1, 3), truth.reshape(-1, 3), strict=True)]
    assert metrics.mpjpe(prediction, truth) == pytest.approx(np.mean(errors), abs=1e-12)


def test_batched_alignment_equals_a_loop_over_frames():
    prediction, truth = random_poses(30)
    prediction = 1.7 * prediction @ Rotation.from_rotvec([1, 2, -1]).as_matrix() + 3
    expected = np.stack([align_one(p, t) for p, t in zip(prediction, truth, strict=True)])
    np.testing.assert_allclose(metrics.procrustes_align(prediction, truth), expected, atol=1e-9)
    error = np.mean(np.linalg.norm(expected - truth, axis=-1))
    assert metrics.p_mpjpe(prediction, truth) == pytest.approx(error, abs=1e-9)


def test_p_mpjpe_does_not_see_a_similarity_per_frame():
    _, truth = random_poses()
    turned = np.einsum("tij,tkj->tki", Rotation.random(12, random_state=1).as_matrix(), truth)
    scale, shift = np.random.default_rng(2).uniform(0.2, 5, (2, 12, 1, 1))
    assert metrics.p_mpjpe(scale * turned + shift, truth) < 1e-12
    assert metrics.mpjpe(scale * turned + shift, truth) > 0.1


def test_p_mpjpe_does_not_forgive_a_mirror_image():
    _, truth = random_poses()
    mirrored = truth * [-1, 1, 1]
    assert metrics.p_mpjpe(mirrored, truth) > 0.05
    expected = np.stack([align_one(p, t) for p, t in zip(mirrored, truth, strict=True)])
    np.testing.assert_allclose(metrics.procrustes_align(mirrored, truth), expected, atol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1234.5])
def test_a_constant_prediction_is_put_on_the_truths_mean(constant):
    _, truth = random_poses()
    prediction = np.full_like(truth, constant)
    expected = np.mean(np.linalg.norm(truth - truth.mean(1, keepdims=True), axis=-1))
    assert metrics.p_mpjpe(prediction, truth) == pytest.approx(expected, abs=1e-9)
    assert np.isfinite(metrics.n_mpjpe(prediction, truth))


def test_p_mpjpe_takes_flat_straight_and_constant_truth():
    prediction, truth = random_poses()
    for flat in (truth * [1, 1, 0], truth * [1, 0, 0], truth * 0):
        assert np.isfinite(metrics.p_mpjpe(prediction, flat)) and np.isfinite(metrics.p_mpjpe(flat, truth))


def test_n_mpjpe_takes_the_best_scale_per_frame():
    prediction, truth = random_poses(3)
    scales = np.linspace(0.8, 1.2, 4001)[:, None, None]
    squared = [np.sum((scales * p - t) ** 2, axis=(1, 2)) for p, t in zip(prediction, truth, strict=True)]
    best = scales[np.argmin(squared, axis=1)]
    assert metrics.n_mpjpe(prediction, truth) == pytest.approx(metrics.mpjpe(best * prediction, truth), abs=1e-4)
    assert metrics.n_mpjpe(truth * np.linspace(0.5, 2, 3)[:, None, None], truth) < 1e-12
    assert metrics.n_mpjpe(truth * 0, truth) == pytest.approx(metrics.mpjpe(truth * 0, truth))


def test_velocity_and_acceleration_errors_of_known_motions():
    time = np.arange(20.0)[:, None, None]
    truth = np.zeros((20, 5, 3))
    moving = truth + time * [0.003, 0, 0.004]
    accelerating = truth + 0.5 * time**2 * [0.003, 0.004, 0]
    assert metrics.mpjve(moving, truth) == pytest.approx(0.005)
    assert metrics.mpjve(truth + 5, truth) == 0
    assert metrics.acceleration_error_mm_frame2(moving, truth) == pytest.approx(0, abs=1e-9)
    assert metrics.acceleration_error_mm_frame2(accelerating, truth) == pytest.approx(5.0)
    assert metrics.acceleration_error_m_s2(accelerating, truth, fps=50) == pytest.approx(0.005 * 2500)


def test_pck_and_auc_of_known_errors():
    truth = np.zeros((1, 4, 3))
    prediction = truth.copy()
    prediction[0, :, 0] = [0.0, 0.074, 0.149, 0.2]
    assert metrics.pck(prediction, truth) == 0.75
    assert metrics.pck(prediction, truth, threshold=0.1) == 0.5
    assert metrics.auc(prediction, truth) == pytest.approx((31 + 16 + 1 + 0) / (4 * 31))  # 75..150 mm; 150 mm; none
    assert metrics.auc(truth, truth) == 1


def test_auc_equals_the_mean_of_pck():
    prediction, truth = random_poses()
    expected = np.mean([metrics.pck(prediction, truth, 0.005 * step) for step in range(31)])
    assert metrics.auc(prediction, truth) == pytest.approx(expected, abs=1e-12)


def test_root_error_in_metres_and_as_share_of_depth():
    truth = np.array([[0, 0, 2.0], [1, 0, 4], [0, 1, 10]])
    prediction = truth + np.array([[0, 0, 0.2], [0.3, 0, 0.4], [0, 0, 1]])
    assert metrics.root_error(prediction, truth) == pytest.approx((0.2 + 0.5 + 1) / 3)
    assert metrics.root_error_share_of_depth(prediction, truth) == pytest.approx((0.1 + 0.125 + 0.1) / 3)
    with pytest.raises(ValueError, match="camera frame"):
        metrics.root_error_share_of_depth(prediction, truth * [1, 1, -1])


@pytest.mark.parametrize("metric", [*POSE_METRICS, metrics.pck, metrics.auc])
def test_truth_that_is_missing_is_left_out(metric):
    prediction, truth = random_poses(12)
    holed = np.concatenate([truth, np.full((3, 7, 3), np.nan)])
    longer = np.concatenate([prediction, np.full((3, 7, 3), np.nan)])
    assert metric(longer, holed) == pytest.approx(metric(prediction, truth), abs=1e-12)


@pytest.mark.parametrize("metric", POSE_METRICS)
def test_a_missing_prediction_is_an_error_unless_skipped(metric):
    prediction, truth = random_poses(12)
    prediction[-1] = np.nan
    with pytest.raises(ValueError, match="NaN at 7 of 84 known points"):
        metric(prediction, truth)
    assert metric(prediction, truth, missing="skip") == pytest.approx(metric(prediction[:-1], truth[:-1]), abs=1e-12)
    with pytest.raises(ValueError, match="missing is 'ignore'"):
        metric(prediction, truth, missing="ignore")


def test_a_missing_prediction_is_a_wrong_one_for_pck_and_auc():
    _, truth = random_poses(4)
    prediction = truth.copy()
    prediction[0] = np.nan
    assert metrics.pck(prediction, truth) == 0.75 and metrics.auc(prediction, truth) == 0.75


def test_alignment_uses_only_the_joints_known_in_both():
    prediction, truth = random_poses(5)
    prediction[0, 2], truth[0, 4, 1], truth[1, 2:] = np.nan, np.nan, np.nan  # frame 1: two joints are too few
    aligned = metrics.procrustes_align(prediction, truth)
    kept = [0, 1, 3, 5, 6]
    np.testing.assert_allclose(aligned[0, kept], align_one(prediction[0, kept], truth[0, kept]), atol=1e-9)
    assert np.isnan(aligned[0, [2, 4]]).all() and np.isnan(aligned[1]).all() and np.isfinite(aligned[2:]).all()


@pytest.mark.parametrize("metric", [*POSE_METRICS, metrics.pck, metrics.auc])
def test_wrong_shapes_and_nothing_known_are_refused(metric):
    prediction, truth = random_poses()
    with pytest.raises(ValueError, match="expected the same"):
        metric(prediction[:5], truth)
    with pytest.raises(ValueError, match="metres"):
        metric(prediction[..., :2], truth[..., :2])
    with pytest.raises(ValueError, match="metres"):
        metric(prediction[0], truth[0])
    with pytest.raises(ValueError, match="at least one"):
        metric(prediction * np.nan, truth * np.nan)


def test_too_few_frames_and_a_wrong_rate_are_refused():
    prediction, truth = random_poses(2)
    with pytest.raises(ValueError, match="expected at least 2"):
        metrics.mpjve(prediction[:1], truth[:1])
    with pytest.raises(ValueError, match="expected at least 3"):
        metrics.acceleration_error_mm_frame2(prediction, truth)
    for fps in (0, -1, np.nan):
        with pytest.raises(ValueError, match="fps is"):
            metrics.acceleration_error_m_s2(prediction, truth, fps)
    with pytest.raises(ValueError, match="threshold is"):
        metrics.pck(prediction, truth, -0.1)


@pytest.mark.parametrize("metric", POSE_METRICS)
def test_a_batch_axis_in_front_is_the_mean_over_equal_sequences(metric):
    pairs = [random_poses(6, seed=seed) for seed in range(3)]
    prediction, truth = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    assert metric(prediction, truth) == pytest.approx(np.mean([metric(*pair) for pair in pairs]), abs=1e-9)


def test_mpvpe_is_the_mean_over_vertices():
    _, truth = random_poses(3, 50)
    assert metrics.mpvpe(truth + [0, 0.02, 0], truth) == pytest.approx(0.02, abs=1e-12)


def test_unposed_mesh_error_does_not_see_a_shift_but_sees_a_scale():
    truth = random_poses(1, 40)[1][0]
    assert metrics.unposed_mesh_error(truth + [1, -2, 3], truth) < 1e-12
    centred = truth - truth.mean(0)
    expected = 0.1 * np.linalg.norm(centred, axis=-1).mean()
    assert metrics.unposed_mesh_error(1.1 * truth, truth) == pytest.approx(expected, rel=1e-9)


def test_foot_slip_counts_steps_with_contact_in_both_frames():
    points = np.zeros((4, 2, 3))
    points[:, 0, 0] = [0, 0.01, 0.03, 0.10]  # steps of 10, 20 and 70 mm
    points[:, 1, 2] = [0, 0, 0.5, 0.5]
    contact = np.array([[1, 1], [1, 1], [1, 0], [0, 1]], bool)
    np.testing.assert_allclose(sorted(metrics.foot_slip(points, contact)), [0, 0.01, 0.02])
    with pytest.raises(ValueError, match=r"expected \(T, F, 3\)"):
        metrics.foot_slip(points, contact[:3])


def test_penetration_is_the_depth_of_the_lowest_point():
    points = np.array([[[0, 0, 0.5], [0, 0, -0.02]], [[0, 0, 0.1], [5, 5, 0.3]]])
    np.testing.assert_allclose(metrics.penetration(points, [0, 0, 1.0], 0.0), [0.02, 0.0])
    np.testing.assert_allclose(metrics.penetration(points, [0, 0, 1.0], 0.15), [0.17, 0.05])
    with pytest.raises(ValueError, match="normal"):
        metrics.penetration(points, [0, 1.0], 0.0)


def test_jitter_of_a_cubic_is_its_third_derivative():
    time = np.arange(20) / 50
    points = np.zeros((20, 2, 3))
    points[:, :, 1] = (5 * time**3)[:, None]  # third derivative 30 m/s^3
    assert metrics.jitter(points, 50) == pytest.approx(3.0, rel=1e-9)
    points[4] = np.nan
    assert metrics.jitter(points, 50) == pytest.approx(3.0, rel=1e-9)
    with pytest.raises(ValueError, match="at least 4"):
        metrics.jitter(points[:3], 50)


def test_foot_slip_along_the_floor_leaves_out_what_is_up_and_what_is_not_known():
    points = np.zeros((4, 1, 3))
    points[:, 0, 0], points[:, 0, 2] = [0, 0.003, 0.007, 1.0], [0, 0.004, 0.004, 0]
    contact = np.array([[1], [1], [1], [0]], bool)
    np.testing.assert_allclose(metrics.foot_slip(points, contact), [0.005, 0.004])
    np.testing.assert_allclose(metrics.foot_slip(points, contact, up=[0, 0, 2]), [0.003, 0.004])
    assert metrics.foot_slip(points, np.zeros((4, 1), bool)).shape == (0,)
    points[0] = np.nan
    np.testing.assert_allclose(metrics.foot_slip(points, contact), [0.004])
