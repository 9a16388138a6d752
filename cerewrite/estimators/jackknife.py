"""Infinitesimal jackknife: what leaving out a unit does to log K (docs/theory.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize

from cerewrite.errors import AnalysisError
from cerewrite.estimators.base import (
    Assumption,
    Corrections,
    Estimator,
    LayerCorrection,
    register,
)
from cerewrite.estimators.draws import Gates, Influences, Subject, Units, find_units
from cerewrite.estimators.monte_carlo import closed_form, marked, subject_of
from cerewrite.ir import TracedModel

DEFAULT_DRAWS = 8
FEWEST = 2
NOISE_ERROR = 0.05
"""Relative error of the subtracted noise."""

LEAST_LEFT = 0.1
"""Least part of a member's influence that its units' own scatter leaves."""

Array = NDArray[np.float64]


@register
class Jackknife(Estimator):
    """kappa of every width class from one double backward per draw, split over its writers.

    With ``s_i = d log K / d w_i`` for the energy weight ``w_i = 1`` of unit i,
    ``kappa = n / (n - 1) sum_i (s_i - mean s)^2``. Units are gated where sampled layers read
    them, behind norms and activations, so that w scales forward and backward energy whatever the
    activation; norms that divide by an example's own energy see the weight as well, and depthwise
    weights, which no other unit reads, count with their unit. Layers that
    share a class (a residual stream) share its units: their kappas are the class's, divided as
    the closed form divides it. Biased for few units, as jackknives are.
    """

    name = "jackknife"
    reference = "docs/theory.md 6; Efron & Stein (1981), infinitesimal jackknife"

    def estimate(
        self, traced: TracedModel, model: nn.Module, example_inputs: Any, assumption: Assumption
    ) -> Corrections:
        """See `Estimator.estimate`.

        Raises:
            AnalysisError: if there are fewer than 2 draws, a draw has no finite kernel, an
                operator of the model cannot be differentiated twice, or a weight is of no layer
                that can be gated.
        """
        wanted = DEFAULT_DRAWS if assumption.draws is None else assumption.draws
        if wanted < FEWEST:
            raise AnalysisError(
                f"{wanted} draw is too few for a standard error", advice="ask for 2 or more"
            )
        subject = subject_of(traced, model, example_inputs, assumption)
        _refuse_ungated(subject)
        units = find_units(traced, subject.model)
        gates = Gates(units, subject.variances(), next(iter(subject.model.parameters())))
        found = list(self._draws(subject, gates, wanted, assumption))
        if len(found) < FEWEST:
            raise AnalysisError(
                f"the tangent kernel is zero in {wanted - len(found)} of {wanted} draws",
                advice="no gradient arrives: zero-initialised heads need --gain he",
            )
        closed = marked(closed_form(traced, model, assumption), subject, traced)
        layers = tuple(_measured(closed, traced, units, found))
        return Corrections(
            layers=layers,
            nu=None,
            assumptions=(
                f"{len(found)} initialisations with seed {assumption.seed}, on the given inputs",
                "influences of single units, to first order: biased for layers of few units",
                "layers that write one width class share its kappa as the closed form does",
                *_beyond(sum(layer.kappa for layer in layers)),
            ),
            draws=wanted,
        )

    @staticmethod
    def _draws(
        subject: Subject, gates: Gates, wanted: int, assumption: Assumption
    ) -> Iterator[dict[str, Influence]]:
        """The draws whose kernel is not zero."""
        total, alive = 0.0, 0
        for index in range(wanted):
            draw = influences(subject, gates, index)
            if draw:
                alive += 1
                total += sum(at.fitted for at in draw.values())
                yield draw
            if assumption.progress is not None:
                assumption.progress(index + 1, wanted, math.expm1(total / max(alive, 1)))


def _refuse_ungated(subject: Subject) -> None:
    """Refuse weights whose units no gate finds: their corrections would be missing.

    Raises:
        AnalysisError: if a module draws weights that are those of no sampled layer.
    """
    for fresh in subject.fresh:
        if not fresh.weight:
            raise _ungated(fresh.parameters[0], "its weight is of no layer")


def _ungated(name: str, why: str) -> AnalysisError:
    return AnalysisError(
        f"the units behind '{name}' pass no gate: {why}",
        advice="use estimator 'monte-carlo', which draws and measures the whole model",
    )


def _beyond(total: float) -> tuple[str, ...]:
    """A warning where corrections are too large for what is of first order in them."""
    if total <= 1.0:
        return ()
    return (
        f"WARNING: corrections add up to {total:.3g}; above 1 nu composed of them is an order of "
        "magnitude at best: give batch norms more examples, or measure with Monte-Carlo",
    )


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


def influences(subject: Subject, gates: Gates, index: int) -> dict[str, Influence]:
    """Influences of every width class in draw ``index``; none where the network is dead.

    Raises:
        AnalysisError: if K is not finite, or cannot be differentiated twice.
    """
    subject.redraw(index)
    once = parametrize.cached()  # computed weights are the same tensor wherever they are read
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), once, gates.on(subject.model):
        gradients = subject.gradients(create_graph=True)
        kernel = _kernel(subject, gradients)
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
    return {
        name: _influence(rates, slice(start, start + size), groups.get(name, 1))
        for name, (start, size) in gates.units.classes.items()
    }


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


def _kernel(subject: Subject, gradients: tuple[Tensor | None, ...]) -> Tensor:
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
    count = len(up) // groups
    factor = _small_sample(len(up)) if groups == 1 else count / max(count - 1, 1)
    hidden = noise * (1.0 if groups == 1 else (count - 1) / count)
    return Influence(
        cleared=factor * (raw - hidden),
        noise=factor * hidden,
        fitted=factor * fitted,
        slack=factor * float(rates.slack[part].sum()),
        plain=factor * plain,
        up=float(up.sum()),
        down=float(down.sum()),
        whole=float(share.sum()),
        spread=_spread(share.reshape(groups, -1).sum(1), float(rates.mixed[part].sum())),
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


def blend(draws: list[Influence]) -> tuple[float, float]:
    """A class's kappa and its standard error, over draws.

    From the subtraction over the fit to the plain energies, bias grows and error shrinks. Each
    counts with weight ``next^2 / (next^2 + error^2)`` beside the next: the bias of that is of
    about its own size. The subtracted noise is known to some per cent only (higher orders in
    1 / width), which is part of the subtraction's error. Where it leaves nothing, the fit stands.

    Example:
        >>> sure = dict(noise=0.0, fitted=1.0, slack=0.0, plain=0.9, up=0.5, down=0.5)
        >>> draws = [Influence(cleared=0.9, **sure), Influence(cleared=1.1, **sure)]
        >>> round(blend(draws)[0], 6)
        1.0
    """
    cleared, noise, fitted, slack, plain = (
        np.array([getattr(draw, name) for draw in draws])
        for name in ("cleared", "noise", "fitted", "slack", "plain")
    )
    smooth = _mixed(fitted, plain, float(slack.mean()))
    sampled = float(cleared.std(ddof=1)) / math.sqrt(len(draws))
    mixed = _mixed(cleared, smooth, math.hypot(sampled, NOISE_ERROR * float(noise.mean())))
    if not mixed.mean() > 0:
        mixed = smooth
    return float(mixed.mean()), float(mixed.std(ddof=1)) / math.sqrt(len(draws))


def settled(draws: list[Influence], groups: int) -> tuple[float, float]:
    """A class's kappa at leading order and its error, its units in so many existing members.

    Units of member j move log K in proportion to its share w_j, so that their squares are
    ``m sum_j w_j^2`` times what they would be in members that are alike. Over all members and
    draws the ratio of the two is, with S the class's whole influence,
    ``R = k / (1 + k / S^2)`` for a member's own k: its part in K scatters with its units.

    Args:
        draws: the class in every draw.
        groups: members.

    Example:
        >>> one = dict(noise=0.0, slack=0.0, up=0.5, down=0.5)
        >>> at = Influence(cleared=0.5, fitted=0.5, plain=0.5, spread=2.0, **one)
        >>> settled([at, at], groups=2)
        (0.5, 0.0)
    """
    kappa, stderr = blend(draws)
    if groups == 1:
        return kappa, stderr
    spread = float(np.mean([draw.spread for draw in draws]))
    whole = float(np.mean([draw.whole for draw in draws])) ** 2
    ratio = kappa / spread * groups / whole if whole > 0 else 0.0
    member = spread * max(1.0 - ratio, LEAST_LEFT)
    return kappa / member, stderr / member


def _mixed(sharp: Array, safe: Array, error: float) -> Array:
    size = float(safe.mean()) ** 2
    weight = size / (size + error**2) if size > 0 else 1.0
    mixed: Array = weight * sharp + (1 - weight) * safe
    return mixed


def _small_sample(units: int) -> float:
    """What dividing by the units' own sum takes away: ``n / (n - 3)``, at most 2.

    The ratio ``sum (e - mean)^2 / (n mean)^2`` of energies of relative variance v and third
    central moment t expects ``v / n (1 - (1 + c) / n)`` with ``c = (2 t - 3 v^2) / v``: 2 for
    squares of Gaussians, 2.6 for those behind a ReLU.
    """
    return units / max(units - 3.0, units / 2.0)


def _measured(
    layers: tuple[LayerCorrection, ...],
    traced: TracedModel,
    units: Units,
    found: list[dict[str, Influence]],
) -> Iterator[LayerCorrection]:
    """Layers with the jackknife's kappas, in execution order."""
    closed = {layer.layer: layer for layer in layers}
    owner = {name: width for width, names in units.writers.items() for name in names}
    for layer in traced.layers:
        at, width = closed[layer.name], owner[layer.name]
        draws = [draw[width] for draw in found]
        if layer.name in units.refused:
            if not at.backward_share:
                raise _ungated(layer.name, units.refused[layer.name])
            yield replace(at, note=f"closed form: {units.refused[layer.name]}")
        elif not any(draw.cleared or draw.fitted for draw in draws):
            yield replace(at, kappa=0.0, note=at.note or "read-out: no width behind it")
        else:
            share = _share(at, [closed[name] for name in units.writers[width]])
            groups = units.groups.get(width, 1)
            yield _corrected(at, layer.out_channels, share, draws, groups)


def _share(at: LayerCorrection, writers: list[LayerCorrection]) -> float:
    total = sum(writer.kappa for writer in writers)
    return at.kappa / total if total > 0 else 1.0 / len(writers)


def _corrected(
    at: LayerCorrection, width: int, share: float, draws: list[Influence], groups: int = 1
) -> LayerCorrection:
    """A layer with its share of its class's kappa; its moments are the closed form's, if any.

    The spatial factor is what is left: ``rho = kappa / kappa of the closed form``. It can exceed
    1 where the closed form is too low.
    """
    kappa, stderr = (share * figure for figure in settled(draws, groups))
    if at.kappa > 0:
        return replace(at, rho=kappa / at.kappa, kappa=kappa, stderr=stderr)
    up = float(np.mean([draw.up for draw in draws]))
    down = float(np.mean([draw.down for draw in draws]))
    if not up * up + down * down > 0:
        return replace(at, kappa=0.0, note=at.note or "nothing of the kernel passes it")
    scatter = kappa * width / (up * up + down * down)
    note = "no closed form: moments are the jackknife's, forward and backward alike"
    return LayerCorrection(
        at.layer, up, down, scatter, scatter, 0.0, 1.0, kappa, stderr, note if kappa else at.note
    )
