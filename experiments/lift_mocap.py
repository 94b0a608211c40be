"""The motion capture as the default lifter sees it, for what learns from lifted motion: the predictors of the future.

    python -m experiments.lift_mocap [--mocap data/mocap/mocap17.h5] [--views 2]

Every piece is seen by random static cameras like those of the hard set, with the noise of `experiments.protocol`, but
other seeds, lifted with the default weights, turned into world axes with the true camera and brought to 25
frames/s. Val pieces are seen by cameras of the standard set. Writes ``runs/future/lifted.npz``.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from experiments.protocol import CAMERA, CAMERAS, IMAGE_SIZE, LEFT_OUT, NOISE
from lifting.datasets.future_windows import FuturePiece
from lifting.datasets.mocap import DEFAULT_PATH, MocapPiece, read_mocap
from lifting.datasets.synthesis import photograph
from lifting.files import atomic_write
from lifting.keypoints import Keypoints2D
from lifting.predict import Lifter, default_lifter
from lifting.seen_motion import FPS
from lifting.skeletons import get_skeleton

PATH = Path("runs/future/lifted.npz")
SEED = 25
FIELDS = ("joints", "root", "seen_joints", "seen_root", "seen_sigma")


def lift_piece(lifter: Lifter, piece: MocapPiece, views: int, kind: str) -> list[FuturePiece]:
    """A piece as it is lifted from some views."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"{kind} {piece.name}".encode())])
    joints = np.repeat(piece.joints[None], views, axis=0)
    feet = np.full((views, len(piece.joints), 4, 3), np.nan, np.float32)
    seen = photograph(joints, feet, ((1.0, CAMERAS[kind]),), NOISE, rng)
    step, made = round(piece.fps / FPS), []
    for k in range(views):
        xy = seen.rays[k] * CAMERA.focal + CAMERA.center
        keypoints = Keypoints2D(xy, seen.scores[k], get_skeleton("lift17"), IMAGE_SIZE, piece.fps)
        lifted = lifter.lift(keypoints, CAMERA).motion
        world = seen.rotation[k]  # camera from world: points as rows turn back by it
        truth, root = piece.joints - piece.joints[:, :1], piece.joints[:, 0]
        shift = root[0] - seen.root[k][0] @ world
        arrays = (truth, root, lifted.joints @ world, lifted.trajectory @ world + shift, lifted.sigma)
        made.append(FuturePiece(f"{piece.name}/{k}", *(a[::step].astype(np.float32) for a in arrays)))
    return made


def save_pieces(path: Path, pieces: dict[str, list[FuturePiece]]) -> None:
    """Writes the pieces of every split."""
    with atomic_write(path) as file:
        np.savez(file, **{f"{split}/{p.name}/{f}": getattr(p, f).astype(np.float16 if f == "seen_sigma" else np.float32)
                          for split, some in pieces.items() for p in some for f in FIELDS})  # fmt: skip


def load_pieces(path: Path, split: str) -> list[FuturePiece]:
    """The pieces of a split, as `save_pieces` wrote them."""
    with np.load(path) as data:
        names = dict.fromkeys(key.rsplit("/", 1)[0] for key in data.files if key.startswith(f"{split}/"))
        return [FuturePiece(n.split("/", 1)[1], *(data[f"{n}/{f}"].astype(np.float32) for f in FIELDS)) for n in names]


@click.command()
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--views", default=2, show_default=True, help="Views of every training piece.")
@click.option("--output", default=str(PATH), show_default=True)
def main(mocap: str, views: int, output: str) -> None:
    """Lifts all pieces."""
    lifter, pieces = default_lifter(), {}
    for split, count, kind in (("train", views, "hard"), ("val", 4, "standard")):
        some = read_mocap(mocap, split=split, exclude_subjects=LEFT_OUT)
        pieces[split] = [p for piece in tqdm(some, desc=split) for p in lift_piece(lifter, piece, count, kind)]
    save_pieces(Path(output), pieces)
    for split, some in pieces.items():
        error = np.concatenate([np.linalg.norm(p.seen_joints - p.joints, axis=-1).mean(-1) for p in some])
        click.echo(f"{split}: {len(some)} pieces, {len(error)} frames, MPJPE {1000 * error.mean():.1f} mm")


if __name__ == "__main__":
    main()
