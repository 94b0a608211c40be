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

from lifting.body import smplify_fit
from lifting.body.fit import fit_body
from lifting.body.max_mixture import MaxMixture
from lifting.body.priors import load_priors
from lifting.body.smplify import SmplifyResult
from lifting.cameras import Camera
from lifting.export import load, save
from lifting.motion import Person, Take
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix

ROOT = Path(__file__).resolve().parents[1]
UPRIGHT = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
FRAMES = 12


@pytest.fixture(scope="module")
def truth():
    """A body whose first shape coefficient is its size and whose others are zero."""
    known = KnownBody.walking(small_body(shape=2, vertices=200), FRAMES)
    return replace(known, shape=np.array([0.4, 0.0]))


@pytest.fixture
def known_poses(truth, monkeypatch):
    """In the place of SMPLify: its result is the truth, of frames that are solved, seen by bodies of other sizes."""
    calls = []

    def use(solved=slice(None), sizes=0.0):
        def smplify(body, keypoints, scores, camera, layout, prior, progress):
            calls.append({"pixels": keypoints, "scores": scores, "camera": camera, "prior": prior})
            return result(truth, len(keypoints), solved, sizes)

        monkeypatch.setattr(smplify_fit, "smplify", smplify)
        return calls

    return use


def result(truth, frames, solved, sizes):
    known = np.zeros(frames, bool)
    known[solved] = True
    shape = np.tile(truth.shape, (frames, 1))
    shape[:, 0] += sizes
    scale = (1 + 0.05 * shape[:, :1]) / (1 + 0.05 * truth.shape[0])  # as large in the picture
    parts = truth.rotations[:frames].copy(), truth.trajectory[:frames] * scale, shape, np.ones((frames, 4))
    for part in parts:
        part[~known] = np.nan
    return SmplifyResult(*parts, known, ("about the prior",))


def fit(truth, motion=None, keypoints=None, camera=CAMERA, **options):
    return fit_body(motion or truth.motion(), keypoints=keypoints or truth.keypoints(), camera=camera,
                    body=truth.body, mode="smplify", **options)  # fmt: skip


# ---- SMPLify itself


@pytest.fixture(scope="module")
def real(truth):
    shown = []
    found = fit(truth, truth.motion().slice(0, 2), truth.keypoints().slice(0, 2),
                progress=lambda items, total, title: shown.append((total, title)) or items)  # fmt: skip
    return found, shown


def test_published_stages_explain_the_picture(truth, real):
    found, shown = real
    assert shown == [(1, "fitting")]
    assert found.report["mean_reprojection_px"] < 4 and found.report["mean_residual_mm"] < 150
    assert found.report["stature_m"] == pytest.approx(truth.stature, abs=0.1)
    assert 1000 * errors(found, truth.joints[:2]).mean() == pytest.approx(found.report["mean_residual_mm"], abs=0.1)
    assert found.motion.body == "small" and found.motion.frame == "camera" and found.motion.present.all()
    assert found.motion.joint_sigma is None and found.joints.sigma is None
    assert any("gmm_08.pkl" in sentence for sentence in found.report["warnings"])


def test_report_has_the_keys_of_the_other_mode(truth, real):
    other = fit_body(truth.motion().slice(0, 2), body=truth.body, contacts=False)
    report = real[0].report
    assert list(report) == list(other.report) and report["mode"] == "smplify"
    assert list(report["energy"]) == ["stage 1", "stage 2", "stage 3", "stage 4"] and report["seconds"] > 0
    json.dumps(report, allow_nan=False)


def test_prior_of_the_user(truth, tmp_path):
    """The file of a mixture reaches SMPLify; what that says of the prior reaches the report."""
    np.savez(tmp_path / "gmm.npz", weights=np.ones(1), means=np.zeros((1, 63)), covars=np.eye(63)[None])
    found = fit(truth, truth.motion().slice(0, 1), truth.keypoints().slice(0, 1), prior=str(tmp_path / "gmm.npz"))
    assert any("made for SMPL's rest pose" in sentence for sentence in found.report["warnings"])
    with pytest.raises(FileNotFoundError, match=r"none\.pkl"):
        fit(truth, prior=tmp_path / "none.pkl")
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"bad\.npz"):
        fit(truth, prior=tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="PosePrior as the prior of SMPLify, expected a MaxMixture"):
        fit(truth, prior=load_priors().pose_prior(truth.body))


