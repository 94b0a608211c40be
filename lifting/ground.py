"""Where up is and where the floor is, in the axes of a camera that does not move.

Three things tell the direction against gravity, each with an honest weight:
- the floor: foot points in contact lie in one plane. Strong across the area that was walked on, blind across a line;
- balance: whoever stands or walks has, in the mean over time, the centre of mass above the feet;
- the camera: most are held upright, which matters only where the person shows nothing.
All three are Gaussian statements about a unit vector; a few Gauss-Newton steps combine them and give its uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifting.contacts import clearances, contact_probabilities, foot_points
from lifting.keypoints import check_fps
from lifting.rotations import rotation_between, unit_vectors
from lifting.skeletons import Skeleton, get_skeleton

CAMERA_UP = (0.0, -1.0, 0.0)
"""Up in the axes of a camera held upright (+y is down)."""

ANKLE_TO_SUPPORT = 0.07
"""How far ahead of the ankles the weight rests while standing and walking, in lengths of the leg."""

# Shares of the body's mass at the joints of usual layouts, each segment's shared out between its ends, after de Leva,
# "Adjustments to Zatsiorsky-Seluyanov's segment inertia parameters", J. Biomechanics 1996.
_MASSES = {
    "head": 0.08, "thorax": 0.20, "neck": 0.20, "spine": 0.14, "shoulder": 0.015, "elbow": 0.022, "wrist": 0.014,
    "hip": 0.12, "knee": 0.09, "ankle": 0.03,
}  # fmt: skip


@dataclass(frozen=True)
class GroundConfig:
    """Error levels, metres and degrees: what each statement is divided by."""

    height: float = 0.04  # of a foot's height in one contact (lifts drift slowly: a contact counts once, not per frame)
    outlier: float = 3.0  # Geman-McClure scale of contacts, in `height`
    balance: float = 6.0  # degrees, of the balance direction in one second of standing or walking
    posture: float = 4.0  # degrees, of the mean of any number of them: habits of the person, bias of the lift
    flatness: float = 1.5  # degrees, of the plane through any number of contacts: common errors of the lift
    camera: float = 30.0  # degrees, by which cameras are tilted: the statement of last resort
    contact_time: float = 0.5  # seconds: frames of one contact so far apart count as two
    iterations: int = 10


@dataclass(frozen=True, eq=False)
class Ground:
    """A floor: the points x with ``up . x = offset``.

    Attributes:
        up: (3,) unit vector against gravity, in the frame of the motion (camera axes).
        offset: metres.
        sigma_degrees: standard deviation of the direction of `up` about its least certain axis.
        source: what decided: ``contacts``, ``balance``, ``camera`` or, where given by the user, another word.

    Raises ValueError for an `up` that is no direction and an offset that is not finite.
    """

    up: np.ndarray
    offset: float
    sigma_degrees: float = 0.0
    source: str = "given"

    def __post_init__(self) -> None:
        """Make `up` a unit vector."""
        up = np.asarray(self.up, dtype=np.float64)
        if up.shape != (3,) or not np.isfinite(up).all() or not np.linalg.norm(up) > 1e-12:
            raise ValueError(f"up must be a direction of 3 finite numbers, not all zero, got {up.tolist()}.")
        if not np.isfinite(self.offset):
            raise ValueError(f"the offset of a floor must be finite, got {self.offset}.")
        object.__setattr__(self, "up", up / np.linalg.norm(up))
        object.__setattr__(self, "offset", float(self.offset))

    def height(self, points: np.ndarray) -> np.ndarray:
        """Heights (...,) metres over the floor of points (..., 3)."""
        return points @ self.up - self.offset

    def world(self, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotation R (3, 3) and translation t (3,) to world axes, ``x_world = R x + t``.

        World: Z up, its origin on the floor under `origin` (3,) (usually the first root), +Y away from the camera along
        the floor, +X to the camera's right. A camera that looks straight down has its picture's top at +Y.
        """
        upright = rotation_between(self.up, CAMERA_UP)  # turns up onto the camera's -y
        forward = upright @ np.array([0.0, 0.0, 1.0])
        forward = upright.T @ np.array([forward[0], 0.0, forward[2]])
        if np.linalg.norm(forward) < 1e-3:
            forward = np.array(CAMERA_UP) - self.up * (self.up @ np.array(CAMERA_UP))
        forward = forward / np.linalg.norm(forward)
        rotation = np.stack([np.cross(forward, self.up), forward, self.up])
        foot = np.asarray(origin, dtype=np.float64) - self.up * self.height(np.asarray(origin, dtype=np.float64))
        return rotation, -rotation @ foot

    def to_world(self, points: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Points (..., 3) in world axes, metres; see `world`."""
        rotation, translation = self.world(origin)
        return np.asarray(points) @ rotation.T + translation


def estimate_ground(
    joints: np.ndarray,
    skeleton: Skeleton | str,
    fps: float,
    *,
    feet: np.ndarray | None = None,
    clearance: np.ndarray | float | None = None,
    contact: np.ndarray | None = None,
    sigma: np.ndarray | None = None,
    config: GroundConfig | None = None,
) -> Ground:
    """Gravity and floor from one person's motion in front of a static camera.

    Args:
        joints: (T, J, 3) metres in camera axes, trajectory included; NaN where absent.
        skeleton: layout of the J joints.
        fps: frames per second.
        feet: (T, F, 3) metres, foot points; default: the layout's own toes and heels, or ankles.
        clearance: (F,) metres over the floor at which the feet stand; default by name for the layout's own, else 0.
        contact: (T, F) probability of standing; default: from speeds, then again with heights.
        sigma: (T, F) metres, errors of the feet, for the contacts; see `contact_probabilities`.
        config: error levels.

    Raises ValueError for wrong shapes and a motion without a finite frame.
    """
    skeleton, fps = get_skeleton(skeleton), check_fps(fps)
    joints = np.asarray(joints, dtype=np.float64)
    if joints.ndim != 3 or joints.shape[1:] != (skeleton.num_joints, 3):
        raise ValueError(f"joints have shape {joints.shape}, expected (T, {skeleton.num_joints}, 3) of the layout "
                         f"{skeleton.name!r}.")
    evidence = _evidence(joints, skeleton, fps, feet, clearance)
    config = config or GroundConfig()
    if contact is not None:
        if np.shape(contact) != evidence.feet.shape[:2]:
            raise ValueError(f"contact has shape {np.shape(contact)}, expected {evidence.feet.shape[:2]}: one value "
                             "for each foot point.")
        return _combine(evidence, np.asarray(contact), config)
    contact = contact_probabilities(evidence.feet, fps, sigma=sigma)
    for _ in range(2):
        ground = _combine(evidence, contact, config)
        contact = contact_probabilities(evidence.feet, fps, up=ground.up, sigma=sigma)
    return _combine(evidence, contact, config)


def balance_directions(
    joints: np.ndarray, skeleton: Skeleton | str, feet: np.ndarray, contact: np.ndarray, on_ankles: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Directions from the standing feet to the centre of mass, (T, 3) unit vectors, and how far to trust each.

    The trust (T,) in 0..1 falls for bent legs (sitting, squatting), for legs and trunk out of line (lying, crawling),
    in the air, and is 0 where joints are missing. joints: (T, J, 3) metres; feet: (T, F, 3) metres, the points on which
    the weight rests; contact: (T, F) probability that it does; on_ankles: the points are ankles, and the weight rests
    `ANKLE_TO_SUPPORT` ahead of them.
    """
    skeleton = get_skeleton(skeleton)
    hip, shoulder, ankle = (_middle(joints, skeleton, part) for part in ("hip", "shoulder", "ankle"))
    weight = np.where(np.isfinite(feet).all(-1), contact, 0.0)
    carried = weight.sum(-1)
    support = np.einsum("tf,tfc->tc", weight, np.where(np.isfinite(feet), feet, 0.0))
    support = support / np.where(carried > 1e-6, carried, np.nan)[:, None]
    length = _leg_length(joints, skeleton)
    if on_ankles:
        across = _side(joints, skeleton, "left", "hip") - _side(joints, skeleton, "right", "hip")
        support = support + ANKLE_TO_SUPPORT * length * unit_vectors(np.cross(across, hip - ankle))
    direction = unit_vectors(_centre_of_mass(joints, skeleton) - support)
    extended = np.linalg.norm(hip - support, axis=-1) / (length if length > 0 else np.nan)
    in_line = (unit_vectors(hip - support) * unit_vectors(shoulder - hip)).sum(-1)
    trust = np.clip((extended - 0.7) / 0.2, 0.0, 1.0) * np.clip((in_line - 0.7) / 0.2, 0.0, 1.0)
    trust = trust * np.minimum(carried, 1.0)
    return direction, np.where(np.isfinite(trust) & np.isfinite(direction).all(-1), trust, 0.0)


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Joints (T, J, 3) of a layout, and foot points (T, F, 3) that stand `clearance` (F,) above the floor."""

    joints: np.ndarray
    skeleton: Skeleton
    fps: float
    feet: np.ndarray
    clearance: np.ndarray
    on_ankles: bool

    @property
    def seen(self) -> np.ndarray:
        """(T, F) whether a foot point is known."""
        return np.isfinite(self.feet).all(-1)

    def heights(self, up: np.ndarray) -> np.ndarray:
        """(T, F) metres along `up`, of where the floor would be if the point stood; NaN where unknown."""
        return self.feet @ up - self.clearance


def _evidence(joints, skeleton, fps, feet, clearance) -> _Evidence:
    """Fill in the layout's own feet and check."""
    names = foot_points(skeleton) if feet is None else ()
    if feet is None:
        feet, clearance = joints[:, skeleton.indices(names)], clearances(names) if clearance is None else clearance
    feet = np.asarray(feet, dtype=np.float64)
    if feet.ndim != 3 or feet.shape[::2] != (len(joints), 3) or not feet.shape[1]:
        raise ValueError(f"feet have shape {feet.shape}, expected ({len(joints)}, F, 3) with at least one point.")
    if not np.isfinite(feet).all(-1).any():
        raise ValueError("cannot find the floor of a motion without a finite frame; give at least one frame.")
    clearance = np.broadcast_to(np.asarray(0.0 if clearance is None else clearance, float), feet.shape[1:2])
    return _Evidence(joints, skeleton, fps, feet, clearance, bool(names) and names[0].endswith("ankle"))


def _combine(evidence: _Evidence, contact: np.ndarray, config: GroundConfig) -> Ground:
    """The floor given contact probabilities (T, F): Gauss-Newton on the unit sphere."""
    contact = np.where(evidence.seen, contact, 0.0)
    balance, balance_information = _balance(evidence, contact, config)
    camera, camera_information = np.array(CAMERA_UP), 1 / np.radians(config.camera) ** 2
    pull = camera_information * camera + balance_information * balance
    stiffness = camera_information + balance_information
    up = unit_vectors(pull)
    weight = contact * _lowest(evidence, up, config) * min(1.0, 1 / (evidence.fps * config.contact_time))
    for _ in range(config.iterations):
        basis = np.linalg.svd(up[None])[2][1:]
        offset, floor, gradient = _plane(evidence, weight, up, basis, config)
        information = floor + stiffness * np.eye(2)
        up = unit_vectors(up - basis.T @ np.linalg.solve(information, gradient - basis @ pull))
    sigma = np.degrees(np.sqrt(1 / np.linalg.eigvalsh(information)[0]))
    strongest = max((np.trace(floor) / 2, "contacts"), (balance_information, "balance"), (camera_information, "camera"))
    return Ground(up, offset, float(sigma), strongest[1])


def _plane(
    evidence: _Evidence, weight: np.ndarray, up: np.ndarray, basis: np.ndarray, config: GroundConfig
) -> tuple[float, np.ndarray, np.ndarray]:
    """Offset of the plane along `up`; information (2, 2) and gradient (2,) of the contacts' statement about `up`.

    basis: (2, 3) directions at right angles to `up` in which it may turn.
    """
    seen = evidence.seen
    points, heights, weight = evidence.feet[seen], evidence.heights(up)[seen], weight[seen]
    offset = _weighted_median(heights, weight)
    for _ in range(5):
        robust = weight / (1 + ((heights - offset) / (config.outlier * config.height)) ** 2) ** 2
        if not robust.sum() > 1e-9:
            return offset, np.zeros((2, 2)), np.zeros(2)
        offset = float(robust @ heights / robust.sum())
    along = points @ basis.T
    along = along - robust @ along / robust.sum()
    scaled = along.T * robust / config.height**2
    information = scaled @ along
    # Common errors bend and tilt the plane that lifted feet walk on: no number of contacts tells more than `flatness`.
    limit = np.linalg.inv(np.eye(2) + np.radians(config.flatness) ** 2 * information)
    return offset, limit @ information, limit @ (scaled @ (heights - offset))


def _lowest(evidence: _Evidence, up: np.ndarray, config: GroundConfig) -> np.ndarray:
    """Weights (T, F) that leave out feet held still in the air: those clearly above the frame's lowest foot point.

    Points of one frame are near each other, so that an error of `up` matters little.
    """
    height = np.where(evidence.seen, evidence.heights(up), 1e6)
    return np.exp(-(((height - height.min(axis=1, keepdims=True)) / (2 * config.height)) ** 2))


def _weighted_median(values: np.ndarray, weight: np.ndarray) -> float:
    """The weighted median; without any weight, the lower tenth of the values."""
    if not weight.sum() > 1e-9:
        return float(np.quantile(values, 0.1))
    order = np.argsort(values)
    passed = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(passed, passed[-1] / 2)]])


