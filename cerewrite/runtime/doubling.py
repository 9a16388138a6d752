"""Running a model in double precision, whatever types its forward names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cerewrite.runtime.alone import alone


@contextmanager
def double_precision() -> Iterator[None]:
    """Tensors that a model creates by itself, or casts, are float64 here too."""
    with alone():
        torch.set_default_dtype(torch.float64)
        with _Doubling():
            yield


class _Doubling(TorchFunctionMode):
    """Turns every cast to a floating-point type into one to float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.half, Tensor.bfloat16, Tensor.float):
            func = Tensor.double
        named = {name: _widest(value) for name, value in (kwargs or {}).items()}
        return func(*map(_widest, args), **named)


def _widest(value: Any) -> Any:
    """A floating-point type as float64, all else as it is; no call nests one in a list."""
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    return value
