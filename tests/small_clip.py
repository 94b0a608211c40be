"""A short clip of the small body in motion with exact observations, and terms that hold the body to them, for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from small_body import small_body

from lifting.body.contact_terms import ContactPoints, GroundContact, NoSlip, Penetration
from lifting.body.energy import State
from lifting.body.model import BodyModel
from lifting.body.point_terms import Points2D, Points3D
from lifting.body.points import PointSet
from lifting.body.prior_terms import PosePriorTerm, ShapePrior
from lifting.body.priors import PosePrior
from lifting.body.smoothness import RotationSmoothness, TranslationSmoothness
from lifting.cameras import Camera
from lifting.ground import Ground
from lifting.rotations import rotvec_to_matrix

FPS = 25.0
CAMERA = Camera.from_focal(1200, (1920, 1080))


@dataclass(frozen=True)
class Clip:
    """The true state, a start some way off it, and exact observations."""

    body: BodyModel
    truth: State
    start: State
    joints: np.ndarray
    pixels: np.ndarray

    def terms(self, joints=None, pixels=None, robust: float | None = 3.0, pose: float = 0.4) -> list:
        """The usual energy: deviations of 20 mm, 2 px, 60 rad/s^2, 10 m/s^2 and `pose` rad."""
        covariance = pose**2 * np.eye(63)[None]
        prior = PosePrior.from_mixture([1.0], np.zeros((1, 63)), covariance, np.arange(1, 22))
        return [
            Points3D(self.body.point_set("h36m17"), self.joints if joints is None else joints, 0.02, robust),
            Points2D(self.body.point_set("coco17_feet"), self.pixels if pixels is None else pixels, 2.0, robust,
                     camera=CAMERA),
            RotationSmoothness(FPS, 60.0), TranslationSmoothness(FPS, 10.0), ShapePrior(self.body.shape_sigma),
            PosePriorTerm(prior),
        ]  # fmt: skip

    def joint_errors(self, state: State) -> np.ndarray:
        """Distances (T, K) in metres of a state's joints from the true ones."""
        return np.linalg.norm(kinematics_of(self.body, state).joints - kinematics_of(self.body, self.truth).joints,
                              axis=-1)


def small_clip(frames: int = 20, seed: int = 0, swing: float = 0.3, away: float = 0.15) -> Clip:
    """A clip of smooth random motion with joint angles up to `swing` rad, and a start off by `away` rad and 3 cm."""
    rng = np.random.default_rng(seed)
    body = small_body(joints=22, shape=4)
    seconds = np.arange(frames)[:, None, None] / FPS
    size, speed, phase = swing * rng.random((22, 3)), rng.uniform(0.2, 0.7, (22, 3)), 2 * np.pi * rng.random((22, 3))
    rotvec = size * np.sin(2 * np.pi * speed * seconds + phase)
    rotvec[:, 0] += [np.pi, 0, 0]  # upright in a camera whose y axis points down
    path = np.concatenate([0.5 * np.sin(seconds), 0 * seconds, 4 + 0.3 * np.cos(seconds)], axis=-1)[:, 0]
    truth = State(rotvec_to_matrix(rotvec), path, 0.7 * body.shape_sigma * rng.normal(size=4))
    turned = rotvec_to_matrix(away * rng.normal(size=(1, 22, 3)))
    start = State(truth.rotations @ turned, path + 0.03 * rng.normal(size=3), np.zeros(4))
    kinematics = kinematics_of(body, truth)
    joints = body.point_set("h36m17").evaluate(kinematics, truth.shape)
    pixels = CAMERA.project(body.point_set("coco17_feet").evaluate(kinematics, truth.shape))
    return Clip(body, truth, start, joints, pixels)


def kinematics_of(body: BodyModel, state: State):
    """The kinematics of a state."""
    return body.kinematics(state.rotations, state.trajectory, state.shape)


def contact_terms(
    points: PointSet, probability: np.ndarray, ground: Ground, fps: float, clearance: np.ndarray | float = 0.0
) -> tuple[GroundContact, NoSlip, Penetration]:
    """The three terms of foot points with their default strengths, sharing one Jacobian per iteration."""
    shared = ContactPoints(points)
    return (GroundContact(shared, probability, ground, clearance), NoSlip(shared, probability, fps),
            Penetration(shared, ground, clearance))
