"""HumanEva-I in the files of VideoPose3D, with the cameras from the data set's own calibrations.

Sigal, Balan and Black, "HumanEva: synchronized video and motion capture dataset and baseline algorithm", IJCV 2010.
`data_3d_humaneva15.npz` holds joints in the world and no cameras. HumanEva has them as `S1/Calibration_Data/C1.cal` and
so on: 22 numbers in the terms of Bouguet's toolbox, which are focal lengths, centre (2 each, px), skew, k1 k2 p1 p2 k3,
then rotation (9) and translation (3, mm), world to camera. Whether the rotation is written row by row or column by
column is not documented; that order is taken in which the joints fall on the keypoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from lifting.cameras import Camera
from lifting.datasets.videopose3d import (
    HUMANEVA_SIZE,
    DetectedTakes,
    match_views,
    open_videopose3d,
    read_detected,
    read_positions,
)
from lifting.datasets.world_clips import WorldClips, WorldView
from lifting.skeletons import get_skeleton

VIEWS = ("C1", "C2", "C3")
UNKNOWN_LAYOUT = "humaneva20"  # a name in VideoPose3D's documentation without a skeleton in its code
CALIBRATION = "Calibration_Data/{view}.cal"
HOW_TO_GET = "copy it from HumanEva-I (humaneva.is.tue.mpg.de, registration needed)"
LARGEST_ERROR = 0.03
"""Median distance of projected joints from keypoints, in widths of the image, beyond which a camera is not theirs."""
_ORDERS = ("C", "F")  # of the rotation's numbers: row by row, column by column

Takes = Mapping[tuple[str, str], np.ndarray]
Cameras = dict[str, dict[str, Camera]]


def open_humaneva(folder: str | PathLike[str], dataset: str, keypoints: str) -> WorldClips:
    """Open `data_2d_<dataset>_<keypoints>.npz` with `data_3d_<dataset>.npz` and the calibrations in one folder.

    Where `cameras_<dataset>.json` lies there, it has the cameras, as for all files of VideoPose3D.

    Raises:
        FileNotFoundError: the keypoints, or the calibrations that labels need, are not there.
        ValueError: a file holds something else, or the calibrations do not belong to the keypoints.
    """
    folder = Path(folder)
    labels = folder / f"data_3d_{dataset}.npz"
    if not labels.is_file() or (folder / f"cameras_{dataset}.json").is_file():
        return open_videopose3d(folder, dataset, keypoints)
    detected = read_detected(folder / f"data_2d_{dataset}_{keypoints}.npz")
    positions = read_positions(labels)
    cameras = find_cameras(folder, dataset, detected, positions)
    views = list(match_views(dataset, detected, positions, cameras))
    return WorldClips(f"{dataset} {keypoints}", views, detected.skeleton, get_skeleton("humaneva15"))


def find_cameras(folder: Path, dataset: str, detected: DetectedTakes, positions: Takes) -> Cameras:
    """{subject: {view: camera}} of all subjects with labels (`Train/S1` is `S1`); raises as `open_humaneva`."""
    subjects = dict.fromkeys(subject.rpartition("/")[2] for subject, _ in positions)
    known = [read_cameras(folder, subjects, order) for order in _ORDERS]
    errors = [_typical_error(match_views(dataset, detected, positions, cameras), detected) for cameras in known]
    best = int(np.argmin(errors))
    if not errors[best] <= LARGEST_ERROR * HUMANEVA_SIZE[0]:
        raise ValueError(f"the calibrations in {folder} put the joints {errors[best]:.0f} px from the keypoints of "
                         f"{detected.path.name}, expected less than {LARGEST_ERROR * HUMANEVA_SIZE[0]:.0f}; check that "
                         "all are of HumanEva-I.")
    return known[best]


def read_cameras(folder: Path, subjects: Iterable[str], order: str = "C") -> Cameras:
    """The calibrations of subjects, {subject: {view: camera}}; `order` "C": the rotation row by row, "F": by column.

    Raises FileNotFoundError and ValueError as `open_humaneva`.
    """
    return {subject: {view: read_calibration(folder / subject / CALIBRATION.format(view=view), order)
                      for view in VIEWS} for subject in subjects}


def read_calibration(path: str | PathLike[str], order: str = "C") -> Camera:
    """Read one `.cal`; FileNotFoundError, and ValueError when it holds something else."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no calibration {path.absolute()}, which brings the joints of the world into "
                                f"the camera's frame; {HOW_TO_GET}.")
    try:
        numbers = np.array(path.read_text("utf-8", "replace").replace(",", " ").split(), np.float64)
        if len(numbers) != 22:
            raise ValueError(f"it has {len(numbers)} numbers, expected 22")
        focal, center, skew, distortion, rotation, translation = np.split(numbers, (2, 4, 5, 10, 19))
        if abs(skew[0]) > 1e-3:
            raise ValueError(f"its skew is {skew[0]:g}, expected 0")
        return Camera(focal, center, HUMANEVA_SIZE, distortion, rotation.reshape(3, 3, order=order), translation / 1000)
    except ValueError as error:
        raise ValueError(f"{path} is not a calibration of HumanEva: {str(error).rstrip('.')}; {HOW_TO_GET}.") from error


def _typical_error(views: Iterable[WorldView], detected: DetectedTakes) -> float:
    """Median distance in px of the joints' projections from the keypoints of the same name; a joint that is not in
    front of the camera is infinitely far away.
    """
    joints = get_skeleton("humaneva15")
    shared = [name for name in joints.joints if name in detected.skeleton.joints]
    distances = [_distances(view, joints.indices(shared), detected.skeleton.indices(shared))
                 for view in views if view.joints is not None]
    return float(np.median(np.concatenate(distances))) if distances else np.inf


def _distances(view: WorldView, of_joints: tuple[int, ...], of_keypoints: tuple[int, ...]) -> np.ndarray:
    """px, of every tenth frame and every joint that is known and seen (score, or y where there is none, not 0)."""
    joints = view.joints[::10][:, of_joints]
    seen = view.detected[: len(view.joints) : 10][:, of_keypoints]
    known = np.isfinite(joints).all(axis=-1) & np.isfinite(seen).all(axis=-1) & (seen[..., -1] != 0)
    distance = np.linalg.norm(view.camera.project(view.camera.to_camera(joints)) - seen[..., :2], axis=-1)
    return np.nan_to_num(distance[known], nan=np.inf)
