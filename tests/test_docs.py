"""The docs are true: every snippet runs, every doctest holds, every name and link is there."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hashmem

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")])
ENDLESS = {"testing.md", "hashmem.testing.steps"}  # they show loops that only a count stops
MODULES = sorted(m.name for m in pkgutil.walk_packages(hashmem.__path__, "hashmem."))


def each(names):
    """A parameter for each; under another tracer lines are not counted, and some never end."""
    untraced = pytest.mark.skipif(
        sys.gettrace() is not None, reason="another tracer: lines are not counted"
    )
    named = [(name, getattr(name, "name", name)) for name in names]
    return [pytest.param(n, id=i, marks=[untraced] * (i in ENDLESS)) for n, i in named]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", each(page for page in PAGES if blocks(page, "python")))
def test_python_snippets_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "snippet"}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page.name}, python block {number}", "exec"), namespace)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "sh")], ids=lambda page: page.name
)
def test_shell_snippets_run_in_order(page, tmp_path):
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": scripts + os.pathsep + os.environ["PATH"]}
    for block in blocks(page, "sh"):
        done = subprocess.run(
            ["sh", "-ec", block], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", each(MODULES))
def test_doctests(name):
    if name.endswith("_native"):
        pytest.skip("compiled, no docstrings to run")
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(module, optionflags=flags).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_public_name_is_documented():
    listed = (ROOT / "docs/api.md").read_text()
    for name in hashmem.__all__:
        if not name.startswith("__"):
            assert f"### hashmem.{name}\n" in listed
            assert getattr(hashmem, name).__doc__, f"{name} has no docstring"


def test_api_page_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    build_api = importlib.import_module("build_api")
    assert (ROOT / "docs/api.md").read_text() == build_api.render(), "run python docs/build_api.py"


def test_readme_shows_exactly_two_commands_to_set_up():
    first_screen = (ROOT / "README.md").read_text().split("## In Python")[0]
    commands = re.findall(r"^```\n(.*?)^```", first_screen, re.DOTALL | re.MULTILINE)
    assert [command.count("\n") for command in commands] == [1, 1]
    assert commands[0].endswith("hashmem demo\n")
    assert commands[1].endswith("pytest -n 2\n")
