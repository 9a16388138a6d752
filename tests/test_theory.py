"""docs/theory.md: what the source cites of it exists, what it names exists, its numbers hold."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from cerewrite.diagnostics import DIAGNOSTICS
from cerewrite.estimators.exact_relu import exact_relu_nu
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "theory.md"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = [int(n) for n in re.findall(r"^## (\d+)\. ", TEXT, re.MULTILINE)]
EQUATIONS = [int(n) for n in re.findall(r"\\tag\{(\d+)\}", TEXT)]
BODIES = re.split(r"^## (?=\d+\. )", TEXT, flags=re.MULTILINE)[1:]
HELD = re.compile(r"^Implemented in: (.+); held by: (.+)\.$", re.MULTILINE)

LIST = r"(\d+(?:(?:,|,? and| to) \d+)*)"
CITATION = re.compile(r"docs/theory\.md(?:,? (sections?|eqs?\.))? " + LIST)
NUMBERED = re.compile(r"docs/theory\.md\W{1,2}(?:\w+\.? )?\d")
"""A citation with a number, however it is written."""


def sources() -> Iterator[tuple[str, str]]:
    """Names and texts of what may cite the page, each text on one line."""
    files = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
    for folder in ("cerewrite", "passes", "benchmarks", "tests", "examples", "docs"):
        files += [f for s in ("py", "md", "txt", "json") for f in (ROOT / folder).rglob(f"*.{s}")]
    for file in files:
        if file not in (PAGE, ROOT / "tests" / "test_theory.py"):
            text = re.sub(r"\s+(?:# )?", " ", file.read_text(encoding="utf-8"))
            yield str(file.relative_to(ROOT)), text


def test_citations_name_what_exists() -> None:
    known = {"s": set(SECTIONS), "e": set(EQUATIONS)}
    wrong, count = [], 0
    for name, text in sources():
        found = list(CITATION.finditer(text))
        count += len(found)
        for match in found:
            kind = (match[1] or "section")[0]
            if not {int(n) for n in re.findall(r"\d+", match[2])} <= known[kind]:
                wrong.append(f"{name}: {match[0]}")
        if len(found) != len(NUMBERED.findall(text)) or re.search(r"THEORY \d", text):
            wrong.append(f"{name}: a citation that cannot be read")
    assert not wrong
    assert count > 60


@pytest.mark.parametrize("text", ["docs/theory.md, sec. 4", "docs/theory.md: eq. 12"])
def test_a_citation_that_cannot_be_read_is_seen(text: str) -> None:
    assert NUMBERED.search(text)
    assert not CITATION.search(text)


def test_numbers_are_consecutive() -> None:
    assert list(range(1, len(SECTIONS) + 1)) == SECTIONS
    assert list(range(1, len(EQUATIONS) + 1)) == EQUATIONS


def test_the_page_cites_itself_rightly() -> None:
    prose = re.sub(r"^\$\$$.*?^\$\$$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"\s+", " ", prose)
    sections = re.findall(r"\bsections? " + LIST, prose, re.IGNORECASE)
    cited = {int(n) for found in sections for n in re.findall(r"\d+", found)}
    assert cited <= set(SECTIONS)
    equations = {int(n) for n in re.findall(r"(?<=[a-z,] )\((\d+)\)", prose)}
    assert len(equations) > 10
    assert equations <= set(EQUATIONS)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.partition("\n")[0])
def test_what_a_section_names_exists(body: str) -> None:
    (found,) = HELD.findall(re.sub(r"(?<!\n)\n(?!\n)", " ", body.strip()))
    named = [re.findall(r"`([\w./]+)`", part) for part in found]
    missing = [path for paths in named for path in paths if not (ROOT / path).exists()]
    assert not missing
    assert all(named) or all("yet" in part for part, paths in zip(found, named, strict=True))


def test_every_diagnostic_has_its_formula() -> None:
    """Named with its file; its oracle is in the section's test."""
    (body,) = (one for one in BODIES if "Diagnostics of trainability" in one.partition("\n")[0])
    text = re.sub(r"\s+", " ", body)
    held = (ROOT / "tests" / "diagnostics" / "test_oracles.py").read_text(encoding="utf-8")
    for name, one in DIAGNOSTICS.items():
        file = type(one).__module__.rpartition(".")[2]
        assert f"`{name}` (`{file}.py`" in text
        assert f'"{name}"' in held


def reference_numbers() -> Iterator[tuple[list[int], str]]:
    """Hidden widths and nu, as the table of section 9 states it."""
    for depth, widths, nu in re.findall(r"^\| (\d+) \| ([\d, ]+) \| ([\d.]+) \|$", TEXT, re.M):
        found = [int(width) for width in widths.split(",")]
        yield (found * int(depth) if len(found) == 1 else found), nu


@pytest.mark.parametrize(("widths", "stated"), list(reference_numbers()))
def test_reference_numbers(widths: list[int], stated: str) -> None:
    """Exact moments, to the last digit that is stated."""
    digits = len(stated.partition(".")[2])
    assert round(exact_relu_nu(widths), digits) == float(stated)
