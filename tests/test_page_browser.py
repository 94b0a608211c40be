"""Pages in headless Chromium: what it drew, against projections worked out here and the pixels of a screenshot.

Skipped where there is no Chromium; `.ci/run` installs it and runs these tests in a step of their own.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from moving_body import moving_mesh
from PIL import Image
from test_page import HOSTILE, skinned
from viewed_take import FPS, Page, viewed_take, walking_motion

from lifting.meshes import forward_kinematics
from lifting.rotations import rotvec_to_matrix
from lifting.view.page import write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
BACKGROUND = np.array([22, 25, 31])
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")


class Document(HTMLParser):
    """The attributes of the root element and all tags of a page after its script ran."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root, self.tags, self.words = {}, [], ""
        self._hidden = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.root = dict(attrs) if tag == "html" else self.root
        self.tags.append(tag)
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = self._hidden and tag not in ("script", "style")

    def handle_data(self, data: str) -> None:
        self.words += "" if self._hidden else data


def browse(page: Path, wish: str, folder: Path, *flags: str, size: Sequence[int] = (800, 600)) -> str:
    places = f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, *FLAGS, *places, *flags, f"{page.as_uri()}#{wish}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def look(page: Path, wish: str, folder: Path) -> tuple[dict, np.ndarray, Document]:
    """What the page says that it drew, and the screenshot (H, W, 3) of the same wish.

    A window is a little higher than the page in it, a screenshot is not: it gets the size that the page had.
    """
    document = Document(browse(page, f"{wish}&theme=dark", folder, "--dump-dom"))
    assert document.root["data-state"] == "drawn", document.words
    drawn = json.loads(document.root["data-drawn"])
    browse(page, f"{wish}&theme=dark", folder, f"--screenshot={folder / 'shot.png'}", size=drawn["page"])
    return drawn, np.asarray(Image.open(folder / "shot.png").convert("RGB")), document


