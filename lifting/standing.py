"""Which foot of a lifted person stands, told by where the picture shows its ankle.

The depth of a lifted ankle errs slowly by centimetres, so that it glides while it stands. The ray of the ankle's
keypoint errs by pixels: over a third of a second its speed at right angles to the view tells standing from swinging
better than any speed of the lift does. How high the foot is against the lowest that either foot is about that time adds
to it; a floor is not asked for: who stands on a ladder, or on somebody's shoulders, stands.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import minimum_filter1d
from scipy.signal import savgol_filter

# Log odds = OFFSET + SPEED log(v^2 + REST^2) + HEIGHT h, v m/s across the view and h <= HIGHEST metres over the lowest
# foot: logistic regression on truly standing ankles (slower than 0.15 m/s, lower than 13.5 cm) in 50 views of pieces of
# the motion capture that `experiments.benchmark_world` does not show and its 20 of seen ones, 2D noise as there.
OFFSET, SPEED, HEIGHT = -5.97, -1.26, -5.08
REST, HIGHEST = 0.04, 0.4
SPEED_WINDOW, HEIGHT_WINDOW, DEPTH_WINDOW, NEIGHBOURHOOD = 0.3, 0.14, 0.5, 1.0  # seconds
STEP_EDGE = 0.1  # seconds: the least speed within so long counts, or every stand would lose its ends to the window
ASTRAY = 0.25  # metres from the lifted ankle: keypoints farther away show something else


def ankles_as_seen(ankles: np.ndarray, rays: np.ndarray, fps: float) -> np.ndarray:
    """Ankles (T, F, 3) metres where their keypoints show them, at the lift's depth without its fast errors.

    ankles: (T, F, 3) metres, lifted, camera axes. rays: (T, F, 2) of their keypoints, ``x / z``; NaN where unseen.
    Through gaps, what keypoints and lift differ by is interpolated; without any keypoint the lift itself is returned.
    """
    depth = _line(ankles[..., 2], fps, DEPTH_WINDOW)
    lifted = ankles[..., :2] * (depth / np.maximum(ankles[..., 2], 1e-6))[..., None]
    seen = np.array(lifted)
    difference = rays * depth[..., None] - lifted
    known = np.isfinite(difference).all(-1)
    known &= np.linalg.norm(np.where(known[..., None], difference, 0.0), axis=-1) < ASTRAY
    frames = np.arange(len(ankles))
    for foot in np.flatnonzero(known.any(0)):
        here = known[:, foot]
        for axis in range(2):
            seen[:, foot, axis] += np.interp(frames, frames[here], difference[here, foot, axis])
    return np.concatenate([seen, depth[..., None]], axis=-1)


def standing_probabilities(ankles: np.ndarray, view: np.ndarray, fps: float) -> np.ndarray:
    """Probability (T, F) that each foot stands still, on whatever it may be.

    ankles: (T, F, 3) metres, from `ankles_as_seen`, in world axes, Z up. view: (T, F, 3) unit vectors from the
    camera to them, in the same axes: speeds along it are not looked at. One frame has no speed: what is lowest stands.
    """
    velocity = fps * _line(ankles, fps, SPEED_WINDOW, slope=True)
    along = (velocity * view).sum(-1)
    speed = minimum_filter1d((velocity**2).sum(-1) - along**2, _odd(fps * STEP_EDGE), axis=0)
    height = _line(ankles[..., 2], fps, HEIGHT_WINDOW)
    lowest = minimum_filter1d(height.min(axis=1), _odd(fps * NEIGHBOURHOOD))
    height = np.minimum(height - lowest[:, None], HIGHEST)
    odds = OFFSET + SPEED * np.log(np.maximum(speed, 0.0) + REST**2) + HEIGHT * height
    return 1 / (1 + np.exp(-odds))


def _line(values: np.ndarray, fps: float, seconds: float, slope: bool = False) -> np.ndarray:
    """Values, or slopes per frame, of straight lines fitted to a window around every frame."""
    frames = len(values)
    window = min(max(_odd(fps * seconds), 3), frames - 1 + frames % 2)
    if window < 3:
        return np.broadcast_to(values[-1] - values[0], values.shape) if slope else values
    return savgol_filter(values, window, 1, deriv=int(slope), axis=0, mode="interp")


def _odd(frames: float) -> int:
    return 2 * round(frames / 2) + 1
