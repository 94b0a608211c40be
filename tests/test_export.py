"""Result files: written, read by an independent reader, read back equal; hostile text and hostile files."""

from __future__ import annotations

import csv
import json
import pickle

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifting.cameras import Camera
from lifting.export import FORMATS, format_of, load, save
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Person, Take
from lifting.skeletons import Skeleton, get_skeleton

SIZE, FPS, FRAMES = (640, 480), 29.97, 6
SUFFIXES = [".npz", ".json", ".csv", ".h5"]
HOSTILE = 'a,"b"\n#c\r\n</script>\0\t\u2028é漢\ud800 =1+1 \'; DROP'


def keypoints(rng: np.random.Generator, skeleton: Skeleton) -> Keypoints2D:
    score = rng.uniform(0, 1, (FRAMES, skeleton.num_joints)) * (rng.random((FRAMES, skeleton.num_joints)) > 0.2)
    return Keypoints2D(rng.uniform(0, 640, (*score.shape, 2)), score, skeleton, SIZE, FPS)


def motion(rng: np.random.Generator, skeleton: str | Skeleton = "h36m17", **changes) -> Motion:
    count = get_skeleton(skeleton).num_joints
    joints = rng.normal(size=(FRAMES, count, 3)).astype(np.float32)
    joints[:2] = np.nan
    trajectory = np.where(np.isnan(joints[:, 0]), np.nan, rng.normal(size=(FRAMES, 3)))
    fields = {"joints": joints, "trajectory": trajectory, "sigma": rng.uniform(0, 1, (FRAMES, count)),
              "skeleton": skeleton, "fps": FPS}
    return Motion(**{**fields, **changes})


def take(name: str = "clip", layout: Skeleton | None = None, **changes) -> Take:
    rng = np.random.default_rng(5)
    layout = layout or get_skeleton("coco17")
    people = (Person(7, keypoints(rng, layout), motion(rng)),
              Person(2, keypoints(rng, layout), motion(rng, trajectory=None, sigma=None)),
              Person(3, keypoints(rng, layout)))
    fields = {"image_size": SIZE, "fps": FPS, "times": np.arange(FRAMES) / FPS + 1 / 3,
              "camera": Camera.from_fov(61.7, SIZE), "people": people, "assumed": ("focal = image diagonal",),
              "metadata": {"detector": "blazepose", "warnings": ["poor", 1, None, True]}}
    return Take(name, **{**fields, **changes})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_take_comes_back_equal(tmp_path, suffix):
    path = save(take(), tmp_path / f"result{suffix}")
    assert load(path) == take()
    assert list(tmp_path.iterdir()) == [path]  # nothing is left beside it


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["keypoints only", "world", "one frame", "moving camera"])
def test_unusual_takes_come_back_equal(tmp_path, suffix, kind):
    rng, whole = np.random.default_rng(1), take()
    person = whole.people[0]
    if kind == "keypoints only":
        whole = whole.replace(people=[Person(1, person.keypoints)])
    elif kind == "world":
        whole = whole.replace(people=[Person(1, person.keypoints, motion(rng, frame="world"))])
    elif kind == "one frame":
        cut = Person(0, person.keypoints.slice(0, 1), person.motion.slice(0, 1))
        whole = whole.replace(people=[cut], times=whole.times[:1])
    else:
        turning = np.broadcast_to(np.eye(3), (3000, 3, 3))  # as text longer than an HDF5 attribute may be
        camera = Camera([800, 810], [320, 240], SIZE, [0.1, 0, 0, 0, 0], turning, np.ones((3000, 3)))
        whole = whole.replace(camera=camera)
    assert load(save(whole, tmp_path / f"result{suffix}")) == whole


@pytest.mark.parametrize("suffix", [".npz", ".json", ".h5"])
def test_a_take_without_people_comes_back_equal(tmp_path, suffix):
    assert load(save(take(people=()), tmp_path / f"r{suffix}")) == take(people=())


