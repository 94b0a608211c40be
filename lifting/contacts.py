"""Which foot points stand on something, and when: a probability for each point and frame.

A point that stands is slow (the literature labels contact by a speed below 0.15 m/s, e.g. Shen et al., "GVHMR", 2024)
and near the height at which it usually stands. Both are evidence for a hidden Markov model of two states, standing and
swinging, whose forward-backward pass smooths over time without delay. Lifted motion is noisy: speeds are slopes of
lines fitted over a window, and the threshold grows, in every direction by itself, with the speeds that standing points
of the clip are seen to have: a camera leaves the depth of feet several times more in doubt than their place in its
picture, so that lifted feet slide towards it and away from it while they stand.

Evidence (`contact_evidence`), forward pass and backward pass are separate steps: the forward pass alone is causal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.signal import savgol_filter

from lifting.keypoints import check_fps
from lifting.motion import RADIUS_68
from lifting.skeletons import Skeleton, get_skeleton

FOOT_PARTS = ("big_toe", "small_toe", "heel", "toe_base")
"""Parts of a foot that touch the floor, in the order in which `foot_points` lists them."""
CLEARANCES = {"big_toe": 0.02, "small_toe": 0.015, "toe_base": 0.025, "heel": 0.03, "foot": 0.025, "ankle": 0.085}
"""Height in metres of a standing foot's keypoints over the floor; the points themselves lie inside the foot.

