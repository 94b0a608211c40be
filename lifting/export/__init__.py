"""Result files: one module per format, and one table of suffixes for reading and writing, from Python and the CLI.

The formats of ``FORMATS`` hold a whole take and bring it back; a ``.csv`` leaves fitted bodies out, for it has one row
per joint. Those of ``BODY_FORMATS`` are for other programs: they hold fitted bodies and need their meshes; of these
only AMASS-style files are read, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from lifting.files import atomic_path
from lifting.meshes import SkinnedMesh
from lifting.motion import Take

__all__ = ["BODY_FORMATS", "FORMATS", "Format", "files_of", "format_of", "load", "save", "suffix_of", "write_files"]

Writer = Callable[[Path], object]
Files = Iterable[tuple[Path, Writer]]


@dataclass(frozen=True)
class Format:
    """How files of one suffix are written and, where they can be, read.

    Attributes:
        description: a few words for help texts.
        write: ``write(take, path)``; None for bodies.
        read: ``read(path) -> Take``, or None.
        write_bodies: ``write_bodies(take, meshes, path)`` gives the files of the fitted bodies, and for each a function
            that writes it, whole or not at all.
    """

    description: str
    write: Callable[[Take, Path], None] | None = None
    read: Callable[[Path], Take] | None = None
    write_bodies: Callable[[Take, Sequence[SkinnedMesh], Path], Files] | None = None

    @property
    def needs_bodies(self) -> bool:
        """Whether it holds fitted bodies, so that writing takes their meshes."""
        return self.write_bodies is not None

    def files(self, take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
        """The files that a take becomes, each with a function that writes it; ValueError for a lack of bodies."""
        if self.write_bodies is not None:
            return self.write_bodies(take, meshes, path)
        return [(path, lambda place: self.write(take, place))]


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
    ".glb": Format("animated bodies for 3D programs and browsers", write_bodies=_lazy("bodies", "glb_file")),
    ".bvh": Format("skeletons in motion, a file per person", write_bodies=_lazy("bodies", "bvh_files")),
    ".obj": Format("the bodies of one frame, as clip.120.obj", write_bodies=_lazy("bodies", "obj_file")),
    ".ply": Format("the bodies of one frame, as clip.120.ply", write_bodies=_lazy("bodies", "ply_file")),
    ".amass.npz": Format("AMASS arrays, a file per person", read=_lazy("amass_take", "read_amass_take"),
                         write_bodies=_lazy("bodies", "amass_files")),
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
    path = as_path(path)
    with ExitStack() as written:
        write_files(files_of(take, [path], meshes), written)
    return path


def files_of(take: Take, paths: Iterable[Path], meshes: Iterable[SkinnedMesh] = ()) -> list[tuple[Path, Writer]]:
    """All files that a take becomes, each with a function that writes it; arguments and errors as of `save`."""
    if not isinstance(take, Take):
        raise ValueError(f"only a Take can be saved, got {type(take).__name__}; lift the keypoints first.")
    meshes = tuple(meshes)
    return [file for path in paths for file in format_of(path).files(take, meshes, path)]


def write_files(files: Files, written: ExitStack) -> None:
    """Write all of some files; they appear together when the stack is closed, and none does where one fails."""
    for place, write in files:
        write(written.enter_context(atomic_path(place)))


def load(path: str | PathLike) -> Take:
    """Read a take back from a file that :func:`save` wrote, or one person's body from any AMASS-style ``.npz``.

    Nothing in the file is executed. Raises FileNotFoundError, and ValueError for an unknown suffix or a file that is
    corrupt, or not a result of this library.
    """
    path = as_path(path)
    form = format_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; give the path of a result.")
    if form.read is None:
        raise ValueError(f"{suffix_of(path)} files can only be written; load one of {', '.join(FORMATS)}.")
    return form.read(path)


def as_path(path: object) -> Path:
    """The path that was given; ValueError for anything but one."""
    if not isinstance(path, (str, PathLike)):
        raise ValueError(f"got {path!r} in place of a file, expected its path as text.")
    return Path(path)
