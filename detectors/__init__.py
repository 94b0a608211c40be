"""Detectors of 2D human keypoints: frames in, people per frame out.

A detector takes an iterable of RGB frames and yields, for each frame in turn, the list of people it found. Frames are
consumed one by one, so a video of any length needs constant memory. Nothing heavy is imported until a detector is made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lifting.keypoints import Detection
from lifting.skeletons import Skeleton

__all__ = ["DETECTORS", "Detector", "create_detector"]

INSTALL_VIDEO = 'pip install ".[video]" in a clone of lift'


def detector_hint(version: tuple[int, ...] = tuple(sys.version_info)) -> str:
    """What to do to get the default detector's packages, on the given version of Python."""
    if (3, 10) <= version[:2] <= (3, 12):
        return INSTALL_VIDEO
    return (
        f"the default detector's packages exist for Python 3.10 to 3.12 and this is {version[0]}.{version[1]}, "
        f"so take one of those and {INSTALL_VIDEO}"
    )


INSTALL_HINT = detector_hint()


@runtime_checkable
class Detector(Protocol):
    """What every detector offers.

    Attributes:
        name: name in the registry, stored in the metadata of a take.
        skeleton: layout of the joints of every detection.
    """

    name: str
    skeleton: Skeleton

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[list[Detection]]:
        """Yield the people of each frame, best first or in any order, an empty list where nobody is seen.

        Args:
            frames: successive frames of one video, (H, W, 3) uint8 RGB.

        Yields:
            One list of detections per frame: xy (J, 2) pixels with the origin at the top left, score (J,) in [0, 1].
        """
        ...


def _lazy(module: str, builder: str) -> Callable[..., Detector]:
    def build(**options: Any) -> Detector:
        return getattr(import_module(module), builder)(**options)

    return build


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def _create_best(**options: Any) -> Detector:
    if _is_installed("ai_edge_litert"):
        return DETECTORS["blazepose"](**options)
    if _is_installed("mediapipe"):
        return DETECTORS["mediapipe"](**_options_of_one_person(options))
    raise ImportError(
        f"No 2D detector is installed, expected ai-edge-litert and mediapipe==0.10.21: {INSTALL_HINT}."
    )


def _options_of_one_person(options: dict[str, Any]) -> dict[str, Any]:
    """Drop what only the several-people detector understands; mediapipe's runtime follows one person."""
    return {key: value for key, value in options.items() if key in ("min_confidence", "model_dir")}


DETECTORS: dict[str, Callable[..., Detector]] = {
    "auto": _create_best,
    "blazepose": _lazy("lifting.detectors.blazepose", "BlazePose"),
    "detectron2": _lazy("lifting.detectors.detectron2_rcnn", "Detectron2RCNN"),
    "mediapipe": _lazy("lifting.detectors.mediapipe_pose", "create_mediapipe"),
    "rtmlib": _lazy("lifting.detectors.rtmlib_pose", "RTMLibPose"),
    "torchvision": _lazy("lifting.detectors.torchvision_rcnn", "TorchvisionRCNN"),
}
"""Builders by name; each imports its packages only when called. Add an entry to plug in another detector."""

WITHOUT_WEIGHTS = {
    "detectron2": "lifting.detectors.detectron2_rcnn",
    "rtmlib": "lifting.detectors.rtmlib_pose",
    "torchvision": "lifting.detectors.torchvision_rcnn",
}
"""Module, with ``check_installed()``, of the detectors whose weights are in no package: the user brings a file, or the
library downloads it on first use."""


def create_detector(name: str = "auto", **options: Any) -> Detector:
    """Make a detector by name.

    Args:
        name: a key of ``DETECTORS``. "auto" takes BlazePose through ai-edge-litert (several people) where that is
            installed, else mediapipe's own runtime (one person).
        options: passed to the detector, for example ``max_people=2`` or ``model_dir="folder"``.

    Raises:
        ValueError: unknown name or option value.
        ImportError: a package the detector needs is missing; the sentence names the pip command.
        FileNotFoundError: the model files are not where they were looked for.
    """
    builder = DETECTORS.get(name.lower())
    if builder is None:
        raise ValueError(f"Unknown detector {name!r}: expected one of {', '.join(sorted(DETECTORS))}.")
    return builder(**options)
