"""Geometry of the BlazePose graphs: anchors, box decoding, suppression, regions of interest and crops.

Pure numpy (PIL for the crops), written from the published description: V. Bazarevsky et al., "BlazePose: On-device
Real-time Body Pose tracking", 2020, and the documented options of MediaPipe's pose graphs. Image coordinates are
continuous pixels: (0, 0) is the top left corner of the image, (0.5, 0.5) the centre of its first pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DETECTOR_SIZE = 224
LANDMARK_SIZE = 256
ANCHOR_STRIDES = (8, 16, 32, 32, 32)
ANCHORS_PER_STRIDE = 2
ROI_MARGIN = 1.25
NUM_LANDMARKS = 33
HIP_CENTER, SCALE_POINT = 33, 34
REFINE_WINDOW = 3  # heat map cells on each side of the regressed landmark
REFINE_MIN_CONFIDENCE = 0.5
STEADY_WEIGHT, STEADY_GAIN = 0.15, 4.0  # least weight of a new region; its increase with the change


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logistic function of an array of logits, without overflow."""
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -80.0, 80.0)))


def anchor_centers() -> np.ndarray:
    """Centres (2254, 2) of the detector's anchors, x and y as a fraction of the input square.

    Layers of equal stride share one grid; a cell carries two anchors per layer. All anchors have size one.
    """
    grids = []
    for stride in dict.fromkeys(ANCHOR_STRIDES):
        cells = DETECTOR_SIZE // stride
        ticks = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
        grids.append(np.repeat(grid, ANCHORS_PER_STRIDE * ANCHOR_STRIDES.count(stride), axis=0))
    return np.concatenate(grids).astype(np.float32)


@dataclass(frozen=True)
class Candidates:
    """People the detector proposes.

    Attributes:
        scores: (N,) in [0, 1].
        boxes: (N, 4) left, top, right, bottom.
        points: (N, 4, 2) alignment points: hip centre, full-body scale point, shoulder centre, upper-body scale point.
    """

    scores: np.ndarray
    boxes: np.ndarray
    points: np.ndarray

    def __len__(self) -> int:
        """N."""
        return len(self.scores)

    @classmethod
    def joined(cls, parts: list[Candidates]) -> Candidates:
        """All candidates of several parts, best first."""
        scores = np.concatenate([part.scores for part in parts])
        order = np.argsort(-scores, kind="stable")
        boxes, points = (np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "points"))
        return cls(scores[order], boxes[order], points[order])

    def kept(self, mask: np.ndarray) -> Candidates:
        """The candidates for which ``mask`` (N,) is True."""
        return Candidates(self.scores[mask], self.boxes[mask], self.points[mask])

    def transformed(self, scale: float, offset: np.ndarray) -> Candidates:
        """The same candidates with every coordinate scaled and then shifted by ``offset`` (2,)."""
        return Candidates(self.scores, self.boxes * scale + np.tile(offset, 2), self.points * scale + offset)


def decode_candidates(values: np.ndarray, logits: np.ndarray, anchors: np.ndarray, threshold: float) -> Candidates:
    """Turn the detector's raw output into candidates above a score threshold.

    Args:
        values: (A, 12) box centre, box size and four points, in input pixels relative to the anchor.
        logits: (A,) or (A, 1) score logits.
        anchors: (A, 2) centres as a fraction of the input square.
        threshold: smallest score kept.

    Returns:
        Candidates in fractions of the input square, best first.
    """
    scores = sigmoid(logits.reshape(-1))
    kept = np.flatnonzero(scores >= threshold)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    pairs = values[kept].reshape(-1, 6, 2) / DETECTOR_SIZE
    center, size = pairs[:, 0] + anchors[kept], pairs[:, 1]
    points = pairs[:, 2:] + anchors[kept, None]
    return Candidates(scores[kept], np.concatenate([center - size / 2, center + size / 2], axis=1), points)


