"""`lift run` over many files: a line for each, a summary, and an exit code that says whether all went well."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing

from lifting.console import INTERRUPTED, printable, progress_bar, say

SOME_FAILED = 1  # exit code


def run_many(
    output: Sequence[str], *, as_json: bool, shard: str | None, engine: str | None, workers: int | None,
    video: str | None, keypoints: str | None, **options: object,
) -> None:  # fmt: skip
    """Lifts the files that a folder or pattern stands for; exits with 1 when some failed and 130 when interrupted.

    options: those of `lifting.pipeline.run_video` that all files share, and ``weights``.
    """
    from lifting.batch import plan_jobs, run_batch

    if engine == "ray" and workers is not None:
        raise ValueError("got --workers with the engine ray, whose cluster decides how many; leave it out")
    jobs = plan_jobs(video=video, keypoints=keypoints, output=output, mesh=options["mesh"], shard=shard)
    outcomes = run_batch(jobs, options, engine=engine or "local", workers=workers or 1, progress=progress_bar)
    done, interrupted = [], False
    with closing(outcomes):
        try:
            for outcome in show_lines(outcomes, len(jobs), as_json):
                done.append(outcome)
        except KeyboardInterrupt:
            interrupted = True
    interrupted |= any(outcome.status == "interrupted" for outcome in done)
    counts = Counter(outcome.status for outcome in done)
    facts = {"files": len(jobs), "lifted": counts["lifted"], "skipped": counts["skipped"], "failed": counts["failed"],
             "interrupted": interrupted, "results": [outcome.to_dict() for outcome in done]}  # fmt: skip
    say(json.dumps(facts, indent=2) if as_json else summary(facts))
    if interrupted or counts["failed"]:
        sys.exit(INTERRUPTED if interrupted else SOME_FAILED)


def show_lines(outcomes: Iterator, total: int, silent: bool) -> Iterator:
    """Passes the outcomes on and prints a line for each that cost time, with how long the rest will take."""
    start, worked, number = time.monotonic(), 0, 0
    for number, outcome in enumerate(outcomes, 1):  # noqa: B007
        if outcome.status != "skipped" and not silent:
            worked += 1
            left = (time.monotonic() - start) / worked * (total - number)
            place = f"[{number}/{total}" + (f", {clock(left)} left]" if number < total else "]")
            say(printable(f"{place} {outcome.job.name}: {describe(outcome)}"))
        yield outcome


def clock(seconds: float) -> str:
    """A time as ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def describe(outcome) -> str:  # noqa: ANN001  the type would import the library at start-up
    """What became of one file, in a few words."""
    if outcome.error:
        return f"failed: {outcome.error}"
    people = f"{outcome.people} {'person' if outcome.people == 1 else 'people'}"
    warned = {0: "", 1: ", 1 warning"}.get(outcome.warnings, f", {outcome.warnings} warnings")
    stopped = ", interrupted" if outcome.status == "interrupted" else ""
    return f"{people}, {outcome.frames} frames, {outcome.seconds:.1f} s{warned}{stopped}"


def summary(facts: dict) -> str:
    """How many files went well, were done before and failed, and which failed."""
    files = f"{facts['files']} {'file' if facts['files'] == 1 else 'files'}"
    lines = [f"{files}: {facts['lifted']} lifted, {facts['skipped']} done before, {facts['failed']} failed"]
    failed = [result for result in facts["results"] if result["error"]]
    lines += [f"  failed: {result['name']}: {result['error']}" for result in failed]
    if facts["interrupted"]:
        lines.append("interrupted: what is finished is kept, the same command goes on")
    return "\n".join(map(printable, lines))
