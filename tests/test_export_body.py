"""Fitted bodies in result files, and takes in the formats that are made for bodies."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from moving_body import FPS, body_motion, moving_mesh

from lifting.cameras import Camera
from lifting.export import BODY_FORMATS, FORMATS, MOTION_FORMATS, format_of, load, save, suffix_of
from lifting.export.amass import read_amass
from lifting.keypoints import Keypoints2D
from lifting.meshes import SkinnedMesh
from lifting.motion import BodyMotion, Motion, Person, Take
from lifting.skeletons import get_skeleton

SIZE, FRAMES = (640, 480), 20
WHOLE = [".npz", ".json", ".h5"]
HOSTILE = 'a,"b"\n#c\r\n</script>\0é漢\ud800 ../x'


def person(number: int, body: BodyMotion | None, motion: bool = True) -> Person:
    rng = np.random.default_rng(number)
    layout, lifted = get_skeleton("coco17"), None
    if motion:
        lifted = Motion(rng.normal(size=(FRAMES, 17, 3)), rng.normal(size=(FRAMES, 3)), None, "h36m17", FPS,
                        body.frame if body else "camera")
    keypoints = Keypoints2D(rng.uniform(0, 400, (FRAMES, 17, 2)), rng.uniform(0, 1, (FRAMES, 17)), layout, SIZE, FPS)
    return Person(number, keypoints, lifted, body)


def take(*people: Person, **changes) -> Take:
    fields = {"name": "clip", "image_size": SIZE, "fps": FPS, "times": np.arange(FRAMES) / FPS,
              "camera": Camera.from_fov(60, SIZE), "people": people}
    return Take(**{**fields, **changes})


def mixed_take(**changes) -> Take:
    """A body with doubts, nobody's, a smaller one of another name that is absent at both ends."""
    rng = np.random.default_rng(0)
    doubts = {name: rng.uniform(0, 0.1, (FRAMES, 22)) for name in ("joint_sigma", "rotation_sigma")}
    first = body_motion(0, **doubts)
    other = body_motion(1, absent=(3, 2), joints=5, body=HOSTILE, shape=np.ones(2))
    return take(person(4, first), person(2, None), person(9, other, motion=False), **changes)


@pytest.mark.parametrize("suffix", WHOLE)
def test_bodies_come_back_equal(tmp_path, suffix):
    whole = mixed_take()
    assert load(save(whole, tmp_path / f"r{suffix}")) == whole


@pytest.mark.parametrize("suffix", WHOLE)
@pytest.mark.parametrize("changes", [{"frame": "world"}, {"shape": np.zeros(0)},
                                     {"rotation_sigma": np.zeros((FRAMES, 22))}])
def test_unusual_bodies_come_back_equal(tmp_path, suffix, changes):
    whole = take(person(0, body_motion(**changes), motion=False))
    assert load(save(whole, tmp_path / f"r{suffix}")) == whole


def test_a_table_leaves_bodies_out(tmp_path):
    whole = mixed_take()
    bare = whole.replace(people=[person(4, None), person(2, None), person(9, None, motion=False)])
    assert load(save(whole, tmp_path / "r.csv")) == bare
    assert whole.people[0].body is not None


def test_npz_holds_bodies_as_documented(tmp_path):
    bones = {"small": {"joints": ["pelvis"] * 22, "parents": [-1] * 22}, "other": 5}
    whole = mixed_take(metadata={"bodies": bones})
    with np.load(save(whole, tmp_path / "r.npz"), allow_pickle=False) as file:
        arrays, metadata = dict(file), json.loads(str(file["metadata"]))
    body = whole.people[0].body
    assert arrays["body_rotations"].shape == (3, FRAMES, 22, 3)
    assert arrays["body_shape"].shape == (3, 4)
    np.testing.assert_array_equal(arrays["body_rotations"][0], body.rotations)
    np.testing.assert_array_equal(arrays["body_trajectory"][0], body.trajectory)
    np.testing.assert_array_equal(arrays["body_joint_sigma"][0], body.joint_sigma)
    np.testing.assert_array_equal(arrays["body_rotation_sigma"][0], body.rotation_sigma)
    np.testing.assert_array_equal(arrays["body_shape"][2], [1, 1, np.nan, np.nan])
    assert np.isnan(arrays["body_rotations"][1]).all()
    assert np.isnan(arrays["body_rotations"][2, :, 5:]).all()
    assert metadata["format_version"] == 2
    assert {name: metadata["units"][name] for name in ("body_rotations", "body_trajectory", "body_joint_sigma")} == {
        "body_rotations": "rad", "body_trajectory": "m", "body_joint_sigma": "m"}
    first, second, third = metadata["people"]
    assert (first["body"]["name"], first["body"]["num_joints"], first["body"]["frame"]) == ("small", 22, "camera")
    assert first["body"]["joints"] == ["pelvis"] * 22
    assert "body" not in second
    assert (third["body"]["num_joints"], third["body"]["joint_sigma"]) == (5, False)
    assert metadata["axes"]["body"].startswith("+x right, +y down")


