"""Body models: kinematics and skinning against loops, shapes, layouts, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.transform import Rotation
from small_body import random_pose, small_body

from lifting.body.model import BodyModel, Preview
from lifting.motion import BodyMotion
from lifting.rotations import rotvec_to_matrix
from lifting.skeletons import Skeleton, get_skeleton


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "pose blendshapes"])
def body(request):
    return small_body(pose=request.param)


def slow_kinematics(body, rotations, trajectory, shape):
    """4 x 4 transforms multiplied along the chain of every joint."""
    rest = body.joint_template + body.joint_directions @ shape
    transforms = np.zeros((len(rotations), body.num_joints, 4, 4))
    for t in range(len(rotations)):
        for k, parent in enumerate(body.parents):
            local = np.eye(4)
            local[:3, :3] = Rotation.from_rotvec(rotations[t, k]).as_matrix()
            local[:3, 3] = trajectory[t] if parent < 0 else rest[k] - rest[parent]
            transforms[t, k] = local if parent < 0 else transforms[t, parent] @ local
    return transforms, rest


def slow_vertices(body, rotations, trajectory, shape, chosen):
    transforms, rest = slow_kinematics(body, rotations, trajectory, shape)
    weights = body.skin_weights.toarray()
    result = np.zeros((len(rotations), len(chosen), 3))
    for t in range(len(rotations)):
        feature = np.concatenate([(Rotation.from_rotvec(r).as_matrix() - np.eye(3)).ravel() for r in rotations[t, 1:]])
        for i, v in enumerate(chosen):
            place = body.template[v] + body.shape_directions[v] @ shape
            if body.pose_directions is not None:
                place = place + body.pose_directions[v] @ feature
            for k in range(body.num_joints):
                carried = transforms[t, k] @ np.append(place - rest[k], 1)
                result[t, i] += weights[v, k] * carried[:3]
    return result


def test_kinematics_equal_a_loop_over_transforms(body):
    pose = random_pose(body, 4)
    transforms, rest = slow_kinematics(body, *pose)
    kinematics = body.kinematics(*pose)
    np.testing.assert_allclose(kinematics.global_rotations, transforms[..., :3, :3], atol=1e-12)
    np.testing.assert_allclose(kinematics.joints, transforms[..., :3, 3], atol=1e-12)
    np.testing.assert_allclose(kinematics.rest_joints, rest)
    np.testing.assert_array_equal(kinematics.trajectory, pose[1])
    assert len(kinematics) == 4


def test_vertices_equal_a_loop_over_bones(body):
    pose, chosen = random_pose(body, 3), [0, 50, 177, 301]
    expected = slow_vertices(body, *pose, chosen)
    np.testing.assert_allclose(body.vertices(*pose)[:, chosen], expected, atol=1e-10)
    np.testing.assert_allclose(body.vertices(*pose, subset=chosen), expected, atol=1e-10)
    single = body.vertices(*pose, subset=chosen, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=3e-6)


def test_matrices_and_rotation_vectors_mean_the_same(body):
    rotations, trajectory, shape = random_pose(body, 2)
    np.testing.assert_allclose(body.vertices(rotvec_to_matrix(rotations), trajectory, shape),
                               body.vertices(rotations, trajectory, shape), atol=1e-12)


def test_chunks_are_the_whole(body, monkeypatch):
    pose = random_pose(body, 11)
    whole = body.vertices(*pose)
    monkeypatch.setattr("lifting.body.model._CHUNK_VALUES", 10_000)
    monkeypatch.setattr("lifting.meshes._CHUNK_VALUES", 2_000)
    chunks = list(body.vertex_chunks(*pose))
    assert len(chunks) > 1
    np.testing.assert_allclose(np.concatenate(chunks), whole, atol=1e-12)
    np.testing.assert_allclose(body.vertices(*pose), whole, atol=1e-12)
    assert body.vertices(np.zeros((0, 22, 3)), np.zeros((0, 3))).shape == (0, body.num_vertices, 3)


def test_rest_pose_gives_the_rest_mesh(body):
    shape = np.array([1.0, -0.5, 0.2])
    rest = body.rest_vertices(shape)
    np.testing.assert_allclose(body.vertices(np.zeros((1, 22, 3)), body.rest_joints(shape)[:1], shape)[0], rest,
                               atol=1e-12)
    np.testing.assert_allclose(rest, body.rest_vertices(np.append(shape, 0)))
    np.testing.assert_allclose(body.rest_vertices(subset=[3, 1]), body.template[[3, 1]])


def test_turning_the_root_turns_everything(body):
    rotations, trajectory, shape = random_pose(body, 2)
    turn = Rotation.from_euler("xyz", [0.3, 1, -2])
    turned = rotations.copy()
    turned[:, 0] = (turn * Rotation.from_rotvec(rotations[:, 0])).as_rotvec()
    expected = body.vertices(rotations, trajectory, shape) @ turn.as_matrix().T
    np.testing.assert_allclose(body.vertices(turned, turn.apply(trajectory), shape), expected, atol=1e-10)


def test_joints_in_any_order_give_the_same_mesh():
    body, order = small_body(), np.array([0, *range(21, 0, -1)])
    place = np.argsort(order)
    parents = [-1 if body.parents[k] < 0 else int(place[body.parents[k]]) for k in order]
    shuffled = body.replace(
        joints=[body.joints[k] for k in order], parents=parents, joint_template=body.joint_template[order],
        joint_directions=body.joint_directions[order], skin_weights=body.skin_weights[:, order], regressors={})
    rotations, trajectory, shape = random_pose(body, 2)
    np.testing.assert_allclose(shuffled.vertices(rotations[:, order], trajectory, shape),
                               body.vertices(rotations, trajectory, shape), atol=1e-12)
    np.testing.assert_allclose(shuffled.points("joints", rotations[:, order], trajectory, shape),
                               body.points("joints", rotations, trajectory, shape)[:, order], atol=1e-12)


def test_stature_is_the_extent_along_up():
    body = small_body()
    extent = np.ptp(body.template, axis=0)
    assert body.stature() == pytest.approx(extent[1])
    assert body.stature([2.0]) == pytest.approx(extent[1] * 1.1)
    assert body.replace(up="-x").stature() == pytest.approx(extent[0])


def test_axes_turn_the_persons_into_the_bodys():
    body = small_body()
    np.testing.assert_array_equal(body.axes(), np.eye(3))
    anny = body.replace(up="z", forward="-y").axes()  # left is up x forward
    np.testing.assert_array_equal(anny.T, [[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    assert np.linalg.det(anny) == pytest.approx(1)


def test_layouts_by_name_alias_skeleton_and_from_one_another():
    body = small_body()
    assert body.layouts == ("h36m17", "coco17_feet", "coco17", "lift17", "joints")
    assert body.point_set("Human3.6M") is body.point_set(get_skeleton("h36m17"))
    assert body.point_set("coco").names == get_skeleton("coco17").joints
    assert body.point_set("joints").names == body.joints
    lifted = get_skeleton("lift17").indices(["left_heel", "nose"])
    feet = get_skeleton("coco17_feet").indices(["left_heel", "nose"])
    assert (body.regressor("lift17")[list(lifted)] != body.regressor("coco17_feet")[list(feet)]).nnz == 0
    for unknown in ("body25", "nobody", Skeleton("mine", ("a",), (-1,))):
        with pytest.raises(ValueError, match=r"has no regressor for '\w+'; it has h36m17, coco17_feet, .*joints"):
            body.point_set(unknown)


def test_points_of_the_makers_own():
    body = small_body()
    soles = sparse.identity(body.num_vertices + body.num_joints).tocsr()[:3]
    extended = body.replace(regressors={**body.regressors, "soles": soles})
    assert extended.point_set("soles").names == ("soles0", "soles1", "soles2")
    pose = random_pose(body, 2)
    np.testing.assert_allclose(extended.points("soles", *pose), body.vertices(*pose)[:, :3], atol=1e-12)
    np.testing.assert_allclose(body.points(soles.toarray(), *pose), body.vertices(*pose)[:, :3], atol=1e-12)


def test_the_skinned_mesh_is_the_same_body():
    body = small_body()
    rotations, trajectory, shape = random_pose(body, 3)
    motion = BodyMotion(rotations, trajectory, shape, "small", 30.0, "world")
    mesh, coarse = body.skinned(motion, person_id=4), body.skinned(motion, "coarse")
    assert (mesh.name, mesh.joints, mesh.frame, mesh.person_id, mesh.fps) == ("small", body.joints, "world", 4, 30)
    expected = body.vertices(rotations, trajectory, shape)
    np.testing.assert_allclose(mesh.vertices(), expected, atol=5e-6)
    np.testing.assert_allclose(coarse.vertices(), expected[:, body.previews["coarse"].vertex_ids], atol=5e-6)
    assert coarse.faces.max() == coarse.num_vertices - 1
    assert mesh.bone_weights.shape[1] <= 4 and (mesh.bone_weights >= 0).all()
    with pytest.raises(ValueError, match="no mesh 'fine'; it has full, coarse"):
        body.skinned(motion, "fine")
    with pytest.raises(ValueError, match=r"motion of 21 joints of the body 'small', expected 22 of 'small'"):
        body.skinned(motion.replace(rotations=rotations[:, :21]))


def test_a_body_of_one_joint():
    body = BodyModel("ball", ["root"], [-1], np.eye(3), np.zeros((3, 3, 0)), np.zeros((1, 3)), np.zeros((1, 3, 0)),
                     np.ones((3, 1)), [[0, 1, 2]])
    turned = body.vertices([[[0, 0, np.pi / 2]]], [[1, 0, 0]])
    np.testing.assert_allclose(turned[0], [[1, 1, 0], [0, 0, 0], [1, 0, 1]], atol=1e-12)


def spoiled(body, name, index, value):
    array = getattr(body, name).copy()
    array[index] = value
    return {name: array}


def out_of_range(matrix):
    """A sparse matrix whose stored columns lie outside it, as a hostile file may hold."""
    broken = matrix.copy()
    broken.indices[3] = 1_000_000
    return broken


@pytest.mark.parametrize(("changes", "message"), [
    (lambda b: {"joints": b.joints[:-1] + ("pelvis",)}, "unique names"),
    (lambda b: {"parents": b.parents[:-1]}, r"parents must have the shape \(22\), got \(21,\)"),
    (lambda b: {"parents": (0, *b.parents[1:])}, "expected -1 for joint 0"),
    (lambda b: {"parents": (-1, -1, *b.parents[2:])}, "the only root"),
    (lambda b: {"parents": (-1, 4, 0, 0, 1, *b.parents[5:])}, r"joints \[1, 4, 7, 10\] form a cycle"),
    (lambda b: {"parents": (-1, 99, *b.parents[2:])}, "joint numbers 0..21"),
    (lambda b: {"parents": np.array(b.parents) * 1.0}, "parents must be whole numbers"),
    (lambda b: {"template": b.template[:, :2]}, r"template must have the shape \(any, 3\), got \(312, 2\)"),
    (lambda b: {"template": b.template[:-1]}, "shape_directions must have the shape"),
    (lambda b: spoiled(b, "template", (5, 1), np.nan), "template holds NaN"),
    (lambda b: {"template": "mesh"}, "template must be numbers"),
    (lambda b: spoiled(b, "joint_directions", (0, 0, 0), np.inf), "joint_directions holds NaN or infinite"),
    (lambda b: {"joint_template": b.joint_template[1:]}, "joint_template must have the shape"),
    (lambda b: {"pose_directions": np.zeros((312, 3, 207))}, r"pose_directions must have the shape \(312, 3, 189\)"),
    (lambda b: {"skin_weights": b.skin_weights[:, :-1]}, "skin_weights must have the shape"),
    (lambda b: {"skin_weights": b.skin_weights * np.nan}, "skin_weights holds NaN"),
    (lambda b: {"skin_weights": "heavy"}, "skin_weights must be a matrix of numbers"),
    (lambda b: {"skin_weights": out_of_range(b.skin_weights)}, "skin_weights must be a matrix of numbers"),
    (lambda b: {"skin_weights": b.skin_weights * 0.5}, r"vertex \d+ sum to 0.5, expected 1"),
    (lambda b: {"skin_weights": np.full((312, 22), -1 / 22)}, "must not be negative"),
    (lambda b: spoiled(b, "faces", (0, 0), 312), r"faces must lie in 0..311, got 0..312"),
    (lambda b: {"faces": b.faces * 1.5}, "faces must be whole numbers"),
    (lambda b: {"shape_sigma": np.ones(3)}, "shape_sigma must have the shape"),
    (lambda b: {"shape_sigma": np.zeros(4)}, "shape_sigma must be positive"),
    (lambda b: {"regressors": {"h36m17": b.regressors["coco17_feet"]}}, "has 23 rows, expected 17"),
    (lambda b: {"regressors": {"h36m17": b.regressors["h36m17"][:, 1:]}}, "'h36m17' must have the shape"),
    (lambda b: {"previews": {"tiny": Preview(np.array([400]), np.zeros((1, 3), int))}}, "'tiny' must lie in 0..311"),
    (lambda b: {"up": "w"}, "up must be x, y, z"),
    (lambda b: {"up": "-z"}, "two axes at right angles"),
    (lambda b: {"metadata": {"a": np.ones(2)}}, "plain JSON"),
])
def test_parts_that_make_no_body_are_refused(changes, message):
    body = small_body()
    with pytest.raises(ValueError, match=message):
        body.replace(**changes(body))


def test_poses_of_wrong_shape_are_refused(body):
    rotations, trajectory, shape = random_pose(body, 2)
    with pytest.raises(ValueError, match=r"got rotations \(2, 21, 3\), expected \(frames, 22, 3, 3\)"):
        body.kinematics(rotations[:, 1:], trajectory, shape)
    with pytest.raises(ValueError, match=r"trajectory \(1, 3\), expected \(2, 3\)"):
        body.kinematics(rotations, trajectory[:1], shape)
    for wrong in (np.zeros(5), np.zeros((1, 4)), [np.nan]):
        with pytest.raises(ValueError, match="expected up to 4 finite numbers"):
            body.kinematics(rotations, trajectory, wrong)
    with pytest.raises(ValueError, match="no joint 'tail'; it has pelvis"):
        body.joint("tail")
    assert body.joint("left_hip") == 1


def test_a_body_prints_its_name_and_sizes():
    assert repr(small_body()) == "BodyModel('small', 22 joints, 312 vertices, 4 shape coefficients)"


def test_weights_that_nearly_sum_to_one_are_made_to():
    body = small_body()
    loose = body.replace(skin_weights=body.skin_weights * 1.003)
    np.testing.assert_allclose(loose.skin_weights.sum(axis=1), 1, atol=1e-12)
