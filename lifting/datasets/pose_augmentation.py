"""Poses that motion capture of everyday people lacks: limbs exchanged, joints turned, whole bodies tumbling.

A motion is changed as a chain of rigid bones, so that every bone keeps its length and changes are smooth in time. Poses
are augmented as in PoseAug (Gong et al. 2021, §3.2, bone angles), but at random instead of by a trained network, and
within the reach of joints: elbows and knees turn about their own flexion axis, and a limb comes to point out of a cone
only as far as the motion itself does. Bodies may pass through themselves.

joints: (N samples, T frames, 17, 3) in the layout ``h36m17``; feet: (N, T, 4, 3) in the order of `feet.FEET`, NaN where
unknown. Both are float32 metres in a world with Z up. Nothing is changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from lifting.anatomy import H36M, HEAD, HIP, NECK_NOSE, SPINE, THORAX, frame_from_axes
from lifting.datasets.feet import FEET
from lifting.datasets.mocap import FPS
from lifting.rotations import unit_vectors

LIMBS = ("left_arm", "right_arm", "left_leg", "right_leg")
"""Order of the limbs in masks (N, 4)."""
TURNED = (
    *("left_shoulder", "right_shoulder", "left_hip", "right_hip"),
    *("left_elbow", "right_elbow", "left_knee", "right_knee"),
    *("neck", "spine"),
)
"""Order of the joints in masks (N, 10): the roots of the four limbs, their middles, the trunk."""
LARGEST_FLEXION = float(np.radians(150.0))

_POINTS = (*H36M.joints, *FEET)
# Points of a limb from its root on; an arm has no foot and names its wrist again, so that all limbs have five.
_CHAINS = np.array([
    [_POINTS.index(f"{side}_{part}") for part in parts]
    for parts in (("shoulder", "elbow", "wrist", "wrist", "wrist"), ("hip", "knee", "ankle", "big_toe", "heel"))
    for side in ("left", "right")
])  # fmt: skip
_ARM, _LEG = LIMBS.index("left_arm"), LIMBS.index("left_leg")
_THORAX_AXES = ("left_shoulder", "right_shoulder", "thorax", "spine")  # left, right, top, bottom
_PELVIS_AXES = ("left_hip", "right_hip", "spine", "hip")
_HEAD, _ABOVE_SPINE = slice(NECK_NOSE, HEAD + 1), slice(THORAX, H36M.num_joints)
_GIRDLES = np.array([H36M.indices(points) for points in (*[_THORAX_AXES] * 2, *[_PELVIS_AXES] * 2)])
# In the axes of the thorax or the pelvis, (left, up, forward), one row per limb: where a straight limb bends to, and
# the middle of the directions that its upper bone can take, with the angle from there that it can reach.
_BENDS_TOWARDS = np.array([[-0.5, 0.5, 1], [0.5, 0.5, 1], [0, -1, -1], [0, -1, -1]], np.float32)
_MIDDLE = unit_vectors(np.array([[0.6, 0, 0.8], [-0.6, 0, 0.8], [0.45, -0.6, 0.66], [-0.45, -0.6, 0.66]], np.float32))
_REACH = np.radians(np.array([125, 125, 95, 95], np.float32))
_STRAIGHT = 0.1  # sine of the flexion below which the limb itself hardly says which way it bends


@dataclass(frozen=True)
class PoseRanges:
    """How often and how far poses are changed: shares of samples, degrees, seconds.

    The deviations are those of each axis of the rotation that a whole window shares; at most twice as much is drawn.
    """

    mixed: float = 0.1  # share of each limb that moves as in another sample
    turned: float = 0.5  # samples in which some joints turn
    turned_joints: float = 0.5  # share of each joint in these samples
    shoulder: float = 25.0
    hip: float = 20.0
    elbow: float = 20.0
    knee: float = 20.0
    neck: float = 12.0
    spine: float = 12.0  # flexion, side bending and twist alike
    variation: float = 0.3  # deviation of the slow change around the shared rotation, as a part of that
    period: float = 1.0  # seconds between independent values of the slow change
    tumbling: float = 0.1  # samples turned about a horizontal axis, by any angle
    tumble_rate: float = 60.0  # deviation of their further turning, degrees per second


def augment_poses(
    joints: np.ndarray, feet: np.ndarray, rng: np.random.Generator, ranges: PoseRanges, fps: float = FPS
) -> tuple[np.ndarray, np.ndarray]:
    """Exchanges limbs, turns joints and lets bodies tumble, each for its share of samples; arrays as in the module."""
    batch = len(joints)
    joints, feet = mix_limbs(joints, feet, rng.random((batch, len(LIMBS))) < ranges.mixed, rng)
    turned = (rng.random((batch, 1)) < ranges.turned) & (rng.random((batch, len(TURNED))) < ranges.turned_joints)
    joints, feet = turn_joints(joints, feet, turned, ranges, rng, fps)
    return tumble(joints, feet, rng.random(batch) < ranges.tumbling, ranges, rng, fps)


def mix_limbs(
    joints: np.ndarray, feet: np.ndarray, where: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Gives the chosen limbs (N, 4) the directions of the same limb of a random sample.

    Directions are taken in the axes of the thorax (arms) or the pelvis (legs). Bones keep their own lengths, and a foot
    its pose relative to the shank.
    """
    body = np.concatenate([joints, feet], axis=2)
    sample, limb = np.nonzero(where)
    mine, theirs = _Limbs(body, sample, limb), _Limbs(body, rng.integers(len(joints), size=len(sample)), limb)
    mine.lower = mine.lower @ mine.lower_frames() @ theirs.lower_frames().swapaxes(-1, -2)
    mine.upper = unit_vectors(theirs.upper) * np.linalg.norm(mine.upper, axis=-1, keepdims=True)
    mine.attach(body)
    return _split(body)


