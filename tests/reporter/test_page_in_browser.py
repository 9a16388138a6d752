"""The page as a person has it: opened in headless Chromium, folded, sorted, searched, read aloud.

With ``CEREWRITE_SCREENSHOTS=1`` what is seen is kept under ``docs/screenshots``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cerewrite.reporter import render_html, render_race
from tests.browser import CHROMIUM, Page, browser
from tests.conftest import ROOT
from tests.reporter import builders
from tests.reporter.reports import LARGE, stored

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

SECOND = 1000.0
"""Milliseconds that unfolding, sorting and searching may take."""

KEPT = ROOT / "docs" / "screenshots" if os.environ.get("CEREWRITE_SCREENSHOTS") else None
WIDTHS = {"phone": (360, 800), "desk": (1280, 900), "4k": (3840, 2160)}
OPEN_CONV = "document.querySelector('tr[data-name=\"layer2.1.conv2\"] a').click()"
SHOWN = "[...document.querySelectorAll('#tree tbody tr')].filter((tr) => !tr.hidden)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name in LARGE:
        (folder / f"{name}.html").write_text(render_html(stored(name)), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in LARGE}


@pytest.fixture
def clean(page: Page) -> Iterator[Page]:
    """The page, which asked for nothing but its own file and complained of nothing."""
    page.requests.clear()
    page.faults.clear()
    yield page
    page.run("new Promise((kept) => requestAnimationFrame(() => setTimeout(kept, 50)))")
    assert {url.partition("#")[0][:5] for url in page.requests} <= {"file:", "data:"}
    assert sum(url.startswith("file:") for url in page.requests) == 1
    assert page.faults == []


def timed(page: Page, script: str) -> float:
    """Milliseconds until the page has done it and laid itself out."""
    measured = f"(() => {{ const t = performance.now(); {script}; document.body.offsetHeight; "
    return float(page.run(measured + "return performance.now() - t; })()"))


@pytest.mark.parametrize("name", LARGE)
def test_trees_unfold_sort_and_search_within_a_second(
    clean: Page, files: dict[str, Path], name: str
) -> None:
    report = stored(name)
    clean.open(files[name])
    before = clean.run(f"{SHOWN}.length")
    assert timed(clean, "document.getElementById('expand').click()") < SECOND
    assert clean.run(f"{SHOWN}.length") == clean.run(
        "document.querySelector('#tree').tBodies[0].rows.length"
    )
    assert before < clean.run(f"{SHOWN}.length") > len(report.analysis.layers)
    assert timed(clean, "document.getElementById('flat').click()") < SECOND
    for column, value in (("Share of variance", "share"), ("FLOPs", "flops")):
        click = (
            "[...document.querySelectorAll('#tree thead button')]"
            f".find((one) => one.textContent === '{column}').click()"
        )
        assert timed(clean, click) < SECOND
        first = clean.run(f"{SHOWN}[0].dataset.name")
        best = max(report.analysis.layers, key=lambda layer: getattr(layer, value))
        if report.plan is None:
            assert first == best.name
        sort = "document.querySelector('[aria-sort=descending]').textContent"
        assert clean.run(sort) == column
        keys = clean.run(
            f"{SHOWN}.map((tr) => tr.cells[document.querySelector('[aria-sort=descending]')"
            ".cellIndex].dataset.v).filter((one) => one !== undefined).map(Number)"
        )
        assert keys == sorted(keys, reverse=True) and len(keys) > 40
    word = report.analysis.layers[7].name
    search = (
        f"const s = document.getElementById('search'); s.value = '{word}';"
        "s.dispatchEvent(new Event('input'))"
    )
    assert timed(clean, search) < SECOND
    said = "document.getElementById('found').textContent"
    layers = len(report.analysis.layers)
    assert clean.run(said) == f"{clean.run(f'{SHOWN}.length')} of {layers} rows match"
    clean.run("document.getElementById('flat').click()")
    found = clean.run(f"{SHOWN}.map((tr) => tr.dataset.name)")
    assert word in found and "" in found  # with those around it
    assert all(word in one or word.startswith(one) for one in found)
    assert "match" in clean.run(said)


def test_a_layer_opens_its_page_with_its_charts(clean: Page, files: dict[str, Path]) -> None:
    clean.open(files["resnet50"])
    clean.run(OPEN_CONV)
    clean.wait("document.querySelectorAll('dialog[open] .plot svg[role=img]').length >= 3")
    text = clean.run("document.querySelector('dialog').innerText")
    for part in ("layer2.1.conv2", "kappa", "spatial factor", "Considered for region layer2.1"):
        assert part in text
    for part in ("as it is", "chosen", "best on the line", "members", "Var[log K]", "forward"):
        assert part in clean.run("document.querySelector('dialog').textContent")
    data = clean.run("JSON.parse(document.getElementById('data').textContent).maps")
    for one in data.values():  # a chosen design is a point of the drawn line
        chosen = [p for p in one["points"] if p["what"] == "chosen"]
        assert all({k: p[k] for k in ("n", "m", "value")} in one["curve"] for p in chosen)
    clean.press("Escape")
    clean.wait("!document.querySelector('dialog').open")
    assert clean.run("document.querySelectorAll('#layers article').length") > 54


def test_the_front_shows_its_designs_to_a_pointer(clean: Page, files: dict[str, Path]) -> None:
    clean.open(files["resnet50"])
    clean.wait("document.querySelector('figure[data-chart=front] svg[role=img]')")
    star = (
        "(() => { const svg = document.querySelector('figure[data-chart=front] svg[role=img]');"
        "svg.scrollIntoView({block: 'center'});"
        "const dots = [...svg.querySelectorAll('[data-mark=dot] path')];"
        "const points = JSON.parse(document.getElementById('data').textContent).front.points;"
        "const box = dots[points.findIndex((p) => p.what === 'chosen')].getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    x, y = clean.run(star)
    clean.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    tip = "document.querySelector('figure[data-chart=front] [aria-label=tip]')?.textContent ?? ''"
    clean.wait(f"({tip}).length > 0")
    assert " x " in clean.run(tip)


def test_the_tree_is_used_by_keys(clean: Page, files: dict[str, Path]) -> None:
    clean.open(files["resnet50"])
    clean.run("document.getElementById('collapse').click()")
    clean.run("document.querySelector('#tree tr[tabindex=\"0\"]').focus()")
    name = "document.activeElement.dataset.name"
    for key, expected in (("ArrowDown", "conv1"), ("End", "fc"), ("Home", "")):
        clean.press(key)
        assert clean.run(name) == expected
    for _ in range(3):
        clean.press("ArrowDown")
    assert clean.run(name) == "layer1"
    opened = "document.activeElement.getAttribute('aria-expanded')"
    assert clean.run(opened) == "false"
    clean.press("ArrowRight")
    assert clean.run(opened) == "true" and clean.run(name) == "layer1"
    clean.press("ArrowRight")
    assert clean.run(name) == "layer1.0"
    clean.press("ArrowLeft")
    clean.press("ArrowLeft")
    assert clean.run(opened) == "false"
    clean.press("Home")
    clean.press("ArrowDown")
    clean.press("Enter")
    assert clean.run("document.querySelector('dialog').open")
    assert clean.run("document.querySelectorAll('#tree summary').length") > 0
    assert clean.run("document.querySelectorAll('#tree details[open]').length") == 0  # shut


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("name", LARGE)
def test_nothing_overflows(
    clean: Page, files: dict[str, Path], name: str, size: str, scheme: str
) -> None:
    width, height = WIDTHS[size]
    clean.open(files[name], width, height, scheme)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    paper = clean.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 27)")
    if KEPT is not None:
        KEPT.mkdir(exist_ok=True)
        clean.screenshot(KEPT / f"{name}-{size}-{scheme}.webp")
    assert clean.run(overflow) == 0
    clean.run("document.getElementById('expand').click()")
    clean.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert clean.run(overflow) == 0
    if name == "resnet50":
        clean.run(OPEN_CONV)
        clean.wait("document.querySelectorAll('dialog[open] .plot svg[role=img]').length >= 3")
        inside = "const d = document.querySelector('dialog'); return d.scrollWidth - d.clientWidth"
        assert clean.run(f"(() => {{ {inside}; }})()") <= 0
        small = (
            "Math.min(...[...document.querySelectorAll('dialog .plot svg text')].map((one) => "
            "parseFloat(getComputedStyle(one).fontSize) * (one.ownerSVGElement.clientWidth / "
            "one.ownerSVGElement.getAttribute('width'))))"
        )
        assert clean.run(small) >= 9  # pixels, at every width
        each = "[...document.querySelectorAll('dialog dd')].map((one) => one.clientWidth)"
        assert clean.run(f"Math.min(...{each})") >= 200  # texts are read in lines, not in letters
        if KEPT is not None:
            clean.screenshot(KEPT / f"layer-{size}-{scheme}.webp")


@pytest.mark.parametrize("least", [0.25, -0.25])
def test_a_race_is_drawn_over_steps_and_over_seconds(
    clean: Page, tmp_path: Path, least: float
) -> None:
    """On a logarithmic scale where all losses are above 0; one that is not finite is left out."""
    names = ("baseline", "<b>half")
    path = tmp_path / "race.html"
    page = render_race(builders.race(names, (1.0, 0.5, least), seconds=0.125))
    path.write_text(page, encoding="utf-8")
    clean.open(path)
    clean.wait("document.querySelectorAll('.plot svg[role=img]').length === 2")
    for by in ("steps", "seconds"):
        within = f"document.querySelector('figure[data-by={by}]')"
        text = clean.run(f"{within}.textContent")
        assert all(word in text for word in (*names, f"over {by}", "held-out loss"))
        assert clean.run(f"{within}.querySelectorAll('[data-mark=line] path').length") == 2
    assert "<script" not in render_race(builders.race(names, (), seconds=1.0))


@pytest.mark.parametrize("scripts", [True, False])
def test_without_scripts_and_in_print_every_row_is_there(
    clean: Page, files: dict[str, Path], scripts: bool
) -> None:
    shown = (
        "[...document.querySelectorAll('#tree tbody tr')]"
        ".every((tr) => tr.getBoundingClientRect().height > 0)"
    )
    clean.call("Emulation.setScriptExecutionDisabled", value=not scripts)
    try:
        clean.open(files["resnet50"])
        assert clean.run("document.documentElement.matches('.js')") == scripts
        assert clean.run(shown) != scripts  # scripts fold what a screen does not hold
        clean.call("Emulation.setEmulatedMedia", media="print", features=[])
        assert clean.run(shown)
    finally:
        clean.call("Emulation.setEmulatedMedia", media="", features=[])
        clean.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", LARGE)
def test_axe_finds_no_serious_fault(
    clean: Page, files: dict[str, Path], name: str, scheme: str, tmp_path: Path
) -> None:
    source = Path(os.environ.get("AXE_CORE", tmp_path / "package" / "axe.min.js"))
    if "AXE_CORE" not in os.environ:
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("axe-core is not there: set AXE_CORE to axe.min.js, or install npm")
        got = subprocess.run(
            [npm, "pack", "axe-core@4"], cwd=tmp_path, capture_output=True, text=True
        )
        if got.returncode:
            pytest.skip(f"axe-core is not there, and npm fetches none: {got.stderr.strip()[-200:]}")
        shutil.unpack_archive(next(tmp_path.glob("*.tgz")), tmp_path, "gztar")
    clean.open(files[name], scheme=scheme)
    clean.run("document.getElementById('expand').click()")
    clean.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    clean.run(source.read_text(encoding="utf-8") + "; 0")
    kinds = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']"
    for opened in (False, True):
        if opened:
            clean.run("document.querySelector('#tree a').click()")
        ran = f"axe.run({{runOnly: {kinds}}}).then((found) => JSON.stringify(found.violations))"
        found = json.loads(clean.run(ran))
        grave = [(one["id"], one["nodes"][0]["html"], one["help"]) for one in found
                 if one["impact"] in ("serious", "critical")]  # fmt: skip
        assert not grave
