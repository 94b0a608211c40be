"""Bodies in motion as the default lifter sees them, for what learns bodies from lifted motion: PHD, HMMR and TCMR.

    python -m experiments.lift_bodies [--rotations data/mocap/mocap_rot24.h5] [--views 2]

Every piece of motion capture that has rotations is worn by random adults of the embedded body, one per view, seen by
random static cameras (train: like those of the hard set; val: those of the standard set) with the noise of
`experiments.protocol`, and lifted with the default weights, twice: as a clip, and every frame alone, as methods for
single images see it. All at 25 frames/s in world axes, +z up. Writes ``runs/future/bodies.npz``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from tqdm import tqdm

from experiments.fit_truth import SUBJECTS, dress
from experiments.protocol import CAMERA, CAMERAS, IMAGE_SIZE, LEFT_OUT, NOISE
from lifting.body import load_body
from lifting.body.model import BodyModel
from lifting.datasets.mocap import Z_UP_FROM_Y_UP
from lifting.datasets.strip_windows import BodyPiece
from lifting.datasets.synthesis import photograph
from lifting.files import atomic_write
from lifting.keypoints import Keypoints2D
from lifting.models.lifter import Lift
from lifting.predict import Lifter, default_lifter, merge_mirrored
from lifting.rotations import matrix_to_rotvec
from lifting.seen_motion import FPS, SeenMotion
from lifting.skeletons import get_skeleton
from lifting.strips_around import HELD

PATH = Path("runs/future/bodies.npz")
SEED, SOURCE_FPS = 26, 50.0


def read_rotations(path: str) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Name, split, rotation vectors (T, 24, 3) and hips (T, 3) metres, Y up, of every piece."""
    with h5py.File(path) as file:
        for name in sorted(file):
            group, subject = file[name], str(file[name].attrs["subject"])
            if subject not in LEFT_OUT:
                rotvec = group["rotvec"][:] * group.attrs["scale"]
                yield name, "val" if subject in SUBJECTS else "train", rotvec, np.asarray(group["trans"][:], np.float64)


