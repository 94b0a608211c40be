"""Streams: rings against whole sequences, a stream against predict, causality, bounded state, wrong input."""

from __future__ import annotations

import warnings
from collections import deque

import numpy as np
import pytest
import torch
from causal_lifters import CONFIG, causal_lifter, causal_temporal_lifter, temporal_net
from filmed_walker import CAMERA, RATE, SIZE, film, filmed, walk_in_camera
from hypothesis import given
from hypothesis import strategies as st
from test_cleaning import runs_of, walker
from torch.nn import functional

from lifting import predict as predict_module
from lifting.cleaning import LEGS, WHOLE, Cleaned, exchange_sides
from lifting.cleaning_causal import CausalCleaner, stack_frames
from lifting.keypoints import Keypoints2D
from lifting.models.lifter import LifterConfig
from lifting.models.ring_buffers import FRAMES_AHEAD, CausalConvolution, LiftNetStream, TemporalStream
from lifting.models.temporal import TemporalConfig, lift_sequence
from lifting.one_euro import OneEuroFilter
from lifting.predict import AssumptionWarning, default_lifter, predict
from lifting.resampling_causal import KeypointGrid, PoseTimes, Sample
from lifting.smoothing import cut_off
from lifting.streaming import EURO_BETA
from lifting.trajectory import TrajectoryFilter, fit_trajectory

pytestmark = pytest.mark.usefixtures("one_thread")


def disturbed(frames: int = 60, fps: float = RATE, layout: str = "coco17", seed: int = 0) -> Keypoints2D:
    """The walk with noise, dropouts, a swap, a thrown wrist and a blind span; nobody in the first two frames."""
    keypoints = filmed(frames, layout, fps)
    rng = np.random.default_rng(seed)
    xy, score = keypoints.xy + rng.normal(0, 1.5, keypoints.xy.shape), np.full(keypoints.score.shape, 0.8)
    score[rng.random(score.shape) < 0.05] = 0
    score[:2] = 0
    score[30:40] = 0
    xy[20:22, keypoints.skeleton.index("left_wrist")] += 150
    swapped = np.zeros(frames, np.uint8)
    swapped[10:16] = WHOLE
    return exchange_sides(keypoints.replace(xy=xy, score=score), swapped)


def all_poses(stream, keypoints: Keypoints2D) -> list:
    poses = [pose for xy, score in zip(keypoints.xy, keypoints.score, strict=True) for pose in stream.feed(xy, score)]
    return poses + stream.flush()


def stacked(poses: list, name: str) -> np.ndarray:
    return np.stack([getattr(pose, name) for pose in poses])


# ---- the networks


@pytest.mark.parametrize("taps, spacing", [(3, 1), (3, 4), (1, 1), (5, 2), (3, 2 * FRAMES_AHEAD + 1)])
@pytest.mark.parametrize("repeats_first, phase", [(True, 0), (False, 3)])
def test_a_convolution_frame_by_frame_is_that_of_the_whole_sequence(taps, spacing, repeats_first, phase):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 80, 3, generator=generator), torch.randn(4, 3, taps, generator=generator)
    bias, reach = torch.randn(4, generator=generator), (taps - 1) * spacing
    before = x[:, :1].repeat(1, reach, 1) if repeats_first else torch.zeros(2, reach, 3)
    whole = functional.conv1d(torch.cat([before, x], 1).transpose(1, 2), weight, bias, dilation=spacing)
    ring = CausalConvolution(weight, bias, spacing, repeats_first=repeats_first, phase=phase)
    for _ in range(2):  # cleared, it is as new
        found = torch.stack([ring.push(frame) for frame in x.unbind(1)], 2)
        torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)
        assert ring.size == (0 if taps == 1 else 2 * (3 * reach + 4 * min(spacing, FRAMES_AHEAD)))
        ring.clear()
    assert ring.size == 0


