"""DeepLabCut's and SLEAP's files: written here as those tools lay them out, and by pandas and sleap-io where there."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from lifting.detectors.files import read_keypoints
from lifting.detectors.files.named_points import plain_joint
from lifting.skeletons import get_skeleton

COCO = get_skeleton("coco17")
NAMES = ["Nose", "LeftShoulder", "right shoulder", "hip_left", "r-hip"]
PLAIN = ["nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip"]


def points(frames: int = 4, seed: int = 0, joints: int = len(NAMES)) -> np.ndarray:
    """(T, J, 3) x, y, confidence."""
    return np.random.default_rng(seed).uniform(0.1, 1, (frames, joints, 3)) * [640, 480, 1]


def assert_people(file, expected: dict[int, np.ndarray]) -> None:
    """The joints `PLAIN` of each person, in every frame, are those expected; all other joints are not seen."""
    columns = COCO.indices(PLAIN)
    for number, values in expected.items():
        for frame, (detections, ids) in enumerate(zip(file.frames, file.ids, strict=True)):
            if np.isnan(values[frame]).all():
                assert number not in ids
                continue
            detection = detections[ids.index(number)]
            np.testing.assert_allclose(detection.xy[list(columns)], values[frame, :, :2], rtol=1e-6)
            np.testing.assert_allclose(detection.score[list(columns)], values[frame, :, 2], rtol=1e-6)
            assert not np.delete(detection.score, columns).any()


# ---- DeepLabCut


def labels(individuals: tuple[str, ...] = (), names: list[str] = NAMES) -> list[tuple[str, ...]]:
    people = [(name,) for name in individuals] or [()]
    return [("DLC_resnet50", *person, name, coord) for person in people for name in names
            for coord in ("x", "y", "likelihood")]


def dlc_csv(path: Path, people: dict[str, np.ndarray], index: list | None = None) -> Path:
    """The rows of `DataFrame.to_csv` with columns of several levels."""
    individuals = tuple(name for name in people if name)
    columns, rows = labels(individuals), np.concatenate([values.reshape(len(values), -1) for values in people.values()],
                                                        axis=1)
    names = ("scorer", *(["individuals"] if individuals else []), "bodyparts", "coords")
    index = [[str(row)] for row in range(len(rows))] if index is None else index
    blank = [""] * (len(index[0]) - 1)
    lines = [",".join([name, *blank, *level]) for name, level in zip(names, zip(*columns, strict=True), strict=True)]
    for label, row in zip(index, rows.tolist(), strict=True):
        lines.append(",".join([*label, *("" if value != value else repr(value) for value in row)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def dlc_table(path: Path, values: np.ndarray, columns: list[tuple[str, ...]], **attributes: bytes) -> Path:
    """An HDF5 file as PyTables writes pandas' format "table": one compound array, pickled labels."""
    flat = values.reshape(len(values), -1)
    records = np.zeros(len(flat), [("index", "<i8"), ("values_block_0", "<f8", (flat.shape[1],))])
    records["index"], records["values_block_0"] = np.arange(len(flat)), flat
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_(b"frame_table")
        table = group.create_dataset("table", data=records)
        table.attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(columns, 0))
        for name, value in attributes.items():
            table.attrs[name] = np.bytes_(value)
    return path


def test_a_csv_of_one_animal(tmp_path):
    values = points()
    file = read_keypoints(dlc_csv(tmp_path / "clipDLC_resnet50.csv", {"": values}))
    assert (file.format, file.skeleton.name, file.start, file.num_frames) == ("deeplabcut", "coco17", 0, 4)
    assert_people(file, {1: values})
    assert any("matched to coco17 by their names" in note for note in file.notes)


def test_a_csv_of_several_keeps_them_apart_and_gaps(tmp_path):
    first, second = points(), points(seed=1)
    second[2] = np.nan
    file = read_keypoints(dlc_csv(tmp_path / "a.csv", {"mouse": first, "rat": second}))
    assert file.ids == ((1, 2), (1, 2), (1,), (1, 2))
    assert_people(file, {1: first, 2: second})


