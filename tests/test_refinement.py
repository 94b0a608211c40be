"""The refinement of poses: dense least-squares twins, movement and constant offsets in the image, depths, gaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from filmed_walker import walk_in_camera

from lifting import refinement
from lifting.anatomy import bone_lengths
from lifting.refinement import BRACES, RefinementConfig, follow_rays, refine_pose, rod_lengths, settle_depths
from lifting.skeletons import get_skeleton

H36M, LIFT = get_skeleton("h36m17"), get_skeleton("lift17")
SHARED = [name for name in LIFT.joints if name in H36M.joints]
IN, OUT = np.array(LIFT.indices(SHARED)), np.array(H36M.indices(SHARED))
FPS = 50.0
PATIENT = RefinementConfig(outlier=1e6, iterations=1)  # one linear step


def clip(frames):
    """Absolute joints (T, 17, 3) of the walker, sigma, and the rays and scores that see them exactly."""
    points = walk_in_camera(frames, FPS).astype(np.float64)
    rays, scores = np.full((frames, 17, 2), np.nan), np.zeros((frames, 17))
    rays[:, IN] = points[:, OUT, :2] / points[:, OUT, 2:]
    scores[:, IN] = 0.9
    return points, np.full((frames, 17), 0.1), rays, scores


def refined(points, sigma, rays, scores, **changes):
    """Absolute joints of `refine_pose`."""
    joints, root = points - points[:, :1], points[:, 0]
    joints, root = refine_pose(joints, root, sigma, rays, scores, FPS, replace(RefinementConfig(), **changes))
    assert joints.dtype == root.dtype == np.float32 and (joints[:, 0] == 0).all()
    return joints.astype(np.float64) + root[:, None]


def directions(points):
    return points / np.linalg.norm(points, axis=-1, keepdims=True)


def error(points, truth, name):
    return np.linalg.norm(points - truth, axis=-1)[:, H36M.index(name)].mean()


@pytest.mark.parametrize("frames", [1, 2, 3, 80])
def test_what_is_right_stays(frames):
    points, sigma, rays, scores = clip(frames)
    np.testing.assert_allclose(refined(points, sigma, rays, scores), points, atol=2e-3)
    np.testing.assert_allclose(refined(points, sigma, rays, scores, smoothing=0.0), points, atol=1e-5)


def test_movement_in_the_image_is_followed_and_a_constant_offset_is_not():
    truth, sigma, rays, scores = clip(100)
    wrist = H36M.index("left_wrist")
    still = truth.copy()
    still[:, wrist, 1] += 0.08 * np.sin(np.arange(100) / 8)
    followed = follow_rays(still, sigma, rays, scores, FPS, RefinementConfig())
    assert error(followed, truth, "left_wrist") < 0.25 * error(still, truth, "left_wrist")
    rays[:, LIFT.index("left_wrist")] += [0.04, -0.04] / truth[:, wrist, 2:]  # 4 cm in every frame
    np.testing.assert_allclose(follow_rays(truth, sigma, rays, scores, FPS, RefinementConfig()), truth, atol=5e-3)


def test_wrong_depths_are_settled_by_constant_bones():
    truth, sigma, rays, scores = clip(100)
    wrong = truth.copy()
    bump = np.exp(-(((np.arange(100) - 50) / 15) ** 2))
    wrong[:, H36M.index("right_ankle")] *= 1 + 0.06 * bump[:, None]  # up to 30 cm deeper
    settled = refined(wrong, 1.5 * sigma, rays, scores)
    assert error(settled, truth, "right_ankle") < 0.6 * error(wrong, truth, "right_ankle")
    untouched = H36M.indices(["left_ankle", "head", "left_wrist"])
    np.testing.assert_allclose(settled[:, untouched], truth[:, untouched], atol=5e-3)


def test_bones_are_constant_and_alike_on_both_sides():
    rng = np.random.default_rng(0)
    points, sigma, rays, scores = clip(40)
    lengths = bone_lengths(refined(points + rng.normal(0, 0.03, points.shape), sigma, rays, scores))
    np.testing.assert_allclose(lengths, lengths[:1].repeat(40, axis=0), atol=1e-5)
    ends = [H36M.joints[child] for _, child in H36M.bones]
    left = lengths[0, [ends.index(f"left_{name}") for name in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")]]
    right = lengths[0, [ends.index(f"right_{name}") for name in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")]]
    np.testing.assert_allclose(left, right, atol=1e-5)


def bending(frames):
    """Second differences over frames as a matrix."""
    return np.diff(np.eye(frames), 2, axis=0)


@pytest.mark.parametrize("frames", [1, 2, 3, 9])
def test_following_equals_dense_least_squares(frames):
    rng = np.random.default_rng(frames)
    points, sigma, rays, scores = clip(frames)
    points = points + rng.normal(0, 0.03, points.shape)
    sigma = rng.uniform(0.02, 0.2, sigma.shape)
    scores *= rng.random(scores.shape) < 0.7
    expected = points[:, OUT].copy()
    for k, (i, j) in enumerate(zip(IN, OUT, strict=True)):
        along = directions(np.append(rays[:, i], np.ones((frames, 1)), axis=1))
        offset = (points[:, j] * along).sum(-1, keepdims=True) * along - points[:, j]
        weight = scores[:, i]
        offset = np.where(weight[:, None] > 0, offset, 0)
        offset -= (weight[:, None] * offset).sum(0) / max(weight.sum(), 1e-9)
        pull = 1 / (PATIENT.plane_share * sigma[:, j])
        bend = (PATIENT.plane_seconds * FPS) ** 2 * pull[1:-1, None] * bending(frames) if frames > 2 else pull[:0, None]
        rows = [np.diag(np.sqrt(weight)) / PATIENT.keypoint, np.diag(pull), bend.reshape(-1, frames)]
        values = np.zeros((sum(len(row) for row in rows), 3))
        values[:frames] = np.sqrt(weight)[:, None] * offset / PATIENT.keypoint
        expected[:, k] += np.linalg.lstsq(np.concatenate(rows), values, rcond=None)[0]
    followed = follow_rays(points, sigma, rays, scores, FPS, PATIENT)
    np.testing.assert_allclose(followed[:, OUT], expected, atol=1e-7)
    moved = followed - points
    np.testing.assert_allclose(moved[:, 0], moved[:, H36M.indices(["left_hip", "right_hip"])].mean(1), atol=1e-12)


@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_settling_equals_dense_gauss_newton(frames):
    rng = np.random.default_rng(frames)
    points, sigma, _, _ = clip(frames)
    lengths = rod_lengths(points)
    points = points + rng.normal(0, 0.05, points.shape)
    sigma = rng.uniform(0.02, 0.2, sigma.shape)
    rays, unknowns = directions(points), np.eye(17 * frames).reshape(-1, frames, 17)
    rows, values = [unknowns[:, t, 0] * 1e6 for t in range(frames)], [0.0] * frames  # the root stays
    for t in range(frames):
        for rod, (a, b) in enumerate([*H36M.bones, *(sorted(H36M.indices(pair)) for pair in BRACES)]):
            across = points[t, b] - points[t, a]
            length, size = np.linalg.norm(across), PATIENT.bone if rod < len(H36M.bones) else PATIENT.brace
            slope = unknowns[:, t, b] * (across @ rays[t, b]) - unknowns[:, t, a] * (across @ rays[t, a])
            rows.append(slope / length / size)
            values.append((lengths[rod] - length) / size)
        for joint in range(1, 17):
            rows.append(unknowns[:, t, joint] / sigma[t, joint])
            values.append(0.0)
            if 0 < t < frames - 1:
                bend = unknowns[:, t - 1, joint] - 2 * unknowns[:, t, joint] + unknowns[:, t + 1, joint]
                rows.append(bend * (PATIENT.depth_seconds * FPS) ** 2 / sigma[t, joint])
                values.append(0.0)
    step = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0].reshape(frames, 17)
    settled = settle_depths(points, sigma, lengths, FPS, PATIENT)
    np.testing.assert_allclose(settled, points + step[..., None] * rays, atol=1e-6)


def test_the_windows_of_a_long_clip_do_not_show(monkeypatch):
    rng = np.random.default_rng(3)
    points, sigma, rays, scores = clip(400)
    points = points + rng.normal(0, 0.05, points.shape)
    whole = refined(points, sigma, rays, scores)
    monkeypatch.setattr(refinement, "_WINDOW", 130)
    np.testing.assert_allclose(refined(points, sigma, rays, scores), whole, atol=1e-4)


def test_outliers_and_gaps_hardly_pull():
    rng = np.random.default_rng(4)
    points, sigma, rays, scores = clip(100)
    wild = rng.random(scores.shape) < 0.05
    rays[wild] += rng.choice([-0.4, 0.4], (wild.sum(), 2))  # 1.6 m at 4 m
    rays[30:60, LIFT.index("left_knee")], scores[30:60, LIFT.index("left_knee")] = np.nan, 0
    rays[80:], scores[80:] = np.nan, 0
    np.testing.assert_allclose(refined(points, sigma, rays, scores), points, atol=0.03)


def test_a_clip_in_which_no_shared_joint_is_seen_keeps_its_poses():
    points, sigma, rays, scores = clip(20)
    scores[:] = 0
    np.testing.assert_allclose(refined(points, sigma, rays, scores, smoothing=0.0), points, atol=1e-5)


def test_the_mirrored_clip_gives_the_mirrored_poses():
    rng = np.random.default_rng(5)
    points, sigma, rays, scores = clip(30)
    points = points + rng.normal(0, 0.03, points.shape)
    mirror, flip, flip_in = np.array([-1, 1, 1]), list(H36M.flip), list(LIFT.flip)
    expected = refined(points, sigma, rays, scores)[:, flip] * mirror
    found = refined(points[:, flip] * mirror, sigma, rays[:, flip_in] * mirror[:2], scores[:, flip_in])
    np.testing.assert_allclose(found, expected, atol=1e-5)
