"""Checkpoints of other code for the reference network: VideoPose3D's are read and written, MMPose's are read.

Both store the network of `lifting.models.temporal` under names of their own, VideoPose3D as ``expand_conv``,
``layers_conv.2i`` and ``layers_conv.2i+1`` with ``layers_bn``, MMPose as ``backbone.tcn_blocks.i.conv1`` and ``conv2``.
Widths, channels and joints out follow from the tensors; the layouts, causality and the frame rate do not, and are asked
for. No code inside a checkpoint is run: `checkpoint_reader` reads them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lifting.files import atomic_path
from lifting.models.checkpoint_reader import read_tensors
from lifting.models.temporal import TemporalConfig, trajectory_config
from lifting.models.temporal_file import TemporalWeights, assemble, describe_temporal, load_temporal, write_temporal
from lifting.skeletons import Skeleton, get_skeleton

OURS, VIDEOPOSE3D = ".safetensors", ".bin"
LICENCE = "the terms of the checkpoint that this was converted from"


@dataclass(frozen=True)
class Released:
    """A checkpoint that VideoPose3D's authors released: the layout of its keypoints, and its size."""

    skeleton_in: str
    parameters: int
    causal: bool = False
    trajectory_parameters: int = 0


RELEASED = {
    "pretrained_h36m_cpn.bin": Released("h36m17", 16_952_371),
    "pretrained_h36m_detectron_coco.bin": Released("coco17", 16_952_371),
    "pretrained_243_h36m_detectron_coco_wtraj.bin": Released("coco17", 16_952_371, trajectory_parameters=16_903_171),
    "pretrained_humaneva15_detectron.bin": Released("coco17", 8_549_421),
    "d-pt-243.bin": Released("coco17", 17_004_595),
    "cpn-pt-243.bin": Released("coco17", 16_952_371),
    "cpn-ft-243-dbb-causal.bin": Released("h36m17", 16_952_371, causal=True),
}
# Joints out -> the layout that they are, and the frame rate of that data set.
_OUTPUTS = {17: ("h36m17", 50.0), 15: ("humaneva15", 60.0)}


def convert_checkpoint(
    source: str | Path,
    output: str | Path,
    *,
    skeleton_in: str | Skeleton | None = None,
    skeleton_out: str | Skeleton | None = None,
    causal: bool | None = None,
    dense: bool = False,
    fps: float | None = None,
) -> TemporalWeights:
    """Turn a checkpoint of VideoPose3D or MMPose into our file, or our file into VideoPose3D's.

    Args:
        source: the checkpoint; a ``.safetensors`` of ours when `output` is a ``.bin``.
        output: ``.safetensors`` for our file, ``.bin`` for VideoPose3D's.
        skeleton_in, skeleton_out, causal, dense, fps: as `read_checkpoint`.

    Returns what was written. Raises ValueError, FileNotFoundError or OSError in one sentence.
    """
    writers = {OURS: write_temporal, VIDEOPOSE3D: write_videopose3d}
    suffix = Path(output).suffix.lower()
    if suffix not in writers:
        raise ValueError(f"got the output {str(output)!r}, expected a name that ends in {OURS} (ours) or "
                         f"{VIDEOPOSE3D} (VideoPose3D's); choose one of them")
    if Path(source).suffix.lower() == OURS:
        weights = load_temporal(source)
    else:
        weights = read_checkpoint(source, skeleton_in=skeleton_in, skeleton_out=skeleton_out, causal=causal,
                                  dense=dense, fps=fps)
    writers[suffix](output, weights)
    return weights


def read_checkpoint(
    path: str | Path,
    *,
    skeleton_in: str | Skeleton | None = None,
    skeleton_out: str | Skeleton | None = None,
    causal: bool | None = None,
    dense: bool = False,
    fps: float | None = None,
) -> TemporalWeights:
    """Read a VideoPose3D ``.bin`` (new and old torch formats) or an MMPose TCN ``.pth``, with its trajectory net.

    Args:
        path: the checkpoint.
        skeleton_in: layout of the keypoints; known by name for the files that VideoPose3D's authors released.
        skeleton_out: layout of the joints; by default H36M-17 for 17 joints, HumanEva-15 for 15.
        causal: whether the net sees no later frame; by default as released, else no.
        dense: whether it was trained with ``--dense``, the paper's ablation: its wide kernels are then no dilations.
        fps: frame rate of its training data; by default that of the output's data set.

    Raises FileNotFoundError; ValueError for a file that is damaged, holds code or another network, or does not fit the
    layouts or the size that is known of it.
    """
    path = Path(path)
    released = RELEASED.get(path.name)
    pose, trajectory = _find_networks(path, read_tensors(path))
    skeleton_in = _layout_in(path, skeleton_in, released)
    skeleton_out, usual_fps = _layout_out(path, skeleton_out, pose)
    causal = released is not None and released.causal if causal is None else causal
    config = _infer_config(path, pose, skeleton_in, causal, dense)
    nets = [_assemble(path, config, pose)]
    nets.append(_assemble(path, trajectory_config(config), trajectory) if trajectory else None)
    _check_released(path, released, *nets)
    return describe_temporal(*nets, skeleton_in=skeleton_in, skeleton_out=skeleton_out, fps=float(fps or usual_fps),
                             training=f"converted from {path.name}", licence=LICENCE, metrics={})


