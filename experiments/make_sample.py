"""Make `data/sample.mp4` and `data/sample_truth.npz`: a walking person whose 3D joints are known exactly.

One result: a clip of 4.5 s that the project may redistribute, for the README's first command and the end-to-end test.
The body is `anny` (code Apache-2.0, its MakeHuman assets CC0; default rig and topology only), the walk is made of the
formulas below (no motion capture), the picture comes from a small z-buffer rasteriser in numpy. Nothing here imports
the library, so the truth does not depend on the code that it tests. The same versions give the same result.

To re-make it (3 to 6 minutes on two cores; the first use of anny adds 1 to 2 minutes and 830 MB of cache, by default
in ~/.cache/anny), in an environment of its own because anny is a development dependency only::

    python3 -m venv venv_anny && venv_anny/bin/pip install torch==2.13.0 anny==0.6.2 av==18.1.0 click
    venv_anny/bin/python -m experiments.make_sample

To see what MediaPipe's own runtime finds in it (in the environment with `mediapipe==0.10.21`)::

    python -m experiments.make_sample --check

Frames: anny's rest axes and the world are right-handed, Z up, metres; anny faces -y at rest and +x is its left. The
world's floor is z = 0, the camera stands above the origin and looks along +y. The camera frame has OpenCV axes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

DATA = Path(__file__).resolve().parent.parent / "data"
H36M17 = (
    "hip right_hip right_knee right_ankle left_hip left_knee left_ankle spine thorax neck_nose head "
    "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist"
).split()
COCO17 = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
).split()
LICENCE = (
    "Rendered by experiments/make_sample.py of this project (Apache-2.0) from the body model anny 0.6.2 "
    "(code Apache-2.0, (c) NAVER Corp.; MakeHuman/MPFB2 assets CC0 1.0); posed by formulas, no motion capture. "
    "Free to use and redistribute under Apache-2.0."
)


@dataclass(frozen=True)
class Shot:
    """The clip: frames, pinhole camera (pixels, metres, degrees below the horizon) and the walk's numbers."""

    num_frames: int = 135
    fps: int = 30
    image_size: tuple[int, int] = (960, 720)
    focal: float = 900.0
    camera_height: float = 1.4
    pitch: float = 8.0
    start: tuple[float, float] = (-2.25, 5.75)
    headings: tuple[float, float] = (15.0, -100.0)
    speed: float = 1.12
    stride: float = 1.12
    supersampling: int = 2
    seed: int = 20

    @property
    def center(self) -> tuple[float, float]:
        """Principal point, pixels."""
        return self.image_size[0] / 2, self.image_size[1] / 2

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) matrix from world axes to camera axes."""
        sine, cosine = np.sin(np.radians(self.pitch)), np.cos(np.radians(self.pitch))
        return np.array([[1, 0, 0], [0, -sine, -cosine], [0, cosine, -sine]])

    @property
    def eye(self) -> np.ndarray:
        """(3,) place of the camera in the world, metres."""
        return np.array([0.0, 0.0, self.camera_height])


# ---------------------------------------------------------------------------------------------------- body


@dataclass(frozen=True)
class Body:
    """A skinned body at rest: `skin` is the bare surface, `vertices` the same with clothes, hair and shoes on."""

    skin: np.ndarray  # (V, 3) metres
    vertices: np.ndarray  # (V, 3) metres
    faces: np.ndarray  # (F, 3)
    weights: np.ndarray  # (V, B)
    labels: tuple[str, ...]
    parents: tuple[int, ...]
    heads: np.ndarray  # (B, 3) metres
    parts: np.ndarray  # (F,) number into PARTS
    coco_weights: np.ndarray  # (17, V)

    def head(self, label: str) -> np.ndarray:
        """Return the (3,) rest position of a bone's joint."""
        return self.heads[self.labels.index(label)]


PARTS = ("trunk", "head", "eye", "arm", "leg")
PHENOTYPE = {"gender": 0.0, "age": 0.6, "muscle": 0.55, "weight": 0.48, "height": 0.44, "proportions": 0.6}


def load_body() -> Body:
    """Return the person: anny's default rig and topology at one phenotype, dressed."""
    import anny
    import torch

    model = anny.Anny(skinning_method="lbs")
    identity = torch.eye(4)[None, None].repeat(1, model.bone_count, 1, 1)
    phenotype = {name: torch.tensor([value]) for name, value in PHENOTYPE.items()}
    rest = model(pose_parameters=identity, phenotype_kwargs=phenotype)
    skin = rest["rest_vertices"][0].double().numpy()
    faces = model.faces.numpy()
    weights = model.dense_vertex_bone_weights.double().numpy()
    labels = tuple(model.bone_labels)
    parts = face_parts(weights, labels, faces)
    heads = rest["rest_bone_heads"][0].double().numpy()
    coco = anny.KeypointsRegressor.coco(model, labels=COCO17).regression_weights.double().numpy()
    bare = Body(skin, skin, faces, weights, labels, tuple(model.bone_parents), heads, parts, coco)
    return Body(**{**vars(bare), "vertices": dress(bare)})


def face_parts(weights: np.ndarray, labels: tuple[str, ...], faces: np.ndarray) -> np.ndarray:
    """Return the (F,) body part of each face: that of the bone that moves its vertices most."""
    prefixes = {"head": 1, "neck": 1, "eye": 2, "upperarm": 3, "lowerarm": 3, "wrist": 3, "finger": 3, "metacarpal": 3}
    prefixes |= {"upperleg": 4, "lowerleg": 4, "foot": 4, "toe": 4}
    bone_part = [next((part for prefix, part in prefixes.items() if label.startswith(prefix)), 0) for label in labels]
    return np.asarray(bone_part)[weights[faces].sum(1).argmax(1)]


def smooth(vertices: np.ndarray, faces: np.ndarray, amount: np.ndarray, rounds: int) -> np.ndarray:
    """Return vertices pulled `rounds` times towards their neighbours' mean by `amount` (V,) in [0, 1]."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    degree = np.bincount(edges[:, 0], minlength=len(vertices)).clip(1)[:, None]
    for _ in range(rounds):
        total = np.stack([np.bincount(edges[:, 0], vertices[edges[:, 1], axis], len(vertices)) for axis in range(3)], 1)
        vertices = vertices + amount[:, None] * (total / degree - vertices)
    return vertices


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return (V, 3) unit normals, faces weighted by their area."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    index = faces.ravel()
    spread = np.repeat(normals, 3, axis=0)
    total = np.stack([np.bincount(index, spread[:, axis], len(vertices)) for axis in range(3)], 1)
    return total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-12)


def ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 below `low`, 1 above `high` and a smooth step between (`low` > `high` turns it round)."""
    part = np.clip((value - low) / (high - low), 0, 1)
    return part * part * (3 - 2 * part)


