"""From a video, or a file of keypoints, to a `Take` with everybody's 3D motion, and to the files that hold it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifting import __version__
from lifting.anatomy import check_height
from lifting.cameras import Camera, estimate_focal, read_camera
from lifting.export import FORMATS, save
from lifting.files import atomic_write, check_writable
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Person, Take
from lifting.skeletons import Skeleton, get_skeleton

if TYPE_CHECKING:
    from lifting.detectors import Detector
    from lifting.predict import Lifted, Lifter

RUNS = Path("runs")
POOR_SCORE = 0.5  # mean confidence of the body joints below which a lift is called doubtful
MANY_SWAPS = 0.25  # share of exchanged frames above which the majority no longer tells which side is which
POOR_RATE = 0.6  # share of a person's span in which they were seen
BODY = get_skeleton("lift17").joints[:13]
VIDEO_SUFFIX = ".mp4"
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


def run_video(
    video: str | Path | None = None,
    *,
    keypoints: str | Path | None = None,
    output: str | Path | Sequence[str | Path] | None = None,
    detector: str | Detector = "auto",
    person: str | int = "all",
    camera: Camera | str | Path | None = None,
    focal: float | None = None,
    height: float | None = None,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    image_size: tuple[int, int] | None = None,
    skeleton: str | Skeleton | None = None,
    lifter: Lifter | None = None,
    progress: Progress | None = None,
) -> Take:
    """Lifts the people of a video, a folder of images or a file of keypoints, and writes the results.

    Args:
        video: a video file or a folder of images.
        keypoints: a file of 2D keypoints to lift instead of detecting; with ``video`` too, that is only drawn on.
        output: files to write, by suffix (``lifting.export.FORMATS`` and ``.mp4``); nothing is written without.
        detector: a name in ``lifting.detectors.DETECTORS`` or an object of that protocol.
        person: ``all``, ``largest`` (by visible area over time) or an id.
        camera: intrinsics, or a file that holds them. focal: focal length in pixels instead.
        height: stature of the main person in metres; fixes the scale.
        start, end: seconds of the video.
        fps, image_size, skeleton: of images or keypoint files that do not state them.
        lifter: other weights than the default ones.
        progress: ``progress(iterable, total, title)`` wraps the long loops.

    Returns:
        The take; its metadata holds the report (people, confidence, focal length, repairs, warnings).

    An interrupt (Ctrl-C) while detecting lifts and writes what has been read so far. Raises ValueError,
    FileNotFoundError, ImportError or OSError with one sentence; what is wrong with the input, the options or the places
    to write to shows before anything is written, and no output ever appears in part.
    """
    check_choices(video, keypoints, person, camera, focal, height)
    if keypoints is None and (image_size is not None or skeleton is not None):
        raise ValueError("got an image size or a skeleton with a video alone, but it describes keypoint files; drop it")
    check_sources(video, keypoints, start, end, fps, camera)
    outputs = plan_outputs(output, video, keypoints)
    progress = progress or (lambda iterable, total, title: iterable)
    if keypoints is not None:
        evidence = read_evidence(
            keypoints, fps=fps, image_size=image_size, skeleton=skeleton, start=start, end=end, camera=camera
        )
    else:
        meanwhile = _import_lifter_ahead if lifter is None else None
        evidence = detect_people(video, detector, start=start, end=end, fps=fps, progress=progress, meanwhile=meanwhile)
    evidence.people = choose_people(evidence, person)
    view = _choose_camera(evidence, camera, focal)
    take = lift_people(evidence, view, height, lifter)
    write_outputs(take, outputs, video, start, end, progress)
    return take


def plan_outputs(output: str | Path | Sequence[str | Path] | None, *sources: str | Path | None) -> list[Path]:
    """The files to write, after checking that each suffix is known, each place writable and no source overwritten."""
    given = [] if output is None else [output] if isinstance(output, str | Path) else list(output)
    paths = [Path(p) for p in given]
    for path in paths:
        if path.suffix.lower() not in (*FORMATS, VIDEO_SUFFIX):
            known = ", ".join((*FORMATS, VIDEO_SUFFIX))
            raise ValueError(f"got the output '{path.name}' with the suffix '{path.suffix}', expected one of {known}")
        if any(source is not None and _same_file(path, Path(source)) for source in sources):
            raise ValueError(f"the output '{path}' is the input itself; choose another name")
    for path in paths:
        check_writable(path)
    return paths


def default_outputs(video: str | Path | None, keypoints: str | Path | None) -> list[Path]:
    """What ``lift run`` writes without ``--output``, in ``runs/NAME/``: the result and, of a video, the overlay."""
    folder = RUNS / (Path(video or keypoints).resolve().stem or "clip")
    names = ["result.npz"] + ([f"overlay{VIDEO_SUFFIX}"] if video is not None else [])
    return [folder / name for name in names]


def check_choices(
    video: object, keypoints: object, person: str | int, camera: object, focal: float | None, height: float | None
) -> None:
    """ValueError for options that contradict each other or make no sense."""
    if video is None and keypoints is None:
        raise ValueError("got neither a video nor keypoints; pass a video file, a folder of images or a keypoint file")
    if camera is not None and focal is not None:
        raise ValueError("got both a camera and a focal length; pass only one of them")
    if focal is not None and not (np.isfinite(focal) and focal > 0):
        raise ValueError(f"got a focal length of {focal} pixels, expected a positive number")
    check_height(height)
    if str(person) not in ("all", "largest") and not str(person).isdecimal():
        raise ValueError(f"got the person {person!r}, expected 'all', 'largest' or an id such as 1")


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
    meanwhile: Callable[[], None] | None = None,
) -> Evidence:
    """Runs a detector and the tracker over a video in one pass and constant memory.

    meanwhile: called once video and detector are ready, to start what can go on beside the detection.
    """
    from lifting.detectors import create_detector
    from lifting.tracks import Tracker
    from lifting.video import open_video

    with open_video(video, start, end, fps) as reader:
        found = create_detector(detector) if isinstance(detector, str) else detector
        tracker = Tracker(found.skeleton, reader.image_size, reader.fps)
        notes = []
        if meanwhile is not None:
            meanwhile()
        frames = progress(reader, reader.num_frames, "detecting") if progress else reader
        try:
            with closing(_pixels(frames)) as pixels:
                for detections in found.detect(pixels):
                    tracker.update(detections)
        except KeyboardInterrupt:
            if not tracker.num_frames:
                raise
            notes.append(f"interrupted after {tracker.num_frames} frames: the rest of the video was not read")
        times = np.array(reader.times[: tracker.num_frames])
        tracks = [(track.id, track.keypoints) for track in tracker.finish()]
        if not tracks:
            raise ValueError(
                f"no person found in the {tracker.num_frames} frames of '{reader.path.name}'; check that people are in "
                "view and large enough, or bring keypoints of another detector with --keypoints"
            )
        notes += reader.warnings
        rate = reader.fps
        if reader.variable_rate:
            notes.append(f"the video has a variable frame rate: keypoints were moved to an even {rate:g} frames/s")
            times, tracks = _even_rate(times, tracks, rate)
            tracks = [(number, keypoints) for number, keypoints in tracks if keypoints.seen.any()]
        return Evidence(
            reader.path.stem, reader.image_size, rate, times, tracks, found.name, reader.focal_metadata,
            list(reader.assumed), notes,
        )  # fmt: skip


def _pixels(frames: Iterable) -> Iterator[np.ndarray]:
    for frame in frames:
        yield frame.rgb


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
) -> Evidence:
    """2D evidence from a keypoint file of any known tool; people without ids are tracked.

    fps, image_size and skeleton win over what the file says; the camera's image size serves where nobody states one.
    """
    from lifting.detectors.files import read_keypoints
    from lifting.tracks import Tracker

    file = read_keypoints(path, image_size=image_size, fps=fps, skeleton=skeleton)
    rate, assumed = file.fps, []
    if rate is None:
        rate = 30.0
        assumed.append("the file states no frame rate, 30 frames per second assumed; pass --fps")
    size = file.image_size
    if size is None:
        size = _size_of_camera(camera)
        basis = "the camera's" if size else "the spread of the points"
        size = size or _size_of(file.frames)
        assumed.append(f"the file states no image size, {size[0]}x{size[1]} assumed from {basis}; pass --image-size")
    if file.ids is None:
        tracker = Tracker(file.skeleton, size, rate)
        for detections in file.frames:
            tracker.update(list(detections))
        people = [(track.id, track.keypoints) for track in tracker.finish()]
    else:
        people = [(number, file.person(number, image_size=size, fps=rate)) for number in file.person_ids]
        people.sort(key=lambda entry: -_visible_area(entry[1]))
    if not people:
        raise ValueError(f"'{Path(path).name}' holds nobody who is seen for long enough to lift")
    times = (file.start + np.arange(file.num_frames)) / rate
    keep = (times >= (start if start is not None else -np.inf)) & (times < (end if end is not None else np.inf))
    if not keep.any():
        raise ValueError(f"'{Path(path).name}' has no frame between {start} and {end} s; check --start and --end")
    first, last = np.flatnonzero(keep)[[0, -1]]
    people = [(number, keypoints.slice(first, last + 1)) for number, keypoints in people]
    people = [(number, keypoints) for number, keypoints in people if keypoints.seen.any()]
    if not people:
        raise ValueError(f"'{Path(path).name}' shows nobody between {start} and {end} s; check --start and --end")
    name = Path(path).resolve().stem
    return Evidence(name, size, rate, times[keep], people, f"{file.format} file", None, assumed, list(file.notes))


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


def _choose_camera(evidence: Evidence, camera: Camera | str | Path | None, focal: float | None) -> Camera:
    if camera is not None:
        return _as_camera(camera, evidence.image_size).resized(evidence.image_size)
    if focal is not None:
        return Camera.from_focal(focal, evidence.image_size)
    focal, sentence = estimate_focal(evidence.image_size, evidence.focal_metadata)
    evidence.assumed.append(sentence)
    return Camera.from_focal(focal, evidence.image_size)


def lift_people(evidence: Evidence, camera: Camera, height: float | None = None, lifter: Lifter | None = None) -> Take:
    """Lifts everybody in the evidence; the report is in the take's metadata."""
    from lifting.predict import default_lifter

    lifter = lifter or default_lifter()
    if height is None:
        evidence.assumed.append(
            "no height given: sizes and distances follow the network's idea of the body; pass --height"
        )
    people, reports = [], []
    for number, keypoints in evidence.people:
        if not keypoints.seen.any():
            evidence.warnings.append(f"person {number} was not lifted: no keypoint was seen")
            continue
        first, last = np.flatnonzero(keypoints.seen.any(1))[[0, -1]]
        try:
            lifted = lifter.lift(keypoints.slice(first, last + 1), camera, height=None if people else height)
        except ValueError as error:
            evidence.warnings.append(f"person {number} was not lifted: {error}")
            continue
        motion = _pad(lifted.motion, first, len(keypoints))
        people.append(Person(number, keypoints, motion))
        reports.append(_report(number, keypoints, first, last, lifted))
        evidence.warnings += [f"person {number}: {w}" for w in reports[-1]["warnings"]]
    if not people:
        raise ValueError(f"nobody in '{evidence.name}' could be lifted: {'; '.join(evidence.warnings)}")
    if height is not None and len(people) > 1:
        evidence.assumed.append(f"the height {height:g} m was applied to person {people[0].id}, the main one, only")
    metadata = {
        "detector": evidence.source, "weights": lifter.source, "version": __version__, "people": reports,
        "focal_px": [round(float(f), 2) for f in camera.focal], "height_m": height, "warnings": evidence.warnings,
    }  # fmt: skip
    return Take(
        evidence.name, evidence.image_size, evidence.fps, evidence.times, camera, tuple(people),
        tuple(evidence.assumed), metadata,
    )  # fmt: skip


