"""Gravity and floor in front of a camera that does not move, from the lifted motion of all its people.

Fitted bodies have feet that tell a floor (`lifting.ground`). Lifted joints err by centimetres, most along the view, and
other statements are the better ones, each with its own uncertainty across the view and along it:

- posture: while somebody stands or walks, the thorax is above the feet, somewhat ahead of them. Across the picture this
  is as good as the habits of people, along the view worse: lifts lean away from the camera, and towards mean poses;
- paths: whoever walks upright keeps the pelvis at one height, so that its path lies in a plane parallel to the floor.
  It errs less than the feet. The weight of each point falls with the error of its depth, seen from the side;
- the camera: most are held level, which matters only where nobody shows anything.

All are Gaussian statements about a unit vector; Gauss-Newton steps combine them and give the uncertainty. People share
gravity and camera; every person brings a plane and a posture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lifting.anatomy import stature
from lifting.contacts import CLEARANCES, contact_probabilities
from lifting.ground import CAMERA_UP, Ground, balance_directions
from lifting.motion import Motion

ANKLES = ("left_ankle", "right_ankle")
NEEDED = (*ANKLES, "left_hip", "right_hip", "left_shoulder", "right_shoulder", "thorax")
# Up, before it is made a unit vector, from the thorax and the standing feet (both relative to the root, in statures),
# where the trunk faces, and the view. Set by hand from a ridge regression on lifts of training pieces of the motion
# capture, seen by cameras of pitch 0-45 and roll +-15 degrees. Another one on 70 such views gives 1, -1.59, -0.10,
# -0.02, which is no better: posture alone errs by 3.5 degrees instead of 2.9 (median) on 14 held-out views.
THORAX, FEET, FACING, VIEW = 1.0, -1.42, -0.08, -0.06
STEEPEST = 70.0  # degrees from the camera's own up: who is farther from it lies, or does a handstand


@dataclass(frozen=True)
class GravityConfig:
    """Error levels, metres and degrees: what each statement is divided by."""

    across: float = 3.0  # degrees, posture about the line of sight
    along: float = 5.0  # degrees, posture towards the camera and away from it
    moment: float = 8.0  # degrees, what comes on top for the posture of one moment
    moment_time: float = 0.5  # seconds that one such moment lasts
    height: float = 0.06  # metres, of the pelvis over the floor in one step
    depth: float = 0.25  # metres, of a person's distance against the others of the same clip
    step_time: float = 0.5  # seconds: heights so far apart are independent
    outlier: float = 3.0  # Geman-McClure scale of heights, in their deviations
    flatness: float = 1.0  # degrees, that common errors tilt a path however long it is
    camera: float = 40.0  # degrees, by which cameras are tilted: the statement of last resort
    iterations: int = 12


@dataclass(frozen=True, eq=False)
class _Witness:
    """What one person says: posture (3,) with its information (3, 3), and a path that stays at one height."""

    feet: np.ndarray  # (T, 2, 3) metres
    standing: np.ndarray  # (T, 2)
    roots: np.ndarray  # (T, 3) metres
    upright: np.ndarray  # (T,) weights of the heights, in steps
    view: np.ndarray  # (3,) mean direction from the camera
    posture: np.ndarray  # (3,)
    information: np.ndarray  # (3, 3) per square radian


def is_witness(motion: Motion) -> bool:
    """Whether a motion has the joints that gravity is told by."""
    return motion.trajectory is not None and set(NEEDED) <= set(motion.skeleton.joints)


def estimate_gravity(motions: Sequence[Motion], config: GravityConfig | None = None) -> Ground:
    """Gravity and floor from people in front of a static camera.

    motions: in camera axes, finite in every frame, with the joints of `NEEDED`; the main person, whose feet tell the
    height of the floor, comes first. ``source`` says what decided: ``path``, ``posture`` or ``camera``.
    ``sigma_degrees`` is the deviation about the least certain axis. Raises ValueError without a motion.
    """
    if not motions:
        raise ValueError("cannot find gravity without anybody's motion; give at least one person.")
    config = config or GravityConfig()
    up = None
    for _ in range(2):
        witnesses = [_hear(motion, up, config) for motion in motions]
        up, information = _combine(witnesses, config)
    shares = {"posture": sum(_least(w.information, up) for w in witnesses),
              "path": sum(_least(_path(w, up, config)[0], up) for w in witnesses),
              "camera": 1 / np.radians(config.camera) ** 2}
    sigma = float(np.degrees(1 / np.sqrt(_least(information, up))))
    return Ground(up, floor_offset(witnesses[0].feet, witnesses[0].standing, up), sigma, max(shares, key=shares.get))


def floor_offset(feet: np.ndarray, standing: np.ndarray, up: np.ndarray) -> float:
    """Height along `up` of the floor under ankles (T, 2, 3) metres that stand with probability `standing` (T, 2).

    The weighted median of those that are lowest in their frame; where nobody stands, the lower tenth of all.
    """
    heights = feet @ up
    weight = standing * np.exp(-(((heights - heights.min(axis=1, keepdims=True)) / 0.08) ** 2))
    order = np.argsort(heights, axis=None)
    passed = np.cumsum(weight.ravel()[order])
    if passed[-1] < 1.0:
        return float(np.quantile(heights, 0.1)) - CLEARANCES["ankle"]
    return float(heights.ravel()[order[np.searchsorted(passed, passed[-1] / 2)]]) - CLEARANCES["ankle"]


def posture_directions(motion: Motion, standing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Up as each frame's posture tells it, (T, 3) unit vectors in camera axes, and how far to trust it, (T,) in 0..1.

    standing: (T, 2) probabilities of the ankles. See `lifting.ground.balance_directions` for the trust.
    """
    joints, skeleton = motion.joints.astype(np.float64), motion.skeleton
    feet = joints[:, skeleton.indices(ANKLES)]
    _, trust = balance_directions(joints, skeleton, feet, standing, on_ankles=True)
    weight = standing + 1e-6
    support = np.einsum("tf,tfc->tc", weight, feet) / weight.sum(-1, keepdims=True)
    across = sum(joints[:, skeleton.index(f"left_{part}")] - joints[:, skeleton.index(f"right_{part}")]
                 for part in ("hip", "shoulder"))
    thorax = joints[:, skeleton.index("thorax")]
    facing, view = _unit(np.cross(across, thorax)), _unit(motion.trajectory.astype(np.float64))
    size = stature(joints)
    directions = _unit((THORAX * thorax + FEET * support) / max(size, 1e-6) + FACING * facing + VIEW * view)
    return directions, trust * (directions @ np.array(CAMERA_UP) > np.cos(np.radians(STEEPEST)))


