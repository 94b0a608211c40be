"""3DPW as it unpacks: `sequenceFiles/train/courtyard_basketball_00.pkl` and so on, `validation` and `test` likewise.

Von Marcard et al., "Recovering accurate 3D human pose in the wild using IMUs and a moving camera", ECCV 2018. A file is
a pickle of Python 2 about one video of 30 frames per second with one or two people: `jointPositions`, the 24 joints of
SMPL in the world, metres; `cam_poses`, 4 x 4, world to camera, of every frame; `cam_intrinsics`, 3 x 3;
`campose_valid`, the frames in which camera and joints belong together; and `poses2d`, x, y and score of OpenPose's 18
keypoints, 0 where unseen. It is read through the allow list of `lifting.files`; the images are not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from lifting.cameras import Camera
from lifting.datasets.world_clips import WorldClips, WorldView
from lifting.files import restricted_load
from lifting.keypoints import as_float_array
from lifting.skeletons import get_skeleton

FOLDER = "sequenceFiles"
SPLITS = ("train", "validation", "test")
FPS = 30.0
KEYPOINTS = ("openpose", "gt")
VIEW = "camera"
HOW_TO_GET = "unpack sequenceFiles.zip from virtualhumans.mpi-inf.mpg.de/3DPW"


def open_3dpw(folder: str | PathLike[str], keypoints: str = "openpose") -> WorldClips:
    """Open the sequences in `folder/sequenceFiles`, or in `folder` where that is its name.

    A subject is the split and the number of the person in the sequence (`test/0`: numbers do not tell people apart
    between sequences), an action the sequence, and the moving camera the only view. Frames in which the camera's pose
    is not valid have no label (NaN).

    Args:
        folder: the folder.
        keypoints: `openpose`: the detections in the files, `openpose18`. `gt`: projections of the joints, `smpl24`.

    Raises FileNotFoundError when there is no sequence, ValueError for unknown keypoints or other content.
    """
    if keypoints not in KEYPOINTS:
        raise ValueError(f"3DPW has no 2D keypoints {keypoints!r}; choose {' or '.join(KEYPOINTS)}.")
    paths = sequence_files(folder)
    if not paths:
        raise FileNotFoundError(f"{Path(folder).absolute()} has no files {FOLDER}/{{{','.join(SPLITS)}}}/*.pkl; "
                                f"{HOW_TO_GET}.")
    views = [view for path in paths for view in _read_views(path, keypoints == "openpose")]
    layout = get_skeleton("openpose18" if keypoints == "openpose" else "smpl24")
    return WorldClips(f"3dpw {keypoints}", views, layout, get_skeleton("smpl24"))


def sequence_files(folder: str | PathLike[str]) -> list[Path]:
    """The files of the sequences, split by split."""
    folder = Path(folder)
    folder = folder if folder.name == FOLDER else folder / FOLDER
    return [path for split in SPLITS for path in sorted(folder.glob(f"{split}/*.pkl"))]


def _read_views(path: Path, detected: bool) -> list[WorldView]:
    """One view per person of the sequence."""
    with path.open("rb") as file:
        try:
            return list(_views_of(restricted_load(file), path, detected))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
            raise ValueError(f"{path} cannot be read as a sequence of 3DPW: {reason}; {HOW_TO_GET}.") from error


def _views_of(content: Mapping[str, Any], path: Path, detected: bool) -> Iterator[WorldView]:
    camera = _read_camera(content)
    frames = len(camera.rotation)
    for person, positions in enumerate(content["jointPositions"]):
        joints = as_float_array(positions, "jointPositions", (frames, 72)).reshape(frames, 24, 3)
        valid = np.ravel(content["campose_valid"][person]) > 0
        if len(valid) != frames:
            raise ValueError(f"campose_valid has {len(valid)} frames, cam_poses {frames}")
        points = _read_keypoints(content["poses2d"][person], frames) if detected else None
        yield WorldView(f"{path.parent.name}/{person}", path.stem, VIEW, FPS, camera.image_size, camera,
                        np.where(valid[:, None, None], joints, np.float32(np.nan)), points)


def _read_camera(content: Mapping[str, Any]) -> Camera:
    """The moving camera. The files state no image size; the centre of projection is the middle of the image."""
    lens = as_float_array(content["cam_intrinsics"], "cam_intrinsics", (3, 3), np.float64)
    poses = as_float_array(content["cam_poses"], "cam_poses", (None, 4, 4), np.float64)
    width, height = np.rint(2 * lens[:2, 2])
    return Camera(np.diag(lens)[:2], lens[:2, 2], (width, height), rotation=poses[:, :3, :3],
                  translation=poses[:, :3, 3])


def _read_keypoints(values: Any, frames: int) -> np.ndarray:
    """(T, 18, 3) pixels and scores of the file's (T, 3, 18)."""
    return as_float_array(values, "poses2d", (frames, 3, 18)).transpose(0, 2, 1)
