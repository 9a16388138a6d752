"""What a failed check comes to: a fault of the rewrite, or a forward that insists on its widths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cerewrite import ir
from cerewrite.errors import (
    EndedError,
    RewriteError,
    VerificationError,
    first_line,
    own_line,
)

if TYPE_CHECKING:
    from torch import nn


def refuse_failed(
    verification: ir.Verification, rewritten: nn.Module, made: ir.Plan, inputs: ir.Inputs
) -> None:
    """Refuse a rewritten model that fails a check.

    Raises:
        RewriteError: if the rewritten model's own code raises on the inputs.
        VerificationError: if a check fails otherwise.
    """
    if not verification.failures:
        return
    _refuse_widths(rewritten, made, inputs)
    failed = "; ".join(f"{check.name}: {check.detail}" for check in verification.failures)
    raise VerificationError(
        f"the rewritten {made.model} fails its checks: {failed}",
        advice="exclude the layers that are named (--exclude), or take another scope",
    )


def _refuse_widths(rewritten: nn.Module, made: ir.Plan, inputs: ir.Inputs) -> None:
    """Refuse a model whose own forward insists on the widths that it was built with."""
    from cerewrite.runtime.alone import short_of_memory
    from cerewrite.verifier.running import call, fresh_copy

    try:
        call(fresh_copy(rewritten, training=False), inputs)
    except EndedError:
        raise
    except Exception as error:  # whatever a user's forward raises is the reason
        if short_of_memory(error):
            raise
        where = own_line(error)
        if not where:  # no fault of the user's own code: what failed are the checks
            return
        names = ", ".join(f"'{split.region}'" for split in made.splits)
        raise RewriteError(
            f"{made.model} refuses other widths in a forward of its own: {first_line(error)}"
            f"{where}",
            advice="compare with the tensor's own shape there instead of a number, or exclude what "
            f"writes that width (--exclude; split were the regions {names})",
        ) from error
