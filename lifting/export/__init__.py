"""Result files: one module per format, and one table of suffixes for reading and writing, from Python and the CLI."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from lifting.motion import Take

__all__ = ["FORMATS", "Format", "format_of", "load", "save"]


@dataclass(frozen=True)
class Format:
    """How files of one suffix are written and, where they can be, read.

    Attributes:
        description: a few words for help texts.
        write: ``write(take, path)``, whole or not at all.
        read: ``read(path) -> Take``, or None.
    """

    description: str
    write: Callable[[Take, Path], None]
    read: Callable[[Path], Take] | None = None


def _lazy(module: str, function: str) -> Callable:
    """A function that imports its module (and what that needs) on the first call."""

    def call(*arguments: object) -> object:
        return getattr(importlib.import_module(f"lifting.export.{module}"), function)(*arguments)

    return call


FORMATS: dict[str, Format] = {
    ".npz": Format("numpy arrays with JSON metadata", _lazy("npz", "write_npz"), _lazy("npz", "read_npz")),
    ".json": Format("the same as JSON text", _lazy("json_file", "write_json"), _lazy("json_file", "read_json")),
    ".csv": Format("a tidy table", _lazy("csv_file", "write_csv"), _lazy("csv_file", "read_csv")),
    ".h5": Format("the same as HDF5", _lazy("hdf5", "write_hdf5"), _lazy("hdf5", "read_hdf5")),
}


def format_of(path: str | PathLike) -> Format:
    """The format that the suffix of `path` stands for (case does not matter); ValueError with the known suffixes."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{str(path)!r} has the suffix {suffix!r}; results are written as {', '.join(FORMATS)}.")
    return FORMATS[suffix]


def save(take: Take, path: str | PathLike) -> Path:
    """Write a take in the format of the suffix, whole or not at all; returns the path.

    Raises ValueError for an unknown suffix and OSError for an unwritable place.
    """
    path = Path(path)
    form = format_of(path)
    if not isinstance(take, Take):
        raise ValueError(f"only a Take can be saved, got {type(take).__name__}; lift the keypoints first.")
    form.write(take, path)
    return path


def load(path: str | PathLike) -> Take:
    """Read a take back from a file that :func:`save` wrote.

    Nothing in the file is executed. Raises FileNotFoundError, and ValueError for an unknown suffix or a file that is
    corrupt, or not a result of this library.
    """
    path = Path(path)
    form = format_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; give the path of a result.")
    if form.read is None:
        readable = ", ".join(suffix for suffix, known in FORMATS.items() if known.read)
        raise ValueError(f"{path.suffix} files can only be written; load one of {readable}.")
    return form.read(path)
