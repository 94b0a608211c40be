"""Frame times: are they even, and what was measured at uneven ones moved onto an even grid."""

from __future__ import annotations

import numpy as np

_UNEVEN_FRACTION = 0.15  # of a frame: millisecond timestamps at 240 frames/s stay below, a dropped frame does not


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
