"""Synthetic views of real motion: random bodies, cameras and the errors a 2D detector makes.

Motion capture gives joints in metres (Z up). A training sample is a window of it, seen through a random pinhole camera,
on a body of random proportions, with the 2D points disturbed the way detectors disturb them. Points are camera rays
(x/z, y/z), so no image size is involved beyond the border that truncates them. All arrays are numpy float32 with
leading axes (N samples, T frames). `detector_noise` has the disturbances. Sources of the ideas: PoseAug (Gong et al.
2021) for bodies and cameras, Ray3D (Zhan et al. 2022) for rays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lifting.anatomy import (
    H36M,
    STATURE_PER_CHAIN,
    chain_length,
    frame_from_axes,
    stature,
)
from lifting.datasets.detector_noise import TRAINING_NOISE, NoiseModel, detect, detector_points
from lifting.datasets.mocap import FPS, MocapPiece
from lifting.datasets.pose_augmentation import PoseRanges, augment_poses
from lifting.rotations import rotvec_to_matrix

TYPICAL_STATURE = 1.75  # metres
_H36M_FLIP = np.array(H36M.flip)
_FEET_FLIP = np.array([1, 0, 3, 2])
_FEET_ANKLES = H36M.indices(["left_ankle", "right_ankle", "left_ankle", "right_ankle"])


@dataclass(frozen=True)
class CameraRanges:
    """Ranges of a random static camera, in degrees and metres; uniform, the distance in its logarithm."""

    field_of_view: tuple[float, float] = (35.0, 90.0)  # horizontal
    distance: tuple[float, float] = (2.5, 8.0)  # depth of the middle of the person's path
    pitch: tuple[float, float] = (-15.0, 35.0)  # positive looks down
    roll: tuple[float, float] = (-8.0, 8.0)
    centring: float = 0.5  # the middle of the person's path lies within this share of the half image
    nearest: float = 0.8  # metres: the camera moves back until every joint is at least this far ahead of it
    aspects: tuple[float, ...] = (16 / 9, 4 / 3, 9 / 16, 3 / 4)  # width / height


TRAINING_CAMERAS = (
    (0.45, CameraRanges()),
    (0.50, CameraRanges(distance=(2.0, 9.0), pitch=(-25.0, 65.0), roll=(-30.0, 30.0), centring=0.75)),
    (0.05, CameraRanges(pitch=(-85.0, 85.0), roll=(-180.0, 180.0))),
)


@dataclass(frozen=True)
class Views:
    """What a synthetic detector saw and the truth behind it; N samples of T frames.

    rays: (N, T, 17, 2) in the layout ``lift17``, NaN where unseen. scores: (N, T, 17) in [0, 1], 0 where unseen.
    joints: (N, T, 17, 3) H36M-17, metres, camera axes, relative to the root. root: (N, T, 3) metres, camera axes.
    stature: (N,) metres. rotation: (N, 3, 3), camera from world.
    """

    rays: np.ndarray
    scores: np.ndarray
    joints: np.ndarray
    root: np.ndarray
    stature: np.ndarray
    rotation: np.ndarray


@dataclass(frozen=True)
class Synthesiser:
    """Endless random training windows from motion capture, a pure function of the batch size and the generator.

    frames: length of a window. fps: rate of the windows; pieces of another rate are resampled. speed: range of the
    factor that a motion is sped up by. stature: what all recorded people are scaled to, in metres, before proportions
    and sizes vary; None leaves them as recorded. No camera sees how tall somebody is, and of a dozen people a network
    learns that by heart. Raises ValueError without pieces or frames.
    """

    pieces: Sequence[MocapPiece]
    frames: int
    cameras: tuple[tuple[float, CameraRanges], ...] = TRAINING_CAMERAS
    noise: NoiseModel = field(default_factory=lambda: TRAINING_NOISE)
    speed: tuple[float, float] = (0.7, 1.4)
    mix_share: float = 0.25  # samples whose upper body comes from another motion
    poses: PoseRanges = PoseRanges()  # how poses are changed
    fps: float = FPS
    stature: float | None = TYPICAL_STATURE

    def __post_init__(self) -> None:
        if not self.pieces:
            raise ValueError("got no motion to synthesise views from; give at least one mocap piece")
        if self.frames < 1:
            raise ValueError(f"got windows of {self.frames} frames; expected at least 1, such as 160")

    def __call__(self, batch: int, rng: np.random.Generator) -> Views:
        """Draws a batch of windows from the generator."""
        joints, feet = self._windows(batch, rng)
        joints, feet = mirror(joints, feet, rng.random(batch) < 0.5)
        joints, feet = mix_bodies(joints, feet, rng.random(batch) < self.mix_share, rng)
        joints, feet = augment_poses(joints, feet, rng, self.poses, self.fps)
        joints, feet = reshape_bodies(joints, feet, rng)
        return photograph(joints, feet, self.cameras, self.noise, rng)

    @cached_property
    def _share(self) -> np.ndarray:
        """Chance of each piece: tempered, since three salsa sessions hold a quarter of all frames."""
        frames = np.array([len(p.joints) for p in self.pieces], dtype=np.float64) ** 0.8
        return frames / frames.sum()

    @cached_property
    def _scales(self) -> np.ndarray:
        """Factor of each piece that gives everybody the same stature."""
        if self.stature is None:
            return np.ones(len(self.pieces), np.float32)
        return np.array([self.stature / stature(piece.joints) for piece in self.pieces], np.float32)

    def _windows(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        joints = np.empty((batch, self.frames, 17, 3), np.float32)
        feet = np.full((batch, self.frames, 4, 3), np.nan, np.float32)
        for i, k in enumerate(rng.choice(len(self.pieces), size=batch, p=self._share)):
            piece = self.pieces[k]
            speed = rng.uniform(*self.speed) * (piece.fps / self.fps)
            last = len(piece.joints) - 1
            start = rng.uniform(0, max(last - speed * (self.frames - 1), 0))
            times = np.minimum(start + speed * np.arange(self.frames), last)
            joints[i] = _resample(piece.joints, times) * self._scales[k]
            if piece.feet is not None:
                feet[i] = _resample(piece.feet, times) * self._scales[k]
        return joints, feet


def _resample(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    low = np.minimum(times.astype(int), max(len(values) - 2, 0))
    high = np.minimum(low + 1, len(values) - 1)
    part = (times - low).astype(np.float32)[:, None, None]
    return values[low] * (1 - part) + values[high] * part


def mirror(joints: np.ndarray, feet: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirrors the chosen samples (N,) left to right, in place: x is negated and paired joints change places."""
    sign = np.array([-1, 1, 1], np.float32)
    joints[where] = joints[where][:, :, _H36M_FLIP] * sign
    feet[where] = feet[where][:, :, _FEET_FLIP] * sign
    return joints, feet


