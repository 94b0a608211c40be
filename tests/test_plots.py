"""Plots: speeds against closed forms, and pictures that hold what they should."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from moving_body import moving_mesh
from PIL import Image
from viewed_take import FPS, viewed_take, walking_motion

from lifting.export import save
from lifting.motion import Motion
from lifting.view import plots
from lifting.view.plots import joint_speed, write_plots


def test_speeds_of_a_walk_and_of_a_circle():
    motion = walking_motion(80, speed=1.3)
    np.testing.assert_allclose(joint_speed(motion), 1.3, rtol=1e-4)
    angle = 2 * np.pi * 0.5 * np.arange(80) / FPS  # half a turn a second, at arm's length
    joints = np.zeros((80, 17, 3))
    joints[:, motion.skeleton.index("left_wrist"), :2] = 0.6 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    circle = Motion(joints, None, None, "h36m17", FPS)
    chord = 2 * 0.6 * np.sin(np.pi * 0.5 * 0.16)  # over 0.08 s either way
    np.testing.assert_allclose(joint_speed(circle, "left_wrist")[4:-4], chord / 0.16, rtol=1e-4)
    assert not joint_speed(circle).any()


def test_speed_is_unknown_where_somebody_is_absent():
    motion = walking_motion(30)
    path = motion.trajectory.copy()
    path[10:12] = np.nan
    speed = joint_speed(motion.replace(trajectory=path))
    reach = round(0.08 * FPS)
    unknown = {frame + step for frame in (10, 11) for step in (-reach, reach)}
    assert set(np.flatnonzero(np.isnan(speed))) == unknown


@pytest.fixture
def coarse(monkeypatch):
    """Pictures of few pixels, for speed."""
    monkeypatch.setattr(plots, "DOTS_PER_INCH", 40)


def test_a_column_for_each_person_up_to_four(coarse, tmp_path):
    widths = []
    for people, frames in ((1, 1), (2, 20), (6, 20)):
        path = save(viewed_take(*[walking_motion(frames)] * people, name="a$b_\x1b\u4e00"), tmp_path / f"{people}.png")
        picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
        widths.append(picture.shape[1])
        blue = (picture[..., 2] > picture[..., 0] + 80).any(axis=0)
        assert frames == 1 or blue[: len(blue) // 2].any() and blue[len(blue) // 2 :].any()
    assert widths[1] - widths[0] == pytest.approx((widths[2] - widths[0]) / 3, abs=2)


def test_every_row_shows_the_range_of_everybody(coarse, monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    figures, draw = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), draw(figure, *a, **k)))
    write_plots(viewed_take(walking_motion(40, speed=0.5), walking_motion(40, speed=2.0)), tmp_path / "two.png")
    speeds = [axis for axis in figures[0].axes if axis.get_ylabel() == "root speed (m/s)"]
    assert [np.ptp(line.get_ydata()) < 0.01 for axis in speeds for line in axis.lines] == [True, True]
    assert all(axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > 2.0 for axis in speeds)
    knees = next(axis for axis in figures[0].axes if axis.get_ylabel() == "knee flexion (°)")
    np.testing.assert_allclose(np.concatenate([line.get_ydata() for line in knees.lines]), np.degrees(0.4), atol=0.5)


def test_bodies_and_unknown_layouts(coarse, tmp_path):
    mesh = dataclasses.replace(moving_mesh(1, person_id=1, frames=20, frame="world"), fps=FPS)
    write_plots(viewed_take(walking_motion(20)), tmp_path / "body.png", meshes=[mesh])
    joints = np.zeros((20, 17, 3))
    other = Motion(joints, None, None, "coco17", FPS)
    assert write_plots(viewed_take(other), tmp_path / "coco.png").stat().st_size > 3_000


def test_nobody_to_plot(tmp_path):
    with pytest.raises(ValueError, match="nobody in the take 'walk' has a 3D motion to plot"):
        write_plots(viewed_take(walking_motion(3)).replace(people=()), tmp_path / "none.png")
    assert not list(tmp_path.iterdir())
