from __future__ import annotations

import itertools

import numpy as np
import pytest
from small_body import small_body

from lifting.body import load_body
from lifting.body.ambiguities import find_turned, resolve_twists, viterbi
from lifting.body.initial import initial_state
from lifting.body.priors import load_priors
from lifting.rotations import rotvec_to_matrix
from lifting.skeletons import Skeleton, get_skeleton

FRAMES = 40
LAYOUTS = ("h36m17", "coco17_feet")


@pytest.fixture(scope="module")
def body():
    return small_body()


def plausible_motion(body, frames=FRAMES, seed=0, size=0.7):
    """Smooth motion through poses of the prior: rotations (T, K, 3, 3), a path, and a shape."""
    rng = np.random.default_rng(seed)
    prior = load_priors().pose_prior(body)
    knots = rng.normal(0, size, (4, prior.means.shape[1]))
    draws = np.stack([np.interp(np.linspace(0, 3, frames), range(4), column) for column in knots.T], axis=-1)
    features = prior.means[0] + np.linalg.solve(prior.whiteners[0], draws.T).T
    rotations = np.tile(np.eye(3), (frames, body.num_joints, 1, 1))
    undone = np.swapaxes(prior.before, -1, -2), np.swapaxes(prior.after, -1, -2)
    rotations[:, prior.columns] = undone[0] @ rotvec_to_matrix(features.reshape(frames, -1, 3)) @ undone[1]
    rotations[:, 0] = rotvec_to_matrix(np.linspace([0.1, 0, 0], [3.0, 0.4, 0], frames))
    return rotations, np.linspace([0, 0, 4], [1, 0.1, 5], frames), rng.normal(0, 0.7, body.num_shape) * body.shape_sigma


def points_and_joints(body, layout, rotations, trajectory, shape):
    return body.points(layout, rotations, trajectory, shape), body.kinematics(rotations, trajectory, shape).joints


def mean_distance(a, b):
    return float(np.linalg.norm(a - b, axis=-1).mean())


def state_errors(body, layout, state, truth):
    """Mean distances in metres of the layout's points and of the joints."""
    ours = points_and_joints(body, layout, state.rotations, state.trajectory, state.shape)
    return [mean_distance(a, b) for a, b in zip(ours, points_and_joints(body, layout, *truth), strict=True)]


# ---- accuracy


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exact_points_of_the_small_body_give_its_pose(body, layout):
    truth = plausible_motion(body)
    state = initial_state(body, layout, body.points(layout, *truth))
    points, joints = state_errors(body, layout, state, truth)
    assert points < 0.008
    assert joints < 0.015
    assert body.stature(state.shape) == pytest.approx(body.stature(truth[2]), abs=0.015)
    turns = state.rotations @ np.swapaxes(state.rotations, -1, -2)
    np.testing.assert_allclose(turns, np.broadcast_to(np.eye(3), turns.shape), atol=1e-9)
    assert (np.linalg.det(state.rotations) > 0).all()


@pytest.mark.parametrize("layout", ["h36m17", "coco17", "coco17_feet", "body25", "halpe26", "smpl24"])
def test_exact_points_of_the_embedded_body(layout):
    body = load_body("lite")
    truth = plausible_motion(body)
    state = initial_state(body, layout, body.points(layout, *truth), prior=load_priors().pose_prior(body))
    assert state_errors(body, layout, state, truth)[0] < 0.015


def test_height_fixes_the_scale_against_the_points(body):
    rotations, path, shape = plausible_motion(body)
    targets = 1.1 * body.points("h36m17", rotations, path, shape)
    height = body.stature(shape)
    assert body.stature(initial_state(body, "h36m17", targets).shape) > height + 0.05
    assert body.stature(initial_state(body, "h36m17", targets, height=height).shape) == pytest.approx(height, abs=0.02)


def test_prior_turns_what_no_point_shows(body):
    truth = plausible_motion(body, size=0.3)
    targets = body.points("h36m17", *truth)
    prior = load_priors().pose_prior(body)
    feet = [body.joint("left_foot"), body.joint("right_foot")]
    errors = []
    for chosen in (None, prior):
        state = initial_state(body, "h36m17", targets, prior=chosen)
        joints = body.kinematics(state.rotations, state.trajectory, state.shape).joints
        errors.append(mean_distance(joints[:, feet], body.kinematics(*truth).joints[:, feet]))
    assert errors[1] < errors[0]


