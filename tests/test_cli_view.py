"""`lift view`: pages of result files, beside a truth, and when a browser is opened."""

from __future__ import annotations

import json
import webbrowser

import numpy as np
import pytest
from click.testing import CliRunner
from viewed_take import FPS, Page, viewed_take, walking_motion

from lifting import cli_view
from lifting.cli import main
from lifting.export import save


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(cli_view.sys, "platform", "linux")
    return tmp_path


@pytest.fixture
def motion():
    return walking_motion(30, frame="camera")


@pytest.fixture
def result(tmp_path, motion):
    return save(viewed_take(motion), tmp_path / "runs" / "clip" / "result.npz")


def view(*arguments: object):
    return CliRunner().invoke(main, ["view", *map(str, arguments)])


def test_the_page_lies_beside_the_result(result, motion):
    found = view(result)
    assert found.exit_code == 0, found.output
    assert found.output == "wrote runs/clip/view.html\n"
    page = Page(result.with_name("view.html").read_text("utf-8"))
    x, y, z = np.moveaxis(motion.absolute, -1, 0)
    np.testing.assert_allclose(page.points(page.people()[0]), np.stack([x, z, -y], axis=-1), atol=1e-4)


@pytest.mark.parametrize("kind", ["truth", "result"])
def test_a_truth_stands_beside_it(tmp_path, result, motion, kind):
    shifted = motion.replace(trajectory=motion.trajectory + np.float32([0.5, 0, 0]))
    other = tmp_path / "other.npz"
    if kind == "truth":
        metadata = json.dumps({"skeletons": {"joints": "h36m17"}})
        np.savez(other, joints=shifted.absolute, times=np.arange(30) / FPS, metadata=metadata)
    else:
        save(viewed_take(shifted, name="the other"), other)
    found = view(result, "-o", tmp_path / "page.html", "--truth", other)
    assert found.exit_code == 0, found.output
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    moved = page.points(page.people(1)[0]) - page.points(page.people()[0])
    np.testing.assert_allclose(moved, np.broadcast_to([0.5, 0, 0], moved.shape), atol=2e-4)
    assert page.scene["layers"][1]["label"] == ("truth" if kind == "truth" else "truth: the other")


def test_bad_input_is_one_sentence_and_nothing_is_written(tmp_path, result):
    text = tmp_path / "text.txt"
    text.write_text("no result")
    late = tmp_path / "late.npz"
    np.savez(late, joints=np.zeros((3, 17, 3)), times=[100.0, 101, 102])
    before = sorted(tmp_path.rglob("*"))
    for arguments, part in [
        (["gone.npz"], "gone.npz"),
        ([text], "suffix"),
        ([result, "-o", "x.gif"], "expected a page, such as view.html"),
        ([result, "-o", tmp_path], "expected a page"),
        ([result, "--truth", "gone.npz"], "gone.npz"),
        ([result, "--truth", late], "nobody in the frames"),
        ([result, "-o", "new/x.html", "--truth", late], "nobody in the frames"),
    ]:
        found = view(*arguments)
        assert found.exit_code == 2 and found.output.startswith("lift: "), (arguments, found.output)
        assert part in found.output and found.output.count("\n") == 1, found.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_browser_is_opened_only_where_there_is_one(result, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "get", lambda: object())
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert "wrote" in view(result).output and not opened  # no screen
    assert "no browser was found here; open " in view(result, "--open").output and not opened
    monkeypatch.setenv("DISPLAY", ":0")
    view(result, "--no-open")
    assert not opened
    view(result)
    assert opened == [result.with_name("view.html").resolve().as_uri()]
    monkeypatch.setattr(webbrowser, "get", lambda: (_ for _ in ()).throw(webbrowser.Error))
    view(result)
    assert len(opened) == 1
