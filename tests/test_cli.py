"""The command line: what it prints and writes, and one sentence with exit code 2 for whatever a user gets wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from filmed_walker import CAMERA, FPS, SIZE, KnownDetector, filmed, write_video

from lifting import cli, doctor, pipeline
from lifting.detectors import DETECTORS
from lifting.detectors.files import write_keypoints
from lifting.export import load

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = ["it's \"quoted\"", "two\nlines", "<script>alert(1)<", "%s%n{0}", "ünï漢\u202e字", "\x1b[31mred"]
if os.name == "nt":
    HOSTILE = ["it's", "%s%n{0}", "ünï漢字"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lift(here, tiny_weights):
    """Run the command line in this process, with tiny weights."""

    def run(*arguments: object) -> Result:
        weights = ["--weights", tiny_weights] if arguments[0] == "run" else []
        return CliRunner().invoke(cli.main, [str(argument) for argument in (*arguments, *weights)])

    return run


@pytest.fixture
def points(here):
    """A keypoint file that states everything."""
    return write_keypoints(here / "points.npz", filmed(20))


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refused(result: Result) -> str:
    """Check for one sentence, exit code 2 and no traceback; returns the sentence."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("lift: ") and line.isprintable() and "Traceback" not in line
    return line


def run_python(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, *arguments], capture_output=True, env=environment, timeout=300)


# ---- help


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_is_light(arguments):
    code = (
        "import sys\nfrom lifting.cli import main\n"
        f"try: main({arguments!r}, prog_name='lift')\n"
        "finally: print('LOADED', *sorted({n.split('.')[0] for n in sys.modules}))"
    )
    done = run_python("-c", code)
    shown, loaded = done.stdout.decode().split("LOADED")
    assert done.returncode == 0 and done.stderr == b""
    assert shown.startswith(("Usage: lift ", "lift, version "))
    assert not set(loaded.split()) & {"torch", "numpy", "scipy", "av", "tqdm", "mediapipe", "h5py", "matplotlib", "PIL"}


def test_help_names_every_option():
    shown = CliRunner().invoke(cli.main, ["run", "-h"]).stdout
    for option in ("video", "keypoints", "output", "detector", "person", "camera", "focal", "height", "start", "end"):
        assert f"--{option}" in shown
    for option in ("every", "smooth", "fov", "camera-height", "workers", "shard", "engine", "mesh", "json"):
        assert f"--{option}" in shown
    assert "lift export --formats" in " ".join(shown.split())


# ---- what works


LEVEL = "  assumed: the camera was taken to be about level"  # untrained weights tell nothing of a floor


def test_default_outputs_and_summary(lift, here, points):
    result = lift("run", "--keypoints", points, "--height", "1.75")
    assert result.exit_code == 0 and result.stderr == ""
    assert files_in(here) == ["points.npz", "runs/points/report.json", "runs/points/result.npz"]
    first, person, *rest = result.stdout.splitlines()
    assert first == "points: 1 person, 20 frames at 25 frames/s, focal length 800 px, detector lift file"
    assert person.startswith("  person 1: seen in 20 frames, confidence 1.00, left/right swaps repaired in 0 frames")
    spans, assumed, level, doubt, *written = rest
    assert level.startswith(LEVEL)
    assert spans == "    not to be trusted: 0.00-0.80 s (the motion misses the keypoints)"  # untrained weights
    assert doubt.startswith("  warning: person 1: the motion misses the keypoints by ")
    assert assumed.startswith("  assumed: Focal length 800 px assumed (the image's diagonal; lenses have 0.6 to 1.6")
    assert written == [f"wrote {Path('runs/points', name)}" for name in ("result.npz", "report.json")]
    report = json.loads((here / "runs/points/report.json").read_text())
    assert report["height_m"] == 1.75 and report["people"][0]["frames"] == 20


def test_chosen_outputs_and_json(lift, here, points):
    outputs = ["-o", "a.json", "--output", "b/c.CSV", "-o", "d.h5"]
    result = lift("run", "--keypoints", points, *outputs, "--focal", "600", "--json")
    assert result.exit_code == 0 and result.stderr == ""
    said = json.loads(result.stdout)
    assert said["outputs"] == ["a.json", "b/c.CSV", "d.h5"]
    assert said["focal_px"] == [600, 600] and said["people"][0]["id"] == 1 and said["interrupted"] is False
    assumed, level = said["assumed"]
    assert level.startswith(LEVEL.removeprefix("  assumed: "))
    assert assumed == "no height given: sizes and distances follow the network's idea of the body; pass --height"
    assert files_in(here) == ["a.json", "b/c.CSV", "d.h5", "points.npz"]
    assert load(here / "a.json") == load(here / "d.h5")
    np.testing.assert_allclose(load(here / "a.json").camera.focal, 600)


