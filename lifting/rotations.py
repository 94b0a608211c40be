"""Rotations as plain numpy arrays: matrices, rotation vectors, quaternions, the 6D form and Euler angles.

Every function is vectorised over leading axes, computes in float64 and returns float64. Angles are radians. Matrices
act on column vectors (``y = R @ x``), quaternions are stored ``(w, x, y, z)``. NaN in gives NaN out, for that element
only.
"""

from __future__ import annotations

import numpy as np

_SMALL_ANGLE = 1e-4


def _as_float(values, tail: tuple[int, ...], name: str) -> np.ndarray:
    """Return `values` as float64 after checking that its last axes are `tail`."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape[-len(tail):] != tail:
        expected = ", ".join(str(size) for size in tail)
        raise ValueError(f"{name} has shape {array.shape}, expected (..., {expected}); check the last axes.")
    return array


def _unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale vectors (..., D) to length 1; also return which had no direction (these are returned as zero)."""
    largest = np.max(np.abs(vectors), axis=-1, keepdims=True)
    scaled = vectors / np.where(largest > 0, largest, 1.0)  # by the largest entry: no under- or overflow below
    length = np.linalg.norm(scaled, axis=-1, keepdims=True)
    return scaled / np.where(length > 0, length, 1.0), largest[..., 0] == 0


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors (..., D) of length 1; those shorter than 1e-12, which have no direction, as they are."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 1e-12, length, 1.0)


def _any_perpendicular(unit: np.ndarray) -> np.ndarray:
    """Return unit vectors (..., 3) at right angles to `unit` (..., 3)."""
    axis = np.eye(3)[np.argmin(np.abs(unit), axis=-1)]
    return _unit(np.cross(unit, axis))[0]


