"""Pinhole cameras with OpenCV's lens distortion: projection, viewing rays, focal estimates and calibration files.

Camera axes are OpenCV's: +x right, +y down, +z forward, metres. Pixels have their origin at the top left corner of the
image. ``x_cam = rotation @ x_world + translation``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lifting.keypoints import check_image_size, equal_values
from lifting.rotations import rotvec_to_matrix

_BLOCK_POINTS = 1 << 16  # points undistorted at once: bounds the memory whatever the length of the input
_NEWTON_STEPS = 50
_HALVINGS = 12
_CONVERGED = 1e-12  # residual in normalised coordinates; far below 1e-6 px at any real focal length
_ASPECT_TOLERANCE = 0.01  # 1088 coded rows for 1080 shown ones are the same picture
_FISHEYE = "its lens model is fisheye, expected k1 k2 p1 p2 k3; undistort the video with OpenCV first."
_DIAGONAL_35MM = math.hypot(36.0, 24.0)
_FOCAL_35MM_KEYS = ("focal_35mm", "focal_length_35mm", "focallengthin35mmfilm", "focallengthin35mmformat",
                    "com.apple.quicktime.camera.focal_length.35mm_equivalent")


@dataclass(frozen=True, eq=False)
class Camera:
    """One pinhole camera, still or moving.

    focal (2,) px; center (2,) px; image_size (width, height) px; distortion (5,) OpenCV's k1 k2 p1 p2 k3 (not
    Human3.6M's order or formula); rotation (3, 3) or (T, 3, 3) world to camera; translation (3,) or (T, 3) metres.
    Numbers are kept as float64, since calibrations are. Raises ValueError for wrong shapes, non-finite or
    non-positive numbers and for a rotation that is none.
    """

    focal: np.ndarray
    center: np.ndarray
    image_size: tuple[int, int]
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(5))
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    translation: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self):
        """Convert and check the fields."""
        focal = self.focal
        if np.ndim(focal) == 0 and not isinstance(focal, str):
            focal = (focal, focal)
        _set(self, "image_size", check_image_size(self.image_size))
        _set(self, "focal", _numbers("focal", focal, (2,)))
        if np.any(self.focal <= 0):
            raise ValueError(f"focal is {self.focal.tolist()}, expected positive pixels; check the calibration.")
        _set(self, "center", _numbers("center", self.center, (2,)))
        _set(self, "distortion", _numbers("distortion", self.distortion, (5,)))
        _set(self, "rotation", _check_rotation(_numbers("rotation", self.rotation, (3, 3), frames=True)))
        _set(self, "translation", _numbers("translation", self.translation, (3,), frames=True))
        if self.rotation.ndim == 3 and self.translation.ndim == 2 and len(self.rotation) != len(self.translation):
            raise ValueError(f"The camera has {len(self.rotation)} rotations and {len(self.translation)} translations, "
                             "expected the same number of frames; pass one of each per frame.")

    def __eq__(self, other: object) -> bool:
        """Equal in every field."""
        return equal_values(self, other) if isinstance(other, Camera) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_focal(cls, focal_px: float, image_size) -> Camera:
        """Build the camera with square pixels, the focal length in pixels and the center in the image's middle."""
        width, height = check_image_size(image_size)
        return cls(focal=focal_px, center=(width / 2, height / 2), image_size=(width, height))

    @classmethod
    def from_fov(cls, fov_degrees: float, image_size) -> Camera:
        """Build the camera with square pixels and the given HORIZONTAL field of view in degrees, 0 to 180 exclusive."""
        if not 0 < fov_degrees < 180:
            raise ValueError(f"fov_degrees is {fov_degrees}, expected more than 0 and less than 180; try 60.")
        width, _ = check_image_size(image_size)
        return cls.from_focal(width / 2 / math.tan(math.radians(fov_degrees) / 2), image_size)

    @classmethod
    def from_dict(cls, values: Mapping) -> Camera:
        """Build a camera from what `to_dict` gives; only focal (one or two numbers) and image_size are required.

        Raises ValueError for a missing, unknown or wrong entry.
        """
        names = ("focal", "center", "image_size", "distortion", "rotation", "translation")
        if not isinstance(values, Mapping) or "focal" not in values or "image_size" not in values:
            raise ValueError("The camera lacks focal or image_size, expected both; add them in pixels.")
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ValueError(f"The camera has the entry {unknown[0]!r}, expected only {', '.join(names)}; remove it.")
        width, height = check_image_size(values["image_size"])
        return cls(**{"center": (width / 2, height / 2), **values})

    def to_dict(self) -> dict:
        """Return the camera as lists and numbers that JSON can hold."""
        names = ("focal", "center", "distortion", "rotation", "translation")
        return {"image_size": list(self.image_size), **{name: getattr(self, name).tolist() for name in names}}

    @property
    def matrix(self) -> np.ndarray:
        """The intrinsic matrix (3, 3) in pixels."""
        return np.array([[self.focal[0], 0, self.center[0]], [0, self.focal[1], self.center[1]], [0, 0, 1]])

    @property
    def fov(self) -> float:
        """The horizontal field of view in degrees, without distortion."""
        left, right = self.center[0], self.image_size[0] - self.center[0]
        return math.degrees(math.atan2(left, self.focal[0]) + math.atan2(right, self.focal[0]))

    def project(self, points_cam) -> np.ndarray:
        """Project points (..., 3) metres, camera frame, to pixels (..., 2), with distortion.

        NaN where a point is NaN or not in front of the camera (z <= 0). There is no clamp at wide angles. Raises
        ValueError when the last axis is not 3.
        """
        points = _points("points_cam", points_cam, 3)
        depth = points[..., 2:]
        in_front = depth > 0
        normalised = np.where(in_front, points[..., :2] / np.where(in_front, depth, 1.0), np.nan)
        return distort(normalised, self.distortion) * self.focal + self.center

    def rays(self, xy_px) -> np.ndarray:
        """Return the viewing rays (..., 2) of pixels (..., 2): x/z and y/z in the camera frame, without distortion.

        NaN where a pixel is NaN, and where no ray on the lens model's one-to-one part leads to the pixel (strong barrel
        distortion has a largest radius). Raises ValueError when the last axis is not 2.
        """
        return undistort((_points("xy_px", xy_px, 2) - self.center) / self.focal, self.distortion)

    def to_camera(self, points_world) -> np.ndarray:
        """Move points (..., 3) metres from the world to the camera frame; a moving camera takes (T, ..., 3).

        Raises ValueError when the last axis is not 3 or the number of frames is not the camera's.
        """
        points = _points("points_world", points_world, 3)
        rotation, translation = self._pose_for(points)
        return (rotation @ points[..., None])[..., 0] + translation

    def to_world(self, points_cam) -> np.ndarray:
        """Move points (..., 3) metres from the camera to the world frame; a moving camera takes (T, ..., 3).

        Raises ValueError when the last axis is not 3 or the number of frames is not the camera's.
        """
        points = _points("points_cam", points_cam, 3)
        rotation, translation = self._pose_for(points)
        return (np.swapaxes(rotation, -1, -2) @ (points - translation)[..., None])[..., 0]

    def _pose_for(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rotation and translation shaped so that they broadcast against points (T, ..., 3)."""
        rotation, translation = self.rotation, self.translation
        frames = len(rotation) if rotation.ndim == 3 else len(translation) if translation.ndim == 2 else None
        if frames is not None and (points.ndim < 2 or len(points) != frames):
            raise ValueError(f"The points have shape {points.shape} and the camera {frames} frames, expected "
                             f"({frames}, ..., 3); pass the camera's frames.")
        between = (1,) * (points.ndim - 2)
        if rotation.ndim == 3:
            rotation = rotation.reshape(frames, *between, 3, 3)
        if translation.ndim == 2:
            translation = translation.reshape(frames, *between, 3)
        return rotation, translation

    def scaled(self, factor: float) -> Camera:
        """Return the camera of the same picture, resized by `factor` > 0; the image size is rounded to whole pixels."""
        if not (np.isfinite(factor) and factor > 0):
            raise ValueError(f"factor is {factor}, expected a positive number; 0.5 halves the picture.")
        size = tuple(max(1, round(side * factor)) for side in self.image_size)
        return replace(self, focal=self.focal * factor, center=self.center * factor, image_size=size)

    def resized(self, image_size) -> Camera:
        """Return the camera of the same picture resized to `image_size` (width, height).

        Raises ValueError when the aspect ratio differs by more than 1 %: that is another picture (cropped or turned).
        """
        width, height = check_image_size(image_size)
        ratio = np.array([width / self.image_size[0], height / self.image_size[1]])
        if abs(ratio[0] / ratio[1] - 1) > _ASPECT_TOLERANCE:
            raise ValueError(f"The camera was calibrated at {self.image_size[0]}x{self.image_size[1]} and the picture "
                             f"is {width}x{height}, expected the same aspect ratio; calibrate at this format.")
        return replace(self, focal=self.focal * ratio, center=self.center * ratio, image_size=(width, height))


def _set(instance, name: str, value) -> None:
    object.__setattr__(instance, name, value)


def _numbers(name: str, values, shape: tuple[int, ...], frames: bool = False) -> np.ndarray:
    """Return `values` as a finite float64 copy of `shape`, or (T, *shape) where `frames` allows it."""
    expected = f"{shape}" + (f" or (T, {', '.join(map(str, shape))})" if frames else "")
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {values!r:.80}, expected numbers of shape {expected}; correct it.") from None
    if array.shape != shape and not (frames and array.ndim == len(shape) + 1 and array.shape[1:] == shape):
        raise ValueError(f"{name} has shape {array.shape}, expected {expected}; correct it.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity, expected finite numbers; correct it.")
    return array


def _check_rotation(rotation: np.ndarray) -> np.ndarray:
    error = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max(initial=0.0)
    if error > 1e-3 or np.any(np.linalg.det(rotation) < 0):
        raise ValueError("rotation is not a rotation matrix, expected orthonormal rows, determinant 1; check it.")
    return rotation


def _points(name: str, values, size: int) -> np.ndarray:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim < 1 or points.shape[-1] != size:
        raise ValueError(f"{name} has shape {points.shape}, expected (..., {size}); check the last axis.")
    return points


def distort(normalised: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Bend normalised image points (..., 2) by OpenCV's k1 k2 p1 p2 k3 (5,); returns (..., 2), NaN passes through."""
    distortion = np.asarray(distortion, dtype=np.float64)
    if not distortion.any():
        return normalised
    k1, k2, p1, p2, k3 = distortion
    x, y = normalised[..., 0], normalised[..., 1]
    square = x * x + y * y
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
    bent_y = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
    return np.stack([bent_x, bent_y], axis=-1)


def _distort_jacobian(points: np.ndarray, distortion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return d(bent x)/dx, d(bent x)/dy = d(bent y)/dx and d(bent y)/dy, each (N,), for points (N, 2)."""
    k1, k2, p1, p2, k3 = distortion
    x, y = points[:, 0], points[:, 1]
    square = x * x + y * y
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    slope = 2 * (k1 + square * (2 * k2 + square * 3 * k3))  # twice the radial factor's derivative by the squared radius
    xx = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x
    xy = slope * x * y + 2 * p1 * x + 2 * p2 * y
    yy = radial + slope * y * y + 6 * p1 * y + 2 * p2 * x
    return xx, xy, yy


def undistort(bent: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Invert `distort`: normalised points (..., 2) to (..., 2); NaN where there is no answer on the one-to-one part."""
    distortion = np.asarray(distortion, dtype=np.float64)
    if not distortion.any():
        return bent
    flat = bent.reshape(-1, 2)
    result = np.full(flat.shape, np.nan)
    for start in range(0, len(flat), _BLOCK_POINTS):
        block = slice(start, start + _BLOCK_POINTS)
        seen = np.isfinite(flat[block]).all(-1)
        result[block][seen] = _undistort_block(flat[block][seen], distortion)
    return result.reshape(bent.shape)


def _undistort_block(bent: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Undistort finite points (N, 2) by Newton's method from the center outwards; NaN where it finds no answer."""
    points, error = np.zeros_like(bent), np.hypot(bent[:, 0], bent[:, 1])
    tolerance = _CONVERGED * (1 + error)
    limit = square_radius_limit(distortion)
    active = np.arange(len(bent))
    with np.errstate(over="ignore", invalid="ignore"):  # absurdly far pixels overflow and end as NaN
        for _ in range(_NEWTON_STEPS):
            active = active[error[active] > tolerance[active]]
            if not len(active):
                break
            moved = _newton_step(points[active], bent[active], error[active], distortion, limit)
            stuck = moved[1] >= error[active]
            points[active], error[active] = moved
            active = active[~stuck]
    return np.where((error <= 100 * tolerance)[:, None], points, np.nan)


def _newton_step(points, bent, error, distortion, limit) -> tuple[np.ndarray, np.ndarray]:
    """Move points (N, 2) by one Newton step, halved until it lowers the error (N,) and stays on the one-to-one part."""
    xx, xy, yy = _distort_jacobian(points, distortion)
    rest = bent - distort(points, distortion)
    step = np.stack([yy * rest[:, 0] - xy * rest[:, 1], xx * rest[:, 1] - xy * rest[:, 0]], axis=-1)
    step /= (xx * yy - xy * xy)[:, None]
    points, error = points.copy(), error.copy()
    waiting = np.arange(len(points))
    for _ in range(_HALVINGS):
        candidate = points[waiting] + step[waiting]
        new_error = np.linalg.norm(distort(candidate, distortion) - bent[waiting], axis=-1)
        xx, xy, yy = _distort_jacobian(candidate, distortion)
        inside = (np.sum(candidate**2, axis=-1) < limit) & (xx * yy - xy * xy > 0)
        good = inside & (new_error < error[waiting])
        points[waiting[good]], error[waiting[good]] = candidate[good], new_error[good]
        waiting = waiting[~good]
        if not len(waiting):
            break
        step[waiting] /= 2
    return points, error


def square_radius_limit(distortion: np.ndarray) -> float:
    """Return the squared radius at which the radial part of a distortion (5,) folds back, infinity if never."""
    k1, k2, _, _, k3 = distortion
    inverse = np.roots([1.0, 3 * k1, 5 * k2, 7 * k3])  # in 1 / square: the leading coefficient never vanishes
    folds = inverse.real[(np.abs(inverse.imag) < 1e-9) & (inverse.real > 1e-9)]
    return float(1 / folds.max()) if len(folds) else np.inf


def estimate_focal(image_size, metadata: Mapping | None = None) -> tuple[float, str]:
    """Return the focal length in pixels and one sentence that says where it comes from.

    `metadata` may hold ``focal_px``, a 35 mm equivalent in millimetres (``focal_35mm``, EXIF's
    ``FocalLengthIn35mmFilm`` or QuickTime's key; over the picture's diagonal), or ``focal_mm`` with
    ``sensor_width_mm``. Without a usable entry the focal length is the image's diagonal in pixels, and the sentence
    says that this is assumed. Raises ValueError for a wrong image_size.
    """
    width, height = check_image_size(image_size)
    diagonal = math.hypot(width, height)
    known = {str(key).lower(): number for key, value in (metadata or {}).items() if (number := _positive(value))}
    if "focal_px" in known:
        return known["focal_px"], f"Focal length {known['focal_px']:.0f} px from the metadata."
    equivalent = next((known[key] for key in _FOCAL_35MM_KEYS if key in known), None)
    if equivalent is not None:
        focal = equivalent * diagonal / _DIAGONAL_35MM
        return focal, f"Focal length {focal:.0f} px from the metadata ({equivalent:g} mm in 35 mm equivalent)."
    if "focal_mm" in known and "sensor_width_mm" in known:
        focal = known["focal_mm"] * max(width, height) / known["sensor_width_mm"]
        return focal, f"Focal length {focal:.0f} px from the metadata ({known['focal_mm']:g} mm, sensor " \
                      f"{known['sensor_width_mm']:g} mm wide)."
    return diagonal, (
        f"Focal length {diagonal:.0f} px assumed (the image's diagonal; lenses have 0.6 to 1.6 of it, and distances "
        "from the camera change in proportion); pass the real one if you know it."
    )


def _positive(value) -> float | None:
    """Return a metadata value as a positive finite number, None when it is not one."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def read_camera(path, image_size=None, name: str | None = None) -> Camera:
    """Read a calibration: our JSON, OpenCV's YAML or JSON storage, or a Pose2Sim/Anipose TOML.

    `image_size` (width, height) is the size of the picture it is used for: the camera is scaled to it, or takes it
    where the file states none. `name` picks the camera of a TOML file by its table's or own name (default: the first
    one). Raises FileNotFoundError for a missing file and ValueError for one that cannot be used: unknown suffix,
    broken syntax, missing or wrong numbers, fisheye or rational lens models, or another aspect ratio than the
    picture's.
    """
    path = Path(path)
    readers = {".json": _parse_json, ".yaml": _parse_yaml, ".yml": _parse_yaml, ".toml": _parse_toml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} has the suffix {path.suffix!r}, expected {', '.join(readers)}; convert it.")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file, expected a camera calibration; check the path.")
    try:
        values = reader(path.read_text(encoding="utf-8-sig"), name)
        if values.get("image_size") is None:
            values["image_size"] = image_size
        if values["image_size"] is None:
            raise ValueError("it states no image size, expected one; pass image_size=(width, height) of its pictures.")
        camera = Camera.from_dict(values)
        return camera if image_size is None else camera.resized(image_size)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text, expected a camera calibration; check the file.") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be used as a camera: {error}") from error


def _parse_json(text: str, name: str | None) -> dict:
    """Parse our JSON or OpenCV's JSON storage."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it holds no JSON object, expected one with focal and image_size; check the file.")
    return dict(values) if "focal" in values else _from_opencv(values)


def _parse_yaml(text: str, name: str | None) -> dict:
    """Parse the numbers of OpenCV's YAML storage, ROS's camera_info and plain nested lists, without a YAML library."""
    number = r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])"
    values: dict = {}
    for key, block in re.findall(r"^[\"']?(\w+)[\"']?[ \t]*:(.*(?:\n(?:[ \t-]|$).*)*)", text, flags=re.MULTILINE):
        data = re.search(r"\bdata[ \t]*:\s*(\[[^\]]*\]|[^\[]*)", block)
        values[key] = [float(item) for item in re.findall(number, data[1] if data else block)] or block.strip()
    return _from_opencv(values)


