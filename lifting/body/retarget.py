"""Rotations of motion capture turned into rotations of a body: the change from one rest pose to another.

The 24-joint rotations of `mocap_rot24.h5` (see `lifting.datasets.mocap`) are relative to a T-pose with world-aligned
axes. A body at rest stands otherwise: the embedded one in an A-pose with bent elbows. Between the two lies a constant
rotation `O_k` per joint, the *rest offset*: it turns joint k and what it carries from the body's rest pose into the
T-pose. With global rotations `G` of the capture, those of the body are `G_k O_k`, so its local rotations are

    R_k = O_parent^T R_k(capture) O_k,        R_0 = R_0(capture) O_0.

Rest offsets were fitted once for the embedded body (`experiments.fit_body_regressors`) and lie in
``body.extras["mocap_rest_offsets"]`` as (K, 3) rotation vectors in the body's rest axes; other bodies get geometric
ones, which make limbs straight and nothing more. The T-pose of SMPL is another one: see `smpl_rest_offsets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lifting.rotations import matrix_to_rotvec, rotation_between, rotvec_to_matrix
from lifting.skeletons import get_skeleton

if TYPE_CHECKING:
    from lifting.body.model import BodyModel

Direction = tuple[float, float, float]
OFFSETS_KEY = "mocap_rest_offsets"
"""Key of ``BodyModel.extras``: (K, 3) rotation vectors, radians, in the rest axes of the body."""

# Joint -> (the joint at the far end of its bone, direction of that bone in the T-pose: X to the person's left, Y up).
_T_POSE = {
    "hip": ("knee", (0.0, -1.0, 0.0)),
    "knee": ("ankle", (0.0, -1.0, 0.0)),
    "shoulder": ("elbow", (1.0, 0.0, 0.0)),
    "elbow": ("wrist", (1.0, 0.0, 0.0)),
}

# The same in the rest pose of SMPL's mean shape, to two decimals: legs a little apart, arms a little back.
_SMPL_REST = {
    "hip": ("knee", (0.09, -1.0, -0.01)),
    "knee": ("ankle", (-0.03, -0.99, -0.11)),
    "shoulder": ("elbow", (0.99, -0.05, -0.11)),
    "elbow": ("wrist", (1.0, 0.04, 0.0)),
}


def body_rotations_from_mocap(body: BodyModel, rotations) -> np.ndarray:
    """Turn the local rotations of a capture into those of a body.

    Args:
        body: a body whose joints are among those of `smpl24` and whose rest axes are Y up, +Z forward.
        rotations: (T, 24, 3) rotation vectors in the joint order of `smpl24`, relative to the T-pose, world Y up.

    Returns:
        (T, K, 3) float64 local rotation vectors of the body, joint 0 in the same Y-up world.

    Raises ValueError for another shape, or a body with other joints or axes.
    """
    rotations = np.asarray(rotations, dtype=np.float64)
    if rotations.ndim != 3 or rotations.shape[1:] != (24, 3):
        raise ValueError(f"rotations have shape {rotations.shape}, expected (T, 24, 3) rotation vectors of smpl24.")
    columns = _columns(body)
    offsets = rotvec_to_matrix(mocap_rest_offsets(body))
    local = rotvec_to_matrix(rotations[:, columns]) @ offsets
    parents = np.asarray(body.parents)
    local[:, 1:] = np.swapaxes(offsets, -1, -2)[parents[1:]] @ local[:, 1:]
    return matrix_to_rotvec(local)


def trajectory_from_hips(body: BodyModel, rotations, hips, shape) -> np.ndarray:
    """Path of joint 0 for which the middle of the body's hip joints follows a given path.

    Args:
        body: the body.
        rotations: (T, K, 3) its local rotation vectors.
        hips: (T, 3) metres, middle of the hips, same world as joint 0 (for captures: `trans`, Y up).
        shape: (S,) shape coefficients.

    Returns:
        (T, 3) float64 metres.
    """
    joints = body.rest_joints(shape)
    left, right = (body.joints.index(f"{side}_hip") for side in ("left", "right"))
    offset = (joints[left] + joints[right]) / 2 - joints[0]
    root = rotvec_to_matrix(np.asarray(rotations, dtype=np.float64)[:, 0])
    return np.asarray(hips, dtype=np.float64) - root @ offset


def mocap_rest_offsets(body: BodyModel) -> np.ndarray:
    """Rest offsets (K, 3) of a body, rotation vectors: the fitted ones of its file, else geometric ones."""
    stored = body.extras.get(OFFSETS_KEY)
    if stored is None:
        return geometric_rest_offsets(body)
    offsets = np.asarray(stored, dtype=np.float64)
    if offsets.shape != (len(body.joints), 3):
        raise ValueError(f"{OFFSETS_KEY} of body {body.name!r} has shape {offsets.shape}, expected "
                         f"({len(body.joints)}, 3); rebuild the body file.")
    return offsets


def geometric_rest_offsets(body: BodyModel, directions: Mapping[str, tuple[str, Direction]] = _T_POSE) -> np.ndarray:
    """Smallest rotations (K, 3) that turn limbs from the rest pose to some directions; hands follow their forearm.

    All else (trunk, neck, head, feet) is taken to stand in the T-pose as it does at rest. directions: by the name of
    the joint, the name of that at the bone's far end and where it lies, for the left side; default: legs straight down
    and arms straight out. Raises ValueError for a body that lacks the limbs, or has other joints or axes than `smpl24`.
    """
    _columns(body)
    joints = np.asarray(body.joint_template, dtype=np.float64)
    number = {name: index for index, name in enumerate(body.joints)}
    if missing := [name for name in _limb_joints() if name not in number]:
        raise ValueError(f"body {body.name!r} has no joint {missing[0]!r}, expected all joints of the limbs.")
    offsets = np.zeros((len(number), 3))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        for name, (end, direction) in directions.items():
            start, stop = number[f"{side}_{name}"], number[f"{side}_{end}"]
            turn = rotation_between(joints[stop] - joints[start], np.array(direction) * [sign, 1.0, 1.0])
            offsets[start] = matrix_to_rotvec(turn)
        offsets[number[f"{side}_wrist"]] = offsets[number[f"{side}_elbow"]]
    return offsets


def smpl_rest_offsets(body: BodyModel) -> np.ndarray | None:
    """Rest offsets (K, 3) of a body to the rest pose of SMPL, rotation vectors in the body's rest axes.

    They turn the limbs only. The fitted ones of the motion capture would be wrong here: its T-pose holds the head 20
    degrees further up, and bends elbows about an axis 30 degrees from SMPL's. None for SMPL's own family, which needs
    none, and for bodies without SMPL's joints and axes.
    """
    if "family" in body.metadata:
        return None
    try:
        return geometric_rest_offsets(body, _SMPL_REST)
    except ValueError:
        return None


def _limb_joints() -> list[str]:
    ends = {*_T_POSE, *(end for end, _ in _T_POSE.values())}
    return [f"{side}_{name}" for side in ("left", "right") for name in sorted(ends)]


def _columns(body: BodyModel) -> list[int]:
    """Columns of smpl24 that the body's joints are; checks that the tree and the axes are those of smpl24."""
    tree = get_skeleton("smpl24")
    unknown = [joint for joint in body.joints if joint not in tree.joints]
    if unknown:
        raise ValueError(f"body {body.name!r} has the joint {unknown[0]!r}, expected joints of smpl24 only.")
    if (body.up, body.forward) != ("y", "z"):
        raise ValueError(f"body {body.name!r} has up={body.up!r}, forward={body.forward!r}, expected 'y' and 'z'.")
    return [tree.index(joint) for joint in body.joints]
