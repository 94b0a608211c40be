"""Skeletons: joint names, parents, the registry of known layouts and the maps between them.

A layout is a list of joint *names*; everything else (left/right pairs, the permutation that mirrors a pose, bones)
follows from the names and parents. Columns of two layouts are only ever brought together through :func:`joint_map`,
never by number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np

LEFT, RIGHT = "left_", "right_"


class SkeletonMismatch(ValueError):
    """Two layouts cannot be mapped: the source lacks joints that the target needs."""


@dataclass(frozen=True)
class Skeleton:
    """A layout of J joints.

    Attributes:
        name: what the layout is called in the registry and in files.
        joints: J unique names; paired joints are called ``left_x`` and ``right_x``.
        parents: J joint numbers, -1 for a root; any order, no cycles.
        lift_map: for layouts of the user's own, which of its joints make a joint of ``lift17``:
            ``((lift17 joint, (own joint, ...)), ...)``; several own joints are averaged.

    Raises ValueError for doubled or empty names, an unpaired ``left_``/``right_`` joint, parents out of range or in a
    cycle, and a ``lift_map`` that names unknown joints or treats left and right differently.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    lift_map: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        """Check the fields and turn sequences into tuples."""
        object.__setattr__(self, "joints", tuple(self.joints))
        object.__setattr__(self, "parents", tuple(_as_integer(parent, self.name) for parent in self.parents))
        pairs = self.lift_map.items() if isinstance(self.lift_map, Mapping) else self.lift_map
        object.__setattr__(self, "lift_map", tuple((target, tuple(sources)) for target, sources in pairs))
        self._check_names()
        self._check_parents()
        self._check_lift_map()

    def _check_names(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"a skeleton needs a name that is not empty, got {self.name!r}.")
        if not self.joints or not all(isinstance(joint, str) and joint.strip() for joint in self.joints):
            raise ValueError(f"skeleton {self.name!r} needs at least one joint, each with a name that is not empty.")
        doubled = sorted({joint for joint in self.joints if self.joints.count(joint) > 1})
        if doubled:
            raise ValueError(f"skeleton {self.name!r} names joints twice: {', '.join(doubled)}; names must be unique.")
        known = set(self.joints)
        alone = [joint for joint in self.joints if mirror_name(joint) not in known]
        if alone:
            raise ValueError(f"skeleton {self.name!r} has {alone[0]!r} but no {mirror_name(alone[0])!r}; "
                             "paired joints are called left_x and right_x.")

    def _check_parents(self) -> None:
        count = len(self.joints)
        if len(self.parents) != count:
            raise ValueError(f"skeleton {self.name!r} has {count} joints but {len(self.parents)} parents; "
                             "give one each.")
        if any(parent < -1 or parent >= count for parent in self.parents):
            raise ValueError(f"parents of skeleton {self.name!r} must lie in -1..{count - 1}, "
                             f"got {list(self.parents)}.")
        for start in range(count):
            joint, steps = start, 0
            while joint >= 0 and steps <= count:
                joint, steps = self.parents[joint], steps + 1
            if joint >= 0:
                raise ValueError(f"parents of skeleton {self.name!r} form a cycle through {self.joints[start]!r}.")

    def _check_lift_map(self) -> None:
        table = dict(self.lift_map)
        for target, sources in self.lift_map:
            if target not in LIFT_JOINTS:
                raise ValueError(f"the map of skeleton {self.name!r} has the unknown target {target!r}; "
                                 f"targets are {', '.join(LIFT_JOINTS)}.")
            unknown = [joint for joint in sources if joint not in self.joints]
            if unknown or not sources:
                raise ValueError(f"the map of skeleton {self.name!r} makes {target!r} of {unknown or 'no joints'}; "
                                 f"its joints are {', '.join(self.joints)}.")
            mirrored = table.get(mirror_name(target), ())
            if sorted(map(mirror_name, sources)) != sorted(mirrored):
                raise ValueError(f"the map of skeleton {self.name!r} is not left/right symmetric at {target!r}; "
                                 "call paired joints left_x and right_x and map both sides alike.")

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.joints)

    @cached_property
    def left(self) -> tuple[int, ...]:
        """Numbers of the left joints, in the order of the columns."""
        return tuple(i for i, joint in enumerate(self.joints) if joint.startswith(LEFT))

    @cached_property
    def right(self) -> tuple[int, ...]:
        """Numbers of the right joints: ``right[i]`` mirrors ``left[i]``."""
        return tuple(self.joints.index(mirror_name(self.joints[i])) for i in self.left)

    @cached_property
    def flip(self) -> tuple[int, ...]:
        """Permutation that swaps left and right: ``mirrored = points[..., flip, :]`` (then negate x)."""
        return tuple(self.joints.index(mirror_name(joint)) for joint in self.joints)

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) numbers, one for each joint that has a parent."""
        return tuple((parent, child) for child, parent in enumerate(self.parents) if parent >= 0)

    @property
    def root(self) -> int:
        """Number of the (first) joint without a parent."""
        return self.parents.index(-1)

    def index(self, name: str) -> int:
        """Number of the joint called `name`; ValueError with the known names otherwise."""
        if name not in self.joints:
            raise ValueError(f"skeleton {self.name!r} has no joint {name!r}; it has {', '.join(self.joints)}.")
        return self.joints.index(name)

    def indices(self, names: Iterable[str]) -> tuple[int, ...]:
        """Numbers of several joints, in the order asked for."""
        return tuple(self.index(name) for name in names)

    def to_dict(self) -> dict:
        """Plain data for JSON, read back by :meth:`from_dict`."""
        data = {"name": self.name, "joints": list(self.joints), "parents": list(self.parents)}
        if self.lift_map:
            data["map"] = {target: list(sources) for target, sources in self.lift_map}
        return data

    @classmethod
    def from_dict(cls, data: Mapping) -> Skeleton:
        """Build from plain data as described in :func:`read_skeleton`; ValueError for anything else."""
        if not isinstance(data, Mapping) or not {"name", "joints", "parents"} <= set(data):
            raise ValueError("a skeleton must be an object with name, joints and parents, "
                             f"got {sorted(data) if isinstance(data, Mapping) else type(data).__name__}.")
        joints, parents, table = data["joints"], data["parents"], data.get("map") or {}
        if not isinstance(joints, (list, tuple)) or not isinstance(parents, (list, tuple)):
            raise ValueError("the joints and parents of a skeleton must be lists.")
        if not isinstance(table, Mapping):
            raise ValueError("the map of a skeleton must be an object {lift17 joint: own joint or list of own joints}.")
        return cls(data["name"], tuple(joints), tuple(_parent_numbers(parents, joints)),
                   tuple((target, _as_names(sources)) for target, sources in table.items()))


def mirror_name(joint: str) -> str:
    """The name of the joint on the other side: left_x <-> right_x, others unchanged."""
    if joint.startswith(LEFT):
        return RIGHT + joint[len(LEFT):]
    if joint.startswith(RIGHT):
        return LEFT + joint[len(RIGHT):]
    return joint


def _as_integer(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"parents of skeleton {name!r} must be whole numbers or joint names, got {value!r}.")
    return int(value)


def _as_names(sources: object) -> tuple[str, ...]:
    names = (sources,) if isinstance(sources, str) else sources
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"a map must give a joint name or a list of joint names, got {sources!r}.")
    return tuple(names)


def _parent_numbers(parents: Iterable, joints: Iterable) -> list:
    """Parents given by name become numbers, null becomes -1; numbers stay."""
    joints = list(joints)
    numbers = []
    for parent in parents:
        if isinstance(parent, str) and parent not in joints:
            raise ValueError(f"the parent {parent!r} is not among the joints {joints}.")
        numbers.append(-1 if parent is None else joints.index(parent) if isinstance(parent, str) else parent)
    return numbers


LIFT_JOINTS = (
    "nose", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "left_big_toe", "right_big_toe", "left_heel", "right_heel",
)  # fmt: skip

# Each line of a layout is its joints in published order, written child:parent; a joint without a parent is a root.
_COCO_BODY = """
nose left_eye:nose right_eye:nose left_ear:left_eye right_ear:right_eye left_shoulder:nose right_shoulder:nose
left_elbow:left_shoulder right_elbow:right_shoulder left_wrist:left_elbow right_wrist:right_elbow
left_hip:left_shoulder right_hip:right_shoulder left_knee:left_hip right_knee:right_hip
left_ankle:left_knee right_ankle:right_knee
"""
_LAYOUTS = {
    "lift17": """
