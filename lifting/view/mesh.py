"""Draws skinned meshes into pictures: lit, in one depth buffer for all people, blended over what is there.

*Eye axes* are +x right, +y down, +z ahead of whoever looks, metres: camera axes for the video, a view's for the panel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from lifting.cameras import Camera
from lifting.view.rasterizer import faces_front, rasterize

if TYPE_CHECKING:
    from lifting.meshes import SkinnedMesh
    from lifting.motion import Take

ALPHA = 0.8  # of the mesh over the video: its shape is clear and what it covers still shows
_SAMPLES = 2  # per pixel and axis, against jagged edges
_POSED_AT_ONCE = 32  # frames: bounds the memory, and numpy poses many frames cheaper than one
_NEAREST = 0.05  # metres: what is nearer to the camera is not drawn
_LENS_MARGIN = 1.2  # times the picture's largest ray: beyond it a lens model's polynomial means nothing
_STEPS = 256  # of brightness in a person's part of the palette
_LIGHT = np.array([-0.42, -0.62, -0.66])  # towards the light, eye axes: over the viewer's left shoulder
_AMBIENT, _RIM = 0.3, 0.45  # what the light misses still shows; how much darker a surface is that one looks along

# eye(points (V, 3) in the mesh's frame, frame number) -> points in eye axes (V, 3), and (V, 3) pixels across and down
# and inverse depth, NaN for points that cannot be seen
Eye = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


class MeshPainter:
    """Draws the meshes of several people, one colour each; `ids` says whose they are.

    Keeps the last frames' vertices, so that several views of one frame pose the mesh only once.
    """

    def __init__(self, meshes: Sequence[SkinnedMesh] = (), colors: Sequence[Sequence[float]] = ()):
        """Prepare `meshes`, all in one frame, each with its colour (red, green, blue) in 0..255."""
        self.ids = frozenset(mesh.person_id for mesh in meshes)
        self.frame_name = meshes[0].frame if meshes else "camera"
        self._bodies = [_Body(mesh) for mesh in meshes]
        self._palette = np.concatenate([np.zeros(0, "<u8"), *map(_palette, colors)])

    def draw(self, image: np.ndarray, frame: int, eye: Eye, alpha: float = 1.0) -> None:
        """Draw whoever is there in `frame` into `image` (H, W, 3) uint8 as `eye` sees them, with opacity `alpha`."""
        points, paints, faces, count = [], [], [], 0
        for number, body in enumerate(self._bodies):
            seen = body.look(frame, eye)
            if seen is not None:
                points.append(seen[0])
                paints.append(_STEPS * number + np.clip((_STEPS - 1) * seen[1], 1, _STEPS - 2))
                faces.append(seen[2] + count)
                count += len(seen[0])
        if points:
            self._paint(image, np.concatenate(points), np.concatenate(paints), np.concatenate(faces), alpha)

    def _paint(
        self, image: np.ndarray, points: np.ndarray, paints: np.ndarray, faces: np.ndarray, alpha: float
    ) -> None:
        """Rasterise triangles within their bounding box, paints (V,) in the palette, and blend them over the image."""
        box = _box_of(points, image.shape)
        if box is None:
            return
        left, top, right, bottom = box
        size = (right - left) * _SAMPLES, (bottom - top) * _SAMPLES
        placed = (points - (left, top, 0)) * (_SAMPLES, _SAMPLES, 1)
        samples = rasterize(placed, paints, faces, size)
        summed = np.zeros((bottom - top) * (right - left), "<u8")
        np.add.at(summed, _blocks(samples.pixels, size), self._palette[samples.values.astype(np.intp)])
        summed = summed.view("<u2").reshape(bottom - top, right - left, 4)
        share = np.float32(alpha / _SAMPLES**2)
        keep = 1 - summed[..., 3] * (share / np.float32(255))
        for channel in range(3):
            region = image[top:bottom, left:right, channel]
            mixed = region * keep
            mixed += summed[..., channel] * share
            mixed += np.float32(0.5)
            region[...] = mixed


class _Body:
    """One mesh: poses it a few frames at a time and lights it."""

    def __init__(self, mesh: SkinnedMesh):
        self.mesh, self.faces = mesh, _outward(np.asarray(mesh.faces), np.asarray(mesh.rest_vertices))
        corners = self.faces.T.ravel()
        columns = np.tile(np.arange(len(self.faces)), 3)
        shape = len(mesh.rest_vertices), len(self.faces)
        self._around = sparse.csr_matrix((np.ones(len(corners)), (corners, columns)), shape)
        self._posed = 0, np.zeros((0, 0, 3))  # the first frame and the vertices; one tuple, for several views' threads

    def look(self, frame: int, eye: Eye) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Points (V, 3) in the picture, lights (V,) 0..1 and the faces (F', 3) that show; None when nobody is there."""
        vertices = self.pose(frame)
        if vertices is None:
            return None
        seen, points = eye(vertices, frame)
        faces = self.faces[faces_front(points, self.faces)]
        return (points, self._light(seen), faces) if len(faces) else None

    def pose(self, frame: int) -> np.ndarray | None:
        """Vertices (V, 3) in the mesh's frame, or None where the person is absent or the mesh has no such frame."""
        if not 0 <= frame < len(self.mesh):
            return None
        first, posed = self._posed
        if not first <= frame < first + len(posed):
            first, posed = self._posed = frame, self.mesh.vertices(slice(frame, frame + _POSED_AT_ONCE))
        vertices = posed[frame - first]
        return np.asarray(vertices, np.float64) if np.isfinite(vertices).all() else None

    def _light(self, seen: np.ndarray) -> np.ndarray:
        """How bright each vertex (V,) is, about 0..1, from points (V, 3) in eye axes: a lamp, and darker rims."""
        a, b, c = (seen[self.faces[:, corner]] for corner in range(3))
        normals = self._around @ _cross(b - a, c - a)  # weighted by area
        normals /= np.maximum(np.sqrt(np.einsum("vi,vi->v", normals, normals)), 1e-12)[:, None]
        lamp = np.maximum(normals @ (_LIGHT / np.linalg.norm(_LIGHT)), 0)
        distance = np.sqrt(np.einsum("vi,vi->v", seen, seen))
        facing = np.maximum(-np.einsum("vi,vi->v", normals, seen) / np.maximum(distance, 1e-12), 0)
        return (_AMBIENT + (1 - _AMBIENT) * lamp) * (1 - _RIM * (1 - facing) ** 2)


