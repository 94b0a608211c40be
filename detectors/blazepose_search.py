"""Where BlazePose looks for further people, and when: windows of the frame in turn, and tiles for small, far people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifting.detectors.blazepose_geometry import Region

__all__ = ["Demand", "SearchSchedule", "TileSchedule", "search_windows", "zoom_tiles"]

LEAST_TILE = 320  # pixels; people small in a smaller tile have too few pixels to lift
TILE_STEP = 0.67  # of a tile: whoever is smaller than a third of it lies wholly in one
TILE_EVERY = 8  # frames between two tiles
TILE_LEVELS = 2


@dataclass(frozen=True)
class Demand:
    """What a proposal must be to become a person.

    Attributes:
        score: least probability that the detector gives it.
        confidence: least probability that the landmark network gives it.
        size: largest region, as a multiple of the window it was seen in.
    """

    score: float
    confidence: float
    size: float = np.inf

    @classmethod
    def in_tile(cls, min_confidence: float) -> Demand:
        """For tiles, which show much texture and parts of larger people.

        On two real clips, all true people passed it in tiles of half the frame, and of the false proposals none.
        """
        return cls(max(0.75, min_confidence), max(0.9, min_confidence), 1.5)


class SearchSchedule:
    """Decides in which frames the detector looks for further people, and at which windows of them.

    The first frame is searched completely. Later the windows take turns, one every ``detect_every`` frames, or one in
    every frame while nobody is followed and for two rounds after somebody was lost.
    """

    def __init__(self, detect_every: int) -> None:
        self._detect_every = detect_every
        self._turn = 0
        self._wait = 0
        self._alert = 0

    def next_windows(self, width: int, height: int, anybody: bool, just_lost: bool) -> list[Region]:
        """Windows to search in the next frame of ``width`` x ``height`` pixels; an empty list means none."""
        windows = search_windows(width, height)
        self._wait -= 1
        self._alert = 2 * len(windows) if just_lost else max(self._alert - 1, 0)
        if anybody and not self._alert and self._wait > 0 and self._turn:
            return []
        self._wait = self._detect_every
        self._turn += 1
        return windows if self._turn == 1 else [windows[(self._turn - 2) % len(windows)]]


def search_windows(width: int, height: int) -> list[Region]:
    """Square windows the detector searches: the whole frame, then overlapping squares along its longer side.

    The squares show small people larger than the whole frame does.
    """
    whole = Region(np.array([width / 2, height / 2]), float(max(width, height)))
    short, long = min(width, height), max(width, height)
    count = max(2, int(np.ceil(1.5 * long / short)) if long < 4 * short else 6)
    positions = np.linspace(short / 2, long - short / 2, count)
    centers = [(x, height / 2) if width >= height else (width / 2, x) for x in positions]
    return [whole, *(Region(np.array(center), float(short)) for center in centers)]


class TileSchedule:
    """Which tiles to search in the next frame: all of them in the first one, then one every few frames in turn."""

    def __init__(self, every: int = TILE_EVERY) -> None:
        self._every = every
        self._frame = -1

    def next_tiles(self, width: int, height: int) -> list[Region]:
        """Tiles of the next frame of ``width`` x ``height`` pixels; an empty list means none."""
        self._frame += 1
        if self._frame % self._every:
            return []
        tiles = zoom_tiles(width, height)
        turn = self._frame // self._every
        return [tiles[(turn - 1) % len(tiles)]] if turn and tiles else tiles


def zoom_tiles(width: int, height: int) -> list[Region]:
    """Overlapping square tiles of half the shorter side, and of a quarter, none below ``LEAST_TILE`` pixels."""
    sides = [min(width, height) / 2**level for level in range(1, TILE_LEVELS + 1)]
    tiles = []
    for side in sides:
        if side >= LEAST_TILE:
            across, down = (_tile_positions(length, side) for length in (width, height))
            tiles += [Region(np.array([x, y]), side) for y in down for x in across]
    return tiles


def _tile_positions(length: int, side: float) -> np.ndarray:
    """Centres of the tiles along one axis: even, from end to end, at most ``TILE_STEP`` of a tile apart."""
    return np.linspace(side / 2, length - side / 2, int(np.ceil((length - side) / (TILE_STEP * side))) + 1)
