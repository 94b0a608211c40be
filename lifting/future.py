"""What people will do next: poses and path of the frames to come, predicted from the last second.

The task is that of Zhang et al., "Predicting 3D Human Dynamics from Video" (PHD, ICCV 2019), from lifted motion instead
of image features. Predictors (`lifting.forecasters`) see the past in world axes, +z up, at 25 frames per second; here
motion is brought there and back. Their poses give directions, the past the lengths of the bones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lifting.assumptions import announce
from lifting.checkpoints import file_hash
from lifting.continuation import check_seconds, fit_with_future
from lifting.foot_locking import hold_bone_lengths, median_lengths
from lifting.forecasters import FPS, WEIGHTS, load_forecaster, roll_on, roll_on_samples
from lifting.motion import Motion, Person, Take
from lifting.resampling import grid_length, resample_values
from lifting.seen_motion import SeenMotion
from lifting.seen_person import camera_from_world, check_motion, known_sigma, seen_span, with_path
from lifting.world import present_frames, present_part

DEFAULT_PREDICTOR = "dct_mlp"
FADED_SECONDS = 0.08  # in which the offset at the seam falls to a third
MOST_ABSENT = 1.0  # seconds that somebody may be out of sight at the end


def future(
    source: Motion | Person | Take,
    seconds: float = 1.0,
    *,
    predictor: str | Path | Any = DEFAULT_PREDICTOR,
    samples: int = 0,
    body: bool = False,
    seed: int = 0,
) -> Motion | Person | Take | list:
    """Predict the next frames of a motion, or of everybody in a take.

    Args:
        source: a motion of the layout h36m17; a person; or a take. Of people in the world, that motion is continued
            (`Person.world`), else the raw one.
        seconds: how far, more than 0 and at most 10; rounded to whole frames of the motion's rate, at least one.
        predictor: a name in ``lifting.forecasters.FORECASTERS``, a weights file, or an object of that protocol.
        samples: how many different futures to draw; 0 for the one that errs least.
        body: fit one body to past and future together. A motion becomes a person then, who can hold it.
        seed: of the samples; the same seed draws the same ones.

    Returns:
        Of a motion, the motion of the frames after its last one, in its frame and at its rate, with sigma; of a person
        or a take, the same with `Person.future` (and with `body` also `Person.body` and `Person.future_body`), and
        ``metadata["future"]``, which says by what it was predicted, and what was assumed. With `samples` a list.

    Bones have the median lengths of the past. What is assumed is announced by an `AssumptionWarning`, of a take noted
    in ``metadata["future"]["warnings"]``. Raises ValueError for a horizon or number of samples that makes no sense, for
    another layout, nobody in sight for `MOST_ABSENT` seconds, and unknown predictors; FileNotFoundError for a weights
    file that is not there.
    """
    from lifting.exporting import as_take

    check_seconds(seconds)
    if isinstance(samples, bool) or int(samples) != samples or samples < 0:
        raise ValueError(f"got {samples} samples, expected a whole number from 0.")
    take = as_take(source)
    if body and isinstance(source, Person) and source.world is not None:
        raise ValueError(f"got person {source.id} of a take in the world without the take, which knows where "
                         "the camera stands; pass the take to fit bodies to its future.")
    takes = predict_take(take, seconds, predictor, samples, seed)
    if body:
        from lifting.outputs import recorded_body

        takes = [fit_with_future(made, body=recorded_body(take) or "lite") for made in takes]
    if isinstance(source, Take):
        return takes if samples else takes[0]
    _announce_all(takes[0].metadata["future"]["warnings"])
    people = [made.people[0] for made in takes]
    made = people if isinstance(source, Person) or body else [person.future for person in people]
    return made if samples else made[0]


def as_forecaster(predictor: str | Path | Any) -> Any:
    """The predictor of a name or a weights file; an object of the protocol as it is."""
    return load_forecaster(predictor) if isinstance(predictor, str | Path) else predictor


def _weights(predictor: str | Path | Any) -> str | None:
    """Name and fingerprint of the weights' file; None without one."""
    if not isinstance(predictor, str | Path):
        return None
    places = (Path(predictor), *(WEIGHTS / f"{name}.safetensors" for name in (f"future_{predictor}", predictor)))
    path = next((place for place in places if place.is_file()), None)
    return None if path is None else f"{path.name} {file_hash(path)}"


