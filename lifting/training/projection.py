"""Back-projection in torch: camera-space points to pixels, with OpenCV's lens distortion, differentiable everywhere.

The same numbers as `lifting.cameras.Camera.project` wherever a lens can see. Networks also predict what no lens sees,
above all early in training, so two continuations keep values and gradients bounded and pointing home: below a depth of
`NEAREST`, 1/z bends smoothly towards 2 / `NEAREST`; beyond the radius where a lens model folds back (or `WIDEST`), the
radial factor stays what it is there. Without them, one wild prediction would set AMSGrad's step size for the rest of a
run. There is no clamp of the angle: wide cameras keep their gradients.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lifting.cameras import square_radius_limit

NEAREST = 0.5  # metres: nearer than anybody is filmed whole
WIDEST = 5.0  # x/z: 79 degrees off the axis, where models with k1 k2 k3 have long stopped to mean anything


class Intrinsics(NamedTuple):
    """Cameras of N samples: focal and center (N, 2) px, distortion (N, 5) k1 k2 p1 p2 k3, square_limit (N,).

    square_limit: squared x/z, y/z radius up to which the distortion is one to one.
    """

    focal: Tensor
    center: Tensor
    distortion: Tensor
    square_limit: Tensor

    def scaled(self, factor: Tensor) -> Intrinsics:
        """The cameras with focal lengths times ``factor`` (N,)."""
        return self._replace(focal=self.focal * factor[:, None])


def read_intrinsics(values: np.ndarray, device: str | torch.device = "cpu", dtype=torch.float32) -> Intrinsics:
    """Intrinsics of rows (N, 9): fx fy cx cy px, k1 k2 p1 p2 k3; ValueError for another shape or values not finite."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] != 9 or not np.isfinite(values).all():
        raise ValueError(f"the intrinsics have shape {values.shape}, expected finite rows of fx fy cx cy k1 k2 p1 p2 "
                         "k3; give the cameras of all clips, or of none.")
    limits = np.array([_square_limit(*row) for row in values[:, 4:]])
    rows = torch.as_tensor(np.column_stack([values, limits]), dtype=dtype, device=device)
    return Intrinsics(rows[:, :2], rows[:, 2:4], rows[:, 4:9], rows[:, 9])


@lru_cache(maxsize=4096)
def _square_limit(*distortion: float) -> float:
    return min(square_radius_limit(np.array(distortion)), WIDEST**2)


def project(points: Tensor, cameras: Intrinsics) -> Tensor:
    """Pixels (N, T, J, 2) of points (N, T, J, 3) metres, camera frame, through the cameras of the N samples."""
    flat = _divide(points)
    k1, k2, p1, p2, k3 = (k[:, None, None] for k in cameras.distortion.unbind(-1))
    x, y = flat.unbind(-1)
    square = x * x + y * y
    bounded = torch.minimum(square, cameras.square_limit[:, None, None])
    radial = 1 + bounded * (k1 + bounded * (k2 + bounded * k3))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
    bent_y = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
    return _to_pixels(torch.stack([bent_x, bent_y], dim=-1), cameras)


def linear_projection(points: Tensor, cameras: Intrinsics) -> Tensor:
    """As `project` without distortion."""
    return _to_pixels(_divide(points), cameras)


def _divide(points: Tensor) -> Tensor:
    """x/z and y/z; below the nearest depth, 1/z goes on with its slope there and saturates."""
    depth = points[..., 2:]
    bounded = 2 - torch.exp((depth.clamp_max(NEAREST) - NEAREST) / NEAREST)
    return points[..., :2] * torch.where(depth > NEAREST, 1 / depth.clamp_min(NEAREST), bounded / NEAREST)


def _to_pixels(flat: Tensor, cameras: Intrinsics) -> Tensor:
    return flat * cameras.focal[:, None, None] + cameras.center[:, None, None]
