"""Shapes from words and back: "a woman of 1.65 m, 60 kg and 30 years" as shape coefficients, and a mesh's weight.

The file of the embedded body knows how the coefficients of people are distributed: normally around a mean that depends
on sex and age (``body.metadata["phenotypes"]``, from the people that the body was made of). Among all shapes with the
stature and the weight asked for, the most likely one under that distribution is taken,

    min (s - m)^T C^-1 (s - m)   subject to   stature(s) = height,  weight(s) = weight,

by Newton's method on the linearised conditions; stature and weight are measured on the mesh itself, so the result has
them exactly (to 0.1 mm and 10 g).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lifting.body.model import BodyModel

__all__ = ["DENSITY", "describe_features", "mesh_volume", "shape_from_description", "weight_of"]

DENSITY = 985.0
"""kg/m^3 of a whole living body with the air in it: in mid-breath people just float."""
PHENOTYPES_KEY = "phenotypes"
SEXES = {"male": 0.0, "female": 1.0}
MOST_SIGMAS = 6.0
"""Shapes farther than this from the mean are no people's: what is asked for cannot be met."""
_ROUNDS = 30


def shape_from_description(
    body: BodyModel,
    *,
    height: float | None = None,
    weight: float | None = None,
    sex: str | None = None,
    age: float | None = None,
) -> np.ndarray:
    """Find the most likely shape of a person of whom something is known.

    Args:
        body: a body whose file has phenotypes, such as ``load_body("lite")``.
        height: metres, standing without shoes.
        weight: kilograms.
        sex: ``female`` or ``male``; None for the mean of both.
        age: years, 18 to 80 for "lite"; None for the middle of the body's range.

    Returns:
        (S,) shape coefficients.

    Raises ValueError for values out of range, a height and weight that no shape near people has, a body without
    phenotypes.
    """
    _check(height, "height", 0.7, 2.4, "metres")
    _check(weight, "weight", 7.0, 300.0, "kilograms")
    if sex is not None and sex not in SEXES:
        raise ValueError(f"sex is {sex!r}, expected 'female', 'male' or None.")
    mean, covariance = _expected(body, sex, age)
    wanted = [(_stature, height), (_weight, weight)]
    shape = _most_likely(body, mean, covariance, [pair for pair in wanted if pair[1] is not None])
    difference = shape - mean
    distance = float(np.sqrt(difference @ np.linalg.solve(covariance, difference)))
    if distance > MOST_SIGMAS:
        raise ValueError(f"a height of {height} m and a weight of {weight} kg lie {distance:.0f} standard deviations "
                         "from the people that {body.name!r} knows; correct or leave out one of them.")
    return shape


def describe_features(female: np.ndarray | float, years: np.ndarray | float) -> np.ndarray:
    """Features (..., 8) whose linear combinations are the mean shape of people of a sex and age.

    Args:
        female: (...) 0 male to 1 female.
        years: (...) age from the middle of the body's range, as a part of the range: -0.5 to 0.5.
    """
    female, years = np.broadcast_arrays(np.asarray(female, float), np.asarray(years, float))
    powers = np.stack([np.ones_like(years), years, years**2, years**3], axis=-1)
    return np.concatenate([powers, powers * female[..., None]], axis=-1)


def _check(value: float | None, name: str, low: float, high: float, unit: str) -> None:
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} is {value}, expected {low:g} to {high:g} {unit}.")


def _expected(body: BodyModel, sex: str | None, age: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean (S,) and covariance (S, S) of the shapes of people of that sex and age."""
    known = body.metadata.get(PHENOTYPES_KEY)
    if known is None:
        raise ValueError(f"body {body.name!r} does not say how people's shapes vary; use load_body('lite').")
    low, high = known["ages"]
    _check(age, "age", low, high, f"years for the body {body.name!r}")
    years = 0.0 if age is None else (age - (low + high) / 2) / (high - low)
    table, covariance = np.asarray(known["mean"], float), np.asarray(known["covariance"], float)
    mean = describe_features(0.5 if sex is None else SEXES[sex], years) @ table
    if sex is None:
        between = (describe_features(1.0, years) - describe_features(0.0, years)) @ table / 2
        covariance = covariance + np.outer(between, between)
    return mean, covariance


def _most_likely(body: BodyModel, mean: np.ndarray, covariance: np.ndarray, conditions: list) -> np.ndarray:
    """Point (S,) nearest to the mean, in the metric of the covariance, at which all conditions hold."""
    shape = mean.copy()
    for _ in range(_ROUNDS if conditions else 0):
        values, rows = zip(*(measure(body, shape) for measure, _ in conditions), strict=True)
        rows = np.array(rows)
        gap = np.array([target for _, target in conditions]) - values + rows @ (shape - mean)
        gain = covariance @ rows.T
        step = mean + gain @ np.linalg.solve(rows @ gain, gap) - shape
        shape = shape + step
        if np.abs(step).max() < 1e-6:
            break
    return shape


# ---- measures


def _stature(body: BodyModel, shape: np.ndarray) -> tuple[float, np.ndarray]:
    """Stature of a shape (S,) in metres, as of ``body.stature``, and its gradient (S,)."""
    axis = "xyz".index(body.up[-1])
    heights = body.template[:, axis] + body.shape_directions[:, axis] @ shape
    top, bottom = heights.argmax(), heights.argmin()
    return float(heights[top] - heights[bottom]), body.shape_directions[top, axis] - body.shape_directions[bottom, axis]


def _weight(body: BodyModel, shape: np.ndarray) -> tuple[float, np.ndarray]:
    """Weight of a shape (S,) in kilograms and its gradient (S,)."""
    corners = body.rest_vertices(shape)[body.faces]
    first, second, third = np.moveaxis(corners, 1, 0)
    normals = np.stack([np.cross(second, third), np.cross(third, first), np.cross(first, second)], axis=1) / 6
    at = body.faces.ravel()
    gradient = np.stack([np.bincount(at, normals[..., axis].ravel(), body.num_vertices) for axis in range(3)], axis=1)
    volume = float(np.sum(first * normals[:, 0]))
    return DENSITY * volume, DENSITY * gradient.ravel() @ body.shape_directions.reshape(-1, body.num_shape)


def mesh_volume(vertices: np.ndarray, faces: np.ndarray) -> float | np.ndarray:
    """Volume enclosed by a mesh: the sum of the signed tetrahedra between its faces and the origin.

    Args:
        vertices: (..., V, 3) metres.
        faces: (F, 3), counter-clockwise from outside; pieces that lie inside others are counted twice.

    Returns:
        (...) cubic metres, exact for closed meshes.
    """
    corners = np.asarray(vertices, dtype=np.float64)[..., faces, :]
    corners = corners - corners[..., :1, :1, :]  # near the mesh: no cancellation far from the origin
    first, second, third = np.moveaxis(corners, -2, 0)
    return np.einsum("...fc,...fc->...", first, np.cross(second, third)) / 6


def weight_of(body: BodyModel, shape: np.ndarray | None = None) -> float:
    """Weight in kilograms of a shape (S,): the volume of its rest mesh times DENSITY; None is the mean shape."""
    return _weight(body, body.shape_of(shape))[0]
