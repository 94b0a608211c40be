"""From motion in front of a camera to motion in the world: Z up, metres, on a floor, with feet that stand still.

Where gravity points and where the floor lies is told by the camera's own pose, where that is known, else by the people:
see `lifting.gravity`. All people of a take share the floor and, through it, the scale. The raw motion in camera axes
stays beside the motion in the world, which is smoothed, has bones of constant length and feet locked where they stand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lifting.cameras import Camera
from lifting.contacts import CLEARANCES, contact_probabilities
from lifting.foot_locking import correct_path, hold_bone_lengths, lock_feet
from lifting.gravity import ANKLES, estimate_gravity, floor_offset, is_witness
from lifting.ground import Ground
from lifting.keypoints import Keypoints2D
from lifting.levelling import level_take
from lifting.motion import CONTACT_POINTS, BodyMotion, Motion, Person, Take
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix, unit_vectors
from lifting.smoothing import cut_off, smooth
from lifting.standing import ankles_as_seen, standing_probabilities

__all__ = ["CONTACT_POINTS", "DEFAULT_SMOOTHING", "Placement", "place_in_world", "placed_again", "presented"]

# No fit is recorded for these values, as there is in `lifting.standing` and `lifting.gravity`: take them for choices.
# `experiments.benchmark_world` measures what they do together (gravity, slip, scale, MPJPE).
DEFAULT_SMOOTHING = 0.5
CALIBRATED = 0.5  # degrees, of the gravity of a calibrated camera
DOUBTFUL = 15.0  # degrees about gravity beyond which it is called assumed
DOUBT = 0.3  # odds of standing from which a foot is held as if it stood: one that does not may drag a little
SURE = 4  # power of the probability with which a standing foot moves the whole person, not its leg alone
LOWEST_CAMERA = 0.2  # metres over the feet: below it a floor says nothing about the scale
FLOOR_ERROR, SIZE_ERROR = 0.06, 0.06  # metres, of a floor; share, of a person's size as the network guesses it
LARGEST = 1.2  # whose size a shared floor would raise by more stands on something above it
CONTRADICTION = 0.1  # share by which a floor may disagree with a stated height before the report says so
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class Placement:
    """How the world lies to the camera: ``x_camera = rotation @ x_world + translation``.

    Attributes:
        rotation: (3, 3), or (T, 3, 3) of a moving camera.
        translation: (3,) or (T, 3) metres.
        sigma_degrees: standard deviation of the direction of gravity about its least certain axis.
        source: what told gravity: ``path``, ``posture``, ``camera`` (assumed level) or ``calibration``.
        scale: factor by which camera height or calibration changed the sizes of the lift.
        assumptions: sentences.
    """

    rotation: np.ndarray
    translation: np.ndarray
    sigma_degrees: float
    source: str
    scale: float = 1.0
    assumptions: tuple[str, ...] = ()

    def to_world(self, points: np.ndarray, frames: slice = slice(None)) -> np.ndarray:
        """Points (T, ..., 3) in camera axes of these frames, in world axes."""
        rotation, translation = self._pose(frames, points.ndim)
        return (np.swapaxes(rotation, -1, -2) @ (points - translation)[..., None])[..., 0]

    def directions_to_world(self, directions: np.ndarray, frames: slice = slice(None)) -> np.ndarray:
        """Directions (T, ..., 3) in camera axes of these frames, in world axes."""
        rotation, _ = self._pose(frames, directions.ndim)
        return (np.swapaxes(rotation, -1, -2) @ directions[..., None])[..., 0]

    def camera_in_world(self, frames: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Rotation (..., 3, 3) from camera axes and place (..., 3) metres of the camera in these frames."""
        rotation, translation = self._pose(frames, 2)
        turned = np.swapaxes(rotation, -1, -2)
        return turned, -(turned @ translation[..., None])[..., 0]

    def matrices_to_world(self, rotations: np.ndarray) -> np.ndarray:
        """Rotations (T, 3, 3) of things into camera axes, of every frame, as rotations into world axes."""
        return np.swapaxes(self.rotation, -1, -2) @ rotations

    def _pose(self, frames: slice, ndim: int) -> tuple[np.ndarray, np.ndarray]:
        between = (1,) * (ndim - 2)
        rotation, translation = self.rotation, self.translation
        if rotation.ndim == 3:
            rotation = rotation[frames]
            rotation = rotation.reshape(len(rotation), *between, 3, 3)
        if translation.ndim == 2:
            translation = translation[frames]
            translation = translation.reshape(len(translation), *between, 3)
        return rotation, translation

    def describe(self) -> dict:
        """What the metadata of a take says of it."""
        up = self.rotation[..., :, 2]
        return {"rotation": self.rotation.tolist(), "translation": self.translation.tolist(), "up": up.tolist(),
                "sigma_degrees": round(self.sigma_degrees, 3), "source": self.source, "scale": round(self.scale, 6),
                "assumptions": list(self.assumptions)}


