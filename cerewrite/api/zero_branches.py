"""Branches and read-outs that start at zero: the architecture is planned with them awake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cerewrite import ir
from cerewrite.api.menu import choose
from cerewrite.api.options import PlanOptions
from cerewrite.errors import UncorrectedError, ZeroKernelError
from cerewrite.runtime.clock import Clock


def planned(
    analyzed: Callable[[], ir.Analysis],
    again: Callable[[], ir.Analysis] | None,
    pick: str | None,
    options: PlanOptions,
    clock: Clock,
) -> tuple[ir.Analysis, ir.Plan, PlanOptions]:
    """An analysis, a plan of it, and the options to plan anew with.

    Args:
        analyzed: analyses at the gain that was asked for.
        again: analyses at gain ``nonzero``; None where a gain was asked for.
        pick: the row of the menu.
        options: those of the plan.
        clock: times it.

    Raises:
        ZeroKernelError: if no gradient reaches anything, and a gain was asked for, or nothing
            starts at zero.
        UncorrectedError: if no region is left to split since their widths have no correction, and
            a gain was asked for, or gain ``nonzero`` gives them none either.
    """
    try:
        analysis = analyzed()
        with clock("plan"):
            return analysis, *choose(analysis, pick, options)
    except (UncorrectedError, ZeroKernelError) as error:
        if again is None:
            raise
        reason = error.message
    analysis = again()
    with clock("plan"):
        plan, replan = choose(analysis, pick, options)
    return analysis, replace(plan, note=f"analysed at gain nonzero: {reason}"[:500]), replan
