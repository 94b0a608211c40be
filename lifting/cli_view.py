"""`lift view`: a result as a page for the browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lifting.console import one_sentence_errors, printable, say

if TYPE_CHECKING:
    from lifting.motion import Motion, Take

PAGE = "view.html"


@click.command()
@click.argument("result", type=click.Path())
@click.option("--output", "-o", type=click.Path(), help="Page to write, .html.  [default: runs/NAME/view.html]")
@click.option("--truth", type=click.Path(), help="Recorded motion to show beside it: an .npz as data/sample_truth.npz, "
              "or another result of the same video.")
@click.option("--body", metavar="FILE", help="File of the body of the SMPL family that was fitted, if it was moved.")
@click.option("--open/--no-open", "wanted", default=None, help="Open the page.  [default: where there is a browser]")
@one_sentence_errors
def view(result: str, output: str | None, truth: str | None, body: str | None, wanted: bool | None) -> None:
    """Make a page of a RESULT that plays in any browser, without a network, and open it."""
    path = make_page(result, output, truth, body)
    say(printable(f"wrote {path}"))
    if wanted or (wanted is None and has_browser()):
        open_page(path)


def make_page(
    result: str | Path,
    output: str | Path | None = None,
    truth: str | Path | None = None,
    body: str | Path | None = None,
) -> Path:
    """Write the page of a result file, by default into ``runs/NAME/``; returns its path.

    truth: a file for `read_beside`. body: the file of the body that was fitted, where the result's name for it is not
    enough. Raises ValueError, FileNotFoundError or OSError in one sentence, before anything is written.
    """
    from lifting.continuation import continued
    from lifting.export import load
    from lifting.outputs import body_meshes, default_fit_outputs, no_empty_folders, plan_outputs
    from lifting.view.page import write_page
    from lifting.world import presented

    take = load(result)
    path = default_fit_outputs(result)[0].with_name(PAGE) if output is None else Path(output)
    if path.suffix.lower() != ".html":
        raise ValueError(f"got the output '{path.name}', expected a page, such as {PAGE}; lift export writes the rest")
    shown, beside = presented(take), None if truth is None else read_beside(truth, take)
    with no_empty_folders([path]):
        plan_outputs([path], result, truth)
        return write_page(shown, path, meshes=body_meshes(continued(shown), body), truth=beside)


def read_beside(path: str | Path, take: Take) -> Take | Motion:
    """A truth at the times of the take, or another result, to be shown beside it.

    Raises FileNotFoundError, and ValueError for a file that is neither.
    """
    from lifting.export import load, suffix_of
    from lifting.files import load_npz
    from lifting.training.evaluate_result import read_truth

    if suffix_of(path) != ".npz" or load_npz(path, only=("ids",)):
        return load(path)
    return read_truth(path).at(take.times, take.fps)


def has_browser() -> bool:
    """Whether a browser with windows can be opened from here."""
    if sys.platform not in ("darwin", "win32") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    import webbrowser

    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def open_page(path: Path) -> None:
    """Show a page in the browser, or say how to."""
    import webbrowser

    if not has_browser() or not webbrowser.open(path.resolve().as_uri()):
        say(printable(f"no browser was found here; open {path.resolve()} in one"))
