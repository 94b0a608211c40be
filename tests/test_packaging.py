"""The public API, what importing costs, what is packaged, and README's commands and code."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lift
import lifting

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
TEST_PYTHON = ".venv/bin/python -m pytest"

PUBLIC = {
    *("BodyMotion", "Camera", "Detection", "Keypoints2D", "Lifter", "Motion", "Person", "Skeleton", "Take"),
    *("__version__", "export", "fit_body", "future", "get_skeleton", "load", "load_body", "metrics", "predict"),
    *("refine", "run_video", "save"),
}
ACKNOWLEDGEMENT = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217."
)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120)


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def command_after(marker: str) -> str:
    found = re.search(rf"^<!-- {marker} -->\n```bash\n(.*?)^```", README, re.M | re.S)
    assert found, f"README has no command after <!-- {marker} -->"
    return found.group(1).strip()


# ---- the front door


def test_public_names_are_the_list_somebody_wrote():
    assert set(lift.__all__) == PUBLIC
    assert len(lift.__all__) == len(PUBLIC)
    assert dir(lift) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_resolves_to_the_library(name):
    value = getattr(lift, name)
    home = getattr(value, "__module__", None) or getattr(value, "__name__", "lifting")
    assert name == "__version__" or home.startswith("lifting.")
    assert value is getattr(lift, name)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="'lift' has no attribute 'predikt'.*predict"):
        lift.predikt  # noqa: B018


def test_front_door_is_light():
    code = "import lift, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = run_python("-c", code).stdout.split()
    assert "lift" in loaded
    assert not set(loaded) & {"torch", "scipy", "matplotlib", "av", "mediapipe", "h5py", "PIL", "numpy"}


def test_core_types_need_no_torch():
    code = (
        "import sys, lift, lifting.detectors, lifting.export;"
        "lift.Skeleton, lift.Keypoints2D, lift.Camera, lift.Take, lift.load, lift.metrics;"
        "print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    assert run_python("-c", code).stdout.split() == ["False", "False"]


def test_module_runs_the_command_line():
    shown = run_python("-m", "lift", "--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("Usage: lift ")
    assert shown.stderr == ""


# ---- what is packaged


def test_detectors_are_importable_as_part_of_the_library():
    module = importlib.import_module("lifting.detectors")
    assert module.__name__ == "lifting.detectors"
    assert module.create_detector


def test_type_marker_and_weights_are_package_data():
    setup = (ROOT / "setup.py").read_text("utf-8")
    assert '"py.typed"' in setup
    assert '"weights/*.safetensors"' in setup and '"weights/*.npz"' in setup
    assert (ROOT / "lifting" / "py.typed").exists()
    weights = [path for path in (ROOT / "lifting" / "weights").iterdir() if path.suffix in (".safetensors", ".npz")]
    assert len(weights) >= 4
    assert sum(path.stat().st_size for path in weights) <= 25e6


def test_every_folder_with_modules_is_a_package():
    for top in ("lifting", "detectors", "experiments"):
        folders = {path.parent for path in (ROOT / top).rglob("*.py")}
        assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_pyproject_holds_no_metadata():
    assert not re.search(r"^\[project", (ROOT / "pyproject.toml").read_text("utf-8"), re.M)


def test_version_is_said_once_and_cited():
    assert re.fullmatch(r"\d+\.\d+\.\d+", lifting.__version__)
    assert f"\nversion: {lifting.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_constraints_cover_what_the_commands_install():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    names = {line.split("==")[0].lower() for line in lines if "==" in line}
    setup = (ROOT / "setup.py").read_text("utf-8")
    core = re.search(r"install_requires=\[(.*?)\]", setup, re.S).group(1)
    extras = "".join(re.findall(r'"(?:video|test)": \[(.*?)\]', setup, re.S))
    wanted = set(re.findall(r"""f?["']([a-z][a-z0-9-]*)[><=]""", core + extras)) - {"tomli"}
    assert {"torch", "numpy", "av", "mediapipe", "pytest"} <= wanted
    assert wanted <= names


@pytest.mark.parametrize("name", ["NOTICE", "README.md", "data/README.md"])
def test_acknowledgement_of_the_training_data_is_verbatim(name):
    assert ACKNOWLEDGEMENT in " ".join((ROOT / name).read_text("utf-8").split())


def test_licence_is_the_whole_apache_text():
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text


# ---- README


def test_readme_opens_with_the_two_commands():
    first, second = code_blocks("bash")[:2]
    assert first.strip() == command_after("main job")
    assert second.strip() == command_after("tests")
    assert README.index("```bash") < 700


@pytest.mark.parametrize(
    ("marker", "extras", "job"),
    [("main job", "video", ".venv/bin/lift run --video data/sample.mp4"), ("tests", "video,test", TEST_PYTHON)],
)
def test_readme_command_does_all_the_set_up(marker, extras, job):
    steps = command_after(marker).split(" && ")
    assert steps == ["python3 -m venv .venv", f'.venv/bin/pip install -c constraints.txt ".[{extras}]"', job]


def test_continuous_integration_takes_its_commands_from_readme():
    script = ROOT / ".ci" / "run"
    text = script.read_text("utf-8")
    assert 'run_command_of "main job"' in text
    assert text.rstrip().endswith('run_command_of "tests"')
    assert "pytest" not in text
    assert os.name == "nt" or os.access(script, os.X_OK)


def test_relative_links_and_files_named_in_readme_exist():
    for name in re.findall(r"`([A-Z]+(?:\.md|\.cff)?|data/[\w.]+|lifting/\w+)`", README):
        assert (ROOT / name).exists(), name


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """Make a folder as README's reader has it: keypoints of one standing person, and the sample."""
    pose = lift.get_skeleton("coco17")
    height = {"shoulder": 300, "elbow": 420, "wrist": 520, "hip": 520, "knee": 720, "ankle": 900}
    side = {"left": 1010, "right": 910}
    joints = [(side.get(name.split("_")[0], 960), height.get(name.split("_")[-1], 230)) for name in pose.joints]
    np.save(tmp_path / "keypoints.npy", np.tile(np.array(joints, np.float32), (20, 1, 1)))
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_blocks_are_two():
    uses = [("predict" in block, "run_video" in block) for block in code_blocks("python")]
    assert uses == [(True, False), (False, True)]


def test_readme_code_for_keypoints_runs(user_folder):
    names: dict = {}
    with pytest.warns(UserWarning, match="Focal length .* assumed"):
        exec(code_blocks("python")[0], names)
    motion = names["motion"]
    assert motion.joints.shape == motion.absolute.shape == (20, 17, 3)
    assert motion.sigma.shape == (20, 17)
    assert np.isfinite(motion.absolute).all()
    assert motion.skeleton.name == "h36m17"


def test_readme_code_for_a_video_runs(user_folder, capsys):
    pytest.importorskip("ai_edge_litert")
    exec(code_blocks("python")[1], {})
    assert (user_folder / "sample.npz").exists()
    assert re.search(r"\(\d+, 17, 3\)", capsys.readouterr().out)
