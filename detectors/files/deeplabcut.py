"""DeepLabCut's predictions: a table of pandas with named body parts, as ``.h5`` (HDF5) or ``.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from lifting.detectors.files.assembly import Poses, number_names
from lifting.detectors.files.content import Content, open_hdf5
from lifting.detectors.files.keypoint_file import Request
from lifting.detectors.files.named_points import arrange
from lifting.files import restricted_load

LOOKED_FOR = "a table with the header rows scorer, bodyparts, coords, as csv or in an HDF5 file of pandas"
HEADER = ("scorer", "individuals", "bodyparts", "coords")
COORDINATES = ("x", "y", "likelihood")
OTHER_TABLE = "write the table with analyze_videos(save_as_csv=True) and read that"

Table = tuple[list[tuple[str, ...]], list[Any], np.ndarray]
"""The labels of the columns, those of the rows, and the values (T, C)."""


def matches(content: Content) -> bool:
    """Tell whether the content is such a table."""
    if content.kind == "text":
        rows = [line.partition(",")[0].strip('"') for line in content.data[:100_000].splitlines()[:4]]
        return {"scorer", "bodyparts", "coords"} <= set(rows)
    return content.kind == "hdf5" and any(name.endswith(("/table", "/block0_values")) for name in content.data)


def read(content: Content, request: Request) -> Poses:
    """Read the individuals. Raises ValueError for other tables."""
    columns, index, values = _read_text(content.data) if content.kind == "text" else _read_hdf5(content)
    if any(len(label) not in (3, 4) for label in columns) or not {"x", "y"} <= {label[-1] for label in columns}:
        raise ValueError("its columns are not named scorer, bodyparts, coords with x and y: expected such a table")
    unknown = sorted({label[-1] for label in columns} - set(COORDINATES))
    if unknown:
        raise ValueError(f"it has the coordinates {', '.join(unknown)[:40]} beside x and y: expected 2D predictions")
    frames = _frame_numbers(index)
    poses = Poses(listed=frames, pixels=True)
    individuals = list(dict.fromkeys(label[1] if len(label) == 4 else "" for label in columns))
    for number, individual in enumerate(individuals, 1):
        own = [column for column, label in enumerate(columns) if len(label) == 3 or label[1] == individual]
        if individuals != ["single"] and individual == "single":
            continue  # points of nobody in particular
        _add_individual(poses, number, frames, [columns[column] for column in own], values[:, own], request)
    return poses


def _add_individual(
    poses: Poses, number: int, frames: list[int], columns: list[tuple[str, ...]], values: np.ndarray, request: Request
) -> None:
    names = list(dict.fromkeys(label[-2] for label in columns))
    points = np.full((len(values), len(names), 3), np.nan)
    for label, column in zip(columns, values.T, strict=True):
        points[:, names.index(label[-2]), COORDINATES.index(label[-1])] = column
    known = np.isfinite(points[..., :2]).all(axis=-1)
    points[..., 2] = np.where(known & np.isnan(points[..., 2]), 1.0, points[..., 2])  # labelled by hand
    points, poses.skeleton, notes = arrange(names, points, request.skeleton)
    poses.joint_names = None if poses.skeleton is not None else names
    poses.notes += [note for note in notes if note not in poses.notes]
    for row in np.flatnonzero(known.any(axis=1)).tolist():
        poses.add(frames[row], points[row], number)


def _frame_numbers(index: Sequence[Any]) -> list[int]:
    """The numbers of the rows: given, or in the names of images."""
    if all(str(label).strip().isdecimal() for label in index):
        numbers = [int(label) for label in index]
    else:
        numbers = number_names([str(label) for label in index])
    if numbers is None or len(set(numbers)) < len(numbers):
        raise ValueError("its rows are not numbered: expected one row per frame with its number, or image names")
    return numbers


# ---- csv


def _read_text(text: str) -> Table:
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise ValueError(f"the table is damaged: {error}; write it again") from error
    head = [row for row in rows[: len(HEADER)] if row[0] in HEADER]
    rows = rows[len(head) :]
    first = next((place for place, name in enumerate(head[-1]) if name in COORDINATES), None)
    if first is None or len({len(row) for row in (*head, *rows)}) > 1:
        raise ValueError("its rows have different numbers of fields: the table may be cut short; write it again")
    rows = [row for row in rows if any(row[:first])]
    index = ["/".join(part for part in row[:first] if part) for row in rows]
    try:
        values = np.array([[field or "nan" for field in row[first:]] for row in rows], str).astype(np.float64)
    except ValueError as error:
        raise ValueError(f"the table holds something that is no number: {error}") from error
    if not rows:
        raise ValueError("the table has no rows: expected one per frame")
    return list(zip(*(row[first:] for row in head), strict=True)), index, values


# ---- HDF5, as pandas writes it through PyTables


def _read_hdf5(content: Content) -> Table:
    with open_hdf5(content.path) as file:
        for name in sorted({name.partition("/")[0] for name in content.data}):
            kind = _text(file[name].attrs.get("pandas_type", ""))
            if kind == "frame_table":
                return _read_table(file[name]["table"])
            if kind == "frame":
                return _read_fixed(file[name])
    raise ValueError(f"it holds no table of pandas that can be read here: {OTHER_TABLE}")


def _read_table(table: Any) -> Table:
    """pandas' format "table": one compound array; the labels are pickled lists of plain text in its attributes."""
    records = table[()]
    blocks = [name for name in records.dtype.names or () if name.startswith("values_block_")]
    if "index" not in (records.dtype.names or ()) or not blocks:
        raise ValueError(f"its rows have several labels each: {OTHER_TABLE}")
    columns = [label for block in blocks for label in _labels(table.attrs[f"{block}_kind"])]
    values = np.concatenate([records[block].reshape(len(records), -1) for block in blocks], axis=1)
    return columns, [_text(label) for label in records["index"].tolist()], _as_table(values, columns)


def _labels(pickled: Any) -> list[tuple[str, ...]]:
    labels = restricted_load(io.BytesIO(bytes(pickled)))
    if not isinstance(labels, list) or not all(isinstance(label, tuple) for label in labels):
        raise ValueError(f"its columns have no header of several rows: {OTHER_TABLE}")
    return [tuple(map(_text, label)) for label in labels]


def _read_fixed(group: Any) -> Table:
    """pandas' format "fixed": one array per block of columns, labels as levels and codes."""
    if "axis1" not in group or "block0_items_level0" not in group:
        raise ValueError(f"its labels are stored in a way that is not read here: {OTHER_TABLE}")
    columns, parts = [], []
    for block in range(int(group.attrs["nblocks"])):
        levels = range(int(group.attrs[f"block{block}_items_nlevels"]))
        named = [np.array([_text(name) for name in group[f"block{block}_items_level{level}"][()].tolist()])
                 [group[f"block{block}_items_label{level}"][()]] for level in levels]
        columns += list(zip(*(names.tolist() for names in named), strict=True))
        parts.append(group[f"block{block}_values"][()])
    return columns, [_text(label) for label in group["axis1"][()].tolist()], _as_table(np.hstack(parts), columns)


def _as_table(values: np.ndarray, columns: Sequence[object]) -> np.ndarray:
    if values.dtype.kind != "f" or values.ndim != 2 or values.shape[1] != len(columns):
        raise ValueError(f"its values have the shape {values.shape} for {len(columns)} columns: write the file again")
    return values.astype(np.float64)


def _text(label: Any) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
