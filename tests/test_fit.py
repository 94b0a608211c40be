from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from known_body import CAMERA, FPS, KnownBody, errors, motion_of
from small_body import small_body

import lifting.body.problem as problem_module
from lifting.body import load_body
from lifting.body.fit import fit_body, take_meshes
from lifting.body.problem import FitConfig
from lifting.cameras import Camera
from lifting.export import load, save
from lifting.motion import Person, Take
from lifting.rotations import rotvec_to_matrix
from lifting.skeletons import get_skeleton

ROOT = Path(__file__).resolve().parents[1]
UPRIGHT = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # world to camera, for a level camera that looks along world y


@pytest.fixture(scope="module")
def truth():
    return KnownBody.walking(load_body("lite"), frames=24)


@pytest.fixture(scope="module")
def exact(truth):
    """The fit to exact joints and pixels."""
    return fit_body(truth.motion(), keypoints=truth.keypoints(), camera=CAMERA, contacts=False)


@pytest.fixture(scope="module")
def noisy(truth):
    """Fits to joints with 20 mm of noise: with pixels and without."""
    motion = truth.motion(noise=0.02)
    with_pixels = fit_body(motion, keypoints=truth.keypoints(noise=1.5), camera=CAMERA, contacts=False)
    return motion, with_pixels, fit_body(motion, contacts=False)


def take_of(truth, *people, camera=CAMERA, **metadata):
    times = np.arange(len(truth.trajectory)) / truth.fps
    return Take("walk", camera.image_size, truth.fps, times, camera, tuple(people), metadata=metadata)


# ---- accuracy


def test_exact_data(truth, exact):
    assert 1000 * errors(exact, truth.joints).mean() < 0.5
    assert 1000 * truth.vertex_errors(exact.motion).mean() < 15  # one second shows little of the shape
    assert exact.report["stature_m"] == pytest.approx(truth.stature, abs=0.005)
    assert exact.report["mean_residual_mm"] < 0.5 and exact.report["mean_reprojection_px"] < 0.5


def test_noise_is_reduced(truth, noisy):
    motion, with_pixels, alone = noisy
    given = np.linalg.norm(motion.absolute - truth.joints, axis=-1).mean()
    assert errors(alone, truth.joints).mean() < 0.6 * given
    assert errors(with_pixels, truth.joints).mean() < 0.45 * given
    shake = [np.abs(np.diff(points - truth.joints, 2, axis=0)).mean()
             for points in (motion.absolute, alone.joints.absolute, with_pixels.joints.absolute)]
    assert shake[1] < 0.45 * shake[0] and shake[2] < 0.25 * shake[0]


def test_result_belongs_together(truth, exact):
    """The joints of the result are the points of its body; the report is about them."""
    motion = exact.motion
    points = truth.body.points("h36m17", motion.rotations, motion.trajectory, motion.shape)
    np.testing.assert_allclose(exact.joints.absolute, points, atol=1e-5)
    assert (motion.body, motion.fps, motion.frame, len(motion)) == ("lite", FPS, "camera", 24)
    apart = 1000 * np.linalg.norm(points - truth.joints, axis=-1)
    assert exact.report["residual_mm"]["hip"] == pytest.approx(apart[:, 0].mean(), abs=0.06)
    assert set(exact.report["residual_mm"]) == set(get_skeleton("h36m17").joints)
    assert set(exact.report["reprojection_px"]) == set(get_skeleton("coco17_feet").joints)
    assert exact.report["frames"] == 24 and exact.report["mode"] == "whole" and exact.report["body"] == "lite"
    assert exact.contacts is None and exact.ground is None and exact.report["contacts"] is None


def test_same_bits_twice(truth, noisy):
    motion, _, alone = noisy
    again = fit_body(motion, contacts=False)
    assert again.motion == alone.motion and again.joints == alone.joints
    assert {**again.report, "seconds": 0} == {**alone.report, "seconds": 0}


def test_chunks_give_what_the_whole_gives(monkeypatch):
    used = []
    chunked = problem_module.solve_chunked
    monkeypatch.setattr(problem_module, "solve_chunked",
                        lambda *args, **options: used.append(options) or chunked(*args, **options))
    truth = KnownBody.walking(small_body(), frames=98, fps=10.0)
    motion = truth.motion(noise=0.01)
    whole, parts = (fit_body(motion, body=truth.body, contacts=False, config=FitConfig(chunk=size))
                    for size in (200, 65))  # fmt: skip
    assert used and all(options["chunk"] == 65 for options in used)
    apart = np.linalg.norm(whole.joints.absolute - parts.joints.absolute, axis=-1)
    assert apart.max() < 1e-3
    assert whole.report["stature_m"] == pytest.approx(parts.report["stature_m"], abs=2e-3)
    np.testing.assert_allclose(whole.motion.joint_sigma, parts.motion.joint_sigma, rtol=0.3)


