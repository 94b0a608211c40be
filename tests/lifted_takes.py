"""Takes of lifted people without bodies, for the tests of export."""

from __future__ import annotations

import numpy as np
from walking_figure import walker

from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Person, Take

FPS, SIZE, FRAMES = 50.0, (640, 480), 40
TO_CAMERA = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # a level camera at the origin that looks along +Y
HOSTILE = 'a\t"b"\n#c,=1+1\r\n</script>\0é漢\ud800 ../x'


def walking_joints(frame: str = "world", frames: int = FRAMES, **options) -> np.ndarray:
    """(T, 17, 3) metres of the walker, four metres before the camera."""
    joints = walker(frames, **options).astype(np.float64) + [0.3, 4.0, 0.0]
    return joints if frame == "world" else (joints - [0, 0, 1.5]) @ TO_CAMERA.T


def motion_of(joints: np.ndarray, frame: str = "world", sigma: float | None = 0.05) -> Motion:
    """Absolute joints (T, 17, 3) as a motion."""
    doubt = None if sigma is None else np.full(joints.shape[:2], sigma)
    return Motion(joints - joints[:, :1], joints[:, 0], doubt, "h36m17", FPS, frame)


def walking_person(number: int = 1, frame: str = "world", absent: tuple[int, int] = (0, 0), **options) -> Person:
    """The walker as a person, absent in the first and last frames."""
    joints = walking_joints(frame, **options)
    joints[: absent[0]] = joints[len(joints) - absent[1] :] = np.nan
    points = np.full((len(joints), 17, 2), 100.0)
    return Person(number, Keypoints2D(points, None, "coco17", SIZE, FPS), motion_of(joints, frame))


def lifted_take(*people: Person, **changes) -> Take:
    """A take of some people."""
    people = people or (walking_person(),)
    fields = {"name": "walk", "image_size": SIZE, "fps": FPS, "times": 2.0 + np.arange(len(people[0].keypoints)) / FPS,
              "camera": Camera.from_fov(60, SIZE), "people": people}
    return Take(**{**fields, **changes})
