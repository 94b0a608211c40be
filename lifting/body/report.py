"""What a fit found: the body's motion with its uncertainty, and a report of how well it explains the evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lifting.body.energy import State
from lifting.body.evidence import RADIUS_68, Observations
from lifting.body.model import BodyModel
from lifting.body.points import Kinematics
from lifting.body.problem import Problem, Standing
from lifting.body.solver import Solution
from lifting.motion import BodyMotion, Motion
from lifting.rotations import matrix_to_rotvec

if TYPE_CHECKING:
    from lifting.ground import Ground

WEAK_TWIST = 0.35  # rad: a joint whose least certain axis is less certain than this in most frames is warned of
POOR_JOINTS_M = 0.10
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
        report: JSON-able: `stature_m`, `residual_mm` by joint, `reprojection_px` by point, `shape`, `iterations`,
            `converged`, `seconds`, `energy` by term, `contacts` (share of frames by foot point), `ground`, `weak_twist`
            (joints), `warnings` (sentences).
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
    doubt = Uncertainty.of(body, solution, kinematics)
    place = _Placement(frames, problem.seen)
    fitted = BodyMotion(
        place(matrix_to_rotvec(state.rotations)), place(state.trajectory), state.shape, body.name, motion.fps,
        motion.frame, place(doubt.joint_radius(body, kinematics, state)), place(doubt.rotation_sigma()),
    )  # fmt: skip
    report = _report(problem, solution, standing, kinematics, doubt, seconds)
    contacts = None if standing is None else place(standing.probability)
    return BodyFit(
        fitted, body, _joints(motion, problem, state, kinematics, doubt, place), contacts,
        () if standing is None else standing.names, None if standing is None else standing.ground, report,
    )  # fmt: skip


@dataclass(frozen=True)
class _Placement:
    """Puts values of the fitted frames into the frames of the motion, NaN elsewhere."""

    frames: int
    seen: Observations

    def __call__(self, values: np.ndarray) -> np.ndarray:
        whole = np.full((self.frames, *values.shape[1:]), np.nan)
        whole[self.seen.first : self.seen.first + len(values)] = values
        return whole


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Marginal covariances of a solution: (T, D, D) of the rotation updates, in radians, and the path, in metres.

    The inverse of the Gauss-Newton matrix, so as right as the deviations of the evidence are. What the evidence shares
    over time (offsets of joint definitions, errors of the camera) is not in it.
    """

    covariances: np.ndarray

    @classmethod
    def of(cls, body: BodyModel, solution: Solution, kinematics: Kinematics) -> Uncertainty:
        """The uncertainty of a solution."""
        return cls(solution.marginal_covariances())

    def rotation_sigma(self) -> np.ndarray:
        """(T, K) radians, deviation of the least certain axis of each joint's local rotation."""
        frames, size = self.covariances.shape[:2]
        joints = size // 3 - 1
        index = np.arange(3 * joints).reshape(joints, 3)
        blocks = self.covariances[:, index[:, :, None], index[:, None, :]]
        return np.sqrt(np.maximum(np.linalg.eigvalsh(blocks)[..., -1], 0.0)).reshape(frames, joints)

    def joint_radius(self, body: BodyModel, kinematics: Kinematics, state: State) -> np.ndarray:
        """(T, K) metres, radius around each joint of the body that holds 68 % of its errors."""
        return self.radius(body.point_set("joints"), kinematics, state)

    def radius(self, points, kinematics: Kinematics, state: State) -> np.ndarray:
        """(T, J) metres, radius around points of a `PointSet` that holds 68 % of their errors."""
        _, by_rotation, _ = points.jacobian(kinematics, state.shape)
        by_path = points.total_weights[:, None, None] * np.eye(3)
        jacobian = np.concatenate([by_rotation, np.broadcast_to(by_path, (*by_rotation.shape[:3], 3))], axis=-1)
        flat = jacobian.reshape(len(jacobian), -1, jacobian.shape[-1])
        variance = np.einsum("trd,trd->tr", flat @ self.covariances, flat).reshape(*jacobian.shape[:3]).mean(-1)
        return RADIUS_68 * np.sqrt(np.maximum(variance, 0.0))


def _joints(motion, problem, state, kinematics, doubt, place) -> Motion:
    points = problem.body.point_set(problem.seen.skeleton)
    absolute = points.evaluate(kinematics, state.shape)
    root = absolute[:, problem.seen.skeleton.parents.index(-1)]
    return Motion(place(absolute - root[:, None]), place(root), place(doubt.radius(points, kinematics, state)),
                  motion.skeleton, motion.fps, motion.frame)  # fmt: skip


def _report(problem, solution, standing, kinematics, doubt, seconds) -> dict[str, Any]:
    body, state, seen = problem.body, solution.state, problem.seen
    apart = np.linalg.norm(problem.joint_term().residuals(state, kinematics), axis=-1)
    report = {
        "body": body.name,
        "frames": len(seen),
        "stature_m": round(body.stature(state.shape), 3),
        "shape": [round(float(value), 3) for value in state.shape],
        "residual_mm": _means(seen.skeleton.joints, 1000 * apart),
        "mean_residual_mm": round(1000 * float(np.nanmean(apart)), 1),
        "reprojection_px": None,
        "mean_reprojection_px": None,
        "energy": {name: round(cost, 2) for name, cost in solution.costs.items()},
        "iterations": solution.iterations,
        "converged": bool(solution.converged),
        "seconds": round(seconds, 3),
        "median_joint_sigma_mm": round(1000 * float(np.median(doubt.joint_radius(body, kinematics, state))), 1),
    }
    if seen.pixels is not None:
        away = np.linalg.norm(problem.pixel_term().residuals(state, kinematics), axis=-1)
        report["reprojection_px"] = _means(seen.keypoint_skeleton.joints, away)
        report["mean_reprojection_px"] = round(float(np.nanmean(away)), 2) if np.isfinite(away).any() else None
    turn = np.median(doubt.rotation_sigma(), axis=0)
    report["weak_twist"] = [name for name, sigma in zip(body.joints, turn, strict=True) if sigma > WEAK_TWIST]
    report |= _contact_report(standing)
    report["warnings"] = _warnings(problem, solution, report)
    return report


def _means(names: tuple[str, ...], values: np.ndarray) -> dict[str, float | None]:
    """Mean over time by name, None where never seen."""
    known = [column[np.isfinite(column)] for column in values.T]
    return {name: round(float(column.mean()), 1) if len(column) else None
            for name, column in zip(names, known, strict=True)}  # fmt: skip


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
    if report["mean_residual_mm"] > 1000 * POOR_JOINTS_M:
        warnings.append(f"the body lies {report['mean_residual_mm']:.0f} mm from the lifted joints in the mean; one of "
                        "both is wrong")  # fmt: skip
    if problem.seen.pixels is None:
        warnings.append("no 2D points were used: depth and scale rest on the lifted joints alone")
    elif report["mean_reprojection_px"] is not None:
        diagonal = float(np.hypot(*problem.seen.camera.image_size))
        if report["mean_reprojection_px"] > POOR_POINTS_PX * diagonal:
            warnings.append(f"the body lies {report['mean_reprojection_px']:.0f} pixels from the detected points in "
                            "the mean; check the camera")  # fmt: skip
    if not solution.converged:
        warnings.append("the fit stopped before it had settled; its result is usable but not the best")
    return warnings
