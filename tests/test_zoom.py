"""Tiles for small, far people: geometry, schedule, and the real graphs on a sample shrunk into a large frame."""

from __future__ import annotations

import shutil
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from lifting.detectors import blazepose, create_detector, mediapipe_pose
from lifting.detectors.blazepose_geometry import Candidates
from lifting.detectors.blazepose_search import LEAST_TILE, TILE_EVERY, Demand, TileSchedule, zoom_tiles

SAMPLE = Path(__file__).parent.parent / "data" / "sample.mp4"
missing = [name for name in ("ai_edge_litert", "mediapipe", "av", "PIL") if find_spec(name) is None]
needs_graphs = pytest.mark.skipif(bool(missing), reason=f"needs the extra video; missing: {', '.join(missing)}")


@pytest.mark.parametrize(
    ("size", "sides"),
    [((1920, 1080), {540}), ((1080, 1920), {540}), ((3840, 2160), {1080, 540}), ((7680, 4320), {2160, 1080}),
     ((640, 360), set()), ((1, 1), set())],
)  # fmt: skip
def test_tiles_are_halves_and_quarters_of_the_shorter_side(size, sides):
    tiles = zoom_tiles(*size)
    assert {tile.size for tile in tiles} == sides and all(side >= LEAST_TILE for side in sides)
    corners = np.array([tile.to_image(np.array([[0, 0], [1, 1]])) for tile in tiles]).reshape(-1, 2, 2)
    if tiles:
        np.testing.assert_allclose(corners.min((0, 1)), 0, atol=1e-9)
        np.testing.assert_allclose(corners.max((0, 1)), size)


@pytest.mark.parametrize("size", [(1920, 1080), (1768, 994), (2000, 700)])
def test_whoever_is_smaller_than_a_third_of_a_tile_lies_wholly_in_one(size):
    tiles = zoom_tiles(*size)
    extent = 0.33 * tiles[0].size
    corners = np.array([tile.to_image(np.array([[0, 0], [1, 1]])) for tile in tiles])
    for start in np.random.default_rng(0).uniform(0, np.array(size) - extent, (200, 2)):
        assert ((corners[:, 0] <= start) & (corners[:, 1] >= start + extent)).all(1).any()


def test_all_tiles_first_then_one_at_a_time_in_turn():
    schedule, tiles = TileSchedule(), zoom_tiles(1920, 1080)
    looks = [schedule.next_tiles(1920, 1080) for _ in range(1 + TILE_EVERY * len(tiles))]
    assert len(looks[0]) == len(tiles)
    assert [len(found) for found in looks[1:]] == ([0] * (TILE_EVERY - 1) + [1]) * len(tiles)
    centers = {tuple(found[0].center) for found in looks[1:] if found}
    assert centers == {tuple(tile.center) for tile in tiles}
    small = TileSchedule()
    assert [small.next_tiles(320, 240) for _ in range(20)] == [[]] * 20


def test_demands_of_a_tile_are_never_below_the_users():
    assert Demand.in_tile(0.5) == Demand(0.75, 0.9, 1.5) and Demand.in_tile(0.95) == Demand(0.95, 0.95, 1.5)


def test_candidates_kept():
    found = Candidates(np.array([0.9, 0.8]), np.arange(8.0).reshape(2, 4), np.arange(16.0).reshape(2, 4, 2))
    kept = found.kept(np.array([False, True]))
    assert len(kept) == 1 and kept.scores[0] == 0.8 and kept.boxes[0, 0] == 4 and kept.points[0, 0, 0] == 8


