"""What a result file holds, whatever its format: named arrays and one JSON object of metadata.

Arrays, for P people, T frames, J joints of the motion and D of the detector: ``ids`` (P,), ``times`` (T,) seconds,
``keypoints`` (P, T, D, 2) pixels, ``scores`` (P, T, D), and where motion was lifted ``joints`` (P, T, J, 3) metres
relative to the root, ``trajectory`` (P, T, 3) metres, ``sigma`` (P, T, J) metres. NaN where a person is absent or has
no such value.

Where bodies were fitted, with at most K joints and S shape coefficients: ``body_rotations`` (P, T, K, 3) rotation
vectors in radians (each joint's axes to its parent's, joint 0 to the frame), ``body_trajectory`` (P, T, 3) metres, the
place of joint 0, ``body_shape`` (P, S), and where known ``body_joint_sigma`` (P, T, K) metres and
``body_rotation_sigma`` (P, T, K) radians. People may have different bodies: each one's name and numbers of joints and
coefficients are in the metadata, what is beyond them is NaN.

Where the take was placed in the world: ``world_joints`` (P, T, J, 3), ``world_trajectory`` (P, T, 3) and
``world_sigma`` (P, T, J), metres in world axes, and ``contacts`` (P, T, 4), probabilities that heels and toes stand, in
the order of the metadata's ``contact_points``. How the world lies to the camera is in the metadata's ``run.world``.

Where the future was predicted, of Tf frames after the last: ``future_joints`` (P, Tf, J, 3), ``future_trajectory`` (P,
Tf, 3) and ``future_sigma`` (P, Tf, J), metres, and with bodies ``future_body_rotations`` (P, Tf, K, 3) and so on, as
above, in the axes of the metadata's ``future_frame``. By what it was predicted is in ``run.future``.

The format's version is the lowest that says all: 1, and 2 for a take with fitted bodies, so that a library too old to
know bodies says so instead of dropping them. Arrays that are not known are not read: a library that does not know the
world reads the raw motion beside it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import CONTACT_POINTS, BodyMotion, Motion, Person, Take
from lifting.skeletons import Skeleton

FORMAT, VERSION = "keypoint-lift result", 2
UNITS = {
    "times": "s", "keypoints": "px", "scores": "1", "joints": "m", "trajectory": "m", "sigma": "m",
    "body_rotations": "rad", "body_trajectory": "m", "body_shape": "1", "body_joint_sigma": "m",
    "body_rotation_sigma": "rad", "world_joints": "m", "world_trajectory": "m", "world_sigma": "m", "contacts": "1",
    "future_joints": "m", "future_trajectory": "m", "future_sigma": "m", "future_body_rotations": "rad",
    "future_body_trajectory": "m", "future_body_shape": "1", "future_body_joint_sigma": "m",
    "future_body_rotation_sigma": "rad",
}  # fmt: skip
MOTION_PARTS = ("joints", "trajectory", "sigma")
BODY_SIGMAS = ("joint_sigma", "rotation_sigma")
AXES = {
    "camera": "+x right, +y down, +z forward, origin in the camera; joints relative to the root",
    "world": "right-handed, +z up, origin on the floor; joints relative to the root",
}
IMAGE_AXES = "origin top left, +x right, +y down"


def pack(take: Take, tabular: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the metadata of a take; a `tabular` one has no bodies and no futures, only rows of its frames."""
    if tabular:
        nothing = {"body": None, "future": None, "future_body": None}
        take = take.replace(people=[dataclasses.replace(person, **nothing) for person in take.people])
    motions = [person.motion for person in take.people]
    lifted = next((motion for motion in motions if motion is not None), None)
    points = [person.keypoints for person in take.people]
    columns = points[0].skeleton.num_joints if points else 0
    frames = len(take)
    arrays = {
        "ids": np.array([person.id for person in take.people], np.int64),
        "times": take.times,
        "keypoints": _stack([keypoints.xy for keypoints in points], (frames, columns, 2)),
        "scores": _stack([keypoints.score for keypoints in points], (frames, columns)),
    }
    if lifted is not None:
        arrays |= _pack_motions(motions, lifted, "")
    arrays |= _pack_world(take.people, frames)
    arrays |= _pack_bodies([person.body for person in take.people], frames, "body_")
    arrays |= _pack_futures(take.people)
    return arrays, _describe(take, lifted, arrays)


def _pack_futures(people: Sequence[Person]) -> dict[str, np.ndarray]:
    """Predicted motions and bodies; nothing where nobody has them."""
    futures = [person.future for person in people]
    known = next((future for future in futures if future is not None), None)
    if known is None:
        return {}
    bodies = [person.future_body for person in people]
    return {**_pack_motions(futures, known, "future_"), **_pack_bodies(bodies, len(known), "future_body_")}


