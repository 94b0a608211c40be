"""Training of the temporal model from clips to weights: schedule, exact resuming, what goes wrong."""

from __future__ import annotations

import json
import math
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filmed_clips import filmed_clip, filmed_clips

from lifting.cameras import Camera
from lifting.datasets.clips import Clip, ClipList
from lifting.keypoints import Keypoints2D
from lifting.models.temporal_file import load_temporal
from lifting.training import trainer
from lifting.training.config import WIDTHS, Terms, TrainConfig
from lifting.training.curves import plot_curves
from lifting.training.metrics_log import MetricsLog, read_metrics
from lifting.training.snapshots import CHECKPOINT
from lifting.training.trainer import CURVES, Trainer, check_device, train

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = TrainConfig(widths=(3, 3), channels=8, dropout=0.2, epochs=5, max_steps=15, batch=24, learning_rate=5e-3,
                     report_every=5, seed=3)
LABELLED, UNLABELLED, HELD_OUT = filmed_clips("S1"), filmed_clips("S5", phase=1.0), filmed_clips("S9", 1, phase=2.0)


@pytest.fixture(autouse=True)
def without_curves(monkeypatch):
    """Drawing takes longer than these trainings."""
    monkeypatch.setattr(trainer, "plot_curves", lambda folder, path: path)


def semi(folder: Path, config: TrainConfig = CONFIG, resume: bool = True) -> Path:
    return train(config, LABELLED, UNLABELLED.without_labels(), HELD_OUT, folder, resume=resume)


def last(folder: Path) -> dict:
    return torch.load(folder / CHECKPOINT, weights_only=True)


def flat(state: object, name: str = "") -> dict:
    """Every number of a checkpoint by its path."""
    if isinstance(state, dict):
        parts = (flat(value, f"{name}/{key}") for key, value in state.items() if key != "seconds")
        return {key: value for part in parts for key, value in part.items()}
    return {name: state}


def reports(folder: Path) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_metrics(folder)]


def fails_at(monkeypatch, step: int, action) -> None:
    """In that step, once, something happens instead of the losses."""
    losses = Trainer._losses

    def broken(self, network, batch):
        if self.run.step == step:
            monkeypatch.setattr(Trainer, "_losses", losses)
            return action(losses(self, network, batch))
        return losses(self, network, batch)

    monkeypatch.setattr(Trainer, "_losses", broken)


def killed(_: dict) -> dict:
    raise MemoryError("killed")


# ---- configuration


@pytest.mark.parametrize("frames", WIDTHS)
def test_names_of_receptive_fields_tell_the_truth(frames):
    assert math.prod(WIDTHS[frames]) == frames == TrainConfig(widths=WIDTHS[frames]).receptive_field


def test_single_frame_model_has_the_papers_size():
    with torch.device("meta"):
        model = trainer.Networks(TrainConfig(widths=WIDTHS[1]).architecture(17, 17), trajectory=False)
    assert sum(values.numel() for values in model.parameters()) == 8_494_131


def test_schedule_of_the_paper():
    config = TrainConfig(epochs=80)
    momenta = [config.norm_momentum(epoch, 240_000) for epoch in (0, 40, 80)]
    assert momenta == pytest.approx([0.1, 0.01, 0.001])
    assert [config.norm_momentum(80, steps) for steps in (50, 400, 4000)] == pytest.approx([0.1, 0.05, 0.005])
    assert [config.rate(epoch) for epoch in (0, 1, 10)] == pytest.approx([1e-3, 0.95e-3, 1e-3 * 0.95**10])
    assert [config.epoch(step, 160) for step in (0, 1, 2, 159)] == [0, 0, 1, 79]


def test_schedule_is_set_from_the_step(tmp_path):
    run = Trainer(CONFIG, LABELLED, UNLABELLED, tmp_path)
    seen = []
    for step in range(0, 15, 3):
        run.run._stand_at(step)
        norms = {m.momentum for m in run.trainee.modules() if isinstance(m, torch.nn.BatchNorm1d)}
        seen.append((run.run.optimiser.param_groups[0]["lr"], *norms))
    expected = [(5e-3 * 0.95**epoch, CONFIG.norm_momentum(epoch, 15)) for epoch in range(5)]
    assert seen == [pytest.approx(pair) for pair in expected]
    assert run.warm_steps == 3 and run.run.optimiser.defaults["amsgrad"]


