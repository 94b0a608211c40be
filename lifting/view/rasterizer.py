"""Triangles to pixels with a true depth buffer, in numpy: no loop over triangles, rows or pixels, and no OpenGL.

Each triangle is cut into the rows whose sample centres it covers, each row into its samples (scanline conversion, as in
Foley et al., Computer Graphics, section 3.6, here for all triangles at once), so work is done for covered samples only.
Inverse depth is affine in the image of a pinhole camera, so it is interpolated exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_SMALLEST_AREA = 1e-9  # square pixels: slimmer triangles cover no sample centre, and their slopes would overflow
_FARTHEST = np.float32(1e-30)  # inverse depth that rounding may not fall below: negative bits would win
_FACES_AT_ONCE = 1024  # few enough that the working arrays stay in the processor's cache


@dataclass(frozen=True)
class Samples:
    """The visible samples of a picture, at most one per pixel, N in all.

    Attributes:
        pixels: (N,) int64, row x width + column.
        nearness: (N,) float32, inverse depth of what is seen there.
        values: (N,) float32, what was to be interpolated.
    """

    pixels: np.ndarray
    nearness: np.ndarray
    values: np.ndarray


def rasterize(points: np.ndarray, values: np.ndarray, faces: np.ndarray, size: tuple[int, int]) -> Samples:
    """Return what is seen of triangles at the pixel centres of a picture.

    Args:
        points: (V, 3) across and down in pixels from the top left corner, and inverse depth (> 0; larger is nearer).
        values: (V,) numbers from 0 on to interpolate, affinely in the picture.
        faces: (F, 3) corners of the triangles. Both sides are drawn: leave out what faces away with `faces_front`.
        size: (width, height) pixels; what lies outside is left out.

    A pixel belongs to the triangle that contains its centre; of two triangles that share an edge exactly one has a
    centre on it. Of two at the same depth the one with the larger value is seen. Triangles with a corner that is not
    finite are left out.
    """
    points, values, faces = np.asarray(points, np.float64), np.asarray(values, np.float64), np.asarray(faces)
    faces = faces[np.isfinite(points).all(-1)[faces].all(-1)]
    faces = faces[np.abs(_cross(points[faces])) > _SMALLEST_AREA]
    buffer = np.zeros(size[0] * size[1], np.uint64)
    for start in range(0, len(faces), _FACES_AT_ONCE):
        part = faces[start : start + _FACES_AT_ONCE]
        pixels, nearness, shown = _samples(points[part], values[part], size)
        np.maximum.at(buffer, pixels, _packed(nearness, shown))
    pixels = np.flatnonzero(buffer != 0)
    return Samples(pixels, *_unpacked(buffer[pixels]))


def faces_front(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Which triangles (F,) show the side from which their corners go counter-clockwise in a right-handed space.

    points: (V, 2 or more) across and DOWN in pixels. Triangles with a corner at NaN do not.
    """
    return _cross(np.asarray(points)[faces]) < 0


def _cross(corners: np.ndarray) -> np.ndarray:
    """Twice the signed area (F,) of triangles (F, 3, 2 or more): positive where clockwise, as seen with y down."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _samples(corners: np.ndarray, values: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Pixels, inverse depths and values, (N,) each, of all samples of triangles (F, 3, 3) with values (F, 3)."""
    owners, rows, starts, counts = _spans(corners, size)
    centers = starts + 0.5, rows + 0.5
    affine = [_along_spans(corners, heights, owners, centers) for heights in (corners[..., 2], values)]
    return _expand(rows * size[0] + starts, counts, *affine)


def _spans(corners: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows of all triangles: whose, which row, first column and number of columns, each (S,) and none empty.

    Edges run from their upper to their lower end whatever the triangle, so that neighbours agree to the last bit.
    """
    order = np.argsort(corners[:, :, 1], axis=1)
    top, middle, bottom = np.moveaxis(np.take_along_axis(corners[..., :2], order[..., None], axis=1), 1, 0)
    first = _first_sample(top[:, 1], size[1])
    counts = _first_sample(bottom[:, 1], size[1]) - first
    owners = np.repeat(np.arange(len(corners)), counts)
    rows = _count_up(first, counts)
    at = rows + 0.5
    crossing = _crossings(np.concatenate([top, top, middle]), np.concatenate([bottom, middle, bottom]))
    short = owners + np.where(at < middle[:, 1][owners], len(corners), 2 * len(corners))
    sides = crossing(owners, at), crossing(short, at)
    starts = _first_sample(np.minimum(*sides), size[0])
    counts = _first_sample(np.maximum(*sides), size[0]) - starts
    kept = counts > 0
    return owners[kept], rows[kept], starts[kept], counts[kept]


def _first_sample(position: np.ndarray, size: int) -> np.ndarray:
    """The first pixel whose centre is not before the position, within 0..size."""
    return np.ceil(np.clip(position, 0, size) - 0.5).astype(np.int64)


def _crossings(upper: np.ndarray, lower: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function of (edges, heights) that says where these of the edges cross these heights."""
    x, y = np.ascontiguousarray(upper.T)
    fall = lower[:, 1] - y
    slope = (lower[:, 0] - x) / np.where(fall > 0, fall, 1.0)
    return lambda edges, at: x[edges] + (at - y[edges]) * slope[edges]


def _count_up(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """first[i], first[i] + 1, ... (counts[i] of them) for each i, in one array."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - counts), counts)


def _along_spans(
    corners: np.ndarray, values: np.ndarray, owners: np.ndarray, centers: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The affine function with `values` (F, 3) at the corners, at each span's first sample; and its step; (S,) each."""
    (x1, y1), (x2, y2) = (np.moveaxis(corners[:, i, :2] - corners[:, 0, :2], -1, 0) for i in (1, 2))
    rise1, rise2 = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    twice_area = x1 * y2 - x2 * y1
    across, down = (rise1 * y2 - rise2 * y1) / twice_area, (rise2 * x1 - rise1 * x2) / twice_area
    constant = values[:, 0] - across * corners[:, 0, 0] - down * corners[:, 0, 1]
    step = across[owners]
    return constant[owners] + step * centers[0] + down[owners] * centers[1], step


def _expand(first_pixels: np.ndarray, counts: np.ndarray, *affine: tuple) -> tuple[np.ndarray, ...]:
    """Spans (S,) to samples (N,): pixels, and each affine function of (start, step) as float32."""
    ends = np.cumsum(counts)
    order = np.arange(ends[-1] if len(ends) else 0)
    pixels = order + np.repeat(first_pixels - (ends - counts), counts)
    along = (pixels - np.repeat(first_pixels, counts)).astype(np.float32)
    curves = []
    for start, step in affine:
        curve = along * np.repeat(step.astype(np.float32), counts)
        curve += np.repeat(start.astype(np.float32), counts)
        curves.append(curve)
    return pixels, *curves


def _packed(nearness: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What the depth buffer holds (N,) uint64: the bits of the inverse depth, which rise with it, above the value's."""
    high = np.maximum(nearness, _FARTHEST).view(np.uint32).astype(np.uint64)
    return high << np.uint64(32) | values.view(np.uint32)


def _unpacked(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (packed >> np.uint64(32)).astype(np.uint32).view(np.float32), packed.astype(np.uint32).view(np.float32)
