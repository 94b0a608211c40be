"""How far a lift can be trusted: a report for each person, from what was detected, repaired and lifted.

A frame is doubted for what shows in it; doubts that last become spans in seconds of the video, each with its reason.
Nothing here knows the truth: a lift without a doubt can still be wrong, in depth above all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifting.cameras import Camera
from lifting.cleaning import person_size
from lifting.files import atomic_write
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Take
from lifting.skeletons import get_skeleton

if TYPE_CHECKING:
    from lifting.predict import Lifted

BODY = get_skeleton("lift17").joints[:13]
LEGS = [name for name in BODY if name.endswith(("knee", "ankle"))]
ARMS = [name for name in BODY if name.endswith(("elbow", "wrist"))]

SURE_SCORE = 0.3  # a joint below it is a detector's guess
POOR_REPROJECTION = 0.06  # share of the person's size in the image
POOR_SIGMA = 0.2  # metres
POOR_SCORE = 0.5  # mean confidence of the body joints below which a lift is called doubtful
MANY_SWAPS = 0.25  # share of exchanged frames above which the majority no longer tells which side is which
POOR_RATE = 0.6  # share of a person's span in which they were seen
POOR_BONES = 0.1  # variation of the bones' lengths over time, in the median

FEWEST_JOINTS = 3  # seen body joints without which a pose is bridged
FEWEST_OF_LIMBS = 0.5  # share of the sure joints of the arms, or legs, below which they are guessed
MANY_CHANGES = 4  # of the labels left and right within a second: twice there and back
SHORTEST_SECONDS, MERGED_SECONDS = 0.1, 0.3  # shorter spans are no news; spans closer to each other are one


def report_person(
    number: int, keypoints: Keypoints2D, lifted: Lifted, camera: Camera, times: np.ndarray, first: int = 0
) -> dict:
    """Plain facts about one person's lift, and where it should not be trusted.

    Args:
        number: the person's id. keypoints: as detected, of the T frames from the first to the last sight of them.
        lifted: what was made of them. camera: the one lifted with. times: (T,) seconds of the frames.
        first: number of the first of these frames in the take.

    Returns ``seen_share``, ``sure_joints_share`` and ``mean_confidence`` (detection), ``gaps``, ``repairs``,
    ``reprojection_error_px`` and ``_share`` (of the person's size), ``bone_length_variation`` (standard deviation over
    mean, before bones are made constant), ``median_sigma_m``, ``scale``, ``untrusted`` (spans: start and end in
    seconds, reason), ``untrusted_share`` of the frames and ``warnings`` about the whole.
    """
    inside = lifted.cleaned.keypoints
    found = keypoints.seen.any(1)
    scores = inside.score[:, _columns(inside, BODY)]
    doubts = doubt_frames(lifted, camera)
    report = {
        "id": number,
        "frames": int(found.sum()),
        "first_frame": int(first),
        "last_frame": int(first + len(keypoints) - 1),
        "seen_share": round(float(found.mean()), 4),
        "sure_joints_share": round(float((scores >= SURE_SCORE).mean()), 4),
        "mean_confidence": round(float(scores[scores > 0].mean()) if (scores > 0).any() else 0.0, 4),
        "gaps": _describe_gaps(found, keypoints.fps),
        "reprojection_error_px": _finite(lifted.reprojection_px, 2),
        "reprojection_error_share": _finite(lifted.reprojection_px / float(np.median(person_size(inside))), 4),
        "bone_length_variation": _describe_bones(lifted.motion),
        "median_sigma_m": round(float(np.nanmedian(lifted.motion.sigma)), 4),
        "scale": round(lifted.scale, 4),
        "repairs": lifted.cleaned.summary(),
        "untrusted": find_spans(doubts, times, keypoints.fps),
        "untrusted_share": round(float(np.any([*doubts.values()], axis=0).mean()), 4),
    }
    report["warnings"] = _doubt_whole(report)
    return report


def _finite(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def _describe_gaps(found: np.ndarray, fps: float) -> dict:
    """How often, how many frames in all and how long at most nobody was seen; found: (T,) bool."""
    lengths = np.array([stop - start for start, stop in _runs(~found)], int)
    longest = round(float(lengths.max(initial=0)) / fps, 3)
    return {"count": len(lengths), "frames": int(lengths.sum()), "longest_seconds": longest}


def _describe_bones(motion: Motion) -> dict:
    """Standard deviation of the bones' lengths over their mean: in the median, and of the worst bone."""
    parents, children = (list(ends) for ends in zip(*motion.skeleton.bones, strict=True))
    lengths = np.linalg.norm(motion.joints[:, children] - motion.joints[:, parents], axis=-1)
    variation = lengths.std(0) / np.maximum(lengths.mean(0), 1e-6)
    worst = int(variation.argmax())
    bone = "-".join(motion.skeleton.joints[joint] for joint in motion.skeleton.bones[worst])
    return {"median": round(float(np.median(variation)), 4), "worst": round(float(variation[worst]), 4), "bone": bone}


# ---- frames and spans


def doubt_frames(lifted: Lifted, camera: Camera) -> dict[str, np.ndarray]:
    """(T,) bool for each reason not to trust a frame: doubts that last, smoothed over time."""
    points = lifted.cleaned.keypoints
    blind = points.seen[:, _columns(points, BODY)].sum(1) < FEWEST_JOINTS
    unsure = np.median(lifted.motion.sigma, axis=1) > POOR_SIGMA
    reasons = {
        "not seen: bridged": blind,
        "legs hardly seen: guessed": ~blind & (_sure_share(points, LEGS) < FEWEST_OF_LIMBS),
        "arms hardly seen: guessed": ~blind & (_sure_share(points, ARMS) < FEWEST_OF_LIMBS),
        "the motion misses the keypoints": _missed_share(lifted, camera) > POOR_REPROJECTION,
        "left and right change places again and again": _many_changes(lifted.cleaned.swapped, points.fps),
        "the lifter is unsure": ~blind & unsure,
    }
    return {reason: _lasting(mask, points.fps) for reason, mask in reasons.items()}