# ---- properties


def test_moving_the_points_moves_the_body(body):
    targets = body.points("h36m17", *plausible_motion(body))
    turn, step = rotvec_to_matrix([0.4, -1.0, 2.0]), np.array([1.0, -2.0, 3.0])
    still, moved = (initial_state(body, "h36m17", xyz) for xyz in (targets, targets @ turn.T + step))
    np.testing.assert_allclose(moved.trajectory, still.trajectory @ turn.T + step, atol=1e-7)
    np.testing.assert_allclose(moved.rotations[:, 0], turn @ still.rotations[:, 0], atol=1e-7)
    np.testing.assert_allclose(moved.rotations[:, 1:], still.rotations[:, 1:], atol=1e-7)
    np.testing.assert_allclose(moved.shape, still.shape, atol=1e-7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mirrored_points_are_fitted_as_well(body, layout):
    skeleton = get_skeleton(layout)
    targets = body.points(layout, *plausible_motion(body))
    mirrored = targets[:, list(skeleton.flip)] * [-1, 1, 1]
    errors = []
    for xyz in (targets, mirrored):
        state = initial_state(body, layout, xyz)
        errors.append(mean_distance(body.points(layout, state.rotations, state.trajectory, state.shape), xyz))
    assert errors[1] < 2 * errors[0] + 0.005  # the small body is not symmetric


def test_missing_points_are_bridged(body):
    truth = plausible_motion(body)
    targets = body.points("coco17_feet", *truth)
    holes = targets.copy()
    holes[np.random.default_rng(0).random(targets.shape[:2]) < 0.2] = np.nan
    holes[18:22] = np.nan
    holes[:3, 3:9] = np.inf
    whole, bridged = (state_errors(body, "coco17_feet", initial_state(body, "coco17_feet", xyz), truth)
                      for xyz in (targets, holes))  # fmt: skip
    assert bridged[0] < whole[0] + 0.01


def test_zero_weight_is_missing(body):
    targets = body.points("h36m17", *plausible_motion(body))
    hidden, weights = targets.copy(), np.ones(targets.shape[:2])
    hidden[5:9, 3], weights[5:9, 3] = np.nan, 0.0
    spoilt = targets.copy()
    spoilt[5:9, 3] += 100
    first, second = initial_state(body, "h36m17", hidden), initial_state(body, "h36m17", spoilt, weights)
    np.testing.assert_array_equal(first.rotations, second.rotations)


def test_one_frame_and_absent_limbs(body):
    truth = [part[:1] for part in plausible_motion(body)[:2]]
    targets = body.points("coco17_feet", *truth, np.zeros(body.num_shape))
    skeleton = get_skeleton("coco17_feet")
    kept = skeleton.indices(["left_hip", "right_hip", "left_shoulder", "right_shoulder"])
    targets[:, [j for j in range(skeleton.num_joints) if j not in kept]] = np.nan
    state = initial_state(body, "coco17_feet", targets)
    assert state.rotations.shape == (1, body.num_joints, 3, 3) and np.isfinite(state.rotations).all()
    found = body.points("coco17_feet", state.rotations, state.trajectory, state.shape)
    assert mean_distance(found[:, kept], targets[:, kept]) < 0.03


def test_exchanged_sides_are_undone(body):
    targets = body.points("h36m17", *plausible_motion(body))
    spoilt = targets.copy()
    spoilt[10:16] = targets[10:16][:, list(get_skeleton("h36m17").flip)]
    clean, undone = (initial_state(body, "h36m17", xyz) for xyz in (targets, spoilt))
    np.testing.assert_allclose(undone.rotations, clean.rotations, atol=0.02)  # medians of left and right bones differ


# ---- choices over time


def test_viterbi_finds_the_best_of_all_paths():
    rng = np.random.default_rng(0)
    unary, transition = rng.random((5, 3)), rng.random((4, 3, 3))
    costs = {path: sum(unary[t, s] for t, s in enumerate(path))
             + sum(transition[t, path[t], path[t + 1]] for t in range(4))
             for path in itertools.product(range(3), repeat=5)}  # fmt: skip
    assert tuple(viterbi(unary, transition)) == min(costs, key=costs.get)
    both = viterbi(np.stack([unary, unary[:, ::-1]], axis=1), transition[0])
    np.testing.assert_array_equal(both[:, 0], viterbi(unary, transition[0]))


def test_viterbi_refuses_tables_that_do_not_fit():
    for unary, transition in [((4, 3), (2, 2)), ((4, 3), (2, 3, 3)), ((0, 3), (3, 3)), ((3,), (3, 3))]:
        with pytest.raises(ValueError, match="expected"):
            viterbi(np.zeros(unary), np.zeros(transition))


def test_twists_over_time_beat_frame_by_frame():
    rng = np.random.default_rng(0)
    truth = 0.8 + 0.3 * np.sin(np.arange(120) / 15)
    bend = np.full(120, 0.5)
    bend[40:70] = 0.0  # straight for 30 frames: the plane of the bend is noise there
    evidence = bend * np.exp(1j * truth) + 0.08 * (rng.normal(size=120) + 1j * rng.normal(size=120))
    found = resolve_twists(evidence[:, None])[:, 0]
    wrong = [np.abs(np.angle(np.exp(1j * (angle - truth)))) for angle in (found, np.angle(evidence))]
    assert wrong[1][40:70].max() > 2
    assert wrong[0].max() < 1.2
    assert wrong[0].mean() < 0.5 * wrong[1].mean()


def test_clear_evidence_is_followed():
    wanted = np.linspace(-3, 3, 50)
    found = resolve_twists(np.exp(1j * wanted)[:, None])[:, 0]
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_turned_trunk_is_found_and_a_real_turn_is_left():
    up = np.array([0.0, 1, 0])
    turning = rotvec_to_matrix(np.linspace(0, np.pi, 60)[:, None] * up)
    assert not find_turned(turning, up).any()
    flipped = turning.copy()
    flipped[20:28] = flipped[20:28] @ rotvec_to_matrix(np.pi * up)
    np.testing.assert_array_equal(np.flatnonzero(find_turned(flipped, up)), np.arange(20, 28))


# ---- bad input


def test_wrong_input_is_refused_in_a_sentence(body):
    targets = body.points("h36m17", *plausible_motion(body, frames=3))
    for arguments, words in [
        (("h36m17", targets[0]), r"expected \(T, 17, 3\)"),
        (("h36m17", targets[:0]), "at least one frame"),
        (("coco17_feet", targets), "name the layout"),
        (("h36m17", targets, np.ones(3)), "weights have shape"),
        (("h36m17", targets, -np.ones((3, 17))), ">= 0"),
        (("h36m17", targets, None, 17.0), "height"),
        (("h36m17", np.full_like(targets, np.nan)), "left_hip"),
        (("humaneva15", targets[:, :15]), "regressor"),
        (("no such layout", targets), "unknown skeleton"),
    ]:
        with pytest.raises(ValueError, match=words):
            initial_state(body, *arguments)


def test_layout_without_hips_is_refused_by_name(body):
    targets = body.points("coco17_feet", *plausible_motion(body, frames=3))
    targets[:, get_skeleton("coco17_feet").indices(["left_hip", "right_hip"])] = np.nan
    with pytest.raises(ValueError, match="left_hip, right_hip"):
        initial_state(body, "coco17_feet", targets)


def test_body_with_other_joints_is_refused(body):
    renamed = body.replace(joints=tuple(name.replace("spine3", "chest") for name in body.joints))
    with pytest.raises(ValueError, match="no joint spine3"):
        initial_state(renamed, "h36m17", np.zeros((1, 17, 3)))


def test_skeleton_of_the_users_own_needs_a_regressor(body):
    own = Skeleton("own", ("left_hip", "right_hip"), (-1, -1))
    with pytest.raises(ValueError, match="own"):
        initial_state(body, own, np.zeros((1, 2, 3)))
