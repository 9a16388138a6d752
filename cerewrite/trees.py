"""Tensors in whatever a model takes or returns: nested containers, data classes, objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_DEPTH = 8


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in a nested structure, in order.

    Beyond the containers that torch knows (tuples, lists, dicts, named tuples, registered
    classes) it looks into mappings, data classes and plain objects.

    Args:
        tree: what a model takes or returns.

    Example:
        >>> @dataclasses.dataclass
        ... class Output:
        ...     logits: Tensor
        ...     hidden: list
        >>> [t.shape[0] for t in tensors(Output(torch.ones(2), [torch.ones(3)]))]
        [2, 3]
    """
    return list(_walk(tree, _DEPTH))


def _walk(tree: Any, depth: int) -> Iterator[Tensor]:
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield leaf
        elif depth > 0:
            for value in _inside(leaf):
                yield from _walk(value, depth - 1)


def _inside(leaf: Any) -> list[Any]:
    """The parts of an object that torch takes for one leaf."""
    if isinstance(leaf, type | str | bytes | int | float | complex) or leaf is None:
        return []
    if dataclasses.is_dataclass(leaf):
        return [getattr(leaf, field.name) for field in dataclasses.fields(leaf)]
    if isinstance(leaf, Mapping):
        return list(leaf.values())
    return list(vars(leaf).values()) if hasattr(leaf, "__dict__") else []


def with_rows(tree: Any, rows: int, batch: int) -> Any:
    """A tree at another batch size: tensors with ``rows`` rows have them repeated or cut.

    Example:
        >>> with_rows((torch.arange(2), 7), 2, 3)
        (tensor([0, 1, 0]), 7)
    """

    def resize(leaf: Any) -> Any:
        carries = isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == rows
        return stretched(leaf, 0, batch) if carries else leaf

    return pytree.tree_map(resize, tree)


def stretched(tensor: Tensor, axis: int, size: int) -> Tensor:
    """A tensor with ``size`` elements along an axis: its own, repeated or cut."""
    if tensor.shape[axis] == size:
        return tensor
    index = torch.arange(size, device=tensor.device) % tensor.shape[axis]
    return tensor.index_select(axis, index)
