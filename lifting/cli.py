"""The command line: each command parses, calls one library function and prints. Heavy imports stay inside commands."""

from __future__ import annotations

import json
import sys

import click

from lifting import __version__
from lifting.cli_batch import run_many
from lifting.cli_completion import completion
from lifting.cli_convert import convert
from lifting.cli_demo import demo
from lifting.cli_evaluate import evaluate
from lifting.cli_export import export
from lifting.cli_future import future
from lifting.cli_live import live
from lifting.cli_train import train
from lifting.cli_view import view
from lifting.console import INTERRUPTED, one_sentence_errors, progress_bar, say
from lifting.summary import fit_summary, summary


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="lift")
def main() -> None:
    """2D keypoints, or a video, to 3D human motion."""


main.add_command(demo)
main.add_command(train)
main.add_command(evaluate)
main.add_command(convert)
main.add_command(live)
main.add_command(export)
main.add_command(future)
main.add_command(view)
main.add_command(completion)


@main.command()
@click.argument("source", nargs=-1)
@click.option("--video", type=click.Path(), help="Video file or folder of images. Many: a folder without images in it, "
              "of which all videos are taken, or a pattern in quotes, such as 'clips/*.mp4'.")
@click.option("--keypoints", type=click.Path(), help="File of 2D keypoints, or a tool's folder of one JSON file per "
              "frame, to lift instead of detecting. Many: any other folder, or a pattern in quotes.")
@click.option("--output", "-o", type=click.Path(), multiple=True,
              help="File to write, in any format of `lift export --formats`; repeat it for several. "
              "Of many files, {name} stands for each one's name.  [default: runs/NAME/...]")
@click.option("--detector", default="auto", show_default=True, help="2D detector; `lift doctor` lists them.")
@click.option("--detector-models", type=click.Path(), help="The detector's model file, or the folder with its files.")
@click.option("--every", type=int, default=1, show_default=True, metavar="K",
              help="Detect in every K-th frame only and interpolate the keypoints between: faster; all are lifted.")
@click.option("--person", default="all", show_default=True, metavar="all|largest|ID", help="Whom to lift.")
@click.option("--camera", type=click.Path(), help="Calibration file: lift's JSON, OpenCV YAML or JSON, Pose2Sim TOML.")
@click.option("--focal", type=float, help="Focal length in pixels.  [default: from metadata, else the image diagonal]")
@click.option("--fov", type=float, help="Horizontal field of view in degrees instead of --focal.")
@click.option("--height", type=float, help="Stature of the main person in metres; fixes the scale.")
@click.option("--camera-height", type=float, help="Metres of the camera over the floor; fixes the scale instead.")
@click.option("--smooth", type=float, default=0.5, show_default=True, metavar="0..1",
              help="Smoothing of the motion in the world; the raw motion is kept.")
