"""Tables of an evaluation as Markdown, LaTeX and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from os import PathLike
from pathlib import Path

from lifting.files import atomic_write
from lifting.training.evaluate import METRICS, Evaluation, Metric, Row, Table

_LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
          "^": r"\^{}", "~": r"\~{}", "²": r"\textsuperscript{2}"}  # fmt: skip


def to_json(evaluation: Evaluation) -> str:
    """The evaluation's fields as JSON; a score's unit is in its key."""
    return json.dumps(asdict(evaluation), indent=2, allow_nan=False) + "\n"


def to_markdown(evaluation: Evaluation) -> str:
    """One table for all and, where there are any, one for each subject, with the notes below."""
    parts = [f"## {evaluation.weights} on {evaluation.data}"]
    for title, table in _tables(evaluation):
        columns = _columns(table)
        lines = [["", "Frames", *(metric.title for metric in columns)], ["---"] + ["---:"] * (len(columns) + 1)]
        lines += [_cells(row, columns) for row in _rows(table)]
        parts += [f"### {title}"] * bool(title) + ["\n".join(f"| {' | '.join(line)} |" for line in lines)]
    parts.append("\n".join(f"- {note}" for note in evaluation.notes))
    return "\n\n".join(parts) + "\n"


def to_latex(evaluation: Evaluation) -> str:
    """The same as `tabular` environments for the package booktabs."""
    parts = [f"% {evaluation.weights} on {evaluation.data}"]
    for title, table in _tables(evaluation):
        columns = _columns(table)
        header = " & ".join([_escaped(title), "Frames", *(_escaped(metric.title) for metric in columns)])
        parts += [rf"\begin{{tabular}}{{l{'r' * (len(columns) + 1)}}}", r"\toprule", rf"{header} \\", r"\midrule"]
        for row in _rows(table):
            parts += [r"\midrule"] * (row is table.over_rows)
            parts.append(rf"{' & '.join(map(_escaped, _cells(row, columns)))} \\")
        parts += [r"\bottomrule", r"\end{tabular}", ""]
    notes = "; ".join(map(_escaped, evaluation.notes))
    return "\n".join([*parts, rf"{{\footnotesize {notes}.\par}}", ""])


WRITERS: dict[str, Callable[[Evaluation], str]] = {".json": to_json, ".md": to_markdown, ".tex": to_latex}


def check_table_name(path: str | PathLike[str]) -> str:
    """The suffix of a table's name; ValueError, naming those that there are, for another."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        raise ValueError(f"got the output {str(path)!r}, expected a name that ends in {', '.join(WRITERS)}; choose one")
    return suffix


def write_table(path: str | PathLike[str], evaluation: Evaluation) -> None:
    """Write the evaluation in the format of the path's suffix; ValueError for another suffix, OSError if it cannot."""
    text = WRITERS[check_table_name(path)](evaluation)
    with atomic_write(path, "w") as file:
        file.write(text)


def _tables(evaluation: Evaluation) -> Iterator[tuple[str, Table]]:
    yield "", evaluation.table
    yield from evaluation.subjects.items()


def _columns(table: Table) -> list[Metric]:
    return [metric for metric in METRICS if metric.key in table.over_frames.scores]


def _rows(table: Table) -> list[Row]:
    """All lines; the averages of a single row would only repeat it."""
    return [*table.rows, table.over_rows, table.over_frames] if len(table.rows) > 1 else list(table.rows)


def _cells(row: Row, columns: list[Metric]) -> list[str]:
    scores = [f"{row.scores[m.key]:.{m.digits}f}" if m.key in row.scores else "" for m in columns]
    return [row.name, f"{row.frames}", *scores]


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
