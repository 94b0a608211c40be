"""Video files, decoded with PyAV on several threads, with a bounded number of frames in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from lifting.video.reader import ASSUMED_FPS, VideoReader

_PLAUSIBLE_FPS = (0.1, 1000.0)
_APPLE_FOCAL = "com.apple.quicktime.camera.focal_length.35mm_equivalent"


class FileReader(VideoReader):
    """A video file, decoded with PyAV on several threads, with a bounded number of frames in memory."""

    def __init__(self, path: Path, start: float | None = None, end: float | None = None):
        super().__init__(path, start, end)
        with ExitStack() as stack:
            container, stream = _open_container(path, stack)
            self._origin = float((stream.start_time or 0) * stream.time_base)
            self._duration = _duration_seconds(container, stream)
            if start is not None and self._duration is not None and start >= self._duration:
                raise ValueError(f"start is {start:g} s, but '{path.name}' lasts only {self._duration:.2f} s")
            self._total = stream.frames or None
            self.focal_metadata = _focal_metadata(container, stream)
            self._set_rate(stream)
            self._set_geometry(stream, self._first_frame(container, stream))
        if self._total is None and self._duration is not None:
            self._total = max(1, round(self._duration * self.fps))
        self.num_frames = self._limit(self._total)

    def _first_frame(self, container, stream):
        for frame in self._frames(container, stream):
            return frame
        raise ValueError(f"'{self.path.name}' holds no frame that can be decoded: is the file complete?")

    def _set_rate(self, stream) -> None:
        for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
            if rate and _PLAUSIBLE_FPS[0] <= float(rate) <= _PLAUSIBLE_FPS[1]:
                self.fps = float(rate)
                return
        self.fps = self._measured_rate() or ASSUMED_FPS
        if self.fps == ASSUMED_FPS:
            self.assumed += (f"'{self.path.name}' does not say its frame rate: {ASSUMED_FPS:g} frames/s assumed",)

    def _measured_rate(self, packets: int = 120) -> float | None:
        """Return the median rate of the first packets' timestamps, for files whose header gives none."""
        with ExitStack() as stack:
            container, stream = _open_container(self.path, stack)
            stamps = []
            for packet in container.demux(stream):
                if packet.pts is not None:
                    stamps.append(float(packet.pts * packet.time_base))
                if len(stamps) >= packets:
                    break
        gaps = np.diff(np.unique(stamps))
        rate = 1.0 / float(np.median(gaps)) if len(gaps) else 0.0
        return rate if _PLAUSIBLE_FPS[0] <= rate <= _PLAUSIBLE_FPS[1] else None

    def _set_geometry(self, stream, frame) -> None:
        aspect = float(stream.sample_aspect_ratio or 1.0)
        self._stored_size = (max(1, round(frame.width * aspect)), frame.height)
        self._orientation = _orientation(frame)
        turned = self._orientation[0]
        self.image_size = self._stored_size[::-1] if turned else self._stored_size

    def _decode(self) -> Iterator[tuple[float, np.ndarray]]:
        conversion = self._conversion()
        with ExitStack() as stack:
            container, stream = _open_container(self.path, stack)
            if self.start:
                _seek(container, stream, self.start + self._origin)
            seconds = (self.start or 0.0) - 1.0 / self.fps
            for frame in self._frames(container, stream):
                if frame.pts is None:  # raw streams carry no timestamps: count
                    seconds += 1.0 / self.fps
                else:
                    stamp = float(frame.pts * frame.time_base) - self._origin
                    seconds = stamp if stamp > seconds or not self.times else seconds + 0.5 / self.fps
                yield seconds, _upright(frame.to_ndarray(**conversion), self._orientation)
        self._note_missing_end(seconds)

    def _conversion(self) -> dict:
        """How frames become pixels, before they are turned upright: size and method, in PyAV's words."""
        width, height = self._stored_size
        if self.frame_size is not None:
            width, height = self.frame_size[::-1] if self._orientation[0] else self.frame_size
        shrinks = width * height < self._stored_size[0] * self._stored_size[1]
        return dict(format="rgb24", width=width, height=height, interpolation="AREA" if shrinks else "BILINEAR")

    def _frames(self, container, stream) -> Iterator:
        """Yield decoded frames; damaged packets are left out and noted, a broken end ends the stream."""
        import av

        damaged = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.error.FFmpegError:
                self._note_truncated("the file breaks off or is damaged")
                break
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                damaged += 1
        yield from _flush(stream)
        if damaged:
            self.warnings.append(f"{damaged} damaged pieces of '{self.path.name}' cannot be decoded and were left out")

    def _note_missing_end(self, last_seconds: float) -> None:
        """Compare what came with the header; time and count must both fall short (edit lists, long holds)."""
        if self._duration is None or self._total is None or self.truncated:
            return
        came = (last_seconds * self.fps) + 1.0
        if self.start is None:
            came = max(came, len(self.times))
        slack = max(3.0, 0.02 * self._total)
        if came < self._total - slack and last_seconds < self._duration - slack / self.fps:
            self._note_truncated(f"the file ends at {last_seconds:.2f} s of {self._duration:.2f} s")

    def _note_truncated(self, why: str) -> None:
        self.truncated = True
        self.warnings.append(f"'{self.path.name}' is truncated ({why}): only what could be decoded was used")


