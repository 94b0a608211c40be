"""Clip files: exact, read range by range, by many processes, and never half written."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_clips import CAMERAS, random_clip, random_clips

from lifting.datasets import clip_file
from lifting.datasets.clip_file import ClipFile, is_clip_file, write_clips
from lifting.datasets.clips import ClipList


def varied_clips() -> ClipList:
    """Clips with and without labels, trajectory, camera, motion of the camera and holes, at several rates."""
    first, second, third = (random_clip(frames, CAMERAS[n % 2], action=f"take {n}", seed=n)
                            for n, frames in enumerate((70, 1, 130)))  # fmt: skip
    moving = replace(second.camera, translation=np.array([[0.1, 0.2, 0.3]]), rotation=second.camera.rotation[None])
    holes = first.motion.joints.copy()
    holes[3:5] = np.nan
    return ClipList([
        replace(first, motion=first.motion.replace(joints=holes)),
        replace(second, camera=moving, view="β"),
        replace(third, motion=third.motion.replace(trajectory=None), subject="Train/S1", camera=None),
        random_clip(66, subject="S2", labelled=False),
        replace(random_clip(64, subject="S3"), motion=first.motion.slice(0, 64).replace(fps=25),
                keypoints=first.keypoints.slice(0, 64).replace(fps=25)),
    ], "varied")  # fmt: skip


@pytest.fixture(scope="module")
def clips() -> ClipList:
    return varied_clips()


@pytest.fixture(scope="module")
def path(clips, tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "varied.h5"
    assert write_clips(path, clips, name="varied") == len(clips)
    return path


def test_everything_comes_back_exactly(clips, path):
    file = ClipFile(path)
    assert file.infos == clips.infos and file.name == "varied"
    assert (file.skeleton_in, file.skeleton_out) == (clips.skeleton_in, clips.skeleton_out)
    assert all(read == clip for read, clip in zip(file, clips, strict=True)) and len(file) == 5
    assert file.read(2).motion.trajectory is None and file.read(3).motion is None


@given(data=st.data())
def test_any_range_is_the_same_range_of_the_whole(clips, path, data):
    file = ClipFile(path)
    index = data.draw(st.integers(0, len(clips) - 1))
    start = data.draw(st.integers(0, clips.infos[index].frames - 1))
    stop = data.draw(st.integers(start + 1, clips.infos[index].frames))
    assert file.read(index, start, stop) == clips.read(index, start, stop)


def test_an_independent_reader_finds_plain_arrays(clips, path):
    with h5py.File(path) as file:
        entries = [json.loads(text) for text in file["clips"].asstr()]
        assert {file[name].dtype.str for name in ("xy", "score", "joints", "trajectory")} == {"<f4"}
        assert file["xy"].shape == (clips.frames, 17, 2) and file["joints"].shape == (70 + 1 + 130 + 64, 17, 3)
        entry = entries[4]
        at = slice(entry["start"], entry["start"] + entry["frames"])
        np.testing.assert_array_equal(file["xy"][at], clips.read(4).keypoints.xy)
        at = slice(entry["labels"], entry["labels"] + entry["frames"])
        np.testing.assert_array_equal(file["trajectory"][at], clips.read(4).motion.trajectory)
        assert (entry["subject"], entry["fps"], entry["image_size"]) == ("S3", 25, [1000, 1002])
        assert json.loads(file.attrs["skeleton_in"])["joints"][0] == "hip"


def test_a_selection_without_labels_reads_from_the_file(clips, path):
    part = ClipFile(path).select(["s3", "2"]).without_labels()
    assert [info.subject for info in part.infos] == ["S2", "S3"]
    assert part.read(1, 5, 9) == replace(clips.read(4, 5, 9), motion=None)


def _sum_of(file: ClipFile, index: int) -> float:
    return float(np.nansum(file.read(index, 0, 1).keypoints.xy))


def test_processes_read_side_by_side(clips, path):
    file = ClipFile(path)
    expected = [_sum_of(file, index) for index in range(len(file))]  # the file is open when it is handed over
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_sum_of, [file] * len(file), range(len(file)))) == expected


def test_a_forked_process_opens_the_file_anew(path, monkeypatch):
    file = ClipFile(path)
    before = file.read(0)
    opened = []
    monkeypatch.setattr(clip_file, "_open", lambda p, original=clip_file._open: opened.append(p) or original(p))
    assert file.read(0) == before and opened == []
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert file.read(0) == before == file.read(0) and opened == [path]
    assert pickle.loads(pickle.dumps(file)).read(0) == before  # noqa: S301


def test_clips_are_written_as_they_come(tmp_path):
    alive = []

    def produce():
        for n in range(4):
            alive.append(n)
            yield random_clip(5, action=f"take {n}", seed=n)

    path = tmp_path / "new" / "streamed.h5"
    assert write_clips(path, produce(), name="streamed") == 4 and alive == [0, 1, 2, 3]
    assert ClipFile(path).frames == 20


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "clips.h5"
    write_clips(path, random_clips([5]), name="old")
    before = path.read_bytes()

    def fail():
        yield random_clip(5)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_clips(path, fail(), name="new")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["clips.h5"]


CLIP = random_clip(3)
IN_COCO = replace(CLIP, action="b", keypoints=CLIP.keypoints.replace(skeleton="coco17"))


@pytest.mark.parametrize("clips, message", [
    ([], "empty has no clips"),
    ([CLIP, CLIP], "two clips called 'S1/Walking/a'"),
    ([CLIP, IN_COCO], "h36m17 and coco17"),
    ([replace(CLIP, motion=CLIP.motion.replace(sigma=np.ones((3, 17))))], "has a sigma, expected the truth"),
])  # fmt: skip
def test_what_cannot_be_kept_is_refused(tmp_path, clips, message):
    with pytest.raises(ValueError, match=message):
        write_clips(tmp_path / "clips.h5", clips, name="empty")
    assert not os.listdir(tmp_path)


# ---- damaged and foreign files


def _change(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def _replace_clips(change):
    def apply(file):
        entries = [json.loads(text) for text in file["clips"].asstr()]
        change(entries)
        del file["clips"]
        file["clips"] = [json.dumps(entry) for entry in entries]

    return apply


@pytest.mark.parametrize("change, message", [
    (lambda file: file.attrs.update(format="lift clips 9"), "of the format 'lift clips 9', expected 'lift clips 1'"),
    (lambda file: file.attrs.pop("format"), "of the format 'none'"),
    (lambda file: file.pop("joints"), "joints"),
    (lambda file: file.pop("clips"), "clips"),
    (lambda file: file["xy"].resize(10, axis=0), "xy has 10 frames, the clips have 11"),
    (lambda file: file.attrs.update(skeleton_in="{"), "cannot be read as a clip file"),
    (lambda file: file.attrs.pop("skeleton_in"), "cannot be read as a clip file"),
    (_replace_clips(lambda entries: entries[0].pop("subject")), "subject"),
    (_replace_clips(lambda entries: entries.clear() or entries.append(1)), "cannot be read as a clip file"),
    (_replace_clips(lambda entries: entries[1].update(action="take 0")), "two clips called"),
    (_replace_clips(lambda entries: entries[0]["camera"].update(focal=-1)), "focal"),
    (_replace_clips(lambda entries: entries[1].update(start=8)), "take 1/a does not begin where"),
    (_replace_clips(lambda entries: entries[1].update(labels=0)), "take 1/a does not begin where"),
])  # fmt: skip
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, change, message):
    path = tmp_path / "clips.h5"
    write_clips(path, random_clips([5, 6]), name="small")
    with pytest.raises(ValueError, match=message) as raised:
        ClipFile(_change(path, change))
    assert str(path) in str(raised.value) and "lift convert dataset" in str(raised.value)


def test_a_cut_file_and_a_missing_one_are_refused(tmp_path):
    path = tmp_path / "clips.h5"
    write_clips(path, random_clips([50]), name="small")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cannot be read as a clip file"):
        ClipFile(path)
    with pytest.raises(ValueError, match="cannot be read as a clip file"):
        is_clip_file(path)
    with pytest.raises(FileNotFoundError, match="there is no clip file .*lift convert dataset"):
        ClipFile(tmp_path / "none.h5")


def test_clip_files_are_told_from_others(path, tmp_path):
    assert is_clip_file(path)
    other = tmp_path / "other.h5"
    h5py.File(other, "w").close()
    (tmp_path / "text.h5").write_text("no HDF5")
    assert not is_clip_file(other) and not is_clip_file(tmp_path / "text.h5")
