from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from small_body import random_pose, small_body
from smpl_format import smpl_arrays

from lifting.body import smplify as module
from lifting.body import smplify_objective as objective
from lifting.body.lbfgs import minimise
from lifting.body.max_mixture import FittedPrior, MaxMixture, read_mixture
from lifting.body.priors import PosePrior
from lifting.body.smpl_files import read_smpl
from lifting.body.smplify import STAGES, Stage, smplify
from lifting.body.smplify_terms import Frames, PosedPoints, angle_prior, fit_spheres, geman_mcclure, right_jacobian
from lifting.cameras import Camera
from lifting.motion import BodyMotion
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix
from lifting.skeletons import Skeleton, get_skeleton

CAMERA = Camera.from_focal(1100.0, (1000, 1000))
LAYOUT = get_skeleton("coco17_feet")
WEAK = (Stage(1e-2, 1e-2),)


def mixture(components=3, joints=21, seed=0):
    rng = np.random.default_rng(seed)
    size = 3 * joints
    roots = rng.normal(0, 0.05, (components, size, size)) + 0.3 * np.eye(size)
    weights = rng.random(components) + 0.1
    means = rng.normal(0, 0.1, (components, size))
    return MaxMixture(weights / weights.sum(), means, roots @ roots.transpose(0, 2, 1))


def standing(body, frames=3, seed=0, angle=0.15, yaw=None):
    """Natural poses four metres before the camera: rotations, trajectory, shape and their pixels."""
    rng = np.random.default_rng(seed)
    rotations = rng.normal(0, angle, (frames, body.num_joints, 3))
    for joint, axis, sign in ((18, 1, -1), (19, 1, 1), (4, 0, 1), (5, 0, 1)):
        rotations[:, joint, axis] = sign * np.abs(rotations[:, joint, axis])
    turn = np.zeros((frames, 3))
    turn[:, 1] = rng.uniform(-0.8, 0.8, frames) if yaw is None else yaw
    rotations[:, 0] = matrix_to_rotvec(np.diag([1.0, -1.0, -1.0]) @ rotvec_to_matrix(turn))
    trajectory = rng.normal(0, 0.2, (frames, 3)) + [0, 0, 4]
    shape = rng.normal(0, 0.3, body.num_shape)
    return rotations, trajectory, shape, CAMERA.project(body.points(LAYOUT, rotations, trajectory, shape))


def motion(rotations, trajectory, shape):
    return BodyMotion(rotations=rotations, trajectory=trajectory, shape=shape, body="small", fps=25.0)


def points_of(body, result, layout="h36m17"):
    return np.concatenate([body.points(layout, result.rotations[[t]], result.trajectory[[t]], result.shape[t])
                           for t in range(len(result.rotations))])


def numerical_gradient(function, values, step=1e-6):
    rows = np.arange(len(values))
    gradient = np.zeros_like(values)
    for column in range(values.shape[1]):
        shift = np.zeros_like(values)
        shift[:, column] = step
        gradient[:, column] = (function(values + shift, rows)[0] - function(values - shift, rows)[0]) / (2 * step)
    return gradient


# ---- what is published


def test_stages_and_weights_are_the_published_ones():
    assert [(stage.pose, stage.shape, stage.collision) for stage in STAGES] == [
        (404, 100, 0), (404, 50, 0), (57.4, 10, 0.01), (4.78, 5, 1)
    ]
    assert (objective.ROBUST_SCALE, objective.DATA_WEIGHT, objective.ANGLE_WEIGHT) == (100, 1000, 3.17)
    assert (objective.DEPTH_WEIGHT, module.SIDE_VIEW_PX) == (100, 25)
    assert (module.MAX_ITERATIONS, module.TOLERANCE) == (30 * 30, 1e-9)


