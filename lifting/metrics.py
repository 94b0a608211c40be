"""Errors of 3D motion: metres in, metres out (shares in [0, 1]); millimetres are for printing.

Poses are arrays (..., T, J, 3) in metres, usually (T, J, 3), prediction and truth in the same frame and joint order.
Whether they are relative to the root is the caller's choice: the papers' numbers are root-relative.

Missing values. A joint whose *truth* has a NaN is left out. A NaN in the *prediction* where the truth is known raises
ValueError, since leaving it out would reward a model that gives up on hard frames; ``missing="skip"`` leaves it out
all the same. PCK and AUC need no such rule: there a missing prediction is a wrong one. Means run over joints, not
over frames.
"""

from __future__ import annotations

import numpy as np

MIN_ALIGN_JOINTS = 3


def _check(prediction, truth, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 after checking that they are equally shaped 3D points with at least `axes` axes."""
    prediction, truth = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if prediction.shape != truth.shape:
        raise ValueError(f"The prediction has shape {prediction.shape} and the truth {truth.shape}, expected the same; "
                         "bring both to the same frames and joints.")
    if prediction.ndim < axes or prediction.shape[-1] != 3:
        layout = "(..., T, 3)" if axes == 2 else "(..., T, J, 3)"
        raise ValueError(f"The poses have shape {prediction.shape}, expected {layout} in metres; check the axes.")
    return prediction, truth


def _scored(prediction: np.ndarray, truth: np.ndarray, missing: str) -> np.ndarray:
    """Return which points (...) count, by the module's rule for missing values."""
    if missing not in ("error", "skip"):
        raise ValueError(f"missing is {missing!r}, expected 'error' or 'skip'; pass one of these.")
    known, given = np.isfinite(truth).all(-1), np.isfinite(prediction).all(-1)
    if missing == "error" and np.any(known & ~given):
        count = int(np.sum(known & ~given))
        raise ValueError(f"The prediction is NaN at {count} of {int(known.sum())} known points, expected finite "
                         'values; fill them, or pass missing="skip" to leave them out.')
    return known & given


def _mean(errors: np.ndarray, scored: np.ndarray) -> float:
    """Average `errors` where `scored`."""
    if not np.any(scored):
        raise ValueError("No point is known in both prediction and truth, expected at least one; check both.")
    return float(np.mean(errors[scored]))


def joint_errors(prediction, truth) -> np.ndarray:
    """Return the distance of every point, (..., J) metres for poses (..., J, 3); NaN where either is missing.

    Raises ValueError when the shapes differ or the last axis is not 3.
    """
    prediction, truth = _check(prediction, truth, 1)
    return np.linalg.norm(prediction - truth, axis=-1)


def mpjpe(prediction, truth, missing: str = "error") -> float:
    """Mean per-joint position error in metres of poses (..., T, J, 3) metres ("protocol 1").

    Raises ValueError for unequal shapes, a missing prediction (see the module) or when nothing can be scored.
    """
    prediction, truth = _check(prediction, truth, 3)
    scored = _scored(prediction, truth, missing)
    return _mean(joint_errors(prediction, truth), scored)


def p_mpjpe(prediction, truth, missing: str = "error") -> float:
    """MPJPE in metres after the best similarity (rotation, translation, scale) of every frame ("protocol 2").

    Poses (..., T, J, 3) metres. Frames with fewer than three scored joints are left out: an alignment explains them
    whole. Raises ValueError for unequal shapes, a missing prediction (see the module) or when nothing can be scored.
    """
    prediction, truth = _check(prediction, truth, 3)
    scored = _scored(prediction, truth, missing)
    scored &= scored.sum(-1, keepdims=True) >= MIN_ALIGN_JOINTS
    aligned = _align(prediction, truth, scored)
    return _mean(joint_errors(aligned, truth), scored)


def procrustes_align(prediction, truth) -> np.ndarray:
    """Move every predicted pose onto the truth by the least-squares similarity; returns (..., J, 3) metres.

    Poses (..., J, 3) metres, each aligned by itself with the joints finite in both; reflections are excluded (Umeyama
    1991). A prediction with all joints in one point has no orientation: scale 0 puts it on the truth's mean. Poses with
    fewer than three common joints come back as NaN, missing joints stay NaN. Raises ValueError for unequal shapes.
    """
    prediction, truth = _check(prediction, truth, 2)
    scored = np.isfinite(prediction).all(-1) & np.isfinite(truth).all(-1)
    scored &= scored.sum(-1, keepdims=True) >= MIN_ALIGN_JOINTS
    return np.where(scored[..., None], _align(prediction, truth, scored), np.nan)


def _align(prediction: np.ndarray, truth: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Least-squares similarity of every pose (..., J, 3) over its `scored` joints (..., J)."""
    weight = scored[..., None].astype(np.float64)
    source, source_mean = _centred(prediction, weight)
    goal, goal_mean = _centred(truth, weight)
    left, singular, right = np.linalg.svd(np.swapaxes(source, -1, -2) @ goal)
    sign = np.ones_like(singular)
    sign[..., 2] = np.where(np.linalg.det(left) * np.linalg.det(right) < 0, -1.0, 1.0)  # a rotation, no reflection
    rotation = (left * sign[..., None, :]) @ right  # for row vectors
    spread = np.sum(source**2, axis=(-1, -2))
    # A constant prediction has no spread but rounding; dividing by it is what crashes elsewhere.
    constant = spread <= (1e-12 * (1 + np.linalg.norm(source_mean[..., 0, :], axis=-1))) ** 2
    scale = np.where(constant, 0.0, np.sum(singular * sign, axis=-1) / np.where(constant, 1.0, spread))
    return scale[..., None, None] * (source @ rotation) + goal_mean


def _centred(points: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points (..., J, 3) about their weighted mean, zero where the weight is, and that mean (..., 1, 3)."""
    points = np.where(weight > 0, points, 0.0)
    mean = points.sum(-2, keepdims=True) / np.maximum(weight.sum(-2, keepdims=True), 1.0)
    return (points - mean) * weight, mean


def n_mpjpe(prediction, truth, missing: str = "error") -> float:
    """MPJPE in metres after the best scale of every frame about the origin (Rhodin et al., CVPR 2018).

    Poses (..., T, J, 3) metres, relative to the root as the origin is the fixed point. An all-zero prediction is kept.
    Raises ValueError for unequal shapes, a missing prediction (see the module) or when nothing can be scored.
    """
    prediction, truth = _check(prediction, truth, 3)
    scored = _scored(prediction, truth, missing)
    source, goal = (np.where(scored[..., None], points, 0.0) for points in (prediction, truth))
    energy = np.sum(source**2, axis=(-1, -2), keepdims=True)
    overlap = np.sum(source * goal, axis=(-1, -2), keepdims=True)
    scale = np.where(energy > 0, overlap / np.where(energy > 0, energy, 1.0), 0.0)
    return _mean(joint_errors(scale * source, goal), scored)


def _difference_error(prediction, truth, order: int, missing: str) -> float:
    """Mean distance of the `order`-th differences over time, in metres per frame to the power of `order`."""
    prediction, truth = _check(prediction, truth, 3)
    if prediction.shape[-3] <= order:
        raise ValueError(f"The poses have {prediction.shape[-3]} frames, expected at least {order + 1} to take "
                         "differences over time; pass a longer sequence.")
    _scored(prediction, truth, missing)
    prediction, truth = np.diff(prediction, order, axis=-3), np.diff(truth, order, axis=-3)
    return _mean(joint_errors(prediction, truth), _scored(prediction, truth, "skip"))


def mpjve(prediction, truth, missing: str = "error") -> float:
    """Mean per-joint velocity error in metres per FRAME, as Pavllo et al. (CVPR 2019) define it, at any frame rate.

    Poses (..., T, J, 3) metres, T >= 2. A difference counts where both of its frames do.
    Raises ValueError as `mpjpe` and for fewer than two frames.
    """
    return _difference_error(prediction, truth, 1, missing)


def acceleration_error_mm_frame2(prediction, truth, missing: str = "error") -> float:
    """Mean per-joint acceleration error in MILLIMETRES per frame squared, the unit of the video-mesh papers.

    Poses (..., T, J, 3) metres, T >= 3. Raises ValueError as `mpjpe` and for fewer than three frames.
    """
    return 1000.0 * _difference_error(prediction, truth, 2, missing)


def acceleration_error_m_s2(prediction, truth, fps: float, missing: str = "error") -> float:
    """Mean per-joint acceleration error in metres per second squared at `fps` frames per second.

    Poses (..., T, J, 3) metres, T >= 3. Raises ValueError as `mpjpe`, for fewer than three frames and fps <= 0.
    """
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}, expected a positive number of frames per second; pass the sequence's rate.")
    return _difference_error(prediction, truth, 2, missing) * float(fps) ** 2


def pck(prediction, truth, threshold: float = 0.150) -> float:
    """Share of joints in [0, 1] that lie within `threshold` metres of the truth (3D PCK; Mehta et al., 3DV 2017).

    Poses (..., T, J, 3) metres, relative to the root. Joints without truth are left out, missing predictions are wrong.
    Raises ValueError for unequal shapes, a negative threshold or when no truth is known.
    """
    if not threshold >= 0:
        raise ValueError(f"threshold is {threshold}, expected metres >= 0; 0.150 is the usual one.")
    prediction, truth = _check(prediction, truth, 3)
    return _mean(joint_errors(prediction, truth) <= threshold, np.isfinite(truth).all(-1))


def auc(prediction, truth) -> float:
    """Mean of the 3D PCK in [0, 1] over the 31 thresholds 0, 5, ..., 150 mm.

    A joint counts at a threshold when its error is at most that, so a perfect prediction scores 1. Arguments and errors
    as `pck`.
    """
    prediction, truth = _check(prediction, truth, 3)
    errors = joint_errors(prediction, truth)[..., None]
    shares = np.mean(errors <= np.arange(31) * 0.005, axis=-1)
    return _mean(shares, np.isfinite(truth).all(-1))


def root_error(prediction, truth, missing: str = "error") -> float:
    """Mean distance in metres of the root, for trajectories (..., T, 3) metres.

    Raises ValueError for unequal shapes, a missing prediction (see the module) or when nothing can be scored.
    """
    prediction, truth = _check(prediction, truth, 2)
    return _mean(joint_errors(prediction, truth), _scored(prediction, truth, missing))


def root_error_share_of_depth(prediction, truth, missing: str = "error") -> float:
    """Mean over frames of the root's distance divided by its true depth z: 0.05 is 5 %.

    Trajectories (..., T, 3) metres, camera frame.
    Raises ValueError as `root_error`, and when a true depth is not positive.
    """
    prediction, truth = _check(prediction, truth, 2)
    scored = _scored(prediction, truth, missing)
    depth = truth[..., 2]
    if np.any(depth[scored] <= 0):
        raise ValueError(f"A true root depth is {depth[scored].min():.3g} m, expected more than 0; pass trajectories "
                         "in the camera frame.")
    return _mean(joint_errors(prediction, truth) / np.where(scored, depth, 1.0), scored)


def mpvpe(prediction, truth, missing: str = "error") -> float:
    """Mean per-vertex position error in metres of meshes (..., T, V, 3) metres ("PVE", "MPVPE").

    Whether the meshes are relative to a root is the caller's choice. Raises ValueError as `mpjpe`.
    """
    return mpjpe(prediction, truth, missing)


def unposed_mesh_error(prediction, truth) -> float:
    """Mean distance in metres of the vertices (V, 3) of two rest meshes, each about its own mean: shape alone.

    HMMR's "Mesh Unp." (Kanazawa et al., CVPR 2019). Raises ValueError for unequal shapes.
    """
    prediction, truth = _check(prediction, truth, 2)
    scored = _scored(prediction, truth, "error")
    shift = (truth - prediction).mean(-2, keepdims=True)
    return _mean(joint_errors(prediction + shift, truth), scored)


def foot_slip(points, contact, up=None) -> np.ndarray:
    """How far points in contact move from one frame to the next, (N,) metres per frame, one entry per such step.

    points: (T, F, 3) metres of foot points; contact: (T, F) booleans. A step counts where a point is in contact in both
    of its frames and known; with `up` (3,), a direction, only its part along the floor. Raises ValueError for unequal
    shapes.
    """
    points, contact = np.asarray(points, dtype=np.float64), np.asarray(contact, dtype=bool)
    if points.ndim != 3 or points.shape[-1] != 3 or contact.shape != points.shape[:2]:
        raise ValueError(f"The points have shape {points.shape} and the contacts {contact.shape}, expected (T, F, 3) "
                         "and (T, F); pass one contact for each point and frame.")
    steps = np.diff(points, axis=0)[contact[1:] & contact[:-1]]
    if up is not None:
        up = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
        steps = steps - (steps @ up)[:, None] * up
    length = np.linalg.norm(steps, axis=-1)
    return length[np.isfinite(length)]


def penetration(points, up, offset: float) -> np.ndarray:
    """How deep the lowest point of every frame lies below the floor, (T,) metres, zero above it.

    points: (T, V, 3) metres; up: (3,) the floor's unit normal; offset: metres, with up . x = offset on the floor.
    Raises ValueError for other shapes.
    """
    points, up = np.asarray(points, dtype=np.float64), np.asarray(up, dtype=np.float64)
    if points.ndim != 3 or points.shape[-1] != 3 or up.shape != (3,):
        raise ValueError(f"The points have shape {points.shape} and the normal {up.shape}, expected (T, V, 3) and "
                         "(3,); check the axes.")
    return np.maximum(offset - (points @ up).min(axis=1), 0.0)


def jitter(points, fps: float) -> float:
    """Mean length of the third time derivative in 10 m/s^3, the unit of the world-space mesh papers (WHAM, GVHMR).

    points: (..., T, J, 3) metres, T >= 4; a difference counts where all of its frames are finite. Raises ValueError for
    fewer than four frames and fps <= 0.
    """
    points, _ = _check(points, points, 3)
    if points.shape[-3] < 4 or not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"got {points.shape[-3]} frames at {fps} frames/s, expected at least 4 and a positive rate.")
    jerk = np.linalg.norm(np.diff(points, 3, axis=-3), axis=-1) * float(fps) ** 3
    return _mean(jerk / 10.0, np.isfinite(jerk))
