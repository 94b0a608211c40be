"""The tables of PHD (Zhang et al., "Predicting 3D human dynamics from video", ICCV 2019), ours beside the paper's.

    python -m experiments.lift_bodies
    python -m experiments.train_phd [--row body|no_strip]
    python -m experiments.phd_tables

On people that no network knows, in lifted motion, 25 frames/s: 15 frames are seen, 30 are told, from every 25th frame.
Errors are those of the body's H36M-17 points; PCK@0.05 is that of the image of the true points, of which there are 17,
after the best scale and shift. The paper has two data sets, Human3.6M for millimetres and Penn Action for PCK, and
image features for inputs: its numbers are for the order of the rows, not to be reached. Posed and unposed: mean error
of the mesh, of every 20th vertex. Writes ``runs/phd_tables.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch

from experiments.lift_bodies import PATH, load_bodies
from lifting.datasets.strip_windows import BodyPiece, every_window, stack_seen
from lifting.forecast_metrics import FRAMES, at_frames, future_errors, pck_2d, warped_pck_2d
from lifting.forecasters import NearestNeighbour
from lifting.headings import heading_of
from lifting.metrics import mpjpe, p_mpjpe, unposed_mesh_error
from lifting.models.strips.body import StripBody
from lifting.models.strips.files import load_strips
from lifting.models.strips.readout import BodyState
from lifting.rotations import rotvec_to_matrix
from lifting.seen_motion import SeenMotion
from lifting.strip_features import strip_features
from lifting.strips_forecaster import WEIGHTS, PhdForecaster, follow_way

CONDITION, FUTURE, EVERY = 15, 30, 25  # frames
VERTICES = 20  # every so many
MESHES = [frame - 1 for frame in FRAMES]
ROWS = {"AR on strips": WEIGHTS} | {
    name: Path(f"runs/future/phd_{row}_256_0/weights.safetensors")
    for name, row in (("no L_strip", "no_strip"), ("AR on bodies", "body"))
}
HMMR = WEIGHTS.with_name("hmmr.safetensors")
PAPER = {
    "present": {"causal": (83.9, 56.7, 80.6), "centred (HMMR)": (83.7, 56.9, 79.6)},
    "warped_mm": {"AR on strips": (57.7, 59.5, 61.1, 62.1, 65.1), "no L_strip": (56.9, 59.2, 61.1, 61.9, 65.3),
                  "AR on bodies": (57.8, 61.7, 66.7, 75.3, 82.6), "constant": (59.7, 65.3, 72.8, 84.3, 90.4),
                  "nearest neighbour": (90.3, 95.1, 100.6, 108.6, 114.2)},
    "warped_pck": {"AR on strips": (81.2, 80.0, 79.0, 78.2, 77.2), "no L_strip": (80.4, 78.7, 77.6, 76.8, 75.6),
                   "AR on bodies": (79.9, 74.3, 68.5, 61.4, 56.5), "constant": (78.3, 71.7, 64.9, 56.2, 49.7),
                   "nearest neighbour": (63.2, 61.5, 60.6, 58.7, 57.8)},
    "fifth": {"AR on strips": (61.2, 77.2), "AR on bodies": (65.9, 67.8), "constant": (65.3, None),
              "HMMR": (65.3, 67.8)},
}  # fmt: skip
"""Tables 1 (MPJPE, PA-MPJPE mm, PCK), 2 (PA-MPJPE mm; PCK, at `FRAMES`) and 3 (PA-MPJPE mm, PCK of the 5th frame)."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Windows of val motion: what is seen of them, and what is true; world axes, metres, joints about the root."""

    seen: SeenMotion
    joints: np.ndarray
    image: np.ndarray
    rotations: np.ndarray
    shape: np.ndarray

    @classmethod
    def of(cls, cuts: Sequence[BodyPiece]) -> Truth:
        """From windows of equal length."""
        seen, joints = stack_seen([cut.seen for cut in cuts]), np.stack([cut.joints for cut in cuts])
        place = seen.root_in_camera - np.einsum("nij,ntj->nti", seen.view, seen.root)
        points = joints + np.stack([cut.root for cut in cuts])[:, :, None]
        camera = np.einsum("nij,ntkj->ntki", seen.view, points) + place[:, :, None]
        rotations = rotvec_to_matrix(np.stack([cut.rotations for cut in cuts])).astype(np.float32)
        return cls(seen, joints, camera[..., :2] / camera[..., 2:], rotations, np.stack([c.shape for c in cuts]))

    def cut(self, frames: slice) -> Truth:
        """Some of the frames."""
        parts = {name: getattr(self, name)[:, frames] for name in ("joints", "image", "rotations")}
        return replace(self, seen=self.seen.cut(frames), **parts)

    def image_of(self, joints: np.ndarray) -> np.ndarray:
        """Joints (N, T, 17, 3) as the cameras see them from afar, (N, T, 17, 2)."""
        return np.einsum("nij,ntkj->ntki", self.seen.view, joints)[..., :2]


