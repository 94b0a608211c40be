"""Bodies, and skeletons without one, as ``.bvh``: rest offsets of the joints and Euler angles, for animation programs.

Channels are ``Zrotation Xrotation Yrotation`` (the matrix Rz Rx Ry), joint 0 has positions before them, and an offset
of zero, so that programs which add offset and position agree with those which do not. Axes are right-handed with +y up
and, for a body that faces +z at rest, +z forward at zero angles. BVH states no unit; files are in centimetres unless
asked otherwise, as MotionBuilder, Maya, Unreal and the public motion libraries expect (Blender: scale 0.01). The format
has no absent frames: the nearest pose before, or the first, is held. It holds one person per file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import IO

import numpy as np

from lifting.export.scene import as_meshes, bone_offsets, held_frames, path_of_person, plain_names, scene_pose
from lifting.files import atomic_write
from lifting.meshes import SkinnedMesh

UNITS = {"cm": 100.0, "m": 1.0}
"""File units per metre."""
CHUNK = 4096  # frames turned into text at a time
ROTATIONS, POSITIONS = "Zrotation Xrotation Yrotation", "Xposition Yposition Zposition"
GIMBAL = 1e-6  # cosine of the middle angle below which the other two are one angle
LEAST_END = 0.01  # metres, so that no bone has length zero


def write_bvh(meshes: SkinnedMesh | Iterable[SkinnedMesh], path: str | PathLike, *, unit: str = "cm") -> list[Path]:
    """Write the motion of one person, or of several to a file each; returns the paths.

    Args:
        meshes: the people, each with a person_id of its own; people who are in no frame are left out.
        path: the file of the first; person 2 goes beside it to ``NAME.person2.bvh``. All are written or none.
        unit: ``cm`` or ``m``.

    Raises:
        ValueError: nobody is in any frame, two meshes are of the same person, or the unit is unknown.
        OSError: the place cannot be written.
    """
    if unit not in UNITS:
        raise ValueError(f"got the unit {unit!r}, expected one of {', '.join(UNITS)}.")
    meshes, first = as_meshes(meshes), Path(path)
    paths = [first, *(path_of_person(first, mesh.person_id, first.suffix) for mesh in meshes[1:])]
    with ExitStack() as files:
        for mesh, place in zip(meshes, paths, strict=True):
            _write_person(files.enter_context(atomic_write(place, "w")), mesh, UNITS[unit])
    return paths


def _write_person(file: IO[str], mesh: SkinnedMesh, scale: float) -> None:
    order = _depth_first(mesh.parents)
    file.write("HIERARCHY\n")
    file.writelines(_hierarchy(mesh, scale))
    file.write(f"MOTION\nFrames: {len(mesh)}\nFrame Time: {1 / mesh.fps:.9f}\n")
    held, angles = held_frames(mesh), None
    for start in range(0, len(mesh), CHUNK):
        rotations, places = scene_pose(mesh, held[start : start + CHUNK])
        angles = euler_zxy(rotations[:, order], None if angles is None else angles[-1])
        file.writelines(_rows(places * scale, np.degrees(angles)))


def _rows(places: np.ndarray, degrees: np.ndarray) -> Iterator[str]:
    values = np.concatenate([places, degrees.reshape(len(degrees), -1)], axis=1)
    pattern = " ".join(["%.5f"] * values.shape[1]) + "\n"
    return (pattern % tuple(row) for row in values.tolist())


def _depth_first(parents: tuple[int, ...]) -> list[int]:
    """Joints in the order in which a BVH file names them."""
    order, stack = [], [0]
    while stack:
        joint = stack.pop()
        order.append(joint)
        stack += reversed(_children(parents, joint))
    return order


def _children(parents: tuple[int, ...], joint: int) -> list[int]:
    return [child for child, parent in enumerate(parents) if parent == joint and child != joint]


def _hierarchy(mesh: SkinnedMesh, scale: float) -> Iterator[str]:
    """The lines of the tree of joints."""
    names, offsets, ends = plain_names(mesh.joints), bone_offsets(mesh) * scale, end_offsets(mesh)
    offsets[0] = 0

    def lines(joint: int, indent: str) -> Iterator[str]:
        inside = indent + "\t"
        yield f"{indent}{'JOINT' if joint else 'ROOT'} {names[joint]}\n{indent}{{\n"
        yield f"{inside}OFFSET {_triple(offsets[joint])}\n"
        yield f"{inside}CHANNELS {f'3 {ROTATIONS}' if joint else f'6 {POSITIONS} {ROTATIONS}'}\n"
        for child in _children(mesh.parents, joint):
            yield from lines(child, inside)
        if joint in ends:
            yield f"{inside}End Site\n{inside}{{\n{inside}\tOFFSET {_triple(ends[joint] * scale)}\n{inside}}}\n"
        yield f"{indent}}}\n"

    return lines(0, "")


def _triple(vector: np.ndarray) -> str:
    return " ".join(f"{value:.6f}" for value in vector)


def end_offsets(mesh: SkinnedMesh) -> dict[int, np.ndarray]:
    """Where the bones of the joints without children end: (3,) metres from the joint in the rest pose.

    The bone points to the middle of the surface that it moves and reaches as far as that surface does: the tips of
    fingers and toes, the top of the head. Without a surface it goes on as the bone before it, half as long.
    """
    strongest = np.take_along_axis(mesh.bone_indices, np.argmax(mesh.bone_weights, axis=1)[:, None], axis=1)[:, 0]
    offsets, ends = bone_offsets(mesh), {}
    for joint in set(range(len(mesh.joints))) - set(mesh.parents):
        around = np.asarray(mesh.rest_vertices, np.float64)[strongest == joint] - mesh.rest_joints[joint]
        middle = around.mean(axis=0) if len(around) else offsets[joint]
        length = np.linalg.norm(middle)
        direction = middle / length if length > 1e-9 else np.array([0.0, 1.0, 0.0])
        reach = (around @ direction).max() if len(around) else length / 2
        ends[joint] = direction * max(reach, LEAST_END)
    return ends


def euler_zxy(rotations: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    """Angles (T, ..., 3) radians about Z, X, Y with ``Rz @ Rx @ Ry`` = `rotations` (T, ..., 3, 3), steady over time.

    Of the two triples that give a rotation, and of all full turns, each frame takes those nearest to the frame before;
    `before` (..., 3) are the angles of the frame before the first. With the middle angle at a right angle (gimbal lock)
    only the sum or difference of the others counts: the last is then zero.
    """
    angles = _principal_zxy(rotations)
    steps = angles if before is None else np.concatenate([before[None], angles])
    other = _other_triple(steps)
    swap = _distance(steps[:-1], other[1:]) < _distance(steps[:-1], steps[1:])
    swapped = np.zeros(steps.shape[:-1], bool)
    swapped[1:] = np.logical_xor.accumulate(swap, axis=0)
    steps = np.unwrap(np.where(swapped[..., None], other, steps), axis=0)
    return steps[len(steps) - len(angles) :]


def _principal_zxy(m: np.ndarray) -> np.ndarray:
    """Angles with the middle one in -90..90 degrees."""
    cosine = np.hypot(m[..., 0, 1], m[..., 1, 1])
    locked = cosine < GIMBAL
    z = np.where(locked, np.arctan2(m[..., 1, 0], m[..., 0, 0]), np.arctan2(-m[..., 0, 1], m[..., 1, 1]))
    x = np.arctan2(m[..., 2, 1], cosine)
    y = np.where(locked, 0.0, np.arctan2(-m[..., 2, 0], m[..., 2, 2]))
    return np.stack([z, x, y], axis=-1)


def _other_triple(angles: np.ndarray) -> np.ndarray:
    """The other angles about Z, X, Y that give the same rotations."""
    return np.stack([angles[..., 0] + np.pi, np.pi - angles[..., 1], angles[..., 2] + np.pi], axis=-1)


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.abs((second - first + np.pi) % (2 * np.pi) - np.pi).sum(axis=-1)
