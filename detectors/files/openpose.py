"""OpenPose: a folder with one JSON file per frame (or one such file), BODY-25 or COCO-18; empty frames stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lifting.detectors.files.assembly import Poses, as_pose, number_names
from lifting.detectors.files.content import Content, as_list, as_object, as_whole_number, read_json
from lifting.detectors.files.keypoint_file import Request

LOOKED_FOR = "a folder of NAME_000000000012_keypoints.json, or one JSON object with people"
SUFFIX = "_keypoints"


def matches(content: Content) -> bool:
    """Tell whether there are files named as OpenPose names them, or one object with people."""
    if content.kind == "folder":
        return any(path.stem.endswith(SUFFIX) for path in content.data)
    return content.kind == "json" and isinstance(content.data, dict) and "people" in content.data


def read(content: Content, request: Request) -> Poses:
    """Read all frames of a folder, or the one of a file. Raises ValueError naming the file that is wrong."""
    poses = Poses()
    if content.kind == "json":
        _add_people(poses, 0, content.data, "the file")
        return poses
    files = [path for path in content.data if path.stem.endswith(SUFFIX)]
    frames = _number_files(files, poses)
    poses.listed = frames
    for frame, path in zip(frames, files, strict=True):
        _add_people(poses, frame, read_json(path), repr(path.name))
    return poses


def _number_files(files: list[Path], poses: Poses) -> list[int]:
    numbers = number_names([path.stem.removesuffix(SUFFIX) + path.suffix for path in files])
    if numbers is None or len(set(numbers)) < len(numbers):
        poses.notes.append("file names have no frame number, so files follow each other by name, without gaps")
        return list(range(len(files)))
    return numbers


def _add_people(poses: Poses, frame: int, data: Any, where: str) -> None:
    people = as_list(as_object(data, where).get("people"), f"people of {where}")
    for index, person in enumerate(people):
        what = f"person {index} of {where}"
        person = as_object(person, what)
        values = person.get("pose_keypoints_2d", person.get("pose_keypoints"))
        if values == []:  # OpenPose with the body switched off, or faces only
            continue
        poses.add(frame, as_pose(values, f"pose_keypoints_2d of {what}"), _identity(person, what))


def _identity(person: dict[str, Any], what: str) -> int | None:
    """Return the id, which OpenPose writes as [3], and as [-1] when it does not track."""
    identity = person.get("person_id")
    identity = identity[0] if isinstance(identity, list) and identity else identity
    if identity is None or isinstance(identity, list):
        return None
    number = as_whole_number(identity, f"person_id of {what}")
    return number if number >= 0 else None
