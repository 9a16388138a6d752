"""Operators under the first name of their module, where it is registered under several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from cerewrite.ir import Op
from cerewrite.runtime.aliases import first_names


def under_first_names(ops: Sequence[Op], model: nn.Module) -> Sequence[Op]:
    """The operators of a trace, with calls of one module counted whatever name it was called by.

    Args:
        ops: operators in execution order.
        model: the traced module.
    """
    names = first_names(model)
    if not names:
        return ops
    calls: dict[str, dict[tuple[str, int], int]] = {}
    found = []
    for op in ops:
        if op.target in ("parameter", "constant"):
            owner, _, leaf = op.module.rpartition(".")
            found.append(replace(op, module=f"{names[owner]}.{leaf}") if owner in names else op)
            continue
        first = names.get(op.module, op.module)
        known = calls.setdefault(first, {})
        call = known.setdefault((op.module, op.call), len(known))
        found.append(replace(op, module=first, call=call))
    return found
