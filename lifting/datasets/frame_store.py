"""The frames that training windows are cut from: all in memory where they fit, else read when needed.

A table is a dict of arrays with one row a frame:

- ``keypoints``: (F, J, 2) screen coordinates, NaN where unseen, or, with scores, (F, J, 3), all 0 where unseen.
- ``pixels``: (F, J, 2) px, NaN where unseen.
- ``valid``: (F,) bool, whether the frame has its label; always, where there are no labels.
- ``joints``: (F, J_out, 3) metres relative to the root, 0 where not valid; absent without labels.
- ``root``: (F, 3) metres, camera frame, 0 where not valid; absent without a trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lifting.datasets.clips import Clip, ClipSet
from lifting.motion import Motion

MEMORY = 1 << 30
"""Bytes of frames that are kept in memory, unless told otherwise."""

Table = dict[str, np.ndarray]


class Span(NamedTuple):
    """Every `step`-th frame from `start` to before `stop` of the clip `index`; rows count them from 0."""

    index: int
    start: int
    stop: int
    step: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(range(self.start, self.stop, self.step))


class Block(NamedTuple):
    """Rows `start` to before `stop` of the span number `span`."""

    span: int
    start: int
    stop: int


class FrameStore:
    """The frames of some spans of a clip set, to `gather` windows from.

    Attributes:
        spans: S of them, at least one; all of clips with labels or all of clips without.
        rows: (S,) rows of each span.
        in_memory: whether all frames were read at once, since they take at most `memory` bytes; else every `gather`
            reads what it needs. The numbers are the same.

    Raises ValueError when some clips have labels, or a trajectory, and others do not, and as `ClipSet.read`.
    """

    def __init__(self, clips: ClipSet, spans: Sequence[Span], scores: bool = False, memory: int = MEMORY) -> None:
        self.spans, self._clips, self._scores = tuple(spans), clips, scores
        self.rows = np.array([span.rows for span in self.spans], np.int64)
        self._check_labels()
        frame = self._read_block(Block(0, 0, 1))
        self._empty = {name: column[:0] for name, column in frame.items()}
        self._first_row = np.concatenate([[0], np.cumsum(self.rows)])
        self.in_memory = sum(column.nbytes for column in frame.values()) * int(self._first_row[-1]) <= memory
        whole = [Block(number, 0, span.rows) for number, span in enumerate(self.spans)]
        self._table = self._read(whole) if self.in_memory else None

    def gather(self, spans: np.ndarray, rows: np.ndarray, inner: slice) -> Table:
        """The rows (N, L), ascending in each window, of the spans (N,), as a table of arrays (N, L, ...).

        Only ``keypoints`` have all L columns, the others those of `inner`. Raises ValueError for a clip without the
        labels of the others, and as `ClipSet.read`.
        """
        table, first_row = self._table, self._first_row[spans]
        if not self.in_memory:
            blocks, first_row = windows_to_blocks(spans, rows)
            table = self._read(blocks)
        rows = first_row[:, None] + rows
        inner_rows = np.ascontiguousarray(rows[:, inner])
        return {name: column.take(rows if name == "keypoints" else inner_rows, axis=0)
                for name, column in table.items()}

    def _read(self, blocks: Sequence[Block]) -> Table:
        """Blocks one after the other, in one table."""
        total = sum(block.stop - block.start for block in blocks)
        table = {name: np.empty((total, *column.shape[1:]), column.dtype) for name, column in self._empty.items()}
        done = 0
        for block in blocks:
            part = self._read_block(block)
            self._check_columns(part, block)
            for name, column in part.items():
                table[name][done : done + len(column)] = column
            done += block.stop - block.start
        return table

    def _read_block(self, block: Block) -> Table:
        span = self.spans[block.span]
        first, last = span.start + block.start * span.step, span.start + (block.stop - 1) * span.step
        return frame_table(self._clips.read(span.index, first, last + 1), self._scores, span.step)

    def _check_labels(self) -> None:
        """Refuse a mixture before anything is read."""
        infos = [self._clips.infos[span.index] for span in self.spans]
        ends = [next((info for info in infos if info.labelled == labelled), None) for labelled in (True, False)]
        if all(ends):
            raise ValueError(f"clip {ends[0].name} has labels and {ends[1].name} has none, expected the same of all; "
                             "choose those with labels, or use all of them without.")

    def _check_columns(self, table: Table, block: Block) -> None:
        if table.keys() != self._empty.keys():
            names = [self._clips.infos[self.spans[number].index].name for number in (0, block.span)]
            raise ValueError(f"of the clips {names[0]} and {names[1]} only one has a trajectory, expected the same of "
                             "all; choose clips that are alike.")


def windows_to_blocks(spans: np.ndarray, rows: np.ndarray) -> tuple[list[Block], np.ndarray]:
    """The blocks that cover windows of rows (N, L) of spans (N,), each row once, windows that overlap in one block.

    Also returns (N,) int64: where row 0 of the window's span would be, were the blocks read one after the other.
    """
    low, high = rows[:, 0], rows[:, -1] + 1
    blocks: list[Block] = []
    block_of = np.empty(len(spans), np.int64)
    for window in np.lexsort((low, spans)):
        span, start, stop = int(spans[window]), int(low[window]), int(high[window])
        if blocks and blocks[-1].span == span and start <= blocks[-1].stop:
            blocks[-1] = blocks[-1]._replace(stop=max(stop, blocks[-1].stop))
        else:
            blocks.append(Block(span, start, stop))
        block_of[window] = len(blocks) - 1
    places = np.cumsum([0, *(block.stop - block.start for block in blocks[:-1])])
    return blocks, (places - [block.start for block in blocks])[block_of]


def screen_coordinates(xy_px: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Pixels (..., 2) as screen coordinates: x from -1 to 1 over the width, y in the same unit; 0 is the middle.

    What the paper's network takes: (x, y) * 2 / width - (1, height / width).
    """
    width, height = image_size
    return xy_px * np.float32(2 / width) - np.float32([1, height / width])