def clothes(body: Body) -> dict[str, np.ndarray]:
    """Return how much (V,), 0 to 1, each vertex of the skin belongs to each garment, and which chest is flattened."""
    y, z = body.skin[:, 1], body.skin[:, 2]
    part = np.full(len(body.skin), -1)
    part[body.faces.ravel()] = np.repeat(body.parts, 3)
    cut = Cuts.of(body)
    trunk, head, arm, leg = (part == PARTS.index(name) for name in ("trunk", "head", "arm", "leg"))
    front = trunk * ramp(y, cut.shoulder[1] - 0.03, cut.shoulder[1] - 0.07)
    chest = front * ramp(z, cut.waist + 0.08, cut.waist + 0.16)
    sleeve = arm * ramp(cut.along_arm(body.skin), cut.sleeve + 0.04, cut.sleeve - 0.04)
    below_waist = ramp(z, cut.waist + 0.02, cut.waist - 0.02)
    return {
        "shoes": leg * ramp(z, cut.shoe + 0.015, cut.shoe - 0.01),
        "trousers": (leg | trunk) * below_waist * ramp(z, cut.cuff - 0.01, cut.cuff + 0.01),
        "flare": leg * ramp(z, cut.knee, cut.cuff),
        "shirt": trunk * ramp(z, cut.hem - 0.01, cut.hem + 0.01) * (1 - cut.inside_collar(body.skin)) + sleeve,
        "chest": chest * ramp(z, cut.shoulder[2] + 0.02, cut.shoulder[2] - 0.04),
        "hair": head * ramp(cut.above_hairline(body.skin), 0.0, 0.025),
    }


def dress(body: Body) -> np.ndarray:
    """Return the (V, 3) rest vertices with cloth, hair and shoes added to the bare skin."""
    worn = clothes(body)
    vertices = smooth(body.skin, body.faces, 0.6 * worn["shirt"], 40)
    vertices = smooth(vertices, body.faces, 0.9 * worn["chest"], 250)
    vertices = smooth(vertices, body.faces, 0.6 * worn["trousers"], 12)
    for side in (1, -1):
        shoe = (worn["shoes"] > 0.01) & (side * body.skin[:, 0] > 0)
        vertices[shoe] += worn["shoes"][shoe, None] * (onto_hull(vertices[shoe]) - vertices[shoe])
    vertices = smooth(vertices, body.faces, 0.5 * worn["shoes"], 6)
    vertices = smooth(vertices, body.faces, 0.5 * worn["hair"], 10)
    thickness = 0.010 * worn["trousers"] * (1 + worn["flare"])
    thickness = thickness + 0.011 * worn["shirt"] + 0.011 * worn["shoes"] + 0.016 * worn["hair"]
    vertices = vertices + thickness[:, None] * vertex_normals(vertices, body.faces)
    sole = vertices[worn["shoes"] > 0.5, 2].min() + 0.004
    vertices[:, 2] = np.maximum(vertices[:, 2], sole)
    return vertices


def onto_hull(points: np.ndarray, directions: int = 1500) -> np.ndarray:
    """Return points (N, 3) pushed outwards onto their convex hull (toes become the front of a shoe)."""
    count = np.arange(directions) + 0.5
    rise, around = 1 - 2 * count / directions, count * np.pi * (1 + 5**0.5)
    flat = np.sqrt(1 - rise**2)
    normals = np.stack([flat * np.cos(around), flat * np.sin(around), rise], 1)
    middle = (points.min(0) + points.max(0)) / 2
    outwards = (points - middle) @ normals.T
    factor = outwards.max(0) / np.where(outwards > 1e-9, outwards, 1e-9)
    return middle + factor.min(1, keepdims=True) * (points - middle)


@dataclass(frozen=True)
class Cuts:
    """Where the clothes end, in rest coordinates (metres), read off the body's own joints."""

    shoe: float
    cuff: float
    knee: float
    waist: float
    hem: float
    sleeve: float
    shoulder: np.ndarray
    upper_arm: np.ndarray
    neck: np.ndarray
    eye: np.ndarray

    @classmethod
    def of(cls, body: Body) -> Cuts:
        """Return the cuts for a body."""
        ankle, knee, hip = (body.head(name) for name in ("foot.L", "lowerleg01.L", "upperleg01.L"))
        shoulder, elbow = body.head("upperarm01.L"), body.head("lowerarm01.L")
        return cls(
            shoe=ankle[2] + 0.005,
            cuff=ankle[2] - 0.01,
            knee=knee[2],
            waist=hip[2] + 0.10,
            hem=hip[2] + 0.05,
            sleeve=0.62,
            shoulder=shoulder,
            upper_arm=elbow - shoulder,
            neck=body.head("neck01"),
            eye=body.head("eye.L"),
        )

    def along_arm(self, points: np.ndarray) -> np.ndarray:
        """Return how far (N, 3) points lie along the upper arm: 0 at the shoulder, 1 at the elbow."""
        mirrored = np.stack([np.abs(points[:, 0]), points[:, 1], points[:, 2]], 1)
        return (mirrored - self.shoulder) @ self.upper_arm / (self.upper_arm @ self.upper_arm)

    def inside_collar(self, points: np.ndarray) -> np.ndarray:
        """Return 1 for (N, 3) points of the neck above the shirt's round collar, 0 outside it."""
        height = points[:, 2] - (self.neck[2] - 0.015 + 0.45 * (points[:, 1] - self.neck[1] - 0.03))
        return ramp(height - 0.55 * np.maximum(np.abs(points[:, 0]) - 0.06, 0), -0.004, 0.004)

    def above_hairline(self, points: np.ndarray) -> np.ndarray:
        """Return the distance (N,) in metres of head points above the hairline; negative is skin."""
        x, y, z = np.abs(points[:, 0]), points[:, 1] - self.eye[1], points[:, 2] - self.eye[2]
        line = 0.062 - 0.78 * (y - 0.005)
        ear = (x > 0.070) & (z < 0.02) & (y < 0.115)
        return np.where(ear, -1.0, z - line)


# ---------------------------------------------------------------------------------------------------- walk


def axis_rotation(axis: int, angle: np.ndarray) -> np.ndarray:
    """Return (..., 3, 3) right-handed rotations by `angle` (...,) radians about a coordinate axis."""
    angle = np.asarray(angle, float)
    matrix = np.zeros((*angle.shape, 3, 3))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[..., axis, axis] = 1
    matrix[..., first, first] = matrix[..., second, second] = np.cos(angle)
    matrix[..., second, first] = np.sin(angle)
    matrix[..., first, second] = -np.sin(angle)
    return matrix


