"""Copies of a user's module that are copies, and what of a module a copy would lose."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

_NONE: Mapping[int, Any] = MappingProxyType({})

CALL_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip
"""Where a module keeps the hooks of its calls."""

_HOOKS = (
    *CALL_HOOKS, "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)  # fmt: skip
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def deep_copy(
    model: nn.Module, stand_ins: Mapping[int, Any] = _NONE, *, hooks: bool = False
) -> nn.Module:
    """A deep copy that shares no module and no tensor with the original.

    Parameters that overlap in memory do so in the copy.

    Args:
        model: the module.
        hooks: whether parameters keep their hooks, which `copy.deepcopy` drops.
        stand_ins: what to put in the place of copies of certain objects, by their ids.

    Raises:
        TypeError: if some ``__deepcopy__`` gives what it was to copy.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> deep_copy(layer).weight is layer.weight
        False
    """
    new = copy.deepcopy(model, dict(stand_ins))
    kept = {id(item) for item in stand_ins.values()}
    before = {id(module): name for name, module in model.named_modules()}
    for module in new.modules():
        if id(module) in before and id(module) not in kept:
            raise TypeError(f"__deepcopy__ of '{before[id(module)]}' gives the module itself")
    before = {id(tensor): name for name, tensor in _tensors(model)}
    for _, tensor in _tensors(new):
        if id(tensor) in before and id(tensor) not in kept:
            raise TypeError(f"__deepcopy__ shares the tensor '{before[id(tensor)]}'")
    if not stand_ins:
        _tie_overlaps(model, new)
    if hooks:
        _carry_hooks(model, new)
    return new


def carries_hooks(module: nn.Module) -> bool:
    """Whether a module, or one of its own parameters, has hooks that a swap would lose.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> handle = layer.weight.register_hook(lambda gradient: 0 * gradient)
        >>> carries_hooks(layer), carries_hooks(nn.Linear(2, 2))
        (True, False)
    """
    if any(getattr(module, name, None) for name in _HOOKS):
        return True
    return any(hooked(parameter) for parameter in module.parameters(recurse=False))


def hooked(tensor: Tensor) -> bool:
    """Whether a tensor has hooks of its own."""
    return any(getattr(tensor, name, None) for name in _TENSOR_HOOKS)


def overlaps(model: nn.Module) -> list[set[int]]:
    """Parameters and buffers, by id, that are different tensors over the same memory.

    Example:
        >>> layer, held = nn.Linear(2, 2), torch.zeros(6)
        >>> layer.weight = nn.Parameter(held[:4].view(2, 2))
        >>> layer.bias = nn.Parameter(held[2:4])
        >>> len(overlaps(layer)), len(overlaps(nn.Linear(2, 2)))
        (1, 0)
    """
    by_storage: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for _, tensor in _tensors(model):
        plain = type(tensor.data) is Tensor and tensor.layout is torch.strided and tensor.numel()
        place = tensor.untyped_storage().data_ptr() if plain else 0
        if place:
            sides = zip(tensor.shape, tensor.stride(), strict=True)
            reach = 1 + sum((size - 1) * stride for size, stride in sides)
            first = int(tensor.storage_offset()) * tensor.element_size()
            last = first + int(reach) * tensor.element_size()
            by_storage[place].append((first, last, id(tensor)))
    found: list[set[int]] = []
    for spans in by_storage.values():
        spans.sort()
        end, group = -1, {spans[0][2]}
        for (_, last, _), (start, _, name) in pairwise(spans):
            end = max(end, last)
            if start >= end:
                found.append(group)
                group = set()
            group.add(name)
        found.append(group)
    return [group for group in found if len(group) > 1]


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _tie_overlaps(model: nn.Module, new: nn.Module) -> None:
    """Lay the copies of overlapping tensors over one copy of their memory."""
    groups = overlaps(model)
    if not groups:
        return
    copies = dict(_tensors(new))
    shared: dict[int, Any] = {}
    for name, tensor in _tensors(model):
        if not any(id(tensor) in group for group in groups):
            continue
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in shared:
            shared[storage.data_ptr()] = storage.clone()  # type: ignore[no-untyped-call]
        base = shared[storage.data_ptr()]
        view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        copies[name].data = view.set_(base, tensor.storage_offset(), tensor.size(), tensor.stride())


def _carry_hooks(model: nn.Module, new: nn.Module) -> None:
    copies = dict(new.named_parameters())
    for name, parameter in model.named_parameters():
        if name not in copies or not hooked(parameter):
            continue
        other = copies[name]
        if not hooked(other):
            for hook in (parameter._backward_hooks or {}).values():
                other.register_hook(hook)  # type: ignore[no-untyped-call]
            later = getattr(parameter, "_post_accumulate_grad_hooks", None) or {}
            for hook in later.values():
                other.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
