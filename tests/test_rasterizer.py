"""The rasteriser against a twin that asks every pixel of every triangle, and where triangles meet, cross and end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifting.view.rasterizer import faces_front, rasterize

SIZE = (37, 29)


def loose_triangles(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Corners (count, 3, 3) of triangles that share no corner, some partly or wholly outside the picture."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-0.2, 1.2, (count, 1, 2)) * size
    reach = rng.choice([0.4, 3.0, 15.0], (count, 1, 1))
    return np.concatenate([centers + reach * rng.normal(size=(count, 3, 2)), rng.uniform(0.1, 2, (count, 3, 1))], -1)


def draw(triangles: np.ndarray, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which triangle each pixel (H, W) shows, -1 for none, its inverse depth, and the first corners' share in it."""
    count = len(triangles)
    faces = np.arange(3 * count).reshape(-1, 3)
    shown, near, share = np.full(size[::-1], -1), np.zeros(size[::-1]), np.zeros(size[::-1])
    numbered = rasterize(triangles.reshape(-1, 3), np.repeat(np.arange(count), 3), faces, size)
    shown.flat[numbered.pixels] = np.rint(numbered.values)
    near.flat[numbered.pixels] = numbered.nearness
    shared = rasterize(triangles.reshape(-1, 3), np.tile([1, 0, 0], count), faces, size)
    share.flat[shared.pixels] = shared.values
    assert len(np.unique(numbered.pixels)) == len(numbered.pixels)
    return shown, near, share


def draw_slowly(triangles: np.ndarray, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same by barycentric coordinates of every pixel centre in every triangle."""
    shown, near, share = np.full(size[::-1], -1), np.zeros(size[::-1]), np.zeros(size[::-1])
    for row in range(size[1]):
        for column in range(size[0]):
            for number, corners in enumerate(triangles):
                equations = np.stack([corners[:, 0], corners[:, 1], np.ones(3)])
                weights = np.linalg.solve(equations, [column + 0.5, row + 0.5, 1])
                depth = np.float32(weights @ corners[:, 2])
                if (weights > 0).all() and depth >= near[row, column]:
                    shown[row, column], near[row, column], share[row, column] = number, depth, weights[0]
    return shown, near, share


@pytest.mark.parametrize("seed", range(3))
def test_equals_its_slow_twin(seed):
    triangles = loose_triangles(24, seed)
    fast, slow = draw(triangles), draw_slowly(triangles)
    assert (fast[0] >= 0).mean() > 0.3 and len(np.unique(fast[0])) > 8
    np.testing.assert_array_equal(fast[0], slow[0])
    np.testing.assert_allclose(fast[1], slow[1], rtol=2e-6)
    np.testing.assert_allclose(fast[2], slow[2], atol=2e-6)


def test_crossing_triangles_are_seen_up_to_where_they_cross():
    """Two that cover the picture: inverse depth rises from left to right in one and falls in the other."""
    rising = np.array([[-100.0, 15, 0], [200, -200, 3], [200, 200, 3]])  # inverse depth 1 + column / 100
    falling = rising * (1, 1, -1) + (0, 0, 2.2)  # equal at column 10
    shown, near, _ = draw(np.stack([rising, falling]))
    columns = np.arange(SIZE[0]) + 0.5
    assert (shown == np.where(columns > 10, 0, 1)).all()
    np.testing.assert_allclose(near, np.tile(1 + np.maximum(columns, 20 - columns) / 100, (SIZE[1], 1)), rtol=1e-6)


@given(st.integers(0, 10_000), st.booleans())
def test_a_closed_surface_has_neither_gap_nor_overlap(seed, on_centers):
    """A grid of triangles, also with corners exactly on pixel centres: every pixel inside belongs to exactly one."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(2.5, 22.5, 6), np.linspace(3.5, 18.5, 4))
    inside = np.zeros(x.shape, bool)
    inside[1:-1, 1:-1] = True
    noise = rng.integers(-1, 2, (2, *x.shape)) if on_centers else rng.uniform(-1.5, 1.5, (2, *x.shape))
    x, y = x + inside * noise[0], y + inside * noise[1]
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], -1)
    cells = (np.arange(3)[:, None] * 6 + np.arange(5)).ravel()
    faces = np.concatenate([[(a, a + 1, a + 7), (a, a + 7, a + 6)] for a in cells])
    faces = np.stack([rng.permutation(face) for face in rng.permutation(faces)])
    covered = np.zeros((25, 30), int)
    for face in faces:
        covered.flat[rasterize(points, np.ones(len(points)), face[None], (30, 25)).pixels] += 1
    expected = np.zeros((25, 30), int)
    expected[3:18, 2:22] = 1  # the first centre on an edge belongs to the surface, the last does not
    np.testing.assert_array_equal(covered, expected)


def test_of_equally_near_ones_the_later_is_seen():
    triangle = np.array([[2.0, 2, 1], [30, 3, 1], [8, 25, 1]])
    nearer = triangle + (0, 0, 0.5)
    for order, seen in (([triangle, triangle], 1), ([nearer, triangle], 0), ([nearer, triangle, nearer, triangle], 2)):
        shown, _, _ = draw(np.stack(order))
        assert set(np.unique(shown)) == {-1, seen}


def test_many_layers_end_with_the_nearest():
    rng = np.random.default_rng(5)
    layers = np.tile([[1.0, 1, 0], [35, 2, 0], [4, 27, 0]], (200, 1, 1))
    layers[..., 2] = rng.permutation(200)[:, None] + 1
    shown, near, _ = draw(layers)
    assert set(np.unique(shown)) == {-1, int(np.argmax(layers[:, 0, 2]))} and near.max() == pytest.approx(200)


@given(st.lists(st.sampled_from([np.nan, np.inf, -np.inf, -1e12, -5.0, 3.0, 20.5, 1e12]), min_size=9, max_size=9))
@settings(max_examples=200)
def test_any_numbers_stay_inside_the_picture(numbers):
    triangle = np.array(numbers).reshape(3, 3)
    samples = rasterize(triangle, np.zeros(3), np.array([[0, 1, 2]]), SIZE)
    assert ((samples.pixels >= 0) & (samples.pixels < SIZE[0] * SIZE[1])).all()
    if not np.isfinite(triangle).all():
        assert len(samples.pixels) == 0


def test_slivers_points_and_nothing_draw_nothing():
    sliver = np.array([[1.0, 1, 1], [20, 20, 1], [10.5, 10.5, 1]])
    for faces in ([[0, 1, 2]], [[1, 1, 1]], np.zeros((0, 3), int)):
        assert len(rasterize(sliver, np.zeros(3), np.asarray(faces), SIZE).pixels) == 0
    assert len(rasterize(np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3), int), SIZE).pixels) == 0


def test_a_face_shows_the_side_seen_counter_clockwise():
    """Right-handed, y down and z ahead: a normal towards the viewer is seen, one away is not, NaN is not."""
    corners = np.array([[0.0, 0, 3], [1, 0, 3], [0, 1, 3], [np.nan, 0, 3]])
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    assert normal[2] > 0  # (0, 1, 2) faces away
    np.testing.assert_array_equal(faces_front(corners, np.array([[0, 1, 2], [0, 2, 1], [0, 2, 3]])), [0, 1, 0])
