"""GLB files: parsed and played by a reader of this test, which shares no code with the writer."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moving_body import FPS, moving_mesh
from scipy.spatial.transform import Rotation

from lifting.export.glb import continuous_quaternions, strongest_bones, visibility_steps, write_glb
from lifting.meshes import SkinnedMesh

TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
SCENE = {"camera": lambda points: points * [1, -1, -1], "world": lambda points: points[..., [0, 2, 1]] * [1, 1, -1]}
HOSTILE = '"}]\n</script>\0é漢\ud800 \\u0022 ../..'


class Glb:
    """What a viewer does with a file: read accessors, move the nodes, skin the meshes."""

    def __init__(self, path):
        content = path.read_bytes()
        magic, version, length, size, kind = struct.unpack_from("<4sIII4s", content)
        assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON")
        self.json = json.loads(content[20 : 20 + size])
        binary, kind = struct.unpack_from("<I4s", content, 20 + size)
        assert kind == b"BIN\0"
        assert size % 4 == binary % 4 == 0
        self.buffer = content[28 + size :]
        assert len(self.buffer) == binary == self.json["buffers"][0]["byteLength"]

    def array(self, number: int) -> np.ndarray:
        accessor = self.json["accessors"][number]
        view = self.json["bufferViews"][accessor["bufferView"]]
        kind, width = TYPES[accessor["componentType"]], WIDTHS[accessor["type"]]
        start = accessor["byteOffset"]
        end = start + accessor["count"] * width * np.dtype(kind).itemsize
        assert (view["byteOffset"] + start) % np.dtype(kind).itemsize == 0
        assert end <= view["byteLength"]
        part = self.buffer[view["byteOffset"] : view["byteOffset"] + view["byteLength"]][start:end]
        array = np.frombuffer(part, kind).reshape(accessor["count"], width)
        if "min" in accessor:
            np.testing.assert_array_equal(array.min(axis=0), np.float32(accessor["min"]))
            np.testing.assert_array_equal(array.max(axis=0), np.float32(accessor["max"]))
        return array

    def node_matrices(self, seconds: float) -> np.ndarray:
        """(N, 4, 4) of all nodes, from their local places and the animation, which holds its first and last key."""
        nodes = self.json["nodes"]
        place = {number: np.float64(node.get("translation", [0, 0, 0])) for number, node in enumerate(nodes)}
        turn = {number: np.float64([0, 0, 0, 1]) for number in place}
        scale = {number: np.ones(3) for number in place}
        of_path = {"rotation": turn, "translation": place, "scale": scale}
        animation = self.json["animations"][0]
        for channel in animation["channels"]:
            sampler, target = animation["samplers"][channel["sampler"]], channel["target"]
            times, values = self.array(sampler["input"])[:, 0], self.array(sampler["output"]).astype(np.float64)
            assert (np.diff(times) > 0).all() and times[0] >= 0
            if sampler["interpolation"] == "STEP":
                value = values[max(0, np.searchsorted(times, np.float32(seconds), side="right") - 1)]
            else:
                assert sampler["interpolation"] == "LINEAR"
                inside = np.clip(seconds, times[0], times[-1])
                value = np.stack([np.interp(inside, times, column) for column in values.T])
            of_path[target["path"]][target["node"]] = value
        matrices = np.full((len(nodes), 4, 4), np.nan)

        def visit(number, above):
            local = np.eye(4)
            local[:3, :3] = Rotation.from_quat(turn[number]).as_matrix() * scale[number]
            local[:3, 3] = place[number]
            matrices[number] = above @ local
            for child in nodes[number].get("children", ()):
                visit(child, matrices[number])

        for root in self.json["scenes"][self.json["scene"]]["nodes"]:
            visit(root, np.eye(4))
        return matrices

    def vertices(self, seconds: float) -> list[np.ndarray]:
        """The skinned vertices of every mesh."""
        matrices, found = self.node_matrices(seconds), []
        for node in self.json["nodes"]:
            if "mesh" in node:
                found.append(self._skin(self.json["skins"][node["skin"]],
                                        self.json["meshes"][node["mesh"]]["primitives"][0]["attributes"], matrices))
        return found

    def _skin(self, skin, attributes, matrices) -> np.ndarray:
        binds = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
        moves = matrices[skin["joints"]] @ binds
        rest = np.pad(self.array(attributes["POSITION"]), ((0, 0), (0, 1)), constant_values=1).astype(np.float64)
        sets = range(sum(name.startswith("JOINTS") for name in attributes))
        bones = np.hstack([self.array(attributes[f"JOINTS_{number}"]) for number in sets])
        weights = np.hstack([self.array(attributes[f"WEIGHTS_{number}"]) for number in sets])
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
        return np.einsum("vb,vbij,vj->vi", weights, moves[bones], rest)[:, :3]


@pytest.mark.parametrize("frame", ["camera", "world"])
def test_the_played_skin_is_the_body(tmp_path, frame):
    mesh = moving_mesh(frame=frame)
    glb = Glb(write_glb(mesh, tmp_path / "a.glb"))
    expected = SCENE[frame](mesh.vertices())
    for number in range(len(mesh)):
        np.testing.assert_allclose(glb.vertices(number / FPS)[0], expected[number], atol=1e-4)
    between = glb.vertices(0.5 / FPS)[0]  # no joint takes the long way round between two frames
    assert np.abs(between - (expected[0] + expected[1]) / 2).max() < 0.05


def test_an_upright_person_before_the_camera_stands_upright(tmp_path):
    mesh = moving_mesh()
    still = np.zeros_like(mesh.rotations)
    still[:, 0] = [np.pi, 0, 0]  # the body's up to the camera's -y, its front towards the camera
    glb = Glb(write_glb(mesh.replace(rotations=still), tmp_path / "a.glb"))
    names = [node["name"] for node in glb.json["nodes"]]
    heights, depths = glb.node_matrices(0)[:, 1, 3], glb.node_matrices(0)[:, 2, 3]
    assert heights[names.index("head")] > heights[names.index("pelvis")] + 0.4
    assert heights[names.index("left_foot")] < heights[names.index("pelvis")] - 0.6
    assert depths[names.index("left_foot")] > depths[names.index("left_ankle")]  # towards the viewer
    np.testing.assert_allclose(depths[names.index("pelvis")], -4, atol=1e-6)


def test_each_person_has_a_skin_and_is_seen_only_while_there(tmp_path):
    first, second, nobody = moving_mesh(0), moving_mesh(1, 7, absent=(4, 6)), moving_mesh(2, 8, absent=(20, 0))
    glb = Glb(write_glb([first, second, nobody], tmp_path / "a.glb", name="walk", extras={"licence": "CC0"}))
    assert len(glb.json["skins"]) == len(glb.json["meshes"]) == len(glb.json["materials"]) == 2
    assert len({str(material) for material in glb.json["materials"]}) == 2
    assert glb.json["animations"][0]["name"] == "walk"
    extras = glb.json["asset"]["extras"]
    assert [person["id"] for person in extras["people"]] == [0, 7]
    assert extras["people"][1]["fps"] == FPS
    assert (extras["unit"], extras["licence"]) == ("metre", "CC0")
    expected = second.vertices() * [1, -1, -1]
    for frame in (4, 10, 13):
        np.testing.assert_allclose(glb.vertices(frame / FPS)[1], expected[frame], atol=1e-4)
    for seconds in (0, 3 / FPS, 3.99 / FPS, 14 / FPS, 19 / FPS, 100.0):  # a point, which shows nothing
        assert np.ptp(glb.vertices(seconds)[1], axis=0).max() < 1e-6
        assert np.ptp(glb.vertices(seconds)[0], axis=0).max() > 1
    assert {channel["target"]["path"] for channel in glb.json["animations"][0]["channels"]} == {
        "rotation", "translation", "scale"}


def test_who_is_there_all_the_time_has_no_scale(tmp_path):
    glb = Glb(write_glb(moving_mesh(), tmp_path / "a.glb"))
    paths = [channel["target"]["path"] for channel in glb.json["animations"][0]["channels"]]
    assert "scale" not in paths


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_steps_of_visibility_say_who_is_there_in_each_frame(there):
    changes, scales = visibility_steps(np.array(there))
    shown = [scales[np.flatnonzero(changes <= frame)[-1], 0] for frame in range(len(there))]
    assert shown == [float(value) for value in there] and changes[0] == 0
    assert (np.diff(scales[:, 0]) != 0).all()


@pytest.mark.parametrize(("frame", "where"), [("camera", "filming camera"), ("world", "the floor at y = 0")])
def test_the_file_says_what_its_axes_stand_for(tmp_path, frame, where):
    extras = Glb(write_glb(moving_mesh(frame=frame), tmp_path / "a.glb")).json["asset"]["extras"]
    assert extras["axes"].startswith("right-handed, +y up") and where in extras["axes"]
    assert extras["people"][0]["pose_blendshapes"] == "none"


def test_normals_point_out_of_the_rest_surface(tmp_path):
    mesh = moving_mesh()
    glb = Glb(write_glb(mesh, tmp_path / "a.glb"))
    primitive = glb.json["meshes"][0]["primitives"][0]
    normals, places = (glb.array(primitive["attributes"][name]) for name in ("NORMAL", "POSITION"))
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(glb.array(primitive["indices"]).reshape(-1, 3), mesh.faces)
    a, b, c = (places[mesh.faces[:, corner]].astype(np.float64) for corner in range(3))
    across = np.cross(b - a, c - a)
    assert (np.einsum("fi,fi->f", across, normals[mesh.faces[:, 0]]) > 0).mean() > 0.95


def test_quaternions_take_the_short_way():
    turning = np.zeros((200, 1, 3))
    turning[:, 0, 1] = np.linspace(0, 12 * np.pi, 200)  # six turns: w >= 0 alone would jump
    quats = continuous_quaternions(Rotation.from_rotvec(turning[:, 0]).as_matrix()[:, None])
    assert (np.einsum("tkq,tkq->tk", quats[1:], quats[:-1]) > 0.9).all()
    np.testing.assert_allclose(Rotation.from_quat(quats[:, 0]).as_matrix(),
                               Rotation.from_rotvec(turning[:, 0]).as_matrix(), atol=1e-6)


def crowded_mesh(influences: int) -> SkinnedMesh:
    """Three vertices carried by more bones than glTF's first set holds, one bone named twice."""
    rng = np.random.default_rng(3)
    mesh, bones = moving_mesh(), np.stack([rng.permutation(22)[:influences] for _ in range(3)])
    weights = rng.dirichlet(np.ones(influences), 3)
    bones, weights = np.hstack([bones, bones[:, :1]]), np.hstack([weights, np.zeros((3, 1))])
    weights[:, -1] = weights[:, 0] / 2
    weights[:, 0] /= 2
    return mesh.replace(rest_vertices=mesh.rest_vertices[:3], faces=[[0, 1, 2]], bone_indices=bones,
                        bone_weights=weights)


