"""Which values are free parameters that can be resized with the channels that they join."""

from __future__ import annotations

from collections.abc import Mapping

from cerewrite.ir import Op
from cerewrite.oprules.layout import leaves_open
from cerewrite.oprules.moments import VIEWS
from cerewrite.tracer.modules import ModuleTable


def free_parameter(op: Op, ops: Mapping[str, Op], table: ModuleTable, size: int) -> str | None:
    """The name of the parameter with one value per channel that a value shows; None if none.

    Args:
        op: the value's operator: the parameter itself, or a view of it that leaves the channel
            count open (-1).
        ops: every operator by name.
        table: facts about the model's modules.
        size: channels.
    """
    while op.target in VIEWS and op.inputs:
        if op.target in ("view", "reshape", "_unsafe_view") and not leaves_open(op, size):
            return None
        op = ops[op.inputs[0]]
    if op.target != "parameter" or op.numel != size or not table.is_free(op.name):
        return None
    return table.parameter_name(op.name)
