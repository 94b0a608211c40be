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
from lifting.skeletons import get_skeleton

H36M = get_skeleton("h36m17")
JOINTS = len(H36M.joints) - 1  # beside the root
OUTPUTS = 3 * JOINTS + 3
FEATURES = OUTPUTS + JOINTS
SIGMA_UNIT = 0.1  # metres
SIGMA_OF_TRUTH = 0.01  # metres: what is said of a motion that was not lifted
_FLIP = np.array(H36M.flip)
_FIELDS = ("joints", "root", "seen_joints", "seen_root", "seen_sigma")


@dataclass(frozen=True, eq=False)
class FuturePiece:
    """One motion at 25 frames per second, world axes, metres.

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
    points = np.concatenate([joints[:, :, 1:], (root - origin[:, None])[:, :, None]], 2)
    turned = points.reshape(len(points), -1, 3) @ np.swapaxes(heading.rotation, 1, 2).astype(points.dtype)
    return turned.reshape(*root.shape[:2], OUTPUTS)


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
class Variation:
    """How drawn pairs differ from the motion they come from.

    mirrored and reversed: share of pairs. speed and size: largest change, as a share either way. exact: share of pairs
    whose past is the truth instead of what a lifter saw.
    """

    mirrored: float = 0.5
    reversed: float = 0.1
    speed: float = 0.25
    size: float = 0.1
    exact: float = 0.15


class FutureWindows:
    """Random pairs from pieces, varied; a pure function of the batch size and the generator.

    Raises ValueError when no piece is long enough for one pair.
    """

    def __init__(self, pieces: Sequence[FuturePiece], context: int = 25, future: int = 25,
                 variation: Variation = Variation()) -> None:  # noqa: B008 frozen
        self.context, self.future, self.variation = context, future, variation
        long = [piece for piece in pieces if len(piece) >= context + future]
        if not long:
            raise ValueError(f"got no piece of at least {context + future} frames; give longer motion.")
        self._lengths = np.array([len(piece) for piece in long])
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._arrays = [np.concatenate([getattr(piece, field) for piece in long]) for field in _FIELDS]

    def __call__(self, batch: int, rng: np.random.Generator) -> FutureBatch:
        """Draws a batch of pairs."""
        how = self.variation
        joints, root, seen_joints, seen_root, sigma = self._read(self._draw_times(batch, rng))
        exact = rng.random(batch) < how.exact
        seen_joints[exact], seen_root[exact], sigma[exact] = joints[exact], root[exact], SIGMA_OF_TRUTH
        size = np.exp(np.log1p(how.size) * rng.uniform(-1, 1, batch)).astype(np.float32)
        for array in (joints, root, seen_joints, seen_root, sigma):
            array *= size.reshape(-1, *[1] * (array.ndim - 1))
        _mirror(rng.random(batch) < how.mirrored, joints, root, seen_joints, seen_root, sigma)
        return encode_windows(joints, root, seen_joints, seen_root, sigma, self.context)

    def _draw_times(self, batch: int, rng: np.random.Generator) -> np.ndarray:
        """Places of frames (N, Tc + Tf) in the arrays, whole numbers where the speed is not changed."""
        how, steps = self.variation, self.context + self.future - 1
        places = self._lengths - steps
        piece = rng.choice(len(places), size=batch, p=places / places.sum())
        rate = np.where(rng.random(batch) < 0.5, 1.0, np.exp(np.log1p(how.speed) * rng.uniform(-1, 1, batch)))
        rate = np.minimum(rate, (self._lengths[piece] - 1) / steps)
        start = rng.random(batch) * (self._lengths[piece] - rate * steps)
        start = np.minimum(np.floor(start), self._lengths[piece] - 1 - rate * steps)
        times = self._starts[piece, None] + start[:, None] + rate[:, None] * np.arange(steps + 1)
        backwards = rng.random(batch) < how.reversed
        return np.where(backwards[:, None], times[:, ::-1], times)

    def _read(self, times: np.ndarray) -> list[np.ndarray]:
        """The arrays at places (N, T), between frames by linear interpolation."""
        before = np.floor(times + 1e-9).astype(np.int64)
        share = np.maximum(times - before, 0).astype(np.float32)
        after, read = np.minimum(before + 1, self._lengths.sum() - 1), []
        for array in self._arrays:
            one, other = array[before], array[after]
            other -= one
            other *= share.reshape(*share.shape, *[1] * (array.ndim - 1))
            read.append(one + other)
        return read


def encode_windows(joints: np.ndarray, root: np.ndarray, seen_joints: np.ndarray, seen_root: np.ndarray,
                   sigma: np.ndarray, context: int) -> FutureBatch:  # fmt: skip
    """A batch from whole windows (N, Tc + Tf, ...) of truth and of what was seen, the first `context` frames the past.

    The way of the root is that of the truth: where the lift was last is not what the future is relative to.
    """
    past, after = slice(context), slice(context, None)
    features, heading = encode_context(seen_joints[:, past], seen_root[:, past], sigma[:, past])
    target = seen_from(joints[:, after], root[:, after], root[:, context - 1], heading)
    return FutureBatch(features, (target - features[:, -1:, :OUTPUTS]).astype(np.float32))


def _mirror(where: np.ndarray, joints, root, seen_joints, seen_root, sigma) -> None:  # noqa: ANN001
    sign = np.array([-1, 1, 1], np.float32)
    for poses in (joints, seen_joints):
        poses[where] = poses[where][:, :, _FLIP] * sign
    for roots in (root, seen_root):
        roots[where] = roots[where] * sign
    sigma[where] = sigma[where][:, :, _FLIP]
