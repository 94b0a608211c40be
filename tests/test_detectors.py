"""Detectors: geometry against closed forms and slow loops, the registry, and the real graphs on the sample clip."""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lifting.detectors as detectors
from lifting import doctor
from lifting.detectors import blazepose, blazepose_search
from lifting.detectors import blazepose_geometry as geometry
from lifting.detectors.blazepose_geometry import Candidates, Region

SAMPLE = Path(__file__).parent.parent / "data" / "sample.mp4"
missing = [name for name in ("ai_edge_litert", "mediapipe", "av", "PIL") if find_spec(name) is None]
needs_graphs = pytest.mark.skipif(bool(missing), reason=f"needs the extra video; missing: {', '.join(missing)}")
needs_pillow = pytest.mark.skipif(find_spec("PIL") is None, reason="needs Pillow")
HINT = r'pip install "\.\[video\]" in a clone of lift'
angles = st.floats(-3.1, 3.1)
pixels = st.floats(-500, 2000)


def read_sample(count):
    if not SAMPLE.is_file():
        pytest.skip("data/sample.mp4 is not there")
    av = pytest.importorskip("av")
    with av.open(str(SAMPLE)) as container:
        frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return [frame for _, frame in zip(range(count), frames, strict=False)]


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_anchors_are_the_cell_centers_of_28_14_and_7_cells():
    expected = []
    for cells, copies in ((28, 2), (14, 2), (7, 6)):
        for row in range(cells):
            for column in range(cells):
                expected += [((column + 0.5) / cells, (row + 0.5) / cells)] * copies
    assert len(expected) == 2254
    np.testing.assert_allclose(geometry.anchor_centers(), expected, rtol=1e-6)


def test_decoding_adds_anchors_and_sorts_by_score():
    anchors = np.array([[0.25, 0.5], [0.5, 0.5], [0.75, 0.25]])
    values = np.zeros((3, 12))
    values[0] = [22.4, 0, 44.8, 89.6, 0, 0, 0, -112, 0, 0, 0, 0]
    found = geometry.decode_candidates(values, np.array([[1.0], [-5.0], [2.0]]), anchors, 0.5)
    np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))])
    np.testing.assert_allclose(found.boxes[1], [0.35 - 0.1, 0.5 - 0.2, 0.35 + 0.1, 0.5 + 0.2])
    np.testing.assert_allclose(found.points[1], [[0.25, 0.5], [0.25, 0.0], [0.25, 0.5], [0.25, 0.5]])


def test_sigmoid_does_not_overflow():
    assert geometry.sigmoid(np.array([-1e4, 0.0, 1e4])) == pytest.approx([0, 0.5, 1])


def test_box_overlap_in_closed_form():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6], [0, 0, 1, 2], [2, 0, 4, 2]], float)
    assert geometry.box_overlap(boxes[0], boxes) == pytest.approx([1, 1 / 7, 0, 0.5, 0])


def test_overlapping_candidates_become_their_weighted_mean():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [51, 50, 61, 60]], float)
    points = np.repeat(boxes[:, None, :2], 4, axis=1)
    merged = geometry.merge_overlapping(Candidates(np.array([0.9, 0.6, 0.8, 0.8]), boxes, points))
    assert merged.scores.tolist() == [0.9, 0.8]
    assert merged.boxes[:, 0] == pytest.approx([0.4, 50.5])
    assert merged.points[:, 2, 0] == pytest.approx([0.4, 50.5])


def test_merging_nothing_and_degenerate_boxes():
    nobody = Candidates(np.zeros(0), np.zeros((0, 4)), np.zeros((0, 4, 2)))
    assert len(geometry.merge_overlapping(nobody)) == 0
    flat = Candidates(np.array([0.9, 0.8]), np.ones((2, 4)), np.ones((2, 4, 2)))
    assert len(geometry.merge_overlapping(flat)) == 2