def _pack_motions(motions: Sequence[Motion | None], known: Motion, prefix: str) -> dict[str, np.ndarray]:
    """Joints, trajectory and sigma of motions that all have the layout and length of `known`, one of them."""
    frames, joints = known.joints.shape[:2]
    shapes = dict(zip(MOTION_PARTS, ((frames, joints, 3), (frames, 3), (frames, joints)), strict=True))
    return {prefix + name: _stack([getattr(motion, name, None) for motion in motions], shape)
            for name, shape in shapes.items()}


def _pack_world(people: Sequence[Person], frames: int) -> dict[str, np.ndarray]:
    """World motions and contacts; nothing where nobody has them."""
    worlds, contacts = [person.world for person in people], [person.contacts for person in people]
    known = next((world for world in worlds if world is not None), None)
    arrays = {} if known is None else _pack_motions(worlds, known, "world_")
    if any(part is not None for part in contacts):
        arrays["contacts"] = _stack(contacts, (frames, len(CONTACT_POINTS)))
    return arrays


def _pack_bodies(bodies: Sequence[BodyMotion | None], frames: int, prefix: str) -> dict[str, np.ndarray]:
    """The arrays of the fitted bodies; none when nobody has one."""
    fitted = [body for body in bodies if body is not None]
    if not fitted:
        return {}
    joints, shape = max(body.rotations.shape[1] for body in fitted), max(len(body.shape) for body in fitted)
    shapes = {"rotations": (frames, joints, 3), "trajectory": (frames, 3), "shape": (shape,)}
    shapes |= {name: (frames, joints) for name in BODY_SIGMAS
               if any(getattr(body, name) is not None for body in fitted)}
    return {prefix + name: _stack([getattr(body, name, None) for body in bodies], shape)
            for name, shape in shapes.items()}


def _stack(parts: list, shape: tuple[int, ...]) -> np.ndarray:
    """(P, *shape) float32, NaN for the people who have no such array, and beyond the end of a smaller one."""
    stacked = np.full((len(parts), *shape), np.nan, np.float32)
    for row, part in zip(stacked, parts, strict=True):
        if part is not None:
            row[tuple(map(slice, part.shape))] = part
    return stacked


def _describe(take: Take, lifted: Motion | None, arrays: Mapping) -> dict[str, Any]:
    frame = next((part.frame for person in take.people for part in (person.motion, person.body) if part), None)
    future_frame = next((person.future.frame for person in take.people if person.future is not None), None)
    return {
        "format": FORMAT,
        "format_version": VERSION if "body_rotations" in arrays else 1,
        "name": take.name,
        "fps": take.fps,
        "num_frames": len(take),
        "image_size": list(take.image_size),
        "units": {name: unit for name, unit in UNITS.items() if name in arrays},
        "frame": frame,
        "axes": {"joints": AXES[frame] if lifted else None, "keypoints": IMAGE_AXES,
                 **({"body": AXES[frame].partition(";")[0]} if "body_rotations" in arrays else {}),
                 **({"world_joints": AXES["world"]} if "world_joints" in arrays else {})},
        "skeleton": _skeleton_of(take.people),
        **({"future_frame": future_frame} if future_frame else {}),
        **({"contact_points": list(CONTACT_POINTS)} if "contacts" in arrays else {}),
        "keypoint_skeleton": take.people[0].keypoints.skeleton.to_dict() if take.people else None,
        "camera": take.camera.to_dict(),
        "assumed": list(take.assumed),
        "people": [_describe_person(person, take.metadata) for person in take.people],
        "run": take.metadata,
    }


def _skeleton_of(people: Sequence[Person]) -> dict[str, Any] | None:
    """The layout of the motions, raw or in the world; None without any."""
    motions = (motion for person in people for motion in (person.motion, person.world, person.future)
               if motion is not None)  # fmt: skip
    return next((motion.skeleton.to_dict() for motion in motions), None)


def _describe_motion(motion: Motion | None) -> dict[str, bool]:
    return {"motion": motion is not None, "trajectory": motion is not None and motion.trajectory is not None,
            "sigma": motion is not None and motion.sigma is not None}


def _describe_person(person: Person, metadata: Mapping) -> dict[str, Any]:
    """Which parts this person has: NaN alone would not tell "none" from "absent in every frame"."""
    return {"id": person.id, **_describe_motion(person.motion),
            **({"world": _describe_motion(person.world)} if person.world is not None else {}),
            **({"contacts": True} if person.contacts is not None else {}),
            **({"future": _describe_motion(person.future)} if person.future is not None else {}),
            **({"future_body": _describe_body(person.future_body, metadata)} if person.future_body is not None else {}),
            **({"body": _describe_body(person.body, metadata)} if person.body is not None else {})}


