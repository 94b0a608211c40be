"""The reference lifter ready to use: `TemporalLifter` does with temporal weights what `Lifter` does with the default.

The networks see keypoints in screen coordinates and no camera, in one layout and at one frame rate, and every joint in
every frame. So the keypoints are mapped and resampled, and holes are interpolated, as the paper's own preparation does.
Where the person is comes from the trajectory net, or in closed form from the rays of the keypoints; either is then
fitted to the 2D evidence through the camera that is really there.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lifting.anatomy import H36M, check_height, stature
from lifting.cameras import Camera
from lifting.checkpoints import file_hash
from lifting.cleaning import clean
from lifting.datasets.windows import fill_unseen, screen_coordinates
from lifting.keypoints import Keypoints2D
from lifting.models.temporal import lift_sequence
from lifting.models.temporal_file import TemporalWeights, load_temporal
from lifting.motion import RADIUS_68, Motion
from lifting.predict import (
    INPUT,
    SIGMA_LIMIT,
    SIGMA_PER_SECOND,
    Lifted,
    fitting_camera,
    reprojection_error,
    uncleaned,
)
from lifting.resampling import resample_keypoints, resample_values, same_rate
from lifting.skeletons import Skeleton
from lifting.trajectory import NEAREST, fit_trajectory

if TYPE_CHECKING:
    from lifting.streaming import PoseStream

USUAL_ERROR = 0.060  # metres, where the file states no mean error of its own
MEAN_OF_NORMAL = 1.5958  # standard deviations per axis in the mean length of a normal distribution in 3D
LEAST_JOINTS = 3  # seen joints that place a person: two leave depth and size of the pose to noise
_MIRROR = np.array([-1, 1, 1], np.float32)


class TemporalLifter:
    """Temporal weights, ready to use; the same methods as `lifting.predict.Lifter`.

    These networks state no uncertainty. The sigma of their motions is one number for all joints, the radius that goes
    with the mean error that the file states (``mpjpe_mm`` of its metrics, else 60 mm), and grows away from the frames
    in which the body was seen as the default lifter's does.
    """

    def __init__(self, weights: TemporalWeights, device: str = "cpu", source: str = "memory") -> None:
        self.pose = weights.pose.to(device).eval()
        self.trajectory = None if weights.trajectory is None else weights.trajectory.to(device).eval()
        self.header, self.device, self.source = weights.header, device, source
        self.skeleton_in, self.skeleton_out = weights.skeleton_in, weights.skeleton_out
        self.fps = weights.header.fps

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> TemporalLifter:
        """Load temporal weights; FileNotFoundError or ValueError, naming the file, when it is missing or none."""
        return cls(load_temporal(path), device, f"{Path(path).name} {file_hash(path)}")

    def predict(self, keypoints: Keypoints2D, camera: Camera | None = None, **options: object) -> Motion:
        """The motion of `lift`, for any layout that maps to the weights' own."""
        return self.lift(keypoints, camera, **options).motion

    def lift(
        self,
        keypoints: Keypoints2D,
        camera: Camera | None = None,
        *,
        height: float | None = None,
        repair: bool = True,
        flip: bool = True,
        refine: bool = True,
        causal: bool = False,
        lookahead: int = 0,
    ) -> Lifted:
        """Lifts one person's keypoints to joints and trajectory in metres, camera axes; arguments as `Lifter.lift`.

        ``cleaned`` of the result is in the layout of the weights. A joint that is never seen is given to the network in
        the middle of those that are. With ``refine=False`` the root is the trajectory net's, or each frame's best by
        itself. With ``causal`` the only look-ahead is 0. Raises ValueError as `Lifter.lift`, when no frame shows three
        joints that place the person, and for a height with weights of another layout than H36M's.
        """
        check_height(height)
        camera = fitting_camera(keypoints, camera)
        if causal:
            from lifting.streaming import lift_causally

            return lift_causally(self, keypoints, camera, lookahead=lookahead, height=height, repair=repair, flip=flip,
                                 refine=refine)  # fmt: skip
        points = keypoints.to(self.skeleton_in)
        cleaned = clean(points) if repair else uncleaned(points)
        points = cleaned.keypoints
        if not points.seen.any():
            raise ValueError(f"none of the {len(points)} frames has a visible joint; check scores and layout")
        motion = self._lift_points(points, camera, flip, refine)
        scale = 1.0 if height is None else height / self._stature(motion)
        motion = motion.replace(joints=motion.joints * scale, trajectory=motion.trajectory * scale,
                                sigma=motion.sigma * scale)
        return Lifted(motion, cleaned, missed_by(points, camera, motion), scale)

    def stream(self, camera: Camera | None = None, **options: object) -> PoseStream:
        """A stream of poses as `Lifter.stream`; the only look-ahead is 0. Raises ValueError for weights not causal."""
        from lifting.streaming import PoseStream
        from lifting.streaming_networks import ScreenNetwork

        network = ScreenNetwork(self, options.pop("lookahead", 0), options.pop("flip", True))
        return PoseStream(network, camera, **options)

    def run(self, features: np.ndarray, flip: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """The bare networks on features (T, J, 2|3), screen coordinates and score, at their own rate.

        Returns joints (T, J_out, 3) metres relative to the root and root (T, 3) metres, None without trajectory net.
        Works through long sequences in blocks; the result does not depend on where they are cut.
        """
        batch = self.batch(features, flip)
        path = None if self.trajectory is None else lift_sequence(self.trajectory, batch)
        return self.merge(lift_sequence(self.pose, batch), path)

    def batch(self, features: np.ndarray, flip: bool) -> torch.Tensor:
        """Features (T, J, 2|3) as a batch of one, or with `flip` of two: themselves and mirrored."""
        batch = features[None]
        if flip:
            mirrored = features[:, list(self.skeleton_in.flip)]
            mirrored[..., 0] *= -1
            batch = np.stack([features, mirrored])
        return torch.from_numpy(np.ascontiguousarray(batch, np.float32)).to(self.device)

    def merge(self, pose: torch.Tensor, path: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Joints (T, J_out, 3) and root (T, 3) or None from what the nets say of a `batch`."""
        joints = _unflipped(pose.cpu().numpy(), self.skeleton_out.flip)
        joints[:, self.skeleton_out.root] = 0  # by definition; the net only comes close
        return joints, None if path is None else _unflipped(path.cpu().numpy(), (0,))[:, 0]

    def _lift_points(self, points: Keypoints2D, camera: Camera, flip: bool, refine: bool) -> Motion:
        """The motion of keypoints in the weights' layout, at the keypoints' rate."""
        xy, scores, rate = points.xy, points.score, points.fps
        resampled = not same_rate(points.fps, self.fps)
        if resampled:
            xy, scores = resample_keypoints(xy, scores, points.fps, self.fps)
            rate = self.fps
        joints, root = self.run(self.features(xy, scores, points.image_size), flip)
        root = self._place(joints, root, camera.rays(xy).astype(np.float32), scores, rate, refine)
        if resampled:
            joints, root = (resample_values(values, rate, points.fps, len(points)) for values in (joints, root))
        return Motion(joints, root, self._sigma(points), self.skeleton_out, points.fps)

    def features(self, xy: np.ndarray, scores: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Network input (T, J, 2|3) of pixels (T, J, 2), NaN unseen, and scores (T, J)."""
        features = screen_coordinates(fill_unseen(xy), image_size).astype(np.float32)
        if self.pose.config.features_in == 3:
            features = np.concatenate([features, scores[..., None]], axis=-1)
        return features

    def _place(self, joints: np.ndarray, root: np.ndarray | None, rays: np.ndarray, scores: np.ndarray, rate: float,
               refine: bool) -> np.ndarray:  # fmt: skip
        """Root (T, 3) metres that goes with joints (T, J, 3) and rays (T, J_in, 2); `root`: the net's own or None."""
        joints = same_names(joints, self.skeleton_out, H36M)
        rays = same_names(rays, self.skeleton_in, INPUT)
        scores = np.nan_to_num(same_names(scores[..., None], self.skeleton_in, INPUT)[..., 0])
        scores = np.where(np.isfinite(rays).all(-1), scores, 0)
        if root is None:
            root = locate(joints, rays, scores)
        if not refine:
            return root
        sigma = np.full(joints.shape[:2], self.usual_sigma, np.float32)
        return fit_trajectory(joints, root, sigma, rays, scores, rate)

    @property
    def usual_sigma(self) -> float:
        """Radius in metres that holds 68 % of the errors, if they are normal with the mean that the file states."""
        stated = self.header.metrics.get("mpjpe_mm")
        known = isinstance(stated, (int, float)) and 0 < stated < float("inf")
        return (stated / 1000 if known else USUAL_ERROR) * RADIUS_68 / MEAN_OF_NORMAL

    def _sigma(self, points: Keypoints2D) -> np.ndarray:
        """(T, J_out) metres."""
        seen = np.flatnonzero(points.seen.sum(-1) >= min(LEAST_JOINTS, points.skeleton.num_joints))
        frames = np.arange(len(points))
        away = np.zeros(len(points))
        if len(seen):
            after = np.searchsorted(seen, frames)
            low, high = seen[np.maximum(after - 1, 0)], seen[np.minimum(after, len(seen) - 1)]
            away = np.minimum(np.abs(frames - low), np.abs(high - frames)) / points.fps
        sigma = self.usual_sigma
        grown = np.minimum(sigma + SIGMA_PER_SECOND * away, max(sigma, SIGMA_LIMIT))
        return np.repeat(grown[:, None], self.skeleton_out.num_joints, axis=1)

    def _stature(self, motion: Motion) -> float:
        if self.skeleton_out != H36M:
            raise ValueError(f"got a height, but the weights give the layout {self.skeleton_out.name}, expected "
                             f"{H36M.name} to measure a stature in; leave the height out")
        return stature(motion.joints)


def same_names(values: np.ndarray, source: Skeleton, target: Skeleton) -> np.ndarray:
    """Values (T, J_source, C) in the columns of the same names of `target`: (T, J_target, C), NaN elsewhere."""
    moved = np.full((len(values), target.num_joints, values.shape[-1]), np.nan, np.float32)
    here, there = _shared_columns(source, target)
    moved[:, there] = values[:, here]
    return moved


@lru_cache(maxsize=16)
def _shared_columns(source: Skeleton, target: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the names that both have, in the source and in the target."""
    shared = [name for name in target.joints if name in source.joints]
    return np.array(source.indices(shared), int), np.array(target.indices(shared), int)


def locate(joints: np.ndarray, rays: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Each frame's root (T, 3) metres, camera axes, that brings the joints nearest to their rays in least squares.

    joints: (T, 17, 3) H36M-17 metres relative to the root; rays: (T, 17, 2) in the layout ``lift17``; scores: (T, 17),
    0 where unseen. Frames with fewer than three seen joints are interpolated. Raises ValueError when there are no
    others.
    """
    columns_in, columns_out = _shared_columns(INPUT, H36M)
    points, weight = joints[:, columns_out].astype(np.float64), scores[:, columns_in].astype(np.float64)
    weight = np.where(np.isfinite(points).all(-1), weight, 0)
    seen = weight > 0
    points, uv = (np.where(seen[..., None], v, 0.0) for v in (points, rays[:, columns_in].astype(np.float64)))
    placed = np.flatnonzero(seen.sum(-1) >= LEAST_JOINTS)
    if not len(placed):
        raise ValueError(f"none of the {len(points)} frames shows {LEAST_JOINTS} of the limbs' joints that say where "
                         "the person is; check scores and layout")
    # root_xy - uv root_z = uv z - xy, by parts: the best xy follows from z.
    total = weight[placed].sum(-1, keepdims=True)
    points, uv, weight = points[placed], uv[placed], weight[placed, :, None]
    gap = uv * points[..., 2:] - points[..., :2]
    mean_uv, mean_gap = ((weight * v).sum(1) / total for v in (uv, gap))
    centred = uv - mean_uv[:, None]
    spread = np.maximum((weight * centred**2).sum((1, 2)), 1e-9)
    depth = np.maximum(-(weight * centred * (gap - mean_gap[:, None])).sum((1, 2)) / spread, NEAREST)
    root = np.concatenate([mean_gap + mean_uv * depth[:, None], depth[:, None]], axis=-1)
    frames = np.arange(len(joints))
    return np.stack([np.interp(frames, placed, root[:, axis]) for axis in range(3)], axis=-1).astype(np.float32)


def _unflipped(outputs: np.ndarray, flip: tuple[int, ...]) -> np.ndarray:
    """Mean of what came of a sequence and of its mirrored twin: (1 or 2, T, J, 3) to (T, J, 3)."""
    if len(outputs) == 1:
        return outputs[0]
    return (outputs[0] + outputs[1][:, list(flip)] * _MIRROR) / 2


def missed_by(points: Keypoints2D, camera: Camera, motion: Motion) -> float:
    """Median distance in pixels between seen keypoints and reprojected joints of the same names."""
    xy, joints = same_names(points.xy, points.skeleton, INPUT), same_names(motion.joints, motion.skeleton, H36M)
    return reprojection_error(points.replace(xy=xy, score=None, skeleton=INPUT), camera,
                               motion.replace(joints=joints, sigma=None, skeleton=H36M))
