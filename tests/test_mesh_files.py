"""OBJ and PLY of single frames, read by small readers of this test."""

from __future__ import annotations

import numpy as np
import pytest
from moving_body import moving_mesh
from smpl_format import slow_vertices, smpl_arrays

from lifting.body.smpl_files import read_smpl
from lifting.export.mesh_files import frame_in_name, frame_of_name, write_obj, write_ply
from lifting.motion import BodyMotion


def read_obj(path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Vertices, normals, faces from 0, and the names of the objects."""
    rows = [line.split() for line in path.read_text("ascii").splitlines() if not line.startswith("#")]
    vertices, normals = (np.array([row[1:] for row in rows if row[0] == kind], float) for kind in ("v", "vn"))
    corners = np.array([[corner.split("/") for corner in row[1:]] for row in rows if row[0] == "f"])
    assert (corners[..., 1] == "").all()
    np.testing.assert_array_equal(corners[..., 0], corners[..., 2])
    return vertices, normals, corners[..., 0].astype(int) - 1, [row[1] for row in rows if row[0] == "o"]


def read_ply(path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    words = [line.split() for line in header.decode("ascii").splitlines()]
    assert words[0] == ["ply"] and words[1] == ["format", "binary_little_endian", "1.0"]
    counts = {row[1]: int(row[2]) for row in words if row[0] == "element"}
    assert [row[2] for row in words if row[:2] == ["property", "float"]] == ["x", "y", "z", "nx", "ny", "nz"]
    values = np.frombuffer(body, "<f4", counts["vertex"] * 6).reshape(-1, 6)
    rest = body[values.nbytes :]
    assert len(rest) == 13 * counts["face"]
    assert set(rest[::13]) == {3}
    faces = np.frombuffer(rest, np.uint8).reshape(-1, 13)[:, 1:].copy().view("<i4")
    return values[:, :3], values[:, 3:], faces


def slow_normals(vertices, faces) -> np.ndarray:
    total = np.zeros(vertices.shape)
    for a, b, c in faces:
        for corner in (a, b, c):
            total[corner] += np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
    return total / np.linalg.norm(total, axis=1, keepdims=True)


@pytest.mark.parametrize(("axes", "change"), [("scene", [1, -1, -1]), ("frame", [1, 1, 1])])
def test_one_person_in_one_frame(tmp_path, axes, change):
    mesh = moving_mesh()
    expected = mesh.vertices(7) * change
    vertices, normals, faces, objects = read_obj(write_obj(mesh, 7, tmp_path / "a.obj", axes=axes))
    np.testing.assert_allclose(vertices, expected, atol=1e-6)
    np.testing.assert_array_equal(faces, mesh.faces)
    assert objects == ["person_0"]
    places, directions, triangles = read_ply(write_ply(mesh, 7, tmp_path / "a.ply", axes=axes))
    np.testing.assert_allclose(places, expected, atol=1e-6)
    np.testing.assert_array_equal(triangles, mesh.faces)
    np.testing.assert_allclose(directions, normals, atol=1e-4)
    np.testing.assert_allclose(directions, slow_normals(places, triangles), atol=1e-3)


def test_people_who_are_there_and_only_they(tmp_path):
    people = [moving_mesh(0, 4), moving_mesh(1, 5, absent=(10, 0))]
    both = read_obj(write_obj(people, 12, tmp_path / "a.obj"))
    count = people[0].num_vertices
    assert both[3] == ["person_4", "person_5"]
    np.testing.assert_allclose(both[0][count:], people[1].vertices(12) * [1, -1, -1], atol=1e-6)
    np.testing.assert_array_equal(both[2][len(people[0].faces) :], people[1].faces + count)
    np.testing.assert_array_equal(read_ply(write_ply(people, 12, tmp_path / "a.ply"))[2], both[2])
    assert read_obj(write_obj(people, 3, tmp_path / "b.obj"))[3] == ["person_4"]


def test_world_frames_turn_z_up_to_y_up(tmp_path):
    mesh = moving_mesh(frame="world")
    vertices = read_ply(write_ply(mesh, -1, tmp_path / "a.ply"))[0]
    np.testing.assert_allclose(vertices[:, 1], mesh.vertices(19)[:, 2], atol=1e-6)
    np.testing.assert_allclose(vertices[:, 2], -mesh.vertices(19)[:, 1], atol=1e-6)


def test_normals_of_lone_vertices_and_flat_faces_are_unit_vectors(tmp_path):
    mesh = moving_mesh().replace(faces=[[0, 1, 1]])
    np.testing.assert_array_equal(read_ply(write_ply(mesh, 0, tmp_path / "a.ply"))[1][5], [0, 1, 0])


@pytest.mark.parametrize("write", [write_obj, write_ply])
def test_what_cannot_be_written_is_said(tmp_path, write):
    mesh = moving_mesh(absent=(4, 6))
    for frame, axes, message in ((20, "scene", "no frame 20; the bodies have 20, numbered 0 to 19"),
                                 (-21, "scene", "no frame -21"),
                                 (2, "scene", "nobody is in frame 2; choose a frame from 4 to 13"),
                                 (5, "up", "got the axes 'up'")):
        with pytest.raises(ValueError, match=message):
            write(mesh, frame, tmp_path / "a.x", axes=axes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [write_obj, write_ply])
def test_hostile_body_names_stay_in_the_comment(tmp_path, write):
    mesh = moving_mesh().replace(name="a\nend_header\nv 1 2 3\ud800é\r\u2028")
    path = write(mesh, 0, tmp_path / "a.x")
    found = (read_obj if write is write_obj else read_ply)(path)
    np.testing.assert_array_equal(found[2], mesh.faces)
    assert len(found[0]) == mesh.num_vertices


@pytest.mark.parametrize(("name", "frame"), [
    ("clip.120.obj", 120), ("clip.000120.obj", 120), ("clip_frame7.ply", 7), ("Frame_7.ply", 7), ("frame-0.ply", 0),
    ("clip.obj", None), ("take2.obj", None), ("clip.12b.obj", None), ("12.obj", None), ("clip_3.obj", None),
])
def test_the_frame_in_a_name(name, frame):
    assert frame_in_name(f"folder.9/{name}") == frame


@pytest.mark.parametrize("write", [write_obj, write_ply])
def test_bodies_of_smpl_have_their_pose_blendshapes(tmp_path, write):
    """The published formula, evaluated slowly on the arrays of the body file, gives the written vertices."""
    arrays, rng = smpl_arrays(), np.random.default_rng(0)
    np.savez(tmp_path / "body.npz", **arrays)
    body = read_smpl(tmp_path / "body.npz")
    motion = BodyMotion(rng.normal(0, 0.5, (3, 24, 3)), rng.normal(0, 1, (3, 3)), rng.normal(0, 1, 10), "smpl", 25.0)
    path = write(body.skinned(motion), 1, tmp_path / "a", axes="frame")
    vertices = (read_obj if write is write_obj else read_ply)(path)[0]
    root = body.rest_joints(motion.shape)[0]
    expected = slow_vertices(arrays, motion.rotations[1], motion.shape, motion.trajectory[1] - root)
    np.testing.assert_allclose(vertices, expected, atol=1e-5)


@pytest.mark.parametrize(("frame", "where"), [("camera", "looks along -z"), ("world", "the floor at y = 0")])
def test_the_first_lines_say_what_the_axes_stand_for(tmp_path, frame, where):
    mesh = moving_mesh(frame=frame)
    assert where in write_obj(mesh, 0, tmp_path / "a.obj").read_text().splitlines()[0]
    assert where in write_ply(mesh, 0, tmp_path / "a.ply").read_bytes().split(b"end_header")[0].decode()


def test_frames_of_names_are_those_of_the_take(tmp_path):
    assert [frame_of_name(tmp_path / name, 5) for name in ("a.0.obj", "a.4.ply", "a_frame3.obj")] == [0, 4, 3]
    assert frame_of_name(tmp_path / "a.obj", 1) == 0
    for name, frames, problem in (("a.obj", 5, "which of the 5 frames"), ("a.5.obj", 5, "asks for frame 5, but .* 5")):
        with pytest.raises(ValueError, match=problem):
            frame_of_name(tmp_path / name, frames)
