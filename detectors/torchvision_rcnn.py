"""torchvision's keypoint R-CNN (ResNet-50 FPN): several people with COCO's 17 joints.

K. He et al., "Mask R-CNN", 2017, section 5 (keypoints).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lifting.detectors.checks import as_people, best_device, check_frame, check_limits, model_files, one_file, sentence
from lifting.keypoints import Detection
from lifting.skeletons import get_skeleton

INSTALL_HINT = (
    "install the build that belongs to your torch, for a CPU: "
    "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
)
HALF_LOGIT = 2.0  # peak of a heat map from which Detectron, where the scores come from, draws a joint: an even chance
PERSON = 1  # label


def check_installed() -> None:
    """Raise ImportError, with what to install, where torchvision is missing or belongs to another torch."""
    try:
        import torchvision.models.detection  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: its compiled operators do not load
        raise ImportError(
            f"The detector 'torchvision' needs a working torchvision ({sentence(error)}): {INSTALL_HINT}."
        ) from error


class TorchvisionRCNN:
    """Finds people with torchvision's keypoint R-CNN, frame by frame.

    Args:
        model_dir: weights (.pth) as torchvision publishes them, or a folder with one such file; None lets torchvision
            download them.
        max_people: at most this many people a frame, the surest ones.
        min_confidence: smallest score of a box.
        device: "cpu", "cuda", ...; None takes the graphics card where there is one.

    Raises:
        ValueError: an option is out of its range, or the weights are of another model.
        ImportError: torchvision is missing or does not fit the installed torch.
        FileNotFoundError: the file is missing.
        OSError: the weights cannot be downloaded.
    """

    name = "torchvision"

    def __init__(
        self,
        *,
        model_dir: str | os.PathLike[str] | None = None,
        max_people: int = 5,
        min_confidence: float = 0.7,
        device: str | None = None,
    ) -> None:
        check_limits(max_people, min_confidence)
        self.skeleton = get_skeleton("coco17")
        self.max_people = max_people
        weights = None if model_dir is None else one_file(model_files(model_dir, (".pth", ".pt")), "weights")
        check_installed()
        self._model = _build(weights, min_confidence)
        self._device = device or best_device()
        self._model.to(self._device).eval()

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[list[Detection]]:
        """Yield the people of each frame (H, W, 3) uint8 RGB, surest first, in layout coco17.

        Raises:
            ValueError: a frame is not (H, W, 3) uint8.
        """
        import torch

        for frame in frames:
            check_frame(frame)
            image = torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1))).to(self._device)
            with torch.inference_mode():
                (found,) = self._model([image.float() / 255])
            yield self._people({key: value.cpu().numpy() for key, value in found.items()})

    def _people(self, found: dict[str, np.ndarray]) -> list[Detection]:
        if "keypoints" not in found or "keypoints_scores" not in found:
            raise ValueError("torchvision's model returns no keypoints: use keypointrcnn_resnet50_fpn.")
        people = np.flatnonzero(found["labels"] == PERSON)
        people = people[np.argsort(-found["scores"][people], kind="stable")]
        chance = 1 / (1 + np.exp(np.clip(HALF_LOGIT - found["keypoints_scores"][people], -50, 50)))
        return as_people(found["keypoints"][people][..., :2], chance, self.skeleton, self.max_people, self.name)


def _build(weights: Path | None, min_confidence: float) -> Any:
    """The network with local weights, or with those that torchvision downloads."""
    from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights, keypointrcnn_resnet50_fpn

    if weights is None:
        published = KeypointRCNN_ResNet50_FPN_Weights.DEFAULT
        try:
            return keypointrcnn_resnet50_fpn(weights=published, box_score_thresh=min_confidence)
        except (OSError, RuntimeError) as error:  # RuntimeError: the download's hash is another one
            raise OSError(
                f"torchvision could not get its weights {published.url} ({sentence(error)}): download them elsewhere "
                "and name the file with model_dir (--detector-models)."
            ) from error
    state = _read_state(weights)
    network = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, box_score_thresh=min_confidence)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{weights} does not fit torchvision's keypoint R-CNN ({sentence(error)}): expected the weights of "
            "keypointrcnn_resnet50_fpn with 17 keypoints."
        ) from error
    return network


def _read_state(weights: Path) -> Any:
    import torch

    try:
        return torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises whatever it likes
        raise ValueError(
            f"{weights} is no file of weights ({sentence(error)}): expected what torchvision publishes for "
            "keypointrcnn_resnet50_fpn."
        ) from error