def write_videopose3d(path: str | Path, weights: TemporalWeights) -> Path:
    """Write a checkpoint that VideoPose3D loads with ``--evaluate`` or ``--resume``, whole or not at all.

    It has no optimiser's state, and no entry for a trajectory net that does not exist (an empty one crashes that code).
    Raises OSError when the place cannot be written.
    """
    checkpoint = {"epoch": 0, "lr": 0.001, "random_state": None, "optimizer": None,
                  "model_pos": _foreign_names(weights.pose.state_dict())}
    if weights.trajectory is not None:
        checkpoint["model_traj"] = _foreign_names(weights.trajectory.state_dict())
    with atomic_path(path) as temporary:
        torch.save(checkpoint, temporary)
    return Path(path)


def count_parameters(model: torch.nn.Module) -> int:
    """Number of trained values, without the running statistics of batch norm."""
    return sum(values.numel() for values in model.parameters())


def describe(weights: TemporalWeights) -> str:
    """One line: layouts, receptive field, direction, size and trajectory net."""
    config, header = weights.pose.config, weights.header
    kind = f"{'causal' if config.causal else 'symmetric'}{', dense' if config.dense else ''}"
    path = "no trajectory net"
    if weights.trajectory is not None:
        path = f"trajectory net of {count_parameters(weights.trajectory):,} parameters"
    return (f"{header.skeleton_in} x {config.features_in} to {header.skeleton_out}, {config.receptive_field} frames at "
            f"{header.fps:g} frames/s, {kind}, {count_parameters(weights.pose):,} parameters, {path}")


# ---- names

_ENDS = {"expand_bn": "expand_norm", "expand_conv": "expand_conv", "shrink": "shrink"}
_BLOCK = re.compile(r"layers_(conv|bn)\.(\d+)\.(.+)")
_MMPOSE = (
    (re.compile(r"backbone\.expand_conv\.conv\.(.+)"), r"expand_conv.\1"),
    (re.compile(r"backbone\.expand_conv\.bn\.(.+)"), r"expand_norm.\1"),
    (re.compile(r"backbone\.tcn_blocks\.(\d+)\.conv1\.0\.conv\.(.+)"), r"blocks.\1.time_conv.\2"),
    (re.compile(r"backbone\.tcn_blocks\.(\d+)\.conv1\.0\.bn\.(.+)"), r"blocks.\1.time_norm.\2"),
    (re.compile(r"backbone\.tcn_blocks\.(\d+)\.conv2\.0\.conv\.(.+)"), r"blocks.\1.mix_conv.\2"),
    (re.compile(r"backbone\.tcn_blocks\.(\d+)\.conv2\.0\.bn\.(.+)"), r"blocks.\1.mix_norm.\2"),
    (re.compile(r"head\.conv\.(.+)"), r"shrink.\1"),
)


