"""How long all exports of a clip take: the target is less than 3 s for 10 s of motion, without MP4.

The clip is motion capture (--mocap, see data/README.md), or without it the person of the sample; it is placed in the
world and, with --body, fitted with a body first, which is not timed. Each format is timed from the take in memory to
the file on disk, meshes included where it needs them; "all at once" is one call of `lift.export`. Beside the wall time
stands that of the processor, which counts on a machine that does other things too.

Measured on 2 cores of a shared Xeon virtual machine, one thread, 500 frames, one person: see `experiments/README.md`.
Command: python -m experiments.benchmark_exports --body
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import lift
from lifting.cameras import Camera
from lifting.export import BODY_FORMATS, FORMATS, MOTION_FORMATS
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Person, Take
from lifting.world import place_in_world

FPS, SIZE, TARGET = 50.0, (1280, 720), 3.0
TO_CAMERA = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # a level camera that looks along +Y of the motion
FRAME_FORMATS = (".obj", ".ply")
SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample_truth.npz"  # joints in camera axes


def main() -> None:
    """Time every format and print a table; JSON goes to runs/."""
    options = parse_arguments()
    take = make_take(read_joints(options.mocap, round(options.seconds * FPS)), options.body)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(take, Path(folder), options.repeats)
    for row in rows:
        print(f"{row['format']:<14}{1000 * row['seconds']:8.0f} ms{1000 * row['processor_seconds']:8.0f} ms of a core"
              f"{row['bytes'] / 1e6:8.2f} MB")
    whole = rows[-1]
    print(f"{len(take)} frames at {FPS:g} frames/s, all at once: {whole['seconds']:.2f} s, "
          f"{whole['processor_seconds']:.2f} s of a core; the target is {TARGET:g} s")
    result = {"frames": len(take), "body": options.body, "target_s": TARGET, "formats": rows}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {options.output}")


def parse_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--mocap", type=Path, help="mocap17.h5; without, the person of the sample")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")
    parser.add_argument("--repeats", type=int, default=3, help="how often; the median counts")
    parser.add_argument("--body", action="store_true", help="fit the default body first, which takes a while")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_exports.json"))
    return parser.parse_args()


def read_joints(mocap: Path | None, frames: int) -> np.ndarray:
    """(T, 17, 3) metres, Z up: a piece of motion capture, or the person of the sample, who walks forth and back."""
    if mocap is None:
        with np.load(SAMPLE) as truth:
            joints = truth["joints"] @ TO_CAMERA
        there_and_back = np.concatenate([joints, joints[::-1]])
        return np.tile(there_and_back, (frames // len(there_and_back) + 1, 1, 1))[:frames]
    from lifting.datasets.mocap import read_mocap

    pieces = read_mocap(mocap, split="val")
    return next(piece.joints[:frames] for piece in pieces if len(piece.joints) >= frames)


def make_take(joints: np.ndarray, body: bool) -> Take:
    """The joints five metres before a level camera, as a lifted take in camera axes, placed in the world."""
    seen = (joints - joints[0, 0] + [0, 5, 0]) @ TO_CAMERA.T
    camera = Camera.from_fov(60, SIZE)
    keypoints = Keypoints2D(camera.project(seen), None, "h36m17", SIZE, FPS)
    motion = Motion(seen - seen[:, :1], seen[:, 0], np.full(seen.shape[:2], 0.05), "h36m17", FPS)
    take = place_in_world(Take("clip", SIZE, FPS, np.arange(len(seen)) / FPS, camera, (Person(1, keypoints, motion),)))
    return lift.fit_body(take) if body else take


def measure(take: Take, folder: Path, repeats: int) -> list[dict]:
    """Seconds and bytes of each format, and at last of all at once."""
    fitted = take.people[0].body is not None
    forms = {**FORMATS, **MOTION_FORMATS, **(BODY_FORMATS if fitted else {})}
    names = [f"clip.5{suffix}" if suffix in FRAME_FORMATS else f"clip{suffix}" for suffix, form in forms.items()
             if form.package is None or find_spec(form.package[0])]
    paths = [folder / name for name in names]
    rows = [{"format": path.name.removeprefix("clip"), **clock(lambda p=path: lift.export(take, p), repeats),
             "bytes": path.stat().st_size} for path in paths]
    total = sum(row["bytes"] for row in rows)
    return [*rows, {"format": "all at once", **clock(lambda: lift.export(take, paths), repeats), "bytes": total}]


def clock(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median wall time of a call, and of what the processor worked for it."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, processor = np.median(times, axis=0).tolist()
    return {"seconds": wall, "processor_seconds": processor}


if __name__ == "__main__":
    main()