def _balance(evidence: _Evidence, contact: np.ndarray, config: GroundConfig) -> tuple[np.ndarray, float]:
    """Robust mean (3,) of the balance directions and its information per square radian."""
    direction, trust = balance_directions(
        evidence.joints, evidence.skeleton, evidence.feet, contact, on_ankles=evidence.on_ankles)
    direction = np.where(trust[:, None] > 0, direction, 0.0)
    mean, scale, robust = unit_vectors(trust @ direction), np.radians(3 * config.balance), trust
    for _ in range(5):
        robust = trust / (1 + np.sum((direction - mean) ** 2, axis=-1) / scale**2) ** 2
        mean = unit_vectors(robust @ direction)
    seconds = robust.sum() / evidence.fps
    if seconds < 1e-6:
        return np.array(CAMERA_UP), 0.0
    return mean, float(1 / (np.radians(config.balance) ** 2 / seconds + np.radians(config.posture) ** 2))


def _centre_of_mass(joints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(T, 3) metres from the joints whose share of the mass is known."""
    numbers, masses = [], []
    for number, name in enumerate(skeleton.joints):
        mass = _MASSES.get(name.removeprefix("left_").removeprefix("right_"), 0.0)
        if mass and name != "hip":  # the middle hip lies between the two that count
            numbers.append(number)
            masses.append(mass)
    if not numbers:
        return np.full((len(joints), 3), np.nan)
    masses = np.array(masses) / sum(masses)
    return np.einsum("j,tjc->tc", masses, joints[:, numbers])


def _middle(joints: np.ndarray, skeleton: Skeleton, part: str) -> np.ndarray:
    """(T, 3) between the left and the right joint of that name, NaN where the layout has none."""
    return (_side(joints, skeleton, "left", part) + _side(joints, skeleton, "right", part)) / 2


def _side(joints: np.ndarray, skeleton: Skeleton, side: str, part: str) -> np.ndarray:
    """(T, 3) the left or right joint of that name, NaN where the layout has none."""
    name = f"{side}_{part}"
    return joints[:, skeleton.index(name)] if name in skeleton.joints else np.full((len(joints), 3), np.nan)


def _leg_length(joints: np.ndarray, skeleton: Skeleton) -> float:
    """Median length in metres of thigh plus shin."""
    lengths = []
    for side in ("left", "right"):
        names = [f"{side}_{part}" for part in ("hip", "knee", "ankle")]
        if not set(names) <= set(skeleton.joints):
            return 0.0
        bones = np.diff(joints[:, skeleton.indices(names)], axis=1)
        lengths.append(np.linalg.norm(bones, axis=-1).sum(-1))
    lengths = np.array(lengths)
    return float(np.median(lengths[np.isfinite(lengths)])) if np.isfinite(lengths).any() else 0.0
