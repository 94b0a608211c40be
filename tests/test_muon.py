"""Muon and AdamW as one optimiser: who moves what, by how much, and how it resumes."""

from __future__ import annotations

import copy

import pytest
import torch

from lifting.models.lifter import LifterConfig, LiftNet, build_lifter
from lifting.training.loop import LoopConfig, Run
from lifting.training.muon import MuonAndAdamW

CONFIG = LifterConfig(channels=12, dilations=(1, 2))

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> LiftNet:
    torch.manual_seed(0)
    return build_lifter(CONFIG)


def is_block_matrix(name: str, values: torch.Tensor) -> bool:
    return name in {f"blocks.{k}.{part}.weight" for k in range(2) for part in ("conv", "mix")} and values.ndim == 2


def losses_of(lifter: LiftNet, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    said = lifter(batch)
    return {"squares": said.codes.square().mean() + said.log_sigma.square().mean()}


def features(seed: int) -> torch.Tensor:
    return torch.randn(3, 7, 72, generator=torch.Generator().manual_seed(seed))


def orthogonalised(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz by the singular values: each goes through the quintic polynomial of Jordan et al. 2024."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s @ v).float()


def test_matrices_of_blocks_move_along_their_orthogonalised_momentum():
    lifter = network()
    before = {name: p.detach().clone() for name, p in lifter.named_parameters()}
    optimiser = MuonAndAdamW(lifter, learning_rate=1e-2, weight_decay=0.1)
    gradients = []
    for seed in range(2):
        optimiser.zero_grad()
        losses_of(lifter, features(seed))["squares"].backward()
        gradients.append({name: p.grad.clone() for name, p in lifter.named_parameters()})
        optimiser.step()
    for name, p in lifter.named_parameters():
        if not is_block_matrix(name, p):
            continue
        first, second = (g[name] for g in gradients)
        expected = before[name]
        momentum = torch.zeros_like(first)
        for gradient in (first, second):
            momentum = momentum + 0.05 * (gradient - momentum)
            nesterov = gradient + 0.95 * (momentum - gradient)
            scale = 1e-2 * 0.2 * max(gradient.shape) ** 0.5
            expected = expected * (1 - 1e-2 * 0.1) - scale * orthogonalised(nesterov)
        moved = (expected - before[name]).norm()
        assert (p - expected).norm() < 0.05 * moved  # the iteration runs in bfloat16


def test_all_other_parameters_move_as_by_adamw():
    lifter, twin = network(), network()
    others = [p for name, p in twin.named_parameters() if not is_block_matrix(name, p)]
    both = MuonAndAdamW(lifter, 1e-2, 0.1)
    alone = torch.optim.AdamW(others, 1e-2, betas=(0.9, 0.98), weight_decay=0.1)
    for net, optimiser in ((lifter, both), (twin, alone)):
        losses_of(net, features(0))["squares"].backward()
        optimiser.step()
    same = [torch.equal(a, b) for a, b in zip(lifter.parameters(), twin.parameters(), strict=True)]
    assert same == [not is_block_matrix(name, p) for name, p in lifter.named_parameters()]


def test_the_schedule_sets_the_rate_of_both(tmp_path):
    lifter = network()
    run = Run(lifter, LoopConfig(steps=9), tmp_path, optimiser=MuonAndAdamW(lifter, 1e-3, 0.0))
    run.set_learning_rate(0.125)
    assert [group["lr"] for part in run.optimiser.parts for group in part.param_groups] == [0.125, 0.125]


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    config = LoopConfig(steps=6, warmup=2, bfloat16=False)

    def run(folder: str) -> Run:
        lifter = network()
        return Run(lifter, config, tmp_path / folder, optimiser=MuonAndAdamW(lifter, config.learning_rate, 0.02))

    whole, stopped = run("whole"), run("stopped")
    for seed in range(6):
        whole.train_on(features(seed), losses_of, {"squares": 1.0})
    for seed in range(3):
        stopped.train_on(features(seed), losses_of, {"squares": 1.0})
    stopped.save()
    resumed = run("stopped")
    assert resumed.resume()
    for seed in range(3, 6):
        resumed.train_on(features(seed), losses_of, {"squares": 1.0})
    for name, values in whole.network.state_dict().items():
        assert torch.equal(values, resumed.network.state_dict()[name]), name


def test_states_of_other_optimisers_are_refused_and_change_nothing():
    lifter = network()
    optimiser = MuonAndAdamW(lifter, 1e-2, 0.0)
    losses_of(lifter, features(0))["squares"].backward()
    optimiser.step()
    before = copy.deepcopy(optimiser.state_dict())
    adamw = torch.optim.AdamW(lifter.parameters()).state_dict()
    fresh = MuonAndAdamW(network(), 1e-1, 0.0).state_dict()
    others = [(state, ValueError) for state in (adamw, [fresh[1], fresh[0]], [fresh[0], adamw], fresh[:1])]
    for state, error in [*others, ([fresh[0], {"state": {}}], KeyError)]:
        with pytest.raises(error, match="optimiser|parameter group|param_groups"):
            optimiser.load_state_dict(state)
        for mine, theirs in zip(optimiser.state_dict(), before, strict=True):
            assert mine["param_groups"] == theirs["param_groups"]
            assert all(torch.equal(v, theirs["state"][k][n]) for k, s in mine["state"].items() for n, v in s.items())


def test_without_muon_in_torch_there_is_one_sentence(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"install torch 2\.9 or newer"):
        MuonAndAdamW(network(), 1e-3, 0.0)
