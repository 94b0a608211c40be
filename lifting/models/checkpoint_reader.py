"""Torch checkpoints of other code, read without running any of it.

Torch's own restricted reader builds tensors and plain containers. What numpy objects a checkpoint holds (VideoPose3D
stores a whole random generator, which that reader alone refuses) are thrown away unread; anything else is refused by
name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


class _Discarded:
    """What becomes of numpy's objects in a checkpoint: nothing."""

    def __new__(cls, *_: object) -> _Discarded:
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Drop the state."""


# The names under which the numpy versions of ten years store a RandomState and the arrays inside it.
_DISCARDED_NAMES = (
    "numpy.random.__RandomState_ctor", "numpy.random._pickle.__randomstate_ctor",
    "numpy.random._pickle.__bit_generator_ctor", "numpy.random._mt19937.MT19937",
    "numpy.random.bit_generator.SeedSequence", "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.ndarray", "numpy.dtype", "_codecs.encode",
)  # fmt: skip


def _stand_in(full_name: str) -> type:
    module, _, name = full_name.rpartition(".")
    return type(name, (_Discarded,), {"__module__": module})


@contextmanager
def _discarding_numpy() -> Iterator[None]:
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([_stand_in(name) for name in _DISCARDED_NAMES])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def read_tensors(path: str | Path) -> Mapping[str, Any]:
    """Read what a torch checkpoint holds, tensors on the CPU, without running code that is inside it.

    Raises FileNotFoundError, OSError when it cannot be opened, and ValueError for damage and, by name, for anything but
    tensors, plain containers and numpy's random state (which is dropped).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {str(path)!r}; expected a .bin of VideoPose3D or a .pth of MMPose")
    try:
        with _discarding_numpy(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch guesses of a damaged file is no help
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise OSError(f"cannot read {str(path)!r}: {error.strerror or error}; check the file") from error
    except Exception as error:  # damaged pickles and archives raise nearly any type
        raise ValueError(_refusal(path, str(error) or type(error).__name__)) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{str(path)!r} holds a {type(found).__name__}, expected a checkpoint's dict; pass the file "
                         "that the training wrote")
    return found


def _refusal(path: Path, message: str) -> str:
    named = re.search(r"GLOBAL (?!instruction)(\S+)", message) or re.search(r"unrecognized function (.+)", message)
    if named:
        return (f"refused {named[1]!r} in {str(path)!r}: only tensors and plain containers are read; do not trust this "
                "file, or save its state_dict alone")
    reason = " ".join(message.split()).split(". ")[0][:120]
    return f"cannot read {str(path)!r} as a torch checkpoint ({reason}); get the file again"
