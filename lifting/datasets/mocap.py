"""Motion capture in the H36M-17 layout: the `.h5` files that the lifters train on.

`mocap17.h5` holds one group per piece with int16 `positions` (T, 17, 3); metres are `positions * scale + offset`, in a
right-handed world with Z up and the floor at z = 0. `mocap_rot24.h5` holds, for some of the pieces, the local rotations
of a 24-joint tree in a Y-up frame, from which toes and heels are built.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from lifting.datasets.feet import FEET, place_foot
from lifting.files import atomic_path
from lifting.rotations import rotvec_to_matrix

JOINTS = ("Hip", "RHip", "RKnee", "RFoot", "LHip", "LKnee", "LFoot", "Spine", "Thorax", "Nose", "Head",
          "LShoulder", "LElbow", "LWrist", "RShoulder", "RElbow", "RWrist")  # fmt: skip
"""Joint names inside the files; their order is that of the skeleton `h36m17`."""
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
FPS = 50.0
SCALE = 0.00025
"""Metres per int16 step: +-8.19 m around a piece's offset."""
UNKNOWN = -32768
"""int16 that stands for a foot point that is not known."""
ACKNOWLEDGEMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217."
)
LICENCE = (
    "CMU Graphics Lab Motion Capture Database, mocap.cs.cmu.edu: 'This dataset of motions is free for all uses.' "
    "'You may include this data in commercially-sold products, but you may not resell this data directly, "
    "even in converted form.' " + ACKNOWLEDGEMENT
)

DEFAULT_PATH = "data/mocap/mocap17.h5"
"""Where the experiments look for motion, and where `experiments.convert_mocap` writes it, unless told otherwise."""
HOW_TO_GET = "give the path of a mocap .h5 file, or make one with `python -m experiments.convert_mocap FOLDER`"

FOOT_CHAIN = ("pelvis", *(f"{side}_{joint}" for side in "lr" for joint in ("hip", "knee", "ankle", "foot")))
"""Joints whose rotations say where the feet are."""

# (x, y, z) of the rotations' frame (Y up) is (x, -z, y) of the positions' frame (Z up): limb directions agree to 0.03
# degrees so, and by tens of degrees with the other right-handed choice (z, x, y).
Z_UP_FROM_Y_UP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class MocapPiece:
    """One uninterrupted motion of one subject.

    Attributes:
        name: unique in its file, such as `14_24` or `01_03b`.
        subject, action, category: who, and what is done.
        split: `train` or `val`.
        kind: how the piece was made (`asf/amc`, `bvh`, ...), a hint at its fidelity.
        joints: (T, 17, 3) float32 metres, skeleton `h36m17`, world frame, Z up, floor at z = 0.
        fps: frames per second.
        feet: (T, 4, 3) float32 metres in the order of `FEET`, NaN where unknown; None where the piece has none.
        attributes: whatever else the file says about the piece (source, quality, ...).
    """

    name: str
    subject: str
    action: str
    category: str
    split: str
    kind: str
    joints: np.ndarray
    fps: float = FPS
    feet: np.ndarray | None = None
    attributes: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.joints)


def read_mocap(
    path: str | PathLike[str],
    *,
    split: str | None = None,
    subjects: Collection[str] | None = None,
    exclude_subjects: Collection[str] = (),
    feet: str | PathLike[str] | None = None,
) -> list[MocapPiece]:
    """Read the pieces of a `mocap17.h5`, in the order of their names; only what is asked for is decompressed.

    Args:
        path: the positions file.
        split: `train` or `val`; None for all.
        subjects: keep these subjects only, such as `["14", "29"]`; None for all.
        exclude_subjects: leave these out.
        feet: the matching `mocap_rot24.h5`: pieces without feet that it knows, with as many frames, get toes and
            heels. None reads only the feet that `path` itself holds.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not of this format or is damaged, or nothing matches the choice.
    """
    if isinstance(subjects, str) or isinstance(exclude_subjects, str):
        raise ValueError("subjects are given as a list of strings such as ['14', '29'], not as one string.")
    with _open(path) as file:
        _check_joints(file, path)
        names = _select(file, path, split, subjects, exclude_subjects)
        pieces = [_read_piece(file[name], name, path) for name in names]
    if feet is None:
        return pieces
    with _open(feet) as file:
        return [_with_feet(piece, file, feet) for piece in pieces]


