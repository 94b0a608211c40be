"""RTMPose and RTMO through rtmlib and ONNX Runtime: several people, offline with local model files.

T. Jiang et al., "RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose", 2023 (a person detector, then the
joints of each box); P. Lu et al., "RTMO: Towards High-Performance One-Stage Real-Time Multi-Person Pose Estimation",
2024 (all people at once).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lifting.detectors.checks import as_people, check_frame, check_limits, model_files, one_file, sentence
from lifting.detectors.files.layouts import choose_layout
from lifting.keypoints import Detection

INSTALL_HINT = 'pip install ".[rtmlib]" in a clone of lift'
MODES = ("lightweight", "balanced", "performance")
POSE, ONE_STAGE, BOXES = "RTMPose", "RTMO", "person detector"
RANKS = {(3, 3): POSE, (3, 4): ONE_STAGE, (3, 2): BOXES, (3,): BOXES}
"""Kind by the ranks of a model's outputs: simcc_x and simcc_y; dets and keypoints; dets and labels, or all in one."""
USUAL_SIZE = {POSE: (192, 256), ONE_STAGE: (640, 640), BOXES: (640, 640)}


def check_installed() -> None:
    """Raise ImportError, with what to install, where rtmlib, OpenCV or ONNX Runtime is missing."""
    try:
        import onnxruntime  # noqa: F401
        import rtmlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"The detector 'rtmlib' needs rtmlib, opencv-python and onnxruntime ({error}): {INSTALL_HINT}."
        ) from error


@dataclass(frozen=True)
class Model:
    """An ONNX file, or the address of one: its kind and the (width, height) of its input."""

    source: str
    kind: str
    input_size: tuple[int, int]


class RTMLibPose:
    """Finds people with RTMPose (behind YOLOX or RTMDet) or RTMO, frame by frame.

    Args:
        model_dir: an RTMO model (.onnx), or a folder with one, or with an RTMPose model and a person detector; which is
            which is read from their outputs. None lets rtmlib download the models of ``mode``.
        mode: "lightweight", "balanced" or "performance", the size of what is downloaded.
        max_people: at most this many people a frame.
        min_confidence: smallest score of a person.
        device: rtmlib's name of the device, "cpu" or "cuda".

    The skeleton follows from the model: 17 joints are COCO's, 26 Halpe's, of 133 the body and feet are taken.

    Raises:
        ValueError: an option is out of its range, or a file is no such model.
        ImportError: rtmlib, OpenCV or ONNX Runtime is missing.
        FileNotFoundError: there is no model file.
        OSError: the models cannot be downloaded.
    """

    name = "rtmlib"

    def __init__(
        self,
        *,
        model_dir: str | os.PathLike[str] | None = None,
        mode: str = "balanced",
        max_people: int = 5,
        min_confidence: float = 0.5,
        device: str = "cpu",
    ) -> None:
        check_limits(max_people, min_confidence)
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}: expected {', '.join(MODES)}.")
        files = None if model_dir is None else model_files(model_dir, (".onnx",))
        check_installed()
        models = _published_models(mode) if files is None else _local_models(files)
        self.max_people = max_people
        self._estimate = _Estimator(models, min_confidence, device)
        self.skeleton = choose_layout(self._estimate.count_joints(), None, None)[0]

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[list[Detection]]:
        """Yield the people of each frame (H, W, 3) uint8 RGB.

        Raises:
            ValueError: a frame is not (H, W, 3) uint8.
        """
        for frame in frames:
            check_frame(frame)
            xy, scores = self._estimate(np.ascontiguousarray(frame[..., ::-1]))  # rtmlib takes OpenCV's BGR
            yield as_people(xy, scores, self.skeleton, self.max_people, self.name)


def _published_models(mode: str) -> list[Model]:
    """What rtmlib's ``Body`` would download."""
    from rtmlib import Body

    listed = Body.MODE[mode]
    return [Model(listed[key], kind, listed[f"{key}_input_size"]) for key, kind in (("det", BOXES), ("pose", POSE))]


