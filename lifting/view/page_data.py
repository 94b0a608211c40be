"""What the page shows, packed for it: one JSON description and one block of little-endian numbers that it points into.

Inside, everything is in *scene axes*: metres, +z up; those of the world where people are in it, else +x right and +y
away as the camera sees it. Joints are 16-bit fixed point relative to the root (well under a millimetre), paths are
float32, sigma is 8-bit, global rotations of bodies are 16-bit quaternions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lifting.cameras import Camera
from lifting.meshes import SkinnedMesh, forward_kinematics
from lifting.motion import Motion, Take
from lifting.rotations import matrix_to_quat_wxyz, rotvec_to_matrix
from lifting.view.overlay import drawn_bones
from lifting.view.panel import bone_radius, person_color

MOST_BYTES = 24_000_000  # of numbers in one page; longer takes show every n-th frame
SCENE_AXES = {"camera": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), "world": np.eye(3)}
"""Rotations from the frames of a motion to the axes of the page."""
_UNKNOWN = -32768  # stands for NaN among 16-bit numbers, 255 among 8-bit ones
_SIGMA_STEP = 0.002  # metres; 254 steps reach half a metre
_BONES_PER_VERTEX = 4
_FLOOR_PERCENTILE, _SOLE = 2, 0.03  # the lowest joints, robust to a few wild frames; metres from ankle or toe to floor


class Numbers:
    """The block of numbers: arrays go in, references for the JSON come out; equal arrays are stored once."""

    def __init__(self) -> None:
        """Start empty."""
        self._parts: list[bytes] = []
        self._known: dict[bytes, int] = {}
        self.size = 0

    def add(self, values: np.ndarray, kind: str, scale: float = 1.0) -> dict:
        """Store `values` as `kind`, a little-endian numpy type such as "i2"; the page multiplies by `scale`."""
        data = np.ascontiguousarray(values, f"<{kind}").tobytes()
        if data not in self._known:
            self._known[data] = self.size
            padded = data + bytes(-len(data) % 4)
            self._parts.append(padded)
            self.size += len(padded)
        return {"at": self._known[data], "type": kind, "shape": list(np.shape(values)), "scale": scale}

    def add_lengths(self, metres: np.ndarray) -> dict:
        """Store lengths as 16-bit fixed point over their own range, NaN kept."""
        largest = float(np.nanmax(np.abs(metres), initial=1e-3))
        steps = np.nan_to_num(np.rint(metres * (32767 / largest)), nan=_UNKNOWN)
        return self.add(steps, "i2", largest / 32767)

    def add_sigma(self, metres: np.ndarray | None) -> dict | None:
        """Store sigma in steps of 2 mm up to 50.8 cm, NaN kept."""
        if metres is None:
            return None
        steps = np.minimum(np.rint(np.asarray(metres, np.float64) / _SIGMA_STEP), 254)
        return self.add(np.nan_to_num(steps, nan=255), "u1", _SIGMA_STEP)

    def to_bytes(self) -> bytes:
        """The whole block."""
        return b"".join(self._parts)


@dataclass(frozen=True)
class Layer:
    """People who are drawn alike: the result, the truth beside it or a future.

    Attributes:
        kind: ``result``, ``truth`` or ``future``; label: what it is called on the page.
        times: (T,) seconds.
        people: id and motion of each.
        meshes: their fitted bodies, those that have one.
        contacts: (T, 4) by id, see `Person.contacts`.
    """

    kind: str
    label: str
    times: np.ndarray
    people: tuple[tuple[int, Motion | None], ...]
    meshes: tuple[SkinnedMesh, ...] = ()
    contacts: Mapping[int, np.ndarray] = field(default_factory=dict)

    @property
    def bytes_per_frame(self) -> int:
        """About how many bytes one frame takes."""
        lifted = sum(2 + 7 * motion.skeleton.num_joints + 12 for _, motion in self.people if motion is not None)
        return 4 + lifted + sum(8 * len(mesh.joints) + 12 for mesh in self.meshes)


def result_layer(take: Take, meshes: Sequence[SkinnedMesh] = ()) -> Layer:
    """The people of the take that the page is about; ValueError for meshes of others, or of other frames."""
    ids = {person.id for person in take.people}
    for mesh in meshes:
        if mesh.person_id not in ids or len(mesh) != len(take):
            raise ValueError(f"got a mesh of person {mesh.person_id} over {len(mesh)} frames, expected one of the "
                             f"people {sorted(ids)} over the take's {len(take)}; give the meshes of this take.")
    contacts = {person.id: person.contacts for person in take.people if person.contacts is not None}
    return Layer("result", "result", take.times, _people(take), tuple(meshes), contacts)


def companion_layer(kind: str, label: str, other: Take | Motion, take: Take) -> Layer:
    """A truth or a future in the frame of `take`.

    other: a take, whose times are those of `take`'s clock, or a motion: of the take's frames as a "truth", of the
        frames that follow them as a "future". What is in camera axes is taken to be seen by the take's camera. Raises
        ValueError where a truth has other frames than the take, or nobody in any of them.
    """
    frame = frame_of(take)
    camera = take.camera if frame == "world" or not isinstance(other, Take) else other.camera
    if isinstance(other, Take):
        people, times = _people(other), other.times
    elif kind == "truth" and len(other) != len(take):
        raise ValueError(f"the truth has {len(other)} frames, the take has {len(take)}; give the truth at its times.")
    else:
        people = ((take.people[0].id if take.people else 1, other),)
        times = take.times if kind == "truth" else take.times[-1] + np.arange(1, len(other) + 1) / other.fps
    if not any(motion is not None and np.isfinite(motion.joints).any() for _, motion in people):
        raise ValueError(f"the {kind} has nobody in the frames of {take.name!r}; give the {kind} of the same video.")
    return Layer(kind, label, times, tuple((number, _in_frame(motion, frame, camera)) for number, motion in people))


def divide_meshes(
    take: Take, meshes: Iterable[SkinnedMesh]
) -> tuple[tuple[SkinnedMesh, ...], tuple[SkinnedMesh, ...]]:
    """Meshes over the frames of a take, and their parts over the frames that follow, of those who have a future."""
    meshes, known = tuple(meshes), {person.id for person in take.people if person.future is not None}
    past = tuple(_mesh_within(mesh, slice(0, len(take))) if mesh.person_id in known else mesh for mesh in meshes)
    later = tuple(_mesh_within(mesh, slice(len(take), None)) for mesh in meshes
                  if mesh.person_id in known and len(mesh) > len(take))  # fmt: skip
    return past, later


def _mesh_within(mesh: SkinnedMesh, frames: slice) -> SkinnedMesh:
    return replace(mesh, rotations=mesh.rotations[frames], trajectory=mesh.trajectory[frames])


def future_layer(take: Take, label: str, meshes: tuple[SkinnedMesh, ...] = ()) -> Layer:
    """The futures of the people of a take, after its last frame, and the meshes of those who have a body then."""
    people = tuple((person.id, _in_frame(person.future, frame_of(take), take.camera)) for person in take.people)
    frames = next(len(future) for _, future in people if future is not None)
    return Layer("future", label, take.times[-1] + np.arange(1, frames + 1) / take.fps, people, meshes)


def frame_of(take: Take) -> str:
    """In which frame the people of a take are; ``camera`` where nobody was lifted."""
    parts = [part for person in take.people for part in (person.motion, person.body) if part is not None]
    return parts[0].frame if parts else "camera"


def _people(take: Take) -> tuple[tuple[int, Motion | None], ...]:
    return tuple((person.id, person.motion) for person in take.people)


def _in_frame(motion: Motion | None, frame: str, camera: Camera) -> Motion | None:
    """The motion in the other frame, moved through the camera's pose where it has to be."""
    if motion is None or motion.frame == frame:
        return motion
    points = (camera.to_world if frame == "world" else camera.to_camera)(motion.absolute)
    root = points[:, motion.skeleton.root]
    return motion.replace(joints=points - root[:, None], trajectory=root, frame=frame)


