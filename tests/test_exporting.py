"""`lift.export` and `lift export`: several formats at once, people, motions, bad input, nothing half-written."""

from __future__ import annotations

import errno
import runpy
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from lifted_takes import lifted_take, walking_person
from test_bvh_export import Bvh
from test_trc import Trc

import lift
from lifting.cli import main
from lifting.export import BODY_FORMATS, FORMATS, MOTION_FORMATS, load, save
from lifting.exporting import BLENDER_SCRIPT, as_take
from lifting.motion import Person
from lifting.world import presented

FILES = ["a.angles.csv", "a.bvh", "a.csv", "a.glb", "a.h5", "a.json", "a.mot", "a.npz", "a.trc"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(*arguments: object):
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_a_result_becomes_all_formats_at_once(tmp_path):
    take = lifted_take(walking_person(frame="camera"), walking_person(2, "camera"))
    result = save(take, tmp_path / "result.npz")
    written = lift.export(result, [tmp_path / "new" / name for name in FILES])
    assert written == [tmp_path / "new" / name for name in FILES]
    others = ["a.person2.bvh", "a.person2.mot", "a.person2.trc"]
    assert names(tmp_path / "new") == sorted([*FILES, *others])
    for suffix in (".npz", ".json", ".h5"):
        assert load(tmp_path / "new" / f"a{suffix}") == take


def test_other_programs_get_the_motion_in_the_world(tmp_path):
    """Feet of the walker stand on the floor there, whatever the camera saw."""
    from lifting.world import place_in_world

    take = place_in_world(lifted_take(walking_person(frame="camera", frames=100)))
    lift.export(take, [tmp_path / "a.trc", tmp_path / "a.npz"])
    trc = Trc(tmp_path / "a.trc")
    expected = presented(take).people[0].motion.absolute[..., [0, 2, 1]] * [1, 1, -1]
    np.testing.assert_allclose(trc.points, expected, atol=1e-5)
    assert "frame: world" in trc.first[3]
    assert load(tmp_path / "a.npz").people[0].motion.frame == "camera"


@pytest.mark.parametrize("kind", ["take", "person", "motion"])
def test_takes_people_and_motions_are_exported(tmp_path, kind):
    take = lifted_take()
    person = take.people[0]
    [path] = lift.export({"take": take, "person": person, "motion": person.motion}[kind], tmp_path / "a.bvh")
    expected = person.motion.absolute[:, 6][:, [0, 2, 1]] * [1, 1, -1]
    np.testing.assert_allclose(Bvh(path).joints()["left_ankle"] / 100, expected, atol=1e-3)


def test_a_motion_alone_says_that_its_camera_is_made_up():
    motion = walking_person().motion
    take = as_take(motion)
    assert take.people[0].motion is motion and not take.people[0].keypoints.seen.any()
    assert "Camera unknown" in take.assumed[0]
    with pytest.raises(ValueError, match="got dict, expected the path of a result, a Take, a Person or a Motion"):
        as_take({})


@pytest.mark.parametrize(("output", "problem"), [
    ("a.fbx", "suffix '.fbx', expected one of .npz, .json, .csv, .h5, .glb, .bvh, .trc, .mot, .angles.csv, "),
    ("a", "expected one of .npz"),
    ("a.3.obj", "'a.3.obj' would hold a body and none is fitted"),
    ("result.npz", "is the input itself"),
    ("result.npz/a.bvh", "cannot write"),
])
def test_bad_outputs_are_one_sentence_and_exit_code_2(tmp_path, monkeypatch, output, problem):
    monkeypatch.chdir(tmp_path)
    save(lifted_take(), "result.npz")
    found = run("result.npz", "-o", "good.bvh", "-o", output)
    assert found.exit_code == 2 and problem in found.stderr
    assert found.stderr.count("\n") == 1 and names(tmp_path) == ["result.npz"]


def test_bad_sources_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(lifted_take(Person(1, walking_person().keypoints)), "bare.npz")
    Path("text.json").write_text("no")
    for arguments, problem in (
        (["none.npz", "-o", "a.bvh"], "no file 'none.npz'"),
        (["text.json", "-o", "a.bvh"], "not valid JSON"),
        (["bare.npz", "-o", "a.bvh"], "nobody in the take 'walk' has a 3D motion"),
        (["bare.npz"], "at least one output; try: lift export"),
        ([], "expected a result"),
        (["bare.npz", "-o", "a.mp4", "--video", "none.mp4"], "no video 'none.mp4'"),
    ):
        found = run(*arguments)
        assert found.exit_code == 2 and problem in found.stderr, found.output
    assert names(tmp_path) == ["bare.npz", "text.json"]


@pytest.mark.parametrize("failing", ["trc.write_trc", "angles.write_mot", "bodies.write_glb", "bodies.write_bvh"])
def test_a_full_disk_leaves_nothing_under_any_final_name(tmp_path, monkeypatch, failing):
    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    save(lifted_take(), tmp_path / "result.npz")
    monkeypatch.setattr(f"lifting.export.{failing}", fail)
    outputs = [tmp_path / "new" / name for name in ("a.npz", "a.glb", "a.bvh", "a.trc", "a.mot")]
    with pytest.raises(OSError, match="(?i)no space left"):
        lift.export(tmp_path / "result.npz", outputs)
    assert names(tmp_path) == ["result.npz"]


def test_the_command_says_what_it_wrote_and_how_to_open_it(tmp_path):
    save(lifted_take(), tmp_path / "result.npz")
    found = run(tmp_path / "result.npz", "-o", tmp_path / "a.glb", "-o", tmp_path / "a.angles.csv")
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines() == [
        f"wrote {tmp_path / 'a.glb'}", f"wrote {tmp_path / 'a.angles.csv'}",
        f"to open in Blender: blender --python {BLENDER_SCRIPT} -- {tmp_path / 'a.glb'}",
    ]  # fmt: skip


def test_the_formats_are_listed():
    text = run("--formats").stdout
    for suffix in (*FORMATS, *MOTION_FORMATS, *BODY_FORMATS, ".mp4"):
        assert f"  {suffix} " in text
    assert "needs ezc3d" in text


def test_the_blender_script_reads_the_timing_of_our_files(tmp_path):
    lift.export(lifted_take(), [tmp_path / "a.bvh", tmp_path / "a.glb"])
    script = runpy.run_path(str(BLENDER_SCRIPT))
    assert script["bvh_timing"](tmp_path / "a.bvh") == (50.0, 40)
    assert script["glb_timing"](tmp_path / "a.glb") == (50.0, 40)
