"""Fit to motion capture what the embedded body and the lifter must agree on; results go into `body_lite.npz`.

Two results, from frames whose 17 joints (`mocap17.h5`) and 24 joint rotations (`mocap_rot24.h5`) are both known:

-   the *rest offsets* of `lifting.body.retarget`: how each joint of the body stands in the T-pose of the capture;
-   the regressor `h36m17`: the points of the body that are the joints of `mocap17.h5`, so of the lifter, as convex
    combinations of vertices and joint centres.

Directions of limbs and the hinges of the elbows are constant in the capture and give the offsets of limbs in closed
form; the pitch of trunk, neck and head and the collar bones follow from least squares on positions with a prior that
keeps the body upright while people walk. In turn: shape of each subject, offsets, points; all left/right symmetric.

    python -m experiments.fit_body_regressors --mocap mocap17.h5 --rotations mocap_rot24.h5

Subjects 05, 09 and 10 (split `val`) are held out. It takes a minute and prints the distances that remain, RMS in mm
over frames with the best translation of each frame, rotations taken from the capture, shape fitted to each subject
(on other frames than those measured). JSON goes to runs/body_regressors.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import click
import numpy as np
from scipy import optimize, sparse

from experiments.body_keypoints import convex_weights
from lifting.body.body_file import load_body, save_body
from lifting.body.model import BodyModel
from lifting.body.retarget import OFFSETS_KEY, body_rotations_from_mocap, geometric_rest_offsets
from lifting.datasets.mocap import DEFAULT_PATH, Z_UP_FROM_Y_UP, read_mocap
from lifting.rotations import matrix_to_rotvec, rotation_between, rotvec_to_matrix
from lifting.skeletons import get_skeleton, mirror_name

H36M = get_skeleton("h36m17")
FRAMES_PER_SUBJECT = 200
ROUNDS = 6
ELBOW_HINGE = np.array([0.0, -0.866, 0.5])
"""Axis about which the left elbow flexes in the T-pose of the capture (there, elbows turn about nothing else)."""
FOOT_SPLAY = np.radians(20.0)
"""The capture's left foot stands upright when it is turned by this about the forward axis: its toes' hinge shows it."""
FREE_PITCH = ("pelvis", "spine1", "spine2", "spine3", "neck", "head")
RELAXED_WRIST = np.radians([5.0, 9.0, 15.0])
"""Mean rotation vector of the capture's left wrist, both sides and 14 subjects, while the arms hang: hands at rest.
The two sides differ by 25 to 40 degrees in most subjects: the capture's own error, which cannot be undone here."""
# Mean pitch of upright walkers in the capture, degrees forward, 13 subjects: there the body shall stand as at rest.
WALKING_PITCH = {"pelvis": 2.0, "spine1": 8.0, "spine2": 7.0, "spine3": 4.0, "neck": -7.0, "head": 17.0}
PITCH_SIGMA = np.radians(1.2)
COLLAR_SIGMA = np.radians(1.5)
POSITION_SIGMA = 0.02
"""Metres by which joints of bodies and of captured skeletons differ. It is the same error in all frames of a subject,
which therefore count as EFFECTIVE_FRAMES against the priors."""
EFFECTIVE_FRAMES = 5
POINT_FRAMES = 20  # of each subject, to fit points

# Points that are fitted -> bodies' joints that may take part, and bones whose skin may.
CANDIDATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "left_hip": (("left_hip", "right_hip", "pelvis"), ()),
    "left_shoulder": (("left_shoulder", "right_shoulder", "left_collar", "neck", "spine3"), ("left_collar", "spine3")),
    "left_wrist": (("left_wrist", "left_elbow"), ()),
    "spine": (("pelvis", "spine1", "spine2", "spine3"), ("spine1", "spine2")),
    "thorax": (("spine3", "neck", "left_shoulder", "left_collar"), ("spine3", "left_collar", "neck")),
    "neck_nose": (("neck", "head"), ("head",)),
    "head": (("head",), ("head",)),
}
NEAREST_VERTICES, CANDIDATE_VERTICES = 1500, 120


@dataclass(frozen=True, eq=False)
class Subject:
    """Frames of one person, Y up: `rotations` (T, 24, 3) local rotation vectors, `joints` (T, 17, 3) metres."""

    name: str
    held_out: bool
    rotations: np.ndarray
    joints: np.ndarray

    def every_other(self, first: int) -> Subject:
        """Half of the frames."""
        return Subject(self.name, self.held_out, self.rotations[first::2], self.joints[first::2])


