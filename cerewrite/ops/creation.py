"""Values that the forward makes of no input, and values cut off from their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from typing_extensions import override

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments, gaussian_value, scalar
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import function_case
from cerewrite.ops.layout import bound

_FIXED = {"zeros": 0.0, "new_zeros": 0.0, "zeros_like": 0.0,
          "ones": 1.0, "new_ones": 1.0, "ones_like": 1.0}  # fmt: skip


@register
class CreationOp(OpRule):
    """Zeros, ones, a constant, a range of numbers: their mean square, and no kernel.

    Where the shape is taken from a value, that value's width is kept.
    """

    name = "made"
    targets = frozenset({*_FIXED, "full", "new_full", "arange"})
    keeps = Saved()
    cases = (function_case(lambda x: x + torch.zeros_like(x), (2, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        for value in inputs:
            bound(op, value, widths, "makes a value of its size")
        return None

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return gaussian_value(scalar(_mean_square(op)), scalar(0.0), constant=True)


def _mean_square(op: Op) -> float:
    """Of the elements, from the arguments.

    Raises:
        NoClosedFormError: if an argument is computed from a value.
    """
    if op.target in _FIXED:
        return _FIXED[op.target] ** 2
    if op.target == "arange":
        numbers = [a for a in op.args if isinstance(a, int | float)]
        if numbers and len(numbers) == len(op.args):
            return float(torch.arange(*numbers, dtype=torch.float64).square().mean())
    elif op.args and isinstance(op.args[-1], int | float):
        return float(op.args[-1]) ** 2
    raise NoClosedFormError(
        f"no closed form for '{op.target}' in '{op.module or op.name}': its numbers are computed",
        advice=NoClosedFormError.ADVICE,
    )


@register
class Detach(OpRule):
    """The value without its gradient: the mean square passes, the tangent kernel does not.

    What follows sees a Gaussian of that mean square.
    """

    name = "detach"
    targets = frozenset({"detach"})
    keeps = Saved(shares=True)
    cases = (function_case(lambda x: x + x.detach(), (2, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        return inputs[0].channels

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        square = context.read(inputs[0]).square
        return gaussian_value(square, scalar(0.0), constant=inputs[0].constant)
