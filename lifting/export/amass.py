"""Body motion as AMASS-style ``.npz``: the arrays that the tools around SMPL read and write.

``poses`` (T, 3 K) rotation vectors, the root's first; ``betas`` (S,); ``trans`` (T, 3) metres; ``mocap_framerate`` and
``mocap_frame_rate`` (both spellings are in use); ``gender``. A body of 22 joints is padded with zeros to the 156
columns of SMPL-H, resting hands. As in AMASS the world is Z up. SMPL's translation moves the posed mesh, whose root
joint is not at the origin: ``trans`` = position of joint 0 - its position in the rest pose, for that shape.

The file of a body that is not SMPL's is for SMPL's mean shape: ``betas`` are zeros, and rotations and translation are
those of `lifting.export.smpl_convention`. What the body itself had is kept in ``metadata``.

Source of the layout: Mahmood et al., "AMASS: archive of motion capture as surface shapes", ICCV 2019.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from lifting.cameras import Camera
from lifting.export.result import dump_metadata, parse_metadata
from lifting.export.smpl_convention import SMPL_ROOT, SmplConvention
from lifting.files import atomic_write, load_npz
from lifting.keypoints import as_float_array
from lifting.motion import BodyMotion
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix

FORMAT, VERSION = "keypoint-lift amass", 1
GENDERS = ("neutral", "female", "male")
_SHARED_JOINTS, _BODY_COLUMNS, _SMPLH_COLUMNS = 22, 66, 156
_BODIES = {66: "smplh", 72: "smpl", 156: "smplh", 165: "smplx"}  # columns of foreign files -> the body they are for
# A level camera's axes (x right, y down, z forward) to the Z-up world: x right, y forward, z up.
CAMERA_TO_WORLD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])

RestRoot = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class AmassClip:
    """What an AMASS-style file holds.

    Attributes:
        motion: the motion, in the ``world`` frame; its trajectory is the position of joint 0.
        gender: ``neutral``, ``female`` or ``male``: which of the body files its shape belongs to.
        camera: what filmed it, from world to camera axes; None in the files of other tools.
        person_id: whose motion it is.
        assumed: sentences about what the file does not say.
    """

    motion: BodyMotion
    gender: str
    camera: Camera | None = None
    person_id: int = 0
    assumed: tuple[str, ...] = ()


# ---- writing


def write_amass(
    motion: BodyMotion,
    path: str | PathLike[str],
    rest_root: np.ndarray,
    gender: str = "neutral",
    *,
    smpl: SmplConvention | None = None,
    camera: Camera | None = None,
    person_id: int = 0,
) -> None:
    """Write a body motion as AMASS-style npz, whole or not at all.

    Motion in the camera frame is turned to Z up as if the camera were level. Frames in which the person is absent are
    left out at both ends, and restored by `read_amass`.

    Args:
        motion: the motion to write.
        path: the file, by convention ``name.amass.npz``.
        rest_root: (3,) metres, joint 0 in the rest pose of the body with the motion's shape
            (``body.rest_joints(motion.shape)[0]``); not used with `smpl`.
        gender: which body file the shape belongs to: ``neutral``, ``female`` or ``male``.
        smpl: for a body that is not SMPL's: what leads to SMPL's, for whose mean shape the file then is.
        camera: what filmed it, from the motion's frame where that is ``world``; kept for `read_amass`.
        person_id: whose motion it is; kept as well.

    Raises ValueError for an unknown gender, a wrong `rest_root`, another body's `smpl` and a motion that is NaN
    everywhere or in the middle; OSError for an unwritable place.
    """
    rest_root = as_float_array(rest_root, "rest_root", (3,), np.float64)
    joints = motion.rotations.shape[1]
    if gender not in GENDERS:
        raise ValueError(f"gender is {gender!r}, expected one of {', '.join(GENDERS)}.")
    if smpl is not None and len(smpl.parents) != joints:
        raise ValueError(f"got rest offsets of {len(smpl.parents)} joints for a motion of {joints}; expected as many.")
    start, stop = _present_frames(motion)
    rotations = motion.rotations[start:stop].astype(np.float64)
    trajectory = motion.trajectory[start:stop].astype(np.float64)
    if motion.frame == "camera":
        rotations, trajectory = _turned(rotations, trajectory, CAMERA_TO_WORLD)
    betas, facts = motion.shape.astype(np.float64), {}
    if smpl is None:
        translations, facts["rest_root"] = trajectory - rest_root, rest_root.tolist()
    else:
        rotations, translations = smpl.to_smpl(rotations, trajectory)
        facts |= {"smpl": smpl.to_dict(), "shape": betas.tolist(), "note": _note(motion.body)}
        betas = np.zeros_like(betas)
    arrays = {
        "poses": _padded(rotations.reshape(stop - start, -1)),
        "betas": betas,
        "trans": translations,
        "mocap_framerate": np.float64(motion.fps),
        "mocap_frame_rate": np.float64(motion.fps),
        "gender": np.array(gender),
    }
    facts |= {"first_frame": start, "person_id": person_id, "camera": _camera_in_world(camera, motion.frame)}
    with atomic_write(path) as file:
        np.savez_compressed(file, metadata=np.array(dump_metadata(_describe(motion, facts))), **arrays)


def _camera_in_world(camera: Camera | None, frame: str) -> dict[str, Any] | None:
    """The camera, for JSON; that of a motion in camera axes is taken to be level and at the world's origin."""
    if camera is not None and frame == "camera":
        camera = dataclasses.replace(camera, rotation=CAMERA_TO_WORLD.T, translation=np.zeros(3))
    return None if camera is None else camera.to_dict()


