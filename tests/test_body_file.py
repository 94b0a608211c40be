"""Body files: a round trip within the rounding, small and quick, and one sentence for what is no body."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from small_body import random_pose, small_body

from lifting.body import BODIES, load_body, save_body
from lifting.body.body_file import is_body_file, read_body

STEP = 5e-5  # metres: the documented size of a step, for values up to 1.6 m


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "pose blendshapes"])
def saved(request, tmp_path_factory):
    body = small_body(pose=request.param).replace(up="z", forward="-y")
    path = tmp_path_factory.mktemp("bodies") / "body.npz"
    save_body(body, path)
    return body, path


def test_a_file_gives_back_the_body_within_the_rounding(saved):
    body, path = saved
    again = load_body(path)
    for name in ("name", "joints", "parents", "up", "forward", "licence", "metadata"):
        assert getattr(again, name) == getattr(body, name)
    largest = max(STEP, np.abs(body.template).max() / 32767)
    assert np.abs(again.template - body.template).max() <= 0.5001 * largest
    assert np.abs(again.shape_directions - body.shape_directions).max() <= 0.5001 * STEP
    assert np.abs((again.skin_weights - body.skin_weights).toarray()).max() < 5e-4
    for name in ("joint_template", "joint_directions", "shape_sigma"):
        np.testing.assert_allclose(getattr(again, name), getattr(body, name), atol=1e-7)
    np.testing.assert_array_equal(again.faces, body.faces)
    assert (again.pose_directions is None) == (body.pose_directions is None)
    if body.pose_directions is not None:
        assert np.abs(again.pose_directions - body.pose_directions).max() <= 0.5001 * STEP
    pose = random_pose(body, 3)
    np.testing.assert_allclose(again.vertices(*pose), body.vertices(*pose), atol=1e-3)


def test_regressors_previews_and_extras_come_back(saved):
    body, path = saved
    again = load_body(str(path))
    assert list(again.regressors) == list(body.regressors)
    for layout, matrix in body.regressors.items():
        assert np.abs((again.regressors[layout] - matrix).toarray()).max() < 1e-7
    coarse = again.previews["coarse"]
    np.testing.assert_array_equal(coarse.vertex_ids, body.previews["coarse"].vertex_ids)
    np.testing.assert_array_equal(coarse.faces, body.previews["coarse"].faces)
    np.testing.assert_array_equal(again.extras["numbers"], np.arange(5))


def test_writing_what_was_read_changes_nothing(saved, tmp_path):
    first = load_body(saved[1])
    save_body(first, tmp_path / "again.npz")
    second = load_body(tmp_path / "again.npz")
    for name in ("template", "shape_directions", "joint_template", "joint_directions", "faces"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
    assert (second.skin_weights != first.skin_weights).nnz == 0


def test_a_finer_tolerance_is_kept(tmp_path):
    body = small_body()
    save_body(body.replace(template=body.template * 0.1), tmp_path / "fine.npz", tolerance=1e-5)
    assert np.abs(load_body(tmp_path / "fine.npz").template - body.template * 0.1).max() <= 0.5001e-5
    with pytest.raises(ValueError, match="tolerance of 0"):
        save_body(body, tmp_path / "x.npz", tolerance=0)


def test_a_body_without_anything_optional(tmp_path):
    body = small_body(joints=3, shape=0, vertices=40).replace(previews={}, extras={})
    save_body(body, tmp_path / "bare.npz")
    again = load_body(tmp_path / "bare.npz")
    assert (again.num_shape, again.layouts, again.previews, again.extras) == (0, ("joints",), {}, {})


def test_more_vertices_than_16_bits_count(tmp_path):
    body, copies = small_body(joints=3, shape=1, vertices=40), 1700
    many = body.replace(template=np.tile(body.template, (copies, 1)), previews={},
                        shape_directions=np.tile(body.shape_directions, (copies, 1, 1)),
                        skin_weights=np.tile(body.skin_weights.toarray(), (copies, 1)),
                        faces=body.faces + (copies - 1) * body.num_vertices)
    assert many.num_vertices > 1 << 16
    save_body(many, tmp_path / "many.npz")
    np.testing.assert_array_equal(load_body(tmp_path / "many.npz").faces, many.faces)


def test_the_file_is_small(tmp_path):
    body = small_body(shape=10, vertices=6000)
    save_body(body, tmp_path / "body.npz")
    dense = body.template.nbytes + body.shape_directions.nbytes
    assert (tmp_path / "body.npz").stat().st_size < 0.2 * dense


def test_loading_needs_no_torch(saved):
    code = ("import sys; from lifting.body import load_body; body = load_body(sys.argv[1]); "
            "body.vertices([[[0.1] * 3] * 22], [[0, 0, 1]]); sys.exit('torch' in sys.modules)")
    subprocess.run([sys.executable, "-c", code, str(saved[1])], check=True)


def test_a_body_is_itself_and_names_are_listed(tmp_path):
    body = small_body()
    assert load_body(body) is body
    with pytest.raises(ValueError, match="there is no body 'heavy'; known are " + ", ".join(BODIES)):
        load_body("heavy")
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        load_body(tmp_path / "missing.npz")
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        read_body(tmp_path / "missing.npz")
    assert not is_body_file(tmp_path / "missing.npz")


@pytest.mark.skipif(not BODIES["lite"].exists(), reason="the embedded body is not built in this checkout")
def test_the_embedded_body_is_read_once():
    body = load_body()
    assert body is load_body("lite") and body.name == "lite"
    assert body.num_joints == 22 and {"h36m17", "coco17_feet"} <= set(body.layouts)
    assert 1.4 < body.stature() < 2.1


def members(path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return dict(archive)


def changed_facts(arrays, **changes):
    return {**arrays, "metadata": np.array(json.dumps({**json.loads(str(arrays["metadata"])), **changes}))}


def without(arrays, name):
    return {key: value for key, value in arrays.items() if key != name}


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda a: without(a, "metadata"), "lacks 'metadata'"),
    (lambda a: without(a, "joint_template"), "lacks 'joint_template'"),
    (lambda a: without(a, "skin_weights.columns"), "lacks 'skin_weights.columns'"),
    (lambda a: without(a, "extras/numbers"), "lacks 'extras/numbers'"),
    (lambda a: {**a, "metadata": np.array("{")}, "as a body: Expecting"),
    (lambda a: {**a, "metadata": np.array("[" * 100_000)}, "as a body: "),
    (lambda a: {**a, "metadata": np.array("[1]")}, "as a body: "),
    (lambda a: changed_facts(a, format="other"), "says other 1, expected lift-body 1"),
    (lambda a: changed_facts(a, version=99), "lift-body 99"),
    (lambda a: changed_facts(a, joints=["a"]), "as a body: "),
    (lambda a: changed_facts(a, joints=7), "as a body: "),
    (lambda a: changed_facts(a, parents=[-1, *[5] * 21]), "cycle"),
    (lambda a: changed_facts(a, sizes={"template": "wide", "shape_directions": 1}), "as a body: "),
    (lambda a: changed_facts(a, sizes={"template": float("nan"), "shape_directions": 1}), "template holds NaN"),
    (lambda a: changed_facts(a, regressors={"h36m17": 1, "../x": 2}), "lacks"),
    (lambda a: {**a, "template.steps": a["template.steps"].astype(float)}, "two planes of bytes"),
    (lambda a: {**a, "template.steps": a["template.steps"][0]}, "two planes of bytes"),
    (lambda a: {**a, "template.steps": a["template.steps"][..., 1:]}, "as a body: "),
    (lambda a: {**a, "faces.steps": a["faces.steps"][..., :-1, :]}, "faces must have the shape"),
    (lambda a: {**a, "faces.steps": np.full_like(a["faces.steps"], 254)}, "faces must lie in"),
    (lambda a: {**a, "joint_template": a["joint_template"] * np.nan}, "joint_template holds NaN"),
    (lambda a: {**a, "skin_weights.values": a["skin_weights.values"] * 0}, "sum to 0, expected 1"),
    (lambda a: {**a, "skin_weights.values": a["skin_weights.values"][1:]}, "the same"),
    (lambda a: {**a, "skin_weights.columns": a["skin_weights.columns"] + 9}, "columns outside 0..21"),
    (lambda a: {**a, "skin_weights.counts": -a["skin_weights.counts"].astype(int)}, "the same"),
    (lambda a: {**a, "regressors/h36m17.values": a["regressors/h36m17.values"] * np.inf}, "infinite"),
    (lambda a: {**a, "previews/coarse/vertex_ids": a["previews/coarse/vertex_ids"] + 5000}, "'coarse' must lie in"),
])
def test_files_that_are_no_body_are_refused(saved, tmp_path, spoil, message):
    path = tmp_path / "spoiled.npz"
    with np.errstate(all="ignore"):
        np.savez(path, **spoil(members(saved[1])))
    with pytest.raises(ValueError, match=message) as caught:
        read_body(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_and_hostile_bytes_are_refused(saved, tmp_path):
    whole, path = saved[1].read_bytes(), tmp_path / "damaged.npz"
    rng = np.random.default_rng(0)
    for cut in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"damaged\.npz"):
            read_body(path)
    for _ in range(20):
        noisy = bytearray(whole)
        for place in rng.integers(0, len(whole), 30):
            noisy[place] ^= int(rng.integers(1, 256))
        path.write_bytes(noisy)
        with pytest.raises(ValueError, match=r"damaged\.npz"):
            read_body(path)


def test_pickles_are_never_loaded(saved, tmp_path):
    path = tmp_path / "objects.npz"
    np.savez(path, **{**members(saved[1]), "extras/numbers": np.array([print], dtype=object)}, allow_pickle=True)
    with pytest.raises(ValueError, match="pickled objects"):
        read_body(path)


def test_an_archive_that_unpacks_to_gigabytes_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("lifting.body.body_file._MOST_BYTES", 1 << 20)
    content = io.BytesIO()
    np.save(content, np.zeros(1 << 18))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("template.steps.npy", content.getvalue())
    with pytest.raises(ValueError, match=r"bomb\.npz' unpacks to 0.0 GiB"):
        read_body(tmp_path / "bomb.npz")


@pytest.mark.parametrize("source", [None, 5, "", " ", ["lite"], np.zeros(3)])
def test_what_is_no_body_is_refused_in_a_sentence(source):
    with pytest.raises(ValueError, match="in place of a body, expected one of lite, children, or a file"):
        load_body(source)
