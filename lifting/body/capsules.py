"""Self-intersection by capsules: one swept sphere per bone, pushed apart where two of them overlap.

Capsules are fitted once to the rest mesh of a body (`fit_capsules`). Between two capsules there is one residual, the
depth of their overlap r_i + r_j - d where d is the distance of their axes, and zero when they are apart: the energy is
the sum of its squares. The closest points of two segments follow Ericson, "Real-Time Collision Detection" (2005),
section 5.1.9; the derivative of d moves with them as if they were fixed on their bones (envelope theorem).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lifting.body.energy import FixedTerm, State
from lifting.body.points import Kinematics, ancestor_matrix

if TYPE_CHECKING:
    from lifting.body.model import BodyModel
    from lifting.body.normal_equations import NormalEquations

RADIUS_QUANTILE = 0.3
"""Share of a bone's vertices that lie within its capsule's radius."""
END_QUANTILE = 0.95
"""Where the bone of a last joint (head, hand, foot) ends: this quantile of its vertices along its axis."""
REST_MARGIN = 0.01
"""Metres by which two capsules must be apart in the rest pose to be compared at all."""


@dataclass(frozen=True, eq=False)
class Capsules:
    """C capsules on the bones of a body and the P pairs of them that may collide.

    Attributes:
        bones: (C,) the joint that carries each capsule.
        children: (C,) the joint that its axis runs towards, -1 where it runs along `tips`.
        starts: (C, 3) metres from the joint to the start of the axis, in the bone's axes (flesh is not centred).
        tips: (C, 3) metres from the start to the end of the axis, in the bone's axes; used where there is no child.
        radii: (C,) metres.
        pairs: (P, 2) numbers of capsules.
    """

    bones: np.ndarray
    children: np.ndarray
    starts: np.ndarray
    tips: np.ndarray
    radii: np.ndarray
    pairs: np.ndarray

    def axes(self, rest_joints: np.ndarray) -> np.ndarray:
        """Vectors (C, 3) from start to end of every axis in its bone's axes. rest_joints: (K, 3) metres."""
        return np.where(self.children[:, None] >= 0, rest_joints[self.children] - rest_joints[self.bones], self.tips)

    def segments(self, kinematics: Kinematics) -> tuple[np.ndarray, np.ndarray]:
        """Starts and vectors to the ends of all axes, (T, C, 3) metres each, in the frame of the motion."""
        local = np.stack([self.starts, self.axes(kinematics.rest_joints)], axis=-1)
        turned = kinematics.global_rotations[:, self.bones] @ local
        return kinematics.joints[:, self.bones] + turned[..., 0], turned[..., 1]


def fit_capsules(body: BodyModel, shape: np.ndarray | None = None) -> Capsules:
    """Capsules for a body: axis from joint to child, moved to the middle of the vertices that follow the bone.

    The radius is a low quantile of these vertices' distances, so that wide parts (trunk, hand) are not fattened.
    A joint with several children carries one capsule for each, and its vertices belong to the nearest of them. A joint
    without children (head, hand, foot) gets an axis along its vertices. Bones without vertices get none. Pairs are
    those that share no joint and are apart in the rest pose. shape: (S,) coefficients, the mean body by default.
    """
    shape = np.zeros(body.num_shape) if shape is None else np.asarray(shape, dtype=np.float64)
    joints, vertices = body.rest_joints(shape), body.rest_vertices(shape)
    owner = body.skin_weights.toarray().argmax(axis=1)  # scipy's own loops over the rows
    fitted = [capsule for bone in range(body.num_joints)
              for capsule in _fit_bone(bone, body.parents, joints, vertices[owner == bone])]
    if not fitted:
        raise ValueError(f"body {body.name!r} has no vertices on any bone, expected skinning weights; check the file.")
    columns = [np.array(column) for column in zip(*fitted, strict=True)]
    capsules = Capsules(*columns, np.zeros((0, 2), dtype=int))
    return replace(capsules, pairs=_separable_pairs(capsules, np.asarray(body.parents), joints))


