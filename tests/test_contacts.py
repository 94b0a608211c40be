"""Contacts: a synthetic walk whose contacts are known, the forward-backward pass against enumeration, slip."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from lifting.contacts import (
    ContactConfig,
    clearances,
    contact_evidence,
    contact_probabilities,
    foot_points,
    forward_log_odds,
)

FPS = 50.0


def walk(frames=500, fps=FPS, cycle=1.1, stance=0.6, step=1.3):
    """Left and right ankle (T, 2, 3), Z up, along +Y: fixed for a share `stance` of a cycle, then on to the next step.

    Returns the points and whether each stands, (T, 2).
    """
    phase = np.arange(frames)[:, None] / (fps * cycle) + np.array([0.0, 0.5])
    number, part = np.floor(phase), phase % 1
    swing = np.clip((part - stance) / (1 - stance), 0, 1)
    along = step * (number + swing - np.sin(2 * np.pi * swing) / (2 * np.pi))
    height = 0.08 + 0.12 * np.sin(np.pi * swing) ** 2
    sideways = np.broadcast_to([-0.1, 0.1], along.shape)
    return np.stack([sideways, along, height], axis=-1), part < stance


def lift_noise(shape, size, rng, fps=FPS):
    """Errors of a lift: `size` metres per axis, correlated over 0.4 s, and 5 mm from frame to frame."""
    slow = gaussian_filter1d(rng.normal(size=shape), 0.4 * fps, axis=0, mode="wrap")
    return size * slow / slow.std() + rng.normal(0, 0.005, shape)


def precision_recall(probability, truth):
    found = probability > 0.5
    return (found & truth).sum() / found.sum(), (found & truth).sum() / truth.sum()


@pytest.mark.parametrize(("size", "precision", "recall"), [(0.0, 0.97, 0.9), (0.02, 0.96, 0.9), (0.04, 0.93, 0.8)])
def test_known_contacts_of_a_walk_are_found(size, precision, recall):
    points, truth = walk()
    noisy = points + lift_noise(points.shape, size, np.random.default_rng(0)) * (size > 0)
    sigma = np.full(truth.shape, 1.88 * size)
    for up in (None, [0, 0, 1]):
        found = precision_recall(contact_probabilities(noisy, FPS, up=up, sigma=sigma), truth)
        assert found[0] >= precision and found[1] >= recall, found


def test_jitter_raises_the_threshold_by_itself():
    points, truth = walk()
    points = points + np.random.default_rng(1).normal(0, 0.02, points.shape)  # differences move at 1.7 m/s
    precision, recall = precision_recall(contact_probabilities(points, FPS), truth)
    assert precision > 0.9 and recall > 0.8


@pytest.mark.parametrize("fps", [12.5, 25.0, 100.0, 240.0])
def test_frame_rate_does_not_matter(fps):
    points, truth = walk(int(8 * fps), fps)
    precision, recall = precision_recall(contact_probabilities(points, fps, up=[0, 0, 1]), truth)
    assert precision > 0.9 and recall > 0.85


def test_frames_of_reference_do_not_matter():
    points, _ = walk(200)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    moved = points @ turn.T + [5.0, -2.0, 1.0]
    np.testing.assert_allclose(contact_probabilities(moved, FPS, up=turn @ [0, 0, 3.0]),
                               contact_probabilities(points, FPS, up=[0, 0, 1]), atol=0.05)


def test_a_still_foot_in_the_air_stands_only_as_long_as_heights_are_unknown():
    points = np.zeros((60, 2, 3))
    points[:, 1, 2] = 0.4
    assert (contact_probabilities(points, FPS) > 0.9).all()
    with_floor = contact_probabilities(points, FPS, up=[0, 0, 1], floor=0.0)
    assert (with_floor[:, 0] > 0.9).all() and (with_floor[:, 1] < 0.1).all()


def test_gaps_are_bridged_and_absence_is_zero():
    points, truth = walk(100)
    points[:10, 0], points[95:, 0], points[40:44] = np.nan, np.nan, np.nan
    probability = contact_probabilities(points, FPS, up=[0, 0, 1])
    assert np.isfinite(probability).all() and not probability[:10, 0].any() and not probability[95:, 0].any()
    assert precision_recall(probability[10:95], truth[10:95])[0] > 0.9


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_short_clips(frames):
    still, moving = np.zeros((frames, 1, 3)), np.zeros((frames, 1, 3))
    moving[:, 0, 1] = 0.03 * np.arange(frames)  # 1.5 m/s
    assert (contact_probabilities(still, FPS) >= 0.5).all()
    if frames > 1:
        assert (contact_probabilities(moving, FPS) < 0.5).all()


def test_all_missing_and_no_points():
    assert not contact_probabilities(np.full((5, 2, 3), np.nan), FPS).any()
    assert contact_probabilities(np.zeros((5, 0, 3)), FPS).shape == (5, 0)


def test_smoothing_equals_the_sum_over_all_sequences():
    rng, frames, leave, arrive = np.random.default_rng(3), 6, 0.1, 0.2
    config = ContactConfig(stand=-1 / np.log(1 - leave) / FPS, swing=-1 / np.log(1 - arrive) / FPS)
    points = np.cumsum(rng.normal(0, 0.004, (frames, 1, 3)), axis=0)
    evidence = contact_evidence(points, FPS, config=config)[:, 0]
    change = np.array([[1 - arrive, arrive], [leave, 1 - leave]])
    mass, total = np.zeros(frames), 0.0
    for states in product((0, 1), repeat=frames):
        weight = (arrive if states[0] else leave) / (arrive + leave) * np.exp(evidence @ states)
        weight *= np.prod([change[a, b] for a, b in zip(states, states[1:], strict=False)])
        mass, total = mass + weight * np.array(states), total + weight
    np.testing.assert_allclose(contact_probabilities(points, FPS, config=config)[:, 0], mass / total, rtol=1e-9)


def test_the_forward_pass_is_causal_and_continues():
    evidence = np.random.default_rng(4).normal(size=(30, 2))
    whole = forward_log_odds(evidence, 0.05, 0.06)
    first = forward_log_odds(evidence[:12], 0.05, 0.06)
    np.testing.assert_array_equal(whole[:12], first)
    np.testing.assert_allclose(whole[12:], forward_log_odds(evidence[12:], 0.05, 0.06, start=first[-1]), rtol=1e-12)


def test_foot_points_of_layouts():
    assert foot_points("h36m17") == ("left_ankle", "right_ankle")
    assert set(foot_points("coco17_feet")) == {f"{s}_{p}" for s in ("left", "right")
                                               for p in ("big_toe", "small_toe", "heel")}
    assert foot_points("smpl24") == ("left_foot", "right_foot")
    np.testing.assert_array_equal(clearances(["left_heel", "pelvis"]), [0.03, 0.0])


@pytest.mark.parametrize(("arguments", "message"), [
    ({"points": np.zeros((3, 3))}, r"expected \(T, F, 3\)"),
    ({"points": np.zeros((0, 1, 3))}, "at least one frame"),
    ({"floor": 0.0}, "without the direction up"),
    ({"up": [0, 0, 0]}, "up must be a direction"),
    ({"up": [0, np.nan, 0]}, "up must be a direction"),
    ({"sigma": np.zeros((3, 2))}, "sigma has shape"),
    ({"fps": 0.0}, "fps"),
])  # fmt: skip
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        contact_probabilities(**{"points": np.zeros((3, 1, 3)), "fps": FPS} | arguments)


def sliding_walk(rng):
    """A walk as lifts show it: standing feet slide along the line of sight (x) by up to half a metre a second."""
    points, truth = walk()
    time = np.arange(len(points)) / FPS
    slide = 0.35 * np.sin(2 * np.pi * time / 1.7) / (2 * np.pi / 1.7)
    return points + slide[:, None, None] * [1.0, 0, 0] + lift_noise(points.shape, 0.01, rng), truth


def test_standing_feet_that_slide_in_depth_are_found_when_sigma_says_that_lifts_err():
    points, truth = sliding_walk(np.random.default_rng(5))
    sigma = np.full(truth.shape, 0.05)
    precision, recall = precision_recall(contact_probabilities(points, FPS, up=[0, 0, 1], sigma=sigma), truth)
    assert precision > 0.9 and recall > 0.85
    exact = precision_recall(contact_probabilities(points, FPS, up=[0, 0, 1]), truth)[1]
    assert exact < recall  # a slide that errors cannot explain is no standing


def test_speeds_are_judged_in_each_direction_by_itself_in_any_frame():
    points, _ = sliding_walk(np.random.default_rng(6))
    turn, sigma = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0], np.full(points.shape[:2], 0.05)
    turned, straight = (contact_probabilities(each, FPS, sigma=sigma) > 0.5 for each in (points @ turn.T, points))
    assert (turned == straight).mean() > 0.99


def test_feet_that_glide_all_the_time_do_not_stand():
    points = np.zeros((200, 2, 3))
    points[:, :, 1] = 1.5 / FPS * np.arange(200)[:, None]  # skating at 1.5 m/s
    assert not (contact_probabilities(points, FPS, sigma=np.full((200, 2), 0.05)) > 0.5).any()
