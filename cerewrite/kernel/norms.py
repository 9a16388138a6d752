"""How moments pass norms of an example or a batch (docs/theory.md, sections 22 and 23)."""

from __future__ import annotations

import math

import torch

from cerewrite.ir import Op
from cerewrite.kernel import values as algebra
from cerewrite.kernel.batch import batch_of
from cerewrite.kernel.growth import nominal_value, overlap_of
from cerewrite.kernel.moments import MomentContext
from cerewrite.kernel.units import Norm, make_unit
from cerewrite.kernel.values import Moments, Part, gaussian_value, scalar, signal_range_error

_SLIGHT = 1e-6
"""Mean over deviation up to which there is nothing to take away."""


def normalise(context: MomentContext, op: Op, x: Moments, *, centred: bool) -> Moments:
    """A norm over an example's units: ``q = gamma^2 + beta^2``, ``T = gamma^2 T / q``.

    Args:
        context: what it may ask.
        op: the norm.
        x: what it reads.
        centred: whether it subtracts the mean over units.
    """
    gain = context.affine(op)[0]
    return _shifted(context, op, divided(context, x, op.target, gain, centred=centred))


def divided(
    context: MomentContext, x: Moments, where: str, gain: float, *, centred: bool
) -> Moments:
    """A value over its own root mean square (its deviation if ``centred``), times a scale.

    Args:
        context: what it may ask.
        x: what it reads.
        where: the operator, for errors.
        gain: the scale, squared.
        centred: whether the mean over units is subtracted first.
    """
    squares = [part.weight * context.square(part.unit) for part in x.parts]
    senses = [context.sampler.sense(part.unit) for part in x.parts]
    mean, shift = 0.0, scalar(0.0)
    for part, sense in zip(x.parts if centred else (), senses, strict=False):
        mean += part.weight * sense.mean
        moved = torch.from_numpy(sense.by_mean) @ context.moved(part.unit)
        shift = shift + part.weight * moved
    # E of eq. 61, nominal
    energy = sum(nominal_value(square) for square in squares) - mean**2
    if not 0 < energy < math.inf:
        raise signal_range_error(energy, where)
    root, slots = math.sqrt(energy), []
    total = -2 * mean * shift - mean**2
    for part, sense, square in zip(x.parts, senses, squares, strict=True):
        slots.append(len(context.slots))
        # the noise of the units' own energies is a share of what has moved, which stays positive
        centred_energy = part.weight * (sense.square - 2 * mean * sense.mean + mean**2)
        moved = square / (nominal_value(square) or 1.0)
        total = total + square + centred_energy * moved * (context.slot() - 1)
    shift = shift / root
    for part in x.parts if centred else ():
        shift = shift + part.weight * context.slot(shift=True)
    norm = Norm(
        mean=mean,
        scale=math.sqrt(gain) / root,
        energy=total / energy - 1,
        shift=shift,
        read=tuple((p.unit, slot) for p, slot in zip(x.parts, slots, strict=True)),
        centred=centred,
        deviation=root,
    )
    context.norms.append(norm)
    parts = [Part(make_unit("norm", p.unit, norm=norm), p.weight) for p in x.parts]
    return Moments(tuple(parts))


def centred(context: MomentContext, x: Moments) -> Moments:
    """A value less its mean over units, which is what a standardised weight reads of it.

    To first order the mean is a constant: what it moves by drops out of the energy around it
    (docs/theory.md, section 36).
    """
    senses = [context.sampler.sense(part.unit) for part in x.parts]
    mean = math.fsum(part.weight * at.mean for part, at in zip(x.parts, senses, strict=True))
    energy = math.fsum(p.weight * at.square for p, at in zip(x.parts, senses, strict=True))
    deviation = max(energy - mean**2, 0.0) ** 0.5
    if abs(mean) <= _SLIGHT * deviation:
        return x
    still = Norm(mean, 1.0, scalar(0.0), scalar(0.0), (), True, deviation or 1.0)
    parts = [Part(make_unit("norm", part.unit, norm=still), part.weight) for part in x.parts]
    return Moments(tuple(parts), constant=x.constant)


def normalise_batch(context: MomentContext, op: Op, x: Moments) -> Moments:
    """A batch norm: each unit's mean and energy over a batch of varied examples.

    What all examples have in common is taken away, and what is the example's own is damped as
    far as it is in the statistics (`batch`).
    """
    gain, parts = context.affine(op)[0], []
    batch = batch_of(op, context.operand(op).shape)
    for part in x.parts:
        unit = context.sampler.varying(part.unit)
        sense = context.sampler.sense(unit)
        energy = sense.square - sense.mean**2
        if not 0 < energy < math.inf:
            raise signal_range_error(energy, op.target)
        zero, root = scalar(0.0), math.sqrt(energy)
        norm = Norm(sense.mean, 1.0 / root, zero, zero, (), True, root)
        effective_batch_size = batch.effective_batch_size(overlap_of(unit, sense) / energy)
        unit = make_unit("norm", unit, norm=norm)
        unit = make_unit("batch", unit, key=(effective_batch_size, math.sqrt(gain)))
        parts.append(Part(unit, part.weight))
    return _shifted(context, op, Moments(tuple(parts)))


def _shifted(context: MomentContext, op: Op, x: Moments) -> Moments:
    """A norm's shift, and its own parameters' kernel."""
    _, shift, kernel = context.affine(op)
    if not (shift or kernel):
        return x
    return algebra.add(x, gaussian_value(scalar(shift), scalar(kernel)))
