"""AlphaPose's `alphapose-results.json`: COCO or Halpe bodies, one entry per person and image, with a track in `idx`."""

from __future__ import annotations

import re
from typing import Any

from lifting.detectors.files.assembly import Poses, as_pose, number_names
from lifting.detectors.files.content import Content, as_object, as_score, as_whole_number
from lifting.detectors.files.keypoint_file import Request

LOOKED_FOR = "a JSON list of objects with a file name as image_id and with keypoints"


def matches(content: Content) -> bool:
    """Tell whether the content is a list of people by image name."""
    first = content.data[0] if content.kind == "json" and isinstance(content.data, list) and content.data else None
    return isinstance(first, dict) and "keypoints" in first and isinstance(first.get("image_id"), str)


def read(content: Content, request: Request) -> Poses:
    """Read the people. Raises ValueError naming the entry that is wrong."""
    entries = [as_object(entry, f"entry {index}") for index, entry in enumerate(content.data)]
    names = [_name(entry, index) for index, entry in enumerate(entries)]
    poses = Poses()
    frames = number_names(names)
    if frames is None:
        order = {name: number for number, name in enumerate(dict.fromkeys(names))}
        frames = [order[name] for name in names]
        poses.notes.append("image names have no number, so images follow each other as listed, without gaps")
    elif all(re.fullmatch(r"0|[1-9][0-9]*", name.partition(".")[0]) for name in names):
        poses.listed = [0]  # of a video, images are named 0.jpg, 1.jpg, ...
    for index, (frame, entry) in enumerate(zip(frames, entries, strict=True)):
        values = as_pose(entry.get("keypoints"), f"keypoints of entry {index}")
        poses.add(frame, values, _track(entry.get("idx"), index), as_score(entry.get("score")))
    return poses


def _name(entry: dict[str, Any], index: int) -> str:
    name = entry.get("image_id")
    if not isinstance(name, str):
        raise ValueError(f"image_id of entry {index} is a {type(name).__name__}, expected a file name like the others")
    return name


def _track(idx: Any, index: int) -> int | None:
    """Return the track number, which AlphaPose writes as 3, 3.0 or [3.0]; None without tracking."""
    while isinstance(idx, list):
        idx = idx[0] if len(idx) == 1 else None
    return None if idx is None else as_whole_number(idx, f"idx of entry {index}")
