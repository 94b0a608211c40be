"""The default lifter: camera rays of 17 keypoints in, H36M-17 joints, root and uncertainty out.

Each frame is first turned into a virtual camera that looks at the person (`encode_rays`): where somebody stands in the
image and how large they appear hardly changes the keypoints that the network sees, for any field of view; both are told
to it separately. This is the idea of perspective crop layers (Yu et al. 2021) and Ray3D (Zhan et al. 2022). A residual
network of dilated temporal convolutions then says, for every joint, how far beside its keypoint's ray and how much
deeper than the root it lies (`decode_joints`), the root's depth, and the radius that holds 68 % of each joint's errors:
what is seen needs no learning, only what is hidden. Nothing is normalised across time, so a causal network is causal to
the last bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lifting.models import time_major
from lifting.skeletons import get_skeleton

NUM_CORE = 13  # joints of the layout lift17 before toes and heels
TORSO = (1, 2, 7, 8)  # shoulders and hips in lift17
NEAREST_JOINT = 0.2  # of the root's depth: no joint is said to be nearer to the camera
REFERENCE_SPREAD = 0.5  # metres: typical root mean square distance of the keypoints from their centre
FEATURES_PER_JOINT = 4
EXTRA_FEATURES = 4
_HIPS, _SHOULDERS = ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder")
_STAND_INS = {  # keypoints near the joints that detectors do not see
    "hip": _HIPS, "spine": _HIPS + _SHOULDERS, "thorax": _SHOULDERS, "neck_nose": ("nose",), "head": ("nose",),
}  # fmt: skip


def _keypoints_of_joints() -> Tensor:
    """(17, 17): 1 where a keypoint of ``lift17`` (column) belongs to a joint of ``h36m17`` (row)."""
    keypoints, joints = get_skeleton("lift17").joints, get_skeleton("h36m17").joints
    return torch.tensor([[float(k in _STAND_INS.get(j, (j,))) for k in keypoints] for j in joints])


_KEYPOINTS_OF_JOINTS = _keypoints_of_joints()


@dataclass(frozen=True)
class LifterConfig:
    """Architecture of a `LiftNet`.

    dilations: one residual block each, kernel width 3. lookaheads: of a causal network, by how many frames each of its
    heads lags behind what it has seen: the head with look-ahead 5 describes a frame when five more have arrived. It
    reads what was known of it then, and at every smaller look-ahead.
    anchored: joints are said relative to the keypoints' rays, else relative to the virtual camera's axis.

    Raises ValueError for a size below 1, for no dilations and for look-aheads that do not rise from 0.
    """

    joints_in: int = 17
    joints_out: int = 17
    channels: int = 384
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    causal: bool = False
    dropout: float = 0.0
    lookaheads: tuple[int, ...] = (0,)
    anchored: bool = True

    def __post_init__(self) -> None:
        for name in ("dilations", "lookaheads"):  # lists when they come from a file's JSON header
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.dilations:
            raise ValueError("got a lifter configuration without dilations; give one for each block, such as (1, 2, 4)")
        if min(self.channels, self.joints_in, self.joints_out, *self.dilations) < 1:
            raise ValueError(f"got a lifter configuration with a size below 1: {self}; all sizes must be positive")
        rising = all(a < b for a, b in zip(self.lookaheads, self.lookaheads[1:], strict=False))
        if self.lookaheads[:1] != (0,) or not rising or (self.lookaheads != (0,) and not self.causal):
            raise ValueError(
                f"got the look-aheads {self.lookaheads}; expected (0,) for a symmetric lifter, and rising numbers of "
                "frames from 0 on for a causal one, such as (0, 5, 15)"
            )

    @property
    def receptive_field(self) -> int:
        """Frames that one output depends on: as many before as after, or all of them past and present if causal."""
        return 1 + 2 * sum(self.dilations)


class ViewFrame(NamedTuple):
    """Per-frame virtual camera: rotation (..., 3, 3) virtual from camera, and the spread (...,) in ray units.

    anchors: (..., J, 2), for each joint that comes out where its keypoints lie in this camera, in units of the spread;
    0, its axis, where none of them is seen.
    """

    rotation: Tensor
    spread: Tensor
    anchors: Tensor


class HeadOutputs(NamedTuple):
    """What a head says of a frame: codes (..., J, 3) of `decode_joints` and log sigma (..., J)."""

    codes: Tensor
    log_sigma: Tensor


class Lift(NamedTuple):
    """Outputs of a lifter in camera axes.

    joints (..., T, 17, 3) metres relative to the root, root (..., T, 3) metres, log_sigma (..., T, 17) log metres, of
    which the root's own column means nothing: joint 0 has no error to learn from.
    """

    joints: Tensor
    root: Tensor
    log_sigma: Tensor


def encode_rays(rays: Tensor, scores: Tensor) -> tuple[Tensor, ViewFrame]:
    """Network input for rays seen by a camera.

    rays: (..., 17, 2) as (x/z, y/z) in the layout ``lift17``, NaN where unseen; scores: (..., 17) in [0, 1], 0 where
    unseen. Returns features (..., 72) and the virtual camera of each frame. Frames without any joint give zeros and the
    camera itself, with a spread of 0.1 and anchors on its axis.
    """
    seen = (scores > 0) & torch.isfinite(rays).all(-1)
    rays = torch.where(seen[..., None], rays, 0.0)
    weight = _centre_weights(seen)
    centre = (rays * weight[..., None]).sum(-2)
    rotation = rotation_to_axis(centre)
    turned = torch.einsum("...ij,...kj->...ki", rotation, functional.pad(rays, (0, 1), value=1.0))
    local = turned[..., :2] / turned[..., 2:].clamp_min(0.05)
    core = (seen & _core(seen)).to(rays.dtype)
    square = (local.square().sum(-1) * core).sum(-1) / core.sum(-1).clamp_min(1.0)
    spread = torch.where(square > 1e-8, square.clamp_min(1e-8).sqrt(), 0.1)
    local = torch.where(seen[..., None], local / spread[..., None, None], 0.0).clamp(-8, 8)
    score = torch.where(seen, scores, 0.0)
    extra = torch.cat([centre.clamp(-3, 3), spread.log()[..., None] + 1.5, seen.to(rays.dtype).mean(-1)[..., None]], -1)
    extra = torch.where(seen.any(-1)[..., None], extra, 0.0)
    joints = torch.cat([local, score[..., None], seen[..., None].to(rays.dtype)], -1)
    view = ViewFrame(rotation, spread, _anchors(local, seen))
    return torch.cat([joints.flatten(-2), extra], -1), view


def _anchors(local: Tensor, seen: Tensor) -> Tensor:
    """Means (..., J, 2) of the seen ones among the keypoints (..., 17, 2) that belong to each joint."""
    weights = _KEYPOINTS_OF_JOINTS.to(local) * seen[..., None, :]
    return weights @ local / weights.sum(-1, keepdim=True).clamp_min(1.0)


def _core(seen: Tensor) -> Tensor:
    return torch.arange(seen.shape[-1], device=seen.device) < NUM_CORE


def _centre_weights(seen: Tensor) -> Tensor:
    """Weights (..., 17) of the joints in the person's centre: most for the trunk, hardly any for toes and heels."""
    base = torch.full((seen.shape[-1],), 0.1, device=seen.device)
    base[list(TORSO)] = 1.0
    base[NUM_CORE:] = 1e-3
    weight = base * seen
    return weight / weight.sum(-1, keepdim=True).clamp_min(1e-6)


