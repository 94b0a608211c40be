"""PHD as a forecaster, as a stream, in training and in its tables."""

from __future__ import annotations

from dataclasses import asdict, fields

import numpy as np
import pytest
import torch
from body_pieces import VIEWED, body_piece, lite, turned_world
from scipy.spatial.transform import Rotation

from experiments.phd_tables import FRAMES, Truth, future_row, tell, told, true_bodies
from experiments.train_phd import (
    OWN,
    ROWS,
    WEIGHTS,
    Batches,
    KeptBest,
    Losses,
    Trainee,
    Validation,
    make_trainee,
    mean_rotations,
    measure_growth,
    own_predictions,
)
from lifting.anatomy import H36M
from lifting.datasets.strip_windows import StripWindows, body_flip, make_batch, stack_seen
from lifting.forecasters import load_forecaster
from lifting.headings import heading_of
from lifting.models.strips.body import StripBody
from lifting.models.strips.files import load_strips, save_strips
from lifting.models.strips.phd import FARTHEST, Phd, PhdConfig
from lifting.models.strips.readout import BodyState
from lifting.rotations import rotvec_to_matrix
from lifting.seen_motion import SeenMotion
from lifting.strip_features import FEATURES
from lifting.strips_forecaster import AT_ONCE, PhdForecaster, bodies_in_world, carry_along, follow_way, steady_way
from lifting.strips_forecaster import WEIGHTS as SHIPPED

CONFIG = PhdConfig(FEATURES, len(lite().joints), lite().num_shape, width=16, hidden=8)


