"""The people of a take one by one, for formats that hold one person: where each one's file goes, and their points."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from lifting.export.scene import TO_SCENE, one_line, path_of_person
from lifting.motion import Motion, Person, Take

Files = list[tuple[Path, Callable[[Path], object]]]
AXES = {"camera": "right-handed, +x right, +y up, +z towards the camera, which is at the origin; level as it was held",
        "world": "right-handed, +y up against gravity, the floor at height 0"}
"""What the axes of `scene_points` are, by the frame of the motion."""


def person_files(take: Take, path: Path, suffix: str, write: Callable[[Take, Person, Path], object]) -> Files:
    """A file for each person who was lifted: `path`, and ``NAME.person2.SUFFIX`` beside it for the others.

    write: ``write(take, person, path)``. Raises ValueError where nobody was lifted.
    """
    first, *others = lifted_people(take, path)
    places = [path, *(path_of_person(path, person.id, suffix) for person in others)]
    return [(place, partial(write, take, person)) for person, place in zip([first, *others], places, strict=True)]


def lifted_people(take: Take, path: Path) -> list[Person]:
    """The people with a whole pose in some frame; ValueError without one."""
    found = [person for person in take.people if person.motion is not None and present_motion(person.motion).any()]
    if not found:
        raise ValueError(nobody_lifted(take, path))
    return found


def nobody_lifted(take: Take, path: Path) -> str:
    """The sentence for a take without any lifted person."""
    return (f"nobody in the take {one_line(take.name)!r} has a 3D motion, which {path.name!r} would hold; lift the "
            "keypoints with lift run.")


def present_motion(motion: Motion) -> np.ndarray:
    """(T,) bool: the frames in which the person has a whole pose."""
    there = np.isfinite(motion.joints).all(axis=(1, 2))
    return there if motion.trajectory is None else there & np.isfinite(motion.trajectory).all(axis=1)


def places(motion: Motion) -> np.ndarray:
    """(T, J, 3) metres in the motion's frame; with the root at the origin where there is no trajectory."""
    return motion.joints if motion.trajectory is None else motion.absolute


def scene_points(motion: Motion) -> np.ndarray:
    """(T, J, 3) float64 metres in the axes of a scene, see `AXES`."""
    return places(motion).astype(np.float64) @ TO_SCENE[motion.frame].T


def describe_motion(motion: Motion) -> str:
    """Axes, frame, skeleton and rate in one line."""
    root = "" if motion.trajectory is not None else "; joints relative to the root, which stays at the origin"
    return (f"axes: {AXES[motion.frame]}{root}; frame: {motion.frame}; skeleton: {one_line(motion.skeleton.name)}; "
            f"{motion.fps:g} frames/s")
