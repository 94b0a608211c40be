"""Joints as ``.trc``, the marker files of OpenSim: text, one row per frame, metres, right-handed with +y up.

The joints of the motion are the markers. A file holds one person, from the first to the last frame with a pose; the
times are those of the take, so that they fit the video. The format has no place for comments: axes, frame and skeleton
stand in the first line in the field of the file's name, which programs do not read. Source: OpenSim user's guide,
"Marker (.trc) files".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lifting.export.people import Files, describe_motion, person_files, present_motion, scene_points
from lifting.export.scene import one_line, plain_names
from lifting.files import atomic_write
from lifting.meshes import SkinnedMesh
from lifting.motion import Person, Take

KEYS = ("DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units", "OrigDataRate", "OrigDataStartFrame",
        "OrigNumFrames")


def trc_files(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """The first lifted person, and the others beside it in ``NAME.personID.trc``; ValueError without one."""
    return person_files(take, path, ".trc", write_trc)


def write_trc(take: Take, person: Person, path: Path) -> None:
    """Write the joints of one person; OSError for an unwritable place."""
    motion = person.motion
    frames = np.flatnonzero(present_motion(motion))
    frames = np.arange(frames[0], frames[-1] + 1)
    points = scene_points(motion)[frames].reshape(len(frames), -1)
    with atomic_write(path, "w") as file:
        file.writelines(_header(take, person, frames))
        for frame, time, row in zip((frames + 1).tolist(), take.times[frames].tolist(), points, strict=True):
            values = ["" if value != value else f"{value:.6f}" for value in row.tolist()]  # NaN: an empty field
            file.write("\t".join([str(frame), f"{time:.6f}", *values]) + "\n")


def _header(take: Take, person: Person, frames: np.ndarray) -> list[str]:
    motion = person.motion
    names = plain_names(motion.skeleton.joints)
    about = f"{one_line(take.name)}.trc; person {person.id}; {describe_motion(motion)}"
    values = (f"{motion.fps:g}", f"{motion.fps:g}", str(len(frames)), str(len(names)), "m", f"{motion.fps:g}",
              str(frames[0] + 1), str(len(take)))
    columns = [f"{axis}{number}" for number in range(1, len(names) + 1) for axis in "XYZ"]
    return [
        f"PathFileType\t4\t(X/Y/Z)\t{about}\n",
        "\t".join(KEYS) + "\n",
        "\t".join(values) + "\n",
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t\n",
        "\t\t" + "\t".join(columns) + "\n",
        "\n",
    ]
