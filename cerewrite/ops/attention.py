"""Softmax attention and embeddings, under the closed form's constant-map assumption.

With the same vector at every position the attention weights are uniform, so attention returns
its values and the logits get no gradient: ``q`` and ``T`` of the output are those of the
values (docs/theory.md, section 13). Measured estimators do not use it.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from cerewrite.ops.heads import batched, refuse, summed
from cerewrite.ops.layout import bound
from cerewrite.ops.tables import Tables


@register
class ScaledDotProductAttention(OpRule):
    """Fused attention passes the values, the only operand that its moments are computed from.

    Heads attend by themselves, so that members do: query, key, value and a mask with heads share
    the class that lies on the axis of the heads.
    """

    name = "attention"
    targets = frozenset({"scaled_dot_product_attention"})
    cases = (function_case(nn.functional.scaled_dot_product_attention, *[(2, 2, 3, 4)] * 3),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        grouped = bool((op.kwargs or {}).get("enable_gqa"))
        return batched(op, inputs, widths, len(op.shape), grouped=grouped)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return inputs[0]


@register
class Softmax(OpRule):
    """A softmax over positions, which as weights of attention is not looked at; over branches."""

    name = "softmax"
    targets = frozenset({"softmax", "_softmax", "safe_softmax"})
    leaves = ((nn.Softmax, "softmax"),)
    cases = (function_case(lambda x: x.softmax(-1), (2, 3, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        found = inputs[0].channels
        dim = op.args[1] if len(op.args) > 1 else (op.kwargs or {}).get("dim")
        if found is not None and (not isinstance(dim, int) or dim % len(op.shape) == found.axis):
            bound(op, inputs[0], widths, "sums over the channels")
            return None
        return found

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        dim = op.args[1] if len(op.args) > 1 else (op.kwargs or {}).get("dim")
        axis = dim % len(op.shape) if isinstance(dim, int) else -1
        count = branch_count(op.inputs[0], axis, context.find) if axis >= 0 else 0
        return branch_softmax(inputs[0], count, context) if count else inputs[0]


@register
class MatMul(OpRule):
    """Attention weights times values: passes the values, the only operand that is handed on then.

    A product of two signals is a sum of products of units. Heads, which lie before the last two
    axes, are multiplied by themselves; channels that the product does not sum over pass.
    """

    name = "matmul"
    targets = frozenset({"matmul", "bmm", "einsum"})
    keeps = Saved(reads=True)
    cases = (function_case(torch.matmul, (2, 3, 4), (2, 4, 5)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        if op.target == "einsum":
            return summed(op, inputs, widths)
        if min((len(value.op.shape) for value in inputs), default=0) < 2:
            refuse(op, inputs, widths)
            return None
        return batched(op, inputs, widths, len(op.shape))

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
        """Entries are as wide as all members: each looks up its own part."""
        if inputs[0].op.shape[-1:] != op.shape[-1:] and len(inputs) > 1:
            return None
        axis = len(op.shape) - 1
        return Channels(axis, widths.table(op, Tables(), op.shape[-1]))

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return context.table(op)
