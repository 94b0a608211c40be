"""Motion seen from the person, against rotations of another library and people who face where they are put."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lifting.headings import Heading, heading_of, turn_of, turned_by
from lifting.skeletons import get_skeleton

H36M = get_skeleton("h36m17")
ANGLES = st.floats(-3.1, 3.1)


def random_poses(*shape: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Poses (..., 17, 3) whose left is somewhere within a radian of +x, and roots (..., 3)."""
    rng = np.random.default_rng(seed)
    joints = rng.normal(0, 0.2, (*shape, 17, 3))
    for joint in ("hip", "shoulder"):
        joints[..., H36M.index(f"left_{joint}"), 0] += 1.0
        joints[..., H36M.index(f"right_{joint}"), 0] -= 1.0
    joints[..., 0, :] = 0
    return joints, rng.normal(0, 3, (*shape, 3))


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """World points turned about the vertical, to the left seen from above."""
    return Rotation.from_euler("z", angle).apply(points.reshape(-1, 3)).reshape(points.shape)


def upright(facing: float) -> np.ndarray:
    """Somebody who stands and faces that direction, an angle in radians from +x to +y; (17, 3)."""
    joints = np.zeros((17, 3))
    for side, sign in (("left", 1), ("right", -1)):  # left of +x is +y
        for joint, out, height in (("hip", 0.1, 0.0), ("shoulder", 0.2, 0.5), ("ankle", 0.1, -0.9)):
            joints[H36M.index(f"{side}_{joint}")] = [0, sign * out, height]
    joints[H36M.index("neck_nose")] = [0.1, 0, 0.6]
    return turned(joints, facing)


@pytest.mark.parametrize("facing", [0.0, 0.7, np.pi / 2, 2.5, -1.2])
def test_left_is_plus_x_up_is_plus_z_and_so_the_face_looks_along_minus_y(facing):
    joints = upright(facing)
    seen = heading_of(joints, np.zeros(3)).to_person(joints)
    np.testing.assert_allclose(seen[H36M.index("left_hip")], [0.1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(seen[H36M.index("right_shoulder")], [-0.2, 0, 0.5], atol=1e-9)
    np.testing.assert_allclose(seen[H36M.index("neck_nose")], [0, -0.1, 0.6], atol=1e-9)


def test_the_origin_is_on_the_floor_below_the_root():
    joints, root = random_poses(4)
    heading = heading_of(joints, root)
    np.testing.assert_array_equal(heading.origin, root * [1, 1, 0])
    seen = heading.to_person(joints + root[:, None])
    np.testing.assert_allclose(seen[:, 0, :2], 0, atol=1e-12)
    np.testing.assert_allclose(seen[..., 2], joints[..., 2] + root[:, None, 2])


@given(ANGLES, st.floats(-50, 50), st.floats(-50, 50))
def test_where_somebody_stands_and_faces_makes_no_difference(angle, x, y):
    joints, root = random_poses(2)
    moved, place = turned(joints, angle), turned(root, angle) + [x, y, 0]
    seen = heading_of(joints, root).to_person(joints + root[:, None])
    again = heading_of(moved, place).to_person(moved + place[:, None])
    np.testing.assert_allclose(again, seen, atol=1e-9)


def test_into_the_person_and_back():
    joints, root = random_poses(3, 5)
    heading, points = heading_of(joints, root), np.random.default_rng(1).normal(size=(3, 5, 8, 3))
    np.testing.assert_allclose(heading.to_world(heading.to_person(points)), points, atol=1e-12)
    np.testing.assert_allclose(heading.to_person(heading.to_world(points)), points, atol=1e-12)
    distances = np.linalg.norm(np.diff(heading.to_person(points), axis=-2), axis=-1)
    np.testing.assert_allclose(distances, np.linalg.norm(np.diff(points, axis=-2), axis=-1))


def test_many_headings_are_each_alone():
    joints, root = random_poses(2, 3)
    many = heading_of(joints, root)
    for place in np.ndindex(2, 3):
        one = heading_of(joints[place], root[place])
        np.testing.assert_array_equal(many.rotation[place], one.rotation)
        np.testing.assert_array_equal(many.origin[place], one.origin)


def test_left_is_the_sum_of_both_lines_across():
    """Slow twin: with the hips turned by an angle and the shoulders by another, longer lines count for more."""
    joints = np.zeros((17, 3))
    for joint, length, angle in (("hip", 0.2, 0.5), ("shoulder", 0.4, -0.3)):
        joints[H36M.index(f"left_{joint}")] = 0.5 * length * np.array([np.cos(angle), np.sin(angle), 0.4])
        joints[H36M.index(f"right_{joint}")] = -joints[H36M.index(f"left_{joint}")]
    left = 0.2 * np.exp(0.5j) + 0.4 * np.exp(-0.3j)
    np.testing.assert_allclose(turn_of(heading_of(joints, np.zeros(3))), np.angle(left))


@given(ANGLES)
def test_turns_are_rotations_about_the_vertical(angle):
    rotation = turned_by(np.array(angle))
    np.testing.assert_allclose(rotation, Rotation.from_euler("z", angle).as_matrix().T, atol=1e-12)
    np.testing.assert_allclose(turn_of(Heading(np.zeros(3), rotation)), angle, atol=1e-12)


@given(ANGLES)
def test_whoever_turns_to_the_left_has_that_turn(angle):
    joints, root = random_poses()
    before, after = (turn_of(heading_of(pose, root)) for pose in (joints, turned(joints, angle)))
    np.testing.assert_allclose(np.exp(1j * (after - before)), np.exp(1j * angle), atol=1e-9)


def test_whoever_lies_on_their_side_has_a_heading_all_the_same():
    joints = upright(0.0) @ Rotation.from_euler("x", 90, degrees=True).as_matrix().T  # left is up or down
    heading = heading_of(joints, np.array([1.0, 2, 3]))
    np.testing.assert_array_equal(heading.rotation, np.eye(3))
    np.testing.assert_array_equal(heading_of(np.zeros((17, 3)), np.zeros(3)).rotation, np.eye(3))