def _note(body: str) -> str:
    return (f"fitted with the body {body!r}, whose shape is not SMPL's: the poses are relative to SMPL's rest pose, "
            "and the betas are zeros, SMPL's mean shape, whose feet may float or sink by the difference of the legs")


def _describe(motion: BodyMotion, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "body": motion.body,
        "num_joints": motion.rotations.shape[1],
        "num_frames": len(motion),
        "up_axis": "z",
        "units": {"poses": "rad", "trans": "m", "mocap_framerate": "1/s"},
        **facts,
    }


def _present_frames(motion: BodyMotion) -> tuple[int, int]:
    """First and one past the last frame without NaN; ValueError when there is none or a gap between them."""
    present = np.flatnonzero(motion.present)
    if not len(present):
        raise ValueError("the motion is NaN in every frame; there is nothing to write as AMASS.")
    start, stop = int(present[0]), int(present[-1]) + 1
    if len(present) != stop - start:
        raise ValueError(f"the motion has NaN between the frames {start} and {stop - 1}; AMASS has no gaps, fill them.")
    return start, stop


def _turned(rotations: np.ndarray, trajectory: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation vectors (T, K, 3) and trajectory (T, 3) seen in axes turned by `turn` (3, 3): only the root changes."""
    root = matrix_to_rotvec(turn @ rotvec_to_matrix(rotations[:, :1]))
    return np.concatenate([root, rotations[:, 1:]], axis=1), trajectory @ turn.T


def _padded(poses: np.ndarray) -> np.ndarray:
    """Poses (T, 3 K); the 22 joints that SMPL, SMPL-H and SMPL-X share get SMPL-H's hands, at rest."""
    missing = _SMPLH_COLUMNS - poses.shape[1] if poses.shape[1] == _BODY_COLUMNS else 0
    return np.pad(poses, ((0, 0), (0, missing)))


# ---- reading


def read_amass(
    path: str | PathLike[str], rest_root: RestRoot | None = None, num_joints: int | None = None
) -> AmassClip:
    """Read an AMASS-style npz; nothing in it is executed.

    Args:
        path: the file, ours or of another tool.
        rest_root: function of the shape (S,) that gives joint 0 of the rest pose, (3,) metres
            (``lambda shape: body.rest_joints(shape)[0]``). Our own files hold it; for those of other tools that of
            SMPL's mean shape is assumed, which is off by a few centimetres for unusual shapes.
        num_joints: of the body the motion is for: the first 22 (or fewer) are what SMPL, SMPL-H and SMPL-X have in
            common, 24 adds the hands of SMPL at rest. By default those that were written, or all.

    The motion is in the ``world`` frame, Z up. That of the files of other tools is for a body named after the number
    of columns. Raises FileNotFoundError, OSError when it cannot be opened, and ValueError for a file that is damaged,
    hostile or not AMASS-style.
    """
    names = ("poses", "betas", "trans", "mocap_framerate", "mocap_frame_rate", "gender", "metadata")
    arrays = load_npz(path, allow_objects=True, only=names)
    about = _metadata(arrays, path)
    try:
        motion = _motion(arrays, about, rest_root, num_joints)
        camera = None if about.get("camera") is None else Camera.from_dict(about["camera"])
        guessed = rest_root is None and not about
        assumed = ("the file does not say where the root joint of its body is at rest: SMPL's mean shape was taken",)
        return AmassClip(motion, _gender(arrays.get("gender")), camera, int(about.get("person_id", 0)),
                         assumed if guessed else ())
    except KeyError as error:
        raise ValueError(f"{str(path)!r} is not an AMASS-style file: it lacks {error}.") from error
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as an AMASS-style file: {error}") from error


def _metadata(arrays: Mapping[str, np.ndarray], path: object) -> Mapping[str, Any]:
    """Our description of the file, empty for the files of other tools."""
    if "metadata" not in arrays:
        return {}
    about = parse_metadata(str(arrays["metadata"]), path)
    if not isinstance(about, Mapping) or about.get("format") != FORMAT:
        raise ValueError(f"{str(path)!r} is not an AMASS-style file but another result; open it with lift.load.")
    if about.get("format_version") != VERSION:
        raise ValueError(f"{str(path)!r} has format version {about.get('format_version')!r}, this library reads "
                         f"{VERSION}; update it.")
    return about


def _motion(
    arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], rest_root: RestRoot | None, num_joints: int | None
) -> BodyMotion:
    poses = as_float_array(arrays["poses"], "poses", (None, None), np.float64)
    if not poses.size or poses.shape[1] % 3:
        raise ValueError(f"poses has the shape {poses.shape}, expected (T, 3 K).")
    trans = as_float_array(arrays["trans"], "trans", (len(poses), 3), np.float64)
    shape = as_float_array(np.ravel(arrays["betas"]), "betas", (None,), np.float64)
    wanted = about.get("num_joints") if num_joints is None else num_joints
    rotations = _cut(poses.reshape(len(poses), -1, 3), wanted)
    if "smpl" in about:
        rotations, trajectory = SmplConvention.from_dict(about["smpl"]).from_smpl(rotations, trans)
        shape = as_float_array(about["shape"], "shape", (None,), np.float64)
    else:
        trajectory = trans + _rest_root(about, rest_root, shape)
    if about:
        rotations, trajectory = (_restored(values, about) for values in (rotations, trajectory))
    return BodyMotion(rotations=rotations.astype(np.float32), trajectory=trajectory.astype(np.float32),
                      shape=shape.astype(np.float32), fps=_frame_rate(arrays), frame="world",
                      body=str(about.get("body") or _BODIES.get(poses.shape[1], "smpl")))


