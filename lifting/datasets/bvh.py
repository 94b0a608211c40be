"""BVH files that name their joints as the conversions of CMU's database do (Hips, LHipJoint, LeftUpLeg, LowerBack).

In them a joint's zero pose is CMU's rest pose, so that each joint stands for a CMU bone: it lies where the bone starts,
and the bone ends at the next joint. Files retargeted to other skeletons (hip, abdomen, lThigh, ...) are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from lifting.datasets.h36m_joints import BoneMotion
from lifting.rotations import euler_to_matrix

CMU_UNIT = 0.0254 / 0.45
"""Metres per length unit of CMU's files and of the BVH conversions that kept it."""
CALIBRATION_SPEED = 20.0
"""m/s; conversions put a T-pose before the first frame, and no recorded joint leaves its place this fast."""

_TRUNK = {
    "lowerback": ("LowerBack", "Spine"),
    "upperback": ("Spine", "Spine1"),
    "thorax": ("Spine1", "Neck"),
    "lowerneck": ("Neck", "Neck1"),
    "upperneck": ("Neck1", "Head"),
    "head": ("Head", "Head End"),
}
_SIDE = {
    "hipjoint": ("{s}HipJoint", "{side}UpLeg"),
    "femur": ("{side}UpLeg", "{side}Leg"),
    "tibia": ("{side}Leg", "{side}Foot"),
    "foot": ("{side}Foot", "{side}ToeBase"),
    "toes": ("{side}ToeBase", "{side}ToeBase End"),
    "clavicle": ("{side}Shoulder", "{side}Arm"),
    "humerus": ("{side}Arm", "{side}ForeArm"),
    "radius": ("{side}ForeArm", "{side}Hand"),
    "wrist": ("{side}Hand", "{side}FingerBase"),
}
BONES = _TRUNK | {
    side[0].lower() + bone: tuple(name.format(s=side[0], side=side) for name in names)
    for side in ("Left", "Right")
    for bone, names in _SIDE.items()
}
"""CMU bone -> (joint at its start, joint at its end); `X End` is the end site of X."""

_CHANNELS = {f"{axis}{kind}".lower(): kind[0] + axis for axis in "XYZ" for kind in ("position", "rotation")}


@dataclass(eq=False)
class BvhJoint:
    """One joint, or an end site.

    Attributes:
        name: `X End` for the end site of X.
        parent: index of the parent, -1 for the root.
        offset: (3,) from the parent in the zero pose, file units.
        channels: `pX` ... `rZ` in the order of the file.
    """

    name: str
    parent: int
    offset: np.ndarray | None = None
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class BvhClip:
    """A whole BVH file: joints, parents first, and (T, channels) values in file units and degrees."""

    joints: tuple[BvhJoint, ...]
    values: np.ndarray
    fps: float


def find_bvh_clips(folder: str | Path) -> list[Path]:
    """List every `.bvh` under `folder`; FileNotFoundError where there is none."""
    folder = Path(folder)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".bvh" and path.is_file())
    if not found:
        raise FileNotFoundError(f"{folder} holds no .bvh file; give a folder of CMU motion converted to BVH.")
    return found


def read_bvh(path: str | Path) -> BvhClip:
    """Read a BVH file as it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not whole or not BVH; the sentence names file and line.
    """
    return _BvhReader(Path(path)).read()


class _BvhReader:
    def __init__(self, path: Path):
        if not path.is_file():
            raise FileNotFoundError(f"{path.name} is not a file in {path.parent.absolute()}; expected a .bvh file.")
        self.path, self.line = path, 0
        self.rows = self._split(path.read_bytes().decode("utf-8", "replace"))

    def _split(self, text: str) -> Iterator[list[str]]:
        for number, line in enumerate(text.splitlines(), start=1):
            self.line = number
            if words := line.split():
                yield words

    def read(self) -> BvhClip:
        if self._words() != ["HIERARCHY"]:
            self._fail("the file does not begin with HIERARCHY", "a BVH file")
        joints = self._read_hierarchy()
        count = self._number_after("Frames:", 1)
        frame_time = self._number_after("Frame Time:", 1e-6)
        values = self._read_values(int(count), sum(len(joint.channels) for joint in joints))
        return BvhClip(joints, values, fps=round(1 / frame_time, 2))

    def _words(self) -> list[str]:
        for words in self.rows:
            return words
        self._fail("the file ends here", "more of it; is it cut off?")

    def _read_hierarchy(self) -> tuple[BvhJoint, ...]:
        joints: list[BvhJoint] = []
        stack: list[int] = []
        while (words := self._words())[0] != "MOTION":
            if words[0] in ("ROOT", "JOINT", "End"):
                self._begin(words, joints, stack)
            elif words[0] == "OFFSET" and stack:
                joints[stack[-1]].offset = self._floats(words[1:], 3)
            elif words[0] == "CHANNELS" and stack:
                joints[stack[-1]].channels = self._channels(words[1:])
            elif words == ["}"] and stack:
                self._close(joints[stack.pop()])
            elif words != ["{"]:
                self._fail(f"got {' '.join(words)[:60]!r}", "ROOT, JOINT, End Site, OFFSET, CHANNELS or MOTION")
        if stack or not joints:
            self._fail("MOTION begins inside the hierarchy", "a closing brace for every joint")
        return tuple(joints)

    def _begin(self, words: list[str], joints: list[BvhJoint], stack: list[int]) -> None:
        parent = stack[-1] if stack else -1
        if (words[0] == "ROOT") != (not joints) or (joints and parent < 0):
            self._fail(f"got {' '.join(words)[:60]!r}", "one ROOT, and all other joints inside it")
        name = f"{joints[parent].name} End" if words[0] == "End" else " ".join(words[1:]).rpartition(":")[2]
        stack.append(len(joints))
        joints.append(BvhJoint(name, parent))

    def _close(self, joint: BvhJoint) -> None:
        if joint.offset is None:
            self._fail(f"{joint.name} has no OFFSET", "an OFFSET in every joint")

    def _channels(self, words: list[str]) -> tuple[str, ...]:
        channels = tuple(_CHANNELS.get(word.lower(), "") for word in words[1:])
        if not words or words[0] != str(len(channels)) or not all(channels) or len(set(channels)) != len(channels):
            self._fail(f"got CHANNELS {' '.join(words)}", "their number, then Xposition ... Zrotation, each once")
        return channels

    def _number_after(self, label: str, least: float) -> float:
        words = self._words()
        if " ".join(words[:-1]) != label:
            self._fail(f"got {' '.join(words)[:60]!r}", f"{label} and a number")
        value = self._floats(words[-1:], 1)[0]
        if value < least or (label == "Frames:" and value != int(value)):
            self._fail(f"{label} {words[-1]}", f"{'a whole number' if least == 1 else 'seconds'}, {least:g} or more")
        return value

    def _read_values(self, frames: int, channels: int) -> np.ndarray:
        rows = [self._floats(words, channels) for words in self.rows]
        if len(rows) != frames:
            self._fail(f"there are {len(rows)} frames", f"{frames}, as the file says; is it cut off?")
        return np.stack(rows)

    def _floats(self, words: list[str], count: int) -> np.ndarray:
        try:
            values = np.array(words, dtype=float)
        except ValueError:
            values = np.array([np.nan])
        if len(words) != count:
            self._fail(f"got {len(words)} values", f"{count}; is the file cut off?")
        if not np.isfinite(values).all():
            wrong = next(word for word in words if not _is_finite(word))
            self._fail(f"got {wrong[:40]!r}", "finite numbers")
        return values

    def _fail(self, got: str, expected: str) -> NoReturn:
        end = "" if expected.endswith("?") else "."
        raise ValueError(f"{self.path}, line {max(self.line, 1)}: {got}; expected {expected}{end}")