def turn(heading: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return (T, 3, 3) rotations of a body part; `angles` (T, 3): yaw left, lean forward, left side down, radians."""
    yaw = axis_rotation(2, heading + np.pi / 2 + angles[:, 0])
    return yaw @ axis_rotation(0, angles[:, 1]) @ axis_rotation(1, angles[:, 2])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (..., 3) scaled to length one."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def limb_frame(direction: np.ndarray, hinge: np.ndarray) -> np.ndarray:
    """Return (..., 3, 3) frames whose first column is the bone and whose second is the joint's hinge axis."""
    direction = unit(direction)
    hinge = unit(hinge - (hinge * direction).sum(-1, keepdims=True) * direction)
    return np.stack([direction, hinge, np.cross(direction, hinge)], -1)


def periodic_curve(knots: tuple[float, ...], values: tuple[float, ...], phase: np.ndarray) -> np.ndarray:
    """Return a smooth curve of period 1 through knots in [0, 1), without overshoot (Fritsch-Carlson slopes)."""
    x = np.concatenate([np.asarray(knots) - 1, knots, np.asarray(knots) + 1])
    y = np.tile(values, 3)
    slope = np.diff(y) / np.diff(x)
    same = slope[1:] * slope[:-1] > 0
    harmonic = 2 * slope[1:] * slope[:-1] / np.where(same, slope[1:] + slope[:-1], 1)
    tangent = np.concatenate([[0], np.where(same, harmonic, 0), [0]])
    phase = np.mod(phase, 1)
    index = np.searchsorted(x, phase, side="right") - 1
    return hermite((phase - x[index]) / np.diff(x)[index], y[index], y[index + 1], *(
        tangent[index + step] * np.diff(x)[index] for step in (0, 1)))


def hermite(part, start, stop, start_slope, stop_slope):
    """Return the cubic through `start` and `stop` with the given slopes, at `part` in [0, 1]."""
    square, cube = part**2, part**3
    return (
        (2 * cube - 3 * square + 1) * start
        + (3 * square - 2 * cube) * stop
        + (cube - 2 * square + part) * start_slope
        + (cube - square) * stop_slope
    )


class Route:
    """The curve on the floor that the pelvis follows: place and heading as functions of the way walked, metres."""

    def __init__(self, shot: Shot) -> None:
        """Integrate the shot's heading from 2 m before its start to 2 m after its end."""
        length = shot.speed * shot.num_frames / shot.fps
        self.way = np.linspace(-2, length + 2, 4001)
        eased = self.way / length + 0.06 * np.sin(2 * np.pi * self.way / length) / (2 * np.pi)
        first, last = np.radians(shot.headings)
        self.headings = first + (last - first) * eased
        step = self.way[1] - self.way[0]
        steps = np.stack([np.cos(self.headings), np.sin(self.headings)], 1) * step
        places = np.cumsum(steps, 0) - 0.5 * steps
        self.places = places + shot.start - places[np.argmin(np.abs(self.way))]

    def heading(self, way: np.ndarray) -> np.ndarray:
        """Return headings (T,) radians, counter-clockwise from the world's +x."""
        return np.interp(way, self.way, self.headings)

    def place(self, way: np.ndarray, left: np.ndarray | float = 0.0) -> np.ndarray:
        """Return world points (T, 2) `left` metres to the left of the route."""
        heading = self.heading(way)
        middle = np.stack([np.interp(way, self.way, self.places[:, axis]) for axis in (0, 1)], -1)
        return middle + np.asarray(left)[..., None] * np.stack([-np.sin(heading), np.cos(heading)], -1)


STANCE = 0.62  # part of a stride that a foot is on the floor
LEAD = 0.275  # a foot lands this part of a stride ahead of the pelvis
FOOT_KNOTS = (0.0, 0.08, 0.30, 0.42, 0.52, 0.62, 0.66, 0.76, 0.86, 0.94)
FOOT_PITCH = (18.0, 0.0, 0.0, -7.0, -24.0, -53.0, -55.0, -28.0, -2.0, 14.0)  # degrees, toes up
TOE_KNOTS = (0.0, 0.08, 0.30, 0.42, 0.52, 0.62, 0.70, 0.82)
TOE_BEND = (8.0, 0.0, 0.0, 7.0, 23.0, 52.0, 40.0, 8.0)  # degrees, toes up against the foot


@dataclass(frozen=True)
class Foot:
    """One foot over time: ankle (T, 3) metres, heading, pitch (toes up) and toe bend (T,) radians."""

    ankle: np.ndarray
    heading: np.ndarray
    pitch: np.ndarray
    bend: np.ndarray


@dataclass(frozen=True)
class Planter:
    """Puts one foot on the floor: `phase` strides at way 0, `side` +1 left, -1 right, pivots (forward, up) of ankle."""

    shot: Shot
    route: Route
    phase: float
    side: float
    height: float  # of the ankle above the sole, metres
    heel: np.ndarray  # (2,) metres
    ball: np.ndarray  # (2,) metres

    @classmethod
    def of(cls, shot: Shot, route: Route, body: Body, phase: float, side: float) -> Planter:
        """Return the planter of a body's foot; the ball is the toes' joint, so that bent toes stay where they are."""
        ankle, toe = body.head("foot.L"), body.head("toe1-1.L")
        height = ankle[2] - body.vertices[:, 2].min()
        ball = np.array([ankle[1] - toe[1], toe[2] - ankle[2]])
        return cls(shot, route, phase, side, height, np.array([-0.030, -height]), ball)

    def plant(self, count: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Return ankle and heading (T, 4) in footprint number `count` at `part` of the stride, without any sliding."""
        way = (count - self.phase + LEAD) * self.shot.stride
        heading = self.route.heading(way) - self.side * np.radians(6)
        pitch = foot_pitch(part)
        pivot = np.where((pitch > 0)[:, None], self.heel, self.ball)
        forward = pivot[:, 0] - (np.cos(pitch) * pivot[:, 0] - np.sin(pitch) * pivot[:, 1])
        up = pivot[:, 1] - (np.sin(pitch) * pivot[:, 0] + np.cos(pitch) * pivot[:, 1])
        ahead = np.stack([np.cos(heading), np.sin(heading)], 1)
        spot = self.route.place(way, self.side * 0.055) + forward[:, None] * ahead
        return np.column_stack([spot, self.height + up, heading])

    def swing(self, count: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Return ankle and heading (T, 4) on the way from footprint `count` to the next, speeds matched at the ends."""
        off, zero, tiny, airborne = np.full_like(part, STANCE), np.zeros_like(part), 1e-3, 1 - STANCE
        start, stop = self.plant(count, off), self.plant(count + 1, zero)
        start_slope = (start - self.plant(count, off - tiny)) / tiny * airborne
        stop_slope = (self.plant(count + 1, zero + tiny) - stop) / tiny * airborne
        air = np.clip((part - STANCE) / airborne, 0, 1)
        pose = hermite(air[:, None], start, stop, start_slope, stop_slope)
        pose[:, 2] += 0.022 * np.sin(np.pi * air) ** 2
        return pose


def foot_pitch(part: np.ndarray) -> np.ndarray:
    """Return the foot's pitch (T,), radians, toes up, at `part` of the stride."""
    return np.radians(periodic_curve(FOOT_KNOTS, FOOT_PITCH, part))


def walk_foot(planter: Planter, cycle: np.ndarray) -> Foot:
    """Return a foot's path; `cycle` (T,) counts its strides, a heel strikes at every whole number."""
    count = np.floor(cycle)
    part = cycle - count
    pose = np.where((part < STANCE)[:, None], planter.plant(count, part), planter.swing(count, part))
    return Foot(pose[:, :3], pose[:, 3], foot_pitch(part), np.radians(periodic_curve(TOE_KNOTS, TOE_BEND, part)))


def solve_limb(start: np.ndarray, stop: np.ndarray, lengths: tuple[float, float], bend: np.ndarray) -> np.ndarray:
    """Return the middle joint (T, 3) of a two-bone limb from `start` to `stop`, bent towards `bend` (T, 3)."""
    way = stop - start
    reach = np.linalg.norm(way, axis=-1, keepdims=True)
    if (reach > sum(lengths)).any():
        raise ValueError(f"A limb of {sum(lengths):.3f} m must reach {reach.max():.3f} m; lower the pelvis.")
    along = (reach**2 + lengths[0] ** 2 - lengths[1] ** 2) / (2 * reach)
    direction = way / reach
    out = unit(bend - (bend * direction).sum(-1, keepdims=True) * direction)
    return start + along * direction + np.sqrt(lengths[0] ** 2 - along**2) * out


@dataclass(frozen=True)
class Pose:
    """World rotations (T, B, 3, 3) and joint places (T, B, 3) of every bone."""

    rotations: np.ndarray
    places: np.ndarray


def walk(shot: Shot, body: Body) -> Pose:
    """Return the whole body's walk along the route."""
    way = shot.speed * np.arange(shot.num_frames) / shot.fps
    route, phase = Route(shot), 0.30
    left = way / shot.stride + phase  # the left foot's strides; the right foot is half a stride later
    beat = 2 * np.pi * left
    heading = route.heading(way)
    turns = spine_rotations(heading, beat, way)
    pelvis = pelvis_path(body, route, way, beat)
    for side, late, letter in ((1.0, 0.0, "L"), (-1.0, 0.5, "R")):
        foot = walk_foot(Planter.of(shot, route, body, phase + late, side), left + late)
        turns |= leg_rotations(body, pelvis, turns["root"], foot, letter)
        turns |= arm_rotations(body, turns["spine01"], beat + np.pi * (1 - 2 * late), side, letter)
    return forward_kinematics(body, turns, pelvis)


def pelvis_path(body: Body, route: Route, way: np.ndarray, beat: np.ndarray) -> np.ndarray:
    """Return the middle of the hip joints (T, 3): lowest near each heel strike, over the standing foot between."""
    leg = body.head("upperleg01.L")[2] - body.vertices[:, 2].min()
    sway = 0.020 * np.sin(beat - 0.35)
    height = leg - 0.026 + 0.021 * np.cos(2 * (beat - 2 * np.pi * 0.25))
    along = way + 0.008 * np.sin(2 * beat)
    return np.column_stack([route.place(along, sway), height])


def spine_rotations(heading: np.ndarray, beat: np.ndarray, way: np.ndarray) -> dict[str, np.ndarray]:
    """Return rotations of trunk, neck and head: pelvis turned by the legs, chest against it, head hardly at all."""
    degrees = np.radians
    slow = np.sin(way * 1.1 + 0.6)
    still = np.zeros_like(beat)
    pelvis = np.stack([-degrees(5) * np.cos(beat), still + degrees(3), -degrees(3.2) * np.sin(beat - 0.2)], 1)
    nod = np.cos(2 * beat)
    chest = np.stack([degrees(5.5) * np.cos(beat - 0.2), degrees(1 + 0.8 * nod), degrees(1.2) * np.sin(beat)], 1)
    look = np.stack([degrees(-5 + 4 * slow), degrees(-2 - nod), degrees(0.8) * np.sin(beat)], 1)
    stack = [("root", pelvis), ("spine04", 0.7 * pelvis + 0.3 * chest), ("spine03", 0.45 * pelvis + 0.55 * chest)]
    stack += [("spine02", 0.2 * pelvis + 0.8 * chest), ("spine01", chest), ("neck01", 0.7 * chest + 0.3 * look)]
    stack += [("neck02", 0.5 * chest + 0.5 * look), ("neck03", 0.25 * chest + 0.75 * look), ("head", look)]
    return {name: turn(heading, angles) for name, angles in stack}


def leg_rotations(body: Body, pelvis: np.ndarray, root: np.ndarray, foot: Foot, letter: str) -> dict[str, np.ndarray]:
    """Return the rotations of one leg whose ankle is where `foot` has it, by inverse kinematics."""
    rest = [body.head(f"{name}.{letter}") for name in ("upperleg01", "lowerleg01", "foot")]
    middle = (body.head("upperleg01.L") + body.head("upperleg01.R")) / 2
    hip = pelvis + root @ (rest[0] - middle)
    lengths = tuple(float(np.linalg.norm(stop - start)) for start, stop in zip(rest, rest[1:], strict=False))
    ahead = np.stack([np.cos(foot.heading), np.sin(foot.heading), np.zeros_like(foot.heading)], 1)
    ahead = unit(ahead + root @ np.array([0.0, -1.0, 0.0]))
    knee = solve_limb(hip, foot.ankle, lengths, ahead)
    still = np.zeros_like(foot.pitch)
    sole = turn(foot.heading, np.stack([still, -foot.pitch, still], 1))
    toes = turn(foot.heading, np.stack([still, -(foot.pitch + foot.bend), still], 1))
    front = np.array([0.0, -1.0, 0.0])
    turns = {f"foot.{letter}": sole} | {f"toe{number}-1.{letter}": toes for number in range(1, 6)}
    for name, start, stop, rest_bone in (
        ("upperleg01", hip, knee, rest[1] - rest[0]),
        ("lowerleg01", knee, foot.ankle, rest[2] - rest[1]),
    ):
        posed = limb_frame(stop - start, np.cross(stop - start, ahead))
        turns[f"{name}.{letter}"] = posed @ limb_frame(rest_bone, np.cross(rest_bone, front)).T
    return turns


def arm_rotations(body: Body, chest: np.ndarray, beat: np.ndarray, side: float, letter: str) -> dict[str, np.ndarray]:
    """Return the rotations of one arm that swings with `beat` (T,) radians, 0 where it is furthest forward."""
    rest = [body.head(f"{name}.{letter}") for name in ("upperarm01", "lowerarm01", "wrist")]
    upper, fore = rest[1] - rest[0], rest[2] - rest[1]
    swing = np.radians(-1 + 19 * np.cos(beat - 0.25))
    bend = np.radians(24 + 11 * np.cos(beat - 0.55))
    out = np.radians(9)
    along = np.stack([side * np.sin(out) + 0 * swing, -np.sin(swing) * np.cos(out), -np.cos(swing) * np.cos(out)], 1)
    front = np.array([-0.20 * side, -1.0, 0.0])
    across = unit(front - (along @ front)[:, None] * along)
    below = np.cos(bend)[:, None] * along + np.sin(bend)[:, None] * across
    hinge, rest_hinge = np.cross(along, across), np.cross(upper, fore)
    turns = {
        "upperarm01": chest @ limb_frame(along, hinge) @ limb_frame(upper, rest_hinge).T,
        "lowerarm01": chest @ limb_frame(below, hinge) @ limb_frame(fore, rest_hinge).T,
    }
    for name, part in (("lowerarm02", 0.5), ("wrist", 1.0)):
        turns[name] = turns["lowerarm01"] @ about(unit(fore), side * part * np.radians(TWIST))
    hand = {name: turns["wrist"] @ matrix for name, matrix in finger_curls(body, side, letter).items()}
    return {f"{name}.{letter}": matrix for name, matrix in (turns | hand).items()}


TWIST = 5.0  # degrees by which the forearm turns the hand from anny's rest, thumb inwards
CURL = {1: (0, 6, 10), 2: (10, 18, 10), 3: (14, 22, 12), 4: (18, 25, 14), 5: (20, 26, 14)}  # degrees per finger bone


def about(axis: np.ndarray, angle: float) -> np.ndarray:
    """Return the (3, 3) right-handed rotation by `angle` radians about a unit axis (3,)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def finger_curls(body: Body, side: float, letter: str) -> dict[str, np.ndarray]:
    """Return rotations (3, 3) of the finger bones against the wrist, rest axes: fingers together, loosely bent."""
    knuckle = {number: body.head(f"finger{number}-1.{letter}") for number in range(1, 6)}
    along = {number: unit(body.head(f"finger{number}-3.{letter}") - knuckle[number]) for number in range(1, 6)}
    across = unit(knuckle[5] - knuckle[2])  # from the index to the little finger
    curls = {}
    for number, bends in CURL.items():
        axis = np.cross(along[number], along[3])
        gap = float(np.arcsin(np.linalg.norm(axis)))
        matrix = about(unit(axis), 0.75 * gap) if number != 3 else np.eye(3)
        hinge = across - (across @ (matrix @ along[number])) * (matrix @ along[number])
        for bone, bend in enumerate(bends, 1):
            matrix = about(unit(hinge), side * np.radians(bend)) @ matrix
            curls[f"finger{number}-{bone}"] = matrix
    return curls


def forward_kinematics(body: Body, turns: dict[str, np.ndarray], pelvis: np.ndarray) -> Pose:
    """Return every bone's world rotation (its parent's where `turns` has none) and joint, hips' middle at `pelvis`."""
    rotations, places = [], []
    middle = (body.head("upperleg01.L") + body.head("upperleg01.R")) / 2
    for index, (label, parent) in enumerate(zip(body.labels, body.parents, strict=True)):
        if parent < 0:
            rotations.append(turns[label])
            places.append(pelvis + turns[label] @ (body.heads[index] - middle))
        else:
            rotations.append(turns.get(label, rotations[parent]))
            places.append(places[parent] + rotations[parent] @ (body.heads[index] - body.heads[parent]))
    return Pose(np.stack(rotations, 1), np.stack(places, 1))


def skin_vertices(body: Body, pose: Pose, frame: int, rest: np.ndarray) -> np.ndarray:
    """Return the posed (V, 3) vertices of one frame by linear blend skinning, metres, world."""
    rotations = pose.rotations[frame]
    shifts = pose.places[frame] - np.einsum("bij,bj->bi", rotations, body.heads)
    blended = body.weights @ np.concatenate([rotations.reshape(-1, 9), shifts], 1)
    return np.einsum("vij,vj->vi", blended[:, :9].reshape(-1, 3, 3), rest) + blended[:, 9:]


# ---------------------------------------------------------------------------------------------------- truth


def to_camera(shot: Shot, world: np.ndarray) -> np.ndarray:
    """Return world points (..., 3) in the camera frame, metres."""
    return (world - shot.eye) @ shot.rotation.T


def project(shot: Shot, points: np.ndarray) -> np.ndarray:
    """Return camera-frame points (..., 3) as pixels (..., 2), origin at the image's top left corner."""
    return shot.focal * points[..., :2] / points[..., 2:] + shot.center


def h36m_joints(body: Body, pose: Pose) -> np.ndarray:
    """Return Human3.6M's 17 joints (T, 17, 3), metres, world.

    Limbs are anny's joint centres, hip the middle of the two hip joints. Trunk and head points are fixed to one bone
    each: spine 48 % of the way from hip to thorax; thorax 3 cm above the shoulders' middle, moving with the chest;
    neck_nose in the face, 8 cm in front of the skull base; head 9 cm below the crown.
    """
    limbs = {"hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot", "shoulder": "upperarm01"}
    limbs |= {"elbow": "lowerarm01", "wrist": "wrist"}
    points = {}
    for side, letter in (("left", "L"), ("right", "R")):
        for joint, bone in limbs.items():
            points[f"{side}_{joint}"] = pose.places[:, body.labels.index(f"{bone}.{letter}")]
    points["hip"] = (points["left_hip"] + points["right_hip"]) / 2
    hips = (body.head("upperleg01.L") + body.head("upperleg01.R")) / 2
    thorax = (body.head("upperarm01.L") + body.head("upperarm01.R")) / 2 + [0, 0.010, 0.030]
    skull, crown = body.head("neck03"), body.skin[:, 2].max()
    fixed = {
        "spine": ("spine03", hips + 0.48 * (thorax - hips)),
        "thorax": ("spine01", thorax),
        "neck_nose": ("head", np.array([0, skull[1] - 0.075, crown - 0.20])),
        "head": ("head", np.array([0, skull[1] - 0.010, crown - 0.09])),
    }
    for joint, (bone, rest) in fixed.items():
        index = body.labels.index(bone)
        points[joint] = pose.places[:, index] + pose.rotations[:, index] @ (rest - body.heads[index])
    return np.stack([points[joint] for joint in H36M17], 1)


def truth_arrays(shot: Shot, body: Body, pose: Pose) -> dict[str, np.ndarray]:
    """Return the arrays of the truth file; its `metadata` string says units, frames and names."""
    joints = to_camera(shot, h36m_joints(body, pose))
    frames = range(shot.num_frames)
    surface = np.stack([body.coco_weights @ skin_vertices(body, pose, frame, body.skin) for frame in frames])
    coco = to_camera(shot, surface)
    height = float(np.ptp(body.skin[:, 2]))
    metadata = {
        "name": "sample",
        "units": {"joints": "metres", "coco_joints": "metres", "keypoints": "pixels", "height": "metres"},
        "frame": "camera",
        "axes": "OpenCV: +x right, +y down, +z forward; origin at the camera; joints are absolute",
        "skeletons": {"joints": "h36m17", "joints_2d": "h36m17", "coco_joints": "coco17", "coco_2d": "coco17"},
        "joint_names": {"h36m17": H36M17, "coco17": COCO17},
        "camera_to_world": "x_camera = rotation @ (x_world - position); world: right-handed, Z up, floor at z = 0",
        "body": {"model": "anny 0.6.2", "phenotype": PHENOTYPE},
        "made_by": "python -m experiments.make_sample",
        "licence": LICENCE,
    }
    return {
        "joints": joints.astype(np.float32),
        "joints_2d": project(shot, joints).astype(np.float32),
        "coco_joints": coco.astype(np.float32),
        "coco_2d": project(shot, coco).astype(np.float32),
        "times": np.arange(shot.num_frames) / shot.fps,
        "focal": np.full(2, shot.focal),
        "center": np.array(shot.center),
        "image_size": np.array(shot.image_size),
        "fps": np.float64(shot.fps),
        "height": np.float64(height),
        "camera_rotation": shot.rotation,
        "camera_position": shot.eye,
        "metadata": np.array(json.dumps(metadata)),
    }


# ---------------------------------------------------------------------------------------------------- picture


def noise(points: np.ndarray, seed: int) -> np.ndarray:
    """Return smooth random values in [0, 1] at points (..., 3) with features one unit wide."""
    cell = np.floor(points).astype(np.int64)
    part = points - cell
    part = part * part * (3 - 2 * part)
    total = np.zeros(points.shape[:-1])
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, part, 1 - part).prod(-1)
        total += weight * hash_cells(cell + np.array(corner), seed)
    return total


