"""Which data set a file or folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from published_layouts import (
    H36M_SIDES,
    made_up_cameras,
    pixels,
    raw_motion,
    write_cdf,
    write_data_2d,
    write_data_3d,
    write_metadata_xml,
)
from random_clips import random_clips
from walking_figure import walking_piece

from lifting.datasets.clip_file import ClipFile, write_clips
from lifting.datasets.mocap import write_mocap
from lifting.datasets.mocap_rig import MocapRig
from lifting.datasets.opening import DATASETS, open_clips


def write_npz(folder: Path, keypoints: str, dataset: str = "h36m", labels: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    takes = {"S1": {"Walking": [pixels(5)] * 4}}
    if labels:
        write_data_3d(folder / f"data_3d_{dataset}.npz", {"S1": {"Walking": raw_motion(5) / 1000}})
    write_metadata_xml(folder / "metadata.xml", made_up_cameras())
    return write_data_2d(folder / f"data_2d_{dataset}_{keypoints}.npz", takes, keypoints_symmetry=H36M_SIDES,
                         video_metadata={"S1": {"w": 1000, "h": 1000}})  # fmt: skip


def test_clip_files_are_opened_by_name_folder_or_subfolder(tmp_path):
    path = tmp_path / "data" / "mine" / "clips.h5"
    write_clips(path, random_clips([4, 5]), name="mine")
    for given in (path, str(path), path.parent, path.parent.parent):
        clips = open_clips(given)
        assert isinstance(clips, ClipFile) and clips.frames == 9
    with pytest.raises(ValueError, match="that it was written with, got the choice 'gt'"):
        open_clips(path, keypoints="gt")


def test_data_is_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no data at .*data; looked for a clip file"):
        open_clips()
    write_mocap(tmp_path / "data" / "mocap" / "mocap17.h5", [walking_piece(frames=20, feet=False)])
    assert isinstance(open_clips(), MocapRig) and open_clips().name == "mocap gt"


def test_motion_capture_has_two_kinds_of_keypoints(tmp_path):
    write_mocap(tmp_path / "mocap17.h5", [walking_piece(frames=20, feet=False)])
    assert open_clips(tmp_path, keypoints="noisy").name == "mocap noisy"
    with pytest.raises(ValueError, match="has the 2D keypoints gt, noisy, not 'cpn'"):
        open_clips(tmp_path, keypoints="cpn")


def test_keypoints_are_chosen_where_there_are_several(tmp_path):
    one = write_npz(tmp_path, "cpn_ft_h36m_dbb")
    assert open_clips(tmp_path).name == "h36m cpn_ft_h36m_dbb" and open_clips(one).infos[0].labelled
    two = write_npz(tmp_path, "gt")
    with pytest.raises(ValueError, match="2D keypoints cpn_ft_h36m_dbb, gt, none were chosen; choose one of them"):
        open_clips(tmp_path)
    assert open_clips(tmp_path, keypoints="gt").name == open_clips(two).name == "h36m gt"
    assert open_clips(tmp_path / "data_3d_h36m.npz", keypoints="gt").name == "h36m gt"
    with pytest.raises(ValueError, match="2D keypoints gt, not 'cpn'"):
        open_clips(two, keypoints="cpn")
    one.unlink(), two.unlink()
    with pytest.raises(FileNotFoundError, match=r"has data_3d_h36m\.npz but no data_2d_h36m_\*\.npz"):
        open_clips(tmp_path)


def test_several_data_sets_are_listed(tmp_path):
    write_npz(tmp_path / "h36m", "gt")
    write_npz(tmp_path / "own", "mine", "custom", labels=False)
    with pytest.raises(ValueError, match=r"holds 2 data sets.*: h36m .*data_2d_h36m_\*\.npz; custom .*_custom_\*\.npz"):
        open_clips(tmp_path)
    assert open_clips(tmp_path / "own").name == "custom mine"


def test_archives_take_the_keypoints_beside_them(tmp_path):
    pytest.importorskip("cdflib")
    write_npz(tmp_path, "cpn")
    write_cdf(tmp_path / "S1" / "MyPoseFeatures" / "D3_Positions" / "Walking.cdf", raw_motion(5))
    assert open_clips(tmp_path).name == "h36m gt" and open_clips(tmp_path, keypoints="cpn").name == "h36m cpn"
    with pytest.raises(ValueError, match="2D keypoints gt, cpn, not 'sh'"):
        open_clips(tmp_path, keypoints="sh")


def test_what_is_not_known_is_said_with_what_is(tmp_path):
    (tmp_path / "notes.txt").write_text("no data")
    (tmp_path / "numbers.npz").write_bytes(b"")
    (tmp_path / "text.h5").write_text("no HDF5")
    for path in (tmp_path, *tmp_path.iterdir()):
        with pytest.raises(FileNotFoundError, match="holds no data set that is known; looked for") as raised:
            open_clips(path)
        assert all(dataset.looked_for in str(raised.value) for dataset in DATASETS.values())
