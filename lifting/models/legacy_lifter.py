"""The default lifter: camera rays of 17 keypoints in, H36M-17 joints, root and uncertainty out.

Each frame is first turned into a virtual camera that looks at the person (`encode_rays`): where somebody stands in the
image and how large they appear hardly changes the keypoints that the network sees, for any field of view; both are told
to it separately. This is the idea of perspective crop layers (Yu et al. 2021) and Ray3D (Zhan et al. 2022). A residual
network of dilated temporal convolutions then maps the sequence to joints relative to the root, the root's position and
the radius that holds 68 % of each joint's errors. Nothing is normalised across time, so a causal network is causal to
the last bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_CORE = 13  # joints of the layout lift17 before toes and heels
TORSO = (1, 2, 7, 8)  # shoulders and hips in lift17
REFERENCE_SPREAD = 0.5  # metres: typical root mean square distance of the keypoints from their centre
FEATURES_PER_JOINT = 4
EXTRA_FEATURES = 4


@dataclass(frozen=True)
class LifterConfig:
    """Architecture of a `LiftNet`.

    dilations: one residual block each, kernel width 3. lookaheads: of a causal network, by how many frames each of its
    heads lags behind what it has seen: the head with look-ahead 5 describes a frame when five more have arrived.

    Raises ValueError for a size below 1, for no dilations and for look-aheads that do not rise from 0.
    """

    joints_in: int = 17
    joints_out: int = 17
    channels: int = 384
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    causal: bool = False
    dropout: float = 0.0
    lookaheads: tuple[int, ...] = (0,)

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
    """Per-frame virtual camera: rotation (..., 3, 3) virtual from camera, and the spread (...,) in ray units."""

    rotation: Tensor
    spread: Tensor


class HeadOutputs(NamedTuple):
    """What H heads say at every frame: pose (N, T, H, J, 3) metres, root code (N, T, H, 3), log sigma (N, T, H, J).

    All in the virtual camera of the frame that is described: at frame t that is frame t - look-ahead.
    """

    pose: Tensor
    code: Tensor
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
    camera itself, with a spread of 0.1.
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
    return torch.cat([joints.flatten(-2), extra], -1), ViewFrame(rotation, spread)


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


class LiftNet(nn.Module):
    """Temporal network from encoded rays to pose, root and uncertainty in the virtual camera of each frame."""

    def __init__(
        self,
        joints_in: int,
        joints_out: int,
        channels: int,
        dilations: tuple[int, ...],
        causal: bool,
        dropout: float,
        lookaheads: tuple[int, ...] = (0,),
    ) -> None:
        super().__init__()
        self.joints_out, self.lookaheads = joints_out, lookaheads
        heads = len(lookaheads)
        self.stem = nn.Linear(FEATURES_PER_JOINT * joints_in + EXTRA_FEATURES, channels)
        self.blocks = nn.ModuleList([TemporalBlock(channels, d, causal, dropout) for d in dilations])
        self.norm = nn.LayerNorm(channels)
        self.pose = nn.Linear(channels, heads * 3 * (joints_out - 1))
        self.root = nn.Linear(channels, heads * 3)
        self.sigma = nn.Sequential(nn.Linear(channels, 64), nn.GELU(), nn.Linear(64, heads * joints_out))

    def trunk(self, features: Tensor) -> Tensor:
        """What the heads read, (N, T, C), from features (N, T, F) of `encode_rays`."""
        x = self.stem(features)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def heads(self, x: Tensor) -> HeadOutputs:
        """What every head says at every frame of the trunk's x (N, T, C)."""
        count = len(self.lookaheads)
        pose = self.pose(x).float().unflatten(-1, (count, self.joints_out - 1, 3))
        # The uncertainty reads the trunk but does not train it: it must not cost accuracy.
        log_sigma = self.sigma(x.detach()).float().unflatten(-1, (count, self.joints_out)) - 3.0
        code = self.root(x).float().unflatten(-1, (count, 3))
        return HeadOutputs(functional.pad(pose, (0, 0, 1, 0)), code, log_sigma)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pose (N, T, J, 3) metres with zeros for the root, root code (N, T, 3), log sigma (N, T, J), no look-ahead.

        features: (N, T, F) of `encode_rays`. All in the virtual camera of each frame.
        """
        pose, code, log_sigma = self.heads(self.trunk(features))
        return pose[:, :, 0], code[:, :, 0], log_sigma[:, :, 0]

    def lift(self, rays: Tensor, scores: Tensor, lookahead: int = 0) -> Lift:
        """Rays (N, T, 17, 2) and scores (N, T, 17) to joints, root and log sigma in camera axes.

        lookahead: one of the network's. The last frames, which fewer frames follow, come from the head with the largest
        look-ahead that is there. Raises ValueError for another look-ahead.
        """
        if lookahead not in self.lookaheads:
            raise ValueError(f"got a look-ahead of {lookahead} frames, expected one of {self.lookaheads}")
        features, view = _encode(rays, scores)
        outputs = self.heads(self.trunk(features))
        frames = torch.arange(rays.shape[1], device=rays.device)
        known = torch.tensor(self.lookaheads, device=rays.device)
        there = (len(frames) - 1 - frames).clamp(max=lookahead)
        head = torch.searchsorted(known, there, right=True) - 1
        return turned_back(*(values[:, frames + known[head], head] for values in outputs), view)

    def lift_each(self, rays: Tensor, scores: Tensor) -> list[Lift]:
        """The lift of every head, for training: all frames but the last ones, as many as its look-ahead."""
        features, view = _encode(rays, scores)
        outputs, frames, lifts = self.heads(self.trunk(features)), rays.shape[1], []
        for head, lag in enumerate(self.lookaheads):
            seen = ViewFrame(*(values[:, : frames - lag] for values in view))
            lifts.append(turned_back(*(values[:, lag:, head] for values in outputs), seen))
        return lifts


def _encode(rays: Tensor, scores: Tensor) -> tuple[Tensor, ViewFrame]:
    with torch.autocast(rays.device.type, enabled=False):  # geometry needs more than bfloat16's three digits
        return encode_rays(rays, scores)


def turned_back(pose: Tensor, code: Tensor, log_sigma: Tensor, view: ViewFrame) -> Lift:
    """What the network says in the virtual camera of each frame, in camera axes."""
    with torch.autocast(pose.device.type, enabled=False):
        back = view.rotation.transpose(-1, -2)
        joints = torch.einsum("...ij,...kj->...ki", back, pose)
        root = torch.einsum("...ij,...j->...i", back, decode_root(code, view.spread))
    return Lift(joints, root, log_sigma)


def build_lifter(config: LifterConfig) -> LiftNet:
    """A freshly initialised lifter of the given architecture."""
    return LiftNet(**asdict(config))


def decode_root(code: Tensor, spread: Tensor) -> Tensor:
    """Root position (..., 3) metres in the virtual camera from the network's code (..., 3) and the spread (...,).

    The code holds the root's ray in units of the spread and the log of depth x spread over the typical spread in
    metres, which is kept within +-3.
    """
    depth = REFERENCE_SPREAD / spread * code[..., 2].clamp(-3, 3).exp()
    ray = functional.pad(code[..., :2] * spread[..., None], (0, 1), value=1.0)
    return ray * depth[..., None]
