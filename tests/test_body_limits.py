"""Joint limits: angles against quaternions and against the priors' split, gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from small_body import random_pose, small_body

from lifting.body.energy import State
from lifting.body.limits import JointLimits, swing_twist_angles
from lifting.body.normal_equations import NormalEquations
from lifting.body.priors import load_priors
from lifting.rotations import euler_to_matrix, matrix_to_quat_wxyz, rotation_between, rotvec_to_matrix

BODY = small_body()
JOINTS = BODY.num_joints - 1


def some_rotations(count=200, angle=1.2, seed=0):
    return rotvec_to_matrix(np.random.default_rng(seed).normal(0, angle, (count, 3)))


def state_of(rotations):
    frames = len(rotations)
    return State(rotations, np.zeros((frames, 3)), np.zeros(BODY.num_shape))


def random_limits(seed=0, **options):
    axes, before, after = (some_rotations(JOINTS, seed=seed + i) for i in range(3))
    rng = np.random.default_rng(seed)
    low, high = -rng.uniform(0.1, 0.6, (JOINTS, 3)), rng.uniform(0.1, 0.6, (JOINTS, 3))
    return JointLimits(np.arange(1, JOINTS + 1), axes, low, high, before=before, after=after, **options)


def test_twist_and_swing_put_together_again():
    rotations = some_rotations()
    angles, _ = swing_twist_angles(rotations)
    twist = rotvec_to_matrix(angles[:, :1] * [1.0, 0, 0])
    swing = rotvec_to_matrix(angles * [0, 1.0, 1.0])
    np.testing.assert_allclose(swing @ twist, rotations, atol=1e-9)
    np.testing.assert_allclose(swing, rotation_between([1.0, 0, 0], rotations[:, :, 0]), atol=1e-9)
    quat = matrix_to_quat_wxyz(rotations)
    difference = angles[:, 0] - 2 * np.arctan2(quat[:, 1], quat[:, 0])
    np.testing.assert_allclose(np.sin(difference / 2), 0, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-2, 0.0447, 0.0448, 1.0, 2.5, 3.0])
def test_slopes_are_right_at_any_swing(angle):
    rotation = rotvec_to_matrix([0.0, 0.6 * angle, 0.8 * angle]) @ rotvec_to_matrix([0.7, 0, 0])
    step = 1e-6
    turned = [swing_twist_angles(rotation @ rotvec_to_matrix(sign * step * np.eye(3)))[0] for sign in (1, -1)]
    np.testing.assert_allclose(swing_twist_angles(rotation)[1], (turned[0] - turned[1]).T / (2 * step),
                               atol=2e-8 * (1 + 1 / (np.pi - angle) ** 2))


def test_half_a_turn_stays_finite():
    half = np.stack([np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1]), np.diag([1.0, -1, -1])])
    angles, slopes = swing_twist_angles(half)
    assert np.isfinite(angles).all() and np.isfinite(slopes).all()
    np.testing.assert_allclose(angles[2], [np.pi, 0, 0], atol=1e-12)


@pytest.mark.parametrize("angle", [0.2, 0.6])
def test_gradient(angle):
    term = random_limits()
    rotations = rotvec_to_matrix(random_pose(BODY, 2, 1, angle)[0])
    state = state_of(rotations)
    layout = state.layout(())
    system = NormalEquations(2, state.frame_size, layout)
    cost = term.add_to(system, state, None)
    assert cost > 0
    np.testing.assert_allclose(cost, term.cost(state, None))
    np.testing.assert_allclose(cost, 0.5 * np.sum((term.residuals(state, None) / term.sigma) ** 2))
    numeric = np.zeros_like(system.gradient)
    for number in np.ndindex(numeric.shape):
        step = np.zeros_like(numeric)
        step[number] = 1e-6
        numeric[number] = (term.cost(state.retract(step, np.zeros(0), layout), None)
                           - term.cost(state.retract(-step, np.zeros(0), layout), None)) / 2e-6
    np.testing.assert_allclose(system.gradient, numeric, atol=1e-6 * np.abs(numeric).max())


def test_an_elbow_bent_backwards_and_one_inside():
    """Hinge about axis 1 between 0 and 150 degrees, no swing the other way, 30 degrees of twist either way."""
    limit = np.radians([[-30.0, 0, 0]]), np.radians([[30.0, 150, 0]])
    term = JointLimits(np.array([4]), np.eye(3)[None], *limit)
    rotations = np.tile(np.eye(3), (3, BODY.num_joints, 1, 1))
    rotations[:, 4] = euler_to_matrix(np.radians([[90.0, 20], [-20, 0], [160, -35]]), "YX")
    excess = np.degrees(term.residuals(state_of(rotations), None)[:, 0])
    np.testing.assert_allclose(excess, [[0, 0, 0], [0, -20, 0], [-5, 10, 0]], atol=1e-9)
    system = NormalEquations(3, 3 * BODY.num_joints + 3)
    term.add_to(system, state_of(rotations), None)
    np.testing.assert_allclose(system.gradient[1, 12:15], [0, np.radians(-20) / 0.1**2, 0], atol=1e-9)
    assert not system.gradient[0].any() and np.count_nonzero(np.abs(system.gradient[1]) > 1e-9) == 1


def test_twist_goes_back_the_short_way():
    """Limits of -120..60 degrees: a twist of 170 is 70 beyond the low one, one of 140 is 80 beyond the high one."""
    term = JointLimits(np.array([1]), np.eye(3)[None], np.radians([[-120.0, -1, -1]]), np.radians([[60.0, 1, 1]]))
    rotations = np.tile(np.eye(3), (2, BODY.num_joints, 1, 1))
    rotations[:, 1] = rotvec_to_matrix(np.radians([[170.0, 0, 0], [140.0, 0, 0]]))
    excess = np.degrees(term.residuals(state_of(rotations), None)[:, 0, 0])
    np.testing.assert_allclose(excess, [-70, 80], atol=1e-9)


def test_steps_bring_a_pose_inside():
    term = random_limits(sigma=0.05)
    state = state_of(rotvec_to_matrix(random_pose(BODY, 2, 1, 0.5)[0]))
    layout = state.layout(())
    for _ in range(10):
        system = NormalEquations(2, state.frame_size, layout)
        term.add_to(system, state, None)
        state = state.retract(*system.solve(1e-2), layout)
    assert np.abs(term.residuals(state, None)).max() < np.radians(1)


def test_nothing_outside_costs_nothing_and_terms_stay_as_they_are():
    term = JointLimits(np.arange(1, JOINTS + 1), np.tile(np.eye(3), (JOINTS, 1, 1)),
                       np.full((JOINTS, 3), -np.inf), np.full((JOINTS, 3), np.inf))
    state = state_of(rotvec_to_matrix(random_pose(BODY, 2)[0]))
    system = NormalEquations(2, state.frame_size)
    assert term.add_to(system, state, None) == 0 and not system.diagonal.any()
    assert term.annealed(3.0) is term and term.sliced(slice(0, 1)) is term


@pytest.mark.parametrize(("changes", "message"), [
    ({"low": np.ones((1, 3)), "high": np.zeros((1, 3))}, "low <= high"),
    ({"sigma": 0.0}, "positive sigma"),
    ({"low": np.zeros((2, 3))}, "have shapes"),
    ({"axes": np.diag([1.0, 1, -1])[None]}, "right-handed"),
    ({"axes": 2 * np.eye(3)[None]}, "orthonormal"),
])  # fmt: skip
def test_bad_input(changes, message):
    arguments = {"columns": np.array([1]), "axes": np.eye(3)[None], "low": np.zeros((1, 3)), "high": np.ones((1, 3))}
    with pytest.raises(ValueError, match=message):
        JointLimits(**arguments | changes)


def test_limits_of_the_packaged_priors_hold_the_usual_pose():
    priors = load_priors()
    term = JointLimits.from_priors(priors, BODY)
    assert [BODY.joints[column] for column in term.columns] == list(priors.joints)
    usual = priors.pose_prior(BODY).mean_rotations(BODY.num_joints)[None]
    assert term.cost(state_of(usual), None) == 0
    knee = BODY.joint("left_knee")
    usual[:, knee] = rotvec_to_matrix([-1.0, 0, 0])  # bent forward by almost a radian
    assert np.abs(term.residuals(state_of(usual), None)[0, list(term.columns).index(knee)]).max() > 0.4