def read_subjects(positions: str | PathLike[str], rotations: str | PathLike[str]) -> list[Subject]:
    """Read frames that both files know, spread over each subject's pieces; FileNotFoundError or ValueError if none."""
    import h5py

    found: dict[str, list] = {}
    with h5py.File(rotations) as file:
        for piece in read_mocap(positions):
            if piece.name in file and len(file[piece.name]["rotvec"]) == len(piece):
                steps, scale = file[piece.name]["rotvec"][()], file[piece.name].attrs["scale"]
                found.setdefault(piece.subject, []).append((piece.split, steps * scale, piece.joints @ Z_UP_FROM_Y_UP))
    if not found:
        raise ValueError(f"{positions} and {rotations} have no piece in common; give the two files of one collection.")
    return [_spread(name, parts) for name, parts in sorted(found.items()) if name != "unknown"]


def _spread(name: str, parts: list) -> Subject:
    splits, rotations, joints = zip(*parts, strict=True)
    chosen = np.linspace(0, sum(map(len, joints)) - 1, FRAMES_PER_SUBJECT).astype(int)
    return Subject(name, splits[0] == "val", np.concatenate(rotations)[chosen],
                   np.concatenate(joints)[chosen].astype(float))


# ---- rest offsets


def limb_offsets(body: BodyModel) -> dict[str, np.ndarray]:
    """Rest offsets (3, 3) of left arm and leg: directions and hinges at rest turned onto those of the T-pose."""
    points = dict(zip(H36M.joints, body.points("h36m17", *_at_rest(body))[0], strict=True))
    joints = dict(zip(body.joints, body.rest_joints(), strict=True))
    upper, fore = (joints[f"left_{end}"] - joints[f"left_{start}"]
                   for start, end in (("shoulder", "elbow"), ("elbow", "wrist")))
    hinge, out, down = np.cross(upper, fore), np.array([1.0, 0, 0]), np.array([0, -1.0, 0])
    foot = rotvec_to_matrix([0, 0, FOOT_SPLAY])
    elbow = _turn_onto(fore, hinge, out, ELBOW_HINGE)
    return {
        "left_hip": rotation_between(points["left_knee"] - points["left_hip"], down),
        "left_knee": rotation_between(points["left_ankle"] - points["left_knee"], down),
        "left_ankle": foot,
        "left_foot": foot,
        "left_shoulder": _turn_onto(upper, hinge, out, ELBOW_HINGE),
        "left_elbow": elbow,
        "left_wrist": rotvec_to_matrix(RELAXED_WRIST).T @ elbow,
    }


def _at_rest(body: BodyModel) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((1, body.num_joints, 3)), np.zeros((1, 3))


def _turn_onto(first: np.ndarray, second: np.ndarray, to_first: np.ndarray, to_second: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) that turns `first` onto `to_first` and the plane with `second` onto that with `to_second`."""
    return _axes(to_first, to_second) @ _axes(first, second).T


def _axes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first = first / np.linalg.norm(first)
    third = np.cross(first, second)
    third /= np.linalg.norm(third)
    return np.stack([first, np.cross(third, first), third], axis=1)


def all_offsets(body: BodyModel, limbs: Mapping[str, np.ndarray], free: np.ndarray) -> np.ndarray:
    """Rest offsets (K, 3) as rotation vectors from the left limbs' and the free pitches (6) and left collar (3)."""
    offsets = np.zeros((body.num_joints, 3))
    for name, pitch in zip(FREE_PITCH, free, strict=False):
        offsets[body.joint(name), 0] = pitch
    left = {name: matrix_to_rotvec(turn) for name, turn in limbs.items()} | {"left_collar": free[len(FREE_PITCH):]}
    for name, vector in left.items():
        offsets[body.joint(name)] = vector
        offsets[body.joint(mirror_name(name))] = vector * [1, -1, -1]
    return offsets


def upright() -> np.ndarray:
    """Return the free offsets (9,) for which the body stands as at rest in the mean pose of walkers."""
    return np.concatenate([-np.radians([WALKING_PITCH[name] for name in FREE_PITCH]), np.zeros(3)])


# ---- residuals


def poses(body: BodyModel, subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, K, 3) of the body in a subject's frames, and a trajectory (T, 3) of zeros."""
    return body_rotations_from_mocap(body, subject.rotations), np.zeros((len(subject.joints), 3))


def residuals(body: BodyModel, subject: Subject, shape: np.ndarray) -> np.ndarray:
    """Points of the body minus joints of the capture (T, 17, 3) metres, best translation of each frame."""
    difference = body.points("h36m17", *poses(body, subject), shape) - subject.joints
    return difference - difference.mean(1, keepdims=True)


