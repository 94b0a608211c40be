"""The experiments of the paper: rows are kept, shared and shown; what they claim follows from the numbers."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from filmed_clips import filmed_clips

from experiments import complexity, paper_runs, semi_supervised, time_to_error
from experiments.paper_runs import P1, P2, Experiment, Row, Setting, recipe_in_words
from experiments.time_to_error import PlainConfig
from lifting.datasets.clips import ClipList
from lifting.models.temporal import TemporalConfig, build_temporal
from lifting.models.temporal_file import load_temporal
from lifting.training import trainer
from lifting.training.config import Terms, TrainConfig
from lifting.training.evaluate import evaluate
from lifting.training.networks import Networks

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("batch_correlation", "causal", "flip", "humaneva", "receptive_fields", "semi_supervised", "sources_2d",
         "time_to_error", "velocity")
RECIPE = dict(widths=(3, 1), channels=4, batch=16, epochs=4, max_steps=2, trajectory=False, workers=0)
ROWS = (
    Row("supervised", budget="25%S1", paper={P1: 100.7}),
    Row("semi", {"trajectory": True, "warmup": 1, "terms": Terms(bones=False)}, "25%S1", True),
    Row("supervised, flip at test", budget="25%S1", flip=True, training="supervised"),
)
EXPERIMENT = Experiment("tiny", "A tiny experiment", ROWS, (P1, P2), {"reduced": RECIPE})


@pytest.fixture
def clips(monkeypatch):
    """Three walkers in place of Human3.6M; drawing takes longer than these trainings."""
    parts = [filmed_clips(subject, 2, phase=phase) for subject, phase in (("S1", 0.0), ("S5", 1.0), ("S9", 2.0))]
    clips = ClipList([clip for part in parts for clip in part], "h36m tiny")
    monkeypatch.setattr(paper_runs, "_open", lambda data, keypoints: clips)
    monkeypatch.setattr(trainer, "plot_curves", lambda folder, path: path)
    return clips


@pytest.fixture
def setting(tmp_path):
    return Setting("anywhere", tmp_path / "tiny", RECIPE)


def test_selection_maps_the_papers_subjects_to_the_datas_own(clips, setting, monkeypatch):
    selection = paper_runs.select(ROWS[1], setting)
    assert selection.ranges.keys() == {0, 1}
    assert {stop - start for start, stop in selection.ranges.values()} == {10}
    assert selection.unlabelled_ranges == {2: (0, 40), 3: (0, 40)}
    assert {info.subject for info in selection.validation.infos} == {"S9"}
    renamed = {"S1": "14", "S5": "29", "S9": "05"}
    mocap = ClipList([replace(clip, subject=renamed[clip.subject]) for clip in clips], "mocap tiny")
    monkeypatch.setattr(paper_runs, "_open", lambda data, keypoints: mocap)
    selection = paper_runs.select(ROWS[1], setting)
    assert {selection.labelled.infos[index].subject for index in selection.ranges} == {"14"}


def test_row_trains_once_and_is_read_again(clips, setting, monkeypatch):
    result = paper_runs.run_row(ROWS[0], setting)
    weights = load_temporal(setting.folder / "supervised" / trainer.WEIGHTS)
    table = evaluate(weights, clips.select(["S9"]), flip=False).table
    assert result["scores"] == table.over_rows.scores
    assert result["steps"] == 2
    assert result["settings"]["labelled_frames"] == 20
    monkeypatch.setattr(paper_runs, "train", lambda *_, **__: pytest.fail("trained again"))
    assert paper_runs.run_row(ROWS[0], setting) == result
    assert paper_runs.run_row(ROWS[2], setting)["scores"] != result["scores"]  # the same weights, another test


def test_semi_supervised_row_uses_the_other_subjects(clips, setting):
    result = paper_runs.run_row(ROWS[1], setting)
    last = json.loads((setting.folder / "semi" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"pose", "trajectory", "projection"} <= last.keys()
    assert "bones" not in last
    assert result["settings"]["terms"]["bones"] is False


def test_row_of_other_settings_is_refused(clips, setting):
    paper_runs.run_row(ROWS[0], setting)
    with pytest.raises(ValueError, match="other settings \\(channels\\)"):
        paper_runs.run_row(replace(ROWS[0], changes={"channels": 8}), setting)


def test_shards_share_the_trainings():
    shares = [paper_runs.choose(ROWS, shard=f"{number}/2") for number in (1, 2)]
    assert [[row.name for row in share] for share in shares] == [["supervised", "supervised, flip at test"], ["semi"]]
    assert paper_runs.choose(ROWS, only=["flip", "semi"]) == [ROWS[1], ROWS[2]]


@pytest.mark.parametrize("options, message", [
    (dict(only=["none such"]), "no row's name contains none such; the rows are supervised; semi;"),
    (dict(shard="3/2"), "got the shard '3/2'"), (dict(shard="half"), "such as 1/2"),
])  # fmt: skip
def test_nothing_to_run_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        paper_runs.choose(ROWS, **options)


def test_table_shows_ours_beside_the_papers():
    results = {"supervised": {"scores": {P1: 123.4, P2: 56.7}, "steps": 2, "seconds": 90.0}}
    assert paper_runs.table_of(EXPERIMENT, results).splitlines() == [
        "| row | P1 mm | paper, P1 mm | P2 mm | steps | minutes |",
        "|---|---|---|---|---|---|",
        "| supervised | 123 | 101 | 56.7 | 2 | 1.5 |",
    ]
    assert paper_runs.table_of(EXPERIMENT, {}) == "no row is finished yet"


def test_command_prints_and_writes_what_is_finished(clips, tmp_path):
    main = paper_runs.command(EXPERIMENT)
    outcome = CliRunner().invoke(main, ["--folder", str(tmp_path), "--only", "supervised", "--steps", "1"])
    assert outcome.exit_code == 0, outcome.output
    assert "4 channels, batches of 16 frames, 1 steps in a schedule of 4 epochs" in outcome.output
    written = json.loads((tmp_path / "tiny.json").read_text())
    assert [row["name"] for row in written["rows"]] == ["supervised", "supervised, flip at test"]
    assert written["paper"] == {"supervised": {P1: 100.7}}
    assert (tmp_path / "tiny.md").read_text() in outcome.output
    outcome = CliRunner().invoke(main, ["--folder", str(tmp_path), "--only", "none such"])
    assert outcome.exit_code == 2
    assert "the rows are" in outcome.output


def test_absent_data_is_one_sentence():
    for name in ("humaneva", "semi_supervised"):
        module = importlib.import_module(f"experiments.{name}")
        outcome = CliRunner().invoke(module.main, ["--data", "no/such/folder"])
        assert outcome.exit_code == 2
        assert "there is no data at" in outcome.output


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_every_experiment_is_a_valid_training(name):
    experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
    assert experiment.name == name
    assert len({row.name for row in experiment.rows}) == len(experiment.rows)
    for recipe in experiment.recipes.values():
        setting = Setting("anywhere", None, recipe)
        configs = {}
        for row in experiment.rows:
            config = setting.config(row)
            assert configs.setdefault(row.folder, config) == config  # rows of one training agree on it
            assert config.trajectory or not (row.unlabelled and config.terms.projection)


def papers_own_scores():
    """What the experiment would find if it found the paper's numbers."""
    scores = {}
    for keypoints, budgets in semi_supervised.PAPER.items():
        for budget, errors in budgets.items():
            for method, error in zip(("supervised", "semi"), errors, strict=True):
                scores[f"{keypoints} {budget} {method}"] = {P1: error}
    return scores | {"gt 1%S1 semi without bones": {P1: 91.3}}


