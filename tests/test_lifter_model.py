"""The default lifter: geometry of its virtual cameras, what it may and may not see, its codes."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lifting.models.lifter import (
    REFERENCE_SPREAD,
    TORSO,
    HeadOutputs,
    LifterConfig,
    LiftNet,
    ViewFrame,
    decode_joints,
    encode_rays,
    rotation_to_axis,
)
from lifting.skeletons import get_skeleton

INPUT = get_skeleton("lift17")
FLIP = list(INPUT.flip)
FIELD = 63  # frames to either side of the default architecture
COORDINATES = st.floats(-3, 3, width=32)
SHOULDERS = ("left_shoulder", "right_shoulder")


pytestmark = pytest.mark.usefixtures("one_thread")


def network(causal: bool = False, dilations=(1, 2, 4, 8, 16, 32), channels: int = 8, seed: int = 0) -> LiftNet:
    torch.manual_seed(seed)
    return LiftNet(**asdict(LifterConfig(channels=channels, dilations=dilations, causal=causal))).eval()


def person(frames: int = 12, size: float = 0.5, distance: float = 4.0, seed: int = 0) -> np.ndarray:
    """17 points (T, 17, 3) in metres around the optical axis."""
    points = np.random.default_rng(seed).normal(0, size, (frames, 17, 3))
    return points + [0.0, 0.0, distance]


def rays_of(points: np.ndarray, dtype=torch.float64) -> torch.Tensor:
    return torch.from_numpy(points[..., :2] / points[..., 2:]).to(dtype)


def ones(rays: torch.Tensor) -> torch.Tensor:
    return torch.ones(rays.shape[:-1], dtype=rays.dtype)


def keypoints_of(features: torch.Tensor) -> torch.Tensor:
    """x, y, score, seen (..., 17, 4) of the features."""
    return features[..., :68].unflatten(-1, (17, 4))


def noisy_input(frames: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays with NaN and scores with zeros, (1, T, ...), float32."""
    rays = rays_of(person(frames, seed=seed), torch.float32)[None]
    scores = torch.rand(rays.shape[:-1], generator=torch.Generator().manual_seed(seed))
    scores = torch.where(scores < 0.2, 0.0, scores)
    return torch.where(scores[..., None] > 0, rays, torch.nan), scores


# ---- configuration


def test_default_receptive_field_and_size():
    assert LifterConfig().receptive_field == 127
    with torch.device("meta"):
        count = sum(p.numel() for p in LiftNet(**asdict(LifterConfig())).parameters())
    wide, joints = 384, 17
    block = 2 * wide + (3 * wide + 1) * wide + (wide + 1) * wide
    heads = (wide + 1) * 3 * (joints - 1) + (wide + 1) * 3 + (wide + 1) * 64 + 65 * joints
    assert count == (72 + 1) * wide + 6 * block + 2 * wide + heads == 3_622_340


