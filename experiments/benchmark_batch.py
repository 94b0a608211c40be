"""A batch of 1,000 keypoint clips: start-up is paid once per worker, and two workers do nearly twice as much as one.

    OMP_NUM_THREADS=1 python -m experiments.benchmark_batch

Clips of 200 to 260 frames at 50 Hz are cut from the sample's keypoints (forwards and backwards, with noise) and lifted
by `lift run --keypoints FOLDER` in fresh processes, each worker on one thread, to one `.npz` and one report each:

* by one worker and by two, ``--rounds`` times in turn on ``--compared`` clips of the 1,000; the ratio of the rates
  in the middle 80 % of the clips (start-up left out), median of the rounds. Target: at least 1.8.
* start-up: seconds from the start of the command until every worker has finished a clip, less those of the clips. What
  a run that paid it for every clip would cost is beside it.
* all 1,000 by two workers, interrupted half way by Ctrl-C and gone on with: nothing is done twice, nothing is missing.

The ratio needs two idle cores: the processor time that each clip cost in the runs is printed to tell whether it had
them. Writes ``runs/benchmark_batch.json``.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from lifting.files import atomic_write

SAMPLE, FPS = Path("data/sample.mp4"), 50.0


def make_clips(folder: Path, count: int) -> None:
    """Clips of 200 to 260 frames cut from the sample's keypoints, with a pixel of noise."""
    from lifting.detectors.files import write_keypoints
    from lifting.evidence import detect_people

    points = detect_people(SAMPLE).people[0][1].to("coco17").replace(fps=FPS)
    rng = np.random.default_rng(0)
    for number in range(count):
        frames = np.arange(rng.integers(200, 261)) + rng.integers(len(points))
        index = np.abs(frames % (2 * len(points) - 2) - len(points) + 1)
        xy = points.xy[index] + rng.standard_normal((len(index), 17, 2), dtype=np.float32)
        write_keypoints(folder / f"clip{number:04}.npz", points.replace(xy=xy, score=points.score[index]))


def command(clips: str, output: Path, workers: int) -> list[str]:
    """The batch over a pattern of clips into a folder."""
    return [sys.executable, "-m", "lift", "run", "--keypoints", clips, "--workers", str(workers),
            "--output", str(output / "{name}.npz")]  # fmt: skip


def finish_times(output: Path, start: float) -> np.ndarray:
    """Seconds after `start` at which the clips were finished, in order."""
    return np.sort([path.stat().st_mtime - start for path in output.glob("*.report.json")])


def measure(clips: str, output: Path, workers: int) -> dict:
    """Rate in clips/s, start-up in seconds and processor seconds per clip (start-up included) of one run."""
    before, start = os.times(), time.time()
    subprocess.run(command(clips, output, workers), check=True, stdout=subprocess.DEVNULL)
    after, done = os.times(), finish_times(output, start)
    tenth = len(done) // 10
    rate = (len(done) - 1 - 2 * tenth) / (done[-1 - tenth] - done[tenth])
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return {"clips": len(done), "seconds": float(done[-1]), "rate": float(rate),
            "startup": float(done[workers - 1] - workers / rate), "busy_per_clip": busy / len(done)}  # fmt: skip


def interrupt_and_resume(clips: str, output: Path, count: int) -> dict:
    """Two workers, Ctrl-C when half is finished, and the same command again: seconds, and what the second skipped."""
    start = time.time()
    run = subprocess.Popen(command(clips, output, 2), stdout=subprocess.PIPE, start_new_session=True)
    while len(list(output.glob("*.report.json"))) < count // 2:
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the workers too
    run.communicate()
    finished = {path: path.stat().st_mtime_ns for path in output.glob("*.report.json")}
    left = [path.name for path in output.iterdir() if path.name.startswith(".")]
    said = json.loads(subprocess.run([*command(clips, output, 2), "--json"], check=True, capture_output=True).stdout)
    untouched = all(path.stat().st_mtime_ns == stamp for path, stamp in finished.items())
    return {"seconds": time.time() - start, "exit_code": run.returncode, "left_over": left, "untouched": untouched,
            "skipped": said["skipped"], "lifted": said["lifted"], "files": said["files"]}  # fmt: skip


@click.command()
@click.option("--clips", "count", default=1000, show_default=True)
@click.option("--compared", default=100, show_default=True, help="How many one worker and two are compared on.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--output", default="runs/benchmark_batch.json", show_default=True)
def main(count: int, compared: int, rounds: int, output: str) -> None:
    """Prints the table and writes it as JSON."""
    os.environ["OMP_NUM_THREADS"] = "1"
    pairs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clips").mkdir()
        (folder / "some").mkdir()
        make_clips(folder / "clips", count)
        for clip in sorted((folder / "clips").iterdir())[:compared]:
            (folder / "some" / clip.name).hardlink_to(clip)
        for number in range(rounds):
            pairs.append([measure(str(folder / "some"), folder / f"out{number}-{n}", n) for n in (1, 2)])
        (folder / "all").mkdir()
        resumed = interrupt_and_resume(str(folder / "clips"), folder / "all", count)
    ratio = statistics.median(two["rate"] / one["rate"] for one, two in pairs)
    one, two = (min((pair[k] for pair in pairs), key=lambda run: run["seconds"]) for k in (0, 1))
    print("| what | measured | target |\n|---|---|---|")
    for words, run in ((f"one worker, {compared} clips", one), ("two workers", two)):
        print(f"| {words} | {run['rate']:.2f} clips/s, {run['busy_per_clip']:.2f} s of processor each | |")
    print(f"| two against one, median of {rounds} | {ratio:.2f} | >= 1.8 |")
    every = one["startup"] * count / 60
    print(f"| start-up of a worker | {one['startup']:.1f} s; for every clip it would be {every:.0f} min | once |")
    print(f"| {count} clips, two workers, Ctrl-C half way | {resumed['seconds'] / 60:.1f} min, exit code "
          f"{resumed['exit_code']}; then {resumed['skipped']} skipped, {resumed['lifted']} lifted | all |")  # fmt: skip
    facts = {"rounds": pairs, "ratio": ratio, "resumed": resumed}
    with atomic_write(Path(output)) as file:
        file.write(json.dumps(facts, indent=2).encode())


if __name__ == "__main__":
    main()
