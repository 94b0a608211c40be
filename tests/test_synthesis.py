"""Synthetic views: exact where there is no noise, and noise of the announced kind and amount."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from walking_figure import H36M, STATURE, walker, walker_feet, walking_piece

from lifting.anatomy import bone_lengths, stature, trunk_frames
from lifting.datasets import synthesis
from lifting.datasets.detector_noise import (
    INPUT,
    TRAINING_NOISE,
    NoiseModel,
    detect,
    detector_points,
    face_forward,
    runs,
)
from lifting.datasets.pose_augmentation import PoseRanges
from lifting.datasets.synthesis import (
    TRAINING_CAMERAS,
    CameraRanges,
    Synthesiser,
    Views,
    camera_rotation,
    mirror,
    mix_bodies,
    pelvis_frames,
    photograph,
    reshape_bodies,
)

NO_NOISE = NoiseModel(bias=0.0, jitter=(0.0, 0.0), swap_share=0.0, dropout_share=0.0, feet=1.0)
NO_BORDER = np.full((1, 2), np.inf, np.float32)
CAMERA = CameraRanges()
FEET = slice(13, 17)
LEG = ("knee", "ankle", "big_toe", "heel")
# Where each input joint comes from, by name and independently of the joint maps.
SOURCES = ["neck_nose" if name == "nose" else name for name in INPUT.joints[:13]]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def bodies(batch: int = 4, frames: int = 30) -> tuple[np.ndarray, np.ndarray]:
    joints = np.stack([walker(frames, phase=0.7 * i) * np.float32(0.9 + 0.05 * i) for i in range(batch)])
    return joints, np.stack([walker_feet(j) for j in joints])


def shoot(noise: NoiseModel, camera: CameraRanges = CAMERA, batch: int = 4, frames: int = 30, seed: int = 0) -> Views:
    return photograph(*bodies(batch, frames), ((1.0, camera),), noise, generator(seed))


def projections(views: Views) -> np.ndarray:
    """Exact rays (N, T, 13, 2) of the true joints: an independent pinhole."""
    absolute = views.joints + views.root[:, :, None]
    points = absolute[:, :, [H36M.index(name) for name in SOURCES]].astype(np.float64)
    return np.stack([points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]], axis=-1)


def still_points(batch: int, frames: int) -> np.ndarray:
    """A standing person 4 m ahead in camera axes, (N, T, 17, 3), left joints at +x, each joint at its own height."""
    heights = np.linspace(-0.8, 0.8, 17)
    x = np.array([0.3 if "left" in name else -0.3 if "right" in name else 0.0 for name in INPUT.joints])
    person = np.stack([x, heights[np.minimum(np.arange(17), INPUT.flip)], np.full(17, 4.0)], -1).astype(np.float32)
    return np.broadcast_to(person, (batch, frames, 17, 3)).copy()


def look(noise: NoiseModel, batch: int = 8, frames: int = 200, border=NO_BORDER, seed: int = 0):
    points = still_points(batch, frames)
    size = np.full((batch, frames), 1.7 / 4, np.float32)
    rays, scores = detect(points, size, np.broadcast_to(border, (batch, 2)), noise, generator(seed))
    return points[..., :2] / points[..., 2:], rays, scores


# ---- cameras


@given(yaw=st.floats(-7, 7), pitch=st.floats(-1.5, 1.5), roll=st.floats(-3.2, 3.2))
def test_camera_rotations_are_proper_and_look_where_they_say(yaw, pitch, roll):
    rotation = camera_rotation(yaw, pitch, roll)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    ahead = [np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), -np.sin(pitch)]
    np.testing.assert_allclose(rotation[2], ahead, atol=1e-12)


def test_level_camera_sees_the_world_upright_and_roll_turns_the_image_clockwise():
    up, right = np.array([0, 0, 1.0]), np.array([1.0, 0, 0])
    level = camera_rotation(0, 0, 0)
    np.testing.assert_allclose(level @ up, [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(level @ right, [1, 0, 0], atol=1e-12)
    rolled = camera_rotation(0, 0, np.pi / 2)
    np.testing.assert_allclose(rolled @ up, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(camera_rotation(0, 0.3, 0) @ up, [0, -np.cos(0.3), -np.sin(0.3)], atol=1e-12)


def test_cameras_keep_to_their_ranges():
    ranges = CameraRanges((50, 50), (3, 6), (-20, 10), (-15, 15), centring=0.4, nearest=0.5, aspects=(2.0,))
    views = shoot(NO_NOISE, ranges, batch=60, frames=5)
    ahead, down = views.rotation[:, 2], -views.rotation[:, 2, 2]
    pitch = np.degrees(np.arcsin(down))
    assert -20.01 <= pitch.min() < -10 and 2 < pitch.max() <= 10.01
    right_of_ahead = np.stack([ahead[:, 1], -ahead[:, 0], np.zeros(60)], -1)
    cosine = (views.rotation[:, 0] * right_of_ahead).sum(-1) / np.linalg.norm(right_of_ahead, axis=-1)
    roll = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    assert 8 < roll.max() <= 15.01
    joints, _ = bodies(60, 5)
    middle = (joints.min((1, 2)) + joints.max((1, 2))) / 2
    seen = np.einsum("nij,nj->ni", views.rotation, middle - joints[:, 0, 0]) + views.root[:, 0]
    assert 2.99 < seen[:, 2].min() < 3.5 and 5.3 < seen[:, 2].max() < 6.01
    half_width = np.tan(np.radians(25))
    offsets = np.abs(seen[:, :2] / seen[:, 2:]) / [half_width, half_width / 2]
    assert 0.3 < offsets.max() <= 0.4001


def test_camera_moves_back_until_every_joint_is_ahead_of_it():
    views = shoot(NO_NOISE, CameraRanges(distance=(0.3, 0.6), nearest=0.8), batch=12)
    depth = (views.joints + views.root[:, :, None])[..., 2].min((1, 2))
    np.testing.assert_allclose(depth, 0.8, atol=1e-4)


def test_kinds_of_cameras_are_drawn_by_their_weights():
    kinds = ((3.0, CameraRanges(pitch=(-50, -40))), (1.0, CameraRanges(pitch=(40, 50))))
    views = photograph(*bodies(200, 2), kinds, NO_NOISE, generator())
    assert (views.rotation[:, 2, 2] > 0).mean() == pytest.approx(0.75, abs=0.08)


# ---- photographs


def test_photograph_without_noise_is_the_projection_of_the_truth():
    views = shoot(NO_NOISE)
    np.testing.assert_allclose(views.rays[:, :, :13], projections(views), atol=2e-6)
    assert np.isfinite(views.rays).all() and (views.scores == 1).all()
    np.testing.assert_allclose(views.stature, STATURE * np.array([0.9, 0.95, 1.0, 1.05]), atol=1e-4)
    np.testing.assert_array_equal(views.joints[:, :, 0], 0)
    assert {a.dtype for a in vars(views).values()} == {np.dtype(np.float32)}


def test_truth_is_the_world_seen_by_one_static_camera_per_sample():
    views, (joints, feet) = shoot(NO_NOISE), bodies()
    relative = joints - joints[:, :, :1]
    np.testing.assert_allclose(views.joints, np.einsum("nij,ntkj->ntki", views.rotation, relative), atol=1e-5)
    shift = views.root - np.einsum("nij,ntj->nti", views.rotation, joints[:, :, 0])
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), atol=1e-5)
    seen = np.einsum("nij,ntkj->ntki", views.rotation, feet) + shift[:, :, None]
    np.testing.assert_allclose(views.rays[:, :, FEET], seen[..., :2] / seen[..., 2:], atol=1e-5)


def test_motion_without_feet_has_none_in_view_and_input_is_left_alone():
    joints, feet = bodies()
    kept = joints.copy()
    noise = replace(TRAINING_NOISE, feet=1.0)
    views = photograph(joints, np.full_like(feet, np.nan), TRAINING_CAMERAS, noise, generator())
    assert np.isnan(views.rays[:, :, FEET]).all() and (views.scores[:, :, FEET] == 0).all()
    np.testing.assert_array_equal(joints, kept)


# ---- bodies


def test_mirror_negates_x_and_swaps_sides_by_name():
    joints, feet = bodies(3)
    mirrored, mirrored_feet = mirror(joints.copy(), feet.copy(), np.array([True, False, True]))
    np.testing.assert_array_equal(mirrored[1], joints[1])
    for mine, other in (("left_knee", "right_knee"), ("right_wrist", "left_wrist"), ("head", "head")):
        np.testing.assert_array_equal(mirrored[0, :, H36M.index(mine)], joints[0, :, H36M.index(other)] * [-1, 1, 1])
    np.testing.assert_array_equal(mirrored_feet[2, :, 0], feet[2, :, 1] * np.float32([-1, 1, 1]))
    np.testing.assert_array_equal(mirrored_feet[2, :, 3], feet[2, :, 2] * np.float32([-1, 1, 1]))


def test_mirror_twice_is_the_identity():
    joints, feet = bodies()
    everybody = np.ones(len(joints), bool)
    twice, twice_feet = mirror(*mirror(joints.copy(), feet.copy(), everybody), everybody)
    np.testing.assert_array_equal(twice, joints)
    np.testing.assert_array_equal(twice_feet, feet)


def test_mixed_bodies_keep_their_legs_and_get_anothers_upper_body():
    joints, feet = bodies(4)
    joints[2] = np.einsum("ij,tkj->tki", camera_rotation(0.5, 0.4, 0.3), joints[2])  # somebody who leans
    mixed, mixed_feet = mix_bodies(joints.copy(), feet.copy(), np.array([True, True, True, False]), generator(3))
    legs = H36M.indices([n for n in H36M.joints if any(p in n for p in ("hip", "knee", "ankle"))])
    np.testing.assert_array_equal(mixed[:, :, legs], joints[:, :, legs])
    np.testing.assert_array_equal(mixed[3], joints[3])
    np.testing.assert_array_equal(mixed_feet, feet)
    donors = generator(3).permutation(4)[:3]
    assert (donors != np.arange(3)).any()
    upper = slice(H36M.index("spine"), None)
    for i, donor in enumerate(donors):
        np.testing.assert_allclose(in_pelvis(mixed[i])[:, upper], in_pelvis(joints[donor])[:, upper], atol=1e-5)
        np.testing.assert_allclose(bone_lengths(mixed[i])[:, 6:], bone_lengths(joints[donor])[:, 6:], atol=1e-5)


def in_pelvis(joints: np.ndarray) -> np.ndarray:
    return np.einsum("tji,tkj->tki", pelvis_frames(joints), joints - joints[:, :1])


def test_nobody_is_mixed_where_nobody_is_chosen():
    joints, feet = bodies()
    mixed, _ = mix_bodies(joints.copy(), feet, np.zeros(4, bool), generator())
    np.testing.assert_array_equal(mixed, joints)


def test_reshaped_bodies_keep_directions_and_symmetry():
    joints, feet = bodies(20)
    shaped, shaped_feet = reshape_bodies(joints, feet, generator())
    parents, children = np.array(H36M.bones).T
    before, after = (j[:, :, children] - j[:, :, parents] for j in (joints, shaped))
    factors = np.linalg.norm(after, axis=-1) / np.linalg.norm(before, axis=-1)
    np.testing.assert_allclose(after, before * factors[..., None], atol=1e-5)
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], factors.shape), rtol=1e-4)
    flipped = [list(children).index(H36M.flip[child]) for child in children]
    np.testing.assert_allclose(factors, factors[..., flipped], rtol=1e-4)
    assert 0.75 * 0.85 - 1e-4 < factors.min() and factors.max() < 1.6 * 1.15 + 1e-4 and factors.std(0).min() > 0.02
    np.testing.assert_array_equal(shaped[:, :, 0], joints[:, :, 0])
    ankles = H36M.indices(["left_ankle", "right_ankle", "left_ankle", "right_ankle"])
    ratio = np.linalg.norm(shaped_feet - shaped[:, :, ankles], axis=-1)
    ratio /= np.linalg.norm(feet - joints[:, :, ankles], axis=-1)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape), rtol=1e-3)


def test_hips_mostly_widen():
    joints, feet = bodies(200, 1)
    shaped, _ = reshape_bodies(joints, feet, generator())
    left, right = H36M.indices(["left_hip", "right_hip"])
    width = np.linalg.norm(shaped[:, 0, left] - shaped[:, 0, right], axis=-1) / np.linalg.norm(
        joints[:, 0, left] - joints[:, 0, right], axis=-1)
    assert 1.15 < np.median(width) < 1.35 and width.min() > 0.7


# ---- noise


@pytest.mark.parametrize(("share", "length"), [(0.03, (1, 20)), (0.01, (5, 60)), (0.2, (3, 3))])
def test_runs_cover_the_share_everywhere(share, length):
    inside = runs((300, 120, 8), share, length, generator())
    expected = 1 - np.exp(-share)
    assert inside.mean() == pytest.approx(expected, rel=0.1)
    edges = inside[:, [0, 1, -2, -1]].mean()
    assert edges == pytest.approx(expected, rel=0.25)  # runs may begin before a window and end after it


def test_runs_have_the_lengths():
    inside = runs((200, 300, 4), 0.01, (3, 7), generator())
    steps = np.diff(np.pad(inside, ((0, 0), (1, 1), (0, 0))).astype(int), axis=1)
    steps = steps.transpose(0, 2, 1).reshape(-1, 301)
    starts, ends = np.nonzero(steps == 1), np.nonzero(steps == -1)
    whole = (starts[1] > 0) & (ends[1] < 300)
    lengths = (ends[1] - starts[1])[whole]
    counts = np.bincount(lengths, minlength=8)
    assert counts[3:8].min() > 0.12 * len(lengths)  # uniform: a fifth each
    assert counts[:3].sum() == 0 and counts[8:].sum() < 0.03 * len(lengths)  # two that touch


def test_no_runs_without_a_share():
    assert not runs((5, 50, 3), 0.0, (1, 20), generator()).any()
    assert runs((40, 1, 3), 0.5, (1, 20), generator()).shape == (40, 1, 3)


def test_swaps_exchange_sides_and_nothing_else():
    exact, rays, scores = look(replace(NO_NOISE, swap_share=0.3), batch=40)
    swapped = np.isclose(rays, exact[:, :, list(INPUT.flip)]).all((2, 3))
    kept = np.isclose(rays, exact).all((2, 3))
    assert (swapped ^ kept).all() and (scores == 1).all()
    assert swapped.mean() == pytest.approx(1 - np.exp(-0.3), rel=0.12)


def test_swaps_of_legs_leave_the_arms():
    exact, rays, _ = look(replace(NO_NOISE, swap_share=0.3, legs_only=1.0), batch=40)
    legs = [i for i, name in enumerate(INPUT.joints) if any(p in name for p in ("knee", "ankle", "toe", "heel"))]
    changed = ~np.isclose(rays, exact).all(-1)
    assert changed[..., legs].all(-1).mean() == pytest.approx(1 - np.exp(-0.3), rel=0.12)
    np.testing.assert_array_equal(changed[..., legs].any(-1), changed[..., legs].all(-1))
    assert not np.delete(changed, legs, axis=-1).any()


def test_bias_is_constant_in_time_and_jitter_is_white_both_in_shares_of_stature():
    exact, rays, _ = look(replace(NO_NOISE, bias=0.015), batch=100, frames=5)
    error = (rays - exact) / (1.7 / 4)
    np.testing.assert_allclose(error, np.broadcast_to(error[:, :1], error.shape), atol=1e-5)
    assert error.std() == pytest.approx(0.015, rel=0.05)
    exact, rays, _ = look(replace(NO_NOISE, jitter=(0.008, 0.008)))
    error = (rays - exact) / (1.7 / 4)
    assert error.std() == pytest.approx(0.008, rel=0.03)
    assert abs((error[:, 1:] * error[:, :-1]).mean()) < 0.02 * error.var()


def test_jitter_varies_from_sample_to_sample_and_drift_is_slow():
    exact, rays, _ = look(replace(NO_NOISE, jitter=(0.001, 0.012)), batch=60)
    deviations = ((rays - exact) / (1.7 / 4)).std((1, 2, 3))
    assert 0.0009 < deviations.min() < 0.003 and 0.010 < deviations.max() < 0.0125
    exact, rays, _ = look(replace(NO_NOISE, drift=(0.01, 0.01)), batch=30)
    error = (rays - exact) / (1.7 / 4)
    assert error.std() == pytest.approx(0.01, rel=0.05)
    assert np.diff(error, axis=1).std() < 0.3 * error.std()


def test_bursts_make_single_joints_worse():
    exact, rays, _ = look(replace(NO_NOISE, jitter=(0.005, 0.005), burst_share=0.2), batch=40)
    quiet = 0.005 * 1.7 / 4
    error = np.abs(rays - exact).max(-1)
    assert (error > 4.2 * quiet).mean() > 0.02
    assert error.max() < 5 * 6 * quiet


def test_slips_draw_arms_and_legs_elsewhere():
    noise = replace(NO_NOISE, slip_share=(0.2, 0.1), slip=(0.05, 0.05))
    exact, rays, _ = look(noise, batch=150)
    error = (rays - exact) / (1.7 / 4)
    moved = (np.abs(error) > 1e-6).any(-1)
    arms, legs = (INPUT.indices([f"left_{name}" for name in names]) for names in (("elbow", "wrist"), LEG))
    others = [INPUT.index(f"right_{name}") for name in ("elbow", "wrist", *LEG)]
    assert not np.delete(moved, [*arms, *legs, *others], axis=-1).any()
    for limb, share in ((arms, 0.2), (legs, 0.1)):
        np.testing.assert_array_equal(moved[..., limb].any(-1), moved[..., limb].all(-1))
        assert moved[..., limb[0]].mean() == pytest.approx(1 - np.exp(-share), rel=0.15)
    elbow, wrist = error[..., arms[0], :], error[..., arms[1], :]
    level = np.abs(wrist[..., 1]) < 1e-6  # the other hand is as high: drawn towards it, at most half way of 0.6 m
    drawn = level & moved[..., arms[1]]
    np.testing.assert_allclose(elbow[drawn, 0], 0.6 * wrist[drawn, 0], atol=1e-5)
    assert wrist[drawn, 0].max() < 0 and 0.15 < -wrist[drawn, 0].min() / (0.6 / 1.7) <= 0.5
    assert wrist[~level].std(0)[1] == pytest.approx(0.05, rel=0.15)
    assert np.corrcoef(elbow[~level][:, 1], wrist[~level][:, 1])[0, 1] == pytest.approx(0.64, abs=0.1)


def test_slips_lower_the_score_but_not_always():
    noise = replace(NO_NOISE, slip_share=(0.2, 0.2), scores=True)
    exact, rays, scores = look(noise, batch=60)
    error, graded = np.linalg.norm(rays - exact, axis=-1), (scores < 0.7).any((1, 2))
    far = error[graded] > 0.03
    assert scores[graded][far].mean() < scores[graded][~far].mean() - 0.2
    assert (scores[graded][far] > 0.9).any()


def test_dropouts_hit_single_joints():
    _, _, scores = look(replace(NO_NOISE, dropout_share=0.03), batch=20)
    missing = scores == 0
    assert missing.mean() == pytest.approx(0.03, rel=0.1)
    assert (missing[:, 1:] & missing[:, :-1]).mean() == pytest.approx(0.03**2, rel=0.4)


def test_gaps_last_and_blackouts_take_everybody():
    _, _, scores = look(replace(NO_NOISE, gap_share=0.05), batch=40)
    missing = scores == 0
    assert missing.mean() == pytest.approx(1 - np.exp(-0.05), rel=0.15)
    alone = missing[:, 1:-1] & ~missing[:, 2:] & ~missing[:, :-2]
    assert not alone.any()
    _, _, scores = look(replace(NO_NOISE, blackout_share=0.05), batch=100)
    missing = scores == 0
    np.testing.assert_array_equal(missing.any(-1), missing.all(-1))
    assert missing.mean() == pytest.approx(1 - np.exp(-0.05), rel=0.25)


def test_truncation_cuts_at_the_border_or_lowers_the_score():
    border = np.array([[1.0, 0.1]], np.float32)  # joints lie within 0.2 of the middle row
    exact, rays, scores = look(replace(NO_NOISE, truncation=1.0), batch=200, frames=2, border=border)
    beyond = np.abs(exact[..., 1]) > 0.1 + 1e-6
    silent = (scores[beyond].reshape(200, -1) == 0).all(-1)
    guessing = np.isclose(scores[beyond].reshape(200, -1), 0.3).all(-1)
    assert (silent ^ guessing).all() and silent.mean() == pytest.approx(0.6, abs=0.1)
    _, _, scores = look(replace(NO_NOISE, truncation=0.25), batch=400, frames=2, border=border)
    assert (scores < 1).any((1, 2)).mean() == pytest.approx(0.25, abs=0.07)


def test_border_always_cuts_somebody_even_in_a_large_image():
    _, _, scores = look(replace(NO_NOISE, truncation=1.0), batch=100, frames=2)
    assert (scores < 1).any((1, 2)).mean() > 0.95


def test_feet_are_seen_in_a_share_of_samples():
    _, _, scores = look(replace(NO_NOISE, feet=0.6), batch=400, frames=2)
    with_feet = (scores[:, :, FEET] == 1).all((1, 2))
    np.testing.assert_array_equal(with_feet, (scores[:, :, FEET] > 0).any((1, 2)))
    assert with_feet.mean() == pytest.approx(0.6, abs=0.08) and (scores[:, :, :13] == 1).all()


def test_held_rate_interpolates_every_other_frame():
    _, rays, scores = look(replace(NO_NOISE, jitter=(0.01, 0.01), dropout_share=0.1, held_rate=1.0), frames=40)
    before, between, after = rays[:, 0:38:2], rays[:, 1:39:2], rays[:, 2:40:2]
    np.testing.assert_allclose(between, (before + after) / 2, atol=1e-6)
    assert np.isfinite(between).any() and np.isnan(between).any()
    np.testing.assert_array_equal(scores[:, 1:39:2], np.minimum(scores[:, 0:38:2], scores[:, 2:40:2]))


def test_confidences_fall_with_the_error():
    noise = replace(NO_NOISE, jitter=(0.001, 0.012), burst_share=0.1, scores=True)
    exact, rays, scores = look(noise, batch=60)
    graded = (scores < 1).any((1, 2))
    assert graded.mean() == pytest.approx(0.75, abs=0.15)  # many files carry no confidence
    error = np.linalg.norm(rays - exact, axis=-1)[graded].ravel()
    assert np.corrcoef(error, scores[graded].ravel())[0, 1] < -0.4
    assert 0.05 <= scores.min() and scores.max() == 1


def test_definitions_are_offsets_fixed_to_the_trunk():
    joints, feet = bodies(2)
    joints = np.einsum("ij,ntkj->ntki", camera_rotation(0.3, 0.2, 0.1), joints).astype(np.float32)
    exact = detector_points(joints, feet, NO_NOISE, generator())
    np.testing.assert_array_equal(exact[:, :, :13], joints[:, :, [H36M.index(n) for n in SOURCES]])
    points = detector_points(joints, feet, replace(NO_NOISE, definition=0.022), generator())
    local = np.einsum("ntji,ntkj->ntki", trunk_frames(joints), points - exact)
    fixed = INPUT.indices(["left_shoulder", "right_shoulder", "left_hip", "right_hip"])
    local = local[:, :, fixed]
    np.testing.assert_allclose(local, np.broadcast_to(local[:, :1], local.shape), atol=1e-5)
    assert 0.005 < np.abs(local).mean() < 0.06


def test_face_looks_ahead_of_the_line_from_thorax_to_head():
    joints = walker(1)[0]
    forward, axis = face_forward(joints), joints[H36M.index("head")] - joints[H36M.index("thorax")]
    np.testing.assert_allclose(forward, [0, 0.96, -0.28], atol=1e-5)
    assert forward @ axis == pytest.approx(0, abs=1e-6)
    joints[H36M.index("neck_nose")] = joints[H36M.index("thorax")] + axis / 2
    assert np.linalg.norm(face_forward(joints)) < 0.2  # in one line: no direction, but no NaN either


# ---- the whole


def synthesiser(**options) -> Synthesiser:
    pieces = [walking_piece("a", 60), walking_piece("b", 90, feet=False, phase=1.0), walking_piece("c", 20, phase=2.0)]
    return Synthesiser(**{"pieces": pieces, "frames": 40, **options})


def test_batches_are_a_pure_function_of_the_generator():
    source = synthesiser()
    kept = [piece.joints.copy() for piece in source.pieces]
    first, again, other = source(6, generator(5)), source(6, generator(5)), source(6, generator(6))
    for name, values in vars(first).items():
        np.testing.assert_array_equal(values, getattr(again, name))
        assert not np.array_equal(values, getattr(other, name), equal_nan=True)
    for piece, joints in zip(source.pieces, kept, strict=True):
        np.testing.assert_array_equal(piece.joints, joints)


def test_scores_are_zero_exactly_where_nothing_is_seen():
    views = synthesiser()(48, generator())
    missing = np.isnan(views.rays).any(-1)
    np.testing.assert_array_equal(missing, np.isnan(views.rays).all(-1))
    np.testing.assert_array_equal(missing, views.scores == 0)
    assert views.rays.shape == (48, 40, 17, 2) and views.scores.shape == (48, 40, 17)
    assert 0 < missing.mean() < 0.6 and views.scores.max() <= 1
    assert np.isfinite(views.joints).all() and (views.root[..., 2] > 0.5).all()


def test_training_views_stay_near_the_truth():
    views = synthesiser()(48, generator())
    error = np.linalg.norm(views.rays[:, :, :13] - projections(views), axis=-1)
    error *= views.root[..., 2:] / views.stature[:, None, None]
    assert 0.005 < np.nanmedian(error) < 0.06


@pytest.mark.parametrize(("fps", "speed"), [(50.0, 1.0), (100.0, 1.0), (25.0, 2.0)])
def test_windows_run_at_their_frame_rate_and_speed(fps, speed):
    walk = walking_piece(frames=200, fps=fps)
    source = synthesiser(pieces=[walk], speed=(speed, speed), noise=NO_NOISE, stature=None)
    steps = np.linalg.norm(np.diff(source(5, generator()).root, axis=1), axis=-1)
    np.testing.assert_allclose(steps, speed / 50, atol=1e-4)  # the walker makes one metre a second


@pytest.mark.parametrize("typical", [1.75, None])
def test_everybody_gets_the_same_stature_before_bodies_vary(monkeypatch, typical):
    monkeypatch.setattr(synthesis, "reshape_bodies", lambda joints, feet, rng: (joints, feet))
    walk = walking_piece(frames=60)
    pieces = [replace(walk, joints=walk.joints * k, feet=walk.feet * k) for k in (0.8, 1.0, 1.2)]
    own = [stature(p.joints) for p in pieces]
    still = PoseRanges(mixed=0.0, turned=0.0, tumbling=0.0)
    views = synthesiser(pieces=pieces, stature=typical, mix_share=0.0, poses=still)(30, generator())
    seen = [stature(joints) for joints in views.joints]
    nearest = np.abs(np.subtract.outer(seen, own)).argmin(axis=1)
    assert set(nearest) == {0, 1, 2} if typical is None else len(set(nearest)) == 1
    expected = np.array(own)[nearest] if typical is None else typical
    np.testing.assert_allclose(seen, expected, rtol=2e-3)  # between two frames bones are a little shorter
    np.testing.assert_allclose(views.stature, seen, rtol=2e-3)


def test_short_motion_is_held_at_its_end():
    source = synthesiser(pieces=[walking_piece(frames=10)], speed=(1.0, 1.0), noise=NO_NOISE, stature=None)
    steps = np.linalg.norm(np.diff(source(3, generator()).root, axis=1), axis=-1)
    np.testing.assert_allclose(steps[:, :9], 0.02, atol=1e-4)
    np.testing.assert_allclose(steps[:, 9:], 0, atol=1e-6)
    single = synthesiser(pieces=[walking_piece(frames=1)])(2, generator())
    assert np.isfinite(single.joints).all()


def test_long_pieces_do_not_take_all():
    source = synthesiser(pieces=[walking_piece("a", 1000), walking_piece("b", 10)])
    np.testing.assert_allclose(source._share, np.array([100**0.8, 1]) / (100**0.8 + 1), rtol=1e-6)


@pytest.mark.parametrize(("options", "words"), [({"pieces": []}, "one mocap piece"), ({"frames": 0}, "at least 1")])
def test_nothing_to_synthesise_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        synthesiser(**options)