def test_an_epoch_is_a_pass_over_the_labelled_data_unless_steps_are_given(tmp_path):
    config = replace(CONFIG, max_steps=None, report_every=None)
    run = Trainer(config, LABELLED, UNLABELLED, tmp_path)
    assert run.steps == 5 * math.ceil(2 * 40 * 2 / 24) and run.warm_steps == 7
    assert run.run.config.checkpoint_every == run.steps  # short: once is enough
    few = Trainer(replace(config, warmup=99), LABELLED, UNLABELLED, tmp_path, ranges={0: (3, 5)})
    assert few.steps == 5 == few.warm_steps and few.labelled.samples == 4


@pytest.mark.parametrize("values", [
    {"epochs": 0}, {"max_steps": 0}, {"batch": 3, "stride": 4}, {"optimizer": "sgd"}, {"learning_rate": 0.0},
    {"decay": 1.1}, {"device": "tpu"}, {"widths": (2,)}, {"warmup": -1}, {"seed": 0.5}, {"workers": -1}])
def test_impossible_configurations_are_refused_in_a_sentence(values):
    with pytest.raises(ValueError, match="expected|must"):
        replace(CONFIG, **values)


# ---- a run


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A semi-supervised run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    semi(folder)
    return folder


def test_a_run_leaves_weights_curves_and_metrics(whole):
    weights = load_temporal(whole / "weights.safetensors")
    state = last(whole)["network"]
    assert torch.equal(weights.pose.shrink.weight, state["networks.pose.shrink.weight"])
    assert torch.equal(weights.trajectory.shrink.weight, state["networks.trajectory.shrink.weight"])
    header = weights.header
    assert (header.skeleton_in, header.skeleton_out, header.fps) == ("h36m17", "h36m17", 50.0)
    assert "15 steps" in header.training and "unlabelled" in header.training
    assert set(header.metrics) == {"mpjpe_mm", "p_mpjpe_mm", "mpjve_mm_frame", "root_mm"}
    rows = reports(whole)
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert rows[-1]["validation_mpjpe_mm"] == header.metrics["mpjpe_mm"]
    assert {"pose", "trajectory", "projection", "bones"} <= set(rows[-1])


def test_unlabelled_terms_wait_for_the_warm_up(tmp_path):
    semi(tmp_path, replace(CONFIG, max_steps=4, epochs=4, warmup=2, report_every=1))
    terms = ["projection" in row for row in reports(tmp_path)]
    assert terms == [False, False, True, True]


@pytest.mark.parametrize("step", [2, 6, 13])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch, whole, step, workers):
    config = replace(CONFIG, workers=workers)
    fails_at(monkeypatch, step, killed)
    with pytest.raises(MemoryError):
        semi(tmp_path, config)
    torch.manual_seed(99)  # a new process starts anywhere
    semi(tmp_path, config)
    assert_same_runs(tmp_path, whole)


def test_a_stopped_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch, whole):
    fails_at(monkeypatch, 8, lambda losses: __import__("signal").raise_signal(2) or losses)
    with pytest.raises(KeyboardInterrupt):
        semi(tmp_path)
    assert last(tmp_path)["step"] == 9
    semi(tmp_path)
    assert_same_runs(tmp_path, whole)