def test_objective_is_the_published_sum():
    body, prior = small_body(joints=24), mixture(joints=23)
    rotations, trajectory, shape, xy = standing(body, 2)
    scores = np.random.default_rng(1).random(xy.shape[:2])
    pixels = xy + np.random.default_rng(2).normal(0, 60, xy.shape)
    camera = Camera.from_focal(1100.0, (1000, 800))
    setup = objective.Setup(body, LAYOUT, camera, prior, None, False)
    translation = trajectory - body.rest_joints(shape)[0]
    values = Frames(rotations, translation, np.tile(shape, (2, 1))).pack()
    cost, _ = objective.Problem(setup, pixels, scores).stage(Stage(57.4, 10.0))(values, np.arange(2))
    reprojected = camera.project(body.points(LAYOUT, rotations, trajectory, shape))
    for frame in range(2):
        data = 0.0
        for joint, name in enumerate(LAYOUT.joints):
            for e in reprojected[frame, joint] - pixels[frame, joint]:
                used = 0.0 if name in ("left_hip", "right_hip") else 1.0
                data += (used * scores[frame, joint]) ** 2 * 100**2 * e**2 / (100**2 + e**2)
        theta = rotations[frame].ravel()
        angle = sum(np.exp(sign * theta[i]) ** 2 for i, sign in ((55, 1), (58, -1), (12, -1), (15, -1)))
        expected = (1000 / 800) ** 2 * data + 57.4**2 * slow_mixture(prior, theta[3:])
        expected += (3.17 * 57.4) ** 2 * angle + 10**2 * (shape**2).sum()
        assert cost[frame] == pytest.approx(expected, rel=1e-9)


def slow_mixture(prior, x):
    """The formula of the reference, component by component."""
    roots = [np.sqrt(np.linalg.det(covariance)) for covariance in prior.covariances]
    constant = (2 * np.pi) ** (len(x) / 2)
    costs = []
    for weight, mean, covariance, root in zip(prior.weights, prior.means, prior.covariances, roots, strict=True):
        away = x - mean
        costs.append(0.5 * away @ np.linalg.inv(covariance) @ away - np.log(weight / (constant * root / min(roots))))
    return min(costs)


@pytest.mark.parametrize("joints", [2, 21, 23])
def test_mixture_equals_the_slow_formula_and_picks_the_likeliest_component(joints):
    prior, rng = mixture(4, joints), np.random.default_rng(3)
    rotations = rng.normal(0, 0.4, (6, 24, 3))
    x = rotations.reshape(6, -1)[:, 3 : 3 + 3 * joints]
    cost, _ = prior(rotations)
    np.testing.assert_allclose(cost, [slow_mixture(prior, row) for row in x], rtol=1e-10)
    densities = [[np.log(w) + multivariate_normal(m, c).logpdf(row) for w, m, c in
                  zip(prior.weights, prior.means, prior.covariances, strict=True)] for row in x]
    np.testing.assert_allclose(np.diff(cost), -np.diff(np.max(densities, axis=1)), atol=1e-8)
    gradient = numerical_gradient(lambda v, _: prior(v.reshape(len(v), 24, 3)), rotations.reshape(6, -1))
    np.testing.assert_allclose(prior(rotations)[1].reshape(6, -1), gradient, atol=1e-5)


def test_mixture_of_fewer_joints_is_the_marginal():
    prior = mixture(joints=3)
    part, x = prior.first_joints(2), np.random.default_rng(0).normal(0, 0.3, 6)
    draws = np.random.default_rng(1).normal(0, 4, (200_000, 3))  # integrate the last joint out, by brute force
    for component in range(3):
        mean, covariance = prior.means[component], prior.covariances[component]
        points = np.concatenate([np.tile(x, (len(draws), 1)), mean[6:] + draws], axis=1)
        density = multivariate_normal(mean, covariance).pdf(points) / multivariate_normal(np.zeros(3), 16).pdf(draws)
        marginal = multivariate_normal(part.means[component], part.covariances[component]).pdf(x)
        assert density.mean() == pytest.approx(marginal, rel=0.1)
    assert prior.first_joints(3) is prior