def network(config: PhdConfig = CONFIG, seed: int = 0) -> Phd:
    """Random weights that make bodies differ from frame to frame."""
    torch.manual_seed(seed)
    model = Phd(**asdict(config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "convolutions.1" in name:
                parameter.normal_(0, 0.1)
        model.readout.regressor.layers[-1].weight.normal_(0, 0.05)
        model.growth.copy_(0.1 * torch.arange(1, FARTHEST + 1)[:, None].expand_as(model.growth))
    rotations = torch.eye(3).repeat(CONFIG.joints, 1, 1)
    model.readout.set_mean(rotations, torch.zeros(CONFIG.shapes))
    return model.eval()


def forecaster() -> PhdForecaster:
    return PhdForecaster(network(), lite())


def seen(count: int = 1, frames: int = 25) -> SeenMotion:
    return stack_seen([body_piece(frames, seed, 0.02).seen for seed in range(count)])


def test_a_forecast_goes_on_from_the_last_seen_frame():
    said = forecaster()(seen(2), 5)
    assert (said.joints.shape, said.root.shape, said.sigma.shape) == ((2, 5, 17, 3), (2, 5, 3), (2, 5, 17))
    assert not said.joints[:, :, 0].any() and said.joints.dtype == np.float32
    assert np.isfinite(said.joints).all() and np.isfinite(said.root).all()


def test_many_pieces_are_forecast_as_each_alone():
    one, model = seen(3), forecaster()
    many = SeenMotion(*(np.concatenate([getattr(one, f.name)] * (AT_ONCE // 3 + 1)) for f in fields(one)))
    np.testing.assert_allclose(model(many, 2).joints[-3:], model(one, 2).joints, atol=1e-5)


def test_a_forecast_turns_and_moves_with_the_world():
    past, shift = seen(), np.array([4.0, -1.0, 0.0])
    said, other = forecaster()(past, 8), forecaster()(turned_world(past, 2.5, shift), 8)
    turn = Rotation.from_euler("z", 2.5).as_matrix()
    np.testing.assert_allclose(other.joints, said.joints @ turn.T, atol=1e-3)
    np.testing.assert_allclose(other.root, said.root @ turn.T + shift, atol=1e-3)
    np.testing.assert_array_equal(other.sigma, said.sigma)


def test_more_past_than_the_context_changes_nothing():
    past, model = seen(1, 40), forecaster()
    np.testing.assert_allclose(model(past, 4).joints, model(past.cut(slice(-25, None)), 4).joints, atol=1e-6)


def test_sigma_adds_growth_to_the_last_sigma():
    past = seen()
    sigma = forecaster()(past, 3).sigma
    np.testing.assert_allclose(sigma[0, 1, 5], np.hypot(past.sigma[0, -1, 5], 0.2), rtol=1e-6)
    np.testing.assert_allclose(sigma[0, :, 0], [0.1, 0.2, 0.3], rtol=1e-6)


def test_the_true_way_leads_along_the_true_path():
    batch = make_batch([body_piece(30, seed) for seed in range(2)], body_flip(lite().joints))
    past = stack_seen([body_piece(30, seed).seen for seed in range(2)]).cut(slice(12))
    turn, root = follow_way(past, batch.way[:, 12:])
    np.testing.assert_allclose(turn, batch.heading[:, 12:], atol=1e-4)
    np.testing.assert_allclose(root, batch.root[:, 12:], atol=1e-4)


def test_the_way_goes_over_from_what_was_seen_to_what_is_told():
    past, model = seen(2), forecaster()
    now, future = model.tell(past, 50)
    way, told_way = steady_way(past, now, future), future.way.numpy()
    turn = heading_of(past.joints[:, -1], past.root[:, -1]).rotation
    step = np.einsum("nij,nj->ni", turn, past.root[:, -1] - past.root[:, -2])
    np.testing.assert_allclose((way - told_way)[:, 9, :3], np.exp(-1) * (step - now.way.numpy()[:, 0, :3]), atol=1e-5)
    np.testing.assert_allclose(way[:, -1], told_way[:, -1], atol=0.02)
    np.testing.assert_array_equal(way[..., 3], told_way[..., 3])
    np.testing.assert_array_equal(steady_way(past.cut(slice(1)), now, future), told_way)


def test_a_body_that_does_not_change_keeps_the_pose_and_half_of_what_it_does_not_explain():
    past = seen(2)
    turn = heading_of(past.joints[:, -1:], past.root[:, -1:]).rotation
    pose = past.joints[:, -1:] @ np.swapaxes(turn, -1, -2)
    np.testing.assert_allclose(carry_along(past, pose, pose, turn), past.joints[:, -1:], atol=1e-6)
    other = pose + np.random.default_rng(0).normal(size=pose.shape)
    still = carry_along(past, other, other.repeat(60, 1), turn)
    far, near = np.abs(still[:, [-1, 0]] - past.joints[:, -1:]).transpose(1, 0, 2, 3)
    np.testing.assert_allclose(far, 0.5 * np.abs((other - pose) @ turn)[:, 0], atol=1e-4)
    np.testing.assert_allclose(near, 0.5 * (1 - np.exp(-0.2)) * np.abs((other - pose) @ turn)[:, 0], atol=1e-4)
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    turned = carry_along(past, pose, pose, turn @ quarter.T)
    np.testing.assert_allclose(turned, past.joints[:, -1:] @ quarter.T, atol=1e-6)


def test_the_mirror_image_has_the_mirrored_future():
    past, model = seen(2), forecaster()
    said, other = model(past, 6), model(past.mirrored(), 6)
    across = np.array([-1, 1, 1])
    np.testing.assert_allclose(other.joints, said.joints[:, :, list(H36M.flip)] * across, atol=1e-5)
    np.testing.assert_allclose(other.root, said.root * across, atol=1e-5)


def test_bodies_of_the_truth_have_the_true_joints_in_the_world():
    piece, flip = body_piece(6), body_flip(lite().joints)
    batch = make_batch([piece], flip)
    shape = torch.from_numpy(batch.shape)[:, None].expand(-1, 6, -1)
    state = BodyState(torch.from_numpy(batch.rotations), shape, shape, shape)
    motion = bodies_in_world(StripBody(lite()), state, batch.heading, batch.root)[0]
    points = lite().points("h36m17", rotvec_to_matrix(motion.rotations), motion.trajectory, motion.shape)
    np.testing.assert_allclose(points, piece.joints + piece.root[:, None], atol=1e-4)
    np.testing.assert_allclose(motion.trajectory, piece.trajectory, atol=1e-4)
    assert (motion.body, motion.fps, motion.frame) == ("lite", 25.0, "world")


def test_bodies_of_a_future_walk_where_they_are_told_to():
    past, model = seen(2), forecaster()
    roots = follow_way(past, steady_way(past, *model.tell(past, 4)))[1]
    for motion, root in zip(model.bodies(past, 4), roots, strict=True):
        points = lite().points("h36m17", rotvec_to_matrix(motion.rotations), motion.trajectory, motion.shape)
        np.testing.assert_allclose(points[:, 0], root, atol=1e-4)


def test_a_stream_gives_the_forecast_of_all_frames_at_once():
    past, model = seen(1, 25), forecaster()
    stream = model.stream()
    bodies = [stream.step(past.cut(slice(t, t + 1))) for t in range(25)]
    once, streamed = model(past, 6), stream.future(6)
    for name in ("joints", "root", "sigma"):
        np.testing.assert_allclose(getattr(streamed, name), getattr(once, name), atol=1e-4)
    state = model.network(torch.from_numpy(make_batch([body_piece(25, 0, 0.02)], body_flip(lite().joints)).features))
    np.testing.assert_allclose(rotvec_to_matrix(bodies[-1].rotations)[0, 1:],
                               state.present.rotations[0, -1, 1:].detach(), atol=1e-3)  # fmt: skip


def test_a_stream_wants_one_frame_of_one_person():
    stream = forecaster().stream()
    with pytest.raises(ValueError, match="no frame yet"):
        stream.future(3)
    with pytest.raises(ValueError, match="1 pieces of 25 frames"):
        stream.step(seen())


def test_weights_are_written_and_read_again(tmp_path):
    path, model = tmp_path / "phd.safetensors", network()
    save_strips(path, model, CONFIG, training="none", licence="CC0", version="0", metrics={})
    read = PhdForecaster.load(path)
    assert read.name == "phd" and len(read.digest) == 16
    torch.testing.assert_close(read.network.growth, model.growth, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(read(seen(), 3).joints, forecaster()(seen(), 3).joints, atol=0.05)
    with pytest.raises(ValueError, match="holds a 'phd', expected a 'hmmr'"):
        load_strips(path, "hmmr")
    with pytest.raises(FileNotFoundError, match="no weights"):
        PhdForecaster.load(tmp_path / "none.safetensors")


def test_the_shipped_weights_are_small_and_causal():
    assert SHIPPED.stat().st_size <= 2.7e6
    model, features = load_forecaster("phd"), torch.randn(1, 30, FEATURES, generator=torch.Generator().manual_seed(0))
    other = features.clone()
    other[:, 20:] += 1
    one, two = (model.network(x).present for x in (features, other))
    assert torch.equal(one.codes[:, :20], two.codes[:, :20]) and not torch.equal(one.codes[:, 20:], two.codes[:, 20:])
    assert model.digest == load_forecaster(SHIPPED).digest


def test_the_shipped_weights_see_where_somebody_walks():
    """Half a second ahead, somebody who goes on at one speed is nearer to what is said than to where they were."""
    piece = body_piece(38, 0)
    said = load_forecaster("phd")(piece.seen.cut(slice(25)), 13)
    off = np.linalg.norm(said.root[0] - piece.root[25:], axis=-1)
    assert off[-1] < 0.6 * np.linalg.norm(piece.root[24] - piece.root[37])
    assert np.linalg.norm(said.joints[0] - piece.joints[25:], axis=-1).mean() < 0.15


def test_own_predictions_become_more():
    counts = [own_predictions(step, 1000) for step in range(1000)]
    assert counts[0] == 1 and counts[600] == OWN == counts[-1] and counts == sorted(counts)


def windows() -> StripWindows:
    return StripWindows([body_piece(60, seed, 0.02) for seed in range(2)], body_flip(lite().joints), 16)


def losses_of(row: str, trainee: Trainee, steps: int | None = 4) -> dict[str, torch.Tensor]:
    body, frames = StripBody(lite()), (2, 2, 2)
    torch.manual_seed(0)
    pair = Batches(windows(), 2, 0, steps)[3]
    return Losses(body, torch.ones(CONFIG.shapes), ROWS[row], frames)(trainee, pair)


@pytest.mark.parametrize(("row", "strips"), [("latent", True), ("no_strip", False), ("body", False)])
def test_rows_of_the_ablation_differ_in_their_losses(row, strips):
    trainee = make_trainee(16, ROWS[row], windows(), 0)
    losses = losses_of(row, trainee)
    assert set(losses) <= set(WEIGHTS) and all(loss.isfinite() for loss in losses.values())
    assert ("strip" in losses, "next_strip" in losses) == (strips, strips)
    assert set(WEIGHTS) - {"strip", "next_strip"} <= set(losses)
    assert not any("strip" in name for name in losses_of(row, trainee, None))


def test_the_second_step_starts_from_the_first_and_leaves_the_readouts_alone():
    first, second = make_trainee(16, ROWS["latent"], windows(), 0), make_trainee(16, ROWS["body"], windows(), 1)
    second.start_from(first)
    for part in ("encoder", "readout", "delta_readouts"):
        for a, b in zip(getattr(first.phd, part).parameters(), getattr(second.phd, part).parameters(), strict=True):
            assert torch.equal(a, b)
    sum(WEIGHTS[name] * loss for name, loss in losses_of("body", second).items()).backward()
    frozen = {name for name, parameter in second.named_parameters() if parameter.grad is None}
    assert frozen == {name for name, _ in second.named_parameters() if "readout" in name}


def test_the_discriminator_does_not_learn_from_what_the_network_wants():
    trainee = make_trainee(16, ROWS["latent"], windows(), 0)
    rotations = torch.eye(3).repeat(2, 3, CONFIG.joints, 1, 1)
    made = rotations.clone().requires_grad_()
    found = trainee.prior_losses(made, rotations)
    found["adversarial"].backward()
    assert made.grad.any() and all(p.grad is None for p in trainee.judge.parameters())
    made.grad = None
    found["judge"].backward()
    assert made.grad is None and any(p.grad.any() for p in trainee.judge.parameters())


def test_mean_rotations_are_those_of_scipy():
    some = Rotation.concatenate([Rotation.from_rotvec([0.3, 0.1, k / 5]) for k in range(6)])
    mean = mean_rotations(some.as_matrix()[:, None])
    np.testing.assert_allclose(mean[0], some.mean().as_matrix(), atol=1e-6)
    flat = mean_rotations(np.diag([1.0, 1.0, -0.1])[None, None])  # the nearest rotation, not a reflection
    np.testing.assert_allclose(np.linalg.det(flat[0]), 1.0, atol=1e-6)


def test_growth_covers_the_share_of_errors_it_says():
    pieces, model = [body_piece(85, seed, 0.02) for seed in range(4)], forecaster()
    model.network.growth.copy_(torch.from_numpy(measure_growth(model, pieces)))
    growth = model.network.growth.numpy()
    assert (np.diff(growth, axis=0) >= 0).all() and growth.shape == (FARTHEST, 17)
    cuts = [piece.cut(slice(k, k + 25)) for piece in pieces for k in (0, 10)]
    said = model(stack_seen([cut.seen for cut in cuts]), FARTHEST)
    true = np.stack([piece.joints[k + 25 : k + 75] for piece in pieces for k in (0, 10)])
    inside = np.linalg.norm(said.joints - true, axis=-1)[..., 1:] <= said.sigma[..., 1:]
    assert 0.66 < inside.mean() < 0.9  # more than asked for, where the sigma must not fall again


def test_validation_tells_errors_in_millimetres():
    held_out = Validation([body_piece(60, 0, 0.02)], body_flip(lite().joints), StripBody(lite()), True)
    scores = held_out(make_trainee(16, ROWS["latent"], windows(), 0))
    assert set(scores) == {"present_mm", "delta_5_mm", "delta_10_mm", "future_mm", "constant_mm"}
    assert len(scores["future_mm"]) == 5 and all(1 < value < 1000 for row in scores.values() for value in row)


def test_the_best_network_on_held_out_pieces_is_kept(tmp_path):
    errors = iter([50.0, 30.0, 40.0])
    best = KeptBest(lambda trainee: {"future_mm": [next(errors)]}, tmp_path / "best.safetensors")
    made = [make_trainee(16, ROWS["latent"], windows(), seed) for seed in range(4)]
    for trainee in made[:3]:
        best(trainee)
    best.load_into(made[3])
    for name, value in made[1].state_dict().items():
        assert torch.equal(made[3].state_dict()[name], value)


def test_tables_find_no_error_in_the_truth():
    truth = Truth.of([body_piece(45, seed) for seed in range(2)])
    np.testing.assert_allclose(truth.image[:, :, VIEWED[:13]], truth.seen.rays[:, :, :13], atol=1e-5)
    after = truth.cut(slice(15, None))
    true = true_bodies(StripBody(lite()), after, [frame - 1 for frame in FRAMES])
    row = future_row(true, after, true)
    for name in ("warped_mm", "raw_mm", "mpjpe_mm", "posed_mm"):
        np.testing.assert_allclose(row[name], 0.0, atol=0.1)
    assert min(row["raw_pck"] + row["warped_pck"]) > 95  # the image is in perspective
    still, future = tell(forecaster(), truth.seen.cut(slice(15)))
    assert still.joints.shape == future.joints.shape == (2, 30, 17, 3) and future.vertices.shape[:2] == (2, 5)
    assert min(future_row(future, after, true)["posed_mm"]) > 10


def test_told_bodies_are_turned_into_the_world():
    body, piece = StripBody(lite()), body_piece(4)
    batch = make_batch([piece], body_flip(lite().joints))
    shape = torch.from_numpy(batch.shape)[:, None].expand(-1, 4, -1)
    state = BodyState(torch.from_numpy(batch.rotations), shape, shape, shape)
    np.testing.assert_allclose(told(body, state, batch.heading).joints[0], piece.joints, atol=1e-4)
