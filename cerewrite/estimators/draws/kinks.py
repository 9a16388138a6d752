r"""Activations with kinks, rounded: log K of a network of ReLUs jumps where a unit is zero.

Derivatives do not see jumps. A ramp ``max(z, 0)`` rounded over the width w is
``z Phi(z / w) + w phi(z / w)``, its mean under Gaussian noise of deviation w (docs/theory.md,
section 30). With w in proportion to the root mean square of z it stays homogeneous.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

WIDTH = 0.1
"""Width over the root mean square of what an activation reads."""
TINY = 1e-30


class Rounded(TorchFunctionMode):
    """Rounds piecewise linear activations, and those made of them, while it is on.

    Example:
        >>> with Rounded():
        ...     y = torch.relu(torch.tensor([-3.0, 0.0, 3.0]))
        >>> [round(value, 4) for value in y.tolist()]
        [0.0, 0.0977, 3.0]
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call itself, or its rounded form."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        rounded = _ROUNDED.get(name.rstrip("_"))
        if rounded is None or not args or not isinstance(args[0], Tensor):
            return func(*args, **kwargs)
        written = name.endswith("_") or bool(kwargs.get("inplace"))
        z = args[0].clone() if written else args[0]
        value = rounded(z, *args[1:], **{key: v for key, v in kwargs.items() if key != "inplace"})
        if value is None:
            return func(*args, **kwargs)
        return args[0].copy_(value) if written else value


def ramp(z: Tensor, at: float = 0.0) -> Tensor:
    """``max(z - at, 0)``, rounded.

    Args:
        z: what an activation reads, any shape.
        at: where the kink is.
    """
    width = WIDTH * (z.square().mean() + TINY).sqrt()
    u = (z - at) / width
    density = torch.exp(-u.square() / 2) / math.sqrt(2 * math.pi)
    rounded: Tensor = width * (u * torch.special.ndtr(u) + density)
    return rounded


def _leaky(z: Tensor, slope: Any = 0.01, *_: Any, negative_slope: Any = None) -> Tensor:
    slope = slope if negative_slope is None else negative_slope
    rounded: Tensor = slope * z + (1 - slope) * ramp(z)
    return rounded


def _prelu(z: Tensor, weight: Tensor) -> Tensor:
    slope = weight.view(-1, *[1] * (z.dim() - 2)) if z.dim() > 1 and len(weight) > 1 else weight
    return slope * z + (1 - slope) * ramp(z)


def _between(z: Tensor, *bounds: Any, **named: Any) -> Tensor | None:
    """A clamp to bounds that are numbers; None where they are tensors."""
    low = named.get("min", named.get("min_val", bounds[0] if bounds else None))
    high = named.get("max", named.get("max_val", bounds[1] if len(bounds) > 1 else None))
    if any(not isinstance(bound, int | float | None) for bound in (low, high)):
        return None
    value = z if low is None else low + ramp(z, low)
    return value if high is None else value - ramp(z, high)


def _hardtanh(z: Tensor, min_val: float = -1.0, max_val: float = 1.0, *_: Any) -> Tensor | None:
    return _between(z, min_val, max_val)


def _sixth(z: Tensor) -> Tensor:
    return (ramp(z, -3.0) - ramp(z, 3.0)) / 6


_ROUNDED: dict[str, Callable[..., Tensor | None]] = {
    "relu": lambda z, *_: ramp(z),
    "leaky_relu": _leaky,
    "prelu": _prelu,
    "relu6": lambda z, *_: ramp(z) - ramp(z, 6.0),
    "hardtanh": _hardtanh,
    "hardsigmoid": lambda z, *_: _sixth(z),
    "hardswish": lambda z, *_: z * _sixth(z),
    "clamp": _between,
    "clamp_min": _between,
    "abs": lambda z: 2 * ramp(z) - z,
}
