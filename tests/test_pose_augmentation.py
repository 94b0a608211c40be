"""Augmented poses: rigid bones, joints within their reach, the announced shares, and smooth in time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from walking_figure import H36M, walker, walker_feet

from lifting.anatomy import bone_lengths, trunk_frames
from lifting.datasets.pose_augmentation import (
    LARGEST_FLEXION,
    LIMBS,
    TURNED,
    PoseRanges,
    augment_poses,
    mix_limbs,
    tumble,
    turn_joints,
)
from lifting.datasets.synthesis import mirror
from lifting.rotations import rotvec_to_matrix

RANGES = PoseRanges()
NOTHING = PoseRanges(mixed=0.0, turned=0.0, tumbling=0.0)
EVERYTHING = PoseRanges(mixed=0.5, turned=1.0, turned_joints=1.0, tumbling=0.5)
HINGES = {
    "left_elbow": ("left_shoulder", "left_elbow", "left_wrist"),
    "right_elbow": ("right_shoulder", "right_elbow", "right_wrist"),
    "left_knee": ("left_hip", "left_knee", "left_ankle"),
    "right_knee": ("right_hip", "right_knee", "right_ankle"),
}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def bodies(batch: int = 6, frames: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Walkers of several sizes in several phases and headings; every third has no feet."""
    joints = np.stack([walker(frames, phase=0.7 * i) * np.float32(0.9 + 0.02 * (i % 9)) for i in range(batch)])
    feet = np.stack([walker_feet(j) for j in joints])
    feet[::3] = np.nan
    turns = rotvec_to_matrix(np.arange(batch)[:, None] * np.array([0, 0, 0.9])).astype(np.float32)
    return joints @ turns.swapaxes(-1, -2)[:, None], feet @ turns.swapaxes(-1, -2)[:, None]


def chosen(*names: str, of: tuple[str, ...], batch: int) -> np.ndarray:
    return np.tile(np.isin(of, names), (batch, 1))


def at(joints: np.ndarray, name: str) -> np.ndarray:
    return joints[..., H36M.index(name), :]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def flexion(joints: np.ndarray, hinge: str) -> tuple[np.ndarray, np.ndarray]:
    """Angle (N, T) and unit normal (N, T, 3) of an elbow or a knee, by the law of cosines and the plane's normal."""
    root, middle, end = (at(joints, name).astype(np.float64) for name in HINGES[hinge])
    upper, lower, span = (np.linalg.norm(v, axis=-1) for v in (middle - root, end - middle, end - root))
    inner = np.arccos(np.clip((upper**2 + lower**2 - span**2) / (2 * upper * lower), -1, 1))
    return np.pi - inner, unit(np.cross(middle - root, end - middle))


def shank_distances(joints: np.ndarray, feet: np.ndarray) -> np.ndarray:
    """All distances (N, T, 2, 4, 4) among knee, ankle, toe and heel of each side."""
    points = np.stack([
        np.stack([at(joints, f"{side}_knee"), at(joints, f"{side}_ankle"), feet[:, :, i], feet[:, :, i + 2]], axis=2)
        for i, side in enumerate(("left", "right"))
    ], axis=2)  # fmt: skip
    return np.linalg.norm(points[..., None, :, :] - points[..., None, :], axis=-1)


# ---- all of it


@pytest.mark.parametrize("seed", range(4))
def test_bones_keep_their_lengths_and_feet_stay_fixed_to_the_shanks(seed):
    joints, feet = bodies()
    moved, moved_feet = augment_poses(joints, feet, generator(seed), EVERYTHING)
    assert moved.dtype == moved_feet.dtype == np.float32
    np.testing.assert_allclose(bone_lengths(moved), bone_lengths(joints), atol=1e-5)
    np.testing.assert_allclose(shank_distances(moved, moved_feet), shank_distances(joints, feet), atol=1e-5)
    assert np.abs(moved - joints).max() > 0.1


def test_unknown_feet_stay_unknown_and_known_ones_known():
    joints, feet = bodies()
    _, moved = augment_poses(joints, feet, generator(), EVERYTHING)
    np.testing.assert_array_equal(np.isnan(moved), np.isnan(feet))


@pytest.mark.parametrize("ranges", [
    NOTHING,
    replace(NOTHING, turned=1.0, turned_joints=1.0, shoulder=0, hip=0, elbow=0, knee=0, neck=0, spine=0),
])  # fmt: skip
def test_no_deviation_is_the_identity(ranges):
    joints, feet = bodies()
    moved, moved_feet = augment_poses(joints, feet, generator(), ranges)
    np.testing.assert_array_equal(moved, joints)
    np.testing.assert_array_equal(moved_feet, feet)


