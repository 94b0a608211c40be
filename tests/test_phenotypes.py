"""Shapes from height, weight, sex and age, and the measures of a mesh."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from lifting.body.body_file import load_body
from lifting.body.phenotypes import DENSITY, _expected, _weight, mesh_volume, shape_from_description, weight_of
from tests.small_body import small_body

CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
CUBE_FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                       [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


@pytest.mark.parametrize(
    "known",
    [
        {"height": 1.65, "weight": 60, "sex": "female", "age": 30},
        {"height": 1.93, "weight": 110, "sex": "male", "age": 70},
        {"height": 1.50, "weight": 45, "sex": "female", "age": 18},
        {"height": 1.80, "weight": 75},
    ],
)
def test_height_and_weight_are_met(body, known):
    shape = shape_from_description(body, **known)
    assert body.stature(shape) == pytest.approx(known["height"], abs=1e-4)
    assert weight_of(body, shape) == pytest.approx(known["weight"], abs=0.01)
    assert np.abs(shape).max() < 3.5


def test_only_what_is_said_is_fixed(body):
    tall = shape_from_description(body, height=1.95)
    assert body.stature(tall) == pytest.approx(1.95, abs=1e-4)
    assert weight_of(body, tall) > weight_of(body, shape_from_description(body)) + 10
    heavy = shape_from_description(body, weight=95.0)
    assert weight_of(body, heavy) == pytest.approx(95, abs=0.01)


def test_men_are_taller_and_heavier_than_women(body):
    man, woman = (shape_from_description(body, sex=sex) for sex in ("male", "female"))
    assert 1.70 < body.stature(man) < 1.85 and 1.52 < body.stature(woman) < 1.68
    assert weight_of(body, man) > weight_of(body, woman) + 8
    both = shape_from_description(body)
    np.testing.assert_allclose(both, (man + woman) / 2, atol=1e-9)


def test_women_have_wider_hips_for_their_shoulders(body):
    ratio = {}
    for sex in ("male", "female"):
        joints = body.rest_joints(shape_from_description(body, height=1.7, weight=68, sex=sex, age=30))
        ratio[sex] = joints[body.joint("left_shoulder"), 0] / joints[body.joint("left_hip"), 0]
    assert ratio["male"] > ratio["female"] + 0.01


def test_the_shape_is_the_most_likely_one(body):
    """Against a general constrained minimiser."""
    mean, covariance = _expected(body, "female", 40)
    precision = np.linalg.inv(covariance)
    rules = [
        {"type": "eq", "fun": lambda shape: 100 * (body.stature(shape) - 1.72)},
        {"type": "eq", "fun": lambda shape: weight_of(body, shape) - 66},
    ]
    slow = optimize.minimize(lambda s: (s - mean) @ precision @ (s - mean), mean, constraints=rules, method="SLSQP",
                             options={"ftol": 1e-10, "maxiter": 200})
    fast = shape_from_description(body, height=1.72, weight=66, sex="female", age=40)
    np.testing.assert_allclose(fast, slow.x, atol=0.02)


def test_the_gradient_of_the_weight_is_that_of_finite_differences(body):
    shape = np.random.default_rng(0).normal(size=10)
    weight, gradient = _weight(body, shape)
    assert weight == pytest.approx(DENSITY * mesh_volume(body.rest_vertices(shape), body.faces), rel=1e-9)
    step = 1e-4 * np.eye(10)
    differences = [(weight_of(body, shape + s) - weight_of(body, shape - s)) / 2e-4 for s in step]
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-4)


def test_the_volume_of_a_box_wherever_it_is():
    box = CUBE * [2, 3, 0.5]
    assert mesh_volume(box, CUBE_FACES) == pytest.approx(3.0)
    assert mesh_volume(box + 1000, CUBE_FACES) == pytest.approx(3.0, rel=1e-9)
    np.testing.assert_allclose(mesh_volume(np.stack([box, 2 * box]), CUBE_FACES), [3, 24])
    assert mesh_volume(box, CUBE_FACES[:, ::-1]) == pytest.approx(-3.0)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"height": 165}, "height is 165, expected 0.7 to 2.4 metres"),
        ({"weight": 5}, "weight is 5, expected 7 to 300 kilograms"),
        ({"age": 8}, "age is 8, expected 18 to 80 years for the body 'lite'"),
        ({"sex": "f"}, "sex is 'f', expected 'female', 'male' or None"),
        ({"height": float("nan")}, "height is nan"),
        ({"height": 1.25, "weight": 250}, "standard deviations"),
    ],
)
def test_impossible_descriptions_are_refused(body, known, message):
    with pytest.raises(ValueError, match=message):
        shape_from_description(body, **known)


def test_a_body_of_unknown_people_is_refused():
    with pytest.raises(ValueError, match="load_body\\('lite'\\)"):
        shape_from_description(small_body(), height=1.7)
