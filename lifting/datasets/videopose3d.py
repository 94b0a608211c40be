"""The data files of VideoPose3D: `data_3d_<dataset>.npz` and `data_2d_<dataset>_<keypoints>.npz` in one folder.

The first holds `positions_3d`, {subject: {action: (T, J, 3) metres, world}}; the second `positions_2d`, {subject:
{action: [one (T', K, 2 or 3) array of pixels per camera]}} and `metadata`. Both are pickles and read through the allow
list of `lifting.files`. T' may be larger than T: videos have frames beyond the end of the motion capture. Subjects that
only the second file knows are unlabelled clips.

Neither file holds cameras. Those of Human3.6M are read from its `metadata.xml` in the same folder, those of other data
from `cameras_<dataset>.json`: {subject: {view: camera}} in the order of the arrays, each as `Camera.from_dict` has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from lifting.cameras import Camera
from lifting.datasets.h36m_cameras import CAMERA_IDS, IMAGE_SIZES, METADATA, H36MCameras, opencv_cameras
from lifting.datasets.h36m_cameras import HOW_TO_GET as H36M_METADATA
from lifting.datasets.world_clips import WorldClips, WorldView
from lifting.files import load_npz
from lifting.keypoints import as_float_array, check_fps, check_image_size
from lifting.skeletons import BUILT_IN, Skeleton, get_skeleton, joint_map

ASSUMED_FPS = 50.0
"""Frames per second of data that do not say theirs, those for which the method was made."""
FPS = {"h36m": 50.0, "humaneva15": 60.0}
HUMANEVA_SIZE = (640, 480)
VIEWS = {"h36m": CAMERA_IDS, "humaneva15": ("C1", "C2", "C3")}
CORRUPTED = (("S11", "Directions"),)
"""Takes of Human3.6M whose motion capture is broken; the field leaves them out."""
HOW_TO_GET = "the scripts of VideoPose3D make its data_2d and data_3d files from those of the data set"

H36M16 = Skeleton(
    "h36m16",
    tuple(joint for joint in BUILT_IN["h36m17"].joints if joint != "neck_nose"),
    (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 10, 11, 8, 13, 14),
    (("nose", ("thorax", "head")),),
)
"""What the stacked hourglass files (`sh_*`) hold: `h36m17` without the joint between neck and nose."""
_LAYOUTS_2D = {"coco": "coco17", "h36m": "h36m17", "mpii": "mpii16", "humaneva15": "humaneva15"}
_LAYOUTS_3D = {32: "h36m32", 17: "h36m17", 15: "humaneva15"}
Cameras = Mapping[str, Mapping[str, Camera]]
_SIDES = (get_skeleton("h36m17"), get_skeleton("coco17"), get_skeleton("mpii16"), get_skeleton("humaneva15"), H36M16)


@dataclass(frozen=True, eq=False)
class DetectedTakes:
    """What a `data_2d_*.npz` holds.

    Attributes:
        path: the file.
        skeleton: layout of the keypoints.
        takes: {(subject, action): one (T, K, 2 or 3) float32 array of pixels (and scores) per camera}.
        video_sizes: {subject: (width, height) px} where the file says so, as custom data sets do.
        video_fps: {subject: frames per second}, likewise.
    """

    path: Path
    skeleton: Skeleton
    takes: dict[tuple[str, str], list[np.ndarray]]
    video_sizes: dict[str, tuple[int, int]]
    video_fps: dict[str, float]


def read_detected(path: str | PathLike[str]) -> DetectedTakes:
    """Read a `data_2d_*.npz`; FileNotFoundError, and ValueError for other content or a layout that is not known."""
    path = Path(path)
    arrays = load_npz(path, allow_objects=True, only=("positions_2d", "metadata"))
    metadata = _as_mapping(_unwrapped(arrays.get("metadata")))
    takes = {take: [_checked(values, f"{path.name}: {'/'.join(take)}", (2, 3)) for values in _as_cameras(cameras, path)]
             for take, cameras in _takes_of(arrays, "positions_2d", path)}
    count = next(iter(takes.values()))[0].shape[1]
    videos = {name: _as_mapping(video) for name, video in _as_mapping(metadata.get("video_metadata")).items()}
    sizes = {name: check_image_size((about["w"], about["h"])) for name, about in videos.items()
             if {"w", "h"} <= set(about)}
    rates = {name: check_fps(about["fps"]) for name, about in videos.items() if "fps" in about}
    return DetectedTakes(path, _layout_of(metadata, count, path), takes, sizes, rates)


def read_positions(path: str | PathLike[str]) -> dict[tuple[str, str], np.ndarray]:
    """Read a `data_3d_*.npz`: {(subject, action): (T, J, 3) float32 metres, world}.

    The 32 joints of Human3.6M become `h36m17`. Raises FileNotFoundError, and ValueError for other content.
    """
    path = Path(path)
    arrays = load_npz(path, allow_objects=True, only=("positions_3d",))
    return {take: _known_joints(_checked(values, f"{path.name}: {'/'.join(take)}", (3,)), path)
            for take, values in _takes_of(arrays, "positions_3d", path)}


def open_videopose3d(folder: str | PathLike[str], dataset: str, keypoints: str) -> WorldClips:
    """Open the files of one data set (`h36m`, `humaneva15`, `custom`, ...) with one source of 2D keypoints.

    Raises:
        FileNotFoundError: the keypoints are not there, or the cameras are not, which labels need.
        ValueError: the content is not that of such files, or takes of the two files do not go together.
    """
    folder = Path(folder)
    detected = read_detected(folder / f"data_2d_{dataset}_{keypoints}.npz")
    labels = folder / f"data_3d_{dataset}.npz"
    positions = read_positions(labels) if labels.is_file() else {}
    cameras = find_cameras(folder, dataset, {subject for subject, _ in [*detected.takes, *positions]})
    _check_cameras(dataset, cameras, (subject for subject, _ in positions), labels)
    joints = {values.shape[1] for values in positions.values()}
    skeleton_out = get_skeleton(_LAYOUTS_3D[joints.pop()]) if joints else None
    views = list(match_views(dataset, detected, positions, cameras))
    return WorldClips(f"{dataset} {keypoints}", views, detected.skeleton, skeleton_out)


def match_views(dataset: str, detected: DetectedTakes, positions: Mapping[tuple[str, str], np.ndarray],
                cameras: Cameras) -> Iterator[WorldView]:
    """The views of all takes: labelled where `positions` knows the take; ValueError for labels without keypoints."""
    usable = {take: values for take, values in positions.items() if not is_corrupted(dataset, *take)}
    if alone := ["/".join(take) for take in usable if take not in detected.takes]:
        raise ValueError(f"{detected.path} lacks {len(alone)} takes that have 3D positions, such as {alone[0]}; make "
                         "both files from the same data.")
    for (subject, action), arrays in detected.takes.items():
        if is_corrupted(dataset, subject, action):
            continue
        of_subject = _cameras_of(cameras, subject)
        names = list(of_subject) or list(VIEWS.get(dataset, ()))
        for number, values in enumerate(arrays):
            name = names[number] if number < len(names) else str(number)
            camera = of_subject.get(name)
            size = _size_of(detected, dataset, subject, name) if camera is None else camera.image_size
            yield WorldView(subject, action, name, detected.video_fps.get(subject, FPS.get(dataset, ASSUMED_FPS)),
                            size, camera, usable.get((subject, action)), values)


def is_corrupted(dataset: str, subject: str, action: str) -> bool:
    """Whether the field leaves this take out because its motion capture is broken."""
    return dataset == "h36m" and (subject, action) in CORRUPTED


# ---- cameras


def find_cameras(folder: Path, dataset: str, subjects: Iterable[str]) -> Cameras:
    """The cameras that lie beside the data: those of `metadata.xml` (h36m) or of `cameras_<dataset>.json`.

    {} where there are none. Raises ValueError when a file is there but of no use.
    """
    if (stated := folder / f"cameras_{dataset}.json").is_file():
        return _read_json_cameras(stated)
    if dataset != "h36m" or not (folder / METADATA).is_file():
        return {}
    return opencv_cameras(H36MCameras(folder / METADATA), subjects)


def _read_json_cameras(path: Path) -> Cameras:
    try:
        content = json.loads(path.read_text("utf-8"))
        return {subject: {view: Camera.from_dict(values) for view, values in views.items()}
                for subject, views in content.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} does not hold {{subject: {{view: camera}}}}: {error}") from error


def _check_cameras(dataset: str, cameras: Cameras, subjects: Iterable[str], labels: Path) -> None:
    """Refuse labels in the world of subjects whose cameras are not known."""
    without = sorted({subject for subject in subjects if not _cameras_of(cameras, subject)})
    if not without:
        return
    wanted = f"{METADATA} there; {H36M_METADATA}" if dataset == "h36m" else f"cameras_{dataset}.json there"
    raise FileNotFoundError(f"{labels} holds joints in the world, and the cameras of {', '.join(without)}, which would "
                            f"bring them into a camera's frame, are not known: put {wanted}.")


def _cameras_of(cameras: Cameras, subject: str) -> Mapping[str, Camera]:
    """The cameras of a subject in the order of the arrays (`Train/S1` has those of `S1`); empty where not known."""
    return cameras.get(subject) or cameras.get(subject.rpartition("/")[2], {})


def _size_of(detected: DetectedTakes, dataset: str, subject: str, view: str) -> tuple[int, int]:
    """The image size where no camera tells it."""
    if subject in detected.video_sizes:
        return detected.video_sizes[subject]
    if dataset == "h36m":
        return IMAGE_SIZES.get(view, (1000, 1000))
    if dataset.startswith("humaneva"):
        return HUMANEVA_SIZE
    raise ValueError(f"{detected.path} does not say how large the images of {subject} are; add its w and h to the "
                     "video_metadata, or its cameras.")


# ---- content


def _takes_of(arrays: Mapping[str, np.ndarray], key: str, path: Path) -> Iterator[tuple[tuple[str, str], Any]]:
    """((subject, action), value) of the nested dict, in its order; ValueError for another content or none."""
    subjects = _unwrapped(arrays.get(key))
    nested = isinstance(subjects, Mapping) and all(isinstance(actions, Mapping) for actions in subjects.values())
    if not nested or not any(subjects.values()):
        raise ValueError(f"{path} does not hold {key} as {{subject: {{action: ...}}}}; {HOW_TO_GET}.")
    for subject, actions in subjects.items():
        for action, value in actions.items():
            yield (str(subject), str(action)), value


def _unwrapped(value: Any) -> Any:
    """What numpy saved as an array without dimensions."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _as_mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one: metadata are optional."""
    return value if isinstance(value, Mapping) else {}