def hash_cells(cell: np.ndarray, seed: int) -> np.ndarray:
    """Return one fixed random value in [0, 1) per integer cell (..., 3)."""
    mixed = cell[..., 0] * 374761393 + cell[..., 1] * 668265263 + cell[..., 2] * 2147483647 + seed * 144665
    mixed = (mixed ^ (mixed >> 13)) * 1274126177 & 0x7FFFFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFF) / 65536.0


@dataclass(frozen=True)
class Fragments:
    """The nearest surface at each covered pixel: flat pixel number, face and barycentric coordinates."""

    pixel: np.ndarray  # (N,)
    face: np.ndarray  # (N,)
    mix: np.ndarray  # (N, 3)

    def interpolate(self, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return vertex values (V, C) at the fragments, (N, C)."""
        return np.einsum("nk,nkc->nc", self.mix, values[faces[self.face]])


def rasterise(points: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]) -> Fragments:
    """Return what a z-buffer of `size` (w, h) sees of a mesh with pixel coordinates (V, 2) and depths (V,)."""
    corners = points[faces]
    low = np.ceil(corners.min(1) - 0.5).astype(int).clip(0)
    high = np.floor(corners.max(1) - 0.5).astype(int).clip(max=np.array(size) - 1)
    span = (high - low).max(1) + 1
    visible = (high >= low).all(1)
    found = []
    for bucket in 2 ** np.arange(int(np.ceil(np.log2(span.max()))) + 1):
        chosen = np.flatnonzero(visible & (span <= bucket) & (span > bucket // 2))
        if len(chosen):
            found.append(cover(corners, chosen, low, high, int(bucket)))
    x, y, face, mix = (np.concatenate(column) for column in zip(*found, strict=True))
    z = (mix * depth[faces[face]]).sum(1)
    order = np.lexsort((-z, y * size[0] + x))  # by pixel, nearest last
    pixel = (y * size[0] + x)[order]
    last = np.append(pixel[1:] != pixel[:-1], True)
    return Fragments(pixel[last], face[order][last], mix[order][last])


def cover(corners: np.ndarray, chosen: np.ndarray, low: np.ndarray, high: np.ndarray, span: int) -> tuple:
    """Return x, y, face and barycentric coordinates of the pixel centres inside the chosen triangles."""
    grid = np.stack(np.meshgrid(np.arange(span), np.arange(span)), -1).reshape(-1, 2)
    pixel = low[chosen][:, None] + grid
    a, b, c = (corners[chosen, None, corner] for corner in range(3))
    point = pixel + 0.5
    area = cross2(b - a, c - a)
    area = np.where(np.abs(area) < 1e-9, np.inf, area)
    mix = np.stack([cross2(b - point, c - point), cross2(c - point, a - point), cross2(a - point, b - point)], -1)
    mix = mix / area[..., None]
    inside = (mix >= 0).all(-1) & (mix.sum(-1) > 0.5) & (pixel <= high[chosen][:, None]).all(-1)
    which, _ = np.nonzero(inside)
    return pixel[inside][:, 0], pixel[inside][:, 1], chosen[which], mix[inside]


def cross2(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cross products (...,) of plane vectors (..., 2)."""
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]


