"""Videos and folders of images, read one frame at a time, and H.264 files written one frame at a time.

Frames are uint8 RGB arrays (height, width, 3), upright: the rotation or mirroring that phones write into the file is
applied, non-square pixels are made square, and `image_size` is (width, height) after that.

One rule for time. Frames are passed on as they are, none doubled and none dropped, and each carries its true time in
seconds since the start of the video, from the file's own timestamps. `fps` is the file's average rate. When the
timestamps leave an even grid by more than 15 % of a frame (phones in dim light, screen recordings),
`variable_rate` is True after the pass, and whoever needs an even rate moves what was measured in the frames, not the
frames, onto it: `to_constant_rate(values, times, fps)`.
"""

from __future__ import annotations

import math
from pathlib import Path

from lifting.video.file_reader import FileReader
from lifting.video.images import IMAGE_SUFFIXES, ImageReader
from lifting.video.reader import ASSUMED_FPS, Frame, VideoReader
from lifting.video.timing import is_uneven, to_constant_rate, uniform_times
from lifting.video.writer import VideoWriter

__all__ = [
    "ASSUMED_FPS", "IMAGE_SUFFIXES", "FileReader", "Frame", "ImageReader", "VideoReader", "VideoWriter", "is_uneven",
    "open_video", "to_constant_rate", "uniform_times",
]  # fmt: skip


def open_video(
    path: str | Path, start: float | None = None, end: float | None = None, fps: float | None = None
) -> VideoReader:
    """Open a video file, a folder of images or one image for reading.

    `start` and `end` are seconds since the start of the video: frames with start <= time < end are read. `fps` is the
    rate of a folder of images (30 is assumed otherwise); a video file brings its own.

    Raises FileNotFoundError when nothing lies at `path`, ValueError when it is no video, holds no frame, or when a
    number makes no sense, ImportError when PyAV is missing.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no video or folder of images at '{path}': check the path")
    _check_range(start, end)
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}, expected a positive number of frames per second")
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageReader(path, start, end, fps)
    if fps is not None:
        raise ValueError(f"fps={fps:g} was given with the video '{path.name}', which has its own rate: leave fps out")
    return FileReader(path, start, end)


def _check_range(start: float | None, end: float | None) -> None:
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}, expected seconds since the start of the video, 0 or more")
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"end ({end:g} s) is not after start ({start or 0.0:g} s): nothing lies between")
