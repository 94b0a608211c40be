"""Training of TCMR: batches, losses of its three bodies, ablations, and what the shipped weights do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_tcmr import BODY, random_piece, small_tcmr
from walking_figure import walker

from experiments.tcmr_tables import best_of_filters, body_pieces, filters, mesh_scores, scores
from experiments.train_tcmr import FRAMES, Batches, Losses, at_frame, errors_of, mean_body, with_edges
from lifting.datasets.strip_windows import BodyPiece, body_flip
from lifting.metrics import acceleration_error_m_s2, acceleration_error_mm_frame2, mpjpe, p_mpjpe
from lifting.models.strips.body import StripBody
from lifting.models.strips.files import load_strips
from lifting.models.strips.tcmr import Tcmr, TcmrConfig
from lifting.motion import Motion
from lifting.seen_motion import SeenMotion
from lifting.seen_person import FPS
from lifting.strip_features import FEATURES, strip_features, without_evidence
from lifting.strips_refine import WEIGHTS, refine, tcmr_bodies
from lifting.training.strip_losses import LOSS_WEIGHTS, body_losses, tensors

FLIP = body_flip(BODY.joints)


def pieces(count: int = 2, frames: int = 30) -> list[BodyPiece]:
    """Random pieces whose truth is a body near its rest pose."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        rotations = rng.normal(0, 0.2, (frames, BODY.num_joints, 3)).astype(np.float32)
        seen, alone, shape = random_piece(frames, seed), random_piece(frames, seed + 50), rng.normal(size=10) * 0.1
        points = BODY.points("h36m17", rotations, np.zeros((frames, 3)), shape).astype(np.float32)
        made.append(BodyPiece(f"piece{seed}", rotations, points[:, 0], shape.astype(np.float32),
                              points - points[:, :1], points[:, 0], seen, alone))  # fmt: skip
    return made


def losses(target: str = "current") -> Losses:
    return Losses(StripBody(BODY), torch.tensor(BODY.shape_sigma, dtype=torch.float32), target)


def small_network(**options: object) -> Tcmr:
    torch.manual_seed(0)
    config = dict(features=FEATURES, joints=22, shapes=10, frames=FRAMES, width=16, hidden=12, layers=1, dropout=0.0,
                  residual=False, forecast=True, peek=False)
    return Tcmr(**{**config, **options})


def test_a_batch_is_half_of_clips_and_half_of_single_frames_and_depends_on_its_number_alone():
    made = pieces()
    batches = Batches(made, FLIP, 8, 0.5, seed=3)
    one, two = batches[5], Batches(made, FLIP, 8, 0.5, seed=3)[5]
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)
    assert one.features.shape == (8, FRAMES, FEATURES) and not torch.equal(one.features, batches[6].features)
    depths = [{*np.round(getattr(p, kind).root_in_camera[0, :, 2], 4)} for kind in ("seen", "alone") for p in made]
    for row, depth in enumerate(one.depth.numpy()):
        known = set.union(*(depths[:2] if row < 4 else depths[2:]))
        assert {*np.round(depth, 4)} <= known


