"""A small TCMR without training and random lifted motion, for the tests of refinement."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from lifting.body import load_body
from lifting.models.strips.files import build_strips
from lifting.models.strips.tcmr import Tcmr, TcmrConfig
from lifting.seen_motion import SeenMotion
from lifting.strip_features import FEATURES

BODY = load_body("lite")
CONFIG = TcmrConfig(FEATURES, BODY.num_joints, BODY.num_shape, frames=6, width=16, hidden=12, layers=1)


def small_tcmr(seed: int = 0) -> Tcmr:
    """A network that was trained on nothing, whose bodies are near the rest pose."""
    torch.manual_seed(seed)
    return build_strips(CONFIG).eval().requires_grad_(False)


def random_piece(frames: int = 9, seed: int = 0) -> SeenMotion:
    """One random piece with 2D evidence."""
    rng = np.random.default_rng(seed)
    view = Rotation.from_euler("x", 100, degrees=True).as_matrix()[None]
    joints, root = rng.normal(0, 0.3, (1, frames, 17, 3)), rng.normal(0, 0.3, (1, frames, 3)).cumsum(1)
    joints[:, :, 0] = 0
    arrays = (joints, root, rng.uniform(0.01, 0.2, (1, frames, 17)), rng.normal(0, 0.2, (1, frames, 17, 2)),
              rng.uniform(0, 1, (1, frames, 17)), view, root @ view[0].T + [0, 0, 6])  # fmt: skip
    return SeenMotion(*(np.asarray(array, np.float32) for array in arrays))
