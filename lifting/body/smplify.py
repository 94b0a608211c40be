"""SMPLify mode: every frame on its own, with the published terms, stages and weights, to compare with the papers.

The camera is known here, so that "camera translation" is where the body stands. Per frame: the torso's size gives the
distance, four torso joints the root's place and orientation; then four stages loosen the priors step by step, with the
place held as published. Where the shoulders nearly coincide in the picture, the body turned by 180 degrees is tried as
well and the better fit kept. Frames are solved side by side but share nothing. For fits to use, prefer
`lifting.body.fit`: it sees the whole clip, keeps one shape and is faster.

Sources: Bogo et al., "Keep it SMPL", ECCV 2016; Pavlakos et al., "Expressive body capture", CVPR 2019 (SMPLify-X, whose
data weight 1000 / image height, joints left out and optimiser are used). All weights enter squared but that of the
spheres, whose scale is ours: the published ones belong to spheres that come with SMPL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from os import PathLike
from typing import Protocol

import numpy as np

from lifting.body.lbfgs import minimise
from lifting.body.max_mixture import FittedPrior, MaxMixture, PoseCost, read_mixture
from lifting.body.model import BodyModel
from lifting.body.priors import load_priors
from lifting.body.smplify_objective import TORSO, Problem, Setup, Stage
from lifting.body.smplify_terms import Frames, PosedPoints, fit_spheres
from lifting.cameras import Camera
from lifting.keypoints import as_float_array
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix
from lifting.skeletons import Skeleton, get_skeleton

__all__ = ["STAGES", "SmplifyResult", "Stage", "smplify"]

STAGES = (Stage(404.0, 100.0), Stage(404.0, 50.0), Stage(57.4, 10.0, 0.01), Stage(4.78, 5.0, 1.0))
SIDE_VIEW_PX = 25.0  # shoulders nearer than this may be seen from either side
MAX_ITERATIONS, TOLERANCE = 30 * 30, 1e-9  # the published 30 rounds of 30

_BODY_JOINTS = get_skeleton("smpl24").joints
_FRAMES_AT_ONCE = 64
Progress = Callable[[Iterable, int, str], Iterable]


class BodyPose(Protocol):
    """A pose to start from: a BodyMotion, a SmplifyResult or the like."""

    rotations: np.ndarray
    trajectory: np.ndarray
    shape: np.ndarray


@dataclass(frozen=True, eq=False)
class SmplifyResult:
    """Bodies of T frames, each fitted on its own; in the camera frame.

    Attributes:
        rotations: (T, K, 3) float64 rotation vectors; NaN in frames without a torso.
        trajectory: (T, 3) metres, position of joint 0; NaN alike.
        shape: (T, S), one per frame as published; NaN alike.
        losses: (T, number of stages) the objective at the end of each stage, with that stage's weights.
        solved: (T,) False for the frames that could not be fitted.
        notes: sentences about what was assumed.
    """

    rotations: np.ndarray
    trajectory: np.ndarray
    shape: np.ndarray
    losses: np.ndarray
    solved: np.ndarray
    notes: tuple[str, ...] = ()


def smplify(
    body: BodyModel,
    keypoints: np.ndarray,
    scores: np.ndarray,
    camera: Camera,
    layout: str | Skeleton,
    prior: MaxMixture | str | PathLike[str] | None = None,
    init: BodyPose | None = None,
    progress: Progress | None = None,
    *,
    stages: tuple[Stage, ...] = STAGES,
    collisions: bool = True,
    free_translation: bool = False,
) -> SmplifyResult:
    """Fit a body to the keypoints of every frame as SMPLify does.

    Args:
        body: a body with SMPL's joints, in their order.
        keypoints: (T, J, 2) pixels; NaN = not seen.
        scores: (T, J) confidences in 0..1; 0 = not seen.
        camera: the camera; its pose is not used, results are in its frame.
        layout: what the J keypoints are; the body must have a regressor for it.
        prior: SMPLify's mixture, or its file (``gmm_08.pkl`` or npz); by default the mixture of this library.
        init: where to start (T frames); by default the prior's mean pose, upright, placed by the camera stage.
        progress: ``progress(iterable, total, title)`` wraps the loop over groups of frames.
        stages: the weights, one after the other.
        collisions: whether limbs are kept from passing through each other.
        free_translation: let the place move in the stages too, which the published fit does not.

    Frames in which neither side of the torso (shoulder and hip) is seen are not solved, unless `init` is given. Raises
    ValueError for arrays of wrong shapes and for a body, layout or prior that cannot be used; FileNotFoundError for a
    prior file that is not there.
    """
    keypoints, weights = _check_keypoints(keypoints, scores, camera, layout, body)
    cost, notes = _pose_cost(body, prior)
    setup = Setup(body, get_skeleton(layout), replace(camera, rotation=np.eye(3), translation=np.zeros(3)), cost,
                   fit_spheres(body) if collisions else None, free_translation)
    start = None if init is None else _given_start(body, init, len(keypoints))
    solved = weights.any(axis=1) if init is not None else _torso_sides(setup, weights).any(axis=1)
    rows = np.flatnonzero(solved)
    groups = [rows[i : i + _FRAMES_AT_ONCE] for i in range(0, len(rows), _FRAMES_AT_ONCE)]
    values = np.full((len(keypoints), 3 * body.num_joints + 3 + body.num_shape), np.nan)
    losses = np.full((len(keypoints), len(stages)), np.nan)
    for group in progress(groups, len(groups), "fitting") if progress else groups:
        problem = Problem(setup, keypoints[group], weights[group])
        first = None if start is None else start[group]
        values[group], losses[group] = _fit_frames(problem, first, stages)
    return _result(body, values, losses, solved, notes)


def _result(body: BodyModel, values: np.ndarray, losses: np.ndarray, solved: np.ndarray, notes) -> SmplifyResult:
    frames = Frames.unpack(values, body.num_joints)
    rotations = np.full_like(frames.rotations, np.nan)
    rotations[solved] = matrix_to_rotvec(rotvec_to_matrix(frames.rotations[solved]))
    trajectory = frames.translation + body.joint_template[0] + frames.shape @ body.joint_directions[0].T
    return SmplifyResult(rotations, trajectory, frames.shape, losses, solved, notes)


# ---- what was given


def _check_keypoints(keypoints, scores, camera: Camera, layout, body: BodyModel) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (T, J, 2) and confidences (T, J) in float64, zero where not seen."""
    skeleton = get_skeleton(layout)
    missing = [joint for joint in TORSO if joint not in skeleton.joints]
    if missing:
        raise ValueError(f"the layout {skeleton.name!r} lacks {', '.join(missing)}; SMPLify needs shoulders and hips.")
    shared = min(body.num_joints, 22)
    if shared < 20 or body.joints[:shared] != _BODY_JOINTS[:shared]:
        raise ValueError(f"the body {body.name!r} has joints {', '.join(body.joints[:4])}, ...; SMPLify needs SMPL's "
                         "joints in SMPL's order.")
    keypoints = as_float_array(keypoints, "keypoints", (None, skeleton.num_joints, 2), np.float64)
    scores = as_float_array(scores, "scores", keypoints.shape[:2], np.float64)
    seen = np.isfinite(keypoints).all(axis=-1) & (scores > 0)
    if not len(keypoints) or not seen.any():
        raise ValueError("no keypoint is seen in any frame; SMPLify needs shoulders and hips at least.")
    return np.where(seen[..., None], keypoints, camera.center), np.where(seen, scores, 0.0)


