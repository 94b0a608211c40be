"""Where the person is: a robust, smooth least-squares fit of the root to the 2D evidence.

Given root-relative joints, each seen keypoint says that root + joint lies on its ray. That is linear in the root, so a
whole clip is one banded system: the rays' equations (iteratively reweighted), a weak pull towards the network's own
estimate and a penalty on accelerations. Cost and memory grow linearly with the number of frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded

from lifting.skeletons import get_skeleton

_INPUT, _OUTPUT = get_skeleton("lift17"), get_skeleton("h36m17")
# Joints that both layouts have; a detector's nose is not H36M's joint 9, feet are not lifted.
SHARED = tuple(name for name in _INPUT.joints if name in _OUTPUT.joints)
_IN = np.array(_INPUT.indices(SHARED))
_OUT = np.array(_OUTPUT.indices(SHARED))
NEAREST = 0.2  # metres: nobody is nearer to the camera than this
FILTER_ITERATIONS = 2  # of a frame's weights; they start from those of the frame before
FIRST_SPEED = 2.0  # m/s, deviation of the speed in the first frame
REST_SECONDS = 0.5  # somebody unseen is taken to slow down with this time constant


@dataclass(frozen=True)
class TrajectoryConfig:
    """Noise levels of the fit, metres and seconds: what each term is divided by."""

    keypoint: float = 0.025  # 2D error of a keypoint, seen at the joint's depth
    sigma_share: float = 0.7  # share of a joint's own sigma that adds to it
    outlier: float = 0.12  # Geman-McClure scale
    network_depth: float = 0.25  # share of depth: the pull towards the network's root
    acceleration: tuple[float, float, float] = (4.0, 4.0, 2.0)  # m/s^2 along x, y, z
    blind_speed: float = 0.5  # m/s off the first estimate's speed, only where nothing is seen
    iterations: int = 5


def fit_trajectory(
    joints: np.ndarray,
    root: np.ndarray,
    sigma: np.ndarray,
    rays: np.ndarray,
    scores: np.ndarray,
    fps: float,
    config: TrajectoryConfig | None = None,
) -> np.ndarray:
    """Root positions (T, 3) metres, camera axes, that agree with the rays.

    Where nothing is seen, the path between the ends of the gap takes its shape from the first estimate.
    joints: (T, 17, 3) H36M-17 metres relative to the root, camera axes. root: (T, 3) metres, first estimate. sigma:
    (T, 17) metres. rays: (T, 17, 2) in the layout ``lift17``, NaN where unseen. scores: (T, 17). fps: frames/s.
    """
    config = config or TrajectoryConfig()
    points, uv, trust = _evidence(joints, sigma, rays, scores, config)
    start = root.astype(np.float64)
    visible = trust.any(-1)
    smooth, drift = _smoothness(start, fps, visible, config)
    estimate = start
    for _ in range(config.iterations):
        weight = trust * _robust_weight(points, estimate, uv, config.outlier)
        blocks, rhs = _normal_equations(points, uv, weight, start, visible, config)
        estimate = _solve(blocks, rhs + drift, smooth)
        estimate[:, 2] = np.maximum(estimate[:, 2], NEAREST)
    return estimate.astype(np.float32)


def _evidence(
    joints: np.ndarray, sigma: np.ndarray, rays: np.ndarray, scores: np.ndarray, config: TrajectoryConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the K shared joints: points (T, K, 3), rays (T, K, 2), 0 where unseen, and inverse variances (T, K)."""
    seen = (scores[:, _IN] > 0) & np.isfinite(rays[:, _IN]).all(-1)
    uv = np.where(seen[..., None], rays[:, _IN], 0.0).astype(np.float64)
    variance = config.keypoint**2 + (config.sigma_share * sigma[:, _OUT].astype(np.float64)) ** 2
    return joints[:, _OUT].astype(np.float64), uv, scores[:, _IN] * seen / variance


def _robust_weight(points: np.ndarray, root: np.ndarray, uv: np.ndarray, scale: float) -> np.ndarray:
    """Geman-McClure weights (T, K) of the distances in metres between joints and rays."""
    at = points + root[:, None]
    residual = at[..., :2] - uv * at[..., 2:]
    return 1 / (1 + (residual**2).sum(-1) / scale**2) ** 2


