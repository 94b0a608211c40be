"""The 2D evidence of a clip: people detected in a video and tracked, or read from a file of keypoints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifting.cameras import Camera, estimate_focal, read_camera
from lifting.export import FORMATS, load
from lifting.keypoints import Keypoints2D, guess_order
from lifting.motion import Take
from lifting.skeletons import Skeleton

if TYPE_CHECKING:
    from lifting.detectors import Detector
    from lifting.detectors.files import KeypointFile
    from lifting.tracks import Tracker

Progress = Callable[[Iterable, int | None, str], Iterable]


@dataclass
class Evidence:
    """2D evidence of one video, before lifting.

    people: (id, keypoints) over all T frames, main person first. times: (T,) seconds. assumed: sentences about
    size and rate. warnings: sentences about the footage.
    """

    name: str
    image_size: tuple[int, int]
    fps: float
    times: np.ndarray
    people: list[tuple[int, Keypoints2D]]
    source: str
    focal_metadata: dict | None = None
    assumed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False
    camera: Camera | None = None


def check_sources(
    video: str | Path | None,
    keypoints: str | Path | None,
    start: float | None,
    end: float | None,
    fps: float | None,
    camera: Camera | str | Path | None,
) -> None:
    """Opens the video, fits the camera to it and looks for the keypoint file, so that what is wrong shows at once."""
    from lifting.video import open_video

    if keypoints is not None and not Path(keypoints).expanduser().exists():
        raise FileNotFoundError(f"no keypoint file at '{keypoints}': check the path")
    if video is not None:
        with open_video(video, start, end, fps if keypoints is None else None) as reader:
            if camera is not None and keypoints is None:
                _as_camera(camera, reader.image_size).resized(reader.image_size)


def detect_people(
    video: str | Path,
    detector: str | Detector = "auto",
    *,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    progress: Progress | None = None,
    models: str | Path | None = None,
    every: int = 1,
) -> Evidence:
    """Runs a detector and the tracker over a video in one pass and constant memory.

    models: folder with the detector's model files, or the file. every: only each so many frames, and the last one, are
    given to the detector; keypoints in those between are interpolated. Raises ValueError when nobody is found.
    """
    if every < 1:
        raise ValueError(f"got every={every}, expected to detect in every frame (1) or in every second, third, ... one")
    from lifting.tracks import Tracker, interpolate_skipped
    from lifting.video import open_video

    with open_video(video, start, end, fps) as reader:
        found = load_detector(detector, models) if isinstance(detector, str) else detector
        tracker = Tracker(found.skeleton, reader.image_size, reader.fps, every)
        notes = []
        frames = progress(reader, reader.num_frames, "detecting") if progress else reader
        interrupted = _track(found, frames, every, tracker)
        if interrupted:
            notes.append(f"interrupted after {tracker.num_frames} frames: the rest of the video was not read")
        times = np.array(reader.times[: tracker.num_frames])
        tracks = [(track.id, interpolate_skipped(track.keypoints, every)) for track in tracker.finish()]
        if not tracks:
            raise ValueError(
                f"no person found in the {tracker.num_frames} frames of '{reader.path.name}'; check that people are in "
                "view and large enough, or bring keypoints of another detector with --keypoints"
            )
        assumed = list(reader.assumed)
        if every > 1:
            assumed.append(f"people were detected in every {every}. frame and their keypoints interpolated in between")
        notes += reader.warnings
        rate = reader.fps
        if reader.variable_rate:
            notes.append(f"the video has a variable frame rate: keypoints were moved to an even {rate:g} frames/s")
            times, tracks = _even_rate(times, tracks, rate)
            tracks = [(number, keypoints) for number, keypoints in tracks if keypoints.seen.any()]
        return Evidence(
            reader.path.stem, reader.image_size, rate, times, tracks, found.name, reader.focal_metadata,
            assumed, notes, interrupted,
        )  # fmt: skip


def _track(detector: Detector, frames: Iterable, every: int, tracker: Tracker) -> bool:
    """Feeds the tracker what is detected in the frames; whether Ctrl-C ended it, once there is something to keep."""
    taken: list[int] = []
    try:
        with closing(_pixels(frames, every, taken)) as pixels:
            for number, detections in enumerate(detector.detect(pixels)):
                tracker.update(detections, taken[number])
    except KeyboardInterrupt:
        if not tracker.num_frames:
            raise
        logging.getLogger("lift").warning(
            "interrupted: lifting and writing the %d frames read; Ctrl-C again to stop", tracker.num_frames
        )
        return True
    return False


def load_detector(name: str, models: str | Path | None = None) -> Detector:
    """The detector of that name, with the model files of a folder if one is given; ValueError if it takes none."""
    from lifting.detectors import create_detector

    if models is None:
        return create_detector(name)
    try:
        return create_detector(name, model_dir=models)
    except TypeError as error:
        raise ValueError(f"the detector '{name}' takes no folder of models; leave out --detector-models") from error


def _pixels(frames: Iterable, every: int, taken: list[int]) -> Iterator[np.ndarray]:
    """The pixels of each ``every``-th frame and of the last one; their numbers are added to ``taken``."""
    skipped = None
    for number, frame in enumerate(frames):
        skipped = (number, frame.rgb) if number % every else None
        if skipped is None:
            taken.append(number)
            yield frame.rgb
    if skipped is not None:
        taken.append(skipped[0])
        yield skipped[1]


def _even_rate(
    times: np.ndarray, tracks: list[tuple[int, Keypoints2D]], fps: float
) -> tuple[np.ndarray, list[tuple[int, Keypoints2D]]]:
    from lifting.video import to_constant_rate, uniform_times

    def even(keypoints: Keypoints2D) -> Keypoints2D:
        xy = to_constant_rate(keypoints.xy, times, fps)
        score = to_constant_rate(np.where(keypoints.seen, keypoints.score, np.nan), times, fps)
        return keypoints.replace(xy=xy, score=np.nan_to_num(score))

    return uniform_times(times, fps), [(number, even(keypoints)) for number, keypoints in tracks]


def read_evidence(
    path: str | Path,
    *,
    fps: float | None = None,
    image_size: tuple[int, int] | None = None,
    skeleton: str | Skeleton | None = None,
    start: float | None = None,
    end: float | None = None,
    camera: Camera | str | Path | None = None,
    sequence: str | None = None,
    video: str | Path | None = None,
) -> Evidence:
    """2D evidence from a keypoint file of any known tool; people without ids are tracked.

    fps, image_size and skeleton win over what the file says. What neither states comes from the video that the
    keypoints belong to, then from the camera, and is else assumed and said.
    """
    from lifting.detectors.files import read_keypoints
    from lifting.video import ASSUMED_FPS

    video_size, video_rate, focal_metadata = _video_facts(video)
    if all(given is None for given in (fps, image_size, skeleton, sequence)):
        take = _load_result(path)
        if take is not None:
            return _evidence_of(take, Path(path), start, end, video_size)
    file = read_keypoints(path, image_size=image_size, fps=fps, skeleton=skeleton, sequence=sequence)
    assumed, doubts = list(file.notes), []
    rate = file.fps or video_rate
    if rate is None:
        rate = ASSUMED_FPS
        assumed.append(f"the file states no frame rate, {rate:g} frames per second assumed; pass --fps")
    size = file.image_size or video_size
    if size is not None:
        doubts += _size_doubts(size, video_size)
    else:
        size = _size_of_camera(camera)
        basis = "the camera's" if size else "the spread of the points"
        size = size or _size_of(file.frames)
        assumed.append(f"the file states no image size, {size[0]}x{size[1]} assumed from {basis}; pass --image-size")
    people = _people_of(file, size, rate)
    if not people:
        raise ValueError(f"'{Path(path).name}' holds nobody who is seen for long enough to lift")
    times = (file.start + np.arange(file.num_frames)) / rate
    times, people = _cut(Path(path).name, times, people, start, end)
    name = Path(path).resolve().stem
    if skeleton is None:
        doubts += _order_doubts(people[0][1])
    return Evidence(name, size, rate, times, people, f"{file.format} file", focal_metadata, assumed, doubts)


def _people_of(file: KeypointFile, image_size: tuple[int, int], fps: float) -> list[tuple[int, Keypoints2D]]:
    """The people of a keypoint file, largest first: by the file's own ids, tracked where it has none."""
    from lifting.tracks import Tracker

    if file.ids is None:
        tracker = Tracker(file.skeleton, image_size, fps)
        for detections in file.frames:
            tracker.update(list(detections))
        return [(track.id, track.keypoints) for track in tracker.finish()]
    people = [(number, file.person(number, image_size=image_size, fps=fps)) for number in file.person_ids]
    return sorted(people, key=lambda entry: -_visible_area(entry[1]))


