"""Errors of a synthetic detector: of the announced kind and amount, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_synthesis import FEET, NO_NOISE, SOURCES, bodies, generator
from walking_figure import H36M, walker

from lifting.anatomy import trunk_frames
from lifting.datasets.detector_noise import INPUT, NoiseModel, detect, detector_points, face_forward, runs
from lifting.datasets.synthesis import camera_rotation

NO_BORDER = np.full((1, 2), np.inf, np.float32)
LEG = ("knee", "ankle", "big_toe", "heel")


def still_points(batch: int, frames: int) -> np.ndarray:
    """A standing person 4 m ahead in camera axes, (N, T, 17, 3), left joints at +x, each joint at its own height."""
    heights = np.linspace(-0.8, 0.8, 17)
    x = np.array([0.3 if "left" in name else -0.3 if "right" in name else 0.0 for name in INPUT.joints])
    person = np.stack([x, heights[np.minimum(np.arange(17), INPUT.flip)], np.full(17, 4.0)], -1).astype(np.float32)
    return np.broadcast_to(person, (batch, frames, 17, 3)).copy()


def look(noise: NoiseModel, batch: int = 8, frames: int = 200, border=NO_BORDER, seed: int = 0):
    points = still_points(batch, frames)
    size = np.full((batch, frames), 1.7 / 4, np.float32)
    rays, scores = detect(points, size, np.broadcast_to(border, (batch, 2)), noise, generator(seed))
    return points[..., :2] / points[..., 2:], rays, scores


@pytest.mark.parametrize(("share", "length"), [(0.03, (1, 20)), (0.01, (5, 60)), (0.2, (3, 3))])
def test_runs_cover_the_share_everywhere(share, length):
    inside = runs((300, 120, 8), share, length, generator())
    expected = 1 - np.exp(-share)
    assert inside.mean() == pytest.approx(expected, rel=0.1)
    edges = inside[:, [0, 1, -2, -1]].mean()
    assert edges == pytest.approx(expected, rel=0.25)  # runs may begin before a window and end after it


def test_runs_have_the_lengths():
    inside = runs((200, 300, 4), 0.01, (3, 7), generator())
    steps = np.diff(np.pad(inside, ((0, 0), (1, 1), (0, 0))).astype(int), axis=1)
    steps = steps.transpose(0, 2, 1).reshape(-1, 301)
    starts, ends = np.nonzero(steps == 1), np.nonzero(steps == -1)
    whole = (starts[1] > 0) & (ends[1] < 300)
    lengths = (ends[1] - starts[1])[whole]
    counts = np.bincount(lengths, minlength=8)
    assert counts[3:8].min() > 0.12 * len(lengths)  # uniform: a fifth each
    assert counts[:3].sum() == 0 and counts[8:].sum() < 0.03 * len(lengths)  # two that touch


def test_no_runs_without_a_share():
    assert not runs((5, 50, 3), 0.0, (1, 20), generator()).any()
    assert runs((40, 1, 3), 0.5, (1, 20), generator()).shape == (40, 1, 3)


def test_swaps_exchange_sides_and_nothing_else():
    exact, rays, scores = look(replace(NO_NOISE, swap_share=0.3), batch=40)
    swapped = np.isclose(rays, exact[:, :, list(INPUT.flip)]).all((2, 3))
    kept = np.isclose(rays, exact).all((2, 3))
    assert (swapped ^ kept).all() and (scores == 1).all()
    assert swapped.mean() == pytest.approx(1 - np.exp(-0.3), rel=0.12)


def test_swaps_of_legs_leave_the_arms():
    exact, rays, _ = look(replace(NO_NOISE, swap_share=0.3, legs_only=1.0), batch=40)
    legs = [i for i, name in enumerate(INPUT.joints) if any(p in name for p in ("knee", "ankle", "toe", "heel"))]
    changed = ~np.isclose(rays, exact).all(-1)
    assert changed[..., legs].all(-1).mean() == pytest.approx(1 - np.exp(-0.3), rel=0.12)
    np.testing.assert_array_equal(changed[..., legs].any(-1), changed[..., legs].all(-1))
    assert not np.delete(changed, legs, axis=-1).any()


def test_bias_is_constant_in_time_and_jitter_is_white_both_in_shares_of_stature():
    exact, rays, _ = look(replace(NO_NOISE, bias=0.015), batch=100, frames=5)
    error = (rays - exact) / (1.7 / 4)
    np.testing.assert_allclose(error, np.broadcast_to(error[:, :1], error.shape), atol=1e-5)
    assert error.std() == pytest.approx(0.015, rel=0.05)
    exact, rays, _ = look(replace(NO_NOISE, jitter=(0.008, 0.008)))
    error = (rays - exact) / (1.7 / 4)
    assert error.std() == pytest.approx(0.008, rel=0.03)
    assert abs((error[:, 1:] * error[:, :-1]).mean()) < 0.02 * error.var()


def test_jitter_varies_from_sample_to_sample_and_drift_is_slow():
    exact, rays, _ = look(replace(NO_NOISE, jitter=(0.001, 0.012)), batch=60)
    deviations = ((rays - exact) / (1.7 / 4)).std((1, 2, 3))
    assert 0.0009 < deviations.min() < 0.003 and 0.010 < deviations.max() < 0.0125
    exact, rays, _ = look(replace(NO_NOISE, drift=(0.01, 0.01)), batch=30)
    error = (rays - exact) / (1.7 / 4)
    assert error.std() == pytest.approx(0.01, rel=0.05)
    assert np.diff(error, axis=1).std() < 0.3 * error.std()


def test_bursts_make_single_joints_worse():
    exact, rays, _ = look(replace(NO_NOISE, jitter=(0.005, 0.005), burst_share=0.2), batch=40)
    quiet = 0.005 * 1.7 / 4
    error = np.abs(rays - exact).max(-1)
    assert (error > 4.2 * quiet).mean() > 0.02
    assert error.max() < 5 * 6 * quiet


def test_slips_draw_arms_and_legs_elsewhere():
    noise = replace(NO_NOISE, slip_share=(0.2, 0.1), slip=(0.05, 0.05))
    exact, rays, _ = look(noise, batch=150)
    error = (rays - exact) / (1.7 / 4)
    moved = (np.abs(error) > 1e-6).any(-1)
    arms, legs = (INPUT.indices([f"left_{name}" for name in names]) for names in (("elbow", "wrist"), LEG))
    others = [INPUT.index(f"right_{name}") for name in ("elbow", "wrist", *LEG)]
    assert not np.delete(moved, [*arms, *legs, *others], axis=-1).any()
    for limb, share in ((arms, 0.2), (legs, 0.1)):
        np.testing.assert_array_equal(moved[..., limb].any(-1), moved[..., limb].all(-1))
        assert moved[..., limb[0]].mean() == pytest.approx(1 - np.exp(-share), rel=0.15)
    elbow, wrist = error[..., arms[0], :], error[..., arms[1], :]
    level = np.abs(wrist[..., 1]) < 1e-6  # the other hand is as high: drawn towards it, at most half way of 0.6 m
    drawn = level & moved[..., arms[1]]
    np.testing.assert_allclose(elbow[drawn, 0], 0.6 * wrist[drawn, 0], atol=1e-5)
    assert wrist[drawn, 0].max() < 0 and 0.15 < -wrist[drawn, 0].min() / (0.6 / 1.7) <= 0.5
    assert wrist[~level].std(0)[1] == pytest.approx(0.05, rel=0.15)
    assert np.corrcoef(elbow[~level][:, 1], wrist[~level][:, 1])[0, 1] == pytest.approx(0.64, abs=0.1)


def test_slips_lower_the_score_but_not_always():
    noise = replace(NO_NOISE, slip_share=(0.2, 0.2), scores=True)
    exact, rays, scores = look(noise, batch=60)
    error, graded = np.linalg.norm(rays - exact, axis=-1), (scores < 0.7).any((1, 2))
    far = error[graded] > 0.03
    assert scores[graded][far].mean() < scores[graded][~far].mean() - 0.2
    assert (scores[graded][far] > 0.9).any()


def test_dropouts_hit_single_joints():
    _, _, scores = look(replace(NO_NOISE, dropout_share=0.03), batch=20)
    missing = scores == 0
    assert missing.mean() == pytest.approx(0.03, rel=0.1)
    assert (missing[:, 1:] & missing[:, :-1]).mean() == pytest.approx(0.03**2, rel=0.4)


def test_gaps_last_and_blackouts_take_everybody():
    _, _, scores = look(replace(NO_NOISE, gap_share=0.05), batch=40)
    missing = scores == 0
    assert missing.mean() == pytest.approx(1 - np.exp(-0.05), rel=0.15)
    alone = missing[:, 1:-1] & ~missing[:, 2:] & ~missing[:, :-2]
    assert not alone.any()
    _, _, scores = look(replace(NO_NOISE, blackout_share=0.05), batch=100)
    missing = scores == 0
    np.testing.assert_array_equal(missing.any(-1), missing.all(-1))
    assert missing.mean() == pytest.approx(1 - np.exp(-0.05), rel=0.25)


def test_truncation_cuts_at_the_border_or_lowers_the_score():
    border = np.array([[1.0, 0.1]], np.float32)  # joints lie within 0.2 of the middle row
    exact, rays, scores = look(replace(NO_NOISE, truncation=1.0), batch=200, frames=2, border=border)
    beyond = np.abs(exact[..., 1]) > 0.1 + 1e-6
    silent = (scores[beyond].reshape(200, -1) == 0).all(-1)
    guessing = np.isclose(scores[beyond].reshape(200, -1), 0.3).all(-1)
    assert (silent ^ guessing).all() and silent.mean() == pytest.approx(0.6, abs=0.1)
    _, _, scores = look(replace(NO_NOISE, truncation=0.25), batch=400, frames=2, border=border)
    assert (scores < 1).any((1, 2)).mean() == pytest.approx(0.25, abs=0.07)


def test_border_always_cuts_somebody_even_in_a_large_image():
    _, _, scores = look(replace(NO_NOISE, truncation=1.0), batch=100, frames=2)
    assert (scores < 1).any((1, 2)).mean() > 0.95


def test_feet_are_seen_in_a_share_of_samples():
    _, _, scores = look(replace(NO_NOISE, feet=0.6), batch=400, frames=2)
    with_feet = (scores[:, :, FEET] == 1).all((1, 2))
    np.testing.assert_array_equal(with_feet, (scores[:, :, FEET] > 0).any((1, 2)))
    assert with_feet.mean() == pytest.approx(0.6, abs=0.08) and (scores[:, :, :13] == 1).all()


def test_held_rate_interpolates_every_other_frame():
    _, rays, scores = look(replace(NO_NOISE, jitter=(0.01, 0.01), dropout_share=0.1, held_rate=1.0), frames=40)
    before, between, after = rays[:, 0:38:2], rays[:, 1:39:2], rays[:, 2:40:2]
    np.testing.assert_allclose(between, (before + after) / 2, atol=1e-6)
    assert np.isfinite(between).any() and np.isnan(between).any()
    np.testing.assert_array_equal(scores[:, 1:39:2], np.minimum(scores[:, 0:38:2], scores[:, 2:40:2]))


def test_confidences_fall_with_the_error():
    noise = replace(NO_NOISE, jitter=(0.001, 0.012), burst_share=0.1, scores=True)
    exact, rays, scores = look(noise, batch=60)
    graded = (scores < 1).any((1, 2))
    assert graded.mean() == pytest.approx(0.75, abs=0.15)  # many files carry no confidence
    error = np.linalg.norm(rays - exact, axis=-1)[graded].ravel()
    assert np.corrcoef(error, scores[graded].ravel())[0, 1] < -0.4
    assert 0.05 <= scores.min() and scores.max() == 1


def test_definitions_are_offsets_fixed_to_the_trunk():
    joints, feet = bodies(2)
    joints = np.einsum("ij,ntkj->ntki", camera_rotation(0.3, 0.2, 0.1), joints).astype(np.float32)
    exact = detector_points(joints, feet, NO_NOISE, generator())
    np.testing.assert_array_equal(exact[:, :, :13], joints[:, :, [H36M.index(n) for n in SOURCES]])
    points = detector_points(joints, feet, replace(NO_NOISE, definition=0.022), generator())
    local = np.einsum("ntji,ntkj->ntki", trunk_frames(joints), points - exact)
    fixed = INPUT.indices(["left_shoulder", "right_shoulder", "left_hip", "right_hip"])
    local = local[:, :, fixed]
    np.testing.assert_allclose(local, np.broadcast_to(local[:, :1], local.shape), atol=1e-5)
    assert 0.005 < np.abs(local).mean() < 0.06


def test_face_looks_ahead_of_the_line_from_thorax_to_head():
    joints = walker(1)[0]
    forward, axis = face_forward(joints), joints[H36M.index("head")] - joints[H36M.index("thorax")]
    np.testing.assert_allclose(forward, [0, 0.96, -0.28], atol=1e-5)
    assert forward @ axis == pytest.approx(0, abs=1e-6)
    joints[H36M.index("neck_nose")] = joints[H36M.index("thorax")] + axis / 2
    assert np.linalg.norm(face_forward(joints)) < 0.2  # in one line: no direction, but no NaN either
