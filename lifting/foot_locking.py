"""Bones of constant length, and feet that stay where they stand.

Lifted feet slide: the depth of a person errs slowly, by centimetres. A foot that is known to stand tells this error. In
a first step the whole path is corrected so that standing feet hardly move and are level with the floor, as far as the
camera's own evidence allows (`correct_path`). What is left, a pixel's error of a foot against the root, moves the foot
alone, and its leg follows by inverse kinematics (`lock_feet`). Both are linear least squares over the whole clip:
banded systems, no delay, no jumps at the ends of a contact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded

from lifting.skeletons import Skeleton

SIDES = ("left", "right")
NEARLY_STRAIGHT = 0.9995  # of the leg's length: the knee of a leg at its full length would bend anywhere
EASED = 0.96  # of the leg's length, from which a pull lengthens it less and less: knees would snap straight


@dataclass(frozen=True)
class LockingConfig:
    """Error levels, metres and seconds: what each term is divided by."""

    slip: float = 0.03  # m/s, of a foot that stands
    height: float = 0.05  # of a standing foot over the floor
    reach: float = 0.15  # feet that stand farther off the floor stand on something else
    across: float = 0.02  # of the path, at right angles to the view, for `memory` seconds
    along: float = 0.15  # of the path, along the view
    foot: float = 0.04  # of a foot, beside the path
    acceleration: float = 30.0  # m/s^2, of the corrections
    memory: float = 0.5  # seconds for which such errors last


def hold_bone_lengths(joints: np.ndarray, skeleton: Skeleton, lengths: np.ndarray | None = None) -> np.ndarray:
    """Joints (T, J, 3) relative to the root with every bone at one length, directions kept.

    lengths: (J,) metres of the bone that ends in each joint; default: their `median_lengths`.
    """
    held = np.zeros_like(joints)
    held[:, skeleton.parents.index(-1)] = joints[:, skeleton.parents.index(-1)]
    lengths = median_lengths(joints, skeleton) if lengths is None else lengths
    for parent, child in _from_the_root(skeleton):
        bone = joints[:, child] - joints[:, parent]
        size = np.linalg.norm(bone, axis=-1, keepdims=True)
        held[:, child] = held[:, parent] + bone * (lengths[child] / np.maximum(size, 1e-9))
    return held


def median_lengths(joints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Length (J,) metres of the bone that ends in each joint, its median over joints (T, J, 3); 0 for the root."""
    lengths = np.zeros(skeleton.num_joints)
    for parent, child in skeleton.bones:
        lengths[child] = np.median(np.linalg.norm(joints[:, child] - joints[:, parent], axis=-1))
    return (lengths + lengths[list(skeleton.flip)]) / 2


def _from_the_root(skeleton: Skeleton) -> list[tuple[int, int]]:
    """The bones, each after the one that its parent ends."""
    waiting, known, ordered = list(skeleton.bones), {skeleton.parents.index(-1)}, []
    while waiting:
        ready = [bone for bone in waiting if bone[0] in known]
        ordered += ready
        known |= {child for _, child in ready}
        waiting = [bone for bone in waiting if bone not in ready]
    return ordered


def correct_path(
    feet: np.ndarray,
    standing: np.ndarray,
    view: np.ndarray,
    fps: float,
    clearance: float,
    config: LockingConfig | None = None,
) -> np.ndarray:
    """Offsets (T, 3) metres, for a whole person in world axes, with which standing feet hardly move.

    feet: (T, F, 3) metres, Z up, floor at 0. standing: (T, F) probabilities. view: (T, 3) unit vectors from the camera
    to the person, along which the path is known least. clearance: metres over the floor at which feet stand.
    """
    config = config or LockingConfig()
    beside = 1 / config.across**2
    along = 1 / config.along**2
    trust = beside * np.eye(3) + (along - beside) * view[:, :, None] * view[:, None]
    return _offsets(feet, standing, trust, fps, clearance, config)


def lock_feet(
    joints: np.ndarray,
    skeleton: Skeleton,
    standing: np.ndarray,
    fps: float,
    clearance: float,
    config: LockingConfig | None = None,
) -> np.ndarray:
    """Joints (T, J, 3) metres, Z up, with feet that stay where they stand; the legs keep their lengths.

    standing: (T, 2), the left and the right foot. clearance: metres over the floor at which ankles stand.
    """
    config, locked = config or LockingConfig(), joints.copy()
    trust = np.broadcast_to(np.eye(3) / config.foot**2, (len(joints), 3, 3))
    forward = _forward(joints, skeleton)
    for side, stands in zip(SIDES, standing.T, strict=True):
        leg = list(skeleton.indices([f"{side}_{part}" for part in ("hip", "knee", "ankle")]))
        offset = _offsets(joints[:, leg[2:]], stands[:, None], trust, fps, clearance, config)
        locked[:, leg[1:]] = bend_leg(joints[:, leg], joints[:, leg[2]] + offset, forward)
    return locked


