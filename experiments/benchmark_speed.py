"""How fast lifting is on a CPU, beside the machine's matrix rates.

    OMP_NUM_THREADS=2 python -m experiments.benchmark_speed [--weights reference.safetensors] [--rounds 5]

* The reference network with 243 frames and 1024 channels on a long sequence, with flip: `lift_sequence` as it is used,
  against the same network with plain ``nn.Conv1d`` layers in float32 and the same batch of two. Target: 1.9 times as
  fast, and no joint of any frame further off than 1 mm once both views are averaged. Without ``--weights`` the network
  is a stand-in that gives poses like a trained one: random layers, norms with the statistics of the clip, and a last
  layer fitted in closed form to what the default lifter says of the clip.
* The default lifter's network alone, without flip. Target: 20,000 frames/s.
* ``lift.predict`` from keypoints to motion with all its defaults. Target: 3,000 frames/s. The rows below it say where
  its time goes in the fastest round.

The clip is the demo's, forwards and backwards until it is long enough, with a pixel of noise, taken to be at the
lifter's own rate. Everything is repeated in turn, so that other work on the machine disturbs all alike; the fastest of
the rounds counts. Matrix rates are those of the reference's largest product. Strided training is measured by
`experiments.benchmark_training`. Writes ``runs/benchmark_speed.json``. Two CPU cores: a minute.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from experiments import fit_table
from experiments.benchmark_training import CHANNELS, MATRIX, multiply, seconds
from experiments.fit_table import Row, Target
from experiments.paper_runs import write_json
from experiments.train_reference import described
from lifting import predict
from lifting.cameras import Camera
from lifting.console import one_sentence_errors, say
from lifting.datasets.windows import fill_unseen
from lifting.demo import FOCAL, KEYPOINTS
from lifting.evidence import read_evidence
from lifting.keypoints import Keypoints2D
from lifting.models.temporal import TemporalConfig, build_temporal, lift_sequence
from lifting.predict_temporal import TemporalLifter
from lifting.training.config import WIDTHS

SEQUENCE, CLIP = 4096, 9000  # frames of the reference's sequence and of the lifters' clip
FITTED = 2000  # frames that the stand-in's last layer is fitted to
FASTER, OFF = Target(1.9, at_most=False), Target(1.0)
NETWORK, END_TO_END = Target(20_000, at_most=False), Target(3_000, at_most=False)
STAGES = {"cleaning": (predict, "clean"), "network": (predict.Lifter, "run"),
          "blind spans": (predict, "bridge_blind_spans"), "trajectory fit": (predict, "fit_trajectory"),
          "reprojection error": (predict, "reprojection_error")}  # fmt: skip


def long_clip(fps: float, frames: int = CLIP) -> tuple[Keypoints2D, Camera]:
    """The demo's keypoints in the lifter's layout, again and again; and the camera."""
    points = read_evidence(KEYPOINTS).people[0][1].to(predict.INPUT)
    index = np.abs(np.arange(frames) % (2 * len(points) - 2) - len(points) + 1)
    xy = points.xy[index] + np.random.default_rng(0).standard_normal((frames, *points.xy.shape[1:]), np.float32)
    clip = Keypoints2D(xy, points.score[index], points.skeleton, points.image_size, fps)
    return clip, Camera.from_focal(FOCAL, points.image_size)


def stand_in(clip: Keypoints2D, camera: Camera) -> TemporalLifter:
    """An untrained reference network that gives the poses of the clip."""
    net = build_temporal(TemporalConfig(widths=WIDTHS[243]))
    lifter, hidden = TemporalLifter(described(net, 0)), []
    known = clip.slice(0, FITTED)
    poses = predict.default_lifter().predict(known, camera).joints
    x = lifter.batch(features(lifter, known), flip=False)
    for module in net.modules():
        module.momentum = 1.0 if isinstance(module, nn.BatchNorm1d) else None
    hook = net.shrink.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0][0].T.double()))
    with torch.no_grad():
        net.train()(x)
        net.eval()(x)
        edge = net.receptive_field // 2
        weights = ridge(hidden[-1], torch.from_numpy(poses[edge : len(poses) - edge]).flatten(1).double())
        net.shrink.weight.copy_(weights[:-1].T[:, :, None])
        net.shrink.bias.copy_(weights[-1])
    hook.remove()
    return lifter


def ridge(hidden: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Weights (C + 1, K) that map hidden (T, C) and a one to wanted (T, K) in least squares, kept small."""
    hidden = torch.cat([hidden, torch.ones(len(hidden), 1, dtype=hidden.dtype)], dim=1)
    small = 1e-2 * hidden.square().mean() * len(hidden)
    return torch.linalg.solve(hidden.T @ hidden + small * torch.eye(hidden.shape[1]), hidden.T @ wanted)


