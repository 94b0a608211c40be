"""Poses after the network, made to agree with the 2D evidence and with bones that keep their lengths.

Two things that a network leaves on the table can be had from the clip itself, with linear cost and no learned numbers:

* **Image plane.** Detectors are off by a constant few centimetres at each joint, but follow its movement closely. Each
  joint therefore moves, perpendicular to its ray, with the moving part of its offset from the ray; the clip's constant
  part is taken to be the detector's bias, or its other definition of the joint, and is left to the network.
* **Depth.** With the image plane settled, bones of constant length say how far each joint lies before or behind its
  neighbours; the network says on which side. The depths along the rays are one banded Gauss-Newton system over the
  clip, with the network's depths as prior and smooth corrections. The trunk is braced: it hardly changes its shape.

Lengths are those of the lift itself, the medians over the clip. The idea of fitting a lift to its 2D evidence at test
time is that of Zhang et al. 2020 ("Inference stage optimization") and UAO (Wang et al. 2024, arXiv 2402.02339), the
constant lengths that of BLAPose (2024, arXiv 2410.20731); both do it with gradients or a second network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded

from lifting.anatomy import H36M
from lifting.foot_locking import hold_bone_lengths
from lifting.skeletons import get_skeleton
from lifting.smoothing import smooth

_INPUT = get_skeleton("lift17")
_SHARED = tuple(name for name in _INPUT.joints if name in H36M.joints)
_IN, _OUT = np.array(_INPUT.indices(_SHARED)), np.array(H36M.indices(_SHARED))
_MOVING = H36M.num_joints - 1  # joints with a depth to be found: all but the root, which is joint 0
# What nobody sees moves with what is seen nearby.
_HIPS, _SHOULDERS = ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder")
_UNSEEN = {"hip": _HIPS, "spine": _HIPS + _SHOULDERS, "thorax": _SHOULDERS, "neck_nose": _SHOULDERS, "head": _SHOULDERS}
BRACES = (
    ("left_hip", "right_hip"), ("left_hip", "spine"), ("right_hip", "spine"), ("left_hip", "right_shoulder"),
    ("right_hip", "left_shoulder"), ("spine", "left_shoulder"), ("spine", "right_shoulder"),
    ("left_shoulder", "right_shoulder"), ("neck_nose", "left_shoulder"), ("neck_nose", "right_shoulder"),
)  # fmt: skip
"""Pairs of joints, besides the bones, whose distance hardly changes."""
_RODS = np.array([*H36M.bones, *(sorted(H36M.indices(pair)) for pair in BRACES)])  # (R, 2), the lower joint first
_NEAR, _FAR = _RODS.T
_MIRRORED = [_RODS.tolist().index(sorted(rod)) for rod in np.array(H36M.flip)[_RODS].tolist()]
_BAND = 2 * _MOVING + 1  # diagonals of the depths' system: each frame is coupled with the next two
_WINDOW, _OVERLAP = 1024, 64  # frames solved at once, which bounds memory, and further ones on both sides


@dataclass(frozen=True)
class RefinementConfig:
    """Noise levels of the refinement: what each term is divided by. Metres, seconds and shares of a joint's sigma."""

    smoothing: float = 0.5  # of the network's poses, as in `lifting.smoothing`
    keypoint: float = 0.02  # moving part of a keypoint's error in one frame, at the joint's depth
    outlier: float = 0.2  # Geman-McClure scale
    plane_share: float = 0.5  # how far a joint may move in the image plane
    plane_seconds: float = 0.1  # time in which that changes
    depth_share: float = 1.0  # how far a joint may move along its ray
    depth_seconds: float = 0.14
    bone: float = 0.03
    brace: float = 0.04
    iterations: int = 2


