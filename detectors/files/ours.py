"""Our own keypoint files: npz, npy, json and csv, and results of `lift run`, which hold the keypoints too."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lifting.detectors.files.assembly import Poses
from lifting.detectors.files.content import Content, as_list, as_numbers, as_whole_number
from lifting.detectors.files.keypoint_file import Request
from lifting.detectors.files.layouts import named_layout
from lifting.files import atomic_write
from lifting.keypoints import Keypoints2D
from lifting.skeletons import BUILT_IN, Skeleton, get_skeleton

__all__ = ["LOOKED_FOR", "matches", "read", "write_keypoints"]

LOOKED_FOR = "npz or JSON with keypoints, an array (T, J, 2|3) as npy or JSON, or a csv with frame, joint, x, y"
FACTS = ("fps", "image_size", "skeleton")
COLUMNS = ("frame", "person", "joint", "x", "y", "score")
RESULT_COLUMNS = {"x_px": "x", "y_px": "y"}  # names in the csv of a result


def matches(content: Content) -> bool:
    """Tell whether the content has our names; VideoPose3D's detections, which also have keypoints, have boxes too."""
    if content.kind in ("npz", "json") and isinstance(content.data, dict):
        return "keypoints" in content.data and "boxes" not in content.data
    if content.kind == "json":
        return isinstance(content.data, list) and bool(content.data) and isinstance(content.data[0], list)
    if content.kind == "text":
        return {"frame", "joint", "x", "y"} <= set(_header(content.data)[1])
    return content.kind == "npy"


def read(content: Content, request: Request) -> Poses:
    """Read keypoints. Raises ValueError for shapes and types that do not fit."""
    if content.kind == "text":
        return _read_table(content.data)
    data = content.data if isinstance(content.data, dict) else {"keypoints": content.data}
    return _read_arrays(data)


# ---- arrays: npz, npy, json


def _read_arrays(data: Mapping[str, Any]) -> Poses:
    keypoints, ids = _people(data)
    poses = Poses(listed=range(keypoints.shape[1]))
    _state_facts(poses, _facts(data))
    if poses.fps is None and "times" in data:
        poses.fps = _fps_of(as_numbers(data["times"], "times"), keypoints.shape[1])
    for person, track in zip(ids, keypoints, strict=True):
        for frame in np.flatnonzero(np.isfinite(track[..., :2]).all(axis=-1).any(axis=-1)).tolist():
            poses.add(frame, track[frame], person)
    return poses


def _people(data: Mapping[str, Any]) -> tuple[np.ndarray, list[int]]:
    """Return keypoints (P, T, J, 2|3) and the ids of the people."""
    keypoints = as_numbers(data["keypoints"], "keypoints")
    single = keypoints.ndim == 3
    keypoints = keypoints[None] if single else keypoints
    if keypoints.ndim != 4 or keypoints.shape[3] not in (2, 3) or not keypoints.size:
        shape = keypoints.shape[1:] if single else keypoints.shape
        raise ValueError(f"keypoints have the shape {shape}: expected (T, J, 2|3) or (P, T, J, 2|3), none of them 0")
    if data.get("scores") is not None:
        scores = as_numbers(data["scores"], "scores")
        if scores.shape != (keypoints.shape[1:3] if single else keypoints.shape[:3]):
            raise ValueError(f"scores have the shape {scores.shape}: expected one for each keypoint")
        keypoints = np.concatenate([keypoints[..., :2], scores.reshape(*keypoints.shape[:3], 1)], axis=-1)
    return keypoints, _ids(data.get("ids"), len(keypoints))


def _ids(value: Any, count: int) -> list[int]:
    """Return the ids that the file gives, else 1, 2, ... as the tracker counts."""
    if value is None:
        return list(range(1, count + 1))
    given = value.tolist() if isinstance(value, np.ndarray) else value
    ids = [as_whole_number(person, "an id") for person in as_list(given, "ids")]
    if len(ids) != count or len(set(ids)) < count:
        raise ValueError(f"ids are {ids[:8]} for {count} people: expected a different one for each")
    return ids


