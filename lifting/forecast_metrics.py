"""Errors of predicted motion: at single horizons, after time warping, in the image, and in the spectrum.

Poses are arrays (..., T, J, 3) in metres, prediction and truth in the same frame and joint order, finite everywhere: a
predictor has no gaps. Frame k of a future is the (k + 1)-th after the last that was seen. Acceleration error and jitter
of a future are those of any motion: `lifting.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lifting.metrics import joint_errors, procrustes_align, unposed_mesh_error
from lifting.motion import BodyMotion

if TYPE_CHECKING:
    from lifting.body.model import BodyModel

HORIZONS_MS = (80, 160, 320, 400, 560, 720, 880, 1000)
"""Of the Human3.6M forecasting protocol: short term up to 400 ms, long term beyond."""
FRAMES = (1, 5, 10, 20, 30)
"""Of the tables of PHD, counted from 1: the first predicted frame is frame 1."""
BOX_SHARE = 0.05  # of the larger side of the box around a person: PCK's usual threshold


def frame_of(horizon_ms: float, fps: float) -> int:
    """Index of the future's frame that lies `horizon_ms` after the last seen one, at `fps` frames per second.

    Raises ValueError for a horizon before the first frame.
    """
    frame = round(horizon_ms / 1000.0 * fps) - 1
    if frame < 0:
        raise ValueError(f"got a horizon of {horizon_ms:g} ms at {fps:g} frames/s, expected at least one frame: "
                         f"{1000 / fps:.0f} ms or more.")
    return frame


def future_errors(prediction, truth, *, aligned: bool = False, warped: bool = False) -> np.ndarray:
    """Mean joint error of every true frame, (..., T) metres, of futures (..., T, J, 3) metres.

    aligned: after the best similarity of every pose (PA-MPJPE, "Reconst."). warped: after dynamic time warping of the
    whole future: one alignment per future, by the distance of the poses as they are, whatever error is then reported;
    PHD does not state its own. Mean `at_horizons` or `at_frames`. Raises ValueError for unequal shapes.
    """
    if not warped:
        return joint_errors(procrustes_align(prediction, truth) if aligned else prediction, truth).mean(-1)
    prediction, truth = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    matches = time_warp(frame_distances(prediction, truth))
    *future, said, true = np.nonzero(matches)
    errors = np.zeros(matches.shape)
    errors[matches] = future_errors(prediction[(*future, said)], truth[(*future, true)], aligned=aligned)
    return mean_of_matches(errors, matches)


def at_horizons(errors, fps: float, horizons_ms: Sequence[float] = HORIZONS_MS) -> np.ndarray:
    """Mean over futures of errors (..., T) AT each horizon, (len(horizons_ms),), not up to it.

    As in the Human3.6M forecasting protocol. Raises ValueError for horizons beyond the future.
    """
    errors = np.asarray(errors)
    frames = [frame_of(horizon, fps) for horizon in horizons_ms]
    if max(frames) >= errors.shape[-1]:
        raise ValueError(f"got a future of {errors.shape[-1]} frames at {fps:g} frames/s, expected {max(frames) + 1} "
                         f"for a horizon of {max(horizons_ms):g} ms; predict further or ask for less.")
    return errors[..., frames].reshape(-1, len(frames)).mean(0)


def at_frames(errors, frames: Sequence[int] = FRAMES) -> np.ndarray:
    """Mean over futures of errors (..., T) at each frame, counted from 1, (len(frames),).

    Raises ValueError for frames outside the future.
    """
    errors = np.asarray(errors)
    if min(frames) < 1 or max(frames) > errors.shape[-1]:
        raise ValueError(f"got a future of {errors.shape[-1]} frames and asked for frames {min(frames)} to "
                         f"{max(frames)}, expected frames from 1 to {errors.shape[-1]}; predict further or ask less.")
    return errors[..., np.array(frames) - 1].reshape(-1, len(frames)).mean(0)


def mpjpe_at(prediction, truth, fps: float, horizons_ms: Sequence[float] = HORIZONS_MS) -> np.ndarray:
    """Mean per-joint error at each horizon, (len(horizons_ms),) metres, of futures (..., T, J, 3) metres.

    Raises ValueError for unequal shapes and horizons beyond the future.
    """
    return at_horizons(future_errors(prediction, truth), fps, horizons_ms)


def frame_distances(prediction, truth) -> np.ndarray:
    """Mean joint distance of every predicted frame to every true one, (..., T predicted, T true) metres.

    prediction: (..., T predicted, J, 3), truth: (..., T true, J, 3) metres. Raises ValueError where more than the
    number of frames differs.
    """
    prediction, truth = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if (min(prediction.ndim, truth.ndim) < 3 or prediction.shape[:-3] != truth.shape[:-3]
            or prediction.shape[-2:] != truth.shape[-2:]):
        raise ValueError(f"got futures of shapes {prediction.shape} and {truth.shape}, expected (..., T, J, 3) that "
                         "differ in the number of frames T at most.")
    frames = range(prediction.shape[-3])  # one at a time: all at once would take a gigabyte for thousands of futures
    return np.stack([joint_errors(*np.broadcast_arrays(prediction[..., i : i + 1, :, :], truth)).mean(-1)
                     for i in frames], axis=-2)


def time_warp(cost) -> np.ndarray:
    """Which predicted frame is matched with which true one, booleans (..., T predicted, T true), from such costs.

    Dynamic time warping: the alignment of least total cost that is monotone and matches every frame of either side at
    least once (PHD, Zhang et al., ICCV 2019, section 5); among equals one that keeps in step. Raises ValueError for
    anything but matrices of finite costs.
    """
    cost = np.asarray(cost, dtype=np.float64)
    if cost.ndim < 2 or not cost.size or not np.isfinite(cost).all():
        raise ValueError(f"got costs of shape {cost.shape}, expected a matrix of finite numbers, predicted times true "
                         "frames, for every future.")
    total = _least_totals(np.moveaxis(cost.reshape(-1, *cost.shape[-2:]), 0, -1))
    matches = np.zeros((total.shape[-1], *cost.shape[-2:]), bool)
    future, row, column = np.arange(len(matches)), cost.shape[-2] - 1, cost.shape[-1] - 1
    for _ in range(row + column + 1):
        matches[future, row, column] = True
        before = np.stack([total[row, column, future], total[row, column + 1, future], total[row + 1, column, future]])
        step = before.argmin(0)  # 0: both frames before, 1: the predicted one, 2: the true one
        row, column = np.maximum(row - (step != 2), 0), np.maximum(column - (step != 1), 0)
    return matches.reshape(cost.shape)


def _least_totals(cost: np.ndarray) -> np.ndarray:
    """Cost of the cheapest path to every cell of (P, T, N), with a border: (P + 1, T + 1, N); by anti-diagonals."""
    rows, columns, futures = cost.shape
    total = np.full((rows + 1, columns + 1, futures), np.inf)
    total[0, 0] = 0.0
    for diagonal in range(rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        before = np.minimum(np.minimum(total[i, j], total[i, j + 1]), total[i + 1, j])
        total[i + 1, j + 1] = cost[i, j] + before
    return total


def mean_of_matches(values, matches) -> np.ndarray:
    """Mean over the matches of every true frame, (..., T true), of values (..., T predicted, T true).

    matches: of the same shape, as `time_warp` gives them.
    """
    return np.where(matches, values, 0.0).sum(-2) / np.asarray(matches).sum(-2)


def time_warped_errors(cost) -> np.ndarray:
    """Error of every true frame, (..., T true), after dynamic time warping by the costs (..., T predicted, T true).

    The mean cost of its matches. For errors that are not themselves what the futures are aligned by, see
    `future_errors`. Raises ValueError as `time_warp`.
    """
    return mean_of_matches(cost, time_warp(cost))


def best_scale_and_shift(points, target, visible) -> tuple[np.ndarray, np.ndarray]:
    """Scale s and shift t that minimise the squared distance of s * points + t to the target over visible points.

    PHD, equation 6, solved exactly: the orthographic camera that suits a predicted pose best. points, target: (..., J,
    2); visible: (..., J) booleans or weights. Returns s (...,) and t (..., 2); with all points in one place s is 0, and
    nothing visible gives s = 0, t = 0.
    """
    points, target = np.asarray(points, dtype=np.float64), np.asarray(target, dtype=np.float64)
    weight = np.asarray(visible, dtype=np.float64)[..., None]
    total = np.maximum(weight.sum(-2, keepdims=True), 1e-12)
    points, target = np.where(weight > 0, points, 0.0), np.where(weight > 0, target, 0.0)
    mean, goal = (weight * points).sum(-2, keepdims=True) / total, (weight * target).sum(-2, keepdims=True) / total
    power = (weight * (points - mean) ** 2).sum((-1, -2))
    overlap = (weight * (points - mean) * (target - goal)).sum((-1, -2))
    scale = np.where(power > 1e-18, overlap / np.maximum(power, 1e-18), 0.0)
    return scale, goal[..., 0, :] - scale[..., None] * mean[..., 0, :]


def pck_2d(points, target, visible, share: float = BOX_SHARE) -> np.ndarray:
    """Share in [0, 1] of visible points of every pose within `share` of the box, after the best scale and shift.

    PCK@0.05 of HMMR and PHD: the threshold is `share` of the larger side of the box around the visible target points.
    points, target: (..., J, 2) in one unit; visible: (..., J) booleans. Returns (...,), NaN where fewer than two points
    are visible.
    """
    near = _mean_of_visible(_box_errors(points, target, visible) <= share, visible)
    return np.where(np.asarray(visible, dtype=bool).sum(-1) >= 2, near, np.nan)


def warped_pck_2d(points, target, visible, share: float = BOX_SHARE) -> np.ndarray:
    """`pck_2d` of every true frame, (..., T), after dynamic time warping of futures (..., T, J, 2).

    The futures are aligned by the distance of visible points in shares of the box, each pair of frames after its best
    scale and shift. visible: (..., T, J) booleans of the true frames; one with fewer than two points matches anything
    and is NaN.
    """
    points, visible = np.asarray(points, dtype=np.float64), np.asarray(visible, dtype=bool)
    cost, near = [], []
    for said in np.moveaxis(points, -3, 0):
        errors = _box_errors(said[..., None, :, :], target, visible)
        cost.append(_mean_of_visible(errors, visible))
        near.append(_mean_of_visible(errors <= share, visible))
    known = visible.sum(-1) >= 2
    matches = time_warp(np.where(known[..., None, :], np.stack(cost, -2), 0.0))
    return np.where(known, mean_of_matches(np.stack(near, -2), matches), np.nan)


def _mean_of_visible(values: np.ndarray, visible) -> np.ndarray:
    visible = np.asarray(visible, dtype=bool)
    return np.where(visible, values, 0.0).sum(-1) / np.maximum(visible.sum(-1), 1)


def _box_errors(points, target, visible) -> np.ndarray:
    """Distances (..., J) after the best scale and shift, over the larger side of the box around visible points."""
    target, visible = np.asarray(target, dtype=np.float64), np.asarray(visible, dtype=bool)
    scale, shift = best_scale_and_shift(points, target, visible)
    fitted = scale[..., None, None] * np.asarray(points, dtype=np.float64) + shift[..., None, :]
    high = np.where(visible[..., None], target, -np.inf).max(-2)
    low = np.where(visible[..., None], target, np.inf).min(-2)
    with np.errstate(invalid="ignore"):
        side = (high - low).max(-1, keepdims=True)
        return np.linalg.norm(fitted - target, axis=-1) / np.maximum(side, 1e-12)


class BodyErrors(NamedTuple):
    """posed: (T,) metres, mean over the vertices of every frame, roots together. unposed: metres, shape alone."""

    posed: np.ndarray
    unposed: float


def body_errors(prediction: BodyMotion, truth: BodyMotion, body: BodyModel) -> BodyErrors:
    """Vertex errors of a predicted body: HMMR's "Mesh Pos." and "Mesh Unp." (Kanazawa et al., CVPR 2019).

    The posed meshes are compared with joint 0 in one place, the rest meshes about their own means. For meshes that are
    at hand see `lifting.metrics.mpvpe` and `unposed_mesh_error`. Raises ValueError for motions of other bodies, lengths
    or frames, and for one without a body in every frame.
    """
    facts = [(motion.body, len(motion), motion.frame) for motion in (prediction, truth)]
    if facts[0] != facts[1] or prediction.body != body.name:
        raise ValueError(f"got {facts[0]} and {facts[1]} (body, frames, axes) and the body {body.name!r}, expected two "
                         "motions of the same length and axes of this body.")
    if not (prediction.present.all() and truth.present.all()):
        raise ValueError("got a motion from which the person is absent at times, expected them in every frame; cut it.")
    meshes = [body.vertices(m.rotations, np.zeros_like(m.trajectory), m.shape) for m in (prediction, truth)]
    rest = [body.rest_vertices(m.shape) for m in (prediction, truth)]
    return BodyErrors(joint_errors(*meshes).mean(-1), unposed_mesh_error(*rest))


def npss(prediction, truth) -> float:
    """Normalised power spectrum similarity of futures (N, T, ...): 0 is best.

    Gopalakrishnan et al., "A neural temporal model for human motion prediction", CVPR 2019, section 4: the distance
    between the cumulated power spectra of every feature over time, weighted by the power of the truth. Unlike distances
    frame by frame it forgives a motion that is out of phase. Raises ValueError for unequal shapes or fewer than two
    frames.
    """
    prediction, truth = (np.asarray(values, dtype=np.float64) for values in (prediction, truth))
    if prediction.shape != truth.shape or prediction.ndim < 2 or prediction.shape[1] < 2:
        raise ValueError(f"got futures of shapes {prediction.shape} and {truth.shape}, expected the same (N, T, ...) "
                         "with at least two frames.")
    powers = [np.abs(np.fft.fft(v.reshape(len(v), v.shape[1], -1), axis=1)) ** 2 for v in (prediction, truth)]
    totals = [power.sum(1) for power in powers]
    shares = [np.cumsum(p / np.maximum(t, 1e-12)[:, None], axis=1) for p, t in zip(powers, totals, strict=True)]
    distance = np.abs(shares[0] - shares[1]).sum(1)
    return float((distance * totals[1]).sum() / max(totals[1].sum(), 1e-12))


def best_of_samples(samples, truth, fps: float, horizons_ms: Sequence[float] = HORIZONS_MS) -> np.ndarray:
    """`mpjpe_at` of, for every future, that of its samples which errs least over all frames.

    samples: (N, K, T, J, 3) metres, truth: (N, T, J, 3). Raises ValueError as `mpjpe_at`.
    """
    samples, truth = np.asarray(samples, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    errors = np.linalg.norm(samples - truth[:, None], axis=-1).mean((-1, -2))
    best = np.take_along_axis(samples, errors.argmin(1)[:, None, None, None, None], axis=1)[:, 0]
    return mpjpe_at(best, truth, fps, horizons_ms)


def coverage(samples, truth, share: float = 0.68) -> float:
    """Share of joint coordinates whose truth lies within the central `share` of the samples: calibrated if equal.

    samples: (N, K, T, J, 3), truth: (N, T, J, 3) metres.
    """
    low, high = np.quantile(np.asarray(samples, dtype=np.float64), [0.5 - share / 2, 0.5 + share / 2], axis=1)
    return float(((low <= truth) & (truth <= high)).mean())
