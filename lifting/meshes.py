"""Skinned meshes as plain arrays: forward kinematics, linear blend skinning and `SkinnedMesh`.

A tree of K joints is given by its parents (-1 for joint 0, the root; any order after it). ``R_k`` turns the axes of
joint k into those of its parent; ``G_k`` into those of the frame. The rest pose has all rotations at the identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lifting.keypoints import check_fps, set_fields
from lifting.rotations import rotvec_to_matrix

_CHUNK_VALUES = 4_000_000  # numbers in a working array of one chunk of frames: 16 or 32 MB


def joint_levels(parents: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Joint numbers by their depth below the root, joint 0: the order in which kinematics must visit them.

    Raises ValueError when joint 0 is not the only root, a parent does not exist, or the parents form a cycle.
    """
    parents = np.asarray(parents)
    if parents.ndim != 1 or not len(parents) or parents.dtype.kind not in "iu":
        raise ValueError(f"got parents {parents.tolist()!r}, expected one whole number for each joint.")
    if parents[0] != -1 or (parents[1:] < 0).any() or (parents >= len(parents)).any():
        raise ValueError(f"got parents {parents.tolist()}, expected -1 for joint 0, the only root, and joint numbers "
                         f"0..{len(parents) - 1} for the others.")
    levels, found = [np.array([0])], 1
    while found < len(parents) and len(levels[-1]):
        levels.append(np.flatnonzero(np.isin(parents, levels[-1])))
        found += len(levels[-1])
    if found < len(parents):
        lost = sorted(set(range(len(parents))) - {int(joint) for level in levels for joint in level})
        raise ValueError(f"the parents of the joints {lost} form a cycle; every chain must end at joint 0.")
    return tuple(levels)


