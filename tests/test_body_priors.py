from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from small_body import random_pose, small_body

from experiments import fit_pose_prior as recipe
from lifting.body.limits import swing_twist_angles
from lifting.body.priors import PRIORS_FILE, BodyPriors, PosePrior, load_priors, save_priors
from lifting.body.retarget import body_rotations_from_mocap
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix
from lifting.skeletons import get_skeleton

KINDS = ("gaussian", "mixture")


@pytest.fixture(scope="module")
def body():
    return small_body()


@pytest.fixture(scope="module")
def priors():
    return load_priors()


def poses(body, frames=6, angle=0.3, seed=0):
    return rotvec_to_matrix(random_pose(body, frames, seed, angle)[0])


# ---- the solver's interface


@pytest.mark.parametrize("kind", KINDS)
def test_jacobian_against_finite_differences(body, priors, kind):
    prior, rotations = priors.pose_prior(body, kind), poses(body)
    residual, jacobian = prior.linearise(rotations)
    assert jacobian.shape == (len(rotations), residual.shape[1], 3 * body.num_joints)
    step = 1e-6
    for column in range(3 * body.num_joints):
        vector = np.zeros((body.num_joints, 3))
        vector.flat[column] = step
        ahead, behind = (prior.linearise(rotations @ rotvec_to_matrix(sign * vector))[0] for sign in (1, -1))
        np.testing.assert_allclose((ahead - behind) / (2 * step), jacobian[:, :, column], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_half_the_squared_residual_is_the_cost(body, priors, kind):
    prior, rotations = priors.pose_prior(body, kind), poses(body)
    half = 0.5 * np.sum(prior.linearise(rotations)[0] ** 2, axis=1)
    np.testing.assert_allclose(half, prior.frame_costs(rotations), rtol=1e-10)
    assert prior.cost(rotations) == pytest.approx(half.sum())


def test_mixture_against_its_densities(body, priors):
    prior, rotations = priors.pose_prior(body, "mixture"), poses(body, frames=20)
    x = prior.features(rotations).reshape(20, -1)
    parts = zip(priors.mixture_weights, priors.mixture_means, priors.mixture_covariances, strict=True)
    slow = -np.max([np.log(w) + multivariate_normal(m, c).logpdf(x) for w, m, c in parts], axis=0)
    difference = prior.frame_costs(rotations) - slow
    np.testing.assert_allclose(difference, difference[0], atol=1e-6)


def test_plain_mixture_acts_on_the_bodys_own_rotation_vectors():
    rng = np.random.default_rng(0)
    rotvecs = rng.normal(0, 0.5, (5, 3, 3))
    means, root = rng.normal(0, 0.2, (2, 6)), rng.normal(0, 1, (2, 6, 6))
    covariances = root @ np.swapaxes(root, 1, 2) + np.eye(6)
    prior = PosePrior.from_mixture([0.3, 0.7], means, covariances, columns=[1, 2])
    x = rotvecs[:, 1:].reshape(5, 6)
    slow = -np.max([np.log(w) + multivariate_normal(m, c).logpdf(x)
                    for w, m, c in zip((0.3, 0.7), means, covariances, strict=True)], axis=0)  # fmt: skip
    difference = prior.frame_costs(rotvec_to_matrix(rotvecs)) - slow
    np.testing.assert_allclose(difference, difference[0], atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_most_usual_pose_costs_nothing(body, priors, kind):
    prior = priors.pose_prior(body, kind)
    usual = prior.mean_rotations(body.num_joints)
    assert prior.cost(usual[None]) == pytest.approx(0, abs=1e-12)
    np.testing.assert_array_equal(usual[0], np.eye(3))


@pytest.mark.parametrize("kind", KINDS)
def test_knees_and_elbows_bend_one_way(body, priors, kind):
    prior = priors.pose_prior(body, kind)
    usual = prior.mean_rotations(body.num_joints)
    before, after = priors.conversion(body)
    for name in ("left_knee", "right_knee", "left_elbow", "right_elbow"):
        joint, row = body.joint(name), priors.joints.index(name)
        costs = []
        for sign in (1, -1):
            pose = usual.copy()
            bent = rotvec_to_matrix(sign * 1.2 * priors.axes[row, 1])  # flexion in the reference convention
            pose[joint] = before[row].T @ bent @ after[row].T
            costs.append(prior.cost(pose[None]))
        assert costs[0] + 1 < costs[1]


def test_rest_pose_of_the_body_does_not_matter(body, priors):
    rng = np.random.default_rng(1)
    captured = rng.normal(0, 0.4, (4, 24, 3))
    rotations = rotvec_to_matrix(body_rotations_from_mocap(body, captured))
    columns = get_skeleton("smpl24").indices(priors.joints)
    expected = matrix_to_rotvec(np.swapaxes(priors.centres, -1, -2) @ rotvec_to_matrix(captured[:, columns]))
    np.testing.assert_allclose(priors.pose_prior(body).features(rotations), expected, atol=1e-5)


# ---- the package's file


def test_file_is_small_symmetric_and_says_where_it_comes_from(priors):
    assert PRIORS_FILE.stat().st_size < 0.5e6
    assert "mocap.cs.cmu.edu" in priors.metadata["acknowledgement"]
    assert priors.joints == get_skeleton("smpl24").joints[1:22]
    other = [priors.joints.index(name) for name in recipe.mirrored_joints()]
    np.testing.assert_allclose(priors.twist_sigma, priors.twist_sigma[other], atol=1e-3)
    mirror = np.diag([-1.0, 1, 1])
    np.testing.assert_allclose(priors.centres, mirror @ priors.centres[other] @ mirror, atol=1e-5)


def test_limits_hold_usual_poses_and_shut_out_broken_ones(priors):
    axes, turned = priors.axes, np.swapaxes(priors.axes, -1, -2)
    np.testing.assert_allclose(axes @ turned, np.broadcast_to(np.eye(3), axes.shape), atol=1e-6)
    assert (np.linalg.det(axes) > 0).all()

    def within(rotations):
        angles = swing_twist_angles(axes @ rotations @ turned)[0]
        return recipe.within(angles, priors.limit_low, priors.limit_high).all(axis=-1)

    assert within(priors.centres).all()
    assert within(np.tile(np.eye(3), (21, 1, 1))).all()  # the T-pose
    hinges = [priors.joints.index(f"{side}_{name}") for side in ("left", "right") for name in ("knee", "elbow")]
    assert within(rotvec_to_matrix(1.9 * axes[:, 1]))[hinges].all()
    assert not within(rotvec_to_matrix(-0.6 * axes[:, 1]))[hinges].any()
    assert priors.metadata["report"]["frames_within_limits_train_heldout"][0] > 0.95


def test_files_round_trip(priors, tmp_path):
    save_priors(priors, tmp_path / "priors.npz")
    again = load_priors(tmp_path / "priors.npz")
    assert again.joints == priors.joints and again.metadata == json.loads(json.dumps(dict(priors.metadata)))
    for name in ("centres", "covariance", "mixture_covariances", "limit_low", "twist_sigma_given_swing"):
        np.testing.assert_array_equal(getattr(again, name), getattr(priors, name))


def test_bad_files_are_refused(priors, tmp_path):
    with pytest.raises(FileNotFoundError):
        load_priors(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.npz"):
        load_priors(tmp_path / "text.npz")
    data = priors.to_dict()
    for change, words in [
        ({"covariance": None}, "lack covariance"),
        ({"covariance": data["covariance"][:-1]}, "covariance of the body priors has shape"),
        ({"mean": data["mean"] * np.nan}, "finite"),
        ({"metadata": np.array("{")}, "not JSON"),
    ]:
        arrays = {name: values for name, values in (data | change).items() if values is not None}
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(ValueError, match=words):
            load_priors(tmp_path / "bad.npz")


def test_wrong_use_is_refused_in_a_sentence(body, priors):
    with pytest.raises(ValueError, match="gaussian, mixture"):
        priors.pose_prior(body, "vposer")
    with pytest.raises(ValueError, match="no joint left_wrist"):
        priors.pose_prior(small_body(joints=20))
    with pytest.raises(ValueError, match="rest offsets have shape"):
        priors.pose_prior(body, offsets=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="limit_low"):
        replace(priors, limit_low=priors.limit_high + 1)
    with pytest.raises(ValueError, match="positive definite"):
        PosePrior.from_mixture([1.0], np.zeros((1, 3)), -np.eye(3)[None], [1])
    with pytest.raises(ValueError, match="means of a pose prior"):
        replace(priors.pose_prior(body), means=np.zeros((1, 5)))


# ---- the recipe


def test_mirroring_twice_changes_nothing():
    rotvecs = np.random.default_rng(0).normal(size=(4, 21, 3))
    mirrored = recipe.with_mirror(rotvecs)[4:]
    np.testing.assert_array_equal(recipe.with_mirror(mirrored)[4:], rotvecs)
    np.testing.assert_array_equal(mirrored[:, 0], rotvecs[:, 1] * [1, -1, -1])  # the left hip is the right one's image


def test_mixture_finds_two_clusters():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.05, (300, 63))
    x[:100] += 1.5
    weights, means, covariances = recipe.fit_mixture(x, 2, rounds=5)
    order = np.argsort(weights)
    np.testing.assert_allclose(weights[order], [1 / 3, 2 / 3], atol=1e-6)
    np.testing.assert_allclose(means[order].mean(axis=1), [1.5, 0], atol=0.02)
    expected = np.logaddexp(*(np.log(w) + multivariate_normal(m, c).logpdf(x[:5])
                              for w, m, c in zip(weights, means, covariances, strict=True)))  # fmt: skip
    np.testing.assert_allclose(recipe.mixture_density(x[:5], weights, means, covariances), expected)


def test_low_rank_keeps_the_largest_directions():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(63, 3)))[0] * np.sqrt(recipe.floors())[:, None]
    covariance = basis @ np.diag([50.0, 40, 30]) @ basis.T + np.diag(recipe.floors())
    np.testing.assert_allclose(recipe.low_rank(covariance, 3), covariance, atol=1e-10)
    fewer = recipe.low_rank(covariance, 1)
    direction = basis[:, 0] / recipe.floors()
    assert direction @ fewer @ direction == pytest.approx(direction @ covariance @ direction)
    assert np.trace(fewer / recipe.floors()) == pytest.approx(np.trace(covariance / recipe.floors()))


