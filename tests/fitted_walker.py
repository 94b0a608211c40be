"""A fit that costs nothing, for tests of what is around it: the body stands where the lifted root is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from filmed_walker import CAMERA, FPS, SIZE, filmed, walk_in_camera
from walking_figure import H36M

from lifting.body import BodyModel
from lifting.motion import BodyMotion, Motion, Person, Take

REPORT = {"stature_m": 1.754, "mean_residual_mm": 21.4, "mean_reprojection_px": 3.25, "residual_mm": {"hip": 12.0},
          "contacts": {"left_heel": 0.4, "right_heel": 0.6}, "warnings": ["the turn of neck is hardly observed"]}


def walking_take(frames: int = 8, people: int = 1, lifted: bool = True) -> Take:
    """A take of the walker, with motion, as `lift run` leaves it."""
    joints = walk_in_camera(frames)
    sigma = np.full(joints.shape[:2], 0.05)
    motion = Motion(joints - joints[:, :1], joints[:, 0], sigma, H36M, FPS) if lifted else None
    metadata = {"detector": "test", "focal_px": [600.0, 600.0], "people": [], "warnings": [], "interrupted": False}
    everybody = tuple(Person(number, filmed(frames), motion) for number in range(1, people + 1))
    return Take("walk", SIZE, FPS, np.arange(frames) / FPS, CAMERA, everybody, ("the floor is level",), metadata)


class QuickFit:
    """Stands in for `lifting.body.fit.fit_body`; `options` are those of the last call."""

    def __init__(self) -> None:
        self.options: dict = {}

    def __call__(self, take: Take, *, body: BodyModel, **options: object) -> Take:
        self.options = {"body": body.name, **options}
        people = tuple(replace(person, body=self.stand(person.motion, body)) for person in take.people)
        reports = [{"id": person.id, **REPORT} for person in people]
        about = {"name": body.name, "mode": options.get("mode", "whole"), "people": reports}
        return take.replace(people=people, metadata={**take.metadata, "body": about})

    @staticmethod
    def stand(motion: Motion, body: BodyModel) -> BodyMotion:
        """Upright, facing the camera, NaN where the person is absent."""
        rotations = np.zeros((len(motion), body.num_joints, 3))
        rotations[:, 0, 0] = np.pi  # y up becomes y down, and forward towards the camera
        rotations[np.isnan(motion.trajectory).any(1)] = np.nan
        return BodyMotion(rotations, motion.trajectory, np.zeros(body.num_shape), body.name, motion.fps, motion.frame)
