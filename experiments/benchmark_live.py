"""What live use costs: a frame through the lifters, detector and lifter together, and the memory of an hour.

    python -m experiments.benchmark_live [--weights FILE]

* One frame through a stream, cleaning, look-ahead and the root's path included, mean of 50 frames, best of
  ``--rounds``: the causal reference network of 243 frames (1024 channels, random weights: only size counts) and the
  causal default lifter, without the mirrored input, as ``lift live`` runs them, and with it. Target: at most 5 ms for
  the 243-frame network.
* ``lift live`` on the sample, forwards and backwards for ten seconds at 40 frames/s, as if it were a camera: frames
  looked at per second, dropped frames, latency. Target: at least 30 frames/s on two cores.
* 180,000 keypoint frames, an hour at 50 Hz, through one stream at its narrowest (16 channels; rings of any width are
  made once): growth of resident memory after the first 2,000 frames. Target: flat, here within 5 MB.

Every part runs in a fresh process. The matrix rate of the same run says how busy the machine was. Writes
``runs/benchmark_live.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from experiments.benchmark_pipeline import SAMPLE, matrix_rate
from lifting.cameras import Camera
from lifting.files import atomic_write

PARTS = ("frame", "camera", "hour")
IMAGE_SIZE, RATE = (1920, 1080), 50.0
CAMERA_RATE = 40.0  # frames/s of the stand-in for a camera
CAMERA = Camera.from_fov(60.0, IMAGE_SIZE)


def person(frames: int, seed: int = 0) -> np.ndarray:
    """Keypoints (T, 17, 3) of COCO-17, pixels and confidences: somebody who swings to and fro, with noise and gaps."""
    rng = np.random.default_rng(seed)
    pose = np.array([[0, -60], [5, -65], [-5, -65], [10, -62], [-10, -62], [40, 0], [-40, 0], [55, 60], [-55, 60],
                     [60, 115], [-60, 115], [28, 130], [-28, 130], [30, 230], [-30, 230], [32, 330], [-32, 330]])
    phase = 2 * np.pi * np.arange(frames)[:, None, None] / RATE
    swing = 15 * np.sin(phase + np.linspace(0, 3, 17)[:, None]) * np.array([1, 0.5])
    xy = pose + swing + np.array(IMAGE_SIZE) / 2 + rng.normal(0, 2, (frames, 17, 2))
    return np.concatenate([xy, (rng.random((frames, 17, 1)) > 0.03) * 0.9], axis=-1).astype(np.float32)


def temporal_stream(flip: bool):  # noqa: ANN201  the type would import torch before the process is ready
    """A stream of the causal 243-frame reference network with random weights."""
    import torch

    from lifting.models import build
    from lifting.models.temporal import TemporalConfig
    from lifting.models.temporal_file import describe_temporal
    from lifting.predict_temporal import TemporalLifter

    torch.manual_seed(0)
    pose = build(TemporalConfig(widths=(3, 3, 3, 3, 3), causal=True)).eval()
    weights = describe_temporal(pose, None, skeleton_in="h36m17", skeleton_out="h36m17", fps=RATE, training="none",
                                licence="none", metrics={})  # fmt: skip
    return TemporalLifter(weights).stream(CAMERA, skeleton="h36m17", fps=RATE, flip=flip)


def ray_stream(weights: str | None, lookahead: int = 0, channels: int = 320, flip: bool = False):  # noqa: ANN201
    """A stream of the causal default lifter; with random weights where there are none."""
    import torch

    from lifting.checkpoints import Header
    from lifting.models import build
    from lifting.models.lifter import LifterConfig
    from lifting.predict import CAUSAL_WEIGHTS, Lifter

    if weights or (CAUSAL_WEIGHTS.is_file() and channels == 320):
        lifter = Lifter.load(weights, causal=True)
    else:
        torch.manual_seed(0)
        config = LifterConfig(channels=channels, causal=True, lookaheads=(0, 5, 15))
        lifter = Lifter(build(config), Header("lifter", vars(config), "lift17", "h36m17", RATE, "rays", "none", "none",
                                              "0", {}))  # fmt: skip
    return lifter.stream(CAMERA, fps=RATE, lookahead=lookahead, flip=flip)


def measure_frame(weights: str | None, rounds: int, frames: int = 51) -> dict:
    """Milliseconds per frame, best of the rounds."""
    keypoints = person(frames)
    streams = {"temporal_243_ms": temporal_stream(False), "temporal_243_flip_ms": temporal_stream(True),
               "lifter_ms": ray_stream(weights), "lifter_flip_ms": ray_stream(weights, flip=True),
               "lifter_lookahead_15_ms": ray_stream(weights, 15)}  # fmt: skip
    best = dict.fromkeys(streams, float("inf"))
    for _ in range(rounds):
        for name, stream in streams.items():
            stream.flush()
            stream.push(keypoints[0])
            start = time.perf_counter()
            for frame in keypoints[1:]:
                stream.push(frame)
            best[name] = min(best[name], 1000 * (time.perf_counter() - start) / (frames - 1))
    return {**best, "matrix_gflops": matrix_rate()}


def measure_camera(weights: str | None, rounds: int, seconds: float = 10.0) -> dict:
    """The report of the best of the rounds of ``lift live`` on a video that is faster than the detector."""
    from lifting.video import VideoWriter, open_video

    command = [sys.executable, "-m", "lift", "live", "--output", "none", "--fov", "60", "--json"]
    command += ["--weights", weights] if weights else []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "fast.mp4"
        with open_video(SAMPLE) as reader:
            frames = [frame.rgb for frame in reader]
            with VideoWriter(clip, reader.image_size, CAMERA_RATE) as writer:
                for k in range(int(CAMERA_RATE * seconds)):
                    writer.write(frames[abs((k + len(frames) - 1) % (2 * len(frames) - 2) - len(frames) + 1)])
        runs = [json.loads(_tail(subprocess.run([*command, "--video", str(clip)], capture_output=True, text=True,
                                                check=True).stderr)) for _ in range(rounds)]  # fmt: skip
    return {**max(runs, key=lambda run: run["rate"]), "matrix_gflops": matrix_rate()}


def _tail(text: str) -> str:
    """The JSON object that ends a text."""
    return text[text.index("{"):]


def measure_hour(frames: int) -> dict:
    """Growth of resident memory in megabytes, and milliseconds per frame."""
    stream, keypoints = ray_stream(None, 15, channels=16), person(5000)
    for frame in keypoints[:2000]:
        stream.push(frame)
    before, size, start = resident_mb(), stream.size, time.perf_counter()
    for k in range(2000, frames):
        stream.push(keypoints[k % 5000])
        if k % 10_000 == 0:
            print(f"{k} frames, {resident_mb() - before:+.2f} MB, {stream.size} numbers held", file=sys.stderr)
    seconds = time.perf_counter() - start
    return {"frames": frames, "growth_mb": resident_mb() - before, "resident_mb": resident_mb(),
            "size_before": size, "size_after": stream.size, "ms": 1000 * seconds / (frames - 2000)}  # fmt: skip


def resident_mb() -> float:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


@click.command()
@click.option("--weights", default=None, help="Causal weights; the package's without.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--frames", default=180_000, show_default=True, help="Of the hour.")
@click.option("--only", type=click.Choice(PARTS), help="One part, in this process.")
@click.option("--output", default="runs/benchmark_live.json", show_default=True)
def main(weights: str | None, rounds: int, frames: int, only: str | None, output: str) -> None:
    """Prints the table and writes it as JSON."""
    if only:
        parts = {"frame": lambda: measure_frame(weights, rounds), "camera": lambda: measure_camera(weights, rounds),
                 "hour": lambda: measure_hour(frames)}  # fmt: skip
        print(json.dumps(parts[only]()))
        return
    command = [sys.executable, "-m", "experiments.benchmark_live", "--rounds", str(rounds), "--frames", str(frames)]
    command += ["--weights", weights] if weights else []
    facts = {part: json.loads(_tail(subprocess.run([*command, "--only", part], capture_output=True, text=True,
                                                   check=True).stdout)) for part in PARTS}  # fmt: skip
    print(table(facts))
    with atomic_write(Path(output)) as file:
        file.write(json.dumps(facts, indent=2).encode())


def table(facts: dict) -> str:
    """The results as a Markdown table."""
    frame, camera, hour = (facts[part] for part in PARTS)
    latency = "{:.0f} ms, 95 %: {:.0f} ms".format(*camera["latency_ms"])
    rows = [
        ("243-frame network, one frame", f"{frame['temporal_243_ms']:.2f} ms", "<= 5 ms"),
        ("the same with the mirrored input", f"{frame['temporal_243_flip_ms']:.2f} ms", ""),
        ("default causal lifter, one frame", f"{frame['lifter_ms']:.2f} ms", "<= 3 ms"),
        ("the same with the mirrored input", f"{frame['lifter_flip_ms']:.2f} ms", ""),
        ("detector + lifter", f"{camera['rate']:.1f} frames/s", ">= 30 frames/s"),
        ("latency of it", latency, ""),
        (f"memory of {hour['frames']} frames", f"{hour['growth_mb']:+.1f} MB", "within 5 MB"),
        ("matrix rate, float32", f"{frame['matrix_gflops']:.0f} and {camera['matrix_gflops']:.0f} GFLOP/s", ""),
    ]
    return "\n".join(["| what | measured | target |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)])


if __name__ == "__main__":
    main()