def _open(path: str | PathLike[str]):
    import h5py

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not a file in {path.parent.absolute()}: {HOW_TO_GET}.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5 ({error}); expected a mocap file: {HOW_TO_GET}.") from error


def _check_joints(file, path) -> None:
    found = _names(file, path)
    if found != list(JOINTS):
        raise ValueError(f"{path} has the joints {', '.join(found)}; expected {', '.join(JOINTS)}: {HOW_TO_GET}.")


def _names(file, path) -> list[str]:
    names = np.atleast_1d(_attribute(file, "joints", path))
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names]


def _select(file, path, split, subjects, exclude_subjects) -> list[str]:
    labels = {name: (_text(file[name], "split", path), _text(file[name], "subject", path)) for name in file}
    if not labels:
        raise ValueError(f"{path} holds no pieces; expected one HDF5 group per piece: {HOW_TO_GET}.")
    if split is not None and split not in (known := {piece_split for piece_split, _ in labels.values()}):
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(sorted(known))}.")
    known = {subject for _, subject in labels.values()}
    if unknown := set(subjects or ()) - known:
        listed = ", ".join(sorted(known))
        raise ValueError(f"{path} has no subject {', '.join(map(repr, sorted(unknown, key=str)))}; it has {listed}.")
    chosen = [
        name
        for name, (piece_split, subject) in labels.items()
        if split in (None, piece_split)
        and (subjects is None or subject in subjects)
        and subject not in exclude_subjects
    ]
    if not chosen:
        raise ValueError(
            f"No piece of {path} has split {split!r}, subjects {subjects or 'any'} and is not of "
            f"{sorted(exclude_subjects)}; ask for less."
        )
    return chosen


def _read_piece(group, name: str, path) -> MocapPiece:
    scale = float(_attribute(group, "scale", path))
    offset = np.asarray(_attribute(group, "offset", path), dtype=np.float32)
    if not (np.isfinite(scale) and scale > 0 and offset.shape == (3,) and np.isfinite(offset).all()):
        raise ValueError(f"{path}: {name} has scale {scale} and offset {offset}; expected a step > 0 m and 3 numbers.")
    joints = _dataset(group, "positions", path, (17, 3)) * np.float32(scale) + offset
    feet = None
    if "feet" in group:
        steps = _dataset(group, "feet", path, (4, 3))
        feet = np.where(steps == UNKNOWN, np.float32(np.nan), steps * np.float32(scale) + offset)
    texts = {key: _text(group, key, path) for key in ("subject", "action", "category", "split", "kind")}
    other = {key: value for key, value in group.attrs.items() if key not in (*texts, "fps", "scale", "offset")}
    fps = float(_attribute(group, "fps", path))
    return MocapPiece(name=name, joints=joints, feet=feet, fps=fps, attributes=other, **texts)


def _attribute(group, key: str, path):
    if key not in group.attrs:
        where = f"piece {name}" if (name := group.name.lstrip("/")) else "the file"
        raise ValueError(f"{path}: {where} lacks the attribute {key!r}; {HOW_TO_GET}.")
    return group.attrs[key]


def _text(group, key: str, path) -> str:
    value = _attribute(group, key, path)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _dataset(group, key: str, path, shape: tuple[int, ...]) -> np.ndarray:
    name = group.name.lstrip("/")
    if not hasattr(group, "keys") or key not in group:
        raise ValueError(f"{path}: {name} lacks the array {key!r}; is it the right file? Otherwise {HOW_TO_GET}.")
    try:
        values = group[key][()]
    except OSError as error:
        raise ValueError(f"{path}: {key} of {name} is damaged ({error}); copy or download the file again.") from error
    if np.shape(values)[1:] != shape or len(values) == 0:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{path}: {key} of {name} has shape {np.shape(values)}; expected (frames, {expected}).")
    if values.dtype != np.int16:
        raise ValueError(f"{path}: {key} of {name} is {values.dtype}; expected int16 steps, times the piece's scale.")
    return values


