"""SMPLify's frames as one body in motion: what ``fit_body(..., mode="smplify")`` returns.

SMPLify gives every frame a shape of its own and fits the picture alone; a `BodyMotion` has one shape. That is the
median of the frames' shapes, coefficient by coefficient, and every frame's distance from the camera is scaled by as
much as its body, so that it looks as large as before. To compare with the papers, take what `lifting.body.smplify`
itself returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np

from lifting.body.evidence import Observations, observe
from lifting.body.max_mixture import MaxMixture
from lifting.body.model import BodyModel
from lifting.body.projection import camera_of_frames
from lifting.body.report import BodyFit, Placement, as_motion, describe_evidence, evidence_warnings
from lifting.body.smplify import SmplifyResult, smplify
from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import BodyMotion, Motion
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix


def fit_smplify(
    motion: Motion,
    keypoints: Keypoints2D | None,
    camera: Camera | None,
    body: BodyModel,
    prior: MaxMixture | str | PathLike[str] | None = None,
    progress: Callable | None = None,
) -> BodyFit:
    """Fits a body to the keypoints of every frame as SMPLify does, and makes one body in motion of the frames.

    Args:
        motion: the lifted motion; it says which frames count and what the result is compared with, no more. In a world
            frame the result is moved there by the camera's rotation and translation.
        keypoints, camera: the 2D evidence, in the frames of the motion.
        body: a body with SMPL's joints, in their order.
        prior: SMPLify's mixture, or its file (``gmm_08.pkl`` or npz); by default the mixture of this library.
        progress: ``progress(iterable, total, title)`` wraps the loop over groups of frames.

    Frames that could not be fitted are bridged between their neighbours, and NaN before the first and after the last
    that could. There is no uncertainty and no floor: SMPLify knows neither.

    Raises ValueError without keypoints or camera, for evidence that does not belong together or shows no torso, and
    for a body or prior that SMPLify cannot use; FileNotFoundError for a prior file that is not there.
    """
    began = time.perf_counter()
    if keypoints is None or camera is None:
        raise ValueError(f"got no {'keypoints' if keypoints is None else 'camera'}, expected both keypoints and their "
                         "camera: SMPLify fits the picture alone; give both, or use the mode 'whole'.")
    seen = observe(motion, keypoints, camera)
    scores = keypoints.score[seen.first : seen.first + len(seen)]
    found = smplify(body, seen.pixels, scores, camera, seen.keypoint_skeleton, _check_prior(prior), progress=progress)
    if not found.solved.any():
        raise ValueError("no frame shows a shoulder and the hip of its side, expected some that do: SMPLify takes the "
                         "distance from them.")
    poses = Poses.of(body, found)
    return _describe(motion, _cut(seen, poses), camera, body, poses, found, began)


def _check_prior(prior: object) -> MaxMixture | str | PathLike[str] | None:
    if prior is None or isinstance(prior, (MaxMixture, str, PathLike)):
        return prior
    raise ValueError(f"got a {type(prior).__name__} as the prior of SMPLify, expected a MaxMixture or the path of its "
                     "file (gmm_08.pkl or npz).")


@dataclass(frozen=True, eq=False)
class Poses:
    """Bodies of one shape in consecutive frames, of which the first is the evidence's frame `first`.

    rotations: (n, K, 3, 3) local, joint 0 in the frame; trajectory: (n, 3) metres; shape: (S,).
    """

    rotations: np.ndarray
    trajectory: np.ndarray
    shape: np.ndarray
    first: int

    def __len__(self) -> int:
        """n."""
        return len(self.trajectory)

    @classmethod
    def of(cls, body: BodyModel, found: SmplifyResult) -> Poses:
        """The frames from the first to the last that was solved, in the camera frame."""
        known = np.flatnonzero(found.solved)
        shape = np.median(found.shape[known], axis=0)
        sizes = np.array([_size(body, each) for each in found.shape[known]])
        trajectory = found.trajectory[known] * (_size(body, shape) / sizes)[:, None]
        rotations, trajectory = _bridge(known, rotvec_to_matrix(found.rotations[known]), trajectory)
        return cls(rotations, trajectory, shape, int(known[0]))

    def in_world(self, camera: Camera) -> Poses:
        """The same in the world frame of a camera; a moving one has these n frames."""
        turn = np.swapaxes(camera.rotation, -1, -2)
        rotations = self.rotations.copy()
        rotations[:, 0] = turn @ rotations[:, 0]
        return replace(self, rotations=rotations, trajectory=camera.to_world(self.trajectory))

    def points(self, body: BodyModel, layout: Any) -> np.ndarray:
        """The points (n, J, 3) of a layout, in metres."""
        return body.points(layout, self.rotations, self.trajectory, self.shape)


def _size(body: BodyModel, shape: np.ndarray) -> float:
    """Length of all bones together, in metres."""
    rest = body.rest_joints(shape)
    return float(np.linalg.norm(rest[1:] - rest[list(body.parents[1:])], axis=-1).sum())


def _bridge(known: np.ndarray, rotations: np.ndarray, trajectory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (n, K, 3, 3) and trajectory (n, 3) in every frame from the first to the last of `known`.

    In between, joints turn about one axis at an even rate from one known frame to the next, and places move evenly.
    """
    frames = np.arange(known[0], known[-1] + 1)
    after = np.searchsorted(known, frames)
    before = np.maximum(after - 1, 0)
    part = ((frames - known[before]) / np.maximum(known[after] - known[before], 1))[:, None]
    turns = matrix_to_rotvec(np.swapaxes(rotations[before], -1, -2) @ rotations[after])
    turned = rotations[before] @ rotvec_to_matrix(part[..., None] * turns)
    exact = part[:, 0] == 1
    turned[exact] = rotations[after[exact]]
    return turned, (1 - part) * trajectory[before] + part * trajectory[after]


