"""Pieces of motion as pairs of a past and a future, seen from the person: what the predictors learn from.

A piece holds the true motion and, where it was lifted from noisy keypoints, the lifted one, both in world axes (+z up)
at one frame rate. Inputs come from the lifted motion, targets from the true one: a predictor learns to see through the
errors of the lift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lifting.headings import Heading, heading_of
from lifting.models.future import JOINTS, OUTPUTS
from lifting.skeletons import get_skeleton

H36M = get_skeleton("h36m17")
FPS = 25.0
SIGMA_UNIT = 0.1  # metres
SIGMA_OF_TRUTH = 0.01  # metres: what is said of a motion that was not lifted
_FLIP = np.array(H36M.flip)


@dataclass(frozen=True, eq=False)
class FuturePiece:
    """One motion at `FPS` frames per second, world axes, metres.

    joints (T, 17, 3) relative to the root and root (T, 3): the truth. seen_joints, seen_root, seen_sigma (T, 17): what
    a lifter made of it; the truth itself with a small sigma where it was not lifted.
    """

    name: str
    joints: np.ndarray
    root: np.ndarray
    seen_joints: np.ndarray
    seen_root: np.ndarray
    seen_sigma: np.ndarray

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.joints)

    @classmethod
    def exact(cls, name: str, joints: np.ndarray, root: np.ndarray) -> FuturePiece:
        """A piece whose past is known exactly."""
        return cls(name, joints, root, joints, root, np.full(joints.shape[:2], SIGMA_OF_TRUTH, np.float32))


@dataclass(frozen=True, eq=False)
class FutureBatch:
    """N pairs, float32. features: (N, Tc, FEATURES). target: (N, Tf, OUTPUTS), relative to the last seen pose."""

    features: np.ndarray
    target: np.ndarray


def encode_context(joints: np.ndarray, root: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, Heading]:
    """A past as a predictor sees it, and the heading of its last frame.

    joints: (N, Tc, 17, 3) metres relative to the root, root: (N, Tc, 3), world axes; sigma: (N, Tc, 17) metres. Returns
    features (N, Tc, FEATURES): the joints and the root's way to its last place, seen from the person in the last frame,
    and the logarithm of sigma.
    """
    heading = heading_of(joints[:, -1], root[:, -1])
    points = seen_from(joints, root, root[:, -1], heading)
    doubt = np.log(np.maximum(sigma[..., 1:], 1e-3) / SIGMA_UNIT)
    return np.concatenate([points, doubt], -1).astype(np.float32), heading


def seen_from(joints: np.ndarray, root: np.ndarray, origin: np.ndarray, heading: Heading) -> np.ndarray:
    """Poses (N, T, 17, 3) and roots (N, T, 3) as (N, T, OUTPUTS) in a heading, the root relative to origin (N, 3)."""
    turn = heading.rotation
    turned = np.einsum("nij,ntkj->ntki", turn, joints[:, :, 1:])
    way = np.einsum("nij,ntj->nti", turn, root - origin[:, None])
    return np.concatenate([turned.reshape(*turned.shape[:2], 3 * JOINTS), way], -1)


def decode_future(values: np.ndarray, features: np.ndarray, origin: np.ndarray, heading: Heading,
                  ) -> tuple[np.ndarray, np.ndarray]:
    """What a predictor says as joints (N, Tf, 17, 3) relative to the root and root (N, Tf, 3), world axes, metres.

    values: (N, Tf, OUTPUTS), relative to the last seen pose; features: of the past; origin: (N, 3), its last root.
    """
    values = values + features[:, -1:, :OUTPUTS]
    turned = values[..., : 3 * JOINTS].reshape(*values.shape[:2], JOINTS, 3)
    joints = np.einsum("nji,ntkj->ntki", heading.rotation, turned)
    joints = np.concatenate([np.zeros_like(joints[:, :, :1]), joints], 2)
    return joints, np.einsum("nji,ntj->nti", heading.rotation, values[..., 3 * JOINTS :]) + origin[:, None]


@dataclass(frozen=True)
class FutureWindows:
    """Random pairs from pieces, a pure function of the batch size and the generator; mirrored half of the time.

    Raises ValueError when no piece is long enough for one pair.
    """

    pieces: Sequence[FuturePiece]
    context: int = 25
    future: int = 25

    def __post_init__(self) -> None:
        if not any(len(piece) >= self.context + self.future for piece in self.pieces):
            raise ValueError(f"got no piece of at least {self.context + self.future} frames; give longer motion.")

    def __call__(self, batch: int, rng: np.random.Generator) -> FutureBatch:
        """Draws a batch of pairs."""
        length = self.context + self.future
        places = np.array([max(len(piece) - length + 1, 0) for piece in self.pieces], np.float64)
        pairs = []
        for k in rng.choice(len(places), size=batch, p=places / places.sum()):
            start = rng.integers(int(places[k]))
            pairs.append(_cut(self.pieces[k], start, length))
        joints, root, seen_joints, seen_root, sigma = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        _mirror(rng.random(batch) < 0.5, joints, root, seen_joints, seen_root, sigma)
        return self.encode(joints, root, seen_joints, seen_root, sigma)

    def encode(self, joints, root, seen_joints, seen_root, sigma) -> FutureBatch:  # noqa: ANN001
        """A batch of whole windows (N, Tc + Tf, ...) of truth and of what was seen."""
        past = slice(self.context)
        features, heading = encode_context(seen_joints[:, past], seen_root[:, past], sigma[:, past])
        after = slice(self.context, None)
        # The way of the root is that of the truth: where the lift was last is not what the future is relative to.
        target = seen_from(joints[:, after], root[:, after], root[:, self.context - 1], heading)
        return FutureBatch(features, (target - features[:, -1:, :OUTPUTS]).astype(np.float32))


def _cut(piece: FuturePiece, start: int, length: int) -> tuple[np.ndarray, ...]:
    arrays = (piece.joints, piece.root, piece.seen_joints, piece.seen_root, piece.seen_sigma)
    return tuple(array[start : start + length] for array in arrays)


def _mirror(where: np.ndarray, joints, root, seen_joints, seen_root, sigma) -> None:  # noqa: ANN001
    sign = np.array([-1, 1, 1], np.float32)
    for poses in (joints, seen_joints):
        poses[where] = poses[where][:, :, _FLIP] * sign
    for roots in (root, seen_root):
        roots[where] = roots[where] * sign
    sigma[where] = sigma[where][:, :, _FLIP]
