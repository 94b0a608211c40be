"""Temporal weights in use: every step beside its slow twin, and people where they are known to stand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.models import build
from lifting.models.temporal import TemporalConfig, trajectory_config
from lifting.models.temporal_file import TemporalWeights, describe_temporal, save_temporal, write_temporal
from lifting.predict import AssumptionWarning, Lifter
from lifting.predict_temporal import TemporalLifter, fill_unseen, locate, same_names
from lifting.skeletons import get_skeleton

CAMERA = Camera.from_focal(900.0, (1000, 800))
H36M = get_skeleton("h36m17")
# A person with arms out, metres relative to the hip, camera axes (y down).
POSE = np.array([
    [0, 0, 0], [-0.13, 0.02, 0.03], [-0.15, 0.45, 0.0], [-0.16, 0.88, 0.1], [0.13, -0.02, -0.03], [0.15, 0.42, -0.1],
    [0.2, 0.86, 0], [0, -0.25, 0.02], [0, -0.5, 0], [0.01, -0.6, -0.08], [0, -0.7, -0.02], [0.17, -0.48, 0.02],
    [0.4, -0.4, 0.1], [0.6, -0.45, 0], [-0.17, -0.47, -0.02], [-0.4, -0.42, 0.05], [-0.6, -0.5, 0.2],
], np.float32)  # fmt: skip


def weights(skeleton_in: str = "h36m17", skeleton_out: str = "h36m17", features: int = 2, trajectory: bool = False,
            fps: float = 50.0, metrics: dict | None = None, **options) -> TemporalWeights:  # fmt: skip
    torch.manual_seed(0)
    joints = [get_skeleton(name).num_joints for name in (skeleton_in, skeleton_out)]
    config = TemporalConfig(joints[0], features, joints[1], (3, 3), channels=8, **options)
    nets = build(config).eval(), build(trajectory_config(config)).eval() if trajectory else None
    return describe_temporal(*nets, skeleton_in=skeleton_in, skeleton_out=skeleton_out, fps=fps, training="none",
                             licence="none", metrics=metrics or {})  # fmt: skip


def statue(**options) -> TemporalLifter:
    """A lifter that always answers `POSE`."""
    made = weights(**options)
    with torch.no_grad():
        made.pose.shrink.weight.zero_()
        made.pose.shrink.bias.copy_(torch.from_numpy(POSE.ravel()))
    return TemporalLifter(made)


def path(frames: int, fps: float = 50.0) -> np.ndarray:
    t = np.arange(frames)[:, None] / fps
    return np.concatenate([np.sin(t), 0.1 * t, 4 + np.cos(t)], axis=-1)


def filmed(root: np.ndarray, fps: float = 50.0, noise: float = 0.0) -> Keypoints2D:
    xy = CAMERA.project(POSE + root[:, None]) + np.random.default_rng(0).normal(0, max(noise, 1e-9), (len(root), 17, 2))
    return Keypoints2D(xy, None, H36M, CAMERA.image_size, fps)


def twin(made: TemporalWeights, xy: np.ndarray, flip: bool) -> np.ndarray:
    """The paper's inference by a loop over frames: pixels (T, J, 2) to joints (T, J_out, 3)."""
    width, height = CAMERA.image_size
    x = np.stack([xy[..., 0] / width * 2 - 1, xy[..., 1] / width * 2 - height / width], axis=-1).astype(np.float32)

    def lift(x: np.ndarray) -> np.ndarray:
        before, after = made.pose.padding
        padded = torch.from_numpy(np.concatenate([x[:1]] * before + [x] + [x[-1:]] * after))[None]
        windows = [padded[:, t : t + made.pose.receptive_field] for t in range(len(x))]
        with torch.no_grad():
            return torch.cat([made.pose(window)[0] for window in windows]).numpy()

    joints = lift(x)
    if flip:
        other = lift((x * np.float32([-1, 1]))[:, list(made.skeleton_in.flip)])
        joints = (joints + other[:, list(made.skeleton_out.flip)] * np.float32([-1, 1, 1])) / 2
    return joints


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_joints_are_the_networks_on_screen_coordinates(flip, causal):
    made = weights("coco17", causal=causal)
    points = np.random.default_rng(1).uniform(100, 700, (20, 17, 2)).astype(np.float32)
    keypoints = Keypoints2D(points, None, "coco17", CAMERA.image_size, 50.0)
    motion = TemporalLifter(made).lift(keypoints, CAMERA, flip=flip, repair=False).motion
    expected = twin(made, points, flip)
    expected[:, 0] = 0  # the root itself
    assert motion.skeleton == H36M and motion.frame == "camera" and motion.fps == 50
    np.testing.assert_allclose(motion.joints, expected, atol=1e-5)


