"""Many videos or keypoint files in one run: which, in which share, what is done already, and each on its own.

A file is finished when its report says so: the report is removed before work on a file begins and written after all its
outputs, with the options it was made with, so whatever stops a batch, the same command goes on where it stopped.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lifting import __version__
from lifting.console import USER_ERRORS, one_sentence
from lifting.continuation import check_seconds
from lifting.evidence import Progress, load_detector
from lifting.footage import KEYPOINT_SUFFIXES, VIDEO_SUFFIXES
from lifting.motion import Take
from lifting.outputs import default_outputs
from lifting.pipeline import check_choices, run_video
from lifting.quality import write_report
from lifting.video import IMAGE_SUFFIXES
from lifting.workers import Start, WorkerDied, map_in_processes, map_on_ray

ENGINES = ("local", "ray")
NAME = "{name}"  # stands in --output for the name of each file
MADE_WITH = "made_with"  # key of the report under which a batch keeps the options
PATHS = ("body", "camera", "detector_models", "weights")  # options that name files
LIFTED, SKIPPED, FAILED, INTERRUPTED = "lifted", "skipped", "failed", "interrupted"


@dataclass(frozen=True)
class Job:
    """One file of a batch, all paths absolute.

    name: unique in the batch: the path below the folder, or the fixed part of the pattern, without its suffix.
    kind: ``video`` or ``keypoints``. report: written last, the mark of a finished file.
    """

    name: str
    kind: str
    source: Path
    outputs: tuple[Path, ...]
    report: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `LIFTED`, `SKIPPED` (was finished), `FAILED` (error says why) or `INTERRUPTED` (Ctrl-C)."""

    job: Job
    status: str
    error: str = ""
    seconds: float = 0.0
    people: int = 0
    frames: int = 0
    warnings: int = 0

    def to_dict(self) -> dict:
        """Plain facts for JSON."""
        facts = {name: getattr(self, name) for name in ("status", "error", "people", "frames", "warnings")}
        return {"name": self.job.name, "source": str(self.job.source), "report": str(self.job.report), **facts,
                "seconds": round(self.seconds, 3)}  # fmt: skip


# ---- which files


def is_batch(video: str | Path | None, keypoints: str | Path | None) -> bool:
    """Whether a source stands for many files: a folder that is not itself one clip, or a pattern that is no file.

    A folder with images in it is a video; a folder with a tool's keypoints, one JSON file a frame, is a keypoint file.
    """
    return any(source is not None and _is_many(Path(source).expanduser(), kind)
               for kind, source in (("video", video), ("keypoints", keypoints)))  # fmt: skip


def _is_many(source: Path, kind: str) -> bool:
    if source.is_dir():
        return not _is_clip_folder(source, kind)
    return _is_pattern(source)


def _is_pattern(source: Path) -> bool:
    return glob.has_magic(str(source)) and not source.exists()


def _is_clip_folder(folder: Path, kind: str) -> bool:
    """Whether a folder is one clip."""
    if kind == "video":
        return _holds(folder, IMAGE_SUFFIXES)
    from lifting.detectors.files import FORMATS
    from lifting.detectors.files.content import read_content

    try:
        content = read_content(folder)
        return any(module.matches(content) for module in FORMATS.values())
    except ValueError:
        return False


def _holds(folder: Path, suffixes: Sequence[str]) -> bool:
    return any(file.suffix.lower() in suffixes for file in folder.iterdir() if not file.name.startswith("."))


def find_files(source: str | Path, kind: str) -> dict[str, Path]:
    """The files of a batch by their names, in natural order of the paths.

    source: a folder, of which all videos (or keypoint files) and all folders that are one are taken, nothing deeper; or
    a pattern (``*``, ``?``, ``[...]``, ``**`` for folders below), of which everything that matches is.
    kind: ``video`` or ``keypoints``.

    Raises FileNotFoundError when nothing matches and ValueError when a folder holds nothing of the kind.
    """
    source = Path(source).expanduser()
    if source.is_dir():
        base, paths = source, [path for path in source.iterdir() if _is_usable(path, kind)]
        if not paths:
            raise ValueError(f"the folder '{source}' holds {_NOTHING[kind]}; give one that does, or a quoted pattern")
    else:
        base = _fixed_part(source)
        paths = [Path(path) for path in glob.glob(str(source), recursive=True)]
        if not paths:
            raise FileNotFoundError(f"nothing matches the pattern '{source}'; check it")
    return _name_files(base, sorted(paths, key=_natural_key))