def fit_shape(body: BodyModel, subject: Subject) -> np.ndarray:
    """Shape (S,) with which a body in the subject's poses comes closest; points are linear in it."""
    base = residuals(body, subject, np.zeros(body.num_shape))
    columns = [(residuals(body, subject, unit) - base).ravel() for unit in np.eye(body.num_shape)]
    weight = np.sqrt(EFFECTIVE_FRAMES / len(subject.joints)) / POSITION_SIGMA
    matrix = np.vstack([weight * np.stack(columns, axis=1), np.diag(1 / body.shape_sigma)])
    return np.linalg.lstsq(matrix, np.append(-weight * base.ravel(), np.zeros(body.num_shape)), rcond=None)[0]


def fit_offsets(body: BodyModel, subjects: list[Subject], shapes: list[np.ndarray], start: np.ndarray) -> np.ndarray:
    """Free offsets (9,) by least squares on the positions of all subjects, near those of upright walkers."""
    limbs = limb_offsets(body)
    sigma = np.array([PITCH_SIGMA] * len(FREE_PITCH) + [COLLAR_SIGMA] * 3)

    def errors(free: np.ndarray) -> np.ndarray:
        turned = with_offsets(body, all_offsets(body, limbs, free))
        parts = [residuals(turned, subject, shape) * np.sqrt(EFFECTIVE_FRAMES / len(subject.joints))
                 for subject, shape in zip(subjects, shapes, strict=True)]
        return np.concatenate([*(part.ravel() / POSITION_SIGMA for part in parts), (free - upright()) / sigma])

    return optimize.least_squares(errors, start, method="lm", diff_step=1e-4).x


def with_offsets(body: BodyModel, offsets: np.ndarray) -> BodyModel:
    """The body with other rest offsets (K, 3)."""
    return body.replace(extras={**body.extras, OFFSETS_KEY: offsets.astype(np.float32)})


# ---- points


@dataclass(frozen=True, eq=False)
class Mirror:
    """Which column of a regressor is on the other side."""

    columns: np.ndarray  # (V+K,)

    @classmethod
    def of(cls, body: BodyModel) -> Mirror:
        """Find it by the places of the vertices and the names of the joints."""
        from scipy.spatial import cKDTree

        vertices = cKDTree(body.template).query(body.template * [-1, 1, 1])[1]
        joints = [body.joint(mirror_name(name)) for name in body.joints]
        return cls(np.concatenate([vertices, body.num_vertices + np.array(joints)]))

    def row(self, row: np.ndarray) -> np.ndarray:
        """Mirror image of a row (V+K,)."""
        return row[self.columns]


def fit_points(body: BodyModel, mirror: Mirror, subjects: list[Subject], shapes: list[np.ndarray]) -> BodyModel:
    """Body with the fitted points of CANDIDATES in its `h36m17`; the middle of the hips follows from the hips."""
    rows = dict(zip(H36M.joints, body.regressors["h36m17"].toarray(), strict=True))
    bases = [residuals(body, subject, shape) for subject, shape in zip(subjects, shapes, strict=True)]
    for name in CANDIDATES:
        columns = candidate_columns(body, name)
        matrix, target = point_equations(body, mirror, name, columns, subjects, shapes, bases)
        row = np.zeros(len(mirror.columns))
        row[columns] = convex_weights(matrix, target)
        row[row < 1e-3] = 0
        row /= row.sum()
        paired = mirror_name(name) != name
        rows[name] = row if paired else (row + mirror.row(row)) / 2
        rows[mirror_name(name)] = mirror.row(row) if paired else rows[name]
    rows["hip"] = (rows["left_hip"] + rows["right_hip"]) / 2
    fitted = sparse.csr_matrix(np.array([rows[name] for name in H36M.joints]))
    return body.replace(regressors={**body.regressors, "h36m17": fitted})


def candidate_columns(body: BodyModel, name: str) -> np.ndarray:
    """Columns of the regressor that may make a point: joints, and vertices spread over the skin of some bones."""
    joints, bones = CANDIDATES[name]
    columns = [body.num_vertices + body.joint(joint) for joint in joints]
    if bones:
        weights = body.skin_weights[:, [body.joint(bone) for bone in bones]].sum(axis=1)
        carried = np.flatnonzero(np.asarray(weights).ravel() > 0.9)
        place = body.points("h36m17", *_at_rest(body))[0, H36M.index(name)]
        near = np.argsort(np.linalg.norm(body.template[carried] - place, axis=1))[:NEAREST_VERTICES]
        columns += spread_out(body.template, carried[near], CANDIDATE_VERTICES)
    return np.array(columns)