def test_pure_function_of_the_generator():
    joints, feet = bodies()
    kept = joints.copy(), feet.copy()
    first = augment_poses(joints, feet, generator(3), EVERYTHING)
    second = augment_poses(joints, feet, generator(3), EVERYTHING)
    for a, b in zip((*first, joints, feet), (*second, *kept), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("batch, frames", [(1, 1), (1, 2), (2, 700)])
def test_any_size(batch, frames):
    joints, feet = augment_poses(*bodies(batch, frames), generator(), EVERYTHING)
    assert joints.shape == (batch, frames, 17, 3) and feet.shape == (batch, frames, 4, 3)
    assert np.isfinite(joints).all()


def changed_samples(ranges: PoseRanges, batch: int = 600) -> float:
    joints, feet = bodies(batch, 2)
    moved, _ = augment_poses(joints, feet, generator(), ranges)
    return float((np.abs(moved - joints).max((1, 2, 3)) > 1e-4).mean())


@pytest.mark.parametrize("ranges, expected", [
    (replace(NOTHING, mixed=0.1), 1 - 0.9**4),
    (replace(NOTHING, turned=0.5, turned_joints=0.5), 0.5 * (1 - 0.5**10)),
    (replace(NOTHING, turned=0.4, turned_joints=1.0), 0.4),
    (replace(NOTHING, tumbling=0.1), 0.1),
])  # fmt: skip
def test_shares_of_samples(ranges, expected):
    assert changed_samples(ranges) == pytest.approx(expected, abs=0.06)


def test_defaults_hardly_quicken_a_motion():
    joints, feet = bodies(60, 60)
    moved, _ = augment_poses(joints, feet, generator(), replace(RANGES, tumbling=0.0))
    speeds = [np.median(np.linalg.norm(np.diff(j, axis=1), axis=-1)) for j in (joints, moved)]
    assert speeds[0] * 0.9 < speeds[1] < speeds[0] * 1.2


# ---- mixed limbs


def test_limb_of_the_same_body_elsewhere_changes_nothing():
    joints, feet = (np.repeat(values[1:2], 5, axis=0) for values in bodies())
    turns = rotvec_to_matrix(generator().normal(0, 1.5, (5, 3))).astype(np.float32).swapaxes(-1, -2)[:, None]
    joints, feet = joints @ turns + np.float32(2), feet @ turns + np.float32(2)
    moved, moved_feet = mix_limbs(joints, feet, np.ones((5, 4), bool), generator())
    np.testing.assert_allclose(moved, joints, atol=1e-5)
    np.testing.assert_allclose(moved_feet, feet, atol=1e-5)


@pytest.mark.parametrize("limb, bone", [
    ("left_arm", ("left_elbow", "left_wrist")), ("right_leg", ("right_hip", "right_knee")),
])  # fmt: skip
def test_limbs_point_as_some_sample_s_do_and_the_rest_stays(limb, bone):
    joints, feet = bodies()
    moved, _ = mix_limbs(joints, feet, chosen(limb, of=LIMBS, batch=6), generator())
    # The walker's trunk is straight and upright, so that pelvis, thorax and trunk have the same axes.
    ours, theirs = (
        np.einsum("ntji,ntj->nti", trunk_frames(j), unit(at(j, bone[1]) - at(j, bone[0]))) for j in (moved, joints)
    )
    nearest = np.abs(ours[:, None] - theirs[None]).max((2, 3)).argmin(1)
    np.testing.assert_allclose(ours, theirs[nearest], atol=1e-5)
    assert len(set(nearest)) > 1
    side, part = limb.split("_")
    ends = {f"{side}_{name}" for name in (("elbow", "wrist") if part == "arm" else ("knee", "ankle"))}
    rest = [i for i, name in enumerate(H36M.joints) if name not in ends]
    np.testing.assert_array_equal(moved[:, :, rest], joints[:, :, rest])


@pytest.mark.parametrize("left, right", [("left_arm", "right_arm"), ("left_leg", "right_leg")])
def test_mixing_is_mirror_equivariant(left, right):
    everybody = np.ones(6, bool)
    joints, feet = bodies()
    direct = mirror(*mix_limbs(joints, feet, chosen(left, of=LIMBS, batch=6), generator()), everybody)
    swapped = mix_limbs(*mirror(*bodies(), everybody), chosen(right, of=LIMBS, batch=6), generator())
    for a, b in zip(direct, swapped, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


# ---- turned joints


def turn_only(*names: str, ranges: PoseRanges = RANGES, batch: int = 6, frames: int = 40, seed: int = 0):
    joints, feet = bodies(batch, frames)
    where = chosen(*names, of=TURNED, batch=batch)
    return joints, *turn_joints(joints, feet, where, ranges, generator(seed))


@pytest.mark.parametrize("hinge", HINGES)
def test_hinges_bend_about_their_axis_within_their_limits(hinge):
    joints, moved, _ = turn_only(hinge, ranges=PoseRanges(elbow=200.0, knee=200.0), batch=60)
    (before, normal), (after, moved_normal) = flexion(joints, hinge), flexion(moved, hinge)
    assert after.max() <= LARGEST_FLEXION + 1e-3
    assert after.max() > 2.5 and after.min() < 0.1  # both limits are put to the test
    clearly = after > 0.05
    assert ((normal * moved_normal).sum(-1)[clearly] > 0.99).all()  # bent the other way round it would be -1
    assert ((before < after).mean() > 0.3) and ((before > after).mean() > 0.3)


def straightened(hinge: str, bodies: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    joints, feet = bodies
    root, middle, end = H36M.indices(HINGES[hinge])
    joints[:, :, end] = joints[:, :, middle] + 0.9 * (joints[:, :, middle] - joints[:, :, root])
    return joints, feet


@pytest.mark.parametrize("hinge", HINGES)
def test_straight_limbs_bend_the_human_way_only(hinge):
    joints, feet = straightened(hinge, bodies(60))
    end = H36M.index(HINGES[hinge][2])
    moved, _ = turn_joints(joints, feet, chosen(hinge, of=TURNED, batch=60), RANGES, generator())
    forward = trunk_frames(joints)[..., 2]
    ahead = ((moved[:, :, end] - joints[:, :, end]) * forward).sum(-1) * (1 if "elbow" in hinge else -1)
    assert ahead.min() > -1e-5 and 0.2 < (ahead > 0.02).mean() < 0.8  # about half the samples would stretch, and stay


@pytest.mark.parametrize("hinge", HINGES)
def test_hinges_leave_all_above_them_alone(hinge):
    joints, moved, _ = turn_only(hinge)
    end = HINGES[hinge][2]
    rest = [i for i, name in enumerate(H36M.joints) if name != end]
    np.testing.assert_allclose(moved[:, :, rest], joints[:, :, rest], atol=2e-6)
    assert np.abs(at(moved, end) - at(joints, end)).max() > 0.05


def test_at_most_twice_the_deviation_is_drawn():
    joints, moved, _ = turn_only("left_elbow", ranges=PoseRanges(elbow=2.0, variation=0.0), batch=400, frames=2)
    change = np.degrees(flexion(moved, "left_elbow")[0] - flexion(joints, "left_elbow")[0])
    assert 3.5 < np.abs(change).max() < 4.01


def test_hinge_deviation_is_the_asked_one():
    ranges = PoseRanges(elbow=2.0)
    joints, moved, _ = turn_only("left_elbow", ranges=ranges, batch=400, frames=2)
    change = np.degrees(flexion(moved, "left_elbow")[0] - flexion(joints, "left_elbow")[0])
    clipped = generator(1).standard_normal(100000).clip(-2, 2).var()
    assert change.std() == pytest.approx(2.0 * np.sqrt(clipped + ranges.variation**2), rel=0.12)


@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("left, right", [("left_elbow", "right_elbow"), ("left_knee", "right_knee")])
def test_hinges_are_mirror_equivariant(left, right, straight):
    everybody = np.ones(6, bool)
    joints, feet = straightened(left, bodies()) if straight else bodies()
    mirrored = mirror(joints.copy(), feet.copy(), everybody)
    direct = mirror(*turn_joints(joints, feet, chosen(left, of=TURNED, batch=6), RANGES, generator()), everybody)
    swapped = turn_joints(*mirrored, chosen(right, of=TURNED, batch=6), RANGES, generator())
    for a, b in zip(direct, swapped, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("root, end, nowhere, least", [
    ("left_shoulder", "left_elbow", [-0.6, 0, -0.8], 55), ("right_shoulder", "right_elbow", [0.6, 0, -0.8], 55),
    ("left_hip", "left_knee", [-0.45, 0.6, -0.66], 85), ("right_hip", "right_knee", [0.45, 0.6, -0.66], 85),
])  # fmt: skip
def test_limbs_stay_away_from_where_nobody_reaches(root, end, nowhere, least):
    joints, moved, _ = turn_only(root, ranges=PoseRanges(shoulder=60.0, hip=60.0), batch=60)
    local = np.einsum("ntji,ntj->nti", trunk_frames(joints), unit(at(moved, end) - at(moved, root)))
    away = np.degrees(np.arccos(np.clip(local @ unit(np.array(nowhere)), -1, 1)))
    assert least - 0.1 < away.min() < least + 20
    assert away.max() > 150


@pytest.mark.parametrize("name, carried", [
    ("neck", {"neck_nose", "head"}),
    ("spine", {"thorax", "neck_nose", "head"} | {f"{s}_{j}" for s in ("left", "right") for j in
                                                ("shoulder", "elbow", "wrist")}),
])  # fmt: skip
def test_trunk_carries_all_above_it_as_one(name, carried):
    joints, moved, _ = turn_only(name)
    above = [i for i, joint in enumerate(H36M.joints) if joint in carried]
    rest = [i for i in range(17) if i not in above]
    np.testing.assert_array_equal(moved[:, :, rest], joints[:, :, rest])
    distances = [np.linalg.norm(j[:, :, above, None] - j[:, :, None, above], axis=-1) for j in (joints, moved)]
    np.testing.assert_allclose(distances[1], distances[0], atol=1e-5)
    assert (np.abs(moved - joints)[:, :, above].max((1, 2, 3)) > 0.01).all()


def test_a_still_person_moves_smoothly_or_not_at_all():
    joints, feet = (np.repeat(values[:, :1], 100, axis=1) for values in bodies(20))
    where = np.ones((20, len(TURNED)), bool)
    still, _ = turn_joints(joints, feet, where, PoseRanges(variation=0.0), generator())
    np.testing.assert_allclose(still, np.repeat(still[:, :1], 100, axis=1), atol=1e-6)
    moved, _ = turn_joints(joints, feet, where, RANGES, generator())
    acceleration = np.linalg.norm(np.diff(moved, 2, axis=1), axis=-1) * 50**2
    assert 0.3 < acceleration.max() < 3  # m/s^2; a jump of 1 cm is 25
    assert np.ptp(at(moved, "left_wrist"), axis=1).max() > 0.05


# ---- tumbling


def rotations_of(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Linear maps (N, T, 3, 3) that take the figures about their roots into each other, by least squares."""
    a, b = (j.astype(np.float64) - j[:, :, :1] for j in (before, after))
    return np.swapaxes(np.linalg.pinv(a) @ b, -1, -2)


def test_tumbling_turns_about_a_horizontal_axis_at_a_steady_rate():
    joints, feet = bodies(40)
    joints += generator(5).normal(0, 0.05, joints.shape).astype(np.float32)  # flat walkers leave the map open
    moved, _ = tumble(joints, feet, np.ones(40, bool), RANGES, generator())
    turns = rotations_of(joints, moved)
    np.testing.assert_allclose(turns @ turns.swapaxes(-1, -2), np.broadcast_to(np.eye(3), turns.shape), atol=1e-4)
    np.testing.assert_allclose(turns[..., 0, 1], turns[..., 1, 0], atol=1e-4)  # no part about the vertical
    steps = turns[:, 1:] @ turns[:, :-1].swapaxes(-1, -2)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:, :1], steps.shape), atol=1e-3)
    rates = np.degrees(np.arccos(np.clip((np.trace(steps[:, 0], axis1=-2, axis2=-1) - 1) / 2, -1, 1))) * 50
    assert np.sqrt((rates**2).mean()) == pytest.approx(RANGES.tumble_rate, rel=0.3)
    assert turns[:, 0, 2, 2].min() < -0.9 and turns[:, 0, 2, 2].max() > 0.9  # from upside down to upright


def test_tumbling_keeps_the_way_and_the_ground():
    joints, feet = bodies(20)
    where = np.arange(20) < 10
    moved, moved_feet = tumble(joints, feet, where, RANGES, generator())
    np.testing.assert_array_equal(moved[~where], joints[~where])
    np.testing.assert_array_equal(moved_feet[~where], feet[~where])
    np.testing.assert_allclose(moved[:, :, 0, :2], joints[:, :, 0, :2], atol=1e-6)
    np.testing.assert_allclose(moved[..., 2].min((1, 2)), joints[..., 2].min((1, 2)), atol=1e-5)
    rise = moved[:, :, 0, 2] - joints[:, :, 0, 2]
    np.testing.assert_allclose(rise, np.repeat(rise[:, :1], 40, axis=1), atol=1e-5)


def test_still_tumbling_without_a_rate():
    joints, feet = (np.repeat(values[:, :1], 30, axis=1) for values in bodies())
    moved, _ = tumble(joints, feet, np.ones(6, bool), PoseRanges(tumble_rate=0.0), generator())
    np.testing.assert_allclose(moved, np.repeat(moved[:, :1], 30, axis=1), atol=1e-6)