def far_frame(count=1):
    """Frames of 1080 x 1920 whose person is shrunk to about 110 pixels; and where the whole sample now lies."""
    av = pytest.importorskip("av")
    from PIL import Image

    if not SAMPLE.is_file():
        pytest.skip("data/sample.mp4 is not there")
    with av.open(str(SAMPLE)) as container:
        frames = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(count), container.decode(0), strict=False)]
    height, width = frames[0].shape[:2]
    scale, left, top = 110 / 279, 1250, 300
    small = [np.asarray(Image.fromarray(f).resize((round(width * scale), round(height * scale)))) for f in frames]
    far = []
    for picture in small:
        frame = np.full((1080, 1920, 3), picture.reshape(-1, 3).mean(0).astype(np.uint8), np.uint8)
        frame[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        far.append(frame)
    return frames, far, lambda xy: xy * scale + [left, top]


@needs_graphs
def test_a_far_person_is_found_in_a_tile_and_nobody_else():
    frames, far, place = far_frame()
    options = {"num_threads": 1}
    ((near,),) = create_detector("blazepose", **options).detect(frames)
    assert list(create_detector("blazepose", zoom=False, **options).detect(far)) == [[]]
    ((person,),) = create_detector("blazepose", **options).detect(far)
    assert np.median(np.hypot(*(person.xy - place(near.xy)).T)) < 0.05 * 110


@needs_graphs
def test_noise_and_stripes_hold_nobody():
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (720, 1280, 3), np.uint8)
    stripes = np.broadcast_to((np.arange(1280) // 24 % 2 * 200).astype(np.uint8)[None, :, None], noise.shape)
    frames = [(noise // 2 + stripes // 2).astype(np.uint8)]
    assert list(create_detector("blazepose", num_threads=1).detect(frames)) == [[]]


# --- .task files ------------------------------------------------------------------------------------------------------


def write_task(path, **members):
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(f"{name}.tflite", content)
    return path


@needs_graphs
def test_a_task_file_holds_the_same_graphs(tmp_path):
    files = blazepose.find_model_files()
    contents = [files[name].read_bytes() for name in (blazepose.DETECTOR_FILE, blazepose.LANDMARK_FILE)]
    members = dict(zip(("pose_detector", "pose_landmarks_detector"), contents, strict=True))
    path = write_task(tmp_path / "pose.task", **members)
    frames, _, _ = far_frame()
    ((expected,),) = create_detector("blazepose", num_threads=1).detect(frames)
    ((found,),) = create_detector("blazepose", num_threads=1, model_dir=path).detect(frames)
    assert found == expected
    path = write_task(tmp_path / "mixed.task", pose_detector=contents[1], pose_landmarks_detector=contents[1])
    with pytest.raises(ValueError, match="mixed.task holds a graph that takes .*expected one of BlazePose"):
        create_detector("blazepose", model_dir=path)


def test_wrong_task_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model file at"):
        blazepose.read_task(tmp_path / "nothing.task")
    with pytest.raises(ValueError, match="hands.task is no pose landmarker.*pose_detector.tflite"):
        blazepose.read_task(write_task(tmp_path / "hands.task", hand_detector=b""))
    (tmp_path / "garbage.task").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="garbage.task is no pose landmarker"):
        blazepose.read_task(tmp_path / "garbage.task")


def pretend_tasks(monkeypatch, landmarks, failure=None):
    """A stand-in of mediapipe's tasks that returns the given people; yields the options and frames it gets."""
    got = []

    class PoseLandmarker:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.close()

        def close(self):
            got.append("closed")

        def detect_for_video(self, image, milliseconds):
            got.append((image.data, milliseconds))
            return SimpleNamespace(pose_landmarks=landmarks)

        @classmethod
        def create_from_options(cls, options):
            if failure is not None:
                raise failure
            got.append(options)
            return cls()

    vision = SimpleNamespace(PoseLandmarker=PoseLandmarker, PoseLandmarkerOptions=lambda **options: options,
                             RunningMode=SimpleNamespace(VIDEO="VIDEO"))  # fmt: skip
    monkeypatch.setattr(mediapipe_pose, "_import_tasks", lambda: (vision, lambda **options: options))
    package = ModuleType("mediapipe")
    package.Image, package.ImageFormat = lambda image_format, data: SimpleNamespace(data=data), SimpleNamespace(SRGB=1)
    monkeypatch.setitem(sys.modules, "mediapipe", package)
    return got


def test_mediapipes_tasks_with_several_people(monkeypatch, tmp_path):
    marks = [[SimpleNamespace(x=x + 0.01 * k, y=0.5, z=0.0, visibility=0.8) for k in range(33)] for x in (0.1, 0.9)]
    got = pretend_tasks(monkeypatch, marks)
    path = write_task(tmp_path / "pose.task")
    detector = create_detector("mediapipe", model_dir=tmp_path, max_people=2)
    assert got[0]["base_options"] == {"model_asset_path": str(path)} and got[0]["num_poses"] == 2
    frame = np.zeros((100, 200, 3), np.uint8)
    found = list(detector.detect([frame, frame]))
    assert [len(people) for people in found] == [2, 2] and [entry[1] for entry in got if len(entry) == 2] == [0, 33]
    np.testing.assert_allclose(found[0][0].xy[:2], [[20, 50], [22, 50]], rtol=1e-6)
    np.testing.assert_allclose(found[0][1].score[[0, 10, 11]], [0.8, 0.8, 0.16], rtol=1e-5)  # x beyond the image


def test_wrong_files_for_mediapipes_tasks(monkeypatch, tmp_path):
    pretend_tasks(monkeypatch, [], RuntimeError("Unable to open zip archive.\nmore"))
    with pytest.raises(FileNotFoundError, match="expected .task"):
        create_detector("mediapipe", model_dir=tmp_path)
    shutil.copy(__file__, tmp_path / "pose.task")
    with pytest.raises(ValueError, match="pose.task is no pose landmarker that this mediapipe can use.*zip archive"):
        create_detector("mediapipe", model_dir=tmp_path)
