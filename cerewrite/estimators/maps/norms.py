"""Norms of maps: what they scale by, what they add, on a batch's or on running statistics."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from cerewrite.estimators.maps.fields import Field
from cerewrite.estimators.maps.pool import refused
from cerewrite.ir import Op
from cerewrite.kernel.weights import Weights


def affine(weights: Weights, op: Op) -> tuple[float, float]:
    """Mean squares of a norm's scales and shifts."""
    gain, shift, own = weights.affine(op)
    if own:
        raise refused(f"'{op.target}' has parameters of its own in the standard parametrisation")
    return gain, shift


def running(weights: Weights, op: Op) -> tuple[float, float] | None:
    """The same of a batch norm on running statistics; None where it keeps none."""
    affine(weights, op)
    norm = weights.module(op)
    mean, variance = (getattr(norm, name, None) for name in ("running_mean", "running_var"))
    if not isinstance(norm, nn.modules.batchnorm._NormBase) or mean is None or variance is None:
        return None
    scale = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return float(scale.square().mean()), float(shift.square().mean())


def rescaled(field: Field, units: Tensor, gain: float) -> tuple[Field, Tensor]:
    """A unit times a constant."""
    return Field(gain * field.sigma, gain * field.theta, gain**0.5 * field.mean), gain**0.5 * units


def shifted(field: Field, units: Tensor, shift: float, noise: Tensor) -> tuple[Field, Tensor]:
    """A unit plus a number of its own: Gaussian over units, the same at every point.

    Args:
        field: its moments.
        units: samples of it.
        shift: mean square of the numbers.
        noise: standard normal, ``[samples, 1]``.
    """
    if not shift:
        return field, units
    return Field(field.sigma + shift, field.theta, field.mean), units + shift**0.5 * noise


def group_normed(
    units: Tensor, own: Field, read: Field, gain: float, examples: int
) -> tuple[Field, Tensor]:
    """A norm of each example over all positions and units.

    Args:
        units: samples of a unit, ``[samples, points]``.
        own: its moments.
        read: the same as the norm reads them.
        gain: mean square of the scales.
        examples: how many there are.
    """
    mean = read.mean.view(examples, -1).mean(1)
    energy = read.sigma.diagonal().view(examples, -1).mean(1) - mean**2
    positions = prod(own.mean.shape) // examples
    shift, scale = (per.repeat_interleave(positions) for per in (mean, (gain / energy).sqrt()))
    cross, ratio = torch.outer(shift, own.mean), torch.outer(scale, scale)
    sigma = (own.sigma - cross - cross.T + torch.outer(shift, shift)) * ratio
    field = Field(sigma, own.theta * ratio, (own.mean - shift) * scale)
    return field, (units - shift.detach()) * scale.detach()