def test_configuration_survives_json():
    config = LifterConfig(channels=8, dilations=(1, 3))
    assert LifterConfig(**json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("options", [{"channels": 0}, {"joints_in": -1}, {"dilations": (1, 0)}, {"dilations": ()}])
def test_impossible_configurations_are_refused(options):
    with pytest.raises(ValueError, match="lifter configuration"):
        LifterConfig(**options)


# ---- what one output depends on


@pytest.mark.parametrize(("causal", "first", "last"), [(False, -FIELD, FIELD), (True, 0, 2 * FIELD)])
def test_receptive_field_is_exactly_127_frames(causal, first, last):
    net = network(causal).double()
    features = torch.randn(1, 400, 72, dtype=torch.float64, requires_grad=True)
    pose, _ = net(features)
    pose[0, 200].sum().backward()
    reached = torch.nonzero(features.grad.abs().sum(-1)[0])[:, 0] - 200
    assert (-reached.max(), -reached.min()) == (first, last) and len(reached) == 127

    changed = features.detach().clone()
    changed[0, 200] += 100
    before, after = net(features.detach()), net(changed)
    for old, new in zip(before, after, strict=True):
        touched = torch.nonzero((old != new).flatten(2).any(-1)[0])[:, 0] - 200
        assert touched.min() >= first and touched.max() <= last and len(touched) > 100


def test_causal_network_is_blind_to_the_future_to_the_last_bit():
    net = network(causal=True)
    rays, scores = noisy_input(80)
    changed, other = noisy_input(80, seed=1)
    changed[:, :50], other[:, :50] = rays[:, :50], scores[:, :50]
    with torch.no_grad():
        for one, two in zip(net.lift(rays, scores), net.lift(changed, other), strict=True):
            assert torch.equal(one[:, :50], two[:, :50]) and not torch.equal(one[:, 50:], two[:, 50:])


@pytest.mark.parametrize("causal", [False, True])
def test_samples_do_not_see_each_other(causal):
    net = network(causal)
    rays, scores = (torch.cat(pair) for pair in zip(noisy_input(30), noisy_input(30, seed=1), strict=True))
    other_rays, other_scores = rays.clone(), scores.clone()
    other_rays[1], other_scores[1] = (values[0] for values in noisy_input(30, seed=2))
    with torch.no_grad():
        for one, two in zip(net.lift(rays, scores), net.lift(other_rays, other_scores), strict=True):
            assert torch.equal(one[0], two[0]) and not torch.equal(one[1], two[1])


@pytest.mark.parametrize("value", [0.0, 123.0, -1e30, math.nan, math.inf, -math.inf])
def test_whatever_stands_at_an_unseen_joint_changes_nothing(value):
    net = network()
    rays, scores = noisy_input()
    hidden = torch.where(scores[..., None] > 0, rays, value)
    with torch.no_grad():
        for one, two in zip(net.lift(rays, scores), net.lift(hidden, scores), strict=True):
            assert torch.equal(one, two) and torch.isfinite(one).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_seen_joints_without_a_place_are_unseen(value):
    rays, scores = rays_of(person()), torch.full((12, 17), 0.7, dtype=torch.float64)
    broken, silent = rays.clone(), scores.clone()
    broken[3, 5, 1], silent[3, 5] = value, 0.0
    assert torch.equal(encode_rays(broken, scores)[0], encode_rays(rays, silent)[0])
    silent[3, 5] = math.nan
    assert torch.equal(encode_rays(broken, scores)[0], encode_rays(rays, silent)[0])


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_short_and_empty_sequences_give_finite_lifts(frames):
    net = network()
    lift = net.lift(torch.full((2, frames, 17, 2), math.nan), torch.zeros(2, frames, 17))
    assert all(torch.isfinite(values).all() for values in lift)
    assert lift.joints.shape == (2, frames, 17, 3) and lift.root.shape == (2, frames, 3)
    assert lift.log_sigma.shape == (2, frames, 17) and (lift.joints[:, :, 0] == 0).all()


def test_uncertainty_does_not_train_the_trunk():
    net = network().train()
    lift = net.lift(*noisy_input())
    lift.log_sigma.sum().backward()
    trained = {name for name, values in net.named_parameters() if values.grad is not None}
    assert trained == {name for name, _ in net.named_parameters() if name.startswith("heads.0.sigma.")}


# ---- virtual cameras


@given(x=COORDINATES, y=COORDINATES)
def test_smallest_rotation_to_the_axis(x, y):
    rotation = rotation_to_axis(torch.tensor([x, y], dtype=torch.float64)).numpy()
    ray = np.array([x, y, 1.0])
    length = np.linalg.norm(ray)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation @ ray, [0, 0, length], atol=1e-12)
    assert (np.trace(rotation) - 1) / 2 == pytest.approx(1 / length)  # its angle is the ray's from the axis


def test_features_are_the_keypoints_seen_by_the_virtual_camera():
    points = person(size=0.3) + [1.5, -0.7, 0.0]
    rays = rays_of(points)
    features, view = encode_rays(rays, torch.full((12, 17), 0.6, dtype=torch.float64))
    turned = np.einsum("tij,tkj->tki", view.rotation.numpy(), points)
    local = turned[..., :2] / turned[..., 2:]
    spread = np.sqrt((local[:, :13] ** 2).sum(-1).mean(-1))
    np.testing.assert_allclose(view.spread, spread, rtol=1e-9)
    np.testing.assert_allclose(keypoints_of(features)[..., :2], local / spread[:, None, None], atol=1e-9)
    np.testing.assert_allclose(keypoints_of(features)[..., 2:], np.broadcast_to([0.6, 1.0], (12, 17, 2)))
    weights = np.array([1.0 if i in TORSO else 0.1 if i < 13 else 0.001 for i in range(17)])
    centre = (rays.numpy() * weights[:, None]).sum(1) / weights.sum()
    np.testing.assert_allclose(features[:, 68:70], centre, rtol=1e-6)
    np.testing.assert_allclose(features[:, 70], np.log(spread) + 1.5, rtol=1e-6)
    np.testing.assert_allclose(features[:, 71], 1.0)


