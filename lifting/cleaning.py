"""Cleaning of one person's 2D keypoints over time: left/right swaps undone, outliers and stray detections masked.

A left/right swap exchanges the columns of a joint pair. It leaves the middle of the pair alone and turns the sign of
the difference left minus right, so these differences are all that the search for swaps looks at: they do not feel how
the person or the camera moves. The labels chosen are those under which the differences of all pairs go on with constant
velocity, which is what tells a swap from limbs that truly cross. What holds for most of the time counts as right.
Where outliers are then found, swaps are searched for once more without them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifting.keypoints import Keypoints2D
from lifting.skeletons import LEFT, RIGHT, Skeleton

UPPER, LEGS, WHOLE = 1, 2, 3
"""Values of `Cleaned.swapped`, bits of the exchanged groups. Hips go with the upper body: hips and shoulders agree."""

_LEG_WORDS = ("knee", "ankle", "heel", "toe", "foot")
# Weight of a pair's vote. Eyes, ears, mouth and fingers have none: they lie too close together to tell.
_VOTES = {**dict.fromkeys(("shoulder", "elbow", "wrist", "hip", "knee", "ankle"), 1.0),
          **dict.fromkeys(("big_toe", "foot_index", "foot", "heel"), 0.5)}  # fmt: skip

# Swaps. Costs are negative log-likelihoods of a Student distribution: its tails forgive an outlier and a sudden move.
_FREEDOM = 2.0
VELOCITY_SHARE = 0.9  # how much of the velocity goes on: below 1, since extrapolation amplifies noise
DEVIATION = (0.02, 0.08)  # bounds of a prediction's deviation, person sizes: smoothed detections look too certain
_CHANGE = (0.0, 7.0, 7.0, 6.0)  # cost of exchanging nothing, upper body, legs, both from one frame to the next
# Share of a change that a state costs where the clip begins and where it ends. Without it, one moment that cannot be
# followed, as in a kick or a leap, made all that lies before it, or after it, look exchanged.
_EDGE_SHARE = 0.5
_STAY = (0.0, 4.0, 3.0, 4.0)  # cost per second of the states none, upper, legs, whole: ties keep the detector's labels
# Legs mostly lie to the sides of each other as the hips do. Keeping them exchanged costs up to this share more where
# the detector has them so, and less where it has them crossed; below 1: crossed legs alone never change a label.
_AGREEMENT_SHARE, _AGREEMENT_SCALE = 0.5, 0.01  # the latter in squared person sizes
_AGREEING = (("knee", 1.0), ("ankle", 0.5))
_FORGET_SECONDS = 0.5  # after a gap this long a change costs half: the detector's label is as good as the memory
MEDIAN_LENGTH, _BLOCK = 1.18, 4096  # of a 2D normal vector of deviation 1; frames whose tables are held at a time

# Outliers. In 69 minutes of motion capture (dance, sports, martial arts; 3D, statures; 25, 50 Hz) no joint missed the
# predictions of `_Track` by more than `LEAST_JUMP` + acceleration * time^2, about 1 in 10^5 by more than the latter.
_ACCELERATION, _TRUNK_ACCELERATION = 110.0, 55.0  # person sizes / s^2
_SPEED = 7.0  # person sizes / s
_LIMB_WORDS = ("elbow", "wrist", *_LEG_WORDS, "pinky", "index", "thumb", "hand")
LEAST_JUMP = 0.06  # person sizes; also at least four deviations of the joint's own noise
EXCURSION_SECONDS = 0.2  # longer excursions may be real
STRAY_FRAMES, STRAY_GAP_SECONDS = 2, 0.3  # stray detections: at most so long, in gaps at least so long on both sides


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What `clean` returns.

    Attributes:
        keypoints: the cleaned keypoints, unseen where masked.
        swapped: (T,) uint8, which joints changed sides: 0 none, `UPPER`, `LEGS` or `WHOLE`.
        outliers: (T, J) bool, masked since the joint cannot have gone there and back; columns after the exchange.
        gaps: (T, J) bool, masked since they stood alone inside a long gap; columns after the exchange.
    """

    keypoints: Keypoints2D
    swapped: np.ndarray
    outliers: np.ndarray
    gaps: np.ndarray

    def summary(self) -> dict[str, int | float]:
        """Counts for a report: frames, swapped frames in all and by kind, masked keypoints, share of keypoints seen."""
        kinds = np.bincount(self.swapped, minlength=4)
        return {
            "frames": len(self.swapped), "swapped_frames": int(kinds[1:].sum()), "swapped_whole": int(kinds[WHOLE]),
            "swapped_upper": int(kinds[UPPER]), "swapped_legs": int(kinds[LEGS]), "outliers": int(self.outliers.sum()),
            "strays": int(self.gaps.sum()), "seen_share": round(float(self.keypoints.seen.mean()), 4),
        }  # fmt: skip


