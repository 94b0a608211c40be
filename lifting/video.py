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
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

ASSUMED_FPS = 30.0
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_PLAUSIBLE_FPS = (0.1, 1000.0)
_UNEVEN_FRACTION = 0.15  # of a frame: millisecond timestamps at 240 frames/s stay below, a dropped frame does not
_APPLE_FOCAL = "com.apple.quicktime.camera.focal_length.35mm_equivalent"
_EXIF_IFD, _EXIF_FOCAL_35MM = 0x8769, 0xA405


class Frame(NamedTuple):
    """One frame: number since the first one read, seconds since the start of the video, (H, W, 3) uint8 RGB pixels."""

    index: int
    time_seconds: float
    rgb: np.ndarray


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


class VideoReader(ABC):
    """What every source offers; iterate for `Frame`s, as often as wanted: each pass starts at the first frame again.

    Known at once: `path`, `image_size` (width, height), `fps`, `num_frames` (an estimate, None when unknown),
    `focal_metadata` (what the file says about the lens, None when nothing), `assumed` (sentences).
    Known after a pass: `times` (seconds of the frames read so far), `variable_rate`, `truncated`, `warnings`.
    """

    image_size: tuple[int, int]
    fps: float
    num_frames: int | None = None
    focal_metadata: dict | None = None

    def __init__(self, path: Path, start: float | None, end: float | None):
        self.path = path
        self.start, self.end = start, end
        self.assumed: tuple[str, ...] = ()
        self.times: list[float] = []
        self.truncated = False
        self.warnings: list[str] = []
        self._passes: list[Iterator] = []

    def __enter__(self) -> VideoReader:
        """Return itself; leaving the block closes the file."""
        return self

    def __exit__(self, *_error) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Release the file and the decoder; a pass that is still running ends."""
        while self._passes:
            self._passes.pop().close()

    def __iter__(self) -> Iterator[Frame]:
        """Start a new pass over the frames between start and end."""
        self.times, self.warnings, self.truncated = [], [], False
        source = self._decode()
        self._passes.append(source)
        return self._read(source)

    @property
    def variable_rate(self) -> bool:
        """Whether the timestamps read so far leave an even grid by more than 15 % of a frame."""
        return is_uneven(self.times)

    @abstractmethod
    def _decode(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield (seconds, rgb) from `start` on, or a little before it."""

    def _read(self, source: Iterator[tuple[float, np.ndarray]]) -> Iterator[Frame]:
        half = 0.5 / self.fps
        first = -math.inf if self.start is None else self.start - min(half, 1e-4)
        last = math.inf if self.end is None else self.end - min(half, 1e-4)
        try:
            for seconds, rgb in source:
                if seconds >= last:
                    break
                if seconds >= first:
                    self.times.append(seconds)
                    yield Frame(len(self.times) - 1, seconds, rgb)
        finally:
            source.close()
            if source in self._passes:
                self._passes.remove(source)
        if not self.times:
            where = _range_words(self.start, self.end)
            raise ValueError(f"'{self.path.name}' has no frame {where}: check start and end")

    def _limit(self, total: int | None) -> int | None:
        """Return how many of `total` frames, evenly spaced, lie between start and end."""
        if total is None:
            return None
        first = min(total, math.ceil((self.start or 0.0) * self.fps - 0.01))
        last = total if self.end is None else min(total, math.ceil(self.end * self.fps - 0.01))
        return max(0, last - first)


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
        width, height = self._stored_size
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
                rgb = frame.to_ndarray(format="rgb24", width=width, height=height)
                yield seconds, _upright(rgb, self._orientation)
        self._note_missing_end(seconds)

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


