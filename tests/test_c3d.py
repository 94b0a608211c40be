"""C3D files: read back by ezc3d, and their header by hand."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from lifted_takes import FPS, HOSTILE, lifted_take, walking_person

from lifting.export import save
from lifting.skeletons import get_skeleton

Z_UP = {"camera": lambda points: points[..., [0, 2, 1]] * [1, 1, -1], "world": lambda points: points}


@pytest.mark.parametrize("frame", ["camera", "world"])
def test_points_come_back(tmp_path, frame):
    ezc3d = pytest.importorskip("ezc3d")
    take = lifted_take(walking_person(frame=frame, absent=(3, 2)))
    file = ezc3d.c3d(str(save(take, tmp_path / "walk.c3d")))
    points = np.moveaxis(file["data"]["points"][:3], 0, -1).swapaxes(0, 1) / 1000
    np.testing.assert_allclose(points[3:-2], Z_UP[frame](take.people[0].motion.absolute)[3:-2], atol=1e-5)
    residuals = file["data"]["meta_points"]["residuals"][0]
    np.testing.assert_allclose(residuals[:, 3:-2], 50, atol=1)
    assert (residuals[:, :3] == -1).all() and (residuals[:, -2:] == -1).all()


def test_the_parameters_say_what_the_points_are(tmp_path):
    ezc3d = pytest.importorskip("ezc3d")
    path = save(lifted_take(walking_person(7), name=HOSTILE), tmp_path / "walk.c3d")
    parameters = ezc3d.c3d(str(path))["parameters"]
    point = {name: parameters["POINT"][name]["value"] for name in ("LABELS", "UNITS", "RATE", "X_SCREEN", "Y_SCREEN")}
    assert point["LABELS"] == list(get_skeleton("h36m17").joints)
    assert (point["UNITS"], point["RATE"][0], point["X_SCREEN"], point["Y_SCREEN"]) == (["mm"], FPS, ["+X"], ["+Z"])
    lift = {name: parameters["LIFT"][name]["value"][0] for name in ("FRAME", "SKELETON", "AXES", "FIRST_TIME_S")}
    assert (lift["FRAME"], lift["SKELETON"], lift["FIRST_TIME_S"]) == ("world", "h36m17", 2.0)
    assert "+z up" in lift["AXES"] and parameters["SUBJECTS"]["NAMES"]["value"] == ["person 7"]
    header = path.read_bytes()[:24]
    assert header[1] == 0x50 and struct.unpack_from("<H", header, 2)[0] == 17  # the magic word, and the points
    assert struct.unpack_from("<f", header, 20)[0] == FPS


def test_each_person_has_a_file(tmp_path):
    pytest.importorskip("ezc3d")
    save(lifted_take(walking_person(1), walking_person(2)), tmp_path / "a.c3d")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.c3d", "a.person2.c3d"]


def test_without_the_package_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("lifting.export.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"'a.c3d' needs ezc3d: pip install '.\[c3d\]'"):
        save(lifted_take(), tmp_path / "a.c3d")
    assert not list(tmp_path.iterdir())
