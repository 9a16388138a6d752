"""One call timed, on a module that is left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from cerewrite.latency.interleave import interleave

RUNS = 5
"""Runs behind each median of a profile."""


def nanoseconds(action: Callable[[], object]) -> float:
    """Median nanoseconds per call."""
    (sample,) = interleave([action], runs=RUNS)
    return 1e9 * sample.median


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode; the flags are put back."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


def with_rows(inputs: Any, rows: int, batch: int) -> Any:
    """Inputs at another batch size: the rows of tensors with ``rows`` rows repeated or cut.

    Example:
        >>> with_rows((torch.arange(2), 7), 2, 3)
        (tensor([0, 1, 0]), 7)
    """

    def resize(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0 or leaf.shape[0] != rows:
            return leaf
        return leaf[torch.arange(batch, device=leaf.device) % rows]

    return pytree.tree_map(resize, inputs)
