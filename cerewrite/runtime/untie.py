"""Copies of a model in which nothing is tied: every module has parameters of its own."""

from __future__ import annotations

import copy

from torch import nn

from cerewrite.runtime.copies import deep_copy

_ATTRIBUTE = "_cerewrite_untied"


def untie(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy whose shared parameters and modules are separate ones of the same values.

    Training then moves them apart: a tied read-out becomes a layer of its own, and the copy has
    more parameters. Configurations that would tie them again (``tie_word_embeddings``) say so no
    longer.

    Args:
        model: any module; left as it is. One that this function made is returned itself.

    Returns:
        The copy, and the qualified names under which something new stands.

    Example:
        >>> net = nn.ModuleList([nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)])
        >>> net[1].weight = net[0].weight
        >>> new, names = untie(net)
        >>> names, sum(p.numel() for p in new.parameters())
        (('1.weight',), 72)
    """
    if _ATTRIBUTE in vars(model):
        return model, vars(model)[_ATTRIBUTE]
    new = deep_copy(model, hooks=True)
    parted: list[str] = []
    seen: set[int] = set()
    for name, module in list(new.named_modules(remove_duplicate=False)):
        if not name or id(module) not in seen:
            seen.add(id(module))
            continue
        if next(module.parameters(), None) is not None:  # functions may be shared
            path, _, child = name.rpartition(".")
            own = copy.deepcopy(module)
            new.get_submodule(path)._modules[child] = own
            seen.update(map(id, own.modules()))
            parted.append(name)
    parameters: set[int] = set()
    for name, module in new.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in parameters:
                values = parameter.detach().clone()
                module._parameters[key] = nn.Parameter(values, parameter.requires_grad)
                parted.append(f"{name}.{key}" if name else key)
            parameters.add(id(module._parameters[key]))
    for module in new.modules():
        config = getattr(module, "config", None)
        if config is not None and getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False
    vars(new)[_ATTRIBUTE] = tuple(parted)
    return new, tuple(parted)
