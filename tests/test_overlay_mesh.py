"""Meshes in pictures: placed as the camera projects them, in the right order, lit, and mixed with the video."""

from __future__ import annotations

import numpy as np
import pytest
from test_overlay import FPS, SIZE, make_person, make_take

from lifting.cameras import Camera
from lifting.meshes import SkinnedMesh
from lifting.view import overlay, panel
from lifting.view.mesh import MeshPainter, camera_eye, check_meshes

pytest.importorskip("av")
CAMERA = Camera.from_fov(60, SIZE)
RED, BLUE = (220, 60, 60), (60, 60, 220)
# The corners of a box and its triangles, counter-clockwise seen from outside.
CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
BOX = np.array([(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6), (0, 2, 6),
                (0, 6, 4), (1, 5, 7), (1, 7, 3)])  # fmt: skip


def box(center=(0.0, 0.0, 4.0), half=(0.3, 0.8, 0.1), frames: int = 6, number: int = 1, **changes) -> SkinnedMesh:
    """A box with one bone, at `center` metres in every frame."""
    fields = dict(name="box", joints=("root",), parents=(-1,), rest_joints=np.zeros((1, 3)),
                  rest_vertices=CORNERS * half, faces=BOX, bone_indices=np.zeros((8, 1)), bone_weights=np.ones((8, 1)),
                  rotations=np.zeros((frames, 1, 3)), trajectory=np.tile(center, (frames, 1)), fps=FPS,
                  person_id=number)  # fmt: skip
    return SkinnedMesh(**{**fields, **changes})


def painted(meshes, colors=(RED, BLUE), camera=CAMERA, frame=0, alpha=1.0, background=0, scale=(1, 1), **eye):
    size = round(SIZE[0] * scale[0]), round(SIZE[1] * scale[1])
    image = np.full((size[1], size[0], 3), background, np.uint8)
    MeshPainter(meshes, colors[: len(meshes)]).draw(image, frame, camera_eye(camera, scale=scale, **eye), alpha)
    return image


