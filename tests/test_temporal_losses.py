"""Losses of the temporal model against numpy, by hand, and against the metrics of the same name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lifting import metrics
from lifting.skeletons import Skeleton, SkeletonMismatch, get_skeleton
from lifting.training.temporal_losses import (
    bone_length_deviation,
    bone_length_error,
    mean_bone_lengths,
    mpjpe,
    reprojection_error,
    shared_joints,
    trajectory_error,
)

pytestmark = pytest.mark.usefixtures("one_thread")
H36M = get_skeleton("h36m17")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def everything(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def test_mpjpe_is_the_metric():
    pose, truth = random(4, 3, 17, 3), random(4, 3, 17, 3, seed=1)
    loss = mpjpe(pose, truth, everything(4, 3))
    assert loss.item() == pytest.approx(metrics.mpjpe(pose.numpy(), truth.numpy()))


def test_frames_that_are_not_valid_do_not_count():
    pose, truth, root = random(2, 2, 17, 3), random(2, 2, 17, 3, seed=1), random(2, 2, 3) + 5
    valid = torch.tensor([[True, False], [True, True]])
    cut = pose.clone()
    cut[0, 1] = 1e6
    assert mpjpe(cut, truth, valid).item() == pytest.approx(metrics.mpjpe(pose[valid].numpy(), truth[valid].numpy()))
    one = trajectory_error(root[valid][None], 5 + root[valid][None], everything(1, 3))
    assert trajectory_error(root, 5 + root, valid).item() == pytest.approx(one.item())
    lengths = mean_bone_lengths(cut, valid, H36M.bones)
    torch.testing.assert_close(lengths, mean_bone_lengths(pose[valid][None], everything(1, 3), H36M.bones))


def test_batches_without_a_valid_frame_give_zero_and_no_gradient():
    pose = random(2, 1, 17, 3).requires_grad_()
    loss = mpjpe(pose, pose.detach() + 1, ~everything(2, 1))
    loss.backward()
    assert loss.item() == 0 and not pose.grad.any()


def test_trajectory_errors_weigh_less_far_away():
    truth = torch.tensor([[[0.0, 0, 2.0]], [[0, 0, 8.0]]])
    root = truth + torch.tensor([0.3, 0, 0.4])
    assert trajectory_error(root, truth, everything(2, 1)).item() == pytest.approx((0.5 / 2 + 0.5 / 8) / 2)
    broken = torch.zeros(1, 1, 3)  # a label in the camera itself
    assert trajectory_error(broken + 1, broken, everything(1, 1)).isfinite()


def test_perfect_predictions_have_no_loss_and_finite_gradients():
    pose, root = random(2, 1, 17, 3).requires_grad_(), (random(2, 1, 3) + 5).requires_grad_()
    total = mpjpe(pose, pose.detach(), everything(2, 1)) + trajectory_error(root, root.detach(), everything(2, 1))
    total.backward()
    assert total.item() == 0 and pose.grad.isfinite().all() and root.grad.isfinite().all()


def test_reprojection_compares_joints_of_the_same_name_in_screen_units():
    coco = get_skeleton("coco17")
    out_joints, in_joints = shared_joints(H36M, coco)
    names = [H36M.joints[number] for number in out_joints]
    assert names == [coco.joints[number] for number in in_joints] and len(names) == 12
    projected, pixels = 500 + 100 * random(2, 3, 17, 2), 500 + 100 * random(2, 3, 17, 2, seed=1)
    width = torch.tensor([1000.0, 2000.0], dtype=torch.float64)
    expected = np.mean([2 / width[n] * (projected[n, t, H36M.index(name)] - pixels[n, t, coco.index(name)]).norm()
                        for n in range(2) for t in range(3) for name in names])
    loss = reprojection_error(projected, pixels, everything(2, 3), width, (out_joints, in_joints))
    assert loss.item() == pytest.approx(expected.item())


def test_unseen_keypoints_do_not_count_and_give_no_gradient():
    both = shared_joints(H36M, H36M)
    projected, pixels = random(1, 2, 17, 2).requires_grad_(), torch.zeros(1, 2, 17, 2, dtype=torch.float64)
    pixels[:, :, 3:] = torch.nan
    valid = torch.tensor([[True, False]])
    loss = reprojection_error(projected, pixels, valid, torch.tensor([2.0]), both)
    loss.backward()
    assert loss.item() == pytest.approx(projected[0, 0, :3].norm(dim=-1).mean().item())
    assert projected.grad.isfinite().all()
    assert not projected.grad[0, 0, 3:].any() and not projected.grad[0, 1].any() and projected.grad[0, 0, :3].all()


def test_layouts_that_share_too_little_are_refused():
    other = Skeleton("own", ("left_a", "right_a", "middle"), (2, 2, -1))
    with pytest.raises(SkeletonMismatch, match="'h36m17' .3D. and 'own' .2D. share 0 joint names"):
        shared_joints(H36M, other)


@pytest.mark.parametrize("layout", ["coco17", "halpe26", "body25", "mpii16", "humaneva15", "lift17", "h36m17"])
def test_every_usual_layout_can_be_compared(layout):
    out_joints, in_joints = shared_joints(H36M, get_skeleton(layout))
    assert [H36M.joints[a] for a in out_joints] == [get_skeleton(layout).joints[b] for b in in_joints]
    assert len(out_joints) >= 8 and (layout != "h36m17" or out_joints == list(range(17)))


def test_bone_lengths_are_means_of_each_bone():
    pose = random(3, 2, 17, 3)
    lengths = mean_bone_lengths(pose, everything(3, 2), H36M.bones)
    for (parent, child), length in zip(H36M.bones, lengths, strict=True):
        expected = np.linalg.norm(pose[:, :, child] - pose[:, :, parent], axis=-1).mean()
        assert length.item() == pytest.approx(expected)


def test_bone_terms_compare_means_not_poses():
    ours, theirs = torch.tensor([0.5, 0.25, 0.1]), torch.tensor([0.4, 0.5, 0.1])
    assert bone_length_error(ours, theirs).item() == pytest.approx((0.1 + 0.25) / 3)
    assert bone_length_error(ours, theirs, "squared").item() == pytest.approx((0.01 + 0.0625) / 3)
    turned = random(4, 1, 17, 3)
    rotated = turned.flip(0)[..., [1, 2, 0]]  # other poses with the same bones
    means = [mean_bone_lengths(pose, everything(4, 1), H36M.bones) for pose in (turned, rotated)]
    assert bone_length_error(*means).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="expected one of absolute, squared"):
        bone_length_error(ours, theirs, "cubed")


def test_bones_of_each_frame_are_held_not_only_their_mean():
    """A slow twin, on poses that are too long in one frame and as much too short in the next."""
    pose = torch.randn(2, 3, 17, 3, generator=torch.Generator().manual_seed(0)).double()
    pose = torch.cat([1.1 * pose, 0.9 * pose], 1)
    valid = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1]], dtype=torch.bool)
    lengths = mean_bone_lengths(pose, valid, H36M.bones)
    expected = [
        abs(np.linalg.norm(frame[child] - frame[parent]) - lengths[bone].item())
        for frame in pose[valid].numpy() for bone, (parent, child) in enumerate(H36M.bones)
    ]
    deviation = bone_length_deviation(pose, valid, lengths, H36M.bones)
    assert deviation.item() == pytest.approx(np.mean(expected)) and deviation > 0.1
    assert bone_length_error(lengths, lengths).item() == 0
