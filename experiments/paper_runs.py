"""Results of the paper, repeated: trainings as rows of a table, each kept when done, shown beside the paper's numbers.

An experiment is a list of rows. A row is one training on one label budget and one evaluation of it; rows differ by the
fields of `Row` and of `TrainConfig`. The weights of a row lie in ``FOLDER/EXPERIMENT/ROW/``, its scores there as
``row*.json``: a row that is done is not run again, one that was stopped goes on from its last checkpoint, so the same
command goes on after an interruption, and several processes share the rows with ``--shard``.

Data: the motion capture rig by default (training subjects: split `train`, tested: subjects 05, 09 and 10, "S1":
subject 14), Human3.6M (S1, S5, S6, S7, S8 and S9, S11) where ``--data`` names its files. Scores are
`lifting.training.evaluate`'s on all frames of the tested subjects: the mean over actions for Human3.6M and HumanEva, as
the paper's, the mean over frames for the motion capture, whose categories differ in length by a factor of twenty. The
paper's numbers are of other data; what can be compared are differences between rows.

One departure from the paper: its momentum of the batch norms falls from 0.1 to 0.001, here in runs of less than 20,000
steps only to 20 / steps (0.005 at 4,000): averages over more than a twentieth of a run would be of networks long gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import click

from experiments import fit_table
from lifting.console import one_sentence_errors, say
from lifting.datasets.budgets import parse_budget
from lifting.datasets.clips import ClipSet
from lifting.datasets.mocap import DEFAULT_PATH
from lifting.datasets.opening import open_clips
from lifting.files import atomic_write
from lifting.models.temporal_file import load_temporal
from lifting.training.config import FREE, LAST_MOMENTUM, Terms, TrainConfig
from lifting.training.evaluate import Table, evaluate
from lifting.training.metrics_log import read_metrics
from lifting.training.selection import Selection, select_clips
from lifting.training.trainer import WEIGHTS, train

Scores = Mapping[str, float]
Fields = Mapping[str, object]

REDUCED: Fields = dict(channels=256, batch=128, max_steps=4000, report_every=500)
SUPERVISED: Fields = dict(epochs=80, trajectory=False)
RECIPES: Mapping[str, Fields] = {"reduced": {**SUPERVISED, **REDUCED}, "paper": SUPERVISED}
"""Fields of `TrainConfig` that all rows share: for two cores, and the paper's for a GPU."""

OWN_SUBJECTS = {"mocap": {"S1": "14"}}
"""First word of a data set's name -> the paper's name of a subject -> whom to take for it."""
TRAINED = {"humaneva15": r"Train/.*"}
"""First word of a data set's name -> who is trained on, where that is not everybody who is not tested."""
MEAN_OVER_FRAMES = ("mocap",)
DETECTED = "detected"
P1, P2, VELOCITY = "mpjpe_mm", "p_mpjpe_mm", "mpjve_mm_frame"
TITLES = {P1: "P1 mm", P2: "P2 mm", "n_mpjpe_mm": "P3 mm", VELOCITY: "MPJVE mm/frame"}


@dataclass(frozen=True)
class Row:
    """One training and one evaluation of what came of it.

    Attributes:
        name: unique in the experiment.
        changes: fields of `TrainConfig` that differ from the recipe.
        budget: whose labels are known, in the paper's names.
        unlabelled: use the other training subjects without labels: semi-supervised.
        keypoints: trained on, `gt`, `detected` (as ``--detected`` says) or another name. tested_on: the same if empty.
        actions: beginnings of the actions to train and test on; None: all.
        flip: average each prediction with that of the mirrored input.
        training: name of the folder; rows of the same training share it.
        paper: metric -> what the paper reports.
        config: class of the configuration.
    """

    name: str
    changes: Fields = field(default_factory=dict)
    budget: str = "all"
    unlabelled: bool = False
    keypoints: str = "gt"
    tested_on: str = ""
    actions: tuple[str, ...] | None = None
    flip: bool = False
    training: str = ""
    paper: Scores = field(default_factory=dict)
    config: type[TrainConfig] = TrainConfig

    @property
    def folder(self) -> str:
        """Where the weights go: letters that every file system takes."""
        return slug(self.training or self.name)


@dataclass(frozen=True)
class Setting:
    """Where and how all rows of an experiment run.

    data: a file or folder for `open_clips`; detected: what it calls its detected keypoints; recipe: fields of
    `TrainConfig`; folder: of this experiment.
    """

    data: str
    folder: Path
    recipe: Fields
    detected: str = "noisy"

    def config(self, row: Row) -> TrainConfig:
        """The configuration of a row."""
        return row.config(**{**self.recipe, **row.changes})

    def clips(self, keypoints: str) -> ClipSet:
        """The data with keypoints of that name."""
        return _open(self.data, self.detected if keypoints == DETECTED else keypoints)


@lru_cache(maxsize=2)
def _open(data: str, keypoints: str) -> ClipSet:
    return open_clips(data, keypoints=keypoints)


