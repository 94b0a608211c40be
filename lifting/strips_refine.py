"""Lifted motion made smooth and temporally consistent by the temporal body models TCMR and HMMR: `refine`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lifting.anatomy import H36M
from lifting.assumptions import announce
from lifting.body import load_body
from lifting.body.model import BodyModel
from lifting.checkpoints import file_hash
from lifting.exporting import as_take
from lifting.foot_locking import hold_bone_lengths, median_lengths
from lifting.headings import Heading, heading_of
from lifting.models.strips.encoder import RECEPTIVE_FIELD
from lifting.models.strips.files import load_strips
from lifting.motion import BodyMotion, Motion, Person, Take
from lifting.resampling import resample_values, same_rate
from lifting.rotations import matrix_to_rot6d, matrix_to_rotvec, rot6d_to_matrix, rotvec_to_matrix
from lifting.seen_motion import SeenMotion
from lifting.seen_person import FPS, SeenPerson, see_person, with_path
from lifting.smoothing import smooth
from lifting.strip_features import strip_features
from lifting.world import placed_again, present_frames, present_part

METHODS = ("hmmr", "tcmr")
WEIGHTS = Path(__file__).parent / "weights"
SHARE = 0.5  # of what a network tells in a refined pose: more harms poses unlike those of its training
SMOOTHING = 0.7  # of `lifting.smoothing`: 3.4 Hz pass half
CHUNK = 256  # windows that a network reads at once: bounds memory, changes nothing


@dataclass(frozen=True)
class Refiner:
    """What tells a body in every frame: `bodies` makes a `BodyMotion` at `FPS`, frame ``world``, of one `SeenMotion`.

    frames: of motion that the method looks at around each one. source: name and hash of the weights.
    """

    method: str
    bodies: Callable[[SeenMotion], BodyMotion]
    frames: int
    source: str
    model: BodyModel = field(repr=False)


def refine(
    source: Take | Person | Motion, method: str = "tcmr", *, weights: str | Path | None = None, body: bool = False
) -> Take | Person | Motion:
    """Replaces lifted motion by what a temporal body model tells of it: less jitter, poses of a human body.

    Args:
        source: a take, whose keypoints are looked at, too; a person, or a motion of the layout h36m17, without them.
        method: ``tcmr`` (each frame from 16 around it, read apart into past and future) or ``hmmr`` (from 13).
        weights: a file of that kind; default: those of the package.
        body: also give the bodies, as `Person.body`. A motion becomes a person then, who can hold it.

    Returns the same kind. Poses are `between` the lift and the model's, at the motion's own rate and size; path, sigma,
    gaps and the place in the world stay, motions in the world are made anew; bodies and futures of the motion as it was
    are dropped. Bodies on request are the model's own, at its idea of the person's size. ``metadata["refined"]`` of a
    take says how, and what was assumed. Raises ValueError for an unknown method, another layout, nobody in sight and a
    person in the world without their take; FileNotFoundError for weights that are not there.
    """
    refiner = load_refiner(method, weights)
    take = as_take(source)
    if isinstance(source, Person) and source.world is not None:
        raise ValueError(f"got person {source.id} of a take in the world without the take, which knows where the "
                         "camera stands; pass the take to refine everybody in it.")
    refined = refine_take(take, refiner, body=body, keypoints=isinstance(source, Take))
    if isinstance(source, Take):
        return refined
    for sentence in refined.metadata["refined"]["warnings"]:
        announce(sentence)
    person = refined.people[0]
    return person if isinstance(source, Person) or body else person.motion


def check_method(method: str) -> None:
    """ValueError for a method that is not in `METHODS`."""
    if method not in METHODS:
        raise ValueError(f"got the refinement {method!r}, expected one of {', '.join(METHODS)}.")


def load_refiner(method: str, weights: str | Path | None = None) -> Refiner:
    """The refiner of a method, with the weights of a file, or those of the package.

    Raises ValueError for an unknown method or weights of another kind, FileNotFoundError for a file that is not there.
    """
    check_method(method)
    path = Path(weights) if weights is not None else WEIGHTS / f"{method}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights of {method} at {path}; install lift again, or give another "
                                "file.")
    network, header = load_strips(path, method)
    model, told = load_body(header.skeleton_out), tcmr_bodies
    if method == "hmmr":
        from lifting.strips_around import hmmr_bodies as told

    frames = network.frames if method == "tcmr" else RECEPTIVE_FIELD
    source = f"{path.name} {file_hash(path)}"
    return Refiner(method, lambda seen: told(network, seen, model), frames, source, model)


def refine_take(take: Take, refiner: Refiner, *, body: bool = False, keypoints: bool = True) -> Take:
    """The take with everybody's motion refined; see `refine`. keypoints: whether to look at them and at the camera.

    Raises ValueError where nobody was lifted, or nobody's motion can be refined.
    """
    people, warnings, failures = [], [], []
    for person in take.people:
        try:
            people.append(_refined(person, take if keypoints else None, refiner, body, warnings))
        except ValueError as error:
            people.append(person)
            failures.append(f"person {person.id} was not refined: {error}")
    if len(failures) == len(people):
        raise ValueError(failures[0] if failures else f"nobody is in {take.name!r}, expected at least one person.")
    about = {"method": refiner.method, "weights": refiner.source, "body": refiner.model.name,
             "warnings": [*dict.fromkeys(warnings), *failures]}  # fmt: skip
    kept = {key: value for key, value in take.metadata.items() if key not in ("body", "future")}
    return placed_again(take.replace(people=people, metadata={**kept, "refined": about}))


def _refined(person: Person, take: Take | None, refiner: Refiner, body: bool, warnings: list[str]) -> Person:
    told = see_person(person if take is not None else person.motion, take, warnings.append)
    if (seen := told.seen.frames) < refiner.frames:
        warnings.append(f"person {person.id} is seen for {seen} frame{'s' * (seen > 1)} at {FPS:g}/s, {refiner.method} "
                        f"looks at {refiner.frames}: beyond the ends there is nothing to go by")
    bodies = refiner.bodies(told.seen)
    motion = refined_motion(person.motion, told, bodies, refiner.model)
    made = refined_body(motion, told, bodies, refiner.model) if body else None
    return dataclasses.replace(person, motion=motion, body=made, future=None, future_body=None)


def refined_motion(motion: Motion, told: SeenPerson, bodies: BodyMotion, model: BodyModel) -> Motion:
    """The motion with poses `between` its own and those of bodies at `FPS` in world axes."""
    points = model.points("h36m17", bodies.rotations, bodies.trajectory, bodies.shape)
    part = present_part(with_path(motion.slice(told.span.start, told.span.stop)))
    lifted = part.joints.astype(np.float64) @ told.rotation
    joints = between(lifted, _at_rate(points - points[:, :1], part), part.fps) @ np.swapaxes(told.rotation, -1, -2)
    return motion.replace(joints=_padded(joints, motion, told.span))


def between(lifted: np.ndarray, told: np.ndarray, fps: float, smoothing: float = SMOOTHING) -> np.ndarray:
    """Poses half way from lifted joints to those that a network told, smoothed; (T, 17, 3) metres off the root.

    Both err, and not alike: of poses unlike those of its training the lifter knows more, of jitter the network; their
    mean errs less than either (`experiments.tcmr_tables`). Bones have constant lengths, and the size is that of the
    lift, so that the path, the keypoints and a stated height still fit. fps: frames/s; smoothing: 0 to 1.
    """
    size = median_lengths(lifted, H36M).sum()
    joints = (1 - SHARE) * lifted + SHARE * told * (size / median_lengths(told, H36M).sum())
    joints = smooth(joints, fps, smoothing)
    lengths = median_lengths(joints, H36M)
    return hold_bone_lengths(joints, H36M, lengths * (size / lengths.sum()))


def refined_body(motion: Motion, told: SeenPerson, bodies: BodyMotion, model: BodyModel) -> BodyMotion:
    """The bodies in the frame of a motion and at its rate, their H36M-17 root on the motion's."""
    part = with_path(motion.slice(told.span.start, told.span.stop))
    matrices = rotvec_to_matrix(bodies.rotations.astype(np.float64))
    if not same_rate(part.fps, FPS):
        matrices = rot6d_to_matrix(_at_rate(matrix_to_rot6d(matrices), part))
    matrices[:, 0] = told.rotation @ matrices[:, 0]
    placed = placed_body(matrices, bodies.shape, part.trajectory, model)
    return BodyMotion(_padded(placed.rotations, motion, told.span), _padded(placed.trajectory, motion, told.span),
                      bodies.shape, model.name, motion.fps, motion.frame)  # fmt: skip


