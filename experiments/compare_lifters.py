"""The default lifter against the reference TCN and its targets, from results of `experiments.benchmark_lifter`.

    python -m experiments.benchmark_lifter --weights runs/reference_27/reference.safetensors \\
        --output runs/reference_27.json
    python -m experiments.compare_lifters runs/benchmark_lifter.json runs/reference_27.json [runs/reference_81.json ...]

The reference is, for each set and stage, the one with the lowest MPJPE. Prints the table and writes
``runs/compare_lifters.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from experiments.benchmark_lifter import PREDICT, STAGES
from experiments.fit_table import Row, Target, markdown
from experiments.paper_runs import write_json
from lifting.console import one_sentence_errors, say

ERRORS = ("MPJPE mm", "P-MPJPE mm", "MPJVE mm/frame")
LOWER = {  # share of the reference's error that is to be missing at least
    "standard": {"MPJPE mm": 15.0, "P-MPJPE mm": 15.0, "MPJVE mm/frame": 0.0}, "hard": {"P-MPJPE mm": 20.0},
}  # fmt: skip
ROOT = {PREDICT: Target(5.0), "predict + height": Target(2.5)}
COVERAGE = {"sigma coverage %": 5.0, "lowest joint %": 10.0, "highest joint %": 10.0}


def against_reference(kind: str, stage: str, ours: dict, references: dict[str, dict]) -> Row:
    """What the default lifter's errors are below those of the better reference, in percent."""
    name, theirs = min(references.items(), key=lambda item: item[1]["MPJPE mm"])
    values = {"set": kind, "stage": stage, "reference": name}
    for error in ERRORS:
        values |= {error: ours[error], f"reference {error}": theirs[error]}
        values[f"lower by %, {error}"] = 100 * (1 - ours[error] / theirs[error])
    targets = {f"lower by %, {error}": Target(least, at_most=False) for error, least in LOWER[kind].items()}
    return Row(values, targets)


def against_targets(kind: str, stage: str, ours: dict) -> Row:
    """Root error and calibration of one stage."""
    values = {"set": kind, "stage": stage, "root % median": ours["root % median"]}
    targets = {"root % median": ROOT[stage]} if stage in ROOT else {}
    for name, allowed in COVERAGE.items():
        off = f"{name} off 68"
        values |= {name: ours[name], off: abs(ours[name] - 68)}
        targets[off] = Target(allowed)
    return Row(values, targets)


@click.command()
@click.argument("ours", type=click.Path(path_type=Path))
@click.argument("references", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--output", default="runs/compare_lifters.json", show_default=True, type=click.Path(path_type=Path))
@one_sentence_errors
def main(ours: Path, references: tuple[Path, ...], output: Path) -> None:
    """Prints the tables and writes them as JSON."""
    mine = json.loads(ours.read_text())["results"]
    theirs = {path.stem: json.loads(path.read_text())["results"] for path in references}
    compared, reached = [], []
    for kind, stages in mine.items():
        for stage in (stage for stage in STAGES if stage in stages):
            if all(stage in results[kind] for results in theirs.values()):
                others = {name: results[kind][stage] for name, results in theirs.items()}
                compared.append(against_reference(kind, stage, stages[stage], others))
            reached.append(against_targets(kind, stage, stages[stage]))
    for rows in (compared, reached):
        say(markdown(rows) + "\n")
    write_json(output, {"against reference": [row.to_dict() for row in compared],
                        "against targets": [row.to_dict() for row in reached]})  # fmt: skip


if __name__ == "__main__":
    main()