@dataclass(frozen=True)
class Experiment:
    """Rows with what is said of them.

    Attributes:
        name: of folder and files.
        title: a heading.
        rows: all of them.
        metrics: columns, keys of `TITLES`.
        recipes: the choices of ``--recipe``.
        claims: from the scores of the finished rows, by their names, to lines with targets; None: none.
        report: anything more to do with the setting and the finished rows, such as a plot; returns plain data.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = (P1, P2)
    recipes: Mapping[str, Fields] = field(default_factory=lambda: RECIPES)
    claims: Callable[[Mapping[str, Scores]], list[fit_table.Row]] | None = None
    report: Callable[[Setting, Sequence[Row]], dict] | None = None


def slug(name: str) -> str:
    """The name in letters, digits, dots and underscores."""
    return re.sub(r"[^\w.]+", "_", name.replace("%", "percent")).strip("_")


# ---- one row


def select(row: Row, setting: Setting) -> Selection:
    """The clips that a row trains on, its labels and whom it is watched on."""
    clips = setting.clips(row.keypoints)
    kind = clips.name.split(" ")[0]
    budget = parse_budget(row.budget)
    if budget.subjects is not None:
        own = OWN_SUBJECTS.get(kind, {})
        budget = replace(budget, subjects=tuple(own.get(subject, subject) for subject in budget.subjects))
    subjects = dict.fromkeys(info.subject for info in clips.infos)
    trained = [s for s in subjects if re.fullmatch(TRAINED[kind], s)] if kind in TRAINED else None
    return select_clips(clips, train=trained, actions=row.actions, budget=budget,
                        downsample=setting.config(row).downsample)


def settings_of(row: Row, setting: Setting, selection: Selection) -> dict:
    """What makes the numbers of a row, as plain data: two runs with equal settings give the same."""
    config = setting.config(row)
    fields = {name: value for name, value in asdict(config).items() if name not in FREE}
    return json.loads(json.dumps({
        **fields, "form": row.config.__name__, "data": selection.labelled.name, "budget": row.budget,
        "unlabelled": row.unlabelled, "actions": row.actions, "tested_on": row.tested_on, "flip": row.flip,
        "labelled_frames": sum(stop - start for start, stop in selection.ranges.values()),
    }))  # fmt: skip


def result_path(row: Row, setting: Setting) -> Path:
    """Where the scores of a row are kept."""
    return setting.folder / row.folder / f"row_{slug(row.name)}.json"


def run_row(row: Row, setting: Setting) -> dict:
    """Train and evaluate a row, unless that is done; returns its result as plain data.

    Raises ValueError when the folder holds this row with other settings, and what `train` and `evaluate` raise.
    """
    selection, path = select(row, setting), result_path(row, setting)
    settings = settings_of(row, setting, selection)
    if path.exists():
        return _known_result(path, settings)
    config, folder = setting.config(row), path.parent
    if not (folder / WEIGHTS).exists():
        unlabelled, frames = (selection.unlabelled, selection.unlabelled_ranges) if row.unlabelled else (None, None)
        train(config, selection.labelled, unlabelled, selection.validation, folder, ranges=selection.ranges,
              unlabelled_ranges=frames)  # fmt: skip
    tested = select(replace(row, keypoints=row.tested_on or row.keypoints), setting).validation
    table = evaluate(load_temporal(folder / WEIGHTS), tested, flip=row.flip).table
    last = read_metrics(folder)[-1]
    result = {"name": row.name, "settings": settings, "steps": last["step"], "seconds": last["seconds"],
              **_scores_of(table, tested.name)}  # fmt: skip
    write_json(path, result)
    return result


def _known_result(path: Path, settings: dict) -> dict:
    result = json.loads(path.read_text("utf-8"))
    other = [name for name, value in settings.items() if result["settings"].get(name, value) != value]
    if other or set(result["settings"]) != set(settings):
        raise ValueError(f"{path} has a result for other settings ({', '.join(other) or 'other fields'}); remove it, "
                         "or give another --folder.")
    return result


def _scores_of(table: Table, data: str) -> dict:
    mean = table.over_frames if data.split(" ")[0] in MEAN_OVER_FRAMES else table.over_rows
    return {"mean": mean.name, "frames": mean.frames, "scores": dict(mean.scores),
            "actions": {row.name: dict(row.scores) for row in table.rows}}  # fmt: skip


# ---- all rows


def choose(rows: Sequence[Row], only: Sequence[str] = (), shard: str = "1/1") -> list[Row]:
    """The rows whose names contain one of `only`, and of their trainings the share i/n, so that none is run twice.

    Raises ValueError when nothing is left to run or the shard is not like ``1/2``.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"got the shard {shard!r}, expected a number and how many there are, such as 1/2.")
    chosen = [row for row in rows if not only or any(part in row.name for part in only)]
    if not chosen:
        raise ValueError(f"no row's name contains {' or '.join(only)}; the rows are "
                         f"{'; '.join(row.name for row in rows)}.")
    trainings = list(dict.fromkeys(row.folder for row in chosen))[int(match[1]) - 1 :: int(match[2])]
    return [row for row in chosen if row.folder in trainings]


def finished(rows: Sequence[Row], setting: Setting) -> dict[str, dict]:
    """The results, by the names of the rows, that are there, whichever process made them."""
    paths = {row.name: result_path(row, setting) for row in rows}
    return {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()}


