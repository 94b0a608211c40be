"""Acclaim `.asf` skeletons and `.amc` motions, the format in which CMU publishes its motion capture.

An `.asf` lists bones with a rest direction, a length and an axis frame C; an `.amc` lists, frame by frame, the angles
of each bone's degrees of freedom. The rotation of a bone is that of its parent times C M C^-1, where M turns about the
fixed axes in the order in which the degrees of freedom are listed. Lengths are inches times the scale in `:units`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from lifting.datasets.h36m_joints import BoneMotion, missing_bones
from lifting.rotations import euler_to_matrix

INCH = 0.0254
ROOT = "root"
ROOT_CHANNELS = frozenset(("tx", "ty", "tz", "rx", "ry", "rz"))
KEYWORDS = frozenset(("begin", "end", "id", "name", "direction", "length", "axis", "dof", "limits"))


@dataclass(frozen=True, eq=False)
class Bone:
    """One bone of an `.asf`.

    Attributes:
        vector: (3,) from start to end in the rest pose, metres.
        axis: (3, 3) the frame C in which its angles are given.
        channels: its degrees of freedom in the order of the file, of `rx`, `ry`, `rz` (the root has `tx`, ... too).
    """

    vector: np.ndarray
    axis: np.ndarray
    channels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class AcclaimSkeleton:
    """The bones of one subject.

    Attributes:
        bones: name -> bone, `root` included.
        parents: name -> name of the parent, parents before children; `root` is not in it.
        position: (3,) of the root, metres, added to its translation.
        metres: metres per length unit of the files.
    """

    bones: dict[str, Bone]
    parents: dict[str, str]
    position: np.ndarray
    metres: float


def find_cmu_clips(folder: str | Path) -> list[tuple[Path, Path]]:
    """Pair every `.amc` under `folder` with its skeleton: `07.asf` for `07_12.amc`, else the only `.asf` beside it.

    Raises:
        FileNotFoundError: there is no `.amc`, or one has no skeleton.
    """
    folder = Path(folder)
    motions = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".amc" and path.is_file())
    if not motions:
        raise FileNotFoundError(f"{folder} holds no .amc file; give a folder of CMU's .asf and .amc files.")
    return [(_skeleton_of(motion), motion) for motion in motions]


def _skeleton_of(motion: Path) -> Path:
    beside = sorted(path for path in motion.parent.iterdir() if path.suffix.lower() == ".asf")
    named = [path for path in beside if path.stem == motion.stem.split("_")[0]]
    candidates = named or beside
    subject = motion.stem.split("_")[0]
    if len(candidates) != 1:
        raise FileNotFoundError(
            f"{motion} has {len(candidates)} skeletons beside it; expected {subject}.asf in the same folder."
        )
    return candidates[0]


def read_asf(path: str | Path) -> AcclaimSkeleton:
    """Read a skeleton.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an Acclaim skeleton; the sentence names file and line.
    """
    return _AsfReader(Path(path)).read()


class _AsfReader:
    def __init__(self, path: Path):
        self.path, self.line = path, 0
        self.sections: dict[str, list[tuple[int, list[str]]]] = {}

    def read(self) -> AcclaimSkeleton:
        self._split()
        units = {words[0]: words[1:] for _, words in self.sections["units"]}
        self.degrees = (units.get("angle") or ["deg"])[0].lower().startswith("deg")
        self.metres = INCH / self._positive(units.get("length", ["1"]))
        position = self._read_root()
        for block in self._blocks():
            self._read_bone(block)
        return AcclaimSkeleton(self.bones, self._read_hierarchy(), position, self.metres)

    def _split(self) -> None:
        lines: list[tuple[int, list[str]]] = []
        for number, line in enumerate(_read_lines(self.path), start=1):
            words = line.split("#")[0].split()
            if words and words[0].startswith(":"):
                lines = self.sections.setdefault(words[0][1:].lower(), [])
            elif words:
                lines.append((number, words))
            self.line = number
        for section in ("units", "root", "bonedata", "hierarchy"):
            if not self.sections.get(section):
                self._fail(f"there is no section :{section}", "a whole Acclaim skeleton; is the file cut off?")

    def _entries(self, section: str) -> Iterator[list[str]]:
        for number, words in self.sections[section]:
            self.line = number
            yield words

    def _read_root(self) -> np.ndarray:
        fields = {}
        for key, *words in self._entries("root"):
            fields[key.lower()] = words
        order = tuple(word.lower() for word in fields.get("order", ()))
        if set(order) != ROOT_CHANNELS or len(order) != 6:
            self._fail(f"the root's order is {' '.join(order)!r}", "TX TY TZ RX RY RZ in some order")
        axis = self._axis([*fields.get("orientation", ["0", "0", "0"]), *fields.get("axis", ["XYZ"])])
        self.bones = {ROOT: Bone(np.zeros(3), axis, order)}
        return self._numbers(fields.get("position", ["0", "0", "0"]), 3) * self.metres

    def _blocks(self) -> Iterator[list[tuple[int, list[str]]]]:
        block: list[tuple[int, list[str]]] | None = None
        for words in self._entries("bonedata"):
            if words == ["begin"] and block is None:
                block = []
            elif words == ["end"] and block is not None:
                yield block
                block = None
            elif block is None or words == ["begin"]:
                self._fail(f"got {' '.join(words)!r}", "bones as begin ... end")
            else:
                block.append((self.line, words))
        if block is not None:
            self._fail("the last bone has no end", "a whole Acclaim skeleton; is the file cut off?")

    def _read_bone(self, block: list[tuple[int, list[str]]]) -> None:
        fields = {words[0].lower(): (line, words[1:]) for line, words in block if words[0].lower() in KEYWORDS}
        parsed = {}
        for key, parse in (("name", self._name), ("direction", self._direction), ("length", self._length)):
            if key not in fields:
                self.line = block[0][0] if block else self.line
                self._fail(f"a bone has no {key}", "name, direction, length and axis for every bone")
            self.line, words = fields[key]
            parsed[key] = parse(words)
        self.line, words = fields.get("axis", (self.line, ["0", "0", "0", "XYZ"]))
        axis = self._axis(words)
        self.line, words = fields.get("dof", (self.line, []))
        vector = parsed["direction"] * parsed["length"] * self.metres
        self.bones[parsed["name"]] = Bone(vector, axis, self._channels(words))

    def _read_hierarchy(self) -> dict[str, str]:
        parents: dict[str, str] = {}
        for parent, *children in self._entries("hierarchy"):
            if parent in ("begin", "end") and not children:
                continue
            for name in (parent, *children):
                if name not in self.bones:
                    self._fail(f"the hierarchy names {name!r}", "a bone of :bonedata; is the file cut off?")
            if parent != ROOT and parent not in parents:
                self._fail(f"{parent!r} has children before it has a parent", "parents before children")
            for child in children:
                if child == ROOT or child in parents:
                    self._fail(f"{child!r} has two parents", "a tree of bones")
                parents[child] = parent
        if orphans := sorted(set(self.bones) - set(parents) - {ROOT}):
            self._fail(f"the hierarchy lacks {', '.join(orphans)}", "a parent for every bone; is the file cut off?")
        return parents

    def _name(self, words: list[str]) -> str:
        name = " ".join(words)
        if not name or name in self.bones:
            self._fail(f"a bone is called {name!r}", "a name of its own for every bone")
        return name

    def _direction(self, words: list[str]) -> np.ndarray:
        return self._numbers(words, 3)

    def _length(self, words: list[str]) -> float:
        return float(self._numbers(words, 1)[0])

    def _channels(self, words: list[str]) -> tuple[str, ...]:
        channels = tuple(word.lower() for word in words)
        if not set(channels) <= {"rx", "ry", "rz"} or len(set(channels)) != len(channels):
            self._fail(f"the degrees of freedom are {' '.join(words)!r}", "rx, ry, rz, each at most once")
        return channels

    def _axis(self, words: list[str]) -> np.ndarray:
        if len(words) != 4 or sorted(words[3].lower()) != ["x", "y", "z"]:
            self._fail(f"the axis is {' '.join(words)!r}", "three angles and an order such as XYZ")
        angles = self._numbers(words[:3], 3)
        return euler_to_matrix(np.radians(angles) if self.degrees else angles, words[3].lower())

    def _positive(self, words: list[str]) -> float:
        self.line = next(line for line, entry in self.sections["units"])
        value = float(self._numbers(words, 1)[0])
        if value <= 0:
            self._fail(f"the length unit is {value:g}", "a number above 0")
        return value

    def _numbers(self, words: list[str], count: int) -> np.ndarray:
        values = [_number(word) for word in words]
        if len(values) != count or not all(map(math.isfinite, values)):
            self._fail(f"got {' '.join(words)!r}", f"{count} numbers" if count > 1 else "one number")
        return np.array(values)

    def _fail(self, got: str, expected: str) -> NoReturn:
        _fail(self.path, self.line, got, expected)


def read_amc(path: str | Path, skeleton: AcclaimSkeleton) -> dict[str, np.ndarray]:
    """Read a motion.

    Returns:
        bone name -> (T, number of its channels) in the order of the skeleton: radians, translations in metres. Bones
        that the file does not move are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an Acclaim motion of this skeleton; the sentence names file and line.
    """
    path = Path(path)
    header, frames = _amc_frames(path, skeleton)
    angle = 1.0 if ":RADIANS" in header else math.pi / 180
    factors = {"t": skeleton.metres, "r": angle}
    motion = {}
    for name, rows in frames.items():
        motion[name] = np.array(rows) * [factors[channel[0]] for channel in skeleton.bones[name].channels]
    return motion


def _amc_frames(path: Path, skeleton: AcclaimSkeleton) -> tuple[set[str], dict[str, list[list[float]]]]:
    header: set[str] = set()
    counts = {name: len(bone.channels) for name, bone in skeleton.bones.items()}
    rows: dict[str, list[list[float]]] = {}
    frame, number = 0, 0
    for number, line in enumerate(_read_lines(path), start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if words[0].startswith(":"):
            header.add(words[0].upper())
        elif len(words) == 1 and words[0].isdigit():
            _check_frame(path, number, rows, frame)
            frame += 1
        else:
            _add_row(path, number, words, counts, rows, frame)
    if not frame:
        _fail(path, number, "there is no frame", "frames, each a number and a line per bone")
    _check_frame(path, number, rows, frame)
    return header, rows


def _add_row(path, number, words, counts, rows, frame) -> None:
    name = words[0]
    if not frame:
        _fail(path, number, f"got {' '.join(words)[:60]!r} before the first frame", "a frame number")
    if name not in counts:
        _fail(path, number, f"the bone {name[:40]!r} is not in the skeleton", "the .asf that belongs to this .amc")
    values = [_number(word) for word in words[1:]]
    if len(values) != counts[name]:
        _fail(path, number, f"{name} has {len(values)} values", f"{counts[name]}; cut off, or another subject's .asf?")
    if not all(map(math.isfinite, values)):
        _fail(path, number, f"got {' '.join(words[1:])!r}", "finite numbers")
    column = rows.setdefault(name, [])
    column.append(values)
    if len(column) != frame:
        _fail(path, number, f"{name} has {len(column)} lines in {frame} frames", "one in each frame")


def _check_frame(path, number, rows, frame) -> None:
    short = [name for name, column in rows.items() if len(column) != frame]
    if short or (frame and ROOT not in rows):
        missing = ", ".join(short) or ROOT
        _fail(path, number, f"frame {frame} ends without {missing}", "a line for every bone; is the file cut off?")


def read_cmu_clip(asf: str | Path, amc: str | Path, fps: float = 120.0) -> BoneMotion:
    """Read one motion and pose its skeleton.

    Args:
        asf: the skeleton.
        amc: the motion.
        fps: frames per second; the files do not say it (CMU: 120, for a few clips 60).

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not in the format, or lacks bones that CMU's skeletons have.
    """
    skeleton = read_asf(asf)
    if missing := missing_bones(set(skeleton.bones)):
        raise ValueError(f"{asf} lacks the bones {', '.join(missing)}; expected a skeleton of CMU's database.")
    return pose(skeleton, read_amc(amc, skeleton), fps)


def pose(skeleton: AcclaimSkeleton, motion: dict[str, np.ndarray], fps: float) -> BoneMotion:
    """Compute end points (T, 3), metres, and rotations (T, 3, 3) of all bones by forward kinematics."""
    translation, rotation = _pose_root(skeleton, motion[ROOT])
    ends, rotations = {ROOT: translation}, {ROOT: rotation}
    for name, parent in skeleton.parents.items():
        bone = skeleton.bones[name]
        rotations[name] = rotations[parent]
        if name in motion:
            rotations[name] = rotations[parent] @ _local(bone, motion[name])
        ends[name] = ends[parent] + rotations[name] @ bone.vector
    rest = {name: skeleton.bones[name].vector for name in skeleton.parents}
    return BoneMotion(ends=ends, rotations=rotations, rest=rest, fps=fps)


def _pose_root(skeleton: AcclaimSkeleton, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    root = skeleton.bones[ROOT]
    translation = values[:, [root.channels.index(channel) for channel in ("tx", "ty", "tz")]]
    turning = [index for index, channel in enumerate(root.channels) if channel[0] == "r"]
    turns = Bone(root.vector, root.axis, tuple(root.channels[index] for index in turning))
    return skeleton.position + translation, _local(turns, values[:, turning])


def _local(bone: Bone, angles: np.ndarray) -> np.ndarray:
    order = "".join(channel[1] for channel in bone.channels)
    return bone.axis @ euler_to_matrix(angles, order) @ bone.axis.T


def _read_lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not a file in {path.parent.absolute()}; expected CMU's .asf or .amc.")
    return path.read_bytes().decode("utf-8", "replace").splitlines()


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _number(word: str) -> float:
    return float(word) if _NUMBER.fullmatch(word) else math.nan


def _fail(path: Path, line: int, got: str, expected: str) -> NoReturn:
    end = "" if expected.endswith("?") else "."
    raise ValueError(f"{path}, line {max(line, 1)}: {got}; expected {expected}{end}")
