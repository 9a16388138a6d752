"""Models whose own forward compares its channels with a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cerewrite import ir
from cerewrite.errors import RewriteError, first_line, own_line

if TYPE_CHECKING:
    from torch import nn


def refuse_widths(rewritten: nn.Module, made: ir.Plan, inputs: ir.Inputs) -> None:
    """Refuse a model whose own forward insists on the widths that it was built with.

    Raises:
        RewriteError: if the rewritten model's own code raises on the inputs.
    """
    from cerewrite.runtime.alone import short_of_memory
    from cerewrite.verifier.running import call, fresh_copy

    try:
        call(fresh_copy(rewritten, training=False), inputs)
    except Exception as error:  # whatever a user's forward raises is the reason
        where = own_line(error)
        if not where or short_of_memory(error):
            raise
        names = ", ".join(f"'{split.region}'" for split in made.splits)
        raise RewriteError(
            f"{made.model} refuses other widths in a forward of its own: {first_line(error)}"
            f"{where}",
            advice="compare with the tensor's own shape there instead of a number, or exclude what "
            f"writes that width (--exclude; split were the regions {names})",
        ) from error
