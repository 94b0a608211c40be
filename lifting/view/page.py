"""One self-contained web page of a take: people in motion in 3D, in any browser, without a network or a server.

The page is `assets/page.html` with its style, its script and the take's numbers inside. A content security policy names
the two by their hashes and forbids everything else, so nothing is fetched and no name in a take can run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from os import PathLike
from pathlib import Path

from lifting import __version__
from lifting.files import atomic_write
from lifting.meshes import SkinnedMesh
from lifting.motion import Motion, Take
from lifting.view.page_data import Layer, companion_layer, divide_meshes, frame_of, future_layer, pack, result_layer

SCRIPTS = ("figures.js", "camera.js", "renderer.js", "page.js")
_LABELS = {"truth": "truth", "future": "predicted future"}


def write_page(
    take: Take,
    path: str | PathLike,
    *,
    meshes: Iterable[SkinnedMesh] = (),
    truth: Take | Motion | None = None,
    ghost: Take | Motion | None = None,
) -> Path:
    """Write the page of a take, whole or not at all; returns the path.

    Args:
        take: as `lifting.world.presented` gives it, or in the axes of the camera.
        path: the file, ``.html``.
        meshes: fitted bodies of its people, drawn in place of their bones, also over the frames of a known future.
        truth: recorded motion, drawn over the result or side by side: a take on the same clock, or one person's motion
            at the take's frames.
        ghost: a predicted future: a take on the same clock, or the main person's motion after the take's last frame;
            default: that of its people, where it is known.

    A long take shows every n-th frame, as its caption says. Raises ValueError for meshes or a truth that do not span
    the take, and OSError for an unwritable place.
    """
    page = page_html(take, meshes=meshes, truth=truth, ghost=ghost)
    with atomic_write(path) as file:
        file.write(page.encode())
    return Path(path)


def page_files(take: Take, meshes: Sequence[SkinnedMesh], path: Path) -> list[tuple[Path, Callable[[Path], object]]]:
    """The one file of a page with what writes it, for the table of `lifting.export`."""
    return [(path, lambda place: write_page(take, place, meshes=meshes))]


def page_html(
    take: Take,
    *,
    meshes: Iterable[SkinnedMesh] = (),
    truth: Take | Motion | None = None,
    ghost: Take | Motion | None = None,
) -> str:
    """The page as text; arguments and errors as of `write_page`."""
    meshes, later = divide_meshes(take, meshes)
    layers = [result_layer(take, meshes)]
    layers += [companion_layer(kind, _label(kind, other), other, take)
               for kind, other in (("truth", truth), ("future", ghost)) if other is not None]  # fmt: skip
    if ghost is None and any(person.future is not None for person in take.people):
        layers.append(future_layer(take, _LABELS["future"], later))
    scene, numbers = pack(layers, frame_of(take), take.camera)
    scene |= {
        "name": take.name, "fps": take.fps, "frames": len(take), "headline": _headline(take),
        "caption": _caption(take, meshes, layers, scene), "assumed": list(take.assumed),
        "warnings": [str(sentence) for sentence in take.metadata.get("warnings", ())],
    }  # fmt: skip
    style, script = _read("page.css"), "\"use strict\";\n" + "".join(map(_read, SCRIPTS))
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'"
    parts = {
        "policy": policy, "generator": html.escape(f"lift {__version__}"), "title": html.escape(take.name),
        "style": style, "script": script, "scene": _script_json(scene), "numbers": base64.b64encode(numbers).decode(),
    }  # fmt: skip
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def _read(name: str) -> str:
    return files("lifting.view").joinpath("assets", name).read_text("utf-8")


def _hash(text: str) -> str:
    """The source expression of a content security policy for this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _script_json(data: dict) -> str:
    """JSON that can stand in a script element whatever names hold: nothing in it opens or closes a tag."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _label(kind: str, other: Take | Motion) -> str:
    return f"{_LABELS[kind]}: {other.name}" if isinstance(other, Take) else _LABELS[kind]


def _headline(take: Take) -> str:
    people = f"{len(take.people)} {'person' if len(take.people) == 1 else 'people'}"
    seconds = float(take.times[-1] - take.times[0]) + 1 / take.fps
    return f"{people} · {len(take)} frames at {take.fps:g}/s · {seconds:.1f} s"


def _caption(take: Take, meshes: Sequence[SkinnedMesh], layers: Sequence[Layer], scene: dict) -> list[str]:
    """What the picture shows, and what it does not: units, frame, rate, rounding, sigma, sources."""
    lines = ["Metres; a line on the ground each metre, a stronger one every five.", _frame_sentence(take)]
    lines += _content_sentences(take, meshes)
    if scene["step"] > 1:
        lines.append(f"To keep the page small, 1 of {scene['step']} frames is in it, and the rest is interpolated.")
    lines += [f"{layer.label}: drawn as given, not aligned to the result." for layer in layers if layer.kind == "truth"]
    if ghost := take.metadata.get("future"):
        lines.append(f"Predicted future: {ghost['seconds']:g} s by {ghost['predictor']}, seen by no camera.")
    sources = [f"{what} {take.metadata[key]}" for key, what in (("detector", "2D by"), ("weights", "lifted by"))
               if take.metadata.get(key)]  # fmt: skip
    return [*lines, f"Made with lift {__version__}" + "".join(f", {source}" for source in sources) + "."]


def _content_sentences(take: Take, meshes: Sequence[SkinnedMesh]) -> list[str]:
    motions = [person.motion for person in take.people if person.motion is not None]
    lines = [f"Joints: {motions[0].skeleton.name}."] if motions else []
    if any(motion.sigma is not None for motion in motions):
        lines.append("Uncertainty (±): the radius around a joint that holds 68 % of its errors. The timeline shows the "
                     "median joint's.")  # fmt: skip
    if any(person.contacts is not None for person in take.people):
        lines.append("Discs on the ground: a foot stands there, more likely than not.")
    if any(motion.trajectory is None for motion in motions):
        lines.append("No trajectory: the root is held still.")
    if any(mesh.pose_directions is not None for mesh in meshes):
        lines.append("The meshes leave out pose-dependent corrections of their shape.")
    return lines


def _frame_sentence(take: Take) -> str:
    if frame_of(take) == "camera":
        return "Axes of the camera, taken as level: the ground lies under the lowest joints and is not measured."
    world = take.metadata.get("world")
    if not isinstance(world, dict) or not isinstance(world.get("sigma_degrees"), int | float):
        return "World axes: z up, the floor at 0."
    if world.get("source") == "camera":
        return "World axes: z up, the floor at 0; the camera is assumed to be level."
    return (f"World axes: z up, the floor at 0; gravity from {world.get('source', 'the recording')}, "
            f"±{world['sigma_degrees']:.1f}°.")