def place_in_world(
    take: Take, *, smoothing: float = DEFAULT_SMOOTHING, camera_height: float | None = None
) -> Take:
    """The take with everybody's motion in the world beside the raw one, and with their contacts.

    Args:
        take: lifted, in camera axes. A camera with a pose tells gravity (its world's +Z) and the floor (Z = 0); one
            pose per frame makes it a moving camera. Without a pose the camera is taken to be still.
        smoothing: 0 (none) to 1 (strongest); see `lifting.smoothing`.
        camera_height: metres of the camera over the floor; fixes the scale of everybody, raw motions included.

    Returns the take with `Person.world`, `Person.contacts` and ``metadata["world"]``; the take as it is where nobody
    has a trajectory or it is in the world already. Raises ValueError for a smoothing outside 0 to 1, a camera height
    that is not positive, and poses of another number of frames.
    """
    cut_off(smoothing)
    check_camera_height(camera_height)
    lifted = [person for person in take.people if _is_placeable(person)]
    if not lifted or any(person.motion.frame != "camera" for person in lifted):
        return take
    if camera_height is not None and has_pose(take.camera):
        raise ValueError(f"got a camera height of {camera_height:g} m and a calibrated pose, which tells it; drop one.")
    placement, factors = _place(take, lifted, camera_height)
    people = tuple(_with_world(_scaled(person, factors.get(person.id, 1.0)), take.camera, placement, smoothing)
                   for person in take.people)
    scales = {str(number): round(factor, 6) for number, factor in factors.items()}
    about = {**placement.describe(), "smoothing": smoothing, "scales": scales}
    return take.replace(people=people, metadata={**take.metadata, "world": about},
                        assumed=(*take.assumed, *placement.assumptions))


def check_camera_height(height: float | None) -> None:
    """ValueError for a camera that is nowhere above a floor."""
    if height is not None and not 0 < height < np.inf:
        raise ValueError(f"got a camera height of {height} m, expected more than 0: metres from the floor to the lens.")


def presented(take: Take) -> Take:
    """The take as people look at it: in the world where it was placed there, bodies and camera moved alike.

    Without a world it is levelled where fitting bodies has found the floor (`lifting.levelling`), else left as it is.
    """
    about = take.metadata.get("world")
    lifted = [person for person in take.people if person.motion is not None]
    if not about or not lifted or any(person.world is None for person in lifted):
        return level_take(take)
    if any(part.frame == "world" for person in take.people for part in (person.motion, person.body) if part):
        return take
    placement = _recorded(about)
    people = tuple(_present(person, placement) for person in take.people)
    camera = dataclasses.replace(take.camera, rotation=placement.rotation, translation=placement.translation)
    return take.replace(people=people, camera=camera)


def placed_again(take: Take) -> Take:
    """The take, after its raw motions have changed, with motions in the world and contacts made anew from them.

    In the world, and with the smoothing, in which `place_in_world` had placed it; the take as it is where it had not.
    """
    about = take.metadata.get("world")
    if not about:
        return take
    people = tuple(person if person.world is None else _with_world(person, take.camera, _recorded(about),
                                                                   about["smoothing"]) for person in take.people)
    return take.replace(people=people)


