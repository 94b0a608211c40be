"""Animated bodies as ``.glb`` (binary glTF 2.0): mesh, skin and animation for Blender, Unity, Unreal and browsers.

Skeletons without a body come as figures of bones (see lifting.export.stick_figure), which are meshes too. Every person
is a node that holds the joints, and a skinned mesh. A joint's node stands at its rest offset from its parent; the
skin's inverse bind matrices move its rest place to the origin. The animation turns the joints by unit quaternions of
which neighbours never lie on opposite sides, so that viewers interpolate along the shorter way, and moves joint 0. Axes
are glTF's: metres, right-handed, +y up. While a person is absent, joint 0 is scaled to nothing, in steps: with it go
all joints, and the mesh is not seen (section 3.5.3 names this way to animate visibility). Pose blendshapes have no
place in glTF's skins: bodies of SMPL's family lack their correctives here. Source: Khronos, glTF 2.0 specification,
sections 3.5 (nodes), 3.7 (meshes, skins), 3.11 (animations) and 4 (GLB).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import cycle
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from lifting import __version__
from lifting.export.scene import (
    AXES,
    ORIGINS,
    TINTS,
    as_meshes,
    bone_offsets,
    present_frames,
    scene_pose,
    vertex_normals,
)
from lifting.files import atomic_write
from lifting.meshes import SkinnedMesh
from lifting.rotations import matrix_to_quat_wxyz

COMPONENT = {"f4": 5126, "u1": 5121, "u2": 5123, "u4": 5125}
KIND = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
VERTEX_DATA, VERTEX_INDICES = 34962, 34963
MAX_INFLUENCES = 8
LEAST_WEIGHT = 1e-5


def write_glb(
    meshes: SkinnedMesh | Iterable[SkinnedMesh],
    path: str | PathLike,
    *,
    name: str = "motion",
    extras: Mapping[str, Any] | None = None,
) -> Path:
    """Write one animated, skinned body per mesh; returns the path.

    Args:
        meshes: the people, each with a person_id of its own; people who are in no frame are left out.
        path: the file, written whole or not at all.
        name: what the take is called: the name of scene and animation.
        extras: more JSON-able facts for ``asset.extras``: licence, source.

    Raises:
        ValueError: nobody is in any frame, or two meshes are of the same person.
        OSError: the place cannot be written.
    """
    meshes = as_meshes(meshes)
    axes = f"{AXES}, {' or '.join(ORIGINS[frame] for frame in sorted({mesh.frame for mesh in meshes}))}"
    document = GltfDocument(name, {"unit": "metre", "axes": axes, "people": [_about(mesh) for mesh in meshes],
                                   **(extras or {})})
    for mesh, tint in zip(meshes, cycle(TINTS), strict=False):
        add_body(document, mesh, tint)
    with atomic_write(path) as file:
        file.writelines(document.chunks())
    return Path(path)


def _about(mesh: SkinnedMesh) -> dict[str, Any]:
    """What viewers do not need and people do."""
    return {"id": mesh.person_id, "body": mesh.name, "fps": mesh.fps, "num_frames": len(mesh),
            "source_frame": mesh.frame, "joints": list(mesh.joints), "parents": [int(index) for index in mesh.parents],
            "pose_blendshapes": "none" if mesh.pose_directions is None else "left out"}


def add_body(document: GltfDocument, mesh: SkinnedMesh, tint: tuple[float, ...]) -> None:
    """Add the joints, the skinned surface and the movement of one person."""
    label = f"person {mesh.person_id}"
    joints = add_skeleton(document, label, mesh.joints, mesh.parents, bone_offsets(mesh))
    skin = document.add("skins", {"name": label, "joints": joints, "skeleton": joints[0],
                                  "inverseBindMatrices": document.add_accessor(_inverse_binds(mesh.rest_joints))})
    surface = document.add("meshes", {"name": f"{label} {mesh.name}", "primitives": [_surface(document, mesh, tint)]})
    document.add_root({"name": f"{label} body", "mesh": surface, "skin": skin})
    frames = np.flatnonzero(present_frames(mesh))
    rotations, places = scene_pose(mesh, frames)
    document.add_movement(joints, frames / mesh.fps, continuous_quaternions(rotations), places)
    if len(frames) < len(mesh):
        changes, scales = visibility_steps(present_frames(mesh))
        document.add_scale(joints[0], changes / mesh.fps, scales)


def visibility_steps(present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames (N,) from which on a person is there or not, frame 0 first, and the scales (N, 3), ones or zeros.

    present: (T,) bool.
    """
    changes = np.flatnonzero(np.diff(present, prepend=~present[:1]))
    return changes, np.repeat(present[changes].astype(np.float32)[:, None], 3, axis=1)