def _as_cameras(value: Any, path: Path) -> Sequence[Any]:
    if not isinstance(value, (list, tuple, np.ndarray)) or not len(value):
        raise ValueError(f"{path} has a take that is no list of one array per camera; {HOW_TO_GET}.")
    return value


def _checked(values: Any, what: str, channels: tuple[int, ...]) -> np.ndarray:
    """(T, J, C) float32 with at least one frame and joint; ValueError otherwise."""
    array = as_float_array(values, what, (None, None, None))
    if not array.size or array.shape[2] not in channels:
        expected = " or ".join(map(str, channels))
        raise ValueError(f"{what} has the shape {array.shape}, expected (frames, joints, {expected}); {HOW_TO_GET}.")
    return array


def _known_joints(positions: np.ndarray, path: Path) -> np.ndarray:
    count = positions.shape[1]
    if count not in _LAYOUTS_3D:
        raise ValueError(f"{path} has {count} joints, whose names are not known; expected 32 or 17 (Human3.6M) or 15 "
                         "(HumanEva).")
    return joint_map("h36m32", "h36m17").apply(positions) if count == 32 else positions


def _layout_of(metadata: Mapping[str, Any], count: int, path: Path) -> Skeleton:
    """The layout that the metadata name or, in files without a name, the one whose left and right joints they list."""
    name = metadata.get("layout_name")
    known = _LAYOUTS_2D.get(name) if isinstance(name, str) else None
    if known is not None and get_skeleton(known).num_joints == count:
        return get_skeleton(known)
    sides = _sides(metadata.get("keypoints_symmetry"))
    for skeleton in _SIDES:
        if skeleton.num_joints == count and [set(skeleton.left), set(skeleton.right)] == sides:
            return skeleton
    raise ValueError(f"{path} has {count} keypoints in the layout {name!r} with left and right joints "
                     f"{metadata.get('keypoints_symmetry')}, whose names are not known; expected "
                     f"{', '.join(skeleton.name for skeleton in _SIDES)}.")


def _sides(symmetry: Any) -> list[set[int]]:
    try:
        return [{int(joint) for joint in side} for side in symmetry]
    except (TypeError, ValueError):
        return []
