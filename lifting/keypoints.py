"""Keypoints in the image: of one person over time (Keypoints2D) or in one frame (Detection); a guess of their order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from lifting.skeletons import Skeleton, get_skeleton, joint_map


def as_float_array(values: object, what: str, shape: tuple[int | None, ...], dtype: type = np.float32) -> np.ndarray:
    """`values` as a float array of the given shape (None = any length), NaN allowed, infinity not.

    Raises ValueError in terms of `what` for anything that is not such an array.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"type {array.dtype}")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what} must be an array of real numbers, got {error}.") from error
    expected = "(" + ", ".join("any" if length is None else str(length) for length in shape) + ")"
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits:
        raise ValueError(f"{what} must have the shape {expected}, got {array.shape}.")
    if array.dtype.kind == "f" and _largest(array) > float(np.finfo(dtype).max):  # NaN passes, infinity does not
        raise ValueError(f"{what} must be finite or NaN, got infinite or too large values.")
    return np.ascontiguousarray(array, dtype=dtype)


def _largest(array: np.ndarray) -> float:
    return float(np.fmax.reduce(np.abs(array), axis=None, initial=0.0))


def check_fps(fps: object) -> float:
    """`fps` as a positive finite float; ValueError otherwise."""
    if isinstance(fps, bool) or not isinstance(fps, Real) or not math.isfinite(fps) or fps <= 0:
        raise ValueError(f"fps must be a positive number of frames per second, got {fps!r}.")
    return float(fps)


