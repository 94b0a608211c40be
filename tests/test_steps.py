"""The training steps: which losses there are, what they depend on, and that both halves go through one forward pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from filmed_clips import filmed_clip, filmed_clips

from lifting.cameras import estimate_focal
from lifting.datasets.clips import ClipList
from lifting.datasets.windows import WindowConfig, Windows
from lifting.models.temporal import TemporalConfig
from lifting.training.config import Terms
from lifting.training.networks import ClipCameras, Networks
from lifting.training.steps import Labelled, Layouts, Lifted, Unlabelled, semi_step, supervised_step

pytestmark = pytest.mark.usefixtures("one_thread")
CLIPS = filmed_clips("S1", 3)
LAYOUTS = Layouts.of(CLIPS.skeleton_out, CLIPS.skeleton_in)


def cut(clips=CLIPS, around: int = 2, chunk: int = 1, flip: bool = True):
    """One batch of tensors."""
    windows = Windows(clips, WindowConfig(around // 2, around // 2, chunk, 24, flip=flip))
    return windows.batch(0, 0).map(torch.from_numpy)


def halves(clips=CLIPS, **options) -> tuple[Labelled, Unlabelled]:
    batch = cut(clips, **options)
    cameras = ClipCameras(clips.infos)(batch.clips, batch.intrinsics)
    return (Labelled(batch.keypoints, batch.joints, batch.root, batch.valid),
            Unlabelled(batch.keypoints, batch.pixels, batch.image_size[:, 0], cameras, batch.valid))


def oracle(labelled: Labelled):
    """A lift that knows the answer, for the batch and for the batch twice."""
    def lift(keypoints: torch.Tensor) -> Lifted:
        times = len(keypoints) // len(labelled.keypoints)
        return Lifted(labelled.joints.repeat(times, 1, 1, 1), labelled.root.repeat(times, 1, 1))

    return lift


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_truth_has_no_loss_through_mirrored_and_distorting_cameras(chunk):
    labelled, unlabelled = halves(chunk=chunk)
    losses = semi_step(oracle(labelled), labelled, unlabelled, Terms(), LAYOUTS)
    assert list(losses) == ["pose", "trajectory", "projection", "bones"]
    assert all(value < 1e-5 for value in losses.values()), losses
    straight = semi_step(oracle(labelled), labelled, unlabelled, Terms(linear_projection=True), LAYOUTS)
    assert straight["projection"] > 1e-4  # the lenses do bend


def test_every_term_is_a_switch():
    labelled, unlabelled = halves()
    for terms, names in ((Terms(bones=False), {"projection"}), (Terms(projection=False), {"bones"})):
        assert set(semi_step(oracle(labelled), labelled, unlabelled, terms, LAYOUTS)) == {"pose", "trajectory"} | names
    assert set(supervised_step(oracle(labelled), labelled)) == {"pose", "trajectory"}
    alone = supervised_step(lambda _: Lifted(labelled.joints + 1, None), labelled)
    assert list(alone) == ["pose"] and alone["pose"].item() == pytest.approx(3**0.5)


def test_the_terms_see_what_they_should():
    labelled, unlabelled = halves()
    count = len(labelled.keypoints)

    def lift(keypoints: torch.Tensor) -> Lifted:
        pose, root = oracle(labelled)(keypoints)
        return Lifted(torch.cat([pose[:count], 1.1 * pose[count:]]), torch.cat([root[:count], 1.1 * root[count:]]))

    losses = semi_step(lift, labelled, unlabelled, Terms(), LAYOUTS)
    assert losses["pose"] < 1e-5 and losses["trajectory"] < 1e-5  # the unlabelled half has no labels
    assert losses["projection"] < 1e-5  # a larger body further away looks the same ...
    lengths = torch.stack([(labelled.joints[..., a, :] - labelled.joints[..., b, :]).norm(dim=-1).mean()
                           for a, b in CLIPS.skeleton_out.bones])
    assert losses["bones"].item() == pytest.approx(0.1 * lengths.mean().item(), rel=1e-4)  # ... but has other bones


def test_both_halves_share_one_forward_pass_and_its_statistics():
    torch.manual_seed(0)
    networks = Networks(TemporalConfig(widths=(3,), channels=4, dropout=0.0))
    calls = []
    networks.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0]))
    labelled, unlabelled = halves()
    unlabelled = unlabelled._replace(keypoints=unlabelled.keypoints + 3)
    semi_step(networks, labelled, unlabelled, Terms(), LAYOUTS)
    assert len(calls) == 1 and torch.equal(calls[0], torch.cat([labelled.keypoints, unlabelled.keypoints]))
    assert networks.pose.expand_norm.num_batches_tracked == 1


def test_strided_form_is_the_same_lift():
    torch.manual_seed(0)
    strided = Networks(TemporalConfig(widths=(3, 3), channels=6), strided=True).eval()
    plain = Networks(TemporalConfig(widths=(3, 3), channels=6), strided=False).eval()
    plain.load_state_dict(strided.state_dict())
    keypoints = cut(around=8).keypoints
    for one, other in zip(strided(keypoints), plain(keypoints), strict=True):
        torch.testing.assert_close(one, other)
    assert strided(keypoints).root.shape == (24, 1, 3)
    assert Networks(TemporalConfig(widths=(3,), channels=6), trajectory=False)(keypoints[:, :3]).root is None


def test_momentum_reaches_the_norms_of_both_nets():
    networks = Networks(TemporalConfig(widths=(3, 3), channels=6))
    networks.set_norm_momentum(0.03)
    norms = [module for module in networks.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert len(norms) == 6 and {norm.momentum for norm in norms} == {0.03}


# ---- cameras


def test_known_cameras_are_the_clips_own_and_have_no_parameter():
    cameras, batch = ClipCameras(CLIPS.infos), cut()
    found = cameras(batch.clips, batch.intrinsics)
    rows = torch.cat([found.focal, found.center, found.distortion], dim=1)
    assert torch.equal(rows, batch.intrinsics) and not list(cameras.parameters()) and not cameras.focal_factors()


def mixed_clips() -> ClipList:
    return ClipList([filmed_clip("S1", "0"), filmed_clip("S1", "1", 1.0, known=False)])


def test_unknown_cameras_start_at_the_assumed_focal_length_in_the_middle():
    clips, batch = mixed_clips(), cut(mixed_clips())
    cameras = ClipCameras(clips.infos)
    found = cameras(batch.clips, batch.intrinsics)
    unknown = batch.clips == 1
    focal, _ = estimate_focal((1000, 800))
    np.testing.assert_allclose(found.focal[unknown].detach(), focal, rtol=1e-6)
    assert (found.center[unknown] == torch.tensor([500.0, 400.0])).all() and not found.distortion[unknown].any()
    torch.testing.assert_close(found.focal[~unknown], batch.intrinsics[~unknown, :2])
    found.focal.sum().backward()
    assert cameras.log_focal.grad[0] == 0 and cameras.log_focal.grad[1] > 0


@pytest.mark.parametrize("focal", [900.0, 1700.0])
def test_one_focal_length_per_video_is_found_from_true_poses(focal):
    clips = ClipList([filmed_clip("S1", "0", known=False, focal=focal)])
    cameras, batch = ClipCameras(clips.infos), cut(clips)
    labelled = Labelled(batch.keypoints, batch.joints, batch.root, batch.valid)
    optimiser = torch.optim.Adam(cameras.parameters(), 0.02)
    for _ in range(120):
        seen = Unlabelled(batch.keypoints, batch.pixels, batch.image_size[:, 0],
                          cameras(batch.clips, batch.intrinsics), batch.valid)
        optimiser.zero_grad()
        semi_step(oracle(labelled), labelled, seen, Terms(bones=False), LAYOUTS)["projection"].backward()
        optimiser.step()
    [factor] = cameras.focal_factors()
    assert factor * estimate_focal((1000, 800))[0] == pytest.approx(focal, rel=0.05)  # the lens and center are unknown


def test_terms_know_two_norms():
    with pytest.raises(ValueError, match="expected one of absolute, squared"):
        replace(Terms(), bone_norm="cubed")
