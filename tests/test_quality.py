"""The quality report: each doubt is made on purpose and must be found where it was made, and nowhere else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from filmed_walker import CAMERA, FPS, film, walk_in_camera

from lifting.anatomy import H36M, bone_lengths
from lifting.cleaning import clean, person_size
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion
from lifting.quality import describe_spans, doubt_frames, find_spans, report_person

FRAMES = 100
TIMES = 2.0 + np.arange(FRAMES) / FPS
SWAPS, MISSES = "left and right change places again and again", "the motion misses the keypoints"


def a_lift(keypoints: Keypoints2D, joints: np.ndarray | None = None, sigma: float | np.ndarray = 0.05):
    """What a perfect lifter makes of the walk's keypoints, or what is to be its answer (T, 17, 3)."""
    pytest.importorskip("torch")
    from lifting.predict import Lifted, reprojection_error

    joints = walk_in_camera(len(keypoints)) if joints is None else joints
    root = joints[:, :1]
    sigma = np.broadcast_to(np.float32(sigma), joints.shape[:2])
    motion = Motion(joints - root, root[:, 0], sigma, H36M, keypoints.fps)
    cleaned = clean(keypoints.to("lift17"))
    return Lifted(motion, cleaned, reprojection_error(cleaned.keypoints, CAMERA, motion), 1.0)


@pytest.fixture
def keypoints():
    return film(walk_in_camera(FRAMES))


def unseen(keypoints: Keypoints2D, frames: slice, joints=slice(None), score: float = 0.0) -> Keypoints2D:
    scores = keypoints.score.copy()
    scores[frames, joints] = score
    return keypoints.replace(score=scores)


def report_on(keypoints: Keypoints2D, **changes) -> dict:
    return report_person(7, keypoints, a_lift(keypoints, **changes), CAMERA, TIMES, first=50)


def spans_of(keypoints: Keypoints2D, **changes) -> list[tuple]:
    return [(span["start"], span["end"], span["reason"]) for span in report_on(keypoints, **changes)["untrusted"]]


# ---- facts


def test_a_perfect_lift_is_not_doubted(keypoints):
    report = report_on(keypoints)
    assert report["untrusted"] == report["warnings"] == [] and report["untrusted_share"] == 0
    assert (report["id"], report["frames"], report["first_frame"], report["last_frame"]) == (7, FRAMES, 50, 149)
    assert report["seen_share"] == report["sure_joints_share"] == report["mean_confidence"] == 1
    assert report["gaps"] == {"count": 0, "frames": 0, "longest_seconds": 0.0}
    assert report["reprojection_error_px"] < 1e-3 and report["median_sigma_m"] == 0.05
    assert report["bone_length_variation"]["median"] < 1e-3
    json.dumps(report, allow_nan=False)


def test_bones_are_measured_before_they_are_made_constant(keypoints):
    joints = walk_in_camera(FRAMES).astype(np.float64)
    knee, ankle = H36M.indices(["left_knee", "left_ankle"])
    factor = 1 + 0.2 * np.sin(np.arange(FRAMES))[:, None]
    joints[:, ankle] = joints[:, knee] + factor * (joints[:, ankle] - joints[:, knee])
    found = report_on(keypoints, joints=joints.astype(np.float32))["bone_length_variation"]
    lengths = np.linalg.norm(joints[:, ankle] - joints[:, knee], axis=-1)
    assert found["bone"] == "left_knee-left_ankle"
    assert found["worst"] == pytest.approx(np.std(lengths) / np.mean(lengths), abs=1e-4)
    everything = bone_lengths(joints)
    assert found["median"] == pytest.approx(np.median(everything.std(0) / everything.mean(0)), abs=1e-4)


def test_bones_that_breathe_are_warned_about(keypoints):
    joints = walk_in_camera(FRAMES)
    root = joints[:, :1]
    joints = root + (joints - root) * np.linspace(0.7, 1.3, FRAMES, dtype=np.float32)[:, None, None]
    assert any("bone lengths vary by 17%" in warning for warning in report_on(keypoints, joints=joints)["warnings"])


def test_gaps_are_counted(keypoints):
    report = report_on(unseen(unseen(keypoints, slice(20, 25)), slice(60, 80)))
    assert report["gaps"] == {"count": 2, "frames": 25, "longest_seconds": 0.8}
    assert report["seen_share"] == 0.75 and report["frames"] == 75


# ---- spans


