"""Softmax attention and embeddings in the closed form (docs/theory.md, section 33).

What attention writes has the mean square of its values, as if its weights were uniform; what its
heads scatter is that of positions that are independent of each other, where queries and keys have
a closed form. Elsewhere its values pass. Measured estimators do not use it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from typing_extensions import override

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op
from cerewrite.kernel.attended import attend
from cerewrite.kernel.growth import nominal_value
from cerewrite.kernel.heads import Head
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments, gaussian_value
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.branches import branch_count, branch_softmax
from cerewrite.ops.cases import Case, function_case
from cerewrite.ops.heads import batched, refuse, summed
from cerewrite.ops.layout import bound
from cerewrite.ops.tables import Tables
from cerewrite.ops.weighing import (
    FUSED,
    PRODUCTS,
    SOFTMAX,
    Weighing,
    is_causal,
    scale_of,
    weighing,
)


@register
class ScaledDotProductAttention(OpRule):
    """Fused attention: heads over independent positions; values alone where that is not known.

    Masks other than causal ones are not looked at. Heads attend by themselves, so that members do:
    query, key, value and a mask with heads share the class that lies on the axis of the heads.
    """

    name = "attention"
    targets = FUSED
    cases = (function_case(nn.functional.scaled_dot_product_attention, *[(2, 2, 3, 4)] * 3),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        grouped = bool((op.kwargs or {}).get("enable_gqa"))
        return batched(op, inputs, widths, len(op.shape), grouped=grouped)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return _attended(op, weighing(op, "", context.find), inputs, context)


def _attended(
    op: Op, found: Weighing | None, inputs: Sequence[Moments], context: MomentContext
) -> Moments:
    """What heads write; the values where heads have no closed form.

    Args:
        op: the operator.
        found: what it weighs by.
        inputs: values, and queries and keys where those have a closed form.
        context: the model.
    """
    values, *logits = inputs
    units = _written_units(values)
    if found is None or len(logits) < 2 or context.batched or not units:
        return values
    scale = scale_of(found, op)
    if not scale or not all(nominal_value(context.plain(x)[0]) > 0 for x in logits):
        return values
    heads = found.heads / context.batch
    if _overlap(values, logits) and units < 2 * heads * found.values:
        return values
    # heads that share a layer's units, as grouped queries do, are one
    count = min(units / found.values, heads)
    head = Head(
        found.asked,
        found.answered,
        found.size,
        found.values,
        sharing=max(round(heads / count), 1),
        causal=is_causal(found, op, context.constants.value),
        token=context.token(op.name, found.asked),
    )
    return attend(context, head, count, (logits[0], logits[1], values), scale)


def _overlap(values: Moments, logits: Sequence[Moments]) -> bool:
    """Whether queries, keys and values are written by one layer, in slices or as one."""
    found = [{t.layer for p in x.parts for t in p.unit.terms if t.layer} for x in (values, *logits)]
    return len(set().union(*found)) < sum(map(len, found))


def _written_units(values: Moments) -> float:
    """How many units a layer writes that are nothing but what it writes; 0 where they are more."""
    term = values.parts[0].unit.term if len(values.parts) == 1 else None
    return term.units if term is not None and term.layer else 0.0


def _over_positions(op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
    """Channels pass a softmax over another axis; what is summed over keeps its width."""
    found = inputs[0].channels
    dim = op.args[1] if len(op.args) > 1 else (op.kwargs or {}).get("dim")
    if found is not None and (not isinstance(dim, int) or dim % len(op.shape) == found.axis):
        bound(op, inputs[0], widths, "sums over the channels")
        return None
    return found


@register
class Softmax(OpRule):
    """A softmax over positions, which as weights of attention is not looked at; over branches."""

    name = "softmax"
    targets = SOFTMAX
    leaves = ((nn.Softmax, "softmax"),)
    cases = (function_case(lambda x: x.softmax(-1), (2, 3, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        return _over_positions(op, inputs, widths)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        dim = op.args[1] if len(op.args) > 1 else (op.kwargs or {}).get("dim")
        axis = dim % len(op.shape) if isinstance(dim, int) else -1
        count = branch_count(op.inputs[0], axis, context.find) if axis >= 0 else 0
        return branch_softmax(inputs[0], count, context) if count else inputs[0]


@register
class LogSoftmax(OpRule):
    """A softmax's logarithm: the logits less a number that all of them share."""

    name = "log_softmax"
    targets = frozenset({"log_softmax", "_log_softmax"})
    leaves = ((nn.LogSoftmax, "log_softmax"),)
    cases = (function_case(lambda x: x.log_softmax(-1), (2, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        return _over_positions(op, inputs, widths)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return inputs[0]


@register
class MatMul(OpRule):
    """Attention weights times values, as fused attention; the weights are not handed on.

    A product of two signals is a sum of products of units. Heads, which lie before the last two
    axes, are multiplied by themselves; channels that the product does not sum over pass, as those
    that an adjacency mixes the positions of do.
    """

    name = "matmul"
    targets = PRODUCTS | {"mm", "spmm"}
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
        read = context.route[op.name]
        weights = [name for name in op.inputs if name not in read]
        if weights:
            return _attended(op, weighing(op, weights[0], context.find), inputs, context)
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
