"""Takes of world-space joints that several cameras see: what most motion capture data sets consist of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lifting.cameras import Camera
from lifting.datasets.clips import Clip, ClipInfo, ClipName, ClipSet, camera_motion, check_names, slice_camera
from lifting.keypoints import Keypoints2D
from lifting.skeletons import Skeleton


@dataclass(frozen=True, eq=False)
class WorldView(ClipName):
    """One camera's view of one take of T frames. Views of one take share the array of its joints.

    Attributes:
        subject, action, view, fps, image_size, camera: as of `Clip`.
        joints: (T, J, 3) metres, world frame; None: unlabelled.
        detected: (at least T, K, 2 or 3) pixels and, where there is a third number, the score; frames beyond T are
            left out. None: the joints' projections.
        project: turns joints (..., J, 3) metres in the camera's frame into pixels, where the lens is not that of
            `camera`; None: `camera.project`.

    Raises ValueError when there are fewer detected frames than joints, or joints or projections without a camera.
    """

    subject: str
    action: str
    view: str
    fps: float
    image_size: tuple[int, int]
    camera: Camera | None = None
    joints: np.ndarray | None = None
    detected: np.ndarray | None = None
    project: Callable[[np.ndarray], np.ndarray] | None = None

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        if self.camera is None and (self.joints is not None or self.detected is None):
            raise ValueError(f"{self.name} has joints in the world but no camera that sees them; give its camera.")
        if self.joints is None and self.detected is None:
            raise ValueError(f"{self.name} has neither joints nor keypoints; give one of them.")
        if self.joints is not None and self.detected is not None and len(self.detected) < len(self.joints):
            raise ValueError(f"{self.name} has {len(self.joints)} frames of joints but only {len(self.detected)} "
                             "of keypoints; both must begin together and the keypoints may not end sooner.")

    @property
    def info(self) -> ClipInfo:
        """The clip's description."""
        frames = len(self.detected if self.joints is None else self.joints)  # type: ignore[arg-type]
        return ClipInfo(self.subject, self.action, self.view, frames, self.fps, self.joints is not None,
                        self.image_size, self.camera)


class WorldClips(ClipSet):
    """Views of takes as clips: joints are moved to the camera's frame, and projected if need be, when read.

    Args:
        name: what the data set is called.
        views: all views.
        skeleton_in: layout of the keypoints, that of the joints where these are projected.
        skeleton_out: layout of the joints; None: there are none.

    Raises ValueError when there is no view or two have one name.
    """

    def __init__(self, name: str, views: Sequence[WorldView], skeleton_in: Skeleton,
                 skeleton_out: Skeleton | None) -> None:
        self.name, self.skeleton_in = name, skeleton_in
        self.views = tuple(views)
        self.infos = tuple(view.info for view in self.views)
        self.skeleton_out = skeleton_out if any(info.labelled for info in self.infos) else None
        check_names(self.infos, name)

    def _read(self, index: int, start: int, stop: int) -> Clip:
        view = self.views[index]
        camera = None if view.camera is None else slice_camera(view.camera, start, stop)
        points_cam = motion = None
        if view.joints is not None:
            points_cam = camera.to_camera(view.joints[start:stop])  # type: ignore[union-attr]
            motion = camera_motion(points_cam, self.skeleton_out, view.fps)  # type: ignore[arg-type]
        keypoints = self._read_keypoints(index, points_cam, start, stop)
        return Clip(view.subject, view.action, view.view, keypoints, motion, camera)

    def _read_keypoints(self, index: int, points_cam: np.ndarray | None, start: int, stop: int) -> Keypoints2D:
        """The keypoints of a range of frames; `points_cam`: (T, J, 3) metres, the joints, camera frame."""
        view = self.views[index]
        if view.detected is None:
            xy, score = (view.project or view.camera.project)(points_cam), None  # type: ignore[union-attr]
        else:
            values = view.detected[start:stop]
            xy = values[..., :2]
            score = np.clip(values[..., 2], 0, 1) if values.shape[-1] == 3 else None
        return Keypoints2D(xy, score, self.skeleton_in, view.image_size, view.fps)