def _sure_share(points: Keypoints2D, joints: list[str]) -> np.ndarray:
    """(T,) share of the joints that were seen well."""
    return (points.score[:, _columns(points, joints)] >= SURE_SCORE).mean(1)


def _columns(points: Keypoints2D, joints: Sequence[str]) -> list[int]:
    """Of those of the joints that the keypoints have: weights with a layout of their own may take no nose."""
    return [points.skeleton.index(name) for name in joints if name in points.skeleton.joints]


def _missed_share(lifted: Lifted, camera: Camera) -> np.ndarray:
    """(T,) median distance of seen keypoints from the projected joints in person sizes; 0 where none is seen."""
    points = lifted.cleaned.keypoints
    motion = lifted.motion
    shared = [name for name in points.skeleton.joints if name in motion.skeleton.joints]
    projected = camera.project(motion.absolute[:, motion.skeleton.indices(shared)])
    distance = np.linalg.norm(projected - points.xy[:, points.skeleton.indices(shared)], axis=-1)
    missed = np.zeros(len(points))
    known = np.isfinite(distance).any(1)
    missed[known] = np.nanmedian(distance[known], axis=1)
    return missed / person_size(points)


def _many_changes(swapped: np.ndarray, fps: float) -> np.ndarray:
    """(T,) bool: from the first to the last of many changes of the labels within a second; swapped: (T,)."""
    changes = np.flatnonzero(np.diff(swapped))
    often = np.zeros(len(swapped), bool)
    for first, last in zip(changes, changes[MANY_CHANGES - 1 :], strict=False):
        if last - first <= fps:
            often[first : last + 2] = True
    return often


def _lasting(mask: np.ndarray, fps: float) -> np.ndarray:
    """The mask (T,) with short gaps between its spans filled and short spans left out."""
    filled = mask.copy()
    for start, stop in _runs(~mask):
        if 0 < start and stop < len(mask) and stop - start <= MERGED_SECONDS * fps:
            filled[start:stop] = True
    for start, stop in _runs(filled):
        if stop - start < min(SHORTEST_SECONDS * fps, len(mask)):
            filled[start:stop] = False
    return filled


def _runs(mask: np.ndarray) -> np.ndarray:
    """(n, 2) first frame and the one after the last of each run of True."""
    return np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)


def find_spans(doubts: Mapping[str, np.ndarray], times: np.ndarray, fps: float) -> list[dict]:
    """The runs of each mask (T,) as start, end (seconds, the end of the last frame) and reason, in order of time."""
    spans = [
        {"start": round(float(times[start]), 3), "end": round(float(times[stop - 1] + 1 / fps), 3), "reason": reason}
        for reason, mask in doubts.items() for start, stop in _runs(mask)
    ]  # fmt: skip
    return sorted(spans, key=lambda span: (span["start"], span["end"]))


def describe_spans(report: Mapping, most: int = 3) -> str:
    """A person's untrusted spans in words, the longest `most` of them in order of time; empty without any."""
    spans = sorted(report.get("untrusted", ()), key=lambda span: span["start"] - span["end"])
    words = [f"{span['start']:.2f}-{span['end']:.2f} s ({span['reason']})"
             for span in sorted(spans[:most], key=lambda span: span["start"])]  # fmt: skip
    more = len(spans) - len(words)
    return ", ".join([*words, *([f"and {more} more"] if more > 0 else [])])


# ---- the whole


def _doubt_whole(report: dict) -> list[str]:
    """Sentences for a lift that rests on poor detection."""
    doubts = []
    if report["mean_confidence"] < POOR_SCORE:
        doubts.append(f"detection is poor (mean confidence {report['mean_confidence']:.2f}): do not trust this motion")
    if report["seen_share"] < POOR_RATE:
        doubts.append(f"seen in only {report['seen_share']:.0%} of the frames between first and last: gaps are bridged")
    if report["sure_joints_share"] < POOR_RATE:
        doubts.append(f"only {report['sure_joints_share']:.0%} of the body joints were seen well: the rest is guessed")
    if (report["reprojection_error_share"] or 0) > POOR_REPROJECTION:
        doubts.append(f"the motion misses the keypoints by {report['reprojection_error_share']:.0%} of the person")
    if report["median_sigma_m"] > POOR_SIGMA:
        doubts.append(f"the lifter is unsure (sigma {1000 * report['median_sigma_m']:.0f} mm): do not trust it")
    if report["bone_length_variation"]["median"] > POOR_BONES:
        doubts.append(f"bone lengths vary by {report['bone_length_variation']['median']:.0%} over time")
    swapped = report["repairs"]["swapped_frames"] / report["repairs"]["frames"]
    if swapped > MANY_SWAPS:
        doubts.append(f"left and right were exchanged in {swapped:.0%} of the frames: which side is which may be wrong")
    return doubts


def write_report(take: Take, path: str | Path, **more: object) -> None:
    """The take's report, and what is `more`, as JSON: people, confidence, repairs, camera, assumptions, warnings."""
    with atomic_write(path) as file:
        file.write(json.dumps({**report_of(take), **more}, indent=2).encode())


def report_of(take: Take) -> dict:
    """The take's report: plain JSON-able facts."""
    return {
        "name": take.name, "frames": len(take), "fps": take.fps, "image_size": list(take.image_size),
        "assumed": list(take.assumed), **take.metadata,
    }  # fmt: skip
