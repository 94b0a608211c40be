"""Capsules: closest points against brute force and bounded least squares, fitted capsules, gradients, a small solve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_body import random_pose, small_body

from lifting.body.capsules import Capsules, SelfIntersection, closest_points, fit_capsules
from lifting.body.energy import State
from lifting.body.normal_equations import NormalEquations
from lifting.rotations import rotvec_to_matrix

BODY = small_body()
CAPSULES = fit_capsules(BODY)


def kinematics(state):
    return BODY.kinematics(state.rotations, state.trajectory, state.shape)


def curled_up(frames=2, seed=0, angle=1.0):
    rotations, trajectory, shape = random_pose(BODY, frames, seed, angle)
    return State(rotvec_to_matrix(rotations), trajectory, 0.3 * shape)


def distance(p, u, q, v):
    s, t = closest_points(p, u, q, v)
    assert (s >= 0).all() and (s <= 1).all() and (t >= 0).all() and (t <= 1).all()
    return np.linalg.norm(p + s[..., None] * u - q - t[..., None] * v, axis=-1)


def brute_force(p, u, q, v):
    """Least distance of segments: the best of the ends against the other segment and of the lines' closest points."""

    def to_segment(point, start, along):
        share = np.clip(np.dot(point - start, along) / max(np.dot(along, along), 1e-300), 0, 1)
        return np.linalg.norm(point - start - share * along)

    candidates = [to_segment(p, q, v), to_segment(p + u, q, v), to_segment(q, p, u), to_segment(q + v, p, u)]
    matrix = np.stack([u, -v], axis=1)
    s, t = np.linalg.lstsq(matrix, q - p, rcond=None)[0]
    if 0 <= s <= 1 and 0 <= t <= 1:
        candidates.append(np.linalg.norm(p + s * u - q - t * v))
    return min(candidates)


def test_closest_points_of_random_segments():
    p, u, q, v = np.random.default_rng(0).normal(size=(4, 500, 3))
    np.testing.assert_allclose(distance(p, u, q, v), [brute_force(*row) for row in zip(p, u, q, v, strict=True)])


number = st.integers(-3, 3).map(float)  # whole numbers: parallel, crossing, touching and empty segments are common
vector = st.tuples(number, number, number).map(np.array)


@given(vector, vector, vector, vector)
@settings(max_examples=300, deadline=None)
def test_closest_points_of_degenerate_segments(p, u, q, v):
    np.testing.assert_allclose(distance(p, u, q, v), brute_force(p, u, q, v), atol=1e-9)


@pytest.mark.parametrize("tilt", [1e-4, 1e-6, 1e-8, 1e-10])
def test_almost_parallel_segments(tilt):
    p, u = np.zeros(3), np.array([1.0, 0, 0])
    q, v = np.array([0.2, 1.0, 0]), np.array([0.5, -tilt, tilt])
    np.testing.assert_allclose(distance(p, u, q, v), brute_force(p, u, q, v), rtol=1e-6)


def test_capsules_lie_in_the_limbs():
    for bone, child, start, radius in zip(CAPSULES.bones, CAPSULES.children, CAPSULES.starts, CAPSULES.radii,
                                          strict=True):
        assert child == -1 or BODY.parents[child] == bone
        assert 0.02 < radius < 0.1 and np.linalg.norm(start) < 0.03  # the tubes of the small body
    assert set(CAPSULES.bones) >= {BODY.joint("head"), BODY.joint("left_wrist"), BODY.joint("left_elbow")}


def test_pairs_are_neither_neighbours_nor_touching_at_rest():
    rest = State(np.tile(np.eye(3), (1, BODY.num_joints, 1, 1)), np.zeros((1, 3)), np.zeros(BODY.num_shape))
    term = SelfIntersection(BODY, CAPSULES, slack=0.0)
    assert len(CAPSULES.pairs) > 100
    assert term.cost(rest, kinematics(rest)) == 0
    for first, second in CAPSULES.pairs:
        one, other = CAPSULES.bones[first], CAPSULES.bones[second]
        assert one != other and BODY.parents[one] != other and BODY.parents[other] != one