def forward_kinematics(
    rotations: np.ndarray, trajectory: np.ndarray, rest_joints: np.ndarray, parents: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Turn local rotations into global ones and joint positions.

    Args:
        rotations: (T, K, 3, 3) local rotation matrices, joint 0 in the frame.
        trajectory: (T, 3) metres, position of joint 0 in the frame.
        rest_joints: (K, 3) metres, the joints in the rest pose.
        parents: K joint numbers, see `joint_levels`.

    Returns (T, K, 3, 3) global rotations ``G_k = G_parent R_k`` and (T, K, 3) metres, the joint positions
    ``P_k = P_parent + G_parent (J_k - J_parent)``.
    """
    parents = np.asarray(parents)
    bones = rest_joints - rest_joints[parents]  # the root's is never used
    turned, joints = np.empty_like(rotations), np.empty(rotations.shape[:3], rotations.dtype)
    turned[:, 0], joints[:, 0] = rotations[:, 0], trajectory
    for level in joint_levels(parents)[1:]:
        above = turned[:, parents[level]]
        turned[:, level] = above @ rotations[:, level]
        joints[:, level] = joints[:, parents[level]] + (above @ bones[level, :, None])[..., 0]
    return turned, joints


def bone_transforms(global_rotations: np.ndarray, joints: np.ndarray, rest_joints: np.ndarray) -> np.ndarray:
    """Rows ``[G_k | P_k - G_k J_k]`` of all bones side by side, what skinning multiplies.

    global_rotations: (T, K, 3, 3); joints: (T, K, 3) metres; rest_joints: (K, 3) metres. Returns (T, 3, 4K).
    """
    frames, bones = joints.shape[:2]
    shift = joints - (global_rotations @ rest_joints[:, :, None])[..., 0]
    transforms = np.concatenate([global_rotations, shift[..., None]], axis=-1)
    return np.ascontiguousarray(transforms.swapaxes(1, 2)).reshape(frames, 3, 4 * bones)


def skinning_matrix(rest_vertices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The matrix (4K, V) that turns `bone_transforms` into vertices, ``w_vk (x, y, z, 1)`` of vertex v for bone k.

    rest_vertices: (V, 3) metres; weights: (V, K) dense, rows that sum to 1.
    """
    vertices, bones = weights.shape
    homogeneous = np.concatenate([rest_vertices, np.ones_like(rest_vertices[:, :1])], axis=1)
    return np.ascontiguousarray((weights[:, :, None] * homogeneous[:, None]).reshape(vertices, 4 * bones).T)


def skin(transforms: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Skinned vertices (T, V, 3): `bone_transforms` (T, 3, 4K) times the `skinning_matrix` (4K, V).

    One dense product beats sparse ones by far, because it runs at the speed of the processor, not of its memory; it is
    done in chunks of frames, so that the only large array is the result.
    """
    frames, count = len(transforms), matrix.shape[1]
    vertices = np.empty((frames, count, 3), matrix.dtype)
    step = max(1, _CHUNK_VALUES // max(1, 3 * count))
    for start in range(0, frames, step):
        part = transforms[start : start + step].reshape(-1, transforms.shape[-1]) @ matrix
        vertices[start : start + step] = part.reshape(-1, 3, count).swapaxes(1, 2)
    return vertices


def pose_features(rotations: np.ndarray) -> np.ndarray:
    """What pose blendshapes are linear in: ``R_k - I`` of joints 1.., row-major, (T, 9 (K - 1)).

    rotations: (T, K, 3, 3) local rotations.
    """
    return (rotations[:, 1:] - np.eye(3)).reshape(len(rotations), -1)


def pose_correction(
    directions: np.ndarray, weights: np.ndarray, dtype: type
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function of global rotations (T, K, 3, 3) and `pose_features`: what pose blendshapes add to skinned vertices.

    A correction of the rest mesh that is linear in the rotations, carried along by the bones (Loper et al., "SMPL: a
    skinned multi-person linear model", SIGGRAPH Asia 2015, equation 9). The function returns (T, V, 3) metres.

    directions: (V, 3, 9 (K - 1)) metres; weights: (V, K) dense, rows that sum to 1.
    """
    count, _, size = directions.shape
    flat = directions.transpose(2, 1, 0).reshape(size, 3 * count).astype(dtype)
    carriers = weights.T.astype(dtype)

    def correct(turned: np.ndarray, features: np.ndarray) -> np.ndarray:
        frames, bones = turned.shape[:2]
        moved = (features.astype(dtype) @ flat).reshape(frames, 1, 3, count)
        rows = turned.transpose(0, 2, 3, 1).reshape(9 * frames, bones).astype(dtype)
        carried = (rows @ carriers).reshape(frames, 3, 3, count)
        carried *= moved
        return carried.sum(axis=2).swapaxes(1, 2)

    return correct


@dataclass(frozen=True, eq=False)
class SkinnedMesh:
    """A body in motion as plain arrays, for export and view: rest mesh, skin weights and joint rotations over time.

    Attributes:
        name: what the body is called.
        joints: K names.
        parents: K joint numbers, -1 for joint 0, the root.
        rest_joints: (K, 3) float32 metres in the body's own axes.
        rest_vertices: (V, 3) float32 metres in the body's own axes.
        faces: (F, 3) int32 vertex numbers.
        bone_indices: (V, B) int32, the joints that carry a vertex.
        bone_weights: (V, B) float32, rows sum to 1 (0 where fewer than B bones carry it).
        rotations: (T, K, 3) float32 rotation vectors, local, joint 0 in `frame`; NaN where the person is absent.
        trajectory: (T, 3) float32 metres, position of joint 0 in `frame`.
        fps: frames per second.
        frame: ``camera`` or ``world``, as of the motion.
        person_id: whose body it is.
        pose_directions: (V, 3, 9 (K - 1)) float32 metres, pose blendshapes (see `pose_correction`); None without.
        smpl_offsets: (K, 3) float32 rotation vectors, what turns each joint from this rest pose to SMPL's; None where
            the rest pose is SMPL's own, or where the joints are not SMPL's.
        gender: ``neutral``, ``female`` or ``male``: for which the body was made.

    Raises ValueError for arrays that do not fit together.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    rest_joints: np.ndarray
    rest_vertices: np.ndarray
    faces: np.ndarray
    bone_indices: np.ndarray
    bone_weights: np.ndarray
    rotations: np.ndarray
    trajectory: np.ndarray
    fps: float
    frame: str = "camera"
    person_id: int = 0
    pose_directions: np.ndarray | None = None
    smpl_offsets: np.ndarray | None = None
    gender: str = "neutral"

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        kinds = {"faces": np.int32, "bone_indices": np.int32}
        for name in ("rest_joints", "rest_vertices", "faces", "bone_indices", "bone_weights", "rotations",
                     "trajectory", "pose_directions", "smpl_offsets"):
            if getattr(self, name) is not None:
                set_fields(self, **{name: np.ascontiguousarray(getattr(self, name), kinds.get(name, np.float32))})
        set_fields(self, joints=tuple(self.joints), parents=tuple(int(parent) for parent in self.parents),
                   fps=check_fps(self.fps), person_id=int(self.person_id))
        joint_levels(self.parents)
        self._check_shapes()

    def _check_shapes(self) -> None:
        bones, vertices, frames = len(self.joints), len(self.rest_vertices), len(self.rotations)
        carried = self.bone_indices.shape[1:]
        expected = {"parents": (bones,), "rest_joints": (bones, 3), "rest_vertices": (vertices, 3),
                    "faces": (len(self.faces), 3), "bone_indices": (vertices, *carried),
                    "bone_weights": (vertices, *carried), "rotations": (frames, bones, 3), "trajectory": (frames, 3)}
        optional = {"pose_directions": (vertices, 3, 9 * (bones - 1)), "smpl_offsets": (bones, 3)}
        expected |= {name: shape for name, shape in optional.items() if getattr(self, name) is not None}
        for name, shape in expected.items():
            if np.shape(getattr(self, name)) != shape or (name == "bone_indices" and len(carried) != 1):
                raise ValueError(f"{name} of the mesh {self.name!r} has the shape {np.shape(getattr(self, name))}, "
                                 f"expected {shape}; all arrays must belong to one body.")
        for name, count in (("faces", vertices), ("bone_indices", bones)):
            numbers = getattr(self, name)
            if numbers.size and not (0 <= numbers.min() and numbers.max() < count):
                raise ValueError(f"{name} of the mesh {self.name!r} must lie in 0..{count - 1}, "
                                 f"got {numbers.min()}..{numbers.max()}.")
        if not np.allclose(self.bone_weights.sum(axis=1), 1, atol=1e-3):
            raise ValueError(f"the bone weights of the mesh {self.name!r} must sum to 1 for every vertex; scale them.")

    def __len__(self) -> int:
        """T."""
        return len(self.rotations)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.rotations)

    @property
    def num_vertices(self) -> int:
        """V."""
        return len(self.rest_vertices)

    @cached_property
    def _kinematics(self) -> tuple[np.ndarray, np.ndarray]:
        """Global rotations (T, K, 3, 3) and joint positions (T, K, 3), float64."""
        rotations = rotvec_to_matrix(self.rotations)
        return forward_kinematics(rotations, self.trajectory, self.rest_joints.astype(np.float64), self.parents)

    @cached_property
    def _weights(self) -> np.ndarray:
        """The bone weights (V, K), float32, dense."""
        weights = np.zeros((self.num_vertices, len(self.joints)), np.float32)
        np.add.at(weights, (np.arange(self.num_vertices)[:, None], self.bone_indices), self.bone_weights)
        return weights

    @cached_property
    def _matrix(self) -> np.ndarray:
        """The skinning matrix (4K, V), float32."""
        return skinning_matrix(self.rest_vertices, self._weights)

    def vertices(self, frames: slice | int | np.ndarray | None = None) -> np.ndarray:
        """Skinned vertices (T', V, 3) float32 metres in `frame`; (V, 3) for one frame number.

        `frames` is a slice, a frame number, an array of numbers, or None for all frames.
        """
        single = np.ndim(frames) == 0 and not isinstance(frames, slice) and frames is not None
        chosen = slice(None) if frames is None else np.array([frames]) if single else frames
        turned, joints = (array[chosen] for array in self._kinematics)
        # Relative to the root, so that float32 keeps its precision far from the origin.
        local = bone_transforms(turned, joints - joints[:, :1], self.rest_joints.astype(np.float64))
        vertices = skin(local.astype(np.float32), self._matrix)
        if self.pose_directions is not None:
            self._correct(vertices, turned, rotvec_to_matrix(self.rotations[chosen]))
        vertices += joints[:, None, 0].astype(np.float32)
        return vertices[0] if single else vertices

    def _correct(self, vertices: np.ndarray, turned: np.ndarray, rotations: np.ndarray) -> None:
        """Add to vertices (T, V, 3) what pose blendshapes do; global and local rotations (T, K, 3, 3)."""
        correct = pose_correction(self.pose_directions, self._weights, np.float32)
        step = max(1, _CHUNK_VALUES // max(1, 9 * self.num_vertices))
        for start in range(0, len(vertices), step):
            part = slice(start, start + step)
            vertices[part] += correct(turned[part], pose_features(rotations[part]))

    def joint_positions(self) -> np.ndarray:
        """Joint positions (T, K, 3) float32 metres in `frame`."""
        return self._kinematics[1].astype(np.float32)

    def replace(self, **changes: object) -> SkinnedMesh:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)