def spread_out(points: np.ndarray, chosen: np.ndarray, number: int) -> list[int]:
    """Numbers of points of a choice, each the one farthest from those before it."""
    picked = [int(chosen[0])]
    distance = np.full(len(chosen), np.inf)
    while len(picked) < min(number, len(chosen)):
        distance = np.minimum(distance, np.linalg.norm(points[chosen] - points[picked[-1]], axis=1))
        picked.append(int(chosen[distance.argmax()]))
    return picked


def point_equations(
    body: BodyModel, mirror: Mirror, name: str, columns: np.ndarray, subjects: list[Subject],
    shapes: list[np.ndarray], bases: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Coordinates of the candidates (C, E) and where the point should be (E,), in some frames of all subjects.

    Coordinates are relative to where the point is now, so that the frame's translation drops out, and both sides of a
    pair are used. A point in the middle is made of pairs: each candidate stands for itself and its mirror image.
    """
    size = len(mirror.columns)
    select = sparse.csr_matrix((np.ones(len(columns)), (np.arange(len(columns)), columns)), shape=(len(columns), size))
    other = select[:, np.argsort(mirror.columns)]
    paired = mirror_name(name) != name
    sides = [(name, select), (mirror_name(name), other)] if paired else [(name, (select + other) / 2)]
    matrices, targets = [], []
    for subject, shape, base in zip(subjects, shapes, bases, strict=True):
        part = slice(None, None, max(1, len(subject.joints) // POINT_FRAMES))
        motion = [array[part] for array in poses(body, subject)]
        now = body.points("h36m17", *motion, shape)
        for side, picked in sides:
            joint = H36M.index(side)
            places = body.points(picked, *motion, shape) - now[:, joint, None]
            matrices.append(np.moveaxis(places, 1, 0).reshape(len(columns), -1))
            targets.append(-base[part, joint].ravel())
    return np.concatenate(matrices, axis=1), np.concatenate(targets)


# ---- the whole


def fit(body: BodyModel, subjects: list[Subject]) -> BodyModel:
    """Alternate shapes, offsets and points, as often as it takes to settle."""
    mirror, free = Mirror.of(body), upright()
    for _ in range(ROUNDS):
        body = with_offsets(body, all_offsets(body, limb_offsets(body), free))
        shapes = [fit_shape(body, subject) for subject in subjects]
        free = fit_offsets(body, subjects, shapes, free)
        body = with_offsets(body, all_offsets(body, limb_offsets(body), free))
        body = fit_points(body, mirror, subjects, shapes)
    return with_offsets(body, all_offsets(body, limb_offsets(body), free))


def measure(body: BodyModel, subjects: Iterable[Subject]) -> dict[str, float]:
    """RMS distance in mm per joint; shapes from the even frames, distances in the odd ones."""
    errors = [residuals(body, subject.every_other(1), fit_shape(body, subject.every_other(0))) for subject in subjects]
    squares = (np.concatenate(errors) ** 2).sum(-1)
    rows = {name: round(float(1000 * np.sqrt(squares[:, joint].mean())), 1) for joint, name in enumerate(H36M.joints)}
    return rows | {"all": round(float(1000 * np.sqrt(squares.mean())), 1)}


@click.command()
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--rotations", default="data/mocap/mocap_rot24.h5", show_default=True)
@click.option("--body", "source", default="lite", show_default=True, help="Body file to start from.")
@click.option("--output", default=None, help="Where to write the body; by default in place of the one read.")
def main(mocap: str, rotations: str, source: str, output: str | None) -> None:
    """Fit rest offsets and the H36M-17 regressor of the embedded body."""
    subjects = read_subjects(mocap, rotations)
    body = load_body(source)
    geometric = with_offsets(body, geometric_rest_offsets(body))
    fitted = fit(body, [subject for subject in subjects if not subject.held_out])
    groups = {"train": [s for s in subjects if not s.held_out], "val": [s for s in subjects if s.held_out]}
    table = {f"{when} {group}": measure(which, chosen) for group, chosen in groups.items()
             for when, which in (("before", geometric), ("fitted", fitted))}
    for row in ("all", *H36M.joints):
        click.echo(f"{row:15}" + "".join(f"{title}: {errors[row]:5.1f}   " for title, errors in table.items()))
    for name, vector in zip(fitted.joints, np.degrees(fitted.extras[OFFSETS_KEY]), strict=True):
        click.echo(f"{name:15}" + " ".join(f"{angle:7.1f}" for angle in vector))
    save_body(fitted, output or Path(__file__).parent.parent / "lifting" / "weights" / "body_lite.npz")
    report = Path("runs/body_regressors.json")
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps({"rms_mm": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