def _cut(rotations: np.ndarray, num_joints: int | None) -> np.ndarray:
    """Rotations (T, K, 3) for a body of `num_joints`; joint 22 on is the jaw, a finger or a hand, by the body."""
    available = rotations.shape[1]
    if num_joints in (None, available):
        return rotations
    if 1 <= num_joints <= min(available, _SHARED_JOINTS):
        return rotations[:, :num_joints]
    if num_joints == 24 and available > _SHARED_JOINTS:
        return np.pad(rotations[:, :_SHARED_JOINTS], ((0, 0), (0, 2), (0, 0)))
    raise ValueError(f"it has {available} joints, which cannot be those of a body of {num_joints}; ask for 22.")


def _rest_root(about: Mapping[str, Any], rest_root: RestRoot | None, shape: np.ndarray) -> np.ndarray:
    found = rest_root(shape) if rest_root is not None else about["rest_root"] if about else SMPL_ROOT
    return as_float_array(found, "rest_root", (3,), np.float64)


def _restored(values: np.ndarray, about: Mapping[str, Any]) -> np.ndarray:
    """`values` (T, ...) at its place in the whole motion, NaN where the person is absent."""
    start, count = int(about["first_frame"]), int(about["num_frames"])
    if not 0 <= start <= count - len(values) or count > len(values) + 1_000_000:
        raise ValueError(f"its {len(values)} frames do not fit at {start} into {count}.")
    whole = np.full((count, *values.shape[1:]), np.nan)
    whole[start : start + len(values)] = values
    return whole


def _frame_rate(arrays: Mapping[str, np.ndarray]) -> float:
    found = next((arrays[name] for name in ("mocap_framerate", "mocap_frame_rate") if name in arrays), None)
    if found is None:
        raise ValueError("it lacks mocap_framerate, expected the frames per second.")
    return float(np.asarray(found).item())


def _gender(value: np.ndarray | None) -> str:
    """The gender, which AMASS stores as text or as bytes; neutral where it is absent."""
    found = "neutral" if value is None else np.asarray(value).item()
    text = (found.decode("latin1") if isinstance(found, bytes) else str(found)).lower()
    if text not in GENDERS:
        raise ValueError(f"its gender is {text!r}, expected one of {', '.join(GENDERS)}.")
    return text
