"""Sorting: the same values in another order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.ops.base import Channels, Value, WidthBuilder, register
from cerewrite.ops.cases import function_case
from cerewrite.ops.layout import Passing, bound


@register
class Sort(Passing):
    """Values in order: moments over all of them pass, as it is the same values."""

    name = "sort"
    targets = frozenset({"sort", "msort"})
    cases = (function_case(torch.msort, (3, 6)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        bound(op, inputs[0], widths, "puts values in an order of their own")
        return None
