"""Clamps between bounds that a model holds as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from typing_extensions import override

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op, Ref
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.cases import module_case
from cerewrite.ops.layout import bound


class Clipped(nn.Module):
    """A clamp between buffers: the case of `Clamp`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(-0.5))
        self.register_buffer("high", torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """The clamp."""
        return torch.clamp(x, self.low, self.high)


@register
class Clamp(OpRule):
    """``min(max(x, low), high)``, where a bound is a tensor of one element.

    A clamp between numbers is a pointwise function; so is this one, at the bounds' values.
    """

    name = "clamp"
    targets = frozenset({"clamp", "clip", "clamp_min", "clamp_max"})
    keeps = Saved(reads=True)
    cases = (module_case(Clipped, (2, 4)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        if any(value.op.numel != 1 or value.channels is not None for value in inputs[1:]):
            for value in inputs:
                bound(op, value, widths, "has bounds of more than one element")
            return None
        return inputs[0].channels

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        bounds = {name: context.constants.value(name) for name in op.inputs[1:]}
        numbers = {name: float(value) for name, value in bounds.items() if value is not None}
        if len(numbers) < len(bounds):
            raise NoClosedFormError(
                f"no closed form for '{op.target}' by what inputs reach in '{op.module or op.name}'",
                advice=NoClosedFormError.ADVICE,
            )
        args, named = pytree.tree_map(
            lambda leaf: numbers[leaf.name] if isinstance(leaf, Ref) else leaf,
            (tuple(op.args[1:]), dict(op.kwargs or {})),
            is_leaf=lambda leaf: isinstance(leaf, Ref),
        )
        clamp = getattr(torch, op.target)
        return context.apply(
            lambda x: clamp(x, *args, **named), (op.target, repr(args), repr(named)), inputs[0]
        )
