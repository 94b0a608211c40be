from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lifting import export
from lifting.cameras import Camera
from lifting.datasets.synthesis import camera_rotation
from lifting.gravity import estimate_gravity
from lifting.keypoints import Keypoints2D
from lifting.motion import CONTACT_POINTS, BodyMotion, Motion, Person, Take
from lifting.rotations import rotvec_to_matrix
from lifting.skeletons import get_skeleton
from lifting.world import _shared_scale, place_in_world, presented

SKELETON = get_skeleton("h36m17")
FPS, SIZE = 30.0, (1280, 720)
STRIDE = 1.1  # seconds of both steps; each foot stands for 0.6 of them and swings with minimum jerk
ANKLES = list(SKELETON.indices(["left_ankle", "right_ankle"]))


def walker(frames=120, speed=0.8, scale=1.0):
    """(T, 17, 3) metres, Z up: somebody who walks along a bent path, each foot standing while the other swings."""
    pose = {"hip": (0, 0, .92), "left_hip": (.1, 0, .92), "right_hip": (-.1, 0, .92), "spine": (0, 0, 1.15),
            "thorax": (0, .04, 1.4), "neck_nose": (0, .08, 1.5), "head": (0, .05, 1.62),
            "left_shoulder": (.17, .03, 1.38), "right_shoulder": (-.17, .03, 1.38),
            "left_elbow": (.2, 0, 1.1), "right_elbow": (-.2, 0, 1.1),
            "left_wrist": (.2, .1, .88), "right_wrist": (-.2, .1, .88)}  # fmt: skip
    time = np.arange(frames) / FPS
    heading = 0.5 * time
    forward = np.stack([-np.sin(heading), np.cos(heading), 0 * time], -1)
    aside = np.stack([np.cos(heading), np.sin(heading), 0 * time], -1)
    path = np.cumsum(forward * speed / FPS, axis=0)
    joints = np.zeros((frames, 17, 3))
    for name, (x, y, z) in pose.items():
        joints[:, SKELETON.index(name)] = path + x * aside + y * forward + [0, 0, z]
    for side, offset in (("left", 0.0), ("right", 0.5)):
        hip = joints[:, SKELETON.index(f"{side}_hip")]
        steps = np.floor(time / STRIDE + offset)
        part = np.clip((time / STRIDE + offset - steps - 0.6) / 0.4, 0, 1)
        part = part**3 * (10 - 15 * part + 6 * part**2)
        x = 0.1 if side == "left" else -0.1

        def place(number, x=x, offset=offset):
            at = np.clip((number - offset + 0.3) * STRIDE, 0, None)
            ahead = np.stack([np.interp(at, time, column) for column in path.T], -1)
            turn = 0.5 * at
            return ahead + x * np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1)

        ankle = place(steps) * (1 - part[:, None]) + place(steps + 1) * part[:, None]
        ankle[:, 2] = 0.085 + 0.12 * np.sin(np.pi * part)
        joints[:, SKELETON.index(f"{side}_ankle")] = ankle
        leg = ankle - hip
        length = np.linalg.norm(leg, axis=-1, keepdims=True)
        ahead = forward - leg * (forward * leg).sum(-1, keepdims=True) / length**2
        ahead = ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)
        joints[:, SKELETON.index(f"{side}_knee")] = (hip + ankle) / 2 + np.sqrt(0.46**2 - length**2 / 4) * ahead
    return joints * scale


def camera_pose(pitch=20.0, roll=8.0, height=1.6, distance=5.0):
    rotation = camera_rotation(0.3, np.radians(pitch), np.radians(roll))
    place = np.array([0.0, 0.6, height]) - distance * np.array([np.sin(0.3), np.cos(0.3), 0])
    return rotation, -rotation @ place


