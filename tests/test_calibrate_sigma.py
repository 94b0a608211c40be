"""Calibration of a lifter's uncertainty: what the factors do, and that they make the coverage right."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from walking_figure import walker

from experiments import calibrate_sigma
from experiments.calibrate_sigma import calibrated, error_ratios, factors_of
from experiments.protocol import CAMERA, IMAGE_SIZE, View
from lifting.checkpoints import Header
from lifting.keypoints import Keypoints2D
from lifting.models.lifter import LifterConfig, LiftNet
from lifting.motion import Motion
from lifting.predict import WEIGHTS, Lifter
from lifting.skeletons import get_skeleton
from lifting.training.losses import SIGMA_QUANTILE

LOOKAHEADS = (0, 2)
CONFIG = LifterConfig(channels=8, dilations=(1,), causal=True, lookaheads=LOOKAHEADS)

pytestmark = pytest.mark.usefixtures("one_thread")


def network(state: dict | None = None) -> LiftNet:
    torch.manual_seed(5)
    net = LiftNet(**asdict(CONFIG))
    net.load_state_dict(state or net.state_dict())
    return net


def lifter_of(state: dict | None = None, config: LifterConfig = CONFIG) -> Lifter:
    header = Header("lifter", asdict(config), "lift17", "h36m17", 50.0, "rays", "none", "none", "0", {})
    torch.manual_seed(5)
    net = LiftNet(**asdict(config))
    net.load_state_dict(state or net.state_dict())
    return Lifter(net, header)


def view_of_a_walker(frames: int = 60) -> View:
    joints = walker(frames) + [0, 0, 4.0]
    keypoints = Keypoints2D(
        np.concatenate([CAMERA.project(joints)[:, get_skeleton("h36m17").indices(names)] for names in _shared()], 1),
        np.ones((frames, 17)), get_skeleton("lift17"), IMAGE_SIZE, 50.0)  # fmt: skip
    truth = Motion(joints - joints[:, :1], joints[:, 0], None, get_skeleton("h36m17"), 50.0)
    return View("walker", keypoints, CAMERA, truth)


def _shared() -> list[list[str]]:
    """The joint that stands for each keypoint."""
    joints = get_skeleton("h36m17").joints
    names = {"nose": "neck_nose"} | {name: name for name in joints}
    return [[names.get(name, "left_ankle" if name.startswith("left") else "right_ankle")]
            for name in get_skeleton("lift17").joints]  # fmt: skip


@pytest.mark.parametrize("head", [0, 1])
def test_factors_multiply_the_sigmas_of_one_head_alone(head):
    factors = np.linspace(0.5, 2.0, 17)
    before = network()
    after = network(calibrated(before.state_dict(), head, factors))
    rays, scores = torch.randn(1, 9, 17, 2), torch.ones(1, 9, 17)
    lifts = zip(before.lift_each(rays, scores), after.lift_each(rays, scores), strict=True)
    for lookahead, (one, two) in enumerate(lifts):
        expected = np.log(factors) if lookahead == head else np.zeros(17)
        expected[0] = 0.0  # the root has no sigma of its own
        np.testing.assert_allclose((two.log_sigma - one.log_sigma).detach()[0, 0], expected, atol=1e-5)
        torch.testing.assert_close(one.joints, two.joints)


def test_the_calibrated_network_covers_what_it_was_calibrated_on():
    config = replace(CONFIG, causal=False, lookaheads=(0,))
    lifter, view = lifter_of(config=config), view_of_a_walker()
    ratios = error_ratios(lifter, [view], 0)
    assert ratios.shape == (2 * 60, 17)
    flip = list(get_skeleton("h36m17").flip)
    np.testing.assert_array_equal(np.sort(ratios[:, 4]), np.sort(ratios[:, flip[4]]))
    factors = np.quantile(ratios, SIGMA_QUANTILE, axis=0)
    again = lifter_of(calibrated(lifter.network.state_dict(), 0, np.where(factors > 0, factors, 1.0)), config)
    assert again.network.heads[0].sigma[2].bias.shape == (17,)
    inside = (error_ratios(again, [view], 0) < 1)[:, 1:]
    assert abs(inside.mean() - SIGMA_QUANTILE) < 0.1


def test_sets_count_alike_however_large_they_are():
    rng = np.random.default_rng(0)
    small, large = np.exp(rng.normal(0, 0.3, (500, 17))), 1.5 * np.exp(rng.normal(0, 0.3, (20_000, 17)))
    small[:, 0] = large[:, 0] = 0
    factors = factors_of([small, large])
    assert factors[0] == 1
    inside = np.array([(ratios[:, 1:] < factors[1:]).mean(0) for ratios in (small, large)])
    np.testing.assert_allclose(inside.mean(0), SIGMA_QUANTILE, atol=2e-3)
    assert (inside[0] > SIGMA_QUANTILE + 0.1).all() and (inside[1] < SIGMA_QUANTILE - 0.1).all()
    np.testing.assert_allclose(factors_of([large])[1:], np.quantile(large[:, 1:], SIGMA_QUANTILE, axis=0), rtol=1e-3)


def test_a_file_without_the_protocols_people_is_refused(tmp_path, monkeypatch):
    weights = tmp_path / "lifter.safetensors"
    weights.write_bytes(WEIGHTS.read_bytes())
    for reader in ("read_mocap", "benchmark_pieces"):
        monkeypatch.setattr(calibrate_sigma, reader, lambda *_, **__: [])
    result = CliRunner().invoke(calibrate_sigma.main, [str(weights), "--mocap", "other.h5"])
    assert result.exit_code == 2 and "other.h5 has no pieces to calibrate on; expected" in result.output
    assert weights.read_bytes() == WEIGHTS.read_bytes()