def fill_unseen(points: np.ndarray) -> np.ndarray:
    """Points (..., T, J, C), NaN where unseen, with holes interpolated over time and the ends held.

    A joint that is never seen lies in the middle of the others; where none is ever seen, all are 0. What a network
    without masks is given, in training and afterwards.
    """
    missing = np.isnan(points).any(-1)
    if not missing.any():
        return points
    frames = np.arange(points.shape[-3])[:, None]
    before = np.maximum.accumulate(np.where(missing, -1, frames), axis=-2)
    after = np.minimum.accumulate(np.where(missing, len(frames), frames)[..., ::-1, :], axis=-2)[..., ::-1, :]
    low, high = np.where(before < 0, after, before), np.where(after == len(frames), before, after)
    never = low == len(frames)  # of all frames of that joint, so low and high are any frame
    low, high = np.where(never, 0, low), np.where(never, 0, high)
    share = ((frames - low) / np.maximum(high - low, 1)).astype(points.dtype)[..., None]
    first, last = (np.take_along_axis(points, where[..., None], axis=-3) for where in (low, high))
    filled = np.where(missing[..., None], first + share * (last - first), points)
    known = ~never[..., None]
    total = np.maximum(known.sum(-2, keepdims=True), 1)
    middle = np.where(known, filled, 0).sum(-2, keepdims=True) / total
    return np.where(known, filled, middle).astype(points.dtype)


def frame_table(clip: Clip, scores: bool = False, step: int = 1) -> Table:
    """Every `step`-th frame of a clip as a table; `scores` adds the confidence to ``keypoints``."""
    keypoints = clip.keypoints
    pixels = keypoints.xy[::step]
    inputs = screen_coordinates(pixels, keypoints.image_size)
    if scores:
        inputs = np.concatenate([np.nan_to_num(inputs), keypoints.score[::step, :, None]], axis=-1)
    labels = {"valid": np.ones(len(pixels), bool)} if clip.motion is None else _labels(clip.motion, step)
    return {"keypoints": inputs, "pixels": pixels, **labels}


def _labels(motion: Motion, step: int) -> Table:
    """The columns ``valid``, ``joints`` and ``root``."""
    labels = {"joints": motion.joints[::step]}
    if motion.trajectory is not None:
        labels["root"] = motion.trajectory[::step]
    valid = np.all([np.isfinite(label).reshape(len(label), -1).all(axis=1) for label in labels.values()], axis=0)
    zeroed = {name: np.where(np.expand_dims(valid, tuple(range(1, label.ndim))), label, np.float32(0))
              for name, label in labels.items()}
    return {"valid": valid, **zeroed}
