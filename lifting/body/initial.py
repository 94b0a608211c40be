"""Closed-form start of the whole-clip fit: shape from bone lengths, pose by analytic inverse kinematics.

No iteration over the whole problem: every joint's rotation follows from the points that its bone carries, root first,
with each vector measured from the *reconstructed* position of its parent (Li et al., "HybrIK", CVPR 2021, adaptive
variant), so that errors do not add up along a limb. A single vector leaves the twist about it open: thighs and upper
arms take it from the plane in which knee and elbow bend, and where a limb is straight, from the frames around it
(Viterbi over twist angles; likewise for a trunk whose left and right were exchanged for some frames).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifting.anatomy import check_height
from lifting.body.ambiguities import find_turned, resolve_twists
from lifting.body.bone_lengths import fit_shape
from lifting.body.energy import State
from lifting.body.model import BodyModel
from lifting.body.points import PointSet
from lifting.body.priors import PosePrior
from lifting.body.seen_points import HIPS, NECK, PELVIS, SHOULDERS, SIDES, SeenPoints, read_points
from lifting.rotations import matrix_to_rotvec, rotation_between, rotvec_to_matrix
from lifting.skeletons import Skeleton, get_skeleton

__all__ = ["initial_state"]

SPINE = ("spine", "spine2")
HEAD = ("head", "head_top", "upper_neck", "neck_nose", "nose", "left_eye", "right_eye", "left_ear", "right_ear",
        "left_mouth", "right_mouth")  # fmt: skip
TOES = ("big_toe", "small_toe", "heel", "foot", "foot_index", "toe_base", "toe_end")
HANDS = ("hand", "index", "pinky", "thumb", "hand_base", "hand_end", "thumb_base", "thumb_end")
LIMBS = {"leg": ("hip", "knee", "ankle", "foot"), "arm": ("shoulder", "elbow", "wrist")}
CHAIN = ("pelvis", "spine1", "spine2", "spine3", "neck", "head", *(f"{side}_collar" for side in SIDES),
         *(f"{side}_{joint}" for side in SIDES for limb in LIMBS.values() for joint in limb))  # fmt: skip
SHAPE_FRAMES = 48  # frames whose poses the second step of the shape uses


def initial_state(
    body: BodyModel,
    layout: str | Skeleton,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
    height: float | None = None,
    prior: PosePrior | None = None,
) -> State:
    """Shape, rotations and trajectory that bring the body near the observed points, without iterating.

    Args:
        body: any body with the 22 joints of SMPL's names.
        layout: of the points; the body must have a regressor for it. Needed are both hips and both shoulders; what
            else the layout lacks (knees, head, toes, ...) rests as by default.
        targets: (T, J, 3) metres, in the frame the result is wanted in; NaN where not seen, bridged over time.
        weights: (T, J) confidences, 0 = not seen; default 1.
        height: standing height in metres, where known.
        prior: its most usual pose turns the joints that no point shows; default the body's rest pose.

    Returns:
        rotations (T, K, 3, 3), trajectory (T, 3) in metres and shape (S,); no offsets, the focal length as it is.

    Raises ValueError when shapes do not fit together, no frame shows some hip or shoulder, the body lacks a joint or a
    regressor, or the height is no person's.
    """
    check_height(height)
    if missing := [name for name in CHAIN if name not in body.joints]:
        raise ValueError(f"body {body.name!r} has no joint {', '.join(missing)}; expected SMPL's names of the 22 body "
                         "joints: rename the model's joints.")
    skeleton = get_skeleton(layout)
    points, seen = body.point_set(skeleton), read_points(skeleton, targets, weights)
    shape = fit_shape(body, points, seen, height)
    sample = seen.take(np.unique(np.linspace(0, len(seen) - 1, SHAPE_FRAMES).round().astype(int)))
    sampled = _fit_pose(body, points, sample, shape, prior)
    shape = fit_shape(body, points, seen, height, shape, sampled.local_rotations())
    pose = _fit_pose(body, points, seen, shape, prior)
    return State(pose.local_rotations(), pose.positions[:, 0], shape)


class _Pose:
    """Global rotations (T, K, 3, 3) and joint positions (T, K, 3), filled from the root outwards.

    `rest` holds where the observed points lie in the rest pose, by name: (3,) metres; `joint` likewise the joints.
    """

    def __init__(self, body: BodyModel, points: PointSet, seen: SeenPoints, shape: np.ndarray, prior) -> None:
        self.numbers = {name: index for index, name in enumerate(body.joints)}
        self.parents, self.joints = body.parents, body.rest_joints(shape)
        still = np.tile(np.eye(3), (1, body.num_joints, 1, 1))
        placed = points.evaluate(body.kinematics(still, self.joints[:1], shape), shape)[0]
        self.rest = {name: placed[column] for name, column in seen.column.items()}
        self.joint = dict(zip(body.joints, self.joints, strict=True))
        self.default = still[0] if prior is None else prior.mean_rotations(body.num_joints)
        self.rotations = np.tile(np.eye(3), (len(seen), body.num_joints, 1, 1))
        self.positions = np.zeros((len(seen), body.num_joints, 3))

    def carry(self, name: str) -> np.ndarray:
        """Put a joint where its parent carries it; return the global rotation (T, 3, 3) that it has by default."""
        child = self.numbers[name]
        parent = self.parents[child]
        step = self.joints[child] - self.joints[parent]
        self.positions[:, child] = self.positions[:, parent] + self.rotations[:, parent] @ step
        return self.rotations[:, parent] @ self.default[child]

    def turn(self, name: str, rotation: np.ndarray) -> None:
        """Set the global rotation (T, 3, 3) of a joint."""
        self.rotations[:, self.numbers[name]] = rotation

    def rotation(self, name: str) -> np.ndarray:
        """Global rotation (T, 3, 3) of a joint."""
        return self.rotations[:, self.numbers[name]]

    def position(self, name: str) -> np.ndarray:
        """Position (T, 3) of a joint."""
        return self.positions[:, self.numbers[name]]

    def arm(self, joint: str, point: str) -> np.ndarray:
        """Vector (3,) at rest from a joint to an observed point that it carries."""
        return self.rest[point] - self.joint[joint]

    def local_rotations(self) -> np.ndarray:
        """(T, K, 3, 3) rotations relative to the parents."""
        local = self.rotations.copy()
        local[:, 1:] = np.swapaxes(self.rotations[:, list(self.parents[1:])], -1, -2) @ self.rotations[:, 1:]
        return local


def _fit_pose(body: BodyModel, points: PointSet, seen: SeenPoints, shape: np.ndarray, prior) -> _Pose:
    pose = _Pose(body, points, seen, shape, prior)
    _, up, forward = body.axes().T
    seen = seen.exchanged(find_turned(_whole_trunk(pose, seen), up))
    _fit_trunk(pose, seen)
    _fit_head(pose, seen)
    limbs = [_aim_limb(pose, seen, side, kind, forward) for side in SIDES for kind in LIMBS]
    twists = resolve_twists(np.stack([limb.evidence for limb in limbs], axis=1))
    for limb, twist in zip(limbs, twists.T, strict=True):
        _finish_limb(pose, seen, limb, twist)
    for name in body.joints:
        if name not in CHAIN:  # fingers, jaw and eyes of larger models
            pose.turn(name, pose.carry(name))
    return pose


# ---- trunk and head


def _fit_trunk(pose: _Pose, seen: SeenPoints) -> None:
    """Turn the pelvis by the hips and the lower trunk, the chest by the shoulders and the upper trunk."""
    spine, top = seen.present(SPINE)[:1], seen.present(NECK)[:1] or list(SHOULDERS)
    whole = _whole_trunk(pose, seen)
    lower, upper = _between(pose, seen, spine or top, HIPS), _between(pose, seen, top, spine or HIPS)
    pose.turn("pelvis", _align([_between(pose, seen, HIPS[:1], HIPS[1:]), lower], [1.0, 0.3], whole))
    _place_root(pose, seen)
    chest = _align([_between(pose, seen, SHOULDERS[:1], SHOULDERS[1:]), upper], [1.0, 0.5], whole)
    _bend_spine(pose, seen, chest, top)


def _whole_trunk(pose: _Pose, seen: SeenPoints) -> np.ndarray:
    """Rotation (T, 3, 3) of a stiff trunk: hips, shoulders and what lies between them."""
    ends = (HIPS[:1], HIPS[1:]), (SHOULDERS[:1], SHOULDERS[1:]), (seen.present(NECK)[:1] or SHOULDERS, HIPS)
    return _align([_between(pose, seen, *pair) for pair in ends], [1.0, 0.5, 1.0])


def _between(pose: _Pose, seen: SeenPoints, heads, tails) -> tuple[np.ndarray, np.ndarray]:
    """The vector from the middle of the points `tails` to that of `heads`: (3,) at rest and (T, 3) as seen."""
    rest = np.mean([pose.rest[name] for name in heads], axis=0) - np.mean([pose.rest[name] for name in tails], axis=0)
    return rest, np.mean([seen[name] for name in heads], axis=0) - np.mean([seen[name] for name in tails], axis=0)


def _place_root(pose: _Pose, seen: SeenPoints) -> None:
    """Put joint 0 where the points of the pelvis have it on the average."""
    names, pelvis = seen.present(HIPS + PELVIS), pose.rotation("pelvis")
    roots = np.stack([seen[name] - pelvis @ pose.arm("pelvis", name) for name in names], axis=1)
    weights = seen.weights(names)[..., None]
    pose.positions[:, 0] = (weights * roots).sum(axis=1) / weights.sum(axis=1)


def _bend_spine(pose: _Pose, seen: SeenPoints, chest: np.ndarray, top: list[str], rounds: int = 2) -> None:
    """Share the turn from pelvis to chest among spine1..3, then lean the lower two until the neck is where seen."""
    pelvis = pose.rotation("pelvis")
    turn = matrix_to_rotvec(np.swapaxes(pelvis, -1, -2) @ chest)
    turned = {f"spine{i}": pelvis @ rotvec_to_matrix(turn * i / 3) for i in (1, 2)} | {"spine3": chest}
    target = np.mean([seen[name] for name in top], axis=0)
    arm = np.mean([pose.arm("spine3", name) for name in top], axis=0)
    for last in (*[False] * rounds, True):
        for name, rotation in turned.items():
            pose.carry(name)
            pose.turn(name, rotation)
        if not last:
            base = pose.position("spine1")
            lean = rotation_between(pose.position("spine3") + chest @ arm - base, target - base)
            turned |= {name: lean @ turned[name] for name in ("spine1", "spine2")}


def _fit_head(pose: _Pose, seen: SeenPoints) -> None:
    """Swing the neck toward the middle of the head's points, then turn the head by all of them."""
    names, neck = seen.present(HEAD), pose.carry("neck")
    if names:
        middle = np.mean([pose.arm("neck", name) for name in names], axis=0)
        neck = _swing(neck, middle, np.mean([seen[name] for name in names], axis=0) - pose.position("neck"))
    pose.turn("neck", neck)
    head = pose.carry("head")
    far = [name for name in names if np.linalg.norm(pose.arm("head", name)) > 0.03]  # nearer ones show no direction
    pose.turn("head", _align_points(pose, seen, "head", far, head) if far else head)


