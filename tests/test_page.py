"""Pages, taken apart by a parser of their own: numbers, text that cannot harm, and nothing from elsewhere."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re

import numpy as np
import pytest
from moving_body import moving_mesh
from viewed_take import CAMERA, FPS, Page, viewed_take, walking_motion

from lifting.export import save
from lifting.meshes import SkinnedMesh
from lifting.motion import BodyMotion
from lifting.rotations import quat_wxyz_to_matrix, rotvec_to_matrix
from lifting.view import page_data
from lifting.view.page import page_html, write_page

HOSTILE = "</script><img src=x onerror=alert(1)><!--{{script}}\u2028&amp;\"'"


def page_of(*motions, **options):
    changes = {key: options.pop(key) for key in ("name", "assumed", "metadata") if key in options}
    return Page(page_html(viewed_take(*motions, **changes), **options))


# ---- numbers


def test_joints_paths_and_sigma_come_back():
    motion = walking_motion()
    page = page_of(motion)
    (person,) = page.people()
    np.testing.assert_allclose(page.points(person), motion.absolute, atol=1e-4)
    np.testing.assert_allclose(page.read(person["sigma"]), motion.sigma, atol=1.1e-3)
    np.testing.assert_allclose(page.read(page.scene["times"]), np.arange(60) / FPS, atol=1e-6)
    assert person["names"] == list(motion.skeleton.joints) and page.scene["floor"] == 0
    names, sides = person["names"], person["sides"]
    assert {name: side for name, side in zip(names, sides, strict=True) if side} == {
        name: 1 if name.startswith("left_") else 2 for name in names if name[:4] in ("left", "righ")}  # fmt: skip


def test_camera_axes_become_right_away_up_over_a_floor_under_the_feet():
    motion = walking_motion(frame="camera")
    page = page_of(motion)
    x, y, z = np.moveaxis(motion.absolute, -1, 0)
    np.testing.assert_allclose(page.points(page.people()[0]), np.stack([x, z, -y], axis=-1), atol=1e-4)
    lowest = (-y).min(axis=1)
    assert lowest.min() - 0.1 < page.scene["floor"] < np.median(lowest)
    np.testing.assert_allclose(page.scene["camera"]["axes"], [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)
    assert page.scene["camera"]["eye"] == [0, 0, 0]


def test_absent_frames_stay_absent():
    motion = walking_motion(20)
    joints, path, sigma = motion.joints.copy(), motion.trajectory.copy(), motion.sigma.copy()
    for values in (joints, path, sigma):
        values[5:9] = np.nan
    page = page_of(motion.replace(joints=joints, trajectory=path, sigma=sigma))
    for name in ("joints", "path", "sigma"):
        absent = np.isnan(page.read(page.people()[0][name])).reshape(20, -1)
        assert absent[5:9].all() and not absent[:5].any() and not absent[9:].any()


def test_a_filming_camera_stands_where_its_pose_says():
    rotation = rotvec_to_matrix(np.array([0.4, -0.2, 1.1]))
    camera = dataclasses.replace(CAMERA, rotation=rotation, translation=np.array([0.3, -0.5, 4.0]))
    page = Page(page_html(viewed_take(walking_motion()).replace(camera=camera)))
    about = page.scene["camera"]
    np.testing.assert_allclose(camera.to_camera(np.array([about["eye"]])), [[0, 0, 0]], atol=1e-9)
    ahead = np.array([about["eye"]]) + np.array(about["axes"])
    np.testing.assert_allclose(camera.to_camera(ahead), np.eye(3), atol=1e-9)
    np.testing.assert_allclose(about["half"], np.array(camera.image_size) / 2 / camera.focal)


def test_contacts_are_those_of_either_end_of_a_foot():
    take = viewed_take(walking_motion(3))
    contacts = np.array([[0.9, 0.1, 0.2, 0.3], [0, 0.6, 1, 0], [np.nan] * 4])
    person = dataclasses.replace(take.people[0], contacts=contacts)
    page = Page(page_html(take.replace(people=(person,))))
    np.testing.assert_allclose(page.read(page.people()[0]["contacts"])[:1], [[0.9, 0.3]], atol=0.002)
    assert "more likely than not" in page.text["scene"]


# ---- bodies


def mesh_take(**changes):
    mesh = moving_mesh(1, person_id=1, frames=20, **changes)
    motion = walking_motion(20, frame=mesh.frame).replace(fps=FPS)
    return viewed_take(motion), dataclasses.replace(mesh, fps=FPS)


@pytest.mark.parametrize("frame", ["camera", "world"])
def test_a_mesh_is_skinned_from_the_page_as_from_the_take(frame):
    take, mesh = mesh_take(absent=(2, 3), frame=frame)
    page = Page(page_html(take, meshes=[mesh]))
    packed = page.people()[0]["mesh"]
    expected = mesh.vertices(slice(0, 20)) @ page_data.SCENE_AXES[frame].T
    for number in (0, 2, 9, 16, 19):
        np.testing.assert_allclose(skinned(page, packed, number), expected[number], atol=4e-3)
    assert np.isnan(expected[0]).all() and np.isfinite(expected[9]).all()
    np.testing.assert_array_equal(page.read(packed["faces"]), mesh.faces)


def skinned(page: Page, packed: dict, frame: int) -> np.ndarray:
    """Vertices (V, 3) by a loop over bones: what the page's own script and shader do."""
    turned, rest, parents = page.read(packed["turned"])[frame], page.read(packed["rest"]), packed["parents"]
    if np.isnan(turned).any():
        return np.full(packed["vertices"]["shape"], np.nan)
    turns = quat_wxyz_to_matrix(turned / np.linalg.norm(turned, axis=-1, keepdims=True))
    places = {0: page.read(packed["path"])[frame]}
    for bone, parent in list(enumerate(parents))[1:]:
        places[bone] = places[parent] + turns[parent] @ (rest[bone] - rest[parent])
    vertices, weights = page.read(packed["vertices"]), np.nan_to_num(page.read(packed["weights"]), nan=1.0)
    total = np.zeros_like(vertices)
    for column, bones in enumerate(page.read(packed["bones"]).astype(int).T):
        for vertex, bone in enumerate(bones):
            moved = turns[bone] @ (vertices[vertex] - rest[bone]) + places[bone]
            total[vertex] += weights[vertex, column] * moved
    return total / weights.sum(axis=1, keepdims=True)


