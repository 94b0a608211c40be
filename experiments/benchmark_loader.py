"""Does the loader starve the model? Samples per second of the loader alone and of training steps on this machine.

    python -m experiments.benchmark_loader [--device cuda] [--seconds 10]

Samples are windows of 243 frames (17 keypoints), half of them mirrored, in batches of 1024, from 400,000 frames of
random numbers: once in memory, once streamed from a clip file, by 1 and 2 workers. The models are the paper's strided
243-frame network with 1024 and with 256 channels: forward, backward and Adam step on one batch that lies ready, float32
on a CPU, bfloat16 autocast on a GPU. The loader must deliver at least 3 times what the model takes. Writes
``runs/benchmark_loader.json``.

Two shared CPU cores, torch 2.13, two minutes: see experiments/README.md.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from lifting.cameras import Camera
from lifting.datasets.clip_file import ClipFile, write_clips
from lifting.datasets.clips import Clip, ClipList, ClipSet
from lifting.datasets.loader import prefetch
from lifting.datasets.windows import WindowConfig, Windows
from lifting.files import atomic_write
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion

WINDOWS = WindowConfig(before=121, after=121, batch=1024)
NEEDED = 3.0


def random_data(clips: int = 200, frames: int = 2000) -> ClipList:
    """Clips of random joints; how fast they load does not depend on what they show."""
    rng = np.random.default_rng(0)
    camera = Camera.from_fov(50, (1000, 1000))
    return ClipList([
        Clip("S1", str(number), "a",
             Keypoints2D(rng.uniform(0, 1000, (frames, 17, 2)), None, "h36m17", (1000, 1000), 50),
             Motion(rng.normal(0, 0.3, (frames, 17, 3)), rng.normal(0, 1, (frames, 3)), None, "h36m17", 50), camera)
        for number in range(clips)
    ])  # fmt: skip


def rate_of(step: Callable[[], object], seconds: float) -> float:
    """Calls per second, after one to warm up: at least three calls and at least so many seconds."""
    step()
    start, calls = time.perf_counter(), 0
    while calls < 3 or time.perf_counter() - start < seconds:
        step()
        calls += 1
    return calls / (time.perf_counter() - start)


def loader_rate(clips: ClipSet, workers: int, memory: int, device: str, seconds: float) -> float:
    """Samples per second that the loader delivers as tensors."""
    batches = prefetch(Windows(clips, WINDOWS, memory=memory), itertools.count(), workers=workers, device=device)
    for _ in range(workers + 2):  # those made ahead would flatter a short measurement
        next(batches)
    rate = WINDOWS.samples * rate_of(lambda: next(batches), seconds)
    batches.close()
    return rate


def model_rate(channels: int, device: str, seconds: float) -> float:
    """Samples per second that a training step takes."""
    import torch

    from lifting.models.temporal import TemporalConfig, build_temporal

    model = build_temporal(TemporalConfig(widths=(3, 3, 3, 3, 3), channels=channels)).to(device)
    optimiser = torch.optim.Adam(model.parameters(), amsgrad=True)
    x = torch.randn(WINDOWS.samples, WINDOWS.frames, 17, 2, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model.forward_strided(x).float().norm(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()

    return WINDOWS.samples * rate_of(step, seconds)


def measure(device: str, seconds: float) -> dict[str, dict[str, float]]:
    """Samples per second of every loader and model."""
    clips, loaders = random_data(), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips.h5"
        write_clips(path, clips, name="random")
        for workers in (1, 2):
            loaders[f"in memory, {workers} thread(s)"] = loader_rate(clips, workers, 1 << 30, device, seconds)
            loaders[f"clip file, {workers} process(es)"] = loader_rate(ClipFile(path), workers, 0, device, seconds)
    models = {f"{channels} channels": model_rate(channels, device, seconds) for channels in (1024, 256)}
    return {"loaders": loaders, "models": models}


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown: loaders in rows, how many times they feed each model in columns."""
    models = results["models"]
    titles = " | ".join(f"x {name} ({rate:,.0f}/s)" for name, rate in models.items())
    lines = [f"| loader | samples/s | {titles} |", "|---" * (2 + len(models)) + "|"]
    for name, rate in results["loaders"].items():
        factors = " | ".join(f"{rate / taken:.1f}" for taken in models.values())
        lines.append(f"| {name} | {rate:,.0f} | {factors} |")
    return "\n".join(lines)


@click.command()
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--seconds", default=10.0, show_default=True, help="Least time of each measurement.")
@click.option("--output", default="runs/benchmark_loader.json", show_default=True)
def main(device: str, seconds: float, output: str) -> None:
    """Prints the table and whether every loader feeds every model, and writes both as JSON."""
    results = measure(device, seconds)
    factor = min(results["loaders"].values()) / max(results["models"].values())
    print(table(results))
    print(f"slowest loader / fastest model: {factor:.1f}, needed {NEEDED:g}: {'yes' if factor >= NEEDED else 'NO'}")
    with atomic_write(Path(output)) as file:
        facts = {"device": device, "cores": os.cpu_count(), "factor": factor, "needed": NEEDED, **results}
        file.write(json.dumps(facts, indent=2).encode())


if __name__ == "__main__":
    main()