def add_skeleton(document: GltfDocument, label: str, names: Iterable[str], parents: Iterable[int],
                 offsets: np.ndarray) -> list[int]:
    """Add a node `label` that holds one node per joint, each at its offset (K, 3) metres; returns their numbers."""
    nodes = [document.add("nodes", {"name": name, "translation": offset.tolist()})
             for name, offset in zip(names, offsets, strict=True)]
    for node, parent in zip(nodes, parents, strict=True):
        if parent >= 0:
            document.parts["nodes"][nodes[parent]].setdefault("children", []).append(node)
    document.add_root({"name": label, "children": [nodes[0]]})
    return nodes


def _inverse_binds(rest_joints: np.ndarray) -> np.ndarray:
    """(K, 4, 4) translations by minus the rest place, transposed: glTF stores columns first."""
    matrices = np.tile(np.eye(4, dtype=np.float32), (len(rest_joints), 1, 1))
    matrices[:, 3, :3] = -np.asarray(rest_joints)
    return matrices


def _surface(document: GltfDocument, mesh: SkinnedMesh, tint: tuple[float, ...]) -> dict[str, Any]:
    """The rest surface with its weights and material, as a primitive."""
    vertices = np.asarray(mesh.rest_vertices, np.float32)
    attributes = {"POSITION": document.add_accessor(vertices, VERTEX_DATA, bounds=True),
                  "NORMAL": document.add_accessor(np.float32(vertex_normals(vertices, mesh.faces)), VERTEX_DATA)}
    bones, weights = strongest_bones(mesh)
    for number, start in enumerate(range(0, bones.shape[1], 4)):
        group = slice(start, start + 4)
        attributes[f"JOINTS_{number}"] = document.add_accessor(bones[:, group], VERTEX_DATA)
        attributes[f"WEIGHTS_{number}"] = document.add_accessor(weights[:, group], VERTEX_DATA)
    index_type = np.uint16 if len(vertices) < 65535 else np.uint32  # 65535 itself means "restart"
    indices = document.add_accessor(np.asarray(mesh.faces).ravel().astype(index_type), VERTEX_INDICES)
    return {"attributes": attributes, "indices": indices, "material": document.add("materials", _material(tint))}