@dataclass(frozen=True, eq=False)
class Told:
    """Bodies told for frames of windows: joints (N, T, 17, 3) about the root in world axes, metres.

    vertices: (N, T, V, 3), the same of the mesh, perhaps of fewer frames. rest: (N, V, 3), the mesh of the shape.
    """

    joints: np.ndarray
    vertices: np.ndarray | None = None
    rest: np.ndarray | None = None


@torch.inference_mode()
def told(body: StripBody, state: BodyState, turn: np.ndarray, frames: Sequence[int] | slice = slice(None)) -> Told:
    """Bodies told in headings (N, T, 3, 3); the mesh of some frames, and that of the mean shape of every window."""
    chosen = torch.arange(0, body.body.body.num_vertices, VERTICES)
    rest = np.stack([body.body.body.rest_vertices(shape)[::VERTICES] for shape in state.shape.mean(1).numpy()])
    vertices = body.vertices(BodyState(*(value[:, frames] for value in state)), chosen).numpy()
    turn = turn.astype(np.float32)
    return Told(body.joints(state).numpy() @ turn, vertices @ turn[:, frames], rest)


def true_bodies(body: StripBody, truth: Truth, frames: Sequence[int] | slice = slice(None)) -> Told:
    """The same of the true bodies."""
    rotations, shape = torch.from_numpy(truth.rotations), torch.from_numpy(truth.shape)[:, None]
    shape = shape.expand(-1, rotations.shape[1], -1)
    world = np.broadcast_to(np.eye(3), (*rotations.shape[:2], 3, 3))
    return told(body, BodyState(rotations, shape, shape, shape), world, frames)


def tell(forecaster: PhdForecaster, seen: SeenMotion) -> tuple[Told, Told]:
    """The last seen frame, again and again, and the future, as a network tells them; meshes at `FRAMES`."""
    now, future = forecaster.tell(seen, FUTURE)
    turn = heading_of(seen.joints[:, -1:], seen.root[:, -1:]).rotation
    now = BodyState(*(value.expand(-1, FUTURE, *[-1] * (value.ndim - 2)) for value in now))
    return (told(forecaster.body, now, np.repeat(turn, FUTURE, 1), MESHES),
            told(forecaster.body, future, follow_way(seen, future.way.numpy())[0], MESHES))


def nearest_neighbour(bank: Sequence[BodyPiece], forecaster: PhdForecaster, seen: SeenMotion) -> Told:
    """The baseline of PHD: the future of the true motion that is most like what the network tells of the past."""
    cuts = every_window(bank, CONDITION + FUTURE, 5)
    baseline = NearestNeighbour(np.stack([c.joints for c in cuts]), np.stack([c.root for c in cuts]), CONDITION)
    with torch.inference_mode():
        state = forecaster.network(torch.from_numpy(strip_features(seen))).present
        joints = forecaster.body.joints(state).numpy() @ heading_of(seen.joints, seen.root).rotation
    return Told(baseline(SeenMotion(joints.astype(np.float32), seen.root, seen.sigma), FUTURE).joints)


