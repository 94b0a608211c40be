"""What a user waits for: the cost of lifting beside detecting, start-up, and the memory of an hour of keypoints.

    python -m experiments.benchmark_pipeline

* ``lift run`` on a clip of a minute (the sample, forwards and backwards) to ``.npz`` against decoding and detecting
  alone, without tracking or anything after it; both in fresh processes, in turn, best of ``--rounds``. Target: at most
  10 % more.
* ``lift --help``, best of five. Target: under 0.5 s.
* One hour of keypoints at 50 Hz through ``lift.predict``: peak resident memory of the whole process minus what is
  resident just before the call, with library, weights and keypoints loaded. The peak is that of the process's whole
  life, so this is an upper bound: what loading took for a moment counts too. Target: within 1 GB.

The matrix rate of the same run says how busy the machine was. Writes ``runs/benchmark_pipeline.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from lifting.files import atomic_write

SAMPLE = Path("data/sample.mp4")
DETECT = """
import sys
from lifting.detectors import create_detector
from lifting.video import open_video
with open_video(sys.argv[1]) as reader:
    print(sum(1 for _ in create_detector("auto").detect(frame.rgb for frame in reader)))
"""
HOUR = """
import gc, json, os, resource, sys, time
import numpy as np
import lift
from lifting.predict import default_lifter

def peak():
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):  # not Linux
        pass
    # On Linux, this would count what the parent held when it started this process, too.
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**20 if sys.platform == "darwin" else 2**10)

def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:  # not Linux
        return peak()

rng = np.random.default_rng(0)
frames, block = 180_000, 4096
points = lift.load(sys.argv[1]).people[0].keypoints.to("coco17").replace(fps=50.0)
index = np.abs((np.arange(frames) % (2 * len(points) - 2)) - len(points) + 1)
xy, score = points.xy[index], points.score[index]
for first in range(0, frames, block):
    part = xy[first : first + block]
    part += rng.standard_normal(part.shape, dtype=np.float32)
keypoints = points.replace(xy=xy, score=score)
camera = lift.Camera.from_fov(60.0, keypoints.image_size)
default_lifter().predict(keypoints.slice(0, 500), camera)  # libraries allocate their own buffers at the first call
del points, index, xy, score, part
gc.collect()
before, start = resident(), time.perf_counter()
motion = lift.predict(keypoints, camera=camera)
seconds = time.perf_counter() - start
assert np.isfinite(motion.absolute).all()
print(json.dumps(dict(before=before, growth=peak() - before, seconds=seconds)))
"""


def run(*command: str) -> tuple[float, str]:
    """Wall seconds and standard output of a command that must succeed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def make_clip(path: Path, seconds: float) -> int:
    """The sample forwards and backwards until ``seconds`` are full; returns the number of frames."""
    from lifting.video import VideoWriter, open_video

    with open_video(SAMPLE) as reader:
        frames = [frame.rgb for frame in reader]
        fps, size = reader.fps, reader.image_size
    there_and_back = frames + frames[-2:0:-1]
    count = int(seconds * fps)
    with VideoWriter(path, size, fps) as writer:
        for k in range(count):
            writer.write(there_and_back[k % len(there_and_back)])
    return count


def matrix_rate() -> float:
    """Float32 GFLOP/s of a 4096 x 1024 x 1024 product, best of eight."""
    import torch

    a, b, best = torch.randn(4096, 1024), torch.randn(1024, 1024), float("inf")
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 4096 * 1024 * 1024 / best / 1e9


def measure_run(folder: Path, seconds: float, rounds: int) -> dict:
    """Seconds of decoding and detecting alone and of ``lift run`` to ``.npz``, best of the rounds, and their ratio."""
    clip = folder / "minute.mp4"
    frames = make_clip(clip, seconds)
    detect, lift = [], []
    for _ in range(rounds):
        detect.append(run(sys.executable, "-c", DETECT, str(clip))[0])
        arguments = ("run", "--video", str(clip), "--output", str(folder / "minute.npz"))
        lift.append(run(sys.executable, "-m", "lift", *arguments)[0])
    return {
        "frames": frames, "detect_seconds": min(detect), "run_seconds": min(lift),
        "extra_percent": 100 * (min(lift) / min(detect) - 1), "run_frames_per_second": frames / min(lift),
    }  # fmt: skip


@click.command()
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--output", default="runs/benchmark_pipeline.json", show_default=True)
def main(seconds: float, rounds: int, output: str) -> None:
    """Prints the table and writes it as JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        facts = measure_run(folder, seconds, rounds)
        hour = json.loads(run(sys.executable, "-c", HOUR, str(folder / "minute.npz"))[1])
    facts["help_seconds"] = min(run(sys.executable, "-m", "lift", "--help")[0] for _ in range(5))
    facts |= {"hour_before_mb": hour["before"], "hour_growth_mb": hour["growth"], "hour_seconds": hour["seconds"]}
    facts["matrix_gflops"] = matrix_rate()
    print("| what | measured | target |\n|---|---|---|")
    print(f"| decode + detect, {facts['frames']} frames | {facts['detect_seconds']:.1f} s | |")
    print(f"| lift run to .npz | {facts['run_seconds']:.1f} s ({facts['extra_percent']:+.1f} %) | <= +10 % |")
    print(f"| lift --help | {facts['help_seconds']:.2f} s | < 0.5 s |")
    print(f"| one hour at 50 Hz, extra memory | {facts['hour_growth_mb']:.0f} MB | <= 1000 MB |")
    print(f"| one hour at 50 Hz, time | {facts['hour_seconds']:.1f} s | |")
    print(f"| matrix rate, float32 | {facts['matrix_gflops']:.0f} GFLOP/s | |")
    with atomic_write(Path(output)) as file:
        file.write(json.dumps(facts, indent=2).encode())


if __name__ == "__main__":
    main()
