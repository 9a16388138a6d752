"""Which values are free parameters that can be resized with the channels that they join."""

from __future__ import annotations

from collections.abc import Mapping

from cerewrite.frontend.tracing.modules import ModuleTable
from cerewrite.ir import Length, Op
from cerewrite.kernel.moments import VIEWS
from cerewrite.nn.parameter_module import channel_axis
from cerewrite.ops.layout import leaves_open
from cerewrite.ops.views import VIEWED, named_sizes


def free_parameter(
    op: Op, ops: Mapping[str, Op], table: ModuleTable, size: int, axis: int
) -> str | None:
    """The name of the parameter along the channels that a value shows; None if none.

    Args:
        op: the value's operator: the parameter itself, a view of it that leaves the channel
            count open (-1, or read off the parameter), or an expansion along other axes.
        ops: every operator by name.
        table: facts about the model's modules.
        size: channels.
        axis: the channel axis of the value, counted from the end (-1 is the last).
    """
    shaped = False
    while op.inputs and op.target in (*VIEWS, "expand"):
        if op.target == "expand" and not _kept(op, axis):
            return None
        if op.target in VIEWED and not (leaves_open(op, size) or _own_size(op, size)):
            return None
        shaped = shaped or (op.shape != ops[op.inputs[0]].shape and op.target != "expand")
        op = ops[op.inputs[0]]
    if op.target != "parameter" or not table.is_standalone(op.name):
        return None
    if op.numel != size:
        at = channel_axis(op.shape)
        if shaped or at is None or at - len(op.shape) != axis or op.shape[at] != size:
            return None
    return table.parameter_name(op.name)


def _kept(op: Op, axis: int) -> bool:
    """Whether an expansion leaves the channel axis as it is."""
    sizes = named_sizes(op)
    return len(sizes) == len(op.shape) and sizes[axis] == -1


def _own_size(op: Op, size: int) -> bool:
    """Whether a view reads its channel count off what it is a view of."""
    return all(
        isinstance(given, Length) and given.exact and given.axes[0][0] == op.inputs[0]
        for given, length in zip(named_sizes(op), op.shape, strict=False)
        if length == size
    )
