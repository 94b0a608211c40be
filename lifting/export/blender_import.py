"""Opens motions of lift in Blender: ``blender --python blender_import.py -- walk.glb walk.person2.bvh``.

For Blender itself, not for import; it needs nothing else (run with 5.0). A ``.glb`` comes in with its mesh and skin, a
``.bvh`` as an armature in metres. Frame rate and range of the scene become those of the motion; Blender counts the
frames of a ``.bvh`` from 1, those of a ``.glb`` from 0.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

METRES_PER_UNIT = 0.01  # lift writes .bvh in centimetres


def open_files(paths: list[str]) -> None:
    """Replace the scene by some files; SystemExit with a sentence for a file that is missing or of another kind."""
    import bpy

    readers = {".bvh": open_bvh, ".glb": open_glb}
    if not paths:
        raise SystemExit("name the files after two dashes: blender --python blender_import.py -- walk.glb")
    for path in map(Path, paths):
        if path.suffix.lower() not in readers or not path.is_file():
            raise SystemExit(f"'{path}' is not there, or is neither .bvh nor .glb; write one with lift export")
    bpy.ops.wm.read_homefile(use_empty=True)
    ranges = [readers[path.suffix.lower()](bpy, path) for path in map(Path, paths)]
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = min(first for first, _ in ranges), max(last for _, last in ranges)


def open_bvh(bpy: object, path: Path) -> tuple[int, int]:
    """Bring in an armature; its first and last frame."""
    rate, frames = bvh_timing(path)
    set_rate(bpy, rate)
    bpy.ops.import_anim.bvh(filepath=str(path), global_scale=METRES_PER_UNIT, axis_forward="-Z", axis_up="Y",
                            frame_start=1, rotate_mode="NATIVE", update_scene_fps=False, update_scene_duration=False)
    return 1, frames


def open_glb(bpy: object, path: Path) -> tuple[int, int]:
    """Bring in everybody of a scene; its first and last frame."""
    rate, frames = glb_timing(path)
    set_rate(bpy, rate)  # before: glTF counts in seconds
    bpy.ops.import_scene.gltf(filepath=str(path))
    return 0, frames - 1


def set_rate(bpy: object, rate: float) -> None:
    """Let the scene play at a number of frames per second, which need not be whole."""
    render = bpy.context.scene.render
    render.fps = max(1, round(rate))
    render.fps_base = render.fps / rate


def bvh_timing(path: Path) -> tuple[float, int]:
    """Frames per second and number of frames of a ``.bvh``."""
    with path.open(encoding="ascii", errors="replace") as file:
        words = dict(line.split(":", 1) for line in file if line.startswith(("Frames:", "Frame Time:")))
    return round(1 / float(words["Frame Time"]), 3), int(words["Frames"])


def glb_timing(path: Path) -> tuple[float, int]:
    """Frames per second and number of frames of a ``.glb`` of lift, from what it says of its people."""
    with path.open("rb") as file:
        size = struct.unpack("<4sIII4s", file.read(20))[3]
        people = json.loads(file.read(size))["asset"].get("extras", {}).get("people") or [{}]
    return float(people[0].get("fps", 30.0)), int(people[0].get("num_frames", 1))


if __name__ == "__main__":
    open_files(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else [])
