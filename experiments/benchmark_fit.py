"""The body fit against its targets, on truth made of real motion in the embedded body.

    python -m experiments.benchmark_fit [--rotations data/mocap/mocap_rot24.h5] [--only accuracy] [--windows 4]

* ``accuracy``: exact, white, correlated and gross evidence (`experiments.fit_accuracy`).
* ``speed``: seconds of a fit of 243 and 2,000 frames, and what contacts add (`experiments.fit_speed`).
* ``startup``: from the body file to the first mesh in a fresh process, without torch.
* ``determinism``, ``chunks``: the same bits again; a long clip in windows equals the whole.
* ``lifts``: the project's own lifts before and after the fit (`experiments.fit_lifts`).
* ``rivals``: cost over time against Adam and L-BFGS (`experiments.fit_rivals`); draws ``runs/fit_rivals.png``.

Linear algebra uses one thread, as the solver asks for. The matrix rate of the same run, with all threads, says how busy
the machine was. Values that miss their target are bold. Writes ``runs/benchmark_fit.json``; parts that were not run
again keep what they measured before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click

from experiments.benchmark_pipeline import matrix_rate
from experiments.fit_accuracy import accuracy, sample_windows
from experiments.fit_speed import chunks, determinism, speed, startup
from experiments.fit_table import Row, markdown
from lifting.body import load_body
from lifting.body.threads import one_blas_thread
from lifting.datasets.mocap import DEFAULT_PATH
from lifting.files import atomic_write

PARTS = ("accuracy", "speed", "startup", "determinism", "chunks", "lifts", "protocol", "rivals")


def plan(
    mocap: str, rotations: str, every: int, rounds: int, budget: float, plot: Path
) -> dict[str, Callable[[], list[Row]]]:
    """What each part runs."""
    body = load_body()

    def run_protocol() -> list[Row]:
        from experiments.fit_protocol import protocol_lifts

        return protocol_lifts(mocap, body, every)

    def run_lifts() -> list[Row]:
        from experiments.fit_lifts import lifts

        return lifts(sample_windows(rotations, every), body)

    def run_rivals() -> list[Row]:
        from experiments.fit_rivals import rivals

        return rivals(rotations, body, plot, budget)

    return {
        "accuracy": lambda: accuracy(sample_windows(rotations, every), body),
        "speed": lambda: speed(rotations, body, rounds),
        "startup": lambda: startup(rounds),
        "determinism": lambda: determinism(rotations, body),
        "chunks": lambda: chunks(rotations, body),
        "lifts": run_lifts,
        "protocol": run_protocol,
        "rivals": run_rivals,
    }


@click.command()
@click.option("--mocap", default=DEFAULT_PATH, show_default=True)
@click.option("--rotations", default="data/mocap/mocap_rot24.h5", show_default=True)
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Only these parts.")
@click.option("--windows", "every", default=1, show_default=True, help="Only every n-th window, for a quick look.")
@click.option("--rounds", default=5, show_default=True, help="Times are the best of so many.")
@click.option("--budget", default=60.0, show_default=True, help="Seconds for each rival.")
@click.option("--output", default="runs/benchmark_fit.json", show_default=True)
def main(
    mocap: str, rotations: str, only: tuple[str, ...], every: int, rounds: int, budget: float, output: str
) -> None:
    """Prints a table for each part and writes all as JSON."""
    path = Path(output)
    facts = json.loads(path.read_text()) if path.exists() else {}
    parts = plan(mocap, rotations, every, rounds, budget, path.with_name("fit_rivals.png"))
    for name in only or PARTS:
        with one_blas_thread():
            rows = parts[name]()
        print(f"\n{name}\n\n{markdown(rows)}", flush=True)
        facts[name] = {"every": every, "rounds": rounds, "matrix_gflops": matrix_rate(),
                       "rows": [row.to_dict() for row in rows]}  # fmt: skip
        print(f"\nmatrix rate, float32: {facts[name]['matrix_gflops']:.0f} GFLOP/s", flush=True)
        with atomic_write(path) as file:
            file.write(json.dumps(facts, indent=2).encode())


if __name__ == "__main__":
    main()