def turn_joints(
    joints: np.ndarray,
    feet: np.ndarray,
    where: np.ndarray,
    ranges: PoseRanges,
    rng: np.random.Generator,
    fps: float = FPS,
) -> tuple[np.ndarray, np.ndarray]:
    """Turns the chosen joints (N, 10), in the order of `TURNED`, by smooth random rotations, and what hangs on them.

    Limits hold in the axes of the trunk as the motion has it, so the trunk turns last.
    """
    body = np.concatenate([joints, feet], axis=2)
    deviation = np.radians([getattr(ranges, name.split("_")[-1]) for name in TURNED]).astype(np.float32) * where
    draw = partial(_smooth_curves, frames=body.shape[1], ranges=ranges, fps=fps, rng=rng)
    roots, middles, neck, spine = np.split(deviation, [4, 8, 9], axis=1)
    chosen = np.nonzero(roots + middles)
    limbs = _Limbs(body, *chosen)
    limbs.flex(draw(middles[chosen], axes=1)[..., 0])
    limbs.swing(draw(roots[chosen], axes=3))
    limbs.attach(body)
    for turned, joint in ((neck, (THORAX, _HEAD, _ARM)), (spine, (SPINE, _ABOVE_SPINE, _LEG))):
        sample = np.flatnonzero(turned)
        _turn_trunk(body, sample, draw(turned[sample, 0], axes=3), *joint)
    return _split(body)


def tumble(
    joints: np.ndarray,
    feet: np.ndarray,
    where: np.ndarray,
    ranges: PoseRanges,
    rng: np.random.Generator,
    fps: float = FPS,
) -> tuple[np.ndarray, np.ndarray]:
    """Turns the chosen samples (N,) about a horizontal axis through the root, by any angle and steadily on.

    The path of the root is kept but for its height: the lowest joint of the window comes as low as it was.
    """
    body = np.concatenate([joints, feet], axis=2)
    sample = np.flatnonzero(where)
    part = body[sample]
    heading, start = rng.uniform(-np.pi, np.pi, (2, len(sample), 1))
    rate = rng.normal(0, np.radians(ranges.tumble_rate) / fps, (len(sample), 1))
    angle = start + rate * np.arange(body.shape[1])
    rotvec = np.stack([angle * np.cos(heading), angle * np.sin(heading), 0 * angle], axis=-1)
    root = part[:, :, HIP, None]
    turned = root + _rotate(rotvec.astype(np.float32), part - root)
    was, now = (bodies[:, :, : H36M.num_joints, 2].min((1, 2)) for bodies in (part, turned))
    turned[..., 2] += (was - now)[:, None, None]
    body[sample] = turned
    return _split(body)