def box_overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union (N,) of one box (4,) with boxes (N, 4), corners left, top, right, bottom."""
    size = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = np.prod(np.maximum(size, 0.0), axis=1)
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
    union = np.prod(np.maximum(box[2:] - box[:2], 0.0)) + areas - intersection
    return intersection / np.maximum(union, 1e-9)


def merge_overlapping(candidates: Candidates, min_overlap: float = 0.3) -> Candidates:
    """Weighted non-maximum suppression: each group of overlapping candidates becomes its score-weighted mean.

    The best candidate left collects all others that overlap it by more than ``min_overlap`` and keeps its own score.
    Candidates must be sorted best first, as ``decode_candidates`` returns them.
    """
    remaining = np.arange(len(candidates))
    scores, boxes, points = [], [], []
    while remaining.size:
        overlaps = box_overlap(candidates.boxes[remaining[0]], candidates.boxes[remaining]) > min_overlap
        overlaps[0] = True  # a degenerate box does not even overlap itself
        group, remaining = remaining[overlaps], remaining[~overlaps]
        weights = candidates.scores[group]
        scores.append(weights[0])
        boxes.append(np.average(candidates.boxes[group], axis=0, weights=weights))
        points.append(np.average(candidates.points[group], axis=0, weights=weights))
    return Candidates(np.array(scores), np.array(boxes).reshape(-1, 4), np.array(points).reshape(-1, 4, 2))


@dataclass(frozen=True)
class Region:
    """A square of the image, turned so that the person inside is upright.

    Attributes:
        center: (2,) pixels.
        size: side in pixels.
        angle: radians, positive is clockwise on the screen.
    """

    center: np.ndarray
    size: float
    angle: float = 0.0

    @classmethod
    def from_points(cls, hip_center: np.ndarray, scale_point: np.ndarray) -> Region:
        """Region around a person from two alignment points (2,): the hips' centre and the top of the body's circle."""
        right, down = np.asarray(scale_point, float) - np.asarray(hip_center, float)
        size = 2.0 * np.hypot(right, down) * ROI_MARGIN
        return cls(np.asarray(hip_center, float), float(size), float(np.arctan2(right, -down)))

    @property
    def axes(self) -> np.ndarray:
        """(2, 2) matrix whose columns are the region's right and down directions in the image, times its size."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return self.size * np.array([[cosine, -sine], [sine, cosine]])

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., 2), fractions of the region from its top left corner, to image pixels."""
        return self.center + (np.asarray(points) - 0.5) @ self.axes.T

    def to_region(self, points: np.ndarray) -> np.ndarray:
        """Map image pixels (..., 2) to fractions of the region from its top left corner."""
        return (np.asarray(points) - self.center) @ np.linalg.inv(self.axes).T + 0.5

    def steadied(self, before: Region) -> Region:
        """This region moved back towards the one of the frame before, the more the less they differ.

        A crop that trembles makes the landmarks tremble: on real clips this takes 10-20 % off their noise.
        """
        shift = self.center - before.center
        growth = np.log(self.size / before.size)
        turn = np.remainder(self.angle - before.angle + np.pi, 2 * np.pi) - np.pi
        change = np.hypot(*shift) / self.size + abs(growth) + abs(turn)
        weight = min(1.0, STEADY_WEIGHT + STEADY_GAIN * change)
        size = before.size * np.exp(weight * growth)
        return Region(before.center + weight * shift, float(size), float(before.angle + weight * turn))

    def bounds(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Smallest upright box of whole pixels around the region inside the image: left, top, right, bottom."""
        corners = self.to_image(np.array([[0, 0], [1, 0], [0, 1], [1, 1]]))
        left, top = np.floor(corners.min(0) - 1).astype(int)
        right, bottom = np.ceil(corners.max(0) + 1).astype(int)
        return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def crop(frame: np.ndarray, region: Region, size: int) -> np.ndarray:
    """Sample a region of a frame (H, W, 3) uint8 into (size, size, 3) uint8; black outside the image.

    Only the region's bounding box is touched, and it is thinned first where the region is much larger than the crop.
    """
    from PIL import Image

    left, top, right, bottom = region.bounds(frame.shape[1], frame.shape[0])
    step = max(1, int(region.size / size / 2))
    first = step // 2
    if right - left <= first or bottom - top <= first:
        return np.zeros((size, size, 3), np.uint8)
    pixels = np.ascontiguousarray(frame[top + first : bottom : step, left + first : right : step])
    origin = np.array([left, top]) + first + 0.5 - 0.5 * step
    matrix = region.axes / (size * step)
    shift = (region.to_image(np.zeros(2)) - origin) / step
    coefficients = (matrix[0, 0], matrix[0, 1], shift[0], matrix[1, 0], matrix[1, 1], shift[1])
    image = Image.fromarray(pixels)
    warped = image.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.asarray(warped)


def refine_landmarks(points: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Move regressed landmarks to the centre of mass of the heat map around them, where the map is confident.

    Args:
        points: (L, 2) fractions of the crop.
        heatmap: (H, W, L) logits.

    Returns:
        (L, 2) fractions of the crop; a landmark outside the crop or with a weak map is returned unchanged.
    """
    height, width, _ = heatmap.shape
    cells = np.floor(points * (width, height)).astype(int)
    offsets = np.arange(-REFINE_WINDOW, REFINE_WINDOW + 1)
    columns, rows = cells[:, 0, None] + offsets, cells[:, 1, None] + offsets
    inside = _in_range(rows, height)[:, :, None] & _in_range(columns, width)[:, None, :]
    landmark = np.arange(len(points))[:, None, None]
    logits = heatmap[rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :], landmark]
    weights = np.where(inside, sigmoid(logits), 0.0)
    total = np.maximum(weights.sum(axis=(1, 2)), 1e-9)
    mean = np.stack([(weights.sum(1) * columns).sum(1), (weights.sum(2) * rows).sum(1)], axis=1) / total[:, None]
    usable = (weights.max(axis=(1, 2)) >= REFINE_MIN_CONFIDENCE) & _in_range(cells, np.array([width, height])).all(1)
    return np.where(usable[:, None], mean / (width, height), points)


def _in_range(values: np.ndarray, limit: int | np.ndarray) -> np.ndarray:
    return (values >= 0) & (values < limit)


def keypoint_similarity(first: np.ndarray, second: np.ndarray, scores: np.ndarray, tolerance: float = 0.1) -> float:
    """How alike two poses are, from 0 to 1: a Gaussian of the joint distances relative to the body's extent.

    Args:
        first: (J, 2) pixels.
        second: (J, 2) pixels.
        scores: (J,) weights of the joints.
        tolerance: distance that counts as one standard deviation, as a fraction of the body's extent.
    """
    extent = max(float(np.ptp(first, axis=0).max()), float(np.ptp(second, axis=0).max()), 1e-6)
    squared = ((first - second) ** 2).sum(-1) / (tolerance * extent) ** 2
    return float((np.exp(-squared / 2) * scores).sum() / max(float(scores.sum()), 1e-6))
