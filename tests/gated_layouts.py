"""Tiny files in the published layouts of HumanEva-I, MPI-INF-3DHP and 3DPW; all numbers are made up."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import scipy.io
from published_layouts import pixels, write_data_2d, write_data_3d
from scipy.spatial.transform import Rotation
from smpl_format import _Python2Pickler

from lifting.cameras import Camera


def looking_camera(angle: float, image_size: tuple[int, int] = (2048, 2048), **lens: object) -> Camera:
    """A camera 4 m from the origin, 1 m up, that looks at the point 1 m above the origin; Z is up."""
    forward = -np.array([np.cos(angle), np.sin(angle), 0])
    rotation = np.stack([np.cross(forward, [0, 0, 1.0]), [0, 0, -1.0], forward])
    width, height = image_size
    return Camera(**{"focal": (0.73 * width, 0.74 * width), "center": (width / 2 + 0.7, height / 2 - 3.5), **lens},
                  image_size=image_size, rotation=rotation, translation=-rotation @ (-4 * forward + [0, 0, 1]))


def scattered(frames: int, joints: int, seed: int = 0) -> np.ndarray:
    """(T, J, 3) metres, world: some decimetres from a point that jumps about the one 1 m above the origin."""
    rng = np.random.default_rng([frames, joints, seed])
    return rng.normal((0, 0, 1), 0.2, (frames, joints, 3)) + rng.uniform(-0.5, 0.5, (frames, 1, 3))


# ---- HumanEva-I

HUMANEVA_LENS = {"distortion": (-0.2, 0.1, 1e-3, -2e-3, 0.0)}
HUMANEVA_CAMERAS = {f"C{number + 1}": looking_camera(number + 0.5, (640, 480), **HUMANEVA_LENS) for number in range(3)}


def write_cal(path: Path, camera: Camera, order: str = "C", skew: float = 0.0) -> Path:
    """A `.cal` of HumanEva: one number a line."""
    numbers = [*camera.focal, *camera.center, skew, *camera.distortion, *camera.rotation.ravel(order=order),
               *(1000 * camera.translation)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(f"{number:.17g}" for number in numbers) + "\n")
    return path


def write_humaneva(folder: Path, order: str = "C") -> Path:
    """VideoPose3D's files with one labelled take and one unlabelled, and the calibrations; 0.3 px of noise."""
    joints = scattered(30, 15).astype(np.float32)
    rng = np.random.default_rng(0)
    seen = [camera.project(camera.to_camera(joints)) + rng.normal(0, 0.3, (30, 15, 2))
            for camera in HUMANEVA_CAMERAS.values()]
    write_data_3d(folder / "data_3d_humaneva15.npz", {"Train/S1": {"Walking 1 chunk0": joints}})
    write_data_2d(
        folder / "data_2d_humaneva15_gt.npz",
        {"Train/S1": {"Walking 1 chunk0": [values.astype(np.float32) for values in seen]},
         "Unlabeled/S2": {"Jog 2 chunk1": [pixels(4, 15)] * 3}},
        layout_name="humaneva15", keypoints_symmetry=[[2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13]],
    )  # fmt: skip
    for view, camera in HUMANEVA_CAMERAS.items():
        write_cal(folder / "S1" / "Calibration_Data" / f"{view}.cal", camera, order)
    return folder


# ---- MPI-INF-3DHP

MPI_CAMERAS = [looking_camera(0.4 * number) for number in range(14)]


def write_skeletool(path: Path, cameras: list[Camera], radial: float = 0.0) -> Path:
    """A `camera.calibration`."""
    lines = ["Skeletool Camera Calibration File V1.0"]
    for number, camera in enumerate(cameras):
        lens, pose = np.eye(4), np.eye(4)
        lens[:3, :3], pose[:3, :3], pose[:3, 3] = camera.matrix, camera.rotation, 1000 * camera.translation
        lines += [f"name          {number}", "  sensor      10 10", "  size        {} {}".format(*camera.image_size),
                  "  animated    0", f"  intrinsic   {_words(lens)} ", f"  extrinsic   {_words(pose)} ",
                  f"  radial      {radial:g}"]
    path.write_text("\n".join(lines) + "\n")
    return path


def _words(matrix: np.ndarray) -> str:
    return " ".join(f"{number:.12g}" for number in matrix.ravel())


