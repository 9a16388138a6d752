"""Plans that would build too much, and plans that are merely long."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import cerewrite
from benchmarks.reliability.files import good_files, network
from benchmarks.reliability.group import Counts, register
from benchmarks.reliability.sandbox import try_all
from cerewrite import ir, output, planning

LARGE = (10**6, 2**31 - 1, 2**31, 2**40, 2**63, 10**30)
LAYERS = 3000


def long_plan(layers: int = LAYERS) -> ir.Plan:
    """A plan with as many layers, two of them in a region, each region split in two members."""
    good = ir.loads(ir.Plan, good_files()[output.PLAN].decode(), source="plan")
    region, split = good.regions[0], good.splits[0]
    count = layers // len(region.layers)
    names = [f"block{index}" for index in range(count)]
    baseline = replace(good.baseline, params=good.baseline.params * count)
    return replace(
        good,
        budgets=(),
        baseline=baseline,
        regions=tuple(replace(region, name=name) for name in names),
        splits=tuple(replace(split, region=name) for name in names),
    )


@register(
    "limits",
    tries="plans of a million members and more, of widths up to 10^30, and one of 3,000 layers",
    promise="what a plan would build is counted in whole numbers before anything is built, and "
    "refused above 4 times the original's parameters (--max-params); checks take time linear in "
    "the file",
    limit="a plan within the limit is built: with --max-params the memory is yours to have",
)
def limits(count: int) -> Counts:
    """Large plans, applied; a long one, read and counted."""
    good = json.loads(good_files()[output.PLAN])
    model = network()
    cases = [("multiplicity", n) for n in LARGE] + [("widths", n) for n in LARGE] + [("long", 0)]
    text = ir.dumps(long_plan())

    def prepare(path: Path, case: tuple[str, int]) -> None:
        field, number = case
        data: dict[str, Any] = json.loads(json.dumps(good))
        split = data["splits"][0]
        split[field] = [number] * len(split["widths"]) if field == "widths" else number
        path.write_text(text if field == "long" else json.dumps(data))

    def attempt(path: Path) -> None:
        plan = output.read_record(ir.Plan, path)
        if len(plan.splits) > 10:
            planning.recount(plan)
        else:
            cerewrite.apply(plan, model)
            raise AssertionError("was built")

    return try_all(st.sampled_from(cases), prepare, attempt, min(count, len(cases)))
