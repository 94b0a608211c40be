"""Contact terms: values by hand, gradients against finite differences, slip and penetration fall in a small solve."""

from __future__ import annotations

import numpy as np
import pytest
from small_body import random_pose, small_body
from small_clip import contact_terms

from lifting.body.contact_terms import (
    ContactPoints,
    GroundContact,
    NoSlip,
    Penetration,
    standing_clearances,
)
from lifting.body.energy import State
from lifting.body.normal_equations import NormalEquations
from lifting.ground import Ground
from lifting.metrics import foot_slip
from lifting.rotations import rotvec_to_matrix

BODY = small_body()
LAYOUT = BODY.point_set("coco17_feet")
FEET = LAYOUT.subset([i for i, name in enumerate(LAYOUT.names) if name.endswith(("toe", "heel"))])
FPS = 50.0
GROUND = Ground((0.1, -0.9, 0.2), -0.4)


def random_state(frames=3, seed=0, angle=0.4):
    rotations, trajectory, shape = random_pose(BODY, frames, seed, angle)
    return State(rotvec_to_matrix(rotations), trajectory, 0.3 * shape)


def kinematics(state):
    return BODY.kinematics(state.rotations, state.trajectory, state.shape)


def probability(frames, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (frames, FEET.num_points))


def slope(term, state, direction, step=1e-6):
    """Central difference of the cost along a direction (T D + G,)."""
    split, layout = state.num_frames * state.frame_size, state.layout()
    costs = []
    for amount in (step * direction, -step * direction):
        moved = state.retract(amount[:split].reshape(state.num_frames, -1), amount[split:], layout)
        costs.append(term.cost(moved, kinematics(moved)))
    return (costs[0] - costs[1]) / (2 * step)


def assert_gradient_is_right(term, state):
    system = NormalEquations(state.num_frames, state.frame_size, state.layout())
    cost = term.add_to(system, state, kinematics(state))
    assert cost > 0
    np.testing.assert_allclose(cost, term.cost(state, kinematics(state)), rtol=1e-12)
    gradient = np.concatenate([system.gradient.ravel(), system.global_gradient])
    unknowns = np.eye(len(gradient))[::3]  # a third of the unknowns one by one, and all of them mixed
    directions = np.concatenate([unknowns, np.random.default_rng(7).normal(size=(20, len(gradient)))])
    numeric = [slope(term, state, direction) for direction in directions]
    np.testing.assert_allclose(directions @ gradient, numeric, atol=3e-6 * np.abs(numeric).max())


def terms(frames, robust):
    points = ContactPoints(FEET)
    weights = probability(frames)
    return [GroundContact(points, weights, GROUND, clearance=0.02, sigma=0.5, robust=robust),
            NoSlip(points, weights, FPS, sigma=20.0, robust=robust),
            NoSlip(points, weights, FPS, sigma=20.0, up=GROUND.up, robust=robust),
            Penetration(points, Ground(GROUND.up, 1.0), clearance=0.1)]


@pytest.mark.parametrize("robust", [None, 4.0])
@pytest.mark.parametrize("number", range(4))
def test_gradients(number, robust):
    assert_gradient_is_right(terms(2, robust)[number], random_state(2))


@pytest.mark.parametrize("number", range(4))
def test_the_matrix_is_that_of_the_residuals(number):
    state = random_state(2)
    term = terms(2, None)[number]
    system = NormalEquations(2, state.frame_size, state.layout())
    term.add_to(system, state, kinematics(state))
    matrix, gradient = system.dense()
    step = np.random.default_rng(1).normal(0, 1e-5, len(gradient))
    moved = state.retract(step[:2 * state.frame_size].reshape(2, -1), step[2 * state.frame_size:], state.layout())
    before, after = (term.residuals(s, kinematics(s)) for s in (state, moved))
    weight = {"ground_contact": lambda: np.sqrt(term.probability) / 0.5,
              "no_slip": lambda: np.sqrt(term.probability[:-1] * term.probability[1:])[..., None] * FPS / 20.0,
              "penetration": lambda: 1 / 0.01}[term.name]()
    np.testing.assert_allclose(step @ matrix @ step, np.sum((weight * (after - before)) ** 2), rtol=1e-3)


def test_residuals_by_hand():
    state = random_state(3)
    points = FEET.evaluate(kinematics(state), state.shape)
    contact, no_slip, tangential, below = terms(3, None)
    k = kinematics(state)
    np.testing.assert_allclose(contact.residuals(state, k), points @ GROUND.up - GROUND.offset - 0.02)
    np.testing.assert_allclose(no_slip.residuals(state, k), np.diff(points, axis=0))
    along = np.diff(points, axis=0) - (np.diff(points, axis=0) @ GROUND.up)[..., None] * GROUND.up
    np.testing.assert_allclose(np.linalg.norm(tangential.residuals(state, k), axis=-1), np.linalg.norm(along, axis=-1))
    np.testing.assert_allclose(below.residuals(state, k), np.maximum(1.1 - points @ GROUND.up, 0))
    np.testing.assert_allclose(contact.cost(state, k), 0.5 * np.sum(
        contact.probability * (contact.residuals(state, k) / 0.5) ** 2))