def take_of(*people, camera=None, rotation=None, translation=None, drift=0.0):
    """A take of people (T, 17, 3) in the world, seen by a camera; NaN frames are where somebody is absent."""
    known = camera_pose()
    rotation, translation = known[0] if rotation is None else rotation, known[1] if translation is None else translation
    made = []
    for number, joints in enumerate(people, 1):
        seen = np.einsum("...ij,...kj->...ki", rotation, joints) + np.asarray(translation)[..., None, :]
        xy = Camera.from_fov(60.0, SIZE).project(seen)
        seen = seen * (1 + drift * np.sin(np.arange(len(seen)) / 11.0))[:, None, None]
        motion = Motion(seen - seen[:, :1], seen[:, 0], np.full(seen.shape[:2], 0.03), SKELETON, FPS)
        points = Keypoints2D(xy, np.isfinite(xy).all(-1), "h36m17", SIZE, FPS)
        made.append(Person(number, points, motion))
    camera = camera or Camera.from_fov(60.0, SIZE)
    return Take("walk", SIZE, FPS, np.arange(len(people[0])) / FPS, camera, made)


def angle(a, b):
    return np.degrees(np.arccos(np.clip(np.dot(a, b), -1, 1)))


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (20, -15), (45, 15)])
def test_gravity_of_a_tilted_camera_is_found_and_its_error_stated(pitch, roll):
    rotation, translation = camera_pose(pitch, roll)
    take = place_in_world(take_of(walker(240), rotation=rotation, translation=translation))
    about = take.metadata["world"]
    error = angle(about["up"], rotation[:, 2])
    assert error < 6 and error < 2 * about["sigma_degrees"]
    assert about["source"] in ("path", "posture")


def test_the_world_is_upright_on_the_floor_under_the_first_root():
    take = place_in_world(take_of(walker()))
    world = take.people[0].world
    assert world.frame == "world" and np.allclose(world.trajectory[0, :2], 0, atol=0.05)
    assert abs(np.quantile(world.absolute[:, ANKLES, 2], 0.2) - 0.085) < 0.04
    about = take.metadata["world"]
    back = world.absolute @ np.array(about["rotation"]).T + np.array(about["translation"])
    assert np.linalg.norm(back - take.people[0].motion.absolute, axis=-1).mean() < 0.05


def test_the_raw_motion_is_kept_and_nothing_is_random():
    take = take_of(walker())
    placed, again = place_in_world(take), place_in_world(take)
    assert placed == again and placed.people[0].motion == take.people[0].motion


def test_bones_are_constant_and_standing_feet_hardly_move_though_depth_drifts():
    joints = walker(240)
    camera = Camera.from_fov(60.0, SIZE)
    rotation, translation = camera_pose()
    camera = dataclasses.replace(camera, rotation=rotation, translation=translation)
    take = take_of(joints, camera=camera, drift=0.015)
    placed = place_in_world(take)
    world = placed.people[0].world
    for parent, child in SKELETON.bones:
        length = np.linalg.norm(world.joints[:, child] - world.joints[:, parent], axis=-1)
        assert np.ptp(length) < 0.005
    stands = np.linalg.norm(np.diff(joints[:, ANKLES], axis=0), axis=-1) < 1e-4
    raw = np.einsum("ji,tkj->tki", rotation, take.people[0].motion.absolute - translation)
    slip, before = (np.linalg.norm(np.diff(motion[:, ANKLES], axis=0), axis=-1)[stands]
                    for motion in (world.absolute, raw))
    assert np.quantile(slip, 0.95) < 0.002 < np.quantile(before, 0.5)
    assert slip.mean() < before.mean() / 2


def test_contacts_are_those_of_the_walk():
    joints = walker(240)
    placed = place_in_world(take_of(joints))
    contacts = placed.people[0].contacts
    assert contacts.shape == (240, len(CONTACT_POINTS)) and (contacts >= 0).all() and (contacts <= 1).all()
    stands = np.linalg.norm(np.diff(joints[:, ANKLES], axis=0), axis=-1) < 1e-4
    found = contacts[1:, [CONTACT_POINTS.index("left_heel"), CONTACT_POINTS.index("right_heel")]] > 0.5
    assert (found == stands).mean() > 0.85


