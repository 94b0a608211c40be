from __future__ import annotations

import io
import os
import pickle
import pickletools
import sys

import numpy as np
import pytest
import scipy.sparse
from smpl_format import PARENTS, fake_chumpy, made, official_pickle, slow_vertices, smpl_arrays

from lifting.body.body_file import load_body
from lifting.body.smpl_files import FAMILIES, plain_array, read_smpl
from lifting.body.smpl_points import LANDMARKS, layout_regressors
from lifting.files import restricted_load
from lifting.rotations import rotvec_to_matrix
from lifting.skeletons import get_skeleton


def write_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def as_object(value):
    array = np.empty((), object)
    array[()] = value
    return array


def check_against_slow_skinning(body, arrays, num_shape):
    rng = np.random.default_rng(1)
    pose = rng.normal(0, 0.6, (3, body.num_joints, 3))
    betas, trans = rng.normal(0, 1, num_shape), rng.normal(0, 1, (3, 3))
    root = body.rest_joints(betas)[0]
    found = body.vertices(rotvec_to_matrix(pose), trans + root, betas)
    expected = [slow_vertices(arrays, pose[t], betas, trans[t]) for t in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


# ---- official layouts


@pytest.mark.parametrize("protocol", [0, 2])
def test_official_pickle_is_skinned_as_published(tmp_path, protocol):
    arrays = smpl_arrays()
    path = tmp_path / "basicModel_f_lbs_10_207_0_v1.0.0.pkl"
    path.write_bytes(official_pickle(arrays, protocol))
    assert "chumpy" not in sys.modules
    body = read_smpl(path)
    assert "chumpy" not in sys.modules
    assert (body.name, body.num_joints, body.num_shape, body.metadata["gender"]) == ("smpl", 24, 10, "female")
    assert body.joints == get_skeleton("smpl24").joints
    assert body.parents == get_skeleton("smpl24").parents
    np.testing.assert_array_equal(body.shape_directions, arrays["shapedirs"])
    np.testing.assert_array_equal(body.faces, arrays["f"])
    assert "non-commercial" in body.licence
    check_against_slow_skinning(body, arrays, 10)


def test_the_pickle_of_the_test_is_what_official_files_hold():
    names = {argument for opcode, argument, _ in pickletools.genops(official_pickle(smpl_arrays())) if
             opcode.name == "GLOBAL"}
    assert {"chumpy.ch Ch", "chumpy.reordering Select", "scipy.sparse.csc csc_matrix"} <= names
    codes = {opcode.name for opcode, _, _ in pickletools.genops(official_pickle(smpl_arrays()))}
    assert "BINSTRING" in codes and "BINUNICODE" not in codes


@pytest.mark.parametrize(("joints", "family"), [(24, "smpl"), (52, "smplh"), (55, "smplx")])
def test_npz_of_each_family_is_skinned_as_published(tmp_path, joints, family):
    arrays = smpl_arrays(joints, shapes=16)
    body = read_smpl(write_npz(tmp_path / "model.npz", arrays), num_shape=12)
    assert (body.name, body.num_joints, body.num_shape) == (family, joints, 12)
    assert body.joints[:22] == get_skeleton("smpl24").joints[:22]
    assert list(body.parents) == PARENTS[joints]
    check_against_slow_skinning(body, arrays, 12)


def test_smplx_leaves_the_expression_out(tmp_path):
    arrays = smpl_arrays(55, vertices=20, shapes=400)
    path = write_npz(tmp_path / "SMPLX_MALE.npz", {**arrays, "joint2num": as_object({"Pelvis": 0})})
    body = read_smpl(path, num_shape=1000)
    assert (body.num_shape, body.metadata["num_shape_in_file"], body.metadata["gender"]) == (300, 300, "male")
    np.testing.assert_array_equal(body.shape_directions, arrays["shapedirs"][:, :, :300])
    small = smpl_arrays(55, vertices=20, shapes=20)
    assert read_smpl(write_npz(tmp_path / "small.npz", small), num_shape=50).num_shape == 10


def test_smplh_fingers_follow_the_wrists():
    names, parents = FAMILIES[52][1], PARENTS[52]
    for joint, name in enumerate(names):
        if name.endswith(("index1", "thumb1")):
            assert names[parents[joint]] == name.partition("_")[0] + "_wrist"
        elif name.endswith(("2", "3")) and joint >= 22:
            assert names[parents[joint]] == f"{name[:-1]}{int(name[-1]) - 1}"


def test_npz_with_a_pickled_sparse_regressor(tmp_path):
    arrays = smpl_arrays()
    for make in (scipy.sparse.csc_matrix, scipy.sparse.csr_matrix, scipy.sparse.coo_matrix):
        packed = {**arrays, "J_regressor": as_object(make(arrays["J_regressor"]))}
        body = read_smpl(write_npz(tmp_path / "model.npz", packed))
        np.testing.assert_allclose(body.joint_template, arrays["J_regressor"] @ arrays["v_template"])


def test_without_pose_blendshapes_and_with_a_root_of_minus_one(tmp_path):
    arrays = smpl_arrays()
    del arrays["posedirs"], arrays["bs_style"]
    arrays["kintree_table"] = np.array([PARENTS[24], range(24)], np.int64)
    body = read_smpl(write_npz(tmp_path / "model.npz", arrays))
    assert body.pose_directions is None
    check_against_slow_skinning(body, {**arrays, "posedirs": np.zeros((60, 3, 207))}, 10)


def test_bodies_are_loaded_by_path(tmp_path):
    (tmp_path / "body.pkl").write_bytes(official_pickle(smpl_arrays()))
    write_npz(tmp_path / "body.npz", smpl_arrays(52))
    assert (load_body(tmp_path / "body.pkl").name, load_body(str(tmp_path / "body.npz")).name) == ("smpl", "smplh")


# ---- regressors


@pytest.mark.parametrize(("vertices", "joints"), [(6890, 24), (6890, 52), (10475, 55)])
def test_layouts_of_known_meshes(vertices, joints):
    names, template = FAMILIES[joints][1], np.random.default_rng(0).normal(size=(vertices, 3))
    regressors = layout_regressors(names, template)
    wanted = {"h36m17", "coco17", "coco17_feet", "body25", "halpe26", "smpl24", "lift17"}
    assert set(regressors) == wanted
    for layout, matrix in regressors.items():
        skeleton = get_skeleton(layout)
        assert matrix.shape == (skeleton.num_joints, vertices + joints)
        np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), 1)
        mirrored = [row.nnz for row in matrix[list(skeleton.flip)]]
        assert mirrored == [row.nnz for row in matrix]
    coco, skeleton = regressors["coco17_feet"], get_skeleton("coco17_feet")
    for name in ("nose", "left_ear", "right_heel", "left_small_toe"):
        assert coco[skeleton.index(name)].indices.tolist() == [LANDMARKS[vertices][name]]
    for name in ("left_knee", "right_wrist"):
        assert coco[skeleton.index(name)].indices.tolist() == [vertices + names.index(name)]