def _material(tint: tuple[float, ...]) -> dict[str, Any]:
    return {"name": "skin", "doubleSided": False,
            "pbrMetallicRoughness": {"baseColorFactor": [*tint, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.75}}


def strongest_bones(mesh: SkinnedMesh) -> tuple[np.ndarray, np.ndarray]:
    """Bones and float32 weights (V, 4), or (V, 8) where 4 are too few, strongest first; the rows sum to 1.

    Readers that know only four per vertex, as three.js, then take the four strongest. Unused places are bone 0 with
    weight 0, as glTF asks for.
    """
    dense = np.zeros((len(mesh.rest_vertices), len(mesh.joints)))
    np.add.at(dense, (np.arange(len(dense))[:, None], mesh.bone_indices), mesh.bone_weights)
    dense[dense < LEAST_WEIGHT] = 0
    count = 4 if (dense > 0).sum(axis=1).max() <= 4 else MAX_INFLUENCES
    dense = np.pad(dense, ((0, 0), (0, max(0, count - dense.shape[1]))))
    bones = np.argsort(-dense, axis=1, kind="stable")[:, :count]
    weights = np.take_along_axis(dense, bones, axis=1)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    weights[:, 0] = 1 - weights[:, 1:].sum(axis=1, dtype=np.float64)
    bone_type = np.uint8 if len(mesh.joints) <= 256 else np.uint16
    return np.where(weights > 0, bones, 0).astype(bone_type), weights


def continuous_quaternions(rotations: np.ndarray) -> np.ndarray:
    """Rotations (T, K, 3, 3) as (T, K, 4) float32 in glTF's order x, y, z, w, each on the side of the one before it."""
    quats = matrix_to_quat_wxyz(rotations)
    same_side = np.where((quats[1:] * quats[:-1]).sum(axis=-1) < 0, -1.0, 1.0)
    quats[1:] *= np.cumprod(same_side, axis=0)[..., None]
    return np.roll(quats, -1, axis=-1).astype(np.float32)


class GltfDocument:
    """A glTF asset that grows: its JSON lists by name, one scene, one animation, one binary buffer."""

    def __init__(self, name: str, extras: Mapping[str, Any]):
        self.parts: dict[str, list] = {}
        self._name = name
        self._asset = {"version": "2.0", "generator": f"keypoint-lift {__version__}", "extras": dict(extras)}
        self._roots: list[int] = []
        self._channels: list[dict] = []
        self._samplers: list[dict] = []
        self._blocks: list[bytes] = []
        self._size = 0

    def add(self, part: str, entry: dict[str, Any]) -> int:
        """Append to a list of the asset (nodes, skins, ...); returns the entry's number."""
        entries = self.parts.setdefault(part, [])
        entries.append(entry)
        return len(entries) - 1

    def add_root(self, node: dict[str, Any]) -> int:
        """Add a node at the top of the scene; returns its number."""
        self._roots.append(self.add("nodes", node))
        return self._roots[-1]

    def add_accessor(self, array: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Store an array, its first axis the elements; returns the accessor's number."""
        return self._add_accessors(array[None], target, bounds)[0]

    def _add_accessors(self, arrays: np.ndarray, target: int | None = None, bounds: bool = False) -> list[int]:
        """Store several arrays of one shape in one view of the buffer."""
        arrays = np.ascontiguousarray(arrays, arrays.dtype.newbyteorder("<"))
        view = self._add_view(arrays.tobytes(), target)
        return [self.add("accessors", {
            "bufferView": view, "byteOffset": number * array.nbytes, "count": len(array),
            "componentType": COMPONENT[array.dtype.str[1:]], "type": KIND[array.shape[1:]],
            **({"min": _as_list(array.min(axis=0)), "max": _as_list(array.max(axis=0))} if bounds else {}),
        }) for number, array in enumerate(arrays)]

    def _add_view(self, content: bytes, target: int | None) -> int:
        entry = {"buffer": 0, "byteOffset": self._size, "byteLength": len(content)}
        self._blocks.append(_padded(content, b"\0"))
        self._size += len(self._blocks[-1])
        return self.add("bufferViews", entry if target is None else {**entry, "target": target})

    def add_movement(self, nodes: list[int], times: np.ndarray, quats_xyzw: np.ndarray, places: np.ndarray) -> None:
        """Animate nodes by quaternions (T, K, 4), and the first one's place (T, 3) metres, at `times` (T,) seconds."""
        when = self.add_accessor(times.astype(np.float32), bounds=True)
        outputs = self._add_accessors(np.ascontiguousarray(quats_xyzw.swapaxes(0, 1)))
        for node, output in zip(nodes, outputs, strict=True):
            self._animate(node, "rotation", when, output)
        self._animate(nodes[0], "translation", when, self.add_accessor(places.astype(np.float32)))

    def add_scale(self, node: int, times: np.ndarray, scales: np.ndarray) -> None:
        """Animate the scale (N, 3) of a node, which changes at `times` (N,) seconds and is held in between."""
        when = self.add_accessor(times.astype(np.float32), bounds=True)
        self._animate(node, "scale", when, self.add_accessor(scales.astype(np.float32)), "STEP")

    def _animate(self, node: int, path: str, when: int, output: int, interpolation: str = "LINEAR") -> None:
        self._channels.append({"sampler": len(self._samplers), "target": {"node": node, "path": path}})
        self._samplers.append({"input": when, "output": output, "interpolation": interpolation})

    def chunks(self) -> Iterator[bytes]:
        """The parts of the GLB file in order: header, JSON, binary buffer."""
        text = _padded(_json_text(self._json()), b" ")
        yield struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + self._size)
        yield struct.pack("<I4s", len(text), b"JSON") + text
        yield struct.pack("<I4s", self._size, b"BIN\0")
        yield from self._blocks

    def _json(self) -> dict[str, Any]:
        animation = {"name": self._name, "channels": self._channels, "samplers": self._samplers}
        return {"asset": self._asset, "scene": 0, "scenes": [{"name": self._name, "nodes": self._roots}], **self.parts,
                "animations": [animation], "buffers": [{"byteLength": self._size}]}


def _json_text(data: dict[str, Any]) -> bytes:
    """UTF-8; half a surrogate pair, which some readers refuse, becomes the replacement character."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _as_list(bound: np.ndarray) -> list[float]:
    return np.atleast_1d(bound).tolist()


def _padded(content: bytes, filler: bytes) -> bytes:
    """Content up to the next multiple of four bytes."""
    return content + filler * (-len(content) % 4)
