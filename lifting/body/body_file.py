"""Our body files: one npz of plain arrays and a JSON text, a megabyte for a mesh that takes 8 MB in memory.

Positions and directions are fixed-point numbers of 16 bits. Along the vertices, which meshes number from neighbour to
neighbour, only differences are stored, split into their low and their high bytes: both compress to about half. Joints,
and all else that is small, are stored as they are (float32). What is written is rounded once; reading it back gives the
same numbers every time.

Arrays of the file: ``<field>`` plain; ``<field>.steps`` (2, ...) uint8, the bytes of differences; sparse matrices as
``<field>.values``, ``.columns`` and ``.counts`` (entries per row). ``metadata`` is the JSON: format, names, step sizes.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from lifting.body.model import BodyModel, Preview
from lifting.files import atomic_write, load_npz

__all__ = ["BODIES", "is_body_file", "load_body", "read_body", "save_body"]

FORMAT = "lift-body"
VERSION = 1
# Bodies that come with the package.
_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
BODIES = {"lite": _WEIGHTS / "body_lite.npz", "children": _WEIGHTS / "body_children.npz"}
_TOLERANCE = 5e-5  # metres: size of a step of positions and directions; rounding errs by half of it at most
_WEIGHT_STEPS = 4095
_MOST_BYTES = 1 << 30  # no body is larger; a hostile file might claim to be
_JSON_FIELDS = ("name", "joints", "parents", "up", "forward", "licence", "metadata")


def load_body(source: str | os.PathLike[str] | BodyModel = "lite") -> BodyModel:
    """A body by name, from a file of ours, or from a file of the SMPL family (``.pkl`` or ``.npz``) that you have.

    Names are those of `BODIES`; such a body is read once and kept. Raises FileNotFoundError where there is no file,
    ValueError for an unknown name and for a file that is corrupt, hostile or no body.
    """
    if isinstance(source, BodyModel):
        return source
    if not isinstance(source, (str, os.PathLike)) or not str(source).strip():
        raise ValueError(f"got {source!r} in place of a body, expected one of {', '.join(BODIES)}, or a file.")
    if str(source) in BODIES:
        return _embedded(str(source))
    path = Path(source).expanduser()
    if not path.exists() and not path.suffix:
        raise ValueError(f"there is no body {str(source)!r}; known are {', '.join(BODIES)}, or give a file.")
    if path.suffix.lower() == ".npz" and is_body_file(path):
        return read_body(path)
    from lifting.body.smpl_files import read_smpl

    return read_smpl(path)


@cache
def _embedded(name: str) -> BodyModel:
    return read_body(BODIES[name])


# ---- writing


def save_body(body: BodyModel, path: str | os.PathLike[str], *, tolerance: float = _TOLERANCE) -> None:
    """Write a body; vertices and directions are rounded to whole multiples of `tolerance` metres.

    Raises ValueError when the tolerance is not positive, OSError for an unwritable place.
    """
    if not tolerance > 0:
        raise ValueError(f"got a tolerance of {tolerance}, expected a positive number of metres.")
    sizes: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {}
    for name in ("template", "shape_directions", "pose_directions"):
        if getattr(body, name) is not None:
            arrays[f"{name}.steps"], sizes[name] = _to_steps(getattr(body, name), tolerance)
    for name in ("joint_template", "joint_directions", "shape_sigma"):
        arrays[name] = getattr(body, name).astype(np.float32)
    arrays |= _pack_weights(body.skin_weights)
    arrays["faces.steps"] = _pack_faces(body.faces)
    for layout, matrix in body.regressors.items():
        arrays |= _pack_sparse(f"regressors/{layout}", matrix, np.float32)
    for level, preview in body.previews.items():
        arrays[f"previews/{level}/vertex_ids"] = _small_integers(preview.vertex_ids)
        arrays[f"previews/{level}/faces.steps"] = _pack_faces(preview.faces)
    arrays |= {f"extras/{name}": array for name, array in body.extras.items()}
    facts = {"format": FORMAT, "version": VERSION, "sizes": sizes, "extras": list(body.extras),
             "regressors": list(body.regressors), "previews": list(body.previews),
             **{name: getattr(body, name) for name in _JSON_FIELDS}}
    with atomic_write(path) as file:
        np.savez_compressed(file, metadata=np.array(json.dumps(facts)), **arrays)


def _to_steps(values: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """Fixed-point differences along the first axis as bytes (2, ..., V), and the size of a step."""
    size = max(tolerance, float(np.abs(values).max(initial=0)) / 32767)
    return _to_differences(np.rint(values / size).astype(np.int16)), size


def _to_differences(numbers: np.ndarray) -> np.ndarray:
    """int16 (V, ...) as the two bytes (2, ..., V) of its differences along the first axis, modulo 2^16."""
    numbers = np.ascontiguousarray(np.moveaxis(numbers, 0, -1)).view(np.uint16)
    differences = np.diff(numbers, axis=-1, prepend=np.zeros((*numbers.shape[:-1], 1), np.uint16))
    # Zigzag: small differences of either sign get a high byte of zero.
    signed = differences.view(np.int16)
    folded = ((signed << 1) ^ (signed >> 15)).view(np.uint16)
    return np.stack([(folded & 255).astype(np.uint8), (folded >> 8).astype(np.uint8)])


def _pack_weights(weights: sparse.csr_matrix) -> dict[str, np.ndarray]:
    """Weights in whole steps that sum to the same for every vertex: the largest takes what rounding left."""
    steps = np.rint(weights.toarray() * _WEIGHT_STEPS)
    vertices = np.arange(len(steps))
    steps[vertices, steps.argmax(axis=1)] += _WEIGHT_STEPS - steps.sum(axis=1)
    return _pack_sparse("skin_weights", sparse.csr_matrix(steps), np.uint16)


def _pack_sparse(name: str, matrix: sparse.csr_matrix, dtype: type) -> dict[str, np.ndarray]:
    return {f"{name}.values": matrix.data.astype(dtype), f"{name}.columns": _small_integers(matrix.indices),
            f"{name}.counts": _small_integers(np.diff(matrix.indptr))}


def _pack_faces(faces: np.ndarray) -> np.ndarray:
    """Faces as bytes of differences, in 16 bits where the numbers fit, else as they are."""
    if faces.max(initial=0) < 1 << 16:
        return _to_differences(faces.astype(np.uint16).view(np.int16))
    return faces.astype(np.uint32)


def _small_integers(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


# ---- reading


def is_body_file(path: str | os.PathLike[str]) -> bool:
    """Whether an npz archive is a body of ours, by its table of contents; False for what cannot be opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"metadata.npy", "template.steps.npy"} <= set(archive.namelist())
    except Exception:  # zipfile raises several types for damaged bytes; whoever reads the file says what is wrong
        return False


