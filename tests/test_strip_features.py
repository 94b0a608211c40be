"""Features of movie strips: by hand, seen from elsewhere, in the mirror, without evidence."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from body_pieces import VIEWED, body_piece, turned_world

from lifting.anatomy import H36M
from lifting.headings import heading_of, turn_of, turned_by
from lifting.seen_motion import SeenMotion
from lifting.strip_features import (
    EVIDENCE,
    FARTHEST,
    FEATURES,
    PARTS,
    strip_features,
    way_of,
    without_evidence,
    without_motion,
)

STARTS = dict(zip(PARTS, np.cumsum([0, *PARTS.values()]), strict=False))


def part(features: np.ndarray, name: str) -> np.ndarray:
    return features[..., STARTS[name] : STARTS[name] + PARTS[name]]


def noisy(frames: int = 12, seed: int = 0) -> SeenMotion:
    return body_piece(frames, seed, noise=0.03).seen


def numbers_by_hand(seen: SeenMotion, n: int, t: int) -> list[float]:
    """One frame's features with plain loops and trigonometry."""
    joints, names = seen.joints[n, t].astype(float), H36M.joints

    def turn_at(k: int) -> float:
        across = sum(seen.joints[n, k, names.index(f"left_{j}")] - seen.joints[n, k, names.index(f"right_{j}")]
                     for j in ("hip", "shoulder"))  # fmt: skip
        return math.atan2(across[1], across[0])

    def to_person(v) -> list[float]:
        c, s = math.cos(turn_at(t)), math.sin(turn_at(t))
        return [c * v[0] + s * v[1], -s * v[0] + c * v[1], v[2]]

    offsets, scores = [], []
    for k in range(EVIDENCE):
        x, y, z = seen.view[n] @ joints[VIEWED[k]] + seen.root_in_camera[n, t]
        beside = np.array([seen.rays[n, t, k, 0] * z - x, seen.rays[n, t, k, 1] * z - y, 0.0])
        good = seen.scores[n, t, k] > 0 and math.hypot(*beside) < FARTHEST
        offsets += [v / 0.05 for v in to_person(seen.view[n].T @ beside)] if good else [0.0] * 3
        scores.append(float(seen.scores[n, t, k]) if good else 0.0)
    moved = to_person(seen.root[n, t] - seen.root[n, t - 1]) if t else [0.0] * 3
    turned = math.remainder(turn_at(t) - turn_at(t - 1), 2 * math.pi) if t else 0.0
    return [*(v / 0.25 for joint in joints[1:] for v in to_person(joint)), *offsets, *scores,
            *(math.log(s / 0.1) for s in seen.sigma[n, t, 1:]), *to_person(seen.view[n, 2]),
            math.log(seen.root_in_camera[n, t, 2] / 4.0), *(v / 0.05 for v in moved), turned / 0.05]  # fmt: skip


def test_features_are_what_they_are_by_hand():
    seen = noisy()
    seen.scores[0, 3, 4] = 0.0
    seen.rays[0, 5, 2] += 0.2
    features = strip_features(seen)
    assert features.shape == (1, 12, FEATURES) and features.dtype == np.float32
    for t in range(12):
        np.testing.assert_allclose(features[0, t], numbers_by_hand(seen, 0, t), atol=2e-4)
    assert not part(features, "scores")[0, 3, 4] and not part(features, "scores")[0, 5, 2]
    assert not part(features, "offsets")[0, 3, 12:15].any() and not part(features, "offsets")[0, 5, 6:9].any()


@pytest.mark.parametrize("angle", [0.5, 2.0, 4.5])
def test_where_people_stand_and_face_does_not_matter(angle):
    seen = noisy()
    moved = turned_world(seen, angle, np.array([3.0, -2.0, 0.0]))
    np.testing.assert_allclose(strip_features(moved), strip_features(seen), atol=2e-4)


def test_exact_lifts_leave_nothing_beside_the_rays():
    exact = strip_features(body_piece(12).seen)
    assert np.abs(part(exact, "offsets")).max() < 1e-4
    assert np.abs(part(strip_features(noisy()), "offsets")).mean() > 0.1


def test_the_mirror_image_has_mirrored_features():
    seen = noisy()
    one, other = strip_features(seen), strip_features(seen.mirrored())
    flip, across = np.array(H36M.flip)[1:] - 1, np.array([-1, 1, 1])
    joints = part(one, "joints").reshape(1, 12, 16, 3)[:, :, flip] * across
    np.testing.assert_allclose(part(other, "joints").reshape(1, 12, 16, 3), joints, atol=1e-4)
    np.testing.assert_allclose(part(other, "way"), part(one, "way") * [-1, 1, 1, -1], atol=1e-3)
    np.testing.assert_allclose(part(other, "view"), part(one, "view") * across, atol=1e-5)
    np.testing.assert_allclose(np.sort(part(other, "scores")), np.sort(part(one, "scores")), atol=1e-6)


def test_mirrored_twice_is_as_before():
    seen = noisy()
    twice = seen.mirrored().mirrored()
    for field in fields(SeenMotion):
        np.testing.assert_allclose(getattr(twice, field.name), getattr(seen, field.name), atol=1e-6)


def test_without_evidence_is_what_a_motion_without_keypoints_gives():
    seen = noisy()
    bare = SeenMotion(seen.joints, seen.root, seen.sigma)
    assert np.array_equal(without_evidence(strip_features(seen)), strip_features(bare))


def test_without_motion_is_what_a_single_picture_gives():
    seen = noisy()
    still = without_motion(strip_features(seen))
    for t in (0, 7):
        np.testing.assert_allclose(strip_features(seen.cut(slice(t, t + 1)))[:, 0], still[:, t], atol=1e-6)


def test_a_frame_depends_on_none_after_it():
    seen = noisy()
    assert np.array_equal(strip_features(seen.cut(slice(5))), strip_features(seen)[:, :5])


def test_the_way_leads_from_the_first_place_to_the_last():
    seen = noisy(30)
    heading = heading_of(seen.joints, seen.root)
    way = way_of(seen.joints, seen.root, heading.rotation)
    assert not way[:, 0].any()
    turn = turned_by(turn_of(heading)[:, :1] + np.cumsum(way[..., 3], 1))
    np.testing.assert_allclose(turn, heading.rotation, atol=1e-6)
    walked = seen.root[:, :1] + np.cumsum(np.einsum("ntij,nti->ntj", turn, way[..., :3]), 1)
    np.testing.assert_allclose(walked, seen.root, atol=1e-5)
    assert np.abs(way[..., 3]).max() < 1.0  # radians: no jump where the angle goes round


def test_a_heading_of_somebody_elses_choice_turns_all_directions():
    seen = noisy()
    world = replace(heading_of(seen.joints[:, :1], seen.root[:, :1]), rotation=np.eye(3))
    joints = part(strip_features(seen, world), "joints").reshape(1, 12, 16, 3)
    np.testing.assert_allclose(joints * 0.25, seen.joints[:, :, 1:], atol=1e-6)
