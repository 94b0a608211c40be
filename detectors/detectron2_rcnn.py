"""Detectron2's keypoint R-CNN: several people with COCO's 17 joints; config and weights as in its model zoo.

K. He et al., "Mask R-CNN", 2017, section 5 (keypoints); the default model is the one VideoPose3D detects with.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lifting.detectors.checks import as_people, best_device, check_frame, check_limits, model_files, one_file, sentence
from lifting.detectors.files.assembly import HALF_PROBABILITY
from lifting.keypoints import Detection
from lifting.skeletons import get_skeleton

CONFIG = "COCO-Keypoints/keypoint_rcnn_R_101_FPN_3x.yaml"
CONFIG_SUFFIXES, WEIGHT_SUFFIXES = (".yaml", ".yml"), (".pkl", ".pth")
INSTALL_HINT = (
    "it is not on PyPI, so build it as its INSTALL.md says: "
    "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2"
)
MISFITS = ("not found in the checkpoint", "incompatible shape", "shape of")  # of the checkpointer's warnings


def check_installed() -> None:
    """Raise ImportError, with what to install, where Detectron2 or a package it needs is missing."""
    try:
        import detectron2.config
        import detectron2.engine
        import detectron2.model_zoo  # noqa: F401
    except ImportError as error:
        raise ImportError(f"The detector 'detectron2' needs Detectron2 ({error}): {INSTALL_HINT}.") from error


class Detectron2RCNN:
    """Finds people with a keypoint R-CNN of Detectron2, frame by frame.

    Args:
        model_dir: weights (.pkl or .pth), or a folder with one such file and perhaps a config (.yaml); None lets
            Detectron2 download the zoo's weights of ``config``. Detectron2 reads .pkl files with pickle, which can run
            code: take them from a source you trust.
        config: name in Detectron2's model zoo, or a .yaml file; None takes the one in ``model_dir``, else the zoo's
            R101-FPN model.
        max_people: at most this many people a frame, the surest ones.
        min_confidence: smallest score of a box.
        device: "cpu", "cuda", ...; None takes the graphics card where there is one.

    Raises:
        ValueError: an option, config or weight file is not what is expected.
        ImportError: Detectron2 is missing.
        FileNotFoundError: a file is missing.
        OSError: the zoo's weights cannot be downloaded.
    """

    name = "detectron2"

    def __init__(
        self,
        *,
        model_dir: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
        max_people: int = 5,
        min_confidence: float = 0.7,
        device: str | None = None,
    ) -> None:
        check_limits(max_people, min_confidence)
        self.skeleton = get_skeleton("coco17")
        self.max_people = max_people
        weights, config = _choose_files(model_dir, config)
        check_installed()
        settings = _settings(config, weights)
        settings.MODEL.ROI_HEADS.SCORE_THRESH_TEST = min_confidence
        settings.MODEL.DEVICE = device or best_device()
        self._predictor = _load_predictor(settings)

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[list[Detection]]:
        """Yield the people of each frame (H, W, 3) uint8 RGB, surest first, in layout coco17.

        Raises:
            ValueError: a frame is not (H, W, 3) uint8, or the model finds no keypoints.
        """
        for frame in frames:
            check_frame(frame)
            # The predictor is documented to take BGR, and turns it where its model wants RGB.
            found = self._predictor(np.ascontiguousarray(frame[..., ::-1]))["instances"]
            yield self._people(found.to("cpu"))

    def _people(self, found: Any) -> list[Detection]:
        if not found.has("pred_keypoints"):
            raise ValueError("Detectron2's model returns no keypoints: use a config of the zoo's COCO-Keypoints.")
        order = np.argsort(-np.asarray(found.scores), kind="stable")
        keypoints = np.asarray(found.pred_keypoints, np.float32)[order]
        if keypoints.ndim != 3 or keypoints.shape[1:] != (17, 3):
            raise ValueError(f"Detectron2 returned keypoints of shape {keypoints.shape}: expected (people, 17, 3).")
        # A joint's score is the share of its heat map in the peak; Detectron2 draws it from HALF_PROBABILITY on.
        scores = keypoints[..., 2] / (keypoints[..., 2] + HALF_PROBABILITY)
        return as_people(keypoints[..., :2], scores, self.skeleton, self.max_people, self.name)


def _choose_files(model_dir: object, config: object) -> tuple[Path | None, str]:
    """Local weights, None for the zoo's, and the config: what is given, else what lies beside them, else the zoo's."""
    if model_dir is None:
        return None, str(config or CONFIG)
    weights = one_file(model_files(model_dir, WEIGHT_SUFFIXES), "weights")
    if config is None and Path(model_dir).expanduser().is_dir():
        beside = sorted(file for file in weights.parent.iterdir() if file.suffix.lower() in CONFIG_SUFFIXES)
        config = one_file(beside, "configs")
    return weights, str(config or CONFIG)


def _settings(config: str, weights: Path | None) -> Any:
    """Detectron2's configuration of a model with 17 keypoints; ValueError where the config is of another one."""
    from detectron2 import model_zoo
    from detectron2.config import get_cfg

    settings, local = get_cfg(), Path(config).expanduser()
    try:
        settings.merge_from_file(str(local) if local.is_file() else model_zoo.get_config_file(config))
        settings.MODEL.WEIGHTS = str(weights) if weights is not None else model_zoo.get_checkpoint_url(config)
    except Exception as error:  # whatever its parsers raise
        raise ValueError(
            f"{config} is no config that Detectron2 knows ({sentence(error)}): expected a .yaml file, or a name of its "
            f"model zoo such as {CONFIG}; a local config needs its weights beside it."
        ) from error
    joints = settings.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS if settings.MODEL.KEYPOINT_ON else 0
    if joints != 17:
        raise ValueError(f"{config} is of a model with {joints} keypoints: expected COCO's 17, such as {CONFIG}.")
    return settings


def _load_predictor(settings: Any) -> Any:
    from detectron2.engine import DefaultPredictor

    weights = settings.MODEL.WEIGHTS
    try:
        with _checkpoint_warnings() as said:
            predictor = DefaultPredictor(settings)
    except OSError as error:
        raise OSError(
            f"Detectron2 could not get the weights {weights} ({sentence(error)}): download them elsewhere and name the "
            "file with model_dir (--detector-models)."
        ) from error
    except Exception as error:  # its checkpointer unpickles, and raises whatever that does
        raise ValueError(f"Detectron2 cannot use the weights {weights} ({sentence(error)}): get them again.") from error
    misfit = next((text for text in said if any(word in text.lower() for word in MISFITS)), None)
    if misfit is not None:
        raise ValueError(
            f"The weights {weights} do not fit Detectron2's config ({misfit.splitlines()[0][:200]}): take both from "
            "the same line of its model zoo."
        )
    return predictor


@contextmanager
def _checkpoint_warnings() -> Iterator[list[str]]:
    """Collects what the checkpointer warns of: it loads weights of another model and only logs that they do not fit."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("fvcore.common.checkpoint", "detectron2.checkpoint")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield said
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
