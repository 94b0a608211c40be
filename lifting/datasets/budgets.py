"""Label budgets: ``1%S1`` labels that share of that subject's frames and leaves the other subjects unlabelled.

The rule by which frames are chosen is that of Pavllo et al., "3D human pose estimation in video with temporal
convolutions and semi-supervised training", CVPR 2019, section 6.2, as released: without chance, so that all budgets of
all programs label the same frames.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lifting.datasets.clips import ClipInfo, subject_key

EXAMPLES = "1%S1 (that share of one subject), 5%S1,S5, S1 (all of it), 10% (of every subject) or all"
_EVERYBODY = ("", "all", "*")


@dataclass(frozen=True)
class Budget:
    """How much of whom is labelled.

    Attributes:
        share: of each video's frames, more than 0 and at most 1.
        subjects: whose videos, as `subject_key` tells them apart; None: everybody's.

    Raises ValueError for a share out of range and an empty list of subjects.
    """

    share: float = 1.0
    subjects: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.share <= 1:
            raise ValueError(f"the share of labelled frames is {100 * self.share:g}%, expected more than 0% and at "
                             f"most 100%; write for example {EXAMPLES}.")
        if self.subjects is not None and not self.subjects:
            raise ValueError(f"the label budget names no subject; write for example {EXAMPLES}.")

    def __str__(self) -> str:
        """The budget as `parse_budget` reads it."""
        share = "" if self.share == 1 else f"{100 * self.share:.12g}%"
        return share + ("all" if self.subjects is None else ",".join(self.subjects))


def parse_budget(text: str) -> Budget:
    """Read ``1%S1``, ``0.1%S1``, ``5%S1,S5``, ``S1``, ``S1,S5``, ``10%`` or ``all``; subjects as `subject_key`.

    Raises ValueError, with valid examples, for anything else.
    """
    match = re.fullmatch(r"(?:(\d+\.?\d*|\.\d+)\s*%)?([^%]*)", text.strip())
    subjects = [name.strip() for name in match[2].split(",")] if match else []
    everybody = len(subjects) == 1 and subjects[0].casefold() in _EVERYBODY
    if match is None or not text.strip() or not (everybody or all(subjects)):
        raise ValueError(f"got the label budget {text!r}; write for example {EXAMPLES}.")
    share = float(match[1]) / 100 if match[1] else 1.0
    return Budget(share, None if everybody else tuple({subject_key(name): name for name in subjects}.values()))


def kept_range(frames: int, share: float, downsample: int = 1) -> tuple[int, int]:
    """The frames start..stop of a video of `frames` that a share labels: one run, at least one frame.

    Its length is the share, counted in multiples of `downsample` and rounded; its start is drawn by a hash of `frames`
    alone, so that all views of a take keep the same ones. A share of 1 is the whole video. Raises ValueError for
    `frames` or `downsample` below 1.
    """
    if frames < 1 or downsample < 1:
        raise ValueError(f"got {frames} frames and every {downsample}th of them, expected at least 1 of both.")
    if share == 1:
        return 0, frames
    kept = min(frames, max(1, round(frames // downsample * share)) * downsample)
    digest = hashlib.sha256(str(frames).encode("ascii")).digest()
    drawn = int.from_bytes(digest[:4], "little") / (2**32 - 1)  # 0..1, both included
    start = min(int(drawn * (frames - kept + 1)), frames - kept)
    return start, start + kept


def labelled_ranges(infos: Sequence[ClipInfo], budget: Budget, downsample: int = 1) -> dict[int, tuple[int, int]]:
    """The labelled frames: index of a clip -> (start, stop), as `Windows` takes them.

    Views of one take that differ in length are all taken for as long as the shortest, so that they keep the same
    frames. A budget for everybody passes over clips without labels. Raises ValueError, naming the subjects there are,
    for a subject that does not exist or has no labels, and as `kept_range`.
    """
    chosen = _chosen(infos, budget)
    shortest: dict[str, int] = {}
    for index in chosen:
        info = infos[index]
        shortest[info.take] = min(info.frames, shortest.get(info.take, info.frames))
    return {index: kept_range(shortest[infos[index].take], budget.share, downsample) for index in chosen}


def unlabelled_ranges(infos: Sequence[ClipInfo], budget: Budget) -> dict[int, tuple[int, int]]:
    """All frames of all subjects but the budget's, as in the paper: index of a clip -> (start, stop).

    Empty for a budget for everybody. What a share leaves of its own subjects' videos is used by neither side.
    """
    labelled = {subject_key(info.subject) for info in infos} if budget.subjects is None else _keys(budget.subjects)
    return {index: (0, info.frames) for index, info in enumerate(infos) if subject_key(info.subject) not in labelled}


def _chosen(infos: Sequence[ClipInfo], budget: Budget) -> list[int]:
    """The indices of the clips whose subject is in the budget, checked to have labels."""
    able = {subject_key(info.subject): info.subject for info in infos if info.labelled}
    wanted = _keys(able.values() if budget.subjects is None else budget.subjects)
    missing = [name for key, name in wanted.items() if key not in able]
    if missing or not able:
        raise ValueError(f"there are no labelled clips of {', '.join(missing) or 'anybody'}; the subjects with labels "
                         f"are {', '.join(able.values()) or 'none'}.")
    return [index for index, info in enumerate(infos) if info.labelled and subject_key(info.subject) in wanted]


def _keys(names: Iterable[str]) -> dict[str, str]:
    return {subject_key(name): name for name in names}
