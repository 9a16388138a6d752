"""Infinitesimal jackknife: what leaving out a unit does to log K (docs/theory.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from cerewrite.errors import AnalysisError, ZeroKernelError
from cerewrite.estimators.base import (
    Assumption,
    Corrections,
    Estimator,
    LayerCorrection,
    register,
)
from cerewrite.estimators.draws import (
    Gates,
    Ratio,
    Subject,
    Units,
    differ,
    find_units,
    logit_rows,
    rotated_variance,
)
from cerewrite.estimators.draws.blend import settled
from cerewrite.estimators.draws.influence import Influence, influences
from cerewrite.estimators.monte_carlo import TRUSTED, closed_form, marked, subject_of
from cerewrite.ir import Estimate, TracedModel

DEFAULT_DRAWS = 8
FEWEST = 2
TURNS = 3
"""Turns of the weights for every draw, at most: they end once the level is known."""


@register
class Jackknife(Estimator):
    """kappa of every width class from one double backward per draw, split over its writers.

    With ``s_i = d log K / d w_i`` for the energy weight ``w_i = 1`` of unit i,
    ``kappa = n / (n - 1) sum_i (s_i - mean s)^2``. Units are gated where sampled layers read
    them, behind norms and activations, so that w scales forward and backward energy whatever the
    activation; norms that divide by an example's own energy see the weight as well, and depthwise
    weights, which no other unit reads, count with their unit. Layers that
    share a class (a residual stream) share its units: their kappas are the class's, divided as
    the closed form divides it. Biased for few units, as jackknives are: Var[log K], the level of
    all of them, is measured by rotated draws, which assume nothing of units.
    """

    name = "jackknife"
    reference = "docs/theory.md 6 and 30; Efron & Stein (1981), infinitesimal jackknife"

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
        closed = closed_form(traced, model, assumption)
        report = assumption.progress
        steps = (1 + TURNS) * wanted
        first = None if report is None else _of_all(report, steps)
        found = self.measured(traced, subject, closed, wanted, first)
        total = sum(math.log1p(max(layer.kappa, 0.0)) for layer in found.layers)

        def turning(done: int) -> None:
            if report is not None:
                report(wanted + done, steps, math.expm1(total))

        return _levelled(found, total, rotated_variance(subject, TURNS * wanted, turning), wanted)

    def measured(
        self,
        traced: TracedModel,
        subject: Subject,
        closed: tuple[LayerCorrection, ...] | None,
        wanted: int,
        progress: Callable[[int, int, float], None] | None = None,
    ) -> Corrections:
        """The corrections of a model that is ready to be drawn.

        Args:
            traced: its trace.
            subject: the private copy that is drawn.
            closed: the closed form's layers, None without one.
            wanted: draws, at least 2.
            progress: see `Assumption`.

        Raises:
            AnalysisError: as `estimate`.
        """
        _refuse_ungated(subject)
        subject.redraw(0)
        units = find_units(traced, subject.model, logit_rows(traced, subject))
        gates = Gates(units, next(iter(subject.model.parameters())))
        found = list(self._draws(subject, gates, wanted, progress))
        if len(found) < FEWEST:
            raise ZeroKernelError(
                f"the tangent kernel is zero in {wanted - len(found)} of {wanted} draws",
                advice=f"no gradient arrives: {ZeroKernelError.ADVICE}",
            )
        layers = tuple(_measured(marked(closed, subject, traced), traced, units, found))
        return Corrections(
            layers=layers,
            nu=None,
            assumptions=(
                f"{len(found)} initialisations with seed {subject.seed}, on the given inputs",
                "influences of single units, to first order: biased for layers of few units",
                "layers that write one width class share its kappa as the closed form does",
                *_beyond(sum(layer.kappa for layer in layers)),
            ),
            draws=wanted,
        )

    @staticmethod
    def _draws(
        subject: Subject,
        gates: Gates,
        wanted: int,
        progress: Callable[[int, int, float], None] | None,
    ) -> Iterator[dict[str, Influence]]:
        """The draws whose kernel is not zero."""
        total, alive = 0.0, 0
        for index in range(wanted):
            draw = influences(subject, gates, index)
            if draw:
                alive += 1
                total += sum(at.fitted for at in draw.values())
                yield draw
            if progress is not None:
                progress(index + 1, wanted, math.expm1(total / max(alive, 1)))


def _of_all(
    report: Callable[[int, int, float], None], steps: int
) -> Callable[[int, int, float], None]:
    """Progress of the first of so many steps."""
    return lambda done, wanted, nu: report(done, steps, nu)


def _levelled(found: Corrections, total: float, turned: Ratio | None, wanted: int) -> Corrections:
    """Layers with Var[log K] as rotated draws measure it.

    Args:
        found: the layers.
        total: what they add up to.
        turned: what is measured, if anything.
        wanted: draws.
    """
    if turned is None or not turned.value > 0:
        note = "Var[log K] composed of layers: no draws to rotate that are Gaussian and not dead"
        return replace(found, assumptions=(*found.assumptions, note))
    notes = _doubts(turned, total)
    level = Estimate(turned.value, turned.stderr, wanted, Jackknife.name, "docs/theory.md 30")
    note = "Var[log K], the level of all layers, measured by rotated draws"
    return replace(found, log_variance=level, assumptions=(*found.assumptions, note, *notes))


def _doubts(turned: Ratio, total: float) -> tuple[str, ...]:
    """What to know of a level whose draws scatter, and of layers that it contradicts."""
    notes = []
    if turned.stderr > TRUSTED * turned.value:
        notes.append(
            f"WARNING: Var[log K] by rotated draws is {turned.value:.2g} +- {turned.stderr:.1g}, "
            "an error that is not to be trusted itself: K has a heavy tail; take more draws, or "
            "estimator 'auto', which makes hundreds of plain ones"
        )
    if differ(Ratio(total, 0.0), turned):
        notes.append(
            f"WARNING: the layers' corrections add up to {total:.2g}, rotated draws measure "
            f"{turned.value:.2g} +- {turned.stderr:.1g}: layers are narrow, and how the correction "
            "divides among them is known to first order in 1 / width alone"
        )
    return tuple(notes)


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
