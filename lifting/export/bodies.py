"""A take with fitted bodies in the formats that are made for bodies: what ``save`` calls, one function per suffix.

Every function takes the take, its people's SkinnedMesh list (empty where nobody made one) and the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lifting.export.amass import write_amass
from lifting.export.bvh import write_bvh
from lifting.export.glb import write_glb
from lifting.export.mesh_files import frame_in_name, write_obj, write_ply
from lifting.export.scene import as_meshes, path_of_person
from lifting.meshes import SkinnedMesh
from lifting.motion import Take


def save_glb(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> None:
    """Write all people as one animated scene, with what the metadata says of bodies; ValueError without meshes."""
    _check_meshes(take, meshes, path)
    bodies = take.metadata.get("bodies")
    write_glb(meshes, path, name=take.name, extras=None if bodies is None else {"bodies": bodies})


def save_bvh(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> None:
    """Write the first person, and the others beside it to ``NAME.personID.bvh``; ValueError without meshes."""
    _check_meshes(take, meshes, path)
    write_bvh(meshes, path)


def save_obj(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> None:
    """Write one frame, whose number is in the name: ``clip.120.obj``; ValueError without number or meshes."""
    _check_meshes(take, meshes, path)
    write_obj(meshes, _frame(take, path), path)


def save_ply(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> None:
    """Write one frame, whose number is in the name: ``clip.120.ply``; ValueError without number or meshes."""
    _check_meshes(take, meshes, path)
    write_ply(meshes, _frame(take, path), path)


def save_amass(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> None:
    """Write the first person's motion, and the others' to ``NAME.personID.amass.npz``; ValueError without bodies."""
    _check_meshes(take, meshes, path)
    people = [(mesh, take.person(mesh.person_id).body) for mesh in as_meshes(meshes)]
    if any(body is None for _, body in people):
        raise ValueError(lacks_bodies(path))
    for number, (mesh, body) in enumerate(people):
        place = path_of_person(path, mesh.person_id, ".amass.npz") if number else path
        write_amass(body, place, mesh.rest_joints[0])


def _frame(take: Take, path: Path) -> int:
    frame = frame_in_name(path)
    if frame is None and len(take) > 1:
        raise ValueError(f"{path.name!r} does not say which of the {len(take)} frames to write; name the file like "
                         f"'{path.stem}.120{path.suffix}'.")
    return frame or 0


def _check_meshes(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> None:
    """Refuse a take without meshes, and meshes that are not those of the take."""
    if not meshes:
        raise ValueError(lacks_bodies(path))
    for mesh in meshes:
        if len(mesh) != len(take):
            raise ValueError(f"the mesh of person {mesh.person_id} has {len(mesh)} frames, the take has {len(take)}; "
                             "give the meshes of this take.")


def lacks_bodies(path: Path) -> str:
    """The sentence for a take whose people have no body."""
    return (f"{str(path)!r} would hold a body, and none is fitted here; fit bodies first: lift fit RESULT, "
            "or lift run --mesh.")