def _from_opencv(values: Mapping) -> dict:
    """Turn OpenCV's names (and their usual variants) into a Camera's entries."""
    matrix = _first(values, "camera_matrix", "camera_Matrix", "Camera_Matrix", "cameraMatrix", "mtx", "K")
    if matrix is None:
        raise ValueError("it holds neither focal nor camera_matrix, expected one of them; add it in pixels.")
    bent = _first(values, "distortion_coefficients", "Distortion_Coefficients", "dist_coeffs", "dist_coeff",
                  "distCoeffs", "distortion", "dist", "D")
    if re.search("fisheye|equidistant", str(values.get("distortion_model"))):
        raise ValueError(_FISHEYE)
    width = _first(values, "image_width", "image_Width", "width")
    height = _first(values, "image_height", "image_Height", "height")
    size = _first(values, "image_size", "imageSize", "image_Size")
    if width is not None and height is not None:
        size = [*_flat("image_width", width), *_flat("image_height", height)]
    return {**_intrinsics(matrix, () if bent is None else bent), "image_size": size}


def _first(values: Mapping, *names: str):
    return next((values[name] for name in names if name in values), None)


def _flat(name: str, values) -> np.ndarray:
    """Return the numbers of an OpenCV matrix, of nested lists or of one number as one row."""
    if isinstance(values, Mapping):
        values = values.get("data")
    try:
        return np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {values!r:.60}, expected numbers; correct it.") from None


