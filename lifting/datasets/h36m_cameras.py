"""The cameras of Human3.6M, from the `metadata.xml` that comes with the data set.

Its element `w0` holds 300 numbers: six per subject and camera (three Euler angles, then the camera's centre in mm; the
block of subject s and camera c, both counted from 1, begins at 6 (11 (c - 1) + (s - 1))), then nine per camera: focal
lengths and centre in pixels, k1 k2 k3, p1 p2. With R = Rx(a) Ry(b) Rz(c), x_cam = R (x_world - centre).

Trap: the lens is nearly, but not quite OpenCV's. With d = (p2, p1), Human3.6M bends x to
x (1 + k1 r^2 + k2 r^4 + k3 r^6 + d.x) + d r^2, where OpenCV has 2 d.x. It is OpenCV's model with half of p1 and p2 and
the thin prism s1 = p2 / 2, s3 = p1 / 2, which `Camera` does not have. `H36MCamera.project` is exact.
`H36MCamera.as_opencv` gives the `Camera` whose p1, p2 and centre come nearest to it over the image: with the data set's
own numbers they differ by 0.06-0.12 px (root mean square over the image), 0.42 px at most, in a corner; taking p1 and
p2 over unchanged, by 0.23-0.43 px and 1.5 px.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lifting.cameras import Camera, distort
from lifting.rotations import rotvec_to_matrix

CAMERA_IDS = ("54138969", "55011271", "58860488", "60457274")
IMAGE_SIZES = dict(zip(CAMERA_IDS, ((1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002)), strict=True))
NUM_SUBJECTS = 11
METADATA = "metadata.xml"
HOW_TO_GET = "it comes with the Human3.6M archive (vision.imar.ro/human3.6m, registration needed)"
_EXTRINSICS = 6 * NUM_SUBJECTS * len(CAMERA_IDS)
_GRID = 25  # points along each side of the image that the OpenCV coefficients are fitted on


@dataclass(frozen=True, eq=False)
class H36MCamera:
    """One camera as Human3.6M describes it.

    focal (2,), center (2,) px; radial (3,): k1 k2 k3; tangential (2,): p1 p2; image_size (width, height) px;
    rotation (3, 3) world to camera; translation (3,) metres: x_cam = rotation x_world + translation.
    """

    focal: np.ndarray
    center: np.ndarray
    radial: np.ndarray
    tangential: np.ndarray
    image_size: tuple[int, int]
    rotation: np.ndarray
    translation: np.ndarray

    def project(self, points_cam: np.ndarray) -> np.ndarray:
        """Project points (..., 3) metres, camera frame, to pixels (..., 2), NaN where they are not in front of it."""
        points = np.asarray(points_cam, dtype=np.float64)
        depth = points[..., 2:]
        normalised = np.where(depth > 0, points[..., :2] / np.where(depth > 0, depth, 1.0), np.nan)
        return self.bend(normalised) * self.focal + self.center

    def bend(self, normalised: np.ndarray) -> np.ndarray:
        """The lens: normalised image points (..., 2) to normalised image points (..., 2)."""
        square = (normalised**2).sum(axis=-1, keepdims=True)
        k1, k2, k3 = self.radial
        sideways = self.tangential[::-1]  # (p2, p1)
        factor = 1 + square * (k1 + square * (k2 + square * k3)) + normalised @ sideways[:, None]
        return normalised * factor + sideways * square

    def as_opencv(self) -> Camera:
        """The `Camera` with the same focal lengths, radial terms and pose that projects most alike over the image."""
        p1, p2, *shift = self._fit_opencv()
        return Camera(self.focal, self.center + shift * self.focal, self.image_size, self._opencv_terms(p1, p2),
                      self.rotation, self.translation)

    def _opencv_terms(self, p1: float, p2: float) -> np.ndarray:
        k1, k2, k3 = self.radial
        return np.array([k1, k2, p1, p2, k3])

    def _fit_opencv(self) -> np.ndarray:
        """OpenCV's p1, p2 and a shift of normalised points, (4,), by least squares: the lens is linear in them."""
        reach = np.maximum(self.center, np.array(self.image_size) - self.center) / self.focal
        grid = np.stack(np.meshgrid(*(np.linspace(-r, r, _GRID) for r in reach)), axis=-1).reshape(-1, 2)
        radial = distort(grid, self._opencv_terms(0, 0))
        columns = [distort(grid, np.array([0, 0, *p, 0.0])) - grid for p in ((1, 0), (0, 1))]
        columns += [np.zeros_like(grid) + shift for shift in ((1, 0), (0, 1))]
        matrix = np.stack([column.reshape(-1) for column in columns], axis=1)
        return np.linalg.lstsq(matrix, (self.bend(grid) - radial).reshape(-1), rcond=None)[0]


