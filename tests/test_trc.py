"""TRC files, read by a parser of this test as OpenSim's user guide describes them."""

from __future__ import annotations

import numpy as np
import pytest
from lifted_takes import FPS, HOSTILE, lifted_take, motion_of, walking_joints, walking_person

from lifting.export import save
from lifting.motion import Motion
from lifting.skeletons import Skeleton, get_skeleton

H36M = get_skeleton("h36m17")
SCENE = {"camera": lambda points: points * [1, -1, -1], "world": lambda points: points[..., [0, 2, 1]] * [1, 1, -1]}


class Trc:
    """Header fields, marker names, times and positions (T, M, 3) of a file."""

    def __init__(self, path):
        lines = path.read_text("ascii").split("\n")
        self.first = lines[0].split("\t")
        self.facts = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
        self.names = lines[3].split("\t")[2::3]
        assert lines[3].split("\t")[:2] == ["Frame#", "Time"]
        assert lines[4].split("\t")[2:5] == ["X1", "Y1", "Z1"] and lines[5] == "" and lines[-1] == ""
        rows = [line.split("\t") for line in lines[6:-1]]
        self.frames = [int(row[0]) for row in rows]
        self.times = np.array([float(row[1]) for row in rows])
        self.points = np.array([[float(value or "nan") for value in row[2:]] for row in rows])
        self.points = self.points.reshape(len(rows), -1, 3)
        self.names = self.names[: self.points.shape[1]]


@pytest.mark.parametrize("frame", ["camera", "world"])
def test_markers_are_the_joints(tmp_path, frame):
    take = lifted_take(walking_person(frame=frame))
    trc = Trc(save(take, tmp_path / "walk.trc"))
    np.testing.assert_allclose(trc.points, SCENE[frame](take.people[0].motion.absolute), atol=1e-6)
    assert trc.names == list(H36M.joints)
    assert trc.facts == {"DataRate": "50", "CameraRate": "50", "NumFrames": "40", "NumMarkers": "17", "Units": "m",
                         "OrigDataRate": "50", "OrigDataStartFrame": "1", "OrigNumFrames": "40"}
    np.testing.assert_allclose(trc.times, take.times, atol=1e-6)
    assert trc.first[:3] == ["PathFileType", "4", "(X/Y/Z)"] and len(trc.first) == 4
    assert f"frame: {frame}" in trc.first[3] and "+y up" in trc.first[3] and "skeleton: h36m17" in trc.first[3]


def test_absent_frames_are_left_out_at_the_ends(tmp_path):
    trc = Trc(save(lifted_take(walking_person(absent=(4, 6))), tmp_path / "a.trc"))
    assert trc.frames == list(range(5, 35))
    assert (trc.facts["NumFrames"], trc.facts["OrigDataStartFrame"], trc.facts["OrigNumFrames"]) == ("30", "5", "40")
    assert trc.times[0] == pytest.approx(2 + 4 / FPS)


def test_joints_missing_in_between_are_empty_fields(tmp_path):
    joints = walking_joints()
    joints[20] = np.nan
    person = walking_person()
    person = type(person)(1, person.keypoints, motion_of(joints))
    trc = Trc(save(lifted_take(person), tmp_path / "a.trc"))
    assert np.isnan(trc.points[20]).all() and np.isfinite(np.delete(trc.points, 20, 0)).all()


def test_each_person_has_a_file(tmp_path):
    take = lifted_take(walking_person(3), walking_person(5, absent=(0, 40)), walking_person(8, phase=1.0))
    save(take, tmp_path / "walk.trc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walk.person8.trc", "walk.trc"]
    found = Trc(tmp_path / "walk.person8.trc").points
    np.testing.assert_allclose(found, SCENE["world"](take.people[2].motion.absolute), atol=1e-6)


def test_without_a_trajectory_the_root_stays_and_the_file_says_so(tmp_path):
    person = walking_person()
    person = type(person)(1, person.keypoints, person.motion.replace(trajectory=None))
    trc = Trc(save(lifted_take(person), tmp_path / "a.trc"))
    assert np.abs(trc.points[:, 0]).max() == 0
    assert "root, which stays at the origin" in trc.first[3]


def test_hostile_names_stay_in_their_fields(tmp_path):
    skeleton = Skeleton(HOSTILE, ("a\tb", "a b", "\n1\t2"), (-1, 0, 1))
    person = walking_person()
    motion = Motion(np.zeros((40, 3, 3)), np.zeros((40, 3)), None, skeleton, FPS, "world")
    take = lifted_take(type(person)(1, person.keypoints, motion), name=HOSTILE)
    trc = Trc(save(take, tmp_path / "a.trc"))
    assert trc.names == ["a_b", "a_b2", "_1_2"] and trc.points.shape == (40, 3, 3)


def test_nobody_lifted_is_said(tmp_path):
    person = walking_person()
    with pytest.raises(ValueError, match="nobody in the take 'walk' has a 3D motion, which 'a.trc' would hold"):
        save(lifted_take(type(person)(1, person.keypoints)), tmp_path / "a.trc")
    assert not list(tmp_path.iterdir())
