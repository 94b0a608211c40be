from __future__ import annotations

import json
import os

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from smpl_format import slow_vertices, smpl_arrays

from lifting.body import load_body
from lifting.body.smpl_files import read_smpl
from lifting.cameras import Camera
from lifting.export import load, save
from lifting.export.amass import read_amass, write_amass
from lifting.export.smpl_convention import SMPL_HIPS, SMPL_ROOT, SmplConvention
from lifting.meshes import forward_kinematics
from lifting.motion import BodyMotion
from lifting.rotations import rotvec_to_matrix

ROOT = np.array([0.01, -0.23, 0.03])


def motion(joints=22, frames=5, frame="world", body="lite", seed=0):
    rng = np.random.default_rng(seed)
    return BodyMotion(rotations=rng.normal(0, 0.5, (frames, joints, 3)), trajectory=rng.normal(0, 2, (frames, 3)),
                      shape=rng.normal(0, 1, 10), body=body, fps=50.0, frame=frame)


def foreign(path, **changes):
    arrays = {"poses": np.random.default_rng(0).normal(0, 0.3, (4, 156)), "betas": np.arange(16.0), "gender": "female",
              "trans": np.arange(12.0).reshape(4, 3), "mocap_framerate": 120.0, "dmpls": np.zeros((4, 8)), **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize(("joints", "columns"), [(22, 156), (24, 72), (52, 156), (55, 165), (7, 21)])
@pytest.mark.parametrize("frame", ["world", "camera"])
def test_round_trip(tmp_path, joints, columns, frame):
    written = motion(joints, frame=frame)
    write_amass(written, tmp_path / "a.amass.npz", ROOT, gender="male")
    clip = read_amass(tmp_path / "a.amass.npz")
    assert clip.gender == "male"
    assert (clip.motion.fps, clip.motion.frame, clip.motion.body) == (50.0, "world", "lite")
    turn = Rotation.from_matrix([[1, 0, 0], [0, 0, 1], [0, -1, 0]] if frame == "camera" else np.eye(3))
    expected, found = (Rotation.from_rotvec(each.rotations[:, 0]) for each in (written, clip.motion))
    gap = (turn * expected).inv() * found
    assert gap.magnitude().max() < 2e-6
    np.testing.assert_allclose(clip.motion.trajectory, turn.apply(written.trajectory), atol=2e-6)
    np.testing.assert_allclose(clip.motion.rotations[:, 1:], written.rotations[:, 1:], atol=2e-6)
    np.testing.assert_array_equal(clip.motion.shape, written.shape)
    assert np.load(tmp_path / "a.amass.npz")["poses"].shape == (5, columns)


def test_arrays_are_those_that_other_tools_expect(tmp_path):
    written = motion()
    write_amass(written, tmp_path / "a.npz", ROOT)
    arrays = np.load(tmp_path / "a.npz")
    np.testing.assert_allclose(arrays["poses"][:, :66], written.rotations.reshape(5, 66), atol=1e-7)
    assert not arrays["poses"][:, 66:].any()
    np.testing.assert_allclose(arrays["trans"], written.trajectory - ROOT, atol=1e-6)
    assert (float(arrays["mocap_framerate"]), float(arrays["mocap_frame_rate"])) == (50.0, 50.0)
    assert str(arrays["gender"]) == "neutral" and arrays["betas"].shape == (10,)
    assert not any(arrays[name].dtype.hasobject for name in arrays.files)


def test_camera_motion_is_turned_to_z_up(tmp_path):
    written = motion(frame="camera")
    write_amass(written, tmp_path / "a.npz", np.zeros(3))
    arrays = np.load(tmp_path / "a.npz")
    x, y, z = written.trajectory.T
    np.testing.assert_allclose(arrays["trans"], np.stack([x, z, -y], axis=1), atol=1e-6)
    turn = Rotation.from_matrix([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    expected = turn * Rotation.from_rotvec(written.rotations[:, 0])
    gap = Rotation.from_rotvec(arrays["poses"][:, :3]).inv() * expected
    assert gap.magnitude().max() < 1e-6
    np.testing.assert_allclose(arrays["poses"][:, 3:66], written.rotations[:, 1:].reshape(5, 63), atol=1e-7)


def test_smpl_formula_on_the_file_gives_the_mesh_of_the_body(tmp_path):
    arrays = smpl_arrays()
    np.savez(tmp_path / "body.npz", **arrays)
    body, written = read_smpl(tmp_path / "body.npz"), motion(24, body="smpl")
    write_amass(written, tmp_path / "a.npz", body.rest_joints(written.shape)[0])
    found = np.load(tmp_path / "a.npz")
    expected = body.vertices(written.rotations, written.trajectory, written.shape)
    mesh = slow_vertices(arrays, found["poses"][2].reshape(24, 3), found["betas"], found["trans"][2])
    np.testing.assert_allclose(mesh, expected[2], atol=1e-5)


def test_absent_frames_are_left_out_and_restored(tmp_path):
    whole = motion(frames=7)
    rotations, trajectory = whole.rotations.copy(), whole.trajectory.copy()
    rotations[:2] = trajectory[:2] = rotations[6:] = trajectory[6:] = np.nan
    written = whole.replace(rotations=rotations, trajectory=trajectory)
    write_amass(written, tmp_path / "a.npz", ROOT)
    assert len(np.load(tmp_path / "a.npz")["poses"]) == 4
    read = read_amass(tmp_path / "a.npz").motion
    np.testing.assert_array_equal(read.present, [0, 0, 1, 1, 1, 1, 0])
    np.testing.assert_allclose(read.trajectory, trajectory, atol=1e-6)


@pytest.mark.parametrize("gap", [slice(2, 4), slice(None)])
def test_motion_with_gaps_is_refused(tmp_path, gap):
    trajectory = motion().trajectory.copy()
    trajectory[gap] = np.nan
    with pytest.raises(ValueError, match="NaN (between|in every)"):
        write_amass(motion().replace(trajectory=trajectory), tmp_path / "a.npz", ROOT)
    assert os.listdir(tmp_path) == []


def test_unknown_gender_and_wrong_root_are_refused(tmp_path):
    with pytest.raises(ValueError, match="gender is 'x', expected one of neutral, female, male"):
        write_amass(motion(), tmp_path / "a.npz", ROOT, gender="x")
    with pytest.raises(ValueError, match=r"rest_root must have the shape \(3\)"):
        write_amass(motion(), tmp_path / "a.npz", np.zeros((22, 3)))


# ---- bodies that are not SMPL's


@pytest.fixture(scope="module")
def lite():
    return load_body("lite")


def lite_mesh(body, frame="world"):
    moving = motion(frame=frame).replace(shape=np.linspace(-1, 1, body.num_shape))
    return moving, body.skinned(moving, level=min(body.previews, default="full"))


def test_another_rest_pose_gives_the_same_limbs(lite):
    """A skeleton that rests as the offsets say stands, with the converted rotations, where the body does."""
    moving, mesh = lite_mesh(lite)
    convention = SmplConvention.of_mesh(mesh)
    rotations, translations = convention.to_smpl(moving.rotations.astype(float), moving.trajectory.astype(float))
    rest, turns = mesh.rest_joints.astype(float), Rotation.from_rotvec(convention.offsets)
    other = np.zeros_like(rest)
    for joint, parent in enumerate(mesh.parents):
        if parent >= 0:
            other[joint] = other[parent] + turns[parent].apply(rest[joint] - rest[parent])
    expected = mesh.joint_positions() - mesh.joint_positions()[:, :1]
    _, found = forward_kinematics(rotvec_to_matrix(rotations), np.zeros((5, 3)), other, mesh.parents)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    hips = translations + SMPL_ROOT + Rotation.from_rotvec(rotations[:, 0]).apply(SMPL_HIPS)
    numbers = [mesh.joints.index(f"{side}_hip") for side in ("left", "right")]
    np.testing.assert_allclose(hips, mesh.joint_positions()[:, numbers].mean(axis=1), atol=1e-5)


def test_smpls_rest_pose_is_a_t_pose_of_the_body(lite):
    _, mesh = lite_mesh(lite)
    rotations, trajectory = SmplConvention.of_mesh(mesh).from_smpl(np.zeros((1, 22, 3)), np.zeros((1, 3)))
    joints = lite.kinematics(rotations, trajectory).joints[0]
    place = {name: joints[number] for number, name in enumerate(lite.joints)}

    def direction(start, end):
        return (place[end] - place[start]) / np.linalg.norm(place[end] - place[start])

    for side, sign in (("left", 1), ("right", -1)):
        assert direction(f"{side}_shoulder", f"{side}_wrist") @ [sign, 0, 0] > np.cos(np.radians(6))
        assert direction(f"{side}_hip", f"{side}_ankle") @ [0, -1, 0] > np.cos(np.radians(6))
    assert direction("pelvis", "head") @ [0, 1, 0] > 0.97
    vertices = lite.vertices(rotations, trajectory)[0]
    assert np.ptp(vertices[:, 0]) == pytest.approx(lite.stature(), rel=0.08)  # arm span and height are alike


def test_the_file_of_another_body_is_for_smpls_mean_shape(tmp_path, lite):
    moving, mesh = lite_mesh(lite)
    convention = SmplConvention.of_mesh(mesh)
    write_amass(moving, tmp_path / "a.npz", np.full(3, 9.0), smpl=convention)
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["betas"].shape == (10,) and not arrays["betas"].any()
    assert "whose shape is not SMPL's" in json.loads(str(arrays["metadata"]))["note"]
    turns = Rotation.from_rotvec(convention.offsets)
    elbow = mesh.joints.index("left_elbow")
    expected = turns[mesh.parents[elbow]] * Rotation.from_rotvec(moving.rotations[:, elbow]) * turns[elbow].inv()
    gap = expected.inv() * Rotation.from_rotvec(arrays["poses"][:, 3 * elbow : 3 * elbow + 3])
    assert gap.magnitude().max() < 1e-6 < (turns[elbow].magnitude())


def test_another_body_comes_back_as_it_was(tmp_path, lite):
    moving, mesh = lite_mesh(lite)
    camera = Camera.from_fov(60, (640, 480))
    write_amass(moving, tmp_path / "a.amass.npz", np.zeros(3), smpl=SmplConvention.of_mesh(mesh), camera=camera,
                person_id=3)  # fmt: skip
    clip = read_amass(tmp_path / "a.amass.npz")
    assert (clip.camera, clip.person_id, clip.assumed) == (camera, 3, ())
    for name in ("trajectory", "shape"):
        np.testing.assert_allclose(getattr(clip.motion, name), getattr(moving, name), atol=2e-6)
    gap = Rotation.from_rotvec(moving.rotations.reshape(-1, 3)).inv() * Rotation.from_rotvec(
        clip.motion.rotations.reshape(-1, 3))  # fmt: skip
    assert gap.magnitude().max() < 1e-5


def test_offsets_of_another_body_are_refused(tmp_path, lite):
    convention = SmplConvention.of_mesh(lite_mesh(lite)[1])
    with pytest.raises(ValueError, match="rest offsets of 22 joints for a motion of 24"):
        write_amass(motion(24), tmp_path / "a.npz", ROOT, smpl=convention)
    with pytest.raises(ValueError, match="joint numbers below 2"):
        SmplConvention((-1, 5), np.zeros((2, 3)), np.zeros(3))
    assert os.listdir(tmp_path) == []


# ---- as takes


@pytest.mark.parametrize("name", ["walk_poses.npz", "walk.amass.npz"])
def test_foreign_files_are_takes_of_one_body(tmp_path, name):
    take = load(foreign(tmp_path / name))
    (person,) = take.people
    assert (take.name, take.fps, len(take)) == (name.removesuffix(".npz").removesuffix(".amass"), 120.0, 4)
    assert (person.body.body, person.body.frame, person.motion) == ("smplh", "world", None)
    assert take.metadata["gender"] == "female" and len(take.assumed) == 2
    cameras = person.body.trajectory @ take.camera.rotation.T + take.camera.translation
    assert (cameras[:, 2] > 4).all()  # the stand-in has everybody before it
    assert load(save(take, tmp_path / "result.npz")) == take


def test_damaged_foreign_files_are_one_sentence_to_load_too(tmp_path):
    with pytest.raises(ValueError, match=r"f\.npz' cannot be read as an AMASS-style file: poses has the shape"):
        load(foreign(tmp_path / "f.npz", poses=np.zeros((4, 155))))


# ---- files of other tools


@pytest.mark.parametrize(("columns", "body"), [(156, "smplh"), (165, "smplx"), (72, "smpl"), (66, "smplh")])
def test_foreign_files(tmp_path, columns, body):
    poses = np.random.default_rng(1).normal(0, 0.3, (4, columns))
    seen = []

    def rest_root(shape):
        seen.append(shape)
        return ROOT

    clip = read_amass(foreign(tmp_path / "f.npz", poses=poses), rest_root)
    np.testing.assert_array_equal(seen[0], np.arange(16.0))
    assert (clip.motion.body, clip.motion.frame, clip.motion.fps, clip.gender) == (body, "world", 120.0, "female")
    np.testing.assert_allclose(clip.motion.rotations.reshape(4, columns), poses, atol=1e-6)
    np.testing.assert_allclose(clip.motion.trajectory, np.arange(12.0).reshape(4, 3) + ROOT, atol=1e-6)


def test_variants_of_foreign_files(tmp_path):
    changes = {"mocap_framerate": None, "mocap_frame_rate": np.array(30), "gender": np.array(b"male"),
               "betas": np.ones((1, 10))}
    clip = read_amass(foreign(tmp_path / "f.npz", **changes), lambda shape: ROOT, num_joints=22)
    assert (clip.gender, clip.motion.fps, clip.motion.rotations.shape) == ("male", 30.0, (4, 22, 3))
    np.testing.assert_array_equal(clip.motion.shape, np.ones(10))
    assert read_amass(foreign(tmp_path / "f.npz", gender=None), lambda shape: ROOT).gender == "neutral"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": None}, "lacks 'poses'"),
        ({"trans": None}, "lacks 'trans'"),
        ({"poses": np.zeros((4, 155))}, r"poses has the shape \(4, 155\)"),
        ({"poses": np.zeros((0, 156)), "trans": np.zeros((0, 3))}, "poses has the shape"),
        ({"trans": np.zeros((5, 3))}, r"trans must have the shape \(4, 3\)"),
        ({"mocap_framerate": None}, "lacks mocap_framerate"),
        ({"mocap_framerate": 0.0}, "fps must be a positive number"),
        ({"gender": "robot"}, "gender is 'robot'"),
        ({"betas": np.full(10, np.nan)}, "must be finite"),
        ({"metadata": np.array("{")}, "metadata is not JSON"),
        ({"metadata": np.array('{"format": "keypoint-lift result"}')}, "another result"),
        ({"metadata": np.array('{"format": "keypoint-lift amass", "format_version": 9}')}, "format version 9"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_amass(foreign(tmp_path / "f.npz", **changes), lambda shape: ROOT)
    assert "f.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_of_foreign_files_the_rest_root_is_assumed_and_said(tmp_path):
    clip = read_amass(foreign(tmp_path / "f.npz"))
    np.testing.assert_allclose(clip.motion.trajectory, np.arange(12.0).reshape(4, 3) + SMPL_ROOT, atol=1e-6)
    assert "SMPL's mean shape was taken" in clip.assumed[0]
    assert read_amass(foreign(tmp_path / "f.npz"), lambda shape: ROOT).assumed == ()


@pytest.mark.parametrize("columns", [156, 165])
def test_joints_for_another_body(tmp_path, columns):
    poses = np.ones((4, columns))
    path = foreign(tmp_path / "f.npz", poses=poses)
    for joints, moving in ((1, 1), (22, 22), (24, 22), (columns // 3, columns // 3)):
        rotations = read_amass(path, lambda shape: ROOT, num_joints=joints).motion.rotations
        assert rotations.shape == (4, joints, 3)
        assert (rotations[:, :moving] == 1).all() and not rotations[:, moving:].any()
    for joints in (0, 23, 25, 60):
        with pytest.raises(ValueError, match=f"{columns // 3} joints, which cannot be those of a body of {joints}"):
            read_amass(path, lambda shape: ROOT, num_joints=joints)


def test_false_frame_counts_are_refused(tmp_path):
    write_amass(motion(), tmp_path / "a.npz", ROOT)
    arrays = dict(np.load(tmp_path / "a.npz"))
    for false in ("1000000000", "3", "-1", "null"):
        metadata = str(arrays["metadata"]).replace('"num_frames": 5', f'"num_frames": {false}')
        np.savez(tmp_path / "b.npz", **{**arrays, "metadata": np.array(metadata)})
        with pytest.raises(ValueError, match=r"b\.npz' cannot be read as an AMASS-style file"):
            read_amass(tmp_path / "b.npz")


def test_hostile_file_is_refused(tmp_path, monkeypatch):
    class Call:
        def __reduce__(self):
            return os.system, ("touch executed",)

    monkeypatch.chdir(tmp_path)
    array = np.empty((), object)
    array[()] = Call()
    foreign("f.npz", gender=array)
    with pytest.raises(ValueError, match=r"refused '\w+\.system'"):
        read_amass("f.npz", lambda shape: ROOT)
    assert os.listdir(tmp_path) == ["f.npz"]
    with pytest.raises(FileNotFoundError, match="no file at"):
        read_amass("absent.npz")
