"""MediaPipe's own runtime, for machines without ai-edge-litert: one person, or several with a ``.task`` file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lifting.detectors import INSTALL_HINT
from lifting.detectors.checks import check_frame, check_limits, model_files, one_file, sentence
from lifting.keypoints import Detection
from lifting.skeletons import get_skeleton

OUTSIDE_FACTOR = 0.2
TASK_HINT = "pip install mediapipe"
FRAME_MILLISECONDS = 33  # the landmarker wants rising time stamps; it does not use their distance


def create_mediapipe(
    *, model_dir: str | os.PathLike[str] | None = None, **options: Any
) -> MediaPipePose | MediaPipeTask:
    """The detector 'mediapipe': ``MediaPipeTask`` where a ``.task`` file is named, else ``MediaPipePose``."""
    return MediaPipePose(**options) if model_dir is None else MediaPipeTask(model_dir=model_dir, **options)


class MediaPipePose:
    """Follows one person with ``mediapipe.solutions.pose`` (33 landmarks, the graphs inside the wheel, offline).

    Args:
        min_confidence: smallest probability, when searching and when following, to report the person.

    Raises:
        ValueError: ``min_confidence`` is not between 0 and 1.
        ImportError: mediapipe is missing, or a version without ``solutions``.
    """

    name = "mediapipe"

    def __init__(self, *, min_confidence: float = 0.5) -> None:
        if not 0.0 < min_confidence < 1.0:
            raise ValueError(f"min_confidence is {min_confidence}: expected a number between 0 and 1.")
        self.skeleton = get_skeleton("mediapipe33")
        self.min_confidence = min_confidence
        self._pose = _import_pose()

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[list[Detection]]:
        """Yield a list with at most one person for each frame (H, W, 3) uint8 RGB.

        Raises:
            ValueError: a frame is not (H, W, 3) uint8.
        """
        options = {"min_detection_confidence": self.min_confidence, "min_tracking_confidence": self.min_confidence}
        with self._pose.Pose(model_complexity=1, smooth_landmarks=False, **options) as pose:
            for frame in frames:
                check_frame(frame)
                result = pose.process(np.ascontiguousarray(frame))
                found = result.pose_landmarks
                yield [] if found is None else [_to_detection(found.landmark, frame.shape[1], frame.shape[0])]


class MediaPipeTask:
    """Follows people with MediaPipe's Pose Landmarker task (33 landmarks) and a ``.task`` file, in any newer release.

    Args:
        model_dir: the ``.task`` file, or a folder with one.
        max_people: at most this many people.
        min_confidence: smallest probability, when searching and when following, to report a person.

    Raises:
        ValueError: an option is out of its range, or the file is no pose landmarker.
        ImportError: mediapipe is missing, or a release without tasks.
        FileNotFoundError: the file is missing.
    """

    name = "mediapipe"

    def __init__(
        self, *, model_dir: str | os.PathLike[str], max_people: int = 5, min_confidence: float = 0.5
    ) -> None:
        check_limits(max_people, min_confidence)
        self.skeleton = get_skeleton("mediapipe33")
        self._vision, options = _import_tasks()
        self._path = one_file(model_files(model_dir, (".task",)), "pose landmarkers")
        self._options = self._vision.PoseLandmarkerOptions(
            base_options=options(model_asset_path=str(self._path)),
            running_mode=self._vision.RunningMode.VIDEO,
            num_poses=max_people,
            min_pose_detection_confidence=min_confidence,
            min_pose_presence_confidence=min_confidence,
            min_tracking_confidence=min_confidence,
        )
        self._start().close()  # so that a wrong file shows at once

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[list[Detection]]:
        """Yield the people of each frame (H, W, 3) uint8 RGB.

        Raises:
            ValueError: a frame is not (H, W, 3) uint8.
        """
        import mediapipe

        with self._start() as landmarker:
            for number, frame in enumerate(frames):
                check_frame(frame)
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
                found = landmarker.detect_for_video(image, number * FRAME_MILLISECONDS)
                yield [_to_detection(marks, frame.shape[1], frame.shape[0]) for marks in found.pose_landmarks]

    def _start(self) -> Any:
        try:
            return self._vision.PoseLandmarker.create_from_options(self._options)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{self._path} is no pose landmarker that this mediapipe can use ({sentence(error)}): expected "
                "MediaPipe's pose_landmarker_full.task or one like it."
            ) from error


def _import_tasks() -> tuple[Any, Any]:
    try:
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise ImportError(f"A .task file needs mediapipe with its tasks ({error}): {TASK_HINT}.") from error
    return vision, BaseOptions


def _import_pose():
    try:
        from mediapipe.python.solutions import pose
    except ImportError as error:
        raise ImportError(
            f"The detector 'mediapipe' needs mediapipe==0.10.21 with its solutions ({error}): {INSTALL_HINT}."
        ) from error
    return pose


def _to_detection(landmarks: Iterable[Any], width: int, height: int) -> Detection:
    """Turn MediaPipe's 33 landmarks, fractions of the image, into a detection in pixels."""
    values = np.array([(mark.x, mark.y, mark.visibility or 0) for mark in landmarks], np.float32)
    inside = ((values[:, :2] >= 0) & (values[:, :2] <= 1)).all(1)
    score = np.clip(values[:, 2], 0, 1) * np.where(inside, 1, OUTSIDE_FACTOR).astype(np.float32)
    return Detection(xy=values[:, :2] * np.array([width, height], np.float32), score=score)
