"""The torch body: equal to numpy's, differentiable, on any leading axes."""

from __future__ import annotations

import numpy as np
import pytest
from small_body import random_pose, small_body

torch = pytest.importorskip("torch")

from lifting.body.torch_model import TorchBody, rotvec_to_matrix  # noqa: E402
from lifting.rotations import rotvec_to_matrix as rotvec_to_matrix_numpy  # noqa: E402

LAYOUT = "coco17_feet"


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "pose blendshapes"])
def body(request):
    return small_body(pose=request.param)


def tensors(*arrays, dtype=torch.float64):
    return [torch.tensor(array, dtype=dtype) for array in arrays]


def test_equals_numpy_in_double_precision(body):
    pose = random_pose(body, 6)
    module = TorchBody(body, torch.float64)
    posed, expected = module(*tensors(*pose)), body.kinematics(*pose)
    np.testing.assert_allclose(posed.global_rotations, expected.global_rotations, atol=1e-12)
    np.testing.assert_allclose(posed.joints, expected.joints, atol=1e-12)
    np.testing.assert_allclose(module.vertices(posed), body.vertices(*pose), atol=1e-10)
    for layout in body.layouts:
        np.testing.assert_allclose(module.points(layout, posed), body.points(layout, *pose), atol=1e-10)


def test_equals_numpy_in_single_precision_within_micrometres(body):
    pose = random_pose(body, 6)
    module = TorchBody(body)
    posed = module(*tensors(*pose, dtype=torch.float32))
    assert posed.joints.dtype == module.vertices(posed).dtype == torch.float32
    np.testing.assert_allclose(module.vertices(posed), body.vertices(*pose), atol=1e-5)
    np.testing.assert_allclose(module.points(LAYOUT, posed), body.points(LAYOUT, *pose), atol=1e-5)


def test_subset_and_mean_shape(body):
    rotations, trajectory, _ = random_pose(body, 3)
    module, chosen = TorchBody(body, torch.float64), np.array([7, 3, 200])
    posed = module(*tensors(rotations, trajectory))
    expected = body.vertices(rotations, trajectory)[:, chosen]
    np.testing.assert_allclose(module.vertices(posed, chosen), expected, atol=1e-10)


def test_people_of_different_shapes_in_one_batch(body):
    people = [random_pose(body, 4, seed) for seed in range(3)]
    rotations, trajectory, shape = tensors(*(np.stack(arrays) for arrays in zip(*people, strict=True)))
    module = TorchBody(body, torch.float64)
    posed = module(rotations, trajectory, shape[:, None])
    points, vertices = module.points("h36m17", posed), module.vertices(posed)
    assert points.shape == (3, 4, 17, 3)
    for i, pose in enumerate(people):
        np.testing.assert_allclose(points[i], body.points("h36m17", *pose), atol=1e-10)
        np.testing.assert_allclose(vertices[i], body.vertices(*pose), atol=1e-10)
    per_frame = module(rotations, trajectory, shape[:, None].expand(3, 4, -1))
    np.testing.assert_allclose(module.points("h36m17", per_frame), points, atol=1e-12)
    np.testing.assert_allclose(module.vertices(per_frame), vertices, atol=1e-10)
    single = module(rotations[0, 0], trajectory[0, 0], shape[0])
    np.testing.assert_allclose(module.vertices(single), vertices[0, 0], atol=1e-10)


def test_gradients_equal_the_analytic_jacobian(body):
    rotations, trajectory, shape = random_pose(body, 1)
    matrices = rotvec_to_matrix_numpy(rotations)
    _, d_rotation, d_shape = body.point_set(LAYOUT).jacobian(body.kinematics(matrices, trajectory, shape), shape)
    module = TorchBody(body, torch.float64)
    base, position, coefficients = tensors(matrices, trajectory, shape)

    def points(step, moved, beta):
        posed = module(base @ rotvec_to_matrix(step[None]), moved, beta)
        return module.points(LAYOUT, posed)[0]

    step = torch.zeros(body.num_joints, 3, dtype=torch.float64)
    by_step, by_position, by_shape = torch.autograd.functional.jacobian(points, (step, position, coefficients))
    np.testing.assert_allclose(by_step.flatten(2), d_rotation[0], atol=1e-12)
    np.testing.assert_allclose(by_shape, d_shape[0], atol=1e-12)
    expected = body.point_set(LAYOUT).total_weights[:, None, None] * np.eye(3)
    np.testing.assert_allclose(by_position[:, :, 0], expected, atol=1e-12)


def test_gradients_of_vertices_are_right(body):
    rotations, trajectory, shape = tensors(*random_pose(body, 1))
    module, chosen = TorchBody(body, torch.float64), np.array([5, 120])
    inputs = [value.requires_grad_() for value in (rotations, trajectory, shape)]
    assert torch.autograd.gradcheck(lambda *pose: module.vertices(module(*pose), chosen), inputs, fast_mode=True)


def test_rotation_vectors_near_zero_keep_values_and_gradients():
    vectors = np.array([[0, 0, 0], [1e-9, 0, 0], [0, 1e-4, 0], [0, 9e-5, 1e-5], [1, -2, 0.5], [0, 0, np.pi]])
    tensor = torch.tensor(vectors, requires_grad=True)
    matrices = rotvec_to_matrix(tensor)
    np.testing.assert_allclose(matrices.detach(), rotvec_to_matrix_numpy(vectors), atol=1e-14)
    (gradient,) = torch.autograd.grad(matrices[:, 2, 1].sum(), tensor)
    assert gradient.isfinite().all()
    np.testing.assert_allclose(gradient[0], [1, 0, 0], atol=1e-15)


def test_a_checkpoint_holds_no_body(body):
    module = TorchBody(body)
    module.points(LAYOUT, module(*tensors(*random_pose(body, 1), dtype=torch.float32)))
    assert not module.state_dict() and not list(module.parameters())


def test_precision_follows_the_module(body):
    module = TorchBody(body)
    single = tensors(*random_pose(body, 1), dtype=torch.float32)
    module.points(LAYOUT, module(*single))
    pose = tensors(*random_pose(body, 1))
    points = module.double().points(LAYOUT, module(*pose))
    assert points.dtype == torch.float64
    np.testing.assert_allclose(points, body.points(LAYOUT, *random_pose(body, 1)), atol=1e-5)


def test_wrong_shapes_are_refused(body):
    module, (rotations, trajectory, shape) = TorchBody(body), tensors(*random_pose(body, 2), dtype=torch.float32)
    with pytest.raises(ValueError, match=r"got rotations \(2, 21, 3\)"):
        module(rotations[:, 1:], trajectory)
    with pytest.raises(ValueError, match="same leading axes"):
        module(rotations[:1], trajectory)
    with pytest.raises(ValueError, match=r"shape coefficients \(3,\), expected \(..., 4\)"):
        module(rotations, trajectory, shape[:3])
    with pytest.raises(ValueError, match="has no regressor for 'body25'; it has h36m17, coco17_feet"):
        module.points("body25", module(rotations, trajectory))
