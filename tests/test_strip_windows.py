"""Windows of lifted motion and true bodies: where they come from, headings, the mirror."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from body_pieces import body_piece, lite

from lifting.datasets.strip_windows import (
    StripBatch,
    StripWindows,
    body_flip,
    every_window,
    make_batch,
    mirrored_rotations,
    stack_seen,
)
from lifting.headings import heading_of
from lifting.models.strips.body import StripBody
from lifting.models.strips.readout import BodyState
from lifting.rotations import rotvec_to_matrix
from lifting.skeletons import mirror_name
from lifting.strip_features import strip_features

FLIP = body_flip(lite().joints)


def pieces(count: int = 3, frames: int = 30, noise: float = 0.03) -> list:
    return [body_piece(frames, seed, noise, name=f"{seed:02d}/0") for seed in range(count)]


def joints_of(batch: StripBatch) -> np.ndarray:
    """Forward kinematics of the true bodies."""
    rotations, way = torch.from_numpy(batch.rotations), torch.from_numpy(batch.way)
    shape = torch.from_numpy(batch.shape)[:, None].expand(-1, rotations.shape[1], -1)
    return StripBody(lite()).joints(BodyState(rotations, shape, way, way)).numpy()


@pytest.mark.parametrize("heading", ["own", "shared"])
def test_the_true_bodies_have_the_true_joints(heading):
    batch = make_batch(pieces(), FLIP, heading)
    np.testing.assert_allclose(joints_of(batch), batch.joints, atol=2e-5)


def test_so_they_have_in_the_mirror_but_for_what_is_not_symmetric_in_the_body():
    batch = make_batch(pieces(), FLIP, mirror=np.array([True, False, True]))
    off = np.linalg.norm(joints_of(batch) - batch.joints, axis=-1)
    assert off[1].max() < 2e-5 and off[[0, 2]].max() < 0.01


def test_mirrored_rotations_twice_are_as_before():
    rotations = rotvec_to_matrix(body_piece(5).rotations)
    once = mirrored_rotations(rotations, FLIP)
    assert not np.allclose(once, rotations, atol=1e-3)
    np.testing.assert_allclose(mirrored_rotations(once, FLIP), rotations, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(once), 1.0)


def test_flip_pairs_left_with_right():
    names = lite().joints
    assert [mirror_name(names[k]) for k in FLIP] == list(names) and (FLIP[FLIP] == np.arange(len(names))).all()


def test_a_mirrored_window_is_the_window_of_the_mirror_image():
    """What is seen is mirrored in the world and told anew; angles of the heading change their sign."""
    some = pieces()
    plain, mirrored = make_batch(some, FLIP), make_batch(some, FLIP, mirror=np.ones(3, bool))
    np.testing.assert_allclose(mirrored.features, strip_features(stack_seen([p.seen for p in some]).mirrored()),
                               atol=1e-5)  # fmt: skip
    np.testing.assert_allclose(mirrored.way, plain.way * [-1, 1, 1, -1], atol=1e-5)
    np.testing.assert_array_equal(mirrored.depth, plain.depth)
    np.testing.assert_allclose(np.linalg.norm(mirrored.joints, axis=-1).sum(-1),
                               np.linalg.norm(plain.joints, axis=-1).sum(-1), rtol=1e-5)  # fmt: skip


def test_a_batch_is_told_in_the_headings_of_what_was_seen():
    some = pieces(2, 8)
    batch = make_batch(some, FLIP)
    for n, piece in enumerate(some):
        for t in range(8):
            turn = heading_of(piece.seen.joints[0, t], piece.seen.root[0, t]).rotation
            np.testing.assert_allclose(batch.heading[n, t], turn, atol=1e-6)
            np.testing.assert_allclose(batch.joints[n, t], piece.joints[t] @ turn.T, atol=1e-6)
            np.testing.assert_allclose(batch.camera[n, t], piece.seen.view[0] @ turn.T, atol=1e-5)
            if t:
                np.testing.assert_allclose(batch.way[n, t, :3], turn @ (piece.root[t] - piece.root[t - 1]), atol=1e-6)


def test_a_shared_heading_is_that_of_the_mean_pose():
    some = pieces(2, 8)
    batch = make_batch(some, FLIP, "shared")
    for n, piece in enumerate(some):
        turn = heading_of(piece.seen.joints[0].mean(0), piece.seen.root[0, 0]).rotation
        np.testing.assert_allclose(batch.heading[n], np.broadcast_to(turn, (8, 3, 3)), atol=1e-6)


def test_frames_lifted_alone_are_another_source_of_the_same_truth():
    some = pieces()
    clip, alone = make_batch(some, FLIP), make_batch(some, FLIP, source="alone")
    np.testing.assert_allclose(alone.features, strip_features(stack_seen([p.alone for p in some])), atol=1e-5)
    assert not np.allclose(clip.features, alone.features, atol=0.1)
    np.testing.assert_allclose(np.linalg.norm(clip.joints, axis=-1), np.linalg.norm(alone.joints, axis=-1), atol=1e-5)


def test_windows_are_a_function_of_the_generator_alone():
    windows = StripWindows(pieces(), FLIP, 12)
    one, same, other = (windows(6, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one.features, other.features) and one.features.shape[:2] == (6, 12)
    assert all(value.dtype == np.float32 for value in one)


def test_windows_come_from_pieces_by_their_length_and_half_are_mirrored():
    long, short = body_piece(61, 0, name="long"), body_piece(22, 1, name="short")
    batch = StripWindows([long, short, body_piece(5, 2)], FLIP, 12)(300, np.random.default_rng(0))
    from_long = np.isclose(batch.shape[:, 0], long.shape[0])
    assert np.isclose(batch.shape[:, 0], short.shape[0])[~from_long].all()
    assert 0.75 < from_long.mean() < 0.9  # 50 places of 61
    forward = make_batch([long], FLIP).way[0, :, 3].mean() > 0
    turns_left = (batch.way[..., 3].mean(1) > 0)[from_long]
    assert 0.4 < (turns_left == forward).mean() < 0.6


def test_clips_without_truth_make_up_their_share():
    windows = StripWindows(pieces(1), FLIP, 12, unlabelled=[body_piece(30, 5)], unlabelled_share=0.25)
    batch = windows(8, np.random.default_rng(0))
    assert batch.labelled.tolist() == [1] * 6 + [0] * 2
    known = np.isclose(batch.shape[:, 0], windows.pieces[0].shape[0])
    assert known.tolist() == [True] * 6 + [False] * 2


def test_every_window_covers_the_pieces():
    cuts = every_window(pieces(2, 30), 12, 6)
    assert len(cuts) == 2 * 4 and all(len(cut) == 12 for cut in cuts)
    np.testing.assert_array_equal(cuts[3].joints, body_piece(30, 0, 0.03).joints[18:30])
    np.testing.assert_array_equal(cuts[3].seen.joints, body_piece(30, 0, 0.03).seen.joints[:, 18:30])


@pytest.mark.parametrize(("options", "said"), [({"heading": "north"}, "heading 'north'"),
                                               ({"source": "x"}, "source 'x'"), ({"frames": 31}, "31 frames"),
                                               ({"unlabelled": [body_piece(11)]}, "12 frames")])  # fmt: skip
def test_impossible_windows_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        replace(StripWindows(pieces(1), FLIP, 12), **options)
