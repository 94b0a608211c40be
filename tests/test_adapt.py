"""Adapting a lifter: a tiny network learns what a clip shows, files round-trip, the plan of the steps is exact."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from lifting.anatomy import H36M
from lifting.cameras import Camera
from lifting.checkpoints import Header
from lifting.datasets.clips import Clip, ClipList
from lifting.keypoints import Keypoints2D
from lifting.models import build
from lifting.models.lifter import LifterConfig
from lifting.motion import Motion
from lifting.predict import INPUT, Lifter
from lifting.training.adapt import (
    BODIES_KEY,
    DEFAULT_BODIES,
    AdaptConfig,
    adapt,
    camera_of,
    mirrored,
    observe,
    read_bodies,
    save_adapted,
    stretches,
)
from lifting.training.adapt_losses import SHARED

CONFIG = LifterConfig(channels=16, dilations=(1, 2))
CAMERA = Camera(400.0, (310, 245), (640, 480), distortion=[-0.1, 0.02, 0.001, 0, 0])
QUICK = AdaptConfig(steps=3, frames=40, warmup=1, learning_rate=1e-3)


def small_lifter(metrics: dict | None = None) -> Lifter:
    """A lifter with random weights."""
    torch.manual_seed(0)
    texts = {"input": "rays", "licence": "Apache-2.0", "training": "none", "version": "0"}
    header = Header("lifter", asdict(CONFIG), "lift17", "h36m17", 50.0, **texts, metrics=metrics or {})
    return Lifter(build(CONFIG), header, source="small")


def walking_clip(frames: int = 60, fps: float = 50.0, camera: Camera | None = CAMERA, view: str = "own") -> Clip:
    """A person of constant bones who turns and sways, seen without error where the two layouts agree."""
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.3, (17, 3))
    pose -= pose[0]
    angle = np.arange(frames) / fps
    turn = np.zeros((frames, 3, 3))
    turn[:, 0, 0] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 0, 2], turn[:, 2, 0], turn[:, 1, 1] = np.sin(angle), -np.sin(angle), 1
    points = np.einsum("tij,kj->tki", turn, pose) + [0.2, 0, 4]
    xy = np.full((frames, 17, 2), np.nan)
    xy[:, INPUT.indices(SHARED)] = CAMERA.project(points)[:, H36M.indices(SHARED)]
    motion = Motion(points - points[:, :1], points[:, 0], None, H36M, fps)
    return Clip("walk", "person 1", view, Keypoints2D(xy, None, INPUT, (640, 480), fps), motion, camera)


def test_default_table_fits_the_skeleton_and_both_sides_agree():
    assert [len(DEFAULT_BODIES[name]) for name in ("mean", "spread")] == [16, 16]
    means = dict(zip((H36M.joints[child] for _, child in H36M.bones), DEFAULT_BODIES["mean"], strict=True))
    for name in (name for name in means if name.startswith("left_")):
        assert means[name] == pytest.approx(means[name.replace("left", "right")], abs=2e-3)
    assert np.exp(means["left_knee"]) == pytest.approx(0.42, abs=0.03)  # a thigh


def test_adapting_lowers_what_it_minimises_and_leaves_the_start_alone():
    lifter, clip = small_lifter(), walking_clip()
    before = {name: value.clone() for name, value in lifter.network.state_dict().items()}
    weights = {"projection": 10.0, "bones": 1.0, "typical": 0.0, "anchor": 0.01}  # random poses need no anchor
    report = adapt(lifter, [clip], AdaptConfig(steps=40, frames=60, warmup=5, learning_rate=3e-3, weights=weights))
    assert all(torch.equal(value, lifter.network.state_dict()[name]) for name, value in before.items())
    assert report.after["bones"] < 0.5 * report.before["bones"]
    assert report.after["projection"] < 0.95 * report.before["projection"]
    assert report.after["reprojection_px"] < 0.8 * report.before["reprojection_px"]
    assert (report.clips, report.frames, report.steps) == (1, 60, 40)
    assert report.lines()[0].startswith("adapted to 1 clip, 60 frames, in 40 steps and ")
    assert report.lines()[2] == (f"reprojection error {report.before['reprojection_px']:.1f} px before, "
                                 f"{report.after['reprojection_px']:.1f} px after")  # fmt: skip


def test_same_seed_same_bits_and_labels_are_not_looked_at():
    clip = walking_clip()
    bare = Clip("walk", "person 1", "own", clip.keypoints, None, clip.camera)
    one, two = (adapt(small_lifter(), [c], QUICK).lifter.network.state_dict() for c in (clip, bare))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = adapt(small_lifter(), [clip], AdaptConfig(**{**vars(QUICK), "seed": 3})).lifter.network.state_dict()
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_uncertainty_keeps_its_weights():
    lifter = small_lifter()
    after = adapt(lifter, [walking_clip()], QUICK).lifter.network
    for name, value in lifter.network.state_dict().items():
        same = torch.equal(value, after.state_dict()[name])
        assert same == (".sigma." in name), name


def test_adapted_weights_are_a_normal_lifter_file(tmp_path):
    report = adapt(small_lifter(), ClipList([walking_clip()]), QUICK)
    path = save_adapted(report, tmp_path / "adapted.safetensors")
    again = Lifter.load(path)
    clip = walking_clip()
    expected = report.lifter.lift(clip.keypoints, clip.camera).motion.joints
    np.testing.assert_allclose(again.lift(clip.keypoints, clip.camera).motion.joints, expected, atol=5e-3)
    assert "adapted to 1 unlabelled clips (1 s), 3 steps" in again.header.training
    assert again.header.metrics["adapted_from"] == "small"
    assert again.header.metrics["after"]["reprojection_px"] == report.after["reprojection_px"]
    stated = again.header.metrics[BODIES_KEY]
    np.testing.assert_allclose(stated["mean"], DEFAULT_BODIES["mean"], atol=1e-4)


def test_bodies_come_from_the_header_where_it_states_them():
    stated = {"mean": [-1.0] * 16, "spread": [0.5] * 16}
    bodies = read_bodies(small_lifter({BODIES_KEY: stated}).header)
    assert bodies.mean.tolist() == [-1.0] * 16 and bodies.spread.tolist() == [0.5] * 16
    assert read_bodies(small_lifter().header).mean.tolist() == pytest.approx(DEFAULT_BODIES["mean"])


def test_observed_is_what_the_lifter_shows_its_network(monkeypatch):
    lifter, clip = small_lifter(), walking_clip(fps=30.0)
    shown = []
    run = lifter.run
    monkeypatch.setattr(lifter, "run", lambda rays, scores, *rest: shown.append((rays, scores)) or run(rays, scores))
    lifter.lift(clip.keypoints, clip.camera)
    observed = observe(lifter, clip)
    (rays, scores), (own_rays, own_scores) = shown
    np.testing.assert_array_equal(own_rays, rays)
    np.testing.assert_array_equal(own_scores, scores)
    assert len(observed) == len(rays) == 1 + int(np.ceil(59 * 50 / 30))


def test_a_clip_without_camera_is_seen_through_the_image_diagonal():
    camera = camera_of(walking_clip(camera=None))
    assert camera.focal.tolist() == [800.0, 800.0] and camera_of(walking_clip()) == CAMERA


def test_stretches_share_a_step_and_are_pure():
    lifter = small_lifter()
    observed = [observe(lifter, walking_clip(frames)) for frames in (30, 50, 80)]
    config = AdaptConfig(frames=100)
    for step in range(6):
        parts = list(stretches(observed, step, config))
        again = list(stretches(observed, step, config))
        assert sum(len(part) for part, _ in parts) == 100
        assert [(len(a), f) for a, f in parts] == [(len(a), f) for a, f in again]
        assert all(torch.equal(a.joints, b.joints) for (a, _), (b, _) in zip(parts, again, strict=True))
    everything = list(stretches(observed, 0, AdaptConfig(frames=1000)))
    assert sorted(len(part) for part, _ in everything) == [30, 50, 80]
    assert len({flip for step in range(8) for _, flip in stretches(observed, step, config)}) == 2


def test_mirrored_twice_is_the_same_and_once_lifts_to_the_mirrored_pose():
    lifter = small_lifter()
    part = observe(lifter, walking_clip())
    once = mirrored(part)
    twice = mirrored(once)
    for name in ("scores", "joints", "root"):
        assert torch.equal(getattr(twice, name), getattr(part, name))
    joints, root, _ = lifter.run(once.rays.numpy(), once.scores.numpy())  # averaged with its mirror image
    np.testing.assert_allclose(joints, once.joints.numpy(), atol=1e-5)
    np.testing.assert_allclose(root, once.root.numpy(), atol=1e-4)


def test_clips_that_show_nobody_are_left_out_and_none_left_is_an_error():
    blind = Clip("dark", "person 1", "own", Keypoints2D(np.full((9, 17, 2), np.nan), None, INPUT, (640, 480), 50.0))
    report = adapt(small_lifter(), [blind, walking_clip()], QUICK)
    assert report.clips == 1 and report.skipped[0][0] == "dark/person 1/own"
    assert report.lines()[0].startswith("dark/person 1/own is left out: none of its 9 frames")
    with pytest.raises(ValueError, match="none of 1 clips.*dark/person 1/own.*visible body joint"):
        adapt(small_lifter(), [blind], QUICK)
    with pytest.raises(ValueError, match="none of 0 clips"):
        adapt(small_lifter(), [], QUICK)


def test_progress_sees_every_step():
    seen = []
    adapt(small_lifter(), [walking_clip()], QUICK, progress=lambda steps, total, title: seen.append(total) or steps)
    assert seen == [3]


def test_a_loss_that_is_not_finite_names_its_step():
    lifter = small_lifter()
    with torch.no_grad():
        lifter.network.heads[0].codes.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0"):
        adapt(lifter, [walking_clip()], QUICK)


@pytest.mark.parametrize(("changes", "words"), [
    ({"steps": 0}, "at least 1"), ({"frames": 0}, "at least 1"), ({"weights": {"bones": 1.0}}, "anchor, bones"),
    ({"weights": {"projection": 1.0, "bones": -1.0, "typical": 0.0, "anchor": 1.0}}, "none below 0"),
])  # fmt: skip
def test_wrong_numbers_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        AdaptConfig(**changes)