SKIN, LIP, HAIR = (205, 152, 124), (182, 116, 103), (52, 36, 27)
SHIRT, TROUSERS, SHOE = (158, 52, 48), (52, 64, 92), (58, 56, 60)
LIGHT = np.array([-0.45, -0.62, 0.64])  # towards the key light, world


def body_colours(body: Body, part: np.ndarray, rest: np.ndarray, seed: int) -> np.ndarray:
    """Return the (N, 3) colour, 0-255, of surface points given by body part (N,) and bare rest place (N, 3)."""
    cut = Cuts.of(body)
    colour = np.tile(np.array(SKIN, float), (len(rest), 1))
    paint_face(colour, cut, part, rest)
    z = rest[:, 2]
    limb = (part == 0) | (part == 4)
    sleeve = (part == 3) & (cut.along_arm(rest) < cut.sleeve)
    chest = ((part == 0) | (part == 1)) & (z > cut.hem) & (z < cut.eye[2] - 0.07)
    shirt = (chest & (cut.inside_collar(rest) < 0.5)) | sleeve
    colour[limb & (z <= cut.hem) & (z > cut.cuff)] = TROUSERS
    colour[(part == 4) & (z > cut.hem)] = SHIRT
    colour[shirt] = SHIRT
    colour[(part == 4) & (z <= cut.cuff)] = SHOE
    cloth = shirt | (limb & (z > cut.cuff))
    weave = noise(rest * 45, seed) * 0.6 + noise(rest * 110, seed + 1) * 0.4
    return colour * (1 + np.where(cloth, 0.16, 0.07) * (weave - 0.5))[:, None]