From feet of standing people in the CMU recordings: toe tips -2..4 cm, heels -3..4 cm, ankles 3..10 cm (5..95 %).
"""


FARTHEST = 8.0  # squared deviations at which a velocity speaks neither for standing nor against it: 95 % stand below
CUT_OFF = 0.9  # share of the variance that is left of velocities cut off there
SURPRISE = 3.0  # by what factor slow errors may exceed those that sigma tells: in depth they do
EM_ROUNDS = 10
EM_PRIOR = 20.0  # frames for which the covariance without slow errors counts


@dataclass(frozen=True)
class ContactConfig:
    """Thresholds and time constants, metres and seconds; how much each matters is said where it is used."""

    speed: float = 0.2  # m/s: evidence of the speed changes sign here, for points without noise
    height: float = 0.06  # evidence of the height changes sign this far above the standing height
    window: float = 0.1  # over which a speed is measured
    stand: float = 0.5  # mean length of a contact
    swing: float = 0.4  # mean length of the time between two contacts
    strength: float = 4.0  # log odds that one window of a motionless point adds
    noise_time: float = 0.3  # correlation time of the slow part of the points' errors
    drift: float = 0.1  # m/s per axis: deviation that slow errors of standing points may have, whatever `sigma` says


def foot_points(skeleton: Skeleton | str) -> tuple[str, ...]:
    """Names of the joints of a layout that can stand: toes and heels, or ankles where the layout has neither.

    Raises ValueError when it has no such joint.
    """
    skeleton = get_skeleton(skeleton)
    for parts in (FOOT_PARTS, ("foot",), ("ankle",)):
        found = tuple(f"{side}_{part}" for part in parts for side in ("left", "right"))
        found = tuple(name for name in found if name in skeleton.joints)
        if found:
            return found
    raise ValueError(f"skeleton {skeleton.name!r} has neither toes, heels nor ankles: contacts need some of them; "
                     f"its joints are {', '.join(skeleton.joints)}.")


def clearances(names: Iterable[str]) -> np.ndarray:
    """Heights (F,) metres over the floor of standing foot points, by name; 0 for names that are no foot keypoints."""
    return np.array([CLEARANCES.get(name.removeprefix("left_").removeprefix("right_"), 0.0) for name in names])


def contact_probabilities(
    points: np.ndarray,
    fps: float,
    *,
    up: np.ndarray | None = None,
    floor: float | np.ndarray | None = None,
    sigma: np.ndarray | None = None,
    config: ContactConfig | None = None,
) -> np.ndarray:
    """Probability (T, F) that each foot point stands on something, smoothed over the whole clip.

    Without `up` only speeds count. With `up` the height over the point's own standing height counts too: the height at
    which it is when slow, or `floor`.

    Args:
        points: (T, F, 3) metres in a frame in which the floor does not move; NaN where unknown.
        fps: frames per second.
        up: (3,) direction against gravity in the same frame.
        floor: height along `up` at which points stand, metres: one number or one per point (F,), clearances included.
        sigma: (T, F) metres, radius that holds 68 % of a point's errors.
        config: thresholds.

    Points that are NaN in a frame take their probability from the frames around it; before its first and after its
    last finite frame a point's probability is 0. One frame has no speed: only heights tell.

    Raises ValueError for wrong shapes, no frames, a `floor` without `up`, a zero `up` or a fps that is not positive.
    """
    config = config or ContactConfig()
    points = _checked(points)
    if not points.shape[1]:
        return np.zeros(points.shape[:2])
    evidence = contact_evidence(points, fps, up=up, floor=floor, sigma=sigma, config=config)
    leave, arrive = _switching(check_fps(fps), config)
    forward = forward_log_odds(evidence, leave, arrive)
    probability = _logistic(forward + _backward_log_ratio(evidence, leave, arrive))
    return np.where(_spanned(points), probability, 0.0)


def contact_evidence(
    points: np.ndarray,
    fps: float,
    *,
    up: np.ndarray | None = None,
    floor: float | np.ndarray | None = None,
    sigma: np.ndarray | None = None,
    config: ContactConfig | None = None,
) -> np.ndarray:
    """Log odds (T, F) of standing that each frame adds; arguments as those of `contact_probabilities`.

    Neighbouring frames share most of their speed windows, so every frame counts for its share of a window only.
    """
    config = config or ContactConfig()
    points, fps = _checked(points), check_fps(fps)
    if floor is not None and up is None:
        raise ValueError("got a floor without the direction up, expected both; give up as well.")
    sigma = np.zeros(points.shape[:2]) if sigma is None else np.asarray(sigma, dtype=np.float64)
    if sigma.shape != points.shape[:2]:
        raise ValueError(f"sigma has shape {sigma.shape}, expected {points.shape[:2]}: one value for each point.")
    seen, filled = np.isfinite(points).all(-1), _filled(points)
    sigma = np.where(np.isfinite(sigma), sigma, 0.0)
    window = _window(len(points), fps, config)
    share = min(1.0, 1 / (fps * config.window))
    evidence = _speed_evidence(filled, fps, window, sigma, config)
    if up is not None:
        height = _line_fits(filled, window)[0] @ _unit_up(up)
        evidence = evidence + _height_evidence(height, floor, evidence, seen, sigma, config)
    return np.where(seen, config.strength * share * np.clip(evidence, -4.0, 1.0), 0.0)


def forward_log_odds(evidence: np.ndarray, leave: float, arrive: float, start: np.ndarray | None = None) -> np.ndarray:
    """Log odds (T, F) of standing given the evidence so far: the causal half of the smoother.

    evidence: (T, F) log odds per frame. leave, arrive: probabilities per frame that standing ends and begins.
    start: (F,) log odds of the frame before the first; the long-run share of standing otherwise.
    """
    odds = np.empty_like(evidence)
    share = arrive / (arrive + leave)
    before = np.full(evidence.shape[1], share) if start is None else _logistic(np.asarray(start))
    for frame, log_odds in enumerate(evidence):
        predicted = before * (1 - leave) + (1 - before) * arrive
        odds[frame] = np.log(predicted / (1 - predicted)) + log_odds
        before = _logistic(odds[frame])
    return odds


def _backward_log_ratio(evidence: np.ndarray, leave: float, arrive: float) -> np.ndarray:
    """Log (T, F) of P(later evidence | standing) / P(later evidence | swinging)."""
    log_ratio = np.zeros_like(evidence)
    for frame in range(len(evidence) - 2, -1, -1):
        later = np.exp(evidence[frame + 1] + log_ratio[frame + 1])
        log_ratio[frame] = np.log(((1 - leave) * later + leave) / (arrive * later + 1 - arrive))
    return log_ratio


def _switching(fps: float, config: ContactConfig) -> tuple[float, float]:
    """Probabilities per frame of leaving the floor and of arriving on it."""
    return 1 - np.exp(-1 / (fps * config.stand)), 1 - np.exp(-1 / (fps * config.swing))


def _speed_evidence(
    points: np.ndarray, fps: float, window: int, sigma: np.ndarray, config: ContactConfig
) -> np.ndarray:
    """1 for a motionless point, 0 at the threshold, negative above, (T, F); a clip of one frame says nothing."""
    if window < 2:
        return np.zeros(points.shape[:2])
    velocity = fps * _line_fits(points, window)[1]
    # The variance of the slope of n white samples is 12 s^2 / (n^3 - n) per frame^2. Slow errors of a radius sigma
    # move by sqrt(2) of theirs per correlation time.
    fast = 12 * (fps * _white_noise(points)) ** 2 / (window**3 - window)
    slow = np.sqrt(2) * np.median(sigma) / RADIUS_68 / config.noise_time
    least = np.diag(config.speed**2 / FARTHEST + 0.6 * fast)
    return _nearness(velocity, _standing_covariance(velocity, least, max(config.drift, SURPRISE * slow), config))


def _standing_covariance(velocity: np.ndarray, least: np.ndarray, most: float, config: ContactConfig) -> np.ndarray:
    """Covariance (3, 3) of the velocities (T, F, 3) of standing points, m^2/s^2, by expectation and maximisation.

    least: (3, 3) what it is without slow errors. most: m/s, deviation in any direction that these may add: feet that
    glide faster, all the time, do not stand.
    """
    covariance = least
    for _ in range(EM_ROUNDS):
        standing = _logistic(config.strength * _nearness(velocity, covariance))
        moment = np.einsum("tf,tfc,tfd->cd", standing, velocity, velocity) / CUT_OFF
        found = (moment + EM_PRIOR * least) / (standing.sum() + EM_PRIOR)
        size, axes = np.linalg.eigh(found - least)
        covariance = least + (axes * np.clip(size, 0.0, most**2)) @ axes.T
    return covariance


def _nearness(velocity: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """1 less the squared deviations (T, F) of velocities over `FARTHEST`."""
    return 1 - np.einsum("tfc,cd,tfd->tf", velocity, np.linalg.inv(covariance), velocity) / FARTHEST


def _height_evidence(
    height: np.ndarray,
    floor: float | np.ndarray | None,
    speed_evidence: np.ndarray,
    seen: np.ndarray,
    sigma: np.ndarray,
    config: ContactConfig,
) -> np.ndarray:
    """0 at the standing height and below, -1 a threshold above it, (T, F)."""
    if floor is None:
        floor = standing_heights(height, (speed_evidence > 0) & seen)
    above = np.maximum(height - np.asarray(floor, dtype=np.float64), 0.0)
    # Twice sigma: the point errs, the height at which it stands does, and so does `up` across the floor.
    return -(above**2) / (config.height**2 + (2 * sigma) ** 2)


def standing_heights(height: np.ndarray, slow: np.ndarray) -> np.ndarray:
    """Height (F,) at which each point usually stands: the lower quartile of its slow frames, or of all its frames.

    height: (T, F) metres. slow: (T, F) whether the point is nearly at rest. The quartile leaves out a foot held still
    in the air for most of the time only as long as it also stands for a quarter of its slow frames.
    """
    chosen = np.where(slow.any(0), slow, True)
    return np.nanquantile(np.where(chosen, height, np.nan), 0.25, axis=0)


def _line_fits(points: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and slopes per frame, (T, F, 3) each, of straight lines fitted to a window around every frame."""
    if window < 3:
        return points, np.broadcast_to(points[-1] - points[0], points.shape)
    fit = partial(savgol_filter, points, window, polyorder=1, axis=0, mode="interp")
    return fit(deriv=0), fit(deriv=1)