def test_equal_meshes_share_their_numbers():
    take, mesh = mesh_take()
    twin = dataclasses.replace(take.people[0], id=2)
    two, meshes = take.replace(people=(*take.people, twin)), [mesh, dataclasses.replace(mesh, person_id=2)]
    assert len(page_html(two, meshes=meshes)) - len(page_html(take, meshes=[mesh])) < 3500


@pytest.mark.parametrize("changes", [{"person_id": 7}, {"frames": 3}])
def test_a_mesh_of_others_is_refused(changes):
    take, mesh = mesh_take()
    other = moving_mesh(1, **{"person_id": 1, "frames": 20, **changes})
    assert isinstance(other, SkinnedMesh)
    with pytest.raises(ValueError, match="give the meshes of this take"):
        page_html(take, meshes=[other])


# ---- truth and future


def test_a_truth_in_camera_axes_is_seen_by_the_camera_of_the_take():
    rotation = rotvec_to_matrix(np.array([1.3, 0.1, -0.2]))
    camera = dataclasses.replace(CAMERA, rotation=rotation, translation=np.array([0, 1.0, 3]))
    take, truth = viewed_take(walking_motion()).replace(camera=camera), walking_motion(frame="camera", phase=0.3)
    expected = (truth.absolute - camera.translation) @ rotation
    for given in (truth, viewed_take(truth)):
        page = Page(page_html(take, truth=given))
        assert page.scene["layers"][1]["kind"] == "truth"
        np.testing.assert_allclose(page.points(page.people(1)[0]), expected, atol=1e-4)


def test_a_future_goes_on_where_the_take_ends():
    page = page_of(walking_motion(30), ghost=walking_motion(10, phase=1.0))
    np.testing.assert_allclose(page.read(page.scene["layers"][1]["times"]), np.arange(30, 40) / FPS, atol=1e-6)
    np.testing.assert_allclose(page.read(page.scene["times"]), np.arange(40) / FPS, atol=1e-6)


