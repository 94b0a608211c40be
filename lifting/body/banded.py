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
        diagonal, below = self._view(0, self.num_frames), self._blocks_below()
        for index in range(self.num_frames):
            start = index * size
            part = result[start : start + size]
            first = max(start - 2 * size, 0)
            if first < start:
                part -= below[index, :, 2 * size - (start - first) :] @ result[first:start]
            part[:] = blas.dtrsm(1.0, diagonal[index].T, part.T, side=1, lower=1, trans_a=1, overwrite_b=1).T
        return result

    def _blocks_below(self) -> np.ndarray:
        """Return [L_t,t-2 | L_t,t-1] of every frame, (T, D, 2 D), zeros where there is no such frame."""
        size = self.frame_size
        result = np.zeros((self.num_frames, size, 2 * size))
        near, far = self._view(size, self.num_frames - 1), self._view(2 * size, self.num_frames - 2)
        place = np.arange(size)
        result[1:, :, size:] = near.swapaxes(1, 2)
        inside = 2 * size + place[:, None] - place <= self.width  # beyond the band lie other entries
        np.multiply(far.swapaxes(1, 2), inside, out=result[2:, :, :size])
        return result

    def solve_upper(self, right: np.ndarray) -> np.ndarray:
        """Return L^-T `right` for right (size, n)."""
        return lapack.dtbtrs(self.band, np.asfortranarray(right), uplo="L", trans="T")[0]

    def inverse_blocks(self, spread: np.ndarray) -> np.ndarray:
        """Return the diagonal blocks (T, D, D) of A^-1 + S S^T with S = L^-T `spread`, `spread` (size, n).

        From the last frame backwards: with W the blocks of L below that of frame t, M = W L_tt^-1 and Z the block of
        the inverse of the two frames after it, row t of the inverse is [L_tt^-T L_tt^-1 + M^T Z M | -M^T Z]. Source:
        K. Takahashi, J. Fagan, M.-S. Chen, "Formation of a sparse bus impedance matrix", 1973.
        """
        size, columns = self.frame_size, spread.shape[1]
        diagonal, below = self._view(0, self.num_frames), self._blocks_below()
        result = np.empty((self.num_frames, size, size))
        known = np.zeros((2 * size, 2 * size + columns))  # [Z | S] of the two frames after
        for index in range(self.num_frames - 1, -1, -1):
            inverse = np.tril(lapack.dtrtri(diagonal[index].T, lower=1)[0])
            passed = np.zeros((2 * size, size))
            for after in (1, 2):
                if index + after < self.num_frames:
                    place = slice((2 - after) * size, (3 - after) * size)
                    passed[(after - 1) * size : after * size] = below[index + after, :, place] @ inverse
            moved = passed.T @ known
            block = inverse.T @ inverse + moved[:, : 2 * size] @ passed
            block = 0.5 * (block + block.T)  # asymmetry would grow from frame to frame
            effect = inverse.T @ spread[index * size : (index + 1) * size] - moved[:, 2 * size :]
            np.add(block, effect @ effect.T, out=result[index])
            corner, shared = known[:size, :size].copy(), known[:size, 2 * size :].copy()
            known[:size] = np.concatenate([block, -moved[:, :size], effect], axis=1)
            known[size:] = np.concatenate([-moved[:, :size].T, corner, shared], axis=1)
        return result
