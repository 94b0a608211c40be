"""The statue moment: where a motion's future becomes clear, on motions of which that is known."""

from __future__ import annotations

import numpy as np
import pytest
from lifted_takes import lifted_take
from walking_figure import H36M, walker

from lifting.forecasters import Constant, ConstantVelocity
from lifting.motion import Motion
from lifting.statue import FILTER_FRAMES, FRAMES_AHEAD, find_statue


def posing(angles: np.ndarray, fps: float = 25.0) -> Motion:
    """Somebody who stands and lifts both arms by these angles (T,), radians."""
    joints = np.repeat(walker(1), len(angles), axis=0).astype(np.float64)
    for side in ("left", "right"):
        shoulder = joints[:, H36M.index(f"{side}_shoulder")]
        for joint, reach in (("elbow", 0.29), ("wrist", 0.54)):
            way = np.stack([np.zeros_like(angles), np.sin(angles), -np.cos(angles)], -1)
            joints[:, H36M.index(f"{side}_{joint}")] = shoulder + reach * way
    return Motion(joints - joints[:, :1], joints[:, 0], np.full((len(angles), 17), 0.02), H36M, fps, "world")


def stop_after(moving: int, frames: int, fps: float = 25.0) -> Motion:
    """Arms swing until some frame, and are still from then on."""
    time = np.minimum(np.arange(frames), moving) / fps
    return posing(np.sin(2 * np.pi * 1.1 * time), fps)


def find(motion: Motion, forecaster):
    return find_statue(motion, lifted_take(), forecaster, lambda sentence: None)


def test_errors_are_those_of_the_next_frames():
    motion = stop_after(60, 120)
    found = find(motion, Constant())
    np.testing.assert_array_equal(found.frames, np.arange(0, 120 - FRAMES_AHEAD))
    for place in (3, 40, 58, 70):
        after = motion.joints[found.frames[place] + 1 : found.frames[place] + 1 + FRAMES_AHEAD]
        error = np.linalg.norm(after - motion.joints[found.frames[place]], axis=-1).mean()
        assert found.errors[place] == pytest.approx(error, abs=1e-6)


def test_the_gain_is_the_fall_of_smoothed_errors():
    found = find(stop_after(60, 120), Constant())
    around = np.arange(-20, 21)
    kernel = np.exp(-0.5 * (around / FILTER_FRAMES) ** 2)
    smooth = np.convolve(found.errors, kernel / kernel.sum(), mode="valid")  # of the frames 20 to n - 21
    slope = 25 * (smooth[2:] - smooth[:-2]) / 2
    np.testing.assert_allclose(-found.gain[21:-21], slope, atol=4e-3)
    assert found.frame == found.frames[found.gain.argmax()]


@pytest.mark.parametrize(("fps", "moving", "frames"), [(25.0, 60, 120), (50.0, 120, 240), (30.0, 72, 144)])
def test_who_comes_to_rest_is_a_statue_shortly_before(fps, moving, frames):
    found = find(stop_after(moving, frames, fps), Constant())
    assert -0.6 < (found.frame - moving) / fps < 0.1


def test_a_long_motion_is_read_in_parts_alike():
    motion = stop_after(500, 700)
    found = find(motion, ConstantVelocity())
    part = find(motion.slice(400, 700), ConstantVelocity())
    np.testing.assert_allclose(found.errors[450:600], part.errors[50:200], atol=1e-6)
    assert 480 < found.frame < 505


def test_too_short_a_motion_is_one_sentence():
    with pytest.raises(ValueError, match=r"got 0.6 s of motion, expected at least 0.7 s"):
        find(stop_after(5, 16), Constant())
