"""The three measures of finite width, before and after, and when nu is not to be trusted."""

from __future__ import annotations

from typing import TypeVar

from cerewrite import ir
from cerewrite.planning.measures import MEASURES, region_measures, reported
from cerewrite.reporter.figures import number, plural
from cerewrite.reporter.section import SHOWN, Section

RARE = 0.5
"""A member's own nu above it is ruled by rare draws (docs/theory.md, section 11)."""

TITLES = tuple(measure.title for measure in reported())

T = TypeVar("T")

Numbers = ir.Measures[float]
"""Measures of a region or a model as they are stated, without errors."""


def values(measures: ir.Measures[T]) -> tuple[T, ...]:
    """Every measure, in the order of `TITLES`."""
    return tuple(measure.of(measures) for measure in reported())


def title(plan: ir.Plan) -> str:
    """What reports call the measure that a plan makes small."""
    return MEASURES[plan.measure].title


def figure(plan: ir.Plan, measures: Numbers) -> float:
    """The plan's own measure."""
    return MEASURES[plan.measure].of(measures)


def before_of(plan: ir.Plan, analysis: ir.Analysis | None) -> dict[str, Numbers]:
    """Each region's measures before; none for a region that carries no sites."""
    if analysis is not None:
        return {entry.name: entry.measures for entry in analysis.regions}
    return {
        region.name: region_measures(region, region.design)
        for region in plan.regions
        if region.sites
    }


def by_region(plan: ir.Plan, analysis: ir.Analysis | None, *, full: bool) -> list[Section]:
    """All measures of every region that changes, before and after."""
    before = before_of(plan, analysis)
    shown = plan.splits if full or len(plan.splits) <= SHOWN + 8 else plan.splits[:SHOWN]
    if not shown:
        return []
    rows = []
    for split in shown:
        old = before.get(split.region)
        olds = ("-",) * len(TITLES) if old is None else tuple(map(number, values(old)))
        after = map(number, values(split.measures))
        pairs = [f"{one} -> {two}" for one, two in zip(olds, after, strict=True)]
        rows.append((split.region, *pairs))
    more = len(plan.splits) - len(shown)
    return [
        Section(
            title="Measures by region, before -> after",
            columns=("region", *(f">{name}" for name in TITLES)),
            rows=tuple(rows),
            lines=(f"{plural(more, 'more split')} (-v shows them).",) if more else (),
        )
    ]


BEYOND = 1.0
"""Sum of kappas above which the closed form is an order of magnitude at best."""


def beyond_range(plan: ir.Plan) -> tuple[str, ...]:
    """A warning where corrections are too large for an expansion in them."""
    worst = max(plan.baseline.leading_order, plan.planned.leading_order)
    if not worst > BEYOND:
        return ()
    return (
        f"Out of range: corrections add up to {number(worst)}, and an expansion in them is an "
        f"order of magnitude at best above {BEYOND:g}. Measure before and after with "
        "--estimator monte-carlo before believing the gain.",
    )


def rare_draws(plan: ir.Plan) -> tuple[str, ...]:
    """A warning where one member's own nu is so large that rare draws rule it."""
    regions = {region.name: region for region in plan.regions}
    worst = max(
        ((split.nu * split.multiplicity, split.region, "after") for split in plan.splits),
        default=(0.0, "", ""),
    )
    for name, measured in before_of(plan, None).items():
        worst = max(worst, (measured.nu * regions[name].multiplicity, name, "before"))
    value, name, when = worst
    if value <= RARE:
        return ()
    return (
        f"Rare draws rule nu: one member of region {name} has a nu of {number(value)} by itself "
        f"({when}), more than {RARE}. Read Var[log K] there"
        + ("; --measure log-variance plans by it." if plan.measure == "nu" else "."),
    )
