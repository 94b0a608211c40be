"""What a lifter saw of one person of a take, as everything that learns from lifted motion wants it.

Upright axes, 25 frames per second, the 2D evidence beside the motion: `SeenMotion` of one piece.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lifting.anatomy import H36M
from lifting.cameras import Camera
from lifting.cleaning import clean
from lifting.gravity import estimate_gravity, is_witness
from lifting.ground import CAMERA_UP, Ground
from lifting.keypoints import Keypoints2D
from lifting.levelling import known_floor
from lifting.motion import Motion, Person, Take
from lifting.resampling import grid_length, resample_keypoints, resample_values, same_rate
from lifting.seen_motion import FPS, SeenMotion
from lifting.world import DOUBTFUL, has_pose, present_frames, present_part

UNKNOWN_SIGMA = 0.01  # metres: of a motion that does not say how far its joints err


@dataclass(frozen=True, eq=False)
class SeenPerson:
    """What was seen of a person, and the way back to their motion.

    Attributes:
        seen: one piece at `FPS`, in world axes.
        span: the frames of the motion, from the first to the last in which the person is present, that it covers.
        rotation: (3, 3), or (n, 3, 3) for the n frames of the span, axes of the motion's frame from world axes.
    """

    seen: SeenMotion
    span: slice
    rotation: np.ndarray


def see_person(
    source: Person | Motion, take: Take | None = None, note: Callable[[str], None] = lambda sentence: None
) -> SeenPerson:
    """What was seen of a person from the first to the last frame in which they are present.

    source: a person, whose `motion` is taken, with the keypoints where the take, which has the camera, is given; or a
    motion alone. Gaps in between are bridged by straight lines. note: is told what was assumed. The world is that of
    `camera_from_world`; where the camera moves, view and rays are those of one that turns no more after the first
    frame. Raises ValueError for a motion that is missing, of another layout or without a single frame in sight.
    """
    motion = source.motion if isinstance(source, Person) else source
    check_motion(motion)
    span = seen_span(motion)
    rotation, translation = (_within(pose, span, still) for pose, still in zip(
        camera_from_world(motion, take, note), (2, 1), strict=True))  # fmt: skip
    part = present_part(with_path(motion))
    arrays = (part.joints @ rotation, _to_world(part.trajectory, rotation, translation), known_sigma(part))
    evidence = ()
    if isinstance(source, Person) and take is not None and motion.trajectory is not None:
        keypoints = source.keypoints.slice(span.start, span.stop)
        if keypoints.seen.any():
            evidence = _evidence(keypoints, take.camera, part, rotation, span)
    frames = _frames(len(part), part.fps)
    joints, root, sigma = (_resampled(values, part.fps, frames)[None] for values in arrays)
    return SeenPerson(SeenMotion(joints, root, np.maximum(sigma, 1e-3), *evidence), span, rotation)


def check_motion(motion: Motion | None) -> None:
    """ValueError for what temporal models cannot read: no motion, another layout, nobody in sight."""
    if motion is None:
        raise ValueError("got a person without a 3D motion; lift the keypoints with lift run.")
    if motion.skeleton != H36M:
        raise ValueError(f"got a motion of the layout {motion.skeleton.name!r}, expected {H36M.name!r}, as lift run "
                         "writes it.")
    if not present_frames(with_path(motion)).any():
        raise ValueError("got a motion in which nobody is seen in any frame, expected at least one.")


def seen_span(motion: Motion) -> slice:
    """The frames from the first to the last in which a person is present."""
    first, last = np.flatnonzero(present_frames(with_path(motion)))[[0, -1]]
    return slice(int(first), int(last) + 1)


def with_path(motion: Motion) -> Motion:
    """The motion with its path, or, where none is known, one that stays at the origin."""
    if motion.trajectory is not None:
        return motion
    return motion.replace(trajectory=np.zeros((len(motion), 3), np.float32))


def known_sigma(motion: Motion) -> np.ndarray:
    """(T, 17) metres, of a motion without gaps; where it does not say, its own median, else `UNKNOWN_SIGMA`."""
    sigma = np.full(motion.joints.shape[:2], UNKNOWN_SIGMA) if motion.sigma is None else motion.sigma
    middle = np.nanmedian(sigma) if np.isfinite(sigma).any() else UNKNOWN_SIGMA
    return np.where(np.isfinite(sigma), sigma, middle)


def camera_from_world(
    motion: Motion, take: Take | None = None, note: Callable[[str], None] = lambda sentence: None
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation R (3, 3) and translation t (3,) with which ``R @ x_world + t`` is in the frame of a motion.

    World axes: +z up. From the placement of the take in the world, its calibrated camera, the floor of its bodies, or
    the motion itself; (T, 3, 3) and (T, 3), either or both, where the camera moves. note: is told what was assumed.
    """
    if motion.frame == "world":
        return np.eye(3), np.zeros(3)
    if take is not None and isinstance(about := take.metadata.get("world"), dict):
        return np.asarray(about["rotation"]), np.asarray(about["translation"])
    if take is not None and has_pose(take.camera):
        return take.camera.rotation, take.camera.translation
    ground = None if take is None else known_floor(take)
    if ground is None:
        ground = _estimated_ground(motion)
        if ground.sigma_degrees > DOUBTFUL or ground.source == "camera":
            note(f"the camera was taken to be about level (gravity within {ground.sigma_degrees:.0f} degrees): the "
                 "motion hardly tells it")
    known = np.isfinite(motion.joints).all((1, 2))
    root = motion.trajectory[known][0] if motion.trajectory is not None and known.any() else np.zeros(3)
    rotation, translation = ground.world(np.nan_to_num(root))
    return rotation.T, -rotation.T @ translation