def test_options_reach_the_pipeline(lift, here):
    np.save(here / "bare.npy", filmed(30, "body25").xy)
    (here / "camera.json").write_text(json.dumps(CAMERA.to_dict()))
    result = lift("run", "--keypoints", "bare.npy", "--fps", "25", "--image-size", "640", "480", "--skeleton", "body25",
                  "--camera", "camera.json", "--start", "0.2", "--end", "1", "--person", "largest", "-o", "o.npz")
    assert result.exit_code == 0, result.stderr
    take = load(here / "o.npz")
    assert len(take) == 20 and take.fps == FPS and take.image_size == SIZE
    assert take.people[0].keypoints.skeleton.name == "body25"
    np.testing.assert_allclose(take.camera.matrix, CAMERA.matrix)


def test_a_skeleton_file(lift, here):
    skeleton = filmed(1).skeleton.to_dict()
    (here / "mine.json").write_text(json.dumps({**skeleton, "name": "mine"}))
    np.save(here / "bare.npy", filmed(10).xy)
    result = lift("run", "--keypoints", "bare.npy", "--image-size", 640, 480, "--skeleton", "mine.json", "-o", "o.npz")
    assert result.exit_code == 0, result.stderr
    assert load(here / "o.npz").people[0].keypoints.skeleton.name == "mine"


def test_a_video(lift, here, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setitem(DETECTORS, "known", lambda: KnownDetector(filmed(6)))
    write_video(here / "walk.mp4", 6)
    result = lift("run", "--video", "walk.mp4", "--detector", "known")
    assert result.exit_code == 0 and result.stderr == ""
    assert files_in(here / "runs" / "walk") == ["overlay.mp4", "report.json", "result.npz"]
    monkeypatch.setitem(DETECTORS, "known", lambda: KnownDetector(filmed(6), stop_at=0))
    result = lift("run", "--video", "walk.mp4", "--detector", "known", "-o", "never.npz")
    assert (result.exit_code, result.stderr, result.stdout) == (130, "lift: interrupted\n", "")
    assert not (here / "never.npz").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_text_in_file_names_breaks_no_output(lift, here, name):
    points = write_keypoints(here / f"{name}.json", filmed(4))
    result = lift("run", "--keypoints", points, "-o", f"out/{name}.npz", "-o", f"out/{name}.csv", "--focal", 600)
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert all(line.isprintable() for line in lines) and len(lines) == 8  # file, person, 4 doubts, two written
    assert files_in(here / "out") == sorted([f"{name}.csv", f"{name}.npz"])
    assert load(here / "out" / f"{name}.npz").name == name
    said = json.loads(lift("run", "--keypoints", points, "-o", f"{name}.npz", "--json").stdout)
    assert said["outputs"] == [f"{name}.npz"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows file names that are no text")
def test_streams_and_names_that_are_no_utf8(here, tiny_weights):
    name = os.fsdecode(b"caf\xe9 \xe6\xbc\xa2")
    write_keypoints(here / f"{name}.npz", filmed(4))
    arguments = ["-m", "lift", "run", "--keypoints", f"{name}.npz", "--weights", str(tiny_weights), "-o", f"{name}.csv"]
    done = run_python(*arguments, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    assert done.stdout.startswith(rb"caf\udce9 \u6f22: 1 person") and (here / f"{name}.csv").exists()


# ---- what does not


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "neither --video nor --keypoints; try: lift run --video"),
        (["--video", "none.mp4"], "no video or folder of images at 'none.mp4'"),
        (["--keypoints", "none.json"], "no keypoint file at 'none.json'"),
        (["--keypoints", "points.npz", "-o", "o.bvhx"], "suffix '.bvhx', expected one of .npz, .json, .csv, .h5, .glb"),
        (["--keypoints", "points.npz", "-o", "points.npz"], "is the input itself"),
        (["--keypoints", "points.npz", "-o", "points.npz/o.npz"], "cannot write"),
        (["--keypoints", "points.npz", "--person", "7"], "no person 7 in 'points'; the ids are 1"),
        (["--keypoints", "points.npz", "--person", "me"], "'me', expected 'all', 'largest' or an id"),
        (["--keypoints", "points.npz", "--fps", "0"], "fps must be a positive number"),
        (["--keypoints", "points.npz", "--fps", "-25"], "fps must be a positive number"),
        (["--keypoints", "points.npz", "--fps", "nan"], "fps must be a positive number"),
        (["--keypoints", "points.npz", "--image-size", "0", "480"], "image_size must be"),
        (["--keypoints", "points.npz", "--image-size", "640", "-1"], "image_size must be"),
        (["--keypoints", "points.npz", "--height", "175"], "height of 175.0 m"),
        (["--keypoints", "points.npz", "--focal", "-1"], "focal length of -1.0 pixels"),
        (["--keypoints", "points.npz", "--focal", "9", "--camera", "c.json"], "both a camera and a focal length"),
        (["--keypoints", "points.npz", "--camera", "c.json"], "c.json is not a file"),
        (["--keypoints", "points.npz", "--camera", "points.npz"], "suffix '.npz'"),
        (["--keypoints", "points.npz", "--start", "9"], "no frame between 9"),
        (["--keypoints", "points.npz", "--skeleton", "octopus"], "octopus"),
        (["--keypoints", "points.npz", "--skeleton", "none.json"], "none.json"),
        (["--keypoints", "points.npz", "--weights", "none.safetensors"], "no weights at none.safetensors"),
        (["--keypoints", "points.npz", "--weights", "points.npz"], "no readable safetensors"),
    ],
)
def test_wrong_options(here, points, tiny_weights, arguments, problem):
    if "--weights" not in arguments:
        arguments = [*arguments, "--weights", str(tiny_weights)]
    assert problem in refused(CliRunner().invoke(cli.main, ["run", *arguments]))
    assert files_in(here) == ["points.npz"]


