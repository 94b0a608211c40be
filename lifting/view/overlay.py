"""A video of a result: the 2D skeleton, or the body mesh, over the frames on the left; the 3D motion on the right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifting.motion import Person, Take
from lifting.skeletons import Skeleton
from lifting.view import draw
from lifting.view.mesh import ALPHA, MeshPainter, camera_eye, check_meshes
from lifting.view.panel import BACKGROUND, LEFT_COLOR, RIGHT_COLOR, TEXT, Panel, joint_colors, person_color

if TYPE_CHECKING:
    from lifting.meshes import SkinnedMesh

MAX_SIZE = 1280, 720
_VIDEO_SHARE = 0.62  # of the width, at most
_SURE = 0.5  # joints below this confidence are drawn hollow
_FACE = ("eye", "ear", "mouth")
_HEAD = ("nose", "head", "neck_nose", "head_top", "left_ear", "right_ear", "left_eye", "right_eye")
_FINE = (*_FACE, "pinky", "index", "thumb", "toe", "heel")


def write_overlay(
    take: Take,
    frames: Iterable[tuple[float, np.ndarray]],
    path: str | Path,
    *,
    meshes: Sequence[SkinnedMesh] | None = None,
    max_size: tuple[int, int] = MAX_SIZE,
    predicted: int = 0,
) -> Path:
    """Write an MP4 that shows the video with its 2D skeletons beside the 3D motion, one output frame per frame.

    People with a mesh in `meshes` (by its `person_id`) are drawn as that instead, in the video and in 3D. The last
    `predicted` frames of the take are said to be the future.

    `frames` yields (seconds, rgb (H, W, 3) uint8), cheapest at `shown_size`, and is consumed one by one; each is shown
    with the take's nearest frame, and bare when the take has none within one frame of it. The file appears under its
    name when complete.
    Returns the path. Raises ValueError when there are no frames, `max_size` is too small or a mesh is not of the take,
    OSError when the place cannot be written, ImportError when PyAV is missing.
    """
    from lifting.video import VideoWriter

    overlay = Overlay(take, max_size, meshes, predicted)
    first, pending = None, None
    with VideoWriter(path, overlay.size, take.fps) as writer, ThreadPoolExecutor(1) as encoder:
        for seconds, rgb in frames:
            first = seconds if first is None else first
            picture = overlay.draw(seconds, rgb).copy()
            if pending is not None:
                pending.result()  # one picture is encoded while the next is drawn, never more
            pending = encoder.submit(writer.write, picture, seconds - first)
        if pending is not None:
            pending.result()
    return Path(path)


class Overlay:
    """Draws single frames of an overlay; `size` is the (width, height) of what it draws."""

    def __init__(
        self,
        take: Take,
        max_size: tuple[int, int] = MAX_SIZE,
        meshes: Sequence[SkinnedMesh] | None = None,
        predicted: int = 0,
    ):
        """Lay the picture out for `take` within `max_size` (width, height) pixels; ValueError for foreign meshes."""
        self.take, self._seen = take, len(take) - predicted
        self._painter = _painter(take, meshes or ())
        self.layout = plan_layout(take.image_size, max_size)
        self.size = self.layout.size
        self._panel = Panel(take, self.layout.panel_size, self._painter)
        shown = self.layout.video[2:]
        scale = self._scale = (shown[0] / take.image_size[0], shown[1] / take.image_size[1])
        self._eye = camera_eye(take.camera, self._painter.frame_name, scale)
        self._times = np.asarray(take.times)
        self._canvas = np.full((self.size[1], self.size[0], 3), BACKGROUND, dtype=np.uint8)
        self._panel_thread = ThreadPoolExecutor(1)

    def frame_at(self, seconds: float) -> int | None:
        """Return the take's frame nearest to `seconds`, None when it is more than a frame away."""
        if not len(self._times):
            return None
        after = int(np.clip(np.searchsorted(self._times, seconds), 1, max(1, len(self._times) - 1)))
        near = min((after - 1, min(after, len(self._times) - 1)), key=lambda index: abs(self._times[index] - seconds))
        return near if abs(self._times[near] - seconds) <= 1.01 / self.take.fps else None

    def draw(self, seconds: float, rgb: np.ndarray) -> np.ndarray:
        """Return the picture (H, W, 3) uint8 for a frame of the video; it is overwritten by the next call."""
        canvas, layout, frame = self._canvas, self.layout, self.frame_at(seconds)
        panel = self._panel_thread.submit(self._panel.draw, canvas[: layout.height, layout.width:], frame)
        left, top, width, height = layout.video
        video = canvas[top:top + height, left:left + width]
        video[...] = draw.resize(rgb, (width, height))
        if frame is not None:
            self._draw_people(video, frame)
        self._draw_footer(canvas[layout.height:], seconds, frame)
        panel.result()
        return canvas

    def _draw_people(self, video: np.ndarray, frame: int) -> None:
        """Draw everybody over the video, the main person last, on top, and meshes above skeletons."""
        numbered = list(enumerate(self.take.people))[::-1]
        for number, person in numbered:
            if person.id not in self._painter.ids:
                draw_person(video, person, number, frame, self._scale)
        self._painter.draw(video, frame, self._eye, ALPHA)
        for number, person in numbered:
            draw_badge(video, person, number, frame, self._scale)

    def _draw_footer(self, image: np.ndarray, seconds: float, frame: int | None) -> None:
        """Write time, rate and the legend, over a line that shows how far the take has come."""
        image[...] = (14, 16, 20)
        height, width = image.shape[:2]
        size, middle = max(8, round(height * 0.48)), height / 2 + 1
        minutes, rest = divmod(max(seconds, 0.0), 60)
        x = 10 + draw.draw_text(image, f"{int(minutes):02d}:{rest:05.2f}", (10, middle), size, (255, 255, 255))
        x += 14
        x += draw.draw_text(image, f"{self.take.fps:.4g} fps", (x, middle), size, TEXT, alpha=0.75) + 14
        if frame is not None and frame >= self._seen:
            ahead = self._times[frame] - self._times[self._seen - 1]
            draw.draw_text(image, f"predicted, +{ahead:.2f} s", (x, middle), size, (255, 200, 90))
        elif frame is not None and not _people_in(self.take, frame):
            draw.draw_text(image, "nobody found in this frame", (x, middle), size, (255, 200, 90))
        unit = f"grid: metres from {self._panel.scene.origin}"
        draw.draw_text(image, unit, (self.layout.width + 8, middle), size, TEXT, alpha=0.75)
        if not self.take.people or {person.id for person in self.take.people} - self._painter.ids:
            _draw_legend(image, size, (width - 10, middle))
        if frame is not None and len(self._times) > 1:
            done = width * frame / (len(self._times) - 1)
            image[:2, : round(done)] = (110, 122, 142)


