"""How well motion is placed in the world: gravity, sliding feet, scale and what it costs in accuracy.

    python -m experiments.benchmark_world [--mocap data/mocap/mocap17.h5] [--views 2]

Held-out motion of `mocap17.h5` (subjects 09 and 10: walking, and soccer with its running steps; pieces under 10 s are
played forward and back until they are that long), and walking and everyday pieces of the training subjects, whose
motion the lifter has seen, though not these cameras. Static cameras of pitch 0-45 degrees, roll +-15 degrees, 3-6 m
away, field of view 60 degrees and known; 2D as noisy as in `experiments.protocol`; default lifts with the person's
height given.

Gravity: the angle between estimate and truth, and its share within the stated 2 sigma. Slip: how far ankles move in a
frame at 50 Hz while the true ankle stands (slower than 0.15 m/s, lower than 13.5 cm), before and after, and where
contact is claimed (p > 0.5), with precision and recall of these claims. Scale: stature of the motion in the world, and
median depth of the root, against the truth. MPJPE and the root error are measured in
camera axes. Writes ``runs/benchmark_world.json``.
"""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from experiments.protocol import CAMERA, IMAGE_SIZE, NOISE, SEED
from lifting.anatomy import H36M, stature
from lifting.datasets.mocap import DEFAULT_PATH, MocapPiece, read_mocap
from lifting.datasets.synthesis import CameraRanges, photograph
from lifting.files import atomic_write
from lifting.keypoints import Keypoints2D
from lifting.metrics import mpjpe
from lifting.motion import Motion, Person, Take
from lifting.predict import Lifter, default_lifter
from lifting.world import place_in_world

CAMERAS = CameraRanges((60.0, 60.0), (3.0, 6.0), (0.0, 45.0), (-15.0, 15.0), 0.0, 1.0, (16 / 9,))
FRAMES = 500
SEEN_CATEGORIES = ("walk", "everyday")
STANDING_SPEED, STANDING_HEIGHT = 0.15, 0.135  # m/s and metres, of ankles
ANKLES = H36M.indices(["left_ankle", "right_ankle"])


def pieces_of(path: str) -> dict[str, list[MocapPiece]]:
    """The pieces of each group, by name."""
    held_out = read_mocap(path, split="val", subjects=("09", "10"))
    seen = read_mocap(path, split="train", subjects=("03", "13", "14", "29"))
    return {"held out": [piece for piece in held_out if len(piece) >= 150],
            "walking and everyday, seen": [piece for piece in seen if len(piece) >= FRAMES
                                           and piece.category in SEEN_CATEGORIES]}


def lengthened(joints: np.ndarray, frames: int = FRAMES) -> np.ndarray:
    """Joints (T, 17, 3), forward and back until there are at least `frames`; at most 800 frames."""
    parts = [joints]
    while sum(map(len, parts)) < frames:
        parts.append(parts[-1][::-1][1:])
    return np.concatenate(parts)[: max(frames, min(len(joints), 800))]


def score(piece: MocapPiece, view: int, lifter: Lifter) -> dict[str, float | np.ndarray]:
    """Errors of one view of a piece."""
    truth = lengthened(piece.joints)
    rng = np.random.default_rng([SEED, view, zlib.crc32(f"world {piece.name}".encode())])
    feet = np.full((1, len(truth), 4, 3), np.nan, np.float32)
    seen = photograph(truth[None], feet, ((1.0, CAMERAS),), NOISE, rng)
    points = Keypoints2D(seen.rays[0] * CAMERA.focal + CAMERA.center, seen.scores[0], "lift17", IMAGE_SIZE, piece.fps)
    raw = lifter.lift(points, CAMERA, height=stature(truth)).motion
    times = np.arange(len(truth)) / piece.fps
    started = time.perf_counter()
    take = place_in_world(Take(piece.name, IMAGE_SIZE, piece.fps, times, CAMERA, (Person(1, points, raw),)))
    seconds = time.perf_counter() - started
    return {**compare(take, truth, seen.joints[0], seen.root[0], seen.rotation[0][:, 2]),
            "seconds per 1000 frames": 1000 * seconds / len(truth)}


