"""Anti-aliased shapes on uint8 RGB images, drawn in place, in numpy.

Each shape costs only its own bounding box. Coordinates are pixels (x, y) with the origin at the top left corner of the
top left pixel. Shapes outside the image, or at NaN, draw nothing. Colours are (red, green, blue) in 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

Color = Sequence[float]
_FARTHEST = 1e6  # pixels: beyond this a coordinate is a blow-up, not a drawing


def draw_stroke(
    image: np.ndarray,
    start: Sequence[float],
    end: Sequence[float],
    radii: tuple[float, float],
    color: Color,
    alpha: float = 1.0,
    *,
    rim: float = 0.0,
    shade: float = 0.0,
) -> None:
    """Draw a round-ended line whose radius goes from `radii[0]` to `radii[1]` pixels.

    `rim` pixels of black lie around it; `shade` in 0..1 darkens its edges, so that it looks round.
    """
    box = _box_around(image, start, end, max(radii) + rim + 1.0)
    if box is None:
        return
    inside = _depth_inside(box, start, end, radii)
    fill = _between(inside + 0.5)
    cover = _between(inside + (rim + 0.5)) if rim else fill
    light = fill
    if shade:
        edge = 1.0 - _between(inside / max(radii))
        light = fill * (1.0 - shade * edge * edge)
    _mix(image, box, 1.0 - alpha * cover, light * alpha, color)


def draw_strokes(
    image: np.ndarray,
    segments: Iterable[tuple[Sequence[float], Sequence[float], float, float]],
    color: Color,
    softness: float = 1.0,
) -> None:
    """Draw many lines (start, end, radius, alpha) as one shape: where they overlap they do not add up.

    `softness` is the width of the edge in pixels: 1 is sharp, larger is blurred, as of a shadow.
    """
    parts = []
    for start, end, radius, alpha in segments:
        box = _box_around(image, start, end, radius + softness)
        if box is not None and alpha > 0:
            inside = _depth_inside(box, start, end, (radius, radius))
            parts.append((box, alpha * _between(inside / softness + 0.5)))
    if not parts:
        return
    corners = np.array([box for box, _ in parts])
    left, top = corners[:, :2].min(axis=0)
    right, bottom = corners[:, 2:].max(axis=0)
    mask = np.zeros((bottom - top, right - left), dtype=np.float32)
    for (x0, y0, x1, y1), cover in parts:
        place = mask[y0 - top:y1 - top, x0 - left:x1 - left]
        np.maximum(place, cover, out=place)
    _mix(image, (left, top, right, bottom), 1.0 - mask, mask, color)


def draw_disc(
    image: np.ndarray, center: Sequence[float], radius: float, color: Color, alpha: float = 1.0, *, rim: float = 0.0
) -> None:
    """Draw a filled circle with `rim` pixels of black around it."""
    draw_stroke(image, center, center, (radius, radius), color, alpha, rim=rim)


def draw_ring(
    image: np.ndarray, center: Sequence[float], radius: float, width: float, color: Color, alpha: float = 1.0
) -> None:
    """Draw a hollow circle whose line, `width` pixels wide, ends at `radius`."""
    box = _box_around(image, center, center, radius + 1.0)
    if box is not None:
        inside = _depth_inside(box, center, center, (radius, radius))
        cover = alpha * _between(inside + 0.5) * _between(width + 0.5 - inside)
        _mix(image, box, 1.0 - cover, cover, color)


def draw_glow(image: np.ndarray, center: Sequence[float], radius: float, color: Color, alpha: float) -> None:
    """Draw a soft disc that is `alpha` opaque in the middle and fades out around `radius` pixels."""
    box = _box_around(image, center, center, 1.5 * radius)
    if box is not None and radius > 0.5:
        x, y = _offsets(box, center)
        cover = 1.0 - (x * x + y * y) * np.float32(1 / (1.5 * radius) ** 2)
        np.maximum(cover, 0.0, out=cover)
        cover *= cover
        cover *= np.float32(alpha)
        _mix(image, box, 1.0 - cover, cover, color)


def draw_text(
    image: np.ndarray,
    text: str,
    xy: Sequence[float],
    size: int,
    color: Color,
    *,
    anchor: str = "lm",
    alpha: float = 1.0,
) -> int:
    """Draw one line of text; `anchor` is two letters: l, m or r across and t, m or b down. Returns its width in px."""
    mask = _text_mask(text, size)
    height, width = mask.shape
    across = {"l": 0.0, "m": width / 2, "r": width}[anchor[0]]
    down = {"t": 0.0, "m": height / 2, "b": height}[anchor[1]]
    left, top = round(xy[0] - across), round(xy[1] - down)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, image.shape[1]), min(top + height, image.shape[0])
    if x0 < x1 and y0 < y1:
        cover = mask[y0 - top:y1 - top, x0 - left:x1 - left] * np.float32(alpha)
        _mix(image, (x0, y0, x1, y1), 1.0 - cover, cover, color)
    return width


def text_width(text: str, size: int) -> int:
    """Return how many pixels wide `draw_text` would draw `text`."""
    return _text_mask(text, size).shape[1]


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return `image` (H, W, 3) uint8 at `size` (width, height), averaged when it shrinks. Needs PyAV."""
    import av  # three times as fast as Pillow, and whoever draws on videos has it

    if image.shape[1::-1] == tuple(size):
        return image
    frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24")
    method = "AREA" if image.shape[1] > size[0] else "BILINEAR"
    return frame.reformat(width=size[0], height=size[1], interpolation=method).to_ndarray(format="rgb24")


