"""What the documentation tells users to type works: Python blocks run, commands parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from cerewrite.cli import main
from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^(?:    |\$ )*(cerewrite [a-z].*)$", re.MULTILINE)
SLOW = re.compile(r"pytest\.mark\.slow")
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)\b")


def commands() -> list[tuple[str, str]]:
    """Every command line in the pages; synopses with brackets or bars are left out."""
    lines = [(page.name, line) for page in PAGES for line in COMMAND.findall(page.read_text())]
    return [(name, line) for name, line in lines if not re.search(r"[\[|…]|\.\.\.", line)]


@pytest.mark.held
@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_parse(page: str, line: str) -> None:
    name, *arguments = shlex.split(line.partition(" #")[0])[1:]
    assert isinstance(main, click.Group)
    command = main.commands[name]
    command.make_context(name, arguments, parent=click.Context(main)).close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    quoted = re.findall(r"`([^`\n]+)`|^    (.+)$", page.read_text(), re.MULTILINE)
    used = {target for code in quoted for text in code for target in MAKE.findall(text)}
    assert used <= targets


@pytest.mark.thorough
def test_every_file_with_slow_tests_has_a_line() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    files = [file for file in ROOT.glob("tests/**/test_*.py") if SLOW.search(file.read_text())]
    assert files and [file.name for file in files if f"`{file.name}`" not in page] == []


@pytest.mark.thorough
@pytest.mark.parametrize("page", [page for page in PAGES if PYTHON.search(page.read_text())])
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in PYTHON.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), namespace)


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    assert len(links) > 20 and [link for link in links if not (ROOT / link).exists()] == []


def test_every_page_is_in_the_site() -> None:
    listed = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")} == listed
