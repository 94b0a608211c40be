"""Forecasters: closed forms, what the world's axes must not change, weight files, samples, and rolling on."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from walking_figure import walker

from experiments.benchmark_future import score, summary
from lifting.checkpoints import Header, load_weights, save_weights
from lifting.datasets.future_windows import decode_future, encode_context
from lifting.forecasters import (
    FORECASTERS,
    FPS,
    WEIGHTS,
    Constant,
    ConstantVelocity,
    Forecast,
    NearestNeighbour,
    NetworkForecaster,
    load_forecaster,
    roll_on,
    roll_on_samples,
)
from lifting.models.future import JOINTS, SIGMAS, FutureConfig, WithMirrorImage, build_future
from lifting.seen_motion import SeenMotion

CONTEXT, FUTURE, RANK = 6, 5, 3


def seen_motion(count: int = 3, frames: int = CONTEXT, seed: int = 0) -> SeenMotion:
    rng = np.random.default_rng(seed)
    joints = rng.normal(size=(count, 1, 17, 3)) + 0.02 * rng.normal(size=(count, frames, 17, 3)).cumsum(1)
    joints[:, :, 0] = 0
    root = rng.normal(size=(count, 1, 3)) + 0.03 * rng.normal(size=(count, frames, 3)).cumsum(1)
    sigma = rng.uniform(0.02, 0.1, size=(count, frames, 17))
    return SeenMotion(*(array.astype(np.float32) for array in (joints, root, sigma)))


def turned(seen: SeenMotion, turn: np.ndarray, shift: np.ndarray) -> SeenMotion:
    return SeenMotion(seen.joints @ turn, seen.root @ turn + shift, seen.sigma)


TURN = Rotation.from_euler("z", 130, degrees=True).as_matrix().astype(np.float32)
SHIFT = np.array([4.0, -3.0, 0.0], np.float32)


def random_network() -> tuple[FutureConfig, torch.nn.Module]:
    torch.manual_seed(0)
    config = FutureConfig("gru", CONTEXT, FUTURE, 16, 1)
    network = build_future(config)
    with torch.no_grad():
        for layer in (network.heads.values, network.heads.log_sigma):
            layer.weight.normal_(std=0.02)
    return config, network


def network_forecaster() -> NetworkForecaster:
    rng = np.random.default_rng(0)
    config, network = random_network()
    factor = np.repeat(rng.uniform(1, 2, size=(FUTURE, 1)), SIGMAS, 1).astype(np.float32)
    patterns = rng.normal(size=(RANK, FUTURE, SIGMAS, 3)).astype(np.float32)
    return NetworkForecaster(network, config.context, factor, patterns, config.kind)


def neighbour() -> NearestNeighbour:
    bank = seen_motion(7, CONTEXT + FUTURE, seed=1)
    return NearestNeighbour(bank.joints, bank.root, CONTEXT)


MAKERS = [Constant, ConstantVelocity, neighbour, network_forecaster]


@pytest.mark.parametrize("make", MAKERS)
def test_forecasts_have_the_shapes_and_nothing_becomes_more_certain_further_ahead(make):
    forecaster, seen = make(), seen_motion()
    said = forecaster(seen, 4)
    assert forecaster.longest >= 4 and forecaster.context <= CONTEXT
    assert said.joints.shape == (3, 4, 17, 3) and said.root.shape == (3, 4, 3) and said.sigma.shape == (3, 4, 17)
    assert not said.joints[:, :, 0].any()
    assert (np.diff(said.sigma, axis=1) >= 0).all() and (said.sigma > 0).all()


@pytest.mark.parametrize("make", MAKERS)
def test_where_somebody_stands_and_faces_makes_no_difference(make):
    forecaster, seen = make(), seen_motion()
    here, there = forecaster(seen, 4), forecaster(turned(seen, TURN, SHIFT), 4)
    np.testing.assert_allclose(there.joints, here.joints @ TURN, atol=2e-5)
    np.testing.assert_allclose(there.root, here.root @ TURN + SHIFT, atol=2e-5)
    np.testing.assert_allclose(there.sigma, here.sigma, rtol=1e-4)


@pytest.mark.parametrize("make", [Constant, ConstantVelocity, network_forecaster])
def test_the_mirror_image_has_the_mirrored_future(make):
    forecaster, seen = make(), seen_motion()
    here, there = forecaster(seen, 4), forecaster(seen.mirrored(), 4)
    image = SeenMotion(here.joints, here.root, here.sigma).mirrored()
    np.testing.assert_allclose(there.joints, image.joints, atol=2e-5)
    np.testing.assert_allclose(there.root, image.root, atol=2e-5)
    np.testing.assert_allclose(there.sigma, image.sigma, rtol=1e-4)


@pytest.mark.parametrize("make", MAKERS)
def test_only_the_last_frames_of_a_longer_past_count(make):
    forecaster, seen = make(), seen_motion(frames=CONTEXT + 3)
    short = forecaster(seen.cut(slice(-forecaster.context, None)), 4)
    np.testing.assert_array_equal(forecaster(seen, 4).joints, short.joints)


@pytest.mark.parametrize("make", MAKERS)
def test_a_shorter_forecast_is_the_beginning_of_a_longer_one(make):
    forecaster, seen = make(), seen_motion()
    long, short = forecaster(seen, 5), forecaster(seen, 2)
    for field in ("joints", "root", "sigma"):
        np.testing.assert_allclose(getattr(short, field), getattr(long, field)[:, :2], rtol=1e-6)


def test_constant_velocity_is_exact_on_straight_motion():
    speeds = np.random.default_rng(1).normal(size=(2, 1, 17, 3)).astype(np.float32) * 0.05
    speeds[:, :, 0] = 0
    times = np.arange(8, dtype=np.float32)[None, :, None]
    joints, root = speeds * times[..., None], times * np.array([0.1, 0.2, 0.0], np.float32) + np.ones((2, 1, 1))
    said = ConstantVelocity()(SeenMotion(joints[:, :5], root[:, :5], np.ones((2, 5, 17), np.float32)), 3)
    np.testing.assert_allclose(said.joints, joints[:, 5:], atol=1e-6)
    np.testing.assert_allclose(said.root, root[:, 5:], atol=1e-6)


def test_constant_stays_and_so_does_velocity_after_a_single_frame():
    seen = seen_motion(frames=1)
    for forecaster in (Constant(), ConstantVelocity()):
        said = forecaster(seen, 3)
        np.testing.assert_array_equal(said.joints, np.repeat(seen.joints, 3, 1))
        np.testing.assert_array_equal(said.root, np.repeat(seen.root, 3, 1))


def test_the_neighbour_is_found_elsewhere_turned_and_in_another_size():
    bank = seen_motion(7, CONTEXT + FUTURE, seed=1)
    whole = turned(SeenMotion(1.3 * bank.joints, 1.3 * bank.root, bank.sigma), TURN, SHIFT)
    said = NearestNeighbour(bank.joints, bank.root, CONTEXT)(whole.cut(slice(CONTEXT)), FUTURE)
    np.testing.assert_allclose(said.joints, whole.joints[:, CONTEXT:], atol=1e-4)
    np.testing.assert_allclose(said.root, whole.root[:, CONTEXT:], atol=1e-4)


def test_the_neighbour_is_the_one_of_least_distance():
    bank, seen = seen_motion(9, CONTEXT + FUTURE, seed=1), seen_motion(4, seed=2)
    forecaster = NearestNeighbour(bank.joints, bank.root, CONTEXT, every=1)
    size = lambda joints: np.mean([np.linalg.norm(joints[:, a] - joints[:, b], axis=-1)  # noqa: E731
                                   for a, b in forecaster_bones()])  # fmt: skip
    for n in range(4):
        distances = []
        for k in range(9):
            one, other = (encode_context(*(a[None] for a in part))[0][0, :, : 3 * JOINTS] for part in (
                (seen.joints[n], seen.root[n], seen.sigma[n]),
                (bank.joints[k, :CONTEXT], bank.root[k, :CONTEXT], bank.sigma[k, :CONTEXT])))  # fmt: skip
            distances.append(np.linalg.norm(one / size(seen.joints[n]) - other / size(bank.joints[k, :CONTEXT])))
        only = NearestNeighbour(bank.joints[[np.argmin(distances)]], bank.root[[np.argmin(distances)]], CONTEXT)
        one = SeenMotion(seen.joints[n : n + 1], seen.root[n : n + 1], seen.sigma[n : n + 1])
        np.testing.assert_allclose(forecaster(one, 3).joints, only(one, 3).joints, atol=1e-6)


def forecaster_bones():
    from lifting.skeletons import get_skeleton

    return get_skeleton("h36m17").bones


def test_a_bank_without_futures_is_refused():
    bank = seen_motion()
    with pytest.raises(ValueError, match="at least one frame more"):
        NearestNeighbour(bank.joints, bank.root, CONTEXT)


def test_networks_say_what_their_values_decode_to_and_sigma_by_the_factor():
    config, network = random_network()
    forecaster, seen = network_forecaster(), seen_motion()
    features, heading = encode_context(seen.joints, seen.root, seen.sigma)
    with torch.no_grad():
        values, log_sigma = WithMirrorImage(network.eval())(torch.from_numpy(features))
    joints, root = decode_future(values.numpy(), features, seen.root[:, -1], heading)
    said = forecaster(seen, FUTURE)
    np.testing.assert_allclose(said.joints, joints, atol=1e-6)
    np.testing.assert_allclose(said.root, root, atol=1e-6)
    first = log_sigma[:, 0].exp().numpy() * forecaster._factor[0]
    np.testing.assert_allclose(said.sigma[:, 0], first, rtol=1e-5)


def test_samples_have_the_patterns_of_the_errors_around_the_forecast():
    forecaster, seen = network_forecaster(), turned(seen_motion(1), TURN, SHIFT)
    mean, drawn = forecaster(seen, FUTURE), forecaster.samples(seen, FUTURE, 20000, np.random.default_rng(0))
    assert drawn.joints.shape == (1, 20000, FUTURE, 17, 3) and drawn.root.shape == (1, 20000, FUTURE, 3)
    assert not drawn.joints[..., 0, :].any()
    _, heading = encode_context(seen.joints, seen.root, seen.sigma)
    away = np.concatenate([(drawn.root - mean.root[:, None])[..., None, :], (drawn.joints - mean.joints[:, None])
                           [..., 1:, :]], -2)[0] / mean.sigma[0, ..., None]  # fmt: skip
    away = (away @ heading.rotation[0].T).reshape(20000, -1)  # as the person sees it
    patterns = forecaster._errors.reshape(RANK, -1)
    expected = patterns.T @ patterns
    np.testing.assert_allclose(away.T @ away / 20000, expected, atol=0.05 * expected.diagonal().max())
    again = forecaster.samples(seen, FUTURE, 20000, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn.joints, again.joints)


def written(tmp_path, kind: str = "future") -> str:
    config, network = random_network()
    path = str(tmp_path / "weights.safetensors")
    tensors = {**network.state_dict(), "sigma_factor": torch.ones(FUTURE, SIGMAS),
               "error_patterns": torch.ones(RANK, FUTURE, SIGMAS, 3)}  # fmt: skip
    header = Header(kind, asdict(config), "h36m17", "h36m17", 25.0, "x", "Apache-2.0", "x", "0", {})
    save_weights(path, tensors, header, half=False)
    return path


def test_weight_files_give_the_same_forecaster_back(tmp_path):
    config, network = random_network()
    forecaster, seen = load_forecaster(written(tmp_path)), seen_motion()
    assert (forecaster.name, forecaster.context, forecaster.longest) == ("gru", CONTEXT, FUTURE)
    plain = NetworkForecaster(network, CONTEXT, np.ones((FUTURE, SIGMAS)), np.ones((RANK, FUTURE, SIGMAS, 3)), "gru")
    np.testing.assert_allclose(forecaster(seen, 5).joints, plain(seen, 5).joints, atol=1e-6)


def test_weights_of_something_else_and_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="of the kind 'lifter', expected 'future'"):
        load_forecaster(written(tmp_path, "lifter"))
    with pytest.raises(ValueError, match=f"'crystal_ball', expected one of {', '.join(FORECASTERS)}"):
        load_forecaster("crystal_ball")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_forecaster(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("make", [neighbour, network_forecaster])
def test_too_short_a_past_and_too_long_a_future_are_refused(make):
    forecaster = make()
    with pytest.raises(ValueError, match=f"a past of 5 frames, expected {CONTEXT}"):
        forecaster(seen_motion(frames=CONTEXT - 1), 1)
    for frames in (0, FUTURE + 1):
        with pytest.raises(ValueError, match=f"got {frames} frames to foresee, expected 1 to {FUTURE}"):
            forecaster(seen_motion(), frames)


def test_rolling_on_shows_a_forecaster_its_own_words():
    forecaster, seen = network_forecaster(), seen_motion()
    said = roll_on(forecaster, seen, 2 * FUTURE + 1)
    first = forecaster(seen, FUTURE)
    second = forecaster(SeenMotion(*(np.concatenate(pair, 1) for pair in (
        (seen.joints, first.joints), (seen.root, first.root), (seen.sigma, first.sigma)))), FUTURE)  # fmt: skip
    assert said.joints.shape[1] == said.root.shape[1] == said.sigma.shape[1] == 2 * FUTURE + 1
    np.testing.assert_array_equal(said.joints[:, :FUTURE], first.joints)
    np.testing.assert_array_equal(said.joints[:, FUTURE : 2 * FUTURE], second.joints)
    np.testing.assert_array_equal(said.root[:, FUTURE : 2 * FUTURE], second.root)
    assert (np.diff(said.sigma, axis=1) >= 0).all()


def test_rolling_on_by_parts_of_a_straight_line_is_the_line():
    forecaster, seen = ConstantVelocity(), seen_motion()
    whole = forecaster(seen, 9)
    forecaster.longest = 2
    np.testing.assert_allclose(roll_on(forecaster, seen, 9).joints, whole.joints, atol=1e-5)


def test_samples_roll_on_each_from_its_own():
    forecaster, seen = network_forecaster(), seen_motion(2)
    drawn = roll_on_samples(forecaster, seen, FUTURE + 2, 4, np.random.default_rng(0))
    assert drawn.joints.shape == (2, 4, FUTURE + 2, 17, 3) and drawn.root.shape == (2, 4, FUTURE + 2, 3)
    assert drawn.sigma.shape == (2, FUTURE + 2, 17)
    first = forecaster.samples(seen, FUTURE, 4, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn.joints[:, :, :FUTURE], first.joints)
    assert np.ptp(drawn.joints[:, :, -1], axis=1).max() > 1e-3
    # A forecaster that repeats itself exactly goes on from where each sample was.
    class Still(Constant):
        longest = 2

        def samples(self, seen: SeenMotion, frames: int, count: int, rng: np.random.Generator) -> Forecast:
            said = self(seen, frames)
            shift = rng.normal(size=(len(seen), count, 1, 3))
            joints = np.repeat(said.joints[:, None], count, 1)
            return Forecast(joints, said.root[:, None] + shift, said.sigma)

    rng = np.random.default_rng(1)
    roots = roll_on_samples(Still(), seen, 4, 5, rng).root
    expected = np.random.default_rng(1)
    steps = expected.normal(size=(2, 5, 1, 3))
    more = expected.normal(size=(10, 1, 1, 3)).reshape(2, 5, 1, 3)
    np.testing.assert_allclose(roots[:, :, 3:], seen.root[:, None, -1:] + steps + more, atol=1e-6)


SHIPPED = [name for name in FORECASTERS if (WEIGHTS / f"future_{name}.safetensors").exists()]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_foresee_somebody_who_walks(name):
    forecaster = load_forecaster(name)
    pieces = [walker(50, 1.2, 25.0, phase) for phase in np.linspace(0, 6, 8)]
    joints = np.stack([piece - piece[:, :1] for piece in pieces])
    root = np.stack([piece[:, 0] for piece in pieces])
    seen = SeenMotion(joints[:, :25], root[:, :25], np.full((8, 25, 17), 0.01, np.float32))
    said, still = forecaster(seen, 25), Constant()(seen, 25)
    for frame, share in ((4, 0.7), (9, 0.8)):
        error, as_still = (np.linalg.norm(f.joints[:, frame] - joints[:, 25 + frame], axis=-1).mean()
                           for f in (said, still))  # fmt: skip
        assert error < share * as_still
    assert np.linalg.norm(said.root[:, -1] - root[:, -1], axis=-1).mean() < 0.4  # of a way of 1.2 m


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_described_and_small(name):
    _, header = load_weights(WEIGHTS / f"future_{name}.safetensors")
    assert header.config["kind"] == name and header.fps == FPS
    assert (WEIGHTS / f"future_{name}.safetensors").stat().st_size < 1.2e6
    assert name in (WEIGHTS / "MODEL_CARD_FUTURE.md").read_text("utf-8")


def test_benchmark_scores_joints_and_the_way_of_the_root_apart():
    seen, rng = seen_motion(2), np.random.default_rng(0)
    joints = np.repeat(seen.joints[:, -1:], 25, 1)
    joints[..., 1:, 0] += 0.017  # 16 of 17 joints, in every frame
    way = np.repeat(np.array([0.0, 0.02, 0.0]) * np.ones((2, 1, 3)), 25, 1)
    found = score(Constant(), seen, joints, way)
    np.testing.assert_allclose(found["pose_mm"], 16, atol=1e-3)
    np.testing.assert_allclose(found["root_mm"], 20, atol=1e-3)
    assert "coverage" not in found
    rows = [{"pose_mm": [float(value)]} for value in rng.integers(0, 100, 3)]
    values = [row["pose_mm"][0] for row in rows]
    assert summary(rows)["pose_mm"] == {"mean": [round(np.mean(values), 4)], "spread": [max(values) - min(values)]}