def compare(take: Take, truth: np.ndarray, joints: np.ndarray, root: np.ndarray, up: np.ndarray) -> dict:
    """Errors of a placed take; truth: (T, 17, 3) in the world; joints, root and up in camera axes."""
    raw, world, about = take.people[0].motion, take.people[0].world, take.metadata["world"]
    rotation, translation = np.array(about["rotation"]), np.array(about["translation"])
    gravity = np.degrees(np.arccos(np.clip(rotation[:, 2] @ up, -1, 1)))
    speed = take.fps * np.linalg.norm(np.diff(truth[:, ANKLES], axis=0), axis=-1)
    stands = (speed < STANDING_SPEED) & (truth[1:, ANKLES, 2] < STANDING_HEIGHT)
    claimed = take.people[0].contacts[:, ::2] > 0.5
    placed = Motion(world.joints @ rotation.T, world.trajectory @ rotation.T + translation, None, H36M, take.fps)
    return {
        "gravity": gravity, "inside": float(gravity < 2 * about["sigma_degrees"]),
        "slip raw": _slip(raw.absolute)[stands], "slip world": _slip(world.absolute)[stands],
        "slip claimed": _slip(world.absolute)[claimed[1:] & claimed[:-1]], "precision": stands[claimed[1:]],
        "recall": claimed[1:][stands],
        "stature": 100 * abs(stature(world.joints) / stature(truth) - 1),
        "depth": 100 * abs(np.median(raw.trajectory[:, 2] / root[:, 2]) - 1),
        "mpjpe raw": 1000 * mpjpe(raw.joints, joints), "mpjpe world": 1000 * mpjpe(placed.joints, joints),
        "root raw": 1000 * np.linalg.norm(raw.trajectory - root, axis=-1).mean(),
        "root world": 1000 * np.linalg.norm(placed.trajectory - root, axis=-1).mean(),
    }  # fmt: skip


def _slip(joints: np.ndarray) -> np.ndarray:
    """(T - 1, 2) mm per frame."""
    return 1000 * np.linalg.norm(np.diff(joints[:, ANKLES], axis=0), axis=-1)


def summarise(scores: list[dict]) -> dict[str, float]:
    """One row of the table."""
    column = {name: np.concatenate([np.atleast_1d(score[name]) for score in scores]) for name in scores[0]}
    row = {"views": len(scores), "gravity median deg": np.median(column["gravity"]),
           "gravity 90 % deg": np.quantile(column["gravity"], 0.9), "inside 2 sigma %": 100 * column["inside"].mean(),
           "slip 95 % raw mm": np.quantile(column["slip raw"], 0.95),
           "slip 95 % mm": np.quantile(column["slip world"], 0.95),
           "slip 95 % where claimed mm": np.quantile(column["slip claimed"], 0.95),
           "precision": column["precision"].mean(), "recall": column["recall"].mean(),
           "stature error max %": column["stature"].max(), "depth error median %": np.median(column["depth"])}
    means = ("mpjpe raw", "mpjpe world", "root raw", "root world", "seconds per 1000 frames")
    return {name: round(float(value), 3) for name, value in
            {**row, **{name: column[name].mean() for name in means}}.items()}


@click.command()
@click.option("--mocap", default=DEFAULT_PATH, show_default=True, help="The motion capture file.")
@click.option("--views", default=2, show_default=True, help="Cameras per piece.")
@click.option("--output", default="runs/benchmark_world.json", show_default=True, type=click.Path(path_type=Path))
def main(mocap: str, views: int, output: Path) -> None:
    """Measure placing in the world and write the table."""
    import torch

    torch.set_num_threads(1)
    lifter, rows = default_lifter(), {}
    for group, pieces in pieces_of(mocap).items():
        jobs = [(piece, view) for piece in pieces for view in range(views)]
        rows[group] = summarise([score(*job, lifter) for job in tqdm(jobs, desc=group, disable=None)])
        click.echo(f"{group}: " + ", ".join(f"{name} {value:g}" for name, value in rows[group].items()))
    with atomic_write(output, "w") as file:
        json.dump({"weights": lifter.source, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
