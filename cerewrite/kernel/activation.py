"""Pointwise functions on a fine grid of Gaussian nodes: their values and derivatives.

Any callable on a tensor will do: the integrals are taken on the function itself and on its
derivative by autograd, over a fine uniform grid, which is exact to rounding for smooth
functions and to about 1e-6 for functions with kinks (Gauss-Hermite nodes lose three digits
there). docs/theory.md, sections 4 and 15.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]

_NODES = 8192
_REACH = 9.0


@lru_cache(maxsize=1)
def gaussian_grid() -> tuple[Array, Array]:
    """Nodes in (-9, 9) and their Gaussian weights, which add up to 1."""
    step = 2 * _REACH / _NODES
    nodes: Array = np.linspace(-_REACH + step / 2, _REACH - step / 2, _NODES)
    weights: Array = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def evaluate(function: Callable[[Any], Any] | None, z: Array) -> tuple[Array, Array]:
    """A function and its derivative on an array of points."""
    if function is None:
        return z, np.ones_like(z)
    with torch.enable_grad():
        point = torch.from_numpy(z).requires_grad_()
        value = function(point.clone())
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value, point, torch.ones_like(value))
        else:
            slope = torch.zeros_like(point)
    return value.detach().numpy(), slope.numpy()