def _describe_body(body: BodyMotion, metadata: Mapping) -> dict[str, Any]:
    """What the arrays do not say of a body; its joints' names and parents where the take's metadata holds them."""
    known = metadata.get("bodies")
    names = known.get(body.body) if isinstance(known, Mapping) else None
    return {"name": body.body, "num_joints": body.rotations.shape[1], "num_shape": len(body.shape),
            "frame": body.frame, **{name: getattr(body, name) is not None for name in BODY_SIGMAS},
            **{key: names[key] for key in ("joints", "parents") if isinstance(names, Mapping) and key in names}}


def unpack(arrays: Mapping[str, Any], metadata: Any, where: object) -> Take:
    """The take that :func:`pack` took apart; ValueError naming the file `where` when the parts do not fit."""
    check_format(metadata, where)
    try:
        people = tuple(_unpack_person(arrays, metadata, row) for row in range(len(metadata["people"])))
        camera = Camera.from_dict(metadata["camera"])
        return Take(metadata["name"], tuple(metadata["image_size"]), metadata["fps"], arrays["times"], camera, people,
                    tuple(metadata["assumed"]), metadata["run"])
    except KeyError as error:
        raise ValueError(f"{str(where)!r} is a damaged result: it lacks {error}; write it again.") from error
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{str(where)!r} is a damaged result: {error}") from error


def check_format(metadata: Any, where: object) -> None:
    """Raise ValueError unless the metadata is that of a result this version can read."""
    if not isinstance(metadata, Mapping) or metadata.get("format") != FORMAT:
        raise ValueError(f"{str(where)!r} is not a result of this library; expected what lift run or save has written.")
    version = metadata.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ValueError(f"{str(where)!r} has format version {version!r}, this library reads 1 to {VERSION}; "
                         "update it.")


def as_float32(values: Any) -> np.ndarray:
    """Numbers from a text file as float32; what is too large becomes infinite, which the types refuse in a sentence."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(np.float32)


def _unpack_person(arrays: Mapping[str, Any], metadata: Mapping, row: int) -> Person:
    about = metadata["people"][row]
    if int(arrays["ids"][row]) != about["id"]:
        raise ValueError(f"its ids {list(arrays['ids'])} are not those of its metadata.")
    keypoints = Keypoints2D(arrays["keypoints"][row], arrays["scores"][row],
                            Skeleton.from_dict(metadata["keypoint_skeleton"]), tuple(metadata["image_size"]),
                            metadata["fps"])
    motion = _unpack_motion(arrays, about, metadata, row, "", metadata["frame"])
    world = _unpack_motion(arrays, about.get("world"), metadata, row, "world_", "world")
    contacts = arrays["contacts"][row] if about.get("contacts") else None
    body = _unpack_body(arrays, about.get("body"), metadata["fps"], row, "body_")
    future = _unpack_motion(arrays, about.get("future"), metadata, row, "future_", metadata.get("future_frame"))
    future_body = _unpack_body(arrays, about.get("future_body"), metadata["fps"], row, "future_body_")
    return Person(about["id"], keypoints, motion, body, world, contacts, future, future_body)


def _unpack_motion(
    arrays: Mapping[str, Any], about: Mapping | None, metadata: Mapping, row: int, prefix: str, frame: str
) -> Motion | None:
    if about is None or not about["motion"]:
        return None
    trajectory, sigma = (arrays[prefix + name][row] if about[name] else None for name in ("trajectory", "sigma"))
    return Motion(arrays[f"{prefix}joints"][row], trajectory, sigma, Skeleton.from_dict(metadata["skeleton"]),
                  metadata["fps"], frame)


def _unpack_body(
    arrays: Mapping[str, Any], about: Mapping | None, fps: float, row: int, prefix: str
) -> BodyMotion | None:
    if about is None:
        return None
    joints, shape = about["num_joints"], about["num_shape"]
    parts = {name: arrays[prefix + name][row][:, :joints] for name in ("rotations", *BODY_SIGMAS)
             if name == "rotations" or about[name]}
    coefficients = arrays[f"{prefix}shape"][row][:shape]
    if parts["rotations"].shape[1] != joints or len(coefficients) != shape:
        raise ValueError(f"its bodies have fewer joints or coefficients than the {joints} and {shape} of its metadata.")
    return BodyMotion(trajectory=arrays[f"{prefix}trajectory"][row], shape=coefficients, body=about["name"], fps=fps,
                      frame=about["frame"], **parts)


def dump_metadata(metadata: Mapping) -> str:
    """Metadata as one line of ASCII: whatever text a user gave is escaped."""
    return json.dumps(metadata, ensure_ascii=True, allow_nan=False)


def parse_metadata(text: object, where: object) -> Any:
    """Metadata from its text; ValueError naming the file when it is not JSON."""
    try:
        return json.loads(text)  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(where)!r} is not a result of this library: its metadata is not JSON.") from error


def as_text(values: np.ndarray, missing: str) -> np.ndarray:
    """Floats as their shortest text that reads back equal, NaN as `missing`."""
    text = values.astype("U32")
    text[np.isnan(values)] = missing
    return text
