"""Cameras: projection and rays against OpenCV, poses, focal estimates and calibration files of other tools."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lifting.cameras import Camera, estimate_focal, read_camera

LENSES = [[0, 0, 0, 0, 0], [-0.21, 0.25, -0.0014, -0.00098, -0.008], [-0.35, 0.12, 0.001, 0.002, -0.01],
          [0.4, 0.2, 0.01, -0.01, 0.1], [0.05, -0.1, 0, 0, 0.02]]
MATRIX = [[1100.0, 0, 650], [0, 1080, 350], [0, 0, 1]]
OPENCV_YAML = """%YAML:1.0
---
calibration_time: "Mon 12 May 2025"
image_width: 1280
image_height: 720
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 1.1000000000000000e+03, 0., 650., 0., 1.08e+03,
       350., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -2.1e-01, .25, -1.4e-03, -9.8e-04, -8.0e-03 ]
avg_reprojection_error: 3.2e-01
"""
ROS_YAML = """image_width: 1280
image_height: 720
camera_name: head
camera_matrix:
  cols: 3
  data: [1100, 0, 650, 0, 1080, 350, 0, 0, 1]
  rows: 3
distortion_model: plumb_bob
distortion_coefficients:
  cols: 5
  data: [-0.21, 0.25, -0.0014, -0.00098, -0.008]
  rows: 1
"""
LIST_YAML = """camera_matrix:
- - 1100.0
  - 0.0
  - 650.0
- - 0.0
  - 1080.0
  - 350.0
- - 0.0
  - 0.0
  - 1.0
dist_coeff: [[-0.21, 0.25, -0.0014, -0.00098, -0.008]]
"""
TOML = """[cam_a]
name = "front"
size = [ 1280.0, 720.0]
matrix = [ [ 1100.0, 0.0, 650.0], [ 0.0, 1080.0, 350.0], [ 0.0, 0.0, 1.0]]
distortions = [ -0.21, 0.25, -0.0014, -0.00098]
rotation = [ 1.2, -0.3, 0.4]
translation = [ 0.5, 1.0, 4.0]
fisheye = false

[cam_b]
name = "side"
size = [ 640.0, 480.0]
matrix = [ [ 500.0, 0.0, 320.0], [ 0.0, 500.0, 240.0], [ 0.0, 0.0, 1.0]]
distortions = [ 0.0, 0.0, 0.0, 0.0]
fisheye = true

