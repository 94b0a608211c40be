"""Small clips of random joints seen by cameras with every kind of lens distortion, some keypoints unseen."""

import numpy as np

from lifting.cameras import Camera
from lifting.datasets.clips import Clip, ClipList
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion

CAMERAS = (
    Camera((1145.0, 1143.0), (512.5, 515.4), (1000, 1002), (-0.2, 0.24, -0.0014, -0.00098, -0.002)),
    Camera((900.0, 910.0), (610.0, 350.0), (1280, 720), (0.1, -0.05, 0.002, 0.01, 0.01)),
)


def random_clip(frames, camera=CAMERAS[0], *, subject="S1", action="Walking", seed=0, labelled=True, unseen=0.1):
    """A clip of those frames, whose keypoints are its joints' projections."""
    rng = np.random.default_rng([seed, frames])
    joints = rng.normal(0, 0.3, (frames, 17, 3))
    joints[:, 0] = 0
    root = rng.normal((0, 0, 5), 0.3, (frames, 3))
    xy = camera.project(joints + root[:, None])
    xy[rng.random(xy.shape[:2]) < unseen] = np.nan
    score = np.where(np.isnan(xy[..., 0]), 0, rng.uniform(0.2, 1, xy.shape[:2]))
    keypoints = Keypoints2D(xy, score, "h36m17", camera.image_size, 50)
    motion = Motion(joints, root, None, "h36m17", 50) if labelled else None
    return Clip(subject, action, "a", keypoints, motion, camera)


def random_clips(lengths, **options):
    """One take per length, seen by the two cameras in turn."""
    return ClipList([random_clip(frames, CAMERAS[number % 2], action=f"take {number}", seed=number, **options)
                     for number, frames in enumerate(lengths)])