nose left_shoulder:nose right_shoulder:nose left_elbow:left_shoulder right_elbow:right_shoulder
left_wrist:left_elbow right_wrist:right_elbow left_hip:left_shoulder right_hip:right_shoulder
left_knee:left_hip right_knee:right_hip left_ankle:left_knee right_ankle:right_knee
left_big_toe:left_ankle right_big_toe:right_ankle left_heel:left_ankle right_heel:right_ankle
""",
    "coco17": _COCO_BODY,
    # Feet in the order of COCO-WholeBody (columns 17..22 there too).
    "coco17_feet": _COCO_BODY + """
left_big_toe:left_ankle left_small_toe:left_big_toe left_heel:left_ankle
right_big_toe:right_ankle right_small_toe:right_big_toe right_heel:right_ankle
""",
    # The 17 of the 32 joints of Human3.6M that the field evaluates; joint 9 lies between neck and nose.
    "h36m17": """
hip right_hip:hip right_knee:right_hip right_ankle:right_knee left_hip:hip left_knee:left_hip left_ankle:left_knee
spine:hip thorax:spine neck_nose:thorax head:neck_nose left_shoulder:thorax left_elbow:left_shoulder
left_wrist:left_elbow right_shoulder:thorax right_elbow:right_shoulder right_wrist:right_elbow
""",
    # The original names are Hips, RightUpLeg, ..., with end sites; those that H36M-17 keeps carry the names used there.
    "h36m32": """
