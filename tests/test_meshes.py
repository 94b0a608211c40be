"""Skinned meshes as plain arrays, and the kinematics below them."""

from __future__ import annotations

import numpy as np
import pytest
from small_body import random_pose, small_body

from lifting.meshes import SkinnedMesh, forward_kinematics, joint_levels
from lifting.motion import BodyMotion

FRAMES = 4


def arm(**changes) -> SkinnedMesh:
    """Two bones of 1 m along x; a vertex on each, one between, the elbow turned by 90 degrees about z in frame 1."""
    rotations = np.zeros((FRAMES, 2, 3))
    rotations[1, 1, 2] = np.pi / 2
    rotations[3] = np.nan
    fields = {"name": "arm", "joints": ("shoulder", "elbow"), "parents": (-1, 0), "rest_joints": [[0, 0, 0], [1, 0, 0]],
              "rest_vertices": [[0.5, 0, 0], [1, 0, 0], [2, 0, 0], [1.5, 0, 0]], "faces": [[0, 1, 2], [1, 2, 3]],
              "bone_indices": [[0, 1], [0, 1], [1, 0], [0, 1]],
              "bone_weights": [[1, 0], [0.5, 0.5], [1, 0], [0.5, 0.5]],
              "rotations": rotations, "trajectory": np.tile([10, 0, 5], (FRAMES, 1)), "fps": 25}
    return SkinnedMesh(**{**fields, **changes})


def test_vertices_follow_their_bones():
    mesh = arm()
    np.testing.assert_allclose(mesh.vertices()[0], mesh.rest_vertices + np.float32([10, 0, 5]), atol=1e-6)
    bent = [[10.5, 0, 5], [11, 0, 5], [11, 1, 5], [11.25, 0.25, 5]]
    np.testing.assert_allclose(mesh.vertices()[1], bent, atol=1e-6)
    np.testing.assert_allclose(mesh.joint_positions()[1], [[10, 0, 5], [11, 0, 5]], atol=1e-6)
    assert mesh.vertices().dtype == mesh.joint_positions().dtype == np.float32
    assert len(mesh) == mesh.num_frames == FRAMES and mesh.num_vertices == 4


def test_frames_are_chosen_like_those_of_an_array():
    mesh = arm()
    whole = mesh.vertices()
    np.testing.assert_array_equal(mesh.vertices(1), whole[1])
    np.testing.assert_array_equal(mesh.vertices(-3), whole[1])
    np.testing.assert_array_equal(mesh.vertices(slice(1, 3)), whole[1:3])
    np.testing.assert_array_equal(mesh.vertices(np.array([2, 0])), whole[[2, 0]])
    assert mesh.vertices(slice(0, 0)).shape == (0, 4, 3)
    with pytest.raises(IndexError):
        mesh.vertices(FRAMES)


def test_an_absent_person_has_no_vertices():
    vertices = arm().vertices()
    assert np.isnan(vertices[3]).all() and np.isfinite(vertices[:3]).all()


def test_precision_holds_far_from_the_origin():
    far = arm(trajectory=np.tile([2000, 0, 0], (FRAMES, 1)))
    np.testing.assert_allclose(far.vertices(1)[2], [2001, 1, 0], atol=2e-4)


def test_chunks_do_not_show(monkeypatch):
    mesh = arm()
    whole = mesh.vertices()
    monkeypatch.setattr("lifting.meshes._CHUNK_VALUES", 13)
    np.testing.assert_array_equal(mesh.vertices(), whole)


def test_levels_list_parents_before_children():
    levels = joint_levels((-1, 3, 0, 0, 2))
    assert [level.tolist() for level in levels] == [[0], [2, 3], [1, 4]]
    assert [level.tolist() for level in joint_levels([-1])] == [[0]]
    for bad in ((), (0,), (-1, 2, 1), (-1, 1), (-1, -1), (-1, 5), ((-1,),), (-1.0, 0.0)):
        with pytest.raises(ValueError, match="parents"):
            joint_levels(bad)


