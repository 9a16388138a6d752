"""The planner's verb: an analysis and a request in, a `Plan` of pure numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from cerewrite.budgets import Design, joint_costs, parse_budgets, share_layers
from cerewrite.errors import PlanError, UsageError
from cerewrite.initialisers import INITIALISERS, Custom, custom_name
from cerewrite.ir import (
    EXIT_SCALES,
    WEIGHT_SOURCES,
    Analysis,
    Figures,
    Plan,
    Region,
    Rejection,
    Split,
)
from cerewrite.measures import MEASURES, baseline_nu, compose, region_nu, remaining_kappas
from cerewrite.planner.choose import Choice, Objective, choose_designs
from cerewrite.planner.limits import check_limits, find_room
from cerewrite.planner.problem import Constraints, Problem, build_problem
from cerewrite.planner.rules import select_regions
from cerewrite.planner.search import COARSE
from cerewrite.planner.shared import choose_shared, least_together
from cerewrite.planner.uniform import choose_uniform


def make_plan(
    analysis: Analysis,
    *,
    budget: str | Sequence[str] = "params",
    objective: Objective = "primal",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    min_width: int = 1,
    max_multiplicity: int | None = None,
    channel_multiple: int = 1,
    uniform: bool = False,
    seed: int = 0,
    init: str | Custom = "gain",
    exit_scale: str = "folded",
    weights: str = "reinitialise",
) -> Plan:
    """Choose members and widths for every region at once (THEORY 2 and 8).

    Args:
        analysis: the model's regions and corrections.
        budget: upper limits: ``params``, ``params=0.5x``, ``flops=1.2G``, several with commas or
            as a sequence; all must hold.
        objective: ``primal`` for the least nu within the budgets; ``dual`` for the least of the
            first budget's cost with nu at most the original's (the budgets stay limits).
        include: rules of which a region must match one (see `select_regions`).
        exclude: rules of which a region must match none.
        min_width: least width of a member in channels.
        max_multiplicity: most members of a region.
        channel_multiple: every member's width is a multiple of it.
        uniform: one multiplicity and one scale for all regions.
        seed: recorded for the new members' initialisation; the search itself is deterministic.
        init: how the new members' weights are drawn: a registered initialiser, or a function
            that fills a weight in place; a function's name alone is recorded.
        exit_scale: ``folded`` (the exits' weights carry ``1 / sqrt(m)``) or ``explicit`` (a
            multiplier of the exits does).
        weights: ``reinitialise`` or ``transfer`` (a warm start from the model's own weights).

    Returns:
        The plan; regions that are best as they are have no split and a rejection that says so.

    Raises:
        UsageError: if a budget, a rule or a constraint cannot be read or contradicts another.
        InfeasibleBudgetError: if no design meets the budgets; with the range that designs reach.
        PlanError: if the model has no region, or the constraints leave none.

    References:
        Littwin et al., Collegial Ensembles (arXiv 2006.07678), section 4.
    """
    if objective not in ("primal", "dual"):
        raise UsageError(f"unknown objective '{objective}'", advice="choose primal or dual")
    drawn = _check_drawing(init, exit_scale, weights)
    constraints = Constraints(min_width, max_multiplicity, channel_multiple)
    budgets = parse_budgets(budget, analysis)
    _require_regions(analysis)
    regions, filtered = select_regions(analysis, include, exclude)
    names = [item.cost for item in budgets]
    built = [build_problem(region, names, MEASURES["nu"], constraints) for region in regions]
    problems = [item for item in built if isinstance(item, Problem)]
    refused = [item for item in built if isinstance(item, Rejection)]
    _require_problems(problems, (*filtered, *refused))
    room = find_room(analysis, budgets, problems)
    shared = share_layers([problem.region for problem in problems])
    if shared:
        room = replace(room, together=least_together(problems, room))
    check_limits(room)
    if shared:
        rounds = choose_uniform if uniform else partial(choose_designs, detail=COARSE)
        choice = choose_shared(problems, room, objective, rounds)
    else:
        choice = (choose_uniform if uniform else choose_designs)(problems, room, objective)
    splits, kept = _record(problems, choice, objective)
    return Plan(
        model=analysis.model,
        fingerprint=analysis.fingerprint,
        objective=objective,
        budgets=budgets,
        scope=analysis.scope,
        splits=splits,
        baseline=Figures(analysis.params, analysis.flops, baseline_nu(analysis)),
        planned=planned_figures(analysis, splits),
        feasible=room.feasible,
        considered=choice.considered,
        gap=choice.gap,
        regions=_split_regions(analysis, splits),
        rejections=(*analysis.rejections, *filtered, *refused, *kept),
        seed=seed,
        init=drawn,
        exit_scale=exit_scale,
        weights=weights,
    )


def planned_figures(analysis: Analysis, splits: Sequence[Split]) -> Figures:
    """Costs and nu of the whole model once the splits are made; exact counts."""
    params, flops = analysis.params, analysis.flops
    after = {split.region: split for split in splits}
    nus = []
    for estimate in analysis.regions:
        region, split = estimate.region, after.get(estimate.name)
        if split is None:
            nus.append(region_nu(region.sites, region.multiplicity, region.widths))
        else:
            nus.append(split.nu)
    regions = _split_regions(analysis, splits)
    designs = [(split.multiplicity, split.widths) for split in splits]
    params += _change("params", regions, designs)
    flops += _change("flops", regions, designs)
    return Figures(params, flops, compose([*nus, *remaining_kappas(analysis)]))


def _change(cost: str, regions: Sequence[Region], designs: Sequence[Design]) -> int:
    return sum(after - before for before, after in joint_costs(cost, regions, designs))


def _split_regions(analysis: Analysis, splits: Sequence[Split]) -> tuple[Region, ...]:
    names = {split.region for split in splits}
    return tuple(item.region for item in analysis.regions if item.name in names)


def _record(
    problems: Sequence[Problem], choice: Choice, objective: Objective
) -> tuple[tuple[Split, ...], tuple[Rejection, ...]]:
    """Splits for the regions that change, a reason for those that do not."""
    splits, kept = [], []
    regions = [problem.region for problem in problems]
    costs = [joint_costs(cost, regions, choice.designs) for cost in ("params", "flops")]
    for problem, (members, widths), (_, params), (_, flops) in zip(
        problems, choice.designs, *costs, strict=True
    ):
        region = problem.region
        if (members, widths) == (region.multiplicity, region.widths):
            goal = "a smaller nu" if objective == "primal" else "a smaller cost"
            kept.append(
                Rejection(
                    region.name,
                    "best-as-it-is",
                    f"no design gives {goal} within the limits",
                    "nothing to do; another budget or scope may change it",
                )
            )
            continue
        nu = region_nu(region.sites, members, widths)
        splits.append(Split(region.name, members, widths, params, flops, nu))
    return tuple(splits), tuple(kept)


def _check_drawing(init: str | Custom, exit_scale: str, weights: str) -> str:
    """What a plan records of an initialiser; refuses unknown choices."""
    for what, value, choices in (
        ("exit scale", exit_scale, EXIT_SCALES),
        ("source of weights", weights, WEIGHT_SOURCES),
    ):
        if value not in choices:
            listed = ", ".join(choices)
            raise UsageError(f"unknown {what} '{value}'", advice=f"choose from: {listed}")
    return INITIALISERS[init].name if isinstance(init, str) else custom_name(init)


def _require_regions(analysis: Analysis) -> None:
    if not analysis.regions:
        codes = Counter(item.code for item in analysis.rejections)
        reasons = ", ".join(f"{code} ({count})" for code, count in codes.most_common())
        raise PlanError(
            f"{analysis.model} has no region that can be split at scope '{analysis.scope}': "
            + (reasons or "no runs of wide layers were found"),
            advice="try another scope, or `cerewrite explain LAYER` for one layer's reason",
        )


def _require_problems(problems: Sequence[Problem], refused: Sequence[Rejection]) -> None:
    if problems:
        return
    first = refused[0]
    raise PlanError(
        f"no region is left to split: {first.where}: {first.reason}"
        + (f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""),
        advice=first.advice,
    )
