"""Opening data: `open_clips` finds out which data set a file or folder holds.

A format is added by one entry in `DATASETS`: what is looked for, where it comes from, and a function that finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path

from lifting.datasets import h36m, humaneva, mpi_inf_3dhp, threedpw, videopose3d
from lifting.datasets.clip_file import HOW_TO_GET as CLIP_FILE_HOW_TO_GET
from lifting.datasets.clip_file import ClipFile, is_clip_file
from lifting.datasets.clips import ClipSet
from lifting.datasets.mocap_rig import KEYPOINTS, MocapRig, is_mocap_file

_NPZ = re.compile(r"data_(?:2d_(?P<of_2d>[^_]+)_(?P<keypoints>.+)|3d_(?P<of_3d>[^_]+))\.npz")


@dataclass(frozen=True)
class Source:
    """Data that were found: what they are and where, and how to open them with a choice of 2D keypoints (or None)."""

    what: str
    open: Callable[[str | None], ClipSet]


@dataclass(frozen=True)
class Dataset:
    """A format: what is looked for, how to get it, and a function that finds it in a file or folder."""

    looked_for: str
    how_to_get: str
    find: Callable[[Path], list[Source]]


def open_clips(path: str | PathLike[str] = "data", *, keypoints: str | None = None) -> ClipSet:
    """Open the data set that a file, a folder or, where it has none itself, one of its direct subfolders holds.

    Args:
        path: the file or folder.
        keypoints: which 2D keypoints, where there are several, such as `cpn_ft_h36m_dbb`, `gt` or `noisy`.

    Raises:
        FileNotFoundError: there is nothing, or nothing that is known; says what was looked for and how to get it.
        ValueError: there are several data sets, or several 2D keypoints to choose from, or they are damaged.
        ImportError: a package that reads them is missing.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no data at {path.absolute()}; {_list_formats()}.")
    sources = _find(path)
    if not sources and path.is_dir():
        sources = [source for folder in sorted(filter(Path.is_dir, path.iterdir())) for source in _find(folder)]
    if not sources:
        raise FileNotFoundError(f"{path} holds no data set that is known; {_list_formats()}.")
    if len(sources) > 1:
        listed = "; ".join(source.what for source in sources)
        raise ValueError(f"{path} holds {len(sources)} data sets, expected one; name one: {listed}.")
    return sources[0].open(keypoints)


def choose_keypoints(known: Sequence[str], wanted: str | None, where: object) -> str:
    """The 2D keypoints asked for, or the only ones there are; ValueError listing those that exist."""
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted not in known:
        asked = "none were chosen" if wanted is None else f"not {wanted!r}"
        raise ValueError(f"{where} has the 2D keypoints {', '.join(known)}, {asked}; choose one of them (--keypoints).")
    return wanted


def _list_formats() -> str:
    listed = "; ".join(f"{dataset.looked_for} ({dataset.how_to_get})" for dataset in DATASETS.values())
    return f"looked for {listed}"


# ---- finding


def _find(path: Path) -> list[Source]:
    return [source for dataset in DATASETS.values() for source in dataset.find(path)]


def _find_clip_file(path: Path) -> list[Source]:
    return [Source(f"clips {file}", partial(_open_clip_file, file)) for file in _files(path, "*.h5")
            if is_clip_file(file)]


def _open_clip_file(path: Path, keypoints: str | None) -> ClipSet:
    if keypoints is not None:
        raise ValueError(f"{path} has the 2D keypoints that it was written with, got the choice {keypoints!r}; leave "
                         "it out, or convert the data set again with it.")
    return ClipFile(path)


def _find_mocap(path: Path) -> list[Source]:
    return [Source(f"motion capture {file}", partial(_open_mocap, file)) for file in _files(path, "*.h5")
            if is_mocap_file(file)]


def _open_mocap(path: Path, keypoints: str | None) -> ClipSet:
    return MocapRig(path, "gt" if keypoints is None else choose_keypoints(KEYPOINTS, keypoints, path))


def _files(path: Path, pattern: str) -> list[Path]:
    """The path itself, where it is a file; else the files in it whose names fit."""
    return [path] if path.is_file() else sorted(file for file in path.glob(pattern) if file.is_file())


def _find_h36m(path: Path) -> list[Source]:
    found = path.is_dir() and next(path.glob(h36m.PATTERN), None)
    return [Source(f"Human3.6M's archives {path}", partial(_open_h36m, path))] if found else []


