from __future__ import annotations

import numpy as np
import pytest

from lifting.foot_locking import bend_leg, correct_path, hold_bone_lengths
from lifting.skeletons import get_skeleton
from lifting.smoothing import cut_off, smooth

TIME = np.arange(400) / 50.0


def test_smoothing_is_the_dense_whittaker_solution():
    values = np.random.default_rng(0).normal(size=(40, 3))
    difference = np.diff(np.eye(40), n=3, axis=0)
    penalty = (2 * np.sin(np.pi * cut_off(0.5) / 50)) ** -6
    weight = np.linspace(0.5, 2, 40)
    expected = np.linalg.solve(np.diag(weight) + penalty * difference.T @ difference, weight[:, None] * values)
    assert np.allclose(smooth(values, 50.0, 0.5, weight), expected)


def test_the_cut_off_passes_half_and_there_is_no_delay():
    wave = np.sin(2 * np.pi * cut_off(0.7) * TIME)
    assert np.allclose(smooth(wave, 50.0, 0.7)[100:-100], wave[100:-100] / 2, atol=0.01)
    values = np.random.default_rng(1).normal(size=50)
    assert np.allclose(smooth(values[::-1], 50.0, 0.6), smooth(values, 50.0, 0.6)[::-1])


def test_parabolas_stay_and_zero_changes_nothing():
    values = 3 + TIME - 2 * TIME**2
    assert np.allclose(smooth(values, 50.0, 1.0), values)
    noise = np.random.default_rng(2).normal(size=30)
    assert (smooth(noise, 50.0, 0.0) == noise).all()


@pytest.mark.parametrize("strength", [-0.1, 1.1, np.nan, "much", True])
def test_strengths_outside_zero_to_one_are_refused(strength):
    with pytest.raises(ValueError, match="from 0"):
        smooth(np.zeros(5), 50.0, strength)


def test_a_bent_leg_reaches_its_target_with_its_own_lengths():
    rng = np.random.default_rng(3)
    leg = np.zeros((50, 3, 3)) + [[0, 0, 0.9], [0, 0.1, 0.5], [0, 0, 0.1]] + rng.normal(size=(50, 3, 3)) * 0.005
    target = leg[:, 2] + rng.normal(size=(50, 3)) * 0.01 + [0, 0, 0.05]
    bent = bend_leg(leg, target, np.tile([0.0, 1.0, 0.0], (50, 1)))
    assert np.allclose(bent[:, 1], target, atol=1e-3)
    after = np.concatenate([leg[:, :1], bent], axis=1)
    lengths = [np.linalg.norm(np.diff(points, axis=1), axis=-1) for points in (leg, after)]
    assert np.allclose(*lengths, atol=1e-6)


def test_a_path_that_drifts_under_a_standing_foot_is_corrected():
    feet = np.zeros((100, 1, 3)) + [0, 0, 0.085]
    drift = np.linspace(0, 0.1, 100)[:, None] * [0.0, 1.0, 0.0]
    view = np.tile([0.0, 1.0, 0.0], (100, 1))
    offset = correct_path(feet + drift[:, None], np.ones((100, 1)), view, 50.0, 0.085)
    assert np.ptp((drift + offset)[:, 1]) < 0.03


def test_held_bones_are_constant_and_alike_on_both_sides():
    skeleton = get_skeleton("h36m17")
    joints = np.random.default_rng(4).normal(size=(20, 17, 3))
    joints -= joints[:, :1]
    held = hold_bone_lengths(joints, skeleton)
    length = np.stack([np.linalg.norm(held[:, c] - held[:, p], axis=-1) for p, c in skeleton.bones])
    assert np.ptp(length, axis=1).max() < 1e-9
    left, right = (skeleton.bones.index((skeleton.index(f"{side}_hip"), skeleton.index(f"{side}_knee")))
                   for side in ("left", "right"))
    assert np.isclose(length[left, 0], length[right, 0])


def test_a_leg_is_stretched_without_a_kink():
    """Knee flexion over a target that moves away: it falls evenly and never snaps straight; a straight leg stays."""
    hip, knee, ankle = np.array([0, 0, 0.85]), np.array([0, 0.15, 0.44]), np.array([0, 0, 0.05])
    steps = np.linspace(0, 0.12, 121)
    leg = np.tile(np.stack([hip, knee, ankle]), (121, 1, 1))
    target = ankle - steps[:, None] * np.array([0, 0, 1.0])
    bent = bend_leg(leg, target, np.tile([0.0, 1.0, 0.0], (121, 1)))
    thigh, shin = bent[:, 0] - hip, bent[:, 1] - bent[:, 0]
    cosine = (thigh * shin).sum(-1) / (np.linalg.norm(thigh, axis=-1) * np.linalg.norm(shin, axis=-1))
    flexion = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    change = np.diff(flexion)
    assert (change < 0).all() and np.abs(np.diff(change)).max() < 0.1  # degrees per millimetre, squared
    near = np.linalg.norm(ankle - hip) + steps < 0.96 * (np.linalg.norm(knee - hip) + np.linalg.norm(ankle - knee))
    np.testing.assert_allclose(bent[near, 1], target[near], atol=1e-9)
    straight = np.tile(np.stack([hip, (hip + ankle) / 2, ankle]), (3, 1, 1))
    np.testing.assert_allclose(bend_leg(straight, straight[:, 2], np.tile([0.0, 1, 0], (3, 1)))[:, 1], straight[:, 2])
