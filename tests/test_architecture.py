"""The import rules of CONTRIBUTING.md, checked on the source of every module."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

CORE = {"skeletons", "keypoints", "motion", "cameras", "rotations", "metrics", "meshes"}
OWN = CORE | {"files"}
BESIDE_CORE = ("checkpoints", "cleaning", "detectors", "export", "resampling", "tracks", "trajectory", "video")
NETWORK = OWN | {"anatomy", "checkpoints", "cleaning", "datasets", "models", "resampling", "trajectory"}
APPLICATION = NETWORK | {"body", "detectors", "export", "predict", "predict_temporal", "tracks", "video", "view"}
COMMANDS = APPLICATION | {
    *("batch", "cli_batch", "cli_export", "exporting", "quality"),
    *("cli_live", "live", "live_sinks", "live_sources"),
    *("cli_convert", "cli_evaluate", "cli_train", "console", "doctor", "evidence", "footage", "pipeline", "training"),
    *("cli_completion", "cli_demo", "cli_future", "cli_view", "demo", "future", "future_result", "summary"),
    "around_result",
}
STREAMS = {
    *("cleaning_causal", "one_euro", "predict", "predict_temporal", "resampling_causal", "smoothing", "streaming"),
    "streaming_networks",
}
STRIPS = CORE | {"anatomy", "headings", "seen_motion", "strip_features"}
SHORT = ("batch", "completion", "convert", "demo", "evaluate", "export", "future", "train")
# What each part of the library may import, itself always included. A new part needs a line here.
ALLOWED = {
    **dict.fromkeys(CORE, CORE),
    **dict.fromkeys(("assumptions", "files"), set()),
    "keypoint_arrays": CORE | {"assumptions"},
    "anatomy": CORE,
    **dict.fromkeys(BESIDE_CORE, OWN),
    "export": OWN | {"joint_angles"},
    "contacts": CORE,
    "ground": CORE | {"contacts"},
    "levelling": CORE | {"ground"},
    **dict.fromkeys(("smoothing", "standing", "foot_locking", "joint_angles"), CORE),
    "gravity": CORE | {"anatomy", "contacts", "ground"},
    "world": CORE | {"contacts", "foot_locking", "gravity", "ground", "levelling", "smoothing", "standing"},
    "body": OWN | {"anatomy", "cleaning", "contacts", "ground", "resampling"},
    "view": OWN | {"joint_angles", "video"},
    **dict.fromkeys(("headings", "seen_motion", "strip_features"), STRIPS),
    "forecast_metrics": CORE | {"body"},
    "datasets": OWN | STRIPS,
    "models": OWN | STRIPS | {"body", "checkpoints", "datasets"},
    "refinement": CORE | {"anatomy", "foot_locking", "smoothing"},
    "predict": NETWORK | STREAMS | {"assumptions", "keypoint_arrays", "refinement"},
    "predict_temporal": NETWORK | STREAMS,
    "cleaning_causal": CORE | {"cleaning"},
    "one_euro": set(),
    "resampling_causal": set(),
    **dict.fromkeys(("streaming", "streaming_networks"), NETWORK | STREAMS),
    "live_sources": OWN | {"video"},
    **dict.fromkeys(("live", "live_sinks"), APPLICATION | STREAMS | {"live_sinks", "live_sources"}),
    "cli_live": COMMANDS | STREAMS,
    "evidence": APPLICATION,
    "quality": OWN | {"anatomy", "cleaning", "predict"},
    "forecasters": NETWORK | {"headings", "seen_motion", "strips_forecaster"},
    "strips_forecaster": NETWORK | STRIPS | {"body", "forecasters"},
    "seen_person": CORE | {
        *("anatomy", "cleaning", "gravity", "ground", "levelling", "resampling", "seen_motion", "world"),
    },
    "strips_refine": APPLICATION | STRIPS | {
        *("assumptions", "exporting", "foot_locking", "models", "resampling", "seen_person", "smoothing"),
        *("strips_around", "world"),
    },
    "continuation": CORE | {"body", "world"},
    "future": APPLICATION | {
        *("assumptions", "continuation", "exporting", "foot_locking", "forecasters", "outputs", "resampling"),
        *("seen_motion", "seen_person", "world"),
    },
    "outputs": APPLICATION | {"continuation", "evidence", "levelling", "quality", "world"},
    "exporting": APPLICATION | {"evidence", "outputs"},
    "pipeline": APPLICATION | {
        *("continuation", "evidence", "future", "outputs", "quality", "smoothing", "strips_refine", "world"),
    },
    "strips_around": APPLICATION | STRIPS | {"seen_person", "strips_refine", "world"},
    "around_result": APPLICATION | {"console", "evidence", "outputs", "strips_around"},
    "statue": OWN | {"forecasters", "future", "seen_motion", "seen_person", "world"},
    "future_result": APPLICATION | {
        *("console", "continuation", "evidence", "forecast_metrics", "future", "outputs", "quality", "statue", "world"),
    },
    "workers": set(),
    "batch": APPLICATION | {
        *("console", "continuation", "evidence", "footage", "outputs", "pipeline", "quality", "strips_refine"),
        "workers",
    },
    "doctor": APPLICATION,
    **dict.fromkeys(("console", "demo"), set()),
    "summary": {"console", "quality"},
    "footage": APPLICATION | {"evidence", "training"},
    "training": NETWORK | STRIPS | {"predict", "predict_temporal"},
    **dict.fromkeys(("cli", *(f"cli_{name}" for name in SHORT)), COMMANDS),
    "cli_view": COMMANDS | {"continuation", "outputs", "world"},
}
LIGHT = {
    *OWN,
    *("anatomy", "assumptions", "body", "checkpoints", "cleaning", "cli", "console", "contacts", "doctor"),
    *("evidence", "ground", "keypoint_arrays"),
    *("foot_locking", "gravity", "levelling", "outputs", "pipeline", "quality", "smoothing", "workers", "world"),
    *("standing", "resampling", "tracks", "trajectory", "continuation"),
    *("cleaning_causal", "cli_live", "live_sources", "one_euro", "resampling_causal"),
}
HEAVY = {
    *("PIL", "ai_edge_litert", "av", "cv2", "h5py", "jax", "matplotlib", "mediapipe", "onnx", "onnxruntime"),
    *("bpy", "ezc3d", "ray", "rtmlib", "safetensors", "tensorboard", "torch", "torchvision", "viser"),
}
CORE_PACKAGES = {"numpy", "scipy"}


def module_name(path: Path) -> str:
    """Return the name a file is imported by: detectors/coco.py is lifting.detectors.coco."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "detectors":
        parts.insert(0, "lifting")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted([ROOT / "lift.py", *ROOT.glob("lifting/**/*.py"), *ROOT.glob("detectors/**/*.py")])