def _cut(
    name: str, times: np.ndarray, people: list[tuple[int, Keypoints2D]], start: float | None, end: float | None
) -> tuple[np.ndarray, list[tuple[int, Keypoints2D]]]:
    """The frames with start <= time < end and the people seen in them."""
    keep = (times >= (start if start is not None else -np.inf)) & (times < (end if end is not None else np.inf))
    if not keep.any():
        raise ValueError(f"'{name}' has no frame between {start} and {end} s; check --start and --end")
    first, last = np.flatnonzero(keep)[[0, -1]]
    people = [(number, keypoints.slice(first, last + 1)) for number, keypoints in people]
    people = [(number, keypoints) for number, keypoints in people if keypoints.seen.any()]
    if not people:
        raise ValueError(f"'{name}' shows nobody between {start} and {end} s; check --start and --end")
    return times[keep], people


def _load_result(path: str | Path) -> Take | None:
    """The take of a result that lift wrote; None for any other file."""
    path = Path(path).expanduser()
    if not path.is_file() or path.suffix.lower() not in FORMATS:
        return None
    try:
        return load(path)
    except ValueError:
        return None


def _evidence_of(
    take: Take, path: Path, start: float | None, end: float | None, video_size: tuple[int, int] | None
) -> Evidence:
    """The keypoints of an earlier result, with its name, times and camera."""
    people = [(person.id, person.keypoints) for person in take.people]
    if not people:
        raise ValueError(f"'{path.name}' holds nobody to lift; run lift on the video again")
    times, people = _cut(path.name, take.times, people, start, end)
    doubts = _size_doubts(take.image_size, video_size)
    source = take.metadata.get("detector", "lift file")
    return Evidence(take.name, take.image_size, take.fps, times, people, source, warnings=doubts, camera=take.camera)


