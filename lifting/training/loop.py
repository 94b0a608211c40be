"""The training loop: optimiser, schedule, averaged weights, metrics, checkpoints that resume exactly.

Batches are a pure function of the step's number, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lifting.files import atomic_write

CHECKPOINT = "last.pt"


@dataclass(frozen=True)
class LoopConfig:
    """Schedule of a run: linear warm-up, cosine decay, exponential average of the weights.

    warmup: steps. clip: largest norm of the gradient. average: decay of the averaged weights per step, less in the
    first steps. Raises ValueError for a number of steps below 1.
    """

    steps: int = 10_000
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    warmup: int = 300
    weight_decay: float = 0.02
    clip: float = 1.0
    average: float = 0.999
    checkpoint_every: int = 500
    bfloat16: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.checkpoint_every < 1:
            raise ValueError(
                f"got {self.steps} steps and a checkpoint every {self.checkpoint_every} steps; both must be at least 1"
            )


def learning_rate(step: int, config: LoopConfig) -> float:
    """Learning rate of the update from ``step`` to ``step + 1``: the highest one at step ``warmup - 1``."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * cosine


class Run:
    """Everything that changes while training: network, averaged network, optimiser, step."""

    def __init__(self, network: nn.Module, config: LoopConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.network = network.to(config.device)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            network.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
        )
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)

    def save(self) -> None:
        """Writes the state beside and renames, so that a run killed at any moment has a whole checkpoint."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }
        with atomic_write(self.folder / CHECKPOINT) as file:
            torch.save(state, file)

    def resume(self) -> bool:
        """Loads the last checkpoint of the folder and returns whether there was one.

        Raises ValueError for a damaged one and for one of another network.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["torch_rng"])
            self.step = state["step"]
        except (RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"cannot resume from {path} ({reason}); expected a whole checkpoint of this very network: "
                "give the options of the run that wrote it, or another folder"
            ) from error
        return True

    def update(self, losses: dict[str, Tensor], weights: dict[str, float]) -> None:
        """One optimiser step on the weighted sum of the named losses.

        Raises FloatingPointError, before anything has changed, when the sum or its gradient is not finite.
        """
        total = sum(weights[name] * loss for name, loss in losses.items())
        self._check_finite(total, "loss", losses)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        # An infinite gradient of a finite loss would go unnoticed into the weights and from there into the checkpoint.
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self._check_finite(norm, "gradient", losses)
        self.optimiser.step()
        self.step += 1
        self._average()

    def _check_finite(self, value: Tensor, name: str, losses: dict[str, Tensor]) -> None:
        if not torch.isfinite(value):
            named = ", ".join(f"{k} {v.item():.3g}" for k, v in losses.items())
            raise FloatingPointError(
                f"the {name} at step {self.step} is not finite ({named}); the last checkpoint is kept: "
                "look at the data of that step or lower the learning rate"
            )

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        mine, current = list(self.averaged.parameters()), list(self.network.parameters())
        torch._foreach_lerp_(mine, current, 1 - decay)
        for copy_of, buffer in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
            copy_of.copy_(buffer)  # batch norms keep averages of their own


def fit(
    run: Run,
    batches: Iterable,
    losses_of: Callable[[nn.Module, object], dict[str, Tensor]],
    weights: dict[str, float],
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
) -> None:
    """Trains ``run`` to its last step, not at all if it is there. ``batches`` must start at the run's step.

    Metrics go to ``metrics.jsonl`` at every checkpoint: mean losses since the last one and what ``evaluate`` says of
    the averaged network. An interrupt leaves the last checkpoint whole. Raises FloatingPointError when the loss or its
    gradient is not finite.
    """
    config, sums, first, since = run.config, {}, run.step, time.monotonic()
    if run.step >= config.steps:
        return
    run.network.train()
    bar = tqdm(batches, total=config.steps, initial=run.step, unit="step", mininterval=5)
    for batch in bar:
        with torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=config.bfloat16):
            losses = losses_of(run.network, batch)
        run.update(losses, weights)
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.item()
        if run.step % config.checkpoint_every == 0 or run.step == config.steps:
            run.save()
            count = run.step - first
            report = {"step": run.step, "seconds": round(time.monotonic() - since, 1)}
            report |= {name: round(value / count, 5) for name, value in sums.items()}
            report |= evaluate(run.averaged) if evaluate else {}
            with open(run.folder / "metrics.jsonl", "a") as log:
                log.write(json.dumps(report) + "\n")
            sums, first = {}, run.step
        if run.step >= config.steps:
            break
