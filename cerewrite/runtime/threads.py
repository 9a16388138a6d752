"""Torch's number of threads, for a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cerewrite.runtime.alone import alone


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Compute with so many threads (None for torch's own number); the old number is put back.

    Small tensors are faster with one, on a busy machine most.

    Example:
        >>> with threads(1) as used:
        ...     used, torch.get_num_threads()
        (1, 1)
    """
    with alone():  # which puts the number back
        if count is not None:
            torch.set_num_threads(count)
        yield torch.get_num_threads()