def _draw_legend(image: np.ndarray, size: int, end: tuple[float, float]) -> None:
    x, middle = end
    for name, color in (("right", RIGHT_COLOR), ("left", LEFT_COLOR)):
        draw.draw_text(image, name, (x, middle), size, TEXT, anchor="rm")
        x -= draw.text_width(name, size) + 0.6 * size
        draw.draw_disc(image, (x, middle), 0.34 * size, color)
        x -= 1.2 * size


@dataclass(frozen=True)
class Layout:
    """Where things are, in pixels: video (left, top, width, height) in a box of width x height, panel and footer."""

    video: tuple[int, int, int, int]
    width: int
    height: int
    panel_size: tuple[int, int]
    footer: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the whole picture, both even."""
        return self.width + self.panel_size[0], self.height + self.footer


def shown_size(image_size: tuple[int, int], max_size: tuple[int, int] = MAX_SIZE) -> tuple[int, int]:
    """The (width, height) at which an overlay shows frames of `image_size`: give them so, and they need no resizing."""
    return plan_layout(image_size, max_size).video[2:]


def plan_layout(image_size: tuple[int, int], max_size: tuple[int, int]) -> Layout:
    """Return the layout for a video of `image_size` within `max_size`; both (width, height) pixels.

    Raises ValueError when `max_size` is below 160x120.
    """
    widest, highest = (int(side) // 2 * 2 for side in max_size)
    if widest < 160 or highest < 120:
        raise ValueError(f"max_size is {max_size[0]}x{max_size[1]}, expected at least 160x120 pixels for an overlay")
    aspect = image_size[0] / image_size[1]
    footer = max(14, round(highest / 24 / 2) * 2)
    room = highest - footer
    height = min(room, max(_VIDEO_SHARE * widest / aspect, 0.3 * widest))
    height = max(2, int(height + footer) // 2 * 2 - footer)
    width = max(2, min(round(height * aspect), round(_VIDEO_SHARE * widest)))
    shown = (width, max(1, min(height, round(width / aspect))))
    panel = min(widest - width, max(height, round((1 - _VIDEO_SHARE) * widest)))
    panel -= (width + panel) % 2
    return Layout((0, (height - shown[1]) // 2, *shown), width, height, (panel, height), footer)


def _painter(take: Take, meshes: Sequence[SkinnedMesh]) -> MeshPainter:
    check_meshes(meshes, take)
    numbers = {person.id: number for number, person in enumerate(take.people)}
    return MeshPainter(meshes, [person_color(numbers[mesh.person_id]) for mesh in meshes])


def draw_person(
    image: np.ndarray, person: Person, number: int, frame: int, scale: tuple[float, float] = (1.0, 1.0)
) -> None:
    """Draw the 2D skeleton of `person`, the take's `number`-th, into `image`, whose pixels are the video's x `scale`.

    Opacity follows confidence, joints below 0.5 are hollow, and joints not seen are left out.
    """
    keypoints = person.keypoints
    xy, score, seen = _seen_points(person, frame, scale)
    if not seen.any():
        return
    points = [tuple(point) for point in xy.astype(float).tolist()]
    alpha = 0.25 + 0.75 * np.clip(score, 0.0, 1.0)
    thick = _line_radius(image, xy[seen])
    skeleton, color = keypoints.skeleton, person_color(number)
    colors = joint_colors(skeleton, color)
    bones = [bone for bone in drawn_bones(skeleton) if seen[bone[0]] and seen[bone[1]]]
    halo = [(points[a], points[b], thick + 1.6, 0.55 * min(alpha[a], alpha[b])) for a, b in bones]
    draw.draw_strokes(image, halo, (10, 12, 16), softness=2.0)
    for a, b in bones:
        width = thick * (0.6 if _is_fine(skeleton.joints[b]) else 1.0)
        paint = colors[b] if colors[a] == colors[b] else color
        draw.draw_stroke(image, points[a], points[b], (width, width), paint, float(min(alpha[a], alpha[b])))
    for joint in np.flatnonzero(seen):
        radius = thick * (1.0 if _is_fine(skeleton.joints[joint]) else 1.75)
        _draw_joint(image, points[joint], radius, colors[joint], score[joint])


def draw_badge(
    image: np.ndarray, person: Person, number: int, frame: int, scale: tuple[float, float] = (1.0, 1.0)
) -> None:
    """Write a person's id above the head, or above whatever is highest when no head is seen; always in the picture."""
    xy, _, seen = _seen_points(person, frame, scale)
    if not seen.any():
        return
    size = int(np.clip(5.5 * _line_radius(image, xy[seen]), 11, 18))
    head = seen & np.array([joint in _HEAD for joint in person.keypoints.skeleton.joints])
    x, y = xy[head].mean(axis=0) if head.any() else xy[seen][np.argmin(xy[seen, 1])]
    tall = np.ptp(xy[seen, 1])
    half = max(0.0, draw.text_width(str(person.id), size) / 2 - 0.3 * size)
    height, width = image.shape[:2]
    x = float(np.clip(x, half + 0.8 * size, max(half + 0.8 * size, width - half - 0.8 * size)))
    y = float(np.clip(y - 1.4 * size - 0.07 * tall, 0.9 * size, max(0.9 * size, height - 0.9 * size)))
    color = person_color(number)
    draw.draw_stroke(image, (x - half, y), (x + half, y), (0.78 * size,) * 2, color, 0.95, rim=1.2)
    draw.draw_text(image, str(person.id), (x, y), size, (14, 16, 20), anchor="mm")