def mix_bodies(
    joints: np.ndarray, feet: np.ndarray, where: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Gives the chosen samples (N,) the upper body of a random sample, in place, attached by the pelvis's frame."""
    if not where.any():
        return joints, feet
    donors = joints[rng.permutation(len(joints))[where]]
    mine = joints[where]
    turn = pelvis_frames(mine) @ pelvis_frames(donors).swapaxes(-1, -2)
    upper = slice(H36M.index("spine"), None)
    moved = np.einsum("ntij,ntkj->ntki", turn, donors[:, :, upper] - donors[:, :, :1])
    mine[:, :, upper] = moved + mine[:, :, :1]
    joints[where] = mine
    return joints, feet


def pelvis_frames(joints: np.ndarray) -> np.ndarray:
    """Rotation of the pelvis (..., 3, 3), columns (left, up, forward), from the hips and the spine joint."""
    across = joints[..., H36M.index("left_hip"), :] - joints[..., H36M.index("right_hip"), :]
    return frame_from_axes(across, joints[..., H36M.index("spine"), :] - joints[..., 0, :])


def reshape_bodies(
    joints: np.ndarray, feet: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random proportions: every bone keeps its direction, both sides change alike, hips mostly widen.

    CMU's hip joints lie 15-20 cm apart and its shoulders 32-40 cm, Human3.6M's 27 and 30 cm, hence the two widths.
    """
    batch = len(joints)
    factors = np.ones((batch, 17), np.float32)
    groups = (("knee", 0.07), ("ankle", 0.07), ("elbow", 0.08), ("wrist", 0.08))
    for name, spread in groups:
        factors[:, H36M.indices([f"left_{name}", f"right_{name}"])] = rng.normal(1, spread, (batch, 1))
    for name, spread in (("spine", 0.08), ("thorax", 0.08), ("neck_nose", 0.08), ("head", 0.08)):
        factors[:, H36M.index(name)] = rng.normal(1, spread, batch)
    factors[:, H36M.indices(["left_hip", "right_hip"])] = rng.uniform(0.9, 1.6, (batch, 1))
    factors[:, H36M.indices(["left_shoulder", "right_shoulder"])] = rng.uniform(0.8, 1.15, (batch, 1))
    factors = np.clip(factors, 0.75, 1.6) * np.clip(rng.normal(1.0, 0.06, (batch, 1)), 0.85, 1.15).astype(np.float32)
    shaped = joints.copy()
    for parent, child in H36M.bones:
        bone = joints[:, :, child] - joints[:, :, parent]
        shaped[:, :, child] = shaped[:, :, parent] + bone * factors[:, None, child, None]
    ankle = factors[:, None, _FEET_ANKLES, None] * rng.uniform(0.85, 1.15, (batch, 1, 1, 1)).astype(np.float32)
    feet = shaped[:, :, _FEET_ANKLES] + (feet - joints[:, :, _FEET_ANKLES]) * ankle
    return shaped, feet


def photograph(
    joints: np.ndarray,
    feet: np.ndarray,
    cameras: tuple[tuple[float, CameraRanges], ...],
    noise: NoiseModel,
    rng: np.random.Generator,
) -> Views:
    """Looks at world-space motion (Z up, metres) through random cameras and a noisy detector."""
    batch = len(joints)
    weights = np.array([w for w, _ in cameras])
    kinds = rng.choice(len(cameras), size=batch, p=weights / weights.sum())
    placed = [_place_camera(joints[i], cameras[k][1], rng) for i, k in enumerate(kinds)]
    rotation = np.stack([p[0] for p in placed]).astype(np.float32)
    shift = np.stack([p[1] for p in placed]).astype(np.float32)[:, None, None]
    border = np.stack([p[2] for p in placed]).astype(np.float32)
    in_camera = np.einsum("nij,ntkj->ntki", rotation, joints) + shift
    feet_in_camera = np.einsum("nij,ntkj->ntki", rotation, feet) + shift
    height = (STATURE_PER_CHAIN * chain_length(joints[:, 0])).astype(np.float32)
    points = detector_points(in_camera, feet_in_camera, noise, rng)
    rays, scores = detect(points, height[:, None] / in_camera[:, :, 0, 2], border, noise, rng)
    root = in_camera[:, :, 0]
    return Views(rays, scores, in_camera - root[:, :, None], root, height, rotation)


def _place_camera(
    joints: np.ndarray, ranges: CameraRanges, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation (3, 3), translation (3,) and half-extents of the image in ray units (2,)."""
    yaw, pitch, roll = np.radians(
        [rng.uniform(0, 360), rng.uniform(*ranges.pitch), rng.uniform(*ranges.roll)]
    )
    rotation = camera_rotation(yaw, pitch, roll)
    width = np.tan(np.radians(rng.uniform(*ranges.field_of_view)) / 2)
    border = np.array([width, width / rng.choice(ranges.aspects)])
    centre = (joints.min((0, 1)) + joints.max((0, 1))) / 2
    # Log-uniform distance: perspective changes with its ratio.
    distance = np.exp(rng.uniform(*np.log(ranges.distance)))
    offset = rng.uniform(-ranges.centring, ranges.centring, 2) * border
    target = np.array([offset[0], offset[1], 1.0]) * distance
    shift = target - rotation @ centre
    nearest = (joints.reshape(-1, 3) @ rotation[2]).min() + shift[2]
    if nearest < ranges.nearest:
        shift = shift + target / distance * (ranges.nearest - nearest)
    return rotation, shift, border


def camera_rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Camera-from-world rotation (3, 3) of a camera in a Z-up world. Radians.

    Zeros look along +Y; positive yaw turns the camera to its right (clockwise from above), positive pitch looks down,
    positive roll turns the image clockwise.
    """
    level = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])  # looks along +Y, image y = -Z
    turn = rotvec_to_matrix(np.array([0.0, 0, yaw]))
    tilt = rotvec_to_matrix(np.array([pitch, 0.0, 0]))
    spin = rotvec_to_matrix(np.array([0.0, 0, roll]))
    return spin @ tilt @ level @ turn
