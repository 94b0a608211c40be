"""What was not given and is assumed: said by a warning at the caller's line."""

from __future__ import annotations

import sys
import warnings


class AssumptionWarning(UserWarning):
    """Something about the input was not given and has been assumed."""


def announce(sentence: str) -> None:
    """Warns at the line outside the library that called it."""
    level, frame = 1, sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("lifting."):
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, AssumptionWarning, stacklevel=level)
