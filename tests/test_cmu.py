"""Acclaim files: a skeleton with CMU's bones, posed by a second, slow forward kinematics written for this test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner

from experiments.convert_mocap import main
from lifting.datasets.cmu import find_cmu_clips, pose, read_amc, read_asf, read_cmu_clip
from lifting.datasets.conversion import ClipLabels, convert_clip, resample
from lifting.datasets.h36m_joints import BoneMotion, build_joints
from lifting.datasets.mocap import JOINTS, read_mocap

METRES = 0.0254 / 0.45

# name: parent, direction, length, axis (degrees), degrees of freedom
LIMBS = {
    "hipjoint": ("root", (0.54, -0.71, 0.45), 2.4, (0, 0, 0), ""),
    "femur": ("hipjoint", (0.342, -0.9397, 0), 7.2, (0, 0, 20), "rx ry rz"),
    "tibia": ("femur", (0.342, -0.9397, 0), 7.5, (0, 0, 20), "rx"),
    "foot": ("tibia", (0.05, -0.16, 0.985), 2.3, (-90, 0, 20), "rx rz"),
    "toes": ("foot", (0, 0, 1), 1.1, (-90, 0, 20), "rx"),
    "clavicle": ("thorax", (0.93, 0.36, -0.06), 3.5, (0, 0, 0), "ry rz"),
    "humerus": ("clavicle", (1, 0, 0), 5.2, (180, 30, 90), "rx ry rz"),
    "radius": ("humerus", (1, 0, 0), 3.1, (180, 30, 90), "rx"),
    "wrist": ("radius", (1, 0, 0), 1.6, (180, 30, 90), "ry"),
    "hand": ("wrist", (1, 0, 0), 0.7, (180, -30, 90), "rx rz"),
    "fingers": ("hand", (1, 0, 0), 0.6, (0, 0, 0), "rx"),
    "thumb": ("wrist", (0.7, 0, 0.7), 0.8, (0, -45, 0), "rx rz"),
}
TRUNK = {
    "lowerback": ("root", (0.02, 0.99, -0.05), 2.0, (0, 0, 0), "rx ry rz"),
    "upperback": ("lowerback", (0, 0.998, 0.03), 2.0, (0, 0, 0), "rx ry rz"),
    "thorax": ("upperback", (0, 0.998, 0.05), 2.1, (0, 0, 0), "rx ry rz"),
    "lowerneck": ("thorax", (-0.01, 0.99, 0.1), 1.6, (0, 0, 0), "rx ry rz"),
    "upperneck": ("lowerneck", (0.01, 0.99, -0.1), 1.6, (0, 0, 0), "rx ry rz"),
    "head": ("upperneck", (0, 0.999, -0.04), 1.7, (0, 0, 0), "rx ry rz"),
}


def _side(side, bone):
    parent, (x, y, z), length, (a, b, c), dof = bone
    sign = 1 if side == "l" else -1
    return (
        parent if parent in ("root", "thorax") else side + parent,
        (sign * x, y, z),
        length,
        (a, sign * b, sign * c),
        dof,
    )


BONES = TRUNK | {side + name: _side(side, bone) for side in "lr" for name, bone in LIMBS.items()}


def sort_tree(bones):
    done = {"root"}
    while len(done) <= len(bones):
        for name, bone in bones.items():
            if bone[0] in done and name not in done:
                done.add(name)
                yield name


BONES = {name: BONES[name] for name in sort_tree(BONES)}


def asf_text(bones=BONES):
    lines = ["# AST/ASF file", ":version 1.10", ":name VICON", ":units", "  mass 1.0", "  length 0.45", "  angle deg"]
    lines += [":documentation", "   .ast/.asf automatically generated", ":root", "   order TX TY TZ RX RY RZ"]
    lines += ["   axis XYZ", "   position 0 0 0", "   orientation 0 0 0", ":bonedata"]
    for number, (name, (_, direction, length, axis, dof)) in enumerate(bones.items(), start=1):
        lines += ["  begin", f"     id {number}", f"     name {name}"]
        lines += ["     direction " + " ".join(map(str, direction)), f"     length {length}"]
        lines += ["     axis " + " ".join(map(str, axis)) + "  XYZ"]
        if dof:
            lines += [f"    dof {dof}", "    limits (-160.0 20.0)"] + ["           (-70.0 70.0)"] * (
                len(dof.split()) - 1
            )
        lines += ["  end"]
    lines += [":hierarchy", "  begin", "    root lhipjoint rhipjoint lowerback"]
    for parent in bones:
        if children := [name for name, bone in bones.items() if bone[0] == parent]:
            lines += [f"    {parent} {' '.join(children)}"]
    return "\n".join([*lines, "  end", ""])


def random_motion(frames, seed=0, degrees=40.0):
    """Smooth random angles; bone -> (frames, channels)."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, frames)[:, None]
    counts = {"root": 6} | {name: len(bone[4].split()) for name, bone in BONES.items() if bone[4]}
    motion = {
        name: degrees * np.sin(rng.uniform(1, 3, count) * time + rng.uniform(0, 6, count))
        for name, count in counts.items()
    }
    motion["root"][:, :3] = rng.uniform(-5, 5, 3) + (0, 17, 0) + 3 * time
    return motion


