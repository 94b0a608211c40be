"""Weight files of the reference lifter: pose net, the trajectory net where there is one, and all that using them needs.

The file is `lifting.checkpoints`' safetensors with kind ``temporal``. The tensors are named ``pose.*`` and
``trajectory.*``; the header's config is the pose net's `TemporalConfig`, from which the trajectory net's follows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from lifting import __version__
from lifting.checkpoints import Header, load_weights, save_weights
from lifting.models import build
from lifting.models.temporal import TemporalConfig, TemporalModel, trajectory_config
from lifting.skeletons import Skeleton, get_skeleton

KIND = "temporal"
INPUT = "screen coordinates"
"""Keypoints as x / width * 2 - 1 and y / width * 2 - height / width; with three features, the score is the third."""
_POSE, _TRAJECTORY = "pose.", "trajectory."


@dataclass(frozen=True, eq=False)
class TemporalWeights:
    """What a file of temporal weights holds: networks in eval mode on the CPU, and the header.

    pose gives joints in metres relative to the root; trajectory, where there is one, the root in metres, camera axes.
    """

    pose: TemporalModel
    trajectory: TemporalModel | None
    header: Header

    @property
    def skeleton_in(self) -> Skeleton:
        """The layout of the keypoints that go in."""
        return get_skeleton(self.header.skeleton_in)

    @property
    def skeleton_out(self) -> Skeleton:
        """The layout of the joints that come out."""
        return get_skeleton(self.header.skeleton_out)


def describe_temporal(
    pose: TemporalModel,
    trajectory: TemporalModel | None,
    *,
    skeleton_in: str | Skeleton,
    skeleton_out: str | Skeleton,
    fps: float,
    training: str,
    licence: str,
    metrics: dict,
) -> TemporalWeights:
    """Networks and the header that describes them, checked against each other; arguments as `save_temporal`."""
    skeleton_in, skeleton_out = get_skeleton(skeleton_in), get_skeleton(skeleton_out)
    _check_layouts(pose.config, skeleton_in, skeleton_out)
    if trajectory is not None and trajectory.config != trajectory_config(pose.config):
        raise ValueError(f"The trajectory net is {trajectory.config}, expected {trajectory_config(pose.config)} beside "
                         "its pose net; build it from trajectory_config(pose.config).")
    header = Header(KIND, asdict(pose.config), skeleton_in.name, skeleton_out.name, fps, INPUT, licence, training,
                    __version__, metrics)
    return TemporalWeights(pose, trajectory, header)


def save_temporal(
    path: str | Path,
    pose: TemporalModel,
    trajectory: TemporalModel | None = None,
    *,
    skeleton_in: str | Skeleton,
    skeleton_out: str | Skeleton,
    fps: float,
    training: str,
    licence: str,
    metrics: dict,
    half: bool = False,
) -> Path:
    """Write temporal weights, whole or not at all, and return the path.

    Args:
        path: the file, by convention ``.safetensors``.
        pose, trajectory: the networks; the trajectory net has `trajectory_config` of the pose net's config.
        skeleton_in, skeleton_out: layouts of the keypoints and of the joints, registered, or their names.
        fps: frame rate of the training data.
        training, licence: data and steps, and the terms, in words.
        metrics: benchmark figures by name, in the units that the names state.
        half: write float16.

    Raises ValueError when layouts and networks do not fit each other or a tensor is not finite, OSError when the place
    cannot be written.
    """
    weights = describe_temporal(pose, trajectory, skeleton_in=skeleton_in, skeleton_out=skeleton_out, fps=fps,
                                training=training, licence=licence, metrics=metrics)
    return write_temporal(path, weights, half=half)


def write_temporal(path: str | Path, weights: TemporalWeights, *, half: bool = False) -> Path:
    """Write weights that are already described; errors as `save_temporal`."""
    tensors = {_POSE + name: values for name, values in weights.pose.state_dict().items()}
    if weights.trajectory is not None:
        tensors |= {_TRAJECTORY + name: values for name, values in weights.trajectory.state_dict().items()}
    save_weights(path, tensors, weights.header, half=half)
    return Path(path)


def load_temporal(path: str | Path) -> TemporalWeights:
    """Read temporal weights: networks in eval mode, float32, on the CPU.

    Raises FileNotFoundError for a missing file, ValueError, naming it, for one that holds something else or damage.
    """
    tensors, header = load_weights(path)
    if header.kind != KIND:
        raise ValueError(f"{path} holds a {header.kind!r}, expected temporal weights; pass those that lift train or "
                         "lift convert checkpoint wrote.")
    try:
        config = TemporalConfig(**header.config)
        _check_layouts(config, get_skeleton(header.skeleton_in), get_skeleton(header.skeleton_out))
        pose = assemble(config, _part(tensors, _POSE))
        path_tensors = _part(tensors, _TRAJECTORY)
        trajectory = assemble(trajectory_config(config), path_tensors) if path_tensors else None
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the tensors in {path} do not fit its own header ({_first_line(error)}); get the file "
                         "again.") from error
    return TemporalWeights(pose, trajectory, header)


def assemble(config: TemporalConfig, tensors: dict[str, Tensor]) -> TemporalModel:
    """Build the network of `config` from its tensors, in eval mode; RuntimeError when they are not exactly its own."""
    with torch.device("meta"):  # no memory and no random numbers for what is replaced at once
        model = build(config)
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}


def _check_layouts(config: TemporalConfig, skeleton_in: Skeleton, skeleton_out: Skeleton) -> None:
    for what, count, skeleton in (("takes", config.joints_in, skeleton_in), ("gives", config.joints_out, skeleton_out)):
        if count != skeleton.num_joints:
            raise ValueError(f"The network {what} {count} joints, but {skeleton.name} has {skeleton.num_joints}; name "
                             "the layout that it was trained with.")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