def test_points_of_nobody_in_particular_are_left_out(tmp_path):
    file = read_keypoints(dlc_csv(tmp_path / "a.csv", {"mouse": points(), "single": points(seed=1)}))
    assert file.person_ids == (1,)


def test_labelled_images_are_numbered_by_their_names(tmp_path):
    index = [["labeled-data", "video", f"img{number:03d}.png"] for number in (7, 9, 10)]
    file = read_keypoints(dlc_csv(tmp_path / "CollectedData.csv", {"": points(3)}, index))
    assert (file.start, [len(frame) for frame in file.frames]) == (7, [1, 0, 1, 1])


@pytest.mark.parametrize("individuals", [(), ("a", "b")])
def test_an_hdf5_table(tmp_path, individuals):
    people = [points(seed=number) for number in range(max(1, len(individuals)))]
    path = dlc_table(tmp_path / "a.h5", np.concatenate(people, axis=1), labels(individuals))
    file = read_keypoints(path)
    assert file.format == "deeplabcut"
    assert_people(file, dict(enumerate(people, 1)))


def test_the_callers_skeleton_wins_and_unknown_names_are_said(tmp_path):
    names = ["tail", "paw", "snout", "ear"]
    columns = labels(names=names)
    path = dlc_table(tmp_path / "a.h5", points(joints=4), columns)
    with pytest.raises(ValueError, match="a.h5.*: 4 joints are no layout known by its number"):
        read_keypoints(path)
    path = dlc_csv(tmp_path / "b.csv", {"": points()})
    file = read_keypoints(path, skeleton="halpe26")
    assert file.skeleton.name == "halpe26"
    index = get_skeleton("halpe26").index("left_hip")
    np.testing.assert_allclose(file.frames[0][0].xy[index], points()[0, 3, :2], rtol=1e-6)


def test_nothing_in_the_file_is_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "mark",))

    path = dlc_table(tmp_path / "a.h5", points(), labels(), values_block_0_kind=pickle.dumps(Bomb(), 0))
    with pytest.raises(ValueError, match="a.h5.*refused"):
        read_keypoints(path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(("change", "problem"), [
    (lambda text: text[: len(text) - 60], "different numbers of fields|no number"),
    (lambda text: text.replace("likelihood", "z"), "coordinates z beside x and y"),
    (lambda text: text.replace("\n0,", "\nx,"), "not numbered|no number"),
    (lambda text: text.split("\n0,")[0] + "\n", "no rows"),
    (lambda text: text.replace("\n1,", "\n0,"), "not numbered"),
])
def test_damaged_tables_are_one_sentence(tmp_path, change, problem):
    path = dlc_csv(tmp_path / "a.csv", {"": points()})
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=problem) as caught:
        read_keypoints(path)
    assert "a.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["table", "fixed", "csv"])
@pytest.mark.parametrize("individuals", [(), ("a", "b")])
def test_files_of_pandas_itself(tmp_path, form, individuals):
    pandas = pytest.importorskip("pandas")
    people = [points(seed=number) for number in range(max(1, len(individuals)))]
    names = ["scorer", *(["individuals"] if individuals else []), "bodyparts", "coords"]
    columns = pandas.MultiIndex.from_tuples(labels(individuals), names=names)
    frame = pandas.DataFrame(np.concatenate(people, axis=1).reshape(4, -1), columns=columns)
    path = tmp_path / ("a.csv" if form == "csv" else "a.h5")
    if form == "csv":
        frame.to_csv(path)
    else:
        pytest.importorskip("tables")
        frame.to_hdf(path, key="df_with_missing", format=form, mode="w")
    assert_people(read_keypoints(path), dict(enumerate(people, 1)))


# ---- SLEAP


