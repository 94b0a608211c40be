"""What the formats of 3D scenes share: their axes, the frames that hold the person, normals, names and colours.

Scenes are right-handed with +y up, in metres unless a format says otherwise. The world's frame stands upright on y = 0.
From the camera's frame the picture is kept as it was seen: the viewer's default camera at the origin looks along -z, as
the filming camera did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lifting.meshes import SkinnedMesh
from lifting.rotations import rotvec_to_matrix

AXES = "right-handed, +y up"
TO_SCENE = {"camera": np.diag([1.0, -1.0, -1.0]), "world": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])}
"""Rotations from the frames of a motion to the axes of a scene."""
ORIGINS = {"camera": "upright as the filming camera was held, which is at the origin and looks along -z",
           "world": "upright against gravity, the floor at y = 0"}
"""What a scene's axes stand for, by the frame of the motion."""
TINTS = ((0.80, 0.55, 0.42), (0.33, 0.55, 0.75), (0.48, 0.66, 0.42), (0.70, 0.50, 0.70), (0.78, 0.66, 0.36))
"""Linear RGB colours of the people, in order."""


def as_meshes(meshes: SkinnedMesh | Iterable[SkinnedMesh]) -> tuple[SkinnedMesh, ...]:
    """One mesh or several as a tuple, people who are in no frame left out.

    Raises ValueError when nobody is left, when two have the same person's id, or for anything but a SkinnedMesh.
    """
    meshes = (meshes,) if isinstance(meshes, SkinnedMesh) else tuple(meshes)
    for mesh in meshes:
        if not isinstance(mesh, SkinnedMesh):
            raise ValueError(f"got {type(mesh).__name__} in place of a SkinnedMesh; take BodyModel.skinned(motion).")
    ids = [mesh.person_id for mesh in meshes]
    if len(set(ids)) != len(ids):
        raise ValueError(f"the meshes of a file must be of different people, got the ids {ids}; number them.")
    found = tuple(mesh for mesh in meshes if present_frames(mesh).any())
    if not found:
        raise ValueError("there is no fitted body in any frame; fit bodies first, with lift fit or lift run --mesh.")
    return found


def present_frames(mesh: SkinnedMesh) -> np.ndarray:
    """(T,) bool: the frames in which the person has a whole pose."""
    return np.isfinite(mesh.rotations).all(axis=(1, 2)) & np.isfinite(mesh.trajectory).all(axis=1)


def held_frames(mesh: SkinnedMesh) -> np.ndarray:
    """(T,) for each frame itself or, where the person is absent, the last one before with a pose, else the first."""
    present = present_frames(mesh)
    last = np.maximum.accumulate(np.where(present, np.arange(len(present)), -1))
    return np.where(last < 0, np.argmax(present), last)


def scene_pose(mesh: SkinnedMesh, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Local rotations (T, K, 3, 3) and the place of joint 0 (T, 3) metres at `frames`, turned to the scene's axes."""
    turn = TO_SCENE[mesh.frame]
    rotations = rotvec_to_matrix(mesh.rotations[frames])
    rotations[:, 0] = turn @ rotations[:, 0]
    return rotations, mesh.trajectory[frames].astype(np.float64) @ turn.T


def bone_offsets(mesh: SkinnedMesh) -> np.ndarray:
    """(K, 3) metres from the parent to each joint in the rest pose; joint 0 from the origin."""
    rest = np.asarray(mesh.rest_joints, np.float64)
    offsets = rest.copy()
    for joint, parent in enumerate(mesh.parents):
        if parent >= 0:
            offsets[joint] -= rest[parent]
    return offsets


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3) float64: the mean of the faces around, weighted by area; up where there is no face."""
    corners = np.asarray(vertices, np.float64)[faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    weights = np.repeat(area, 3, axis=0)
    total = np.stack([np.bincount(faces.ravel(), weights[:, axis], len(vertices)) for axis in range(3)], axis=-1)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    return np.where(length > 1e-20, total / np.maximum(length, 1e-20), [0.0, 1.0, 0.0])


def path_of_person(path: Path, person_id: int, suffix: str) -> Path:
    """``clip.person2.bvh`` beside ``clip.bvh``, for formats that hold one person per file."""
    stem = path.name[: len(path.name) - len(suffix)]
    return path.with_name(f"{stem}.person{person_id}{path.name[len(stem):]}")


def plain_names(names: Sequence[str]) -> list[str]:
    """Names as different words of ASCII letters, digits, ``_`` and ``-``, for formats of text split at white space."""
    plain: list[str] = []
    for name in names:
        word = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "_" for letter in name)
        word, number = word or "joint", 2
        while word in plain:
            word = f"{word.rstrip('0123456789')}{number}"
            number += 1
        plain.append(word)
    return plain


def one_line(text: str) -> str:
    """Text as one line of printable ASCII, everything else escaped."""
    return text.encode("unicode_escape", "backslashreplace").decode("ascii")