def test_the_score_is_the_third_feature():
    made = weights("coco17", features=3)
    lifter, generator = TemporalLifter(made), np.random.default_rng(1)
    points, scores = generator.uniform(100, 700, (12, 17, 2)), generator.uniform(0.2, 1, (12, 17)).astype(np.float32)
    keypoints = Keypoints2D(points, scores, "coco17", CAMERA.image_size, 50.0)
    features = lifter.features(keypoints.xy, keypoints.score, keypoints.image_size)
    np.testing.assert_array_equal(features[..., 2], scores)
    np.testing.assert_allclose(lifter.run(features)[0], lifter.lift(keypoints, CAMERA, repair=False).motion.joints,
                               atol=1e-6)  # fmt: skip


def test_keypoints_of_another_layout_are_mapped_and_holes_interpolated():
    made = weights("h36m17")
    generator = np.random.default_rng(2)
    coco = generator.uniform(100, 700, (15, 17, 2)).astype(np.float32)
    coco[4:8, 9] = np.nan  # left wrist
    coco[:3, 16] = np.nan  # right ankle at the start
    keypoints = Keypoints2D(coco, None, "coco17", CAMERA.image_size, 50.0)
    mapped = keypoints.to(H36M).xy.copy()
    wrist, ankle = H36M.index("left_wrist"), H36M.index("right_ankle")
    for k in range(4, 8):
        mapped[k, wrist] = mapped[3, wrist] + (mapped[8, wrist] - mapped[3, wrist]) * (k - 3) / 5
    mapped[:3, ankle] = mapped[3, ankle]
    expected = twin(made, mapped, True)
    expected[:, 0] = 0
    lifted = TemporalLifter(made).lift(keypoints, CAMERA, repair=False)
    np.testing.assert_allclose(lifted.motion.joints, expected, atol=1e-5)
    assert lifted.cleaned.keypoints.skeleton == H36M


def test_fill_unseen_puts_joints_that_are_never_seen_between_the_others():
    xy = np.random.default_rng(0).normal(size=(6, 4, 2)).astype(np.float32)
    xy[:, 2] = np.nan
    filled = fill_unseen(xy)
    np.testing.assert_allclose(filled[:, 2], xy[:, [0, 1, 3]].mean(1), atol=1e-6)
    np.testing.assert_array_equal(filled[:, [0, 1, 3]], xy[:, [0, 1, 3]])


@pytest.mark.parametrize("refine", [False, True])
def test_a_known_pose_is_found_where_it_stands(refine):
    root = path(100)
    lifted = statue().lift(filmed(root), CAMERA, flip=False, refine=refine)
    np.testing.assert_allclose(lifted.motion.joints, np.broadcast_to(POSE, (100, 17, 3)), atol=1e-6)
    error = np.linalg.norm(lifted.motion.trajectory - root, axis=-1)
    assert error.max() < (0.07 if refine else 1e-3)  # the fit resists acceleration, at the ends most
    assert error[10:-10].max() < 0.02
    assert lifted.reprojection_px < 2.0


def test_refining_the_root_helps_with_noise():
    root, lifter = path(150), statue()
    keypoints = filmed(root, noise=8.0)
    errors = [np.linalg.norm(lifter.lift(keypoints, CAMERA, flip=False, repair=False, refine=refine).motion.trajectory
                             - root, axis=-1).mean() for refine in (False, True)]  # fmt: skip
    assert errors[1] < 0.6 * errors[0] and errors[1] < 0.1


def test_another_frame_rate_is_resampled():
    root = path(60, 25.0)
    motion = statue(fps=50.0).lift(filmed(root, 25.0), CAMERA, flip=False).motion
    assert motion.fps == 25 and len(motion) == 60
    error = np.linalg.norm(motion.trajectory - root, axis=-1)
    assert error.max() < 0.07 and error[10:-10].max() < 0.02


def test_the_trajectory_net_is_used_where_there_is_one():
    lifter = statue(trajectory=True)
    with torch.no_grad():
        lifter.trajectory.shrink.weight.zero_()
        lifter.trajectory.shrink.bias.copy_(torch.tensor([0.4, 0.1, 5.0]))
    root = np.broadcast_to(np.float32([0.3, 0.1, 4.5]), (30, 3))
    bare = lifter.lift(filmed(root), CAMERA, flip=False, refine=False).motion.trajectory
    np.testing.assert_allclose(bare, np.broadcast_to(np.float32([0.4, 0.1, 5.0]), (30, 3)), atol=1e-6)
    mirrored = lifter.lift(filmed(root), CAMERA, flip=True, refine=False).motion.trajectory
    np.testing.assert_allclose(mirrored, np.broadcast_to(np.float32([0, 0.1, 5.0]), (30, 3)), atol=1e-6)
    fitted = lifter.lift(filmed(root), CAMERA, flip=False).motion.trajectory
    np.testing.assert_allclose(fitted, root, atol=0.05)