def mpi_annotations(frames: int, joints: int = 28, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """The cells of an `annot.mat`: per camera (T, 2 J) px, (T, 3 J) mm and another (T, 3 J) mm."""
    world = scattered(frames, joints, seed)
    seen = [camera.to_camera(world) for camera in MPI_CAMERAS]
    flat = {"annot2": [camera.project(points) for camera, points in zip(MPI_CAMERAS, seen, strict=True)],
            "annot3": [1000 * points for points in seen], "univ_annot3": [900 * points for points in seen]}
    return {name: [values.reshape(frames, -1) for values in cell] for name, cell in flat.items()}


def write_annot_mat(folder: Path, annotations: dict[str, list[np.ndarray]], hdf5: bool = False) -> Path:
    """`annot.mat` with 14 x 1 cells, as MATLAB writes it by default or as v7.3."""
    path = folder / "annot.mat"
    folder.mkdir(parents=True, exist_ok=True)
    if hdf5:
        return _write_cells_hdf5(path, annotations)
    cells = {}
    for name, arrays in annotations.items():
        cells[name] = np.empty((len(arrays), 1), object)
        cells[name][:, 0] = arrays
    frames = np.arange(len(annotations["annot2"][0]), dtype=np.int32)[:, None]
    scipy.io.savemat(path, {**cells, "cameras": np.arange(14, dtype=np.int32)[None], "frames": frames},
                     do_compression=True)
    return path


def _write_cells_hdf5(path: Path, annotations: dict[str, list[np.ndarray]]) -> Path:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, arrays in annotations.items():
            items = [file.create_dataset(f"#refs#/{name}{number}", data=array.T) for number, array in enumerate(arrays)]
            cell = file.create_dataset(name, (1, len(arrays)), h5py.ref_dtype)
            cell[0] = [item.ref for item in items]
    return path


def write_mpi_train(folder: Path, take: str, frames: int, seed: int = 0, hdf5: bool = False) -> dict:
    """One training take, such as `S1/Seq1`, with its cameras; returns its annotations."""
    annotations = mpi_annotations(frames, seed=seed)
    write_annot_mat(folder / take, annotations, hdf5)
    write_skeletool(folder / take / "camera.calibration", MPI_CAMERAS)
    return annotations


def write_mpi_test(folder: Path, subject: str, valid: np.ndarray, size: tuple[int, int] = (2048, 2048), **lens) -> dict:
    """`annot_data.mat` of one test take, v7.3: axes the other way round than in MATLAB."""
    frames, camera = len(valid), looking_camera(0.3, size, **lens)
    points = camera.to_camera(scattered(frames, 17, 5))
    arrays = {"annot2": camera.project(points)[:, None], "annot3": 1000 * points[:, None],
              "univ_annot3": 900 * points[:, None], "valid_frame": np.asarray(valid, np.uint8)[:, None],
              "activity_annotation": np.ones((frames, 1))}
    path = folder / subject / "annot_data.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = values
    return arrays | {"camera": camera}


# ---- 3DPW


def threedpw_sequence(frames: int = 6, people: int = 2, size: tuple[int, int] = (1080, 1920), seed: int = 0) -> dict:
    """The content of a file of 3DPW: a camera that moves, and scattered joints."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 0.1, (frames, 3))).as_matrix()
    poses[:, :3, 3] = rng.normal((0, 0, 4), 0.3, (frames, 3))
    lens = np.array([[1961.5, 0, size[0] / 2], [0, 1969.25, size[1] / 2], [0, 0, 1]])
    valid = np.ones((people, frames), int)
    valid[0, 2] = 0
    return {
        "sequence": "made_up_00", "genders": ["m", "f"][:people], "cam_poses": poses, "cam_intrinsics": lens,
        "campose_valid": list(valid), "img_frame_ids": 2 * np.arange(frames),
        "jointPositions": [rng.normal(0, 0.3, (frames, 72)) for _ in range(people)],
        "poses2d": [pixels(frames, 18, 3, seed).transpose(0, 2, 1).astype(float) for seed in range(people)],
        **{key: [rng.normal(size=(frames, 72)) for _ in range(people)] for key in ("poses", "poses_60Hz")},
        **{key: [rng.normal(size=(frames, 3)) for _ in range(people)] for key in ("trans", "trans_60Hz")},
        "betas": [rng.normal(size=10) for _ in range(people)], "texture_maps": [],
    }  # fmt: skip


def write_sequence(folder: Path, name: str, content: object) -> Path:
    """A file of 3DPW, such as `train/courtyard_arguing_00`, as Python 2 pickled it."""
    path = folder / "sequenceFiles" / f"{name}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        _Python2Pickler(file, 2).dump(content)
    return path