@pytest.mark.parametrize(("influences", "columns"), [(3, 4), (4, 4), (5, 8), (8, 8), (12, 8)])
def test_the_strongest_bones_come_first_and_sum_to_one(tmp_path, influences, columns):
    mesh = crowded_mesh(influences)
    bones, weights = strongest_bones(mesh)
    assert bones.shape == weights.shape == (3, columns)
    assert (np.diff(weights, axis=1) <= 1e-7).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-7)
    assert not bones[weights == 0].any()
    assert all(len(set(row[used])) == used.sum() for row, used in zip(bones, weights > 0, strict=True))
    if influences <= 8:
        played = Glb(write_glb(mesh, tmp_path / "a.glb")).vertices(0)[0]
        np.testing.assert_allclose(played, mesh.vertices(0) * [1, -1, -1], atol=1e-4)


def test_large_meshes_have_long_indices(tmp_path):
    mesh = moving_mesh()
    copies = -(-70_000 // mesh.num_vertices)
    large = mesh.replace(rest_vertices=np.tile(mesh.rest_vertices, (copies, 1)), faces=[[0, 1, 69_999]],
                         bone_indices=np.tile(mesh.bone_indices, (copies, 1)),
                         bone_weights=np.tile(mesh.bone_weights, (copies, 1)))
    glb = Glb(write_glb(large, tmp_path / "a.glb"))
    indices = glb.json["meshes"][0]["primitives"][0]["indices"]
    assert glb.json["accessors"][indices]["componentType"] == 5125
    assert glb.array(indices).ravel().tolist() == [0, 1, 69_999]


def test_hostile_names_stay_text(tmp_path):
    mesh = moving_mesh()
    mesh = mesh.replace(name=HOSTILE, joints=(HOSTILE, *mesh.joints[1:]))
    glb = Glb(write_glb(mesh, tmp_path / "a.glb", name=HOSTILE))
    assert glb.json["scenes"][0]["name"] == HOSTILE.replace("\ud800", "\ufffd")


def test_one_frame_and_a_body_of_one_joint(tmp_path):
    one = moving_mesh(joints=1, frames=1)
    np.testing.assert_allclose(Glb(write_glb(one, tmp_path / "a.glb")).vertices(0)[0], one.vertices(0) * [1, -1, -1],
                               atol=1e-4)


@pytest.mark.parametrize(("meshes", "message"), [
    ([], "no fitted body"), ([moving_mesh(absent=(20, 0))], "no fitted body"), (["body"], "got str in place"),
    ([moving_mesh(), moving_mesh(1)], r"different people, got the ids \[0, 0\]"),
])
def test_what_cannot_be_written_is_said_and_nothing_is_left(tmp_path, meshes, message):
    with pytest.raises(ValueError, match=message):
        write_glb(meshes, tmp_path / "a.glb")
    assert not list(tmp_path.iterdir())


def test_another_library_reads_it(tmp_path):
    pygltflib = pytest.importorskip("pygltflib")
    mesh = moving_mesh(absent=(3, 0))
    document = pygltflib.GLTF2().load(str(write_glb(mesh, tmp_path / "a.glb")))
    assert len(document.skins[0].joints) == 22
    assert len(document.animations[0].channels) == 24
    channel = next(channel for channel in document.animations[0].channels if channel.target.path == "scale")
    assert channel.target.node == document.skins[0].joints[0] == document.skins[0].skeleton
    sampler = document.animations[0].samplers[channel.sampler]
    assert sampler.interpolation == "STEP"
    times, scales = (_pygltflib_array(document, number) for number in (sampler.input, sampler.output))
    np.testing.assert_array_equal(times, np.float32([0, 3 / FPS]))
    np.testing.assert_array_equal(scales.reshape(-1, 3), [[0, 0, 0], [1, 1, 1]])
    assert document.accessors[document.meshes[0].primitives[0].attributes.POSITION].count == mesh.num_vertices


def _pygltflib_array(document, number: int) -> np.ndarray:
    accessor = document.accessors[number]
    view = document.bufferViews[accessor.bufferView]
    content = document.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    return np.frombuffer(content, np.float32)
