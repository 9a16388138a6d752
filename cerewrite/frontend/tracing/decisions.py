"""Forwards that look at values: what was seen is one path, and other inputs may take another.

A forward of module M that looks at a value (``if x.sum() > 0``) may call other children of M on
another input, or join their results otherwise. What happens inside one child, from its first
operator to its last, is the same on every path that calls it. So a width class stays free if all
operators that touch it ran inside one child of every module that looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from cerewrite.ir import Op, Rejection
from cerewrite.ops.base import Value

CODE = "data-dependent"


def undecided(
    ops: Sequence[Op], values: Mapping[str, Value], resolve: Callable[[int], tuple[int, ...]]
) -> Iterator[tuple[int, Rejection]]:
    """Width classes whose operators another input might not run.

    Args:
        ops: operators in execution order; ``host_read`` marks where values went to Python.
        values: their values, by name.
        resolve: the classes behind a number.

    Yields:
        A class, and why its width is kept.
    """
    looks = {op.module: str(op.args[0]) for op in ops if op.target == "host_read"}
    touched = _touched(ops, values, resolve) if looks else {}
    for width, modules in touched.items():
        for looker, what in looks.items():
            if not _inside_one_child(modules, looker):
                yield width, _refusal(looker, what)
                break


def _refusal(looker: str, what: str) -> Rejection:
    return Rejection(
        looker,
        CODE,
        f"the forward of '{looker or 'the model'}' looks at values ('{what}'): other inputs may "
        "take another path",
        "move the decision out of the forward, or convert the submodules one by one",
    )


def _touched(
    ops: Sequence[Op], values: Mapping[str, Value], resolve: Callable[[int], tuple[int, ...]]
) -> dict[int, set[str]]:
    """For every width class, the modules whose operators read or write it."""
    found: dict[int, set[str]] = {}
    for op in ops:
        for name in (op.name, *op.inputs):
            channels = values[name].channels
            if channels is not None:
                for width in resolve(channels.width):
                    found.setdefault(width, set()).add(op.module)
    return found


def _inside_one_child(modules: set[str], looker: str) -> bool:
    """Whether all modules lie in one child of the one that looks."""
    prefix = f"{looker}." if looker else ""
    if not all(name.startswith(prefix) and name != looker for name in modules):
        return False
    return len({name.removeprefix(prefix).partition(".")[0] for name in modules}) == 1