def check_meshes(meshes: Sequence[SkinnedMesh], take: Take) -> None:
    """ValueError unless each mesh is that of a person of the take, over the take's frames, and all share one frame."""
    ids = {person.id for person in take.people}
    for mesh in meshes:
        if mesh.person_id not in ids:
            raise ValueError(f"got a mesh of person {mesh.person_id}, expected one of the take's people {sorted(ids)}")
        if len(mesh) != len(take):
            raise ValueError(f"the mesh of person {mesh.person_id} has {len(mesh)} frames, the take has {len(take)}; "
                             "both must span the same frames")
    if len({mesh.frame for mesh in meshes}) > 1:
        raise ValueError("the meshes are partly in the camera's frame and partly in the world; move them into one")


def camera_eye(camera: Camera, frame_name: str = "camera", scale: Sequence[float] = (1.0, 1.0)) -> Eye:
    """The eye of a camera, for points in the frame ``camera`` or ``world``, on a picture resized by `scale` (x, y).

    Points nearer than 5 cm, behind the camera or far outside a distorting lens' picture are not seen.
    """
    limit = _LENS_MARGIN * _largest_ray(camera)

    def eye(points: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray]:
        seen = _to_camera(points, camera, frame) if frame_name == "world" else points
        depth = seen[:, 2]
        visible = (depth > _NEAREST) & (np.hypot(seen[:, 0], seen[:, 1]) <= limit * depth)
        picture = np.column_stack([camera.project(seen) * scale, 1 / np.where(visible, depth, 1.0)])
        picture[~visible] = np.nan
        return seen, picture

    return eye


def _to_camera(points: np.ndarray, camera: Camera, frame: int) -> np.ndarray:
    rotation = camera.rotation if camera.rotation.ndim == 2 else camera.rotation[frame]
    translation = camera.translation if camera.translation.ndim == 1 else camera.translation[frame]
    return points @ rotation.T + translation


def _largest_ray(camera: Camera) -> float:
    """The largest radius x/z, y/z that the picture shows; infinite for a lens without distortion, which bends none."""
    if not camera.distortion.any():
        return np.inf
    x, y = (np.linspace(0, side, 9) for side in camera.image_size)
    border = [(a, b) for a in x for b in y]
    return float(np.nanmax(np.hypot(*camera.rays(border).T), initial=0.0)) or np.inf


def _outward(faces: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """The faces, turned where needed so that they go counter-clockwise as seen from outside: positive volume."""
    a, b, c = (np.asarray(vertices, np.float64)[faces[:, corner]] for corner in range(3))
    return faces if np.einsum("fi,fi->", a, _cross(b, c)) >= 0 else faces[:, ::-1]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products (N, 3) at a third of np.cross's cost."""
    ax, ay, az = a.T
    bx, by, bz = b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def _palette(color: Sequence[float]) -> np.ndarray:
    """The colour from dark to bright, red, green, blue and 255 packed as 16 bits each: (256,) uint64, little-endian."""
    light = np.linspace(0, 1, _STEPS)[:, None]
    colors = np.asarray(color, np.float64) * light + 40 * light**8  # the brightest parts are a little whiter
    packed = np.full((_STEPS, 4), 255, "<u2")
    packed[:, :3] = np.clip(colors, 0, 255)
    return packed.view("<u8")[:, 0]


def _box_of(points: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """The pixels (left, top, right, bottom) of an image of `shape` that hold all points; None when there are none."""
    low = np.clip(np.floor(np.nanmin(points[:, :2], axis=0)), 0, shape[1::-1]).astype(int)
    high = np.clip(np.ceil(np.nanmax(points[:, :2], axis=0)), 0, shape[1::-1]).astype(int)
    return (*low.tolist(), *high.tolist()) if (low < high).all() else None


def _blocks(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """In which block of _SAMPLES x _SAMPLES rising sample numbers (N,) lie, in a picture of `size` (width, height)."""
    rows = np.arange(size[1])
    counts = np.diff(np.searchsorted(pixels, np.arange(size[1] + 1) * size[0]))  # dividing all would cost more
    above = (rows - rows // _SAMPLES) * (size[0] // _SAMPLES)
    return pixels // _SAMPLES - np.repeat(above, counts)
