"""The planner's verb: an analysis and a request in, a `Plan` of pure numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from cerewrite.errors import InfeasibleBudgetError, PlanError, UncorrectedError, UsageError
from cerewrite.initialisers import INITIALISERS, Custom, custom_name
from cerewrite.ir import (
    EXIT_SCALES,
    LARGEST_SEED,
    WEIGHT_SOURCES,
    Analysis,
    Figures,
    Plan,
    Rejection,
)
from cerewrite.planning.budgets import (
    BUDGETS,
    Allowed,
    BudgetLike,
    resolve_budgets,
    share_layers,
)
from cerewrite.planning.choose import Choice, Objective, choose_designs
from cerewrite.planning.fixing import DesignLike, held_designs
from cerewrite.planning.limits import BudgetBounds, check_limits, find_room
from cerewrite.planning.measures import (
    DEFAULT,
    MEASURES,
    model_measures,
)
from cerewrite.planning.members import check_mean, designed, held_costs, parse_members
from cerewrite.planning.problem import Constraints, Problem, build_problem
from cerewrite.planning.record import planned_figures, record_choice, split_regions
from cerewrite.planning.rules import select_regions
from cerewrite.planning.search import COARSE
from cerewrite.planning.shared import choose_shared, least_together
from cerewrite.planning.uniform import choose_uniform
from cerewrite.registry import require_whole

MIN_GAIN = 0.02
"""A split that makes its region's measure smaller by less is not made."""


