"""The errors a 2D detector makes, drawn at random: other joints, noise, swaps, gaps, truncation, confidences.

Points are camera rays (x/z, y/z) in the layout ``lift17``; arrays are numpy float32 with leading axes (N samples, T
frames). Source of the idea: MotionBERT (Zhu et al. 2023, Augmenter2D).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifting.anatomy import H36M, NECK_NOSE, THORAX, trunk_frames
from lifting.skeletons import get_skeleton, joint_map

INPUT = get_skeleton("lift17")
NUM_CORE = 13  # nose to ankles; toes and heels follow
_SOURCE = joint_map(H36M, INPUT).weights[:NUM_CORE].argmax(-1)
_FLIP = np.array(INPUT.flip)
_LEGS = tuple(i for i, name in enumerate(INPUT.joints) if any(p in name for p in ("knee", "ankle", "toe", "heel")))
# Left arm, left leg, right arm, right leg: how much of a slip each joint (K, 1) makes, and its columns (K,).
_SLIPPING = ({"elbow": 0.6, "wrist": 1.0}, {"knee": 0.6, "ankle": 1.0, "big_toe": 1.0, "heel": 1.0}) * 2
_LIMBS = [
    (np.float32([*limb.values()])[:, None], np.array(INPUT.indices([f"{side}_{joint}" for joint in limb])))
    for side, limb in zip(("left", "left", "right", "right"), _SLIPPING, strict=True)
]


@dataclass(frozen=True)
class NoiseModel:
    """Errors of a 2D detector. Lengths are shares of the person's projected stature, shares are of frames."""

    # Metres: constant 3D offset of each joint, fixed to the trunk (joint definitions differ). Above zero, the nose also
    # lies further forward and joints of arms and legs slide along their bones, by amounts of their own.
    definition: float = 0.0
    bias: float = 0.015  # constant 2D offset per joint and view
    jitter: tuple[float, float] = (0.008, 0.008)  # white noise, range of its deviation over samples
    drift: tuple[float, float] = (0.0, 0.0)  # smooth noise, a new value every 12 frames, range of its deviation
    burst_share: float = 0.0  # frames in which a joint's jitter is several times worse, in runs
    burst_scale: float = 5.0  # at most so many times, at least twice
    # Frames in which an arm, or a leg, is drawn elsewhere, in runs: half of the runs wander off, half are drawn towards
    # the limb of the other side, at most half way. The range is that of their deviation, uniform in its logarithm.
    slip_share: tuple[float, float] = (0.0, 0.0)
    slip: tuple[float, float] = (0.015, 0.08)
    swap_share: float = 0.03
    swap_run: tuple[int, int] = (1, 20)
    legs_only: float = 0.0  # share of the swap runs that touch only the legs
    dropout_share: float = 0.03  # single joints in single frames
    gap_share: float = 0.0  # joints missing in runs of 5 to 60 frames
    blackout_share: float = 0.0  # whole person missing in runs of 1 to 25 frames
    truncation: float = 0.0  # share of samples cut by the image border
    feet: float = 0.0  # share of samples with toes and heels, where the motion has them
    scores: bool = False  # confidences that go with the errors; else 1 where seen
    held_rate: float = 0.0  # share of samples detected at half the rate and interpolated


TRAINING_NOISE = NoiseModel(
    definition=0.022, bias=0.008, jitter=(0.001, 0.012), drift=(0.0, 0.012), burst_share=0.05,
    slip_share=(0.12, 0.06), swap_share=0.02, swap_run=(1, 30), legs_only=0.4, dropout_share=0.02, gap_share=0.04,
    blackout_share=0.01, truncation=0.12, feet=0.6, scores=True, held_rate=0.4,
)  # fmt: skip


def detector_points(
    joints: np.ndarray, feet: np.ndarray, noise: NoiseModel, rng: np.random.Generator
) -> np.ndarray:
    """3D points a detector looks for, (N, T, 17, 3) in the layout ``lift17``, camera axes, metres.

    A detector's keypoints are centimetres off the joint centres of motion capture, and fixed to the body. The nose lies
    further forward than Human3.6M's joint 9.
    """
    points = np.concatenate([joints[:, :, _SOURCE], feet], axis=2)
    if noise.definition:
        offsets = rng.normal(0, noise.definition, (len(points), 17, 3)).astype(np.float32)
        spread = np.ones((17, 1), np.float32)
        spread[list(INPUT.indices(["left_hip", "right_hip", "nose"]))] = 1.5
        offsets *= spread
        points = points + np.einsum("ntij,nkj->ntki", trunk_frames(joints), offsets)
        ahead = rng.normal(0.02, 0.02, (len(points), 1, 1)).astype(np.float32)
        points[:, :, INPUT.index("nose")] += face_forward(joints) * ahead
        for end, start in (("wrist", "elbow"), ("elbow", "shoulder"), ("knee", "hip"), ("ankle", "knee")):
            slide = rng.normal(0, 0.04, (len(points), 1, 1, 1)).astype(np.float32)
            ends, starts = ([INPUT.index(f"{s}_{j}") for s in ("left", "right")] for j in (end, start))
            points[:, :, ends] += slide * (points[:, :, ends] - points[:, :, starts])
    return points


