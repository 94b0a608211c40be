"""Pairs of a past and a future: frames of reference, variations, and that nothing else is changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lifting.datasets.future_windows import (
    FEATURES,
    JOINTS,
    OUTPUTS,
    SIGMA_OF_TRUTH,
    SIGMA_UNIT,
    FuturePiece,
    FutureWindows,
    Variation,
    decode_future,
    encode_context,
    encode_windows,
)
from lifting.skeletons import get_skeleton

H36M = get_skeleton("h36m17")
CONTEXT, FUTURE = 4, 3
LENGTH = CONTEXT + FUTURE
AS_IT_IS = Variation(0.0, 0.0, 0.0, 0.0, 0.0)


def piece_of(name: str = "a", frames: int = 12, seed: int = 0) -> FuturePiece:
    rng = np.random.default_rng(seed)
    joints = rng.normal(size=(frames, 17, 3)).astype(np.float32)
    joints[:, 0] = 0
    root = np.cumsum(rng.normal(size=(frames, 3)), 0).astype(np.float32)
    seen = joints + 0.1 * rng.normal(size=joints.shape).astype(np.float32)
    seen[:, 0] = 0
    sigma = rng.uniform(0.02, 0.3, size=(frames, 17)).astype(np.float32)
    return FuturePiece(name, joints, root, seen, root + np.float32(0.05), sigma)


def exact_piece(name: str, joints: np.ndarray, root: np.ndarray) -> FuturePiece:
    """A piece whose past is known exactly."""
    return FuturePiece(name, joints, root, joints, root, np.full(joints.shape[:2], SIGMA_OF_TRUTH, np.float32))


def windows_of(piece: FuturePiece) -> list[np.ndarray]:
    arrays = (piece.joints, piece.root, piece.seen_joints, piece.seen_root, piece.seen_sigma)
    return [array[None, :LENGTH] for array in arrays]


def turned(piece: FuturePiece, degrees: float, shift: np.ndarray) -> FuturePiece:
    turn = Rotation.from_euler("z", degrees, degrees=True).as_matrix().T.astype(np.float32)
    return replace(piece, joints=piece.joints @ turn, seen_joints=piece.seen_joints @ turn,
                   root=piece.root @ turn + shift, seen_root=piece.seen_root @ turn + shift)  # fmt: skip


def test_decoding_the_target_gives_the_true_future_in_the_world():
    joints, root, seen, seen_root, sigma = windows_of(piece_of())
    batch = encode_windows(joints, root, seen, seen_root, sigma, CONTEXT)
    features, heading = encode_context(seen[:, :CONTEXT], seen_root[:, :CONTEXT], sigma[:, :CONTEXT])
    np.testing.assert_array_equal(batch.features, features)
    assert batch.features.shape == (1, CONTEXT, FEATURES) and batch.target.shape == (1, FUTURE, OUTPUTS)
    poses, way = decode_future(batch.target, features, root[:, CONTEXT - 1], heading)
    np.testing.assert_allclose(poses, joints[:, CONTEXT:], atol=1e-5)
    np.testing.assert_allclose(way, root[:, CONTEXT:], atol=1e-5)


def test_where_somebody_stands_and_faces_makes_no_difference():
    piece = piece_of()
    other = turned(piece, 77.0, np.array([3.0, -2.0, 0.0], np.float32))
    one, two = (encode_windows(*windows_of(p), CONTEXT) for p in (piece, other))
    np.testing.assert_allclose(two.features, one.features, atol=1e-5)
    np.testing.assert_allclose(two.target, one.target, atol=1e-5)


def test_the_person_faces_ahead_in_the_last_seen_frame():
    joints, root, seen, seen_root, sigma = windows_of(piece_of())
    features, _ = encode_context(seen[:, :CONTEXT], seen_root[:, :CONTEXT], sigma[:, :CONTEXT])
    last = dict(zip(H36M.joints[1:], features[0, -1, : 3 * JOINTS].reshape(JOINTS, 3), strict=True))
    left = last["left_hip"] - last["right_hip"] + last["left_shoulder"] - last["right_shoulder"]
    assert left[0] > 0 and abs(left[1]) < 1e-5
    np.testing.assert_allclose(features[0, -1, 3 * JOINTS : OUTPUTS], 0, atol=1e-6)
    np.testing.assert_allclose(features[0, :, OUTPUTS:], np.log(sigma[0, :CONTEXT, 1:] / SIGMA_UNIT), atol=1e-6)


def test_unvaried_pairs_are_windows_of_the_pieces():
    pieces = [piece_of("a", 9, 1), piece_of("short", LENGTH - 1, 2), piece_of("b", 8, 3)]
    batch = FutureWindows(pieces, CONTEXT, FUTURE, AS_IT_IS)(64, np.random.default_rng(0))
    possible = [encode_windows(*(a[None, k : k + LENGTH] for a in (p.joints, p.root, p.seen_joints, p.seen_root,
                p.seen_sigma)), CONTEXT) for p in pieces for k in range(len(p) - LENGTH + 1)]  # fmt: skip
    known = np.concatenate([p.target for p in possible])
    distance = np.abs(batch.target[:, None] - known).max((-1, -2))
    assert distance.min(1).max() < 1e-5
    # Every window is as likely as any other: three of the long piece, two of the shorter one.
    assert set(distance.argmin(1)) == set(range(5))


def test_a_batch_depends_on_the_generator_alone():
    windows = FutureWindows([piece_of(frames=30)], CONTEXT, FUTURE)
    one, two, other = (windows(16, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.features, two.features)
    np.testing.assert_array_equal(one.target, two.target)
    assert (one.target != other.target).any()


def batch_with(piece: FuturePiece, count: int = 32, **how: float):
    return FutureWindows([piece], CONTEXT, FUTURE, replace(AS_IT_IS, **how))(count, np.random.default_rng(0))


def test_mirrored_pairs_are_those_of_the_mirror_image():
    piece = replace(piece_of(frames=LENGTH))
    flip, sign = np.array(H36M.flip), np.array([-1, 1, 1], np.float32)
    image = FuturePiece("image", piece.joints[:, flip] * sign, piece.root * sign, piece.seen_joints[:, flip] * sign,
                        piece.seen_root * sign, piece.seen_sigma[:, flip])  # fmt: skip
    expected = encode_windows(*windows_of(image), CONTEXT)
    batch = batch_with(piece, mirrored=1.0)
    np.testing.assert_allclose(batch.features, np.repeat(expected.features, 32, 0), atol=1e-5)
    np.testing.assert_allclose(batch.target, np.repeat(expected.target, 32, 0), atol=1e-5)


def test_reversed_pairs_run_backwards():
    piece = piece_of(frames=LENGTH)
    backwards = FuturePiece("b", *(getattr(piece, name)[::-1] for name in
                                   ("joints", "root", "seen_joints", "seen_root", "seen_sigma")))  # fmt: skip
    expected = encode_windows(*windows_of(backwards), CONTEXT)
    np.testing.assert_allclose(batch_with(piece, reversed=1.0).target[:1], expected.target, atol=1e-5)


def test_at_another_speed_frames_lie_between_frames_within_the_limits():
    frames = np.arange(40, dtype=np.float32)
    pose = piece_of(frames=1).joints
    root = np.stack([0 * frames, 0 * frames, frames], -1)  # rises by a metre per frame, whatever the heading
    batch = batch_with(exact_piece("line", np.repeat(pose, 40, 0), root), 200, speed=0.25)
    steps = np.diff(batch.target[:, :, -1], axis=1)
    np.testing.assert_allclose(steps, steps[:, :1] + np.zeros_like(steps), atol=1e-4)
    assert 0.8 - 1e-4 < steps.min() < 0.85 and 1.15 < steps.max() < 1.25 + 1e-4
    assert 0.3 < np.isclose(steps[:, 0], 1, atol=1e-4).mean() < 0.7


def test_size_scales_all_lengths_alike():
    piece = piece_of(frames=LENGTH)
    expected = encode_windows(*windows_of(piece), CONTEXT).target[0]
    factors = batch_with(piece, 100, size=0.1).target / expected
    assert np.ptp(factors, axis=(1, 2)).max() < 1e-2
    assert 1 / 1.1 - 1e-3 < factors.mean((1, 2)).min() < 0.95 and 1.05 < factors.mean((1, 2)).max() < 1.1 + 1e-3


def test_exact_pairs_are_seen_as_they_are():
    piece = piece_of(frames=LENGTH)
    exact = exact_piece("exact", piece.joints, piece.root)
    expected = encode_windows(*windows_of(exact), CONTEXT)
    batch = batch_with(piece, exact=1.0)
    np.testing.assert_allclose(batch.features[:1], expected.features, atol=1e-5)
    np.testing.assert_allclose(batch.features[..., OUTPUTS:], np.log(SIGMA_OF_TRUTH / SIGMA_UNIT), atol=1e-5)


def test_pieces_without_a_pair_are_refused():
    with pytest.raises(ValueError, match="no piece of at least 7 frames"):
        FutureWindows([piece_of(frames=LENGTH - 1)], CONTEXT, FUTURE)
