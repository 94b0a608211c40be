"""Motion seen from the person: origin under the root of one frame, axes that turn with them.

What happens next does not depend on where somebody stands or which way they face, so predictors work in this frame
(heading normalisation). World axes: +z up, metres. Person's axes: +x to their left, +z up, and so +y behind them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifting.anatomy import H36M

_ACROSS = tuple((H36M.index(f"left_{joint}"), H36M.index(f"right_{joint}")) for joint in ("hip", "shoulder"))
NARROW = 0.02  # metres: with hips and shoulders this much across from above, one over the other, no heading is seen


@dataclass(frozen=True)
class Heading:
    """Where a person stands and which way they face.

    Attributes:
        origin: (..., 3) metres, world: the root's place, brought down to z = 0.
        rotation: (..., 3, 3) person's axes from world axes, a turn about the vertical.
    """

    origin: np.ndarray
    rotation: np.ndarray

    def to_person(self, points: np.ndarray) -> np.ndarray:
        """World points (..., n, 3) metres seen from the person."""
        return (points - self.origin[..., None, :]) @ np.swapaxes(self.rotation, -1, -2)

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `to_person`."""
        return points @ self.rotation + self.origin[..., None, :]


def heading_of(joints: np.ndarray, root: np.ndarray) -> Heading:
    """The heading of poses: horizontal, at right angles to the line through both hips and that through both shoulders.

    joints: (..., 17, 3) metres relative to the root, H36M-17, world axes; root: (..., 3) metres. Somebody who lies on
    their side, whose left is straight up, is taken to face along -y. The origin lies at the root's place on the floor
    plane z = 0.
    """
    joints, root = np.asarray(joints, np.float64), np.asarray(root, np.float64)
    left = sum(joints[..., one, :] - joints[..., other, :] for one, other in _ACROSS)[..., :2]
    seen = np.linalg.norm(left, axis=-1, keepdims=True) > NARROW
    left = np.where(seen, left, np.array([1.0, 0.0]))
    return Heading(root * np.array([1.0, 1.0, 0.0]), turned_by(np.arctan2(left[..., 1], left[..., 0])))


def turn_of(heading: Heading) -> np.ndarray:
    """The angle (...) in radians that a heading is turned to the left from facing along -y."""
    return np.arctan2(heading.rotation[..., 0, 1], heading.rotation[..., 0, 0])


def turned_by(angle: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) of headings, person's axes from world axes, of angles (...) as of `turn_of`."""
    cosine, sine, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    rows = [cosine, sine, zero, -sine, cosine, zero, zero, zero, zero + 1]
    return np.stack(rows, -1).reshape(*np.shape(angle), 3, 3)
