"""The metrics of a run: one JSON line per report in ``metrics.jsonl``; TensorBoard's files where it is installed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from lifting.files import atomic_write

METRICS = "metrics.jsonl"


class MetricsLog:
    """Writes reports of a run that stands at ``step``; what was reported of later steps is forgotten.

    Raises OSError when the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self.path = folder / METRICS
        kept = [row for row in read_metrics(folder) if row["step"] <= step]
        if self.path.exists():
            with atomic_write(self.path, "w") as file:
                file.writelines(json.dumps(row) + "\n" for row in kept)
        self._board = _open_board(folder, step)

    def write(self, report: dict) -> None:
        """Adds one report, a dict with its ``step``."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(report) + "\n")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OSError(f"cannot write {str(self.path)!r}: {reason}; make room, then resume from the last "
                          "checkpoint, which is kept") from error
        for name, value in report.items():
            if self._board is not None and name != "step" and isinstance(value, (int, float)):
                self._board.add_scalar(name, value, report["step"])

    def close(self) -> None:
        """Finishes TensorBoard's file."""
        if self._board is not None:
            self._board.close()


class NoLog:
    """What stands for the log on ranks that write none."""

    def write(self, report: dict) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def read_metrics(folder: str | Path) -> list[dict]:
    """The reports of a run, in order; none where there are none; a line that was cut short is left out."""
    path, rows = Path(folder) / METRICS, []
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def _open_board(folder: Path, step: int):
    """TensorBoard's writer, None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
