"""How much memory training takes: 243 frames, 1024 channels, batches of 1024, on a CPU.

    python -m experiments.training_memory [--steps 2]

Each case trains for some steps in a process of its own; counted is by how much its resident memory grows, at its peak,
beyond what it had with everything imported and the data read: networks, optimiser, activations, checkpoint. At most
2 GB. Reads ``/proc``, so Linux only. Writes ``runs/paper/training_memory.json``. Two shared CPU cores: minutes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from experiments import fit_table
from experiments.benchmark_loader import random_data
from experiments.fit_table import Target
from experiments.paper_runs import write_json
from lifting.console import one_sentence_errors, say
from lifting.training.config import WIDTHS, TrainConfig
from lifting.training.trainer import Trainer

LIMIT = 2.0  # GB


@dataclass(frozen=True)
class Case:
    """What is trained: fields of `TrainConfig` beside the common ones."""

    name: str
    fields: dict


CASES = (
    Case("pose net, float32", {"trajectory": False}),
    Case("pose net, bfloat16", {"trajectory": False, "bfloat16": True}),
    Case("pose and trajectory net, float32", {}),
    Case("pose and trajectory net, bfloat16", {"bfloat16": True}),
)


def resident(name: str) -> float:
    """GB of this process now (``VmRSS``) or at its peak (``VmHWM``); OSError where there is no ``/proc``."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))[1]) * 1024 / 1e9


def grow(fields: dict, steps: int) -> float:
    """GB by which training makes this process grow, at its peak."""
    clips = random_data(clips=20, frames=500)
    config = TrainConfig(WIDTHS[243], batch=1024, max_steps=steps, **fields)
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak so far is forgotten
    before = resident("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        Trainer(config, clips, None, folder).fit()
    return resident("VmHWM") - before


def measure(case: Case, steps: int) -> fit_table.Row:
    """The line of a case, measured in a new process."""
    child = [sys.executable, "-m", "experiments.training_memory", "--steps", str(steps), "--grow",
             json.dumps(case.fields)]  # fmt: skip
    growth = float(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    return fit_table.Row({"case": case.name, "peak growth GB": growth}, {"peak growth GB": Target(LIMIT)})


@click.command()
@click.option("--steps", default=2, show_default=True)
@click.option("--output", default="runs/paper/training_memory.json", show_default=True)
@click.option("--grow", "fields", hidden=True, help="Measure this process only: fields of the configuration, JSON.")
@one_sentence_errors
def main(steps: int, output: str, fields: str | None) -> None:
    """Peak growth of resident memory in training."""
    if fields is not None:
        say(f"{grow(json.loads(fields), steps):.3f}")
        return
    rows = [measure(case, steps) for case in CASES]
    say(fit_table.markdown(rows))
    write_json(Path(output), {"steps": steps, "rows": [row.to_dict() for row in rows]})


if __name__ == "__main__":
    main()
