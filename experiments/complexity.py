"""What the networks cost: parameters, multiply-adds, frames per second (the paper's section 6.1).

    python -m experiments.complexity [--channels 1024] [--seconds 5]

Three forms do the same sum: whole sequences, where every hidden frame serves many outputs; the strided form, which
computes what one output needs and is what training uses; one window per output without either. Multiply-adds are
counted as torch runs them. Paper, 1024 channels: 8.56, 12.75 and 16.95 million parameters for 27, 81 and 243 frames;
a frame of a sequence costs as many multiply-adds as there are parameters; 150,000 frames per second on one GP100.
Needs no data. Writes ``runs/paper/complexity.json``.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments import fit_table
from experiments.benchmark_loader import rate_of
from experiments.paper_runs import write_json
from lifting.console import one_sentence_errors, say
from lifting.models.temporal import TemporalConfig, TemporalModel, build_temporal, lift_sequence
from lifting.training.config import WIDTHS

PAPER = {27: 8_555_571, 81: 12_753_971, 243: 16_952_371}  # parameters with 1024 channels
SEQUENCE = 2048  # frames
SAMPLES = 128  # of a training step


def multiply_adds(model: TemporalModel, frames: int, form: str) -> float:
    """Millions of multiply-adds per output frame of a forward pass over so many frames; form: a method's name."""
    with torch.device("meta"):
        x = torch.empty(1, frames, 17, 2)
    model = build_temporal(model.config).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        outputs = getattr(model, form)(x).shape[1]
    return counter.get_total_flops() / 2 / outputs / 1e6


def sequence_rate(model: TemporalModel, seconds: float) -> float:
    """Output frames per second of whole sequences."""
    x = torch.randn(1, SEQUENCE, 17, 2)
    model.eval()
    return SEQUENCE * rate_of(lambda: lift_sequence(model, x), seconds)


def training_rate(model: TemporalModel, seconds: float) -> float:
    """Output frames per second of training steps in the strided form."""
    optimiser = torch.optim.Adam(model.train().parameters(), amsgrad=True)
    x = torch.randn(SAMPLES, model.receptive_field, 17, 2)

    def step() -> None:
        optimiser.zero_grad()
        model.forward_strided(x).norm(dim=-1).mean().backward()
        optimiser.step()

    return SAMPLES * rate_of(step, seconds)


def measure(frames: int, channels: int, seconds: float) -> fit_table.Row:
    """The line of a receptive field."""
    model = build_temporal(TemporalConfig(widths=WIDTHS[frames], channels=channels))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    values = {
        "receptive field": frames, "parameters": parameters, "the paper's": PAPER[frames],
        "sequence: million multiply-adds per frame": multiply_adds(model, SEQUENCE + frames - 1, "forward"),
        "strided": multiply_adds(model, frames, "forward_strided"),
        "one window per frame": multiply_adds(model, frames, "forward"),
        "sequence: frames/s": sequence_rate(model, seconds), "training: frames/s": training_rate(model, seconds),
    }  # fmt: skip
    return fit_table.Row(values)


@click.command()
@click.option("--channels", default=1024, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="Least time of each measurement.")
@click.option("--output", default="runs/paper/complexity.json", show_default=True)
@one_sentence_errors
def main(channels: int, seconds: float, output: str) -> None:
    """Parameters, multiply-adds and frames per second on this machine's CPU."""
    rows = [measure(frames, channels, seconds) for frames in PAPER]
    say(fit_table.markdown(rows))
    say(f"{channels} channels, {torch.get_num_threads()} threads, float32; trained with {SAMPLES} samples per step")
    write_json(Path(output), {"channels": channels, "threads": torch.get_num_threads(),
                              "rows": [row.to_dict() for row in rows]})


if __name__ == "__main__":
    main()
