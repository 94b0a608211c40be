"""What is installed, what is usable, and what to install for the rest."""

from __future__ import annotations

import platform
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from lifting import __version__
from lifting.detectors import INSTALL_HINT, INSTALL_VIDEO

INSTALL_EXTRA = "pip install '.[{}]' in a clone of lift"
# (distribution, module, what it is for, how to get it)
PACKAGES = (
    ("torch", "torch", "lifting", "pip install torch"),
    ("av", "av", "reading and writing video", INSTALL_VIDEO),
    ("ai-edge-litert", "ai_edge_litert", "default detector", INSTALL_HINT),
    ("mediapipe", "mediapipe", "model files of the default detector", INSTALL_HINT),
    ("ezc3d", "ezc3d", ".c3d files", INSTALL_EXTRA.format("c3d")),
    ("onnx", "onnx", "lift convert onnx", INSTALL_EXTRA.format("onnx")),
    ("onnxruntime", "onnxruntime", "running what it writes", INSTALL_EXTRA.format("onnx")),
    ("ray", "ray", "lift run --engine ray", INSTALL_EXTRA.format("ray")),
    ("cdflib", "cdflib", "Human3.6M's own archives", INSTALL_EXTRA.format("h36m")),
    ("tensorboard", "tensorboard", "curves of lift train", INSTALL_EXTRA.format("log")),
)

NEEDS_WEIGHTS = "its weights by --detector-models, or a download on first use"


def examine() -> dict:
    """Facts about this installation, JSON-able: versions, detectors, weights, device."""
    return {
        "lift": __version__,
        "python": platform.python_version(),
        "packages": [_package(*entry) for entry in PACKAGES],
        "detectors": _detectors(),
        "weights": _weights(),
        "bodies": _bodies(),
        "device": _device(),
    }


def _package(distribution: str, module: str, purpose: str, install: str) -> dict:
    try:
        version = metadata.version(distribution) if find_spec(module) else None
    except metadata.PackageNotFoundError:
        version = "unknown version"
    return {"name": distribution, "version": version, "purpose": purpose, "install": install}


def _detectors() -> list[dict]:
    from lifting.detectors import DETECTORS, WITHOUT_WEIGHTS, create_detector

    found = []
    for name in DETECTORS:
        try:
            if name in WITHOUT_WEIGHTS:  # making it would download them
                import_module(WITHOUT_WEIGHTS[name]).check_installed()
            else:
                create_detector(name)
            found.append({"name": name, "usable": True, "why": NEEDS_WEIGHTS if name in WITHOUT_WEIGHTS else ""})
        except (ImportError, OSError, ValueError) as error:
            found.append({"name": name, "usable": False, "why": str(error)})
    return found


def _weights() -> list[dict]:
    from lifting.checkpoints import file_hash, load_weights

    entries = []
    for path in sorted((Path(__file__).parent / "weights").glob("*.safetensors")):
        try:
            header = load_weights(path)[1]
            entry = {"usable": True, "hash": file_hash(path), "kind": header.kind, "fps": header.fps, "why": ""}
        except (ImportError, OSError, ValueError) as error:
            entry = {"usable": False, "why": str(error)}
        entries.append({"file": path.name, **entry})
    return entries


def _bodies() -> list[dict]:
    from lifting.body import BODIES, load_body

    entries = []
    for name in BODIES:
        try:
            body = load_body(name)
            size = {"vertices": body.num_vertices, "joints": body.num_joints}
            entry = {"usable": True, **size, "licence": body.licence, "why": ""}
        except (ImportError, OSError, ValueError) as error:
            entry = {"usable": False, "why": str(error)}
        entries.append({"name": name, **entry})
    return entries


def _device() -> str:
    try:
        import torch
    except ImportError:
        return "no torch"
    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({torch.get_num_threads()} threads)"


def describe(findings: dict) -> str:
    """The findings as text for a terminal."""
    lines = [f"lift {findings['lift']}, Python {findings['python']}, {findings['device']}"]
    for package in findings["packages"]:
        state = package["version"] or f"missing: {package['install']}"
        lines.append(f"  {package['name']:<15} {state}  ({package['purpose']})")
    for detector in findings["detectors"]:
        lines.append(f"  detector {detector['name']:<12} {_state_of(detector)}")
    for weights in findings["weights"]:
        state = weights["why"]
        if weights["usable"]:
            state = f"{weights['hash']} ({weights['kind']}, {weights['fps']:g} frames/s)"
        lines.append(f"  weights {weights['file']} {state}")
    for body in findings["bodies"]:
        state = body["why"] or f"{body['vertices']} vertices, {body['joints']} joints"
        lines.append(f"  body {body['name']:<16} {state}")
    return "\n".join(lines)


def _state_of(detector: dict) -> str:
    if not detector["usable"]:
        return detector["why"]
    return f"usable with {detector['why']}" if detector["why"] else "usable"