def test_angle_prior_keeps_elbows_and_knees_from_bending_backwards():
    joints = get_skeleton("smpl24").joints
    bend = {"left_elbow": (1, 1), "right_elbow": (1, -1), "left_knee": (0, -1), "right_knee": (0, -1)}
    for name, (axis, wrong) in bend.items():
        rotations = np.zeros((2, 24, 3))
        rotations[:, joints.index(name), axis] = [0.7 * wrong, -0.7 * wrong]
        cost, gradient = angle_prior(rotations)
        np.testing.assert_allclose(cost, [3 + np.exp(1.4), 3 + np.exp(-1.4)])
        assert gradient[0, joints.index(name), axis] == pytest.approx(2 * wrong * np.exp(1.4))
    assert angle_prior(np.zeros((1, 24, 3)))[0] == 4
    assert np.isfinite(angle_prior(np.full((1, 24, 3), 1e3))[0]).all()


def test_geman_mcclure_is_quadratic_then_flat():
    value, slope = geman_mcclure(np.array([0.0, 1.0, 100.0, 1e6]), 100.0)
    np.testing.assert_allclose(value, [0, 1, 5000, 10000], rtol=2e-4)
    np.testing.assert_allclose(slope, [0, 2, 50, 0], atol=1e-3)


# ---- gradients


@pytest.mark.parametrize("pose", [False, True])
def test_points_of_frames_with_shapes_of_their_own(pose):
    body = small_body(pose=pose)
    rotations, translation, _ = random_pose(body, 3)
    shapes = np.random.default_rng(1).normal(size=(3, body.num_shape))
    rotations[0, 5] = 0
    frames = Frames(rotations, translation, shapes)
    posed = PosedPoints(body, body.point_set(LAYOUT), frames)
    for t in range(3):
        root = translation[[t]] + body.rest_joints(shapes[t])[0]
        np.testing.assert_allclose(posed.positions[t], body.points(LAYOUT, rotations[[t]], root, shapes[t])[0])
    weights = np.random.default_rng(2).normal(size=posed.positions.shape)

    def function(values, _):
        parts = PosedPoints(body, body.point_set(LAYOUT), Frames.unpack(values, 22)).positions * weights
        return parts.sum(axis=(1, 2)), None

    np.testing.assert_allclose(posed.pull_back(weights).pack(), numerical_gradient(function, frames.pack()), atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-7, 1e-3, 0.5, 2.5, 4.0])
def test_right_jacobian(size):
    rng = np.random.default_rng(0)
    axis = rng.normal(size=3)
    vector, step = size * axis / np.linalg.norm(axis), 1e-6 * rng.normal(size=3)
    turned = rotvec_to_matrix(vector).T @ rotvec_to_matrix(vector + step)
    np.testing.assert_allclose(matrix_to_rotvec(turned), right_jacobian(vector) @ step, atol=1e-11)


@pytest.mark.parametrize("free", [False, True])
def test_gradient_of_the_whole_objective(free):
    body = small_body(joints=24, shape=3)
    rotations, trajectory, shape, xy = standing(body, 2, angle=0.5)
    setup = objective.Setup(body, LAYOUT, CAMERA, mixture(joints=23), fit_spheres(body), free)
    problem = objective.Problem(setup, xy + 5.0, np.full(xy.shape[:2], 0.7))
    values = Frames(rotations, trajectory - body.rest_joints(shape)[0], np.tile(shape, (2, 1))).pack()
    for function, step in ((problem.stage(Stage(2.0, 3.0, 1.0)), 1e-6), (problem.camera_stage(np.ones(2)), 1e-6)):
        expected, held = numerical_gradient(function, values, step), function(values, np.arange(2))[1]
        moving = held != 0
        np.testing.assert_allclose(held[moving], expected[moving], rtol=1e-4, atol=1e-2)
    assert moving[:, :3].all() and moving[:, 72:75].all() and not moving[:, 3:72].any()
    assert problem.stage(STAGES[0])(values, np.arange(2))[1][:, 72:75].any() == free


@pytest.mark.parametrize(("joints", "moving"), [(24, 24), (52, 22), (55, 22)])
def test_fingers_jaw_and_eyes_are_held(tmp_path, joints, moving):
    np.savez(tmp_path / "body.npz", **smpl_arrays(joints, vertices=80))
    body, layout = read_smpl(tmp_path / "body.npz", num_shape=4), get_skeleton("smpl24")
    setup = objective.Setup(body, layout, CAMERA, mixture(), None, False)
    problem = objective.Problem(setup, np.full((1, 24, 2), 500.0), np.ones((1, 24)))
    held = problem._held(np.ones((1, 3 * joints + 3 + 4)))
    assert held[0].tolist() == [1] * 3 * moving + [0] * 3 * (joints - moving) + [0] * 3 + [1] * 4


