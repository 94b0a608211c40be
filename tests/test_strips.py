"""Movie strips and recurrent encoders: who sees what, streaming, readouts."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lifting.models.strips.encoder import RECEPTIVE_FIELD, StripEncoder
from lifting.models.strips.hmmr import Hmmr, HmmrConfig, PoseDiscriminator
from lifting.models.strips.phd import Phd, PhdConfig
from lifting.models.strips.readout import BodyReadout, codes_from_rotations, rotations_from_codes
from lifting.models.strips.tcmr import Tcmr, TcmrConfig

SIZES = dict(features=7, joints=4, shapes=3, width=16, hidden=12)


def awake(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """With random weights throughout: fresh blocks hardly do anything."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    return module.eval()


def phd(**options: object) -> Phd:
    return awake(Phd(**asdict(PhdConfig(**SIZES, **options))))


def hmmr() -> Hmmr:
    return awake(Hmmr(**asdict(HmmrConfig(**SIZES))))


def tcmr(**options: object) -> Tcmr:
    return awake(Tcmr(**asdict(TcmrConfig(**SIZES, **options))))


def frames(count: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, count, 7, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("changed", [0, 1, 7, 13, 19])
def test_a_causal_strip_does_not_see_the_future_to_the_last_bit(changed):
    model, x = phd(), frames()
    other = x.clone()
    other[:, changed:] = frames(seed=1)[:, changed:]
    one, two = model(x), model(other)
    for a, b in [(one.strips, two.strips), (one.present.codes, two.present.codes),
                 (one.deltas[-5].codes, two.deltas[-5].codes),
                 (model.predictor(one.strips), model.predictor(two.strips))]:
        assert torch.equal(a[:, :changed], b[:, :changed]) and not torch.equal(a[:, changed:], b[:, changed:])


@pytest.mark.parametrize(("causal", "first", "last"), [(True, -12, 0), (False, -6, 6)])
def test_receptive_field_is_thirteen_frames(causal, first, last):
    encoder, x = awake(StripEncoder(7, 16, causal)), frames(41).requires_grad_()
    encoder(x)[0, 20].square().sum().backward()
    reached = torch.nonzero(x.grad[0].abs().sum(-1))[:, 0] - 20
    assert (reached.min(), reached.max(), len(reached)) == (first, last, RECEPTIVE_FIELD)


def test_frame_by_frame_gives_what_all_at_once_gives():
    encoder, x = awake(StripEncoder(7, 16, causal=True)), frames()
    state, stepped = None, []
    for frame in x.unbind(1):
        strip, state = encoder.step(frame, state)
        stepped.append(strip)
    torch.testing.assert_close(torch.stack(stepped, 1), encoder(x), rtol=1e-5, atol=1e-5)


def test_the_first_frame_stands_for_all_before_it():
    encoder, x = awake(StripEncoder(7, 16, causal=True)), frames()
    longer = torch.cat([x[:, :1].expand(-1, 12, -1), x], 1)
    torch.testing.assert_close(encoder(longer)[:, 12:], encoder(x), rtol=1e-5, atol=1e-5)


def test_predictions_follow_from_predictions():
    """The slow twin: the whole sequence again for every new strip."""
    model, x = phd(), frames()
    strips = model.encoder(x)
    for _ in range(6):
        strips = torch.cat([strips, model.predictor(strips)[:, -1:]], 1)
    said, predicted = model.predict(strips[:, :20], 6)
    torch.testing.assert_close(predicted, strips[:, 20:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(said, model.predictor(strips[:, :20]), rtol=1e-4, atol=1e-4)
    future = model.read(strips[:, 20:]).present
    torch.testing.assert_close(model.future(x, 6).codes, future.codes, rtol=1e-4, atol=1e-4)


def test_bodies_follow_from_bodies_in_the_ablation():
    model, x = phd(latent=False), frames()
    values = model.readout.values(model.encoder(x))
    for _ in range(6):
        values = torch.cat([values, model.predictor(values)[:, -1:]], 1)
    future = model.readout.state(values[:, 20:])
    torch.testing.assert_close(model.future(x, 6).codes, future.codes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("latent", [True, False])
def test_a_stream_says_what_all_frames_at_once_say(latent):
    model, x = phd(latent=latent), frames()
    state, told = None, []
    for frame in x.unbind(1):
        body, state = model.step(frame, state)
        told.append(body.codes)
    torch.testing.assert_close(torch.cat(told, 1), model(x).present.codes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.go_on(state, 5).codes, model.future(x, 5).codes, rtol=1e-4, atol=1e-4)


def test_all_at_once_leaves_the_state_that_frame_by_frame_leaves():
    encoder, x = awake(StripEncoder(7, 16, causal=True)), frames()
    state = None
    for frame in x.unbind(1):
        _, state = encoder.step(frame, state)
    for block, other in zip(encoder.read(x)[1], state, strict=True):
        torch.testing.assert_close(block, other, rtol=1e-5, atol=1e-5)


def test_a_single_frame_is_enough_of_a_past():
    model, x = phd(), frames()[:, :1]
    long = model.future(x.expand(-1, 25, -1), 3)
    torch.testing.assert_close(model.future(x, 3).codes, long.codes, rtol=1e-4, atol=1e-4)


def test_samples_of_a_batch_do_not_see_each_other():
    x = frames()
    other = x.clone()
    other[1] = frames(seed=2)[1]
    for model in (phd(), hmmr()):
        assert torch.equal(model(x).present.codes[0], model(other).present.codes[0])


def test_a_hallucinated_strip_comes_from_one_frame_alone():
    model, x = hmmr(), frames()
    other = x.clone()
    other[:, 3] += 1
    same = (model.hallucinate(x).strips == model.hallucinate(other).strips).all(-1)
    assert same.sum() == 2 * 19 and not same[:, 3].any()


def test_codes_are_rotations_and_back():
    rotations = torch.tensor(Rotation.random(12, random_state=0).as_matrix()).reshape(3, 4, 3, 3)
    codes = codes_from_rotations(rotations)
    assert codes.shape == (3, 24)
    torch.testing.assert_close(rotations_from_codes(codes), rotations)
    loose = rotations_from_codes(codes * 3 + 0.2 * torch.randn(3, 24, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(loose @ loose.mT, torch.eye(3).double().expand_as(loose))
    np.testing.assert_allclose(torch.linalg.det(loose), 1.0)


def test_a_readout_starts_from_its_mean():
    readout = BodyReadout(16, 4, 3)
    rotations = torch.tensor(Rotation.random(4, random_state=0).as_matrix(), dtype=torch.float32)
    readout.set_mean(rotations, torch.arange(3.0))
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.zero_()
    state = readout(torch.randn(2, 5, 16))
    torch.testing.assert_close(state.rotations, rotations.expand(2, 5, -1, -1, -1))
    torch.testing.assert_close(state.shape, torch.arange(3.0).expand(2, 5, 3))
    assert (state.way == 0).all()


def test_deltas_keep_shape_and_way_of_the_present():
    lift = hmmr()(frames())
    for delta in (-5, 5):
        assert torch.equal(lift.deltas[delta].shape, lift.present.shape)
        assert not torch.allclose(lift.deltas[delta].rotations, lift.present.rotations, atol=1e-3)


def test_past_and_future_do_not_see_the_present_frame():
    model, x = tcmr(), frames(16)
    other = x.clone()
    other[:, 8] += 1
    one, two = model(x), model(other)
    assert torch.equal(one.past.codes, two.past.codes) and torch.equal(one.future.codes, two.future.codes)
    assert not torch.equal(one.joined.codes, two.joined.codes)
    for changed, same, moved in ((3, "future", "past"), (12, "past", "future")):
        other = x.clone()
        other[:, changed] += 1
        two = model(other)
        assert torch.equal(getattr(one, same).codes, getattr(two, same).codes)
        assert not torch.equal(getattr(one, moved).codes, getattr(two, moved).codes)


def test_attention_sums_to_one_and_is_left_out_without_forecast():
    attention = tcmr()(frames(16)).attention
    torch.testing.assert_close(attention.sum(-1), torch.ones(2))
    plain = tcmr(forecast=False, residual=True)(frames(16))
    assert plain.past is plain.future is plain.attention is None and plain.joined.rotations.shape == (2, 4, 3, 3)


def test_the_discriminator_ignores_where_people_face():
    torch.manual_seed(0)
    judge = PoseDiscriminator(4)
    rotations = torch.tensor(Rotation.random(8, random_state=0).as_matrix(), dtype=torch.float32).reshape(2, 4, 3, 3)
    turned = rotations.clone()
    turned[:, 0] = torch.eye(3)
    assert judge(rotations).shape == (2, 4) and torch.equal(judge(rotations), judge(turned))
    bent = rotations.clone()
    bent[:, 2] = torch.eye(3)
    changed = judge(bent) != judge(rotations)
    assert changed[:, [1, 3]].all() and not changed[:, [0, 2]].any()


@pytest.mark.parametrize(("config", "options"), [(PhdConfig, {"deltas": (5,)}), (PhdConfig, {"width": 0}),
                                                 (HmmrConfig, {"deltas": (0,)}), (TcmrConfig, {"frames": 2})])
def test_impossible_models_are_refused(config, options):
    with pytest.raises(ValueError, match="got"):
        config(**(SIZES | options))
