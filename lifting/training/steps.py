"""The training steps: pure functions from networks and batches to named losses, whose plain sum is trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lifting.skeletons import Skeleton
from lifting.training.config import Terms
from lifting.training.projection import Intrinsics, linear_projection, project
from lifting.training.temporal_losses import (
    bone_length_deviation,
    bone_length_error,
    mean_bone_lengths,
    mpjpe,
    reprojection_error,
    shared_joints,
    trajectory_error,
)


class Lifted(NamedTuple):
    """What the networks say of N samples: pose (N, T, J, 3) relative to the root, root (N, T, 3) or None, metres."""

    pose: Tensor
    root: Tensor | None

    def split(self, count: int) -> tuple[Lifted, Lifted]:
        """The first ``count`` samples and the others."""
        roots = (None, None) if self.root is None else (self.root[:count], self.root[count:])
        return Lifted(self.pose[:count], roots[0]), Lifted(self.pose[count:], roots[1])


class Labelled(NamedTuple):
    """The labelled half of a batch.

    keypoints (N, T + context, J_in, C) screen coordinates; joints (N, T, J_out, 3) and root (N, T, 3) metres, camera
    frame; valid (N, T) bool, the frames that count.
    """

    keypoints: Tensor
    joints: Tensor
    root: Tensor | None
    valid: Tensor


class Unlabelled(NamedTuple):
    """The unlabelled half: keypoints and valid as `Labelled`; pixels (N, T, J_in, 2), NaN unseen; width (N,) px."""

    keypoints: Tensor
    pixels: Tensor
    width: Tensor
    cameras: Intrinsics
    valid: Tensor


class Layouts(NamedTuple):
    """What the unlabelled terms know of the joints: bones (parent, child), and which joints to compare in 2D."""

    bones: tuple[tuple[int, int], ...]
    compared: tuple[list[int], list[int]]

    @classmethod
    def of(cls, skeleton_out: Skeleton, skeleton_in: Skeleton) -> Layouts:
        """Of lifted and 2D joints; SkeletonMismatch when they share too few names."""
        return cls(skeleton_out.bones, shared_joints(skeleton_out, skeleton_in))


Lift = Callable[[Tensor], Lifted]


def supervised_step(lift: Lift, batch: Labelled) -> dict[str, Tensor]:
    """Losses against labels: pose and, where there is a trajectory net, trajectory."""
    return supervised_losses(lift(batch.keypoints), batch)


def supervised_losses(lifted: Lifted, batch: Labelled) -> dict[str, Tensor]:
    """Of a lift of the batch."""
    losses = {"pose": mpjpe(lifted.pose, batch.joints, batch.valid)}
    if lifted.root is not None:
        losses["trajectory"] = trajectory_error(lifted.root, batch.root, batch.valid)
    return losses


def semi_step(lift: Lift, labelled: Labelled, unlabelled: Unlabelled, terms: Terms, layouts: Layouts,
              ) -> dict[str, Tensor]:
    """Losses of both halves from ONE forward pass, so that the batch norms see them together (the paper's figure 3)."""
    lifted = lift(torch.cat([labelled.keypoints, unlabelled.keypoints]))
    known, guessed = lifted.split(len(labelled.keypoints))
    losses = supervised_losses(known, labelled)
    if terms.projection:
        see = linear_projection if terms.linear_projection else project
        projected = see(guessed.pose + guessed.root[:, :, None], unlabelled.cameras)
        losses["projection"] = reprojection_error(projected, unlabelled.pixels, unlabelled.valid, unlabelled.width,
                                                  layouts.compared)
    if terms.bones:
        lengths = mean_bone_lengths(known.pose, labelled.valid, layouts.bones)
        losses["bones"] = bone_losses(lengths, guessed.pose, unlabelled.valid, terms.bone_norm, layouts.bones)
    return losses


def bone_losses(lengths: Tensor, pose: Tensor, valid: Tensor, norm: str, bones: tuple[tuple[int, int], ...]) -> Tensor:
    """The bone-length term of unlabelled poses (N, T, J, 3) against the labelled half's mean lengths (B,) metres."""
    if norm == "each":
        return bone_length_deviation(pose, valid, lengths.detach(), bones)
    return bone_length_error(lengths, mean_bone_lengths(pose, valid, bones), norm)
