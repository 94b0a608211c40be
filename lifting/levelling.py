"""A take moved onto its floor: upright, however the camera was held.

Results keep the axes of the camera. What people look at or open elsewhere (scenes, meshes, the 3D view of the overlay)
is levelled first, where fitting bodies has found the floor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lifting.cameras import Camera
from lifting.ground import Ground
from lifting.motion import BodyMotion, Motion, Person, Take
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix

MOST_DOUBT = 8.0  # degrees about the direction of gravity: beyond it a level camera is as good a guess


def level_take(take: Take) -> Take:
    """The take in world axes (+z up, origin on the floor under the main body's first root), its camera where it was.

    `Take.camera` then leads from there to camera axes. The take itself where it is in world axes already, or where no
    floor was found well enough.
    """
    ground, root = known_floor(take), _first_root(take)
    if ground is None or root is None:
        return take
    rotation, translation = ground.world(root)
    people = tuple(_moved_person(person, rotation, translation) for person in take.people)
    camera = _seen_from(take.camera, rotation, translation)
    return take.replace(people=people, camera=camera)


def known_floor(take: Take) -> Ground | None:
    """The floor of a take in camera axes, that of the body which knows it best, from the fit's report; None without."""
    frames = {part.frame for person in take.people for part in (person.motion, person.body) if part is not None}
    about = take.metadata.get("body")
    if frames != {"camera"} or not isinstance(about, Mapping) or not isinstance(about.get("people"), list):
        return None
    floors = [floor for person in about["people"] if (floor := _read_floor(person)) is not None]
    return min(floors, key=lambda floor: floor.sigma_degrees, default=None)


def _read_floor(report: Any) -> Ground | None:
    """The floor in one person's report; None without, or with a doubtful one."""
    try:
        about = report["ground"]
        floor = Ground(about["up"], about["offset_m"], float(about["sigma_degrees"]), str(about["source"]))
    except (KeyError, TypeError, ValueError):
        return None
    return floor if floor.source != "camera" and floor.sigma_degrees < MOST_DOUBT else None


def _first_root(take: Take) -> np.ndarray | None:
    """(3,) metres, where joint 0 of the first body is when it is first seen."""
    paths = [person.body.trajectory[person.body.present] for person in take.people if person.body is not None]
    return next((path[0] for path in paths if len(path)), None)


def _moved_person(person: Person, rotation: np.ndarray, translation: np.ndarray) -> Person:
    motion = None if person.motion is None else _moved_motion(person.motion, rotation, translation)
    body = None if person.body is None else _moved_body(person.body, rotation, translation)
    if person.future is not None and person.future.frame == "camera":
        future = _moved_motion(person.future, rotation, translation)
        later = None if person.future_body is None else _moved_body(person.future_body, rotation, translation)
        person = dataclasses.replace(person, future=future, future_body=later)
    return dataclasses.replace(person, motion=motion, body=body)


def _moved_motion(motion: Motion, rotation: np.ndarray, translation: np.ndarray) -> Motion:
    path = None if motion.trajectory is None else motion.trajectory @ rotation.T + translation
    return motion.replace(joints=motion.joints @ rotation.T, trajectory=path, frame="world")


def _moved_body(body: BodyMotion, rotation: np.ndarray, translation: np.ndarray) -> BodyMotion:
    root = matrix_to_rotvec(rotation @ rotvec_to_matrix(body.rotations[:, :1].astype(np.float64)))
    rotations = np.concatenate([root, body.rotations[:, 1:]], axis=1)
    return body.replace(rotations=rotations, trajectory=body.trajectory @ rotation.T + translation, frame="world")


def _seen_from(camera: Camera, rotation: np.ndarray, translation: np.ndarray) -> Camera:
    """The camera at the origin of the axes from which `rotation` and `translation` lead to the world."""
    return dataclasses.replace(camera, rotation=rotation.T, translation=-rotation.T @ translation)
