"""Layouts against their published definitions, maps against hand-made expectations."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifting.skeletons import (
    BUILT_IN,
    LIFT_JOINTS,
    OPTIONAL_JOINTS,
    Skeleton,
    SkeletonMismatch,
    get_skeleton,
    joint_map,
    list_skeletons,
    read_skeleton,
    register_skeleton,
)

NAMES = sorted(BUILT_IN)
DETECTORS = ("coco17", "coco17_feet", "halpe26", "body25", "mpii16", "mediapipe33")

# As published by the makers of each layout, typed independently of the registry (l = left, r = right).
PUBLISHED = {
    "coco17": "nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hip r_hip l_knee "
    "r_knee l_ankle r_ankle",
    "halpe26": "nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hip r_hip l_knee "
    "r_knee l_ankle r_ankle head neck hip l_big_toe r_big_toe l_small_toe r_small_toe l_heel r_heel",
    "body25": "nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist mid_hip r_hip r_knee r_ankle l_hip "
    "l_knee l_ankle r_eye l_eye r_ear l_ear l_big_toe l_small_toe l_heel r_big_toe r_small_toe r_heel",
    "mpii16": "r_ankle r_knee r_hip l_hip l_knee l_ankle pelvis thorax upper_neck head_top r_wrist r_elbow r_shoulder "
    "l_shoulder l_elbow l_wrist",
    "mediapipe33": "nose l_eye_inner l_eye l_eye_outer r_eye_inner r_eye r_eye_outer l_ear r_ear l_mouth r_mouth "
    "l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_pinky r_pinky l_index r_index l_thumb r_thumb l_hip r_hip "
    "l_knee r_knee l_ankle r_ankle l_heel r_heel l_foot_index r_foot_index",
    "h36m17": "hip r_hip r_knee r_ankle l_hip l_knee l_ankle spine thorax neck_nose head l_shoulder l_elbow l_wrist "
    "r_shoulder r_elbow r_wrist",
    "humaneva15": "pelvis thorax l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist l_hip l_knee l_ankle r_hip "
    "r_knee r_ankle head",
    "smpl24": "pelvis l_hip r_hip spine1 l_knee r_knee spine2 l_ankle r_ankle spine3 l_foot r_foot neck l_collar "
    "r_collar head l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hand r_hand",
    "lift17": "nose l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hip r_hip l_knee r_knee l_ankle r_ankle "
    "l_big_toe r_big_toe l_heel r_heel",
}
KEPT_OF_H36M = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)


def points_of(name: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, get_skeleton(name).num_joints, 2)).astype(np.float32)


def test_the_registry_holds_every_promised_layout():
    assert set(list_skeletons()) >= {*PUBLISHED, "coco17_feet", "h36m32"}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_columns_are_those_published(name):
    expected = [word.replace("l_", "left_", 1) if word.startswith("l_") else
                word.replace("r_", "right_", 1) if word.startswith("r_") else word for word in PUBLISHED[name].split()]
    assert list(get_skeleton(name).joints) == expected


def test_feet_follow_coco_wholebody():
    feet = get_skeleton("coco17_feet")
    assert feet.joints[:17] == get_skeleton("coco17").joints
    assert feet.joints[17:] == ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe",
                                "right_heel")


@pytest.mark.parametrize(("name", "left", "right"), [
    ("mpii16", [3, 4, 5, 13, 14, 15], [0, 1, 2, 10, 11, 12]),
    ("coco17", list(range(1, 17, 2)), list(range(2, 17, 2))),
    ("h36m17", [4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]),
    ("humaneva15", [2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13]),
    ("h36m32", [6, 7, 8, 9, 10, *range(16, 24)], [1, 2, 3, 4, 5, *range(24, 32)]),
])
def test_left_and_right_are_those_of_the_reference(name, left, right):
    skeleton = get_skeleton(name)
    assert list(skeleton.left) == left
    assert sorted(skeleton.right) == right


@pytest.mark.parametrize(("name", "parents"), [
    ("h36m17", [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15]),
    ("humaneva15", [-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1]),
    ("smpl24", [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]),
    ("h36m32", [-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 13, 14, 12, 16, 17, 18, 19, 20, 19, 22, 12, 24, 25, 26, 27,
                28, 27, 30]),
])
def test_parents_are_those_published(name, parents):
    assert list(get_skeleton(name).parents) == parents


@pytest.mark.parametrize("name", NAMES)
def test_flip_swaps_pairs_and_undoes_itself(name):
    skeleton = get_skeleton(name)
    flip = np.array(skeleton.flip)
    assert (flip[flip] == np.arange(skeleton.num_joints)).all()
    assert [flip[left] for left in skeleton.left] == list(skeleton.right)
    for parent, child in skeleton.bones:  # the mirror image of a bone is a bone
        assert (flip[parent], flip[child]) in skeleton.bones


@pytest.mark.parametrize("name", NAMES)
def test_layouts_are_one_tree(name):
    skeleton = get_skeleton(name)
    assert skeleton.parents.count(-1) == 1
    assert len(skeleton.bones) == skeleton.num_joints - 1
    assert skeleton.parents[skeleton.root] == -1


@pytest.mark.parametrize(("alias", "name"), [
    ("COCO-17", "coco17"), ("coco", "coco17"), ("H36M_17", "h36m17"), ("Human3.6M", "h36m17"), ("h36m-32", "h36m32"),
    ("OpenPose BODY-25", "body25"), ("BODY_25", "body25"), ("BlazePose", "mediapipe33"), ("HALPE 26", "halpe26"),
    ("coco17-feet", "coco17_feet"), ("SMPL", "smpl24"), ("HumanEva-15", "humaneva15"), ("MPII", "mpii16"),
])
def test_names_are_found_however_they_are_written(alias, name):
    assert get_skeleton(alias).name == name


@pytest.mark.parametrize("name", ["", "---", "coco18", None, 17])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ValueError, match="known are .*coco17.*h36m17"):
        get_skeleton(name)


def test_joints_are_found_by_name():
    skeleton = get_skeleton("h36m17")
    assert skeleton.index("head") == 10
    assert skeleton.indices(["hip", "right_wrist"]) == (0, 16)
    with pytest.raises(ValueError, match="no joint 'nose'; it has hip"):
        skeleton.index("nose")


# ---- maps


def maps_that_exist() -> list[tuple[str, str]]:
    found = []
    for source in NAMES:
        for target in NAMES:
            try:
                joint_map(source, target)
            except SkeletonMismatch:
                continue
            found.append((source, target))
    return found


def test_every_layout_reaches_the_lifter_and_every_detector_the_drawn_skeleton():
    existing = set(maps_that_exist())
    assert {(name, "lift17") for name in NAMES} <= existing
    assert {(name, "h36m17") for name in DETECTORS} <= existing


@pytest.mark.parametrize(("source", "target"), maps_that_exist())
def test_maps_are_means_that_commute_with_mirroring(source, target):
    mapping = joint_map(source, target)
    sums = mapping.weights.sum(axis=1)
    absent = [joint in mapping.missing for joint in mapping.target.joints]
    np.testing.assert_allclose(sums, np.where(absent, 0, 1), atol=1e-6)
    assert (mapping.weights >= 0).all()
    assert set(mapping.missing) <= set(OPTIONAL_JOINTS.get(target, ()))
    np.testing.assert_array_equal(mapping.weights[list(mapping.target.flip)][:, list(mapping.source.flip)],
                                  mapping.weights)


@pytest.mark.parametrize("name", NAMES)
def test_a_layout_maps_to_itself_as_identity(name):
    np.testing.assert_array_equal(joint_map(name, name).weights, np.eye(get_skeleton(name).num_joints))


def test_h36m32_to_17_selects_the_reference_columns():
    points = points_of("h36m32")
    np.testing.assert_array_equal(joint_map("h36m32", "h36m17").apply(points), points[:, KEPT_OF_H36M])


@pytest.mark.parametrize("source", [name for name in NAMES if name != "lift17"])
def test_limbs_reach_the_lifter_unchanged(source):
    points, skeleton = points_of(source), get_skeleton(source)
    mapped = joint_map(source, "lift17").apply(points)
    for column, joint in enumerate(LIFT_JOINTS[1:13], 1):
        np.testing.assert_array_equal(mapped[:, column], points[:, skeleton.index(joint)])


@pytest.mark.parametrize(("source", "target", "joint", "parts"), [
    ("h36m17", "lift17", "nose", ["neck_nose"]),
    ("mpii16", "lift17", "nose", ["upper_neck", "head_top"]),
    ("humaneva15", "lift17", "nose", ["thorax", "head"]),
    ("smpl24", "lift17", "nose", ["head"]),
    ("coco17", "lift17", "nose", ["nose"]),
    ("mediapipe33", "lift17", "left_big_toe", ["left_foot_index"]),
    ("mediapipe33", "lift17", "right_heel", ["right_heel"]),
    ("h36m32", "lift17", "right_big_toe", ["right_toe_end"]),
    ("halpe26", "lift17", "right_big_toe", ["right_big_toe"]),
    ("body25", "lift17", "left_heel", ["left_heel"]),
    ("coco17", "h36m17", "hip", ["left_hip", "right_hip"]),
    ("coco17", "h36m17", "thorax", ["left_shoulder", "right_shoulder"]),
    ("coco17", "h36m17", "spine", ["left_hip", "right_hip", "left_shoulder", "right_shoulder"]),
    ("coco17", "h36m17", "neck_nose", ["nose"]),
    ("coco17", "h36m17", "head", ["left_ear", "right_ear"]),
    ("mediapipe33", "h36m17", "head", ["left_ear", "right_ear"]),
    ("halpe26", "h36m17", "hip", ["hip"]),
    ("halpe26", "h36m17", "head", ["head"]),
    ("halpe26", "h36m17", "spine", ["hip", "neck"]),
    ("body25", "h36m17", "hip", ["mid_hip"]),
    ("body25", "h36m17", "thorax", ["neck"]),
    ("mpii16", "h36m17", "head", ["head_top"]),
    ("mpii16", "h36m17", "hip", ["pelvis"]),
    ("smpl24", "h36m17", "neck_nose", ["head"]),
    ("humaneva15", "h36m17", "hip", ["pelvis"]),
])
def test_joints_are_made_of_the_right_parts(source, target, joint, parts):
    points, skeleton = points_of(source), get_skeleton(source)
    expected = np.mean([points[:, skeleton.joints.index(part)] for part in parts], axis=0)
    mapped = joint_map(source, target).apply(points)[:, get_skeleton(target).joints.index(joint)]
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


@pytest.mark.parametrize(("source", "target", "missing"), [
    ("coco17", "lift17", {"left_big_toe", "right_big_toe", "left_heel", "right_heel"}),
    ("h36m32", "lift17", {"left_heel", "right_heel"}),
    ("smpl24", "lift17", {"left_big_toe", "right_big_toe", "left_heel", "right_heel"}),
    ("smpl24", "h36m17", {"head"}),
    ("lift17", "h36m17", {"head"}),
    ("halpe26", "lift17", set()),
])
def test_optional_joints_may_be_missing(source, target, missing):
    mapping = joint_map(source, target)
    assert set(mapping.missing) == missing
    absent = np.isnan(mapping.apply(points_of(source))).all(axis=(0, 2))
    assert {mapping.target.joints[i] for i in np.flatnonzero(absent)} == missing


def test_a_map_that_cannot_be_names_what_is_lacking():
    with pytest.raises(SkeletonMismatch, match="'h36m17' cannot be mapped to 'coco17': it lacks nose, left_eye"):
        joint_map("h36m17", "coco17")
    mapping = joint_map("h36m17", "coco17", optional=("nose", "left_eye", "right_eye", "left_ear", "right_ear"))
    assert len(mapping.missing) == 5


def test_nan_of_unused_joints_does_not_spread():
    points = points_of("coco17")
    points[0, get_skeleton("coco17").index("left_ear")] = np.nan
    mapped = joint_map("coco17", "h36m17").apply(points)
    assert np.isnan(mapped[0]).any(axis=-1).nonzero()[0].tolist() == [get_skeleton("h36m17").index("head")]
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 17, C\)"):
        joint_map("coco17", "h36m17").apply(points[:, :16])


# ---- layouts of the user's own


def limbs(prefix: str = "") -> list[str]:
    return [f"{side}_{prefix}{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
            for side in ("left", "right")]


def own_layout(**changes) -> dict:
    joints = ["snout", *limbs("my_")]
    table = {"nose": "snout", **{name: [name.replace("_", "_my_", 1)] for name in limbs()}}
    return {"name": "mine", "joints": joints, "parents": [None] + ["snout"] * 12, "map": table, **changes}


def write(path, data) -> object:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_a_layout_of_the_users_own_reaches_lifter_and_drawing(tmp_path):
    skeleton = read_skeleton(write(tmp_path / "mine.json", own_layout()))
    assert skeleton.parents == (-1, *[0] * 12)
    points = np.random.default_rng(1).normal(size=(2, 13, 2)).astype(np.float32)
    np.testing.assert_array_equal(joint_map(skeleton, "lift17").apply(points)[:, :13], points)
    drawn = joint_map(skeleton, "h36m17")
    assert drawn.missing == ("head",)
    hips = points[:, [skeleton.index("left_my_hip"), skeleton.index("right_my_hip")]].mean(axis=1)
    np.testing.assert_allclose(drawn.apply(points)[:, 0], hips, atol=1e-6)
    assert Skeleton.from_dict(json.loads(json.dumps(skeleton.to_dict()))) == skeleton


def test_same_names_need_no_map(tmp_path):
    data = {"name": "plain", "joints": ["nose", *limbs()], "parents": [-1] + [0] * 12}
    skeleton = read_skeleton(write(tmp_path / "plain.json", data))
    assert len(joint_map(skeleton, "lift17").missing) == 4


def test_a_layout_that_only_shares_the_name_gets_no_table():
    other = Skeleton("h36m17", ("hip", "neck_nose"), (-1, 0))
    with pytest.raises(SkeletonMismatch, match="it lacks nose"):
        joint_map(other, "lift17")


@pytest.mark.parametrize(("changes", "message"), [
    ({"joints": ["a", "a"], "parents": [-1, 0], "map": {}}, "twice: a"),
    ({"joints": ["left_a"], "parents": [-1], "map": {}}, "no 'right_a'"),
    ({"joints": ["a", "b"], "parents": [1, 0], "map": {}}, "cycle"),
    ({"joints": ["a", "b"], "parents": [-1, 2], "map": {}}, "must lie in -1..1"),
    ({"joints": ["a", "b"], "parents": [-1], "map": {}}, "2 joints but 1 parents"),
    ({"joints": ["a", "b"], "parents": [-1, "c"], "map": {}}, "'c' is not among the joints"),
    ({"joints": ["a", "b"], "parents": [-1, 0.5], "map": {}}, "whole numbers"),
    ({"joints": [], "parents": [], "map": {}}, "at least one joint"),
    ({"joints": [1], "parents": [-1], "map": {}}, "not empty"),
    ({"joints": "abc"}, "must be lists"),
    ({"name": " "}, "name that is not empty"),
    ({"map": {"tail": "snout"}}, "unknown target 'tail'"),
    ({"map": {"nose": "tail"}}, "its joints are snout"),
    ({"map": {"nose": []}}, "no joints"),
    ({"map": {"nose": 3}}, "a list of joint names"),
    ({"map": ["nose"]}, "must be an object"),
    ({"map": {"left_hip": "left_my_hip"}}, "not left/right symmetric"),
])
def test_a_bad_layout_is_refused_in_a_sentence(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_skeleton(write(tmp_path / "bad.json", own_layout(**changes)))
    assert "bad.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '{"name": "x"}', "[" * 100_000, "\ud800"])
def test_a_file_that_is_no_layout_is_refused(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match="bad.json"):
        read_skeleton(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.json"):
        read_skeleton(tmp_path / "nowhere.json")


def test_registering(monkeypatch):
    monkeypatch.setattr("lifting.skeletons._registry", dict(BUILT_IN))
    mine = Skeleton("My Own", ("a", "b"), (-1, 0))
    assert register_skeleton(mine) is mine
    assert register_skeleton(mine) is mine
    assert get_skeleton("my-own") == mine
    assert get_skeleton(mine) is mine
    for name in ("coco17", "COCO", "My Own", "my_own"):
        with pytest.raises(ValueError, match="is taken"):
            register_skeleton(Skeleton(name, ("a", "b", "c"), (-1, 0, 0)))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True), st.data())
def test_any_forest_of_pairs_is_a_skeleton(stems, data):
    joints = tuple(f"{side}_{stem}" for stem in stems for side in ("left", "right"))
    parents = tuple(data.draw(st.integers(-1, child - 1)) for child in range(len(joints)))
    skeleton = Skeleton("any", joints, parents)
    assert sorted(skeleton.flip) == list(range(len(joints)))
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton
