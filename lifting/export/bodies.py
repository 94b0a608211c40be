"""A take in the formats of 3D programs: what ``save`` calls, one function per suffix.

Every function takes the take, the SkinnedMesh list of its fitted bodies (empty where nobody made one) and the path, and
returns the files, each with a function that writes it. In ``.glb`` and ``.bvh``, people without a body are figures of
bones (see lifting.export.stick_figure); the other formats need bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lifting.export.amass import write_amass
from lifting.export.bvh import write_bvh
from lifting.export.glb import write_glb
from lifting.export.mesh_files import frame_of_name, write_obj, write_ply
from lifting.export.people import nobody_lifted, present_motion
from lifting.export.scene import as_meshes, path_of_person
from lifting.export.smpl_convention import SmplConvention
from lifting.export.stick_figure import NAME, TWIST, stick_figure
from lifting.meshes import SkinnedMesh
from lifting.motion import Take

Files = list[tuple[Path, Callable[[Path], object]]]


def glb_file(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """Everybody in one animated scene, with what the metadata says of bodies; ValueError where nobody was lifted."""
    figures = scene_figures(take, meshes, path)
    extras = {"bodies": take.metadata["bodies"]} if "bodies" in take.metadata else {}
    if any(figure.name == NAME for figure in figures):
        extras["twist"] = TWIST
    return [(path, partial(write_glb, figures, name=take.name, extras=extras))]


def bvh_files(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> Files:
    """The first person, and the others beside it in ``NAME.personID.bvh``; ValueError where nobody was lifted."""
    figures = scene_figures(take, meshes, path)
    return [(place, partial(write_bvh, figure)) for figure, place in _by_person(figures, path, ".bvh")]


def scene_figures(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> list[SkinnedMesh]:
    """The fitted bodies, and for people who have none the figure of bones of their motion, in the order of the take.

    Raises ValueError where nobody has either, and where bodies were fitted but no mesh is given.
    """
    _check_frames(take, meshes)
    bodies = {take.person(mesh.person_id).id: mesh for mesh in meshes}
    if len(bodies) < len(meshes):
        as_meshes(meshes)  # two are of one person: says so
    for person in take.people:
        if person.body is not None and not meshes:
            raise ValueError(f"person {person.id} has a fitted body and no mesh is given for it; give meshes=, or let "
                             "lift.save make them.")
        if person.body is None and person.motion is not None and present_motion(person.motion).any():
            bodies.setdefault(person.id, stick_figure(person.motion, person.id))
    if not bodies:
        raise ValueError(nobody_lifted(take, path))
    return [bodies[person.id] for person in take.people if person.id in bodies]


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
    _check_frames(take, meshes)


def _check_frames(take: Take, meshes: Sequence[SkinnedMesh]) -> None:
    for mesh in meshes:
        if len(mesh) != len(take):
            raise ValueError(f"the mesh of person {mesh.person_id} has {len(mesh)} frames, the take has {len(take)}; "
                             "give the meshes of this take.")


def lacks_bodies(path: Path) -> str:
    """The sentence for a take whose people have no body."""
    return (f"{str(path)!r} would hold a body, and none is fitted here; fit bodies first: lift fit RESULT, "
            "or lift run --mesh.")