def test_limits_cover_the_poses_they_were_fitted_on():
    angles = np.random.default_rng(0).normal(0, 0.3, (2000, 21, 3))
    low, high = recipe.fit_limits(angles)
    assert recipe.within(angles, low, high).mean() > 0.999
    assert (high - low < 4).all()


def test_fitting_a_tiny_set(tmp_path):
    import h5py

    rng = np.random.default_rng(0)
    names = [name.replace("left_", "l_").replace("right_", "r_") for name in get_skeleton("smpl24").joints]
    with h5py.File(tmp_path / "rot.h5", "w") as file:
        file.attrs["joints"] = names
        for name, subject in (("01_01", "01"), ("05_01", "05")):
            group = file.create_group(name)
            group["rotvec"] = rng.normal(0, 3000, (1000, 24, 3)).astype(np.int16)
            group.attrs.update({"scale": 1e-4, "subject": subject})
    found = recipe.read_poses(tmp_path / "rot.h5")
    assert found.train.shape == found.held_out.shape == (400, 21, 3, 3)
    fitted, report = recipe.fit(found)
    assert isinstance(fitted, BodyPriors) and report["frames"] == [400, 400]
    assert report["angles_within_limits_train_heldout"][0] > 0.999
    np.testing.assert_allclose(fitted.covariance.diagonal(), recipe.floors() + 0.09, rtol=0.3)


def test_recipe_names_the_file_it_needs(tmp_path):
    import h5py

    with pytest.raises(FileNotFoundError, match="mocap_rot24"):
        recipe.read_poses(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["joints"] = ["pelvis"]
    with pytest.raises(ValueError, match="left_hip"):
        recipe.read_poses(tmp_path / "other.h5")
