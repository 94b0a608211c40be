"""The files a run writes: which, where, and each whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifting import export
from lifting.continuation import continued
from lifting.evidence import Progress
from lifting.export import BODY_FORMATS, FORMATS, MOTION_FORMATS, as_path, format_of, suffix_of
from lifting.export.mesh_files import frame_in_name, frame_of_name
from lifting.export.scene import path_of_person
from lifting.files import atomic_path, check_writable
from lifting.motion import Take
from lifting.quality import write_report
from lifting.world import presented

if TYPE_CHECKING:
    from lifting.body import BodyModel
    from lifting.meshes import SkinnedMesh

RUNS = Path("runs")
VIDEO_SUFFIX = ".mp4"
FRAME_FORMATS = (".obj", ".ply")  # that hold one frame
RESULT, BODY_RESULT, BODY_SCENE = "result.npz", "body.npz", "body.glb"
DARKENED = 0.45  # brightness of the last picture, where the future is shown beside it
OVERLAY_VERTICES = 1000  # at least, of the meshes in an overlay: at its size nobody sees more


@contextmanager
def no_empty_folders(paths: Iterable[str | Path]) -> Iterator[None]:
    """Takes away the folders made for ``paths`` when the work in the block fails and leaves them empty."""
    missing = {folder for path in paths for folder in Path(path).absolute().parents if not folder.exists()}
    try:
        yield
    except BaseException:
        for folder in sorted(missing, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        raise


def plan_outputs(
    output: Sequence[str | Path],
    *sources: str | Path | None,
    bodies: bool = False,
    report: str | Path | None = None,
    frames: int | None = None,
) -> list[Path]:
    """The files to write, after checking all that can be checked before the work.

    Each suffix is known, each place writable and named once, no source overwritten, and what the formats need is there.

    Args:
        output: the files; sources: what must not be overwritten; report: another file that will be written.
        bodies: whether bodies will be there for the formats that hold them.
        frames: about how many frames there will be, where that is known.
    """
    paths = [Path(path) for path in output]
    for path in paths:
        _check_format(path, bodies)
        if _holds_one_frame(path) and frame_in_name(path) is None:
            frame_of_name(path, frames or 1)
    every = [*paths, *([Path(report)] if report is not None else [])]
    _check_distinct(every)
    for path in every:
        if any(source is not None and _same_file(path, Path(source)) for source in sources):
            raise ValueError(f"the output '{path}' is the input itself; choose another name")
        check_writable(path)
    return paths


def check_outputs(outputs: Sequence[Path], present: Mapping[int, np.ndarray]) -> None:
    """ValueError or OSError where a file cannot be what its name says, once it is known who is there and when.

    present: (T,) bool for each person by id, the main person first: the frames in which they are seen.
    """
    frames = len(next(iter(present.values()), ()))
    for path in filter(_holds_one_frame, outputs):
        number = frame_of_name(path, frames)
        if not any(seen[number] for seen in present.values()):
            raise ValueError(f"'{path.name}' asks for frame {number}, in which nobody is seen; choose another")
    places = list(outputs)
    for path in outputs:
        if suffix_of(path) and format_of(path).one_person:
            places += [path_of_person(path, number, suffix_of(path)) for number in [*present][1:]]
    _check_distinct(places)
    for path in places[len(outputs) :]:
        check_writable(path)


def _check_format(path: Path, bodies: bool) -> None:
    """ValueError or ImportError for a file in a format that is unknown, or needs what is not there."""
    suffix = VIDEO_SUFFIX if path.suffix.lower() == VIDEO_SUFFIX else suffix_of(path)
    if not suffix:
        known = ", ".join((*FORMATS, *MOTION_FORMATS, *(BODY_FORMATS if bodies else ()), VIDEO_SUFFIX))
        raise ValueError(f"got the output '{path.name}' with the suffix '{path.suffix}', expected one of {known}")
    if suffix in BODY_FORMATS and not bodies:
        raise ValueError(f"the output '{path.name}' would hold a body and none is fitted; add --mesh (mesh=True)")
    if suffix != VIDEO_SUFFIX:
        format_of(path).check_package(path)
    elif find_spec("av") is None:
        raise ImportError(f"writing '{path.name}' needs PyAV: pip install '.[video]' in a clone of lift")


def _check_distinct(paths: Iterable[Path]) -> None:
    """ValueError where two files are one."""
    for place, count in Counter(Path(path).resolve() for path in paths).items():
        if count > 1:
            raise ValueError(f"two outputs would be written to the file '{place}'; choose different names")


def _holds_one_frame(path: Path) -> bool:
    return suffix_of(path) in FRAME_FORMATS


def default_outputs(
    video: str | Path | None, keypoints: str | Path | None, mesh: bool = False, name: str | None = None
) -> list[Path]:
    """What ``lift run`` writes without ``--output``, in ``runs/NAME/``: the result, the overlay and the bodies' scene.

    The overlay needs a `video`, the scene a `mesh`. NAME is that of the source unless `name` is given.
    """
    if name is None:
        source = Path(video or keypoints).resolve()
        name = f"{source.parent.name}-{source.stem}" if source.name == RESULT else source.stem  # runs/clip/result.npz
    names = [RESULT, *([f"overlay{VIDEO_SUFFIX}"] if video is not None else []), *([BODY_SCENE] if mesh else [])]
    return [_run_folder(name) / file for file in names]


def default_fit_outputs(result: str | Path) -> list[Path]:
    """What ``lift fit`` writes without ``--output``: the result with bodies and their scene, in ``runs/NAME/``.

    NAME is the run's for a ``runs/NAME/result.npz``, so that both lie side by side.
    """
    source = Path(result).resolve()
    names = {RESULT: source.parent.name, BODY_RESULT: f"{source.parent.name}-{source.stem}"}
    name = names.get(source.name, source.stem)
    return [_run_folder(name) / BODY_RESULT, _run_folder(name) / BODY_SCENE]


def _run_folder(name: str) -> Path:
    return RUNS / (name.strip(". ") or "clip")


def save(
    take: Take,
    path: str | PathLike,
    *,
    meshes: Iterable[SkinnedMesh] | None = None,
    body: str | Path | BodyModel | None = None,
) -> Path:
    """Write a take in the format of the suffix, whole or not at all; returns the path.

    Results are in the axes of the take. What other programs open shows the motion in the world, where the take was
    placed there (see `lifting.world.presented`), unless `meshes` are given, which are written as they are.

    Args:
        take: the take.
        path: the file. Some formats, as ``.bvh``, hold one person: the others go to ``NAME.person2.bvh`` beside it;
            ``.obj`` and ``.ply`` hold the frame whose number is in the name: ``clip.120.obj``.
        meshes: the bodies for the formats that hold them, where they are not to be made from the take's own.
        body: the body model those are made with, where its name in the take is not enough: a file of the SMPL family.

    Raises ValueError for an unknown suffix or a take without the bodies the format needs, and OSError for an unwritable
    place.
    """
    path = as_path(path)
    if meshes is None and isinstance(take, Take) and format_of(path).takes_meshes:
        meshes = body_meshes(continued(presented(take)), body)
        take = _on_one_time_line(presented(take), path)
    return export.save(take, path, meshes=meshes or ())


def _on_one_time_line(take: Take, path: Path) -> Take:
    """The take with its people's futures after the last frame, for a format that cannot show them beside it."""
    return take if format_of(path).beside else continued(take)


