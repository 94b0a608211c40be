"""Checkpoints of VideoPose3D and MMPose: made here in their published layout, compared with a plain network."""

from __future__ import annotations

import math
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.nn import functional

from lifting.models.foreign_checkpoints import (
    RELEASED,
    convert_checkpoint,
    count_parameters,
    describe,
    read_checkpoint,
)
from lifting.models.temporal_file import load_temporal

CHANNELS = 16


def published_state(widths=(3, 3, 3), rows=34, joints=17, channels=CHANNELS, seed=0, dense=False) -> OrderedDict:
    """A state_dict as VideoPose3D's model writes it."""
    generator = torch.Generator().manual_seed(seed)

    def conv(out: int, inside: int, taps: int) -> torch.Tensor:
        return torch.randn(out, inside, taps, generator=generator) / math.sqrt(inside * taps)

    def norm(name: str) -> dict:
        weight, bias, mean = (torch.randn(channels, generator=generator) * 0.3 + shift for shift in (1, 0, 0))
        variance = torch.rand(channels, generator=generator) + 0.5
        return {f"{name}.weight": weight, f"{name}.bias": bias, f"{name}.running_mean": mean,
                f"{name}.running_var": variance, f"{name}.num_batches_tracked": torch.tensor(7)}  # fmt: skip

    state = {"expand_bn": norm("expand_bn"), "shrink": {"shrink.weight": conv(3 * joints, channels, 1),
             "shrink.bias": torch.randn(3 * joints, generator=generator)},
             "expand": {"expand_conv.weight": conv(channels, rows, widths[0])}}  # fmt: skip
    for block, width in enumerate(widths[1:]):
        taps = (width - 1) * math.prod(widths[: block + 1]) + 1 if dense else width
        state[f"c{block}"] = {f"layers_conv.{2 * block}.weight": conv(channels, channels, taps),
                              f"layers_conv.{2 * block + 1}.weight": conv(channels, channels, 1)}  # fmt: skip
        state[f"n{block}"] = norm(f"layers_bn.{2 * block}") | norm(f"layers_bn.{2 * block + 1}")
    return OrderedDict(item for part in state.values() for item in part.items())


def plain_network(state: dict, x: torch.Tensor, causal: bool = False, dense: bool = False) -> torch.Tensor:
    """The published network as its description reads: x (N, T, J, C) to (N, T - field + 1, J_out, 3)."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        scale = state[f"{name}.weight"] / torch.sqrt(state[f"{name}.running_var"] + 1e-5)
        shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
        return functional.relu(x * scale[None, :, None] + shift[None, :, None])

    x = x.flatten(2).transpose(1, 2)
    x = norm(functional.conv1d(x, state["expand_conv.weight"]), "expand_bn")
    dilation = state["expand_conv.weight"].shape[2]
    for block in range(sum("layers_conv" in name for name in state) // 2):
        weight = state[f"layers_conv.{2 * block}.weight"]
        width = (weight.shape[2] - 1) // dilation + 1 if dense else weight.shape[2]
        pad = (width - 1) * dilation // 2
        shift = pad if causal else 0
        kept = x[:, :, pad + shift : x.shape[2] - pad + shift]
        y = norm(functional.conv1d(x, weight, dilation=1 if dense else dilation), f"layers_bn.{2 * block}")
        y = norm(functional.conv1d(y, state[f"layers_conv.{2 * block + 1}.weight"]), f"layers_bn.{2 * block + 1}")
        x, dilation = kept + y, dilation * width
    x = functional.conv1d(x, state["shrink.weight"], state["shrink.bias"])
    return x.transpose(1, 2).unflatten(2, (-1, 3))


class OldRandomState:
    """Pickles as RandomState did before numpy 1.17."""

    def __reduce__(self):
        return getattr(np.random, "__RandomState_ctor"), (), np.random.RandomState(1234).get_state()  # noqa: B009


GENERATORS = {
    "today's": np.random.RandomState(1234), "old": OldRandomState(),
    "numpy 2's": (np.random.SeedSequence(5), np.random.MT19937, np.float64(2.0), np.arange(3)),
}  # fmt: skip


def published(pose: dict, trajectory: dict | None = None, generator: object = GENERATORS["today's"], **more) -> dict:
    """The checkpoint's dict as the training writes it."""
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {"epoch": 80, "lr": 0.0001, "random_state": generator, "optimizer": optimizer, "model_pos": pose,
            "model_traj": trajectory, "random_state_semi": generator, **more}  # fmt: skip