def pack(layers: Sequence[Layer], frame: str, camera: Camera) -> tuple[dict, bytes]:
    """The scene of a page: its JSON-able description and its numbers; every n-th frame where all are too many."""
    numbers = Numbers()
    size = sum(len(layer.times) * layer.bytes_per_frame for layer in layers)
    step = max(1, math.ceil(size / MOST_BYTES))
    start = min(float(layer.times[0]) for layer in layers)
    packed = [_pack_layer(layer, numbers, step, start) for layer in layers]
    times = np.unique(np.concatenate([np.float32(layer.times[::step] - start) for layer in layers]))
    scene = {
        "start": start, "step": step, "times": numbers.add(times, "f4"), "layers": packed, "frame": frame,
        "floor": 0.0 if frame == "world" else lowest_floor(layers[0]), "camera": _pack_camera(camera, frame),
    }  # fmt: skip
    return scene, numbers.to_bytes()


def lowest_floor(layer: Layer) -> float:
    """Height in metres of the lowest joints of people in camera axes, less a sole: where a level floor would be."""
    down = [_absolute(motion)[..., 1] for _, motion in layer.people if motion is not None]
    lowest = [-np.max(np.where(np.isnan(y), -np.inf, y), axis=1) for y in down]
    heights = np.concatenate(lowest) if lowest else np.zeros(0)
    heights = heights[np.isfinite(heights)]
    return float(np.percentile(heights, _FLOOR_PERCENTILE)) - _SOLE if len(heights) else -1.0


def _absolute(motion: Motion) -> np.ndarray:
    return motion.joints if motion.trajectory is None else motion.absolute