def _pad(motion: Motion, first: int, frames: int) -> Motion:
    """The motion over all frames of the take, NaN before the person's first and after the last."""

    def pad(values: np.ndarray) -> np.ndarray:
        whole = np.full((frames, *values.shape[1:]), np.nan, np.float32)
        whole[first : first + len(values)] = values
        return whole

    return motion.replace(joints=pad(motion.joints), trajectory=pad(motion.trajectory), sigma=pad(motion.sigma))


def _report(number: int, keypoints: Keypoints2D, first: int, last: int, lifted: Lifted) -> dict:
    """Plain facts about one person's lift, and warnings where it should not be trusted."""
    inside = lifted.cleaned.keypoints
    body = inside.skeleton.indices(BODY)
    found = keypoints.seen[first : last + 1].any(1)
    scores = inside.score[:, body]
    confidence = float(scores[scores > 0].mean()) if (scores > 0).any() else 0.0
    report = {
        "id": number,
        "frames": int(found.sum()),
        "first_frame": int(first),
        "last_frame": int(last),
        "seen_share": round(float(found.mean()), 4),
        "joints_seen_share": round(float(inside.seen[:, body].mean()), 4),
        "mean_confidence": round(confidence, 4),
        "reprojection_error_px": round(lifted.reprojection_px, 2) if np.isfinite(lifted.reprojection_px) else None,
        "median_sigma_m": round(float(np.nanmedian(lifted.motion.sigma)), 4),
        "scale": round(lifted.scale, 4),
        "repairs": lifted.cleaned.summary(),
    }
    report["warnings"] = _doubts(report)
    return report


