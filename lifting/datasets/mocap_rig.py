"""The motion capture file, filmed by four fixed cameras: a stand-in for Human3.6M without a registration.

The cameras stand at the corners of a square around the origin, 5 m from it and 1.5 m high, look at the point 0.9 m
above it and see 50 degrees across; they are the same for all subjects. Every piece is moved along the floor so that the
middle of its path lies at the origin. Views in which a joint comes nearer than 1 m to the plane of the camera are left
out; joints beyond the border of the image stay, as a projection gives them.
"""

from __future__ import annotations

import zlib
from os import PathLike

import numpy as np

from lifting.anatomy import H36M, STATURE_PER_CHAIN, chain_length
from lifting.cameras import Camera
from lifting.datasets.detector_noise import NoiseModel, runs
from lifting.datasets.mocap import JOINTS, MocapPiece, read_mocap
from lifting.datasets.synthesis import camera_rotation
from lifting.datasets.world_clips import WorldClips, WorldView
from lifting.keypoints import Keypoints2D

IMAGE_SIZE = (1000, 1000)
DISTANCE, HEIGHT, TARGET_HEIGHT = 5.0, 1.5, 0.9  # metres
FIELD_OF_VIEW = 50.0  # degrees
CORNERS = (45, 135, 225, 315)  # degrees around the origin, from +X towards +Y; the names of the views
NEAREST = 1.0  # metres
KEYPOINTS = ("gt", "noisy")
NOISE = NoiseModel()


def is_mocap_file(path: str | PathLike[str]) -> bool:
    """Tell whether a file is HDF5 with the joints of `mocap17.h5`."""
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        names = np.atleast_1d(file.attrs.get("joints", ()))
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names] == [*JOINTS]


def rig_cameras() -> dict[str, Camera]:
    """The four cameras by the names of their views; world frame: Z up, floor at z = 0."""
    return {str(corner): _camera_at(np.radians(corner)) for corner in CORNERS}


def _camera_at(angle: float) -> Camera:
    centre = np.array([DISTANCE * np.cos(angle), DISTANCE * np.sin(angle), HEIGHT])
    pitch = np.arctan2(HEIGHT - TARGET_HEIGHT, DISTANCE)
    rotation = camera_rotation(-np.pi / 2 - angle, pitch, 0.0)  # zero looks along +Y, positive yaw turns clockwise
    lens = Camera.from_fov(FIELD_OF_VIEW, IMAGE_SIZE)
    return Camera(lens.focal, lens.center, IMAGE_SIZE, rotation=rotation, translation=-rotation @ centre)


class MocapRig(WorldClips):
    """The pieces of a `mocap17.h5` as the four cameras see them; the motion is in memory, views are made when read.

    Subjects are CMU's numbers, an action is the first word of a piece's category and the piece's name (`walk 07_01`),
    a view is the angle of its corner. Keypoints are all 17 joints of `h36m17`.

    Args:
        path: the file.
        keypoints: `gt`: exact projections. `noisy`: with the constant offsets, jitter, swapped sides and missing joints
            of `NOISE`, the same at every reading.
        split: `train` or `val`; None for all.

    Raises FileNotFoundError, and ValueError for unknown keypoints or a file that is no such file.
    """

    def __init__(self, path: str | PathLike[str], keypoints: str = "gt", split: str | None = None) -> None:
        if keypoints not in KEYPOINTS:
            raise ValueError(f"motion capture has no 2D keypoints {keypoints!r}; choose {' or '.join(KEYPOINTS)}.")
        pieces = read_mocap(path, split=split)
        views = [view for piece in pieces for view in _views_of(piece)]
        super().__init__(f"mocap {keypoints}", views, H36M, H36M)
        self.keypoints = keypoints
        self.left_out = len(pieces) * len(CORNERS) - len(views)
        self._latest: tuple[int, Keypoints2D] | None = None

    def _read_keypoints(self, index: int, points_cam: np.ndarray, start: int, stop: int) -> Keypoints2D:
        if self.keypoints == "gt":
            return super()._read_keypoints(index, points_cam, start, stop)
        # Noise is drawn for the whole view; the latest one is kept, since a view is mostly read piece by piece.
        latest = self._latest
        if latest is None or latest[0] != index:
            latest = self._latest = (index, _detect(self.views[index]))
        return latest[1].slice(start, stop)


def _views_of(piece: MocapPiece) -> list[WorldView]:
    """The views of a piece in which nobody comes too near, after its path was brought to the origin."""
    path = piece.joints[:, H36M.root]
    middle = (path.min(axis=0) + path.max(axis=0)) / 2
    joints = piece.joints - middle * np.float32([1, 1, 0])
    action = f"{piece.category.split()[0]} {piece.name}"
    return [WorldView(piece.subject, action, corner, piece.fps, IMAGE_SIZE, camera, joints)
            for corner, camera in rig_cameras().items()
            if (joints @ camera.rotation[2]).min() + camera.translation[2] >= NEAREST]


def _detect(view: WorldView) -> Keypoints2D:
    points_cam = view.camera.to_camera(view.joints)
    chain = chain_length(view.joints[0])
    stature = STATURE_PER_CHAIN * chain * view.camera.focal[0] / points_cam[:, H36M.root, 2]
    rng = np.random.default_rng(zlib.crc32(view.info.name.encode()))
    return Keypoints2D(disturb(view.camera.project(points_cam), stature, NOISE, rng), None, H36M, IMAGE_SIZE, view.fps)


def disturb(xy: np.ndarray, stature: np.ndarray, noise: NoiseModel, rng: np.random.Generator) -> np.ndarray:
    """Errors of a 2D detector on all joints of `h36m17`: the noise model's bias, jitter, swapped sides and dropouts.

    xy: (T, 17, 2) px. stature: (T,) px, the person's height in the image. Returns (T, 17, 2) px, NaN where missed.
    """
    error = noise.bias * rng.standard_normal((1, *xy.shape[1:]))
    error = error + rng.uniform(*noise.jitter) * rng.standard_normal(xy.shape)
    disturbed = xy + stature[:, None, None] * error
    swapped = runs((1, len(xy), 1), noise.swap_share, noise.swap_run, rng)[0]
    disturbed = np.where(swapped[..., None], disturbed[:, list(H36M.flip)], disturbed)
    disturbed[rng.random(xy.shape[:2]) < noise.dropout_share] = np.nan
    return disturbed
