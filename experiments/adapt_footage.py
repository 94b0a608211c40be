"""Adapting the default lifter to footage that it was not trained for, without a single label.

    python -m experiments.adapt_footage [--mocap data/mocap/mocap17.h5] [--videos DIR]

Footage: one clip a minute long (3,000 frames at 50 fps) of each validation subject (05, 09, 10; twice of 05, which has
the most motion). A clip is the subject's takes in the order of their names (the second one of 05 begins in their
middle), one after the other with hard cuts, begun again when they are used up (09 and 10 have 29 and 28 s); each take
is turned by a random angle about the vertical and moved so that the middle of its path is at the origin. Each clip is
filmed by one static camera: 1920x1080 px, horizontal field of view 110 degrees before distortion, k1 = -0.25 (keypoints
are distorted pixels), 2.5-5 m from the path's middle, pitch -5 to 25 degrees. What lies beyond the radius where this
lens folds back is unseen. The body is scaled to 1.1 x the tallest of 1,500 bodies that training draws (2.21 m): 2.43 m.

2D: ``exact`` keypoints; ``noisy`` ones with the errors of the benchmark protocol (`experiments.protocol.NOISE`).
Cameras: ``known`` with their distortion; ``unknown``: a pinhole whose focal length is the image diagonal.
Networks: ``clip``, one adapted to each clip alone; ``folder``, one adapted to all clips of a table together.

The numbers that adapting uses were chosen on the same kind of footage of four subjects of the training split: 94 and
135 (Indian dance, martial arts; the default weights did not see them), 06 and 07 (basketball, walking; they did);
``--tuning`` runs on those. With --videos: reprojection errors on real videos.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click
import numpy as np

from experiments.protocol import NOISE
from lifting.anatomy import stature
from lifting.cameras import Camera, distort, square_radius_limit
from lifting.datasets.clips import Clip
from lifting.datasets.detector_noise import NoiseModel
from lifting.datasets.mocap import DEFAULT_PATH, MocapPiece, read_mocap
from lifting.datasets.synthesis import CameraRanges, photograph
from lifting.keypoints import Keypoints2D
from lifting.metrics import mpjpe, p_mpjpe
from lifting.motion import Motion
from lifting.predict import AssumptionWarning, Lifter
from lifting.training.adapt import AdaptConfig, AdaptReport, adapt

SEED = 20261121
FRAMES = 3000
STATURE = 1.1 * 2.21  # metres
CAMERA = replace(Camera.from_fov(110.0, (1920, 1080)), distortion=np.array([-0.25, 0, 0, 0, 0]))
PLACES = CameraRanges((110.0, 110.0), (2.5, 5.0), (-5.0, 25.0), (0.0, 0.0), 0.2, 1.0, (16 / 9,))
EXACT = NoiseModel(bias=0.0, jitter=(0.0, 0.0), swap_share=0.0, dropout_share=0.0)
DETECTORS = {"exact": EXACT, "noisy": NOISE}
CAMERAS, NETWORKS = ("known", "unknown"), ("clip", "folder")
TESTED = (("val", "05", 0.0), ("val", "05", 0.5), ("val", "09", 0.0), ("val", "10", 0.0))
TUNED_ON = (("train", "94", 0.0), ("train", "135", 0.0), ("train", "06", 0.0), ("train", "07", 0.0))


def footage(mocap: str, clips: Sequence[tuple[str, str, float]], detector: str) -> list[Clip]:
    """Labelled clips (the labels are for measuring) of (split, subject, share of the takes to begin at)."""
    return [film(mocap, *clip, detector) for clip in clips]


def film(mocap: str, split: str, subject: str, begin: float, detector: str) -> Clip:
    """One minute of a subject as the module's text says, the same on every machine."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"{subject} {begin}".encode())])
    pieces = read_mocap(mocap, split=split, subjects=[subject])
    first = round(begin * len(pieces))
    joints = one_minute(pieces[first:] + pieces[:first], rng)
    joints *= np.float32(STATURE / stature(joints))
    feet = np.full((1, FRAMES, 4, 3), np.nan, np.float32)
    views = photograph(joints[None], feet, ((1.0, PLACES),), DETECTORS[detector], rng)
    motion = Motion(views.joints[0], views.root[0], None, "h36m17", 50.0)
    keypoints = through_lens(views.rays[0], views.scores[0])
    return Clip(subject, f"minute from {begin:g}", detector, keypoints, motion, CAMERA)


def one_minute(pieces: Sequence[MocapPiece], rng: np.random.Generator) -> np.ndarray:
    """Takes one after the other, (FRAMES, 17, 3) metres, Z up; each centred on its path and turned at random."""
    parts, left, index = [], FRAMES, 0
    while left:
        joints = pieces[index % len(pieces)].joints[:left]
        middle = (joints[:, 0].min(0) + joints[:, 0].max(0)) / 2 * [1, 1, 0]
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        parts.append((joints - middle) @ turn.T)
        left, index = left - len(joints), index + 1
    return np.concatenate(parts).astype(np.float32)


def through_lens(rays: np.ndarray, scores: np.ndarray) -> Keypoints2D:
    """Distorted pixels of rays (T, 17, 2); what the lens cannot map one to one is unseen."""
    seen = np.square(rays).sum(-1) < 0.98 * square_radius_limit(CAMERA.distortion)
    pixels = distort(rays.astype(np.float64), CAMERA.distortion) * CAMERA.focal + CAMERA.center
    xy = np.where(seen[..., None], pixels, np.nan)
    return Keypoints2D(xy, np.where(seen, scores, 0), "lift17", CAMERA.image_size, 50.0)