class ImageReader(VideoReader):
    """A folder of images of one size in natural order (2 before 10), or a single image."""

    def __init__(self, path: Path, start: float | None = None, end: float | None = None, fps: float | None = None):
        super().__init__(path, start, end)
        self._files = _image_files(path)
        self.fps = ASSUMED_FPS if fps is None else float(fps)
        if fps is None and len(self._files) > 1:
            self.assumed = (f"images carry no frame rate: {ASSUMED_FPS:g} frames/s assumed, give fps to change it",)
        self.image_size, self.focal_metadata = _image_header(self._files[0])
        for file in self._files[1:]:
            self._check_size(file, _image_header(file)[0])
        self.num_frames = self._limit(len(self._files))
        if not self.num_frames:
            raise ValueError(
                f"start is {start} s, but the {len(self._files)} images in '{path.name}' last "
                f"{len(self._files) / self.fps:.2f} s at {self.fps:g} frames/s"
            )

    def _check_size(self, file: Path, size: tuple[int, int]) -> None:
        if size != self.image_size:
            raise ValueError(
                f"image '{file.name}' is {size[0]}x{size[1]}, but '{self._files[0].name}' is "
                f"{self.image_size[0]}x{self.image_size[1]}: all images of a folder must have one size"
            )

    def _decode(self) -> Iterator[tuple[float, np.ndarray]]:
        first = 0 if self.start is None else max(0, math.floor(self.start * self.fps) - 1)
        for index in range(first, len(self._files)):
            yield index / self.fps, _read_image(self._files[index])


class VideoWriter:
    """Write an H.264 file frame by frame; the file appears under its name only when the block ends without an error.

    ```
    with VideoWriter("overlay.mp4", (1280, 720), fps=30) as writer:
        writer.write(rgb)
    ```
    An odd width or height is made even by repeating the last column or row. Raises ValueError for a bad size or rate
    or when no frame was written, OSError when the place cannot be written to, ImportError when PyAV is missing.
    """

    def __init__(
        self, path: str | Path, image_size: tuple[int, int], fps: float, *, quality: int = 21, preset: str = "veryfast"
    ):
        width, height = image_size
        if not (width >= 2 and height >= 2):
            raise ValueError(f"image size is {width}x{height}, expected at least 2x2 pixels")
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps is {fps}, expected a positive number of frames per second")
        self.path, self.image_size, self.fps = Path(path), (int(width), int(height)), float(fps)
        self._options = {"crf": str(quality), "preset": preset}
        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        self._written, self._last_stamp = 0, -1
        self._stack = ExitStack()

    def __enter__(self) -> VideoWriter:
        """Open a temporary file beside the target."""
        av = _import_av()
        from lifting.files import atomic_path

        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            options = {"movflags": "+faststart"} if self.path.suffix.lower() in (".mp4", ".mov", ".m4v") else {}
            try:
                self._container = stack.enter_context(av.open(f"file:{temporary}", mode="w", options=options))
            except ValueError as error:
                raise ValueError(f"cannot write a video named '{self.path.name}': use the suffix .mp4") from error
            self._stream = self._new_stream(av)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, trace) -> None:
        """Finish the file and give it its name, or remove it when the block ended with an error."""
        with self._stack:  # leaves the container and then the temporary file, whose fate the exception decides
            if kind is not None:
                raise error.with_traceback(trace)
            if not self._written:
                raise ValueError(f"no frame was written to '{self.path.name}': a video needs at least one")
            self._container.mux(self._stream.encode(None))

    def write(self, rgb: np.ndarray, time_seconds: float | None = None) -> None:
        """Append one frame: `rgb` (height, width, 3) uint8; shown at `time_seconds`, by default evenly at the rate."""
        import av

        width, height = self.image_size
        if rgb.shape != (height, width, 3) or rgb.dtype != np.uint8:
            raise ValueError(f"frame is {rgb.dtype} {rgb.shape}, expected uint8 ({height}, {width}, 3)")
        if self._pad[0][1] or self._pad[1][1]:
            rgb = np.pad(rgb, self._pad, mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        seconds = self._written / self.fps if time_seconds is None else time_seconds
        self._last_stamp = max(self._last_stamp + 1, round(seconds / self._stream.codec_context.time_base))
        frame.pts, frame.time_base = self._last_stamp, self._stream.codec_context.time_base
        self._container.mux(self._stream.encode(frame))
        self._written += 1

    def _new_stream(self, av):
        codec = "libx264" if "libx264" in av.codecs_available else "h264"
        rate = Fraction(self.fps).limit_denominator(1001)
        stream = self._container.add_stream(codec, rate=rate or Fraction(1, 1000), options=self._options)
        width, height = self.image_size
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90000)
        stream.codec_context.color_range = 1  # limited range, and BT.709 below: what players take for granted
        stream.codec_context.colorspace = 1
        stream.codec_context.color_primaries = 1
        stream.codec_context.color_trc = 1
        return stream


