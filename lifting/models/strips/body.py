"""Joints of the bodies that strips tell: forward kinematics of an embedded body, with gradients."""

from __future__ import annotations

from torch import Tensor, nn

from lifting.body.model import BodyModel
from lifting.body.torch_model import PosedBones, TorchBody
from lifting.models.strips.readout import BodyState


class StripBody(nn.Module):
    """A body model that is posed by a `BodyState`; without parameters."""

    def __init__(self, body: BodyModel) -> None:
        super().__init__()
        self.body = TorchBody(body)

    def joints(self, state: BodyState) -> Tensor:
        """H36M-17 points (..., 17, 3) in metres relative to the root, in the heading of the state."""
        points = self.body.points("h36m17", self.posed(state))
        return points - points[..., :1, :]

    def vertices(self, state: BodyState, subset: Tensor | None = None) -> Tensor:
        """Skinned vertices (..., V, 3) in metres relative to the root, in the heading of the state."""
        posed = self.posed(state)
        return self.body.vertices(posed, subset) - self.body.points("h36m17", posed)[..., :1, :]

    def posed(self, state: BodyState) -> PosedBones:
        """The bones, joint 0 of the body at the origin."""
        return self.body(state.rotations, state.rotations.new_zeros(state.rotations.shape[:-3] + (3,)), state.shape)
