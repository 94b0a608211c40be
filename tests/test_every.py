"""Detecting every K-th frame: which frames the detector gets, identities, and the keypoints in between."""

from __future__ import annotations

import numpy as np
import pytest
from filmed_walker import FPS, SIZE, filmed, write_video

from lifting.evidence import detect_people
from lifting.keypoints import Detection, Keypoints2D
from lifting.pipeline import run_video
from lifting.skeletons import get_skeleton
from lifting.tracks import Tracker, interpolate_skipped

COCO = get_skeleton("coco17")


class Recorder:
    """Sees the filmed person of each frame it is given, whichever that is by `frames`, and counts them."""

    name, skeleton = "recorder", COCO

    def __init__(self, keypoints, frames):
        self.keypoints, self.frames, self.given = keypoints, frames, 0

    def detect(self, frames):
        for _ in frames:
            at = self.frames[self.given]
            self.given += 1
            yield [Detection(self.keypoints.xy[at], self.keypoints.score[at])]


def walking(frames):
    return filmed(frames).to("coco17")


def sparse(every, frames=31):
    """Keypoints known at every K-th frame and the last, of points on parabolas."""
    time = np.arange(frames)[:, None, None]
    xy = 200 + np.linspace(-3, 3, 17)[None, :, None] * time + 0.05 * time**2 * np.ones((1, 17, 2))
    score = np.full((frames, 17), 0.9)
    score[1:, 3] = 0.4
    known = np.unique(np.append(np.arange(0, frames, every), frames - 1))
    masked = np.zeros_like(score)
    masked[known] = score[known]
    full = Keypoints2D(xy, score, COCO, (1920, 1080), 30.0)
    return full, full.replace(score=masked), known


@pytest.mark.parametrize("every", [2, 3, 7])
def test_in_between_lie_the_points_of_the_motion(every):
    full, masked, known = sparse(every)
    filled = interpolate_skipped(masked, every)
    np.testing.assert_array_equal(filled.xy[known], full.xy[known])
    assert filled.seen.all()
    assert np.abs(filled.xy - full.xy).max() < 0.05 * every**2
    np.testing.assert_allclose(filled.score[1:, 3], 0.4)
    np.testing.assert_allclose(filled.score[1 : known[1], 0], 0.9, rtol=1e-6)


def test_real_gaps_stay_gaps():
    _, masked, known = sparse(3)
    score = masked.score.copy()
    score[6, 5] = 0  # missed in one detection
    score[:, 8] = 0
    score[known[1:], 9] = 0  # seen once
    filled = interpolate_skipped(masked.replace(score=score), 3)
    np.testing.assert_array_equal(np.flatnonzero(~filled.seen[:, 5]), np.arange(4, 9))
    assert not filled.seen[:, 8].any() and filled.seen[:, 9].sum() == 1
    assert filled.seen[:, [0, 1, 2]].all()


def test_interpolation_does_not_overshoot():
    xy = np.zeros((13, 17, 2))
    xy[6:] = 100
    score = np.zeros((13, 17))
    score[::3] = 1
    filled = interpolate_skipped(Keypoints2D(xy, score, COCO, (640, 480), 30.0), 3)
    assert filled.xy.min() >= 0 and filled.xy.max() <= 100 and (np.diff(filled.xy, axis=0) >= 0).all()


def test_every_frame_is_left_alone():
    full, *_ = sparse(1)
    assert interpolate_skipped(full, 1) is full


@pytest.mark.parametrize(("frames", "every", "expected"), [(10, 3, [0, 3, 6, 9]), (12, 5, [0, 5, 10, 11]),
                                                           (4, 1, [0, 1, 2, 3]), (3, 9, [0, 2])])  # fmt: skip
def test_the_detector_gets_each_kth_frame_and_the_last(tmp_path, frames, every, expected):
    keypoints = walking(frames)
    detector = Recorder(keypoints, expected)
    evidence = detect_people(write_video(tmp_path / "clip.mp4", frames), detector, every=every)
    ((_, found),) = evidence.people
    assert detector.given == len(expected) and len(found) == len(evidence.times) == frames
    np.testing.assert_allclose(found.xy[expected], keypoints.xy[expected], atol=1e-4)
    assert found.seen.any(1).all()
    assert any("interpolated" in sentence for sentence in evidence.assumed) is (every > 1)


def test_identities_hold_over_skipped_frames():
    every, tracker = 5, Tracker(COCO, (1920, 1080), 30.0, every=5)
    body = np.random.default_rng(0).uniform(0, 300, (17, 2))
    for turn in range(12):  # two people pass each other
        ahead = [body + [100 + 12 * every * turn, 200], body + [1500 - 12 * every * turn, 500]]
        numbers = tracker.update([Detection(xy, np.full(17, 0.9)) for xy in ahead])
        assert numbers == [1, 2]
    assert tracker.num_frames == 56 and [len(track.keypoints) for track in tracker.finish()] == [56, 56]


def test_tracks_of_a_fifth_of_a_second_count_by_time():
    tracker = Tracker(COCO, (1920, 1080), 30.0, every=3)
    body = np.random.default_rng(0).uniform(0, 300, (17, 2))
    for turn in range(20):
        tracker.update([Detection(body + 3 * turn, np.full(17, 0.9))] if turn in (4, 5) else [])
    assert len(tracker.finish()) == 1  # two detections stand for six frames


def test_bad_numbers():
    with pytest.raises(ValueError, match="every is 0"):
        Tracker(COCO, (10, 10), 30.0, every=0)
    tracker = Tracker(COCO, (10, 10), 30.0)
    tracker.update([], frame=4)
    with pytest.raises(ValueError, match="got frame 4 after frame 4"):
        tracker.update([], frame=4)
    with pytest.raises(ValueError, match="every=0"):
        detect_people("nothing.mp4", every=0)
    with pytest.raises(ValueError, match="--every 2 with keypoints"):
        run_video(keypoints="nothing.npz", every=2)


def test_a_whole_run_lifts_all_frames(tmp_path, tiny_lifter):
    video = write_video(tmp_path / "clip.mp4", 40)
    detector = Recorder(walking(40), [*range(0, 40, 4), 39])
    take = run_video(video, detector=detector, lifter=tiny_lifter, every=4)
    assert len(take) == 40 and np.isfinite(take.people[0].motion.joints).all()
    assert take.fps == pytest.approx(FPS) and take.image_size == SIZE
    assert any("every 4. frame" in sentence for sentence in take.assumed)