def _normal_equations(
    points: np.ndarray,
    uv: np.ndarray,
    weight: np.ndarray,
    start: np.ndarray,
    seen: np.ndarray,
    config: TrajectoryConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Blocks (T, 3, 3) and right-hand sides (T, 3) of: root_xy - uv root_z = uv z - xy, and root near its start."""
    blocks, rhs = np.zeros((len(points), 3, 3)), np.zeros((len(points), 3))
    gap = uv * points[..., 2:] - points[..., :2]
    total, mean_uv = weight.sum(1), (weight[..., None] * uv).sum(1)
    blocks[:, 0, 0] = blocks[:, 1, 1] = total
    blocks[:, :2, 2] = blocks[:, 2, :2] = -mean_uv
    blocks[:, 2, 2] = (weight * (uv**2).sum(-1)).sum(1)
    rhs[:, :2] = (weight[..., None] * gap).sum(1)
    rhs[:, 2] = -(weight * (uv * gap).sum(-1)).sum(1)
    pull = seen / (config.network_depth * np.maximum(start[:, 2], NEAREST)) ** 2 + 1e-6
    blocks[:, range(3), range(3)] += pull[:, None]
    rhs += pull[:, None] * start
    return blocks, rhs


def _smoothness(
    start: np.ndarray, fps: float, seen: np.ndarray, config: TrajectoryConfig
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Diagonal (T, 3), next (T - 1, 3) and after-next (T - 2, 3) entries of the penalty on accelerations; a rhs (T, 3).

    Frames in which nothing is seen also resist other speeds than the first estimate's, or a gap at an end would be
    extrapolated without limit.
    """
    frames, drift = len(start), np.zeros_like(start)
    diagonal, next_, after = np.zeros((frames, 3)), np.zeros((max(frames - 1, 0), 3)), np.zeros((max(frames - 2, 0), 3))
    if frames > 2:
        w = (fps**2 / np.array(config.acceleration)) ** 2
        diagonal[:-2] += w
        diagonal[1:-1] += 4 * w
        diagonal[2:] += w
        next_[:-1] -= 2 * w
        next_[1:] -= 2 * w
        after += w
    if frames > 1:
        v = (~(seen[1:] & seen[:-1]))[:, None] * (fps / config.blind_speed) ** 2
        diagonal[:-1] += v
        diagonal[1:] += v
        next_ -= v
        drift[1:] += v * np.diff(start, axis=0)
        drift[:-1] -= v * np.diff(start, axis=0)
    return (diagonal, next_, after), drift


def _solve(blocks: np.ndarray, rhs: np.ndarray, smooth: tuple[np.ndarray, ...]) -> np.ndarray:
    """Solves the symmetric banded system, (T, 3)."""
    frames = len(blocks)
    diagonal, next_, after = smooth
    band = np.zeros((7, 3 * frames))  # upper form: band[6 + i - j, j] = A[i, j]
    band[6] = (blocks[:, range(3), range(3)] + diagonal).ravel()
    band[5, 1::3], band[5, 2::3] = blocks[:, 0, 1], blocks[:, 1, 2]
    band[4, 2::3] = blocks[:, 0, 2]
    if frames > 1:
        band[3, 3:] = next_.ravel()
    if frames > 2:
        band[0, 6:] = after.ravel()
    return solveh_banded(band[-min(7, 3 * frames) :], rhs.ravel(), overwrite_ab=True, check_finite=False).reshape(-1, 3)


class TrajectoryFilter:
    """`fit_trajectory` frame by frame: a Kalman filter over the root's position and speed.

    It rests on the same equations as the fit of a whole clip, which it follows from the past alone: rays, reweighted
    from frame to frame as they agree, the pull towards the network's root, and accelerations of the same size.
    """

    def __init__(self, fps: float, config: TrajectoryConfig | None = None) -> None:
        self.config = config or TrajectoryConfig()
        step, rest = 1 / fps, np.exp(-1 / fps / REST_SECONDS)
        moves = (np.array([[1, step], [0, keeps]]) for keeps in (rest, 1.0))
        self._moves = [np.kron(move, np.eye(3)) for move in moves]  # unseen, seen
        push = np.kron(np.array([[step**2 / 2], [step]]), np.diag(self.config.acceleration))
        self._noise = push @ push.T
        self._state: np.ndarray | None = None  # (6,): position, metres, and speed, m/s
        self._covariance = np.zeros((6, 6))

    def push(
        self, joints: np.ndarray, root: np.ndarray, sigma: np.ndarray, rays: np.ndarray, scores: np.ndarray
    ) -> np.ndarray:
        """Root (3,) metres of the next frame; arguments as one frame of `fit_trajectory`."""
        points, uv, trust = _evidence(joints[None], sigma[None], rays[None], scores[None], self.config)
        visible = trust.any(-1)
        self._predict(root, bool(visible[0]))
        prior, expected = np.linalg.inv(self._covariance), self._state
        for _ in range(FILTER_ITERATIONS):
            weight = trust * _robust_weight(points, self._state[None, :3], uv, self.config.outlier)
            blocks, rhs = _normal_equations(points, uv, weight, root[None].astype(np.float64), visible, self.config)
            information, pulls = prior.copy(), prior @ expected
            information[:3, :3] += blocks[0]
            pulls[:3] += rhs[0]
            self._covariance = np.linalg.inv(information)
            self._state = self._covariance @ pulls
        self._state[2] = max(self._state[2], NEAREST)
        return self._state[:3].astype(np.float32)

    def _predict(self, root: np.ndarray, seen: bool) -> None:
        """Where the person is by now; unseen, they come to rest."""
        if self._state is None:
            depth = self.config.network_depth * max(float(root[2]), NEAREST)
            self._state = np.concatenate([root, np.zeros(3)]).astype(np.float64)
            self._covariance = np.diag([depth**2] * 3 + [FIRST_SPEED**2] * 3)
            return
        move = self._moves[seen]
        self._state = move @ self._state
        self._covariance = move @ self._covariance @ move.T + self._noise
