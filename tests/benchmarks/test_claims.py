"""The page of the papers' claims is what the stored lines say; verdicts can go either way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.claims import DOCUMENT, STORE, measure
from benchmarks.claims_expected import CLAIMS, Claim
from benchmarks.claims_models import KINDS, size, variants
from benchmarks.claims_page import Table, document, judged, verdict
from benchmarks.lines import read_lines
from benchmarks.training.statistics import Interval

WIDTH = CLAIMS[0]
REASONS = {
    "no skips",
    "no gate",
    "no sum of a value and a function of it",
    "the model has no sum of a value and a function of it",
    "the model multiplies no two trained values",
}
"""Why a model can have no figure for a claim."""


def test_the_page_is_made_of_the_lines() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    assert page == document(read_lines(STORE))


def test_every_claim_and_model_has_a_figure_or_a_reason() -> None:
    lines = read_lines(STORE)
    table = Table(lines)
    assert table.models == list(KINDS)
    assert len(table.seeds) >= 5
    assert (
        len(table.rows)
        == len(lines)
        == len(table.seeds) * sum(map(len, map(variants, KINDS.values())))
    )
    for claim in CLAIMS:
        found = judged(table, claim)
        assert found
        for model in claim.only or KINDS:
            assert model in found or table.reason(claim, model) in REASONS


def planted(wide: float) -> list[dict[str, object]]:
    """Three seeds of a perceptron: the least cosine of the narrow one is about 0."""
    (figure,) = {term.figure for term in WIDTH.terms}
    return [
        {
            "model": "mlp", "variant": variant, "seed": seed, "gaps": {},
            "figures": {figure: level + 0.01 * seed * (variant == "wide")},
        }
        for seed in range(3)
        for variant, level in (("wide", wide), ("narrow", 0.0))
    ]  # fmt: skip


@pytest.mark.parametrize(("wide", "word"), [(0.3, "yes"), (-0.3, "no"), (0.0, "not decided")])
def test_a_planted_difference_is_told(wide: float, word: str) -> None:
    lines = planted(wide)
    interval, seeds, found = judged(Table(lines), WIDTH)["mlp"]
    assert (seeds, found) == (3, word)
    assert interval.value == pytest.approx(wide + 0.01)
    figure = f"{interval.value:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]"
    row = f"| mlp | {wide + 0.01:.3g}, 0 | {figure} | 3 | yes | {word} |"
    assert row in document(lines)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(-1.2, -0.8, "yes"), (-1.3, -0.8, "not decided"), (-2, -1.3, "no"), (-0.7, 0, "no")],
)
def test_a_range_holds_the_whole_interval(low: float, high: float, word: str) -> None:
    claim = replace(WIDTH, low=-1.25, high=-0.75)
    assert verdict(claim, Interval((low + high) / 2, low, high)) == word


def test_claims_name_variants_and_models_that_exist() -> None:
    def known(claim: Claim) -> bool:
        models = claim.only or tuple(KINDS)
        return all(
            any(term.variant in variants(KINDS[term.kind or model]) for model in models)
            for term in claim.terms
        )

    assert all(map(known, CLAIMS))
    assert all(set(claim.expected) | set(claim.only) <= set(KINDS) for claim in CLAIMS)


@pytest.mark.parametrize("name", KINDS)
def test_a_thin_model_has_about_the_parameters_of_the_middle_one(name: str) -> None:
    kind = KINDS[name]
    shapes = variants(kind)
    assert shapes["thin"].depth == 2 * shapes["middle"].depth
    ratio = size(kind, shapes["thin"]) / size(kind, shapes["middle"])
    assert 0.75 < ratio < 1.35


@pytest.mark.thorough
def test_a_small_study_runs_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    kinds = {"gated": replace(KINDS["gated"], widths=(4, 6, 8), depth=1)}
    store = tmp_path / "claims.jsonl"
    measure(store, kinds, 1, steps=2, draws=8)
    first = store.read_text(encoding="utf-8")
    measure(store, kinds, 2, steps=2, draws=8)
    lines = read_lines(store)
    assert store.read_text(encoding="utf-8").startswith(first)
    assert len(lines) == 2 * len(variants(kinds["gated"]))
    titles = [claim.title for claim in CLAIMS if "gated" in judged(Table(lines), claim)]
    assert len(titles) >= 22
    assert "Where the gate alone is wide they do not" in titles
    assert "| gated |" in document(lines)
