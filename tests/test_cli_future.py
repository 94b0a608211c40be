"""`lift future` and `lift run --future`: what they print and write, and one sentence for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from filmed_walker import CAMERA, FPS, SIZE, filmed, walk_in_camera, write_tiny_weights
from fitted_walker import QuickFit, walking_take
from viewed_take import Page
from walking_figure import H36M

import lift as front_door
from lifting import cli
from lifting.body import fit as body_fit
from lifting.detectors.files import write_keypoints
from lifting.export import load
from lifting.forecasters import FORECASTERS, Forecast
from lifting.future import DEFAULT_PREDICTOR
from lifting.motion import Motion, Person, Take
from lifting.world import place_in_world

ROOT = Path(__file__).resolve().parent.parent


class Straying:
    """Constant velocity whose samples stray to one side."""

    name, context, longest = "straying", 2, 25

    def __call__(self, seen, frames):
        return FORECASTERS["constant_velocity"]()(seen, frames)

    def samples(self, seen, frames, count, rng):
        one = self(seen, frames)
        stray = rng.normal(size=(len(seen), count, 1, 1, 3)) * 0.01 * np.arange(1, frames + 1)[:, None, None]
        joints = one.joints[:, None] + stray
        return Forecast(joints, np.repeat(one.root[:, None], count, 1), one.sigma)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a result in its run's folder, and a default predictor that needs no weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FORECASTERS, DEFAULT_PREDICTOR, Straying)
    (tmp_path / "runs" / "walk").mkdir(parents=True)
    joints = walk_in_camera(75)
    motion = Motion(joints - joints[:, :1], joints[:, 0], np.full(joints.shape[:2], 0.04), H36M, FPS)
    people = tuple(Person(k, filmed(75), motion) for k in (1, 2))
    take = place_in_world(Take("walk", SIZE, FPS, np.arange(75) / FPS, CAMERA, people, (), {"detector": "test"}))
    front_door.save(take, tmp_path / "runs" / "walk" / "result.npz")
    return tmp_path


@pytest.fixture
def quick_fit(monkeypatch):
    fake = QuickFit()
    monkeypatch.setattr(body_fit, "fit_body", fake)
    return fake


def lift(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_help_is_light():
    code = (
        "import sys\nfrom lifting.cli import main\n"
        "try: main(['future', '--help'], prog_name='lift')\n"
        "finally: print('LOADED', *sorted({n.split('.')[0] for n in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    shown, loaded = done.stdout.split("LOADED")
    assert done.stderr == "" and not set(loaded.split()) & {"torch", "numpy", "scipy", "av", "tqdm", "h5py", "PIL"}
    for name in (*(name for name in FORECASTERS), "--from-frame", "--statue", "--samples"):
        assert name in shown


def test_the_future_lies_beside_the_result(here):
    found = lift("future", "runs/walk/result.npz")
    assert found.exit_code == 0 and found.stderr == "", found.output
    assert files_in(here) == [f"runs/walk/{name}" for name in ("future.html", "future.npz", "result.npz")]
    take = load("runs/walk/future.npz")
    path = take.people[0].future.trajectory
    way, doubt = np.linalg.norm(path[-1] - path[0]), 1000 * np.median(take.people[0].future.sigma[-1, 1:])
    assert found.stdout.splitlines() == [
        "walk: 25 frames, 1 s, after frame 74 (2.96 s), predicted by straying",
        *(f"  person {number}: goes {way:.2f} m, in the end known within {doubt:.0f} mm" for number in (1, 2)),
        *(f"wrote {Path('runs/walk', name)}" for name in ("future.npz", "future.html")),
    ]
    assert take.metadata["future"]["predictor"] == "straying" and len(take.people[1].future) == 25
    page = Page(Path("runs/walk/future.html").read_text("utf-8"))
    layer = page.scene["layers"][1]
    assert layer["kind"] == "future" and [person["id"] for person in layer["people"]] == [1, 2]
    np.testing.assert_allclose(page.points(layer["people"][0]), take.people[0].future.absolute, atol=1e-3)
    assert "Predicted future: 1 s by straying, seen by no camera." in page.scene["caption"]


def test_json_and_the_truth_that_followed(here):
    found = lift("future", "runs/walk/result.npz", "--from-frame", 49, "--predictor", "constant", "--statue", "--json",
                 "-o", "f.json")  # fmt: skip
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert said["last_frame"] == 49 and said["time_s"] == 1.96 and said["outputs"] == ["f.json"]
    whole, early = load("runs/walk/result.npz"), load("f.json")
    assert len(early) == 50
    world = whole.people[0].world
    errors = said["people"][0]["errors"]
    assert errors["horizons_ms"] == [80, 160, 320, 400, 560, 720, 880, 1000]
    for name, place, parts in (("mpjpe_mm", 3, (world.joints[59], early.people[0].future.joints[9])),
                               ("constant_mm", 7, (world.joints[74], world.joints[49]))):
        expected = 1000 * np.linalg.norm(parts[0] - parts[1], axis=-1).mean()
        assert errors[name][place] == pytest.approx(expected, abs=0.06)
    root = 1000 * np.linalg.norm(world.trajectory[51] - world.trajectory[49])
    assert errors["root_mm"][0] == pytest.approx(root, abs=0.06)
    assert 0 <= said["people"][0]["statue"]["frame"] < 75
    assert "lifted together with later ones" in said["warnings"][-1]


def test_samples_lie_beside_and_the_best_is_compared(here):
    found = lift("future", "runs/walk/result.npz", "--from-frame", 49, "--samples", 2, "-o", "f.npz", "-o", "f.bvh")
    assert found.exit_code == 0, found.output
    names = ["f.bvh", "f.npz", *(f"f.sample{k}.{suffix}" for suffix in ("bvh", "npz") for k in (1, 2))]
    written = [name for name in files_in(here) if not name.startswith("runs")]
    assert [name for name in written if ".person2" not in name] == sorted(names)
    assert len(written) == 9  # bvh holds one person
    futures = [load(name).people[0].future for name in ("f.npz", "f.sample1.npz", "f.sample2.npz")]
    assert futures[0] != futures[1] != futures[2]
    (row,) = [line for line in found.stdout.splitlines() if "best sample, mm" in line][:1]
    truth = load("runs/walk/result.npz").people[0].world.joints[50:75]
    errors = [np.linalg.norm(future.joints - truth, axis=-1).mean(-1) for future in futures[1:]]
    best = min(errors, key=np.mean)
    assert [int(word) for word in row.split()[3:]] == pytest.approx(1000 * best[[1, 3, 7, 9, 13, 17, 21, 24]], abs=0.6)


def test_a_future_can_be_exported_later(here):
    assert lift("future", "runs/walk/result.npz", "-o", "f.npz", "--seconds", 0.4).exit_code == 0
    found = lift("export", "f.npz", "-o", "walk.bvh", "-o", "walk.trc")
    assert found.exit_code == 0, found.output
    assert "Frames: 85" in Path("walk.bvh").read_text()
    assert Path("walk.trc").read_text().splitlines()[2].split()[2] == "85"


def test_meshes_of_past_and_future(here, quick_fit):
    found = lift("future", "runs/walk/result.npz", "--mesh", "--seconds", 0.2)
    assert found.exit_code == 0, found.output
    person = load("runs/walk/future.npz").people[0]
    assert len(person.body) == 75 and len(person.future_body) == 5
    assert "runs/walk/future.glb" in files_in(here)
    layers = Page(Path("runs/walk/future.html").read_text("utf-8")).scene["layers"]
    frames = [layer["people"][0]["mesh"]["path"]["shape"][0] for layer in layers]
    assert frames == [75, 5] and [layer["kind"] for layer in layers] == ["result", "future"]


def test_the_overlay_goes_on(here):
    av = pytest.importorskip("av")
    assert lift("future", "runs/walk/result.npz", "--seconds", 0.1, "--from-frame", 4, "-o", "f.mp4").exit_code == 0
    with av.open("f.mp4") as video:
        assert sum(1 for _ in video.decode(video=0)) == 7


def test_lift_run_predicts(here):
    write_keypoints(here / "points.npz", filmed(40))
    weights = write_tiny_weights(here / "tiny.safetensors")
    found = lift("run", "--keypoints", "points.npz", "--weights", weights, "--future", 0.4, "-o", "out.npz")
    assert found.exit_code == 0, found.output
    assert len(load("out.npz").people[0].future) == 10
    assert "  future: 10 frames, 0.4 s, by " in found.stdout
    for seconds in (0, 11):
        found = lift("run", "--keypoints", "points.npz", "--weights", weights, "--future", seconds, "-o", "no/out.npz")
        assert found.exit_code == 2 and f"got a future of {float(seconds)} s" in found.stderr
        assert not Path("no").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["none.npz"], "none.npz"),
        (["bare.npz"], "nobody in 'walk' has a 3D motion to continue"),
        (["RESULT", "--seconds", "0"], "got a future of 0.0 s, expected more than 0 and at most 10"),
        (["RESULT", "--seconds", "nan"], "got a future of nan s"),
        (["RESULT", "--seconds", "60"], "got a future of 60.0 s"),
        (["RESULT", "--predictor", "oracle"], "got the predictor 'oracle', expected one of constant, "),
        (["RESULT", "--predictor", "none.safetensors"], "none.safetensors"),
        (["RESULT", "--predictor", "constant", "--samples", "2"], "knows one future only, got 2 samples"),
        (["RESULT", "--from-frame", "75"], "got the frame 75, expected 0 to 74"),
        (["RESULT", "--from-frame", "-1"], "got the frame -1, expected 0 to 74"),
        (["RESULT", "-o", "RESULT"], "is the input itself"),
        (["RESULT", "--past"], "say which with --from-frame K"),
        (["RESULT", "--past", "--from-frame", "5", "--samples", "2"], "got --samples, but --past"),
        (["RESULT", "-o", "new/walk.xyz"], "suffix '.xyz'"),
        (["RESULT", "-o", "walk.obj"], "none is fitted; add --mesh"),
        (["short.npz", "--statue", "-o", "new/f.npz"], "to find its most telling frame"),
    ],
)
def test_wrong_use_is_one_sentence_and_writes_nothing(here, arguments, problem):
    front_door.save(walking_take(4, lifted=False), here / "bare.npz")
    front_door.save(walking_take(8), here / "short.npz")
    before = sorted(here.rglob("*"))
    found = lift("future", *("runs/walk/result.npz" if word == "RESULT" else word for word in arguments))
    assert found.exit_code == 2 and found.stdout == "", found.output
    (line,) = found.stderr.splitlines()
    assert line.startswith("lift: ") and problem in line
    assert sorted(here.rglob("*")) == before
