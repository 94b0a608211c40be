"""Tables of joint angles and OpenSim's motion files, read by parsers of this test."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from lifted_takes import HOSTILE, lifted_take, motion_of, walking_joints, walking_person
from test_joint_angles import body_at

from lifting.export import save
from lifting.joint_angles import body_angles, joint_angles
from lifting.motion import Person
from lifting.skeletons import get_skeleton


def read_mot(path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Header lines and columns; checks the numbers that the header states."""
    head, _, table = path.read_text("ascii").partition("endheader\n")
    lines = head.split("\n")
    rows = [line.split("\t") for line in table.rstrip("\n").split("\n")]
    facts = dict(line.split("=") for line in lines if "=" in line)
    assert facts == {"version": "1", "nRows": str(len(rows) - 1), "nColumns": str(len(rows[0])), "inDegrees": "yes"}
    return lines, dict(zip(rows[0], np.array(rows[1:], float).T, strict=True))


def read_table(path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        lines = file.readlines()
    comments = [line for line in lines if line.startswith("#")]
    return comments, list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_a_mot_file_holds_the_coordinates_and_the_root(tmp_path):
    take = lifted_take(walking_person(absent=(2, 3)))
    lines, columns = read_mot(save(take, tmp_path / "walk.mot"))
    motion = take.people[0].motion
    angles = joint_angles(motion, opensim=True)
    np.testing.assert_allclose(columns["time"], take.times[2:-3], atol=1e-6)
    for name in ("knee_angle_r", "hip_flexion_l", "lumbar_extension", "pelvis_tilt", "elbow_flex_l"):
        np.testing.assert_allclose(columns[name], np.degrees(angles[name][2:-3]), atol=1e-5)
    root = motion.trajectory[2:-3][:, [0, 2, 1]] * [1, 1, -1]
    found = np.stack([columns[f"pelvis_t{axis}"] for axis in "xyz"], axis=-1)
    np.testing.assert_allclose(found, root, atol=1e-5)
    assert any("frame: world" in line and "skeleton: h36m17" in line and "50 frames/s" in line for line in lines)
    assert any("do not tell: ankle" in line for line in lines)


def test_what_is_not_observed_for_a_while_is_interpolated_and_named(tmp_path):
    joints = walking_joints()
    hip, knee, ankle = get_skeleton("h36m17").indices(["left_hip", "left_knee", "left_ankle"])
    joints[10:15, ankle] = joints[10:15, knee] + 0.95 * (joints[10:15, knee] - joints[10:15, hip])  # straight legs
    person = walking_person()
    take = lifted_take(Person(1, person.keypoints, motion_of(joints)))
    angles = joint_angles(take.people[0].motion, opensim=True)
    gaps = [name for name in angles.names if np.isnan(angles[name]).any() and np.isfinite(angles[name]).any()]
    assert gaps == ["hip_rotation_l"]
    lines, columns = read_mot(save(take, tmp_path / "walk.mot"))
    assert f"Interpolated where not observed: {', '.join(gaps)}" in lines
    for name in gaps:
        known = np.isfinite(angles[name])
        np.testing.assert_allclose(columns[name][known], np.degrees(angles[name][known]), atol=1e-5)
        assert np.isfinite(columns[name]).all()
    assert not set(columns) & {"ankle_angle_r", "pro_sup_r"}


def test_the_table_has_a_row_for_each_person_and_frame(tmp_path):
    take = lifted_take(walking_person(4), walking_person(9, absent=(5, 0)))
    comments, rows = read_table(save(take, tmp_path / "walk.angles.csv"))
    assert [(row["person"], row["frame"]) for row in rows] == [(p, str(f)) for p in ("4", "9") for f in range(40)]
    angles = joint_angles(take.people[0].motion)
    for name in angles.names:
        found = [float(row[f"{name}_deg"] or "nan") for row in rows[:40]]
        np.testing.assert_allclose(found, np.degrees(angles[name]), atol=1e-4)
    assert {row["left_knee_flexion_deg"] for row in rows[40:45]} == {""}
    assert [float(row["time_s"]) for row in rows[:40]] == take.times.tolist()
    text = "".join(comments)
    for fact in ("degrees", "Grood & Suntay 1983", "frame: world", "person 9: from 17 joints, which do not tell"):
        assert fact in text


def test_fitted_bodies_tell_more(tmp_path):
    take = lifted_take(walking_person(1), walking_person(2))
    body = body_at({"left_ankle": [-15, 0, 0]}, frames=40).replace(person_id=2)
    comments, rows = read_table(save(take, tmp_path / "a.angles.csv", meshes=[body]))
    assert {row["left_ankle_dorsiflexion_deg"] for row in rows[:40]} == {""}
    assert {row["left_ankle_dorsiflexion_deg"] for row in rows[40:]} == {"15.0000"}
    assert any("person 2: from the fitted body lite" in line for line in comments)
    save(take, tmp_path / "a.mot", meshes=[body])
    _, columns = read_mot(tmp_path / "a.person2.mot")
    expected = np.degrees(body_angles(body, opensim=True)["ankle_angle_l"])
    np.testing.assert_allclose(columns["ankle_angle_l"], expected, atol=1e-5)


@pytest.mark.parametrize("suffix", [".mot", ".angles.csv"])
def test_hostile_names_break_nothing(tmp_path, suffix):
    path = save(lifted_take(name=HOSTILE), tmp_path / f"a{suffix}")
    if suffix == ".mot":
        assert len(read_mot(path)[1]["time"]) == 40
    else:
        assert len(read_table(path)[1]) == 40
    assert "</script>" in path.read_text("ascii")  # as text: nothing reads these as HTML


def test_nobody_lifted_is_said(tmp_path):
    person = walking_person()
    for suffix in (".mot", ".angles.csv"):
        with pytest.raises(ValueError, match="nobody in the take 'walk' has a 3D motion"):
            save(lifted_take(type(person)(1, person.keypoints)), tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())
