"""From a video or a keypoint file to a take and its files: detection is faked, weights are random and tiny."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from filmed_walker import CAMERA, FPS, SIZE, KnownDetector, filmed, write_video

from lifting import pipeline
from lifting.anatomy import stature
from lifting.cameras import Camera
from lifting.cleaning import person_size
from lifting.detectors import DETECTORS
from lifting.detectors.files import write_keypoints
from lifting.export import FORMATS, load
from lifting.keypoints import Keypoints2D
from lifting.pipeline import Evidence, lift_people, run_video

pytest.importorskip("av")
HOSTILE_NAMES = ["it's \"quoted\"", "two\nlines", "<script>alert(1)<", "%s%n{0}", "ünï漢\u202e字", "-rf", "a,b;c", " "]
if os.name == "nt":
    HOSTILE_NAMES = ["it's", "%s%n{0}", "ünï漢字", "a,b;c"]


def seen_only(keypoints: Keypoints2D, frames: slice) -> Keypoints2D:
    xy = np.full_like(keypoints.xy, np.nan)
    xy[frames] = keypoints.xy[frames]
    return keypoints.replace(xy=xy)


@pytest.fixture
def keypoint_file(tmp_path):
    """Two people: 3, who is near and always there, and 8, far and in frames 10 to 24 of 40."""
    people = {8: seen_only(filmed(distance=8.0, across=-1.5), slice(10, 25)), 3: filmed()}
    return write_keypoints(tmp_path / "two people.npz", people)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# ---- keypoint files


def test_a_keypoint_file_becomes_every_kind_of_result(tmp_path, keypoint_file, tiny_lifter):
    outputs = [tmp_path / "out" / f"result{suffix}" for suffix in FORMATS]
    take = run_video(keypoints=keypoint_file, output=outputs, camera=CAMERA, lifter=tiny_lifter)
    assert [person.id for person in take.people] == [3, 8]  # the larger one first
    assert (take.name, take.fps, take.image_size, len(take)) == ("two people", FPS, SIZE, 40)
    np.testing.assert_allclose(take.times, np.arange(40) / FPS)
    assert files_in(tmp_path / "out") == sorted(path.name for path in outputs)
    for path in outputs:
        assert load(path) == take


def test_a_result_can_be_the_input_again(tmp_path, keypoint_file, tiny_lifter):
    first = run_video(keypoints=keypoint_file, output=tmp_path / "result.npz", camera=CAMERA, lifter=tiny_lifter)
    again = run_video(keypoints=tmp_path / "result.npz", camera=CAMERA, lifter=tiny_lifter)
    assert again.people == first.people


def test_people_are_lifted_where_they_are_and_nan_elsewhere(keypoint_file, tiny_lifter):
    take = run_video(keypoints=keypoint_file, camera=CAMERA, lifter=tiny_lifter)
    main, other = take.people
    assert np.isfinite(main.motion.absolute).all() and np.isfinite(main.motion.sigma).all()
    present = np.isin(np.arange(40), np.arange(10, 25))
    for values in (other.motion.joints, other.motion.trajectory, other.motion.sigma, other.keypoints.xy):
        assert np.isfinite(values[present]).all() and np.isnan(values[~present]).all()
    alone = tiny_lifter.predict(other.keypoints.slice(10, 25), CAMERA)
    scale = take.metadata["world"]["scales"]["8"]  # with which both stand on one floor
    np.testing.assert_allclose(other.motion.joints[10:25], alone.joints * scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("person", "ids"), [("all", [3, 8]), ("largest", [3]), (8, [8]), ("8", [8])])
def test_person_chooses(keypoint_file, tiny_lifter, person, ids):
    take = run_video(keypoints=keypoint_file, person=person, camera=CAMERA, lifter=tiny_lifter)
    assert [person.id for person in take.people] == ids
    assert [report["id"] for report in take.metadata["people"]] == ids


def test_an_unknown_person_lists_the_known_ones(keypoint_file, tiny_lifter):
    with pytest.raises(ValueError, match="no person 5 in 'two people'; the ids are 3, 8"):
        run_video(keypoints=keypoint_file, person=5, lifter=tiny_lifter)


def test_start_and_end_choose_frames(keypoint_file, tiny_lifter):
    take = run_video(keypoints=keypoint_file, start=0.2, end=0.4, camera=CAMERA, lifter=tiny_lifter)
    np.testing.assert_allclose(take.times, np.arange(5, 10) / FPS)
    assert [person.id for person in take.people] == [3]  # the other one comes later
    np.testing.assert_array_equal(take.people[0].keypoints.xy, filmed().xy[5:10])
    with pytest.raises(ValueError, match="no frame between 5 and None s"):
        run_video(keypoints=keypoint_file, start=5, lifter=tiny_lifter)


def test_people_without_ids_are_tracked(tmp_path, tiny_lifter):
    one, other = filmed(12), filmed(12, distance=6.0, across=-2.0)
    frames = [{"image_id": t, "category_id": 1, "score": 1.0,
               "keypoints": np.dstack([who.xy[t:t + 1], np.ones((1, 17, 1))]).ravel().tolist()}
              for t in range(12) for who in ((one, other) if t % 2 else (other, one))]  # fmt: skip
    (tmp_path / "coco.json").write_text(json.dumps(frames))
    take = run_video(keypoints=tmp_path / "coco.json", fps=FPS, image_size=SIZE, camera=CAMERA, lifter=tiny_lifter)
    assert len(take.people) == 2
    np.testing.assert_allclose(take.people[0].keypoints.xy, one.xy, atol=1e-3)


def test_what_a_keypoint_file_leaves_out_is_assumed_and_said(tmp_path, tiny_lifter):
    np.save(tmp_path / "bare.npy", filmed(10).xy)
    take = run_video(keypoints=tmp_path / "bare.npy", lifter=tiny_lifter)
    assert take.fps == 30
    said = " | ".join(take.assumed)
    assert all(words in said for words in ("no frame rate, 30", "--fps", "no image size", "Focal length", "--height"))
    facts = dict(fps=50, image_size=SIZE, focal=600, height=1.7)
    given = run_video(keypoints=tmp_path / "bare.npy", **facts, lifter=tiny_lifter)
    taken, level = given.assumed
    assert taken == "17 joints were taken as coco17" and level.startswith("the camera was taken to be about level")
    assert given.fps == 50 and given.image_size == SIZE
    assert given.metadata["focal_px"] == [600, 600] and given.metadata["height_m"] == 1.7


def test_a_camera_brings_the_image_size(tmp_path, tiny_lifter):
    np.save(tmp_path / "bare.npy", filmed(10).xy)
    take = run_video(keypoints=tmp_path / "bare.npy", fps=FPS, camera=CAMERA, height=1.7, lifter=tiny_lifter)
    assert take.image_size == SIZE
    _, said, _ = take.assumed
    assert said == "the file states no image size, 640x480 assumed from the camera's; pass --image-size"


def test_a_camera_file_and_a_camera_of_another_size(tmp_path, keypoint_file, tiny_lifter):
    (tmp_path / "camera.json").write_text(json.dumps(CAMERA.scaled(2).to_dict()))
    take = run_video(keypoints=keypoint_file, camera=tmp_path / "camera.json", lifter=tiny_lifter)
    np.testing.assert_allclose(take.camera.matrix, CAMERA.matrix)
    with pytest.raises(ValueError, match="same aspect"):
        run_video(keypoints=keypoint_file, camera=Camera.from_focal(600, (480, 640)), lifter=tiny_lifter)


def test_a_camera_that_does_not_fit_shows_before_the_detection(tmp_path):
    video, detector = write_video(tmp_path / "walk.mp4", 2, size=(64, 48)), KnownDetector(filmed(2), stop_at=0)
    upright = Camera.from_focal(600, (480, 640))
    for camera, problem in ((tmp_path / "none.json", "not a file"), (upright, "same aspect")):
        with pytest.raises((ValueError, FileNotFoundError), match=problem):
            run_video(video, detector=detector, camera=camera)  # detecting would raise KeyboardInterrupt


def test_the_height_is_the_main_persons(keypoint_file, tiny_lifter):
    take = run_video(keypoints=keypoint_file, height=1.6, camera=CAMERA, lifter=tiny_lifter)
    plain = run_video(keypoints=keypoint_file, camera=CAMERA, lifter=tiny_lifter)
    assert stature(take.people[0].motion.joints) == pytest.approx(1.6, rel=1e-5)
    others = [one.people[1].motion.joints / one.metadata["world"]["scales"]["8"] for one in (take, plain)]
    np.testing.assert_allclose(*others, rtol=1e-5, atol=1e-6)  # apart from the floor that they share with the main one
    assert take.assumed[0] == "the height 1.6 m was applied to person 3, the main one, only"


# ---- videos


def test_a_video_becomes_every_kind_of_result(tmp_path, tiny_lifter):
    video, truth = write_video(tmp_path / "walk.mp4", 8), filmed(8)
    outputs = [tmp_path / f"out{suffix}" for suffix in (".mp4", *FORMATS)]
    take = run_video(video, detector=KnownDetector(truth), output=outputs, lifter=tiny_lifter)
    assert take.name == "walk" and take.metadata["detector"] == "known"
    np.testing.assert_array_equal(take.people[0].keypoints.xy, truth.xy)
    np.testing.assert_allclose(take.times, np.arange(8) / FPS, atol=1e-3)
    for path in outputs[1:]:
        assert load(path) == take
    from lifting.video import open_video

    with open_video(outputs[0]) as overlay:
        pictures = [frame.rgb for frame in overlay]
        assert len(pictures) == 8 and overlay.fps == FPS
    assert pictures[0].std() > 10  # something is drawn


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_text_in_file_names_breaks_nothing(tmp_path, tiny_lifter, name):
    video = write_video(tmp_path / f"{name}.mp4", 4, size=(64, 48))
    truth = filmed(4).replace(xy=filmed(4).xy / 10, image_size=(64, 48))
    outputs = [tmp_path / "out" / f"{name}{suffix}" for suffix in FORMATS]
    take = run_video(video, detector=KnownDetector(truth), output=outputs, lifter=tiny_lifter)
    assert take.name == name
    for path in outputs:
        assert load(path) == take
    pipeline.write_report(take, tmp_path / "out" / "report.json")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["name"] == name


def test_start_and_end_of_a_video(tmp_path, tiny_lifter):
    video = write_video(tmp_path / "walk.mp4", 30)
    take = run_video(video, detector=KnownDetector(filmed(30)), start=0.4, end=0.8, lifter=tiny_lifter)
    np.testing.assert_allclose(take.times, np.arange(10, 20) / FPS, atol=1e-3)


def test_a_folder_of_images(tmp_path, tiny_lifter):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "images v2"
    folder.mkdir()
    for index in range(6):
        image.new("RGB", SIZE, (90, 90, 90)).save(folder / f"{index}.png")
    detector = KnownDetector(filmed(6))
    take = run_video(folder, detector=detector, fps=FPS, output=tmp_path / "o.mp4", lifter=tiny_lifter)
    assert take.fps == FPS and take.name == "images v2" and len(take) == 6
    assert (tmp_path / "o.mp4").stat().st_size > 0
    assert any("30 frames/s assumed" in sentence
               for sentence in run_video(folder, detector=detector, lifter=tiny_lifter).assumed)


def test_one_frame(tmp_path, tiny_lifter):
    video = write_video(tmp_path / "still.mp4", 1)
    take = run_video(video, detector=KnownDetector(filmed(1)), output=tmp_path / "o.npz", lifter=tiny_lifter)
    assert len(take) == 1 and np.isfinite(take.people[0].motion.absolute).all()
    assert load(tmp_path / "o.npz") == take


def test_a_truncated_video_gives_what_can_be_decoded(tmp_path, tiny_lifter):
    from lifting.video import VideoWriter

    video, truth = tmp_path / "walk.mp4", filmed(30)
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    with VideoWriter(video, (64, 48), FPS) as writer:  # with its index in front
        for picture in noise:
            writer.write(picture)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    truth = truth.replace(xy=truth.xy / 10, image_size=(64, 48))
    take = run_video(video, detector=KnownDetector(truth), lifter=tiny_lifter)
    assert 5 < len(take) < 25
    assert any("truncated" in sentence for sentence in take.metadata["warnings"])


def test_a_variable_rate_becomes_an_even_one(tmp_path, tiny_lifter):
    kept = np.r_[0:8, 10, 11, 14:30]  # frames that the camera did not drop
    video = write_video(tmp_path / "phone.mkv", len(kept), stamps=[int(40 * frame) for frame in kept])
    whole = filmed(30)
    detector = KnownDetector(whole.replace(xy=whole.xy[kept], score=whole.score[kept]))
    take = run_video(video, detector=detector, output=tmp_path / "o.npz", lifter=tiny_lifter)
    assert take.fps == FPS and len(take) == 30 and load(tmp_path / "o.npz") == take
    np.testing.assert_allclose(take.times, np.arange(30) / FPS, atol=1e-9)
    keypoints = take.people[0].keypoints
    assert keypoints.seen.all()
    np.testing.assert_allclose(keypoints.xy[kept], whole.xy[kept], atol=1e-3)
    np.testing.assert_allclose(keypoints.xy, whole.xy, atol=1.5)  # pixels; the dropped ones lie on straight lines
    assert any("variable frame rate" in sentence for sentence in take.metadata["warnings"])


def test_video_with_keypoints_is_only_drawn_on(tmp_path, keypoint_file, tiny_lifter):
    video = write_video(tmp_path / "walk.mp4", 4)
    take = run_video(video, keypoints=keypoint_file, fps=FPS, detector=KnownDetector(), lifter=tiny_lifter,
                     output=tmp_path / "o.mp4", camera=CAMERA)
    assert len(take) == 40 and (tmp_path / "o.mp4").stat().st_size > 0
    with pytest.raises(FileNotFoundError, match="no video"):
        run_video(tmp_path / "other.mp4", keypoints=keypoint_file, lifter=tiny_lifter,
                  output=[tmp_path / "late.npz", tmp_path / "late.mp4"])
    assert not list(tmp_path.glob("late*"))


def test_keypoints_alone_are_drawn_on_nothing(tmp_path, keypoint_file, tiny_lifter):
    run_video(keypoints=keypoint_file, end=0.12, output=tmp_path / "o.mp4", camera=CAMERA, lifter=tiny_lifter)
    assert (tmp_path / "o.mp4").stat().st_size > 0


# ---- interrupts and failures


def test_an_interrupt_keeps_what_was_detected(tmp_path, tiny_lifter):
    video = write_video(tmp_path / "walk.mp4", 30)
    detector = KnownDetector(filmed(30), stop_at=12)
    take = run_video(video, detector=detector, output=[tmp_path / "o.npz", tmp_path / "o.mp4"], lifter=tiny_lifter)
    assert len(take) == 12 and load(tmp_path / "o.npz") == take
    assert "interrupted after 12 frames" in take.metadata["warnings"][0]
    from lifting.video import open_video

    with open_video(tmp_path / "o.mp4") as overlay:
        assert sum(1 for _ in overlay) == 12


def test_an_interrupt_before_the_first_frame_writes_nothing(tmp_path, tiny_lifter):
    video = write_video(tmp_path / "walk.mp4", 3)
    with pytest.raises(KeyboardInterrupt):
        run_video(video, detector=KnownDetector(filmed(3), stop_at=0), output=tmp_path / "o.npz", lifter=tiny_lifter)
    assert files_in(tmp_path) == ["walk.mp4"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError("disk full")])
def test_what_was_finished_stays_and_nothing_is_half_written(tmp_path, tiny_lifter, failure):
    video = write_video(tmp_path / "walk.mp4", 6)

    def progress(iterable, total, title):
        for count, item in enumerate(iterable):
            if title == "drawing" and count == 3:
                raise failure
            yield item

    outputs = [tmp_path / "o.mp4", tmp_path / "o.npz"]  # results come first whatever the order
    with pytest.raises((KeyboardInterrupt, OSError)):
        run_video(video, detector=KnownDetector(filmed(6)), output=outputs, progress=progress, lifter=tiny_lifter)
    assert files_in(tmp_path) == ["o.npz", "walk.mp4"]
    assert len(load(tmp_path / "o.npz")) == 6


def test_an_older_result_survives_a_failed_write(tmp_path, keypoint_file, tiny_lifter, monkeypatch):
    (tmp_path / "o.npz").write_text("older")

    def fail(file, **arrays):
        file.write(b"PK")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        run_video(keypoints=keypoint_file, output=tmp_path / "o.npz", lifter=tiny_lifter)
    assert (tmp_path / "o.npz").read_text() == "older"
    assert files_in(tmp_path) == ["o.npz", "two people.npz"]


def test_nobody_in_the_video(tmp_path, tiny_lifter):
    video = write_video(tmp_path / "empty.mp4", 5, size=(64, 48))
    with pytest.raises(ValueError, match="no person found in the 5 frames of 'empty.mp4'; check") as caught:
        run_video(video, detector=KnownDetector(), output=tmp_path / "o.npz", lifter=tiny_lifter)
    assert "\n" not in str(caught.value) and files_in(tmp_path) == ["empty.mp4"]


def test_who_cannot_be_lifted_is_left_out_and_said(tiny_lifter):
    good, nobody = filmed(10), filmed(10).replace(score=np.zeros((10, 17)))
    face = np.zeros((10, 17))
    face[:, 1:5] = 1  # eyes and ears are no body
    people = [(1, nobody), (2, good), (3, good.replace(score=face))]
    evidence = Evidence("clip", SIZE, FPS, np.arange(10) / FPS, people, "test")
    take = lift_people(evidence, CAMERA, lifter=tiny_lifter)
    assert [person.id for person in take.people] == [2]
    assert "person 1 was not lifted: no keypoint was seen" in take.metadata["warnings"]
    assert any(sentence.startswith("person 3 was not lifted: none of") for sentence in take.metadata["warnings"])
    with pytest.raises(ValueError, match="nobody in 'clip' could be lifted: person 1 was not"):
        lift_people(Evidence("clip", SIZE, FPS, np.arange(10) / FPS, people[:1], "test"), CAMERA, lifter=tiny_lifter)


# ---- the report


def test_the_report_says_what_was_done(tmp_path, tiny_lifter):
    keypoints = filmed(50)
    xy = keypoints.xy.copy()
    xy[20:25] = xy[20:25, list(keypoints.skeleton.flip)]
    xy[30:35] = np.nan
    evidence = Evidence("clip", SIZE, FPS, np.arange(50) / FPS, [(4, keypoints.replace(xy=xy))], "test", None, ["said"])
    take = lift_people(evidence, CAMERA, lifter=tiny_lifter)
    (report,) = take.metadata["people"]
    assert (report["id"], report["frames"], report["first_frame"], report["last_frame"]) == (4, 45, 0, 49)
    assert report["seen_share"] == report["sure_joints_share"] == 0.9
    assert report["mean_confidence"] == 1 and report["scale"] == 1
    share = report["reprojection_error_px"] / np.median(person_size(keypoints.replace(xy=xy).to("lift17")))
    assert report["reprojection_error_share"] == pytest.approx(share, rel=0.05)
    assert ["misses the keypoints" in doubt for doubt in report["warnings"]] == [True]  # untrained weights
    assert report["repairs"]["swapped_frames"] == 5
    assert report["median_sigma_m"] == pytest.approx(np.median(take.people[0].motion.sigma), abs=1e-4)
    assert take.metadata["weights"] == tiny_lifter.source and take.metadata["detector"] == "test"
    pipeline.write_report(take, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["people"] == [report] and written["frames"] == 50 and written["assumed"] == list(take.assumed)
    assert written["assumed"][0] == "said" and written["image_size"] == list(SIZE) and written["fps"] == FPS


@pytest.mark.parametrize(
    ("share", "score", "doubt"),
    [(1.0, 0.3, "detection is poor (mean confidence 0.30)"), (0.4, 0.9, "% of the body joints were seen")],
)
def test_poor_detection_is_said(tiny_lifter, share, score, doubt):
    rng = np.random.default_rng(0)
    scores = np.where(rng.random((40, 17)) < share, score, 0)
    evidence = Evidence("clip", SIZE, FPS, np.arange(40) / FPS, [(1, filmed().replace(score=scores))], "test")
    take = lift_people(evidence, CAMERA, lifter=tiny_lifter)
    assert any(sentence.startswith("person 1: ") and doubt in sentence for sentence in take.metadata["warnings"])


def test_rare_sightings_are_said(tiny_lifter):
    keypoints = filmed().replace(score=np.isin(np.arange(40), np.r_[0:5, 35:40])[:, None] * np.ones(17))
    evidence = Evidence("clip", SIZE, FPS, np.arange(40) / FPS, [(1, keypoints)], "test")
    take = lift_people(evidence, CAMERA, lifter=tiny_lifter)
    assert np.isfinite(take.people[0].motion.absolute).all()
    assert any("seen in only 25% of the frames" in sentence for sentence in take.metadata["warnings"])


# ---- wrong input


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"focal": 0.0}, "focal length of 0.0 pixels"),
        ({"focal": float("nan")}, "focal length of nan"),
        ({"focal": 600, "camera": CAMERA}, "both a camera and a focal length"),
        ({"height": 17}, "height of 17 m"),
        ({"person": "tallest"}, "'tallest', expected 'all', 'largest' or an id"),
        ({"person": -1}, "expected 'all'"),
        ({"fps": 0}, "fps must be a positive number"),
        ({"image_size": (0, 480)}, "image_size must be"),
        ({"skeleton": "body25"}, "17"),
        ({"start": 0.5, "end": 0.5}, "no frame between"),
        ({"output": "o.bvhx"}, "'.bvhx', expected one of .npz, .json, .csv, .h5, .glb"),
        ({"output": "folder"}, "expected one of"),
    ],
)
def test_wrong_options(keypoint_file, tiny_lifter, options, problem, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=problem) as caught:
        run_video(**{"keypoints": keypoint_file, "lifter": tiny_lifter, **options})
    assert "\n" not in str(caught.value)
    assert files_in(tmp_path) == ["two people.npz"]


def test_neither_video_nor_keypoints():
    with pytest.raises(ValueError, match="neither a video nor keypoints"):
        run_video()


def test_options_of_keypoints_with_a_video_alone(tmp_path):
    video = write_video(tmp_path / "walk.mp4", 2, size=(64, 48))
    for options in ({"image_size": SIZE}, {"skeleton": "coco17"}):
        with pytest.raises(ValueError, match="it describes keypoint files; drop it"):
            run_video(video, detector=KnownDetector(), **options)


def test_inputs_are_never_overwritten(tmp_path, keypoint_file):
    video = write_video(tmp_path / "walk.mp4", 2, size=(64, 48))
    before = keypoint_file.read_bytes(), video.read_bytes()
    with pytest.raises(ValueError, match="is the input itself"):
        run_video(keypoints=keypoint_file, output=tmp_path / "." / keypoint_file.name)
    with pytest.raises(ValueError, match="is the input itself"):
        run_video(video, output=video)
    assert (keypoint_file.read_bytes(), video.read_bytes()) == before


def test_an_unwritable_place_shows_before_the_work(tmp_path, keypoint_file):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "o.npz", tmp_path / "two people.npz" / "o.json"):
        with pytest.raises(OSError, match="cannot write"):
            run_video(keypoints=keypoint_file, output=[tmp_path / "first.npz", place])
    assert files_in(tmp_path) == ["file", "two people.npz"]


def test_a_missing_source_leaves_no_folders(tmp_path):
    for source in ({"video": tmp_path / "none.mp4"}, {"keypoints": tmp_path / "none.npz"}):
        with pytest.raises(FileNotFoundError, match="none"):
            run_video(**source, output=tmp_path / "new" / "o.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("video", "keypoints", "expected"),
    [
        ("a/walk.mp4", None, ["walk/result.npz", "walk/overlay.mp4"]),
        (None, "b/points.json", ["points/result.npz"]),
        ("a/walk.mp4", "b/points.json", ["walk/result.npz", "walk/overlay.mp4"]),
        ("/", None, ["clip/result.npz", "clip/overlay.mp4"]),
    ],
)
def test_default_outputs(video, keypoints, expected):
    assert pipeline.default_outputs(video, keypoints) == [Path("runs") / name for name in expected]


def test_guessed_legs_are_said(tiny_lifter):
    """BlazePose gives every joint a score: what is hidden has a low one, not none."""
    keypoints = filmed(20, "mediapipe33")
    score = keypoints.score.copy()
    hidden = [f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle")]
    score[:, keypoints.skeleton.indices(hidden)] = 0.05
    evidence = Evidence("clip", SIZE, FPS, np.arange(20) / FPS, [(1, keypoints.replace(score=score))], "test")
    warnings = lift_people(evidence, CAMERA, lifter=tiny_lifter).metadata["warnings"]
    assert "person 1: only 54% of the body joints were seen well: the rest is guessed" in warnings


def test_keypoints_take_size_and_rate_from_their_video(tmp_path, tiny_lifter):
    np.save(tmp_path / "bare.npy", filmed(10).xy)
    video = write_video(tmp_path / "clip.mp4", 10)
    take = run_video(video, keypoints=tmp_path / "bare.npy", lifter=tiny_lifter)
    assert (take.image_size, take.fps) == (SIZE, FPS)
    assert not any("image size" in sentence or "frame rate" in sentence for sentence in take.assumed)


def test_another_order_of_columns_is_said(tmp_path, tiny_lifter):
    np.save(tmp_path / "bare.npy", filmed(30, "h36m17").xy)
    take = run_video(keypoints=tmp_path / "bare.npy", image_size=SIZE, lifter=tiny_lifter)
    said = "the columns are read as coco17, but h36m17's order fits better; pass --skeleton"
    assert said in take.metadata["warnings"]
    named = run_video(keypoints=tmp_path / "bare.npy", image_size=SIZE, skeleton="h36m17", lifter=tiny_lifter)
    assert said not in named.metadata["warnings"]


def test_a_failed_run_leaves_no_folder(tmp_path, tiny_lifter):
    np.save(tmp_path / "bare.npy", filmed(10).xy)
    with pytest.raises(ValueError, match="there is no person 9"):
        run_video(keypoints=tmp_path / "bare.npy", person=9, output=tmp_path / "a/b/c.npz", lifter=tiny_lifter)
    assert [path.name for path in tmp_path.iterdir()] == ["bare.npy"]


@pytest.mark.parametrize("name", ["...mp4", "....mp4", ". .mp4"])
def test_a_name_of_dots_stays_in_its_folder(name):
    assert pipeline.default_outputs(name, None)[0].parts == ("runs", "clip", "result.npz")


def test_a_folder_of_models_for_a_detector_without(tmp_path, monkeypatch):
    monkeypatch.setitem(DETECTORS, "plain", lambda: None)
    video = write_video(tmp_path / "clip.mp4", 3)
    with pytest.raises(ValueError, match="takes no folder of models"):
        run_video(video, detector="plain", detector_models=tmp_path)


@pytest.mark.parametrize("suffix", [".npz", ".json", ".h5", ".csv"])
def test_a_result_brings_its_name_times_and_camera(tmp_path, tiny_lifter, suffix):
    points = write_keypoints(tmp_path / "walk.npz", filmed(20))
    first = run_video(keypoints=points, start=0.2, focal=777, output=tmp_path / f"a{suffix}", lifter=tiny_lifter)
    again = run_video(keypoints=tmp_path / f"a{suffix}", lifter=tiny_lifter)
    assert again.name == "walk" and again.camera == first.camera
    np.testing.assert_allclose(again.times, first.times, atol=1e-6)
    np.testing.assert_allclose(again.people[0].motion.joints, first.people[0].motion.joints, atol=1e-4)
    other = run_video(keypoints=tmp_path / f"a{suffix}", focal=500, end=0.5, lifter=tiny_lifter)
    assert other.metadata["focal_px"] == [500, 500] and other.times[0] == pytest.approx(0.2) and other.times[-1] < 0.5


def test_keypoints_of_another_video_are_doubted(tmp_path, tiny_lifter):
    points = write_keypoints(tmp_path / "walk.npz", filmed(10))
    video = write_video(tmp_path / "clip.mp4", 10, size=(320, 240))
    take = run_video(video, keypoints=points, lifter=tiny_lifter)
    doubt = "the keypoints are of images of 640x480, but the video is 320x240; check that they belong together"
    assert doubt in take.metadata["warnings"]


def test_a_result_is_lifted_again_beside_itself():
    assert pipeline.default_outputs(None, "runs/clip/result.npz")[0].parts == ("runs", "clip-result", "result.npz")


@pytest.mark.parametrize(("option", "value"), [("image_size", SIZE), ("skeleton", "coco17"), ("sequence", "S1/Walk/0")])
def test_what_describes_keypoint_files_is_refused_for_a_video(tmp_path, option, value):
    video = write_video(tmp_path / "clip.mp4", 3)
    with pytest.raises(ValueError, match=f"{option.replace('_', ' ')} with a video alone"):
        run_video(video, **{option: value})
