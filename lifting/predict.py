"""From 2D keypoints of one person to 3D motion: `Lifter` and `predict`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lifting.anatomy import H36M, bone_lengths, check_height, stature
from lifting.assumptions import AssumptionWarning, announce
from lifting.cameras import Camera, estimate_focal
from lifting.checkpoints import Header, file_hash, load_weights
from lifting.cleaning import Cleaned, clean
from lifting.keypoint_arrays import keypoints_from_array
from lifting.keypoints import Keypoints2D
from lifting.models import build
from lifting.models.lifter import NUM_CORE, Lift, LifterConfig, LiftNet
from lifting.motion import Motion
from lifting.refinement import refine_pose
from lifting.resampling import resample_keypoints, resample_values, same_rate
from lifting.skeletons import Skeleton, get_skeleton
from lifting.trajectory import fit_trajectory

if TYPE_CHECKING:
    from lifting.predict_temporal import TemporalLifter
    from lifting.streaming import PoseStream

WEIGHTS = Path(__file__).parent / "weights" / "lifter.safetensors"
CAUSAL_WEIGHTS = WEIGHTS.with_name("lifter_causal.safetensors")
INPUT = get_skeleton("lift17")
CHUNK = 2048  # frames per forward pass: bounds memory, changes nothing
BLIND_SECONDS = 0.25  # longer spans without evidence are bridged instead of believed
SIGMA_PER_SECOND = 0.4  # metres: how fast the uncertainty grows away from the last seen frame
SIGMA_LIMIT = 0.6
SMALLEST_SIGMA = 1e-3  # metres
_IN_FLIP, _OUT_FLIP = np.array(INPUT.flip), np.array(H36M.flip)
_HIPS = H36M.indices(["left_hip", "right_hip"])


@dataclass(frozen=True)
class Lifted:
    """A lift and what it rests on.

    motion: camera frame, at the keypoints' frame rate. cleaned: the keypoints (layout ``lift17``) that were lifted, and
    the repairs. reprojection_px: median distance in pixels between seen keypoints and reprojected joints. scale: factor
    that ``height`` applied (1 without).
    """

    motion: Motion
    cleaned: Cleaned
    reprojection_px: float
    scale: float


class Lifter:
    """A trained lifter, ready to use. ``Lifter.load()`` gives the default weights."""

    def __init__(self, network: LiftNet, header: Header, device: str = "cpu", source: str = "memory") -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.header, self.device, self.source = header, device, source
        self.fps = header.fps
        self._context = LifterConfig(**header.config).receptive_field - 1

    @classmethod
    def load(
        cls, path: str | Path | None = None, device: str = "cpu", *, causal: bool = False
    ) -> Lifter | TemporalLifter:
        """Loads weights written by lift; without a path, the default ones inside the package.

        Weights of the reference network (kind ``temporal``) give a `TemporalLifter`, which has the same methods.
        causal: without a path, the default ones of the package that see no later frame, for `stream`. Raises
        FileNotFoundError or ValueError, naming the file, when it is missing or no lifter.
        """
        if path is None and causal and not CAUSAL_WEIGHTS.is_file():
            raise FileNotFoundError(f"this installation has no causal weights ({CAUSAL_WEIGHTS.name} is missing from "
                                    f"{CAUSAL_WEIGHTS.parent}); install lift again, or pass a file of causal weights")
        path = Path(path) if path is not None else CAUSAL_WEIGHTS if causal else WEIGHTS
        tensors, header = load_weights(path)
        if header.kind == "temporal":
            from lifting.predict_temporal import TemporalLifter

            return TemporalLifter.load(path, device)
        if header.kind != "lifter" or header.skeleton_in != INPUT.name or header.skeleton_out != H36M.name:
            raise ValueError(
                f"{path} holds a {header.kind!r} from {header.skeleton_in} to {header.skeleton_out}, expected a "
                f"'lifter' from {INPUT.name} to {H36M.name}; pass weights of the default lifter's kind"
            )
        try:
            with torch.device("meta"):  # no memory and no random numbers for what is replaced at once
                network = build(LifterConfig(**header.config))
            network.load_state_dict(tensors, assign=True)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"the tensors in {path} do not fit its own header; get the file again, or train "
                             "weights of an earlier version anew") from error
        return cls(network, header, device, f"{path.name} {file_hash(path)}")

    def predict(self, keypoints: Keypoints2D, camera: Camera | None = None, **options: object) -> Motion:
        """The motion of `lift`, for any layout that maps to the lifter's input."""
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
        """Lifts one person's keypoints to joints, trajectory and sigma in metres, camera axes.

        Args:
            keypoints: T frames of any registered layout.
            camera: intrinsics; without it the focal length is assumed to be the image diagonal (`AssumptionWarning`).
            height: the person's stature in metres; fixes the scale of joints and trajectory.
            repair: undo left/right swaps and mask outliers first.
            flip: average with the mirrored input (test-time augmentation), as one batch of two.
            refine: fit trajectory and pose to the 2D evidence, with bones of constant length (`lifting.refinement`).
            causal: every step from past frames alone, and the same numbers as `stream` gives; needs causal weights.
            lookahead: with ``causal``, how many frames of the network's rate each pose may see ahead; one of the
                network's (0, 5, 15).

        Raises ValueError when nothing is seen, when the camera's image has another aspect than the keypoints', when the
        layout cannot be mapped, the height is not between 0.3 and 3 m or the weights are not causal.
        """
        check_height(height)
        camera = fitting_camera(keypoints, camera)
        if causal:
            from lifting.streaming import lift_causally

            return lift_causally(self, keypoints, camera, lookahead=lookahead, height=height, repair=repair, flip=flip,
                                 refine=refine)  # fmt: skip
        points = keypoints.to(INPUT)
        cleaned = clean(points) if repair else uncleaned(points)
        points = cleaned.keypoints
        rays = camera.rays(points.xy).astype(np.float32)
        scores = np.where(np.isfinite(rays).all(-1), points.score, 0).astype(np.float32)
        if not (scores[:, :NUM_CORE] > 0).any():
            raise ValueError(
                f"none of the {len(points)} frames has a visible body joint (nose to ankles); check scores and layout"
            )
        joints, root, sigma = self._lift_rays(rays, scores, points.fps, flip, refine)
        scale = 1.0 if height is None else height / stature(joints)
        motion = Motion(joints * scale, root * scale, sigma * scale, H36M, points.fps)
        return Lifted(motion, cleaned, reprojection_error(points, camera, motion), scale)

    def stream(self, camera: Camera | None = None, **options: object) -> PoseStream:
        """A `lifting.streaming.PoseStream`, which takes one frame at a time; options as there.

        Raises ValueError for weights that are not causal.
        """
        from lifting.streaming import PoseStream
        from lifting.streaming_networks import RayNetwork

        network = RayNetwork(self, options.pop("lookahead", 0), options.pop("flip", True))
        return PoseStream(network, camera, **options)

    def _lift_rays(
        self, rays: np.ndarray, scores: np.ndarray, fps: float, flip: bool, refine: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joints (T, 17, 3), root (T, 3) and sigma (T, 17) in metres at the clip's own rate."""
        frames, resampled = len(rays), not same_rate(fps, self.fps)
        if resampled:
            rays, scores = resample_keypoints(rays, scores, fps, self.fps)
        rate = self.fps if resampled else fps
        joints, root, sigma = self.run(rays, scores, flip)
        joints, root, sigma = bridge_blind_spans(joints, root, sigma, scores, rate)
        if refine:
            placed = fit_trajectory(joints, root, sigma, rays, scores, rate)
            joints, _ = refine_pose(joints, placed, np.maximum(sigma, SMALLEST_SIGMA), rays, scores, rate)
            root = fit_trajectory(joints, root, sigma, rays, scores, rate)  # better joints place themselves better
        if resampled:
            joints, root, sigma = (resample_values(v, rate, fps, frames) for v in (joints, root, sigma))
        return joints, root, np.maximum(sigma, SMALLEST_SIGMA)

    def run(
        self, rays: np.ndarray, scores: np.ndarray, flip: bool = True, lookahead: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bare network on rays (T, 17, 2) and scores (T, 17) at its own rate: joints, root, sigma.

        Long sequences go through in overlapping chunks; the result does not depend on where they are cut.
        """
        frames = len(rays)
        joints = np.empty((frames, H36M.num_joints, 3), np.float32)
        root, sigma = np.empty((frames, 3), np.float32), np.empty((frames, H36M.num_joints), np.float32)
        for start in range(0, frames, CHUNK):
            stop = min(start + CHUNK, frames)
            low, high = max(0, start - self._context), min(frames, stop + self._context)
            parts = self._forward(rays[low:high], scores[low:high], flip, lookahead)
            for whole, part in zip((joints, root, sigma), parts, strict=True):
                whole[start:stop] = part[start - low : stop - low]
        return joints, root, sigma

    @torch.inference_mode()
    def _forward(self, rays: np.ndarray, scores: np.ndarray, flip: bool, lookahead: int) -> tuple[np.ndarray, ...]:
        batch = (torch.from_numpy(a).to(self.device) for a in with_mirrored(rays, scores, flip))
        return merge_mirrored(self.network.lift(*batch, lookahead))


def with_mirrored(rays: np.ndarray, scores: np.ndarray, flip: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rays (T, 17, 2) and scores (T, 17) as a batch of one, or with `flip` of two: themselves and mirrored."""
    pairs = [(rays, scores)]
    if flip:
        pairs.append((rays[:, _IN_FLIP] * np.array([-1, 1], np.float32), scores[:, _IN_FLIP]))
    rays, scores = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    return rays, scores


def merge_mirrored(lift: Lift) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joints (T, 17, 3), root (T, 3) and sigma (T, 17) from the lift of a batch of `with_mirrored`."""
    joints, root, sigma = lift.joints.cpu().numpy(), lift.root.cpu().numpy(), lift.log_sigma.exp().cpu().numpy()
    if len(joints) == 2:
        mirror = np.array([-1, 1, 1], np.float32)
        joints = (joints[0] + joints[1][:, _OUT_FLIP] * mirror) / 2
        root, sigma = (root[0] + root[1] * mirror) / 2, (sigma[0] + sigma[1][:, _OUT_FLIP]) / 2
    else:
        joints, root, sigma = joints[0], root[0], sigma[0]
    sigma[:, 0] = sigma[:, _HIPS].mean(-1)  # the root has no error of its own; it gets that of the hips
    return joints, root, sigma


def bridge_blind_spans(
    joints: np.ndarray, root: np.ndarray, sigma: np.ndarray, scores: np.ndarray, rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Replaces what the network made up in spans without evidence by a bridge between their ends, and lets sigma grow.

    A frame is blind with fewer than three body joints. Short blind spans are left to the network, which has learned
    them. Limb directions are interpolated and bones keep their lengths; before the first and after the last seen frame
    the pose is held. joints (T, 17, 3), root (T, 3), sigma (T, 17); scores (T, 17) of the input; rate in frames/s.
    """
    blind = (scores[:, :NUM_CORE] > 0).sum(-1) < 3
    if not blind.any() or blind.all():
        return joints, root, sigma
    seen = np.flatnonzero(~blind)
    frames = np.arange(len(blind))
    after = np.searchsorted(seen, frames)
    low, high = seen[np.maximum(after - 1, 0)], seen[np.minimum(after, len(seen) - 1)]
    low = np.where(frames < seen[0], seen[0], low)
    low, high = np.where(blind, low, frames), np.where(blind, high, frames)
    at_end = (frames < seen[0]) | (frames > seen[-1])
    long = blind & (at_end | ((high - low) > BLIND_SECONDS * rate))
    part = ((frames - low) / np.maximum(high - low, 1)).clip(0, 1).astype(np.float32)[long]
    joints, root = joints.copy(), root.copy()
    joints[long] = _blend_poses(joints[low[long]], joints[high[long]], part)
    root[long] = root[low[long]] * (1 - part[:, None]) + root[high[long]] * part[:, None]
    away = np.minimum(np.abs(frames - low), np.abs(high - frames)) / rate  # 0 where the frame itself is seen
    grown = np.minimum(sigma + SIGMA_PER_SECOND * away[:, None], np.maximum(sigma, SIGMA_LIMIT))
    return joints, root, np.where(blind[:, None], grown, sigma).astype(np.float32)


def _blend_poses(first: np.ndarray, second: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Poses (n, 17, 3) between two, with interpolated bone lengths. part: (n,) from 0 (first) to 1 (second)."""
    part = part[:, None, None]
    pose = first * (1 - part) + second * part
    lengths = bone_lengths(first) * (1 - part[..., 0]) + bone_lengths(second) * part[..., 0]
    blended = np.zeros_like(pose)
    for k, (parent, child) in enumerate(H36M.bones):
        bone = pose[:, child] - pose[:, parent]
        bone *= (lengths[:, k] / np.maximum(np.linalg.norm(bone, axis=-1), 1e-6))[:, None]
        blended[:, child] = blended[:, parent] + bone
    return blended


def reprojection_error(points: Keypoints2D, camera: Camera, motion: Motion) -> float:
    """Median pixel distance between seen keypoints and reprojected joints of the same name."""
    shared = [name for name in INPUT.joints if name in H36M.joints]
    projected = camera.project(motion.absolute[:, H36M.indices(shared)])
    distance = np.linalg.norm(projected - points.xy[:, INPUT.indices(shared)], axis=-1)
    distance = distance[np.isfinite(distance)]
    return float(np.median(distance)) if distance.size else float("nan")


def fitting_camera(keypoints: Keypoints2D, camera: Camera | None) -> Camera:
    if camera is not None and not isinstance(camera, Camera):
        raise ValueError(f"got a camera of type {type(camera).__name__}, expected a Camera; use read_camera for files")
    if camera is None:
        focal, sentence = estimate_focal(keypoints.image_size)
        camera = Camera.from_focal(focal, keypoints.image_size)
        announce(sentence)
    if tuple(camera.image_size) != keypoints.image_size:
        camera = camera.resized(keypoints.image_size)
    return camera


def uncleaned(points: Keypoints2D) -> Cleaned:
    nothing = np.zeros(points.xy.shape[:2], bool)
    return Cleaned(points, np.zeros(len(points), np.uint8), nothing, nothing)


@lru_cache(maxsize=2)
def default_lifter(device: str = "cpu", causal: bool = False) -> Lifter:
    """The default lifter, or the causal one for streams, loaded once."""
    return Lifter.load(device=device, causal=causal)


def predict(
    keypoints: Keypoints2D | np.ndarray,
    *,
    fps: float | None = None,
    image_size: tuple[int, int] | None = None,
    skeleton: str | Skeleton | None = None,
    camera: Camera | None = None,
    focal: float | None = None,
    height: float | None = None,
    lifter: Lifter | None = None,
    repair: bool = True,
    flip: bool = True,
    refine: bool = True,
    causal: bool = False,
    lookahead: int = 0,
) -> Motion:
    """3D motion of one person from 2D keypoints.

    Args:
        keypoints: `Keypoints2D`, or an array (T, J, 2) of pixels or (T, J, 3) with confidences; (J, 2|3) is one frame.
            NaN, confidence 0 or, without confidences, exactly (0, 0) where a joint is not seen.
        fps: frames per second; 30 is assumed for arrays without it.
        image_size: (width, height) pixels; assumed from the camera, or from the spread of the points.
        skeleton: layout of the J joints; by default 17 columns mean COCO-17, 23 COCO-17 + feet, 25 BODY-25, 26
            Halpe-26, 33 MediaPipe, 32 H36M-32, 16 MPII, 15 HumanEva, 24 SMPL.
        camera: intrinsics. focal: focal length in pixels instead; without both, the image diagonal is assumed.
        height: the person's stature in metres, fixes the scale.
        lifter: other weights than the default ones.
        repair, flip, refine: as in `Lifter.lift`.
        causal, lookahead: as in `Lifter.lift`; without a lifter, the default causal one.

    Returns:
        `Motion` with T frames, finite everywhere: joints (T, 17, 3) and trajectory (T, 3) in metres, camera axes.

    What is assumed is announced by an `AssumptionWarning`. Raises ValueError for wrong shapes, sizes or rates, and when
    nothing is seen.
    """
    if not isinstance(keypoints, Keypoints2D):
        keypoints = keypoints_from_array(keypoints, fps, image_size, skeleton, camera)
    elif fps is not None or image_size is not None or skeleton is not None:
        raise ValueError("got Keypoints2D together with fps, image_size or skeleton, which it already holds; drop them")
    if focal is not None:
        if camera is not None:
            raise ValueError("got both a camera and a focal length; pass only one of them")
        camera = Camera.from_focal(focal, keypoints.image_size)
    return (lifter or default_lifter(causal=causal)).predict(
        keypoints, camera, height=height, repair=repair, flip=flip, refine=refine, causal=causal, lookahead=lookahead
    )


__all__ = ["AssumptionWarning", "Lifted", "Lifter", "default_lifter", "predict"]