def assert_same_runs(one: Path, other: Path) -> None:
    found, expected = flat(last(one)), flat(last(other))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        same = torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value
        assert same, name
    assert reports(one) == reports(other)
    assert (one / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()


def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(tmp_path, monkeypatch, whole):
    fails_at(monkeypatch, 12, killed)
    with pytest.raises(MemoryError):
        semi(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"cut")
    with pytest.warns(UserWarning, match="newest checkpoint is damaged"):
        semi(tmp_path)
    assert_same_runs(tmp_path, whole)


def test_losses_that_are_not_finite_stop_the_run_at_their_step(tmp_path, monkeypatch):
    fails_at(monkeypatch, 7, lambda losses: {**losses, "pose": losses["pose"] * math.nan})
    with pytest.raises(FloatingPointError, match="the loss at step 7 is not finite .pose nan"):
        semi(tmp_path)
    assert last(tmp_path)["step"] == 5 and not (tmp_path / "weights.safetensors").exists()


def test_a_run_of_other_options_or_data_is_left_alone_until_told_otherwise(tmp_path):
    config = replace(CONFIG, max_steps=2, epochs=2)
    semi(tmp_path, config)
    with pytest.raises(ValueError, match="was started with learning_rate 0.005, now it is 0.1"):
        semi(tmp_path, replace(config, learning_rate=0.1))
    with pytest.raises(ValueError, match="was started with unlabelled data 'walks .*now it is None"):
        train(config, LABELLED, folder=tmp_path)
    semi(tmp_path, replace(config, report_every=1, workers=0))  # what changes nothing may change
    before = last(tmp_path)["network"]["networks.pose.shrink.weight"]
    semi(tmp_path, replace(config, learning_rate=0.1), resume=False)
    assert not torch.equal(last(tmp_path)["network"]["networks.pose.shrink.weight"], before)


@pytest.mark.parametrize("options", [
    {}, {"causal": True}, {"dense": True}, {"stride": 4}, {"scores": True}, {"bfloat16": True}, {"flip": False},
    {"optimizer": "adam"}, {"downsample": 2}, {"widths": (1, 1)}, {"trajectory": False}])
def test_supervised_training_runs_in_every_form(tmp_path, options):
    config = replace(CONFIG, max_steps=2, epochs=2, **options)
    weights = load_temporal(train(config, LABELLED, validation=HELD_OUT, folder=tmp_path))
    assert set(reports(tmp_path)[-1]) >= {"pose", "validation_mpjpe_mm"}
    assert weights.pose.config.causal == config.causal and weights.header.fps == 50 / config.downsample
    assert (weights.trajectory is None) != config.trajectory
    assert weights.pose.config.features_in == (3 if config.scores else 2)


def test_without_its_terms_the_unlabelled_half_has_no_part(tmp_path):
    config = replace(CONFIG, max_steps=2, epochs=2, warmup=0, terms=Terms(projection=False, bones=False))
    one = train(config, LABELLED, UNLABELLED, folder=tmp_path / "a")
    other = train(config, LABELLED, folder=tmp_path / "b")
    assert torch.equal(load_temporal(one).pose.shrink.weight, load_temporal(other).pose.shrink.weight)


def test_training_goes_on_from_other_weights(tmp_path, whole):
    start = load_temporal(whole / "weights.safetensors")
    run = Trainer(CONFIG, LABELLED, None, tmp_path, start=start)
    assert torch.equal(run.trainee.networks.pose.shrink.weight, start.pose.shrink.weight)
    with pytest.raises(ValueError, match="the weights to begin from have channels 8, expected channels 9"):
        Trainer(replace(CONFIG, channels=9), LABELLED, None, tmp_path, start=start)


@pytest.mark.slow
def test_a_small_model_learns_to_lift_a_walk(tmp_path):
    config = replace(CONFIG, channels=48, max_steps=250, epochs=10, batch=64, dropout=0.0, report_every=250,
                     learning_rate=3e-3)
    train(config, filmed_clips("S1", 4), filmed_clips("S5", 4, phase=1.0).without_labels(), HELD_OUT, tmp_path)
    [row] = reports(tmp_path)
    assert row["validation_mpjpe_mm"] < 90 and row["validation_root_mm"] < 500 and row["projection"] < 0.1


# ---- bad input


def coco_clips() -> ClipList:
    xy = np.zeros((30, 17, 2), np.float32) + np.arange(17)[:, None]
    return ClipList([Clip("own", "walk", "0", Keypoints2D(xy, None, "coco17", (640, 480), 50.0))], "phone")


@pytest.mark.parametrize(("labelled", "unlabelled", "options", "words"), [
    (LABELLED.without_labels(), None, {}, "no clip of walks has a motion"),
    (LABELLED, coco_clips(), {}, "labelled keypoints are in the layout h36m17, the unlabelled in coco17"),
    (LABELLED, UNLABELLED, {"trajectory": False}, "no trajectory net is trained"),
    (LABELLED, UNLABELLED, {"batch": 1, "stride": 1, "downsample": 99}, None)])
def test_data_that_do_not_fit_are_refused_in_a_sentence(tmp_path, labelled, unlabelled, options, words):
    if words is None:
        Trainer(replace(CONFIG, **options), labelled, unlabelled, tmp_path)
        return
    with pytest.raises(ValueError, match=words):
        Trainer(replace(CONFIG, **options), labelled, unlabelled, tmp_path)


def test_frame_rates_are_not_mixed(tmp_path):
    [clip] = filmed_clips("S5", 1).clips
    slow = replace(clip, keypoints=clip.keypoints.replace(fps=25.0), motion=clip.motion.replace(fps=25.0))
    with pytest.raises(ValueError, match="from 25 to 50 frames per second"):
        Trainer(CONFIG, LABELLED, ClipList([slow]), tmp_path)


def test_labels_without_a_place_train_no_trajectory(tmp_path):
    [clip] = filmed_clips("S1", 1).clips
    clips = ClipList([replace(clip, motion=clip.motion.replace(trajectory=None))])
    with pytest.raises(ValueError, match="does not say where the person is"):
        Trainer(CONFIG, clips, None, tmp_path)
    Trainer(replace(CONFIG, trajectory=False), clips, None, tmp_path)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_absent_devices_are_told_in_a_sentence(device):
    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if there:
        check_device(device)
        return
    with pytest.raises(ValueError, match=f"the device is {device}, but torch .* finds none here; use --device cpu"):
        check_device(device)


# ---- reports


def test_tensorboard_gets_the_numbers_where_it_is_installed(tmp_path, monkeypatch):
    class Board:
        def __init__(self, folder: str, purge_step: int) -> None:
            self.added, self.opened, self.closed = [], (folder, purge_step), False
            boards.append(self)

        def add_scalar(self, *values) -> None:
            self.added.append(values)

        def close(self) -> None:
            self.closed = True

    boards: list = []
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Board
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = MetricsLog(tmp_path, step=4)
    log.write({"step": 5, "pose": 0.5})
    log.close()
    [board] = boards
    assert board.opened == (str(tmp_path / "tensorboard"), 5)
    assert board.added == [("pose", 0.5, 5)] and board.closed


def test_reports_of_later_steps_are_forgotten(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n{"step": 10}\n{"step": 15}\n{"st')
    MetricsLog(tmp_path, step=10)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 5}, {"step": 10}]


def test_curves_are_drawn_of_whatever_was_reported(tmp_path):
    assert not plot_curves(tmp_path, tmp_path / "none.png").exists()  # nothing was
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "pose": 1.0}\n{"step": 10, "pose": 0.5, "bones": 0.1}\n')
    assert plot_curves(tmp_path, tmp_path / CURVES).read_bytes().startswith(b"\x89PNG")


