"""The command lift live on a small video with a detector that knows the answer; wrong input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from causal_lifters import write_causal_weights
from click.testing import CliRunner
from filmed_walker import SIZE, KnownDetector, filmed, write_tiny_weights, write_video

from lifting import live, live_sources
from lifting import predict as predict_module
from lifting.cli_live import live as command
from lifting.detectors import DETECTORS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    write_video(folder / "clip.mp4", frames=8, fps=10.0)
    write_causal_weights(folder / "causal.safetensors")
    write_tiny_weights(folder / "symmetric.safetensors")
    return folder


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(DETECTORS, "known", lambda **_: KnownDetector(filmed(40)))


def lift_live(folder, *arguments: str, weights: str = "causal", **options):
    given = ("--detector", "known", "--weights", str(folder / f"{weights}.safetensors"), *arguments)
    return CliRunner().invoke(command, given, **options)


@pytest.mark.parametrize("lookahead", ["0", "15"])
def test_a_video_comes_out_as_json_lines(folder, tmp_path, lookahead):
    output = tmp_path / "poses.jsonl"
    done = lift_live(folder, "--video", str(folder / "clip.mp4"), "-o", str(output), "--fov", "60", "--json",
                     "--lookahead", lookahead, "--smooth", "0.5", "--height", "1.8", "--osc", "9")  # fmt: skip
    assert done.exit_code == 0, done.output
    header, *poses = map(json.loads, output.read_text("utf-8").splitlines())
    report = json.loads(done.output[done.output.index("{") :])
    assert header["lookahead"] == int(lookahead) and report["problem"] is None
    assert len(poses) == report["poses"] == report["frames"] and report["frames"] + report["dropped"] == 8
    assert all(np.isfinite(pose["joints"]).all() and pose["seen"] for pose in poses)


def test_raw_frames_on_standard_input_and_poses_on_standard_output(folder):
    frames = np.full((3, SIZE[1], SIZE[0], 3), 90, np.uint8).tobytes()
    done = lift_live(folder, "--stdin", "--image-size", *map(str, SIZE), input=frames)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert any(json.loads(line).get("format") == "lift live" for line in lines if line.startswith("{"))
    assert any("Focal length 800 px assumed" in line for line in lines)
    assert any("frames/s" in line and "latency" in line and "dropped" in line for line in lines)


def test_a_camera_that_breaks_off_is_told_after_what_it_gave(folder, tmp_path, monkeypatch):
    class Breaking(live_sources.FileSource):
        left = 4

        def read(self):
            self.left -= 1
            if self.left < 0:
                raise OSError("camera 0 gives no more frames; check that it is still plugged in")
            return super().read()

    monkeypatch.setattr(live_sources, "WebcamSource", lambda index: Breaking(folder / "clip.mp4"))
    output = tmp_path / "poses.jsonl"
    done = lift_live(folder, "--webcam", "0", "-o", str(output), "--fov", "60")
    assert done.exit_code == 2 and "lift: camera 0 gives no more frames; check" in done.output
    assert len(output.read_text("utf-8").splitlines()) >= 2 and "frames/s" in done.output


@pytest.mark.parametrize("arguments, message", [
    (("--video", "missing.mp4"), "no video or folder of images at 'missing.mp4'"),
    (("--video", "CLIP", "--webcam", "0"), "got --webcam and --video, expected one source"),
    (("--stdin",), "raw frames do not state their size; pass --image-size"),
    (("--video", "CLIP", "--image-size", "4", "4"), "got --image-size, which describes frames on standard input"),
    (("--video", "CLIP", "--focal", "700", "--fov", "50"), "got --focal and --fov"),
    (("--video", "CLIP", "--osc", "0"), "got the OSC port 0"),
    (("--video", "CLIP", "-o", "nowhere/poses.jsonl"), "nowhere/poses.jsonl"),
    (("--video", "CLIP", "--height", "9"), "got a height of 9"),
    (("--video", "CLIP", "--detector", "unheard"), "Unknown detector 'unheard'"),
])  # fmt: skip
def test_wrong_input_is_one_sentence(folder, arguments, message):
    given = [str(folder / "clip.mp4") if argument == "CLIP" else argument for argument in arguments]
    done = lift_live(folder, *given)
    assert done.exit_code == 2 and message in done.output and "Traceback" not in done.output


def test_weights_must_be_causal_and_there(folder, monkeypatch):
    done = lift_live(folder, "--video", str(folder / "clip.mp4"), weights="symmetric")
    assert done.exit_code == 2 and "looks at later frames, expected a causal one" in done.output
    monkeypatch.setattr(predict_module, "CAUSAL_WEIGHTS", folder / "none.safetensors")
    done = CliRunner().invoke(command, ["--video", str(folder / "clip.mp4"), "--detector", "known"])
    assert done.exit_code == 2 and "no causal weights (none.safetensors is missing" in done.output


def test_the_live_detector_follows_one_person(monkeypatch):
    asked = []
    monkeypatch.setitem(DETECTORS, "several", lambda **options: asked.append(options))
    monkeypatch.setitem(DETECTORS, "single", lambda: asked.append({}))
    live.create_live_detector("several", "models")
    live.create_live_detector("single")
    assert asked == [{"max_people": 1, "model_dir": "models"}, {}]