def _window(frames: int, fps: float, config: ContactConfig) -> int:
    """Odd number of frames of the speed window, or 2 for a clip of two frames and 1 for one."""
    if frames < 3:
        return frames
    wanted = 2 * round(config.window * fps / 2) + 1
    return int(min(max(wanted, 3), frames - 1 + frames % 2))


def _white_noise(points: np.ndarray) -> np.ndarray:
    """Standard deviation (3,) per axis of errors that change from frame to frame, from the median second difference."""
    if len(points) < 5:
        return np.zeros(3)
    return 1.4826 / np.sqrt(6) * np.median(np.abs(np.diff(points, n=2, axis=0)), axis=(0, 1))


def _spanned(points: np.ndarray) -> np.ndarray:
    """Frames (T, F) from a point's first finite one to its last."""
    seen = np.isfinite(points).all(-1)
    return np.logical_or.accumulate(seen, axis=0) & np.logical_or.accumulate(seen[::-1], axis=0)[::-1]


def _filled(points: np.ndarray) -> np.ndarray:
    """Points with gaps bridged by straight lines; a point that is never seen becomes zero."""
    seen = np.isfinite(points).all(-1)
    if seen.all():
        return points
    filled, time = np.zeros_like(points), np.arange(len(points))
    for column in np.flatnonzero(seen.any(0)):
        known = seen[:, column]
        for axis in range(3):
            filled[:, column, axis] = np.interp(time, time[known], points[known, column, axis])
    return filled


def _checked(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 3 or points.shape[-1] != 3 or not len(points):
        raise ValueError(f"points have shape {points.shape}, expected (T, F, 3) with at least one frame.")
    return points


def _unit_up(up: np.ndarray) -> np.ndarray:
    up = np.asarray(up, dtype=np.float64)
    if up.shape != (3,) or not np.isfinite(up).all() or not np.linalg.norm(up) > 0:
        raise ValueError(f"up must be a direction of 3 finite numbers, not all zero, got {up.tolist()}.")
    return up / np.linalg.norm(up)


def _logistic(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(log_odds, -30.0, 30.0)))
