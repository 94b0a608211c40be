"""Live runs: dropped frames, cameras that stall or fail, sources and sinks read back by independent means."""

from __future__ import annotations

import io
import json
import socket
import struct
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from causal_lifters import causal_lifter
from filmed_walker import CAMERA, SIZE, KnownDetector, filmed, write_video

from lifting import live_sources
from lifting.keypoints import Detection
from lifting.live import LiveRun, MainPerson, NewestFrame, SourceError, choose_live_camera, warm_up
from lifting.live_sinks import JsonLines, OscSender
from lifting.live_sources import FileSource, LiveFrame, StdinSource, WebcamSource
from lifting.skeletons import get_skeleton
from lifting.streaming import Pose

pytestmark = pytest.mark.usefixtures("one_thread")
H36M = get_skeleton("h36m17")
GREY = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)


class Frames:
    """A source of so many frames, as fast as they are taken; then it ends, fails or hangs."""

    name, image_size, fps, focal_metadata = "camera 7", SIZE, 25.0, None

    def __init__(self, count: int, wait: float = 0.0, then: str = "end") -> None:
        self.count, self.wait, self.then, self.index, self.closed = count, wait, then, 0, False

    def read(self) -> LiveFrame | None:
        if self.index == self.count:
            if self.then == "hang":
                time.sleep(0.5)
            if self.then == "fail":
                raise OSError("camera 7 gives no more frames; check that it is still plugged in")
            return None
        time.sleep(self.wait)
        self.index += 1
        return LiveFrame(GREY, (self.index - 1) / 25, time.monotonic())

    def close(self) -> None:
        self.closed = True


class Kept(list):
    """A sink that keeps the poses."""

    def write(self, pose: Pose) -> None:
        self.append(pose)

    def close(self) -> None:
        pass


def run(source: Frames, lookahead: int = 0, **options) -> tuple[object, Kept]:
    sink, keypoints = Kept(), filmed(60)
    stream = causal_lifter().stream(CAMERA, lookahead=lookahead)
    return LiveRun(source, KnownDetector(keypoints), stream, [sink], **options).run(), sink


# ---- frames


def test_who_is_slow_misses_frames_and_never_falls_behind():
    source = Frames(12, wait=0.01)
    frames, taken = NewestFrame(source), []
    for frame in frames:
        taken.append(round(frame.time * 25))
        time.sleep(0.045)
    frames.close()
    assert taken == sorted(set(taken)) and taken[-1] == 11
    assert len(taken) + frames.dropped == 12 and frames.dropped >= 4
    assert source.closed


def test_a_stalled_camera_says_so():
    frames = NewestFrame(Frames(2, wait=0.02, then="hang"), patience=0.1)
    taken = []
    with pytest.raises(SourceError, match="camera 7 has stalled: no frame for 0.1 s"):
        taken += list(frames)
    frames.close()


@pytest.mark.parametrize("then, message", [("fail", "still plugged in"), ("hang", "has stalled")])
def test_what_has_come_is_kept_when_the_camera_fails(then, message):
    report, poses = run(Frames(5, wait=0.03, then=then), lookahead=5, patience=0.15)
    assert message in report.problem and "camera 7" in report.problem
    assert report.poses == len(poses) == report.frames >= 1  # those held back by the look-ahead came, too


def test_a_run_is_measured():
    report, poses = run(Frames(10, wait=0.03))
    assert report.problem is None and report.frames + report.dropped == 10
    assert report.frames == report.seen == report.poses == len(poses)
    assert 0 < report.latency_ms[0] <= report.latency_ms[1] < 10_000 and report.lifter_ms > 0
    assert report.rate == pytest.approx(report.frames / report.seconds)
    assert f"{report.frames} frames at" in report.sentence() and f"{report.dropped} dropped" in report.sentence()
    expected = causal_lifter().stream(CAMERA)
    first = expected.push(filmed(60).xy[0], filmed(60).score[0], 0.0)
    np.testing.assert_allclose(poses[0].joints, first.joints, atol=1e-5)


@pytest.mark.parametrize("lookahead", [0, 5])
def test_warming_up_leaves_no_trace(lookahead):
    stream, looked_at = causal_lifter().stream(CAMERA, lookahead=lookahead, height=1.8, smooth=0.5), []

    class Counted(KnownDetector):
        def detect(self, frames):
            return super().detect(looked_at.append(frame.shape) or frame for frame in frames)

    keypoints, found = filmed(20), []
    for warm in (False, True):
        if warm:
            warm_up(Counted(keypoints), stream)
        poses = [pose for xy in keypoints.xy for pose in stream.feed(xy)]
        found.append(np.stack([pose.absolute for pose in poses + stream.flush()]))
    np.testing.assert_array_equal(*found)
    assert looked_at == [(SIZE[1], SIZE[0], 3)] and len(found[0]) == 20


