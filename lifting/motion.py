"""Motion in space: Motion (joints over time), BodyMotion (a body model over time), Person and Take (a whole video)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from lifting.keypoints import Keypoints2D, as_float_array, check_fps, check_image_size, equal_values, set_fields
from lifting.skeletons import Skeleton, get_skeleton

if TYPE_CHECKING:
    from lifting.cameras import Camera

FRAMES = ("camera", "world")
CONTACT_POINTS = ("left_heel", "left_toe", "right_heel", "right_toe")
"""Order of the columns of `Person.contacts`."""
RADIUS_68 = 1.8724  # standard deviations per axis in the radius that holds 68 % of a normal distribution in 3D


@dataclass(frozen=True, eq=False)
class Motion:
    """The 3D motion of one person over T frames.

    Attributes:
        joints: (T, J, 3) float32 metres relative to the root; NaN only where the person is absent.
        trajectory: (T, 3) float32 metres, where the root is; or None.
        sigma: (T, J) float32 metres, the radius around a joint that holds 68 % of its errors; or None.
        skeleton: the layout of the J joints, or its name.
        fps: frames per second.
        frame: ``camera`` (+x right, +y down, +z forward, origin in the camera) or ``world`` (right-handed, Z up).

    Raises ValueError for wrong shapes, no frames, infinite values, a negative sigma, an unknown frame or a fps that is
    not positive.
    """

    joints: np.ndarray
    trajectory: np.ndarray | None
    sigma: np.ndarray | None
    skeleton: Skeleton
    fps: float
    frame: str = "camera"

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        skeleton = get_skeleton(self.skeleton)
        joints = as_float_array(self.joints, "joints", (None, skeleton.num_joints, 3))
        if not len(joints):
            raise ValueError("got a motion of 0 frames, expected at least one.")
        trajectory = self.trajectory
        if trajectory is not None:
            trajectory = as_float_array(trajectory, "trajectory", (len(joints), 3))
        sigma = _as_sigma(self.sigma, "sigma", joints.shape[:2], "m")
        _check_frame(self.frame)
        set_fields(self, joints=joints, trajectory=trajectory, sigma=sigma, skeleton=skeleton, fps=check_fps(self.fps))

    def __len__(self) -> int:
        """T."""
        return len(self.joints)

    def __eq__(self, other: object) -> bool:
        """Equal in every field, NaN equal to NaN."""
        return equal_values(self, other) if isinstance(other, Motion) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.joints)

    @property
    def absolute(self) -> np.ndarray:
        """(T, J, 3) metres in `frame`: joints + trajectory; ValueError when there is no trajectory."""
        if self.trajectory is None:
            raise ValueError("this motion has no trajectory, only joints relative to the root; lift with a trajectory.")
        return self.joints + self.trajectory[:, None]

    def slice(self, start: int | None = None, stop: int | None = None) -> Motion:
        """Frames start..stop (Python's rules); ValueError when none is left."""
        cut = {name: None if value is None else value[start:stop]
               for name, value in (("trajectory", self.trajectory), ("sigma", self.sigma))}
        return self.replace(joints=self.joints[start:stop], **cut)

    def replace(self, **changes: object) -> Motion:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, eq=False)
class BodyMotion:
    """The motion of one person's body over T frames: what a body model of K joints and S shape coefficients needs.

    Attributes:
        rotations: (T, K, 3) float32 rotation vectors in radians, each joint's axes to its parent's, joint 0 (the root)
            to `frame`; NaN only where the person is absent.
        trajectory: (T, 3) float32 metres, position of joint 0 in `frame`; NaN where the person is absent.
        shape: (S,) float32 shape coefficients, one set for the whole motion.
        body: name of the body model.
        fps: frames per second.
        frame: ``camera`` or ``world``, as of `Motion`.
        joint_sigma: (T, K) float32 metres, the radius around a joint that holds 68 % of its errors; or None.
        rotation_sigma: (T, K) float32 radians, standard deviation of a joint's local rotation about its least certain
            axis (large where a twist was hardly observed); or None.

    Raises ValueError for wrong shapes, no frames, infinite values, a negative sigma, an unknown frame or a fps that is
    not positive.
    """

    rotations: np.ndarray
    trajectory: np.ndarray
    shape: np.ndarray
    body: str
    fps: float
    frame: str = "camera"
    joint_sigma: np.ndarray | None = None
    rotation_sigma: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        rotations = as_float_array(self.rotations, "rotations", (None, None, 3))
        if not len(rotations) or not rotations.shape[1]:
            raise ValueError(f"got a motion of {len(rotations)} frames and {rotations.shape[1]} joints, expected at "
                             "least one of each.")
        trajectory = as_float_array(self.trajectory, "trajectory", (len(rotations), 3))
        shape = as_float_array(self.shape, "shape", (None,))
        if np.isnan(shape).any():
            raise ValueError("the shape of a body must be finite, got NaN.")
        if not isinstance(self.body, str) or not self.body.strip():
            raise ValueError(f"a body motion needs the name of its body, got {self.body!r}.")
        _check_frame(self.frame)
        set_fields(self, rotations=rotations, trajectory=trajectory, shape=shape, fps=check_fps(self.fps),
                   joint_sigma=_as_sigma(self.joint_sigma, "joint_sigma", rotations.shape[:2], "m"),
                   rotation_sigma=_as_sigma(self.rotation_sigma, "rotation_sigma", rotations.shape[:2], "rad"))

    def __len__(self) -> int:
        """T."""
        return len(self.rotations)

    def __eq__(self, other: object) -> bool:
        """Equal in every field, NaN equal to NaN."""
        return equal_values(self, other) if isinstance(other, BodyMotion) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.rotations)

    @property
    def present(self) -> np.ndarray:
        """(T,) bool: the frames in which the person is there."""
        return ~(np.isnan(self.rotations).any(axis=(1, 2)) | np.isnan(self.trajectory).any(axis=1))

    def slice(self, start: int | None = None, stop: int | None = None) -> BodyMotion:
        """Frames start..stop (Python's rules); ValueError when none is left."""
        arrays = {name: getattr(self, name) for name in ("rotations", "trajectory", "joint_sigma", "rotation_sigma")}
        return self.replace(**{name: None if value is None else value[start:stop] for name, value in arrays.items()})

    def replace(self, **changes: object) -> BodyMotion:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, eq=False)