def _pose_cost(body: BodyModel, prior: MaxMixture | str | PathLike[str] | None) -> tuple[PoseCost, tuple[str, ...]]:
    """The pose prior, and a sentence when it is not the published one."""
    if prior is None:
        fitted = FittedPrior(load_priors().pose_prior(body, kind="mixture"))
        return fitted, ("pose prior: this library's mixture, fitted on free motion capture, not SMPLify's gmm_08.pkl; "
                        "results are not those of the paper.",)
    mixture = prior if isinstance(prior, MaxMixture) else read_mixture(prior)
    available = (body.num_joints if body.num_joints == 24 else 22) - 1
    needed = mixture.means.shape[1] // 3
    if needed < min(available, 21):
        raise ValueError(f"the prior speaks about {needed} joints, expected {available} or more for {body.name!r}.")
    notes = ()
    if body.name not in ("smpl", "smplh", "smplx"):
        notes = (f"the prior was made for SMPL's rest pose; that of the body {body.name!r} may differ.",)
    return mixture.first_joints(available), notes


def _given_start(body: BodyModel, init: BodyPose, num_frames: int) -> np.ndarray:
    """Packed frames (T, D) of the pose to start from; ValueError where it is NaN or of another size."""
    rotations = as_float_array(init.rotations, "rotations of init", (num_frames, body.num_joints, 3), np.float64)
    trajectory = as_float_array(init.trajectory, "trajectory of init", (num_frames, 3), np.float64)
    shape = np.asarray(init.shape, np.float64)
    if shape.shape not in ((body.num_shape,), (num_frames, body.num_shape)):
        raise ValueError(f"the shape of init is {shape.shape}, expected ({body.num_shape},) or one row per frame.")
    shape = np.broadcast_to(shape, (num_frames, body.num_shape))
    translation = trajectory - body.joint_template[0] - shape @ body.joint_directions[0].T
    values = Frames(rotations, translation, shape).pack()
    if not np.isfinite(values).all():
        raise ValueError("the pose to start from holds NaN, expected every frame; fill its gaps, or leave init out.")
    return values


# ---- the fit


