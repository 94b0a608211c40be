"""Who trains, who is tested, whose labels are known: from a data set and its options to what a training takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lifting.datasets.budgets import Budget, labelled_ranges, unlabelled_ranges
from lifting.datasets.clips import Clip, ClipList, ClipSet, JoinedClips, subject_key
from lifting.keypoints import Keypoints2D
from lifting.resampling import resample_keypoints, same_rate

TESTED = {"h36m": r"S(9|11)", "mocap": r"0*(5|9|10)", "humaneva15": r"Validate/.*",
          "mpi_inf_3dhp": r"TS\d", "3dpw": r"test/.*"}
"""First word of a data set's name -> subjects (a regular expression) that the field tests on, the default."""

Ranges = dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Selection:
    """What a training takes: clip sets and, index of a clip -> (start, stop), which frames of them."""

    labelled: ClipSet
    ranges: Ranges
    unlabelled: ClipSet | None
    unlabelled_ranges: Ranges | None
    validation: ClipSet | None


def select_clips(
    clips: ClipSet, *, train: Sequence[str] | None = None, test: Sequence[str] | None = None,
    actions: Sequence[str] | None = None, budget: Budget | None = None, downsample: int = 1,
) -> Selection:
    """Splits a data set.

    Args:
        clips: the data set.
        train: subjects to train on; None: all that are not tested.
        test: subjects to validate on; None: those of `TESTED`.
        actions: beginnings of names of actions; None: all.
        budget: which labels are known; the other training subjects are unlabelled. None: supervised training.
        downsample: every so manieth frame is used.

    Raises ValueError for subjects and actions that do not exist and when nobody is left to learn from.
    """
    subjects = list(dict.fromkeys(info.subject for info in clips.infos))
    if test is None:
        pattern = TESTED.get(clips.name.split(" ")[0], "(?!)")
        test = [subject for subject in subjects if re.fullmatch(pattern, subject)]
    if train is None:
        tested = {subject_key(subject) for subject in test}
        train = [subject for subject in subjects if subject_key(subject) not in tested]
    if not train:
        raise ValueError(f"all subjects of {clips.name} are tested on and none is left to train on; name some "
                         "(--subjects-train).")
    pool, validation = clips.select(train, actions), clips.select(test, actions) if test else None
    ranges = labelled_ranges(pool.infos, budget or Budget(), downsample)
    others = unlabelled_ranges(pool.infos, budget) if budget else {}
    return Selection(pool, ranges, pool.without_labels() if others else None, others or None, validation)


def add_footage(selection: Selection, footage: ClipSet) -> Selection:
    """The selection with one's own unlabelled clips beside the others, at the labelled clips' frame rate."""
    footage = at_rate(footage, selection.labelled.infos[0].fps)
    whole = {index: (0, info.frames) for index, info in enumerate(footage.infos)}
    if selection.unlabelled is None:
        return replace(selection, unlabelled=footage, unlabelled_ranges=whole)
    first = len(selection.unlabelled)
    ranges = selection.unlabelled_ranges | {first + index: frames for index, frames in whole.items()}
    return replace(selection, unlabelled=JoinedClips([selection.unlabelled, footage]), unlabelled_ranges=ranges)


def at_rate(clips: ClipSet, fps: float) -> ClipList:
    """Unlabelled clips, in memory, resampled to a frame rate where theirs is another."""
    return ClipList([replace(clip, keypoints=_keypoints_at(clip, fps)) for clip in clips], clips.name)


def _keypoints_at(clip: Clip, fps: float) -> Keypoints2D:
    points = clip.keypoints
    if same_rate(points.fps, fps):
        return points.replace(fps=fps)
    xy, score = resample_keypoints(points.xy, points.score, points.fps, fps)
    return points.replace(xy=xy, score=score, fps=fps)