def test_spheres_push_limbs_apart_only_where_they_meet():
    body = small_body(joints=24)
    spheres = fit_spheres(body)
    rest = PosedPoints(body, spheres.points, Frames(np.zeros((1, 24, 3)), np.zeros((1, 3)), np.zeros((1, 4))))
    crossed = np.zeros((1, 24, 3))
    crossed[0, 1, 2], crossed[0, 2, 2] = -0.4, 0.4  # legs through each other
    meeting = PosedPoints(body, spheres.points, Frames(crossed, np.zeros((1, 3)), np.zeros((1, 4))))
    low, high = spheres.cost(rest.positions)[0][0], spheres.cost(meeting.positions)[0][0]
    assert low < 0.1 and high > 10 * max(low, 0.01)
    centres, square = meeting.positions[0], (spheres.radii / 3) ** 2
    slow = sum(np.exp(-((centres[i] - centres[j]) ** 2).sum() / (square[i] + square[j])) for i, j in spheres.pairs)
    assert high == pytest.approx(slow, rel=1e-6)


def test_fitted_prior_stands_in_for_the_mixture():
    prior = mixture()
    columns = np.arange(1, 22)
    other = FittedPrior(PosePrior.from_mixture(prior.weights, prior.means, prior.covariances, columns))
    rotations = np.random.default_rng(0).normal(0, 0.4, (4, 22, 3))
    (cost, gradient), (expected, slope) = other(rotations), prior(rotations)
    np.testing.assert_allclose(np.diff(cost), np.diff(expected), atol=1e-8)
    np.testing.assert_allclose(gradient, slope, atol=1e-8)


# ---- the optimiser


def rosenbrock(x, rows):
    a, b = x.T
    return (1 - a) ** 2 + 100 * (b - a * a) ** 2, np.stack([2 * (a - 1) - 400 * a * (b - a * a), 200 * (b - a * a)], 1)


def test_minimise_solves_many_problems_each_as_if_alone():
    start = np.random.default_rng(0).normal(0, 2, (20, 2))
    together = minimise(rosenbrock, start, tolerance=1e-14)
    np.testing.assert_allclose(together.x, 1, atol=1e-5)
    assert together.converged.all() and together.iterations.max() < 80
    for row in (0, 7):
        alone = minimise(rosenbrock, start[[row]], tolerance=1e-14)
        np.testing.assert_array_equal(alone.x[0], together.x[row])
        assert alone.iterations[0] == together.iterations[row]


def test_minimise_needs_about_as_many_steps_as_scipy():
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(5, 30, 30))
    matrices, targets = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(30), rng.normal(size=(5, 30))

    def function(x, rows):
        product = np.einsum("nij,nj->ni", matrices[rows], x)
        return 0.5 * (x * product).sum(axis=1) - (targets[rows] * x).sum(axis=1), product - targets[rows]

    found = minimise(function, np.zeros((5, 30)), tolerance=1e-13)
    np.testing.assert_allclose(found.x, np.linalg.solve(matrices, targets[..., None])[..., 0], atol=1e-3)
    for n in range(5):
        other = minimize(lambda x, n=n: tuple(part[0] for part in function(x[None], np.array([n]))), np.zeros(30),
                         jac=True, method="L-BFGS-B", options={"maxcor": 20, "ftol": 1e-13})
        assert found.value[n] <= other.fun + 1e-6
        assert found.iterations[n] < 2 * other.nit + 20


def test_minimise_stops_at_the_limit_and_refuses_infinite_starts():
    assert not minimise(rosenbrock, np.array([[-1.2, 1.0]]), max_iterations=3).converged[0]
    assert minimise(rosenbrock, np.array([[1.0, 1.0]])).iterations[0] == 0
    with pytest.raises(ValueError, match="not finite where"):
        minimise(rosenbrock, np.array([[np.nan, 1.0]]))
    with pytest.raises(ValueError, match="one row per problem"):
        minimise(rosenbrock, np.zeros(3))


