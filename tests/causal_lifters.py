"""Causal lifters that are quick and know nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from filmed_walker import RATE

from lifting.checkpoints import Header, save_weights
from lifting.models import build
from lifting.models.lifter import LifterConfig
from lifting.models.temporal import TemporalConfig, TemporalModel, trajectory_config
from lifting.models.temporal_file import describe_temporal
from lifting.predict import Lifter
from lifting.predict_temporal import TemporalLifter

CONFIG = LifterConfig(channels=12, dilations=(1, 3), causal=True, lookaheads=(0, 2, 5))


def causal_lifter(config: LifterConfig = CONFIG) -> Lifter:
    """A lifter with random weights and look-aheads 0, 2 and 5."""
    torch.manual_seed(1)
    header = Header("lifter", vars(config), "lift17", "h36m17", RATE, "rays", "none", "none", "0", {})
    return Lifter(build(config), header)


def write_causal_weights(path: Path) -> Path:
    """The file of such a lifter, with the look-aheads of the default one."""
    config = LifterConfig(channels=12, dilations=(1, 3), causal=True, lookaheads=(0, 5, 15))
    lifter = causal_lifter(config)
    save_weights(path, lifter.network.state_dict(), lifter.header, half=False)
    return path


def temporal_net(config: TemporalConfig) -> TemporalModel:
    """A net in eval mode whose batch norms have seen something."""
    torch.manual_seed(2)
    model = build(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return model


def causal_temporal_lifter(trajectory: bool = False, features: int = 2) -> TemporalLifter:
    """Temporal weights of 9 frames, H36M in and out."""
    config = TemporalConfig(features_in=features, widths=(3, 3), channels=8, causal=True)
    path = temporal_net(trajectory_config(config)) if trajectory else None
    return TemporalLifter(describe_temporal(temporal_net(config), path, skeleton_in="h36m17", skeleton_out="h36m17",
                                            fps=RATE, training="none", licence="none", metrics={}))
