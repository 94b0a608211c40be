"""VideoPose3D: detections of its inference scripts (`clip.mp4.npz`) and its 2D data sets (`data_2d_*.npz`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from lifting.detectors.files.assembly import Poses
from lifting.detectors.files.content import Content, as_numbers, as_object, as_score
from lifting.detectors.files.keypoint_file import Request
from lifting.detectors.files.layouts import layout_of_sides, named_layout

LOOKED_FOR = "an npz with boxes and keypoints, or with positions_2d"
LAYOUTS = {"coco": "coco17", "h36m": "h36m17", "mpii": "mpii16"}


def matches(content: Content) -> bool:
    """Tell whether the archive has the arrays of detections or of a data set."""
    return content.kind == "npz" and ("positions_2d" in content.data or {"boxes", "keypoints"} <= set(content.data))


def read(content: Content, request: Request) -> Poses:
    """Read detections, or one sequence of a data set. Raises ValueError naming the frame or sequence that is wrong."""
    if "positions_2d" in content.data:
        return _read_sequence(content.data, request)
    if request.sequence is not None:
        raise ValueError(f"sequence={request.sequence!r} was given, but the file holds the detections of one video")
    return _read_detections(content.data)


# ---- detections


def _read_detections(arrays: dict[str, np.ndarray]) -> Poses:
    keypoints, boxes = arrays["keypoints"], arrays["boxes"]
    if keypoints.ndim == 0 or boxes.ndim == 0 or len(keypoints) != len(boxes):
        raise ValueError(f"keypoints have the shape {keypoints.shape}, boxes {boxes.shape}: expected one per frame")
    poses = Poses(listed=range(len(keypoints)), heatmap_mass=True)
    metadata = _plain(arrays.get("metadata"))
    if isinstance(metadata, dict) and "w" in metadata and "h" in metadata:
        poses.image_size = (metadata["w"], metadata["h"])
    for frame, (found, box) in enumerate(zip(keypoints, boxes, strict=True)):
        people, sure = _of_persons(found, f"keypoints of frame {frame}"), _of_persons(box, f"boxes of frame {frame}")
        if people.size:
            _add_people(poses, frame, people, sure)
    return poses


def _of_persons(classes: Any, what: str) -> np.ndarray:
    """Return the array of the last class (background, person); empty where nobody was found."""
    if not isinstance(classes, (list, tuple, np.ndarray)) or getattr(classes, "ndim", 1) == 0:
        raise ValueError(f"{what} are a {type(classes).__name__}: expected one list per class")
    if len(classes) == 0:
        return np.zeros(0)
    return as_numbers(classes[-1], what)


def _add_people(poses: Poses, frame: int, people: np.ndarray, boxes: np.ndarray) -> None:
    if people.ndim != 3 or people.shape[1] not in (3, 4):
        raise ValueError(f"keypoints of frame {frame} have the shape {people.shape}: expected (N, 4, 17)")
    scored = boxes.ndim == 2 and boxes.shape == (len(people), 5)
    if boxes.size and len(boxes) != len(people):
        raise ValueError(f"frame {frame} has {len(people)} people but {len(boxes)} boxes: expected one each")
    for index, rows in enumerate(people):
        poses.add(frame, rows[[0, 1, -1]].T, score=as_score(boxes[index, 4]) if scored else None)


def _plain(value: Any) -> Any:
    """Unwrap what numpy saved as an array without dimensions."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


# ---- data sets


def _read_sequence(arrays: dict[str, np.ndarray], request: Request) -> Poses:
    metadata = _plain(arrays.get("metadata"))
    metadata = metadata if isinstance(metadata, dict) else {}
    sequences = _list_sequences(_plain(arrays["positions_2d"]))
    name = _pick(list(sequences), request.sequence)
    positions = as_numbers(sequences[name], f"positions of {name!r}")
    if positions.ndim != 3 or positions.shape[2] not in (2, 3) or not positions.size:
        raise ValueError(f"positions of {name!r} have the shape {positions.shape}: expected (T, J, 2) or (T, J, 3)")
    poses = Poses(listed=range(len(positions)), skeleton=_stated_layout(metadata, positions.shape[1]))
    poses.image_size = _stated_size(metadata, name)
    poses.heatmap_mass = positions.shape[2] == 3  # its probabilities are Detectron's
    for frame, values in enumerate(positions):
        poses.add(frame, values, person=1)
    return poses


def _list_sequences(positions: Any) -> dict[str, Any]:
    """Return {"subject/action/camera": positions} of the nested dict."""
    sequences = {}
    for subject, actions in as_object(positions, "positions_2d").items():
        for action, cameras in as_object(actions, f"subject {subject!r}").items():
            if not isinstance(cameras, (list, tuple, np.ndarray)):
                raise ValueError(f"{subject}/{action} is a {type(cameras).__name__}: expected a list of arrays")
            sequences.update({f"{subject}/{action}/{camera}": values for camera, values in enumerate(cameras)})
    return sequences


def _pick(names: list[str], wanted: str | None) -> str:
    """Return the one sequence, or the one that `wanted` names, wholly or by its beginning where that is enough."""
    fitting = [name for name in names if wanted is None or name == wanted or name.startswith(f"{wanted}/")]
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(repr(name) for name in (fitting or names)[:6])
    asked = "" if wanted is None else f" and {len(fitting)} of them fit {wanted!r}"
    asked += ": expected one; pick with sequence= (--sequence), of "
    raise ValueError(f"it holds {len(names)} sequences{asked}{shown or 'none'}")


def _stated_layout(metadata: dict[str, Any], count: int) -> Any:
    name = metadata.get("layout_name")
    stated = named_layout(LAYOUTS.get(name, name)) if isinstance(name, str) else None
    if stated is not None and stated.num_joints == count:
        return stated
    sides = metadata.get("keypoints_symmetry")
    try:
        left, right = ([int(joint) for joint in side] for side in sides)
    except (TypeError, ValueError):
        return stated
    return layout_of_sides(left, right, count) or stated


def _stated_size(metadata: dict[str, Any], sequence: str) -> tuple[Any, Any] | None:
    """Return the size of the video that is the sequence's subject, in custom data sets."""
    videos = metadata.get("video_metadata")
    for video, about in videos.items() if isinstance(videos, dict) else ():
        if sequence.startswith(f"{video}/") and isinstance(about, dict) and "w" in about and "h" in about:
            return about["w"], about["h"]
    return None