def _recorded(about: dict) -> Placement:
    return Placement(np.array(about["rotation"]), np.array(about["translation"]), about["sigma_degrees"],
                     about["source"])


def _present(person: Person, placement: Placement) -> Person:
    body = None if person.body is None else _moved_body(person.body, placement)
    return dataclasses.replace(person, motion=person.world, body=body)


def _moved_body(body: BodyMotion, placement: Placement) -> BodyMotion:
    root = placement.matrices_to_world(rotvec_to_matrix(body.rotations[:, 0].astype(np.float64)))
    rotations = np.concatenate([matrix_to_rotvec(root)[:, None], body.rotations[:, 1:]], axis=1)
    return body.replace(rotations=rotations, trajectory=placement.to_world(body.trajectory), frame="world")


def _is_placeable(person: Person) -> bool:
    motion = person.motion
    return motion is not None and is_witness(motion) and bool(present_frames(motion).any())


def present_frames(motion: Motion) -> np.ndarray:
    """(T,) bool, whether joints and path of a person are known."""
    return np.isfinite(motion.joints).all((1, 2)) & np.isfinite(motion.trajectory).all(1)


def _span(motion: Motion) -> slice:
    first, last = np.flatnonzero(present_frames(motion))[[0, -1]]
    return slice(int(first), int(last) + 1)


def has_pose(camera: Camera) -> bool:
    """Whether a camera says where it stands: any pose but that of world axes that are its own."""
    return bool((camera.rotation != np.eye(3)).any() or camera.translation.any())


def _place(take: Take, people: Sequence[Person], camera_height: float | None) -> tuple[Placement, dict[int, float]]:
    """Where the world lies, and the factor by which each person's size changes."""
    if has_pose(take.camera):
        stated = take.metadata.get("height_m") is not None
        return _place_by_calibration(take.camera, people, len(take), stated)
    main, motions = people[0], [present_part(person.motion) for person in people]
    ground = estimate_gravity(motions)
    offsets = [ground.offset, *(_floor_of(motion, ground.up) for motion in motions[1:])]
    wanted, assumptions = ground.offset, []
    if camera_height is not None:
        if not ground.offset < -LOWEST_CAMERA:
            raise ValueError(f"got a camera height of {camera_height:g} m, but the people's feet are seen at or above "
                             "the camera: it cannot fix the scale; leave it out, or pass the height of a person.")
        wanted = -camera_height
        ground = dataclasses.replace(ground, offset=wanted)
    doubts = [_floor_doubt(motion, motions[0], ground) for motion in motions]
    factors = {person.id: _shared_scale(offset, wanted, doubt, fixed=camera_height is not None or person is main)
               for person, offset, doubt in zip(people, offsets, doubts, strict=True)}
    if ground.sigma_degrees > DOUBTFUL or ground.source == "camera":
        assumptions.append(f"the camera was taken to be about level (gravity within {ground.sigma_degrees:.0f} "
                           "degrees): the motion hardly tells it")
    rotation, translation = ground.world(motions[0].trajectory[0] * factors[main.id])
    placement = Placement(rotation.T, -rotation.T @ translation, ground.sigma_degrees, ground.source,
                          factors[main.id], tuple(assumptions))
    return placement, factors