def refine_pose(
    joints: np.ndarray,
    root: np.ndarray,
    sigma: np.ndarray,
    rays: np.ndarray,
    scores: np.ndarray,
    fps: float,
    config: RefinementConfig | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (T, 17, 3) and root (T, 3) that follow the rays, with bones of constant length; metres, camera axes.

    joints: (T, 17, 3) H36M-17 metres relative to the root. root: (T, 3) metres, as `fit_trajectory` gives it. sigma:
    (T, 17) metres, positive. rays: (T, 17, 2) in the layout ``lift17``, NaN where unseen. scores: (T, 17). fps:
    frames/s.
    """
    config = config or RefinementConfig()
    sigma = sigma.astype(np.float64)
    points = smooth(joints, fps, config.smoothing) + root[:, None]
    points = follow_rays(points, sigma, rays, scores, fps, config)
    lengths = rod_lengths(points)
    solved = np.empty_like(points)
    for start in range(0, len(points), _WINDOW):
        first, stop = max(start - _OVERLAP, 0), start + _WINDOW
        window = slice(first, stop + _OVERLAP)
        part = settle_depths(points[window], sigma[window], lengths, fps, config)
        solved[start:stop] = part[start - first : stop - first]
    held = hold_bone_lengths(solved - solved[:, :1], H36M)
    return held.astype(np.float32), solved[:, 0].astype(np.float32)


def follow_rays(
    points: np.ndarray, sigma: np.ndarray, rays: np.ndarray, scores: np.ndarray, fps: float, config: RefinementConfig
) -> np.ndarray:
    """Absolute points (T, 17, 3) moved towards their rays by the moving part of their distance from them."""
    offsets, seen = _offsets_to_rays(points[:, _OUT], rays[:, _IN], scores[:, _IN])
    pull = (config.plane_share * sigma[:, _OUT]) ** -2
    weight, moved = seen * _trust(offsets, config.outlier), np.zeros_like(offsets)
    for _ in range(config.iterations):
        total = np.maximum(weight.sum(0), 1e-9)[:, None]
        constant = (weight[..., None] * (offsets - moved)).sum(0) / total
        weight = seen * _trust(offsets - constant - moved, config.outlier)
        moved = _smoothed(offsets - constant, weight / config.keypoint**2, pull, (config.plane_seconds * fps) ** 4)
    everywhere = np.zeros_like(points)
    everywhere[:, _OUT] = moved
    for name, near in _UNSEEN.items():
        everywhere[:, H36M.index(name)] = everywhere[:, H36M.indices(near)].mean(1)
    return points + everywhere


def _offsets_to_rays(points: np.ndarray, rays: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From points (T, K, 3) to the nearest points of their rays, 0 where unseen, and scores (T, K), 0 where unseen."""
    seen = np.isfinite(rays).all(-1) & (scores > 0)
    along = np.concatenate([np.where(seen[..., None], rays, 0), np.ones((*seen.shape, 1))], axis=-1)
    along = along.astype(np.float64) / np.linalg.norm(along, axis=-1, keepdims=True)
    offsets = (points * along).sum(-1, keepdims=True) * along - points
    return np.where(seen[..., None], offsets, 0), np.where(seen, scores, 0).astype(np.float64)


def _trust(offsets: np.ndarray, scale: float) -> np.ndarray:
    """Geman-McClure weights (T, K)."""
    return (1 + (offsets**2).sum(-1) / scale**2) ** -2


def _smoothed(offsets: np.ndarray, weight: np.ndarray, pull: np.ndarray, stiffness: float) -> np.ndarray:
    """The c (T, K, 3) that minimises sum weight |c - offsets|^2 + pull (|c|^2 + stiffness |c''|^2); c'' per frame."""
    frames, count = weight.shape
    band = np.zeros((count, frames, 3))  # one chain of frames after the other: [chain, frame, diagonals below]
    band[..., 0] = (weight + pull).T
    _add_bending(np.moveaxis(band, 0, 1), pull[1:-1] * stiffness, 1)
    rhs = (weight[..., None] * offsets).transpose(1, 0, 2).reshape(-1, 3)
    solution = solveh_banded(band.reshape(-1, 3).T, rhs, lower=True, overwrite_ab=True, check_finite=False)
    return solution.reshape(count, frames, 3).transpose(1, 0, 2)


def _add_bending(band: np.ndarray, weight: np.ndarray, step: int) -> None:
    """Adds weight (T - 2, K) times squared second differences over frames to a lower band (T, K, 2 step + 1)."""
    band[:-2, :, 0] += weight
    band[1:-1, :, 0] += 4 * weight
    band[2:, :, 0] += weight
    band[:-2, :, step] -= 2 * weight
    band[1:-1, :, step] -= 2 * weight
    band[:-2, :, 2 * step] += weight


def rod_lengths(points: np.ndarray) -> np.ndarray:
    """Lengths (R,) of bones and braces, metres: medians over the frames of points (T, 17, 3), both sides alike."""
    lengths = np.array([np.median(np.linalg.norm(points[:, far] - points[:, near], axis=-1)) for near, far in _RODS])
    return (lengths + lengths[_MIRRORED]) / 2


def settle_depths(
    points: np.ndarray, sigma: np.ndarray, lengths: np.ndarray, fps: float, config: RefinementConfig
) -> np.ndarray:
    """Absolute points (T, 17, 3) moved along their rays until bones and braces have about these lengths (R,).

    Gauss-Newton over the depths of all frames; the root stays where it is.
    """
    rays = points / np.linalg.norm(points, axis=-1, keepdims=True)
    rays[:, 0] = 0
    prior = _depth_prior(sigma[:, 1:], fps, config)
    weight = np.where(np.arange(len(_RODS)) < len(H36M.bones), config.bone, config.brace) ** -2.0
    moved = np.zeros(points.shape[:2])
    for _ in range(config.iterations):
        rods, slopes = _rods(points + moved[..., None] * rays, rays)
        band, rhs = prior.copy(), -_product(prior, moved[:, 1:])
        _add_rods(band, rhs, slopes, weight * (rods - lengths), weight)
        rows = band.reshape(-1, _BAND).T[: rhs.size]
        step = solveh_banded(rows, rhs.ravel(), lower=True, overwrite_ab=True, check_finite=False)
        moved[:, 1:] += step.reshape(rhs.shape)
    return points + moved[..., None] * rays


def _depth_prior(sigma: np.ndarray, fps: float, config: RefinementConfig) -> np.ndarray:
    """Lower band (T, 16, diagonals) of the prior on the movement along the rays: small and smooth."""
    pull = (config.depth_share * sigma) ** -2
    band = np.zeros((*sigma.shape, _BAND))
    band[..., 0] = pull
    _add_bending(band, pull[1:-1] * (config.depth_seconds * fps) ** 4, _MOVING)
    return band


def _product(prior: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The prior's matrix times (T, 16)."""
    product = prior[..., 0] * vector
    for frames in (1, 2):
        entries = prior[:-frames, :, frames * _MOVING]
        product[:-frames] += entries * vector[frames:]
        product[frames:] += entries * vector[:-frames]
    return product


def _rods(points: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (T, R), and their slopes (2, T, R) as the lower and the higher joint move along their rays."""
    across = points[:, _FAR] - points[:, _NEAR]
    lengths = np.maximum(np.linalg.norm(across, axis=-1), 1e-6)
    far = np.einsum("trc,trc->tr", across, rays[:, _FAR]) / lengths
    near = -np.einsum("trc,trc->tr", across, rays[:, _NEAR]) / lengths
    return lengths, np.stack([near, far])


def _add_rods(band: np.ndarray, rhs: np.ndarray, slopes: np.ndarray, pull: np.ndarray, weight: np.ndarray) -> None:
    """Adds the normal equations of all rods to the lower band and the right-hand side (T, 16), in place."""
    near, far = slopes
    for rod, (low, high) in enumerate(_RODS - 1):
        band[:, high, 0] += weight[rod] * far[:, rod] ** 2
        rhs[:, high] -= far[:, rod] * pull[:, rod]
        if low >= 0:  # the root does not move
            band[:, low, 0] += weight[rod] * near[:, rod] ** 2
            band[:, low, high - low] += weight[rod] * near[:, rod] * far[:, rod]
            rhs[:, low] -= near[:, rod] * pull[:, rod]
