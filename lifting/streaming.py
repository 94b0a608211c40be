"""One frame in, one pose out: `PoseStream`, what `Lifter.stream` gives, and `lift_causally`, the same for a whole clip.

Both run the same steps, frame by frame, from past frames alone: cleaning (`lifting.cleaning_causal`), the way onto the
network's frame rate and back (`lifting.resampling_causal`), the bridge over blind spans and the root's path
(`lifting.trajectory.TrajectoryFilter`). The network alone differs (`lifting.streaming_networks`): rings of the layers'
last inputs here, the whole clip at once there; that gives the same numbers up to rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lifting.anatomy import H36M, STATURE_PER_CHAIN, chain_length, check_height
from lifting.cameras import Camera
from lifting.cleaning_causal import CausalCleaner, CleanedFrame, stack_frames
from lifting.keypoints import Keypoints2D
from lifting.models.lifter import NUM_CORE
from lifting.motion import Motion
from lifting.one_euro import OneEuroFilter
from lifting.predict import (
    BLIND_SECONDS,
    INPUT,
    SIGMA_LIMIT,
    SIGMA_PER_SECOND,
    Lifted,
    Lifter,
    fitting_camera,
)
from lifting.predict_temporal import TemporalLifter, missed_by, same_names
from lifting.resampling import same_rate
from lifting.resampling_causal import KeypointGrid, PoseTimes, Sample
from lifting.skeletons import Skeleton, get_skeleton, joint_map
from lifting.smoothing import cut_off
from lifting.streaming_networks import CausalNetwork, Evidence, Placed
from lifting.trajectory import TrajectoryFilter

if TYPE_CHECKING:
    from typing import Any

LEAST_JOINTS = 3  # of the body, without which a frame is blind
GAP_SECONDS = 1.0  # after a longer gap between frames, or two frames of a slower clip, the stream begins anew
STATURE_SAMPLES = 500  # that the stature is measured over
EURO_BETA = 4.0  # Hz per m/s by which the cutoff rises


@dataclass(frozen=True, eq=False)
class Pose:
    """One person at one moment.

    Attributes:
        time: seconds, as pushed.
        joints: (J, 3) float32 metres relative to the root, camera axes.
        root: (3,) float32 metres, camera axes.
        sigma: (J,) float32 metres, the radius around a joint that holds 68 % of its errors.
        seen: whether enough of the body was seen in this frame; else the pose bridges a gap and sigma grows.
        skeleton: of the J joints.
    """

    time: float
    joints: np.ndarray
    root: np.ndarray
    sigma: np.ndarray
    seen: bool
    skeleton: Skeleton

    @property
    def absolute(self) -> np.ndarray:
        """(J, 3) metres, camera frame."""
        return self.joints + self.root


class _Prepared(NamedTuple):
    """A frame ready for the network: what it adds to the grid, and what is needed to make its pose."""

    time: float
    position: float
    seen: bool
    samples: list[Evidence]
    cleaned: CleanedFrame
    restarted: bool


class PoseStream:
    """Lifts one person frame by frame, each from past frames alone.

    Args:
        network: `RayNetwork` or `ScreenNetwork`; `Lifter.stream` makes it.
        camera: intrinsics; without it the focal length is assumed to be the image diagonal (`AssumptionWarning`).
        skeleton: layout of the keypoints that will come, or its name.
        image_size: (width, height) pixels; by default the camera's.
        fps: frames per second of frames that come without times; 30 by default.
        height: the person's stature in metres; the scale follows the stature measured so far.
        repair, refine: as `Lifter.lift`.
        smooth: 0 (nothing) to 1 (strongest): a One-Euro filter; its cutoff at rest is that of `lifting.smoothing`.

    Of a lag that a look-ahead brings, nothing else adds to it. Memory and time per frame are bounded for ever. Raises
    ValueError for options that make no sense.
    """

    def __init__(
        self,
        network: CausalNetwork,
        camera: Camera | None = None,
        *,
        skeleton: str | Skeleton = "coco17",
        image_size: tuple[int, int] | None = None,
        fps: float | None = None,
        height: float | None = None,
        repair: bool = True,
        refine: bool = True,
        smooth: float = 0.0,
    ) -> None:
        check_height(height)
        if height is not None and network.skeleton_out != H36M:
            raise ValueError(f"got a height, but the weights give the layout {network.skeleton_out.name}, expected "
                             f"{H36M.name} to measure a stature in; leave the height out")  # fmt: skip
        if image_size is None and camera is None:
            raise ValueError("got neither a camera nor an image size; pass image_size=(width, height) of the frames")
        self.network, self.skeleton = network, get_skeleton(skeleton)
        self._layout = _LayoutMap(self.skeleton, network.skeleton_in)  # says at once what cannot be mapped
        nobody = np.full((1, self.skeleton.num_joints, 2), np.nan)
        self._frame = Keypoints2D(nobody, None, self.skeleton, image_size or camera.image_size, fps or 30.0)
        self.camera, self.image_size = fitting_camera(self._frame, camera), self._frame.image_size
        self._even = fps is not None and same_rate(fps, network.fps)
        self.rate = fps if self._even else network.fps
        self._gap = max(GAP_SECONDS, 2.001 / self._frame.fps)
        self._cutoff, self._height, self._repair, self._refine = cut_off(smooth), height, repair, refine
        self._untouched = np.zeros((2, network.skeleton_in.num_joints), bool)
        self._count, self._time = 0, None
        self._begin_input()
        self._begin_output()

    @property
    def lookahead(self) -> int:
        """Samples of the network's rate that a pose waits for."""
        return self.network.lookahead

    def push(self, xy: np.ndarray | None, score: np.ndarray | None = None, time: float | None = None) -> Pose | None:
        """Take the next frame and return the newest pose that it completes; None while nothing has come out yet.

        Args:
            xy: (J, 2) pixels, or (J, 3) with confidences; NaN, or without confidences exactly (0, 0), where a joint is
                not seen. None for a frame in which nobody was found.
            score: (J,) confidences.
            time: seconds, later than before; by default the number of the frame over fps.

        Without a look-ahead every frame gets its pose at once, from the first on in which somebody is seen. With one,
        a frame may complete none or two where frame rates differ; `feed` returns them all. Raises ValueError for wrong
        shapes, scores and times.
        """
        poses = self.feed(xy, score, time)
        return poses[-1] if poses else None

    def feed(self, xy: np.ndarray | None, score: np.ndarray | None = None, time: float | None = None) -> list[Pose]:
        """As `push`, but all poses that the frame completes, oldest first."""
        prepared = self.prepare(xy, score, time)
        return [] if prepared is None else self.advance(prepared, self.network)

    def flush(self, network: CausalNetwork | None = None) -> list[Pose]:
        """The poses still to come, from what was seen; then the stream is as new."""
        poses = self._finish(network or self.network)
        self._count, self._time = 0, None
        self._begin_input()
        return poses

    @property
    def size(self) -> int:
        """Numbers and entries held between two frames: bounded, whatever comes."""
        return self.network.size + self._times.size + len(self._waiting) + len(self._statures)

    def _begin_input(self) -> None:
        self._cleaner = CausalCleaner(self.network.skeleton_in) if self._repair else None
        self._grid = KeypointGrid(self.rate)
        self._started = False

    def _begin_output(self) -> None:
        self._times = PoseTimes(waits=self.lookahead > 0)
        self._waiting: deque[Evidence] = deque()  # samples that the network has not described yet
        self._bridge, self._path = _Bridge(1 / self.rate), TrajectoryFilter(self.rate) if self._refine else None
        self._statures: deque[float] = deque(maxlen=STATURE_SAMPLES)
        euro = self._cutoff, EURO_BETA
        self._smoothers = [OneEuroFilter(*euro), OneEuroFilter(*euro)] if np.isfinite(self._cutoff) else []

    def prepare(self, xy: np.ndarray | None, score: np.ndarray | None, time: float | None) -> _Prepared | None:
        """The first half of `feed`, up to the network; None before anybody has been seen."""
        keypoints = self._checked(xy, score)
        time, restarted = self._timed(time)
        if restarted:
            self._begin_input()
        cleaned = CleanedFrame(*self._layout.apply(keypoints), 0, *self._untouched)
        if self._cleaner is not None:
            cleaned = self._cleaner.push(cleaned.xy, cleaned.score, time)
        seen = not _is_blind(self._as_input(cleaned.score))
        self._started |= seen
        if not self._started:
            return None
        position = self._grid.position(time)
        samples = self._grid.push(position, Sample(cleaned.xy, cleaned.score))
        return _Prepared(time, position, seen, [self._evidence(sample) for sample in samples], cleaned, restarted)

    def advance(self, frame: _Prepared, network: CausalNetwork) -> list[Pose]:
        """The second half of `feed`, from the network on."""
        poses = self._finish(network) if frame.restarted else []
        self._times.add_frame(frame.position, frame)
        for sample in frame.samples:
            self._waiting.append(sample)
            placed = network.push(sample, self.image_size)
            if placed is not None:
                poses += self._add(placed)
        return poses + self._poses(self._times.known())

    def _finish(self, network: CausalNetwork) -> list[Pose]:
        poses = [pose for placed in network.flush() for pose in self._add(placed)]
        poses += self._poses(self._times.known(at_end=True))
        self._begin_output()
        return poses

    def _checked(self, xy: np.ndarray | None, score: np.ndarray | None) -> Keypoints2D:
        """One frame of keypoints."""
        if xy is None:
            return self._frame
        xy = np.asarray(xy)
        if xy.ndim == 2 and xy.shape[1] == 3 and score is None:
            xy, score = xy[:, :2], xy[:, 2]
        elif score is None and xy.dtype.kind in "fiu":
            score = (xy != 0).any(-1) & np.isfinite(xy).all(-1)
        return self._frame.replace(xy=xy[None], score=None if score is None else np.asarray(score)[None])

    def _timed(self, time: float | None) -> tuple[float, bool]:
        """The frame's time in seconds, and whether the stream begins anew with it."""
        if time is None:
            # At nearly the network's rate frames are its samples; the small difference is nobody's business.
            time = self._count / self._frame.fps
        if not np.isfinite(time):
            raise ValueError(f"got a frame at {time} s, expected a finite time in seconds")
        if self._time is not None and time <= self._time:
            raise ValueError(f"got a frame at {time:g} s after one at {self._time:g} s, expected rising times")
        restarted = self._time is not None and time - self._time > self._gap
        self._count, self._time = self._count + 1, float(time)
        return self._time, restarted

    def _evidence(self, sample: Sample) -> Evidence:
        rays, scores = self._as_input(self.camera.rays(sample.xy).astype(np.float32)), self._as_input(sample.score)
        return Evidence(*sample, rays, np.where(np.isfinite(rays).all(-1), scores, np.float32(0)))

    def _as_input(self, values: np.ndarray) -> np.ndarray:
        """Values (J,) or (J, C) of the network's own layout in the columns of ``lift17``; unseen where it lacks one."""
        if self.network.skeleton_in is INPUT:
            return values
        flat = values.reshape(1, len(values), -1)
        moved = same_names(flat, self.network.skeleton_in, INPUT)[0].reshape(-1, *values.shape[1:])
        return moved if values.ndim > 1 else np.nan_to_num(moved)

    def _add(self, placed: Placed) -> list[Pose]:
        """Take what the network says of the oldest waiting sample."""
        sample = self._waiting.popleft()
        joints, root, sigma = placed
        if self._path is not None:
            named = self.network.skeleton_out is H36M
            columns = (joints, sigma) if named else _as_h36m(joints, sigma, self.network.skeleton_out)
            root = self._path.push(columns[0], root, columns[1], sample.rays, sample.scores)
        placed = self._bridge.push(Placed(joints, root, sigma), sample.scores)
        if self._height is not None:
            self._statures.append(STATURE_PER_CHAIN * float(chain_length(placed.joints)))
        return self._poses(self._times.add_sample(placed))

    def _poses(self, known: Iterable[tuple[Any, tuple[np.ndarray, ...]]]) -> list[Pose]:
        return [self._pose(frame, *values) for frame, values in known]

    def _pose(self, frame: _Prepared, joints: np.ndarray, root: np.ndarray, sigma: np.ndarray) -> Pose:
        scale = self.scale
        joints, root, sigma = joints * scale, root * scale, np.maximum(sigma * scale, 1e-3)
        if self._smoothers:
            joints, root = (smoother.push(values, frame.time)
                            for smoother, values in zip(self._smoothers, (joints, root), strict=True))  # fmt: skip
        values = (np.asarray(value, np.float32) for value in (joints, root, sigma))
        return Pose(frame.time, *values, frame.seen, self.network.skeleton_out)

    @property
    def scale(self) -> float:
        """Factor that the height applies at the moment, 1 without."""
        return self._height / float(np.median(self._statures)) if self._statures else 1.0


