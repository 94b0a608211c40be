"""What somebody tries right after installing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import lift
from lifting.cli import main
from lifting.demo import FOCAL, KEYPOINTS
from lifting.detectors.files import read_keypoints
from lifting.metrics import p_mpjpe


def test_demo_lifts_what_comes_with_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["demo", "--no-open"])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "runs" / "demo"
    assert sorted(path.name for path in folder.iterdir()) == ["motion.bvh", "result.npz", "view.html"]
    assert "wrote runs" in done.output and "in a browser" in done.output
    take = lift.load(folder / "result.npz")
    assert (len(take), take.fps, tuple(take.camera.focal)) == (135, 30.0, (FOCAL, FOCAL))


def test_demo_is_the_sample_clip():
    """Against the truth that the sample was rendered from."""
    file = read_keypoints(KEYPOINTS)
    assert (file.fps, file.image_size, file.skeleton.name) == (30.0, (960, 720), "mediapipe33")
    take = lift.run_video(keypoints=KEYPOINTS, focal=FOCAL)
    with np.load(Path(__file__).resolve().parent.parent / "data" / "sample_truth.npz") as truth:
        assert p_mpjpe(take.people[0].motion.joints, truth["joints"] - truth["joints"][:, :1]) < 0.06


def test_the_folder_can_be_chosen_and_a_file_in_its_place_is_a_sentence(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    done = CliRunner().invoke(main, ["demo", "--no-open", "--folder", str(taken)])
    assert done.exit_code == 2 and "Traceback" not in done.output and taken.read_text() == "mine"


SCRIPTS = {"bash": "complete -o nosort", "zsh": "#compdef lift", "fish": "complete "}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_completion_is_a_script_for_the_shell(shell):
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0 and SCRIPTS[shell] in done.output and "_LIFT_COMPLETE" in done.output


def test_completion_knows_the_commands():
    asked = {"_LIFT_COMPLETE": "bash_complete", "COMP_WORDS": "lift e", "COMP_CWORD": "1"}
    done = CliRunner().invoke(main, prog_name="lift", env=asked)
    assert [line.split(",")[1] for line in done.output.split()] == ["evaluate", "export"]