def test_camera_height_fixes_the_scale_of_everybody_and_pictures_stay():
    small = [0.8 * walker(240), 0.8 * (walker(240) + [1.0, 0.5, 0.0])]
    rotation, translation = camera_pose()
    take = take_of(*small, rotation=rotation, translation=0.8 * translation)
    placed = place_in_world(take, camera_height=1.6)
    for person, raw in zip(placed.people, take.people, strict=True):
        ratio = np.linalg.norm(person.motion.joints, axis=-1).mean() / np.linalg.norm(raw.motion.joints, axis=-1).mean()
        assert abs(ratio - 1 / 0.8) < 0.1
        before, after = (take.camera.project(motion.absolute) for motion in (raw.motion, person.motion))
        assert np.allclose(before, after, atol=0.1)


def test_people_of_a_wrong_size_come_onto_the_shared_floor():
    rotation, translation = camera_pose()
    take = take_of(walker(), walker() + [1.0, 0.5, 0.0])
    other = take.people[1].motion
    wrong = other.replace(joints=0.9 * other.joints, trajectory=0.9 * other.trajectory)
    take = take.replace(people=(take.people[0], dataclasses.replace(take.people[1], motion=wrong)))
    scales = place_in_world(take).metadata["world"]["scales"]
    assert scales["1"] == 1.0 and 1.04 < scales["2"] < 1.02 / 0.9  # the lift's own idea of the size has its share


def test_a_calibrated_pose_is_taken_as_it_is_and_its_floor_tells_the_scale():
    rotation, translation = camera_pose()
    camera = dataclasses.replace(Camera.from_fov(60.0, SIZE), rotation=rotation, translation=translation)
    joints = walker()
    take = take_of(joints, camera=camera)
    motion = take.people[0].motion
    wrong = motion.replace(joints=0.9 * motion.joints, trajectory=0.9 * motion.trajectory)
    take = take.replace(people=(dataclasses.replace(take.people[0], motion=wrong),))
    placed = place_in_world(take)
    about = placed.metadata["world"]
    assert about["source"] == "calibration" and abs(about["scale"] - 1 / 0.9) < 0.03
    assert np.allclose(about["rotation"], rotation)
    assert np.linalg.norm(placed.people[0].world.absolute - joints, axis=-1).mean() < 0.12


def calibrated(joints, factor, **metadata):
    """A take before a calibrated camera, its lift wrong by a factor in size."""
    rotation, translation = camera_pose()
    camera = dataclasses.replace(Camera.from_fov(60.0, SIZE), rotation=rotation, translation=translation)
    take = take_of(joints, camera=camera)
    motion = take.people[0].motion
    wrong = motion.replace(joints=factor * motion.joints, trajectory=factor * motion.trajectory)
    return take.replace(people=(dataclasses.replace(take.people[0], motion=wrong),), metadata=metadata)


def test_a_stated_height_wins_over_the_floor_and_the_contradiction_is_said():
    placed = place_in_world(calibrated(walker(), 0.8, height_m=1.4))
    assert placed.metadata["world"]["scale"] == 1.0
    assert any("height given for person 1 was kept" in sentence for sentence in placed.assumed)
    placed = place_in_world(calibrated(walker(), 1.0, height_m=1.7))
    assert not any("height given" in sentence for sentence in placed.assumed)


def test_who_stands_above_the_floor_keeps_size_and_height():
    joints = walker() * [0.0, 0.0, 1.0] + [0.0, 0.6, 0.8]
    placed = place_in_world(calibrated(joints, 1.0))
    assert placed.metadata["world"]["scale"] == 1.0
    assert any("would have to be" in sentence for sentence in placed.assumed)
    assert np.abs(placed.people[0].world.absolute - joints).mean() < 0.06


