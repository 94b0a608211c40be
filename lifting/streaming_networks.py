"""Causal networks at their own rate, sample by sample or a whole clip at once: what `lifting.streaming` runs.

A sample is the keypoints of one person at one moment of the network's time grid. Both forms give the same numbers up to
rounding.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch

from lifting.anatomy import H36M
from lifting.models.lifter import Lift
from lifting.models.ring_buffers import LiftNetStream, TemporalStream
from lifting.predict import INPUT, Lifter, merge_mirrored, with_mirrored
from lifting.predict_temporal import TemporalLifter, locate, same_names
from lifting.skeletons import Skeleton


class Evidence(NamedTuple):
    """What a network gets of one sample: xy (J, 2) pixels and score (J,) in its layout; rays and scores in `lift17`."""

    xy: np.ndarray
    score: np.ndarray
    rays: np.ndarray
    scores: np.ndarray


class Placed(NamedTuple):
    """What a network says of one sample: joints (J, 3), root (3,) and sigma (J,) in metres, camera axes."""

    joints: np.ndarray
    root: np.ndarray
    sigma: np.ndarray


class CausalNetwork(Protocol):
    """A causal network at its own rate: sample by sample, or for a whole clip at once."""

    skeleton_in: Skeleton
    skeleton_out: Skeleton
    fps: float
    lookahead: int

    def push(self, sample: Evidence, image_size: tuple[int, int]) -> Placed | None:
        """Take the next sample; what comes out is about the one `lookahead` samples ago."""

    def flush(self) -> list[Placed]:
        """The samples that are still to come out; then as new."""

    def run(self, samples: list[Evidence], image_size: tuple[int, int]) -> list[Placed]:
        """All samples of a clip; leaves the stream as it is."""


class RayNetwork:
    """The network of a `Lifter`. Raises ValueError when it is not causal or has no such look-ahead."""

    skeleton_in, skeleton_out = INPUT, H36M

    def __init__(self, lifter: Lifter, lookahead: int, flip: bool) -> None:
        self._lifter, self._flip = lifter, flip
        self._stream = LiftNetStream(lifter.network, lookahead)
        self.fps, self.lookahead = lifter.fps, lookahead

    def push(self, sample: Evidence, image_size: tuple[int, int]) -> Placed | None:
        """As `CausalNetwork`."""
        batch = with_mirrored(sample.rays[None], sample.scores[None], self._flip)
        lift = self._stream.push(*(torch.from_numpy(a[:, 0]).to(self._lifter.device) for a in batch))
        return None if lift is None else self._merge(lift)

    def flush(self) -> list[Placed]:
        """As `CausalNetwork`."""
        return [self._merge(lift) for lift in self._stream.flush()]

    def run(self, samples: list[Evidence], image_size: tuple[int, int]) -> list[Placed]:
        """As `CausalNetwork`."""
        rays, scores = (np.stack([getattr(sample, name) for sample in samples]) for name in ("rays", "scores"))
        return [Placed(*values) for values in zip(*self._lifter.run(rays, scores, self._flip, self.lookahead),
                                                  strict=True)]  # fmt: skip

    @property
    def size(self) -> int:
        """Numbers held between two samples."""
        return self._stream.size

    @staticmethod
    def _merge(lift: Lift) -> Placed:
        return Placed(*(values[0] for values in merge_mirrored(Lift(*(values[:, None] for values in lift)))))


class ScreenNetwork:
    """The networks of a `TemporalLifter`. Raises ValueError when they are not causal, and for a look-ahead but 0."""

    def __init__(self, lifter: TemporalLifter, lookahead: int, flip: bool) -> None:
        if lookahead != 0:
            raise ValueError(f"got a look-ahead of {lookahead} frames, but temporal weights have none; leave it at 0")
        self._lifter, self._flip = lifter, flip
        self._nets = [TemporalStream(net) for net in (lifter.pose, lifter.trajectory) if net is not None]
        self.skeleton_in, self.skeleton_out = lifter.skeleton_in, lifter.skeleton_out
        self.fps, self.lookahead = lifter.fps, 0
        self._holes, self._roots = _LastSeen(), _RootByRays(lifter)

    def push(self, sample: Evidence, image_size: tuple[int, int]) -> Placed:
        """As `CausalNetwork`."""
        features = self._lifter.features(self._holes.fill(sample.xy)[None], sample.score[None], image_size)
        batch = self._lifter.batch(features, self._flip)
        outputs = [net.push(batch[:, 0])[:, None] for net in self._nets]
        joints, root = self._lifter.merge(outputs[0], outputs[1] if len(outputs) > 1 else None)
        return self._roots.place(joints[0], None if root is None else root[0], sample)

    def flush(self) -> list[Placed]:
        """As `CausalNetwork`: nothing is left; the nets begin anew."""
        for net in self._nets:
            net.clear()
        self._holes, self._roots = _LastSeen(), _RootByRays(self._lifter)
        return []

    def run(self, samples: list[Evidence], image_size: tuple[int, int]) -> list[Placed]:
        """As `CausalNetwork`."""
        holes, placing = _LastSeen(), _RootByRays(self._lifter)
        xy = np.stack([holes.fill(sample.xy) for sample in samples])
        score = np.stack([sample.score for sample in samples])
        joints, roots = self._lifter.run(self._lifter.features(xy, score, image_size), self._flip)
        return [placing.place(joints[k], None if roots is None else roots[k], sample)
                for k, sample in enumerate(samples)]  # fmt: skip

    @property
    def size(self) -> int:
        """Numbers held between two samples."""
        return sum(net.size for net in self._nets)


class _LastSeen:
    """Fills holes with where a joint was seen last, else with the middle of the others."""

    def __init__(self) -> None:
        self._xy: np.ndarray | None = None

    def fill(self, xy: np.ndarray) -> np.ndarray:
        """Pixels (J, 2) without NaN, from pixels (J, 2) of which at least one has ever been seen."""
        self._xy = xy if self._xy is None else np.where(np.isnan(xy), self._xy, xy)
        unknown = np.isnan(self._xy).any(-1)
        return np.where(unknown[:, None], self._xy[~unknown].mean(0), self._xy) if unknown.any() else self._xy


class _RootByRays:
    """Places poses of the temporal nets, where they do not say it themselves, by the rays of each sample."""

    def __init__(self, lifter: TemporalLifter) -> None:
        self._skeleton = lifter.skeleton_out
        self._sigma = np.full(self._skeleton.num_joints, lifter.usual_sigma, np.float32)
        self._root: np.ndarray | None = None

    def place(self, joints: np.ndarray, root: np.ndarray | None, sample: Evidence) -> Placed:
        """Joints (J, 3) with the net's root (3,), else that by the rays; where these are too few, the last one."""
        if root is None:
            named = same_names(joints[None], self._skeleton, H36M)
            try:
                self._root = locate(named, sample.rays[None], sample.scores[None])[0]
            except ValueError:  # too few joints in this sample
                if self._root is None:
                    raise
            root = self._root
        return Placed(joints, root, self._sigma)