def test_points_of_the_layouts_by_hand():
    names, template = FAMILIES[24][1], np.zeros((6890, 3))
    h36m, skeleton = layout_regressors(names, template)["h36m17"], get_skeleton("h36m17")
    hip = h36m[skeleton.index("hip")]
    assert sorted(hip.indices - 6890) == [1, 2] and hip.data.tolist() == [0.5, 0.5]
    assert h36m[skeleton.index("head")].indices.tolist() == [411]
    assert h36m[skeleton.index("neck_nose")].indices.tolist() == [6890 + names.index("head")]


def test_other_meshes_offer_layouts_of_joints_only(tmp_path):
    body = read_smpl(write_npz(tmp_path / "model.npz", smpl_arrays()))
    assert list(body.regressors) == ["smpl24"]
    pose = np.random.default_rng(0).normal(0, 0.5, (2, 24, 3))
    kinematics = body.kinematics(rotvec_to_matrix(pose), np.ones((2, 3)), np.zeros(10))
    np.testing.assert_allclose(body.points("smpl24", pose, np.ones((2, 3)), np.zeros(10)), kinematics.joints)


def test_smplx_head_top_is_the_highest_vertex():
    template = np.zeros((10475, 3))
    template[77, 1] = 1.8
    halpe = layout_regressors(FAMILIES[55][1], template)["halpe26"]
    assert halpe[get_skeleton("halpe26").index("head")].indices.tolist() == [77]


# ---- hostile and damaged files


class Call:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


HOSTILE = {
    "system": Call(os.system, "touch executed"),
    "eval": Call(eval, "open('executed', 'w')"),
    "getattr": Call(getattr, "", "join"),
    "memmap": Call(np.memmap, "executed", "float64", "w+", 0, (3,)),
    "load_library": Call(np.ctypeslib.load_library, "libc", "/lib"),
}


@pytest.mark.parametrize("name", ["system", "eval", "getattr", "memmap", "load_library"])
@pytest.mark.parametrize("place", ["pkl", "npz", "inside chumpy"])
def test_hostile_files_are_refused_by_name_and_nothing_runs(tmp_path, monkeypatch, name, place):
    monkeypatch.chdir(tmp_path)
    arrays = {**smpl_arrays(vertices=10), "J_regressor": HOSTILE[name]}
    path = tmp_path / f"model.{'npz' if place == 'npz' else 'pkl'}"
    if place == "npz":
        write_npz(path, {**arrays, "J_regressor": as_object(HOSTILE[name])})
    elif place == "pkl":
        path.write_bytes(pickle.dumps(arrays, 2))
    else:
        with fake_chumpy() as chumpy:
            path.write_bytes(pickle.dumps({**arrays, "J_regressor": made(chumpy.Ch, x=HOSTILE[name])}, 2))
    with pytest.raises(ValueError, match=rf"model\..*refused '[\w.]*{name}' in pickled data"):
        read_smpl(path)
    assert os.listdir(tmp_path) == [path.name]


def test_unneeded_members_are_not_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = smpl_arrays()
    path = write_npz(tmp_path / "model.npz", {**arrays, "part2num": as_object(Call(os.system, "touch executed"))})
    assert read_smpl(path).num_joints == 24
    assert os.listdir(tmp_path) == ["model.npz"]