def _estimated_ground(motion: Motion) -> Ground:
    if is_witness(motion) and present_frames(motion).any():
        return estimate_gravity([present_part(motion)])
    return Ground(np.array(CAMERA_UP), 0.0, 30.0, "camera")


def _within(values: np.ndarray, span: slice, still: int) -> np.ndarray:
    """Poses of a camera in a span of frames; those of one that does not move have `still` axes."""
    return values[span] if values.ndim > still else values


def _to_world(points: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Points (T, 3) in world axes from camera axes."""
    return ((points - translation)[:, None] @ rotation)[:, 0]


def _evidence(
    keypoints: Keypoints2D, camera: Camera, motion: Motion, rotation: np.ndarray, span: slice
) -> tuple[np.ndarray, ...]:
    """Rays, scores, view and root in camera of `SeenMotion`; rotation: to the motion's frame from world axes."""
    rays, scores = keypoint_rays(keypoints, camera)
    view, root = rotation, motion.trajectory
    if motion.frame == "world":
        view, shift = _within(camera.rotation, span, 2), _within(camera.translation, span, 1)
        root = np.einsum("...ij,...j->...i", view, motion.trajectory) + shift
    if view.ndim == 3:
        turn = view[0] @ np.swapaxes(view, -1, -2)
        rays, scores = _turned(rays, scores, turn)
        view, root = view[0], np.einsum("tij,tj->ti", turn, root)
    frames = _frames(len(motion), motion.fps)
    if not same_rate(motion.fps, FPS):
        rays, scores = resample_keypoints(np.where(scores[..., None] > 0, rays, np.nan), scores, motion.fps, FPS)
    root = _resampled(root, motion.fps, frames)
    return tuple(np.asarray(v, np.float32)[None] for v in (np.nan_to_num(rays), scores, view, root))


def keypoint_rays(keypoints: Keypoints2D, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Rays (T, 17, 2), 0 where unseen, and scores (T, 17) of keypoints in the layout `lift17`, repaired."""
    points = clean(keypoints.to("lift17")).keypoints
    rays = camera.rays(points.xy).astype(np.float32)
    seen = np.isfinite(rays).all(-1)
    return np.nan_to_num(rays), np.where(seen, points.score, 0).astype(np.float32)


def _turned(rays: np.ndarray, scores: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rays (T, J, 2) as a camera sees them that is turned, (T, 3, 3); what is not in front of it is not seen."""
    directions = np.concatenate([rays, np.ones_like(rays[..., :1])], -1) @ np.swapaxes(turn, -1, -2)
    ahead = directions[..., 2] > 1e-3
    depth = np.where(ahead, directions[..., 2], 1.0)[..., None]
    return directions[..., :2] / depth, np.where(ahead, scores, 0.0)


def _frames(frames: int, fps: float) -> int:
    return frames if same_rate(fps, FPS) else grid_length(frames, fps, FPS)


def _resampled(values: np.ndarray, fps: float, frames: int) -> np.ndarray:
    values = np.asarray(values, np.float32)
    return values if same_rate(fps, FPS) else resample_values(values, fps, FPS, frames)