def paint_face(colour: np.ndarray, cut: Cuts, part: np.ndarray, rest: np.ndarray) -> None:
    """Paint hair, eyes, brows, lips and cheeks on head points in place."""
    x, y, z = np.abs(rest[:, 0]), rest[:, 1] - cut.eye[1], rest[:, 2] - cut.eye[2]
    head, front = part == 1, y < 0.02
    blush = 0.10 * np.exp(-(((x - 0.040) / 0.018) ** 2) - ((z + 0.040) / 0.018) ** 2) * (head & front)
    colour *= 1 - blush[:, None] * np.array([0.2, 1.0, 0.9])
    stubble = head & front & (z < -0.055) & (z > -0.14)
    colour[stubble] *= 0.93
    mouth = head & front & (((x / 0.026) ** 2 + ((z + 0.072) / 0.0085) ** 2) < 1)
    colour[mouth] = LIP
    brow = head & front & (np.abs(x - 0.034) < 0.019) & (np.abs(z - 0.021 + 0.10 * np.maximum(x - 0.036, 0)) < 0.0042)
    colour[brow] = np.array(HAIR) * 1.15
    socket = head & front & ((((x - cut.eye[0]) / 0.019) ** 2 + (z / 0.009) ** 2) < 1)
    colour[socket] *= 0.72
    eye = part == 2
    colour[eye] = (232, 228, 222)
    colour[eye & ((x - cut.eye[0]) ** 2 + z**2 < 0.0066**2)] = (58, 40, 28)
    hair = head & (cut.above_hairline(rest) > 0.006 * (noise(rest * 160, 7) - 0.5))
    strand = 0.8 + 0.5 * noise(rest * np.array([220, 220, 60]), 8)
    colour[hair] = np.array(HAIR) * strand[hair, None]


