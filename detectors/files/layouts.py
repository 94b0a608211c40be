"""Which layout the joints of a foreign file have: what the caller says, else the file, else their number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lifting.skeletons import LAYOUTS_OF_COUNT, Skeleton, get_skeleton, list_skeletons

__all__ = ["choose_layout", "layout_of_names", "layout_of_sides", "named_layout"]

FOREIGN_NAMES = {"coco_wholebody": "coco17_feet", "coco-wholebody": "coco17_feet", "halpe_fullbody": "halpe26"}


def choose_layout(
    count: int, requested: Skeleton | None, stated: Skeleton | None, names: Any = None
) -> tuple[Skeleton, str]:
    """Return the layout of `count` columns, which may have fewer joints, and a note ("" when nothing was assumed).

    requested is the caller's, stated the file's, names the joint names that the file gives. Raises ValueError when the
    layout asked for does not fit, the names are of another layout, or the number of joints is none that is known.
    """
    default = LAYOUTS_OF_COUNT.get(count, ())
    stated = stated or layout_of_names(names)
    if requested is not None:
        if requested.num_joints != count and requested.name not in default:
            raise ValueError(
                f"the file has {count} joints, but skeleton {requested.name!r} has {requested.num_joints}: "
                f"give the skeleton of the file{f', perhaps {default[0]!r}' if default else ''}"
            )
        return requested, ""
    if stated is not None and (stated.num_joints == count or stated.name in default):
        return stated, ""
    if stated is not None:
        raise ValueError(f"it names skeleton {stated.name!r} of {stated.num_joints} joints, but has {count} joints")
    if not default:
        known = ", ".join(f"{number} {names[0]}" for number, names in LAYOUTS_OF_COUNT.items())
        raise ValueError(f"{count} joints are no layout known by its number ({known}): name it with skeleton=")
    _check_names(names, default[0])
    part = "" if get_skeleton(default[0]).num_joints == count else "the first of "
    return get_skeleton(default[0]), f"{part}{count} joints were taken as {default[0]}"


def _check_names(names: Any, default: str) -> None:
    """Refuse a guess by the number of joints where the file's joint names say otherwise."""
    names = names if isinstance(names, (list, tuple)) else ()
    joints = get_skeleton(default).joints
    agreeing = sum(_plain(name) == joint for name, joint in zip(names, joints, strict=False))
    if names and 2 * agreeing < len(joints):
        shown = ", ".join(repr(str(name)[:40]) for name in names[:4])
        raise ValueError(f"{len(names)} joints named {shown}, ... are no known layout: describe it with skeleton=")


def _plain(name: Any) -> str:
    return str(name).strip().lower().replace(" ", "_").replace("-", "_")


def named_layout(name: Any) -> Skeleton | None:
    """Return the layout that a foreign file names ("coco", "h36m", "coco_wholebody", ...), or None."""
    if not isinstance(name, str):
        return None
    try:
        return get_skeleton(FOREIGN_NAMES.get(name.lower(), name))
    except ValueError:
        return None


def layout_of_names(names: Any) -> Skeleton | None:
    """Return the registered layout with these joint names, or whose joints are the first of them; else None."""
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return None
    plain = tuple(map(_plain, names))
    for skeleton in _known():
        if plain == skeleton.joints:
            return skeleton
    for name in LAYOUTS_OF_COUNT.get(len(plain), ()):
        skeleton = get_skeleton(name)
        if plain[: skeleton.num_joints] == skeleton.joints:
            return skeleton
    return None


def layout_of_sides(left: Sequence[int], right: Sequence[int], count: int) -> Skeleton | None:
    """Return the one layout of `count` joints whose left and right joints have these numbers, or None."""
    sides = set(left), set(right)
    same_count = [known for known in _known() if known.num_joints == count]
    fitting = [known for known in same_count if (set(known.left), set(known.right)) == sides]
    return fitting[0] if len(fitting) == 1 else None


def _known() -> Iterable[Skeleton]:
    return [get_skeleton(name) for name in list_skeletons()]