@pytest.mark.parametrize("lookahead", CONFIG.lookaheads)
@pytest.mark.parametrize("frames", [1, 4, 30])
def test_rings_give_the_lift_of_the_whole_sequence(lookahead, frames):
    network = causal_lifter().network
    generator = torch.Generator().manual_seed(0)
    rays = 0.1 * torch.randn(2, frames, 17, 2, generator=generator)
    scores = (torch.rand(2, frames, 17, generator=generator) - 0.1).clamp_min(0)
    with torch.no_grad():
        whole = network.lift(rays, scores, lookahead)
    stream = LiftNetStream(network, lookahead)
    for _ in range(2):  # flushed, it is as new
        lifts = [stream.push(rays[:, t], scores[:, t]) for t in range(frames)]
        assert [lift is None for lift in lifts] == [t < lookahead for t in range(frames)]
        lifts = [lift for lift in lifts if lift is not None] + stream.flush()
        assert len(lifts) == frames
        for name in whole._fields:
            found = torch.stack([getattr(lift, name) for lift in lifts], 1)
            torch.testing.assert_close(found, getattr(whole, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"widths": (3, 3, 3)}, {"widths": (5, 3)}, {"widths": (3, 3), "dense": True},
                                     {"widths": (1, 3), "features_in": 3}])  # fmt: skip
def test_temporal_rings_give_the_lift_of_the_whole_sequence(options):
    model = temporal_net(TemporalConfig(channels=8, causal=True, joints_out=5, **options))
    x = torch.randn(2, 40, 17, options.get("features_in", 2), generator=torch.Generator().manual_seed(0))
    stream = TemporalStream(model)
    for _ in range(2):
        found = torch.stack([stream.push(x[:, t]) for t in range(40)], 1)
        torch.testing.assert_close(found, lift_sequence(model, x), rtol=1e-5, atol=1e-5)
        stream.clear()


def test_networks_that_see_later_frames_are_refused():
    with pytest.raises(ValueError, match="looks at later frames, expected a causal one"):
        LiftNetStream(causal_lifter(LifterConfig(channels=4, dilations=(1,))).network)
    with pytest.raises(ValueError, match="later frames, expected causal ones"):
        TemporalStream(temporal_net(TemporalConfig(widths=(3, 3), channels=4)))
    with pytest.raises(ValueError, match=r"look-ahead of 3 frames, expected one of \(0, 2, 5\)"):
        causal_lifter().stream(CAMERA, lookahead=3)
    with pytest.raises(ValueError, match="look-ahead of 5 frames, but temporal weights have none"):
        causal_temporal_lifter().stream(CAMERA, skeleton="h36m17", lookahead=5)


# ---- the stream and predict


