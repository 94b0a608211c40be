"""Body models in torch: the same kinematics, points and vertices as `lifting.body.model`, with gradients and on a GPU.

Everything works on any leading axes. Rotations and trajectory share them, (..., K, 3, 3) and (..., 3); shape
coefficients (..., S) broadcast against them: (S,) for one person, (P, 1, S) for P people over T frames. Metres and
radians.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lifting.body.model import BodyModel
from lifting.body.points import PointSet
from lifting.meshes import joint_levels
from lifting.skeletons import Skeleton


class PosedBones(NamedTuple):
    """Bones of a body, what `TorchBody.forward` returns.

    rotations and global_rotations: (..., K, 3, 3), local and bone axes to the frame. joints: (..., K, 3) metres in the
    frame. rest_joints: (..., K, 3) metres at rest, with the leading axes of shape. shape: (..., S).
    """

    rotations: Tensor
    global_rotations: Tensor
    joints: Tensor
    rest_joints: Tensor
    shape: Tensor


class TorchBody(nn.Module):
    """A body model as a torch module without parameters; `to` moves it to a device or another precision.

    Its arrays are buffers that checkpoints leave out: a network that contains it saves no body.
    """

    def __init__(self, body: BodyModel, dtype: torch.dtype = torch.float32, device: str | torch.device | None = None):
        """Copy the arrays of `body`; point sets follow when they are first asked for."""
        super().__init__()
        self.body = body
        self._register_levels(device)
        arrays = {"joint_template": body.joint_template, "joint_directions": body.joint_directions,
                  "template": body.template, "shape_directions": body.shape_directions,
                  "skin_weights": body.skin_weights.toarray()}
        if body.pose_directions is not None:
            arrays["pose_directions"] = body.pose_directions
        for name, array in arrays.items():
            self.register_buffer(name, torch.tensor(array, dtype=dtype, device=device), persistent=False)
        self._point_sets = nn.ModuleDict()

    def forward(self, rotations: Tensor, trajectory: Tensor, shape: Tensor | None = None) -> PosedBones:
        """Forward kinematics.

        rotations: (..., K, 3, 3) local matrices or (..., K, 3) rotation vectors; trajectory: (..., 3), position of
        joint 0; shape: (..., S), None is the mean shape. Raises ValueError for other shapes.
        """
        bones, leading = self.body.num_joints, tuple(trajectory.shape[:-1])
        if tuple(rotations.shape) == (*leading, bones, 3):
            rotations = rotvec_to_matrix(rotations)
        if tuple(rotations.shape) != (*leading, bones, 3, 3) or trajectory.shape[-1:] != (3,):
            raise ValueError(f"got rotations {tuple(rotations.shape)} and a trajectory {tuple(trajectory.shape)}, "
                             f"expected (..., {bones}, 3, 3) or (..., {bones}, 3) and (..., 3) with the same leading "
                             "axes.")
        shape = trajectory.new_zeros(self.body.num_shape) if shape is None else shape
        if shape.shape[-1:] != (self.body.num_shape,):
            raise ValueError(f"got shape coefficients {tuple(shape.shape)}, expected (..., {self.body.num_shape}).")
        rest = self.joint_template + _directed(self.joint_directions, shape)
        turned, joints = [rotations[..., :1, :, :]], [trajectory[..., None, :]]
        for level, parents, above in self._levels():
            carrier = turned[-1][..., above, :, :]
            arms = rest[..., level, :] - rest[..., parents, :]
            turned.append(carrier @ rotations[..., level, :, :])
            joints.append(joints[-1][..., above, :] + (carrier @ arms[..., None])[..., 0])
        order = self._order
        return PosedBones(rotations, torch.cat(turned, dim=-3).index_select(-3, order),
                          torch.cat(joints, dim=-2).index_select(-2, order), rest, shape)

    def _register_levels(self, device: str | torch.device | None) -> None:
        """Buffers of joint numbers: of each level below the root, its parents, their places in the level above."""
        levels = joint_levels(self.body.parents)
        parents = np.array(self.body.parents)
        numbers = {"_order": np.argsort(np.concatenate(levels))}  # where a joint stands in the list of levels
        for depth, (above, level) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
            place = np.argsort(above)[np.searchsorted(np.sort(above), parents[level])]
            numbers |= {f"_level{depth}": level, f"_parents{depth}": parents[level], f"_above{depth}": place}
        self._depth = len(levels) - 1
        for name, array in numbers.items():
            self.register_buffer(name, torch.tensor(array, dtype=torch.long, device=device), persistent=False)

    def _levels(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for depth in range(self._depth):
            yield tuple(getattr(self, f"{name}{depth}") for name in ("_level", "_parents", "_above"))

    def points(self, layout: str | Skeleton | PointSet, posed: PosedBones) -> Tensor:
        """The points (..., J, 3) of a layout in metres in the frame, without skinning; see `BodyModel.point_set`.

        Raises ValueError with the known layouts for another.
        """
        points = layout if isinstance(layout, PointSet) else self.body.point_set(layout)
        key = f"set{id(points)}"
        if key not in self._point_sets or self._point_sets[key].source is not points:  # a copied module keeps old keys
            self._point_sets[key] = _TorchPoints(points).to(self.template)
        return self._point_sets[key](posed)

    def vertices(self, posed: PosedBones, subset: Tensor | np.ndarray | None = None) -> Tensor:
        """Skinned vertices (..., V, 3) in metres in the frame, or those numbered in `subset`."""
        chosen = slice(None) if subset is None else torch.as_tensor(subset, device=self.template.device)
        weights = self.skin_weights[chosen]
        rest = self.template[chosen] + _directed(self.shape_directions[chosen], posed.shape)
        homogeneous = torch.cat([rest, torch.ones_like(rest[..., :1])], dim=-1)
        matrix = (weights[:, :, None] * homogeneous[..., :, None, :]).flatten(-2).transpose(-1, -2)  # (..., 4K, V)
        shift = posed.joints - (posed.global_rotations @ posed.rest_joints[..., None])[..., 0]
        transforms = torch.cat([posed.global_rotations, shift[..., None]], dim=-1)
        skinned = _product(_side_by_side(transforms), matrix).transpose(-1, -2)
        if self.body.pose_directions is None:
            return skinned
        directions = self.pose_directions[chosen]
        moved = (_pose_features(posed) @ directions.flatten(0, 1).T).unflatten(-1, (-1, 3))
        blended = (weights @ posed.global_rotations.flatten(-2)).unflatten(-1, (3, 3))
        return skinned + (blended @ moved[..., None])[..., 0]


class _TorchPoints(nn.Module):
    """The linear forms of a PointSet; see `lifting.body.points`."""

    def __init__(self, points: PointSet):
        super().__init__()
        self.source = points  # kept alive: its id is the key
        self.has_pose = points.pose_directions is not None
        arrays = {"offsets": points.offsets, "offset_directions": points.offset_directions,
                  "total_weights": points.total_weights}
        if self.has_pose:
            sums = points.pose_points == np.arange(points.num_points)[:, None]
            arrays |= {"pose_directions": points.pose_directions, "pose_sums": sums}
            self.register_buffer("pose_bones", torch.tensor(points.pose_bones, dtype=torch.long), persistent=False)
        for name, array in arrays.items():
            self.register_buffer(name, torch.tensor(array, dtype=torch.float64), persistent=False)

    def forward(self, posed: PosedBones) -> Tensor:
        forms = self.offsets + _directed(self.offset_directions, posed.shape)
        points = _product(_side_by_side(posed.global_rotations), forms.flatten(-2).transpose(-1, -2)).transpose(-1, -2)
        points = points + self.total_weights[:, None] * posed.joints[..., :1, :]
        if not self.has_pose:
            return points
        moved = (_pose_features(posed) @ self.pose_directions.flatten(0, 1).T).unflatten(-1, (-1, 3))
        carried = posed.global_rotations[..., self.pose_bones, :, :] @ moved[..., None]
        return points + self.pose_sums @ carried[..., 0]


def rotvec_to_matrix(rotvec: Tensor) -> Tensor:
    """Rotation vectors (..., 3) in radians to matrices (..., 3, 3) by Rodrigues' formula; gradients are finite at 0."""
    squared = (rotvec * rotvec).sum(dim=-1)[..., None, None]
    small = squared < 1e-8
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    first = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - squared / 24, 2 * ((angle / 2).sin() / angle) ** 2)
    x, y, z = rotvec.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=rotvec.dtype, device=rotvec.device) + first * cross + second * (cross @ cross)


def _directed(directions: Tensor, shape: Tensor) -> Tensor:
    """directions (N..., S) times shape (..., S) as (..., N...)."""
    return (shape @ directions.flatten(0, -2).T).unflatten(-1, directions.shape[:-1])


def _side_by_side(matrices: Tensor) -> Tensor:
    """(..., K, 3, C) as (..., 3, K C)."""
    return matrices.transpose(-3, -2).flatten(-2)


def _pose_features(posed: PosedBones) -> Tensor:
    """(..., 9 (K - 1)): what pose blendshapes are linear in."""
    eye = torch.eye(3, dtype=posed.rotations.dtype, device=posed.rotations.device)
    return (posed.rotations[..., 1:, :, :] - eye).flatten(-3)


def _product(stack: Tensor, matrix: Tensor) -> Tensor:
    """``stack @ matrix`` for (..., T, R, M) and (M, N) or (..., 1, M, N), without a copy of matrix for every frame."""
    if matrix.dim() == 2 or stack.dim() != matrix.dim() or matrix.shape[-3] != 1:
        return stack @ matrix
    folded = stack.flatten(-3, -2) @ matrix.squeeze(-3)
    return folded.unflatten(-2, stack.shape[-3:-1])