def _open_h36m(folder: Path, keypoints: str | None) -> ClipSet:
    known = ["gt", *(name for name in _keypoints_in(folder, "h36m") if name != "gt")]
    return h36m.open_h36m(folder, "gt" if keypoints is None else choose_keypoints(known, keypoints, folder))


def _find_videopose3d(path: Path) -> list[Source]:
    """One source per data set; Human3.6M's archives, where they are, take the 2D files that lie beside them."""
    named = [match for file in _files(path, "*.npz") if (match := _NPZ.fullmatch(file.name))]
    if path.is_file():
        return [Source(f"{dataset} {path}", partial(_open_npz, path.parent, dataset, match["keypoints"]))
                for match in named for dataset in [match["of_2d"] or match["of_3d"]]]
    names = {match["of_2d"] or match["of_3d"] for match in named}
    archives = {"h36m"} if _find_h36m(path) else set()
    return [Source(f"{name} {path / f'data_2d_{name}_*.npz'}", partial(_open_npz, path, name, None))
            for name in sorted(names - archives)]


def _open_npz(folder: Path, dataset: str, stated: str | None, keypoints: str | None) -> ClipSet:
    known = _keypoints_in(folder, dataset) if stated is None else [stated]
    if not known:
        raise FileNotFoundError(f"{folder} has data_3d_{dataset}.npz but no data_2d_{dataset}_*.npz; "
                                f"{videopose3d.HOW_TO_GET}.")
    if dataset == humaneva.UNKNOWN_LAYOUT:
        raise ValueError(f"{folder} has files of {dataset}, whose 20 joints nothing names: VideoPose3D documents that "
                         "layout but has no skeleton of it; make humaneva15 with its prepare_data_humaneva.py.")
    of_humaneva = dataset.startswith("humaneva")
    open_files = humaneva.open_humaneva if of_humaneva else videopose3d.open_videopose3d
    return open_files(folder, dataset, choose_keypoints(known, keypoints, folder))


def _keypoints_in(folder: Path, dataset: str) -> list[str]:
    names = (_NPZ.fullmatch(file.name) for file in sorted(folder.glob(f"data_2d_{dataset}_*.npz")))
    return [named["keypoints"] for named in names if named]


def _find_mpi_inf_3dhp(path: Path) -> list[Source]:
    found = next(path.glob(mpi_inf_3dhp.TRAIN_PATTERN), None) or mpi_inf_3dhp.find_test_takes(path)
    return [Source(f"MPI-INF-3DHP {path}", partial(_open_mpi_inf_3dhp, path))] if found else []


def _open_mpi_inf_3dhp(folder: Path, keypoints: str | None) -> ClipSet:
    chosen = "gt" if keypoints is None else choose_keypoints([*mpi_inf_3dhp.LABELS], keypoints, folder)
    return mpi_inf_3dhp.open_mpi_inf_3dhp(folder, chosen)


def _find_3dpw(path: Path) -> list[Source]:
    return [Source(f"3DPW {path}", partial(_open_3dpw, path))] if threedpw.sequence_files(path) else []


def _open_3dpw(folder: Path, keypoints: str | None) -> ClipSet:
    known = threedpw.KEYPOINTS
    return threedpw.open_3dpw(folder, known[0] if keypoints is None else choose_keypoints(known, keypoints, folder))


DATASETS: dict[str, Dataset] = {
    "clips": Dataset("a clip file .h5", CLIP_FILE_HOW_TO_GET, _find_clip_file),
    "mocap": Dataset("a motion capture .h5", "`python -m experiments.convert_mocap FOLDER` makes mocap/mocap17.h5",
                     _find_mocap),
    "h36m": Dataset(f"{h36m.PATTERN} with metadata.xml", h36m.HOW_TO_GET, _find_h36m),
    "videopose3d": Dataset("data_2d_*_*.npz with data_3d_*.npz", videopose3d.HOW_TO_GET, _find_videopose3d),
    "mpi_inf_3dhp": Dataset(f"{mpi_inf_3dhp.TRAIN_PATTERN} or {mpi_inf_3dhp.TEST_PATTERN}", mpi_inf_3dhp.HOW_TO_GET,
                            _find_mpi_inf_3dhp),
    "3dpw": Dataset(f"{threedpw.FOLDER}/*/*.pkl", threedpw.HOW_TO_GET, _find_3dpw),
}
"""Every format by name, in the order in which they are looked for."""
