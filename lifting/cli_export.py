"""`lift export`: a result in the formats of other programs."""

from __future__ import annotations

import click

from lifting.console import one_sentence_errors, printable, progress_bar, say


def list_formats() -> str:
    """A line for each suffix and what it is, for ``--formats``."""
    from lifting.export import BODY_FORMATS, FORMATS, MOTION_FORMATS

    lines = []
    for title, formats in (
        ("results, read again by lift", FORMATS),
        ("motions for other programs", MOTION_FORMATS),
        ("fitted bodies (lift fit, lift run --mesh)", BODY_FORMATS),
    ):
        lines.append(f"{title}:")
        for suffix, form in formats.items():
            people = "; a file per person" if form.one_person else ""
            needs = f"; needs {form.package[0]}" if form.package else ""
            lines.append(f"  {suffix:<12} {form.description}{people}{needs}")
    return "\n".join([*lines, "videos:", "  .mp4         the motion drawn over --video"])


@click.command()
@click.argument("result", type=click.Path(), required=False)
@click.option("--output", "-o", type=click.Path(), multiple=True, help="File to write, such as walk.bvh or walk.trc; "
              "repeat it for several.")
@click.option("--formats", is_flag=True, help="List the formats and stop.")
@click.option("--body", metavar="FILE", help="File of the body of the SMPL family that was fitted, if it was moved.")
@click.option("--video", type=click.Path(), help="Video file or folder of images to draw an .mp4 over.")
@one_sentence_errors
def export(result: str | None, output: tuple[str, ...], formats: bool, **options: object) -> None:
    """Write a RESULT of lift run or lift fit in other formats, by the suffix of each output."""
    if formats:
        say(list_formats())
        return
    if result is None or not output:
        raise ValueError("expected a result and at least one output; try: lift export runs/clip/result.npz -o clip.bvh")
    from lifting.exporting import BLENDER_SCRIPT
    from lifting.exporting import export as write

    paths = write(result, output, progress=progress_bar, **options)
    say("\n".join(printable(f"wrote {path}") for path in paths))
    scenes = [str(path) for path in paths if path.suffix.lower() in (".bvh", ".glb")]
    if scenes:
        say(printable(f"to open in Blender: blender --python {BLENDER_SCRIPT} -- {scenes[0]}"))
