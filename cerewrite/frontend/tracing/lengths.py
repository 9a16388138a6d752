"""Whether a trace leaves open if a number is a constant or was read off a tensor's shape."""

from __future__ import annotations

from cerewrite.ir import TracedModel
from cerewrite.ops.views import VIEWED, named_sizes

UNTOLD = "cannot tell numbers from sizes that the forward read off a tensor"


def names_widths(traced: TracedModel) -> bool:
    """Whether a view names the size of a class that may be split, or is said to pin one.

    Where another refusal keeps the class too, the view is still told apart: a refusal that does
    not hold sends the user to the wrong line of the model.
    """
    free = {width.size for width in traced.widths if not width.pins}
    if any(pin.code == "fixed-view" for width in traced.widths for pin in width.pins):
        return True
    reached: set[str] = set()
    for op in traced.ops:
        if op.target == "input" or not reached.isdisjoint(op.inputs):
            reached.add(op.name)
    return any(
        size in free or op.target == "unflatten"
        for op in traced.ops
        if op.target in (*VIEWED, "unflatten")
        and op.name in reached
        and not traced.carried.get(op.name)
        for size in named_sizes(op)
        if isinstance(size, int)
    )