class _Limbs:
    """M chosen limbs, each a sample of (N, T, 21, 3) bodies and a row of `LIMBS`, in the axes of their girdles.

    girdle: (M, T, 3, 3) columns (left, up, forward) of the thorax or the pelvis, its axes in the world. upper:
    (M, T, 3) from the root of the limb to its middle. lower: (M, T, 3, 3) from there to its end, the toe and the heel.
    """

    def __init__(self, body: np.ndarray, sample: np.ndarray, limb: np.ndarray) -> None:
        self.sample, self.limb = sample, limb
        self.girdle = _girdle_frames(body, sample, limb)
        points = body[sample[:, None], :, _CHAINS[limb]]
        bones = (points[:, [1, 2, 3, 4]] - points[:, [0, 1, 1, 1]]).swapaxes(1, 2) @ self.girdle
        self.upper, self.lower = bones[:, :, 0], bones[:, :, 1:]

    def attach(self, body: np.ndarray) -> None:
        """Writes the limbs into bodies in place, from their roots on."""
        chain = _CHAINS[self.limb]
        bones = np.concatenate([self.upper[:, :, None], self.upper[:, :, None] + self.lower], axis=2)
        placed = (bones @ self.girdle.swapaxes(-1, -2)).swapaxes(1, 2)
        body[self.sample[:, None], :, chain[:, 1:]] = placed + body[self.sample[:, None], :, chain[:, :1]]

    def flexion_axes(self) -> np.ndarray:
        """Unit axes (M, T, 3), square to the upper bones, that elbows and knees bend about.

        The normal of the plane of both bones; where a limb is almost straight, where such limbs bend to counts too.
        """
        upper = unit_vectors(self.upper)
        normal = np.cross(upper, unit_vectors(self.lower[:, :, 0]))
        usual = unit_vectors(np.cross(upper, _BENDS_TOWARDS[self.limb][:, None]))
        doubt = _STRAIGHT * np.exp(-_dot(normal, normal) / (2 * _STRAIGHT**2))
        return unit_vectors(normal + doubt[..., None] * usual)

    def lower_frames(self) -> np.ndarray:
        """Axes (M, T, 3, 3) of forearms and shanks: near the flexion axis, along the bone, square to both."""
        return frame_from_axes(self.flexion_axes(), self.lower[:, :, 0])

    def flex(self, change: np.ndarray) -> None:
        """Bends elbows and knees by angles (M, T), which fade before a limb is straight or bent the most it can be."""
        axis, lower = self.flexion_axes(), self.lower[:, :, 0]
        flexion = np.arctan2(_dot(np.cross(self.upper, lower), axis), _dot(self.upper, lower))
        change = _faded(change, LARGEST_FLEXION - flexion) - _faded(-change, flexion)
        self.lower = _rotate(axis * change[..., None], self.lower)

    def swing(self, rotvec: np.ndarray) -> None:
        """Turns limbs about their roots by rotation vectors (M, T, 3); what leads out of their reach fades."""
        middle, reach = _MIDDLE[self.limb][:, None], _REACH[self.limb][:, None]
        bones = _rotate(rotvec, np.concatenate([self.upper[:, :, None], self.lower], axis=2))
        before, after = _angles(self.upper, middle), _angles(bones[:, :, 0], middle)
        excess = np.maximum(after - before, 0) - _faded(after - before, reach - before)
        back = unit_vectors(np.cross(bones[:, :, 0], middle)) * excess[..., None]
        bones = _rotate(back, bones)
        self.upper, self.lower = bones[:, :, 0], bones[:, :, 1:]


