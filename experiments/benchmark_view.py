"""How fast the side-by-side overlay is written, and that its memory does not grow with the clip.

    python -m experiments.benchmark_view [--video CLIP ...]

* Frames/s of `lifting.view.overlay.write_overlay`, from the video file to the finished MP4 of at most 1280 x 720, with
  skeletons and with body meshes, best of five. Target: at least 30 on two cores. Beside it, the processor's time per
  frame of all threads together, which says what a busy machine hides.
* Resident memory after the first and after the last of ten passes over a clip, in one file.

Lifting and fitting, which are not timed, come first. The matrix rate of the same run says how busy the machine was.
Writes ``runs/benchmark_view.json``.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from experiments.benchmark_pipeline import matrix_rate
from lifting.files import atomic_write

SAMPLE = Path("data/sample.mp4")
ROUNDS, PASSES = 5, 10
TARGET = 30  # frames/s


def read_frames(video: Path, size: tuple[int, int], passes: int = 1) -> Iterator[tuple[float, object]]:
    """Seconds and pixels of all frames at the size that the overlay shows, as `lift run` reads them."""
    from lifting.video import open_video

    with open_video(video) as reader:
        reader.frame_size = size
        for _ in range(passes):
            yield from ((frame.time_seconds, frame.rgb) for frame in reader)


def measure_clip(video: Path, folder: Path) -> list[dict]:
    """One row with skeletons and one with meshes: size, frames, best frames/s and processor time per frame."""
    from lifting import pipeline
    from lifting.body.body_file import load_body
    from lifting.outputs import body_meshes, overlay_level
    from lifting.view.overlay import Overlay, shown_size, write_overlay

    body = load_body("lite")
    take = pipeline.run_video(video, mesh=True, body=body)
    rows = []
    for meshes in ((), body_meshes(take, body, overlay_level(body))):
        walls, cores = [], []
        for _ in range(ROUNDS):
            wall, core = time.perf_counter(), time.process_time()
            write_overlay(take, read_frames(video, shown_size(take.image_size)), folder / "overlay.mp4", meshes=meshes)
            walls.append(time.perf_counter() - wall)
            cores.append(time.process_time() - core)
        rows.append({
            "clip": video.name, "drawn": "meshes" if meshes else "skeletons", "people": len(take.people),
            "size": Overlay(take).size, "frames": len(take), "frames_per_second": len(take) / min(walls),
            "cpu_ms_per_frame": 1e3 * min(cores) / len(take),
        })  # fmt: skip
    return rows


def measure_memory(video: Path, folder: Path) -> dict:
    """Resident MB after the first and after the last pass over a clip, written to one file."""
    from lifting import pipeline
    from lifting.view.overlay import shown_size, write_overlay

    take = pipeline.run_video(video)
    resident = []

    def frames() -> Iterator[tuple[float, object]]:
        for number, frame in enumerate(read_frames(video, shown_size(take.image_size), PASSES)):
            if number % len(take) == len(take) - 1:
                resident.append(resident_mb())
            yield frame

    write_overlay(take, frames(), folder / "long.mp4")
    return {"passes": PASSES, "frames": PASSES * len(take), "first_mb": resident[0], "last_mb": resident[-1]}


def resident_mb() -> float:
    """What the process holds now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@click.command()
@click.option("--video", "videos", multiple=True, type=click.Path(path_type=Path), help="Clips beside the sample.")
@click.option("--output", default="runs/benchmark_view.json", show_default=True)
def main(videos: tuple[Path, ...], output: str) -> None:
    """Prints the table and writes it as JSON."""
    with tempfile.TemporaryDirectory() as name:
        rows = [row for video in (SAMPLE, *videos) for row in measure_clip(video, Path(name))]
        memory = measure_memory(SAMPLE, Path(name))
    print("| clip | drawn | people | size | frames/s | CPU ms/frame |\n|---|---|---|---|---|---|")
    for row in rows:
        print("| {clip} | {drawn} | {people} | {size[0]}x{size[1]} | {frames_per_second:.1f} | {cpu_ms_per_frame:.1f} |"
              .format(**row))
    print("Memory after {frames} frames {last_mb:.0f} MB, after the first pass {first_mb:.0f} MB.".format(**memory))
    rate = matrix_rate()
    print(f"Target: {TARGET} frames/s. Matrix rate, float32: {rate:.0f} GFLOP/s.")
    with atomic_write(Path(output)) as file:
        file.write(json.dumps({"rows": rows, "memory": memory, "matrix_gflops": rate}, indent=1).encode())


if __name__ == "__main__":
    main()
