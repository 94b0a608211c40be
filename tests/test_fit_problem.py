"""One person's fit as a problem: what the first solve tells of a clip, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from known_body import KnownBody, errors, motion_of

import lifting.body.problem as problem_module
from lifting.body import load_body
from lifting.body.evidence import observe
from lifting.body.fit import fit_body
from lifting.body.problem import FitConfig
from lifting.rotations import rotvec_to_matrix


@pytest.fixture(scope="module")
def truth():
    return KnownBody.walking(load_body("lite"), frames=24)


def test_the_shape_is_held_the_more_the_longer_and_larger_errors_are(truth):
    motion = truth.motion(noise=0.02)
    seen = observe(motion, None, None)
    seen = replace(seen, sigma=np.full_like(seen.sigma, 0.02))
    problem = problem_module.Problem(truth.body, seen, None, None, None, FitConfig(shape=0.08))
    assert problem.shape_share == pytest.approx(0.1)  # nothing known yet: 2 mm of 20
    assert replace(problem, memory=1.0).shape_share == 1.0
    assert replace(problem, seen=seen.rescaled(5.0, None), memory=25.0).shape_share == pytest.approx(0.08)
    assert replace(problem, seen=seen.rescaled(0.01, None), memory=25.0).shape_share == 1.0


@pytest.mark.parametrize(("speed", "gap", "least", "most"),
                         [(1, 0, 1.0, 1.0), (6, 0, 3.0, 5.0), (6, 20, 3.0, 5.0)])  # fmt: skip
def test_the_pace_of_a_clip_is_told_by_its_own_accelerations(monkeypatch, speed, gap, least, most):
    """The same dance, calm and in fast motion, with errors that last as those of lifts do, and with frames missing."""
    fps = 50.0
    dance = replace(KnownBody.walking(load_body("lite"), frames=50, fps=fps / speed, angle=0.1), fps=fps)
    problems = []
    reweighed = problem_module.Problem.reweighed
    monkeypatch.setattr(problem_module.Problem, "reweighed",
                        lambda *given: problems.append(reweighed(*given)) or problems[-1])
    time = np.arange(50)[:, None, None] / fps
    rng = np.random.default_rng(3)
    drift = 0.02 * np.sin(rng.uniform(2, 6, (17, 3)) * time + rng.uniform(0, 6, (17, 3)))
    given = motion_of(dance.joints + drift, fps).replace(sigma=np.full((50, 17), 0.03))
    unseen = np.isin(np.arange(50), 15 + np.arange(gap))[:, None]
    given = given.replace(joints=np.where(unseen[..., None], np.nan, given.joints),
                          trajectory=np.where(unseen, np.nan, given.trajectory))
    own = errors(fit_body(given, contacts=False), dance.joints)[~unseen[:, 0]].mean()
    assert least <= problems[0].pace <= most and problems[1].pace == problems[0].pace
    monkeypatch.setattr(problem_module, "MOST_PACE", 1.0)
    calm = errors(fit_body(given, contacts=False), dance.joints)[~unseen[:, 0]].mean()
    assert speed == 1 or own < 0.9 * calm


def test_joints_without_evidence_and_one_frame_tell_no_pace(truth):
    """Joints that larger bodies have beside the chain move as they like."""
    problem = problem_module.Problem(truth.body, observe(truth.motion(), None, None), None, None, None, FitConfig())
    fast = replace(problem.start(), rotations=rotvec_to_matrix(6 * truth.rotations))
    lively = problem._pace_of(fast)
    assert 1.0 < lively < problem_module.MOST_PACE
    fingers = SimpleNamespace(joints=(*truth.body.joints, *(f"finger{n}" for n in range(33))), joint=truth.body.joint)
    resting = np.broadcast_to(np.eye(3), (24, 33, 3, 3))
    more = replace(fast, rotations=np.concatenate([fast.rotations, resting], axis=1))
    assert replace(problem, body=fingers)._pace_of(more) == lively
    one = replace(problem, seen=replace(problem.seen, joints=problem.seen.joints[:1]))
    assert one._pace_of(replace(fast, rotations=fast.rotations[:1], trajectory=fast.trajectory[:1])) == 1.0
