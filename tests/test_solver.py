"""The whole-clip solver: recovery of exact data, robustness, determinism, chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_clip import contact_terms, kinematics_of, small_clip

from lifting.body.energy import State
from lifting.body.prior_terms import FocalPrior, OffsetPrior, PosePriorTerm, StaturePrior
from lifting.body.report import measure_uncertainty
from lifting.body.smoothness import RotationSmoothness
from lifting.body.solver import evaluate, linearise, solve, solve_chunked
from lifting.body.windows import split
from lifting.cameras import Camera
from lifting.ground import Ground
from lifting.motion import RADIUS_68

CLIP = small_clip(frames=24)


def exact_terms(clip, **options):
    """The energy with so little prior that exact data decide."""
    weak = {"rotation smoothness": 1e4, "translation smoothness": 1e3, "shape prior": 1e2 * clip.body.shape_sigma}
    terms = [replace(term, sigma=weak[term.name]) if term.name in weak else term for term in clip.terms(**options)]
    return [replace(term, weight=1e-4) if isinstance(term, PosePriorTerm) else term for term in terms]


def test_exact_observations_are_recovered():
    solution = solve(exact_terms(CLIP), CLIP.start, body=CLIP.body, tolerance=1e-6, max_iterations=30)
    residuals = np.linalg.norm(solution.terms[0].residuals(solution.state, kinematics_of(CLIP.body, solution.state)),
                               axis=-1)
    assert residuals.mean() < 5e-4 and residuals.max() < 3e-3
    assert CLIP.joint_errors(solution.state).mean() < 5e-3  # joints between the observed ones are the prior's


def test_cost_never_rises_within_a_stage():
    solution = solve(CLIP.terms(), CLIP.start, body=CLIP.body)
    assert len(solution.history) == 3
    for costs in solution.history:
        assert len(costs) > 1 and (np.diff(costs) <= 0).all()
    assert solution.converged and solution.iterations <= 12
    assert solution.cost == pytest.approx(sum(solution.costs.values()))
    assert solution.cost == pytest.approx(solution.history[-1][-1])


def test_gradient_vanishes_at_the_solution():
    terms = CLIP.terms(robust=None)
    solution = solve(terms, CLIP.start, body=CLIP.body, tolerance=1e-10, max_iterations=40, robust_factors=(1.0,))
    start = linearise(CLIP.body, terms, CLIP.start)
    assert np.abs(solution.system.gradient).max() < 1e-4 * np.abs(start.gradient).max()


def test_same_bits_twice():
    first, second = (solve(CLIP.terms(), CLIP.start, body=CLIP.body) for _ in range(2))
    np.testing.assert_array_equal(first.state.rotations, second.state.rotations)
    np.testing.assert_array_equal(first.state.shape, second.state.shape)
    assert first.history == second.history


def test_outliers_lose_their_pull():
    rng = np.random.default_rng(0)
    joints, pixels = CLIP.joints.copy(), CLIP.pixels.copy()
    joints[rng.random(joints.shape[:2]) < 0.1] += 0.8
    pixels[rng.random(pixels.shape[:2]) < 0.1] -= 150.0
    clean = CLIP.joint_errors(solve(CLIP.terms(), CLIP.start, body=CLIP.body).state).mean()
    robust = CLIP.joint_errors(solve(CLIP.terms(joints, pixels), CLIP.start, body=CLIP.body).state).mean()
    plain = CLIP.joint_errors(solve(CLIP.terms(joints, pixels, None), CLIP.start, body=CLIP.body).state).mean()
    assert robust < clean + 0.003 < plain


def test_gaps_are_bridged():
    joints, pixels = CLIP.joints.copy(), CLIP.pixels.copy()
    joints[8:14], pixels[8:14] = np.nan, np.nan
    joints[:, 3:6], pixels[:, 0] = np.nan, np.nan
    solution = solve(CLIP.terms(joints, pixels), CLIP.start, body=CLIP.body)
    assert CLIP.joint_errors(solution.state)[8:14].mean() < 0.03
    sigma = np.sqrt(np.einsum("tii->ti", solution.marginal_covariances()))
    assert sigma[11].mean() > 1.3 * sigma[3].mean()


def test_nothing_seen_stays_finite():
    terms = CLIP.terms(np.full_like(CLIP.joints, np.nan), np.full_like(CLIP.pixels, np.nan))
    solution = solve(terms, CLIP.start, body=CLIP.body)
    assert np.isfinite(solution.state.rotations).all() and np.isfinite(solution.state.shape).all()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_few_frames(frames):
    clip = small_clip(frames=frames)
    solution = solve(clip.terms(), clip.start, body=clip.body)
    assert clip.joint_errors(solution.state).mean() < 0.03
    assert solution.marginal_covariances().shape == (frames, 69, 69)


def test_covariances_predict_the_errors():
    """Over noisy repetitions of the observations, the spread of the trajectory is the one that was announced."""
    rng = np.random.default_rng(0)
    clip = small_clip(frames=5)
    found = []
    for _ in range(20):
        terms = clip.terms(clip.joints + 0.02 * rng.normal(size=clip.joints.shape),
                           clip.pixels + 2.0 * rng.normal(size=clip.pixels.shape), None)[:2] + clip.terms()[4:]
        solution = solve(terms, clip.truth, body=clip.body, robust_factors=(1.0,))
        found.append(solution.state.trajectory)
    announced = np.sqrt(np.einsum("tii->ti", solution.marginal_covariances())[:, -3:])
    assert np.std(found, axis=0).mean() == pytest.approx(announced.mean(), rel=0.3)


def test_offsets_and_focal_are_found():
    rng = np.random.default_rng(1)
    clip = small_clip(frames=30, away=0.05)
    rows = np.full(23, -1)
    rows[[0, 9]] = 1, 0  # nose and left wrist
    bias = 0.03 * rng.normal(size=(2, 3))
    points = clip.body.point_set("coco17_feet")
    offsets = points.offsets.copy()
    offsets[[0, 9], points.anchor_bones[[0, 9]]] += bias[[1, 0]]
    seen = replace(points, offsets=offsets).evaluate(kinematics_of(clip.body, clip.truth), clip.truth.shape)
    long_lens = Camera.from_focal(1200 * np.exp(0.08), (1920, 1080))
    terms = exact_terms(clip, pixels=long_lens.project(seen))
    terms[1] = replace(terms[1], offset_rows=rows)
    start = replace(clip.start, offsets=np.zeros((2, 3)))
    solution = solve([*terms, OffsetPrior(0.1), FocalPrior(0.1)], start, body=clip.body, max_iterations=40)
    assert solution.state.log_focal == pytest.approx(0.08, abs=2e-3)
    assert np.linalg.norm(solution.state.offsets - bias) < 0.5 * np.linalg.norm(bias)


def test_held_unknowns_do_not_move():
    solution = solve(CLIP.terms(), CLIP.start, body=CLIP.body, free=())
    np.testing.assert_array_equal(solution.state.shape, CLIP.start.shape)
    assert solution.state.log_focal == 0.0


def test_stature_is_kept():
    terms = [*CLIP.terms(), StaturePrior(CLIP.body, 1.9, 1e-4)]
    state = solve(terms, CLIP.start, body=CLIP.body).state
    assert CLIP.body.stature(state.shape) == pytest.approx(1.9, abs=2e-3)


@pytest.mark.parametrize("free", [("shape", "offsets", "focal"), ()])
@pytest.mark.parametrize(("frames", "chunk"), [(60, 14), (21, 8)])
def test_windows_give_the_whole_solution(frames, chunk, free):
    rng = np.random.default_rng(2)
    clip = small_clip(frames=frames)
    joints, pixels = clip.joints.copy(), clip.pixels + rng.normal(size=clip.pixels.shape)
    joints[rng.random(joints.shape[:2]) < 0.1] += 0.5
    terms = clip.terms(joints + 0.01 * rng.normal(size=joints.shape), pixels)
    terms[1] = replace(terms[1], offset_rows=np.where(np.arange(23) < 2, np.arange(23), -1))
    terms[2:4] = [replace(term, robust=1.0) for term in terms[2:4]]
    contacts = contact_terms(clip.body.point_set("coco17_feet").subset([17, 20]), rng.random((frames, 2)),
                             Ground((0.0, -1.0, 0.0), -1.0), 25.0)
    terms += [*contacts, OffsetPrior(0.02), FocalPrior(0.01)]
    start = replace(clip.start, offsets=np.zeros((2, 3)))
    whole = solve(terms, start, body=clip.body, free=free)
    cut = solve_chunked(terms, start, body=clip.body, free=free, chunk=chunk)
    assert len(cut.windows) > 1 and cut.iterations == whole.iterations
    np.testing.assert_allclose(cut.history[-1], whole.history[-1], rtol=1e-9)
    for name in ("rotations", "trajectory", "shape", "offsets", "log_focal"):
        np.testing.assert_allclose(getattr(cut.state, name), getattr(whole.state, name), atol=1e-8)
    np.testing.assert_allclose(cut.marginal_covariances(), whole.marginal_covariances(), rtol=1e-6, atol=1e-9)


def test_uncertainty_window_by_window_is_that_of_the_covariances():
    clip = small_clip(frames=40)
    options = dict(body=clip.body, free=("shape",), max_iterations=3)
    cut = solve_chunked(clip.terms(), clip.start, chunk=10, **options)
    covered = [np.arange(40)[frames] for frames, covariances in cut.marginals() if len(covariances) <= 12]
    np.testing.assert_array_equal(np.concatenate(covered[::-1]), np.arange(40))

    kinematics, points = kinematics_of(clip.body, cut.state), clip.body.point_set("h36m17")
    found = measure_uncertainty(cut, kinematics, points)
    covariances = solve(clip.terms(), clip.start, **options).marginal_covariances()
    for radii, some in ((found.joints, clip.body.point_set("joints")), (found.points, points)):
        _, by_rotation, _ = some.jacobian(kinematics, cut.state.shape)
        for frame, point in ((0, 3), (17, 0), (39, 16)):
            jacobian = np.hstack([by_rotation[frame, point], some.total_weights[point] * np.eye(3)])
            variance = np.trace(jacobian @ covariances[frame] @ jacobian.T) / 3
            assert radii[frame, point] == pytest.approx(RADIUS_68 * variance**0.5, rel=1e-5)
    widest = np.linalg.eigvalsh(covariances[25, 12:15, 12:15])[-1]
    assert found.rotations[25, 4] == pytest.approx(widest**0.5, rel=1e-5)


def test_windows_cover_the_clip_and_share_two_frames():
    for frames, chunk in ((1000, 300), (37, 512), (1, 8), (700, 512), (21, 8)):
        windows = split(frames, chunk)
        assert windows[0].start == 0 and windows[-1].stop == frames
        for before, after in zip(windows[:-1], windows[1:], strict=True):
            assert before.stop == after.start + 2
    with pytest.raises(ValueError, match="at least 8"):
        split(100, 7)


def test_progress_and_iteration_limit():
    seen = []
    solution = solve(CLIP.terms(), CLIP.start, body=CLIP.body, max_iterations=4,
                     progress=lambda step, cost: seen.append((step, cost)))
    assert solution.iterations <= 4 and len(seen) == len(set(seen)) <= 4
    assert seen[-1][1] == pytest.approx(solution.cost)


def test_hopeless_step_leaves_the_state():
    class Cliff(RotationSmoothness):
        """A term whose gradient points uphill: no step can lower it."""

        def add_to(self, system, state, kinematics):
            system.gradient -= 1e6
            system.add_frames(np.broadcast_to(np.eye(69), (24, 69, 69)), np.zeros((24, 69)))
            return 0.0

        def cost(self, state, kinematics):
            return float(np.linalg.norm(state.trajectory - CLIP.start.trajectory))

    solution = solve([Cliff(25.0, 1.0)], CLIP.start, body=CLIP.body, robust_factors=(1.0,), max_iterations=80)
    np.testing.assert_array_equal(solution.state.trajectory, CLIP.start.trajectory)


def test_start_with_nan_is_refused():
    broken = State(CLIP.start.rotations, CLIP.start.trajectory * np.nan, CLIP.start.shape)
    with pytest.raises(ValueError, match="not finite"):
        solve(CLIP.terms(), broken, body=CLIP.body)


def test_costs_are_named():
    costs = evaluate(CLIP.body, CLIP.terms() + CLIP.terms()[:1], CLIP.start)
    single = evaluate(CLIP.body, CLIP.terms(), CLIP.start)
    assert costs["points 3d"] == pytest.approx(2 * single["points 3d"])
    assert set(costs) == {"points 3d", "points 2d", "rotation smoothness", "translation smoothness", "shape prior",
                          "pose prior"}  # fmt: skip
