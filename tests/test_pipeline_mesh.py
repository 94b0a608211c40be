"""Bodies in the pipeline: fitted after lifting or to an earlier result, written in every format; the fit is faked."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filmed_walker import KnownDetector, filmed, write_video
from fitted_walker import QuickFit, walking_take
from small_body import small_body

import lift
from lifting import outputs, pipeline
from lifting.body import fit as body_fit
from lifting.body import load_body, save_body
from lifting.detectors.files import write_keypoints
from lifting.export import load
from lifting.pipeline import fit_result, run_video
from lifting.view.overlay import plan_layout

pytest.importorskip("av")
BODY_FILES = ["walk.bvh", "walk.glb", "walk.3.obj", "walk.3.ply", "walk.amass.npz"]


@pytest.fixture
def fit(monkeypatch):
    """The fake, in place."""
    fake = QuickFit()
    monkeypatch.setattr(body_fit, "fit_body", fake)
    return fake


@pytest.fixture
def points(tmp_path):
    return write_keypoints(tmp_path / "points.npz", filmed(20))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def frames_of(path: Path) -> list[np.ndarray]:
    from lifting.video import open_video

    with open_video(path) as reader:
        return [frame.rgb for frame in reader]


# ---- run_video


def test_run_with_mesh_writes_bodies_in_every_format(tmp_path, tiny_lifter, fit):
    video = write_video(tmp_path / "walk.mp4", 5)
    wanted = [tmp_path / "out" / name for name in ("walk.npz", "walk.json", "walk.h5", "over.mp4", *BODY_FILES)]
    take = run_video(video, detector=KnownDetector(filmed(5)), output=wanted, lifter=tiny_lifter, mesh=True, height=1.8,
                     report=tmp_path / "out" / "report.json")  # fmt: skip
    assert names(tmp_path / "out") == sorted(["report.json", *(path.name for path in wanted)])
    assert fit.options["body"] == "lite" and fit.options["height"] == 1.8
    for suffix in ("npz", "json", "h5"):
        assert load(tmp_path / "out" / f"walk.{suffix}").people[0].body == take.people[0].body
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["body"]["people"][0]["stature_m"] == 1.754 and report["people"][0]["id"] == take.people[0].id


def test_overlay_of_a_run_with_mesh_shows_it(tmp_path, tiny_lifter, fit):
    video = write_video(tmp_path / "walk.mp4", 4)
    options = dict(detector=KnownDetector(filmed(4)), lifter=tiny_lifter)
    run_video(video, **options, output=tmp_path / "bones.mp4")
    run_video(video, **options, output=tmp_path / "mesh.mp4", mesh=True)
    bones, mesh = frames_of(tmp_path / "bones.mp4"), frames_of(tmp_path / "mesh.mp4")
    assert len(bones) == len(mesh) == 4
    assert (np.abs(bones[2].astype(int) - mesh[2]).sum(-1) > 60).mean() > 0.01


def test_the_overlay_takes_a_coarse_mesh_and_files_the_full_one(tmp_path, fit, monkeypatch):
    levels = []
    whole = body_fit.take_meshes

    def counted(take, body, level):
        meshes = whole(take, body, level)
        levels.append(meshes[0].num_vertices)
        return meshes

    monkeypatch.setattr(body_fit, "take_meshes", counted)
    fit_result(walking_take(3), output=[tmp_path / "a.glb", tmp_path / "a.bvh", tmp_path / "a.mp4"])
    assert levels[0] == load_body("lite").num_vertices and 1000 <= levels[1] < 2000 and len(levels) == 2


def test_run_without_mesh_imports_no_body(points, tiny_lifter, tmp_path, monkeypatch):
    def loaded():
        return [name for name in sys.modules if name.startswith("lifting.body")]

    for name in loaded():
        monkeypatch.delitem(sys.modules, name)
    run_video(keypoints=points, output=[tmp_path / "o.npz", tmp_path / "o.mp4"], lifter=tiny_lifter)
    assert loaded() == [] and names(tmp_path) == ["o.mp4", "o.npz", "points.npz"]


def test_wrong_wishes_for_bodies_show_before_anything_is_done(tmp_path, points, fit):
    video = write_video(tmp_path / "walk.mp4", 2, size=(64, 48))
    before = names(tmp_path)
    never = KnownDetector(filmed(2), stop_at=0)  # detecting would raise KeyboardInterrupt
    for options, problem in (
        (dict(output=tmp_path / "new" / "o.1.obj"), "'o.1.obj' would hold a body and none is fitted; add --mesh"),
        (dict(body="lite"), "got a body but no mesh"),
        (dict(mesh=True, body="octopus"), "octopus"),
        (dict(mesh=True, body=tmp_path / "none.pkl"), "none.pkl"),
        (dict(mesh=True, output=tmp_path / "o.fbx"), r"expected one of \.npz, .*\.glb, .*\.amass\.npz, \.mp4"),
        (dict(mesh=True, output=tmp_path / "walk.mp4"), "is the input itself"),
        (dict(mesh=True, output=tmp_path / "o.obj"), "'o.obj' does not say which of the 2 frames"),
        (dict(mesh=True, output=[tmp_path / "o.glb", tmp_path / "." / "o.glb"]), "two outputs .*o.glb"),
        (dict(output=tmp_path / "o.json", report=tmp_path / "o.json"), "two outputs"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=problem):
            run_video(video, detector=never, **options)
    assert names(tmp_path) == before and not fit.options


def test_names_of_frames_and_people_are_checked_before_lifting(tmp_path, points, fit, monkeypatch):
    monkeypatch.setattr(pipeline, "lift_people", lambda *_: pytest.fail("lifted"))
    for output, problem in (
        (tmp_path / "o.20.obj", "asks for frame 20, but there are 20"),
        (tmp_path / "o.ply", "which of the 20 frames"),
    ):
        with pytest.raises(ValueError, match=problem):
            run_video(keypoints=points, output=output, mesh=True)
    two = walking_take(4, people=2)
    monkeypatch.setattr(body_fit, "fit_body", lambda *_, **__: pytest.fail("fitted"))
    for output, problem in (
        ([tmp_path / "o.bvh", tmp_path / "o.person2.bvh"], "two outputs would be written to .*o.person2.bvh"),
        ([tmp_path / "o.4.obj"], "asks for frame 4, but there are 4"),
    ):
        with pytest.raises(ValueError, match=problem):
            fit_result(two, output=output)
    (tmp_path / "o.person2.amass.npz").mkdir()
    with pytest.raises(OSError, match="o.person2.amass.npz"):
        fit_result(two, output=tmp_path / "o.amass.npz")
    assert names(tmp_path) == ["points.npz"]


def test_a_frame_without_anybody_is_refused_before_the_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(body_fit, "fit_body", lambda *_, **__: pytest.fail("fitted"))
    take = walking_take(4)
    (person,) = take.people
    late = person.motion.replace(joints=np.where(np.arange(4)[:, None, None] < 2, np.nan, person.motion.joints))
    take = take.replace(people=[replace(person, motion=late)])
    with pytest.raises(ValueError, match=r"'o\.1\.obj' asks for frame 1, in which nobody is seen"):
        fit_result(take, output=tmp_path / "o.1.obj")


def test_videos_need_pyav_and_say_so_before_the_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"writing 'o.mp4' needs PyAV: pip install"):
        outputs.plan_outputs([tmp_path / "o.mp4"])


def test_files_of_a_run_appear_together_or_not_at_all(tmp_path, fit, monkeypatch):
    kept = tmp_path / "o.npz"
    kept.write_bytes(b"old")
    wanted = [kept, tmp_path / "o.json", tmp_path / "o.glb", tmp_path / "o.bvh"]
    monkeypatch.setattr("lifting.export.bodies.write_bvh", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit_result(walking_take(4, people=2), output=wanted, report=tmp_path / "r.json")
    assert names(tmp_path) == ["o.npz"] and kept.read_bytes() == b"old"


# ---- upright


@pytest.fixture
def tilted(monkeypatch):
    """The fake's report knows a floor 1.1 m under a camera that looks down by 10 degrees; returns up."""
    up = np.array([0.0, -np.cos(np.radians(10)), -np.sin(np.radians(10))])
    ground = {"up": up.tolist(), "offset_m": -1.1, "sigma_degrees": 2.0, "source": "contacts"}
    monkeypatch.setitem(sys.modules["fitted_walker"].REPORT, "ground", ground)
    return up