def _facts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return fps, image size and skeleton, from entries of their own or from the metadata."""
    metadata = _plain(data.get("metadata"))
    if isinstance(metadata, str):
        metadata = _parse_facts(metadata)
    facts = dict(metadata) if isinstance(metadata, Mapping) else {}
    if "keypoint_skeleton" in facts:  # a result, where "skeleton" is that of the motion
        facts["skeleton"] = facts["keypoint_skeleton"]
    facts.update({name: _plain(data[name]) for name in FACTS if data.get(name) is not None})
    return facts


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _parse_facts(text: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its metadata is no JSON: {error}") from error
    if not isinstance(facts, dict):
        raise ValueError(f"its metadata is a JSON {type(facts).__name__}: expected an object with fps, image_size")
    return facts


def _state_facts(poses: Poses, facts: Mapping[str, Any]) -> None:
    poses.fps, poses.image_size = facts.get("fps"), facts.get("image_size")
    poses.skeleton = _skeleton(facts.get("skeleton"))
    units = facts.get("units")
    poses.pixels = units == "px" or isinstance(units, Mapping) and units.get("keypoints") == "px"


def _skeleton(stated: Any) -> Skeleton | None:
    if stated is None:
        return None
    skeleton = named_layout(stated) if isinstance(stated, str) else Skeleton.from_dict(stated)
    return get_skeleton(stated) if skeleton is None else skeleton  # the second raises with the names that are known


def _fps_of(times: np.ndarray, count: int) -> float | None:
    if times.shape != (count,):
        raise ValueError(f"times have the shape {times.shape} for {count} frames: expected seconds, one per frame")
    if count < 2:
        return None
    step = float(np.median(np.diff(times)))
    if not step > 0:
        raise ValueError("times do not grow: expected seconds, one per frame")
    return round(1 / step, 6)


# ---- tables: csv


def _header(text: str) -> tuple[list[str], list[str]]:
    """Return the comment lines at the top and the names of the columns."""
    comments = []
    for line in io.StringIO(text, newline=""):
        if not line.startswith("#"):
            names = next(csv.reader([line]), [])
            return comments, [RESULT_COLUMNS.get(name.strip(), name.strip()) for name in names]
        comments.append(line[1:].strip())
    return comments, []


def _read_table(text: str) -> Poses:
    comments, names = _header(text)
    facts = _facts_of_comments(comments)
    rows = io.StringIO(text, newline="")
    for _ in range(len(comments) + 1):
        rows.readline()
    try:
        columns = _columns(csv.reader(rows), names)
    except csv.Error as error:
        raise ValueError(f"the table is damaged: {error}; write it again") from error
    poses, rows = Poses(), len(columns["frame"])
    if facts.get("rows", rows) != rows:
        raise ValueError(f"the table has {rows} rows, but {facts['rows']} were written: it was cut; write it again")
    _state_facts(poses, facts)
    _add_rows(poses, columns)
    last = max(as_whole_number(facts.get("frames", 1), "frames") - 1, 0)
    poses.listed = {0, last}.union(_whole(text, "frame") for text in columns["frame"])
    return poses


def _facts_of_comments(comments: Iterable[str]) -> dict[str, Any]:
    """Return the JSON object in a comment line, as `write_keypoints` and the csv of a result have one."""
    for line in comments:
        line = line.removeprefix("metadata:").strip()
        if line.startswith("{"):
            return _facts({"metadata": line})
    return {}


def _columns(reader: Iterable[list[str]], names: list[str]) -> dict[str, list[str]]:
    """Return the fields of each of our columns; short rows are a file that was cut."""
    wanted = [name for name in COLUMNS if name in names]
    places = [names.index(name) for name in wanted]
    columns: dict[str, list[str]] = {name: [] for name in wanted}
    for number, row in enumerate(reader, 1):
        if not row or row[0].startswith("#"):
            continue
        if len(row) != len(names):
            raise ValueError(f"row {number} has {len(row)} fields, expected {len(names)}: the table may be cut short")
        for name, place in zip(wanted, places, strict=True):
            columns[name].append(row[place])
    return columns


def _add_rows(poses: Poses, columns: dict[str, list[str]]) -> None:
    joints, known = _joint_numbers(poses, columns["joint"])
    x, y = _floats(columns["x"], "x"), _floats(columns["y"], "y")
    score = _floats(columns["score"], "score") if "score" in columns else np.where(np.isnan(x), 0.0, 1.0)
    frames = [_whole(text, "frame") for text in columns["frame"]]
    people = [_whole(text, "person") for text in columns.get("person", ["1"] * len(frames))]
    found: dict[tuple[int, int], np.ndarray] = {}
    for row, (frame, person, joint) in enumerate(zip(frames, people, joints, strict=True)):
        if joint < 0 or np.isnan(x[row]) or np.isnan(y[row]):
            continue
        values = found.setdefault((frame, person), np.full((known, 3), (np.nan, np.nan, 0.0)))
        if not np.isnan(values[joint, 0]):
            raise ValueError(f"frame {frame}, person {person}: joint {columns['joint'][row]!r} twice, expected once")
        values[joint] = x[row], y[row], score[row]
    for (frame, person), values in found.items():
        poses.add(frame, values, person)


def _joint_numbers(poses: Poses, names: list[str]) -> tuple[list[int], int]:
    """Return the column of each row's joint, -1 where the layout has no such joint, and how many joints there are."""
    if poses.skeleton is not None:
        place = {name: number for number, name in enumerate(poses.skeleton.joints)}
        return [place.get(name, -1) for name in names], poses.skeleton.num_joints
    distinct = set(names)
    if all(name.isascii() and name.isdigit() and len(name) < 4 for name in distinct):
        return [int(name) for name in names], max(map(int, distinct), default=0) + 1
    skeleton = _layout_of_set(distinct)
    poses.skeleton = skeleton
    return [skeleton.index(name) for name in names], skeleton.num_joints


