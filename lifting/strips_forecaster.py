"""The future of lifted motion by PHD (`lifting.models.strips.phd`), and bodies frame after frame as they are seen.

Zhang et al., "Predicting 3D human dynamics from video", ICCV 2019. The network tells bodies in the person's heading and
how they move from frame to frame; here these are put together to joints and a path in world axes, +z up, at 25 frames
per second.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from lifting.anatomy import H36M
from lifting.body import load_body
from lifting.body.model import BodyModel
from lifting.checkpoints import file_hash
from lifting.forecasters import FPS, Forecast
from lifting.headings import heading_of, turn_of, turned_by
from lifting.models.strips.body import StripBody
from lifting.models.strips.encoder import RECEPTIVE_FIELD
from lifting.models.strips.files import load_strips
from lifting.models.strips.phd import FARTHEST, Phd, StreamState
from lifting.models.strips.readout import BodyState
from lifting.motion import BodyMotion
from lifting.rotations import matrix_to_rotvec
from lifting.seen_motion import SeenMotion
from lifting.strip_features import strip_features, way_of

WEIGHTS = Path(__file__).parent / "weights" / "phd.safetensors"
CONTEXT = 2 * RECEPTIVE_FIELD - 1  # frames that a first prediction depends on: 13 strips of 13 frames each
AT_ONCE = 256  # pieces
KEPT, FADE, WAY_FADE = 0.5, 5, 10  # a share, and frames; best of a few on held-out recordings
_FLIP, _ACROSS = np.array(H36M.flip), np.array([-1.0, 1.0, 1.0], np.float32)


class PhdForecaster:
    """A predictor as of `lifting.forecasters`: the last seen pose, carried along by the bodies that PHD tells.

    The mean of what it says and of what it says of the mirror image.
    """

    name, context, longest = "phd", CONTEXT, FARTHEST

    def __init__(self, network: Phd, body: BodyModel, digest: str | None = None) -> None:
        """digest: the hash of the weights' file, for the records of what is made with them."""
        self.network, self.body, self.digest = network.eval(), StripBody(body), digest

    @classmethod
    def load(cls, path: str | Path = WEIGHTS) -> PhdForecaster:
        """From a file that `experiments.train_phd` wrote.

        Raises FileNotFoundError for a missing file and ValueError for weights of anything else.
        """
        network, header = load_strips(path, "phd")
        return cls(network, load_body(header.skeleton_out), file_hash(path))

    def __call__(self, seen: SeenMotion, frames: int) -> Forecast:
        """The future, up to `longest` frames."""
        both = with_mirror_image(seen.cut(slice(-CONTEXT, None)))
        parts = [self.carry(part, *self.tell(part, frames)) for part in _parts(both)]
        said = Forecast(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Forecast)))
        return mean_with_mirror_image(said)

    def bodies(self, seen: SeenMotion, frames: int) -> list[BodyMotion]:
        """The bodies of the future of every piece, in the world, as they are told.

        Their joints are those of the body and not, as a forecast's, of the lifter.
        """
        motions = []
        for part in _parts(seen.cut(slice(-CONTEXT, None))):
            now, future = self.tell(part, frames)
            motions += bodies_in_world(self.body, future, *follow_way(part, steady_way(part, now, future)))
        return motions

    def stream(self) -> PhdStream:
        """Somebody who is seen from now on."""
        return PhdStream(self)

    @torch.inference_mode()
    def tell(self, seen: SeenMotion, frames: int) -> tuple[BodyState, BodyState]:
        """The bodies of the last seen frame (N, 1, ...) and of the next ones (N, Tf, ...), in the person's headings."""
        strips = self.network.encoder(torch.from_numpy(strip_features(seen)))
        return self.network.readout(strips[:, -1:]), self.network.bodies(self.network.predict(strips, frames)[1])

    @torch.inference_mode()
    def carry(self, seen: SeenMotion, now: BodyState, future: BodyState) -> Forecast:
        """The last seen pose as bodies that are told for it (N, 1, ...) and for the future (N, Tf, ...) go on."""
        turn, root = follow_way(seen, steady_way(seen, now, future))
        joints = carry_along(seen, self.body.joints(now).numpy(), self.body.joints(future).numpy(), turn)
        growth = self.network.growth[: root.shape[1]].numpy()
        sigma = np.hypot(seen.sigma[:, -1:], growth)
        sigma[..., 0] = growth[:, 0]
        return Forecast(joints.astype(np.float32), root.astype(np.float32), sigma.astype(np.float32))


class PhdStream:
    """One person, frame after frame: what the forecaster says of all frames at once, in constant time per frame."""

    def __init__(self, forecaster: PhdForecaster) -> None:
        self._forecaster = forecaster
        self._seen: SeenMotion | None = None
        self._state: StreamState | None = None

    @torch.inference_mode()
    def step(self, frame: SeenMotion) -> BodyMotion:
        """The body of the next frame, which is the only one of `frame`, in the world.

        Raises ValueError for anything but one frame of one person.
        """
        if len(frame) != 1 or frame.frames != 1:
            raise ValueError(f"got {len(frame)} pieces of {frame.frames} frames, expected one frame of one person.")
        both = with_mirror_image(frame)
        both = both if self._seen is None else _after(self._seen.cut(slice(-1, None)), both)
        features = strip_features(both)[:, -1]
        self._now, self._state = self._forecaster.network.step(torch.from_numpy(features), self._state)
        self._seen, now = both, BodyState(*(value[:1] for value in self._now))
        return bodies_in_world(self._forecaster.body, now, heading_of(frame.joints, frame.root).rotation, frame.root)[0]

    @torch.inference_mode()
    def future(self, frames: int) -> Forecast:
        """The frames after the last one. Raises ValueError before the first one."""
        if self._seen is None:
            raise ValueError("got no frame yet, expected at least one to go on from; call step first.")
        future = self._forecaster.network.go_on(self._state, frames)
        return mean_with_mirror_image(self._forecaster.carry(self._seen, self._now, future))


