"""What detectors share: checks of frames, options, model files and foreign keypoints, and the device of torch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from lifting.keypoints import Detection
from lifting.skeletons import Skeleton

__all__ = ["as_people", "best_device", "check_frame", "check_limits", "model_files", "one_file", "sentence"]


def check_frame(frame: np.ndarray) -> None:
    """Raise ValueError unless ``frame`` is an (H, W, 3) uint8 array with pixels in it."""
    shape, kind = getattr(frame, "shape", None), getattr(frame, "dtype", type(frame).__name__)
    if shape is None or len(shape) != 3 or shape[2] != 3 or kind != np.uint8 or 0 in shape:
        raise ValueError(f"A frame has shape {shape} and type {kind}: expected (height, width, 3) uint8 RGB.")


def check_limits(max_people: int, min_confidence: float) -> None:
    """Raise ValueError unless at least one person is asked for, with a confidence between 0 and 1."""
    if max_people < 1:
        raise ValueError(f"max_people is {max_people}: expected 1 or more.")
    if not 0.0 < min_confidence < 1.0:
        raise ValueError(f"min_confidence is {min_confidence}: expected a number between 0 and 1.")


def model_files(models: str | os.PathLike[str], suffixes: tuple[str, ...]) -> list[Path]:
    """The model files of these suffixes that a file or folder names, sorted.

    Raises:
        FileNotFoundError: there is nothing at ``models``, or no such file in the folder.
        ValueError: a file with another suffix.
    """
    path = Path(models).expanduser()
    wanted = " or ".join(suffixes)
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{path} is no model file for this detector: expected {wanted}.")
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"There is no model file or folder at {path}: expected {wanted}; check the path.")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
    if not found:
        raise FileNotFoundError(f"No model file in {path}: expected {wanted}; download one there.")
    return found


def one_file(files: list[Path], what: str) -> Path | None:
    """The only file of a kind, None without one; ValueError where there are several to choose from."""
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{files[0].parent} holds {len(files)} files of {what} ({names}): name the one to use.")
    return files[0] if files else None


def as_people(xy: object, scores: object, skeleton: Skeleton, max_people: int, source: str) -> list[Detection]:
    """Detections from the arrays of a foreign library, best first as it lists them.

    Args:
        xy: (N, J, 2) pixels.
        scores: (N, J) confidences, brought to [0, 1]; 0 or NaN = not seen.
        skeleton: layout of J joints, or of the first J of them.
        max_people: at most this many are kept.
        source: name of the library for the error.

    People none of whose joints is seen are left out. Raises ValueError where the shapes are others.
    """
    xy, scores = np.asarray(xy, np.float32), np.asarray(scores, np.float32)
    if not xy.size and not scores.size:
        return []
    if xy.shape != (*scores.shape, 2) or scores.ndim != 2 or scores.shape[1] < skeleton.num_joints:
        raise ValueError(
            f"{source} returned keypoints of shape {xy.shape} with scores of shape {scores.shape}: expected "
            f"(people, {skeleton.num_joints}, 2) and (people, {skeleton.num_joints}); use a model of that layout."
        )
    xy = xy[:, : skeleton.num_joints]
    scores = np.clip(np.nan_to_num(scores[:, : skeleton.num_joints]), 0, 1)
    xy = np.where(np.isfinite(xy).all(-1, keepdims=True), xy, np.nan)
    people = [Detection(xy=points, score=score) for points, score in zip(xy, scores, strict=True)]
    return [person for person in people if person.seen.any()][:max_people]


def best_device() -> str:
    """``cuda`` where torch has a graphics card, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def sentence(error: BaseException, length: int = 200) -> str:
    """The first line of a foreign error, cut to ``length`` characters: libraries explain over many lines."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:length]}" if lines else type(error).__name__
