"""Timings in a conversion: the report holds them, a slower model says so and names a remedy."""

from __future__ import annotations

import dataclasses
import html
from pathlib import Path

import pytest
import torch
from torch import nn

import cerewrite
from cerewrite import ir, reporter
from cerewrite.api import speed
from cerewrite.api.menu import nothing_gained
from tests.reporter import builders


def page(report: ir.Report) -> str:
    return html.unescape(reporter.render_html(report))


def wide() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(16, 64), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 4))


ASKED = {"engines": ("eager",), "batches": (1, 8), "runs": 5}


@pytest.mark.thorough
def test_a_conversion_with_timings() -> None:
    result = cerewrite.convert(
        wide(), torch.randn(2, 16), gain="he", bench=ASKED, estimator="analytic"
    )
    timings = result.report.timings
    assert [(t.engine, t.batch) for t in timings] == [("eager", 1), ("eager", 8)]
    assert "Speed: medians of 5 interleaved runs" in page(result.report)
    assert ir.loads(ir.Report, ir.dumps(result.report), source="x") == result.report


@pytest.mark.thorough
def test_a_slower_model_is_timed_against_an_aligned_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[nn.Module] = []

    def slow(original: nn.Module, rewritten: nn.Module, inputs: object, **_: object) -> object:
        built.append(rewritten)
        return (ir.Timing("eager", 1, 1, 1.0, 0.01, 3.0 / len(built), 0.01, 5),)

    monkeypatch.setattr(speed, "bench", slow)
    result = cerewrite.convert(
        wide(),
        torch.randn(2, 16),
        gain="he",
        bench=True,
        widths="free",
        min_gain=0.0,
        estimator="analytic",
    )
    other = result.report.alternative
    assert other is not None
    assert "--budget params --budget flops --min-width 16 --channel-multiple 16" in other.what
    assert other.planned.flops <= result.plan.baseline.flops
    assert built[1][2].weight.shape[-1] % speed.ALIGNED == 0
    text = page(result.report)
    assert "SLOWER: 3.00 times the original's time in eager at batch 1" in text
    assert f"with {other.what}: 1.50 times" in text


def test_no_alternative_to_what_is_aligned_already(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = ir.Timing("eager", 1, 1, 1.0, 0.01, 3.0, 0.01, 5)
    monkeypatch.setattr(speed, "bench", lambda *a, **k: (timing,))
    result = cerewrite.convert(
        wide(),
        torch.randn(2, 16),
        gain="he",
        bench=True,
        budget=["params", "flops"],
        min_width=16,
        channel_multiple=16,
        estimator="analytic",
    )
    assert result.report.alternative is None
    assert "SLOWER: 3.00 times the original's time in eager at batch 1." in page(result.report)


def test_within_the_noise_nothing_is_called_slower() -> None:
    result = cerewrite.convert(wide(), torch.randn(2, 16), gain="he", estimator="analytic")
    noisy = ir.Timing("eager", 1, 1, 1.0, 0.2, 1.3, 0.2, 5)
    report = dataclasses.replace(result.report, timings=(noisy,))
    assert "SLOWER" not in page(report)
    assert "SLOWER" in page(
        dataclasses.replace(report, timings=(dataclasses.replace(noisy, rewritten=1.5),))
    )


def test_no_alternative_is_built_within_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[nn.Module] = []

    def noisy(original: nn.Module, rewritten: nn.Module, inputs: object, **_: object) -> object:
        calls.append(rewritten)
        return (ir.Timing("eager", 1, 1, 1.0, 0.2, 1.3, 0.2, 5),)

    monkeypatch.setattr(speed, "bench", noisy)
    result = cerewrite.convert(
        wide(), torch.randn(2, 16), gain="he", bench=True, estimator="analytic"
    )
    assert result.report.alternative is None and len(calls) == 1


def timing(ratio: float) -> ir.Timing:
    return ir.Timing("eager", 1, 1, 1.0, 0.01, ratio, 0.01, 15)


@pytest.mark.thorough
@pytest.mark.parametrize("widths", ["free", "proportional"])
def test_a_latency_budget_is_tightened_until_it_holds(
    widths: str, monkeypatch: pytest.MonkeyPatch, counted_clock: None
) -> None:
    ratios = iter([1.3, 1.1, 0.97])
    monkeypatch.setattr(speed, "bench", lambda *a, **k: (timing(next(ratios)),))
    options = {"gain": "he", "budget": ["params=3.0x", "latency=1.0x"], "widths": widths}
    options |= {"estimator": "analytic", "min_gain": 0.0}
    result = cerewrite.convert(wide(), torch.randn(2, 16), **options)  # type: ignore[arg-type]
    forecast = result.report.forecast
    assert forecast is not None
    assert (forecast.asked, forecast.rounds, forecast.measured.ratio) == (1.0, 3, 0.97)
    assert forecast.held
    assert forecast.forecast <= 1 / (1.3 * 1.1)
    assert "latency tightened to 0.672x" in result.plan.note
    text = page(result.report)
    assert "at most 1.000x of the original's time" in text and "NOT held" not in text


@pytest.mark.thorough
def test_a_limit_that_nothing_built_holds_leaves_the_original(
    monkeypatch: pytest.MonkeyPatch, counted_clock: None
) -> None:
    """Tightening ended in one member of narrowed layers, worse than the original."""
    monkeypatch.setattr(speed, "bench", lambda *a, **k: (timing(1.5),))
    model = wide()
    options = {"gain": "he", "budget": ["params=3x", "latency=1.0x"]}
    result = cerewrite.convert(model, torch.randn(2, 16), **options)  # type: ignore[arg-type]
    assert result.plan.splits == () and result.plan.planned == result.plan.baseline
    after = result.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())


