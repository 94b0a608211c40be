"""The main job for real: `lift run` on the sample clip with the shipped weights, against the clip's true joints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from lifting import metrics
from lifting.export import load

ROOT = Path(__file__).resolve().parent.parent
SAMPLE, TRUTH = ROOT / "data" / "sample.mp4", ROOT / "data" / "sample_truth.npz"
missing = [name for name in ("av", "ai_edge_litert", "mediapipe") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"needs the extra 'video'; missing: {', '.join(missing)}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The finished process and the folder it ran in."""
    folder = tmp_path_factory.mktemp("user")
    command = [sys.executable, "-m", "lift", "run", "--video", str(SAMPLE)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done, folder / "runs" / "sample"


@pytest.fixture(scope="module")
def truth():
    with np.load(TRUTH, allow_pickle=False) as archive:
        return {name: archive[name].astype(float) for name in ("joints", "times", "focal", "image_size")}


def test_the_outputs_are_there_and_announced(run):
    done, folder = run
    names = ["overlay.mp4", "report.json", "result.npz"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert done.stderr == ""
    assert "sample: 1 person, 135 frames at 30 frames/s, focal length 900 px, detector blazepose" in done.stdout
    assert all(f"wrote {Path('runs/sample') / name}" in done.stdout for name in names)
    report = json.loads((folder / "report.json").read_text())
    assert report["warnings"] == [] and report["people"][0]["frames"] == 135
    assert report["weights"].startswith("lifter.safetensors ")


def test_the_result_spans_the_clip(run, truth):
    take = load(run[1] / "result.npz")
    np.testing.assert_allclose(take.times, truth["times"], atol=1e-3)
    np.testing.assert_allclose(take.camera.focal, truth["focal"], rtol=1e-3)  # from the clip's own metadata
    assert take.image_size == tuple(truth["image_size"])
    assert np.isfinite(take.people[0].motion.absolute).all()


def test_the_pose_is_right(run, truth):
    motion = load(run[1] / "result.npz").people[0].motion
    expected = truth["joints"] - truth["joints"][:, :1]
    assert 1000 * metrics.p_mpjpe(motion.joints, expected) <= 60


def test_the_path_is_right(run, truth):
    motion = load(run[1] / "result.npz").people[0].motion
    assert metrics.root_error_share_of_depth(motion.trajectory, truth["joints"][:, 0]) <= 0.10


def test_the_overlay_shows_every_frame(run):
    from lifting.video import open_video

    with open_video(run[1] / "overlay.mp4") as overlay:
        assert sum(1 for _ in overlay) == 135
