"""Errors of predicted motion: at single horizons, after time warping, in the image, and in the spectrum.

Poses are arrays (..., T, J, 3) in metres, prediction and truth in the same frame and joint order, finite everywhere: a
predictor has no gaps. Frame k of a future is the (k + 1)-th after the last that was seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lifting.metrics import joint_errors

HORIZONS_MS = (80, 160, 320, 400, 560, 720, 880, 1000)
"""Of the Human3.6M forecasting protocol: short term up to 400 ms, long term beyond."""
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


def mpjpe_at(prediction, truth, fps: float, horizons_ms: Sequence[float] = HORIZONS_MS) -> np.ndarray:
    """Mean per-joint error at each horizon, (len(horizons_ms),) metres, of futures (..., T, J, 3) metres.

    The error AT a frame, as in the Human3.6M forecasting protocol, not the mean up to it. Raises ValueError for unequal
    shapes and horizons beyond the future.
    """
    errors = joint_errors(prediction, truth).mean(-1)
    frames = [frame_of(horizon, fps) for horizon in horizons_ms]
    if max(frames) >= errors.shape[-1]:
        raise ValueError(f"got a future of {errors.shape[-1]} frames at {fps:g} frames/s, expected {max(frames) + 1} "
                         f"for a horizon of {max(horizons_ms):g} ms; predict further or ask for less.")
    return errors[..., frames].reshape(-1, len(frames)).mean(0)


def time_warped_errors(cost) -> np.ndarray:
    """Error of every true frame after dynamic time warping of the whole future, from costs (T predicted, T true).

    The alignment of least total cost that is monotone and matches every frame of either side at least once; a true
    frame's error is the mean cost of its matches (PHD, Zhang et al., ICCV 2019, section 5). Returns (T true,). Raises
    ValueError for anything but a matrix of finite costs.
    """
    cost = np.asarray(cost, dtype=np.float64)
    if cost.ndim != 2 or not cost.size or not np.isfinite(cost).all():
        raise ValueError(f"got costs of shape {cost.shape}, expected a matrix of finite numbers, predicted times true "
                         "frames.")
    path = _cheapest_path(cost)
    matches = np.bincount(path[:, 1], minlength=cost.shape[1])
    return np.bincount(path[:, 1], cost[path[:, 0], path[:, 1]], minlength=cost.shape[1]) / matches


def _cheapest_path(cost: np.ndarray) -> np.ndarray:
    """Pairs (n, 2) of the cheapest monotone path from corner to corner; among equals the one that keeps in step."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(rows):
        for j in range(columns):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    path, place = [], (rows, columns)
    while place != (0, 0):
        i, j = place
        path.append((i - 1, j - 1))
        place = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda at: total[at] if min(at) >= 0 else np.inf)
    return np.array(path[::-1])


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
    target, visible = np.asarray(target, dtype=np.float64), np.asarray(visible, dtype=bool)
    scale, shift = best_scale_and_shift(points, target, visible)
    fitted = scale[..., None, None] * np.asarray(points, dtype=np.float64) + shift[..., None, :]
    high = np.where(visible[..., None], target, -np.inf).max(-2)
    low = np.where(visible[..., None], target, np.inf).min(-2)
    with np.errstate(invalid="ignore"):
        side = (high - low).max(-1)
        near = np.linalg.norm(fitted - target, axis=-1) <= share * side[..., None]
    count = visible.sum(-1)
    return np.where(count >= 2, (near & visible).sum(-1) / np.maximum(count, 1), np.nan)


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
