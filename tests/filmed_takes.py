"""A walker before a camera that is tilted, turns or moves, as a take that was placed in the world."""

from __future__ import annotations

import numpy as np
from filmed_walker import film
from lifted_takes import lifted_take
from scipy.spatial.transform import Rotation
from walking_figure import walker

from lifting.cameras import Camera
from lifting.motion import Motion, Person, Take

LEVEL = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # camera axes from world axes, looking along +Y
SIZE = (640, 480)


def filmed_take(frames: int = 41, fps: float = 50.0, tilt: float = 20.0, turning: float = 0.0, moving: float = 0.0,
                ) -> tuple[Take, np.ndarray]:  # fmt: skip
    """A walker before a tilted camera that may turn (degrees per frame) and move (metres per frame): take, truth."""
    joints = walker(frames, fps=fps).astype(np.float64) + [0.2, 4.0, 0.0]
    turns = Rotation.from_euler("xyz", [[tilt, turning * t, 3.0] for t in range(frames)], degrees=True).as_matrix()
    rotation = turns @ LEVEL
    place = np.stack([[moving * t, 0.0, 1.6] for t in range(frames)])
    translation = -np.einsum("tij,tj->ti", rotation, place)
    seen = np.einsum("tij,tkj->tki", rotation, joints) + translation[:, None]
    if not turning and not moving:
        rotation, translation = rotation[0], translation[0]
    camera = Camera.from_focal(600.0, SIZE)
    keypoints = film(seen, "coco17", fps, camera)
    motion = Motion(seen - seen[:, :1], seen[:, 0], np.full((frames, 17), 0.03), "h36m17", fps)
    about = {"rotation": rotation.tolist(), "translation": translation.tolist()}
    take = lifted_take(Person(1, keypoints, motion), fps=fps, times=np.arange(frames) / fps, camera=camera,
                       metadata={"world": about})  # fmt: skip
    return take, joints
