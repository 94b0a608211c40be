"""Stable identities for several people: detections of successive frames become one track per person.

Detections are assigned to tracks with the Hungarian method on keypoint similarity between a detection and where the
track is predicted to be (constant velocity). A person who is hidden for up to about a second is recognised again by
place, motion and size; the gap stays NaN. Nothing here looks at pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lifting.keypoints import Detection, Keypoints2D
from lifting.skeletons import Skeleton

__all__ = ["Track", "Tracker", "interpolate_skipped", "pose_similarity"]

TOLERANCE = 0.12  # joint distance, as a fraction of body extent, that counts as one standard deviation
TOLERANCE_GROWTH = 0.35  # added to it for each second without a sighting
MIN_SIMILARITY = 0.15
FRESH_SECONDS = 0.1  # a track unseen for longer counts as lost
LOST_FACTOR = 0.75
REIDENTIFY_SECONDS = 1.0
VELOCITY_SECONDS = 0.15  # time constant of the velocity estimate
COAST_SECONDS = 1.5  # a hidden person's predicted motion dies down with this time constant
MIN_TRACK_SECONDS = 0.2
MIN_TRACK_SCORE = 0.1
MIN_COMMON_JOINTS = 3
VISIBLE_SCORE = 0.3


@dataclass(frozen=True)
class Track:
    """One person through a video.

    Attributes:
        id: number that stays with the person, from 1 on in order of appearance.
        keypoints: all frames the tracker was given; NaN and score 0 where the person was not seen.
    """

    id: int
    keypoints: Keypoints2D


def pose_similarity(
    first: np.ndarray, second: np.ndarray, scores: np.ndarray, tolerance: float = TOLERANCE
) -> float:
    """Similarity of two poses from 0 to 1 that minds place, shape and size.

    The mean over the joints of a Gaussian of the distance relative to the extent of the body (as COCO's object keypoint
    similarity, with one tolerance for all joints), times a factor for bodies of unequal size.

    Args:
        first: (J, 2) pixels, NaN where not seen.
        second: (J, 2) pixels, NaN where not seen.
        scores: (J,) weights of the joints, 0 or more.
        tolerance: standard deviation as a fraction of the body's extent.
    """
    common = np.isfinite(first).all(1) & np.isfinite(second).all(1) & (scores > 0)
    if common.sum() < min(MIN_COMMON_JOINTS, len(first)):
        return 0.0
    first, second, scores = first[common], second[common], scores[common]
    sizes = _extent(first), _extent(second)
    squared = ((first - second) ** 2).sum(1) / (tolerance * max(sizes)) ** 2
    same_size = np.exp(-((np.log(sizes[0] / sizes[1]) / 0.5) ** 2) / 2)
    return float(same_size * np.average(np.exp(-squared / 2), weights=scores))


def _extent(points: np.ndarray) -> float:
    """Extent of a body in pixels: about its height whatever its posture, and hardly moved by one stray joint."""
    spread = np.sqrt(np.mean(np.sum((points - points.mean(0)) ** 2, axis=1)))
    return max(3.5 * float(spread), 1.0)


@dataclass
class _Candidate:
    """A track while it grows: where it was seen, and its motion."""

    id: int
    frames: list[int] = field(default_factory=list)
    xy: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pixels per second, whole body

    def add(self, frame: int, detection: Detection, fps: float) -> None:
        if self.frames:
            self._update_velocity(detection, (frame - self.frames[-1]) / fps)
        self.frames.append(frame)
        self.xy.append(np.asarray(detection.xy, np.float32))
        self.scores.append(np.asarray(detection.score, np.float32))

    def _update_velocity(self, detection: Detection, seconds: float) -> None:
        moved = (detection.xy - self.xy[-1])[(detection.score > 0) & (self.scores[-1] > 0)]
        if len(moved) == 0:
            return
        # The median over the joints: swinging limbs and a left/right swap do not disturb it.
        weight = 1.0 - np.exp(-seconds / VELOCITY_SECONDS)
        first_step = len(self.frames) == 1
        self.velocity += (np.median(moved, axis=0) / seconds - self.velocity) * (0.5 if first_step else weight)

    def seconds_unseen(self, frame: int, fps: float) -> float:
        return (frame - self.frames[-1]) / fps

    def predict(self, frame: int, fps: float) -> np.ndarray:
        """Expected joints (J, 2) in a later frame: the last pose, moved on with a velocity that dies down."""
        seconds = self.seconds_unseen(frame, fps)
        return self.xy[-1] + self.velocity * COAST_SECONDS * (1.0 - np.exp(-seconds / COAST_SECONDS))


class Tracker:
    """Gives every detection of a video the number of the person it shows.

    Args:
        skeleton: layout of the detections.
        image_size: (width, height) pixels.
        fps: frames per second.
        every: frames between two updates, usually; people are unseen in those between.

    Raises:
        ValueError: fps, image_size or every is not positive.
    """

    def __init__(self, skeleton: Skeleton, image_size: tuple[int, int], fps: float, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every is {every}: expected 1 frame or more between two updates.")
        if not (np.isfinite(fps) and fps > 0):
            raise ValueError(f"fps is {fps}: expected a positive number of frames per second.")
        if len(image_size) != 2 or min(image_size) <= 0:
            raise ValueError(f"image_size is {image_size}: expected (width, height) in pixels, both positive.")
        self.skeleton = skeleton
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.fps = float(fps)
        self.every = int(every)
        self._flip = np.asarray(skeleton.flip)
        self._tracks: list[_Candidate] = []
        self._alive: list[_Candidate] = []
        self._num_frames = 0

    @property
    def num_frames(self) -> int:
        """Number of frames up to the latest update."""
        return self._num_frames

    def update(self, detections: Sequence[Detection], frame: int | None = None) -> list[int]:
        """Take the people of the next frame and return the track id of each, in the same order.

        Args:
            detections: the people of the frame.
            frame: its number, later than that of the update before; None is ``every`` frames after it.

        Raises:
            ValueError: a detection has another number of joints than the skeleton, or the frame is not a later one.
        """
        self._check(detections)
        if frame is None:
            frame = self._num_frames - 1 + self.every if self._num_frames else 0
        if frame < self._num_frames:
            raise ValueError(f"got frame {frame} after frame {self._num_frames - 1}: expected a later one.")
        self._num_frames = frame + 1
        self._alive = [t for t in self._alive if t.seconds_unseen(frame, self.fps) <= REIDENTIFY_SECONDS + 1e-9]
        owners = self._assign(self._alive, detections, frame)
        for index, detection in enumerate(detections):
            if index not in owners:
                owners[index] = self._start_track()
            owners[index].add(frame, detection, self.fps)
        return [owners[index].id for index in range(len(detections))]

    def finish(self, max_people: int | None = None) -> list[Track]:
        """Tracks over all frames given so far, main person first (visible area times frames).

        Tracks shorter than 0.2 s (or half of a shorter video) and tracks of tiny score are left out as spurious.

        Args:
            max_people: keep at most this many tracks; None keeps all.
        """
        shortest = min(max(1, round(MIN_TRACK_SECONDS * self.fps)), max(1, (self._num_frames + 1) // 2))
        shortest = -(-shortest // self.every)
        kept = [t for t in self._tracks if len(t.frames) >= shortest and _mean_score(t) >= MIN_TRACK_SCORE]
        kept.sort(key=lambda track: -self._visible_area(track))
        return [Track(track.id, self._keypoints(track)) for track in kept[:max_people]]

    def _check(self, detections: Sequence[Detection]) -> None:
        for detection in detections:
            if len(detection.xy) != self.skeleton.num_joints:
                raise ValueError(
                    f"A detection has {len(detection.xy)} joints: expected the {self.skeleton.num_joints} of the "
                    f"skeleton {self.skeleton.name!r} that this tracker was made for."
                )

    def _assign(self, tracks: list[_Candidate], detections: Sequence[Detection], frame: int) -> dict[int, _Candidate]:
        """Best one-to-one assignment of detections to tracks, as detection index -> track."""
        if not tracks or not detections:
            return {}
        similarity = np.array([[self._similarity(track, one, frame) for one in detections] for track in tracks])
        if similarity.size == 1:
            return {0: tracks[0]} if similarity[0, 0] >= MIN_SIMILARITY else {}
        from scipy.optimize import linear_sum_assignment  # only here: its import takes a quarter of a second

        pairs = zip(*linear_sum_assignment(-np.where(similarity < MIN_SIMILARITY, 0.0, similarity)), strict=True)
        return {column: tracks[row] for row, column in pairs if similarity[row, column] >= MIN_SIMILARITY}

    def _similarity(self, track: _Candidate, detection: Detection, frame: int) -> float:
        """The better of the straight and the mirrored comparison: a detector may swap left and right for a while."""
        expected = track.predict(frame, self.fps)
        seconds_lost = max(track.seconds_unseen(frame, self.fps) - self.every / self.fps, 0.0)
        tolerance = TOLERANCE + TOLERANCE_GROWTH * seconds_lost
        # A hidden track competes with those in view, at a small handicap because its tolerance is wider.
        trust = 1.0 if seconds_lost < FRESH_SECONDS else LOST_FACTOR
        orders = (np.arange(len(expected)), self._flip)
        return trust * max(
            pose_similarity(expected[o], detection.xy, np.sqrt(track.scores[-1][o] * detection.score), tolerance)
            for o in orders
        )

    def _start_track(self) -> _Candidate:
        track = _Candidate(id=len(self._tracks) + 1)
        self._tracks.append(track)
        self._alive.append(track)
        return track

    def _visible_area(self, track: _Candidate) -> float:
        """Area of the person's box inside the image, in square pixels, summed over the frames."""
        return sum(_box_area(xy, score, self.image_size) for xy, score in zip(track.xy, track.scores, strict=True))

    def _keypoints(self, track: _Candidate) -> Keypoints2D:
        xy = np.full((self._num_frames, self.skeleton.num_joints, 2), np.nan, np.float32)
        score = np.zeros(xy.shape[:2], np.float32)
        xy[track.frames] = track.xy
        score[track.frames] = track.scores
        return Keypoints2D(xy=xy, score=score, skeleton=self.skeleton, image_size=self.image_size, fps=self.fps)


