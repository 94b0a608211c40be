"""Lifted motion made smooth and temporally consistent by the temporal body models TCMR and HMMR."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lifting.body.model import BodyModel
from lifting.headings import Heading, heading_of
from lifting.motion import BodyMotion
from lifting.rotations import matrix_to_rotvec
from lifting.seen_motion import SeenMotion
from lifting.seen_person import FPS
from lifting.strip_features import strip_features

CHUNK = 256  # windows that a network reads at once: bounds memory, changes nothing


def tcmr_bodies(network: nn.Module, seen: SeenMotion, body: BodyModel) -> BodyMotion:
    """The body in every frame of one piece, told by a `Tcmr` from the window around it; frame ``world``, `FPS`.

    Windows that reach beyond the ends repeat the first and the last frame. The shape is the mean over the frames, the
    root's way that of the piece.
    """
    rotations, shapes = [], []
    for start in range(0, seen.frames, CHUNK):
        windows = _windows(seen, np.arange(start, min(start + CHUNK, seen.frames)), network.frames)
        lifted = heading_of(windows.joints.mean(1, keepdims=True), windows.root[:, :1])
        turn = np.broadcast_to(lifted.rotation, (len(windows), network.frames, 3, 3))
        with torch.inference_mode():
            state = network(torch.from_numpy(strip_features(windows, Heading(lifted.origin, turn)))).joined
        told = state.rotations.numpy().astype(np.float64)
        told[:, 0] = np.swapaxes(lifted.rotation[:, 0], -1, -2) @ told[:, 0]
        rotations.append(told)
        shapes.append(state.shape.numpy())
    return placed_body(np.concatenate(rotations), np.concatenate(shapes).mean(0), seen.root[0], body)


def placed_body(rotations: np.ndarray, shape: np.ndarray, root: np.ndarray, body: BodyModel) -> BodyMotion:
    """A body whose H36M-17 root is at root (T, 3) metres; rotations (T, K, 3, 3), the root's to world axes."""
    points = body.points("h36m17", rotations, np.zeros_like(root, np.float64), shape)
    return BodyMotion(matrix_to_rotvec(rotations), root - points[:, 0], shape, body.name, FPS, "world")


def _windows(seen: SeenMotion, centres: np.ndarray, frames: int) -> SeenMotion:
    """The windows of a piece around some of its frames, as pieces."""
    chosen = np.clip(centres[:, None] + np.arange(frames) - frames // 2, 0, seen.frames - 1)
    arrays = {name: getattr(seen, name)[0][chosen] for name in ("joints", "root", "sigma")}
    if seen.has_evidence:
        arrays |= {name: getattr(seen, name)[0][chosen] for name in ("rays", "scores", "root_in_camera")}
        arrays["view"] = np.repeat(seen.view, len(centres), axis=0)
    return SeenMotion(**arrays)