def save(path, checkpoint: dict, legacy: bool = False):
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    return path


def sequence(frames: int, joints: int = 17, features: int = 2) -> torch.Tensor:
    return torch.randn(2, frames, joints, features, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("generator", GENERATORS)
def test_outputs_are_the_original_networks(tmp_path, legacy, generator):
    pose, trajectory = published_state(), published_state(joints=1, seed=1)
    path = save(tmp_path / "epoch_80.bin", published(pose, trajectory, GENERATORS[generator]), legacy)
    weights = read_checkpoint(path, skeleton_in="coco17")
    x = sequence(40)
    assert torch.allclose(weights.pose(x), plain_network(pose, x), atol=1e-5)
    assert torch.allclose(weights.trajectory(x), plain_network(trajectory, x), atol=1e-5)
    assert weights.pose.blocks[0].time_norm.num_batches_tracked == 7
    assert (weights.header.skeleton_in, weights.header.skeleton_out, weights.header.fps) == ("coco17", "h36m17", 50.0)


@pytest.mark.parametrize(("widths", "causal", "dense", "rows"), [
    ((3, 3, 3, 3), True, False, 34), ((3, 3, 3), False, True, 34), ((3, 3), True, True, 34),
    ((1, 1, 1), False, False, 34), ((5, 3, 3), False, False, 51), ((3, 5), True, False, 51)])  # fmt: skip
def test_every_architecture_is_inferred(tmp_path, widths, causal, dense, rows):
    state = published_state(widths, rows, dense=dense)
    path = save(tmp_path / "own.bin", published(state))
    weights = read_checkpoint(path, skeleton_in="h36m17", causal=causal, dense=dense, fps=10)
    config = weights.pose.config
    assert config.widths == widths and config.causal == causal and config.dense == dense
    assert config.features_in == rows // 17 and config.channels == CHANNELS and weights.trajectory is None
    x = sequence(config.receptive_field + 5, features=rows // 17)
    assert torch.allclose(weights.pose(x), plain_network(state, x, causal, dense), atol=1e-5)
    assert weights.header.fps == 10


@pytest.mark.parametrize("form", ["without trajectory", "parallel", "state alone", "no counters"])
def test_every_form_of_the_dict_is_read(tmp_path, form):
    state = published_state()
    checkpoint = published(state)
    if form == "without trajectory":
        del checkpoint["model_traj"], checkpoint["optimizer"], checkpoint["random_state_semi"]
    elif form == "parallel":
        checkpoint["model_pos"] = OrderedDict((f"module.{name}", values) for name, values in state.items())
        checkpoint["model_pos"]._metadata = OrderedDict(version=1)
    elif form == "state alone":
        checkpoint = state
    else:
        checkpoint["model_pos"] = {k: v for k, v in state.items() if "num_batches" not in k}
    weights = read_checkpoint(save(tmp_path / "x.bin", checkpoint), skeleton_in="h36m17")
    x = sequence(30)
    assert weights.trajectory is None and torch.allclose(weights.pose(x), plain_network(state, x), atol=1e-5)


def mmpose_state(state: dict, prefix: str = "") -> dict:
    """A published state under the names of MMPose's TCN."""
    renamed = {}
    for name, values in state.items():
        kind, number, rest = (name.split(".", 2) + ["", ""])[:3]
        if kind.startswith("layers"):
            part = f"tcn_blocks.{int(number) // 2}.conv{int(number) % 2 + 1}.0.{kind.removeprefix('layers_')}.{rest}"
            renamed[f"{prefix}backbone.{part}"] = values
        elif kind.startswith("expand"):
            renamed[f"{prefix}backbone.expand_conv.{kind.removeprefix('expand_')}.{number}"] = values
        else:
            renamed[f"{prefix}head.conv.{number}"] = values
    return renamed


@pytest.mark.parametrize("semi", [False, True])
def test_mmpose_checkpoints(tmp_path, semi):
    pose, trajectory = published_state(), published_state(joints=1, seed=1)
    state = mmpose_state(pose) | (mmpose_state(trajectory, "traj_") if semi else {})
    assert "backbone.tcn_blocks.1.conv2.0.bn.running_var" in state and "head.conv.bias" in state
    checkpoint = {"meta": {"epoch": 160, "dataset_meta": {"sigmas": np.ones(17)}}, "state_dict": state}
    weights = read_checkpoint(save(tmp_path / "tcn.pth", checkpoint), skeleton_in="h36m17")
    x = sequence(31)
    assert torch.allclose(weights.pose(x), plain_network(pose, x), atol=1e-5)
    assert (weights.trajectory is not None) == semi
    if semi:
        assert torch.allclose(weights.trajectory(x), plain_network(trajectory, x), atol=1e-5)


SIZES = {  # the published table: kernel widths, rows in, joints out
    "pretrained_h36m_cpn.bin": ((3,) * 5, 34, 17), "pretrained_h36m_detectron_coco.bin": ((3,) * 5, 34, 17),
    "pretrained_243_h36m_detectron_coco_wtraj.bin": ((3,) * 5, 34, 17),
    "pretrained_humaneva15_detectron.bin": ((3,) * 3, 34, 15), "d-pt-243.bin": ((3,) * 5, 51, 17),
    "cpn-pt-243.bin": ((3,) * 5, 34, 17), "cpn-ft-243-dbb-causal.bin": ((3,) * 5, 34, 17),
}  # fmt: skip


def hollow(widths: tuple, rows: int, joints: int) -> dict:
    """A state of the full published size that takes no room: every tensor is one stored number."""
    small = published_state(widths, rows, joints, channels=2)
    return {name: torch.ones(()).expand([1024 if n == 2 else n for n in values.shape]) if values.ndim else values
            for name, values in small.items()}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_released_files_are_known_by_name_and_have_the_published_size(tmp_path, name):
    widths, rows, joints = SIZES[name]
    with_path = "wtraj" in name
    trajectory = hollow(widths, rows, 1) if with_path else None
    path = save(tmp_path / name, published(hollow(widths, rows, joints), trajectory))
    weights = read_checkpoint(path)
    assert count_parameters(weights.pose) == RELEASED[name].parameters
    assert weights.pose.config.causal == ("causal" in name) and weights.pose.config.features_in == rows // 17
    assert weights.pose.receptive_field == math.prod(widths)
    assert weights.header.skeleton_in == ("h36m17" if name in ("pretrained_h36m_cpn.bin", "cpn-ft-243-dbb-causal.bin")
                                          else "coco17")  # fmt: skip
    assert (weights.header.skeleton_out, weights.header.fps) == (("h36m17", 50) if joints == 17 else ("humaneva15", 60))
    assert (weights.trajectory is not None) == with_path
    if with_path:
        assert count_parameters(weights.trajectory) == 16_903_171
    assert f"{RELEASED[name].parameters:,} parameters" in describe(weights)


def test_a_released_name_with_another_network_is_refused(tmp_path):
    path = save(tmp_path / "pretrained_h36m_cpn.bin", published(published_state()))
    with pytest.raises(ValueError, match="expected 16,952,371 and 0 as released"):
        read_checkpoint(path)


@pytest.mark.parametrize("with_trajectory", [False, True])
def test_there_and_back(tmp_path, with_trajectory):
    pose, trajectory = published_state(), published_state(joints=1, seed=1) if with_trajectory else None
    first = save(tmp_path / "own.bin", published(pose, trajectory))
    convert_checkpoint(first, tmp_path / "own.safetensors", skeleton_in="coco17", causal=True)
    assert load_temporal(tmp_path / "own.safetensors").pose.config.causal
    convert_checkpoint(tmp_path / "own.safetensors", tmp_path / "back.bin")
    back = torch.load(tmp_path / "back.bin", weights_only=True)
    assert list(back["model_pos"]) == [name for name in back["model_pos"] if name in pose]
    assert back["model_pos"].keys() == pose.keys()
    assert all(torch.equal(back["model_pos"][name], pose[name]) for name in pose)
    # An entry of None makes VideoPose3D's --evaluate fail, so there is none.
    assert ("model_traj" in back) == with_trajectory
    if with_trajectory:
        assert all(torch.equal(back["model_traj"][name], trajectory[name]) for name in trajectory)
    assert {"epoch", "lr", "random_state", "optimizer"} <= back.keys()


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("bomb", "named"), [
    (Hostile(os.system, "touch hacked"), "system"), (Hostile(eval, "open('hacked', 'w')"), "eval"),
    (Hostile(os.makedirs, "hacked"), "os.makedirs"), (Hostile(np.save, "hacked", 1), "numpy.*save"),
    (Hostile(pickle.loads, b"cos\nsystem\n."), "loads")])  # fmt: skip
def test_code_is_refused_by_name_and_never_runs(tmp_path, monkeypatch, bomb, named, legacy):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "x.bin", published(published_state(), generator=bomb), legacy)
    with pytest.raises(ValueError, match=f"refused '.*{named}' in '.*x.bin'"):
        read_checkpoint(path, skeleton_in="coco17")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.bin"]