def amc_text(motion):
    lines = ["#!OML:ASF F:\\VICON\\USERDATA\\INSTALL\\rory3\\rory3.ASF", ":FULLY-SPECIFIED", ":DEGREES"]
    for frame in range(len(motion["root"])):
        lines += [str(frame + 1)]
        lines += [f"{name} " + " ".join(f"{value:.10g}" for value in values[frame]) for name, values in motion.items()]
    return "\n".join([*lines, ""])


# ---- the slow twin: one frame, one bone, one axis at a time, nothing shared with the library


def turn(axis, degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(
        {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )


def turn_about_fixed_axes(axes, degrees):
    matrix = np.eye(3)
    for axis, angle in zip(axes, degrees, strict=True):
        matrix = turn(axis, angle) @ matrix
    return matrix


def slow_pose(motion, frame):
    root = motion["root"][frame]
    ends, turns = {"root": root[:3] * METRES}, {"root": turn_about_fixed_axes("xyz", root[3:])}
    for name, (parent, direction, length, axis, dof) in BONES.items():
        frame_of_axis = turn_about_fixed_axes("xyz", axis)
        angles = motion[name][frame] if dof else []
        local = turn_about_fixed_axes([channel[1] for channel in dof.split()], angles)
        turns[name] = turns[parent] @ frame_of_axis @ local @ np.linalg.inv(frame_of_axis)
        ends[name] = ends[parent] + turns[name] @ np.array(direction) * length * METRES
    return ends, turns


def slow_joints(ends, turns):
    """The README's list, point by point, then Y up -> Z up."""

    def bone(name):
        return np.array(BONES[name][1]) * BONES[name][2] * METRES

    def between(a, b, share):
        return ends[a] * (1 - share) + ends[b] * share

    head = np.linalg.norm(bone("head"))
    points = {
        "Hip": between("lhipjoint", "rhipjoint", 0.5),
        "Spine": between("lowerback", "upperback", 0.15),
        "Thorax": ends["thorax"] + turns["thorax"] @ (0.75 * bone("lowerneck")),
        "Nose": ends["upperneck"] + turns["head"] @ np.array([0, 0.1 * head, 0.7 * head]),
        "Head": between("upperneck", "head", 1.15),
    }
    names = {"Hip": "hipjoint", "Knee": "femur", "Foot": "tibia", "Shoulder": "clavicle", "Elbow": "humerus"}
    for side in "lr":
        points |= {side.upper() + joint: ends[side + bone] for joint, bone in names.items()}
        points[side.upper() + "Wrist"] = between(side + "radius", side + "wrist", 0.6)
    return np.array([(x, -z, y) for x, y, z in (points[name] for name in JOINTS)])


@pytest.fixture
def folder(tmp_path):
    subject = tmp_path / "subjects" / "14"
    subject.mkdir(parents=True)
    (subject / "14.asf").write_text(asf_text())
    (subject / "14_02.amc").write_text(amc_text(random_motion(5)))
    return subject


def read(folder):
    return read_cmu_clip(folder / "14.asf", folder / "14_02.amc")


def test_bones_and_joints_equal_the_slow_forward_kinematics(folder):
    bones = read(folder)
    joints = build_joints(bones)
    motion = random_motion(5)
    for frame in range(5):
        ends, turns = slow_pose(motion, frame)
        for name in BONES:
            np.testing.assert_allclose(bones.ends[name][frame], ends[name], atol=2e-6, err_msg=name)
            np.testing.assert_allclose(bones.rotations[name][frame], turns[name], atol=2e-6, err_msg=name)
        np.testing.assert_allclose(joints[frame], slow_joints(ends, turns), atol=2e-6)


def test_lengths_are_metres(folder):
    joints = build_joints(read(folder))
    shin = np.linalg.norm(joints[:, JOINTS.index("LFoot")] - joints[:, JOINTS.index("LKnee")], axis=-1)
    np.testing.assert_allclose(shin, 7.5 / 0.45 * 2.54 / 100, rtol=1e-4)


def test_order_of_degrees_of_freedom_and_root_channels_is_the_files(tmp_path):
    text = asf_text().replace("order TX TY TZ RX RY RZ", "order RZ TX RY TZ RX TY").replace("dof rx rz", "dof rz rx")
    (tmp_path / "1.asf").write_text(text)
    motion = random_motion(3)
    shuffled = {
        name: values[:, ::-1] if BONES.get(name, [""])[-1] == "rx rz" else values for name, values in motion.items()
    }
    shuffled["root"] = motion["root"][:, [5, 0, 4, 2, 3, 1]]
    (tmp_path / "1.amc").write_text(amc_text(shuffled))
    skeleton = read_asf(tmp_path / "1.asf")
    bones = pose(skeleton, read_amc(tmp_path / "1.amc", skeleton), 120.0)
    root = motion["root"][2]
    expected = turn("x", root[3]) @ turn("y", root[4]) @ turn("z", root[5])
    np.testing.assert_allclose(bones.rotations["root"][2], expected, atol=2e-6)
    np.testing.assert_allclose(bones.ends["root"][2], root[:3] * METRES, atol=2e-6)
    frame = turn_about_fixed_axes("xyz", BONES["lfoot"][3])
    local = frame @ turn("x", motion["lfoot"][2, 0]) @ turn("z", motion["lfoot"][2, 1]) @ frame.T
    np.testing.assert_allclose(bones.rotations["lfoot"][2], bones.rotations["ltibia"][2] @ local, atol=2e-6)


def test_radians(folder):
    motion = {name: values.copy() for name, values in random_motion(3).items()}
    for name, values in motion.items():
        values[:, 3 if name == "root" else 0 :] *= math.pi / 180
    skeleton = read_asf(folder / "14.asf")
    (folder / "radians.amc").write_text(amc_text(motion).replace(":DEGREES", ":RADIANS"))
    (folder / "degrees.amc").write_text(amc_text(random_motion(3)))
    radians, degrees = (read_amc(folder / f"{name}.amc", skeleton) for name in ("radians", "degrees"))
    np.testing.assert_allclose(radians["lhumerus"], degrees["lhumerus"], atol=1e-5)


def test_every_motion_finds_its_skeleton(folder):
    assert find_cmu_clips(folder.parents[1]) == [(folder / "14.asf", folder / "14_02.amc")]
    (folder / "15_01.amc").write_text("")
    assert find_cmu_clips(folder)[1] == (folder / "14.asf", folder / "15_01.amc")
    (folder / "16.asf").write_text("")
    with pytest.raises(FileNotFoundError, match="15_01.amc has 2 skeletons beside it; expected 15.asf"):
        find_cmu_clips(folder)


def test_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no .amc file"):
        find_cmu_clips(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("length 0.45", "length -1", r"14.asf, line \d+: the length unit is -1"),
        ("length 0.45", "length", r"14.asf, line \d+: got ''; expected one number"),
        (":bonedata", ":bones", r"no section :bonedata"),
        ("length 7.5", "length nan", r"14.asf, line \d+: got 'nan'; expected one number"),
        (
            "direction 0.342 -0.9397 0",
            "direction 0.342 -0.9397",
            r"14.asf, line \d+: got '0.342 -0.9397'; expected 3 numbers",
        ),
        ("dof ry\n", "dof ty\n", r"14.asf, line \d+: the degrees of freedom are 'ty'"),
        ("name lfemur", "name rfemur", r"14.asf, line \d+: a bone is called 'rfemur'"),
        ("    lfemur ltibia", "    lfemur elbow", r"14.asf, line \d+: the hierarchy names 'elbow'"),
        ("    root lhipjoint", "    root", r"14.asf, line \d+: 'lhipjoint' has children before"),
        ("order TX TY TZ RX RY RZ", "order TX TY TZ", r"14.asf, line \d+: the root's order is 'tx ty tz'"),
        ("axis XYZ", "axis UVW", r"14.asf, line \d+: the axis is '0 0 0 UVW'"),
    ],
)
def test_wrong_skeletons_name_file_and_line(folder, old, new, sentence):
    text = asf_text()
    assert old in text
    (folder / "14.asf").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=sentence):
        read_asf(folder / "14.asf")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated_skeletons(folder, share):
    text = asf_text()
    (folder / "14.asf").write_text(text[: int(len(text) * share)])
    with pytest.raises(ValueError, match=r"14.asf, line \d+: .*cut off"):
        read_asf(folder / "14.asf")