def test_kinematics_keep_bone_lengths():
    rng = np.random.default_rng(0)
    rotations = np.linalg.qr(rng.normal(size=(5, 4, 3, 3)))[0]
    rest = rng.normal(size=(4, 3))
    _, joints = forward_kinematics(rotations, rng.normal(size=(5, 3)), rest, (-1, 0, 1, 1))
    for child, parent in ((1, 0), (2, 1), (3, 1)):
        lengths = np.linalg.norm(joints[:, child] - joints[:, parent], axis=1)
        np.testing.assert_allclose(lengths, np.linalg.norm(rest[child] - rest[parent]))


@pytest.mark.parametrize(("changes", "message"), [
    ({"parents": (-1, 1)}, "cycle"),
    ({"parents": (-1,)}, r"parents of the mesh 'arm' has the shape \(1,\), expected \(2,\)"),
    ({"rest_joints": np.zeros((3, 3))}, r"rest_joints .* expected \(2, 3\)"),
    ({"faces": [[0, 1, 4]]}, r"faces .* must lie in 0..3, got 0..4"),
    ({"faces": [[0, 1]]}, "faces"),
    ({"bone_indices": [[0, 2]] * 4}, r"bone_indices .* 0..1"),
    ({"bone_indices": [0] * 4, "bone_weights": [1] * 4}, "bone_indices"),
    ({"bone_weights": [[0.5, 0]] * 4}, "sum to 1"),
    ({"bone_weights": [[np.nan, 0]] * 4}, "sum to 1"),
    ({"rotations": np.zeros((FRAMES, 3, 3))}, "rotations"),
    ({"trajectory": np.zeros((1, 3))}, "trajectory"),
    ({"fps": 0}, "fps must be"),
])
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        arm(**changes)


def test_replacing_checks_again():
    assert arm().replace(person_id=3).person_id == 3
    with pytest.raises(ValueError, match="fps"):
        arm().replace(fps=-1)


@pytest.mark.parametrize("level", ["full", "coarse"])
def test_pose_blendshapes_are_in_the_vertices(level):
    body = small_body(pose=True)
    rotations, trajectory, shape = random_pose(body, 5)
    motion = BodyMotion(rotations, trajectory, shape, "small", 25.0)
    mesh = body.skinned(motion, level)
    subset = None if level == "full" else body.previews[level].vertex_ids
    expected = body.vertices(motion.rotations, motion.trajectory, motion.shape, subset)
    np.testing.assert_allclose(mesh.vertices(), expected, atol=2e-6)
    np.testing.assert_allclose(mesh.vertices(slice(3, 5)), expected[3:], atol=2e-6)
    np.testing.assert_allclose(mesh.vertices(2), expected[2], atol=2e-6)
    plain = mesh.replace(pose_directions=None).vertices()
    assert np.abs(plain - mesh.vertices()).max() > 1e-3


def test_pose_blendshapes_in_chunks_are_the_same(monkeypatch):
    body = small_body(pose=True)
    motion = BodyMotion(*random_pose(body, 7), "small", 25.0)
    whole = body.skinned(motion).vertices()
    monkeypatch.setattr("lifting.meshes._CHUNK_VALUES", 9 * body.num_vertices * 2)
    np.testing.assert_allclose(body.skinned(motion).vertices(), whole, atol=1e-6)


def test_optional_arrays_must_fit():
    mesh = small_body(pose=True).skinned(BodyMotion(*random_pose(small_body(), 2), "small", 25.0))
    with pytest.raises(ValueError, match="pose_directions of the mesh 'small' has the shape"):
        mesh.replace(pose_directions=mesh.pose_directions[..., 1:])
    with pytest.raises(ValueError, match="smpl_offsets of the mesh 'small' has the shape"):
        mesh.replace(smpl_offsets=np.zeros((3, 3)))
