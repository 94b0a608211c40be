"""Takes without bodies as BVH and GLB: played by the readers of the tests for bodies and by pygltflib."""

from __future__ import annotations

import numpy as np
import pytest
from lifted_takes import FPS, HOSTILE, lifted_take, walking_person
from moving_body import body_motion, moving_mesh
from scipy.spatial.transform import Rotation
from test_bvh_export import Bvh
from test_glb import Glb

from lifting.datasets.bvh import pose, read_bvh
from lifting.export import save
from lifting.export.stick_figure import JOINTS, TWIST
from lifting.motion import Person
from lifting.skeletons import get_skeleton

H36M = get_skeleton("h36m17")
SCENE = {"camera": lambda points: points * [1, -1, -1], "world": lambda points: points[..., [0, 2, 1]] * [1, 1, -1]}


@pytest.mark.parametrize("frame", ["camera", "world"])
def test_a_bvh_skeleton_moves_as_the_motion_within_a_millimetre(tmp_path, frame):
    take = lifted_take(walking_person(frame=frame))
    bvh = Bvh(save(take, tmp_path / "walk.bvh"))
    expected, found = SCENE[frame](take.people[0].motion.absolute), bvh.joints()
    for number, name in enumerate(H36M.joints):
        assert np.abs(found[name] / 100 - expected[:, number]).max() < 1e-3, name
    assert set(JOINTS) == set(bvh.names) - {""} and bvh.frame_time == pytest.approx(1 / FPS)


def test_the_librarys_reader_of_motion_capture_agrees(tmp_path):
    take = lifted_take()
    clip = read_bvh(save(take, tmp_path / "walk.bvh"))
    positions, expected = pose(clip)[0] / 100, SCENE["world"](take.people[0].motion.absolute)
    for number, joint in enumerate(clip.joints):
        if joint.name in H36M.joints:
            assert np.abs(positions[:, number] - expected[:, H36M.index(joint.name)]).max() < 1e-3
    assert clip.fps == FPS


def test_at_zero_angles_the_skeleton_stands_in_a_t_pose(tmp_path):
    bvh = Bvh(save(lifted_take(), tmp_path / "walk.bvh"))
    bvh.values[:] = 0
    at = {name: places[0] / 100 for name, places in bvh.joints().items()}
    np.testing.assert_allclose(at["left_wrist"] - at["left_shoulder"], [0.29 + 0.25, 0, 0], atol=1e-5)
    np.testing.assert_allclose(at["right_ankle"] - at["right_hip"], [0, -0.43 - 0.41, 0], atol=1e-5)
    assert at["head"][1] > at["thorax"][1] > 0.4


@pytest.mark.parametrize("frame", ["camera", "world"])
def test_the_nodes_of_a_glb_move_as_the_motion_within_a_millimetre(tmp_path, frame):
    take = lifted_take(walking_person(frame=frame))
    glb = Glb(save(take, tmp_path / "walk.glb"))
    numbers = {node["name"]: number for number, node in enumerate(glb.json["nodes"])}
    expected = SCENE[frame](take.people[0].motion.absolute)
    for time in (0, 17, 39):
        matrices = glb.node_matrices(time / FPS)
        found = np.stack([matrices[numbers[name], :3, 3] for name in H36M.joints])
        assert np.abs(found - expected[time]).max() < 1e-3
    people = glb.json["asset"]["extras"]["people"]
    assert people[0]["body"] == "h36m17 skeleton" and people[0]["fps"] == FPS and people[0]["source_frame"] == frame
    assert glb.json["asset"]["extras"]["twist"] == TWIST and glb.json["asset"]["extras"]["unit"] == "metre"


