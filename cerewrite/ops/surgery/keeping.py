"""What surgery keeps of a module: type, dtype, device, flags, per-channel settings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from cerewrite.errors import RewriteError
from cerewrite.ops.surgery.resized_copy import bound_to_width, has_own_forward

M = TypeVar("M", bound=nn.Module)

_METHODS = ("forward", "_conv_forward", "__call__")


def expect(module: nn.Module, kinds: tuple[type[M], ...], *, forwards: bool = False) -> M:
    """The module, if it behaves as one of ``kinds``; a subclass may not change its forward.

    Args:
        module: any module.
        kinds: stock types.
        forwards: whether a subclass may have a forward of its own
            (`cerewrite.ops.surgery.resized_copy`).

    Raises:
        RewriteError: if it is of another type, computes differently, or holds its weight
            in another way (parametrised, weight-normed, quantised).
    """
    why = unlike(module, kinds)
    if why is not None and forwards and has_own_forward(module, kinds):
        why = bound_to_width(module, kinds)
    if why is not None:
        raise _refusal(module, why)
    return module  # type: ignore[return-value]  # it is one of the kinds


def unlike(module: nn.Module, kinds: Sequence[type[nn.Module]]) -> str | None:
    """Why a module does not behave as one of ``kinds``; None if it does.

    A subclass that leaves the stock forward alone behaves as its parent.

    Example:
        >>> class Named(nn.Linear):
        ...     pass
        >>> unlike(Named(2, 2), [nn.Linear]), unlike(nn.ReLU(), [nn.Linear])
        (None, 'is none of Linear')
    """
    kind = next((kind for kind in kinds if isinstance(module, kind)), None)
    if kind is None:
        return f"is none of {', '.join(kind.__name__ for kind in kinds)}"
    changed = [
        method
        for method in _METHODS
        if getattr(type(module), method, None) is not getattr(kind, method, None)
    ]
    if changed or "forward" in vars(module):
        return f"overrides {changed[0] if changed else 'forward'}"
    if set(module._parameters) - {"weight", "bias"} or not hasattr(module, "weight"):
        return f"holds the parameters {sorted(module._parameters)}"
    if "weight" not in module._parameters:
        return "computes its weight from something else"
    if module._modules:
        return f"holds the module '{next(iter(module._modules))}'"
    return None


def _refusal(module: nn.Module, why: str) -> RewriteError:
    return RewriteError(
        f"a {type(module).__module__}.{type(module).__qualname__} cannot be split: it {why}",
        advice="exclude the layer, or replace it by the plain torch.nn module",
    )


def check_size(module: nn.Module, what: str, found: int, recorded: int) -> None:
    """Refuse a module that is not the one the plan was made for."""
    if found != recorded:
        raise RewriteError(
            f"a {type(module).__name__} has {found} {what}, the plan says {recorded}",
            advice="make the plan again for this model",
        )


def empty_like(new: M, old: nn.Module) -> M:
    """Move a leaf module built on the meta device to where ``old`` is, parameters not drawn.

    They are filled with NaN, so that a forgotten draw shows itself. ``requires_grad`` and the
    train/eval flag are ``old``'s.
    """
    reference = next(chain(old.parameters(), old.buffers()), None)
    device = torch.device("meta") if reference is None else reference.device
    for name, parameter in new._parameters.items():
        if parameter is not None:
            resized_copy = old._parameters.get(name)
            needs_grad = (
                parameter.requires_grad if resized_copy is None else resized_copy.requires_grad
            )
            values = torch.full_like(parameter.detach(), torch.nan, device=device)
            new._parameters[name] = nn.Parameter(values, requires_grad=needs_grad)
    for name, buffer in new._buffers.items():
        if buffer is not None:
            new._buffers[name] = torch.zeros_like(buffer, device=device)
    return new.train(old.training)


def resized(setting: Tensor, size: int) -> Tensor:
    """A per-channel setting at another size: its constant where it is one, else its mean."""
    if setting.device.type == "meta":
        return setting.new_empty(size)
    first = setting.detach().flatten()[0]
    constant = bool((setting == first).all())
    return (first if constant else setting.detach().mean()).repeat(size)


def fill(new: nn.Module, old: nn.Module, size: int) -> None:
    """Give every per-channel setting of ``new`` the value of the same name in ``old``."""
    targets = dict(new.named_parameters()) | dict(new.named_buffers())
    sources = dict(old.named_parameters()) | dict(old.named_buffers())
    with torch.no_grad():
        for name, target in targets.items():
            source = sources[name]
            target.copy_(resized(source, size) if source.dim() else source)


def slice_channels(new: M, old: nn.Module, **settings: Tensor | None) -> M:
    """Copy pieces of ``old``'s settings, given by name, into a narrow module."""
    empty_like(new, old)
    targets = dict(new.named_parameters()) | dict(new.named_buffers())
    with torch.no_grad():
        for name, piece in settings.items():
            if piece is not None:
                targets[name].copy_(piece)
    return new


def part(index: int, width: int) -> slice:
    """Where the channels of member ``index`` lie: members are contiguous."""
    return slice(index * width, (index + 1) * width)
