"""Run every check and keep every result."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from cerewrite.ir import Check, Plan, Verification
from cerewrite.ir.inputs import Inputs
from cerewrite.runtime.alone import short_of_memory
from cerewrite.verifier.budget import check_budget
from cerewrite.verifier.gradients import check_gradients
from cerewrite.verifier.member_outputs import check_members
from cerewrite.verifier.membership import check_membership
from cerewrite.verifier.running import as_sentence
from cerewrite.verifier.signal import check_signal
from cerewrite.verifier.signature import check_signature

CheckFunction = Callable[[nn.Module, nn.Module, Plan, Inputs], list[Check]]

CHECKS: Mapping[str, CheckFunction] = {
    "signature": check_signature,
    "budget": check_budget,
    "membership": check_membership,
    "members": check_members,
    "gradients": check_gradients,
    "signal": check_signal,
}


def verify(
    original: nn.Module,
    rewritten: nn.Module,
    plan: Plan,
    example_inputs: Inputs,
) -> Verification:
    """Check a rewritten model against its original and its plan.

    All checks run on copies, and all results are kept; a check that cannot run is a failed one
    that says why. Neither model, nor the inputs, nor the random state is changed.

    Args:
        original: the model before.
        rewritten: the model after.
        plan: the plan that was applied.
        example_inputs: positional arguments as a tuple, or keyword arguments as a mapping, on
            the models' device.

    Raises:
        ShortOfMemoryError: if the memory does not suffice: nothing is said about the model then.
    """
    checks: list[Check] = []
    for name, check in CHECKS.items():
        try:
            checks += check(original, rewritten, plan, example_inputs)
        except Exception as error:
            if short_of_memory(error):
                raise
            checks.append(Check(name, False, f"could not be checked: {as_sentence(error)}"))
    return Verification(tuple(checks))