@settings(max_examples=50, deadline=None)
@given(pixels, pixels, st.floats(20, 3000), angles)
def test_region_puts_the_scale_point_straight_above_its_center(x, y, radius, angle):
    hips = np.array([x, y])
    region = Region.from_points(hips, hips + radius * np.array([np.sin(angle), -np.cos(angle)]))
    assert region.size == pytest.approx(2.5 * radius)
    assert np.cos(region.angle - angle) == pytest.approx(1)
    np.testing.assert_allclose(region.to_region(hips), [0.5, 0.5], atol=1e-9)
    top = region.to_image(np.array([0.5, 0.1]))  # 1 / 2.5 of the side above the centre
    np.testing.assert_allclose(top, hips + radius * np.array([np.sin(angle), -np.cos(angle)]), atol=1e-6 * radius)
    np.testing.assert_allclose(region.to_region(region.to_image(np.eye(2))), np.eye(2), atol=1e-9)


def test_steadied_region_damps_trembling_and_follows_jumps():
    before = Region(np.array([500.0, 500.0]), 400.0, 3.1)
    small = Region(np.array([501.0, 500.0]), 402.0, 3.1).steadied(before)
    assert 500.1 < small.center[0] < 500.4 and 400.3 < small.size < 400.8
    jump = Region(np.array([600.0, 500.0]), 500.0, -3.1)
    followed = jump.steadied(before)
    np.testing.assert_allclose(followed.center, jump.center)
    assert followed.size == pytest.approx(500) and np.cos(followed.angle - jump.angle) == pytest.approx(1)


@needs_pillow
@pytest.mark.parametrize(("size", "angle"), [(60.0, 0.0), (100.0, 0.4), (400.0, -2.0), (900.0, 1.0)])
def test_crop_samples_where_the_region_says(size, angle):
    rows, columns = np.mgrid[0:600, 0:500] + 0.5
    frame = np.stack([columns * 0.25, rows * 0.25, np.full_like(rows, 90)], axis=-1).round().astype(np.uint8)
    region = Region(np.array([230.0, 310.0]), size, angle)
    # PIL rounds down; the negative rounds the other way, and their mean is without bias.
    crop = (geometry.crop(frame, region, 64) + (255.0 - geometry.crop(255 - frame, region, 64))) / 2
    centers = (np.stack(np.meshgrid(np.arange(64), np.arange(64)), axis=-1) + 0.5) / 64
    expected = region.to_image(centers)
    inside = ((expected > 16) & (expected < [484, 584])).all(-1)
    outside = ((expected < -16) | (expected > [516, 616])).any(-1)
    assert inside.sum() > 500 and (size < 500 or outside.sum() > 500)
    np.testing.assert_allclose(crop[inside][:, :2] / 0.25, expected[inside], atol=6.1)  # rounded twice, 4 px a level
    assert np.abs((crop[inside][:, :2] / 0.25 - expected[inside]).mean(0)).max() < 0.6
    assert not geometry.crop(frame, region, 64)[outside].any()


@needs_pillow
@pytest.mark.parametrize("center", [(-900.0, 50.0), (50.0, 5000.0)])
def test_crop_far_outside_the_image_is_black(center):
    frame = np.full((100, 80, 3), 255, np.uint8)
    assert not geometry.crop(frame, Region(np.array(center), 200.0), 32).any()


def test_refinement_equals_a_plain_loop():
    random = np.random.default_rng(0)
    points, heatmap = random.uniform(-0.1, 1.1, (39, 2)), random.normal(-3, 3, (64, 64, 39))
    heatmap[..., 5] = -20.0
    expected = points.copy()
    for index, (column, row) in enumerate(np.floor(points * 64).astype(int)):
        if not (0 <= column < 64 and 0 <= row < 64):
            continue
        window = [(r, c) for r in range(row - 3, row + 4) for c in range(column - 3, column + 4)]
        window = [(r, c) for r, c in window if 0 <= r < 64 and 0 <= c < 64]
        weights = [1 / (1 + np.exp(-heatmap[r, c, index])) for r, c in window]
        if max(weights) >= 0.5:
            expected[index] = np.average([(c / 64, r / 64) for r, c in window], axis=0, weights=weights)
    refined = geometry.refine_landmarks(points, heatmap)
    np.testing.assert_allclose(refined, expected, rtol=1e-9)
    np.testing.assert_array_equal(refined[5], points[5])
    assert (refined != points).any()