def test_hdf5_states_the_units_of_bodies(tmp_path):
    with h5py.File(save(mixed_take(), tmp_path / "r.h5"), "r") as file:
        assert file["body_rotations"].attrs["unit"] == "rad"
        assert file["body_rotations"].attrs["dimensions"] == "person,frame,body joint,xyz"


def test_results_without_bodies_are_of_the_first_version(tmp_path):
    """A library that knows no bodies reads them; one with bodies it refuses instead of dropping them."""
    whole = take(person(0, None))
    with np.load(save(whole, tmp_path / "r.npz")) as file:
        metadata, arrays = json.loads(str(file["metadata"])), dict(file)
    assert metadata["format_version"] == 1
    assert not [name for name in arrays if name.startswith("body")]
    np.savez(tmp_path / "more.npz", later_invention=np.ones(3), **arrays)
    assert load(tmp_path / "more.npz") == whole


@pytest.mark.parametrize(("change", "message"), [
    (lambda data: data.pop("body_rotations"), "lacks 'body_rotations'"),
    (lambda data: data.pop("body_joint_sigma"), "lacks 'body_joint_sigma'"),
    (lambda data: data["metadata"]["people"][0]["body"].pop("name"), "lacks 'name'"),
    (lambda data: data["metadata"]["people"][0]["body"].update(num_joints=40), "fewer joints"),
    (lambda data: data["metadata"]["people"][0]["body"].update(num_joints=-1), "fewer joints"),
    (lambda data: data["metadata"]["people"][0]["body"].update(num_shape="x"), "damaged result"),
    (lambda data: data["metadata"]["people"][0]["body"].update(frame="moon"), "frame must be one of"),
    (lambda data: data["metadata"]["people"][0].update(body=3), "damaged result"),
    (lambda data: data["body_rotations"][0].pop(), "damaged result"),
    (lambda data: data["body_shape"][0].__setitem__(0, None), "must be finite"),
    (lambda data: data["metadata"].update(format_version=3), "this library reads 1 to 2"),
])
def test_damaged_bodies_are_refused_in_a_sentence(tmp_path, change, message):
    path = save(mixed_take(), tmp_path / "r.json")
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "r.json" in str(caught.value) and "\n" not in str(caught.value)


# ---- formats for bodies


def meshes_of(whole: Take) -> list[SkinnedMesh]:
    return [moving_mesh(number, each.id) for number, each in enumerate(whole.people)]


def walking_pair(**changes) -> Take:
    return take(person(0, body_motion(0)), person(7, body_motion(1)), name=HOSTILE, **changes)


@pytest.mark.parametrize(("name", "files"), [
    ("a.glb", ["a.glb"]), ("a.bvh", ["a.bvh", "a.person7.bvh"]), ("a.3.obj", ["a.3.obj"]), ("a.3.PLY", ["a.3.PLY"]),
    ("a.b.amass.npz", ["a.b.amass.npz", "a.b.person7.amass.npz"]),
])
def test_bodies_are_saved_by_suffix(tmp_path, name, files):
    whole = walking_pair()
    assert save(whole, tmp_path / name, meshes=iter(meshes_of(whole))) == tmp_path / name
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert format_of(name).takes_meshes
    if name.endswith(".npz"):
        return
    with pytest.raises(ValueError, match="can only be written; load one of .npz, .json, .csv, .h5"):
        load(tmp_path / name)


def test_glb_files_say_what_the_take_knows_of_its_bodies(tmp_path):
    known = {"small": {"licence": "CC0"}}
    content = save(walking_pair(metadata={"bodies": known}), tmp_path / "a.glb", meshes=[moving_mesh()]).read_bytes()
    data = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    assert data["asset"]["extras"]["bodies"] == known
    assert data["animations"][0]["name"] == HOSTILE.replace("\ud800", "\ufffd")


