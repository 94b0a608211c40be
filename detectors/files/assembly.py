"""From what a format read to a `KeypointFile`: one time axis with its gaps, checked pixels, confidences in [0, 1]."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from lifting.detectors.files.content import as_numbers
from lifting.detectors.files.keypoint_file import KeypointFile, Request
from lifting.detectors.files.layouts import choose_layout
from lifting.keypoints import Detection, check_fps, check_image_size
from lifting.skeletons import Skeleton

__all__ = ["Poses", "as_pose", "number_names"]

MAX_FRAMES = 10_000_000  # 55 hours at 50 frames per second
MAX_UNLISTED_FRAMES, MAX_SPARSITY = 100_000, 100  # numbers further apart than this are no frames of one video
MAX_PIXEL = 1e6
MAX_NORMALISED = 1.5  # a person whose joints all lie closer to the origin than this is not given in pixels
MAX_LOGIT = 60.0
SURE_PROBABILITY, HALF_PROBABILITY = 0.5, 0.05  # see _spread_heatmap_mass
MIN_PERSON_SHARE = 0.1


@dataclass
class Poses:
    """Detections as a format lists them, one entry of the parallel lists per person and frame.

    Attributes:
        frames: number of the frame.
        values: (J, 2|3) x and y in pixels and the confidence.
        ids: who it is, or None.
        person_scores: confidence in the person as a whole in any unit, or None.
        listed: numbers of frames that exist, with or without people; [a, b] is enough for a run.
        image_size, fps, skeleton: what the file states, else None.
        joint_names: names of the joints as the file gives them, else None.
        pixels: the file says that positions are pixels, so small values are believed.
        heatmap_mass: confidences are the share of a heat map in its peak.
        notes: sentences for the user.
    """

    frames: list[int] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    ids: list[int | None] = field(default_factory=list)
    person_scores: list[float | None] = field(default_factory=list)
    listed: Iterable[int] = ()
    image_size: Any = None
    fps: Any = None
    skeleton: Skeleton | None = None
    joint_names: Any = None
    pixels: bool = False
    heatmap_mass: bool = False
    notes: list[str] = field(default_factory=list)

    def add(self, frame: int, values: np.ndarray, person: int | None = None, score: float | None = None) -> None:
        """Append one detection."""
        self.frames.append(frame)
        self.values.append(values)
        self.ids.append(person)
        self.person_scores.append(score)

    def assemble(self, format: str, request: Request) -> KeypointFile:
        """Check everything and build the result; ValueError says what does not fit."""
        notes = list(self.notes)
        start, count = _time_axis(self.frames, self.listed)
        values = _stack(self.values)
        skeleton, note = choose_layout(values.shape[1], request.skeleton, self.skeleton, self.joint_names)
        notes.append(note)
        image_size = _wanted(request.image_size, self.image_size, check_image_size, "image size", notes)
        fps = _wanted(request.fps, self.fps, check_fps, "fps", notes)
        xy, score = _split(values[:, : skeleton.num_joints], self.heatmap_mass, notes)
        xy = _in_pixels(xy, image_size, self.pixels, notes)
        kept = _kept(score, self.person_scores, notes)
        ids = _usable_ids(self.frames, self.ids, kept, notes)
        frames: list[list[Detection]] = [[] for _ in range(count)]
        people: list[list[int]] = [[] for _ in range(count)]
        for row in kept:
            frames[self.frames[row] - start].append(Detection(xy[row], score[row]))
            if ids is not None:
                people[self.frames[row] - start].append(ids[row])
        return KeypointFile(
            format=format, skeleton=skeleton, frames=tuple(map(tuple, frames)),
            ids=None if ids is None else tuple(map(tuple, people)), image_size=image_size, fps=fps, start=start,
            notes=tuple(note for note in notes if note),
        )  # fmt: skip


def as_pose(value: Any, what: str) -> np.ndarray:
    """Return (J, 2|3) float64 from nested lists or from a flat x, y, score, x, y, score, ...; ValueError otherwise."""
    pose = as_numbers(value, what)
    if pose.ndim == 1 and pose.size and pose.size % 3 == 0:
        return pose.reshape(-1, 3)
    if pose.ndim == 2 and len(pose) and pose.shape[1] in (2, 3):
        return pose
    raise ValueError(f"{what} has the shape {pose.shape}, expected x, y, score for each joint")


def number_names(names: Sequence[str]) -> list[int] | None:
    """Return the frame number in each file name, such as 12 in "clip_0012.jpg"; None when a name has no number.

    Raises ValueError when the rest of the names differs: then they are of several videos.
    """
    numbers, rests = [], {}
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        found = re.search(r"^(.*?)([0-9]{1,18})([^0-9]*)$", path.stem, re.DOTALL)
        if found is None:
            return None
        numbers.append(int(found.group(2)))
        rests.setdefault((str(path.parent), found.group(1), found.group(3)), name)
    if len(rests) > 1:
        first, second = list(rests.values())[:2]
        raise ValueError(f"images are of several videos, as {first[:80]!r} and {second[:80]!r}: expected one video")
    return numbers


def _time_axis(frames: Sequence[int], listed: Iterable[int]) -> tuple[int, int]:
    """Return the first number and how many frames there are from it to the last, unnamed ones included."""
    if not frames:
        raise ValueError("there is no person in any frame: expected the keypoints of at least one")
    known = set(frames).union(listed)
    start, count = min(known), max(known) - min(known) + 1
    if start < 0:
        raise ValueError(f"the frame number {start} is negative: expected numbers from 0 on")
    sparse = count > max(MAX_UNLISTED_FRAMES, MAX_SPARSITY * len(known)) and not isinstance(listed, range)
    if count > MAX_FRAMES or sparse:
        raise ValueError(
            f"{len(known)} frames are numbered {start} to {max(known)}, which is no video: "
            "expected successive frame numbers; number the frames of one video in order"
        )
    return start, count


def _stack(values: list[np.ndarray]) -> np.ndarray:
    """Return (N, J, 2|3); ValueError when the poses do not all have the same number of joints."""
    shapes = sorted({value.shape for value in values})
    if len(shapes) > 1:
        found = " and ".join(f"{joints} joints with {columns} values" for joints, columns in shapes[:2])
        raise ValueError(f"people have {found}: expected the same layout for all of them")
    return np.stack(values)


def _wanted(requested: Any, stated: Any, check: Any, what: str, notes: list[str]) -> Any:
    stated = None if stated is None else check(stated)
    if requested is not None and stated is not None and requested != stated:
        notes.append(f"the {what} {requested} given was used, the file says {stated}")
    return stated if requested is None else requested


def _split(values: np.ndarray, heatmap_mass: bool, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return xy (N, J, 2), NaN where not seen, and score (N, J) in [0, 1]."""
    xy = values[..., :2].copy()
    if np.nanmax(np.abs(xy), initial=0.0) > MAX_PIXEL:
        raise ValueError(f"a position lies beyond {MAX_PIXEL:g} pixels: expected positions in or near the image")
    if values.shape[2] == 2:
        score = np.ones(xy.shape[:2])
        zero = (xy == 0).all(axis=-1)
        if zero.any():
            notes.append("joints at exactly (0, 0) were taken as not seen")
        score[zero] = 0
    else:
        score = _as_confidence(values[..., 2], heatmap_mass, notes)
    unseen = np.isnan(xy).any(axis=-1) | ~(score > 0)
    xy[unseen], score[unseen] = np.nan, 0
    return xy, score


