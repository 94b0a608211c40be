"""Ground: cameras at known pitch and roll over a synthetic walk, planes, world axes."""

from __future__ import annotations

import numpy as np
import pytest
from walking_figure import walker

from lifting.ground import CAMERA_UP, Ground, balance_directions, estimate_ground
from lifting.rotations import look_at, rotvec_to_matrix
from lifting.skeletons import get_skeleton

FPS = 50.0
H36M = get_skeleton("h36m17")


def person(frames=400, straight=False):
    """A walk (T, 17, 3) with Z up, floor at 0, whose feet stand: on a line, or around a circle of 1.5 m."""
    phase = np.arange(frames)[:, None] / (FPS * 1.1) + np.array([0.0, 0.5])
    swing = np.clip((phase % 1 - 0.6) / 0.4, 0, 1)
    along = 1.3 * (np.floor(phase) + swing - np.sin(2 * np.pi * swing) / (2 * np.pi))
    middle = 1.3 * (np.arange(frames) / (FPS * 1.1) + 0.05) + 0.1
    joints = walker(frames, speed=0.0).astype(np.float64)
    joints[..., 1] += middle[:, None] - 0.03
    for foot, side in enumerate(("left", "right")):
        sign = (-1, 1)[foot]
        height = 0.085 + 0.12 * np.sin(np.pi * swing[:, foot])
        ankle = np.stack([np.full(frames, 0.1 * sign), along[:, foot], height], axis=-1)
        joints[:, H36M.index(f"{side}_ankle")] = ankle
        joints[:, H36M.index(f"{side}_knee")] = (ankle + joints[:, H36M.index(f"{side}_hip")]) / 2
    return joints if straight else bent(joints)


def bent(joints, radius=1.5):
    """Roll the line up: Y becomes the way around a circle."""
    angle, distance = joints[..., 1] / radius, radius + joints[..., 0]
    return np.stack([distance * np.cos(angle), distance * np.sin(angle), joints[..., 2]], axis=-1)


def film(joints, pitch, roll, seed, distance=5.0):
    """Joints in the axes of a camera, up in them, and the floor's offset."""
    heading, pitch = np.random.default_rng(seed).uniform(0, 2 * np.pi), np.radians(pitch)
    centre = joints[:, 0].mean(axis=0)
    away = np.array([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)])
    eye = centre + distance * away
    rotation = rotvec_to_matrix([0, 0, np.radians(roll)]) @ look_at(eye, centre)
    return (joints - eye) @ rotation.T, rotation[:, 2], -float(rotation[:, 2] @ rotation @ eye)


def degrees_between(a, b):
    return np.degrees(np.arccos(np.clip(np.dot(a, b), -1, 1)))


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (0, 15), (10, -15), (20, 5), (30, -10), (45, 15), (45, -15)])
@pytest.mark.parametrize(("straight", "limit"), [(False, 1.0), (True, 3.0)])
def test_gravity_and_floor_of_clean_walks(pitch, roll, straight, limit):
    joints, up, offset = film(person(straight=straight), pitch, roll, seed=pitch + roll + 15)
    ground = estimate_ground(joints, "h36m17", FPS)
    assert degrees_between(ground.up, up) < limit
    assert abs(np.median(ground.height(joints[:, 0])) - 0.92) < 0.06
    assert 0.1 < ground.sigma_degrees < 8 and ground.source in ("contacts", "balance")
    assert abs(ground.offset - offset) < 0.06 + 6 * np.radians(limit)


def test_noisy_lifts_stay_within_a_few_degrees_and_sigma_says_so():
    errors, sigmas = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        joints, up, _ = film(person(), rng.uniform(0, 45), rng.uniform(-15, 15), seed)
        time = np.arange(len(joints))[:, None, None] / FPS
        waves = rng.normal(0, 0.02, joints.shape[1:]) * np.sin(2 * np.pi * rng.uniform(0.3, 1.5) * time)
        depth = 1 + 0.015 * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * time + rng.uniform(0, 6))
        noisy = (joints + waves + rng.normal(0, 0.01, joints.shape)) * depth
        ground = estimate_ground(noisy, "h36m17", FPS, sigma=np.full((len(joints), 2), 0.04))
        errors.append(degrees_between(ground.up, up))
        sigmas.append(ground.sigma_degrees)
    assert np.median(errors) < 3 and np.max(errors) < 7
    assert np.sqrt(np.mean((np.array(errors) / sigmas) ** 2)) < 2.5  # two axes: sqrt(2) is right


def test_more_walking_across_the_floor_says_more():
    line, circle = (estimate_ground(film(person(straight=s), 20, 0, 0)[0], "h36m17", FPS) for s in (True, False))
    assert circle.sigma_degrees < line.sigma_degrees
    short = estimate_ground(film(person(60, straight=True), 20, 0, 0)[0], "h36m17", FPS)
    assert short.sigma_degrees > circle.sigma_degrees


