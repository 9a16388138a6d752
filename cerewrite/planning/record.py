"""What a choice of designs is, as a plan records it: splits, figures, what was left alone."""

from __future__ import annotations

from collections.abc import Sequence

from cerewrite.ir import (
    Analysis,
    Design,
    Figures,
    Region,
    Rejection,
    Split,
)
from cerewrite.planning.budgets import (
    joint_costs,
)
from cerewrite.planning.choose import Choice, Objective
from cerewrite.planning.measures import (
    changed_measures,
    model_measures,
    region_measures,
)
from cerewrite.planning.problem import Problem


def planned_figures(analysis: Analysis, splits: Sequence[Split]) -> Figures:
    """Costs and measures of the whole model once the splits are made; exact counts."""
    params, flops = analysis.params, analysis.flops
    regions = split_regions(analysis, splits)
    named = {split.region: split for split in splits}
    chosen = [named[region.name] for region in regions]
    params += _change("params", regions, [split.design for split in chosen])
    flops += _change("flops", regions, [split.design for split in chosen])
    before = (region_measures(region, region.design) for region in regions)
    after = (split.measures for split in chosen)
    changes = zip(after, before, strict=True)
    return Figures(params, flops, changed_measures(model_measures(analysis), changes))


def _change(cost: str, regions: Sequence[Region], designs: Sequence[Design]) -> int:
    return sum(after - before for before, after in joint_costs(cost, regions, designs))


def split_regions(analysis: Analysis, splits: Sequence[Split]) -> tuple[Region, ...]:
    """The regions that splits change, in execution order."""
    names = {split.region for split in splits}
    return tuple(item.region for item in analysis.regions if item.name in names)


def record_choice(
    problems: Sequence[Problem], choice: Choice, objective: Objective
) -> tuple[tuple[Split, ...], tuple[Rejection, ...]]:
    """Splits for the regions that change, a reason for those that do not."""
    splits, kept = [], []
    regions = [problem.region for problem in problems]
    costs = [joint_costs(cost, regions, choice.designs) for cost in ("params", "flops")]
    for problem, design, (_, params), (_, flops) in zip(
        problems, choice.designs, *costs, strict=True
    ):
        region = problem.region
        if design == region.design:
            title = problem.measure.title
            if problem.held is not None:
                kept.append(
                    Rejection(
                        region.name,
                        "held",
                        "its design is held as it is",
                        "drop --fix or --keep-groups to have it planned",
                    )
                )
                continue
            goal = f"a smaller {title}" if objective == "primal" else "a smaller cost"
            kept.append(
                Rejection(
                    region.name,
                    "best-as-it-is",
                    f"no design gives {goal} within the limits",
                    "nothing to do; another budget or scope may change it",
                )
            )
            continue
        measured = region_measures(region, design)
        splits.append(Split(region.name, design, params, flops, measured))
    return tuple(splits), tuple(kept)
