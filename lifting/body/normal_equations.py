"""Gauss-Newton's normal equations of a whole clip: blocks per frame, couplings of neighbours, shared unknowns.

The unknowns are D numbers per frame (rotation updates, joint after joint, then the trajectory) and G shared ones
(shape, point offsets, focal length). A residual touches one to three consecutive frames and any shared unknown:

    [A  B] [frame step ]     [J^T r]
    [B' C] [shared step] = - [J_g^T r]     A block-banded (T D), B the border (T D, G), C (G, G).

A is factorised once by a banded Cholesky, the shared unknowns by the Schur complement C - B' A^-1 B. The work grows
linearly with the number of frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from lifting.body.banded import BandedCholesky, chains_of

_FLOOR = 1e-9  # least diagonal that damping scales with: unknowns that nothing observes stay where they are


@dataclass(frozen=True)
class GlobalLayout:
    """Where the shared unknowns lie: `num_shape`, then 3 x `num_offsets` metres, then the log focal; 0 if not free."""

    num_shape: int = 0
    num_offsets: int = 0
    num_focal: int = 0

    @property
    def size(self) -> int:
        """The number G of shared unknowns."""
        return self.num_shape + 3 * self.num_offsets + self.num_focal

    @property
    def shape(self) -> slice:
        """Columns of the shape coefficients."""
        return slice(0, self.num_shape)

    @property
    def offsets(self) -> slice:
        """Columns of the offsets, three to a point."""
        return slice(self.num_shape, self.num_shape + 3 * self.num_offsets)

    @property
    def focal(self) -> slice:
        """Column of the log focal length."""
        return slice(self.size - self.num_focal, self.size)

    @property
    def dense_columns(self) -> np.ndarray:
        """Columns that many points depend on: shape and log focal."""
        return np.r_[self.shape, self.focal].astype(int)

    def jacobian(self, rows: tuple[int, ...], *, shape=None, offsets=None, focal=None) -> np.ndarray | None:
        """Return the Jacobian (*rows, G) of residuals by the shared unknowns, None where none is free.

        shape (*rows, S), offsets (*rows, 3 J) and focal (*rows, 1) are the parts; a part that is not free is ignored.
        """
        if self.size == 0:
            return None
        whole = np.zeros((*rows, self.size))
        for columns, part in ((self.shape, shape), (self.offsets, offsets), (self.focal, focal)):
            if part is not None and columns.stop > columns.start:
                whole[..., columns] = part
        return whole


@dataclass(frozen=True, eq=False)
class Carried:
    """What eliminated frames leave to the two that follow.

    matrix (2 D, 2 D) and right (2 D, G + 1) are added to their blocks and right sides; diagonal (2, D): what rows of
    the frames before add to their diagonal, which damping scales with.
    """

    matrix: np.ndarray
    right: np.ndarray
    diagonal: np.ndarray


class NormalEquations:
    """J^T J and J^T r of a clip with T frames, D unknowns per frame (a multiple of 3) and the shared ones of `layout`.

    Rows are whitened by the caller: divided by their standard deviation, times the square root of a robust weight.
    `layout` may be given as the number of shape coefficients. Every `add_` method accumulates.
    """

    def __init__(self, num_frames: int, frame_size: int, layout: GlobalLayout | int = 0):
        if num_frames < 1 or frame_size < 3 or frame_size % 3:
            raise ValueError(f"The system has {num_frames} frames of {frame_size} unknowns, expected at least one "
                             "frame and a multiple of 3; pass 3 K + 3 unknowns.")
        self.layout = GlobalLayout(layout) if isinstance(layout, (int, np.integer)) else layout
        self.num_frames, self.frame_size, self.num_globals = num_frames, frame_size, self.layout.size
        self.diagonal = np.zeros((num_frames, frame_size, frame_size))
        self.border = np.zeros((num_frames, frame_size, self.num_globals))
        self.corner = np.zeros((self.num_globals, self.num_globals))
        self.gradient = np.zeros((num_frames, frame_size))
        self.global_gradient = np.zeros(self.num_globals)
        chains = frame_size // 3
        self._couplings = {1: np.zeros((max(num_frames - 1, 0), chains, 3, 3)),
                           2: np.zeros((max(num_frames - 2, 0), chains, 3, 3))}
        self._factor: BandedCholesky | None = None

    def clear(self) -> None:
        """Set every number to zero and keep the memory, for the next linearisation."""
        for array in (self.diagonal, self.border, self.corner, self.gradient, self.global_gradient):
            array[...] = 0.0
        for coupling in self._couplings.values():
            coupling[...] = 0.0

    def add_frames(self, jacobian, residual, global_jacobian=None, columns: slice = slice(None)) -> None:
        """Add rows that touch one frame each: jacobian (T, m, d) by the frame's unknowns `columns`, residual (T, m)."""
        self._add_rows([(jacobian, columns)], residual, global_jacobian)

    def add_pairs(self, jacobian, next_jacobian, residual, global_jacobian=None, columns: slice = slice(None)) -> None:
        """Add rows that touch frames t and t + 1: jacobians (T - 1, m, d) by each one's, residual (T - 1, m)."""
        self._add_rows([(jacobian, columns), (next_jacobian, columns)], residual, global_jacobian)

    def add_triples(self, jacobian, next_jacobian, second_jacobian, residual, global_jacobian=None,
                    columns: slice = slice(None)) -> None:
        """Add rows that touch frames t, t + 1 and t + 2: jacobians (T - 2, m, d), residual (T - 2, m).

        These fill whole blocks two frames apart, which makes the factorisation twice as slow: use `add_chains` where
        a joint couples with itself only.
        """
        jacobians = [(part, columns) for part in (jacobian, next_jacobian, second_jacobian)]
        self._add_rows(jacobians, residual, global_jacobian)

    def add_rows(self, frames: slice, rows: np.ndarray, columns: np.ndarray) -> None:
        """Add rows of some consecutive frames by one product: rows (T', m, D + n + 1) = [J | J_g | r] of each.

        J_g holds the n shared unknowns `columns`, in ascending order, and nothing depends on the others.
        """
        size, shared = self.frame_size, rows[..., self.frame_size:].reshape(-1, len(columns) + 1)
        product = np.swapaxes(rows[..., :size], 1, 2) @ rows
        self.diagonal[frames] += product[..., :size]
        self.gradient[frames] += product[..., -1]
        if len(columns):
            which = slice(None) if len(columns) == self.num_globals else columns
            self.border[frames, :, which] += product[..., size:-1]
            own = (shared.T @ shared)[:-1]  # numpy sees the symmetry: half the work
            self.corner[np.ix_(columns, columns)] += own[:, :-1]
            self.global_gradient[columns] += own[:, -1]

    def add_products(self, frames: slice, product: np.ndarray, gradient: np.ndarray, columns: np.ndarray) -> None:
        """Add what rows of some consecutive frames would: their J^T J (T', d, d) and J^T r (T', d).

        columns (d,): which of a frame's unknowns the rows touch, each once.
        """
        if np.all(np.diff(columns) == 1):
            which = slice(columns[0], columns[-1] + 1)
            self.diagonal[frames, which, which] += product
        else:
            which = columns
            self.diagonal[frames, columns[:, None], columns] += product
        self.gradient[frames, which] += gradient

    def _add_rows(self, jacobians, residual, global_jacobian) -> None:
        """Add rows that touch consecutive frames by the given (jacobian, columns), one for each frame."""
        span = self.num_frames - len(jacobians) + 1
        if span < 1:
            return
        for shift, (jacobian, columns) in enumerate(jacobians):
            frames, transposed = slice(shift, shift + span), np.swapaxes(jacobian, 1, 2)
            product = transposed @ np.concatenate([jacobian, residual[..., None]], axis=2)
            self.diagonal[frames, columns, columns] += product[..., :-1]
            self.gradient[frames, columns] += product[..., -1]
            for distance, (later, later_columns) in enumerate(jacobians[shift + 1:], start=1):
                block = self._whole_blocks(distance)[frames, columns, later_columns]
                block += transposed @ later
            if global_jacobian is not None:
                self.border[frames, columns] += transposed @ global_jacobian
        if global_jacobian is not None:
            self.add_globals(global_jacobian.reshape(-1, self.num_globals), np.reshape(residual, -1))

    def _whole_blocks(self, distance: int) -> np.ndarray:
        """Return the coupling (T - distance, D, D) of frames `distance` apart, unpacked from 3x3 chains if needed."""
        coupling = self._couplings[distance]
        if coupling.ndim == 4:
            whole = np.zeros((len(coupling), self.frame_size, self.frame_size))
            chains_of(whole)[...] += coupling
            self._couplings[distance], self._factor = whole, None
        return self._couplings[distance]

    def add_chains(self, jacobians, residual, chains: slice = slice(None)) -> None:
        """Add rows that touch the same triple of unknowns (one joint, or the trajectory) in 1 to 3 consecutive frames.

        jacobians: one to three arrays (T - n + 1, c, 3, 3), for frames t, t + 1 and t + 2; residual (T - n + 1, c, 3);
        `chains` says which triples, c of them: joint k is k, the trajectory the last one.
        """
        span = self.num_frames - len(jacobians) + 1
        if span < 1:
            return
        for shift, jacobian in enumerate(jacobians):
            frames = slice(shift, shift + span)
            gradient = self.gradient.reshape(self.num_frames, -1, 3)
            gradient[frames, chains] += _transposed_product(jacobian, residual[..., None])[..., 0]
            chains_of(self.diagonal)[frames, chains] += _transposed_product(jacobian, jacobian)
            for distance, later in enumerate(jacobians[shift + 1:], start=1):
                coupling = self._couplings[distance]
                target = coupling if coupling.ndim == 4 else chains_of(coupling)
                target[frames, chains] += _transposed_product(jacobian, later)

    def add_globals(self, jacobian, residual) -> None:
        """Add rows that touch shared unknowns only: jacobian (m, G), residual (m,)."""
        self.corner += jacobian.T @ jacobian
        self.global_gradient += jacobian.T @ residual

    def subtract(self, other: NormalEquations) -> None:
        """Take off the equations of this system's first frames, e.g. what two systems share."""
        count = other.num_frames
        for mine, theirs in ((self.diagonal, other.diagonal), (self.border, other.border),
                             (self.gradient, other.gradient)):
            mine[:count] -= theirs
        self.corner -= other.corner
        self.global_gradient -= other.global_gradient
        for distance in range(1, min(count, 3)):
            mine, theirs = self._couplings[distance], other._couplings[distance]
            if mine.ndim == theirs.ndim:
                mine[: len(theirs)] -= theirs
            else:
                self._whole_blocks(distance)[: len(theirs)] -= other._whole_blocks(distance)

    def solve(self, damping: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps (T, D) and (G,) that solve the damped equations: the diagonal times 1 + `damping`.

        Raises numpy.linalg.LinAlgError when the matrix is not positive definite; damp more then.
        """
        reduced, _ = self.eliminate(damping)
        global_step = solve_shared(reduced.T @ reduced, self.corner, self.global_gradient, damping)
        return self.substitute(reduced, global_step), global_step

    def eliminate(self, damping: float, start: Carried | None = None, closed: bool = True):
        """Eliminate the frames, the diagonal raised: returns L^-1 [B | J^T r] (T D, G + 1) and what is left to others.

        start: what the frames before these left to the first two. closed: whether no more frames follow; else the last
        two stay, their rows of the result are to be ignored, and what is left to them is returned as the second, for
        the system whose first two frames they are. Raises numpy.linalg.LinAlgError when the matrix is not positive
        definite; damp more then.
        """
        if self._factor is None:
            coupled = self._couplings[2].ndim == 3
            width = 3 * self.frame_size - 1 if coupled else 2 * self.frame_size + 2
            self._factor = BandedCholesky(self.num_frames, self.frame_size, width)
        self._factor.fill(self.diagonal, self._couplings[1], self._couplings[2])
        right = np.concatenate([self.border, self.gradient[..., None]], axis=2).reshape(-1, self.num_globals + 1)
        raw = np.einsum("tii->ti", self.diagonal).copy()
        if start is not None:
            self._factor.add_start(start.matrix)
            right[: len(start.right)] += start.right
            raw[:2] += start.diagonal
        increase = damping * np.maximum(raw, _FLOOR) + _FLOOR
        if not closed:
            increase[-2:] = np.maximum(raw[-2:], _FLOOR)  # taken off again: it only keeps the factor real
        if not self._factor.factorise(increase.reshape(-1)):
            raise np.linalg.LinAlgError("The normal equations are not positive definite; damp them more.")
        reduced = self._factor.solve_lower(right, overwrite=True)
        return reduced, None if closed else self._left_over(reduced, increase[-2:], raw[-2:])

    def _left_over(self, reduced: np.ndarray, increase: np.ndarray, raw: np.ndarray) -> Carried:
        lower = self._factor.last_block()
        return Carried(lower @ lower.T - np.diag(increase.reshape(-1)), lower @ reduced[-len(lower):], raw)

    def substitute(self, reduced: np.ndarray, global_step: np.ndarray, last: np.ndarray | None = None) -> np.ndarray:
        """Return the step (T, D) from what `eliminate` gave and the shared step (G,).

        last (2, D): the step of the last two frames where `eliminate` left them to others.
        """
        right = -(reduced[:, -1] + reduced[:, :-1] @ global_step)
        if last is not None:
            right[-last.size :] = self._factor.last_block().T @ last.reshape(-1)
        return self._factor.solve_upper(right[:, None]).reshape(self.num_frames, self.frame_size)

    def inverse_blocks(self, reduced: np.ndarray, information: np.ndarray, after: np.ndarray | None = None):
        """Return the inverse's diagonal blocks (T, D, D) after `eliminate`, and what a system before needs as `after`.

        information (G, G): the Schur complement of the shared unknowns. after: as returned by the system that follows,
        for one that left its last two frames to it; their blocks are left out then.
        """
        root = np.linalg.inv(np.linalg.cholesky(information)).T
        return self._factor.inverse_blocks(reduced[:, :-1] @ root, after)

    def _scale(self) -> np.ndarray:
        """Return the diagonal (T, D) that damping scales with (Marquardt's)."""
        return np.maximum(np.einsum("tii->ti", self.diagonal), _FLOOR)

    def predicted_decrease(self, frame_step, global_step, damping: float) -> float:
        """Return by how much the quadratic model falls along the step that `solve(damping)` gave."""
        slope = np.vdot(self.gradient, frame_step) + self.global_gradient @ global_step
        length = np.vdot(self._scale(), frame_step**2)
        length += np.maximum(np.diag(self.corner), _FLOOR) @ global_step**2
        return float(0.5 * damping * length - 0.5 * slope)

    def marginal_covariances(self) -> np.ndarray:
        """Return the diagonal blocks (T, D, D) of the whole inverse, the shared unknowns' doubt included.

        Raises numpy.linalg.LinAlgError when the matrix is not positive definite.
        """
        reduced, _ = self.eliminate(0.0)
        return self.inverse_blocks(reduced, shared_matrix(reduced.T @ reduced, self.corner, 0.0))[0]

    def dense(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the whole matrix (T D + G, T D + G) and gradient (T D + G,), for checks on small systems."""
        frames, size = self.num_frames, self.frame_size
        matrix = np.zeros((frames, size, frames, size))
        index = np.arange(frames)
        matrix[index, :, index] = self.diagonal
        for distance in (1, 2):
            block = self._whole_blocks(distance)
            matrix[index[:-distance], :, index[distance:]] = block
            matrix[index[distance:], :, index[:-distance]] = np.swapaxes(block, 1, 2)
        border = self.border.reshape(frames * size, -1)
        matrix = np.block([[matrix.reshape(frames * size, -1), border], [border.T, self.corner]])
        return matrix, np.concatenate([self.gradient.reshape(-1), self.global_gradient])


def shared_matrix(product: np.ndarray, corner: np.ndarray, damping: float) -> np.ndarray:
    """Return the Schur complement C - B' A^-1 B (G, G), C's diagonal raised; product (G + 1, G + 1) of L^-1 [B | g]."""
    schur = corner - product[:-1, :-1]
    schur[np.diag_indices_from(schur)] += damping * np.maximum(np.diag(corner), _FLOOR) + _FLOOR
    return schur


def solve_shared(product: np.ndarray, corner: np.ndarray, gradient: np.ndarray, damping: float) -> np.ndarray:
    """Return the step (G,) of the shared unknowns; arguments as of `shared_matrix`, gradient (G,) that of the terms."""
    if not len(corner):
        return np.zeros(0)
    factor = cho_factor(shared_matrix(product, corner, damping), lower=True)
    return -cho_solve(factor, gradient - product[:-1, -1])


def _transposed_product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return first^T second for small matrices (..., 3, 3) and (..., 3, n): faster than a product for each."""
    result = np.empty((*first.shape[:-2], 3, second.shape[-1]))
    for row in range(3):
        for column in range(second.shape[-1]):
            entry = first[..., 0, row] * second[..., 0, column]
            for term in (1, 2):
                entry += first[..., term, row] * second[..., term, column]
            result[..., row, column] = entry
    return result
