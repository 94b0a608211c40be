"""COCO JSON: results (a list of detections) and annotation files (images, annotations, categories)."""

from __future__ import annotations

from typing import Any

import numpy as np

from lifting.detectors.files.assembly import Poses, as_pose, number_names
from lifting.detectors.files.content import Content, as_list, as_object, as_score, as_whole_number
from lifting.detectors.files.keypoint_file import Request

LOOKED_FOR = "a JSON list of objects with a number as image_id and with keypoints, or an object with annotations"
PERSON = 1


def matches(content: Content) -> bool:
    """Tell whether the content is COCO's."""
    if content.kind != "json":
        return False
    if isinstance(content.data, dict):
        return isinstance(content.data.get("annotations"), list)
    first = content.data[0] if isinstance(content.data, list) and content.data else None
    return isinstance(first, dict) and "keypoints" in first and isinstance(first.get("image_id"), (int, float))


def read(content: Content, request: Request) -> Poses:
    """Read results or annotations. Raises ValueError naming the entry that is wrong."""
    if isinstance(content.data, list):
        poses = Poses()
        _add_entries(poses, content.data, None)
        first = min(poses.frames, default=0)
        poses.notes += [f"the first image_id, {first}, was taken as the first frame"] if first > 1 else []
        return poses
    return _read_annotations(content.data, request)


def _read_annotations(data: dict[str, Any], request: Request) -> Poses:
    images = as_list(data.get("images", []), "images")
    images = [as_object(image, f"image {index}") for index, image in enumerate(images)]
    poses, numbers = Poses(), _number_images(images)
    poses.listed = list(numbers.values())
    _add_entries(poses, data["annotations"], numbers or None)
    categories = data.get("categories")
    if isinstance(categories, list):
        named = [category for category in categories if isinstance(category, dict) and category.get("keypoints")]
        poses.joint_names = named[0]["keypoints"] if len(named) == 1 else None
    if request.image_size is None:
        poses.image_size = _common_size(images)
    return poses


def _add_entries(poses: Poses, entries: list[Any], numbers: dict[int, int] | None) -> None:
    """Append the people; `numbers` gives the frame of each image, None where the image's id is the frame."""
    for index, entry in _people(entries):
        what = f"entry {index}"
        image = as_whole_number(entry.get("image_id"), f"image_id of {what}")
        if numbers is not None and image not in numbers:
            raise ValueError(f"{what} is of image {image}, which is not among the images of the file")
        person = entry.get("track_id")
        person = None if person is None else as_whole_number(person, f"track_id of {what}")
        frame = image if numbers is None else numbers[image]
        poses.add(frame, _pose(entry, what), person, as_score(entry.get("score")))


def _people(entries: list[Any]) -> list[tuple[int, dict[str, Any]]]:
    """Return the entries that have keypoints, with their place; of several categories only persons."""
    people = [(index, as_object(entry, f"entry {index}")) for index, entry in enumerate(entries)]
    people = [(index, entry) for index, entry in people if "keypoints" in entry]
    persons = [(index, entry) for index, entry in people if entry.get("category_id", PERSON) == PERSON]
    categories = {str(entry.get("category_id", PERSON)) for _, entry in people}
    if len(categories) > 1 and not persons:
        shown = ", ".join(sorted(categories)[:5])
        raise ValueError(f"keypoints are of the categories {shown}: expected category {PERSON}, persons")
    return persons or people


def _pose(entry: dict[str, Any], what: str) -> np.ndarray:
    """Return the body, and the feet that COCO-WholeBody keeps in a list of their own."""
    body = as_pose(entry["keypoints"], f"keypoints of {what}")
    if "foot_kpts" not in entry:
        return body
    return np.concatenate([body, as_pose(entry["foot_kpts"], f"foot_kpts of {what}")])


def _number_images(images: list[dict[str, Any]]) -> dict[int, int]:
    """Return {image id: frame number}, by the frame number that the file gives, else the file names, else the ids."""
    ids = [as_whole_number(image.get("id"), f"id of image {index}") for index, image in enumerate(images)]
    if len(set(ids)) < len(ids):
        raise ValueError("two images have the same id: expected one id for each image")
    videos = {str(image[key]) for image in images for key in ("video_id", "vid_id") if image.get(key) is not None}
    if len(videos) > 1:
        raise ValueError(f"images of {len(videos)} videos: expected one; write one file per video")
    return dict(zip(ids, _frame_numbers(images, ids), strict=True))


def _frame_numbers(images: list[dict[str, Any]], ids: list[int]) -> list[int]:
    for key in ("frame_id", "frame_index"):
        if images and all(key in image for image in images):
            numbers = [as_whole_number(image[key], f"{key} of image {index}") for index, image in enumerate(images)]
            return _distinct(numbers)
    names = [image.get("file_name") for image in images]
    if all(isinstance(name, str) for name in names):
        numbers = number_names(names)
        if numbers is not None:
            return _distinct(numbers)
    return ids


def _distinct(numbers: list[int]) -> list[int]:
    if len(set(numbers)) < len(numbers):
        raise ValueError("two images have the same frame number: expected the images of one video")
    return numbers


def _common_size(images: list[dict[str, Any]]) -> tuple[Any, Any] | None:
    sizes = [(image["width"], image["height"]) for image in images if "width" in image and "height" in image]
    other = next((size for size in sizes if size != sizes[0]), None)
    if other is not None:
        raise ValueError(f"images are of sizes {sizes[0]} and {other}: expected those of one video; give image_size=")
    return sizes[0] if sizes else None
