"""Between the frame rate of a clip and that of a network: keypoints there, motion back."""

from __future__ import annotations

import numpy as np

SAME_RATE = 0.02  # relative difference of two rates that counts as none


def same_rate(fps: float, other: float) -> bool:
    """Whether two frame rates are close enough to need no resampling."""
    return abs(fps / other - 1) < SAME_RATE


def grid_length(frames: int, fps: float, rate: float) -> int:
    """Samples at ``rate`` needed to cover ``frames`` frames at ``fps``."""
    return int(np.ceil((frames - 1) * rate / fps - 1e-9)) + 1


def resample_keypoints(xy: np.ndarray, scores: np.ndarray, fps: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints at another rate. xy: (T, J, 2), NaN where unseen; scores: (T, J), 0 where unseen.

    A sample between two seen frames is interpolated and takes the lower score; next to an unseen one it takes the seen
    one within half a frame. Going down by more than a quarter, each frame first becomes the average over one step of
    the new rate, which also fills single missing frames. Away from gaps, even motion is not changed by either.
    """
    at = np.arange(grid_length(len(xy), fps, rate)) * (fps / rate)
    if rate < 0.75 * fps:
        xy, scores = _average_around(xy, scores, 0.5 * fps / rate)
    low = np.minimum(at.astype(int), len(xy) - 1)
    high = np.minimum(low + 1, len(xy) - 1)
    part = np.clip(at - low, 0, 1).astype(np.float32)[:, None]
    seen_low, seen_high = scores[low] > 0, scores[high] > 0
    # Nearly on a frame, that frame alone counts; with one neighbour unseen, the other one serves half the way.
    part = np.where(seen_low & (~seen_high & (part <= 0.5) | (part < 1e-4)), 0.0, part)
    part = np.where(seen_high & (~seen_low & (part >= 0.5) | (part > 1 - 1e-4)), 1.0, part)
    use_low, use_high = part < 1, part > 0
    blend = np.where(use_low[..., None], xy[low], 0) * (1 - part)[..., None]
    blend = blend + np.where(use_high[..., None], xy[high], 0) * part[..., None]
    score = np.minimum(np.where(use_low, scores[low], 1), np.where(use_high, scores[high], 1))
    return np.where(score[..., None] > 0, blend, np.nan).astype(np.float32), score.astype(np.float32)


def _average_around(xy: np.ndarray, scores: np.ndarray, half: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each frame and of the pairs of seen frames at equal distances before and after, up to ``half`` frames.

    Only pairs count, since a mean that leans to one side (at a gap, at an end) would shift the motion in time.
    """
    seen = scores > 0
    points, sums, count = np.where(seen[..., None], xy, 0), np.where(seen, scores, 0), seen.astype(np.float32)
    total = points.copy()
    for away in range(1, min(int(np.ceil(half + 0.5)), len(xy) // 2 + 1)):
        share = np.float32(min(1, half + 0.5 - away))  # of the outermost frames' time that lies within the step
        inner = slice(away, len(xy) - away)
        pair = (seen[: -2 * away] & seen[2 * away :]) * share
        total[inner] += pair[..., None] * (points[: -2 * away] + points[2 * away :])
        sums[inner] += pair * (scores[: -2 * away] + scores[2 * away :])
        count[inner] += 2 * pair
    divisor = np.maximum(count, 1e-6)
    mean = np.where(count[..., None] > 0, total / divisor[..., None], np.nan)
    return mean.astype(np.float32), (sums / divisor).astype(np.float32)


def resample_values(values: np.ndarray, rate: float, fps: float, frames: int) -> np.ndarray:
    """Values (n, ...) at ``rate`` brought to ``frames`` frames at ``fps`` by cubic (Catmull-Rom) interpolation.

    Beyond the ends the values are taken to go on evenly, so that a straight line stays one.
    """
    at = np.minimum(np.arange(frames) * (rate / fps), len(values) - 1)
    low = np.minimum(at.astype(int), max(len(values) - 2, 0))
    s = (at - low).astype(np.float32).reshape(-1, *([1] * (values.ndim - 1)))
    p0, p1, p2, p3 = (values[np.clip(low + k, 0, len(values) - 1)] for k in (-1, 0, 1, 2))
    first, last = low == 0, low + 2 >= len(values)
    p0[first], p3[last] = 2 * p1[first] - p2[first], 2 * p2[last] - p1[last]
    return p1 + 0.5 * s * (p2 - p0 + s * (2 * p0 - 5 * p1 + 4 * p2 - p3 + s * (3 * (p1 - p2) + p3 - p0)))