def test_overlaps_equal_a_loop_over_frames_and_pairs():
    state = curled_up(3)
    term, k = SelfIntersection(BODY, CAPSULES, slack=0.01), kinematics(state)
    start, axis = CAPSULES.segments(k)
    expected = np.zeros((3, len(CAPSULES.pairs)))
    for frame, pair in np.ndindex(expected.shape):
        i, j = CAPSULES.pairs[pair]
        gap = brute_force(start[frame, i], axis[frame, i], start[frame, j], axis[frame, j])
        expected[frame, pair] = max(0, CAPSULES.radii[i] + CAPSULES.radii[j] - 0.01 - gap)
    assert expected.any()
    np.testing.assert_allclose(term.residuals(state, k), expected, atol=1e-12)
    np.testing.assert_allclose(term.cost(state, k), 0.5 * np.sum((expected / term.sigma) ** 2))


def test_gradient_and_matrix():
    state = curled_up(2, seed=1)
    term, layout = SelfIntersection(BODY, CAPSULES, slack=0.0), state.layout()
    system = NormalEquations(2, state.frame_size, layout)
    cost = term.add_to(system, state, kinematics(state))
    assert cost > 0
    np.testing.assert_allclose(cost, term.cost(state, kinematics(state)))
    matrix, gradient = system.dense()
    rng, split = np.random.default_rng(0), 2 * state.frame_size

    def moved(step):
        after = state.retract(step[:split].reshape(2, -1), step[split:], layout)
        return after, kinematics(after)

    for direction in np.concatenate([rng.normal(size=(20, len(gradient))), np.eye(len(gradient))[::4]]):
        numeric = (term.cost(*moved(1e-6 * direction)) - term.cost(*moved(-1e-6 * direction))) / 2e-6
        np.testing.assert_allclose(direction @ gradient, numeric, atol=1e-5 * np.abs(gradient).max())
    step = 1e-6 * rng.normal(size=len(gradient))
    change = (term.residuals(*moved(step)) - term.residuals(state, kinematics(state))) / term.sigma
    np.testing.assert_allclose(step @ matrix @ step, np.sum(change**2), rtol=1e-3)


def test_crossing_axes_are_pushed_apart_and_finite():
    """Two axes that meet have no direction from one to the other: a perpendicular one is taken."""
    state = State(np.tile(np.eye(3), (1, BODY.num_joints, 1, 1)), np.zeros((1, 3)), np.zeros(BODY.num_shape))
    joints = kinematics(state).joints[0]
    bones = np.array([BODY.joint("left_knee"), BODY.joint("right_knee")])
    middle = (joints[bones[0]] + joints[bones[1]]) / 2
    tips = np.array([[0.2, 0, 0], [0, 0.2, 0]])
    crossing = Capsules(bones, np.array([-1, -1]), middle - joints[bones] - tips / 2, tips, np.full(2, 0.05),
                        np.array([[0, 1]]))
    system = NormalEquations(1, state.frame_size, state.layout())
    term = SelfIntersection(BODY, crossing, slack=0.0)
    np.testing.assert_allclose(term.residuals(state, kinematics(state)), 0.1, atol=1e-9)
    term.add_to(system, state, kinematics(state))
    assert np.isfinite(system.gradient).all() and system.gradient.any()


def test_steps_pull_arms_out_of_the_trunk():
    state = State(np.tile(np.eye(3), (2, BODY.num_joints, 1, 1)), np.zeros((2, 3)), np.zeros(BODY.num_shape))
    state.rotations[:, BODY.joint("left_shoulder")] = rotvec_to_matrix([0.0, 0.6, -1.1])
    state.rotations[:, BODY.joint("left_elbow")] = rotvec_to_matrix([0.0, -0.3, -1.9])
    term, layout = SelfIntersection(BODY, CAPSULES, slack=0.0), state.layout(())
    before = term.residuals(state, kinematics(state)).max()
    for _ in range(8):
        system = NormalEquations(2, state.frame_size, layout)
        term.add_to(system, state, kinematics(state))
        state = state.retract(*system.solve(1e-2), layout)
    assert before > 0.02 and term.residuals(state, kinematics(state)).max() < 0.002


def test_moving_or_turning_the_whole_body_changes_nothing():
    state = curled_up(1, seed=2)
    system = NormalEquations(1, state.frame_size, state.layout())
    SelfIntersection(BODY, CAPSULES).add_to(system, state, kinematics(state))
    assert np.abs(system.gradient).max() > 1
    np.testing.assert_allclose(system.gradient[:, :3], 0, atol=1e-9)
    np.testing.assert_allclose(system.gradient[:, -3:], 0, atol=1e-9)


def test_bad_input():
    with pytest.raises(ValueError, match="sigma > 0"):
        SelfIntersection(BODY, CAPSULES, sigma=0.0)
