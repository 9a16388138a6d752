"""Models inside wrappers, and modules whose layers are hidden from tracers, opened.

Wrappers are `DataParallel`, `DistributedDataParallel`, `torch.compile`; hidden are the projections
of `torch.nn.MultiheadAttention`, whose weights it hands to one function.
"""

from __future__ import annotations

import copy

from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DataParallel, DistributedDataParallel

from cerewrite.errors import RewriteError, TraceError
from cerewrite.nn.open_attention import OpenAttention
from cerewrite.runtime.copies import carries_hooks


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside its wrappers; any other model as it is.

    Where it holds stock attention, a copy that shares its tensors and calls the projections of
    attention as layers (`OpenAttention`): their parameters are then separate ones.

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
            return _opened(model)


def _opened(model: nn.Module) -> nn.Module:
    """A copy with attention opened, if there is any; tensors but those projections' are shared."""
    found = [n for n, m in model.named_modules() if _is_closed(m)]
    if not found or not found[0]:
        return model
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    try:
        new = copy.deepcopy(model, shared)
    except Exception as error:
        raise TraceError(
            f"this {type(model).__name__} cannot be copied, which opening its attention takes: "
            f"{type(error).__name__}: {error}",
            advice="mend its __deepcopy__, or use linear layers instead of MultiheadAttention",
        ) from error
    for name in found:
        parent, _, child = name.rpartition(".")
        stock = new.get_submodule(name)
        assert isinstance(stock, nn.MultiheadAttention), name
        new.get_submodule(parent)._modules[child] = OpenAttention(stock)
    return new


def _is_closed(module: nn.Module) -> bool:
    """Whether a module is stock attention that can be opened; hooked or tied ones stay."""
    if type(module) is not nn.MultiheadAttention or module.add_zero_attn:
        return False
    plain = module.bias_k is None and type(module.out_proj).__module__.startswith("torch.nn.")
    return plain and not any(carries_hooks(part) for part in module.modules())


def refuse_wrapped(model: nn.Module) -> None:
    """A wrapper cannot follow a change in place of what it wraps.

    Raises:
        RewriteError: if the model is wrapped.
    """
    inner = unwrap(model)
    if type(inner) is type(model) and inner is not model:
        raise RewriteError(
            f"this {type(inner).__name__} holds MultiheadAttention, whose layers can be split in "
            "a copy only",
            advice="rewrite a copy (inplace=False)",
        )
    if inner is not model:
        raise RewriteError(
            f"this {type(inner).__name__} is wrapped in {type(model).__name__}, which would not "
            "see a change in place",
            advice="pass the model inside, then wrap it again",
        )