def errors(lifter: Lifter, clip: Clip) -> dict[str, float]:
    """P-MPJPE and MPJPE in mm and the reprojection error in pixels of one clip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        lifted = lifter.lift(clip.keypoints, clip.camera)
    joints, truth = lifted.motion.joints, clip.motion.joints
    return {
        "p_mpjpe_mm": 1000 * p_mpjpe(joints, truth),
        "mpjpe_mm": 1000 * mpjpe(joints, truth),
        "reprojection_px": lifted.reprojection_px,
    }


def without(clip: Clip, camera: bool) -> Clip:
    """The clip as adapting may see it: without its labels, and without its camera unless that is known."""
    return replace(clip, motion=None, camera=clip.camera if camera else None)


def compare(lifter: Lifter, clips: Sequence[Clip], known: bool, config: AdaptConfig, shared: bool) -> list[dict]:
    """One row for each clip: errors before and after, with one network for all (``shared``) or one for each."""
    unlabelled = [without(clip, known) for clip in clips]
    reports: list[AdaptReport]
    if shared:
        reports = [adapt(lifter, unlabelled, config)] * len(clips)
    else:
        reports = [adapt(lifter, [clip], config) for clip in unlabelled]
    rows = []
    for clip, report in zip(clips, reports, strict=True):
        seen = clip if known else replace(clip, camera=None)
        before, after = errors(lifter, seen), errors(report.lifter, seen)
        rows.append({
            "clip": clip.name, "camera": "known" if known else "unknown", "network": "folder" if shared else "clip",
            "seconds": report.seconds / (len(clips) if shared else 1), "before": before, "after": after,
            "change_percent": 100 * (after["p_mpjpe_mm"] / before["p_mpjpe_mm"] - 1),
        })  # fmt: skip
    return rows


def summary(rows: Sequence[dict]) -> str:
    """A row of Markdown for each clip and one for their mean."""
    lines = ["| clip | camera | network | P-MPJPE mm | change % | MPJPE mm | reprojection px | s |", "|---" * 8 + "|"]
    for row in [*rows, mean_row(rows)]:
        pairs = (f"{row['before'][name]:.1f} -> {row['after'][name]:.1f}"
                 for name in ("p_mpjpe_mm", "mpjpe_mm", "reprojection_px"))  # fmt: skip
        poses, plain, pixels = pairs
        lines.append(
            f"| {row['clip']} | {row['camera']} | {row['network']} | {poses} | {row['change_percent']:+.1f} | "
            f"{plain} | {pixels} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def mean_row(rows: Sequence[dict]) -> dict:
    """The mean over clips; its change is the mean of the clips' changes."""
    mean = {
        when: {name: float(np.mean([row[when][name] for row in rows])) for name in rows[0][when]}
        for when in ("before", "after")
    }
    numbers = {name: float(np.mean([row[name] for row in rows])) for name in ("change_percent", "seconds")}
    worst = max(row["change_percent"] for row in rows)
    return {**rows[0], "clip": f"mean of {len(rows)} (worst {worst:+.1f} %)", **mean, **numbers}


def real_footage(lifter: Lifter, folder: str, config: AdaptConfig) -> dict:
    """Reprojection errors on real videos, before and after one network was adapted to all people in them."""
    from lifting.footage import read_footage

    footage = read_footage(folder, report=click.echo)
    report = adapt(lifter, footage.clips, config)
    rows = []
    for clip in footage.clips:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AssumptionWarning)
            pixels = [one.lift(clip.keypoints, clip.camera).reprojection_px for one in (lifter, report.lifter)]
        rows.append({"clip": clip.name, "frames": len(clip), "reprojection_px": pixels})
        click.echo(f"| {clip.name} | {len(clip)} frames | {pixels[0]:.1f} -> {pixels[1]:.1f} px |")
    return {"rows": rows, "before": report.before, "after": report.after, "seconds": report.seconds}


@click.command()
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--videos", default=None, help="A folder of real videos to adapt to as well.")
@click.option("--tuning", is_flag=True, help="On the footage that the numbers were chosen on.")
@click.option("--detector", "detectors", type=click.Choice(list(DETECTORS)), multiple=True, default=list(DETECTORS))
@click.option("--camera", "cameras", type=click.Choice(CAMERAS), multiple=True, default=CAMERAS)
@click.option("--network", "networks", type=click.Choice(NETWORKS), multiple=True, default=NETWORKS)
@click.option("--steps", default=AdaptConfig.steps, show_default=True)
@click.option("--learning-rate", default=AdaptConfig.learning_rate, show_default=True)
@click.option("--output", default="runs/adapt_footage.json", show_default=True)
def main(
    mocap: str, videos: str | None, tuning: bool, detectors: tuple[str, ...], cameras: tuple[str, ...],
    networks: tuple[str, ...], steps: int, learning_rate: float, output: str,
) -> None:  # fmt: skip
    """Adapts the default lifter to synthetic footage, prints tables and writes them as JSON."""
    lifter, config = Lifter.load(), AdaptConfig(steps=steps, learning_rate=learning_rate)
    result: dict = {"config": asdict(config), "tables": []}
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    for detector in detectors:
        clips = footage(mocap, TUNED_ON if tuning else TESTED, detector)
        for camera, network in ((c, n) for c in cameras for n in networks):
            rows = compare(lifter, clips, camera == "known", config, network == "folder")
            click.echo(f"\n{summary(rows)}")
            result["tables"].append({"detector": detector, "rows": rows})
            path.write_text(json.dumps(result, indent=1))
    if videos:
        result["real"] = real_footage(lifter, videos, config)
        path.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
