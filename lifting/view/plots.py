"""Joint angles and speeds over time as a picture: a column for each person, a row for each kind of quantity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifting.files import atomic_path
from lifting.joint_angles import JointAngles, body_angles, joint_angles
from lifting.meshes import SkinnedMesh
from lifting.motion import Motion, Person, Take
from lifting.view.panel import LEFT_COLOR, RIGHT_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PEOPLE = 4  # columns of one picture
DOTS_PER_INCH = 110
SPEED_SECONDS = 0.08  # speeds are differences over about this much time either way
ANGLES = {
    "knee flexion": ("left_knee_flexion", "right_knee_flexion"),
    "hip flexion": ("left_hip_flexion", "right_hip_flexion"),
    "elbow flexion": ("left_elbow_flexion", "right_elbow_flexion"),
    "shoulder elevation": ("left_shoulder_elevation", "right_shoulder_elevation"),
    "trunk flexion": ("trunk_flexion",),
}
SPEEDS = {
    "root speed": (None,),
    "wrist speed": ("left_wrist", "right_wrist"),
    "ankle speed": ("left_ankle", "right_ankle"),
}
_COLORS = {side: tuple(0.85 * part / 255 for part in color)  # deeper than on the dark
           for side, color in (("left", LEFT_COLOR), ("right", RIGHT_COLOR))}  # fmt: skip
_MIDDLE = (0.3, 0.33, 0.38)


def write_plots(take: Take, path: str | PathLike, *, meshes: Sequence[SkinnedMesh] = ()) -> Path:
    """Draw joint angles (degrees) and speeds (m/s) of the take's people over time as a PNG; returns the path.

    meshes: fitted bodies, whose joint angles are drawn in place of those of the 17 joints. The first four people are
    drawn. Raises ValueError where nobody was lifted, and OSError for an unwritable place.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    people = [person for person in take.people if person.motion is not None]
    if not people:
        raise ValueError(f"nobody in the take {take.name!r} has a 3D motion to plot; lift the keypoints with lift run.")
    shown, bodies = people[:MOST_PEOPLE], {mesh.person_id: mesh for mesh in meshes}
    rows = len(ANGLES) + len(SPEEDS)
    width, height = 1.0 + 6.0 * len(shown), 1.4 + 1.5 * rows  # inches
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)  # no display is needed, and pyplot's global state is left alone
    axes = figure.subplots(rows, len(shown), squeeze=False, sharex=True, sharey="row")
    for column, person in zip(axes.T, shown, strict=True):
        _plot_person(column, take.times, person, bodies.get(person.id))
    for axis in axes[len(ANGLES) :].ravel():
        axis.set_ylim(bottom=0)  # once all people are drawn, for it fixes the top, too
    figure.subplots_adjust(left=0.75 / width, right=1 - 0.25 / width, top=1 - 0.85 / height, bottom=0.55 / height,
                           wspace=0.14, hspace=0.12)  # fixed: the automatic layouts take seconds for so many axes
    figure.align_ylabels(axes)
    figure.suptitle(_title(take, len(people)), fontsize=11, y=1 - 0.25 / height, parse_math=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png")
    return Path(path)


def plot_files(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> list[tuple[Path, Callable[[Path], object]]]:
    """The one file of plots with what writes it, for the table of `lifting.export`."""
    return [(path, lambda place: write_plots(take, place, meshes=meshes))]


def joint_speed(motion: Motion, joint: str | None = None) -> np.ndarray:
    """(T,) m/s, how fast a joint, or the root, moves in the motion's frame; NaN where it is not known.

    Central differences over `SPEED_SECONDS` either way, shorter at the ends. Without a trajectory, the root is still.
    """
    root = np.zeros((len(motion), 3)) if motion.trajectory is None else motion.trajectory.astype(np.float64)
    path = root if joint is None else root + motion.joints[:, motion.skeleton.index(joint)]
    reach = max(1, round(SPEED_SECONDS * motion.fps))
    frames = np.arange(len(motion))
    low, high = np.maximum(frames - reach, 0), np.minimum(frames + reach, len(motion) - 1)
    seconds = np.maximum(high - low, 1) / motion.fps
    return np.linalg.norm(path[high] - path[low], axis=-1) / seconds


def _plot_person(column: Sequence[Axes], times: np.ndarray, person: Person, mesh: SkinnedMesh | None) -> None:
    from matplotlib.lines import Line2D

    motion, angles = person.motion, _angles_of(person.motion, mesh)
    for axis, (title, names) in zip(column, ANGLES.items(), strict=False):
        known = [name for name in names if angles is not None and name in angles.names]
        _plot_lines(axis, times, f"{title} (°)", {name: np.degrees(angles[name]) for name in known})
    for axis, (title, names) in zip(column[len(ANGLES) :], SPEEDS.items(), strict=True):
        known = [name for name in names if name is None or name in motion.skeleton.joints]
        _plot_lines(axis, times, f"{title} (m/s)", {name or "root": joint_speed(motion, name) for name in known})
    sides = [Line2D([], [], color=color, label=side) for side, color in _COLORS.items()]
    column[0].legend(handles=sides, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=2)
    source = "no joint angles: an unknown layout" if angles is None else f"joint angles of {angles.source}"
    column[0].set_title(f"person {person.id} · {source}", fontsize=10, loc="left", parse_math=False)
    column[-1].set_xlabel("seconds")


def _angles_of(motion: Motion, mesh: SkinnedMesh | None) -> JointAngles | None:
    """The joint angles of the body or else the joints; None for a layout they are not defined for."""
    if mesh is not None:
        return body_angles(mesh)
    return joint_angles(motion) if motion.skeleton.name == "h36m17" else None


def _plot_lines(axis: Axes, times: np.ndarray, title: str, lines: dict[str, np.ndarray]) -> None:
    for name, values in lines.items():
        side = name.partition("_")[0]
        axis.plot(times, values, color=_COLORS.get(side, _MIDDLE), linewidth=1.3)
    axis.set_ylabel(title, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _title(take: Take, people: int) -> str:
    left_out = f", the first {MOST_PEOPLE} of {people} people" if people > MOST_PEOPLE else ""
    frames = {"camera": "axes of the camera", "world": "axes of the world"}
    motion = next(person.motion for person in take.people if person.motion is not None)
    name = "".join(letter if letter.isprintable() and letter < "\u0590" else "?" for letter in take.name)  # has glyphs
    return f"{name} · {take.fps:g} frames/s · {frames[motion.frame]}{left_out}"