class SelfIntersection(FixedTerm):
    """Energy term: overlaps of capsules beyond `slack`, each divided by `sigma` metres.

    Bodies give way and capsules only resemble them: of 10,000 frames of motion capture put on the embedded body, 48 %
    hold an overlap and 19 % one of more than 3 cm (mostly hands on hips, thighs of dancers). Hence the slack.
    """

    name = "self_intersection"

    def __init__(self, body: BodyModel, capsules: Capsules | None = None, sigma: float = 0.02, slack: float = 0.03):
        """slack: metres of overlap that cost nothing. Raises ValueError for a sigma that is not positive."""
        if not sigma > 0 or slack < 0:
            raise ValueError(f"got sigma {sigma} and slack {slack} m, expected sigma > 0 and slack >= 0.")
        self.capsules = fit_capsules(body) if capsules is None else capsules
        self.sigma, self.slack = float(sigma), float(slack)
        self._carries = ancestor_matrix(body.parents).T  # row k: k and the joints above it
        self._parents, self._directions = np.asarray(body.parents), np.asarray(body.joint_directions)

    def residuals(self, state: State, kinematics: Kinematics) -> np.ndarray:
        """Depth of overlap beyond the slack (T, P) metres of every pair, 0 where apart."""
        overlap = np.zeros((len(kinematics.joints), len(self.capsules.pairs)))
        contact = self._touching(kinematics)
        overlap[contact.frames, contact.pairs] = contact.depth
        return overlap

    def cost(self, state: State, kinematics: Kinematics) -> float:
        """Half the sum of squared overlaps over sigma."""
        return 0.5 * float(np.sum((self._touching(kinematics).depth / self.sigma) ** 2))

    def add_to(self, system: NormalEquations, state: State, kinematics: Kinematics) -> float:
        """Add the overlaps' normal equations; returns the cost."""
        contact = self._touching(kinematics)
        if not len(contact.depth):
            return 0.0
        rows, shape_rows = self._jacobian(contact, kinematics)
        frames, joints = kinematics.joints.shape[:2]
        slot, width = _slots(contact.frames, frames)
        jacobian = np.zeros((frames, width, 3 * joints + 3))
        jacobian[contact.frames, slot, : 3 * joints] = rows / self.sigma
        residual = np.zeros((frames, width))
        residual[contact.frames, slot] = contact.depth / self.sigma
        on_shape = np.zeros((frames, width, shape_rows.shape[1]))
        on_shape[contact.frames, slot] = shape_rows / self.sigma
        system.add_frames(jacobian, residual, system.layout.jacobian(residual.shape, shape=on_shape))
        return 0.5 * float((residual**2).sum())

    def _touching(self, kinematics: Kinematics) -> _Overlaps:
        """The overlapping pairs of all frames, found among those whose bounding spheres overlap."""
        capsules = self.capsules
        start, axis = capsules.segments(kinematics)
        first, second = capsules.pairs.T
        frames, pairs = _broad_phase(start, axis, capsules.radii, capsules.pairs)
        i, j = first[pairs], second[pairs]
        s, t = closest_points(start[frames, i], axis[frames, i], start[frames, j], axis[frames, j])
        a = start[frames, i] + s[:, None] * axis[frames, i]
        b = start[frames, j] + t[:, None] * axis[frames, j]
        depth = capsules.radii[i] + capsules.radii[j] - self.slack - np.linalg.norm(a - b, axis=-1)
        hit = depth > 0
        normal = _normals((a - b)[hit], axis[frames[hit], i[hit]], axis[frames[hit], j[hit]])
        return _Overlaps(frames[hit], pairs[hit], depth[hit], normal, a[hit], b[hit], s[hit], t[hit])

    def _jacobian(self, contact: _Overlaps, kinematics: Kinematics) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the depths (N,) by rotations (N, 3K) and shape (N, S); moving the whole body changes none."""
        first, second = self.capsules.pairs[contact.pairs].T
        rotations, joints = kinematics.global_rotations[contact.frames], kinematics.joints[contact.frames]
        rows = np.zeros_like(joints)
        for points, capsule, sign in ((contact.a, first, -1.0), (contact.b, second, 1.0)):
            moved = self._carries[self.capsules.bones[capsule]][..., None]  # (N, K, 1): joints above the capsule
            rows += sign * moved * np.cross(points[:, None] - joints, contact.normal[:, None])
        rows = np.einsum("nkji,nkj->nki", rotations, rows)
        return rows.reshape(len(rows), -1), self._shape_rows(contact, kinematics)

    def _shape_rows(self, contact: _Overlaps, kinematics: Kinematics) -> np.ndarray:
        """Derivatives (N, S) of the depths by the shape, which moves the joints that the axes hang on."""
        first, second = self.capsules.pairs[contact.pairs].T
        moves = joint_shape_derivatives(kinematics.global_rotations, self._parents, self._directions)
        rows = 0.0
        for capsule, along, sign in ((first, contact.s, -1.0), (second, contact.t, 1.0)):
            bone, child = self.capsules.bones[capsule], self.capsules.children[capsule]
            grow = np.where(child[:, None, None] >= 0, self._directions[child] - self._directions[bone], 0.0)
            turn = kinematics.global_rotations[contact.frames, bone]
            point = moves[contact.frames, bone] + along[:, None, None] * (turn @ grow)
            rows = rows + sign * np.einsum("ni,nis->ns", contact.normal, point)
        return rows


@dataclass(frozen=True, eq=False)
class _Overlaps:
    """N overlaps: frame, pair, depth, unit normal from b to a, the closest points a and b, their places on the axes."""

    frames: np.ndarray
    pairs: np.ndarray
    depth: np.ndarray
    normal: np.ndarray
    a: np.ndarray
    b: np.ndarray
    s: np.ndarray
    t: np.ndarray


def closest_points(p: np.ndarray, u: np.ndarray, q: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where two segments are closest: s and t (...,) in [0, 1] with points p + s u and q + t v.

    p, q: (..., 3) starts; u, v: (..., 3) vectors to the ends, zero for a point. Of parallel segments one of the equally
    close pairs is returned.
    """
    r = p - q
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    ur, vr = (u * r).sum(-1), (v * r).sum(-1)
    crossing = uu * vv - uv**2
    lines = crossing > 1e-12 * uu * vv
    s = np.where(lines, np.clip(_ratio(uv * vr - ur * vv, crossing), 0.0, 1.0), 0.0)
    t = np.clip(_ratio(uv * s + vr, vv), 0.0, 1.0)  # closest to the point s; clipped, the end decides s again
    s = np.clip(_ratio(uv * t - ur, uu), 0.0, 1.0)
    return s, t


