"""`lift demo`: something to try right after installing."""

from __future__ import annotations

from pathlib import Path

import click

from lifting.console import one_sentence_errors, printable, progress_bar, say


@click.command()
@click.option("--folder", type=click.Path(), default="runs/demo", show_default=True, help="Where the files go.")
@click.option("--open/--no-open", "wanted", default=None, help="Open the page.  [default: where there is a browser]")
@one_sentence_errors
def demo(folder: str, wanted: bool | None) -> None:
    """Lift keypoints that come with lift, and show the motion in the browser."""
    from lifting.cli_view import has_browser, open_page
    from lifting.demo import FOCAL, KEYPOINTS
    from lifting.pipeline import run_video
    from lifting.summary import summary

    paths = [Path(folder) / name for name in ("result.npz", "motion.bvh", "view.html")]
    take = run_video(keypoints=KEYPOINTS, focal=FOCAL, output=paths, progress=progress_bar)
    say(summary(take, paths))
    if wanted or (wanted is None and has_browser()):
        open_page(paths[-1])
    else:
        say(printable(f"open {paths[-1]} in a browser to see it move"))
