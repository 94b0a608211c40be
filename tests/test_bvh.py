"""BVH files with the joint names of CMU's conversions, against a slow forward kinematics of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner

from experiments.convert_mocap import main
from lifting.datasets.bvh import CMU_UNIT, find_bvh_clips, pose, read_bvh, read_bvh_clip
from lifting.datasets.h36m_joints import build_joints
from lifting.datasets.mocap import JOINTS, read_mocap

# name: parent, offset; `*` stands for an end site
TRUNK = {
    "Hips": ("", (0, 0, 0)),
    "LowerBack": ("Hips", (0, 0, 0)),
    "Spine": ("LowerBack", (0.02, 2.0, -0.1)),
    "Spine1": ("Spine", (0, 2.0, 0.06)),
    "Neck": ("Spine1", (0, 2.1, 0.1)),
    "Neck1": ("Neck", (-0.02, 1.6, 0.16)),
    "Head": ("Neck1", (0.02, 1.6, -0.16)),
    "Head*": ("Head", (0, 1.7, -0.07)),
}
LIMBS = {
    "$HipJoint": ("Hips", (0, 0, 0)),
    "@UpLeg": ("$HipJoint", (1.3, -1.7, 1.1)),
    "@Leg": ("@UpLeg", (2.46, -6.77, 0)),
    "@Foot": ("@Leg", (2.56, -7.05, 0)),
    "@ToeBase": ("@Foot", (0.1, -0.37, 2.2)),
    "@ToeBase*": ("@ToeBase", (0, 0, 1.1)),
    "@Shoulder": ("Spine1", (0, 2.1, 0.1)),
    "@Arm": ("@Shoulder", (3.3, 1.2, -0.2)),
    "@ForeArm": ("@Arm", (5.2, 0, 0)),
    "@Hand": ("@ForeArm", (3.1, 0, 0)),
    "@FingerBase": ("@Hand", (1.6, 0, 0)),
    "@HandIndex1": ("@FingerBase", (0.7, 0, 0)),
    "@HandIndex1*": ("@HandIndex1", (0.6, 0, 0)),
    "$Thumb": ("@Hand", (0, 0, 0)),
    "$Thumb*": ("$Thumb", (0.6, 0, 0.6)),
}
JOINTS_OF_FILE = dict(TRUNK)
for _side, _sign in (("Left", 1), ("Right", -1)):
    for _name, (_parent, (_x, _y, _z)) in LIMBS.items():
        _name, _parent = (text.replace("$", _side[0]).replace("@", _side) for text in (_name, _parent))
        JOINTS_OF_FILE[_name] = (_parent, (_sign * _x, _y, _z))


def channels(name):
    if name.endswith("*"):
        return []
    rotations = ["Zrotation", "Yrotation", "Xrotation"]
    return (["Xposition", "Yposition", "Zposition"] if name == "Hips" else []) + rotations


def file_order(name="Hips"):
    yield name
    for child, (parent, _) in JOINTS_OF_FILE.items():
        if parent == name:
            yield from file_order(child)


def bvh_text(motion, frame_time=1 / 120):
    lines = ["HIERARCHY", *_joint("Hips", 0), "MOTION", f"Frames: {len(motion)}", f"Frame Time: {frame_time:.7f}"]
    return "\n".join([*lines, *(" ".join(f"{value:.9g}" for value in row) for row in motion), ""])


def _joint(name, depth):
    tab = "\t" * depth
    title = "End Site" if name.endswith("*") else f"{'ROOT' if name == 'Hips' else 'JOINT'} {name}"
    lines = [tab + title, tab + "{", f"{tab}\tOFFSET " + " ".join(map(str, JOINTS_OF_FILE[name][1]))]
    if own := channels(name):
        lines.append(f"{tab}\tCHANNELS {len(own)} {' '.join(own)}")
    for child, (parent, _) in JOINTS_OF_FILE.items():
        if parent == name:
            lines += _joint(child, depth + 1)
    return [*lines, tab + "}"]


COUNT = sum(len(channels(name)) for name in JOINTS_OF_FILE)


def random_motion(frames, seed=0, degrees=40.0):
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, frames)[:, None]
    motion = degrees * np.sin(rng.uniform(1, 3, COUNT) * time + rng.uniform(0, 6, COUNT))
    motion[:, :3] = (2, 17, -4) + 3 * time
    return motion


def turn(axis, degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows = {"X": [(1, 0, 0), (0, c, -s), (0, s, c)], "Y": [(c, 0, s), (0, 1, 0), (-s, 0, c)]}
    return np.array(rows.get(axis, [(c, -s, 0), (s, c, 0), (0, 0, 1)]))


def slow_pose(row):
    """Name -> (position, rotation) by walking down the tree, one channel after the other."""
    left = list(row)
    result = {}
    for name in file_order():
        parent, offset = JOINTS_OF_FILE[name]
        place, turns = np.array(offset, dtype=float), np.eye(3)
        for channel in channels(name):
            if channel.endswith("position"):
                place["XYZ".index(channel[0])] = left.pop(0)
            else:
                turns = turns @ turn(channel[0], left.pop(0))
        origin, frame = result.get(parent, (np.zeros(3), np.eye(3)))
        result[name] = (origin + frame @ place, frame @ turns)
    assert not left
    return result


def slow_joints(posed, unit=CMU_UNIT):
    """The 17 joints, Z up, written out from the description of how they are made."""
    at = {name: place * unit for name, (place, _) in posed.items()}

    def length(name):
        return np.linalg.norm(JOINTS_OF_FILE[name][1]) * unit

    chest, head = posed["Spine1"][1], posed["Head"][1]
    points = {
        "Hip": (at["LeftUpLeg"] + at["RightUpLeg"]) / 2,
        "Spine": at["Spine"] * 0.85 + at["Spine1"] * 0.15,
        "Thorax": at["Neck"] + 0.75 * chest @ np.array(JOINTS_OF_FILE["Neck1"][1]) * unit,
        "Nose": at["Head"] + length("Head*") * (0.1 * head[:, 1] + 0.7 * head[:, 2]),
        "Head": at["Head"] + 1.15 * (at["Head*"] - at["Head"]),
    }
    names = {"Hip": "UpLeg", "Knee": "Leg", "Foot": "Foot", "Shoulder": "Arm", "Elbow": "ForeArm"}
    for side in ("Left", "Right"):
        points |= {side[0] + joint: at[side + name] for joint, name in names.items()}
        points[side[0] + "Wrist"] = at[side + "Hand"] * 0.4 + at[side + "FingerBase"] * 0.6
    return np.array([(x, -z, y) for x, y, z in (points[name] for name in JOINTS)])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "13_11.bvh"
    path.write_text(bvh_text(random_motion(6)))
    return path


def test_joints_equal_the_slow_forward_kinematics(file):
    clip = read_bvh(file)
    positions, rotations = pose(clip)
    joints = build_joints(read_bvh_clip(file))
    assert clip.fps == 120.0
    for frame, row in enumerate(random_motion(6)):
        posed = slow_pose(row)
        for index, joint in enumerate(clip.joints):
            place, turns = posed[joint.name.replace(" End", "*")]
            np.testing.assert_allclose(positions[frame, index], place, atol=1e-6, err_msg=joint.name)
            np.testing.assert_allclose(rotations[frame, index], turns, atol=1e-7, err_msg=joint.name)
        np.testing.assert_allclose(joints[frame], slow_joints(posed), atol=1e-7)


def test_order_of_channels_is_the_files(file):
    motion = np.zeros((2, COUNT))
    motion[:, 3:6] = (10, 20, 30)
    text = bvh_text(motion).replace("Zrotation Yrotation Xrotation", "Xrotation Zrotation Yrotation", 1)
    file.write_text(text)
    _, rotations = pose(read_bvh(file))
    np.testing.assert_allclose(rotations[1, 0], turn("X", 10) @ turn("Z", 20) @ turn("Y", 30), atol=1e-12)


def test_unit_scales_all_lengths(file):
    np.testing.assert_allclose(
        build_joints(read_bvh_clip(file, unit=0.01)) * CMU_UNIT / 0.01, build_joints(read_bvh_clip(file))
    )


def test_name_spaces_windows_line_ends_and_case_of_channels(file):
    before = build_joints(read_bvh_clip(file))
    text = file.read_text().replace("JOINT ", "JOINT mixamo:").replace("\n", "\r\n").replace("Zrotation", "ZRotation")
    file.write_bytes(text.encode())
    np.testing.assert_array_equal(build_joints(read_bvh_clip(file)), before)


def test_a_t_pose_put_before_the_motion_is_dropped(file):
    motion = random_motion(120)
    file.write_text(bvh_text(motion))
    assert read_bvh_clip(file).num_frames == 120
    motion[0, 3:] = 0
    file.write_text(bvh_text(motion))
    assert read_bvh_clip(file).num_frames == 119


def _cut_tail(text):
    return text[: text.rindex(" ", 0, len(text) - 40)] + "\n"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: "", "line 1: the file ends here"),
        (lambda text: "hello\n", "line 1: the file does not begin with HIERARCHY"),
        (lambda text: text[: len(text) // 10], r"line \d+: got CHANNELS 3 Zrotation Yrotatio; expected their number"),
        (
            lambda text: text[: text.index("MOTION")],
            r"line \d+: the file ends here; expected more of it; is it cut off",
        ),
        (lambda text: text.replace("}\nMOTION", "MOTION"), r"line \d+: MOTION begins inside the hierarchy"),
        (lambda text: text[: text.rstrip().rindex("\n")], r"line \d+: there are 5 frames; expected 6"),
        (_cut_tail, r"line \d+: got 92 values; expected 96; is the file cut off\?$"),
        (lambda text: text.replace("\n2 17", "\nnan 17", 1), r"line \d+: got 'nan'; expected finite numbers"),
        (lambda text: text.replace("\n2 17", "\n2,5 17", 1), r"line \d+: got '2,5'; expected finite numbers"),
        (lambda text: text.replace("CHANNELS 3", "CHANNELS 2", 1), r"line \d+: got CHANNELS 2 Zrotation"),
        (lambda text: text.replace("Yrotation", "Wrotation", 1), r"line \d+: got CHANNELS 6 .*Wrotation"),
        (lambda text: text.replace("OFFSET 2.46 -6.77 0", "OFFSET 2.46 -6.77"), r"line \d+: got 2 values; expected 3"),
        (lambda text: text.replace("OFFSET 2.46 -6.77 0\n", "\n"), r"line \d+: LeftLeg has no OFFSET"),
        (lambda text: text.replace("Frames: 6", "Frames: -6"), r"line \d+: Frames: -6; expected a whole number"),
        (lambda text: text.replace("Frames: 6", "Frames: six"), r"line \d+: got 'six'"),
        (
            lambda text: text.replace("Frame Time: 0.0083333", "Frame Time: 0"),
            r"line \d+: Frame Time: 0; expected seconds",
        ),
        (lambda text: text.replace("Frame Time:", "Rate:"), r"line \d+: got 'Rate: 0.0083333'; expected Frame Time:"),
        (
            lambda text: text.replace("JOINT LowerBack", "ROOT LowerBack"),
            r"line \d+: got 'ROOT LowerBack'; expected one ROOT",
        ),
        (lambda text: text.replace("JOINT LowerBack", "BONE LowerBack"), r"line \d+: got 'BONE LowerBack'"),
    ],
)
def test_wrong_files_name_file_and_line(file, change, sentence):
    text = change(file.read_text())
    assert text != file.read_text()
    file.write_text(text)
    with pytest.raises(ValueError, match="13_11.bvh, " + sentence):
        read_bvh(file)


def test_other_skeletons_are_refused_by_their_joints(file):
    file.write_text(file.read_text().replace("LeftUpLeg", "lThigh").replace("Spine1", "chest"))
    with pytest.raises(ValueError, match="13_11.bvh lacks the joints LeftUpLeg, Spine1; expected those of CMU"):
        read_bvh_clip(file)


def test_missing_file_and_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.bvh is not a file in"):
        read_bvh(tmp_path / "no.bvh")
    with pytest.raises(FileNotFoundError, match="holds no .bvh file"):
        find_bvh_clips(tmp_path)


def test_command_converts_bvh(tmp_path):
    motion = random_motion(240, degrees=10)
    (tmp_path / "10_01.BVH").write_text(bvh_text(motion))
    output = tmp_path / "mocap.h5"
    result = CliRunner().invoke(main, [str(tmp_path), "--output", str(output)])
    assert result.exit_code == 0, result.output
    (piece,) = read_mocap(output)
    assert (piece.subject, piece.split, piece.kind, len(piece)) == ("10", "val", "bvh", 100)
    expected = slow_joints(slow_pose(motion[0]))
    expected[:, 2] -= piece.attributes["floor_shift"]
    np.testing.assert_allclose(piece.joints[0], expected, atol=3e-4)
    assert np.linalg.norm(piece.feet[0, :2] - piece.feet[0, 2:], axis=-1).min() > 0.2


def test_command_notices_a_wrong_unit(tmp_path):
    (tmp_path / "10_01.bvh").write_text(bvh_text(random_motion(240, degrees=10)))
    result = CliRunner().invoke(main, [str(tmp_path), "--output", str(tmp_path / "mocap.h5"), "--unit", "1"])
    assert result.exit_code == 2 and "10_01.bvh: the leg is" in result.output and "--unit" in result.output
    assert not (tmp_path / "mocap.h5").exists()
