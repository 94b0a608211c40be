"""The 3D half of the overlay: the people on a one-metre ground grid, from the front and from the side.

Inside, everything is in *panel axes*: metres, +x right and +y away as the video's camera sees it, +z up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lifting.motion import Take
from lifting.skeletons import Skeleton
from lifting.view import draw
from lifting.view.mesh import MeshPainter

BACKGROUND = (22, 25, 31)
GRID = (92, 104, 124)
TEXT = (198, 205, 216)
LEFT_COLOR = (64, 186, 255)
RIGHT_COLOR = (255, 138, 61)
PEOPLE_COLORS = ((242, 244, 247), (158, 226, 92), (255, 105, 172), (255, 214, 64), (178, 140, 255), (52, 218, 180))
_FLOOR_SHARE = 0.19  # of the way from the background's colour to the grid's: the floor between the lines
_GROUND_COLORS = np.uint8(np.linspace(BACKGROUND, GRID, 256) + 0.5)
_PITCH = np.deg2rad(14.0)  # looked down upon, so that the ground shows
_TRAIL_SECONDS, _TRAIL_STEPS = 3.0, 16
_LARGEST_REACH = 3.2  # metres from the middle that are kept in view; who is farther away may leave it
_STATIC_SPAN = 1.8  # metres of one person's path up to which the view stands still instead of following
_GROUP_SPAN = 4.4  # the same for several people
_BONE_RADIUS = {  # metres at the near end and the far end of the bone, by the joint it leads to
    "hip": (0.05, 0.055), "knee": (0.06, 0.045), "ankle": (0.045, 0.03), "spine": (0.065, 0.07),
    "thorax": (0.07, 0.05), "neck_nose": (0.04, 0.045), "head": (0.075, 0.085), "shoulder": (0.05, 0.045),
    "elbow": (0.042, 0.034), "wrist": (0.034, 0.024),
}


def person_color(number: int) -> tuple[int, int, int]:
    """Return the colour of the `number`-th person of a take."""
    return PEOPLE_COLORS[number % len(PEOPLE_COLORS)]


def joint_colors(skeleton: Skeleton, center_color: tuple) -> list[tuple]:
    """Return one colour per joint: left, right, or `center_color`."""
    sides = {**dict.fromkeys(skeleton.left, LEFT_COLOR), **dict.fromkeys(skeleton.right, RIGHT_COLOR)}
    return [sides.get(joint, center_color) for joint in range(len(skeleton.joints))]


@dataclass(frozen=True)
class Figure:
    """One person in panel axes: points (T, J, 3) and roots (T, 3) metres, sigma (T, J) metres or None.

    Who `has_mesh` is drawn as that instead of as bones.
    """

    points: np.ndarray
    roots: np.ndarray
    sigma: np.ndarray | None
    skeleton: Skeleton
    color: tuple
    has_mesh: bool = False


class Scene:
    """The people of a take, where the floor is, and what the views look at in each frame."""

    def __init__(self, take: Take, painter: MeshPainter | None = None):
        """Convert the take's motions; people without a motion are left out. `painter` draws their meshes, if any."""
        people = [(number, person.motion) for number, person in enumerate(take.people) if person.motion is not None]
        self.painter = painter or MeshPainter()
        self.figures = [_figure(motion, person_color(number), take.camera, take.people[number].id in self.painter.ids)
                        for number, motion in people]
        self.mesh_axes = _panel_axes(self.painter.frame_name, take.camera)
        self.times = np.asarray(take.times)
        self.placed = any(motion.trajectory is not None for _, motion in people)
        self.origin = "the hip"
        if self.placed:
            self.origin = "the camera" if people[0][1].frame == "camera" else "the start"
        self.floor = _floor_height(self.figures)
        self.targets = self._find_targets()
        self.offsets = self._find_offsets()

    def _find_targets(self) -> np.ndarray:
        """Return (T, 3) metres, what is in the middle: fixed when all paths fit, else smoothly with the people."""
        paths = [_fill_gaps(self.times, figure.roots) for figure in self.figures if np.isfinite(figure.roots).any()]
        if not paths:
            return np.zeros((len(self.times), 3))
        spread = np.array([np.ptp(path, axis=0)[:2].max() for path in (paths[0], np.concatenate(paths))])
        if spread[1] <= (_STATIC_SPAN if len(paths) == 1 else _GROUP_SPAN):
            corners = np.concatenate(paths)
            return np.broadcast_to((corners.min(axis=0) + corners.max(axis=0)) / 2, paths[0].shape)
        middle = np.mean(paths, axis=0)
        apart = max(float(np.abs(path - middle)[:, :2].max()) for path in paths)
        followed = middle if apart <= _GROUP_SPAN / 2 else paths[0]
        return _smooth(followed, self.times, seconds=0.8)

    def _find_offsets(self) -> np.ndarray:
        """Return (N, 3) metres from the target on the floor: a sample of all joints in all frames that views show."""
        ground = self.targets * (1.0, 1.0, 0.0) + (0.0, 0.0, self.floor)
        offsets = np.concatenate([(figure.points - ground[:, None]).reshape(-1, 3) for figure in self.figures]
                                 or [np.zeros((0, 3))])
        offsets = offsets[np.isfinite(offsets).all(axis=-1)]
        offsets = offsets[(np.abs(offsets) < _LARGEST_REACH).all(axis=-1)]
        stature = [(-0.3, -0.3, 0.0), (0.3, 0.3, 1.6)]  # enough room for one who lies, or nobody
        return np.concatenate([offsets[:: 1 + len(offsets) // 20000], stature])


@dataclass(frozen=True)
class _Ground:
    """The floor as a view sees it, below the horizon: metres from the target across the picture and ahead, pixels per
    metre of both, and the strength of floor and lines as steps of the ground's colours."""

    across: np.ndarray  # (H', W)
    ahead: np.ndarray  # (H', 1): the same all along a row, for the viewer does not roll
    scale_across: np.ndarray
    scale_ahead: np.ndarray
    floor: np.ndarray
    line: np.ndarray


def _line_cover(metres: np.ndarray, pixels_per_metre: np.ndarray, offset: float) -> np.ndarray:
    """Return how much of each pixel is covered by a line at each whole metre."""
    cover = metres + np.float32(offset)
    cover -= np.rint(cover)
    np.abs(cover, out=cover)
    cover *= pixels_per_metre
    np.subtract(np.float32(1.2), cover, out=cover)
    np.maximum(cover, 0.0, out=cover)
    return np.minimum(cover, 1.0, out=cover)


class View:
    """One perspective view of a scene, of `size` (width, height) pixels."""

    def __init__(self, scene: Scene, size: tuple[int, int], *, from_side: bool):
        """Choose the largest scale (pixels per metre in the middle) at which everything fits."""
        self.scene, self.size, self.from_side = scene, size, from_side
        self._rotation = _view_rotation(from_side)
        self.reach = float(np.abs(scene.offsets).max())
        self.distance = 4.0 * self.reach
        self._pivot_height = float(scene.offsets[:, 2].max()) / 2
        self.scale, self._middle = 1.0, np.zeros(2)
        unit, _ = self.project(scene.offsets + (0.0, 0.0, scene.floor), np.zeros(3))
        low, high = np.percentile(unit, (0.2, 99.8), axis=0) + ((-0.12, -0.16), (0.12, 0.12))
        margin = 2 * _label_size(size)
        width, height = size[0] / 2, max(size[1] - 2 * margin, size[1] / 2)
        self.largest_scale = float(min(width / max(-low[0], high[0]), height / (high[1] - low[1])))
        self._span = low[1], high[1]
        self.set_scale(self.largest_scale)

    def set_scale(self, scale: float) -> None:
        """Show the scene at `scale` pixels per metre, with the people in the middle of the picture."""
        self.scale = scale
        self._middle = np.array([self.size[0] / 2, self.size[1] / 2 - scale * sum(self._span) / 2])
        self._ground = self._cast_ground()
        self._drawn_for, self._backdrop = None, None

    def project(self, points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels (..., 2) and nearness (...) (1 at the target, larger nearer; NaN behind the viewer)."""
        eye = self._turn(points, target)
        near = self.distance / np.where(eye[..., 2] > 0.2 * self.distance, eye[..., 2], np.nan)
        return self._middle + self.scale * near[..., None] * eye[..., :2], near

    def _turn(self, points: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return points (..., 3) in panel axes as metres right, down and ahead of the viewer."""
        pivot = np.array([target[0], target[1], self.scene.floor + self._pivot_height])
        right, ahead, up = np.moveaxis((points - pivot) @ self._rotation.T, -1, 0)
        return np.stack([right, -up, self.distance + ahead], axis=-1)

    def draw(self, image: np.ndarray, frame: int | None) -> None:
        """Draw the view of `frame` into `image` (height, width, 3), all of which it covers; None draws nobody."""
        target = self.scene.targets[frame] if frame is not None else self.scene.targets.mean(axis=0)
        image[...] = self._draw_backdrop(target)
        if frame is None:
            return
        for figure in self.scene.figures:
            self._draw_shadow(image, figure, frame, target)
            self._draw_trail(image, figure, frame, target)
        bony = (figure for figure in self.scene.figures if not figure.has_mesh)
        for figure in sorted(bony, key=lambda figure: self._farness(figure, frame)):
            self._draw_figure(image, figure, frame, target)
        self.scene.painter.draw(image, frame, lambda points, _: self._look(points, target))

    def _look(self, points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return points (V, 3) in the meshes' frame as a mesh painter's eye does."""
        points = points @ self.scene.mesh_axes.T
        pixels, near = self.project(points, target)
        return self._turn(points, target), np.column_stack([pixels, near])

    def _farness(self, figure: Figure, frame: int) -> float:
        """Sort key that puts far people first, absent ones anywhere."""
        return -float(np.nan_to_num(figure.roots[frame] @ self._rotation[1]))

    def _cast_ground(self) -> _Ground:
        """Find for each pixel where its ray meets the floor, relative to the target, and how strong lines are there."""
        width, height = self.size
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        rays = np.stack([x - self._middle[0], np.full(x.shape, self.scale * self.distance), self._middle[1] - y], -1)
        rays = rays @ self._rotation
        horizon = int(np.count_nonzero(rays[:, 0, 2] > -1e-3 * self.scale * self.distance))
        rays = rays[min(horizon, height - 2):]
        eye = -self.distance * self._rotation[1]
        hit = eye - ((eye[2] + self._pivot_height) / rays[..., 2])[..., None] * rays
        across, ahead = (hit[..., 1], hit[..., 0]) if self.from_side else (hit[..., 0], hit[..., 1])
        strength = np.exp(-(across**2 + ahead**2) / np.square(2.0 * self.reach))
        scale_across, scale_ahead = 1 / np.abs(np.gradient(across, axis=1)), 1 / np.abs(np.gradient(ahead[:, 0]))
        return _Ground(
            across=np.float32(across),
            ahead=np.float32(ahead[:, :1]),
            scale_across=np.float32(scale_across),
            scale_ahead=np.float32(scale_ahead[:, None]),
            floor=np.float32(255 * _FLOOR_SHARE * strength),
            line=np.float32(255 * (1 - _FLOOR_SHARE) * strength * np.minimum(scale_across / 12.0, 1.0)),
        )

    def _draw_backdrop(self, target: np.ndarray) -> np.ndarray:
        key = (round(float(target[0]), 3), round(float(target[1]), 3))
        if key != self._drawn_for:
            self._drawn_for, self._backdrop = key, self._draw_ground(key)
            self._draw_labels(self._backdrop, key)
        return self._backdrop

    def _draw_ground(self, target: tuple[float, float]) -> np.ndarray:
        """Return a picture of the floor with a line each metre, fading with distance."""
        ground = self._ground
        across, ahead = (target[1], target[0]) if self.from_side else target
        cover = _line_cover(ground.across, ground.scale_across, across)
        np.maximum(cover, _line_cover(ground.ahead, ground.scale_ahead, ahead), out=cover)
        cover *= ground.line
        cover += ground.floor
        picture = np.empty((self.size[1], self.size[0], 3), dtype=np.uint8)
        picture[: -len(cover)] = BACKGROUND
        np.take(_GROUND_COLORS, cover.astype(np.uint8), axis=0, out=picture[-len(cover):])
        return picture

    def _draw_labels(self, image: np.ndarray, target: tuple[float, float]) -> None:
        """Number the metre lines where they leave the picture at its bottom."""
        axis = 1 if self.from_side else 0
        width, height = self.size
        metres = self._ground.across[-1] + target[axis]
        size = _label_size(self.size)
        gap = float(metres[-1] - metres[0]) / width * 4.5 * size  # metres that a label takes
        step = next(step for step in (1, 2, 5, 10, 20, 50, 1000) if step >= gap)
        for number in range(int(np.ceil(metres[0] / step)) * step, int(np.floor(metres[-1])) + 1, step):
            column = np.interp(number, metres, np.arange(width) + 0.5)
            if size * 1.5 < column < width - size * 1.5:
                draw.draw_text(image, f"{number} m", (column, height - 3), size, TEXT, anchor="mb", alpha=0.75)

    def _draw_shadow(self, image: np.ndarray, figure: Figure, frame: int, target: np.ndarray) -> None:
        points = figure.points[frame].copy()
        points[:, 2] = self.scene.floor
        pixels, near = (values.tolist() for values in self.project(points, target))
        radius = 0.05 * self.scale
        segments = [(pixels[a], pixels[b], radius * near[b], 0.38) for a, b in figure.skeleton.bones]
        draw.draw_strokes(image, segments, (8, 9, 12), softness=max(2.0, radius))

    def _draw_trail(self, image: np.ndarray, figure: Figure, frame: int, target: np.ndarray) -> None:
        """Draw where the root went in the last seconds, on the floor."""
        if not self.scene.placed:
            return
        times = self.scene.times
        first = int(np.searchsorted(times, times[frame] - _TRAIL_SECONDS))
        chosen = np.unique(np.linspace(first, frame, _TRAIL_STEPS).astype(int))
        points = figure.roots[chosen].copy()
        points[:, 2] = self.scene.floor
        pixels, near = (values.tolist() for values in self.project(points, target))
        fade = 0.8 * np.linspace(0.0, 1.0, len(chosen) + 1)[1:]
        width = max(1.0, 0.012 * self.scale)
        parts = [(pixels[i], pixels[i + 1], width * near[i], fade[i + 1]) for i in range(len(chosen) - 1)]
        draw.draw_strokes(image, parts, figure.color)

    def _draw_figure(self, image: np.ndarray, figure: Figure, frame: int, target: np.ndarray) -> None:
        pixels, near = self.project(figure.points[frame], target)
        if not np.isfinite(near).any():
            return
        colors = joint_colors(figure.skeleton, figure.color)
        radii = None if figure.sigma is None else (np.minimum(figure.sigma[frame], 0.5) * self.scale * near).tolist()
        pixels, near = pixels.tolist(), near.tolist()
        for joint, radius in enumerate(radii or ()):  # how unsure each joint is: a soft disc of that size
            if radius > 2:
                draw.draw_glow(image, pixels[joint], radius, colors[joint], 0.22)
        bones = [bone for bone in figure.skeleton.bones if math.isfinite(near[bone[0]] + near[bone[1]])]
        for parent, child in sorted(bones, key=lambda bone: near[bone[0]] + near[bone[1]]):
            thick = bone_radius(figure.skeleton.joints[child])
            thick = max(1.2, thick[0] * self.scale * near[parent]), max(1.2, thick[1] * self.scale * near[child])
            light = min(max(1.0 - 4.0 * (1.0 - 0.5 * (near[parent] + near[child])), 0.62), 1.0)
            color = [light * part for part in colors[child]]
            ends = pixels[parent], pixels[child]
            draw.draw_stroke(image, *ends, thick, color, rim=1.3, shade=0.5)


class Panel:
    """Front and side view in one box of `size` (width, height) pixels, beside or above each other as fits better."""

    def __init__(self, take: Take, size: tuple[int, int], painter: MeshPainter | None = None):
        """Lay the two views out for the people of `take`, whose meshes `painter` draws."""
        self.size, self.scene = size, Scene(take, painter)
        width, height = size
        beside = (width // 2, height), (width - width // 2, height)
        above = (width, height // 2), (width, height - height // 2)
        pairs = [self._views(*sizes) for sizes in (beside, above)]
        self.front, self.side = max(pairs, key=lambda pair: pair[0].scale)
        self.stacked = self.front.size[0] == width

    def _views(self, front: tuple[int, int], side: tuple[int, int]) -> tuple[View, View]:
        """Return both views at one scale, so that lengths can be compared."""
        views = View(self.scene, front, from_side=False), View(self.scene, side, from_side=True)
        scale = min(view.largest_scale for view in views)
        for view in views:
            view.set_scale(scale)
        return views

    def draw(self, image: np.ndarray, frame: int | None) -> None:
        """Draw both views of `frame` (None: nobody) into `image` (height, width, 3), all of which they cover."""
        width, height = self.front.size
        first, second = (image[:height], image[height:]) if self.stacked else (image[:, :width], image[:, width:])
        for part, view, title in ((first, self.front, "as filmed"), (second, self.side, "from the side")):
            view.draw(part, frame)
            draw.draw_text(part, title, (8, 5), _label_size(self.size) + 1, TEXT, anchor="lt")
        edge = second[:1] if self.stacked else second[:, :1]
        edge[...] = GRID


def _figure(motion, color: tuple, camera, has_mesh: bool = False) -> Figure:
    roots = np.zeros((len(motion), 3)) if motion.trajectory is None else np.asarray(motion.trajectory, np.float64)
    points = np.asarray(motion.joints, np.float64) + roots[:, None]
    roots = np.where(np.isfinite(points).any(axis=(1, 2))[:, None], roots, np.nan)
    axes = _panel_axes(motion.frame, camera)
    return Figure(points @ axes.T, roots @ axes.T, motion.sigma, motion.skeleton, color, has_mesh)


def _panel_axes(frame: str, camera) -> np.ndarray:
    """Return the rotation (3, 3) from a motion's axes to the panel's: the camera's view direction becomes +y."""
    if frame == "camera":
        return np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    rotation = np.asarray(camera.rotation, np.float64)
    ahead = rotation.reshape(-1, 3, 3)[0, 2, :2]  # the third row is the camera's forward axis in the world
    length = np.linalg.norm(ahead)
    x, y = ahead / length if length > 1e-3 else (0.0, 1.0)
    return np.array([[y, -x, 0.0], [x, y, 0.0], [0.0, 0.0, 1.0]])


def _view_rotation(from_side: bool) -> np.ndarray:
    """Return rows right, ahead, up of a view in panel axes; from the side, the right of the picture is farther away."""
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) if from_side else np.eye(3)
    c, s = np.cos(_PITCH), np.sin(_PITCH)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]]) @ turn


def _label_size(size: tuple[int, int]) -> int:
    return int(np.clip(min(size) / 28, 9, 14))


def bone_radius(child: str) -> tuple[float, float]:
    """Return the radii in metres of the bone that leads to the joint `child`, at its near end and its far end."""
    return _BONE_RADIUS.get(child.removeprefix("left_").removeprefix("right_"), (0.03, 0.025))


def _floor_height(figures: list[Figure]) -> float:
    """Return the height of the lowest joints, robust to a few wild frames."""
    lowest = []
    for figure in figures:
        heights = figure.points[..., 2]
        lowest.append(np.min(np.where(np.isfinite(heights), heights, np.inf), axis=1))
    lowest = np.concatenate(lowest) if lowest else np.zeros(0)
    lowest = lowest[np.isfinite(lowest)]
    return float(np.percentile(lowest, 2)) - 0.03 if len(lowest) else -1.0


def _fill_gaps(times: np.ndarray, path: np.ndarray) -> np.ndarray:
    known = np.isfinite(path).all(axis=-1)
    return np.stack([np.interp(times, times[known], path[known, axis]) for axis in range(3)], axis=-1)


def _smooth(path: np.ndarray, times: np.ndarray, seconds: float) -> np.ndarray:
    """Return a path (T, 3) averaged with a Gaussian of `seconds`, held at its ends."""
    from scipy.ndimage import gaussian_filter1d

    step = max(float(np.median(np.diff(times))) if len(times) > 1 else 1.0, 1e-6)
    return gaussian_filter1d(path, max(seconds / step, 0.1), axis=0, mode="nearest")