def _is_finite(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def pose(clip: BvhClip) -> tuple[np.ndarray, np.ndarray]:
    """Compute all joints by forward kinematics.

    A position channel replaces the joint's offset in that direction, as the programs that write BVH mean it.

    Returns:
        positions (T, J, 3) in file units and rotations (T, J, 3, 3) from the zero pose, both in the frame of the file.
    """
    frames, count = len(clip.values), len(clip.joints)
    positions, rotations = np.empty((frames, count, 3)), np.empty((frames, count, 3, 3))
    columns = iter(range(clip.values.shape[1]))
    for index, joint in enumerate(clip.joints):
        values = {channel: clip.values[:, next(columns)] for channel in joint.channels}
        local, offset = _local(values, joint.offset, frames)
        if joint.parent < 0:
            positions[:, index], rotations[:, index] = offset, local
        else:
            turn = rotations[:, joint.parent]
            positions[:, index] = positions[:, joint.parent] + (turn @ offset[..., None])[..., 0]
            rotations[:, index] = turn @ local
    return positions, rotations


def _local(values: dict[str, np.ndarray], offset: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    place = np.tile(offset, (frames, 1))
    for channel in values:
        if channel[0] == "p":
            place[:, "XYZ".index(channel[1])] = values[channel]
    turns = [channel for channel in values if channel[0] == "r"]
    if not turns:
        return np.broadcast_to(np.eye(3), (frames, 3, 3)), place
    angles = np.radians(np.stack([values[channel] for channel in turns], axis=-1))
    return euler_to_matrix(angles, "".join(channel[1] for channel in turns)), place


def read_bvh_clip(path: str | Path, unit: float = CMU_UNIT) -> BoneMotion:
    """Read a BVH file as the motion of CMU's bones; a T-pose put before the first frame is dropped.

    Args:
        path: the file.
        unit: metres per length unit of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not whole, or its joints are not those of the CMU conversions.
    """
    clip = read_bvh(path)
    names = {joint.name: index for index, joint in enumerate(clip.joints)}
    if missing := sorted({name for pair in BONES.values() for name in pair} - set(names)):
        raise ValueError(
            f"{path} lacks the joints {', '.join(missing)}; expected those of CMU's BVH conversions "
            "(Hips, LHipJoint, LeftUpLeg, ..., LowerBack, Spine, Spine1, Neck, Neck1, Head)."
        )
    positions, rotations = pose(clip)
    first = _first_frame(positions * unit, clip.fps)
    ends = {bone: positions[first:, names[end]] * unit for bone, (_, end) in BONES.items()}
    turns = {bone: rotations[first:, names[start]] for bone, (start, _) in BONES.items()}
    rest = {bone: _rest(clip, names[start], names[end]) * unit for bone, (start, end) in BONES.items()}
    return BoneMotion(ends=ends, rotations=turns, rest=rest, fps=clip.fps)


def _first_frame(positions: np.ndarray, fps: float) -> int:
    if len(positions) < 3:
        return 0
    speeds = np.linalg.norm(np.diff(positions[:3], axis=0), axis=-1).max(axis=1) * fps
    return int(speeds[0] > CALIBRATION_SPEED > speeds[1])


def _rest(clip: BvhClip, start: int, end: int) -> np.ndarray:
    vector, index = np.zeros(3), end
    while index != start:
        if index < 0:
            raise ValueError(
                f"{clip.joints[end].name} does not hang on {clip.joints[start].name}; expected CMU's tree."
            )
        vector = vector + clip.joints[index].offset
        index = clip.joints[index].parent
    return vector
