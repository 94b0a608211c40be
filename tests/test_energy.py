"""Terms of the energy: gradients against finite differences, robust weights, missing data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from small_clip import CAMERA, kinematics_of, small_clip

from lifting.body.energy import State, robust_cost, robust_weight
from lifting.body.normal_equations import NormalEquations
from lifting.body.point_terms import Points2D, Points3D
from lifting.body.prior_terms import FocalPrior, OffsetPrior, PosePriorTerm, ShapePrior, StaturePrior, TwistPrior
from lifting.body.priors import PosePrior
from lifting.body.projection import NEAR, project, project_with_jacobian
from lifting.body.smoothness import RotationSmoothness, TranslationSmoothness
from lifting.body.so3 import inverse_right_jacobian, twist_angle
from lifting.cameras import Camera
from lifting.rotations import rotvec_to_matrix

RNG = np.random.default_rng(5)
CLIP = small_clip(frames=5)
STATE = State(CLIP.start.rotations @ rotvec_to_matrix(0.1 * RNG.normal(size=(5, 22, 3))), CLIP.start.trajectory,
              0.3 * RNG.normal(size=4), 0.02 * RNG.normal(size=(6, 3)), 0.05)
MOVING = Camera(focal=(1200, 1180), center=(950, 545), image_size=(1920, 1080),
                distortion=(0.1, -0.2, 1e-3, 2e-3, 0.05), rotation=rotvec_to_matrix(0.1 * RNG.normal(size=(5, 3))),
                translation=0.1 * RNG.normal(size=(5, 3)))
OFFSETS_2D = np.where(np.arange(23) < 5, np.arange(23), -1)
AXES = np.tile(np.array([0.6, 0.8, 0.0]), (22, 1))
MIXTURE = PosePrior.from_mixture([0.4, 0.6], 0.1 * RNG.normal(size=(2, 63)), np.tile(0.2 * np.eye(63), (2, 1, 1)),
                                 np.arange(1, 22))


def holed(array, *places):
    array = array.copy()
    for place in places:
        array[place] = np.nan
    return array


def point_terms():
    points3, points2 = CLIP.body.point_set("h36m17"), CLIP.body.point_set("coco17_feet")
    sigma = np.where(np.arange(23) == 7, np.inf, RNG.uniform(1, 3, (5, 23)))
    rows = np.full(17, -1)
    rows[[2, 9]] = 5, 0
    return [Points3D(points3, holed(CLIP.joints, (1, 3), (2,)), 0.02), Points3D(points3, CLIP.joints, 0.02, None, rows),
            Points2D(points2, holed(CLIP.pixels, (0, 4)), sigma, camera=CAMERA),
            Points2D(points2, CLIP.pixels, 2.0, 5.0, OFFSETS_2D, MOVING)]  # fmt: skip


TERMS = [*point_terms(), RotationSmoothness(25.0, RNG.uniform(20, 80, 22)), TranslationSmoothness(25.0, 5.0),
         RotationSmoothness(25.0, RNG.uniform(20, 80, 22), 0.8, name="heavy rotation smoothness"),
         TranslationSmoothness(25.0, 0.05, 2.0, name="heavy translation smoothness"),
         PosePriorTerm(MIXTURE, 0.7), TwistPrior(AXES, RNG.uniform(0.5, 2, 22)), ShapePrior(CLIP.body.shape_sigma),
         StaturePrior(CLIP.body, 1.8, 0.01), OffsetPrior(0.02), FocalPrior(0.1)]  # fmt: skip


def moved(flat: np.ndarray) -> State:
    frames = STATE.num_frames * STATE.frame_size
    return STATE.retract(flat[:frames].reshape(STATE.num_frames, -1), flat[frames:])


def linearised(term, state=STATE):
    system = NormalEquations(state.num_frames, state.frame_size, state.layout())
    return system, term.add_to(system, state, kinematics_of(CLIP.body, state))


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_gradient_equals_finite_differences(term):
    system, cost = linearised(term)
    gradient = system.dense()[1]
    assert cost == pytest.approx(term.cost(STATE, kinematics_of(CLIP.body, STATE)), rel=1e-12)
    frames = STATE.num_frames * STATE.frame_size
    picked = np.r_[np.random.default_rng(0).choice(frames, 25, replace=False), frames:len(gradient)]
    slopes, size = [], 1e-7 if "heavy" in term.name else 1e-6  # logarithms bend more
    for index in picked:
        step = np.zeros(len(gradient))
        step[index] = size
        ahead, behind = (term.cost(state, kinematics_of(CLIP.body, state)) for state in (moved(step), moved(-step)))
        slopes.append((ahead - behind) / (2 * size))
    np.testing.assert_allclose(gradient[picked], slopes, atol=2e-7 * max(np.abs(gradient).max(), 1.0))


PLAIN = [term for term in TERMS
         if term.name not in ("points 2d", "pose prior", "stature prior") and "heavy" not in term.name][1:]


@pytest.mark.parametrize("term", PLAIN, ids=lambda term: term.name)
def test_matrix_of_least_squares_terms_equals_finite_differences(term):
    system, _ = linearised(term)
    matrix = system.dense()[0]
    whiten = {"points 3d": 1 / 0.02, "offset prior": 1 / 0.02, "focal prior": 10.0, "translation smoothness": 0.2}
    scale = whiten.get(term.name, 1 / np.asarray(getattr(term, "sigma", 1.0)))
    scale = scale[:, None] if term.name == "rotation smoothness" else scale

    def whitened(flat):
        state = moved(flat)
        return (term.residuals(state, kinematics_of(CLIP.body, state)) * scale).ravel()

    frames = STATE.num_frames * STATE.frame_size
    picked = np.r_[140:150, 203:207, frames:len(matrix)]
    columns = []
    for index in picked:
        step = np.zeros(len(matrix))
        step[index] = 1e-6
        columns.append((whitened(step) - whitened(-step)) / 2e-6)
    expected = np.array(columns) @ np.array(columns).T
    np.testing.assert_allclose(matrix[np.ix_(picked, picked)], expected, atol=1e-6 * max(np.abs(expected).max(), 1.0))


class RowsOnly:
    """A pose prior of which nothing is known but its rows and its cost."""

    def __init__(self, prior):
        self.linearise, self.cost = prior.linearise, prior.cost


@pytest.mark.parametrize("parts", [1, 2], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("frames", [2, 40])
def test_pose_prior_without_rows_equals_its_rows(parts, frames):
    rng = np.random.default_rng(parts)
    columns = np.array([1, 2, 5, 6, 9]) if parts == 1 else np.arange(1, 6)
    spread = rng.normal(size=(parts, 15, 40))
    before, after = (rotvec_to_matrix(rng.normal(size=(5, 3))) for _ in range(2))
    prior = PosePrior.from_mixture(np.full(parts, 1 / parts), 0.5 * rng.normal(size=(parts, 15)),
                                   spread @ np.swapaxes(spread, 1, 2) / 40, columns, before=before, after=after)
    rotations = rotvec_to_matrix(0.5 * rng.normal(size=(frames, 22, 3)))
    state = State(rotations, np.zeros((frames, 3)), np.zeros(4))
    (fast, cost), (plain, expected) = (linearised(PosePriorTerm(each, 0.3), state) for each in (prior, RowsOnly(prior)))
    assert cost == pytest.approx(expected, rel=1e-12) and fast.diagonal.any()
    np.testing.assert_allclose(fast.diagonal, plain.diagonal, atol=1e-9)
    np.testing.assert_allclose(fast.gradient, plain.gradient, atol=1e-9)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_held_unknowns_have_no_columns(term):
    system = NormalEquations(STATE.num_frames, STATE.frame_size, STATE.layout(()))
    term.add_to(system, STATE, kinematics_of(CLIP.body, STATE))
    whole, _ = linearised(term)
    np.testing.assert_allclose(system.diagonal, whole.diagonal, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(system.gradient, whole.gradient, rtol=1e-9, atol=1e-7)


def test_missing_points_weigh_nothing():
    term = TERMS[0]
    wrecked = Points3D(term.points, np.where(np.isnan(term.target), np.nan, term.target), term.sigma)
    system, _ = linearised(wrecked)
    assert not system.gradient[2].any() and not system.diagonal[2].any()
    residuals = term.residuals(STATE, kinematics_of(CLIP.body, STATE))
    np.testing.assert_array_equal(np.isnan(residuals[..., 0]), np.isnan(term.target[..., 0]))
    infinite = Points3D(term.points, CLIP.joints, np.where(np.isnan(term.target[..., 0]), np.inf, 0.02))
    np.testing.assert_array_equal(linearised(infinite)[0].gradient, system.gradient)


def test_residuals_are_differences_in_metres_and_pixels():
    kinematics = kinematics_of(CLIP.body, CLIP.truth)
    for term, size in ((CLIP.terms()[0], 0.02), (CLIP.terms()[1], 2.0)):
        np.testing.assert_allclose(term.residuals(CLIP.truth, kinematics), 0, atol=1e-9)
        shifted = type(term)(**{**vars_of(term), "target": term.target + size})
        np.testing.assert_allclose(shifted.residuals(CLIP.truth, kinematics), -size, rtol=1e-6)
        axes = term.target.shape[-1]
        assert shifted.cost(CLIP.truth, kinematics) == pytest.approx(
            robust_cost(np.full(term.target.shape[:2], float(axes)), 3 * axes**0.5))


def vars_of(term):
    return {name: getattr(term, name) for name in term.__dataclass_fields__}


@pytest.mark.parametrize("scale", [0.5, 3.0, None])
def test_robust_weight_is_the_slope_of_the_cost(scale):
    square = np.array([0.0, 0.3, 2.0, 50.0])
    for value, weight in zip(square, robust_weight(square, scale), strict=True):
        slope = (robust_cost(np.array([value + 1e-6]), scale) - robust_cost(np.array([value - 1e-6]), scale)) / 1e-6
        assert weight == pytest.approx(slope, rel=1e-6)


def test_robust_cost_is_bounded_and_quadratic_near_zero():
    assert robust_cost(np.array([1e12]), 3.0) == pytest.approx(4.5)
    assert robust_cost(np.array([1e-6]), 3.0) == pytest.approx(0.5e-6)


def test_annealing_changes_robust_terms_only():
    widened = [term.annealed(4.0) for term in TERMS]
    assert [term.robust for term in widened[:4]] == [12.0, None, 12.0, 20.0]
    assert [term.robust for term in widened[6:8]] == [3.2, 8.0]
    others = [*zip(widened[4:6], TERMS[4:6], strict=True), *zip(widened[8:], TERMS[8:], strict=True)]
    assert all(after is before for after, before in others)


@pytest.mark.parametrize("term", [RotationSmoothness(25.0, RNG.uniform(20, 80, 22), 0.8),
                                  TranslationSmoothness(25.0, 0.05, 2.0)], ids=lambda term: term.name)
def test_heavy_tails_of_accelerations(term):
    sigma = np.asarray(term.sigma)[..., None]
    square = np.sum((term.residuals(STATE, None) / sigma) ** 2, axis=-1)
    expected = 0.5 * np.sum(term.robust**2 * np.log(1 + square / term.robust**2))
    assert square.max() > 4 * term.robust**2  # the tails are reached
    assert term.cost(STATE, None) == pytest.approx(expected, rel=1e-12)
    plain, wide = type(term)(25.0, term.sigma), type(term)(25.0, term.sigma, 1e5)
    assert plain.cost(STATE, None) == pytest.approx(0.5 * square.sum(), rel=1e-12)
    for got, least in zip(linearised(wide)[0].dense(), linearised(plain)[0].dense(), strict=True):
        np.testing.assert_allclose(got, least, rtol=1e-6, atol=1e-6 * np.abs(least).max())


@pytest.mark.parametrize("term", TERMS[:4], ids=lambda term: term.name)
def test_slices_add_up(term):
    kinematics = kinematics_of(CLIP.body, STATE)
    parts = 0.0
    for frames in (slice(0, 2), slice(2, 5)):
        state = STATE.sliced(frames)
        parts += term.sliced(frames).cost(state, kinematics_of(CLIP.body, state))
    assert parts == pytest.approx(term.cost(STATE, kinematics), rel=1e-12)


def test_accelerations_have_their_unit():
    seconds = np.arange(7) / 25.0
    spin = np.array([0.0, 0.6, 0.8]) * (0.5 * 3.0 * seconds**2)[:, None]  # 3 rad/s^2 about a fixed axis
    state = State(np.tile(rotvec_to_matrix(spin)[:, None], (1, 2, 1, 1)), spin, np.zeros(1))
    expected = np.broadcast_to([0.0, 1.8, 2.4], (5, 2, 3))
    np.testing.assert_allclose(RotationSmoothness(25.0, 1.0).residuals(state, None), expected, atol=1e-9)
    np.testing.assert_allclose(TranslationSmoothness(25.0, 1.0).residuals(state, None), expected[:, 0], atol=1e-9)


def test_infinite_sigma_switches_a_joint_off():
    sigma = np.full(22, 30.0)
    sigma[4] = np.inf
    system, _ = linearised(RotationSmoothness(25.0, sigma))
    assert not system.diagonal[:, 12:15].any() and system.diagonal[:, 15:18].any()
    with pytest.raises(ValueError, match="positive"):
        RotationSmoothness(25.0, 0.0).cost(STATE, None)


def test_inverse_right_jacobian_equals_finite_differences():
    for rotvec in ([0.0, 0, 0], [1e-5, 0, 2e-5], [0.3, -0.8, 0.5], [3.0, 0.4, 0.2]):
        turn, columns = Rotation.from_rotvec(rotvec), []
        for axis in np.eye(3):
            ahead, behind = (turn * Rotation.from_rotvec(sign * 1e-6 * axis) for sign in (1, -1))
            columns.append((ahead.as_rotvec() - behind.as_rotvec()) / 2e-6)
        np.testing.assert_allclose(inverse_right_jacobian(np.array(rotvec)), np.transpose(columns), atol=1e-8)


def test_twist_is_the_turn_about_the_axis():
    axis = np.array([[0.6, 0.0, 0.8]])
    swing = Rotation.from_rotvec(0.9 * np.array([0.0, 1.0, 0.0]))
    turn = swing * Rotation.from_rotvec(-1.2 * axis[0])
    assert twist_angle(turn.as_matrix()[None], axis)[0] == pytest.approx(-1.2)
    half_turn = Rotation.from_rotvec([0, np.pi, 0]).as_matrix()[None]
    assert np.isfinite(twist_angle(half_turn, axis)[1]).all()


def test_projection_equals_the_camera_in_front():
    points = RNG.normal(size=(5, 8, 3)) * [0.5, 0.3, 0.5] + [0, 0, 4]
    expected = MOVING.project(MOVING.to_camera(points))
    np.testing.assert_allclose(project(points, MOVING), expected, atol=1e-9)
    np.testing.assert_allclose(project_with_jacobian(points, MOVING)[0], expected, atol=1e-9)


@pytest.mark.parametrize("distortion", [np.zeros(5), (0.1, -0.2, 1e-3, 2e-3, 0.05), (-0.3, 0, 0, 0, 0)])
def test_projection_jacobian_everywhere(distortion):
    camera = Camera((900, 950), (640, 360), (1280, 720), distortion)
    points = np.array([[[0.3, 0.2, 3.0], [0.1, -0.1, 0.05], [0.2, 0.1, -2.0], [5.0, -4.0, 2.0], [0, 0, 1.0]]])
    if np.any(distortion):  # the tangential part is held outside the fold, its slope there is left out
        points = points[:, [0, 4]]
    _, jacobian, by_focal = project_with_jacobian(points, camera, 0.1)
    for axis in range(3):
        step = 1e-6 * np.eye(3)[axis]
        slope = (project(points + step, camera, 0.1) - project(points - step, camera, 0.1)) / 2e-6
        np.testing.assert_allclose(jacobian[..., axis], slope, rtol=1e-5, atol=1e-3)
    slope = (project(points, camera, 0.1 + 1e-6) - project(points, camera, 0.1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(by_focal, slope, rtol=1e-6, atol=1e-4)


def test_points_behind_the_camera_are_pushed_to_its_front():
    depths = np.array([2.0, NEAR, 0.0, -1.0, -50.0])
    points = np.stack([np.full(5, 0.3), np.zeros(5), depths], axis=-1)[None]
    pixels, jacobian, _ = project_with_jacobian(points, Camera.from_focal(1000, (1000, 1000)))
    assert np.isfinite(pixels).all()
    assert (np.diff(pixels[0, :, 0]) > 0).all()  # the farther behind, the farther out of the picture
    assert (jacobian[0, :, 0, 2] < 0).all()


@pytest.mark.parametrize(("changes", "words"), [
    ({"target": np.zeros((5, 16, 3))}, "one target for each point"), ({"sigma": np.ones((4, 17))}, "pass one each"),
    ({"offset_rows": np.zeros(3)}, "offset_rows has shape")])  # fmt: skip
def test_wrong_shapes_of_point_terms(changes, words):
    with pytest.raises(ValueError, match=words):
        Points3D(**{**vars_of(TERMS[0]), **changes}).cost(STATE, kinematics_of(CLIP.body, STATE))


def test_wrong_states_and_missing_camera():
    with pytest.raises(ValueError, match="expected"):
        State(np.zeros((3, 2, 3, 3)), np.zeros((2, 3)), np.zeros(1))
    with pytest.raises(ValueError, match="pose"):
        STATE.layout(("pose",))
    with pytest.raises(ValueError, match="camera"):
        Points2D(CLIP.body.point_set("coco17_feet"), CLIP.pixels, 1.0)
