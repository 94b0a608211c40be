"""`lift convert`: checkpoints there and back, data sets to one file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lifting.cli_convert import convert
from lifting.datasets.clip_file import ClipFile, write_clips
from lifting.datasets.clips import Clip
from lifting.keypoints import Keypoints2D
from lifting.models import build
from lifting.models.foreign_checkpoints import write_videopose3d
from lifting.models.temporal import TemporalConfig
from lifting.models.temporal_file import describe_temporal, load_temporal


def invoke(*arguments: object):
    return CliRunner().invoke(convert, [str(argument) for argument in arguments])


@pytest.fixture
def checkpoint(tmp_path):
    """A small VideoPose3D checkpoint and the network that is in it."""
    torch.manual_seed(0)
    pose = build(TemporalConfig(channels=8)).eval()
    weights = describe_temporal(pose, None, skeleton_in="coco17", skeleton_out="h36m17", fps=50.0, training="",
                                licence="", metrics={})  # fmt: skip
    return write_videopose3d(tmp_path / "own.bin", weights), pose


def test_checkpoint_there_and_back(checkpoint, tmp_path):
    path, pose = checkpoint
    result = invoke("checkpoint", path, "-o", tmp_path / "own.safetensors", "--skeleton-in", "coco", "--causal",
                    "--fps", 25)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "coco17 x 2 to h36m17, 27 frames at 25 frames/s, causal" in result.output
    assert f"{sum(p.numel() for p in pose.parameters()):,} parameters, no trajectory net" in result.output
    weights = load_temporal(tmp_path / "own.safetensors")
    assert weights.pose.config.causal and weights.header.fps == 25 and weights.header.skeleton_in == "coco17"
    assert invoke("checkpoint", tmp_path / "own.safetensors", "-o", tmp_path / "back.bin").exit_code == 0
    first, back = (torch.load(file, weights_only=True)["model_pos"] for file in (path, tmp_path / "back.bin"))
    assert first.keys() == back.keys() and all(torch.equal(first[name], back[name]) for name in first)


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "pass --skeleton-in"), (("--skeleton-in", "halpe"), "26 joints of halpe26"),
    (("--skeleton-in", "hand"), "unknown skeleton 'hand'"), (("--skeleton-in", "coco", "--fps", "-1"), "fps is -1"),
])  # fmt: skip
def test_bad_checkpoint_input_is_one_sentence(checkpoint, tmp_path, arguments, message):
    result = invoke("checkpoint", checkpoint[0], "-o", tmp_path / "x.safetensors", *arguments)
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "x.safetensors").exists()


def test_missing_checkpoint(tmp_path):
    result = invoke("checkpoint", tmp_path / "none.bin", "-o", tmp_path / "x.safetensors")
    assert result.exit_code == 2 and "no checkpoint at" in result.stderr


def test_dataset_becomes_one_file(tmp_path):
    points = np.random.default_rng(0).uniform(0, 90, (2, 6, 17, 2))
    clips = [Clip(f"S{k}", "Walk", "a", Keypoints2D(points[k], None, "coco17", (100, 100), 25.0)) for k in range(2)]
    write_clips(tmp_path / "first.h5", clips, name="mine")
    result = invoke("dataset", tmp_path / "first.h5", "-o", tmp_path / "second.h5")
    assert result.exit_code == 0, result.output
    assert "mine: 2 clips, 12 frames" in result.output
    assert list(ClipFile(tmp_path / "second.h5")) == clips


def test_bad_dataset_input(tmp_path):
    result = invoke("dataset", tmp_path / "none", "-o", tmp_path / "x.h5")
    assert result.exit_code == 2 and "none" in result.stderr and len(result.stderr.splitlines()) == 1
    result = invoke("dataset", tmp_path / "none", "-o", tmp_path / "x.npz")
    assert result.exit_code == 2 and "ends in .h5" in result.stderr