def test_npz_holds_plain_arrays_as_documented(tmp_path):
    whole = take()
    with np.load(save(whole, tmp_path / "r.npz"), allow_pickle=False) as file:
        assert set(file) == {"ids", "times", "joints", "trajectory", "sigma", "keypoints", "scores", "metadata"}
        assert file["ids"].tolist() == [7, 2, 3]
        assert file["joints"].shape == (3, FRAMES, 17, 3)
        assert file["joints"].dtype == np.float32
        np.testing.assert_array_equal(file["joints"][0], whole.people[0].motion.joints)
        np.testing.assert_array_equal(file["keypoints"][1], whole.people[1].keypoints.xy)
        assert np.isnan(file["joints"][2]).all()
        assert np.isnan(file["trajectory"][1]).all()
        metadata = json.loads(str(file["metadata"]))
    assert metadata["fps"] == FPS
    assert metadata["image_size"] == [640, 480]
    assert metadata["units"]["joints"] == "m"
    assert metadata["frame"] == "camera"
    assert "+z forward" in metadata["axes"]["joints"]
    assert metadata["skeleton"]["joints"] == list(get_skeleton("h36m17").joints)
    assert metadata["keypoint_skeleton"]["name"] == "coco17"
    assert metadata["assumed"] == ["focal = image diagonal"]
    assert metadata["run"]["detector"] == "blazepose"
    assert Camera.from_dict(metadata["camera"]).focal[0] == pytest.approx(whole.camera.focal[0])


def test_json_is_strict_and_has_null_for_nan(tmp_path):
    text = save(take(), tmp_path / "r.json").read_text(encoding="ascii")
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert data["joints"][0][0][0] == [None, None, None]
    assert data["times"][1] == take().times[1]
    expected = take().people[0].motion.joints[3, 4].astype(float)
    assert data["joints"][0][3][4] == pytest.approx(expected.tolist(), rel=1e-6)


def test_json_in_chunks_is_the_same(tmp_path, monkeypatch):
    whole = save(take(), tmp_path / "a.json").read_text()
    monkeypatch.setattr("lifting.export.json_file.CHUNK", 4)
    monkeypatch.setattr("lifting.export.csv_file.CHUNK", 4)
    monkeypatch.setattr("lifting.export.csv_file.ROWS", 7)
    assert save(take(), tmp_path / "b.json").read_text() == whole
    assert load(save(take(), tmp_path / "b.csv")) == take()


def read_table(path) -> list[dict]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if not line.startswith("#")]
    return list(csv.DictReader(lines, strict=True))


def test_csv_is_tidy_with_units_in_the_names(tmp_path):
    whole = take()
    rows = read_table(save(whole, tmp_path / "r.csv"))
    names = dict.fromkeys([*get_skeleton("h36m17").joints, *get_skeleton("coco17").joints])
    assert len(rows) == 3 * FRAMES * len(names)
    assert list(rows[0]) == ["person", "frame", "time_s", "joint", "x_m", "y_m", "z_m", "sigma_m",
                             "root_x_m", "root_y_m", "root_z_m", "x_px", "y_px", "score"]
    found = {(row["person"], row["frame"], row["joint"]): row for row in rows}
    row = found["7", "4", "left_wrist"]
    lifted, seen = whole.people[0].motion, whole.people[0].keypoints
    assert np.float32([row["x_m"], row["y_m"], row["z_m"]]).tolist() == lifted.joints[4, 13].tolist()
    assert np.float32(row["root_z_m"]) == lifted.trajectory[4, 2]
    assert np.float32(row["score"]) == seen.score[4, 9]
    assert float(row["time_s"]) == whole.times[4]
    assert found["7", "0", "spine"]["x_m"] == found["7", "4", "spine"]["x_px"] == found["7", "4", "nose"]["x_m"] == ""


