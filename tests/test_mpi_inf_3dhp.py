"""MPI-INF-3DHP."""

from __future__ import annotations

import numpy as np
import pytest
from gated_layouts import (
    MPI_CAMERAS,
    looking_camera,
    mpi_annotations,
    scattered,
    write_annot_mat,
    write_mpi_test,
    write_mpi_train,
    write_skeletool,
)

from lifting.datasets.matlab_file import read_mat
from lifting.datasets.mpi_inf_3dhp import fit_intrinsics, open_mpi_inf_3dhp, read_calibration
from lifting.skeletons import get_skeleton

# Columns of h36m17's joints among the 28 and the 17 of the data set, counted from 0, by hand.
OF_28 = [4, 23, 24, 25, 18, 19, 20, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16]
OF_17 = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]


@pytest.mark.parametrize("hdf5", [False, True])
def test_training_takes_have_fourteen_labelled_views(tmp_path, hdf5):
    annotations = write_mpi_train(tmp_path, "S2/Seq1", 5, hdf5=hdf5)
    clips = open_mpi_inf_3dhp(tmp_path)
    assert [info.name for info in clips.infos] == [f"S2/Seq1/{number}" for number in range(14)]
    assert {(info.frames, info.fps, info.image_size) for info in clips.infos} == {(5, 25, (2048, 2048))}
    assert clips.skeleton_in.name == clips.skeleton_out.name == "h36m17" and clips.name == "mpi_inf_3dhp gt"
    for number, clip in enumerate(clips):
        points = annotations["annot3"][number].reshape(5, 28, 3)[:, OF_28] / 1000
        np.testing.assert_allclose(clip.motion.absolute, points, atol=2e-6)
        pixels = annotations["annot2"][number].reshape(5, 28, 2)[:, OF_28]
        np.testing.assert_allclose(clip.keypoints.xy, pixels, atol=1e-3)
        np.testing.assert_allclose(clip.camera.project(clip.motion.absolute), clip.keypoints.xy, atol=2e-2)
        world = scattered(5, 28)[:, OF_28]
        np.testing.assert_allclose(clip.camera.to_world(clip.motion.absolute), world, atol=5e-6)


def test_fast_takes_are_halved(tmp_path):
    annotations = write_mpi_train(tmp_path, "S1/Seq2", 7)
    write_mpi_train(tmp_path, "S1/Seq1", 7)
    clips = open_mpi_inf_3dhp(tmp_path)
    assert [(info.action, info.frames, info.fps) for info in clips.infos[::14]] == [("Seq1", 7, 25), ("Seq2", 4, 25)]
    expected = annotations["annot3"][3].reshape(7, 28, 3)[::2, OF_28] / 1000
    np.testing.assert_allclose(clips.read(17, 1, 3).motion.absolute, expected[1:3], atol=2e-6)


def test_only_valid_test_frames_have_labels(tmp_path):
    valid = np.array([1, 0, 0, 1, 1, 0])
    arrays = write_mpi_test(tmp_path / "mpi_inf_3dhp_test_set", "TS1", valid)
    write_mpi_test(tmp_path / "mpi_inf_3dhp_test_set", "TS6", valid, (1920, 1080))
    for folder in (tmp_path, tmp_path / "mpi_inf_3dhp_test_set"):
        clips = open_mpi_inf_3dhp(folder)
        assert [info.name for info in clips.infos] == ["TS1/TS1/0", "TS6/TS6/0"]
    clip = clips.read(0)
    assert np.isfinite(clip.motion.absolute).all(axis=(1, 2)).tolist() == [True, False, False, True, True, False]
    points = arrays["annot3"][:, 0, OF_17] / 1000
    np.testing.assert_allclose(clip.motion.absolute[valid > 0], points[valid > 0], atol=2e-6)
    np.testing.assert_allclose(clip.keypoints.xy, arrays["annot2"][:, 0, OF_17], atol=1e-3)
    assert clip.keypoints.seen.all()
    assert [info.image_size for info in clips.infos] == [(2048, 2048), (1920, 1080)]
    np.testing.assert_allclose(clip.camera.matrix, arrays["camera"].matrix, rtol=1e-9)  # fitted to the annotations


def test_universal_labels_are_a_choice(tmp_path):
    train = write_mpi_train(tmp_path, "S1/Seq1", 3)
    write_mpi_test(tmp_path, "TS2", np.ones(3))
    metric, universal = open_mpi_inf_3dhp(tmp_path), open_mpi_inf_3dhp(tmp_path, "gt_universal")
    assert universal.name == "mpi_inf_3dhp gt_universal"
    points = train["univ_annot3"][0].reshape(3, 28, 3)[:, OF_28] / 1000
    np.testing.assert_allclose(universal.read(0).motion.absolute, points, atol=2e-6)
    np.testing.assert_allclose(universal.read(14).motion.joints, 0.9 * metric.read(14).motion.joints, atol=2e-6)
    assert universal.read(14).camera == metric.read(14).camera
    with pytest.raises(ValueError, match="no 2D keypoints 'cpn'; choose gt or gt_universal"):
        open_mpi_inf_3dhp(tmp_path, "cpn")


