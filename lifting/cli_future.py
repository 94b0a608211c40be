"""`lift future`: what the people of a result will do next."""

from __future__ import annotations

import json

import click

from lifting.console import one_sentence_errors, progress_bar, refuse_options, say

OF_THE_PAST = ("result", "output", "past", "from_frame", "as_json")  # parameters that --past looks at


@click.command()
@click.argument("result", type=click.Path())
@click.option("--seconds", type=float, default=1.0, show_default=True, help="How far, up to 10.")
@click.option("--predictor", metavar="NAME|FILE", help="constant, constant_velocity, dct_mlp, gru, phd, or a file "
              "of weights (.safetensors).  [default: dct_mlp]")
@click.option("--samples", type=click.IntRange(0), default=0, metavar="K",
              help="Also write K different futures: NAME.sample1.npz, ...")
@click.option("--mesh", is_flag=True, help="Fit one body mesh to the past and the future of everybody.")
@click.option("--from-frame", type=int, metavar="K", help="Look at frames up to K only, and compare with what came.")
@click.option("--past", is_flag=True, help="From frame K alone: 0.2 s before and 0.2 s after it.  [default outputs: "
              "runs/NAME/around.npz, around.html]")
@click.option("--statue", is_flag=True, help="Find everybody's most telling frame, after which the future is clear.")
@click.option("--output", "-o", type=click.Path(), multiple=True,
              help="File to write, in any format of `lift export --formats`; repeat it for several.  "
              "[default: runs/NAME/future.npz, future.html, with --mesh future.glb]")
@click.option("--video", type=click.Path(), help="Video file or folder of images to draw the .mp4 over.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@one_sentence_errors
def future(result: str, predictor: str | None, output: tuple[str, ...], past: bool, as_json: bool, **options: object,
           ) -> None:  # fmt: skip
    """Predict what the people of a RESULT of lift run do next."""
    if past:
        from lifting.around_result import around_of_result, around_summary, default_around_outputs

        refuse_options(OF_THE_PAST, "--past tells what was and will be from one frame alone")
        paths = list(output) or default_around_outputs(result)
        _, report = around_of_result(result, options["from_frame"], output=paths, progress=progress_bar)
        say(json.dumps(report, indent=2) if as_json else around_summary(report))
        return
    from lifting.future import DEFAULT_PREDICTOR
    from lifting.future_result import default_future_outputs, future_of_result, future_summary

    paths = list(output) or default_future_outputs(result, options["mesh"])
    _, report = future_of_result(result, output=paths, predictor=predictor or DEFAULT_PREDICTOR, progress=progress_bar,
                                 **options)  # fmt: skip
    say(json.dumps(report, indent=2) if as_json else future_summary(report))
