"""`lift train`: a temporal model from a data set, or the default lifter adapted to one's own footage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import click

from lifting.console import one_sentence_errors, printable, progress_bar, refuse_options, say

OF_ADAPTING = ("init", "unlabeled", "steps", "device", "seed", "folder", "as_json")  # parameters looked at then
RECEPTIVE_FIELDS = ("1", "3", "9", "27", "81", "243")


@click.command()
@click.option("--data", default="data", show_default=True, type=click.Path(), help="Data set: a file or folder.")
@click.option("--keypoints", help="Which 2D keypoints, where there are several, such as cpn_ft_h36m_dbb.")
@click.option("--semi", metavar="BUDGET", help="Semi-supervised: whose labels are known, such as 1%S1 or S1,S5.")
@click.option("--unlabeled", type=click.Path(), help="Folder of your own videos or keypoint files, as unlabelled data.")
@click.option("--init", metavar="default|FILE", help="Begin from weights; `default` adapts lift's own to --unlabeled.")
@click.option("--subjects-train", help="With commas.  [default: all that are not tested]")
@click.option("--subjects-test", help="With commas.  [default: the field's, such as S9,S11]")
@click.option("--actions", help="With commas; beginnings of names are enough.  [default: all]")
@click.option("--downsample", default=1, show_default=True, help="Use every so many frames.")
@click.option("--scores", is_flag=True, help="Confidences of the keypoints are input, too.")
@click.option("--receptive-field", type=click.Choice(RECEPTIVE_FIELDS), default="27", show_default=True, help="Frames.")
@click.option("--channels", default=1024, show_default=True)
@click.option("--causal", is_flag=True, help="See no later frames.")
@click.option("--dense", is_flag=True, help="Dense instead of dilated convolutions (the paper's ablation).")
@click.option("--stride", default=1, show_default=True, help="Frames predicted per sample.")
@click.option("--epochs", default=60, show_default=True)
@click.option("--steps", type=int, help="Optimiser steps in all; the epochs of the schedule are shares of them.")
@click.option("--batch", default=1024, show_default=True, help="Frames per step.")
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--decay", default=0.95, show_default=True, help="Of the learning rate, per epoch.")
@click.option("--dropout", default=0.25, show_default=True)
@click.option("--warmup", default=1, show_default=True, help="Epochs without the unlabelled terms.")
@click.option("--no-flip", is_flag=True, help="Do not train on mirrored clips.")
@click.option("--no-trajectory", is_flag=True, help="Train no trajectory net (supervised only).")
@click.option("--no-projection", is_flag=True, help="Leave out back-projection.")
@click.option("--no-bones", is_flag=True, help="Leave out the bone-length term.")
@click.option("--bones", type=click.Choice(["absolute", "squared", "each"]), default="absolute", show_default=True,
              help="Bone-length term: norm of the difference of means, as the paper; or each frame's difference.")
@click.option("--linear-projection", is_flag=True, help="Back-project without lens distortion.")
@click.option("--device", type=click.Choice(["cpu", "cuda", "mps"]), help="[default: cuda if there is one, else cpu]")
@click.option("--bfloat16", is_flag=True, help="Mixed precision.")
@click.option("--workers", default=1, show_default=True, help="Processes that prepare batches.")
@click.option("--seed", default=0, show_default=True)
@click.option("--folder", default="runs/train", show_default=True, type=click.Path(), help="Where everything goes.")
@click.option("--resume/--restart", default=True, help="Go on where a run in the folder stopped, or forget it.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@one_sentence_errors
def train(init: str | None, folder: str, as_json: bool, **options: object) -> None:
    """Train a lifter, from labels and unlabelled video; Ctrl-C keeps what is done, the same command goes on."""
    folder = Path(folder)
    try:
        report = _adapt(folder, **options) if init == "default" else _train(folder, init, **options)
    except FloatingPointError as error:
        raise ValueError(str(error)) from error
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
        say(json.dumps(report, indent=2) if as_json else "\n".join(map(printable, report["lines"])))


def _train(folder: Path, init: str | None, resume: bool, **options: object) -> dict:
    """Train on a data set and describe what came of it."""
    from lifting.models.temporal_file import load_temporal
    from lifting.training.trainer import CURVES, train

    config = _config(**options)
    selection = _select(**options)
    start = None if init is None else load_temporal(init)
    try:
        weights = train(
            config, selection.labelled, selection.unlabelled, selection.validation, folder, ranges=selection.ranges,
            unlabelled_ranges=selection.unlabelled_ranges, start=start, resume=resume)  # fmt: skip
    except KeyboardInterrupt:
        say(f"stopped; what is done is kept in {printable(str(folder))}, the same command goes on", err=True)
        raise
    errors = load_temporal(weights).header.metrics
    lines = [f"validation: {', '.join(f'{name} {value:g}' for name, value in errors.items())}"] if errors else []
    return {"weights": str(weights), "curves": str(folder / CURVES), "metrics": str(folder / "metrics.jsonl"),
            "validation": errors, "lines": [*lines, f"wrote {weights}", f"wrote {folder / CURVES}"]}  # fmt: skip


def _config(
    receptive_field: str, steps: int | None, no_flip: bool, no_trajectory: bool, no_projection: bool, no_bones: bool,
    bones: str, linear_projection: bool, device: str | None, **options: object,
) -> object:  # fmt: skip
    """The options as the trainer's configuration."""
    from dataclasses import fields

    import torch

    from lifting.training.config import WIDTHS, Terms, TrainConfig

    known = {field.name for field in fields(TrainConfig)}
    return TrainConfig(
        widths=WIDTHS[int(receptive_field)], max_steps=steps, flip=not no_flip, trajectory=not no_trajectory,
        terms=Terms(not no_projection, not no_bones, linear_projection, bones),
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        **{name: value for name, value in options.items() if name in known})  # fmt: skip


