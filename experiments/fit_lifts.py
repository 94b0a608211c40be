"""What a body fit does to the project's own lifts of validation motion, seen as the lifters' benchmark sees it.

The windows of `experiments.fit_truth` are seen by the cameras ``standard`` of `experiments.protocol` with its noise: 2D
points of the body in the lifter's own layout, thirteen joints as in the protocol, or these with toes and heels. They
are lifted with the known camera and fitted. One camera cannot tell how tall somebody is, and truth wears random adults:
what a lift guesses of the stature stands beside, and both are run again with the stature known.

Contacts that count are those of the true feet: near the true floor and slower than 0.15 m/s. Slip is pooled over all
steps of all windows, penetration over frames; the floor is the one that the fit found.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from experiments.fit_accuracy import MESH_STEP, Window, from_root
from experiments.fit_table import Row, Target
from experiments.fit_truth import FPS, SEED, Truth, place
from experiments.protocol import CAMERA, CAMERAS, IMAGE_SIZE, NOISE
from lifting.anatomy import stature
from lifting.body import BodyModel
from lifting.body.fit import fit_body
from lifting.body.report import BodyFit
from lifting.contacts import clearances, foot_points
from lifting.datasets.detector_noise import detect
from lifting.datasets.synthesis import photograph
from lifting.keypoints import Keypoints2D
from lifting.metrics import acceleration_error_m_s2, foot_slip, mpjpe, mpjve, p_mpjpe, penetration
from lifting.motion import Motion
from lifting.predict import default_lifter
from lifting.rotations import matrix_to_rotvec, rotation_between, rotvec_to_matrix

LAYOUT, FEET_LAYOUT = "lift17", "coco17_feet"
SLIP, DEPTH = "slip 95 % mm/frame", "penetration 95 % mm"
WORLD_UP = np.array([0.0, 0.0, 1.0])
STANDING_HEIGHT = 0.05  # metres over where a point stands
STANDING_SPEED = 0.15  # m/s: the literature's label of contact, e.g. Shen et al., "GVHMR", 2024


@dataclass(frozen=True)
class Stage:
    """One row: the lift itself (contacts None) or its fit, without and with the person's stature known to both."""

    name: str
    contacts: bool | None
    height_known: bool = False


STAGES = (
    Stage("lift", None),
    Stage("fit", False),
    Stage("fit with contacts", True),
    Stage("lift, height known", None, True),
    Stage("fit with contacts, height known", True, True),
)


@dataclass(frozen=True)
class Feet:
    """A window's true foot points: names (F,), places (T, F, 3) metres, and which stand, (T, F) booleans."""

    names: tuple[str, ...]
    places: np.ndarray
    standing: np.ndarray


def lifts(windows: Sequence[Window], body: BodyModel, stages: Sequence[Stage] = STAGES) -> list[Row]:
    """Rows of the truth and of all stages, for thirteen joints and with feet."""
    rows = []
    for feet in (0.0, 1.0):
        scores = [_score_window(window, body, feet, stages) for window in tqdm(windows, desc="lifts", disable=None)]
        pooled = {name: _pooled([score[name] for score in scores]) for name in scores[0]}
        names = {"2D": "with toes and heels" if feet else "13 joints"}
        rows.append(Row(names | {"stage": "truth"} | pooled["truth"]))
        lift = {stage.height_known: pooled[stage.name] for stage in stages if stage.contacts is None}
        for stage in stages:
            values = pooled[stage.name]
            targets = {} if stage.contacts is None else _targets(lift[stage.height_known], values)
            rows.append(Row(names | {"stage": stage.name} | values, targets, [_single(s[stage.name]) for s in scores]))
    return rows


def _single(score: dict) -> dict:
    """One window's numbers; what is pooled over windows as its own 95th percentile."""
    return {name: float(np.quantile(value, 0.95)) if np.ndim(value) and len(value) else value
            for name, value in score.items() if np.ndim(value) == 0 or len(value)}  # fmt: skip


def _pooled(scores: Sequence[dict]) -> dict[str, float]:
    """Means of numbers, 95th percentiles of arrays."""
    pooled = {}
    for name in scores[0]:
        values = [score[name] for score in scores]
        if np.ndim(values[0]) == 0:
            pooled[name] = float(np.mean(values))
        elif sum(map(len, values)):
            pooled[name] = float(np.quantile(np.concatenate(values), 0.95))
    return pooled


def _targets(lift: dict[str, float], values: dict[str, float]) -> dict[str, Target]:
    """The fit must not cost accuracy; the others are the issue's."""
    targets = {name: Target(lift[name]) for name in ("MPJPE mm", "acceleration m/s^2")}
    targets |= {"stature mm": Target(40.0), SLIP: Target(3.0), DEPTH: Target(10.0)}
    return {name: target for name, target in targets.items() if name in values}


def _score_window(window: Window, body: BodyModel, feet: float, stages: Sequence[Stage]) -> dict[str, dict]:
    truth, keypoints = photographed(place(window[0], body, *window[1:]), feet)
    ground = true_feet(truth)
    scores = {"truth": {SLIP: 1000 * foot_slip(ground.places, ground.standing)}}
    for stage in stages:
        height = float(body.stature(truth.body_motion.shape)) if stage.height_known else None
        began = time.perf_counter()
        lift = default_lifter().predict(keypoints, CAMERA, height=height)
        if stage.contacts is None:
            scores[stage.name] = _score_joints(truth, lift)
        else:
            began = time.perf_counter()
            fit = fit_body(lift, keypoints=keypoints, camera=CAMERA, body=body, height=height, contacts=stage.contacts)
            scores[stage.name] = _score_joints(truth, fit.joints) | _score_body(truth, fit, ground)
        # Scoring takes less than a tenth of a fit.
        scores[stage.name]["seconds"] = time.perf_counter() - began
    return scores