def test_a_moving_camera_needs_a_pose_for_each_frame():
    joints = walker(90)
    turns = rotvec_to_matrix(np.stack([0 * np.arange(90), 0.2 * np.sin(np.arange(90) / 20), 0 * np.arange(90)], -1))
    still, translation = camera_pose()
    rotation = turns @ still
    translation = np.einsum("tij,j->ti", turns, translation)
    camera = dataclasses.replace(Camera.from_fov(60.0, SIZE), rotation=rotation, translation=translation)
    placed = place_in_world(take_of(joints, camera=camera, rotation=rotation, translation=translation))
    assert np.linalg.norm(placed.people[0].world.absolute - joints, axis=-1).mean() < 0.05
    shown = presented(placed)
    assert shown.camera.rotation.shape == (90, 3, 3)
    short = dataclasses.replace(camera, rotation=rotation[:50], translation=translation[:50])
    with pytest.raises(ValueError, match="poses for 50 frames, the take has 90"):
        place_in_world(take_of(joints, camera=short, rotation=rotation, translation=translation))


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_short_clips_are_placed_with_a_large_stated_error(frames):
    placed = place_in_world(take_of(walker()[:frames]))
    assert np.isfinite(placed.people[0].world.absolute).all()
    assert 5 < placed.metadata["world"]["sigma_degrees"] < 45


def test_who_lies_tells_no_gravity_and_the_level_camera_is_said():
    lying = walker() @ rotvec_to_matrix(np.array([np.pi / 2, 0, 0])).T
    lying = np.repeat(lying[:1], 60, axis=0) + [0.0, 3.0, 0.3]
    placed = place_in_world(take_of(lying, rotation=camera_pose(0, 0)[0]))
    about = placed.metadata["world"]
    assert about["source"] == "camera" and about["sigma_degrees"] > 15
    assert any("level" in sentence for sentence in placed.assumed)


def test_absent_frames_stay_empty():
    joints = walker()
    joints[:10] = joints[100:] = np.nan
    placed = place_in_world(take_of(joints)).people[0]
    present = np.isfinite(placed.world.joints).all((1, 2))
    assert not present[:10].any() and not present[100:].any() and present[10:100].all()
    assert (np.isfinite(placed.contacts).all(1) == present).all()


def test_presented_moves_bodies_and_camera_alike():
    take = place_in_world(take_of(walker()))
    person = take.people[0]
    body = BodyMotion(np.zeros((120, 2, 3)), person.motion.trajectory, np.zeros(3), "lite", FPS)
    shown = presented(take.replace(people=(dataclasses.replace(person, body=body),)))
    assert shown.people[0].motion == person.world and shown.people[0].body.frame == "world"
    back = shown.camera.to_camera(shown.people[0].body.trajectory[:, None])[:, 0]
    assert np.allclose(back, person.motion.trajectory, atol=1e-5)
    assert presented(shown) == shown


def test_a_take_without_a_world_is_presented_as_it_is():
    take = take_of(walker())
    assert presented(take) is take


@pytest.mark.parametrize("suffix", ["npz", "json", "csv", "h5"])
def test_files_hold_the_world_and_still_read_takes_without(suffix, tmp_path):
    take = take_of(walker(12))
    for name, written in (("raw", take), ("placed", place_in_world(take))):
        path = tmp_path / f"{name}.{suffix}"
        export.save(written, path)
        assert export.load(path) == written


@pytest.mark.parametrize(("options", "message"), [
    (dict(smoothing=1.5), "from 0"), (dict(camera_height=0.0), "camera height"), (dict(camera_height=np.nan), "height"),
])
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        place_in_world(take_of(walker(5)), **options)


def test_a_person_refuses_a_world_motion_in_camera_axes_and_wrong_contacts():
    person = take_of(walker(5)).people[0]
    with pytest.raises(ValueError, match="frame 'camera', expected 'world'"):
        dataclasses.replace(person, world=person.motion)
    with pytest.raises(ValueError, match="probabilities"):
        dataclasses.replace(person, contacts=np.full((5, 4), 2.0))


def test_gravity_needs_somebody():
    with pytest.raises(ValueError, match="at least one person"):
        estimate_gravity([])


@pytest.mark.parametrize(("offset", "doubt", "scaled"), [(-1.9, 0.06, True), (-1.7, 0.06, False), (-1.7, 0.3, True)])
def test_whose_floor_is_beyond_doubt_above_the_shared_one_keeps_their_size(offset, doubt, scaled):
    factor = _shared_scale(offset, -2.0, doubt, fixed=False)
    assert (1 < factor < 2.0 / -offset) if scaled else factor == 1.0
