"""What the units of a width class do to log K in one draw (docs/theory.md, sections 6 and 30)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize

from cerewrite.errors import AnalysisError
from cerewrite.estimators.draws.gates import Gates, Influences
from cerewrite.estimators.draws.gaussian import Draw
from cerewrite.estimators.draws.places import Units
from cerewrite.estimators.draws.subject import Subject
from cerewrite.runtime.seeds import generator_for

Array = NDArray[np.float64]
TINY = 1e-30
REDRAWS = 3
"""Draws of the layers over positions for every draw of the model."""
ANEW = 1 << 20
"""First index of these draws, behind all others."""


@dataclass(frozen=True, slots=True)
class Influence:
    """What the units of one width class do to log K in one draw.

    Attributes:
        cleared: variance of log K by single units, other units' noise subtracted: no bias.
        noise: what was subtracted.
        fitted: the same as ``cleared`` from fitted influences: little noise.
        slack: the noise that may be left in it.
        plain: from influences fitted by the units' energies alone: no noise.
        up: sum of the forward influences, d log K / d log(forward energy).
        down: likewise, backward.
        whole: sum of the units' parts in log K, whatever norms take away again.
        spread: ``m sum_j w_j^2`` of the shares w_j that m existing members have in log K.
        sharp: ``sum_x p_x^2 / S_x^2`` over the forward and the backward part, p_x the part's
            share of the squares and S_x its influence in log K: 1 where they are one sum.
        units: of one member; 0 where what few of them do to the estimate is not wanted.
    """

    cleared: float
    noise: float
    fitted: float
    slack: float
    plain: float
    up: float
    down: float
    whole: float = 1.0
    spread: float = 1.0
    sharp: float = 1.0
    units: int = 0


def influences(subject: Subject, gates: Gates, index: int) -> dict[str, Influence]:
    """Influences of every width class in draw ``index``; none where the network is dead.

    Raises:
        AnalysisError: if K is not finite, or cannot be differentiated twice.
    """
    subject.redraw(index)
    once = parametrize.cached()  # computed weights are the same tensor wherever they are read
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), once, gates.on(subject.model):
        gradients = subject.gradients(create_graph=True)
        kernel = kernel_of(subject, gradients)
        if subject.finite(float(kernel.detach()), index) == 0:
            return {}
        try:
            rates = gates.influences(kernel.log())
        except RuntimeError as error:
            raise AnalysisError(
                f"the model cannot be differentiated twice: {error}",
                advice="use estimator 'analytic' or 'monte-carlo'",
            ) from error
    _add_own(rates, gates.units, subject, gradients, float(kernel.detach()))
    groups = gates.units.groups
    found = {
        name: _influence(rates, slice(start, start + size), groups.get(name, 1))
        for name, (start, size) in gates.units.classes.items()
    }
    across = _across(subject, gates, index, math.log(float(kernel.detach())))
    parts = {gates.units.across[name] for name in gates.units.logits}
    return found | {
        name: _beside(found[name], one) if name in parts else one for name, one in across.items()
    }


def _beside(units: Influence, logits: Influence) -> Influence:
    """A class whose layer has units and logits: both together."""
    return replace(
        units,
        cleared=units.cleared + logits.cleared,
        fitted=units.fitted + logits.fitted,
        plain=units.plain + logits.plain,
    )


def _across(subject: Subject, gates: Gates, index: int, log_kernel: float) -> dict[str, Influence]:
    """What layers over positions do: no units, no noise.

    Half the squares of ``W . dlog K / dW`` are right where log K is a product of two such layers,
    and too much beyond that; half the square of what log K changes by when all of them are drawn
    anew is right always, and coarse. So the one splits what the other measures.
    """
    whole = sum(gates.across.values())
    if not whole > 0:
        return {}
    squares = [(log - log_kernel) ** 2 / 2 for log in _redrawn(subject, gates, index)]
    measured = float(np.mean(squares)) if squares else whole
    return {
        name: Influence(
            cleared=measured * half / whole,
            noise=0.0, fitted=half, slack=0.0, plain=half, up=0.0, down=0.0,
        )
        for name, half in gates.across.items()
    }  # fmt: skip


def _redrawn(subject: Subject, gates: Gates, index: int) -> Iterator[float]:
    """Log K with the layers over positions drawn anew, a few times; where it is not zero."""
    draws = [d for d in subject.draws if d.parameter.rpartition(".")[0] in gates.units.across]
    if subject.custom is not None or not draws:
        return
    for again in range(REDRAWS):
        generator = generator_for(subject.seed, ANEW + REDRAWS * index + again)
        with torch.no_grad():
            for draw in draws:
                _anew(draw, gates.units, subject, generator)
        with torch.enable_grad():
            kernel = float(kernel_of(subject, subject.gradients()))
        if subject.finite(kernel, index) > 0:
            yield math.log(kernel)


def _anew(draw: Draw, units: Units, subject: Subject, generator: torch.Generator) -> None:
    """Draw a tensor in place; where only some output channels make logits, those alone."""
    tensor = subject.model.get_parameter(draw.parameter)
    module = draw.parameter.rpartition(".")[0]
    before = tensor.clone()
    draw.fill(subject.model, generator)
    if module in units.logits:
        axis = tensor.dim() - 1 if module in units.turned else 0
        still = torch.from_numpy(np.flatnonzero(~units.logits[module])).to(tensor.device)
        tensor.index_copy_(axis, still, before.index_select(axis, still))


def _add_own(
    rates: Influences,
    units: Units,
    subject: Subject,
    gradients: tuple[Tensor | None, ...],
    kernel: float,
) -> None:
    """Add the units' own shares of K: those of depthwise weights, which no other unit reads."""
    found = dict(zip(subject.scales.items(), gradients, strict=True))
    owned = {place.module: place for place in units.own}
    for (name, scale), gradient in found.items():
        place = owned.get(name.rpartition(".")[0])
        if place is None or gradient is None or len(gradient) != len(place.ids):
            continue
        squares = gradient.detach().double().flatten(1).square().sum(1).cpu().numpy()
        for total in (rates.forward, rates.fitted, rates.plain):
            np.add.at(total, place.ids, scale * squares / kernel)


