"""How well `lifting.cleaning` undoes what detectors do wrong, and what that is worth after lifting.

    OMP_NUM_THREADS=1 python -m experiments.cleaning_benchmark [--every 4] [--mocap data/mocap/mocap17.h5]

Val pieces of the protocol through its standard cameras; per-joint bias 1.5 % and jitter 0.8 % of the projected
stature, 3 % dropouts: that is the unharmed 2D. Each case harms it in one way, at 50 Hz and with every other frame only:

* **swaps** of the whole body, of the legs only or half of each, in runs. Views of which runs cover more than the
  stated share are drawn again (without such a share: half): only the majority tells which labels are right.
* **outliers**: a share of the seen joints thrown 20-60 % of the person's size away, each frame elsewhere, in runs of
  1-4 frames.
* **dropouts**: single joints in single frames; gaps of 5-60 frames; blackouts of the whole person for 1-25 frames.
* **truncation**: an image border through the view beyond which 20 % of the sightings lie, on the left, on the right or
  below; joints beyond it are unseen, or guessed: set onto the border.

Repaired: swapped frames in which the labels of all seen joints are right afterwards. False: other frames where they
are not. Outliers: thrown joints that were masked. Falsely: untouched joints that were masked. These count all views.
Then every k-th view (``--every``) is lifted (default weights, flip, no trajectory fit): the unharmed 2D, the harmed one
as it is, the harmed one cleaned; errors in mm, the ratio is P-MPJPE of the last over that of the first. Bold: target
missed. Speed: of `clean` alone, on a clip of 20,000 frames. Writes a JSON of the same rows. One thread: 9 minutes.

``--split train`` measures on the pieces that benchmark trainings may see, on which `lifting.cleaning` is tuned; the
default weights have seen them, so lift none there (``--every 0``).
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from experiments import fit_table
from experiments.fit_table import Row, Target
from experiments.paper_runs import write_json
from experiments.protocol import (
    CAMERA,
    CAMERAS,
    IMAGE_SIZE,
    NOISE,
    SEED,
    VIEWS,
    View,
    benchmark_pieces,
    training_pieces,
)
from lifting.cleaning import LEGS, UPPER, WHOLE, Cleaned, clean, exchange_sides, person_size, side_pairs
from lifting.console import one_sentence_errors, say
from lifting.datasets.detector_noise import runs
from lifting.datasets.mocap import DEFAULT_PATH, MocapPiece
from lifting.datasets.synthesis import photograph
from lifting.keypoints import Keypoints2D
from lifting.metrics import mpjpe, p_mpjpe
from lifting.motion import Motion
from lifting.predict import Lifter
from lifting.skeletons import get_skeleton

REPAIRED, FALSE = Target(95.0, at_most=False), Target(0.5)
RATIO = Target(1.05)
SPEED, SPEED_FRAMES = Target(10_000, at_most=False), 20_000
GAP, BLACKOUT = (5, 60), (1, 25)  # frames, as in `lifting.datasets.detector_noise`


@dataclass(frozen=True)
class Case:
    """One row of the table: what is wrong with the 2D. Shares are of frames; of the joints seen for outliers."""

    name: str
    swaps: float = 0.0
    swap_run: tuple[int, int] = (1, 30)
    legs_only: float = 0.0  # share of the swaps
    most: float = 0.5  # draw swaps again that touch more than this share of a view
    outliers: float = 0.0
    dropouts: float = 0.0
    gaps: float = 0.0
    blackouts: float = 0.0
    truncated: float = 0.0  # share of the sightings beyond the border
    guessed: bool = False  # joints beyond the border are set onto it instead of left out
    jitter: float = 0.008
    kind: str = "standard"


CASES = (
    Case("no errors"),
    Case("whole 3 %, runs 1-20 (protocol)", 0.03, (1, 20)),
    Case("whole 20 %", 0.20),
    Case("whole, at most 20 % of a clip", 0.15, most=0.2),
    Case("legs 3 %", 0.03, legs_only=1.0),
    Case("legs 20 %", 0.20, legs_only=1.0),
    Case("legs, at most 20 % of a clip", 0.15, legs_only=1.0, most=0.2),
    Case("half legs 3 %", 0.03, legs_only=0.5),
    Case("half legs 20 %", 0.20, legs_only=0.5),
    Case("half legs 20 %, also over half a clip", 0.20, legs_only=0.5, most=1.0),
    Case("half legs 20 %, no jitter", 0.20, legs_only=0.5, jitter=0.0),
    Case("half legs 20 %, hard cameras", 0.20, legs_only=0.5, kind="hard"),
    Case("outliers 1 %", outliers=0.01),
    Case("outliers 5 %", outliers=0.05),
    Case("outliers 1 % + whole 3 %", 0.03, (1, 20), outliers=0.01),
    Case("dropouts 20 %", dropouts=0.20),
    Case("gaps 20 %", gaps=0.20),
    Case("blackouts 10 %", blackouts=0.10),
    Case("gaps 20 % + half legs 20 %", 0.20, legs_only=0.5, gaps=0.20),
    Case("truncated, left out", truncated=0.20),
    Case("truncated, guessed", truncated=0.20, guessed=True),
    Case("truncated + half legs 20 %", 0.20, legs_only=0.5, truncated=0.20),
)


@dataclass(frozen=True)
class Harmed:
    """Keypoints with known errors: which groups were exchanged (T,), which true joints were thrown away (T, J)."""

    keypoints: Keypoints2D
    swapped: np.ndarray
    thrown: np.ndarray


def clean_views(piece: MocapPiece, kind: str, jitter: float, stride: int) -> list[View]:
    """The protocol's views of a piece without swaps, every `stride`-th frame."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"cleaning {kind} {piece.name}".encode())])
    joints = np.repeat(piece.joints[None, ::stride], VIEWS, axis=0)
    feet = np.full((*joints.shape[:2], 4, 3), np.nan, np.float32)
    noise = replace(NOISE, swap_share=0.0, jitter=(jitter, jitter))
    seen = photograph(joints, feet, ((1.0, CAMERAS[kind]),), noise, rng)
    layout, fps = get_skeleton("lift17"), piece.fps / stride
    views = []
    for k in range(VIEWS):
        pixels = seen.rays[k] * CAMERA.focal + CAMERA.center
        truth = Motion(seen.joints[k], seen.root[k], None, get_skeleton("h36m17"), fps)
        keypoints = Keypoints2D(pixels, seen.scores[k], layout, IMAGE_SIZE, fps)
        views.append(View(f"{piece.name}/{k}", keypoints, CAMERA, truth))
    return views