MODULES = {module_name(path): path for path in FILES}
# Modules of light parts that are torch through and through; nothing imports them at once.
TORCH_MODULES = {name for name in MODULES if name.rpartition(".")[2].startswith("torch_")}
LIBRARY = sorted(name for name in MODULES if name.startswith("lifting."))


def imports_of(name: str) -> Iterator[tuple[str, bool]]:
    """Yield each imported module with whether it is imported as soon as the module is (not in a function)."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text("utf-8"), str(path))
    for node, at_once in walk(tree, True):
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, package)
            yield from ((f"{base}.{alias.name}", at_once) for alias in node.names)


def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[ast.AST, bool]]:
    yield node, at_once
    for child in ast.iter_child_nodes(node):
        later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or is_skipped_on_import(node)
        yield from walk(child, at_once and not later)


def is_skipped_on_import(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")


def absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parents, *filter(None, [node.module])])


def part_of(name: str) -> str:
    """Return the part of the library a dotted name belongs to, "" for the bare package."""
    return name.split(".")[1] if name.count(".") else ""


def is_constant_of_the_package(name: str) -> bool:
    return name in ("lifting", "lifting.__version__")


@pytest.mark.parametrize("name", LIBRARY)
def test_arrows_point_down_only(name):
    part = part_of(name)
    assert part in ALLOWED, f"{name}: add the part {part!r} to the table of tests/test_architecture.py"
    targets = {imported for imported, _ in imports_of(name) if imported.split(".")[0] == "lifting"}
    parts = {part_of(target) for target in targets if not is_constant_of_the_package(target)}
    assert parts <= ALLOWED[part] | {part}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_library_knows_no_front_door_experiments_or_tests(name):
    roots = {imported.split(".")[0] for imported, _ in imports_of(name)}
    assert not roots & {"lift", "experiments", "tests", "detectors"}


@pytest.mark.parametrize("part", sorted(CORE))
def test_core_needs_numpy_and_scipy_only(part):
    roots = {imported.split(".")[0] for imported, _ in imports_of(f"lifting.{part}")}
    assert roots - set(sys.stdlib_module_names) - {"__future__"} <= CORE_PACKAGES | {"lifting"} | optional_readers(part)


def optional_readers(part: str) -> set[str]:
    return {"tomli"} if part == "cameras" else set()  # tomllib before Python 3.11


def is_light_part(part: str) -> bool:
    return part in LIGHT or part.startswith("cli_")


def is_light(name: str) -> bool:
    return MODULES[name].name == "__init__.py" or (is_light_part(part_of(name)) and name not in TORCH_MODULES)


@pytest.mark.parametrize("name", [name for name in MODULES if is_light(name)])
def test_light_modules_import_heavy_packages_late(name):
    roots = {imported.split(".")[0] for imported, at_once in imports_of(name) if at_once}
    assert not roots & HEAVY


@pytest.mark.parametrize("name", [name for name in MODULES if is_light(name)])
def test_light_modules_import_torch_modules_late(name):
    assert not {imported for imported, at_once in imports_of(name) if at_once} & TORCH_MODULES


def test_front_door_imports_nothing_at_once():
    roots = {imported.split(".")[0] for imported, at_once in imports_of("lift") if at_once}
    assert roots == {"__future__", "importlib", "typing"}


def test_rules_can_be_broken(tmp_path, monkeypatch):
    path = tmp_path / "broken.py"
    path.write_text("import torch\nfrom .predict import Lifter\ndef f():\n    from lifting import cli\n")
    monkeypatch.setitem(MODULES, "lifting.broken", path)
    expected = {("torch", True), ("lifting.predict.Lifter", True), ("lifting.cli", False)}
    assert set(imports_of("lifting.broken")) == expected
