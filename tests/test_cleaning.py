"""Cleaning of 2D keypoints: a synthetic walker with known errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifting import cleaning
from lifting.cleaning import (
    LEGS,
    UPPER,
    WHOLE,
    clean,
    exchange_sides,
    find_outliers,
    find_strays,
    find_swaps,
    legs_agreement,
)
from lifting.keypoints import Keypoints2D
from lifting.skeletons import Skeleton, get_skeleton, list_skeletons

LIFT = get_skeleton("lift17")
SIZE = (1280, 720)
FPS = 50.0
HEIGHT = 400.0  # pixels
# Metres: half width, height above the ground, swing forwards (share of the stride; arms against legs).
BODY = {"nose": (0, 1.6, 0), "shoulder": (0.19, 1.42, 0), "elbow": (0.23, 1.15, -0.12), "wrist": (0.25, 0.95, -0.25),
        "hip": (0.12, 0.95, 0), "knee": (0.12, 0.5, 0.2), "ankle": (0.11, 0.09, 0.38), "big_toe": (0.13, 0.03, 0.38),
        "heel": (0.11, 0.03, 0.38)}  # fmt: skip
AHEAD = {"nose": 0.1, "big_toe": 0.15, "heel": -0.07}


def walker(frames: int = 200, turn: float = 30.0, fps: float = FPS, noise: float = 0.0, seed: int = 0,
           stride: float = 1.0) -> Keypoints2D:  # fmt: skip
    """Somebody who walks on the spot, seen under `turn` degrees from the front; noise in pixels."""
    phase = 2 * np.pi * np.arange(frames) / fps  # one stride a second
    xy = np.empty((frames, len(LIFT.joints), 2))
    for joint, name in enumerate(LIFT.joints):
        side = name.startswith("left_") - name.startswith("right_")
        half, height, swing = BODY[name.removeprefix("left_").removeprefix("right_")]
        ahead = AHEAD.get(name.split("_", 1)[-1], 0) + side * swing * stride * np.sin(phase)
        across = side * half * np.cos(np.radians(turn)) + ahead * np.sin(np.radians(turn))
        xy[:, joint] = np.stack([across, 1.7 - height + 0.02 * np.cos(2 * phase)], axis=-1)
    xy = xy * HEIGHT / 1.7 + (600, 200) + np.random.default_rng(seed).normal(0, 1, xy.shape) * noise
    return Keypoints2D(xy, None, LIFT, SIZE, fps)


def runs_of(frames: int, **runs: int) -> np.ndarray:
    swapped = np.zeros(frames, np.uint8)
    for span, kind in runs.items():
        start, stop = map(int, span.strip("f").split("_"))
        swapped[start:stop] = kind
    return swapped


SWAPS = runs_of(200, f5_6=WHOLE, f20_50=WHOLE, f60_80=LEGS, f95_97=UPPER, f110_130=LEGS, f130_135=WHOLE, f190_200=WHOLE)


@pytest.mark.parametrize("fps", [25.0, 50.0])
@pytest.mark.parametrize("turn", [0.0, 30.0, 60.0, 180.0, 250.0])
def test_known_swaps_are_undone(turn, fps):
    truth = walker(turn=turn, fps=fps, noise=2.0)
    cleaned = clean(exchange_sides(truth, SWAPS))
    np.testing.assert_array_equal(cleaned.swapped, SWAPS)
    assert cleaned.keypoints == truth
    assert not cleaned.outliers.any() and not cleaned.gaps.any()


def test_swaps_are_undone_in_a_pure_side_view_apart_from_moments_of_crossing():
    truth = walker(turn=90.0, noise=2.0)  # left and right coincide twice a second
    cleaned = clean(exchange_sides(truth, SWAPS))
    assert (cleaned.swapped != SWAPS).mean() <= 0.03


def turning_walker(frames: int = 500) -> Keypoints2D:
    """Somebody who turns once as they walk, so that limbs cross in every way."""
    views = [walker(frames, turn=turn) for turn in np.linspace(0, 360, frames // 5)]
    xy = np.stack([views[frame // 5].xy[frame] for frame in range(frames)])
    return views[0].replace(xy=xy + np.random.default_rng(0).normal(0, 2, xy.shape))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("swaps", [np.zeros(500, np.uint8), np.resize(SWAPS, 500)])
def test_outliers_have_no_say_in_where_sides_were_exchanged(seed, swaps):
    """Each joint is wild in one frame of twelve, for one to four in a row; the search alone is misled by seed 0."""
    truth, rng = turning_walker(), np.random.default_rng(seed)
    frames, joints = truth.seen.shape
    wild = np.array([np.repeat(rng.random(frames) < 0.2 / 2.5, rng.integers(1, 5, frames))[:frames]
                     for _ in range(joints)]).T  # fmt: skip
    angle, reach = rng.uniform(0, 2 * np.pi, wild.shape), rng.uniform(0.2, 0.6, wild.shape) * HEIGHT
    offset = np.stack([np.cos(angle), np.sin(angle)], -1) * np.where(wild, reach, 0)[..., None]
    harmed = exchange_sides(truth.replace(xy=truth.xy + offset), swaps)
    np.testing.assert_array_equal(clean(harmed).swapped, swaps)
    assert seed or (find_swaps(harmed) != swaps).any()


def standing_crossed(frames: int = 500) -> Keypoints2D:
    """Somebody who stands with each knee and ankle on the other side."""
    standing = walker(frames, turn=20.0, noise=2.0, stride=0.0)
    return exchange_sides(standing, np.full(frames, LEGS, np.uint8))


def test_crossed_legs_alone_change_no_label():
    crossed = standing_crossed()
    assert clean(crossed).keypoints is crossed


def test_legs_that_lie_as_the_hips_do_count_more_than_the_longer_time():
    truth = walker(500, turn=20.0, noise=2.0, stride=0.3)
    swapped = runs_of(500, f220_500=LEGS)
    cleaned = clean(exchange_sides(truth, swapped))
    np.testing.assert_array_equal(cleaned.swapped, swapped)
    assert cleaned.keypoints == truth


@pytest.mark.parametrize("seed", range(20))
def test_the_cheapest_of_all_sequences_is_found(seed):
    rng = np.random.default_rng(seed)
    upper, legs = rng.gamma(1.0, 4.0, (2, 6, 4))
    agreement, seconds = rng.uniform(-1, 1, 6), np.full(6, 0.02)
    tables = cleaning.state_costs(upper, legs, agreement, seconds, 0.02)
    edge = cleaning._EDGE_SHARE * np.array(cleaning._CHANGE)  # where the clip begins and where it ends

    def cost(states: tuple[int, ...]) -> float:
        frames = zip(tables[1:], states[1:], states, (states[0], *states), strict=False)
        steps = sum(table[now, before, earlier] for table, now, before, earlier in frames)
        return steps + edge[states[0]] + edge[states[-1]] + 0.02 * cleaning._STAY[states[0]]

    found = tuple(cleaning._most_plausible(upper, legs, agreement, seconds))
    assert cost(found) == pytest.approx(min(map(cost, itertools.product(range(4), repeat=6))))


def test_one_unclear_moment_exchanges_no_half_of_a_clip():
    """Somebody turns round: the legs cross, and for two frames the detector mistakes one for the other."""
    keypoints = walker(100, turn=0, noise=1.0)
    turn = np.radians(np.interp(np.arange(100), [64, 72], [70, 110]))
    middle = keypoints.xy.mean(axis=1, keepdims=True)[..., 0]
    xy = keypoints.xy.copy()
    xy[..., 0] = middle + (xy[..., 0] - middle) * np.cos(turn)[:, None]
    turning = exchange_sides(keypoints.replace(xy=xy), runs_of(100, f67_69=LEGS))
    swapped = find_swaps(turning)
    assert not np.delete(swapped, [67, 68]).any()


def test_agreement_of_legs_and_hips():
    front, side = walker(turn=0.0, stride=0.0), walker(turn=90.0, stride=0.0)
    points = front.xy / HEIGHT
    hips, knees, ankles = (2 * BODY[name][0] / 1.7 for name in ("hip", "knee", "ankle"))
    expected = np.tanh(hips * (knees + 0.5 * ankles) / 0.01)
    np.testing.assert_allclose(legs_agreement(points, LIFT), expected, rtol=1e-5)
    crossed = exchange_sides(front, np.full(200, LEGS, np.uint8)).xy / HEIGHT
    np.testing.assert_allclose(legs_agreement(crossed, LIFT), -expected, rtol=1e-5)
    turned_round = exchange_sides(front, np.full(200, WHOLE, np.uint8)).xy / HEIGHT
    np.testing.assert_allclose(legs_agreement(turned_round, LIFT), expected, rtol=1e-5)
    np.testing.assert_allclose(legs_agreement(side.xy / HEIGHT, LIFT), 0, atol=1e-6)
    unseen = points.copy()
    unseen[:, LIFT.indices(["left_ankle", "right_knee"])] = np.nan
    assert not legs_agreement(unseen, LIFT).any()
    assert not legs_agreement(points[:, :3], Skeleton("pair", ("nose", "left_knee", "right_knee"), (-1, 0, 0))).any()


@pytest.mark.parametrize("turn", [0.0, 45.0, 90.0])
def test_what_is_clean_stays_bit_identical(turn):
    keypoints = walker(turn=turn, noise=2.0)
    cleaned = clean(keypoints)
    assert cleaned.keypoints is keypoints
    assert cleaned.summary() == {
        "frames": 200, "swapped_frames": 0, "swapped_whole": 0, "swapped_upper": 0, "swapped_legs": 0, "outliers": 0,
        "strays": 0, "seen_share": 1.0,
    }  # fmt: skip


def test_the_input_is_not_modified_and_the_summary_counts():
    truth = walker(noise=2.0)
    swapped = exchange_sides(truth, SWAPS)
    xy = swapped.xy.copy()
    xy[100, LIFT.index("nose")] += 150
    given_keypoints = swapped.replace(xy=xy)
    before = given_keypoints.xy.copy(), given_keypoints.score.copy()
    summary = clean(given_keypoints).summary()
    np.testing.assert_array_equal(given_keypoints.xy, before[0])
    np.testing.assert_array_equal(given_keypoints.score, before[1])
    kinds = {name: summary[f"swapped_{name}"] for name in ("whole", "upper", "legs", "frames")}
    assert kinds == {"whole": 46, "upper": 2, "legs": 40, "frames": 88}
    assert (summary["outliers"], summary["strays"], summary["seen_share"]) == (1, 0, round(1 - 1 / (200 * 17), 4))


def test_swaps_survive_dropouts_and_gaps():
    truth = walker(noise=2.0)
    rng = np.random.default_rng(1)
    unseen = rng.random((200, 17)) < 0.05
    unseen[30:36] = True  # inside a run: its label must carry over
    truth = truth.replace(score=np.where(unseen, 0, truth.score))
    cleaned = clean(exchange_sides(truth, SWAPS))
    expected = np.where(truth.seen.any(axis=1), SWAPS, 0)
    np.testing.assert_array_equal(cleaned.swapped, expected)
    assert cleaned.keypoints == truth


@pytest.mark.parametrize("every", [3, 10])
def test_detections_in_every_kth_frame_only(every):
    truth = walker(noise=2.0)
    seen = (np.arange(200) % every == 0)[:, None] & np.ones(17, bool)
    swaps = runs_of(200, f60_100=WHOLE)
    truth = truth.replace(score=np.where(seen, 1, 0))
    cleaned = clean(exchange_sides(truth, swaps))
    assert cleaned.keypoints == truth


@pytest.mark.parametrize("frames", [1, 2, 3, 50])
def test_nothing_seen(frames):
    keypoints = Keypoints2D(np.full((frames, 17, 2), np.nan), None, LIFT, SIZE, FPS)
    cleaned = clean(keypoints)
    assert cleaned.keypoints is keypoints
    assert cleaned.summary()["seen_share"] == 0


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_few_frames_pass(frames):
    keypoints = walker(frames, noise=2.0)
    cleaned = clean(keypoints)
    assert cleaned.keypoints is keypoints
    assert cleaned.swapped.shape == (frames,) and cleaned.outliers.shape == cleaned.gaps.shape == (frames, 17)


@pytest.mark.parametrize("name", list_skeletons())
def test_every_registered_skeleton(name):
    skeleton = get_skeleton(name)
    rng = np.random.default_rng(0)
    pose = rng.uniform(200, 500, (skeleton.num_joints, 2))
    truth = Keypoints2D(pose + rng.normal(0, 1, (60, *pose.shape)), None, skeleton, SIZE, 30.0)
    swaps = runs_of(60, f20_30=WHOLE)
    cleaned = clean(exchange_sides(truth, swaps))
    np.testing.assert_array_equal(cleaned.swapped, swaps)
    assert cleaned.keypoints == truth


def test_a_skeleton_without_pairs_passes():
    skeleton = Skeleton("pole", ("base", "top"), (-1, 0))
    keypoints = Keypoints2D(np.random.default_rng(0).uniform(0, 9, (20, 2, 2)), None, skeleton, SIZE, 30.0)
    assert not clean(keypoints).swapped.any()


@pytest.mark.parametrize("fps", [25.0, 50.0])
@pytest.mark.parametrize("frames", [(100,), (100, 101), (100, 102), (0,), (199,)])
def test_an_outlier_is_masked_and_nothing_else(frames, fps):
    keypoints = walker(fps=fps, noise=2.0)
    joint = LIFT.index("left_knee")
    xy = keypoints.xy.copy()
    xy[list(frames), joint] += (0.3 * HEIGHT, -0.3 * HEIGHT)
    cleaned = clean(keypoints.replace(xy=xy))
    expected = np.zeros((200, 17), bool)
    expected[list(frames), joint] = True
    np.testing.assert_array_equal(cleaned.outliers, expected)
    assert cleaned.keypoints == keypoints.replace(score=np.where(expected, 0, keypoints.score))


@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.75])  # of a frame: where the peak falls matters
@pytest.mark.parametrize("fps", [25.0, 30.0, 60.0])
@pytest.mark.parametrize("joint", ["right_ankle", "left_wrist"])
@pytest.mark.parametrize(("half", "reach"), [(0.15, 0.6), (0.10, 0.4)])  # seconds out, person heights: both 11 m/s
def test_a_fast_kick_or_punch_is_no_outlier(half, reach, joint, fps, phase):
    keypoints = walker(round(4 * fps), fps=fps, noise=2.0)
    times = (np.arange(len(keypoints)) + phase) / fps - 2
    out = np.where(np.abs(times) < half, (1 + np.cos(np.pi * times / half)) / 2, 0) * reach * HEIGHT
    xy = keypoints.xy.copy()
    xy[:, LIFT.index(joint)] += out[:, None] * (0.8, -0.6)
    kicked = keypoints.replace(xy=xy)
    assert clean(kicked).keypoints is kicked


def test_a_lasting_jump_is_kept():
    keypoints = walker(noise=2.0)
    xy = keypoints.xy.copy()
    xy[80:] += 300  # a cut, or the tracker at last finds the person
    assert not find_outliers(keypoints.replace(xy=xy)).any()


def test_a_single_sighting_inside_a_long_gap_is_masked():
    keypoints = walker(noise=2.0)
    joint = LIFT.index("right_wrist")
    score = keypoints.score.copy()
    score[60:120, joint] = 0
    score[90, joint] = 1
    cleaned = clean(keypoints.replace(score=score))
    assert np.argwhere(cleaned.gaps).tolist() == [[90, joint]]
    assert not cleaned.keypoints.seen[60:120, joint].any()


def test_sightings_that_are_long_or_the_rule_are_no_strays():
    seen = np.ones((200, 3), bool)
    seen[60:120, 0] = False
    seen[85:95, 0] = True  # long enough
    seen[:, 1] = np.arange(200) % 25 == 0  # the rule
    seen[100:, 2] = False
    seen[199, 2] = True  # who knows how it goes on
    assert not find_strays(seen, FPS).any()


@given(seed=st.integers(0, 1000), turn=st.floats(0, 360))
def test_mirroring_commutes_with_cleaning(seed, turn):
    rng = np.random.default_rng(seed)
    keypoints = walker(60, turn=turn, noise=3.0, seed=seed)
    xy = np.where(rng.random((60, 17, 1)) < 0.02, rng.uniform(0, 700, (60, 17, 2)), keypoints.xy)
    xy[rng.random((60, 17)) < 0.05] = np.nan
    keypoints = exchange_sides(keypoints.replace(xy=np.round(xy)), runs_of(60, f10_20=WHOLE, f30_40=LEGS))
    cleaned, mirrored = clean(keypoints), clean(keypoints.flipped())
    np.testing.assert_array_equal(mirrored.swapped, cleaned.swapped)
    assert mirrored.keypoints == cleaned.keypoints.flipped()
