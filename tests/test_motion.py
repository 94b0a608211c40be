"""Motion, Person and Take: what they accept and that their parts must belong together."""

from __future__ import annotations

import numpy as np
import pytest

from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import BodyMotion, Motion, Person, Take

SIZE, FPS, FRAMES = (640, 480), 50.0, 5


def motion(**changes) -> Motion:
    rng = np.random.default_rng(0)
    fields = {"joints": rng.normal(size=(FRAMES, 17, 3)), "trajectory": rng.normal(size=(FRAMES, 3)),
              "sigma": rng.uniform(0, 1, (FRAMES, 17)), "skeleton": "h36m17", "fps": FPS}
    return Motion(**{**fields, **changes})


def body_motion(frames: int = FRAMES, **changes) -> BodyMotion:
    rng = np.random.default_rng(1)
    fields = {"rotations": rng.normal(size=(frames, 22, 3)), "trajectory": rng.normal(size=(frames, 3)),
              "shape": rng.normal(size=10), "body": "lite", "fps": FPS, "joint_sigma": rng.uniform(size=(frames, 22)),
              "rotation_sigma": rng.uniform(size=(frames, 22))}
    return BodyMotion(**{**fields, **changes})


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


def test_a_body_motion_is_float32_and_sliced_in_every_array():
    whole = body_motion()
    part = whole.slice(1, 3)
    for name in ("rotations", "trajectory", "joint_sigma", "rotation_sigma"):
        assert getattr(whole, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[1:3])
    np.testing.assert_array_equal(part.shape, whole.shape)
    assert len(whole) == whole.num_frames == FRAMES and (whole.frame, whole.body) == ("camera", "lite")
    assert body_motion(joint_sigma=None, rotation_sigma=None).slice(2).joint_sigma is None
    with pytest.raises(ValueError, match="0 frames"):
        whole.slice(3, 3)


def test_body_motions_are_compared_by_value():
    assert body_motion() == body_motion()
    for changes in ({"body": "smpl"}, {"shape": np.zeros(10)}, {"rotation_sigma": None}, {"frame": "world"}):
        assert body_motion() != body_motion(**changes)
    assert body_motion() != motion()


def test_absent_frames_of_a_body_are_nan():
    rotations, trajectory = np.zeros((FRAMES, 22, 3)), np.zeros((FRAMES, 3))
    rotations[0], trajectory[:2] = np.nan, np.nan
    absent = body_motion(rotations=rotations, trajectory=trajectory)
    assert absent.present.tolist() == [False, False, True, True, True]
    assert absent == body_motion(rotations=rotations.copy(), trajectory=trajectory.copy())


@pytest.mark.parametrize(("changes", "message"), [
    ({"rotations": np.zeros((FRAMES, 22, 4))}, r"rotations must have the shape \(any, any, 3\), got \(5, 22, 4\)"),
    ({"rotations": np.zeros((FRAMES, 22, 3, 3))}, r"rotations must have the shape"),
    ({"rotations": np.zeros((0, 22, 3))}, "0 frames and 22 joints"),
    ({"rotations": np.zeros((FRAMES, 0, 3))}, "5 frames and 0 joints"),
    ({"rotations": np.full((FRAMES, 22, 3), np.inf)}, "rotations must be finite or NaN"),
    ({"trajectory": np.zeros((4, 3))}, r"trajectory must have the shape \(5, 3\)"),
    ({"trajectory": None}, "trajectory must be an array"),
    ({"shape": np.zeros((FRAMES, 10))}, r"shape must have the shape \(any\)"),
    ({"shape": [np.nan]}, "shape of a body must be finite"),
    ({"body": ""}, "the name of its body, got ''"),
    ({"body": None}, "the name of its body, got None"),
    ({"joint_sigma": np.zeros((FRAMES, 21))}, r"joint_sigma must have the shape \(5, 22\)"),
    ({"rotation_sigma": np.full((FRAMES, 22), -0.5)}, "rotation_sigma must not be negative, got -0.5 rad"),
    ({"frame": "room"}, "one of camera, world, got 'room'"),
    ({"fps": -1}, "fps must be"),
])
def test_a_bad_body_motion_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        body_motion(**changes)


def test_the_body_of_a_person_spans_the_same_frames():
    person = Person(0, keypoints(), motion(), body_motion())
    assert person.body == body_motion() and Person(0, keypoints(), body=body_motion()).motion is None
    with pytest.raises(ValueError, match="5 frames of keypoints but 6 of body"):
        Person(0, keypoints(), body=body_motion(6))
    with pytest.raises(ValueError, match="keypoints at 50 fps but body at 25"):
        Person(0, keypoints(), body=body_motion(fps=25))
    with pytest.raises(ValueError, match="motion in the frame 'camera' but a body in 'world'"):
        Person(0, keypoints(), motion(), body_motion(frame="world"))
    with pytest.raises(ValueError, match="share one frame"):
        take(people=[Person(0, keypoints(), motion()), Person(1, keypoints(), body=body_motion(frame="world"))])


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
