"""A take with fitted bodies in the formats that are made for bodies: what ``save`` calls, one function per suffix.

Every function takes the take, its people's SkinnedMesh list (empty where nobody made one) and the path, and returns the
files, each with a function that writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lifting.export.amass import write_amass
from lifting.export.bvh import write_bvh
from lifting.export.glb import write_glb
from lifting.export.mesh_files import frame_of_name, write_obj, write_ply
from lifting.export.scene import as_meshes, path_of_person
from lifting.export.smpl_convention import SmplConvention
from lifting.meshes import SkinnedMesh
from lifting.motion import Take

Files = list[tuple[Path, Callable[[Path], object]]]


def glb_file(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """All people as one animated scene, with what the metadata says of bodies; ValueError without meshes."""
    _check_meshes(take, meshes, path)
    extras = {"bodies": take.metadata["bodies"]} if "bodies" in take.metadata else {}
    return [(path, partial(write_glb, meshes, name=take.name, extras=extras))]


def bvh_files(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """The first person, and the others beside it in ``NAME.personID.bvh``; ValueError without meshes."""
    _check_meshes(take, meshes, path)
    return [(place, partial(write_bvh, mesh)) for mesh, place in _by_person(meshes, path, ".bvh")]


def obj_file(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """One frame, whose number is in the name: ``clip.120.obj``; ValueError without number or meshes."""
    _check_meshes(take, meshes, path)
    return [(path, partial(write_obj, meshes, frame_of_name(path, len(take))))]


def ply_file(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """One frame, whose number is in the name: ``clip.120.ply``; ValueError without number or meshes."""
    _check_meshes(take, meshes, path)
    return [(path, partial(write_ply, meshes, frame_of_name(path, len(take))))]


def amass_files(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """The first person's motion, and the others' in ``NAME.personID.amass.npz``; ValueError without bodies."""
    _check_meshes(take, meshes, path)
    people = [(mesh, place, take.person(mesh.person_id).body) for mesh, place in _by_person(meshes, path, ".amass.npz")]
    if any(body is None for _, _, body in people):
        raise ValueError(lacks_bodies(path))
    return [(place, partial(_write_amass, take, mesh)) for mesh, place, _ in people]


def _write_amass(take: Take, mesh: SkinnedMesh, path: Path) -> None:
    write_amass(take.person(mesh.person_id).body, path, mesh.rest_joints[0], mesh.gender, camera=take.camera,
                person_id=mesh.person_id, smpl=SmplConvention.of_mesh(mesh))  # fmt: skip


def _by_person(meshes: Sequence[SkinnedMesh], path: Path, suffix: str) -> list[tuple[SkinnedMesh, Path]]:
    """Everybody's mesh and file, of formats that hold one person."""
    first, *others = as_meshes(meshes)
    return [(first, path), *((mesh, path_of_person(path, mesh.person_id, suffix)) for mesh in others)]


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