def test_amass_files_hold_each_persons_motion(tmp_path):
    whole = walking_pair()
    save(whole, tmp_path / "a.amass.npz", meshes=meshes_of(whole))
    back = load(tmp_path / "a.person7.amass.npz")
    [found], body = back.people, whole.people[1].body
    assert (back.name, found.id, found.body.body, found.motion) == ("a.person7", 7, "small", None)
    assert not found.keypoints.seen.any()
    np.testing.assert_allclose(found.body.trajectory, body.trajectory[:, [0, 2, 1]] * [1, 1, -1], atol=1e-5)
    seen = back.camera.project(found.body.trajectory @ back.camera.rotation.T + back.camera.translation)
    np.testing.assert_allclose(seen, whole.camera.project(body.trajectory), atol=1e-3)
    np.testing.assert_allclose(found.body.shape, body.shape)
    assert load(save(back, tmp_path / "again.npz")) == back


@pytest.mark.parametrize("suffix", BODY_FORMATS)
def test_without_bodies_one_sentence_says_what_to_do(tmp_path, suffix):
    with pytest.raises(ValueError, match="fit bodies first: lift fit RESULT, or lift run --mesh") as caught:
        save(take(person(0, None)), tmp_path / f"a{suffix}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_mesh_needs_its_person_and_frames(tmp_path):
    whole = walking_pair()
    with pytest.raises(ValueError, match="mesh of person 0 has 5 frames, the take has 20"):
        save(whole, tmp_path / "a.glb", meshes=[moving_mesh(frames=5)])
    with pytest.raises(ValueError, match="no person 3"):
        save(whole, tmp_path / "a.amass.npz", meshes=[moving_mesh(), moving_mesh(1, 3)])
    with pytest.raises(ValueError, match="does not say which of the 20 frames .* name the file like 'a.10.obj'"):
        save(whole, tmp_path / "a.obj", meshes=meshes_of(whole))
    assert not list(tmp_path.iterdir())


def test_other_formats_need_no_meshes_and_take_no_notice(tmp_path):
    whole = walking_pair()
    assert load(save(whole, tmp_path / "a.npz", meshes=meshes_of(whole))) == whole


@pytest.mark.parametrize("suffix", [".glb", ".bvh", ".obj", ".ply", ".amass.npz"])
def test_a_failed_write_leaves_the_old_file(tmp_path, suffix, monkeypatch):
    whole = walking_pair()
    path = save(whole, tmp_path / f"a.1{suffix}", meshes=meshes_of(whole))
    before = {place: place.read_bytes() for place in tmp_path.iterdir()}
    monkeypatch.setattr("os.fsync", lambda number: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(whole, path, meshes=meshes_of(whole))
    assert {place: place.read_bytes() for place in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("name", "suffix"), [
    ("clip.npz", ".npz"), ("clip.AMASS.npz", ".amass.npz"), ("amass.npz", ".npz"), ("a.amass", ""),
    ("a.b.c.json", ".json"), ("clip.120.obj", ".obj"), ("clip.glb.npz", ".npz"), ("clip", ""),
    (".npz", ""), ("folder.glb/clip", ""), ("clip.ANGLES.csv", ".angles.csv"), ("angles.csv", ".csv"),
])
def test_the_longest_known_suffix_counts(name, suffix):
    assert suffix_of(name) == suffix
    if suffix:
        assert format_of(name) is {**FORMATS, **MOTION_FORMATS, **BODY_FORMATS}[suffix]
    else:
        with pytest.raises(ValueError, match=r"written as .npz.*motions as .glb, .bvh.*fitted bodies as .obj, .ply"):
            format_of(name)


def test_amass_files_are_of_the_bodys_gender(tmp_path):
    whole = walking_pair()
    meshes = [mesh.replace(gender="female") for mesh in meshes_of(whole)]
    save(whole, tmp_path / "a.amass.npz", meshes=meshes)
    assert read_amass(tmp_path / "a.amass.npz").gender == "female"


@pytest.mark.parametrize("suffix", [".bvh", ".amass.npz"])
def test_if_one_persons_file_fails_no_file_is_written(tmp_path, suffix):
    whole = walking_pair()
    (tmp_path / f"a.person7{suffix}").mkdir()
    with pytest.raises(OSError, match="person7"):
        save(whole, tmp_path / f"a{suffix}", meshes=meshes_of(whole))
    assert [path.name for path in tmp_path.iterdir()] == [f"a.person7{suffix}"]


@pytest.mark.parametrize("path", [None, 5, ["a.npz"]])
def test_what_is_no_path_is_refused_in_a_sentence(path):
    for call in (lambda: load(path), lambda: save(walking_pair(), path)):
        with pytest.raises(ValueError, match="in place of a file, expected its path"):
            call()