# ---- the fit


def test_exact_keypoints_and_a_near_start_give_the_pose():
    body = small_body()
    rotations, trajectory, shape, xy = standing(body)
    noise = np.random.default_rng(5).normal(0, 0.03, rotations.shape)
    prior = MaxMixture(np.ones(1), rotations[:1, 1:].reshape(1, -1), np.eye(63)[None])
    result = smplify(body, xy[:1], np.ones(xy.shape[:2])[:1], CAMERA, LAYOUT, prior,
                     motion((rotations + noise)[:1], trajectory[:1], shape), stages=WEAK, collisions=False)
    truth = body.points("h36m17", rotations[:1], trajectory[:1], shape)
    assert np.linalg.norm(points_of(body, result) - truth, axis=-1).mean() < 0.01
    pixels = CAMERA.project(points_of(body, result, LAYOUT))
    used = [i for i, joint in enumerate(LAYOUT.joints) if joint not in objective.IGNORED]
    assert np.abs(pixels - xy[:1])[:, used].max() < 0.05
    assert np.linalg.norm(result.rotations - rotations[:1], axis=-1)[0, [4, 5, 18, 19]].max() < 0.2


def test_published_stages_from_scratch_explain_the_keypoints():
    body = small_body()
    rotations, trajectory, shape, xy = standing(body)
    prior = MaxMixture(np.ones(1), np.zeros((1, 63)), 0.04 * np.eye(63)[None])
    steps = []
    result = smplify(body, xy, np.ones(xy.shape[:2]), CAMERA, "coco17_feet", prior,
                     progress=lambda items, total, title: steps.append((total, title)) or items)
    assert steps == [(1, "fitting")]
    assert result.losses.shape == (3, 4) and (np.diff(result.losses) < 0).all() and result.solved.all()
    pixels = CAMERA.project(points_of(body, result, LAYOUT))
    assert np.linalg.norm(pixels - xy, axis=-1).mean() < 8
    found, truth = points_of(body, result), body.points("h36m17", rotations, trajectory, shape)
    found, truth = found - found[:, :1], truth - truth[:, :1]
    assert np.linalg.norm(found - truth, axis=-1).mean() < 0.12
    assert np.abs(result.trajectory - trajectory)[:, 2].max() < 0.4
    alone = smplify(body, xy[1:2], np.ones(xy.shape[:2])[1:2], CAMERA, "coco17_feet", prior)
    np.testing.assert_allclose(alone.losses[0], result.losses[1], rtol=1e-6)
    np.testing.assert_allclose(alone.rotations[0], result.rotations[1], atol=2e-3)


def test_side_views_are_tried_from_both_sides():
    body = small_body()
    rotations, _, shape, _ = standing(body, 2, yaw=np.array([np.pi / 2, -np.pi / 2]), angle=0.05)
    trajectory = np.tile([0.0, 0.0, 4.0], (2, 1))
    xy = CAMERA.project(body.points(LAYOUT, rotations, trajectory, shape))
    prior = MaxMixture(np.ones(1), np.zeros((1, 63)), 0.04 * np.eye(63)[None])
    result = smplify(body, xy, np.ones(xy.shape[:2]), CAMERA, LAYOUT, prior, collisions=False)
    forward = rotvec_to_matrix(result.rotations[:, 0])[:, :, 2]
    truth = rotvec_to_matrix(rotations[:, 0])[:, :, 2]
    assert ((forward * truth).sum(axis=1) > 0.8).all()


def test_frames_without_a_torso_are_left_out():
    body = small_body()
    _, _, _, xy = standing(body)
    scores = np.ones(xy.shape[:2])
    scores[1, list(LAYOUT.indices(["left_shoulder", "right_hip"]))] = 0
    xy[2, LAYOUT.index("left_hip")] = np.nan
    result = smplify(body, xy, scores, CAMERA, LAYOUT, mixture(), stages=(Stage(404.0, 100.0),), collisions=False)
    assert result.solved.tolist() == [True, False, True]
    for array in (result.rotations, result.trajectory, result.shape, result.losses):
        assert np.isnan(array[1]).all() and np.isfinite(array[[0, 2]]).all()


