"""MMPose: predictions of the inferencer (video, one image, a folder of images) and of the demos."""

from __future__ import annotations

from typing import Any

import numpy as np

from lifting.detectors.files.assembly import Poses, number_names
from lifting.detectors.files.content import (
    Content,
    as_list,
    as_numbers,
    as_object,
    as_score,
    as_whole_number,
    read_json,
)
from lifting.detectors.files.keypoint_file import Request
from lifting.detectors.files.layouts import named_layout

LOOKED_FOR = "JSON with instance_info, or a list of objects with instances, or with keypoints and keypoint_scores"


def matches(content: Content) -> bool:
    """Tell whether the content is MMPose's; of a folder the first file decides."""
    if content.kind == "folder":
        return _is_predictions(read_json(content.data[0]), may_be_empty=True)
    return content.kind == "json" and _is_predictions(content.data)


def _is_predictions(data: Any, may_be_empty: bool = False) -> bool:
    if isinstance(data, dict):
        return isinstance(data.get("instance_info"), list)
    if not isinstance(data, list) or not data:
        return may_be_empty and data == []
    first = data[0]
    return isinstance(first, dict) and ("instances" in first or "keypoint_scores" in first)


def read(content: Content, request: Request) -> Poses:
    """Read the instances. Raises ValueError naming the frame that is wrong."""
    if content.kind == "folder":
        return _read_folder(content)
    poses, data = Poses(), content.data
    if isinstance(data, dict):
        _read_meta(poses, data.get("meta_info"))
        data = data["instance_info"]
    if data and isinstance(data[0], dict) and "instances" in data[0]:
        _add_frames(poses, data)
    else:
        _add_instances(poses, 0, data, "the image")
    return poses


def _read_folder(content: Content) -> Poses:
    poses = Poses()
    frames = number_names([path.name for path in content.data])
    if frames is None or len(set(frames)) < len(frames):
        frames = list(range(len(content.data)))
        poses.notes.append("file names have no frame number, so files follow each other by name, without gaps")
    poses.listed = frames
    for frame, path in zip(frames, content.data, strict=True):
        _add_instances(poses, frame, as_list(read_json(path), repr(path.name)), repr(path.name))
    return poses


def _read_meta(poses: Poses, meta: Any) -> None:
    """Take the layout from the data set's name, else from the names of its keypoints."""
    if not isinstance(meta, dict):
        return
    poses.skeleton = named_layout(meta.get("dataset_name"))
    names = meta.get("keypoint_id2name")
    if isinstance(names, dict) and all(str(index) in names for index in range(len(names))):
        poses.joint_names = [names[str(index)] for index in range(len(names))]


def _add_frames(poses: Poses, frames: list[Any]) -> None:
    numbers = []
    for index, frame in enumerate(frames):
        what = f"entry {index}"
        frame = as_object(frame, what)
        number = as_whole_number(frame.get("frame_id", index), f"frame_id of {what}")
        numbers.append(number)
        _add_instances(poses, number, as_list(frame.get("instances"), f"instances of {what}"), f"frame {number}")
    if len(set(numbers)) < len(numbers):
        raise ValueError("two entries have the same frame_id: expected one entry per frame")
    poses.listed = numbers


def _add_instances(poses: Poses, frame: int, instances: list[Any], where: str) -> None:
    for index, instance in enumerate(instances):
        what = f"instance {index} of {where}"
        instance = as_object(instance, what)
        person = instance.get("track_id")
        poses.add(
            frame,
            _pose(instance, what),
            None if person is None else as_whole_number(person, f"track_id of {what}"),
            as_score(instance.get("bbox_score")),
        )


def _pose(instance: dict[str, Any], what: str) -> np.ndarray:
    """Return (J, 3) from positions and scores, which MMPose keeps apart."""
    xy = as_numbers(instance.get("keypoints"), f"keypoints of {what}")
    if xy.ndim != 2 or xy.shape[1] != 2:
        hint = ": they are a lifter's output" if xy.ndim == 2 and xy.shape[1] == 3 else ""
        raise ValueError(f"keypoints of {what} have the shape {xy.shape}{hint}; expected (J, 2) pixels")
    if instance.get("keypoint_scores") is None:
        return xy
    scores = as_numbers(instance["keypoint_scores"], f"keypoint_scores of {what}")
    if scores.shape != xy.shape[:1]:
        raise ValueError(f"{what} has {len(xy)} keypoints, but keypoint_scores {scores.shape}: expected one for each")
    return np.concatenate([xy, scores[:, None]], axis=1)