def kernel_of(subject: Subject, gradients: tuple[Tensor | None, ...]) -> Tensor:
    """K from the gradients of all parameters in it, with their graph."""
    scales = subject.scales.values()
    terms = [
        scale * gradient.pow(2).sum()
        for scale, gradient in zip(scales, gradients, strict=True)
        if gradient is not None
    ]
    return torch.stack(terms).double().sum()


def _influence(rates: Influences, part: slice, groups: int) -> Influence:
    up, down = rates.forward[part], rates.backward[part]
    raw, fitted, plain = (
        _squares(x, groups) for x in (up + down, rates.fitted[part], rates.plain[part])
    )
    noise, share = float(rates.noise[part].sum()), rates.share[part]
    return Influence(
        cleared=raw - noise,
        noise=noise,
        fitted=fitted,
        slack=float(rates.slack[part].sum()),
        plain=plain,
        up=float(up.sum()),
        down=float(down.sum()),
        whole=float(share.sum()),
        spread=_spread(share.reshape(groups, -1).sum(1), float(rates.mixed[part].sum())),
        sharp=_sharp((up, down), (share - down, down)),
        units=len(up) // groups,
    )


def _sharp(rates: tuple[Array, Array], shares: tuple[Array, Array]) -> float:
    squares = [float(((x - x.mean()) ** 2).sum()) for x in rates]
    total = max(sum(squares), TINY)
    return sum(
        (square / total) ** 2 / max(float(share.sum()) ** 2, TINY)
        for square, share in zip(squares, shares, strict=True)
    )


def _squares(influences: Array, groups: int) -> float:
    """Squared deviations from the mean of the unit's own member."""
    members = influences.reshape(groups, -1)
    return float(((members - members.mean(1, keepdims=True)) ** 2).sum())


def _spread(shares: Array, noise: float) -> float:
    """``m sum_j w_j^2`` of the members' shares, their noise subtracted; from 1 to m."""
    count, total = len(shares), float(shares.sum())
    if count == 1 or total == 0:
        return 1.0
    square = float((shares**2).sum()) - noise
    return min(max(count * square / total**2, 1.0), float(count))