def interpolate_skipped(keypoints: Keypoints2D, every: int) -> Keypoints2D:
    """The keypoints with the frames between two detections filled in, for detections in every K-th frame.

    A joint seen at both ends of a gap of at most ``every`` frames gets positions on the monotone cubic of F. N. Fritsch
    and R. E. Carlson ("Monotone Piecewise Cubic Interpolation", 1980), which does not overshoot, and the lower of the
    two scores. Lifted so, clips without left/right swaps came out 1 to 14 mm from those detected in full, for K of 2
    to 8; left to the lifter as unseen frames, 38 to 190 mm.
    """
    if every == 1:
        return keypoints
    xy, score = keypoints.xy.copy(), keypoints.score.copy()
    for joint, seen in enumerate(keypoints.seen.T):
        known = np.flatnonzero(seen)
        if len(known) > 1:
            frames, low, high = _gap_frames(known, every)
            xy[frames, joint] = _monotone_cubic(known, keypoints.xy[known, joint], frames)
            score[frames, joint] = np.minimum(keypoints.score[low, joint], keypoints.score[high, joint])
    return keypoints.replace(xy=xy, score=score)


def _gap_frames(known: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) unknown frames in gaps of at most ``longest`` frames, and the (n,) known ones before and after each."""
    frames = np.setdiff1d(np.arange(known[0], known[-1]), known, assume_unique=True)
    after = np.searchsorted(known, frames)
    low, high = known[after - 1], known[after]
    short = high - low <= longest
    return frames[short], low[short], high[short]


def _monotone_cubic(known: np.ndarray, points: np.ndarray, frames: np.ndarray) -> np.ndarray:
    from scipy.interpolate import PchipInterpolator  # only here: its import takes a while

    return PchipInterpolator(known, points)(frames)


def _mean_score(track: _Candidate) -> float:
    return float(np.mean([score.mean() for score in track.scores]))


def _box_area(xy: np.ndarray, score: np.ndarray, image_size: tuple[int, int]) -> float:
    points = xy[(score >= VISIBLE_SCORE) & np.isfinite(xy).all(1)]
    if len(points) < 2:
        return 0.0
    return float(np.prod(np.ptp(points.clip(0, image_size), axis=0)))