def is_uneven(times) -> bool:
    """Return whether `times` (T,) seconds leave the best even grid by more than 15 % of a frame."""
    times = np.asarray(times, dtype=np.float64)
    if len(times) < 3:
        return False
    index = np.arange(len(times)) - (len(times) - 1) / 2
    step = float(index @ times) / float(index @ index)
    return bool(np.max(np.abs(times - times.mean() - step * index)) > _UNEVEN_FRACTION * step)


def uniform_times(times, fps: float) -> np.ndarray:
    """Return the even grid (T',) in seconds, one step of 1/fps, from the first of `times` (T,) to the last."""
    times = np.asarray(times, dtype=np.float64)
    if len(times) == 0:
        return times
    return times[0] + np.arange(int((times[-1] - times[0]) * fps + 1e-6) + 1) / fps


def to_constant_rate(values: np.ndarray, times, fps: float) -> np.ndarray:
    """Interpolate `values` (T, ...), measured at rising `times` (T,) seconds, onto `uniform_times(times, fps)`.

    Linear in time; a NaN on either side gives NaN, so gaps stay gaps. Returns (T', ...) float.
    Raises ValueError when lengths differ.
    """
    values, times = np.asarray(values), np.asarray(times, dtype=np.float64)
    if len(values) != len(times):
        raise ValueError(f"{len(values)} values were given with {len(times)} times: both must have one length")
    if len(times) < 2:
        return values.astype(np.result_type(values, np.float32))
    grid = uniform_times(times, fps)
    after = np.clip(np.searchsorted(times, grid, side="right"), 1, len(times) - 1)
    weight = np.clip((grid - times[after - 1]) / (times[after] - times[after - 1]), 0.0, 1.0)
    weight = weight.reshape((-1,) + (1,) * (values.ndim - 1)).astype(np.result_type(values, np.float32))
    low, high = values[after - 1], values[after]
    return np.where(weight <= 1e-6, low, np.where(weight >= 1 - 1e-6, high, low + weight * (high - low)))


def _check_range(start: float | None, end: float | None) -> None:
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}, expected seconds since the start of the video, 0 or more")
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"end ({end:g} s) is not after start ({start or 0.0:g} s): nothing lies between")


def _range_words(start: float | None, end: float | None) -> str:
    if start is None and end is None:
        return "that can be decoded"
    return f"between {start or 0.0:g} s and {'its end' if end is None else f'{end:g} s'}"


def _import_av():
    """Import PyAV, whose log stays off, as it is by default: its callback deadlocks with the decoder's threads."""
    try:
        import av
    except ImportError as error:
        raise ImportError("reading and writing videos needs PyAV: pip install '.[video]' in a clone of lift") from error
    return av


def _open_container(path: Path, stack: ExitStack):
    """Open a local file: 'file:' keeps odd names from being read as addresses, the list keeps playlists local too."""
    av = _import_av()
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


def _natural_key(path: Path) -> list:
    pieces = re.split(r"([0-9]+)", path.name.lower())
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def _image_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
    if not files:
        raise ValueError(f"folder '{path.name}' holds no images: expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return sorted(files, key=_natural_key)


def _image_header(path: Path) -> tuple[tuple[int, int], dict | None]:
    """Return the upright size (width, height) and what the image says about its lens, without decoding it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            exif = image.getexif()
            turned = exif.get(0x0112, 1) >= 5  # EXIF orientations 5-8 swap the sides
            size = image.size[::-1] if turned else image.size
            focal = exif.get_ifd(_EXIF_IFD).get(_EXIF_FOCAL_35MM)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image '{path.name}' cannot be read: is it a complete image file?") from error
    return size, {"focal_length_35mm": float(focal)} if focal else None


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16-bit grey: PIL would clip instead of scaling
                grey = np.asarray(image, dtype=np.int64)
                return np.repeat((grey >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"image '{path.name}' is damaged and cannot be decoded: replace or remove it") from error