def test_keypoint_similarity_falls_with_relative_distance():
    pose = np.random.default_rng(0).uniform(0, 100, (33, 2))
    extent = np.ptp(pose, axis=0).max()
    assert geometry.keypoint_similarity(pose, pose, np.ones(33)) == pytest.approx(1)
    shifted = geometry.keypoint_similarity(pose, pose + [0.1 * extent, 0], np.ones(33))
    assert shifted == pytest.approx(np.exp(-0.5))


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (640, 640), (3000, 200), (1, 1)])
def test_search_windows_cover_the_frame(size):
    whole, *parts = blazepose_search.search_windows(*size)
    assert whole.size == max(size) and (whole.center == np.array(size) / 2).all()
    assert all(part.size == min(size) for part in parts)
    along = int(size[1] > size[0])
    assert parts[0].center[along] == min(size) / 2 and parts[-1].center[along] == max(size) - min(size) / 2


def test_search_schedule():
    schedule = blazepose_search.SearchSchedule(detect_every=5)
    windows = blazepose_search.search_windows(1920, 1080)

    def looks(count, anybody, just_lost=False):
        return [len(schedule.next_windows(1920, 1080, anybody, just_lost)) for _ in range(count)]

    assert looks(1, anybody=False) == [len(windows)]
    assert looks(10, anybody=True) == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert looks(3, anybody=False) == [1, 1, 1]
    assert looks(1, anybody=True, just_lost=True) == [1]
    assert sum(looks(2 * len(windows), anybody=True)) >= 2 * len(windows) - 1


def sighting(x=0.0, score=0.9, confidence=0.9):
    body = np.random.default_rng(0).uniform(100, 300, (33, 2)).astype(np.float32) + np.float32([x, 0])
    region = Region(np.array([200.0 + x, 200.0]), 300.0)
    return blazepose.Sighting(body, np.full(33, score, np.float32), confidence, region)


def test_of_two_sightings_of_one_person_the_better_stays():
    worse, better, other = sighting(2.0, confidence=0.6), sighting(), sighting(150.0)
    kept = blazepose.without_duplicates([worse, better, other])
    assert len(kept) == 2 and kept[0] is better and kept[1] is other


def test_points_outside_the_image_keep_a_low_score():
    xy = np.full((39, 2), 50.0)
    xy[0], xy[1], xy[geometry.SCALE_POINT] = (-1, 50), (50, 101), (50, 10)
    found = blazepose._sighting(xy, np.full(33, 0.9), 0.9, 100, 100)
    assert found.score[:3] == pytest.approx([0.18, 0.18, 0.9])
    assert blazepose._sighting(xy + 1000, np.full(33, 0.9), 0.9, 100, 100) is None


# --- registry and model files -----------------------------------------------------------------------------------------


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'openpose'.*auto, blazepose, detectron2, mediapipe, rtmlib, torchvision"):
        detectors.create_detector("openpose")


def pretend_installed(monkeypatch, *packages):
    monkeypatch.setattr(detectors, "_is_installed", lambda package: package in packages)


def test_auto_prefers_litert_then_mediapipe_then_says_what_to_install(monkeypatch):
    for name in ("blazepose", "mediapipe"):
        monkeypatch.setitem(detectors.DETECTORS, name, lambda name=name, **options: (name, options))
    options = {"min_confidence": 0.6, "max_people": 2}
    pretend_installed(monkeypatch, "ai_edge_litert", "mediapipe")
    assert detectors.create_detector(**options) == ("blazepose", options)
    pretend_installed(monkeypatch, "mediapipe")
    assert detectors.create_detector(**options) == ("mediapipe", {"min_confidence": 0.6})
    pretend_installed(monkeypatch)
    with pytest.raises(ImportError, match=HINT):
        detectors.create_detector()


@pytest.mark.parametrize("option", ["max_people", "min_confidence", "detect_every"])
@pytest.mark.parametrize("value", [0, -1])
def test_bad_options(option, value):
    with pytest.raises(ValueError, match=f"{option} is {value}"):
        blazepose.BlazePose(**{option: value})


def test_missing_model_files(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="pose_detection.tflite.*0.10.21"):
        blazepose.find_model_files(tmp_path)
    monkeypatch.setattr(blazepose, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=HINT):
        blazepose.find_model_files()


@needs_graphs
def test_missing_litert_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match=f"ai-edge-litert.*{HINT}"):
        blazepose.BlazePose()


@pytest.mark.parametrize(("version", "says"), [((3, 10, 0), False), ((3, 12, 9), False), ((3, 13, 1), True),
                                               ((4, 0), True)])  # fmt: skip
