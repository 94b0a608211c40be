"""Rotations against scipy, and at the points where the formulas are singular."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lifting import rotations

ANGLES = [0.0, 1e-12, 1e-8, 1e-5, 0.9e-4, 1.1e-4, 1e-3, 1.0, np.pi / 2, np.pi - 1e-3, np.pi - 1e-7, np.pi]


def random_matrices(count: int = 50) -> np.ndarray:
    return Rotation.random(count, random_state=3).as_matrix()


def special_rotvecs() -> np.ndarray:
    axes = np.concatenate([np.eye(3), -np.eye(3), [[1, 1, 0], [1, -2, 3]]])
    axes = axes / np.linalg.norm(axes, axis=-1, keepdims=True)
    return (axes[:, None] * np.array(ANGLES)[:, None]).reshape(-1, 3)


def is_rotation(matrix: np.ndarray) -> bool:
    orthonormal = np.allclose(matrix @ np.swapaxes(matrix, -1, -2), np.eye(3), atol=1e-12)
    return orthonormal and np.allclose(np.linalg.det(matrix), 1, atol=1e-12)


def test_rotvec_to_matrix_equals_scipy_at_all_angles():
    rotvecs = np.concatenate([special_rotvecs(), np.random.default_rng(0).normal(0, 4, (50, 3))])
    expected = Rotation.from_rotvec(rotvecs).as_matrix()
    np.testing.assert_allclose(rotations.rotvec_to_matrix(rotvecs), expected, atol=1e-14)
    assert np.array_equal(rotations.rotvec_to_matrix(np.zeros(3)), np.eye(3))


def test_matrix_to_rotvec_gives_the_rotation_back_near_zero_and_pi():
    rotvecs = special_rotvecs()
    back = rotations.matrix_to_rotvec(rotations.rotvec_to_matrix(rotvecs))
    half_turns = np.isclose(np.linalg.norm(rotvecs, axis=-1), np.pi, rtol=0, atol=1e-9)
    np.testing.assert_allclose(back[~half_turns], rotvecs[~half_turns], atol=1e-8)
    np.testing.assert_allclose(np.abs(np.sum(back * rotvecs, -1))[half_turns], np.pi**2, rtol=1e-9)  # either sign


def test_matrix_to_rotvec_equals_scipy():
    matrices = random_matrices()
    expected = Rotation.from_matrix(matrices).as_rotvec()
    np.testing.assert_allclose(rotations.matrix_to_rotvec(matrices), expected, atol=1e-12)


def test_small_rotations_keep_their_relative_precision():
    rotvec = np.array([3e-9, -1e-9, 2e-9])
    np.testing.assert_allclose(rotations.matrix_to_rotvec(rotations.rotvec_to_matrix(rotvec)), rotvec, rtol=1e-6)


def test_quaternions_equal_scipy_in_scalar_first_order():
    matrices = np.concatenate([random_matrices(), Rotation.from_rotvec(special_rotvecs()).as_matrix()])
    quats = rotations.matrix_to_quat_wxyz(matrices)
    expected = np.roll(Rotation.from_matrix(matrices).as_quat(), 1, axis=-1)
    assert np.all(quats[:, 0] >= 0)
    np.testing.assert_allclose(np.abs(np.sum(quats * expected, axis=-1)), 1, atol=1e-12)
    np.testing.assert_allclose(rotations.quat_wxyz_to_matrix(-7 * quats), matrices, atol=1e-12)


def test_tiny_and_huge_quaternions_are_normalised_and_zero_is_refused():
    for factor in (1e-200, 1e200):
        np.testing.assert_allclose(rotations.quat_wxyz_to_matrix(factor * np.array([1, 0, 0, 1.0])),
                                   [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)
    with pytest.raises(ValueError, match="length zero"):
        rotations.quat_wxyz_to_matrix(np.zeros((2, 4)))


def test_rot6d_is_the_two_first_columns_and_comes_back():
    matrices = random_matrices()
    rot6d = rotations.matrix_to_rot6d(matrices)
    assert np.array_equal(rot6d[:, :3], matrices[:, :, 0]) and np.array_equal(rot6d[:, 3:], matrices[:, :, 1])
    np.testing.assert_allclose(rotations.rot6d_to_matrix(rot6d), matrices, atol=1e-14)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-10, 10), min_size=6, max_size=6))
def test_rot6d_gives_a_rotation_for_any_numbers(numbers):
    assert is_rotation(rotations.rot6d_to_matrix(numbers))


@pytest.mark.parametrize("numbers", [
    [0, 0, 0, 0, 0, 0], [1, 2, 3, 2, 4, 6], [0, 0, 0, 1, 0, 0], [1, 0, 0, -1, 1e-13, 0], [1, 0, 0, 1, 1e-9, 0],
    [0, 1e-300, 0, 1e300, 0, 0]])
def test_rot6d_gives_a_rotation_where_columns_vanish_or_are_parallel(numbers):
    assert is_rotation(rotations.rot6d_to_matrix(numbers))


@pytest.mark.parametrize("order", ["XYZ", "ZXY", "zyx", "yxz", "ZYZ", "XZ", "y"])
def test_euler_angles_follow_scipys_convention(order):
    angles = np.random.default_rng(1).uniform(-4, 4, (5, len(order)))
    expected = Rotation.from_euler(order, angles).as_matrix()
    np.testing.assert_allclose(rotations.euler_to_matrix(angles, order), expected, atol=1e-13)


@pytest.mark.parametrize("order", ["", "XYZX", "Xyz", "ABC"])
def test_an_unknown_euler_order_is_refused(order):
    with pytest.raises(ValueError, match="order is"):
        rotations.euler_to_matrix(np.zeros(len(order) or 3), order)


def test_rotation_between_turns_a_into_b_by_the_angle_between_them():
    a, b = np.random.default_rng(2).normal(size=(2, 40, 3))
    matrices = rotations.rotation_between(a, b)
    unit_a, unit_b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, b))
    assert is_rotation(matrices)
    np.testing.assert_allclose((matrices @ unit_a[..., None])[..., 0], unit_b, atol=1e-12)
    angle = np.linalg.norm(rotations.matrix_to_rotvec(matrices), axis=-1)
    np.testing.assert_allclose(angle, np.arccos(np.sum(unit_a * unit_b, -1)), atol=1e-7)


@pytest.mark.parametrize("b", [[0, 0, -2.0], [1e-3, 0, -1], [1e-6, 0, -1], [1e-9, 0, -1], [0, 1e-12, 1], [0, 0, 3]])
def test_rotation_between_opposite_and_equal_directions(b):
    matrix = rotations.rotation_between([0, 0, 1.0], b)
    assert is_rotation(matrix)
    np.testing.assert_allclose(matrix @ [0, 0, 1.0], b / np.linalg.norm(b), atol=2e-8)


def test_rotation_between_a_zero_vector_and_anything_is_the_identity():
    result = rotations.rotation_between(np.zeros(3), [[1.0, 0, 0], [0, 0, 0]])
    assert np.array_equal(result, np.broadcast_to(np.eye(3), (2, 3, 3)))


def test_look_at_puts_the_target_ahead_and_up_above():
    eye, target = np.array([3.0, -2, 1.5]), np.array([0.0, 0, 1])
    matrix = rotations.look_at(eye, target)
    assert is_rotation(matrix)
    np.testing.assert_allclose(matrix @ (target - eye), [0, 0, np.linalg.norm(target - eye)], atol=1e-12)
    head = matrix @ (target + [0, 0, 1] - eye)
    assert abs(head[0]) < 1e-12 and head[1] < 0  # above in the picture is -y


def test_look_at_straight_down_is_still_a_rotation_and_nowhere_is_refused():
    assert is_rotation(rotations.look_at([[0, 0, 5.0], [0, 0, -5]], [0, 0, 0]))
    with pytest.raises(ValueError, match="eye equals target"):
        rotations.look_at([1, 1, 1], [1, 1, 1])


@pytest.mark.parametrize(("function", "shape"), [
    (rotations.rotvec_to_matrix, (4,)), (rotations.matrix_to_rotvec, (3, 2)), (rotations.quat_wxyz_to_matrix, (3,)),
    (rotations.matrix_to_quat_wxyz, (9,)), (rotations.matrix_to_rot6d, (2, 3)), (rotations.rot6d_to_matrix, (3, 2))])
def test_wrong_last_axes_are_refused(function, shape):
    with pytest.raises(ValueError, match=r"has shape .*, expected \(\.\.\., "):
        function(np.zeros(shape))


def test_leading_axes_are_kept_and_nan_stays_where_it_is():
    rotvecs = np.random.default_rng(4).normal(size=(2, 3, 3))
    rotvecs[0, 1] = np.nan
    back = rotations.matrix_to_rotvec(rotations.rotvec_to_matrix(rotvecs))
    assert back.shape == (2, 3, 3)
    assert np.array_equal(np.isnan(back), np.isnan(rotvecs))


def test_unit_vectors_have_length_one_and_what_has_no_direction_stays():
    vectors = np.array([[3.0, 0, 4], [0, -2e-9, 0], [0, 0, 0]])
    np.testing.assert_allclose(rotations.unit_vectors(vectors), [[0.6, 0, 0.8], [0, -1, 0], [0, 0, 0]])
