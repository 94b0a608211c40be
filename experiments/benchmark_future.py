"""Forecasters on unseen people under one protocol: 25 frames seen, 25 to come, 25 frames/s, lifted and exact inputs.

    python -m experiments.lift_mocap
    python -m experiments.train_future --kind dct_mlp --seed 0     (also gru, pose_convolution; seeds 0, 1, 2)
    python -m experiments.benchmark_future

All windows, five frames apart, of the pieces with ``split = val`` in four views, lifted by the default weights from
noisy 2D, or exact. Tables: root-relative MPJPE at the horizons of the Human3.6M protocol, the error of the root's way
since the last seen frame, PA-MPJPE, acceleration error, NPSS, the share of errors inside sigma, and of samples the best
of k and the share of coordinates inside the central 68 %. Trained ones: mean and spread (largest less smallest) of
three seeds. On Human3.6M itself, exact inputs, 50 frames seen, published errors in mm at 80/160/320/400 ms: last pose
23.8/44.4/76.1/88.2, siMLPe 9.6/21.7/46.3/57.3.

Baselines: PHD (Zhang et al., ICCV 2019, section 5.1). The row "true motion from the seen pose" errs as the last lifted
pose does and in nothing else: what is left to whoever foresees everything and does not see through the lift. Last, the
time of one forecast beside the machine's matrix rate; the target is 30 ms. Writes ``runs/benchmark_future.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from experiments.benchmark_pipeline import matrix_rate
from experiments.lift_mocap import PATH, load_pieces
from experiments.train_future import scored_windows, split_pieces
from lifting.datasets.future_windows import SIGMA_OF_TRUTH
from lifting.files import atomic_write
from lifting.forecast_metrics import (
    HORIZONS_MS,
    at_horizons,
    best_of_samples,
    coverage,
    frame_of,
    future_errors,
    mpjpe_at,
    npss,
)
from lifting.forecasters import (
    FPS,
    WEIGHTS,
    Constant,
    ConstantVelocity,
    NearestNeighbour,
    NetworkForecaster,
    load_forecaster,
)
from lifting.metrics import acceleration_error_m_s2
from lifting.seen_motion import SeenMotion

CONTEXT, FUTURE = 25, 25
SEEDS = (0, 1, 2)
SAMPLES, OF_WINDOWS = (1, 5, 10, 50), 8  # every n-th window is sampled
AT = [frame_of(horizon, FPS) for horizon in HORIZONS_MS]
BOUND = "true motion from the seen pose"


def neighbours(pieces: Path) -> NearestNeighbour:
    """The bank: the true motion that the networks learn from, each once, windows five frames apart."""
    bank = [piece for piece in split_pieces(pieces)[0] if piece.name.endswith("/0")]
    joints, root, *_ = scored_windows(bank, CONTEXT, FUTURE)
    return NearestNeighbour(joints, root, CONTEXT)


def trained(kind: str) -> Callable[[Path], list[Any]]:
    """How the weights of a kind are loaded, from beside the pieces: of every seed that has been trained."""
    return lambda pieces: [NetworkForecaster.load(path) for seed in SEEDS
                           if (path := pieces.parent / f"{kind}_{seed}" / "weights.safetensors").exists()]  # fmt: skip


FORECASTERS: dict[str, Callable[[Path], list[Any]]] = {
    "constant": lambda pieces: [Constant()],
    "constant_velocity": lambda pieces: [ConstantVelocity()],
    "nearest_neighbour": lambda pieces: [neighbours(pieces)],
    **{kind: trained(kind) for kind in ("pose_convolution", "gru", "dct_mlp")},
    "phd": lambda pieces: [load_forecaster("phd")] if (WEIGHTS / "phd.safetensors").exists() else [],
}
"""What is compared: from the place of the pieces to one forecaster per seed."""


def seen_and_truth(pieces: Path) -> tuple[dict[str, SeenMotion], np.ndarray, np.ndarray]:
    """The pasts by the kind of input, and the true futures: joints (N, 25, 17, 3), the root's way (N, 25, 3)."""
    joints, root, *seen = scored_windows(load_pieces(pieces, "val"), CONTEXT, FUTURE)
    past, after = slice(CONTEXT), slice(CONTEXT, None)
    lifted = SeenMotion(*(array[:, past].astype(np.float32) for array in seen))
    exact = SeenMotion(joints[:, past], root[:, past], np.full_like(lifted.sigma, SIGMA_OF_TRUTH))
    return {"lifted": lifted, "exact": exact}, joints[:, after], root[:, after] - root[:, CONTEXT - 1 : CONTEXT]


def score(forecaster: Any, seen: SeenMotion, joints: np.ndarray, way: np.ndarray) -> dict[str, list[float]]:
    """All numbers of one forecaster on one kind of input."""
    said = forecaster(seen, FUTURE)
    went = said.root - seen.root[:, -1:]
    inside = np.linalg.norm(said.joints - joints, axis=-1)[..., 1:] < said.sigma[..., 1:]
    root_inside = np.linalg.norm(went - way, axis=-1) < said.sigma[..., 0]
    found = {
        "pose_mm": 1000 * mpjpe_at(said.joints, joints, FPS),
        "root_mm": 1000 * mpjpe_at(went[:, :, None], way[:, :, None], FPS),
        "aligned_mm": 1000 * future_errors(said.joints[:, AT], joints[:, AT], aligned=True).mean(0),
        "acceleration_m_s2": [acceleration_error_m_s2(said.joints, joints, FPS)],
        "npss": [npss(said.joints, joints)],
        "inside_sigma": at_horizons(inside.mean(-1), FPS),
        "root_inside_sigma": at_horizons(root_inside, FPS),
    }
    if hasattr(forecaster, "samples"):
        found |= score_samples(forecaster, seen, joints)
    return {name: np.round(np.asarray(values, float), 4).tolist() for name, values in found.items()}


