"""Results as ``.json``: ``metadata`` and the arrays of lifting.export.result as nested lists, NaN as null."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import IO

import numpy as np

from lifting.export.result import as_float32, as_text, check_format, dump_metadata, pack, unpack
from lifting.files import atomic_write
from lifting.motion import Take

KINDS = {"ids": np.int64, "times": np.float64}  # all other arrays are float32
CHUNK = 4096  # frames turned into text at a time, so that an hour does not need gigabytes


def write_json(take: Take, path: str | PathLike) -> None:
    """Write a take; OSError for an unwritable place."""
    arrays, metadata = pack(take)
    with atomic_write(path, "w") as file:
        file.write(f'{{"metadata": {dump_metadata(metadata)}')
        for name, array in arrays.items():
            file.write(f',\n"{name}": ')
            if array.ndim < 3:
                file.write(_nested(array))
            else:
                _write_people(file, array)
        file.write("}\n")


def _write_people(file: IO[str], array: np.ndarray) -> None:
    """Write an array (P, T, ...) one person and a chunk of frames at a time."""
    file.write("[")
    for number, person in enumerate(array):
        file.write(",\n[" if number else "[")
        for start in range(0, len(person), CHUNK):
            file.write(("," if start else "") + _nested(person[start : start + CHUNK])[1:-1])
        file.write("]")
    file.write("]")


def _nested(array: np.ndarray) -> str:
    """JSON of an array: nested lists, numbers as short as they read back equal."""
    text = array.astype(str) if array.dtype.kind == "i" else as_text(array, "null")
    return _join(text.tolist())


def _join(text: list | str) -> str:
    return text if isinstance(text, str) else "[" + ",".join(map(_join, text)) + "]"


def read_json(path: str | PathLike) -> Take:
    """Read a take; ValueError for a file that is not JSON, or not a result of this library."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not valid JSON: {error}; write the result again.") from error
    metadata = data.get("metadata") if isinstance(data, dict) else None
    check_format(metadata, path)
    try:
        arrays = {name: np.array(values, KINDS[name]) if name in KINDS else as_float32(values)
                  for name, values in data.items() if name != "metadata"}
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{str(path)!r} is a damaged result: {error}") from error
    return unpack(arrays, metadata, path)
