"""`lift evaluate` on a data set, and on a result beside its truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lifting.cameras import Camera
from lifting.cli_evaluate import evaluate
from lifting.datasets.clip_file import write_clips
from lifting.datasets.clips import Clip, camera_motion
from lifting.export import save
from lifting.keypoints import Keypoints2D
from lifting.motion import Person, Take
from lifting.predict import Lifter
from lifting.skeletons import get_skeleton

SAMPLE = Path(__file__).parent.parent / "data" / "sample_truth.npz"
H36M = get_skeleton("h36m17")


@pytest.fixture(scope="module")
def sample() -> Clip:
    """The first 40 frames of the recorded sample as a labelled clip."""
    truth = np.load(SAMPLE)
    camera = Camera(truth["focal"], truth["center"], tuple(truth["image_size"]))
    keypoints = Keypoints2D(truth["joints_2d"][:40], None, H36M, camera.image_size, float(truth["fps"]))
    return Clip("S9", "Walking 1", "front", keypoints, camera_motion(truth["joints"][:40], H36M, 30.0), camera)


@pytest.fixture(scope="module")
def data(sample, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("evaluate") / "clips.h5"
    clips = [sample, replace(sample, subject="S11", action="Sitting").slice(0, 25), replace(sample, action="Eating")]
    write_clips(path, clips, name="two subjects")
    return path


def invoke(*arguments: object):
    return CliRunner().invoke(evaluate, [str(argument) for argument in arguments])


def test_a_data_set_with_the_default_lifter(data, sample, tmp_path):
    outputs = [tmp_path / name for name in ("table.md", "table.tex", "table.json")]
    result = invoke("--data", data, "--by-subject", *(part for path in outputs for part in ("-o", path)))
    assert result.exit_code == 0, result.output
    found = json.loads(outputs[2].read_text("utf-8"))
    assert [row["name"] for row in found["table"]["rows"]] == ["Eating", "Sitting", "Walking"]
    assert list(found["subjects"]) == ["S9", "S11"] and found["data"] == "two subjects"
    expected = Lifter.load().lift(sample.keypoints, sample.camera, repair=False).motion.joints
    error = 1000 * np.linalg.norm(expected - sample.motion.joints, axis=-1).mean()
    assert found["table"]["rows"][2]["scores"]["mpjpe_mm"] == pytest.approx(error, rel=1e-4)
    markdown = outputs[0].read_text("utf-8")
    assert f"{error:.1f}" in markdown and result.output.startswith(markdown) and "wrote" in result.output
    assert r"\toprule" in outputs[1].read_text("utf-8")


def test_a_part_of_it_without_flip_rescaled_as_json(data):
    chosen = ("--subjects", "s9", "--actions", "Walk,Eat")
    result = invoke("--data", data, *chosen, "--no-flip", "--convention", "rescaled", "--json")
    found = json.loads(result.output)
    assert [row["name"] for row in found["table"]["rows"]] == ["Eating", "Walking"]
    assert not found["subjects"]
    assert found["notes"][0].startswith("rescaled by ground truth")
    assert found["notes"][1].startswith("without flip")


def test_every_third_frame_is_as_if_it_had_been_recorded_so(data, sample):
    result = invoke("--data", data, "--actions", "Walk", "--downsample", 3, "--json")
    found = json.loads(result.output)
    kept = sample.keypoints.replace(xy=sample.keypoints.xy[::3], score=sample.keypoints.score[::3], fps=10.0)
    expected = Lifter.load().lift(kept, sample.camera, repair=False).motion.joints
    error = 1000 * np.linalg.norm(expected - sample.motion.joints[::3], axis=-1).mean()
    assert found["table"]["rows"][0]["frames"] == 14
    assert found["table"]["rows"][0]["scores"]["mpjpe_mm"] == pytest.approx(error, rel=1e-4)
    assert "one of 3 frames: 10 frames per second" in found["notes"]


@pytest.mark.parametrize(("arguments", "message"), [
    (("--downsample", 0), "got every 0th frame"), (("-o", "/dev/null/table.md"), "/dev/null"),
    (("--subjects", "S7"), "no subject S7; it has S9, S11"), (("--actions", "Fly"), "no action that begins with Fly"),
    (("-o", "table.html"), "ends in .json, .md, .tex"), (("--weights", "none.safetensors"), "no weights at none"),
])  # fmt: skip
def test_bad_input_is_one_sentence(data, arguments, message):
    result = invoke("--data", data, *arguments)
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1


def test_missing_data_says_how_to_get_it(tmp_path):
    result = invoke("--data", tmp_path / "none")
    assert result.exit_code == 2 and "none" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def lifted(sample, tmp_path_factory) -> Path:
    motion = Lifter.load().predict(sample.keypoints, sample.camera)
    people = [Person(1, sample.keypoints, motion), Person(2, sample.keypoints, motion.replace(sigma=None))]
    take = Take("sample", sample.camera.image_size, 30.0, np.arange(40) / 30, sample.camera, people)
    path = tmp_path_factory.mktemp("evaluate") / "motion.npz"
    save(take, path)
    return path


def test_a_result_beside_the_recorded_truth(lifted, sample, tmp_path):
    result = invoke(lifted, "--truth", SAMPLE, "-o", tmp_path / "t.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "t.json").read_text("utf-8"))
    assert [(row["name"], row["frames"]) for row in found["table"]["rows"]] == [("person 1", 40), ("person 2", 40)]
    expected = Lifter.load().predict(sample.keypoints, sample.camera)
    scores = found["table"]["rows"][0]["scores"]
    error = np.linalg.norm(expected.joints - sample.motion.joints, axis=-1).mean()
    assert scores["mpjpe_mm"] == pytest.approx(1000 * error, rel=1e-3)
    away = np.linalg.norm(expected.trajectory - sample.motion.trajectory, axis=-1).mean()
    assert scores["root_mm"] == pytest.approx(1000 * away, rel=1e-3)
    assert "person 2" in result.output


@pytest.mark.parametrize("arguments", [("motion.npz",), ("--truth", SAMPLE)])
def test_a_result_needs_its_truth(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2 and "only one of RESULT and --truth" in result.stderr


def test_options_of_data_sets_say_nothing_of_a_result(lifted):
    result = invoke(lifted, "--truth", SAMPLE, "--weights", "mine.safetensors", "--no-flip")
    assert result.exit_code == 2 and "got --weights, --no-flip, but a RESULT is compared" in result.stderr


def test_a_truth_that_is_none(lifted, tmp_path):
    result = invoke(lifted, "--truth", lifted)
    assert result.exit_code == 2 and "must have the shape" in result.stderr and len(result.stderr.splitlines()) == 1