def extent(image) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(image.max(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("distortion", [np.zeros(5), (-0.25, 0.08, 0.002, -0.001, 0.0)])
@pytest.mark.parametrize("scale", [(1, 1), (2, 1.5)])
def test_a_mesh_is_where_the_camera_projects_it(distortion, scale):
    camera = Camera(CAMERA.focal, CAMERA.center, SIZE, distortion)
    mesh = box((0.4, -0.1, 4.0))
    pixels = camera.project(mesh.vertices(0)) * scale
    found = extent(painted([mesh], camera=camera, scale=scale))
    np.testing.assert_allclose(found, [*pixels.min(0), *pixels.max(0)], atol=1.01)


def test_edges_are_antialiased():
    image = painted([box(half=(0.31, 0.777, 0.001))])[..., 0]
    solid = image[60, 80]
    assert solid > 100
    values = np.unique(image)
    assert ((values > 0) & (values < 0.9 * solid)).any()
    area = np.prod(np.ptp(CAMERA.project(box(half=(0.31, 0.777, 0.001)).vertices(0)), axis=0))
    assert image.sum() / solid == pytest.approx(area, rel=0.03)


def test_the_nearer_one_is_seen_whatever_the_order():
    near, far = box((0, 0, 3)), box((0.2, 0, 5), number=2)
    one, other = painted([near, far]), painted([far, near], (BLUE, RED))
    np.testing.assert_array_equal(one, other)
    assert one[60, 80, 0] > 2 * one[60, 80, 2]  # red before blue


def test_two_that_cross_share_the_picture():
    """Upright crosswise walls: each is in front on one side."""
    turned = [box(half=(0.7, 0.5, 0.001), rotations=np.tile([0, angle, 0], (1, 1, 1)), frames=1, number=number)
              for number, angle in ((1, 0.6), (2, -0.6))]  # fmt: skip
    picture = painted(turned).astype(int)
    redder = picture[60, :, 0] - picture[60, :, 2]
    # rotated by +0.6 about y (down), the right end of the first wall comes nearer: z = 4 - x tan(0.6)
    assert (redder[84:95] > 30).all() and (redder[66:76] < -30).all()


def test_faces_turned_inside_out_look_the_same():
    mesh = box()
    np.testing.assert_array_equal(painted([mesh]), painted([mesh.replace(faces=mesh.faces[:, ::-1])]))


def test_what_faces_the_light_is_brighter():
    """The lamp is at the upper left of the viewer."""
    def brightness(turn):
        wall = box(half=(0.5, 0.5, 0.001), rotations=np.tile(turn, (1, 1, 1)), frames=1)
        return painted([wall], [(200, 200, 200)])[60, 80, 0]

    left, right = brightness([0, 0.5, 0]), brightness([0, -0.5, 0])
    up, down = brightness([-0.5, 0, 0]), brightness([0.5, 0, 0])
    assert left > right + 20 and up > down + 20


def test_opacity_keeps_the_video_recognisable():
    clear, half = painted([box()], background=100), painted([box()], alpha=0.5, background=100)
    solid = painted([box()])
    np.testing.assert_allclose(half[60, 80], 50 + 0.5 * solid[60, 80], atol=1)
    np.testing.assert_array_equal(clear[60, 80], solid[60, 80])
    assert (half[0, 0] == 100).all() and (painted([box()], alpha=0.0, background=100) == 100).all()


@pytest.mark.parametrize("center", [(0, 0, -4), (0, 0, 0.0), (9, 0, 4), (0, 0, 1e6), (np.nan,) * 3])
def test_who_is_not_in_the_picture_changes_nothing(center):
    seen = painted([box(center), box((0, 0, 3), number=2)])
    np.testing.assert_array_equal(seen, painted([box((0, 0, 3), number=2)], (BLUE,)))


def test_a_body_through_the_camera_or_the_border_is_cut():
    """A floor that reaches under and behind the camera, its triangles in any order and of both orientations."""
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-3, 3, 60), indexing="ij"), -1).reshape(-1, 2)
    points = np.column_stack([grid[:, 0], np.full(len(grid), 0.6), grid[:, 1]])
    cells = (np.arange(39)[:, None] * 60 + np.arange(59)).ravel()
    faces = np.concatenate([[(a, a + 60, a + 61), (a, a + 61, a + 1)] for a in cells])
    faces = np.random.default_rng(0).permutation(np.concatenate([faces, faces[:, ::-1]]))
    picture = painted([box((0, 0, 0), rest_vertices=points, faces=faces, bone_indices=np.zeros((len(points), 1)),
                           bone_weights=np.ones((len(points), 1)))])  # fmt: skip
    far, left = CAMERA.project([[0, 0.6, 3.0], [-1, 0.6, 2.5]])
    assert picture[: int(far[1])].max() == 0 and picture[int(far[1]) + 2 :, 70:90, 0].min() > 0
    assert picture[int(left[1]), : int(left[0]) - 1].max() == 0 < picture[int(left[1]), int(left[0]) + 2, 0]


def test_strong_lenses_bring_nobody_back_into_the_picture():
    """Beyond its range the polynomial of a barrel lens folds far points back to the middle."""
    camera = Camera(CAMERA.focal, CAMERA.center, SIZE, (-0.3, 0, 0, 0, 0))
    beside = box((8.0, 0, 4.0))
    folded = camera.project(beside.vertices(0))
    assert ((folded > 0) & (folded < SIZE)).all(-1).any()
    assert painted([beside], camera=camera).max() == 0


def test_world_meshes_are_seen_by_a_still_and_a_moving_camera():
    rotation = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    still = Camera(CAMERA.focal, CAMERA.center, SIZE, rotation=rotation, translation=(0.1, 0.2, 0.3))
    moving = Camera(CAMERA.focal, CAMERA.center, SIZE, rotation=np.stack([np.eye(3)] * 3 + [rotation] * 3),
                    translation=np.tile([0.1, 0.2, 0.3], (6, 1)))
    mesh = box((0.2, 0.1, 4))
    world = mesh.replace(rest_vertices=mesh.rest_vertices @ rotation, frame="world",
                         trajectory=still.to_world(mesh.trajectory))
    expected = painted([mesh]).astype(int)
    for camera in (still, moving):
        picture = painted([world], camera=camera, frame_name="world", frame=4)
        assert np.abs(picture - expected).max() <= 2


