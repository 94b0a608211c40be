"""The statue moment of a motion: the frame that tells most of what comes after it.

Zhang et al., "Predicting 3D Human Dynamics from Video" (PHD, ICCV 2019), after the sculptor who wants one pose to hold
a whole motion: a pitcher's future is anybody's guess until the arm goes back, and clear from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from lifting.forecasters import FPS, roll_on
from lifting.future import at_predictors_rate, frames_at_predictors_rate, in_world_axes
from lifting.motion import Motion, Take
from lifting.seen_motion import SeenMotion
from lifting.seen_person import camera_from_world, check_motion, seen_span

FRAMES_AHEAD = 15  # whose accuracy is measured, as in the paper
FILTER_FRAMES = 5.0  # standard deviation of the low-pass filter
WINDOWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class StatueMoment:
    """The most telling frame of a motion, and how telling all are.

    Attributes:
        frame: of the motion, the last one that the predictor sees.
        frames: (n,) those of the motion nearest to the ends of all windows of the past.
        errors: (n,) metres, mean error of the joints relative to the root over the next `FRAMES_AHEAD` frames.
        gain: (n,) metres per second, by which these errors fall: greatest at `frame`.
    """

    frame: int
    frames: np.ndarray
    errors: np.ndarray
    gain: np.ndarray


def find_statue(motion: Motion, take: Take, forecaster: Any, note: Callable[[str], None]) -> StatueMoment:
    """The frame of a motion of a take after which its future is much clearer than before.

    For each window of the past the mean error of the forecast over the next 15 frames at 25 frames/s; its derivative
    through a Gaussian low-pass filter; the frame where the error falls fastest. note: is called with what was assumed.
    Raises ValueError for a motion too short for the windows.
    """
    check_motion(motion)
    part = in_world_axes(motion, camera_from_world(motion, take, note))
    frames, needed = frames_at_predictors_rate(part), forecaster.context + FRAMES_AHEAD + 1
    if frames < needed:
        raise ValueError(f"got {len(part) / part.fps:.1f} s of motion, expected at least {needed / FPS:.1f} s to find "
                         "its most telling frame; give a longer clip.")
    joints, root, sigma = at_predictors_rate(part, frames)
    ends = np.arange(forecaster.context - 1, frames - FRAMES_AHEAD)
    errors = np.concatenate([_errors_ahead(joints, root, sigma, some, forecaster)
                             for some in np.array_split(ends, len(ends) // WINDOWS_AT_ONCE + 1)])  # fmt: skip
    gain = -FPS * gaussian_filter1d(errors, FILTER_FRAMES, order=1, mode="nearest")
    places = seen_span(motion).stop - 1 - np.rint((frames - 1 - ends) * (motion.fps / FPS)).astype(int)
    return StatueMoment(int(places[gain.argmax()]), places, errors, gain)


def _errors_ahead(
    joints: np.ndarray, root: np.ndarray, sigma: np.ndarray, ends: np.ndarray, forecaster: Any
) -> np.ndarray:
    """(n,) metres, mean error of the frames after each of the last seen ones `ends`."""
    past = ends[:, None] + np.arange(1 - forecaster.context, 1)
    after = ends[:, None] + np.arange(1, FRAMES_AHEAD + 1)
    said = roll_on(forecaster, SeenMotion(joints[past], root[past], sigma[past]), FRAMES_AHEAD)
    return np.linalg.norm(said.joints - joints[after], axis=-1).mean((1, 2))
