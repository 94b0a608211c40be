"""Truth for the body fit: real mocap rotations in the embedded body, random shapes and cameras, and disturbed evidence.

Every piece of motion of the val subjects (05, 09, 10) that has original rotations is cut into windows; each is worn by
a random adult of the embedded body and seen by one camera. What a fit is given is made from that truth: joints in the
layout ``h36m17`` and 2D points in the default detector's layout, exact or disturbed in one of the ways of `DISTURB`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from lifting.body import BodyModel
from lifting.body.retarget import body_rotations_from_mocap
from lifting.cameras import Camera
from lifting.datasets.mocap import Z_UP_FROM_Y_UP
from lifting.datasets.synthesis import camera_rotation
from lifting.keypoints import Keypoints2D
from lifting.motion import RADIUS_68, BodyMotion, Motion
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix

SEED = 20261121
SUBJECTS = ("05", "09", "10")
FPS = 50.0
CAMERA = Camera((1145.0, 1145.0), (500.0, 500.0), (1000, 1000))  # Human3.6M's, as in the prototype
DETECTOR_LAYOUT = "mediapipe33"
SHAPE_LIMIT = 2.0  # standard deviations
CORRELATION = 0.5  # seconds between the knots of smooth errors


@dataclass(frozen=True)
class Truth:
    """One window of true motion of a body in camera axes, and the points that are measured on it.

    body_motion: the truth. joints: exact h36m17 points, (T, 17, 3) metres, absolute. points: exact points of the
    detector's layout, (T, P, 3) metres, absolute. up, floor: the floor, up . x = floor, in camera axes.
    """

    name: str
    body: BodyModel
    body_motion: BodyMotion
    joints: np.ndarray
    points: np.ndarray
    layout: str
    up: np.ndarray
    floor: float

    def vertices(self, every: int = 1) -> np.ndarray:
        """(T', V, 3) metres of every so many frames."""
        truth = self.body_motion
        return self.body.vertices(truth.rotations[::every], truth.trajectory[::every], truth.shape)


@dataclass(frozen=True)
class Evidence:
    """What a fit is given: 3D joints with their uncertainty, and 2D points or None."""

    motion: Motion
    keypoints: Keypoints2D | None


def read_windows(
    path: str, frames: int, subjects: tuple[str, ...] = SUBJECTS
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Names, rotation vectors (frames, 24, 3) and root paths (frames, 3) metres, Y up, of every whole window.

    Raises FileNotFoundError without the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no joint rotations at {path}; expected mocap_rot24.h5, see data/README.md")
    with h5py.File(path) as file:
        for name in sorted(file):
            group = file[name]
            if str(group.attrs["subject"]) not in subjects:
                continue
            scale = group.attrs["scale"]
            for start in range(0, group["rotvec"].shape[0] - frames + 1, frames):
                window = slice(start, start + frames)
                yield f"{name}@{start}", group["rotvec"][window] * scale, np.asarray(group["trans"][window], np.float64)


@dataclass(frozen=True)
class Dressed:
    """A piece of mocap worn by a body, Y up, metres: rotations (T, K, 3, 3), trajectory (T, 3), shape (S,), floor."""

    rotations: np.ndarray
    trajectory: np.ndarray
    shape: np.ndarray
    floor: float

    def turned(self, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotations and trajectory in axes that `turn` (3, 3) gives from Y up."""
        root = turn @ self.rotations[:, 0]
        return np.concatenate([root[:, None], self.rotations[:, 1:]], axis=1), self.trajectory @ turn.T


def dress(body: BodyModel, rotvec: np.ndarray, path: np.ndarray, rng: np.random.Generator) -> Dressed:
    """Dresses a piece of mocap, rotation vectors (T, 24, 3) and hips (T, 3), Y up, in a random adult."""
    shape = np.clip(rng.normal(0, 1, body.num_shape), -SHAPE_LIMIT, SHAPE_LIMIT) * body.shape_sigma
    rotations = rotvec_to_matrix(body_rotations_from_mocap(body, rotvec))
    joints = body.kinematics(rotations, np.zeros((len(path), 3)), shape).joints
    # The path is that of the middle of the hips, over the floor at zero; it is scaled to this body's legs, so that feet
    # stand where they stood and slip as little as they did.
    hips = joints[:, [body.joints.index("left_hip"), body.joints.index("right_hip")]].mean(1)
    soles = body.points("coco17_feet", rotations, -hips, shape)[:, 17:]
    trajectory = path * np.median(-soles[..., 1].min(1) / path[:, 1]) - hips
    floor = np.percentile((soles + (trajectory + hips)[:, None])[..., 1].min(1), 5)
    return Dressed(rotations, trajectory, shape, float(floor))


def place(name: str, body: BodyModel, rotvec: np.ndarray, path: np.ndarray, layout: str = DETECTOR_LAYOUT) -> Truth:
    """Dresses a window of mocap in a random adult and puts it before a camera; `layout`: of the 2D points."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    worn = dress(body, rotvec, path, rng)
    yaw, pitch = np.radians([rng.uniform(0, 360), rng.uniform(-5, 25)])
    turn = camera_rotation(yaw, pitch, 0.0) @ Z_UP_FROM_Y_UP
    centre = turn @ ((worn.trajectory.min(0) + worn.trajectory.max(0)) / 2)
    shift = np.array([0, 0, rng.uniform(4.0, 6.0)]) - centre
    rotations, trajectory = worn.turned(turn)
    trajectory += shift
    nearest = trajectory[:, 2].min()
    trajectory[:, 2] += max(0.0, 2.0 - nearest)
    shift[2] += max(0.0, 2.0 - nearest)
    up = turn @ np.array([0.0, 1.0, 0.0])
    motion = BodyMotion(matrix_to_rotvec(rotations), trajectory, worn.shape, body.name, FPS)
    joints, points = (body.points(points_of, rotations, trajectory, worn.shape) for points_of in ("h36m17", layout))
    return Truth(name, body, motion, joints, points, layout, up, float(worn.floor + up @ shift))


def smooth_noise(shape: tuple[int, ...], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Unit-variance noise (T, ...) interpolated between independent values every so many seconds."""
    step = seconds * FPS
    at = np.arange(shape[0]) / step
    knots = rng.standard_normal((int(at[-1]) + 2, *shape[1:]))
    low = at.astype(int)
    part = (at - low).reshape(-1, *[1] * (len(shape) - 1))
    return (knots[low] * (1 - part) + knots[low + 1] * part) / np.sqrt(part**2 + (1 - part) ** 2)


def evidence(truth: Truth, kind: str, use_2d: bool = True) -> Evidence:
    """Joints and 2D points of a truth, disturbed in the way `DISTURB` names."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"{truth.name} {kind}".encode())])
    joints, pixels, sigma = DISTURB[kind](truth, rng)
    # The trajectory only carries the joints: it must not take a whole frame away where the root alone is missing.
    carrier = bridged(joints[:, 0])
    motion = Motion(joints - carrier[:, None], carrier, sigma, "h36m17", FPS)
    keypoints = Keypoints2D(pixels, None, truth.layout, CAMERA.image_size, FPS) if use_2d else None
    return Evidence(motion, keypoints)


def bridged(path: np.ndarray) -> np.ndarray:
    """A path (T, 3) with straight lines over its missing frames."""
    frames, seen = np.arange(len(path)), np.isfinite(path).all(-1)
    return np.stack([np.interp(frames, frames[seen], axis[seen]) for axis in path.T], axis=-1)


def _exact(truth: Truth, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, None]:
    return truth.joints.copy(), CAMERA.project(truth.points), None


def _white(truth: Truth, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """20 mm on every axis of every joint, 1.5 px on every axis of every 2D point."""
    joints = truth.joints + rng.normal(0, 0.020, truth.joints.shape)
    pixels = CAMERA.project(truth.points) + rng.normal(0, 1.5, truth.points.shape[:2] + (2,))
    return joints, pixels, np.full(joints.shape[:2], RADIUS_68 * 0.020)


def _correlated(truth: Truth, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A lift's errors: 30 mm on every axis, 48 mm in the mean, changing over half seconds; 2D as `_white`."""
    shape = truth.joints.shape
    error = 0.030 * smooth_noise(shape, CORRELATION, rng)
    pixels = CAMERA.project(truth.points) + rng.normal(0, 1.5, truth.points.shape[:2] + (2,))
    return truth.joints + error, pixels, np.full(shape[:2], RADIUS_68 * 0.030)


def _gross(truth: Truth, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_white`, and 5 % outliers of 30 cm and 0.1 rad, 20 % of the points missing, gaps of ten frames everywhere."""
    joints, pixels, sigma = _white(truth, rng)
    for points, size in ((joints, 0.30), (pixels, 0.1 * CAMERA.focal[0])):
        wild = rng.random(points.shape[:2]) < 0.05
        direction = rng.standard_normal(points.shape)
        points += wild[..., None] * size * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        points[rng.random(points.shape[:2]) < 0.20] = np.nan
        for start in range(60, len(points) - 10, 120):
            points[start : start + 10] = np.nan
    return joints, pixels, sigma


DISTURB = {"exact": _exact, "white": _white, "correlated": _correlated, "gross": _gross}
