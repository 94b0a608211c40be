"""How far evidence is to be trusted: noise from smooth signals, correlated errors, deviations of joints and pixels."""

from __future__ import annotations

import numpy as np
import pytest

from lifting.body.evidence import (
    DETECTOR_SHARE,
    LEAST_SIGMA,
    error_memory,
    frames_per_measurement,
    noise_factor,
    observe,
    white_noise,
)
from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import RADIUS_68, Motion

CAMERA = Camera.from_fov(60.0, (640, 480))
FPS = 50.0


def moving(frames: int = 200, joints: int = 17) -> np.ndarray:
    """Smooth absolute joints (T, J, 3) in front of a camera, metres."""
    time = np.arange(frames)[:, None] / FPS
    phase = np.linspace(0, 3, joints)
    return np.stack([0.3 * np.sin(2 * time + phase), 0.5 * np.cos(time + phase), 4 + 0.2 * np.sin(time * phase)], -1)


def motion_of(joints: np.ndarray, sigma: np.ndarray | None = None) -> Motion:
    return Motion(joints - joints[:, :1], joints[:, 0], sigma, "h36m17", FPS)


def autoregressive(shape: tuple[int, ...], correlation: float, seed: int = 0) -> np.ndarray:
    """Gaussian noise (T, ...) of deviation one whose neighbours in time are correlated."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(shape)
    for t in range(1, shape[0]):
        noise[t] = correlation * noise[t - 1] + np.sqrt(1 - correlation**2) * noise[t]
    return noise


def test_radius_is_the_chi_quantile():
    from scipy.stats import chi

    assert chi(3).cdf(RADIUS_68) == pytest.approx(0.68, abs=2e-3)


def test_white_noise_is_measured_on_top_of_motion_and_in_spite_of_outliers_and_gaps():
    rng = np.random.default_rng(1)
    joints = moving() + rng.normal(0, 0.02, (200, 17, 3))
    joints[rng.random((200, 17)) < 0.02] += 0.5
    joints[50:60] = np.nan
    assert white_noise(joints) == pytest.approx(0.02, rel=0.12)
    assert white_noise(moving()) < 5e-5
    assert white_noise(joints[:3]) == 0.0


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_noise_factor_counts_correlated_frames_once(correlation):
    """The mean of T frames of such noise has the variance f^2 / T: what the factor is for."""
    residuals = 0.03 * autoregressive((4000, 6, 3), correlation)
    factor = noise_factor(residuals, np.full((4000, 6), 0.02), FPS)
    assert factor == pytest.approx(1.5 * np.sqrt((1 + correlation) / (1 - correlation)), rel=0.08)
    blocks = (residuals / 0.02).reshape(20, 200, 18).mean(axis=1)
    assert blocks.std() * np.sqrt(200) == pytest.approx(factor, rel=0.2)


def test_correlation_is_not_mistaken_for_outliers_and_has_a_limit():
    residuals = 0.02 * autoregressive((1000, 4, 3), 0.0)
    residuals[::20] += 1.0  # every twentieth frame is far off
    assert frames_per_measurement(residuals / 0.02, 1.0, FPS) < 2.0
    assert frames_per_measurement(np.ones((100, 4, 3)), 1.0, FPS) == pytest.approx(FPS)
    assert noise_factor(np.full((10, 2, 3), np.nan), np.ones((10, 2)), FPS) == 1.0


def test_observed_sigma_is_the_motions_own_else_its_jitter():
    joints = moving()
    given = observe(motion_of(joints, np.full((200, 17), 0.05)), None, None)
    np.testing.assert_allclose(given.sigma, 0.05 / RADIUS_68, rtol=1e-6)
    noisy = joints + np.random.default_rng(0).normal(0, 0.02, joints.shape)
    assert observe(motion_of(noisy), None, None).sigma.mean() == pytest.approx(0.02, rel=0.1)
    assert observe(motion_of(joints), None, None).sigma.mean() == pytest.approx(LEAST_SIGMA, rel=1e-3)


def test_span_without_anybody_is_cut_and_remembered():
    joints = moving()
    joints[:20] = joints[180:] = np.nan
    seen = observe(motion_of(joints), None, None)
    assert (seen.first, len(seen)) == (20, 160)
    assert np.isfinite(seen.joints).all()


def test_unsure_keypoints_get_a_wider_sigma():
    joints = moving()
    pixels = CAMERA.project(joints)
    score = np.full(pixels.shape[:2], 0.9)
    score[:, 3], score[10, 4] = 0.3, 0.0
    keypoints = Keypoints2D(pixels, score, "h36m17", CAMERA.image_size, FPS)
    seen = observe(motion_of(joints), keypoints, CAMERA)
    size = np.median(np.linalg.norm(np.nanmax(seen.pixels, 1) - np.nanmin(seen.pixels, 1), axis=-1))
    assert seen.sigma_px[0, 0] == pytest.approx(DETECTOR_SHARE * size / 0.9, rel=1e-4)
    assert seen.sigma_px[0, 3] == pytest.approx(3 * seen.sigma_px[0, 0], rel=1e-4)
    assert np.isnan(seen.pixels[10, 4]).all()


@pytest.mark.parametrize(
    ("keypoints", "camera", "message"),
    [
        (lambda xy: Keypoints2D(xy, None, "h36m17", (640, 480), FPS), None, "no camera"),
        (lambda xy: Keypoints2D(xy[:100], None, "h36m17", (640, 480), FPS), CAMERA, "100 frames of keypoints"),
        (lambda xy: Keypoints2D(xy, None, "h36m17", (640, 480), 25.0), CAMERA, "25 frames/s"),
        (lambda xy: Keypoints2D(xy, None, "h36m17", (320, 240), FPS), CAMERA, "scale the camera"),
    ],
)
def test_evidence_that_does_not_belong_together(keypoints, camera, message):
    joints = moving()
    with pytest.raises(ValueError, match=message):
        observe(motion_of(joints), keypoints(CAMERA.project(joints)), camera)


def test_nothing_known():
    with pytest.raises(ValueError, match="without a single known joint"):
        observe(motion_of(np.full((5, 17, 3), np.nan)), None, None)


def test_error_memory_tells_lasting_errors_from_those_of_one_frame():
    rng = np.random.default_rng(5)
    sigma = np.full((2000, 6), 0.02)
    fresh, lasting = rng.normal(0, 0.02, (2000, 6, 3)), np.empty((2000, 6, 3))
    lasting[0] = fresh[0]
    for frame in range(1, 2000):
        lasting[frame] = 0.9 * lasting[frame - 1] + np.sqrt(1 - 0.9**2) * fresh[frame]
    assert error_memory(fresh, sigma, FPS) == pytest.approx(1.0, abs=0.1)
    assert error_memory(lasting, sigma, FPS) == pytest.approx(1.9 / 0.1, rel=0.15)
    assert error_memory(fresh[:5], sigma[:5], FPS) == np.inf
    assert error_memory(np.full((50, 6, 3), np.nan), sigma[:50], FPS) == np.inf