def test_skeleton_without_a_needed_bone(folder):
    bones = {name: bone for name, bone in BONES.items() if name not in ("head", "ltoes")}
    (folder / "14.asf").write_text(asf_text(bones))
    with pytest.raises(ValueError, match="14.asf lacks the bones head, ltoes"):
        read(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[: text.rindex("lradius")], r"line \d+: frame 5 ends without .*lradius"),
        (lambda text: text[: text.rindex("lhumerus") + 14], r"line \d+: lhumerus has \d values; expected 3"),
        (lambda text: text.replace("lfemur", "tail", 1), r"line \d+: the bone 'tail' is not in the skeleton"),
        (lambda text: text.replace("ltibia ", "ltibia nan #", 1), r"line \d+: ltibia has 2 values; expected 1"),
        (lambda text: text.replace("ltibia ", "ltibia nan\nhead 1 2 3 #", 1), r"line \d+: got 'nan'; expected finite"),
        (lambda text: text.replace("\n2\n", "\n", 1), r"line \d+: root has 2 lines in 1 frames"),
        (lambda text: text.replace("\n1\n", "\n", 1), r"line 4: got 'root .*before the first frame"),
        (lambda text: ":DEGREES\n", r"line 1: there is no frame"),
        (lambda text: "", r"line 1: there is no frame"),
    ],
)
def test_wrong_motions_name_file_and_line(folder, change, sentence):
    (folder / "14_02.amc").write_text(change(amc_text(random_motion(5))))
    with pytest.raises(ValueError, match="14_02.amc, " + sentence):
        read(folder)


