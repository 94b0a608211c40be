"""Files of temporal weights: networks come back as they were, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open

from lifting.checkpoints import load_weights, save_weights
from lifting.models import build
from lifting.models.temporal import TemporalConfig, trajectory_config
from lifting.models.temporal_file import INPUT, KIND, load_temporal, save_temporal

CONFIG = TemporalConfig(17, 3, 17, (3, 5), channels=8, causal=True, dropout=0.1)
FACTS = {"skeleton_in": "coco17", "skeleton_out": "h36m17", "fps": 25.0, "training": "a walk", "licence": "Apache-2.0",
         "metrics": {"mpjpe_mm": 51.5}}  # fmt: skip


def networks(config: TemporalConfig = CONFIG):
    torch.manual_seed(3)
    pair = build(config).eval(), build(trajectory_config(config)).eval()
    for model in pair:
        model.expand_norm.running_var.uniform_(0.5, 2)
        model.blocks[0].time_norm.running_mean.uniform_(-1, 1)
    return pair


@pytest.mark.parametrize("with_trajectory", [True, False])
def test_networks_and_header_come_back(tmp_path, with_trajectory):
    pose, trajectory = networks()
    path = save_temporal(tmp_path / "w.safetensors", pose, trajectory if with_trajectory else None, **FACTS)
    weights = load_temporal(path)
    header = weights.header
    assert (header.kind, header.input) == (KIND, INPUT)
    assert TemporalConfig(**header.config) == CONFIG == weights.pose.config
    assert {name: getattr(header, name) for name in FACTS} == FACTS
    assert (weights.skeleton_in.name, weights.skeleton_out.name) == ("coco17", "h36m17")
    x = torch.randn(2, 20, 17, 3)
    assert not weights.pose.training and torch.equal(weights.pose(x), pose(x))
    if with_trajectory:
        assert torch.equal(weights.trajectory(x), trajectory(x))
    else:
        assert weights.trajectory is None


def test_tensors_are_named_by_network(tmp_path):
    path = save_temporal(tmp_path / "w.safetensors", *networks(), **FACTS)
    with safe_open(str(path), framework="pt") as file:
        names = set(file.keys())
    assert {name.partition(".")[0] for name in names} == {"pose", "trajectory"}
    assert {"pose.shrink.bias", "trajectory.blocks.0.mix_conv.weight"} <= names


def test_half_precision_keeps_three_digits(tmp_path):
    pose, trajectory = networks()
    weights = load_temporal(save_temporal(tmp_path / "w.safetensors", pose, trajectory, **FACTS, half=True))
    x = torch.randn(1, 15, 17, 3)
    assert torch.allclose(weights.pose(x), pose(x), atol=5e-3) and not torch.equal(weights.pose(x), pose(x))


def test_loaded_networks_can_be_trained_on(tmp_path):
    weights = load_temporal(save_temporal(tmp_path / "w.safetensors", *networks(), **FACTS))
    assert all(values.requires_grad for values in weights.pose.parameters())


def test_layouts_must_fit_the_network(tmp_path):
    pose, trajectory = networks()
    with pytest.raises(ValueError, match="takes 17 joints, but halpe26 has 26"):
        save_temporal(tmp_path / "w.safetensors", pose, trajectory, **FACTS | {"skeleton_in": "halpe26"})
    with pytest.raises(ValueError, match="gives 17 joints, but humaneva15 has 15"):
        save_temporal(tmp_path / "w.safetensors", pose, trajectory, **FACTS | {"skeleton_out": "humaneva15"})
    assert not list(tmp_path.iterdir())


def test_trajectory_net_must_belong_to_the_pose_net(tmp_path):
    pose, _ = networks()
    with pytest.raises(ValueError, match="trajectory_config"):
        save_temporal(tmp_path / "w.safetensors", pose, build(TemporalConfig(17, 3, 1, (3,), channels=8)), **FACTS)


def test_other_kinds_and_damage_are_refused_by_name(tmp_path):
    path = save_temporal(tmp_path / "w.safetensors", *networks(), **FACTS)
    tensors, header = load_weights(path)
    other = tmp_path / "other.safetensors"
    save_weights(other, tensors, type(header)(**asdict(header) | {"kind": "lifter"}), half=False)
    with pytest.raises(ValueError, match="other.safetensors holds a 'lifter', expected temporal"):
        load_temporal(other)
    save_weights(other, {k: v for k, v in tensors.items() if "shrink" not in k}, header, half=False)
    with pytest.raises(ValueError, match="do not fit its own header .*shrink"):
        load_temporal(other)
    save_weights(other, tensors, type(header)(**asdict(header) | {"config": {"widths": [2]}}), half=False)
    with pytest.raises(ValueError, match="do not fit its own header .*odd"):
        load_temporal(other)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_temporal(tmp_path / "nowhere.safetensors")
