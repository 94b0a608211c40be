"""Clips, their descriptions, and choosing among them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from random_clips import random_clip, random_clips

from lifting.cameras import Camera
from lifting.datasets.clips import ClipList, ClipSet, JoinedClips, camera_motion, slice_camera, subject_key
from lifting.skeletons import get_skeleton

TAKES = (("S1", "Walking"), ("S1", "Walking 1"), ("S11", "Sitting"), ("Train/S1", "Jog 1"))


def named_clips(labelled: bool = True) -> ClipList:
    return ClipList([replace(random_clip(5 + n, subject=subject, action=action, seed=n, labelled=labelled), view=view)
                     for n, (subject, action) in enumerate(TAKES) for view in "ab"], "made up")  # fmt: skip


def names(clips: ClipSet) -> list[str]:
    return [info.name for info in clips.infos]


# ---- one clip


def test_names_and_description_say_what_the_clip_is():
    clip = random_clip(7, subject="S5", action="Walking 1")
    assert (clip.take, clip.name, len(clip)) == ("S5/Walking 1", "S5/Walking 1/a", 7)
    info = clip.info
    assert (info.name, info.take, info.frames, info.fps, info.labelled) == (clip.name, clip.take, 7, 50, True)
    assert info.image_size == clip.keypoints.image_size and info.camera == clip.camera
    assert not random_clip(7, labelled=False).info.labelled


def test_slice_cuts_every_part():
    clip = random_clip(9)
    part = clip.slice(2, 6)
    np.testing.assert_array_equal(part.keypoints.xy, clip.keypoints.xy[2:6])
    np.testing.assert_array_equal(part.motion.absolute, clip.motion.absolute[2:6])
    assert part.camera == clip.camera and part == clip.slice(1, 7).slice(1, 5) != clip


def test_thinned_clips_keep_every_so_manieth_frame_and_their_duration():
    clip = random_clip(11)
    turning = Camera(clip.camera.focal, clip.camera.center, clip.camera.image_size,
                     rotation=np.broadcast_to(np.eye(3), (11, 3, 3)), translation=np.arange(33.0).reshape(11, 3))
    thin = replace(clip, camera=turning).thin(5)
    assert (len(thin), thin.keypoints.fps, thin.motion.fps) == (3, 10, 10)
    for index, frame in enumerate((0, 5, 10)):
        one = replace(clip, camera=turning).slice(frame, frame + 1)
        assert np.array_equal(thin.keypoints.xy[index], one.keypoints.xy[0], equal_nan=True)
        assert np.array_equal(thin.motion.absolute[index], one.motion.absolute[0], equal_nan=True)
        assert np.array_equal(thin.camera.translation[index], one.camera.translation[0])
    assert clip.thin(1) == clip and random_clip(7, labelled=False).thin(3).motion is None
    with pytest.raises(ValueError, match="got every 0th frame .* at least 1"):
        clip.thin(0)


def test_slice_cuts_the_poses_of_a_moving_camera():
    still = Camera.from_focal(900, (1000, 1002))
    moving = replace(still, translation=np.arange(12.0).reshape(4, 3))
    turning = replace(moving, rotation=np.stack([np.eye(3)] * 4))
    assert slice_camera(still, 1, 3) is still
    np.testing.assert_array_equal(slice_camera(moving, 1, 3).translation, moving.translation[1:3])
    assert slice_camera(turning, 1, 3).rotation.shape == (2, 3, 3)
    clip = replace(random_clip(4, labelled=False), camera=turning)
    assert clip.slice(3).camera.translation.tolist() == [[9, 10, 11]]


@pytest.mark.parametrize("change, message", [
    (lambda clip: {"motion": clip.motion.slice(1)}, "7 frames of keypoints at 50 fps but 6"),
    (lambda clip: {"motion": clip.motion.replace(fps=25)}, "50 fps but 7 of motion at 25"),
    (lambda clip: {"motion": clip.motion.replace(frame="world")}, "expected 'camera'"),
    (lambda clip: {"camera": Camera.from_focal(900, (640, 480))}, r"a camera of \(640, 480\)"),
])  # fmt: skip
def test_parts_that_do_not_belong_together_are_refused(change, message):
    clip = random_clip(7)
    with pytest.raises(ValueError, match=f"S1/Walking/a has .*{message}"):
        replace(clip, **change(clip))


@pytest.mark.parametrize("layout", ["h36m17", "mpii16"])  # the root is the first joint of one, not of the other
def test_camera_motion_is_relative_to_the_root(layout):
    skeleton = get_skeleton(layout)
    points = np.random.default_rng(0).normal((0, 0, 5), 1, (4, skeleton.num_joints, 3))
    motion = camera_motion(points, layout, 25)
    np.testing.assert_allclose(motion.absolute, points, atol=1e-6)
    assert not motion.joints[:, skeleton.root].any() and motion.frame == "camera" and motion.fps == 25


@pytest.mark.parametrize("spellings", [("S14", "s14", "14", "014", " S14 "), ("S1", "1", "01"), ("TS1", "ts1"),
                                       ("Train/S1", "train/s1"), ("unknown", "Unknown")])  # fmt: skip
def test_spellings_of_a_subject_share_a_key(spellings):
    assert len({subject_key(name) for name in spellings}) == 1


def test_different_subjects_have_different_keys():
    subjects = ("S1", "S11", "S10", "TS1", "Train/S1", "Validate/S1", "1a", "ss1")
    assert len({subject_key(name) for name in subjects}) == len(subjects)


# ---- sets


def test_a_list_describes_and_reads_its_clips():
    clips = [random_clip(5, action="a"), random_clip(8, action="b", labelled=False)]
    made = ClipList(clips)
    assert (len(made), made.frames, made.name) == (2, 13, "memory") and list(made) == clips
    assert made.skeleton_in.name == made.skeleton_out.name == "h36m17"
    assert made.read(1, 2, 5) == clips[1].slice(2, 5) and made.read(0, 4) == clips[0].slice(4)
    assert pickle.loads(pickle.dumps(made)).read(1) == clips[1]  # noqa: S301
    assert ClipList(clips[1:]).skeleton_out is None


@pytest.mark.parametrize("index", [-1, 2])
def test_a_clip_that_does_not_exist_is_refused(index):
    with pytest.raises(IndexError, match="memory has 2 clips"):
        random_clips([5, 6]).read(index)


@pytest.mark.parametrize("start, stop", [(0, 7), (3, 3), (4, 2), (-1, 3), (6, None)])
def test_frames_that_do_not_exist_are_refused(start, stop):
    with pytest.raises(ValueError, match=r"take 1/a has 6 frames, got the range .*within 0\.\.6"):
        random_clips([5, 6]).read(1, start, stop)


def test_a_list_needs_clips_with_names_of_their_own_and_one_layout():
    with pytest.raises(ValueError, match="memory has no clips"):
        ClipList([])
    with pytest.raises(ValueError, match="two clips called 'S1/Walking/a'"):
        ClipList([random_clip(3), random_clip(4)])
    other = random_clip(3, labelled=False)
    coco = replace(other, action="b", keypoints=other.keypoints.replace(skeleton="coco17"))
    with pytest.raises(ValueError, match="layouts h36m17 and coco17"):
        ClipList([other, coco])
    labelled = random_clip(3)
    with pytest.raises(ValueError, match="motions of memory are in the layouts"):
        ClipList([labelled, replace(labelled, action="b", motion=labelled.motion.replace(skeleton="coco17"))])


@pytest.mark.parametrize("subjects, actions, expected", [
    (None, None, [0, 1, 2, 3, 4, 5, 6, 7]),
    (["1"], None, [0, 1, 2, 3]),
    (["s11", "S01"], None, [0, 1, 2, 3, 4, 5]),
    (["train/s1"], None, [6, 7]),
    (None, ["Walking"], [0, 1, 2, 3]),
    (None, ["Walking 1", "J"], [2, 3, 6, 7]),
    (["S1", "S11"], ["Sit"], [4, 5]),
])  # fmt: skip
def test_clips_are_selected_by_subject_and_beginning_of_action(subjects, actions, expected):
    clips = named_clips()
    assert names(clips.select(subjects, actions)) == [clips.infos[index].name for index in expected]


@pytest.mark.parametrize("subjects, actions, message", [
    (["S2", "S1"], None, "made up has no subject S2; it has S1, S11, Train/S1."),
    (None, ["Wolk"], "no action that begins with Wolk; it has Walking, Sitting, Jog."),
    (["S11"], ["Jog"], "no clip of the subjects S11 with the actions Jog"),
    ([], None, "no clip of the subjects"),
    ("S1", None, "subjects are given as a list of names, got the text 'S1'"),
])  # fmt: skip
def test_a_selection_without_clips_says_what_there_is(subjects, actions, message):
    with pytest.raises(ValueError, match=message):
        named_clips().select(subjects, actions)


def test_subsets_of_subsets_read_the_right_clips():
    clips = named_clips()
    part = clips.subset([5, 0, 3]).subset([2, 0])
    assert names(part) == [clips.infos[3].name, clips.infos[5].name]
    assert part.read(0, 1, 4) == clips.read(3, 1, 4) and part.name == "made up"
    with pytest.raises(IndexError, match="has 8 clips, got the index 8"):
        clips.subset([8])
    with pytest.raises(ValueError, match="two clips called"):
        clips.subset([1, 1])


def test_clips_without_labels_keep_all_else():
    clips = named_clips()
    bare = clips.without_labels()
    assert not any(info.labelled for info in bare.infos) and bare.skeleton_out is None
    assert bare.read(2) == replace(clips.read(2), motion=None)
    assert bare.without_labels().select(["S1"]).read(0) == bare.read(0)
    mixed = ClipList([random_clip(3), random_clip(3, action="b", labelled=False)])
    assert mixed.subset([1]).skeleton_out is None and mixed.subset([0]).skeleton_out is not None


def test_joined_sets_are_read_one_after_the_other():
    first, second = named_clips(), ClipList([random_clip(4, subject="S77", labelled=False)], "more")
    joined = JoinedClips([first, second])
    assert joined.name == "made up and more" and names(joined) == [*names(first), *names(second)]
    assert joined.read(3, 1, 4) == first.read(3, 1, 4) and joined.read(len(first)) == second.read(0)
    assert joined.skeleton_in == first.skeleton_in and joined.skeleton_out == first.skeleton_out


def test_joined_sets_have_one_clip_of_a_name():
    with pytest.raises(ValueError, match="two clips called"):
        JoinedClips([named_clips(), named_clips()])
