"""Convert a folder of motion capture (CMU's .asf/.amc, or BVH conversions of it) to the .h5 that the lifters train on.

    python -m experiments.convert_mocap FOLDER [--output data/mocap/mocap17.h5]

CMU's files are at mocap.cs.cmu.edu, free for all uses. On two CPU cores 1000 frames take about half a second.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from lifting.datasets.bvh import CMU_UNIT, find_bvh_clips, read_bvh_clip
from lifting.datasets.cmu import find_cmu_clips, read_cmu_clip
from lifting.datasets.conversion import ClipLabels, convert_clip
from lifting.datasets.h36m_joints import BoneMotion
from lifting.datasets.mocap import DEFAULT_PATH, MocapPiece, write_mocap


class Converter:
    """Goes through a folder clip by clip and counts what it meets.

    Args:
        folder: looked through with all its sub-folders, for `.amc` and `.bvh` files.
        fps: frames per second of `.amc` files whose row in `labels` does not say.
        unit: metres per length unit of `.bvh` files.
        labels: clip name -> what is known of it: `category`, `action`, `subject`, `fps`.
        skip_bad: leave unusable files out instead of stopping at the first.
    """

    def __init__(self, folder: Path, fps: float, unit: float, labels: dict[str, dict[str, str]], skip_bad: bool):
        """Find the clips; FileNotFoundError where there are none."""
        self.folder, self.fps, self.unit, self.labels, self.skip_bad = folder, fps, unit, labels, skip_bad
        self.clips = find_clips(folder)
        self.frames, self.bad, self.interrupted = 0, [], False

    def __iter__(self) -> Iterator[MocapPiece]:
        """Yield the pieces of all clips; Ctrl-C ends it early, and what is done stays usable."""
        from tqdm import tqdm

        try:
            for skeleton, motion in tqdm(self.clips, unit="clip", desc="converting"):
                for piece in self._convert(skeleton, motion):
                    self.frames += len(piece)
                    yield piece
        except KeyboardInterrupt:
            self.interrupted = True

    def _convert(self, skeleton: Path | None, motion: Path) -> list[MocapPiece]:
        known = self.labels.get(motion.stem, {})
        labels = self._label(skeleton, motion)
        texts = {key: known[key] for key in ("subject", "action", "category") if known.get(key)}
        try:
            bones = self._read(skeleton, motion, _frame_rate(known.get("fps") or self.fps, motion))
            return convert_clip(bones, replace(labels, **texts))
        except ValueError as error:
            if not self.skip_bad:
                raise
            self.bad.append(str(error))
            return []

    def _read(self, skeleton: Path | None, motion: Path, fps: float) -> BoneMotion:
        return read_bvh_clip(motion, self.unit) if skeleton is None else read_cmu_clip(skeleton, motion, fps)

    def _label(self, skeleton: Path | None, motion: Path) -> ClipLabels:
        return ClipLabels(
            name=motion.stem,
            subject=motion.stem.split("_")[0],
            kind="bvh" if skeleton is None else "asf/amc",
            source=motion.relative_to(self.folder).as_posix(),
            skeleton="bvh" if skeleton is None else f"asf {skeleton.stem}",
        )


def _frame_rate(value: str | float, motion: Path) -> float:
    try:
        fps = float(value)
    except ValueError:
        fps = 0.0
    if not 1 <= fps <= 1000:
        raise ValueError(f"The labels give {motion.stem} {value!r} frames per second; expected 1 to 1000.")
    return fps


def find_clips(folder: Path) -> list[tuple[Path | None, Path]]:
    """List (skeleton or None, motion) of every clip under `folder`; FileNotFoundError where there is none."""
    suffixes = {path.suffix.lower() for path in folder.rglob("*") if path.is_file()}
    if not suffixes & {".amc", ".bvh"}:
        raise FileNotFoundError(f"{folder} holds no .amc and no .bvh file; give a folder of CMU motion capture.")
    clips: list[tuple[Path | None, Path]] = list(find_cmu_clips(folder)) if ".amc" in suffixes else []
    return clips + [(None, path) for path in (find_bvh_clips(folder) if ".bvh" in suffixes else [])]


def read_labels(path: Path | None) -> dict[str, dict[str, str]]:
    """Read a CSV with the columns clip and, as far as known, subject, action, category, fps."""
    if path is None:
        return {}
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    if not rows or "clip" not in rows[0]:
        raise ValueError(f"{path} has no column 'clip'; expected a CSV with clip, subject, action, category, fps.")
    return {row["clip"]: {key: value for key, value in row.items() if key and value} for row in rows}


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", default=DEFAULT_PATH, show_default=True, type=click.Path(path_type=Path))
@click.option("--fps", default=120.0, show_default=True, type=click.FloatRange(1, 1000), help="Of .amc files.")
@click.option(
    "--unit",
    default=CMU_UNIT,
    show_default="CMU's",
    type=click.FloatRange(1e-6, 1e3),
    help="Metres per length unit of .bvh files.",
)
@click.option("--labels", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="CSV: clip, action, ...")
@click.option("--skip-bad", is_flag=True, help="Leave unusable files out instead of stopping at the first.")
def main(folder: Path, output: Path, fps: float, unit: float, labels: Path | None, skip_bad: bool) -> None:
    """Convert FOLDER, with all its sub-folders, and say what came of it."""
    try:
        converter = Converter(folder, fps, unit, read_labels(labels), skip_bad)
        count = write_mocap(output, converter)
    except (ValueError, OSError) as error:
        raise click.exceptions.UsageError(str(error)) from error
    for sentence in converter.bad:
        click.echo(f"left out: {sentence}", err=True)
    if converter.interrupted:
        click.echo("Interrupted: the file holds the clips converted so far.", err=True)
    click.echo(f"{output}: {count} pieces, {converter.frames} frames, {converter.frames / 50 / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
