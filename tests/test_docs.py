"""What the documents say exists: commands, options, code, pages; and the notebook runs."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
from pathlib import Path

import click
import pytest

from lifting.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", *PAGES]
NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.M | re.S)


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and those that are left for it."""
    command, rest = main, words
    while isinstance(command, click.Group):
        assert rest, words
        assert rest[0] in command.commands or rest[0].startswith("-"), f"no command {rest[0]!r} in {words}"
        if rest[0].startswith("-"):
            break
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def options_of(command: click.Command) -> set[str]:
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}


def test_pages_of_the_menu_are_the_pages_there_are():
    listed = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    assert sorted(listed) == [page.name for page in PAGES]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_their_options_exist(path):
    for block in blocks(path, "bash"):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            if match := re.search(r"(?:^|[|&] ?|-m |bin/)lift (.*)", line.split("#")[0].strip()):
                command, words = command_of(shlex.split(match.group(1)))
                used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
                assert used <= options_of(command), f"{line}: {used - options_of(command)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_named_in_the_text_is_one_of_some_command(path):
    known: set[str] = set()
    waiting: list[click.Command] = [main]
    while waiting:
        command = waiting.pop()
        known |= options_of(command)
        waiting += getattr(command, "commands", {}).values()
    known |= {"--max-restarts", "--version"}  # torchrun's; click's
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    for code in re.findall(r"`([^`\n]+)`", text):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code))
        if not re.search(r"experiments\.|pip|torchrun", code):
            assert named <= known, f"{code}: {named - known}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_code_is_python_and_uses_public_names(path):
    import lift

    for block in blocks(path, "python"):
        ast.parse(block)
        for name in re.findall(r"\blift\.(\w+)", block):
            assert hasattr(lift, name), name


def test_the_page_on_python_shows_every_public_name():
    import lift

    shown = set()
    for home, name in re.findall(r"^::: ([\w.]+)\.(\w+)$", (ROOT / "docs" / "python.md").read_text("utf-8"), re.M):
        owner = importlib.import_module(home)
        value = getattr(owner, name) if hasattr(owner, name) else importlib.import_module(f"{home}.{name}")
        if value is getattr(lift, name, None):
            shown.add(name)
    assert shown == set(lift.__all__) - {"__version__"}


def test_the_notebook_runs_and_holds_no_outputs(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    cells = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names: dict = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    matplotlib.pyplot.close("all")
    assert names["again"].people[0].id == names["person"].id
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".bvh", ".glb", ".html", ".npz", ".trc"]