def shade(colour: np.ndarray, normal: np.ndarray, view: np.ndarray, gloss: np.ndarray) -> np.ndarray:
    """Return colours (N, 3) lit by a sky, a floor bounce and one wrapped key light; `view` points to the camera."""
    light = unit(LIGHT)
    key = np.clip((normal @ light + 0.25) / 1.25, 0, 1)
    sky = 0.5 + 0.5 * normal[:, 2]
    facing = np.clip((normal * view).sum(1), 0, 1)
    level = 0.34 + 0.18 * sky + 0.62 * key
    shine = gloss * np.clip((normal * unit(view + light)).sum(1), 0, 1) ** 18
    return colour * (level * (0.80 + 0.20 * facing))[:, None] + 255 * shine[:, None]


def camera_rays(shot: Shot) -> np.ndarray:
    """Return world directions (h, w, 3) through the supersampled pixels' centres."""
    width, height = (side * shot.supersampling for side in shot.image_size)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    focal, center = shot.focal * shot.supersampling, np.array(shot.center) * shot.supersampling
    rays = np.stack([(x - center[0]) / focal, (y - center[1]) / focal, np.ones_like(x)], -1)
    return rays @ shot.rotation


WALL = 7.6  # metres in front of the camera


def background(shot: Shot) -> np.ndarray:
    """Return the empty room (h, w, 3), 0-255, at the supersampled size: planks and a plastered wall."""
    rays = camera_rays(shot)
    down = np.minimum(rays[..., 2], -1e-6)
    on_floor = -shot.camera_height / down * rays[..., 1] < WALL
    reach = np.where(on_floor, -shot.camera_height / down, WALL / rays[..., 1])
    place = shot.eye + reach[..., None] * rays
    colour = np.where(on_floor[..., None], floor_colours(place, shot.seed), wall_colours(place, shot.seed))
    corner = np.abs(place[..., 1] - WALL) + np.maximum(place[..., 2], 0)
    return colour * (1 - 0.25 * np.exp(-corner / 0.25))[..., None]


def floor_colours(place: np.ndarray, seed: int) -> np.ndarray:
    """Return the planks' colours (..., 3) at world points (..., 3) of the floor."""
    row = np.floor(place[..., 0] / 0.18)
    shift = place[..., 1] / 1.4 + 0.37 * row
    tone = hash_cells(np.stack([row, np.floor(shift), 0 * row], -1).astype(np.int64), seed)
    grain = noise(place * np.array([38.0, 3.0, 0.0]), seed + 3)
    seam = np.minimum(np.abs(place[..., 0] / 0.18 - row - 0.5), 0.5)
    level = 0.90 + 0.10 * tone + 0.06 * (grain - 0.5) - 0.16 * ramp(seam, 0.475, 0.5)
    return level[..., None] * np.array([176.0, 150.0, 122.0])


def wall_colours(place: np.ndarray, seed: int) -> np.ndarray:
    """Return the wall's colours (..., 3) at world points (..., 3), with a skirting board at its foot."""
    flat = place * np.array([1.0, 0.0, 1.0])
    blotch = noise(1.1 * flat, seed + 5) + 0.5 * noise(9.0 * flat, seed + 6)
    level = 0.97 + 0.05 * (blotch - 0.75) - 0.04 * np.abs(place[..., 0]) / 3 + 0.02 * place[..., 2]
    wall = level[..., None] * np.array([190.0, 198.0, 200.0])
    board = ramp(place[..., 2], 0.105, 0.095)[..., None]
    return wall * (1 - board) + board * np.array([222.0, 220.0, 214.0])


