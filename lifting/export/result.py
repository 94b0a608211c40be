"""What a result file holds, whatever its format: named arrays and one JSON object of metadata.

Arrays, for P people, T frames, J joints of the motion and D of the detector: ``ids`` (P,), ``times`` (T,) seconds,
``keypoints`` (P, T, D, 2) pixels, ``scores`` (P, T, D), and where motion was lifted ``joints`` (P, T, J, 3) metres
relative to the root, ``trajectory`` (P, T, 3) metres, ``sigma`` (P, T, J) metres. NaN where a person is absent or has
no such value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Person, Take
from lifting.skeletons import Skeleton

FORMAT, VERSION = "keypoint-lift result", 1
UNITS = {
    "times": "s", "keypoints": "px", "scores": "1", "joints": "m", "trajectory": "m", "sigma": "m",
}  # fmt: skip
AXES = {
    "camera": "+x right, +y down, +z forward, origin in the camera; joints relative to the root",
    "world": "right-handed, +z up, origin on the floor; joints relative to the root",
}
IMAGE_AXES = "origin top left, +x right, +y down"


def pack(take: Take) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the metadata of a take."""
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
        joints = lifted.skeleton.num_joints
        for name, shape in (("joints", (frames, joints, 3)), ("trajectory", (frames, 3)), ("sigma", (frames, joints))):
            arrays[name] = _stack([getattr(motion, name, None) for motion in motions], shape)
    return arrays, _describe(take, lifted, arrays)


def _stack(parts: list, shape: tuple[int, ...]) -> np.ndarray:
    """(P, *shape) float32, NaN for the people who have no such array."""
    stacked = np.full((len(parts), *shape), np.nan, np.float32)
    for row, part in zip(stacked, parts, strict=True):
        if part is not None:
            row[...] = part
    return stacked


def _describe(take: Take, lifted: Motion | None, arrays: Mapping) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "name": take.name,
        "fps": take.fps,
        "num_frames": len(take),
        "image_size": list(take.image_size),
        "units": {name: unit for name, unit in UNITS.items() if name in arrays},
        "frame": lifted.frame if lifted else None,
        "axes": {"joints": AXES[lifted.frame] if lifted else None, "keypoints": IMAGE_AXES},
        "skeleton": lifted.skeleton.to_dict() if lifted else None,
        "keypoint_skeleton": take.people[0].keypoints.skeleton.to_dict() if take.people else None,
        "camera": take.camera.to_dict(),
        "assumed": list(take.assumed),
        "people": [_describe_person(person) for person in take.people],
        "run": take.metadata,
    }


def _describe_person(person: Person) -> dict[str, Any]:
    """Which parts this person has: NaN alone would not tell "none" from "absent in every frame"."""
    motion = person.motion
    return {"id": person.id, "motion": motion is not None,
            "trajectory": motion is not None and motion.trajectory is not None,
            "sigma": motion is not None and motion.sigma is not None}


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
    motion = None
    if about["motion"]:
        trajectory, sigma = (arrays[name][row] if about[name] else None for name in ("trajectory", "sigma"))
        motion = Motion(arrays["joints"][row], trajectory, sigma, Skeleton.from_dict(metadata["skeleton"]),
                        metadata["fps"], metadata["frame"])
    return Person(about["id"], keypoints, motion)


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
