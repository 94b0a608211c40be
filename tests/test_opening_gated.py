"""Which of the gated data sets a folder holds."""

from __future__ import annotations

import numpy as np
import pytest
from gated_layouts import threedpw_sequence, write_humaneva, write_mpi_test, write_mpi_train, write_sequence

from lifting.datasets.opening import open_clips


def test_humaneva_takes_its_calibrations(tmp_path):
    clips = open_clips(write_humaneva(tmp_path))
    assert clips.name == "humaneva15 gt" and clips.infos[0].camera.distortion[0] == -0.2
    (tmp_path / "S1" / "Calibration_Data" / "C1.cal").unlink()
    with pytest.raises(FileNotFoundError, match=r"C1\.cal"):
        open_clips(tmp_path)


def test_the_layout_of_humaneva_without_names_is_refused(tmp_path):
    (tmp_path / "data_2d_humaneva20_gt.npz").touch()
    with pytest.raises(ValueError, match="whose 20 joints nothing names: .* make humaneva15"):
        open_clips(tmp_path)


def test_3dhp_is_opened_with_its_test_set(tmp_path):
    folder = tmp_path / "data" / "3dhp"
    write_mpi_train(folder, "S8/Seq2", 2)
    write_mpi_test(folder / "mpi_inf_3dhp_test_set", "TS4", np.ones(3))
    for given in (folder, folder.parent):
        clips = open_clips(given, keypoints="gt")
        assert clips.name == "mpi_inf_3dhp gt" and {info.subject for info in clips.infos} == {"S8", "TS4"}
    assert {info.subject for info in open_clips(folder / "mpi_inf_3dhp_test_set").infos} == {"TS4"}
    assert open_clips(folder, keypoints="gt_universal").name == "mpi_inf_3dhp gt_universal"
    with pytest.raises(ValueError, match="has the 2D keypoints gt, gt_universal, not 'cpn'"):
        open_clips(folder, keypoints="cpn")


def test_3dpw_is_opened_by_any_of_its_folders(tmp_path):
    folder = tmp_path / "data" / "3DPW"
    write_sequence(folder, "test/downtown_bar_00", threedpw_sequence(people=1))
    for given in (folder, folder.parent, folder / "sequenceFiles"):
        assert open_clips(given).name == "3dpw openpose" and open_clips(given, keypoints="gt").name == "3dpw gt"
    with pytest.raises(ValueError, match="2D keypoints openpose, gt, not 'coco'"):
        open_clips(folder, keypoints="coco")


def test_files_of_the_gated_sets_are_looked_for_by_name(tmp_path):
    named = r"S\*/Seq\*/annot\.mat .*get_dataset.*; sequenceFiles/.*sequenceFiles\.zip"
    with pytest.raises(FileNotFoundError, match=named):
        open_clips(tmp_path)
