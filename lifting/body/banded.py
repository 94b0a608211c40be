"""Cholesky factor of a symmetric matrix whose blocks couple each frame with the next two: LAPACK's banded routines.

The lower band is kept in LAPACK's storage: entry (row, column) of the matrix lies at ``column * width + row`` of one
flat array, so that the blocks of all frames are a strided view of it and are filled by one assignment.
"""

from __future__ import annotations

from functools import cached_property

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
        np.multiply(diagonal, np.triu(np.ones(diagonal.shape[1:])), out=self._view(0, self.num_frames))
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
        """Return L^-1 `right` frame by frame: for many columns faster than LAPACK's loop over columns."""
        result, size = np.array(right, order="C"), self.frame_size
        diagonal, before = self._view(0, self.num_frames), np.empty((size, 2 * size))
        for index in range(self.num_frames):
            start = index * size
            part = result[start : start + size]
            if index:
                self._left_of(index, before)
                first = max(start - 2 * size, 0)
                part -= before[:, 2 * size - (start - first) :] @ result[first:start]
            part[:] = blas.dtrsm(1.0, diagonal[index].T, part.T, side=1, lower=1, trans_a=1, overwrite_b=1).T
        return result

    def _left_of(self, index: int, blocks: np.ndarray) -> None:
        """Write [L_t,t-2 | L_t,t-1] of frame t = `index` into `blocks` (D, 2 D); the first is left alone for t = 1."""
        size = self.frame_size
        blocks[:, size:] = self._view(size, self.num_frames - 1)[index - 1].T
        if index > 1:
            far = self._view(2 * size, self.num_frames - 2)[index - 2].T
            np.multiply(far, self._inside, out=blocks[:, :size])

    @cached_property
    def _inside(self) -> np.ndarray:
        """(D, D) which entries of a block two frames below the diagonal the band holds: beyond it lie others."""
        place = np.arange(self.frame_size)
        return 2 * self.frame_size + place[:, None] - place <= self.width

    def add_start(self, matrix: np.ndarray) -> None:
        """Add `matrix` (2 D, 2 D) to the blocks of the first two frames of A, after `fill`."""
        size = self.frame_size
        diagonal = self._view(0, self.num_frames)
        diagonal[0] += np.triu(matrix[:size, :size])
        diagonal[1] += np.triu(matrix[size:, size:])
        self._view(size, self.num_frames - 1)[0] += matrix[:size, size:]

    def last_block(self) -> np.ndarray:
        """Return L's block (2 D, 2 D) of the last two frames: L L^T is what of A is left when all others are gone."""
        size, diagonal = self.frame_size, self._view(0, self.num_frames)
        zeros = np.zeros((size, size))
        below = self._view(size, self.num_frames - 1)[-1].T
        return np.block([[np.tril(diagonal[-2].T), zeros], [below, np.tril(diagonal[-1].T)]])

    def solve_upper(self, right: np.ndarray) -> np.ndarray:
        """Return L^-T `right` for right (size, n)."""
        return lapack.dtbtrs(self.band, np.asfortranarray(right), uplo="L", trans="T")[0]

    def inverse_blocks(self, spread: np.ndarray, after: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the diagonal blocks (T, D, D) of A^-1 + S S^T with S = L^-T `spread`, `spread` (size, n).

        Also returns [A^-1 | S] (2 D, 2 D + n) of the first two frames. `after` is that of the last two where more
        frames follow: then their blocks are left out. From the last frame backwards: with W the blocks of L below
        that of frame t, M = W L_tt^-1 and Z the block of the inverse of the two frames after it, row t of the inverse
        is [L_tt^-T L_tt^-1 + M^T Z M | -M^T Z]. Source: K. Takahashi, J. Fagan, M.-S. Chen, "Formation of a sparse bus
        impedance matrix", 1973.
        """
        size, columns = self.frame_size, 2 * self.frame_size
        count = self.num_frames if after is None else self.num_frames - 2
        known = np.zeros((columns, columns + spread.shape[1])) if after is None else after
        result, left, below = np.empty((count, size, size)), np.empty((size, columns)), np.zeros((columns, size))
        diagonal = self._view(0, self.num_frames)
        for index in range(count - 1, -1, -1):
            inverse = np.tril(lapack.dtrtri(diagonal[index].T, lower=1)[0])
            for distance in range(1, min(2, self.num_frames - 1 - index) + 1):
                self._left_of(index + distance, left)
                below[(distance - 1) * size : distance * size] = left[:, (2 - distance) * size : (3 - distance) * size]
            passed = below @ inverse
            moved = passed.T @ known
            block = inverse.T @ inverse + moved[:, :columns] @ passed
            block = 0.5 * (block + block.T)  # asymmetry would grow from frame to frame
            effect = inverse.T @ spread[index * size : (index + 1) * size] - moved[:, columns:]
            result[index] = block + effect @ effect.T
            upper = np.concatenate([block, -moved[:, :size], effect], axis=1)
            lower = np.concatenate([-moved[:, :size].T, known[:size, :size], known[:size, columns:]], axis=1)
            known = np.concatenate([upper, lower])
        return result, known
