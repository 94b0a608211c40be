"""What was seen of one person: upright axes, 25 frames per second, keypoints as rays beside the motion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from filmed_takes import filmed_take
from lifted_takes import motion_of
from walking_figure import walker

from lifting.seen_person import FPS, camera_from_world, keypoint_rays, see_person
from lifting.strip_features import PARTS, SOURCE, strip_features


def missed(seen) -> np.ndarray:
    """Distance on the plane at one metre between the rays and the joints they belong to, of keypoints that count."""
    points = np.einsum("nij,ntkj->ntki", seen.view, seen.joints[:, :, SOURCE]) + seen.root_in_camera[:, :, None]
    gap = np.linalg.norm(points[..., :2] / points[..., 2:] - seen.rays[:, :, : len(SOURCE)], axis=-1)
    return gap[..., 1:][seen.scores[:, :, 1 : len(SOURCE)] > 0]  # the nose is not the joint it stands for


@pytest.mark.parametrize("options", [{}, {"turning": 0.5, "moving": 0.02}, {"fps": 25.0}, {"fps": 100.0}])
def test_joints_stand_upright_and_rays_go_through_them(options):
    take, truth = filmed_take(**options)
    seen = see_person(take.people[0], take).seen
    step = round(take.fps / FPS)
    truth = truth[::step]
    np.testing.assert_allclose(seen.joints[0], truth - truth[:, :1], atol=2e-5)
    np.testing.assert_allclose(seen.root[0], truth[:, 0], atol=2e-5)
    np.testing.assert_allclose(seen.sigma, 0.03, rtol=1e-6)
    np.testing.assert_allclose(seen.view @ np.swapaxes(seen.view, 1, 2), [np.eye(3)], atol=1e-6)
    assert len(missed(seen)) > 100 and missed(seen).max() < (2e-5 if take.fps == FPS else 2e-3)


def test_features_of_what_is_seen_say_that_rays_meet_joints():
    take, _ = filmed_take(fps=FPS)
    offsets = strip_features(see_person(take.people[0], take).seen)[0, :, PARTS["joints"] :][:, 3 : PARTS["offsets"]]
    assert np.abs(offsets).max() < 2e-3


def test_another_rate_keeps_what_moves_evenly():
    take, truth = filmed_take(frames=31, fps=30.0)
    seen = see_person(take.people[0], take).seen
    assert seen.frames == 26
    np.testing.assert_allclose(seen.root[0, :, 1], 4.0 + np.arange(26) / FPS, atol=1e-4)


def test_frames_before_and_after_are_left_out_and_gaps_bridged():
    joints = walker(30, fps=FPS).astype(np.float64)
    joints[:4] = joints[25:] = np.nan
    joints[10:13] = np.nan
    motion = dataclasses.replace(motion_of(joints), fps=FPS)
    told = see_person(motion)
    assert told.span == slice(4, 25) and told.seen.frames == 21 and not told.seen.has_evidence
    between = np.linspace(joints[9] - joints[9, :1], joints[13] - joints[13, :1], 5)[1:-1]
    np.testing.assert_allclose(told.seen.joints[0, 6:9], between, atol=1e-5)
    np.testing.assert_allclose(told.rotation, np.eye(3))


def test_a_motion_in_the_world_is_seen_by_the_calibrated_camera():
    take, truth = filmed_take()
    rotation, translation = (np.array(take.metadata["world"][name]) for name in ("rotation", "translation"))
    camera = dataclasses.replace(take.camera, rotation=rotation, translation=translation)
    person = dataclasses.replace(take.people[0], motion=motion_of(truth))
    seen = see_person(person, take.replace(people=[person], camera=camera, metadata={})).seen
    same = see_person(take.people[0], take).seen
    for name in ("joints", "root", "rays", "scores", "view", "root_in_camera"):
        np.testing.assert_allclose(getattr(seen, name), getattr(same, name), atol=2e-5)


def test_without_a_placement_the_calibrated_camera_tells_what_is_up_then_the_motion_and_doubt_is_said():
    take, _ = filmed_take()
    pose = {name: np.array(take.metadata["world"][name]) for name in ("rotation", "translation")}
    bare, notes = take.replace(metadata={}), []
    calibrated = bare.replace(camera=dataclasses.replace(take.camera, **pose))
    for told, wanted in zip(camera_from_world(take.people[0].motion, calibrated, notes.append), pose.values(),
                            strict=True):  # fmt: skip
        np.testing.assert_allclose(told, wanted)
    assert not notes
    still = take.people[0].motion.slice(0, 1).replace(trajectory=None)
    rotation, _ = camera_from_world(still, bare, notes.append)
    np.testing.assert_allclose(rotation[:, 2], [0, -1, 0], atol=1e-9)
    assert len(notes) == 1 and "level" in notes[0]


def test_unseen_keypoints_have_no_score_and_no_ray():
    take, _ = filmed_take()
    keypoints = take.people[0].keypoints
    xy, score = keypoints.xy.copy(), keypoints.score.copy()
    xy[5:8, 9], score[5:8, 9] = np.nan, 0
    rays, scores = keypoint_rays(dataclasses.replace(keypoints, xy=xy, score=score), take.camera)
    assert np.isfinite(rays).all() and ((scores == 0) <= (rays == 0).all(-1)).all()
    assert (scores[5:8] == 0).any() and rays.shape == (41, 17, 2)


def test_what_cannot_be_seen_is_refused():
    take, truth = filmed_take()
    with pytest.raises(ValueError, match="without a 3D motion"):
        see_person(dataclasses.replace(take.people[0], motion=None))
    with pytest.raises(ValueError, match="'coco17', expected 'h36m17'"):
        see_person(dataclasses.replace(motion_of(truth), skeleton="coco17"))
    with pytest.raises(ValueError, match="nobody is seen"):
        see_person(motion_of(np.full_like(truth, np.nan)))