def face_forward(joints: np.ndarray) -> np.ndarray:
    """Unit direction the face looks in, (..., 3): from the line thorax-head towards the nose; about 0 on that line."""
    axis = joints[..., H36M.index("head"), :] - joints[..., THORAX, :]
    nose = joints[..., NECK_NOSE, :] - joints[..., THORAX, :]
    forward = nose - axis * ((nose * axis).sum(-1, keepdims=True) / np.maximum((axis**2).sum(-1, keepdims=True), 1e-9))
    return forward / np.maximum(np.linalg.norm(forward, axis=-1, keepdims=True), 1e-6)


def detect(
    points: np.ndarray, size: np.ndarray, border: np.ndarray, noise: NoiseModel, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rays (N, T, 17, 2) and scores (N, T, 17) a detector would report for 3D points in camera axes.

    points: (N, T, 17, 3) metres in the layout ``lift17``; points nearer than 0.2 m are drawn as if 0.2 m ahead.
    size: (N, T) projected stature in ray units. border: (N, 2) half-extents of the image in ray units.
    """
    batch, frames = points.shape[:2]
    clean = points[..., :2] / np.maximum(points[..., 2:], 0.2)
    unit = size[..., None, None].astype(np.float32)
    error = noise.bias * rng.standard_normal((batch, 1, 17, 2), np.float32)
    deviation = _uniform(rng, noise.jitter, batch) * np.ones((1, frames, 17), np.float32)
    if noise.burst_share:
        burst = runs((batch, frames, 17), noise.burst_share, (3, 40), rng)
        deviation = deviation * np.where(burst, rng.uniform(2, noise.burst_scale, (batch, 1, 17)), 1).astype(np.float32)
    moving = deviation[..., None] * rng.standard_normal((batch, frames, 17, 2), np.float32)
    if noise.drift[1]:
        moving = moving + _uniform(rng, noise.drift, batch)[..., None] * _slow_noise((batch, frames, 17, 2), rng)
    noticed = np.linalg.norm(moving, axis=-1)
    if any(noise.slip_share):
        slips = _slips(clean / unit, noise, rng)
        moving = moving + slips
        noticed = noticed + np.linalg.norm(slips, axis=-1) * rng.uniform(0, 1.5, (batch, 1, 17)).astype(np.float32)
    rays = clean + unit * (error + moving)
    rays, swapped = _swap_sides(rays, noise, rng)
    scores = np.ones((batch, frames, 17), np.float32)
    if noise.scores:
        scores = _scores(noticed, deviation, swapped, rng)
    seen = _seen(rays, border, scores, noise, rng)
    if noise.held_rate:
        rays, scores, seen = _hold_rate(rays, scores, seen, rng.random(batch) < noise.held_rate)
    seen &= np.isfinite(rays).all(-1)
    return np.where(seen[..., None], rays, np.nan).astype(np.float32), np.where(seen, scores, 0).astype(np.float32)


def _uniform(rng: np.random.Generator, limits: tuple[float, float], batch: int) -> np.ndarray:
    return rng.uniform(*limits, (batch, 1, 1)).astype(np.float32)


def runs(
    shape: tuple[int, int, int], share: float, length: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Boolean (N, T, K): frames inside random runs whose lengths are uniform in ``length``; ``share`` of frames in all.

    Runs may overlap, so that 1 - exp(-share) of the frames are met: 2.96 % for 3 %.
    """
    batch, frames, channels = shape
    mean = (length[0] + length[1]) / 2
    count = rng.poisson(share * (frames + mean) * batch * channels / mean)  # runs may begin before the window
    edges = np.zeros((batch, frames + 1, channels), np.int32)
    sample, channel = rng.integers(batch, size=count), rng.integers(channels, size=count)
    run = rng.integers(length[0], length[1] + 1, size=count)
    start = np.floor(rng.uniform(-run + 1, frames, size=count)).astype(int)
    np.add.at(edges, (sample, np.clip(start, 0, frames), channel), 1)
    np.add.at(edges, (sample, np.clip(start + run, 0, frames), channel), -1)
    return np.cumsum(edges[:, :-1], axis=1) > 0


def _slow_noise(shape: tuple[int, ...], rng: np.random.Generator, knots: int = 12) -> np.ndarray:
    """Smooth unit-variance noise along axis 1: random values every ``knots`` frames, cosine-blended."""
    batch, frames = shape[:2]
    nodes = rng.standard_normal((batch, frames // knots + 3, *shape[2:]), np.float32)
    at = np.arange(frames) / knots
    low = at.astype(int)
    part = ((1 - np.cos(np.pi * (at - low))) / 2).astype(np.float32)
    part = part.reshape(1, -1, *([1] * (len(shape) - 2)))
    blend = nodes[:, low] * (1 - part) + nodes[:, low + 1] * part
    return blend / np.sqrt(part**2 + (1 - part) ** 2)


def _slips(points: np.ndarray, noise: NoiseModel, rng: np.random.Generator) -> np.ndarray:
    """Displacements (N, T, 17, 2) of limbs drawn elsewhere; points (N, T, 17, 2), all in shares of the stature."""
    batch, frames = points.shape[:2]
    slips = np.zeros(points.shape, np.float32)
    for often, (share, limb) in zip(noise.slip_share * 2, _LIMBS, strict=True):
        other = _FLIP[limb]
        wandering, drawn = (
            runs((batch, frames, 1), often / 2, (4, 40), rng)[..., None].astype(np.float32) for _ in range(2)
        )
        far = np.exp(_uniform(rng, tuple(np.log(noise.slip)), batch))[..., None]
        own = _slow_noise((batch, frames, len(limb), 2), rng, knots=6)
        together = _slow_noise((batch, frames, 1, 2), rng, knots=6)
        pull = rng.uniform(0, 0.5, (batch, 1, 1, 1)).astype(np.float32)
        slips[:, :, limb] += wandering * far * share * (0.8 * together + 0.6 * own)
        slips[:, :, limb] += drawn * pull * share * (points[:, :, other] - points[:, :, limb])
    return slips


def _swap_sides(
    rays: np.ndarray, noise: NoiseModel, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    batch, frames = rays.shape[:2]
    legs = np.isin(np.arange(17), _LEGS)
    whole = runs((batch, frames, 1), noise.swap_share * (1 - noise.legs_only), noise.swap_run, rng)
    lower = runs((batch, frames, 1), noise.swap_share * noise.legs_only, noise.swap_run, rng) & legs
    swapped = whole | lower
    return np.where(swapped[..., None], rays[:, :, _FLIP], rays), swapped


def _scores(
    error: np.ndarray, deviation: np.ndarray, swapped: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Confidences that fall with the error and the local noise level; their scale differs from detector to detector."""
    batch = len(error)
    level = error / 0.02 + deviation / 0.012 + 0.5 * swapped
    scale = rng.uniform(0.3, 1.2, (batch, 1, 1))
    scores = np.exp(-0.5 * scale * level) + rng.normal(0, 0.05, error.shape)
    scores[rng.random(batch) < 0.25] = 1.0  # many files carry no confidence
    return np.clip(scores, 0.05, 1).astype(np.float32)


def _seen(
    rays: np.ndarray, border: np.ndarray, scores: np.ndarray, noise: NoiseModel, rng: np.random.Generator
) -> np.ndarray:
    """Boolean (N, T, 17): which joints the detector reports at all."""
    batch, frames = rays.shape[:2]
    seen = rng.random((batch, frames, 17), np.float32) >= noise.dropout_share
    if noise.gap_share:
        seen &= ~runs((batch, frames, 17), noise.gap_share, (5, 60), rng)
    if noise.blackout_share:
        seen &= ~runs((batch, frames, 1), noise.blackout_share, (1, 25), rng)
    if noise.truncation:
        outside = (np.abs(rays) > _truncating_border(rays, border, noise, rng)).any(-1)
        silent = rng.random((batch, 1, 1)) < 0.6  # else the detector guesses on, without confidence
        seen &= ~(outside & silent)
        scores[outside] *= 0.3
    feet = rng.random((batch, 1)) < noise.feet
    seen[:, :, NUM_CORE:] &= feet[..., None]
    return seen


def _truncating_border(
    rays: np.ndarray, border: np.ndarray, noise: NoiseModel, rng: np.random.Generator
) -> np.ndarray:
    """Half-extents (N, 1, 1, 2): no border for most samples, for the others one that cuts the person."""
    cut = rng.random(len(rays)) < noise.truncation
    reach = np.nanmax(np.abs(rays), axis=(1, 2))
    inner = reach * rng.uniform(0.6, 1.0, reach.shape)
    limit = np.where(cut[:, None], np.minimum(border, inner), np.inf)
    return limit[:, None, None].astype(np.float32)


def _hold_rate(
    rays: np.ndarray, scores: np.ndarray, seen: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every other frame of the chosen samples becomes the mean of its neighbours, as if detected at half the rate."""
    rays, scores, seen = rays.copy(), scores.copy(), seen.copy()
    stop = rays.shape[1] - 1
    odd = np.arange(1, stop, 2)
    rays[np.ix_(where, odd)] = (rays[np.ix_(where, odd - 1)] + rays[np.ix_(where, odd + 1)]) / 2
    scores[np.ix_(where, odd)] = np.minimum(scores[np.ix_(where, odd - 1)], scores[np.ix_(where, odd + 1)])
    seen[np.ix_(where, odd)] = seen[np.ix_(where, odd - 1)] & seen[np.ix_(where, odd + 1)]
    return rays, scores, seen
