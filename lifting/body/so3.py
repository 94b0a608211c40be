"""Derivatives of rotations that the solver's terms need: the Jacobian of the logarithm, twist angles."""

from __future__ import annotations

import numpy as np

from lifting.rotations import matrix_to_quat_wxyz

_SMALL_ANGLE = 1e-3


def inverse_right_jacobian(rotvec: np.ndarray) -> np.ndarray:
    """Return J (..., 3, 3) with log(exp(rotvec) exp(w)) = rotvec + J w to first order, for rotvec (..., 3).

    Its transpose is the inverse left Jacobian, for perturbations on the other side. Finite below an angle of 2 pi.
    Source: G. Chirikjian, "Stochastic models, information theory, and Lie groups", vol. 2, 2012, section 10.8.
    """
    square = np.einsum("...i,...i->...", rotvec, rotvec)
    angle = np.sqrt(square)
    half = np.where(angle < _SMALL_ANGLE, 1.0, 0.5 * angle)
    exact = (1.0 - half / np.tan(half)) / np.where(angle < _SMALL_ANGLE, 1.0, square)
    factor = np.where(angle < _SMALL_ANGLE, 1.0 / 12.0 + square / 720.0, exact)
    result = factor[..., None, None] * rotvec[..., :, None] * rotvec[..., None, :]
    diagonal = 1.0 - factor * square  # [v]x [v]x = v v^T - |v|^2 I
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        result[..., a, a] += diagonal
        result[..., b, c] -= 0.5 * rotvec[..., a]
        result[..., c, b] += 0.5 * rotvec[..., a]
    return result


def twist_angle(rotations: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the twist (..., K) in radians of rotations (..., K, 3, 3) about unit axes (K, 3), and its slope.

    The twist is the turn about the axis left when the shortest turn of the axis itself (the swing) is taken off. The
    slope (..., K, 3) is its derivative by w in R <- R exp([w]x); it is zero where the swing is a half turn, where the
    twist is undefined.
    """
    quat = matrix_to_quat_wxyz(rotations)
    scalar, vector = quat[..., 0], quat[..., 1:]
    along = np.einsum("...ki,ki->...k", vector, axes)
    angle = 2.0 * np.arctan2(along, scalar)
    square = along**2 + scalar**2
    by_along = scalar[..., None] * axes + np.cross(axes, vector)
    slope = scalar[..., None] * by_along + along[..., None] * vector
    defined = square > 1e-12
    return angle, np.where(defined[..., None], slope / np.where(defined, square, 1.0)[..., None], 0.0)
