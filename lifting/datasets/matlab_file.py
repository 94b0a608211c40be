"""MATLAB's `.mat` files of either kind: those that scipy reads, and HDF5 ones ("v7.3")."""

from __future__ import annotations

from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

MatValue = np.ndarray | list[np.ndarray]


def read_mat(path: str | PathLike[str], names: Collection[str]) -> dict[str, MatValue]:
    """Read the variables of these names: arrays in MATLAB's shape, cell arrays as lists of them, column by column.

    Raises FileNotFoundError, and ValueError when the file is damaged, lacks a variable or holds another kind of one.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; expected a .mat with {', '.join(names)}.")
    read = _read_hdf5 if h5py.is_hdf5(path) else _read_plain
    try:
        return read(path, names)
    except Exception as error:  # scipy and h5py raise a dozen types for damaged bytes
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise ValueError(f"{path} cannot be read as a .mat with {', '.join(names)}: {reason}; copy it "
                         "again.") from error


def _read_plain(path: Path, names: Collection[str]) -> dict[str, MatValue]:
    from scipy.io import loadmat

    content = loadmat(path, variable_names=list(names))
    return {name: _plain_value(content[name]) for name in names}


def _plain_value(value: np.ndarray) -> MatValue:
    is_cell = value.dtype == object
    return [_numbers(item) for item in value.ravel(order="F")] if is_cell else _numbers(value)


def _read_hdf5(path: Path, names: Collection[str]) -> dict[str, MatValue]:
    import h5py

    with h5py.File(path, "r") as file:
        return {name: _hdf5_value(file, _hdf5_variable(file, name)) for name in names}


def _hdf5_variable(file: Any, name: str) -> Any:
    if name not in file:
        raise KeyError(name)
    return file[name]


def _hdf5_value(file: Any, variable: Any) -> MatValue:
    """HDF5 has the axes of MATLAB the other way round; a cell holds references to its items."""
    value = variable[()].T
    is_cell = value.dtype == object
    return [_numbers(file[item][()].T) for item in value.ravel(order="F")] if is_cell else _numbers(value)


def _numbers(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise ValueError(f"it has a {getattr(value, 'dtype', type(value).__name__)} where numbers are expected")
    return value
