"""Rendered people through the default detector: the lifter against MediaPipe's own 3D landmarks, and the 2D errors.

    python -m experiments.rendered_people --rotations mocap_rot24.h5 [--clips 24] [--weights FILE] [--subjects 05,09,10]

Motion of people that no weights have seen is worn by random adults of the embedded body, dressed in plain colours and
rendered before static, tilted cameras: 100 frames at 50 Hz, 720x960 pixels, looking from -10 to 45 degrees down, roll
+-10 (one deviation), the whole person in view. The default detector follows them; `lift.predict` gets the camera.
Truth are the body's COCO points: P-MPJPE of shoulders, elbows, wrists, hips, knees and ankles, for both. What one
camera leaves open even with faultless 2D stands beside, and without `lifting.refinement`.

2D errors, in % of the projected stature, against the same points of the body: their part that is constant over a clip,
the moving part (deviation along an axis, percentiles of the length, correlation over 0.1 and 0.4 s) and how they go
with the scores. `lifting.datasets.detector_noise` imitates the moving part.

Videos and detections are kept under ``--folder``, so other weights need no second rendering. Writes
``runs/rendered_people.json``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from scipy.ndimage import zoom
from tqdm import tqdm

from experiments.fit_table import Row, Target, markdown
from experiments.fit_truth import FPS, SUBJECTS, dress, read_windows
from lifting.body import BodyModel, load_body
from lifting.cameras import Camera
from lifting.console import one_sentence_errors, say
from lifting.datasets.mocap import Z_UP_FROM_Y_UP
from lifting.datasets.synthesis import camera_rotation
from lifting.evidence import choose_people, detect_people
from lifting.files import atomic_write
from lifting.keypoints import Keypoints2D
from lifting.meshes import SkinnedMesh
from lifting.metrics import p_mpjpe
from lifting.motion import BodyMotion
from lifting.predict import Lifter, default_lifter
from lifting.rotations import matrix_to_rotvec
from lifting.skeletons import get_skeleton
from lifting.video.writer import VideoWriter
from lifting.view.mesh import MeshPainter, camera_eye

FRAMES, SIZE, SEED = 100, (720, 960), 20261122
CAMERA = Camera((900.0, 900.0), (360.0, 480.0), SIZE)
PITCH, ROLL = (-10.0, 45.0), 10.0  # degrees
MARGIN, NEAREST = 40, 3.0  # pixels around the person; metres to the middle of the path
LAYOUT = get_skeleton("mediapipe33")
COMPARED = tuple(f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
                 for side in ("left", "right"))  # fmt: skip
OURS, TRUE, THEIRS = (get_skeleton(name).indices(COMPARED) for name in ("h36m17", "coco17", "mediapipe33"))
SHIRT = ("spine1", "spine2", "spine3", "left_collar", "right_collar", "left_shoulder", "right_shoulder")
TROUSERS = ("pelvis", "left_hip", "right_hip")
SHOES = ("left_ankle", "right_ankle", "left_foot", "right_foot")
SKINS = ((224, 172, 140), (198, 134, 100), (141, 85, 60), (240, 200, 170))
HAIRS = ((40, 28, 20), (90, 60, 35), (20, 20, 20), (150, 110, 60))
KINDS = ("nose", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "heel", "foot_index")
SCORES = (0.0, 0.2, 0.5, 0.8, 0.95, 1.01)


@dataclass(frozen=True)
class Scene:
    """A body's true motion in camera axes."""

    name: str
    motion: BodyMotion

    def points(self, body: BodyModel, layout: str) -> np.ndarray:
        """(T, J, 3) metres, camera axes."""
        return body.points(layout, self.motion.rotations, self.motion.trajectory, self.motion.shape)


@dataclass(frozen=True)
class Seen:
    """What MediaPipe's networks make of a clip: keypoints, and 3D landmarks (T, 12, 3), NaN where there are none."""

    keypoints: Keypoints2D
    landmarks: np.ndarray


