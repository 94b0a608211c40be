"""Tiny files in the published layouts of data sets that cannot be shipped; all numbers are made up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

CAMERA_IDS = ("54138969", "55011271", "58860488", "60457274")
H36M_SIDES = [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]]


@dataclass(frozen=True)
class MadeUpCameras:
    """Four cameras that look at the origin, of eleven subjects, who shift them by some centimetres.

    rotations: (4, 3, 3) world to camera; centres: (4, 11, 3) mm, world; lenses: (4, 9): f, c, k1 k2 k3, p1 p2.
    """

    rotations: np.ndarray
    centres: np.ndarray
    lenses: np.ndarray

    def to_camera(self, row: int, subject: int, points_world_mm: np.ndarray) -> np.ndarray:
        """Metres in the frame of the camera number `row` as it stood for the subject (1, 2, ...)."""
        return (points_world_mm - self.centres[row, subject - 1]) @ self.rotations[row].T / 1000

    def project(self, row: int, points_cam: np.ndarray) -> np.ndarray:
        """Pixels of (N, 3) metres by Human3.6M's formula, point by point."""
        (fx, fy, cx, cy, k1, k2, k3, p1, p2), pixels = self.lenses[row], []
        for x, y in points_cam[:, :2] / points_cam[:, 2:]:
            r2 = x * x + y * y
            radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
            tangential = p1 * y + p2 * x
            bent = x * (radial + tangential) + p2 * r2, y * (radial + tangential) + p1 * r2
            pixels.append([fx * bent[0] + cx, fy * bent[1] + cy])
        return np.array(pixels)


def made_up_cameras(seed: int = 0) -> MadeUpCameras:
    rng = np.random.default_rng(seed)
    rotations, centres = [], []
    for angle in np.radians((40, 130, 220, 310)):
        centre = np.array([4800 * np.cos(angle), 4800 * np.sin(angle), 1500])
        forward = -centre / np.linalg.norm(centre)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotations.append(np.stack([right, np.cross(forward, right), forward]))
        centres.append(centre + rng.normal(0, 30, (11, 3)))
    lenses = np.array([1145.0, 1143, 512, 506, -0.2, 0.24, -0.003, -0.0014, -0.001]) * rng.uniform(0.95, 1.05, (4, 9))
    return MadeUpCameras(np.array(rotations), np.array(centres), lenses)


def write_metadata_xml(path: Path, cameras: MadeUpCameras) -> Path:
    """`metadata.xml`: tables of sequences and actions, the cameras' ids, and `w0`, 300 numbers in brackets."""
    angles = [Rotation.from_matrix(rotation).as_euler("XYZ") for rotation in cameras.rotations]
    poses = [[*angles[row], *cameras.centres[row, subject]] for row in range(4) for subject in range(11)]
    numbers = [*np.ravel(poses), *cameras.lenses.ravel()]
    items = "".join(f"<item>{camera}</item>" for camera in CAMERA_IDS)
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<metadata><mapping><tr><td>action</td><td>subaction</td>'
        + "".join(f"<td>S{subject}</td>" for subject in range(1, 12))
        + "</tr></mapping><actionnames><item>_ALL</item><item>Directions</item></actionnames>"
        + f"<dbcameras><index2id>{items}</index2id></dbcameras>"
        + f"<w0>[{' '.join(f'{number:.15g}' for number in numbers)}]</w0></metadata>"
    )
    return path


def raw_motion(frames: int, seed: int = 0) -> np.ndarray:
    """(T, 32, 3) mm, world: joints scattered within half a metre of a point 0.9 m above the origin."""
    return np.random.default_rng([frames, seed]).normal((0, 0, 900), 200, (frames, 32, 3))


def write_data_3d(path: Path, takes: dict[str, dict[str, np.ndarray]]) -> Path:
    """`data_3d_*.npz` of VideoPose3D: a pickled dict of metres."""
    np.savez_compressed(path, positions_3d=takes)
    return path


def write_data_2d(path: Path, takes: dict[str, dict[str, list[np.ndarray]]], **metadata: object) -> Path:
    """`data_2d_*_*.npz` of VideoPose3D: pickled dicts of pixels and metadata."""
    count = len(next(iter(next(iter(takes.values())).values()))[0][0])
    np.savez_compressed(path, positions_2d=takes, metadata={"num_joints": count, **metadata})
    return path


def pixels(frames: int, joints: int = 17, channels: int = 2, seed: int = 0) -> np.ndarray:
    """(T, J, 2 or 3) float32 pixels inside an image of 1000 x 1000, and scores."""
    xy = np.random.default_rng([frames, joints, seed]).uniform(100, 900, (frames, joints, 2))
    score = np.linspace(0.1, 1, frames * joints).reshape(frames, joints, 1)
    return np.concatenate([xy, score], axis=2)[..., :channels].astype(np.float32)


def write_cdf(path: Path, pose: np.ndarray) -> Path:
    """One file of Human3.6M's archives: the variable `Pose`, (1, T, 96) float32 mm. Needs cdflib."""
    from cdflib.cdfwrite import CDF

    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(pose, np.float32).reshape(1, len(pose), 96)
    file = CDF(str(path), cdf_spec={"Majority": "row_major", "Compressed": 0})
    file.write_globalattrs({"Title": {0: "made up"}})
    spec = {"Variable": "Pose", "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": [len(pose), 96],
            "Compress": 0}
    file.write_var(spec, var_data=values)
    file.close()
    return path