def _place_by_calibration(
    camera: Camera, people: Sequence[Person], frames: int, stated: bool
) -> tuple[Placement, dict[int, float]]:
    """The calibration's own world; feet on its floor Z = 0 tell everybody's scale, where the camera is above it.

    A height `stated` for the main person, the first, is kept, and so is the size of who stands on something.
    """
    poses = {len(part) for part, still in ((camera.rotation, 2), (camera.translation, 1)) if part.ndim > still}
    if poses - {frames}:
        raise ValueError(f"the camera has poses for {poses.pop()} frames, the take has {frames}; pass one for each "
                         "frame of the take, or a single one.")
    assumptions = ["+Z of the camera's calibration was taken to be up and Z = 0 to be the floor"]
    placement = Placement(camera.rotation, camera.translation, CALIBRATED, "calibration")
    factors = {person.id: _scale_on_floor(person.motion, placement) for person in people}
    for person in people:
        factor, keeps = factors[person.id], stated and person is people[0]
        if keeps and abs(factor - 1) > CONTRADICTION:
            assumptions.append(f"the height given for person {person.id} was kept, though with their feet on the "
                               f"calibration's floor it would be {factor:.2f} times that")
        elif not keeps and factor > LARGEST:
            assumptions.append(f"person {person.id} was left at the lift's own size: to stand on the calibration's "
                               f"floor they would have to be {factor:.2f} times as tall; are its lengths in metres?")
        if keeps or factor > LARGEST:
            factors[person.id] = 1.0
    placement = dataclasses.replace(placement, scale=factors[people[0].id], assumptions=tuple(assumptions))
    return placement, factors


def _scale_on_floor(motion: Motion, placement: Placement) -> float:
    """The factor, seen from the camera, with which a person's standing feet are on the floor Z = 0.

    1 where the camera is too low for feet to tell.
    """
    span = _span(motion)
    feet = motion.absolute[span][:, motion.skeleton.indices(ANKLES)].astype(np.float64)
    standing = contact_probabilities(placement.to_world(feet, span), motion.fps, up=UP)
    below = -placement.directions_to_world(feet, span)[..., 2]
    _, place = placement.camera_in_world(span)
    height = np.broadcast_to(place[..., 2], len(feet))[:, None] - CLEARANCES["ankle"]
    weight = standing * (below > LOWEST_CAMERA) * (height > LOWEST_CAMERA)
    if weight.sum() < 1.0:
        return 1.0
    ratio = np.where(weight > 0, height / np.where(below > LOWEST_CAMERA, below, 1.0), 1.0)
    order = np.argsort(ratio, axis=None)
    passed = np.cumsum(weight.ravel()[order])
    return float(ratio.ravel()[order[np.searchsorted(passed, passed[-1] / 2)]])


def _floor_doubt(motion: Motion, main: Motion, ground: Ground) -> float:
    """Metres by which the floor under one person may differ from the one under the main person: gravity errs too."""
    between = np.median(motion.trajectory, axis=0) - np.median(main.trajectory, axis=0)
    distance = np.linalg.norm(between - ground.up * (between @ ground.up))
    return float(np.hypot(FLOOR_ERROR, distance * np.radians(ground.sigma_degrees)))


def _shared_scale(offset: float, wanted: float, doubt: float, fixed: bool) -> float:
    """The factor that brings a floor at `offset` metres along gravity to the one that everybody shares.

    Where the size is known otherwise (not `fixed`), only as far as heights over a floor, which err by `doubt` metres,
    tell more than it: a camera close to the floor says little. Who would have to be larger by more than twice what
    both may err stands on something, and keeps size and height.
    """
    if offset * wanted <= 0:
        return 1.0
    if fixed:
        return wanted / offset
    change = np.log(wanted / offset)
    if change > min(2 * np.hypot(doubt / abs(wanted), SIZE_ERROR), np.log(LARGEST)):
        return 1.0
    certainty = (wanted / doubt) ** 2
    return float(np.exp(change * certainty / (certainty + 1 / SIZE_ERROR**2)))


def _floor_of(motion: Motion, up: np.ndarray) -> float:
    feet = motion.absolute[:, motion.skeleton.indices(ANKLES)].astype(np.float64)
    return floor_offset(feet, contact_probabilities(feet, motion.fps, up=up), up)


def present_part(motion: Motion) -> Motion:
    """The motion (with a trajectory) within a person's span, gaps bridged by straight lines."""
    span = _span(motion)
    part, known = motion.slice(span.start, span.stop), present_frames(motion)[span]
    if known.all():
        return part
    return part.replace(**{name: _bridged(getattr(part, name), known) for name in ("joints", "trajectory", "sigma")
                           if getattr(part, name) is not None})