def steady_way(seen: SeenMotion, now: BodyState, future: BodyState) -> np.ndarray:
    """The told way (N, Tf, 4) of the future, going over from how the person was last seen to go.

    What differs between the seen and the told steps fades within some frames. Turns are as told: those of a lift are
    too rough.
    """
    way = future.way.numpy().copy()
    if seen.frames > 1:
        last = seen.cut(slice(-2, None))
        moved = way_of(last.joints, last.root, heading_of(last.joints, last.root).rotation)[:, -1:]
        fade = np.exp(-np.arange(1, way.shape[1] + 1) / WAY_FADE)
        way[..., :3] += fade[:, None] * (moved - now.way.numpy())[..., :3]
    return way


def follow_way(seen: SeenMotion, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Headings (N, Tf, 3, 3), person's axes from world axes, and root (N, Tf, 3) metres after the last seen frame.

    way: (N, Tf, 4) as of `lifting.strip_features.way_of`.
    """
    start = turn_of(heading_of(seen.joints[:, -1], seen.root[:, -1]))
    turn = turned_by(start[:, None] + np.cumsum(way[..., 3], 1))
    return turn, seen.root[:, -1:] + np.cumsum(np.einsum("ntij,nti->ntj", turn, way[..., :3]), 1)


def carry_along(seen: SeenMotion, now: np.ndarray, future: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The last seen pose, changed as from a told present (N, 1, 17, 3) to a told future (N, Tf, 17, 3), in the world.

    The told joints are in the person's own heading; turn: (N, Tf, 3, 3), that of the future frames. What differs
    between the seen and the told pose is in part error of the lift and in part another definition of joints: `KEPT` of
    it stays, the rest goes within some frames.
    """
    last = heading_of(seen.joints[:, -1], seen.root[:, -1]).rotation
    differs = (seen.joints[:, -1] @ np.swapaxes(last, 1, 2))[:, None] - now
    kept = KEPT + (1 - KEPT) * np.exp(-np.arange(1, future.shape[1] + 1) / FADE)
    return (future + kept[:, None, None] * differs) @ turn


def bodies_in_world(body: StripBody, state: BodyState, turn: np.ndarray, root: np.ndarray) -> list[BodyMotion]:
    """Bodies (N, T, ...) told in headings (N, T, 3, 3), whose roots are at (N, T, 3), with one shape for each piece."""
    state = state._replace(shape=state.shape.mean(1, keepdim=True).expand_as(state.shape))
    posed, back = body.posed(state), np.swapaxes(turn, -1, -2)
    hips = -body.body.points("h36m17", posed)[..., 0, :].numpy()  # joint 0 of the body, seen from the root
    rotations = state.rotations.numpy().copy()
    rotations[:, :, 0] = back @ rotations[:, :, 0]
    trajectory, name = root + np.einsum("ntij,ntj->nti", back, hips), body.body.body.name
    return [BodyMotion(matrix_to_rotvec(turned), path, shape[0], name, FPS, "world")
            for turned, path, shape in zip(rotations, trajectory, state.shape.numpy(), strict=True)]  # fmt: skip


def with_mirror_image(seen: SeenMotion) -> SeenMotion:
    """The N pieces, and after them their mirror images."""
    mirrored = seen.mirrored()
    pairs = ((getattr(seen, f.name), getattr(mirrored, f.name)) for f in fields(seen))
    return SeenMotion(*(None if one is None else np.concatenate([one, other]) for one, other in pairs))


def mean_with_mirror_image(said: Forecast) -> Forecast:
    """N forecasts of those for pieces and their mirror images."""
    n = len(said) // 2
    joints = (said.joints[:n] + said.joints[n:, :, _FLIP] * _ACROSS) / 2
    return Forecast(joints, (said.root[:n] + said.root[n:] * _ACROSS) / 2, said.sigma[:n])


def _parts(seen: SeenMotion) -> list[SeenMotion]:
    """A few pieces at a time."""
    given = {f.name: getattr(seen, f.name) for f in fields(seen) if getattr(seen, f.name) is not None}
    starts = range(0, max(len(seen), 1), AT_ONCE)
    return [SeenMotion(**{name: array[k : k + AT_ONCE] for name, array in given.items()}) for k in starts]


def _after(one: SeenMotion, other: SeenMotion) -> SeenMotion:
    """Two motions of the same people by the same camera, one after the other."""
    values = {f.name: (getattr(one, f.name), getattr(other, f.name)) for f in fields(one)}
    return SeenMotion(**{name: pair[1] if name == "view" else np.concatenate(pair, 1)
                         for name, pair in values.items() if pair[1] is not None})
