"""Pointwise functions of one tensor, named or not: any callable the tracer could isolate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from typing_extensions import override

from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import function_case, module_case

_READING = frozenset(
    {
        "pow", "square", "abs", "log", "sin", "cos", "erf", "where", "clamp", "clamp_min", "clip",
        "gelu", "silu", "mish", "leaky_relu", "rrelu", "elu", "celu", "hardtanh", "relu6",
        "hardswish", "hardsigmoid", "softplus", "softsign", "log_sigmoid", "selu", "hardshrink",
        "softshrink", "tanhshrink",
    }
)  # fmt: skip
"""Functions whose backward needs what they read; that of any other needs what it writes."""
_IN_PLACE = frozenset({"leaky_relu", "elu", "celu", "selu", "relu"})
"""Activations that, done in place, keep the one tensor that is input and output."""


@register
class Pointwise(OpRule):
    """``y = phi(x)``, unit by unit: keeps the channel axis; moments by quadrature on phi."""

    name = "pointwise"
    targets = frozenset({"pointwise"})
    cases = (
        module_case(nn.ReLU, (2, 4)),
        module_case(nn.GELU, (2, 4)),
        module_case(nn.Sigmoid, (2, 4)),
        function_case(torch.neg, (2, 4)),
    )

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        return inputs[0].channels

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        key = (op.target, repr(op.args[1:]), repr(op.kwargs))
        return context.apply(op.function, key, inputs[0])

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        """What it reads, or what it writes, as relu and sigmoid do; in place the two are one."""
        in_place = op.target in _IN_PLACE and bool(getattr(module, "inplace", False))
        reads = op.target in _READING
        return Saved(
            shares=in_place,
            reads=reads,
            output=not reads and op.target != "neg",
            own=op.numel if op.target in ("log_sigmoid", "softsign") else 0,
        )
