"""`lift train` from the command line: what it chooses, writes and says, and its errors in one sentence."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner
from filmed_clips import filmed_clip

from lifting.cli_train import train
from lifting.datasets.budgets import parse_budget
from lifting.datasets.clip_file import write_clips
from lifting.datasets.clips import Clip, ClipList
from lifting.models.temporal_file import load_temporal
from lifting.training import trainer
from lifting.training.selection import add_footage, select_clips

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ["--receptive-field", "3", "--channels", "8", "--steps", "4", "--epochs", "2", "--batch", "16",
         "--workers", "0"]
CLIPS = ClipList([filmed_clip(subject, str(view), view, phase=phase) for view in range(2)
                  for subject, phase in (("S1", 0.0), ("S5", 1.0), ("S9", 2.0))], "h36m gt")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "walks.h5"
    write_clips(path, CLIPS, name="h36m gt")
    return path


@pytest.fixture(autouse=True)
def without_curves(monkeypatch):
    monkeypatch.setattr(trainer, "plot_curves", lambda folder, path: path)


def lift_train(*options: object):
    return CliRunner().invoke(train, [str(option) for option in options])


def sentence(result) -> str:
    """The one line of an error."""
    assert result.exit_code == 2, result.output
    [line] = [line for line in result.output.splitlines() if line]
    assert line.startswith("lift: ")
    return line


# ---- what it does


def test_semi_supervised_training_ends_with_paths_and_errors(data, tmp_path):
    result = lift_train("--data", data, "--semi", "50%S1", "--folder", tmp_path, *SMALL)
    assert result.exit_code == 0, result.output
    assert "validation: mpjpe_mm " in result.output
    assert f"wrote {tmp_path / 'weights.safetensors'}" in result.output and "curves.png" in result.output
    weights = load_temporal(tmp_path / "weights.safetensors")
    assert weights.pose.config.widths == (3, 1, 1) and weights.trajectory is not None
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 4 and rows[-1]["projection"] > 0


def test_supervised_training_with_switches_and_json(data, tmp_path):
    result = lift_train("--data", data, "--subjects-train", "5,S1", "--subjects-test", "s9", "--actions", "Wal",
                        "--causal", "--no-trajectory", "--no-flip", "--json", "--folder", tmp_path, *SMALL)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert set(report) >= {"weights", "curves", "metrics", "validation"} and report["validation"]["mpjpe_mm"] > 0
    weights = load_temporal(report["weights"])
    assert weights.pose.config.causal and weights.trajectory is None


def test_the_same_command_goes_on_and_other_options_do_not(data, tmp_path):
    command = ["--data", data, "--folder", tmp_path, *SMALL]
    assert lift_train(*command).exit_code == 0
    assert lift_train(*command).exit_code == 0  # done already
    assert "was started with dropout 0.25, now it is 0.5" in sentence(lift_train(*command, "--dropout", 0.5))
    assert lift_train(*command, "--dropout", 0.5, "--restart").exit_code == 0


@pytest.mark.filterwarnings("default")  # as on a user's terminal
def test_a_damaged_newest_checkpoint_is_a_warning_in_one_sentence(data, tmp_path):
    options = ("--data", data, "--folder", tmp_path, *SMALL)
    assert lift_train(*options).exit_code == 0
    (tmp_path / "last.pt").rename(tmp_path / "previous.pt")
    (tmp_path / "last.pt").write_text("bad\n")
    result = lift_train(*options)
    assert result.exit_code == 0 and "wrote" in result.stdout
    [line] = result.stderr.splitlines()
    assert line.startswith("lift: warning: the newest checkpoint is damaged: ")
    (tmp_path / "previous.pt").unlink()
    assert "expected a whole checkpoint" in sentence(lift_train(*options))


def test_training_begins_from_a_file(data, tmp_path):
    assert lift_train("--data", data, "--folder", tmp_path / "a", *SMALL).exit_code == 0
    start = tmp_path / "a" / "weights.safetensors"
    assert lift_train("--data", data, "--folder", tmp_path / "b", "--init", start, *SMALL).exit_code == 0
    wrong = lift_train("--data", data, "--folder", tmp_path / "c", "--init", start, *SMALL, "--channels", 9)
    assert "the weights to begin from have channels 8, expected channels 9; give" in sentence(wrong)


def test_default_weights_are_adapted_to_own_footage(tmp_path, monkeypatch):
    calls = []

    def adapt_folder(*paths, **options):
        calls.append((*paths, options))
        return types.SimpleNamespace(lines=lambda: ["clip a: 12 px before, 7 px after"])

    module = types.ModuleType("lifting.footage")
    module.adapt_folder = adapt_folder
    monkeypatch.setitem(sys.modules, "lifting.footage", module)
    result = lift_train("--init", "default", "--unlabeled", "mine", "--steps", 7, "--seed", 3, "--folder", tmp_path)
    assert result.exit_code == 0 and "7 px after" in result.output and "lifter.safetensors" in result.output
    [(folder, output, options)] = calls
    assert (folder, output) == ("mine", tmp_path / "lifter.safetensors")
    assert (options["steps"], options["seed"], options["device"]) == (7, 3, "cpu")
    assert list(options["progress"]([1, 2], 2, "adapting")) == [1, 2]
    assert "try: lift train --init default --unlabeled FOLDER" in sentence(lift_train("--init", "default"))


def test_options_that_adapting_does_not_look_at_are_refused(tmp_path):
    arguments = ("--init", "default", "--unlabeled", tmp_path, "--data", "clips.h5", "--semi", "1%S1", "--restart")
    assert "got --data, --semi, --resume/--restart, but --init default adapts" in sentence(lift_train(*arguments))


def test_own_footage_is_unlabelled_data(data, tmp_path, monkeypatch):
    own = ClipList([filmed_clip("phone", "own", 0.4, known=False)], "mine")
    module = types.ModuleType("lifting.footage")
    module.read_footage = lambda folder, skeleton, **_: types.SimpleNamespace(clips=own.without_labels())
    monkeypatch.setitem(sys.modules, "lifting.footage", module)
    result = lift_train("--data", data, "--semi", "all", "--unlabeled", "mine", "--folder", tmp_path, *SMALL)
    assert result.exit_code == 0, result.output
    assert "unlabelled mine" in load_temporal(tmp_path / "weights.safetensors").header.training


def test_ctrl_c_saves_and_leaves_with_130(data, tmp_path, monkeypatch):
    def interrupted(self, network, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Trainer, "_losses", interrupted)
    result = lift_train("--data", data, "--folder", tmp_path, *SMALL)
    assert result.exit_code == 130 and "the same command goes on" in result.output


# ---- bad input


def test_losses_that_are_not_finite_are_told_with_their_step(data, tmp_path, monkeypatch):
    losses = trainer.Trainer._losses
    monkeypatch.setattr(trainer.Trainer, "_losses", lambda self, *args: {
        name: value * math.nan for name, value in losses(self, *args).items()})
    assert "the loss at step 0 is not finite" in sentence(lift_train("--data", data, "--folder", tmp_path, *SMALL))


@pytest.mark.parametrize(("options", "words"), [
    (["--semi", "150%S1"], "expected more than 0% and at most 100%"),
    (["--semi", "1%"], "leaves no subject unlabelled"),
    (["--semi", "10%%S1"], "write for example 1%S1"),
    (["--semi", "S77"], "no labelled clips of S77"),
    (["--subjects-train", "S2"], "no subject S2; it has S1, S5, S9"),
    (["--actions", "Flying"], "no action that begins with Flying"),
    (["--semi", "S1", "--no-trajectory"], "no trajectory net is trained"),
    (["--learning-rate", "-1"], "rate must be positive"),
    (["--device", "cuda"], "the device is cuda"),
    (["--init", "nothing.safetensors"], "no weights at nothing.safetensors")])
def test_user_errors_are_one_sentence(data, tmp_path, options, words):
    import torch

    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("there is one")
    assert words in sentence(lift_train("--data", data, "--folder", tmp_path / "run", *SMALL, *options))


def test_missing_data_say_how_to_get_them(tmp_path):
    assert "there is no data at" in sentence(lift_train("--data", tmp_path / "none", "--folder", tmp_path))


# ---- selection


def test_the_fields_split_is_the_default_and_names_change_it():
    chosen = select_clips(CLIPS)
    assert {info.subject for info in chosen.labelled.infos} == {"S1", "S5"} and chosen.unlabelled is None
    assert {info.subject for info in chosen.validation.infos} == {"S9"}
    other = select_clips(CLIPS, train=["9"], test=["s1"])
    assert {info.subject for info in other.labelled.infos} == {"S9"}
    assert {info.subject for info in other.validation.infos} == {"S1"}
    unknown = ClipList(CLIPS.clips, "mine")
    assert select_clips(unknown).validation is None and len(select_clips(unknown).labelled) == 6


def test_budgets_leave_the_other_training_subjects_unlabelled():
    chosen = select_clips(CLIPS, budget=parse_budget("10%S1"))
    names = [[clips.infos[index].name for index in ranges] for clips, ranges in
             ((chosen.labelled, chosen.ranges), (chosen.unlabelled, chosen.unlabelled_ranges))]
    assert names == [["S1/Walk/0", "S1/Walk/1"], ["S5/Walk/0", "S5/Walk/1"]]
    assert {stop - start for start, stop in chosen.ranges.values()} == {4}
    assert not any(info.labelled for info in chosen.unlabelled.infos)
    assert chosen.unlabelled.read(2).motion is None


def test_everybody_tested_leaves_nobody_to_train_on():
    with pytest.raises(ValueError, match="none is left to train on"):
        select_clips(CLIPS, test=["S1", "S5", "S9"])


def test_footage_comes_beside_the_others_at_their_rate():
    clip = filmed_clip("phone", "own", known=False)
    slow = ClipList([Clip("phone", "Walk", "own", clip.keypoints.replace(fps=25.0))], "mine")
    chosen = add_footage(select_clips(CLIPS, budget=parse_budget("S1")), slow)
    joined, index = chosen.unlabelled, len(chosen.labelled)
    assert joined.name == "h36m gt and mine" and joined.infos[index].fps == 50 and joined.infos[index].frames == 79
    assert chosen.unlabelled_ranges[index] == (0, 79)
    assert joined.read(index, 3, 9).name == "phone/Walk/own" and joined.read(1).subject == "S5"
    alone = add_footage(select_clips(CLIPS), slow)
    assert len(alone.unlabelled) == 1 and alone.unlabelled_ranges == {0: (0, 79)}
