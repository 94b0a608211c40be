"""Evaluation of a lifter on labelled clips: the field's errors per action, and their averages.

Every clip is lifted whole, as somebody's video would be, without repairing its keypoints: the lifter is measured, not
the cleaning. One clip is in memory at a time.

Errors are of joints relative to the root, in the camera's frame. Where the lifter and the data have one layout, all of
its joints count; else those of the same name and meaning, relative to the middle of the hips. Protocol 1 is MPJPE, 2
P-MPJPE, 3 N-MPJPE. Every number is the mean over all points of an action's clips, all subjects and cameras together,
which is VideoPose3D's mean over frames; an action is the first word of its name ("Walking 1" is Walking). The field's
headline number is the plain mean over the actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from lifting import metrics
from lifting.cameras import Camera, estimate_focal
from lifting.datasets.clips import Clip, ClipSet
from lifting.models.temporal_file import TemporalWeights
from lifting.motion import Motion
from lifting.predict import Lifter
from lifting.predict_temporal import TemporalLifter
from lifting.skeletons import Skeleton, joint_map

CONVENTIONS = {
    "metric": "metric: predictions are scored in metres as they are, the convention of VideoPose3D and most others",
    "rescaled": "rescaled by ground truth: every frame's prediction is multiplied by the TRUE depth of the root over "
    "the predicted one, which gives away the absolute scale as MotionBERT's evaluation does with its 2.5d_factor; not "
    "comparable with metric numbers (MotionBERT also leaves out three takes of S9 and the ends of videos; these count)",
}
"""What is done with the scale of the predictions, in words that go into every table."""

HIPS = ("left_hip", "right_hip")


@dataclass(frozen=True)
class Row:
    """One line of a table: its name, the labelled frames behind it and the score of each metric's key of `METRICS`.

    A metric that could not be measured (no camera, fewer frames than a difference needs) is absent.
    """

    name: str
    frames: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Table:
    """Rows by name, their plain mean as the field reports it, and the mean over frames."""

    rows: tuple[Row, ...]
    over_rows: Row
    over_frames: Row


@dataclass(frozen=True)
class Evaluation:
    """What was measured, of what, and how.

    Attributes:
        data, weights: names.
        table: one row for each action (each person, of a result).
        subjects: a table for each subject, where asked for.
        joints: names of the joints that were scored.
        notes: sentences that belong under every table: convention, flip, joints.
    """

    data: str
    weights: str
    table: Table
    subjects: dict[str, Table]
    joints: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """A column: key (with its unit), short title, digits to print, and the function that measures it in that unit.

    ``order``: of the differences over time that it takes, which says how many points it averages.
    """

    key: str
    title: str
    digits: int
    measure: Callable[[np.ndarray, np.ndarray], float]
    order: int = 0


def _scaled(function: Callable[..., float], factor: float) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda prediction, truth: factor * function(prediction, truth)


JOINT_METRICS = (
    Metric("mpjpe_mm", "MPJPE (P1) mm", 1, _scaled(metrics.mpjpe, 1000)),
    Metric("p_mpjpe_mm", "P-MPJPE (P2) mm", 1, _scaled(metrics.p_mpjpe, 1000)),
    Metric("n_mpjpe_mm", "N-MPJPE (P3) mm", 1, _scaled(metrics.n_mpjpe, 1000)),
    Metric("mpjve_mm_frame", "MPJVE mm/frame", 2, _scaled(metrics.mpjve, 1000), 1),
    Metric("acceleration_mm_frame2", "Acceleration mm/frame²", 2, metrics.acceleration_error_mm_frame2, 2),
    Metric("pck150_percent", "PCK@150 %", 1, _scaled(metrics.pck, 100)),
    Metric("auc_percent", "AUC %", 1, _scaled(metrics.auc, 100)),
)
ROOT_METRICS = (
    Metric("root_mm", "Root mm", 1, _scaled(metrics.root_error, 1000)),
    Metric("root_depth_percent", "Root % of depth", 2, _scaled(metrics.root_error_share_of_depth, 100)),
)
METRICS = JOINT_METRICS + ROOT_METRICS


def evaluate(
    lifter: Lifter | TemporalLifter | TemporalWeights,
    clips: ClipSet,
    *,
    flip: bool = True,
    by_subject: bool = False,
    convention: str = "metric",
    downsample: int = 1,
    progress: Callable[[Iterable, int | None, str], Iterable] | None = None,
) -> Evaluation:
    """Lift every labelled clip and compare it with the truth.

    Args:
        lifter: a lifter, or temporal weights.
        clips: the data; clips without a motion are left out.
        flip: average each prediction with that of the mirrored input.
        by_subject: also make a table for every subject.
        convention: a key of `CONVENTIONS`.
        downsample: lift and score every so manieth frame, as if the clips had been recorded at that rate.
        progress: wraps the iterable of clips, given their number and a title.

    The root is scored only where the clip's camera is known. Raises ValueError for an unknown convention, data without
    labels or without the cameras that ``rescaled`` needs, layouts with too few joints in common, and, naming the clip,
    where one cannot be lifted; for a downsampling below 1.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"got the convention {convention!r}, expected one of {', '.join(CONVENTIONS)}; pass one")
    labelled = [index for index, info in enumerate(clips.infos) if info.labelled]
    if not labelled:
        raise ValueError(f"none of the {len(clips)} clips of {clips.name} has a true motion; evaluate on labelled data")
    if isinstance(lifter, TemporalWeights):
        lifter = TemporalLifter(lifter)
    totals: dict[tuple[str, str], Totals] = {}
    joints: tuple[str, ...] = ()
    for index in progress(labelled, len(labelled), "evaluating") if progress else labelled:
        info = clips.infos[index]
        scores, joints = _score_clip(lifter, clips.read(index).thin(downsample), flip, convention == "rescaled")
        totals.setdefault((info.subject, info.action.split(" ")[0]), Totals()).add(scores)
    subjects = dict.fromkeys(subject for subject, _ in totals) if by_subject else ()
    return Evaluation(
        clips.name, lifter.source, _tabulate(totals), {subject: _tabulate(totals, subject) for subject in subjects},
        joints, (CONVENTIONS[convention], _flip_note(flip), *_rate_note(clips, downsample),
                 _joint_note(joints, clips.skeleton_out)),
    )  # fmt: skip