def draw_swaps(frames: int, case: Case, rng: np.random.Generator) -> np.ndarray:
    """(T,) uint8 as `Cleaned.swapped`."""
    shares = case.swaps * (1 - case.legs_only), case.swaps * case.legs_only
    whole, legs = (runs((1, frames, 1), share, case.swap_run, rng)[0, :, 0] for share in shares)
    return np.where(whole, WHOLE, np.where(legs, LEGS, 0)).astype(np.uint8)


def harm(keypoints: Keypoints2D, case: Case, rng: np.random.Generator) -> Harmed:
    """The keypoints with the case's errors."""
    swapped = draw_swaps(len(keypoints), case, rng)
    while np.count_nonzero(swapped) > case.most * len(swapped):
        swapped = draw_swaps(len(keypoints), case, rng)
    thrown = runs((1, *keypoints.seen.shape), case.outliers, (1, 4), rng)[0] & keypoints.seen
    angle, reach = rng.uniform(0, 2 * np.pi, thrown.shape), rng.uniform(0.2, 0.6, thrown.shape)
    offset = np.stack([np.cos(angle), np.sin(angle)], -1) * (reach * person_size(keypoints)[:, None])[..., None]
    moved = keypoints.replace(xy=keypoints.xy + np.where(thrown[..., None], offset, 0))
    moved = truncate(moved, case, rng) if case.truncated else moved
    moved = moved.replace(score=np.where(draw_unseen(moved.seen.shape, case, rng), 0, moved.score))
    return Harmed(exchange_sides(moved, swapped), swapped, thrown & moved.seen)


def draw_unseen(shape: tuple[int, int], case: Case, rng: np.random.Generator) -> np.ndarray:
    """(T, J) bool: what the detector misses."""
    frames, joints = shape
    unseen = rng.random(shape) < case.dropouts
    unseen |= runs((1, frames, joints), case.gaps, GAP, rng)[0]
    return unseen | runs((1, frames, 1), case.blackouts, BLACKOUT, rng)[0]


def truncate(keypoints: Keypoints2D, case: Case, rng: np.random.Generator) -> Keypoints2D:
    """The keypoints in an image that ends within the view on the left, on the right or below."""
    axis, sign = ((0, -1), (0, 1), (1, 1))[rng.integers(3)]
    xy, along = keypoints.xy.copy(), sign * keypoints.xy[..., axis]
    border = np.nanquantile(along, 1 - case.truncated)
    outside = along > border
    xy[..., axis] = np.where(outside, sign * border, xy[..., axis])
    return keypoints.replace(xy=xy, score=keypoints.score if case.guessed else np.where(outside, 0, keypoints.score))


def count(unharmed: Keypoints2D, harmed: Harmed, cleaned: Cleaned) -> list[int]:
    """Pairs of how many there were and how many were treated: swapped, other frames, thrown and untouched joints."""
    labelled = labelled_groups(harmed.keypoints)
    right, bad = (cleaned.swapped ^ harmed.swapped) & labelled == 0, harmed.swapped & labelled > 0
    masked = cleaned.outliers | cleaned.gaps
    fair = harmed.thrown & right[:, None]  # with wrong labels the columns are others
    untouched = unharmed.seen & ~harmed.thrown
    pairs = (bad, bad & right), (~bad, ~bad & ~right), (fair, fair & masked), (untouched, masked & ~harmed.thrown)
    return [int(part.sum()) for pair in pairs for part in pair]