hip right_hip:hip right_knee:right_hip right_ankle:right_knee right_toe_base:right_ankle right_toe_end:right_toe_base
left_hip:hip left_knee:left_hip left_ankle:left_knee left_toe_base:left_ankle left_toe_end:left_toe_base
spine_base:hip spine:spine_base thorax:spine neck_nose:thorax head:neck_nose
left_collar:spine left_shoulder:left_collar left_elbow:left_shoulder left_wrist:left_elbow
left_thumb_base:left_wrist left_thumb_end:left_thumb_base left_hand_base:left_wrist left_hand_end:left_hand_base
right_collar:spine right_shoulder:right_collar right_elbow:right_shoulder right_wrist:right_elbow
right_thumb_base:right_wrist right_thumb_end:right_thumb_base right_hand_base:right_wrist right_hand_end:right_hand_base
""",
    "halpe26": """
nose:neck left_eye:nose right_eye:nose left_ear:left_eye right_ear:right_eye left_shoulder:neck right_shoulder:neck
left_elbow:left_shoulder right_elbow:right_shoulder left_wrist:left_elbow right_wrist:right_elbow
left_hip:hip right_hip:hip left_knee:left_hip right_knee:right_hip left_ankle:left_knee right_ankle:right_knee
head:neck neck:hip hip left_big_toe:left_ankle right_big_toe:right_ankle
left_small_toe:left_big_toe right_small_toe:right_big_toe left_heel:left_ankle right_heel:right_ankle
""",
    "body25": """
nose:neck neck:mid_hip right_shoulder:neck right_elbow:right_shoulder right_wrist:right_elbow
left_shoulder:neck left_elbow:left_shoulder left_wrist:left_elbow mid_hip right_hip:mid_hip right_knee:right_hip
right_ankle:right_knee left_hip:mid_hip left_knee:left_hip left_ankle:left_knee right_eye:nose left_eye:nose
right_ear:right_eye left_ear:left_eye left_big_toe:left_ankle left_small_toe:left_big_toe left_heel:left_ankle
right_big_toe:right_ankle right_small_toe:right_big_toe right_heel:right_ankle
""",
    # OpenPose's COCO model: BODY-25 without middle hip and feet, in an order of its own.
    "openpose18": """
nose:neck neck right_shoulder:neck right_elbow:right_shoulder right_wrist:right_elbow
left_shoulder:neck left_elbow:left_shoulder left_wrist:left_elbow right_hip:neck right_knee:right_hip
right_ankle:right_knee left_hip:neck left_knee:left_hip left_ankle:left_knee
right_eye:nose left_eye:nose right_ear:right_eye left_ear:left_eye
""",
    "mpii16": """
right_ankle:right_knee right_knee:right_hip right_hip:pelvis left_hip:pelvis left_knee:left_hip left_ankle:left_knee
pelvis thorax:pelvis upper_neck:thorax head_top:upper_neck right_wrist:right_elbow right_elbow:right_shoulder
right_shoulder:thorax left_shoulder:thorax left_elbow:left_shoulder left_wrist:left_elbow
""",
    # Published as mouth_left, mouth_right; here left_mouth, right_mouth, so that mirroring follows from the names.
    "mediapipe33": """
