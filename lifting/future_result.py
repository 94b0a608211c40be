"""The future of the people of a result, written beside it and, where more was filmed, compared with what came."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lifting.console import printable
from lifting.continuation import check_seconds, fit_with_future, until
from lifting.evidence import Progress
from lifting.export import load, suffix_of
from lifting.forecast_metrics import HORIZONS_MS, best_of_samples, frame_of
from lifting.future import DEFAULT_PREDICTOR, as_forecaster, motions_to_continue, predict_take
from lifting.motion import Motion, Take
from lifting.outputs import (
    VIDEO_SUFFIX,
    check_outputs,
    default_fit_outputs,
    no_empty_folders,
    plan_outputs,
    recorded_body,
    write_outputs,
)
from lifting.statue import find_statue

RESULT, PAGE, SCENE = "future.npz", "future.html", "future.glb"

SEEN_LATER = "the frames looked at were lifted together with later ones, and so are more exact than at that moment"
ERRORS = {"mpjpe_mm": "joints", "best_of_samples_mm": "best sample", "constant_mm": "constant pose", "root_mm": "root"}


def default_future_outputs(result: str | Path, mesh: bool = False) -> list[Path]:
    """What ``lift future`` writes without ``--output``, in ``runs/NAME/``: result and page, of meshes a scene."""
    folder = default_fit_outputs(result)[0].parent
    return [folder / name for name in (RESULT, PAGE, *([SCENE] if mesh else []))]


def future_of_result(
    result: str | Path,
    *,
    output: Sequence[str | Path],
    seconds: float = 1.0,
    predictor: str | Path = DEFAULT_PREDICTOR,
    samples: int = 0,
    mesh: bool = False,
    from_frame: int | None = None,
    statue: bool = False,
    video: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[Take, dict]:
    """Predicts the future of everybody in a result file, and writes it.

    Args:
        result: a file that ``lift run``, ``lift fit`` or ``lift.save`` wrote.
        output: files to write, by suffix; of `samples` also ``NAME.sample1.npz`` and so on.
        seconds, predictor, samples: as of `lifting.future.future`. mesh: fit one body to past and future.
        from_frame: the last frame that is looked at; the take that is written ends there, and what came is compared.
        statue: find everybody's most telling frame, see `lifting.statue`.
        video: what an ``.mp4`` is drawn over.
        progress: ``progress(iterable, total, title)`` wraps the drawing.

    Returns the take with the future, and a report of plain facts. Raises ValueError, FileNotFoundError or OSError in
    one sentence, before anything is written.
    """
    check_seconds(seconds)
    whole, forecaster = load(result), as_forecaster(predictor)
    take = whole if from_frame is None else until(whole, from_frame)
    places = [Path(path) for path in output]
    every = [places, *([_of_sample(path, k) for path in places] for k in range(1, samples + 1))]
    with no_empty_folders(path for paths in every for path in paths):
        fitted = mesh or any(person.body is not None for person in take.people)
        planned = plan_outputs([p for paths in every for p in paths], result, video, bodies=fitted, frames=len(take))
        lifted = [person for person in take.people if person.motion is not None]
        check_outputs(planned, {person.id: np.isfinite(person.motion.joints).any((1, 2)) for person in lifted})
        model = _model(take) if fitted else None
        made = predict_take(take, seconds, predictor)
        if samples:
            made += predict_take(take, seconds, predictor, samples)
        report = describe(made, whole if from_frame is not None else None)
        if from_frame is not None:
            report["warnings"] = [*report["warnings"], SEEN_LATER]
        if statue:
            _add_statues(report, whole, forecaster)
        if mesh:
            made = [fit_with_future(one, body=model) for one in made]
        for one, paths in zip(made, every, strict=True):
            write_outputs(one, paths, video, float(take.times[0]) or None, None, progress or _silent, body=model)
    return made[0], {**report, "outputs": [str(path) for path in planned]}


def _of_sample(path: Path, number: int) -> Path:
    """``walk.sample2.npz`` beside ``walk.npz``."""
    suffix = VIDEO_SUFFIX if path.suffix.lower() == VIDEO_SUFFIX else suffix_of(path)
    stem = path.name[: len(path.name) - len(suffix)]
    return path.with_name(f"{stem}.sample{number}{path.name[len(stem):]}")


def _silent(iterable: Any, total: int | None, title: str) -> Any:
    return iterable


def _model(take: Take) -> Any:
    from lifting.body import load_body

    return load_body(recorded_body(take) or "lite")


def describe(made: Sequence[Take], whole: Take | None = None) -> dict:
    """Plain facts on futures, the first of them the expected one, the rest samples; JSON-able.

    whole: the take that goes on to what really came, to which the futures are compared.
    """
    first, truths = made[0], {} if whole is None else motions_to_continue(whole)
    people = []
    for person in first.people:
        if person.future is None:
            continue
        futures = [take.person(person.id).future for take in made]
        about = {"id": person.id, "way_m": _way(futures[0]), "sigma_mm": _median_mm(futures[0].sigma[-1, 1:])}
        if person.id in truths:
            about["errors"] = errors_of(futures, truths[person.id], len(first))
        people.append(about)
    about = first.metadata["future"]
    return {"name": first.name, "last_frame": len(first) - 1, "time_s": round(float(first.times[-1]), 4), **about,
            "people": people}  # fmt: skip


def _way(future: Motion) -> float | None:
    """Metres from the first to the last place of the root."""
    if future.trajectory is None:
        return None
    return round(float(np.linalg.norm(future.trajectory[-1] - future.trajectory[0])), 3)


def _median_mm(metres: np.ndarray) -> float:
    return round(1000 * float(np.median(metres)), 1)


def errors_of(futures: Sequence[Motion], motion: Motion, frames: int) -> dict | None:
    """Errors at the usual horizons against what came after the first `frames` frames of a motion; None if nothing did.

    ``mpjpe_mm``: mean error of the joints relative to the root, of the first of the futures; ``constant_mm``: of the
    last seen pose; ``root_mm``: of the root; ``best_of_samples_mm``: of that of the other futures which errs least.
    """
    truth = motion.slice(frames, frames + len(futures[0])) if len(motion) > frames else None
    known = np.isfinite(truth.joints).all((1, 2)) if truth is not None else np.zeros(0, bool)
    known = int(np.logical_and.accumulate(known).sum())
    horizons = [ms for ms in HORIZONS_MS if round(ms * motion.fps / 1000) in range(1, known + 1)]
    if not horizons:
        return None
    at = [frame_of(ms, motion.fps) for ms in horizons]
    seen = motion.joints[:frames][np.isfinite(motion.joints[:frames]).all((1, 2))][-1]
    rows = {"mpjpe_mm": futures[0].joints[at] - truth.joints[at], "constant_mm": seen - truth.joints[at]}
    if truth.trajectory is not None:
        rows["root_mm"] = (futures[0].trajectory[at] - truth.trajectory[at])[:, None]
    errors = {name: _rounded_mm(np.linalg.norm(row, axis=-1).mean(-1)) for name, row in rows.items()}
    if len(futures) > 1:
        drawn = np.stack([future.joints[:known] for future in futures[1:]])[None]
        errors["best_of_samples_mm"] = _rounded_mm(best_of_samples(drawn, truth.joints[None, :known], motion.fps,
                                                                   horizons))  # fmt: skip
    return {"horizons_ms": horizons, **errors}


def _rounded_mm(metres: np.ndarray) -> list[float]:
    return [round(1000 * float(value), 1) for value in metres]


def _add_statues(report: dict, take: Take, forecaster: Any) -> None:
    """Adds everybody's most telling frame, or a warning; ValueError where nobody's can be found."""
    motions, failures = motions_to_continue(take), []
    for person in report["people"]:
        try:
            found = find_statue(motions[person["id"]], take, forecaster, lambda sentence: None)
        except ValueError as error:
            failures.append(error)
            report["warnings"] = [*report["warnings"], f"person {person['id']}: {error}"]
            continue
        person["statue"] = {"frame": found.frame, "time_s": round(float(take.times[found.frame]), 4),
                            "error_falls_mm_per_s": round(1000 * float(found.gain.max()), 1)}  # fmt: skip
    if len(failures) == len(report["people"]):
        raise failures[0]


def future_summary(report: dict) -> str:
    """The report of `describe` in a few lines."""
    lines = [f"{report['name']}: {report['frames']} frames, {report['seconds']:g} s, after frame "
             f"{report['last_frame']} ({report['time_s']:.2f} s), predicted by {report['predictor']}"]  # fmt: skip
    for person in report["people"]:
        way = "" if person["way_m"] is None else f"goes {person['way_m']:.2f} m, "
        lines.append(f"  person {person['id']}: {way}in the end known within {person['sigma_mm']:.0f} mm")
        lines += _error_lines(person.get("errors"))
        if statue := person.get("statue"):
            lines.append(f"    statue moment: frame {statue['frame']}, {statue['time_s']:.2f} s")
    lines += [f"  warning: {sentence}" for sentence in report["warnings"]]
    return "\n".join(map(printable, [*lines, *(f"wrote {path}" for path in report["outputs"])]))


def _error_lines(errors: dict | None) -> list[str]:
    """A small table of errors over horizons."""
    if errors is None:
        return []
    rows = [("ms ahead", errors["horizons_ms"])]
    rows += [(f"{title}, mm", errors[name]) for name, title in ERRORS.items() if name in errors]
    return [f"    {title:<18}" + "".join(f"{value:>7.0f}" for value in values) for title, values in rows]
