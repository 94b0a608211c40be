"""The batched solver in torch against the numpy solver."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_clip import small_clip

from lifting.body.prior_terms import FocalPrior, OffsetPrior, StaturePrior
from lifting.body.solver import solve
from lifting.body.torch_banded import BatchEquations
from lifting.body.torch_solver import solve_batch

FRAMES = 6
CLIPS = [small_clip(frames=FRAMES, seed=seed, away=0.1) for seed in range(3)]


def noisy_terms(clip, seed, body, shared=()):
    rng = np.random.default_rng(seed)
    clip = replace(clip, body=body)
    joints = clip.joints + 0.02 * rng.normal(size=clip.joints.shape)
    joints[rng.random(joints.shape[:2]) < 0.1] = np.nan
    terms = clip.terms(joints, clip.pixels + rng.normal(size=clip.pixels.shape))
    if shared:
        terms[1] = replace(terms[1], offset_rows=np.where(np.arange(23) < 2, np.arange(23), -1))
    return [*terms, *shared]


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_equations_equal_dense_solve(frames):
    torch.manual_seed(0)
    size, shared = 6, 3
    equations = BatchEquations.zeros(2, frames, size, shared, torch.zeros(1, dtype=torch.float64))
    equations.add_frames(torch.randn(2, frames, 9, size + shared, dtype=torch.float64),
                         torch.randn(2, frames, 9, dtype=torch.float64))
    span = max(frames - 2, 0)
    chains = [torch.randn(2, span, 1, 3, 3, dtype=torch.float64) for _ in range(3)]
    equations.add_chains(chains, torch.randn(2, span, 1, 3, dtype=torch.float64), 1)
    damping = torch.tensor([0.1, 2.0], dtype=torch.float64)
    step, shared_step, good = equations.solve(damping)
    assert good.all()
    for clip in range(2):
        matrix = torch.zeros(frames, size, frames, size, dtype=torch.float64)
        for t in range(frames):
            matrix[t, :, t] = equations.diagonal[clip, t]
        for distance, blocks in ((1, equations.first), (2, equations.second)):
            for t in range(frames - distance):
                matrix[t, :, t + distance] = blocks[clip, t]
                matrix[t + distance, :, t] = blocks[clip, t].T
        border = equations.border[clip].reshape(-1, shared)
        whole = torch.cat([torch.cat([matrix.reshape(frames * size, -1), border], 1),
                           torch.cat([border.T, equations.corner[clip]], 1)])
        right = torch.cat([equations.gradient[clip].reshape(-1), equations.global_gradient[clip]])
        expected = -torch.linalg.solve(whole + damping[clip] * torch.diag(whole.diagonal()), right)
        np.testing.assert_allclose(torch.cat([step[clip].reshape(-1), shared_step[clip]]), expected, atol=1e-7)


@pytest.mark.parametrize("everything", [False, True])
def test_batch_equals_the_numpy_solver(everything):
    """With heavy-tailed smoothness in the case of everything."""
    body = CLIPS[0].body
    free = ("shape", "offsets", "focal") if everything else ("shape",)
    shared = [[StaturePrior(body, height, 0.02), OffsetPrior(0.02), FocalPrior(0.05)] if everything else []
              for height in (1.7, 1.8, 1.9)]
    base = CLIPS[0].terms()
    terms = []
    for seed, (clip, own) in enumerate(zip(CLIPS, shared, strict=True)):
        mine = noisy_terms(clip, seed, body, own)
        mine[4:6] = base[4:6]  # the same prior object in every clip
        if everything:
            mine[2:4] = [replace(term, robust=0.5) for term in mine[2:4]]
        terms.append(mine)
    starts = [replace(clip.start, offsets=np.zeros((2 * everything, 3))) for clip in CLIPS]
    batch = solve_batch(terms, starts, body=body, free=free)
    for clip_terms, start, found in zip(terms, starts, batch, strict=True):
        alone = solve(clip_terms, start, body=body, free=free)
        assert found.iterations == alone.iterations and found.converged == alone.converged
        assert found.cost == pytest.approx(alone.cost, rel=1e-8)
        for name in ("rotations", "trajectory", "shape", "offsets", "log_focal"):
            np.testing.assert_allclose(getattr(found.state, name), getattr(alone.state, name), atol=1e-6)


def test_single_precision_comes_close():
    terms = noisy_terms(CLIPS[0], 0, CLIPS[0].body)
    alone = solve(terms, CLIPS[0].start, body=CLIPS[0].body)
    found = solve_batch([terms], [CLIPS[0].start], body=CLIPS[0].body, dtype=torch.float32)[0]
    assert found.cost == pytest.approx(alone.cost, rel=1e-2)


def test_clips_that_do_not_fit_together():
    body = CLIPS[0].body
    short = small_clip(frames=3)
    with pytest.raises(ValueError, match="one length"):
        solve_batch([CLIPS[0].terms()[2:5], CLIPS[0].terms()[2:5]], [CLIPS[0].start, short.start], body=body)
    with pytest.raises(ValueError, match="different terms"):
        solve_batch([CLIPS[0].terms(), CLIPS[0].terms()[1:]], [CLIPS[0].start] * 2, body=body)
    with pytest.raises(ValueError, match="differ in robust"):
        first, second = CLIPS[0].terms()[:1], CLIPS[0].terms(robust=None)[:1]
        solve_batch([first, second], [CLIPS[0].start] * 2, body=body)
