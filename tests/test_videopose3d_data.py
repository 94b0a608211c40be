"""The data files of VideoPose3D."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from published_layouts import (
    CAMERA_IDS,
    H36M_SIDES,
    made_up_cameras,
    pixels,
    raw_motion,
    write_data_2d,
    write_data_3d,
    write_metadata_xml,
)

from lifting.cameras import Camera
from lifting.datasets.videopose3d import H36M16, open_videopose3d, read_detected
from lifting.skeletons import get_skeleton, joint_map

KEPT = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
MADE_UP = made_up_cameras()


def metres(frames: int, seed: int = 0) -> np.ndarray:
    return (raw_motion(frames, seed) / 1000).astype(np.float32)


POSITIONS = {"S1": {"Walking": metres(5), "Photo 1": metres(4)}, "S11": {"Directions": metres(3), "Posing": metres(6)}}
DETECTED = {
    "S1": {"Walking": [pixels(5 + n, seed=n) for n in range(4)], "Photo 1": [pixels(4)] * 4},
    "S11": {"Directions": [pixels(3)] * 4, "Posing": [pixels(9)] * 4},
    "S3": {"Eating": [pixels(2, seed=n) for n in range(4)]},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    write_data_3d(tmp_path / "data_3d_h36m.npz", POSITIONS)
    write_data_2d(tmp_path / "data_2d_h36m_cpn_ft_h36m_dbb.npz", DETECTED, layout_name="h36m",
                  keypoints_symmetry=H36M_SIDES)  # fmt: skip
    write_metadata_xml(tmp_path / "metadata.xml", MADE_UP)
    return tmp_path


def open_h36m(folder):
    return open_videopose3d(folder, "h36m", "cpn_ft_h36m_dbb")


# ---- Human3.6M


def test_views_have_names_rates_cameras_and_labels(folder):
    clips = open_h36m(folder)
    takes = ["S1/Walking", "S1/Photo 1", "S11/Posing", "S3/Eating"]  # S11/Directions is dropped
    assert [info.name for info in clips.infos] == [f"{take}/{camera}" for take in takes for camera in CAMERA_IDS]
    assert [info.frames for info in clips.infos[::4]] == [5, 4, 6, 2]  # frames beyond the end of the motion are dropped
    assert [info.labelled for info in clips.infos[::4]] == [True, True, True, False]
    assert all(info.fps == 50 and info.camera is not None for info in clips.infos)
    assert clips.skeleton_in.name == clips.skeleton_out.name == "h36m17"
    assert [info.image_size[1] for info in clips.infos[:4]] == [1002, 1000, 1000, 1002]
    assert clips.name == "h36m cpn_ft_h36m_dbb"


def test_keypoints_and_motion_are_those_of_the_files(folder):
    clips = open_h36m(folder)
    for row in range(4):
        clip = clips.read(row, 1, 4)
        np.testing.assert_array_equal(clip.keypoints.xy, pixels(5 + row, seed=row)[1:4])
        assert (clip.keypoints.score == 1).all()
        expected = MADE_UP.to_camera(row, 1, raw_motion(5)[1:4, KEPT])
        np.testing.assert_allclose(clip.motion.absolute, expected, atol=2e-6)
        np.testing.assert_array_equal(clips.read(8 + row).camera.rotation, clip.camera.rotation)
        assert (clips.read(8 + row).camera.translation != clip.camera.translation).all()  # S11's are shifted
    unlabelled = clips.read(14)
    assert unlabelled.motion is None
    np.testing.assert_array_equal(unlabelled.keypoints.xy, pixels(2, seed=2))


def test_the_17_joints_are_the_published_columns_of_the_32():
    chosen = joint_map("h36m32", "h36m17").apply(np.arange(32)[:, None])
    assert chosen[:, 0].tolist() == KEPT


def test_labels_without_cameras_say_what_is_missing(folder):
    (folder / "metadata.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"cameras of S1, S11, .*put metadata\.xml there; it comes with"):
        open_h36m(folder)


def test_keypoints_alone_need_no_cameras(folder):
    (folder / "metadata.xml").unlink()
    (folder / "data_3d_h36m.npz").unlink()
    clips = open_h36m(folder)
    assert clips.skeleton_out is None and not any(info.labelled or info.camera for info in clips.infos)
    assert [info.frames for info in clips.infos[:4]] == [5, 6, 7, 8]  # nothing to cut them by
    assert [info.image_size for info in clips.infos[:2]] == [(1000, 1002), (1000, 1000)]
    np.testing.assert_array_equal(clips.read(2).keypoints.xy, pixels(7, seed=2))


def test_cameras_may_come_from_json(folder):
    (folder / "metadata.xml").unlink()
    camera = Camera((1000, 1001), (500, 501), (1000, 1000), translation=(0, 0, 5))
    views = {name: replace(camera, translation=(0, 0, 5 + n)).to_dict() for n, name in enumerate("abcd")}
    (folder / "cameras_h36m.json").write_text(json.dumps({"S1": views, "S11": views}))
    clips = open_h36m(folder)
    assert [info.view for info in clips.infos[:4]] == ["a", "b", "c", "d"]
    np.testing.assert_allclose(clips.read(1).motion.absolute, metres(5)[:, KEPT] + np.float32([0, 0, 6]), atol=1e-6)
    (folder / "cameras_h36m.json").write_text("[]")
    with pytest.raises(ValueError, match="cameras_h36m.json does not hold"):
        open_h36m(folder)


# ---- layouts of the keypoints


@pytest.mark.parametrize("joints, metadata, expected", [
    (17, {"layout_name": "coco", "keypoints_symmetry": [[1, 3], [2, 4]]}, "coco17"),
    (16, {"layout_name": "mpii"}, "mpii16"),
    (17, {"keypoints_symmetry": H36M_SIDES}, "h36m17"),  # gt
    (17, {"keypoints_symmetry": [list(range(1, 17, 2)), list(range(2, 17, 2))]}, "coco17"),
    (16, {"keypoints_symmetry": [[4, 5, 6, 10, 11, 12], [1, 2, 3, 13, 14, 15]]}, "h36m16"),  # sh_ft_h36m
    (16, {"layout_name": "h36m", "keypoints_symmetry": [[4, 5, 6, 10, 11, 12], [1, 2, 3, 13, 14, 15]]}, "h36m16"),
    (16, {"keypoints_symmetry": [[3, 4, 5, 13, 14, 15], [0, 1, 2, 10, 11, 12]]}, "mpii16"),
])  # fmt: skip
def test_layouts_are_known_by_name_or_by_their_sides(tmp_path, joints, metadata, expected):
    path = write_data_2d(tmp_path / "data_2d_h36m_x.npz", {"S2": {"a": [pixels(2, joints)]}}, **metadata)
    assert read_detected(path).skeleton.name == expected


@pytest.mark.parametrize("joints, metadata", [
    (17, {"layout_name": "mine"}), (20, {"layout_name": "humaneva20", "keypoints_symmetry": [[3], [7]]}), (17, {}),
    (17, {"keypoints_symmetry": [[1, 2], [3, 4]]}), (17, {"keypoints_symmetry": 3}),
])  # fmt: skip
def test_unknown_layouts_are_refused(tmp_path, joints, metadata):
    path = write_data_2d(tmp_path / "data_2d_h36m_x.npz", {"S2": {"a": [pixels(2, joints)]}}, **metadata)
    with pytest.raises(ValueError, match=f"has {joints} keypoints in the layout .* not known; expected h36m17, coco17"):
        read_detected(path)


def test_hourglass_layout_is_that_of_17_joints_without_the_neck():
    full = get_skeleton("h36m17")
    assert [full.index(joint) for joint in H36M16.joints] == [*range(9), *range(10, 17)]
    assert {H36M16.joints[child]: H36M16.joints[parent] for parent, child in H36M16.bones} == {
        full.joints[child]: full.joints[parent].replace("neck_nose", "thorax") for parent, child in full.bones
        if full.joints[child] != "neck_nose"}  # fmt: skip
    assert not joint_map(H36M16, "lift17").weights[13:].any() and joint_map(H36M16, "lift17").weights[:13].any(1).all()


def test_third_numbers_are_scores(tmp_path):
    values = pixels(3, channels=3)
    values[0, 0, 2], values[1, 1, 2] = 0, 1.3
    write_data_2d(tmp_path / "data_2d_h36m_pt.npz", {"S2": {"a": [values]}}, layout_name="coco")
    keypoints = open_videopose3d(tmp_path, "h36m", "pt").read(0).keypoints
    assert np.isnan(keypoints.xy[0, 0]).all() and keypoints.score[0, 0] == 0 and keypoints.score[1, 1] == 1
    np.testing.assert_array_equal(keypoints.score[2], values[2, :, 2])


# ---- other data sets


def test_custom_videos_are_unlabelled_clips(tmp_path):
    videos = {"a.mp4": {"w": 1280, "h": 720}, "b.mp4": {"w": 640, "h": 480, "fps": 25}}
    takes = {"a.mp4": {"custom": [pixels(4)]}, "b.mp4": {"custom": [pixels(5)]}}
    write_data_2d(tmp_path / "data_2d_custom_mine.npz", takes, layout_name="coco", video_metadata=videos)
    clips = open_videopose3d(tmp_path, "custom", "mine")
    assert [(i.name, i.frames, i.image_size, i.fps, i.camera) for i in clips.infos] == [
        ("a.mp4/custom/0", 4, (1280, 720), 50, None), ("b.mp4/custom/0", 5, (640, 480), 25, None)]  # fmt: skip
    write_data_2d(tmp_path / "data_2d_custom_mine.npz", {"a.mp4": {"custom": [pixels(4)]}}, layout_name="coco")
    with pytest.raises(ValueError, match=r"does not say how large the images of a\.mp4 are"):
        open_videopose3d(tmp_path, "custom", "mine")


def test_humaneva_takes_the_cameras_of_the_subject(tmp_path):
    positions = np.random.default_rng(0).normal((0, 0, 1), 0.3, (6, 15, 3)).astype(np.float32)
    write_data_3d(tmp_path / "data_3d_humaneva15.npz", {"Train/S1": {"Jog 1 chunk0": positions}})
    write_data_2d(tmp_path / "data_2d_humaneva15_gt.npz", {"Train/S1": {"Jog 1 chunk0": [pixels(6, 15)] * 2}},
                  layout_name="humaneva15")  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"cameras of Train/S1, .*put cameras_humaneva15\.json there"):
        open_videopose3d(tmp_path, "humaneva15", "gt")
    camera = Camera(1000, (320, 240), (640, 480), translation=(0, 0, 4))
    views = {"C1": camera.to_dict(), "C2": camera.to_dict()}
    (tmp_path / "cameras_humaneva15.json").write_text(json.dumps({"S1": views}))
    clips = open_videopose3d(tmp_path, "humaneva15", "gt")
    assert [info.name for info in clips.infos] == ["Train/S1/Jog 1 chunk0/C1", "Train/S1/Jog 1 chunk0/C2"]
    assert clips.skeleton_out.name == clips.skeleton_in.name == "humaneva15" and clips.infos[0].fps == 60
    np.testing.assert_allclose(clips.read(1).motion.absolute, positions + np.float32([0, 0, 4]), atol=1e-6)


# ---- content that does not fit


@pytest.mark.parametrize("subject, keypoints, positions, message", [
    ("S1", pixels(5), POSITIONS, "lacks 2 takes that have 3D positions, such as S1/Photo 1"),
    ("S1", pixels(4), {"S1": {"Walking": metres(5)}}, "5 frames of joints but only 4 of keypoints"),
    ("S1", pixels(5)[..., :1], {}, r"has the shape \(5, 17, 1\), expected \(frames, joints, 2 or 3\)"),
    ("S1", pixels(5), {"S1": {"Walking": metres(5)[:, :20]}}, "20 joints, whose names are not known"),
    ("S1", pixels(5), {"S1": {"Walking": metres(5)[..., :2]}}, r"expected \(frames, joints, 3\)"),
    ("S1", pixels(5), {"S1": 3}, "does not hold positions_3d as"),
    ("S1", pixels(5), {"S1": {}}, "does not hold positions_3d as"),
    ("S12", pixels(5), {}, "no camera '54138969' of a subject 'S12'"),
])  # fmt: skip
def test_files_that_do_not_go_together_are_refused(tmp_path, subject, keypoints, positions, message):
    write_metadata_xml(tmp_path / "metadata.xml", MADE_UP)
    np.savez(tmp_path / "data_2d_h36m_x.npz", positions_2d={subject: {"Walking": [keypoints] * 4}},
             metadata={"layout_name": "h36m"})  # fmt: skip
    if positions:
        write_data_3d(tmp_path / "data_3d_h36m.npz", positions)
    with pytest.raises(ValueError, match=message):
        open_videopose3d(tmp_path, "h36m", "x")


@pytest.mark.parametrize("cameras", [[], 3, "text"])
def test_a_take_needs_a_list_of_cameras(tmp_path, cameras):
    np.savez(tmp_path / "data_2d_h36m_x.npz", positions_2d={"S1": {"Walking": cameras}}, metadata={})
    with pytest.raises(ValueError, match="no list of one array per camera"):
        open_videopose3d(tmp_path, "h36m", "x")


class Hostile:
    def __reduce__(self):
        return (open, ("/dev/null",))


def test_hostile_files_are_refused_and_missing_ones_named(tmp_path):
    np.savez(tmp_path / "data_2d_h36m_x.npz", positions_2d={"S1": {"Walking": Hostile()}}, metadata={})
    with pytest.raises(ValueError, match="refused"):
        open_videopose3d(tmp_path, "h36m", "x")
    with pytest.raises(FileNotFoundError, match="data_2d_h36m_y.npz"):
        open_videopose3d(tmp_path, "h36m", "y")


def test_clips_may_be_handed_to_other_processes(folder):
    clips = open_h36m(folder)
    assert pickle.loads(pickle.dumps(clips)).read(3, 1, 3) == clips.read(3, 1, 3)  # noqa: S301
