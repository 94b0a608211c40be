"""Joints and keypoints of a body as linear forms of its bones: points and exact Jacobians without skinning the mesh.

A keypoint regressor takes weighted sums of vertices and joint centres. Linear blend skinning is linear in the global
rotations of the bones and in the position of the root, and so is every such sum: with ``G_b`` the global rotation of
bone b, ``p`` the position of joint 0 and ``s`` the shape,

    x_j = w_j p + sum_b G_b e_jb(s, pose),      e_jb = offsets + offset_directions s (+ pose blendshapes).

The vectors e_jb are computed once for a regressor; a point then costs a few multiplications. The same form gives the
Jacobian. A rotation vector w_i on the right of a local rotation, ``R_i <- R_i exp([w_i]x)``, turns all bones below
joint i by G_i w_i, so

    d x_j / d w_i = -[q_ji]x G_i,      q_ji = sum over the bones b at and below i of G_b e_jb.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from lifting.body.model import BodyModel

_KEPT_WHEN_SHIFTED = ("anchor_bones", "total_weights", "ancestors", "_moves", "_pairs", "_placement", "_shape_forms")
_FRAMES_AT_ONCE = 8  # the working arrays of so many frames stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Kinematics:
    """A body's bones over T frames.

    Attributes:
        rotations: (T, K, 3, 3) local rotations.
        global_rotations: (T, K, 3, 3) bone axes to the frame.
        joints: (T, K, 3) metres, joint positions in the frame.
        rest_joints: (K, 3) metres, joints of the shape in the rest pose.
    """

    rotations: np.ndarray
    global_rotations: np.ndarray
    joints: np.ndarray
    rest_joints: np.ndarray

    def __len__(self) -> int:
        """T."""
        return len(self.joints)

    def sliced(self, frames: slice) -> Kinematics:
        """The bones of some frames."""
        return Kinematics(self.rotations[frames], self.global_rotations[frames], self.joints[frames], self.rest_joints)

    @property
    def trajectory(self) -> np.ndarray:
        """(T, 3) metres, position of joint 0."""
        return self.joints[:, 0]

    @cached_property
    def columns(self) -> np.ndarray:
        """(T, 3, 3K) the global rotations side by side, contiguous: ``[G_0 | G_1 | ...]``."""
        frames, bones = self.joints.shape[:2]
        return np.ascontiguousarray(self.global_rotations.swapaxes(1, 2)).reshape(frames, 3, 3 * bones)

    @cached_property
    def axes(self) -> np.ndarray:
        """(T, 3, 3, K) contiguous: entry (t, a, c, k) is component a of axis c of bone k."""
        return np.ascontiguousarray(self.global_rotations.transpose(0, 2, 3, 1))

    @cached_property
    def pose_features(self) -> np.ndarray:
        """(T, 9 (K - 1)) what pose blendshapes are linear in: ``R_k - I`` of joints 1.., row-major (SMPL's order)."""
        frames, bones = self.joints.shape[:2]
        return (self.rotations[:, 1:] - np.eye(3)).reshape(frames, 9 * (bones - 1))


@dataclass(frozen=True, eq=False)
class PointSet:
    """J points of a body as linear forms of its K bones (see the module's docstring).

    Attributes:
        names: J names.
        parents: K joint numbers of the body.
        weights: (J, K) share of a point that each bone carries; rows of usual regressors sum to 1.
        offsets: (J, K, 3) metres, e_jb of the mean shape.
        offset_directions: (J, K, 3, S) metres per shape coefficient.
        pose_points, pose_bones: (N,) for which point and bone the rows of `pose_directions` are.
        pose_directions: (N, 3, 9 (K - 1)) metres, change of e_jb with `Kinematics.pose_features`; None without pose
            blendshapes.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    weights: np.ndarray
    offsets: np.ndarray
    offset_directions: np.ndarray
    pose_points: np.ndarray | None = None
    pose_bones: np.ndarray | None = None
    pose_directions: np.ndarray | None = None

    @property
    def num_points(self) -> int:
        """J."""
        return len(self.names)

    @cached_property
    def total_weights(self) -> np.ndarray:
        """(J,) the w_j: how far a point moves with the root's position."""
        return self.weights.sum(axis=1)

    @cached_property
    def anchor_bones(self) -> np.ndarray:
        """(J,) the bone that carries the largest part of each point."""
        return np.abs(self.weights).argmax(axis=1)

    @cached_property
    def ancestors(self) -> np.ndarray:
        """(K, K) 1 where joint i (row) is bone b (column) or above it, else 0."""
        return ancestor_matrix(self.parents)

    def subset(self, indices: Iterable[int]) -> PointSet:
        """Some of the points, in the order asked for."""
        chosen = np.asarray(list(indices), dtype=int)
        chosen = np.arange(self.num_points)[chosen]
        pose = {}
        if self.pose_directions is not None and np.isin(self.pose_points, chosen).any():
            rows = [np.flatnonzero(self.pose_points == point) for point in chosen]
            order = np.concatenate(rows)
            pose = {"pose_points": np.repeat(np.arange(len(chosen)), [len(row) for row in rows]),
                    "pose_bones": self.pose_bones[order], "pose_directions": self.pose_directions[order]}
        return PointSet(tuple(self.names[i] for i in chosen), self.parents, self.weights[chosen],
                        self.offsets[chosen], self.offset_directions[chosen], **pose)

    def shifted(self, shifts: np.ndarray) -> PointSet:
        """The points with (J, 3) metres added to each in the axes of its anchor bone."""
        each = np.arange(self.num_points)
        offsets = self.offsets.copy()
        offsets[each, self.anchor_bones] += shifts
        result = replace(self, offsets=offsets)
        if self._moves[each, self.anchor_bones][shifts.any(axis=1)].all():  # what moves what stays the same
            for name in _KEPT_WHEN_SHIFTED:
                vars(result)[name] = getattr(self, name)
        return result

    # ---- values

    def shaped_offsets(self, shape: np.ndarray) -> np.ndarray:
        """(J, K, 3) metres: e_jb of a shape, without pose blendshapes."""
        return self.offsets + self.offset_directions @ shape

    def evaluate(self, kinematics: Kinematics, shape: np.ndarray) -> np.ndarray:
        """The points (T, J, 3) in metres in the frame; shape: (S,)."""
        forms = self.shaped_offsets(shape).reshape(self.num_points, 3 * len(self.parents)).T
        points = _stacked_product(kinematics.columns, forms)
        points += kinematics.trajectory[:, :, None] * self.total_weights
        if self.pose_directions is not None:
            points += _stacked_product(self._pose_parts(kinematics), self._pose_sums)
        return np.ascontiguousarray(points.swapaxes(1, 2))

    def _pose_parts(self, kinematics: Kinematics) -> np.ndarray:
        """(T, 3, N) metres: what pose blendshapes add, for each point and bone, in the frame."""
        parts, _, features = self.pose_directions.shape
        moved = kinematics.pose_features @ self.pose_directions.reshape(3 * parts, features).T
        moved = moved.reshape(len(kinematics), parts, 3)
        return (kinematics.global_rotations[:, self.pose_bones] @ moved[..., None])[..., 0].swapaxes(1, 2)

    @cached_property
    def _pose_sums(self) -> np.ndarray:
        """(N, J) adds the pose parts of each point."""
        return (self.pose_points[:, None] == np.arange(self.num_points)).astype(np.float64)

    # ---- Jacobian

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(P,), (P,) points and joints for which turning the joint moves the point."""
        below = np.einsum("ib,jb->ji", self.ancestors, self._moves.astype(np.float64))
        return np.nonzero(below)

    @cached_property
    def _moves(self) -> np.ndarray:
        """(J, K) bool: does the rotation of the bone move the point?"""
        moves = np.any(self.offsets != 0, axis=-1) | np.any(self.offset_directions != 0, axis=(-2, -1))
        if self.pose_directions is not None:
            moves[self.pose_points, self.pose_bones] = True
        return moves

    @cached_property
    def _placement(self) -> np.ndarray:
        """(J, 3, 3K + 3 + S) where each entry of a frame's `rows` comes from in what `_write_parts` writes."""
        points, joints = self._pairs
        count, bones, size = len(points), len(self.parents), self.offset_directions.shape[-1]
        place = np.full((self.num_points, 3, 3 * bones + 3 + size), 9 * count)  # the zero
        component, axis = np.indices((3, 3))
        place[points[:, None, None], component, 3 * joints[:, None, None] + axis] = (
            np.arange(count)[:, None, None] + count * (3 * component + axis))
        point, start = np.arange(self.num_points), 9 * count + 1
        place[:, range(3), range(3 * bones, 3 * bones + 3)] = start + point[:, None]
        start += self.num_points
        by_shape = np.arange(start, start + 3 * self.num_points * size).reshape(3, self.num_points, size)
        place[..., 3 * bones + 3 :] = by_shape.swapaxes(0, 1)
        return place

    def jacobian(self, kinematics: Kinematics, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The points and their derivatives; shape: (S,).

        Returns points (T, J, 3) in metres; d_rotation (T, J, 3, 3K), derivative with respect to the rotation vectors
        w_k of ``R_k <- R_k exp([w_k]x)``, joint after joint; d_shape (T, J, 3, S). The derivative with respect to the
        trajectory is `total_weights` times the identity.
        """
        points, rows = self.rows(kinematics, shape)
        turned = 3 * len(self.parents)
        return points, np.ascontiguousarray(rows[..., :turned]), np.ascontiguousarray(rows[..., turned + 3 :])

    def rows(self, kinematics: Kinematics, shape: np.ndarray, by_shape: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The points (T, J, 3) and all their derivatives side by side (T, J, 3, 3K + 3 + S), as a solver wants them.

        The columns are `jacobian`'s d_rotation, then by the trajectory, then by the shape; the last only if `by_shape`.
        """
        points, arms = self.evaluate(kinematics, shape), self._arms(kinematics, shape)
        frames, bones = len(kinematics), len(self.parents)
        place = self._placement if by_shape else self._placement[..., : 3 * bones + 3]
        rows = np.empty((frames, place.size))
        parts = np.zeros((min(frames, _FRAMES_AT_ONCE), self._count_parts(by_shape)))
        for start in range(0, frames, _FRAMES_AT_ONCE):
            block = slice(start, min(start + _FRAMES_AT_ONCE, frames))
            part = parts[: block.stop - start]
            self._write_parts(part, kinematics, arms, block)
            np.take(part, place.reshape(-1), axis=1, out=rows[block], mode="clip")
        rows = rows.reshape(frames, *place.shape)
        if self.pose_directions is not None:
            self._add_pose_derivative(kinematics, rows)
        return points, rows

    def _count_parts(self, by_shape: bool) -> int:
        """How many numbers `_write_parts` writes for a frame."""
        shape_parts = 3 * self.num_points * self.offset_directions.shape[-1]
        return 9 * len(self._pairs[0]) + 1 + self.num_points + by_shape * shape_parts

    def _arms(self, kinematics: Kinematics, shape: np.ndarray) -> np.ndarray:
        """(T, 3, P) metres: q_ji of every pair."""
        points, joints = self._pairs
        forms = self.ancestors[joints][:, :, None] * self.shaped_offsets(shape)[points]
        arms = _stacked_product(kinematics.columns, forms.reshape(len(points), 3 * len(self.parents)).T)
        if self.pose_directions is not None:
            below = (self.pose_points[:, None] == points) * self.ancestors[joints][:, self.pose_bones].T
            arms += _stacked_product(self._pose_parts(kinematics), below)
        return arms

    def _write_parts(self, parts: np.ndarray, kinematics: Kinematics, arms: np.ndarray, block: slice) -> None:
        """Write what the `rows` of some frames consist of into `parts` (T', N), one after the other.

        They are the axes of each joint times its arms, (component, axis, pair) of the cross products; a zero; the total
        weights; and, if there is room for them, the derivatives by the shape, (component, point, coefficient).
        """
        joints, arm = self._pairs[1], arms[block, :, None]
        count, start = len(joints), 9 * len(joints) + 1
        axes = np.take(kinematics.axes[block], joints, axis=-1)
        cross = parts[:, : 9 * count].reshape(len(parts), 3, 3, count)
        for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            np.multiply(axes[:, b], arm[:, c], out=cross[:, a])
            cross[:, a] -= axes[:, c] * arm[:, b]
        parts[:, start : start + self.num_points] = self.total_weights
        start += self.num_points
        if start < parts.shape[1]:
            parts[:, start:] = _stacked_product(kinematics.columns[block], self._shape_forms).reshape(len(parts), -1)

    @cached_property
    def _shape_forms(self) -> np.ndarray:
        """(3K, J S) what the global rotations are multiplied by for the derivatives by the shape."""
        points, bones, _, size = self.offset_directions.shape
        return self.offset_directions.transpose(1, 2, 0, 3).reshape(3 * bones, points * size)

    def _add_pose_derivative(self, kinematics: Kinematics, rows: np.ndarray) -> None:
        """Add how the pose blendshapes themselves change: their features R_k - I change by ``R_k [w_k]x``."""
        frames, bones = len(kinematics), len(self.parents)
        changes = np.ascontiguousarray(_feature_changes(kinematics.rotations[:, 1:]).swapaxes(-1, -2))
        by_feature = self._by_feature(kinematics)
        for start in range(0, frames, _FRAMES_AT_ONCE):
            part = slice(start, start + _FRAMES_AT_ONCE)
            given = np.ascontiguousarray(by_feature[:, part].transpose(1, 3, 0, 2, 4))  # (t, K - 1, J, 3, 9)
            moved = given.reshape(*given.shape[:2], 3 * self.num_points, 9) @ changes[part]
            moved = moved.reshape(*given.shape[:-1], 3).transpose(0, 2, 3, 1, 4)
            rows[part, ..., 3 : 3 * bones] += moved.reshape(*moved.shape[:3], -1)

    def _by_feature(self, kinematics: Kinematics) -> np.ndarray:
        """(J, T, 3, K - 1, 9) metres: derivative of the points with respect to `Kinematics.pose_features`."""
        frames, bones = len(kinematics), len(self.parents)
        result = np.zeros((self.num_points, frames, 3, 9 * (bones - 1)))
        for point in np.unique(self.pose_points):
            rows = np.flatnonzero(self.pose_points == point)
            turned = kinematics.global_rotations[:, self.pose_bones[rows]].swapaxes(1, 2)
            turned = turned.reshape(frames, 3, 3 * len(rows))
            result[point] = _stacked_product(turned, self.pose_directions[rows].reshape(3 * len(rows), -1))
        return result.reshape(self.num_points, frames, 3, bones - 1, 9)


def _feature_changes(rotations: np.ndarray) -> np.ndarray:
    """(..., 3, 9): the entries of ``R [e_w]x``, row-major, for the three axes w of each rotation (..., 3, 3)."""
    crosses = np.zeros((3, 3, 3))  # crosses[w] = [e_w]x
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        crosses[a, c, b], crosses[a, b, c] = 1, -1
    return (rotations[..., None, :, :] @ crosses).reshape(*rotations.shape[:-2], 3, 9)


def ancestor_matrix(parents: Sequence[int]) -> np.ndarray:
    """(K, K) float64: 1 where joint i (row) is joint k (column) or above it, else 0."""
    matrix = np.eye(len(parents))
    for joint in range(len(parents)):
        above = parents[joint]
        while above >= 0:
            matrix[above, joint] = 1
            above = parents[above]
    return matrix


def build_points(body: BodyModel, regressor: sparse.spmatrix, names: Sequence[str]) -> PointSet:
    """The points of a regressor (J, V + K), whose columns are the vertices and then the joint centres of the body.

    x_j = sum_v a_jv x_v + sum_k a_j,V+k P_k. A vertex is carried by its bones from their joint centres (offset from
    joint to vertex), a joint centre by the chain of bones above it (offset from joint to joint).
    """
    regressor = sparse.csr_matrix(regressor)
    on_vertices, on_joints = regressor[:, : body.num_vertices], regressor[:, body.num_vertices :].toarray()
    template = np.concatenate([body.template[:, :, None], body.shape_directions], axis=-1)  # (V, 3, 1 + S)
    joints = np.concatenate([body.joint_template[:, :, None], body.joint_directions], axis=-1)
    carried = (on_vertices @ body.skin_weights).toarray()
    weights = carried + on_joints
    forms = np.zeros((len(names), body.num_joints, *template.shape[1:]))
    for bone in range(body.num_joints):
        share = on_vertices.multiply(body.skin_weights[:, [bone]].T).tocsr()
        forms[:, bone] = (share @ template.reshape(body.num_vertices, -1)).reshape(len(names), *template.shape[1:])
    forms -= carried[:, :, None, None] * joints
    below = weights @ ancestor_matrix(body.parents).T  # (J, K) weight of all bones at and below a joint
    for joint, parent in enumerate(body.parents):
        if parent >= 0:
            forms[:, parent] += below[:, joint, None, None] * (joints[joint] - joints[parent])
    return PointSet(tuple(names), body.parents, weights, forms[..., 0].copy(), forms[..., 1:].copy(),
                    **_pose_part(body, on_vertices))


def _pose_part(body: BodyModel, on_vertices: sparse.csr_matrix) -> dict[str, np.ndarray]:
    """The pose fields of a PointSet: pose blendshapes summed over the vertices of each point and bone."""
    if body.pose_directions is None:
        return {}
    points, bones, rows = [], [], []
    for point in range(on_vertices.shape[0]):
        row = on_vertices[point]
        share = body.skin_weights[row.indices].multiply(row.data[:, None]).toarray()  # (vertices of the point, K)
        carriers = np.flatnonzero(share.any(axis=0))
        points += [point] * len(carriers)
        bones += carriers.tolist()
        rows.append(np.tensordot(share[:, carriers], body.pose_directions[row.indices], axes=(0, 0)))
    if not points:
        return {}
    return {"pose_points": np.array(points), "pose_bones": np.array(bones), "pose_directions": np.concatenate(rows)}


def _stacked_product(stack: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``stack @ matrix`` for a stack (T, R, M) of matrices and one matrix (M, N), as a single product."""
    rows = int(np.prod(stack.shape[:-1]))
    product = stack.reshape(rows, len(matrix)) @ matrix
    return product.reshape(*stack.shape[:-1], matrix.shape[1])
