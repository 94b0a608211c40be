"""Clip files: any data set as one `.h5` that is read range by range, from as many processes as wanted.

The arrays of all clips lie one after the other along the first axis, so that a file of any number of clips has five
arrays: `xy` (F, J, 2) pixels and `score` (F, J) of all F frames, `joints` (L, K, 3) and `trajectory` (L, 3) metres of
the L labelled ones, all float32, and `clips` (N,), one JSON object per clip that says where its frames begin and holds
names, rate, image size and camera. The file's attributes hold the format, the data set's name and the two skeletons.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from lifting.cameras import Camera
from lifting.datasets.clips import Clip, ClipInfo, ClipSet, check_names, shared_skeleton, slice_camera
from lifting.files import atomic_path
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion
from lifting.skeletons import Skeleton

FORMAT = "lift clips 1"
ARRAYS = ("xy", "score", "joints", "trajectory")
CHUNK = 64  # frames stored together: what the smallest read costs
CACHE = 1 << 24  # bytes of chunks kept per array
HOW_TO_GET = "make one with `lift convert dataset`"


# ---- writing


def write_clips(path: str | PathLike[str], clips: Iterable[Clip], *, name: str) -> int:
    """Write clips to one file as they come, or nothing at all: no more than one is in memory at a time.

    Args:
        path: the `.h5` file.
        clips: a `ClipSet` or any other source.
        name: what the data set is called.

    Returns:
        the number of clips.

    Raises:
        ValueError: there is no clip, two have one name, they differ in a layout, or a motion has a sigma (clip files
            hold the truth).
        OSError: the place cannot be written.
    """
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        writer = _Writer(file)
        for clip in clips:
            writer.add(clip)
        writer.finish(name)
    return len(writer.entries)


class _Writer:
    """Appends clips to an open HDF5 file."""

    def __init__(self, file: Any) -> None:
        self.file, self.entries = file, []
        self.infos: list[ClipInfo] = []
        self.skeletons: dict[str, Skeleton] = {}

    def add(self, clip: Clip) -> None:
        info, keypoints, motion = clip.info, clip.keypoints, clip.motion
        self._check_skeleton("skeleton_in", keypoints.skeleton)
        entry = {"subject": info.subject, "action": info.action, "view": info.view, "frames": info.frames,
                 "fps": info.fps, "image_size": list(info.image_size), "start": self._append("xy", keypoints.xy),
                 "camera": None if info.camera is None else info.camera.to_dict(), "labels": None}
        self._append("score", keypoints.score)
        if motion is not None:
            entry.update(self._add_motion(motion, info.name))
        self.infos.append(info)
        self.entries.append(json.dumps(entry))

    def _add_motion(self, motion: Motion, name: str) -> dict[str, Any]:
        if motion.sigma is not None:
            raise ValueError(f"the motion of {name} has a sigma, expected the truth without one; clip files hold data "
                             "to train on, results go into an .npz.")
        self._check_skeleton("skeleton_out", motion.skeleton)
        known = motion.trajectory is not None
        self._append("trajectory", motion.trajectory if known else np.full((len(motion), 3), np.nan, np.float32))
        return {"labels": self._append("joints", motion.joints), "trajectory": known}

    def _check_skeleton(self, key: str, skeleton: Skeleton) -> None:
        what = "keypoints" if key == "skeleton_in" else "motions"
        self.skeletons[key] = shared_skeleton([self.skeletons.get(key, skeleton), skeleton], what, "these clips")

    def _append(self, key: str, values: np.ndarray) -> int:
        """Add (T, ...) at the end of an array and return where they begin."""
        if key not in self.file:
            shape = values.shape[1:]
            self.file.create_dataset(key, (0, *shape), "<f4", maxshape=(None, *shape), chunks=(CHUNK, *shape))
        array = self.file[key]
        start = len(array)
        array.resize(start + len(values), axis=0)
        array[start:] = values
        return start

    def finish(self, name: str) -> None:
        check_names(self.infos, name)
        texts = {key: json.dumps(skeleton.to_dict()) for key, skeleton in self.skeletons.items()}
        self.file.attrs.update({"format": FORMAT, "name": name, **texts})
        self.file.create_dataset("clips", data=self.entries)


# ---- reading


def is_clip_file(path: str | PathLike[str]) -> bool:
    """Tell whether a file is one that `write_clips` wrote (of this or a later version)."""
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with _explained(Path(path)), h5py.File(path, "r") as file:
        return _text(file.attrs.get("format", "")).startswith(FORMAT.rpartition(" ")[0])


class ClipFile(ClipSet):
    """The clips of a file that `write_clips` wrote; reads touch the frames asked for and nothing else.

    Every process opens the file for itself when it first reads, so that a ClipFile may be pickled, and shared with
    forked or spawned workers. Raises FileNotFoundError, and ValueError when the file is of another format or damaged.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._opened: tuple[int, dict[str, Any]] | None = None
        with _explained(self.path), _open(self.path) as file:
            if (found := _text(file.attrs.get("format", "none"))) != FORMAT:
                raise ValueError(f"it is of the format {found!r}, expected {FORMAT!r}")
            self.name = _text(file.attrs["name"])
            self.skeleton_in = Skeleton.from_dict(json.loads(file.attrs["skeleton_in"]))
            stated = "skeleton_out" in file.attrs
            self.skeleton_out = Skeleton.from_dict(json.loads(file.attrs["skeleton_out"])) if stated else None
            self._entries = [json.loads(text) for text in file["clips"].asstr()[()]]
            self.infos = tuple(map(_read_info, self._entries))
            self._check_lengths(file)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open file."""
        return {**self.__dict__, "_opened": None}

    def _read(self, index: int, start: int, stop: int) -> Clip:
        info, entry = self.infos[index], self._entries[index]
        with _explained(self.path):
            arrays, at = self._arrays(), slice(entry["start"] + start, entry["start"] + stop)
            keypoints = Keypoints2D(arrays["xy"][at], arrays["score"][at], self.skeleton_in, info.image_size, info.fps)
            motion = self._read_motion(arrays, entry, start, stop) if info.labelled else None
        camera = None if info.camera is None else slice_camera(info.camera, start, stop)
        return Clip(info.subject, info.action, info.view, keypoints, motion, camera)

    def _read_motion(self, arrays: dict[str, Any], entry: dict[str, Any], start: int, stop: int) -> Motion:
        at = slice(entry["labels"] + start, entry["labels"] + stop)
        trajectory = arrays["trajectory"][at] if entry["trajectory"] else None
        return Motion(arrays["joints"][at], trajectory, None, self.skeleton_out, entry["fps"])

    def _arrays(self) -> dict[str, Any]:
        """The arrays of the file, opened in this process."""
        if self._opened is None or self._opened[0] != os.getpid():
            file = _open(self.path)
            self._opened = (os.getpid(), {key: file[key] for key in ARRAYS if key in file})
        return self._opened[1]

    def _check_lengths(self, file: Any) -> None:
        check_names(self.infos, self.name)
        frames = labelled = 0
        for entry, info in zip(self._entries, self.infos, strict=True):
            if entry["start"] != frames or entry["labels"] not in (None, labelled):
                raise ValueError(f"{info.name} does not begin where the clip before it ends")
            frames += info.frames
            labelled += info.frames if info.labelled else 0
        for key, expected in (("xy", frames), ("score", frames), ("joints", labelled), ("trajectory", labelled)):
            if expected and len(file[key]) != expected:
                raise ValueError(f"{key} has {len(file[key])} frames, the clips have {expected}")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever is wrong with the content of a file becomes a ValueError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:  # h5py and json raise any of these
        raise ValueError(f"{path} cannot be read as a clip file: {str(error).rstrip('.')}; {HOW_TO_GET}.") from error


def _open(path: Path) -> Any:
    import h5py

    if not path.is_file():
        raise FileNotFoundError(f"there is no clip file {path}; {HOW_TO_GET}.")
    return h5py.File(path, "r", rdcc_nbytes=CACHE)


def _read_info(entry: dict[str, Any]) -> ClipInfo:
    camera = None if entry["camera"] is None else Camera.from_dict(entry["camera"])
    return ClipInfo(entry["subject"], entry["action"], entry["view"], entry["frames"], entry["fps"],
                    entry["labels"] is not None, tuple(entry["image_size"]), camera)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
