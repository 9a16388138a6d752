"""Pooling, averages over positions, padding and interpolation.

Moments follow the assumption of the closed form that maps are spatially constant (docs/theory.md,
section 6): an average or a maximum over positions is then the value itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from torch import nn
from typing_extensions import override

from cerewrite.errors import NoClosedFormError
from cerewrite.ir import Op
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.values import Moments
from cerewrite.ops.base import Channels, OpRule, Saved, Value, WidthBuilder, register
from cerewrite.ops.branches import branch_count, branch_sum
from cerewrite.ops.cases import function_case, module_case
from cerewrite.ops.layout import bound


@register
class Pool(OpRule):
    """Spatial pools, pads and resizes: each channel by itself."""

    name = "pool"
    targets = frozenset(
        {f"{kind}_pool{d}d" for kind in ("max", "avg", "lp") for d in (1, 2, 3)}
        | {f"adaptive_{kind}_pool{d}d" for kind in ("max", "avg") for d in (1, 2, 3)}
        | {f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "nearest3d", "bilinear2d")}
        | {"upsample_linear1d", "upsample_bicubic2d", "upsample_trilinear3d"}
        | {"pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "zero_pad2d"}
        | {"interpolate", "max_pool2d_with_indices"}
    )
    leaves = (
        (nn.MaxPool1d, "max_pool1d"),
        (nn.MaxPool2d, "max_pool2d"),
        (nn.MaxPool3d, "max_pool3d"),
        (nn.AvgPool1d, "avg_pool1d"),
        (nn.AvgPool2d, "avg_pool2d"),
        (nn.AvgPool3d, "avg_pool3d"),
        (nn.AdaptiveAvgPool1d, "adaptive_avg_pool1d"),
        (nn.AdaptiveAvgPool2d, "adaptive_avg_pool2d"),
        (nn.AdaptiveAvgPool3d, "adaptive_avg_pool3d"),
        (nn.AdaptiveMaxPool2d, "adaptive_max_pool2d"),
    )
    cases = (
        module_case(lambda: nn.MaxPool2d(2), (2, 4, 4, 4)),
        module_case(lambda: nn.AvgPool2d(2), (2, 4, 4, 4)),
        module_case(lambda: nn.AdaptiveAvgPool2d(1), (2, 4, 4, 4)),
        function_case(lambda x: nn.functional.pad(x, (1, 1)), (2, 4, 3)),
    )

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        if not op.shape and op.target.endswith(("pool1d", "pool2d", "pool3d", "_with_indices")):
            return value.channels  # several outputs: the maxima and where they are
        axis = value.channels.axis
        if len(op.shape) == len(value.op.shape) and op.shape[axis] == value.op.shape[axis]:
            return value.channels
        bound(op, value, widths, "changes the channel axis")
        return None

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        return inputs[0]

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        """What it reads, and the places of maxima; pads, resizes and whole means keep nothing."""
        largest = op.target.startswith(("max_pool", "adaptive_max_pool"))
        whole = op.target.startswith("adaptive_avg_pool") and not any(s > 1 for s in op.shape[2:])
        pools = "_pool" in op.target or op.target in ("reflection_pad2d", "replication_pad2d")
        return Saved(reads=pools and not whole, indices=op.numel if largest else 0)


@register
class Mean(OpRule):
    """A mean over positions keeps the channels; a mean over the channels bounds the region."""

    name = "mean"
    targets = frozenset({"mean", "amax"})
    cases = (function_case(lambda x: x.mean((2, 3)), (2, 4, 3, 3)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        value = inputs[0]
        if value.channels is None:
            return None
        rank = len(value.op.shape)
        reduced = _reduced(op, rank)
        if not reduced or value.channels.axis in reduced:
            bound(op, value, widths, "averages over the channels")
            return None
        kept = len(op.shape) == rank
        moved = 0 if kept else sum(dim < value.channels.axis for dim in reduced)
        found = value.channels
        return found.at(found.axis - moved)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        reduced = _reduced(op, len(context.operand(op).shape) or 1)
        count = 0 if op.target == "amax" else _branches(op, reduced, context)
        if count:
            return context.scale(branch_sum(inputs[0], count), count**-2)
        if context.channel_axis(context.operand(op)) in reduced:
            raise _no_positions(op)
        return inputs[0]

    @override
    def saved(self, op: Op, module: nn.Module | None) -> Saved:
        return Saved(reads=op.target == "amax")


def _reduced(op: Op, rank: int) -> set[int]:
    """The axes that an operator sums or averages over; empty where they are not given."""
    dims = op.args[1] if len(op.args) > 1 else (op.kwargs or {}).get("dim")
    listed = [dims] if isinstance(dims, int) else dims
    return {int(d) % rank for d in listed or ()}


def _branches(op: Op, reduced: set[int], context: MomentContext) -> int:
    """How many branches an operator reduces; 0 where it reduces something else."""
    if len(reduced) != 1:
        return 0
    (axis,) = reduced
    return branch_count(op.inputs[0], axis, context.find)


@register
class Sum(Mean):
    """A sum over positions: their number times the mean; over branches: unit by unit.

    Over other axes it has no closed form.
    """

    name = "sum"
    targets = frozenset({"sum"})
    cases = (function_case(lambda x: x.sum((2, 3)), (2, 4, 3, 3)),)

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        whole = context.operand(op).shape
        reduced = _reduced(op, len(whole)) if whole else set()
        if count := _branches(op, reduced, context):
            return branch_sum(inputs[0], count)
        if not _are_positions(reduced, op, context):
            raise _no_positions(op)
        return context.scale(inputs[0], float(prod(whole[axis] for axis in reduced)) ** 2)


@register
class Extreme(OpRule):
    """The largest or smallest value over positions: passes, since all positions are alike.

    Over other axes, and of two tensors, it has no closed form.
    """

    name = "extreme"
    targets = frozenset({"max", "min"})
    cases = (function_case(lambda x: x.max(2)[0], (2, 4, 3)),)

    @override
    def channels(self, op: Op, inputs: Sequence[Value], widths: WidthBuilder) -> Channels | None:
        found, rank = inputs[0].channels, len(inputs[0].op.shape)
        reduced = _reduced(op, rank) if len(inputs) == 1 and rank else set()
        if found is not None and reduced and found.axis not in reduced:
            kept = op.args[2] if len(op.args) > 2 else (op.kwargs or {}).get("keepdim")
            moved = 0 if kept else sum(axis < found.axis for axis in reduced)
            return replace(found, axis=found.axis - moved)
        for value in inputs:
            bound(op, value, widths, "picks values by their size")
        return None

    @override
    def moments(self, op: Op, inputs: Sequence[Moments], context: MomentContext) -> Moments:
        whole = context.operand(op).shape
        reduced = _reduced(op, len(whole)) if whole and len(inputs) == 1 else set()
        if not _are_positions(reduced, op, context) or _branches(op, reduced, context):
            raise _no_positions(op)
        return inputs[0]


def _no_positions(op: Op) -> NoClosedFormError:
    return NoClosedFormError(
        f"no closed form for a '{op.target}' over other axes than positions in "
        f"'{op.module or op.name}'",
        advice=NoClosedFormError.ADVICE,
    )


def _are_positions(axes: set[int], op: Op, context: MomentContext) -> bool:
    """Whether some axes of what an operator reads are neither examples nor channels."""
    operand = context.operand(op)
    return bool(axes) and not axes & {0, context.channel_axis(operand)}