def test_without_a_prior_file_a_sentence_names_the_prior_used():
    body = small_body()
    _, _, _, xy = standing(body, 1)
    result = smplify(body, xy, np.ones(xy.shape[:2]), CAMERA, LAYOUT, stages=STAGES[2:3], collisions=False)
    assert result.solved.all() and np.isfinite(result.rotations).all()
    assert "this library's mixture" in result.notes[0] and "not SMPLify's gmm_08.pkl" in result.notes[0]
    named = smplify(body, xy, np.ones(xy.shape[:2]), CAMERA, LAYOUT, mixture(), stages=STAGES[:1], collisions=False)
    assert "made for SMPL's rest pose" in named.notes[0]


def test_prior_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prior = mixture(joints=23)
    arrays = {"means": prior.means, "covars": prior.covariances, "weights": prior.weights}
    (tmp_path / "gmm_08.pkl").write_bytes(pickle.dumps(arrays, 2))
    np.savez(tmp_path / "gmm.npz", **arrays)
    for name in ("gmm_08.pkl", "gmm.npz"):
        np.testing.assert_array_equal(read_mixture(tmp_path / name).covariances, prior.covariances)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({**arrays, "weights": HostileCall()}, 2))
    with pytest.raises(ValueError, match=r"bad\.pkl' is no pose prior of SMPLify: refused '\w+\.system'"):
        read_mixture(tmp_path / "bad.pkl")
    (tmp_path / "part.pkl").write_bytes(pickle.dumps({"means": 1}, 2))
    with pytest.raises(ValueError, match="lacks weights, covars"):
        read_mixture(tmp_path / "part.pkl")
    with pytest.raises(FileNotFoundError, match="no file at"):
        read_mixture(tmp_path / "absent.pkl")
    assert sorted(os.listdir(tmp_path)) == ["bad.pkl", "gmm.npz", "gmm_08.pkl", "part.pkl"]


class HostileCall:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_bad_mixtures_are_one_sentence():
    good = mixture(2, 2)
    with pytest.raises(ValueError, match=r"expected \(M,\), \(M, D\) and \(M, D, D\)"):
        MaxMixture(good.weights, good.means, good.covariances[:1])
    with pytest.raises(ValueError, match="positive definite"):
        MaxMixture(good.weights, good.means, -good.covariances[:, :, ::-1])
    with pytest.raises(ValueError, match="expected 3 finite per joint"):
        MaxMixture(good.weights, good.means * np.nan, good.covariances)


def test_bad_input_is_one_sentence():
    body = small_body()
    rotations, trajectory, shape, xy = standing(body)
    scores, prior = np.ones(xy.shape[:2]), mixture()
    with pytest.raises(ValueError, match="no keypoint is seen"):
        smplify(body, xy * np.nan, scores, CAMERA, LAYOUT, prior)
    with pytest.raises(ValueError, match="keypoints must have the shape"):
        smplify(body, xy[:, :5], scores, CAMERA, LAYOUT, prior)
    with pytest.raises(ValueError, match="'arms' lacks left_shoulder, right_shoulder, left_hip, right_hip"):
        smplify(body, xy, scores, CAMERA, Skeleton("arms", ("left_wrist", "right_wrist"), (-1, -1)), prior)
    with pytest.raises(ValueError, match="the prior speaks about 3 joints"):
        smplify(body, xy, scores, CAMERA, LAYOUT, mixture(joints=3))
    with pytest.raises(ValueError, match="SMPL's joints in SMPL's order"):
        smplify(body.replace(joints=("x", *body.joints[1:])), xy, scores, CAMERA, LAYOUT, prior)
    with pytest.raises(ValueError, match="holds NaN"):
        smplify(body, xy, scores, CAMERA, LAYOUT, prior, motion(rotations * np.nan, trajectory, shape))
    with pytest.raises(ValueError, match="rotations of init"):
        smplify(body, xy, scores, CAMERA, LAYOUT, prior, motion(rotations[:1], trajectory[:1], shape))
