"""Accuracy of a lifter under the fixed protocol of `experiments.protocol`: one row per stage, standard and hard set.

    python -m experiments.benchmark_lifter [--mocap data/mocap/mocap17.h5] [--weights FILE] [--stamp]

Rows add one stage after the other: the bare network, the flip, the cleaning, the trajectory fit (``predict`` as users
call it, known intrinsics). ``predict + height`` also gets the recorded stature, as `lifting.anatomy` measures it.
MPJPE, P-MPJPE and MPJVE are means over all frames of all views; the root error is the distance over the depth, mean and
median. Coverage is the share of joint errors inside their sigma (68 % is calibrated), of all joints and of those with
the lowest and the highest one. Weights of the reference network are benchmarked in the same way. Writes
``runs/benchmark_lifter.json``; ``--stamp`` also writes the rows of ``predict`` into the header of the weight file.

The costs of the cleaning's swap search were tuned on the val pieces, so the rows from ``+ cleaning`` on are not wholly
held out; the field of view of the hard set changes no number, since intrinsics are known and nothing is truncated.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from tqdm import tqdm

from experiments.protocol import View, benchmark_pieces, views
from lifting.anatomy import stature
from lifting.checkpoints import file_hash, load_weights, save_weights
from lifting.datasets.mocap import DEFAULT_PATH
from lifting.files import atomic_write
from lifting.metrics import joint_errors, mpjpe, mpjve, p_mpjpe
from lifting.motion import Motion
from lifting.predict import WEIGHTS, Lifter

PREDICT = "predict (+ fits to the 2D)"
STAGES = {
    "network": dict(repair=False, flip=False, refine=False),
    "+ flip": dict(repair=False, flip=True, refine=False),
    "+ cleaning": dict(repair=True, flip=True, refine=False),
    PREDICT: {},
    "predict + height": {},
}
COLUMNS = ("MPJPE mm", "P-MPJPE mm", "MPJVE mm/frame", "root % mean", "root % median", "sigma coverage %",
           "lowest joint %", "highest joint %")  # fmt: skip


class Score(NamedTuple):
    """MPJPE, P-MPJPE, MPJVE of a view in mm (3,), root errors in percent of depth (T,), errors inside sigma (T, 16)."""

    errors: np.ndarray
    root: np.ndarray
    inside: np.ndarray


def score(view: View, motion: Motion) -> Score:
    """Compares a lift with the view's truth."""
    truth = view.truth
    root = 100 * np.linalg.norm(motion.trajectory - truth.trajectory, axis=-1) / truth.trajectory[:, 2]
    inside = joint_errors(motion.joints, truth.joints) < motion.sigma
    errors = np.array([1000 * f(motion.joints, truth.joints) for f in (mpjpe, p_mpjpe, mpjve)])
    return Score(errors, root, inside[:, 1:])


def benchmark(lifter: Lifter, held_out: list[View], stage: str) -> dict[str, float]:
    """One row of the table: the stage's errors over all views."""
    scores = []
    for view in tqdm(held_out, desc=stage, leave=False, disable=None):
        height = stature(view.truth.joints) if stage.endswith("height") else None
        scores.append(score(view, lifter.predict(view.keypoints, view.camera, height=height, **STAGES[stage])))
    return summary(scores)


def summary(scores: list[Score]) -> dict[str, float]:
    """The columns of the table: means over all frames of the views."""
    errors, roots, inside = zip(*scores, strict=True)
    errors = np.average(errors, axis=0, weights=[len(root) for root in roots])
    root, inside = np.concatenate(roots), 100 * np.concatenate(inside).mean(0)
    values = (*errors, root.mean(), np.median(root), inside.mean(), inside.min(), inside.max())
    return {name: round(float(value), 2) for name, value in zip(COLUMNS, values, strict=True)}


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The results as a Markdown table."""
    lines = ["| set | stage | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for kind, stages in results.items():
        for stage, row in stages.items():
            lines.append(f"| {kind} | {stage} | " + " | ".join(f"{row[c]:.2f}" for c in COLUMNS) + " |")
    return "\n".join(lines)


def stamp(path: Path, metrics: dict[str, dict[str, float]]) -> str:
    """Replaces the metrics in a weight file's header, bit for bit the same tensors; returns the file's new hash.

    Raises as `load_weights` and `save_weights` do; the file is replaced as a whole or not at all.
    """
    tensors, header = load_weights(path)
    half = all(torch.equal(t, t.half().float()) for t in tensors.values() if t.is_floating_point())
    save_weights(path, tensors, replace(header, metrics=metrics), half=half)
    return file_hash(path)


@click.command()
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--weights", default=None, help="Weight file; the package's default without.")
@click.option("--stage", "stages", multiple=True, type=click.Choice(list(STAGES)), help="Only these rows.")
@click.option("--every", default=1, show_default=True, help="Only every n-th view, for a quick look.")
@click.option("--stamp", "stamps", is_flag=True, help="Write the rows of predict into the weight file's header.")
@click.option("--output", default="runs/benchmark_lifter.json", show_default=True)
def main(
    mocap: str, weights: str | None, stages: tuple[str, ...], every: int, stamps: bool, output: str
) -> None:  # fmt: skip
    """Prints the table and writes it as JSON."""
    if stamps and (every != 1 or PREDICT not in (stages or STAGES)):
        raise click.UsageError(f"--stamp needs every view and the stage {PREDICT!r}; leave --every and --stage out.")
    path = Path(weights) if weights else WEIGHTS
    lifter = Lifter.load(path)
    results = {}
    for kind in ("standard", "hard"):
        held_out = list(views(benchmark_pieces(mocap, kind), kind))[::every]
        results[kind] = {stage: benchmark(lifter, held_out, stage) for stage in stages or STAGES}
    print(table(results))
    source = lifter.source
    if stamps:
        source = f"{path.name} {stamp(path, {kind: rows[PREDICT] for kind, rows in results.items()})}"
        print(f"stamped: {source}, before {lifter.source}")
    with atomic_write(Path(output)) as file:
        facts = {"weights": source, "every": every, "results": results}
        file.write(json.dumps(facts, indent=2).encode())


if __name__ == "__main__":
    main()
