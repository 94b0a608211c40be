"""`lift fit` and `lift run --mesh`: what they print and write, and one sentence for what is wrong; the fit is faked."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from filmed_walker import KnownDetector, filmed, write_video
from fitted_walker import QuickFit, walking_take

import lift as front_door
from lifting import cli
from lifting.body import fit as body_fit
from lifting.detectors import DETECTORS
from lifting.detectors.files import write_keypoints
from lifting.export import load

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def fit(monkeypatch):
    """The fake, in place."""
    fake = QuickFit()
    monkeypatch.setattr(body_fit, "fit_body", fake)
    return fake


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a result in its run's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "walk").mkdir(parents=True)
    front_door.save(walking_take(6, people=2), tmp_path / "runs" / "walk" / "result.npz")
    return tmp_path


def lift(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refused(result: Result) -> str:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("lift: ") and "Traceback" not in line
    return line


def test_help_is_light_and_quick():
    code = (
        "import sys\nfrom lifting.cli import main\n"
        "try: main(['fit', '--help'], prog_name='lift')\n"
        "finally: print('LOADED', *sorted({n.split('.')[0] for n in sys.modules}))"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert time.perf_counter() - began < 5  # a fraction of a second, but a test machine may be busy
    shown, loaded = done.stdout.split("LOADED")
    assert done.stderr == "" and not set(loaded.split()) & {"torch", "numpy", "scipy", "av", "tqdm", "h5py", "PIL"}
    for option in ("output", "body", "height", "mode", "prior", "no-contacts", "video", "json"):
        assert f"--{option}" in shown


def test_defaults_and_summary(here, fit):
    result = lift("fit", "runs/walk/result.npz")
    assert result.exit_code == 0 and result.stderr == "", result.stderr
    assert files_in(here) == [f"runs/walk/{name}" for name in ("body.glb", "body.npz", "fit_report.json", "result.npz")]
    body = ("stature 1.75 m, residual 21 mm, reprojection error 3.25 px, feet on the floor for 50% of the time")
    assert result.stdout.splitlines() == [
        "walk: 2 people, 6 frames at 25 frames/s, body lite, mode whole",
        f"  body of person 1: {body}",
        f"  body of person 2: {body}",
        "  assumed: the floor is level",
        "  warning: body of person 1: the turn of neck is hardly observed",
        "  warning: body of person 2: the turn of neck is hardly observed",
        *(f"wrote {Path('runs/walk', name)}" for name in ("body.npz", "body.glb", "fit_report.json")),
    ]
    report = json.loads((here / "runs/walk/fit_report.json").read_text())
    assert [person["id"] for person in report["body"]["people"]] == [1, 2]
    assert load(here / "runs/walk/body.npz").people[1].body is not None


def test_options_reach_the_fit(here, fit):
    result = lift("fit", "runs/walk/result.npz", "--mode", "smplify", "--height", 1.7, "--no-contacts", "--prior",
                  "gmm.pkl", "-o", "a.json", "-o", "sub/b.BVH", "--output", "c.amass.npz", "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    options = {**fit.options, "progress": None}
    assert options == {"body": "lite", "mode": "smplify", "height": 1.7, "contacts": False, "prior": "gmm.pkl",
                       "progress": None}  # fmt: skip
    said = json.loads(result.stdout)
    assert said["outputs"] == ["a.json", "sub/b.BVH", "c.amass.npz"] and said["body"]["name"] == "lite"
    assert {"a.json", "sub/b.BVH", "c.amass.npz"} < set(files_in(here)) and not (here / "runs/walk/body.npz").exists()


def test_no_contacts_and_no_pixels_are_said(here, fit, monkeypatch):
    monkeypatch.setitem(sys.modules["fitted_walker"].REPORT, "contacts", None)
    monkeypatch.setitem(sys.modules["fitted_walker"].REPORT, "mean_reprojection_px", None)
    shown = lift("fit", "runs/walk/result.npz").stdout
    assert "residual 21 mm, reprojection error unknown, no contacts" in shown


def test_fit_draws_over_the_video(here, fit):
    pytest.importorskip("av")
    write_video(here / "walk.mp4", 6)
    result = lift("fit", "runs/walk/result.npz", "--video", "walk.mp4", "-o", "over.mp4")
    assert result.exit_code == 0 and result.stderr == "", result.stderr
    assert (here / "over.mp4").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.npz"], "none.npz"),
        (["runs"], "suffix"),
        (["points.npz"], "not a result"),
        (["bare.npz"], "nobody in 'walk' has a 3D motion to fit a body to; lift the keypoints with lift run"),
        (["RESULT", "-o", "RESULT"], "is the input itself"),
        (["RESULT", "-o", "walk.xyz"], "suffix '.xyz', expected one of .npz, .json, .csv, .h5, .glb"),
        (["RESULT", "-o", "points.npz/o.npz"], "cannot write"),
        (["RESULT", "--body", "octopus"], "octopus"),
        (["RESULT", "--body", "none.pkl"], "none.pkl"),
        (["RESULT", "--body", "points.npz"], "points.npz"),
        (["RESULT", "--height", "175"], "height of 175.0 m"),
        (["RESULT", "--height", "nan"], "height of nan m"),
        (["RESULT", "--video", "none.mp4", "-o", "o.mp4"], "no video or folder of images at 'none.mp4'"),
        (["RESULT", "--video", "points.npz", "-o", "o.mp4"], "points.npz"),
        (["RESULT", "-o", "o.obj"], "which of the 6 frames"),
    ],
)
def test_wrong_use_is_one_sentence(here, fit, arguments, problem):
    pytest.importorskip("av")
    write_keypoints(here / "points.npz", filmed(4))
    front_door.save(walking_take(4, lifted=False), here / "bare.npz")
    before = {name: (here / name).read_bytes() for name in files_in(here)}
    arguments = ["runs/walk/result.npz" if argument == "RESULT" else argument for argument in arguments]
    assert problem in refused(lift("fit", *arguments))
    assert {name: (here / name).read_bytes() for name in files_in(here)} == before


def test_what_click_refuses(here):
    for arguments in ([], ["a", "b"], ["a", "--mode", "guess"], ["a", "--height", "tall"]):
        result = lift("fit", *arguments)
        assert result.exit_code == 2 and "Error: " in result.stderr


def test_interrupt(here, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(body_fit, "fit_body", interrupted)
    result = lift("fit", "runs/walk/result.npz")
    assert (result.exit_code, result.stderr, result.stdout) == (130, "lift: interrupted\n", "")
    assert files_in(here) == ["runs/walk/result.npz"]


# ---- lift run --mesh


def test_run_with_mesh(here, fit, tiny_weights, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setitem(DETECTORS, "known", lambda: KnownDetector(filmed(6)))
    write_video(here / "clip.mp4", 6)
    run = ("run", "--video", "clip.mp4", "--detector", "known", "--weights", tiny_weights)
    result = lift(*run, "--mesh", "--height", 1.8)
    assert result.exit_code == 0 and result.stderr == "", result.stderr
    written = ["body.glb", "overlay.mp4", "report.json", "result.npz"]
    assert files_in(here / "runs" / "clip") == written and fit.options["height"] == 1.8
    lines = result.stdout.splitlines()
    assert lines[2].startswith("    not to be trusted: ")  # untrained weights
    assert sum(line.startswith("  body of person 1: stature 1.75 m") for line in lines) == 1
    assert "  warning: body of person 1: " in result.stdout
    assert load(here / "runs/clip/result.npz").people[0].body is not None
    assert "add --mesh" in refused(lift(*run, "-o", "new/o.1.obj"))
    assert "add --mesh" in refused(lift(*run, "--body", "lite"))
    assert "octopus" in refused(lift(*run, "--mesh", "--body", "octopus", "-o", "new/o.glb"))
    assert not (here / "new").exists()


def test_a_fitted_result_fits_again_beside_it(here, fit):
    assert lift("fit", "runs/walk/result.npz").exit_code == 0
    result = lift("fit", "runs/walk/body.npz")
    assert result.exit_code == 0 and "wrote " + str(Path("runs/walk-body/body.npz")) in result.stdout
    np.testing.assert_array_equal(load(here / "runs/walk-body/body.npz").times, walking_take(6).times)


def test_the_height_of_the_lift_is_kept(here, fit):
    take = walking_take(6)
    front_door.save(take.replace(metadata={**take.metadata, "height_m": 1.85}), "tall.npz")
    assert lift("fit", "tall.npz", "-o", "body.npz").exit_code == 0
    assert fit.options["height"] == 1.85
    assert lift("fit", "tall.npz", "-o", "body.npz", "--height", "1.7").exit_code == 0
    assert fit.options["height"] == 1.7


def test_doctor_shows_the_embedded_body(monkeypatch):
    from lifting.body import BODIES
    from lifting.doctor import describe, examine

    for name in list(DETECTORS):
        monkeypatch.delitem(DETECTORS, name)
    monkeypatch.setitem(BODIES, "broken", Path("no/such/body.npz"))
    findings = examine()
    lite, children, broken = findings["bodies"]
    assert children["name"] == "children" and children["usable"]
    assert lite["name"] == "lite" and lite["usable"] and lite["joints"] == 22 and lite["vertices"] > 10_000
    assert broken["name"] == "broken" and not broken["usable"] and "body.npz" in broken["why"]
    lines = describe(findings).splitlines()
    assert f"  body lite             {lite['vertices']} vertices, 22 joints" in lines
    assert any(line.startswith("  body broken           ") for line in lines)


def test_long_lists_of_joints_are_counted(here, fit, monkeypatch):
    names = ["left_wrist", "right_wrist", "neck", "head"]
    report = sys.modules["fitted_walker"].REPORT
    monkeypatch.setitem(report, "weak_twist", names)
    monkeypatch.setitem(report, "warnings", [f"the turn of {', '.join(names)} about itself is hardly observed"])
    shown = lift("fit", "runs/walk/result.npz").stdout
    assert "  warning: body of person 1: the turn of 4 joints about itself is hardly observed" in shown.splitlines()
    report = json.loads((here / "runs/walk/fit_report.json").read_text())["body"]["people"][0]
    assert report["weak_twist"] == names and ", ".join(names) in report["warnings"][0]
