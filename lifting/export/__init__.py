"""Result files: one module per format, and one table of suffixes for reading and writing, from Python and the CLI.

The formats of ``FORMATS`` hold a whole take and bring it back; a ``.csv`` leaves fitted bodies out, for it has one row
per joint. The others are for other programs. Those of ``MOTION_FORMATS`` take every lifted motion, and show fitted
bodies where they hold surfaces or rotations and there are any. Those of ``BODY_FORMATS`` need fitted bodies; of these
only AMASS-style files are read, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from lifting.files import atomic_path
from lifting.meshes import SkinnedMesh
from lifting.motion import Take

__all__ = [
    "BODY_FORMATS",
    "FORMATS",
    "MOTION_FORMATS",
    "Format",
    "files_of",
    "format_of",
    "load",
    "save",
    "suffix_of",
    "write_files",
]

Writer = Callable[[Path], object]
Files = Iterable[tuple[Path, Writer]]


@dataclass(frozen=True)
class Format:
    """How files of one suffix are written and, where they can be, read.

    Attributes:
        description: a few words for help texts.
        write: ``write(take, path)`` for a take as it is; or None.
        read: ``read(path) -> Take``, or None.
        make_files: ``make_files(take, meshes, path)`` for a take as people look at it, `meshes` those of its fitted
            bodies: gives the files, each with a function that writes it, whole or not at all; or None.
        beside: whether it shows a predicted future beside the motion; all others get it as frames after the last.
        one_person: whether a file holds one person, so that others go to files of their own.
        package: what has to be installed to write it, with the extra of setup.py that brings it; or None.
    """

    description: str
    write: Callable[[Take, Path], None] | None = None
    read: Callable[[Path], Take] | None = None
    make_files: Callable[[Take, Sequence[SkinnedMesh], Path], Files] | None = None
    beside: bool = False
    one_person: bool = False
    package: tuple[str, str] | None = None

    @property
    def takes_meshes(self) -> bool:
        """Whether writing takes the meshes of fitted bodies, where there are any."""
        return self.make_files is not None

    def files(self, take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
        """The files that a take becomes, each with a function that writes it; ValueError for what the format lacks."""
        if self.make_files is not None:
            return self.make_files(take, meshes, path)
        return [(path, lambda place: self.write(take, place))]

    def check_package(self, path: Path) -> None:
        """ImportError in a sentence where the package that writes the file is not installed."""
        if self.package is not None and find_spec(self.package[0]) is None:
            package, extra = self.package
            raise ImportError(f"writing {path.name!r} needs {package}: pip install '.[{extra}]' in a clone of lift")


def _lazy(module: str, function: str) -> Callable:
    """A function that imports its module (and what that needs) on the first call; a leading dot leads to a sibling."""

    def call(*arguments: object) -> object:
        return getattr(importlib.import_module(f".{module}", __name__), function)(*arguments)

    return call


FORMATS: dict[str, Format] = {
    ".npz": Format("numpy arrays with JSON metadata", _lazy("npz", "write_npz"), _lazy("npz", "read_npz")),
    ".json": Format("the same as JSON text", _lazy("json_file", "write_json"), _lazy("json_file", "read_json")),
    ".csv": Format("a tidy table", _lazy("csv_file", "write_csv"), _lazy("csv_file", "read_csv")),
    ".h5": Format("the same as HDF5", _lazy("hdf5", "write_hdf5"), _lazy("hdf5", "read_hdf5")),
}

MOTION_FORMATS: dict[str, Format] = {
    ".glb": Format("animated bodies or skeletons for 3D programs and browsers", make_files=_lazy("bodies", "glb_file")),
    ".bvh": Format("skeletons in motion", make_files=_lazy("bodies", "bvh_files"), one_person=True),
    ".trc": Format("markers for OpenSim", make_files=_lazy("trc", "trc_files"), one_person=True),
    ".mot": Format("joint angles for OpenSim", make_files=_lazy("angles", "mot_files"), one_person=True),
    ".angles.csv": Format("joint angles as a table", make_files=_lazy("angles", "angles_csv_file")),
    ".html": Format("a page that plays in any browser", make_files=_lazy(".view.page", "page_files"), beside=True),
    ".png": Format("plots of joint angles and speeds", make_files=_lazy(".view.plots", "plot_files")),
    ".c3d": Format("points for motion analysis", make_files=_lazy("c3d_file", "c3d_files"), one_person=True,
                   package=("ezc3d", "c3d")),
}

BODY_FORMATS: dict[str, Format] = {
    ".obj": Format("the bodies of one frame, as clip.120.obj", make_files=_lazy("bodies", "obj_file")),
    ".ply": Format("the bodies of one frame, as clip.120.ply", make_files=_lazy("bodies", "ply_file")),
    ".amass.npz": Format("AMASS arrays", read=_lazy("amass_take", "read_amass_take"),
                         make_files=_lazy("bodies", "amass_files"), one_person=True),
}
_KNOWN = {**FORMATS, **MOTION_FORMATS, **BODY_FORMATS}


def suffix_of(path: str | PathLike) -> str:
    """The longest known suffix of `path` in small letters (``.amass.npz``, not ``.npz``), or "" for an unknown one."""
    parts = [part.lower() for part in Path(path).suffixes]
    return next((suffix for count in (2, 1) if (suffix := "".join(parts[-count:])) in _KNOWN), "")


def format_of(path: str | PathLike) -> Format:
    """The format that the suffix of `path` stands for (case does not matter); ValueError with the known suffixes."""
    suffix = suffix_of(path)
    if not suffix:
        raise ValueError(f"{str(path)!r} has the suffix {Path(path).suffix!r}; results are written as "
                         f"{', '.join(FORMATS)}, motions as {', '.join(MOTION_FORMATS)}, and fitted bodies as "
                         f"{', '.join(BODY_FORMATS)}.")
    return _KNOWN[suffix]


def save(take: Take, path: str | PathLike, *, meshes: Iterable[SkinnedMesh] = ()) -> Path:
    """Write a take in the format of the suffix, whole or not at all; returns the path.

    Args:
        take: the take.
        path: the file. Some formats, as ``.bvh``, hold one person: the others go to ``NAME.person2.bvh`` beside it;
            ``.obj`` and ``.ply`` hold the frame whose number is in the name: ``clip.120.obj``.
        meshes: the fitted bodies of its people, which those of ``BODY_FORMATS`` need and those of ``FORMATS`` ignore.

    Raises ValueError for an unknown suffix or a take without the bodies the format needs, ImportError for a package the
    format needs, and OSError for an unwritable place.
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
    files = []
    for path in paths:
        form = format_of(path)
        form.check_package(path)
        files += form.files(take, meshes, path)
    return files


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