def present_row(body: StripBody, state_of: Callable, pieces: Sequence[BodyPiece]) -> list[float]:
    """MPJPE, PA-MPJPE, posed and unposed mesh in mm and PCK in %, over all frames of the pieces."""
    rows, frames = [], []
    for piece in pieces:
        truth = Truth.of([piece])
        with torch.inference_mode():
            state = state_of(torch.from_numpy(strip_features(truth.seen)))
        said = told(body, state, heading_of(truth.seen.joints, truth.seen.root).rotation)
        true = true_bodies(body, truth)
        rows.append([1000 * mpjpe(said.joints, truth.joints), 1000 * p_mpjpe(said.joints, truth.joints),
                     100 * _pck(truth, said.joints).mean(), *_mesh_errors(said, true)])  # fmt: skip
        frames.append(len(piece))
    return np.average(rows, axis=0, weights=frames).round(1).tolist()


def lifted_row(pieces: Sequence[BodyPiece]) -> list[float]:
    """The same of the lifted joints that the networks read."""
    truths = [Truth.of([piece]) for piece in pieces]
    rows = [[1000 * mpjpe(t.seen.joints, t.joints), 1000 * p_mpjpe(t.seen.joints, t.joints),
             100 * _pck(t, t.seen.joints).mean()] for t in truths]  # fmt: skip
    return np.average(rows, axis=0, weights=[len(piece) for piece in pieces]).round(1).tolist()


def _pck(truth: Truth, joints: np.ndarray, warped: bool = False) -> np.ndarray:
    visible = np.ones(truth.image.shape[:-1], bool)
    return (warped_pck_2d if warped else pck_2d)(truth.image_of(joints), truth.image, visible)


def _mesh_errors(said: Told, true: Told) -> tuple[float, float]:
    """Posed and unposed mesh error, mm."""
    posed = np.linalg.norm(said.vertices - true.vertices, axis=-1).mean()
    return 1000 * posed, 1000 * np.mean([unposed_mesh_error(a, b) for a, b in zip(said.rest, true.rest, strict=True)])


def future_row(said: Told, truth: Truth, true: Told) -> dict[str, list[float]]:
    """Errors at `FRAMES`: PA-MPJPE and PCK, warped and not, MPJPE and the posed mesh, mm and %."""
    found = {
        "warped_mm": 1000 * at_frames(future_errors(said.joints, truth.joints, aligned=True, warped=True)),
        "warped_pck": 100 * at_frames(_pck(truth, said.joints, warped=True)),
        "raw_mm": 1000 * at_frames(future_errors(said.joints, truth.joints, aligned=True)),
        "raw_pck": 100 * at_frames(_pck(truth, said.joints)),
        "mpjpe_mm": 1000 * at_frames(future_errors(said.joints, truth.joints)),
    }
    if said.vertices is not None:
        found["posed_mm"] = 1000 * np.linalg.norm(said.vertices - true.vertices, axis=-1).mean((0, 2), np.float64)
    return {name: values.round(1).tolist() for name, values in found.items()}


def hmmr_fifth(network: torch.nn.Module, body: StripBody, truth: Truth) -> list[float]:
    """PA-MPJPE mm and PCK % of HMMR's readout 5 frames ahead; it sees nothing after the present."""
    seen = truth.seen.cut(slice(CONDITION))
    with torch.inference_mode():
        state = network(torch.from_numpy(strip_features(seen))).deltas[5]
        turn = heading_of(seen.joints[:, -1:], seen.root[:, -1:]).rotation
        joints = body.joints(BodyState(*(value[:, -1:] for value in state))).numpy() @ turn
    there = truth.cut(slice(CONDITION + 4, CONDITION + 5))
    return [round(1000 * p_mpjpe(joints, there.joints), 1), round(100 * _pck(there, joints).mean(), 1)]