def _size_doubts(size: tuple[int, int], video_size: tuple[int, int] | None) -> list[str]:
    """A sentence when keypoints and video are of different sizes."""
    if video_size in (None, size):
        return []
    sizes = f"images of {size[0]}x{size[1]}, but the video is {video_size[0]}x{video_size[1]}"
    return [f"the keypoints are of {sizes}; check that they belong together"]


def _video_facts(video: str | Path | None) -> tuple[tuple[int, int] | None, float | None, dict | None]:
    """Image size, frame rate and what is known of the lens; of a folder of images the rate is not known."""
    if video is None:
        return None, None, None
    from lifting.video import open_video

    with open_video(video) as reader:
        return reader.image_size, None if reader.assumed else reader.fps, reader.focal_metadata


def _order_doubts(keypoints: Keypoints2D) -> list[str]:
    """A sentence when 17 columns fit another order better than the one they were read in."""
    if keypoints.skeleton.name not in ("coco17", "h36m17"):
        return []
    guess = guess_order(keypoints.xy, keypoints.score).skeleton
    if guess in (None, keypoints.skeleton.name):
        return []
    return [f"the columns are read as {keypoints.skeleton.name}, but {guess}'s order fits better; pass --skeleton"]


def _size_of_camera(camera: Camera | str | Path | None) -> tuple[int, int] | None:
    try:
        return camera if camera is None else _as_camera(camera).image_size
    except ValueError:  # it states no size, or is broken, which shows when it is used
        return None


def _as_camera(camera: Camera | str | Path, image_size: tuple[int, int] | None = None) -> Camera:
    return camera if isinstance(camera, Camera) else read_camera(camera, image_size)


def _size_of(frames: Sequence) -> tuple[int, int]:
    corners = [detection.box for frame in frames for detection in frame if detection.seen.any()]
    if not corners:
        raise ValueError("the keypoint file shows nobody, so the image size cannot be told; pass --image-size")
    corners = np.array(corners)
    low, high = np.maximum(corners[:, :2].min(0), 0), corners[:, 2:].max(0)
    return tuple(int(v) for v in np.ceil(np.maximum(low + high, 1)))


def _visible_area(keypoints: Keypoints2D) -> float:
    """Sum over frames of the bounding box area, pixels."""
    xy = keypoints.xy[keypoints.seen.any(1)]
    return float((np.nanmax(xy, 1) - np.nanmin(xy, 1)).prod(-1).sum()) if len(xy) else 0.0


def choose_people(evidence: Evidence, person: str | int) -> list[tuple[int, Keypoints2D]]:
    """The people asked for. Raises ValueError with the known ids."""
    if str(person) == "all":
        return evidence.people
    if str(person) == "largest":
        return evidence.people[:1]
    chosen = [entry for entry in evidence.people if entry[0] == int(person)]
    if not chosen:
        known = ", ".join(str(number) for number, _ in evidence.people)
        raise ValueError(f"there is no person {person} in '{evidence.name}'; the ids are {known}")
    return chosen


def choose_camera(evidence: Evidence, camera: Camera | str | Path | None, focal: float | None) -> Camera:
    """The camera given, else the evidence's own, else one with an estimated focal length, which is said."""
    if camera is not None:
        return _as_camera(camera, evidence.image_size).resized(evidence.image_size)
    if focal is not None:
        return Camera.from_focal(focal, evidence.image_size)
    if evidence.camera is not None:
        return evidence.camera
    focal, sentence = estimate_focal(evidence.image_size, evidence.focal_metadata)
    evidence.assumed.append(sentence)
    return Camera.from_focal(focal, evidence.image_size)
