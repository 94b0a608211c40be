"""3DPW."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from gated_layouts import threedpw_sequence, write_sequence

from lifting.datasets.clip_file import ClipFile, write_clips
from lifting.datasets.threedpw import open_3dpw


@pytest.fixture
def content() -> dict:
    return threedpw_sequence()


def in_camera(content: dict, person: int) -> np.ndarray:
    """(T, 24, 3) metres, frame by frame and joint by joint."""
    joints = content["jointPositions"][person].reshape(-1, 24, 3)
    return np.array([[(pose @ [*joint, 1])[:3] for joint in frame]
                     for pose, frame in zip(content["cam_poses"], joints, strict=True)])


def test_every_person_of_a_sequence_is_a_clip(tmp_path, content):
    write_sequence(tmp_path, "test/downtown_walking_00", content)
    write_sequence(tmp_path, "train/courtyard_arguing_00", threedpw_sequence(4, 1, (1920, 1080)))
    clips = open_3dpw(tmp_path)
    assert [info.name for info in clips.infos] == [
        "train/0/courtyard_arguing_00/camera", "test/0/downtown_walking_00/camera", "test/1/downtown_walking_00/camera"]
    assert [(info.frames, info.image_size) for info in clips.infos[:2]] == [(4, (1920, 1080)), (6, (1080, 1920))]
    assert {info.fps for info in clips.infos} == {30} and clips.name == "3dpw openpose"
    assert (clips.skeleton_in.name, clips.skeleton_out.name) == ("openpose18", "smpl24")
    assert open_3dpw(tmp_path / "sequenceFiles").infos == clips.infos
    assert len(clips.select(["test/1"])) == 1


def test_joints_are_brought_into_the_frame_of_the_moving_camera(tmp_path, content):
    write_sequence(tmp_path, "test/a_00", content)
    clips = open_3dpw(tmp_path)
    for person in (0, 1):
        valid = content["campose_valid"][person] > 0
        found = clips.read(person).motion.absolute
        np.testing.assert_allclose(found[valid], in_camera(content, person)[valid], atol=2e-6)
        assert np.isnan(found[~valid]).all() and (~valid).sum() == 1 - person
    part = clips.read(1, 3, 5)
    np.testing.assert_allclose(part.motion.absolute, in_camera(content, 1)[3:5], atol=2e-6)
    np.testing.assert_array_equal(part.camera.rotation, content["cam_poses"][3:5, :3, :3])
    assert part.camera.focal.tolist() == [1961.5, 1969.25]


def test_detections_keep_their_scores_and_zeros_are_unseen(tmp_path, content):
    content["poses2d"][0][1, :, 4] = 0
    write_sequence(tmp_path, "test/a_00", content)
    keypoints = open_3dpw(tmp_path).read(0).keypoints
    assert not keypoints.seen[1, 4] and keypoints.seen.sum() == 6 * 18 - 1
    np.testing.assert_allclose(keypoints.xy[2, 7], content["poses2d"][0][2, :2, 7])
    np.testing.assert_allclose(keypoints.score[2], content["poses2d"][0][2, 2])


def test_exact_keypoints_are_projections(tmp_path, content):
    write_sequence(tmp_path, "validation/a_00", content)
    clips = open_3dpw(tmp_path, "gt")
    assert clips.skeleton_in.name == "smpl24" and clips.name == "3dpw gt"
    x, y, z = np.moveaxis(in_camera(content, 0), -1, 0)
    expected = np.stack([1961.5 * x / z + 540, 1969.25 * y / z + 960], axis=-1)
    found = clips.read(0).keypoints
    np.testing.assert_allclose(found.xy[[0, 1, 3, 4, 5]], expected[[0, 1, 3, 4, 5]], atol=1e-2)
    assert not found.seen[2].any()


def test_clip_files_keep_the_moving_camera(tmp_path, content):
    write_sequence(tmp_path, "test/a_00", content)
    clips = open_3dpw(tmp_path)
    write_clips(tmp_path / "clips.h5", clips, name=clips.name)
    assert ClipFile(tmp_path / "clips.h5").read(0, 1, 4) == clips.read(0, 1, 4)


# ---- bad input


def test_missing_files_and_unknown_keypoints_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no files sequenceFiles/\{train,validation,test\}/\*\.pkl; unpack"):
        open_3dpw(tmp_path)
    with pytest.raises(ValueError, match="no 2D keypoints 'cpn'; choose openpose or gt"):
        open_3dpw(tmp_path, "cpn")


@pytest.mark.parametrize("change, reason", [
    ({"cam_poses": None}, "cam_poses must be an array"), ({"cam_poses": np.ones((6, 4, 4))}, "not a rotation matrix"),
    ({"jointPositions": [np.ones((5, 72))]}, r"jointPositions must have the shape \(6, 72\), got \(5, 72\)"),
    ({"campose_valid": [np.ones(5)]}, "campose_valid has 5 frames, cam_poses 6"),
    ({"campose_valid": []}, "list index out of range"),
    ({"poses2d": [np.ones((6, 18, 3))]}, r"poses2d must have the shape \(6, 3, 18\)"),
    ({"cam_intrinsics": np.zeros((3, 3))}, "image_size must be"),
])  # fmt: skip
def test_other_content_is_refused(tmp_path, content, change, reason):
    write_sequence(tmp_path, "test/a_00", content | change)
    with pytest.raises(ValueError, match=rf"a_00\.pkl cannot be read as a sequence of 3DPW: .*{reason}.*; unpack"):
        open_3dpw(tmp_path)


def test_missing_entries_are_named(tmp_path, content):
    del content["cam_intrinsics"]
    write_sequence(tmp_path, "test/a_00", content)
    with pytest.raises(ValueError, match="it has no 'cam_intrinsics'"):
        open_3dpw(tmp_path)
    write_sequence(tmp_path, "test/a_00", [1, 2])
    with pytest.raises(ValueError, match="cannot be read as a sequence of 3DPW"):
        open_3dpw(tmp_path)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_nothing_in_a_pickle_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_sequence(tmp_path, "test/a_00", {})
    path.write_bytes(pickle.dumps({"cam_poses": Hostile()}, 2))
    with pytest.raises(ValueError, match="refused .*mkdir"):
        open_3dpw(tmp_path)
    path.write_bytes(b"\x80\x02}q")
    with pytest.raises(ValueError, match="damaged"):
        open_3dpw(tmp_path)
    assert not (tmp_path / "ran").exists()