def place(name: str, body: BodyModel, rotvec: np.ndarray, path: np.ndarray) -> Scene:
    """Motion capture on a random adult before a random camera that holds the whole person all the time."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    worn = dress(body, rotvec, path, rng)
    angles = np.radians([rng.uniform(0, 360), rng.uniform(*PITCH), rng.normal(0, ROLL)])
    turn = camera_rotation(*angles) @ Z_UP_FROM_Y_UP
    rotations, trajectory = worn.turned(turn)
    trajectory -= turn @ ((worn.trajectory.min(0) + worn.trajectory.max(0)) / 2)
    joints, away = body.points("h36m17", rotations, trajectory, worn.shape), NEAREST
    while not _in_view(joints + [0, 0, away]):
        away += 0.2
    motion = BodyMotion(matrix_to_rotvec(rotations), trajectory + [0, 0, away], worn.shape, body.name, FPS)
    return Scene(name, motion)


def _in_view(points: np.ndarray) -> bool:
    pixels = CAMERA.project(points)
    return bool((points[..., 2] > 1).all() and (pixels > MARGIN).all() and (pixels < np.array(SIZE) - MARGIN).all())


def clothes(body: BodyModel, mesh: SkinnedMesh) -> list[SkinnedMesh]:
    """The mesh in five pieces with the same vertices: skin, shirt, trousers, shoes, hair."""
    owner = np.array(body.joints)[body.skin_weights.toarray().argmax(1)]
    piece = sum(number * np.isin(owner, joints) for number, joints in enumerate((SHIRT, TROUSERS, SHOES), start=1))
    head = np.flatnonzero(owner == "head")
    points = np.asarray(mesh.rest_vertices)[head]
    height, depth = (_share(points @ _axis(name)) for name in (body.up, body.forward))
    piece[head[(height > 0.82) | ((depth < 0.45) & (height > 0.35))]] = 4
    faces = np.asarray(mesh.faces)
    of_face = np.median(piece[faces], axis=1)
    return [replace(mesh, faces=faces[of_face == number]) for number in range(5)]


def _axis(name: str) -> np.ndarray:
    return (-1 if name.startswith("-") else 1) * np.eye(3)["xyz".index(name[-1])]


def _share(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / np.ptp(values)


def pictures(scene: Scene, body: BodyModel) -> Iterator[np.ndarray]:
    """The clip's frames (H, W, 3) uint8: the person before a blurred wall, with a camera's noise."""
    rng = np.random.default_rng([SEED + 1, zlib.crc32(scene.name.encode())])
    skin, hair = SKINS[rng.integers(len(SKINS))], HAIRS[rng.integers(len(HAIRS))]
    colours = [skin, *rng.integers(20, 230, (3, 3)).tolist(), hair]
    painter = MeshPainter(clothes(body, body.skinned(scene.motion)), [tuple(map(float, c)) for c in colours])
    wall, eye = _wall(rng), camera_eye(CAMERA)
    for frame in range(len(scene.motion.trajectory)):
        picture = wall.copy()
        painter.draw(picture, frame, eye)
        yield np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def _wall(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.uniform(90, 200) + rng.normal(0, 14, (12, 9, 3)) + rng.normal(0, 22, (12, 9, 1))
    return np.clip(zoom(coarse, (SIZE[1] / 12, SIZE[0] / 9, 1), order=1), 0, 255).astype(np.uint8)


def look(scene: Scene, body: BodyModel, folder: Path) -> Seen:
    """Renders and detects a clip, or takes what an earlier call has left in the folder."""
    kept = folder / f"{scene.name}.npz"
    if not kept.exists():
        video = kept.with_suffix(".mp4")
        with VideoWriter(video, SIZE, FPS, quality=16) as writer:
            for picture in pictures(scene, body):
                writer.write(picture)
        ((_, keypoints),) = choose_people(detect_people(video), "largest")
        with atomic_write(kept) as file:
            np.savez_compressed(file, xy=keypoints.xy, score=keypoints.score, landmarks=landmarks_of(video))
    with np.load(kept) as found:
        return Seen(Keypoints2D(found["xy"], found["score"], LAYOUT, SIZE, FPS), found["landmarks"])


def landmarks_of(video: Path) -> np.ndarray:
    """MediaPipe's own 3D (T, 12, 3) of the compared joints, metres, NaN where it finds nobody."""
    import mediapipe

    from lifting.video import open_video

    with open_video(video) as frames, mediapipe.solutions.pose.Pose(model_complexity=1) as model:
        found = [model.process(frame.rgb).pose_world_landmarks for frame in frames]
    nowhere = np.full((len(THEIRS), 3), np.nan)
    return np.array([[[f.landmark[k].x, f.landmark[k].y, f.landmark[k].z] for k in THEIRS] if f else nowhere
                     for f in found])  # fmt: skip


def errors_3d(scene: Scene, body: BodyModel, seen: Seen, lifter: Lifter) -> dict[str, float]:
    """P-MPJPE in mm by method."""
    truth = scene.points(body, "coco17")[: len(seen.keypoints), TRUE]
    exact = Keypoints2D(CAMERA.project(scene.points(body, LAYOUT.name)), None, LAYOUT, SIZE, FPS)
    poses = {
        "MediaPipe's landmarks": seen.landmarks,
        "lift.predict": lifter.predict(seen.keypoints, CAMERA).joints[:, OURS],
        "without refinement": lifter.predict(seen.keypoints, CAMERA, refine=False).joints[:, OURS],
        "exact 2D": lifter.predict(exact, CAMERA).joints[: len(truth), OURS],
    }
    told = {name: np.isfinite(pose).all((1, 2)) for name, pose in poses.items()}
    return {name: 1000 * p_mpjpe(pose[told[name]], truth[told[name]]) for name, pose in poses.items()}


