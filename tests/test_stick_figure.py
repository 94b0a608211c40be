"""Figures of bones: their joints against the motion's, their rotations against an independent construction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifted_takes import motion_of, walking_joints
from scipy.spatial.transform import Rotation

from lifting.export.stick_figure import HINGES, JOINTS, PARENTS, PLACES, stick_figure
from lifting.motion import Motion
from lifting.skeletons import get_skeleton

H36M = get_skeleton("h36m17")


def moved(joints: np.ndarray) -> dict[str, np.ndarray]:
    """The figure's joints (T, 3) by name, by a forward kinematics of this test."""
    figure = stick_figure(motion_of(joints))
    places, turns = {}, {}
    for number, (name, parent) in enumerate(PARENTS.items()):
        own = Rotation.from_rotvec(figure.rotations[:, number])
        rest = figure.rest_joints[number].astype(float)
        if parent is None:
            places[name], turns[name] = figure.trajectory, own
        else:
            offset = rest - figure.rest_joints[JOINTS.index(parent)]
            places[name], turns[name] = places[parent] + turns[parent].apply(offset), turns[parent] * own
    return places


def random_figure(seed: int, frames: int = 12) -> np.ndarray:
    """Joints of a body with constant bones and a rigid pelvis whose every joint turns at random, smoothly."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, frames)[:, None, None]
    vectors = 0.9 * np.sin(rng.uniform(1, 4, (17, 3)) * time + rng.uniform(0, 6, (17, 3)))
    rest = walking_joints(frames=1)[0]
    turns, places = {}, {}
    for joint, parent in enumerate(H36M.parents):
        own = Rotation.from_rotvec(vectors[:, joint])
        turns[joint] = own if parent < 0 else turns[parent] * own
        if H36M.joints[joint] in ("left_hip", "right_hip"):  # the bone from the hip turns with the pelvis
            places[joint] = places[parent] + turns[parent].apply(rest[joint] - rest[parent])
        elif parent < 0:
            places[joint] = np.tile(rest[joint], (frames, 1))
        else:
            places[joint] = places[parent] + turns[joint].apply(rest[joint] - rest[parent])
    return np.stack([places[joint] for joint in range(17)], axis=1)


def test_joints_of_a_walk_come_back_within_a_millimetre():
    joints = walking_joints()
    places = moved(joints)
    for number, name in enumerate(H36M.joints):
        assert np.abs(places[name] - joints[:, number]).max() < 1e-3, name
    for name, place in PLACES.items():
        np.testing.assert_allclose(places[name], places[place], atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_joints_of_any_pose_come_back_within_a_millimetre(seed):
    joints = random_figure(seed)
    places = moved(joints)
    found = np.stack([places[name] for name in H36M.joints], axis=1)
    assert np.abs(found - joints).max() < 1e-3


def test_bones_stay_constant_and_errors_do_not_add_up():
    rng = np.random.default_rng(3)
    joints = walking_joints(frames=100) + rng.normal(0, 0.01, (100, 17, 3))
    places = moved(joints)
    for name, parent in PARENTS.items():
        if parent is not None:
            lengths = np.linalg.norm(places[name] - places[parent], axis=-1)
            assert np.ptp(lengths) < 1e-6, name
    missed = {name: np.linalg.norm(places[name] - joints[:, number], axis=-1).mean()
              for number, name in enumerate(H36M.joints)}
    assert max(missed.values()) < 0.03  # of a noise of 16 mm a joint


def test_at_rest_the_figure_stands_in_a_t_pose():
    rest = dict(zip(JOINTS, stick_figure(motion_of(walking_joints())).rest_joints, strict=True))
    assert rest["left_wrist"][0] > rest["left_elbow"][0] > rest["left_shoulder"][0] > 0 > rest["right_wrist"][0]
    assert rest["left_wrist"][1] == pytest.approx(rest["thorax"][1], abs=1e-6)
    assert rest["left_knee"][1] == pytest.approx(rest["left_hip"][1] - 0.43, abs=1e-5)
    assert rest["head"][1] > rest["thorax"][1] > rest["spine"][1] > 0
    np.testing.assert_allclose(rest["neck_nose"][2], rest["thorax"][2] + 0.11 * 0.28, atol=1e-5)


def test_a_bent_knee_is_a_hinge_and_a_straight_leg_has_no_twist():
    """A leg that points down, twisted by known angles: the shin shows the twist where the knee bends."""
    for bend, twist, expected in ((90.0, 30.0, 30.0), (60.0, -25.0, -25.0), (0.0, 40.0, 0.0)):
        joints = walking_joints(frames=2)
        hip, knee, ankle = (H36M.index(f"left_{name}") for name in ("hip", "knee", "ankle"))
        joints[:, knee] = joints[:, hip] + [0, 0, -0.43]
        shin = Rotation.from_euler("ZX", [twist, -bend], degrees=True).apply([0, 0, -0.41])  # the walker faces +Y
        joints[:, ankle] = joints[:, knee] + shin
        figure = stick_figure(motion_of(joints))
        found = Rotation.from_rotvec(figure.rotations[0, JOINTS.index("left_hip")]).as_euler("YXZ", degrees=True)[0]
        assert found == pytest.approx(expected, abs=2.5), (bend, twist)


def test_bending_turns_about_the_hinge_alone():
    joints = walking_joints(frames=1)
    hip, knee, ankle = (H36M.index(f"right_{name}") for name in ("hip", "knee", "ankle"))
    joints[:, knee] = joints[:, hip] + [0, 0, -0.43]
    joints[:, ankle] = joints[:, knee] + 0.41 * np.array([0, -np.sin(1.2), -np.cos(1.2)])
    figure = stick_figure(motion_of(joints))
    np.testing.assert_allclose(figure.rotations[0, JOINTS.index("right_knee")],
                               1.2 * np.array(HINGES["right_hip"][2]), atol=1e-5)


def test_rotations_do_not_jump_where_the_motion_is_smooth():
    figure = stick_figure(motion_of(walking_joints(frames=120)))
    turns = [Rotation.from_rotvec(figure.rotations[:, number]) for number in range(len(JOINTS))]
    steps = [np.degrees((turn[1:] * turn[:-1].inv()).magnitude().max()) for turn in turns]
    assert max(steps) < 8


def test_what_the_figure_keeps_of_the_motion():
    joints = walking_joints("camera")
    joints[:3] = np.nan
    motion = motion_of(joints, "camera")
    figure = stick_figure(motion, 4)
    assert (figure.frame, figure.fps, figure.person_id, len(figure)) == ("camera", 50.0, 4, 40)
    assert np.isnan(figure.rotations[:3]).all() and np.isfinite(figure.rotations[3:]).all()
    still = stick_figure(motion.replace(trajectory=None))
    np.testing.assert_allclose(still.trajectory[3:], 0, atol=1e-7)
    np.testing.assert_allclose(still.rotations, figure.rotations, atol=1e-5)


def test_every_bone_has_a_surface_of_its_own_that_faces_outwards():
    figure = stick_figure(motion_of(walking_joints(frames=1)))
    corners = figure.rest_vertices[figure.faces].astype(float)
    volumes = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).reshape(-1, 8).sum(axis=1)
    assert len(volumes) == 16 and (volumes > 0).all()
    bones = set(figure.bone_indices[:, 0].tolist())
    assert {JOINTS[bone] for bone in bones} >= {"hip", "spine_base", "left_collar", "left_elbow", "right_knee"}


def test_degenerate_motions_stay_finite():
    joints = np.zeros((3, 17, 3))
    assert np.isfinite(stick_figure(motion_of(joints)).rotations).all()


def test_what_has_no_known_bones_is_refused():
    other = Motion(np.zeros((2, 15, 3)), None, None, "humaneva15", 50)
    with pytest.raises(ValueError, match="'humaneva15', expected 'h36m17'"):
        stick_figure(other)
    with pytest.raises(ValueError, match="person 3 is in no frame"):
        stick_figure(motion_of(np.full((2, 17, 3), np.nan)), 3)
