"""Softmax attention and embeddings, under the closed form's constant-map assumption.

With the same vector at every position the attention weights are uniform, so attention returns
its values and the logits get no gradient: ``q`` and ``T`` of the output are those of the
values (docs/theory.md, section 13). Measured estimators do not use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from typing_extensions import override

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments, gaussian_value
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.branches import branch_count, branch_softmax
from cerewrite.ops.cases import Case, function_case
from cerewrite.ops.layout import bound


class _Mixing(OpRule):
    """Mixes channels or positions: every width it reads is kept."""

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        for value in inputs:
            bound(op, value, widths, "mixes channels or positions")
        return None


@register
class ScaledDotProductAttention(_Mixing):
    """Fused attention passes the values, the only operand that its moments are computed from."""

    name = "attention"
    targets = frozenset({"scaled_dot_product_attention"})
    cases = (function_case(nn.functional.scaled_dot_product_attention, *[(2, 2, 3, 4)] * 3),)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return inputs[0]


@register
class Softmax(_Mixing):
    """A softmax over positions, which as weights of attention is not looked at; over branches."""

    name = "softmax"
    targets = frozenset({"softmax", "_softmax", "safe_softmax"})
    leaves = ((nn.Softmax, "softmax"),)
    cases = (function_case(lambda x: x.softmax(-1), (2, 3, 4)),)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        dim = op.args[1] if len(op.args) > 1 else (op.kwargs or {}).get("dim")
        axis = dim % len(op.shape) if isinstance(dim, int) else -1
        count = branch_count(op.inputs[0], axis, context.find) if axis >= 0 else 0
        return branch_softmax(inputs[0], count, context) if count else inputs[0]


@register
class LogSoftmax(_Mixing):
    """A softmax's logarithm: the logits less a number that all of them share."""

    name = "log_softmax"
    targets = frozenset({"log_softmax", "_log_softmax"})
    leaves = ((nn.LogSoftmax, "log_softmax"),)
    cases = (function_case(lambda x: x.log_softmax(-1), (2, 4)),)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return inputs[0]


@register
class MatMul(_Mixing):
    """Attention weights times values: passes the values, the only operand that is handed on then.

    A product of two signals is a sum of products of units. A matrix without channels (an
    adjacency, a resampling) from the left mixes positions alone, channel by channel.
    """

    name = "matmul"
    targets = frozenset({"matmul", "bmm", "mm", "spmm", "einsum"})
    keeps = Saved(reads=True)
    cases = (function_case(torch.matmul, (2, 3, 4), (2, 4, 5)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        if op.target != "einsum" and len(inputs) == 2 and inputs[0].channels is None:
            read, rank = inputs[1].channels, len(inputs[1].op.shape)
            if read is not None and rank > 1 and read.axis == rank - 1:
                return replace(read, axis=len(op.shape) - 1)
        return super().channels(op, inputs, widths)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        if len(inputs) == 1:
            return inputs[0]
        if len(inputs) == 2 and op.target != "einsum":
            first, second = (context.read(x) for x in inputs)
            kernel = first.kernel * second.square + first.square * second.kernel
            return gaussian_value(first.square * second.square, kernel)
        raise NoClosedFormError(
            f"no closed form for '{op.target}' in '{op.module or op.name}'",
            advice=NoClosedFormError.ADVICE,
        )


@register
class Embedding(OpRule):
    """Rows of a table: mean square of the table; its own parameters under standard scaling."""

    name = "embedding"
    targets = frozenset({"embedding"})
    leaves = ((nn.Embedding, "embedding"),)
    keeps = Saved(reads=True)
    cases = (Case(lambda: nn.Embedding(5, 4), ((2, 3),), integers=5),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        return None

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return context.table(op)