def box_blur(image: np.ndarray, radius: int) -> np.ndarray:
    """Return an image (h, w) averaged over squares of 2 radius + 1 pixels, twice (nearly Gaussian)."""
    for axis in (0, 1, 0, 1):
        padded = np.insert(np.cumsum(np.pad(np.moveaxis(image, axis, 0), ((radius + 1, radius), (0, 0))), 0), 0, 0, 0)
        width = 2 * radius + 1
        image = np.moveaxis((padded[width + 1 :] - padded[1:-width]) / width, 0, axis)
    return image


def floor_shadow(shot: Shot, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return how dark (h, w), 0 to 1, the body's soft shadows make the floor at the supersampled size."""
    size = tuple(side * shot.supersampling for side in shot.image_size)
    total = np.zeros(size[::-1])
    for strength, lean, radius in ((0.30, 0.55, 9), (0.22, 0.05, 22)):
        drop = vertices - np.array([LIGHT[0], LIGHT[1], 0]) * (vertices[:, 2:] * lean) / LIGHT[2]
        points = to_camera(shot, drop * np.array([1, 1, 0]))
        seen = rasterise(project(shot, points) * shot.supersampling, points[:, 2], faces, size)
        mask = np.zeros(size[0] * size[1])
        mask[seen.pixel] = 1
        total += strength * box_blur(mask.reshape(total.shape), radius)
    return total


def render(shot: Shot, body: Body, pose: Pose, frame: int, room: np.ndarray) -> np.ndarray:
    """Return one picture of the clip, RGB uint8 (h, w, 3)."""
    vertices = skin_vertices(body, pose, frame, body.vertices)
    points = to_camera(shot, vertices)
    many = shot.supersampling
    size = tuple(side * many for side in shot.image_size)
    seen = rasterise(project(shot, points) * many, points[:, 2], body.faces, size)
    normal = unit(seen.interpolate(body.faces, vertex_normals(vertices, body.faces)))
    place = seen.interpolate(body.faces, vertices)
    colour = body_colours(body, body.parts[seen.face], seen.interpolate(body.faces, body.skin), shot.seed)
    gloss = np.where(body.parts[seen.face] == 2, 0.5, np.where(body.parts[seen.face] == 1, 0.05, 0.015))
    image = room * (1 - floor_shadow(shot, vertices, body.faces))[..., None]
    image.reshape(-1, 3)[seen.pixel] = shade(colour, normal, unit(shot.eye - place), gloss)
    image = image.reshape(shot.image_size[1], many, shot.image_size[0], many, 3).mean((1, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def write_video(path: Path, shot: Shot, frames: list[np.ndarray], quality: int) -> None:
    """Write an H.264 MP4 whose metadata give the lens as a phone does (focal length as on 35 mm film)."""
    import av

    film = round(shot.focal / float(np.hypot(*shot.image_size)) * float(np.hypot(36, 24)), 3)
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags+faststart"}) as container:
        container.metadata["com.apple.quicktime.camera.focal_length.35mm_equivalent"] = str(film)
        container.metadata["comment"] = LICENCE
        stream = container.add_stream("libx264", rate=shot.fps)
        stream.width, stream.height = shot.image_size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(quality), "preset": "slow", "threads": "1"}
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


# ---------------------------------------------------------------------------------------------------- check

CHECKED = tuple(COCO17[5:])  # shoulders, elbows, wrists, hips, knees, ankles
MEDIAPIPE = dict(zip(CHECKED, (11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28), strict=True))


def detect(path: Path) -> np.ndarray:
    """Return MediaPipe's keypoints (T, 12, 2) of the CHECKED joints, pixels, NaN where it found nobody."""
    import av
    import mediapipe

    found = []
    with av.open(str(path)) as container, mediapipe.solutions.pose.Pose(model_complexity=1) as model:
        for picture in container.decode(video=0):
            image = picture.to_ndarray(format="rgb24")
            marks = model.process(image).pose_landmarks
            scale = np.array(image.shape[1::-1])
            points = [[marks.landmark[k].x, marks.landmark[k].y] for k in MEDIAPIPE.values()] if marks else np.nan
            found.append(np.broadcast_to(points, (len(CHECKED), 2)) * scale)
    return np.stack(found)


def check(folder: Path) -> dict[str, float]:
    """Return how MediaPipe's keypoints of the clip differ from the truth (errors in % of the person's height)."""
    found = detect(folder / "sample.mp4")
    with np.load(folder / "sample_truth.npz") as truth:
        true = truth["coco_2d"][:, [COCO17.index(joint) for joint in CHECKED]]
        tall = truth["focal"][1] * truth["height"] / truth["joints"][:, 0, 2]
    error = np.linalg.norm(found - true, axis=-1) / tall[:, None] * 100
    other = [CHECKED.index(swap_side(joint)) for joint in CHECKED]
    crossed = np.linalg.norm(found[:, other] - true, axis=-1) / tall[:, None] * 100
    seen = np.isfinite(error).all(1)
    result = {"frames": len(found), "found_percent": 100 * seen.mean(), "median_error_percent": np.nanmedian(error)}
    result["swapped_frames"] = int((crossed[seen].mean(1) < error[seen].mean(1)).sum())
    result |= {joint: np.nanmedian(error[:, index]) for index, joint in enumerate(CHECKED)}
    return {name: round(float(value), 2) for name, value in result.items()}


def swap_side(joint: str) -> str:
    """Return the name of the same joint on the other side."""
    side, _, name = joint.partition("_")
    return {"left": "right_", "right": "left_"}[side] + name


def make(folder: Path, shot: Shot, quality: int) -> None:
    """Write `sample.mp4` and `sample_truth.npz` into a folder."""
    body = load_body()
    pose = walk(shot, body)
    room = background(shot)
    with click.progressbar(range(shot.num_frames), label="Rendering") as frames:
        pictures = [render(shot, body, pose, frame, room) for frame in frames]
    write_video(folder / "sample.mp4", shot, pictures, quality)
    np.savez_compressed(folder / "sample_truth.npz", **truth_arrays(shot, body, pose))


@click.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=DATA, help="Folder to write into.")
@click.option("--quality", type=click.IntRange(0, 51), default=18, show_default=True, help="x264 CRF; less is better.")
@click.option("--check", "only_check", is_flag=True, help="Render nothing; compare MediaPipe's keypoints to the truth.")
def main(output: Path, quality: int, only_check: bool) -> None:
    """Render the sample clip and its truth, or check them with MediaPipe."""
    if only_check:
        click.echo(json.dumps(check(output), indent=2))
        return
    output.mkdir(parents=True, exist_ok=True)
    make(output, Shot(), quality)
    click.echo(f"Wrote {output / 'sample.mp4'} and {output / 'sample_truth.npz'}")


if __name__ == "__main__":
    main()
