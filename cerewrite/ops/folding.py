"""Patches that are laid back over one another after `im2col` (docs/theory.md, eq. 78)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional
from typing_extensions import override

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.attention import MatMul
from cerewrite.ops.base import Channels, OpRule, Value, WidthBuilder, register
from cerewrite.ops.cases import function_case
from cerewrite.ops.layout import bound
from cerewrite.ops.views import VIEWED

_MOVES = frozenset({*VIEWED, "permute", "transpose", "contiguous", "clone", "dropout", "to"})


@register
class Fold(OpRule):
    """``fold``: every position is the sum of the patches that cover it.

    Of patches that were cut out of a map before, and averaged since at most (outlook attention),
    those are one value where positions are alike: times their number. Other patches, such as
    those that a layer writes, have no closed form.
    """

    name = "fold"
    targets = frozenset({"col2im"})
    cases = (function_case(lambda x: functional.fold(x, (4, 4), (2, 2), stride=2), (1, 8, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        bound(op, inputs[0], widths, "adds up patches")
        return None

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        settings = list(op.args[1:6])
        if not _are_patches(op.inputs[0], context.find) or len(settings) != 5:
            raise NoClosedFormError(
                f"no closed form for 'fold' of values that are no patches of a map in "
                f"'{op.module or op.name}'",
                advice=NoClosedFormError.ADVICE,
            )
        size, kernel, *rest = settings
        whole = functional.unfold(torch.ones(1, 1, *size), kernel, *rest)
        counts = functional.fold(torch.ones_like(whole), size, kernel, *rest)
        return context.scale(inputs[0], float(counts.double().square().mean()))


def _are_patches(name: str, find: Callable[[str], Op]) -> bool:
    """Whether a value is patches of a map, moved about or averaged at most."""
    op = find(name)
    while op.target in _MOVES or (op.target in MatMul.targets and len(op.inputs) == 2):
        op = find(op.inputs[-1 if op.target in MatMul.targets else 0])
    return op.target == "im2col"
