"""Windows that HMMR learns from: drawn fast, varied, and told from the present, the past and the future."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lifting.body.torch_model import rotvec_to_matrix
from lifting.datasets.strip_windows import BodyPiece, StripBatch, make_batch
from lifting.models.strips.body import StripBody
from lifting.models.strips.readout import BodyState
from lifting.strip_features import JOINT_UNIT, PARTS, SOURCE, without_evidence

FRAMES, DELTA = 20, 5  # of a window; from the present to the past and the future
LIMBS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "knee", "shoulder", "elbow"))
BLIND = 0.15  # share of windows whose keypoints the network does not see, as of motion from other tools


class PreparedWindows:
    """What `StripWindows` draws with headings of every frame, at a fifth of the time: pieces are prepared only once.

    With `fast` above 0 this share of the windows is played at double speed, and pieces in which people move twice as
    fast are drawn twice as often: a quarter of all frames is slow tai chi, where the future is like the present.
    Other than there, the way in the first frame of a window is that from the frame before it, if there is one. In
    `BLIND` of them the features tell nothing of the keypoints; the losses still see these.
    """

    def __init__(self, known: list[BodyPiece], filmed: list[BodyPiece], flip: np.ndarray, source: str,
                 fast: float = 0.0) -> None:  # fmt: skip
        pieces, self.fast = [*known, *filmed], fast
        batches = [make_batch([piece], flip, source=source, mirror=np.array([mirror]))
                   for mirror in (False, True) for piece in pieces]  # fmt: skip
        self.values = {name: np.concatenate([getattr(batch, name)[0] for batch in batches])
                       for name in StripBatch._fields if name not in ("shape", "labelled")}  # fmt: skip
        self.shape = np.concatenate([np.repeat(piece.shape[None], len(piece), 0) for piece in pieces])
        lengths = np.array([len(piece) for piece in pieces])
        self.frames, ends = int(lengths.sum()), lengths.cumsum()
        self.end = np.repeat(ends, lengths)  # of the piece of every frame
        places = [np.arange(end - length, end - FRAMES + 1) for length, end in zip(lengths, ends, strict=True)]
        odds = [np.full(len(some), speed_of(piece) if fast else 1.0)
                for some, piece in zip(places, pieces, strict=True)]  # fmt: skip
        self.kinds = [tuple(np.concatenate(values[kind]) for values in (places, odds))
                      for kind in (slice(len(known)), slice(len(known), None)) if places[kind]]  # fmt: skip

    def __call__(self, batch: int, rng: np.random.Generator) -> StripBatch:
        """So many windows with 3D labels and, if there are any, as many that are 2D-only clips."""
        start = np.concatenate([places[_draw(odds, batch, rng)] for places, odds in self.kinds])
        fits = start + 2 * (FRAMES - 1) < self.end[start]
        pace = 1 + ((rng.random(len(start)) < self.fast) & fits)[:, None]
        frames = (start + self.frames * rng.integers(2, size=len(start)))[:, None] + pace * np.arange(FRAMES)
        labelled = (np.arange(len(start)) < batch).astype(np.float32)
        drawn = {name: value[frames] for name, value in self.values.items()}
        blind = (rng.random(len(start)) < BLIND)[:, None, None]
        drawn["features"] = np.where(blind, without_evidence(drawn["features"]), drawn["features"])
        drawn["features"][..., -PARTS["way"] :] *= pace[..., None]
        drawn["way"] = drawn["way"] * pace[..., None].astype(np.float32)
        return StripBatch(**drawn, shape=self.shape[start], labelled=labelled)


def speed_of(piece: BodyPiece) -> float:
    """Mean way of the lifted joints in `DELTA` frames, metres."""
    joints = piece.seen.joints[0]
    return float(np.linalg.norm(joints[DELTA:] - joints[:-DELTA], axis=-1).mean())


def _draw(odds: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    total = np.cumsum(odds)
    return np.searchsorted(total, rng.random(count) * total[-1])


def at_frames(batch: StripBatch, frames: Tensor) -> StripBatch:
    """Some of the frames of a batch of tensors."""
    kept = {"shape": batch.shape, "labelled": batch.labelled}
    return StripBatch(**{name: value[:, frames] for name, value in batch._asdict().items() if name not in kept}, **kept)


def seen_from(batch: StripBatch, frames: Tensor, delta: int) -> StripBatch:
    """What is true `delta` frames after `frames`, told in the headings of `frames`: what a delta readout has to say.

    A delta readout keeps the way of the present.
    """
    here, there = at_frames(batch, frames), at_frames(batch, frames + delta)
    turn = here.heading @ there.heading.mT
    rotations = torch.cat([turn[:, :, None] @ there.rotations[:, :, :1], there.rotations[:, :, 1:]], 2)
    return there._replace(rotations=rotations, joints=there.joints @ turn.mT, camera=here.camera, heading=here.heading,
                          way=here.way)  # fmt: skip


def side_by_side(batches: list[StripBatch], axis: int = 0) -> StripBatch:
    """Batches of tensors as one: of more windows, or of more frames of the same windows (axis 1)."""
    whole = ("shape", "labelled") if axis else ()
    joined = {name: torch.cat([getattr(batch, name) for batch in batches], axis) for name in StripBatch._fields
              if name not in whole}  # fmt: skip
    return StripBatch(**joined, **{name: getattr(batches[0], name) for name in whole})


def bend(batches: list[StripBatch], body: StripBody, angle: float) -> list[StripBatch]:
    """The same windows with the limbs of labelled people bent at random, by about `angle` radians, alike in all frames.

    More poses than were captured. Lifted joints and keypoints move along, so that the errors of the lifter stay.
    """
    first, limbs = batches[0], [body.body.body.joints.index(name) for name in LIMBS]
    turns = rotvec_to_matrix(angle * torch.randn(len(first.labelled), 1, len(limbs), 3))
    rotations = first.rotations.clone()
    rotations[:, :, limbs] = rotations[:, :, limbs] @ turns
    state = BodyState(rotations, first.shape[:, None].expand(-1, rotations.shape[1], -1), first.way, first.way)
    moved = (body.joints(state) - first.joints) * first.labelled[:, None, None, None] @ first.heading
    rotations = torch.where(first.labelled.bool()[:, None, None, None, None], rotations, first.rotations)
    return [_moved(batch, torch.cat([batch.rotations[:, :, :1], rotations[:, :, 1:]], 2), moved @ batch.heading.mT)
            for batch in batches]  # fmt: skip


def _moved(batch: StripBatch, rotations: Tensor, moved: Tensor) -> StripBatch:
    """A batch whose joints have moved by (N, T, 17, 3) metres in its headings."""
    features = batch.features.clone()
    features[..., : PARTS["joints"]] += moved[:, :, 1:].flatten(-2) / JOINT_UNIT
    there = batch.joints[:, :, SOURCE] @ batch.camera.mT
    far = (batch.depth[..., None] + there[..., 2]).clamp_min(0.5)
    aside = moved[:, :, SOURCE] @ batch.camera.mT
    rays = (batch.rays * far[..., None] + aside[..., :2]) / (far + aside[..., 2]).clamp_min(0.5)[..., None]
    return batch._replace(features=features, rotations=rotations, joints=batch.joints + moved, rays=rays)
