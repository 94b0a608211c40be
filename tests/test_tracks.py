"""Identities over time: synthetic people whose true identity is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifting.keypoints import Detection
from lifting.skeletons import get_skeleton
from lifting.tracks import Tracker, pose_similarity

SKELETON = get_skeleton("coco17")
SIZE = (1920, 1080)
FPS = 30.0
STANDING = np.array(
    [
        (0, 0.05), (0.02, 0.03), (-0.02, 0.03), (0.04, 0.05), (-0.04, 0.05), (0.1, 0.18), (-0.1, 0.18), (0.13, 0.35),
        (-0.13, 0.35), (0.14, 0.5), (-0.14, 0.5), (0.07, 0.5), (-0.07, 0.5), (0.08, 0.73), (-0.08, 0.73), (0.08, 0.96),
        (-0.08, 0.96),
    ]
)  # fmt: skip
SWING = np.zeros(17)
SWING[[9, 15]], SWING[[10, 16]], SWING[[7, 13]], SWING[[8, 14]] = 0.12, -0.12, 0.06, -0.06


def walk(start, step, num_frames, height=400.0, top=300.0, period=32):
    """True joints (T, 17, 2) of somebody who walks along x: start in pixels, step in pixels per frame."""
    time = np.arange(num_frames)[:, None]
    phase = np.sin(2 * np.pi * time / period)
    x = start + step * time + height * (STANDING[:, 0] + phase * SWING * np.array([1.0] * 9 + [-1, -1] + [1] * 6))
    y = np.broadcast_to(top + height * STANDING[:, 1], x.shape)
    return np.stack([x, y], axis=-1)


def detection(xy, score=0.9):
    return Detection(xy=np.asarray(xy, np.float32), score=np.full(len(xy), score, np.float32))


def track_people(people, visible, seed, noise=4.0, swap=None):
    """Feed shuffled noisy detections; return the tracker and the ids given to each true person, (P, T), 0 = unseen."""
    random = np.random.default_rng(seed)
    tracker = Tracker(SKELETON, SIZE, FPS)
    ids = np.zeros(visible.shape, int)
    for frame in range(visible.shape[1]):
        shown = random.permutation(np.flatnonzero(visible[:, frame]))
        poses = {who: people[who][frame] + random.normal(0, noise, (17, 2)) for who in shown}
        for who in shown[swap[shown, frame]] if swap is not None else ():
            poses[who] = poses[who][list(SKELETON.flip)]
        ids[shown, frame] = tracker.update([detection(pose) for pose in poses.values()])
    return tracker, ids


def identities(ids):
    """The set of ids each person was given."""
    return [set(row[row > 0]) for row in ids]


def crossing(num_frames=120, gap=20.0):
    first = walk(300, 8, num_frames)
    second = walk(300 + 8 * num_frames, -7, num_frames, height=380, top=300 + gap, period=28)
    return [first, second]


def occluded(people, distance=70.0):
    """Frames in which the second person is hidden behind the first: (2, T) visible."""
    apart = np.abs(people[0][..., 0].mean(1) - people[1][..., 0].mean(1))
    return np.stack([np.ones(len(apart), bool), apart > distance])


@pytest.mark.parametrize("seed", range(5))
def test_ids_survive_a_crossing_in_full_view(seed):
    people = crossing()
    _, ids = track_people(people, np.ones((2, 120), bool), seed)
    assert identities(ids) == [{ids[0, 0]}, {ids[1, 0]}]
    assert ids[0, 0] != ids[1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_ids_survive_a_crossing_with_occlusion_and_dropouts(seed):
    people = crossing()
    visible = occluded(people)
    hidden = (~visible[1]).sum()
    assert 8 <= hidden <= 20
    visible &= np.random.default_rng(seed).random(visible.shape) > 0.05
    tracker, ids = track_people(people, visible, seed, noise=6.0)
    assert [len(names) for names in identities(ids)] == [1, 1]
    assert identities(ids)[0] != identities(ids)[1]
    assert len(tracker.finish()) == 2


@pytest.mark.parametrize("seed", range(3))
def test_two_people_hidden_together_come_out_on_their_own_sides(seed):
    people = [walk(960 - 9 * 60, 9, 120), walk(960 + 8 * 60, -8, 120, height=390, period=28)]
    visible = np.ones((2, 120), bool)
    visible[:, 50:70] = False
    _, ids = track_people(people, visible, seed)
    assert identities(ids) == [{ids[0, 0]}, {ids[1, 0]}]


@pytest.mark.parametrize("seed", range(8))
def test_a_dropout_while_the_other_person_comes_back_swaps_nothing(seed):
    people = crossing(gap=10.0)
    visible = occluded(people)
    visible[0, np.flatnonzero(~visible[1])[-1] + 1] = False
    _, ids = track_people(people, visible, seed, noise=6.0)
    assert identities(ids) == [{ids[0, 0]}, {ids[1, 0]}]


def test_a_gap_stays_nan_and_the_rest_is_what_was_detected():
    people = [walk(300, 6, 90), walk(1500, 0, 90)]
    visible = np.ones((2, 90), bool)
    visible[0, 40:62] = False  # 0.73 s
    tracker, ids = track_people(people, visible, seed=1, noise=0.0)
    tracks = {track.id: track.keypoints for track in tracker.finish()}
    walker = tracks[ids[0, 0]]
    assert identities(ids) == [{ids[0, 0]}, {ids[1, 0]}]
    assert len(walker) == tracker.num_frames == 90
    assert np.isnan(walker.xy[40:62]).all() and (walker.score[40:62] == 0).all()
    np.testing.assert_allclose(walker.xy[visible[0]], people[0][visible[0]], atol=1e-3)
    assert (walker.score[visible[0]] == np.float32(0.9)).all()


def test_an_absence_beyond_the_window_starts_a_new_track():
    people = [walk(900, 0, 100)]
    visible = np.ones((1, 100), bool)
    visible[0, 30:65] = False  # 1.17 s
    _, ids = track_people(people, visible, seed=0)
    assert ids[0, 29] != ids[0, 65]


def test_left_right_swaps_do_not_change_ids():
    people = crossing(gap=60.0)
    swap = np.zeros((2, 120), bool)
    swap[0, 20:30] = swap[1, 25:45] = swap[0, 70:71] = True
    _, ids = track_people(people, np.ones((2, 120), bool), seed=3, swap=swap)
    assert [len(names) for names in identities(ids)] == [1, 1]


def test_near_and_far_person_are_told_apart_by_size():
    near, far = walk(800, 2, 60, height=700, top=100), walk(830, 2, 60, height=250, top=330)
    visible = np.ones((2, 60), bool)
    visible[0, 20:35] = False
    visible[1, 25:40] = False
    _, ids = track_people([near, far], visible, seed=4)
    assert identities(ids) == [{ids[0, 0]}, {ids[1, 0]}]


def test_short_and_doubtful_tracks_are_dropped():
    tracker = Tracker(SKELETON, SIZE, FPS)
    person, statue = walk(300, 5, 60), walk(1600, 0, 60)
    for frame in range(60):
        people = [detection(person[frame]), detection(statue[frame], score=0.05)]
        if frame in (30, 31, 32):
            people.append(detection(walk(1000, 0, 1, height=150)[0]))
        tracker.update(people)
    assert [track.id for track in tracker.finish()] == [1]


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_a_very_short_video_keeps_its_person(num_frames):
    tracker = Tracker(SKELETON, SIZE, FPS)
    for pose in walk(300, 5, num_frames):
        tracker.update([detection(pose)])
    assert [len(track.keypoints) for track in tracker.finish()] == [num_frames]


def test_main_person_first_by_area_times_frames():
    small, large, brief = walk(300, 0, 60, 200), walk(900, 0, 60, 500), walk(1500, 0, 60, 700)
    visible = np.ones((3, 60), bool)
    visible[2, 12:] = False
    tracker, ids = track_people([small, large, brief], visible, seed=5)
    assert [track.id for track in tracker.finish()] == [ids[1, 0], ids[2, 0], ids[0, 0]]
    assert [track.id for track in tracker.finish(max_people=1)] == [ids[1, 0]]


def test_parts_outside_the_image_do_not_count_as_visible_area():
    inside, outside = walk(900, 0, 30, 300), walk(0, 0, 30, 320)
    tracker, ids = track_people([outside, inside], np.ones((2, 30), bool), seed=0)
    assert tracker.finish()[0].id == ids[1, 0]


def test_frames_without_anybody():
    tracker = Tracker(SKELETON, SIZE, FPS)
    assert [tracker.update([]) for _ in range(3)] == [[], [], []]
    assert tracker.num_frames == 3 and tracker.finish() == []


def test_unseen_joints_are_no_obstacle():
    tracker = Tracker(SKELETON, SIZE, FPS)
    for frame, pose in enumerate(walk(300, 5, 30)):
        pose[:5] = np.nan
        if frame % 3 == 0:
            pose[11:] = np.nan
        tracker.update([detection(pose)])
    assert [track.id for track in tracker.finish()] == [1]


@settings(max_examples=30, deadline=None)
@given(st.floats(-500, 500), st.floats(0.2, 5), st.floats(0, 0.3))
def test_similarity_minds_relative_distance_only(shift, scale, offset):
    pose, scores = walk(0, 0, 1)[0], np.ones(17)
    moved = pose + np.array([offset * 400, 0])
    plain = pose_similarity(pose, moved, scores)
    assert plain == pytest.approx(pose_similarity(pose * scale + shift, moved * scale + shift, scores), rel=1e-5)
    assert plain == pytest.approx(pose_similarity(moved, pose, scores), rel=1e-9)
    assert 0 <= plain <= 1
    extent = 3.5 * np.sqrt(np.mean(np.sum((pose - pose.mean(0)) ** 2, axis=1)))
    assert plain == pytest.approx(np.exp(-((offset * 400 / (0.12 * extent)) ** 2) / 2), rel=1e-6)


def test_similarity_of_identical_unlike_and_unseen_poses():
    pose, scores = walk(0, 0, 1)[0], np.ones(17)
    assert pose_similarity(pose, pose, scores) == 1.0
    assert pose_similarity(pose, pose.mean(0) + 3 * (pose - pose.mean(0)), scores) < 0.05
    nowhere = np.full_like(pose, np.nan)
    assert pose_similarity(pose, nowhere, scores) == 0.0
    assert pose_similarity(pose, pose, np.zeros(17)) == 0.0


@pytest.mark.parametrize("fps", [0, -1, np.nan, np.inf])
def test_bad_fps(fps):
    with pytest.raises(ValueError, match="fps"):
        Tracker(SKELETON, SIZE, fps)


def test_bad_image_size_and_joint_count():
    with pytest.raises(ValueError, match="image_size"):
        Tracker(SKELETON, (0, 100), FPS)
    tracker = Tracker(SKELETON, SIZE, FPS)
    with pytest.raises(ValueError, match="33 joints.*17"):
        tracker.update([detection(np.zeros((33, 2)) + 5)])
    assert tracker.num_frames == 0