def _with_feet(piece: MocapPiece, file, path) -> MocapPiece:
    if piece.feet is not None or piece.name not in file:
        return piece
    rotvecs = _dataset(file[piece.name], "rotvec", path, (24, 3))
    if len(rotvecs) != len(piece):
        return piece
    scale = np.float32(_attribute(file[piece.name], "scale", path))
    rotations = {
        name: rotvecs[:, index].astype(np.float32) * scale for index, name in enumerate(_names(file, path)[:24])
    }
    if missing := sorted(set(FOOT_CHAIN) - set(rotations)):
        raise ValueError(f"{path} lacks the joints {', '.join(missing)}; give the rotations file of these pieces.")
    return replace(piece, feet=build_feet(piece.joints, rotations))


def build_feet(joints: np.ndarray, rotations: dict[str, np.ndarray]) -> np.ndarray:
    """Place big toes and heels from ankle positions and joint rotations.

    Args:
        joints: (T, 17, 3) metres, `h36m17`, Z up.
        rotations: local rotation vectors (T, 3), radians, Y-up frame, at least of `FOOT_CHAIN`; there,
            `foot` is the toe joint.

    Returns:
        (T, 4, 3) float32 metres in the order of `FEET`.
    """
    feet = np.empty((len(joints), len(FEET), 3), dtype=np.float32)
    for column, side in enumerate(("left", "right")):
        knee, ankle = (joints[:, JOINTS.index(f"{side[0].upper()}{joint}")] for joint in ("Knee", "Foot"))
        shin = float(np.median(np.linalg.norm(ankle - knee, axis=-1)))
        foot = Z_UP_FROM_Y_UP @ _chain(rotations, side[0])
        toe = foot @ rotvec_to_matrix(rotations[f"{side[0]}_foot"])
        feet[:, column], feet[:, column + 2] = place_foot(ankle, shin, foot, toe, side)
    return feet


def _chain(rotations: dict[str, np.ndarray], prefix: str) -> np.ndarray:
    total = rotvec_to_matrix(rotations["pelvis"])
    for joint in ("hip", "knee", "ankle"):
        total = total @ rotvec_to_matrix(rotations[f"{prefix}_{joint}"])
    return total


def write_mocap(path: str | PathLike[str], pieces: Iterable[MocapPiece]) -> int:
    """Write pieces to a `.h5` file that `read_mocap` reads, one after the other as they come; or not at all.

    Positions (and feet, where a piece has them) are stored as int16 steps of 0.25 mm, coarser only for pieces that
    span more than 16 m.

    Returns:
        the number of pieces written.

    Raises:
        ValueError: there is no piece, two have one name, or a joint is not finite.
        OSError: the place cannot be written.
    """
    import h5py

    count = 0
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"fps": FPS, "joints": list(JOINTS), "parents": np.array(PARENTS), "licence": LICENCE})
        file.attrs["feet"] = list(FEET)
        file.attrs["note"] = "positions (metres, Z up) = dataset.astype(float32) * attrs['scale'] + attrs['offset']"
        for piece in pieces:
            _write_piece(file, piece)
            count += 1
        if not count:
            raise ValueError(f"There is no motion to write to {path}; give at least one piece.")
    return count


def _write_piece(file, piece: MocapPiece) -> None:
    if piece.name in file:
        raise ValueError(f"Two pieces are called {piece.name!r}; expected every clip of a folder to have its own name.")
    if not np.isfinite(piece.joints).all():
        raise ValueError(f"{piece.name} has joints that are not finite; expected numbers in metres.")
    offset = np.round([*piece.joints[0, 0, :2], 0.0], 3).astype(np.float32)
    points = piece.joints if piece.feet is None else np.concatenate([piece.joints, piece.feet], axis=1)
    scale = max(SCALE, float(np.nanmax(np.abs(points - offset))) / 32766)
    group = file.create_group(piece.name)
    group.attrs.update(piece.attributes)
    for key in ("subject", "action", "category", "split", "kind", "fps"):
        group.attrs[key] = getattr(piece, key)
    group.attrs.update({"scale": scale, "offset": offset})
    for key, values in (("positions", piece.joints), ("feet", piece.feet)):
        if values is not None:
            steps = np.nan_to_num(np.round((values - offset) / scale), nan=UNKNOWN).astype(np.int16)
            group.create_dataset(key, data=steps, chunks=(min(1024, len(steps)), *steps.shape[1:]), compression="gzip")
