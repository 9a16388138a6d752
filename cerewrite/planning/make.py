"""The planner's verb: an analysis and a request in, a `Plan` of pure numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from cerewrite.errors import PlanError, UsageError
from cerewrite.initialisers import INITIALISERS, Custom, custom_name
from cerewrite.ir import (
    EXIT_SCALES,
    WEIGHT_SOURCES,
    Analysis,
    Design,
    Figures,
    Plan,
    Region,
    Rejection,
    Split,
)
from cerewrite.planning.budgets import (
    BudgetLike,
    joint_costs,
    resolve_budgets,
    share_layers,
)
from cerewrite.planning.choose import Choice, Objective, choose_designs
from cerewrite.planning.fixing import DesignLike, held_designs
from cerewrite.planning.limits import BudgetBounds, check_limits, find_room
from cerewrite.planning.measures import DEFAULT, MEASURES, model_measures, region_measures
from cerewrite.planning.problem import Constraints, Problem, build_problem
from cerewrite.planning.rules import select_regions
from cerewrite.planning.search import COARSE
from cerewrite.planning.shared import choose_shared, least_together
from cerewrite.planning.uniform import choose_uniform


def make_plan(
    analysis: Analysis,
    *,
    budget: BudgetLike = "params",
    objective: Objective = "primal",
    measure: str = DEFAULT,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    min_width: int | None = None,
    max_multiplicity: int | None = None,
    channel_multiple: int = 1,
    uniform: bool = False,
    fixed: Mapping[str, DesignLike] = MappingProxyType({}),
    keep_groups: bool = False,
    seed: int = 0,
    init: str | Custom = "gain",
    exit_scale: str = "folded",
    weights: str = "reinitialise",
) -> Plan:
    """Choose members and widths for every region at once (THEORY 2 and 8).

    Args:
        analysis: the model's regions and corrections.
        budget: upper limits: ``params``, ``params=0.5x``, ``flops=1.2G``, several with commas or
            as a sequence, or as `BudgetRequest`; all must hold.
        objective: ``primal`` for the least measure within the budgets; ``dual`` for the least of
            the first budget's cost with the measure at most the original's (the budgets stay
            limits).
        measure: registered measure: ``log-variance``, ``sign-variance``, ... (THEORY 11).
        include: rules of which a region must match one (see `select_regions`).
        exclude: rules of which a region must match none.
        min_width: least width of a member in channels; None for 4 (for less where the original
            has less): what is narrower is forecast far too well (docs/GRID.md).
        max_multiplicity: most members of a region.
        channel_multiple: every member's width is a multiple of it.
        uniform: one multiplicity and one scale for all regions.
        fixed: designs by hand, by region: ``"4x16"``, ``"8x12,24"``, ``(8, (12, 24))`` or a
            `Design`; one width stands for all classes. The other regions are planned around them.
        keep_groups: leave regions that already have several members as they are.
        seed: recorded for the new members' initialisation; the search itself is deterministic.
        init: how the new members' weights are drawn: a registered initialiser, or a function
            that fills a weight in place; a function's name alone is recorded.
        exit_scale: ``folded`` (the exits' weights carry ``1 / sqrt(m)``) or ``explicit`` (a
            multiplier of the exits does).
        weights: ``reinitialise`` or ``transfer`` (a warm start from the model's own weights).

    Returns:
        The plan; regions that are best as they are have no split and a rejection that says so.

    Raises:
        UsageError: if a budget, a measure, a rule or a constraint cannot be read or contradicts
            another.
        InfeasibleBudgetError: if no design meets the budgets; with the range that designs reach.
        PlanError: if the model has no region, or the constraints leave none.

    References:
        Littwin et al., Collegial Ensembles (arXiv 2006.07678), section 4.
    """
    if objective not in ("primal", "dual"):
        raise UsageError(f"unknown objective '{objective}'", advice="choose primal or dual")
    minimised = MEASURES[measure]
    drawn = _check_drawing(init, exit_scale, weights)
    constraints = Constraints(min_width, max_multiplicity, channel_multiple)
    budgets = resolve_budgets(budget, analysis)
    _require_regions(analysis)
    regions, filtered = select_regions(analysis, include, exclude)
    names = [item.cost for item in budgets]
    built = [build_problem(region, names, minimised, constraints) for region in regions]
    problems = [item for item in built if isinstance(item, Problem)]
    refused = [item for item in built if isinstance(item, Rejection)]
    held = held_designs([item.region for item in problems], fixed, keep_groups=keep_groups)
    problems = [replace(item, held=held.get(item.region.name)) for item in problems]
    _require_problems(problems, (*filtered, *refused))
    room = find_room(analysis, budgets, problems)
    shared = share_layers([problem.region for problem in problems])
    if shared:
        room = replace(room, together=least_together(problems, room))
    check_limits(room)
    if held and (shared or uniform):
        raise UsageError(
            "designs cannot be held where regions share layers or one scale",
            advice="drop --fix and --keep-groups, or --uniform and the wider scope",
        )
    choice = _choose(problems, room, objective, shared=bool(shared), uniform=uniform)
    splits, kept = _record(problems, choice, objective)
    return Plan(
        model=analysis.model,
        fingerprint=analysis.fingerprint,
        objective=objective,
        measure=measure,
        budgets=budgets,
        scope=analysis.scope,
        splits=splits,
        baseline=Figures(analysis.params, analysis.flops, model_measures(analysis)),
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
        inputs=analysis.inputs,
    )


def _choose(
    problems: Sequence[Problem],
    room: BudgetBounds,
    objective: Objective,
    *,
    shared: bool,
    uniform: bool,
) -> Choice:
    """A design for every region: alone, in one scale, or around shared layers."""
    if not shared:
        return (choose_uniform if uniform else choose_designs)(problems, room, objective)
    rounds = choose_uniform if uniform else partial(choose_designs, detail=COARSE)
    return choose_shared(problems, room, objective, rounds)


def planned_figures(analysis: Analysis, splits: Sequence[Split]) -> Figures:
    """Costs and measures of the whole model once the splits are made; exact counts."""
    params, flops = analysis.params, analysis.flops
    regions = _split_regions(analysis, splits)
    designs = {split.region: split.design for split in splits}
    chosen = [designs[region.name] for region in regions]
    params += _change("params", regions, chosen)
    flops += _change("flops", regions, chosen)
    return Figures(params, flops, model_measures(analysis, designs))


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
        raise no_regions(analysis.model, analysis.scope, analysis.rejections)


def no_regions(model: str, scope: str, rejections: Sequence[Rejection]) -> PlanError:
    """The error for a model of which nothing can be split, with the codes of the refusals."""
    codes = Counter(item.code for item in rejections)
    reasons = ", ".join(f"{code} ({count})" for code, count in codes.most_common())
    return PlanError(
        f"{model} has no region that can be split at scope '{scope}': "
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