def make_plan(
    analysis: Analysis,
    *,
    budget: BudgetLike = "params",
    allow: Allowed = (),
    objective: Objective = "primal",
    measure: str = DEFAULT,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    min_width: int | None = None,
    max_multiplicity: int | None = None,
    channel_multiple: int = 1,
    widths: str = "proportional",
    min_gain: float = MIN_GAIN,
    uniform: bool = False,
    fixed: Mapping[str, DesignLike] = MappingProxyType({}),
    keep_groups: bool = False,
    seed: int = 0,
    init: str | Custom = "gain",
    exit_scale: str | None = None,
    weights: str = "reinitialise",
    members: int | str | None = None,
) -> Plan:
    """Choose members and widths for every region at once (docs/theory.md, sections 2 and 8).

    Nothing may cost more: what no budget names is held at the original's cost, namely parameters,
    FLOPs, training memory and the time of a training step, as far as the analysis has counted
    or timed them. Where nothing better is found under these terms, the plan has no splits;
    where the budgets permit the original, no plan has a larger measure than it.

    Args:
        analysis: the model's regions and corrections.
        budget: upper limits: ``params``, ``params=0.5x``, ``flops=1.2G``, several with commas or
            as a sequence, or as `BudgetRequest`; all must hold.
        allow: held costs that may rise: ``all``, ``step``, ``flops=2x``, one or several.
        objective: ``primal`` for the least measure within the budgets; ``dual`` for the least of
            the first budget's cost with the measure at most the original's (the budgets stay
            limits).
        measure: registered measure: ``log-variance``, ``sign-variance``, ``nu`` or
            ``leading-order`` (docs/theory.md, section 29).
        include: rules of which a region must match one (see `select_regions`).
        exclude: rules of which a region must match none.
        min_width: least width of a member in channels; None for 4 (for less where the original
            has less): what is narrower is forecast far too well (docs/GRID.md).
        max_multiplicity: most members of a region.
        channel_multiple: every member's width is a multiple of it.
        widths: ``proportional``, all widths of a member one scale of the original's, rounded to
            allowed ones; or ``free``, every class on its own, which extrapolates the measures.
        min_gain: least share, in [0, 1), by which a split makes its region's measure smaller where
            the budgets permit the original (of the whole model's with ``uniform``).
        uniform: one multiplicity and one scale for all regions.
        fixed: designs by hand, by region: ``"4x16"``, ``"8x12,24"``, ``(8, (12, 24))`` or a
            `Design`; one width stands for all classes. The other regions are planned around them.
        keep_groups: leave regions that already have several members as they are.
        seed: recorded for the new members' initialisation; the search itself is deterministic.
        init: how the new members' weights are drawn: a registered initialiser, or a function
            that fills a weight in place; a function's name alone is recorded.
        exit_scale: ``folded`` (the exits' weights carry ``1 / sqrt(m)``), ``explicit`` (a
            multiplier of the exits does), or ``mean`` (a multiplier ``1 / m``, for one region at
            scope ``network``); None for ``mean`` with ``members``, else ``folded``.
        weights: ``reinitialise`` or ``transfer`` (a warm start from the model's own weights).
        members: so many members that can be asked one by one (`cerewrite.members`), or ``auto``
            for 4: one region from input to output, widths in the original's proportions, as wide
            as the budgets allow; only parameters and FLOPs are held.

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
    require_whole("seed", seed, 0, LARGEST_SEED)
    exit_scale = exit_scale or ("folded" if members is None else "mean")
    drawn = _check_drawing(init, exit_scale, weights)
    constraints = Constraints(min_width, max_multiplicity, channel_multiple, widths)
    budgets = resolve_budgets(budget, analysis, allow, held_costs(members))
    _require_regions(analysis)
    regions, filtered = select_regions(analysis, include, exclude)
    if members is not None:
        asked = parse_members(members)
        if fixed or keep_groups or uniform or objective != "primal":
            raise UsageError(
                "members are asked for, and --fix, --keep-groups, --uniform or the dual as well",
                advice="drop the others: the number of members says the design",
            )
        fixed = designed(analysis, regions, asked, budgets, constraints)
    names = [item.cost for item in budgets]
    awake = analysis.gain == "nonzero"
    built = [build_problem(r, names, minimised, constraints, awake=awake) for r in regions]
    problems = [item for item in built if isinstance(item, Problem)]
    refused = [item for item in built if isinstance(item, Rejection)]
    held = held_designs([item.region for item in problems], fixed, keep_groups=keep_groups)
    problems = [replace(item, held=held.get(item.region.name)) for item in problems]
    _require_problems(problems, (*filtered, *refused))
    room = find_room(analysis, budgets, problems)
    shared = share_layers([problem.region for problem in problems])
    if shared:
        room = replace(room, together=least_together(problems, room))
    if held and (shared or uniform):
        raise UsageError(
            "designs cannot be held where regions share layers or one scale",
            advice="drop --fix and --keep-groups, or --uniform and the wider scope",
        )
    problems = _with_ceilings(problems, room, objective, min_gain)
    choice = _choose(problems, room, objective, shared=bool(shared), uniform=uniform)
    splits, kept = record_choice(problems, choice, objective)
    check_mean(exit_scale, analysis.scope, len(splits))
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
        regions=split_regions(analysis, splits),
        rejections=(*analysis.rejections, *filtered, *refused, *kept),
        seed=seed,
        init=drawn,
        exit_scale=exit_scale,
        weights=weights,
        inputs=analysis.inputs,
        untied=analysis.untied,
        originals=tuple(
            (cost, BUDGETS[cost].baseline(analysis))
            for cost in ("memory", "step")
            if BUDGETS[cost].known(analysis)
        ),
        member_widths=widths,
        estimator=analysis.estimator,
        parametrization=analysis.parametrization,
        gain=analysis.gain,
        draws=max(analysis.nu.samples, analysis.leading_order.samples),
    )


def _with_ceilings(
    problems: Sequence[Problem], room: BudgetBounds, objective: Objective, min_gain: float
) -> list[Problem]:
    """The problems, each with the largest measure that a split of it may have.

    Where the budgets forbid the original, or costs are made small, a region may lose for others.

    Raises:
        UsageError: if the share is not in [0, 1).
    """
    if not 0.0 <= min_gain < 1.0:
        raise UsageError(f"min_gain is {min_gain!r}", advice="give a share from 0 to below 1")
    if objective == "dual" or not min_gain or not room.original_fits:
        return list(problems)
    return [
        replace(problem, ceiling=(1.0 - min_gain) * problem.original()[1]) for problem in problems
    ]


def _choose(
    problems: Sequence[Problem],
    room: BudgetBounds,
    objective: Objective,
    *,
    shared: bool,
    uniform: bool,
) -> Choice:
    """A design for every region: alone, in one scale, or around shared layers.

    The original, where the limits permit it, is what remains if the search finds nothing below
    its targets, or nothing better.
    """
    unchanged = Choice(tuple(problem.region.design for problem in problems), 0.0, 1)
    free = not any(problem.held for problem in problems)
    try:
        check_limits(room)
        if shared:
            rounds = choose_uniform if uniform else partial(choose_designs, detail=COARSE)
            choice = choose_shared(problems, room, objective, rounds)
        else:
            choice = (choose_uniform if uniform else choose_designs)(problems, room, objective)
    except InfeasibleBudgetError:
        if free and room.original_fits:
            return unchanged
        raise
    if objective == "primal" and free and room.original_fits:
        pairs = zip(problems, choice.designs, strict=True)
        score = sum(problem.figures(design)[1] for problem, design in pairs)
        most = sum(min(problem.original()[1], problem.ceiling) for problem in problems)
        least = sum(problem.original()[1] for problem in problems)
        if score > (most if uniform else least):
            return replace(unchanged, considered=choice.considered)
    return choice


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
        advice="`cerewrite explain LAYER` gives one layer's reason"
        + ("" if scope == "network" else "; or try a wider scope: --scope auto"),
    )


def _require_problems(problems: Sequence[Problem], refused: Sequence[Rejection]) -> None:
    if problems:
        return
    first = refused[0]
    kind = UncorrectedError if first.code == "no-correction" else PlanError
    raise kind(
        f"no region is left to split: {first.where}: {first.reason}"
        + (f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""),
        advice=first.advice,
    )
