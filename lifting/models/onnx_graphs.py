"""The lifters as graphs that need nothing around them: what `lifting.models.onnx_export` writes to ONNX files.

Each module takes and gives float32 tensors only; the geometry of the virtual cameras, edge padding and the state of a
stream are inside. None averages with the mirrored input: whoever wants that runs the graph on both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifting.anatomy import H36M
from lifting.models.lifter import HeadOutputs, LiftNet, TemporalBlock, ViewFrame, decode_joints
from lifting.models.temporal import TemporalModel

_HIPS = list(H36M.indices(["left_hip", "right_hip"]))
_VIEW = (9, 2 * H36M.num_joints, 1)  # numbers of a virtual camera: rotation, row by row, anchors, spread


class BatchLifter(nn.Module):
    """A `LiftNet` on whole sequences with one of its look-aheads, as `LiftNet.lift`, and sigma in metres."""

    def __init__(self, network: LiftNet, lookahead: int = 0) -> None:
        """Take a network in eval mode; ValueError for a look-ahead that it does not have."""
        super().__init__()
        self.network, self.head = network, _head_of(network, lookahead)

    def forward(self, rays: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rays (N, T, 17, 2) and scores (N, T, 17) to joints (N, T, 17, 3), root (N, T, 3) and sigma (N, T, 17)."""
        features, view = self.network.encode(rays, scores)
        x = self.network.trunk(features)
        frames = torch.arange(rays.shape[1], device=rays.device)
        there = (rays.shape[1] - 1 - frames)[:, None]  # frames that follow
        said = self.network.heads[0](x)
        for head in self.network.heads[1 : self.head + 1]:
            later = head(*(x[:, (frames + later).clamp(max=rays.shape[1] - 1)] for later in head.reads))
            said = HeadOutputs(torch.where(there[..., None] >= head.lookahead, later.codes, said.codes),
                               torch.where(there >= head.lookahead, later.log_sigma, said.log_sigma))  # fmt: skip
        return _in_camera_axes(said, view)


class StreamingLifter(nn.Module):
    """A causal `LiftNet` one frame at a time: for each frame what `BatchLifter` gives for it.

    The state is one vector (N, `state_size`), zeros before the first frame: for each block the normalised signals that
    its taps still need, then trunk and virtual camera of the frames that are not described yet. A graph cannot write in
    place, so these buffers move on by a frame at each step, which copies 160 kB for a network of the default size.
    """

    def __init__(self, network: LiftNet, lookahead: int = 0) -> None:
        """Take a network in eval mode; ValueError unless it is causal and has the look-ahead."""
        super().__init__()
        if any(block.pad[1] for block in network.blocks):
            raise ValueError("got a lifter that sees later frames, expected a causal one to stream; pass its weights")
        self.network, self.lookahead, self.head = network, lookahead, network.heads[_head_of(network, lookahead)]
        channels = network.stem.out_features
        self._sizes = [2 * block.dilation * channels for block in network.blocks]
        self._sizes += [lookahead * channels, lookahead * sum(_VIEW)]
        self.state_size = sum(self._sizes)

    def forward(self, rays: Tensor, scores: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One frame and the state to joints (N, 17, 3), root (N, 3), sigma (N, 17) and the next state.

        rays: (N, 17, 2); scores: (N, 17); state: (N, state_size). The pose is that of the frame `lookahead` frames
        back, NaN as long as there is none.
        """
        *pasts, trunks, views = state.split(self._sizes, -1)
        features, view = self.network.encode(rays, scores)
        x, kept = self.network.stem(features), []
        for block, past in zip(self.network.blocks, pasts, strict=True):
            x, past = _step(block, x, past)
            kept.append(past)
        x = self.network.norm(x)
        trunks = torch.cat([trunks, x], -1)
        views = torch.cat([views, view.rotation.flatten(-2), view.anchors.flatten(-2), view.spread[:, None]], -1)
        rotation, anchors, spread = views[:, : sum(_VIEW)].split(_VIEW, -1)
        read = [trunks[:, later * x.shape[1] : (later + 1) * x.shape[1]] for later in self.head.reads]
        early = spread <= 0
        described = ViewFrame(rotation.unflatten(-1, (3, 3)), torch.where(early, torch.nan, spread)[:, 0],
                              anchors.unflatten(-1, (-1, 2)))  # fmt: skip
        joints, root, sigma = _in_camera_axes(self.head(*read), described)
        sigma = sigma.masked_fill(early, torch.nan)
        return joints, root, sigma, torch.cat([*kept, trunks[:, x.shape[1] :], views[:, sum(_VIEW) :]], -1)


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


def _in_camera_axes(said: HeadOutputs, view: ViewFrame) -> tuple[Tensor, Tensor, Tensor]:
    """Joints, root and sigma in metres, camera axes, from what a head says in the virtual cameras."""
    joints, root = (places @ view.rotation for places in decode_joints(said.codes, view))
    sigma = said.log_sigma.exp()
    hips = sigma[..., _HIPS].mean(-1, keepdim=True)  # the root has no error of its own; it gets that of the hips
    return joints, root[..., 0, :], torch.cat([hips, sigma[..., 1:]], -1)