def _announce_all(sentences: list[str]) -> None:
    for sentence in sentences:
        announce(sentence)


@dataclass
class _Notes:
    """Sentences on what was assumed, each once, with whom it is about where there are several."""

    sentences: list[str] = field(default_factory=list)
    prefix: str = ""

    def add(self, sentence: str) -> None:
        if self.prefix + sentence not in self.sentences:
            self.sentences.append(self.prefix + sentence)


def predict_take(
    take: Take, seconds: float, predictor: str | Path | Any, samples: int = 0, seed: int = 0
) -> list[Take]:
    """The take with everybody's future, once, or once for each of the `samples`; see `future`.

    Who was not lifted, or has been out of sight for too long, has none, and a warning says so; where nobody has one the
    first reason is raised as ValueError.
    """
    motions = motions_to_continue(take)
    if not motions:
        raise ValueError(f"nobody in {take.name!r} has a 3D motion to continue; lift the keypoints with lift run.")
    forecaster, notes, futures, failures = as_forecaster(predictor), _Notes(), {}, []
    frames = max(1, round(seconds * take.fps))
    rng = np.random.default_rng(seed)
    for number, motion in motions.items():
        notes.prefix = f"person {number}: " if len(motions) > 1 else ""
        try:
            place = camera_from_world(motion, take, notes.add)
            futures[number] = continue_motion(motion, frames, forecaster, place, notes.add, samples, rng)
        except ValueError as error:
            failures.append(error)
            notes.add(f"no future: {error}")
    if not futures:
        raise failures[0]
    about = {"predictor": forecaster.name, "weights": _weights(predictor), "seconds": frames / take.fps,
             "frames": frames, "warnings": notes.sentences}  # fmt: skip
    return [_with_futures(take, {number: made[k] for number, made in futures.items()}, about)
            for k in range(max(samples, 1))]  # fmt: skip


def _with_futures(take: Take, futures: dict[int, Motion], about: dict) -> Take:
    people = tuple(replace(person, future=futures.get(person.id), future_body=None) for person in take.people)
    return take.replace(people=people, metadata={**take.metadata, "future": about})


def motions_to_continue(take: Take) -> dict[int, Motion]:
    """Everybody's motion by id: that in the world where the whole take was placed there, else the raw one."""
    lifted = [person for person in take.people if person.motion is not None]
    in_world = all(person.world is not None for person in lifted)
    return {person.id: person.world if in_world else person.motion for person in lifted}


