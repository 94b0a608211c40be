"""Bodies of one frame as ``.obj`` (text) and ``.ply`` (binary, little-endian), posed, with normals, in metres.

Axes are those of scenes (right-handed, +y up), or with ``axes="frame"`` those of the motion itself: the camera's (+y
down, +z forward) or the world's (+z up). OBJ keeps people apart as objects; PLY holds them as one mesh.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np

from lifting.export.scene import AXES, ORIGINS, TO_SCENE, as_meshes, one_line, present_frames, vertex_normals
from lifting.files import atomic_write
from lifting.meshes import SkinnedMesh

Surface = tuple[SkinnedMesh, np.ndarray, np.ndarray]
"""A person's mesh with its posed vertices and normals (V, 3)."""


def write_obj(
    meshes: SkinnedMesh | Iterable[SkinnedMesh], frame: int, path: str | PathLike, *, axes: str = "scene"
) -> Path:
    """Write the people of one frame as OBJ, an object each; returns the path.

    Args:
        meshes: the people; those absent in that frame are left out.
        frame: its number from 0; negative ones count from the end.
        path: the file, written whole or not at all.
        axes: ``scene`` (+y up) or ``frame`` (those of the motion).

    Raises:
        ValueError: there is no such frame, nobody is in it, or the axes are unknown.
        OSError: the place cannot be written.
    """
    surfaces, first = posed_surfaces(meshes, frame, axes), 1
    with atomic_write(path, "w") as file:
        file.write(f"# {_about(surfaces, axes)}\n")
        for mesh, vertices, normals in surfaces:
            file.write(f"o person_{mesh.person_id}\n")
            file.writelines(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in vertices.tolist())
            file.writelines(f"vn {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in normals.tolist())
            corners = (np.asarray(mesh.faces) + first).tolist()
            file.writelines(f"f {a}//{a} {b}//{b} {c}//{c}\n" for a, b, c in corners)
            first += len(vertices)
    return Path(path)


def write_ply(
    meshes: SkinnedMesh | Iterable[SkinnedMesh], frame: int, path: str | PathLike, *, axes: str = "scene"
) -> Path:
    """Write the people of one frame as binary PLY with normals, as one mesh; arguments and errors as write_obj."""
    surfaces = posed_surfaces(meshes, frame, axes)
    vertices = np.concatenate([np.hstack([vertices, normals]) for _, vertices, normals in surfaces]).astype("<f4")
    starts = np.cumsum([0, *(mesh.num_vertices for mesh, _, _ in surfaces[:-1])])
    corners = np.concatenate([mesh.faces + start for (mesh, _, _), start in zip(surfaces, starts, strict=True)])
    faces = np.empty(len(corners), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, corners
    properties = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    header = (f"ply\nformat binary_little_endian 1.0\ncomment {_about(surfaces, axes)}\n"
              f"element vertex {len(vertices)}\n{properties}"
              f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n")
    with atomic_write(path) as file:
        file.writelines([header.encode("ascii"), vertices.tobytes(), faces.tobytes()])
    return Path(path)


def posed_surfaces(meshes: SkinnedMesh | Iterable[SkinnedMesh], frame: int, axes: str) -> list[Surface]:
    """Vertices and normals of the people who are in the frame; ValueError as write_obj."""
    if axes not in ("scene", "frame"):
        raise ValueError(f"got the axes {axes!r}, expected 'scene' (+y up) or 'frame' (those of the motion).")
    meshes = as_meshes(meshes)
    frame = _check_frame(frame, len(meshes[0]))
    present = [mesh for mesh in meshes if present_frames(mesh)[frame]]
    if not present:
        known = np.flatnonzero(np.any([present_frames(mesh) for mesh in meshes], axis=0))
        raise ValueError(f"nobody is in frame {frame}; choose a frame from {known[0]} to {known[-1]}.")
    return [(mesh, *_pose(mesh, frame, axes)) for mesh in present]


def _check_frame(frame: int, count: int) -> int:
    if not -count <= frame < count:
        raise ValueError(f"there is no frame {frame}; the bodies have {count}, numbered 0 to {count - 1}.")
    return frame % count


def _pose(mesh: SkinnedMesh, frame: int, axes: str) -> tuple[np.ndarray, np.ndarray]:
    vertices = mesh.vertices(slice(frame, frame + 1))[0].astype(np.float64)
    if axes == "scene":
        vertices = vertices @ TO_SCENE[mesh.frame].T
    return vertices, vertex_normals(vertices, mesh.faces)


def _about(surfaces: list[Surface], axes: str) -> str:
    mesh = surfaces[0][0]
    where = f"{AXES}, {ORIGINS[mesh.frame]}" if axes == "scene" else f"axes of the {mesh.frame} frame"
    return f"body {one_line(mesh.name)}, metres, {where}"


def frame_in_name(path: str | PathLike) -> int | None:
    """The frame's number in a name like ``clip.120.obj`` or ``clip_frame120.ply``; None where there is none."""
    found = re.search(r"(?:\.|frame[_-]?)([0-9]+)$", Path(path).stem, re.IGNORECASE)
    return int(found[1]) if found else None


def frame_of_name(path: Path, frames: int) -> int:
    """Which of some frames an ``.obj`` or ``.ply`` is to hold, by its name; ValueError where that is none of them."""
    frame = frame_in_name(path)
    if frame is None and frames > 1:
        raise ValueError(f"{path.name!r} does not say which of the {frames} frames to write; name the file like "
                         f"'{path.stem}.{frames // 2}{path.suffix}'.")
    if frame is not None and frame >= frames:
        raise ValueError(f"{path.name!r} asks for frame {frame}, but there are {frames}, numbered from 0; "
                         "choose another.")
    return frame or 0
