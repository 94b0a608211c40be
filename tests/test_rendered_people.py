"""Rendered people: in view, dressed without holes, drawn where they are; tables against numbers known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.spatial.transform import Rotation

from experiments import rendered_people
from experiments.rendered_people import CAMERA, FPS, LAYOUT, SIZE, TRUE, Seen
from lifting.body import load_body
from lifting.keypoints import Keypoints2D
from lifting.predict import default_lifter

FRAMES = 12


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def scene(body):
    rng = np.random.default_rng(0)
    turns = np.cumsum(rng.normal(0, 0.02, (FRAMES, 24, 3)), axis=0)
    path = np.stack([np.linspace(0, 0.3, FRAMES), np.full(FRAMES, 0.9), np.zeros(FRAMES)], axis=-1)
    return rendered_people.place("somebody@0", body, turns, path)


def exact_view(scene, body) -> Keypoints2D:
    return Keypoints2D(CAMERA.project(scene.points(body, LAYOUT.name)), None, LAYOUT, SIZE, FPS)


def test_everybody_is_in_view_all_the_time(scene, body):
    pixels = CAMERA.project(scene.points(body, "h36m17"))
    assert pixels.min() > 40 and (pixels < np.array(SIZE) - 40).all()
    height = np.ptp(pixels[..., 1], axis=1)
    assert (height > 150).all()  # and large enough to be found


def test_clothes_cover_the_mesh_once(scene, body):
    mesh = body.skinned(scene.motion)
    pieces = rendered_people.clothes(body, mesh)
    together = np.concatenate([piece.faces for piece in pieces])
    order = np.lexsort(together.T), np.lexsort(np.asarray(mesh.faces).T)
    np.testing.assert_array_equal(together[order[0]], np.asarray(mesh.faces)[order[1]])
    height = [mesh.rest_vertices[np.unique(piece.faces), 1].mean() for piece in pieces]
    _, shirt, trousers, shoes, hair = height
    assert shoes < trousers < shirt < hair


def test_people_are_drawn_where_they_are(scene, body, monkeypatch):
    monkeypatch.setattr(rendered_people, "_wall", lambda rng: np.full((SIZE[1], SIZE[0], 3), 255, np.uint8))
    picture = next(rendered_people.pictures(scene, body))
    rows, columns = np.nonzero((picture < 235).any(-1))
    motion = scene.motion
    vertices = body.vertices(motion.rotations[:1], motion.trajectory[:1], motion.shape)[0]
    low, high = CAMERA.project(vertices).min(0), CAMERA.project(vertices).max(0)
    np.testing.assert_allclose([columns.min(), rows.min()], low, atol=2)
    np.testing.assert_allclose([columns.max(), rows.max()], high, atol=2)


def test_errors_of_poses_are_those_after_the_best_similarity(scene, body):
    truth = scene.points(body, "coco17")[:, TRUE]
    landmarks = 0.5 * truth @ Rotation.from_euler("xyz", [0.3, 1.0, -2.0]).as_matrix() + 3.0
    errors = rendered_people.errors_3d(scene, body, Seen(exact_view(scene, body), landmarks), default_lifter())
    assert errors["MediaPipe's landmarks"] == pytest.approx(0, abs=1e-3)
    assert errors["lift.predict"] == pytest.approx(errors["exact 2D"], abs=1e-6) and errors["exact 2D"] > 1
    landmarks[:, 0] += 0.012  # one of twelve joints, by half as much at half the size
    errors = rendered_people.errors_3d(scene, body, Seen(exact_view(scene, body), landmarks), default_lifter())
    assert 1 < errors["MediaPipe's landmarks"] < 1000 * 0.024 * np.sqrt(3) / 6


def test_errors_in_the_picture_are_shares_of_the_stature(scene, body):
    keypoints = exact_view(scene, body)
    tall = CAMERA.focal[0] * body.stature(scene.motion.shape) / scene.motion.trajectory[:, 2]
    xy = keypoints.xy.copy()
    xy[:, 15, 0] += 0.03 * tall
    seen = Seen(keypoints.replace(xy=xy), np.empty(0))
    errors = rendered_people.errors_2d(scene, body, seen)
    np.testing.assert_allclose(errors[:, 15], np.broadcast_to([3.0, 0.0], (FRAMES, 2)), atol=1e-3)
    assert np.abs(np.delete(errors, 15, axis=1)).max() < 1e-3


def test_errors_are_told_apart_into_constant_and_moving():
    wave = np.sin(2 * np.pi * np.arange(200) / 20)  # the same again after 0.4 s, the opposite or nothing in between
    errors = np.random.default_rng(0).normal(0, 1e-9, (200, 33, 2))
    errors[:, LAYOUT.index("left_knee"), 0] = 2.0 + wave
    errors[:, LAYOUT.index("right_knee"), 0] = -2.0 + wave
    rows = {row.values["joint"]: row.values for row in rendered_people.table_2d([errors])}
    knee = rows["knee"]
    assert knee["constant"] == pytest.approx(np.sqrt(2)) and knee["moving"] == pytest.approx(0.5)
    assert knee["after 0.4 s"] == pytest.approx(1) and knee["after 0.1 s"] == pytest.approx(0, abs=0.02)
    assert knee["99 %"] == pytest.approx(1) and knee["50 %"] == pytest.approx(np.sin(np.pi / 4), abs=0.15)


def test_errors_go_by_score():
    errors, scores = np.zeros((10, 33, 2)), np.full((10, 33), 0.97)
    errors[..., 0], scores[:5] = 1.0, 0.1
    errors[:5, :, 0] = 4.0
    low, high = rendered_people.table_of_scores([errors], [scores])
    assert low.values == {"score": "0 to 0.2", "share %": 50.0, "median %": 4.0, "90 %": 4.0}
    assert high.values == {"score": "0.95 to 1", "share %": 50.0, "median %": 1.0, "90 %": 1.0}


def test_detections_are_kept(scene, body, tmp_path, monkeypatch):
    keypoints = exact_view(scene, body)
    monkeypatch.setattr(rendered_people, "detect_people", lambda video: video)
    monkeypatch.setattr(rendered_people, "choose_people", lambda evidence, which: [(1, keypoints)])
    monkeypatch.setattr(rendered_people, "landmarks_of", lambda video: np.ones((FRAMES, 12, 3)))
    first = rendered_people.look(scene, body, tmp_path)
    monkeypatch.setattr(rendered_people, "pictures", None)  # nothing is rendered again
    again = rendered_people.look(scene, body, tmp_path)
    for seen in (first, again):
        np.testing.assert_allclose(seen.keypoints.xy, keypoints.xy, atol=1e-3)
        assert (seen.landmarks == 1).all() and seen.keypoints.fps == FPS


def test_nothing_to_render_is_refused(tmp_path):
    import h5py

    h5py.File(tmp_path / "empty.h5", "w").close()
    result = CliRunner().invoke(rendered_people.main, ["--rotations", str(tmp_path / "empty.h5")])
    assert result.exit_code == 2 and "got 0 windows of 100 frames and 24 clips; expected" in result.output
    result = CliRunner().invoke(rendered_people.main, ["--rotations", str(tmp_path / "missing.h5")])
    assert result.exit_code == 2 and "missing.h5; expected mocap_rot24.h5, see data/README.md" in result.output