class Person:
    """One person of a take.

    Attributes:
        id: a whole number, stable over the take, not negative.
        keypoints: the 2D evidence, spanning all T frames of the take.
        motion: the lifted motion of the same T frames, or None.
        body: the fitted body's motion over the same T frames, or None.
        world: the motion in the frame ``world``, smoothed, with constant bones and locked feet (see `lifting.world`),
            beside the raw `motion`; or None.
        contacts: (T, 4) float32, the probability that each point of `CONTACT_POINTS` stands on something, NaN where the
            person is absent; or None. From `lifting.world`, heel and toe of a foot have the same one.
        future: the predicted motion of the frames that follow the T frames (see `lifting.future`), in the frame of what
            it continues: `world` where there is one, else `motion`; or None.
        future_body: the body's motion in the frames and the frame of `future`; or None.

    Raises ValueError when the parts differ in length or fps, motion and body in frame, when `world` is in another frame
    or layout, when the parts of the future do not fit together, and for contacts outside 0 to 1.
    """

    id: int
    keypoints: Keypoints2D
    motion: Motion | None = None
    body: BodyMotion | None = None
    world: Motion | None = None
    contacts: np.ndarray | None = None
    future: Motion | None = None
    future_body: BodyMotion | None = None

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        if isinstance(self.id, bool) or not isinstance(self.id, Integral) or self.id < 0:
            raise ValueError(f"the id of a person must be a whole number from 0, got {self.id!r}.")
        set_fields(self, id=int(self.id))
        for what, part in (("motion", self.motion), ("body", self.body), ("world motion", self.world)):
            self._check_part(what, part)
        if self.motion is not None and self.body is not None and self.motion.frame != self.body.frame:
            raise ValueError(f"person {self.id} has a motion in the frame {self.motion.frame!r} but a body in "
                             f"{self.body.frame!r}; both must be in one frame.")
        self._check_world()
        self._check_future()

    def _check_future(self) -> None:
        parts = [part for part in (self.future, self.future_body) if part is not None]
        if any(part.fps != self.keypoints.fps for part in parts):
            raise ValueError(f"person {self.id} has keypoints at {self.keypoints.fps:g} fps but a future at "
                             f"{parts[0].fps:g}; resample one of them.")
        if len({(len(part), part.frame) for part in parts}) > 1:
            raise ValueError(f"person {self.id} has a future of {len(parts[0])} frames in the frame "
                             f"{parts[0].frame!r} but a future body of {len(parts[1])} in {parts[1].frame!r}; both "
                             "must be of the same frames.")

    def _check_world(self) -> None:
        if self.world is not None and self.world.frame != "world":
            raise ValueError(f"the world motion of person {self.id} is in the frame {self.world.frame!r}, expected "
                             "'world'; move it there.")
        if self.world is not None and self.motion is not None and self.world.skeleton != self.motion.skeleton:
            raise ValueError(f"person {self.id} has a motion of the layout {self.motion.skeleton.name!r} but a world "
                             f"motion of {self.world.skeleton.name!r}; both must have one.")
        if self.contacts is not None:
            contacts = as_float_array(self.contacts, "contacts", (len(self.keypoints), len(CONTACT_POINTS)))
            if (contacts < 0).any() or (contacts > 1).any():
                raise ValueError(f"the contacts of person {self.id} must be probabilities from 0 to 1.")
            set_fields(self, contacts=contacts)

    def __eq__(self, other: object) -> bool:
        """Equal in every field, NaN equal to NaN."""
        return equal_values(self, other) if isinstance(other, Person) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _check_part(self, what: str, part: Motion | BodyMotion | None) -> None:
        if part is not None and len(part) != len(self.keypoints):
            raise ValueError(f"person {self.id} has {len(self.keypoints)} frames of keypoints but {len(part)} "
                             f"of {what}; both must span the same frames.")
        if part is not None and part.fps != self.keypoints.fps:
            raise ValueError(f"person {self.id} has keypoints at {self.keypoints.fps:g} fps but {what} at "
                             f"{part.fps:g}; resample one of them.")