def read_object(kind, **state):
    """A chumpy object through pickle bytes and the unpickler."""
    with fake_chumpy() as chumpy:
        content = pickle.dumps(made(getattr(chumpy, kind), **state), 2)
    return restricted_load(io.BytesIO(content), stand_ins=("chumpy", "scipy.sparse"))


def test_values_of_chumpy_objects():
    source = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(plain_array(read_object("Ch", x=source)), source)
    picked = read_object("Select", a=source, idxs=np.array([[0, 5], [11, 2]]))
    np.testing.assert_array_equal(plain_array(picked), [0, 5, 11, 2])
    picked = read_object("Select", a=source, idxs=np.array([0, 5, 11, 2]), preferred_shape=(2, 2))
    np.testing.assert_array_equal(plain_array(picked), [[0, 5], [11, 2]])


@pytest.mark.parametrize(
    ("kind", "state", "message"),
    [
        ("Select", {"a": np.ones(3), "idxs": np.array([3])}, "Select.*damaged"),
        ("Select", {"a": np.ones(3), "idxs": np.array([0.5])}, "Select.*damaged"),
        ("Select", {"a": np.ones(3), "idxs": np.arange(3), "preferred_shape": (2, 2)}, "Select.*damaged"),
        ("Ch", {"y": np.ones(3)}, "chumpy.ch.Ch' without a value"),
        ("Ch", {"x": {"a": 1}}, "expected numbers"),
    ],
)
def test_damaged_chumpy_objects_are_one_sentence(kind, state, message):
    with pytest.raises(ValueError, match=message):
        plain_array(read_object(kind, **state))


def test_chumpy_objects_that_hold_themselves_end():
    value = read_object("Ch", x=None)
    value.state["x"] = value
    with pytest.raises(ValueError, match="nested more than"):
        plain_array(value)


@pytest.mark.parametrize("change", [{"indices": np.array([0, 9, 1], np.int32)}, {"indptr": np.array([0, 2, 900])},
                                    {"_shape": None}, {"data": np.ones(1)}, {"_shape": (2,)}])
def test_sparse_matrices_with_false_indices_are_refused(change):
    matrix = scipy.sparse.csc_matrix(np.array([[1.0, 2.0], [0.0, 3.0]]))
    value = restricted_load(io.BytesIO(pickle.dumps(matrix, 2)), stand_ins=("scipy.sparse",))
    np.testing.assert_array_equal(plain_array(value).toarray(), matrix.toarray())
    value.state.update(change)
    with pytest.raises(ValueError, match="csc_matrix, cannot be used"):
        plain_array(value)


def test_sparse_matrix_of_another_kind_is_refused():
    value = restricted_load(io.BytesIO(pickle.dumps(scipy.sparse.eye(3, format="dia"), 2)), stand_ins=("scipy",))
    with pytest.raises(ValueError, match="dia_matrix, cannot be used"):
        plain_array(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v_template": np.zeros((60, 2))}, r"v_template has the shape \(60, 2\)"),
        ({"shapedirs": np.zeros((59, 3, 10))}, r"shapedirs has the shape \(59, 3, 10\), expected \(60, 3, any\)"),
        ({"posedirs": np.zeros((60, 3, 200))}, r"posedirs has the shape"),
        ({"weights": np.full((60, 24), np.nan)}, "weights holds values that are no finite numbers"),
        ({"f": np.array([[0, 1, 60]])}, "vertices up to 60, but there are only 60"),
        ({"kintree_table": np.array([[-1, 2, 1], [0, 1, 2]])}, "joint 1 has the parent 2"),
        ({"kintree_table": np.array([[-1, 0, 1], [0, 1, 2]])}, "3 joints, expected 24"),
        ({"bs_style": "dqbs"}, "bs_style is 'dqbs'"),
        ({"J_regressor": np.zeros((24, 50))}, "J_regressor has the shape"),
    ],
)
def test_arrays_that_do_not_fit_are_one_sentence(tmp_path, change, message):
    path = write_npz(tmp_path / "model.npz", {**smpl_arrays(), **change})
    with pytest.raises(ValueError, match=message) as caught:
        read_smpl(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_other_files_are_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file at .*absent\.pkl"):
        read_smpl(tmp_path / "absent.pkl")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="lacks v_template, shapedirs"):
        read_smpl(tmp_path / "list.pkl")
    (tmp_path / "noise.pkl").write_bytes(b"\x80\x02nothing")
    with pytest.raises(ValueError, match=r"cannot read .*noise\.pkl"):
        read_smpl(tmp_path / "noise.pkl")
    with pytest.raises(ValueError, match="suffix '.obj'"):
        read_smpl(tmp_path / "body.obj")
    with pytest.raises(ValueError, match="num_shape is 0"):
        read_smpl(tmp_path / "list.pkl", num_shape=0)
    with pytest.raises(OSError, match="is a directory"):
        (tmp_path / "folder.pkl").mkdir()
        read_smpl(tmp_path / "folder.pkl")
