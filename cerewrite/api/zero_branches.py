"""Branches that start at zero have no correction: the architecture is planned at gain he."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cerewrite import ir
from cerewrite.api.menu import choose
from cerewrite.api.options import PlanOptions
from cerewrite.errors import UncorrectedError
from cerewrite.runtime.clock import Clock


def planned(
    analysis: ir.Analysis,
    again: Callable[[], ir.Analysis] | None,
    pick: str | None,
    options: PlanOptions,
    clock: Clock,
) -> tuple[ir.Analysis, ir.Plan, PlanOptions]:
    """A plan, the analysis that it is of, and the options to plan anew with.

    Args:
        analysis: at the gain that was asked for.
        again: analyses at gain he; None where a gain was asked for.
        pick: the row of the menu.
        options: those of the plan.
        clock: times it.

    Raises:
        UncorrectedError: if no region is left to split since their widths have no correction, and
            a gain was asked for, or gain he gives them none either.
    """
    try:
        with clock("plan"):
            return analysis, *choose(analysis, pick, options)
    except UncorrectedError as error:
        if again is None:
            raise
        reason = error.message
    analysis = again()
    with clock("plan"):
        plan, replan = choose(analysis, pick, options)
    note = f"analysed at gain he, layer scales at 1: {reason}"
    return analysis, replace(plan, note=note[:500]), replan