def test_a_run_stops_when_its_time_is_up():
    source = Frames(1000, wait=0.01)
    report, _ = run(source, seconds=0.2)
    assert 0 < report.frames < 100 and report.problem is None and source.closed


def test_a_broken_sink_is_an_error():
    class Broken(Kept):
        def write(self, pose: Pose) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        LiveRun(Frames(3, 0.01), KnownDetector(filmed(5)), causal_lifter().stream(CAMERA), [Broken()]).run()


# ---- whom to follow


def person(x: float, size: float = 100, score: float = 0.9) -> Detection:
    shape = np.random.default_rng(0).uniform(-0.5, 0.5, (17, 2)) * (0.4, 1)
    return Detection(shape * size + (x, 200), np.full(17, score))


def test_the_main_person_is_the_largest_and_stays_it():
    main = MainPerson()
    assert main.choose([], 0.0) is None
    assert main.choose([person(100), person(400, 200)], 0.1).xy[:, 0].mean() > 300
    assert main.choose([person(100, 400), person(405, 200)], 0.2).xy[:, 0].mean() > 300
    assert main.choose([person(100, 400)], 0.3) is None  # somebody else
    assert main.choose([person(480, 200)], 0.6) is not None  # after dropped frames a person is further away
    assert main.choose([person(100, 400)], 0.7) is None
    assert main.choose([person(100, 400)], 1.7) is not None  # nobody else for a second


# ---- sources


def test_a_file_plays_in_real_time(tmp_path):
    source = FileSource(write_video(tmp_path / "clip.mp4", frames=6))
    start, frames = time.monotonic(), []
    while (frame := source.read()) is not None:
        frames.append(frame)
    assert time.monotonic() - start >= 5 / 25
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(6) / 25, atol=1e-6)
    np.testing.assert_allclose(np.diff([frame.arrived for frame in frames]), 1 / 25, atol=1e-6)
    assert source.image_size == SIZE and frames[0].rgb.shape == (480, 640, 3)
    source.close()


def test_raw_frames_come_from_a_stream():
    pixels = np.random.default_rng(0).integers(0, 255, (2, 4, 6, 3), np.uint8)
    source = StdinSource((6, 4), stream=io.BytesIO(pixels.tobytes() + b"12345"))
    found = [source.read() for _ in range(2)]
    np.testing.assert_array_equal([frame.rgb for frame in found], pixels)
    assert found[0].time == 0 < found[1].time
    with pytest.raises(OSError, match="ended inside a frame \\(5 of 72 bytes\\)"):
        source.read()
    assert StdinSource((6, 4), stream=io.BytesIO()).read() is None
    with pytest.raises(ValueError, match="image_size"):
        StdinSource((6, 0))


STALLED_INPUT = """
import threading, time
from lifting.live_sources import StdinSource
threading.Thread(target=StdinSource((6, 4)).read, daemon=True).start()
time.sleep(0.3)
raise SystemExit(2)
"""


def test_an_input_that_stalls_does_not_abort_the_end_of_the_program():
    command, pipe = [sys.executable, "-c", STALLED_INPUT], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe) as process:
        process.stdin.write(bytes(5))
        process.stdin.flush()
        code, said = process.wait(timeout=60), process.stderr.read()
    assert (code, said) == (2, b"")


class FakeCapture:
    """What OpenCV's VideoCapture does, for a camera 0 that breaks after three frames."""

    def __init__(self, index: int) -> None:
        self.index, self.left, self.released = index, 3, False

    def isOpened(self) -> bool:  # noqa: N802  OpenCV's name
        return self.index == 0

    def set(self, *_) -> None:
        pass

    def get(self, _) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        bgr = np.zeros((4, 6, 3), np.uint8)
        bgr[..., 0] = 200 + self.left
        return (True, bgr) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.released = True