def body_meshes(take: Take, body: str | Path | BodyModel | None = None, level: str = "full") -> list[SkinnedMesh]:
    """The meshes of the people who have a fitted body; without such people nothing is imported or loaded."""
    if all(person.body is None for person in take.people):
        return []
    from lifting.body.fit import take_meshes

    return take_meshes(take, recorded_body(take) if body is None else body, level)


def recorded_body(take: Take) -> str | None:
    """With what the take's bodies were fitted: the file, if it was one and is still there, else the name; or None."""
    name = next((person.body.body for person in take.people if person.body is not None), None)
    about = take.metadata.get("body")
    file = about.get("file") if isinstance(about, Mapping) else None
    return file if name is not None and isinstance(file, str) and Path(file).is_file() else name


def write_outputs(
    take: Take,
    outputs: Sequence[Path],
    video: str | Path | None,
    start: float | None,
    end: float | None,
    progress: Progress,
    report: str | Path | None = None,
    body: BodyModel | None = None,
) -> None:
    """Writes every output: all files or none, and then the videos, so that an interrupt keeps the files.

    Results are in the axes of the take; all else shows the motion in the world, where the take was placed there.
    body: the model of the take's bodies, if it has any.
    """
    videos = [path for path in outputs if path.suffix.lower() == VIDEO_SUFFIX]
    results = [path for path in outputs if suffix_of(path) in FORMATS]
    scenes = [path for path in outputs if suffix_of(path) in (*MOTION_FORMATS, *BODY_FORMATS)]
    level = presented(take)
    with ExitStack() as written:
        export.write_files(export.files_of(take, results), written)
        meshes = body_meshes(continued(level), body) if scenes else []
        for path in scenes:
            export.write_files(export.files_of(_on_one_time_line(level, path), [path], meshes), written)
        if report is not None:
            write_report(take, written.enter_context(atomic_path(report)))
    for path in videos:
        shown = continued(level)
        meshes = body_meshes(shown, body, overlay_level(body))
        _write_overlay(shown, path, video, start, end, progress, meshes, predicted=len(shown) - len(level))


