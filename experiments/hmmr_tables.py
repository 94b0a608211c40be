"""HMMR's tables on bodies as the default lifter sees them (Kanazawa et al., CVPR 2019, tables 1 to 3).

    python -m experiments.lift_bodies
    python -m experiments.train_hmmr
    python -m experiments.hmmr_tables

The paper's, on images (3DPW; PCK / MPJPE / PA-MPJPE / acceleration error mm/frame^2 / mesh posed / unposed, mm):
    single view 84.1 / 130.0 / 76.7 / 37.4 / 144.9 / 24.4; without dynamics 82.6 / 139.2 / 78.4 / 15.2;
    HMMR 86.4 / 127.1 / 80.1 / 16.4 / 144.4 / 25.8; without constant shape 86.5 / 128.3 / 78.2 / 16.6 / 145.9 / 27.5;
    more 2D-only clips: 92.9 / 116.5 / 72.6 / 14.3 / 138.6 / 26.7.
From one image, PA-MPJPE of the past, the present, the future (Human3.6M): nearest neighbour 71.6 / 50.9 / 70.7,
    constant 68.6 / 58.1 / 69.3, HMMR 65.0 / 58.1 / 65.3.

Ours: val pieces of `lift_bodies` (subjects 05, 09, 10), H36M-17, root-relative; PCK is that of 2D, within 5 % of the
box after the best scale and shift. The nearest neighbour is an oracle: the true pose looks up the true pose of the
training set that is nearest after scaling, whose past and future are copied. Rows that were not trained yet are trained
first, one after the other: width 128, 8 windows (with 2D-only clips: 8 + 8), 3,000 steps, 2 to 3 minutes of one core
each; ``--rows`` takes those whose name begins so. Prints tables, writes ``runs/future/hmmr_tables.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from experiments.hmmr_windows import DELTA, seen_from
from experiments.lift_bodies import PATH, load_bodies
from experiments.train_hmmr import Recipe, real_strips, still, train
from lifting.anatomy import H36M
from lifting.body import load_body
from lifting.checkpoints import file_hash
from lifting.datasets.strip_windows import BodyPiece, StripBatch, body_flip, make_batch
from lifting.forecast_metrics import pck_2d
from lifting.headings import heading_of
from lifting.metrics import joint_errors, procrustes_align
from lifting.models.strips.body import StripBody
from lifting.models.strips.files import load_strips
from lifting.models.strips.hmmr import Hmmr
from lifting.models.strips.readout import BodyState
from lifting.strips_around import WEIGHTS
from lifting.training.strip_losses import tensors

SHIPPED, ROWS_AT = WEIGHTS, Path("runs/future/hmmr_rows")
BASE = Recipe(batch=8, width=128, dropout=0.0, bent=0.0, fast=0.0)
AMOUNTS, SEEDS = (0.0, 0.33, 0.67, 1.0), (0, 1, 2)
FILMED = replace(BASE, without=("deltas", "hallucinator"), labelled=0.25)
CLIPS = replace(BASE, without=("hallucinator",))
ROWS = {
    "weight_10": replace(FILMED, unlabelled=1.0, keypoints=10.0),
    **{f"filmed_{amount:.0%}_{seed}": replace(FILMED, unlabelled=amount, seed=seed)
       for seed in SEEDS for amount in AMOUNTS[::-1]},
    "without_variation": Recipe(4000, dropout=0.0, bent=0.0, fast=0.0, keypoints=10.0),
    "temporal": CLIPS,
    "no_constant_shape": replace(CLIPS, without=("hallucinator", "constant_shape")),
    "no_deltas": replace(CLIPS, without=("hallucinator", "deltas")),
    "local": replace(BASE, without=("context", "deltas", "hallucinator"), source="alone"),
    "temporal_alone": replace(CLIPS, source="alone"),
}  # fmt: skip
EVERY_VERTEX, EVERY_QUERY = 20, 5
METRICS = ("pck", "mpjpe_mm", "pa_mpjpe_mm", "accel_mm_frame2", "accel_m_s2", "mesh_posed_mm", "mesh_unposed_mm")


def mean_over_frames(rows: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """The means over all frames of pieces, each metric (T,) or (T - 2,)."""
    return {name: float(np.concatenate([row[name] for row in rows]).mean()) for name in rows[0]}


def to_world(joints: np.ndarray, piece: StripBatch) -> np.ndarray:
    """Joints (T, 17, 3) of one piece in world axes from headings."""
    return joints @ piece.heading[0].numpy()


def true_rays(piece: BodyPiece) -> np.ndarray:
    """Where the true joints (T, 17, 2) lie in the image, z = 1."""
    view = piece.seen.view[0]
    shift = piece.seen.root[0] - piece.seen.root_in_camera[0] @ view  # where the static camera stands
    camera = (piece.joints + (piece.root - shift)[:, None]) @ view.T
    return camera[..., :2] / camera[..., 2:]


def pose_errors(joints: np.ndarray, piece: BodyPiece) -> dict[str, np.ndarray]:
    """Errors of every frame of joints (T, 17, 3) metres, world axes; the first and the last have no acceleration."""
    acceleration = 1000 * joint_errors(np.diff(joints, 2, axis=0), np.diff(piece.joints, 2, axis=0)).mean(-1)
    flat = (joints @ piece.seen.view[0].T)[..., :2]
    return {
        "pck": 100 * pck_2d(flat, true_rays(piece), np.ones(flat.shape[:-1], bool)),
        "mpjpe_mm": 1000 * joint_errors(joints, piece.joints).mean(-1),
        "pa_mpjpe_mm": 1000 * joint_errors(procrustes_align(joints, piece.joints), piece.joints).mean(-1),
        "accel_mm_frame2": acceleration,
        "accel_m_s2": acceleration * 0.625,  # (25 / s)^2 in metres
    }


class Judge:
    """Scores of networks on the val pieces."""

    def __init__(self, bodies: Path) -> None:
        self.pieces = load_bodies(bodies, "val")
        model = load_body("lite")
        self.flip, self.body = body_flip(model.joints), StripBody(model)
        self.subset = torch.arange(0, model.num_vertices, EVERY_VERTEX)
        rest = torch.as_tensor(model.shape_directions, dtype=torch.float32)[self.subset]
        self.rest = rest - rest.mean(0)  # of the mesh at rest about its own mean, (V, 3, S)

    @torch.no_grad()
    def present(self, network: Hmmr, recipe: Recipe, hallucinated: bool = False) -> dict[str, float]:
        """The row of table 1 of a network: bodies of whole clips, or from every frame alone."""
        rows = []
        for piece in self.pieces:
            clip = tensors(make_batch([piece], self.flip, source="alone" if hallucinated else recipe.source))
            strips = real_strips(network, clip, frozenset(recipe.without))
            state = network.readout(network.hallucinator(still(clip.features)) if hallucinated else strips)
            true = state._replace(rotations=clip.rotations, shape=clip.shape[:, None].expand_as(state.shape))
            posed, unposed = self.meshes(state, true)
            rows.append(pose_errors(to_world(self.body.joints(state)[0].numpy(), clip), piece) | {
                "mesh_posed_mm": 1000 * posed.numpy(), "mesh_unposed_mm": 1000 * unposed.numpy(),
                "shape_change": state.shape[0].diff(dim=0).norm(dim=-1).numpy(),
            })  # fmt: skip
        return mean_over_frames(rows)

    def meshes(self, state: BodyState, true: BodyState) -> tuple[Tensor, Tensor]:
        """Vertex errors (T,) metres of one piece, posed with the roots together, and at rest about the means."""
        said, truth = (self.body.vertices(some, self.subset)[0] for some in (state, true))
        rest = torch.einsum("vis,ts->tvi", self.rest, state.shape[0] - true.shape[0])
        return (said - truth).norm(dim=-1).mean(-1), rest.norm(dim=-1).mean(-1)

    def lifted(self, source: str) -> dict[str, float]:
        """The same of what the networks read."""
        return mean_over_frames([pose_errors(getattr(piece, source).joints[0], piece) for piece in self.pieces])

    @torch.no_grad()
    def around(self, network: Hmmr, hallucinated: bool = True) -> dict[str, dict[str, float]]:
        """Errors of the past, the present and the future, from single frames or from clips; and of standing still."""
        ours, constant = [], []
        for piece in self.pieces:
            clip = tensors(make_batch([piece], self.flip, source="alone" if hallucinated else "seen"))
            frames = torch.arange(DELTA, len(piece) - DELTA)
            strips = network.hallucinator(still(clip.features)) if hallucinated else network.encoder(clip.features)
            lift = network.read(strips[:, frames])
            states = {-DELTA: lift.deltas[-DELTA], 0: lift.present, DELTA: lift.deltas[DELTA]}
            said = {delta: self.body.joints(state)[0].numpy() for delta, state in states.items()}
            true = {delta: seen_from(clip, frames, delta).joints[0].numpy() for delta in states}
            moved = root_moves(clip, frames)
            ours.append(_around_errors(said, true) | root_errors(lift.present.way[0], moved))
            constant.append(_around_errors(dict.fromkeys(said, said[0]), true)
                            | root_errors(torch.zeros(len(frames), 3), moved))  # fmt: skip
        return {"ours": mean_over_frames(ours), "constant": mean_over_frames(constant)}


def root_moves(clip: StripBatch, frames: Tensor) -> dict[str, Tensor]:
    """How far the true root moves until `DELTA` frames before and after, (T, 3) metres in the headings of `frames`."""
    root, heading = clip.root[0], clip.heading[0, frames]
    return {name: torch.einsum("tij,tj->ti", heading, root[frames + delta] - root[frames])
            for name, delta in (("past", -DELTA), ("future", DELTA))}  # fmt: skip


def root_errors(way: Tensor, moved: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Errors (T,) mm of a root that goes on as `way` (T, 3 or more) metres per frame says."""
    signs = {"past": -DELTA, "future": DELTA}
    return {f"root_{name}_mm": 1000 * (signs[name] * way[:, :3] - there).norm(dim=-1).numpy()
            for name, there in moved.items()}  # fmt: skip


