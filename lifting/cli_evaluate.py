"""`lift evaluate`: a lifter on labelled data, or a result file beside the truth."""

from __future__ import annotations

from functools import partial

import click

from lifting.console import one_sentence_errors, printable, progress_bar, refuse_options, say

OF_RESULT = ("result", "truth", "output", "as_json")  # parameters that are looked at beside a RESULT


@click.command()
@click.argument("result", required=False, type=click.Path())
@click.option("--truth", type=click.Path(), help="Truth of RESULT: an .npz as data/sample_truth.npz.")
@click.option("--data", type=click.Path(), help="Data set: a file or folder.  [default: data]")
@click.option("--weights", type=click.Path(), help="Lifter weights (.safetensors).  [default: lift's own]")
@click.option("--keypoints", help="Which 2D keypoints, where the data set has several, such as cpn_ft_h36m_dbb.")
@click.option("--subjects", help="Subjects, with commas, such as S9,S11.  [default: all labelled]")
@click.option("--actions", help="Actions, with commas; beginnings of names are enough.  [default: all]")
@click.option("--downsample", default=1, show_default=True, help="Lift and score every so many frames.")
@click.option("--no-flip", is_flag=True, help="Do not average with the mirrored input.")
@click.option("--by-subject", is_flag=True, help="Also make a table for each subject.")
@click.option("--convention", type=click.Choice(["metric", "rescaled"]), default="metric", show_default=True,
              help="Score metres as they are, or at the true depth as MotionBERT's evaluation.")
@click.option("--device", type=click.Choice(["cpu", "cuda", "mps"]), default="cpu", show_default=True)
@click.option("--output", "-o", type=click.Path(), multiple=True,
              help="File to write: .md, .tex or .json; repeat it for several.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_sentence_errors
def evaluate(result: str | None, truth: str | None, output: tuple[str, ...], as_json: bool, **options: object) -> None:
    """Measure a lifter on labelled data, or a RESULT of lift run against its --truth."""
    from lifting.files import check_writable
    from lifting.training.evaluate_tables import check_table_name, to_json, to_markdown, write_table

    if (result is None) != (truth is None):
        raise ValueError("got only one of RESULT and --truth; try: lift evaluate motion.npz --truth truth.npz")
    if result is not None:
        refuse_options(OF_RESULT, "a RESULT is compared with its truth as it is")
    for path in output:  # before the work
        check_table_name(path)
        check_writable(path)
    found = _evaluate_data(**options) if result is None else _evaluate_result(result, truth)
    for path in output:
        write_table(path, found)
    text = to_json(found) if as_json else to_markdown(found)
    wrote = [] if as_json else [f"wrote {path}" for path in output]
    say("\n".join(map(printable, [*text.splitlines(), *wrote])))


def _evaluate_data(data: str | None, weights: str | None, keypoints: str | None, subjects: str | None,
                   actions: str | None, no_flip: bool, device: str, **options: object) -> object:  # fmt: skip
    from lifting.datasets.opening import open_clips
    from lifting.predict import Lifter
    from lifting.training.evaluate import evaluate
    from lifting.training.trainer import check_device

    check_device(device)
    clips = open_clips(data or "data", keypoints=keypoints).select(_names(subjects), _names(actions))
    return evaluate(Lifter.load(weights, device), clips, flip=not no_flip, progress=partial(progress_bar, unit="clip"),
                    **options)  # fmt: skip


def _evaluate_result(result: str, truth: str) -> object:
    from lifting.export import load
    from lifting.training.evaluate_result import evaluate_result, read_truth

    return evaluate_result(load(result), read_truth(truth))


def _names(text: str | None) -> list[str] | None:
    """Names between commas; ``*`` and nothing mean all."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    return None if names in ([], ["*"]) else names
