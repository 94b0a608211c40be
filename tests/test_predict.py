"""Lifting keypoints: invariances, any rate and length, gaps, assumptions, wrong input; weights are random and tiny."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from filmed_walker import CAMERA, FPS, RATE, SIZE, film, filmed, walk_in_camera, write_tiny_weights

from lifting import predict as predict_module
from lifting.anatomy import bone_lengths, stature
from lifting.cameras import Camera
from lifting.keypoint_arrays import keypoints_from_array
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion
from lifting.predict import AssumptionWarning, Lifter, bridge_blind_spans, predict
from lifting.skeletons import LAYOUTS_OF_COUNT, SkeletonMismatch, get_skeleton

H36M = get_skeleton("h36m17")
KNOWN = dict(fps=RATE, image_size=SIZE, skeleton="coco17", camera=CAMERA)  # nothing is left to assume


def assert_close(motion: Motion, other: Motion, tolerance: float = 1e-5) -> None:
    for name in ("joints", "trajectory", "sigma"):
        np.testing.assert_allclose(getattr(motion, name), getattr(other, name), atol=tolerance, err_msg=name)


def assert_complete(motion: Motion, frames: int, fps: float) -> None:
    assert motion.joints.shape == (frames, 17, 3) and motion.trajectory.shape == (frames, 3)
    assert motion.sigma.shape == (frames, 17)
    assert motion.skeleton is H36M and motion.frame == "camera" and motion.fps == fps
    assert all(np.isfinite(part).all() for part in (motion.joints, motion.trajectory, motion.sigma))
    assert (motion.joints[:, 0] == 0).all() and (motion.sigma > 0).all() and (motion.trajectory[:, 2] > 0).all()


# ---- invariances


@pytest.mark.parametrize("chunk", [11, 59])
def test_chunks_do_not_show(tiny_lifter, monkeypatch, chunk):
    keypoints = filmed(60, fps=RATE)
    whole = tiny_lifter.predict(keypoints, CAMERA)
    monkeypatch.setattr(predict_module, "CHUNK", chunk)
    assert_close(tiny_lifter.predict(keypoints, CAMERA), whole, 1e-4)


@pytest.mark.parametrize("fps", [RATE, FPS])
@pytest.mark.parametrize("refine", [True, False])
def test_the_mirrored_input_gives_the_mirrored_motion(tiny_lifter, fps, refine):
    keypoints = filmed(40, fps=fps)
    keypoints = keypoints.replace(xy=np.round(keypoints.xy * 8) / 8)  # mirrored without rounding errors
    mirror, order = np.float32([-1, 1, 1]), list(H36M.flip)
    motion = tiny_lifter.predict(keypoints, CAMERA, refine=refine)
    flipped = tiny_lifter.predict(keypoints.flipped(), CAMERA, refine=refine)
    expected = motion.replace(joints=motion.joints[:, order] * mirror, trajectory=motion.trajectory * mirror,
                              sigma=motion.sigma[:, order])
    assert np.abs(motion.joints - expected.joints).max() > 1e-3  # the walk itself is not symmetrical
    assert_close(flipped, expected, 2e-5)


def test_without_flip_the_network_runs_once(tiny_lifter):
    keypoints = filmed(20, fps=RATE)
    both, once = (tiny_lifter.predict(keypoints, CAMERA, flip=flip, refine=False) for flip in (True, False))
    mirrored = tiny_lifter.predict(keypoints.flipped(), CAMERA, flip=False, refine=False)
    back = mirrored.joints[:, list(H36M.flip)] * np.float32([-1, 1, 1])
    np.testing.assert_allclose(both.joints, (once.joints + back) / 2, atol=1e-5)


def test_the_image_scale_does_not_matter(tiny_lifter):
    keypoints = filmed(20)
    large = keypoints.replace(xy=keypoints.xy * 3, image_size=(1920, 1440))
    motion = tiny_lifter.predict(keypoints, CAMERA)
    assert_close(tiny_lifter.predict(large, CAMERA.scaled(3)), motion)
    assert_close(tiny_lifter.predict(large, CAMERA), motion)  # a camera of the same picture, resized
    with pytest.raises(ValueError, match="640x480.*1920x1080.*same aspect"):
        tiny_lifter.predict(keypoints.replace(image_size=(1920, 1080)), CAMERA)


def test_the_lens_is_undone(tiny_lifter):
    bent = Camera([600, 620], [330, 235], SIZE, [-0.2, 0.05, 0.001, 0.001, 0])
    joints = walk_in_camera(20)
    keypoints = film(joints, camera=bent)
    assert_close(tiny_lifter.predict(keypoints, bent), tiny_lifter.predict(film(joints), CAMERA), 1e-3)


def test_the_height_fixes_the_scale_and_nothing_else(tiny_lifter):
    keypoints = filmed(20, fps=RATE)
    plain, scaled = tiny_lifter.lift(keypoints, CAMERA), tiny_lifter.lift(keypoints, CAMERA, height=1.83)
    assert stature(scaled.motion.joints) == pytest.approx(1.83, rel=1e-5)
    assert plain.scale == 1 and scaled.scale == pytest.approx(1.83 / stature(plain.motion.joints), rel=1e-5)
    for name in ("joints", "trajectory", "sigma"):
        expected = getattr(plain.motion, name) * scaled.scale
        np.testing.assert_allclose(getattr(scaled.motion, name), expected, rtol=1e-4, atol=1e-6)
    assert scaled.reprojection_px == pytest.approx(plain.reprojection_px, rel=1e-3)


@pytest.mark.parametrize("height", [0.0, -1.8, 180, float("nan"), float("inf")])
def test_a_height_that_nobody_has(tiny_lifter, height):
    with pytest.raises(ValueError, match="height of .* m, expected between 0.3 and 3"):
        tiny_lifter.predict(filmed(3), CAMERA, height=height)


# ---- any rate and length


@pytest.mark.parametrize("fps", [1, 10, 23.976, 25, 30, 50, 59.94, 120, 240])
@pytest.mark.parametrize("frames", [1, 2, 3, 31])
def test_any_rate_and_length(tiny_lifter, fps, frames):
    assert_complete(tiny_lifter.predict(filmed(frames, fps=fps), CAMERA), frames, fps)


def test_at_its_own_rate_the_network_is_not_resampled(tiny_lifter):
    keypoints = filmed(30, fps=RATE)
    points = keypoints.to("lift17")
    rays = CAMERA.rays(points.xy).astype(np.float32)
    joints, root, sigma = tiny_lifter.run(rays, points.score)
    assert_close(tiny_lifter.predict(keypoints, CAMERA, refine=False), Motion(joints, root, sigma, H36M, RATE), 1e-6)


def test_frames_stay_in_step_at_another_rate(tiny_lifter):
    """The same walk filmed at half the rate comes out the same at the instants that both have."""
    fine, coarse = (tiny_lifter.predict(filmed(frames, fps=fps), CAMERA) for frames, fps in ((81, 50), (41, 25)))
    np.testing.assert_allclose(coarse.joints[3:-3], fine.joints[::2][3:-3], atol=0.02)
    np.testing.assert_allclose(coarse.trajectory[3:-3], fine.trajectory[::2][3:-3], atol=0.05)


# ---- gaps


@pytest.mark.parametrize("gap", [slice(0, 40), slice(30, 75), slice(70, 100)])
@pytest.mark.parametrize("fps", [RATE, FPS])
def test_gaps_are_bridged(tiny_lifter, gap, fps):
    keypoints = filmed(100, fps=fps)
    xy = keypoints.xy.copy()
    xy[gap] = np.nan
    motion = tiny_lifter.predict(keypoints.replace(xy=xy), CAMERA)
    assert_complete(motion, 100, fps)
    ends = [frame for frame in (gap.start - 1, gap.stop) if 0 <= frame < 100]
    sigma = motion.sigma.mean(1)
    deepest = {0: 0, 30: 52, 70: 99}[gap.start]
    assert sigma[deepest] > 2 * max(sigma[end] for end in ends)
    if fps == RATE:  # at another one, the ends of the gap lie between the frames
        lengths = bone_lengths(motion.joints)
        low, high = lengths[ends].min(0), lengths[ends].max(0)
        assert (lengths[gap] >= low - 1e-4).all() and (lengths[gap] <= high + 1e-4).all()
    assert np.linalg.norm(np.diff(motion.trajectory, axis=0), axis=-1).max() * fps < 4


def test_short_gaps_are_left_to_the_network_and_single_frames_stand():
    joints, root = np.random.default_rng(0).normal(size=(2, 60, 17, 3)).astype(np.float32)
    root, sigma, scores = root[:, 0], np.full((60, 17), 0.05, np.float32), np.ones((60, 17), np.float32)
    scores[5:9] = scores[20:40] = 0
    scores[30, :2] = 1  # two joints are no person
    bridged, path, grown = bridge_blind_spans(joints, root, sigma, scores, 50.0)
    outside = np.r_[0:20, 40:60]
    np.testing.assert_array_equal(bridged[outside], joints[outside])
    np.testing.assert_array_equal(path[outside], root[outside])
    np.testing.assert_allclose(path[20:40], np.linspace(root[19], root[40], 22)[1:-1], atol=1e-5)
    away = np.minimum(np.arange(20) + 1, 20 - np.arange(20)) / 50
    np.testing.assert_allclose(grown[20:40, 4], 0.05 + 0.4 * away, rtol=1e-5)
    np.testing.assert_array_equal(grown[np.r_[0:5, 9:20, 40:60]], sigma[np.r_[0:5, 9:20, 40:60]])


def test_sigma_grows_to_a_limit():
    joints, root, sigma = np.ones((500, 17, 3)), np.ones((500, 3)), np.full((500, 17), 0.1)
    scores = np.zeros((500, 17))
    scores[:10] = 1
    _, _, grown = bridge_blind_spans(joints, root, sigma, scores, 50.0)
    assert (np.diff(grown[:, 3]) >= 0).all()
    assert grown[-1, 3] == pytest.approx(predict_module.SIGMA_LIMIT)


@pytest.mark.parametrize("missing", [["left_ankle"], ["nose", "left_wrist", "right_wrist"], ["left_hip", "right_hip"]])
def test_joints_never_seen(tiny_lifter, missing):
    keypoints = filmed(20)
    score = keypoints.score.copy()
    score[:, keypoints.skeleton.indices(missing)] = 0
    assert_complete(tiny_lifter.predict(keypoints.replace(score=score), CAMERA), 20, FPS)


def test_scattered_dropouts_and_low_scores(tiny_lifter):
    rng = np.random.default_rng(3)
    keypoints = filmed(60)
    score = rng.uniform(0.01, 1, keypoints.score.shape) * (rng.random(keypoints.score.shape) < 0.3)
    assert_complete(tiny_lifter.predict(keypoints.replace(score=score), CAMERA), 60, FPS)


def test_one_joint_in_one_frame_is_enough_to_be_finite(tiny_lifter):
    xy = np.full((30, 17, 2), np.nan)
    xy[12, 9] = 300, 200
    assert_complete(tiny_lifter.predict(Keypoints2D(xy, None, "coco17", SIZE, FPS), CAMERA), 30, FPS)


# ---- repairs


def test_swapped_sides_are_repaired_and_reported(tiny_lifter):
    keypoints = filmed(60)
    xy = keypoints.xy.copy()
    xy[20:26] = xy[20:26, list(keypoints.skeleton.flip)]
    swapped = keypoints.replace(xy=xy)
    lifted = tiny_lifter.lift(swapped, CAMERA)
    np.testing.assert_array_equal(np.flatnonzero(lifted.cleaned.swapped), np.arange(20, 26))
    # the pairs of the face are no part of the lifter's input, the others are all exchanged back
    assert_close(lifted.motion, tiny_lifter.predict(keypoints, CAMERA))
    raw = tiny_lifter.lift(swapped, CAMERA, repair=False)
    assert not raw.cleaned.swapped.any() and not raw.cleaned.outliers.any() and not raw.cleaned.gaps.any()
    assert np.abs(raw.motion.joints - lifted.motion.joints).max() > 1e-3


def test_the_trajectory_follows_the_image(tiny_lifter, monkeypatch):
    truth = walk_in_camera(40, RATE)
    root = truth[:, 0]
    poses = truth - root[:, None], root * 1.1 + np.float32([0.05, 0, 0]), np.full((40, 17), 0.05, np.float32)
    monkeypatch.setattr(tiny_lifter, "run", lambda *_: poses)  # a good pose network, a poor root
    refined, bare = (tiny_lifter.lift(film(truth, fps=RATE), CAMERA, refine=refine) for refine in (True, False))
    assert bare.reprojection_px > 5 and refined.reprojection_px < 1
    np.testing.assert_allclose(refined.motion.trajectory, root, atol=0.06)
    np.testing.assert_allclose(refined.motion.joints, bare.motion.joints, atol=3e-3)  # they were right already


# ---- arrays and what is assumed


def test_a_complete_call_assumes_nothing(tiny_lifter):
    keypoints = filmed(20, fps=RATE)
    motion = predict(keypoints.xy, **KNOWN, lifter=tiny_lifter)
    assert_close(motion, tiny_lifter.predict(keypoints, CAMERA), 0)
    assert_close(predict(keypoints, camera=CAMERA, lifter=tiny_lifter), motion, 0)


def test_what_is_missing_is_assumed_and_announced(tiny_lifter):
    with pytest.warns(AssumptionWarning) as caught:
        motion = predict(filmed(10).xy, lifter=tiny_lifter)
    assert_complete(motion, 10, 30.0)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 3 and all("assumed" in sentence and "\n" not in sentence for sentence in said)
    assert "30 frames per second" in said[0] and "no image size given" in said[1] and "Focal length" in said[2]
    assert {warning.filename for warning in caught} == {__file__}  # the line to change is the caller's
    with pytest.warns(AssumptionWarning, match="Focal length 800 px assumed") as caught:
        tiny_lifter.lift(filmed(3))
    assert caught[0].filename == __file__


def test_the_assumed_size_holds_all_points(tiny_lifter):
    xy = filmed(10).xy
    with pytest.warns(AssumptionWarning, match="no image size given"):
        keypoints = keypoints_from_array(xy, 25, None, "coco17")
    low, high = np.nanmin(xy, (0, 1)), np.nanmax(xy, (0, 1))
    np.testing.assert_allclose(keypoints.image_size, low + high, atol=1)  # as much room on either side
    assert keypoints_from_array(xy, 25, None, "coco17", CAMERA).image_size == SIZE


def test_one_frame_without_the_time_axis(tiny_lifter):
    xy = filmed(1).xy
    assert_close(predict(xy[0], **KNOWN, lifter=tiny_lifter), predict(xy, **KNOWN, lifter=tiny_lifter), 0)


def test_confidences_count(tiny_lifter):
    keypoints = filmed(10)
    score = np.full((10, 17), 0.7, np.float32)
    score[:, 9] = 0
    motion = predict(np.dstack([keypoints.xy, score[..., None]]), **KNOWN, lifter=tiny_lifter)
    hidden = Keypoints2D(keypoints.xy, score, "coco17", SIZE, RATE)
    assert_close(motion, tiny_lifter.predict(hidden, CAMERA), 0)
    assert np.abs(motion.joints - predict(keypoints.xy, **KNOWN, lifter=tiny_lifter).joints).max() > 1e-4


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint16, np.float16, np.float64])
def test_number_types(tiny_lifter, dtype):
    xy = np.round(filmed(5).xy)
    expected = predict(xy, **KNOWN, lifter=tiny_lifter)
    assert_close(predict(xy.astype(dtype), **KNOWN, lifter=tiny_lifter), expected, 0)
    assert_close(predict(xy.astype(dtype).tolist(), **KNOWN, lifter=tiny_lifter), expected, 0)


@pytest.mark.parametrize(("count", "layouts"), sorted(LAYOUTS_OF_COUNT.items()))
def test_the_number_of_columns_tells_the_layout(tiny_lifter, count, layouts):
    keypoints = filmed(6, layouts[0])
    hands_and_face = np.full((6, count - keypoints.skeleton.num_joints, 2), 7.0, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)  # h36m17's order is the next test's
        xy = np.concatenate([keypoints.xy, hands_and_face], axis=1)
        motion = predict(xy, fps=FPS, image_size=SIZE, camera=CAMERA, lifter=tiny_lifter)
    assert_complete(motion, 6, FPS)
    assert_close(motion, tiny_lifter.predict(keypoints, CAMERA), 0)


def test_columns_in_another_order_are_noticed(tiny_lifter):
    given = dict(fps=FPS, image_size=SIZE, camera=CAMERA, lifter=tiny_lifter)
    h36m = filmed(10, "h36m17").xy
    with pytest.warns(AssumptionWarning, match="read as coco17, but h36m17's order fits better; pass skeleton="):
        predict(h36m, **given)
    predict(h36m, skeleton="h36m17", **given)
    with pytest.warns(AssumptionWarning, match="read as h36m17, but coco17's order"):
        predict(filmed(10).xy, skeleton="h36m17", **given)


# ---- wrong input


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((5, 17)), r"shape \(1, 5, 17\), expected \(T, J, 2\)"),
        (np.zeros((5, 17, 4)), r"shape \(5, 17, 4\)"),
        (np.zeros((1, 5, 17, 2)), r"shape \(1, 5, 17, 2\)"),
        (np.zeros(34), r"shape \(34,\)"),
        (np.zeros((0, 17, 2)), r"shape \(0, 17, 2\), expected .* T of at least 1"),
        (np.zeros((5, 19, 2)), "19 joints, which is no known layout .*17 .coco17.*pass skeleton="),
        (np.full((5, 17, 2), "300"), "type <U3, expected real numbers"),
        (np.full((5, 17, 2), None), "type object"),
        (np.ones((5, 17, 2), complex), "type complex128"),
        (np.ones((5, 17, 2), bool), "type bool"),
        ([[[1, 2]] * 17, [[1, 2]] * 16], "rows of unequal length"),
        (np.full((5, 17, 2), np.inf), "finite or NaN"),
        (np.full((5, 17, 2), 1e300), "finite or NaN"),
        (np.full((5, 17, 3), 300.0), "scores must lie in 0..1"),
        (np.dstack([np.ones((5, 17, 2)), -np.ones((5, 17, 1))]), "scores must lie in 0..1"),
        (np.full((5, 17, 2), np.nan), "none of the 5 frames has a visible body joint"),
        (np.dstack([np.ones((5, 17, 2)), np.zeros((5, 17, 1))]), "none of the 5 frames has a visible body joint"),
    ],
)
def test_wrong_arrays(tiny_lifter, array, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        predict(array, fps=25, image_size=SIZE, camera=CAMERA, lifter=tiny_lifter)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("array", [np.full((5, 17, 2), np.nan), np.random.default_rng(0).random((5, 17, 2)),
                                   -np.ones((5, 17, 2))])
def test_points_that_tell_no_size(tiny_lifter, array):
    with pytest.raises(ValueError, match="without a single finite point|look normalised"):
        predict(array, fps=25, lifter=tiny_lifter)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        *[({"fps": fps}, "fps must be a positive number") for fps in (0, -25, float("nan"), float("inf"), "25")],
        *[({"image_size": size}, "image_size must be") for size in ((0, 480), (-640, 480), (640,), 640, (1.5, 2))],
        ({"skeleton": "body25"}, "17 joints, but body25 has 25"),
        ({"skeleton": "cocoo17"}, "coco17"),
        ({"camera": CAMERA, "image_size": (480, 640)}, "same aspect"),
    ],
)
def test_wrong_options(tiny_lifter, changes, problem):
    with pytest.raises(ValueError, match=problem):
        predict(filmed(3).xy, **{**KNOWN, **changes}, lifter=tiny_lifter)


@pytest.mark.parametrize("extra", [{"fps": 25}, {"image_size": SIZE}, {"skeleton": "coco17"}])
def test_keypoints_bring_their_own_facts(tiny_lifter, extra):
    with pytest.raises(ValueError, match="together with fps, image_size or skeleton"):
        predict(filmed(3), **extra, camera=CAMERA, lifter=tiny_lifter)


def test_a_layout_without_a_body(tiny_lifter):
    from lifting.skeletons import Skeleton

    hand = Skeleton("hand3", ("wrist", "thumb", "index"), (-1, 0, 0))
    with pytest.raises(SkeletonMismatch):
        tiny_lifter.predict(Keypoints2D(np.ones((3, 3, 2)), None, hand, SIZE, FPS), CAMERA)


# ---- weights


def test_what_the_weights_say_is_used(tmp_path):
    slow = Lifter.load(write_tiny_weights(tmp_path / "slow.safetensors", fps=10.0))
    assert slow.fps == 10 and slow.source.startswith("slow.safetensors ")
    assert_complete(slow.predict(filmed(40), CAMERA), 40, FPS)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kind": "predictor"}, "holds a 'predictor' from lift17 to h36m17, expected a 'lifter'"),
        ({"skeleton_in": "coco17"}, "from coco17 to h36m17"),
        ({"config": {}}, "do not fit its own header"),
        ({"config": {"channels": "many"}}, "do not fit its own header"),
        ({"config": {"depth": 3}}, "do not fit its own header"),
        ({"config": {"channels": 10**9}}, "do not fit its own header"),
    ],
)
def test_weights_that_are_no_lifter(tmp_path, changes, problem):
    path = write_tiny_weights(tmp_path / "other.safetensors", **changes)
    with pytest.raises(ValueError, match=problem) as caught:
        Lifter.load(path)
    assert str(path) in str(caught.value)


def test_weights_that_are_no_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        Lifter.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="no readable safetensors"):
        Lifter.load(tmp_path / "text.safetensors")


def test_shipped_weights_load_once():
    if not predict_module.WEIGHTS.is_file():
        pytest.skip("the package holds no weights yet")
    lifter = predict_module.default_lifter()
    assert lifter is predict_module.default_lifter()
    assert lifter.header.licence == "Apache-2.0"
    assert dataclasses.asdict(lifter.header)["skeleton_out"] == "h36m17"


def test_zeros_without_confidence_are_not_seen(tiny_lifter):
    xy = filmed(8).xy.copy()
    xy[3, 5] = xy[4] = np.nan
    motion = predict(xy, **KNOWN, lifter=tiny_lifter)
    assert_close(predict(np.nan_to_num(xy), **KNOWN, lifter=tiny_lifter), motion, 0)


def test_normalised_points_are_refused(tiny_lifter):
    xy = filmed(8).xy / 640
    with pytest.raises(ValueError, match="look normalised; scale them to pixels"):
        predict(xy, fps=25, image_size=(640, 480), camera=CAMERA, lifter=tiny_lifter)


def test_focal_length_instead_of_a_camera(tiny_lifter):
    keypoints = filmed(8)
    expected = tiny_lifter.predict(keypoints, Camera.from_focal(700, keypoints.image_size))
    assert_close(predict(keypoints, focal=700, lifter=tiny_lifter), expected, 0)
    with pytest.raises(ValueError, match="both a camera and a focal length"):
        predict(keypoints, focal=700, camera=CAMERA, lifter=tiny_lifter)
    with pytest.raises(ValueError, match="camera of type str, expected a Camera"):
        predict(keypoints, camera="camera.json", lifter=tiny_lifter)
