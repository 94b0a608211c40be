"""Results as ``.npz``: plain arrays and ``metadata``, one JSON string (see lifting.export.result for the arrays)."""

from __future__ import annotations

import io
from os import PathLike

import numpy as np

from lifting.export.amass_take import is_amass, read_amass_take
from lifting.export.result import dump_metadata, pack, parse_metadata, unpack
from lifting.files import atomic_write, load_npz
from lifting.motion import Take


def write_npz(take: Take, path: str | PathLike) -> None:
    """Write a take; OSError for an unwritable place."""
    arrays, metadata = pack(take)
    content = io.BytesIO()  # what numpy leaves open on a full disk complains later
    np.savez_compressed(content, metadata=np.array(dump_metadata(metadata)), **arrays)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def read_npz(path: str | PathLike) -> Take:
    """Read a take, of an AMASS-style file one with a body alone.

    ValueError for a file that is corrupt, holds pickles, or is neither AMASS-style nor a result of this library.
    """
    if is_amass(path):
        return read_amass_take(path)
    arrays = load_npz(path)
    if "metadata" not in arrays:
        raise ValueError(f"{str(path)!r} is not a result of this library: it holds {sorted(arrays)} but no metadata; "
                         "keypoints of other tools are read by lift run --keypoints.")
    return unpack(arrays, parse_metadata(str(arrays["metadata"]), path), path)
