"""The command line: each command parses, calls one library function and prints. Heavy imports stay inside commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import click

from lifting import __version__
from lifting.cli_convert import convert
from lifting.cli_evaluate import evaluate
from lifting.cli_train import train
from lifting.console import INTERRUPTED, one_sentence_errors, printable, progress_bar, say

MOST_NAMES = 3  # joints that a line of a summary names


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="lift")
def main() -> None:
    """2D keypoints, or a video, to 3D human motion."""


main.add_command(train)
main.add_command(evaluate)
main.add_command(convert)


@main.command()
@click.argument("source", required=False)
@click.option("--video", type=click.Path(), help="Video file or folder of images.")
@click.option("--keypoints", type=click.Path(), help="File or folder of 2D keypoints to lift instead of detecting.")
@click.option("--output", "-o", type=click.Path(), multiple=True,
              help="File to write (.npz .json .csv .h5 .mp4, with --mesh .glb .bvh .obj .ply .amass.npz); repeat it "
              "for several.  [default: runs/NAME/...]")
@click.option("--detector", default="auto", show_default=True, help="2D detector; `lift doctor` lists them.")
@click.option("--detector-models", type=click.Path(), help="Folder with the detector's model files.")
@click.option("--person", default="all", show_default=True, metavar="all|largest|ID", help="Whom to lift.")
@click.option("--camera", type=click.Path(), help="Calibration file: lift's JSON, OpenCV YAML or JSON, Pose2Sim TOML.")
@click.option("--focal", type=float, help="Focal length in pixels.  [default: from metadata, else the image diagonal]")
@click.option("--height", type=float, help="Stature of the main person in metres; fixes the scale.")
@click.option("--start", type=float, help="First second to read.")
@click.option("--end", type=float, help="Second to stop before.")
@click.option("--fps", type=float, help="Frame rate of images, or of keypoints that do not state it.")
@click.option("--image-size", type=int, nargs=2, metavar="W H", help="Image size of keypoints that do not state it.")
@click.option("--skeleton", help="Layout of the keypoints, by name or a JSON file.")
@click.option("--sequence", metavar="SUBJECT/ACTION/CAMERA", help="Which sequence of a VideoPose3D data set.")
@click.option("--weights", type=click.Path(), help="Other lifter weights (.safetensors).")
@click.option("--mesh", is_flag=True, help="Fit a body mesh to everybody.")
@click.option("--body", metavar="NAME|FILE", help="Body for --mesh, or a file of the SMPL family.  [default: lite]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@one_sentence_errors
def run(
    source: str | None,
    output: tuple[str, ...],
    weights: str | None,
    skeleton: str | None,
    as_json: bool,
    **options: object,
) -> None:
    """Lift a video, or keypoints, to 3D motion."""
    from lifting import pipeline

    if source is not None:
        raise ValueError(f"got '{source}' without an option; try: lift run --video '{source}'")
    source = options["video"], options["keypoints"]
    if source == (None, None):
        raise ValueError("got neither --video nor --keypoints; try: lift run --video clip.mp4")
    paths = list(output) or pipeline.default_outputs(*source, mesh=options["mesh"])
    report = None if output else paths[0].with_name("report.json")
    options["image_size"] = options["image_size"] or None
    take = pipeline.run_video(
        **options, output=paths, report=report, skeleton=_skeleton(skeleton), lifter=_lifter(weights),
        progress=progress_bar,
    )  # fmt: skip
    paths += [report] if report else []
    facts = {**pipeline.report_of(take), "outputs": list(map(str, paths))}
    say(json.dumps(facts, indent=2) if as_json else summary(take, paths))
    if take.metadata["interrupted"]:
        sys.exit(INTERRUPTED)


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


def summary(take, paths: Iterable) -> str:  # noqa: ANN001  the type would import the library at start-up
    """What was found, repaired, assumed and written, in a few lines."""
    focal = " x ".join(f"{f:g}" for f in dict.fromkeys(take.metadata["focal_px"]))
    lines = [f"{headline(take)}, focal length {focal} px, detector {take.metadata['detector']}"]
    for report in take.metadata["people"]:
        repairs, missed = report["repairs"], report["reprojection_error_px"]
        missed = "unknown" if missed is None else f"{missed} px"
        lines.append(
            f"  person {report['id']}: seen in {report['frames']} frames, confidence {report['mean_confidence']:.2f}, "
            f"left/right swaps repaired in {repairs['swapped_frames']} frames, {repairs['outliers']} outliers masked, "
            f"reprojection error {missed}, sigma {1000 * report['median_sigma_m']:.0f} mm"
        )
    lines += body_lines(take)
    lines += [f"  assumed: {sentence}" for sentence in take.assumed]
    lines += [f"  warning: {sentence}" for sentence in [*take.metadata["warnings"], *body_warnings(take)]]
    return "\n".join(map(printable, [*lines, *(f"wrote {path}" for path in paths)]))


def headline(take) -> str:  # noqa: ANN001
    """Name, people and frames of a take."""
    people = len(take.people)
    return f"{take.name}: {people} {'person' if people == 1 else 'people'}, {len(take)} frames at {take.fps:g} frames/s"


@main.command()
@click.argument("result", type=click.Path())
@click.option("--output", "-o", type=click.Path(), multiple=True,
              help="File to write (.npz .json .h5 .csv .glb .bvh .obj .ply .amass.npz .mp4); repeat it for several.  "
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


def fit_summary(take, paths: Iterable) -> str:  # noqa: ANN001
    """Whose body was fitted, how well, on what assumptions, and what was written, in a few lines."""
    about = take.metadata["body"]
    lines = [f"{headline(take)}, body {about['name']}, mode {about['mode']}", *body_lines(take)]
    lines += [f"  assumed: {sentence}" for sentence in take.assumed]
    lines += [f"  warning: {sentence}" for sentence in body_warnings(take)]
    return "\n".join(map(printable, [*lines, *(f"wrote {path}" for path in paths)]))


def body_lines(take) -> list[str]:  # noqa: ANN001
    """One line for each fitted body: stature, residuals and contacts."""
    lines = []
    for report in take.metadata.get("body", {}).get("people", ()):
        pixels, residual = report["mean_reprojection_px"], report["mean_residual_mm"]
        missed = "unknown" if pixels is None else f"{pixels} px"
        apart = "unknown" if residual is None else f"{residual:.0f} mm"
        lines.append(
            f"  body of person {report['id']}: stature {report['stature_m']:.2f} m, residual {apart}, "
            f"reprojection error {missed}, {_contact_sentence(report['contacts'])}"
        )
    return lines


def _contact_sentence(contacts: dict | None) -> str:
    """How much the feet stand, of the share of the frames for which each of their points does."""
    if not contacts:
        return "no contacts"
    return f"feet on the floor for {sum(contacts.values()) / len(contacts):.0%} of the time"


def body_warnings(take) -> list[str]:  # noqa: ANN001
    """The warnings of the fits, each with whom it is about, long lists of joints as their number."""
    about = take.metadata.get("body", {})
    fitted = [f"body of person {person['id']}: {_without_list(sentence, person.get('weak_twist', ()))}"
              for person in about.get("people", ()) for sentence in person["warnings"]]  # fmt: skip
    return [*fitted, *about.get("warnings", ())]


def _without_list(sentence: str, names: list[str]) -> str:
    return sentence.replace(", ".join(names), f"{len(names)} joints") if len(names) > MOST_NAMES else sentence


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