def _doubts(report: dict) -> list[str]:
    """Sentences for a lift that rests on poor detection."""
    doubts = []
    if report["mean_confidence"] < POOR_SCORE:
        doubts.append(f"detection is poor (mean confidence {report['mean_confidence']:.2f}): do not trust this motion")
    if report["seen_share"] < POOR_RATE:
        doubts.append(f"seen in only {report['seen_share']:.0%} of the frames between first and last: gaps are bridged")
    if report["joints_seen_share"] < POOR_RATE:
        doubts.append(f"only {report['joints_seen_share']:.0%} of the body joints were seen: the others are guesses")
    swapped = report["repairs"]["swapped_frames"] / report["repairs"]["frames"]
    if swapped > MANY_SWAPS:
        doubts.append(f"left and right were exchanged in {swapped:.0%} of the frames: which side is which may be wrong")
    return doubts


def write_outputs(
    take: Take,
    outputs: Sequence[Path],
    video: str | Path | None,
    start: float | None,
    end: float | None,
    progress: Progress,
) -> None:
    """Writes every output; each appears whole or not at all, quick ones first so that an interrupt keeps them."""
    for path in sorted(outputs, key=lambda p: p.suffix.lower() == VIDEO_SUFFIX):
        if path.suffix.lower() == VIDEO_SUFFIX:
            _write_overlay(take, path, video, start, end, progress)
        else:
            save(take, path)