def _cross_matrix(vectors: np.ndarray) -> np.ndarray:
    """Return the matrices (..., 3, 3) with ``K @ y = vectors x y``."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotvec_to_matrix(rotvec) -> np.ndarray:
    """Turn rotation vectors (..., 3), axis times angle in radians, into matrices (..., 3, 3).

    Rodrigues' formula; a series replaces it near angle 0, so that zero gives the identity exactly.
    Raises ValueError when the last axis is not 3.
    """
    rotvec = _as_float(rotvec, (3,), "rotvec")
    angle = np.linalg.norm(rotvec, axis=-1)[..., None, None]
    small = angle < _SMALL_ANGLE
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 1 - angle**2 / 6, np.sin(safe) / safe)
    second = np.where(small, 0.5 - angle**2 / 24, 2 * np.sin(safe / 2) ** 2 / safe**2)
    cross = _cross_matrix(rotvec)
    return np.eye(3) + first * cross + second * (cross @ cross)


def matrix_to_rotvec(matrix) -> np.ndarray:
    """Turn rotation matrices (..., 3, 3) into rotation vectors (..., 3) of length 0 to pi.

    Goes through the quaternion, which stays accurate at angles near 0 and near pi.
    Raises ValueError when the last axes are not (3, 3).
    """
    quat = matrix_to_quat_wxyz(matrix)
    sine = np.linalg.norm(quat[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quat[..., :1])
    small = sine < _SMALL_ANGLE
    factor = np.where(small, 2 + sine**2 / 3, angle / np.where(small, 1.0, sine))
    return quat[..., 1:] * factor


def quat_wxyz_to_matrix(quat_wxyz) -> np.ndarray:
    """Turn quaternions (..., 4) in the order w, x, y, z into matrices (..., 3, 3); any length but zero is accepted.

    Raises ValueError for a quaternion of length zero, or when the last axis is not 4.
    """
    quat, zero = _unit(_as_float(quat_wxyz, (4,), "quat_wxyz"))
    if np.any(zero):
        raise ValueError("A quaternion has length zero, expected a non-zero (w, x, y, z); remove or replace it.")
    scalar, vector = quat[..., :1, None], quat[..., 1:]
    cross = _cross_matrix(vector)
    return np.eye(3) + 2 * scalar * cross + 2 * (cross @ cross)


def matrix_to_quat_wxyz(matrix) -> np.ndarray:
    """Turn rotation matrices (..., 3, 3) into unit quaternions (..., 4), order w, x, y, z, with w >= 0.

    Of the four ways to write the quaternion, the one that divides by its largest component is taken (Shepperd 1978).
    Raises ValueError when the last axes are not (3, 3).
    """
    m = _as_float(matrix, (3, 3), "matrix")
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 2, 0] + m[..., 0, 2], m[..., 2, 1] + m[..., 1, 2]
    rows = [[1 + xx + yy + zz, wx, wy, wz], [wx, 1 + xx - yy - zz, xy, xz],
            [wy, xy, 1 - xx + yy - zz, yz], [wz, xz, yz, 1 - xx - yy + zz]]
    outer = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)  # 4 q q^T: every row is a multiple of q
    largest = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    quat = _unit(np.take_along_axis(outer, largest[..., None, None], axis=-2)[..., 0, :])[0]
    return np.where(quat[..., :1] < 0, -quat, quat)


def matrix_to_rot6d(matrix) -> np.ndarray:
    """Return the first two columns of matrices (..., 3, 3), one after the other, as (..., 6).

    Zhou et al., "On the continuity of rotation representations in neural networks", CVPR 2019.
    Raises ValueError when the last axes are not (3, 3).
    """
    matrix = _as_float(matrix, (3, 3), "matrix")
    return np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)


def rot6d_to_matrix(rot6d) -> np.ndarray:
    """Turn 6D rotations (..., 6), two columns of any length and angle, into matrices (..., 3, 3) by Gram-Schmidt.

    A zero first column is read as the x axis; a second column parallel to the first is replaced by some perpendicular
    one: the result is a rotation for any finite input. Raises ValueError when the last axis is not 6.
    """
    rot6d = _as_float(rot6d, (6,), "rot6d")
    first, zero = _unit(rot6d[..., :3])
    first = np.where(zero[..., None], np.eye(3)[0], first)
    second, _ = _unit(rot6d[..., 3:])
    second = second - np.sum(first * second, axis=-1, keepdims=True) * first
    parallel = np.linalg.norm(second, axis=-1, keepdims=True) < 1e-12
    second, _ = _unit(np.where(parallel, _any_perpendicular(first), second))
    second, _ = _unit(second - np.sum(first * second, axis=-1, keepdims=True) * first)  # again: nearly parallel columns
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def euler_to_matrix(angles, order: str) -> np.ndarray:
    """Turn Euler angles (..., len(order)) in radians into matrices (..., 3, 3).

    `order` names one to three axes: capitals turn about the moving axes (``"ZXY"`` is ``Rz @ Rx @ Ry``, as BVH files
    mean it), small letters about the fixed ones (``"zxy"`` is ``Ry @ Rx @ Rz``); the same convention as scipy's.
    Raises ValueError for an unknown order or a last axis of another length.
    """
    axes = order.lower()
    if not 1 <= len(order) <= 3 or set(axes) - set("xyz") or order not in (axes, axes.upper()):
        raise ValueError(f"order is {order!r}, expected one to three of X, Y, Z, all capitals or all small.")
    angles = _as_float(angles, (len(order),), "angles")
    matrix = np.broadcast_to(np.eye(3), angles.shape[:-1] + (3, 3)).copy()
    for position, axis in enumerate(axes):
        turn = rotvec_to_matrix(angles[..., position, None] * np.eye(3)["xyz".index(axis)])
        matrix = turn @ matrix if order == axes else matrix @ turn
    return matrix


def rotation_between(a, b) -> np.ndarray:
    """Return the smallest rotations (..., 3, 3) that turn the directions `a` (..., 3) into the directions `b` (..., 3).

    Lengths do not matter. Opposite directions turn by pi about some perpendicular axis; where `a` or `b` is zero there
    is no direction to turn and the result is the identity. Raises ValueError when a last axis is not 3.
    """
    a, a_zero = _unit(_as_float(a, (3,), "a"))
    b, b_zero = _unit(_as_float(b, (3,), "b"))
    a, b = np.broadcast_arrays(a, b)
    half = np.sum((a + b) ** 2, axis=-1, keepdims=True) / 2  # 1 + cos, without its cancellation near -1
    opposite = half < 1e-16
    half_turn = np.concatenate([np.zeros_like(half), _any_perpendicular(a)], axis=-1)
    quat = np.where(opposite, half_turn, np.concatenate([half, np.cross(a, b)], axis=-1))
    undefined = np.broadcast_to((a_zero | b_zero)[..., None], quat.shape)
    return quat_wxyz_to_matrix(np.where(undefined, np.eye(4)[0], quat))


def look_at(eye, target, up=(0.0, 0.0, 1.0)) -> np.ndarray:
    """Return the rotations world to camera (..., 3, 3) of a camera at `eye` (..., 3) that looks at `target` (..., 3).

    Camera axes are OpenCV's (+x right, +y down, +z forward); `up` (..., 3) is the world direction that shall point up
    in the picture. The camera is then ``x_cam = R @ x_world + t`` with ``t = -R @ eye``. Looking along `up` picks
    some roll. Raises ValueError when `eye` equals `target` or `up` is zero.
    """
    forward, same = _unit(_as_float(target, (3,), "target") - _as_float(eye, (3,), "eye"))
    up, no_up = _unit(_as_float(up, (3,), "up"))
    if np.any(same) or np.any(no_up):
        raise ValueError("eye equals target or up is zero, expected a direction to look along; move one of them.")
    right = np.cross(forward, up)
    parallel = np.linalg.norm(right, axis=-1, keepdims=True) < 1e-9
    right, _ = _unit(np.where(parallel, _any_perpendicular(forward), right))
    return np.stack([right, np.cross(forward, right), np.broadcast_to(forward, right.shape)], axis=-2)