def table_of(experiment: Experiment, results: Mapping[str, dict]) -> str:
    """Markdown: ours beside the paper's, row by row."""
    known = [metric for metric in experiment.metrics if any(metric in row.paper for row in experiment.rows)]
    lines = []
    for row in experiment.rows:
        if (result := results.get(row.name)) is None:
            continue
        values: dict[str, fit_table.Value] = {"row": row.name}
        for metric in experiment.metrics:
            values[TITLES[metric]] = result["scores"].get(metric)
            if metric in known:
                values[f"paper, {TITLES[metric]}"] = row.paper.get(metric)
        values |= {"steps": result["steps"], "minutes": result["seconds"] / 60}
        lines.append(fit_table.Row(values))
    return fit_table.markdown(lines) if lines else "no row is finished yet"


def recipe_in_words(setting: Setting, results: Mapping[str, dict]) -> str:
    """One sentence under a table: what the rows have in common."""
    config = TrainConfig(**setting.recipe)
    steps = f"{config.max_steps:,} steps" if config.max_steps else "whole epochs"
    first = next(iter(results.values()), {"mean": "-", "frames": 0})
    data = sorted({result["settings"]["data"] for result in results.values()})
    return (f"{config.channels} channels, batches of {config.batch} frames, {steps} in a schedule of {config.epochs} "
            f"epochs, learning rate {config.learning_rate:g} times {config.decay:g} an epoch, seed {config.seed}, "
            f"unless a row says otherwise{_momentum_in_words(config)}; data {', '.join(data)}; "
            f"{first['mean'].lower()}, {first['frames']} frames.")


def _momentum_in_words(config: TrainConfig) -> str:
    """The departure from the paper's schedule of the batch norms, where there is one."""
    last = config.norm_momentum(config.epochs, config.max_steps) if config.max_steps else LAST_MOMENTUM
    return "" if last <= LAST_MOMENTUM else f"; batch-norm momentum from 0.1 to {last:g} (paper: 0.001)"


def summarise(experiment: Experiment, setting: Setting) -> str:
    """Write all finished rows as JSON and Markdown beside the experiment's folder, and return the Markdown."""
    results = finished(experiment.rows, setting)
    claims = experiment.claims({name: r["scores"] for name, r in results.items()}) if experiment.claims else []
    done = [row for row in experiment.rows if row.name in results]
    more = experiment.report(setting, done) if experiment.report and done else {}
    parts = [f"## {experiment.title}", table_of(experiment, results), recipe_in_words(setting, results)]
    parts += [fit_table.markdown(claims)] if claims else []
    parts += more.pop("markdown", [])
    text = "\n\n".join(parts) + "\n"
    write_json(setting.folder.with_suffix(".json"), {
        "recipe": {name: asdict(v) if isinstance(v, Terms) else v for name, v in setting.recipe.items()},
        "rows": list(results.values()), "paper": {row.name: dict(row.paper) for row in experiment.rows if row.paper},
        "claims": [claim.to_dict() for claim in claims], **more,
    })  # fmt: skip
    with atomic_write(setting.folder.with_suffix(".md"), "w") as file:
        file.write(text)
    return text


def write_json(path: Path, values: object) -> None:
    """Write plain data, whole or not at all; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(json.dumps(values, indent=1).encode())


def command(experiment: Experiment, data: str = DEFAULT_PATH, detected: str = "noisy") -> click.Command:
    """The command line of an experiment."""

    @click.command(help=experiment.title)
    @click.option("--data", default=data, show_default=True, help="Data set: a file or folder.")
    @click.option("--detected", default=detected, show_default=True,
                  help="Which 2D keypoints are the detector's; for Human3.6M cpn_ft_h36m_dbb.")
    @click.option("--recipe", type=click.Choice(list(experiment.recipes)), default="reduced", show_default=True)
    @click.option("--steps", type=int, help="Optimiser steps of every row, instead of the recipe's.")
    @click.option("--device", default="cpu", show_default=True)
    @click.option("--seed", default=0, show_default=True)
    @click.option("--folder", default="runs/paper", show_default=True)
    @click.option("--only", multiple=True, help="Run rows whose names contain this; may be given several times.")
    @click.option("--shard", default="1/1", show_default=True, help="Run one of several shares of the rows, as 1/2.")
    @one_sentence_errors
    def main(data: str, detected: str, recipe: str, steps: int | None, device: str, seed: int, folder: str,
             only: tuple[str, ...], shard: str) -> None:  # fmt: skip
        fields = {**experiment.recipes[recipe], "device": device, "seed": seed}
        fields |= {} if steps is None else {"max_steps": steps}
        setting = Setting(data, Path(folder) / experiment.name, fields, detected)
        chosen = choose(experiment.rows, only, shard)
        for number, row in enumerate(chosen, 1):
            result = run_row(row, setting)
            say(f"{number}/{len(chosen)} {row.name}: {result['scores'][P1]:.1f} mm, {result['seconds']:.0f} s",
                err=True)
        say(summarise(experiment, setting))

    return main
