"""AMASS-style files as takes: one person with a body, unseen by any camera that the file knows of."""

from __future__ import annotations

import dataclasses
import zipfile
from os import PathLike
from pathlib import Path

import numpy as np

from lifting.cameras import Camera
from lifting.export.amass import CAMERA_TO_WORLD, read_amass
from lifting.keypoints import Keypoints2D
from lifting.motion import BodyMotion, Person, Take
from lifting.skeletons import get_skeleton

_STAND_IN = 1000, 5.0, 1.5  # pixels of both sides of an unknown image; metres before the path and over the floor


def is_amass(path: str | PathLike[str]) -> bool:
    """Whether an npz archive holds the arrays of AMASS, by its table of contents; False for what cannot be opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"poses.npy", "trans.npy"} <= set(archive.namelist())
    except Exception:  # zipfile raises several types for damaged bytes; whoever reads the file says what is wrong
        return False


def read_amass_take(path: str | PathLike[str]) -> Take:
    """Read an AMASS-style npz as a take of one person with a body and without keypoints, which all are unseen.

    Where the file knows no camera, a stand-in looks at the middle of the path. Errors as of `read_amass`.
    """
    clip, path = read_amass(path), Path(path)
    motion, assumed = clip.motion, clip.assumed
    camera = clip.camera or _stand_in(motion)
    if clip.camera is None:
        assumed += ("the file has no image and no camera: a camera stands in for it before the path",)
    layout = get_skeleton("lift17")
    unseen = np.full((len(motion), layout.num_joints, 2), np.nan, np.float32)
    keypoints = Keypoints2D(unseen, None, layout, camera.image_size, motion.fps)
    person = Person(clip.person_id, keypoints, None, motion)
    name = path.name.removesuffix(".npz").removesuffix(".amass")
    return Take(name, camera.image_size, motion.fps, np.arange(len(motion)) / motion.fps, camera, (person,), assumed,
                {"source": "AMASS-style file", "gender": clip.gender})  # fmt: skip


def _stand_in(motion: BodyMotion) -> Camera:
    """A level camera of 60 degrees that looks along +y at the middle of the path, from before all of it."""
    side, before, high = _STAND_IN
    path = motion.trajectory[motion.present].astype(np.float64)
    low, top = (path.min(axis=0), path.max(axis=0)) if len(path) else (np.zeros(3), np.zeros(3))
    place = np.array([(low[0] + top[0]) / 2, low[1] - before, high])
    level = CAMERA_TO_WORLD.T
    return dataclasses.replace(Camera.from_fov(60, (side, side)), rotation=level, translation=-level @ place)