def test_torso_is_shoulders_and_hips():
    assert set(TORSO) == set(INPUT.indices(["left_shoulder", "right_shoulder", "left_hip", "right_hip"]))


def test_frames_without_any_joint_are_zeros_and_the_camera_itself():
    features, view = encode_rays(torch.full((3, 17, 2), math.nan), torch.zeros(3, 17))
    assert (features == 0).all() and torch.equal(view.rotation, torch.eye(3).expand(3, 3, 3))
    torch.testing.assert_close(view.spread, torch.full((3,), 0.1))


@given(angle=st.floats(-3.1, 3.1))
def test_rolling_the_camera_rolls_the_virtual_view(angle):
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    rays = rays_of(person() + [1.0, 0.5, 0])
    (features, view), (rolled, other) = encode_rays(rays, ones(rays)), encode_rays(rays @ turn.T, ones(rays))
    torch.testing.assert_close(keypoints_of(rolled)[..., :2], keypoints_of(features)[..., :2] @ turn.T)
    torch.testing.assert_close(rolled[..., 68:70], features[..., 68:70] @ turn.T)
    torch.testing.assert_close(other.spread, view.spread)
    spin = torch.eye(3, dtype=torch.float64)
    spin[:2, :2] = turn
    torch.testing.assert_close(other.rotation, spin @ view.rotation @ spin.T)


def test_mirroring_the_image_mirrors_the_virtual_view():
    rays, scores = rays_of(person() + [1.0, 0.5, 0]), torch.rand(12, 17, dtype=torch.float64)
    sign = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    (features, view), (mirrored, other) = encode_rays(rays, scores), encode_rays(rays[:, FLIP] * sign, scores[:, FLIP])
    torch.testing.assert_close(keypoints_of(mirrored)[..., :2], keypoints_of(features)[:, FLIP, :2] * sign)
    torch.testing.assert_close(keypoints_of(mirrored)[..., 2:], keypoints_of(features)[:, FLIP, 2:])
    torch.testing.assert_close(mirrored[:, 68:], features[:, 68:] * torch.tensor([-1.0, 1, 1, 1]).double())
    torch.testing.assert_close(other.spread, view.spread)


@given(factor=st.floats(0.2, 5))
def test_size_of_the_world_cannot_be_seen(factor):
    points = person()
    rays, scaled = rays_of(points), rays_of(points * factor)
    torch.testing.assert_close(encode_rays(scaled, ones(rays))[0], encode_rays(rays, ones(rays))[0])


def test_distance_only_changes_the_spread():
    points = person(size=0.01, distance=0)
    near, far = rays_of(points + [0, 0, 3.0]), rays_of(points + [0, 0, 6.0])
    (one, view), (two, other) = encode_rays(near, ones(near)), encode_rays(far, ones(far))
    torch.testing.assert_close(keypoints_of(one), keypoints_of(two), atol=0.05, rtol=0)
    torch.testing.assert_close(other.spread, view.spread / 2, rtol=0.02, atol=0)


@pytest.mark.parametrize("degrees", [10, 30, 50])
def test_turning_the_camera_about_its_centre_turns_the_lift(degrees):
    net = network()
    with torch.no_grad():
        net.stem.weight[:, 68:70] = 0  # the place in the image is told apart, as the network may use it
    points = person(frames=80, size=0.01, distance=4.0)  # small: the centre is a mean in the image plane
    turn = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    straight, aside = rays_of(points, torch.float32)[None], rays_of(points @ turn.T, torch.float32)[None]
    with torch.no_grad():
        one, two = net.lift(straight, ones(straight)), net.lift(aside, ones(aside))
    turn = torch.from_numpy(turn).float()
    for name, scale in (("joints", one.joints.norm(dim=-1).mean()), ("root", one.root.norm(dim=-1).mean())):
        assert (getattr(two, name) - getattr(one, name) @ turn.T).norm(dim=-1).max() < 0.02 * scale
    torch.testing.assert_close(two.log_sigma, one.log_sigma, atol=0.02, rtol=0)