def test_claims_hold_for_the_papers_own_numbers():
    lines = semi_supervised.claims(papers_own_scores())
    assert len(lines) == 12 + 4 + 1
    for line in lines:
        assert line.values["ours"] == pytest.approx(line.values["paper"])
        assert all(target.met(line.values[name]) for name, target in line.targets.items())
    first = next(line for line in lines if line.values["claim"].startswith("gt 1%S1"))
    assert first.values["ours"] == pytest.approx(22.44, abs=0.01)
    falls = [line.values["ours"] for line in lines if "falls" in line.values["claim"]]
    assert falls == pytest.approx([9.0, 5.6, 8.3, 6.4])


def test_claims_fail_where_semi_is_no_better():
    scores = papers_own_scores()
    scores["gt 1%S1 semi"] = {P1: 80.0}
    lines = semi_supervised.claims(scores)
    missed = [line.values["claim"] for line in lines for name, target in line.targets.items()
              if not target.met(line.values[name])]  # fmt: skip
    assert missed == ["gt 1%S1: semi below supervised by %"]
    assert semi_supervised.claims({}) == []


def test_plain_training_computes_every_frame():
    plain, strided = PlainConfig(widths=(3, 3), channels=4), TrainConfig(widths=(3, 3), channels=4)
    assert replace(plain, batch=7).strided is False
    assert (plain.strided, strided.strided) == (False, True)
    assert not Networks(plain.architecture(17, 17), False, plain.strided).strided


def test_time_to_error_counts_the_first_report_that_reaches_it():
    curves = {time_to_error.PLAIN.name: [(10.0, 90.0, 1), (20.0, 80.0, 2), (30.0, 70.0, 3), (40.0, 60.0, 4)],
              "ours": [(2.0, 85.0, 2), (4.0, 70.0, 4), (12.0, 65.0, 6)]}
    lines = [line for line in time_to_error.compare(curves) if line.values["row"] == "ours"]
    assert [line.values["error mm"] for line in lines] == [80.0, 70.0, 60.0]
    assert [line.values.get("times faster") for line in lines] == [5.0, 7.5, None]
    assert [line.values.get("undisturbed") for line in lines] == [5.0, 7.5, None]  # 2 x 10 s over 4 x 1 s


@pytest.mark.parametrize("form, expected", [
    ("forward_strided", 3 * 3 * 34 * 8 + 4 * 8 * 8 + 8 * 51),
    ("forward", 7 * 3 * 34 * 8 + 4 * 8 * 8 + 8 * 51),
])  # fmt: skip
def test_multiply_adds_are_those_of_the_convolutions(form, expected):
    model = build_temporal(TemporalConfig(widths=(3, 3), channels=8))
    assert complexity.multiply_adds(model, 9, form) * 1e6 == pytest.approx(expected)


def test_tables_tell_a_batch_norm_schedule_that_is_not_the_papers(tmp_path):
    told = {steps: recipe_in_words(Setting("mocap", tmp_path, dict(max_steps=steps)), {}) for steps in (4000, 20_000)}
    assert "unless a row says otherwise; batch-norm momentum from 0.1 to 0.005 (paper: 0.001); data" in told[4000]
    assert "momentum" not in told[20_000] and "momentum" not in recipe_in_words(Setting("x", tmp_path, {}), {})
