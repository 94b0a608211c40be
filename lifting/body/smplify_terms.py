"""The terms of SMPLify with their gradients, for many frames that share nothing: each has its own pose and shape.

Every term takes n frames and returns one cost per frame with its gradient by rotation vectors, translation and shape.
The points of a body are linear in the global rotations of its bones (see lifting.body.points), so one backward pass
over the tree gives the gradient of any function of them, without a mesh and without automatic differentiation.

Source: Bogo et al., "Keep it SMPL", ECCV 2016; the form of the terms is that of Pavlakos et al., "Expressive body
capture", CVPR 2019 (SMPLify-X).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from lifting.body.capsules import Capsules, fit_capsules
from lifting.body.points import PointSet
from lifting.rotations import rotvec_to_matrix

if TYPE_CHECKING:
    from lifting.body.model import BodyModel

# Entries of SMPL's pose vector (72, root first) that the angle prior keeps from bending backwards: left and right
# elbow about y, left and right knee about x; and the sign of the wrong way.
ANGLE_ENTRIES, ANGLE_SIGNS = (55, 58, 12, 15), (1.0, -1.0, -1.0, -1.0)
_LARGEST_ANGLE = 10.0  # radians; keeps the exponential finite where a line search tries a wild step
_SMALL_ANGLE = 1e-4
_NEGLIGIBLE = 30.0  # exp(-30) is left out


@dataclass(frozen=True, eq=False)
class Frames:
    """The unknowns of n frames, or the gradient of a cost by them.

    Attributes:
        rotations: (n, K, 3) rotation vectors, joint 0 to the camera.
        translation: (n, 3) metres by which the posed body is moved (SMPL's transl).
        shape: (n, S).
    """

    rotations: np.ndarray
    translation: np.ndarray
    shape: np.ndarray

    def __len__(self) -> int:
        """n."""
        return len(self.translation)

    def pack(self) -> np.ndarray:
        """(n, 3 K + 3 + S): rotations, translation, shape."""
        return np.concatenate([self.rotations.reshape(len(self), -1), self.translation, self.shape], axis=1)

    @staticmethod
    def unpack(values: np.ndarray, num_joints: int) -> Frames:
        """The frames of a packed array (n, 3 K + 3 + S)."""
        split = 3 * num_joints
        return Frames(values[:, :split].reshape(len(values), num_joints, 3), values[:, split : split + 3],
                      values[:, split + 3 :])


def right_jacobian(rotvec: np.ndarray) -> np.ndarray:
    """Matrices (..., 3, 3) J with ``exp(r + d) = exp(r) exp(J d)`` to first order in d, for r (..., 3)."""
    square = np.einsum("...i,...i->...", rotvec, rotvec)[..., None, None]
    angle = np.sqrt(square)
    small = angle < _SMALL_ANGLE
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 0.5 - square / 24, 2 * (np.sin(safe / 2) / safe) ** 2)
    second = np.where(small, 1 / 6 - square / 120, (safe - np.sin(safe)) / safe**3)
    cross = _cross_matrices(rotvec)
    return np.eye(3) - first * cross + second * (cross @ cross)


def _cross_matrices(vectors: np.ndarray) -> np.ndarray:
    matrices = np.zeros((*vectors.shape, 3))
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        matrices[..., c, b], matrices[..., b, c] = vectors[..., a], -vectors[..., a]
    return matrices


# ---- points of the body


class PosedPoints:
    """Points of a body in n frames, each with its own pose and shape, and the way back from a gradient at the points.

    body: the model; points: J points of it, as `body.point_set` gives them; frames: the unknowns.
    """

    def __init__(self, body: BodyModel, points: PointSet, frames: Frames) -> None:
        self._body, self._points, self._frames = body, points, frames
        directions = points.offset_directions.swapaxes(0, 1)
        self._directions = directions.reshape(-1, directions.shape[-1])  # (3 K J, S)
        self._local = rotvec_to_matrix(frames.rotations)
        self._global = _global_rotations(self._local, body.parents)
        self._turned = self._offsets() @ np.swapaxes(self._global, -1, -2)  # (n, K, J, 3) in the camera's axes
        root = frames.translation + body.joint_template[0] + frames.shape @ body.joint_directions[0].T
        self.positions = self._turned.sum(axis=1) + points.total_weights[:, None] * root[:, None]
        """(n, J, 3) metres, camera frame."""

    def _offsets(self) -> np.ndarray:
        """(n, K, J, 3) the part of each point that each bone carries, in its axes."""
        points, count = self._points, len(self._frames)
        offsets = points.offsets.swapaxes(0, 1)
        offsets = offsets + (self._frames.shape @ self._directions.T).reshape(count, *offsets.shape)
        if points.pose_directions is not None:
            features = (self._local[:, 1:] - np.eye(3)).reshape(count, -1)
            moved = features @ points.pose_directions.reshape(-1, points.pose_directions.shape[-1]).T
            offsets[:, points.pose_bones, points.pose_points] += moved.reshape(count, -1, 3)
        return offsets

    def pull_back(self, gradient: np.ndarray) -> Frames:
        """Gradient by the unknowns of a cost whose gradient by the positions is `gradient` (n, J, 3)."""
        translation = self._points.total_weights @ gradient
        on_bones = gradient[:, None] @ self._global  # (n, K, J, 3) in each bone's axes
        shape = on_bones.reshape(len(gradient), -1) @ self._directions
        shape = shape + translation @ self._body.joint_directions[0]
        turning = self._below(_twisted(np.swapaxes(self._turned, -1, -2) @ gradient[:, None]))  # about each joint
        turning = (turning[:, :, None] @ self._global)[:, :, 0]
        if self._points.pose_directions is not None:
            turning[:, 1:] += self._blendshape_gradient(on_bones)
        rotations = np.einsum("nkba,nkb->nka", right_jacobian(self._frames.rotations), turning)
        return Frames(rotations, translation, shape)

    def _below(self, torque: np.ndarray) -> np.ndarray:
        """(n, K, 3) sums over the bones at and below each joint."""
        return self._points.ancestors @ torque

    def _blendshape_gradient(self, on_bones: np.ndarray) -> np.ndarray:
        """(n, K - 1, 3) by right perturbations of the joints, through the pose blendshapes' features ``R - I``."""
        points = self._points
        forces = on_bones[:, points.pose_bones, points.pose_points].reshape(len(on_bones), -1)
        features = forces @ points.pose_directions.reshape(-1, points.pose_directions.shape[-1])
        local = self._local[:, 1:]
        return _twisted(features.reshape(local.shape).swapaxes(-1, -2) @ local)


def _twisted(product: np.ndarray) -> np.ndarray:
    """(..., 3) sums of the cross products a x b, for the sums (..., 3, 3) of the products a b^T."""
    return np.stack([product[..., 1, 2] - product[..., 2, 1], product[..., 2, 0] - product[..., 0, 2],
                     product[..., 0, 1] - product[..., 1, 0]], axis=-1)


def _global_rotations(local: np.ndarray, parents: Sequence[int]) -> np.ndarray:
    result = local.copy()
    for joint, parent in enumerate(parents):
        if parent >= 0:
            result[:, joint] = result[:, parent] @ local[:, joint]
    return result


# ---- costs


def geman_mcclure(residual: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Geman-McClure's rho(e) = s^2 e^2 / (s^2 + e^2) of each residual, and its derivative."""
    square = scale**2
    below = square + residual**2
    return square * residual**2 / below, 2 * residual * (square / below) ** 2


def angle_prior(rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of exp(+-angle)^2 over elbows and knees, (n,), and its gradient (n, K, 3), for rotation vectors (n, K, 3)."""
    flat = rotations.reshape(len(rotations), -1)
    signs = np.array(ANGLE_SIGNS)
    values = np.exp(2 * np.clip(signs * flat[:, ANGLE_ENTRIES], -_LARGEST_ANGLE, _LARGEST_ANGLE))
    gradient = np.zeros_like(flat)
    gradient[:, ANGLE_ENTRIES] = 2 * signs * values
    return values.sum(axis=1), gradient.reshape(rotations.shape)


# ---- interpenetration


@dataclass(frozen=True, eq=False)
class Spheres:
    """Spheres that fill the limbs, after SMPLify's capsules: their Gaussians must not overlap.

    cost = sum over pairs of exp(-|c_i - c_j|^2 / (s_i^2 + s_j^2)) with s = radius / 3.

    Attributes:
        points: the N centres as points of the body.
        radii: (N,) metres, of the mean shape.
        pairs: (P, 2) numbers of spheres on parts that may collide.
    """

    points: PointSet
    radii: np.ndarray
    pairs: np.ndarray

    def cost(self, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cost (n,) and gradient (n, N, 3) for centres (n, N, 3) in metres."""
        first, second = self.pairs.T
        scale = (self.radii[first] ** 2 + self.radii[second] ** 2) / 9
        square = np.einsum("nsa,nsa->ns", centres, centres)
        product = centres @ np.swapaxes(centres, -1, -2)
        distance = square[:, first] + square[:, second] - 2 * product[:, first, second]  # squared, roughly
        frames, pairs = np.nonzero(distance < _NEGLIGIBLE * scale)
        first, second, scale = first[pairs], second[pairs], scale[pairs]
        apart = centres[frames, first] - centres[frames, second]
        overlap = np.exp(-np.einsum("pa,pa->p", apart, apart) / scale)
        push = -2 * (overlap / scale)[:, None] * apart
        gradient = np.zeros_like(centres)
        np.add.at(gradient, (frames, first), push)
        np.add.at(gradient, (frames, second), -push)
        return np.bincount(frames, overlap, len(centres)), gradient


def fit_spheres(body: BodyModel) -> Spheres:
    """Fill a body's capsules (lifting.body.capsules) with spheres one radius apart."""
    capsules = fit_capsules(body)
    axes = capsules.axes(body.rest_joints())
    counts = np.maximum(1, np.ceil(np.linalg.norm(axes, axis=1) / np.maximum(capsules.radii, 1e-3)).astype(int))
    owner = np.repeat(np.arange(len(counts)), counts)
    share = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    groups = [np.flatnonzero(owner == capsule) for capsule in range(len(counts))]
    pairs = [np.stack(np.meshgrid(groups[a], groups[b], indexing="ij"), -1).reshape(-1, 2) for a, b in capsules.pairs]
    return Spheres(_sphere_points(body, capsules, owner, share), capsules.radii[owner],
                   np.concatenate(pairs) if pairs else np.zeros((0, 2), int))


def _sphere_points(body: BodyModel, capsules: Capsules, owner: np.ndarray, share: np.ndarray) -> PointSet:
    """The points that lie the fraction `share` (N,) along the axes of the capsules `owner` (N,)."""
    bones, children = capsules.bones[owner], capsules.children[owner]
    ends, rows = np.where(children >= 0, children, bones), np.arange(len(owner))
    columns = body.num_vertices + np.concatenate([bones, ends])
    regressor = scipy.sparse.csr_matrix((np.concatenate([1 - share, share]), (np.tile(rows, 2), columns)),
                                        shape=(len(owner), body.num_vertices + body.num_joints))
    points = body.point_set(regressor)
    offsets = points.offsets.copy()
    tips = np.where(children[:, None] >= 0, 0.0, capsules.tips[owner])
    offsets[rows, bones] += share[:, None] * tips
    return replace(points, offsets=offsets)
