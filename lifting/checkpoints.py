"""Weight files: safetensors with a JSON header that holds everything needed to rebuild and use the model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lifting.files import atomic_path

KEY = "lift"
SCALE_OF_ROWS = "/scale"
FORMAT = 1


@dataclass(frozen=True)
class Header:
    """What a weight file says of itself.

    kind: which network it is (``lifter``, ``temporal``). config: the architecture's fields (tuples come back as lists).
    skeleton_in and skeleton_out: layouts by name. fps: frame rate it was trained at. input: how keypoints become input.
    licence, training (data and steps) and version (of the code) in words. metrics: benchmark figures by name.
    Raises ValueError for a field of the wrong type and an fps that is not positive.
    """

    kind: str
    config: dict
    skeleton_in: str
    skeleton_out: str
    fps: float
    input: str
    licence: str
    training: str
    version: str
    metrics: dict

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kind = {"config": dict, "metrics": dict, "fps": (int, float)}.get(name, str)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"the header's {name} is {value!r}; expected {_TYPE_NAMES[kind]}")
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"the header's fps is {self.fps}; expected a positive number")


_TYPE_NAMES = {dict: "a dictionary", str: "text", (int, float): "a number"}


def save_weights(path: str | Path, tensors: dict, header: Header, *, half: bool = True, int8: bool = False) -> None:
    """Writes tensors (floating ones as float16 unless ``half`` is false) and header beside ``path``, then renames.

    int8: matrices as whole numbers from -127 to 127 and one scale per row, at half of float16's size.
    Raises ValueError for a tensor with values that are not finite once written, OSError for an unwritable place.
    """
    import torch
    from safetensors.torch import save_file

    tensors = _rows_as_int8(tensors) if int8 else tensors
    kept = {k: v.to(torch.float16) if half and v.is_floating_point() else v for k, v in tensors.items()}
    kept = {k: v.detach().cpu().contiguous() for k, v in kept.items()}
    if broken := [k for k, v in kept.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise ValueError(
            f"the tensor {broken[0]!r} is not finite{' in half precision' if half else ''}; "
            "write weights of a run that went well, or with half=False"
        )
    described = json.dumps({"format": FORMAT, **asdict(header)}, sort_keys=True)
    with atomic_path(path) as temporary:
        save_file(kept, str(temporary), metadata={KEY: described})


def load_weights(path: str | Path) -> tuple[dict, Header]:
    """Tensors in float32 and the header of a weight file.

    Raises FileNotFoundError for a missing file and ValueError for one that is not ours; both say what to do.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; expected a .safetensors file written by lift")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable safetensors file ({error}); pass weights written by lift") from error
    header = _read_header(path, metadata)
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    return _rows_from_int8(tensors), header


def _rows_as_int8(tensors: dict) -> dict:
    """Every floating matrix as int8 and, under its name with `SCALE_OF_ROWS`, the scale (rows, 1)."""
    kept = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.dim() != 2:
            kept[name] = tensor
            continue
        scale = (tensor.abs().amax(1, keepdim=True) / 127).clamp_min(6e-8).half()  # float16's least
        kept |= {name: (tensor / scale.float()).round().clamp(-127, 127).char(), name + SCALE_OF_ROWS: scale}
    return kept


def _rows_from_int8(tensors: dict) -> dict:
    scales = {k.removesuffix(SCALE_OF_ROWS): tensors.pop(k) for k in list(tensors) if k.endswith(SCALE_OF_ROWS)}
    return {k: v * scales[k] if k in scales else v for k, v in tensors.items()}


def _read_header(path: Path, metadata: dict) -> Header:
    try:
        fields = json.loads(metadata[KEY])
        if fields.pop("format") != FORMAT:
            raise ValueError(f"its format number is not {FORMAT}")
        return Header(**fields)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path} is a safetensors file without lift's header ({reason}); "
            "convert foreign checkpoints first or pass weights written by lift"
        ) from error


def file_hash(path: str | Path) -> str:
    """First 16 hexadecimal digits of the file's SHA-256; FileNotFoundError for a missing file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
