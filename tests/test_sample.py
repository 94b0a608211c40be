"""Checks of the committed sample clip and its truth (made by `experiments/make_sample.py`; anny is not needed)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lifting.skeletons import get_skeleton

DATA = Path(__file__).resolve().parent.parent / "data"
FRAMES = 135


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    with np.load(DATA / "sample_truth.npz", allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def metadata(truth) -> dict:
    return json.loads(str(truth["metadata"]))


def joint(truth: dict[str, np.ndarray], name: str) -> np.ndarray:
    return truth["joints"][:, get_skeleton("h36m17").index(name)].astype(float)


def to_world(truth: dict[str, np.ndarray], points: np.ndarray) -> np.ndarray:
    return points @ truth["camera_rotation"] + truth["camera_position"]


def test_arrays_have_the_stated_shapes_and_names(truth, metadata):
    shapes = {"joints": (17, 3), "joints_2d": (17, 2), "coco_joints": (17, 3), "coco_2d": (17, 2)}
    for name, shape in shapes.items():
        assert truth[name].shape == (FRAMES, *shape)
        assert truth[name].dtype == np.float32
        assert np.isfinite(truth[name]).all()
    assert tuple(metadata["joint_names"]["h36m17"]) == get_skeleton("h36m17").joints
    assert tuple(metadata["joint_names"]["coco17"]) == get_skeleton("coco17").joints
    assert metadata["skeletons"] == {
        "joints": "h36m17", "joints_2d": "h36m17", "coco_joints": "coco17", "coco_2d": "coco17"
    }
    assert metadata["frame"] == "camera"
    assert metadata["units"]["joints"] == "metres"
    assert "CC0" in metadata["licence"] and "Apache-2.0" in metadata["licence"]
    np.testing.assert_allclose(truth["times"], np.arange(FRAMES) / 30)


@pytest.mark.parametrize(("points", "pixels"), [("joints", "joints_2d"), ("coco_joints", "coco_2d")])
def test_projected_truth_lies_inside_the_image(truth, points, pixels):
    x, y, z = np.moveaxis(truth[points].astype(float), -1, 0)
    expected = np.stack([900 * x / z + 480, 900 * y / z + 360], -1)
    np.testing.assert_allclose(truth[pixels], expected, atol=0.01)
    np.testing.assert_array_equal(truth["focal"], [900, 900])
    np.testing.assert_array_equal(truth["center"], truth["image_size"] / 2)
    assert (truth[pixels] > 20).all() and (truth[pixels] < truth["image_size"] - 20).all()


def test_bones_keep_human_lengths(truth):
    skeleton = get_skeleton("h36m17")
    joints = truth["joints"].astype(float)
    lengths = {
        skeleton.joints[child]: np.linalg.norm(joints[:, child] - joints[:, parent], axis=-1)
        for parent, child in skeleton.bones
    }
    loose = {"spine", "thorax", "neck_nose"}  # the back and the neck bend between these points
    for name, length in lengths.items():
        assert np.ptp(length) < (0.012 if name in loose else 1e-5), name
    human = {"knee": (0.38, 0.46), "ankle": (0.38, 0.47), "elbow": (0.25, 0.33), "wrist": (0.22, 0.29)}
    for name, (low, high) in human.items():
        left, right = lengths[f"left_{name}"].mean(), lengths[f"right_{name}"].mean()
        assert low < left < high
        assert left == pytest.approx(right, abs=1e-4)


def test_person_has_the_stated_height_and_stands_on_the_floor(truth):
    head = to_world(truth, joint(truth, "head"))
    ankles = to_world(truth, np.stack([joint(truth, "left_ankle"), joint(truth, "right_ankle")], 1))
    assert truth["height"] == pytest.approx(1.756, abs=0.001)
    assert (np.abs(head[:, 2] - (truth["height"] - 0.11)) < 0.05).all()
    assert (ankles[..., 2].min(1) < 0.11).all() and (ankles[..., 2] > 0.07).all()


def test_person_walks_forwards_with_left_on_the_left(truth):
    hip = to_world(truth, joint(truth, "hip"))
    velocity = np.gradient(hip, 1 / 30, axis=0)
    across = to_world(truth, joint(truth, "left_hip")) - to_world(truth, joint(truth, "right_hip"))
    forward = np.cross(across, [0, 0, 1.0])
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    assert ((velocity * forward).sum(1) > 0.9).all()
    heading = np.degrees(np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0])))
    assert heading[:10].mean() > 5 and heading[-10:].mean() < -85  # from sideways to towards the camera


def test_a_foot_stands_still_in_every_frame(truth):
    ankles = to_world(truth, np.stack([joint(truth, "left_ankle"), joint(truth, "right_ankle")], 1))
    speed = np.linalg.norm(np.diff(ankles, axis=0) * 30, axis=-1)
    assert (speed.min(1) < 0.75).all()  # an ankle moves while heel or ball rolls, less than the body's 1.1 m/s
    assert np.median(speed.min(1)) < 0.2


@pytest.fixture(scope="module")
def video() -> dict:
    av = pytest.importorskip("av")
    with av.open(str(DATA / "sample.mp4")) as container:
        stream = container.streams.video[0]
        pictures = list(container.decode(stream))
        found = {"size": (stream.width, stream.height), "rate": stream.average_rate, "metadata": container.metadata}
    chosen = [picture.to_ndarray(format="rgb24").astype(float) for picture in pictures[::45]]
    return found | {"count": len(pictures), "chosen": chosen}


def test_video_matches_the_truth(truth, video):
    assert (DATA / "sample.mp4").stat().st_size < 700_000
    assert video["size"] == tuple(truth["image_size"])
    assert video["rate"] == truth["fps"] == 30
    assert video["count"] == FRAMES
    film = float(video["metadata"]["com.apple.quicktime.camera.focal_length.35mm_equivalent"])
    diagonal = np.hypot(*truth["image_size"])
    assert film / np.hypot(36, 24) * diagonal == pytest.approx(truth["focal"][0], abs=0.1)


def test_figure_is_where_the_truth_says(truth, video):
    shoulders = [get_skeleton("h36m17").index(f"{side}_shoulder") for side in ("left", "right")]
    places = truth["joints_2d"][::45, shoulders].mean(1).astype(int)
    for picture, (x, y) in zip(video["chosen"], places, strict=True):
        red, green, blue = picture[y - 3 : y + 4, x - 3 : x + 4].mean((0, 1))
        assert red > 2 * green and red > 2 * blue  # the shirt; skin, wall and floor are paler
