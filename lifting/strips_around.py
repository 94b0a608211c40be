"""HMMR at work: bodies of a lifted clip, and the past and the future of a person from one frame alone.

Kanazawa, Zhang, Felsen and Malik, "Learning 3D human dynamics from video", CVPR 2019.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lifting.anatomy import H36M
from lifting.body import load_body
from lifting.body.model import BodyModel
from lifting.cameras import Camera
from lifting.checkpoints import file_hash
from lifting.headings import heading_of
from lifting.keypoints import Keypoints2D
from lifting.models.strips.files import load_strips
from lifting.models.strips.hmmr import Hmmr
from lifting.models.strips.readout import BodyState
from lifting.motion import BodyMotion, Motion, Person, Take
from lifting.predict import Lifter, default_lifter
from lifting.rotations import rotvec_to_matrix
from lifting.seen_motion import SeenMotion
from lifting.seen_person import FPS, camera_from_world, check_motion, keypoint_rays, see_person, with_path
from lifting.strip_features import strip_features, without_motion
from lifting.strips_refine import placed_body
from lifting.world import place_in_world, present_frames, presented

WEIGHTS = Path(__file__).parent / "weights" / "hmmr.safetensors"
HELD = 33  # frames for which the lifter is shown a single picture: error 107 mm at 17, 93 at 65 and more, 359 at one


class AroundFrame(NamedTuple):
    """A person before, at and after one frame: three frames in world axes at the rate of their distance.

    body: the embedded body. motion: its H36M-17 points. frames: how far they are from the one frame, at 25 frames per
    second: (-5, 0, 5) with the weights of this project, so that `body` and `motion` have 5 frames per second.
    """

    body: BodyMotion
    motion: Motion
    frames: tuple[int, ...]


def hmmr_bodies(network: Hmmr, seen: SeenMotion, body: BodyModel) -> BodyMotion:
    """The body in every frame of one piece, told by HMMR from up to six frames on either side; frame ``world``.

    The shape is the mean over the frames, the root's way that of the piece; 25 frames per second.
    """
    with torch.inference_mode():
        state = network(torch.from_numpy(strip_features(seen))).present
    rotations = _to_world(state, heading_of(seen.joints, seen.root).rotation[0])
    return placed_body(rotations, state.shape[0].mean(0).numpy(), seen.root[0], body)


def around_one_frame(
    source: Person | Motion,
    frame: int,
    take: Take | None = None,
    *,
    weights: str | Path = WEIGHTS,
    lifter: Lifter | None = None,
) -> AroundFrame:
    """What a person did just before and will do just after one frame, from that frame alone (HMMR's hallucinator).

    source: a person, or a motion in the layout h36m17. take: that of the person; with it the frame's keypoints are
    lifted again by `lifter` or the default one, without the frames around them. Else, and for a motion in the world,
    the pose is taken as it is, lifted among others. frame: counted from 0, one in which the person is present.

    Of the other frames only the direction of gravity is used. The root stays where it is: one frame does not tell how
    fast somebody goes (`experiments.hmmr_tables`). Raises ValueError for another layout and for a frame that is not
    there or in which the person is absent; FileNotFoundError for missing weights.
    """
    motion = source.motion if isinstance(source, Person) else source
    _check_frame(motion, frame)
    seen = _seen_alone(source, frame, take, lifter)
    network, body = load_strips(weights, "hmmr")[0], load_body("lite")
    with torch.inference_mode():
        lift = network.hallucinate(torch.from_numpy(without_motion(strip_features(seen))))
    states = dict(sorted({**lift.deltas, 0: lift.present}.items()))
    turn = heading_of(seen.joints, seen.root).rotation[0]
    rotations = np.concatenate([_to_world(state, turn) for state in states.values()])
    root = np.repeat(seen.root[0], len(states), 0)
    told = placed_body(rotations, lift.present.shape[0, 0].numpy(), root, body)
    told = told.replace(fps=FPS / np.diff(list(states)).max())
    return AroundFrame(told, _points_of(told, body), tuple(states))


def _check_frame(motion: Motion | None, frame: int) -> None:
    check_motion(motion)
    if not 0 <= frame < len(motion):
        raise ValueError(f"got frame {frame} of a motion of {len(motion)} frames, expected 0 to {len(motion) - 1}.")
    if not (present := present_frames(with_path(motion)))[frame]:
        near = np.flatnonzero(present)[np.abs(np.flatnonzero(present) - frame).argmin()]
        raise ValueError(f"the person is not in sight in frame {frame}; take frame {near}, the nearest one.")


def _seen_alone(source: Person | Motion, frame: int, take: Take | None, lifter: Lifter | None) -> SeenMotion:
    """One piece of one frame in world axes; lifted again by itself where there are keypoints and their camera."""
    motion = with_path(source.motion if isinstance(source, Person) else source)
    rotation, translation = (values[frame] if values.ndim > still else values for values, still in zip(
        camera_from_world(motion, take), (2, 1), strict=True))  # fmt: skip
    if isinstance(source, Person) and take is not None and motion.frame == "camera":
        keypoints = source.keypoints.slice(frame, frame + 1)
        return _lifted_alone(keypoints, take.camera, rotation, translation, lifter or default_lifter())
    part = motion.slice(frame, frame + 1)
    upright = part.replace(joints=part.joints @ rotation, trajectory=(part.trajectory - translation) @ rotation,
                           frame="world")  # fmt: skip
    return see_person(upright).seen


def _lifted_alone(keypoints: Keypoints2D, camera: Camera, rotation: np.ndarray, translation: np.ndarray,
                  lifter: Lifter) -> SeenMotion:  # fmt: skip
    """The one frame of keypoints lifted alone; rotation and translation: to camera axes from world axes."""
    held = keypoints.replace(xy=np.repeat(keypoints.xy, HELD, 0), score=np.repeat(keypoints.score, HELD, 0))
    still = lifter.lift(held, camera, refine=False).motion.slice(HELD // 2, HELD // 2 + 1)
    rays, scores = keypoint_rays(keypoints, camera)
    values = (still.joints @ rotation, (still.trajectory - translation) @ rotation, still.sigma, rays, scores,
              rotation, still.trajectory)  # fmt: skip
    return SeenMotion(*(np.asarray(value, np.float32)[None] for value in values))


def _to_world(state: BodyState, turn: np.ndarray) -> np.ndarray:
    """Rotations (T, K, 3, 3) of one piece, the root's to world axes; turn: (T, 3, 3) headings from world axes."""
    rotations = state.rotations[0].numpy().astype(np.float64)
    rotations[:, 0] = np.swapaxes(turn, -1, -2) @ rotations[:, 0]
    return rotations


def _points_of(told: BodyMotion, body: BodyModel) -> Motion:
    """The H36M-17 motion of a body."""
    points = body.points("h36m17", rotvec_to_matrix(told.rotations), told.trajectory, told.shape)
    return Motion(points - points[:, :1], points[:, 0], None, H36M, told.fps, told.frame)


def take_around(
    take: Take, frame: int, *, weights: str | Path = WEIGHTS, lifter: Lifter | None = None
) -> tuple[Take, dict]:
    """Three moments of everybody in sight at one frame of a take, in the world, and a report of plain facts.

    The take has the frames of `AroundFrame` and bodies; keypoints are those of the one frame. The report holds, per
    person, how far what was lifted then lies from what is told of it and from the pose of the one frame, mm, None where
    nothing was lifted. Raises ValueError as `around_one_frame`, and where nobody is in sight.
    """
    take = take if "world" in take.metadata else place_in_world(take)
    if not 0 <= frame < len(take):
        raise ValueError(f"got the frame {frame}, expected 0 to {len(take) - 1}: the take {take.name!r} has no other.")
    seen = [person for person in take.people if person.motion is not None
            and present_frames(with_path(person.motion))[frame]]  # fmt: skip
    if not seen:
        raise ValueError(f"nobody is in sight in frame {frame} of {take.name!r}; take another one.")
    told = [around_one_frame(person, frame, take, weights=weights, lifter=lifter) for person in seen]
    first = told[0]
    camera = presented(take).camera
    poses = {name: value[frame] for name, still in (("rotation", 2), ("translation", 1))
             if (value := getattr(camera, name)).ndim > still}  # fmt: skip
    people = [Person(person.id, _keypoints_of(person, frame, first), around.motion, around.body)
              for person, around in zip(seen, told, strict=True)]  # fmt: skip
    about = {"frame": frame, "time_s": float(take.times[frame]), "frames": list(first.frames), "fps": FPS,
             "weights": file_hash(weights)}  # fmt: skip
    metadata = {key: value for key, value in take.metadata.items() if key not in ("world", "refined", "future")}
    made = take.replace(fps=first.motion.fps, times=take.times[frame] + np.array(first.frames) / FPS, people=people,
                        camera=replace(camera, **poses), metadata={**metadata, "around": about})  # fmt: skip
    errors = [{"id": person.id, **_errors(around, person, take, frame)}
              for person, around in zip(seen, told, strict=True)]  # fmt: skip
    return made, {"name": take.name, **about, "people": errors}


def _keypoints_of(person: Person, frame: int, around: AroundFrame) -> Keypoints2D:
    """The keypoints of one frame among three of which nothing else is seen."""
    now = np.array(around.frames) == 0
    return person.keypoints.replace(
        xy=np.where(now[:, None, None], person.keypoints.xy[frame], np.nan),
        score=np.where(now[:, None], person.keypoints.score[frame], 0.0), fps=around.motion.fps)  # fmt: skip


def _errors(around: AroundFrame, person: Person, take: Take, frame: int) -> dict[str, float | None]:
    """MPJPE, mm, of the past and the future, and of standing still, against what was lifted then."""
    lifted = person.motion if person.world is None else person.world
    present, errors = around.frames.index(0), {}
    for number, name in ((0, "past"), (len(around.frames) - 1, "future")):
        there = frame + round(around.frames[number] * take.fps / FPS)
        known = 0 <= there < len(lifted) and np.isfinite(lifted.joints[there]).all()
        for title, said in (("", number), ("constant_", present)):
            misses = np.linalg.norm(around.motion.joints[said] - lifted.joints[there], axis=-1) if known else None
            errors[f"{title}{name}_mm"] = round(1000 * float(misses.mean()), 1) if known else None
    return errors