def test_a_webcam_through_opencv(monkeypatch):
    fake = types.SimpleNamespace(
        VideoCapture=FakeCapture, CAP_PROP_BUFFERSIZE=38, CAP_PROP_FPS=5, setLogLevel=lambda _: None
    )
    monkeypatch.setitem(sys.modules, "cv2", fake)
    monkeypatch.setattr(live_sources, "find_spec", lambda name: name == "cv2" or None)
    source = WebcamSource(0)
    assert (source.image_size, source.fps) == ((6, 4), 30.0)
    assert [int(source.read().rgb[0, 0, 2]) for _ in range(3)] == [202, 201, 200]  # blue is last in RGB
    with pytest.raises(OSError, match="camera 0 gives no more frames"):
        source.read()
    source.close()
    with pytest.raises(OSError, match="camera 1 cannot be opened"):
        WebcamSource(1)


def test_a_webcam_without_opencv_is_read_by_pyav(monkeypatch):
    monkeypatch.setattr(live_sources, "find_spec", lambda name: name == "av" or None)
    clip = ("testsrc=size=64x48:rate=25:duration=0.2", "lavfi")
    monkeypatch.setattr(live_sources, "av_input", lambda index: clip)
    source = WebcamSource(0)
    assert source.image_size == (64, 48) and source.fps == 25
    frames = [source.read() for _ in range(5)]
    assert all(frame.rgb.shape == (48, 64, 3) for frame in frames)
    with pytest.raises(OSError, match="camera 0 gives no more frames"):
        source.read()
    source.close()
    monkeypatch.undo()
    monkeypatch.setattr(live_sources, "find_spec", lambda name: name == "av" or None)
    with pytest.raises(OSError, match="cannot be opened"):
        WebcamSource(97)
    monkeypatch.setattr(live_sources, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs OpenCV or PyAV"):
        WebcamSource(0)


def test_the_camera_of_a_source(tmp_path):
    source = Frames(1)
    camera, sentence = choose_live_camera(source)
    assert camera.image_size == SIZE and "assumed" in sentence
    assert choose_live_camera(source, fov=60)[0].fov == pytest.approx(60)
    assert choose_live_camera(source, focal=700)[0].focal[0] == 700
    with pytest.raises(ValueError, match="--focal and --fov"):
        choose_live_camera(source, focal=700, fov=60)


# ---- sinks

POSE = Pose(1.25, np.arange(51, dtype=np.float32).reshape(17, 3) / 100, np.float32([0.5, 0.25, 3]),
            np.full(17, 0.03, np.float32), True, H36M)  # fmt: skip


def test_json_lines_come_back(tmp_path):
    path = tmp_path / "poses.jsonl"
    sink = JsonLines(path, H36M, 5)
    sink.write(POSE)
    header, pose = map(json.loads, path.read_text("utf-8").splitlines())  # there before it is closed
    sink.close()
    assert header["skeleton"] == "h36m17" and header["joints"] == list(H36M.joints) and header["lookahead"] == 5
    assert header["unit"] == "m" and header["frame"] == "camera"
    assert pose["time"] == 1.25 and pose["seen"] is True and pose["root"] == [0.5, 0.25, 3.0]
    np.testing.assert_allclose(pose["joints"], POSE.joints, atol=1e-4)
    with pytest.raises(OSError, match="No such file"):
        JsonLines(tmp_path / "nowhere" / "poses.jsonl", H36M)


def osc_text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode(), (end // 4 + 1) * 4


def read_osc(packet: bytes) -> dict[str, tuple]:
    """An independent reader of OSC bundles."""
    assert packet[:16] == b"#bundle\0" + bytes(7) + b"\1" and len(packet) % 4 == 0
    messages, at = {}, 16
    while at < len(packet):
        (size,) = struct.unpack_from(">i", packet, at)
        body = packet[at + 4 : at + 4 + size]
        address, inside = osc_text(body, 0)
        tags, inside = osc_text(body, inside)
        messages[address] = struct.unpack_from(">" + tags[1:], body, inside)
        at += 4 + size
    return messages


def test_osc_reaches_another_program_on_this_machine():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        sink = OscSender(listener.getsockname()[1], H36M)
        sink.write(POSE)
        messages = read_osc(listener.recv(65536))
        sink.close()
    assert messages["/lift/time"] == (1.25,) and messages["/lift/seen"] == (1,)
    assert messages["/lift/root"] == (0.5, 0.25, 3.0) and len(messages) == 20
    for k, name in enumerate(H36M.joints):
        np.testing.assert_allclose(messages[f"/lift/joint/{name}"], [*POSE.absolute[k], 0.03], rtol=1e-6)
    with pytest.raises(ValueError, match="OSC port 70000"):
        OscSender(70000, H36M)