def measure_speed(forecaster: PhdForecaster, seen: SeenMotion) -> dict[str, float]:
    """Milliseconds of one core for a step of the stream, and for 25 frames after it: best of five."""
    stream = forecaster.stream()
    frames = [seen.cut(slice(t, t + 1)) for t in range(seen.frames)]
    best = {"step_ms": np.inf, "future_ms": np.inf}
    for _ in range(5):
        start = time.process_time()
        for frame in frames:
            stream.step(frame)
        middle = time.process_time()
        stream.future(25)
        took = {"step_ms": (middle - start) / len(frames), "future_ms": time.process_time() - middle}
        best = {name: min(best[name], 1000 * value) for name, value in took.items()}
    return {name: round(value, 2) for name, value in best.items()}


def future_rows(rows: dict[str, PhdForecaster], bank: Sequence[BodyPiece], truth: Truth) -> dict[str, dict]:
    """Table 2 and more for all rows; constant and nearest neighbour start from what the first row tells."""
    first, seen, after = next(iter(rows.values())), truth.seen.cut(slice(CONDITION)), truth.cut(slice(CONDITION, None))
    true = true_bodies(first.body, after, MESHES)
    found = {}
    for name, forecaster in rows.items():
        still, future = tell(forecaster, seen)
        found[name] = future_row(future, after, true)
        if forecaster is first:
            found["constant"] = future_row(still, after, true)
            found["nearest neighbour"] = future_row(nearest_neighbour(bank, first, seen), after, true)
    return found


def report(found: dict) -> None:
    """Prints ours beside the paper's."""
    click.echo("\nTable 1, present: MPJPE, PA-MPJPE mm, PCK %, posed, unposed mesh mm | the paper's first three")
    for name, row in found["present"].items():
        click.echo(f"{name:20s} {row} | {PAPER['present'].get(name, '')}")
    for key, title in (("warped_mm", "Table 2, PA-MPJPE mm, time-warped"), ("warped_pck", "Table 2, PCK, time-warped"),
                       ("raw_mm", "PA-MPJPE mm, not warped"), ("raw_pck", "PCK, not warped"),
                       ("mpjpe_mm", "MPJPE mm, not warped"), ("posed_mm", "mesh, posed, mm")):  # fmt: skip
        click.echo(f"\n{title}, at frames {FRAMES} | the paper's")
        for name, row in found["future"].items():
            paper = PAPER.get(key, {}).get(name, "")
            click.echo(f"{name:20s} {row.get(key, '')} | {paper}")
    click.echo("\nTable 3, the 5th frame, not warped: PA-MPJPE mm, PCK % | the paper's")
    for name, row in found["fifth"].items():
        click.echo(f"{name:20s} {row} | {PAPER['fifth'].get(name, '')}")
    click.echo(f"\nmilliseconds of one core: {found['speed']}")


@click.command()
@click.option("--pieces", default=str(PATH), show_default=True)
@click.option("--output", default="runs/phd_tables.json", show_default=True)
def main(pieces: str, output: str) -> None:
    """Measures all rows whose weights are there."""
    torch.set_num_threads(1)
    val, bank = load_bodies(Path(pieces), "val"), load_bodies(Path(pieces), "train")
    rows = {name: PhdForecaster.load(path) for name, path in ROWS.items() if path.is_file()}
    first, truth = next(iter(rows.values())), Truth.of(every_window(val, CONDITION + FUTURE, EVERY))
    present = {"lifted joints": lifted_row(val)}
    present["causal"] = present_row(first.body, lambda x: first.network(x).present, val)
    future = future_rows(rows, bank, truth)
    fifth = {name: [row["raw_mm"][1], row["raw_pck"][1]] for name, row in future.items()}
    if HMMR.is_file():
        hmmr = load_strips(HMMR, "hmmr")[0]
        present["centred (HMMR)"] = present_row(first.body, lambda x: hmmr(x).present, val)
        fifth["HMMR"] = hmmr_fifth(hmmr, first.body, truth)
    found = {"windows": len(truth.joints), "present": present, "future": future, "fifth": fifth,
             "speed": measure_speed(first, val[0].seen)}  # fmt: skip
    report(found)
    Path(output).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