def _local_models(files: list[Path]) -> list[Model]:
    """The person detector, if any, and the pose model among some ONNX files."""
    models = [_inspect(file) for file in files]
    kinds = {kind: one_file([Path(m.source) for m in models if m.kind == kind], f"a {kind}") for kind in RANKS.values()}
    if kinds[ONE_STAGE] is not None and kinds[POSE] is None:
        return [model for model in models if model.kind == ONE_STAGE]
    if kinds[POSE] is not None and kinds[ONE_STAGE] is None and kinds[BOXES] is not None:
        return sorted((model for model in models), key=lambda model: model.kind == POSE)
    found = ", ".join(f"{Path(model.source).name} ({model.kind})" for model in models)
    raise ValueError(f"Found {found}: expected one RTMO model, or one RTMPose model and a person detector beside it.")


def _inspect(file: Path) -> Model:
    """Kind and input size of an ONNX file, from what it declares."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise ValueError(f"{file} is no usable ONNX model ({sentence(error)}): get the file again.") from error
    inputs = [tuple(value.shape) for value in session.get_inputs()]
    outputs = [tuple(value.shape) for value in session.get_outputs()]
    kind = RANKS.get(tuple(map(len, outputs)))
    if kind is None or len(inputs) != 1 or len(inputs[0]) != 4:
        raise ValueError(
            f"{file} takes {inputs} and returns {outputs}: expected RTMPose, RTMO, YOLOX or RTMDet as ONNX for rtmlib."
        )
    return Model(str(file), kind, _input_size(inputs[0], file, kind))


def _input_size(shape: tuple, file: Path, kind: str) -> tuple[int, int]:
    """(width, height) that a model declares, else that its name states as HEIGHTxWIDTH, else the usual one."""
    height, width = shape[2:]
    if isinstance(height, int) and isinstance(width, int):
        return width, height
    stated = re.search(r"(\d{2,4})x(\d{2,4})", file.name)
    return (int(stated.group(2)), int(stated.group(1))) if stated else USUAL_SIZE[kind]


class _Estimator:
    """Runs one model on all people at once, or a person detector and then a model on each box."""

    def __init__(self, models: list[Model], min_confidence: float, device: str) -> None:
        *finder, self._pose = (_load_tool(model, min_confidence, device) for model in models)
        self._find = finder[0] if finder else None
        self._models = models

    def __call__(self, frame: np.ndarray) -> tuple[Any, Any]:
        """Keypoints (N, J, 2) in pixels and scores (N, J) of a BGR frame (H, W, 3) uint8."""
        if self._find is None:
            return self._pose(frame)
        boxes = np.asarray(self._find(frame)).reshape(-1, 4)
        # Without a box, rtmlib would take the whole frame for a person.
        return self._pose(frame, bboxes=list(boxes)) if len(boxes) else ((), ())

    def count_joints(self) -> int:
        """J, from a black frame; ValueError where the models do not run or return something else."""
        frame = np.zeros((64, 64, 3), np.uint8)
        try:
            self(frame)
            xy, scores = self._pose(frame)  # nobody's keypoints, at 0
            joints = np.asarray(xy).shape[1]
            as_people(xy, scores, choose_layout(joints, None, None)[0], 1, "rtmlib")
        except Exception as error:  # whatever rtmlib meets in foreign arrays
            names = " and ".join(Path(model.source).name for model in self._models)
            raise ValueError(
                f"{names} cannot be used with rtmlib ({sentence(error)}): take models of its list."
            ) from error
        return joints


def _load_tool(model: Model, min_confidence: float, device: str) -> Any:
    """rtmlib's tool for one model; OSError where it cannot be downloaded, ValueError where it is unusable."""
    import rtmlib

    options = {"model_input_size": model.input_size, "backend": "onnxruntime", "device": device}
    if model.kind == POSE:
        build = rtmlib.RTMPose
    else:  # these take (height, width)
        options |= {"model_input_size": model.input_size[::-1], "score_thr": min_confidence}
        finder = rtmlib.RTMDet if "rtmdet" in Path(model.source).name.lower() else rtmlib.YOLOX
        build = rtmlib.RTMO if model.kind == ONE_STAGE else finder
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it loads
            return build(model.source, **options)
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        if "://" in model.source:
            raise OSError(
                f"rtmlib could not get {model.source} ({sentence(error)}): download its .onnx elsewhere and name the "
                "folder with model_dir (--detector-models)."
            ) from error
        raise ValueError(f"rtmlib cannot use {model.source} on {device!r} ({sentence(error)}).") from error