def rotation_to_axis(centre: Tensor) -> Tensor:
    """Smallest rotation that turns the ray (x, y, 1) onto the optical axis. centre: (..., 2). Returns (..., 3, 3)."""
    x, y = centre.unbind(-1)
    norm = (1 + x * x + y * y).sqrt()
    a, b, c = x / norm, y / norm, 1 / norm
    k = 1 / (1 + c)
    rows = [1 - a * a * k, -a * b * k, -a, -a * b * k, 1 - b * b * k, -b, a, b, c]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


class TemporalBlock(nn.Module):
    """Residual block: layer norm over channels, dilated convolution of width 3, GELU, 1x1 convolution."""

    def __init__(self, channels: int, dilation: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Linear(3 * channels, channels)  # three taps side by side: one matrix product, fastest on a CPU
        self.mix = nn.Linear(channels, channels)
        self.drop = nn.Dropout(dropout)
        self.dilation = dilation
        self.pad = (2 * dilation, 0) if causal else (dilation, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, T, C). Outside the sequence the normalised signal is zero."""
        frames, step = x.shape[1], self.dilation
        h = functional.pad(self.norm(x), (0, 0, *self.pad))
        taps = [h[:, i * step : i * step + frames] for i in range(3)]
        h = functional.gelu(self.conv(torch.cat(taps, -1)))
        return x + self.mix(self.drop(h))


class Head(nn.Module):
    """What is said of a frame from the trunk there and, with a look-ahead, from later frames' as well.

    reads: how many frames later than the one that is described each of them is, from 0 to the look-ahead. A trunk that
    has seen far beyond a frame has forgotten much of what it knew soon after it, so those in between are read, too.
    """

    def __init__(self, channels: int, joints: int, reads: tuple[int, ...]) -> None:
        super().__init__()
        self.reads, self.lookahead = reads, reads[-1]
        if self.lookahead:
            inputs = len(reads) * channels
            self.merge = nn.Sequential(nn.Linear(inputs, channels), nn.GELU(), nn.Linear(channels, channels))
        self.codes = nn.Linear(channels, 3 * joints)
        self.sigma = nn.Sequential(nn.Linear(channels, 64), nn.GELU(), nn.Linear(64, joints))

    def forward(self, *trunk: Tensor) -> HeadOutputs:
        """trunk: (..., C) of the frames that are `reads` frames later than the one that is described."""
        x = trunk[0] + self.merge(torch.cat(trunk, -1)) if self.lookahead else trunk[0]
        # The uncertainty reads the trunk but does not train it: it must not cost accuracy.
        return HeadOutputs(self.codes(x).float().unflatten(-1, (-1, 3)), self.sigma(x.detach()).float() - 3.0)


class LiftNet(nn.Module):
    """Temporal network from encoded rays to joints and uncertainty in the virtual camera of each frame.

    Arguments as `LifterConfig`.
    """

    def __init__(
        self,
        joints_in: int,
        joints_out: int,
        channels: int,
        dilations: tuple[int, ...],
        causal: bool,
        dropout: float,
        lookaheads: tuple[int, ...] = (0,),
        anchored: bool = True,
    ) -> None:
        super().__init__()
        self.lookaheads, self.anchored = lookaheads, anchored
        self.stem = nn.Linear(FEATURES_PER_JOINT * joints_in + EXTRA_FEATURES, channels)
        self.blocks = nn.ModuleList([TemporalBlock(channels, d, causal, dropout) for d in dilations])
        self.norm = nn.LayerNorm(channels)
        self.heads = nn.ModuleList([Head(channels, joints_out, lookaheads[: n + 1]) for n in range(len(lookaheads))])

    def trunk(self, features: Tensor) -> Tensor:
        """What the heads read, (N, T, C), from features (N, T, F) of `encode`."""
        x = self.stem(features)
        if time_major.supports(x, self.blocks):
            return self.norm(time_major.run_blocks(self.blocks, x))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, features: Tensor) -> HeadOutputs:
        """What the head without look-ahead says of every frame, from features (N, T, F) of `encode`."""
        return self.heads[0](self.trunk(features))

    def encode(self, rays: Tensor, scores: Tensor) -> tuple[Tensor, ViewFrame]:
        """Features and virtual cameras, as `encode_rays`."""
        with torch.autocast(rays.device.type, enabled=False):  # geometry needs more than bfloat16's three digits
            features, view = encode_rays(rays, scores)
        return features, view if self.anchored else view._replace(anchors=torch.zeros_like(view.anchors))

    def lift(self, rays: Tensor, scores: Tensor, lookahead: int = 0) -> Lift:
        """Rays (N, T, 17, 2) and scores (N, T, 17) to joints, root and log sigma in camera axes.

        lookahead: one of the network's. The last frames, which fewer frames follow, come from the head with the largest
        look-ahead that is there. Raises ValueError for another look-ahead.
        """
        if lookahead not in self.lookaheads:
            raise ValueError(f"got a look-ahead of {lookahead} frames, expected one of {self.lookaheads}")
        features, view = self.encode(rays, scores)
        x, start, said = self.trunk(features), 0, []
        for head in reversed(self.heads[: self.lookaheads.index(lookahead) + 1]):
            stop = max(x.shape[1] - head.lookahead, start)
            said.append(head(*(x[:, start + later : stop + later] for later in head.reads)))
            start = stop
        return turned_back(HeadOutputs(*(torch.cat(parts, 1) for parts in zip(*said, strict=True))), view)

    def lift_each(self, rays: Tensor, scores: Tensor) -> list[Lift]:
        """The lift of every head, for training: all frames but the last ones, as many as its look-ahead."""
        features, view = self.encode(rays, scores)
        x, lifts = self.trunk(features), []
        for head in self.heads:
            stop = x.shape[1] - head.lookahead
            seen = ViewFrame(*(values[:, :stop] for values in view))
            lifts.append(turned_back(head(*(x[:, later : stop + later] for later in head.reads)), seen))
        return lifts


def turned_back(said: HeadOutputs, view: ViewFrame) -> Lift:
    """What a head says in the virtual camera of each frame, in camera axes."""
    with torch.autocast(view.spread.device.type, enabled=False):
        joints, root = (places @ view.rotation for places in decode_joints(said.codes, view))
    return Lift(joints, root[..., 0, :], said.log_sigma)


def build_lifter(config: LifterConfig) -> LiftNet:
    """A freshly initialised lifter of the given architecture."""
    return LiftNet(**asdict(config))


def decode_joints(codes: Tensor, view: ViewFrame) -> tuple[Tensor, Tensor]:
    """Joints (..., J, 3) relative to the root and the root (..., 1, 3), metres, in the virtual camera.

    codes: (..., J, 3), the root first. The first two numbers of a joint are the distance of its ray from its anchor in
    units of the spread, the third is how many metres it lies behind the root; that of the root itself is the log of
    depth x spread over the typical spread in metres, which is kept within +-3. The root's depth gives the joints their
    scale, but learns nothing from them: far from the truth, a pose that shrinks to a point would be the nearest one.
    """
    depth = REFERENCE_SPREAD / view.spread * codes[..., 0, 2].clamp(-3, 3).exp()
    depth = depth[..., None, None]
    rays = functional.pad((view.anchors + codes[..., :2]) * view.spread[..., None, None], (0, 1), value=1.0)
    behind = functional.pad(codes[..., 1:, 2:], (0, 0, 1, 0))
    joints = rays * torch.maximum(depth.detach() + behind, NEAREST_JOINT * depth.detach())
    return joints - joints[..., :1, :], rays[..., :1, :] * depth
