"""Influences fitted over all units at once (docs/theory.md, section 30)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def quadratic(a: Tensor, h: Tensor) -> Array:
    """Influences ``a_i' M a_i`` with ``h_i = 2 M a_i`` fitted over all units, ``[units]``.

    M is in the span of the identity and the mean over positions. The sum over units is that of
    the raw rates ``a_i . h_i / 2``.

    Args:
        a: signals, ``[units, positions]``.
        h: dlog K / da, likewise.

    Example:
        >>> a = torch.tensor([[1.0, -1.0], [2.0, 0.0]], dtype=torch.float64)
        >>> quadratic(a, 3 * a).round(6).tolist()
        [3.0, 6.0]
    """
    basis = torch.stack([a, a.mean(1, keepdim=True).expand_as(a)])
    design = basis.flatten(1)
    gram, target = design @ design.T, design @ h.flatten() / 2
    weights = torch.linalg.lstsq(gram.cpu(), target.cpu()[:, None], driver="gelsd").solution
    values: Array = torch.einsum("b,bip,ip->i", weights[:, 0].to(a), basis, a).cpu().numpy()
    return values
