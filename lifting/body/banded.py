"""Cholesky factor of a symmetric matrix whose blocks couple each frame with the next two: LAPACK's banded routines.

The lower band is kept in LAPACK's storage: entry (row, column) of the matrix lies at ``column * width + row`` of one
flat array, so that the blocks of all frames are a strided view of it and are filled by one assignment.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import as_strided
from scipy.linalg import blas, lapack

_FEW_COLUMNS = 4  # up to which LAPACK's solver, which reads the whole band for each, is as fast as one by blocks
_FRAMES_AT_ONCE = 16  # whose part of the band stays in the processor's cache while it is filled


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
        views, upper = self._columns_of_blocks(), np.triu(np.ones(diagonal.shape[1:]))
        per_frame = self.frame_size * (self.width + 1)
        for start in range(0, self.num_frames, _FRAMES_AT_ONCE):
            frames = slice(start, start + _FRAMES_AT_ONCE)
            self._flat[start * per_frame : frames.stop * per_frame] = 0.0
            np.multiply(diagonal[frames], upper, out=views[0][frames])
            for view, blocks in ((views[1][frames], first[frames]), (views[2][frames], second[frames])):
                target = view if blocks.ndim == 3 else chains_of(view)
                target[:] = blocks

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

    def solve_lower(self, right: np.ndarray, overwrite: bool = False) -> np.ndarray:
        """Return L^-1 `right` for right (size, n); with `overwrite` it may be written over `right`."""
        if right.shape[1] > _FEW_COLUMNS:
            return self._solve_lower_blocks(np.ascontiguousarray(right) if overwrite else right.copy())
        return lapack.dtbtrs(self.band, np.asfortranarray(right), uplo="L", trans="N")[0]

    def _solve_lower_blocks(self, result: np.ndarray) -> np.ndarray:
        """Replace `result` (size, n) by L^-1 of it, frame by frame: for many columns faster than LAPACK's loop."""
        diagonal, near, far = self._columns_of_blocks()
        parts, passed = result.reshape(self.num_frames, self.frame_size, -1), np.empty((self.frame_size,) * 2)
        for index, part in enumerate(parts):
            if index > 0:
                part -= near[index - 1].T @ parts[index - 1]
            if index > 1:
                part -= np.multiply(far[index - 2], self._inside, out=passed).T @ parts[index - 2]
            part[:] = blas.dtrsm(1.0, diagonal[index].T, part.T, side=1, lower=1, trans_a=1, overwrite_b=1).T
        return result

    def _columns_of_blocks(self) -> tuple[np.ndarray, ...]:
        """Return views [frame t, column, row] of L's blocks (t, t), (t + 1, t) and (t + 2, t).

        Above the diagonal of the first lie other numbers, and in the last, where it leaves the band: see `_inside`.
        """
        return tuple(self._view(distance * self.frame_size, self.num_frames - distance) for distance in range(3))

    @cached_property
    def _inside(self) -> np.ndarray:
        """(D, D) [column, row] which entries of a block two frames below the diagonal the band holds."""
        place = np.arange(self.frame_size)
        return 2 * self.frame_size + place - place[:, None] <= self.width

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
        known = np.zeros((columns, columns + spread.shape[1])) if after is None else after.copy()
        result, below = np.empty((count, size, size)), np.zeros((size, columns))  # below: W^T
        diagonal, near, far = self._columns_of_blocks()
        for index in range(count - 1, -1, -1):
            if index + 1 < self.num_frames:
                below[:, :size] = near[index]
            if index + 2 < self.num_frames:
                np.multiply(far[index], self._inside, out=below[:, size:])
            inverse = np.tril(lapack.dtrtri(diagonal[index].T, lower=1)[0])
            passed = inverse.T @ below
            moved = passed @ known
            block = inverse.T @ inverse + moved[:, :columns] @ passed.T
            block = 0.5 * (block + block.T)  # asymmetry would grow from frame to frame
            effect = inverse.T @ spread[index * size : (index + 1) * size] - moved[:, columns:]
            result[index] = block + effect @ effect.T
            known[size:, size:columns], known[size:, columns:] = known[:size, :size], known[:size, columns:]
            known[:size, :size], known[:size, columns:] = block, effect
            known[:size, size:columns] = -moved[:, :size]
            known[size:, :size] = known[:size, size:columns].T
        return result, known


def chains_of(blocks: np.ndarray) -> np.ndarray:
    """Return the writable view (T, D / 3, 3, 3) of the 3x3 blocks on the diagonals of blocks (T, D, D)."""
    frame, row, column = blocks.strides
    chains = blocks.shape[1] // 3
    return as_strided(blocks, (len(blocks), chains, 3, 3), (frame, 3 * (row + column), row, column))
