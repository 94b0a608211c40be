"""Small clips of the procedural walker, seen by cameras around it, for tests of training."""

from __future__ import annotations

import numpy as np
from walking_figure import walker

from lifting.cameras import Camera
from lifting.datasets.clips import Clip, ClipList, camera_motion
from lifting.keypoints import Keypoints2D

FPS = 50.0
SIZE = (1000, 800)


def camera_around(angle: float, focal: float = 1100.0) -> Camera:
    """A camera 4.5 m from the origin, level, at an angle around it, with a distorting lens."""
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, sin, 0], [0, 0, -1], [-sin, cos, 0]])
    return Camera((focal, focal + 10), (510, 390), SIZE, [-0.1, 0.05, 0.002, -0.001, 0.01], rotation, [0, 0.2, 4.5])


def filmed_clip(subject: str, view: str, angle: float = 0.0, frames: int = 40, known: bool = True,
                focal: float = 1100.0, **walk: float) -> Clip:
    """One view of a walk; ``known``: whether the clip says with which camera."""
    points = walker(frames, **walk)
    camera = camera_around(angle, focal)
    seen = camera.to_camera(points - points[:, :1].mean(axis=0))
    keypoints = Keypoints2D(camera.project(seen).astype(np.float32), None, "h36m17", SIZE, FPS)
    return Clip(subject, "Walk", view, keypoints, camera_motion(seen, "h36m17", FPS), camera if known else None)


def filmed_clips(subject: str, views: int = 2, name: str = "walks", **options: float) -> ClipList:
    """Several views of one walk."""
    return ClipList([filmed_clip(subject, str(view), 1.3 * view, **options) for view in range(views)], name)
