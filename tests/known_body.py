"""Motion and pixels of a body whose pose and shape are known: the truth for the tests of fitting."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lifting.body import BodyModel
from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import BodyMotion, Motion
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix

FPS = 25.0
CAMERA = Camera.from_focal(1100.0, (1000, 1000))
FACING = np.diag([1.0, -1.0, -1.0])  # a body with y up and z forward, upright before the camera and turned to it


@dataclass(frozen=True, eq=False)
class KnownBody:
    """rotations (T, K, 3), trajectory (T, 3) and shape (S,) of a body in the camera frame."""

    body: BodyModel
    rotations: np.ndarray
    trajectory: np.ndarray
    shape: np.ndarray
    fps: float = FPS

    @classmethod
    def walking(cls, body: BodyModel, frames: int = 30, seed: int = 0, fps: float = FPS, angle: float = 0.12):
        """Smooth random motion four metres before the camera; elbows and knees bend their natural way."""
        rng = np.random.default_rng(seed)
        time = np.arange(frames)[:, None] / fps
        waves = np.sin(rng.uniform(2, 6, 3 * body.num_joints) * time + rng.uniform(0, 6, 3 * body.num_joints))
        rotations = angle * waves.reshape(frames, -1, 3)
        for name, axis, sign in (("left_elbow", 1, -1), ("right_elbow", 1, 1), ("left_knee", 0, 1),
                                 ("right_knee", 0, 1)):  # fmt: skip
            bend = rotations[:, body.joint(name), axis]
            rotations[:, body.joint(name), axis] = sign * (0.3 + np.abs(angle) + bend)
        turn = np.zeros((frames, 3))
        turn[:, 1] = 0.6 * np.sin(time[:, 0])
        rotations[:, 0] = matrix_to_rotvec(FACING @ rotvec_to_matrix(turn))
        phase = time[:, 0]
        trajectory = np.stack([0.3 * np.sin(phase), 0.05 * np.cos(2 * phase), 4 + 0.2 * np.sin(phase)], axis=-1)
        return cls(body, rotations, trajectory, 0.7 * rng.normal(size=body.num_shape) * body.shape_sigma, fps)

    @cached_property
    def joints(self) -> np.ndarray:
        """(T, 17, 3) metres, h36m17 in the camera frame."""
        return self.points("h36m17")

    def points(self, layout: str) -> np.ndarray:
        """(T, J, 3) metres in the camera frame."""
        return self.body.points(layout, self.rotations, self.trajectory, self.shape)

    @property
    def stature(self) -> float:
        """Metres."""
        return self.body.stature(self.shape)

    def motion(self, noise: float = 0.0, seed: int = 1, layout: str = "h36m17") -> Motion:
        """The joints as a lifter would give them, with white noise in metres."""
        points = self.points(layout)
        return motion_of(points + noise * np.random.default_rng(seed).normal(size=points.shape), self.fps, layout)

    def keypoints(self, noise: float = 0.0, seed: int = 2, layout: str = "coco17_feet") -> Keypoints2D:
        """The pixels as a detector would give them, with white noise in pixels."""
        pixels = CAMERA.project(self.points(layout))
        pixels = pixels + noise * np.random.default_rng(seed).normal(size=pixels.shape)
        return Keypoints2D(pixels, None, layout, CAMERA.image_size, self.fps)

    def vertex_errors(self, fitted: BodyMotion) -> np.ndarray:
        """(T, V) metres between the fitted mesh and the true one."""
        vertices = self.body.vertices(fitted.rotations, fitted.trajectory, fitted.shape)
        return np.linalg.norm(vertices - self.body.vertices(self.rotations, self.trajectory, self.shape), axis=-1)


def motion_of(points: np.ndarray, fps: float = FPS, layout: str = "h36m17", frame: str = "camera") -> Motion:
    """Points (T, J, 3) in metres as a motion; the first joint of the layout is the root."""
    return Motion(points - points[:, :1], points[:, 0], None, layout, fps, frame)


def errors(fit, points: np.ndarray) -> np.ndarray:
    """(T, J) metres between the fitted joints and the true ones."""
    return np.linalg.norm(fit.joints.absolute - points, axis=-1)
