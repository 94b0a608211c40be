"""Functions for the processes of the worker tests; they must be importable there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


class Doubler:
    """Doubles numbers and notes who worked; dies at one number, once or always; an interrupt says where it was."""

    def __init__(self, folder: Path, deadly: int | None = None, always: bool = False, slow: int | None = None) -> None:
        self.folder, self.deadly, self.always, self.slow = Path(folder), deadly, always, slow
        (self.folder / f"started-{os.getpid()}").touch()

    def __call__(self, number: int) -> int:
        if number == self.deadly and (self.always or not (self.folder / "died").exists()):
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.slow:
            (self.folder / "begun").touch()
            try:
                time.sleep(60)
            finally:
                (self.folder / "tidied").touch()
        return 2 * number


def fail_to_start() -> None:
    raise ValueError("got no weights, expected some; give them")


def work_fails(number: int) -> None:
    raise ZeroDivisionError(f"ours at {number}")


def start_to_fail() -> object:
    return work_fails