def test_validation_of_few_frames_takes_clips_from_everywhere():
    clips = ClipList([filmed_clip("S9", str(view), view / 3, frames=20) for view in range(6)])
    read = []
    clips._read = lambda index, start, stop, clip=clips.clips: read.append(index) or clip[index].slice(start, stop)
    networks = trainer.Networks(CONFIG.architecture(17, 17))
    found = trainer.validate(networks, clips, frames=60)
    assert read == [0, 2, 4] and set(found) == {"mpjpe_mm", "p_mpjpe_mm", "mpjve_mm_frame", "root_mm"}
    pose = networks.pose.eval()
    assert isinstance(clips.infos[0].camera, Camera) and not pose.training


def test_validation_bridges_holes_as_training_does():
    [clip] = HELD_OUT.clips
    xy = clip.keypoints.xy.copy()
    xy[10:13, 4] = np.nan
    holed = ClipList([replace(clip, keypoints=clip.keypoints.replace(xy=xy, score=None))])
    torch.manual_seed(0)
    networks = trainer.Networks(CONFIG.architecture(17, 17))
    whole, bridged = (trainer.validate(networks, clips)["mpjpe_mm"] for clips in (HELD_OUT, holed))
    assert math.isfinite(bridged) and bridged == pytest.approx(whole, rel=0.02)