class _LayoutMap:
    """`Keypoints2D.to` for one frame after the other. Raises SkeletonMismatch."""

    def __init__(self, source: Skeleton, target: Skeleton) -> None:
        self._map = joint_map(source, target)
        self._same = source == target
        self._parts = self._map.weights > 0

    def apply(self, keypoints: Keypoints2D) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (J, 2) and scores (J,) of the first frame in the target's layout."""
        if self._same:
            return keypoints.xy[0], keypoints.score[0]
        score = np.where(self._parts, keypoints.score[0], np.inf).min(axis=1)
        score = np.where(np.isfinite(score), score, 0).astype(np.float32)
        xy = self._map.apply(keypoints.xy)[0]
        return np.where(score[:, None] > 0, xy, np.float32(np.nan)), score


def _is_blind(scores: np.ndarray) -> bool:
    """Whether scores (17,) in the layout ``lift17`` show too little of the body."""
    return int((scores[:NUM_CORE] > 0).sum()) < LEAST_JOINTS


def _as_h36m(joints: np.ndarray, sigma: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Joints (17, 3) and sigma (17,) in the order of H36M, with no weight on joints that the layout lacks."""
    joints = same_names(joints[None], skeleton, H36M)[0]
    sigma = same_names(sigma[None, :, None], skeleton, H36M)[0, :, 0]
    return np.nan_to_num(joints), np.where(np.isnan(sigma), np.float32(1e3), sigma)


class _Bridge:
    """`bridge_blind_spans` without the future: a longer blind span holds the last pose, and sigma grows."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds  # from sample to sample
        self._away = 0.0  # seconds since the body was seen
        self._held: Placed | None = None

    def push(self, placed: Placed, scores: np.ndarray) -> Placed:
        """The next sample, with scores (17,) in the layout ``lift17``."""
        self._away = self._away + self._seconds if _is_blind(scores) else 0.0
        if self._away == 0:
            self._held = placed
            return placed
        if self._away <= BLIND_SECONDS or self._held is None:
            self._held = placed  # the network has learned to bridge short spans
        grown = np.minimum(placed.sigma + SIGMA_PER_SECOND * self._away, np.maximum(placed.sigma, SIGMA_LIMIT))
        return Placed(self._held.joints, self._held.root, grown.astype(np.float32))


class _Replayed:
    """A network that has seen the whole clip and tells what it said sample by sample, as a stream does."""

    def __init__(self, placed: list[Placed], lookahead: int) -> None:
        self._placed, self._lookahead, self._pushed = placed, lookahead, 0

    def push(self, sample: Evidence, image_size: tuple[int, int]) -> Placed | None:
        self._pushed += 1
        return self._placed[self._pushed - 1 - self._lookahead] if self._pushed > self._lookahead else None

    def flush(self) -> list[Placed]:
        return self._placed[max(self._pushed - self._lookahead, 0):]


def lift_causally(
    lifter: Lifter | TemporalLifter,
    keypoints: Keypoints2D,
    camera: Camera | None,
    *,
    lookahead: int,
    height: float | None,
    repair: bool,
    flip: bool,
    refine: bool,
) -> Lifted:
    """The poses that a stream of the lifter gives for these keypoints; arguments as `Lifter.lift`.

    Frames before the first in which somebody is seen take its pose. Raises ValueError as `Lifter.lift`.
    """
    stream = lifter.stream(camera, skeleton=keypoints.skeleton, image_size=keypoints.image_size, fps=keypoints.fps,
                           lookahead=lookahead, height=height, repair=repair, flip=flip, refine=refine)  # fmt: skip
    frames = [stream.prepare(xy, score, None) for xy, score in zip(keypoints.xy, keypoints.score, strict=True)]
    started = [frame for frame in frames if frame is not None]
    if not started:
        raise ValueError(f"none of the {len(frames)} frames shows {LEAST_JOINTS} body joints (nose to ankles); check "
                         "scores and layout")  # fmt: skip
    samples = [sample for frame in started for sample in frame.samples]
    replayed = _Replayed(stream.network.run(samples, stream.image_size), lookahead)
    poses = [pose for frame in started for pose in stream.advance(frame, replayed)]
    scale_at_end = stream.scale
    poses += stream.flush(replayed)
    motion = _motion(poses, len(keypoints), keypoints.fps)
    cleaned = _cleaned(frames, keypoints.to(stream.network.skeleton_in))
    return Lifted(motion, cleaned, missed_by(cleaned.keypoints, stream.camera, motion), scale_at_end)


def _motion(poses: list[Pose], frames: int, fps: float) -> Motion:
    joints, root, sigma = (np.stack([getattr(pose, name) for pose in poses]) for name in ("joints", "root", "sigma"))
    before = frames - len(poses)
    away = np.arange(before, 0, -1)[:, None] / fps
    early = np.minimum(sigma[0] + SIGMA_PER_SECOND * away, np.maximum(sigma[0], SIGMA_LIMIT))
    return Motion(np.concatenate([np.repeat(joints[:1], before, 0), joints]),
                  np.concatenate([np.repeat(root[:1], before, 0), root]),
                  np.concatenate([early, sigma]), poses[0].skeleton, fps)  # fmt: skip


def _cleaned(frames: list[_Prepared | None], keypoints: Keypoints2D) -> Any:
    untouched = np.zeros(keypoints.skeleton.num_joints, bool)
    return stack_frames([CleanedFrame(keypoints.xy[k], keypoints.score[k], 0, untouched, untouched)
                         if frame is None else frame.cleaned for k, frame in enumerate(frames)], keypoints)  # fmt: skip