def clean(keypoints: Keypoints2D) -> Cleaned:
    """Undo left/right swaps, then mask outliers and stray detections; any skeleton, any length, NaN anywhere.

    Where nothing is wrong the same keypoints come back; the input is never modified.
    """
    swapped, repaired, outliers = _repaired(keypoints, keypoints)
    if outliers.any():  # they had a say in where sides were exchanged: again without them
        believed = exchange_sides(_masked(repaired, outliers), swapped)
        swapped, repaired, outliers = _repaired(keypoints, believed)
    gaps = find_strays(repaired.seen & ~outliers, repaired.fps)
    return Cleaned(_masked(repaired, outliers | gaps), swapped, outliers, gaps)


def _repaired(keypoints: Keypoints2D, believed: Keypoints2D) -> tuple[np.ndarray, Keypoints2D, np.ndarray]:
    """Swaps (T,) that `believed` shows, `keypoints` without them, and the outliers (T, J) among these."""
    swapped = find_swaps(believed)
    repaired = exchange_sides(keypoints, swapped) if swapped.any() else keypoints
    return swapped, repaired, find_outliers(repaired)


def _masked(keypoints: Keypoints2D, masked: np.ndarray) -> Keypoints2D:
    return keypoints.replace(score=np.where(masked, np.float32(0), keypoints.score)) if masked.any() else keypoints


def exchange_sides(keypoints: Keypoints2D, swapped: np.ndarray) -> Keypoints2D:
    """The keypoints with the sides exchanged that `swapped` (T,) says: 0 none, `UPPER`, `LEGS` or `WHOLE`."""
    xy, score = keypoints.xy.copy(), keypoints.score.copy()
    for group in (UPPER, LEGS):
        frames = np.flatnonzero(swapped & group)[:, None]
        for here in side_pairs(keypoints.skeleton, group):
            there = here[::-1]
            xy[frames, here], score[frames, here] = keypoints.xy[frames, there], keypoints.score[frames, there]
    return keypoints.replace(xy=xy, score=score)


def side_pairs(skeleton: Skeleton, group: int) -> list[tuple[int, int]]:
    """(left, right) columns of the pairs of the legs, or of all others."""
    pairs = zip(skeleton.left, skeleton.right, strict=True)
    return [pair for pair in pairs if _is_any(_LEG_WORDS, skeleton.joints[pair[0]]) == (group == LEGS)]


def _is_any(words: tuple[str, ...], joint: str) -> bool:
    return any(word in joint for word in words)


def person_size(keypoints: Keypoints2D) -> np.ndarray:
    """(T,) pixels: diagonal of the box around the joints, its upper quartile in blocks of two seconds, interpolated.

    A crouch or one wild joint hardly changes it, walking towards the camera does. 1 where nothing is known.
    """
    frames = np.flatnonzero(keypoints.seen.sum(axis=1) >= 3)
    if not len(frames):
        return np.ones(len(keypoints))
    low, high = (extreme.reduce(keypoints.xy[frames], axis=1) for extreme in (np.fmin, np.fmax))
    diagonal = np.linalg.norm(high - low, axis=-1)
    block = frames // max(1, round(2 * keypoints.fps))
    starts = np.flatnonzero(np.diff(block, prepend=-1))[1:]
    centres = [part.mean() for part in np.split(frames, starts)]
    sizes = [np.percentile(part, 75) for part in np.split(diagonal, starts)]
    return np.maximum(np.interp(np.arange(len(keypoints)), centres, sizes), 1)


def find_swaps(keypoints: Keypoints2D) -> np.ndarray:
    """(T,) uint8: whose sides the detector exchanged in each frame: 0, `UPPER`, `LEGS` or `WHOLE`.

    The most plausible sequence (Viterbi) under second-order costs: each frame is compared with what the two before it
    predict. Frames without a complete pair keep the state of the frame before, frames without any joint have none.
    """
    size = person_size(keypoints)
    votes = [pair_differences(keypoints, group, size) for group in (UPPER, LEGS)]
    voted = np.concatenate([np.isfinite(difference[..., 0]) for difference, _ in votes], axis=1).any(axis=1)
    frames = np.flatnonzero(voted)
    if len(frames) < 2:
        return np.zeros(len(keypoints), np.uint8)
    steps = np.diff(frames, prepend=frames[0] - 1)
    costs = [_relation_costs(difference[frames], weight[frames], steps) for difference, weight in votes]
    agreement = legs_agreement(keypoints.xy[frames] / size[frames, None, None], keypoints.skeleton)
    states = _most_plausible(*costs, agreement, steps / keypoints.fps)[np.maximum(np.cumsum(voted) - 1, 0)]
    return np.where(keypoints.seen.any(axis=1), states, np.uint8(0))