def score_samples(forecaster: Any, seen: SeenMotion, joints: np.ndarray) -> dict[str, np.ndarray]:
    """Best of k at the horizons, mm, and how many coordinates lie inside the central 68 % of the most samples."""
    some = SeenMotion(*(array[::OF_WINDOWS] for array in (seen.joints, seen.root, seen.sigma)))
    truth = joints[::OF_WINDOWS]
    drawn = forecaster.samples(some, FUTURE, max(SAMPLES), np.random.default_rng(0)).joints
    found = {f"best_of_{k}_mm": 1000 * best_of_samples(drawn[:, :k], truth, FPS) for k in SAMPLES}
    return found | {"coverage": np.array([coverage(drawn[..., 1:, :], truth[..., 1:, :])])}


def summary(rows: list[dict[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """Mean and spread over seeds."""
    stacked = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {name: {"mean": values.mean(0).round(4).tolist(), "spread": np.ptp(values, 0).round(4).tolist()}
            for name, values in stacked.items()}  # fmt: skip


def table(results: dict[str, dict], title: str, columns: list[str], name: str, digits: int = 0) -> str:
    """Markdown: one row per forecaster."""
    lines = [f"\n| {title} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for who, found in results.items():
        if name in found:  # only some draw samples
            pairs = zip(found[name]["mean"], found[name]["spread"], strict=True)
            cells = [f"{mean:.{digits}f}" + (f" ({spread:.{digits}f})" if spread else "") for mean, spread in pairs]
            lines.append(f"| {who} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def print_tables(kind: str, results: dict[str, dict]) -> None:
    """All tables of one kind of input."""
    times = [f"{horizon} ms" for horizon in HORIZONS_MS]
    for title, name in (("MPJPE mm", "pose_mm"), ("root mm", "root_mm"), ("PA-MPJPE mm", "aligned_mm"),
                        *((f"best of {k}, mm", f"best_of_{k}_mm") for k in SAMPLES)):  # fmt: skip
        print(table(results, f"{kind}: {title}", times, name, 1))
    for title, name in (("inside sigma", "inside_sigma"), ("root inside sigma", "root_inside_sigma")):
        print(table(results, f"{kind}: {title}", times, name, 2))
    for title, name, digits in (("acceleration m/s²", "acceleration_m_s2", 2), ("NPSS", "npss", 3),
                                ("samples: coverage of 68 %", "coverage", 2)):  # fmt: skip
        print(table(results, kind, [title], name, digits))


def forecast_ms(forecaster: Any, seen: SeenMotion) -> float:
    """Milliseconds of one forecast for one person, best of five after a first one."""
    one, taken = SeenMotion(seen.joints[:1], seen.root[:1], seen.sigma[:1]), []
    for _ in range(6):
        start = time.perf_counter()
        forecaster(one, FUTURE)
        taken.append(1000 * (time.perf_counter() - start))
    return min(taken[1:])


@click.command()
@click.option("--pieces", default=str(PATH), show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(FORECASTERS)), help="[default: all]")
@click.option("--output", default="runs/benchmark_future.json", show_default=True)
def main(pieces: str, only: tuple[str, ...], output: str) -> None:
    """Prints the tables and writes them as JSON."""
    seen, joints, way = seen_and_truth(Path(pieces))
    made = {name: load(Path(pieces)) for name, load in FORECASTERS.items() if name in (only or FORECASTERS)}
    print(f"{len(joints)} windows; seeds: { {name: len(some) for name, some in made.items()} }")
    made = {name: some for name, some in made.items() if some}
    results = {kind: {name: summary([score(one, past, joints, way) for one in some]) for name, some in made.items()}
               for kind, past in seen.items()}  # fmt: skip
    for kind, past in seen.items():
        bound = past.joints[:, -1:] + joints - seen["exact"].joints[:, -1:]
        results[kind][BOUND] = summary([{"pose_mm": 1000 * mpjpe_at(bound, joints, FPS)}])
    for kind, rows in results.items():
        print_tables(kind, rows)
    speed = {name: round(forecast_ms(some[0], seen["lifted"]), 2) for name, some in made.items()}
    rate = matrix_rate()
    print(f"\none forecast of {FUTURE} frames, ms: {speed}; matrix rate, float32: {rate:.0f} GFLOP/s")
    facts = {"windows": len(joints), "horizons_ms": HORIZONS_MS, "results": results, "forecast_ms": speed,
             "seeds": {name: len(some) for name, some in made.items()}, "matrix_gflops": rate}  # fmt: skip
    with atomic_write(Path(output)) as file:
        file.write(json.dumps(facts, indent=1).encode())


if __name__ == "__main__":
    main()