def test_names_of_columns_agree_with_the_documented_numbers():
    from lifting.datasets.mpi_inf_3dhp import JOINTS_17, JOINTS_28

    relevant = [8, 6, 15, 16, 17, 10, 11, 12, 24, 25, 26, 19, 20, 21, 5, 4, 7]  # of mpii_get_joint_set.m, from 1
    assert [JOINTS_28[number - 1] for number in relevant] == [*JOINTS_17]
    sided = [(ours, JOINTS_28[column]) for ours, column in zip(get_skeleton("h36m17").joints, OF_28, strict=True)]
    assert [pair for pair in sided if pair[0] != pair[1]] == [
        ("hip", "pelvis"), ("thorax", "neck"), ("neck_nose", "head"), ("head", "head_top")]  # fmt: skip


def test_intrinsics_follow_from_pixels_and_points():
    camera = looking_camera(0.2, (1920, 1080), focal=(1683.5, 1672.25), center=(939.5, 560.25))
    points = camera.to_camera(scattered(8, 17))
    seen = camera.project(points)
    points[0, 0], seen[1, 1], points[2, 2, 2] = np.nan, np.nan, -1  # not used
    fitted = fit_intrinsics(points, seen, camera.image_size, "it")
    np.testing.assert_allclose(fitted.matrix, camera.matrix, rtol=1e-9)
    with pytest.raises(ValueError, match="it has pixels that no camera sees its joints at"):
        fit_intrinsics(points, np.roll(seen, 5, axis=1), camera.image_size, "it")
    with pytest.raises(ValueError, match="it has pixels that no camera"):
        fit_intrinsics(np.full((2, 17, 3), np.nan), seen[:2], camera.image_size, "it")


# ---- bad input


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no files S\*/Seq\*/annot\.mat or TS\*/.*get_dataset\.sh"):
        open_mpi_inf_3dhp(tmp_path)
    write_mpi_train(tmp_path, "S1/Seq1", 2)
    (tmp_path / "S1" / "Seq1" / "camera.calibration").unlink()
    with pytest.raises(FileNotFoundError, match=r"no camera\.calibration in .*Seq1, .*get_dataset\.sh"):
        open_mpi_inf_3dhp(tmp_path)


def test_other_annotations_are_refused(tmp_path):
    write_mpi_train(tmp_path, "S1/Seq1", 2)
    take = tmp_path / "S1" / "Seq1"
    write_annot_mat(take, mpi_annotations(2, joints=17))
    with pytest.raises(ValueError, match=r"annotations of shape \(2, 34\), expected \(frames, 56\)"):
        open_mpi_inf_3dhp(tmp_path)
    write_annot_mat(take, mpi_annotations(2))
    write_skeletool(take / "camera.calibration", MPI_CAMERAS[:8])
    with pytest.raises(ValueError, match=r"has 14 cameras in annot2, expected the 8 of camera\.calibration"):
        open_mpi_inf_3dhp(tmp_path)
    (take / "annot.mat").write_bytes(b"no MATLAB")
    write_skeletool(take / "camera.calibration", MPI_CAMERAS)
    with pytest.raises(ValueError, match=r"annot\.mat cannot be read as a \.mat with annot2, annot3: "):
        open_mpi_inf_3dhp(tmp_path)


@pytest.mark.parametrize("hdf5", [False, True])
def test_mat_files_without_the_variable_are_refused(tmp_path, hdf5):
    path = write_annot_mat(tmp_path, mpi_annotations(2), hdf5)
    with pytest.raises(ValueError, match="it has no 'annot4'"):
        read_mat(path, ["annot2", "annot4"])
    with pytest.raises(FileNotFoundError, match="no file .*other.mat"):
        read_mat(tmp_path / "other.mat", ["annot2"])


def test_test_takes_of_another_shape_are_refused(tmp_path):
    import h5py

    write_mpi_test(tmp_path, "TS3", np.ones(4))
    with h5py.File(tmp_path / "TS3" / "annot_data.mat", "r+") as file:
        del file["valid_frame"]
        file["valid_frame"] = np.ones((3, 1))
    with pytest.raises(ValueError, match="4, 4 and 3 frames of pixels, joints and valid_frame"):
        open_mpi_inf_3dhp(tmp_path)
    with h5py.File(tmp_path / "TS3" / "annot_data.mat", "r+") as file:
        del file["annot3"]
        file["annot3"] = np.ones((4, 28, 3))
    with pytest.raises(ValueError, match=r"has \(3, 28, 4\) in annot3, expected \(3, 17, 1, frames\)"):
        open_mpi_inf_3dhp(tmp_path)


@pytest.mark.parametrize("old, new, reason", [
    ("  intrinsic", "  lens", "'intrinsic'"), ("  size        2048 2048", "  size  big", "could not convert"),
    ("  radial      0", "  radial  0.1", "radial distortion"), ("name", "camera", "names no camera"),
    ("  extrinsic   ", "  extrinsic 2 ", "cannot reshape"),
])  # fmt: skip
def test_other_calibrations_are_refused(tmp_path, old, new, reason):
    path = write_skeletool(tmp_path / "camera.calibration", MPI_CAMERAS[:2])
    np.testing.assert_allclose(read_calibration(path)[1].translation, MPI_CAMERAS[1].translation, atol=1e-9)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=rf"camera\.calibration.*{reason}"):
        read_calibration(path)