def _as_confidence(raw: np.ndarray, heatmap_mass: bool, notes: list[str]) -> np.ndarray:
    """Bring a column of confidences to [0, 1]: flags 0/1/2, logits, and values that overshoot a little."""
    known = raw[np.isfinite(raw)]
    if np.isinf(raw).any() or np.abs(known).max(initial=0) > MAX_LOGIT:
        raise ValueError(f"a confidence is {np.nanmax(np.abs(raw)):g}: expected values in [0, 1], or logits")
    if known.max(initial=0) == 2 and np.isin(known, (0, 1, 2)).all():
        notes.append("confidences are the flags 0, 1, 2 (absent, hidden, visible) and were read as 0, 0.5, 1")
        return raw / 2
    if known.max(initial=0) > 2 or known.min(initial=0) < -0.5:
        notes.append("confidences beyond [0, 1] were taken as logits")
        # 0 stays 0: that is how files mark a joint that was not found.
        return np.where(raw == 0, 0.0, 1 / (1 + np.exp(-raw)))
    if known.max(initial=0) > 1.01:
        notes.append(f"confidences up to {known.max():.3g} were cut to 1")
    score = np.clip(raw, 0, 1)
    return _spread_heatmap_mass(score, notes) if heatmap_mass else score


def _spread_heatmap_mass(score: np.ndarray, notes: list[str]) -> np.ndarray:
    """Map small heat-map shares to p / (p + 0.05): Detectron draws a joint from 0.05 on, so that is an even chance."""
    seen = score[score > 0]
    if not seen.size or np.quantile(seen, 0.95) >= SURE_PROBABILITY:
        return score
    notes.append(f"probabilities p are shares of a heat map and were read as p / (p + {HALF_PROBABILITY})")
    return score / (score + HALF_PROBABILITY)


def _in_pixels(xy: np.ndarray, image_size: tuple[int, int] | None, pixels: bool, notes: list[str]) -> np.ndarray:
    """Scale positions that are fractions of the image; ValueError when they are and cannot be scaled."""
    seen = xy[~np.isnan(xy)]
    if pixels or not seen.size or np.abs(seen).max() > MAX_NORMALISED:
        return xy
    if image_size is None or seen.min() < -0.5:
        raise ValueError("positions lie within 1.5 pixels, so they are normalised: expected pixels; "
                         "give image_size=(width, height) for fractions of the image, else scale them first")
    notes.append("positions are fractions of the image and were scaled by its size")
    return xy * np.asarray(image_size, np.float64)


def _kept(score: np.ndarray, person_scores: Sequence[float | None], notes: list[str]) -> list[int]:
    """Return the rows of people who are seen and not far less sure than the others: those are echoes."""
    seen = (score > 0).any(axis=1)
    if not seen.any():
        raise ValueError("no joint of any person is seen: expected positions with a confidence above 0")
    if any(person is None or not math.isfinite(person) for person in person_scores):
        return np.flatnonzero(seen).tolist()
    sure = np.asarray(person_scores, np.float64)
    weak = seen & (sure < MIN_PERSON_SHARE * np.quantile(sure[seen], 0.9))
    if weak.any():
        notes.append(f"{int(weak.sum())} detections far less sure than the others were left out")
    return np.flatnonzero(seen & ~weak).tolist()


def _usable_ids(frames: list[int], ids: list[int | None], kept: list[int], notes: list[str]) -> list[int] | None:
    """Return the ids where every kept detection has one and no two in a frame share it, else None."""
    given = [ids[row] for row in kept]
    if any(person is None for person in given):
        if any(person is not None for person in given):
            notes.append("only some people have ids, so they were not used")
        return None
    if len({(frames[row], ids[row]) for row in kept}) < len(kept):
        notes.append("several people in a frame share an id, so ids were not used")
        return None
    return ids  # type: ignore[return-value]
