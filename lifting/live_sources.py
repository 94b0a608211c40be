"""Where live frames come from: a webcam, a video file in real time, raw frames on standard input.

A source blocks in `read` until its next frame is there; `lifting.live.NewestFrame` reads it on a thread of its own.
"""

from __future__ import annotations

import platform
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from lifting.keypoints import check_fps, check_image_size


class LiveFrame(NamedTuple):
    """One frame: (H, W, 3) uint8 RGB pixels, its time in seconds since the first one, and when it came.

    arrived: `time.monotonic` when the frame was handed over, or was due, from which latency is counted.
    """

    rgb: np.ndarray
    time: float
    arrived: float


class FrameSource(Protocol):
    """What every source offers.

    Attributes:
        name: for messages.
        image_size: (width, height) pixels of every frame.
        fps: frames per second as the source states them, None where it does not.
        focal_metadata: what it says about the lens, None for nothing.
    """

    name: str
    image_size: tuple[int, int]
    fps: float | None
    focal_metadata: dict | None

    def read(self) -> LiveFrame | None:
        """Wait for the next frame; None at the end. Raises OSError when the source fails."""

    def close(self) -> None:
        """Release the device or file."""


class FileSource:
    """A video file or folder of images played in real time. Raises as `lifting.video.open_video`."""

    def __init__(self, path: str | Path) -> None:
        from lifting.video import open_video

        self._reader = open_video(path)
        self.name, self.image_size, self.fps = f"'{Path(path).name}'", self._reader.image_size, self._reader.fps
        self.focal_metadata = self._reader.focal_metadata
        self._frames = iter(self._reader)
        self._start: float | None = None

    def read(self) -> LiveFrame | None:
        """The next frame, not before it is due."""
        frame = next(self._frames, None)
        if frame is None:
            return None
        if self._start is None:
            self._start = time.monotonic() - frame.time_seconds
        due = self._start + frame.time_seconds
        time.sleep(max(0.0, due - time.monotonic()))
        return LiveFrame(frame.rgb, frame.time_seconds, due)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


class StdinSource:
    """Raw frames one after the other, 8 bits for each of red, green and blue, such as ``ffmpeg -f rawvideo`` writes.

    image_size: (width, height). fps: what the writer states, None if unknown. stream: standard input by default. Raises
    ValueError for a size or rate that makes no sense.
    """

    name, focal_metadata = "standard input", None

    def __init__(
        self, image_size: tuple[int, int], fps: float | None = None, stream: BinaryIO | None = None
    ) -> None:
        self.image_size = check_image_size(image_size)
        self.fps = None if fps is None else check_fps(fps)
        self._stream = stream or _unbuffered_input()
        self._start: float | None = None

    def read(self) -> LiveFrame | None:
        """The next frame; OSError where the stream ends inside one."""
        width, height = self.image_size
        wanted = 3 * width * height
        data = _read_up_to(self._stream, wanted)
        if not data:
            return None
        if len(data) < wanted:
            raise OSError(f"standard input ended inside a frame ({len(data)} of {wanted} bytes); check that it holds "
                          f"raw rgb24 frames of {width}x{height}")  # fmt: skip
        now = time.monotonic()
        self._start = now if self._start is None else self._start
        return LiveFrame(np.frombuffer(data, np.uint8).reshape(height, width, 3), now - self._start, now)

    def close(self) -> None:
        """Leave standard input open: it is not ours."""


def _unbuffered_input() -> BinaryIO:
    """Standard input without Python's buffer, whose lock a read that hangs would hold when the interpreter ends."""
    return getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)


def _read_up_to(stream: BinaryIO, wanted: int) -> bytearray:
    """So many bytes, or as many as there are before the end; a pipe gives them in pieces."""
    data, count = bytearray(wanted), 0
    with memoryview(data) as view:
        while count < wanted and (more := stream.readinto(view[count:])):
            count += more
    del data[count:]
    return data


class WebcamSource:
    """A camera by its number, read through OpenCV where that is installed, else through PyAV.

    Raises OSError when there is no such camera or it is in use, ImportError when neither package is installed.
    """

    focal_metadata = None

    def __init__(self, index: int = 0) -> None:
        self.name = f"camera {index}"
        if find_spec("cv2"):
            self._device: _OpenCVCamera | _AvCamera = _OpenCVCamera(index)
        elif find_spec("av"):
            self._device = _AvCamera(*av_input(index))
        else:
            raise ImportError("reading a camera needs OpenCV or PyAV: pip install opencv-python, or "
                              'pip install ".[video]" in a clone of lift')  # fmt: skip
        self.fps = self._device.fps
        self._first = self._device.read()
        if self._first is None:
            self.close()
            raise OSError(f"{self.name} opened but gives no frame; check that no other program uses it")
        self.image_size = (self._first.shape[1], self._first.shape[0])
        self._start: float | None = None

    def read(self) -> LiveFrame | None:
        """The next frame; OSError when the camera does not give one any more."""
        rgb, self._first = (self._device.read() if self._first is None else self._first), None
        if rgb is None:
            raise OSError(f"{self.name} gives no more frames; check that it is still plugged in")
        now = time.monotonic()
        self._start = now if self._start is None else self._start
        return LiveFrame(rgb, now - self._start, now)

    def close(self) -> None:
        """Release the camera."""
        self._device.close()


class _OpenCVCamera:
    """A camera through OpenCV."""

    def __init__(self, index: int) -> None:
        import cv2

        cv2.setLogLevel(0)  # what cannot be opened is said below, in one sentence
        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            raise OSError(f"camera {index} cannot be opened; check its number, that it is plugged in and not in use")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # old frames are of no use
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 1 <= fps <= 1000 else None

    def read(self) -> np.ndarray | None:
        good, bgr = self._capture.read()
        return np.ascontiguousarray(bgr[..., ::-1]) if good and bgr is not None else None

    def close(self) -> None:
        self._capture.release()


def av_input(index: int) -> tuple[str, str]:
    """Name and format by which FFmpeg opens a camera on this system. Raises OSError where it needs another name."""
    known = {"Linux": (f"/dev/video{index}", "v4l2"), "Darwin": (str(index), "avfoundation")}
    if platform.system() not in known:
        raise OSError("on this system PyAV cannot open a camera by its number; pip install opencv-python")
    return known[platform.system()]


class _AvCamera:
    """A camera, or any other live input of FFmpeg, through PyAV."""

    def __init__(self, name: str, kind: str) -> None:
        import av

        try:
            self._container = av.open(name, format=kind)
        except (av.error.FFmpegError, ValueError) as error:
            raise OSError(f"the camera {name} cannot be opened ({error}); check its number, that it is plugged in and "
                          "not in use") from error  # fmt: skip
        rate = self._container.streams.video[0].average_rate
        self.fps = float(rate) if rate else None
        self._frames = self._container.decode(video=0)

    def read(self) -> np.ndarray | None:
        import av

        try:
            frame = next(self._frames, None)
        except av.error.FFmpegError:
            return None
        return None if frame is None else frame.to_ndarray(format="rgb24")

    def close(self) -> None:
        self._container.close()