def test_frames_without_the_person_are_skipped():
    mesh = box(trajectory=np.where(np.arange(6)[:, None] < 3, np.nan, [0.0, 0, 4]))
    assert [painted([mesh], frame=frame).max() > 0 for frame in range(7)] == [False] * 3 + [True] * 3 + [False]


# ---- the overlay


def boxes_of(take, people=None):
    people = people or take.people
    return [box(half=(0.25, 0.8, 0.1), trajectory=person.motion.trajectory, number=person.id) for person in people]


def test_overlay_shows_the_mesh_in_the_video_and_in_both_views():
    take = make_take(make_person(6), make_person(6, 2, x=-0.8, depth=5.0))
    frame = np.full((120, 160, 3), 90, np.uint8)
    bones = overlay.Overlay(take, (640, 400))
    meshes = overlay.Overlay(take, (640, 400), boxes_of(take, take.people[1:]))
    before, after = bones.draw(0.1, frame).astype(int), meshes.draw(0.1, frame).astype(int)
    changed = np.abs(before - after).sum(-1) > 60
    width, height = meshes.layout.width, meshes.layout.height
    views = np.array_split(changed[:height, width:], 2, axis=0 if meshes._panel.stacked else 1)
    assert changed[:height, :width].mean() > 0.01 and all(view.mean() > 0.005 for view in views)
    assert not changed[height:].any()  # the legend stays, for one has no mesh


def test_legend_goes_when_nobody_has_bones():
    take = make_take(make_person(6))
    drawn = [overlay.Overlay(take, (640, 400), meshes).draw(0.0, np.zeros((120, 160, 3), np.uint8)).copy()
             for meshes in (None, boxes_of(take))]  # fmt: skip
    footer = [picture[overlay.plan_layout(SIZE, (640, 400)).height :] for picture in drawn]
    close = [(np.abs(part.astype(int) - panel.LEFT_COLOR).sum(-1) < 30).any() for part in footer]
    assert close == [True, False]


def test_panel_hides_the_farther_mesh():
    take = make_take(make_person(6), make_person(6, 2, depth=5.5))
    meshes = boxes_of(take)
    picture = overlay.Overlay(take, (640, 400), meshes)
    view = picture._panel.front
    image = np.zeros((view.size[1], view.size[0], 3), np.uint8)
    view.draw(image, 0)
    (x, y), _ = view.project(panel._panel_axes("camera", take.camera) @ meshes[0].trajectory[0], view.scene.targets[0])
    color = image[int(y), int(x)].astype(int)
    assert np.ptp(color) < 25  # the near one is white, the far one green


def test_written_video_shows_meshes(tmp_path):
    from lifting.video import open_video

    take = make_take(make_person(6))
    frames = ((index / FPS, np.zeros((120, 160, 3), np.uint8)) for index in range(6))
    path = overlay.write_overlay(take, frames, tmp_path / "o.mp4", meshes=boxes_of(take), max_size=(320, 200))
    with open_video(path) as reader:
        pictures = [frame.rgb for frame in reader]
    x, y = CAMERA.project(take.people[0].motion.trajectory[3]) * overlay.plan_layout(SIZE, (320, 200)).width / SIZE[0]
    assert len(pictures) == 6 and pictures[3][int(y), int(x)].min() > 60


def test_meshes_of_another_take_are_refused():
    take = make_take(make_person(6))
    for meshes, problem in (
        ([box(number=7)], "mesh of person 7, expected one of the take's people \\[1\\]"),
        ([box(frames=5)], "has 5 frames, the take has 6"),
        ([box(), box(frame="world")], "partly in the camera's frame"),
    ):
        with pytest.raises(ValueError, match=problem):
            check_meshes(meshes, take)
        with pytest.raises(ValueError, match=problem):
            overlay.Overlay(take, (320, 200), meshes)
