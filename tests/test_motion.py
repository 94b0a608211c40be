"""Motion, Person and Take: what they accept and that their parts must belong together."""

from __future__ import annotations

import numpy as np
import pytest

from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Person, Take

SIZE, FPS, FRAMES = (640, 480), 50.0, 5


def motion(**changes) -> Motion:
    rng = np.random.default_rng(0)
    fields = {"joints": rng.normal(size=(FRAMES, 17, 3)), "trajectory": rng.normal(size=(FRAMES, 3)),
              "sigma": rng.uniform(0, 1, (FRAMES, 17)), "skeleton": "h36m17", "fps": FPS}
    return Motion(**{**fields, **changes})


def keypoints(frames: int = FRAMES, **changes) -> Keypoints2D:
    fields = {"xy": np.ones((frames, 17, 2)), "score": None, "skeleton": "coco17", "image_size": SIZE, "fps": FPS}
    return Keypoints2D(**{**fields, **changes})


def take(**changes) -> Take:
    fields = {"name": "clip", "image_size": SIZE, "fps": FPS, "times": np.arange(FRAMES) / FPS,
              "camera": Camera.from_fov(60, SIZE), "people": [Person(3, keypoints(), motion()), Person(1, keypoints())]}
    return Take(**{**fields, **changes})


def test_absolute_joints_are_the_sum():
    moved = motion(joints=np.ones((FRAMES, 17, 3)), trajectory=np.full((FRAMES, 3), [1, 2, 3]))
    np.testing.assert_array_equal(moved.absolute, np.broadcast_to([2, 3, 4], (FRAMES, 17, 3)))
    assert moved.joints.dtype == moved.absolute.dtype == np.float32
    with pytest.raises(ValueError, match="no trajectory"):
        motion(trajectory=None).absolute  # noqa: B018


def test_slices_cut_every_array():
    part = motion().slice(1, 3)
    np.testing.assert_array_equal(part.joints, motion().joints[1:3])
    np.testing.assert_array_equal(part.trajectory, motion().trajectory[1:3])
    np.testing.assert_array_equal(part.sigma, motion().sigma[1:3])
    assert len(motion(trajectory=None, sigma=None).slice(2)) == motion().num_frames - 2
    with pytest.raises(ValueError, match="0 frames"):
        motion().slice(3, 3)


def test_equality_looks_into_the_arrays():
    joints = motion().joints.copy()
    joints[0] = np.nan
    assert motion(joints=joints) == motion(joints=joints.copy())
    assert motion() != motion(joints=joints)
    assert motion() != motion(sigma=None)
    assert take() == take()
    assert take() != take(name="other")
    assert take() != take(camera=Camera.from_fov(61, SIZE))


@pytest.mark.parametrize(("changes", "message"), [
    ({"joints": np.zeros((FRAMES, 16, 3))}, r"joints must have the shape \(any, 17, 3\), got \(5, 16, 3\)"),
    ({"joints": np.zeros((0, 17, 3)), "trajectory": None, "sigma": None}, "0 frames"),
    ({"joints": np.full((FRAMES, 17, 3), np.inf)}, "infinite"),
    ({"trajectory": np.zeros((FRAMES + 1, 3))}, r"trajectory must have the shape \(5, 3\)"),
    ({"sigma": np.zeros((FRAMES, 16))}, "sigma must have the shape"),
    ({"sigma": np.full((FRAMES, 17), -1)}, "sigma must not be negative"),
    ({"frame": "room"}, "one of camera, world, got 'room'"),
    ({"fps": 0}, "fps must be"),
    ({"skeleton": "nobody"}, "unknown skeleton"),
])
def test_a_bad_motion_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        motion(**changes)


def test_a_person_spans_the_same_frames_throughout():
    with pytest.raises(ValueError, match="6 frames of keypoints but 5 of motion"):
        Person(0, keypoints(6), motion())
    with pytest.raises(ValueError, match="keypoints at 25 fps but motion at 50"):
        Person(0, keypoints(fps=25), motion())
    for number in (-1, 1.5, "1", True):
        with pytest.raises(ValueError, match="whole number from 0"):
            Person(number, keypoints())
    assert type(Person(np.int64(4), keypoints()).id) is int


def test_people_are_found_by_id():
    whole = take()
    assert whole.person(1) is whole.people[1]
    assert len(whole) == whole.num_frames == FRAMES
    with pytest.raises(ValueError, match="no person 2 in the take 'clip'; known ids: 3, 1"):
        whole.person(2)


def test_metadata_is_plain_and_a_copy():
    given = {"warnings": ("a", "b"), "n": 1}
    assert take(metadata=given).metadata == {"warnings": ["a", "b"], "n": 1}
    for bad in ({"a": np.ones(3)}, {"a": float("nan")}, [1], None):
        with pytest.raises(ValueError, match="metadata of a take must be"):
            take(metadata=bad)


@pytest.mark.parametrize(("changes", "message"), [
    ({"times": np.arange(FRAMES - 1)}, "person 3 has 5 frames, the take has 4"),
    ({"times": []}, "strictly increasing"),
    ({"times": np.zeros(FRAMES)}, "strictly increasing"),
    ({"times": np.full(FRAMES, np.nan)}, "strictly increasing"),
    ({"fps": 25}, "at 50 fps, the take has"),
    ({"image_size": (64, 48), "camera": Camera.from_fov(60, (64, 48))}, r"person 3 has keypoints of \(640, 480\)"),
    ({"camera": Camera.from_fov(60, (64, 48))}, r"must have its image size \(640, 480\)"),
    ({"camera": None}, "the camera of a take"),
    ({"people": [Person(1, keypoints()), Person(1, keypoints())]}, r"unique, got \[1, 1\]"),
    ({"people": [Person(1, keypoints()), Person(2, keypoints(skeleton="h36m17"))]}, "share one keypoint skeleton"),
    ({"people": [Person(1, keypoints(), motion()), Person(2, keypoints(), motion(frame="world"))]}, "share one frame"),
])
def test_parts_that_do_not_belong_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        take(**changes)


def test_a_take_may_be_empty_of_people():
    assert take(people=[]).people == ()
