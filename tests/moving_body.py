"""People in motion as skinned meshes of the small body, for the tests of export."""

from __future__ import annotations

import numpy as np
from small_body import small_body

from lifting.meshes import SkinnedMesh
from lifting.motion import BodyMotion

FPS = 25.0


def body_motion(seed: int = 0, frames: int = 20, absent: tuple[int, int] = (0, 0), joints: int = 22,
                **changes) -> BodyMotion:
    """A smooth motion with turns of more than a half; NaN in the first and last `absent` frames."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None, None] / FPS
    waves = np.sin(rng.uniform(2, 6, (1, joints, 3)) * time + rng.uniform(0, 6, (1, joints, 3)))
    rotations = rng.normal(0, 1.5, (1, joints, 3)) * waves
    trajectory = np.stack([np.sin(time[:, 0, 0]), 0.2 * np.cos(time[:, 0, 0]), 4 + time[:, 0, 0]], axis=-1) + seed
    there = (np.arange(frames) >= absent[0]) & (np.arange(frames) < frames - absent[1])
    rotations, trajectory = (np.where(there.reshape(-1, *[1] * (array.ndim - 1)), array, np.nan)
                             for array in (rotations, trajectory))
    fields = {"shape": rng.normal(size=4), "body": "small", "fps": FPS}
    return BodyMotion(rotations=rotations, trajectory=trajectory, **{**fields, **changes})


def moving_mesh(seed: int = 0, person_id: int = 0, joints: int = 22, **changes) -> SkinnedMesh:
    """A body in that motion."""
    return small_body(seed, joints=joints).skinned(body_motion(seed, joints=joints, **changes), person_id=person_id)