# ---- from frames to one body in motion


def test_one_shape_for_all_frames(truth, known_poses):
    """The median shape, and every frame as large in the picture as SMPLify had it."""
    known_poses(sizes=np.r_[np.full(5, -1.0), 0, np.full(5, 0.5), 40])  # one frame that is far off moves nothing
    found = fit(truth)
    np.testing.assert_allclose(found.motion.shape, truth.shape + [0.25, 0], atol=1e-6)
    assert found.report["mean_reprojection_px"] < 1e-3
    nearer = np.linalg.norm(found.motion.trajectory, axis=-1) / np.linalg.norm(truth.trajectory, axis=-1)
    np.testing.assert_allclose(nearer, (1 + 0.05 * 0.65) / (1 + 0.05 * 0.4), rtol=1e-6)
    assert any("the median shape stands for all" in sentence for sentence in found.report["warnings"])


def test_exact_poses_come_through(truth, known_poses):
    known_poses()
    found = fit(truth)
    np.testing.assert_allclose(found.joints.absolute, truth.joints, atol=1e-5)
    turned = rotvec_to_matrix(found.motion.rotations.astype(float))
    np.testing.assert_allclose(turned, rotvec_to_matrix(truth.rotations), atol=1e-5)
    assert found.report["mean_residual_mm"] == 0 and found.report["frames"] == FRAMES
    assert "about the prior" in found.report["warnings"]


def test_gaps_are_bridged_and_ends_left_empty(truth, known_poses):
    known_poses(solved=[2, 3, 6, 7, 9])
    found = fit(truth)
    np.testing.assert_array_equal(np.flatnonzero(found.motion.present), np.arange(2, 10))
    np.testing.assert_array_equal(np.isfinite(found.joints.joints).all((1, 2)), found.motion.present)
    solved = [2, 3, 6, 7, 9]
    np.testing.assert_allclose(found.joints.absolute[solved], truth.joints[solved], atol=1e-5)
    between = truth.trajectory[3] + (truth.trajectory[6] - truth.trajectory[3]) / 3
    np.testing.assert_allclose(found.motion.trajectory[4], between, atol=1e-6)
    before, after = rotvec_to_matrix(truth.rotations[[3, 6]])
    third = matrix_to_rotvec(before.swapaxes(-1, -2) @ after) / 3
    np.testing.assert_allclose(rotvec_to_matrix(found.motion.rotations[4].astype(float)),
                               before @ rotvec_to_matrix(third), atol=1e-5)  # fmt: skip
    assert found.report["frames"] == 8
    assert any(sentence.startswith("7 of 12 frames show no side of the torso") for sentence in found.report["warnings"])


def test_one_solved_frame(truth, known_poses):
    known_poses(solved=[4])
    found = fit(truth)
    np.testing.assert_array_equal(np.flatnonzero(found.motion.present), [4])
    np.testing.assert_allclose(found.joints.absolute[4], truth.joints[4], atol=1e-5)


def test_prior_as_an_object(truth, known_poses):
    calls = known_poses()
    mixture = MaxMixture(np.ones(1), np.zeros((1, 63)), np.eye(63)[None])
    fit(truth, prior=mixture)
    assert calls[0]["prior"] is mixture


def test_only_frames_of_the_motion_count(truth, known_poses):
    calls = known_poses()
    joints = truth.motion().joints.copy()
    joints[-3:] = np.nan
    found = fit(truth, truth.motion().replace(joints=joints))
    np.testing.assert_array_equal(np.flatnonzero(found.motion.present), np.arange(9))
    assert calls[0]["pixels"].shape == (9, 23, 2) and calls[0]["scores"].shape == (9, 23)
    assert len(found.motion) == len(found.joints) == FRAMES


