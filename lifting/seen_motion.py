"""What a lifter saw of people: pieces of motion of one length, and the 2D evidence they were lifted from.

The input of everything that learns from lifted motion: predictors of the future and the temporal body models.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from lifting.anatomy import H36M
from lifting.skeletons import get_skeleton

JOINTS = len(H36M.joints)
FPS = 25.0
"""Frames per second of all that learns from lifted motion: predictors of the future and temporal body models."""
_FLIP, _FLIP_2D = np.array(H36M.flip), np.array(get_skeleton("lift17").flip)
EVIDENCE = {"rays", "scores", "view", "root_in_camera"}
_ACROSS = np.array([-1.0, 1.0, 1.0])  # mirrors a point at the plane x = 0


@dataclass(frozen=True, eq=False)
class SeenMotion:
    """N pieces of T frames, world axes (+z up), metres, H36M-17, `FPS` frames per second unless said otherwise.

    Attributes:
        joints: (N, T, 17, 3) relative to the root.
        root: (N, T, 3).
        sigma: (N, T, 17) metres, the radius around a joint that holds 68 % of its errors.
        rays: (N, T, 17, 2) keypoints of the layout `lift17` as normalised image coordinates (x/z, y/z), or None where
            there is no 2D; anything where the score is 0.
        scores: (N, T, 17) confidence in [0, 1] of the keypoints, 0 where not seen, or None.
        view: (N, 3, 3) rotation of the static camera, camera axes from world axes, or None.
        root_in_camera: (N, T, 3) the root as the camera sees it, or None.

    Raises ValueError for shapes that do not belong together or hold no frame, values of what is seen that are not
    finite, and 2D evidence in parts.
    """

    joints: np.ndarray
    root: np.ndarray
    sigma: np.ndarray
    rays: np.ndarray | None = None
    scores: np.ndarray | None = None
    view: np.ndarray | None = None
    root_in_camera: np.ndarray | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        for name, value in given.items():
            object.__setattr__(self, name, np.asarray(value))
        n, frames = self.joints.shape[:2] if self.joints.ndim == 4 else ("pieces", "frames")
        wanted = {"joints": (n, frames, JOINTS, 3), "root": (n, frames, 3), "sigma": (n, frames, JOINTS),
                  "rays": (n, frames, JOINTS, 2), "scores": (n, frames, JOINTS), "view": (n, 3, 3),
                  "root_in_camera": (n, frames, 3)}  # fmt: skip
        for name in given:
            if getattr(self, name).shape != wanted[name] or not frames:
                shape = ", ".join(map(str, wanted[name]))
                raise ValueError(f"got {name} of shape {getattr(self, name).shape}, expected ({shape}), as the joints "
                                 "say, with at least one frame.")
            if name != "rays" and not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"got {name} with values that are not finite; bridge gaps first.")
        if 0 < len(EVIDENCE & set(given)) < len(EVIDENCE):
            raise ValueError("got 2D evidence in parts, expected rays, scores, view and root_in_camera, or none.")

    def __len__(self) -> int:
        """Count the pieces."""
        return len(self.joints)

    @property
    def frames(self) -> int:
        """Frames of every piece."""
        return self.joints.shape[1]

    @property
    def has_evidence(self) -> bool:
        """Whether the 2D evidence is there."""
        return self.rays is not None

    def cut(self, frames: slice) -> SeenMotion:
        """The same pieces from some frames only."""
        return self._each(lambda name, value: value if name == "view" else value[:, frames])

    def mirrored(self) -> SeenMotion:
        """The motion of the mirror image: left and right change places, seen by a mirrored camera."""
        return self._each(lambda name, value: _MIRRORS[name](value))

    def _each(self, change) -> SeenMotion:  # noqa: ANN001
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(name, value) for name, value in values.items() if value is not None})


_MIRRORS = {
    "joints": lambda value: value[:, :, _FLIP] * _ACROSS.astype(value.dtype),
    "root": lambda value: value * _ACROSS.astype(value.dtype),
    "sigma": lambda value: value[:, :, _FLIP],
    "rays": lambda value: value[:, :, _FLIP_2D] * _ACROSS[:2].astype(value.dtype),
    "scores": lambda value: value[:, :, _FLIP_2D],
    # x of the world and x of the camera both change their sign: M R M.
    "view": lambda value: value * (_ACROSS[:, None] * _ACROSS).astype(value.dtype),
    "root_in_camera": lambda value: value * _ACROSS.astype(value.dtype),
}