def _intrinsics(matrix, distortion) -> dict:
    """Turn an intrinsic matrix and four or more OpenCV coefficients into focal, center and distortion."""
    matrix, distortion = _flat("camera_matrix", matrix), _flat("distortion", distortion)
    if matrix.size != 9:
        raise ValueError(f"its camera_matrix has {matrix.size} numbers, expected 9 (3x3); correct it.")
    if abs(matrix[1]) > 1e-3 * abs(matrix[0]):
        raise ValueError(f"its pixels are skewed by {matrix[1]:g}, expected 0; calibrate without skew.")
    if distortion.size not in (0, 4, 5, 8, 12, 14):
        raise ValueError(f"its distortion has {distortion.size} numbers, expected 4 or 5 (k1 k2 p1 p2 k3); correct it.")
    if np.any(distortion[5:] != 0):
        raise ValueError("its lens model goes beyond k1 k2 p1 p2 k3, expected only these; calibrate with these 5.")
    padded = np.concatenate([distortion[:5], np.zeros(5 - min(5, distortion.size))])
    return {"focal": matrix[[0, 4]], "center": matrix[[2, 5]], "distortion": padded}


def _parse_toml(text: str, name: str | None) -> dict:
    """Parse a Pose2Sim or Anipose calibration: a table per camera: matrix, distortions, size, rotation, translation."""
    tables = {key: table for key, table in _load_toml(text).items() if isinstance(table, dict) and "matrix" in table}
    if not tables:
        raise ValueError("it holds no table with a matrix, expected one a camera; pass a Pose2Sim Calib.toml.")
    chosen = next(iter(tables)) if name is None else next(
        (key for key, table in tables.items() if name in (key, table.get("name"))), None)
    if chosen is None:
        raise ValueError(f"it has no camera {name!r}, expected one of {', '.join(tables)}; name one of these.")
    table = tables[chosen]
    if table.get("fisheye"):
        raise ValueError(_FISHEYE)
    pose = {"translation": table["translation"]} if "translation" in table else {}
    if "rotation" in table:
        rotation = np.asarray(table["rotation"], dtype=np.float64)
        pose["rotation"] = rotation if rotation.shape == (3, 3) else rotvec_to_matrix(rotation.reshape(-1))
    return {**_intrinsics(table["matrix"], table.get("distortions", ())), "image_size": table.get("size"), **pose}


def _load_toml(text: str) -> dict:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib
        except ImportError:
            raise ValueError("TOML on Python 3.10 needs the package tomli; install it, or pass JSON.") from None
    return tomllib.loads(text)