@dataclass(frozen=True, eq=False)
class Take:
    """One video (or keypoint file) and what was found in it.

    Attributes:
        name: what the take is called, usually the file's stem.
        image_size: (width, height) pixels.
        fps: frames per second.
        times: (T,) float64 seconds, strictly increasing.
        camera: the camera, a lifting.cameras.Camera.
        people: main person first; all span the T frames.
        assumed: sentences that say what of the camera or size was assumed.
        metadata: JSON-able facts: detector, weights, version, warnings.

    Raises ValueError when the parts do not span the same frames, share layouts, fps and image size, or ids are doubled.
    """

    name: str
    image_size: tuple[int, int]
    fps: float
    times: np.ndarray
    camera: Camera
    people: tuple[Person, ...] = ()
    assumed: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        set_fields(self, name=str(self.name), image_size=check_image_size(self.image_size), fps=check_fps(self.fps),
                   times=as_float_array(self.times, "times", (None,), np.float64), people=tuple(self.people),
                   assumed=tuple(self.assumed), metadata=plain_json(self.metadata, "take"))
        if not len(self.times) or np.isnan(self.times).any() or (np.diff(self.times) <= 0).any():
            raise ValueError("times must be at least one finite number of seconds, strictly increasing.")
        if not hasattr(self.camera, "image_size") or tuple(self.camera.image_size) != self.image_size:
            raise ValueError(f"the camera of a take must have its image size {self.image_size}, "
                             f"got {getattr(self.camera, 'image_size', self.camera)!r}; scale the camera first.")
        self._check_people()

    def _check_people(self) -> None:
        ids = [person.id for person in self.people]
        if len(set(ids)) != len(ids):
            raise ValueError(f"the ids of the people of a take must be unique, got {ids}.")
        for person in self.people:
            keypoints = person.keypoints
            if len(keypoints) != len(self.times):
                raise ValueError(f"person {person.id} has {len(keypoints)} frames, the take has {len(self.times)}; "
                                 "all people must span the whole take.")
            if keypoints.image_size != self.image_size or keypoints.fps != self.fps:
                raise ValueError(f"person {person.id} has keypoints of {keypoints.image_size} pixels at "
                                 f"{keypoints.fps:g} fps, the take has {self.image_size} at {self.fps:g}.")
        motions = [person.motion for person in self.people if person.motion is not None]
        _check_shared((person.keypoints.skeleton.name for person in self.people), "keypoint skeleton")
        _check_shared((motion.skeleton.name for motion in motions), "motion skeleton")
        bodies = [person.body for person in self.people if person.body is not None]
        _check_shared((part.frame for part in [*motions, *bodies]), "frame")
        futures = [person.future for person in self.people if person.future is not None]
        _check_shared((f"{len(future)} frames in {future.frame!r}" for future in futures), "span of their futures")

    def __len__(self) -> int:
        """T."""
        return len(self.times)

    def __eq__(self, other: object) -> bool:
        """Equal in every field, NaN equal to NaN."""
        return equal_values(self, other) if isinstance(other, Take) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.times)

    def person(self, person_id: int) -> Person:
        """The person with that id; ValueError with the known ids otherwise."""
        for person in self.people:
            if person.id == person_id:
                return person
        known = ", ".join(str(person.id) for person in self.people) or "none"
        raise ValueError(f"there is no person {person_id!r} in the take {self.name!r}; known ids: {known}.")

    def replace(self, **changes: object) -> Take:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)


def _check_frame(frame: object) -> None:
    if frame not in FRAMES:
        raise ValueError(f"frame must be one of {', '.join(FRAMES)}, got {frame!r}.")


def _as_sigma(sigma: object, name: str, shape: tuple[int, ...], unit: str) -> np.ndarray | None:
    """A standard deviation or radius as float32, checked not to be negative; None stays None."""
    if sigma is None:
        return None
    sigma = as_float_array(sigma, name, shape)
    if (sigma < 0).any():
        raise ValueError(f"{name} must not be negative, got {np.nanmin(sigma):g} {unit}.")
    return sigma


def _check_shared(values: Iterable[str], what: str) -> None:
    found = sorted(set(values))
    if len(found) > 1:
        raise ValueError(f"all people of a take must share one {what}, got {', '.join(found)}.")


def plain_json(metadata: object, owner: str) -> dict[str, Any]:
    """Metadata as it will come back from a file: dicts with text keys, lists, text, finite numbers, booleans, None.

    Raises ValueError that names the `owner`, such as "take", for anything else.
    """
    try:
        plain = json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the metadata of a {owner} must be plain JSON data, got {error}.") from error
    if not isinstance(plain, dict):
        raise ValueError(f"the metadata of a {owner} must be a dict, got {type(metadata).__name__}.")
    return plain
