"""H.264 files, written one frame at a time."""

from __future__ import annotations

import math
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from lifting.video.file_reader import import_av


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
        av = import_av()
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