def _bridged(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values (n, ...) with the frames that are not `known` (n,) interpolated."""
    frames = np.arange(len(values))
    after = np.clip(np.searchsorted(frames[known], frames), 1, None) if known.sum() > 1 else None
    if after is None:
        return np.broadcast_to(values[known], values.shape)
    seen = frames[known]
    after = np.minimum(after, len(seen) - 1)
    low, high = seen[after - 1], seen[after]
    part = ((frames - low) / (high - low)).reshape(-1, *(1,) * (values.ndim - 1))
    return np.where(known.reshape(part.shape), values, values[low] * (1 - part) + values[high] * part)


def _scaled(person: Person, factor: float) -> Person:
    """The person with a lift of another size, at a distance that looks the same."""
    if factor == 1.0:
        return person
    motion = person.motion
    sigma = None if motion.sigma is None else motion.sigma * factor
    motion = motion.replace(joints=motion.joints * factor, trajectory=motion.trajectory * factor, sigma=sigma)
    return dataclasses.replace(person, motion=motion)


def _with_world(person: Person, camera: Camera, placement: Placement, smoothing: float) -> Person:
    if not _is_placeable(person):
        return person
    span = _span(person.motion)
    motion = present_part(person.motion)
    standing = _standing(motion, person.keypoints.slice(span.start, span.stop), camera, placement, span)
    world = _world_motion(motion, standing, placement, span, smoothing)
    contacts = np.repeat(standing, 2, axis=1)
    return dataclasses.replace(person, world=_padded(world, span, len(person.motion)),
                               contacts=_pad(contacts, span, len(person.motion)))


def _standing(
    motion: Motion, keypoints: Keypoints2D, camera: Camera, placement: Placement, span: slice
) -> np.ndarray:
    """Probabilities (T, 2) that the left and the right foot stand, from the rays of the ankles."""
    points = keypoints.to("lift17")
    ankles = points.skeleton.indices(ANKLES)
    rays = camera.rays(points.xy[:, ankles]).astype(np.float64)
    rays[~(points.score[:, ankles] > 0)] = np.nan
    lifted = motion.absolute[:, motion.skeleton.indices(ANKLES)].astype(np.float64)
    seen = ankles_as_seen(lifted, rays, motion.fps)
    view = unit_vectors(placement.directions_to_world(seen, span))
    return standing_probabilities(placement.to_world(seen, span), view, motion.fps)



def _world_motion(
    motion: Motion, standing: np.ndarray, placement: Placement, span: slice, smoothing: float
) -> Motion:
    """One person's motion in the world over their span; standing: (T, 2) probabilities."""
    skeleton, fps = motion.skeleton, motion.fps
    root = smooth(placement.to_world(motion.trajectory.astype(np.float64), span), fps, smoothing)
    joints = smooth(placement.directions_to_world(motion.joints.astype(np.float64), span), fps, smoothing)
    joints = hold_bone_lengths(joints, skeleton)
    ankles, clearance = list(skeleton.indices(ANKLES)), CLEARANCES["ankle"]
    view = unit_vectors(placement.directions_to_world(motion.trajectory.astype(np.float64), span))
    root = root + correct_path(joints[:, ankles] + root[:, None], standing**SURE, view, fps, clearance)
    locked = standing / (standing + DOUBT * (1 - standing))
    absolute = lock_feet(joints + root[:, None], skeleton, locked, fps, clearance)
    return motion.replace(joints=absolute - root[:, None], trajectory=root, frame="world")


def _padded(motion: Motion, span: slice, frames: int) -> Motion:
    return motion.replace(**{name: None if value is None else _pad(value, span, frames) for name, value in (
        ("joints", motion.joints), ("trajectory", motion.trajectory), ("sigma", motion.sigma))})


def _pad(values: np.ndarray, span: slice, frames: int) -> np.ndarray:
    """Values (n, ...) of a span of frames, NaN in the others."""
    whole = np.full((frames, *values.shape[1:]), np.nan, np.float32)
    whole[span] = values
    return whole