def _write_overlay(
    take: Take, path: Path, video: str | Path | None, start: float | None, end: float | None, progress: Progress
) -> None:
    from lifting.video import open_video
    from lifting.view.overlay import write_overlay

    if video is None:
        width, height = take.image_size
        blank = np.full((height, width, 3), 24, np.uint8)
        write_overlay(take, ((time, blank) for time in progress(take.times, len(take), "drawing")), path)
        return
    images_rate = take.fps if Path(video).is_dir() else None  # a video file brings its own
    with open_video(video, start, end, images_rate) as reader:
        frames = ((frame.time_seconds, frame.rgb) for frame in reader)
        last = take.times[-1] + 0.5 / take.fps
        kept = _until(frames, last)
        write_overlay(take, progress(kept, len(take), "drawing"), path)


def _until(frames: Iterable[tuple[float, np.ndarray]], last: float) -> Iterator[tuple[float, np.ndarray]]:
    """Frames up to ``last`` seconds: an interrupted run draws only what it read."""
    for time, rgb in frames:
        if time > last:
            return
        yield time, rgb


def write_report(take: Take, path: Path) -> None:
    """The take's report as JSON: people, confidence, repairs, camera, what was assumed, warnings."""
    report = {
        "name": take.name, "frames": len(take), "fps": take.fps, "image_size": list(take.image_size),
        "assumed": list(take.assumed), **take.metadata,
    }  # fmt: skip
    with atomic_write(path) as file:
        file.write(json.dumps(report, indent=2).encode())


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def _import_lifter_ahead() -> None:
    """Loads torch and the weights while the detector works: on two cores that hides most of their start-up."""

    def load() -> None:
        import contextlib

        with contextlib.suppress(Exception):  # the main thread meets the same error where it can be reported
            from lifting.predict import default_lifter

            default_lifter()

    # No daemon: the process must not end in the middle of an import of native code.
    threading.Thread(target=load).start()
