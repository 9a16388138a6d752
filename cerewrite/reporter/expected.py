"""What a plan may be expected to gain in training, and what else there is to do."""

from __future__ import annotations

from cerewrite import ir
from cerewrite.planning.budgets import changed_cost
from cerewrite.planning.expected import LARGEST, PARAMS, WIDE, expected_gain, is_wide
from cerewrite.reporter.figures import number, plural


def expectation(plan: ir.Plan) -> tuple[str, ...]:
    """One or two sentences below a plan: the gain, with what is behind it, or that there is none.

    Args:
        plan: any plan; one that splits nothing is told only that the model is wide. Dual plans
            and members that can be asked aim at something else: nothing is said of them.
    """
    if plan.objective == "dual" or plan.exit_scale == "mean":
        return ()
    if is_wide(plan):
        return (
            f"No gain in training is to be expected: the original's Var[log K] of "
            f"{number(plan.baseline.measures.log_variance)} is below {WIDE:g}, its kernel hardly "
            "depends on the draw, and no network so wide was trained. --objective dual saves "
            "parameters, --members M gives members that can be asked; cerewrite race decides.",
        )
    if not plan.splits:
        return ()
    found = expected_gain(plan)
    if found is None:
        return (f"Expected gain in training: unknown, {_why(plan)}; cerewrite race measures it.",)
    ends = f"[{found.ends[0]:.2f}, {found.ends[1]:.2f}]"
    behind = (
        f"{plural(found.trainings, 'training')} of {plural(found.designs, 'design')} of "
        f"{found.baselines} small networks on small data"
    )
    step = dict(plan.originals).get("step")
    seconds = ""
    if step:
        taken = changed_cost(plan, "step", step) / step
        seconds = (
            f"; in seconds {found.ratio * taken:.2f} times, as its step is forecast to take "
            f"{taken:.2f} times as long"
        )
    return (
        f"Expected gain in training: {found.ratio:.2f} {ends} of the steps to a loss, by {behind}"
        f"{seconds}. cerewrite race measures it on your data.",
    )


def _why(plan: ir.Plan) -> str:
    old, new = plan.baseline, plan.planned
    if new.measures.log_variance > LARGEST * old.measures.log_variance:
        return "as its Var[log K] is hardly smaller"
    return (
        f"as the designs that were trained have {PARAMS[0]:g} to {PARAMS[1]:g} of the original's "
        f"parameters, this one {new.params / max(old.params, 1):.2f}"
    )
