"""Joints as ``.c3d``, the binary point files of motion analysis: millimetres, right-handed with +z up.

The joints of the motion are the points. A file holds one person, all frames of the take; absent ones are marked as the
format does, by a residual of -1. Where the motion has a sigma, a point's residual is that sigma in millimetres. The
parameters say the rest: ``POINT:UNITS``, ``POINT:RATE``, ``POINT:X_SCREEN`` and ``POINT:Y_SCREEN`` (which axes point
right and up), ``SUBJECTS:NAMES``, and in a group ``LIFT`` axes, frame, skeleton and the time of the first frame. Needs
the package ezc3d. Source: the C3D file format user guide, 2021.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lifting import __version__
from lifting.export.people import Files, person_files, places
from lifting.export.scene import one_line, plain_names
from lifting.files import atomic_path
from lifting.meshes import SkinnedMesh
from lifting.motion import Motion, Person, Take

TO_Z_UP = {"camera": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), "world": np.eye(3)}
AXES = {"camera": "right-handed, +x right, +y away from the camera, +z up as it was held, origin in the camera",
        "world": "right-handed, +z up against gravity, the floor at height 0"}
MILLIMETRES = 1000.0


def c3d_files(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """The first lifted person, and the others beside it in ``NAME.personID.c3d``; ValueError without one."""
    return person_files(take, path, ".c3d", write_c3d)


def write_c3d(take: Take, person: Person, path: Path) -> None:
    """Write the joints of one person; OSError for an unwritable place, ImportError without ezc3d."""
    import ezc3d

    motion = person.motion
    file = ezc3d.c3d()
    points = places(motion).astype(np.float64) @ TO_Z_UP[motion.frame].T * MILLIMETRES
    homogeneous = np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)
    file["data"]["points"] = np.moveaxis(homogeneous, 0, -1).transpose(1, 0, 2)
    file["data"]["meta_points"]["residuals"] = _residuals(motion, points)
    for group, name, value in _parameters(take, person):
        file.add_parameter(group, name, value)
    file["parameters"]["POINT"]["RATE"]["value"] = np.array([motion.fps])
    with atomic_path(path) as temporary:
        file.write(str(temporary))
        _check_whole(temporary, points[..., 0].size)


def _check_whole(path: Path, points: int) -> None:
    """OSError where the file lacks some of its points: ezc3d does not notice a full disk."""
    block, each = 512, 16  # bytes of a block, and of a point with its residual
    with path.open("rb") as file:
        header = file.read(block)
    first = int.from_bytes(header[16:18], "little")  # the block in which the points begin, from 1
    if len(header) < block or path.stat().st_size < (first - 1) * block + each * points:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _residuals(motion: Motion, points: np.ndarray) -> np.ndarray:
    """(1, J, T) millimetres: sigma, 0 where it is unknown, -1 where there is no point."""
    sigma = np.zeros(points.shape[:2]) if motion.sigma is None else MILLIMETRES * np.nan_to_num(motion.sigma)
    return np.where(np.isfinite(points).all(axis=-1), sigma, -1.0).T[None]


def _parameters(take: Take, person: Person) -> list[tuple[str, str, object]]:
    motion = person.motion
    names = plain_names(motion.skeleton.joints)
    root = "" if motion.trajectory is not None else "; joints relative to the root, which stays at the origin"
    return [
        ("POINT", "LABELS", names), ("POINT", "UNITS", ["mm"]), ("POINT", "X_SCREEN", ["+X"]),
        ("POINT", "Y_SCREEN", ["+Z"]), ("SUBJECTS", "NAMES", [f"person {person.id}"]),
        ("MANUFACTURER", "SOFTWARE", ["keypoint-lift"]), ("MANUFACTURER", "VERSION_LABEL", [__version__]),
        ("LIFT", "NAME", [one_line(take.name)[:120]]), ("LIFT", "AXES", [AXES[motion.frame] + root]),
        ("LIFT", "FRAME", [motion.frame]), ("LIFT", "SKELETON", [one_line(motion.skeleton.name)[:120]]),
        ("LIFT", "FIRST_TIME_S", [float(take.times[0])]),
        ("LIFT", "RESIDUALS", ["sigma in mm, the radius that holds 68 % of the errors" if motion.sigma is not None
                               else "0: unknown"]),
    ]  # fmt: skip
