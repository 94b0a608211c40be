"""What is trained together: pose net and trajectory net, and the focal lengths of clips whose cameras are unknown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lifting.cameras import Camera, estimate_focal
from lifting.datasets.clips import ClipInfo
from lifting.datasets.windows import intrinsic_numbers
from lifting.models import build
from lifting.models.temporal import TemporalConfig, trajectory_config
from lifting.training.distributed import share_gradient, wrap
from lifting.training.projection import Intrinsics, read_intrinsics
from lifting.training.steps import Lifted


class Networks(nn.Module):
    """Pose net and, where asked for, trajectory net, on the same keypoints.

    strided: use the training form that gives one frame per receptive field (chunks of one frame, not dense).
    """

    def __init__(self, config: TemporalConfig, trajectory: bool = True, strided: bool = True) -> None:
        super().__init__()
        self.pose = build(config)
        self.trajectory = build(trajectory_config(config)) if trajectory else None
        self.strided = strided

    def forward(self, keypoints: Tensor) -> Lifted:
        """Lift (N, T + receptive field - 1, J_in, C) screen coordinates to T frames."""
        pose = self._lift(self.pose, keypoints)
        root = None if self.trajectory is None else self._lift(self.trajectory, keypoints)[:, :, 0]
        return Lifted(pose, root)

    def _lift(self, net: nn.Module, keypoints: Tensor) -> Tensor:
        return net.forward_strided(keypoints) if self.strided else net(keypoints)

    def set_norm_momentum(self, momentum: float) -> None:
        """Of every batch norm of both nets."""
        for net in self.children():
            net.set_norm_momentum(momentum)


class ClipCameras(nn.Module):
    """The cameras of the clips of a set; of an unknown one the focal length is a parameter, all else is assumed.

    It starts at `lifting.cameras.estimate_focal`, one per clip, and is learnt as a logarithm: it stays positive.
    """

    def __init__(self, infos: Sequence[ClipInfo]) -> None:
        super().__init__()
        rows = np.stack([intrinsic_numbers(info.camera or _assumed(info)) for info in infos])
        unknown = torch.tensor([info.camera is None for info in infos])
        limits = read_intrinsics(rows).square_limit
        for name, values in (("rows", torch.from_numpy(rows)), ("limits", limits), ("unknown", unknown)):
            self.register_buffer(name, values, persistent=False)
        self.log_focal = nn.Parameter(torch.zeros(len(rows))) if unknown.any() else None

    def forward(self, clips: Tensor, intrinsics: Tensor | None) -> Intrinsics:
        """The cameras of samples of the clips (N,); intrinsics: (N, 9) as cut, mirrored for mirrored samples, or None.

        Rows of NaN, and None, stand for unknown cameras.
        """
        rows = self.rows[clips]
        if intrinsics is not None:
            rows = torch.where(intrinsics.isnan(), rows, intrinsics)  # an assumed camera is its own mirror image
        cameras = Intrinsics(rows[:, :2], rows[:, 2:4], rows[:, 4:], self.limits[clips])
        if self.log_focal is None:
            return cameras
        return cameras.scaled((share_gradient(self.log_focal)[clips] * self.unknown[clips]).exp())

    @torch.no_grad()
    def focal_factors(self) -> list[float]:
        """Learnt over assumed focal length of each clip with an unknown camera."""
        return [] if self.log_focal is None else self.log_focal[self.unknown].exp().tolist()


def _assumed(info: ClipInfo) -> Camera:
    focal, _ = estimate_focal(info.image_size)
    return Camera.from_focal(focal, info.image_size)


class Trainee(nn.Module):
    """Everything with parameters: networks and, with unlabelled clips, their cameras."""

    def __init__(self, networks: Networks, cameras: ClipCameras | None = None) -> None:
        super().__init__()
        self.networks, self.cameras = networks, cameras

    def wrapped(self) -> nn.Module:
        """The networks' forward pass, over all processes where there are several (parameters must be in place)."""
        return wrap(self.networks)