def pair_differences(keypoints: Keypoints2D, group: int, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left minus right (T, P, 2) in person sizes, NaN unless both are seen, and the weights (T, P) of their votes."""
    left, right, votes = voting_pairs(keypoints.skeleton, group)
    difference = (keypoints.xy[:, left] - keypoints.xy[:, right]) / size[:, None, None]
    return difference, np.sqrt(keypoints.score[:, left] * keypoints.score[:, right]) * votes


def voting_pairs(skeleton: Skeleton, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left columns (P,), right columns (P,) and weights (P,) of the pairs that vote on a group's sides."""
    names = [joint.removeprefix(LEFT) for joint in skeleton.joints]
    voters = [pair for pair in side_pairs(skeleton, group) if names[pair[0]] in _VOTES]
    left, right = np.array(voters, int).reshape(-1, 2).T
    return left, right, np.array([_VOTES[names[i]] for i in left])


def legs_agreement(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(n,) in [-1, 1]: whether the legs lie to the sides of each other as the hips do (1), or are crossed (-1).

    points: (n, J, 2) person sizes, NaN where unseen. 0 where that cannot be seen, as from the side.
    """
    hips, total = _left_minus_right(points, skeleton, "hip"), np.zeros(len(points))
    for name, weight in _AGREEING:
        total += weight * np.nan_to_num((hips * _left_minus_right(points, skeleton, name)).sum(axis=-1))
    return np.tanh(total / _AGREEMENT_SCALE)


def _left_minus_right(points: np.ndarray, skeleton: Skeleton, joint: str) -> np.ndarray:
    """(n, 2), NaN for a joint that the skeleton does not have on both sides."""
    names = (LEFT + joint, RIGHT + joint)
    if not set(names) <= set(skeleton.joints):
        return np.full((len(points), 2), np.nan)
    left, right = skeleton.indices(names)
    return points[:, left] - points[:, right]


def _relation_costs(difference: np.ndarray, weight: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(n, 4) costs of n frames for [2 * (labels exchanged since the frame before) + (exchanged in that frame)]."""
    before, earlier = _delayed(difference, 1), _delayed(difference, 2)
    last, age = _last_seen(difference, steps)
    usual = np.median(steps)
    # Over a gap velocity tells nothing.
    share = np.where(steps <= 2 * usual, VELOCITY_SHARE * np.minimum(steps / _delayed(steps * 1.0, 1), 1), 0)
    squares = relation_squares(difference, before, earlier, last, share)
    dropout = np.where(np.isnan(before[..., 0]), age / usual, np.where(np.isnan(earlier[..., 0]), 1.5, 1.0))
    return student_costs(squares, _deviations(squares) * np.maximum(dropout, steps[:, None] / usual), weight)


def relation_squares(
    difference: np.ndarray, before: np.ndarray, earlier: np.ndarray, last: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """(n, P, 4) squared misses of the predictions from the two frames before, for the relations of `_relation_costs`.

    All differences are (n, P, 2); `last` stands in where `before` is NaN. share: (n,) of the velocity that goes on.
    """
    squares = []
    for now, then in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        velocity = np.nan_to_num((before - then * earlier) * share[:, None, None])
        # After a dropout the labels count as those of two frames ago, which a second-order cost can still see.
        residual = np.where(np.isnan(before), now * then * difference - last, now * difference - before - velocity)
        squares.append((residual**2).sum(axis=-1))
    return np.stack(squares, axis=-1)


def student_costs(squares: np.ndarray, deviation: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(n, 4) costs of squared misses (n, P, 4) with deviations (n, P), summed with weights (n, P); NaN is free."""
    costs = (_FREEDOM + 2) / 2 * np.log1p(squares / (_FREEDOM * deviation[..., None] ** 2))
    return np.nansum(costs * weight[..., None], axis=1)


def _delayed(values: np.ndarray, frames: int) -> np.ndarray:
    """Values of `frames` frames ago, NaN for the first ones."""
    return np.concatenate([np.full_like(values[:frames], np.nan), values[:-frames]])


def _last_seen(difference: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair's last seen difference two or more frames ago (n, P, 2), NaN for none, and its age (n, P) in frames."""
    seen = np.isfinite(difference[..., 0])
    latest = np.maximum.accumulate(np.where(seen, np.arange(len(seen))[:, None], 0), axis=0)
    latest = np.concatenate([np.zeros_like(latest[:2]), latest[:-2]])
    times = np.cumsum(steps)
    last = np.take_along_axis(difference, latest[..., None], axis=0)  # frame 0, then NaN, where never seen
    last[:2] = np.nan
    return last, np.maximum(times[:, None] - times[latest], 1)


def _deviations(squares: np.ndarray) -> np.ndarray:
    """(P,) usual deviation of the predictions per axis, from squares (n, P, 4) of the best relation; bounded."""
    least = np.concatenate([squares.min(axis=-1), np.zeros((1, squares.shape[1]))])  # a 0, lest there be only NaN
    return np.clip(np.sqrt(np.nanmedian(least, axis=0)) / MEDIAN_LENGTH, *DEVIATION)


def _most_plausible(upper: np.ndarray, legs: np.ndarray, agreement: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(n,) uint8, cheapest sequence of states 0..3; arguments as of `state_costs`, with the steps in seconds.

    Its cost is that of `first_total`, of `state_costs` in all further frames, and of the last state at the edge.
    """
    usual = float(np.median(seconds))
    total = first_total(usual, _EDGE_SHARE)
    choices = np.zeros((len(upper), 4, 4), np.uint8)
    for first in range(0, len(upper), _BLOCK):
        block = slice(first, first + _BLOCK)
        tables = state_costs(upper[block], legs[block], agreement[block], seconds[block], usual)
        for frame, table in enumerate(tables, first):
            if frame:
                sums = table + total
                choices[frame] = sums.argmin(axis=-1)
                total = sums.min(axis=-1)
    return _trace_back(choices, total + _EDGE_SHARE * np.array(_CHANGE)[:, None])


def first_total(usual: float, trust: float) -> np.ndarray:
    """(4, 4) cost of [state, state before] in the first frame, before which the state was the same.

    usual: the common step in seconds. trust: share of a change that another state than the first labels' costs; 1 where
    these count as right until proven wrong, `_EDGE_SHARE` where later frames tell, too.
    """
    return np.where(np.eye(4, dtype=bool), np.array(_STAY) * usual + trust * np.array(_CHANGE), np.inf)


def state_costs(
    upper: np.ndarray, legs: np.ndarray, agreement: np.ndarray, seconds: np.ndarray, usual: float
) -> np.ndarray:
    """(n, 4, 4, 4) costs of [state, state before, state before that] from both groups' relation costs (n, 4).

    agreement: (n,) of `legs_agreement`, with the detector's labels; seconds: (n,) since the frame before; usual: the
    common step in seconds.
    """
    now, before, earlier = np.ix_(range(4), range(4), range(4))
    of_upper, of_legs = (2 * ((now ^ before) >> bit & 1) + ((before ^ earlier) >> bit & 1) for bit in (0, 1))
    change = np.array(_CHANGE)[now ^ before]
    against_hips = np.array([state in (UPPER, LEGS) for state in range(4)])  # only these exchange one without the other
    stay = np.array(_STAY) * usual * (1 + _AGREEMENT_SHARE * against_hips * agreement[:, None])
    ease = 1 / (1 + np.maximum(seconds - usual, 0) / _FORGET_SECONDS)
    return upper[:, of_upper] + legs[:, of_legs] + stay[:, :, None, None] + change * ease[:, None, None, None]


def _trace_back(choices: np.ndarray, total: np.ndarray) -> np.ndarray:
    now, before = divmod(int(total.argmin()), 4)
    states = np.zeros(len(choices), np.uint8)
    for frame in range(len(choices) - 1, -1, -1):
        states[frame] = now
        now, before = before, int(choices[frame, now, before])
    return states


def find_outliers(keypoints: Keypoints2D) -> np.ndarray:
    """(T, J) bool: short excursions between jumps that no body makes, back to where the joint can have gone instead."""
    size, seen = person_size(keypoints), keypoints.seen
    outliers = np.zeros(seen.shape, bool)
    longest = max(2, round(EXCURSION_SECONDS * keypoints.fps))
    for joint, name in enumerate(keypoints.skeleton.joints):
        frames = np.flatnonzero(seen[:, joint])
        if len(frames) >= 3:
            points = keypoints.xy[frames, joint] / size[frames, None]
            track = _Track(points, frames / keypoints.fps, most_acceleration(name))
            outliers[frames, joint] = _excursions(track, longest)
    return outliers


def most_acceleration(joint: str) -> float:
    """Person sizes / s^2 by which a joint of that name can miss a prediction."""
    return _ACCELERATION if _is_any(_LIMB_WORDS, joint) else _TRUNK_ACCELERATION


def reach(acceleration: float | np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Person sizes by which a joint can be off its prediction after so many seconds."""
    return np.minimum(acceleration * seconds**2, _SPEED * seconds)


class _Track:
    """One joint's seen points (n, 2) in person sizes at times (n,) in seconds, and how far it can get between two."""

    def __init__(self, points: np.ndarray, times: np.ndarray, acceleration: float) -> None:
        self.points, self.times, self.acceleration = points, times, acceleration
        speed = np.diff(points, axis=0) / np.diff(times)[:, None]
        self.speed_before = np.pad(speed, ((1, 0), (0, 0)), constant_values=np.inf)  # unknown fits nothing
        self.speed_after = np.pad(speed, ((0, 1), (0, 0)), constant_values=np.inf)
        steps = np.arange(len(points) - 1), np.arange(1, len(points))
        self.least = max(LEAST_JUMP, 4 * float(np.median(self._misfit(*steps)[0])) / MEDIAN_LENGTH)
        self.jumps = ~self.connects(*steps)

    def connects(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """(m,) bool: whether the joint can have gone from the points numbered `start` (m,) to those numbered `stop`."""
        misfit, allowed = self._misfit(start, stop)
        return misfit <= self.least + allowed

    def _misfit(self, start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m,) distance from the best of rest, speed before and speed after; (m,) how far off these a body gets."""
        seconds = self.times[stop] - self.times[start]
        move = self.points[stop] - self.points[start]
        guesses = 0, self.speed_before[start] * seconds[:, None], self.speed_after[stop] * seconds[:, None]
        misfit = np.minimum.reduce([np.hypot(*(move - guess).T) for guess in guesses])
        return misfit, reach(self.acceleration, seconds)


def _excursions(track: _Track, longest: int) -> np.ndarray:
    """(n,) bool: points left out of the most plausible track.

    The track is cut at its jumps. Those stretches are kept that have the most points in all, where each jump between
    kept neighbours costs `longest` / 2 points: fewer than `longest` points are given up to be rid of two jumps.
    """
    edges = [0, *(np.flatnonzero(track.jumps) + 1).tolist(), len(track.points)]
    lengths = [stop - start for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    links = [(early, late) for late in range(1, len(lengths))
             for early in range(late - 1, max(late - longest, 0) - 1, -1)
             if edges[late] - edges[early + 1] < longest]  # fmt: skip
    ends = np.array(edges)[np.array(links, int).reshape(-1, 2) + [1, 0]]
    scores, previous = [float(length) for length in lengths], [-1] * len(lengths)
    for (early, late), smooth in zip(links, track.connects(ends[:, 0] - 1, ends[:, 1]).tolist(), strict=True):
        score = lengths[late] + scores[early] - (0 if smooth else longest / 2)
        if score > scores[late]:
            scores[late], previous[late] = score, early
    outside = np.ones(len(track.points), bool)
    kept = int(np.argmax(scores))
    while kept >= 0:
        outside[edges[kept]:edges[kept + 1]] = False
        kept = previous[kept]
    return outside


def find_strays(seen: np.ndarray, fps: float) -> np.ndarray:
    """(T, J) bool: joints seen for a frame or two inside a long gap, unless so short sightings are the rule."""
    strays = np.zeros(seen.shape, bool)
    for joint, column in enumerate(seen.T):
        edges = np.flatnonzero(np.diff(column.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
        if len(edges) < 3:
            continue
        lengths, gaps = edges[:, 1] - edges[:, 0], edges[1:, 0] - edges[:-1, 1]
        alone = np.concatenate([[0], np.minimum(gaps[1:], gaps[:-1]), [0]]) >= max(3, STRAY_GAP_SECONDS * fps)
        usual = np.median(np.repeat(lengths, lengths))  # the run that a typical sighting belongs to
        for start, stop in edges[alone & (lengths <= STRAY_FRAMES) & (usual >= 5 * lengths)]:
            strays[start:stop, joint] = True
    return strays
