"""Clips: what training and evaluation see of a data set, one camera's view of one take at a time.

A `ClipSet` lists its clips (`infos`) and reads any range of frames of one (`read`), so that data may be larger than
memory. Every data set is one; `lifting.datasets.opening.open_clips` finds out which.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D, as_float_array, equal_values
from lifting.motion import Motion
from lifting.skeletons import Skeleton, get_skeleton


class ClipName:
    """What a clip and its description share: names made of subject, action and view."""

    subject: str
    action: str
    view: str

    @property
    def take(self) -> str:
        """``subject/action``: all views of one take share it."""
        return f"{self.subject}/{self.action}"

    @property
    def name(self) -> str:
        """``subject/action/view``, unique in a data set."""
        return f"{self.take}/{self.view}"


@dataclass(frozen=True, eq=False)
class Clip(ClipName):
    """One camera's view of one take, T frames.

    Attributes:
        subject, action, view: such as ``S1``, ``Walking 1``, ``54138969``.
        keypoints: the 2D keypoints, pixels.
        motion: the true motion in the camera's frame, joints relative to the root and the root's trajectory, metres;
            None: unlabelled.
        camera: intrinsics (with OpenCV's distortion), and the pose where known; None: unknown.

    Raises ValueError when keypoints and motion differ in frames or fps, the motion is not in the camera's frame, or
    the camera's image size is not that of the keypoints.
    """

    subject: str
    action: str
    view: str
    keypoints: Keypoints2D
    motion: Motion | None = None
    camera: Camera | None = None

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        keypoints, motion, camera = self.keypoints, self.motion, self.camera
        if motion is not None and (len(motion), motion.fps) != (len(keypoints), keypoints.fps):
            raise ValueError(f"clip {self.name} has {len(keypoints)} frames of keypoints at {keypoints.fps:g} fps but "
                             f"{len(motion)} of motion at {motion.fps:g}; both must span the same frames.")
        if motion is not None and motion.frame != "camera":
            raise ValueError(f"clip {self.name} has its motion in the frame {motion.frame!r}, expected 'camera'; "
                             "move it there with Camera.to_camera.")
        if camera is not None and camera.image_size != keypoints.image_size:
            raise ValueError(f"clip {self.name} has keypoints in images of {keypoints.image_size} pixels but a camera "
                             f"of {camera.image_size}; scale the camera first.")

    def __len__(self) -> int:
        """T."""
        return len(self.keypoints)

    def __eq__(self, other: object) -> bool:
        """Equal in every field, NaN equal to NaN."""
        return equal_values(self, other) if isinstance(other, Clip) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def info(self) -> ClipInfo:
        """The clip's description."""
        return ClipInfo(self.subject, self.action, self.view, len(self), self.keypoints.fps, self.motion is not None,
                        self.keypoints.image_size, self.camera)

    def slice(self, start: int | None = None, stop: int | None = None) -> Clip:
        """Frames start..stop (Python's rules); ValueError when none is left."""
        motion, camera = self.motion, self.camera
        return replace(self, keypoints=self.keypoints.slice(start, stop),
                       motion=None if motion is None else motion.slice(start, stop),
                       camera=None if camera is None else slice_camera(camera, start, stop))

    def thin(self, step: int) -> Clip:
        """Every step-th frame, at the frame rate that this leaves; ValueError for a step below 1."""
        if step < 1:
            raise ValueError(f"got every {step}th frame of clip {self.name}, expected at least 1: all of them.")
        keypoints, motion, camera = self.keypoints, self.motion, self.camera
        fps = keypoints.fps / step
        keypoints = keypoints.replace(xy=keypoints.xy[::step], score=keypoints.score[::step], fps=fps)
        if motion is not None:
            per_frame = {name: values[::step] for name in ("joints", "trajectory", "sigma")
                         if (values := getattr(motion, name)) is not None}
            motion = motion.replace(**per_frame, fps=fps)
        camera = None if camera is None else slice_camera(camera, None, None, step)
        return replace(self, keypoints=keypoints, motion=motion, camera=camera)


@dataclass(frozen=True)
class ClipInfo(ClipName):
    """What is known of a clip without reading it; the fields are those of `Clip`.

    Attributes:
        frames: T.
        labelled: whether the clip has a motion.
        image_size: (width, height) pixels.
        camera: as of the whole clip (a moving one has T poses).
    """

    subject: str
    action: str
    view: str
    frames: int
    fps: float
    labelled: bool
    image_size: tuple[int, int]
    camera: Camera | None = None

    __hash__ = None  # type: ignore[assignment]


def slice_camera(camera: Camera, start: int | None, stop: int | None, step: int = 1) -> Camera:
    """The camera of the frames start..stop, every step-th: what of its pose is per frame is cut, all else stays."""
    moving = {}
    if camera.rotation.ndim == 3:
        moving["rotation"] = camera.rotation[start:stop:step]
    if camera.translation.ndim == 2:
        moving["translation"] = camera.translation[start:stop:step]
    return replace(camera, **moving) if moving else camera


def subject_key(name: str) -> str:
    """What all names of one subject share: ``S14``, ``s14``, ``14`` and ``014`` have one key; others ignore case."""
    number = re.fullmatch(r"s?0*(\d+)", name.strip(), re.IGNORECASE)
    return number[1] if number else name.strip().casefold()


def camera_motion(points_cam: np.ndarray, skeleton: Skeleton | str, fps: float) -> Motion:
    """The motion of joints (T, J, 3) metres in the camera's frame: the root's trajectory, and joints relative to it."""
    skeleton = get_skeleton(skeleton)
    points_cam = as_float_array(points_cam, "joints", (None, skeleton.num_joints, 3), np.float64)
    root = points_cam[:, skeleton.root]
    return Motion(points_cam - root[:, None], root, None, skeleton, fps)


class ClipSet(ABC):
    """Clips that are listed at once and read when needed; `len` counts them, iterating reads them whole.

    Attributes:
        name: what the data set is called.
        infos: the descriptions of all clips, in the order of their indices.
        skeleton_in: layout of the keypoints, the same for all clips.
        skeleton_out: layout of the motions; None when no clip is labelled.
    """

    name: str
    infos: tuple[ClipInfo, ...]
    skeleton_in: Skeleton
    skeleton_out: Skeleton | None

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.infos)

    def __iter__(self) -> Iterator[Clip]:
        """Read one whole clip after the other."""
        return (self.read(index) for index in range(len(self)))

    @property
    def frames(self) -> int:
        """Frames of all clips together."""
        return sum(info.frames for info in self.infos)

    def read(self, index: int, start: int = 0, stop: int | None = None) -> Clip:
        """Frames start..stop (None: to the end) of one clip; no others are read.

        Raises IndexError when there is no such clip and ValueError when the range is empty or leaves the clip.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} clips, got the index {index}; count from 0.")
        frames = self.infos[index].frames
        stop = frames if stop is None else stop
        if not 0 <= start < stop <= frames:
            raise ValueError(f"{self.infos[index].name} has {frames} frames, got the range {start}..{stop}; ask for "
                             f"at least one frame within 0..{frames}.")
        return self._read(index, start, stop)

    @abstractmethod
    def _read(self, index: int, start: int, stop: int) -> Clip:
        """Read frames start..stop, a range that exists."""

    def subset(self, indices: Iterable[int]) -> ClipSet:
        """The clips of these indices, in that order; IndexError when one does not exist, ValueError without any."""
        return _View(self, tuple(indices))

    def select(self, subjects: Iterable[str] | None = None, actions: Iterable[str] | None = None) -> ClipSet:
        """The clips of these subjects (as `subject_key` tells them apart) whose action begins with one of `actions`.

        None keeps all. Raises ValueError, listing those that exist, for an unknown subject or action, and when no clip
        has both.
        """
        indices = [index for index, (of_subject, of_action)
                   in enumerate(zip(self._of_subjects(subjects), self._of_actions(actions), strict=True))
                   if of_subject and of_action]
        if not indices:
            raise ValueError(f"{self.name} has no clip of the subjects {_listed(subjects)} with the actions "
                             f"{_listed(actions)}, though it has both; ask for less.")
        return self.subset(indices)

    def without_labels(self) -> ClipSet:
        """The same clips without their motions."""
        return _View(self, tuple(range(len(self))), labelled=False)

    def _of_subjects(self, subjects: Iterable[str] | None) -> list[bool]:
        if subjects is None:
            return [True] * len(self)
        wanted = {subject_key(subject): subject for subject in _as_names(subjects, "subjects")}
        found = [subject_key(info.subject) for info in self.infos]
        if unknown := [subject for key, subject in wanted.items() if key not in found]:
            raise ValueError(f"{self.name} has no subject {_listed(unknown)}; it has "
                             f"{_listed(dict.fromkeys(info.subject for info in self.infos))}.")
        return [key in wanted for key in found]

    def _of_actions(self, actions: Iterable[str] | None) -> list[bool]:
        if actions is None:
            return [True] * len(self)
        prefixes, found = tuple(_as_names(actions, "actions")), [info.action for info in self.infos]
        if unknown := [prefix for prefix in prefixes if not any(action.startswith(prefix) for action in found)]:
            raise ValueError(f"{self.name} has no action that begins with {_listed(unknown)}; it has "
                             f"{_listed(dict.fromkeys(action.partition(' ')[0] for action in found))}.")
        return [action.startswith(prefixes) for action in found]


class ClipList(ClipSet):
    """Clips in memory; ValueError when there is none, two have one name, or they differ in a layout."""

    def __init__(self, clips: Sequence[Clip], name: str = "memory") -> None:
        self.clips, self.name = tuple(clips), name
        self.infos = tuple(clip.info for clip in self.clips)
        check_names(self.infos, name)
        self.skeleton_in = shared_skeleton((clip.keypoints.skeleton for clip in self.clips), "keypoints", name)
        motions = [clip.motion.skeleton for clip in self.clips if clip.motion is not None]
        self.skeleton_out = shared_skeleton(motions, "motions", name) if motions else None

    def _read(self, index: int, start: int, stop: int) -> Clip:
        return self.clips[index].slice(start, stop)


class JoinedClips(ClipSet):
    """Several clip sets of the same layouts as one; ValueError when layouts differ or two clips have one name."""

    def __init__(self, sets: Iterable[ClipSet]) -> None:
        self._sets = tuple(sets)
        self.name = " and ".join(clips.name for clips in self._sets)
        self.infos = tuple(info for clips in self._sets for info in clips.infos)
        check_names(self.infos, self.name)
        self.skeleton_in = shared_skeleton((clips.skeleton_in for clips in self._sets), "keypoints", self.name)
        labelled = [clips.skeleton_out for clips in self._sets if clips.skeleton_out is not None]
        self.skeleton_out = shared_skeleton(labelled, "motions", self.name) if labelled else None

    def _read(self, index: int, start: int, stop: int) -> Clip:
        for clips in self._sets:
            if index < len(clips):
                return clips.read(index, start, stop)
            index -= len(clips)
        raise IndexError(index)


class _View(ClipSet):
    """Some clips of another set, with or without their labels."""

    def __init__(self, source: ClipSet, indices: tuple[int, ...], labelled: bool = True) -> None:
        if beyond := [index for index in indices if not 0 <= index < len(source)]:
            raise IndexError(f"{source.name} has {len(source)} clips, got the index {beyond[0]}; count from 0.")
        self._source, self._indices, self._labelled = source, indices, labelled
        self.name, self.skeleton_in = source.name, source.skeleton_in
        infos = (source.infos[index] for index in indices)
        self.infos = tuple(infos) if labelled else tuple(replace(info, labelled=False) for info in infos)
        check_names(self.infos, self.name)
        self.skeleton_out = source.skeleton_out if any(info.labelled for info in self.infos) else None

    def _read(self, index: int, start: int, stop: int) -> Clip:
        clip = self._source.read(self._indices[index], start, stop)
        return clip if self._labelled or clip.motion is None else replace(clip, motion=None)


def check_names(infos: Sequence[ClipInfo], owner: str) -> None:
    """Refuse, with ValueError, a data set without clips or with two clips of one name."""
    if not infos:
        raise ValueError(f"{owner} has no clips, expected at least one; check what was asked for.")
    seen: set[str] = set()
    for info in infos:
        if info.name in seen:
            raise ValueError(f"{owner} has two clips called {info.name!r}; each needs a name of its own.")
        seen.add(info.name)


def shared_skeleton(skeletons: Iterable[Skeleton], what: str, owner: str) -> Skeleton:
    """The one layout that all share; ValueError, naming two, when they differ."""
    first, *others = skeletons
    for other in others:
        if other != first:
            raise ValueError(f"the {what} of {owner} are in the layouts {first.name} and {other.name}; bring them into "
                             "one first.")
    return first


def _as_names(names: Iterable[str], what: str) -> list[str]:
    if isinstance(names, str):
        raise ValueError(f"{what} are given as a list of names, got the text {names!r}; give [{names!r}].")
    return list(names)


def _listed(names: Iterable[str] | None) -> str:
    return "of any name" if names is None else ", ".join(map(str, names))
