"""Keypoints2D and Detection: what they accept, what they make of it; the guess of an unlabelled column order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lifting.keypoints import Detection, Keypoints2D, equal_values, guess_order
from lifting.skeletons import SkeletonMismatch, get_skeleton

SIZE = (640, 480)


def coco(frames: int = 4, seed: int = 0, **changes) -> Keypoints2D:
    rng = np.random.default_rng(seed)
    fields = {"xy": rng.uniform(0, 480, (frames, 17, 2)), "score": rng.uniform(0.1, 1, (frames, 17)),
              "skeleton": "coco17", "image_size": SIZE, "fps": 50}
    return Keypoints2D(**{**fields, **changes})


def test_fields_are_converted():
    keypoints = coco(image_size=[640, 480.0], fps=np.float32(25))
    assert keypoints.xy.dtype == keypoints.score.dtype == np.float32
    assert keypoints.skeleton is get_skeleton("coco17")
    assert keypoints.image_size == SIZE
    assert keypoints.fps == 25
    assert len(keypoints) == keypoints.num_frames == 4


def test_whole_pixels_are_accepted():
    assert coco(xy=np.arange(34).reshape(1, 17, 2), score=None).xy[0, 1].tolist() == [2, 3]


def test_not_seen_is_nan_and_zero_alike():
    xy, score = np.ones((3, 17, 2)), np.full((3, 17), 0.5)
    xy[0, 1, 0] = np.nan
    score[1, 2] = 0
    score[2, 3] = np.nan
    keypoints = coco(xy=xy, score=score)
    unseen = np.zeros((3, 17), bool)
    unseen[[0, 1, 2], [1, 2, 3]] = True
    np.testing.assert_array_equal(keypoints.seen, ~unseen)
    np.testing.assert_array_equal(np.isnan(keypoints.xy).all(axis=-1), unseen)
    np.testing.assert_array_equal(keypoints.score, np.where(unseen, 0, 0.5))
    assert not np.isnan(xy[1]).any()  # the caller's array stays as it was


def test_no_score_means_one_where_seen():
    xy = np.ones((2, 17, 2))
    xy[1, 5] = np.nan
    score = coco(xy=xy, score=None).score
    assert score[1, 5] == 0
    assert score.sum() == 33


@pytest.mark.parametrize(("changes", "message"), [
    ({"xy": np.ones((4, 16, 2)), "score": None}, "got 16 joints, but skeleton 'coco17' has 17"),
    ({"xy": np.ones((17, 2))}, r"shape \(any, any, 2\), got \(17, 2\)"),
    ({"xy": np.ones((4, 17, 3))}, "xy must have the shape"),
    ({"xy": np.ones((0, 17, 2)), "score": None}, "0 frames"),
    ({"xy": np.full((4, 17, 2), np.inf)}, "infinite"),
    ({"xy": np.full((4, 17, 2), 1e300)}, "too large"),
    ({"xy": "keypoints"}, "array of real numbers"),
    ({"xy": [[[1, 2], [3]]]}, "array of real numbers"),
    ({"xy": np.full((4, 17, 2), None)}, "array of real numbers"),
    ({"xy": np.ones((4, 17, 2), complex)}, "array of real numbers"),
    ({"score": np.ones((3, 17))}, r"score must have the shape \(4, 17\), got \(3, 17\)"),
    ({"score": np.full((4, 17), 80.0)}, "must lie in 0..1, got 80..80"),
    ({"score": np.full((4, 17), -0.5)}, "must lie in 0..1"),
    ({"skeleton": "coco99"}, "unknown skeleton 'coco99'"),
    *[({"fps": fps}, "fps must be a positive number") for fps in (0, -1, math.nan, math.inf, "50", None, True)],
    *[({"image_size": size}, r"image_size must be \(width, height\)")
      for size in ((0, 480), (640, -1), (640,), 640, None, (640.5, 480), (math.nan, 480), (math.inf, 1), "ab", (1,))],
])
def test_bad_input_is_refused_in_a_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        coco(**changes)


def test_mapped_scores_are_the_lowest_and_unseen_parts_hide_the_whole():
    xy, score = np.zeros((2, 17, 2)), np.full((2, 17), 0.9)
    index = get_skeleton("coco17").index
    xy[:, index("left_hip")], xy[:, index("right_hip")] = [10, 20], [30, 40]
    score[:, index("left_hip")] = 0.4
    xy[1, index("right_hip")] = np.nan
    mapped = coco(xy=xy, score=score).to("h36m17")
    assert mapped.skeleton.name == "h36m17"
    assert mapped.xy[0, 0].tolist() == [20, 30]
    assert mapped.score[0, 0] == np.float32(0.4)
    assert np.isnan(mapped.xy[1, 0]).all()
    assert mapped.score[1, 0] == 0
    assert mapped.score[1, get_skeleton("h36m17").index("thorax")] == np.float32(0.9)


def test_absent_joints_are_unseen_after_mapping():
    mapped = coco().to("lift17")
    assert mapped.seen[:, :13].all()
    assert not mapped.seen[:, 13:].any()
    assert coco().to("COCO-17") == coco()
    with pytest.raises(SkeletonMismatch, match="left_big_toe"):
        coco().to("halpe26")


def test_flipping_mirrors_the_image():
    keypoints = coco()
    flipped = keypoints.flipped()
    left, right = get_skeleton("coco17").indices(["left_wrist", "right_wrist"])
    np.testing.assert_allclose(flipped.xy[:, left, 0], 640 - keypoints.xy[:, right, 0], rtol=1e-5)
    np.testing.assert_allclose(flipped.xy[:, left, 1], keypoints.xy[:, right, 1])
    np.testing.assert_array_equal(flipped.score[:, left], keypoints.score[:, right])
    np.testing.assert_allclose(flipped.flipped().xy, keypoints.xy, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (2, 17, 2), elements=st.floats(0, 640, width=32) | st.just(math.nan)))
def test_mapping_commutes_with_mirroring(xy):
    keypoints = coco(xy=xy, score=None)
    first, second = keypoints.flipped().to("h36m17"), keypoints.to("h36m17").flipped()
    np.testing.assert_allclose(first.xy, second.xy, atol=1e-2)
    np.testing.assert_array_equal(first.score, second.score)


def test_slices_and_copies():
    keypoints = coco(10)
    part = keypoints.slice(2, 5)
    np.testing.assert_array_equal(part.xy, keypoints.xy[2:5])
    assert len(keypoints.slice(-3)) == 3
    assert keypoints.replace(fps=30).fps == 30
    with pytest.raises(ValueError, match="0 frames"):
        keypoints.slice(7, 7)
    with pytest.raises(ValueError, match="fps"):
        keypoints.replace(fps=0)


def test_equality_looks_into_the_arrays():
    xy = coco().xy.copy()
    xy[0, 0] = np.nan
    assert coco(xy=xy) == coco(xy=xy.copy())
    assert coco(xy=xy) != coco()
    assert coco() != coco(fps=25)
    assert coco() != "coco"
    assert not equal_values({"a": [1]}, {"a": [2]})
    assert not equal_values([1], [1, 2])


def test_detections():
    xy = np.array([[1, 5], [3, 2], [np.nan, np.nan]])
    detection = Detection(xy, [0.5, 1.0, 0.7])
    assert detection.box == (1, 2, 3, 5)
    assert detection.mean_score == 0.75
    assert detection.seen.tolist() == [True, True, False]
    assert detection == Detection(xy, [0.5, 1.0, 0])
    nobody = Detection(np.full((3, 2), np.nan), None)
    assert all(map(math.isnan, nobody.box))
    assert nobody.mean_score == 0
    with pytest.raises(ValueError, match="score must have the shape"):
        Detection(xy, [1.0])


# ---- the order of 17 columns

# A standing person, centimetres: right, up, forward.
BODY = {
    "hip": (0, 95, 0), "spine": (0, 120, 0), "thorax": (0, 145, 0), "neck_nose": (0, 160, 8), "head": (0, 178, 2),
    "nose": (0, 162, 11), "eye": (3, 166, 9), "ear": (7, 164, 0), "shoulder": (17, 143, 0), "elbow": (24, 116, -3),
    "wrist": (27, 92, 6), "hip_joint": (11, 94, 0), "knee": (12, 52, 4), "ankle": (12, 9, 0),
}  # fmt: skip


def walk(order: str, frames: int, turn: float, seed: int = 0) -> np.ndarray:
    """(T, 17, 2) pixels of a person who walks past and turns, in the order of that skeleton."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames) / 25
    angle = turn + 0.4 * time
    columns = []
    for joint in get_skeleton(order).joints:
        side = 1 if joint.startswith("right_") else -1 if joint.startswith("left_") else 0
        part = joint.partition("_")[2] if side else joint
        x, up, forward = BODY["hip_joint" if part == "hip" and side else part]
        swing = {"knee": 12, "ankle": 25, "elbow": -10, "wrist": -22}.get(part, 0) * side * np.sin(6 * time)
        across = (x * side or x) * np.cos(angle) + (forward + swing) * np.sin(angle)
        columns.append(np.stack([300 + 60 * time + 1.5 * across, 400 - 1.5 * up + 0 * time], -1))
    return np.stack(columns, axis=1) + rng.normal(0, 2, (frames, 17, 2))