[metadata]
adjusted = false
error = 0.0
"""


def camera_with(distortion, **options) -> Camera:
    return Camera([1100, 1080], [650, 350], (1280, 720), distortion=distortion, **options)


def moving_camera(frames: int = 4) -> Camera:
    rotation = Rotation.random(frames, random_state=1).as_matrix()
    return camera_with(LENSES[0], rotation=rotation, translation=np.random.default_rng(2).normal(size=(frames, 3)))


def pixel_grid() -> np.ndarray:
    return np.stack(np.meshgrid(np.linspace(0, 1280, 33), np.linspace(0, 720, 19), indexing="ij"), axis=-1)


def write(folder, name: str, text: str):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("lens", LENSES)
def test_projection_equals_opencv(lens):
    cv2 = pytest.importorskip("cv2")
    points = np.random.default_rng(0).uniform([-2, -1, 3], [2, 1, 8], (200, 3))
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.array(MATRIX), np.array(lens, float))[0][:, 0]
    np.testing.assert_allclose(camera_with(lens).project(points), expected, atol=1e-8)


@pytest.mark.parametrize("lens", LENSES)
def test_rays_equal_opencv(lens):
    cv2 = pytest.importorskip("cv2")
    pixels = pixel_grid().reshape(-1, 1, 2)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 500, 1e-14)
    expected = cv2.undistortPointsIter(pixels, np.array(MATRIX), np.array(lens, float), None, None, criteria)
    np.testing.assert_allclose(camera_with(lens).rays(pixels), expected, atol=1e-7)


@pytest.mark.parametrize("lens", LENSES)
def test_rays_project_back_to_their_pixels(lens):
    camera, pixels = camera_with(lens), pixel_grid()
    rays = camera.rays(pixels)
    points = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1) * 3.7
    np.testing.assert_allclose(camera.project(points), pixels, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=100)
@given(st.tuples(st.floats(-0.4, 0.4), st.floats(-0.2, 0.3), st.floats(-0.02, 0.02), st.floats(-0.02, 0.02),
                 st.floats(-0.1, 0.1)), st.floats(0, 0.55), st.floats(-math.pi, math.pi))
def test_rays_undo_projection_wherever_the_lens_is_one_to_one(lens, radius, angle):
    camera = camera_with(lens)
    steps = radius * np.linspace(0, 1, 50)
    k1, k2, p1, p2, k3 = lens
    slope = 1 + 3 * k1 * steps**2 + 5 * k2 * steps**4 + 7 * k3 * steps**6
    if slope.min() < 0.25 + 6 * radius * (abs(p1) + abs(p2)):
        return  # near or beyond the fold, where the answer is not unique
    ray = radius * np.array([math.cos(angle), math.sin(angle)])
    np.testing.assert_allclose(camera.rays(camera.project([*ray, 1.0])), ray, rtol=0, atol=1e-9)


def test_a_pixel_that_no_ray_reaches_is_nan():
    camera = camera_with([-0.35, 0, 0, 0, 0])
    fold = 1 / math.sqrt(3 * 0.35)
    largest = fold * (1 - 0.35 * fold**2)
    bent = np.array([[largest * 0.999, 0], [largest * 1.001, 0], [0, -1e9], [1e200, 0]])
    rays = camera.rays(camera.center + camera.focal * bent)
    assert 0.9 * fold < rays[0, 0] < fold
    assert np.isnan(rays[1:]).all()


def test_nan_passes_through_and_leaves_its_neighbours():
    camera = camera_with(LENSES[1])
    pixels = pixel_grid()[:2, :2].copy()
    expected = camera.rays(pixels)
    pixels[1, 0] = np.nan
    rays = camera.rays(pixels)
    assert np.isnan(rays[1, 0]).all()
    np.testing.assert_array_equal(rays[0], expected[0])
    assert np.isnan(camera.project([np.nan, 0, 1])).all()


def test_points_that_are_not_in_front_have_no_pixel():
    pixels = camera_with(LENSES[0]).project([[0, 0, 1], [0, 0, 0], [0.1, 0.1, -2], [5, 0, 1]])
    assert np.isnan(pixels[1:3]).all()
    np.testing.assert_array_equal(pixels[[0, 3]], [[650, 350], [650 + 5 * 1100, 350]])  # no clamp at 45 degrees


def test_long_inputs_are_undistorted_in_blocks_without_a_difference():
    camera = camera_with(LENSES[1])
    pixels = np.random.default_rng(3).uniform(0, 700, (70_001, 2))
    some = np.array([0, 65_535, 65_536, 70_000])
    np.testing.assert_allclose(camera.rays(pixels)[some], camera.rays(pixels[some]), atol=1e-12)
    assert camera.rays(np.zeros((0, 17, 2))).shape == (0, 17, 2)


def test_world_and_camera_frames_of_a_still_camera():
    rotation = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    camera = camera_with(LENSES[0], rotation=rotation, translation=[0, 0, 5])
    np.testing.assert_allclose(camera.to_camera([1, 2, 3]), [1, -3, 7], atol=1e-12)
    points = np.random.default_rng(4).normal(size=(3, 17, 3))
    np.testing.assert_allclose(camera.to_world(camera.to_camera(points)), points, atol=1e-12)


def test_world_and_camera_frames_of_a_moving_camera():
    camera = moving_camera()
    points = np.random.default_rng(5).normal(size=(4, 17, 3))
    slow = [[camera.rotation[t] @ p + camera.translation[t] for p in points[t]] for t in range(4)]
    np.testing.assert_allclose(camera.to_camera(points), slow, atol=1e-12)
    np.testing.assert_allclose(camera.to_camera(points[:, 0]), np.array(slow)[:, 0], atol=1e-12)
    np.testing.assert_allclose(camera.to_world(camera.to_camera(points)), points, atol=1e-12)
    with pytest.raises(ValueError, match="4 frames"):
        camera.to_camera(points[:3])


def test_field_of_view_and_matrix():
    camera = Camera.from_fov(60, (1920, 1080))
    assert camera.fov == pytest.approx(60)
    assert camera.focal == pytest.approx([960 / math.tan(math.radians(30))] * 2)
    np.testing.assert_array_equal(camera_with(LENSES[0]).matrix, MATRIX)
    edge = camera.project([math.tan(math.radians(30)), 0, 1])
    assert edge == pytest.approx([1920, 540])


def test_resizing_moves_pixels_with_the_picture():
    camera = camera_with(LENSES[1])
    point = [0.3, -0.2, 1.5]
    np.testing.assert_allclose(camera.scaled(0.5).project(point), camera.project(point) / 2)
    np.testing.assert_allclose(camera.resized((1920, 1080)).project(point), camera.project(point) * 1.5)
    assert camera.scaled(0.5).image_size == (640, 360)
    for size in [(720, 1280), (1280, 960)]:
        with pytest.raises(ValueError, match="same aspect ratio"):
            camera.resized(size)


def test_dict_round_trip_through_json():
    for camera in (camera_with(LENSES[1]), moving_camera()):
        back = Camera.from_dict(json.loads(json.dumps(camera.to_dict())))
        assert back.image_size == camera.image_size
        for name in ("focal", "center", "distortion", "rotation", "translation"):
            assert np.array_equal(getattr(back, name), getattr(camera, name))


@pytest.mark.parametrize(("change", "sentence"), [
    ({"focal": [0, 1000]}, "positive pixels"), ({"focal": [1, 2, 3]}, r"focal has shape \(3,\)"),
    ({"center": [np.nan, 0]}, "center holds NaN"), ({"image_size": (0, 720)}, "image_size must be"),
    ({"image_size": (1280.5, 720)}, "image_size must be"), ({"image_size": 5}, "image_size must be"),
    ({"image_size": (1280, 720, 3)}, "image_size must be"), ({"distortion": [0.1, 0.2]}, "distortion has shape"),
    ({"rotation": 2 * np.eye(3)}, "not a rotation"), ({"rotation": np.diag([1, 1, -1])}, "not a rotation"),
    ({"translation": [[1, 2]]}, "translation has shape"), ({"focal": "wide"}, "focal is 'wide'"),
    ({"rotation": np.stack([np.eye(3)] * 3), "translation": np.zeros((2, 3))}, "3 rotations and 2 translations")])
def test_impossible_cameras_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Camera(**{"focal": [1000, 1000], "center": [640, 360], "image_size": (1280, 720), **change})


def test_wrong_arguments_are_refused():
    camera = camera_with(LENSES[0])
    for call in (lambda: camera.project([1, 2]), lambda: camera.rays([[1, 2, 3]]),
                 lambda: camera.to_camera(np.zeros(2)), lambda: camera.scaled(0),
                 lambda: Camera.from_fov(180, (10, 10)), lambda: Camera.from_dict({}),
                 lambda: Camera.from_dict({"focal": 1, "image_size": [1, 1], "fov": 3})):
        with pytest.raises(ValueError, match="expected"):
            call()


@pytest.mark.parametrize(("metadata", "focal", "words"), [
    (None, 2202.9, "assumed"), ({}, 2202.9, "assumed"), ({"make": "x", "focal_35mm": 0}, 2202.9, "assumed"),
    ({"focal_px": 1500.0}, 1500, "metadata"), ({"focal_35mm": 26}, 26 * 2202.9 / 43.267, "35 mm equivalent"),
    ({"com.apple.quicktime.camera.focal_length.35mm_equivalent": "26"}, 26 * 2202.9 / 43.267, "35 mm equivalent"),
    ({"focal_mm": 4.2, "sensor_width_mm": 5.6}, 1440, "sensor"), ({"focal_mm": 4.2}, 2202.9, "assumed")])
def test_focal_length_from_metadata_or_the_diagonal(metadata, focal, words):
    value, sentence = estimate_focal((1920, 1080), metadata)
    assert value == pytest.approx(focal, rel=1e-4)
    assert words in sentence and f"{value:.0f} px" in sentence and sentence.endswith(".")
    assert ("assumed" in sentence) == (words == "assumed")


@pytest.mark.parametrize(("name", "text"), [("a.yaml", OPENCV_YAML), ("a.yml", ROS_YAML), ("a.yaml", LIST_YAML)])
def test_yaml_calibrations(tmp_path, name, text):
    camera = read_camera(write(tmp_path, name, text), image_size=(640, 360))
    np.testing.assert_allclose(camera.matrix, np.array(MATRIX) * [[0.5], [0.5], [1]] if text != LIST_YAML else MATRIX)
    np.testing.assert_allclose(camera.distortion, LENSES[1])
    assert camera.image_size == (640, 360)


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_what_opencv_itself_writes(tmp_path, name):
    cv2 = pytest.importorskip("cv2")
    storage = cv2.FileStorage(str(tmp_path / name), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 1280)
    storage.write("image_height", 720)
    storage.write("camera_matrix", np.array(MATRIX) + 1 / 3 * np.array([[1, 0, 1], [0, 1, 1], [0, 0, 0]]))
    storage.write("distortion_coefficients", np.array([LENSES[1]]))
    storage.release()
    camera = read_camera(tmp_path / name)
    np.testing.assert_allclose(camera.focal, [1100 + 1 / 3, 1080 + 1 / 3], rtol=1e-15)
    np.testing.assert_array_equal(camera.distortion, LENSES[1])
    assert camera.image_size == (1280, 720)


def test_our_json_and_plain_opencv_json(tmp_path):
    ours = write(tmp_path, "ours.json", json.dumps({"focal": 1000, "image_size": [1280, 720]}))
    np.testing.assert_array_equal(read_camera(ours).matrix, [[1000, 0, 640], [0, 1000, 360], [0, 0, 1]])
    assert read_camera(str(ours), image_size=(1920, 1080)).focal == pytest.approx([1500, 1500])
    theirs = write(tmp_path, "theirs.json", json.dumps({"camera_matrix": MATRIX, "dist_coeffs": [LENSES[1][:4]],
                                                        "image_size": [1280, 720]}))
    np.testing.assert_array_equal(read_camera(theirs).distortion, [*LENSES[1][:4], 0])


def test_pose2sim_calibration_with_its_pose(tmp_path):
    pytest.importorskip("tomllib")
    path = write(tmp_path, "Calib.toml", TOML)
    for camera in (read_camera(path), read_camera(path, name="cam_a"), read_camera(path, name="front")):
        np.testing.assert_array_equal(camera.matrix, MATRIX)
        np.testing.assert_allclose(camera.rotation, Rotation.from_rotvec([1.2, -0.3, 0.4]).as_matrix(), atol=1e-14)
        np.testing.assert_array_equal(camera.translation, [0.5, 1, 4])
    with pytest.raises(ValueError, match="fisheye"):
        read_camera(path, name="cam_b")
    with pytest.raises(ValueError, match="no camera 'back', expected one of cam_a, cam_b"):
        read_camera(path, name="back")


@pytest.mark.parametrize(("name", "text", "sentence"), [
    ("a.json", "{", "cannot be used as a camera"), ("a.json", "[1, 2]", "no JSON object"),
    ("a.json", "{}", "neither focal nor camera_matrix"), ("a.json", '{"focal": 900}', "no image size"),
    ("a.json", '{"focal": [900], "image_size": [10, 10]}', "focal has shape"),
    ("a.json", '{"focal": NaN, "image_size": [10, 10]}', "NaN"), ("a.json", "[" * 100_000, "cannot be used"),
    ("a.json", '{"camera_matrix": {"data": ["x"]}, "image_size": [9, 9]}', "expected numbers"),
    ("a.json", '{"camera_matrix": [[1, 2], [3, 4]], "image_size": [9, 9]}', "4 numbers, expected 9"),
    ("a.json", '{"camera_matrix": [[9, 1, 3], [0, 9, 3], [0, 0, 1]], "image_size": [9, 9]}', "skewed"),
    ("a.json", '{"K": [9, 0, 3, 0, 9, 3, 0, 0, 1], "D": [1, 2, 3], "image_size": [9, 9]}', "3 numbers"),
    ("a.json", '{"K": [9, 0, 3, 0, 9, 3, 0, 0, 1], "D": [1, 2, 3, 4, 5, 6, 7, 8], "image_size": [9, 9]}', "beyond"),
    ("a.yaml", "camera_matrix: none\nimage_width: 3\nimage_height: 3\n", "expected numbers"), ("a.yaml", "", "neither"),
    ("a.yaml", LIST_YAML, "no image size"), ("a.toml", "x = 1", "no table with a matrix"), ("a.toml", "=", "cannot be"),
    ("a.toml", "[a]\nmatrix = [1]\nsize = [9, 9]", "1 numbers"), ("a.xml", "<x/>", "suffix '.xml'")])
def test_files_that_are_no_calibration_are_refused_in_a_sentence(tmp_path, name, text, sentence):
    if name.endswith("toml"):
        pytest.importorskip("tomllib")
    path = write(tmp_path, name, text)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_camera(path)
    assert str(path) in str(caught.value)


def test_missing_binary_and_turned_calibrations_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a file"):
        read_camera(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(FileNotFoundError, match="not a file"):
        read_camera(tmp_path / "folder.json")
    (tmp_path / "video.json").write_bytes(b"\x00\x00\xff\xfe")
    with pytest.raises(ValueError, match="not text"):
        read_camera(tmp_path / "video.json")
    with pytest.raises(ValueError, match=r"a\.yaml cannot be used as a camera: The camera was calibrated at 1280x720"):
        read_camera(write(tmp_path, "a.yaml", OPENCV_YAML), image_size=(720, 1280))
