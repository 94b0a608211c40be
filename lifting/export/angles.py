"""Joint angles in degrees: ``.angles.csv``, a table by the ISB's definitions, and ``.mot``, coordinates for OpenSim.

Both are made of the fitted body where there is one with the joints of `smpl24`, else of the 17 joints (see
`lifting.joint_angles` for the definitions, and for what 17 joints do not tell). The table has a row per person and
frame; a field is empty where the angle was not observed. A ``.mot`` file holds one person, from the first to the last
frame with a pose, in the names, axes and sequences of OpenSim's full-body models (Rajagopal et al. 2016: knee flexion
is positive), with the root's place in metres. That format knows no gaps: angles that were not observed for a while are
interpolated, and those never observed left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lifting.export.people import Files, describe_motion, lifted_people, person_files, present_motion, scene_points
from lifting.export.scene import one_line
from lifting.files import atomic_write
from lifting.joint_angles import BODY_LIMBS, UNOBSERVED, JointAngles, body_angles, joint_angles
from lifting.meshes import SkinnedMesh
from lifting.motion import Person, Take

DEFINITIONS = ("joint angles in degrees; hip, knee, ankle, trunk, neck: Z-X-Y (Grood & Suntay 1983; ISB, Wu et al. "
               "2002); shoulder: Y-X-Y, elbow: flexion (ISB, Wu et al. 2005); pelvis: Y-X-Z in the frame (Baker 2001)")
OPENSIM = "coordinates of OpenSim's full-body models (Rajagopal et al. 2016)"
PLACE = ("pelvis_tx", "pelvis_ty", "pelvis_tz")


def angles_csv_file(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """One table of everybody; ValueError where nobody was lifted."""
    people = lifted_people(take, path)
    return [(path, lambda place: write_angles_csv(take, people, meshes, place))]


def mot_files(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """The first lifted person, and the others beside it in ``NAME.personID.mot``; ValueError without one."""
    return person_files(take, path, ".mot", lambda take, person, place: write_mot(take, person, meshes, place))


def write_angles_csv(take: Take, people: Sequence[Person], meshes: Sequence[SkinnedMesh], path: Path) -> None:
    """Write the table of the people's joint angles; OSError for an unwritable place."""
    measured = {person.id: _measure(person, meshes) for person in people}
    names = list(dict.fromkeys(name for angles in measured.values() for name in angles.names))
    with atomic_write(path, "w") as file:
        file.write(f"# {DEFINITIONS}\n# take: {one_line(take.name)}; {describe_motion(people[0].motion)}\n")
        file.writelines(f"# person {number}: from {_source(angles)}\n" for number, angles in measured.items())
        file.write(",".join(["person", "frame", "time_s", *(f"{name}_deg" for name in names)]) + "\n")
        for number, angles in measured.items():
            degrees = _columns(angles, names)
            for frame, (time, row) in enumerate(zip(take.times.tolist(), degrees.tolist(), strict=True)):
                fields = ["" if value != value else f"{value:.4f}" for value in row]
                file.write(f"{number},{frame},{time!r},{','.join(fields)}\n")


def write_mot(take: Take, person: Person, meshes: Sequence[SkinnedMesh], path: Path) -> None:
    """Write one person's coordinates for OpenSim; OSError for an unwritable place."""
    angles = _measure(person, meshes, opensim=True)
    there = np.flatnonzero(present_motion(person.motion))
    frames = np.arange(there[0], there[-1] + 1)
    known = [name for name in angles.names if np.isfinite(angles[name][frames]).any()]
    times, degrees = take.times[frames], _columns(angles, known)[frames]
    gaps = [name for name, column in zip(known, degrees.T, strict=True) if np.isnan(column).any()]
    root = scene_points(person.motion)[frames, person.motion.skeleton.root]
    table = np.column_stack([times, *(_bridged(times, column) for column in (*root.T, *degrees.T))])
    # Lines with = are settings.
    name, about = (text.replace("=", "-") for text in (one_line(take.name), describe_motion(person.motion)))
    with atomic_write(path, "w") as file:
        file.write(f"{name} person {person.id}\nversion=1\nnRows={len(frames)}\n")
        file.write(f"nColumns={table.shape[1]}\ninDegrees=yes\n\n")
        file.write(f"Units are S.I. units (seconds, metres); angles are in degrees: {OPENSIM}.\n")
        file.write(f"{about}\nFrom {_source(angles)}\n")
        file.write(f"Interpolated where not observed: {', '.join(gaps) or 'none'}\nendheader\n")
        file.write("\t".join(["time", *PLACE, *known]) + "\n")
        file.writelines("\t".join(f"{value:.6f}" for value in row) + "\n" for row in table.tolist())


def _measure(person: Person, meshes: Sequence[SkinnedMesh], opensim: bool = False) -> JointAngles:
    """The angles of the person's body, else of their joints."""
    body = next((mesh for mesh in meshes if mesh.person_id == person.id and set(BODY_LIMBS) <= set(mesh.joints)), None)
    return joint_angles(person.motion, opensim=opensim) if body is None else body_angles(body, opensim=opensim)


def _source(angles: JointAngles) -> str:
    if angles.source != "17 joints":
        return f"the fitted body {one_line(angles.source)}"
    return f"17 joints, which do not tell: {', '.join(UNOBSERVED)}"


def _columns(angles: JointAngles, names: Sequence[str]) -> np.ndarray:
    """(T, len(names)) degrees, NaN for names it does not have."""
    missing = np.full(len(angles.values), np.nan)
    return np.degrees(np.column_stack([angles[name] if name in angles.names else missing for name in names]))


def _bridged(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values with gaps interpolated over time and the ends held."""
    known = np.isfinite(values)
    return np.interp(times, times[known], values[known])