def _pack_layer(layer: Layer, numbers: Numbers, step: int, start: float) -> dict:
    meshes = {mesh.person_id: mesh for mesh in layer.meshes}
    people = [_pack_person(number, motion, meshes.get(number), numbers, step)
              | {"color": person_color(place), "contacts": _pack_contacts(layer.contacts.get(number), numbers, step)}
              for place, (number, motion) in enumerate(layer.people)
              if motion is not None or number in meshes]  # fmt: skip
    times = numbers.add(layer.times[::step] - start, "f4")
    return {"kind": layer.kind, "label": layer.label, "times": times, "people": people}


def _pack_person(number: int, motion: Motion | None, mesh: SkinnedMesh | None, numbers: Numbers, step: int) -> dict:
    about = {"id": number, "mesh": None if mesh is None else _pack_mesh(mesh, numbers, step)}
    return about if motion is None else about | _pack_motion(motion, numbers, step)


def _pack_motion(motion: Motion, numbers: Numbers, step: int) -> dict:
    axes, skeleton = SCENE_AXES[motion.frame], motion.skeleton
    path = None if motion.trajectory is None else numbers.add(motion.trajectory[::step] @ axes.T, "f4")
    sides = [1 if joint in skeleton.left else 2 if joint in skeleton.right else 0
             for joint in range(skeleton.num_joints)]
    return {
        "names": list(skeleton.joints), "sides": sides, "root": skeleton.root, "path": path,
        "bones": [[a, b, *bone_radius(skeleton.joints[b])] for a, b in drawn_bones(skeleton)],
        "joints": numbers.add_lengths(motion.joints[::step] @ axes.T),
        "sigma": numbers.add_sigma(None if motion.sigma is None else motion.sigma[::step]),
    }  # fmt: skip


def _pack_contacts(contacts: np.ndarray | None, numbers: Numbers, step: int) -> dict | None:
    """The probability (T, 2) that the left and the right foot stand, by heel or toes."""
    if contacts is None:
        return None
    feet = np.nan_to_num(contacts[::step]).reshape(-1, 2, 2).max(axis=2)
    return numbers.add(np.rint(feet * 255), "u1", 1 / 255)


def _pack_mesh(mesh: SkinnedMesh, numbers: Numbers, step: int) -> dict:
    """Rest mesh with at most four bones a vertex, and the global rotations of the bones as quaternions w, x, y, z."""
    strongest = np.argsort(-mesh.bone_weights, axis=1, kind="stable")[:, :_BONES_PER_VERTEX]
    missing = ((0, 0), (0, _BONES_PER_VERTEX - strongest.shape[1]))
    weights = np.pad(np.take_along_axis(mesh.bone_weights, strongest, axis=1), missing)
    bones = np.pad(np.take_along_axis(mesh.bone_indices, strongest, axis=1), missing)
    path, turned = _global_rotations(mesh, step)
    vertices = len(mesh.rest_vertices)
    return {
        "vertices": numbers.add_lengths(mesh.rest_vertices), "rest": numbers.add(mesh.rest_joints, "f4"),
        "faces": numbers.add(mesh.faces, "u2" if vertices <= 65536 else "u4"), "parents": list(mesh.parents),
        "bones": numbers.add(bones, "u2"), "weights": numbers.add(np.rint(weights * 255), "u1", 1 / 255),
        "path": numbers.add(path, "f4"), "turned": numbers.add_lengths(turned),
    }  # fmt: skip


def _global_rotations(mesh: SkinnedMesh, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of joint 0 (T, 3) metres and quaternions (T, K, 4) of all bones in scene axes; NaN where absent."""
    axes = SCENE_AXES[mesh.frame]
    rotvecs, path = mesh.rotations[::step].astype(np.float64), mesh.trajectory[::step] @ axes.T
    absent = np.isnan(rotvecs).any(axis=(1, 2)) | np.isnan(path).any(axis=1)
    rotations = rotvec_to_matrix(np.where(absent[:, None, None], 0.0, rotvecs))
    rotations[:, 0] = axes @ rotations[:, 0]
    turned, _ = forward_kinematics(rotations, path, np.asarray(mesh.rest_joints, np.float64), mesh.parents)
    quaternions = matrix_to_quat_wxyz(turned)
    quaternions[absent], path[absent] = np.nan, np.nan
    return path, quaternions


def _pack_camera(camera: Camera, frame: str) -> dict:
    """Where the (first) filming camera stands, its axes right, down and ahead, and its half angles' tangents."""
    rotation, translation = np.eye(3), np.zeros(3)
    if frame == "world":
        rotation = np.asarray(camera.rotation, np.float64).reshape(-1, 3, 3)[0]
        translation = np.asarray(camera.translation, np.float64).reshape(-1, 3)[0]
    axes = rotation @ SCENE_AXES[frame].T
    half = [side / 2 / focal for side, focal in zip(camera.image_size, np.broadcast_to(camera.focal, 2), strict=True)]
    return {"eye": (-translation @ axes).tolist(), "axes": axes.tolist(), "half": [float(side) for side in half]}