def import_av():
    """Import PyAV, whose log stays off, as it is by default: its callback deadlocks with the decoder's threads."""
    try:
        import av
    except ImportError as error:
        raise ImportError("reading and writing videos needs PyAV: pip install '.[video]' in a clone of lift") from error
    return av


def _open_container(path: Path, stack: ExitStack):
    """Open a local file: 'file:' keeps odd names from being read as addresses, the list keeps playlists local too."""
    av = import_av()
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"'{path.name}' is empty (0 bytes): expected a video")
    try:
        container = stack.enter_context(av.open(f"file:{path}", options={"protocol_whitelist": "file"}))
    except av.error.PermissionError as error:
        raise OSError(f"'{path.name}' cannot be read: check its permissions") from error
    except (av.error.FFmpegError, UnicodeError) as error:
        raise ValueError(f"'{path.name}' is not a video that can be read, or its header is cut off") from error
    if container.format.name == "tty" or not container.streams.video:
        raise ValueError(f"'{path.name}' holds no video, or is cut off: expected a video file or a folder of images")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ValueError(f"'{path.name}' uses a video codec that this PyAV cannot decode: convert it to H.264")
    stream.thread_type = "AUTO"
    return container, stream


def _duration_seconds(container, stream) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _focal_metadata(container, stream) -> dict | None:
    """Return the file's own entries that speak of a focal length, with `focal_length_35mm` where one gives it."""
    entries = {**container.metadata, **stream.metadata}
    found = {key: value for key, value in entries.items() if "focal" in key.lower()}
    if _APPLE_FOCAL in found:
        found["focal_length_35mm"] = found[_APPLE_FOCAL]
    return found or None


def _seek(container, stream, seconds: float) -> None:
    """Go to the last key frame before `seconds`; containers that cannot seek are read from the start."""
    import av

    try:
        container.seek(max(0, math.floor(seconds / stream.time_base)), stream=stream, backward=True)
    except av.error.FFmpegError:
        container.seek(0)


def _flush(stream) -> Iterator:
    """Yield the frames that still sit in the decoder; already flushed decoders have none."""
    import av

    try:
        yield from stream.codec_context.decode(None)
    except (av.error.EOFError, av.error.FFmpegError):
        return


def _orientation(frame) -> tuple[bool, bool, bool]:
    """Return (transpose, flip columns, flip rows) that make the stored picture upright, from its display matrix.

    The matrix (FFmpeg: 3x3 of 16.16 fixed point, y down) sends stored (x, y) to shown (a x + c y, b x + d y).
    """
    for item in frame.side_data:
        if "DISPLAYMATRIX" in str(item.type):
            a, b, _, c, d = np.frombuffer(bytes(item), dtype=np.int32)[:5].tolist()
            if abs(b) + abs(c) > abs(a) + abs(d):
                return True, c < 0, b < 0
            return False, a < 0, d < 0
    return False, False, False


def _upright(rgb: np.ndarray, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    transpose, flip_columns, flip_rows = orientation
    if transpose:
        rgb = rgb.transpose(1, 0, 2)
    if flip_columns:
        rgb = rgb[:, ::-1]
    if flip_rows:
        rgb = rgb[::-1]
    return np.ascontiguousarray(rgb)
