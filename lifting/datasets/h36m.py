"""Human3.6M as its archives unpack: `S1/MyPoseFeatures/D3_Positions/Walking 1.cdf` and so on, and `metadata.xml`.

Each file holds `Pose`, (1, T, 96): 32 joints in the world, millimetres, Z up, 50 frames per second. Four cameras see
each take; its 2D keypoints are the projections of its joints through the data set's own lens (`gt`), or those of a
`data_2d_h36m_<keypoints>.npz` of VideoPose3D in the same folder. Two actions have names in the archive that the field
does not use, and one take is broken; both are treated as everybody does.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np

from lifting.datasets.h36m_cameras import METADATA, H36MCameras, opencv_cameras
from lifting.datasets.videopose3d import is_corrupted, match_views, read_detected
from lifting.datasets.world_clips import WorldClips, WorldView
from lifting.skeletons import get_skeleton, joint_map

PATTERN = "S*/MyPoseFeatures/D3_Positions/*.cdf"
FPS = 50.0
RENAMED = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}
HOW_TO_GET = "unpack Poses_D3_Positions_S1.tgz and the others there; vision.imar.ro/human3.6m, registration needed"

Takes = dict[tuple[str, str], np.ndarray]


def open_h36m(folder: str | PathLike[str], keypoints: str = "gt") -> WorldClips:
    """Open the unpacked archives in a folder; 2D keypoints are projections (`gt`) or those of a VideoPose3D file.

    Raises:
        ImportError: the package cdflib is missing.
        FileNotFoundError: there are no `.cdf` files, no `metadata.xml` or no such keypoints.
        ValueError: a file holds something else.
    """
    folder = Path(folder)
    takes = read_takes(folder)
    metadata = H36MCameras(folder / METADATA)
    skeleton = get_skeleton("h36m17")
    if keypoints == "gt":
        return WorldClips("h36m gt", list(_projected(takes, metadata)), skeleton, skeleton)
    detected = read_detected(folder / f"data_2d_h36m_{keypoints}.npz")
    views = match_views("h36m", detected, takes, opencv_cameras(metadata, (subject for subject, _ in detected.takes)))
    return WorldClips(f"h36m {keypoints}", list(views), detected.skeleton, skeleton)


def _projected(takes: Takes, metadata: H36MCameras) -> Iterator[WorldView]:
    """All views, with keypoints projected through the data set's own lens."""
    opencv = opencv_cameras(metadata, (subject for subject, _ in takes))
    for (subject, action), joints in takes.items():
        for name, camera in opencv[subject].items():
            exact = metadata.camera(subject, name).project
            yield WorldView(subject, action, name, FPS, camera.image_size, camera, joints, project=exact)


def read_takes(folder: str | PathLike[str]) -> Takes:
    """Read the motion of all takes: {(subject, action): (T, 17, 3) float32 metres, world, `h36m17`}.

    Raises as `open_h36m`.
    """
    paths = sorted(Path(folder).glob(PATTERN))
    if not paths:
        raise FileNotFoundError(f"{Path(folder).absolute()} has no files {PATTERN}; {HOW_TO_GET}.")
    takes = {(path.parts[-4], _action_of(path)): path for path in paths}
    return {take: read_cdf(path) for take, path in takes.items() if not is_corrupted("h36m", *take)}


def _action_of(path: Path) -> str:
    """The field's name of the take in a file: `WalkingDog 1.cdf` is `WalkDog 1`."""
    name, space, number = path.stem.partition(" ")
    return RENAMED.get(name, name) + space + number


def read_cdf(path: str | PathLike[str]) -> np.ndarray:
    """Read one `.cdf`: (T, 17, 3) float32 metres, world, `h36m17`.

    Raises ImportError without cdflib, and ValueError for a file that is damaged or of another content.
    """
    try:
        import cdflib
    except ImportError:
        raise ImportError("the .cdf files of Human3.6M need the package cdflib; install it with `pip install cdflib`, "
                          "or use the .npz files of VideoPose3D.") from None
    try:
        pose = np.asarray(cdflib.CDF(path).varget("Pose"), dtype=np.float64)
    except Exception as error:  # cdflib raises nearly any type for damaged bytes
        raise ValueError(f"{path} cannot be read as a CDF file with a Pose: {error}; unpack it again.") from error
    if pose.size == 0 or pose.shape[-1] != 96 or not np.isfinite(pose).all():
        raise ValueError(f"{path} has a Pose of shape {pose.shape}, expected finite numbers (1, frames, 96); unpack "
                         "it again.")
    return joint_map("h36m32", "h36m17").apply((pose.reshape(-1, 32, 3) / 1000).astype(np.float32))
