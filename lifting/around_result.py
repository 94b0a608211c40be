"""Past and future of the people of a result from one of its frames alone, written beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lifting.body import load_body
from lifting.console import printable
from lifting.evidence import Progress
from lifting.export import load
from lifting.motion import Take
from lifting.outputs import default_fit_outputs, no_empty_folders, plan_outputs, write_outputs
from lifting.strips_around import take_around

RESULT, PAGE = "around.npz", "around.html"


def default_around_outputs(result: str | Path) -> list[Path]:
    """What ``lift future --past`` writes without ``--output``, in ``runs/NAME/``: result and page."""
    folder = default_fit_outputs(result)[0].parent
    return [folder / name for name in (RESULT, PAGE)]


def around_of_result(
    result: str | Path, frame: int | None, *, output: Sequence[str | Path], progress: Progress | None = None
) -> tuple[Take, dict]:
    """Tells what everybody did just before and will do just after one frame of a result file, and writes it.

    frame: counted from 0. output: files to write, by suffix; bodies are there. Returns `take_around`'s take and report.
    Raises ValueError, FileNotFoundError or OSError in one sentence, before anything is written.
    """
    if frame is None:
        raise ValueError("the past is told from one frame; say which with --from-frame K.")
    take, paths = load(result), [Path(path) for path in output]
    with no_empty_folders(paths):
        planned = plan_outputs(paths, result, bodies=True, frames=3)
        made, report = take_around(take, frame)
        write_outputs(made, paths, None, None, None, progress or (lambda frames, total, title: frames),
                      body=load_body("lite"))  # fmt: skip
    return made, {**report, "outputs": [str(path) for path in planned]}


def around_summary(report: dict) -> str:
    """The report in a few lines."""
    reach = max(report["frames"]) / report["fps"]
    lines = [f"{report['name']}: {reach:g} s before and after frame {report['frame']} ({report['time_s']:.2f} s), from "
             "that frame alone"]  # fmt: skip
    for person in report["people"]:
        told = [f"{name} {person[f'{name}_mm']:.0f} mm (standing still {person[f'constant_{name}_mm']:.0f})"
                for name in ("past", "future") if person[f"{name}_mm"] is not None]  # fmt: skip
        lines.append(f"  person {person['id']}: away from what was lifted then by: {', '.join(told) or 'unknown'}")
    return "\n".join(map(printable, [*lines, *(f"wrote {path}" for path in report["outputs"])]))
