"""Trains the reference TCN (Pavllo et al. 2019) on the data of the default lifter, with as many multiply-adds.

    python -m experiments.train_reference --frames 27 [--budget 1.6e14] [--mocap data/mocap/mocap17.h5]

The pose net with 1024 channels and the paper's recipe: batches of 1024 windows, one output frame each, in the strided
form; AMSGrad, dropout, decay and batch-norm momentum as `lifting.training.config`. The trajectory net is left out, so
that the whole budget goes into the joints. The stream of synthetic views is the default lifter's own: the same motion,
bodies, cameras and detector noise; several windows are cut from each view. Views become screen coordinates of the
protocol's camera, holes are filled as `lifting.predict_temporal` fills them.

The budget counts multiply-adds of forward passes, as `experiments.complexity` does; the schedule is shortened to fit.
Resumes from its folder; writes ``reference.safetensors`` there, for `experiments.benchmark_lifter --weights`.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

from experiments.complexity import multiply_adds
from experiments.protocol import CAMERA, VIEWS, benchmark_pieces, training_pieces, views
from experiments.train_lifter import FPS
from lifting.console import one_sentence_errors, say
from lifting.datasets.frame_store import fill_unseen, screen_coordinates
from lifting.datasets.mocap import DEFAULT_PATH
from lifting.datasets.synthesis import Synthesiser
from lifting.metrics import mpjpe, p_mpjpe
from lifting.models.temporal import TemporalConfig, TemporalModel, build_temporal
from lifting.models.temporal_file import TemporalWeights, describe_temporal, write_temporal
from lifting.predict_temporal import TemporalLifter
from lifting.training.config import WIDTHS, TrainConfig
from lifting.training.loop import LoopConfig, Run, fit
from lifting.training.losses import distance

BUDGET = 1.6e14
BATCH = 1024  # windows of a step
WINDOWS = 16  # cut from each view
SPARE = 133  # frames of a view beyond one window


class WindowBatches(torch.utils.data.Dataset):
    """Batch k of windows (1024, receptive field, 17, 2) and their middle joints (1024, 1, 17, 3), from the seed and k.

    The random numbers of the views are those of `experiments.train_lifter.Batches` with other sizes.
    """

    def __init__(self, synthesiser: Synthesiser, field: int, seed: int) -> None:
        self.synthesiser, self.field, self.seed = synthesiser, field, seed

    def __getitem__(self, step: int) -> list[torch.Tensor]:
        rng = np.random.default_rng([self.seed, step])
        seen = self.synthesiser(BATCH // WINDOWS, rng)
        inputs = screen(seen.rays)
        starts = rng.integers(self.synthesiser.frames - self.field + 1, size=(len(inputs), WINDOWS))
        sample, frames = np.arange(len(inputs))[:, None, None], starts[..., None] + np.arange(self.field)
        windows = inputs[sample, frames].reshape(BATCH, self.field, *inputs.shape[2:])
        middle = seen.joints[sample[..., 0], starts + self.field // 2].reshape(BATCH, 1, *seen.joints.shape[2:])
        return [torch.from_numpy(windows), torch.from_numpy(middle)]


def screen(rays: np.ndarray) -> np.ndarray:
    """Rays (N, T, 17, 2) as the screen coordinates of the protocol's camera that the reference is given."""
    pixels = rays * np.float32(CAMERA.focal) + np.float32(CAMERA.center)
    return screen_coordinates(fill_unseen(pixels), CAMERA.image_size).astype(np.float32)


def losses_of(network: TemporalModel, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The paper's loss of a batch of windows."""
    windows, joints = batch
    return {"pose": distance(network.forward_strided(windows).float(), joints).mean()}


def described(network: TemporalModel, steps: int) -> TemporalWeights:
    """The network with the header of its file."""
    return describe_temporal(
        network, None, skeleton_in="lift17", skeleton_out="h36m17", fps=FPS, licence="Apache-2.0", metrics={},
        training=f"CMU motion capture (mocap.cs.cmu.edu, NSF EIA-0196217), split 'train' without the benchmark's "
                 f"subjects; {steps} steps of synthetic views")  # fmt: skip


def quick_scores(network: nn.Module, held_out: dict[str, list]) -> dict[str, float]:
    """MPJPE and P-MPJPE in mm of the bare network on some views of the protocol."""
    lifter = TemporalLifter(described(copy.deepcopy(network), 0))
    scores = {}
    for kind, some in held_out.items():
        rows = []
        for view in some:
            joints = lifter.lift(view.keypoints, view.camera, repair=False, flip=False, refine=False).motion.joints
            rows.append((1000 * mpjpe(joints, view.truth.joints), 1000 * p_mpjpe(joints, view.truth.joints)))
        errors = np.average(rows, axis=0, weights=[len(view.truth) for view in some])
        scores |= {f"{kind}_mpjpe_mm": round(float(errors[0]), 2), f"{kind}_p_mpjpe_mm": round(float(errors[1]), 2)}
    return scores


@click.command()
@click.option("--frames", type=click.Choice(["27", "81", "243"]), required=True, help="Receptive field.")
@click.option("--budget", default=BUDGET, show_default=True, help="Multiply-adds of all forward passes.")
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--rotations", default=None, help="mocap_rot24.h5, for the feet of pieces that come without.")
@click.option("--folder", default=None, help="runs/reference_FRAMES without.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--seed", default=0, show_default=True)
@one_sentence_errors
def main(frames: str, budget: float, mocap: str, rotations: str | None, folder: str | None, device: str,
         seed: int) -> None:  # fmt: skip
    """Trains the reference and writes its weights."""
    torch.manual_seed(seed)
    config, paper = TemporalConfig(widths=WIDTHS[int(frames)]), TrainConfig()
    network, folder = build_temporal(config), Path(folder or f"runs/reference_{frames}")
    cost = 1e6 * multiply_adds(network, int(frames), "forward_strided")
    steps = max(1, round(budget / (BATCH * cost)))
    say(f"{frames} frames: {cost / 1e6:.1f} M multiply-adds per output frame, {steps} steps of {BATCH}")

    def follow(run: Run) -> None:
        epoch = paper.epoch(min(run.step, steps - 1), steps)
        run.set_learning_rate(paper.rate(epoch))
        run.network.set_norm_momentum(paper.norm_momentum(epoch, steps))

    loop = LoopConfig(steps, clip=math.inf, average=None, device=device)
    optimiser = torch.optim.Adam(network.parameters(), paper.learning_rate, amsgrad=True)
    run = Run(network, loop, folder, optimiser=optimiser, schedule=follow, settings={"budget": budget, "seed": seed})
    run.resume()
    synthesiser = Synthesiser(training_pieces(mocap, rotations), config.receptive_field + SPARE)
    loader = torch.utils.data.DataLoader(WindowBatches(synthesiser, config.receptive_field, seed), batch_size=None,
                                         sampler=range(run.step, steps), num_workers=1, prefetch_factor=4)
    held_out = {k: list(views(benchmark_pieces(mocap, k), k))[:: 4 * VIEWS] for k in ("standard", "hard")}
    fit(run, loader, losses_of, {"pose": 1.0}, lambda trained: quick_scores(trained, held_out))
    write_temporal(folder / "reference.safetensors", described(network, steps))


if __name__ == "__main__":
    main()