@pytest.mark.thorough
def test_a_latency_budget_that_cannot_be_held_says_so(
    monkeypatch: pytest.MonkeyPatch, counted_clock: None
) -> None:
    """Below the original's latency there is no original to fall back to."""
    ratios = iter([1.5, 1.4, 1.2, 1.3, 1.3])
    monkeypatch.setattr(speed, "bench", lambda *a, **k: (timing(next(ratios)),))
    result = cerewrite.convert(
        wide(),
        torch.randn(2, 16),
        gain="he",
        budget="latency=0.9x",
        min_width=2,
        estimator="analytic",
    )
    forecast = result.report.forecast
    assert forecast is not None and not forecast.held
    assert forecast.measured.ratio <= 1.4
    assert "NOT held" in page(result.report)


@pytest.mark.held
def test_a_held_step_is_measured_and_the_menu_says_what_a_gain_costs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(speed, "bench", lambda *a, **k: (timing(1.5),))
    model, x = wide(), torch.randn(2, 16)
    result = cerewrite.convert(model, x, gain="he", estimator="analytic")
    assert result.plan.splits == ()
    assert dict(result.plan.originals).keys() == {"memory", "step"}
    rows = {row.name: row for row in result.plan.menu}
    assert list(rows) == ["held", "1.25x", "1.5x", "2x", "params-only"]
    assert [row.name for row in result.plan.menu if row.chosen] == ["held"]
    measures = [row.measure for row in result.plan.menu]
    assert measures == sorted(measures, reverse=True) and measures[-1] < 0.9
    with pytest.raises(cerewrite.NothingGainedError, match="smaller log-variance") as caught:
        cerewrite.convert(model, x, gain="he", estimator="analytic", out=tmp_path / "out")
    assert "--pick" in caught.value.advice and "--unchanged" in caught.value.advice
    assert not (tmp_path / "out").exists()
    picked = cerewrite.convert(
        model, x, gain="he", estimator="analytic", pick="params-only", out=tmp_path / "out"
    )
    assert picked.plan.planned.log_variance < picked.plan.baseline.log_variance
    assert [row.name for row in picked.plan.menu if row.chosen] == ["params-only"]
    with pytest.raises(cerewrite.UsageError, match="the menu has no row '3x'"):
        cerewrite.convert(model, x, gain="he", estimator="analytic", pick="3x")


@pytest.mark.thorough
@pytest.mark.xdist_group("clock")
def test_a_latency_budget_on_a_real_clock() -> None:
    result = cerewrite.convert(
        wide(),
        torch.randn(2, 16),
        gain="he",
        budget=["params", "latency=30x"],
        latency_batch=8,
        estimator="analytic",
        widths="free",
    )
    forecast = result.report.forecast
    assert forecast is not None
    assert forecast.measured.batch == 8 and forecast.measured.original > 0
    assert forecast.forecast <= 30.0
    assert result.plan.planned.nu < result.plan.baseline.nu


def test_scopes_that_were_all_tried_are_not_advised() -> None:
    plan = builders.plan(split=False)
    tried = (ir.ScopeOutcome("block", 0, 1, 1, 1.0, 1.0, 1.0, chosen=True),)
    assert "--scope" in nothing_gained(plan).advice
    assert "--scope" not in nothing_gained(dataclasses.replace(plan, scopes=tried)).advice
