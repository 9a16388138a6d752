"""How expectations over a unit follow finite changes behind it (docs/theory.md, section 19)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cerewrite.kernel.curves import interpolate_log_response
from cerewrite.kernel.integrals import UnitMoments
from cerewrite.kernel.units import Array, GaussianTerm, Unit

_LEAST = 1e-6
_ONE = np.ones((1, 1))


def extrapolate_moments(
    base: Array, rates: Array, log_curvature: Array, table: Array | None, change: Tensor, unit: Unit
) -> Tensor:
    """Expectations after a change of their parameters, exact to first order.

    Mean squares are homogeneous in the terms' variances where functions are: with the degree s,
    the sum of their relative rates, they follow ``(1 + sum_k rate_k change_k / s)^s``, which is
    exact for sums, for gates whose branches change alike, and for every homogeneous function;
    other functions bend, and saturate (`curves`). A norm's energy is a power of its own.

    Args:
        base: expectations, ``[n]``, at least 0.
        rates: their derivatives by the parameters (see `UnitMoments`), ``[parameters, n]``.
        log_curvature: second derivatives of their logarithms by that of all variances, ``[n]``.
        table: those logarithms further out, if it takes more (`curves`).
        change: relative changes of the parameters, ``[parameters, draws]``.
        unit: whose terms and norms the parameters are.

    Returns:
        ``[n, draws]``.
    """
    # alpha_k = d log E[h] / d log sigma_k^2, and those of the norms' parameters
    safe = np.where(base > 0, base, 1.0)
    powers = np.where(base > 0, rates / safe, 0.0).T
    if not (np.abs(powers) > 1e-12).any():
        return torch.from_numpy(base[:, None]).expand(-1, change.shape[1])
    terms = len(unit.terms)
    start = torch.from_numpy(base[:, None])
    moves = change[:terms] if unit.norms else change
    result = start * _homogeneous(powers[:, :terms], log_curvature, table, moves)
    # eq. 56: (1 + e)^alpha_e exp(alpha_tau tau) per norm
    if unit.norms:
        relative = torch.from_numpy(powers.copy())
        energies = (1 + change[terms::2]).clamp_min(_LEAST).log()
        shifts = change[terms + 1 :: 2]
        result = result * (relative[:, terms::2] @ energies).exp()
        result = result * (relative[:, terms + 1 :: 2] @ shifts).exp()
    return result


def grown(sense: UnitMoments, change: Tensor, unit: Unit) -> Tensor:
    """E[x^2], then the squared slopes by the terms, ``[1 + terms, draws]``."""
    base = np.append(sense.square, sense.slopes)
    rates = np.concatenate([sense.by_square[:, None], sense.by_slopes], 1)
    log_curvature = np.append(sense.bend_square, sense.bend_slopes)
    return extrapolate_moments(base, rates, log_curvature, sense.table, change, unit)


def mean_moved(sense: UnitMoments, change: Tensor) -> Tensor:
    """The change of E[x], ``[draws]``: by powers where they are at most 1, else to first order."""
    powers = sense.by_mean / (sense.mean or 1.0)
    if change.shape[1] > 1 and sense.mean and float(np.abs(powers).max(initial=0.0)) <= 1.0:
        factors = (1 + change).clamp_min(_LEAST).log()
        return sense.mean * (torch.from_numpy(powers) @ factors).expm1()
    return torch.from_numpy(sense.by_mean) @ change


def overlap_of(unit: Unit, sense: UnitMoments) -> float:
    """What two examples have in common beyond the mean, to first order in their correlation."""
    return float(sense.first**2 @ np.array([term.overlap for term in unit.terms]))


def _homogeneous(powers: Array, log_curvature: Array, table: Array | None, moves: Tensor) -> Tensor:
    """Factors by the terms' changes, ``[n, draws]``."""
    # s, and where all alpha_k have one sign
    degree = powers.sum(1)
    alike = ((powers >= -1e-6).all(1) | (powers <= 1e-6).all(1)) & (np.abs(degree) > 1e-9)
    flat = (np.abs(powers) <= 1e-12).all(1)
    even = np.where(alike, degree, 1.0)[:, None]
    # 1 + sum_k alpha_k epsilon_k / s, which is all of eq. 54 where s = 1
    linear = torch.addmm(torch.from_numpy(_ONE), torch.from_numpy(powers / even), moves)
    if (flat | (alike & (np.abs(degree - 1) < 1e-9) & (np.abs(log_curvature) < 1e-9))).all():
        return linear
    # eq. 55 where the signs differ: prod_k (1 + epsilon_k)^alpha_k
    mixed = None
    if not alike.all():
        factors = (1 + moves).clamp_min(_LEAST).log()
        mixed = (torch.from_numpy(powers.copy()) @ factors).exp()
        if not alike.any():
            return mixed
    # eq. 57, which is eq. 54 for powers: by t = log(1 + sum_k alpha_k epsilon_k / s)
    steps = linear.clamp_min(_LEAST).log()
    factor = interpolate_log_response(steps, even[:, 0], log_curvature, table).exp()
    return factor if mixed is None else factor.where(torch.from_numpy(alike)[:, None], mixed)


def change(term: GaussianTerm) -> Tensor:
    """The relative change of a term's mean square."""
    nominal = nominal_value(term.q)
    return term.q / nominal - 1 if nominal > 0 else torch.zeros_like(term.q)


def changes(unit: Unit, moved: Sequence[Tensor]) -> Tensor:
    """Relative changes of the parameters behind a unit, ``[parameters, draws]``.

    Args:
        unit: the unit.
        moved: those of its terms.
    """
    parameters = list(moved)
    for norm in unit.norms:
        parameters += [norm.energy, norm.shift]
    return stacked(parameters)


def stacked(values: Sequence[Tensor]) -> Tensor:
    """Vectors of one element or of one per draw, as rows."""
    if len(values) == 1:
        return values[0][None]
    draws = max(value.numel() for value in values)
    return torch.stack([v if v.numel() == draws else v.expand(draws) for v in values])


def nominal_value(value: Tensor) -> float:
    """The nominal number behind a differentiable one: without noise, in front of all draws."""
    return float(value.item() if value.numel() == 1 else value.detach().flatten()[0].item())
