"""Results as ``.csv``: a tidy table, one row per person, frame and joint, for ``pandas.read_csv(path, comment="#")``.

Columns: ``person``, ``frame`` (from 0), ``time_s``, ``joint``; ``x_m, y_m, z_m`` relative to the root, ``sigma_m``, the
root's own place ``root_x_m, root_y_m, root_z_m`` (the sum is absolute); ``x_px, y_px, score`` of the detector's
keypoint of that name. Joints of the motion come first, then those that only the detector has; a field without a value
is empty. A take that was placed in the world also has ``world_x_m`` ... ``world_root_z_m``, the same in world axes, and
one column ``NAME_contact`` for each contact point, the same for all joints of a frame. Lines that begin
with ``#`` explain the table; one is the metadata as JSON. Fitted bodies and predicted futures are not in it: the
other formats of lifting.export.result hold them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from itertools import chain, islice
from os import PathLike
from typing import IO, Any

import numpy as np

from lifting.export.result import as_float32, as_text, check_format, dump_metadata, pack, parse_metadata, unpack
from lifting.files import atomic_write
from lifting.motion import CONTACT_POINTS, Take

VALUES = ("x_m", "y_m", "z_m", "sigma_m", "root_x_m", "root_y_m", "root_z_m", "x_px", "y_px", "score")
PLACE_COLUMNS = ("person", "frame", "time_s", "joint")
COLUMNS = (*PLACE_COLUMNS, *VALUES)
WORLD_VALUES = tuple(f"world_{name}" for name in VALUES[:7])
CONTACT_VALUES = tuple(f"{name}_contact" for name in CONTACT_POINTS)
# Which columns of the table an array of the result fills, and the skeleton that its joints belong to.
PLACES = {
    "joints": (slice(0, 3), "skeleton"), "sigma": (slice(3, 4), "skeleton"), "trajectory": (slice(4, 7), None),
    "keypoints": (slice(7, 9), "keypoint_skeleton"), "scores": (slice(9, 10), "keypoint_skeleton"),
    "world_joints": (slice(10, 13), "skeleton"), "world_sigma": (slice(13, 14), "skeleton"),
    "world_trajectory": (slice(14, 17), None), "contacts": (slice(17, 21), None),
}  # fmt: skip
CHUNK, ROWS = 4096, 65536  # frames written, and rows read, at a time
METADATA = "# metadata: "


def write_csv(take: Take, path: str | PathLike) -> None:
    """Write a take without its people's bodies and futures; OSError for an unwritable place."""
    arrays, metadata = pack(take, tabular=True)
    names = _joint_names(metadata)
    with atomic_write(path, "w") as file:
        file.write("# 3D motion lifted from 2D keypoints: one row per person, frame and joint; no value: empty field\n")
        file.write(f"# metres: {metadata['axes']['joints'] or 'none'}; pixels: {metadata['axes']['keypoints']}\n")
        file.write(f"{METADATA}{dump_metadata(metadata)}\n")
        file.write(f"{','.join((*PLACE_COLUMNS, *_value_columns(metadata)))}\n")
        for row, person in enumerate(arrays["ids"]):
            for start in range(0, len(take), CHUNK):
                table = _table(arrays, metadata, names, row, slice(start, start + CHUNK))
                _write_rows(file, int(person), start, take.times[start : start + CHUNK], names, table)


def _value_columns(metadata: dict[str, Any]) -> tuple[str, ...]:
    """Names of the columns of numbers; those of the world only where a take has one."""
    placed = {"world_joints", "contacts"} & set(metadata["units"])
    return (*VALUES, *WORLD_VALUES, *CONTACT_VALUES) if placed else VALUES


def _joint_names(metadata: dict[str, Any]) -> list[str]:
    """Joints of the motion, then those that only the detector has."""
    layouts = [metadata[key]["joints"] for key in ("skeleton", "keypoint_skeleton") if metadata[key]]
    return list(dict.fromkeys(chain(*layouts)))


def _columns(array: np.ndarray, place: slice) -> np.ndarray:
    """(T, J, number of columns) view of an array that may lack the last axis."""
    return array.reshape(*array.shape[:2], place.stop - place.start)


def _table(arrays: dict, metadata: dict, names: list[str], person: int, frames: slice) -> np.ndarray:
    """(T, joints, values) float32 of one person's frames."""
    table = np.full((len(arrays["times"][frames]), len(names), len(_value_columns(metadata))), np.nan, np.float32)
    for name, (place, owner) in PLACES.items():
        if name not in arrays:
            continue
        part = arrays[name][person, frames]
        if owner is None:
            table[:, :, place] = part[:, None]
        else:
            rows = [names.index(joint) for joint in metadata[owner]["joints"]]
            table[:, rows, place] = _columns(part, place)
    return table