def test_somebody_who_lies_leaves_it_to_the_camera():
    joints = np.tile(person(1)[:1], (100, 1, 1))
    joints = joints @ rotvec_to_matrix([np.pi / 2, 0, 0]).T @ rotvec_to_matrix([np.pi / 2, 0, 0]).T[[2, 0, 1]]
    joints = joints - joints[:, :1] + [0.0, 1.0, 4.0]
    bent_legs = joints.copy()
    for side in ("left", "right"):
        bent_legs[:, H36M.index(f"{side}_ankle")] = joints[:, H36M.index(f"{side}_hip")] + 0.1
    ground = estimate_ground(bent_legs, "h36m17", FPS)
    assert ground.source == "camera" and ground.sigma_degrees > 15
    assert degrees_between(ground.up, CAMERA_UP) < 20


def test_given_feet_and_contacts_make_the_plane():
    rng = np.random.default_rng(5)
    joints, up, offset = film(person(), 30, 10, 5)
    across = np.linalg.svd(up[None])[2][1:]
    feet = up * offset + rng.uniform(-2, 2, (len(joints), 4, 2)) @ across + 0.03 * up
    ground = estimate_ground(joints, "h36m17", FPS, feet=feet, contact=np.ones(feet.shape[:2]), clearance=0.03)
    assert degrees_between(ground.up, up) < 0.5 and abs(ground.offset - offset) < 0.02


def test_balance_of_somebody_who_stands_points_up():
    joints = walker(50, speed=0.0).astype(np.float64)
    ankles = H36M.indices(["left_ankle", "right_ankle"])
    joints[:, ankles] = joints[:, H36M.indices(["left_hip", "right_hip"])] * [1, 1, 0] + [0, 0, 0.085]
    feet = joints[:, ankles]
    direction, trust = balance_directions(joints, "h36m17", feet, np.ones((50, 2)))
    assert degrees_between(direction.mean(axis=0) / np.linalg.norm(direction.mean(axis=0)), [0, 0, 1]) < 3
    assert trust.mean() > 0.8
    assert not balance_directions(joints, "h36m17", feet, np.zeros((50, 2)))[1].any()


def test_absent_frames_change_nothing_much():
    joints, up, _ = film(person(), 20, 5, 1)
    joints[:30], joints[380:] = np.nan, np.nan
    assert degrees_between(estimate_ground(joints, "h36m17", FPS).up, up) < 1.5


@pytest.mark.parametrize("frames", [1, 2])
def test_one_frame_gives_a_floor_and_doubt(frames):
    joints, up, _ = film(person()[:frames], 20, 5, 1)
    ground = estimate_ground(joints, "h36m17", FPS)
    assert np.isfinite(ground.offset) and ground.sigma_degrees > 5
    assert degrees_between(ground.up, up) < 40


@pytest.mark.parametrize("up", [(0, -1, 0), (0.2, -0.9, 0.3), (0, 0, -1), (0, 0, 1), (1, 0, 0)])
def test_world_axes(up):
    ground = Ground(up, -1.3)
    origin = np.array([0.4, 0.2, 3.0])
    rotation, translation = ground.world(origin)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0
    np.testing.assert_allclose(rotation @ ground.up, [0, 0, 1], atol=1e-12)
    world = ground.to_world(np.array([origin, [1.0, 2.0, 3.0]]), origin)
    np.testing.assert_allclose(world[0], [0, 0, ground.height(origin)], atol=1e-12)
    np.testing.assert_allclose(world[1, 2], ground.height(np.array([1.0, 2.0, 3.0])), atol=1e-12)
    np.testing.assert_allclose(ground.to_world(origin, origin), rotation @ origin + translation, atol=1e-12)


def test_an_upright_camera_looks_along_plus_y():
    rotation, _ = Ground(CAMERA_UP, 0.0).world(np.zeros(3))
    np.testing.assert_allclose(rotation, [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-12)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"joints": np.zeros((3, 16, 3))}, "joints have shape"),
    ({"joints": np.full((3, 17, 3), np.nan)}, "without a finite frame"),
    ({"feet": np.zeros((2, 2, 3))}, "feet have shape"),
    ({"contact": np.zeros((3, 5))}, "contact has shape"),
    ({"fps": -1.0}, "fps"),
])  # fmt: skip
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        estimate_ground(**{"joints": np.ones((3, 17, 3)), "skeleton": "h36m17", "fps": FPS} | arguments)


def test_bad_ground():
    with pytest.raises(ValueError, match="up must be a direction"):
        Ground([0, 0, 0], 1.0)
    with pytest.raises(ValueError, match="offset of a floor must be finite"):
        Ground([0, 0, 1], np.nan)