def test_windows_are_drawn_around_every_frame():
    piece = pieces(1)[0]
    padded = with_edges(piece)
    assert len(padded) == len(piece) + FRAMES
    np.testing.assert_array_equal(padded.joints[FRAMES // 2 : -FRAMES // 2], piece.joints)
    np.testing.assert_array_equal(padded.alone.root[0, :9], np.repeat(piece.alone.root[0, :1], 9, axis=0))


def test_features_without_evidence_are_those_of_motion_alone():
    seen = random_piece()
    bare = SeenMotion(seen.joints, seen.root, seen.sigma)
    np.testing.assert_array_equal(without_evidence(strip_features(seen)), strip_features(bare))


def test_the_mean_body_is_a_body():
    batch = Batches(pieces(), FLIP, 16, 1.0, 0)[0]
    rotations, shape = mean_body(batch._replace(rotations=batch.rotations.numpy(), shape=batch.shape.numpy()))
    identity = np.broadcast_to(np.eye(3), (22, 3, 3))
    np.testing.assert_allclose(rotations @ rotations.mT, identity, atol=1e-6)
    np.testing.assert_allclose(torch.linalg.det(rotations), 1.0, atol=1e-6)
    angles = Rotation.from_matrix(rotations[1:].numpy()).magnitude()
    assert angles.max() < 0.15 and shape.shape == (10,)


@pytest.mark.parametrize(("target", "frames"), [("current", (8, 8)), ("neighbours", (7, 9)), ("none", ())])
def test_past_and_future_are_compared_with_their_frames(target, frames):
    network, batch = small_network().eval(), tensors(Batches(pieces(), FLIP, 6, 0.5, 0)[0])
    lift, truth = network(batch.features), losses(target)
    parts = [(lift.joined, 8), *zip((lift.past, lift.future), frames, strict=False)]
    told = [body_losses(type(state)(*(value[:, None] for value in state)), at_frame(batch, frame), truth.body,
                        truth.shape_sigma) for state, frame in parts]  # fmt: skip
    made = truth(network, batch)
    assert set(made) <= set(LOSS_WEIGHTS)
    for name in ("joints", "rotations", "shape", "way", "prior"):
        wanted = torch.stack([part[name] for part in told]).mean()
        torch.testing.assert_close(made[name], wanted, rtol=1e-5, atol=1e-6)


def test_without_forecast_one_body_learns():
    network, batch = small_network(forecast=False, residual=True), Batches(pieces(), FLIP, 6, 0.5, 0)[0]
    made = losses()(network, batch)
    sum(LOSS_WEIGHTS[name] * value for name, value in made.items()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_only_who_peeks_sees_the_present_in_past_and_future():
    x = torch.randn(2, FRAMES, FEATURES, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, FRAMES // 2] += 1
    for peek in (False, True):
        network = small_network(peek=peek).eval()
        one, two = network(x), network(other)
        for name in ("past", "future"):
            assert torch.equal(getattr(one, name).codes, getattr(two, name).codes) is not peek


def test_errors_are_those_of_the_metrics():
    piece, network = pieces(1)[0], small_tcmr()
    found = errors_of(network, BODY, [piece], "alone")
    made = tcmr_bodies(network, piece.alone, BODY)
    points = BODY.points("h36m17", made.rotations, made.trajectory, made.shape)
    points = (points - points[:, :1])[None]
    assert found["alone_mpjpe"] == pytest.approx(1000 * mpjpe(points, piece.joints[None]), abs=0.01)
    accel = acceleration_error_mm_frame2(points, piece.joints[None])
    assert found["alone_accel"] == pytest.approx(accel, abs=0.01)


def test_tables_score_as_the_metrics_do():
    piece = pieces(1)[0]
    some = body_pieces([piece], "alone")
    lifted, truth = some[0].lifted, piece.joints.astype(np.float64)
    found = scores(some, [lifted])
    assert found["mpjpe"] == pytest.approx(1000 * mpjpe(lifted[None], truth[None]), abs=0.01)
    assert found["pa_mpjpe"] == pytest.approx(1000 * p_mpjpe(lifted[None], truth[None]), abs=0.01)
    assert found["accel"] == pytest.approx(acceleration_error_mm_frame2(lifted[None], truth[None]), abs=0.01)
    assert found["accel_m_s2"] == pytest.approx(acceleration_error_m_s2(lifted[None], truth[None], FPS), abs=0.01)
    perfect = mesh_scores(some, [some[0].body], BODY)
    assert perfect == {"mpvpe": 0.0, "unposed": 0.0}


def test_filters_keep_rest_and_take_motion_of_any_length():
    rest = np.repeat(walker(1).astype(np.float64), 12, axis=0)
    for name, setting, apply in filters():
        np.testing.assert_allclose(apply(rest), rest, atol=1e-6, err_msg=f"{name} {setting}")
        assert apply(rest[:4]).shape == (4, 17, 3)


def test_the_calmest_setting_within_an_error_is_found():
    rows = [{"filter": "a", "mpjpe": 90, "accel": 5}, {"filter": "a", "mpjpe": 80, "accel": 9},
            {"filter": "a", "mpjpe": 82, "accel": 7}, {"filter": "b", "mpjpe": 91, "accel": 1}]  # fmt: skip
    assert best_of_filters(rows, 85) == {"a": rows[2], "b": None}


def test_sizes_of_the_network():
    """A golden number: the parameters of the shipped sizes."""
    config = TcmrConfig(FEATURES, 22, 10, 16, 256, 96, layers=1)
    network = Tcmr(**vars(config))
    assert sum(p.numel() for p in network.parameters()) == 1_969_237


@pytest.mark.skipif(not (WEIGHTS / "tcmr.safetensors").is_file(), reason="the weights are not part of this checkout")
def test_the_shipped_weights_calm_single_frame_lifts():
    path = WEIGHTS / "tcmr.safetensors"
    network, header = load_strips(path, "tcmr")
    assert path.stat().st_size <= 2_000_000 and header.skeleton_out == "lite" and network.frames == 16
    truth = walker(60, fps=25.0).astype(np.float64)
    rng = np.random.default_rng(0)
    joints = truth - truth[:, :1] + rng.normal(0, 0.03, truth.shape) * (np.arange(17) > 0)[:, None]
    lifted = Motion(joints, truth[:, 0], np.full(truth.shape[:2], 0.06), "h36m17", 25.0, "world")
    made = refine(lifted)
    truth = truth - truth[:, :1]
    one, two = (acceleration_error_mm_frame2(m[None], truth[None]) for m in (joints, made.joints.astype(np.float64)))
    assert two < one / 3
    assert mpjpe(made.joints[None].astype(np.float64), truth[None]) < mpjpe(joints[None], truth[None]) + 0.02
