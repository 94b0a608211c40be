"""Motion capture filmed by four fixed cameras."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from walking_figure import H36M, walking_piece

from lifting.datasets.detector_noise import NoiseModel
from lifting.datasets.mocap import write_mocap
from lifting.datasets.mocap_rig import MocapRig, disturb, is_mocap_file, rig_cameras

QUIET = NoiseModel(bias=0, jitter=(0, 0), swap_share=0, dropout_share=0)


def pieces():
    walk = walking_piece("01_01", 90, feet=False)
    far = walking_piece("02_01", 60, feet=False)
    return [walk, replace(far, joints=far.joints + np.float32([30, -12, 0]), subject="14", split="val",
                          category="playground / climb", fps=25.0)]  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("mocap") / "mocap17.h5"
    write_mocap(path, pieces())
    return path


def test_cameras_stand_in_a_square_and_look_at_the_middle():
    cameras = rig_cameras()
    assert list(cameras) == ["45", "135", "225", "315"]
    centres = np.stack([-camera.rotation.T @ camera.translation for camera in cameras.values()])
    np.testing.assert_allclose(centres, [[x, y, 1.5] for x, y in np.sqrt(12.5) * np.array([[1, 1], [-1, 1], [-1, -1],
                                                                                          [1, -1]])])  # fmt: skip
    for camera in cameras.values():
        np.testing.assert_allclose(camera.project(camera.to_camera([0, 0, 0.9])), [500, 500], atol=1e-9)
        above = camera.project(camera.to_camera([0, 0, 1.9]))
        assert above[0] == pytest.approx(500) and above[1] < 400  # upright
        np.testing.assert_allclose(camera.project([np.tan(np.radians(25)), 0, 1]), [1000, 500])
        assert camera.image_size == (1000, 1000) and not camera.distortion.any()


def test_every_piece_is_seen_by_every_camera(path):
    rig = MocapRig(path)
    assert len(rig) == 8 and rig.left_out == 0 and rig.frames == 4 * 150
    assert [info.name for info in rig.infos[3:5]] == ["7/locomotion 01_01/315", "14/playground 02_01/45"]
    assert {info.fps for info in rig.infos} == {50, 25} and all(info.labelled for info in rig.infos)
    assert rig.skeleton_in == rig.skeleton_out == H36M
    assert len(rig.select(["S14"], ["playground"])) == 4
    assert [info.subject for info in MocapRig(path, split="val").infos] == ["14"] * 4


def test_motion_is_the_piece_moved_to_the_middle(path):
    rig = MocapRig(path)
    for index, info in enumerate(rig.infos):
        clip, piece = rig.read(index), pieces()[index // 4]
        world = clip.camera.to_world(clip.motion.absolute)
        shift = world - piece.joints
        np.testing.assert_allclose(shift, np.broadcast_to(shift[0, 0], shift.shape), atol=4e-4)  # int16 steps
        assert abs(shift[0, 0, 2]) < 4e-4
        np.testing.assert_allclose(world[:, 0, :2].min(axis=0) + world[:, 0, :2].max(axis=0), 0, atol=1e-5)
        assert clip.info == info


def test_keypoints_are_projections_of_the_motion(path):
    clip = MocapRig(path).read(5, 10, 30)
    focal = 500 / np.tan(np.radians(25))
    points = clip.motion.absolute
    np.testing.assert_allclose(clip.keypoints.xy, points[..., :2] / points[..., 2:] * focal + 500, atol=2e-3)
    assert len(clip) == 20 and clip == MocapRig(path).read(5).slice(10, 30)


def test_views_in_which_somebody_comes_too_near_are_left_out(tmp_path):
    walk = walking_piece("01_01", 100, feet=False)
    along = np.linspace(-5.8, 5.8, 100, dtype=np.float32)[:, None, None]
    straight = walk.joints * np.float32([1, 0, 1]) + along * np.float32([1, 0, 0])  # leaves no camera a metre
    diagonal = walk.joints * np.float32([1, 0, 1]) + along * np.float32([0.7, 0.7, 0])  # passes two on the side
    write_mocap(tmp_path / "near.h5", [replace(walk, joints=straight), replace(walk, name="01_02", joints=diagonal)])
    rig = MocapRig(tmp_path / "near.h5")
    expected = []
    for name, joints in (("01_01", straight), ("01_02", diagonal)):
        middle = np.append((joints[:, 0, :2].min(0) + joints[:, 0, :2].max(0)) / 2, 0)
        for view, camera in rig_cameras().items():
            depths = [camera.to_camera(point - middle)[2] for point in joints.reshape(-1, 3)]
            expected += [f"locomotion {name}/{view}"] if min(depths) >= 1 else []
    assert [f"{info.action}/{info.view}" for info in rig.infos] == expected
    assert 0 < rig.left_out == 8 - len(expected) < 8


def test_noise_is_the_same_at_every_reading_and_of_every_range(path):
    rig, again = MocapRig(path, "noisy"), pickle.loads(pickle.dumps(MocapRig(path, "noisy")))  # noqa: S301
    whole = [rig.read(index) for index in range(8)]
    for index in (6, 1, 6):
        assert again.read(index, 7, 40) == whole[index].slice(7, 40)
    exact = MocapRig(path)
    errors = [np.nan_to_num(clip.keypoints.xy - exact.read(index).keypoints.xy)[:60]
              for index, clip in enumerate(whole)]  # fmt: skip
    assert all(np.abs(a - b).mean() > 1 for n, a in enumerate(errors) for b in errors[:n])
    assert all(clip.motion == exact.read(index).motion for index, clip in enumerate(whole))


def test_noise_has_the_strength_of_the_model():
    xy, stature = np.zeros((4000, 17, 2)), np.full(4000, 300.0)
    rng = np.random.default_rng(0)
    jitter = disturb(xy, stature, replace(QUIET, jitter=(0.008, 0.008)), rng)
    assert jitter.std() == pytest.approx(2.4, rel=0.02)
    bias = disturb(xy, stature, replace(QUIET, bias=0.015), rng)
    assert not np.ptp(bias, axis=0).any() and bias[0].std() == pytest.approx(4.5, rel=0.4)
    missing = np.isnan(disturb(xy, stature, replace(QUIET, dropout_share=0.03), rng))
    assert missing.mean() == pytest.approx(0.03, rel=0.1) and (missing[..., 0] == missing[..., 1]).all()
    assert not disturb(xy, stature, QUIET, rng).any()


def test_swapped_frames_have_left_and_right_exchanged():
    xy = np.random.default_rng(1).random((3000, 17, 2))
    disturbed = disturb(xy, np.ones(3000), replace(QUIET, swap_share=0.1), np.random.default_rng(2))
    order = [H36M.joints.index(name.replace("left", "#").replace("right", "left").replace("#", "right"))
             for name in H36M.joints]  # fmt: skip
    same, swapped = (disturbed == xy).all((1, 2)), (disturbed == xy[:, order]).all((1, 2))
    assert (same ^ swapped).all() and swapped.mean() == pytest.approx(1 - np.exp(-0.1), abs=0.03)


def test_unknown_keypoints_and_other_files_are_refused(path, tmp_path):
    with pytest.raises(ValueError, match="no 2D keypoints 'cpn'; choose gt or noisy"):
        MocapRig(path, "cpn")
    with pytest.raises(FileNotFoundError, match="none.h5"):
        MocapRig(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    assert is_mocap_file(path) and not is_mocap_file(tmp_path / "text.h5")
