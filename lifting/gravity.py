"""Gravity and floor in front of a camera that does not move, from the lifted motion of all its people.

Fitted bodies have feet that tell a floor (`lifting.ground`). Lifted joints err by centimetres, most along the view, and
other statements are the better ones, each with its own uncertainty across the view and along it:

- posture: while somebody stands or walks, the thorax is above the feet, somewhat ahead of them. Across the picture this
  is as good as the habits of people, along the view worse: lifts lean away from the camera, and towards mean poses;
- paths: whoever walks upright keeps the pelvis at one height. What is seen of it errs by the share `depth` of its
  distance, and so does its height under the camera: a path is a line of regression with errors in both variables
  (Fuller, "Measurement Error Models", 1987), and one that stays at a place tells nothing, whatever its depth does;
- the camera: most are held level, which matters only where nobody shows anything.

Each is a likelihood with heavy tails, so that none outvotes the others when its own assumption fails: people lean over
their work, paths climb stairs. Their product over a grid of directions gives the mean and its uncertainty. People share
gravity and camera; every person brings a path and a posture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from lifting.anatomy import stature
from lifting.contacts import CLEARANCES, contact_probabilities
from lifting.ground import CAMERA_UP, Ground, balance_directions
from lifting.motion import Motion
from lifting.rotations import unit_vectors

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
    posture_freedom: float = 4.0  # degrees of freedom of Student's t: fewer are heavier tails
    height: float = 0.05  # metres, of the pelvis over the floor in one step
    depth: float = 0.05  # share of the distance, by which it errs in one step
    step_time: float = 0.5  # seconds: heights so far apart are independent
    path_freedom: float = 4.0  # degrees of freedom of the height in one step
    path_steps: float = 12.0  # how many steps the stated error levels are worth against those that the path shows
    flatness: float = 1.0  # degrees, that common errors tilt a path however long it is
    camera: float = 40.0  # degrees, by which cameras are tilted: the statement of last resort
    farthest: float = 72.0  # degrees from a level camera that are looked at, along each axis of the grid


WINDOW = 0.2  # seconds, over which paths are averaged
COARSE, FINE = 24, 16  # cells of the grids, from their middle to their edge


@dataclass(frozen=True, eq=False)
class _Witness:
    """What one person says: posture about an axis across the view, and a path that stays at one height."""

    feet: np.ndarray  # (T, 2, 3) metres
    standing: np.ndarray  # (T, 2)
    roots: np.ndarray  # (N, 3) metres, means over windows
    upright: np.ndarray  # (N,) seconds that the person was upright
    posture: np.ndarray  # (3,)
    aside: np.ndarray  # (3,) across the view and the posture
    errors: tuple[float, float] | None  # degrees about the view and along it; None where posture tells nothing


@dataclass(frozen=True, eq=False)
class _Grid:
    """Directions (N, N, 3) about a centre, even in their angle to it, with the logarithms of the areas they hold."""

    directions: np.ndarray
    areas: np.ndarray
    spacing: float  # degrees


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
    level = _grid(np.array(CAMERA_UP), config.farthest, COARSE)
    up = None
    for _ in range(2):
        witnesses = [_hear(motion, up, config) for motion in motions]
        statements = _statements(witnesses, level, config)
        up, sigma = _moments(level, sum(statements.values()))
    grid = _grid(up, float(np.clip(3 * sigma, 6.0, config.farthest)), FINE)
    up, sigma = _moments(grid, sum(_statements(witnesses, grid, config).values()))
    source = min(statements, key=lambda name: _moments(level, statements[name])[1])
    return Ground(up, floor_offset(witnesses[0].feet, witnesses[0].standing, up), sigma, source)


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
    facing, view = unit_vectors(np.cross(across, thorax)), unit_vectors(motion.trajectory.astype(np.float64))
    size = stature(joints)
    directions = unit_vectors((THORAX * thorax + FEET * support) / max(size, 1e-6) + FACING * facing + VIEW * view)
    return directions, trust * (directions @ np.array(CAMERA_UP) > np.cos(np.radians(STEEPEST)))


def _hear(motion: Motion, up: np.ndarray | None, config: GravityConfig) -> _Witness:
    """One person's statements; `up` (3,) helps to tell which feet stand."""
    feet = motion.absolute[:, motion.skeleton.indices(ANKLES)].astype(np.float64)
    standing = contact_probabilities(feet, motion.fps, up=up)
    directions, trust = posture_directions(motion, standing)
    roots = motion.trajectory.astype(np.float64)
    starts = np.arange(0, len(roots), max(1, round(WINDOW * motion.fps)))
    lengths = np.diff(np.append(starts, len(roots)))
    seconds = np.add.reduceat(trust, starts) / motion.fps
    posture = unit_vectors(trust @ directions)
    aside = np.cross(unit_vectors(unit_vectors(roots).mean(0)), posture)
    errors = _posture_errors(seconds.sum(), config)
    if errors is None or not np.linalg.norm(posture) > 0.5 or np.linalg.norm(aside) < 1e-6:
        errors = None
    return _Witness(feet, standing, np.add.reduceat(roots, starts) / lengths[:, None], seconds, posture,
                    unit_vectors(aside), errors)


