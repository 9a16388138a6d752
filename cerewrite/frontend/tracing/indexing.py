"""Indexing with integers, slices, None and dots, as the slices that ``torch.export`` sees."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import torch
from torch import Tensor


def is_basic(key: Any) -> bool:
    """Whether an index picks by integers, slices, None and dots only: its result is a view."""
    items = key if isinstance(key, tuple) else (key,)
    return all(
        item is None or isinstance(item, slice | EllipsisType) or _is_integer(item)
        for item in items
    )


def _is_integer(item: Any) -> bool:
    return isinstance(item, int | torch.SymInt) and not isinstance(item, bool)


def index(tensor: Tensor, key: Any) -> Tensor:
    """``tensor[key]`` for a basic key, one ATen operator for each axis that is touched.

    Example:
        >>> index(torch.arange(12).view(3, 4), (slice(None), 1))
        tensor([1, 5, 9])
    """
    items = list(key) if isinstance(key, tuple) else [key]
    taken = sum(item is not None and item is not Ellipsis for item in items)
    rest = [slice(None)] * (tensor.dim() - taken)
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    items[at : at + 1] = rest
    axis = 0
    for item in items:
        if item is None:
            tensor = torch.ops.aten.unsqueeze.default(tensor, axis)
        elif isinstance(item, slice):
            if item != slice(None):
                start, stop, step = item.start, item.stop, item.step or 1
                tensor = torch.ops.aten.slice.Tensor(tensor, axis, start, stop, step)
        else:
            tensor = torch.ops.aten.select.int(tensor, axis, item)
            continue
        axis += 1
    return tensor
