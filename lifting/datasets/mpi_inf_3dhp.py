"""MPI-INF-3DHP as it unpacks: `S1/Seq1/annot.mat` with `camera.calibration`, and `TS1/annot_data.mat` of the test set.

Mehta et al., "Monocular 3D human pose estimation in the wild using improved CNN supervision", 3DV 2017. Fourteen
cameras see each of the sixteen training takes (2048 x 2048 pixels), one sees each of the six test takes. Annotations
hold, per frame, 28 joints (17 in the test set) as pixels, `annot2`, and as millimetres in the camera's frame, `annot3`;
the 17 that are evaluated correspond one to one to those of `h36m17`, which is the layout of all clips.

Recordings have 25 or 50 frames per second; every second frame of the faster ones is left out, so that the whole data
set has one rate. All annotations, some 0.5 GB, are read into memory; a clip file of them streams from disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np

from lifting.cameras import Camera
from lifting.datasets.matlab_file import MatValue, read_mat
from lifting.datasets.world_clips import WorldClips, WorldView
from lifting.keypoints import as_float_array
from lifting.skeletons import get_skeleton

TRAIN_PATTERN, TEST_PATTERN = "S*/Seq*/annot.mat", "TS*/annot_data.mat"
TEST_FOLDER = "mpi_inf_3dhp_test_set"
CALIBRATION = "camera.calibration"
HOW_TO_GET = "unpack what its get_dataset.sh and get_testset.sh download; vcai.mpi-inf.mpg.de/3dhp-dataset"
FPS = 25.0
AT_50_FPS = (("S1", "Seq2"), ("S3", "Seq1"), ("S3", "Seq2"), ("S5", "Seq1"), ("S5", "Seq2"))
"""Takes of the double rate, which no file states: they have some 12400 frames, the others, as long in time, 6300."""
STUDIO_SIZE = (2048, 2048)
TEST_SIZES = {"TS5": (1920, 1080), "TS6": (1920, 1080)}
"""Image sizes of the test takes outdoors; the others have that of the studio, in which all training takes were made."""
LABELS = {"gt": "annot3", "gt_universal": "univ_annot3"}
"""Name of the 2D keypoints, by which a data set is chosen -> the annotations that are its labels."""
WORST_FIT = 0.02
"""Largest root mean square residual of fitted intrinsics, in widths of the image."""

JOINTS_28 = tuple(
    "spine3 spine4 spine2 spine pelvis neck head head_top left_clavicle left_shoulder left_elbow left_wrist left_hand "
    "right_clavicle right_shoulder right_elbow right_wrist right_hand left_hip left_knee left_ankle left_foot left_toe "
    "right_hip right_knee right_ankle right_foot right_toe".split()
)
JOINTS_17 = tuple(
    "head_top neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle pelvis spine head".split()
)
_OWN_NAMES = {"hip": "pelvis", "thorax": "neck", "neck_nose": "head", "head": "head_top"}  # of joints of h36m17


def open_mpi_inf_3dhp(folder: str | PathLike[str], keypoints: str = "gt") -> WorldClips:
    """Open what there is of the training and the test takes in a folder (the latter also in `mpi_inf_3dhp_test_set`).

    Subjects are `S1` to `S8` and `TS1` to `TS6`, actions `Seq1`, `Seq2` and, in the test set, the subject's name again;
    a view is the number of its camera. Test frames that are not marked as valid have keypoints but no label (NaN).

    Args:
        folder: the folder.
        keypoints: `gt`: the annotated pixels. `gt_universal`: the same, with labels from `univ_annot3`, in which all
            people have one height and which many published PCK, AUC and MPJPE compare with; sizes, and with them
            depths, need not be those of the images.

    Raises FileNotFoundError when there are no annotations or not their cameras, and ValueError for unknown keypoints or
    other content.
    """
    if keypoints not in LABELS:
        raise ValueError(f"MPI-INF-3DHP has no 2D keypoints {keypoints!r}; choose {' or '.join(LABELS)}.")
    folder, labels = Path(folder), LABELS[keypoints]
    views = [view for path in sorted(folder.glob(TRAIN_PATTERN)) for view in _train_views(path, labels)]
    views += [_test_view(path, labels) for path in find_test_takes(folder)]
    if not views:
        raise FileNotFoundError(f"{folder.absolute()} has no files {TRAIN_PATTERN} or {TEST_PATTERN}; {HOW_TO_GET}.")
    skeleton = get_skeleton("h36m17")
    return WorldClips(f"mpi_inf_3dhp {keypoints}", views, skeleton, skeleton)


def find_test_takes(folder: Path) -> list[Path]:
    """The annotations of the test set in a folder or in its `mpi_inf_3dhp_test_set`."""
    return sorted(folder.glob(TEST_PATTERN)) or sorted(folder.glob(f"{TEST_FOLDER}/{TEST_PATTERN}"))


# ---- training takes


def _train_views(path: Path, labels: str) -> Iterator[WorldView]:
    """One view per camera; the annotations are those of one take."""
    subject, take = path.parts[-3:-1]
    cameras = read_calibration(path.with_name(CALIBRATION))
    annotations = read_mat(path, ("annot2", labels))
    pixels, points = (_columns(annotations[name], path, name, len(cameras)) for name in ("annot2", labels))
    step = 2 if (subject, take) in AT_50_FPS else 1
    for number, camera in enumerate(cameras):
        xy = _evaluated(pixels[number][::step], JOINTS_28, 2, path)
        points_cam = _evaluated(points[number][::step], JOINTS_28, 3, path) / 1000
        joints = camera.to_world(points_cam).astype(np.float32)
        yield WorldView(subject, take, str(number), FPS, camera.image_size, camera, joints, xy.astype(np.float32))


def _columns(cell: MatValue, path: Path, name: str, count: int) -> list[np.ndarray]:
    """A cell of one array per camera."""
    if not isinstance(cell, list) or len(cell) != count:
        found = f"{len(cell)} cameras" if isinstance(cell, list) else "no cell array"
        raise ValueError(f"{path} has {found} in {name}, expected the {count} of {CALIBRATION}; {HOW_TO_GET}.")
    return cell


def _evaluated(values: np.ndarray, joints: tuple[str, ...], channels: int, path: Path) -> np.ndarray:
    """The joints of `h36m17`, (T, 17, C), of the numbers of `joints`, (T, J C) or (T, J, C)."""
    if values.ndim not in (2, 3) or not values.size or values[0].size != len(joints) * channels:
        raise ValueError(f"{path} has annotations of shape {values.shape}, expected (frames, {len(joints) * channels}) "
                         f"numbers of {len(joints)} joints; {HOW_TO_GET}.")
    values = as_float_array(values.reshape(len(values), len(joints), channels), str(path), (None,) * 3, np.float64)
    return values[:, [joints.index(_OWN_NAMES.get(joint, joint)) for joint in get_skeleton("h36m17").joints]]


def read_calibration(path: str | PathLike[str]) -> list[Camera]:
    """Read a `camera.calibration` ("Skeletool Camera Calibration File"): its cameras in their order.

    A camera is a line `name`, and lines `size` (2 numbers), `intrinsic` and `extrinsic` (4 x 4 each, row by row; world
    to camera, mm) and `radial` (0: none). Raises FileNotFoundError, and ValueError for another content.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path.name} in {path.parent.absolute()}, which has the cameras of the "
                                f"annotations there; {HOW_TO_GET}.")
    lines = [line.split() for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    starts = [number for number, words in enumerate(lines) if words[0] == "name"]
    if not starts:
        raise ValueError(f"{path} names no camera, expected some; {HOW_TO_GET}.")
    blocks = [lines[start:stop] for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True)]
    try:
        return [_read_camera({words[0]: words[1:] for words in block}) for block in blocks]
    except (IndexError, KeyError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{path} does not hold cameras as expected: {reason}; {HOW_TO_GET}.") from error


def _read_camera(entries: dict[str, list[str]]) -> Camera:
    numbers = {name: np.array(entries[name], np.float64) for name in ("size", "intrinsic", "extrinsic", "radial")}
    if numbers["radial"].any():
        raise ValueError(f"a camera has the radial distortion {numbers['radial']}, expected none")
    lens, pose = (numbers[name].reshape(4, 4) for name in ("intrinsic", "extrinsic"))
    return Camera(np.diag(lens)[:2], lens[:2, 2], tuple(numbers["size"]), rotation=pose[:3, :3],
                  translation=pose[:3, 3] / 1000)


# ---- test takes


def _test_view(path: Path, labels: str) -> WorldView:
    """The only view of a test take; its world is the camera's frame."""
    subject = path.parent.name
    arrays = read_mat(path, dict.fromkeys(("annot2", "annot3", labels, "valid_frame")))
    xy, points_cam, joints = (_test_joints(arrays[name], path, name) for name in ("annot2", "annot3", labels))
    valid = np.ravel(arrays["valid_frame"]) > 0
    if not len(xy) == len(points_cam) == len(joints) == len(valid):
        raise ValueError(f"{path} has {len(xy)}, {len(joints)} and {len(valid)} frames of pixels, joints and "
                         f"valid_frame, expected the same number of each; {HOW_TO_GET}.")
    camera = fit_intrinsics(points_cam[valid] / 1000, xy[valid], TEST_SIZES.get(subject, STUDIO_SIZE), path)
    joints = np.where(valid[:, None, None], joints / 1000, np.nan).astype(np.float32)
    return WorldView(subject, subject, "0", FPS, camera.image_size, camera, joints, xy.astype(np.float32))


def _test_joints(value: MatValue, path: Path, name: str) -> np.ndarray:
    """(T, 17, C) of MATLAB's (C, 17, 1, T)."""
    channels = 2 if name == "annot2" else 3
    if isinstance(value, list) or value.ndim != 4 or value.shape[:3] != (channels, len(JOINTS_17), 1):
        shape = "a cell array" if isinstance(value, list) else value.shape
        raise ValueError(f"{path} has {shape} in {name}, expected ({channels}, {len(JOINTS_17)}, 1, frames); "
                         f"{HOW_TO_GET}.")
    return _evaluated(value[:, :, 0].T, JOINTS_17, channels, path)


def fit_intrinsics(points_cam: np.ndarray, xy: np.ndarray, image_size: tuple[int, int], what: object) -> Camera:
    """The camera without distortion that projects points (..., 3) metres, camera frame, onto pixels (..., 2).

    The test set states no intrinsics; its pixels are projections of its joints, so that focal lengths and centre follow
    by least squares. Raises ValueError, naming `what` the numbers are of, when no camera fits.
    """
    points_cam, xy = points_cam.reshape(-1, 3), xy.reshape(-1, 2)
    known = (points_cam[:, 2] > 0) & np.isfinite(points_cam).all(axis=1) & np.isfinite(xy).all(axis=1)
    rays, xy = points_cam[known, :2] / points_cam[known, 2:], xy[known]
    columns = [np.stack([rays[:, axis], np.ones(len(rays))], axis=1) for axis in (0, 1)]
    focal, center = np.transpose([np.linalg.lstsq(columns[axis], xy[:, axis], rcond=None)[0] for axis in (0, 1)])
    error = np.sqrt(((rays * focal + center - xy) ** 2).sum(axis=1).mean()) if len(xy) else np.inf
    if (focal <= 0).any() or error > WORST_FIT * image_size[0]:
        raise ValueError(f"{what} has pixels that no camera sees its joints at (best: {error:.1f} px off), expected "
                         f"projections; {HOW_TO_GET}.")
    return Camera(focal, center, image_size)