_NOTHING = {"video": "no images, no videos and no folders of images",
            "keypoints": "no JSON files of a clip's frames and no keypoint files"}  # fmt: skip


def _is_usable(path: Path, kind: str) -> bool:
    """Whether a folder's entry is a clip, by its suffix or by what it holds."""
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return _holds(path, IMAGE_SUFFIXES if kind == "video" else (".json",))
    return path.suffix.lower() in (VIDEO_SUFFIXES if kind == "video" else KEYPOINT_SUFFIXES)


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before the first that is one."""
    parts = pattern.parts[:-1]
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])


def _natural_key(path: Path) -> list:
    """Sorts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]


def _name_files(base: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Paths below `base` without suffixes as names; files that share one (walk.mp4, walk.mov) keep theirs."""
    below = {path: path.relative_to(base) for path in paths}
    plain = {path: part if path.is_dir() else part.with_suffix("") for path, part in below.items()}
    shared = Counter(str(part).casefold() for part in plain.values())
    return {(part if shared[str(part).casefold()] == 1 else below[path]).as_posix(): path.absolute()
            for path, part in plain.items()}  # fmt: skip


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8`` as (2, 8): the second of eight shards; ValueError otherwise."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"got the shard '{text}', expected i/n with i from 1 to n, such as 1/4")
    return number, count


def in_shard(name: str, number: int, count: int) -> bool:
    """Whether a file is of that shard. Its name alone decides, so files may come and go between the shards' runs."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count == number - 1


def plan_jobs(
    *,
    video: str | Path | None = None,
    keypoints: str | Path | None = None,
    output: Sequence[str] = (),
    mesh: bool = False,
    shard: str | None = None,
) -> list[Job]:
    """The files of a batch with what is to be written for each.

    Args:
        video, keypoints: a folder or a pattern, see `find_files`; one of the two.
        output: files to write, in which ``{name}`` stands for the job's name; ``runs/NAME/...`` without.
        mesh: whether the default outputs hold bodies. shard: ``i/n``, see `parse_shard` and `in_shard`; all without.

    Raises ValueError or FileNotFoundError with one sentence.
    """
    if video is not None and keypoints is not None:
        raise ValueError("got many files with both --video and --keypoints; a batch is of one kind, give one of them")
    kind = "video" if video is not None else "keypoints"
    files = find_files(video if video is not None else keypoints, kind)
    for path in output:
        if NAME not in path:
            raise ValueError(f"the output '{path}' would be written for every file; put {NAME} in it, which stands "
                             f"for each file's name: 'motions/{NAME}.npz'")  # fmt: skip
    number, count = (1, 1) if shard is None else parse_shard(shard)
    jobs = []
    for name, source in files.items():
        if in_shard(name, number, count):
            paths = [path.replace(NAME, name) for path in output]
            outputs = paths or default_outputs(**{"video": None, "keypoints": None, kind: source}, mesh=mesh, name=name)
            outputs = tuple(Path(path).expanduser().absolute() for path in outputs)
            report = outputs[0].with_name(f"{outputs[0].stem}.report.json" if paths else "report.json")
            jobs.append(Job(name, kind, source, outputs, report))
    return jobs


# ---- what is done


def made_with(job: Job, options: Mapping) -> dict:
    """What a job's results depend on, as plain JSON: the version, the options, and each file's size and date."""
    options = {name: _plain(name, value) for name, value in sorted(options.items())}
    outputs = [path.name for path in job.outputs]
    return {"version": __version__, "source": _stamp(job.source), "outputs": outputs, "options": options}


def _plain(name: str, value: object) -> object:
    """An option as JSON: of a file its stamp, of a layout or camera its fields, of a detector or body its name."""
    if name in PATHS and isinstance(value, str | Path) and Path(value).expanduser().exists():
        return _stamp(Path(value).expanduser())
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return str(value) if isinstance(value, Path) else getattr(value, "name", value)


def _stamp(path: Path) -> dict:
    """Name, bytes and date of a file, of a folder those of all its files together."""
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    facts = [file.stat() for file in files]
    return {"name": path.name, "bytes": sum(fact.st_size for fact in facts),
            "modified_ns": max((fact.st_mtime_ns for fact in facts), default=0)}  # fmt: skip


def is_finished(job: Job, options: Mapping) -> bool:
    """Whether a job was done to the end with the same options and none of its outputs is missing."""
    try:
        report = json.loads(job.report.read_bytes())
        same = report.get(MADE_WITH) == json.loads(json.dumps(made_with(job, options)))
        return same and not report["interrupted"] and all(path.is_file() for path in job.outputs)
    except (OSError, ValueError, KeyError, AttributeError):
        return False


# ---- the work


class FileLifter:
    """Lifts one file after another with a lifter and a detector that are loaded once.

    Args:
        options: those of `lifting.pipeline.run_video` that all files share, and ``weights``, a lifter's file.
        detects: whether the files are videos, for which a detector is needed.
        progress: ``progress(iterable, total, title)`` wraps the long loops.

    Raises ValueError, FileNotFoundError, ImportError or OSError with one sentence where one of them cannot be loaded.
    """

    def __init__(self, options: Mapping, detects: bool, progress: Progress | None = None) -> None:
        from lifting.predict import Lifter

        self._options, self._shared = options, dict(options)
        self._shared |= {"lifter": Lifter.load(self._shared.pop("weights", None)), "progress": progress}
        models = self._shared.pop("detector_models", None)
        if detects and isinstance(self._shared.setdefault("detector", "auto"), str):
            self._shared["detector"] = load_detector(self._shared["detector"], models)

    def __call__(self, job: Job) -> Outcome:
        """What became of the job; whatever goes wrong with it is said and not raised."""
        start = time.perf_counter()
        try:
            take = self._lift(job)
        except USER_ERRORS as error:
            return Outcome(job, FAILED, one_sentence(error))
        except Exception as error:  # a bug of ours must not cost the other files
            logging.getLogger("lift").exception("'%s' failed", job.name)
            return Outcome(job, FAILED, f"{type(error).__name__}: {one_sentence(error)}")
        status = INTERRUPTED if take.metadata["interrupted"] else LIFTED
        seconds, warnings = time.perf_counter() - start, len(take.metadata["warnings"])
        return Outcome(job, status, "", seconds, len(take.people), len(take), warnings)

    def _lift(self, job: Job) -> Take:
        made = made_with(job, self._options)
        job.report.unlink(missing_ok=True)
        take = run_video(**{job.kind: job.source}, output=job.outputs, **self._shared)
        write_report(take, job.report, **{MADE_WITH: made})
        return take


def run_batch(
    jobs: Sequence[Job],
    options: Mapping,
    *,
    engine: str = "local",
    workers: int = 1,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Does the jobs that are not finished and yields what became of each, as soon as it is known.

    Args:
        jobs: from `plan_jobs`. options: see `FileLifter`.
        engine: ``local`` or ``ray``, a Ray cluster whose machines see the same files and have lift installed.
        workers: processes of the local engine, which share the cores; 1 works in this one.
        progress: wraps the long loops of one worker.

    One file's failure, or the death of the process that works on it, does not stop the others. Ctrl-C ends the
    iteration; the file in work is begun again by the next run. Raises ValueError, FileNotFoundError, ImportError or
    OSError with one sentence for options that no file could use.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine '{engine}', expected one of {', '.join(ENGINES)}")
    if workers < 1:
        raise ValueError(f"got {workers} workers, expected at least 1")
    shared = {name: options.get(name) for name in ("camera", "focal", "height")}
    check_choices("", None, person=options.get("person", "all"), **shared)
    if options.get("future") is not None:
        check_seconds(options["future"])
    if options.get("refine") is not None:
        from lifting.strips_refine import check_method

        check_method(options["refine"])
    options = {name: _absolute(value) if name in PATHS else value for name, value in options.items()}
    open_jobs = []
    for job in jobs:
        if is_finished(job, options):
            yield Outcome(job, SKIPPED)
        else:
            open_jobs.append(job)
    if open_jobs:
        start = partial(FileLifter, options, any(job.kind == "video" for job in open_jobs))
        with closing(_map(start, open_jobs, engine, workers, progress)) as results:
            yield from _until_interrupted(results)


def _absolute(path: object) -> object:
    """A path for processes in other folders; what is no path (a body's name, a camera) as it is."""
    if isinstance(path, str | Path) and Path(path).expanduser().exists():
        return str(Path(path).expanduser().absolute())
    return path


def _map(start: Start, jobs: Sequence[Job], engine: str, workers: int, progress: Progress | None) -> Iterator[Outcome]:
    if engine == "local" and workers == 1:
        yield from map(start(progress=progress), jobs)
        return
    results = map_on_ray(start, jobs) if engine == "ray" else map_in_processes(start, jobs, workers)
    with closing(results):
        for job, result in results:
            yield Outcome(job, FAILED, str(result)) if isinstance(result, WorkerDied) else result


def _until_interrupted(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    for outcome in outcomes:
        yield outcome
        if outcome.status == INTERRUPTED:
            return