# ---- the result


def _cut(seen: Observations, poses: Poses) -> Observations:
    """The evidence of the poses' frames."""
    frames = slice(poses.first, poses.first + len(poses))
    parts = {name: getattr(seen, name)[frames] for name in ("joints", "sigma", "pixels", "sigma_px")}
    return replace(seen, first=seen.first + poses.first, camera=camera_of_frames(seen.camera, frames), **parts)


def _describe(motion, seen, camera, body, poses, found, began) -> BodyFit:
    """The result in the frames of the motion; `seen` is the evidence of the poses' frames."""
    still = replace(camera, rotation=np.eye(3), translation=np.zeros(3))
    pixels = still.project(poses.points(body, seen.keypoint_skeleton))
    if motion.frame == "world":
        poses = poses.in_world(seen.camera)
    joints = poses.points(body, seen.skeleton)
    away = np.linalg.norm(pixels - seen.pixels, axis=-1)
    apart = np.linalg.norm(joints - seen.joints, axis=-1)
    place = Placement(len(motion), seen.first)
    fitted = BodyMotion(place(matrix_to_rotvec(poses.rotations)), place(poses.trajectory), poses.shape, body.name,
                        motion.fps, motion.frame)  # fmt: skip
    report = _report(body, poses.shape, seen, found, apart, away)
    report["seconds"] = round(time.perf_counter() - began, 3)
    return BodyFit(fitted, body, as_motion(motion, place(joints), None), report=report)


def _report(body: BodyModel, shape: np.ndarray, seen: Observations, found: SmplifyResult, apart: np.ndarray,
            away: np.ndarray) -> dict[str, Any]:  # fmt: skip
    """The keys of `BodyFit.report`; None for what SMPLify does not know."""
    losses = found.losses[found.solved].sum(axis=0)
    report = {
        "mode": "smplify",
        **describe_evidence(body, shape, seen, apart, away),
        "energy": {f"stage {number}": round(float(loss), 2) for number, loss in enumerate(losses, 1)},
        "iterations": None,
        "converged": None,
        "focal_factor": 1.0,
        "seconds": None,
        "median_joint_sigma_mm": None,
        "weak_twist": [],
        "contacts": None,
        "ground": None,
    }
    return {**report, "warnings": [*found.notes, *_frame_warnings(body, found), *evidence_warnings(seen, report)]}


def _frame_warnings(body: BodyModel, found: SmplifyResult) -> list[str]:
    """Sentences on what became of frames that were fitted one by one."""
    statures = [body.stature(shape) for shape in found.shape[found.solved]]
    warnings = []
    if len(statures) > 1:
        warnings.append(f"every frame was fitted on its own, with statures of {min(statures):.2f} to "
                        f"{max(statures):.2f} m; the median shape stands for all")  # fmt: skip
    lost = int((~found.solved).sum())
    if lost:
        warnings.append(f"{lost} of {len(found.solved)} frames show no side of the torso: they are bridged, or left "
                        "empty at the ends")  # fmt: skip
    return warnings