def _find_networks(path: Path, found: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """The tensors of pose and trajectory net under our names."""
    if isinstance(found.get("model_pos"), Mapping):
        trajectory = found.get("model_traj")  # None in purely supervised training
        return _from_videopose3d(found["model_pos"]), _from_videopose3d(trajectory) if trajectory else None
    tensors = found.get("state_dict", found)
    tensors = _without_parallel(tensors) if isinstance(tensors, Mapping) else {}
    if any(name.startswith("backbone.tcn_blocks.") for name in tensors):
        trajectory = {name.removeprefix("traj_"): v for name, v in tensors.items() if name.startswith("traj_")}
        return _from_mmpose(tensors), _from_mmpose(trajectory) or None
    if "expand_conv.weight" in tensors and "shrink.weight" in tensors:
        return _from_videopose3d(tensors), None
    held = ", ".join(map(str, list(found)[:5])) or "nothing"
    raise ValueError(f"{str(path)!r} holds {held}, expected VideoPose3D's model_pos or an MMPose state_dict with "
                     "backbone.tcn_blocks; pass a checkpoint of a temporal convolution lifter")


def _without_parallel(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Names without the prefix that DataParallel leaves."""
    return {str(name).removeprefix("module."): values for name, values in tensors.items()}


def _from_videopose3d(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {_our_name(name): values for name, values in _without_parallel(tensors).items()}


def _our_name(name: str) -> str:
    """layers_conv.5.weight -> blocks.2.mix_conv.weight; names of other networks stay."""
    block = _BLOCK.fullmatch(name)
    if block:
        kind, number = {"conv": "conv", "bn": "norm"}[block[1]], int(block[2])
        return f"blocks.{number // 2}.{('time', 'mix')[number % 2]}_{kind}.{block[3]}"
    first, _, rest = name.partition(".")
    return f"{_ENDS.get(first, first)}.{rest}"


def _foreign_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under VideoPose3D's names, in the order of our network."""
    named = {}
    for name, values in tensors.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(time|mix)_(conv|norm)\.(.+)", name)
        if block:
            kind, number = {"conv": "conv", "norm": "bn"}[block[3]], 2 * int(block[1]) + (block[2] == "mix")
            name = f"layers_{kind}.{number}.{block[4]}"
        named[name.replace("expand_norm.", "expand_bn.")] = values.detach().cpu().clone()
    return named


def _from_mmpose(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    ours = {}
    for name, values in tensors.items():
        for pattern, replacement in _MMPOSE:
            if pattern.fullmatch(name):
                ours[pattern.sub(replacement, name)] = values
    return ours


# ---- architecture


def _layout_in(path: Path, given: str | Skeleton | None, released: Released | None) -> Skeleton:
    if given is None and released is None:
        raise ValueError(f"{path.name!r} does not say in which layout its keypoints come; pass --skeleton-in, such as "
                         "h36m17 (CPN or ground truth of Human3.6M) or coco17 (Detectron)")
    return get_skeleton(given if given is not None else released.skeleton_in)


def _layout_out(path: Path, given: str | Skeleton | None, pose: Mapping[str, Tensor]) -> tuple[Skeleton, float]:
    joints = _shape(path, pose, "shrink.weight")[0] // 3
    name, fps = _OUTPUTS.get(joints, (None, 50.0))
    if given is None and name is None:
        raise ValueError(f"{path.name!r} gives {joints} joints, in which layout it does not say; pass --skeleton-out")
    return get_skeleton(given if given is not None else name), fps


def _infer_config(
    path: Path, pose: Mapping[str, Tensor], skeleton: Skeleton, causal: bool, dense: bool
) -> TemporalConfig:
    channels, rows, first = _shape(path, pose, "expand_conv.weight")
    features = rows / skeleton.num_joints
    if features not in (2, 3):
        raise ValueError(f"{path.name!r} takes {rows} numbers a frame, expected 2 or 3 for each of the "
                         f"{skeleton.num_joints} joints of {skeleton.name}; pass the layout that it was trained with")
    widths = [first]
    while f"blocks.{len(widths) - 1}.time_conv.weight" in pose:
        taps = _shape(path, pose, f"blocks.{len(widths) - 1}.time_conv.weight")[2]
        widths.append((taps - 1) // math.prod(widths) + 1 if dense else taps)
    joints = _shape(path, pose, "shrink.weight")[0] // 3
    return TemporalConfig(skeleton.num_joints, int(features), joints, tuple(widths), channels, causal, dense)


def _shape(path: Path, tensors: Mapping[str, Tensor], name: str) -> tuple[int, int, int]:
    values = tensors.get(name)
    if not isinstance(values, Tensor) or values.ndim != 3:
        raise ValueError(f"{path.name!r} lacks the convolution {name} (our name for it), expected a whole temporal "
                         "network; get the file again")
    return tuple(values.shape)


def _assemble(path: Path, config: TemporalConfig, tensors: dict[str, Tensor]) -> torch.nn.Module:
    floats = {name: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for name, v in tensors.items()}
    counters = {f"{name.removesuffix('running_mean')}num_batches_tracked": torch.tensor(0)
                for name in floats if name.endswith("running_mean")}  # torch before 0.4.1 did not count
    try:
        return assemble(config, {**counters, **floats})
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the tensors of {path.name!r} do not make a {config} ({reason}); pass a checkpoint of a "
                         "temporal convolution lifter") from error


def _check_released(path: Path, released: Released | None, pose: Any, trajectory: Any) -> None:
    """A file with a known name must have the known size."""
    if released is None:
        return
    counts = count_parameters(pose), 0 if trajectory is None else count_parameters(trajectory)
    expected = released.parameters, released.trajectory_parameters
    if counts != expected:
        raise ValueError(f"{path.name!r} has {counts[0]:,} parameters and {counts[1]:,} for the trajectory, expected "
                         f"{expected[0]:,} and {expected[1]:,} as released; rename it if it is another network")