def test_hint_names_the_pythons_where_this_one_is_another(version, says):
    hint = detectors.detector_hint(version)
    assert re.search(HINT, hint) and "index" not in hint and "keypoint-lift" not in hint
    expected = f"exist for Python 3.10 to 3.12 and this is {version[0]}.{version[1]}, "
    assert (expected in hint) is says and ("Python" in hint) is says


def test_doctor_gives_the_same_hints():
    hints = {name: install for name, _, _, install in doctor.PACKAGES}
    assert hints["av"] == detectors.INSTALL_VIDEO
    assert hints["ai-edge-litert"] == hints["mediapipe"] == detectors.INSTALL_HINT


def test_missing_mediapipe_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe.python.solutions", None)
    with pytest.raises(ImportError, match=f"mediapipe==0.10.21.*{HINT}"):
        detectors.create_detector("mediapipe")


@needs_graphs
def test_foreign_model_file_gives_a_warning_and_garbage_an_error(tmp_path):
    for path in blazepose.find_model_files().values():
        shutil.copy(path, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blazepose.find_model_files(tmp_path)
    (tmp_path / blazepose.LANDMARK_FILE).write_bytes(b"not a model")
    with pytest.warns(UserWarning, match="sha256 .*may be wrong: use the file of"):
        with pytest.raises(ValueError, match="not a usable TFLite model"):
            blazepose.BlazePose(model_dir=tmp_path)


# --- the real graphs --------------------------------------------------------------------------------------------------


@needs_graphs
def test_nobody_in_noise_and_black_and_tiny_frames():
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    frames = [np.zeros((120, 90, 3), np.uint8), noise, np.zeros((1, 1, 3), np.uint8)]
    assert list(detectors.create_detector("blazepose").detect(frames)) == [[], [], []]


@needs_graphs
@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), None]
)
def test_a_bad_frame_is_named(frame):
    with pytest.raises(ValueError, match="expected .height, width, 3. uint8"):
        list(detectors.create_detector("blazepose").detect([frame]))


@needs_graphs
def test_finds_the_person_of_the_sample_clip_in_every_frame():
    frames = read_sample(8)
    detector = detectors.create_detector("blazepose")
    assert isinstance(detector, detectors.Detector)
    found = list(detector.detect(frames))
    assert [len(people) for people in found] == [1] * len(frames)
    height, width = frames[0].shape[:2]
    index = detector.skeleton.index
    for (person,) in found:
        assert person.xy.shape == (33, 2) and person.mean_score > 0.5
        assert ((person.xy > 0) & (person.xy < [width, height])).all(1).mean() > 0.9
        assert person.xy[index("nose")][1] < person.xy[index("left_hip")][1] < person.xy[index("left_ankle")][1]


@needs_graphs
def test_two_people_in_one_frame_and_the_mirrored_one_alike():
    frame = read_sample(1)[0]
    both = np.concatenate([frame, frame[:, ::-1]], axis=1)
    detector = detectors.create_detector("blazepose")
    (people,) = detector.detect([both])
    assert len(people) == 2
    first, second = sorted(people, key=lambda person: person.box[0])
    mirrored = second.xy[list(detector.skeleton.flip)] * [-1, 1] + [both.shape[1], 0]
    assert np.median(np.hypot(*(first.xy - mirrored).T)) < 0.02 * np.ptp(first.xy[:, 1])


@needs_graphs
def test_max_people_is_kept():
    frame = read_sample(1)[0]
    (people,) = detectors.create_detector("blazepose", max_people=1).detect([np.concatenate([frame, frame], axis=1)])
    assert len(people) == 1


@needs_graphs
def test_mediapipes_own_runtime_agrees():
    frames = read_sample(3)
    theirs = list(detectors.create_detector("mediapipe").detect(frames))
    ours = list(detectors.create_detector("blazepose").detect(frames))
    height = np.ptp(ours[-1][0].xy[:, 1])
    distances = np.hypot(*(theirs[-1][0].xy - ours[-1][0].xy).T)
    assert np.median(distances) < 0.03 * height
    assert list(detectors.create_detector("mediapipe").detect([np.zeros((64, 64, 3), np.uint8)])) == [[]]


def test_native_messages_are_hidden_only_meanwhile(capfd):
    with pytest.raises(ValueError, match="seen"), blazepose._native_messages_hidden():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate\n")
        raise ValueError("still seen")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
