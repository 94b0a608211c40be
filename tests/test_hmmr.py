"""HMMR: its training step, bodies of clips, and past and future from one frame alone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from body_pieces import body_piece, lite, turned_world
from click.testing import CliRunner
from filmed_walker import CAMERA, FPS, SIZE, filmed, walk_in_camera, write_tiny_weights
from scipy.spatial.transform import Rotation
from walking_figure import walker

import lift as front_door
from experiments import hmmr_tables
from experiments.hmmr_windows import BLIND, DELTA, FRAMES, PreparedWindows, bend, seen_from
from experiments.train_hmmr import READ, Batches, HmmrLosses, HmmrTraining, label, loss_weights, mean_body, real_strips
from lifting import around_result, cli
from lifting.datasets.strip_windows import body_flip, make_batch
from lifting.metrics import joint_errors
from lifting.models.strips.body import StripBody
from lifting.models.strips.files import build_strips, load_strips, save_strips
from lifting.models.strips.hmmr import HmmrConfig
from lifting.models.strips.readout import BodyState
from lifting.motion import Motion, Person, Take
from lifting.predict import Lifter
from lifting.rotations import rotvec_to_matrix
from lifting.seen_person import see_person
from lifting.strip_features import FEATURES, JOINT_UNIT, without_evidence
from lifting.strips_around import WEIGHTS, around_one_frame, hmmr_bodies, take_around
from lifting.training.strip_losses import keypoint_loss, tensors
from lifting.world import place_in_world

JOINTS, SHAPES = 22, 10
CONFIG = HmmrConfig(FEATURES, JOINTS, SHAPES, width=16, hidden=12)


def network(seed: int = 0) -> torch.nn.Module:
    """A small one with weights large enough to do something."""
    torch.manual_seed(seed)
    made = build_strips(CONFIG)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.1)
    piece = body_piece()
    made.readout.set_mean(torch.eye(3).expand(JOINTS, 3, 3), torch.from_numpy(piece.shape))
    return made.eval()


def flip() -> np.ndarray:
    return body_flip(lite().joints)


def prepared(known: int = 2, filmed: int = 0, source: str = "seen") -> PreparedWindows:
    pieces = [body_piece(30 + seed, seed, 0.02, f"{seed}/0") for seed in range(known + filmed)]
    return PreparedWindows(pieces[:known], pieces[known:], flip(), source)


def losses(without: frozenset[str] = frozenset()) -> HmmrLosses:
    return HmmrLosses(StripBody(lite()), torch.ones(SHAPES), without)


def batches(batch: int = 3, filmed: int = 0) -> list:
    return Batches([prepared(2, filmed, source) for source in ("seen", "alone")], batch, seed=1)[4]


def test_prepared_windows_are_those_of_make_batch():
    windows, pieces = prepared(), [body_piece(30 + seed, seed, 0.02) for seed in range(2)]
    batch = windows(12, np.random.default_rng(0))
    cuts = [(piece.cut(slice(k, k + FRAMES)), mirror) for piece in pieces for k in range(len(piece) - FRAMES + 1)
            for mirror in (False, True)]  # fmt: skip
    slow = make_batch([cut for cut, _ in cuts], flip(), mirror=np.array([mirror for _, mirror in cuts]))
    for n in range(12):
        (same,) = np.flatnonzero((abs(slow.joints - batch.joints[n]) < 1e-6).all((1, 2, 3)))
        for name in ("rotations", "shape", "rays", "scores", "camera", "depth", "heading", "root"):
            np.testing.assert_allclose(getattr(batch, name)[n], getattr(slow, name)[same], atol=1e-5, err_msg=name)
        features = slow.features[same]
        if not np.allclose(features[1:], batch.features[n, 1:], atol=1e-4):
            features = without_evidence(features)
        np.testing.assert_allclose(batch.features[n, 1:], features[1:], atol=1e-4)
        np.testing.assert_allclose(batch.way[n, 1:], slow.way[same, 1:], atol=1e-5)


def test_windows_of_both_sources_are_the_same_moments():
    seen, alone = batches(4, filmed=1)
    torch.testing.assert_close(seen.joints @ seen.heading, alone.joints @ alone.heading, atol=1e-5, rtol=1e-5)
    assert torch.equal(seen.root, alone.root) and not torch.equal(seen.features, alone.features)
    assert seen.labelled.tolist() == [1.0] * 4 + [0.0] * 4


def test_some_windows_say_nothing_of_keypoints():
    features = prepared()(400, np.random.default_rng(0)).features
    blind = (features == without_evidence(features)).all((1, 2))
    assert abs(blind.mean() - BLIND) < 0.06


def test_fast_windows_are_every_other_frame():
    pieces = [body_piece(60, seed, 0.02) for seed in range(2)]
    batch = PreparedWindows(pieces, [], flip(), "seen", fast=0.5)(60, np.random.default_rng(0))
    slow = make_batch(pieces, flip())
    mirrored = make_batch(pieces, flip(), mirror=np.array([True, True]))
    joints = np.concatenate([slow.joints, mirrored.joints])
    paces = []
    for n in range(60):
        (piece,), (start,) = np.nonzero((abs(joints - batch.joints[n, 0]) < 1e-6).all((2, 3)))
        (last,) = np.flatnonzero((abs(joints[piece] - batch.joints[n, -1]) < 1e-6).all((1, 2)))
        pace = (last - start) // (FRAMES - 1)
        way = np.concatenate([slow.way, mirrored.way])[piece, start : last + 1 : pace]
        np.testing.assert_allclose(batch.way[n, 1:], pace * way[1:], atol=1e-5)
        features = np.concatenate([slow.features, mirrored.features])[piece, start : last + 1 : pace, -4:]
        np.testing.assert_allclose(batch.features[n, 1:, -4:], pace * features[1:], atol=1e-4)
        paces.append(pace)
    assert set(paces) == {1, 2}


def test_fast_pieces_are_drawn_more_often():
    still = body_piece(40, 0)
    slow = replace(still, seen=replace(still.seen, joints=0.25 * still.seen.joints))
    for fast, expected in ((0.0, 0.5), (0.01, 0.8)):
        windows = PreparedWindows([still, slow], [], flip(), "seen", fast)
        pose = np.abs(windows(1000, np.random.default_rng(0)).features[:, 0, :48]).max(-1)
        assert (pose > pose.max() / 2).mean() == pytest.approx(expected, abs=0.04)


def test_bent_people_are_told_and_seen_as_bent():
    before, body = batches(4, filmed=1), StripBody(lite())
    torch.manual_seed(0)
    for old, new in zip(before, bend(before, body, 0.2), strict=True):
        moved = (new.joints - old.joints).norm(dim=-1).amax((1, 2))
        assert moved[:4].min() > 0.05 and (moved[4:] == 0).all()
        state = BodyState(new.rotations, new.shape[:, None].expand(-1, FRAMES, -1), new.way, new.way)
        torch.testing.assert_close(body.joints(state), new.joints, atol=1e-5, rtol=0)
        assert keypoint_loss(new.joints, new) < 1e-5 < 1e-3 < keypoint_loss(old.joints, new)
        change = (new.features - old.features)[..., :48].unflatten(-1, (16, 3)) * JOINT_UNIT
        torch.testing.assert_close(change, (new.joints - old.joints)[:, :, 1:], atol=1e-5, rtol=0)
        assert torch.equal(new.features[..., 48:], old.features[..., 48:])


def test_filmed_recordings_are_a_share_of_the_others():
    pieces = [body_piece(20, 0, name=f"{number}/{view}") for number in range(12) for view in (0, 1)]
    known, filmed = label(pieces, 0.25, 0.67)
    assert (len(known), len(filmed)) == (6, 12)
    names = [{piece.name.split("/")[0] for piece in part} for part in (known, filmed)]
    assert not names[0] & names[1]
    more = {piece.name for piece in label(pieces, 0.25, 1.0)[1]}
    assert {piece.name for piece in filmed} < more and len(more) == 18


@pytest.mark.parametrize("delta", [-DELTA, DELTA])
def test_other_moments_are_told_in_the_heading_of_the_present(delta):
    piece = body_piece(30, noise=0.03)
    clip, frames = tensors(make_batch([piece], flip())), torch.arange(DELTA, 30 - DELTA)
    told = seen_from(clip, frames, delta)
    turn = clip.heading[0, frames].numpy()
    there = frames.numpy() + delta
    np.testing.assert_allclose(told.joints[0], piece.joints[there] @ turn.transpose(0, 2, 1), atol=1e-5)
    world = rotvec_to_matrix(piece.rotations[there])
    np.testing.assert_allclose(told.rotations[0, :, 0], turn @ world[:, 0], atol=1e-5)
    np.testing.assert_allclose(told.rotations[0, :, 1:], world[:, 1:], atol=1e-5)
    state = BodyState(told.rotations, told.shape[:, None].expand(-1, len(frames), -1), told.way, told.way)
    torch.testing.assert_close(StripBody(lite()).joints(state), told.joints, atol=2e-5, rtol=0)
    projected = told.joints @ told.camera.mT + 0  # relative to the root, camera axes
    points = (piece.joints[there] @ piece.seen.view[0].T)[None]
    np.testing.assert_allclose(projected, points, atol=1e-5)


def test_the_discriminator_and_the_network_learn_from_their_own_losses_only():
    training = HmmrTraining(network(), JOINTS)
    found = losses()(training, batches())
    made = list(training.hmmr.parameters()), list(training.judge.parameters())
    for name, moved, kept in (("adversarial", *made), ("discriminator", *made[::-1])):
        gradients = torch.autograd.grad(found[name], [*moved, *kept], retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in gradients[: len(moved)])
        assert all(g is None for g in gradients[len(moved) :])


def test_real_strips_do_not_learn_from_distillation():
    training = HmmrTraining(network(), JOINTS)
    found = losses()(training, batches())["distillation"]
    parameters = dict(training.named_parameters())
    gradients = torch.autograd.grad(found, list(parameters.values()), allow_unused=True)
    moved = {name.split(".")[1] for name, g in zip(parameters, gradients, strict=True) if g is not None}
    assert moved == {"hallucinator"}


def test_truth_of_filmed_windows_is_not_looked_at():
    training, pair = HmmrTraining(network(), JOINTS), batches(3, filmed=1)
    spoilt = [batch._replace(**{name: torch.where(batch.labelled.bool().reshape(-1, *[1] * (value.dim() - 1)), value,
                                                  value.flip(-1) + 1) for name, value in batch._asdict().items()
                                if name in ("joints", "rotations", "shape", "way")}) for batch in pair]  # fmt: skip
    found = []
    for some in (pair, spoilt):
        torch.manual_seed(0)
        found.append(losses()(training, some))
    assert found[0].keys() == found[1].keys() >= {"joints", "keypoints", "distillation", "constant_shape"}
    for name, loss in found[0].items():
        torch.testing.assert_close(loss, found[1][name], msg=name)


@pytest.mark.parametrize("part", ["deltas", "hallucinator", "adversarial", "constant_shape", "context"])
def test_parts_can_be_left_out(part):
    training, pair, found = HmmrTraining(network(), JOINTS), batches(), []
    for without in (frozenset(), frozenset({part})):
        torch.manual_seed(0)
        found.append(losses(without)(training, pair))
    gone = {"hallucinator": {"distillation"}, "adversarial": {"adversarial", "discriminator"},
            "constant_shape": {"constant_shape"}}  # fmt: skip
    assert found[0].keys() - found[1].keys() == gone.get(part, set()) and set(found[1]) <= set(loss_weights(10.0))
    if part in ("deltas", "context"):
        assert found[0]["joints"] != found[1]["joints"]


def test_without_context_a_strip_depends_on_its_frame_alone():
    seen, made = batches()[0], network()
    other = seen._replace(features=seen.features.clone())
    other.features[:, 7] += 1
    one, two = (real_strips(made, clip, frozenset({"context"})) for clip in (seen, other))
    same = (one == two).all(-1)
    assert not same[:, 7].any() and same.sum() == same.numel() - len(same)


def test_the_mean_body_is_a_pose_of_rotations():
    rotations, shape = mean_body(prepared())
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(JOINTS, 3, 3), atol=1e-5, rtol=0)
    assert torch.linalg.det(rotations).min() > 0.99 and shape.shape == (SHAPES,)


def test_a_few_steps_learn():
    training, pair, weights = HmmrTraining(network(), JOINTS), batches(1), loss_weights(10.0)
    learned, sums = list(training.hmmr.parameters()), []
    for _ in range(8):
        torch.manual_seed(0)
        found = losses(frozenset({"deltas", "adversarial"}))(training, pair)
        sums.append(sum(weights[name] * loss for name, loss in found.items()))
        slopes = torch.autograd.grad(sums[-1], learned, allow_unused=True)
        with torch.no_grad():
            for parameter, slope in zip(learned, slopes, strict=True):
                parameter -= 0.005 * slope.sign() if slope is not None else 0.0
    assert READ < FRAMES and sums[-1] < 0.8 * sums[0]


def test_bodies_of_a_clip_stand_where_the_lifter_saw_the_root():
    piece, made = body_piece(noise=0.02), network()
    told = hmmr_bodies(made, piece.seen, lite())
    points = lite().points("h36m17", rotvec_to_matrix(told.rotations), told.trajectory, told.shape)
    np.testing.assert_allclose(points[:, 0], piece.seen.root[0], atol=1e-5)
    clip = tensors(make_batch([piece], flip()))
    state = made(clip.features).present
    state = state._replace(shape=state.shape.mean(1, keepdim=True).expand_as(state.shape))
    joints = StripBody(lite()).joints(state) @ clip.heading
    np.testing.assert_allclose(points - points[:, :1], joints[0].detach(), atol=1e-4)
    assert (told.fps, told.frame, told.body) == (25.0, "world", "lite")


def test_bodies_turn_with_the_world():
    piece, made = body_piece(noise=0.02), network()
    told = hmmr_bodies(made, piece.seen, lite())
    turned = hmmr_bodies(made, turned_world(piece.seen, 2.0, np.array([3.0, -1.0, 0.0])), lite())
    turn = Rotation.from_euler("z", 2.0)
    np.testing.assert_allclose((turn * Rotation.from_rotvec(told.rotations[:, 0])).as_matrix(),
                               Rotation.from_rotvec(turned.rotations[:, 0]).as_matrix(), atol=1e-4)  # fmt: skip
    np.testing.assert_allclose(turned.rotations[:, 1:], told.rotations[:, 1:], atol=1e-4)


def test_shipped_weights_are_small_and_see_the_pose():
    shipped, header = load_strips(WEIGHTS, "hmmr")
    assert WEIGHTS.stat().st_size <= 1.8e6 and (header.skeleton_out, header.config["deltas"]) == ("lite", [-5, 5])
    joints = walker(50, fps=25.0).astype(np.float64)
    seen = see_person(Motion(joints - joints[:, :1], joints[:, 0], None, "h36m17", 25.0, "world")).seen
    told = hmmr_bodies(shipped, seen, lite())
    points = lite().points("h36m17", rotvec_to_matrix(told.rotations), told.trajectory, told.shape)
    assert joint_errors(points, joints).mean() < 0.15  # the walker is no human body


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("hmmr") / "small.safetensors"
    save_strips(path, network(), CONFIG, training="none", licence="none", version="0", metrics={})
    return str(path)


def moving(frames: int = 30) -> Motion:
    piece = body_piece(frames)
    return Motion(piece.joints, piece.root, np.full((frames, 17), 0.05), "h36m17", 25.0, "world")


def test_one_frame_tells_three_moments_and_knows_no_other_frame(weights):
    motion = moving()
    around = around_one_frame(motion, 12, weights=weights)
    assert around.frames == (-5, 0, 5) and len(around.body) == len(around.motion) == 3
    assert (around.body.fps, around.motion.fps, around.body.frame, around.motion.frame) == (5.0, 5.0, "world", "world")
    np.testing.assert_allclose(around.motion.trajectory, motion.trajectory[[12, 12, 12]], atol=1e-5)
    other = motion.replace(joints=np.where(np.arange(30)[:, None, None] == 12, motion.joints, 0.5),
                           trajectory=motion.trajectory + (np.arange(30) != 12)[:, None])  # fmt: skip
    again = around_one_frame(other, 12, weights=weights)
    np.testing.assert_array_equal(around.body.rotations, again.body.rotations)
    np.testing.assert_array_equal(around.motion.joints, again.motion.joints)
    assert not np.allclose(around.body.rotations[0], around.body.rotations[1], atol=1e-3)


def filmed_take() -> Take:
    joints = walk_in_camera(40)
    motion = Motion(joints - joints[:, :1], joints[:, 0], np.full(joints.shape[:2], 0.04), "h36m17", FPS)
    return place_in_world(Take("walk", SIZE, FPS, np.arange(40) / FPS, CAMERA, (Person(3, filmed(40), motion),)))


def test_a_frame_with_keypoints_is_lifted_alone(weights, tmp_path):
    take, lifter = filmed_take(), Lifter.load(write_tiny_weights(tmp_path / "tiny.safetensors"))
    around = around_one_frame(take.people[0], 20, take, weights=weights, lifter=lifter)
    one = filmed(40).slice(20, 21)
    held = one.replace(xy=np.repeat(one.xy, 40, 0), score=np.repeat(one.score, 40, 0))
    alone = lifter.lift(held, CAMERA, refine=False).motion
    rotation, translation = (np.array(take.metadata["world"][name]) for name in ("rotation", "translation"))
    root = (alone.trajectory[20] - translation) @ rotation
    np.testing.assert_allclose(around.motion.trajectory[1], root, atol=2e-3)
    assert not np.allclose(root, take.people[0].world.trajectory[20], atol=2e-3)


def test_a_take_of_three_moments(weights, tmp_path):
    take, lifter = filmed_take(), Lifter.load(write_tiny_weights(tmp_path / "tiny.safetensors"))
    made, report = take_around(take, 20, weights=weights, lifter=lifter)
    person = made.people[0]
    np.testing.assert_allclose(made.times, take.times[20] + np.array([-0.2, 0.0, 0.2]), atol=1e-9)
    assert (len(made), made.fps, person.id, person.motion.frame, person.body.frame) == (3, 5.0, 3, "world", "world")
    assert person.keypoints.seen.any(1).tolist() == [False, True, False] and "world" not in made.metadata
    joints, lifted = person.motion.joints, take.people[0].world.joints[10 if FPS == 50.0 else 15]
    miss = 1000 * np.linalg.norm(joints[0] - lifted, axis=-1).mean()
    assert report["people"][0]["past_mm"] == pytest.approx(miss, abs=0.1) and report["frame"] == 20
    assert take_around(take, 38, weights=weights, lifter=lifter)[1]["people"][0]["future_mm"] is None
    front_door.save(made, tmp_path / "around.npz")
    assert front_door.load(tmp_path / "around.npz") == made
    with pytest.raises(ValueError, match="expected 0 to 39"):
        take_around(take, 40, weights=weights)


@pytest.fixture
def result(weights, tmp_path, monkeypatch) -> Path:
    """A result file, and a small network and lifter in place of the real ones."""
    lifter = Lifter.load(write_tiny_weights(tmp_path / "tiny.safetensors"))
    monkeypatch.setattr(around_result, "take_around", partial(take_around, weights=weights, lifter=lifter))
    monkeypatch.chdir(tmp_path)
    front_door.save(filmed_take(), tmp_path / "walk.npz")
    return tmp_path / "walk.npz"


def test_command_writes_past_and_future_of_one_frame(result):
    done = CliRunner().invoke(cli.main, ["future", str(result), "--from-frame", "20", "--past", "-o", "around.npz"])
    assert done.exit_code == 0, done.output
    assert "0.2 s before and after frame 20" in done.output and "standing still" in done.output
    take = front_door.load(result.parent / "around.npz")
    assert len(take) == 3 and take.people[0].body is not None and take.metadata["around"]["frame"] == 20
    done = CliRunner().invoke(cli.main, ["future", str(result), "--from-frame", "20", "--past", "--json"])
    report = json.loads(done.stdout)
    assert report["people"][0]["id"] == 3 and {Path(path).name for path in report["outputs"]} == {
        "around.npz", "around.html"}  # fmt: skip
    assert all(Path(path).stat().st_size > 0 for path in report["outputs"])


@pytest.mark.parametrize(("options", "says"), [([], "--from-frame"), (["--from-frame", "99"], "expected 0 to 39")])
def test_command_refuses_in_one_sentence(result, options, says):
    done = CliRunner().invoke(cli.main, ["future", str(result), "--past", *options])
    assert done.exit_code == 2 and says in done.output and not list(result.parent.rglob("around*"))


@pytest.mark.parametrize(("frame", "says"), [(-1, "expected 0 to 29"), (30, "expected 0 to 29"), (4, "take frame 5")])
def test_frames_that_are_not_there_are_refused(frame, says, weights):
    motion = moving()
    joints = np.where(np.arange(30)[:, None, None] < 5, np.nan, motion.joints)
    path = np.where(np.arange(30)[:, None] < 5, np.nan, motion.trajectory)
    with pytest.raises(ValueError, match=says):
        around_one_frame(motion.replace(joints=joints, trajectory=path), frame, weights=weights)


def test_missing_weights_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        around_one_frame(moving(), 3, weights=tmp_path / "none.safetensors")


def test_nearest_neighbour_of_the_training_set_itself_is_exact(monkeypatch):
    pieces = [body_piece(24, seed) for seed in range(2)]
    monkeypatch.setattr(hmmr_tables, "load_bodies", lambda path, split: pieces)
    found = hmmr_tables.nearest_neighbour(None, pieces)
    assert max(found.values()) < 1e-2
    smaller = [replace(piece, joints=0.8 * piece.joints) for piece in pieces]
    assert max(hmmr_tables.nearest_neighbour(None, smaller).values()) < 1e-2  # size does not count


def test_pose_errors_of_the_truth_are_nought():
    piece = body_piece(24)
    found = hmmr_tables.pose_errors(piece.joints, piece)
    assert max(abs(found[name]).max() for name in found if name != "pck") < 1e-3 and found["pck"].mean() > 99
    jumpy = piece.joints + 0.01 * (np.arange(24) % 2)[:, None, None] * np.array([1.0, 0, 0])
    np.testing.assert_allclose(hmmr_tables.pose_errors(jumpy, piece)["accel_mm_frame2"], 20.0, rtol=1e-3)
    np.testing.assert_allclose(hmmr_tables.pose_errors(jumpy, piece)["accel_m_s2"], 0.02 * 625, rtol=1e-3)


def test_tables_of_2d_clips_are_means_over_seeds():
    row = dict.fromkeys(hmmr_tables.METRICS, 1.0)
    found = {"filmed_0%_0": row, "filmed_0%_1": {**row, "mpjpe_mm": 4.0}, "base": row}
    table = hmmr_tables.filmed_table(found)
    assert list(table) == ["0%"] and table["0%"]["seeds"] == 2 and table["0%"]["mpjpe_mm"] == 2.5
    assert len({json_of(recipe) for recipe in hmmr_tables.ROWS.values()}) == len(hmmr_tables.ROWS)


def json_of(recipe: object) -> str:
    return str(sorted(asdict(recipe).items()))
