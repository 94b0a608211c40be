"""Many files in one run: which, in which share, what is skipped, and that one file's failure is its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from filmed_walker import KnownDetector, filmed, write_video

from lifting import batch, cli
from lifting.batch import FAILED, LIFTED, SKIPPED, find_files, in_shard, is_batch, parse_shard, plan_jobs, run_batch
from lifting.detectors.files import write_keypoints
from lifting.export import load

OPENPOSE = json.dumps({"people": []})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clips(here):
    """A folder of three keypoint clips and a file that is none."""
    for number in range(3):
        (here / "clips").mkdir(exist_ok=True)
        write_keypoints(here / "clips" / f"walk{number}.npz", filmed(12, across=0.2 * number))
    (here / "clips" / "broken.csv").write_text("no keypoints")
    return here / "clips"


@pytest.fixture
def options(tiny_weights):
    return {"weights": str(tiny_weights), "height": 1.7}


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(OPENPOSE)


def statuses(outcomes) -> dict[str, str]:
    return {outcome.job.name: outcome.status for outcome in outcomes}


# ---- which files


def test_a_folder_of_videos_and_of_folders_of_images(here):
    make_files(here, "clips/b10.mp4", "clips/b2.MOV", "clips/images/0.png", "clips/notes.txt", "clips/.hidden.mp4",
               "clips/deeper/c.mp4", "clips/points.json")  # fmt: skip
    assert is_batch("clips", None)
    assert list(find_files("clips", "video")) == ["b2", "b10", "images"]
    assert find_files("clips", "video")["b2"] == here / "clips" / "b2.MOV"


def test_a_folder_with_images_in_it_is_one_video(here):
    make_files(here, "clip/0.png", "clip/walk.mp4")
    assert not is_batch("clip", None)
    assert list(find_files("clip*", "video")) == ["clip"]


def test_a_folder_of_one_json_file_per_frame_is_one_clip(here):
    make_files(here, "openpose/a_000000000000_keypoints.json", "many/one/a_000000000000_keypoints.json", "many/two.npz")
    (here / "mmpose").mkdir()
    (here / "mmpose" / "0.json").write_text(json.dumps([{"keypoints": [[1, 2]], "keypoint_scores": [1]}]))
    assert not is_batch(None, "openpose") and not is_batch(None, "mmpose")
    assert is_batch(None, "many") and list(find_files("many", "keypoints")) == ["one", "two"]


def test_patterns_take_what_they_match_and_names_tell_folders_apart(here):
    make_files(here, "a/walk.mp4", "a/walk.mov", "b/walk.mp4", "b/sit.mp4", "b/notes.txt")
    assert is_batch("*/walk.*", None)
    assert list(find_files("*/walk.*", "video")) == ["a/walk.mov", "a/walk.mp4", "b/walk"]
    assert list(find_files("**/*.mp4", "video")) == ["a/walk", "b/sit", "b/walk"]
    assert list(find_files(here / "b" / "*", "video")) == ["notes", "sit", "walk"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(here):
    make_files(here, "clip[1].mp4")
    assert not is_batch("clip[1].mp4", None) and not is_batch("none.mp4", None)


def test_nothing_to_find_is_said(here):
    make_files(here, "empty/notes.txt")
    with pytest.raises(ValueError, match="the folder 'empty' holds no images, no videos and no folders of images"):
        find_files("empty", "video")
    with pytest.raises(FileNotFoundError, match=r"nothing matches the pattern 'x\*'"):
        find_files("x*", "keypoints")


# ---- shards


def test_shards_are_disjoint_complete_and_do_not_depend_on_the_other_files():
    names = [f"clip{number}" for number in range(500)]
    shares = [{name for name in names if in_shard(name, number, 7)} for number in range(1, 8)]
    assert sum(map(len, shares)) == 500 and set().union(*shares) == set(names)
    assert all(40 < len(share) < 110 for share in shares)
    assert [name for name in names[:8] if in_shard(name, 1, 2)] == ["clip1", "clip4", "clip5"]  # by sha256sum


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_shards_that_make_no_sense(text):
    with pytest.raises(ValueError, match=r"expected i/n with i from 1 to n, such as 1/4"):
        parse_shard(text)


def test_a_shard_plans_its_files_only(here):
    make_files(here, *(f"clips/{number}.mp4" for number in range(9)))
    shares = [[job.name for job in plan_jobs(video="clips", shard=f"{number}/2")] for number in (1, 2)]
    assert sorted(sum(shares, [])) == [str(number) for number in range(9)] and all(shares)


# ---- outputs


def test_default_outputs_are_those_of_single_runs(here):
    make_files(here, "clips/a.mp4", "clips/a.npz")
    (job,) = plan_jobs(video="clips", mesh=True)
    assert job.outputs == tuple(here / "runs" / "a" / name for name in ("result.npz", "overlay.mp4", "body.glb"))
    assert job.report == here / "runs" / "a" / "report.json"
    assert [path.name for path in plan_jobs(keypoints="clips")[0].outputs] == ["result.npz"]


def test_names_fill_the_outputs(here):
    make_files(here, "in/a/walk.npz", "in/b/walk.npz")
    jobs = plan_jobs(keypoints="in/*/*.npz", output=["out/{name}.bvh", "out/{name}.120.obj"])
    assert [path.relative_to(here).as_posix() for path in jobs[1].outputs] == ["out/b/walk.bvh", "out/b/walk.120.obj"]
    assert jobs[1].report == here / "out" / "b" / "walk.report.json"
    with pytest.raises(ValueError, match=r"'out.npz' would be written for every file; put \{name\} in it"):
        plan_jobs(keypoints="in/*/*.npz", output=["out.npz"])


def test_two_kinds_at_once_are_refused(here):
    make_files(here, "clips/a.mp4")
    with pytest.raises(ValueError, match="a batch is of one kind"):
        plan_jobs(video="clips", keypoints="clips")


# ---- resuming


def test_finished_files_are_skipped_and_the_others_done_again(clips, options):
    jobs = plan_jobs(keypoints="clips")
    first = {"walk0": LIFTED, "walk1": LIFTED, "walk2": LIFTED, "broken": FAILED}
    assert statuses(run_batch(jobs, options)) == first
    assert statuses(run_batch(jobs, options)) == {**dict.fromkeys(first, SKIPPED), "broken": FAILED}

    jobs[1].outputs[0].unlink()  # an output is missing
    jobs[2].report.write_text("{")  # a report that breaks off
    write_keypoints(jobs[3].source, filmed(14))  # the input is another one
    assert statuses(run_batch(jobs, options)) == first
    assert len(json.loads(jobs[3].report.read_text())["made_with"]["source"]) == 3

    assert set(statuses(run_batch(jobs[1:], {**options, "height": 1.8})).values()) == {LIFTED}
    report = json.loads(jobs[1].report.read_text())
    assert report["height_m"] == report["made_with"]["options"]["height"] == 1.8
    assert set(statuses(run_batch(jobs[1:], {**options, "height": 1.8})).values()) == {SKIPPED}


def test_other_weights_under_the_same_name_are_another_option(clips, options, tmp_path):
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(Path(options["weights"]).read_bytes())
    jobs = plan_jobs(keypoints="clips")[1:2]
    chosen = {**options, "weights": "mine.safetensors"}
    assert statuses(run_batch(jobs, chosen)) == {"walk0": LIFTED}
    assert statuses(run_batch(jobs, chosen)) == {"walk0": SKIPPED}
    os.utime(weights, (1, 1))
    assert statuses(run_batch(jobs, chosen)) == {"walk0": LIFTED}


def test_a_report_is_gone_while_its_file_is_in_work(clips, options, monkeypatch):
    (job,) = plan_jobs(keypoints="clips")[1:2]
    assert statuses(run_batch([job], options)) == {"walk0": LIFTED}

    def stop(*_, **__):
        assert not job.report.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch, "run_video", stop)
        with pytest.raises(KeyboardInterrupt):
            list(run_batch([job], {**options, "height": 1.5}))
    assert statuses(run_batch([job], options)) == {"walk0": LIFTED}  # the old result is there, but not trusted


def test_an_interrupted_video_ends_the_batch_and_is_begun_again(here, options, one_thread):
    pytest.importorskip("av")
    (here / "clips").mkdir()
    for name in "ab":
        write_video(here / "clips" / f"{name}.mp4", 4, size=(64, 48))
    jobs = plan_jobs(video="clips", output=["{name}.npz"])
    stopping = {**options, "detector": StoppingDetector()}
    assert statuses(run_batch(jobs, stopping)) == {"a": batch.INTERRUPTED}
    assert jobs[0].outputs[0].is_file() and not jobs[1].outputs[0].exists()
    assert statuses(run_batch(jobs, stopping)) == {"a": LIFTED, "b": LIFTED}


class StoppingDetector(KnownDetector):
    """Ctrl-C in the first video that it sees."""

    def __init__(self) -> None:
        super().__init__(filmed(4), stop_at=2)

    def detect(self, frames):
        try:
            yield from super().detect(frames)
        finally:
            self.stop_at = None


# ---- failures


def test_a_bug_of_ours_costs_one_file_only(clips, options, monkeypatch, caplog):
    whole = batch.run_video

    def fail_at_one(**given):
        if given["keypoints"].stem == "walk1":
            raise ZeroDivisionError("ours")
        return whole(**given)

    monkeypatch.setattr(batch, "run_video", fail_at_one)
    outcomes = {outcome.job.name: outcome for outcome in run_batch(plan_jobs(keypoints="clips"), options)}
    assert outcomes["walk1"].error == "ZeroDivisionError: ours" and "Traceback" in caplog.text
    assert [outcomes[name].status for name in ("walk0", "walk2")] == [LIFTED, LIFTED]


def test_options_that_no_file_could_use_are_said_once(clips, options):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        list(run_batch(plan_jobs(keypoints="clips"), {**options, "weights": "none.safetensors"}))
    with pytest.raises(ValueError, match="unknown engine 'spark', expected one of local, ray"):
        list(run_batch([], options, engine="spark"))
    with pytest.raises(ValueError, match="got 0 workers"):
        list(run_batch([], options, workers=0))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_processes_lift_as_one_and_a_killed_one_loses_nothing(clips, options):
    jobs = plan_jobs(keypoints="clips", output=["out/{name}.npz"])
    outcomes = run_batch(jobs, options, workers=2)
    found = [next(outcomes)]
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)  # at work, or about to
    found += outcomes
    assert statuses(found) == {"walk0": LIFTED, "walk1": LIFTED, "walk2": LIFTED, "broken": FAILED}
    assert "no known keypoint format" in next(outcome.error for outcome in found if outcome.error)
    assert {path.name for path in (Path("out")).iterdir()} == {
        f"walk{number}{suffix}" for number in range(3) for suffix in (".npz", ".report.json")}  # fmt: skip
    alone = plan_jobs(keypoints="clips", output=["alone/{name}.npz"])
    list(run_batch(alone, options))
    for job, other in zip(jobs[1:], alone[1:], strict=True):
        one, two = (load(each.outputs[0]).people[0].motion.absolute for each in (job, other))
        np.testing.assert_allclose(one, two, atol=1e-4)


# ---- the command


@pytest.fixture
def lift(tiny_weights):
    def run(*arguments: object):
        return CliRunner().invoke(cli.main, ["run", *map(str, arguments), "--weights", str(tiny_weights)])

    return run


def test_the_command_says_what_became_of_each_file(lift, clips):
    result = lift("--keypoints", "clips")
    assert result.exit_code == 1
    first, *lines, count, failed = result.stdout.splitlines()
    assert first.startswith("[1/4, 0:") and " left] broken: failed: 'broken.csv' holds text" in first
    assert [line.split(": ")[0][-5:] for line in lines] == ["walk0", "walk1", "walk2"]
    assert lines[-1].startswith("[4/4] walk2: 1 person, 12 frames, ")
    assert count == "4 files: 3 lifted, 0 done before, 1 failed"
    assert failed.startswith("  failed: broken: 'broken.csv' holds text")
    (clips / "broken.csv").unlink()
    again = lift("--keypoints", "clips/*")
    assert again.exit_code == 0 and again.stdout == "3 files: 0 lifted, 3 done before, 0 failed\n"


def test_the_command_speaks_json(lift, clips):
    result = lift("--keypoints", "clips", "--json", "-o", "{name}.json")
    said = json.loads(result.stdout)
    assert result.exit_code == 1 and (said["files"], said["lifted"], said["failed"]) == (4, 3, 1)
    assert [entry["name"] for entry in said["results"]] == ["broken", "walk0", "walk1", "walk2"]
    assert said["results"][1]["people"] == 1 and Path(said["results"][1]["report"]).is_file()


def test_an_interrupt_ends_the_command_with_what_is_done(lift, clips, monkeypatch):
    whole = batch.run_video

    def interrupt_at_one(**given):
        if given["keypoints"].stem == "walk1":
            raise KeyboardInterrupt
        return whole(**given)

    monkeypatch.setattr(batch, "run_video", interrupt_at_one)
    result = lift("--keypoints", "clips")
    assert result.exit_code == 130
    assert result.stdout.splitlines()[-1] == "interrupted: what is finished is kept, the same command goes on"
    assert "4 files: 1 lifted, 0 done before, 1 failed" in result.stdout
    monkeypatch.setattr(batch, "run_video", whole)
    assert "4 files: 2 lifted, 1 done before, 1 failed" in lift("--keypoints", "clips").stdout


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--keypoints", "clips/walk0.npz", "--shard", "1/2"], "got --shard with one clip"),
    (["--keypoints", "clips/walk0.npz", "clips/walk1.npz"], "got 'clips/walk1.npz' after 'clips/walk0.npz'; for many"),
    (["--keypoints", "clips", "--shard", "2"], "got the shard '2'"),
    (["--keypoints", "clips", "-o", "a.npz"], "put {name} in it"),
    (["--keypoints", "clips", "--engine", "ray", "--workers", "2"], "got --workers with the engine ray"),
    (["--keypoints", "none*"], "nothing matches the pattern"),
    (["--keypoints", "clips", "--height", "175"], "got a height of 175.0 m"),
])  # fmt: skip
def test_what_is_wrong_with_the_command_is_one_sentence(lift, clips, arguments, sentence):
    result = lift(*arguments)
    assert result.exit_code == 2 and sentence in result.stderr and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("lift: ") and not Path("runs").exists()
