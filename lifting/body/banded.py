"""Cholesky factor of a symmetric matrix whose blocks couple each frame with the next two: LAPACK's banded routines.

The lower band is kept in LAPACK's storage: entry (row, column) of the matrix lies at ``column * width + row`` of one
flat array, so that the blocks of all frames are a strided view of it and are filled by one assignment.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided
from scipy.linalg import blas, lapack

_FEW_COLUMNS = 16  # up to which LAPACK's banded solver is as fast as one by blocks


class BandedCholesky:
    """The factor L (lower, banded) of A = L L^T, A of size frames x frame_size; `fill` it, `factorise`, then solve.

    `width` is the number of diagonals below the main one. The memory is kept between factorisations.
    """

    def __init__(self, num_frames: int, frame_size: int, width: int):
        self.num_frames, self.frame_size, self.width = num_frames, frame_size, width
        self.size = num_frames * frame_size
        self._flat = np.zeros(self.size * (width + 1))
        self.band = self._flat.reshape(self.size, width + 1).T  # (width + 1, size) in LAPACK's column order

    def fill(self, diagonal: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        """Write the blocks of A: (t, t) in `diagonal` (T, D, D), (t, t + 1) in `first`, (t, t + 2) in `second`.

        `first` and `second` are whole blocks (T - 1 or T - 2, D, D) or chains of 3x3 blocks (.., D / 3, 3, 3) on the
        blocks' diagonals. The order matters: the diagonal blocks' upper halves, written as zeros, share their places
        with entries of the blocks below, which are written afterwards.
        """
        self._flat[:] = 0.0
        self._view(0, self.num_frames)[:] = np.triu(diagonal)
        for distance, blocks in ((1, first), (2, second)):
            view = self._view(distance * self.frame_size, len(blocks))
            if blocks.ndim == 3:
                view[:] = blocks
            else:
                frame, row, column = view.strides
                chain = 3 * (row + column)
                as_strided(view, blocks.shape, (frame, chain, row, column))[:] = blocks

    def _view(self, offset: int, count: int) -> np.ndarray:
        """Return the writable view (count, D, D) [frame, column, row] of blocks `offset` rows below the diagonal."""
        item = self._flat.itemsize
        strides = (self.frame_size * (self.width + 1) * item, self.width * item, item)
        return as_strided(self._flat[offset:], (max(count, 0), self.frame_size, self.frame_size), strides)

    def factorise(self, diagonal_increase: np.ndarray) -> bool:
        """Add `diagonal_increase` (size,) to the diagonal and replace the band by its factor; False if not positive."""
        self.band[0] += diagonal_increase
        factor, info = lapack.dpbtrf(self.band, lower=1, overwrite_ab=1)
        if not np.shares_memory(factor, self.band):
            self.band[:] = factor
        return info == 0

    def solve_lower(self, right: np.ndarray) -> np.ndarray:
        """Return L^-1 `right` for right (size, n)."""
        if right.shape[1] > _FEW_COLUMNS:
            return self._solve_lower_blocks(right)
        return lapack.dtbtrs(self.band, np.asfortranarray(right), uplo="L", trans="N")[0]

    def _solve_lower_blocks(self, right: np.ndarray) -> np.ndarray:
        """Return L^-1 `right` by blocks of two frames: for many columns faster than LAPACK's loop over columns."""
        result, block = np.array(right, order="C"), 2 * self.frame_size
        place = np.arange(block)
        inside = block + place - place[:, None] <= self.width
        before = result[:0]
        for start in range(0, self.size, block):
            part = result[start : start + block]
            if len(before):
                part -= (self._window(start - block, block, len(part)) * inside[:, : len(part)]).T @ before
            lower = np.ascontiguousarray(self._window(start, 0, len(part))).T
            part[:] = blas.dtrsm(1.0, lower, part.T, side=1, lower=1, trans_a=1).T
            before = part
        return result

    def _window(self, column: int, offset: int, rows: int) -> np.ndarray:
        """Return the view (2 D, rows) [column, row] of L from `column` on, `offset` rows below the diagonal."""
        item = self._flat.itemsize
        columns = min(2 * self.frame_size, self.size - column)
        return as_strided(self._flat[column * (self.width + 1) + offset:], (columns, rows), (self.width * item, item))

    def solve_upper(self, right: np.ndarray) -> np.ndarray:
        """Return L^-T `right` for right (size, n)."""
        return lapack.dtbtrs(self.band, np.asfortranarray(right), uplo="L", trans="T")[0]

    def inverse_blocks(self) -> np.ndarray:
        """Return the diagonal blocks (T, D, D) of A^-1 without the rest of it (Takahashi's recursion, by blocks).

        With two frames to a block L has one block below its diagonal, and from the last block backwards
        Z_m = L_mm^-T L_mm^-1 + Y_m^T Z_(m+1) Y_m with Y_m = L_(m+1)m L_mm^-1. Source: K. Takahashi, J. Fagan, M.-S.
        Chen, "Formation of a sparse bus impedance matrix", 1973.
        """
        inverse, below = self._factor_blocks()
        blocks = np.swapaxes(inverse, 1, 2) @ inverse
        passed_on = below @ inverse[:-1]
        for index in range(len(blocks) - 2, -1, -1):
            blocks[index] += passed_on[index].T @ (blocks[index + 1] @ passed_on[index])
        size = self.frame_size
        pairs = np.stack([blocks[:, :size, :size], blocks[:, size:, size:]], axis=1)
        return pairs.reshape(-1, size, size)[: self.num_frames]

    def _factor_blocks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the inverses (M, 2D, 2D) of L's diagonal blocks of two frames and the blocks (M - 1, 2D, 2D) below."""
        pairs, block, width = (self.num_frames + 1) // 2, 2 * self.frame_size, self.width
        flat = np.zeros(pairs * block * (width + 1) + block)
        flat[: self._flat.size] = self._flat
        flat[self._flat.size: pairs * block * (width + 1)].reshape(-1, width + 1)[:, :1] = 1.0  # an odd last frame
        strides = (block * (width + 1) * flat.itemsize, width * flat.itemsize, flat.itemsize)
        row, column = np.arange(block), np.arange(block)[:, None]
        inside = (row >= column) & (row - column <= width)
        lower = np.where(inside, as_strided(flat, (pairs, block, block), strides), 0.0)
        inside = block + row - column <= width
        below = np.where(inside, as_strided(flat[block:], (pairs - 1, block, block), strides), 0.0)
        inverse = np.stack([lapack.dtrtri(part.T, lower=1)[0] for part in lower])
        return inverse, below.transpose(0, 2, 1)