def test_bodies_stand_on_the_floor_and_results_stay_in_camera_axes(tmp_path, fit, tilted):
    wanted = [tmp_path / name for name in ("o.npz", "o.glb", "o.2.obj", "o.amass.npz")]
    take = fit_result(walking_take(4), output=wanted)
    assert load(tmp_path / "o.npz") == take and take.people[0].body.frame == "camera"
    vertices = outputs.body_meshes(take)[0].vertices(2)
    lines = (tmp_path / "o.2.obj").read_text().splitlines()
    assert "upright against gravity, the floor at y = 0" in lines[0]
    written = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    np.testing.assert_allclose(written[:, 1], vertices @ tilted + 1.1, atol=1e-5)
    assert b"the floor at y = 0" in (tmp_path / "o.glb").read_bytes()
    arrays = np.load(tmp_path / "o.amass.npz")
    back = load(tmp_path / "o.amass.npz").people[0].body
    np.testing.assert_allclose(back.trajectory[:, 2], take.people[0].body.trajectory @ tilted + 1.1, atol=1e-5)
    assert not arrays["betas"].any()


def test_save_levels_what_it_makes_itself(tmp_path, fit, tilted):
    take = fit_result(walking_take(4))
    text = lift.save(take, tmp_path / "a.1.obj").read_text()
    as_filmed = lift.save(take, tmp_path / "b.1.obj", meshes=outputs.body_meshes(take)).read_text()
    assert "the floor at y = 0" in text.splitlines()[0] and "as the filming camera" in as_filmed.splitlines()[0]


