"""From a video, or a file of keypoints, to a `Take` with everybody's 3D motion, and to the files that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifting import __version__
from lifting.anatomy import H36M, check_height
from lifting.cameras import Camera
from lifting.continuation import check_seconds, fit_with_future
from lifting.evidence import (
    Evidence,
    Progress,
    check_sources,
    choose_camera,
    choose_people,
    detect_people,
    read_evidence,
)
from lifting.export import load
from lifting.motion import Motion, Person, Take
from lifting.outputs import (
    check_outputs,
    default_fit_outputs,
    default_outputs,
    no_empty_folders,
    plan_outputs,
    recorded_body,
    write_outputs,
)
from lifting.quality import report_of, report_person, write_report
from lifting.skeletons import Skeleton
from lifting.smoothing import cut_off
from lifting.world import DEFAULT_SMOOTHING, check_camera_height, place_in_world

if TYPE_CHECKING:
    from lifting.body import BodyModel
    from lifting.detectors import Detector
    from lifting.predict import Lifter
    from lifting.strips_refine import Refiner

__all__ = [
    "Evidence",
    "default_fit_outputs",
    "default_outputs",
    "fit_result",
    "lift_people",
    "report_of",
    "run_video",
    "write_report",
]

SHORT_SECONDS, SHORT_SIGMA, TORN_MM = 0.3, 0.095, 65.0  # seconds, metres and millimetres, see `_brevity`
NO_HEIGHT = "no height given"


def run_video(
    video: str | Path | None = None,
    *,
    keypoints: str | Path | None = None,
    output: str | Path | Sequence[str | Path] | None = None,
    detector: str | Detector = "auto",
    person: str | int = "all",
    camera: Camera | str | Path | None = None,
    focal: float | None = None,
    fov: float | None = None,
    height: float | None = None,
    camera_height: float | None = None,
    smooth: float = DEFAULT_SMOOTHING,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    image_size: tuple[int, int] | None = None,
    skeleton: str | Skeleton | None = None,
    sequence: str | None = None,
    detector_models: str | Path | None = None,
    every: int = 1,
    report: str | Path | None = None,
    lifter: Lifter | None = None,
    mesh: bool = False,
    body: str | Path | BodyModel | None = None,
    future: float | None = None,
    refine: str | None = None,
    progress: Progress | None = None,
) -> Take:
    """Lifts the people of a video, a folder of images or a file of keypoints, and writes the results.

    Args:
        video: a video file or a folder of images.
        keypoints: a file of 2D keypoints to lift instead of detecting; a ``video`` beside it is drawn on and says
            what the file leaves out (image size, frame rate, lens).
        output: files to write, by suffix (``lifting.export.FORMATS``, with `mesh` also ``BODY_FORMATS``, and ``.mp4``);
            nothing is written without.
        detector: a name in ``lifting.detectors.DETECTORS`` or an object of that protocol.
        person: ``all``, ``largest`` (by visible area over time) or an id.
        camera: a camera, or a file that holds one; where it has a pose, or one per frame, that tells gravity and floor.
        focal: focal length in pixels instead. fov: horizontal field of view in degrees instead.
        height: stature of the main person in metres; fixes the scale.
        camera_height: metres of the camera over the floor; fixes the scale instead.
        smooth: smoothing of the motion in the world, 0 (none) to 1; the raw motion is kept.
        start, end: seconds of the video.
        fps, image_size, skeleton: of images or keypoint files that do not state them.
        sequence: which of a VideoPose3D data set, ``subject/action/camera``.
        detector_models: the detector's model file, or a folder with its files, where no installed package has them.
        every: detect in each so many frames only; keypoints in between are interpolated, and all frames are lifted.
        report: JSON file for the report.
        lifter: other weights than the default ones.
        mesh: whether to fit bodies to the motion. body: which, by its name or a file of the SMPL family; ``lite``.
        future: seconds of everybody's future to predict (`lifting.future`); results hold it, all else shows it.
        refine: ``tcmr`` or ``hmmr``: let this temporal body model tell the poses anew (`lifting.strips_refine`).
        progress: ``progress(iterable, total, title)`` wraps the long loops.

    Returns:
        The take; its metadata holds the report (people, confidence, focal length, repairs, warnings).

    An interrupt (Ctrl-C) while detecting lifts and writes what has been read so far. Raises ValueError,
    FileNotFoundError, ImportError or OSError with one sentence; what is wrong with the input, the options or the places
    to write to shows before anything is written, and no output ever appears in part.
    """
    check_choices(video, keypoints, person, camera, focal, height)
    check_camera_height(camera_height)
    cut_off(smooth)
    _check_lone_options(camera, focal, fov, height, camera_height)
    if body is not None and not mesh:
        raise ValueError("got a body but no mesh is asked for; add --mesh (mesh=True)")
    _check_options_of_source(keypoints, image_size, skeleton, sequence, every)
    if future is not None:
        check_seconds(future)
    check_sources(video, keypoints, start, end, fps, camera)
    model = _load_body(body) if mesh else None
    refiner = None if refine is None else _load_refiner(refine)
    progress = progress or _no_progress
    given = [] if output is None else [output] if isinstance(output, str | Path) else list(output)
    with no_empty_folders([*given, *([report] if report is not None else [])]):
        ahead = _count_frames(video, start, end, fps) if keypoints is None else None
        outputs = plan_outputs(given, video, keypoints, bodies=mesh, report=report, frames=ahead)
        if keypoints is not None:
            evidence = read_evidence(
                keypoints, fps=fps, image_size=image_size, skeleton=skeleton, start=start, end=end, camera=camera,
                sequence=sequence, video=video,
            )  # fmt: skip
        else:
            evidence = detect_people(
                video, detector, start=start, end=end, fps=fps, progress=progress, models=detector_models, every=every
            )
        evidence.people = choose_people(evidence, person)
        check_outputs(outputs, {number: _span(keypoints.seen.any(1)) for number, keypoints in evidence.people})
        if fov is not None:
            camera = Camera.from_fov(fov, evidence.image_size)
        view = choose_camera(evidence, camera, focal)
        take = lift_people(evidence, view, height, lifter)
        take = place_in_world(take, smoothing=smooth, camera_height=camera_height)
        if refiner is not None:
            take = _refine(take, refiner)
        if future is not None:
            take = _with_future(take, future)
        if model is not None:
            take = _fit(take, model, body, height=height, progress=progress)
        write_outputs(take, outputs, video, start, end, progress, report, model)
    return take


def fit_result(
    result: str | Path | Take,
    *,
    output: str | Path | Sequence[str | Path] | None = None,
    body: str | Path | BodyModel | None = None,
    height: float | None = None,
    mode: str = "whole",
    prior: str | Path | None = None,
    contacts: bool = True,
    video: str | Path | None = None,
    report: str | Path | None = None,
    progress: Progress | None = None,
) -> Take:
    """Fits bodies to the people of an earlier result, and writes the outputs.

    Args:
        result: a file that ``lift run`` or ``lift.save`` wrote, or a take.
        output: files to write, by suffix (``lifting.export.FORMATS``, ``BODY_FORMATS`` and ``.mp4``).
        body: by name, or a file of the SMPL family; default: the one that the result was fitted with, else ``lite``.
        height: stature of the main person in metres; default: the one that the lift was given.
        mode: ``whole``, all frames at once by second-order steps, or ``smplify``, the classic stages.
        prior: a file with another pose prior.
        contacts: whether feet that stand are held still on the floor.
        video: what the overlay is drawn over; without, it is dark.
        report: JSON file for the report.
        progress: ``progress(iterable, total, title)`` wraps the long loops.

    Returns the take with bodies; ``take.metadata["body"]`` holds the report. Raises ValueError, FileNotFoundError,
    ImportError or OSError with one sentence, before anything is written.
    """
    check_height(height)
    source = None if isinstance(result, Take) else result
    take = result if isinstance(result, Take) else load(result)
    if all(person.motion is None for person in take.people):
        raise ValueError(f"nobody in '{take.name}' has a 3D motion to fit a body to; lift the keypoints with lift run")
    given = [] if output is None else [output] if isinstance(output, str | Path) else list(output)
    if video is not None:
        check_sources(video, None, None, None, None, None)
    with no_empty_folders([*given, *([report] if report is not None else [])]):
        outputs = plan_outputs(given, source, video, bodies=True, report=report, frames=len(take))
        lifted = [person for person in take.people if person.motion is not None]
        check_outputs(outputs, {person.id: np.isfinite(person.motion.joints).any((1, 2)) for person in lifted})
        body = _body_to_refit(take) if body is None else body
        model = _load_body(body)
        if height is None:  # SMPLify has no use for one
            height = take.metadata.get("height_m") if mode == "whole" else None
        else:
            take = take.replace(assumed=tuple(s for s in take.assumed if not s.startswith(NO_HEIGHT)))
        take = _fit(take, model, body, height=height, mode=mode, prior=prior, contacts=contacts, progress=progress)
        start = float(take.times[0]) or None
        write_outputs(take, outputs, video, start, None, progress or _no_progress, report, model)
    return take


def _no_progress(iterable: Iterable, total: int | None, title: str) -> Iterable:
    return iterable


def _count_frames(video: str | Path, start: float | None, end: float | None, fps: float | None) -> int | None:
    """About how many frames a video has, None where it does not say."""
    from lifting.video import open_video

    with open_video(video, start, end, fps) as reader:
        return reader.num_frames


def _span(seen: np.ndarray) -> np.ndarray:
    """(T,) bool: the frames from the first to the last that is True."""
    return np.logical_or.accumulate(seen) & np.logical_or.accumulate(seen[::-1])[::-1]


def _load_body(body: str | Path | BodyModel | None) -> BodyModel:
    from lifting.body import load_body

    return load_body("lite" if body is None else body)


def _load_refiner(method: str) -> Refiner:
    from lifting.strips_refine import load_refiner

    return load_refiner(method)


def _refine(take: Take, refiner: Refiner) -> Take:
    from lifting.strips_refine import refine_take

    return refine_take(take, refiner)


def _body_to_refit(take: Take) -> str | None:
    """The body that a result was fitted with; None where it was not, ValueError where that is not at hand."""
    from lifting.body.body_file import BODIES

    body = recorded_body(take)
    if body is not None and body not in BODIES and not Path(body).is_file():
        raise ValueError(f"'{take.name}' was fitted with the body '{body}', from a file that is not there any more; "
                         "give the file with --body FILE, or another body, such as --body lite")  # fmt: skip
    return body


def _fit(take: Take, model: BodyModel, source: object, **options: object) -> Take:
    """The take with fitted bodies; its report says from which file, if `source` is the path of one."""
    from lifting.body.body_file import BODIES

    fitted = fit_with_future(take, body=model, **options)
    about = dict(fitted.metadata["body"])
    if isinstance(source, str | Path) and str(source) not in BODIES:
        about["file"] = str(Path(source).expanduser().resolve())
    about["people"] = [{**report, "warnings": [*report["warnings"], *_brevity(fitted.person(report["id"]), report)]}
                       for report in about["people"]]  # fmt: skip
    return fitted.replace(metadata={**fitted.metadata, "body": about})


def _with_future(take: Take, seconds: float) -> Take:
    from lifting.future import future

    return future(take, seconds)


def _brevity(person: Person, report: dict) -> list[str]:
    """A sentence where a short clip left open which way a person faces and how tall they are.

    On most pieces of up to five frames of the sample, the lift took front for back, and bodies came out 7 to 24 cm too
    short; no body then fits the joints, or the lifter doubts them itself. Eight frames were enough. Short clips that
    show neither are taken for good.
    """
    frames = int(np.isfinite(person.motion.joints).any((1, 2)).sum())
    sigma = np.nan if person.motion.sigma is None else np.nanmedian(person.motion.sigma)
    torn = (report["mean_residual_mm"] or 0) > TORN_MM or sigma > SHORT_SIGMA
    if frames / person.motion.fps >= SHORT_SECONDS or not torn:
        return []
    count = "1 frame is" if frames == 1 else f"{frames} frames are"
    return [f"{count} too few to tell which way this person faces and how tall they are; give a longer clip"]


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


def _check_lone_options(
    camera: object, focal: float | None, fov: float | None, height: float | None, camera_height: float | None
) -> None:
    """ValueError for a lens, or a scale, that is stated twice."""
    if fov is not None and (focal is not None or camera is not None):
        raise ValueError("got a field of view together with a camera or a focal length; pass only one of them")
    if height is not None and camera_height is not None:
        raise ValueError("got both a height and a camera height, each of which fixes the scale; pass only one of them")


def _check_options_of_source(
    keypoints: object, image_size: object, skeleton: object, sequence: object, every: int
) -> None:
    """ValueError for options of keypoint files with a video alone, and for one of detection with keypoints."""
    for what, given in (("an image size", image_size), ("a skeleton", skeleton), ("a sequence", sequence)):
        if keypoints is None and given is not None:
            raise ValueError(f"got {what} with a video alone, but it describes keypoint files; drop it")
    if keypoints is not None and every != 1:
        raise ValueError(f"got --every {every} with keypoints, but nothing is detected then; drop it")


def lift_people(evidence: Evidence, camera: Camera, height: float | None = None, lifter: Lifter | None = None) -> Take:
    """Lifts everybody in the evidence; the report is in the take's metadata."""
    from lifting.predict import default_lifter

    lifter = lifter or default_lifter()
    if lifter.header.skeleton_out != H36M.name:
        raise ValueError(f"the weights {lifter.source} give joints in the layout {lifter.header.skeleton_out}, results "
                         f"have {H36M.name}; use them with lift evaluate, or with Lifter.load(...).lift in Python")
    if height is None:
        evidence.assumed.append(
            f"{NO_HEIGHT}: sizes and distances follow the network's idea of the body; pass --height"
        )
    people, reports = [], []
    for number, keypoints in evidence.people:
        if not keypoints.seen.any():
            evidence.warnings.append(f"person {number} was not lifted: no keypoint was seen")
            continue
        first, last = np.flatnonzero(keypoints.seen.any(1))[[0, -1]]
        try:
            inside = keypoints.slice(first, last + 1)
            lifted = lifter.lift(inside, camera, height=None if people else height)
        except ValueError as error:
            evidence.warnings.append(f"person {number} was not lifted: {error}")
            continue
        motion = _pad(lifted.motion, first, len(keypoints))
        people.append(Person(number, keypoints, motion))
        reports.append(report_person(number, inside, lifted, camera, evidence.times[first:], first))
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