def test_no_contact_costs_nothing():
    state, nothing = random_state(3), np.zeros((3, FEET.num_points))
    system = NormalEquations(3, state.frame_size, state.layout())
    for term in contact_terms(FEET, nothing, Ground(GROUND.up, -100.0), FPS):
        assert term.add_to(system, state, kinematics(state)) == 0
    assert not system.gradient.any() and not system.diagonal.any()


def test_one_frame_has_no_slip():
    state = random_state(1)
    term = NoSlip(ContactPoints(FEET), np.ones((1, FEET.num_points)), FPS)
    assert term.add_to(NormalEquations(1, state.frame_size, state.layout()), state, kinematics(state)) == 0


def test_copies_for_stages_and_chunks():
    for term in contact_terms(FEET, probability(5), GROUND, FPS)[:2]:
        assert term.annealed(3.0).robust == 3 * term.robust
        np.testing.assert_array_equal(term.sliced(slice(1, 3)).probability, term.probability[1:3])
        state = random_state(5)
        parts = [term.sliced(part).cost(state.sliced(part), kinematics(state.sliced(part)))
                 for part in (slice(0, 3), slice(2, 5))]
        if term.name == "no_slip":
            np.testing.assert_allclose(sum(parts), term.cost(state, kinematics(state)))
        assert type(term)(term.points, term.probability, *([GROUND] if term.name != "no_slip" else [FPS]),
                          robust=None).annealed(2.0).robust is None


def test_terms_share_one_jacobian():
    points, state = ContactPoints(FEET), random_state(2)
    k = kinematics(state)
    assert points.jacobian(state, k) is points.jacobian(state, k)
    other = random_state(2, seed=5)
    np.testing.assert_allclose(points.jacobian(other, kinematics(other))[0], points.positions(other, kinematics(other)))


def test_clearances_are_heights_over_the_soles_at_rest():
    shape = np.array([0.5, -0.2, 0.1, 0.3])
    regressor = BODY.regressor("coco17_feet")[LAYOUT.names.index("left_heel")]
    points = regressor @ np.concatenate([BODY.rest_vertices(shape), BODY.rest_joints(shape)])
    heel = FEET.names.index("left_heel")
    np.testing.assert_allclose(standing_clearances(BODY, FEET, shape)[heel],
                               points[0, 1] - BODY.rest_vertices(shape)[:, 1].min())


def test_a_small_solve_plants_the_feet():
    """Somebody floats and slides at 0.5 m/s with one foot below the floor; a few damped steps put it right."""
    frames = 20
    rng = np.random.default_rng(0)
    rotations = np.tile(np.eye(3), (frames, BODY.num_joints, 1, 1)) @ rotvec_to_matrix(
        rng.normal(0, 0.03, (frames, BODY.num_joints, 3)))
    trajectory = np.array([0.0, 0.95, 0.0]) + np.arange(frames)[:, None] * [0.0, 0.001, 0.01] - [0.0, 0.04, 0.0]
    state = State(rotations, trajectory, np.zeros(BODY.num_shape))
    ground, everywhere = Ground((0.0, 1.0, 0.0), 0.0), np.ones((frames, FEET.num_points))
    chosen = contact_terms(FEET, everywhere, ground, FPS, clearance=0.02)
    layout = state.layout(())
    start = state
    for factor in (30, 30, 10, 3, 1, 1):
        system = NormalEquations(frames, state.frame_size, layout)
        for term in chosen:
            term.annealed(factor).add_to(system, state, kinematics(state))
        state = state.retract(*system.solve(1e-2), layout)
    before, after = (FEET.evaluate(kinematics(s), s.shape) for s in (start, state))
    assert np.quantile(foot_slip(before, everywhere > 0), 0.95) > 0.008
    assert np.quantile(foot_slip(after, everywhere > 0), 0.95) < 0.002
    assert ground.height(before).min() < -0.02 and ground.height(after).min() > 0.01
    assert np.abs(ground.height(after) - 0.02).max() < 0.01


@pytest.mark.parametrize(("make", "message"), [
    (lambda: NoSlip(ContactPoints(FEET), np.ones((3, 2)), FPS), "probability has shape"),
    (lambda: GroundContact(ContactPoints(FEET), np.full((3, FEET.num_points), np.nan), GROUND), "must not be NaN"),
    (lambda: Penetration(ContactPoints(FEET), GROUND, sigma=0.0), "sigma must be positive"),
    (lambda: NoSlip(ContactPoints(FEET), np.ones((3, FEET.num_points)), 0.0), "fps must be positive"),
])  # fmt: skip
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
