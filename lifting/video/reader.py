"""What every source of frames offers: one pass at a time over the frames between two times."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lifting.video.timing import is_uneven

ASSUMED_FPS = 30.0


class Frame(NamedTuple):
    """One frame: number since the first one read, seconds since the start of the video, (H, W, 3) uint8 RGB pixels."""

    index: int
    time_seconds: float
    rgb: np.ndarray


class VideoReader(ABC):
    """What every source offers; iterate for `Frame`s, as often as wanted: each pass starts at the first frame again.

    Known at once: `path`, `image_size` (width, height), `fps`, `num_frames` (an estimate, None when unknown),
    `focal_metadata` (what the file says about the lens, None when nothing), `assumed` (sentences).
    May be set: `frame_size` (width, height), to which frames are then resized while they are decoded; that costs less
    than resizing them later.
    Known after a pass: `times` (seconds of the frames read so far), `variable_rate`, `truncated`, `warnings`.
    """

    image_size: tuple[int, int]
    fps: float
    num_frames: int | None = None
    focal_metadata: dict | None = None
    frame_size: tuple[int, int] | None = None

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


def _range_words(start: float | None, end: float | None) -> str:
    if start is None and end is None:
        return "that can be decoded"
    return f"between {start or 0.0:g} s and {'its end' if end is None else f'{end:g} s'}"
