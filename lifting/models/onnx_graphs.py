"""The lifters as graphs that need nothing around them: what `lifting.models.onnx_export` writes to ONNX files.

Each module takes and gives float32 tensors only; the geometry of the virtual cameras, edge padding and the state of a
stream are inside. None averages with the mirrored input: whoever wants that runs the graph on both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifting.anatomy import H36M
from lifting.models.lifter import LiftNet, TemporalBlock, ViewFrame, decode_root, encode_rays
from lifting.models.temporal import TemporalModel

_HIPS = list(H36M.indices(["left_hip", "right_hip"]))
_VIEW = 10  # numbers that describe a virtual camera: its rotation, row by row, and the spread


class BatchLifter(nn.Module):
    """A `LiftNet` on whole sequences with one of its look-aheads, as `LiftNet.lift`, and sigma in metres."""

    def __init__(self, network: LiftNet, lookahead: int = 0) -> None:
        """Take a network in eval mode; ValueError for a look-ahead that it does not have."""
        super().__init__()
        _head_of(network, lookahead)
        self.network, self.lookahead = network, lookahead

    def forward(self, rays: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rays (N, T, 17, 2) and scores (N, T, 17) to joints (N, T, 17, 3), root (N, T, 3) and sigma (N, T, 17)."""
        features, view = encode_rays(rays, scores)
        outputs = self.network.heads(self.network.trunk(features))
        if not self.lookahead:
            return _in_camera_axes(*(values[:, :, 0] for values in outputs), view)
        frames = torch.arange(rays.shape[1], device=rays.device)
        known = torch.tensor(self.network.lookaheads, device=rays.device)
        there = (rays.shape[1] - 1 - frames).clamp(max=self.lookahead)
        head = (there[:, None] >= known[1:]).sum(-1)  # LiftNet's searchsorted, which ONNX lacks
        return _in_camera_axes(*(values[:, frames + known[head], head] for values in outputs), view)


class StreamingLifter(nn.Module):
    """A causal `LiftNet` one frame at a time: for each frame what `BatchLifter` gives for it.

    The state is one vector (N, `state_size`), zeros before the first frame: for each block the normalised signals that
    its taps still need, then the virtual cameras of the frames that are not described yet. A graph cannot write in
    place, so these buffers move on by a frame at each step, which copies 160 kB for a network of the default size.
    """

    def __init__(self, network: LiftNet, lookahead: int = 0) -> None:
        """Take a network in eval mode; ValueError unless it is causal and has the look-ahead."""
        super().__init__()
        if any(block.pad[1] for block in network.blocks):
            raise ValueError("got a lifter that sees later frames, expected a causal one to stream; pass its weights")
        self.network, self.lookahead, self.head = network, lookahead, _head_of(network, lookahead)
        self._sizes = [2 * block.dilation * network.stem.out_features for block in network.blocks] + [lookahead * _VIEW]
        self.state_size = sum(self._sizes)

    def forward(self, rays: Tensor, scores: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One frame and the state to joints (N, 17, 3), root (N, 3), sigma (N, 17) and the next state.

        rays: (N, 17, 2); scores: (N, 17); state: (N, state_size). The pose is that of the frame `lookahead` frames
        back, NaN as long as there is none.
        """
        *pasts, views = state.split(self._sizes, -1)
        features, view = encode_rays(rays, scores)
        x, kept = self.network.stem(features), []
        for block, past in zip(self.network.blocks, pasts, strict=True):
            x, past = _step(block, x, past)
            kept.append(past)
        outputs = self.network.heads(self.network.norm(x))
        views = torch.cat([views, view.rotation.flatten(-2), view.spread[:, None]], -1)
        spread = views[:, _VIEW - 1]
        described = ViewFrame(views[:, : _VIEW - 1].unflatten(-1, (3, 3)), torch.where(spread > 0, spread, torch.nan))
        joints, root, sigma = _in_camera_axes(*(values[:, self.head] for values in outputs), described)
        early = spread <= 0
        joints = joints.masked_fill(early[:, None, None], torch.nan)
        sigma = sigma.masked_fill(early[:, None], torch.nan)
        return joints, root, sigma, torch.cat([*kept, views[:, _VIEW:]], -1)


class TemporalLifts(nn.Module):
    """The reference networks on whole sequences, the edge frames repeated as in the paper, the root joint at zero."""

    def __init__(self, pose: TemporalModel, trajectory: TemporalModel | None, root: int) -> None:
        """Take networks in eval mode, and the number of the joint that the others are relative to."""
        super().__init__()
        self.pose, self.trajectory = pose, trajectory
        self.register_buffer("relative", (torch.arange(pose.config.joints_out) != root).float()[:, None])

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Features (N, T, J, 2 or 3) to joints (N, T, J_out, 3) and, with a trajectory net, root (N, T, 3)."""
        before, after = self.pose.padding
        first, last = (features[:, at].expand(-1, count, -1, -1) for at, count in ((slice(0, 1), before),
                                                                                   (slice(-1, None), after)))
        padded = torch.cat([first, features, last], 1)
        joints = self.pose(padded) * self.relative
        return (joints,) if self.trajectory is None else (joints, self.trajectory(padded)[:, :, 0])


def _step(block: TemporalBlock, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """One frame x (N, C) through a causal block with the normalised frames before it; returns the next ones, too."""
    window = torch.cat([past.unflatten(-1, (2 * block.dilation, -1)), block.norm(x)[:, None]], 1)
    taps = window[:, :: block.dilation].flatten(1)
    h = nn.functional.gelu(block.conv(taps))
    return x + block.mix(h), window[:, 1:].flatten(1)


def _head_of(network: LiftNet, lookahead: int) -> int:
    """The number of the head with this look-ahead."""
    if lookahead not in network.lookaheads:
        raise ValueError(f"got a look-ahead of {lookahead} frames, expected one of {network.lookaheads}")
    return network.lookaheads.index(lookahead)


def _in_camera_axes(pose: Tensor, code: Tensor, log_sigma: Tensor, view: ViewFrame) -> tuple[Tensor, Tensor, Tensor]:
    """Joints, root and sigma in metres, camera axes, from what a head says in the virtual cameras."""
    joints = pose @ view.rotation
    root = (decode_root(code, view.spread)[..., None, :] @ view.rotation)[..., 0, :]
    sigma = log_sigma.exp()
    hips = sigma[..., _HIPS].mean(-1, keepdim=True)  # the root has no error of its own; it gets that of the hips
    return joints, root, torch.cat([hips, sigma[..., 1:]], -1)
