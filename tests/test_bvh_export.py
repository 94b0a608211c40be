"""BVH files: read by a parser of this test, which shares no code with the writer, and by the library's other reader."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moving_body import FPS, moving_mesh
from scipy.spatial.transform import Rotation

from lifting.datasets.bvh import pose, read_bvh
from lifting.export.bvh import end_offsets, euler_zxy, write_bvh
from lifting.export.scene import plain_names

SCENE = {"camera": lambda points: points * [1, -1, -1], "world": lambda points: points[..., [0, 2, 1]] * [1, 1, -1]}


class Bvh:
    """Joints with parents, offsets and channels; values per frame."""

    def __init__(self, path):
        words = iter(path.read_text("ascii").split())
        self.names, self.parents, self.offsets, self.channels, stack = [], [], [], [], []
        while (word := next(words)) != "MOTION":
            if word in ("ROOT", "JOINT", "End"):
                name = next(words)
                self.names.append("" if word == "End" else name)
                self.parents.append(stack[-1] if stack else -1)
            elif word == "{":
                stack.append(len(self.names) - 1)
            elif word == "}":
                stack.pop()
            elif word == "OFFSET":
                self.offsets.append([float(next(words)) for _ in range(3)])
            elif word == "CHANNELS":
                self.channels += [(len(self.names) - 1, next(words)) for _ in range(int(next(words)))]
        assert next(words) == "Frames:"
        frames = int(next(words))
        assert [next(words), next(words)] == ["Frame", "Time:"]
        self.frame_time = float(next(words))
        self.values = np.array(list(words), float).reshape(frames, len(self.channels))

    def joints(self) -> dict[str, np.ndarray]:
        """Positions (T, 3) by name: channels are applied one after the other, as the format says."""
        matrices = np.tile(np.eye(4), (len(self.names), len(self.values), 1, 1))
        matrices[:, :, :3, 3] = np.array(self.offsets)[:, None]
        for (joint, channel), column in zip(self.channels, self.values.T, strict=True):
            axis = "XYZ".index(channel[0])
            if channel.endswith("position"):
                matrices[joint, :, axis, 3] += column
            else:
                matrices[joint, :, :3, :3] @= Rotation.from_euler(channel[0], column[:, None], degrees=True).as_matrix()
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                matrices[joint] = matrices[parent] @ matrices[joint]
        return {name: matrices[joint, :, :3, 3] for joint, name in enumerate(self.names)}


@pytest.mark.parametrize("frame", ["camera", "world"])
@pytest.mark.parametrize(("unit", "scale"), [("cm", 100), ("m", 1)])
def test_joints_come_back(tmp_path, frame, unit, scale):
    mesh = moving_mesh(frame=frame)
    [path] = write_bvh(mesh, tmp_path / "a.bvh", unit=unit)
    bvh, expected = Bvh(path), SCENE[frame](mesh.joint_positions())
    found = bvh.joints()
    for joint, name in enumerate(mesh.joints):
        np.testing.assert_allclose(found[name] / scale, expected[:, joint], atol=1e-4)
    assert bvh.frame_time == pytest.approx(1 / FPS)
    assert [channel for _, channel in bvh.channels[:6]] == ["Xposition", "Yposition", "Zposition", "Zrotation",
                                                            "Xrotation", "Yrotation"]


def test_the_library_reads_it_too(tmp_path):
    mesh = moving_mesh()
    clip = read_bvh(write_bvh(mesh, tmp_path / "a.bvh")[0])
    positions = pose(clip)[0]
    for number, joint in enumerate(clip.joints):
        if not joint.name.endswith(" End"):
            expected = mesh.joint_positions()[:, mesh.joints.index(joint.name)] * [1, -1, -1]
            np.testing.assert_allclose(positions[:, number] / 100, expected, atol=1e-4)
    assert clip.fps == FPS


def test_bones_end_where_the_surface_does():
    mesh = moving_mesh()
    ends = end_offsets(mesh)
    assert {mesh.joints[joint] for joint in ends} == {"head", "left_foot", "right_foot", "left_wrist", "right_wrist"}
    head, wrist = (ends[mesh.joints.index(name)] for name in ("head", "left_wrist"))
    assert head[1] == pytest.approx(0.2, abs=0.05)
    assert wrist[0] > 0.08 and wrist[1] < -0.05
    bare = mesh.replace(rest_vertices=np.zeros((0, 3)), faces=np.zeros((0, 3)), bone_indices=np.zeros((0, 1)),
                        bone_weights=np.zeros((0, 1)))
    wrist = mesh.joints.index("left_wrist")
    bone = mesh.rest_joints[wrist] - mesh.rest_joints[mesh.parents[wrist]]
    np.testing.assert_allclose(end_offsets(bare)[wrist], bone / 2, rtol=1e-5)


def test_each_person_has_a_file_and_absence_holds_the_nearest_pose(tmp_path):
    first, second = moving_mesh(0, 3), moving_mesh(1, 7, absent=(4, 6))
    paths = write_bvh([first, second], tmp_path / "walk.v2.bvh")
    assert [path.name for path in paths] == ["walk.v2.bvh", "walk.v2.person7.bvh"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    found, expected = Bvh(paths[1]).joints()["head"] / 100, second.joint_positions()[:, 15] * [1, -1, -1]
    np.testing.assert_allclose(found, expected[[4] * 4 + list(range(4, 14)) + [13] * 6], atol=1e-4)


def test_if_one_person_cannot_be_written_none_is(tmp_path):
    (tmp_path / "a.person1.bvh").mkdir()
    with pytest.raises(OSError, match=r"a\.person1\.bvh"):
        write_bvh([moving_mesh(), moving_mesh(1, 1)], tmp_path / "a.bvh")
    assert [path.name for path in tmp_path.iterdir()] == ["a.person1.bvh"]


def test_long_clips_are_the_same_in_chunks(tmp_path, monkeypatch):
    whole = write_bvh(moving_mesh(frames=50), tmp_path / "a.bvh")[0].read_text()
    monkeypatch.setattr("lifting.export.bvh.CHUNK", 7)
    assert write_bvh(moving_mesh(frames=50), tmp_path / "b.bvh")[0].read_text() == whole


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-8, 8)] * 3), min_size=1, max_size=6))
def test_euler_angles_are_exact_also_in_gimbal_lock(eighths):
    angles = np.array(eighths) * np.pi / 4  # every second middle angle is a right angle
    rotations = Rotation.from_euler("ZXY", angles).as_matrix()
    np.testing.assert_allclose(Rotation.from_euler("ZXY", euler_zxy(rotations)).as_matrix(), rotations, atol=1e-9)


@pytest.mark.parametrize("gap", [1e-3, 1e-5, 1e-6, 1e-7, 1e-9])
def test_euler_angles_are_exact_next_to_gimbal_lock(gap):
    rotations = Rotation.from_euler("ZXY", [[1.1, np.pi / 2 - gap, 0.4], [-2.0, gap - np.pi / 2, 3.0]]).as_matrix()
    found = Rotation.from_euler("ZXY", euler_zxy(rotations)).as_matrix()
    np.testing.assert_allclose(found, rotations, atol=2e-6)


def test_euler_angles_do_not_jump_where_the_motion_is_smooth():
    time = np.linspace(0, 4 * np.pi, 400)
    angles = np.stack([2 * time, 1.2 * time, 0.3 * np.sin(time)], axis=-1)  # the middle angle passes all right angles
    angles[:, 1] += 0.01
    found = euler_zxy(Rotation.from_euler("ZXY", angles).as_matrix())
    np.testing.assert_allclose(np.diff(found, axis=0), np.diff(angles, axis=0), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=8), max_size=8))
def test_any_names_become_different_words(names):
    words = plain_names(names)
    assert len(set(words)) == len(words) == len(names)
    assert all(word.isascii() and word.split() == [word] and not set(word) & set('{}":') for word in words)


def test_hostile_joint_names_do_not_break_the_file(tmp_path):
    mesh = moving_mesh()
    mesh = mesh.replace(joints=("a b{\n", "a b}\n", "MOTION\nFrames: 1", *mesh.joints[3:]))
    bvh = Bvh(write_bvh(mesh, tmp_path / "a.bvh")[0])
    assert len(bvh.values) == 20
    assert bvh.names[:2] == ["a_b__", "a_b__2"]


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ValueError, match="unit 'inch', expected one of cm, m"):
        write_bvh(moving_mesh(), tmp_path / "a.bvh", unit="inch")
    with pytest.raises(ValueError, match="no fitted body"):
        write_bvh(moving_mesh(absent=(20, 0)), tmp_path / "a.bvh")
    assert not list(tmp_path.iterdir())


def test_one_joint_and_one_frame(tmp_path):
    mesh = moving_mesh(joints=1, frames=1)
    found = Bvh(write_bvh(mesh, tmp_path / "a.bvh")[0]).joints()["pelvis"]
    np.testing.assert_allclose(found / 100, mesh.trajectory * [1, -1, -1], atol=1e-6)
