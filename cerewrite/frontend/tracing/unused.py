"""Layers that no output depends on: nothing says how wide they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from cerewrite.ir import Op, Rejection
from cerewrite.ops.base import Value


def unused(
    ops: Sequence[Op], values: Mapping[str, Value], resolve: Callable[[int], tuple[int, ...]]
) -> Iterator[tuple[int, Rejection]]:
    """Width classes that neither an output nor a value that went to Python is made of.

    Args:
        ops: operators in execution order.
        values: their values, by name.
        resolve: the classes behind a number.

    Yields:
        A class, and why its width is kept.
    """
    reached: set[str] = set()
    for op in reversed(ops):
        if op.target in ("output", "host_read") or op.name in reached:
            reached.update((op.name, *op.inputs))
    carried: dict[int, str] = {}
    live: set[int] = set()
    for op in ops:
        channels = values[op.name].channels
        for width in () if channels is None else resolve(channels.width):
            carried.setdefault(width, op.module or op.name)
            live.update({width} if op.name in reached else ())
    for width, where in carried.items():
        if width not in live:
            reason = "no output of the model depends on it"
            advice = "return what it computes, or remove the layer"
            yield width, Rejection(where, "unused", reason, advice)
