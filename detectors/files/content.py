"""What lies in a file or folder, loaded once so that every format can look at it, and checked access to its values."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lifting.files import load_npz

__all__ = [
    "Content",
    "as_list",
    "as_numbers",
    "as_object",
    "as_score",
    "as_whole_number",
    "open_hdf5",
    "read_content",
    "read_json",
]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Content:
    """A file or folder, by its kind.

    "folder" (data: sorted JSON paths), "npz" (dict), "npy", "json" (parsed), "text", or "hdf5" (names of its groups and
    datasets; `open_hdf5` opens it).
    """

    path: Path
    kind: str
    data: Any

    @property
    def name(self) -> str:
        """The file's name in quotes, for messages."""
        return repr(self.path.name or str(self.path))

    def describe(self) -> str:
        """Say in a few words what was found."""
        if self.kind == "folder":
            return f"{len(self.data)} JSON files, such as {self.data[0].name!r}"
        if self.kind == "npz":
            return f"arrays named {_some(self.data)}"
        if self.kind == "json":
            return _describe_json(self.data)
        if self.kind == "hdf5":
            return f"an HDF5 file with {_some(self.data)}"
        return "an array" if self.kind == "npy" else "text"


def _some(names: Iterable[Any]) -> str:
    names = [str(name)[:40] for name in names]
    return ", ".join(repr(name) for name in names[:6]) + (", ..." if len(names) > 6 else "") if names else "nothing"


def _describe_json(value: Any) -> str:
    if isinstance(value, dict):
        return f"a JSON object with {_some(value)}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"a JSON list of objects with {_some(value[0])}"
    return "an empty JSON list" if value == [] else f"a JSON {type(value).__name__}"


def read_content(path: str | os.PathLike[str]) -> Content:
    """Load what lies at `path` by its first bytes. Raises FileNotFoundError, OSError, ValueError (damaged)."""
    path = Path(path).expanduser()
    try:
        files = sorted(path.iterdir()) if path.is_dir() else None
        head = b"" if files is not None else _read_head(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no keypoint file at {str(path)!r}: check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(f"cannot read {str(path)!r}: {reason.lower()}; expected a file that you may read") from error
    if files is not None:
        return _keep_json(path, files)
    if not head.strip():
        raise ValueError(f"{path.name!r} is empty: expected keypoints; write the file again")
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return Content(path, "npz", load_npz(path, allow_objects=True))
    if head.startswith(b"\x93NUMPY"):
        return Content(path, "npy", _read_npy(path))
    if head.startswith(HDF5_MAGIC):
        return Content(path, "hdf5", _hdf5_names(path))
    if b"\0" in head:
        raise ValueError(f"{path.name!r} is a binary file: expected keypoints as npz, npy, json, csv or h5, no video")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return Content(path, "json", read_json(path))
    return Content(path, "text", _read_text(path))


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file as `h5py.File`; whatever HDF5 cannot read in the block becomes a ValueError."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"cannot read {path.name!r} as HDF5: {error}; write the file again") from error


def _hdf5_names(path: Path) -> list[str]:
    names: list[str] = []
    with open_hdf5(path) as file:
        file.visit(names.append)
    return names


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _keep_json(path: Path, files: list[Path]) -> Content:
    files = [file for file in files if file.suffix.lower() == ".json" and file.is_file()]
    if not files:
        raise ValueError(f"the folder {path.name!r} holds no JSON files: expected one per frame, as by OpenPose")
    return Content(path, "folder", files)


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise ValueError(f"cannot read {path.name!r} as a plain array: {error}; use numpy.save") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")  # line ends stay as they are
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name!r} is not UTF-8 text: expected keypoints as npz, npy, json or csv") from error


def read_json(path: Path) -> Any:
    """Parse one JSON file. Raises ValueError for damaged, truncated or absurdly nested text."""
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise ValueError(f"{path.name!r} is damaged or cut short JSON: {where}; write the file again") from error
    except RecursionError:
        raise ValueError(f"{path.name!r} is JSON nested beyond any keypoint file: write the file again") from None
    except ValueError as error:
        raise ValueError(f"cannot read {path.name!r} as JSON: {error}") from error


def as_object(value: Any, what: str) -> dict[str, Any]:
    """Return a JSON object or raise ValueError naming `what` was expected to be one."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a {type(value).__name__}, expected an object")
    return value


def as_list(value: Any, what: str) -> list[Any]:
    """Return a JSON list or raise ValueError naming `what` was expected to be one."""
    if not isinstance(value, list):
        raise ValueError(f"{what} is a {type(value).__name__}, expected a list")
    return value


def as_numbers(value: Any, what: str) -> np.ndarray:
    """Return nested lists or an array as float64, None becoming NaN; ValueError for ragged lists and other types."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O" and all(_is_number(item) for item in array.flat):
            array = array.astype(np.float64)
    except (ValueError, OverflowError, TypeError) as error:
        raise ValueError(f"{what} has rows of different lengths or huge numbers: expected an array") from error
    if array.dtype.kind not in "fiu":
        found = "text" if array.dtype.kind in "US" else f"values of type {array.dtype}"
        raise ValueError(f"{what} holds {found}, expected numbers")
    return array.astype(np.float64)


def _is_number(item: Any) -> bool:
    return item is None or isinstance(item, (int, float, np.number)) and not isinstance(item, bool)


def as_whole_number(value: Any, what: str) -> int:
    """Return an int from an int, a whole float, or a numpy integer; raise ValueError for anything else."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    whole = whole or isinstance(value, float) and math.isfinite(value) and value == int(value)
    if whole and abs(int(value)) < 2**63:
        return int(value)
    raise ValueError(f"{what} is {str(value)[:40]!r}, expected a whole number")


def as_score(value: Any) -> float | None:
    """Return a finite number as float and None for anything else: the score of a person only ranks people."""
    plain = isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and abs(value) < 1e12
    return float(value) if plain else None
