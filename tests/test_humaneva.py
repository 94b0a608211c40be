"""HumanEva-I with the cameras of its own calibrations."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gated_layouts import HUMANEVA_CAMERAS, scattered, write_cal, write_humaneva
from published_layouts import pixels, write_data_2d

from lifting.datasets.humaneva import open_humaneva, read_calibration


def open_gt(folder):
    return open_humaneva(folder, "humaneva15", "gt")


@pytest.mark.parametrize("order", ["C", "F"])
def test_joints_are_brought_into_the_frames_of_the_calibrated_cameras(tmp_path, order):
    clips = open_gt(write_humaneva(tmp_path, order))
    assert [info.name for info in clips.infos[2:4]] == ["Train/S1/Walking 1 chunk0/C3", "Unlabeled/S2/Jog 2 chunk1/C1"]
    assert [info.labelled for info in clips.infos] == [True] * 3 + [False] * 3
    assert {info.fps for info in clips.infos} == {60} and clips.name == "humaneva15 gt"
    for clip, camera in zip(clips, HUMANEVA_CAMERAS.values(), strict=False):
        expected = scattered(30, 15) @ camera.rotation.T + camera.translation
        np.testing.assert_allclose(clip.motion.absolute, expected, atol=2e-6)
        np.testing.assert_allclose(clip.camera.project(clip.motion.absolute), clip.keypoints.xy, atol=2)
        assert clip.camera.distortion.tolist() == [-0.2, 0.1, 1e-3, -2e-3, 0]


def test_calibration_is_read_number_by_number(tmp_path):
    camera = HUMANEVA_CAMERAS["C2"]
    read = read_calibration(write_cal(tmp_path / "C2.cal", camera))
    assert read.image_size == (640, 480)
    for name in ("focal", "center", "distortion", "rotation", "translation"):
        np.testing.assert_allclose(getattr(read, name), getattr(camera, name), rtol=1e-12, atol=1e-12)


def test_keypoints_of_another_layout_choose_the_order_too(tmp_path):
    write_humaneva(tmp_path, "F")
    joints, cameras = scattered(30, 15), HUMANEVA_CAMERAS.values()
    seen = []
    for camera in cameras:  # COCO: 5.. shoulders, elbows, wrists, hips, knees, ankles, left before right
        values = np.zeros((33, 17, 3), np.float32)
        values[:30, 5:, :2] = camera.project(camera.to_camera(joints))[:, [2, 5, 3, 6, 4, 7, 8, 11, 9, 12, 10, 13]]
        values[:30, 5:, 2] = 0.9
        seen.append(values)
    write_data_2d(tmp_path / "data_2d_humaneva15_detectron_pt_coco.npz", {"Train/S1": {"Walking 1 chunk0": seen}},
                  layout_name="coco")  # fmt: skip
    clips = open_humaneva(tmp_path, "humaneva15", "detectron_pt_coco")
    np.testing.assert_allclose(clips.infos[0].camera.rotation, HUMANEVA_CAMERAS["C1"].rotation, atol=1e-12)
    assert clips.skeleton_in.name == "coco17" and clips.read(0).keypoints.seen[:, 5:].all()


def test_a_json_file_of_cameras_comes_first(tmp_path):
    write_humaneva(tmp_path)
    (tmp_path / "S1" / "Calibration_Data" / "C1.cal").unlink()
    views = {view: camera.to_dict() for view, camera in HUMANEVA_CAMERAS.items()}
    (tmp_path / "cameras_humaneva15.json").write_text(json.dumps({"S1": views}))
    assert open_gt(tmp_path).infos[1].camera == HUMANEVA_CAMERAS["C2"]


def test_keypoints_alone_need_no_calibration(tmp_path):
    write_data_2d(tmp_path / "data_2d_humaneva15_gt.npz", {"Unlabeled/S2": {"Jog 1": [pixels(4, 15)] * 3}},
                  layout_name="humaneva15")  # fmt: skip
    assert [(info.view, info.labelled, info.camera) for info in open_gt(tmp_path).infos] == [
        (view, False, None) for view in ("C1", "C2", "C3")
    ]


def test_a_missing_calibration_is_named(tmp_path):
    write_humaneva(tmp_path)
    (tmp_path / "S1" / "Calibration_Data" / "C3.cal").unlink()
    with pytest.raises(FileNotFoundError, match=r"no calibration .*S1/Calibration_Data/C3\.cal.*copy it from HumanEva"):
        open_gt(tmp_path)


@pytest.mark.parametrize("text, reason", [
    ("1 2 3", "3 numbers, expected 22"), ("no numbers", "could not convert"), ("1 " * 22, "its skew is 1"),
    ("1 1 1 1 0 " + "1 " * 17, "not a rotation matrix"), ("nan " * 4 + "0 " + "1 " * 17, "focal holds NaN"),
])  # fmt: skip
def test_other_content_is_refused(tmp_path, text, reason):
    path = tmp_path / "C1.cal"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"C1\.cal is not a calibration of HumanEva: .*{reason}"):
        read_calibration(path)


def test_calibrations_of_other_cameras_are_noticed(tmp_path):
    write_humaneva(tmp_path)
    cameras = [*HUMANEVA_CAMERAS.values()]
    for number, view in enumerate(HUMANEVA_CAMERAS):
        write_cal(tmp_path / "S1" / "Calibration_Data" / f"{view}.cal", cameras[number - 1])
    with pytest.raises(ValueError, match=r"put the joints \d+ px from the keypoints .* expected less than 19"):
        open_gt(tmp_path)