def test_csv_rows_may_come_in_any_order_but_none_may_be_missing(tmp_path):
    path = save(take(), tmp_path / "r.csv")
    lines = path.read_text().splitlines(keepends=True)
    header, rows = lines[:4], lines[4:]
    path.write_text("".join([*header, *rows[::-1], "\n", "# a remark\n"]))
    assert load(path) == take()
    for changed in (rows[1:], rows[:-1], [*rows[1:], rows[1]], [*rows, rows[0]]):
        path.write_text("".join([*header, *changed]))
        with pytest.raises(ValueError, match="one row for each of 3 people, 6 frames and 22 joints"):
            load(path)


def test_csv_is_what_pandas_reads(tmp_path):
    pandas = pytest.importorskip("pandas")
    layout = Skeleton(HOSTILE, ("nose #1", 'a,"b"', "left_x", "right_x"), (-1, 0, 0, 0))
    table = pandas.read_csv(save(take(HOSTILE, layout), tmp_path / "r.csv"), comment="#")
    assert set(table["joint"]) >= set(layout.joints)
    assert table["x_m"].dtype == float


def test_hdf5_states_units_and_names(tmp_path):
    whole = take()
    with h5py.File(save(whole, tmp_path / "r.h5"), "r") as file:
        np.testing.assert_array_equal(file["joints"][0], whole.people[0].motion.joints)
        assert file["joints"].attrs["unit"] == "m"
        assert list(file["joints"].attrs["joint_names"]) == list(get_skeleton("h36m17").joints)
        assert file["keypoints"].attrs["dimensions"] == "person,frame,keypoint,xy"
        assert file.attrs["fps"] == FPS
        assert json.loads(file["metadata"].asstr()[()])["name"] == "clip"


# ---- hostile text


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_hostile_text_breaks_nothing(tmp_path, suffix):
    layout = Skeleton(HOSTILE, (HOSTILE, "#nose", "left_\n", "right_\n", "nan", "é"), (-1, 0, 0, 0, 0, 0))
    whole = take(HOSTILE, layout, metadata={HOSTILE: HOSTILE}, assumed=(HOSTILE,))
    path = save(whole, tmp_path / f"r{suffix}")
    assert load(path) == whole
    if suffix == ".csv":
        rows = read_table(path)
        assert len(rows) == 3 * FRAMES * (17 + 6)
        assert {row["person"] for row in rows} == {"7", "2", "3"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(), min_size=1, max_size=20), suffix=st.sampled_from(SUFFIXES))
def test_any_name_comes_back(tmp_path, name, suffix):
    assert load(save(take(name), tmp_path / f"any{suffix}")).name == name


# ---- hostile, corrupt and foreign files