def _swing(rotation: np.ndarray, rest: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """Turn global rotations (T, 3, 3) by the least angle that brings their rest vector (3,) onto `aim` (T, 3)."""
    return rotation_between(rotation @ rest, aim) @ rotation


def _align_points(pose: _Pose, seen: SeenPoints, joint: str, names: list[str], default: np.ndarray) -> np.ndarray:
    """Turn a joint (T, 3, 3) so that the points it carries come nearest to those seen."""
    pairs = [(pose.arm(joint, name), seen[name] - pose.position(joint)) for name in names]
    return _align(pairs, list(seen.weights(names).T), default, stiffness=0.1)


def _align(pairs: list, weights: list, default: np.ndarray | None = None, stiffness: float = 0.03) -> np.ndarray:
    """Rotations (T, 3, 3) that best turn rest vectors (3,) into seen ones (T, 3); only directions count.

    Wahba's problem (1965), solved as Kabsch (1976) by the singular value decomposition. weights: a number or (T,) for
    each pair. `default` (T, 3, 3) decides, with weight `stiffness`, what the vectors leave open.
    """
    moment = 0.0 if default is None else stiffness * default
    for (rest, seen), weight in zip(pairs, weights, strict=True):
        moment = moment + np.reshape(weight, (-1, 1, 1)) * _unit(seen)[:, :, None] * _unit(rest)
    u, _, vt = np.linalg.svd(moment)
    u[..., 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return u @ vt


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


# ---- limbs


@dataclass(frozen=True, eq=False)
class _Limb:
    """A limb whose upper bone points at the knee or elbow, its twist still open.

    joints: root, middle, end (and tip) joint; of the points, `middle` and `end` bear their joints' names where seen,
    `extremity` are toes and heel, or fingers. evidence: complex (T,), see `resolve_twists`.
    """

    joints: tuple[str, ...]
    extremity: list[str]
    evidence: np.ndarray


def _aim_limb(pose: _Pose, seen: SeenPoints, side: str, kind: str, forward: np.ndarray) -> _Limb:
    """Swing the upper bone at the knee or elbow; say how far its twist misses the plane in which the limb bends."""
    joints = tuple(f"{side}_{joint}" for joint in LIMBS[kind])
    root, middle, end = joints[:3]
    if kind == "arm":
        collar = f"{side}_collar"
        rotation = pose.carry(collar)
        pose.turn(collar, _swing(rotation, pose.arm(collar, root), seen[root] - pose.position(collar)))
    upper, evidence = pose.carry(root), np.zeros(len(seen), dtype=complex)
    if middle in seen.column:
        aim = seen[middle] - pose.position(root)
        upper = _swing(upper, pose.arm(root, middle), aim)
        if end in seen.column:  # shins fold backward, forearms forward
            hinge = np.cross(pose.arm(root, middle), forward if kind == "arm" else -forward)
            bend = np.cross(_unit(aim), _unit(seen[end] - seen[middle]))
            evidence = _turn_about(_unit(aim), upper @ _unit(hinge), bend) * seen.weights([middle, end]).min(axis=1)
    pose.turn(root, upper)
    parts = TOES if kind == "leg" else HANDS
    return _Limb(joints, seen.present(f"{side}_{part}" for part in parts), evidence)


def _turn_about(axis: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Complex (T,): the angle by which unit vectors `start` turn about `axis` toward `stop`, in size |stop|."""
    cosine = np.einsum("tc,tc->t", start, stop)
    return cosine + 1j * np.einsum("tc,tc->t", axis, np.cross(start, stop))


def _finish_limb(pose: _Pose, seen: SeenPoints, limb: _Limb, twist: np.ndarray) -> None:
    """Twist the upper bone (T,) radians, swing the lower one at the ankle or wrist, turn foot or hand."""
    root, middle, end, *tip = limb.joints
    if middle in seen.column:
        axis = _unit(seen[middle] - pose.position(root))
        pose.turn(root, rotvec_to_matrix(twist[:, None] * axis) @ pose.rotation(root))
    lower = pose.carry(middle)
    if end in seen.column:
        lower = _swing(lower, pose.arm(middle, end), seen[end] - pose.position(middle))
    pose.turn(middle, lower)
    last = pose.carry(end)
    pose.turn(end, _align_points(pose, seen, end, limb.extremity, last) if limb.extremity else last)
    for name in tip:
        pose.turn(name, pose.carry(name))