def _layout_of_set(names: set[str]) -> Skeleton:
    """Return the smallest built-in layout that has all of these joints."""
    fitting = [skeleton for skeleton in BUILT_IN.values() if names <= set(skeleton.joints)]
    if not fitting:
        shown = ", ".join(repr(name[:40]) for name in sorted(names)[:4])
        raise ValueError(f"joints {shown}, ... are no known layout: name it at the top, '# {{\"skeleton\": ...}}'")
    return min(fitting, key=lambda skeleton: skeleton.num_joints)


def _floats(texts: list[str], what: str) -> np.ndarray:
    try:
        return np.array([float(text) if text.strip() else np.nan for text in texts], np.float64)
    except ValueError as error:
        raise ValueError(f"column {what} holds something that is no number: {error}") from error


def _whole(text: str, what: str) -> int:
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and len(digits) <= 18:
        return int(digits)
    raise ValueError(f"column {what} holds {text[:40]!r}, expected a whole number from 0 on")


# ---- writing


def write_keypoints(path: str | os.PathLike[str], people: Keypoints2D | Mapping[int, Keypoints2D]) -> Path:
    """Write one person, or {id: person} over the same frames, as .npz, .json or .csv, whole or not at all.

    Returns the path; `read_keypoints` gives the same back. Raises ValueError for another suffix, no people, or people
    whose layout, frames, image size or fps differ, and OSError for a place that cannot be written.
    """
    path = Path(path)
    people = {1: people} if isinstance(people, Keypoints2D) else dict(people)
    writers = {".npz": _write_npz, ".json": _write_json, ".csv": _write_csv}
    if path.suffix.lower() not in writers:
        raise ValueError(f"{path.name!r} has the suffix {path.suffix!r}: keypoints are written as {', '.join(writers)}")
    _check_people(people)
    writers[path.suffix.lower()](path, people, _describe(next(iter(people.values()))))
    return path


def _check_people(people: Mapping[int, Keypoints2D]) -> None:
    if not people:
        raise ValueError("there are no people to write: give at least one")
    kinds = {(len(one), one.skeleton, one.image_size, one.fps) for one in people.values()}
    if len(kinds) > 1:
        raise ValueError("the people differ in frames, skeleton, image size or fps: write those of one video")


def _describe(keypoints: Keypoints2D) -> dict[str, Any]:
    skeleton = keypoints.skeleton
    name = skeleton.name if BUILT_IN.get(skeleton.name) == skeleton else skeleton.to_dict()
    return {"fps": keypoints.fps, "image_size": list(keypoints.image_size), "skeleton": name, "units": "px",
            "frames": len(keypoints)}  # fmt: skip


def _write_npz(path: Path, people: Mapping[int, Keypoints2D], facts: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            ids=np.array(list(people), np.int64),
            keypoints=np.stack([one.xy for one in people.values()]),
            scores=np.stack([one.score for one in people.values()]),
            metadata=np.array(json.dumps(facts)),
        )


def _write_json(path: Path, people: Mapping[int, Keypoints2D], facts: dict[str, Any]) -> None:
    xy = [np.where(np.isnan(one.xy), None, one.xy.astype(object)).tolist() for one in people.values()]
    scores = [one.score.tolist() for one in people.values()]
    with atomic_write(path, "w") as file:
        json.dump({"metadata": facts, "ids": list(people), "keypoints": xy, "scores": scores}, file, allow_nan=False)


def _write_csv(path: Path, people: Mapping[int, Keypoints2D], facts: dict[str, Any]) -> None:
    rows = sum(int(one.seen.sum()) for one in people.values())
    with atomic_write(path, "w") as file:
        file.write(f"# {json.dumps({**facts, 'rows': rows})}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for person, one in people.items():
            for frame, joint in np.argwhere(one.seen).tolist():
                x, y = one.xy[frame, joint].tolist()
                writer.writerow([frame, person, one.skeleton.joints[joint], x, y, float(one.score[frame, joint])])
