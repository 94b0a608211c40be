"""The logic of the body fit's benchmark: targets, made truth, the contest of solvers."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.fit_lifts import LAYOUT, photographed, true_feet
from experiments.fit_rivals import Curve, TimeIsUp, Trace, compare
from experiments.fit_speed import _stopwatch
from experiments.fit_table import Row, Target, markdown
from experiments.fit_truth import CAMERA, FPS, bridged, evidence, place
from experiments.protocol import CAMERA as PROTOCOL_CAMERA
from lifting.body import load_body
from lifting.body.problem import Problem
from lifting.metrics import foot_slip


@pytest.fixture(scope="module")
def truth():
    """Somebody who walks on the spot with straight arms, 120 frames in the embedded body."""
    phase = 2 * np.pi * np.arange(120) / FPS
    rotvec = np.zeros((120, 24, 3))
    rotvec[:, 1, 0], rotvec[:, 2, 0] = 0.3 * np.sin(phase), -0.3 * np.sin(phase)
    path = np.stack([0.2 * phase, np.full(120, 0.95), np.zeros(120)], axis=-1)
    return place("somebody", load_body(), rotvec, path)


def test_table_shows_what_misses_its_target():
    rows = [Row({"case": "a", "mm": 3.14159, "same": True}, {"mm": Target(4.0), "same": Target(True, at_most=False)}),
            Row({"case": "b", "mm": 250.4, "s": None}, {"mm": Target(4.0)})]  # fmt: skip
    assert markdown(rows).splitlines() == [
        "| case | mm | same | s |",
        "|---|---|---|---|",
        "| a | 3.14 (<= 4) | yes (yes) |  |",
        "| b | **250** (<= 4) |  |  |",
    ]
    assert rows[1].to_dict()["targets"] == {"mm": {"target": "<= 4", "met": False}}


def test_nan_meets_no_target():
    assert not Target(1.0).met(float("nan"))
    assert not Target(1.0, at_most=False).met(float("nan"))
    assert Target(1.0, at_most=False).met(1.0)


def test_missing_root_takes_no_other_joint_away(truth):
    given = evidence(truth, "gross")
    seen = np.isfinite(given.motion.absolute).all(-1)
    outside_gaps = np.ones(len(seen), bool)
    outside_gaps[60:70] = False
    assert not seen[60:70].any()
    rootless = outside_gaps & ~seen[:, 0]
    assert rootless.any()
    assert 0.6 < seen[rootless, 1:].mean() < 0.95


def test_bridged_path_is_straight_over_gaps():
    path = np.array([[0.0, 1, 2], [np.nan] * 3, [2.0, 1, 0]])
    np.testing.assert_allclose(bridged(path)[1], [1, 1, 1])


def test_exact_evidence_is_the_truth(truth):
    given = evidence(truth, "exact")
    np.testing.assert_allclose(given.motion.absolute, truth.joints, atol=2e-6)
    np.testing.assert_allclose(given.keypoints.xy, CAMERA.project(truth.points), atol=1e-3)


def test_photographed_truth_moved_rigidly_and_stands_on_its_floor(truth):
    moved, keypoints = photographed(truth, feet=1.0)

    def distances(joints):
        return np.linalg.norm(joints[:, :, None] - joints[:, None], axis=-1)

    np.testing.assert_allclose(distances(moved.joints), distances(truth.joints), atol=1e-5)
    np.testing.assert_allclose(moved.joints @ moved.up - moved.floor, truth.joints @ truth.up - truth.floor, atol=1e-5)
    body = moved.body_motion
    again = moved.body.points(LAYOUT, body.rotations, body.trajectory, body.shape)
    np.testing.assert_allclose(again, moved.points, atol=1e-5)
    error = np.linalg.norm(keypoints.xy - PROTOCOL_CAMERA.project(moved.points), axis=-1)
    assert 3 < np.nanmedian(error) < 40  # 1.5 % bias and 0.8 % jitter of some 500 pixels


def test_feet_that_stand_in_truth_are_slow(truth):
    feet = true_feet(truth)
    steps = foot_slip(feet.places, feet.standing)
    assert steps.max(initial=0.0) < 0.15 / FPS


def test_rivals_are_compared_where_the_best_of_them_arrives():
    ours = Curve("ours", np.array([0.0, 1.0, 2.0]), np.array([9.0, 5.0, 4.0]))
    slow = Curve("slow", np.array([0.0, 6.0, 20.0]), np.array([9.0, 5.0, 5.0]))
    never = Curve("never", np.array([0.0, 20.0]), np.array([9.0, 8.0]))
    rows = [row.values for row in compare([ours, slow, never])]
    assert rows[0]["over rivals' best %"] == pytest.approx(-20)
    assert rows[0]["s to within 1 %"] == 1.0
    assert rows[0]["of rivals' fastest"] == pytest.approx(1 / 6)
    assert rows[2]["s to within 1 %"] == "never"


def test_trace_keeps_the_latest_state_and_ends_the_run():
    trace = Trace(budget=1e9)
    for cost in (5.0, 7.0, 3.0):
        assert trace.cost(cost, None) == 0.0
    curve = trace.curve("made up", float)
    assert curve.costs[0] == 5.0
    assert curve.costs[-1] == 3.0
    assert (np.diff(curve.costs) <= 0).all()
    with pytest.raises(TimeIsUp):
        Trace(budget=-1.0).cost(1.0, None)


def test_stopwatch_leaves_the_methods_as_they_were():
    before = Problem.start
    with _stopwatch("start") as split:
        with pytest.raises(AttributeError):
            Problem.start(None)
        assert split["start"] > 0
    assert Problem.start is before
