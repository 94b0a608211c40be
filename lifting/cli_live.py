"""The command ``lift live``. Heavy imports stay inside it."""

from __future__ import annotations

import json
from contextlib import ExitStack

import click

from lifting.console import one_sentence_errors, printable, say


@click.command()
@click.option("--webcam", type=int, metavar="INDEX", help="Number of the camera.  [default: 0]")
@click.option("--video", type=click.Path(), help="Video file or folder of images, played in real time.")
@click.option("--stdin", is_flag=True, help="Raw rgb24 frames on standard input; needs --image-size.")
@click.option("--image-size", type=int, nargs=2, metavar="W H", help="Size of the frames on standard input.")
@click.option("--output", "-o", default="-", show_default=True, metavar="FILE|-|none",
              help="Where JSON lines go: a file, standard output, or nowhere.")  # fmt: skip
@click.option("--osc", type=int, metavar="PORT", help="Also send OSC messages by UDP to this port on this machine.")
@click.option("--lookahead", type=click.Choice(["0", "5", "15"]), default="0", show_default=True,
              help="Wait for so many frames (1/50 s each) before a pose: more is steadier.")  # fmt: skip
@click.option("--smooth", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="One-Euro smoothing.")
@click.option("--height", type=float, help="Stature of the person in metres; fixes the scale.")
@click.option("--camera", type=click.Path(), help="Calibration file: lift's JSON, OpenCV YAML or JSON, Pose2Sim TOML.")
@click.option("--focal", type=float, help="Focal length in pixels.  [default: the image diagonal]")
@click.option("--fov", type=float, help="Horizontal field of view in degrees instead.")
@click.option("--detector", default="auto", show_default=True, help="2D detector; `lift doctor` lists them.")
@click.option("--detector-models", type=click.Path(), help="Folder with the detector's model files.")
@click.option("--weights", type=click.Path(), help="Other causal weights (.safetensors).")
@click.option("--seconds", type=float, help="Stop after so many seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, on standard error like the sentence.")
@one_sentence_errors
def live(weights: str | None, as_json: bool, detector: str, detector_models: str | None, seconds: float | None,
         **options: object) -> None:  # fmt: skip
    """Lift one person live; Ctrl-C stops. Poses go to --output, what was measured to standard error."""
    import sys
    from dataclasses import asdict

    import torch

    from lifting.live import LiveRun, create_live_detector
    from lifting.predict import Lifter

    torch.set_num_threads(1)  # for the start; the thread that lifts says so itself
    sys.setswitchinterval(0.001)  # seconds for which the detector's thread may make the lifter's wait, and vice versa
    lifter = Lifter.load(weights, causal=True)
    found = create_live_detector(detector, detector_models)
    with ExitStack() as stack:
        source = _open_source(options)
        stack.callback(source.close)
        stream = _open_stream(lifter, source, found.skeleton, options)
        sinks = _open_sinks(stream, options, stack)
        report = LiveRun(source, found, stream, sinks, seconds=seconds).run()
    facts = {**asdict(report), "rate": report.rate}
    say(json.dumps(facts, indent=2) if as_json else f"lift: {printable(report.sentence())}", err=True)
    if report.problem is not None:
        raise OSError(report.problem)


def _open_source(options: dict) -> object:
    """The one source that was asked for."""
    from lifting.live_sources import FileSource, StdinSource, WebcamSource

    given = [name for name, value in (("--webcam", options["webcam"] is not None), ("--video", options["video"]),
                                      ("--stdin", options["stdin"])) if value]  # fmt: skip
    if len(given) > 1:
        raise ValueError(f"got {' and '.join(given)}, expected one source of frames")
    if options["stdin"]:
        if not options["image_size"]:
            raise ValueError("raw frames do not state their size; pass --image-size WIDTH HEIGHT")
        return StdinSource(options["image_size"])
    if options["image_size"]:
        raise ValueError("got --image-size, which describes frames on standard input; drop it or pass --stdin")
    return FileSource(options["video"]) if options["video"] else WebcamSource(options["webcam"] or 0)


def _open_stream(lifter, source, skeleton, options: dict) -> object:  # noqa: ANN001  types would import the library
    from lifting.live import choose_live_camera

    camera, sentence = choose_live_camera(source, options["camera"], options["focal"], options["fov"])
    if sentence is not None:
        say(f"lift: {sentence}", err=True)
    return lifter.stream(camera, skeleton=skeleton, lookahead=int(options["lookahead"]), height=options["height"],
                         smooth=options["smooth"], flip=False)  # fmt: skip


def _open_sinks(stream, options: dict, stack: ExitStack) -> list:  # noqa: ANN001
    from lifting.live_sinks import JsonLines, OscSender

    skeleton, sinks = stream.network.skeleton_out, []
    if options["osc"] is not None:
        sinks.append(OscSender(options["osc"], skeleton))
    if options["output"] != "none":
        sinks.append(JsonLines(options["output"], skeleton, stream.lookahead))
    for sink in sinks:
        stack.callback(sink.close)
    return sinks
