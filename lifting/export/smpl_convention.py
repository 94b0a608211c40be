"""Motion of a body that is not SMPL's, told so that the tools around SMPL pose theirs alike.

SMPL's rest pose is a T-pose; another body may rest otherwise. Between the two lies a constant rotation ``O_k`` per
joint, the rest offset, which turns joint k and what it carries from the body's rest pose to SMPL's. The local rotations
of SMPL are then ``O_parent R_k O_k^T``, the root's ``R_0 O_0^T``. SMPL's joint 0 lies higher in the body than that of
others: the middles of the hips are laid together instead, so that what remains at the feet is the difference of the
legs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lifting.keypoints import as_float_array, set_fields
from lifting.meshes import SkinnedMesh
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix

# Metres, of SMPL's mean shape at rest, to the centimetre: joint 0, and the middle of the hips from there.
SMPL_ROOT, SMPL_HIPS = np.array([0.0, -0.22, 0.03]), np.array([0.0, -0.09, -0.01])


@dataclass(frozen=True, eq=False)
class SmplConvention:
    """What leads from a body of K joints to SMPL's and back.

    Attributes:
        parents: K joint numbers, -1 for joint 0.
        offsets: (K, 3) rotation vectors, the rest offsets to SMPL's rest pose.
        hips: (3,) metres from joint 0 to the middle of the hips at rest.

    Raises ValueError for arrays that do not fit together.
    """

    parents: tuple[int, ...]
    offsets: np.ndarray
    hips: np.ndarray

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        parents = tuple(int(parent) for parent in self.parents)
        if not parents or not all(0 <= parent < len(parents) for parent in parents[1:]):
            raise ValueError(f"got parents {list(parents)}, expected -1 and then joint numbers below {len(parents)}.")
        set_fields(self, parents=parents, hips=as_float_array(self.hips, "hips", (3,), np.float64),
                   offsets=as_float_array(self.offsets, "offsets", (len(parents), 3), np.float64))

    @classmethod
    def of_mesh(cls, mesh: SkinnedMesh) -> SmplConvention | None:
        """What leads from the body of a mesh to SMPL's; None where the mesh has no rest offsets."""
        if mesh.smpl_offsets is None:
            return None
        rest = mesh.rest_joints.astype(np.float64)
        sides = [rest[mesh.joints.index(f"{side}_hip")] for side in ("left", "right")]
        return cls(mesh.parents, mesh.smpl_offsets, np.mean(sides, axis=0) - rest[0])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SmplConvention:
        """What `to_dict` gave; KeyError or ValueError for anything else."""
        return cls(values["parents"], values["offsets"], values["hips"])

    def to_dict(self) -> dict[str, Any]:
        """The fields as lists, for JSON."""
        return {"parents": list(self.parents), "offsets": self.offsets.tolist(), "hips": self.hips.tolist()}

    def to_smpl(self, rotations: np.ndarray, trajectory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotation vectors (T, K, 3) and translations (T, 3) of SMPL from those of the body and the path of joint 0."""
        turns = rotvec_to_matrix(self.offsets)
        whole = rotvec_to_matrix(rotations)
        local = whole @ turns.swapaxes(-1, -2)
        local[:, 1:] = turns[list(self.parents[1:])] @ local[:, 1:]
        hips = trajectory + whole[:, 0] @ self.hips
        return matrix_to_rotvec(local), hips - local[:, 0] @ SMPL_HIPS - SMPL_ROOT

    def from_smpl(self, rotations: np.ndarray, translations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `to_smpl` gave turned back."""
        turns = rotvec_to_matrix(self.offsets)
        whole = rotvec_to_matrix(rotations)
        local = whole @ turns
        local[:, 1:] = turns[list(self.parents[1:])].swapaxes(-1, -2) @ local[:, 1:]
        hips = translations + SMPL_ROOT + whole[:, 0] @ SMPL_HIPS
        return matrix_to_rotvec(local), hips - local[:, 0] @ self.hips