def make_piece(lifter: Lifter, body: BodyModel, name: str, kind: str, rotvec: np.ndarray, path: np.ndarray,
               ) -> BodyPiece:  # fmt: skip
    """Dresses, films and lifts one piece; the name seeds body, camera and noise."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"{kind} {name}".encode())])
    worn = dress(body, rotvec, path, rng)
    up = Z_UP_FROM_Y_UP.astype(np.float64)
    rotations = np.concatenate([(up @ worn.rotations[:, 0])[:, None], worn.rotations[:, 1:]], 1)
    trajectory = worn.trajectory @ up.T - [0, 0, worn.floor]
    points = body.points("h36m17", rotations, trajectory, worn.shape).astype(np.float32)
    seen, alone = film_and_lift(lifter, points, kind, rng)
    cut = slice(None, None, round(SOURCE_FPS / FPS))
    return BodyPiece(name, matrix_to_rotvec(rotations)[cut].astype(np.float32), trajectory[cut].astype(np.float32),
                     worn.shape.astype(np.float32), (points - points[:, :1])[cut], points[cut, 0], seen, alone)


def film_and_lift(
    lifter: Lifter, points: np.ndarray, kind: str, rng: np.random.Generator
) -> tuple[SeenMotion, SeenMotion]:
    """Points (T, 17, 3) metres, world, at `SOURCE_FPS`, lifted from a random view as a clip, and frame by frame."""
    views = photograph(points[None], np.full((1, len(points), 4, 3), np.nan, np.float32), ((1.0, CAMERAS[kind]),),
                       NOISE, rng)  # fmt: skip
    step, view = round(SOURCE_FPS / FPS), views.rotation[0]
    shift = points[0, 0] - views.root[0][0] @ view
    keypoints = Keypoints2D(views.rays[0] * CAMERA.focal + CAMERA.center, views.scores[0], get_skeleton("lift17"),
                            IMAGE_SIZE, SOURCE_FPS)  # fmt: skip
    lifted = lifter.lift(keypoints, CAMERA)
    cleaned = lifted.cleaned.keypoints
    rays = np.nan_to_num(CAMERA.rays(cleaned.xy)).astype(np.float32)
    scores = np.where(np.isfinite(cleaned.xy).all(-1), cleaned.score, 0).astype(np.float32)
    clip = (lifted.motion.joints, lifted.motion.trajectory, lifted.motion.sigma)
    single = lift_alone(lifter, rays[::step], scores[::step])
    cut = slice(None, None, step)
    evidence = (rays[cut], scores[cut], view, shift)
    return tuple(_seen(arrays, *evidence) for arrays in ([a[cut] for a in clip], single))


def lift_alone(lifter: Lifter, rays: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """Joints (T, 17, 3), root (T, 3) and sigma (T, 17) of every frame alone, held still: the lifter wants a clip."""
    lifts = []
    with torch.inference_mode():
        for part in zip(torch.from_numpy(rays).split(256), torch.from_numpy(scores).split(256), strict=True):
            held = [array[:, None].repeat_interleave(HELD, 1) for array in part]
            lift = lifter.network.lift(*held, 0)
            lifts.append(Lift(*(value[:, HELD // 2] for value in lift)))
    return merge_mirrored(Lift(*(torch.cat(values)[None] for values in zip(*lifts, strict=True))))


def _seen(arrays: Sequence[np.ndarray], rays: np.ndarray, scores: np.ndarray, view: np.ndarray, shift: np.ndarray,
          ) -> SeenMotion:  # fmt: skip
    joints, root, sigma = arrays
    values = (joints @ view, root @ view + shift, sigma, rays, scores, view, root)
    return SeenMotion(*(np.ascontiguousarray(value[None], dtype=np.float32) for value in values))


def save_bodies(path: Path, pieces: dict[str, list[BodyPiece]]) -> None:
    """Writes the pieces of every split, each field of all pieces as one array."""
    arrays = {}
    for split, some in pieces.items():
        arrays[f"{split}/name"] = np.array([p.name for p in some])
        arrays[f"{split}/frames"] = np.array([len(p) for p in some])
        for name in ("rotations", "trajectory", "joints", "root"):
            arrays[f"{split}/{name}"] = np.concatenate([getattr(p, name) for p in some])
        arrays[f"{split}/shape"] = np.stack([p.shape for p in some])
        for kind in ("seen", "alone"):
            for f in fields(SeenMotion):
                values = [getattr(getattr(p, kind), f.name)[0] for p in some]
                arrays[f"{split}/{kind}.{f.name}"] = np.stack(values) if f.name == "view" else np.concatenate(values)
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def load_bodies(path: Path, split: str) -> list[BodyPiece]:
    """The pieces of a split, as `save_bodies` wrote them."""
    with np.load(path) as data:
        arrays = {key.split("/", 1)[1]: data[key] for key in data.files if key.startswith(f"{split}/")}
    ends = np.cumsum(arrays["frames"])
    pieces = []
    for k, (name, stop) in enumerate(zip(arrays["name"], ends, strict=True)):
        part = slice(stop - arrays["frames"][k], stop)
        seen, alone = (SeenMotion(**{
            f.name: arrays[f"{kind}.{f.name}"][k if f.name == "view" else part][None] for f in fields(SeenMotion)
        }) for kind in ("seen", "alone"))  # fmt: skip
        values = {key: arrays[key][part] for key in ("rotations", "trajectory", "joints", "root")}
        pieces.append(BodyPiece(str(name), shape=arrays["shape"][k], seen=seen, alone=alone, **values))
    return pieces


@click.command()
@click.option("--rotations", default="data/mocap/mocap_rot24.h5", show_default=True)
@click.option("--views", default=2, show_default=True, help="Views of every training piece.")
@click.option("--output", default=str(PATH), show_default=True)
def main(rotations: str, views: int, output: str) -> None:
    """Dresses, films and lifts all pieces."""
    lifter, body, pieces = default_lifter(), load_body("lite"), {"train": [], "val": []}
    for name, split, rotvec, path in tqdm(list(read_rotations(rotations))):
        for k in range(views if split == "train" else 4):
            kind = "hard" if split == "train" else "standard"
            pieces[split].append(make_piece(lifter, body, f"{name}/{k}", kind, rotvec, path))
    save_bodies(Path(output), pieces)
    for split, some in pieces.items():
        frames, errors = sum(len(p) for p in some), []
        for kind in ("seen", "alone"):
            all_errors = [np.linalg.norm(getattr(p, kind).joints[0] - p.joints, axis=-1).mean(-1) for p in some]
            errors.append(f"{kind} {1000 * np.concatenate(all_errors).mean():.1f} mm")
        click.echo(f"{split}: {len(some)} pieces, {frames} frames, MPJPE {', '.join(errors)}")


if __name__ == "__main__":
    main()