def continue_motion(
    motion: Motion,
    frames: int,
    forecaster: Any,
    place: tuple[np.ndarray, np.ndarray],
    note: Callable[[str], None],
    samples: int = 0,
    rng: np.random.Generator | None = None,
) -> list[Motion]:
    """The next `frames` frames of one motion, or as many times as there are samples.

    place: rotation and translation (metres) to the motion's frame from one with +z up, as of
    `lifting.seen_person.camera_from_world`; of a moving camera the future is seen by the last one. note: is called with
    every sentence on what was assumed. Raises ValueError for a motion of another layout and somebody out of sight.
    """
    absent, fps = _frames_since_seen(motion, note), motion.fps
    upright = in_world_axes(motion, place)
    rotation, translation = np.reshape(place[0], (-1, 3, 3))[-1], np.reshape(place[1], (-1, 3))[-1]
    seen = _seen_by_forecaster(upright, forecaster.context, note)
    wanted = max(grid_length(absent + frames + 1, fps, FPS) - 1, 2)
    if wanted > forecaster.longest:
        note(f"the predictor {forecaster.name} says {forecaster.longest / FPS:g} s at once; what it said was taken for "
             "seen to go on from there")
    joints, root, sigma = _forecast(forecaster, seen, wanted, samples, rng)
    joints, root = _without_jump(seen.joints[0, -1], joints), _without_jump(seen.root[0, -1], root)
    lengths = median_lengths(upright.joints.astype(np.float64), motion.skeleton)

    def back(last: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Values at the motion's rate, the last seen one among them so that they go on from it."""
        return resample_values(np.concatenate([last, after]), FPS, fps, absent + frames + 1)[1 + absent :]

    # A cubic through doubts that grow may fall between them.
    made, doubt = [], np.maximum.accumulate(np.maximum(back(seen.sigma[0, -1:], sigma), 0.0))
    for poses, path in zip(joints, root, strict=True):
        held = hold_bone_lengths(back(seen.joints[0, -1:], poses), motion.skeleton, lengths) @ rotation.T
        places = None if motion.trajectory is None else back(seen.root[0, -1:], path) @ rotation.T + translation
        made.append(motion.replace(joints=held, trajectory=places, sigma=doubt))
    return made


def in_world_axes(motion: Motion, place: tuple[np.ndarray, np.ndarray]) -> Motion:
    """A motion from its first to its last frame in sight, gaps bridged, moved by the inverse of `place`."""
    span, part = seen_span(motion), present_part(with_path(motion))
    rotation, translation = (values[span] if values.ndim > still else values
                             for values, still in zip(place, (2, 1), strict=True))  # fmt: skip
    root = ((part.trajectory - translation)[:, None] @ rotation)[:, 0]
    return part.replace(joints=part.joints @ rotation, trajectory=root, frame="world")


def _frames_since_seen(motion: Motion, note: Callable[[str], None]) -> int:
    """How many frames come after the last one in sight; ValueError for too many."""
    check_motion(motion)
    known = np.flatnonzero(present_frames(with_path(motion)))
    absent = len(motion) - 1 - int(known[-1])
    if absent > MOST_ABSENT * motion.fps:
        raise ValueError(f"last seen {absent / motion.fps:.1f} s before the end, expected at most {MOST_ABSENT:g} s; "
                         f"predict from frame {known[-1]}, the last one in sight.")
    if absent:
        note(f"last seen {absent} frames before the end: the future goes on from there")
    if missing := int((np.diff(known) - 1)[-round(motion.fps) :].sum()):
        note(f"{missing} frames without a pose in the last second were bridged by straight lines")
    return absent


def _seen_by_forecaster(motion: Motion, context: int, note: Callable[[str], None]) -> SeenMotion:
    """The last `context` frames, at the predictors' rate, of a motion without gaps in world axes."""
    known = min(context, frames_at_predictors_rate(motion))
    if known < context:
        note(f"the past has {known} {'frame' if known == 1 else 'frames'} at {FPS:g}/s, the predictor wants {context}: "
             "the first one was repeated before it")
    return SeenMotion(*(np.concatenate([np.repeat(values[:1], context - known, axis=0), values])[None]
                        for values in at_predictors_rate(motion, known)))  # fmt: skip


def frames_at_predictors_rate(motion: Motion) -> int:
    """How many frames at `FPS` a motion has."""
    return int(np.floor((len(motion) - 1) * FPS / motion.fps + 1e-6)) + 1


def at_predictors_rate(motion: Motion, frames: int) -> list[np.ndarray]:
    """Joints (n, 17, 3), root (n, 3) and sigma (n, 17) of the last `frames` frames at `FPS`, of a motion without gaps.

    The motion's last frame is the last of them.
    """
    arrays = (motion.joints, motion.trajectory, known_sigma(motion))
    # Backwards in time, so that the last frame is one of the grid's.
    return [resample_values(np.asarray(values, np.float64)[::-1], motion.fps, FPS, frames)[::-1] for values in arrays]


def _without_jump(last: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Frames (K, n, ...) that were said, made to go on smoothly from the last seen one, (...).

    A network says where the person truly is, not where the lift was last: that difference, of the last frame from the
    straight line through the first two, fades away. On lifted motion it costs half a millimetre at 80 ms, nothing at
    160 ms.
    """
    offset = last - (2 * said[:, :1] - said[:, 1:2])
    fade = np.exp(-np.arange(1, said.shape[1] + 1) / (FPS * FADED_SECONDS))
    return said + offset * fade.reshape(-1, *(1,) * (said.ndim - 2))


def _forecast(
    forecaster: Any, seen: SeenMotion, frames: int, samples: int, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joints (K, frames, 17, 3), root (K, frames, 3) and sigma (frames, 17): what is expected, or K samples of it."""
    if not samples:
        said = roll_on(forecaster, seen, frames)
        return said.joints, said.root, said.sigma[0]
    if not hasattr(forecaster, "samples"):
        raise ValueError(f"the predictor {forecaster.name} knows one future only, got {samples} samples; leave them "
                         "out, or take another predictor.")
    said = roll_on_samples(forecaster, seen, frames, samples, rng)
    return said.joints[0], said.root[0], said.sigma[0]