# ---- conversion: 50 Hz, cuts, floor


def still_bones(frames, fps=120.0):
    """The rest pose, for some frames; lowest toes 0.2 m below the origin."""
    motion = {name: np.zeros((frames, values.shape[1])) for name, values in random_motion(2).items()}
    ends, turns = slow_pose(motion, 0)
    lift = -0.2 - min(ends["ltoes"][1], ends["rtoes"][1])
    return BoneMotion(
        ends={name: np.tile(end + (0, lift, 0), (frames, 1)) for name, end in ends.items()},
        rotations={name: np.tile(matrix, (frames, 1, 1)) for name, matrix in turns.items()},
        rest={name: np.array(bone[1]) * bone[2] * METRES for name, bone in BONES.items()},
        fps=fps,
    )


def test_the_lowest_toes_lie_on_the_floor_and_time_is_kept():
    bones = still_bones(241)
    for end in bones.ends.values():
        end[:, 0] += np.linspace(0, 1, 241)
    (piece,) = convert_clip(bones, ClipLabels("01_01", "01"))
    assert len(piece) == 101 and piece.fps == 50.0 and piece.split == "train"
    ankle = bones.ends["ltibia"][0, 1] + 0.2
    np.testing.assert_allclose(piece.joints[:, JOINTS.index("LFoot"), 2], ankle, atol=1e-5)
    np.testing.assert_allclose(np.diff(piece.joints[:, 0, 0]), 0.01, atol=1e-5)
    assert piece.attributes["floor_shift"] == pytest.approx(-0.2)
    assert piece.attributes["source_fps"] == 120.0
    assert piece.attributes["max_joint_speed"] == pytest.approx(0.5, abs=0.01)


def test_feet_are_level_in_the_rest_pose_of_spread_legs():
    bones = still_bones(120)
    (piece,) = convert_clip(bones, ClipLabels("01_01", "01"))
    toes, heels = piece.feet[0, :2], piece.feet[0, 2:]
    np.testing.assert_allclose(toes[:, 1] - heels[:, 1], -0.57 * 7.5 * METRES, atol=1e-3)  # toes ahead: rest faces -Y
    shin = piece.joints[0, JOINTS.index("LFoot")] - piece.joints[0, JOINTS.index("LKnee")]
    down = heels[0] - piece.joints[0, JOINTS.index("LFoot")]
    np.testing.assert_allclose(
        (down / np.linalg.norm(down[[0, 2]]))[[0, 2]], shin[[0, 2]] / np.linalg.norm(shin), atol=1e-3
    )


