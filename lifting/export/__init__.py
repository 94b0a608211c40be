"""Result files: one module per format, and one table of suffixes for reading and writing, from Python and the CLI.

The formats of ``FORMATS`` hold a whole take and bring it back; a ``.csv`` leaves fitted bodies out, for it has one row
per joint. Those of ``BODY_FORMATS`` are for other programs: they hold fitted bodies, need their meshes, and are only
written here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from lifting.meshes import SkinnedMesh
from lifting.motion import Take

__all__ = ["BODY_FORMATS", "FORMATS", "Format", "format_of", "load", "save", "suffix_of"]


@dataclass(frozen=True)
class Format:
    """How files of one suffix are written and, where they can be, read.

    Attributes:
        description: a few words for help texts.
        write: ``write(take, path)``, or ``write(take, meshes, path)`` for bodies; whole or not at all.
        read: ``read(path) -> Take``, or None.
        needs_bodies: whether it holds fitted bodies, so that `write` takes their meshes.
    """

    description: str
    write: Callable[..., None]
    read: Callable[[Path], Take] | None = None
    needs_bodies: bool = False


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

BODY_FORMATS: dict[str, Format] = {
    ".glb": Format("animated bodies for 3D programs and browsers", _lazy("bodies", "save_glb"), needs_bodies=True),
    ".bvh": Format("skeletons in motion, a file per person", _lazy("bodies", "save_bvh"), needs_bodies=True),
    ".obj": Format("the bodies of one frame, as clip.120.obj", _lazy("bodies", "save_obj"), needs_bodies=True),
    ".ply": Format("the bodies of one frame, as clip.120.ply", _lazy("bodies", "save_ply"), needs_bodies=True),
    ".amass.npz": Format("AMASS arrays, a file per person", _lazy("bodies", "save_amass"), needs_bodies=True),
}
_KNOWN = {**FORMATS, **BODY_FORMATS}


def suffix_of(path: str | PathLike) -> str:
    """The longest known suffix of `path` in small letters (``.amass.npz``, not ``.npz``), or "" for an unknown one."""
    parts = [part.lower() for part in Path(path).suffixes]
    return next((suffix for count in (2, 1) if (suffix := "".join(parts[-count:])) in _KNOWN), "")


def format_of(path: str | PathLike) -> Format:
    """The format that the suffix of `path` stands for (case does not matter); ValueError with the known suffixes."""
    suffix = suffix_of(path)
    if not suffix:
        raise ValueError(f"{str(path)!r} has the suffix {Path(path).suffix!r}; results are written as "
                         f"{', '.join(FORMATS)}, and fitted bodies as {', '.join(BODY_FORMATS)}.")
    return _KNOWN[suffix]


def save(take: Take, path: str | PathLike, *, meshes: Iterable[SkinnedMesh] = ()) -> Path:
    """Write a take in the format of the suffix, whole or not at all; returns the path.

    Args:
        take: the take.
        path: the file. ``.bvh`` and ``.amass.npz`` hold one person: the others go to ``NAME.person2.bvh`` beside it;
            ``.obj`` and ``.ply`` hold the frame whose number is in the name: ``clip.120.obj``.
        meshes: the fitted bodies of its people, which the formats of ``BODY_FORMATS`` need and the others ignore.

    Raises ValueError for an unknown suffix or a take without the bodies the format needs, and OSError for an unwritable
    place.
    """
    path = Path(path)
    form = format_of(path)
    if not isinstance(take, Take):
        raise ValueError(f"only a Take can be saved, got {type(take).__name__}; lift the keypoints first.")
    if form.needs_bodies:
        form.write(take, tuple(meshes), path)
    else:
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
        raise ValueError(f"{suffix_of(path)} files can only be written; load one of {', '.join(FORMATS)}.")
    return form.read(path)