def test_world_frames(truth, known_poses):
    """The result lies where the camera's pose, still or moving, puts it; in the camera frame that does not matter."""
    known_poses()
    turns = rotvec_to_matrix(np.linspace(0, 0.5, FRAMES)[:, None] * [0.2, 1, 0]) @ UPRIGHT
    for rotation, translation in ((UPRIGHT, [0.1, 1, 0.3]), (turns, np.linspace(0, 1, 3 * FRAMES).reshape(FRAMES, 3))):
        camera = replace(CAMERA, rotation=rotation, translation=np.asarray(translation, float))
        world = camera.to_world(truth.joints)
        found = fit(truth, motion_of(world, frame="world"), camera=camera)
        assert found.motion.frame == found.joints.frame == "world"
        np.testing.assert_allclose(found.joints.absolute, world, atol=1e-5)
        own = truth.body.points("h36m17", found.motion.rotations, found.motion.trajectory, found.motion.shape)
        np.testing.assert_allclose(own, world, atol=1e-5)
        assert found.report["mean_reprojection_px"] < 1e-3
        np.testing.assert_allclose(fit(truth, camera=camera).joints.absolute, truth.joints, atol=1e-5)


def test_moving_camera_with_empty_ends(truth, known_poses):
    known_poses(solved=slice(1, 8))
    turns = rotvec_to_matrix(np.linspace(0, 0.5, FRAMES)[:, None] * [0.2, 1, 0]) @ UPRIGHT
    camera = replace(CAMERA, rotation=turns)
    world = camera.to_world(truth.joints)
    found = fit(truth, motion_of(world, frame="world"), camera=camera)
    np.testing.assert_allclose(found.joints.absolute[1:8], world[1:8], atol=1e-5)
    assert np.isnan(found.joints.joints[[0, 8, 11]]).all()


def test_far_from_the_lift_is_said(truth, known_poses):
    known_poses()
    found = fit(truth, motion_of(truth.joints + [0, 0, 0.5]))
    assert any("500 mm from the lifted joints" in sentence for sentence in found.report["warnings"])


def test_take(truth, known_poses, tmp_path):
    known_poses(solved=slice(2, None))
    person = Person(3, truth.keypoints(), truth.motion())
    blind = Person(4, truth.keypoints(), person.motion.replace(joints=np.full_like(person.motion.joints, np.nan)))
    take = Take("walk", CAMERA.image_size, FPS, np.arange(FRAMES) / FPS, CAMERA, (blind, person))
    fitted = fit_body(take, body=truth.body, mode="smplify")
    about = fitted.metadata["body"]
    assert about["mode"] == "smplify" and [report["id"] for report in about["people"]] == [3]
    assert about["warnings"][0].startswith("person 4 has no body: ") and fitted.person(4).body is None
    assert fitted.metadata["bodies"]["small"]["joints"] == list(truth.body.joints)
    save(fitted, tmp_path / "a.npz")
    assert load(tmp_path / "a.npz") == fitted


# ---- bad input


def test_bad_input_is_one_sentence(truth):
    motion, keypoints = truth.motion(), truth.keypoints()
    hidden = keypoints.score.copy()
    hidden[:, [5, 12]] = 0  # left shoulder, right hip: no side is whole
    for changes, problem in (
        ({"keypoints": None}, "got no keypoints, expected both keypoints and their camera"),
        ({"camera": None}, "got no camera, expected both"),
        ({"height": 1.8}, "1.8 m for the mode 'smplify', which has no term for it"),
        ({"camera": Camera.from_focal(500.0, (640, 480))}, "scale the camera"),
        ({"keypoints": keypoints.slice(0, 3)}, "3 frames of keypoints"),
        ({"keypoints": keypoints.replace(score=np.zeros_like(hidden))}, "no keypoint is seen"),
        ({"keypoints": keypoints.replace(score=hidden)}, "a shoulder and the hip of its side"),
        ({"source": motion.replace(joints=np.full_like(motion.joints, np.nan))}, "without a single known joint"),
        ({"body": small_body(joints=5)}, "SMPL's joints in SMPL's order"),
    ):
        options = {"source": motion, "keypoints": keypoints, "camera": CAMERA, "body": truth.body, **changes}
        with pytest.raises(ValueError, match=problem) as caught:
            fit_body(options.pop("source"), mode="smplify", **options)
        assert "\n" not in str(caught.value)


def test_it_needs_no_torch():
    code = "import sys, lifting.body.smplify_fit; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