def test_given_height_is_kept(truth):
    motion = truth.motion(noise=0.02)
    height = truth.stature + 0.01
    assert fit_body(motion, height=height, contacts=False).report["stature_m"] == pytest.approx(height, abs=0.01)
    contradicted = fit_body(truth.motion(), height=truth.stature + 0.3, contacts=False)
    assert any("contradicts the height" in sentence for sentence in contradicted.report["warnings"])


def test_feet_that_stand():
    """A person who does nothing stands on both feet, on a floor at their soles."""
    body = load_body("lite")
    still = KnownBody.walking(body, 20, angle=0.0)
    still = replace(still, rotations=np.repeat(still.rotations[:1], 20, 0),
                    trajectory=np.repeat(still.trajectory[:1], 20, 0))  # fmt: skip
    still.rotations[:, [body.joint("left_knee"), body.joint("right_knee")]] = 0
    motion, keypoints = still.motion(noise=0.02), still.keypoints(noise=1.5)
    fit = fit_body(motion, keypoints=keypoints, camera=CAMERA)
    assert fit.contacts.shape == (20, len(fit.contact_names)) and np.median(fit.contacts) > 0.9
    assert fit.report["contacts"].keys() == set(fit.contact_names)
    vertices = still.body.vertices(fit.motion.rotations[:1], fit.motion.trajectory[:1], fit.motion.shape)[0]
    assert (vertices @ fit.ground.up - fit.report["ground"]["offset_m"]).min() == pytest.approx(0, abs=0.03)
    sliding = fit_body(motion, keypoints=keypoints, camera=CAMERA, contacts=False)
    slip, without = (np.linalg.norm(np.diff(each.joints.absolute[:, [3, 6]], axis=0), axis=-1)
                     for each in (fit, sliding))
    assert np.percentile(slip, 95) < 4e-3 and slip.mean() < 0.3 * without.mean()


# ---- evidence with holes


def test_missing_joints_and_gaps(truth):
    motion = truth.motion()
    joints = motion.joints.copy()
    rng = np.random.default_rng(0)
    joints[rng.random(joints.shape[:2]) < 0.2] = np.nan
    joints[10:15] = np.nan
    fit = fit_body(motion.replace(joints=joints), contacts=False)
    assert np.isfinite(fit.motion.rotations).all() and np.isfinite(fit.motion.joint_sigma).all()
    off = 1000 * errors(fit, truth.joints)
    seen = np.r_[0:10, 15:24]
    assert off[seen].mean() < 2 and off[10:15].mean() < 40
    sigma = fit.joints.sigma.mean(axis=1)
    assert sigma[12] > 2 * sigma[seen].mean()


def test_pixels_fill_a_gap_of_the_joints(truth):
    motion = truth.motion()
    joints, trajectory = motion.joints.copy(), motion.trajectory.copy()
    joints[8:16], trajectory[8:16] = np.nan, np.nan
    motion = motion.replace(joints=joints, trajectory=trajectory)
    alone = fit_body(motion, contacts=False)
    fit = fit_body(motion, keypoints=truth.keypoints(), camera=CAMERA, contacts=False)
    assert errors(fit, truth.joints)[8:16].mean() < 0.5 * errors(alone, truth.joints)[8:16].mean()
    assert fit.motion.joint_sigma[12].mean() < alone.motion.joint_sigma[12].mean()


def test_a_joint_that_is_never_seen(truth):
    motion = truth.motion()
    joints = motion.joints.copy()
    joints[:, get_skeleton("h36m17").joints.index("left_wrist")] = np.nan
    fit = fit_body(motion.replace(joints=joints), contacts=False)
    elbow, wrist = (truth.body.joint(name) for name in ("left_elbow", "left_wrist"))
    right = truth.body.joint("right_wrist")
    assert fit.report["residual_mm"]["left_wrist"] is None
    assert (fit.motion.joint_sigma[:, wrist] > 3 * fit.motion.joint_sigma[:, right]).all()
    assert (fit.motion.joint_sigma[:, wrist] > fit.motion.joint_sigma[:, elbow]).all()