def labelled_groups(keypoints: Keypoints2D) -> np.ndarray:
    """(T,) bits of the groups of which a joint is seen: of the others nobody can tell whether they are exchanged."""
    seen = [keypoints.seen[:, np.array(side_pairs(keypoints.skeleton, group)).ravel()] for group in (UPPER, LEGS)]
    return (UPPER * seen[0].any(axis=1) | LEGS * seen[1].any(axis=1)).astype(np.uint8)


def lift_errors(lifter: Lifter, view: View, harmed: Keypoints2D) -> np.ndarray:
    """(2, 3) mm: MPJPE and P-MPJPE of the unharmed 2D, of the harmed one as it is, of the harmed one cleaned."""
    inputs = (view.keypoints, False), (harmed, False), (harmed, True)
    motions = [lifter.predict(points, view.camera, repair=repair, refine=False) for points, repair in inputs]
    return 1000 * np.array([[f(motion.joints, view.truth.joints) for motion in motions] for f in (mpjpe, p_mpjpe)])


def measure(pieces: list[MocapPiece], case: Case, stride: int, lifter: Lifter | None, every: int) -> Row:
    """One row: shares over all views, errors over every `every`-th, weighted by frames; 0 or no lifter: none."""
    counts, errors, weights = np.zeros(8, int), [], []
    views = [view for piece in pieces for view in clean_views(piece, case.kind, case.jitter, stride)]
    for k, view in enumerate(tqdm(views, desc=f"{case.name}, {stride}", leave=False, disable=None)):
        rng = np.random.default_rng([SEED, zlib.crc32(f"{case.name} {view.name}".encode())])
        harmed = harm(view.keypoints, case, rng)
        counts += count(view.keypoints, harmed, clean(harmed.keypoints))
        if lifter is not None and every and k % every == 0:
            errors.append(lift_errors(lifter, view, harmed.keypoints))
            weights.append(len(view.truth))
    values = {"case": case.name, "Hz": round(pieces[0].fps / stride), "frames": int(counts[0] + counts[2])}
    values |= shares(counts)
    if errors:
        values |= error_columns(np.average(errors, axis=0, weights=weights))
    targets = {"false %": FALSE, **({"repaired %": REPAIRED, "ratio": RATIO} if case.swaps else {})}
    return Row(values, {name: target for name, target in targets.items() if name in values})


def shares(counts: np.ndarray) -> dict[str, float | None]:
    """Percentages of what `count` counted, None where there was nothing of the kind."""
    part = [100 * treated / total if total else None for total, treated in counts.reshape(4, 2).tolist()]
    swapped = 100 * counts[0] / (counts[0] + counts[2])
    return {"swapped %": float(swapped),
            **dict(zip(("repaired %", "false %", "outliers %", "falsely %"), part, strict=True))}  # fmt: skip


def error_columns(errors: np.ndarray) -> dict[str, float]:
    """Columns of (2, 3) mm as `lift_errors` gives them, and the ratio."""
    names = [f"{metric} {state}" for metric in ("MPJPE", "P-MPJPE") for state in ("unharmed", "harmed", "cleaned")]
    return {**dict(zip(names, errors.ravel().tolist(), strict=True)), "ratio": float(errors[1, 2] / errors[1, 0])}


def measure_speed(pieces: list[MocapPiece]) -> Row:
    """Frames per second of `clean` on a long harmed clip, best of three."""
    view = clean_views(max(pieces, key=len), "standard", NOISE.jitter[0], 1)[0].keypoints
    frames = np.resize(np.arange(len(view)), SPEED_FRAMES)
    clip = view.replace(xy=view.xy[frames], score=view.score[frames])
    clip = harm(clip, Case("speed", 0.03, outliers=0.01), np.random.default_rng(SEED)).keypoints
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        clean(clip)
        seconds.append(time.perf_counter() - start)
    return Row({"what": f"clean, {SPEED_FRAMES} frames", "frames/s": SPEED_FRAMES / min(seconds)}, {"frames/s": SPEED})


@click.command(help=__doc__)
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--split", type=click.Choice(["val", "train"]), default="val", show_default=True)
@click.option("--every", default=4, show_default=True, help="Lift every k-th view; 0 lifts none.")
@click.option("--case", "names", multiple=True, type=click.Choice([case.name for case in CASES]), help="Only these.")
@click.option("--output", default="runs/cleaning_benchmark.json", show_default=True)
@one_sentence_errors
def main(mocap: str, split: str, every: int, names: tuple[str, ...], output: str) -> None:
    """Print the tables and write them as JSON."""
    torch.set_num_threads(1)
    pieces = benchmark_pieces(mocap, "standard") if split == "val" else training_pieces(mocap, None)
    lifter = Lifter.load() if every else None
    cases = [case for case in CASES if not names or case.name in names]
    rows = [measure(pieces, case, stride, lifter, every) for case in cases for stride in (1, 2)]
    speed = measure_speed(pieces)
    say(fit_table.markdown(rows) + "\n\n" + fit_table.markdown([speed]))
    write_json(Path(output), {"split": split, "every": every, "weights": lifter.source if lifter else None,
                              "rows": [row.to_dict() for row in rows], "speed": speed.to_dict()})  # fmt: skip


if __name__ == "__main__":
    main()
