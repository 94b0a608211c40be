"""The banded solver against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest

from lifting.body.banded import BandedCholesky
from lifting.body.normal_equations import NormalEquations

SIZE = 9


def random_system(frames: int, shared: int, pairs: bool = False, triples: bool = False, seed: int = 0):
    """A system with every kind of row, and the same rows gathered in one dense Jacobian."""
    rng = np.random.default_rng(seed)
    system = NormalEquations(frames, SIZE, shared)
    dense_rows, residuals = [], []

    def normal(count, *shape):
        return rng.normal(size=(max(count, 0), *shape))

    def gather(jacobians, residual, by_shared=None):
        for frame in range(len(residual)):
            rows = np.zeros((residual.shape[1], frames * SIZE + shared))
            for shift, jacobian in enumerate(jacobians):
                start = (frame + shift) * SIZE
                rows[:, start:start + SIZE] = jacobian[frame]
            if by_shared is not None:
                rows[:, frames * SIZE:] = by_shared[frame]
            dense_rows.append(rows)
            residuals.append(residual[frame])

    own, residual = normal(frames, SIZE + 3, SIZE), normal(frames, SIZE + 3)
    by_shared = normal(frames, SIZE + 3, shared) if shared else None
    system.add_frames(own, residual, by_shared)
    gather([own], residual, by_shared)
    chains, residual = [normal(frames - 2, 2, 3, 3) for _ in range(3)], normal(frames - 2, 2, 3)
    system.add_chains(chains, residual, slice(1, 3))
    gather([spread_chains(chain, 1) for chain in chains], residual.reshape(-1, 6))
    for use, count, add in ((pairs, 2, system.add_pairs), (triples, 3, system.add_triples)):
        if use:
            parts, residual = [normal(frames + 1 - count, 4, SIZE) for _ in range(count)], normal(frames + 1 - count, 4)
            by_shared = normal(frames + 1 - count, 4, shared) if shared else None
            add(*parts, residual, by_shared)
            gather(parts, residual, by_shared)
    return system, np.concatenate(dense_rows), np.concatenate(residuals)


def spread_chains(chains, first):
    whole = np.zeros((len(chains), 3 * chains.shape[1], SIZE))
    for chain in range(chains.shape[1]):
        rows, columns = slice(3 * chain, 3 * chain + 3), slice(3 * (first + chain), 3 * (first + chain) + 3)
        whole[:, rows, columns] = chains[:, chain]
    return whole


CASES = [(1, 0, False, False), (1, 4, True, True), (2, 3, True, False), (3, 0, False, False), (3, 4, True, True),
         (6, 4, False, False), (7, 0, True, False), (7, 5, True, True), (8, 20, True, False)]  # fmt: skip


@pytest.mark.parametrize(("frames", "shared", "pairs", "triples"), CASES)
def test_matrix_and_gradient_are_those_of_the_rows(frames, shared, pairs, triples):
    system, jacobian, residual = random_system(frames, shared, pairs, triples)
    matrix, gradient = system.dense()
    np.testing.assert_allclose(matrix, jacobian.T @ jacobian, atol=1e-11)
    np.testing.assert_allclose(gradient, jacobian.T @ residual, atol=1e-11)


@pytest.mark.parametrize("damping", [0.01, 3.0])
@pytest.mark.parametrize(("frames", "shared", "pairs", "triples"), CASES)
def test_step_equals_dense_solve(frames, shared, pairs, triples, damping):
    system, jacobian, residual = random_system(frames, shared, pairs, triples)
    matrix, gradient = jacobian.T @ jacobian, jacobian.T @ residual
    expected = -np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), gradient)
    step, shared_step = system.solve(damping)
    np.testing.assert_allclose(np.r_[step.reshape(-1), shared_step], expected, atol=1e-7)
    model = -(gradient @ expected + 0.5 * expected @ matrix @ expected)
    assert system.predicted_decrease(step, shared_step, damping) == pytest.approx(model, abs=1e-6)


@pytest.mark.parametrize(("frames", "shared", "pairs", "triples"), CASES)
def test_marginal_covariances_are_blocks_of_the_inverse(frames, shared, pairs, triples):
    system, jacobian, _ = random_system(frames, shared, pairs, triples, seed=1)
    extra = np.eye(SIZE)  # prior rows, so that one frame with shared unknowns is well conditioned too
    system.add_frames(np.broadcast_to(extra, (frames, SIZE, SIZE)), np.zeros((frames, SIZE)))
    system.add_globals(np.eye(shared), np.zeros(shared))
    inverse = np.linalg.inv(jacobian.T @ jacobian + np.eye(jacobian.shape[1]))
    expected = [inverse[start:start + SIZE, start:start + SIZE] for start in range(0, frames * SIZE, SIZE)]
    np.testing.assert_allclose(system.marginal_covariances(), expected, atol=1e-8)


@pytest.mark.parametrize("columns", [np.arange(6), np.array([0, 1, 5]), np.arange(0)])
def test_augmented_rows_equal_separate_ones(columns):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 10, SIZE + len(columns) + 1))
    fast, plain = NormalEquations(4, SIZE, 6), NormalEquations(4, SIZE, 6)
    for frames in (slice(0, 3), slice(3, 4)):
        fast.add_rows(frames, rows[frames], columns)
    by_shared = np.zeros((4, 10, 6))
    by_shared[..., columns] = rows[..., SIZE:-1]
    plain.add_frames(rows[..., :SIZE], rows[..., -1], by_shared)
    for got, expected in zip(fast.dense(), plain.dense(), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize("columns", [np.arange(3, 7), np.array([1, 8, 4])], ids=["neighbours", "scattered"])
def test_products_equal_the_rows_they_are_made_of(columns):
    rng = np.random.default_rng(0)
    fast, plain = (NormalEquations(4, SIZE, 2) for _ in range(2))
    rows, residual = rng.normal(size=(4, 5, len(columns))), rng.normal(size=(4, 5))
    whole = np.zeros((4, 5, SIZE))
    whole[..., columns] = rows
    plain.add_frames(whole, residual)
    for frames in (slice(0, 3), slice(3, 4)):
        transposed = np.swapaxes(rows[frames], 1, 2)
        gradient = (transposed @ residual[frames, :, None])[..., 0]
        fast.add_products(frames, transposed @ rows[frames], gradient, columns)
    for got, expected in zip(fast.dense(), plain.dense(), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_cleared_system_solves_anew():
    rng = np.random.default_rng(0)
    system = NormalEquations(3, SIZE)
    rows = [(rng.normal(size=(3, 12, SIZE)), rng.normal(size=(3, 12))) for _ in range(2)]
    system.add_frames(*rows[0])
    system.solve(0.5)
    system.clear()
    system.add_frames(*rows[1])
    fresh = NormalEquations(3, SIZE)
    fresh.add_frames(*rows[1])
    np.testing.assert_array_equal(system.solve(0.1)[0], fresh.solve(0.1)[0])


def test_many_columns_are_solved_like_few():
    rng = np.random.default_rng(0)
    factor = BandedCholesky(5, SIZE, 2 * SIZE + 2)
    blocks = rng.normal(size=(5, SIZE, SIZE))
    factor.fill(blocks @ np.swapaxes(blocks, 1, 2) + 60 * np.eye(SIZE), rng.normal(size=(4, SIZE, SIZE)),
                rng.normal(size=(3, 3, 3, 3)))
    assert factor.factorise(np.zeros(5 * SIZE))
    right = rng.normal(size=(5 * SIZE, 40))
    few = np.concatenate([factor.solve_lower(right[:, i:i + 4]) for i in range(0, 40, 4)], axis=1)
    kept = right.copy()
    np.testing.assert_allclose(factor.solve_lower(right), few, atol=1e-13)
    np.testing.assert_array_equal(right, kept)
    np.testing.assert_allclose(factor.solve_lower(right, overwrite=True), few, atol=1e-13)


def test_unobserved_unknowns_stay_where_they_are():
    system = NormalEquations(3, SIZE, 2)
    jacobian = np.zeros((3, 2, SIZE))
    jacobian[..., :2] = np.eye(2)
    system.add_frames(jacobian, np.ones((3, 2)))
    step, shared_step = system.solve(1e-4)
    np.testing.assert_allclose(step[:, :2], -1.0, rtol=1e-3)
    assert not step[:, 2:].any() and not shared_step.any()


def test_not_positive_definite_is_told():
    system = NormalEquations(2, 3)
    system.diagonal[:] = -np.eye(3)
    with pytest.raises(np.linalg.LinAlgError, match="damp them more"):
        system.solve(0.0)


@pytest.mark.parametrize(("frames", "size"), [(0, 9), (3, 8)])
def test_bad_sizes(frames, size):
    with pytest.raises(ValueError, match="multiple of 3"):
        NormalEquations(frames, size)
