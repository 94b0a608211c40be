"""A folder of one's own footage: what is found, what belongs together, what is left out and said."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from lifting.cameras import Camera
from lifting.footage import adapt_folder, find_sources, read_footage
from lifting.keypoints import Detection, Keypoints2D
from lifting.skeletons import get_skeleton

SIZE, FPS, FRAMES = (640, 480), 25.0, 30
CAMERA = Camera(500.0, (300, 250), SIZE, distortion=[-0.2, 0.01, 0, 0, 0])


def figure(frames: int = FRAMES, skeleton: str = "coco17", x: float = 300.0) -> Keypoints2D:
    """Somebody who drifts to the right, every joint seen."""
    joints = get_skeleton(skeleton).num_joints
    xy = np.stack(np.broadcast_arrays(x + np.arange(frames)[:, None] + 5 * (np.arange(joints) % 2),
                                      100 + 15.0 * np.arange(joints)), -1)
    return Keypoints2D(xy, np.full(xy.shape[:2], 0.9), skeleton, SIZE, FPS)


def write_figure(path, **options) -> Keypoints2D:
    from lifting.detectors.files import write_keypoints

    keypoints = figure(**options)
    write_keypoints(path, {1: keypoints})
    return keypoints


def write_camera(path, camera: Camera = CAMERA) -> None:
    path.write_text(json.dumps(camera.to_dict()))


class OnePerson:
    """Sees the same person in every frame."""

    name = "one"
    skeleton = get_skeleton("coco17")

    def detect(self, frames):
        shown = figure(100)
        for index, _ in enumerate(frames):
            yield [Detection(shown.xy[index], shown.score[index])]


@pytest.fixture
def video(tmp_path):
    pytest.importorskip("av")
    from lifting.video import VideoWriter

    path = tmp_path / "made" / "film.mp4"
    path.parent.mkdir()
    with VideoWriter(path, SIZE, FPS) as out:
        for _ in range(20):
            out.write(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    return path


def test_keypoint_files_become_unlabelled_clips_in_one_layout(tmp_path):
    write_figure(tmp_path / "walk.npz")
    write_figure(tmp_path / "run.json", skeleton="halpe26")
    footage = read_footage(tmp_path)
    assert [clip.name for clip in footage.clips] == ["run/person 1/own", "walk/person 1/own"]
    assert footage.clips.skeleton_in.name == "lift17" and footage.skipped == ()
    for clip in footage.clips:
        assert clip.motion is None and clip.camera is None and clip.keypoints.fps == FPS and len(clip) == FRAMES
    expected = figure().to("lift17")
    np.testing.assert_allclose(list(footage.clips)[1].keypoints.xy, expected.xy, atol=0.01)
    assert read_footage(tmp_path, skeleton="coco17").clips.skeleton_in.name == "coco17"


def test_a_camera_beside_a_file_is_its_own_and_one_called_camera_is_for_the_others(tmp_path):
    write_figure(tmp_path / "walk.npz")
    write_figure(tmp_path / "run.npz")
    write_camera(tmp_path / "walk.camera.json")
    write_camera(tmp_path / "camera.json", Camera.from_focal(777.0, SIZE))
    run, walk = read_footage(tmp_path).clips
    assert walk.camera == CAMERA and run.camera.focal.tolist() == [777.0, 777.0]
    assert read_footage(tmp_path).notes == ()


def test_only_the_intrinsics_of_a_placed_camera_are_kept(tmp_path):
    write_figure(tmp_path / "walk.npz")
    placed = Camera(500.0, (300, 250), SIZE, rotation=np.diag([1.0, -1, -1]), translation=[0, 0, 5])
    write_camera(tmp_path / "camera.json", placed)
    (clip,) = read_footage(tmp_path).clips
    assert clip.camera == Camera(500.0, (300, 250), SIZE)


def test_videos_are_detected_unless_keypoints_lie_beside_them(tmp_path, video):
    folder = video.parent
    (clip,) = read_footage(folder, detector=OnePerson()).clips
    assert (clip.subject, clip.keypoints.image_size, len(clip)) == ("film", SIZE, 20)
    write_figure(folder / "film.npz", frames=17)
    (clip,) = read_footage(folder, detector="no such detector").clips
    assert len(clip) == 17


def test_ctrl_c_while_people_are_detected_ends_the_reading(video):
    class Interrupted(OnePerson):
        def detect(self, frames):
            yield from (found for found, _ in zip(super().detect(frames), range(15), strict=False))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_footage(video.parent, detector=Interrupted())


def test_a_folder_of_openpose_files_is_one_source(tmp_path):
    frames = tmp_path / "clip"
    frames.mkdir()
    person = np.concatenate([figure(skeleton="body25").xy[0], np.full((25, 1), 0.9)], 1).ravel().tolist()
    for index in range(40):
        content = {"people": [{"pose_keypoints_2d": person}]}
        (frames / f"clip_{index:012d}_keypoints.json").write_text(json.dumps(content))
    footage = read_footage(tmp_path)
    assert [clip.name for clip in footage.clips] == ["clip/person 1/own"] and len(footage.clips.infos) == 1
    told = [sentence for _, sentence in footage.notes]
    assert "the file states no frame rate, 30 frames per second assumed" in told and "focal length" in told[-1]


def test_frames_before_and_after_a_person_are_cut(tmp_path):
    from lifting.detectors.files import write_keypoints

    shown = figure(60)
    score = shown.score.copy()
    score[:10] = score[50:] = 0
    write_keypoints(tmp_path / "walk.npz", {1: shown.replace(score=score)})
    (clip,) = read_footage(tmp_path).clips
    np.testing.assert_allclose(clip.keypoints.xy, shown.to("lift17").xy[10:50], atol=0.01)


def test_broken_and_short_files_are_left_out_and_said(tmp_path):
    write_figure(tmp_path / "good.npz")
    write_figure(tmp_path / "short.npz", frames=5)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "film.mp4").write_bytes(b"no video")
    (tmp_path / "notes.txt").write_text("none of our business")
    said = []
    footage = read_footage(tmp_path, report=said.append)
    assert [clip.subject for clip in footage.clips] == ["good"]
    assert [name for name, _ in footage.skipped] == ["broken.npz", "film.mp4", "short.npz"]
    assert "'short.npz' is left out: it shows nobody for at least 0.5 s" in said[3]
    assert len(said) == 4 and said[2].startswith("'good.npz': its focal length is not known; a camera file")
    assert not any("\n" in reason for _, reason in footage.skipped)


def test_a_broken_camera_leaves_its_file_out(tmp_path):
    write_figure(tmp_path / "a.npz")
    write_figure(tmp_path / "b.npz")
    (tmp_path / "b.camera.json").write_text("{}")
    footage = read_footage(tmp_path)
    assert [clip.subject for clip in footage.clips] == ["a"] and footage.skipped[0][0] == "b.npz"


def test_nothing_usable_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder at"):
        read_footage(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds neither videos"):
        read_footage(tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="none of the 1 files.*'broken.npz'"):
        read_footage(tmp_path)


def test_hidden_files_and_cameras_alone_are_no_footage(tmp_path):
    write_figure(tmp_path / "walk.npz")
    shutil.copy(tmp_path / "walk.npz", tmp_path / ".walk.npz")
    write_camera(tmp_path / "walk.camera.json")
    (tmp_path / "walk.camera").mkdir()
    assert [source.name for source in find_sources(tmp_path)] == ["walk"]


def test_one_network_is_adapted_to_a_folder_and_written(tmp_path):
    from test_adapt import small_lifter

    from lifting.predict import Lifter

    folder = tmp_path / "own"
    folder.mkdir()
    write_figure(folder / "a.npz")
    write_figure(folder / "b.npz")
    (folder / "broken.npz").write_bytes(b"nothing")
    said, titles = [], []
    report = adapt_folder(folder, tmp_path / "own.safetensors", lifter=small_lifter(), steps=2, report=said.append,
                          progress=lambda steps, total, title: titles.append((title, total)) or steps)
    assert report.clips == 2 and report.steps == 2 and len(said) == 3 and titles == [("adapting", 2)]
    header = Lifter.load(tmp_path / "own.safetensors").header
    assert "adapted to 2 unlabelled clips" in header.training
    with pytest.raises(FileNotFoundError, match="no folder at"):
        adapt_folder(tmp_path / "nowhere", tmp_path / "x.safetensors", lifter=small_lifter())
    assert not (tmp_path / "x.safetensors").exists()