@pytest.mark.parametrize("contacts", [False, True])
@pytest.mark.parametrize("frames", [1, 2])
def test_few_frames(truth, frames, contacts):
    motion, keypoints = truth.motion().slice(5, 5 + frames), truth.keypoints().slice(5, 5 + frames)
    motion = motion.replace(sigma=np.full(motion.joints.shape[:2], 1e-3))  # its own word; so few frames do not tell
    fit = fit_body(motion, keypoints=keypoints, camera=CAMERA, contacts=contacts)
    assert len(fit.motion) == frames and 1000 * errors(fit, truth.joints[5 : 5 + frames]).mean() < 1
    if not contacts:
        assert 1000 * errors(fit_body(motion, contacts=False), truth.joints[5 : 5 + frames]).mean() < 1


def test_few_frames_are_not_taken_for_exact(truth):
    """Without a word on its errors, a frame of noise is believed to some centimetres, as it should be."""
    fit = fit_body(truth.motion(noise=0.03).slice(5, 6), contacts=False)
    radius = np.median(fit.joints.sigma)
    assert 0.02 < radius < 0.09
    assert np.median(errors(fit, truth.joints[5:6])) < 2 * radius


def test_units_that_make_giants_are_refused(truth):
    motion = truth.motion()
    with pytest.raises(ValueError, match="give joints in metres"):
        fit_body(motion.replace(joints=1000 * motion.joints, trajectory=1000 * motion.trajectory), contacts=False)


def test_focal_length_is_found(truth):
    wrong = Camera(tuple(1.1 * np.asarray(CAMERA.focal)), tuple(CAMERA.center), CAMERA.image_size)
    options = {"keypoints": truth.keypoints(), "camera": wrong, "contacts": False}
    kept = fit_body(truth.motion(), **options)
    found = fit_body(truth.motion(), **options, config=FitConfig(focal=0.2))
    assert found.report["focal_factor"] == pytest.approx(1 / 1.1, rel=0.02)
    assert found.report["mean_reprojection_px"] < 0.3 * kept.report["mean_reprojection_px"]
    assert kept.report["focal_factor"] == 1.0


def test_absent_at_the_ends(truth):
    motion = truth.motion()
    joints = motion.joints.copy()
    joints[:4], joints[-3:] = np.nan, np.nan
    fit = fit_body(motion.replace(joints=joints))
    assert len(fit.motion) == 24 and fit.report["frames"] == 17
    np.testing.assert_array_equal(np.flatnonzero(fit.motion.present), np.arange(4, 21))
    for values in (fit.motion.trajectory, fit.motion.joint_sigma, fit.motion.rotation_sigma, fit.joints.joints,
                   fit.joints.sigma, fit.contacts):  # fmt: skip
        assert np.isnan(values[:4]).all() and np.isnan(values[-3:]).all() and np.isfinite(values[4:-3]).all()
    inside = fit_body(motion.slice(4, 21))
    np.testing.assert_array_equal(inside.motion.rotations, fit.motion.rotations[4:21])


def test_no_keypoint_seen_is_as_without(truth, noisy):
    motion, _, alone = noisy
    blind = truth.keypoints().replace(score=np.zeros((24, 23)))
    fit = fit_body(motion, keypoints=blind, camera=CAMERA, contacts=False)
    np.testing.assert_allclose(fit.joints.absolute, alone.joints.absolute, atol=2e-4)
    assert fit.report["mean_reprojection_px"] is None
    assert any("no 2D points" in sentence for sentence in fit.report["warnings"])


# ---- frames and cameras


def turned_camera(rotation, translation):
    return replace(CAMERA, rotation=rotation, translation=np.asarray(translation, float))


def test_world_frame(truth, noisy):
    """In a world frame the result is that of the camera frame, moved there."""
    motion, in_camera, _ = noisy
    camera = turned_camera(UPRIGHT, [0.2, 1.0, 0.5])
    world = motion_of(camera.to_world(np.asarray(motion.absolute, float)), frame="world")
    fit = fit_body(world, keypoints=truth.keypoints(noise=1.5), camera=camera, contacts=False)
    assert fit.motion.frame == "world" and fit.joints.frame == "world"
    np.testing.assert_allclose(camera.to_camera(fit.joints.absolute), in_camera.joints.absolute, atol=1e-3)


