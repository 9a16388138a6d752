"""Whether a trace leaves open if a number is a constant or was read off a tensor's shape."""

from __future__ import annotations

from cerewrite.ir import Op, TracedModel
from cerewrite.ops.views import VIEWED, named_sizes

UNTOLD = "cannot tell numbers from sizes that the forward read off a tensor"


_OF_HEADS = ("tied-to-fixed-width", "not-member-wise")


def _may_name_heads(op: Op, reached: set[str]) -> bool:
    """Whether a view names so many heads: of parameters, or before what it leaves open."""
    if op.target not in VIEWED:
        return False
    sizes = named_sizes(op)
    if op.name in reached:
        sizes = sizes[-2:-1] if sizes[-1] == -1 else []
    return any(isinstance(size, int) and size > 1 for size in sizes)


def names_widths(traced: TracedModel) -> bool:
    """Whether a view names the size of a class that may be split, or is said to pin one.

    Where another refusal keeps the class too, the view is still told apart: a refusal that does
    not hold sends the user to the wrong line of the model.
    """
    free = {width.size for width in traced.widths if not width.pins}
    codes = {pin.code for width in traced.widths for pin in width.pins}
    if "fixed-view" in codes:
        return True
    reached: set[str] = set()
    for op in traced.ops:
        if op.target == "input" or not reached.isdisjoint(op.inputs):
            reached.add(op.name)
    if not codes.isdisjoint(_OF_HEADS) and any(_may_name_heads(op, reached) for op in traced.ops):
        return True
    return any(
        size in free or op.target == "unflatten"
        for op in traced.ops
        if op.target in (*VIEWED, "unflatten")
        and op.name in reached
        and not traced.carried.get(op.name)
        for size in named_sizes(op)
        if isinstance(size, int)
    )
