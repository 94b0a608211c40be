"""Frame rates one frame at a time: frames of any times in, samples of an even grid out, and poses back at the frames.

The causal rule. The grid starts at the first frame. A sample is interpolated between the frames before and after it,
as soon as the latter has come; no average over several frames is taken, since it would lag. A frame's pose lies between
those of two samples: with a look-ahead it is interpolated as soon as both are there, without one it is extrapolated
from the last two samples at or before the frame, so that it comes at once. Where frames lie on the grid, nothing is
changed. Streams and whole clips use this same code.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

ON_GRID = 1e-3  # steps: a frame so near to a sample lies on it


class Sample(NamedTuple):
    """Keypoints of one sample: xy (J, 2) pixels, NaN where unseen, and score (J,), 0 where unseen."""

    xy: np.ndarray
    score: np.ndarray


class KeypointGrid:
    """Brings frames of any rising times onto a grid. rate: samples per second."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._start: float | None = None
        self._next = 0  # number of the sample to come
        self._last: tuple[float, Sample] | None = None

    def position(self, time: float) -> float:
        """Where a time in seconds lies on the grid, in steps; whole numbers are samples."""
        if self._start is None:
            self._start = time
        steps = (time - self._start) * self.rate
        return float(round(steps)) if abs(steps - round(steps)) < ON_GRID else steps

    def push(self, position: float, frame: Sample) -> list[Sample]:
        """The samples that the next frame completes; its position is later than that of the frame before."""
        samples = []
        while self._next <= position:
            if self._last is None or self._next == position:
                samples.append(frame)
            else:
                low, before = self._last
                samples.append(between(before, frame, (self._next - low) / (position - low)))
            self._next += 1
        self._last = position, frame
        return samples


def between(before: Sample, after: Sample, part: float) -> Sample:
    """The sample at `part` (0 to 1) of the way; with one neighbour unseen, the other serves half the way."""
    seen, then = before.score > 0, after.score > 0
    parts = np.full(len(seen), part, np.float32)
    parts[seen & ~then] = 0.0 if part <= 0.5 else part
    parts[then & ~seen] = 1.0 if part >= 0.5 else part
    uses_before, uses_after = parts < 1, parts > 0
    blend = np.where(uses_before[:, None], before.xy, 0) * (1 - parts)[:, None]
    blend = blend + np.where(uses_after[:, None], after.xy, 0) * parts[:, None]
    score = np.minimum(np.where(uses_before, before.score, 1), np.where(uses_after, after.score, 1))
    xy = np.where(score[:, None] > 0, blend, np.nan)
    return Sample(xy.astype(np.float32), score.astype(np.float32))


class PoseTimes:
    """Brings values of the grid's samples back to the frames, oldest first.

    waits: whether a frame waits for the sample after it, as it does with a look-ahead.
    """

    def __init__(self, waits: bool) -> None:
        self._waits = waits
        self._frames: deque[tuple[float, object]] = deque()  # as many as the look-ahead holds back
        self._last: deque[tuple[np.ndarray, ...]] = deque(maxlen=2)
        self._newest = -1  # number of the newest sample

    def add_frame(self, position: float, frame: object) -> None:
        """Await the values at a position, for a frame that the caller names."""
        self._frames.append((position, frame))

    def add_sample(self, values: tuple[np.ndarray, ...]) -> list[tuple[object, tuple[np.ndarray, ...]]]:
        """Take the values of the next sample and return what becomes known before the next one after it."""
        self._last.append(values)
        self._newest += 1
        return self.known()

    def known(self, at_end: bool = False) -> list[tuple[object, tuple[np.ndarray, ...]]]:
        """Frames whose values are known by now, at the end all of them, with these."""
        found = []
        while self._frames and self._newest >= 0 and (at_end or self._reaches(self._frames[0][0])):
            position, frame = self._frames.popleft()
            found.append((frame, self._at(position)))
        return found

    def _reaches(self, position: float) -> bool:
        return self._newest >= (np.ceil(position) if self._waits else np.floor(position))

    def _at(self, position: float) -> tuple[np.ndarray, ...]:
        *earlier, newest = self._last
        part = np.float32(position - self._newest)  # below 0: towards the sample before
        if part == 0 or not earlier:
            return newest
        return tuple(now + part * (now - before) for now, before in zip(newest, earlier[0], strict=True))

    @property
    def size(self) -> int:
        """Frames and samples held."""
        return len(self._frames) + len(self._last)
