"""How fast the strided form trains on a CPU, beside a plain implementation and the machine's matrix rate.

    OMP_NUM_THREADS=2 python -m experiments.benchmark_training [--repeats 3]

A step is forward pass, loss, backward pass and AMSGrad of the pose net with 1024 channels on a batch of 1024 windows.
Plain: what one writes with ``nn.Conv1d(stride=...)``, batch norm, ReLU, dropout, in float32. Rates of float32 and
bfloat16 matrix products (those of the largest layer) are taken between the steps, and everything is repeated in turn,
so that other work on the machine disturbs all alike; the medians count. Target: 2.5 times the plain one. A share is
that of the matrix rate in the same type, counting the multiply-adds of the network's layers three times per step.
Writes ``runs/benchmark_training.json``. Two CPU cores: 2 minutes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import torch
from torch import Tensor, nn
from tqdm import tqdm

from experiments import fit_table
from experiments.fit_table import Row, Target
from experiments.paper_runs import write_json
from lifting.console import one_sentence_errors, say
from lifting.models.temporal import TemporalConfig, build_temporal
from lifting.training.config import WIDTHS

BATCH, CHANNELS, JOINTS = 1024, 1024, 17
FASTER = Target(2.5, at_most=False)
MATRIX = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class PlainBlock(nn.Module):
    """A residual block of strided convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Conv1d(CHANNELS, CHANNELS, width, stride=width, bias=False), *activation(),
            nn.Conv1d(CHANNELS, CHANNELS, 1, bias=False), *activation())  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, T) to (N, channels, T / width)."""
        return x[:, :, self.width // 2 :: self.width] + self.layers(x)


def activation() -> tuple[nn.Module, ...]:
    """What follows every convolution."""
    return nn.BatchNorm1d(CHANNELS), nn.ReLU(), nn.Dropout(0.25)


def plain_net(widths: tuple[int, ...]) -> nn.Module:
    """The paper's training form, layer by layer: (N, T, J, 2) to (N, 3 J, 1)."""
    first, *others = widths
    expand = nn.Conv1d(JOINTS * 2, CHANNELS, first, stride=first, bias=False)
    shrink = nn.Conv1d(CHANNELS, JOINTS * 3, 1)
    layers = nn.Sequential(expand, *activation(), *map(PlainBlock, others), shrink)
    layers.register_forward_pre_hook(lambda _, inputs: inputs[0].flatten(2).transpose(1, 2))
    return layers


def plain_step(frames: int) -> Callable[[], None]:
    """A step of the plain implementation."""
    return training_step(net := plain_net(WIDTHS[frames]), net, frames, bfloat16=False)


def own_step(frames: int, bfloat16: bool) -> Callable[[], None]:
    """A step of ours."""
    net = build_temporal(TemporalConfig(JOINTS, 2, JOINTS, WIDTHS[frames], CHANNELS))
    return training_step(net, net.forward_strided, frames, bfloat16)


def training_step(net: nn.Module, lift: Callable[[Tensor], Tensor], frames: int, bfloat16: bool) -> Callable[[], None]:
    """A function that trains for one step."""
    optimiser = torch.optim.Adam(net.train().parameters(), amsgrad=True)
    x, truth = torch.randn(BATCH, frames, JOINTS, 2), torch.randn(BATCH, JOINTS, 3)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            lifted = lift(x)
            loss = (lifted.reshape(truth.shape).float() - truth).norm(dim=-1).mean()
        loss.backward()
        optimiser.step()

    return step


def multiply(kind: torch.dtype) -> Callable[[], None]:
    """The largest product of a step, a sixth of it."""
    left, right = torch.randn(8192, 3 * CHANNELS).to(kind), torch.randn(3 * CHANNELS, CHANNELS).to(kind)
    return lambda: left @ right


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def operations(widths: tuple[int, ...]) -> float:
    """Floating-point operations of a step's forward and backward pass."""
    rows = [math.prod(widths[index:]) for index in range(1, len(widths) + 1)]
    layers = rows[0] * widths[0] * JOINTS * 2 * CHANNELS + rows[-1] * CHANNELS * JOINTS * 3
    layers += sum(count * (width + 1) * CHANNELS**2 for count, width in zip(rows[1:], widths[1:], strict=True))
    return 3 * 2 * BATCH * layers


def benchmark(frames: int, repeats: int) -> list[Row]:
    """The lines of one receptive field."""
    works = {"plain": plain_step(frames), "ours, float32": own_step(frames, False),
             "ours, bfloat16": own_step(frames, True)}  # fmt: skip
    works |= {name: multiply(kind) for name, kind in MATRIX.items()}
    for work in works.values():
        work()
    times = {name: [] for name in works}
    for _ in tqdm(range(repeats), desc=f"{frames} frames", leave=False, disable=None):
        for name, work in works.items():
            times[name].append(seconds(work))
    best = {name: median(values) for name, values in times.items()}
    product = 2 * 8192 * 3 * CHANNELS**2
    rates = {name: product / best.pop(name) / 1e9 for name in MATRIX}
    return [_line(frames, name, taken, best["plain"], rates) for name, taken in best.items()]


def _line(frames: int, name: str, taken: float, plain: float, rates: dict[str, float]) -> Row:
    matrix = rates["bfloat16" if name.endswith("bfloat16") else "float32"]
    rate = operations(WIDTHS[frames]) / taken / 1e9
    values = {"frames": frames, "step": name, "seconds": taken, "GFLOP/s": rate, "matrix GFLOP/s": matrix,
              "share %": 100 * rate / matrix, "times faster": plain / taken}  # fmt: skip
    return Row(values, {"times faster": FASTER} if name.endswith("bfloat16") else {})


@click.command()
@click.option("--frames", "fields", multiple=True, type=click.Choice(["27", "81", "243"]), default=("27", "243"),
              show_default=True)  # fmt: skip
@click.option("--repeats", default=3, show_default=True)
@click.option("--output", default="runs/benchmark_training.json", show_default=True)
@one_sentence_errors
def main(fields: tuple[str, ...], repeats: int, output: str) -> None:
    """Prints the table and writes it as JSON."""
    torch.manual_seed(0)
    rows = [row for frames in map(int, fields) for row in benchmark(frames, repeats)]
    say(fit_table.markdown(rows))
    write_json(Path(output), {"threads": torch.get_num_threads(), "torch": torch.__version__, "repeats": repeats,
                              "rows": [row.to_dict() for row in rows]})  # fmt: skip


if __name__ == "__main__":
    main()
