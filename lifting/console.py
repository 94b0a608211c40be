"""What every command shares: one sentence for an error, text that any terminal shows, progress bars."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from functools import wraps

import click

INTERRUPTED = 130  # exit code, as shells have it
USER_ERRORS = (ValueError, OSError, ImportError, MemoryError)


def one_sentence_errors(command: Callable) -> Callable:
    """Turns errors of the user's input into one sentence on stderr and exit code 2; Ctrl-C into exit code 130."""

    @wraps(command)
    def wrapped(*args: object, **kwargs: object) -> object:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            say("lift: interrupted", err=True)
            sys.exit(INTERRUPTED)
        except USER_ERRORS as error:
            text = str(error) if not isinstance(error, MemoryError) else "not enough memory for this input"
            say(f"lift: {printable(' '.join(text.split())) or type(error).__name__}", err=True)
            sys.exit(2)

    return wrapped


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would obey or a stream refuse (file names may hold anything)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str, err: bool = False) -> None:
    """Prints the text; characters that the stream's encoding lacks come out escaped."""
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def progress_bar(iterable: Iterable, total: int | None, title: str) -> Iterable:
    """A progress bar with rate and time left on stderr; silent where that is no terminal."""
    from tqdm import tqdm

    columns = shutil.get_terminal_size((80, 24)).columns  # some terminals say 0, where tqdm would show nothing
    return tqdm(iterable, total=total, desc=title, unit="frame", disable=None, leave=False, ncols=min(columns, 100))