# ---- codes


def view_of(spread: float, anchors=None) -> ViewFrame:
    """A virtual camera that is the camera itself."""
    anchors = torch.zeros(17, 2, dtype=torch.float64) if anchors is None else torch.as_tensor(anchors)
    return ViewFrame(torch.eye(3, dtype=torch.float64), torch.tensor(spread, dtype=torch.float64), anchors)


@given(depth=st.floats(0.5, 50), spread=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_codes_in_closed_form(depth, spread, seed):
    """Any joints in front of the camera have codes, whatever their anchors, and the codes give them back."""
    rng = np.random.default_rng(seed)
    logarithm = np.clip(np.log(depth * spread / REFERENCE_SPREAD), -3, 3)
    depth = REFERENCE_SPREAD / spread * np.exp(logarithm)
    joints = rng.uniform(-1, 1, (17, 3)) * [depth, depth, 0.7 * depth] + [0, 0, depth]
    joints[0, 2] = depth
    anchors = rng.normal(size=(17, 2))
    behind = joints[:, 2] - depth
    behind[0] = logarithm
    codes = np.concatenate([joints[:, :2] / joints[:, 2:] / spread - anchors, behind[:, None]], -1)
    relative, root = decode_joints(torch.from_numpy(codes), view_of(spread, anchors))
    np.testing.assert_allclose(root[0], joints[0], rtol=1e-8)
    np.testing.assert_allclose(relative, joints - joints[0], rtol=1e-8, atol=1e-8 * depth)


def test_wild_codes_stay_ahead_of_the_camera_and_finite():
    codes = torch.zeros(2, 17, 3, dtype=torch.float64)
    codes[:, 0, 2], codes[:, 1, 2] = torch.tensor([-100.0, 100]), -1e4
    joints, root = decode_joints(codes, view_of(0.1))
    depths = np.array([5 * math.exp(-3), 5 * math.exp(3)])
    np.testing.assert_allclose(root[:, 0, 2], depths)
    np.testing.assert_allclose(joints[:, 1, 2], (0.2 - 1) * depths)


def test_the_depth_learns_from_the_root_alone():
    codes = (0.3 * torch.randn(4, 17, 3, dtype=torch.float64)).requires_grad_()
    joints, root = decode_joints(codes, view_of(0.2))
    (gradient,) = torch.autograd.grad(joints.square().sum(), codes, retain_graph=True)
    assert not gradient[:, 0, 2].any() and gradient[:, 1:, 2].all()
    (gradient,) = torch.autograd.grad(root.square().sum(), codes)
    assert gradient[:, 0].all() and not gradient[:, 1:].any()


def test_anchors_are_where_the_keypoints_of_a_joint_lie():
    rays = rays_of(person(3))
    scores = ones(rays)
    wrist, hip, shoulders = INPUT.index("left_wrist"), INPUT.index("left_hip"), INPUT.indices(SHOULDERS)
    scores[0, hip], scores[1, wrist] = 0, 0
    features, view = encode_rays(rays, scores)
    local, joints = keypoints_of(features)[..., :2], get_skeleton("h36m17")
    assert torch.equal(view.anchors[0, joints.index("left_wrist")], local[0, wrist])
    assert torch.equal(view.anchors[1, joints.index("left_wrist")], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(view.anchors[:, joints.index("thorax")], local[:, list(shoulders)].mean(1))
    hips = local[:, list(INPUT.indices(["left_hip", "right_hip"]))]
    torch.testing.assert_close(view.anchors[1:, 0], hips[1:].mean(1))
    torch.testing.assert_close(view.anchors[0, 0], hips[0, 1])  # the only one that is seen


def test_without_anchors_joints_are_said_from_the_axis():
    (rays, scores), config = noisy_input(9), LifterConfig(channels=8, anchored=False)
    net = LiftNet(**asdict(config)).eval()
    assert not net.encode(rays, scores)[1].anchors.any()
    anchored = network()
    anchored.load_state_dict(net.state_dict())
    assert (anchored.lift(rays, scores).joints - net.lift(rays, scores).joints).abs().max() > 0.01


def said(codes: torch.Tensor) -> HeadOutputs:
    return HeadOutputs(codes, torch.zeros(codes.shape[:-1]))


def test_lift_turns_the_networks_words_back_into_the_camera():
    net, points = network(), person(5) + [1.0, -0.5, 0]
    rays = rays_of(points, torch.float32)[None]
    net.heads[0].forward = lambda then: said(torch.zeros(1, 5, 17, 3))
    lift, (_, view) = net.lift(rays, ones(rays)), encode_rays(rays, ones(rays))
    absolute = lift.joints + lift.root[..., None, :]
    wrists = [layout.index("right_wrist") for layout in (INPUT, get_skeleton("h36m17"))]
    seen = absolute[:, :, wrists[1]]  # codes of zeros are joints on their keypoints' rays, as deep as the root
    torch.testing.assert_close(seen[..., :2] / seen[..., 2:], rays[:, :, wrists[0]])
    depths = torch.einsum("nti,ntki->ntk", view.rotation[..., 2, :], absolute)
    torch.testing.assert_close(depths, (REFERENCE_SPREAD / view.spread)[..., None].expand_as(depths))
    assert not lift.joints[:, :, 0].any()


def test_geometry_stays_exact_under_autocast():
    net, (rays, scores) = network(), noisy_input()
    net.trunk = lambda features: features
    net.heads[0].forward = lambda then: said(then[..., :51].unflatten(-1, (17, 3)))
    plain = net.lift(rays, scores)
    with torch.autocast("cpu", torch.bfloat16):
        cast = net.lift(rays, scores)
    assert all(torch.equal(one, two) for one, two in zip(plain, cast, strict=True))


LOOKAHEADS = (0, 3, 7)


def live_network() -> LiftNet:
    torch.manual_seed(4)
    config = LifterConfig(channels=8, dilations=(1, 2), causal=True, lookaheads=LOOKAHEADS)
    return LiftNet(**asdict(config)).eval()


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
@pytest.mark.parametrize("frames", [1, 3, 4, 20])
def test_a_frame_is_described_when_its_lookahead_has_arrived(lookahead, frames):
    """The slow twin: each frame from what had arrived by then, from the head that lags as far behind."""
    net, (rays, scores) = live_network(), noisy_input(frames)
    lift = net.lift(rays, scores, lookahead)
    for t in range(frames):
        lag = max(lag for lag in LOOKAHEADS if lag <= min(lookahead, frames - 1 - t))
        arrived = slice(0, t + lag + 1)
        features, view = encode_rays(rays[:, arrived], scores[:, arrived])
        x = net.trunk(features)
        outputs = net.heads[LOOKAHEADS.index(lag)](*(x[:, t + read] for read in LOOKAHEADS if read <= lag))
        then = ViewFrame(*(values[:, t] for values in view))
        joints, root = (places @ then.rotation for places in decode_joints(outputs.codes, then))
        torch.testing.assert_close(lift.root[:, t], root[:, 0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(lift.joints[:, t], joints, rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(lift.log_sigma[:, t], outputs.log_sigma, rtol=1e-5, atol=1e-6)


def test_every_head_is_trained_on_the_frames_it_has_seen_enough_of():
    net, (rays, scores) = live_network(), noisy_input(20)
    for lookahead, lift in zip(LOOKAHEADS, net.lift_each(rays, scores), strict=True):
        whole = net.lift(rays, scores, lookahead)
        assert lift.joints.shape[1] == 20 - lookahead
        for one, two in zip(lift, whole, strict=True):
            torch.testing.assert_close(one, two[:, : 20 - lookahead])


@pytest.mark.parametrize("lookaheads", [(), (1, 2), (0, 0), (0, 5, 3), (0, -1)])
def test_lookaheads_rise_from_zero(lookaheads):
    with pytest.raises(ValueError, match="look-aheads"):
        LifterConfig(causal=True, lookaheads=lookaheads)


def test_symmetric_lifters_have_no_lookahead_and_unknown_ones_are_refused():
    with pytest.raises(ValueError, match="symmetric"):
        LifterConfig(lookaheads=(0, 5))
    with pytest.raises(ValueError, match=r"got a look-ahead of 4 frames, expected one of \(0, 3, 7\)"):
        live_network().lift(*noisy_input(9), 4)
