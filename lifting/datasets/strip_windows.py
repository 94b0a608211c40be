"""Windows of lifted motion and of the true bodies behind it: what PHD, HMMR and TCMR learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lifting.headings import Heading, heading_of
from lifting.rotations import rotvec_to_matrix
from lifting.seen_motion import SeenMotion
from lifting.skeletons import mirror_name
from lifting.strip_features import EVIDENCE, strip_features, way_of

HEADINGS = ("own", "shared")
SOURCES = ("seen", "alone")


@dataclass(frozen=True, eq=False)
class BodyPiece:
    """One body in motion over T frames at 25 frames/s and what was seen of it; world axes, +z up, metres.

    rotations (T, K, 3) rotation vectors, trajectory (T, 3), shape (S,): the true body. joints (T, 17, 3) relative to
    the root and root (T, 3): its H36M-17 points. seen: the lifted clip with its 2D evidence, one piece. alone: the same
    with every frame lifted without the others.
    """

    name: str
    rotations: np.ndarray
    trajectory: np.ndarray
    shape: np.ndarray
    joints: np.ndarray
    root: np.ndarray
    seen: SeenMotion
    alone: SeenMotion

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.joints)

    def cut(self, frames: slice) -> BodyPiece:
        """Some of the frames."""
        parts = {name: getattr(self, name)[frames] for name in ("rotations", "trajectory", "joints", "root")}
        return replace(self, seen=self.seen.cut(frames), alone=self.alone.cut(frames), **parts)


class StripBatch(NamedTuple):
    """N windows of T frames, float32, told in headings of the lifted motion; K joints of the body, S shapes.

    features: (N, T, FEATURES) of `lifting.strip_features`. rotations: (N, T, K, 3, 3), local, the root's from the body
    to the heading. shape: (N, S). joints: (N, T, 17, 3) metres relative to the root. way: (N, T, 4), `way_of` of it.
    rays, scores: (N, T, 13, 2) and (N, T, 13), the keypoints. camera: (N, T, 3, 3), camera axes from the heading's.
    depth: (N, T) metres, of the lifted root. heading: (N, T, 3, 3), person's axes from world axes. root: (N, T, 3)
    metres, world, the true root. labelled: (N,), 1 where the truth may be learnt from, else 0: a clip with 2D only.
    """

    features: np.ndarray
    rotations: np.ndarray
    shape: np.ndarray
    joints: np.ndarray
    way: np.ndarray
    rays: np.ndarray
    scores: np.ndarray
    camera: np.ndarray
    depth: np.ndarray
    heading: np.ndarray
    root: np.ndarray
    labelled: np.ndarray


@dataclass(frozen=True)
class StripWindows:
    """Random windows from pieces, a pure function of the batch size and the generator; mirrored half of the time.

    pieces: with 3D truth. flip: joint k of the body's mirror image, `body_flip`. unlabelled: pieces whose truth is not
    to be learnt from; they make up `unlabelled_share` of a batch. heading: ``own`` of every frame, or ``shared`` by the
    window, that of its mean pose. source: ``seen``, lifted as a clip, or ``alone``, frame by frame. Raises ValueError
    for an unknown heading or source and when no piece is long enough for one window.
    """

    pieces: Sequence[BodyPiece]
    flip: np.ndarray
    frames: int
    unlabelled: Sequence[BodyPiece] = ()
    unlabelled_share: float = 0.5
    heading: str = "own"
    source: str = "seen"

    def __post_init__(self) -> None:
        if self.heading not in HEADINGS or self.source not in SOURCES:
            raise ValueError(f"got the heading {self.heading!r} and the source {self.source!r}, expected one of "
                             f"{', '.join(HEADINGS)} and one of {', '.join(SOURCES)}.")
        for some in (self.pieces, self.unlabelled or self.pieces):
            if not any(len(piece) >= self.frames for piece in some):
                raise ValueError(f"got no piece of at least {self.frames} frames; give longer motion.")

    def __call__(self, batch: int, rng: np.random.Generator) -> StripBatch:
        """Draws a batch of windows."""
        without = round(batch * self.unlabelled_share) if self.unlabelled else 0
        cuts = self._draw(self.pieces, batch - without, rng) + self._draw(self.unlabelled, without, rng)
        labelled = np.arange(batch) < batch - without
        return make_batch(cuts, self.flip, self.heading, self.source, rng.random(batch) < 0.5, labelled)

    def _draw(self, pieces: Sequence[BodyPiece], count: int, rng: np.random.Generator) -> list[BodyPiece]:
        if not count:
            return []
        places = np.array([max(len(piece) - self.frames + 1, 0) for piece in pieces], np.float64)
        drawn = rng.choice(len(places), size=count, p=places / places.sum())
        return [pieces[k].cut(slice(start, start + self.frames))
                for k, start in ((k, rng.integers(int(places[k]))) for k in drawn)]


def every_window(pieces: Sequence[BodyPiece], frames: int, step: int) -> list[BodyPiece]:
    """All windows of `frames` frames that start every `step` frames, cut out of the pieces."""
    return [p.cut(slice(k, k + frames)) for p in pieces for k in range(0, len(p) - frames + 1, step)]


def make_batch(cuts: Sequence[BodyPiece], flip: np.ndarray, heading: str = "own", source: str = "seen",
               mirror: np.ndarray | None = None, labelled: np.ndarray | None = None) -> StripBatch:  # fmt: skip
    """Equally long pieces as a batch; `mirror`: (N,) which of them to mirror; the rest as of `StripWindows`."""
    seen = stack_seen([getattr(cut, source) for cut in cuts])
    rotations = rotvec_to_matrix(np.stack([cut.rotations for cut in cuts])).astype(np.float32)
    joints, root = np.stack([cut.joints for cut in cuts]), np.stack([cut.root for cut in cuts])
    truth = SeenMotion(joints, root, np.zeros_like(seen.sigma))
    if mirror is not None and mirror.any():
        seen, truth = (_where(mirror, motion.mirrored(), motion) for motion in (seen, truth))
        rotations[mirror] = mirrored_rotations(rotations[mirror], flip)
    lifted = heading_of(seen.joints, seen.root)
    if heading == "shared":
        lifted = heading_of(seen.joints.mean(1, keepdims=True), seen.root[:, :1])
    turn = np.broadcast_to(lifted.rotation, (*root.shape[:2], 3, 3)).astype(np.float32)
    rotations[:, :, 0] = turn @ rotations[:, :, 0]
    return StripBatch(
        features=strip_features(seen, Heading(lifted.origin, turn)),
        rotations=rotations,
        shape=np.stack([cut.shape for cut in cuts]),
        joints=truth.joints @ np.swapaxes(turn, -1, -2),
        way=way_of(truth.joints, truth.root, turn).astype(np.float32),
        rays=seen.rays[..., :EVIDENCE, :],
        scores=seen.scores[..., :EVIDENCE],
        camera=seen.view[:, None] @ np.swapaxes(turn, -1, -2),
        depth=seen.root_in_camera[..., 2],
        heading=turn,
        root=truth.root,
        labelled=(np.ones(len(cuts)) if labelled is None else labelled).astype(np.float32),
    )


def stack_seen(motions: Sequence[SeenMotion]) -> SeenMotion:
    """Single pieces of one length as one `SeenMotion`."""
    names = ("joints", "root", "sigma", "rays", "scores", "view", "root_in_camera")
    columns = [[getattr(motion, name) for motion in motions] for name in names]
    return SeenMotion(*(None if column[0] is None else np.concatenate(column) for column in columns))


def mirrored_rotations(rotations: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """Local rotations (..., K, 3, 3) of the mirror image of a body whose axes have x across."""
    sign = np.array([-1.0, 1.0, 1.0], np.float32)
    return rotations[..., flip, :, :] * (sign[:, None] * sign)


def body_flip(joints: Sequence[str]) -> np.ndarray:
    """For every joint name of a body the number of its mirror image."""
    return np.array([list(joints).index(mirror_name(name)) for name in joints])


def _where(chosen: np.ndarray, yes: SeenMotion, no: SeenMotion) -> SeenMotion:
    names = ("joints", "root", "sigma") + (("rays", "scores", "view", "root_in_camera") if no.has_evidence else ())
    pairs = [(getattr(yes, name), getattr(no, name)) for name in names]
    return SeenMotion(*(np.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))
