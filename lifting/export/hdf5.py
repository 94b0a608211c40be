"""Results as ``.h5``: the arrays of lifting.export.result as datasets, with attributes that state units and dimensions.

The metadata is a text dataset of its own: HDF5 attributes end at 64 kB, which a moving camera exceeds.
"""

from __future__ import annotations

import io
from os import PathLike
from typing import Any

import numpy as np

from lifting.export.result import dump_metadata, pack, parse_metadata, unpack
from lifting.files import atomic_write
from lifting.motion import Take

DIMENSIONS = {
    "ids": "person", "times": "frame", "keypoints": "person,frame,keypoint,xy", "scores": "person,frame,keypoint",
    "joints": "person,frame,joint,xyz", "trajectory": "person,frame,xyz", "sigma": "person,frame,joint",
    "body_rotations": "person,frame,body joint,xyz", "body_trajectory": "person,frame,xyz",
    "body_shape": "person,coefficient", "body_joint_sigma": "person,frame,body joint",
    "body_rotation_sigma": "person,frame,body joint", "world_joints": "person,frame,joint,xyz",
    "world_trajectory": "person,frame,xyz", "world_sigma": "person,frame,joint", "contacts": "person,frame,point",
    "future_joints": "person,future frame,joint,xyz", "future_trajectory": "person,future frame,xyz",
    "future_sigma": "person,future frame,joint", "future_body_rotations": "person,future frame,body joint,xyz",
    "future_body_trajectory": "person,future frame,xyz", "future_body_shape": "person,coefficient",
    "future_body_joint_sigma": "person,future frame,body joint",
    "future_body_rotation_sigma": "person,future frame,body joint",
}  # fmt: skip


def write_hdf5(take: Take, path: str | PathLike) -> None:
    """Write a take; OSError for an unwritable place."""
    import h5py

    arrays, metadata = pack(take)
    content = io.BytesIO()  # on a full disk HDF5 would not fail but crash
    with h5py.File(content, "w") as file:
        file["metadata"] = dump_metadata(metadata)
        file.attrs.update({key: metadata[key] for key in ("format", "format_version", "fps", "image_size")})
        if metadata["frame"]:
            file.attrs["frame"] = metadata["frame"]
        for name, array in arrays.items():
            dataset = file.create_dataset(name, data=array, compression="gzip" if array.size else None)
            dataset.attrs.update(dimensions=DIMENSIONS[name], **_describe(name, metadata))
    with atomic_write(path) as target:
        target.write(content.getbuffer())


def _describe(name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Attributes of one dataset: its unit, and the names of its joints."""
    attributes: dict[str, Any] = {"unit": metadata["units"][name]} if name in metadata["units"] else {}
    owner = {"joints": "skeleton", "sigma": "skeleton", "keypoints": "keypoint_skeleton", "scores": "keypoint_skeleton"}
    skeleton = metadata.get(owner.get(name.removeprefix("world_").removeprefix("future_"), ""))
    if name == "contacts":
        attributes["point_names"] = metadata["contact_points"]
    if skeleton:
        attributes["joint_names"] = [_storable(joint) for joint in skeleton["joints"]]
    return attributes


def _storable(text: str) -> str:
    """Text that HDF5 can hold: no lone surrogates, no NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def read_hdf5(path: str | PathLike) -> Take:
    """Read a take; ValueError for a file that is corrupt or not a result of this library."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            text = file["metadata"].asstr()[()] if isinstance(file.get("metadata"), h5py.Dataset) else None
            names = [name for name in DIMENSIONS if isinstance(file.get(name), h5py.Dataset)]
            arrays = {name: np.asarray(file[name][()]) for name in names}
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as HDF5: {error}; write the result again.") from error
    if text is None:
        raise ValueError(f"{str(path)!r} is not a result of this library: it has no metadata.")
    return unpack(arrays, parse_metadata(text, path), path)
