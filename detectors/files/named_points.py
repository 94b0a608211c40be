"""Points that a user has named, as DeepLabCut's and SLEAP's are: found in a layout by their names, in any order."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from lifting.skeletons import BUILT_IN, LIFT_JOINTS, Skeleton

__all__ = ["arrange", "plain_joint"]

LAYOUTS = ("coco17", "coco17_feet", "halpe26", "mediapipe33", "body25", "mpii16")
"""Layouts that named points may be of, the first that has most of them counts."""
_PARTS = {name.partition("_")[2] for name in LIFT_JOINTS if "_" in name}
_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}


def arrange(
    names: Sequence[str], values: np.ndarray, wanted: Skeleton | None
) -> tuple[np.ndarray, Skeleton | None, list[str]]:
    """Bring points into the order of a layout that has their names.

    Args:
        names: J names as the file gives them.
        values: (N, J, 3) x, y and confidence.
        wanted: the layout that the caller asks for, or None for one of `LAYOUTS`.

    Returns (N, K, 3), unseen where the file lacks a joint, the layout, and notes. Where no layout has half of the
    names, the points stay as they are and the layout is None.
    """
    plain = [plain_joint(name) for name in names]
    layouts = [wanted] if wanted is not None else [BUILT_IN[name] for name in LAYOUTS]
    layout = max(layouts, key=lambda layout: len(set(plain) & set(layout.joints)))
    left_out = [name for name, joint in zip(names, plain, strict=True) if joint not in layout.joints]
    if len(set(plain)) < len(plain) or 2 * len(left_out) > len(names):
        return values, None, []
    arranged = np.full((len(values), layout.num_joints, 3), (np.nan, np.nan, 0.0))
    for column, joint in enumerate(plain):
        if joint in layout.joints:
            arranged[:, layout.index(joint)] = values[:, column]
    notes = [f"points were matched to {layout.name} by their names"]
    if left_out:
        notes.append(f"points that {layout.name} does not have were left out: {', '.join(left_out)[:80]}")
    return arranged, layout, notes


def plain_joint(name: str) -> str:
    """``left_shoulder`` for "LeftShoulder", "left shoulder", "shoulder_left", "l-shoulder" and "LShoulder"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    parts = [part for part in re.split(r"[^a-z0-9]+", words.lower()) if part]
    if len(parts) == 1 and parts[0][:1] in _SIDES and parts[0][1:] in _PARTS:
        parts = [parts[0][0], parts[0][1:]]
    sides = [_SIDES[part] for part in parts if part in _SIDES]
    rest = [part for part in parts if part not in _SIDES]
    return "_".join([*sides[:1], *rest])
