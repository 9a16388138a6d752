"""Records survive JSON; what is missing, unknown or of a wrong type is refused by name."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerewrite import ir
from cerewrite.errors import PlanError

NUMBERS = st.floats(allow_nan=False)
AMOUNTS = st.floats(0, 1e60)
FACTORS = st.floats(-1e60, 1e60)
NAMES = st.from_regex(r"[\w./ -]{0,8}", fullmatch=True)
WORDS = st.from_regex(r"[a-z-]{1,8}", fullmatch=True)

ESTIMATES = st.builds(
    ir.Estimate, NUMBERS, st.none() | NUMBERS, st.integers(0, 10**9), WORDS, NAMES
)


@st.composite
def regions(draw: st.DrawFn) -> ir.Region:
    """A region whose parts fit each other, whatever it is called."""
    classes = tuple(draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)))
    members = draw(st.integers(1, 8))
    sizes = tuple(members * draw(st.integers(1, 10**6)) for _ in classes)
    index = st.integers(0, len(classes) - 1)
    many = st.lists(index, min_size=1, max_size=2).map(tuple)
    ends = st.tuples(st.just("entry"), st.just(()), index)
    ends |= st.tuples(st.just("interior"), many, index)
    ends |= st.tuples(st.just("exit"), many, st.just(-1))
    layers = [
        ir.RegionLayer(draw(NAMES), "linear", *draw(ends), 7, 9, draw(st.integers(1, 25)), 4, True)
        for _ in range(draw(st.integers(0, 3)))
    ]
    named = st.lists(st.sampled_from(classes), max_size=2).map(tuple)
    modules = st.builds(ir.PerChannel, NAMES, WORDS, named, st.integers(0, 9))
    sites = st.builds(
        ir.Site, NAMES, index, FACTORS, FACTORS, AMOUNTS, AMOUNTS, FACTORS, AMOUNTS, AMOUNTS
    )
    few = [tuple(draw(st.lists(item, max_size=2))) for item in (modules, sites)]
    return ir.Region(draw(NAMES), "stage", classes, sizes, members, tuple(layers), *few)


MEASURES = st.builds(ir.Measures, *[AMOUNTS] * 4)
FIGURES = st.builds(ir.Figures, *[st.integers(0, 10**12)] * 2, MEASURES)
SPLITS = st.builds(
    ir.Split,
    NAMES,
    st.builds(ir.Design, st.integers(1, 99), st.lists(st.integers(1, 99), max_size=3).map(tuple)),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    MEASURES,
    st.from_regex(r"[^\x00-\x1f\x7f-\x9f\u200e-\u206f\ud800-\udfff]{0,9}\n?", fullmatch=True),
)
PLANS = st.builds(
    ir.Plan,
    model=st.sampled_from(["Net", "nets.Wide", "Übernetz"]),
    fingerprint=st.from_regex("[0-9a-f]{64}", fullmatch=True),
    objective=st.sampled_from(["primal", "dual"]),
    measure=WORDS,
    budgets=st.lists(
        st.builds(ir.Budget, WORDS, AMOUNTS, NAMES), max_size=2, unique_by=lambda b: b.cost
    ).map(tuple),
    scope=st.sampled_from(["block", "stage", "network"]),
    splits=st.lists(SPLITS, max_size=2).map(tuple),
    baseline=FIGURES,
    planned=FIGURES,
    feasible=st.lists(st.tuples(WORDS, AMOUNTS, AMOUNTS), max_size=2).map(tuple),
    considered=st.integers(0, 10**9),
    gap=NUMBERS,
    regions=st.lists(regions(), max_size=2, unique_by=lambda r: r.name).map(tuple),
    rejections=st.lists(
        st.builds(ir.Rejection, NAMES, NAMES, NAMES, NAMES), max_size=2
    ).map(tuple),
    seed=st.integers(0, 2**63 - 1),
)  # fmt: skip

ESTIMATE = ir.Estimate(0.5, None, 0, "analytic", "docs/theory.md 4")


@pytest.mark.thorough
@given(PLANS)
def test_plan_round_trip(plan: ir.Plan) -> None:
    text = ir.dumps(plan)
    assert ir.loads(ir.Plan, text, source="plan.json") == plan
    assert ir.dumps(ir.loads(ir.Plan, text, source="plan.json")) == text


@given(ESTIMATES)
def test_estimate_round_trip(estimate: ir.Estimate) -> None:
    assert ir.loads(ir.Estimate, ir.dumps(estimate), source="x") == estimate


def test_text_is_valid_json_even_for_what_is_not_finite() -> None:
    text = ir.dumps(dataclasses.replace(ESTIMATE, value=math.inf, stderr=math.nan))
    assert json.loads(text) == {**ir.encode(ESTIMATE), "value": "inf", "stderr": "nan"}
    back = ir.loads(ir.Estimate, text, source="x")
    assert back.value == math.inf
    assert back.stderr is not None
    assert math.isnan(back.stderr)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "large"}, "x.value: expected float, found \"large\""),
        ({"value": True}, "x.value: expected float, found true"),
        ({"samples": 1.5}, "x.samples: expected int"),
        ({"samples": False}, "x.samples: expected int"),
        ({"method": None}, "x.method: expected str, found null"),
        ({"stderrr": 1.0}, "x: unknown field 'stderrr'"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(change: dict[str, object], message: str) -> None:
    text = json.dumps({**ir.encode(ESTIMATE), **change})
    with pytest.raises(PlanError) as caught:
        ir.loads(ir.Estimate, text, source="x")
    assert caught.value.message.startswith(message)


def test_near_miss_is_suggested() -> None:
    text = json.dumps({**ir.encode(ESTIMATE), "stderrr": 1.0})
    with pytest.raises(PlanError) as caught:
        ir.loads(ir.Estimate, text, source="x")
    assert "did you mean 'stderr'?" in caught.value.advice


def test_missing_field_is_named() -> None:
    data = ir.encode(ESTIMATE)
    del data["method"]
    with pytest.raises(PlanError, match="x: field 'method' is missing"):
        ir.loads(ir.Estimate, json.dumps(data), source="x")


def test_missing_field_with_a_default_is_filled() -> None:
    split = ir.Split("a", ir.Design(2, (3,)), 4, 5, ir.Measures(0.1, 0.1, 0.1, 0.1))
    data = ir.encode(split)
    del data["note"]
    assert ir.loads(ir.Split, json.dumps(data), source="x") == split


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "{}"])
def test_no_record_at_all(text: str) -> None:
    with pytest.raises(PlanError):
        ir.loads(ir.Estimate, text, source="x")


def test_a_note_may_stand_anywhere() -> None:
    data = {**ir.encode(ESTIMATE), "note": "tried by hand"}
    assert ir.loads(ir.Estimate, json.dumps(data), source="x") == ESTIMATE


def test_role_is_one_of_three() -> None:
    layer = ir.RegionLayer("a", "linear", "entry", (), 0, 4, 8, 1, 1, True)
    data = {**ir.encode(layer), "role": "middle"}
    with pytest.raises(PlanError, match=r"x\.role: expected one of"):
        ir.loads(ir.RegionLayer, json.dumps(data), source="x")


def test_flat_values_stand_among_the_fields_of_their_record() -> None:
    split = ir.Split("a", ir.Design(2, (3,)), 4, 5, ir.Measures(0.1, 0.2, 0.3, 0.4), note="n")
    keys = "region multiplicity widths params flops "
    keys += "nu log_variance leading_order sign_variance note"
    assert list(ir.encode(split)) == keys.split()
    data = ir.encode(split) | {"widhts": [3]}
    with pytest.raises(PlanError, match=r"unknown field 'widhts'\n.*did you mean 'widths'"):
        ir.loads(ir.Split, json.dumps(data), source="x")
    del data["widhts"], data["log_variance"]
    with pytest.raises(PlanError, match="field 'log_variance' is missing"):
        ir.loads(ir.Split, json.dumps(data), source="x")
