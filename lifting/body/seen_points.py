"""Observed points of a clip made ready for closed-form steps: checked, found by name, gaps bridged over time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from lifting.skeletons import Skeleton, mirror_name

SIDES = ("left", "right")
HIPS = ("left_hip", "right_hip")
SHOULDERS = ("left_shoulder", "right_shoulder")
PELVIS = ("hip", "pelvis", "mid_hip")
NECK = ("thorax", "neck")  # layouts that have both call the base of the neck thorax
BRIDGED_WEIGHT = 1e-2


@dataclass(frozen=True, eq=False)
class SeenPoints:
    """Points of T frames without gaps.

    Attributes:
        xyz: (T, J, 3) metres; columns that no frame shows hold zeros.
        weight: (T, J), 0 where a point was bridged over time.
        column: number of each point that some frame shows, by name.
    """

    xyz: np.ndarray
    weight: np.ndarray
    column: dict[str, int]

    def __len__(self) -> int:
        """T."""
        return len(self.xyz)

    def __getitem__(self, name: str) -> np.ndarray:
        """(T, 3) metres of one point."""
        return self.xyz[:, self.column[name]]

    def take(self, frames: np.ndarray) -> SeenPoints:
        """The points of some frames."""
        return replace(self, xyz=self.xyz[frames], weight=self.weight[frames])

    def present(self, names: Iterable[str]) -> list[str]:
        """Those of some names that are seen, in their order."""
        return [name for name in names if name in self.column]

    def weights(self, names: Iterable[str]) -> np.ndarray:
        """(T, N) weights of some points; bridged ones keep a little, so that no frame is left without any."""
        return np.maximum(self.weight[:, [self.column[name] for name in names]], BRIDGED_WEIGHT)

    def median_distance(self, first: str, second: str) -> float | None:
        """Median distance in metres of two points over the frames that show both; None where no frame does."""
        if first not in self.column or second not in self.column:
            return None
        both = (self.weight[:, [self.column[first], self.column[second]]] > 0).all(axis=1)
        lengths = np.linalg.norm(self[second][both] - self[first][both], axis=-1)
        return float(np.median(lengths)) if len(lengths) else None

    def exchanged(self, frames: np.ndarray) -> SeenPoints:
        """Left and right exchanged in the frames (T,) that are True."""
        swap = np.arange(self.xyz.shape[1])
        for name, column in self.column.items():
            swap[column] = self.column.get(mirror_name(name), column)
        xyz, weight = self.xyz.copy(), self.weight.copy()
        xyz[frames], weight[frames] = xyz[frames][:, swap], weight[frames][:, swap]
        return replace(self, xyz=xyz, weight=weight)


def read_points(skeleton: Skeleton, targets, weights=None) -> SeenPoints:
    """Check targets (T, J, 3) metres and weights (T, J), and bridge what is NaN or has weight 0.

    Raises ValueError for other shapes, negative weights, and when no frame shows some hip or shoulder.
    """
    xyz = np.array(targets, dtype=np.float64)
    if xyz.ndim != 3 or xyz.shape[1:] != (skeleton.num_joints, 3) or not len(xyz):
        raise ValueError(f"targets have shape {xyz.shape}, expected (T, {skeleton.num_joints}, 3) with at least one "
                         f"frame for skeleton {skeleton.name!r}; name the layout of the points.")
    weight = np.ones(xyz.shape[:2]) if weights is None else np.array(weights, dtype=np.float64)
    if weight.shape != xyz.shape[:2] or not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError(f"weights have shape {weight.shape}, expected {xyz.shape[:2]} finite numbers >= 0; "
                         "give one for each point.")
    seen = np.isfinite(xyz).all(axis=-1) & (weight > 0)
    column = {name: index for index, name in enumerate(skeleton.joints) if seen[:, index].any()}
    if missing := [name for name in HIPS + SHOULDERS if name not in column]:
        raise ValueError(f"the points of skeleton {skeleton.name!r} show no {', '.join(missing)} in any frame; a body "
                         "can only be placed by both hips and both shoulders: give points or a layout with them.")
    return SeenPoints(_bridge(xyz, seen, column), np.where(seen, weight, 0.0), column)


def _bridge(xyz: np.ndarray, seen: np.ndarray, column: dict[str, int]) -> np.ndarray:
    """Interpolate over time, relative to the hips so that held ends walk along; columns never seen become 0."""
    hips = np.mean([_interpolate(xyz[:, column[name]], seen[:, column[name]]) for name in HIPS], axis=0)
    filled = np.zeros_like(xyz)
    for index in column.values():
        filled[:, index] = hips + _interpolate(xyz[:, index] - hips, seen[:, index])
    return filled


def _interpolate(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    if seen.all():
        return values
    frames, known = np.arange(len(values)), np.flatnonzero(seen)
    return np.stack([np.interp(frames, known, values[known, axis]) for axis in range(values.shape[1])], axis=-1)