def test_discarded_names_are_not_left_behind(tmp_path):
    before = set(torch.serialization.get_safe_globals())  # torch keeps a set: the order of its list means nothing
    read_checkpoint(save(tmp_path / "x.bin", published(published_state())), skeleton_in="coco17")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("damage", [b"", b"hello", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00.", None])
def test_damage_is_one_sentence(tmp_path, damage):
    path = save(tmp_path / "x.bin", published(published_state()))
    path.write_bytes(path.read_bytes()[:3000] if damage is None else damage)
    with pytest.raises(ValueError, match="cannot read '.*x.bin' as a torch checkpoint"):
        read_checkpoint(path, skeleton_in="coco17")


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c["model_pos"].pop("layers_conv.1.weight"), "do not make a TemporalConfig.*blocks.0.mix_conv"),
    (lambda c: c["model_pos"].pop("shrink.weight"), "lacks the convolution shrink.weight"),
    (lambda c: c["model_pos"].update({"shrink.bias": torch.zeros(3)}), "do not make a TemporalConfig.*shrink.bias"),
    (lambda c: c["model_pos"].update({"gru.weight": torch.zeros(3)}), "do not make a TemporalConfig.*gru"),
    (lambda c: c.update(model_pos=None), "expected VideoPose3D's model_pos"),
])  # fmt: skip
def test_other_networks_are_refused(tmp_path, change, message):
    checkpoint = published(published_state())
    change(checkpoint)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(save(tmp_path / "x.bin", checkpoint), skeleton_in="coco17")


def test_layouts_are_asked_for_and_checked(tmp_path):
    path = save(tmp_path / "x.bin", published(published_state()))
    with pytest.raises(ValueError, match="pass --skeleton-in"):
        read_checkpoint(path)
    with pytest.raises(ValueError, match="takes 34 numbers a frame, expected 2 or 3 for each of the 26 joints"):
        read_checkpoint(path, skeleton_in="halpe26")
    with pytest.raises(ValueError, match="gives 17 joints, but smpl24 has 24"):
        read_checkpoint(path, skeleton_in="coco17", skeleton_out="smpl24")
    odd = save(tmp_path / "y.bin", published(published_state(joints=9)))
    with pytest.raises(ValueError, match="gives 9 joints, in which layout it does not say; pass --skeleton-out"):
        read_checkpoint(odd, skeleton_in="coco17")


def test_missing_files_and_other_suffixes(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        convert_checkpoint(tmp_path / "none.bin", tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="ends in .safetensors .* or .bin"):
        convert_checkpoint(tmp_path / "none.bin", tmp_path / "x.onnx")
    save(tmp_path / "list.bin", [1, 2])
    with pytest.raises(ValueError, match="holds a list"):
        read_checkpoint(tmp_path / "list.bin", skeleton_in="coco17")
