"""What a fit found: the body's motion with its uncertainty, and a report of how well it explains the evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lifting.body.evidence import Observations
from lifting.body.model import BodyModel
from lifting.body.point_terms import frame_blocks
from lifting.body.points import Kinematics, PointSet
from lifting.body.problem import Problem, Standing
from lifting.body.solver import Solution
from lifting.motion import RADIUS_68, BodyMotion, Motion
from lifting.rotations import matrix_to_rotvec

if TYPE_CHECKING:
    from lifting.ground import Ground

SETTLED = 0.01
WEAK_TWIST = 0.35  # rad: a joint whose least certain axis is less certain than this in most frames is warned of
POOR_JOINTS_M = 0.10
STATURE_GAP_M = 0.02
POOR_POINTS_PX = 0.05  # share of the image's diagonal


@dataclass(frozen=True, eq=False)
class BodyFit:
    """A fitted body.

    Attributes:
        motion: rotations, path and shape with their uncertainty; NaN where the person is absent.
        body: the model that was fitted.
        joints: the body's points in the layout of the evidence, as a `Motion`; sigma is the fit's own.
        contact_names: F foot points. contacts: (T, F) probability that each stands; None without contacts.
        ground: the floor in the motion's frame; None without contacts.
        report: JSON-able: `body`, `mode`, `frames`, `stature_m`, `shape`, `residual_mm` by joint, `reprojection_px` by
            point, their means `mean_residual_mm` and `mean_reprojection_px`, `energy` by term, `iterations`,
            `converged`, `seconds`, `median_joint_sigma_mm`, `contacts` (share of frames by foot point), `ground`,
            `weak_twist` (joints), `warnings` (sentences). None where a mode does not know.
    """

    motion: BodyMotion
    body: BodyModel
    joints: Motion
    contacts: np.ndarray | None = None
    contact_names: tuple[str, ...] = ()
    ground: Ground | None = None
    report: dict[str, Any] = field(default_factory=dict)


def describe_fit(
    motion: Motion, problem: Problem, solution: Solution, standing: Standing | None, seconds: float
) -> BodyFit:
    """The result of a solution in the frames of the motion, with uncertainty and report."""
    body, state, frames = problem.body, solution.state, len(motion)
    kinematics = body.kinematics(state.rotations, state.trajectory, state.shape)
    points = body.point_set(problem.seen.skeleton)
    doubt = measure_uncertainty(solution, kinematics, points)
    place = Placement(frames, problem.seen.first)
    fitted = BodyMotion(
        place(matrix_to_rotvec(state.rotations)), place(state.trajectory), state.shape, body.name, motion.fps,
        motion.frame, place(doubt.joints), place(doubt.rotations),
    )  # fmt: skip
    absolute = place(points.evaluate(kinematics, state.shape))
    report = _report(problem, solution, standing, kinematics, doubt, seconds)
    contacts = None if standing is None else place(standing.probability)
    return BodyFit(
        fitted, body, as_motion(motion, absolute, place(doubt.points)), contacts,
        () if standing is None else standing.names, None if standing is None else standing.ground, report,
    )  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """Puts values of the fitted frames, of which the motion's frame `first` is the first, into the motion's `frames`.

    NaN elsewhere.
    """

    frames: int
    first: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """(frames, ...) of values (n, ...)."""
        whole = np.full((self.frames, *values.shape[1:]), np.nan)
        whole[self.first : self.first + len(values)] = values
        return whole


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """How sure a solution is of its frames.

    From the inverse of the Gauss-Newton matrix, so as right as the deviations of the evidence are. What the evidence
    shares over time (offsets of joint definitions, errors of the camera) is not in it.

    rotations: (T, K) radians, deviation of the least certain axis of each joint's local rotation. joints: (T, K)
    metres, radius around each joint of the body that holds 68 % of its errors. points: (T, J) the same of other points.
    """

    rotations: np.ndarray
    joints: np.ndarray
    points: np.ndarray


def measure_uncertainty(solution: Solution, kinematics: Kinematics, points: PointSet) -> Uncertainty:
    """The uncertainty of a solution with these bones, and of some points; a few frames at a time.

    Raises numpy.linalg.LinAlgError when something is neither observed nor held by a prior.
    """
    joints = solution.body.point_set("joints")
    found = Uncertainty(*(np.empty((len(kinematics), count)) for count in
                          (solution.body.num_joints, joints.num_points, points.num_points)))  # fmt: skip
    for window, covariances in solution.marginals():
        for frames, part in frame_blocks(kinematics.sliced(window)):
            here = slice(window.start + frames.start, window.start + frames.stop)
            found.rotations[here] = _rotation_sigma(covariances[frames])
            for radii, some in ((found.joints, joints), (found.points, points)):
                radii[here] = _radius(some, part, solution.state.shape, covariances[frames])
    return found


def _rotation_sigma(covariances: np.ndarray) -> np.ndarray:
    """(T, K) radians, deviation of the least certain axis of each joint's rotation; covariances (T, D, D)."""
    joints = covariances.shape[1] // 3 - 1
    index = np.arange(3 * joints).reshape(joints, 3)
    blocks = covariances[:, index[:, :, None], index[:, None, :]]
    return np.sqrt(np.maximum(np.linalg.eigvalsh(blocks)[..., -1], 0.0))