def features(lifter: TemporalLifter, clip: Keypoints2D) -> np.ndarray:
    """What the reference network is given."""
    points = clip.to(lifter.skeleton_in)
    return lifter.features(fill_unseen(points.xy), points.score, points.image_size)


@contextmanager
def timed_stages(spent: Counter) -> Iterator[None]:
    """Counts the seconds that the stages of `lift.predict` take."""

    def timed(work: Callable, name: str) -> Callable:
        def call(*arguments: object, **options: object) -> object:
            start = time.perf_counter()
            try:
                return work(*arguments, **options)
            finally:
                spent[name] += time.perf_counter() - start
        return call

    with ExitStack() as stack:
        for name, (owner, function) in STAGES.items():
            stack.enter_context(patch.object(owner, function, timed(getattr(owner, function), name)))
        yield


def best_of(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of the fastest call of each, all called in turn."""
    for work in works.values():
        work()
    taken = [{name: seconds(work) for name, work in works.items()}
             for _ in tqdm(range(rounds), leave=False, disable=None)]  # fmt: skip
    return {name: min(one[name] for one in taken) for name in works}


def benchmark(weights: str | None, rounds: int) -> list[Row]:
    """All lines of the table."""
    own = predict.default_lifter()
    clip, camera = long_clip(own.fps)
    reference = TemporalLifter.load(weights) if weights else stand_in(clip, camera)
    x = reference.batch(features(reference, clip.slice(0, SEQUENCE)), flip=True)
    rays = camera.rays(clip.xy).astype(np.float32)
    scores = np.where(np.isfinite(rays).all(-1), clip.score, 0).astype(np.float32)
    splits = []

    def end_to_end() -> None:
        spent, start = Counter(), time.perf_counter()
        with timed_stages(spent):
            predict.predict(clip, camera=camera)
        splits.append((time.perf_counter() - start, spent))

    best = best_of({
        "plain": lambda: lift_sequence(reference.pose, x, exact=True), "fast": lambda: lift_sequence(reference.pose, x),
        "network": lambda: own.run(rays, scores, flip=False), "predict": end_to_end,
        **{name: multiply(kind) for name, kind in MATRIX.items()},
    }, rounds)  # fmt: skip
    product = 2 * 8192 * 3 * CHANNELS**2 / 1e9
    rows = [Row({"what": f"matrix product, {name}", "GFLOP/s": product / best[name]}) for name in MATRIX]
    rows += reference_rows(reference, x, best["plain"], best["fast"])
    rows.append(frame_rate("default lifter, network alone", best["network"], NETWORK))
    taken, spent = min(splits[1:], key=lambda split: split[0])
    rows.append(frame_rate("lift.predict", taken, END_TO_END))
    spent["rest"] = taken - sum(spent.values())
    return rows + [Row({"what": f"of it: {name}", "seconds": spent[name], "share %": 100 * spent[name] / taken})
                   for name in (*STAGES, "rest")]  # fmt: skip


def reference_rows(lifter: TemporalLifter, x: torch.Tensor, plain: float, fast: float) -> list[Row]:
    """The reference network in both forms."""
    exact, found = (lifter.merge(lift_sequence(lifter.pose, x, exact=exact), None)[0] for exact in (True, False))
    off = float(1000 * np.linalg.norm(found - exact, axis=-1).max())
    name = f"reference, {lifter.pose.receptive_field} frames, flip"
    values = {"times faster": plain / fast, "largest difference mm": off}
    return [Row({"what": f"{name}: Conv1d", "seconds": plain, "frames/s": SEQUENCE / plain}),
            Row({"what": f"{name}: ours", "seconds": fast, "frames/s": SEQUENCE / fast, **values},
                {"times faster": FASTER, "largest difference mm": OFF})]  # fmt: skip


def frame_rate(what: str, taken: float, target: Target) -> Row:
    """A line of frames per second of the long clip."""
    return Row({"what": what, "seconds": taken, "frames/s": CLIP / taken}, {"frames/s": target})


@click.command()
@click.option("--weights", help="Trained weights of the reference network, of any receptive field.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--output", default="runs/benchmark_speed.json", show_default=True)
@one_sentence_errors
def main(weights: str | None, rounds: int, output: str) -> None:
    """Prints the table and writes it as JSON."""
    torch.manual_seed(0)
    rows = benchmark(weights, rounds)
    say(fit_table.markdown(rows))
    write_json(Path(output), {"threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": rounds,
                              "weights": weights, "rows": [row.to_dict() for row in rows]})  # fmt: skip


if __name__ == "__main__":
    main()
