"""Human3.6M: cameras of its metadata.xml, its lens, and its archives."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from published_layouts import (
    CAMERA_IDS,
    H36M_SIDES,
    made_up_cameras,
    pixels,
    raw_motion,
    write_cdf,
    write_data_2d,
    write_metadata_xml,
)

from lifting.cameras import Camera
from lifting.datasets.h36m import open_h36m, read_cdf
from lifting.datasets.h36m_cameras import H36MCamera, H36MCameras

KEPT = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]  # of the 32 joints, as published
MADE_UP = made_up_cameras()


@pytest.fixture(scope="module")
def metadata(tmp_path_factory) -> Path:
    return write_metadata_xml(tmp_path_factory.mktemp("h36m") / "metadata.xml", MADE_UP)


def points_in_view(count: int = 200) -> np.ndarray:
    """(N, 3) metres, camera frame, that fill the image."""
    rng = np.random.default_rng(0)
    rays = np.append(rng.uniform(-0.43, 0.43, (count, 2)), np.ones((count, 1)), axis=1)
    return rays * rng.uniform(2, 8, (count, 1))


# ---- cameras


@pytest.mark.parametrize("subject, number", [("S1", 1), ("S9", 9), ("11", 11), ("s5", 5)])
def test_every_subject_has_the_cameras_of_its_block(metadata, subject, number):
    cameras = H36MCameras(metadata)
    points = raw_motion(2, seed=number)[0]
    for row, name in enumerate(CAMERA_IDS):
        camera = cameras.camera(subject, name)
        np.testing.assert_allclose(camera.rotation, MADE_UP.rotations[row], atol=1e-12)
        expected = MADE_UP.to_camera(row, number, points)
        np.testing.assert_allclose(points / 1000 @ camera.rotation.T + camera.translation, expected, atol=1e-9)
        np.testing.assert_allclose([*camera.focal, *camera.center, *camera.radial, *camera.tangential],
                                   MADE_UP.lenses[row])  # fmt: skip
        assert camera.image_size == (1000, 1002 if row in (0, 3) else 1000)


def test_the_lens_is_that_of_the_data_set(metadata):
    points = points_in_view()
    for row, name in enumerate(CAMERA_IDS):
        camera = H36MCameras(metadata).camera("S1", name)
        np.testing.assert_allclose(camera.project(points), MADE_UP.project(row, points), atol=1e-9)
        assert np.isnan(camera.project([[0, 0, -1.0], [0, 0, 0], [np.nan, 0, 1]])).all()


def test_opencv_comes_near_and_nearer_than_with_its_terms_taken_over(metadata):
    points = points_in_view(2000)
    for name in CAMERA_IDS:
        camera = H36MCameras(metadata).camera("S1", name)
        plain = Camera(camera.focal, camera.center, camera.image_size,
                       [*camera.radial[:2], *camera.tangential, camera.radial[2]])  # fmt: skip
        fitted = camera.as_opencv()
        errors = [np.linalg.norm(other.project(points) - camera.project(points), axis=1) for other in (fitted, plain)]
        assert np.sqrt((errors[0] ** 2).mean()) < 0.1 and errors[0].max() < 0.35
        assert np.sqrt((errors[0] ** 2).mean()) < 0.3 * np.sqrt((errors[1] ** 2).mean())
        np.testing.assert_array_equal(fitted.rotation, camera.rotation)
        np.testing.assert_array_equal(fitted.distortion[[0, 1, 4]], camera.radial)
        assert np.abs(fitted.center - camera.center).max() < 0.2


def test_without_tangential_terms_opencv_is_exact():
    camera = H36MCamera(np.array([1100.0, 1120]), np.array([510.0, 490]), np.array([-0.2, 0.2, 0.01]), np.zeros(2),
                        (1000, 1000), np.eye(3), np.zeros(3))  # fmt: skip
    points = points_in_view()
    np.testing.assert_allclose(camera.as_opencv().project(points), camera.project(points), atol=1e-9)


@pytest.mark.parametrize("change", [
    lambda text: text.replace("[", "").replace("]", ""),
    lambda text: text.replace("<w0>[", "<w0>\n [ ").replace("]</w0>", "\n]\n</w0>"),
    lambda text: text.replace(" ", ", ").replace('xml,', "xml").replace('"1.0",', '"1.0"'),
    lambda text: text.replace("<item>54138969", "<item>x"),  # another table of ids: the usual ones are taken
])  # fmt: skip
def test_the_numbers_may_be_laid_out_freely(metadata, tmp_path, change):
    path = tmp_path / "metadata.xml"
    path.write_text(change(metadata.read_text()))
    expected, found = (H36MCameras(p).camera("S6", "60457274") for p in (metadata, path))
    np.testing.assert_array_equal(found.translation, expected.translation)
    assert H36MCameras(path).ids == CAMERA_IDS


def test_ids_in_another_order_belong_to_other_numbers(metadata, tmp_path):
    path = tmp_path / "metadata.xml"
    path.write_text(metadata.read_text().replace(CAMERA_IDS[0], "x").replace(CAMERA_IDS[3], CAMERA_IDS[0])
                    .replace("<item>x", f"<item>{CAMERA_IDS[3]}"))  # fmt: skip
    np.testing.assert_allclose(H36MCameras(path).camera("S1", "54138969").focal, MADE_UP.lenses[3, :2], rtol=1e-14)


@pytest.mark.parametrize("content, message", [
    ("<metadata><w0>[1 2 3]</w0></metadata>", "does not hold 300 numbers"),
    ("<metadata/>", "does not hold 300 numbers"),
    (f"<metadata><w0>[{'1 ' * 299}x]</w0></metadata>", "does not hold 300 numbers"),
    (f"<metadata><w0>[{'1 ' * 299}nan]</w0></metadata>", "does not hold 300 numbers"),
    ("<metadata>", "cannot be read as XML"),
])  # fmt: skip
def test_other_content_is_refused(tmp_path, content, message):
    path = tmp_path / "metadata.xml"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{message}.*copy it again"):
        H36MCameras(path)


@pytest.mark.parametrize("subject, name", [("S12", "54138969"), ("S0", "54138969"), ("x", "54138969"), ("S1", "1")])
def test_unknown_cameras_are_refused(metadata, subject, name):
    with pytest.raises(ValueError, match="it has the cameras 54138969, .* of S1 to S11"):
        H36MCameras(metadata).camera(subject, name)


def test_missing_metadata_say_where_they_come_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="no metadata.xml in .* comes with the Human3.6M archive"):
        H36MCameras(tmp_path / "metadata.xml")


# ---- archives


TAKES = {("S1", "Walking 1"): 5, ("S1", "TakingPhoto"): 4, ("S11", "Directions"): 3, ("S11", "Directions 1"): 6,
         ("S11", "WalkingDog 1"): 4, ("S1", "Directions"): 3}  # fmt: skip


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Path:
    pytest.importorskip("cdflib")
    folder = tmp_path_factory.mktemp("archives")
    write_metadata_xml(folder / "metadata.xml", MADE_UP)
    for (subject, action), frames in TAKES.items():
        write_cdf(folder / subject / "MyPoseFeatures" / "D3_Positions" / f"{action}.cdf", raw_motion(frames))
    return folder


def test_archives_become_clips_with_the_names_of_the_field(archives):
    clips = open_h36m(archives)
    takes = ["S1/Directions", "S1/Photo", "S1/Walking 1", "S11/Directions 1", "S11/WalkDog 1"]  # S11/Directions dropped
    assert [info.name for info in clips.infos] == [f"{take}/{camera}" for take in takes for camera in CAMERA_IDS]
    assert [info.frames for info in clips.infos][::4] == [3, 4, 5, 6, 4] and clips.name == "h36m gt"
    assert all(info.labelled and info.fps == 50 for info in clips.infos)


def test_motion_and_projections_of_the_archives(archives):
    clips = open_h36m(archives)
    for row in range(4):
        clip = clips.read(12 + row, 1, 5)
        expected = MADE_UP.to_camera(row, 11, raw_motion(6)[1:5, KEPT])
        np.testing.assert_allclose(clip.motion.absolute, expected, atol=1e-6)
        xy = MADE_UP.project(row, expected.reshape(-1, 3)).reshape(4, 17, 2)
        np.testing.assert_allclose(clip.keypoints.xy, xy, atol=1e-3)
        assert np.abs(clip.camera.project(clip.motion.absolute) - xy).max() < 0.2


def test_archives_take_detected_keypoints(archives, tmp_path):
    photo = [pixels(7, seed=n) for n in range(4)]
    detected = {
        "S1": {"Photo": photo, "Walking 1": [pixels(5)] * 4, "Directions": [pixels(3)] * 4},
        "S11": {"Directions 1": [pixels(6)] * 4, "WalkDog 1": [pixels(9)] * 4},
        "S2": {"Eating": [pixels(2)] * 4},
    }
    write_data_2d(archives / "data_2d_h36m_mine.npz", detected, layout_name="h36m", keypoints_symmetry=H36M_SIDES)
    clips = open_h36m(archives, "mine")
    part = clips.select(["S1"], ["Photo"])
    np.testing.assert_array_equal(part.read(2).keypoints.xy, pixels(7, seed=2)[:4])  # the video is longer
    assert not clips.select(["S2"]).infos[0].labelled and clips.select(["S2"]).infos[0].camera is not None
    assert len(clips) == 4 * 6


def test_damaged_archives_are_refused(archives, tmp_path):
    bad = tmp_path / "bad.cdf"
    bad.write_bytes(b"no CDF at all" * 100)
    with pytest.raises(ValueError, match=r"bad\.cdf cannot be read as a CDF file"):
        read_cdf(bad)
    short = write_cdf(tmp_path / "short.cdf", np.full((2, 96), np.nan))
    with pytest.raises(ValueError, match="expected finite numbers"):
        read_cdf(short)


def test_without_archives_or_cdflib_the_way_out_is_said(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"has no files S\*/MyPoseFeatures.*registration needed"):
        open_h36m(tmp_path)
    path = tmp_path / "S1" / "MyPoseFeatures" / "D3_Positions" / "Walking.cdf"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setitem(sys.modules, "cdflib", None)
    with pytest.raises(ImportError, match="pip install cdflib"):
        open_h36m(tmp_path)
