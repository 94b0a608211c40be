"""Trains the default lifter on free motion capture, on two CPU cores.

    python -m experiments.train_lifter [--mocap data/mocap/mocap17.h5] [--rotations mocap_rot24.h5]

Toes and heels come from the motion file where it holds them (`experiments.convert_mocap` writes them), else from the
rotations; with neither, the network learns without feet.
Resumes from the last checkpoint of its folder. The rate is constant until three tenths of the steps are left, so a copy
of a folder can end with fewer steps: that is how one run gives weights for several budgets. Writes
``lifter.safetensors`` (float16) there. Benchmark rules: subjects that the protocol tests on are left out
(``--everything`` takes them in for weights that are not to be benchmarked).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import torch

from experiments.protocol import VIEWS, benchmark_pieces, training_pieces, views
from lifting import __version__
from lifting.checkpoints import Header, save_weights
from lifting.console import say
from lifting.datasets.mocap import DEFAULT_PATH, read_mocap
from lifting.datasets.synthesis import Synthesiser
from lifting.metrics import mpjpe, mpjve, p_mpjpe
from lifting.models import build
from lifting.models.lifter import LifterConfig, LiftNet
from lifting.training.loop import CHECKPOINT, LoopConfig, Run, fit, follow_trapezoid
from lifting.training.losses import DEFAULT_WEIGHTS, lift_losses
from lifting.training.muon import MuonAndAdamW

FPS = 50.0
LOOKAHEADS = (0, 5, 15)


class Batches(torch.utils.data.Dataset):
    """Batch k of the endless stream, a pure function of the seed and k."""

    def __init__(self, synthesiser: Synthesiser, batch: int, seed: int) -> None:
        self.synthesiser, self.batch, self.seed = synthesiser, batch, seed

    def __getitem__(self, step: int) -> list[torch.Tensor]:
        sample = self.synthesiser(self.batch, np.random.default_rng([self.seed, step]))
        return [torch.from_numpy(a) for a in (sample.rays, sample.scores, sample.joints, sample.root)]


def losses_of(network: LiftNet, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Named losses of one batch, means over the network's look-aheads."""
    device = next(network.parameters()).device
    rays, scores, joints, root = (t.to(device) for t in batch)
    lifts = network.lift_each(rays, scores)
    losses = [lift_losses(lift, joints[:, : lift.root.shape[1]], root[:, : lift.root.shape[1]]) for lift in lifts]
    return {name: sum(each[name] for each in losses) / len(losses) for name in losses[0]}


@torch.no_grad()
def quick_scores(network: LiftNet, kind: str, held_out: list, lookahead: int = 0) -> dict[str, float]:
    """MPJPE, P-MPJPE and MPJVE in mm, root error in % of depth, of the bare network on some views of the protocol."""
    network.eval()
    rows = []
    for view in held_out:
        rays = view.camera.rays(view.keypoints.xy).astype(np.float32)
        lift = network.lift(torch.from_numpy(rays)[None], torch.from_numpy(view.keypoints.score)[None], lookahead)
        joints, root = lift.joints[0].numpy(), lift.root[0].numpy()
        offset = np.linalg.norm(root - view.truth.trajectory, axis=-1) / view.truth.trajectory[:, 2]
        errors = (1000 * error(joints, view.truth.joints) for error in (mpjpe, p_mpjpe, mpjve))
        rows.append((*errors, 100 * offset.mean(), len(joints)))
    *columns, frames = np.array(rows).T
    names = (f"{kind}_{n}" for n in ("mpjpe_mm", "p_mpjpe_mm", "mpjve_mm", "root_percent"))
    return {n: round(float(np.average(c, weights=frames)), 2) for n, c in zip(names, columns, strict=True)}


@click.command()
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--rotations", default=None, help="mocap_rot24.h5, for the feet of pieces that come without.")
@click.option("--folder", default="runs/lifter", show_default=True)
@click.option("--steps", default=4780, show_default=True)
@click.option("--batch", default=48, show_default=True)
@click.option("--frames", default=160, show_default=True, help="Frames of a training window.")
@click.option("--channels", default=384, show_default=True)
@click.option("--learning-rate", default=2e-3, show_default=True)
@click.option("--causal", is_flag=True, help=f"A causal network with look-aheads of {LOOKAHEADS} frames.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--everything", is_flag=True, help="Train on the benchmark's subjects too.")
@click.option("--start", default=None, help="Folder of a run to begin with: its averaged weights, as far as they fit.")
def main(
    mocap: str, rotations: str | None, folder: str, steps: int, batch: int, frames: int, channels: int,
    learning_rate: float, causal: bool, device: str, seed: int, everything: bool, start: str | None,
) -> None:  # fmt: skip
    """Trains the default lifter and writes its weights."""
    torch.manual_seed(seed)
    pieces = read_mocap(mocap, feet=rotations) if everything else training_pieces(mocap, rotations)
    # Without later frames a network cannot take the jitter of the anchors back: it would come out in the joints.
    config = LifterConfig(
        channels=channels, causal=causal, lookaheads=LOOKAHEADS if causal else (0,), anchored=not causal
    )
    loop = LoopConfig(steps=steps, learning_rate=learning_rate, device=device)
    network = build(config)
    optimiser = MuonAndAdamW(network, loop.learning_rate, loop.weight_decay)
    run = Run(network, loop, Path(folder), optimiser=optimiser, schedule=follow_trapezoid)
    if not run.resume() and start:
        begin_with(run, torch.load(Path(start) / CHECKPOINT, weights_only=True)["averaged"])
    stream = Batches(Synthesiser(pieces, frames), batch, seed)
    loader = torch.utils.data.DataLoader(
        stream, batch_size=None, sampler=range(run.step, steps), num_workers=1, prefetch_factor=4
    )
    held_out = {k: list(views(benchmark_pieces(mocap, k), k))[:: 4 * VIEWS] for k in ("standard", "hard")}

    def evaluate(network: LiftNet) -> dict[str, float]:
        scores = {}
        for lookahead in config.lookaheads:
            before = f"lookahead{lookahead}_" if causal else ""
            for kind, some in held_out.items():
                scores |= {before + name: v for name, v in quick_scores(network, kind, some, lookahead).items()}
        return scores

    fit(run, loader, losses_of, DEFAULT_WEIGHTS, evaluate)
    export(run, config, Path(folder) / ("lifter_causal.safetensors" if causal else "lifter.safetensors"), everything)


def begin_with(run: Run, state: dict[str, torch.Tensor]) -> None:
    """Takes over the tensors of another run that have a place of the same shape here."""
    own = run.network.state_dict()
    fitting = {name: values for name, values in state.items() if name in own and own[name].shape == values.shape}
    say(f"{len(fitting)} of {len(own)} tensors are taken over")
    for network in (run.network, run.averaged):
        network.load_state_dict(own | fitting)


def export(run: Run, config: LifterConfig, path: Path, everything: bool) -> None:
    """Writes the averaged weights with their header."""
    data = "all pieces" if everything else "split 'train' without the benchmark's subjects"
    header = Header(
        kind="lifter",
        config=asdict(config),
        skeleton_in="lift17",
        skeleton_out="h36m17",
        fps=FPS,
        input="camera rays x/z, y/z of undistorted keypoints; NaN and score 0 where unseen",
        licence="Apache-2.0",
        training=f"CMU motion capture (mocap.cs.cmu.edu, NSF EIA-0196217), {data}; {run.step} steps of synthetic views",
        version=__version__,
        metrics={},
    )
    save_weights(path, run.averaged.state_dict(), header)


if __name__ == "__main__":
    main()
