"""What a body is fitted to: 3D joints, 2D points, and how far each of them is to be trusted.

A fit weighs its evidence by standard deviations, and most of the accuracy lies in having them right. Lifted joints err
by centimetres that last for half a second, so their frames are no independent measurements; the error of a marker
changes from frame to frame. Both look alike to one residual, and are told apart over time: the deviation of the
residuals says how large errors are, their correlation from one frame to the next how many frames count as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lifting.body.projection import camera_of_frames
from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import RADIUS_68, Motion
from lifting.skeletons import Skeleton

LEAST_SIGMA = 5e-4  # metres: joints are never taken to be more exact than this
LEAST_SIGMA_PX = 0.05
FEW_FRAMES = 10  # too few to tell noise from motion, or errors from what a fit has made of them
UNKNOWN_SIGMA = 0.03  # metres: what is assumed of joints whose errors neither the motion nor its jitter tells
DETECTOR_SHARE = 0.01  # of the person's size in the image: a detector's deviation on a joint it is sure of
LEAST_SCORE = 0.05
MEMORY_SECONDS = 1.0  # errors are taken to be forgotten after this time
_THIRD_DIFFERENCE = np.sqrt(20.0)  # deviation of the third difference of white noise with deviation one
MEDIAN_OF_NORMAL = 0.6745  # median of the absolute value of a standard normal variable


@dataclass(frozen=True, eq=False)
class Observations:
    """Evidence on one person over T frames without gaps at the ends.

    Attributes:
        skeleton: layout of the joints. joints: (T, J, 3) metres in the motion's frame, NaN where missing. sigma: (T, J)
            metres, standard deviation on each axis.
        keypoint_skeleton, pixels (T, P, 2), sigma_px (T, P), camera: 2D evidence, None without.
        camera_moves: whether that camera moves in the world.
        fps: frames per second. frame: ``camera`` or ``world``. first: the frame of the motion where this begins.
    """

    skeleton: Skeleton
    joints: np.ndarray
    sigma: np.ndarray
    fps: float
    frame: str
    first: int
    keypoint_skeleton: Skeleton | None = None
    pixels: np.ndarray | None = None
    sigma_px: np.ndarray | None = None
    camera: Camera | None = None
    camera_moves: bool = False

    def __len__(self) -> int:
        """T."""
        return len(self.joints)

    def scaled(self, factor: float) -> Observations:
        """The same motion `factor` times as large and as far from the camera; for camera axes."""
        return replace(self, joints=self.joints * factor, sigma=self.sigma * factor)

    def rescaled(self, joints: float, pixels: float | None) -> Observations:
        """The same with the deviations of joints, and of pixels, multiplied by a factor, kept above the least ones."""
        sigma_px = None if self.sigma_px is None else np.maximum(self.sigma_px * pixels, LEAST_SIGMA_PX)
        return replace(self, sigma=np.maximum(self.sigma * joints, LEAST_SIGMA), sigma_px=sigma_px)


def observe(motion: Motion, keypoints: Keypoints2D | None, camera: Camera | None) -> Observations:
    """Evidence from a motion and, with a camera, from keypoints of the same frames.

    The deviations are first guesses: of 3D joints, what the motion says of itself (`Motion.sigma`), else its jitter; of
    2D points, a share of the person's size, more where the detector was less sure.

    Raises ValueError when the motion is empty or has no trajectory, when keypoints and motion do not belong together,
    and for keypoints without a camera.
    """
    absolute = np.asarray(motion.absolute, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(absolute).all(-1).any(-1))
    if not len(known):
        raise ValueError("got a motion without a single known joint, expected some; lift the person first.")
    span = slice(known[0], known[-1] + 1)
    joints = absolute[span]
    sigma = _joint_sigma(motion, joints, span)
    found = Observations(motion.skeleton, joints, sigma, motion.fps, motion.frame, span.start)
    if keypoints is None:
        return found
    if camera is None:
        raise ValueError("got keypoints but no camera, expected both; give the camera that took them.")
    if len(keypoints) != len(motion) or keypoints.fps != motion.fps:
        raise ValueError(f"got {len(keypoints)} frames of keypoints at {keypoints.fps:g} frames/s and {len(motion)} of "
                         f"motion at {motion.fps:g}, expected the same frames; cut or resample one of them.")
    if tuple(camera.image_size) != tuple(keypoints.image_size):
        raise ValueError(f"got keypoints in an image of {keypoints.image_size} pixels and a camera of "
                         f"{camera.image_size}, expected the same; scale the camera.")
    moves = np.ndim(camera.rotation) > 2 or np.ndim(camera.translation) > 1
    if motion.frame == "camera":
        camera = replace(camera, rotation=np.eye(3), translation=np.zeros(3))
    for pose, still in ((camera.rotation, 2), (camera.translation, 1)):
        if np.ndim(pose) > still and len(pose) != len(motion):
            raise ValueError(f"got a moving camera of {len(pose)} frames and {len(motion)} of motion, expected the "
                             "same frames; cut one of them.")
    seen = keypoints.seen[span]
    pixels = np.where(seen[..., None], np.asarray(keypoints.xy[span], dtype=np.float64), np.nan)
    sigma_px = _pixel_sigma(pixels, keypoints.score[span])
    return replace(found, keypoint_skeleton=keypoints.skeleton, pixels=pixels, sigma_px=sigma_px,
                   camera=camera_of_frames(camera, span), camera_moves=moves)


def _joint_sigma(motion: Motion, joints: np.ndarray, span: slice) -> np.ndarray:
    if motion.sigma is not None and np.isfinite(motion.sigma[span]).any():
        sigma = np.asarray(motion.sigma[span], dtype=np.float64) / RADIUS_68
    else:
        noise = white_noise(joints) if len(joints) >= FEW_FRAMES else UNKNOWN_SIGMA
        sigma = np.broadcast_to(noise, joints.shape[:2])
    return np.maximum(np.nan_to_num(sigma, nan=np.inf), LEAST_SIGMA)


def _pixel_sigma(pixels: np.ndarray, score: np.ndarray) -> np.ndarray:
    extent = np.nanmax(pixels, axis=1, initial=-np.inf, where=np.isfinite(pixels)) - np.nanmin(
        pixels, axis=1, initial=np.inf, where=np.isfinite(pixels))
    size = np.hypot(*np.where(np.isfinite(extent), extent, np.nan).T)
    typical = np.nanmedian(size) if np.isfinite(size).any() else 1.0
    return np.maximum(DETECTOR_SHARE * typical, LEAST_SIGMA_PX) / np.maximum(score, LEAST_SCORE)


def white_noise(values: np.ndarray) -> float:
    """Standard deviation of noise that changes from frame to frame in smooth signals (T, ..., d); 0 for T < 4.

    From the median size of the third differences, which motion at a video's rate hardly has; NaN are left out.
    """
    steps = np.abs(np.diff(values, 3, axis=0)) / _THIRD_DIFFERENCE if len(values) > 3 else np.zeros(0)
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) / MEDIAN_OF_NORMAL if len(steps) else 0.0


def noise_factor(residuals: np.ndarray, sigma: np.ndarray, fps: float) -> float:
    """By what factor standard deviations `sigma` are to be multiplied, judged by the residuals of a fit.

    residuals: (T, J, d), NaN where missing; sigma: (T, J), both in one unit. A robust ratio of the two, times the
    square root of (1 + r) / (1 - r), r being the correlation of successive residuals: an autoregressive error of first
    order carries so much less information per frame (Bayley and Hammersley, 1946).
    """
    ratio, deviation = _in_deviations(residuals, sigma)
    if len(residuals) < FEW_FRAMES and deviation is not None:
        deviation = max(deviation, 1.0)
    return 1.0 if deviation is None else deviation * np.sqrt(frames_per_measurement(ratio, deviation, fps))


def error_memory(residuals: np.ndarray, sigma: np.ndarray, fps: float) -> float:
    """How many frames of a fit's residuals count as one measurement; arguments as of `noise_factor`.

    1 for errors that change from frame to frame, some tens for those of lifts. Few frames do not tell: infinite.
    """
    ratio, deviation = _in_deviations(residuals, sigma)
    if deviation is None or len(residuals) < FEW_FRAMES:
        return np.inf
    return frames_per_measurement(ratio, deviation, fps)


def _in_deviations(residuals: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Residuals over sigma, NaN where missing, and their robust deviation, None when all are missing."""
    ratio = residuals / sigma[..., None]
    ratio = np.where(np.isfinite(ratio), ratio, np.nan)
    size = np.abs(ratio[np.isfinite(ratio)])
    return ratio, float(np.median(size)) / MEDIAN_OF_NORMAL if len(size) else None


def frames_per_measurement(ratio: np.ndarray, deviation: float, fps: float) -> float:
    """How many frames of residuals (T, J, d) count as one independent measurement, 1 to `MEMORY_SECONDS` of frames."""
    if len(ratio) < 3:
        return 1.0
    clipped = np.clip(ratio, -3 * deviation, 3 * deviation)  # an outlier must not pass for correlation
    both = np.isfinite(clipped[1:]) & np.isfinite(clipped[:-1])
    before, after = clipped[:-1][both], clipped[1:][both]
    power = 0.5 * (before @ before + after @ after)
    correlation = before @ after / power if power > 0 else 0.0
    most = max(MEMORY_SECONDS * fps, 1.0)
    limit = (most - 1) / (most + 1)
    correlation = np.clip(correlation, 0.0, limit)
    return float((1 + correlation) / (1 - correlation))
