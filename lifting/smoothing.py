"""Smoothing over time without delay: one knob from 0 (nothing) to 1 (slow drifts are all that is left)."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded

from lifting.keypoints import check_fps

FASTEST, SLOWEST = 24.0, 1.5  # Hz that pass half at the weakest and at the strongest smoothing
_DIFFERENCE = np.array([-1.0, 3.0, -3.0, 1.0])


def cut_off(strength: float) -> float:
    """The frequency in Hz that a smoothing of some strength in 0..1 lets pass half; infinite for 0.

    Raises ValueError for a strength outside 0 to 1.
    """
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise ValueError(f"got a smoothing of {strength!r}, expected a number from 0 (none) to 1 (strongest).")
    return FASTEST * (SLOWEST / FASTEST) ** strength if strength > 0 else np.inf


def smooth(values: np.ndarray, fps: float, strength: float, weight: np.ndarray | None = None) -> np.ndarray:
    """Values (T, ...) without what is faster than `cut_off`, and without delay.

    The smoother of Whittaker ("On a new method of graduation", 1923) with third differences: where all weights are
    equal, a frequency f passes by 1 / (1 + (sin(pi f / fps) / sin(pi c / fps))^6), c the cut-off. Parabolas in time
    stay as they are, the ends too. weight: (T, ...) or (T,), how far to trust each value; what has less leans on its
    neighbours. Frames must be evenly spaced and finite.

    Raises ValueError for a strength outside 0 to 1 and a fps that is not positive.
    """
    cut, fps = cut_off(strength), check_fps(fps)
    values = np.asarray(values, dtype=np.float64)
    if 2 * cut >= fps or len(values) < 4:
        return values.copy()
    penalty = (2 * np.sin(np.pi * cut / fps)) ** -6
    columns = values.reshape(len(values), -1)
    if weight is None or np.ndim(weight) == 1:
        weight = np.ones(len(values)) if weight is None else np.asarray(weight, dtype=np.float64)
        band = _third_differences(len(values), penalty)
        band[3] += weight
        return solveh_banded(band, weight[:, None] * columns, check_finite=False).reshape(values.shape)
    weight = np.broadcast_to(weight, values.shape).reshape(columns.shape)
    parts = [smooth(column, fps, strength, each) for column, each in zip(columns.T, weight.T, strict=True)]
    return np.stack(parts, axis=1).reshape(values.shape)


def _third_differences(frames: int, penalty: float) -> np.ndarray:
    """Upper band (4, T) of the matrix of the sum of squared third differences, times `penalty`."""
    band = np.zeros((4, frames))
    for i, first in enumerate(_DIFFERENCE):
        for j in range(i, 4):
            band[3 - (j - i), j : frames - 3 + j] += penalty * first * _DIFFERENCE[j]
    return band