class H36MCameras:
    """What a `metadata.xml` says of the cameras.

    Attributes:
        ids: of the four cameras, in the order in which data sets list them.

    Raises FileNotFoundError when there is no file at `path`, and ValueError when it holds other numbers than expected.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no {self.path.name} in {self.path.parent.absolute()}, which has the "
                                    f"cameras of Human3.6M; {HOW_TO_GET}: copy it there.")
        self._numbers, self.ids = _read_metadata(self.path)

    def camera(self, subject: str, camera_id: str) -> H36MCamera:
        """The camera of that id (`54138969`) as it stood for a subject (`S1`); ValueError where there is none."""
        number = re.fullmatch(r"[sS]?(\d+)", subject)
        if not number or not 1 <= int(number[1]) <= NUM_SUBJECTS or camera_id not in self.ids:
            raise ValueError(f"Human3.6M has no camera {camera_id!r} of a subject {subject!r}; it has the cameras "
                             f"{', '.join(self.ids)} of S1 to S{NUM_SUBJECTS}.")
        row = self.ids.index(camera_id)
        pose = self._numbers[: _EXTRINSICS].reshape(-1, NUM_SUBJECTS, 6)[row, int(number[1]) - 1]
        lens = self._numbers[_EXTRINSICS :].reshape(-1, 9)[row]
        rotation = euler_to_matrix(pose[:3])
        return H36MCamera(lens[:2], lens[2:4], lens[4:7], lens[7:9], IMAGE_SIZES.get(camera_id, (1000, 1000)),
                          rotation, -rotation @ pose[3:] / 1000)


def opencv_cameras(metadata: H36MCameras, subjects: Iterable[str]) -> dict[str, dict[str, Camera]]:
    """{subject: {camera id: its OpenCV approximation}} in the usual order of the ids; ValueError as of `camera`."""
    return {subject: {name: metadata.camera(subject, name).as_opencv() for name in CAMERA_IDS}
            for subject in dict.fromkeys(subjects)}


def euler_to_matrix(angles: np.ndarray) -> np.ndarray:
    """Rx(a) Ry(b) Rz(c), (3, 3), of three angles in radians."""
    about_x, about_y, about_z = rotvec_to_matrix(np.diag(np.asarray(angles, dtype=np.float64)))
    return about_x @ about_y @ about_z


def _read_metadata(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The 300 numbers and the cameras' ids in their order."""
    try:
        root = xml.etree.ElementTree.parse(path).getroot()
    except (xml.etree.ElementTree.ParseError, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as XML: {error}; {HOW_TO_GET}: copy it again.") from error
    words = re.split(r"[\s,;\[\]]+", (next(root.iter("w0"), root).text or "").strip("[] \t\r\n"))
    try:
        numbers = np.array(words, dtype=np.float64)
    except ValueError:
        numbers = np.zeros(0)
    expected = _EXTRINSICS + 9 * len(CAMERA_IDS)
    if len(numbers) != expected or not np.isfinite(numbers).all():
        raise ValueError(f"the element w0 of {path} does not hold {expected} numbers, which are the cameras of "
                         f"Human3.6M; {HOW_TO_GET}: copy it again.")
    stated = tuple(" ".join(element.itertext()).strip() for element in root.iterfind(".//dbcameras/index2id/*"))
    return numbers, stated if sorted(stated) == sorted(CAMERA_IDS) else CAMERA_IDS
