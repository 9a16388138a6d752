"""Fresh weights for every seed: a factory's own, or a module's own values in another order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import nn

from cerewrite.errors import UsageError
from cerewrite.frontend.unwrapping import unwrap
from cerewrite.runtime.alone import alone
from cerewrite.runtime.copies import deep_copy

Factory = nn.Module | Callable[[], nn.Module]


def fresh(model: Factory, seed: int) -> nn.Module:
    """A model with weights of a seed; what is given is left as it is.

    A factory is called with torch seeded. Of a module, the entries of every parameter are put in
    another order: that is a new draw from the law of weights that were drawn independently within
    each tensor, keeps its moments exactly, constants too, and undoes any training.

    Args:
        model: a module, or a function that makes one.
        seed: of the draw.

    Raises:
        UsageError: if the factory gives no module.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> one, two = fresh(net, 0), fresh(net, 1)
        >>> bool((one.weight != two.weight).any())
        True
        >>> sorted(one.weight.flatten().tolist()) == sorted(net.weight.flatten().tolist())
        True
    """
    number = int.from_bytes(hashlib.sha256(f"weights:{seed}".encode()).digest()[:8], "big") >> 1
    with alone():
        torch.manual_seed(number)
        if not isinstance(model, nn.Module):
            made = model()
            if not isinstance(made, nn.Module):
                raise UsageError(
                    f"the factory gives an object of type {type(made).__name__}, not a module",
                    advice="return an nn.Module",
                )
            return unwrap(made)
        copy = deep_copy(unwrap(model))
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in copy.parameters():
                order = torch.randperm(parameter.numel(), generator=generator)
                values = parameter.flatten()[order.to(parameter.device)]
                parameter.copy_(values.view(parameter.shape))
        return copy
