"""One-Euro filter: a low pass whose cutoff rises with the speed, so that rest is steady and motion does not lag.

Casiez, Roussel and Vogel, "1 Euro filter: a simple speed-based low-pass filter for noisy input in interactive systems",
CHI 2012, algorithms 1 and 2.
"""

from __future__ import annotations

import numpy as np


class OneEuroFilter:
    """Smooths an array of values frame by frame.

    Args:
        min_cutoff: Hz at rest: lower is steadier and lags more.
        beta: Hz per unit of speed (values per second): higher lags less in motion.
        derivative_cutoff: Hz of the low pass of the speed.

    Raises ValueError for a cutoff that is not positive or a negative beta.
    """

    def __init__(self, min_cutoff: float = 1.0, beta: float = 0.0, derivative_cutoff: float = 1.0) -> None:
        if not (min_cutoff > 0 and derivative_cutoff > 0 and beta >= 0):
            raise ValueError(f"got min_cutoff {min_cutoff}, beta {beta} and derivative_cutoff {derivative_cutoff}; "
                             "expected positive cutoffs in Hz and a beta of 0 or more")  # fmt: skip
        self.min_cutoff, self.beta, self.derivative_cutoff = min_cutoff, beta, derivative_cutoff
        self._time: float | None = None
        self._values = self._speed = np.zeros(())

    def push(self, values: np.ndarray, time: float) -> np.ndarray:
        """Smooth the next values, of the same shape as before; time in seconds, later than before.

        Where speeds are vectors (..., 3), their lengths set the cutoff, so the result turns with the axes.
        """
        values = np.asarray(values, np.float64)
        if self._time is None:
            self._time, self._values, self._speed = time, values, np.zeros_like(values)
            return values
        seconds = time - self._time
        speed = (values - self._values) / seconds
        self._speed = self._speed + _share(self.derivative_cutoff, seconds) * (speed - self._speed)
        cutoff = self.min_cutoff + self.beta * np.linalg.norm(self._speed, axis=-1, keepdims=True)
        self._values = self._values + _share(cutoff, seconds) * (values - self._values)
        self._time = time
        return self._values


def _share(cutoff: float | np.ndarray, seconds: float) -> float | np.ndarray:
    """How much of a new value counts, for a cutoff in Hz."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * seconds))