def test_the_overlay_is_levelled_in_its_3d_view_only(tmp_path, fit, tilted, monkeypatch):
    levelled = fit_result(walking_take(4), output=tmp_path / "a.mp4")
    monkeypatch.setattr(outputs, "presented", lambda take: take)
    fit_result(walking_take(4), output=tmp_path / "b.mp4")
    a, b = (frames_of(tmp_path / name)[2].astype(int) for name in ("a.mp4", "b.mp4"))
    width = plan_layout(levelled.image_size, (1280, 720)).width
    apart = np.abs(a - b).sum(-1) > 60
    assert apart[:, width:].mean() > 0.01 and apart[:600, :width].mean() < 0.001


# ---- which body


def test_a_refit_keeps_the_body(tmp_path, fit):
    children = fit_result(walking_take(4), body="children", output=tmp_path / "c.npz")
    assert "file" not in children.metadata["body"]
    fit_result(tmp_path / "c.npz")
    assert fit.options["body"] == "children"
    fit_result(tmp_path / "c.npz", body="lite")
    assert fit.options["body"] == "lite"


def test_a_refit_finds_the_users_file_or_says_what_to_do(tmp_path, fit):
    file = tmp_path / "mine.npz"
    save_body(small_body(), file)
    take = fit_result(walking_take(4), body=file, output=tmp_path / "o.npz")
    assert take.metadata["body"]["file"] == str(file.resolve())
    fit_result(tmp_path / "o.npz")
    assert fit.options["body"] == "small"
    assert lift.save(load(tmp_path / "o.npz"), tmp_path / "o.glb").stat().st_size > 1000
    file.unlink()
    with pytest.raises(ValueError, match="'walk' was fitted with the body 'small', from a file that is not there any "
                                         "more; give the file with --body FILE, or another body"):
        fit_result(tmp_path / "o.npz")


# ---- short clips


@pytest.mark.parametrize(("frames", "residual", "sigma", "warned"), [
    (1, 90.0, 0.05, "1 frame is too few to tell which way this person faces and how tall"),
    (3, 20.0, 0.12, "3 frames are too few"),
    (3, 20.0, 0.05, None), (3, None, 0.05, None), (12, 90.0, 0.12, None),
])  # fmt: skip
def test_short_clips_that_fit_no_body_are_warned_of(fit, monkeypatch, frames, residual, sigma, warned):
    monkeypatch.setitem(sys.modules["fitted_walker"].REPORT, "mean_residual_mm", residual)
    take = walking_take(frames)
    (person,) = take.people
    motion = person.motion.replace(sigma=np.full(person.motion.joints.shape[:2], sigma))
    fitted = fit_result(take.replace(people=[replace(person, motion=motion)]))
    said = [text for text in fitted.metadata["body"]["people"][0]["warnings"] if "too few" in text]
    assert [text.startswith(warned) for text in said] == ([True] if warned else [])


def test_default_outputs_with_mesh():
    assert [path.name for path in pipeline.default_outputs("walk.mp4", None, mesh=True)] == [
        "result.npz", "overlay.mp4", "body.glb"]  # fmt: skip
    assert [path.name for path in pipeline.default_outputs(None, "k.json", mesh=True)] == ["result.npz", "body.glb"]


# ---- fit_result