def _select(
    data: str, keypoints: str | None, semi: str | None, unlabeled: str | None, subjects_train: str | None,
    subjects_test: str | None, actions: str | None, downsample: int, **_: object,
) -> object:  # fmt: skip
    """The clips that the options ask for."""
    from lifting.datasets.budgets import parse_budget
    from lifting.datasets.opening import open_clips
    from lifting.training.selection import add_footage, select_clips

    budget = None if semi is None else parse_budget(semi)  # before anything is read
    selection = select_clips(
        open_clips(data, keypoints=keypoints), train=_names(subjects_train), test=_names(subjects_test),
        actions=_names(actions), budget=budget, downsample=downsample)  # fmt: skip
    if unlabeled is not None:
        selection = add_footage(selection, _footage(unlabeled, selection.labelled.skeleton_in))
    if budget is not None and selection.unlabelled is None:
        raise ValueError(f"got the label budget {semi!r}, which leaves no subject unlabelled; label fewer, or give "
                         "your own footage (--unlabeled)")
    return selection


def _footage(folder: str, skeleton: object) -> object:
    from lifting.footage import read_footage

    return read_footage(folder, skeleton=skeleton, progress=progress_bar, report=_warn).clips


def _warn(text: str) -> None:
    say(printable(text), err=True)


def _adapt(folder: Path, unlabeled: str | None, steps: int | None, device: str | None, seed: int, **_: object) -> dict:
    """Adapt the default lifter to a folder of one's own footage."""
    refuse_options(OF_ADAPTING, "--init default adapts lift's own weights to --unlabeled alone")
    if unlabeled is None:
        raise ValueError("got --init default without footage; try: lift train --init default --unlabeled FOLDER")
    from lifting.footage import adapt_folder

    output = folder / "lifter.safetensors"
    report = adapt_folder(unlabeled, output, steps=steps, device=device or "cpu", seed=seed, progress=_progress,
                          report=_warn)  # fmt: skip
    return {"weights": str(output), "lines": [*report.lines(), f"wrote {output}"]}


def _progress(iterable: Iterable, total: int | None, title: str) -> Iterable:
    """A bar over the frames of a video or the steps of adapting."""
    return progress_bar(iterable, total, title, unit="step" if title == "adapting" else "frame")


def _names(text: str | None) -> list[str] | None:
    """Names between commas; ``*`` and nothing mean all."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    return None if names in ([], ["*"]) else names
