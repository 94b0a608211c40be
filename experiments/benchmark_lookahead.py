"""What waiting is worth: accuracy of the causal lifter for every look-ahead, under the protocol of `benchmark_lifter`.

    python -m experiments.benchmark_lookahead [--mocap data/mocap/mocap17.h5] [--every 8]

Rows ``network`` are the bare network on every view; rows ``stream`` what a live user gets, cleaned and filtered from
past frames alone (`Lifter.stream`, here through ``predict(causal=True)``, which gives the same numbers), on every n-th
view, since that goes frame by frame. Beside them the symmetric lifter on the same views. Look-ahead in frames of 1/50
s. Writes ``runs/benchmark_lookahead.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

from experiments.benchmark_lifter import score, summary, table
from experiments.protocol import View, benchmark_pieces, views
from lifting.datasets.mocap import DEFAULT_PATH
from lifting.files import atomic_write
from lifting.motion import Motion
from lifting.predict import Lifter

Predictor = Callable[[View], Motion]


@torch.inference_mode()
def bare(lifter: Lifter, view: View, lookahead: int) -> Motion:
    """What the network alone says."""
    rays = torch.from_numpy(view.camera.rays(view.keypoints.xy).astype(np.float32))[None]
    lift = lifter.network.lift(rays, torch.from_numpy(view.keypoints.score)[None], lookahead)
    sigma = lift.log_sigma[0].exp().numpy()
    return Motion(lift.joints[0].numpy(), lift.root[0].numpy(), sigma, view.truth.skeleton, view.truth.fps)


def row(predict: Predictor, held_out: list[View]) -> dict[str, float]:
    """Means over all frames of the views."""
    return summary([score(view, predict(view)) for view in held_out])


def streamed(lifter: Lifter, lookahead: int) -> Predictor:
    """What a live user gets."""
    return lambda view: lifter.predict(view.keypoints, view.camera, causal=True, lookahead=lookahead, flip=False)


def rows_of(causal: Lifter, symmetric: Lifter, held_out: list[View], every: int) -> dict[str, dict[str, float]]:
    """All rows of one set of views."""
    some, rows = held_out[::every], {}
    for lookahead in causal.network.lookaheads:
        rows[f"network, look-ahead {lookahead}"] = row(partial(bare, causal, lookahead=lookahead), held_out)
    rows["network, symmetric"] = row(partial(bare, symmetric, lookahead=0), held_out)
    for lookahead in causal.network.lookaheads:
        rows[f"stream, look-ahead {lookahead}"] = row(streamed(causal, lookahead), some)
    rows["predict, symmetric, same views"] = row(lambda view: symmetric.predict(view.keypoints, view.camera), some)
    return rows


@click.command()
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--weights", default=None, help="Causal weights; the package's own without.")
@click.option("--every", default=8, show_default=True, help="Stream only every n-th view.")
@click.option("--output", default="runs/benchmark_lookahead.json", show_default=True)
def main(mocap: str, weights: str | None, every: int, output: str) -> None:
    """Prints the table and writes it as JSON."""
    causal, symmetric = Lifter.load(weights, causal=True), Lifter.load()
    results = {}
    for kind in ("standard", "hard"):
        held_out = list(views(benchmark_pieces(mocap, kind), kind))
        results[kind] = rows_of(causal, symmetric, held_out, every)
    print(table(results))
    with atomic_write(Path(output)) as file:
        file.write(json.dumps({"weights": causal.source, "every": every, "results": results}, indent=2).encode())


if __name__ == "__main__":
    main()