def errors_2d(scene: Scene, body: BodyModel, seen: Seen) -> np.ndarray:
    """(T, 33, 2) in % of the projected stature, NaN where unseen."""
    points = scene.points(body, LAYOUT.name)[: len(seen.keypoints)]
    tall = CAMERA.focal[0] * body.stature(scene.motion.shape) / scene.motion.trajectory[: len(points), None, None, 2]
    error = 100 * (seen.keypoints.xy - CAMERA.project(points)) / tall
    return np.where(seen.keypoints.seen[..., None], error, np.nan)


def table_2d(errors: list[np.ndarray]) -> list[Row]:
    """A row per kind of joint, both sides together."""
    rows = []
    for kind in KINDS:
        columns = [k for k, name in enumerate(LAYOUT.joints) if name.endswith(kind)]
        rows.append(Row({"joint": kind, **_moments([e[:, columns] for e in errors])}))
    return rows


def _moments(errors: list[np.ndarray]) -> dict[str, float]:
    constant = [np.nanmean(e, axis=0, keepdims=True) for e in errors]
    moving = [e - c for e, c in zip(errors, constant, strict=True)]
    length = np.concatenate([np.linalg.norm(m, axis=-1).ravel() for m in moving])
    power = np.nanmean(np.concatenate([m.ravel() for m in moving]) ** 2)
    again = {}
    for lag in (5, 20):
        product = np.concatenate([(m[lag:] * m[:-lag]).ravel() for m in moving])
        again[f"after {lag / FPS:g} s"] = float(np.nanmean(product) / power)
    percentiles = {f"{p} %": float(np.nanpercentile(length, p)) for p in (50, 90, 95, 99)}
    constant = np.sqrt(np.nanmean(np.concatenate([c.ravel() for c in constant]) ** 2))
    return {"constant": float(constant), "moving": float(np.sqrt(power)), **percentiles, **again}


def table_of_scores(errors: list[np.ndarray], scores: list[np.ndarray]) -> list[Row]:
    """Errors of the twelve joints by what the detector says of them."""
    length = np.concatenate([np.linalg.norm(e[:, THEIRS], axis=-1).ravel() for e in errors])
    score = np.concatenate([s[:, THEIRS].ravel() for s in scores])
    rows = []
    for low, high in zip(SCORES, SCORES[1:], strict=False):
        chosen = length[(score >= low) & (score < high) & np.isfinite(length)]
        named = f"{low:g} to {min(high, 1):g}"
        if len(chosen):
            median, many = np.percentile(chosen, (50, 90))
            rows.append(Row({"score": named, "share %": 100 * len(chosen) / np.isfinite(length).sum(),
                             "median %": float(median), "90 %": float(many)}))  # fmt: skip
    return rows


@click.command()
@click.option("--rotations", default="data/mocap/mocap_rot24.h5", show_default=True)
@click.option("--clips", default=24, show_default=True, help="Windows of 100 frames, evenly spread over the pieces.")
@click.option("--subjects", default=",".join(SUBJECTS), show_default=True)
@click.option("--weights", default=None, help="Other lifter weights than the default ones.")
@click.option("--folder", default="runs/rendered_people", show_default=True, type=click.Path(path_type=Path))
@click.option("--output", default="runs/rendered_people.json", show_default=True, type=click.Path(path_type=Path))
@one_sentence_errors
def main(rotations: str, clips: int, subjects: str, weights: str | None, folder: Path, output: Path) -> None:
    """Renders, detects, lifts and prints the tables."""
    windows = list(read_windows(rotations, FRAMES, tuple(subjects.split(","))))
    if not windows or clips < 1:
        raise ValueError(f"got {len(windows)} windows of {FRAMES} frames and {clips} clips; expected at least one each")
    chosen = np.unique(np.linspace(0, len(windows) - 1, min(clips, len(windows))).round().astype(int))
    body, lifter = load_body(), Lifter.load(weights) if weights else default_lifter()
    details, errors, scores = [], [], []
    for number in tqdm(chosen, disable=None):
        scene = place(windows[number][0], body, *windows[number][1:])
        seen = look(scene, body, folder)
        details.append({"clip": scene.name, **errors_3d(scene, body, seen, lifter)})
        errors.append(errors_2d(scene, body, seen))
        scores.append(seen.keypoints.score)
    methods = [name for name in details[0] if name != "clip"]
    mean = {name: float(np.mean([row[name] for row in details])) for name in methods}
    theirs = mean["MediaPipe's landmarks"]
    rows = [Row({"method": name, "P-MPJPE mm": value, "lower %": 100 * (1 - value / theirs)},
                {"lower %": Target(40, at_most=False)} if name == "lift.predict" else {}, details)
            for name, value in mean.items()]  # fmt: skip
    tables = {"3d": rows, "2d": table_2d(errors), "scores": table_of_scores(errors, scores)}
    for table in tables.values():
        say(markdown(table) + "\n")
    with atomic_write(output, "w") as file:
        json.dump({"clips": len(details), **{name: [row.to_dict() for row in table] for name, table in tables.items()}},
                  file, indent=2)  # fmt: skip


if __name__ == "__main__":
    main()