def bend_leg(leg: np.ndarray, target: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Knee and ankle (T, 2, 3) of a leg (T, 3, 3) of hip, knee and ankle whose ankle goes to a target (T, 3).

    The knee stays in its plane; where the leg is straight it bends to `forward` (T, 3). A target that would stretch the
    leg is approached less and less the straighter the leg is, and no farther than the leg is long.
    """
    hip, knee, ankle = leg[:, 0], leg[:, 1], leg[:, 2]
    thigh, shin = np.linalg.norm(knee - hip, axis=-1), np.linalg.norm(ankle - knee, axis=-1)
    far = np.linalg.norm(target - hip, axis=-1)
    reach = np.maximum(_eased(far, np.linalg.norm(ankle - hip, axis=-1), thigh + shin), np.abs(thigh - shin) + 1e-6)
    axis = (target - hip) / np.maximum(far, 1e-9)[:, None]
    along = (reach**2 + thigh**2 - shin**2) / (2 * reach)
    aside = np.sqrt(np.maximum(thigh**2 - along**2, 0.0))
    pole = (knee - hip) + 0.02 * forward
    pole = pole - axis * (pole * axis).sum(-1, keepdims=True)
    pole = pole / np.maximum(np.linalg.norm(pole, axis=-1, keepdims=True), 1e-9)
    new_knee = hip + axis * along[:, None] + pole * aside[:, None]
    return np.stack([new_knee, hip + axis * reach[:, None]], axis=1)


def _eased(wanted: np.ndarray, now: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Distances (T,) from hip to ankle for wanted ones, which end at the leg's length without a kink.

    Up to where the leg is now, or to a bent leg, they are what is wanted (soft limits of inverse kinematics).
    """
    limit = np.maximum(NEARLY_STRAIGHT * length, now)
    start = np.minimum(np.maximum(EASED * length, now), limit)
    slack = np.maximum(limit - start, 1e-9)
    return np.where(wanted <= start, wanted, start + slack * -np.expm1(-np.maximum(wanted - start, 0) / slack))


def _forward(joints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(T, 3) unit vectors to where the pelvis faces: level, at right angles to the line of the hips."""
    across = joints[:, skeleton.index("left_hip")] - joints[:, skeleton.index("right_hip")]
    forward = np.cross(across, [0.0, 0.0, 1.0])
    return forward / np.maximum(np.linalg.norm(forward, axis=-1, keepdims=True), 1e-9)


def _offsets(
    feet: np.ndarray, standing: np.ndarray, trust: np.ndarray, fps: float, clearance: float, config: LockingConfig
) -> np.ndarray:
    """Offsets (T, 3) that trade standing still, standing on the floor, small and even corrections.

    Minimises sum p (v + o')^2 / slip^2 + p (z + o_z - clearance)^2 / height^2 + o A o + o''^2 / acceleration^2 with
    standing p, velocities v and trust A (T, 3, 3), all but the last per second of `memory`.
    """
    frames = len(feet)
    share = 1 / (fps * config.memory)
    still = standing[1:] * standing[:-1] * (share * (fps / config.slip) ** 2)
    pull = still.sum(-1)
    push = -np.einsum("tf,tfc->tc", still, np.diff(feet, axis=0))
    lift = feet[..., 2] - clearance
    level = standing * share / config.height**2 / (1 + (lift / config.reach) ** 2) ** 2
    blocks = trust * share
    blocks[:, 2, 2] += level.sum(-1)
    right = np.zeros((frames, 3))
    right[:, 2] -= (level * lift).sum(-1)
    right[1:] += push
    right[:-1] -= push
    bend = share * (fps**2 / config.acceleration) ** 2
    return _solve(blocks, pull, bend, right)


def _solve(blocks: np.ndarray, pull: np.ndarray, bend: float, right: np.ndarray) -> np.ndarray:
    """Solves (blocks + D1' pull D1 + bend D2' D2) x = right for x (T, 3): a banded system, x frame after frame."""
    frames = len(blocks)
    band = np.zeros((7, 3 * frames))  # upper form: band[6 + i - j, j] = A[i, j]
    diagonal = np.zeros(frames)
    diagonal[1:] += pull
    diagonal[:-1] += pull
    if frames > 2:
        diagonal[:-2] += bend
        diagonal[1:-1] += 4 * bend
        diagonal[2:] += bend
        band[0, 6:] = bend
        next_ = -pull.copy()
        next_[:-1] -= 2 * bend
        next_[1:] -= 2 * bend
        band[3, 3:] = np.repeat(next_, 3)
    elif frames == 2:
        band[3, 3:] = -np.repeat(pull, 3)
    band[6] = (blocks[:, range(3), range(3)] + diagonal[:, None]).ravel()
    band[5, 1::3], band[5, 2::3] = blocks[:, 0, 1], blocks[:, 1, 2]
    band[4, 2::3] = blocks[:, 0, 2]
    return solveh_banded(band[-min(7, 3 * frames):], right.ravel(), check_finite=False).reshape(-1, 3)
