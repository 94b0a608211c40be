"""Cleaning frame by frame: what `lifting.cleaning` does with whole clips, from what has been seen so far alone.

Swaps: the same costs, outliers included, since nothing is searched twice; each frame takes the state that is the
cheapest at that moment, where a whole clip would be traced back from its end. Outliers: a joint that cannot have got
where it is seen is masked until it has stayed there for longer than an excursion lasts. Strays: after a long gap a
joint is masked until it has been seen more often than a stray is. Medians over the clip become medians over the last
frames. The state's size is fixed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import NamedTuple

import numpy as np

from lifting.cleaning import (
    DEVIATION,
    EXCURSION_SECONDS,
    LEAST_JUMP,
    LEGS,
    MEDIAN_LENGTH,
    STRAY_FRAMES,
    STRAY_GAP_SECONDS,
    UPPER,
    VELOCITY_SHARE,
    Cleaned,
    first_total,
    legs_agreement,
    most_acceleration,
    reach,
    relation_squares,
    side_pairs,
    state_costs,
    student_costs,
    voting_pairs,
)
from lifting.keypoints import Keypoints2D
from lifting.skeletons import Skeleton

SIZE_SECONDS = 2.0  # the person's size is the upper quartile over so long
LONGEST_SWAP_SECONDS = 1.3  # detectors exchange sides for less; what lasts longer is what they now call left and right
MEMORY_FRAMES = 101  # odd; medians are over so many frames
_USUAL_MISS = (0.03 * MEDIAN_LENGTH) ** 2  # squared miss of a swap's prediction, person sizes, before any was seen


class CleanedFrame(NamedTuple):
    """One frame after cleaning, as one frame of `Cleaned`.

    xy: (J, 2) pixels, NaN where unseen or masked. score: (J,). swapped: 0, `UPPER`, `LEGS` or `WHOLE`. outliers, gaps:
    (J,) bool, what was masked.
    """

    xy: np.ndarray
    score: np.ndarray
    swapped: int
    outliers: np.ndarray
    gaps: np.ndarray


class CausalCleaner:
    """Cleans one person's keypoints frame by frame. skeleton: of the keypoints."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._size = _RunningSize()
        self._swaps = _SwapFilter(skeleton)
        self._outliers = _OutlierFilter(skeleton)
        self._strays = _StrayFilter(skeleton.num_joints)
        self._orders = _exchanged_orders(skeleton)

    def push(self, xy: np.ndarray, score: np.ndarray, time: float) -> CleanedFrame:
        """Clean the next frame: xy (J, 2) pixels, NaN where unseen; score (J,), 0 where unseen; time in seconds."""
        size = self._size.push(xy, time)
        swapped = self._swaps.push(xy / size, score, time)
        order = self._orders[swapped]
        xy, score = xy[order], score[order]
        outliers = self._outliers.push(xy / size, time)
        gaps = self._strays.push((score > 0) & ~outliers, time)
        masked = outliers | gaps
        if masked.any():
            xy, score = np.where(masked[:, None], np.float32(np.nan), xy), np.where(masked, np.float32(0), score)
        return CleanedFrame(xy, score, swapped, outliers, gaps)


def stack_frames(frames: list[CleanedFrame], keypoints: Keypoints2D) -> Cleaned:
    """The frames as `Cleaned`; skeleton, size and rate are those of the keypoints."""
    xy, score, swapped, outliers, gaps = (np.stack(values) for values in zip(*frames, strict=True))
    return Cleaned(keypoints.replace(xy=xy, score=score), swapped.astype(np.uint8), outliers, gaps)


def _exchanged_orders(skeleton: Skeleton) -> list[np.ndarray]:
    """The columns (J,) to read for each state of a swap."""
    orders = []
    for state in range(4):
        order = np.arange(skeleton.num_joints)
        for left, right in (pair for group in (UPPER, LEGS) if state & group for pair in side_pairs(skeleton, group)):
            order[[left, right]] = right, left
        orders.append(order)
    return orders


