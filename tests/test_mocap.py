"""The .h5 files of motion capture: round trip, choice of pieces, feet, and what damaged files say."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from lifting.datasets.mocap import FEET, JOINTS, MocapPiece, build_feet, read_mocap, write_mocap

HIP_HEIGHT, KNEE_HEIGHT, ANKLE_HEIGHT = 0.93, 0.50, 0.07
ROT24 = (
    "pelvis l_hip r_hip spine1 l_knee r_knee spine2 l_ankle r_ankle spine3 l_foot r_foot neck l_collar r_collar head "
    "l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hand r_hand"
).split()


def standing(frames=4):
    """A person who stands upright at the origin and faces -Y, as rest poses do in the Z-up frame; left is +X."""
    joints = np.zeros((frames, 17, 3), dtype=np.float32)
    joints[..., 2] = 1.2
    for side, x in (("L", 0.1), ("R", -0.1)):
        for joint, height in (("Hip", HIP_HEIGHT), ("Knee", KNEE_HEIGHT), ("Foot", ANKLE_HEIGHT)):
            joints[:, JOINTS.index(side + joint)] = (x, 0.0, height)
    return joints


def piece(name="01_01", subject="01", split="train", frames=4, **changes):
    return MocapPiece(name, subject, "walk", "walk", split, "asf/amc", standing(frames), **changes)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mocap.h5"
    write_mocap(path, [piece(), piece("05_01", "05", "val", 6), piece("14_01", "14")])
    return path


def rotation_file(path, name="01_01", frames=4, **rotvecs):
    scale = 1e-4
    values = np.zeros((frames, 24, 3), dtype=np.int16)
    for joint, rotvec in rotvecs.items():
        values[:, ROT24.index(joint)] = np.round(np.array(rotvec) / scale)
    with h5py.File(path, "w") as file:
        file.attrs["joints"] = ROT24
        file.create_group(name).attrs["scale"] = scale
        file[name]["rotvec"] = values
    return path


def test_round_trip_is_exact_to_half_a_step(tmp_path):
    rng = np.random.default_rng(0)
    joints = (standing(9) + rng.uniform(-3, 3, (9, 17, 3))).astype(np.float32)
    feet = rng.uniform(-1, 1, (9, 4, 3)).astype(np.float32)
    feet[2, 1] = np.nan
    path = tmp_path / "new folder" / "mocap.h5"
    written = MocapPiece(
        "07_01b", "07", "run – fast", "run", "val", "bvh", joints, feet=feet, attributes={"quality": "x"}
    )
    assert write_mocap(path, iter([written])) == 1
    (back,) = read_mocap(path)
    np.testing.assert_allclose(back.joints, joints, atol=0.00013)
    np.testing.assert_allclose(back.feet, feet, atol=0.00013)
    assert np.isnan(back.feet[2, 1]).all()
    assert back.joints.dtype == back.feet.dtype == np.float32
    assert (back.name, back.subject, back.action, back.category) == ("07_01b", "07", "run – fast", "run")
    assert (back.split, back.kind, back.fps, len(back)) == ("val", "bvh", 50.0, 9)
    assert back.attributes["quality"] == "x"


def test_layout_is_the_published_one(file):
    with h5py.File(file) as raw:
        group = raw["05_01"]
        assert list(raw.attrs["joints"]) == list(JOINTS)
        assert group["positions"].dtype == np.int16 and group["positions"].shape == (6, 17, 3)
        assert group.attrs["scale"] == 0.00025
        metres = group["positions"][:].astype("float32") * group.attrs["scale"] + group.attrs["offset"]
    np.testing.assert_allclose(metres, standing(6), atol=0.00013)


def test_a_long_walk_gets_a_coarser_step_instead_of_wrapping_around(tmp_path):
    joints = standing(50)
    joints[..., 0] += np.linspace(0, 40, 50, dtype=np.float32)[:, None]
    write_mocap(tmp_path / "far.h5", [MocapPiece("a", "1", "", "", "train", "", joints)])
    np.testing.assert_allclose(read_mocap(tmp_path / "far.h5")[0].joints, joints, atol=0.001)


def test_pieces_are_chosen_by_split_and_subject(file):
    def names(**choice):
        return [found.name for found in read_mocap(file, **choice)]

    assert names() == ["01_01", "05_01", "14_01"]
    assert names(split="val") == ["05_01"]
    assert names(subjects=["14", "05"]) == ["05_01", "14_01"]
    assert names(split="train", exclude_subjects=("14", "99")) == ["01_01"]


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"split": "test"}, "no split 'test'; it has train, val"),
        ({"subjects": ["77"]}, "no subject '77'; it has 01, 05, 14"),
        ({"subjects": "14"}, "list of strings"),
        ({"split": "val", "subjects": ["14"]}, "ask for less"),
    ],
)
def test_a_choice_without_pieces_is_refused(file, choice, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_mocap(file, **choice)


def test_missing_file_says_where_and_how(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.h5 is not a file in .*experiments.convert_mocap"):
        read_mocap(tmp_path / "nowhere.h5")


def test_not_hdf5_and_truncated_files_are_refused(tmp_path, file):
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        read_mocap(tmp_path / "text.h5")
    (tmp_path / "cut.h5").write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ValueError, match="cannot be read as HDF5|is damaged"):
        read_mocap(tmp_path / "cut.h5")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: f["14_01"].attrs.pop("subject"), "piece 14_01 lacks the attribute 'subject'"),
        (lambda f: f["14_01"].attrs.pop("scale"), "piece 14_01 lacks the attribute 'scale'"),
        (lambda f: f["14_01"].attrs.modify("scale", np.nan), "14_01 has scale nan"),
        (lambda f: f["14_01"].pop("positions"), "14_01 lacks the array 'positions'"),
        (lambda f: f.attrs.pop("joints"), "the file lacks the attribute 'joints'"),
        (lambda f: f.attrs.modify("joints", list(JOINTS)[::-1]), "has the joints RWrist, .*; expected Hip"),
        (lambda f: replace_positions(f, np.zeros((4, 17, 3))), "is float64; expected int16"),
        (lambda f: replace_positions(f, np.zeros((4, 16, 3), np.int16)), r"shape \(4, 16, 3\); expected"),
        (lambda f: replace_positions(f, np.zeros((0, 17, 3), np.int16)), r"shape \(0, 17, 3\)"),
        (lambda f: f.clear(), "holds no pieces"),
    ],
)
def test_damaged_files_name_the_fault(file, damage, sentence):
    with h5py.File(file, "a") as raw:
        damage(raw)
    with pytest.raises(ValueError, match=sentence):
        read_mocap(file)


def replace_positions(file, values):
    del file["14_01"]["positions"]
    file["14_01"]["positions"] = values


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [([], "no motion to write"), ([piece(), piece()], "Two pieces are called '01_01'")],
)
def test_refused_writing_leaves_no_file(tmp_path, pieces, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_mocap(tmp_path / "out.h5", pieces)
    assert list(tmp_path.iterdir()) == []


def test_nan_joints_are_not_written(tmp_path):
    bad = piece()
    bad.joints[1, 3, 0] = np.nan
    with pytest.raises(ValueError, match="01_01 has joints that are not finite"):
        write_mocap(tmp_path / "out.h5", [bad])


# Feet. At rest the person faces +Z with Y up, which is -Y with Z up; feet stay in CMU's frame, spread by 17 degrees.


def feet_of(**rotvecs):
    rotations = {name: np.tile(np.asarray(rotvecs.get(name, (0.0, 0.0, 0.0))), (4, 1)) for name in ROT24}
    feet = build_feet(standing(), rotations)
    return {name: feet[0, index] for index, name in enumerate(FEET)}


SPLAY = np.radians(17.0)
FLAT = {"l_ankle": (0, 0, -SPLAY), "r_ankle": (0, 0, SPLAY)}


def test_flat_feet_touch_the_floor_ahead_of_and_behind_the_ankle():
    feet = feet_of(**FLAT)
    shin = KNEE_HEIGHT - ANKLE_HEIGHT
    for side, x in (("left", 0.1), ("right", -0.1)):
        np.testing.assert_allclose(feet[f"{side}_big_toe"], (x, -0.442 * shin, ANKLE_HEIGHT - 0.14 * shin), atol=1e-6)
        np.testing.assert_allclose(feet[f"{side}_heel"], (x, 0.128 * shin, ANKLE_HEIGHT - 0.135 * shin), atol=1e-6)


def test_turning_the_pelvis_to_the_left_turns_the_toes_to_the_left():
    feet = feet_of(**FLAT, pelvis=(0, np.pi / 2, 0))  # about Y up: +Z turns to +X, the subject's left
    forward = feet["left_big_toe"] - feet["left_heel"]
    np.testing.assert_allclose(forward / np.linalg.norm(forward), (1, 0, 0), atol=0.02)


def test_a_bent_toe_joint_lifts_the_tip_only():
    flat, bent = feet_of(**FLAT), feet_of(**FLAT, l_foot=(-np.radians(30), 0, 0))
    assert bent["left_big_toe"][2] - flat["left_big_toe"][2] == pytest.approx(0.128 * 0.43 * 0.5, abs=0.002)
    np.testing.assert_array_equal(bent["left_heel"], flat["left_heel"])
    np.testing.assert_array_equal(bent["right_big_toe"], flat["right_big_toe"])


def test_reading_with_rotations_gives_feet_to_the_pieces_they_fit(tmp_path, file):
    rotations = rotation_file(tmp_path / "rot24.h5", **FLAT)
    first, second, _ = read_mocap(file, feet=rotations)
    assert second.feet is None
    np.testing.assert_allclose(first.feet[3], list(feet_of(**FLAT).values()), atol=3e-4)
    assert read_mocap(file, feet=rotation_file(tmp_path / "other.h5", frames=5))[0].feet is None


def test_a_missing_rotations_file_is_named(tmp_path, file):
    with pytest.raises(FileNotFoundError, match="nowhere.h5 is not a file in "):
        read_mocap(file, feet=tmp_path / "nowhere.h5")


def test_a_positions_file_given_for_the_rotations_is_refused(file):
    with pytest.raises(ValueError, match="01_01 lacks the array 'rotvec'"):
        read_mocap(file, feet=file)


def test_rotations_without_the_leg_joints_are_refused(tmp_path, file):
    path = rotation_file(tmp_path / "rot24.h5")
    with h5py.File(path, "a") as raw:
        raw.attrs["joints"] = [f"joint{index}" for index in range(24)]
    with pytest.raises(ValueError, match="lacks the joints l_ankle, .*pelvis"):
        read_mocap(file, feet=path)