def _score_clip(lifter: Lifter | TemporalLifter, clip: Clip, flip: bool, rescaled: bool):  # noqa: ANN202
    """The scores of one clip and the names of the joints that count."""
    camera = clip.camera
    if camera is None:
        if rescaled:
            raise ValueError(f"clip {clip.name} has no camera, expected one for the convention 'rescaled', which needs "
                             "the predicted depth; use 'metric'")
        camera = Camera.from_focal(estimate_focal(clip.keypoints.image_size)[0], clip.keypoints.image_size)
    try:
        motion = lifter.lift(clip.keypoints, camera, repair=False, flip=flip).motion
    except ValueError as error:
        raise ValueError(f"clip {clip.name} cannot be lifted: {error}") from error
    pair = Pair.of(motion, clip.motion)
    if rescaled:
        pair = pair.rescaled(clip.name)
    return pair.scores(with_root=clip.camera is not None), pair.names


@dataclass(frozen=True, eq=False)
class Pair:
    """Prediction and truth side by side: the same frames, joints and meaning of the root.

    joints, true_joints: (T, J, 3) metres relative to the root, camera axes; roots: (T, 3) metres or None; names: the J.
    """

    joints: np.ndarray
    root: np.ndarray | None
    true_joints: np.ndarray
    true_root: np.ndarray | None
    names: tuple[str, ...]

    @classmethod
    def of(cls, motion: Motion, truth: Motion) -> Pair:
        """Bring two motions of equal length together; ValueError when their layouts share too little."""
        if motion.skeleton == truth.skeleton:
            return cls(motion.joints, motion.trajectory, truth.joints, truth.trajectory, motion.skeleton.joints)
        names = shared_joints(motion.skeleton, truth.skeleton)
        sides = [_about_hips(one, names) for one in (motion, truth)]
        return cls(*sides[0], *sides[1], names)

    def rescaled(self, name: str) -> Pair:
        """The prediction at the truth's depth, and with it at the truth's scale: pose and root times true z over z.

        This is what a pose in pixels (of which a metric pose at its own depth is one, times depth over focal length)
        becomes by the true millimetres per pixel. Raises ValueError, with the clip's name, without both roots.
        """
        if self.root is None or self.true_root is None:
            raise ValueError(f"{name} has no depth of the root, expected it in prediction and truth to rescale by; use "
                             "the convention 'metric'")
        factor = (self.true_root[:, 2] / self.root[:, 2])[:, None]
        return Pair(self.joints * factor[..., None], self.root, self.true_joints, self.true_root, self.names)

    def scores(self, with_root: bool = True) -> dict[str, tuple[float, int]]:
        """Key of each metric that can be measured to (mean, number of points behind it); "frames" counts frames."""
        scores = {}
        sides = [(JOINT_METRICS, self.joints, self.true_joints)]
        if with_root and self.root is not None and self.true_root is not None:
            sides.append((ROOT_METRICS, self.root, self.true_root))
        for columns, prediction, truth in sides:
            for metric in columns:
                points = _count_known(truth, metric.order)
                if points:
                    scores[metric.key] = metric.measure(prediction, truth), points
        frames = int(np.isfinite(self.true_joints).all(-1).any(-1).sum())
        return {**scores, "frames": (1.0, frames)}