def _fit_frames(problem: Problem, start: np.ndarray | None, stages: tuple[Stage, ...]):
    """Packed frames (n, D) and losses (n, stages) of a group of frames."""
    if start is not None:
        return _run_stages(problem, start, stages)
    start = _place(problem)
    values, losses = _run_stages(problem, start, stages)
    doubtful = np.flatnonzero(_seen_from_the_side(problem))
    if len(doubtful):
        turned, turned_losses = _run_stages(problem.take(doubtful), _turned_round(problem, start[doubtful]), stages)
        better = turned_losses[:, -1] < losses[doubtful, -1]
        values[doubtful[better]], losses[doubtful[better]] = turned[better], turned_losses[better]
    return values, losses


def _run_stages(problem: Problem, values: np.ndarray, stages: tuple[Stage, ...]) -> tuple[np.ndarray, np.ndarray]:
    losses = []
    for stage in stages:
        minimum = minimise(problem.stage(stage), values, max_iterations=MAX_ITERATIONS, tolerance=TOLERANCE)
        values = minimum.x
        losses.append(minimum.value)
    return values, np.stack(losses, axis=1)


def _place(problem: Problem) -> np.ndarray:
    """The camera stage: the mean pose, upright and facing the camera, where the torso is seen."""
    body, count = problem.setup.body, len(problem.keypoints)
    rotations = np.zeros((count, body.num_joints, 3))
    rotations[:] = _mean_pose(problem.setup)
    facing = np.stack([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]], axis=1) @ body.axes().T
    rotations[:, 0] = matrix_to_rotvec(facing)
    frames = Frames(rotations, np.zeros((count, 3)), np.zeros((count, body.num_shape)))
    torso = PosedPoints(body, problem.points, frames).positions[:, list(problem.setup.skeleton.indices(TORSO))]
    depth, ray = _torso_distance(problem, torso)
    translation = np.concatenate([ray * depth[:, None], depth[:, None]], axis=1) - torso.mean(axis=1)
    start = replace(frames, translation=translation).pack()
    return minimise(problem.camera_stage(translation[:, 2].copy()), start, max_iterations=MAX_ITERATIONS,
                    tolerance=TOLERANCE).x


def _mean_pose(setup: Setup) -> np.ndarray:
    """(K, 3) where the prior is centred; the root is left out."""
    pose = np.zeros((setup.body.num_joints, 3))
    if isinstance(setup.prior, MaxMixture):
        mean = setup.prior.mean_pose.reshape(-1, 3)
        pose[1 : 1 + len(mean)] = mean
    elif isinstance(setup.prior, FittedPrior):
        pose[:] = matrix_to_rotvec(setup.prior.prior.mean_rotations(setup.body.num_joints))
    return pose


def _torso_distance(problem: Problem, torso: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (n,) by similar triangles over the seen sides of the torso (n, 4, 3), and the ray (n, 2) there."""
    columns = list(problem.setup.skeleton.indices(TORSO))
    rays = problem.setup.camera.rays(problem.keypoints[:, columns])
    seen = problem.weights[:, columns] > 0
    sides = _torso_sides(problem.setup, problem.weights)
    in_picture = np.linalg.norm(rays[:, :2] - rays[:, 2:], axis=-1)
    in_space = np.linalg.norm(torso[:, :2] - torso[:, 2:], axis=-1)
    usable = sides & np.isfinite(in_picture)
    distance = np.where(usable, in_space, 0).sum(axis=1) / np.maximum(np.where(usable, in_picture, 0).sum(axis=1), 1e-3)
    seen = seen & np.isfinite(rays).all(axis=-1)
    middle = np.where(seen[..., None], rays, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)[:, None]
    return np.maximum(distance, 0.1), middle


def _torso_sides(setup: Setup, weights: np.ndarray) -> np.ndarray:
    """(n, 2) whether shoulder and hip of the left and the right side are seen."""
    seen = weights[:, list(setup.skeleton.indices(TORSO))] > 0
    return seen[:, :2] & seen[:, 2:]


def _seen_from_the_side(problem: Problem) -> np.ndarray:
    """(n,) whether both shoulders are seen, nearly at the same place."""
    left, right = problem.setup.skeleton.indices(TORSO[:2])
    apart = np.linalg.norm(problem.keypoints[:, left] - problem.keypoints[:, right], axis=-1)
    return (problem.weights[:, [left, right]] > 0).all(axis=1) & (apart < SIDE_VIEW_PX)


def _turned_round(problem: Problem, values: np.ndarray) -> np.ndarray:
    """The same frames with the body turned by 180 degrees about its up axis."""
    up = problem.setup.body.axes()[:, 1]
    turned = values.copy()
    turned[:, :3] = matrix_to_rotvec(rotvec_to_matrix(values[:, :3]) @ rotvec_to_matrix(np.pi * up))
    return turned
