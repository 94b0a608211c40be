"""A take together with the future of its people: one after the other, one body for both, or cut off earlier."""

from __future__ import annotations

import dataclasses
from numbers import Real

import numpy as np

from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import CONTACT_POINTS, BodyMotion, Motion, Person, Take
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix
from lifting.world import presented

MOST_SECONDS = 10.0  # of a future: nobody can say more, and what is rolled on that long says nothing


def check_seconds(seconds: float) -> None:
    """ValueError for a horizon that is no time, or one of which nothing can be said."""
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not 0 < seconds <= MOST_SECONDS:
        raise ValueError(f"got a future of {seconds} s, expected more than 0 and at most {MOST_SECONDS:g}; the usual "
                         "is 1.")


def has_future(take: Take) -> bool:
    """Whether anybody's future is known."""
    return any(person.future is not None for person in take.people)


def continued(take: Take) -> Take:
    """The take with its futures as frames after the last: what programs get that know one time line only.

    take: as `lifting.world.presented` gives it, in the frame of its futures. The future has no keypoints and no
    contacts; of a moving camera the last pose is held. The take itself where nobody has a future.
    """
    if not has_future(take):
        return take
    frames = next(len(person.future) for person in take.people if person.future is not None)
    times = np.concatenate([take.times, take.times[-1] + np.arange(1, frames + 1) / take.fps])
    people = tuple(_continued_person(person, frames) for person in take.people)
    return take.replace(times=times, camera=_held_camera(take.camera, frames), people=people)


def _continued_person(person: Person, frames: int) -> Person:
    after = np.full((frames, person.keypoints.skeleton.num_joints, 2), np.nan, np.float32)
    keypoints = person.keypoints
    longer = Keypoints2D(np.concatenate([keypoints.xy, after]),
                         np.concatenate([keypoints.score, np.zeros(after.shape[:2], np.float32)]),
                         keypoints.skeleton, keypoints.image_size, keypoints.fps)  # fmt: skip
    contacts = None if person.contacts is None else _longer(person.contacts, None, (frames, len(CONTACT_POINTS)))
    motion = None if person.motion is None else _joined(
        person.motion, person.future, frames, ("joints", "trajectory", "sigma"))  # fmt: skip
    body = None if person.body is None else _joined(
        person.body, person.future_body, frames, ("rotations", "trajectory", "joint_sigma", "rotation_sigma"))
    return Person(person.id, longer, motion, body, contacts=contacts)


def _joined(past, future, frames: int, names: tuple[str, ...]):  # noqa: ANN001, ANN202  two of one type
    """A motion, or a body's, and what follows, NaN where nothing is known of the `frames` frames that follow."""
    arrays = {name: getattr(past, name) for name in names}
    return past.replace(**{name: _longer(array, getattr(future, name, None), (frames, *array.shape[1:]))
                           for name, array in arrays.items() if array is not None})  # fmt: skip


def _longer(past: np.ndarray, future: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([past, np.full(shape, np.nan, np.float32) if future is None else future])


def _held_camera(camera: Camera, frames: int) -> Camera:
    """The camera with its last pose for `frames` more frames, if it moves."""
    rotation, translation = camera.rotation, camera.translation
    if rotation.ndim == 3:
        rotation = np.concatenate([rotation, np.repeat(rotation[-1:], frames, axis=0)])
    if translation.ndim == 2:
        translation = np.concatenate([translation, np.repeat(translation[-1:], frames, axis=0)])
    return dataclasses.replace(camera, rotation=rotation, translation=translation)


def fit_with_future(take: Take, **options: object) -> Take:
    """`lifting.body.fit.fit_body` of a take, over past and future together: one body, one shape, no seam.

    Without a future it is that function alone. Else `Person.body` and `Person.future_body` are parts of one fit, to
    what `lifting.world.presented` shows; the bodies of the past come in the axes of the take.
    """
    from lifting.body.fit import fit_body

    if not has_future(take):
        return fit_body(take, **options)
    bare = take.replace(people=[dataclasses.replace(person, body=None, future_body=None) for person in take.people],
                        metadata={key: value for key, value in take.metadata.items() if key != "body"})
    shown = presented(bare)
    fitted = fit_body(continued(shown), **options)
    people = tuple(_divided(person, both.body, shown.camera) for person, both in zip(
        bare.people, fitted.people, strict=True))  # fmt: skip
    return bare.replace(people=people, metadata=fitted.metadata)


def _divided(person: Person, body: BodyMotion | None, camera: Camera) -> Person:
    """The person with the body of the past, in the frame of their motion, and with that of the future."""
    if body is None:
        return person
    past, later = body.slice(0, len(person.keypoints)), body.slice(len(person.keypoints))
    if person.motion is not None and past.frame != person.motion.frame:
        past = _seen_by(past, camera)
    return dataclasses.replace(person, body=past, future_body=None if person.future is None else later)


def _seen_by(body: BodyMotion, camera: Camera) -> BodyMotion:
    """A body in the world, in the axes of the camera."""
    root = camera.rotation @ rotvec_to_matrix(body.rotations[:, 0].astype(np.float64))
    rotations = np.concatenate([matrix_to_rotvec(root)[:, None], body.rotations[:, 1:]], axis=1)
    return body.replace(rotations=rotations, trajectory=camera.to_camera(body.trajectory), frame="camera")


def until(take: Take, frame: int) -> Take:
    """The frames 0 to `frame` of a take, as if no more had been filmed; ValueError for a frame that it has not."""
    if not 0 <= frame < len(take):
        raise ValueError(f"got the frame {frame}, expected 0 to {len(take) - 1}: the take {take.name!r} has no other.")
    end = frame + 1
    people = tuple(_person_until(person, end) for person in take.people)
    metadata = dict(take.metadata)
    if isinstance(metadata.get("world"), dict):
        world = metadata["world"]
        poses = {key: world[key][:end] for key, still in (("rotation", 2), ("up", 1), ("translation", 1))
                 if np.ndim(world[key]) > still}  # fmt: skip
        metadata["world"] = {**world, **poses}
    camera = dataclasses.replace(take.camera, **{
        name: value[:end] for name, value, still in (("rotation", take.camera.rotation, 2),
                                                     ("translation", take.camera.translation, 1))
        if value.ndim > still})  # fmt: skip
    return take.replace(times=take.times[:end], people=people, camera=camera, metadata=metadata)


def _person_until(person: Person, end: int) -> Person:
    parts: dict[str, Motion | BodyMotion | np.ndarray] = {
        name: part.slice(0, end) for name in ("motion", "body", "world") if (part := getattr(person, name)) is not None
    }
    if person.contacts is not None:
        parts["contacts"] = person.contacts[:end]
    return Person(person.id, person.keypoints.slice(0, end), **parts)