def test_a_truth_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="10 frames, the take has 20"):
        page_of(walking_motion(20), truth=walking_motion(10))
    nobody = walking_motion(20).replace(joints=np.full((20, 17, 3), np.nan))
    with pytest.raises(ValueError, match="nobody in the frames"):
        page_of(walking_motion(20), truth=nobody)


# ---- text


def test_hostile_names_stay_text():
    metadata = {"detector": HOSTILE, "warnings": [HOSTILE]}
    page = page_of(walking_motion(3), name=HOSTILE, assumed=(HOSTILE,), metadata=metadata)
    assert [tag for tag, _ in page.tags].count("script") == 3 and "img" not in [tag for tag, _ in page.tags]
    assert page.text["title"] == HOSTILE
    assert page.scene["name"] == HOSTILE == page.scene["assumed"][0] == page.scene["warnings"][0]
    assert HOSTILE in page.scene["caption"][-1]
    assert not re.search("[<>&\u2028]", page.text["scene"])


def test_nothing_is_fetched_and_only_the_own_script_may_run():
    text = page_html(viewed_take(walking_motion(3)))
    page = Page(text)
    assert not [attrs for _, attrs in page.tags if {"src", "href", "srcset", "action", "style"} & attrs.keys()]
    assert not re.search(r"https?:|@import|url\(|\bfetch\(|XMLHttpRequest|innerHTML|\beval\(", text)
    policy = next(attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs)
    hashes = {what: digest(page.text[what]) for what in ("style", "script")}
    assert policy == (f"default-src 'none'; style-src '{hashes['style']}'; script-src '{hashes['script']}'; "
                      "base-uri 'none'")  # fmt: skip
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_caption_says_units_frame_rate_and_sources():
    metadata = {"detector": "blazepose", "weights": "lifter", "world": {"sigma_degrees": 1.25, "source": "contacts"}}
    page = page_of(walking_motion(), assumed=("no height given",), metadata=metadata)
    words = " ".join([page.scene["headline"], *page.scene["caption"], *page.scene["assumed"]])
    for part in ("1 person", "60 frames at 50/s", "1.2 s", "Metres", "gravity from contacts, ±1.2°", "h36m17", "68 %",
                 "2D by blazepose", "lifted by lifter", "no height given"):  # fmt: skip
        assert part in words, part
    assert "not measured" in " ".join(page_of(walking_motion(frame="camera")).scene["caption"])
    level = page_of(walking_motion(), metadata={"world": {"sigma_degrees": 40.0, "source": "camera"}})
    assert "assumed to be level" in " ".join(level.scene["caption"])


# ---- sizes


def test_ten_seconds_of_three_people_are_small():
    motions = [walking_motion(500, phase=phase) for phase in (0.0, 1.0, 2.0)]
    assert len(page_html(viewed_take(*motions))) < 500_000


def test_a_long_take_shows_every_nth_frame(monkeypatch):
    monkeypatch.setattr(page_data, "MOST_BYTES", 20_000)
    motion = walking_motion(600)
    page = page_of(motion, motion)
    step = page.scene["step"]
    assert step > 1 and len(page.text["numbers"]) < 1.5 * 20_000
    np.testing.assert_allclose(page.points(page.people()[0]), motion.absolute[::step], atol=1e-4)
    assert f"1 of {step} frames" in " ".join(page.scene["caption"])


# ---- files


def test_save_knows_pages(tmp_path):
    take, mesh = mesh_take()
    path = save(take, tmp_path / "Clip.HTML", meshes=[mesh])
    assert path.read_text("utf-8") == page_html(take, meshes=[mesh])
    with pytest.raises(OSError, match="cannot write"):
        write_page(take, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["Clip.HTML"]


def test_a_take_without_anybody_is_a_page_too():
    take = viewed_take(walking_motion(4)).replace(people=())
    page = Page(page_html(take))
    assert page.people() == [] and "0 people" in page.scene["headline"]


def test_a_body_alone_is_a_page_too():
    take, mesh = mesh_take()
    body = BodyMotion(mesh.rotations, mesh.trajectory, np.zeros(4), "small", FPS)
    person = dataclasses.replace(take.people[0], motion=None, body=body)
    page = Page(page_html(take.replace(people=(person,)), meshes=[mesh]))
    assert "joints" not in page.people()[0] and page.people()[0]["mesh"]["parents"][0] == -1
