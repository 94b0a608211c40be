"""The energy in torch: equal to numpy's, and minimised by first-order methods to the same place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_clip import kinematics_of, small_clip
from test_energy import CLIP, STATE, TERMS

from lifting.body.energy import State
from lifting.body.solver import evaluate, solve
from lifting.body.torch_energy import matrix_to_rotvec
from lifting.body.torch_first_order import energy, minimise_first_order, torch_state
from lifting.body.torch_model import TorchBody
from lifting.rotations import matrix_to_rotvec as numpy_rotvec
from lifting.rotations import rotvec_to_matrix

BODY = TorchBody(CLIP.body, dtype=torch.float64)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_energy_equals_numpy(term):
    expected = term.cost(STATE, kinematics_of(CLIP.body, STATE))
    assert float(energy([term], torch_state(STATE, BODY))) == pytest.approx(expected, rel=1e-10)


def test_energy_equals_numpy_behind_the_camera():
    state = State(STATE.rotations, STATE.trajectory - [0, 0, 4.3], STATE.shape, STATE.offsets)
    for term in TERMS[2:4]:
        expected = term.cost(state, kinematics_of(CLIP.body, state))
        assert float(energy([term], torch_state(state, BODY))) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("method", "steps"), [("lbfgs", 60), ("adam", 150)])
def test_first_order_methods_approach_the_same_minimum(method, steps):
    clip = small_clip(frames=4, away=0.1)
    best = solve(clip.terms(), clip.start, body=clip.body)
    start = evaluate(clip.body, clip.terms(), clip.start)
    found = minimise_first_order(clip.terms(), clip.start, body=clip.body, method=method, max_iterations=steps)
    assert found.cost < best.cost + 0.05 * sum(start.values())
    assert found.cost == pytest.approx(found.history[-1][-1], rel=1e-6)
    assert clip.joint_errors(found.state).mean() < 0.03


def test_user_terms_take_part():
    clip = small_clip(frames=3)

    def lift_left_hand(state):
        return 1e4 * (state.bones.joints[..., 20, 1] - 1.5).square().sum()

    plain = minimise_first_order(clip.terms()[2:], clip.start, body=clip.body, max_iterations=30)
    lifted = minimise_first_order(clip.terms()[2:], clip.start, body=clip.body, max_iterations=60,
                                  user_terms=[lift_left_hand])
    heights = [kinematics_of(clip.body, solution.state).joints[:, 20, 1] for solution in (plain, lifted)]
    assert np.abs(heights[1] - 1.5).max() < 0.05 < np.abs(heights[0] - 1.5).min()
    assert lifted.costs["user terms"] < 100


def test_held_unknowns_do_not_move():
    found = minimise_first_order(CLIP.terms(), CLIP.start, body=CLIP.body, max_iterations=3, free=("focal",))
    np.testing.assert_array_equal(found.state.shape, CLIP.start.shape)


def test_logarithm_and_its_gradient():
    rotvec = np.array([[0.0, 0, 0], [1e-7, 0, 0], [0.5, -1, 2], [3.0, 0.5, 0.3], [0, 3.1, 0]])
    matrix = torch.tensor(rotvec_to_matrix(rotvec), requires_grad=True)
    found = matrix_to_rotvec(matrix)
    np.testing.assert_allclose(found.detach().numpy(), numpy_rotvec(matrix.detach().numpy()), atol=1e-12)
    found.sum().backward()
    assert torch.isfinite(matrix.grad).all()


def test_wrong_arguments():
    with pytest.raises(ValueError, match="lbfgs, adam"):
        minimise_first_order(CLIP.terms(), CLIP.start, body=CLIP.body, method="sgd")
    with pytest.raises(ValueError, match="not finite"):
        broken = State(CLIP.start.rotations, np.nan * CLIP.start.trajectory, CLIP.start.shape)
        minimise_first_order(CLIP.terms(), broken, body=CLIP.body)

    class Foreign:
        name = "foreign"

        def annealed(self, factor):
            return self

        def add_to(self, system, state, kinematics):
            return 0.0

    with pytest.raises(ValueError, match="user_terms"):
        minimise_first_order([Foreign()], CLIP.start, body=CLIP.body)