class Bomb:
    """Unpickling an instance would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickles_are_refused_unrun(tmp_path):
    mark = tmp_path / "executed"
    np.savez(tmp_path / "bomb.npz", metadata=np.array([Bomb(mark)], dtype=object))
    with pytest.raises(ValueError, match="bomb.npz"):
        load(tmp_path / "bomb.npz")
    for suffix in SUFFIXES:
        (tmp_path / f"raw{suffix}").write_bytes(pickle.dumps(Bomb(mark)))
        with pytest.raises(ValueError, match=f"raw{suffix}"):
            load(tmp_path / f"raw{suffix}")
    assert not mark.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"\0\xff\xfe", b"null", b'{"metadata": 3}', b"[" * 100_000, b"a,b\n1,2\n",
                                     b"# metadata: {}\n", b'# metadata: {"format": "keypoint-lift result"}\n'])
def test_foreign_files_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"foreign{suffix}"):
        load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files_are_refused(tmp_path, suffix):
    path = save(take(), tmp_path / f"cut{suffix}")
    whole = path.read_bytes()
    for length in (len(whole) // 10, len(whole) // 2, len(whole) - len(whole) // 50, len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"cut{suffix}"):
            load(path)


def rewrite(path, change) -> None:
    """Change the arrays and metadata of a JSON result."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(("change", "message"), [
    (lambda data: data.pop("joints"), "lacks 'joints'"),
    (lambda data: data["metadata"].pop("camera"), "lacks 'camera'"),
    (lambda data: data["metadata"].update(format_version=99), "format version 99"),
    (lambda data: data["metadata"].update(format="other"), "not a result of this library"),
    (lambda data: data["metadata"].update(people=3), "damaged result"),
    (lambda data: data["metadata"].update(image_size=[0, 5]), "image_size"),
    (lambda data: data["metadata"]["skeleton"].update(parents=[0] * 17), "cycle"),
    (lambda data: data["metadata"].update(camera="none"), "damaged result"),
    (lambda data: data.update(ids=[1, 2, 3]), "ids"),
    (lambda data: data.update(ids=[7]), "damaged result"),
    (lambda data: data.update(times=["now"]), "damaged result"),
    (lambda data: data["times"].pop(), "frames"),
    (lambda data: data["scores"][0][0].__setitem__(0, 7), "must lie in 0..1"),
    (lambda data: data["joints"][0].pop(), "damaged result"),
    (lambda data: data.update(joints={}), "damaged result"),
])
def test_damaged_results_are_refused_in_a_sentence(tmp_path, change, message):
    path = save(take(), tmp_path / "r.json")
    rewrite(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "r.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("old", "new"), [
    ("7,0,", "8,0,"), ("7,0,", "7,-1,"), ("7,0,", "7,999999999999,"), ("7,0,", "7,99999999999999999999,"),
    ("7,0,", "7,x,"), ('"nose"', '"beak"'), ('"nose",', '"nose",,'), ("person,frame", "human,frame"),
    ('"spine",', '"spine",1e99'), ('"nose",', '"nose",word'),
])
def test_damaged_tables_are_refused(tmp_path, old, new):
    path = save(take(), tmp_path / "r.csv")
    head, line, rows = path.read_text().partition("person,frame")
    path.write_text(head + (line + rows).replace(old, new))
    with pytest.raises(ValueError, match="r.csv"):
        load(path)


# ---- the suffix table


def test_unknown_suffixes_list_the_known_ones(tmp_path):
    for path in ("r.pkl", "r", tmp_path / "r.npz.exe", ""):
        with pytest.raises(ValueError, match=r"written as .npz, .json, .csv, .h5"):
            format_of(path)
    with pytest.raises(ValueError, match="'.pkl'"):
        save(take(), tmp_path / "r.pkl")
    assert format_of("A.NPZ") is FORMATS[".npz"]


@pytest.mark.parametrize("suffix", [*FORMATS, ".c3d"])
def test_a_disk_that_gets_full_is_said_in_a_sentence_and_leaves_nothing(tmp_path, suffix):
    resource = pytest.importorskip("resource")
    pytest.importorskip("ezc3d") if suffix == ".c3d" else None
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))  # bytes
    try:
        with pytest.raises(OSError, match=f"cannot write '.*clip{suffix}': .*; choose a folder that has room"):
            save(take(), tmp_path / f"clip{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_only_takes_are_saved_and_only_files_loaded(tmp_path):
    with pytest.raises(ValueError, match="only a Take can be saved, got dict"):
        save({}, tmp_path / "r.npz")
    with pytest.raises(FileNotFoundError, match="none.npz"):
        load(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(FileNotFoundError, match="folder.npz"):
        load(tmp_path / "folder.npz")
    assert list(tmp_path.glob("r.*")) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_leaves_the_old_result(tmp_path, suffix, monkeypatch):
    path = save(take(), tmp_path / f"r{suffix}")
    before = path.read_bytes()
    module = {".npz": "npz", ".json": "json_file", ".csv": "csv_file", ".h5": "hdf5"}[suffix]
    monkeypatch.setattr(f"lifting.export.{module}.dump_metadata", lambda metadata: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(take(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_unwritable_place_is_named(tmp_path, suffix):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        save(take(), tmp_path / "file" / f"r{suffix}")
