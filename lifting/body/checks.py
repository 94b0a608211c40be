"""Arrays of a body as they must be: type, shape, finite, in range; else ValueError in terms of the array's name."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def _check_shape(array: np.ndarray, name: str, shape: tuple[int | None, ...]) -> None:
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits:
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have the shape ({expected}), got {array.shape}.")


def as_floats(values: object, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """`values` as contiguous float64 of a shape (None = any length), all finite."""
    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers, got {type(values).__name__}.") from error
    _check_shape(array, name, shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values, expected finite numbers.")
    return array


def as_numbers(values: object, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """`values` as int64 of a shape (None = any length); floats are refused."""
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers, got {array.dtype}.")
    _check_shape(array, name, shape)
    return array.astype(np.int64)


def check_range(numbers: np.ndarray, count: int, name: str) -> None:
    """Refuse numbers outside 0..count - 1."""
    if numbers.size and not (0 <= numbers.min() and numbers.max() < count):
        raise ValueError(f"{name} must lie in 0..{count - 1}, got {numbers.min()}..{numbers.max()}.")


def as_sparse(matrix: object, name: str, shape: tuple[int | None, ...]) -> sparse.csr_matrix:
    """A dense or sparse matrix as a float64 csr of its own, without stored zeros, all finite."""
    try:
        matrix = sparse.csr_matrix(matrix, dtype=np.float64, copy=True)
        matrix.check_format(full_check=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a matrix of numbers, got {type(matrix).__name__}: {error}.") from error
    _check_shape(matrix, name, shape)
    if not np.isfinite(matrix.data).all():
        raise ValueError(f"{name} holds NaN or infinite values, expected finite numbers.")
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def as_skin_weights(weights: object, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Skin weights (V, K): not negative, rows that sum to 1 within 1 % and are then made to."""
    weights = as_sparse(weights, "skin_weights", shape)
    sums = np.asarray(weights.sum(axis=1)).ravel()
    if weights.data.size and weights.data.min() < -1e-6:
        raise ValueError(f"skin_weights must not be negative, got {weights.data.min():g}.")
    if np.abs(sums - 1).max() > 1e-2:
        worst = int(np.abs(sums - 1).argmax())
        raise ValueError(f"skin_weights of vertex {worst} sum to {sums[worst]:.4g}, expected 1; scale the rows.")
    return sparse.csr_matrix(sparse.diags(1 / sums) @ weights)
