"""SLEAP's files: analysis ``.h5`` (tracks as arrays) and projects ``.slp`` (instances as tables), both HDF5."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from lifting.detectors.files.assembly import Poses
from lifting.detectors.files.content import Content, open_hdf5
from lifting.detectors.files.keypoint_file import Request
from lifting.detectors.files.named_points import arrange

LOOKED_FOR = "an HDF5 file with tracks and node_names, or with frames, instances and pred_points"
ANALYSIS, PROJECT = {"tracks", "node_names"}, {"metadata", "frames", "instances", "points", "pred_points"}
MATLAB_DIMENSIONS = ("track", "xy", "node", "frame")
"""Axes of `tracks` in files that do not say so."""
BY_HAND = 0  # instance_type of what a person has labelled


def matches(content: Content) -> bool:
    """Tell whether the content is one of SLEAP's files."""
    return content.kind == "hdf5" and any(names <= set(content.data) for names in (ANALYSIS, PROJECT))


def read(content: Content, request: Request) -> Poses:
    """Read the instances. Raises ValueError for damaged files and projects of several videos."""
    with open_hdf5(content.path) as file:
        try:
            return (_read_analysis if set(content.data) >= ANALYSIS else _read_project)(file, request)
        except (IndexError, AttributeError) as error:
            raise ValueError(f"its tables do not fit together: {error}; write the file again") from error


def _read_analysis(file: Any, request: Request) -> Poses:
    names = [_text(name) for name in file["node_names"][()].tolist()]
    tracks = _ordered(file["tracks"], ("track", "frame", "node", "xy"), MATLAB_DIMENSIONS)
    scores = np.ones(tracks.shape[:3])
    if "point_scores" in file:
        scores = _ordered(file["point_scores"], ("track", "frame", "node"), ("track", "node", "frame"))
    if tracks.shape[2:] != (len(names), 2) or scores.shape != tracks.shape[:3]:
        raise ValueError(f"tracks have the shape {file['tracks'].shape} for {len(names)} nodes: write the file again")
    poses = Poses(listed=range(tracks.shape[1]))
    places = np.argwhere(np.isfinite(tracks).all(axis=-1).any(axis=-1))  # rows of track and frame
    points = _points(tracks[tuple(places.T)], scores[tuple(places.T)])
    _add(poses, names, points, places[:, 1].tolist(), (places[:, 0] + 1).tolist(), request)
    return poses


def _ordered(dataset: Any, wanted: tuple[str, ...], usual: tuple[str, ...]) -> np.ndarray:
    """The array with its axes in the order `wanted`; which they are, the attribute ``dims`` says, else `usual`."""
    stated = dataset.attrs.get("dims")
    dimensions = usual if stated is None else tuple(json.loads(_text(stated)))
    if sorted(dimensions) != sorted(wanted) or dataset.ndim != len(wanted):
        raise ValueError(f"an array has the axes {dimensions}: expected {', '.join(wanted)}")
    return np.asarray(dataset[()], np.float64).transpose([dimensions.index(name) for name in wanted])


def _read_project(file: Any, request: Request) -> Poses:
    frames, instances = file["frames"][()], file["instances"][()]
    if len(set(frames["video"].tolist())) > 1:
        raise ValueError(f"it holds labels of {len(set(frames['video'].tolist()))} videos: expected one; save one "
                         "project per video")
    names = _node_names(json.loads(_text(file["metadata"].attrs["json"])))
    tables = {kind: _point_table(file[name][()], len(names)) for kind, name in ((0, "points"), (1, "pred_points"))}
    poses, rows, found, ids = Poses(), [], [], []
    for frame in frames:
        for instance in _counted(instances[int(frame["instance_id_start"]) : int(frame["instance_id_end"])]):
            table, start = tables[int(instance["instance_type"])], int(instance["point_id_start"])
            found.append(table[start : start + len(names)])
            rows.append(int(frame["frame_idx"]))
            ids.append(int(instance["track"]) + 1 or None)  # -1: in no track
    if any(len(points) != len(names) for points in found):
        raise ValueError("an instance points beyond the table of points: the file is cut short; save it again")
    _add(poses, names, np.array(found).reshape(-1, len(names), 3), rows, ids, request)
    if request.image_size is None and "videos_json" in file:
        poses.image_size = _image_size(file["videos_json"][()].tolist())
    return poses


def _counted(instances: np.ndarray) -> list[Any]:
    """The instances of a frame that count: what was labelled replaces its prediction, and others in its track."""
    by_hand = instances[instances["instance_type"] == BY_HAND]
    replaced, tracks = set(by_hand["from_predicted"].tolist()) - {-1}, set(by_hand["track"].tolist()) - {-1}
    predicted = [one for one in instances if one["instance_type"] != BY_HAND
                 and int(one["instance_id"]) not in replaced and int(one["track"]) not in tracks]
    return [*by_hand, *predicted]


def _point_table(records: np.ndarray, nodes: int) -> np.ndarray:
    """(N, 3) x, y and confidence, invisible points NaN."""
    xy = np.stack([records["x"], records["y"]], axis=-1).astype(np.float64)
    xy[~records["visible"].astype(bool)] = np.nan
    scores = records["score"] if "score" in (records.dtype.names or ()) else np.ones(len(records))
    return _points(xy, scores)


def _points(xy: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(..., 3) x, y and confidence; points labelled by hand, which have none, are certain."""
    return np.concatenate([xy, np.where(np.isnan(scores), 1.0, scores)[..., None]], axis=-1)


def _node_names(metadata: Any) -> list[str]:
    """Names of the nodes in the order of the points; ValueError for other than one skeleton."""
    try:
        names = [str(node["name"]) for node in metadata["nodes"]]
        [skeleton] = metadata["skeletons"]
        return [names[int(node["id"])] for node in skeleton["nodes"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("its metadata describe no single skeleton: expected one with named nodes") from error


def _image_size(videos: list[Any]) -> tuple[int, int] | None:
    """(width, height) of the one video, None where the project does not say."""
    try:
        [video] = videos
        _, height, width, _ = json.loads(_text(video))["backend"]["shape"]
        return int(width), int(height)
    except (KeyError, TypeError, ValueError):
        return None


def _add(
    poses: Poses, names: list[str], points: np.ndarray, frames: list[int], ids: list[int | None], request: Request
) -> None:
    points, poses.skeleton, notes = arrange(names, points, request.skeleton)
    poses.joint_names = None if poses.skeleton is not None else names
    poses.notes += notes
    poses.pixels = True
    for frame, values, person in zip(frames, points, ids, strict=True):
        poses.add(frame, values, person)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