def sleap_analysis(path: Path, people: list[np.ndarray], dims: tuple[str, ...] | None = None) -> Path:
    """`tracks` in the order of MATLAB, or in that of `dims` with the attribute that says so."""
    whole = np.stack(people)  # track, frame, node, xyc
    usual = ("track", "xy", "node", "frame")
    axes = {"track": 0, "frame": 1, "node": 2, "xy": 3}
    order = dims or usual
    with h5py.File(path, "w") as file:
        tracks = file.create_dataset("tracks", data=whole[..., :2].transpose([axes[name] for name in order]))
        score_order = [name for name in order if name != "xy"]
        scores = file.create_dataset("point_scores", data=whole[..., 2].transpose([axes[name] for name in score_order]))
        if dims:
            tracks.attrs["dims"], scores.attrs["dims"] = json.dumps(dims), json.dumps(score_order)
        file["node_names"] = np.array([name.encode() for name in NAMES])
        file["track_occupancy"] = np.ones((whole.shape[1], len(whole)), np.uint8)
    return path


@pytest.mark.parametrize("dims", [None, ("frame", "track", "node", "xy")])
def test_an_analysis_file(tmp_path, dims):
    first, second = points(), points(seed=1)
    second[:2] = np.nan
    file = read_keypoints(sleap_analysis(tmp_path / "clip.analysis.h5", [first, second], dims))
    assert (file.format, file.ids) == ("sleap", ((1,), (1,), (1, 2), (1, 2)))
    assert_people(file, {1: first, 2: second})


def test_points_labelled_by_hand_have_no_score_and_are_sure(tmp_path):
    values = points()
    values[..., 2] = np.nan
    [detection] = read_keypoints(sleap_analysis(tmp_path / "a.h5", [values])).frames[0]
    assert (detection.score[list(COCO.indices(PLAIN))] == 1).all()