def joint_shape_derivatives(rotations: np.ndarray, parents: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Derivatives (T, K, 3, S) of the posed joints by the shape, the root held. rotations: (T, K, 3, 3) global."""
    moves = np.zeros((len(rotations), *directions.shape))
    for joint, parent in enumerate(parents):
        if parent >= 0:
            moves[:, joint] = moves[:, parent] + rotations[:, parent] @ (directions[joint] - directions[parent])
    return moves


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotients, 0 where there is nothing to divide by (a segment that is a point)."""
    usable = denominator > 1e-300
    return np.where(usable, numerator / np.where(usable, denominator, 1.0), 0.0)


def _broad_phase(
    start: np.ndarray, axis: np.ndarray, radii: np.ndarray, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frames and pairs whose bounding spheres overlap."""
    first, second = pairs.T
    centre = start + 0.5 * axis
    centre -= centre[:, :1].copy()  # near the origin, the products below lose nothing that matters
    reach = radii + 0.5 * np.linalg.norm(axis[:1], axis=-1)  # axes are rigid
    product = centre @ centre.swapaxes(1, 2)
    square = np.einsum("tcc->tc", product)
    apart = square[:, first] + square[:, second] - 2 * product[:, first, second]
    return np.nonzero(apart < (reach[:, first] + reach[:, second] + 1e-6) ** 2)


def _normals(gap: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 3) along `gap`; where that is zero, at right angles to the axes u and v, or any."""
    distance = np.linalg.norm(gap, axis=-1, keepdims=True)
    across = np.cross(u, v)
    length = np.linalg.norm(across, axis=-1, keepdims=True)
    across = np.where(length > 1e-12, across / np.where(length > 1e-12, length, 1.0), np.array([1.0, 0.0, 0.0]))
    return np.where(distance > 1e-9, gap / np.where(distance > 1e-9, distance, 1.0), across)


def _slots(frames: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """A row number (N,) for every overlap within its frame, and the largest number of rows; frames are sorted."""
    per_frame = np.bincount(frames, minlength=count)
    first = np.cumsum(per_frame) - per_frame
    return np.arange(len(frames)) - first[frames], int(per_frame.max())


def _fit_bone(
    bone: int, parents: Sequence[int], joints: np.ndarray, vertices: np.ndarray
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, float]]:
    """Yield (bone, child, start, tip, radius) of a bone's capsules."""
    children = [child for child, parent in enumerate(parents) if parent == bone]
    local = vertices - joints[bone]
    if len(local) < 3:
        return
    if not children:
        tip = _tip(local)
        yield bone, -1, np.zeros(3), tip, _radius(local, tip)
        return
    axes = joints[children] - joints[bone]
    nearest = np.argmin([_distance_to_segment(local, axis) for axis in axes], axis=0)
    for number, (child, axis) in enumerate(zip(children, axes, strict=True)):
        own = local[nearest == number]
        if len(own) >= 3:
            start = _off_axis(own, axis)
            yield bone, child, start, np.zeros(3), _radius(own - start, axis)


def _tip(local: np.ndarray) -> np.ndarray:
    """End of the axis of a last bone: from its joint through the middle of its vertices, almost to their end."""
    middle = local.mean(axis=0)
    length = np.linalg.norm(middle)
    if length < 1e-6:
        return np.zeros(3)
    direction = middle / length
    reach = float(np.quantile(local @ direction, END_QUANTILE))
    radius = _radius(local, reach * direction)
    return max(reach - radius, 0.0) * direction


def _off_axis(local: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Vector (3,) from the axis to the middle between the vertices' extremes, at right angles to the axis."""
    direction = axis / max(float(np.linalg.norm(axis)), 1e-12)
    across = local - (local @ direction)[:, None] * direction
    return (across.max(axis=0) + across.min(axis=0)) / 2 @ (np.eye(3) - np.outer(direction, direction))


def _radius(local: np.ndarray, axis: np.ndarray) -> float:
    """Radius around an axis, from the vertices beside it (not before its start or beyond its end)."""
    along = local @ axis / max(float(axis @ axis), 1e-12)
    beside = (along >= 0) & (along <= 1)
    chosen = local[beside] if np.count_nonzero(beside) >= 3 else local
    return float(np.quantile(_distance_to_segment(chosen, axis), RADIUS_QUANTILE))


def _distance_to_segment(points: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Distances (N,) of points from the segment between the origin and `axis`."""
    along = np.clip(points @ axis / max(float(axis @ axis), 1e-12), 0.0, 1.0)
    return np.linalg.norm(points - along[:, None] * axis, axis=-1)


def _separable_pairs(capsules: Capsules, parents: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Pairs (P, 2) of capsules that share no joint and do not touch in the rest pose."""
    first, second = np.triu_indices(len(capsules.bones), 1)
    start, axis = joints[capsules.bones] + capsules.starts, capsules.axes(joints)
    s, t = closest_points(start[first], axis[first], start[second], axis[second])
    gap = start[first] + s[:, None] * axis[first] - start[second] - t[:, None] * axis[second]
    apart = np.linalg.norm(gap, axis=-1) > capsules.radii[first] + capsules.radii[second] + REST_MARGIN
    related = np.zeros(len(first), dtype=bool)
    for one, other in ((first, second), (second, first)):
        related |= capsules.bones[one] == capsules.bones[other]
        related |= parents[capsules.bones[one]] == capsules.bones[other]
        related |= (capsules.children[one] >= 0) & (capsules.children[one] == capsules.bones[other])
    return np.stack([first, second], axis=1)[apart & ~related]
