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

    A sample between two seen frames is interpolated and takes the lower score; next to an unseen one it takes the seen one
    within half a frame. Going down by more than a quarter, the frames around each sample are averaged.
    """
    at = np.arange(grid_length(len(xy), fps, rate)) * (fps / rate)
    if rate < 0.75 * fps:
        return _average_around(xy, scores, at, 0.5 * fps / rate)
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


def _average_around(xy: np.ndarray, scores: np.ndarray, at: np.ndarray, half: float) -> tuple[np.ndarray, np.ndarray]:
    seen = scores > 0
    first = np.clip(np.ceil(at - half).astype(int), 0, len(xy) - 1)
    last = np.clip(np.ceil(at + half).astype(int), first + 1, len(xy))

    def total(values: np.ndarray) -> np.ndarray:
        sums = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0, dtype=np.float64)])
        return sums[last] - sums[first]

    count = total(seen)
    divisor = np.maximum(count, 1)
    mean = total(np.where(seen[..., None], xy, 0)) / divisor[..., None]
    score = np.where(count > 0, total(scores) / divisor, 0)
    return np.where(count[..., None] > 0, mean, np.nan).astype(np.float32), score.astype(np.float32)


def resample_values(values: np.ndarray, rate: float, fps: float, frames: int) -> np.ndarray:
    """Values (n, ...) at ``rate`` brought to ``frames`` frames at ``fps`` by cubic (Catmull-Rom) interpolation."""
    at = np.minimum(np.arange(frames) * (rate / fps), len(values) - 1)
    low = np.minimum(at.astype(int), max(len(values) - 2, 0))
    s = (at - low).astype(np.float32).reshape(-1, *([1] * (values.ndim - 1)))
    p0, p1, p2, p3 = (values[np.clip(low + k, 0, len(values) - 1)] for k in (-1, 0, 1, 2))
    return p1 + 0.5 * s * (p2 - p0 + s * (2 * p0 - 5 * p1 + 4 * p2 - p3 + s * (3 * (p1 - p2) + p3 - p0)))