def _radius(points: PointSet, kinematics: Kinematics, shape: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """(T, J) metres, radius around points that holds 68 % of their errors; covariances (T, D, D)."""
    _, rows = points.rows(kinematics, shape, by_shape=False)
    flat = rows.reshape(len(rows), -1, rows.shape[-1])
    variance = np.einsum("trd,trd->tr", flat @ covariances, flat).reshape(rows.shape[:3]).mean(-1)
    return RADIUS_68 * np.sqrt(np.maximum(variance, 0.0))


def as_motion(motion: Motion, points: np.ndarray, sigma: np.ndarray | None) -> Motion:
    """Points (T, J, 3), metres in the frame of a motion, as a motion like it; sigma: (T, J) metres."""
    root = points[:, motion.skeleton.parents.index(-1)]
    return motion.replace(joints=points - root[:, None], trajectory=root, sigma=sigma)


def _report(problem, solution, standing, kinematics, doubt, seconds) -> dict[str, Any]:
    body, state, seen = problem.body, solution.state, problem.seen
    apart = np.linalg.norm(problem.joint_term().residuals(state, kinematics), axis=-1)
    away = None
    if seen.pixels is not None:
        away = np.linalg.norm(problem.pixel_term().residuals(state, kinematics), axis=-1)
    turn = np.median(doubt.rotations, axis=0)
    report = {
        "mode": "whole",
        **describe_evidence(body, state.shape, seen, apart, away),
        "energy": {name: round(cost, 2) for name, cost in solution.costs.items()},
        "iterations": solution.iterations,
        "converged": settled(solution),
        "focal_factor": round(float(np.exp(state.log_focal)), 4),
        "seconds": round(seconds, 3),
        "median_joint_sigma_mm": round(1000 * float(np.median(doubt.joints)), 1),
        "weak_twist": [name for name, sigma in zip(body.joints, turn, strict=True) if sigma > WEAK_TWIST],
        **_contact_report(standing),
    }
    return {**report, "warnings": _warnings(problem, solution, report)}


def settled(solution: Solution) -> bool:
    """Whether the last step of a solution lowered its cost by no more than `SETTLED` of it."""
    costs = solution.history[-1] if solution.history else ()
    return solution.converged or (len(costs) > 1 and costs[-2] - costs[-1] <= SETTLED * costs[-1])


def describe_evidence(
    body: BodyModel, shape: np.ndarray, seen: Observations, apart: np.ndarray, away: np.ndarray | None
) -> dict[str, Any]:
    """What every mode reports: the body, and how far its joints and points lie from the evidence.

    apart: (T, J) metres from the joints; away: (T, P) pixels from the 2D points, None without; NaN where not known.
    """
    return {
        "body": body.name,
        "frames": len(seen),
        "stature_m": round(body.stature(shape), 3),
        "shape": [round(float(value), 3) for value in shape],
        "residual_mm": _means(seen.skeleton.joints, 1000 * apart),
        "mean_residual_mm": _mean(1000 * apart, 1),
        "reprojection_px": None if away is None else _means(seen.keypoint_skeleton.joints, away),
        "mean_reprojection_px": None if away is None else _mean(away, 2),
    }


def evidence_warnings(seen: Observations, report: dict[str, Any]) -> list[str]:
    """Sentences where a body lies far from its evidence; `report` is of `describe_evidence`."""
    warnings = []
    apart, away = report["mean_residual_mm"], report["mean_reprojection_px"]
    if apart is not None and apart > 1000 * POOR_JOINTS_M:
        warnings.append(f"the body lies {apart:.0f} mm from the lifted joints in the mean; one of both is wrong")
    if away is not None and away > POOR_POINTS_PX * float(np.hypot(*seen.camera.image_size)):
        warnings.append(f"the body lies {away:.0f} pixels from the detected points in the mean; check the camera")
    return warnings


def _mean(values: np.ndarray, digits: int) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(known.mean()), digits) if len(known) else None


def _means(names: tuple[str, ...], values: np.ndarray) -> dict[str, float | None]:
    """Mean over time by name, None where never seen."""
    return {name: _mean(column, 1) for name, column in zip(names, values.T, strict=True)}


def _contact_report(standing: Standing | None) -> dict[str, Any]:
    if standing is None:
        return {"contacts": None, "ground": None}
    share = (standing.probability > 0.5).mean(axis=0)
    ground = standing.ground
    return {
        "contacts": {name: round(float(part), 3) for name, part in zip(standing.names, share, strict=True)},
        "ground": {"up": [round(float(value), 4) for value in ground.up], "offset_m": round(ground.offset, 4),
                   "sigma_degrees": round(float(ground.sigma_degrees), 2), "source": ground.source},
    }  # fmt: skip


def _warnings(problem: Problem, solution: Solution, report: dict[str, Any]) -> list[str]:
    warnings = []
    if report["weak_twist"]:
        names = ", ".join(report["weak_twist"])
        warnings.append(f"the turn of {names} about itself is hardly observed; the prior decided it")
    warnings += evidence_warnings(problem.seen, report)
    if report["mean_reprojection_px"] is None:
        warnings.append("no 2D points were used: depth and scale rest on the lifted joints alone")
    if problem.height is not None and abs(report["stature_m"] - problem.height) > STATURE_GAP_M:
        warnings.append(f"the evidence contradicts the height of {problem.height:.2f} m: the body is "
                        f"{report['stature_m']:.2f} m tall")  # fmt: skip
    if problem.camera_moves:
        warnings.append("the camera moves: no floor was sought and no foot held")
    if not settled(solution):
        warnings.append("the fit stopped before it had settled; its result is usable but not the best")
    return warnings
