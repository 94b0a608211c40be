"""What every keypoint file becomes: detections per frame, and what was found or assumed about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifting.keypoints import Detection, Keypoints2D, check_fps, check_image_size, set_fields
from lifting.skeletons import Skeleton, get_skeleton

__all__ = ["KeypointFile", "Request"]


@dataclass(frozen=True)
class Request:
    """What the caller of `read_keypoints` says about the file; None = take it from the file.

    Raises ValueError for sizes and fps that are not positive and for an unknown skeleton.
    """

    image_size: tuple[int, int] | None = None
    fps: float | None = None
    skeleton: Skeleton | str | None = None
    sequence: str | None = None

    def __post_init__(self) -> None:
        """Check the fields; a skeleton's name becomes the skeleton."""
        if self.image_size is not None:
            set_fields(self, image_size=check_image_size(self.image_size))
        if self.fps is not None:
            set_fields(self, fps=check_fps(self.fps))
        if self.skeleton is not None:
            set_fields(self, skeleton=get_skeleton(self.skeleton))


@dataclass(frozen=True, eq=False)
class KeypointFile:
    """The people of one video, frame by frame.

    Attributes:
        format: name of the format in `FORMATS`.
        skeleton: layout of the joints of every detection.
        frames: T tuples of detections, empty where the file has nobody or leaves the frame out.
        ids: for each detection who it is, same shape as frames; None where the file does not track people.
        image_size: (width, height) pixels, or None when unknown.
        fps: frames per second, or None when unknown.
        start: the number that the file gives to frames[0].
        notes: sentences about what was assumed, converted or left out.
    """

    format: str
    skeleton: Skeleton
    frames: tuple[tuple[Detection, ...], ...]
    ids: tuple[tuple[int, ...], ...] | None
    image_size: tuple[int, int] | None
    fps: float | None
    start: int = 0
    notes: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        """T, gaps included."""
        return len(self.frames)

    @property
    def person_ids(self) -> tuple[int, ...]:
        """Ids in order of appearance, empty where the file does not track people."""
        return tuple(dict.fromkeys(person for frame in self.ids or () for person in frame))

    def person(
        self, person_id: int, *, image_size: tuple[int, int] | None = None, fps: float | None = None
    ) -> Keypoints2D:
        """Keypoints of one tracked person over all T frames, NaN where absent.

        image_size and fps are needed where the file has none. Raises ValueError without them, and for an unknown id.
        """
        image_size, fps = image_size or self.image_size, fps or self.fps
        if person_id not in self.person_ids:
            known = ", ".join(map(str, self.person_ids[:20])) or "people without ids"
            raise ValueError(f"there is no person {person_id!r} in the file: it has {known}")
        if image_size is None or fps is None:
            raise ValueError("the file states no image size or no fps: give image_size=(width, height) and fps=")
        xy = np.full((self.num_frames, self.skeleton.num_joints, 2), np.nan, np.float32)
        score = np.zeros(xy.shape[:2], np.float32)
        for frame, (detections, ids) in enumerate(zip(self.frames, self.ids or (), strict=True)):
            if person_id in ids:
                detection = detections[ids.index(person_id)]
                xy[frame], score[frame] = detection.xy, detection.score
        return Keypoints2D(xy, score, self.skeleton, image_size, fps)
