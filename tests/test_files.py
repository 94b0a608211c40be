from __future__ import annotations

import errno
import io
import json
import os
import pickle
import stat
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lifting.files import StandIn, atomic_path, atomic_write, check_writable, load_npz, restricted_load


class Call:
    """Pickles as a call of `function`: what a hostile file does."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def unpickle(value, protocol=pickle.DEFAULT_PROTOCOL):
    return restricted_load(io.BytesIO(pickle.dumps(value, protocol=protocol)))


def write_members(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy_bytes(array, allow_pickle=False):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def object_array(value):
    array = np.empty((), dtype=object)
    array[()] = value
    return array


# ---- writing


def test_write_appears_only_when_complete(tmp_path):
    target = tmp_path / "made" / "on the way" / "result.bin"
    with atomic_write(target) as file:
        file.write(b"half")
        assert not target.exists()
        file.write(b" and half")
    assert target.read_bytes() == b"half and half"
    assert os.listdir(target.parent) == ["result.bin"]


def test_text_is_utf8_with_line_ends_as_written(tmp_path):
    with atomic_write(tmp_path / "a.csv", "w") as file:
        file.write("größe\r\n3 µm\n")
    assert (tmp_path / "a.csv").read_bytes() == "größe\r\n3 µm\n".encode()


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt, GeneratorExit, SystemExit])
def test_interrupted_write_keeps_the_old_file_and_leaves_nothing(tmp_path, interruption):
    target = tmp_path / "result.json"
    target.write_text("old")
    with pytest.raises(interruption), atomic_write(target, "w") as file:
        file.write("new, but never fin")
        raise interruption
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_interrupted_named_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "clip.mp4") as temporary:
        temporary.write_bytes(b"moov")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_temporary_path_has_suffix_and_folder_of_the_target(tmp_path):
    with atomic_path(tmp_path / "clip.tar.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")
    assert (tmp_path / "clip.tar.mp4").read_bytes() == b"x"


def test_nothing_written_under_the_temporary_name_is_an_error(tmp_path):
    with pytest.raises(OSError, match="nothing was written"), atomic_path(tmp_path / "clip.mp4"):
        pass
    assert os.listdir(tmp_path) == []


def test_existing_permissions_are_kept(tmp_path):
    target = tmp_path / "shared.npz"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with atomic_write(target) as file:
        file.write(b"new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_new_files_get_the_usual_permissions(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "named.bin") as temporary:
            temporary.write_bytes(b"a library that keeps its files to itself")
            temporary.chmod(0o600)
        with atomic_write(tmp_path / "plain.bin") as file:
            file.write(b"content")
    finally:
        os.umask(before)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        "named.bin": mode, "plain.bin": mode
    }


def test_symbolic_link_is_written_through(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "latest.npz"
    link.symlink_to(tmp_path / "disk" / "real.npz")
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "real.npz").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["%s{}$(x) 'quoted\".npz", "-rf.json", "Üñí 走る.csv", ".hidden", "a" * 240 + ".npz"])
def test_user_text_in_names_never_breaks_an_output(tmp_path, name):
    with atomic_write(tmp_path / name) as file:
        file.write(b"x")
    assert os.listdir(tmp_path) == [name]


def test_folder_cannot_be_overwritten(tmp_path):
    with pytest.raises(OSError, match="it is a folder"), atomic_write(tmp_path):
        pytest.fail("opened a folder")
    assert tmp_path.is_dir()


@pytest.mark.skipif(os.name == "nt", reason="no device files there")
def test_device_is_refused_not_replaced():
    with pytest.raises(OSError, match="not a regular file"):
        check_writable(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_file_in_place_of_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*result\.npz.*; choose a folder"):
        check_writable(tmp_path / "file" / "result.npz")


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_place_without_permission_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")  # tests may run as root, whom no mode stops

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(OSError, match="cannot write .*permission denied") as caught:
        check_writable(tmp_path / "result.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nul\0byte.npz", "a" * 300 + ".npz"])
def test_impossible_name_is_one_sentence(tmp_path, name):
    with pytest.raises(OSError, match="cannot write"), atomic_write(tmp_path / name) as file:
        file.write(b"x")
    assert os.listdir(tmp_path) == []


def test_full_disk_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match="cannot write .*no space left"), atomic_write(tmp_path / "result.npz"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_other_errors_of_the_body_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError, match="my input"), atomic_write(tmp_path / "result.npz"):
        raise FileNotFoundError("my input is gone")


@pytest.mark.parametrize("mode", ["a", "r", "rb", "x", "r+"])
def test_partial_modes_are_refused(tmp_path, mode):
    with pytest.raises(ValueError, match="expected one of"), atomic_write(tmp_path / "x", mode):
        pytest.fail("opened")
    assert os.listdir(tmp_path) == []


# ---- reading


def test_npz_round_trip(tmp_path):
    arrays = {"xy": np.arange(12, dtype=np.float32).reshape(2, 3, 2), "metadata": np.array('{"fps": 50}')}
    with atomic_write(tmp_path / "a.npz") as file:
        np.savez_compressed(file, **arrays)
    loaded = load_npz(tmp_path / "a.npz")
    assert sorted(loaded) == ["metadata", "xy"]
    np.testing.assert_array_equal(loaded["xy"], arrays["xy"])
    assert json.loads(str(loaded["metadata"])) == {"fps": 50}


def test_videopose3d_style_objects_are_read(tmp_path):
    keypoints = {"S1": {"Walking 1": [np.ones((4, 17, 2), np.float32)]}}
    np.savez_compressed(tmp_path / "a.npz", positions_2d=object_array(keypoints))
    loaded = load_npz(tmp_path / "a.npz", allow_objects=True)["positions_2d"].item()
    np.testing.assert_array_equal(loaded["S1"]["Walking 1"][0], np.ones((4, 17, 2)))


def test_objects_are_refused_unless_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", data=object_array({}))
    with pytest.raises(ValueError, match=r"data\.npy.*pickled objects"):
        load_npz(tmp_path / "a.npz")


PLAIN_TYPES = st.sampled_from(["f8", "<f4", ">i4", "u1", "?", "c16", "U3", "S2", "M8[ms]"])


@settings(max_examples=30)
@given(hnp.arrays(PLAIN_TYPES, hnp.array_shapes(max_dims=3, max_side=4)))
def test_pickled_arrays_of_any_protocol_equal_pickle_itself(array):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        loaded = unpickle({"a": array, "t": array.T}, protocol)
        expected = pickle.loads(pickle.dumps(array, protocol))
        assert loaded["a"].dtype == expected.dtype
        np.testing.assert_array_equal(loaded["a"], array)
        np.testing.assert_array_equal(loaded["t"], array.T)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_equal_pickle_itself(protocol):
    mixed = ({3, 4}, np.float32(1.5), np.int64(-1), np.array([None, [1]], object))
    value = OrderedDict(a=[1, -2.5, True, None, "é", b"\xff"], b=mixed)
    assert repr(unpickle(value, protocol)) == repr(value)


def test_python2_bytes_become_latin1_text():
    assert restricted_load(io.BytesIO(b"U\x02\xe9a.")) == "éa"


HOSTILE = {
    "posix.system": Call(os.system, "touch executed"),
    "builtins.eval": Call(eval, "open('executed', 'w')"),
    "builtins.exec": Call(exec, "open('executed', 'w')"),
    "builtins.getattr": Call(getattr, "", "join"),
    "io.open": Call(open, "executed", "w"),
    "numpy.load": Call(np.load, "executed.npy"),
    "pickle.loads": Call(pickle.loads, b"N."),
    "builtins.type": Call(type, "T", (), {}),
}


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX modules")
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_pickle_is_refused_by_name_and_not_executed(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    content = npy_bytes(object_array(None), allow_pickle=True)
    header = content[: content.index(b"\n") + 1]
    write_members("hostile.npz", data=header + pickle.dumps(HOSTILE[name], protocol))
    module = {"builtins": "(builtins|__builtin__)", "io": "(io|_io)", "pickle": "(pickle|_pickle)"}
    package, _, function = name.partition(".")
    with pytest.raises(ValueError, match=rf"refused '{module.get(package, package)}(\.\w+)?\.{function}'"):
        load_npz("hostile.npz", allow_objects=True)
    assert os.listdir(tmp_path) == ["hostile.npz"]


@pytest.mark.parametrize(
    ("pickled", "refused"),
    [
        (b"cos\nsystem\n.", "os.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0edict.__class__\x93.", r"builtins.dict.__class__"),
        (b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.", r"numpy.ndarray.__init__"),
        (b"(S'id'\nios\nsystem\n.", "os.system"),
    ],
)
def test_global_by_hand_written_opcodes_is_refused(pickled, refused):
    with pytest.raises(ValueError, match=f"refused '{refused}"):
        restricted_load(io.BytesIO(pickled))


def test_state_of_anything_but_arrays_is_refused():
    with pytest.raises(ValueError, match="refused to set the state of 'OrderedDict'"):
        unpickle(Call(OrderedDict, state={"update": 1}))


@pytest.mark.parametrize(
    "state",
    [
        (3, "<", None, None, None, 800, 8, 0),  # elements larger than their bytes
        (3, "<", None, None, None, -1, -1, 63),  # bytes taken for object pointers
        (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 8, 0),
    ],
)
def test_data_type_with_a_false_layout_is_refused(state):
    with pytest.raises(ValueError, match="refused a changed layout"):
        unpickle(Call(np.dtype, "f8", False, True, state=state))


def test_byte_order_of_shared_data_type_stays():
    unpickle(Call(np.dtype, "f8", False, False, state=(3, ">", None, None, None, -1, -1, 0)))
    assert np.dtype("f8").isnative


def test_only_the_latin1_codec_is_reachable():
    with pytest.raises(ValueError, match="codec 'rot13'"):
        restricted_load(io.BytesIO(b"c_codecs\nencode\n(Vabc\nVrot13\ntR."))


class Coat:
    """A class of a package that is not to be imported: pickled here under the name far.away.Coat."""

    def __init__(self, **state):
        self.__dict__.update(state)


@pytest.fixture
def far_away(monkeypatch):
    monkeypatch.setitem(sys.modules, "far", types.ModuleType("far"))
    monkeypatch.setitem(sys.modules, "far.away", types.ModuleType("far.away"))
    monkeypatch.setattr(sys.modules["far.away"], "Coat", Coat, raising=False)
    monkeypatch.setattr(Coat, "__module__", "far.away")
    return Coat


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_stand_in_holds_what_was_pickled(far_away, monkeypatch, protocol):
    content = pickle.dumps([far_away(x=np.arange(3.0), inner=far_away(n=1)), far_away()], protocol)
    monkeypatch.delitem(sys.modules, "far.away")
    monkeypatch.delitem(sys.modules, "far")
    coat, bare = restricted_load(io.BytesIO(content), stand_ins=("far",))
    assert isinstance(coat, StandIn) and coat.origin == "far.away.Coat"
    assert (coat.arguments, bare.arguments, bare.state) == ((), (), None)
    np.testing.assert_array_equal(coat.state["x"], [0, 1, 2])
    assert coat.state["inner"].state == {"n": 1}
    assert "far" not in sys.modules


def test_stand_ins_are_made_only_for_the_packages_named(far_away):
    content = pickle.dumps(far_away(x=1), 2)
    for packages in ((), ("near",), ("fa",), ("far.away.Coat",)):
        with pytest.raises(ValueError, match="refused 'far.away.Coat'"):
            restricted_load(io.BytesIO(content), stand_ins=packages)


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX modules")
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_stand_ins_open_no_other_door(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="refused '"):
        restricted_load(io.BytesIO(pickle.dumps(HOSTILE[name], protocol)), stand_ins=("far",))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("pickled", "refused"),
    [
        (b"ccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtR.", "copyreg._reconstructor"),
        (b"ccopy_reg\n_reconstructor\n(cfar\nC\nc__builtin__\ndict\n}tR.", "copyreg._reconstructor"),
        (b"ccopy_reg\n__newobj__\n(cfar\nC\ntR.", "copy_reg.__newobj__"),
        (b"c__builtin__\ntype\n.", "__builtin__.type"),
        (b"c__builtin__\nset\n)R}b.", "to set the state of 'set'"),
    ],
)
def test_makers_of_objects_make_stand_ins_only(pickled, refused):
    with pytest.raises(ValueError, match=f"refused '?{refused}"):
        restricted_load(io.BytesIO(pickled), stand_ins=("far",))


def test_object_and_its_maker_are_refused_without_stand_ins():
    for pickled in (b"c__builtin__\nobject\n.", b"ccopy_reg\n_reconstructor\n."):
        with pytest.raises(ValueError, match="refused"):
            restricted_load(io.BytesIO(pickled))


def test_stand_in_takes_no_items_and_no_attributes_of_its_class():
    for pickled in (b"cfar\nC\n)RI1\nI2\ns.", b"cfar\nC\n)R(I1\ne."):  # C()[1] = 2; C().extend([1])
        with pytest.raises(ValueError, match="are damaged"):
            restricted_load(io.BytesIO(pickled), stand_ins=("far",))
    value = restricted_load(io.BytesIO(b"cfar\nC\n)R}S'origin'\nS'x'\nsb."), stand_ins=("far",))
    assert (value.origin, value.state) == ("far.C", {"origin": "x"})


def test_only_the_members_asked_for_are_read(tmp_path, far_away):
    refused, odd = object_array(Call(os.getcwd)), object_array(far_away(x=1))
    np.savez(tmp_path / "a.npz", kept=np.arange(3), refused=refused, odd=odd)
    loaded = load_npz(tmp_path / "a.npz", allow_objects=True, only=("kept", "odd", "absent"), stand_ins=("far",))
    assert sorted(loaded) == ["kept", "odd"]
    assert loaded["odd"].item().state == {"x": 1}
    with pytest.raises(ValueError, match="refused"):
        load_npz(tmp_path / "a.npz", allow_objects=True, stand_ins=("far",))


@given(st.binary(max_size=60))
def test_damaged_pickles_raise_only_value_error(content):
    try:
        restricted_load(io.BytesIO(content), stand_ins=("far",))
    except ValueError as error:
        assert "in pickled data" in str(error) or "are damaged" in str(error)


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_damaged_archives_raise_only_value_error(tmp_path_factory, position, value):
    content = bytearray(npz_content())
    content[position % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content)
    try:
        load_npz(path, allow_objects=True)
    except ValueError as error:
        assert "damaged.npz" in str(error)


def npz_content():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, xy=np.arange(6.0), data=object_array({"a": [np.ones(2)]}))
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"not an archive", npz_content()[:150]])
def test_corrupt_archive_is_one_sentence(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*a\.npz.* as an npz archive"):
        load_npz(tmp_path / "a.npz")


def test_header_that_asks_for_all_memory_is_refused(tmp_path):
    honest = npy_bytes(np.zeros(1))
    write_members(tmp_path / "a.npz", xy=honest.replace(b"(1,), }" + b" " * 12, b"(9999999999999,), }"))
    with pytest.raises(ValueError, match="declares shape"):
        load_npz(tmp_path / "a.npz")


def test_missing_archive_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        load_npz(tmp_path / "absent.npz")
    with pytest.raises(OSError, match="is a directory"):
        load_npz(tmp_path)
