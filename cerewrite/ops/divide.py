"""Quotients: by what no input reaches, and weights that are divided by their own sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from typing_extensions import override

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.norms import divided
from cerewrite.kernel.values import Moments
from cerewrite.ops.arithmetic import join
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import function_case
from cerewrite.ops.layout import bound
from cerewrite.ops.quotients import Quotient, quotient


@register
class Divide(OpRule):
    """A value over constants or parameters: times the mean of ``1 / c^2``.

    By a value that inputs reach it has no closed form, but for attention weights over their own
    sum (`sums_to_one`) and the forms of `cerewrite.ops.quotients`.
    """

    name = "divide"
    targets = frozenset({"div", "divide", "true_divide"})
    cases = (function_case(torch.div, (2, 4), (2, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        return inputs[0].channels if len(inputs) == 1 else join(op, inputs, widths, "divide")

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        form = quotient(op, context.find)
        if form is not None:
            return _formed(form, inputs[0], context)
        if len(inputs) == 1:
            return inputs[0]
        by = context.constants.value(op.inputs[1])
        if by is None or not bool(by.all()):
            what = "a value that inputs reach" if by is None else "zero"
            raise NoClosedFormError(
                f"no closed form for 'div' by {what} in '{op.module or op.name}'",
                advice=NoClosedFormError.ADVICE,
            )
        return context.scale(inputs[0], float(by.pow(-2).mean()))

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        return Saved(reads=len(op.inputs) > 1)


def _formed(form: Quotient, x: Moments, context: MomentContext) -> Moments:
    """A quotient of a known form; positions are alike, so that lengths over them are sizes."""
    match form.kind:
        case "average":
            return x
        case "direction":
            return divided(context, x, "norm", 1 / form.count, centred=False)
        case "sign":
            return context.scale(context.apply(torch.sign, "sign", x), 1 / form.count)
        case "response":
            sizes = context.apply(torch.abs, "abs", x)
            senses = [(part.weight, context.sampler.sense(part.unit)) for part in sizes.parts]
            mean = sum(weight * sense.mean for weight, sense in senses)
            square = sum(weight * sense.square for weight, sense in senses)
            return divided(context, sizes, "norm", square / mean**2, centred=False)


@register
class VectorNorm(OpRule):
    """Lengths of values: known where something is divided by them (`Divide`)."""

    name = "vector_norm"
    targets = frozenset({"linalg_vector_norm"})
    cases = (function_case(lambda x: torch.linalg.vector_norm(x, dim=-1), (2, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        found = inputs[0].channels
        rank = len(inputs[0].op.shape)
        if found is not None and found.axis not in _normed(op, rank) and len(op.shape) == rank:
            return found  # over what lies inside a head, or over positions
        bound(op, inputs[0], widths, "takes lengths")
        return None

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        raise NoClosedFormError(
            f"no closed form for a length by itself in '{op.module or op.name}'",
            advice=NoClosedFormError.ADVICE,
        )


def _normed(op: Op, rank: int) -> set[int]:
    """The axes over which lengths are taken: all of them where none is named."""
    named = op.kwargs or {}
    given = op.args[2] if len(op.args) > 2 else named.get("dim")
    axes = range(rank) if given is None else [given] if isinstance(given, int) else given
    return {int(axis) % rank for axis in axes}


def sums_to_one(op: Op, ops: Mapping[str, Op]) -> bool:
    """Whether an operator divides a value by its own sum over the last axis.

    Weighing values by it is an average over positions, as with a softmax.
    """
    if op.target not in Divide.targets or len(op.inputs) != 2:
        return False
    below = ops[op.inputs[1]]
    while below.target != "sum" and len(below.inputs) == 1:
        below = ops[below.inputs[0]]
    if below.target != "sum" or below.inputs[:1] != op.inputs[:1]:
        return False
    rank = len(ops[op.inputs[0]].shape)
    dims = below.args[1] if len(below.args) > 1 else (below.kwargs or {}).get("dim")
    listed = [dims] if isinstance(dims, int) else list(dims or ())
    return len(listed) == 1 and listed[0] % rank == rank - 1
