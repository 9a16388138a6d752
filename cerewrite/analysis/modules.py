"""The modules of a model, as reports list them."""

from __future__ import annotations

from torch import nn

from cerewrite.ir import ModuleSummary, TracedModel


def summarised(traced: TracedModel, model: nn.Module) -> tuple[ModuleSummary, ...]:
    """Every module that holds parameters or ran operators, in the model's own order.

    Args:
        traced: the trace of ``model``.
        model: the module; it is only read.

    Example:
        >>> from cerewrite.frontend import tracing
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> found = summarised(tracing.trace(net, (torch.ones(1, 3),)), net)
        >>> [(item.name, item.kind, item.shape, item.params) for item in found]
        [('0', 'Linear', (2, 3), 8), ('1', 'ReLU', (), 0)]
    """
    ran: dict[str, list[str]] = {}
    for op in traced.ops:
        if not op.is_end:
            ran.setdefault(op.module, []).append(op.name)
    seen: set[int] = set()
    found = []
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        fresh = {id(item): item.numel() for item in own.values() if id(item) not in seen}
        seen.update(fresh)
        if not own and name not in ran:
            continue
        weight = own.get("weight", next(iter(own.values()), None))
        found.append(
            ModuleSummary(
                name=name,
                kind=type(module).__name__,
                shape=() if weight is None else tuple(weight.shape),
                params=sum(fresh.values()),
                nodes=tuple(ran.get(name, ())),
            )
        )
    return tuple(found)
