"""Measures of a figure, against its construction and under rigid motion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation
from walking_figure import FOREARM, H36M, SHIN, STATURE, THIGH, UPPER_ARM, walker

from lifting.anatomy import bone_lengths, frame_from_axes, stature, trunk_frames

VECTORS = hnp.arrays(np.float64, (3,), elements=st.floats(-2, 2, width=32))
ROTVECS = hnp.arrays(np.float64, (3,), elements=st.floats(-3, 3, width=32))


def test_bone_lengths_are_those_the_figure_is_built_of():
    lengths = dict(zip([H36M.joints[child] for _, child in H36M.bones], bone_lengths(walker(20)).T, strict=True))
    expected = {"knee": THIGH, "ankle": SHIN, "elbow": UPPER_ARM, "wrist": FOREARM, "hip": 0.11, "shoulder": 0.19}
    for joint, length in expected.items():
        for side in ("left", "right"):
            np.testing.assert_allclose(lengths[f"{side}_{joint}"], length, atol=1e-6)
    assert len(lengths) == 16


def test_bone_lengths_keep_leading_axes():
    assert bone_lengths(np.zeros((2, 3, 17, 3))).shape == (2, 3, 16)


@given(rotvec=ROTVECS, shift=VECTORS)
def test_stature_is_the_figures_whatever_its_place_and_direction(rotvec, shift):
    moved = Rotation.from_rotvec(rotvec).apply(walker(5).reshape(-1, 3)).reshape(-1, 17, 3) + shift
    assert stature(moved) == pytest.approx(STATURE, abs=1e-5)


def test_stature_leaves_out_frames_with_gaps_and_does_not_care_for_a_few_bad_ones():
    joints = walker(11)
    joints[0, 3] = np.nan
    joints[1] *= 5
    assert stature(joints) == pytest.approx(STATURE, abs=1e-5)
    assert stature(walker(1)[0]) == pytest.approx(STATURE, abs=1e-5)


@pytest.mark.parametrize("joints", [np.empty((0, 17, 3)), np.full((4, 17, 3), np.nan)])
def test_stature_of_nothing_is_refused(joints):
    with pytest.raises(ValueError, match="without a finite frame"):
        stature(joints)


def test_trunk_frame_of_somebody_who_walks_along_y():
    left, up, forward = [-1, 0, 0], [0, 0, 1], [0, 1, 0]
    np.testing.assert_allclose(trunk_frames(walker(3)), np.broadcast_to(np.stack([left, up, forward], -1), (3, 3, 3)),
                               atol=1e-6)


@given(rotvec=ROTVECS)
def test_trunk_frame_turns_with_the_person(rotvec):
    turn = Rotation.from_rotvec(rotvec).as_matrix()
    joints = walker(2).astype(np.float64) + np.random.default_rng(0).normal(0, 0.03, (2, 17, 3))
    np.testing.assert_allclose(trunk_frames(joints @ turn.T), turn @ trunk_frames(joints), atol=1e-9)


@given(first=VECTORS, second=VECTORS)
def test_frames_are_rotations_spanned_by_the_two_axes(first, second):
    frame = frame_from_axes(first, second)
    np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=3e-3)
    assert np.linalg.det(frame) == pytest.approx(1, abs=3e-3)
    sine = np.linalg.norm(np.cross(first, second))
    if sine > 1e-2:
        np.testing.assert_allclose(frame[:, 1], second / np.linalg.norm(second), atol=1e-6)
        assert frame[:, 0] @ first > 0 and frame[:, 2] @ first == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("first", "second"), [
    ([0, 0, 0], [0, 0, 1]), ([1, 0, 0], [0, 0, 0]), ([0, 0, 2], [0, 0, 1]), ([0, 0, -2], [0, 0, 1])])
def test_no_frame_without_extent(first, second):
    np.testing.assert_array_equal(frame_from_axes(np.array(first, float), np.array(second, float)), np.eye(3))
    many = frame_from_axes(np.array([first, [1, 0, 0]], float), np.array([second, [0, 1, 0]], float))
    np.testing.assert_array_equal(many, np.broadcast_to(np.eye(3), (2, 3, 3)))