def test_bones_are_drawn_between_their_joints(tmp_path):
    take = lifted_take()
    [vertices] = Glb(save(take, tmp_path / "walk.glb")).vertices(10 / FPS)
    tips = vertices.reshape(16, 6, 3)[:, [0, 5]]
    joints = SCENE["world"](take.people[0].motion.absolute)[10]
    bones = {tuple(np.argmin(np.linalg.norm(joints - tip, axis=-1)) for tip in pair) for pair in tips}
    assert bones == set(H36M.bones)


def test_pygltflib_reads_the_skeleton(tmp_path):
    pygltflib = pytest.importorskip("pygltflib")
    asset = pygltflib.GLTF2().load(str(save(lifted_take(name=HOSTILE), tmp_path / "walk.glb")))
    skin = asset.skins[0]
    assert [asset.nodes[number].name for number in skin.joints] == list(JOINTS)
    sampler = next(asset.animations[0].samplers[channel.sampler] for channel in asset.animations[0].channels
                   if channel.target.path == "translation")
    accessor = asset.accessors[sampler.output]
    view = asset.bufferViews[accessor.bufferView]
    content = asset.binary_blob()[view.byteOffset :][: view.byteLength]
    path = np.frombuffer(content, "<f4").reshape(-1, 3)
    expected = SCENE["world"](lifted_take().people[0].motion.trajectory)
    np.testing.assert_allclose(path, expected, atol=1e-6)


def test_bodies_and_skeletons_share_a_scene(tmp_path):
    plain = walking_person(5, frame="camera", frames=20)
    points = plain.keypoints.__class__(plain.keypoints.xy, None, "coco17", (640, 480), 25.0)
    motion = plain.motion.replace(fps=25.0)
    whole = lifted_take(Person(5, points, motion), Person(2, points, None, body_motion()), fps=25.0,
                        times=np.arange(20) / 25)
    glb = Glb(save(whole, tmp_path / "both.glb", meshes=[moving_mesh(0, 2)]))
    assert [person["body"] for person in glb.json["asset"]["extras"]["people"]] == ["h36m17 skeleton", "small"]
    save(whole, tmp_path / "both.bvh", meshes=[moving_mesh(0, 2)])
    assert "pelvis" in Bvh(tmp_path / "both.person2.bvh").names and "hip" in Bvh(tmp_path / "both.bvh").names
    with pytest.raises(ValueError, match="person 2 has a fitted body and no mesh is given"):
        save(whole, tmp_path / "none.glb")


def test_an_absent_person_is_not_seen_and_holds_still(tmp_path):
    take = lifted_take(walking_person(), walking_person(2, absent=(8, 4)))
    glb = Glb(save(take, tmp_path / "a.glb"))
    node = next(number for number, node in enumerate(glb.json["nodes"]) if node["name"] == "person 2")
    hip = glb.json["nodes"][node]["children"][0]
    assert np.abs(glb.node_matrices(0)[hip, :3, :3]).max() == 0 < np.abs(glb.node_matrices(0.3)[hip, :3, :3]).max()
    save(take, tmp_path / "a.bvh")
    knee = Bvh(tmp_path / "a.person2.bvh").joints()["left_knee"]
    np.testing.assert_allclose(knee[:8], np.repeat(knee[8:9], 8, axis=0), atol=1e-6)


def test_euler_angles_of_the_file_are_the_figures_rotations(tmp_path):
    bvh = Bvh(save(lifted_take(), tmp_path / "a.bvh"))
    columns = [column for column, (joint, _) in enumerate(bvh.channels) if bvh.names[joint] == "left_knee"]
    angles = Rotation.from_euler("ZXY", bvh.values[:, columns], degrees=True)
    bend = angles.magnitude()
    np.testing.assert_allclose(bend, 0.4, atol=1e-3)  # the walker's knee, always


def test_nobody_lifted_is_said(tmp_path):
    person = walking_person()
    for suffix in (".glb", ".bvh"):
        with pytest.raises(ValueError, match="nobody in the take 'walk' has a 3D motion"):
            save(lifted_take(Person(1, person.keypoints)), tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())