@lru_cache(maxsize=512)
def _text_mask(text: str, size: int) -> np.ndarray:
    """Return the coverage (H, W) float32 of a text; the height depends on the size only, so lines align."""
    font = _font(size)
    ascent, descent = font.getmetrics()
    mask = font.getmask(text, mode="L", anchor="ls") if text else None
    if mask is None or 0 in mask.size:
        return np.zeros((ascent + descent, 1), dtype=np.float32)
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    canvas = np.zeros((ascent + descent, max(1, math.ceil(right))), dtype=np.float32)
    pixels = np.asarray(mask, dtype=np.float32).reshape(mask.size[::-1]) / 255.0
    x, y = max(0, int(left)), max(0, ascent + int(top))
    pixels = pixels[: canvas.shape[0] - y, : canvas.shape[1] - x]
    canvas[y:y + pixels.shape[0], x:x + pixels.shape[1]] = pixels
    return canvas


@lru_cache(maxsize=16)
def _font(size: int):
    """Return matplotlib's DejaVu Sans, which covers most scripts."""
    from pathlib import Path

    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _box_around(image: np.ndarray, start: Sequence[float], end: Sequence[float], margin: float) -> tuple | None:
    """Return the pixel box (left, top, right, bottom) that holds two points and a margin, None when nothing shows."""
    x0, x1 = (start[0], end[0]) if start[0] <= end[0] else (end[0], start[0])
    y0, y1 = (start[1], end[1]) if start[1] <= end[1] else (end[1], start[1])
    if not (-_FARTHEST < x0 and -_FARTHEST < y0 and x1 < _FARTHEST and y1 < _FARTHEST and margin < _FARTHEST):
        return None  # of NaN, at least one of these comparisons is false
    height, width = image.shape[:2]
    left, top = max(0, math.floor(x0 - margin)), max(0, math.floor(y0 - margin))
    right, bottom = min(width, math.ceil(x1 + margin) + 1), min(height, math.ceil(y1 + margin) + 1)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _depth_inside(box: tuple, start: Sequence[float], end: Sequence[float], radii: tuple[float, float]) -> np.ndarray:
    """Return how many pixels each pixel centre of the box lies inside the stroke (negative outside)."""
    x, y = _offsets(box, start)
    dx, dy = float(end[0] - start[0]), float(end[1] - start[1])
    length_squared = dx * dx + dy * dy
    if length_squared < 1e-6:
        return radii[0] - np.sqrt(x * x + y * y)
    along = _between(x * (dx / length_squared) + y * (dy / length_squared))
    across_x, across_y = x - along * dx, y - along * dy
    distance = np.sqrt(across_x * across_x + across_y * across_y)
    if radii[0] == radii[1]:
        return radii[0] - distance
    return radii[0] + along * (radii[1] - radii[0]) - distance


def _offsets(box: tuple, point: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return how far right (W,) and down (H, 1) of a point the box's pixel centres lie."""
    left, top, right, bottom = box
    x = np.arange(left + 0.5 - point[0], right - point[0], dtype=np.float32)[: right - left]
    y = np.arange(top + 0.5 - point[1], bottom - point[1], dtype=np.float32)[: bottom - top, None]
    return x, y


def _between(values: np.ndarray) -> np.ndarray:
    """Clip to 0..1, in place and at a fraction of np.clip's fixed cost, which counts for small boxes."""
    np.maximum(values, 0.0, out=values)
    return np.minimum(values, 1.0, out=values)


def _mix(image: np.ndarray, box: tuple, keep: np.ndarray, light: np.ndarray, color: Color) -> None:
    """Replace the box by `keep` (H, W) of what is there plus `light` (H, W) of `color`, rounded."""
    left, top, right, bottom = box
    for channel, value in enumerate(color):  # by itself each is many times as fast as all three in one broadcast
        region = image[top:bottom, left:right, channel]
        mixed = region * keep
        mixed += light * np.float32(value)
        mixed += np.float32(0.5)
        region[...] = mixed