def _at_rate(values: np.ndarray, motion: Motion) -> np.ndarray:
    """Values (n, ...) at `FPS` at the frames of a motion."""
    return values if same_rate(motion.fps, FPS) else resample_values(values, FPS, motion.fps, len(motion))


def _padded(values: np.ndarray, motion: Motion, span: slice) -> np.ndarray:
    """Values of the frames of a span, NaN in all others, and where the motion has a gap."""
    whole = np.full((len(motion), *values.shape[1:]), np.nan, np.float32)
    whole[span] = values
    whole[~present_frames(with_path(motion))] = np.nan
    return whole


def tcmr_bodies(network: nn.Module, seen: SeenMotion, body: BodyModel) -> BodyMotion:
    """The body in every frame of one piece, told by a `Tcmr` from the window around it; frame ``world``, `FPS`.

    Windows that reach beyond the ends repeat the first and the last frame. The shape is the mean over the frames, the
    root's path that of the piece.
    """
    rotations, shapes = [], []
    for start in range(0, seen.frames, CHUNK):
        windows = _windows(seen, np.arange(start, min(start + CHUNK, seen.frames)), network.frames)
        lifted = heading_of(windows.joints.mean(1, keepdims=True), windows.root[:, :1])
        turn = np.broadcast_to(lifted.rotation, (len(windows), network.frames, 3, 3))
        with torch.inference_mode():
            state = network(torch.from_numpy(strip_features(windows, Heading(lifted.origin, turn)))).joined
        told = state.rotations.numpy().astype(np.float64)
        told[:, 0] = np.swapaxes(lifted.rotation[:, 0], -1, -2) @ told[:, 0]
        rotations.append(told)
        shapes.append(state.shape.numpy())
    return placed_body(np.concatenate(rotations), np.concatenate(shapes).mean(0), seen.root[0], body)


def placed_body(rotations: np.ndarray, shape: np.ndarray, root: np.ndarray, body: BodyModel) -> BodyMotion:
    """A body whose H36M-17 root is at root (T, 3) metres; rotations (T, K, 3, 3), the root's to world axes; `FPS`."""
    points = body.points("h36m17", rotations, np.zeros((len(root), 3)), shape)
    return BodyMotion(matrix_to_rotvec(rotations), root - points[:, 0], shape, body.name, FPS, "world")


def _windows(seen: SeenMotion, centres: np.ndarray, frames: int) -> SeenMotion:
    """The windows of a piece around some of its frames, as pieces."""
    chosen = np.clip(centres[:, None] + np.arange(frames) - frames // 2, 0, seen.frames - 1)
    arrays = {name: getattr(seen, name)[0][chosen] for name in ("joints", "root", "sigma")}
    if seen.has_evidence:
        arrays |= {name: getattr(seen, name)[0][chosen] for name in ("rays", "scores", "root_in_camera")}
        arrays["view"] = np.repeat(seen.view, len(centres), axis=0)
    return SeenMotion(**arrays)
