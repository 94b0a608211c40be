"""The training loop: schedule, averages, exact resuming, and what happens when a run goes wrong."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from walking_figure import walking_piece

from experiments.train_lifter import Batches, begin_with, export, losses_of
from lifting.checkpoints import load_weights
from lifting.datasets.detector_noise import NoiseModel
from lifting.datasets.synthesis import CameraRanges, Synthesiser
from lifting.models.lifter import LifterConfig, LiftNet
from lifting.training.loop import CHECKPOINT, LoopConfig, Run, fit, learning_rate, trapezoid
from lifting.training.losses import DEFAULT_WEIGHTS
from lifting.training.snapshots import PREVIOUS

CONFIG = LoopConfig(steps=13, learning_rate=1e-2, warmup=3, checkpoint_every=4, bfloat16=False)
LIFTER = LifterConfig(channels=8, dilations=(1, 2), dropout=0.1)


pytestmark = pytest.mark.usefixtures("one_thread")


def lifter_run(folder: Path, config: LoopConfig = CONFIG, seed: int = 0) -> Run:
    torch.manual_seed(seed)
    return Run(LiftNet(**asdict(LIFTER)), config, folder)


def stream(first: int, last: int, batch: int = 2, frames: int = 9) -> Iterator[list[torch.Tensor]]:
    batches = Batches(Synthesiser([walking_piece(frames=40)], frames), batch, seed=3)
    return (batches[step] for step in range(first, last))


def linear_run(folder: Path, network: nn.Module | None = None, **options) -> Run:
    config = replace(CONFIG, **options)
    torch.manual_seed(0)
    return Run(network or nn.Linear(2, 1), config, folder)


def squares(network: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"squares": network(batch).square().mean()}


def numbers(run: Run) -> list[torch.Tensor]:
    """All that changes while training."""
    moments = [v for state in run.optimiser.state.values() for v in state.values()]
    return [*run.network.state_dict().values(), *run.averaged.state_dict().values(), *moments, torch.get_rng_state()]


def metrics_of(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


# ---- schedule and averages


def test_learning_rate_warms_up_and_decays_along_a_cosine():
    config = LoopConfig(steps=1100, learning_rate=1.0, final_learning_rate=0.1, warmup=100)
    assert learning_rate(0, config) == pytest.approx(0.01) and learning_rate(49, config) == pytest.approx(0.5)
    assert learning_rate(99, config) == 1.0 == learning_rate(100, config)
    assert learning_rate(600, config) == pytest.approx(0.55)
    assert learning_rate(350, config) == pytest.approx(0.1 + 0.9 * (0.5 + math.sqrt(0.125)))
    assert learning_rate(1100, config) == pytest.approx(0.1) == learning_rate(9999, config)


def test_a_run_begins_with_the_tensors_of_another_one_that_fit(tmp_path):
    torch.manual_seed(1)
    other = LiftNet(**asdict(replace(LIFTER, dilations=(1,), causal=True, lookaheads=(0, 2)))).state_dict()
    other["heads.0.codes.weight"] = torch.zeros(9, 8)  # a place, but of another shape
    run = lifter_run(tmp_path)
    before = {name: values.clone() for name, values in run.network.state_dict().items()}
    begin_with(run, other)
    for network in (run.network, run.averaged):
        for name, values in network.state_dict().items():
            taken = name.startswith(("stem.", "blocks.0.", "norm.", "heads.0.")) and name != "heads.0.codes.weight"
            assert torch.equal(values, other[name] if taken else before[name]), name


def test_trapezoid_is_constant_until_three_tenths_are_left_and_falls_as_a_square_root():
    config = LoopConfig(steps=1000, learning_rate=1.0, final_learning_rate=0.1, warmup=100)
    assert trapezoid(0, config) == pytest.approx(0.01) and trapezoid(99, config) == 1.0 == trapezoid(700, config)
    assert trapezoid(775, config) == pytest.approx(0.1 + 0.9 * 0.5)
    assert trapezoid(1000, config) == pytest.approx(0.1) == trapezoid(9999, config)
    longer = replace(config, steps=2000)
    assert [trapezoid(step, config) for step in range(700)] == [trapezoid(step, longer) for step in range(700)]


def test_learning_rate_without_warm_up_and_with_nothing_else():
    assert learning_rate(0, LoopConfig(steps=10, learning_rate=0.5, warmup=0)) == 0.5
    assert learning_rate(4, LoopConfig(steps=5, learning_rate=0.5, warmup=5)) == 0.5


def test_optimiser_gets_the_schedules_rate(tmp_path):
    run, rates = linear_run(tmp_path), []
    for _ in range(CONFIG.steps):
        rates.append(run.optimiser.param_groups[0]["lr"])
        run.update(squares(run.network, torch.ones(1, 2)), {"squares": 1.0})
    assert rates == [learning_rate(step, CONFIG) for step in range(CONFIG.steps)]


def test_averaged_weights_in_closed_form(tmp_path):
    run = linear_run(tmp_path, average=0.3)
    expected = run.network.weight.detach().clone()
    for step in range(1, 9):
        run.update(squares(run.network, torch.ones(1, 2)), {"squares": 1.0})
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * run.network.weight.detach()
        torch.testing.assert_close(run.averaged.weight, expected)
    assert not run.averaged.weight.requires_grad and (run.averaged.weight != run.network.weight).all()


def test_averaged_network_takes_over_the_statistics_of_batch_norms(tmp_path):
    run = linear_run(tmp_path, nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    run.update(squares(run.network, torch.randn(5, 2)), {"squares": 1.0})
    assert (run.network[1].running_mean != 0).all() and run.averaged[1].num_batches_tracked == 1
    torch.testing.assert_close(run.averaged[1].running_mean, run.network[1].running_mean)


def test_weighted_sum_of_the_losses_is_what_falls(tmp_path):
    first, second = linear_run(tmp_path / "a"), linear_run(tmp_path / "b")
    batch = torch.ones(1, 2)
    loss = squares(first.network, batch)["squares"]
    first.update({"one": loss, "two": loss}, {"one": 0.25, "two": 0.5})
    second.update(squares(second.network, batch), {"squares": 0.75})
    assert torch.equal(first.network.weight, second.network.weight)


def test_large_gradients_are_clipped(tmp_path):
    run = linear_run(tmp_path, clip=0.5)
    run.update({"squares": 1e4 * squares(run.network, torch.ones(1, 2))["squares"]}, {"squares": 1.0})
    norm = torch.stack([p.grad.norm() for p in run.network.parameters()]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-3)


# ---- resuming


def test_batches_depend_on_the_step_alone():
    whole, later = list(stream(0, 5)), list(stream(3, 5))
    for one, two in zip(whole[3:], later, strict=True):
        for a, b in zip(one, two, strict=True):
            assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))
    assert not torch.equal(whole[0][2], whole[1][2])


@pytest.mark.parametrize("bfloat16", [False, True])
def test_run_that_was_killed_and_resumed_equals_the_uninterrupted_one_to_the_last_bit(tmp_path, bfloat16):
    config = replace(CONFIG, bfloat16=bfloat16)
    whole = lifter_run(tmp_path / "whole", config)
    fit(whole, stream(0, 13), losses_of, DEFAULT_WEIGHTS)
    expected = [values.clone() for values in numbers(whole)]

    def killed() -> Iterator:
        yield from stream(0, 10)
        raise KeyboardInterrupt

    broken = lifter_run(tmp_path / "killed", config)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, killed(), losses_of, DEFAULT_WEIGHTS)
    resumed = lifter_run(tmp_path / "killed", config, seed=99)
    assert resumed.resume() and resumed.step == 8
    fit(resumed, stream(8, 13), losses_of, DEFAULT_WEIGHTS)
    for one, two in zip(expected, numbers(resumed), strict=True):
        assert torch.equal(one, two)
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in metrics_of(run)] for run in (whole, resumed)]
    assert strip[0] == strip[1] and [row["step"] for row in strip[0]] == [4, 8, 12, 13]


def test_resumed_run_reports_as_the_uninterrupted_one_wherever_it_stopped(tmp_path):
    batches = [torch.full((1, 2), float(i)) for i in range(13)]
    whole, broken = linear_run(tmp_path / "whole"), linear_run(tmp_path / "broken")
    fit(whole, batches, squares, {"squares": 1.0})
    with pytest.raises(KeyboardInterrupt):
        fit(broken, batches, interrupted_at(5), {"squares": 1.0})
    assert broken.step == 6
    with open(tmp_path / "broken" / "metrics.jsonl", "a") as log:  # reported, then died before the checkpoint
        log.write('{"step": 8, "squares": 7.0}\n{"step": 12, "squ')
    resumed = linear_run(tmp_path / "broken")
    assert resumed.resume() and resumed.step == 6
    fit(resumed, batches[6:], squares, {"squares": 1.0})
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in metrics_of(run)] for run in (whole, resumed)]
    assert strip[0] == strip[1]


def test_schedule_is_followed_from_the_first_step_and_after_resuming(tmp_path):
    def schedule(run: Run) -> None:
        run.set_learning_rate(0.1 / (1 + run.step))

    def scheduled() -> Run:
        network = nn.Linear(2, 1)
        optimiser = torch.optim.SGD(network.parameters())
        return Run(network, replace(CONFIG, average=None), tmp_path, optimiser=optimiser, schedule=schedule)

    run = scheduled()
    assert run.averaged is run.network and run.optimiser.param_groups[0]["lr"] == 0.1
    fit(run, [torch.ones(1, 2)] * 4, squares, {"squares": 1.0})
    later = scheduled()
    assert later.resume() and later.optimiser.param_groups[0]["lr"] == 0.1 / 5


def interrupted_at(step: int, number: int = signal.SIGINT):
    """Losses that send this process a signal at one step."""

    def losses(network: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if batch[0, 0] == step:
            signal.raise_signal(number)
        return squares(network, batch)

    return losses


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_ends_the_step_and_writes_a_checkpoint(tmp_path, number):
    run, handlers = linear_run(tmp_path), (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        fit(run, [torch.full((1, 2), float(i)) for i in range(13)], interrupted_at(5, number), {"squares": 1.0})
    kept = linear_run(tmp_path)
    assert kept.resume() and kept.step == 6 and torch.equal(kept.network.weight, run.network.weight)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def batches_that_fail(after: int, stopped: bool):
    """Batches whose readers die, with or without a signal to the whole group of processes."""
    yield from [torch.ones(1, 2)] * after
    if stopped:
        signal.raise_signal(signal.SIGTERM)
    raise OSError("a process that reads training data died")


def test_a_stop_signal_that_ends_the_readers_too_loses_no_step(tmp_path):
    run = linear_run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(run, batches_that_fail(7, stopped=True), squares, {"squares": 1.0})
    kept = linear_run(tmp_path)
    assert kept.resume() and kept.step == 7 and torch.equal(kept.network.weight, run.network.weight)


def test_readers_that_die_by_themselves_are_an_error(tmp_path):
    with pytest.raises(OSError, match="reads training data died"):
        fit(linear_run(tmp_path), batches_that_fail(7, stopped=False), squares, {"squares": 1.0})


def test_a_second_signal_does_not_wait_for_the_step(tmp_path):
    def losses(network: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return squares(network, batch)

    run = linear_run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(run, [torch.ones(1, 2)], losses, {"squares": 1.0})
    assert run.step == 0 and not (tmp_path / CHECKPOINT).exists()


def test_runs_of_other_settings_are_not_mixed(tmp_path):
    network = nn.Linear(2, 1)
    Run(network, CONFIG, tmp_path, settings={"epochs": 60, "widths": [3, 3]}).save()
    assert Run(network, CONFIG, tmp_path, settings={"epochs": 60, "widths": [3, 3]}).resume()
    with pytest.raises(ValueError, match="was started with epochs 60, now it is 80; give the same options"):
        Run(network, CONFIG, tmp_path, settings={"epochs": 80, "widths": [3, 3]}).resume()


def test_nothing_to_resume(tmp_path):
    run = lifter_run(tmp_path / "new" / "folder")
    assert run.folder.is_dir() and not run.resume() and run.step == 0


def test_finished_run_is_not_trained_further(tmp_path):
    run = linear_run(tmp_path, steps=2)
    fit(run, [torch.ones(1, 2)] * 5, squares, {"squares": 1.0})
    weight = run.network.weight.detach().clone()
    fit(run, [torch.ones(1, 2)] * 5, squares, {"squares": 1.0})
    assert run.step == 2 and torch.equal(run.network.weight, weight) and len(metrics_of(run)) == 1


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def spoil(path: Path, content: object) -> None:
    """Puts something else in the place of a checkpoint."""
    if content == "cut":
        content = path.read_bytes()[:900]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(Bomb() if content == "bomb" else content, path)


DAMAGE = [b"", b"not a checkpoint", b"bad\n", "bomb", "cut", [3]]


@pytest.mark.parametrize("content", [*DAMAGE, {"step": 3}, "other"])
def test_damaged_hostile_and_foreign_checkpoints_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / CHECKPOINT
    linear_run(tmp_path).save()
    if content == "other":
        linear_run(tmp_path, nn.Linear(3, 1)).save()
    else:
        spoil(path, content)
    with pytest.raises(ValueError, match=r"cannot resume from .*last\.pt .*expected a whole checkpoint") as caught:
        linear_run(tmp_path).resume()
    assert "\n" not in str(caught.value) and not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", DAMAGE)
def test_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    run = linear_run(tmp_path)
    fit(run, [torch.ones(1, 2)] * 10, squares, {"squares": 1.0})  # checkpoints at steps 4 and 8
    spoil(tmp_path / CHECKPOINT, content)
    resumed = linear_run(tmp_path)
    with pytest.warns(UserWarning, match=r"newest checkpoint is damaged: .*last\.pt .*going on from .*previous\.pt"):
        assert resumed.resume()
    assert resumed.step == 4 and not (tmp_path / "exploded").exists()
    spoil(tmp_path / PREVIOUS, content)
    with pytest.raises(ValueError, match=r"cannot resume from .*last\.pt .* or .*previous\.pt"):
        linear_run(tmp_path).resume()


def test_a_run_killed_between_two_renames_has_the_checkpoint_before(tmp_path):
    run = linear_run(tmp_path)
    fit(run, [torch.ones(1, 2)] * 4, squares, {"squares": 1.0})
    os.replace(tmp_path / CHECKPOINT, tmp_path / PREVIOUS)
    resumed = linear_run(tmp_path)
    assert resumed.resume() and resumed.step == 4  # without a warning: nothing is damaged


# ---- accidents


@pytest.mark.parametrize(("poison", "word"), [(math.nan, "loss"), (math.inf, "loss"), (0.0, "gradient")])
def test_losses_and_gradients_that_are_not_finite_stop_the_run_and_keep_the_checkpoint(tmp_path, poison, word):
    def losses(network: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"roots": (batch * network(torch.ones(1, 2)).square()).sqrt().mean()}  # sqrt has no slope at 0

    run = linear_run(tmp_path)
    with pytest.raises(FloatingPointError, match=f"the {word} at step 6 is not finite .roots .*checkpoint is kept"):
        fit(run, [torch.ones(1)] * 6 + [torch.full((1,), poison)], losses, {"roots": 1.0})
    assert torch.isfinite(run.network.weight).all() and torch.isfinite(run.averaged.weight).all() and run.step == 6
    kept = linear_run(tmp_path)
    assert kept.resume() and kept.step == 4 and torch.isfinite(kept.network.weight).all()
    assert [path.name for path in sorted(tmp_path.iterdir()) if path.is_file()] == [CHECKPOINT, "metrics.jsonl"]


def test_write_that_fails_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    run = linear_run(tmp_path)
    run.save()
    before = (tmp_path / CHECKPOINT).read_bytes()

    def half_written(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="disk full"):
        run.save()
    assert (tmp_path / CHECKPOINT).read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_full_disk_gives_one_sentence_and_keeps_the_checkpoints(tmp_path):
    """On a disk that is really full, as far as a limit on the size of files goes."""
    import resource

    run = linear_run(tmp_path, nn.Linear(2000, 1))
    run.save()
    before = (tmp_path / CHECKPOINT).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write '.*last\.pt'.*[.;]") as caught:
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert (tmp_path / CHECKPOINT).read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("options", [{"steps": 0}, {"checkpoint_every": 0}])
def test_impossible_schedules_are_refused(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        LoopConfig(**options)


# ---- reports


def test_metrics_are_means_since_the_last_report_and_of_the_averaged_network(tmp_path):
    run, seen, evaluated = linear_run(tmp_path, steps=5, checkpoint_every=3), [], []

    def losses(network: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(squares(network, batch)["squares"].item())
        return squares(network, batch)

    def evaluate(network: nn.Module) -> dict[str, float]:
        evaluated.append(network)
        return {"score_mm": 7.0}

    fit(run, [torch.full((1, 2), float(i)) for i in range(1, 9)], losses, {"squares": 1.0}, evaluate)
    first, last = metrics_of(run)
    assert first["squares"] == pytest.approx(np.mean(seen[:3]), abs=1e-5)
    assert last["squares"] == pytest.approx(np.mean(seen[3:]), abs=1e-5)  # of two steps, not of three
    assert (first["step"], last["step"], last["score_mm"]) == (3, 5, 7.0) and last["seconds"] >= 0
    assert evaluated == [run.averaged] * 2 and len(seen) == 5


def test_exported_weights_rebuild_the_averaged_network(tmp_path):
    run = lifter_run(tmp_path)
    fit(run, stream(0, 13), losses_of, DEFAULT_WEIGHTS)
    export(run, LIFTER, tmp_path / "lifter.safetensors", everything=False)
    tensors, header = load_weights(tmp_path / "lifter.safetensors")
    assert (header.kind, header.skeleton_in, header.skeleton_out, header.fps) == ("lifter", "lift17", "h36m17", 50.0)
    assert "mocap.cs.cmu.edu" in header.training and "13 steps" in header.training
    network = LiftNet(**asdict(LifterConfig(**header.config)))
    network.load_state_dict(tensors)
    for name, values in run.averaged.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], values, rtol=1e-3, atol=1e-6)


# ---- it learns


@pytest.mark.slow
def test_a_tiny_lifter_learns_to_lift_a_walk(tmp_path):
    torch.manual_seed(0)
    pieces = [walking_piece(str(phase), 120, phase=phase) for phase in (0.0, 1.5, 3.0, 4.5)]
    cameras = ((1.0, CameraRanges((60, 60), (3, 5), (-5, 15), (0, 0))),)
    source = Synthesiser(pieces, 8, cameras, NoiseModel(bias=0.0, jitter=(0.003, 0.003)), mix_share=0.0)
    config = LoopConfig(240, 4e-3, 1e-4, 20, average=0.95, checkpoint_every=240, bfloat16=False)
    run = Run(LiftNet(**asdict(LifterConfig(channels=64, dilations=(1,)))), config, tmp_path)
    batches, held_out = Batches(source, 32, seed=0), Batches(source, 64, seed=1)[0]

    def judge() -> tuple[float, float, float]:
        with torch.no_grad():
            lift = run.averaged.eval().lift(*held_out[:2])
        error = (lift.joints - held_out[2]).norm(dim=-1)[..., 1:]
        root = ((lift.root - held_out[3]).norm(dim=-1) / held_out[3][..., 2]).mean()
        return error.mean().item(), root.item(), (error < lift.log_sigma[..., 1:].exp()).float().mean().item()

    fit(run, (batches[step] for step in range(config.steps)), losses_of, DEFAULT_WEIGHTS)
    pose, root, inside = judge()
    mean_pose = held_out[2].mean((0, 1)).expand_as(held_out[2])
    assert pose < 0.75 * (held_out[2] - mean_pose)[:, :, 1:].norm(dim=-1).mean()
    assert pose < 0.16 and root < 0.1 and inside == pytest.approx(0.68, abs=0.15)