@pytest.mark.parametrize("lookahead", CONFIG.lookaheads)
@pytest.mark.parametrize("fps", [30.0, 49.5, 120.0])
def test_a_stream_is_predict(fps, lookahead):
    lifter, keypoints = causal_lifter(), disturbed(fps=fps)
    motion = lifter.predict(keypoints, CAMERA, causal=True, lookahead=lookahead, height=1.7)
    poses = all_poses(lifter.stream(CAMERA, fps=fps, lookahead=lookahead, height=1.7), keypoints)
    assert [round(pose.time * fps) for pose in poses] == list(range(2, 60))
    np.testing.assert_allclose(stacked(poses, "joints"), motion.joints[2:], atol=1e-5)
    np.testing.assert_allclose(stacked(poses, "root"), motion.trajectory[2:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stacked(poses, "sigma"), motion.sigma[2:], atol=1e-5)
    assert np.isfinite(motion.absolute).all() and len(motion) == 60 and motion.fps == fps
    np.testing.assert_array_equal(motion.joints[:2], motion.joints[[2, 2]])  # nobody was seen yet


@pytest.mark.parametrize("trajectory, features", [(True, 2), (False, 2), (False, 3)])
@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("fps", [30.0, 50.0])
def test_a_temporal_stream_is_predict(trajectory, features, refine, fps):
    lifter, keypoints = causal_temporal_lifter(trajectory, features), disturbed(fps=fps, layout="h36m17")
    motion = lifter.predict(keypoints, CAMERA, causal=True, refine=refine)
    poses = all_poses(lifter.stream(CAMERA, skeleton="h36m17", fps=fps, refine=refine), keypoints)
    np.testing.assert_allclose(stacked(poses, "joints"), motion.joints[2:], atol=1e-5)
    np.testing.assert_allclose(stacked(poses, "root"), motion.trajectory[2:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stacked(poses, "sigma"), motion.sigma[2:], atol=1e-5)


@pytest.mark.parametrize("lookahead", [0, 5])
def test_no_pose_knows_what_comes_later(lookahead):
    lifter, keypoints = causal_lifter(), disturbed(fps=30.0)
    other = keypoints.replace(xy=np.concatenate([keypoints.xy[:40], keypoints.xy[40:] + 50]))
    first, second = (lifter.predict(one, CAMERA, causal=True, lookahead=lookahead) for one in (keypoints, other))
    known = 40 - 2 * (lookahead > 0) - int(np.ceil(lookahead * 30 / RATE))
    np.testing.assert_array_equal(first.joints[:known], second.joints[:known])
    np.testing.assert_array_equal(first.trajectory[:known], second.trajectory[:known])
    assert np.abs(first.joints[known + 3 :] - second.joints[known + 3 :]).max() > 1e-4


def test_without_repair_at_its_own_rate_the_network_alone_decides():
    lifter, keypoints = causal_lifter(), filmed(30, fps=RATE)
    motion = lifter.predict(keypoints, CAMERA, causal=True, lookahead=2, repair=False, refine=False)
    points = keypoints.to("lift17")
    joints, root, sigma = lifter.run(CAMERA.rays(points.xy).astype(np.float32), points.score, True, 2)
    np.testing.assert_allclose(motion.joints, joints, atol=1e-6)
    np.testing.assert_allclose(motion.trajectory, root, rtol=1e-6)


def test_without_look_ahead_every_frame_gets_its_pose_at_once():
    keypoints, stream = filmed(20, fps=30.0), causal_lifter().stream(CAMERA)
    for k in range(20):
        pose = stream.push(keypoints.xy[k], keypoints.score[k])
        assert pose.time == pytest.approx(k / 30) and pose.seen
        np.testing.assert_allclose(pose.absolute, pose.joints + pose.root)
    assert stream.flush() == []
    assert stream.push(keypoints.xy[0]).time == 0  # as new


def test_pushed_arrays_may_say_what_is_unseen_in_any_way():
    keypoints, lifter = filmed(12, fps=RATE), causal_lifter()
    score = keypoints.score.copy()
    score[4:6, 3] = 0
    kinds = {"scores": [(xy, s) for xy, s in zip(keypoints.xy, score, strict=True)],
             "columns": [(np.column_stack([xy, s]),) for xy, s in zip(keypoints.xy, score, strict=True)],
             "zeros": [(np.where(s[:, None] > 0, xy, 0),) for xy, s in zip(keypoints.xy, score, strict=True)],
             "nan": [(np.where(s[:, None] > 0, xy, np.nan),) for xy, s in zip(keypoints.xy, score, strict=True)]}
    found = {}
    for name, frames in kinds.items():
        stream = lifter.stream(CAMERA, fps=RATE)
        found[name] = np.stack([stream.push(*frame).joints for frame in frames])
    for name in kinds:
        np.testing.assert_array_equal(found[name], found["scores"], err_msg=name)


def test_a_blind_span_holds_the_pose_and_sigma_grows():
    stream, keypoints = causal_lifter().stream(CAMERA, fps=RATE), filmed(30, fps=RATE)
    for xy in keypoints.xy:
        before = stream.push(xy)
    blind = [stream.push(None) for _ in range(60)]
    assert before.seen and not any(pose.seen for pose in blind)
    held = blind[13:]  # a quarter of a second is left to the network
    assert all(np.array_equal(pose.joints, held[0].joints) for pose in held)
    assert (np.diff(stacked(blind, "sigma"), axis=0)[13:] >= 0).all() and blind[-1].sigma.min() >= 0.4
    again = [stream.push(keypoints.xy[k]) for k in range(3)][-1]  # the first two could be strays
    assert again.seen and again.sigma.max() < blind[-1].sigma.max()


def test_after_a_long_gap_the_stream_begins_anew():
    lifter, keypoints = causal_lifter(), filmed(40, fps=RATE)
    stream, fresh = lifter.stream(CAMERA, lookahead=5), lifter.stream(CAMERA, lookahead=5)
    times = np.arange(40) / RATE
    early = [pose for k in range(20) for pose in stream.feed(keypoints.xy[k], time=times[k])]
    late = [pose for k in range(20, 40) for pose in stream.feed(keypoints.xy[k], time=times[k] + 100)] + stream.flush()
    assert len(early) == 15 and len(late) == 25  # what was held back came out first
    expected = [pose for k in range(20, 40) for pose in fresh.feed(keypoints.xy[k], time=times[k] + 100)]
    expected += fresh.flush()
    np.testing.assert_array_equal(stacked(late[5:], "joints"), stacked(expected, "joints"))


def containers(thing: object, seen: set[int]) -> int:
    """Entries of all lists, deques, dicts and arrays that an object of this library holds."""
    if id(thing) in seen or isinstance(thing, (str, bytes, type)):
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray | torch.Tensor):
        return int(np.prod(thing.shape))
    if isinstance(thing, (list, tuple, deque)):
        return len(thing) + sum(containers(item, seen) for item in thing)
    if isinstance(thing, dict):
        return len(thing) + sum(containers(item, seen) for item in thing.values())
    return containers(vars(thing), seen) if type(thing).__module__.startswith("lifting.") else 0


def test_the_state_stops_growing():
    keypoints = disturbed(40, fps=20.0)
    stream = causal_lifter().stream(CAMERA, fps=20.0, lookahead=5, smooth=0.5)
    sizes = []
    for k in range(200):
        stream.push(keypoints.xy[k % 40], keypoints.score[k % 40])
        if k % 40 == 39:
            sizes.append((containers(stream, set()), stream.size))
    counted, stated = zip(*sizes, strict=True)
    assert counted[2] == counted[3] == counted[4] and stated[2] == stated[3] == stated[4]


def test_height_sets_the_scale():
    lifter, keypoints = causal_lifter(), filmed(40, fps=RATE)
    plain, tall = (lifter.lift(keypoints, CAMERA, causal=True, height=height) for height in (None, 2.0))
    last = tall.motion.joints[-1] / np.where(plain.motion.joints[-1] == 0, 1, plain.motion.joints[-1])
    np.testing.assert_allclose(last[1:], tall.scale, rtol=1e-3)
    assert plain.scale == 1 and tall.cleaned.keypoints.skeleton.name == "lift17"


def test_the_default_causal_weights_are_missed_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(predict_module, "CAUSAL_WEIGHTS", tmp_path / "lifter_causal.safetensors")
    default_lifter.cache_clear()
    with pytest.raises(FileNotFoundError, match="no causal weights .*lifter_causal.safetensors is missing"):
        default_lifter(causal=True)
    with pytest.raises(FileNotFoundError, match="no causal weights"):
        predict(filmed(5), camera=CAMERA, causal=True)


def test_predict_finds_causal_weights_by_itself(monkeypatch):
    asked = []
    monkeypatch.setattr(predict_module, "default_lifter", lambda causal: asked.append(causal) or causal_lifter())
    predict(filmed(5), camera=CAMERA, causal=True, lookahead=2)
    assert asked == [True]


def test_wrong_input_is_said(tiny_lifter):
    lifter, keypoints = causal_lifter(), filmed(5)
    with pytest.raises(ValueError, match="looks at later frames"):
        tiny_lifter.predict(keypoints, CAMERA, causal=True)
    with pytest.raises(ValueError, match="neither a camera nor an image size"):
        lifter.stream()
    with pytest.raises(ValueError, match="smoothing of 2"):
        lifter.stream(CAMERA, smooth=2)
    with pytest.raises(ValueError, match="height of 9"):
        lifter.stream(CAMERA, height=9)
    with pytest.raises(ValueError, match="nowhere17"):
        lifter.stream(CAMERA, skeleton="nowhere17")
    with pytest.raises(ValueError, match="none of the 5 frames shows 3 body joints"):
        lifter.predict(keypoints.replace(score=np.zeros((5, 17))), CAMERA, causal=True)
    stream = lifter.stream(CAMERA)
    stream.push(keypoints.xy[0], time=1.0)
    for time, message in ((1.0, "expected rising times"), (0.5, "expected rising times"), (np.nan, "finite time")):
        with pytest.raises(ValueError, match=message):
            stream.push(keypoints.xy[1], time=time)
    for xy in (np.zeros((16, 2)), np.zeros((17, 4)), np.full((17, 2), np.inf)):
        with pytest.raises(ValueError, match="got|must"):
            stream.push(xy, time=2.0)
    assert stream.push(keypoints.xy[1], time=2.0) is not None  # a refused frame leaves no trace


def test_what_is_assumed_is_said_at_the_callers_line():
    with pytest.warns(AssumptionWarning, match="Focal length 800 px assumed") as caught:
        causal_lifter().stream(image_size=SIZE)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        causal_lifter().stream(CAMERA)


# ---- frame rates


@given(st.lists(st.floats(0.004, 0.2), min_size=1, max_size=30), st.booleans(), st.floats(0, 100))
def test_even_motion_passes_through_any_frame_times(steps, waits, start):
    times = start + np.concatenate([[0], np.cumsum(steps)])
    grid, back, found, samples = KeypointGrid(50.0), PoseTimes(waits), [], 0
    for time in times:
        position = grid.position(time)
        xy = np.full((3, 2), 2 * (time - start) - 1, np.float32)
        back.add_frame(position, time)
        for sample in grid.push(position, Sample(xy, np.ones(3, np.float32))):
            np.testing.assert_allclose(sample.xy, 2 * samples / 50 - 1, atol=1e-3)
            samples += 1
            found += back.add_sample((sample.xy.astype(np.float64),))
        found += back.known()
        if not waits:
            assert len(found) and found[-1][0] == time
    found += back.known(at_end=True)
    assert [frame for frame, _ in found] == list(times)
    if len(times) > 1 and samples > 1:
        known = [(frame, values) for frame, values in found if (frame - start) * 50 >= 1]
        for frame, (values,) in known:
            np.testing.assert_allclose(values, 2 * (frame - start) - 1, atol=2e-3)


def test_samples_between_seen_and_unseen_frames():
    seen, unseen = (Sample(np.full((1, 2), at, np.float32), np.float32([score]))
                    for at, score in ((5, 0.5), (np.nan, 0)))
    grid = KeypointGrid(4.0)
    grid.push(grid.position(0.0), seen)
    scores = [float(sample.score[0]) for sample in grid.push(grid.position(1.0), unseen)]
    assert scores == [0.5, 0.5, 0.0, 0.0]
    assert [float(sample.score[0]) for sample in grid.push(grid.position(2.0), seen)] == [0.0, 0.5, 0.5, 0.5]


# ---- cleaning


def clean_causally(keypoints: Keypoints2D) -> Cleaned:
    """`lifting.cleaning.clean` with nothing but the past in each frame."""
    cleaner = CausalCleaner(keypoints.skeleton)
    return stack_frames([cleaner.push(xy, score, index / keypoints.fps)
                         for index, (xy, score) in enumerate(zip(keypoints.xy, keypoints.score, strict=True))],
                        keypoints)  # fmt: skip


@pytest.mark.parametrize("fps", [25.0, 50.0])
@pytest.mark.parametrize("turn", [0.0, 30.0, 180.0])
def test_swaps_are_undone_as_they_come(turn, fps):
    truth = walker(turn=turn, fps=fps, noise=2.0)
    swaps = runs_of(200, f20_50=WHOLE, f60_80=LEGS, f110_130=LEGS, f150_155=WHOLE)
    cleaned = clean_causally(exchange_sides(truth, swaps))
    assert (cleaned.swapped != swaps).mean() < 0.02
    right = cleaned.swapped == swaps
    kept = cleaned.keypoints.seen & right[:, None]
    np.testing.assert_array_equal(cleaned.keypoints.xy[kept], truth.xy[kept])
    assert (cleaned.outliers | cleaned.gaps).mean() < 0.005


def test_thrown_joints_are_masked_until_they_stay():
    truth = walker(noise=1.0)
    wrist = truth.skeleton.index("left_wrist")
    xy = truth.xy.copy()
    xy[50:53, wrist] += 150  # an excursion
    xy[100:, wrist] += (0, -150)  # for good
    outliers = clean_causally(truth.replace(xy=xy)).outliers
    assert outliers[50:53, wrist].all() and not outliers[56:99, wrist].any()
    assert outliers[100:102, wrist].all() and not outliers[111:, wrist].any()  # in 0.2 s at the latest
    outliers[:, wrist] = False
    assert not outliers.any()


def test_strays_are_masked_until_they_stay():
    truth = walker()
    ankle = truth.skeleton.index("right_ankle")
    score = truth.score.copy()
    score[60:140, ankle] = 0
    score[100:102, ankle] = 1  # alone in a long gap
    cleaned = clean_causally(truth.replace(score=score))
    expected = np.zeros(200, bool)
    expected[[100, 101, 140, 141]] = True  # coming back, it is not believed at once
    np.testing.assert_array_equal(cleaned.gaps[:, ankle], expected)
    assert not cleaned.outliers.any() and cleaned.gaps.sum() == 4


def test_a_cleaner_takes_frames_at_any_times_and_of_nobody():
    truth, cleaner = walker(), CausalCleaner(walker().skeleton)
    nobody = np.full_like(truth.xy[0], np.nan), np.zeros_like(truth.score[0])
    time = 0.0
    for k, step in enumerate(np.random.default_rng(0).uniform(0.005, 0.1, 100)):
        time += step
        frame = cleaner.push(*(nobody if k % 7 == 3 else (truth.xy[0], truth.score[0])), time)
        assert frame.swapped == 0 and not frame.outliers.any() and not frame.gaps.any()


# ---- the root's path and smoothing


def test_the_filtered_path_follows_from_the_past_what_the_fit_sees_from_both_sides():
    truth = walk_in_camera(120, RATE)
    root = truth[:, 0]
    keypoints = film(truth, "coco17", RATE).to("lift17")
    rng = np.random.default_rng(0)
    rays = CAMERA.rays(keypoints.xy + rng.normal(0, 2, keypoints.xy.shape)).astype(np.float32)
    rays[60:63, :5] += 0.5  # outliers
    guess = root * rng.normal(1, 0.05, (120, 1)).astype(np.float32)
    sigma = np.full((120, 17), 0.02, np.float32)
    joints = truth - root[:, None]
    path = TrajectoryFilter(RATE)
    filtered = np.stack([path.push(joints[k], guess[k], sigma[k], rays[k], keypoints.score[k]) for k in range(120)])
    fitted = fit_trajectory(joints, guess, sigma, rays, keypoints.score, RATE)
    errors = [np.linalg.norm(one - root, axis=-1)[10:] for one in (guess, filtered, fitted)]
    assert np.median(errors[1]) < 0.4 * np.median(errors[0]) and errors[1].max() < 0.15
    assert np.median(errors[1]) < 0.05
    np.testing.assert_allclose(filtered[-1], fitted[-1], atol=0.03)  # at the end both know the same


def test_unseen_the_filtered_path_comes_to_rest():
    path, joints = TrajectoryFilter(50.0), np.zeros((17, 3), np.float32)
    unseen = np.full((17, 2), np.nan, np.float32), np.zeros(17, np.float32)
    truth = walk_in_camera(60, RATE)
    rays = CAMERA.rays(film(truth, "coco17", RATE).to("lift17").xy).astype(np.float32)
    for k in range(60):
        last = path.push(truth[k] - truth[k, 0], truth[k, 0], np.full(17, 0.02), rays[k], np.ones(17))
    far = [path.push(joints, truth[-1, 0], np.full(17, 0.02), *unseen) for _ in range(200)]
    assert np.linalg.norm(far[-1] - last) < 1.0 and np.linalg.norm(far[-1] - far[-50]) < 0.02


def euro_twin(values: list[float], times: list[float], cutoff: float, beta: float) -> list[float]:
    """The paper's algorithm 1 for one number, with its alpha written out."""
    def alpha(seconds: float, cut: float) -> float:
        tau = 1 / (2 * np.pi * cut)
        return 1 / (1 + tau / seconds)

    out, speed = [values[0]], 0.0
    for k in range(1, len(values)):
        seconds = times[k] - times[k - 1]
        speed = alpha(seconds, 1.0) * (values[k] - out[-1]) / seconds + (1 - alpha(seconds, 1.0)) * speed
        share = alpha(seconds, cutoff + beta * abs(speed))
        out.append(share * values[k] + (1 - share) * out[-1])
    return out


def test_one_euro_is_the_papers():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.05, 50)).tolist()
    values = rng.normal(0, 1, 50).tolist()
    euro = OneEuroFilter(1.5, 0.3)
    found = [float(euro.push(np.array([value]), time)[0]) for value, time in zip(values, times, strict=True)]
    np.testing.assert_allclose(found, euro_twin(values, times, 1.5, 0.3), rtol=1e-9)
    with pytest.raises(ValueError, match="min_cutoff 0, beta 0"):
        OneEuroFilter(0, 0)


