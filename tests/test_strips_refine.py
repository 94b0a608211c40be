"""Motion refined by temporal body models: windows, rates, gaps, sizes, what stays, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from filmed_takes import filmed_take
from filmed_walker import CAMERA, filmed
from lifted_takes import lifted_take, motion_of, walking_joints, walking_person
from scipy.spatial.transform import Rotation
from small_tcmr import BODY, CONFIG, random_piece, small_tcmr

from lifting import strips_refine
from lifting.anatomy import H36M, bone_lengths
from lifting.cli import main
from lifting.datasets.strip_windows import BodyPiece, make_batch
from lifting.detectors.files import write_keypoints
from lifting.export import load
from lifting.models.strips.files import save_strips
from lifting.motion import BodyMotion, Motion, Take
from lifting.pipeline import run_video
from lifting.predict import AssumptionWarning
from lifting.rotations import rotvec_to_matrix
from lifting.seen_motion import SeenMotion
from lifting.seen_person import FPS, see_person
from lifting.strips_refine import SMOOTHING, between, load_refiner, refine, tcmr_bodies
from lifting.summary import summary
from lifting.world import place_in_world, placed_again


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("tcmr") / "tcmr.safetensors"
    save_strips(path, small_tcmr(), CONFIG, training="nothing", licence="none", version="0", metrics={})
    return path


def padded_piece(seen: SeenMotion, frames: np.ndarray) -> BodyPiece:
    """Some frames of a piece as a piece with a truth that does not matter."""
    part = seen.cut(frames)
    truth = (np.zeros((len(frames), BODY.num_joints, 3)), part.root[0], np.zeros(BODY.num_shape), part.joints[0])
    return BodyPiece("", *truth, part.root[0], part, part)


def test_every_frame_is_told_from_the_window_around_it():
    """The slow twin: windows as in training, one by one, the ends repeated."""
    network, seen = small_tcmr(), random_piece()
    made = tcmr_bodies(network, seen, BODY)
    assert made.frame == "world" and made.fps == FPS and len(made) == 9
    turned, shapes = [], []
    for frame in range(9):
        window = padded_piece(seen, np.clip(np.arange(frame - 3, frame + 3), 0, 8))
        batch = make_batch([window], np.arange(BODY.num_joints), heading="shared")
        state = network(torch.from_numpy(batch.features)).joined
        rotations = state.rotations[0].numpy()
        rotations[0] = batch.heading[0, 3].T @ rotations[0]
        turned.append(rotations)
        shapes.append(state.shape[0].numpy())
    np.testing.assert_allclose(rotvec_to_matrix(made.rotations), turned, atol=2e-5)
    np.testing.assert_allclose(made.shape, np.mean(shapes, 0), atol=1e-5)
    points = BODY.points("h36m17", made.rotations, made.trajectory, made.shape)
    np.testing.assert_allclose(points[:, 0], seen.root[0], atol=1e-5)


def test_bodies_turn_with_the_world():
    network, seen = small_tcmr(), random_piece()
    turn = Rotation.from_euler("z", 77, degrees=True).as_matrix().astype(np.float32)
    other = dataclasses.replace(seen, joints=seen.joints @ turn.T, root=seen.root @ turn.T, view=seen.view @ turn.T)
    one, two = tcmr_bodies(network, seen, BODY), tcmr_bodies(network, other, BODY)
    root = turn @ rotvec_to_matrix(one.rotations[:, 0])
    np.testing.assert_allclose(rotvec_to_matrix(two.rotations[:, 0]), root, atol=1e-4)
    np.testing.assert_allclose(two.rotations[:, 1:], one.rotations[:, 1:], atol=1e-4)


def test_between_what_agrees_nothing_changes():
    joints = walking_joints()[:, :] - walking_joints()[:, :1]
    still = np.repeat(joints[:1], 30, axis=0)
    np.testing.assert_allclose(between(still, still, 25.0), still, atol=1e-6)
    np.testing.assert_allclose(between(still, 1.2 * still, 25.0), still, atol=1e-6)  # sizes are those of the lift


def test_between_is_half_way_smooth_and_of_one_size():
    rng = np.random.default_rng(0)
    joints = np.repeat((walking_joints() - walking_joints()[:, :1])[:1], 60, axis=0)
    told = joints @ Rotation.from_euler("z", 40, degrees=True).as_matrix().T
    made = between(joints + rng.normal(0, 0.01, joints.shape), told, 25.0)
    half = joints @ Rotation.from_euler("z", 20, degrees=True).as_matrix().T
    assert np.linalg.norm(made - half, axis=-1).mean() < 0.02
    jitter = np.abs(np.diff(made, 2, axis=0)).mean()
    assert SMOOTHING > 0 and jitter < 0.2 * np.abs(np.diff(rng.normal(0, 0.01, joints.shape), 2, axis=0)).mean()
    lengths = bone_lengths(made)
    np.testing.assert_allclose(lengths.std(0), 0, atol=1e-6)


def test_a_take_keeps_path_gaps_and_size(weights):
    people = [walking_person(1, "camera", absent=(3, 2)), walking_person(2, "camera", phase=1.0)]
    take = place_in_world(lifted_take(*people))
    refined = refine(take, weights=weights)
    assert isinstance(refined, Take)
    for before, after in zip(take.people, refined.people, strict=True):
        for name in ("trajectory", "sigma", "fps", "frame"):
            np.testing.assert_array_equal(getattr(after.motion, name), getattr(before.motion, name))
        gone = np.isnan(before.motion.joints)
        np.testing.assert_array_equal(np.isnan(after.motion.joints), gone)
        kept = after.motion.joints[~gone.any((1, 2))]
        assert np.abs(kept - before.motion.joints[~gone.any((1, 2))]).max() > 0.02
        np.testing.assert_allclose(bone_lengths(kept).std(0), 0, atol=1e-6)
        old = bone_lengths(before.motion.joints[~gone.any((1, 2))])
        np.testing.assert_allclose(bone_lengths(kept)[0].sum(), np.median(old, 0).sum(), rtol=1e-4)
        assert not np.allclose(after.world.joints, before.world.joints, atol=0.01, equal_nan=True)
    about = refined.metadata["refined"]
    assert about["method"] == "tcmr" and about["weights"].startswith("tcmr.safetensors ") and about["warnings"] == []
    assert refined == placed_again(refined) and take == placed_again(take)


def test_camera_and_world_axes_give_the_same_motion(weights):
    """Without keypoints; the camera of the walker is level, so the world is told by its placement alone."""
    person = walking_person(1, "camera")
    take = place_in_world(lifted_take(person))
    rotation, translation = (np.array(take.metadata["world"][name]) for name in ("rotation", "translation"))
    motion = person.motion
    upright = Motion(motion.joints @ rotation, (motion.trajectory - translation) @ rotation, motion.sigma, H36M,
                     motion.fps, "world")  # fmt: skip
    blind = dataclasses.replace(person.keypoints, xy=np.full_like(person.keypoints.xy, np.nan))
    seen = refine(take.replace(people=[dataclasses.replace(take.people[0], keypoints=blind)]), weights=weights)
    world = refine(upright, weights=weights)
    far = np.linalg.norm(seen.people[0].motion.joints @ rotation - world.joints, axis=-1).mean()
    assert far < 0.02 < np.linalg.norm(world.joints - upright.joints, axis=-1).mean()


@pytest.mark.parametrize("fps", [12.5, 25.0, 30.0, 60.0])
def test_a_motion_keeps_its_rate(weights, fps):
    motion = dataclasses.replace(motion_of(walking_joints(frames=40)), fps=fps)
    refined = refine(motion, weights=weights)
    assert isinstance(refined, Motion) and refined.fps == fps and len(refined) == 40
    assert np.isfinite(refined.joints).all()
    if fps == FPS:
        bodies = load_refiner("tcmr", weights).bodies(see_person(motion).seen)
        points = BODY.points("h36m17", bodies.rotations, bodies.trajectory, bodies.shape)
        joints = between(motion.joints.astype(float), points - points[:, :1], fps)
        np.testing.assert_allclose(refined.joints, joints, atol=1e-5)


def test_bodies_come_on_request_and_stand_where_the_motion_is(weights):
    person = walking_person(1, "camera", absent=(2, 0))
    with pytest.warns(AssumptionWarning, match="about level"):
        made = refine(person, weights=weights, body=True)
    body, there = made.body, slice(2, None)
    assert body.frame == "camera" and body.fps == person.motion.fps and body.body == "lite"
    points = BODY.points("h36m17", body.rotations[there], body.trajectory[there], body.shape)
    np.testing.assert_allclose(points[:, 0], made.motion.trajectory[there], atol=1e-4)
    assert np.isnan(body.rotations[:2]).all() and np.isfinite(body.rotations[2:]).all()
    assert refine(motion_of(walking_joints()), weights=weights, body=True).body is not None


def test_a_camera_that_turns_changes_nothing(weights):
    still, turning = (filmed_take(turning=degrees)[0] for degrees in (0.0, 0.4))
    rotation = np.array(turning.metadata["world"]["rotation"])
    assert rotation.ndim == 3
    one, two = (refine(take, weights=weights).people[0].motion.joints for take in (still, turning))
    np.testing.assert_allclose(two @ rotation, one @ np.array(still.metadata["world"]["rotation"]), atol=2e-3)


def test_what_was_made_of_the_motion_before_is_dropped(weights):
    person = walking_person(1)
    body = BodyMotion(np.zeros((40, 22, 3)), np.zeros((40, 3)), np.zeros(10), "lite", person.motion.fps, "world")
    person = dataclasses.replace(person, body=body, future=person.motion)
    take = lifted_take(person, metadata={"body": {}, "future": {}})
    refined = refine(take, weights=weights)
    assert refined.people[0].body is refined.people[0].future is None and set(refined.metadata) == {"refined"}


def test_lift_run_refines_and_says_so(tmp_path, tiny_lifter, weights, monkeypatch):
    monkeypatch.setattr(strips_refine, "WEIGHTS", weights.parent)
    file = write_keypoints(tmp_path / "walk.npz", {1: filmed()})
    plain = run_video(keypoints=file, camera=CAMERA, lifter=tiny_lifter)
    paths = {"output": tmp_path / "result.npz", "report": tmp_path / "report.json"}
    take = run_video(keypoints=file, camera=CAMERA, lifter=tiny_lifter, refine="tcmr", **paths)
    assert load(paths["output"]) == take
    assert json.loads(paths["report"].read_text())["refined"] == take.metadata["refined"]
    assert "refined: poses by tcmr, weights tcmr.safetensors" in summary(take, [])
    before, after = plain.people[0], take.people[0]
    np.testing.assert_array_equal(before.motion.trajectory, after.motion.trajectory)
    for name in ("motion", "world"):
        assert np.abs(getattr(before, name).joints - getattr(after, name).joints).max() > 0.01


def test_a_few_frames_are_enough_and_it_is_said(weights):
    motion = motion_of(walking_joints(frames=1))
    with pytest.warns(AssumptionWarning, match="looks at 6"):
        refined = refine(motion, weights=weights)
    assert len(refined) == 1 and np.isfinite(refined.joints).all()


def test_who_cannot_be_refined_is_named_and_left_as_is(weights):
    here, gone = walking_person(1), walking_person(2, absent=(40, 0))
    refined = refine(lifted_take(here, gone), weights=weights)
    assert refined.people[1] == gone and refined.people[0] != here
    assert refined.metadata["refined"]["warnings"] == [
        "person 2 was not refined: got a motion in which nobody is seen in any frame, expected at least one."]
    with pytest.raises(ValueError, match="nobody is seen"):
        refine(lifted_take(gone), weights=weights)


def test_what_makes_no_sense_is_refused(weights, tmp_path):
    motion = motion_of(walking_joints())
    with pytest.raises(ValueError, match="got the refinement 'vibe', expected one of hmmr, tcmr"):
        refine(motion, "vibe")
    with pytest.raises(FileNotFoundError, match="no weights of tcmr at .*none.safetensors"):
        refine(motion, weights=tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="holds a 'tcmr', expected a 'hmmr'"):
        refine(motion, "hmmr", weights=weights)
    with pytest.raises(ValueError, match="expected 'h36m17'"):
        refine(dataclasses.replace(motion, skeleton="coco17"), weights=weights)
    placed = place_in_world(lifted_take(walking_person(1, "camera"))).people[0]
    with pytest.raises(ValueError, match="without the take"):
        refine(placed, weights=weights)


def test_the_command_refuses_an_unknown_method_before_anything_else(tmp_path):
    (tmp_path / "clip.npz").write_bytes(b"")
    result = CliRunner().invoke(main, ["run", "--keypoints", str(tmp_path / "clip.npz"), "--refine", "vibe"])
    assert result.exit_code == 2 and "vibe" in result.output and "Traceback" not in result.output