def test_locate_is_the_least_squares_solution():
    generator = np.random.default_rng(5)
    joints = POSE + generator.normal(0, 0.05, (4, 17, 3)).astype(np.float32)
    rays = same_names(CAMERA.rays(filmed(path(4)).xy).astype(np.float32), H36M, get_skeleton("lift17"))
    scores = np.where(np.isfinite(rays).all(-1), generator.uniform(0.1, 1, (4, 17)), 0).astype(np.float32)
    found = locate(joints, rays, scores)
    shared = [name for name in get_skeleton("lift17").joints if name in H36M.joints]
    for frame in range(4):
        rows, goal = [], []
        for name in shared:
            u, v = rays[frame, get_skeleton("lift17").index(name)]
            x, y, z = joints[frame, H36M.index(name)]
            root = np.sqrt(scores[frame, get_skeleton("lift17").index(name)])
            rows += [root * np.array([1, 0, -u]), root * np.array([0, 1, -v])]
            goal += [root * (u * z - x), root * (v * z - y)]
        expected = np.linalg.lstsq(np.array(rows), np.array(goal), rcond=None)[0]
        np.testing.assert_allclose(found[frame], expected, atol=1e-4)


def test_frames_without_evidence_are_bridged_and_sigma_grows():
    xy = filmed(path(120)).xy.copy()
    xy[40:80] = np.nan
    keypoints = filmed(path(120)).replace(xy=xy, score=None)
    motion = statue(metrics={"mpjpe_mm": 40.0}).predict(keypoints, CAMERA, flip=False)
    assert np.isfinite(motion.joints).all() and np.isfinite(motion.trajectory).all()
    np.testing.assert_allclose(motion.trajectory, path(120), atol=0.15)
    assert motion.sigma[0, 0] == pytest.approx(0.040 * 1.1733, rel=1e-3)  # radius of 68 % over mean, normal errors
    assert (motion.sigma[60] > motion.sigma[45]).all() and (motion.sigma[:40] == motion.sigma[0]).all()


def test_height_scales_everything():
    keypoints, lifter = filmed(path(30)), statue()
    plain, scaled = (lifter.lift(keypoints, CAMERA, height=height) for height in (None, 1.8))
    assert plain.scale == 1 and scaled.scale != 1
    for name in ("joints", "trajectory", "sigma"):
        np.testing.assert_allclose(getattr(scaled.motion, name), scaled.scale * getattr(plain.motion, name), rtol=1e-5)
    humaneva = TemporalLifter(weights(skeleton_out="humaneva15"))
    assert humaneva.predict(keypoints, CAMERA).skeleton.name == "humaneva15"
    with pytest.raises(ValueError, match="leave the height out"):
        humaneva.predict(keypoints, CAMERA, height=1.8)


def test_a_run_takes_weights_of_any_input_and_the_joints_of_results():
    from lifting.evidence import Evidence
    from lifting.pipeline import lift_people

    def evidence() -> Evidence:
        points = filmed(path(30))
        return Evidence("walk", points.image_size, 50.0, np.arange(30) / 50, [(1, points)], "test")

    take = lift_people(evidence(), CAMERA, lifter=statue())  # h36m17, which has no nose
    assert take.people[0].motion.skeleton.name == "h36m17" and take.metadata["people"][0]["mean_confidence"] == 1
    with pytest.raises(ValueError, match="give joints in the layout humaneva15, results have h36m17; use them with"):
        lift_people(evidence(), CAMERA, lifter=TemporalLifter(weights(skeleton_out="humaneva15")))


def test_load_names_its_source(tmp_path):
    made = weights("coco17", trajectory=True)
    file = save_temporal(tmp_path / "own.safetensors", made.pose, made.trajectory, skeleton_in="coco17",
                         skeleton_out="h36m17", fps=50.0, training="none", licence="none", metrics={})  # fmt: skip
    lifter = TemporalLifter.load(file)
    assert lifter.source.startswith("own.safetensors ") and lifter.fps == 50 and lifter.device == "cpu"
    points = np.random.default_rng(1).uniform(100, 700, (9, 17, 2))
    keypoints = Keypoints2D(points, None, "coco17", CAMERA.image_size, 50.0)
    expected = TemporalLifter(made).predict(keypoints, CAMERA)
    assert lifter.predict(keypoints, CAMERA) == expected


def test_bad_input_and_assumptions():
    lifter = statue()
    blind = filmed(path(5)).replace(score=np.zeros((5, 17)))
    with pytest.raises(ValueError, match="none of the 5 frames has a visible joint"):
        lifter.predict(blind, CAMERA)
    one = np.zeros((5, 17), np.float32)
    one[:, 3] = 1
    with pytest.raises(ValueError, match="none of the 5 frames shows 3"):
        lifter.predict(filmed(path(5)).replace(score=one), CAMERA)
    with pytest.raises(ValueError, match="height of 9"):
        lifter.predict(filmed(path(5)), CAMERA, height=9)
    with pytest.warns(AssumptionWarning, match="Focal length"):
        lifter.predict(filmed(path(5)))
    assert len(lifter.predict(filmed(path(1)), CAMERA)) == 1


def test_the_default_lifters_door_opens_temporal_weights_too(tmp_path):
    file = write_temporal(tmp_path / "own.safetensors", weights("coco17"))
    assert isinstance(Lifter.load(file), TemporalLifter)