def object_array(value) -> bytes:
    buffer = io.BytesIO()
    array = np.empty((), dtype=object)
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": array.shape})
    return buffer.getvalue() + pickle.dumps(value)


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def keypoint_files(folder: Path) -> None:
    xy = filmed(10).xy.astype(np.float64)
    np.save(folder / "count.npy", xy[:, :14])
    np.save(folder / "nan.npy", np.full_like(xy, np.nan))
    np.save(folder / "infinite.npy", np.where(xy == xy[0, 0, 0], np.inf, xy))
    np.save(folder / "flat.npy", xy[0, :, 0])
    np.save(folder / "none.npy", xy[:0])
    np.savez(folder / "lengths.npz", keypoints=xy, scores=np.ones((9, 17)))
    np.savez(folder / "rate.npz", keypoints=xy, fps=-25.0)
    np.savez(folder / "size.npz", keypoints=xy, image_size=[0, 480])
    np.savez(folder / "unrelated.npz", weather=np.ones(3))
    with zipfile.ZipFile(folder / "hostile.npz", "w") as archive:
        archive.writestr("keypoints.npy", object_array(RunsCode()))
    whole = write_keypoints(folder / "whole.npz", filmed(10)).read_bytes()
    (folder / "whole.npz").unlink()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.json").write_text('{"keypoints": [[[1, 2]')
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "empty.json").write_bytes(b"")
    (folder / "noise.bin").write_bytes(np.random.default_rng(0).bytes(500))
    (folder / "folder").mkdir()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("count.npy", "14"), ("nan.npy", "no person"), ("infinite.npy", ""), ("flat.npy", ""), ("none.npy", ""),
        ("lengths.npz", "9"), ("rate.npz", "fps"), ("size.npz", "image_size"), ("unrelated.npz", "'weather'"),
        ("hostile.npz", "mkdir"), ("cut.npz", "cut.npz"), ("cut.json", "cut short"), ("deep.json", "nested"),
        ("empty.json", "empty"), ("noise.bin", ""), ("folder", "no JSON files"),
    ],
)  # fmt: skip
def test_wrong_keypoint_files(lift, here, name, problem):
    keypoint_files(here)
    before = files_in(here)
    assert problem in refused(lift("run", "--keypoints", name, "-o", "o.npz"))
    assert files_in(here) == before and not (here / "executed").exists()