def _around_errors(said: dict[int, np.ndarray], true: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
    errors = {}
    for name, delta in (("past", -DELTA), ("present", 0), ("future", DELTA)):
        aligned = procrustes_align(said[delta], true[delta])
        errors[f"pa_{name}_mm"] = 1000 * joint_errors(aligned, true[delta]).mean(-1)
        errors[f"{name}_mm"] = 1000 * joint_errors(said[delta], true[delta]).mean(-1)
    return errors


def true_windows(pieces: list[BodyPiece], every: int) -> np.ndarray:
    """True past, present and future (n, 3, 17, 3) metres of frames, in the heading of the present."""
    windows = []
    for piece in pieces:
        frames = np.arange(DELTA, len(piece) - DELTA, every)
        turn = heading_of(piece.joints, piece.root).rotation[frames]
        windows.append(np.stack([piece.joints[frames + d] @ np.swapaxes(turn, -1, -2) for d in (-DELTA, 0, DELTA)], 1))
    return np.concatenate(windows).astype(np.float32)


def size_of(poses: np.ndarray) -> np.ndarray:
    """Sums (n,) of the bone lengths of poses (n, 17, 3), metres."""
    bones = [(joint, parent) for joint, parent in enumerate(H36M.parents) if parent >= 0]
    return sum(np.linalg.norm(poses[:, joint] - poses[:, parent], axis=-1) for joint, parent in bones)


def nearest_neighbour(bodies: Path, queries: list[BodyPiece]) -> dict[str, float]:
    """The oracle: the true pose finds the nearest true pose of the training set, scaled, and copies its motion."""
    bank, asked = true_windows(load_bodies(bodies, "train"), 1), true_windows(queries, EVERY_QUERY)
    sizes = [size_of(windows[:, 1]) for windows in (bank, asked)]
    keys = [(windows[:, 1] / size[:, None, None]).reshape(len(windows), -1)
            for windows, size in zip((bank, asked), sizes, strict=True)]  # fmt: skip
    power = (keys[0] ** 2).sum(-1)
    best = np.concatenate([(power - 2 * part @ keys[0].T).argmin(-1) for part in np.array_split(keys[1], 32)])
    copied = bank[best] * (sizes[1] / sizes[0][best])[:, None, None, None]
    moments = {delta: k for k, delta in enumerate((-DELTA, 0, DELTA))}
    return mean_over_frames([_around_errors(*({d: w[:, k] for d, k in moments.items()} for w in (copied, asked)))])


def filmed_table(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Means over the seeds, for every amount of 2D-only clips of which there are rows."""
    table = {}
    for amount in AMOUNTS:
        rows = [found[name] for seed in SEEDS if (name := f"filmed_{amount:.0%}_{seed}") in found]
        if rows:
            table[f"{amount:.0%}"] = {name: float(np.mean([row[name] for row in rows])) for name in METRICS}
            table[f"{amount:.0%}"]["seeds"] = len(rows)
    return table


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Prints a table."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    click.echo("\n" + title + "\n" + " " * 26 + " ".join(f"{column.removesuffix('_mm'):>15}" for column in columns))
    for name, row in rows.items():
        click.echo(f"{name:26}" + " ".join(f"{row[c]:15.2f}" if c in row else " " * 15 for c in columns))


def once(weights: Path, kind: str, measure: Callable[[Hmmr], dict]) -> dict:
    """What `measure` says of the network in a file, kept beside the rows under the file's hash."""
    kept = ROWS_AT / "measured" / f"{kind}_{file_hash(weights)}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(measure(load_strips(weights, "hmmr")[0])))
    return json.loads(kept.read_text())


def present_table(judge: Judge, names: list[str]) -> dict[str, dict[str, float]]:
    """Rows of what is read, of the rows that are trained, and of the shipped weights."""
    table = {"lifted clips": judge.lifted("seen"), "frames lifted alone": judge.lifted("alone")}
    for name in names:
        if (weights := ROWS_AT / name / "weights.safetensors").exists():
            table[name] = once(weights, "present", partial(judge.present, recipe=ROWS[name]))
    for name, hallucinated in (("shipped", False), ("shipped, one frame", True)):
        measure = partial(judge.present, recipe=Recipe(), hallucinated=hallucinated)
        table[name] = once(SHIPPED, f"present_{hallucinated}", measure)
    return table


def around_table(judge: Judge, bodies: Path) -> dict[str, dict[str, float]]:
    """Past, present and future of the shipped weights, from one frame and from clips, and of what they must beat."""
    alone, clip = (once(SHIPPED, f"around_{kind}", partial(judge.around, hallucinated=kind)) for kind in (True, False))
    return {"nearest neighbour (oracle)": nearest_neighbour(bodies, judge.pieces), "constant": alone["constant"],
            "from one frame": alone["ours"], "clip: constant": clip["constant"],
            "from the clip": clip["ours"]}  # fmt: skip


@click.command()
@click.option("--bodies", type=Path, default=PATH, show_default=True)
@click.option("--rows", default="", help="Only rows whose names begin so.")
@click.option("--train-only", is_flag=True, help="Train what is missing, measure later.")
@click.option("--trained-only", is_flag=True, help="Measure what is there.")
def main(bodies: Path, rows: str, train_only: bool, trained_only: bool) -> None:
    """Trains what is missing, prints the tables and writes them as JSON."""
    names = [name for name in ROWS if name.startswith(rows)]
    for name in () if trained_only else names:
        if not (ROWS_AT / name / "scores.json").exists():
            click.echo(f"{name}: {train(ROWS[name], ROWS_AT / name, bodies)['held_out']}")
    if train_only:
        return
    judge = Judge(bodies)
    present = present_table(judge, names)
    tables = {"present": present, "around one frame": around_table(judge, bodies),
              "2D-only clips": filmed_table(present)}  # fmt: skip
    for title, table in tables.items():
        show(title, table)
    paper = " ".join(__doc__.split("\n\n")[2].split())
    (bodies.parent / "hmmr_tables.json").write_text(json.dumps({"paper": paper, **tables}, indent=1))


if __name__ == "__main__":
    main()