def sleap_project(path: Path, videos: int = 1) -> Path:
    """Two tracks over the frames 0, 1 and 3; in frame 1 somebody has labelled the first by hand."""
    frame_type = [("frame_id", "<u8"), ("video", "<u4"), ("frame_idx", "<u8"), ("instance_id_start", "<u8"),
                  ("instance_id_end", "<u8")]
    instance_type = [("instance_id", "<i8"), ("instance_type", "u1"), ("frame_id", "<u8"), ("skeleton", "<u4"),
                     ("track", "<i4"), ("from_predicted", "<i8"), ("score", "<f4"), ("point_id_start", "<u8"),
                     ("point_id_end", "<u8")]
    predicted = np.concatenate([points(3, seed)[:, None] for seed in (0, 1)], axis=1).reshape(6, 5, 3)
    instances = [(row, 1, row // 2, 0, row % 2, -1, 0.7, 5 * row, 5 * row + 5) for row in range(6)]
    instances.insert(4, (6, 0, 1, 0, -1, 2, 0.0, 0, 5))  # made of prediction 2: frame 1, track 0
    frames = [(0, 0, 0, 0, 2), (1, videos - 1, 1, 2, 5), (2, 0, 3, 5, 7)]
    metadata = {"nodes": [{"name": name} for name in reversed(NAMES)],
                "skeletons": [{"nodes": [{"id": 4 - number} for number in range(5)]}]}
    by_hand = points(1, 7)[0]
    with h5py.File(path, "w") as file:
        file["frames"], file["instances"] = np.array(frames, frame_type), np.array(instances, instance_type)
        file["points"] = np.array([(x, y, True, True) for x, y, _ in by_hand],
                                  [("x", "<f8"), ("y", "<f8"), ("visible", "?"), ("complete", "?")])
        rows = [(x, y, number != 0, False, score) for number, (x, y, score) in enumerate(predicted.reshape(-1, 3))]
        file["pred_points"] = np.array(rows, [("x", "<f8"), ("y", "<f8"), ("visible", "?"), ("complete", "?"),
                                              ("score", "<f8")])
        file.create_group("metadata").attrs["json"] = np.bytes_(json.dumps(metadata).encode())
        file["videos_json"] = [json.dumps({"backend": {"shape": [9, 480, 640, 3]}}).encode()]
    return path


def test_a_project_reads_what_was_labelled_before_what_was_predicted(tmp_path):
    file = read_keypoints(sleap_project(tmp_path / "labels.slp"))
    assert (file.format, file.image_size, [len(frame) for frame in file.frames]) == ("sleap", (640, 480), [2, 2, 0, 2])
    columns = list(COCO.indices(PLAIN))
    first, second = points(3, 0), points(3, 1)
    assert not file.frames[0][0].seen[columns[0]]  # not visible
    np.testing.assert_allclose(file.frames[0][0].xy[columns[1:]], first[0, 1:, :2], rtol=1e-6)
    by_hand, other = file.frames[1]
    np.testing.assert_allclose(by_hand.xy[columns], points(1, 7)[0, :, :2], rtol=1e-6)
    np.testing.assert_allclose(by_hand.score[columns], 1)
    np.testing.assert_allclose(other.xy[columns], second[1, :, :2], rtol=1e-6)
    np.testing.assert_allclose(file.frames[3][1].score[columns], second[2, :, 2], rtol=1e-6)


def test_projects_of_several_videos_are_refused(tmp_path):
    with pytest.raises(ValueError, match="labels of 2 videos: expected one"):
        read_keypoints(sleap_project(tmp_path / "labels.slp", videos=2))


def test_files_of_sleap_io_itself(tmp_path):
    sleap = pytest.importorskip("sleap_io")
    skeleton, video = sleap.Skeleton(list(NAMES)), sleap.Video("clip.mp4", open_backend=False)
    tracks, people = [sleap.Track("a"), sleap.Track("b")], [points(), points(seed=1)]
    frames = []
    for frame in range(4):
        instances = [sleap.PredictedInstance.from_numpy(values[frame, :, :2], skeleton=skeleton, track=track, score=0.9,
                                                        point_scores=values[frame, :, 2])
                     for values, track in zip(people, tracks, strict=True)]
        frames.append(sleap.LabeledFrame(video=video, frame_idx=frame, instances=instances))
    labelled = sleap.Labels(frames, videos=[video], skeletons=[skeleton], tracks=tracks)
    sleap.save_file(labelled, str(tmp_path / "a.slp"))
    sleap.save_file(labelled, str(tmp_path / "a.analysis.h5"), format="analysis_h5")
    for name in ("a.slp", "a.analysis.h5"):
        assert_people(read_keypoints(tmp_path / name), dict(enumerate(people, 1)))


# ---- both


@pytest.mark.parametrize("name", ["deeplabcut.h5", "analysis.h5", "labels.slp"])
def test_cut_files_are_one_sentence(tmp_path, name):
    path = tmp_path / name
    if name == "deeplabcut.h5":
        dlc_table(path, points(), labels())
    else:
        (sleap_project if name == "labels.slp" else lambda path: sleap_analysis(path, [points()]))(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"cannot read '{name}' as HDF5") as caught:
        read_keypoints(path)
    assert "\n" not in str(caught.value)


def test_any_other_hdf5_file_is_no_keypoints(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["numbers"] = np.ones(3)
    with pytest.raises(ValueError, match="holds an HDF5 file with 'numbers', no known keypoint format"):
        read_keypoints(tmp_path / "a.h5")


@pytest.mark.parametrize(("name", "plain"), [
    ("LeftShoulder", "left_shoulder"), ("left shoulder", "left_shoulder"), ("shoulder_left", "left_shoulder"),
    ("L_Shoulder", "left_shoulder"), ("lshoulder", "left_shoulder"), ("LShoulder", "left_shoulder"),
    ("r-big-toe", "right_big_toe"), ("RBigToe", "right_big_toe"), ("nose", "nose"), ("left", "left"), ("", ""),
    ("ring", "ring"), ("rear", "rear"),
])
def test_names_are_read_as_people_write_them(name, plain):
    assert plain_joint(name) == plain