def test_smoothing_steadies_and_turns_with_the_axes():
    lifter, keypoints = causal_lifter(), disturbed(80, fps=30.0)
    streams = (lifter.stream(CAMERA, fps=30.0, smooth=strength) for strength in (0, 0.8))
    poses = [all_poses(stream, keypoints) for stream in streams]
    rough, smooth = (stacked(some, "joints") for some in poses)
    jitter = [np.abs(np.diff(one, n=2, axis=0)).mean() for one in (rough, smooth)]
    assert jitter[1] < 0.7 * jitter[0]
    euro = OneEuroFilter(cut_off(0.8), EURO_BETA)
    expected = [euro.push(pose.joints.astype(float), pose.time) for pose in poses[0]]
    np.testing.assert_allclose(smooth, expected, atol=1e-4)
    turn = np.linalg.qr(np.random.default_rng(0).normal(0, 1, (3, 3)))[0]
    plain, turned = OneEuroFilter(1, 2), OneEuroFilter(1, 2)
    for k in range(20):
        np.testing.assert_allclose(turned.push(rough[k] @ turn, k / 30), plain.push(rough[k], k / 30) @ turn, atol=1e-9)


def test_a_swap_that_lasts_is_what_the_detector_calls_left_and_right():
    """A clip that begins with a swap: for a while all that follows looks exchanged, but not for good."""
    truth = walker(fps=50.0, noise=2.0)
    cleaned = clean_causally(exchange_sides(truth, runs_of(200, f0_15=WHOLE)))
    assert (cleaned.swapped[16:60] == WHOLE).all()  # nothing tells yet
    assert (cleaned.swapped[15 + 70 :] == 0).all()  # 1.3 s are 65 frames