def read_body(path: str | os.PathLike[str]) -> BodyModel:
    """Read a body of our own format, never running code that is inside the file.

    Raises FileNotFoundError, OSError when it cannot be opened, ValueError when it is corrupt, hostile or no body.
    """
    _check_size(path)
    arrays = load_npz(path)
    try:
        facts = json.loads(str(arrays["metadata"]))
        if facts["format"] != FORMAT or facts["version"] != VERSION:
            raise ValueError(f"it says {facts['format']} {facts['version']}, expected {FORMAT} {VERSION}")
        with np.errstate(all="ignore"):  # values that are not finite are refused below, in words
            return _build(arrays, facts)
    except KeyError as error:
        raise ValueError(f"{str(path)!r} is no body of ours: it lacks {error}; write it with save_body.") from None
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"cannot read {str(path)!r} as a body: {error}") from error


def _check_size(path: str | os.PathLike[str]) -> None:
    """Refuse, before anything is unpacked, an archive that unpacks to more than any body."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except Exception:  # load_npz says what is wrong
        return
    if size > _MOST_BYTES:
        raise ValueError(f"{str(path)!r} unpacks to {size / 2**30:.1f} GiB, expected a body of at most 1 GiB; it is "
                         "damaged or hostile.")


def _build(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> BodyModel:
    template = _from_steps(arrays, facts, "template")
    vertices, bones = len(template), len(facts["joints"])
    weights = _unpack_sparse(arrays, "skin_weights", bones)
    weights = sparse.diags(1 / np.maximum(np.asarray(weights.sum(axis=1)).ravel(), 1)) @ weights
    regressors = {layout: _unpack_sparse(arrays, f"regressors/{layout}", vertices + bones)
                  for layout in facts["regressors"]}
    previews = {level: Preview(arrays[f"previews/{level}/vertex_ids"],
                               _unpack_faces(arrays[f"previews/{level}/faces.steps"])) for level in facts["previews"]}
    pose = _from_steps(arrays, facts, "pose_directions") if "pose_directions" in facts["sizes"] else None
    return BodyModel(
        template=template, shape_directions=_from_steps(arrays, facts, "shape_directions"), pose_directions=pose,
        joint_template=arrays["joint_template"], joint_directions=arrays["joint_directions"], skin_weights=weights,
        faces=_unpack_faces(arrays["faces.steps"]), regressors=regressors, shape_sigma=arrays["shape_sigma"],
        previews=previews, extras={name: arrays[f"extras/{name}"] for name in facts["extras"]},
        **{name: facts[name] for name in _JSON_FIELDS})


def _from_steps(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], name: str) -> np.ndarray:
    return _from_differences(arrays[f"{name}.steps"]).view(np.int16) * float(facts["sizes"][name])


def _from_differences(planes: np.ndarray) -> np.ndarray:
    """The uint16 numbers (V, ...) of bytes (2, ..., V): `_to_differences` undone."""
    if planes.dtype != np.uint8 or planes.ndim < 2 or len(planes) != 2:
        raise ValueError(f"got steps {planes.shape} of {planes.dtype}, expected two planes of bytes")
    folded = planes[0] | planes[1].astype(np.uint16) << 8
    differences = (folded >> 1) ^ (-(folded & 1).view(np.int16)).view(np.uint16)
    return np.ascontiguousarray(np.moveaxis(np.cumsum(differences, axis=-1, dtype=np.uint16), -1, 0))


def _unpack_faces(stored: np.ndarray) -> np.ndarray:
    return (_from_differences(stored) if stored.dtype == np.uint8 else stored).astype(np.int64)


def _unpack_sparse(arrays: Mapping[str, np.ndarray], name: str, columns: int) -> sparse.csr_matrix:
    values, numbers, counts = (arrays[f"{name}.{part}"] for part in ("values", "columns", "counts"))
    if any(part.ndim != 1 for part in (values, numbers, counts)) or not len(values) == len(numbers) == counts.sum():
        raise ValueError(f"the parts of the matrix {name!r} have the lengths {len(values)}, {len(numbers)} and "
                         f"{int(counts.sum())}, expected the same")
    if any(part.dtype.kind not in "iu" for part in (numbers, counts)) or (
            numbers.size and not (numbers.min() >= 0 and numbers.max() < columns)):
        raise ValueError(f"the matrix {name!r} has columns outside 0..{columns - 1}")
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return sparse.csr_matrix((values.astype(np.float64), numbers.astype(np.int64), starts), (len(counts), columns))