def test_a_result_gets_bodies(tmp_path, fit):
    take = walking_take(8, people=2)
    for name in ("walk.npz", "walk.json", "walk.h5"):
        lift.save(take, tmp_path / name)
        fitted = fit_result(tmp_path / name, output=tmp_path / "out" / name, mode="whole", contacts=False, height=1.7)
        assert fit.options == {"body": "lite", "height": 1.7, "mode": "whole", "prior": None, "contacts": False,
                               "progress": None}  # fmt: skip
        assert load(tmp_path / "out" / name) == fitted
        assert all(person.body is not None for person in fitted.people)
        assert fitted.replace(people=take.people, metadata=take.metadata) == take
        assert load(tmp_path / name) == take  # the input is as it was


def test_a_take_gets_bodies_without_any_file(fit):
    assert fit_result(walking_take(4)).people[0].body.body == "lite"


def test_the_input_is_never_overwritten(tmp_path, fit):
    path = lift.save(walking_take(4), tmp_path / "walk.npz")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is the input itself"):
        fit_result(path, output=[tmp_path / "o.glb", tmp_path / "." / "walk.npz"])
    assert path.read_bytes() == before and names(tmp_path) == ["walk.npz"]


@pytest.mark.parametrize(
    ("source", "folder"),
    [("runs/clip/result.npz", "clip"), ("mine.json", "mine"), ("runs/clip/body.npz", "clip-body"), ("...npz", "clip")],
)
def test_default_places_of_a_fit(tmp_path, monkeypatch, source, folder):
    monkeypatch.chdir(tmp_path)
    expected = [Path("runs") / folder / name for name in ("body.npz", "body.glb")]
    assert pipeline.default_fit_outputs(source) == expected
    assert Path(source).resolve() not in [path.resolve() for path in expected]


def test_overlay_of_a_fit_with_and_without_its_video(tmp_path, fit):
    video = write_video(tmp_path / "walk.mp4", 8)
    late = walking_take(8).replace(times=np.arange(8) / 25 + 0.08)  # a result of --start 0.08
    fit_result(late, output=tmp_path / "over.mp4", video=video)
    fit_result(late, output=tmp_path / "dark.mp4")
    over, dark = frames_of(tmp_path / "over.mp4"), frames_of(tmp_path / "dark.mp4")
    assert len(over) == 6 and len(dark) == 8
    assert over[0][5, 5].max() != dark[0][5, 5].max()


def test_what_cannot_be_fitted_is_refused_in_a_sentence(tmp_path, fit):
    path = lift.save(walking_take(3, lifted=False), tmp_path / "points.npz")
    with pytest.raises(ValueError, match="nobody in 'walk' has a 3D motion"):
        fit_result(path, output=tmp_path / "o.npz")
    for source, options, problem in (
        (tmp_path / "none.npz", {}, "no file"),
        (walking_take(3), dict(height=175), "height"),
        (walking_take(3), dict(video=tmp_path / "none.mp4", output=tmp_path / "o.mp4"), "none.mp4"),
        (walking_take(3), dict(output=tmp_path / "o.fbx"), "suffix '.fbx'"),
        (walking_take(3), dict(body="octopus"), "octopus"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=problem):
            fit_result(source, **options)
    assert names(tmp_path) == ["points.npz"]


# ---- saving


def test_save_makes_the_meshes_itself(tmp_path, fit):
    take = fit_result(walking_take(4))
    for name in BODY_FILES:
        assert lift.save(take, tmp_path / name) == tmp_path / name
    assert names(tmp_path) == sorted(BODY_FILES)
    again = lift.save(take, tmp_path / "given.glb", meshes=outputs.body_meshes(take))
    assert len(again.read_bytes()) == pytest.approx(len((tmp_path / "walk.glb").read_bytes()), rel=0.01)


def test_save_of_a_take_without_bodies_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="lift fit|--mesh"):
        lift.save(walking_take(2), tmp_path / "o.1.obj")
    assert outputs.body_meshes(walking_take(2)) == [] and names(tmp_path) == []


def test_the_real_fit_goes_through(tmp_path):
    """Not faked: the body's points lie where the walker was seen, and the report has what the summary prints."""
    from lifting.summary import fit_summary

    fitted = fit_result(walking_take(12), output=[tmp_path / "o.npz", tmp_path / "o.glb"], report=tmp_path / "r.json")
    (person,) = fitted.people
    motion = person.body
    points = load_body("lite").points("coco17", motion.rotations, motion.trajectory, motion.shape)
    away = np.linalg.norm(fitted.camera.project(points) - person.keypoints.xy, axis=-1)[:, 5:]  # without the face
    assert np.median(away) < 15  # of a walker 270 pixels tall
    assert "body of person 1: stature 1." in fit_summary(fitted, [])
    assert load(tmp_path / "o.npz") == fitted
