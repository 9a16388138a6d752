"""What tracing promises: the model comes back as it was, in every way that can be checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from cerewrite.errors import TraceError
from cerewrite.runtime.alone import alone
from cerewrite.runtime.modes import attributes_kept, evaluating

_TABLES = ("_modules", "_parameters", "_buffers")


def check_ready(model: nn.Module) -> None:
    """Refuse what cannot be traced in any way.

    Raises:
        TraceError: if parameters have no shapes yet, or are spread over processes.
    """
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise TraceError(
            f"the shape of '{lazy[0]}' is not known yet: its module is lazy",
            advice="run the model once on example inputs first",
        )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"'{name}'" if name else "the model"
            raise TraceError(
                f"{where} is a script: its modules cannot be swapped",
                advice="convert the Python model, then script the result",
            )


@contextlib.contextmanager
def observed(model: nn.Module) -> Iterator[None]:
    """Eval mode for the time of a trace; flags, attributes and structure come back as they were.

    Raises:
        TraceError: if the forward added, removed or replaced submodules or parameters.
    """
    tables = [
        (name, module, kind, dict(getattr(module, kind)))
        for name, module in model.named_modules()
        for kind in _TABLES
    ]
    with alone(), attributes_kept(model), evaluating(model):
        torch.backends.mha.set_fastpath_enabled(False)  # it hides products; `alone` resets it
        try:
            yield
        finally:
            changed = [_restored(*table) for table in tables]
    found = next(filter(None, changed), None)
    if found is not None:
        raise TraceError(
            f"the forward changes the model's own structure: {found}",
            advice="build all submodules and parameters in __init__",
        )


def _restored(name: str, module: nn.Module, kind: str, before: dict[str, Any]) -> str | None:
    """Put a module's table back; says what had become of it, buffers' values aside."""
    now = getattr(module, kind)
    added = [key for key in now if key not in before]
    gone = [key for key in before if key not in now]
    other = [k for k in before if k in now and now[k] is not before[k] and kind != "_buffers"]
    if not (added or gone or other):
        return None
    now.clear()
    now.update(before)
    verb, keys = next(
        (v, k) for v, k in (("adds", added), ("removes", gone), ("replaces", other)) if k
    )
    return f"it {verb} '{keys[0]}' in '{name or 'the model'}'"
