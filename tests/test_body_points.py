"""Point sets: the points of a regressor without skinning, and their Jacobians, against slow twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from small_body import random_pose, small_body

from lifting.body.points import ancestor_matrix
from lifting.rotations import rotvec_to_matrix

LAYOUT = "coco17_feet"


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "pose blendshapes"])
def body(request):
    return small_body(shape=3, pose=request.param)


def signed_regressor(body, rows=5, seed=0) -> sparse.csr_matrix:
    """Weights of either sign that do not sum to 1, over vertices and joint centres."""
    rng, size = np.random.default_rng(seed), (rows, body.num_vertices + body.num_joints)
    return sparse.csr_matrix(rng.normal(size=size) * (rng.uniform(size=size) < 0.03))


def regressed(body, regressor, pose) -> np.ndarray:
    """The slow twin: skin the mesh, then take the sums."""
    parts = np.concatenate([body.vertices(*pose), body.kinematics(*pose).joints], axis=1)
    return np.stack([regressor @ frame for frame in parts])


@pytest.mark.parametrize("layout", ["h36m17", "coco17_feet", "coco17", "lift17", "joints"])
def test_points_are_the_regressor_times_the_mesh(body, layout):
    pose = random_pose(body, 4)
    expected = regressed(body, body.regressor(layout), pose)
    np.testing.assert_allclose(body.points(layout, *pose), expected, atol=1e-9)


def test_any_weights_are_exact(body):
    pose, regressor = random_pose(body, 4), signed_regressor(body)
    np.testing.assert_allclose(body.points(regressor, *pose), regressed(body, regressor, pose), atol=1e-9)
    points = body.point_set(regressor)
    np.testing.assert_allclose(points.total_weights, np.asarray(regressor.sum(axis=1)).ravel(), atol=1e-12)


def numeric_jacobian(function, size, step=1e-6) -> np.ndarray:
    columns = []
    for i in range(size):
        change = np.zeros(size)
        change[i] = step
        columns.append((function(change) - function(-change)) / (2 * step))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("own", [False, True], ids=["layout", "signed weights"])
def test_jacobian_equals_central_differences(body, own):
    rotations, trajectory, shape = random_pose(body, 3)
    matrices = rotvec_to_matrix(rotations)
    points = body.point_set(signed_regressor(body) if own else LAYOUT)

    def moved(change):
        rotation, beta = change[: 3 * body.num_joints].reshape(-1, 3), change[3 * body.num_joints :]
        kinematics = body.kinematics(matrices @ rotvec_to_matrix(rotation), trajectory, shape + beta)
        return points.evaluate(kinematics, shape + beta)

    values, d_rotation, d_shape = points.jacobian(body.kinematics(matrices, trajectory, shape), shape)
    numeric = numeric_jacobian(moved, 3 * body.num_joints + body.num_shape)
    assert d_rotation.shape == (3, points.num_points, 3, 3 * body.num_joints)
    np.testing.assert_array_equal(values, moved(np.zeros(3 * body.num_joints + body.num_shape)))
    np.testing.assert_allclose(d_rotation, numeric[..., : 3 * body.num_joints], atol=1e-8)
    np.testing.assert_allclose(d_shape, numeric[..., 3 * body.num_joints :], atol=1e-8)
    assert d_rotation.flags.c_contiguous and d_shape.flags.c_contiguous


def test_trajectory_moves_points_by_their_total_weight(body):
    rotations, trajectory, shape = random_pose(body, 2)
    points, step = body.point_set(signed_regressor(body)), np.array([0.3, -2, 7])
    change = (points.evaluate(body.kinematics(rotations, trajectory + step, shape), shape)
              - points.evaluate(body.kinematics(rotations, trajectory, shape), shape))
    np.testing.assert_allclose(change, np.broadcast_to(points.total_weights[:, None] * step, change.shape), atol=1e-9)


@pytest.mark.parametrize("own", [False, True], ids=["layout", "signed weights"])
def test_rows_are_the_derivatives_side_by_side(body, own):
    pose, points = random_pose(body, 11), body.point_set(signed_regressor(body) if own else LAYOUT)
    kinematics = body.kinematics(*pose)
    values, d_rotation, d_shape = points.jacobian(kinematics, pose[2])
    by_path = np.broadcast_to(points.total_weights[:, None, None] * np.eye(3), (*values.shape, 3))
    for by_shape, parts in ((True, [d_rotation, by_path, d_shape]), (False, [d_rotation, by_path])):
        found, rows = points.rows(kinematics, pose[2], by_shape)
        np.testing.assert_array_equal(found, values)
        np.testing.assert_allclose(rows, np.concatenate(parts, axis=-1), atol=1e-12)


@pytest.mark.parametrize("layout", [LAYOUT, "joints"])
def test_shifted_points_are_those_of_shifted_offsets(body, layout):
    """A joint of its own lies at its anchor, which moves it only once it is shifted."""
    pose, points = random_pose(body, 3), body.point_set(layout)
    shifts = 0.02 * np.random.default_rng(0).normal(size=(points.num_points, 3))
    offsets = points.offsets.copy()
    for point, (bone, shift) in enumerate(zip(points.anchor_bones, shifts, strict=True)):
        offsets[point, bone] += shift
    kinematics = body.kinematics(*pose)
    points.rows(kinematics, pose[2])  # fills what is remembered
    expected = replace(points, offsets=offsets).rows(kinematics, pose[2])
    for got, want in zip(points.shifted(shifts).rows(kinematics, pose[2]), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_a_joint_moves_only_what_is_below_it():
    body = small_body()
    pose = random_pose(body, 2)
    points = body.point_set("joints")
    _, d_rotation, _ = points.jacobian(body.kinematics(*pose), pose[2])
    moved = np.abs(d_rotation).reshape(2, 22, 3, 22, 3).max(axis=(0, 2, 4)) > 1e-12  # (point, joint)
    expected = ancestor_matrix(body.parents).T > 0
    np.fill_diagonal(expected, False)
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 41])
def test_frames_do_not_depend_on_each_other(body, frames):
    rotations, trajectory, shape = random_pose(body, 41)
    points = body.point_set(LAYOUT)
    whole = points.jacobian(body.kinematics(rotations, trajectory, shape), shape)
    part = points.jacobian(body.kinematics(rotations[:frames], trajectory[:frames], shape), shape)
    for some, every in zip(part, whole, strict=True):
        np.testing.assert_allclose(some, every[:frames], atol=1e-12)


def test_a_subset_is_a_part_of_the_whole(body):
    pose, chosen = random_pose(body, 3), [19, 2, 2, -1]
    points = body.point_set(LAYOUT)
    part, kinematics = points.subset(chosen), body.kinematics(*pose)
    assert part.names == tuple(points.names[i] for i in chosen)
    np.testing.assert_array_equal(part.anchor_bones, points.anchor_bones[chosen])
    for some, every in zip(part.jacobian(kinematics, pose[2]), points.jacobian(kinematics, pose[2]), strict=True):
        np.testing.assert_allclose(some, every[:, chosen], atol=1e-12)
    empty = points.subset([])
    assert empty.jacobian(kinematics, pose[2])[1].shape == (3, 0, 3, 66)


def test_anchors_are_the_bones_that_carry_the_points():
    body = small_body()
    points = body.point_set(LAYOUT)
    anchors = {name: body.joints[bone] for name, bone in zip(points.names, points.anchor_bones, strict=True)}
    assert anchors["nose"] == "head"
    assert anchors["left_knee"] == "left_knee"
    assert anchors["right_heel"] in ("right_ankle", "right_foot")
    np.testing.assert_allclose(points.weights.sum(axis=1), 1, atol=1e-9)


def test_an_absent_frame_stays_alone(body):
    rotations, trajectory, shape = random_pose(body, 3)
    rotations[1], trajectory[1] = np.nan, np.nan
    for array in body.point_set(LAYOUT).jacobian(body.kinematics(rotations, trajectory, shape), shape)[:2]:
        assert np.isfinite(array[[0, 2]]).all() and np.isnan(array[1]).any()


def test_a_body_without_shape_coefficients():
    body = small_body(shape=0)
    rotations, trajectory, shape = random_pose(body, 2)
    points, _, d_shape = body.point_set("h36m17").jacobian(body.kinematics(rotations, trajectory), shape)
    assert d_shape.shape == (2, 17, 3, 0)
    pose = (rotations, trajectory, shape)
    np.testing.assert_allclose(points, regressed(body, body.regressor("h36m17"), pose), atol=1e-9)