def test_world_frame_ends(truth):
    """A moving camera is cut to the frames in which the person is there."""
    joints = truth.motion().joints.copy()
    joints[:6] = np.nan
    turns = rotvec_to_matrix(np.linspace(0, 0.3, 24)[:, None] * [0.0, 1, 0]) @ UPRIGHT
    camera = turned_camera(turns, np.linspace(0, 1, 72).reshape(24, 3))
    world = motion_of(camera.to_world(truth.joints), frame="world")
    world = world.replace(joints=np.where(np.isnan(joints), np.nan, world.joints))
    fit = fit_body(world, keypoints=truth.keypoints(), camera=camera, contacts=False)
    assert np.isnan(fit.joints.joints[:6]).all() and fit.report["mean_reprojection_px"] < 0.5
    assert 1000 * np.linalg.norm(fit.joints.absolute - camera.to_world(truth.joints), axis=-1)[6:].mean() < 1


def test_camera_frame_knows_no_pose_of_the_camera(truth, exact):
    """Where the camera stands in the world does not matter to a motion in its frame."""
    camera = turned_camera(UPRIGHT, [0.2, 1.0, 0.5])
    fit = fit_body(truth.motion(), keypoints=truth.keypoints(), camera=camera, contacts=False)
    np.testing.assert_allclose(fit.joints.absolute, exact.joints.absolute, atol=1e-5)
    assert fit.report["mean_reprojection_px"] < 0.5


def test_floor_of_a_world_frame_is_where_the_feet_are(truth):
    """Origins of worlds lie on the floor or elsewhere; the feet know."""
    down = truth.points("coco17_feet")[..., 1].max()
    camera = turned_camera(UPRIGHT, [0, down - 0.6, 0])
    world = camera.to_world(truth.joints)
    fit = fit_body(motion_of(world, frame="world"), keypoints=truth.keypoints(), camera=camera)
    assert 1000 * errors(fit, world).mean() < 5


def test_points_behind_the_camera(truth):
    behind = motion_of(truth.joints * [1, 1, -1])
    fit = fit_body(behind, keypoints=truth.keypoints(), camera=CAMERA, contacts=False)
    assert np.isfinite(fit.motion.rotations).all()
    assert any("check the camera" in sentence for sentence in fit.report["warnings"])


