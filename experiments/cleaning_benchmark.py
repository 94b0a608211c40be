"""How well `lifting.cleaning` undoes swaps and finds outliers, on 2D like the lifters' protocol makes it.

    python -m experiments.cleaning_benchmark [--mocap data/mocap/mocap17.h5]

Val pieces of the protocol through its standard cameras; per-joint bias 1.5 % and jitter 0.8 % of the projected
stature, 3 % dropouts. Then known errors: swaps in 3 % or 20 % of the frames in runs of 1-20 or 1-30, whole or of the
legs only. Some pieces last half a second: where runs cover half of a view or more, they are drawn again, since nothing
but the majority tells which labels are right (one row shows the other way). Outliers: 1 % of the seen joints thrown
20-60 % of the person's size away, each frame elsewhere, in runs of 1-4 frames.

Repaired: swapped frames whose labels are all right afterwards. False: other frames whose labels were changed.
Outliers: thrown joints that were masked. Falsely: untouched joints that were masked. Writes a JSON of the same rows.

The costs of the swap search were tuned on these pieces and views (with other draws of the swaps), so these rows are no
held-out result.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, replace

import click
import numpy as np

from experiments.protocol import CAMERA, CAMERAS, IMAGE_SIZE, NOISE, SEED, VIEWS, benchmark_pieces
from lifting.cleaning import LEGS, WHOLE, clean, exchange_sides, person_size
from lifting.datasets.mocap import DEFAULT_PATH, MocapPiece
from lifting.datasets.synthesis import photograph, runs
from lifting.files import atomic_write
from lifting.keypoints import Keypoints2D
from lifting.skeletons import get_skeleton


@dataclass(frozen=True)
class Case:
    """One row of the table: what is wrong with the 2D."""

    name: str
    swap_share: float = 0.0
    swap_run: tuple[int, int] = (1, 20)
    legs_only: float = 0.0
    outlier_share: float = 0.0
    jitter: float = 0.008
    kind: str = "standard"
    minority: bool = True  # redraw until less than half of a view's frames are swapped: the majority counts as right


CASES = (
    Case("no errors"),
    Case("protocol: 3 % in runs of 1-20", 0.03),
    Case("3 %, runs 1-30, half legs only", 0.03, (1, 30), 0.5),
    Case("20 %, runs 1-30", 0.20, (1, 30)),
    Case("20 %, runs 1-30, half legs only", 0.20, (1, 30), 0.5),
    Case("the same, as drawn", 0.20, (1, 30), 0.5, minority=False),
    Case("protocol, no jitter", 0.03, jitter=0.0),
    Case("protocol, hard cameras", 0.03, kind="hard"),
    Case("outliers 1 %, swaps 3 %", 0.03, outlier_share=0.01),
)


def clean_views(piece: MocapPiece, kind: str, jitter: float, stride: int) -> list[Keypoints2D]:
    """The protocol's views of a piece without swaps, every `stride`-th frame."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"cleaning {kind} {piece.name}".encode())])
    joints = np.repeat(piece.joints[None, ::stride], VIEWS, axis=0)
    feet = np.full((*joints.shape[:2], 4, 3), np.nan, np.float32)
    noise = replace(NOISE, swap_share=0.0, jitter=(jitter, jitter))
    seen = photograph(joints, feet, ((1.0, CAMERAS[kind]),), noise, rng)
    pixels = seen.rays * CAMERA.focal + CAMERA.center
    skeleton, fps = get_skeleton("lift17"), piece.fps / stride
    return [Keypoints2D(xy, score, skeleton, IMAGE_SIZE, fps) for xy, score in zip(pixels, seen.scores, strict=True)]


def draw_swaps(frames: int, case: Case, rng: np.random.Generator) -> np.ndarray:
    """(T,) uint8 as `Cleaned.swapped`."""
    shares = case.swap_share * (1 - case.legs_only), case.swap_share * case.legs_only
    whole, legs = (runs((1, frames, 1), share, case.swap_run, rng)[0, :, 0] for share in shares)
    return np.where(whole, WHOLE, np.where(legs, LEGS, 0)).astype(np.uint8)


def disturb(keypoints: Keypoints2D, case: Case, rng: np.random.Generator) -> tuple[Keypoints2D, np.ndarray, np.ndarray]:
    """Keypoints with known errors, which groups were exchanged (T,), which true joints were thrown away (T, J)."""
    truth = draw_swaps(len(keypoints), case, rng)
    while case.minority and 2 * np.count_nonzero(truth) >= len(truth):
        truth = draw_swaps(len(keypoints), case, rng)
    thrown = runs((1, *keypoints.seen.shape), case.outlier_share, (1, 4), rng)[0] & keypoints.seen
    angle, reach = rng.uniform(0, 2 * np.pi, thrown.shape), rng.uniform(0.2, 0.6, thrown.shape)
    offset = np.stack([np.cos(angle), np.sin(angle)], -1) * (reach * person_size(keypoints)[:, None])[..., None]
    moved = keypoints.replace(xy=keypoints.xy + np.where(thrown[..., None], offset, 0))
    return exchange_sides(moved, truth), truth, thrown


def measure(pieces: list[MocapPiece], case: Case, stride: int) -> dict[str, float]:
    """One row: counts over all views, as percentages."""
    counts = np.zeros(8)
    for piece in pieces:
        for k, keypoints in enumerate(clean_views(piece, case.kind, case.jitter, stride)):
            rng = np.random.default_rng([SEED, k, zlib.crc32(f"{case.name} {piece.name}".encode())])
            disturbed, truth, thrown = disturb(keypoints, case, rng)
            cleaned = clean(disturbed)
            right, bad = cleaned.swapped == truth, truth > 0
            masked = cleaned.outliers | cleaned.gaps
            fair = thrown & right[:, None]  # with wrong labels the columns are others
            counts += [bad.sum(), (bad & right).sum(), (~bad).sum(), (~bad & ~right).sum(), fair.sum(),
                       (fair & masked).sum(), (keypoints.seen & ~thrown).sum(), (masked & ~thrown).sum()]
    shares = 100 * counts[1::2] / np.maximum(counts[::2], 1)
    names = ("repaired", "false_repairs", "outliers_removed", "falsely_removed")
    return {"frames": int(counts[0] + counts[2]), "swapped": int(counts[0]),
            **{name: round(float(share), 3) for name, share in zip(names, shares, strict=True)}}  # fmt: skip


@click.command(help=__doc__)
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--every", default=1, show_default=True, help="Use every k-th piece.")
@click.option("--output", default="runs/cleaning_benchmark.json", show_default=True)
def main(mocap: str, every: int, output: str) -> None:
    """Print the table and write it as JSON."""
    pieces = benchmark_pieces(mocap, "standard")[::every]
    rows = []
    click.echo(f"{'case':34}{'fps':>5}{'frames':>8}{'repaired %':>12}{'false %':>9}{'outliers %':>12}{'falsely %':>11}")
    for case in CASES:
        for stride in (1, 2):
            row = {"case": case.name, "fps": 50 / stride, **measure(pieces, case, stride)}
            click.echo(f"{case.name:34}{row['fps']:5.0f}{row['frames']:8}{row['repaired']:12.2f}{row['false_repairs']:9.3f}"
                       f"{row['outliers_removed']:12.2f}{row['falsely_removed']:11.4f}")
            rows.append(row)
    with atomic_write(output) as file:
        file.write(json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    main()