nose left_eye_inner:nose left_eye:left_eye_inner left_eye_outer:left_eye
right_eye_inner:nose right_eye:right_eye_inner right_eye_outer:right_eye
left_ear:left_eye_outer right_ear:right_eye_outer left_mouth:nose right_mouth:nose
left_shoulder:nose right_shoulder:nose left_elbow:left_shoulder right_elbow:right_shoulder
left_wrist:left_elbow right_wrist:right_elbow left_pinky:left_wrist right_pinky:right_wrist
left_index:left_wrist right_index:right_wrist left_thumb:left_wrist right_thumb:right_wrist
left_hip:left_shoulder right_hip:right_shoulder left_knee:left_hip right_knee:right_hip
left_ankle:left_knee right_ankle:right_knee left_heel:left_ankle right_heel:right_ankle
left_foot_index:left_ankle right_foot_index:right_ankle
""",
    "humaneva15": """
pelvis thorax:pelvis left_shoulder:thorax left_elbow:left_shoulder left_wrist:left_elbow
right_shoulder:thorax right_elbow:right_shoulder right_wrist:right_elbow left_hip:pelvis left_knee:left_hip
left_ankle:left_knee right_hip:pelvis right_knee:right_hip right_ankle:right_knee head:thorax
""",
    "smpl24": """
pelvis left_hip:pelvis right_hip:pelvis spine1:pelvis left_knee:left_hip right_knee:right_hip spine2:spine1
left_ankle:left_knee right_ankle:right_knee spine3:spine2 left_foot:left_ankle right_foot:right_ankle neck:spine3
left_collar:spine3 right_collar:spine3 head:neck left_shoulder:left_collar right_shoulder:right_collar
left_elbow:left_shoulder right_elbow:right_shoulder left_wrist:left_elbow right_wrist:right_elbow
left_hand:left_wrist right_hand:right_wrist
""",
}  # fmt: skip

_ALIASES = {
    "coco": "coco17", "cocofeet": "coco17_feet", "coco23": "coco17_feet", "cocowholebodyfeet": "coco17_feet",
    "h36m": "h36m17", "human36m": "h36m17", "human36m17": "h36m17", "human36m32": "h36m32",
    "halpe": "halpe26", "bodywithfeet": "halpe26", "openpose": "body25", "openpose25": "body25",
    "openposebody25": "body25", "mpii": "mpii16", "mediapipe": "mediapipe33", "blazepose": "mediapipe33",
    "blazepose33": "mediapipe33", "mediapipepose": "mediapipe33", "humaneva": "humaneva15", "smpl": "smpl24",
    "lift": "lift17",
}  # fmt: skip


# Number of columns -> layouts that they, or the first of them, can be; the first named is the default.
LAYOUTS_OF_COUNT: dict[int, tuple[str, ...]] = {
    15: ("humaneva15",), 16: ("mpii16",), 17: ("coco17",), 18: ("openpose18",), 23: ("coco17_feet", "coco17"),
    24: ("smpl24",), 25: ("body25",), 26: ("halpe26", "coco17"), 32: ("h36m32",), 33: ("mediapipe33",),
    133: ("coco17_feet", "coco17"), 136: ("halpe26", "coco17"),
}  # fmt: skip


def _parse_layout(name: str, text: str) -> Skeleton:
    pairs = [word.partition(":") for word in text.split()]
    joints = tuple(child for child, _, _ in pairs)
    return Skeleton(name, joints, tuple(joints.index(parent) if parent else -1 for _, _, parent in pairs))


BUILT_IN = {name: _parse_layout(name, text) for name, text in _LAYOUTS.items()}
_registry: dict[str, Skeleton] = dict(BUILT_IN)


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.lower())


def get_skeleton(skeleton: str | Skeleton) -> Skeleton:
    """The registered skeleton of that name (case and separators do not matter), or the Skeleton itself.

    Raises ValueError with the list of known names.
    """
    if isinstance(skeleton, Skeleton):
        return skeleton
    if isinstance(skeleton, str):
        plain = _plain(skeleton)
        wanted = _plain(_ALIASES.get(plain, plain))
        for name, known in _registry.items():
            if name == skeleton or (wanted and _plain(name) == wanted):
                return known
    raise ValueError(f"unknown skeleton {skeleton!r}; known are {', '.join(list_skeletons())}, "
                     "or describe your own in JSON and read it with read_skeleton.")


def list_skeletons() -> list[str]:
    """Names of all registered skeletons."""
    return sorted(_registry)


def register_skeleton(skeleton: Skeleton) -> Skeleton:
    """Make a skeleton known by its name; ValueError when the name already stands for another layout."""
    plain = _plain(skeleton.name)
    taken = _registry.get(skeleton.name)
    if taken is None and plain:
        names = {_plain(name): known for name, known in _registry.items()}
        taken = names.get(_plain(_ALIASES.get(plain, plain)))
    if taken is not None and taken != skeleton:
        raise ValueError(f"the skeleton name {skeleton.name!r} is taken by {taken.name!r}; choose another name.")
    if taken is None:
        _registry[skeleton.name] = skeleton
    return skeleton


def read_skeleton(path: str | PathLike) -> Skeleton:
    """Read a layout of the user's own from JSON (it is not registered: see :func:`register_skeleton`).

    The file holds one object::

        {"name": "my_detector",
         "joints": ["head", "left_shoulder", "right_shoulder", ...],      names in column order; pairs left_x, right_x
         "parents": [-1, 0, 0, ...],                                      numbers, or names and null for a root
         "map": {"nose": "head", "left_hip": ["left_hip_a", "left_hip_b"], "right_hip": [...]}}      optional

    ``map`` says which joints make the joints of ``lift17``, the input of the lifter; several are averaged, joints of
    the same name need no entry. Raises FileNotFoundError, and ValueError when the file is not such an object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no skeleton file {str(path)!r}; give the path of a JSON file.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not valid JSON ({error}); a skeleton file is one JSON object.") from error
    try:
        return Skeleton.from_dict(data)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


