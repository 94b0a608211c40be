"""A body's shape from the lengths of the bones seen: ridge regression in closed form."""

from __future__ import annotations

import numpy as np

from lifting.body.model import BodyModel
from lifting.body.points import Kinematics, PointSet
from lifting.body.seen_points import HIPS, NECK, PELVIS, SHOULDERS, SIDES, SeenPoints

# Pairs of points whose distance tells of the shape, with the deviation in metres that pose and definition give it.
BONES = (
    *((f"{side}_{first}", f"{side}_{second}", 0.006) for side in SIDES
      for first, second in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))),
    *((f"{side}_ankle", f"{side}_big_toe", 0.008) for side in SIDES),
    *((f"{side}_shoulder", f"{side}_hip", 0.03) for side in SIDES),
    *((pelvis, neck, 0.02) for pelvis in PELVIS for neck in NECK),
    (*HIPS, 0.01), (*SHOULDERS, 0.02), ("left_ear", "right_ear", 0.008), ("thorax", "head", 0.01),
)  # fmt: skip
HEIGHT_SIGMA = 0.002  # metres: a known height shall win over bone lengths of a wrong scale
_STEP = 0.1  # of a shape coefficient, in its deviations, for the slope of the stature


def fit_shape(
    body: BodyModel,
    points: PointSet,
    seen: SeenPoints,
    height: float | None = None,
    shape: np.ndarray | None = None,
    rotations: np.ndarray | None = None,
) -> np.ndarray:
    """One Gauss-Newton step on the median bone lengths, with the shape's prior as ridge.

    Distances of points on the skin depend a little on the pose: a second step at the pose found meanwhile is exacter.

    Args:
        body: the body; points: its points in the layout of `seen`.
        seen: the observed points.
        height: standing height in metres, where known.
        shape: (S,) where to start, default the mean.
        rotations: (T, K, 3, 3) poses like those seen, default the rest pose.

    Returns:
        (S,) shape coefficients.
    """
    shape = body.shape_of(shape)
    rotations = np.tile(np.eye(3), (1, body.num_joints, 1, 1)) if rotations is None else rotations
    kinematics = body.kinematics(rotations, np.zeros((len(rotations), 3)), shape)
    rows, misfits = [np.diag(1 / body.shape_sigma)], [-shape / body.shape_sigma]
    bones = [(*bone, seen.median_distance(*bone[:2])) for bone in BONES]
    for slope, misfit in _length_rows(points, kinematics, shape, seen, [bone for bone in bones if bone[3]]):
        rows.append(slope[None])
        misfits.append([misfit])
    if height is not None:
        rows.append(_stature_slope(body, shape)[None] / HEIGHT_SIGMA)
        misfits.append([(height - body.stature(shape)) / HEIGHT_SIGMA])
    return shape + np.linalg.lstsq(np.concatenate(rows), np.concatenate(misfits), rcond=None)[0]


def _length_rows(points: PointSet, kinematics: Kinematics, shape: np.ndarray, seen: SeenPoints, bones: list):
    """Yield for each bone (first, second, sigma, length seen) the whitened slope (S,) of its length and its misfit."""
    xyz, _, slopes = points.jacobian(kinematics, shape)
    for first, second, sigma, length in bones:
        a, b = seen.column[first], seen.column[second]
        vector = xyz[:, b] - xyz[:, a]
        norm = np.maximum(np.linalg.norm(vector, axis=-1), 1e-6)
        slope = np.einsum("tc,tcs->ts", vector / norm[:, None], slopes[:, b] - slopes[:, a])
        yield slope.mean(axis=0) / sigma, (length - np.median(norm)) / sigma


def _stature_slope(body: BodyModel, shape: np.ndarray) -> np.ndarray:
    moves = np.diag(_STEP * body.shape_sigma)
    rises = [body.stature(shape + move) - body.stature(shape - move) for move in moves]
    return np.array(rises) / (2 * _STEP * body.shape_sigma)
