"""What SMPLify minimises: the published terms and weights, for frames that share nothing.

All weights enter squared but that of the spheres, whose scale is ours: the published ones belong to spheres that come
with SMPL. Sources as in lifting.body.smplify.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lifting.body.lbfgs import Function
from lifting.body.max_mixture import PoseCost
from lifting.body.model import BodyModel
from lifting.body.projection import project_with_jacobian
from lifting.body.smplify_terms import Frames, PosedPoints, Spheres, angle_prior, geman_mcclure
from lifting.cameras import Camera
from lifting.skeletons import Skeleton

ROBUST_SCALE = 100.0  # px
DATA_WEIGHT = 1000.0  # over the height of the image in pixels
ANGLE_WEIGHT = 3.17
DEPTH_WEIGHT = 100.0  # per metre
SPHERE_WEIGHT = 1000.0  # times the stage's; of our choice
IGNORED = ("neck", "left_hip", "right_hip")  # detectors put these elsewhere: only the camera stage uses them
TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")


@dataclass(frozen=True)
class Stage:
    """Weights of one stage; pose and shape enter squared, the angle prior with ANGLE_WEIGHT times the pose's."""

    pose: float
    shape: float
    collision: float = 0.0


@dataclass(frozen=True, eq=False)
class Setup:
    """What all frames have in common."""

    body: BodyModel
    skeleton: Skeleton
    camera: Camera
    prior: PoseCost
    spheres: Spheres | None
    free_translation: bool


class Problem:
    """The objective of n frames; costs and gradients are per frame, for `minimise`."""

    def __init__(self, setup: Setup, keypoints: np.ndarray, weights: np.ndarray) -> None:
        self.setup, self.keypoints, self.weights = setup, keypoints, weights
        self.points = setup.body.point_set(setup.skeleton)
        self.data_weight = (DATA_WEIGHT / setup.camera.image_size[1]) ** 2
        self._used = np.array([joint not in IGNORED for joint in setup.skeleton.joints], np.float64)

    def take(self, rows: np.ndarray) -> Problem:
        """The problem of some of the frames, in any order and number."""
        return Problem(self.setup, self.keypoints[rows], self.weights[rows])

    def stage(self, stage: Stage) -> Function:
        """The full objective with the weights of a stage."""

        def function(values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            frames = Frames.unpack(values, self.setup.body.num_joints)
            cost, gradient = self._data(frames, rows)
            for part_cost, part in self._priors(frames, stage):
                cost, gradient = cost + part_cost, gradient + part
            return cost, self._held(gradient)

        return function

    def _data(self, frames: Frames, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        posed = PosedPoints(self.setup.body, self.points, frames)
        pixels, slope, _ = project_with_jacobian(posed.positions, self.setup.camera)
        cost, by_pixels = geman_mcclure(pixels - self.keypoints[rows], ROBUST_SCALE)
        weights = self.data_weight * (self._used * self.weights[rows]) ** 2
        by_points = np.einsum("nj,njp,njpa->nja", weights, by_pixels, slope)
        return np.einsum("nj,njp->n", weights, cost), posed.pull_back(by_points).pack()

    def _priors(self, frames: Frames, stage: Stage) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield cost (n,) and packed gradient (n, D) of the terms that need no picture."""
        pose, pose_slope = self.setup.prior(frames.rotations)
        angle, angle_slope = angle_prior(frames.rotations)
        weight, angle_weight = stage.pose**2, (ANGLE_WEIGHT * stage.pose) ** 2
        slope = Frames(weight * pose_slope + angle_weight * angle_slope, np.zeros_like(frames.translation),
                       2 * stage.shape**2 * frames.shape)
        yield weight * pose + angle_weight * angle + stage.shape**2 * (frames.shape**2).sum(axis=1), slope.pack()
        if stage.collision and self.setup.spheres is not None and len(self.setup.spheres.pairs):
            posed = PosedPoints(self.setup.body, self.setup.spheres.points, frames)
            cost, slope = self.setup.spheres.cost(posed.positions)
            weight = SPHERE_WEIGHT * stage.collision
            yield weight * cost, posed.pull_back(weight * slope).pack()

    def _held(self, gradient: np.ndarray) -> np.ndarray:
        """The gradient without what must not move: fingers, jaw and eyes, and the place."""
        bones = self.setup.body.num_joints
        gradient = gradient.copy()
        if bones != 24:
            gradient[:, 3 * 22 : 3 * bones] = 0
        if not self.setup.free_translation:
            gradient[:, 3 * bones : 3 * bones + 3] = 0
        return gradient

    def camera_stage(self, depth: np.ndarray) -> Function:
        """Squared distances of the torso in the image and of the depth (n,) metres; only root and place move."""
        torso = list(self.setup.skeleton.indices(TORSO))
        points, bones = self.points.subset(torso), self.setup.body.num_joints

        def function(values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            posed = PosedPoints(self.setup.body, points, frames := Frames.unpack(values, bones))
            pixels, slope, _ = project_with_jacobian(posed.positions, self.setup.camera)
            away, off = pixels - self.keypoints[rows][:, torso], frames.translation[:, 2] - depth[rows]
            weights = self.data_weight * (self.weights[rows][:, torso] > 0)
            cost = np.einsum("nj,njp->n", weights, away**2) + (DEPTH_WEIGHT * off) ** 2
            gradient = posed.pull_back(np.einsum("nj,njp,njpa->nja", 2 * weights, away, slope)).pack()
            gradient[:, 3 * bones + 2] += 2 * DEPTH_WEIGHT**2 * off
            gradient[:, 3 : 3 * bones] = gradient[:, 3 * bones + 3 :] = 0
            return cost, gradient

        return function