@dataclass(frozen=True, eq=False)
class JointMap:
    """How the joints of `target` are made of the joints of `source`.

    Attributes:
        source, target: the two layouts.
        weights: (J_target, J_source) float32; each row sums to 1, or is zero where the joint is absent.
        missing: names of the (optional) target joints that the source lacks.
    """

    source: Skeleton
    target: Skeleton
    weights: np.ndarray
    missing: tuple[str, ...]

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., J_source, C) in any unit to (..., J_target, C), NaN where absent or made of a NaN."""
        points = np.asarray(points)
        if points.ndim < 2 or points.shape[-2] != self.source.num_joints:
            raise ValueError(f"got points of shape {points.shape}, expected (..., {self.source.num_joints}, C) "
                             f"for skeleton {self.source.name!r}.")
        dtype = np.result_type(points.dtype, np.float32)
        mapped = np.full((*points.shape[:-2], self.target.num_joints, points.shape[-1]), np.nan, dtype)
        for joint, row in enumerate(self.weights):
            used = np.flatnonzero(row)  # a plain product would spread NaN of unused joints, since 0 * NaN is NaN
            if len(used) == 1:
                mapped[..., joint, :] = points[..., used[0], :]
            elif len(used):
                mapped[..., joint, :] = np.einsum("j,...jc->...c", row[used].astype(dtype), points[..., used, :])
        return mapped


# Joints that a target can do without: a map leaves their row at zero instead of failing.
OPTIONAL_JOINTS = {
    "lift17": ("left_big_toe", "right_big_toe", "left_heel", "right_heel"),
    "h36m17": ("head",),
    "coco17_feet": tuple(f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")),
}

_HIPS, _SHOULDERS, _EARS = ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder"), ("left_ear", "right_ear")
_TRUNK_FROM_LIMBS = {"hip": _HIPS, "spine": _HIPS + _SHOULDERS, "thorax": _SHOULDERS, "neck_nose": ("nose",)}

# (source, target) -> {target joint: source joints, averaged}. Joints of the same name map to each other without an
# entry; an empty tuple says that the same name means something else. Approximations: H36M's joint 9 (between neck and
# nose) and a detector's nose stand for each other; the top of the head, where no detector point marks it, is the middle
# of the ears.
_TABLES: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("h36m17", "lift17"): {"nose": ("neck_nose",)},
    ("h36m32", "lift17"): {
        "nose": ("neck_nose",), "left_big_toe": ("left_toe_end",), "right_big_toe": ("right_toe_end",)},
    ("mpii16", "lift17"): {"nose": ("upper_neck", "head_top")},
    ("mediapipe33", "lift17"): {"left_big_toe": ("left_foot_index",), "right_big_toe": ("right_foot_index",)},
    ("mediapipe33", "coco17_feet"): {"left_big_toe": ("left_foot_index",), "right_big_toe": ("right_foot_index",)},
    ("humaneva15", "lift17"): {"nose": ("thorax", "head")},
    # SMPL's foot joint is the ball of the foot, centimetres behind the toe: rather absent than wrong.
    ("smpl24", "lift17"): {"nose": ("head",)},
    ("lift17", "h36m17"): _TRUNK_FROM_LIMBS,
    ("coco17", "h36m17"): {**_TRUNK_FROM_LIMBS, "head": _EARS},
    ("coco17_feet", "h36m17"): {**_TRUNK_FROM_LIMBS, "head": _EARS},
    ("mediapipe33", "h36m17"): {**_TRUNK_FROM_LIMBS, "head": _EARS},
    ("halpe26", "h36m17"): {"spine": ("hip", "neck"), "thorax": ("neck",), "neck_nose": ("nose",)},
    ("body25", "h36m17"): {
        "hip": ("mid_hip",), "spine": ("mid_hip", "neck"), "thorax": ("neck",), "neck_nose": ("nose",), "head": _EARS},
    ("openpose18", "h36m17"): {**_TRUNK_FROM_LIMBS, "thorax": ("neck",), "head": _EARS},
    ("mpii16", "h36m17"): {
        "hip": ("pelvis",), "spine": ("pelvis", "thorax"), "neck_nose": ("upper_neck", "head_top"),
        "head": ("head_top",)},
    ("humaneva15", "h36m17"): {"hip": ("pelvis",), "spine": ("pelvis", "thorax"), "neck_nose": ("thorax", "head")},
    # SMPL's head joint lies at the base of the skull, its top is no joint.
    ("smpl24", "h36m17"): {
        "hip": ("pelvis",), "spine": ("spine2",), "thorax": ("neck",), "neck_nose": ("head",), "head": ()},
}  # fmt: skip


def joint_map(source: str | Skeleton, target: str | Skeleton, optional: Iterable[str] | None = None) -> JointMap:
    """The map from one layout to another.

    Joints of the same name correspond; what else corresponds is in an explicit table, or in the ``lift_map`` of a
    skeleton of the user's own (which reaches other layouts by way of ``lift17``).

    Args:
        source, target: skeletons or their names.
        optional: names of target joints that may be absent; by default those of OPTIONAL_JOINTS.

    Raises SkeletonMismatch, naming the joints, when the source lacks joints that are not optional.
    """
    source, target = get_skeleton(source), get_skeleton(target)
    weights = _fill_weights(source, target)
    missing = tuple(joint for joint, row in zip(target.joints, weights, strict=True) if not row.any())
    allowed = set(OPTIONAL_JOINTS.get(target.name, ()) if optional is None else optional)
    needed = [joint for joint in missing if joint not in allowed]
    if needed:
        raise SkeletonMismatch(f"skeleton {source.name!r} cannot be mapped to {target.name!r}: it lacks "
                               f"{', '.join(needed)}; name the layout of the data, or give a skeleton file with a map.")
    return JointMap(source, target, weights, missing)


def _fill_weights(source: Skeleton, target: Skeleton) -> np.ndarray:
    """(J_target, J_source) float32 rows that sum to 1 or 0."""
    weights = np.zeros((target.num_joints, source.num_joints), np.float32)
    table = _find_table(source, target)
    for row, joint in enumerate(target.joints):
        parts = table.get(joint, (joint,) if joint in source.joints else ())
        for part in parts:
            weights[row, source.index(part)] += 1 / len(parts)
    if source.lift_map and target.name != "lift17" and BUILT_IN.get(target.name) == target:
        absent = ~weights.any(axis=1)
        weights[absent] = _weights_through_lift(source, target)[absent]
    return weights


def _find_table(source: Skeleton, target: Skeleton) -> dict[str, tuple[str, ...]]:
    """The table of a pair; a user's skeleton that only shares the name of a built-in one does not get its table."""
    if target == BUILT_IN["lift17"] and source.lift_map:
        return dict(source.lift_map)
    known = BUILT_IN.get(source.name) == source and BUILT_IN.get(target.name) == target
    return _TABLES.get((source.name, target.name), {}) if known else {}


def _weights_through_lift(source: Skeleton, target: Skeleton) -> np.ndarray:
    """Weights by way of lift17; a row that would use an absent lift17 joint is zero as a whole."""
    lift = BUILT_IN["lift17"]
    first, second = _fill_weights(source, lift), _fill_weights(lift, target)
    second[(second[:, ~first.any(axis=1)] > 0).any(axis=1)] = 0
    return second @ first