def test_evidence_that_does_not_fit_together(truth):
    motion, keypoints = truth.motion(), truth.keypoints()
    frames = replace(CAMERA, rotation=np.repeat(np.eye(3)[None], 30, 0))
    world = motion.replace(frame="world")
    for changes, problem in (
        ({"camera": Camera.from_focal(500.0, (640, 480))}, r"\(1000, 1000\).*\(640, 480\)"),
        ({"keypoints": keypoints.slice(0, 9)}, "9 frames of keypoints"),
        ({"keypoints": keypoints.replace(fps=30.0)}, "30 frames/s"),
        ({"camera": None}, "keypoints but no camera"),
        ({"source": world, "camera": frames}, "30"),
        ({"source": motion.replace(trajectory=None)}, "no trajectory"),
        ({"source": motion.replace(joints=np.full_like(motion.joints, np.nan))}, "without a single known joint"),
        ({"source": "walk.npz"}, "got a str, expected a Motion"),
        ({"source": Person(3, keypoints)}, "person 3 has no motion"),
        ({"mode": "guess"}, "'guess', expected one of whole, smplify"),
        ({"height": 170}, "height"),
        ({"prior": "gmm_08.pkl"}, "prior"),
        ({"body": "octopus"}, "octopus"),
    ):
        options = {"source": motion, "keypoints": keypoints, "camera": CAMERA, "contacts": False, **changes}
        with pytest.raises(ValueError, match=problem) as caught:
            fit_body(options.pop("source"), **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pkl"):
        fit_body(motion, body="nothing.pkl")


def test_joints_that_are_too_few(truth):
    motion = truth.motion()
    joints = motion.joints.copy()
    joints[:, [1, 4]] = np.nan
    with pytest.raises(ValueError, match="right_hip.*hips and both shoulders"):
        fit_body(motion.replace(joints=joints))
    lone = np.full_like(joints, np.nan)
    lone[3, 0] = 0
    with pytest.raises(ValueError, match="both hips and both shoulders"):
        fit_body(motion.replace(joints=lone))
    five = small_body(joints=5).replace(regressors={})
    with pytest.raises(ValueError, match=r"no regressor for 'h36m17'|has no joint .*head"):
        fit_body(motion, body=five)


def test_sigma_that_is_not_known(truth):
    """Joints of unknown doubt do not count; of a motion in which all are unknown, the jitter tells."""
    motion = truth.motion()
    sigma = np.full(motion.joints.shape[:2], 0.02)
    sigma[::2, 5] = np.nan
    fit = fit_body(motion.replace(sigma=sigma), contacts=False)
    assert 1000 * errors(fit, truth.joints).mean() < 8  # the declared doubt leaves room for the prior
    fit = fit_body(motion.replace(sigma=np.full_like(sigma, np.nan)), contacts=False)
    assert 1000 * errors(fit, truth.joints).mean() < 1


# ---- uncertainty


def test_uncertainty_is_about_the_size_of_the_error(truth, noisy):
    _, with_pixels, alone = noisy
    for fit in (with_pixels, alone):
        inside = errors(fit, truth.joints) < fit.joints.sigma
        assert 0.45 < inside.mean() < 0.9
        own = truth.body.points("joints", fit.motion.rotations, fit.motion.trajectory, fit.motion.shape)
        off = np.linalg.norm(own - truth.points("joints"), axis=-1)
        assert 0.4 < (off < fit.motion.joint_sigma).mean() < 0.95


def test_less_evidence_is_less_certain(truth, noisy):
    motion, with_pixels, alone = noisy
    assert np.median(alone.motion.joint_sigma) > 1.1 * np.median(with_pixels.motion.joint_sigma)
    worse = fit_body(truth.motion(noise=0.06), contacts=False)
    assert np.median(worse.motion.joint_sigma) > 1.5 * np.median(alone.motion.joint_sigma)
    few = truth.motion(noise=0.02).replace(sigma=np.full((24, 17), 0.04)).slice(0, 1)
    assert np.isfinite(fit_body(few, contacts=False).motion.joint_sigma).all()


def test_weak_twist_is_warned_of(truth, noisy):
    """Nothing shows how wrists turn about themselves when there are no fingers."""
    fit = noisy[2]
    assert {"left_wrist", "right_wrist"} <= set(fit.report["weak_twist"])
    assert "left_hip" not in fit.report["weak_twist"]
    assert any("left_wrist" in sentence and "hardly observed" in sentence for sentence in fit.report["warnings"])
    turn = np.median(fit.motion.rotation_sigma, axis=0)
    assert turn[truth.body.joint("left_wrist")] > 2 * turn[0]


# ---- persons, takes and files


def test_person(truth, noisy):
    motion, with_pixels, _ = noisy
    person = Person(1, truth.keypoints(noise=1.5), motion)
    assert fit_body(person, camera=CAMERA, contacts=False).motion == with_pixels.motion
    assert fit_body(motion, contacts=False).report["reprojection_px"] is None


def test_a_person_without_a_camera_is_seen_by_the_usual_one(truth):
    keypoints = truth.keypoints(noise=1.5)
    person = Person(1, keypoints, truth.motion(noise=0.02))
    alone, usual = fit_body(person), Camera.from_focal(np.hypot(*keypoints.image_size), keypoints.image_size)
    assert alone.motion == fit_body(person, camera=usual).motion
    assert any("Focal length" in sentence and "assumed" in sentence for sentence in alone.report["warnings"])


def test_take_with_somebody_who_cannot_be_fitted(truth, noisy, tmp_path):
    motion, with_pixels, _ = noisy
    keypoints = truth.keypoints(noise=1.5)
    hipless = motion.joints.copy()
    hipless[:, [1, 4]] = np.nan
    people = (Person(7, keypoints, motion.replace(joints=hipless)), Person(2, keypoints, motion), Person(4, keypoints))
    titles = []
    fitted = fit_body(take_of(truth, *people, detector="test"), contacts=False,
                      progress=lambda items, total, title: titles.append((total, title)) or items)  # fmt: skip
    assert titles == [(2, "fitting bodies")]
    assert [person.id for person in fitted.people] == [7, 2, 4]
    assert fitted.person(2).body == with_pixels.motion
    assert fitted.person(7).body is None and fitted.person(4).body is None
    about = fitted.metadata["body"]
    assert (about["name"], about["mode"], fitted.metadata["detector"]) == ("lite", "whole", "test")
    (report,) = about["people"]
    assert report["id"] == 2 and report["stature_m"] == pytest.approx(truth.stature, abs=0.03)
    (warning,) = about["warnings"]
    assert warning.startswith("person 7 has no body: ") and "both hips" in warning
    json.dumps(fitted.metadata, allow_nan=False)
    model = truth.body
    assert fitted.metadata["bodies"] == {
        "lite": {"joints": list(model.joints), "parents": list(model.parents), "licence": model.licence}
    }
    for name in ("a.npz", "a.json"):
        save(fitted, tmp_path / name)
        assert load(tmp_path / name) == fitted
    (mesh,) = take_meshes(fitted)
    np.testing.assert_allclose(mesh.joint_positions(), model.points("joints", *pose_of(with_pixels.motion)), atol=1e-5)
    save(fitted, tmp_path / "a.glb", meshes=[mesh])
    assert model.licence.encode()[:20] in (tmp_path / "a.glb").read_bytes()


def pose_of(motion):
    return motion.rotations, motion.trajectory, motion.shape


def test_take_in_which_nobody_can_be_fitted(truth):
    motion = truth.motion()
    person = Person(1, truth.keypoints(), motion.replace(joints=np.full_like(motion.joints, np.nan)))
    with pytest.raises(ValueError, match="without a single known joint"):
        fit_body(take_of(truth, person))
    with pytest.raises(ValueError, match="nobody in the take 'walk' has a motion"):
        fit_body(take_of(truth, Person(1, truth.keypoints())))
    with pytest.raises(ValueError, match="nobody in the take 'walk' has a body"):
        take_meshes(take_of(truth, person))


def test_take_gives_the_height_to_its_main_person(truth):
    person = Person(1, truth.keypoints(noise=1.5), truth.motion(noise=0.03))
    height = round(truth.stature + 0.02, 3)
    fitted = fit_body(take_of(truth, person, replace(person, id=2)), contacts=False, height=height)
    first, second = (report["stature_m"] for report in fitted.metadata["body"]["people"])
    assert first == pytest.approx(height, abs=0.01) and second != first
    json.dumps(fitted.metadata, allow_nan=False)


def smpl_file(path):
    """A body of human proportions in the layout of the official files: 24 joints, pose blendshapes."""
    body = small_body(joints=24, pose=True)
    ring = body.num_vertices // 24
    regressor = np.zeros((24, body.num_vertices))
    for joint in range(24):  # the six vertices around where the joint's bone begins have it in their middle
        order = np.argsort(np.linalg.norm(body.template - body.joint_template[joint], axis=1))
        regressor[joint, order[: min(6, ring)]] = 1 / min(6, ring)
    table = np.array([body.parents, range(24)])
    table[0, 0] = 2**32 - 1
    np.savez(path, v_template=body.template, shapedirs=body.shape_directions, posedirs=body.pose_directions,
             J_regressor=regressor, weights=body.skin_weights.toarray(), kintree_table=table.astype(np.uint32),
             f=body.faces.astype(np.uint32), bs_type="lrotmin", bs_style="lbs")  # fmt: skip
    return path


@pytest.mark.parametrize("contacts", [False, True])
def test_file_of_the_user(tmp_path, contacts):
    """A mesh with other vertices than SMPL's has joints only: no feet to stand on, and the fit works without."""
    path = smpl_file(tmp_path / "basic_model.npz")
    truth = KnownBody.walking(load_body(path), frames=12)
    motion, keypoints = truth.motion(layout="smpl24"), truth.keypoints(layout="smpl24")
    fit = fit_body(motion, keypoints=keypoints, camera=CAMERA, body=str(path), contacts=contacts)
    assert fit.motion.body == "smpl" and fit.motion.rotations.shape == (12, 24, 3) and fit.motion.shape.shape == (4,)
    assert 1000 * errors(fit, truth.points("smpl24")).mean() < 2
    assert "Max Planck" in fit.body.licence and fit.contacts is None


def test_body_to_first_mesh_needs_no_torch():
    code = ("import sys\nfrom lifting.body.fit import fit_body\nfrom lifting.body import load_body\n"
            "body = load_body('lite')\nimport numpy as np\n"
            "shape = body.vertices(np.zeros((1, 22, 3)), np.zeros((1, 3))).shape\n"
            "print(shape == (1, body.num_vertices, 3), 'torch' in sys.modules, 'scipy.optimize' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stderr == "" and done.stdout.split()[:2] == ["True", "False"], done.stderr
