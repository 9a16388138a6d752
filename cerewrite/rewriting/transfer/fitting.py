"""Ridge regression towards given weights: the closed form behind a warm start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties that are tried, in units of the mean eigenvalue of ``X' X``."""

HELD_OUT = 4
"""One row in so many is held out to choose the penalty."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted block.

    Attributes:
        weight: ``[out, in]``, float64.
        bias: ``[out]``, float64; None if the layer has none.
        error: ``|Y - fit|^2 / |Y - mean Y|^2`` on the held-out rows; 0 if there are none.
    """

    weight: Tensor
    bias: Tensor | None
    error: float


def fit_block(x: Tensor, y: Tensor, prior: Tensor, *, bias: bool) -> Fit:
    """Least squares with a penalty on the distance from ``prior``.

    Minimises ``|Y - X W' - b|^2 + s |W - W0|^2``. The penalty s is that of `RIDGES` (and
    infinity) with the smallest error on the last of every `HELD_OUT` rows; the fit uses all rows.

    Args:
        x: inputs ``[rows, in]``.
        y: targets ``[rows, out]``.
        prior: W0, ``[out, in]``.
        bias: whether there is a b.

    Example:
        >>> x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
        >>> fit = fit_block(x, x @ torch.ones(5, 2) + 3, torch.zeros(2, 5), bias=True)
        >>> [round(float(v), 2) for v in (fit.weight[0, 0], fit.bias[0])], fit.error < 1e-3
        ([1.0, 3.0], True)
    """
    x, y, prior = x.double(), y.double(), prior.double()
    held = torch.arange(len(x)) % HELD_OUT == HELD_OUT - 1
    if int(held.sum()) < 2:
        return Fit(*_solve(x, y, prior, (None,), bias=bias)[0], 0.0)
    errors = []
    spread = (y[held] - y[held].mean(0)).square().sum() if bias else y[held].square().sum()
    choices = (*RIDGES, None)
    for weight, shift in _solve(x[~held], y[~held], prior, choices, bias=bias):
        off = y[held] - x[held] @ weight.T - (0 if shift is None else shift)
        errors.append(float(off.square().sum() / spread) if spread > 0 else 0.0)
    best = min(range(len(choices)), key=errors.__getitem__)
    return Fit(*_solve(x, y, prior, (choices[best],), bias=bias)[0], errors[best])


def _solve(
    x: Tensor, y: Tensor, prior: Tensor, ridges: tuple[float | None, ...], *, bias: bool
) -> list[tuple[Tensor, Tensor | None]]:
    """One solution per penalty, through the smaller of the two Gram matrices."""
    x_mean, y_mean = (x.mean(0), y.mean(0)) if bias else (x.new_zeros(()), y.new_zeros(()))
    centred = x - x_mean
    residual = y - y_mean - centred @ prior.T
    tall = x.shape[0] >= x.shape[1]
    gram = centred.T @ centred if tall else centred @ centred.T
    scale = float(gram.diagonal().sum()) / x.shape[1]
    solutions: list[tuple[Tensor, Tensor | None]] = []
    if scale > 0 and any(ridge is not None for ridge in ridges):
        values, vectors = torch.linalg.eigh(gram)
        values = values.clamp(min=0)
        turned = vectors.T @ (centred.T @ residual if tall else residual)
    for ridge in ridges:
        weight = prior
        if ridge is not None and scale > 0:
            step = vectors @ (turned / (values + ridge * scale)[:, None])
            weight = prior + (step if tall else centred.T @ step).T
        solutions.append((weight, y_mean - weight @ x_mean if bias else None))
    return solutions
