"""Results turned into the files of other programs: the library's side of ``lift export``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifting.cameras import Camera
from lifting.evidence import Progress
from lifting.export import load
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Person, Take
from lifting.outputs import check_outputs, no_empty_folders, plan_outputs, recorded_body, write_outputs

if TYPE_CHECKING:
    from lifting.body import BodyModel

NO_IMAGE = (1000, 1000)  # image size of a take made of a motion alone, which has none
BLENDER_SCRIPT = Path(__file__).parent / "export" / "blender_import.py"
"""A script that opens ``.bvh`` and ``.glb`` files in Blender."""


def export(
    source: str | Path | Take | Person | Motion,
    output: str | Path | Sequence[str | Path],
    *,
    body: str | Path | BodyModel | None = None,
    video: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a result in any formats, by their suffixes; all files appear together, or none does.

    Args:
        source: a file that ``lift run``, ``lift fit`` or ``lift.save`` wrote, a take, a person or a motion.
        output: the file or files, with the suffixes of ``lifting.export`` or ``.mp4``. Results are in the axes of the
            take; all other formats show the motion in the world, where it was placed there. Of formats that hold one
            person, the others go to ``NAME.person2.bvh``.
        body: the body model of fitted bodies, where its name in the result is not enough: a file of the SMPL family.
        video: what an ``.mp4`` is drawn over; without, it is dark.
        progress: ``progress(iterable, total, title)`` wraps the drawing of an ``.mp4``.

    Returns the files that were asked for. Raises ValueError, FileNotFoundError, ImportError or OSError in one sentence,
    before anything is written.
    """
    take = load(source) if isinstance(source, str | Path) else as_take(source)
    fitted = any(person.body is not None for person in take.people)
    wanted = [output] if isinstance(output, str | Path) else list(output)
    if not wanted:
        raise ValueError("got no file to write; name at least one, such as walk.bvh.")
    if video is not None and not Path(video).exists():
        raise FileNotFoundError(f"there is no video '{video}'; give the one that the result was made of.")
    with no_empty_folders(wanted):
        files = [path for path in (source, video) if isinstance(path, str | Path)]
        outputs = plan_outputs(wanted, *files, bodies=fitted, frames=len(take))
        check_outputs(outputs, {person.id: _seen(person) for person in take.people if _is_there(person)})
        model = _load_body(take, body) if fitted else None
        write_outputs(take, outputs, video, float(take.times[0]) or None, None, progress or _no_progress, body=model)
    return outputs


def as_take(source: Take | Person | Motion) -> Take:
    """A take of one person or one motion; takes as they are, ValueError for anything else.

    What a motion does not know is made up and said in `Take.assumed`: a camera, and a person without keypoints.
    """
    if isinstance(source, Take):
        return source
    if isinstance(source, Motion):
        skeleton = source.skeleton
        nothing = np.full((len(source), skeleton.num_joints, 2), np.nan)
        source = Person(1, Keypoints2D(nothing, None, skeleton, NO_IMAGE, source.fps), source)
    if not isinstance(source, Person):
        raise ValueError(f"got {type(source).__name__}, expected the path of a result, a Take, a Person or a Motion.")
    keypoints = source.keypoints
    camera = Camera.from_focal(float(np.hypot(*keypoints.image_size)), keypoints.image_size)
    times = np.arange(len(keypoints)) / keypoints.fps
    assumed = ("Camera unknown: this take was made of a motion alone.",)
    return Take("motion", keypoints.image_size, keypoints.fps, times, camera, (source,), assumed)


def _is_there(person: Person) -> bool:
    return person.motion is not None or person.body is not None


def _seen(person: Person) -> np.ndarray:
    """(T,) bool: the frames in which the person has a pose."""
    if person.body is not None:
        return person.body.present
    return np.isfinite(person.motion.joints).all(axis=(1, 2))


def _load_body(take: Take, body: str | Path | BodyModel | None) -> BodyModel:
    from lifting.body import BodyModel, load_body

    return body if isinstance(body, BodyModel) else load_body(recorded_body(take) if body is None else body)


def _no_progress(iterable: Iterable, total: int | None, title: str) -> Iterable:
    return iterable