def overlay_level(body: BodyModel | None) -> str:
    """The name of the body's coarsest mesh that still looks smooth in an overlay."""
    sizes = {} if body is None else {name: len(preview.vertex_ids) for name, preview in body.previews.items()}
    return min((name for name, size in sizes.items() if size >= OVERLAY_VERTICES), key=sizes.get, default="full")


def _write_overlay(
    take: Take,
    path: Path,
    video: str | Path | None,
    start: float | None,
    end: float | None,
    progress: Progress,
    meshes: Sequence[SkinnedMesh],
    predicted: int = 0,
) -> None:
    """Draws a take whose last frames are `predicted`: over the last picture, darkened."""
    from lifting.video import open_video
    from lifting.view.overlay import shown_size, write_overlay

    if video is None:
        width, height = take.image_size
        blank = np.full((height, width, 3), 24, np.uint8)
        frames = ((time, blank) for time in progress(take.times, len(take), "drawing"))
        write_overlay(take, frames, path, meshes=meshes, predicted=predicted)
        return
    images_rate = take.fps if Path(video).is_dir() else None  # a video file brings its own
    with open_video(video, start, end, images_rate) as reader:
        reader.frame_size = shown_size(take.image_size)
        frames = ((frame.time_seconds, frame.rgb) for frame in reader)
        seen = len(take) - predicted
        kept = _until(frames, take.times[seen - 1] + 0.5 / take.fps)
        shown = _and_after(kept, take.times[seen:])
        write_overlay(take, progress(shown, len(take), "drawing"), path, meshes=meshes, predicted=predicted)


def _until(frames: Iterable[tuple[float, np.ndarray]], last: float) -> Iterator[tuple[float, np.ndarray]]:
    """Frames up to ``last`` seconds: an interrupted run draws only what it read."""
    for time, rgb in frames:
        if time > last:
            return
        yield time, rgb


def _and_after(
    frames: Iterable[tuple[float, np.ndarray]], times: np.ndarray
) -> Iterator[tuple[float, np.ndarray]]:
    """Frames, and at later times the last one once more, darkened."""
    rgb = None
    for time, rgb in frames:
        yield time, rgb
    if rgb is not None:
        dark = (rgb * DARKENED).astype(np.uint8)
        yield from ((time, dark) for time in times.tolist())


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)
