"""Models inside wrappers: `DataParallel`, `DistributedDataParallel`, `torch.compile`."""

from __future__ import annotations

from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DataParallel, DistributedDataParallel

from cerewrite.errors import RewriteError, TraceError


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside its wrappers; any other model as it is.

    Wrappers hold the model and say how it runs, not what it is. Layers are named as in the
    model itself, and a rewritten model is returned bare: wrap it again.

    Args:
        model: a model, possibly wrapped, several times if need be.

    Raises:
        TraceError: if the wrapper has changed the model's parameters (FSDP).

    Example:
        >>> import torch
        >>> net = nn.Linear(2, 2)
        >>> unwrap(DataParallel(torch.compile(net))) is net
        True
    """
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(model, OptimizedModule):
            model = model._orig_mod
        elif "fsdp" in type(model).__module__ or "FSDP" in type(model).__name__:
            raise TraceError(
                f"{type(model).__name__} has spread the parameters over processes",
                advice="convert the model first, then wrap the result",
            )
        else:
            return model


def refuse_wrapped(model: nn.Module) -> None:
    """A wrapper cannot follow a change in place of what it wraps.

    Raises:
        RewriteError: if the model is wrapped.
    """
    inner = unwrap(model)
    if inner is not model:
        raise RewriteError(
            f"this {type(inner).__name__} is wrapped in {type(model).__name__}, which would not "
            "see a change in place",
            advice="pass the model inside, then wrap it again",
        )