def drawn_bones(skeleton: Skeleton) -> list[tuple[int, int]]:
    """Return the bones worth drawing: the skeleton's, but shoulders and hips joined where it hangs them elsewhere.

    Layouts without a neck (COCO) hang the shoulders from the nose; people expect a trunk instead.
    """
    names = skeleton.joints
    unwanted = {(parent, child) for parent, child in skeleton.bones
                if names[parent] == "nose" and names[child].endswith("shoulder")}
    bones = [(int(a), int(b)) for a, b in skeleton.bones if (a, b) not in unwanted]
    linked = {frozenset(bone) for bone in bones}
    for part in ("shoulder", "hip"):
        sides = [f"{side}_{part}" for side in ("left", "right")]
        if all(side in names for side in sides) and (unwanted or part == "hip") and "hip" not in names:
            pair = (names.index(sides[0]), names.index(sides[1]))
            bones += [] if frozenset(pair) in linked or "mid_hip" in names else [pair]
    return bones


def _people_in(take: Take, frame: int) -> int:
    return sum(bool(np.isfinite(person.keypoints.xy[frame]).any()) for person in take.people)


def _is_fine(joint: str) -> bool:
    return any(word in joint for word in _FINE)


def _line_radius(image: np.ndarray, xy: np.ndarray) -> float:
    """Return half the line width for a person at these points: thicker for people who fill the picture."""
    size = float(np.max(np.ptp(xy, axis=0))) if len(xy) > 1 else 0.0
    return float(np.clip(size / 130, 1.0, max(1.5, min(image.shape[:2]) / 150)))


def _draw_joint(image: np.ndarray, point: tuple, radius: float, color: tuple, score: float) -> None:
    if score < _SURE:
        draw.draw_ring(image, point, radius + 0.8, 1.3, color, 0.9)
        return
    draw.draw_disc(image, point, radius, color, rim=0.9)


def _seen_points(person: Person, frame: int, scale: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pixels (J, 2), scores (J,) and which joints are seen (J,)."""
    xy = person.keypoints.xy[frame] * np.float32(scale)
    score = np.nan_to_num(person.keypoints.score[frame])
    return xy, score, np.isfinite(xy).all(axis=-1) & (score > 0)