def _posture_errors(seconds: float, config: GravityConfig) -> tuple[float, float] | None:
    """Degrees by which the mean posture of so long errs about the view and along it; None for too short a time."""
    if seconds < 0.5:
        return None
    moment = config.moment / np.sqrt(1 + seconds / config.moment_time)
    return float(np.hypot(config.across, moment)), float(np.hypot(config.along, moment))


def _grid(centre: np.ndarray, radius: float, cells: int) -> _Grid:
    """A square of `cells` cells and `radius` degrees to each side of the direction `centre` (3,)."""
    line = np.radians(np.linspace(-radius, radius, 2 * cells + 1))
    offsets = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1)
    share = np.sinc(np.linalg.norm(offsets, axis=-1, keepdims=True) / np.pi)
    basis = np.linalg.svd(centre[None])[2][1:]
    directions = share * (offsets @ basis) + np.cos(np.linalg.norm(offsets, axis=-1, keepdims=True)) * centre
    return _Grid(directions, np.log(np.maximum(share[..., 0], 1e-3)), radius / cells)


def _statements(witnesses: Sequence[_Witness], grid: _Grid, config: GravityConfig) -> dict[str, np.ndarray]:
    """Log likelihoods (N, N) of each source of knowledge about up; that of the camera holds the areas of the grid."""
    tilt = np.arccos(np.clip(grid.directions @ np.array(CAMERA_UP), -1, 1)) / np.radians(config.camera)
    return {"posture": sum(_posture_likelihood(witness, grid, config) for witness in witnesses),
            "path": sum(_path_likelihood(witness, grid, config) for witness in witnesses),
            "camera": grid.areas - tilt**2 / 2}


def _posture_likelihood(witness: _Witness, grid: _Grid, config: GravityConfig) -> np.ndarray:
    """Log likelihood (N, N): Student's t of two dimensions in the angles about the view and along it."""
    if witness.errors is None:
        return np.zeros(grid.areas.shape)
    away, freedom = np.cross(witness.posture, witness.aside), config.posture_freedom
    cosine = np.clip(grid.directions @ witness.posture, -1, 1)
    angle = np.arccos(cosine) / np.maximum(np.sqrt(1 - cosine**2), 1e-9)
    errors = [angle * (grid.directions @ axis) / np.radians(error)
              for axis, error in zip((witness.aside, away), witness.errors, strict=True)]
    return -(freedom + 2) / 2 * np.log1p((errors[0] ** 2 + errors[1] ** 2) / freedom)


def _path_likelihood(witness: _Witness, grid: _Grid, config: GravityConfig) -> np.ndarray:
    """Log likelihood (N, N) of the statement that a path stays at one height.

    Heights err by ``hypot(height, depth * height under the camera)``. Each step has Student's t, and so has the path
    as a whole: it may climb more than the error levels say, which then says the less.
    """
    weight, freedom = witness.upright / config.step_time, config.path_freedom
    steps, prior = weight.sum(), config.path_steps
    if not steps > 1e-3:
        return np.zeros(grid.areas.shape)
    heights = grid.directions @ witness.roots.T
    middle = heights @ weight / steps
    for _ in range(3):
        variance = freedom * (config.height**2 + (config.depth * middle) ** 2)
        squares = (heights - middle[..., None]) ** 2 / variance[..., None]
        robust = weight / (1 + squares)
        middle = (heights * robust).sum(-1) / robust.sum(-1)
    misfit = (freedom + 1) * np.log1p(squares) @ weight
    logarithm = -(steps + prior) / 2 * np.log1p(misfit / prior)
    likelihood = np.exp(logarithm - logarithm.max())
    blur = np.hypot(config.flatness, grid.spacing / 3) / grid.spacing
    return np.log(gaussian_filter(likelihood, blur, mode="nearest") + 1e-30)


def _moments(grid: _Grid, logarithm: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean direction (3,) of a log density (N, N), and the deviation about its least certain axis in degrees."""
    density = np.exp(logarithm - logarithm.max())
    density /= density.sum()
    mean = unit_vectors(np.einsum("ij,ijc->c", density, grid.directions))
    basis = np.linalg.svd(mean[None])[2][1:]
    across = grid.directions @ basis.T
    covariance = np.einsum("ij,ijk,ijl->kl", density, across, across)
    return mean, float(np.degrees(np.sqrt(np.linalg.eigvalsh(covariance)[-1])))