class _RunningSize:
    """The person's size in pixels, as `person_size`: upper quartile of the box's diagonal over the last seconds."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=1000)
        self._sorted: list[float] = []

    def push(self, xy: np.ndarray, time: float) -> float:
        points = xy[np.isfinite(xy[:, 0])]
        if len(points) >= 3:
            if len(self._recent) == self._recent.maxlen:
                self._drop()
            diagonal = float(np.hypot(*np.ptp(points, axis=0)))
            self._recent.append((time, diagonal))
            insort(self._sorted, diagonal)
        while len(self._recent) > 1 and self._recent[0][0] < time - SIZE_SECONDS:
            self._drop()
        return max(self._sorted[int(0.75 * (len(self._sorted) - 1) + 0.5)], 1.0) if self._sorted else 1.0

    def _drop(self) -> None:
        del self._sorted[bisect_left(self._sorted, self._recent.popleft()[1])]


class _RunningMedian:
    """Medians (K,) of the last values of K quantities, each with a memory of its own."""

    def __init__(self, count: int, start: float) -> None:
        self._values = np.full((MEMORY_FRAMES, count), start)
        self._next = np.zeros(count, int)
        self.median = np.full(count, start)

    def push(self, values: np.ndarray, known: np.ndarray) -> None:
        """Take the values (K,) that are known (K,) bool."""
        columns = np.flatnonzero(known)
        self._values[self._next[columns], columns] = values[columns]
        self._next[columns] = (self._next[columns] + 1) % MEMORY_FRAMES
        self.median = np.partition(self._values, MEMORY_FRAMES // 2, axis=0)[MEMORY_FRAMES // 2]


class _SwapFilter:
    """The search of `find_swaps` without its way back: the state that is cheapest, given all frames so far."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        upper, legs = (voting_pairs(skeleton, group) for group in (UPPER, LEGS))
        self._left, self._right, self._votes = (np.concatenate(both) for both in zip(upper, legs, strict=True))
        pairs = len(self._votes)
        self._groups = slice(0, len(upper[0])), slice(len(upper[0]), pairs)
        self._before = self._earlier = np.full((pairs, 2), np.nan)
        # The last sight of each pair two or more frames ago, and what joins it with the next frame.
        self._last, self._last_time = np.full((pairs, 2), np.nan), np.full(pairs, -np.inf)
        self._before_time = -np.inf
        self._misses = _RunningMedian(pairs, _USUAL_MISS)
        self._steps: deque[float] = deque(maxlen=31)
        self._total: np.ndarray | None = None
        self._state, self._time = 0, None
        self._swapped_since: float | None = None

    def push(self, points: np.ndarray, score: np.ndarray, time: float) -> int:
        """The state of the next frame, points (J, 2) in person sizes."""
        difference = points[self._left] - points[self._right]
        if np.isfinite(difference[:, 0]).any():
            weight = np.sqrt(score[self._left] * score[self._right]) * self._votes
            self._advance(difference, weight, legs_agreement(points[None], self._skeleton), time)
        return self._state if (score > 0).any() else 0

    def _advance(self, difference: np.ndarray, weight: np.ndarray, agreement: np.ndarray, time: float) -> None:
        if self._time is None:
            self._total = None
        else:
            self._steps.append(time - self._time)
            usual = sorted(self._steps)[len(self._steps) // 2]
            self._total = first_total(usual, trust=1.0) if self._total is None else self._total
            costs = self._relation_costs(difference, weight, time, usual)
            table = state_costs(*costs, agreement, np.array([self._steps[-1]]), usual)[0] + self._total
            self._total = table.min(axis=-1)
            self._total -= self._total.min()
            self._state = int(self._total.argmin()) // 4
            self._give_up_long_swaps(time, usual)
        self._remember(difference, time)

    def _give_up_long_swaps(self, time: float, usual: float) -> None:
        """Takes the detector's labels for right again where they would have been exchanged for too long.

        A clip that begins with a swap looks, once it is over, as if all that follows were one.
        """
        if self._state == 0:
            self._swapped_since = None
        elif self._swapped_since is None:
            self._swapped_since = time
        elif time - self._swapped_since > LONGEST_SWAP_SECONDS:
            self._total, self._state, self._swapped_since = first_total(usual, trust=1.0), 0, None

    def _relation_costs(
        self, difference: np.ndarray, weight: np.ndarray, time: float, usual: float
    ) -> list[np.ndarray]:
        """Costs (1, 4) of both groups, as those of a frame in `find_swaps`."""
        step = self._steps[-1]
        share = 0.0  # over a gap velocity tells nothing
        if len(self._steps) > 1 and step <= 2.001 * usual:
            share = VELOCITY_SHARE * min(step / self._steps[-2], 1)
        frames = (values[None] for values in (difference, self._before, self._earlier, self._last))
        squares = relation_squares(*frames, np.array([share]))
        age = np.maximum(time - self._last_time, usual) / usual
        lost = np.where(np.isnan(self._before[:, 0]), age, np.where(np.isnan(self._earlier[:, 0]), 1.5, 1.0))
        deviation = np.clip(np.sqrt(self._misses.median) / MEDIAN_LENGTH, *DEVIATION) * np.maximum(lost, step / usual)
        least = squares[0].min(axis=-1)
        self._misses.push(least, np.isfinite(least))
        return [student_costs(squares[:, group], deviation[None, group], weight[None, group]) for group in self._groups]

    def _remember(self, difference: np.ndarray, time: float) -> None:
        seen = np.isfinite(self._before[:, 0])
        self._last = np.where(seen[:, None], self._before, self._last)
        self._last_time = np.where(seen, self._before_time, self._last_time)
        self._earlier, self._before = self._before, difference
        self._before_time = self._time = time


class _OutlierFilter:
    """Masks joints while they are where they cannot have got to, at most as long as an excursion lasts."""

    def __init__(self, skeleton: Skeleton) -> None:
        joints = skeleton.num_joints
        self._acceleration = np.array([most_acceleration(name) for name in skeleton.joints])
        self._believed, self._doubted = _Points(joints), _Points(joints)
        self._since = np.full(joints, np.nan)  # when the excursion began, NaN without
        self._misfits = _RunningMedian(joints, 0.0)

    def push(self, points: np.ndarray, time: float) -> np.ndarray:
        """(J,) bool: outliers of the next frame, points (J, 2) in person sizes."""
        seen = np.isfinite(points[:, 0])
        least = np.maximum(LEAST_JUMP, 4 * self._misfits.median / MEDIAN_LENGTH)
        misfit, seconds = self._believed.misfit(points, time)
        near = misfit <= least + reach(self._acceleration, seconds)
        doubt, apart = self._doubted.misfit(points, time)
        goes_on = np.isfinite(self._since) & (doubt <= least + reach(self._acceleration, apart))
        began = np.where(goes_on, self._since, time)
        stayed = seen & ~near & goes_on & (time - began >= EXCURSION_SECONDS)
        unknown = ~np.isfinite(misfit)  # nothing to compare with
        outlier = seen & ~near & ~stayed & ~unknown
        self._misfits.push(misfit, seen & near)
        self._believed.jump(stayed, self._doubted)
        self._believed.put(points, time, seen & ~outlier)
        self._since = np.where(outlier, began, np.where(seen, np.nan, self._since))
        self._doubted.clear(outlier & ~goes_on)
        self._doubted.put(points, time, outlier)
        return outlier


class _Points:
    """Each joint's last point, when it was seen and how fast it went."""

    def __init__(self, joints: int) -> None:
        self._points, self._speed = np.full((joints, 2), np.nan), np.full((joints, 2), np.nan)
        self._times = np.full(joints, np.nan)

    def misfit(self, points: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray]:
        """(J,) distance of points (J, 2) from the better of rest and constant speed, NaN if unknown; (J,) seconds."""
        seconds = time - self._times
        move = points - self._points
        coasting = np.hypot(*(move - self._speed * seconds[:, None]).T)
        return np.fmin(np.hypot(*move.T), coasting), seconds

    def put(self, points: np.ndarray, time: float, chosen: np.ndarray) -> None:
        """Go on with the chosen (J,) ones of the points (J, 2)."""
        speed = (points - self._points) / np.where(chosen, time - self._times, 1)[:, None]
        self._speed = np.where(chosen[:, None], speed, self._speed)
        self._points = np.where(chosen[:, None], points, self._points)
        self._times = np.where(chosen, time, self._times)

    def jump(self, chosen: np.ndarray, other: _Points) -> None:
        """Take the state of the others for the chosen (J,) joints."""
        self._points = np.where(chosen[:, None], other._points, self._points)
        self._speed = np.where(chosen[:, None], other._speed, self._speed)
        self._times = np.where(chosen, other._times, self._times)

    def clear(self, chosen: np.ndarray) -> None:
        """Forget the chosen (J,) joints."""
        self._points[chosen], self._speed[chosen], self._times[chosen] = np.nan, np.nan, np.nan


class _StrayFilter:
    """Masks the first sightings of a joint after a long gap, unless short sightings are the rule for it."""

    def __init__(self, joints: int) -> None:
        self._last_seen = np.full(joints, np.nan)
        self._run, self._run_before = np.zeros(joints, int), np.zeros(joints, int)
        self._after_gap = np.zeros(joints, bool)

    def push(self, seen: np.ndarray, time: float) -> np.ndarray:
        """(J,) bool: seen joints to mask in the next frame."""
        starts = seen & (time - self._last_seen >= STRAY_GAP_SECONDS)
        believed = starts & (self._run > STRAY_FRAMES)  # a stray says nothing about how long sightings last
        self._run_before = np.where(believed, self._run, self._run_before)
        self._after_gap = np.where(starts, True, self._after_gap)
        self._run = np.where(starts, 1, self._run + seen)
        self._last_seen = np.where(seen, time, self._last_seen)
        usual = self._run_before >= 5 * STRAY_FRAMES
        return seen & self._after_gap & usual & (self._run <= STRAY_FRAMES)
