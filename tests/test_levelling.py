"""Takes moved onto their floor: upright and on z = 0, seen as before by their camera."""

from __future__ import annotations

import numpy as np
import pytest
from fitted_walker import QuickFit, walking_take
from scipy.spatial.transform import Rotation
from small_body import small_body

from lifting.levelling import known_floor, level_take
from lifting.motion import Take

PITCH = np.radians(20)
UP = np.array([0.0, -np.cos(PITCH), -np.sin(PITCH)])  # of a camera that looks down by 20 degrees
HEIGHT = 1.6  # metres of the camera over the floor
GROUND = {"up": UP.tolist(), "offset_m": -HEIGHT, "sigma_degrees": 2.0, "source": "contacts"}


def fitted_take(ground: object = None, frames: int = 6, people: int = 1) -> Take:
    """The walker with the small body, absent in the first frame, and a report of floors."""
    take = walking_take(frames, people)
    gone = np.arange(frames)[:, None] < 1
    everybody = []
    for person in take.people:
        motion = person.motion
        motion = motion.replace(trajectory=np.where(gone, np.nan, motion.trajectory),
                                joints=np.where(gone[..., None], np.nan, motion.joints))
        everybody.append(type(person)(person.id, person.keypoints, motion, QuickFit.stand(motion, small_body())))
    reports = [{"id": person.id, "ground": ground} for person in everybody]
    return take.replace(people=everybody, metadata={**take.metadata, "body": {"people": reports}})


def test_the_floor_becomes_zero_and_up_becomes_z():
    take, (person,) = fitted_take(GROUND), level_take(fitted_take(GROUND)).people
    before = take.people[0]
    assert (person.motion.frame, person.body.frame) == ("world", "world")
    heights = before.motion.absolute @ UP + HEIGHT
    np.testing.assert_allclose(person.motion.absolute[..., 2], heights, atol=1e-5)
    np.testing.assert_allclose(person.body.trajectory[:, 2], before.body.trajectory @ UP + HEIGHT, atol=1e-5)
    np.testing.assert_allclose(person.body.trajectory[1, :2], 0, atol=1e-6)  # the first root there is
    assert np.isnan(person.body.trajectory[0]).all() and np.isnan(person.body.rotations[0]).all()


def test_distances_vertices_and_pixels_stay():
    before, after = fitted_take(GROUND), level_take(fitted_take(GROUND))
    body, camera = small_body(), after.camera
    meshes = [body.skinned(take.people[0].body) for take in (before, after)]
    seen = meshes[1].vertices() @ camera.rotation.T + camera.translation
    np.testing.assert_allclose(seen, meshes[0].vertices(), atol=1e-5)
    np.testing.assert_allclose(camera.project(seen[1:]), before.camera.project(meshes[0].vertices()[1:]), atol=1e-2)
    joints = after.people[0].motion.absolute @ camera.rotation.T + camera.translation
    np.testing.assert_allclose(joints, before.people[0].motion.absolute, atol=1e-5)
    down = Rotation.from_matrix(camera.rotation).apply([0, 0, -1])
    np.testing.assert_allclose(down, -UP, atol=1e-9)
    np.testing.assert_allclose(-camera.rotation.T @ camera.translation @ [0, 0, 1], HEIGHT)  # where the camera is


def test_the_best_known_floor_counts():
    take = fitted_take(GROUND, people=3)
    reports = take.metadata["body"]["people"]
    reports[0]["ground"] = {**GROUND, "sigma_degrees": 5.0, "offset_m": -9.0}
    reports[2]["ground"] = {**GROUND, "sigma_degrees": 0.1, "source": "camera"}  # an assumption, no finding
    assert known_floor(take).offset == -HEIGHT


@pytest.mark.parametrize("ground", [
    None, 5, {}, {**GROUND, "source": "camera"}, {**GROUND, "sigma_degrees": 9.0}, {**GROUND, "up": [0, 0, 0]},
    {**GROUND, "up": "north"}, {**GROUND, "offset_m": None}, {**GROUND, "sigma_degrees": []},
])  # fmt: skip
def test_without_a_floor_the_take_stays(ground):
    take = fitted_take(ground)
    assert level_take(take) is take


def test_takes_without_report_or_in_the_world_stay():
    levelled = level_take(fitted_take(GROUND))
    assert level_take(levelled) is levelled
    for metadata in ({}, {"body": None}, {"body": {"people": 3}}, {"body": {"people": [None]}}):
        take = fitted_take(GROUND).replace(metadata=metadata)
        assert level_take(take) is take
    bare = walking_take(3)
    assert level_take(bare.replace(metadata={"body": {"people": [{"ground": GROUND}]}})).people == bare.people
