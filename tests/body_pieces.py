"""Pieces of made-up bodies in motion and what a lifter would have seen of them, for tests of temporal body models."""

from __future__ import annotations

import functools

import numpy as np
from scipy.spatial.transform import Rotation

from lifting.anatomy import H36M
from lifting.body import load_body
from lifting.datasets.strip_windows import BodyPiece
from lifting.rotations import rotvec_to_matrix
from lifting.seen_motion import SeenMotion
from lifting.skeletons import get_skeleton, joint_map

VIEWED = joint_map(H36M, get_skeleton("lift17")).weights.argmax(-1)  # the joint of every keypoint, or any


@functools.cache
def lite():
    return load_body("lite")


def body_piece(frames: int = 40, seed: int = 0, noise: float = 0.0, name: str = "made") -> BodyPiece:
    """Somebody who walks in a curve and moves smoothly, seen with errors of `noise` metres; rays are exact."""
    body, rng = lite(), np.random.default_rng(seed)
    phase = np.arange(frames)[:, None, None] * 0.2 + rng.uniform(0, 6, (len(body.joints), 3))
    rotations = 0.25 * np.sin(phase) * rng.uniform(0, 1, (len(body.joints), 3))
    heading = Rotation.from_rotvec(np.outer(rng.uniform(0, 6) + 0.03 * np.arange(frames), [0, 0, 1]))
    upright = Rotation.from_euler("x", 90, degrees=True)  # the body's y is up
    rotations[:, 0] = (heading * Rotation.from_rotvec(rotations[:, 0]) * upright).as_rotvec()
    trajectory = np.cumsum(heading.apply([0.01, -0.04, 0.0]), 0) + [1.0, 2.0, 0.9]
    shape = rng.normal(0, 0.5, body.num_shape)
    points = body.points("h36m17", rotvec_to_matrix(rotations), trajectory, shape)
    seen, alone = (_seen(points, noise * scale, rng) for scale in (1, 2))
    arrays = (rotations, trajectory, shape, points - points[:, :1], points[:, 0])
    return BodyPiece(name, *(array.astype(np.float32) for array in arrays), seen, alone)


def _seen(points: np.ndarray, noise: float, rng: np.random.Generator) -> SeenMotion:
    view = Rotation.from_euler("xz", [100.0, rng.uniform(-180, 180)], degrees=True).as_matrix()  # looks across, down
    shift = np.array([0.0, 0.0, 6.0]) - view @ points[:, 0].mean(0)
    camera = points @ view.T + shift
    rays = (camera[..., :2] / camera[..., 2:])[:, VIEWED]
    scores = rng.uniform(0.3, 1.0, rays.shape[:-1])
    joints = points - points[:, :1] + noise * rng.normal(size=points.shape) * (np.arange(17) > 0)[:, None]
    values = (joints, points[:, 0], np.full(points.shape[:2], 0.05), rays, scores, view, camera[:, 0])
    return SeenMotion(*(value[None].astype(np.float32) for value in values))


def turned_world(seen: SeenMotion, angle: float, shift: np.ndarray) -> SeenMotion:
    """The same seen in a world whose axes are turned about the vertical and whose origin is moved on the floor."""
    turn = Rotation.from_euler("z", angle).as_matrix()
    values = {"joints": seen.joints @ turn.T, "root": seen.root @ turn.T + shift}
    if seen.has_evidence:
        values["view"] = seen.view @ turn.T
    return SeenMotion(**{name: values.get(name, getattr(seen, name)) for name in (
        "joints", "root", "sigma", "rays", "scores", "view", "root_in_camera")})  # fmt: skip
