"""Synthetic views: exact where there is no noise; cameras, bodies and the whole stream of samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from walking_figure import H36M, STATURE, walker, walker_feet, walking_piece

from lifting.anatomy import bone_lengths, stature
from lifting.datasets import synthesis
from lifting.datasets.detector_noise import (
    INPUT,
    TRAINING_NOISE,
    NoiseModel,
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
CAMERA = CameraRanges()
FEET = slice(13, 17)
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