def photographed(truth: Truth, feet: float) -> tuple[Truth, Keypoints2D]:
    """The truth before one camera of the protocol, and what a detector sees of it; feet: share of seen feet, 0 or 1."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"lifts {truth.name}".encode())])
    to_world = rotation_between(truth.up, WORLD_UP)
    joints = (truth.joints @ to_world.T)[None].astype(np.float32)
    unknown = np.full((1, joints.shape[1], 4, 3), np.nan, np.float32)
    views = photograph(joints, unknown, ((1.0, CAMERAS["standard"]),), NOISE, rng)
    turn = views.rotation[0].astype(np.float64) @ to_world
    truth = moved(truth, turn, views.root[0, 0] - turn @ truth.joints[0, 0])
    size = views.stature[:, None] / truth.joints[None, :, 0, 2]
    noise = replace(NOISE, feet=feet)
    rays, scores = detect(truth.points[None].astype(np.float32), size, np.ones((1, 2)), noise, rng)
    return truth, Keypoints2D(rays[0] * CAMERA.focal + CAMERA.center, scores[0], LAYOUT, IMAGE_SIZE, FPS)


def moved(truth: Truth, turn: np.ndarray, shift: np.ndarray) -> Truth:
    """The truth under a rigid motion x -> turn x + shift, with its points in the lifter's layout."""
    motion, body = truth.body_motion, truth.body
    rotations = rotvec_to_matrix(motion.rotations.astype(np.float64))
    rotations[:, 0] = turn @ rotations[:, 0]
    # The path of joint 0 in double precision: float32 beside it would show in accelerations.
    trajectory = motion.trajectory.astype(np.float64) @ turn.T + shift
    joints, points = (body.points(layout, rotations, trajectory, motion.shape) for layout in ("h36m17", LAYOUT))
    up = turn @ truth.up
    motion = motion.replace(rotations=matrix_to_rotvec(rotations), trajectory=trajectory)
    return replace(truth, body_motion=motion, joints=joints, points=points, layout=LAYOUT, up=up,
                   floor=float(truth.floor + up @ shift))  # fmt: skip


def true_feet(truth: Truth) -> Feet:
    """Toes and heels of the true body, and when they stand on the true floor."""
    names = foot_points(FEET_LAYOUT)
    places, heights = _feet_of(truth.body, truth.body_motion), clearances(names)
    # The floor of a `Truth` is where its lowest foot points come to lie, so their clearance is in it.
    floor = truth.floor + heights - heights.min()
    step = np.linalg.norm(np.diff(places, axis=0, append=places[-1:]), axis=-1)
    return Feet(names, places, (places @ truth.up < floor + STANDING_HEIGHT) & (FPS * step < STANDING_SPEED))


def _feet_of(body: BodyModel, motion) -> np.ndarray:
    """(T, F, 3) metres of the points that `foot_points` names."""
    points = body.point_set(FEET_LAYOUT)
    columns = [points.names.index(name) for name in foot_points(FEET_LAYOUT)]
    return body.points(FEET_LAYOUT, motion.rotations, motion.trajectory, motion.shape)[:, columns]


def _score_joints(truth: Truth, motion: Motion) -> dict[str, float]:
    """Errors of joints in the truth's layout, relative to the root unless called absolute; stature told by joints."""
    found, true = (from_root(joints) for joints in (motion.absolute.astype(np.float64), truth.joints))
    return {
        "MPJPE mm": 1000 * mpjpe(found, true),
        "P-MPJPE mm": 1000 * p_mpjpe(found, true),
        "absolute mm": 1000 * mpjpe(motion.absolute, truth.joints),
        "MPJVE mm/frame": 1000 * mpjve(found, true),
        "acceleration m/s^2": acceleration_error_m_s2(found, true, FPS),
        "stature mm": 1000 * abs(stature(found) - stature(true)),
    }


def _score_body(truth: Truth, fit: BodyFit, feet: Feet) -> dict[str, float | np.ndarray]:
    """Stature; slip of feet that stand in truth; how far mesh and foot points lie below the fitted floor."""
    body, found = fit.body, fit.motion
    places = _feet_of(body, found)
    errors = {
        "stature mm": 1000 * abs(body.stature(found.shape) - body.stature(truth.body_motion.shape)),
        SLIP: 1000 * foot_slip(places, feet.standing),
    }
    if fit.ground is not None:
        errors["slip in own contacts 95 % mm/frame"] = 1000 * foot_slip(places, fit.contacts > 0.5)
        mesh = body.vertices(found.rotations[::MESH_STEP], found.trajectory[::MESH_STEP], found.shape)
        up, offset = fit.ground.up, fit.ground.offset
        errors[DEPTH] = 1000 * penetration(mesh, up, offset)
        on_floor = places - clearances(feet.names)[:, None] * up
        errors["of foot points 95 % mm"] = 1000 * penetration(on_floor, up, offset)
    return errors