def check_image_size(image_size: object) -> tuple[int, int]:
    """`image_size` as (width, height), two positive whole numbers of pixels; ValueError otherwise."""
    try:
        size = tuple(image_size)  # type: ignore[arg-type]
    except TypeError:
        size = ()
    whole = [isinstance(n, (Integral, float, np.floating)) and not isinstance(n, bool) and n == n // 1 for n in size]
    if len(size) != 2 or not all(whole) or min(size) <= 0:
        raise ValueError(f"image_size must be (width, height) in whole positive pixels, got {image_size!r}.")
    return int(size[0]), int(size[1])


def equal_values(first: object, second: object) -> bool:
    """Whether two values are equal, arrays by element (NaN equals NaN), dataclasses by field, containers by item."""
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        first, second = np.asarray(first), np.asarray(second)
        numeric = first.dtype.kind in "fc" and second.dtype.kind in "fc"
        return first.shape == second.shape and np.array_equal(first, second, equal_nan=numeric)
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return type(first) is type(second) and all(equal_values(getattr(first, n), getattr(second, n)) for n in names)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(equal_values(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(equal_values, first, second))
    return bool(first == second)


def _unseen_made_consistent(xy: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NaN in xy and a score of 0 (or NaN) mean the same: not seen; where one says so, both do."""
    unseen = np.isnan(xy).any(axis=-1) | ~(score > 0)
    if unseen.any():
        xy = np.where(unseen[..., None], np.float32(np.nan), xy)
        score = np.where(unseen, np.float32(0), score)
    return xy, score


def _check_points(xy: object, score: object, shape: tuple[int | None, ...]) -> tuple[np.ndarray, np.ndarray]:
    xy = as_float_array(xy, "xy", (*shape, 2))
    if score is None:
        score = np.ones(xy.shape[:-1], np.float32)
    score = as_float_array(score, "score", xy.shape[:-1])
    if (score < 0).any() or (score > 1.001).any():
        raise ValueError(f"scores must lie in 0..1, got {np.nanmin(score):g}..{np.nanmax(score):g}; scale them first.")
    return _unseen_made_consistent(xy, np.minimum(score, np.float32(1)))


@dataclass(frozen=True, eq=False)
class Keypoints2D:
    """The keypoints of one person over T frames.

    Attributes:
        xy: (T, J, 2) float32 pixels, origin top left, x right, y down; NaN = not seen.
        score: (T, J) float32 confidence in [0, 1]; 0 = not seen. None means 1 wherever xy is finite.
        skeleton: the layout of the J columns, or its name.
        image_size: (width, height) pixels.
        fps: frames per second.

    NaN and score 0 are made consistent: where one says "not seen", both do. Raises ValueError for wrong shapes, no
    frames, infinite values, scores outside 0..1, a joint count that is not the skeleton's, and a size or fps that is
    not positive.
    """

    xy: np.ndarray
    score: np.ndarray
    skeleton: Skeleton
    image_size: tuple[int, int]
    fps: float

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        skeleton = get_skeleton(self.skeleton)
        xy, score = _check_points(self.xy, self.score, (None, None))
        if xy.shape[1] != skeleton.num_joints:
            raise ValueError(f"got {xy.shape[1]} joints, but skeleton {skeleton.name!r} has {skeleton.num_joints}; "
                             "name the layout of the data.")
        if not len(xy):
            raise ValueError("got keypoints of 0 frames, expected at least one.")
        set_fields(self, xy=xy, score=score, skeleton=skeleton, image_size=check_image_size(self.image_size),
                   fps=check_fps(self.fps))

    def __len__(self) -> int:
        """T."""
        return len(self.xy)

    def __eq__(self, other: object) -> bool:
        """Equal in every field, NaN equal to NaN."""
        return equal_values(self, other) if isinstance(other, Keypoints2D) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.xy)

    @property
    def seen(self) -> np.ndarray:
        """(T, J) bool: which keypoints were seen."""
        return self.score > 0

    def to(self, skeleton: str | Skeleton) -> Keypoints2D:
        """The same keypoints in another layout.

        A joint made of several is their mean, has the lowest of their scores, and is unseen if one of them is.
        Raises SkeletonMismatch when the layout needs joints that this one lacks.
        """
        mapping = joint_map(self.skeleton, skeleton)
        if mapping.source == mapping.target:
            return self
        score = np.zeros((len(self), mapping.target.num_joints), np.float32)
        for joint, row in enumerate(mapping.weights):
            if row.any():
                score[:, joint] = self.score[:, row > 0].min(axis=1)
        return self.replace(xy=mapping.apply(self.xy), score=score, skeleton=mapping.target)

    def slice(self, start: int | None = None, stop: int | None = None) -> Keypoints2D:
        """Frames start..stop (Python's rules); ValueError when none is left."""
        return self.replace(xy=self.xy[start:stop], score=self.score[start:stop])

    def replace(self, **changes: object) -> Keypoints2D:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def flipped(self) -> Keypoints2D:
        """The keypoints of the mirrored image: x becomes width - x, left and right change places."""
        flip = list(self.skeleton.flip)
        xy = self.xy[:, flip] * np.float32([-1, 1]) + np.float32([self.image_size[0], 0])
        return self.replace(xy=xy, score=self.score[:, flip])


@dataclass(frozen=True, eq=False)
class Detection:
    """One person in one frame.

    Attributes:
        xy: (J, 2) float32 pixels, origin top left; NaN = not seen.
        score: (J,) float32 confidence in [0, 1]; 0 = not seen.

    Raises ValueError for wrong shapes, infinite values and scores outside 0..1.
    """

    xy: np.ndarray
    score: np.ndarray

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        xy, score = _check_points(self.xy, self.score, (None,))
        set_fields(self, xy=xy, score=score)

    def __eq__(self, other: object) -> bool:
        """Equal in every field, NaN equal to NaN."""
        return equal_values(self, other) if isinstance(other, Detection) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def seen(self) -> np.ndarray:
        """(J,) bool."""
        return self.score > 0

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) pixels around the seen keypoints; NaN when there are none."""
        if not self.seen.any():
            return (math.nan,) * 4
        points = self.xy[self.seen]
        return (*map(float, points.min(axis=0)), *map(float, points.max(axis=0)))

    @property
    def mean_score(self) -> float:
        """Mean score of the seen keypoints, 0 when there are none."""
        return float(self.score[self.seen].mean()) if self.seen.any() else 0.0


def set_fields(instance: object, **values: object) -> None:
    """Set fields of a frozen dataclass from its own ``__post_init__``."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


@dataclass(frozen=True)
class OrderGuess:
    """Which column order 17 keypoints seem to have.

    Attributes:
        skeleton: ``coco17``, ``h36m17``, or None where the data does not tell them apart.
        costs: how implausible each order looks, by skeleton name; NaN where too little was seen.
    """

    skeleton: str | None
    costs: dict[str, float]


_LIMBS = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
# Points that nearly coincide in a person, whatever the pose and the view: (joints, joints), the means are compared.
_COINCIDENT = {
    "coco17": ((("nose",), ("left_eye", "right_eye")), (("left_eye", "right_eye"), ("left_ear", "right_ear"))),
    "h36m17": ((("hip",), ("left_hip", "right_hip")), (("thorax",), ("left_shoulder", "right_shoulder"))),
}


def guess_order(xy: np.ndarray, score: np.ndarray | None = None, *, margin: float = 1.25) -> OrderGuess:
    """Tell whether 17 columns without a label are COCO-17 or H36M-17.

    Under the right order limbs are short, left and right are alike, lengths change little over time, and points that
    nearly coincide in a person (nose and eyes; hip and the middle of the hips) do. The answer is None when the costs
    differ by less than the factor `margin`, or too little was seen.

    Args:
        xy: (T, 17, 2) pixels, NaN = not seen.
        score: (T, 17), 0 = not seen; or None.
        margin: least ratio of the two costs.

    Raises ValueError for other shapes.
    """
    xy, _ = _check_points(xy, score, (None, 17))
    scale = _spread(xy)
    xy = xy[scale > 0] / scale[scale > 0, None, None]
    costs = {name: _order_cost(xy, name) for name in _COINCIDENT}
    best, other = sorted(costs, key=lambda name: (math.isnan(costs[name]), costs[name]))
    return OrderGuess(best if costs[other] > margin * costs[best] else None, costs)


def _spread(xy: np.ndarray) -> np.ndarray:
    """(T,) root mean square distance of the seen points from their mean, NaN for frames with fewer than eight."""
    enough = (~np.isnan(xy[..., 0])).sum(axis=1) >= 8
    spread = np.full(len(xy), np.nan)
    spread[enough] = np.sqrt(np.nanvar(xy[enough], axis=1).sum(axis=-1))
    return spread


def _order_cost(xy: np.ndarray, name: str) -> float:
    """Implausibility of scaled points (T, 17, 2) in that order; NaN when no limb is seen on both sides."""
    skeleton = get_skeleton(name)

    def distances(first: tuple[str, ...], second: tuple[str, ...]) -> np.ndarray:
        ends = [xy[:, skeleton.indices(names)].mean(axis=1) for names in (first, second)]
        lengths = np.linalg.norm(ends[0] - ends[1], axis=-1)
        return lengths[~np.isnan(ends[0] + ends[1]).any(axis=-1)]

    terms = [float(np.median(lengths)) for pair in _COINCIDENT[name] if len(lengths := distances(*pair))]
    limbs = [_limb_cost(*(xy[:, skeleton.indices((f"{side}_{near}", f"{side}_{far}"))] for side in ("left", "right")))
             for near, far in _LIMBS]
    limbs = [cost for cost in limbs if not math.isnan(cost)]
    return float(np.mean(limbs) + sum(terms) / len(_COINCIDENT[name])) if limbs else math.nan


def _limb_cost(left: np.ndarray, right: np.ndarray) -> float:
    """Length, asymmetry and variation over time of a pair of limbs (T, 2, 2); NaN when never seen on both sides."""
    lengths = np.stack([np.linalg.norm(limb[:, 1] - limb[:, 0], axis=-1) for limb in (left, right)])
    lengths = lengths[:, ~np.isnan(lengths).any(axis=0)]
    if not lengths.size:
        return math.nan
    middle = np.median(lengths, axis=1)
    asymmetry = abs(math.log((middle[0] + 0.05) / (middle[1] + 0.05)))
    variation = np.median(np.abs(lengths - middle[:, None]), axis=1).mean()
    return float(middle.mean() + asymmetry + variation)
