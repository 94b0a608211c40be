"""The benchmark protocol of the lifters, fixed on 2026-11-21 before any tuning and not to be changed.

Motion: the pieces with ``split = val`` of ``mocap17.h5``; pieces of subject ``unknown`` are left out everywhere. Every
piece is seen by four random static cameras from a fixed seed.

* **standard**: field of view 60 degrees, 3-6 m, pitch -5 to 25 degrees, no roll.
* **hard**: pitch -20 to 60, roll -25 to 25, field of view 35 to 90 degrees; the val pieces and subjects 43, 85, 88, 90,
  94 and 135 (acrobatics, dance, martial arts), which benchmark trainings leave out.

2D: thirteen joints (nose to ankles), per-joint bias 1.5 % and jitter 0.8 % of the person's projected stature
(deviations per axis), left/right swaps in 3 % of frames in runs of 1 to 20, 3 % dropouts; no confidences beyond seen
or not.

Distance is measured to the middle of the piece's path, which lies on the optical axis; the camera moves back along its
view until every joint is at least 1 m ahead. Motion that leaves the image is still seen: the protocol tests lifting,
not detection. As methods are given the camera and nothing is cut, the field of view changes no number: every view is
drawn with one pinhole of 60 degrees.

Metrics: MPJPE, P-MPJPE in mm over all frames and joints, MPJVE in mm per frame at 50 Hz, root error in percent of
depth.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lifting.cameras import Camera
from lifting.datasets.detector_noise import NoiseModel
from lifting.datasets.mocap import MocapPiece, read_mocap
from lifting.datasets.synthesis import CameraRanges, photograph
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion
from lifting.skeletons import get_skeleton

SEED = 20261121
VIEWS = 4
HARD_SUBJECTS = ("43", "85", "88", "90", "94", "135")
LEFT_OUT = ("unknown",)
NOISE = NoiseModel()
CAMERAS = {
    "standard": CameraRanges((60.0, 60.0), (3.0, 6.0), (-5.0, 25.0), (0.0, 0.0), 0.0, 1.0, (16 / 9,)),
    "hard": CameraRanges((35.0, 90.0), (3.0, 6.0), (-20.0, 60.0), (-25.0, 25.0), 0.0, 1.0, (16 / 9,)),
}
IMAGE_SIZE = (1920, 1080)
CAMERA = Camera.from_fov(60.0, IMAGE_SIZE)  # rays are what counts: any pinhole carries them


@dataclass(frozen=True)
class View:
    """One camera's view of one piece: noisy 2D in, true motion out."""

    name: str
    keypoints: Keypoints2D
    camera: Camera
    truth: Motion


def training_pieces(path: str, rotations: str | None) -> list[MocapPiece]:
    """What benchmark trainings may see: ``split = train`` without the hard subjects and without ``unknown``."""
    return read_mocap(path, split="train", exclude_subjects=HARD_SUBJECTS + LEFT_OUT, feet=rotations)


def benchmark_pieces(path: str, kind: str) -> list[MocapPiece]:
    """The pieces a benchmark of the given kind (``standard`` or ``hard``) is run on."""
    pieces = read_mocap(path, split="val")
    if kind == "hard":
        pieces += read_mocap(path, split="train", subjects=HARD_SUBJECTS)
    return [p for p in pieces if p.subject not in LEFT_OUT]


def views(pieces: list[MocapPiece], kind: str) -> Iterator[View]:
    """Every view of every piece, the same on every machine."""
    skeleton = get_skeleton("lift17")
    for piece in pieces:
        rng = np.random.default_rng([SEED, zlib.crc32(f"{kind} {piece.name}".encode())])
        joints = np.repeat(piece.joints[None], VIEWS, axis=0)
        feet = np.full((VIEWS, len(piece.joints), 4, 3), np.nan, np.float32)
        seen = photograph(joints, feet, ((1.0, CAMERAS[kind]),), NOISE, rng)
        for k in range(VIEWS):
            xy = seen.rays[k] * CAMERA.focal + CAMERA.center
            keypoints = Keypoints2D(xy, seen.scores[k], skeleton, IMAGE_SIZE, piece.fps)
            truth = Motion(seen.joints[k], seen.root[k], None, get_skeleton("h36m17"), piece.fps)
            yield View(f"{piece.name}/{k}", keypoints, CAMERA, truth)