def shared_joints(first: Skeleton, second: Skeleton) -> tuple[str, ...]:
    """Names of the joints that two layouts share and mean alike; ValueError for fewer than three or without the hips.

    A name that the map from `second` to `first` fills from elsewhere, or not at all, means something else.
    """
    mapping = joint_map(second, first, optional=first.joints)
    names = tuple(name for name, row in zip(first.joints, mapping.weights, strict=True)
                  if name in second.joints and row[second.index(name)] == 1)
    if len(names) < metrics.MIN_ALIGN_JOINTS or not set(HIPS) <= set(names):
        raise ValueError(f"the layouts {first.name} and {second.name} share {', '.join(names) or 'no joint'}, expected "
                         "both hips and at least one more to compare; use weights that give the data's layout")
    return names


def _about_hips(motion: Motion, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """Joints (T, J, 3) relative to the middle of the hips, and where that is."""
    middle = motion.joints[:, motion.skeleton.indices(HIPS)].mean(axis=1)
    joints = motion.joints[:, motion.skeleton.indices(names)] - middle[:, None]
    return joints, None if motion.trajectory is None else motion.trajectory + middle


def _count_known(truth: np.ndarray, order: int) -> int:
    """Points whose `order`-th difference over time is known."""
    return int(np.isfinite(np.diff(truth, order, axis=0)).all(-1).sum()) if len(truth) > order else 0


@dataclass
class Totals:
    """Running sums: a metric's key to [sum of the scores of its points, points]."""

    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, scores: dict[str, tuple[float, int]]) -> None:
        """Add what `Pair.scores` gave."""
        for key, (mean, points) in scores.items():
            total = self.sums.setdefault(key, [0.0, 0])
            total[0] += mean * points
            total[1] += points

    def merge(self, other: Totals) -> None:
        """Add another's sums."""
        self.add({key: (total / max(points, 1), points) for key, (total, points) in other.sums.items()})

    def row(self, name: str) -> Row:
        """The means so far."""
        scores = {m.key: self.sums[m.key][0] / self.sums[m.key][1] for m in METRICS if m.key in self.sums}
        return Row(name, int(self.sums["frames"][1]), scores)


def _tabulate(totals: dict[tuple[str, str], Totals], only: str | None = None) -> Table:
    """Rows by action over all subjects, or over one."""
    actions: dict[str, Totals] = {}
    for (subject, action), total in totals.items():
        if only in (None, subject):
            actions.setdefault(action, Totals()).merge(total)
    return tabulate({name: actions[name] for name in sorted(actions)}, "Mean over actions")


def tabulate(totals: dict[str, Totals], title: str) -> Table:
    """The table of named totals; `title` names the line of their plain means."""
    rows = tuple(total.row(name) for name, total in totals.items())
    everything = Totals()
    for total in totals.values():
        everything.merge(total)
    over_frames = everything.row("Mean over frames")
    means = {key: float(np.mean([row.scores[key] for row in rows if key in row.scores])) for key in over_frames.scores}
    return Table(rows, Row(title, over_frames.frames, means), over_frames)


def _flip_note(flip: bool) -> str:
    return f"{'with' if flip else 'without'} flip averaging; keypoints as given, not repaired"


def _rate_note(clips: ClipSet, downsample: int) -> list[str]:
    rates = sorted({info.fps / downsample for info in clips.infos})
    told = " or ".join(f"{rate:g}" for rate in rates)
    return [] if downsample == 1 else [f"one of {downsample} frames: {told} frames per second"]


def _joint_note(joints: tuple[str, ...], truth: Skeleton | None) -> str:
    if truth is not None and joints == truth.joints:
        return f"all {len(joints)} joints of {truth.name}, relative to its root"
    return f"{len(joints)} joints of the same name, relative to the middle of the hips: {', '.join(joints)}"
