"""What TCMR makes of lifted motion: refinement, filters, and the paper's ablations of residual and PoseForecast.

    python -m experiments.lift_bodies
    python -m experiments.train_tcmr
    python -m experiments.tcmr_tables [--mocap data/mocap/mocap17.h5]
    python -m experiments.tcmr_tables --ablations runs/future/tcmr_ablation

Choi et al., "Beyond static features for temporally consistent 3D human pose and shape from a video", CVPR 2021, 3DPW,
PA-MPJPE / MPJPE in mm and acceleration error in mm/frame^2:

    Table 1     residual, no PoseForecast 55.6 / - / 29.2     residual 55.0 / - / 24.9
                neither 54.2 / - / 8.7                        TCMR 53.9 / - / 7.7
    Table 2, 3  past and future see the present, too 53.8 / - / 10.3; they are supervised by nothing 55.1 / - / 8.3,
                by their neighbours 54.1 / - / 8.5, by the present frame 53.9 / - / 7.7
    Table 4     HMMR 72.6 / 116.5 / 15.2, VIBE 57.6 / 91.9 / 25.4, MEVA 54.7 / 86.9 / 11.6, TCMR 52.7 / 86.5 / 7.1
    filter      TCMR with an average filter 55.0 / 88.7 / 6.5

Ours: val pieces (subjects 05, 09 and 10: no recording of theirs was trained on) of `experiments.lift_bodies`, 25
frames/s, root-relative, all 17 joints, all frames. "network" is what TCMR tells, "refined" what `lift run --refine
tcmr` writes: the even mean of that and the lift, smoothed (`lifting.strips_refine.between`). That there is a mean, that
it is even (held-out recordings of known subjects prefer three quarters of the network) and how much is smoothed were
decided with the val rows in sight, so that those are not wholly held out for "refined". ``--mocap`` adds pieces of the
other motion capture file, whose joints are not those of a body model; the ablations are rows of
``experiments.train_tcmr --width 128 --steps 3000``, each in the folder of its name. Prints ours beside the paper's and
writes ``runs/future/tcmr_refinement.json`` or ``tcmr_ablations.json``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
from scipy.signal import savgol_filter
from torch import nn

from experiments.lift_bodies import PATH, SEED, SOURCE_FPS, film_and_lift, load_bodies
from experiments.protocol import LEFT_OUT
from lifting.body import load_body
from lifting.body.model import BodyModel
from lifting.datasets.mocap import read_mocap
from lifting.datasets.strip_windows import BodyPiece
from lifting.files import atomic_write
from lifting.forecast_metrics import body_errors
from lifting.metrics import joint_errors, procrustes_align
from lifting.models.strips.files import load_strips
from lifting.motion import BodyMotion
from lifting.one_euro import OneEuroFilter
from lifting.predict import default_lifter
from lifting.seen_motion import SeenMotion
from lifting.seen_person import FPS
from lifting.smoothing import smooth
from lifting.strips_refine import WEIGHTS, between, load_refiner, tcmr_bodies

OUTPUT = Path("runs/future")
OURS = "TCMR"
MESH_STEP = 10  # of so many frames one is compared as a mesh
ABLATIONS = {"residual_alone": (55.6, 29.2), "residual": (55.0, 24.9), "alone": (54.2, 8.7), "ours": (53.9, 7.7),
             "peek": (53.8, 10.3), "none": (55.1, 8.3), "neighbours": (54.1, 8.5)}  # fmt: skip
"""Folder of the row: PA-MPJPE and acceleration error of the paper."""
Filter = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Piece:
    """What was seen of one motion (T frames, `FPS`) and what is true: joints (T, 17, 3) metres off the root, world."""

    seen: SeenMotion
    joints: np.ndarray
    body: BodyMotion | None = None

    @property
    def lifted(self) -> np.ndarray:
        """(T, 17, 3) float64."""
        return self.seen.joints[0].astype(np.float64)


def body_pieces(pieces: list[BodyPiece], source: str) -> list[Piece]:
    """Pieces as they are lifted as clips (``seen``) or frame by frame (``alone``)."""
    return [Piece(getattr(p, source), p.joints, BodyMotion(p.rotations, p.trajectory, p.shape, "lite", FPS, "world"))
            for p in pieces]  # fmt: skip


def mocap_pieces(path: str, step: int) -> dict[str, list[Piece]]:
    """Every `step`-th val piece of the other file, from one view, by how it is lifted."""
    lifter, made = default_lifter(), {"seen": [], "alone": []}
    for piece in read_mocap(path, split="val", exclude_subjects=LEFT_OUT)[::step]:
        rng = np.random.default_rng([SEED, zlib.crc32(piece.name.encode())])
        points = piece.joints.astype(np.float32)
        truth = (points - points[:, :1])[:: round(SOURCE_FPS / FPS)]
        for name, seen in zip(made, film_and_lift(lifter, points, "standard", rng), strict=True):
            made[name].append(Piece(seen, truth))
    return made


def scores(pieces: list[Piece], joints: list[np.ndarray]) -> dict[str, float]:
    """Means over all frames: MPJPE, PA-MPJPE in mm, acceleration error in mm/frame^2 and in m/s^2."""
    errors, aligned, bends = [], [], []
    for piece, made in zip(pieces, joints, strict=True):
        truth = piece.joints.astype(np.float64)
        errors.append(joint_errors(made, truth).mean(-1))
        aligned.append(joint_errors(procrustes_align(made, truth), truth).mean(-1))
        bends.append(np.linalg.norm(np.diff(made - truth, 2, axis=0), axis=-1).mean(-1))
    mpjpe, pa, accel = (1000 * float(np.concatenate(values).mean()) for values in (errors, aligned, bends))
    return {"mpjpe": round(mpjpe, 2), "pa_mpjpe": round(pa, 2), "accel": round(accel, 2),
            "accel_m_s2": round(accel * FPS**2 / 1000, 2)}  # fmt: skip


def points_of(motion: BodyMotion, body: BodyModel) -> np.ndarray:
    """H36M-17 joints (T, 17, 3) metres off the root."""
    points = body.points("h36m17", motion.rotations, motion.trajectory, motion.shape)
    return points - points[:, :1]


def mesh_scores(pieces: list[Piece], made: list[BodyMotion], body: BodyModel) -> dict[str, float]:
    """Vertex errors in mm, posed (MPVPE) and unposed."""
    cut = [(m.replace(rotations=m.rotations[::MESH_STEP], trajectory=m.trajectory[::MESH_STEP]) for m in pair)
           for pair in zip(made, (piece.body for piece in pieces), strict=True)]  # fmt: skip
    found = [body_errors(one, truth, body) for one, truth in cut]
    return {"mpvpe": round(1000 * float(np.concatenate([e.posed for e in found]).mean()), 1),
            "unposed": round(1000 * float(np.mean([e.unposed for e in found])), 1)}  # fmt: skip


def refinement(pieces: list[Piece], told: list[BodyMotion], body: BodyModel) -> dict[str, dict[str, float]]:
    """Rows of one kind of lifts: as they are, as the network tells them, and refined."""
    network = [points_of(motion, body) for motion in told]
    refined = [between(p.lifted, made, FPS) for p, made in zip(pieces, network, strict=True)]
    rows = {"lift": scores(pieces, [p.lifted for p in pieces]), "network": scores(pieces, network),
            "refined": scores(pieces, refined)}  # fmt: skip
    if pieces[0].body is not None:
        rows["network"] |= mesh_scores(pieces, told, body)
    return rows


def one_euro(joints: np.ndarray, min_cutoff: float, beta: float) -> np.ndarray:
    """The One-Euro filter over (T, 17, 3) metres, without looking ahead."""
    euro = OneEuroFilter(min_cutoff, beta)
    return np.stack([euro.push(frame, k / FPS) for k, frame in enumerate(joints)])


def savitzky_golay(joints: np.ndarray, window: int, order: int) -> np.ndarray:
    """The filter of that window in frames over (T, 17, 3); shorter motion gets the longest one that fits."""
    window = min(window, len(joints) - 1 + len(joints) % 2)
    return savgol_filter(joints, window, min(order, window - 1), axis=0)


def filters() -> Iterator[tuple[str, str, Filter]]:
    """Every filter and setting: its name, the setting in words, what it does."""
    for window in (5, 7, 9, 13, 17, 25):
        for order in (1, 2, 3):
            yield "Savitzky-Golay", f"{window} frames, order {order}", partial(
                savitzky_golay, window=window, order=order)  # fmt: skip
    for cutoff in (0.5, 1.0, 2.0, 4.0, 8.0):
        for beta in (0.0, 0.5, 2.0, 8.0):
            yield "One-Euro", f"{cutoff:g} Hz, beta {beta:g}", partial(one_euro, min_cutoff=cutoff, beta=beta)
    for strength in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        yield "Whittaker", f"strength {strength:g}", partial(smooth, fps=FPS, strength=strength)


def filter_table(pieces: list[Piece], told: list[BodyMotion], body: BodyModel) -> list[dict]:
    """The curve of every filter over its settings, and ours, as the network tells it and refined, by smoothing."""
    network = [points_of(motion, body) for motion in told]
    rows = [{"filter": name, "setting": setting, **scores(pieces, [apply(p.lifted) for p in pieces])}
            for name, setting, apply in filters()]  # fmt: skip
    for strength in (0.4, 0.5, 0.6, 0.7, 0.8):
        refined = [between(p.lifted, made, FPS, strength) for p, made in zip(pieces, network, strict=True)]
        for name, joints in (("network", [smooth(made, FPS, strength) for made in network]), ("refined", refined)):
            rows.append({"filter": f"{OURS}, {name}", "setting": f"strength {strength:g}", **scores(pieces, joints)})
    return rows


def best_of_filters(rows: list[dict], most: float) -> dict[str, dict | None]:
    """Of each filter the calmest setting whose MPJPE is at most so many mm; None where there is none."""
    best = {}
    for name in dict.fromkeys(row["filter"] for row in rows):
        some = [row for row in rows if row["filter"] == name and row["mpjpe"] <= most]
        best[name] = min(some, key=lambda row: row["accel"], default=None)
    return best


def tell(network: nn.Module, pieces: list[Piece], body: BodyModel) -> list[BodyMotion]:
    """What a network tells of every piece."""
    return [tcmr_bodies(network, piece.seen, body) for piece in pieces]


def print_rows(title: str, rows: dict[str, dict[str, float]]) -> None:
    """One line for each row."""
    click.echo(title)
    for name, row in rows.items():
        click.echo(f"  {name:34s}" + "  ".join(f"{key} {value:6.2f}" for key, value in row.items()))


def print_filters(rows: list[dict], refined: dict[str, float]) -> None:
    """The curves, and of each filter the best setting at the MPJPE of the refined motion, and at 1 mm more than any."""
    for row in rows:
        click.echo(f"  {row['filter']:22s} {row['setting']:22s} MPJPE {row['mpjpe']:6.2f}  accel {row['accel']:6.2f}")
    least = min(row["mpjpe"] for row in rows if not row["filter"].startswith(OURS))
    for most in (refined["mpjpe"], least + 1):
        for name, row in best_of_filters(rows, most).items():
            found = "not reached" if row is None else f"accel {row['accel']:.2f} ({row['setting']})"
            click.echo(f"    MPJPE <= {most:.2f}: {name} {found}")
    click.echo(f"    as shipped: MPJPE {refined['mpjpe']:.2f}, accel {refined['accel']:.2f}")


@click.command()
@click.option("--pieces", default=str(PATH), show_default=True)
@click.option("--weights", default=str(WEIGHTS / "tcmr.safetensors"), show_default=True)
@click.option("--mocap", default=None, help="mocap17.h5: also refine lifts of joints that are no body model's.")
@click.option("--ablations", default=None, help="Folder of the ablations' folders: print these in place of all else.")
@click.option("--step", default=1, show_default=True, help="Take every so many val pieces.")
def main(pieces: str, weights: str, mocap: str | None, ablations: str | None, step: int) -> None:
    """Prints the tables."""
    body, val = load_body("lite"), load_bodies(Path(pieces), "val")[::step]
    if ablations is not None:
        save("tcmr_ablations.json", ablation_table(Path(ablations), val, body))
        return
    network, found = load_strips(weights, "tcmr")[0], {}
    for source, what in (("seen", "clips lifted as clips (the default)"), ("alone", "every frame lifted alone")):
        found[source] = refinement_and_filters(what, body_pieces(val, source), network, body)
    if mocap is not None:
        for source, some in mocap_pieces(mocap, 2).items():
            found[f"mocap17 {source}"] = refinement(some, tell(network, some, body), body)
            print_rows(f"mocap17, {source}", found[f"mocap17 {source}"])
    save("tcmr_refinement.json", found)


def save(name: str, found: dict) -> None:
    """Writes a table."""
    with atomic_write(OUTPUT / name) as file:
        file.write(json.dumps(found, indent=1).encode())


def refinement_and_filters(what: str, pieces: list[Piece], network: nn.Module, body: BodyModel) -> dict:
    """Computes and prints the rows of one kind of lifts, with and without keypoints and by HMMR, and the filters."""
    told = tell(network, pieces, body)
    rows = refinement(pieces, told, body)
    blind = [Piece(SeenMotion(p.seen.joints, p.seen.root, p.seen.sigma), p.joints) for p in pieces]
    rows["refined, without keypoints"] = refinement(blind, tell(network, blind, body), body)["refined"]
    if (WEIGHTS / "hmmr.safetensors").is_file():
        hmmr = [load_refiner("hmmr").bodies(p.seen) for p in pieces]
        rows |= {f"HMMR {name}": row for name, row in refinement(pieces, hmmr, body).items() if name != "lift"}
    print_rows(what, rows)
    curves = filter_table(pieces, told, body)
    print_filters(curves, rows["refined"])
    return {"rows": rows, "filters": curves}


def ablation_table(folder: Path, val: list[BodyPiece], body: BodyModel) -> dict[str, dict]:
    """The rows whose weights are there, single-frame lifts first, beside the paper's."""
    rows = {}
    for name, paper in ABLATIONS.items():
        path = folder / name / "tcmr.safetensors"
        if path.is_file():
            network = load_strips(path, "tcmr")[0]
            rows[name] = {source: scores(some, [points_of(told, body) for told in tell(network, some, body)])
                          for source in ("alone", "seen") for some in [body_pieces(val, source)]}  # fmt: skip
            ours = "  ".join(f"{source}: PA {row['pa_mpjpe']:.1f} MPJPE {row['mpjpe']:.1f} accel {row['accel']:.2f}"
                             for source, row in rows[name].items())  # fmt: skip
            click.echo(f"  {name:16s} {ours}   paper: PA {paper[0]} accel {paper[1]}")
    return rows


if __name__ == "__main__":
    main()