def test_pieces_are_cut_where_a_marker_jumps():
    bones = still_bones(500, fps=50.0)
    bones.ends["lradius"][200] += 0.3  # 0.3 m in one frame and back: 1500 m/s^2 at the middle
    bones.ends["lwrist"][450:] += 0.5  # leaves less than MIN_FRAMES behind
    first, second = convert_clip(bones, ClipLabels("05_03", "05"))
    assert (first.name, second.name) == ("05_03", "05_03b")
    assert len(first) == 197 and second.attributes["first_frame"] == 204 and len(second) == 449 - 2 - 204
    assert first.split == "val"
    for piece in (first, second):
        acceleration = np.linalg.norm(np.diff(piece.joints, 2, axis=0), axis=-1).max() * 2500
        assert acceleration < 350


def test_too_short_clips_give_nothing():
    assert convert_clip(still_bones(100), ClipLabels("01_01", "01")) == []
    assert convert_clip(still_bones(1), ClipLabels("01_01", "01")) == []


def test_a_wrong_length_unit_is_noticed():
    bones = still_bones(120)
    for end in bones.ends.values():
        end *= 18.0
    with pytest.raises(ValueError, match="the leg is 14.9 m long; expected 0.4 to 1.4 m"):
        convert_clip(bones, ClipLabels("01_01", "01"))


@pytest.mark.parametrize("source", [60.0, 120.0, 30.0])
def test_resampling_follows_smooth_motion(source):
    times = np.arange(int(3 * source) + 1) / source
    result = resample(np.sin(4 * times)[:, None], source, 50.0)
    assert len(result) == 151
    np.testing.assert_allclose(result[:, 0], np.sin(4 * np.arange(151) / 50), atol=1e-4)


# ---- the command


def test_command_converts_a_folder(folder, tmp_path):
    (folder / "14_02.amc").write_text(amc_text(random_motion(240, degrees=10)))
    (tmp_path / "labels.csv").write_text("clip,category,action,fps\n14_02,dance,slow turn,60\n")
    output = tmp_path / "out" / "mocap.h5"
    arguments = [str(folder), "--output", str(output), "--labels", str(tmp_path / "labels.csv")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "1 pieces, 200 frames" in result.output
    (piece,) = read_mocap(output)
    assert (piece.name, piece.subject, piece.kind) == ("14_02", "14", "asf/amc")
    assert (piece.category, piece.action) == ("dance", "slow turn")
    assert piece.feet is not None and np.isfinite(piece.feet).all()
    expected = slow_joints(*slow_pose(random_motion(240, degrees=10), 0))
    expected[:, 2] -= piece.attributes["floor_shift"]
    np.testing.assert_allclose(piece.joints[0], expected, atol=3e-4)


def test_command_stops_at_a_broken_file_or_leaves_it_out(folder, tmp_path):
    (folder / "14_02.amc").write_text(amc_text(random_motion(240, degrees=10)))
    (folder / "14_03.amc").write_text("1\nroot 1 2\n")
    output = tmp_path / "mocap.h5"
    stopped = CliRunner().invoke(main, [str(folder), "--output", str(output)])
    assert stopped.exit_code == 2 and "14_03.amc, line 2: root has 2 values" in stopped.output
    assert not output.exists()
    skipped = CliRunner().invoke(main, [str(folder), "--output", str(output), "--skip-bad"])
    assert skipped.exit_code == 0 and "left out: " in skipped.output
    assert [piece.name for piece in read_mocap(output)] == ["14_02"]


def test_command_on_an_empty_folder(tmp_path):
    result = CliRunner().invoke(main, [str(tmp_path)])
    assert result.exit_code == 2 and "holds no .amc and no .bvh file" in result.output


def test_interrupting_keeps_what_is_done(folder, tmp_path, monkeypatch):
    for number in (2, 3):
        (folder / f"14_0{number}.amc").write_text(amc_text(random_motion(240, degrees=10)))

    def interrupted(asf, amc, fps):
        if amc.stem == "14_03":
            raise KeyboardInterrupt
        return read_cmu_clip(asf, amc, fps)

    monkeypatch.setattr("experiments.convert_mocap.read_cmu_clip", interrupted)
    result = CliRunner().invoke(main, [str(folder), "--output", str(tmp_path / "mocap.h5")])
    assert result.exit_code == 0 and "Interrupted" in result.output
    assert [piece.name for piece in read_mocap(tmp_path / "mocap.h5")] == ["14_02"]