def test_blind_spans_are_where_nobody_was_seen(keypoints):
    assert spans_of(unseen(keypoints, slice(40, 60))) == [(3.6, 4.4, "not seen: bridged")]


@pytest.mark.parametrize(("limb", "joints"), [("legs", ("knee", "ankle")), ("arms", ("elbow", "wrist"))])
def test_limbs_out_of_view_are_guessed(keypoints, limb, joints):
    columns = [k for k, name in enumerate(keypoints.skeleton.joints) if name.endswith(joints)]
    (span,) = spans_of(unseen(keypoints, slice(50, 75), columns, score=0.1))
    assert span == (4.0, 5.0, f"{limb} hardly seen: guessed")
    one_side = [k for k in columns if keypoints.skeleton.joints[k].startswith("left")]
    assert spans_of(unseen(keypoints, slice(50, 75), one_side)) == []  # as in any view from the side


def test_frames_in_which_the_motion_misses_the_keypoints(keypoints):
    joints = walk_in_camera(FRAMES)
    shift = 0.1 * np.median(person_size(keypoints)) / CAMERA.focal[0] * joints[30:40, :1, 2]  # 10 % of the person
    joints[30:40, :, 0] += shift
    assert spans_of(keypoints, joints=joints) == [(3.2, 3.6, MISSES)]
    joints[30:40, :, 0] -= 0.7 * shift  # 3 %
    assert spans_of(keypoints, joints=joints) == []


def test_frames_of_which_the_lifter_is_unsure(keypoints):
    sigma = np.full((FRAMES, 17), 0.05)
    sigma[10:35] = 0.3
    assert spans_of(keypoints, sigma=sigma) == [(2.4, 3.4, "the lifter is unsure")]


def test_sides_that_are_exchanged_again_and_again(keypoints):
    flipped = keypoints.xy[:, list(keypoints.skeleton.flip)]

    def exchanged(*frames: slice) -> Keypoints2D:
        xy = keypoints.xy.copy()
        for chosen in frames:
            xy[chosen] = flipped[chosen]
        return keypoints.replace(xy=xy)

    assert spans_of(exchanged(slice(40, 48))) == []  # once there and back, and repaired
    lift = a_lift(exchanged(slice(40, 44), slice(48, 52)))
    np.testing.assert_array_equal(np.flatnonzero(np.diff(lift.cleaned.swapped)), [39, 43, 47, 51])
    np.testing.assert_array_equal(np.flatnonzero(doubt_frames(lift, CAMERA)[SWAPS]), np.arange(39, 53))


def test_spans_merge_over_short_pauses_and_short_ones_are_no_news(keypoints):
    flickering = unseen(unseen(keypoints, slice(40, 50)), slice(56, 66))  # 0.24 s between them
    assert spans_of(flickering) == [(3.6, 4.64, "not seen: bridged")]
    assert spans_of(unseen(unseen(keypoints, slice(40, 50)), slice(60, 70))) == [
        (3.6, 4.0, "not seen: bridged"), (4.4, 4.8, "not seen: bridged")]  # fmt: skip
    assert spans_of(unseen(keypoints, slice(40, 42))) == []


def test_spans_of_a_single_frame():
    keypoints = film(walk_in_camera(1))
    report = report_person(1, keypoints, a_lift(keypoints, sigma=0.5), CAMERA, np.zeros(1))
    assert report["untrusted"] == [{"start": 0.0, "end": 0.04, "reason": "the lifter is unsure"}]
    assert report["untrusted_share"] == 1 and report["bone_length_variation"]["median"] == 0


def test_spans_follow_uneven_times():
    mask, times = np.array([False, True, True, False]), np.array([0.0, 0.5, 0.7, 2.0])
    assert find_spans({"why": mask}, times, 10) == [{"start": 0.5, "end": 0.8, "reason": "why"}]


def test_spans_in_words_are_the_longest_in_order_of_time():
    spans = [{"start": s, "end": e, "reason": r} for s, e, r in ((0, 1, "a"), (2, 2.5, "b"), (3, 6, "c"), (7, 9, "d"))]
    assert describe_spans({"untrusted": spans}, most=2) == "3.00-6.00 s (c), 7.00-9.00 s (d), and 2 more"
    assert describe_spans({"untrusted": spans[:1]}) == "0.00-1.00 s (a)"
    assert describe_spans({"untrusted": []}) == describe_spans({}) == ""