def test_wrong_videos(lift, here):
    pytest.importorskip("av")
    whole = write_video(here / "whole.mp4", 30).read_bytes()
    (here / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (here / "empty.mp4").write_bytes(b"")
    (here / "text.mp4").write_text("I am not a video")
    (here / "no images").mkdir()
    before = files_in(here)
    problems = {"truncated.mp4": "cut off", "empty.mp4": "is empty", "text.mp4": "not a video", "no images": "images"}
    for name, problem in problems.items():
        assert problem in refused(lift("run", "--video", name, "-o", "o.npz", "-o", "o.mp4"))
    problems = {
        "--fps 25": "its own rate", "--start 5": "lasts only", "--end -1": "end is", "--start nan": "start is nan",
        "--detector eyes -o o.npz": "one of", "-o whole.mp4": "is the input", "--skeleton coco17": "keypoint files",
    }  # fmt: skip
    for options, problem in problems.items():
        assert problem in refused(lift("run", "--video", "whole.mp4", *options.split()))
    assert files_in(here) == before


def test_nobody_in_a_grey_video(lift, here):
    """The real detector, on a video of one frame and a few."""
    pytest.importorskip("av")
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("mediapipe")
    write_video(here / "grey.mp4", 3, size=(160, 120))
    sentence = refused(lift("run", "--video", "grey.mp4", "-o", "o.npz"))
    assert "no person found in the 3 frames of 'grey.mp4'" in sentence
    assert files_in(here) == ["grey.mp4"]


@pytest.mark.parametrize("name", HOSTILE)
def test_text_in_file_names_breaks_no_sentence(lift, here, name):
    for option in ("--video", "--keypoints"):
        refused(lift("run", option, f"{name}.mp4"))
    (here / name).write_text(name)
    refused(lift("run", "--keypoints", name))
    points = write_keypoints(here / "points.npz", filmed(2))
    refused(lift("run", "--keypoints", points, "-o", f"{name}.{name}"))
    refused(lift("run", "--keypoints", points, "-o", f"points.npz/{name}.npz"))
    assert files_in(here) == sorted([name, "points.npz"])


def test_a_missing_package_is_a_sentence(lift, points, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    sentence = refused(lift("run", "--keypoints", points, "-o", "o.mp4"))
    assert "pip install" in sentence


def test_memory_and_own_bugs(lift, points, monkeypatch):
    def fail(error):
        def run_video(**_):
            raise error

        monkeypatch.setattr(pipeline, "run_video", run_video)
        return lift("run", "--keypoints", points)

    assert refused(fail(MemoryError())) == "lift: not enough memory for this input"
    assert refused(fail(ValueError("two\nlines  of text"))) == "lift: two lines of text"
    assert refused(fail(OSError())) == "lift: OSError"
    assert isinstance(fail(ZeroDivisionError("ours")).exception, ZeroDivisionError)  # a traceback, to be reported


def test_errors_of_a_real_process(here):
    done = run_python("-m", "lift", "run", "--video", "no\nsuch.mp4")
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.decode() == "lift: no video or folder of images at 'no such.mp4': check the path\n"
    assert files_in(here) == []


# ---- doctor


@pytest.fixture
def known_detectors(monkeypatch):
    def missing():
        raise ImportError("pip install something")

    for name in list(DETECTORS):
        monkeypatch.delitem(DETECTORS, name)
    monkeypatch.setitem(DETECTORS, "known", KnownDetector)
    monkeypatch.setitem(DETECTORS, "absent", missing)


def test_doctor_tells_what_works(lift, known_detectors):
    said = json.loads(lift("doctor", "--json").stdout)
    assert {"name": "known", "usable": True, "why": ""} in said["detectors"]
    assert {"name": "absent", "usable": False, "why": "pip install something"} in said["detectors"]
    assert {package["name"]: package["version"] for package in said["packages"]}["torch"]
    shown = lift("doctor")
    assert shown.exit_code == 0 and "detector absent       pip install something" in shown.stdout


def test_doctor_survives_what_is_broken(lift, known_detectors, here, monkeypatch):
    (here / "weights").mkdir()
    (here / "weights" / "broken.safetensors").write_bytes(b"broken")
    monkeypatch.setattr(doctor, "__file__", str(here / "doctor.py"))
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(doctor, "PACKAGES", (("nothing", "no_such_module", "tests", "pip install nothing"),))
    said = json.loads(lift("doctor", "--json").stdout)
    (weights,) = said["weights"]
    assert weights["file"] == "broken.safetensors" and not weights["usable"] and "safetensors" in weights["why"]
    shown = lift("doctor").stdout
    assert "nothing         missing: pip install nothing" in shown and "no readable safetensors" in shown


def test_a_progress_bar_gives_all_and_stays_silent_where_nobody_looks(capsys):
    assert list(cli.progress_bar(range(5), 5, "detecting")) == list(range(5))
    assert capsys.readouterr() == ("", "")


def test_a_file_without_an_option(lift, here):
    assert "try: lift run --video 'clip.mp4'" in refused(lift("run", "clip.mp4"))
