"""The overlay: shapes against their geometry, views against projections worked out here, and the written video."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Person, Take
from lifting.skeletons import get_skeleton
from lifting.view import draw, overlay, panel

pytest.importorskip("av")
H36M = get_skeleton("h36m17")
SIZE = (160, 120)
FPS = 20.0
STANDING = {  # metres from the hip: x to the right of the picture, y down; the person faces the camera
    "hip": (0, 0), "spine": (0, -0.25), "thorax": (0, -0.5), "neck_nose": (0, -0.6), "head": (0, -0.72),
    "left_hip": (0.13, 0), "left_knee": (0.14, 0.44), "left_ankle": (0.14, 0.86),
    "left_shoulder": (0.17, -0.48), "left_elbow": (0.3, -0.25), "left_wrist": (0.4, 0.0),
}


def standing_joints():
    joints = np.zeros((17, 3))
    for name, (x, y) in STANDING.items():
        joints[H36M.index(name), :2] = x, y
        if name.startswith("left_"):
            joints[H36M.index(name.replace("left_", "right_")), :2] = -x, y
    return joints


def make_person(frames, number=1, x=0.0, depth=4.0, trajectory=True, absent=()):
    """Somebody who stands at (x, depth) and slides to the right by a metre each second."""
    joints = np.tile(standing_joints(), (frames, 1, 1))
    roots = np.stack([x + np.arange(frames) / FPS, np.full(frames, 0.2), np.full(frames, depth)], axis=-1)
    xy = Camera.from_fov(60, SIZE).project(joints + roots[:, None])
    score = np.full((frames, 17), 0.9)
    sigma = np.full((frames, 17), 0.05)
    for values in (joints, roots, xy, sigma):
        values[list(absent)] = np.nan
    motion = Motion(joints=joints, trajectory=roots if trajectory else None, sigma=sigma, skeleton=H36M, fps=FPS)
    keypoints = Keypoints2D(xy=xy, score=score, skeleton=H36M, image_size=SIZE, fps=FPS)
    return Person(id=number, keypoints=keypoints, motion=motion)


def make_take(*people, frames=6):
    return Take(name="take", image_size=SIZE, fps=FPS, times=np.arange(frames) / FPS,
                camera=Camera.from_fov(60, SIZE), people=people)


def black(width=60, height=50):
    return np.zeros((height, width, 3), dtype=np.uint8)


def test_stroke_covers_the_area_of_its_shape():
    image = black()
    draw.draw_stroke(image, (20.3, 15.2), (40.3, 30.2), (4.0, 4.0), (255, 0, 100))
    area = image[..., 0].astype(float).sum() / 255
    assert area == pytest.approx(np.pi * 16 + 2 * 4 * 25, rel=0.02)
    assert image[..., 1].max() == 0 and tuple(image[22, 30]) == (255, 0, 100)


def test_tapered_stroke_rim_and_shade():
    image = np.full((50, 60, 3), 200, dtype=np.uint8)
    draw.draw_stroke(image, (15.5, 25.5), (45.5, 25.5), (8.0, 2.0), (250, 250, 250), rim=2.0, shade=0.5)
    assert np.count_nonzero(image[:, 17, 0] != 200) > np.count_nonzero(image[:, 43, 0] != 200)
    column = image[:, 20, 0].astype(int)
    assert column[25] > 240 and column.min() < 60  # light in the middle, a black rim around it
    assert column[25] > column[21] > column[19] > 100  # and darker towards the edge


def test_alpha_mixes_with_what_is_there():
    image = np.full((9, 9, 3), 100, dtype=np.uint8)
    draw.draw_disc(image, (4.5, 4.5), 3.0, (200, 100, 0), alpha=0.25)
    assert tuple(image[4, 4]) == (125, 100, 75) and tuple(image[0, 0]) == (100, 100, 100)


def test_overlapping_strokes_do_not_add_up():
    image = black()
    crossing = [((5, 5), (40, 40), 4, 0.5), ((40, 5), (5, 40), 4, 0.5), ((5, 5), (9, 9), 4, 0)]
    draw.draw_strokes(image, crossing, (200, 200, 200))
    assert image.max() == 100


def test_ring_is_hollow_and_glow_fades():
    image = black()
    draw.draw_ring(image, (30.5, 25.5), 10.0, 2.0, (255, 255, 255))
    assert image[25, 30, 0] == 0 and image[25, 39, 0] == 255 and image[25, 42, 0] == 0
    image = black()
    draw.draw_glow(image, (30.5, 25.5), 12.0, (255, 255, 255), 0.5)
    row = image[25, 30:, 0].astype(int)
    assert row[0] in (127, 128) and (np.diff(row) <= 0).all() and row[19] == 0


@given(st.lists(st.sampled_from([float("nan"), float("inf"), -1e9, -30.0, 10.0, 65.0, 1e9]), min_size=4, max_size=4))
def test_shapes_anywhere_never_fail(values):
    image = black()
    start, end = values[:2], values[2:]
    draw.draw_stroke(image, start, end, (3.0, 2.0), (255, 0, 0), rim=1.0, shade=0.5)
    draw.draw_strokes(image, [(start, end, 2.0, 1.0)], (255, 0, 0), softness=3.0)
    draw.draw_ring(image, start, 5.0, 1.0, (255, 0, 0))
    draw.draw_glow(image, end, 9.0, (255, 0, 0), 0.5)
    if not all(abs(value) < 100 for value in values[:2]) and not all(abs(value) < 100 for value in values[2:]):
        assert image.max() == 0


def test_text_is_placed_by_its_anchor():
    boxes = {}
    for anchor in ("lt", "rb", "mm"):
        image = black(120, 60)
        width = draw.draw_text(image, "12.5 m", (60, 30), 14, (255, 255, 255), anchor=anchor)
        rows, columns = np.nonzero(image[..., 0])
        boxes[anchor] = (columns.min(), rows.min(), columns.max(), rows.max())
        assert width == draw.text_width("12.5 m", 14) and columns.max() - columns.min() <= width
    assert boxes["lt"][0] >= 60 and boxes["lt"][1] >= 30
    assert boxes["rb"][2] < 60 and boxes["rb"][3] < 30
    assert boxes["mm"][0] < 60 < boxes["mm"][2]
    assert draw.draw_text(black(), "", (5, 5), 12, (255, 255, 255)) == 1
    draw.draw_text(black(), "żółw 龟", (-5, 49), 12, (255, 255, 255))


def test_resize_averages():
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[::2] = 200
    np.testing.assert_allclose(draw.resize(image, (30, 20)), 100, atol=2)
    assert draw.resize(image[:, ::-1], (61, 81)).shape == (81, 61, 3)


def test_coco_is_drawn_with_a_trunk():
    skeleton = get_skeleton("coco17")
    bones = {frozenset(skeleton.joints[joint] for joint in bone) for bone in overlay.drawn_bones(skeleton)}
    assert {frozenset(("left_shoulder", "right_shoulder")), frozenset(("left_hip", "right_hip"))} <= bones
    assert frozenset(("nose", "left_shoulder")) not in bones
    assert sorted(overlay.drawn_bones(H36M)) == sorted(H36M.bones)


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), st.tuples(st.integers(160, 2000), st.integers(120, 1200)))
def test_layout_stays_within_its_limits(image_size, max_size):
    layout = overlay.plan_layout(image_size, max_size)
    width, height = layout.size
    assert width <= max_size[0] and height <= max_size[1] and width % 2 == height % 2 == 0
    left, top, shown_width, shown_height = layout.video
    assert left >= 0 and top >= 0 and shown_width <= layout.width and top + shown_height <= layout.height
    assert layout.panel_size[0] >= 0.3 * max_size[0]
    aspect = image_size[0] / image_size[1]  # kept to a pixel of either side
    assert abs(shown_height - shown_width / aspect) <= 1.01 or abs(shown_width - shown_height * aspect) <= 1.01


def test_too_small_a_picture_is_refused():
    with pytest.raises(ValueError, match="160x120"):
        overlay.plan_layout(SIZE, (100, 100))


def views_of(take, size=(200, 160)):
    scene = panel.Scene(take)
    return scene, panel.View(scene, size, from_side=False), panel.View(scene, size, from_side=True)


def test_views_show_right_as_right_up_as_up_and_depth_from_the_side():
    scene, front, side = views_of(make_take(make_person(6), make_person(6, 2, depth=5.0)))
    points = np.array([[0.0, 4.0, 0.0], [0.3, 4.0, 0.0], [0.0, 4.3, 0.0], [0.0, 4.0, 0.3]])  # middle, right, far, up
    target = scene.targets[0]
    pixels, near = front.project(points, target)
    assert pixels[1, 0] > pixels[0, 0] + 5 and pixels[3, 1] < pixels[0, 1] - 5 and near[2] < near[0]
    pixels, near = side.project(points, target)
    assert pixels[2, 0] > pixels[0, 0] + 5 and pixels[3, 1] < pixels[0, 1] - 5 and near[1] > near[0]


@pytest.mark.parametrize("frames", [1, 6, 80])
def test_all_joints_fit_into_both_views(frames):
    take = make_take(make_person(frames), frames=frames)
    scene, *views = views_of(take)
    for view in views:
        for frame in range(0, frames, 7):
            pixels, _ = view.project(scene.figures[0].points[frame], scene.targets[frame])
            assert (pixels >= 0).all() and (pixels <= view.size).all()
            assert np.ptp(pixels[:, 1]) > 0.4 * view.size[1]


def test_metre_lines_lie_where_whole_metres_are():
    scene, front, side = views_of(make_take(make_person(6, x=0.3)), size=(300, 240))
    for view in (front, side):
        target = (0.37, 4.61)
        picture = view._draw_ground(target)[..., 1].astype(int)
        for place in ((0.0, 4.5), (0.5, 4.0), (1.0, 4.4)):
            x, y = view.project(np.array([*place, scene.floor]), np.array([*target, 0.0]))[0].astype(int)
            between = view.project(np.array([0.5, 4.5, scene.floor]), np.array([*target, 0.0]))[0].astype(int)
            assert picture[y, x] > picture[between[1], between[0]] + 15


def test_world_motion_is_seen_from_the_camera_again():
    person = make_person(6)
    rotation = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])  # the camera looks along world +x
    camera = Camera(focal=(100, 100), center=(80, 60), image_size=SIZE, rotation=rotation)
    motion = person.motion
    world = motion.replace(joints=motion.joints @ rotation, trajectory=motion.trajectory @ rotation, frame="world")
    expected = panel._figure(motion, (0, 0, 0), camera)
    actual = panel._figure(world, (0, 0, 0), camera)
    np.testing.assert_allclose(actual.points, expected.points, atol=1e-5)
    np.testing.assert_allclose(actual.roots, expected.roots, atol=1e-5)


def test_two_dimensional_skeleton_has_its_colours_at_its_joints():
    person = make_person(3)
    image = black(320, 240)
    overlay.draw_person(image, person, 0, 1, scale=(2.0, 2.0))
    for name, color in (("left_knee", panel.LEFT_COLOR), ("right_wrist", panel.RIGHT_COLOR),
                        ("spine", panel.person_color(0))):
        x, y = (2 * person.keypoints.xy[1, H36M.index(name)]).astype(int)
        assert np.abs(image[y, x].astype(int) - color).max() <= 3


def test_unsure_joints_are_hollow_and_unseen_ones_absent():
    xy = np.full((1, 17, 2), np.nan)
    score = np.zeros((1, 17))
    xy[0, 3], score[0, 3] = (80.5, 60.5), 0.3
    keypoints = Keypoints2D(xy=xy, score=score, skeleton=H36M, image_size=SIZE, fps=FPS)
    image = black(*SIZE)
    overlay.draw_person(image, Person(id=1, keypoints=keypoints), 0, 0)
    assert image[60, 80].max() < 60 and 150 < image.max()
    rows, columns = np.nonzero(image.max(axis=-1))
    assert np.hypot(rows - 60, columns - 80).max() < 8


@pytest.mark.parametrize(
    "people",
    [
        (),
        (make_person(6, absent=range(6)),),
        (make_person(6, absent=(0, 1)), make_person(6, 7, x=-0.5, depth=6, absent=(4, 5))),
        (make_person(6, trajectory=False),),
        (Person(id=0, keypoints=make_person(6).keypoints),),
        (make_person(6), make_person(6, 2, depth=90.0)),
    ],
    ids=["nobody", "never there", "coming and going", "no trajectory", "no motion", "far away"],
)
def test_draws_whoever_is_there(people):
    drawing = overlay.Overlay(make_take(*people), (320, 200))
    frame = np.full((120, 160, 3), 90, dtype=np.uint8)
    pictures = [drawing.draw(index / FPS, frame).copy() for index in range(6)]
    assert {picture.shape for picture in pictures} == {(drawing.size[1], drawing.size[0], 3)}
    assert all(picture.std() > 5 for picture in pictures)
    if len(people) == 2 and people[1].id == 7:
        colors = [np.abs(picture.astype(int) - panel.person_color(1)).sum(axis=-1).min() for picture in pictures]
        assert colors[0] < 40 < colors[5]  # the second person's colour goes with them


def test_frames_are_matched_by_time():
    drawing = overlay.Overlay(make_take(make_person(6)), (320, 200))
    assert [drawing.frame_at(seconds) for seconds in (0.0, 0.02, 0.03, 0.25, 0.29)] == [0, 0, 1, 5, 5]
    assert drawing.frame_at(2.0) is None and drawing.frame_at(-1.0) is None
    assert overlay.Overlay(make_take(make_person(1), frames=1), (320, 200)).frame_at(0.0) == 0


def numbered_frames(count):
    for index in range(count):
        yield 3.0 + index / FPS, np.full((120, 160, 3), 40 * index, dtype=np.uint8)


def test_written_video_has_every_frame_in_order(tmp_path):
    from lifting.video import open_video

    take = make_take(make_person(6)).replace(times=3.0 + np.arange(6) / FPS)
    path = overlay.write_overlay(take, numbered_frames(6), tmp_path / "o.mp4", max_size=(320, 200))
    with open_video(path) as reader:
        frames = list(reader)
    assert reader.fps == pytest.approx(FPS) and len(frames) == 6
    assert reader.image_size == overlay.Overlay(take, (320, 200)).size
    corners = [frame.rgb[4:12, 4:12].mean() for frame in frames]
    np.testing.assert_allclose(corners, 40 * np.arange(6), atol=6)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_interrupted_overlay_leaves_nothing(tmp_path, error):
    def broken():
        yield from numbered_frames(3)
        raise error("stopped")

    with pytest.raises(error):
        overlay.write_overlay(make_take(make_person(6)), broken(), tmp_path / "o.mp4", max_size=(320, 200))
    with pytest.raises(ValueError, match="no frame"):
        overlay.write_overlay(make_take(make_person(6)), [], tmp_path / "o.mp4", max_size=(320, 200))
    assert not list(tmp_path.iterdir())
