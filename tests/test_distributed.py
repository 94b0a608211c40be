"""Two processes that train together equal one: sums and their gradients, batch norms, and whole runs."""

from __future__ import annotations

import os
import signal
import socket
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from filmed_clips import filmed_clips
from torch import nn

from lifting.datasets.clips import ClipList
from lifting.training import distributed, trainer
from lifting.training.config import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = TrainConfig(widths=(3, 3), channels=8, dropout=0.0, epochs=4, max_steps=8, batch=20, learning_rate=1e-2,
                     report_every=4, workers=0)
STOP_STEP = 5


def values(count: int, offset: int = 0) -> torch.Tensor:
    return torch.sin(torch.arange(offset, offset + count, dtype=torch.float64)[:, None] * torch.tensor([0.7, 1.9]))


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3, momentum=0.3), nn.Tanh()).double()


def step_of(network: nn.Module, part: torch.Tensor) -> torch.Tensor:
    """A loss that depends on everything through means only."""
    out = network(part[:, :, None] + 40)[..., 0]
    loss = distributed.mean_over_ranks(out, (part[:, :1] > 0).double().expand_as(out)).square().sum()
    loss = loss + distributed.mean_over_ranks(out.square()).prod()
    loss.backward()
    return loss.detach()


def state_of(network: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    gradients = {f"{name} gradient": values.grad for name, values in network.named_parameters()}
    return {"loss": loss, **gradients, **network.state_dict()}


def run_training(folder: Path) -> None:
    """A semi-supervised run in double precision with unknown cameras among the unlabelled ones."""
    torch.set_default_dtype(torch.float64)
    try:
        known, unknown = filmed_clips("S5", 2, phase=1.0).clips, filmed_clips("S6", 1, known=False, phase=2.0).clips
        trainer.train(CONFIG, filmed_clips("S1", 2), ClipList([*known, *unknown]).without_labels(),
                      filmed_clips("S9", 1, phase=0.5), folder)
    finally:
        torch.set_default_dtype(torch.float32)


def stop_at_one_rank(monkeypatch_step: int) -> None:
    """From now on rank 1, and only rank 1, gets Ctrl-C in that step."""
    losses = trainer.Trainer._losses

    def interrupted(self, network, batch):
        if self.run.step == monkeypatch_step and distributed.rank() == 1:
            signal.raise_signal(signal.SIGINT)
        return losses(self, network, batch)

    trainer.Trainer._losses = interrupted


def work(rank: int, port: int, folder: Path) -> None:
    """One of two processes: the small step, a run to its end, and one that is interrupted."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with distributed.process_group("cpu"):
        network = small_network()
        wrapped = distributed.wrap(network)
        loss = step_of(wrapped, values(3) if rank == 0 else values(6, offset=3))  # parts of unequal size
        torch.save(state_of(network, loss), folder / f"step{rank}.pt")
        run_training(folder / "whole")
        stop_at_one_rank(STOP_STEP)
        try:
            run_training(folder / "stopped")
        except KeyboardInterrupt:
            (folder / f"stopped{rank}").touch()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes left."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = get_context("spawn")
    processes = [context.Process(target=work, args=(rank, port, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("alone")
    run_training(folder)
    return last(folder)


def last(folder: Path) -> dict:
    return torch.load(folder / "last.pt", weights_only=True)


def assert_equal_states(one: dict, other: dict) -> None:
    assert one["step"] == other["step"] and one["network"].keys() == other["network"].keys()
    for name, expected in other["network"].items():
        torch.testing.assert_close(one["network"][name], expected, rtol=0, atol=1e-9, msg=name)
    for number, moments in other["optimiser"]["state"].items():
        for name, expected in moments.items():
            torch.testing.assert_close(one["optimiser"]["state"][number][name], expected, rtol=1e-7, atol=1e-9)


def test_losses_gradients_and_batch_norms_are_those_of_the_whole_batch(folder):
    network = small_network()
    expected = state_of(network, step_of(network, values(9)))
    for rank in range(2):
        for name, found in torch.load(folder / f"step{rank}.pt", weights_only=True).items():
            torch.testing.assert_close(found, expected[name], rtol=1e-10, atol=1e-12, msg=name)
    assert expected["1.running_mean"].abs().max() > 1  # far from zero, where careless sums of squares lose digits


def test_two_processes_with_half_the_batch_equal_one(folder, alone):
    state = last(folder / "whole")
    assert_equal_states(state, alone)
    assert state["network"]["cameras.log_focal"][2] != 0  # the unknown camera was learnt, too
    rows = (folder / "whole" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 2 and "validation_mpjpe_mm" in rows[-1] and "projection" in rows[-1]


def test_all_processes_stop_when_one_is_told_to_and_one_process_finishes_the_run(folder, alone):
    assert (folder / "stopped0").exists() and (folder / "stopped1").exists()
    assert last(folder / "stopped")["step"] == STOP_STEP + 1
    run_training(folder / "stopped")
    assert_equal_states(last(folder / "stopped"), alone)


def test_one_process_does_the_plain_thing():
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.any_rank(True) and not distributed.any_rank(False)
    assert distributed.from_first_rank("state") == "state"
    network = small_network()
    assert distributed.wrap(network) is network and type(network[1]) is nn.BatchNorm1d


def test_shared_batch_norm_alone_is_torchs():
    own, torchs = small_network(), small_network()
    distributed.share_batch_norms(own)
    x = values(9)[:, :, None]
    torch.testing.assert_close(own(x), torchs(x))
    assert own.state_dict().keys() == torchs.state_dict().keys()


def test_weighted_means():
    numbers, weights = torch.tensor([[1.0, 5.0], [3.0, 7.0]]), torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert distributed.mean_over_ranks(numbers).tolist() == [2.0, 6.0]
    assert distributed.mean_over_ranks(numbers, weights).tolist() == [2.5, 0.0]
