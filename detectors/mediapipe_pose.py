"""MediaPipe's own runtime: one person, for machines without ai-edge-litert."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from lifting.detectors import INSTALL_HINT
from lifting.keypoints import Detection
from lifting.skeletons import get_skeleton

OUTSIDE_FACTOR = 0.2


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
        from lifting.detectors.blazepose import check_frame

        options = {"min_detection_confidence": self.min_confidence, "min_tracking_confidence": self.min_confidence}
        with self._pose.Pose(model_complexity=1, smooth_landmarks=False, **options) as pose:
            for frame in frames:
                check_frame(frame)
                result = pose.process(np.ascontiguousarray(frame))
                yield _to_detections(result.pose_landmarks, frame.shape[1], frame.shape[0])


def _import_pose():
    try:
        from mediapipe.python.solutions import pose
    except ImportError as error:
        raise ImportError(
            f"The detector 'mediapipe' needs mediapipe==0.10.21 with its solutions ({error}): {INSTALL_HINT}."
        ) from error
    return pose


def _to_detections(landmarks, width: int, height: int) -> list[Detection]:
    """Turn MediaPipe's landmarks, fractions of the image, or None into detections in pixels."""
    if landmarks is None:
        return []
    values = np.array([(mark.x, mark.y, mark.visibility) for mark in landmarks.landmark], np.float32)
    inside = ((values[:, :2] >= 0) & (values[:, :2] <= 1)).all(1)
    score = np.clip(values[:, 2], 0, 1) * np.where(inside, 1, OUTSIDE_FACTOR).astype(np.float32)
    return [Detection(xy=values[:, :2] * np.array([width, height], np.float32), score=score)]