def _write_rows(file: IO[str], person: int, first: int, times: np.ndarray, names: list[str], table: np.ndarray) -> None:
    quoted = [_quote(name) for name in names]
    for frame, (time, joints) in enumerate(zip(times.tolist(), as_text(table, "").tolist(), strict=True), first):
        start = f"{person},{frame},{time!r},"
        file.writelines(f"{start}{name},{','.join(values)}\n" for name, values in zip(quoted, joints, strict=True))


def _quote(name: str) -> str:
    """A name as a quoted CSV field: commas, quotes and # inside it are then harmless."""
    return '"' + _storable(name).replace('"', '""') + '"'


def _storable(name: str) -> str:
    """Text that a CSV field can hold: control characters and lone surrogates become escapes."""
    plain = name.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in plain)


def read_csv(path: str | PathLike) -> Take:
    """Read a take; the rows may come in any order. ValueError for a file that is not such a table, whole."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            metadata = _read_header(file, path)
            check_format(metadata, path)
            arrays = _arrange(*_parse_rows(file, metadata), metadata, path)
    except (UnicodeDecodeError, csv.Error, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} is not a table of results: {error!r}; write the result again.") from error
    return unpack(arrays, metadata, path)


def _read_header(file: IO[str], path: str | PathLike) -> Any:
    """The metadata, last of the comment lines; None when there is none."""
    for line in file:
        if line.startswith(METADATA):
            return parse_metadata(line[len(METADATA):], path)
        if not line.startswith("#"):
            break
    return None


def _arrange(places: np.ndarray, numbers: np.ndarray, metadata: dict, path: str | PathLike) -> dict[str, np.ndarray]:
    """The arrays of a result from the places (N, 3) and numbers (N, 1 + values) of the rows of its table."""
    names, ids = _joint_names(metadata), [person["id"] for person in metadata["people"]]
    shape = (len(ids), metadata["num_frames"], len(names))
    whole = len(places) == math.prod(shape) and (places < shape).all()
    if not whole or len(np.unique(np.ravel_multi_index(tuple(places.T), shape))) != len(places):
        raise ValueError(f"{str(path)!r} does not hold one row for each of {shape[0]} people, {shape[1]} frames and "
                         f"{shape[2]} joints; write the result again.")
    order = np.lexsort(places.T[::-1])
    numbers = numbers[order].reshape(*shape, -1)
    table = as_float32(numbers[..., 1:])
    arrays = {"ids": np.array(ids), "times": numbers[0, :, 0, 0]}
    for name, (place, owner) in PLACES.items():
        if place.start >= table.shape[-1]:
            continue
        if owner is None:
            arrays[name] = table[:, :, 0, place]
        elif metadata[owner]:
            part = table[:, :, [names.index(joint) for joint in metadata[owner]["joints"]], place]
            arrays[name] = part[..., 0] if place.stop - place.start == 1 else part
    return arrays


def _parse_rows(file: IO[str], metadata: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 3), the person, frame and joint numbers, and numbers (N, 1 + values), the time first, of all rows."""
    rows = (row for row in csv.reader(_whole_lines(file)) if row and not row[0].startswith("#"))
    columns = (*PLACE_COLUMNS, *_value_columns(metadata))
    if tuple(next(rows, ())) != columns:
        raise ValueError(f"{file.name!r} has other columns than {', '.join(columns)}; write the result again.")
    people = {str(person["id"]): row for row, person in enumerate(metadata["people"])}
    joints = {_storable(name): row for row, name in enumerate(_joint_names(metadata))}
    parts = []
    while chunk := list(islice(rows, ROWS)):
        try:
            parts.append(_parse_chunk(chunk, people, joints, len(columns)))
        except (KeyError, IndexError, ValueError, OverflowError) as error:
            raise ValueError(f"{file.name!r} has a damaged row ({error!r}); write the result again.") from error
    if not parts:
        raise ValueError(f"{file.name!r} holds no people; there is nothing to read.")
    places, numbers = (np.concatenate(column) for column in zip(*parts, strict=True))
    return places, numbers


def _whole_lines(file: IO[str]) -> Iterator[str]:
    """The lines; ValueError when the last has no line end, for then its last number may be cut short."""
    for line in file:
        if not line.endswith("\n"):
            raise ValueError(f"{file.name!r} ends within a line; write the result again.")
        yield line


def _parse_chunk(
    rows: list, people: dict[str, int], joints: dict[str, int], columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 3) and numbers (N, 1 + values) of some rows; KeyError, IndexError or ValueError for a damaged one."""
    places = np.array([(people[row[0]], int(row[1]), joints[row[3]]) for row in rows], np.int64)
    numbers = np.array([[value or "nan" for value in (row[2], *row[4:])] for row in rows]).astype(np.float64)
    if numbers.shape != (len(rows), columns - len(PLACE_COLUMNS) + 1) or (places < 0).any():
        raise ValueError(f"expected {columns} fields and frames from 0")
    return places, numbers
