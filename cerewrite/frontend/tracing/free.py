"""Which values are free parameters that can be resized with the channels that they join."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from cerewrite.frontend.tracing.modules import ModuleTable
from cerewrite.frontend.tracing.named import NamedSizes
from cerewrite.ir import Length, Op
from cerewrite.kernel.moments import VIEWS
from cerewrite.ops.layout import axis_order, leaves_open
from cerewrite.ops.views import VIEWED, named_sizes

Leaf = tuple[str, int]
"""A parameter's name and the axis of its channels."""

_MOVED = ("permute", "transpose", "swapaxes", "t", "mT", "numpy_T")

_MAPS = "upsample"
"""Operators on maps ``[batch, channels, *positions]`` that treat every channel alike."""


class FreeParameters:
    """Values that are made of a model's own parameters alone, followed back to them.

    Args:
        ops: every operator by name.
        table: facts about the model's modules.
        named: which numbers grow with a class.

    Attributes:
        viewed: views met on the way whose sizes grow with the class that the value joined.
    """

    def __init__(self, ops: Mapping[str, Op], table: ModuleTable, named: NamedSizes) -> None:
        self._ops = ops
        self._table = table
        self._named = named
        self._own: set[str] = set()
        for op in ops.values():
            if op.target == "parameter" or (op.inputs and self._own.issuperset(op.inputs)):
                self._own.add(op.name)
        self.viewed: set[str] = set()

    def behind(self, op: Op, size: int, axis: int, width: int) -> tuple[Leaf, ...]:
        """The parameters of which a value shows so many channels; none if it is anything else.

        Args:
            op: the value's operator: a parameter, a view of it that leaves the channel count open
                (-1, or read off the parameter) or names it by what grows with the class, what
                moves, cuts, resamples, picks or adds up positions, a pointwise function, or sums
                of such values.
            size: channels.
            axis: the channel axis of the value, counted from the end (-1 is the last).
            width: the class that the value is joined to.
        """
        at = axis + len(op.shape)
        if not 0 <= at < len(op.shape) or op.shape[at] != size:
            return ()
        if op.target == "parameter":
            return self._leaf(op, at)
        if op.target in ("add", "mul", "sub") and len(op.inputs) == 2:
            found = [self.behind(self._ops[name], size, axis, width) for name in op.inputs]
            return (*found[0], *found[1]) if all(found) else ()
        back = self._back(op, size, at, width) if op.inputs else None
        if back is None:
            return ()
        source, before = back
        return self.behind(source, size, before - len(source.shape), width)

    def is_view(self, op: Op) -> bool:
        """Whether a view shows parameters alone; what joins its value says if its sizes grow."""
        return op.name in self._own

    def _leaf(self, op: Op, at: int) -> tuple[Leaf, ...]:
        name = self._table.parameter_name(op.name)
        return ((name, at),) if name and self._table.is_standalone(op.name) else ()

    def _back(self, op: Op, size: int, at: int, width: int) -> tuple[Op, int] | None:
        """What an operator shows, and the axis of its channels there; None if it mixes them."""
        source = self._ops[op.inputs[0]]
        if op.function is not None and len(op.inputs) == 1 and op.shape == source.shape:
            return source, at
        if op.target in ("matmul", "bmm") and len(op.inputs) == 2 and at == len(op.shape) - 1:
            table = self._ops[op.inputs[1]]  # whatever picks or weighs its rows
            return table, len(table.shape) - 1
        if op.target in ("sum", "mean"):
            return _kept(source, op, at)
        if op.target in VIEWED and not (
            leaves_open(op, size) or self._reads_own_size(op, size) or self._grows(op, at, width)
        ):
            return None
        if op.target in (*VIEWS, "flatten", "unflatten"):
            return _same_place(source, op, at)
        if op.target == "expand":
            sizes = named_sizes(op)
            kept = len(sizes) == len(op.shape) and sizes[at] == -1
            return (source, at - len(op.shape) + len(source.shape)) if kept else None
        if op.target in _MOVED:
            order = axis_order(op, len(op.shape))
            return None if order is None else (source, order[at])
        if op.target in ("slice", "narrow") or op.target.lstrip("_").startswith(_MAPS):
            alike = len(op.shape) == len(source.shape) and op.shape[at] == source.shape[at]
            cut = type(op.args[1]) is int and op.args[1] % len(op.shape) != at
            return (source, at) if alike and (cut if op.target[0] == "s" else at == 1) else None
        return None

    def _reads_own_size(self, op: Op, size: int) -> bool:
        """Whether a view reads its channel count off what it is a view of."""
        return all(
            isinstance(given, Length) and given.exact and self._is_behind(given.axes[0][0], op)
            for given, length in zip(named_sizes(op), op.shape, strict=False)
            if length == size
        )

    def _grows(self, op: Op, at: int, width: int) -> bool:
        """Whether a view names its channels by what grows with a class, and nothing else."""
        sizes = named_sizes(op)
        if len(sizes) != len(op.shape) or not self._named.grows(sizes[at], width, op.module):
            return False
        self.viewed.add(op.name)
        return all(self._named.stays(size) for axis, size in enumerate(sizes) if axis != at)

    def _is_behind(self, name: str, op: Op) -> bool:
        while op.inputs and op.name != name:
            op = self._ops[op.inputs[0]]
        return op.name == name


def _kept(source: Op, op: Op, at: int) -> tuple[Op, int] | None:
    """The axis that is left at a place when others are summed over."""
    given = op.args[1] if len(op.args) > 1 else (op.kwargs or {}).get("dim")
    rank = len(source.shape)
    axes = [given] if isinstance(given, int) else given if given is not None else range(rank)
    summed = {axis % rank for axis in axes}
    left = [axis for axis in range(rank) if axis not in summed or len(op.shape) == rank]
    return None if left[at] in summed else (source, left[at])


def _same_place(source: Op, op: Op, at: int) -> tuple[Op, int] | None:
    """The axis of the same length with as many elements behind it, under another shape."""
    behind = prod(op.shape[at + 1 :])
    places = (
        axis
        for axis, length in enumerate(source.shape)
        if length == op.shape[at] and prod(source.shape[axis + 1 :]) == behind
    )
    found = next(places, None)
    return None if found is None else (source, found)
