"""`lift convert`: data sets and checkpoints of other code to lift's own files, and checkpoints back."""

from __future__ import annotations

import click

from lifting.console import one_sentence_errors, printable, progress_bar, say


@click.group()
def convert() -> None:
    """Turn data sets and checkpoints of other code into lift's own files."""


@convert.command()
@click.argument("source", type=click.Path())
@click.option("--output", "-o", type=click.Path(), required=True,
              help="File to write: .safetensors (lift's), or .bin (VideoPose3D's) from one of lift's.")
@click.option("--skeleton-in", help="Layout of the keypoints that it takes.  [default: known for released files]")
@click.option("--skeleton-out", help="Layout of the joints that it gives.  [default: h36m17 or humaneva15, by number]")
@click.option("--causal/--symmetric", default=None, help="Whether it sees no later frame.  [default: as released]")
@click.option("--dense", is_flag=True, help="It was trained with dense instead of dilated convolutions.")
@click.option("--fps", type=float, help="Frame rate of its training data.  [default: 50, HumanEva 60]")
@one_sentence_errors
def checkpoint(source: str, output: str, **options: object) -> None:
    """Convert a checkpoint of VideoPose3D (.bin) or MMPose's TCN (.pth)."""
    from lifting.models.foreign_checkpoints import convert_checkpoint, describe

    say(printable(describe(convert_checkpoint(source, output, **options))))
    say(printable(f"wrote {output}"))


@convert.command()
@click.argument("source", type=click.Path())
@click.option("--output", "-o", type=click.Path(), required=True, help="File to write (.h5); it streams from disk.")
@click.option("--keypoints", help="Which 2D keypoints, where the data set has several, such as cpn_ft_h36m_dbb.")
@one_sentence_errors
def dataset(source: str, output: str, keypoints: str | None) -> None:
    """Convert any data set that lift reads, a file or folder, to one .h5."""
    from lifting.datasets.clip_file import write_clips
    from lifting.datasets.opening import open_clips

    if not output.lower().endswith(".h5"):
        raise ValueError(f"got the output {output!r}, expected a name that ends in .h5; choose one")
    clips = open_clips(source, keypoints=keypoints)
    write_clips(output, progress_bar(clips, len(clips), "converting", unit="clip"), name=clips.name)
    say(printable(f"{clips.name}: {len(clips)} clips, {clips.frames} frames"))
    say(printable(f"wrote {output}"))


@convert.command()
@click.argument("weights", type=click.Path(), required=False)
@click.option("--output", "-o", type=click.Path(), required=True, help="File to write (.onnx).")
@click.option("--lookahead", type=int, default=0, show_default=True,
              help="Frames that a causal lifter's answers may wait for, one of its own, such as 0, 5 or 15.")
@click.option("--streaming", is_flag=True, help="One frame and a state in, one pose and the next state out.")
@one_sentence_errors
def onnx(weights: str | None, output: str, lookahead: int, streaming: bool) -> None:
    """Convert a lifter's WEIGHTS to ONNX and compare both; by default lift's own, the causal ones for streams."""
    from lifting.models.onnx_export import LARGEST_DIFFERENCE, write_lifter, write_temporal
    from lifting.predict import Lifter

    if not output.lower().endswith(".onnx"):
        raise ValueError(f"got the output {output!r}, expected a name that ends in .onnx; choose one")
    lifter = Lifter.load(weights, causal=streaming or lookahead > 0)
    if lifter.header.kind != "temporal":
        written = write_lifter(output, lifter.network, lifter.header, lookahead=lookahead, streaming=streaming)
    elif lookahead or streaming:
        raise ValueError("got weights of the reference network, which goes into ONNX for whole sequences only; leave "
                         "--lookahead and --streaming out")
    else:
        written = write_temporal(output, lifter.pose, lifter.trajectory, lifter.header)
    say(printable(f"{written.contents}; from PyTorch's float32 joints it differs by at most {written.difference:.1e} m "
                  f"(limit {LARGEST_DIFFERENCE:g} m)"))
    say(printable(f"wrote {output}"))