@click.option("--start", type=float, help="First second to read.")
@click.option("--end", type=float, help="Second to stop before.")
@click.option("--fps", type=float, help="Frame rate of images, or of keypoints that do not state it.")
@click.option("--image-size", type=int, nargs=2, metavar="W H", help="Image size of keypoints that do not state it.")
@click.option("--skeleton", help="Layout of the keypoints, by name or a JSON file.")
@click.option("--sequence", metavar="SUBJECT/ACTION/CAMERA", help="Which sequence of a VideoPose3D data set.")
@click.option("--weights", type=click.Path(), help="Other lifter weights (.safetensors).")
@click.option("--mesh", is_flag=True, help="Fit a body mesh to everybody.")
@click.option("--body", metavar="NAME|FILE", help="Body for --mesh, or a file of the SMPL family.  [default: lite]")
@click.option("--future", type=float, metavar="SECONDS", help="Predict everybody's next seconds, such as 1.0.")
@click.option("--refine", metavar="tcmr|hmmr", help="Let a temporal body model tell the poses anew: less jitter.")
@click.option("--workers", type=click.IntRange(1), help="Processes for many files.  [default: 1]")
@click.option("--shard", metavar="I/N", help="Of many files, only the I-th of N shares, I from 1; for schedulers.")
@click.option("--engine", type=click.Choice(["local", "ray"]), help="Where many files are lifted.  [default: local]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@one_sentence_errors
def run(
    source: tuple[str, ...],
    output: tuple[str, ...],
    weights: str | None,
    skeleton: str | None,
    as_json: bool,
    **options: object,
) -> None:
    """Lift a video, or keypoints, to 3D motion; of many files, those that are finished are skipped."""
    from lifting import batch, pipeline

    source = _source(source, options["video"], options["keypoints"])
    many = {name: options.pop(name) for name in ("workers", "shard", "engine")}
    options["image_size"] = options["image_size"] or None
    if batch.is_batch(*source):
        run_many(output, as_json=as_json, weights=weights, skeleton=_skeleton(skeleton), **many, **options)
        return
    _check_single(**many)
    paths = list(output) or pipeline.default_outputs(*source, mesh=options["mesh"])
    report = None if output else paths[0].with_name("report.json")
    take = pipeline.run_video(
        **options, output=paths, report=report, skeleton=_skeleton(skeleton), lifter=_lifter(weights),
        progress=progress_bar,
    )  # fmt: skip
    paths += [report] if report else []
    facts = {**pipeline.report_of(take), "outputs": list(map(str, paths))}
    say(json.dumps(facts, indent=2) if as_json else summary(take, paths))
    if take.metadata["interrupted"]:
        sys.exit(INTERRUPTED)


def _source(words: tuple[str, ...], video: str | None, keypoints: str | None) -> tuple[str | None, str | None]:
    """The video and the keypoints; ValueError for words without an option, which a shell makes of a bare pattern."""
    given = video or keypoints
    if words and given:
        raise ValueError(f"got '{words[0]}' after '{given}'; for many files give a folder, or a pattern in quotes")
    if words:
        raise ValueError(f"got '{words[0]}' without an option; try: lift run --video '{words[0]}'")
    if not given:
        raise ValueError("got neither --video nor --keypoints; try: lift run --video clip.mp4")
    return video, keypoints


def _check_single(**many: object) -> None:
    for name, value in many.items():
        if value is not None:
            raise ValueError(f"got --{name} with one clip; it is for many: a folder of them, or a pattern in quotes")


def _skeleton(name: str | None) -> object:
    if name is None:
        return None
    from lifting.skeletons import get_skeleton, read_skeleton

    return read_skeleton(name) if name.lower().endswith(".json") else get_skeleton(name)


def _lifter(weights: str | None) -> object:
    if weights is None:
        return None
    from lifting.predict import Lifter

    return Lifter.load(weights)


@main.command()
@click.argument("result", type=click.Path())
@click.option("--output", "-o", type=click.Path(), multiple=True,
              help="File to write, in any format of `lift export --formats`; repeat it for several.  "
              "[default: runs/NAME/body.npz, body.glb, fit_report.json]")
@click.option("--body", metavar="NAME|FILE", help="Body to fit, or a file of the SMPL family.  "
              "[default: that of the result, else lite]")
@click.option("--height", type=float, help="Stature of the main person in metres.")
@click.option("--mode", type=click.Choice(["whole", "smplify"]), default="whole", show_default=True,
              help="All frames at once, or the classic stages from the 2D points.")
@click.option("--prior", type=click.Path(), help="File with another pose prior.")
@click.option("--no-contacts", is_flag=True, help="Let standing feet slide and sink.")
@click.option("--video", type=click.Path(), help="Video file or folder of images to draw the .mp4 over.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@one_sentence_errors
def fit(result: str, output: tuple[str, ...], no_contacts: bool, as_json: bool, **options: object) -> None:
    """Fit body meshes to the people of a RESULT of lift run."""
    from lifting import pipeline

    paths = list(output) or pipeline.default_fit_outputs(result)
    report = None if output else paths[0].with_name("fit_report.json")
    take = pipeline.fit_result(result, output=paths, report=report, contacts=not no_contacts, progress=progress_bar,
                               **options)  # fmt: skip
    paths += [report] if report else []
    facts = {**pipeline.report_of(take), "outputs": list(map(str, paths))}
    say(json.dumps(facts, indent=2) if as_json else fit_summary(take, paths))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@one_sentence_errors
def doctor(as_json: bool) -> None:
    """Show what is installed, what works, and what to install for the rest."""
    from lifting.doctor import describe, examine

    findings = examine()
    say(json.dumps(findings, indent=2) if as_json else describe(findings))


if __name__ == "__main__":
    main()