@pytest.mark.parametrize("order", ["coco17", "h36m17"])
@pytest.mark.parametrize("turn", [0, 0.8, 1.5, 3.0])
@pytest.mark.parametrize("frames", [10, 100])
def test_the_order_is_recognised(order, turn, frames):
    guess = guess_order(walk(order, frames, turn))
    assert guess.skeleton == order
    assert min(guess.costs, key=guess.costs.get) == order


@pytest.mark.parametrize("order", ["coco17", "h36m17"])
def test_the_order_is_recognised_through_gaps_and_outliers(order):
    xy = walk(order, 80, 0.5)
    rng = np.random.default_rng(3)
    xy[rng.random((80, 17)) < 0.2] = np.nan
    xy[rng.random((80, 17)) < 0.03] = 0
    xy[20:30] = np.nan
    score = (rng.random((80, 17)) > 0.1).astype(float)
    assert guess_order(xy, score).skeleton == order
    assert guess_order(xy * 10, score).costs == pytest.approx(guess_order(xy, score).costs, rel=1e-3)


@pytest.mark.parametrize("xy", [
    np.full((5, 17, 2), np.nan), np.zeros((5, 17, 2)), np.random.default_rng(0).normal(size=(50, 17, 2)),
])
def test_no_order_is_claimed_without_evidence(xy):
    assert guess_order(xy).skeleton is None


def test_only_seventeen_columns_can_be_told_apart():
    with pytest.raises(ValueError, match=r"\(any, 17, 2\)"):
        guess_order(np.ones((5, 16, 2)))
