"""The training loop of all trainers: optimiser, schedule, averaged weights, metrics, checkpoints that resume exactly.

Batches are a pure function of the step's number, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lifting.training.distributed import any_rank, from_first_rank, rank
from lifting.training.metrics_log import MetricsLog, NoLog
from lifting.training.snapshots import CHECKPOINT, load_snapshot, save_snapshot

if TYPE_CHECKING:
    from lifting.training.muon import MuonAndAdamW

__all__ = ["CHECKPOINT", "LoopConfig", "Run", "fit", "follow_cosine", "follow_trapezoid", "learning_rate", "trapezoid"]

DECAYING = 0.3
"""Share of the steps in which the rate of `trapezoid` falls."""


@dataclass(frozen=True)
class LoopConfig:
    """Schedule of a run: linear warm-up, cosine decay, exponential average of the weights.

    warmup: steps. clip: largest norm of the gradient. average: decay of the averaged weights per step, less in the
    first steps; None: there is no average, the network itself is evaluated and kept. Rates, warm-up and weight decay
    belong to the optimiser and the schedule that `Run` makes where it is given none.
    Raises ValueError for a number of steps below 1.
    """

    steps: int = 10_000
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    warmup: int = 300
    weight_decay: float = 0.02
    clip: float = 1.0
    average: float | None = 0.999
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


def trapezoid(step: int, config: LoopConfig) -> float:
    """Learning rate of the update from ``step`` to ``step + 1``: warm-up, constant, and a decay as 1 - sqrt at the end.

    Up to the decay a run does not depend on its number of steps, so one long run can also end in shorter ones: copy
    its folder and go on with fewer steps (Haegele et al. 2024, "Scaling laws and compute-optimal training beyond fixed
    training durations", section 3).
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    start = round((1 - DECAYING) * config.steps)
    progress = max(0, step - start) / max(1, config.steps - start)
    share = 1 - math.sqrt(min(progress, 1.0))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * share


def follow_trapezoid(run: Run) -> None:
    """The schedule of `trapezoid`."""
    run.set_learning_rate(trapezoid(run.step, run.config))


def follow_cosine(run: Run) -> None:
    """The default schedule: `learning_rate` of the run's step."""
    run.set_learning_rate(learning_rate(run.step, run.config))


class Run:
    """Everything that changes while training: network, averaged network, optimiser, step.

    optimiser: of the network's parameters, AdamW by default. schedule: called with the run whenever its step changes,
    sets rates and momenta as a function of the step alone. settings: plain values that a resumed run must share, with
    the names by which the user knows them.
    """

    def __init__(
        self, network: nn.Module, config: LoopConfig, folder: Path, *,
        optimiser: torch.optim.Optimizer | MuonAndAdamW | None = None,
        schedule: Callable[[Run], None] = follow_cosine, settings: dict | None = None,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.schedule, self.settings = config, folder, schedule, settings or {}
        self.network = network.to(config.device)
        self.averaged = self.network
        if config.average is not None:
            self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = optimiser or torch.optim.AdamW(
            network.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.losses: dict[str, float] = {}  # of the last step
        self.seconds, self._sums, self._count = 0.0, {}, 0  # sums of the losses since the last report
        self._stand_at(0)

    def _stand_at(self, step: int) -> None:
        self.step = step
        self.schedule(self)

    def set_learning_rate(self, rate: float) -> None:
        """For all parameters."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def save(self) -> None:
        """Writes the state as the newest checkpoint, on rank 0 only; errors as `save_snapshot`."""
        state = {
            "step": self.step,
            "settings": self.settings,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not self.network else None,
            "optimiser": self.optimiser.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "progress": {"seconds": self.seconds, "sums": self._sums, "count": self._count},
        }
        if rank() == 0:
            save_snapshot(self.folder, state)

    def resume(self) -> bool:
        """Goes on from the newest whole checkpoint of the folder and returns whether there was one.

        In a group, rank 0 reads and the others get it from there. Raises ValueError when the checkpoints are damaged,
        and for one of another network or of other settings; nothing has changed then.
        """
        state = from_first_rank(load_snapshot(self.folder) if rank() == 0 else None)
        if state is None:
            return False
        self._check_settings(state.get("settings") or {})
        before = copy.deepcopy(self.network.state_dict())
        try:
            self.network.load_state_dict(state["network"])
            if self.averaged is not self.network:
                self.averaged.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["torch_rng"])
            self.seconds, self._sums, self._count = (state["progress"][k] for k in ("seconds", "sums", "count"))
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.network.load_state_dict(before)
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"cannot resume from {self.folder / CHECKPOINT} ({reason}); expected a whole checkpoint of this very "
                "network: give the options of the run that wrote it, or another folder"
            ) from error
        self._stand_at(state["step"])
        return True

    def _check_settings(self, other: dict) -> None:
        for name in self.settings:
            if self.settings[name] != other.get(name):
                raise ValueError(
                    f"the run in {self.folder} was started with {name} {other.get(name)!r}, now it is "
                    f"{self.settings[name]!r}; give the same options to go on, restart it, or give another folder"
                )

    def train_on(self, batch: object, losses_of: Callable, weights: dict[str, float]) -> None:
        """One step on a batch: losses, in mixed precision where the config says so, and update."""
        with torch.autocast(torch.device(self.config.device).type, torch.bfloat16, enabled=self.config.bfloat16):
            losses = losses_of(self.network, batch)
        self.losses = self.update(losses, weights)
        for name, value in self.losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def take_losses(self) -> dict[str, float]:
        """Mean losses of the steps since this was last asked for."""
        means = {name: round(value / self._count, 5) for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def update(self, losses: dict[str, Tensor], weights: dict[str, float]) -> dict[str, float]:
        """One optimiser step on the weighted sum of the named losses; returns their values.

        Raises FloatingPointError, before anything has changed, when the sum or its gradient is not finite.
        """
        total = sum(weights[name] * loss for name, loss in losses.items())
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        # An infinite gradient of a finite loss would go unnoticed into the weights and from there into the checkpoint.
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        checked = torch.stack([value.detach().float() for value in (*losses.values(), total, norm)])
        *values, total, norm = checked.tolist()  # the one moment of a step at which the device is waited for
        named = dict(zip(losses, values, strict=True))
        self._check_finite(total, "loss", named)
        self._check_finite(norm, "gradient", named)
        self.optimiser.step()
        self._stand_at(self.step + 1)
        self._average()
        return named

    def _check_finite(self, value: float, name: str, losses: dict[str, float]) -> None:
        if not math.isfinite(value):
            named = ", ".join(f"{k} {v:.3g}" for k, v in losses.items())
            saved = (self.folder / CHECKPOINT).exists()
            kept = "the last checkpoint is kept" if saved else "there is no checkpoint yet"
            raise FloatingPointError(
                f"the {name} at step {self.step} is not finite ({named}); {kept}: look at the data of that step or "
                "lower the learning rate"
            )

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is self.network:
            return
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

    With every checkpoint a line goes to ``metrics.jsonl``: mean losses since the last one, seconds of training (not of
    evaluating) and what ``evaluate`` says of the averaged network. Ctrl-C (and SIGTERM) ends the step, writes a
    checkpoint and raises KeyboardInterrupt, also when the same signal has ended the processes that read the batches; a
    second one does not wait. In a group, rank 0 evaluates and writes. Raises FloatingPointError when the loss or its
    gradient is not finite.
    """
    if run.step >= run.config.steps:
        return
    run.network.train()
    with _StopRequests() as stop, closing(MetricsLog(run.folder, run.step) if rank() == 0 else NoLog()) as log:
        since = time.monotonic()
        for batch in progress_of(run, _until_stopped(batches, stop)):
            run.train_on(batch, losses_of, weights)
            run.seconds += time.monotonic() - since
            stopped = any_rank(stop.requested, run.config.device)
            last = run.step >= run.config.steps
            if last or run.step % run.config.checkpoint_every == 0:
                report(run, log, evaluate)
                run.save()
            elif stopped:
                run.save()
            if last:
                break
            if stopped:
                raise KeyboardInterrupt
            since = time.monotonic()
        else:
            if stop.requested:
                run.save()
                raise KeyboardInterrupt


def _until_stopped(batches: Iterable, stop: _StopRequests) -> Iterable:
    """The batches, up to where reading them fails once a stop was asked for."""
    try:
        yield from batches
    except Exception:
        if not stop.requested:
            raise


def progress_of(run: Run, batches: Iterable) -> Iterable:
    """The batches with a bar that shows rate, time left and losses; on rank 0, where stderr is a terminal."""
    with tqdm(batches, total=run.config.steps, initial=run.step, unit="step", mininterval=2,
              disable=None if rank() == 0 else True) as bar:
        for batch in bar:
            yield batch
            bar.set_postfix({name: f"{value:.4f}" for name, value in run.losses.items()}, refresh=False)


def report(run: Run, log: MetricsLog, evaluate: Callable[[nn.Module], dict[str, float]] | None) -> None:
    """Writes mean losses, time and the evaluation of a run; its sums start again."""
    row = {"step": run.step, "seconds": round(run.seconds, 1), **run.take_losses()}
    if evaluate and rank() == 0:
        row |= evaluate(run.averaged)
        run.network.train()
    log.write(row)


class _StopRequests:
    """While entered, the first SIGINT or SIGTERM only sets ``requested``; the second acts as it always did."""

    def __init__(self) -> None:
        self.requested, self._handlers = False, {}

    def __enter__(self) -> _StopRequests:
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, *_: object) -> None:
        self.requested = True
        self.__exit__()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
