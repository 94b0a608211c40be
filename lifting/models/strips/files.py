"""Weight files of temporal body models: PHD, HMMR and TCMR."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from torch import nn

from lifting.checkpoints import Header, load_weights, save_weights
from lifting.models.strips.hmmr import Hmmr, HmmrConfig
from lifting.models.strips.phd import Phd, PhdConfig
from lifting.models.strips.tcmr import Tcmr, TcmrConfig
from lifting.seen_motion import FPS

KINDS = {"phd": (PhdConfig, Phd), "hmmr": (HmmrConfig, Hmmr), "tcmr": (TcmrConfig, Tcmr)}
INPUT = "lifting.strip_features of lifted H36M-17 motion in world axes and its keypoints in lift17"


def build_strips(config: PhdConfig | HmmrConfig | TcmrConfig) -> nn.Module:
    """A freshly initialised network."""
    return dict(KINDS.values())[type(config)](**asdict(config))


def save_strips(path: str | Path, network: nn.Module, config: PhdConfig | HmmrConfig | TcmrConfig, *, training: str,
                licence: str, version: str, metrics: dict) -> None:  # fmt: skip
    """Writes a network with matrices as int8; the body is not part of it, its name stands in the header's output."""
    kind = next(name for name, (made, _) in KINDS.items() if isinstance(config, made))
    header = Header(kind, asdict(config), "lift17", "lite", FPS, INPUT, licence, training, version, metrics)
    save_weights(path, dict(network.state_dict()), header, int8=True)


def load_strips(path: str | Path, kind: str) -> tuple[nn.Module, Header]:
    """The network of a file and its header, ready for inference.

    Raises FileNotFoundError for a missing file, ValueError for one of another kind or with other tensors.
    """
    tensors, header = load_weights(path)
    if header.kind != kind:
        raise ValueError(f"{path} holds a {header.kind!r}, expected a {kind!r}; pass weights of that kind.")
    try:
        network = build_strips(KINDS[kind][0](**header.config))
        network.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the tensors in {path} do not fit its own header; get the file again.") from error
    return network.eval().requires_grad_(False), header
