"""Checkpoints that survive: written beside and renamed, the last two kept, a damaged newest one passed over."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

from lifting.files import atomic_path

CHECKPOINT, PREVIOUS = "last.pt", "previous.pt"


def save_snapshot(folder: Path, state: dict) -> None:
    """Writes the state as the folder's newest checkpoint; the one that was the newest becomes the one before.

    A process killed at any moment leaves a whole checkpoint. Raises OSError, keeping what was there, when the place
    cannot be written or is full.
    """
    newest = folder / CHECKPOINT
    with atomic_path(newest) as temporary:
        _write(temporary, state, newest)
        if newest.exists():
            os.replace(newest, folder / PREVIOUS)


def _write(path: Path, state: dict, target: Path) -> None:
    try:
        with open(path, "xb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:  # torch says so when a write was cut short, without the reason
        raise OSError(f"cannot write {str(target)!r}: the disk is full or a limit is reached; make room, then go on "
                      "from the last checkpoint, if one was written: it is kept") from error


def load_snapshot(folder: Path) -> dict | None:
    """The newest whole checkpoint of the folder, tensors on the CPU; None where there is none at all.

    A damaged newest one gives a warning and the one before. Raises ValueError when no checkpoint is whole.
    """
    reasons = []
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            state = _read(path)
        except Exception as error:  # torch raises nearly any type for damaged bytes
            reasons.append(f"{path} ({' '.join(str(error).split())[:200] or type(error).__name__})")
            continue
        if reasons:
            warnings.warn(f"the newest checkpoint is damaged: {reasons[0]}; going on from {path}", stacklevel=2)
        return state
    if reasons:
        raise ValueError(f"cannot resume from {' or '.join(reasons)}; expected a whole checkpoint: start again, or "
                         "give another folder")
    return None


def _read(path: Path) -> dict:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "step" not in state:
        raise ValueError("it holds something else")
    return state


def remove_snapshots(folder: Path) -> None:
    """Deletes the folder's checkpoints, for a run that starts again."""
    for name in (CHECKPOINT, PREVIOUS):
        (folder / name).unlink(missing_ok=True)
