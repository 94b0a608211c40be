"""From a video, or a file of keypoints, to a `Take` with everybody's 3D motion, and to the files that hold it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifting import __version__
from lifting.anatomy import check_height
from lifting.cameras import Camera, estimate_focal, read_camera
from lifting.cleaning import person_size
from lifting.export import FORMATS, load, save
from lifting.files import atomic_write, check_writable
from lifting.keypoints import Keypoints2D, guess_order
from lifting.motion import Motion, Person, Take
from lifting.skeletons import Skeleton, get_skeleton

if TYPE_CHECKING:
    from lifting.detectors import Detector
    from lifting.predict import Lifted, Lifter

RUNS = Path("runs")
SURE_SCORE = 0.3  # a joint below it is a detector's guess
POOR_REPROJECTION = 0.06  # share of the person's size in the image
POOR_SIGMA = 0.2  # metres
POOR_SCORE = 0.5  # mean confidence of the body joints below which a lift is called doubtful
MANY_SWAPS = 0.25  # share of exchanged frames above which the majority no longer tells which side is which
POOR_RATE = 0.6  # share of a person's span in which they were seen
BODY = get_skeleton("lift17").joints[:13]
VIDEO_SUFFIX = ".mp4"
RESULT = "result.npz"
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
    sequence: str | None = None,
    detector_models: str | Path | None = None,
    report: str | Path | None = None,
    lifter: Lifter | None = None,
    progress: Progress | None = None,
) -> Take:
    """Lifts the people of a video, a folder of images or a file of keypoints, and writes the results.

    Args:
        video: a video file or a folder of images.
        keypoints: a file of 2D keypoints to lift instead of detecting; a ``video`` beside it is drawn on and says
            what the file leaves out (image size, frame rate, lens).
        output: files to write, by suffix (``lifting.export.FORMATS`` and ``.mp4``); nothing is written without.
        detector: a name in ``lifting.detectors.DETECTORS`` or an object of that protocol.
        person: ``all``, ``largest`` (by visible area over time) or an id.
        camera: intrinsics, or a file that holds them. focal: focal length in pixels instead.
        height: stature of the main person in metres; fixes the scale.
        start, end: seconds of the video.
        fps, image_size, skeleton: of images or keypoint files that do not state them.
        sequence: which of a VideoPose3D data set, ``subject/action/camera``.
        detector_models: folder with the detector's model files, where they are not to come from an installed package.
        report: JSON file for the report.
        lifter: other weights than the default ones.
        progress: ``progress(iterable, total, title)`` wraps the long loops.

    Returns:
        The take; its metadata holds the report (people, confidence, focal length, repairs, warnings).

    An interrupt (Ctrl-C) while detecting lifts and writes what has been read so far. Raises ValueError,
    FileNotFoundError, ImportError or OSError with one sentence; what is wrong with the input, the options or the places
    to write to shows before anything is written, and no output ever appears in part.
    """
    check_choices(video, keypoints, person, camera, focal, height)
    for what, given in (("an image size", image_size), ("a skeleton", skeleton), ("a sequence", sequence)):
        if keypoints is None and given is not None:
            raise ValueError(f"got {what} with a video alone, but it describes keypoint files; drop it")
    check_sources(video, keypoints, start, end, fps, camera)
    progress = progress or (lambda iterable, total, title: iterable)
    given = [] if output is None else [output] if isinstance(output, str | Path) else list(output)
    with _no_empty_folders([*given, *([report] if report is not None else [])]):
        outputs = plan_outputs(given, video, keypoints)
        if report is not None:
            check_writable(report)
        if keypoints is not None:
            evidence = read_evidence(
                keypoints, fps=fps, image_size=image_size, skeleton=skeleton, start=start, end=end, camera=camera,
                sequence=sequence, video=video,
            )  # fmt: skip
        else:
            evidence = detect_people(
                video, detector, start=start, end=end, fps=fps, progress=progress, models=detector_models
            )
        evidence.people = choose_people(evidence, person)
        view = _choose_camera(evidence, camera, focal)
        take = lift_people(evidence, view, height, lifter)
        write_outputs(take, outputs, video, start, end, progress, report)
    return take


@contextmanager
def _no_empty_folders(paths: Iterable[str | Path]) -> Iterator[None]:
    """Takes away the folders made for ``paths`` when the work in the block fails and leaves them empty."""
    missing = {folder for path in paths for folder in Path(path).absolute().parents if not folder.exists()}
    try:
        yield
    except BaseException:
        for folder in sorted(missing, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        raise


def plan_outputs(output: Sequence[str | Path], *sources: str | Path | None) -> list[Path]:
    """The files to write, after checking that each suffix is known, each place writable and no source overwritten."""
    paths = [Path(path) for path in output]
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
    source = Path(video or keypoints).resolve()
    name = f"{source.parent.name}-{source.stem}" if source.name == RESULT else source.stem  # runs/clip/result.npz
    folder = RUNS / (name.strip(". ") or "clip")
    names = [RESULT] + ([f"overlay{VIDEO_SUFFIX}"] if video is not None else [])
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
    models: str | Path | None = None,
) -> Evidence:
    """Runs a detector and the tracker over a video in one pass and constant memory.

    models: folder with the detector's model files.
    """
    from lifting.tracks import Tracker
    from lifting.video import open_video

    with open_video(video, start, end, fps) as reader:
        found = _create_detector(detector, models) if isinstance(detector, str) else detector
        tracker = Tracker(found.skeleton, reader.image_size, reader.fps)
        notes, interrupted = [], False
        frames = progress(reader, reader.num_frames, "detecting") if progress else reader
        try:
            with closing(_pixels(frames)) as pixels:
                for detections in found.detect(pixels):
                    tracker.update(detections)
        except KeyboardInterrupt:
            if not tracker.num_frames:
                raise
            interrupted = True
            logging.getLogger("lift").warning(
                "interrupted: lifting and writing the %d frames read; Ctrl-C again to stop", tracker.num_frames
            )
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
            list(reader.assumed), notes, interrupted,
        )  # fmt: skip


def _create_detector(name: str, models: str | Path | None) -> Detector:
    from lifting.detectors import create_detector

    if models is None:
        return create_detector(name)
    try:
        return create_detector(name, model_dir=models)
    except TypeError as error:
        raise ValueError(f"the detector '{name}' takes no folder of models; leave out --detector-models") from error


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
    sequence: str | None = None,
    video: str | Path | None = None,
) -> Evidence:
    """2D evidence from a keypoint file of any known tool; people without ids are tracked.

    fps, image_size and skeleton win over what the file says. What neither states comes from the video that the
    keypoints belong to, then from the camera, and is else assumed and said.
    """
    from lifting.detectors.files import read_keypoints
    from lifting.tracks import Tracker
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
    times, people = _cut(Path(path).name, times, people, start, end)
    name = Path(path).resolve().stem
    if skeleton is None:
        doubts += _order_doubts(people[0][1])
    return Evidence(name, size, rate, times, people, f"{file.format} file", focal_metadata, assumed, doubts)


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


def _choose_camera(evidence: Evidence, camera: Camera | str | Path | None, focal: float | None) -> Camera:
    if camera is not None:
        return _as_camera(camera, evidence.image_size).resized(evidence.image_size)
    if focal is not None:
        return Camera.from_focal(focal, evidence.image_size)
    if evidence.camera is not None:
        return evidence.camera
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
        "interrupted": evidence.interrupted,
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
    size = float(np.median(person_size(inside)))
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
        "sure_joints_share": round(float((scores >= SURE_SCORE).mean()), 4),
        "mean_confidence": round(confidence, 4),
        "reprojection_error_px": _finite(lifted.reprojection_px, 2),
        "reprojection_error_share": _finite(lifted.reprojection_px / size, 4),
        "median_sigma_m": round(float(np.nanmedian(lifted.motion.sigma)), 4),
        "scale": round(lifted.scale, 4),
        "repairs": lifted.cleaned.summary(),
    }
    report["warnings"] = _doubts(report)
    return report


def _finite(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def _doubts(report: dict) -> list[str]:
    """Sentences for a lift that rests on poor detection."""
    doubts = []
    if report["mean_confidence"] < POOR_SCORE:
        doubts.append(f"detection is poor (mean confidence {report['mean_confidence']:.2f}): do not trust this motion")
    if report["seen_share"] < POOR_RATE:
        doubts.append(f"seen in only {report['seen_share']:.0%} of the frames between first and last: gaps are bridged")
    if report["sure_joints_share"] < POOR_RATE:
        doubts.append(f"only {report['sure_joints_share']:.0%} of the body joints were seen well: the rest is guessed")
    if (report["reprojection_error_share"] or 0) > POOR_REPROJECTION:
        doubts.append(f"the motion misses the keypoints by {report['reprojection_error_share']:.0%} of the person")
    if report["median_sigma_m"] > POOR_SIGMA:
        doubts.append(f"the lifter is unsure (sigma {1000 * report['median_sigma_m']:.0f} mm): do not trust it")
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
    report: str | Path | None = None,
) -> None:
    """Writes every output; each appears whole or not at all, videos last so that an interrupt keeps the others."""
    videos = [path for path in outputs if path.suffix.lower() == VIDEO_SUFFIX]
    for path in outputs:
        if path not in videos:
            save(take, path)
    if report is not None:
        write_report(take, Path(report))
    for path in videos:
        _write_overlay(take, path, video, start, end, progress)


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
    with atomic_write(path) as file:
        file.write(json.dumps(report_of(take), indent=2).encode())


def report_of(take: Take) -> dict:
    """The take's report: plain JSON-able facts."""
    return {
        "name": take.name, "frames": len(take), "fps": take.fps, "image_size": list(take.image_size),
        "assumed": list(take.assumed), **take.metadata,
    }  # fmt: skip


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)
