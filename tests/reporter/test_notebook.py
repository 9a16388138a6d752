"""Records in a notebook: short and true when printed, tables, frames and pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import pydoc
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

import cerewrite
from cerewrite import ir
from cerewrite.errors import UsageError
from cerewrite.ir.diagnosed import Diagnosis, Figure, Finding, LayerFigure
from cerewrite.ir.shown import VIEWS
from cerewrite.reporter.tree import module_rows
from tests.reporter import builders
from tests.reporter.reports import stored

KINDS = ("analysis", "plan", "verification", "report", "conversion", "diagnosis")


@pytest.fixture
def conversion() -> cerewrite.Conversion:
    """That of ResNet-50, whose report is stored."""
    report = stored("resnet50")
    assert report.plan is not None and report.verification is not None
    made = (report.plan, report.analysis, report.verification)
    return cerewrite.Conversion(torch.nn.Identity(), *made, None, report, report.renamed)


def diagnosis() -> Diagnosis:
    layers = (LayerFigure("0", 1.5, 0.1), LayerFigure("2", -0.5))
    figures = (Figure("depth", 3.25, 0.5, layers), Figure("lost", float("nan")))
    one = Finding("signal", "Signal", "a/b", "a paper", (), figures, 1.0, 2.0, 0.1, 4)
    gap = ir.Rejection("curvature", "no-loss", "there is no loss", "give targets")
    return Diagnosis("Net", 12, "given", 8, False, 4, 0, (one,), (gap,))


@pytest.fixture(params=KINDS)
def record(request: pytest.FixtureRequest, conversion: cerewrite.Conversion) -> Any:
    others = {"conversion": conversion, "diagnosis": diagnosis()}
    return others.get(request.param) or getattr(conversion, request.param)


def test_a_printed_record_is_one_short_line(record: Any) -> None:
    text = repr(record)
    assert text.startswith(f"{type(record).__name__}(") and "\n" not in text
    assert len(text) < 300


def test_it_says_what_the_record_holds(conversion: cerewrite.Conversion) -> None:
    analysis, plan = conversion.analysis, conversion.plan
    assert f"{len(analysis.layers)} layers" in repr(analysis)
    assert f"nu {analysis.nu.value:.4g} +- {analysis.nu.stderr:.2g}" in repr(analysis)
    assert f"{len(plan.splits)} regions split at scope block" in repr(plan)
    assert f"{plan.baseline.params:,} -> {plan.planned.params:,}" in repr(plan)
    checks = conversion.verification.checks
    assert f"{len(checks)} of {len(checks)} checks passed" in repr(conversion.verification)
    assert repr(plan) in repr(conversion) and "promise" in repr(conversion.report)
    assert repr(diagnosis()).startswith("Diagnosis(Net: 2 figures of 1 diagnostics, 1 not")
    assert "FAILED: membership" in repr(builders.verification(passed=False))
    assert all(len(repr(region)) < 100 for region in plan.regions)


class Balanced(HTMLParser):
    """Checks that every tag is closed in order, and that nothing runs or is fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "link", "iframe", "svg")
        assert not {"src", "href", "onload", "onclick", "id"} & {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_notebook_shows_a_table(record: Any) -> None:
    text = record._repr_html_()
    found = Balanced(text)
    assert found.words and "<table>" in text and len(text) < 30_000


def test_what_users_wrote_is_escaped() -> None:
    evil = "<script>alert(1)</script>\x1b[31m"
    analysis = builders.analysis()
    layer = dataclasses.replace(analysis.layers[0], name=evil)
    text = dataclasses.replace(analysis, layers=(layer,))._repr_html_()
    assert "&lt;script&gt;" in text and "\x1b" not in text
    Balanced(text)


def test_a_failed_report_says_so_first() -> None:
    words = " ".join(Balanced(builders.report(passed=False)._repr_html_()).words)
    assert words.index("FAILED checks") < words.index("Before and after")


def test_frames_hold_the_records_own_numbers(conversion: cerewrite.Conversion) -> None:
    pytest.importorskip("pandas", reason="to_frame needs pandas")
    analysis, plan = conversion.analysis, conversion.plan
    layers = analysis.to_frame()
    assert list(layers["kappa"]) == [layer.kappa for layer in analysis.layers]
    assert list(layers["name"]) == [layer.name for layer in analysis.layers]
    splits = plan.to_frame()
    assert list(splits["log_variance"]) == [split.log_variance for split in plan.splits]
    assert list(splits["widths"]) == [split.widths for split in plan.splits]
    checks = conversion.verification.to_frame()
    assert list(checks["passed"]) == [True] * len(conversion.verification.checks)
    figures = diagnosis().to_frame()
    assert list(figures["value"][:3]) == [3.25, 1.5, -0.5] and len(figures) == 4
    assert list(figures["layer"]) == ["", "0", "2", ""]
    rows = module_rows(analysis, plan)
    for shown in (conversion, conversion.report):
        modules = shown.to_frame()
        assert list(modules["params"]) == [row.params[1] for row in rows]
        assert modules["params"][0] == plan.planned.params
        assert modules["params_before"][0] == plan.baseline.params


class Residual(torch.nn.Module):
    """A block of its own, whose stream only wider scopes split."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = torch.nn.Linear(8, 64), torch.nn.Linear(64, 4)
        self.inner, self.outer = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Stem, block, head."""
        x = self.stem(x).relu()
        return self.head(x + self.outer(self.inner(x).relu()))


def test_a_report_on_several_scopes_is_shown_at_its_plans() -> None:
    analysis = cerewrite.analyze(
        Residual(), torch.ones(1, 8), estimator="analytic", gain="he", scope="auto"
    )
    plan = cerewrite.plan(analysis.at_scope("network"), allow="all")
    assert plan.splits[0].region not in {region.name for region in analysis.regions}
    columns = VIEWS["Report"].columns(ir.Report(analysis, plan))  # type: ignore[attr-defined]
    assert columns["params_before"][0] == plan.baseline.params
    assert columns["params"][0] == plan.planned.params != plan.baseline.params


@pytest.mark.thorough
def test_pictures_hold_every_figure(conversion: cerewrite.Conversion) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="plot needs matplotlib")
    matplotlib.use("Agg")
    analysis, plan = conversion.analysis, conversion.plan
    axes = analysis.plot()
    assert [bar.get_width() for bar in axes.patches] == [layer.share for layer in analysis.layers]
    assert [t.get_text() for t in axes.get_yticklabels()] == [y.name for y in analysis.layers]
    axes = plan.plot()
    points = [tuple(one.get_offsets()[0]) for one in axes.collections]
    assert points == [(row.params if row.step is None else row.step, row.measure)
                      for row in plan.menu]  # fmt: skip
    assert dataclasses.replace(plan, menu=()).plot(axes) is axes
    axes = conversion.verification.plot()
    both = [c for c in conversion.verification.checks if c.value and c.limit]
    assert len(axes.patches) == len(both)
    assert conversion.plot().get_title() == conversion.report.plot().get_title() == plan.model
    assert [bar.get_width() for bar in diagnosis().plot().patches] == [3.25]
    matplotlib.pyplot.close("all")
    with pytest.raises(UsageError, match="no check has"):
        ir.Verification(()).plot()


@pytest.mark.parametrize(("call", "library"), [("to_frame", "pandas"), ("plot", "matplotlib")])
def test_a_library_that_is_missing_is_named(
    record: Any, call: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def missing(name: str, package: str | None = None) -> Any:
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named '{library}'")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsageError, match=f"needs {library}") as caught:
        getattr(record, call)()
    assert caught.value.advice == f"pip install {library}"


def test_help_of_the_package_begins_with_a_screen() -> None:
    text = pydoc.plain(pydoc.render_doc(cerewrite))
    description = text.partition("DESCRIPTION\n")[2].partition("\n\nPACKAGE CONTENTS")[0]
    assert description.count("\n") < 24
    for verb in ("analyze", "plan", "apply", "verify", "convert", "export_onnx", "load", "revert"):
        assert f"{verb}" in description
    assert ">>> " in description


@pytest.mark.parametrize("verb", ["analyze", "plan", "convert", "apply", "verify", "menu"])
def test_help_of_a_verb_fits_a_screen(verb: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        help(getattr(cerewrite, verb))
    assert out.getvalue().count("\n") <= 50
    assert ">>> " in out.getvalue() or verb in ("plan", "apply", "verify")