def _hear(motion: Motion, up: np.ndarray | None, config: GravityConfig) -> _Witness:
    """One person's statements; `up` (3,) helps to tell which feet stand."""
    feet = motion.absolute[:, motion.skeleton.indices(ANKLES)].astype(np.float64)
    standing = contact_probabilities(feet, motion.fps, up=up)
    directions, trust = posture_directions(motion, standing)
    roots = motion.trajectory.astype(np.float64)
    view = _unit(_unit(roots).mean(0))
    posture, information = _posture(directions, trust, view, motion.fps, config)
    return _Witness(feet, standing, roots, trust / max(1.0, motion.fps * config.step_time), view, posture, information)


def _posture(
    directions: np.ndarray, trust: np.ndarray, view: np.ndarray, fps: float, config: GravityConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Trusted mean (3,) of directions (T, 3), and its information (3, 3) per square radian."""
    mean, seconds = _unit(trust @ directions), trust.sum() / fps
    if trust.sum() < 0.5 or not np.linalg.norm(mean) > 0.5:
        return np.array(CAMERA_UP), np.zeros((3, 3))
    moment = config.moment**2 / (1 + seconds / config.moment_time)
    aside = np.cross(view, mean)
    if np.linalg.norm(aside) < 1e-6:
        aside = np.cross(CAMERA_UP, mean)
    aside = _unit(aside)
    away = np.cross(mean, aside)
    return mean, (np.outer(aside, aside) / np.radians(np.sqrt(config.across**2 + moment)) ** 2
                  + np.outer(away, away) / np.radians(np.sqrt(config.along**2 + moment)) ** 2)


def _combine(witnesses: Sequence[_Witness], config: GravityConfig) -> tuple[np.ndarray, np.ndarray]:
    """Up (3,) and its information (3, 3) per square radian: Gauss-Newton on the unit sphere."""
    camera, level = np.array(CAMERA_UP), np.eye(3) / np.radians(config.camera) ** 2
    stated = level + sum(witness.information for witness in witnesses)
    pull = level @ camera + sum(witness.information @ witness.posture for witness in witnesses)
    up = _unit(pull) if np.linalg.norm(pull) > 0 else camera
    for _ in range(config.iterations):
        paths = [_path(witness, up, config) for witness in witnesses]
        information = stated + sum(path[0] for path in paths)
        gradient = stated @ up - pull + sum(path[1] for path in paths)
        basis = np.linalg.svd(up[None])[2][1:]
        up = _unit(up - basis.T @ np.linalg.solve(basis @ information @ basis.T, basis @ gradient))
    return up, information


def _path(witness: _Witness, up: np.ndarray, config: GravityConfig) -> tuple[np.ndarray, np.ndarray]:
    """Information (3, 3) and gradient (3,) of the statement that a path stays at one height along `up`."""
    weight = witness.upright
    if not weight.sum() > 1e-6:
        return np.zeros((3, 3)), np.zeros(3)
    deviation = np.hypot(config.height, config.depth * (witness.view @ up))
    heights = witness.roots @ up
    middle = np.average(heights, weights=weight)
    for _ in range(5):
        robust = weight / (1 + ((heights - middle) / (config.outlier * deviation)) ** 2) ** 2
        middle = np.average(heights, weights=robust)
    places = witness.roots - np.average(witness.roots, axis=0, weights=robust)
    scatter = places.T * robust / deviation**2
    information = scatter @ places
    limit = np.linalg.inv(np.eye(3) + np.radians(config.flatness) ** 2 * information)
    return limit @ information, limit @ (scatter @ (heights - middle))


def _least(information: np.ndarray, up: np.ndarray) -> float:
    """The smallest information (per square radian) about a turn of `up`."""
    basis = np.linalg.svd(up[None])[2][1:]
    return float(max(np.linalg.eigvalsh(basis @ information @ basis.T)[0], 0.0))


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 1e-12, length, 1.0)
