"""Values that a mask replaces in part: logits of attention, padded positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from typing_extensions import override

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.arithmetic import join
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import function_case


def _masked(x: torch.Tensor) -> torch.Tensor:
    return x.masked_fill(torch.tensor([True, False, False, False]), 0.5)


def _chosen(x: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.tensor([True, False, True, True]), x, torch.tensor(0.5))


@register
class Mask(OpRule):
    """``masked_fill`` and ``where``: a value where the mask leaves it; its moments pass.

    Where a mask replaces values by a constant the closed form takes those that are left; it has
    none for a mask between two values.
    """

    name = "mask"
    targets = frozenset({"masked_fill", "where"})
    keeps = Saved()
    cases = (function_case(_masked, (2, 4)), function_case(_chosen, (2, 4)))

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        mask, values = (inputs[0], inputs[1:]) if op.target == "where" else (inputs[1], inputs[:1])
        found = values[0].channels if values else None
        if len(values) > 1:
            found = join(op, values[:2], widths, "mask")
        return join(op, [Value(op, found), mask], widths, "mask")

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        values = inputs[1:] if op.target == "where" else inputs[:1]
        reached = [x for x in values if not x.constant]
        if len(reached) > 1:
            raise NoClosedFormError(
                f"no closed form for a mask between two values in '{op.module or op.name}'",
                advice=NoClosedFormError.ADVICE,
            )
        return (*reached, *inputs)[0]