def project(drawn: dict, points: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) in the page of points in scene axes, seen by the viewer that the page reports."""
    away = points - drawn["eye"]
    left, top, width, height = drawn["box"]
    x, y, depth = (away @ np.array(drawn[axis]) for axis in ("right", "up", "ahead"))
    middle, scale = np.array([left + width / 2, top + height / 2]), drawn["scale"] / depth
    return middle + np.stack([scale * x, -scale * y], axis=-1)


def colors_at(shot: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    column, row = np.round(pixels).astype(int).T
    return shot[row, column].astype(int)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


def test_joints_are_drawn_where_they_are(folder):
    motion = walking_motion(60)
    page = write_page(viewed_take(motion), folder / "walk.html")
    drawn, shot, _ = look(page, "frame=20&view=filmed", folder)  # from behind: nothing hides a wrist
    assert drawn["frame"] == 20 and drawn["time"] == pytest.approx(0.4)
    pixels = project(drawn, motion.absolute[20])
    np.testing.assert_allclose(drawn["people"][0]["joints"], pixels, atol=0.5)
    right, up, ahead = (np.array(drawn[axis]) for axis in ("right", "up", "ahead"))
    np.testing.assert_allclose(np.array([right, up, ahead]) @ np.array([right, up, ahead]).T, np.eye(3), atol=1e-6)
    names = motion.skeleton.joints
    red, _, blue = colors_at(shot, pixels[[names.index("left_wrist"), names.index("right_wrist")]]).T
    assert blue[0] > red[0] + 60 and red[1] > blue[1] + 60  # the left is blue, the right is orange
    arms = [pixels[[names.index(f"{side}_{joint}") for joint in ("elbow", "wrist")]].mean(axis=0)
            for side in ("left", "right")]  # fmt: skip
    red, _, blue = colors_at(shot, np.array(arms)).T
    assert blue[0] > red[0] + 60 and red[1] > blue[1] + 60
    beside = colors_at(shot, pixels[[names.index("left_wrist"), names.index("right_wrist")]] + [[-25, 0], [25, 0]])
    assert np.abs(beside - BACKGROUND).max() < 80  # the ground or nothing


def test_sigma_tints(folder):
    motion = walking_motion(30)
    sigma = np.full((30, 17), 0.01)
    sigma[:, motion.skeleton.index("right_wrist")] = 0.3
    page = write_page(viewed_take(motion.replace(sigma=sigma)), folder / "sigma.html")
    drawn, shot, _ = look(page, "frame=3&colour=sigma&view=side", folder)
    pixels = np.array(drawn["people"][0]["joints"])
    sure, unsure = colors_at(shot, pixels[[motion.skeleton.index("head"), motion.skeleton.index("right_wrist")]])
    assert sure[1] > sure[0] + 40 and unsure[0] > unsure[1] + 60


def test_truth_stands_beside_and_people_have_numbers(folder):
    first, second = walking_motion(30), walking_motion(30, phase=1.5)
    second = second.replace(trajectory=second.trajectory + np.float32([1.2, 0, 0]))
    truth = first.replace(joints=first.joints + np.float32([0, 0, 0.03]))
    page = write_page(viewed_take(first, second), folder / "truth.html", truth=truth)
    drawn, shot, document = look(page, "frame=10&split", folder)
    layers = [(person["layer"], person["id"]) for person in drawn["people"]]
    assert layers == [("result", 1), ("result", 2), ("truth", 1)]
    places = {layer: np.array(person["joints"]) for layer, person in zip(layers, drawn["people"], strict=True)}
    moved = places["truth", 1][0] - project(drawn, truth.absolute[10])[0]
    np.testing.assert_allclose(moved, [drawn["box"][2], 0], atol=0.5)  # the box is the left half
    assert "Mean joint error of person 1, roots together: 0 mm" in document.words
    green = colors_at(shot, places["truth", 1][[first.skeleton.index("spine")]])[0]
    assert green[1] > green[0] + 30 and green[1] > green[2] + 15


def test_a_mesh_is_drawn_where_its_bones_are(folder):
    mesh = dataclasses.replace(moving_mesh(1, person_id=1, frames=20, frame="world"), fps=FPS)
    path = mesh.trajectory * np.float32([0.1, 0.1, 0.1]) + np.float32([0, 0, 1])
    mesh = dataclasses.replace(mesh, trajectory=path, rotations=0.3 * mesh.rotations)
    page = write_page(viewed_take(walking_motion(20)), folder / "mesh.html", meshes=[mesh])
    drawn, shot, _ = look(page, "frame=7", folder)
    _, joints = forward_kinematics(rotvec_to_matrix(mesh.rotations[7:8].astype(float)), path[7:8],
                                   mesh.rest_joints.astype(float), mesh.parents)  # fmt: skip
    np.testing.assert_allclose(drawn["people"][0]["bones"], project(drawn, joints[0]), atol=0.6)
    parsed = Page(page.read_text("utf-8"))
    corners = skinned(parsed, parsed.people()[0]["mesh"], 7)[mesh.faces]
    inside = colors_at(shot, project(drawn, corners.mean(axis=1)))
    assert (np.abs(inside - BACKGROUND).max(axis=1) > 25).mean() > 0.97


def test_hostile_names_do_nothing(folder):
    page = write_page(viewed_take(walking_motion(5), name=HOSTILE, assumed=(HOSTILE,)), folder / "hostile.html")
    document = Document(browse(page, "frame=0", folder, "--dump-dom"))
    assert document.root["data-state"] == "drawn" and "img" not in document.tags
    assert document.words.count(HOSTILE) >= 3  # title, heading and assumption


def test_without_webgl_the_page_says_so(folder):
    page = write_page(viewed_take(walking_motion(5)), folder / "bare.html")
    document = Document(browse(page, "frame=0", folder, "--dump-dom", "--disable-3d-apis"))
    assert document.root["data-state"] == "failed"
    assert "Nothing can be shown: this browser shows no WebGL 2" in document.words


def test_what_comes_after_the_take_is_a_ghost(folder):
    past, future = walking_motion(30), walking_motion(40).slice(30)
    page = write_page(viewed_take(past), folder / "future.html", ghost=future)
    drawn, _, document = look(page, "frame=34", folder)
    assert [person["layer"] for person in drawn["people"]] == ["future"] and "beyond the result" in document.words
    np.testing.assert_allclose(drawn["people"][0]["joints"], project(drawn, future.absolute[4]), atol=0.5)
