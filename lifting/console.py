"""What every command shares: one sentence for an error, text that any terminal shows, progress bars."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable, Collection, Iterable
from functools import wraps

import click
from click.core import ParameterSource

INTERRUPTED = 130  # exit code, as shells have it
USER_ERRORS = (ValueError, OSError, ImportError, MemoryError)


def one_sentence_errors(command: Callable) -> Callable:
    """Turns errors of the user's input into one sentence on stderr and exit code 2; Ctrl-C into exit code 130.

    Warnings are sentences on stderr, too, without the line of code that they come from.
    """

    @wraps(command)
    def wrapped(*args: object, **kwargs: object) -> object:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            say("lift: interrupted", err=True)
            sys.exit(INTERRUPTED)
        except USER_ERRORS as error:
            say(f"lift: {printable(one_sentence(error))}", err=True)
            sys.exit(2)

    return wrapped


def _show_warning(message: Warning | str, *_: object) -> None:
    say(f"lift: warning: {printable(' '.join(str(message).split()))}", err=True)


def refuse_options(allowed: Collection[str], reason: str) -> None:
    """Raises ValueError when the running command was given an option that it would not look at.

    allowed: names of the parameters that it does look at; reason: why the others say nothing.
    """
    context = click.get_current_context()
    given = ["/".join([parameter.opts[0], *parameter.secondary_opts]) for parameter in context.command.params
             if context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
             and parameter.name not in allowed]  # fmt: skip
    if given:
        raise ValueError(f"got {', '.join(given)}, but {reason}; leave {'it' if len(given) == 1 else 'them'} out")


def one_sentence(error: Exception) -> str:
    """An error's text on one line."""
    text = str(error) if not isinstance(error, MemoryError) else "not enough memory for this input"
    return " ".join(text.split()) or type(error).__name__


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would obey or a stream refuse (file names may hold anything)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str, err: bool = False) -> None:
    """Prints the text; characters that the stream's encoding lacks come out escaped."""
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def progress_bar(iterable: Iterable, total: int | None, title: str, unit: str = "frame") -> Iterable:
    """A progress bar on stderr with rate, in such units, and time left; silent where that is no terminal."""
    from tqdm import tqdm

    columns = shutil.get_terminal_size((80, 24)).columns  # some terminals say 0, where tqdm would show nothing
    return tqdm(iterable, total=total, desc=title, unit=unit, disable=None, leave=False, ncols=min(columns, 100))
