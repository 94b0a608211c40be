"""Files written whole or not at all, and archives read without ever running what is inside them.

Writing goes beside the target and is renamed over it at the end, so an interrupted or failed write leaves the final
name as it was. Reading foreign pickles goes through an allow list: anything it does not name is refused by name.
"""

from __future__ import annotations

import errno
import math
import os
import pickle
import secrets
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

__all__ = ["StandIn", "atomic_path", "atomic_write", "check_writable", "load_npz", "restricted_load"]

_WRITE_MODES = ("w", "wb", "w+b")


# ---- writing


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Make the parent folders of `path` and check, before hours of work, that a file can be made there.

    Returns the path with symbolic links followed. Raises OSError when the place cannot be written or is no plain file.
    """
    target = _resolve(path)
    _probe_mode(path, target)
    return target


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, same suffix, for libraries that open files by name; rename it at the end.

    The temporary file is removed on any exception, KeyboardInterrupt included, and `path` stays as it was. Parent
    folders are made. The file gets the permissions of the one it replaces, else those of any new file, also where a
    library makes its own private. Raises OSError when the place cannot be written, is full, or nothing was written.
    """
    target = _resolve(path)
    mode = _probe_mode(path, target)
    temporary = _beside(target)
    try:
        yield temporary
        if not temporary.exists():
            raise OSError(f"nothing was written for {str(path)!r}: expected a file at {str(temporary)!r}")
        _rename(temporary, target, mode)
    except OSError as error:
        _remove(temporary)
        first = error.__cause__ or error  # of a file written for another, whose name nobody knows
        if getattr(first, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _unwritable(path, first) from first
        raise
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Yield a file open for writing beside `path`, renamed over it at the end and removed on any exception.

    `mode` is "wb" (bytes), "w+b" (bytes, readable) or "w" (UTF-8 text, line ends kept as written). Parent folders are
    made. Raises ValueError for another mode and OSError when the place cannot be written.
    """
    if mode not in _WRITE_MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(_WRITE_MODES)}: files are written as a whole")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with atomic_path(path) as temporary, open(temporary, mode.replace("w", "x"), **text) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _resolve(path: str | os.PathLike[str]) -> Path:
    """Follow symbolic links (renaming would replace them), make the folders, refuse folders and devices."""
    try:
        target = Path(os.path.realpath(os.path.expanduser(path)))
        target.parent.mkdir(parents=True, exist_ok=True)
        occupied = target.exists() and not target.is_file()
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    if occupied or not target.name:
        kind = "a folder" if target.is_dir() else "not a regular file"
        raise OSError(f"cannot write {str(path)!r}: it is {kind}; give the name of a file")
    return target


def _beside(target: Path) -> Path:
    """Name a temporary file in the folder of `target`: hidden, and free of the user's text but for the suffix."""
    return target.with_name(f".lift-{secrets.token_hex(6)}{target.suffix}")


def _probe_mode(path: str | os.PathLike[str], target: Path) -> int:
    """Make a file beside the target, remove it, and return the permissions that it had."""
    probe = _beside(target)
    try:
        with probe.open("xb") as file:
            mode = os.fstat(file.fileno()).st_mode
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    probe.unlink()
    return mode & 0o777


def _rename(temporary: Path, target: Path, mode: int) -> None:
    temporary.chmod(target.stat().st_mode & 0o777 if target.exists() else mode)
    os.replace(temporary, target)


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # the error that brought us here says more than a failed clean-up
        pass


def _unwritable(path: object, error: Exception) -> OSError:
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    return OSError(f"cannot write {str(path)!r}: {reason}; choose a folder that has room and that you may write to")


# ---- reading


def load_npz(
    path: str | os.PathLike[str],
    allow_objects: bool = False,
    *,
    only: Collection[str] | None = None,
    stand_ins: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Read every array of an npz archive, or `only` those named, never running code that is inside it.

    With `allow_objects`, pickled object arrays (as VideoPose3D writes them) go through `restricted_load`, which
    explains `stand_ins`; without, they are refused. Raises FileNotFoundError, OSError when it cannot be opened,
    ValueError when it is corrupt or hostile.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {item.filename[:-4]: item for item in archive.infolist() if item.filename.endswith(".npy")}
            return {name: _read_member(archive, member, allow_objects, stand_ins)
                    for name, member in members.items() if only is None or name in only}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file at {str(path)!r}: expected an npz archive; check the path") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(f"cannot read {str(path)!r}: {reason}; expected an npz archive that you may read") from error
    except Exception as error:  # zipfile and numpy raise a dozen types for damaged bytes
        raise ValueError(f"cannot read {str(path)!r} as an npz archive: {_reason(error)}") from error


def restricted_load(file: IO[bytes], *, stand_ins: Collection[str] = ()) -> Any:
    """Read one pickle that may hold only numpy arrays and scalars and plain Python containers and values.

    Text of Python 2 is read as latin-1. Objects of the packages named by `stand_ins` (such as ``"chumpy"``) are read as
    `StandIn`: what was pickled of them, without importing or running anything of theirs. Raises ValueError for damaged
    bytes, and for anything outside the allow list, which it names.
    """
    try:
        return _AllowListUnpickler(file, stand_ins).load()
    except _RefusedError:
        raise
    except Exception as error:  # damaged pickles raise nearly any type
        raise ValueError(f"the pickled data are damaged: {_reason(error)}; write the file again") from error


class StandIn:
    """What a pickle holds of an object whose class is not imported: names and data, nothing that can act.

    Attributes:
        origin: module and name of the class, such as ``chumpy.ch.Ch``.
        arguments: what the object was made of.
        state: what was set on it afterwards, mostly a dict of its attributes; None when nothing was.
    """

    origin: str = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> StandIn:
        """Make the whole object here, because pickles do not always call `__init__`."""
        made = super().__new__(cls)
        made.arguments, made.state = arguments, None
        return made


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, allow_objects: bool, stand_ins: Collection[str]
) -> np.ndarray:
    with archive.open(member) as file:
        shape, dtype = _read_header(file)
        if dtype.hasobject:
            if not allow_objects:
                raise ValueError(f"{member.filename!r} holds pickled objects, expected plain numbers; save it as such")
            return _checked_objects(restricted_load(file, stand_ins=stand_ins), shape, member.filename)
    # A false header could ask for any amount of memory.
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename!r} declares shape {shape} but holds only {member.file_size} bytes")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy format {version} found, expected 1.0 or 2.0; save the arrays without named fields")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _checked_objects(value: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.shape != shape:
        raise ValueError(f"{name!r} holds a {type(value).__name__}, expected an object array of shape {shape}")
    return value


class _RefusedError(ValueError):
    """A pickle asked for something outside the allow list."""


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for `codecs.encode`, with which Python 3 writes bytes for Python 2; no other codec is reachable."""
    if encoding.lower().replace("-", "") not in ("latin1", "iso88591"):
        raise _RefusedError(f"refused the codec {encoding!r} in pickled data: only latin1 is allowed")
    return text.encode("latin1")


def _empty_array(*_: Any) -> np.ndarray:
    """Stand in for numpy's `_reconstruct`: the array that BUILD fills."""
    return np.ndarray.__new__(np.ndarray, (0,), np.int8)


def _new_dtype(specification: Any, align: bool = False, copy: bool = True) -> np.dtype:
    """Make a data type of its own, because BUILD would change the byte order of numpy's shared one."""
    return np.dtype(specification, align=align, copy=True)


def _allowed_globals() -> dict[tuple[str, str], Any]:
    plain = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, bool, complex)
    allowed: dict[tuple[str, str], Any] = {
        (module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in plain
    }
    scalar, from_buffer = np.float64(0).__reduce__()[0], np.zeros(1).__reduce_ex__(5)[0]
    for package in ("numpy.core", "numpy._core"):  # numpy 1 and 2
        allowed[f"{package}.multiarray", "_reconstruct"] = _empty_array
        allowed[f"{package}.multiarray", "scalar"] = scalar
        allowed[f"{package}.numeric", "_frombuffer"] = from_buffer
    allowed["numpy", "ndarray"] = "numpy.ndarray"  # only ever the first argument of _reconstruct: a name is enough
    allowed["numpy", "dtype"] = _new_dtype
    allowed["collections", "OrderedDict"] = OrderedDict
    allowed["_codecs", "encode"] = allowed["codecs", "encode"] = _encode_latin1
    return allowed


def _reconstruct_stand_in(kind: Any, base: Any = None, state: Any = None) -> StandIn:
    """Stand in for `copyreg._reconstructor`, with which old protocols make plain objects."""
    if not (isinstance(kind, type) and issubclass(kind, StandIn)) or base != "object" or state is not None:
        raise _RefusedError("refused 'copyreg._reconstructor' in pickled data: expected it to make a plain object")
    return kind()


_ALLOWED = _allowed_globals()
# Reachable only where stand-ins are asked for; of `object` its name is enough, as of numpy's ndarray.
_ALLOWED_FOR_STAND_INS = {
    **{(module, "object"): "object" for module in ("builtins", "__builtin__")},
    **{(module, "_reconstructor"): _reconstruct_stand_in for module in ("copyreg", "copy_reg")},
}


# The C unpickler gives no say over BUILD, which sets an object's state, so this derives from the Python one.
class _AllowListUnpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: IO[bytes], stand_ins: Collection[str] = ()) -> None:
        super().__init__(file, encoding="latin1")
        self._packages = tuple(stand_ins)
        self._allowed = {**_ALLOWED, **_ALLOWED_FOR_STAND_INS} if stand_ins else _ALLOWED

    def find_class(self, module: str, name: str) -> Any:
        """Look a global up in the allow list, or make the stand-in for a class; nothing is ever imported."""
        if (module, name) in self._allowed:
            return self._allowed[module, name]
        if any(module == package or module.startswith(f"{package}.") for package in self._packages):
            return type("StandIn", (StandIn,), {"origin": f"{module}.{name}"})
        raise _RefusedError(
            f"refused '{module}.{name}' in pickled data: only numpy arrays and plain Python containers are read; "
            "do not trust this file, or save it as plain arrays"
        )

    def load_build(self) -> None:
        """Set the state of an array, a data type or a stand-in, and of nothing else."""
        state, target = self.stack[-1], self.stack[-2]
        if isinstance(target, StandIn):
            target.state = self.stack.pop()
            return
        if isinstance(target, np.dtype):
            _check_dtype_state(target, state)
        elif not isinstance(target, np.ndarray):
            kind = type(target).__name__
            raise _RefusedError(f"refused to set the state of '{kind}' in pickled data: expected an array")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def _check_dtype_state(dtype: np.dtype, state: Any) -> None:
    """Let only the byte order change: numpy trusts flags and sizes in a pickle, false ones turn bytes into pointers."""
    _, order, *layout, size, alignment, flags = state[:8]
    changed = order not in tuple("<>=|") or any(part is not None for part in layout) or flags != dtype.flags
    if changed or size not in (-1, dtype.itemsize) or alignment not in (-1, dtype.alignment):
        raise _RefusedError(f"refused a changed layout of '{dtype}' in pickled data: only plain numeric types are read")
