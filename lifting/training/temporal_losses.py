"""Losses of the temporal model: pure functions of tensors, each the mean over the batch of all ranks.

Pavllo, Feichtenhofer, Grangier and Auli, "3D human pose estimation in video with temporal convolutions and
semi-supervised training", CVPR 2019, section 4, with what the released code adds: all terms have weight 1. Lengths are
in metres, reprojection errors in screen coordinates (x/w * 2 - 1: half image widths).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lifting.skeletons import Skeleton, SkeletonMismatch, joint_map
from lifting.training.distributed import mean_over_ranks

BONE_NORMS = ("absolute", "squared", "each")
FEWEST_SHARED = 8  # joints of the same name that fix pose and place of a body: less leaves limbs free
NEAREST_ROOT = 0.1  # metres: keeps 1/depth of a broken label from ruling a batch


def mpjpe(pose: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Mean per-joint position error, metres, of poses (N, T, J, 3) in the valid frames (N, T) ("protocol 1")."""
    return mean_over_ranks(_distance(pose, truth).mean(-1).flatten(), valid.flatten())


def trajectory_error(root: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Mean error of the root's trajectory (N, T, 3) metres times 1 / true depth, in the valid frames (N, T).

    Section 4, "Trajectory model": far away, depth is hard to tell, and matters less for the projection.
    """
    weight = 1 / truth[..., 2].clamp_min(NEAREST_ROOT)
    return mean_over_ranks((weight * _distance(root, truth)).flatten(), valid.flatten())


def reprojection_error(projected: Tensor, pixels: Tensor, valid: Tensor, width: Tensor,
                       joints: tuple[list[int], list[int]]) -> Tensor:
    """Mean 2D distance, screen coordinates, between projected joints and the keypoints of the same name.

    projected: (N, T, J_out, 2) px; pixels: (N, T, J_in, 2) px, NaN where unseen, which does not count; valid: (N, T);
    width: (N,) px; joints: which joints of both to compare, as `shared_joints` gives them.
    """
    predicted, seen = projected[..., joints[0], :], pixels[..., joints[1], :]
    known = seen.isfinite().all(-1) & valid[..., None]
    error = _distance(predicted, torch.where(known[..., None], seen, 0.0))
    screen = error * (2 / width)[:, None, None]
    return mean_over_ranks(screen.flatten(), known.to(screen.dtype).flatten())


def shared_joints(skeleton_out: Skeleton, skeleton_in: Skeleton) -> tuple[list[int], list[int]]:
    """Numbers, in either, of the joints that both layouts call the same and mean alike; never compared by number.

    A name that the map between the layouts fills from other joints means something else. Raises SkeletonMismatch, a
    ValueError, when they share too few for back-projection to mean anything.
    """
    mapping = joint_map(skeleton_in, skeleton_out, optional=skeleton_out.joints)
    names = [name for name, row in zip(skeleton_out.joints, mapping.weights, strict=True)
             if name in skeleton_in.joints and row[skeleton_in.index(name)] == 1]
    if len(names) < FEWEST_SHARED:
        raise SkeletonMismatch(
            f"the layouts {skeleton_out.name!r} (3D) and {skeleton_in.name!r} (2D) share {len(names)} joint names, "
            f"back-projection needs {FEWEST_SHARED} or more; map the keypoints first, or train without projection."
        )
    return list(skeleton_out.indices(names)), list(skeleton_in.indices(names))


def mean_bone_lengths(pose: Tensor, valid: Tensor, bones: tuple[tuple[int, int], ...]) -> Tensor:
    """Mean length (B,) metres of each bone (parent, child) of the poses (N, T, J, 3) in the valid frames (N, T)."""
    lengths = _lengths(pose, bones)
    return mean_over_ranks(lengths, valid.flatten()[:, None].expand_as(lengths))


def bone_length_deviation(pose: Tensor, valid: Tensor, lengths: Tensor, bones: tuple[tuple[int, int], ...]) -> Tensor:
    """Mean over frames and bones of how far the poses' bones (N, T, J, 3) are from given lengths (B,) metres.

    Not in the paper: where only means of a batch are held, bones may be too long in one frame and too short in the
    next; together with the projection a length in every frame tells the depth of its bone but for the sign.
    """
    return mean_over_ranks((_lengths(pose, bones) - lengths).abs().mean(-1), valid.flatten())


def bone_length_error(labelled: Tensor, unlabelled: Tensor, norm: str = "absolute") -> Tensor:
    """Mean over bones of the difference between two sets' mean bone lengths (B,) metres.

    norm: ``absolute`` as the paper's released code, or ``squared``. Raises ValueError for another one.
    """
    if norm not in ("absolute", "squared"):
        raise ValueError(f"the norm of mean bone lengths is {norm!r}, expected one of absolute, squared.")
    difference = labelled - unlabelled
    return (difference.abs() if norm == "absolute" else difference.square()).mean()


def _lengths(pose: Tensor, bones: tuple[tuple[int, int], ...]) -> Tensor:
    """Lengths (N T, B) of the bones of poses (N, T, J, 3)."""
    parents, children = (list(ends) for ends in zip(*bones, strict=True))
    return _distance(pose[..., children, :], pose[..., parents, :]).flatten(0, -2)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distance over the last axis; its gradient at zero is zero."""
    return torch.linalg.vector_norm(a - b, dim=-1)
