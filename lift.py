"""2D keypoints to 3D human motion: the public front door. Conventions: the docstring of `lifting`.

Names are imported on first use, so `import lift` stays light and loads no torch. `python -m lift` is the command line.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lifting import __version__, metrics
    from lifting.body import load_body
    from lifting.body.fit import fit_body
    from lifting.cameras import Camera
    from lifting.export import load
    from lifting.exporting import export
    from lifting.future import future
    from lifting.keypoints import Detection, Keypoints2D
    from lifting.motion import BodyMotion, Motion, Person, Take
    from lifting.outputs import save
    from lifting.pipeline import run_video
    from lifting.predict import Lifter, predict
    from lifting.skeletons import Skeleton, get_skeleton
    from lifting.strips_refine import refine

__all__ = [
    "BodyMotion",
    "Camera",
    "Detection",
    "Keypoints2D",
    "Lifter",
    "Motion",
    "Person",
    "Skeleton",
    "Take",
    "__version__",
    "export",
    "fit_body",
    "future",
    "get_skeleton",
    "load",
    "load_body",
    "metrics",
    "predict",
    "refine",
    "run_video",
    "save",
]

_HOMES = {
    "BodyMotion": "lifting.motion",
    "Camera": "lifting.cameras",
    "Detection": "lifting.keypoints",
    "Keypoints2D": "lifting.keypoints",
    "Lifter": "lifting.predict",
    "Motion": "lifting.motion",
    "Person": "lifting.motion",
    "Skeleton": "lifting.skeletons",
    "Take": "lifting.motion",
    "__version__": "lifting",
    "export": "lifting.exporting",
    "fit_body": "lifting.body.fit",
    "future": "lifting.future",
    "get_skeleton": "lifting.skeletons",
    "load": "lifting.export",
    "load_body": "lifting.body",
    "predict": "lifting.predict",
    "refine": "lifting.strips_refine",
    "run_video": "lifting.pipeline",
    "save": "lifting.outputs",
}


def __getattr__(name: str) -> object:
    if name == "metrics":
        value: object = _import_module("lifting.metrics")
    elif name in _HOMES:
        value = getattr(_import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'lift' has no attribute {name!r}; it offers {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if __name__ == "__main__":
    from lifting.cli import main

    main(prog_name="lift")
