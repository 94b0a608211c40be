"""Evaluation of a result file: each lifted person against the recorded truth of one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from lifting.files import load_npz
from lifting.keypoints import as_float_array
from lifting.motion import Motion, Person, Take
from lifting.skeletons import LAYOUTS_OF_COUNT, Skeleton, get_skeleton
from lifting.training.evaluate import Evaluation, Pair, Totals, tabulate

NOTES = ("each person against the same truth, in the frames in which that person was found",
         "truth interpolated at the times of the result's frames")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Truth:
    """Recorded joints of one person.

    points: (T, J, 3) metres, camera axes, absolute, NaN where unknown; times: (T,) seconds, increasing.
    """

    points: np.ndarray
    times: np.ndarray
    skeleton: Skeleton
    name: str

    def at(self, times: np.ndarray, fps: float) -> Motion:
        """The motion at `times` (n,) in seconds, linear between frames, NaN beyond the first and last of them."""
        columns = self.points.reshape(len(self.points), -1)
        found = np.stack([np.interp(times, self.times, column, np.nan, np.nan) for column in columns.T], axis=-1)
        points = found.reshape(len(times), -1, 3)
        root = points[:, self.skeleton.root]
        return Motion(points - root[:, None], root, None, self.skeleton, fps)


def read_truth(path: str | PathLike[str]) -> Truth:
    """Read a truth file: an npz with ``joints`` (T, J, 3) metres, absolute, camera axes, and ``times`` (T,) or ``fps``.

    ``metadata``, if there is any, is JSON that names the layout as ``skeletons: {joints: NAME}``; without it 17 joints
    are H36M-17. Raises FileNotFoundError and ValueError, naming the file.
    """
    path = Path(path)
    arrays = load_npz(path)
    if "joints" not in arrays or not {"times", "fps"} & arrays.keys():
        raise ValueError(f"{str(path)!r} holds {', '.join(arrays) or 'nothing'}, expected joints (T, J, 3) in metres "
                         "and times or fps; write the truth as data/sample_truth.npz has it")
    points = as_float_array(arrays["joints"], f"joints of {str(path)!r}", (None, None, 3), np.float64)
    frames = np.arange(len(points))
    times = np.asarray(arrays["times"], np.float64) if "times" in arrays else frames / float(arrays["fps"])
    if times.shape != frames.shape or not len(frames) or not (np.diff(times) > 0).all():
        raise ValueError(f"{str(path)!r} has {times.size} times for {len(points)} frames, expected one each, "
                         "increasing; correct the file")
    return Truth(points, times, _layout(path, arrays.get("metadata"), points.shape[1]), path.name)


def _layout(path: Path, metadata: np.ndarray | None, count: int) -> Skeleton:
    try:
        skeleton = get_skeleton(json.loads(str(metadata))["skeletons"]["joints"])
    except (KeyError, TypeError, json.JSONDecodeError):
        names = ("h36m17",) if count == 17 else LAYOUTS_OF_COUNT.get(count, ("",))
        skeleton = get_skeleton(names[0])
    if skeleton.num_joints != count:
        raise ValueError(f"{str(path)!r} has {count} joints but names the layout {skeleton.name} of "
                         f"{skeleton.num_joints}; correct its metadata")
    return skeleton


def evaluate_result(take: Take, truth: Truth) -> Evaluation:
    """Compare every lifted person of a take with the truth of one; the table has a row for each.

    Raises ValueError when nobody was lifted, or nobody in a frame whose truth is known.
    """
    lifted = [person for person in take.people if person.motion is not None]
    if not lifted:
        raise ValueError(f"the result {take.name!r} has nobody with a lifted motion; run lift on it first")
    totals, names = {}, ()
    for person in lifted:
        pair = _beside(take, person, truth)
        if np.isfinite(pair.true_joints).any():
            totals[f"person {person.id}"] = Totals()
            totals[f"person {person.id}"].add(pair.scores())
            names = pair.names
    if not totals:
        raise ValueError(f"the truth in {truth.name!r} spans {truth.times[0]:g} to {truth.times[-1]:g} s, in which the "
                         f"result {take.name!r} has nobody; give the truth of the same video")
    joints = f"{len(names)} joints: {', '.join(names)}"
    return Evaluation(truth.name, str(take.metadata.get("weights", take.name)), tabulate(totals, "Mean over people"),
                      {}, names, (*NOTES, joints))


def _beside(take: Take, person: Person, truth: Truth) -> Pair:
    motion, true = _in_camera(take, person.motion), truth.at(take.times, take.fps)
    absent = ~np.isfinite(motion.joints).all(axis=(1, 2))
    hidden = (np.where(absent.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)
              for values in (true.joints, true.trajectory))
    joints, trajectory = hidden
    return Pair.of(motion, true.replace(joints=joints, trajectory=trajectory))


def _in_camera(take: Take, motion: Motion) -> Motion:
    if motion.frame == "camera":
        return motion
    points = take.camera.to_camera(motion.absolute)
    root = points[:, motion.skeleton.root]
    return Motion(points - root[:, None], root, None, motion.skeleton, motion.fps)
