"""How expectations follow the scale behind a unit beyond first order (docs/theory.md, section 20).

Noise that is compounded over many layers moves an example's energy by factors. A sigmoid gate
then saturates and a SiLU turns linear: powers and their bend, which hold for small changes,
would grow without end. So logarithms of the expectations are tabled over the logarithm of the
scale, and only what the second order terms is interpolated.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cerewrite.kernel.units import Array

REACH = 6.0
STEPS: Array = np.linspace(-REACH, REACH, 25)
"""Logarithms of the factor on all variances: 0.0025 to 400; beyond, the last slope goes on."""
_TINY = 1e-200
_SLIGHT = 0.01


def tabled(expectations: Array) -> Array:
    """Logarithms of expectations over their nominal ones, ``[steps, n]``; 0 where they vanish.

    Args:
        expectations: at every one of `STEPS`, ``[steps, n]``, at least 0.

    Example:
        >>> table = tabled(np.stack([np.exp(STEPS), np.full(len(STEPS), 3.0)], 1))
        >>> bool(np.allclose(table[:, 0], STEPS)), bool((table[:, 1] == 0).all())
        (True, True)
    """
    nominal = expectations[len(STEPS) // 2]
    alive = nominal > _TINY
    ratios = expectations / np.where(alive, nominal, 1.0)
    logarithms: Array = np.where(alive, np.log(np.maximum(ratios, _TINY)), 0.0)
    return logarithms


def interpolate_log_response(
    steps: Tensor, degree: Array, log_curvature: Array, table: Array | None
) -> Tensor:
    """Logarithms of the factors on expectations.

    Args:
        steps: logarithms of the factor on all variances, ``[n, draws]``.
        degree: first derivatives at 0, ``[n]``.
        log_curvature: second derivatives there, ``[n]``.
        table: as from `tabled`, ``[steps, n]``; None where first and second order are all.

    Returns:
        ``[n, draws]``, with the given derivatives at 0.
    """
    # eq. 57 without its remainder: s t + c t^2 / 2
    first, second = torch.from_numpy(degree[:, None]), torch.from_numpy(log_curvature[:, None] / 2)
    straight = torch.addcmul(first, second, steps) * steps
    if table is None or steps.shape[1] == 1:
        return straight
    # rho at the steps of the table; left out where it is small over all of them that are reached
    rest = table - np.outer(STEPS, degree) - np.outer(STEPS**2, log_curvature) / 2
    least, most = (int(np.searchsorted(STEPS, float(end))) for end in torch.aminmax(steps))
    if most < len(STEPS) and np.abs(rest[max(least - 1, 0) : most + 1]).max() < _SLIGHT:
        return straight
    # rho(t) by linear interpolation
    inner = steps.clamp(-REACH, REACH)
    at = ((inner + REACH) / (STEPS[1] - STEPS[0])).numpy()
    low = np.minimum(np.nan_to_num(at).astype(np.int64), len(STEPS) - 2)  # no number stays none
    column = np.arange(table.shape[1])[:, None]
    left, right = rest[low, column], rest[low + 1, column]
    between = torch.from_numpy(left + (at - low) * (right - left))
    # beyond the table: its last slope goes on
    ends = (table[1] - table[0], table[-1] - table[-2])
    slope = np.where(steps.numpy() < 0, ends[0][:, None], ends[1][:, None])
    beyond = (steps - inner) * torch.from_numpy(slope / (STEPS[1] - STEPS[0]))
    return torch.addcmul(first, second, inner) * inner + between + beyond
