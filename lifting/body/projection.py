"""Projection of points through a camera with its Jacobian, safe for points beside and behind the camera.

Inside the picture it equals `Camera.project`. An optimiser also visits places where that has no value, so here 1 / z
goes on as a straight line below `NEAR` metres, with a slope that pushes the point back in front of the camera, and
the lens distortion stays what it is at the radius where its polynomial folds back.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lifting.cameras import Camera, square_radius_limit

NEAR = 0.1  # metres


def project_with_jacobian(points: np.ndarray, camera: Camera, log_focal: float = 0.0):
    """Project points (T, J, 3) metres in the frame that the camera's rotation and translation start from.

    The focal length is the camera's times exp(log_focal). Returns pixels (T, J, 2), their derivative by the points
    (T, J, 2, 3) and by the log focal (T, J, 2). Raises ValueError when a moving camera has another number of frames.
    """
    camera_points = camera.to_camera(points)
    inverse, slope = _inverse_depth(camera_points[..., 2])
    flat = camera_points[..., :2] * inverse[..., None]
    bent, bend = _distort_with_jacobian(flat, camera.distortion)
    focal = camera.focal * np.exp(log_focal)
    by_camera_points = np.empty((*points.shape[:-1], 2, 3))
    by_camera_points[..., :2] = bend * inverse[..., None, None]
    by_camera_points[..., 2] = (bend @ camera_points[..., :2, None])[..., 0] * slope[..., None]
    by_camera_points *= focal[:, None]
    rotation = camera.rotation if camera.rotation.ndim == 2 else camera.rotation[:, None]
    return bent * focal + camera.center, by_camera_points @ rotation, bent * focal


def project(points: np.ndarray, camera: Camera, log_focal: float = 0.0) -> np.ndarray:
    """Return the pixels (T, J, 2) of points (T, J, 3), as `project_with_jacobian` does."""
    camera_points = camera.to_camera(points)
    inverse, _ = _inverse_depth(camera_points[..., 2])
    flat = camera_points[..., :2] * inverse[..., None]
    bent = _distort(flat, camera.distortion)[0] if camera.distortion.any() else flat
    return bent * (camera.focal * np.exp(log_focal)) + camera.center


def camera_of_frames(camera: Camera, frames: slice) -> Camera:
    """Return the camera of some frames: a moving camera's poses are cut, a still one is returned as it is."""
    if camera.rotation.ndim == 2 and camera.translation.ndim == 1:
        return camera
    rotation = camera.rotation if camera.rotation.ndim == 2 else camera.rotation[frames]
    translation = camera.translation if camera.translation.ndim == 1 else camera.translation[frames]
    return replace(camera, rotation=rotation, translation=translation)


def _inverse_depth(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 / depth and its derivative, a straight line below `NEAR`."""
    safe = np.maximum(depth, NEAR)
    slope = -1.0 / safe**2
    return 1.0 / safe + slope * (depth - safe), slope


def _distort(flat: np.ndarray, distortion: np.ndarray):
    """Return bent points (..., 2), the radial factor, the squared radius and whether it lies inside the fold."""
    k1, k2, p1, p2, k3 = distortion
    x, y = flat[..., 0], flat[..., 1]
    limit = square_radius_limit(distortion)
    true_square = x * x + y * y
    square = np.minimum(true_square, limit)
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    scale = np.sqrt(square / np.where(true_square > 0, true_square, 1.0))  # 1 inside: tangential part held outside
    x, y = x * scale, y * scale
    shift_x = 2 * p1 * x * y + p2 * (square + 2 * x * x)
    shift_y = p1 * (square + 2 * y * y) + 2 * p2 * x * y
    return flat * radial[..., None] + np.stack([shift_x, shift_y], axis=-1), radial, square, true_square <= limit


def _distort_with_jacobian(flat: np.ndarray, distortion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bend normalised points (..., 2); returns them and the derivative (..., 2, 2)."""
    jacobian = np.zeros((*flat.shape, 2))
    if not distortion.any():
        jacobian[..., 0, 0] = jacobian[..., 1, 1] = 1.0
        return flat, jacobian
    k1, k2, p1, p2, k3 = distortion
    bent, radial, square, inside = _distort(flat, distortion)
    x, y = flat[..., 0] * inside, flat[..., 1] * inside  # outside the fold only the radial factor is left
    slope = 2 * (k1 + square * (2 * k2 + square * 3 * k3))
    jacobian[..., 0, 0] = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x
    jacobian[..., 1, 1] = radial + slope * y * y + 6 * p1 * y + 2 * p2 * x
    jacobian[..., 0, 1] = jacobian[..., 1, 0] = slope * x * y + 2 * p1 * x + 2 * p2 * y
    return bent, jacobian