def _turn_trunk(
    body: np.ndarray, sample: np.ndarray, rotvec: np.ndarray, pivot: int, carried: slice, limb: int
) -> None:
    """Turns the chosen samples' carried joints about the pivot, in place.

    rotvec: (M, T, 3) in the axes of the girdle of a limb.
    """
    part = body[sample]
    girdle = _girdle_frames(body, sample, np.full(len(sample), limb))
    start = part[:, :, pivot, None]
    part[:, :, carried] = start + _rotate((girdle @ rotvec[..., None])[..., 0], part[:, :, carried] - start)
    body[sample] = part


def _girdle_frames(body: np.ndarray, sample: np.ndarray, limb: np.ndarray) -> np.ndarray:
    """Rotations (M, T, 3, 3), columns (left, up, forward), of the thorax or pelvis that limbs hang on."""
    left, right, top, bottom = body[sample[:, None], :, _GIRDLES[limb]].swapaxes(0, 1)
    return frame_from_axes(left - right, top - bottom)


def _split(body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return body[:, :, : H36M.num_joints], body[:, :, H36M.num_joints :]


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("...i,...i->...", a, b)


def _angles(vectors: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Angles between vectors of any length and unit vectors."""
    cosine = _dot(unit_vectors(vectors), directions)
    return np.arccos(np.clip(cosine, -1, 1))


def _faded(change: np.ndarray, room: np.ndarray) -> np.ndarray:
    """The positive part of a change, all of it while small, but never more than the room there is."""
    room = np.maximum(room, 1e-6)
    return room * -np.expm1(-np.maximum(change, 0) / room)


def _rotate(rotvec: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., K, 3), all turned by the rotation vector (..., 3), in float32.

    Rodrigues' formula by quaternions; `rotvec_to_matrix`, exact to float64, takes ten times as long.
    """
    half = np.sqrt(_dot(rotvec, rotvec)) / 2
    w = np.cos(half)
    x, y, z = np.moveaxis(rotvec * (np.sinc(half / np.pi) / 2)[..., None], -1, 0)
    transposed = np.empty((*w.shape, 3, 3), np.float32)
    transposed[..., 0, 0], transposed[..., 1, 1], transposed[..., 2, 2] = (
        1 - 2 * (y * y + z * z), 1 - 2 * (x * x + z * z), 1 - 2 * (x * x + y * y)
    )  # fmt: skip
    transposed[..., 0, 1], transposed[..., 1, 0] = 2 * (x * y + w * z), 2 * (x * y - w * z)
    transposed[..., 0, 2], transposed[..., 2, 0] = 2 * (x * z - w * y), 2 * (x * z + w * y)
    transposed[..., 1, 2], transposed[..., 2, 1] = 2 * (y * z + w * x), 2 * (y * z - w * x)
    return vectors @ transposed


def _smooth_curves(
    deviation: np.ndarray, axes: int, frames: int, ranges: PoseRanges, fps: float, rng: np.random.Generator
) -> np.ndarray:
    """Random curves (M, frames, axes) of the given deviations (M,): a shared value, and a slow change around it."""
    basis = _spline_basis(frames, ranges.period * fps)
    shared = np.clip(rng.standard_normal((len(deviation), 1, axes), np.float32), -2, 2)
    change = basis @ rng.standard_normal((len(deviation), basis.shape[1], axes), np.float32)
    return (shared + np.float32(ranges.variation) * change) * deviation[:, None, None]


@lru_cache(maxsize=8)
def _spline_basis(frames: int, spacing: float) -> np.ndarray:
    """Weights (frames, knots) of a uniform cubic B-spline, scaled so that unit variance stays unit variance."""
    at = np.arange(frames) / spacing
    distance = np.abs(at[:, None] - np.arange(-1, int(at[-1]) + 3))
    weights = np.where(distance < 1, 4 - 6 * distance**2 + 3 * distance**3, np.maximum(2 - distance, 0) ** 3)
    return (weights / np.linalg.norm(weights, axis=-1, keepdims=True)).astype(np.float32)
