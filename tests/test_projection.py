"""Back-projection in torch against the library's cameras, and where no lens sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lifting.cameras import Camera, square_radius_limit
from lifting.datasets.windows import intrinsic_numbers
from lifting.training.projection import NEAREST, WIDEST, linear_projection, project, read_intrinsics

pytestmark = pytest.mark.usefixtures("one_thread")

LENSES = {
    "none": [0, 0, 0, 0, 0],
    "Human3.6M": [-0.2071, 0.2478, -0.00142, -0.00098, -0.0031],
    "barrel that folds": [-0.25, 0, 0.001, 0.002, 0],
    "pincushion": [0.2, 0.05, 0, 0, 0.01],
}
DOUBLE = torch.float64


def camera_of(lens: str, focal=(1145.0, 1143.8)) -> Camera:
    return Camera(focal, (512.5, 515.4), (1000, 1002), LENSES[lens])


def tensors(*cameras: Camera):
    return read_intrinsics(np.stack([intrinsic_numbers(camera) for camera in cameras]), dtype=DOUBLE)


def visible_points(camera: Camera, count: int = 400) -> np.ndarray:
    """Points within the one-to-one part of the lens, to the widest angle there is."""
    random = np.random.default_rng(0)
    radius = min(np.sqrt(square_radius_limit(camera.distortion)), WIDEST) * np.sqrt(random.uniform(0, 1, count))
    angle, depth = random.uniform(0, 2 * np.pi, count), random.uniform(NEAREST, 9, count)
    return np.stack([radius * np.cos(angle) * depth, radius * np.sin(angle) * depth, depth], axis=-1)


@pytest.mark.parametrize("lens", LENSES)
def test_projection_is_the_cameras_wherever_it_sees(lens):
    camera = camera_of(lens)
    points = visible_points(camera)
    pixels = project(torch.from_numpy(points)[None, None], tensors(camera))[0, 0]
    np.testing.assert_allclose(pixels.numpy(), camera.project(points), rtol=2e-7, atol=2e-3)  # float32 intrinsics


def test_each_sample_has_its_own_camera():
    cameras = [camera_of(lens, (900.0 + 50 * number, 1000)) for number, lens in enumerate(LENSES)]
    points = np.random.default_rng(1).uniform([-1, -1, 3], [1, 1, 5], (len(cameras), 2, 5, 3))
    pixels = project(torch.from_numpy(points), tensors(*cameras))
    for one, camera, seen in zip(points, cameras, pixels, strict=True):
        np.testing.assert_allclose(seen.numpy(), camera.project(one), atol=1e-3)


def test_linear_projection_is_the_camera_without_its_lens():
    points = np.random.default_rng(1).uniform([-9, -9, 1], [9, 9, 5], (1, 2, 5, 3))
    pixels = linear_projection(torch.from_numpy(points), tensors(camera_of("Human3.6M")))
    np.testing.assert_allclose(pixels.numpy(), camera_of("none").project(points), atol=1e-2)


@pytest.mark.parametrize("function", [project, linear_projection])
@pytest.mark.parametrize("lens", LENSES)
def test_gradients_are_those_of_finite_differences(function, lens):
    cameras = tensors(camera_of(lens), camera_of("Human3.6M"))
    points = torch.from_numpy(np.random.default_rng(2).uniform([-2, -2, -2], [2, 2, 4], (2, 3, 4, 3))).requires_grad_()
    torch.autograd.gradcheck(lambda p: function(p, cameras) / 1000, [points], eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("lens", LENSES)
def test_values_and_gradients_are_bounded_where_no_lens_sees(lens):
    depths = [-1e3, -1.0, -1e-9, 0.0, 1e-9, 1e-3, NEAREST, 1.0]
    points = torch.tensor([[[[x, y, z] for z in depths for x in (-3.0, 0.0, 3.0) for y in (-3.0, 0.0, 3.0)]]])
    points.requires_grad_()
    screen = project(points, read_intrinsics(intrinsic_numbers(camera_of(lens))[None])) / 500
    screen.norm(dim=-1).sum().backward()
    assert screen.isfinite().all() and points.grad.isfinite().all()
    assert screen.abs().max() < 2e4 and points.grad.abs().max() < 2e4


def test_nearer_means_further_out_even_behind_the_camera():
    depth = torch.linspace(-2, 3, 401, dtype=DOUBLE)
    points = torch.stack([torch.ones_like(depth), torch.zeros_like(depth), depth], dim=-1)[None, None]
    for lens in ("none", "barrel that folds", "pincushion"):
        x = project(points, tensors(camera_of(lens)))[0, 0, :, 0]
        assert (x.diff() < 1e-9).all(), lens


def test_slopes_have_no_jump_at_the_nearest_depth():
    points = torch.tensor([[[[1.0, 0, NEAREST - 1e-9], [1.0, 0, NEAREST + 1e-9]]]], dtype=DOUBLE, requires_grad=True)
    pixels = linear_projection(points, tensors(camera_of("none")))
    pixels[..., 0].sum().backward()
    torch.testing.assert_close(*points.grad[0, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(*pixels.detach()[0, 0], rtol=1e-6, atol=0)


def test_wide_angles_keep_their_gradient():
    points = torch.tensor([[[[3.0, 0, 1.0]]]], dtype=DOUBLE, requires_grad=True)  # 72 degrees off the axis
    project(points, tensors(camera_of("none")))[..., 0].sum().backward()
    assert points.grad[0, 0, 0, 0] == pytest.approx(1145.0)


def test_focal_factors_scale_each_sample_about_its_center():
    cameras = tensors(camera_of("Human3.6M"), camera_of("pincushion"))
    points = torch.tensor([[[[0.3, -0.2, 3.0]]]] * 2, dtype=DOUBLE)
    factor = torch.tensor([1.0, 1.25], dtype=DOUBLE)
    centred = [project(points, one)[:, 0, 0] - one.center for one in (cameras, cameras.scaled(factor))]
    torch.testing.assert_close(centred[1], centred[0] * factor[:, None])


@pytest.mark.parametrize("values", [np.ones(9), np.ones((2, 8)), np.full((1, 9), np.nan)])
def test_wrong_intrinsics_are_refused_in_a_sentence(values):
    with pytest.raises(ValueError, match="expected finite rows of fx fy cx cy k1 k2 p1 p2 k3"):
        read_intrinsics(values)
