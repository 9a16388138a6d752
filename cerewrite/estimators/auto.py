"""The default: structure from the closed form, level from draws (docs/theory.md, section 31)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cerewrite.errors import AnalysisError, NotFiniteError, ZeroKernelError
from cerewrite.estimators.analytic import Analytic
from cerewrite.estimators.base import (
    Assumption,
    Corrections,
    Estimator,
    LayerCorrection,
    register,
)
from cerewrite.estimators.draws import (
    Ratio,
    Subject,
    combine,
    differ,
    log_variance,
    relative_variance,
)
from cerewrite.estimators.jackknife import Jackknife
from cerewrite.estimators.limited import (
    Count,
    first_draws,
    more_draws,
    splitting_draws,
)
from cerewrite.estimators.monte_carlo import FEWEST, TRUSTED, marked, subject_of
from cerewrite.estimators.told import dead, told, too_slow, variation
from cerewrite.ir import Estimate, TracedModel
from cerewrite.ops import rule_for

DENSE = 0.03
DENSE_NORMED = 0.06
"""Relative error of the closed form's nu on dense networks up to nu = 1, without and with norms
(docs/ACCURACY.md); it counts for nothing where there are positions or batch norms."""
TAILS = 0.25
"""Relative error of log(1 + nu) as Var[log K]."""
LAYERWISE = 0.05
"""Relative error of its split between the layers of such networks."""
NAMED = 3
"""Layers that are named, at most."""


@register
class Auto(Estimator):
    """The closed form's structure with the level of Monte-Carlo draws, within a time limit.

    How a layer's correction depends on members and widths is the closed form's; what it is on
    the real module and inputs is measured: the model's nu and Var[log K] by drawing the weights,
    each layer's factor rho by a few draws of the jackknife. On dense networks, where the closed
    form is good, the two are combined by their inverse variances. The number of draws follows
    from the time that the first two take, at most 512; ``draws`` overrides it.

    Where nothing can be drawn (meta device, time), or K is zero in every draw because the inputs
    do not vary, the closed form stands alone and the first assumption says so. Where there is no
    closed form the jackknife gives the layers' moments.
    """

    name = "auto"
    reference = "docs/theory.md 31"

    def estimate(
        self, traced: TracedModel, model: nn.Module, example_inputs: Any, assumption: Assumption
    ) -> Corrections:
        """See `Estimator.estimate`.

        Raises:
            AnalysisError: if the draws are not finite; or if nothing can be drawn, or too little
                in the time, and there is no closed form either.
        """
        closed, refusal = _closed_form(traced, model, assumption)
        try:
            subject = subject_of(traced, model, example_inputs, assumption)
            kernels, count = first_draws(subject, assumption)
        except NotFiniteError:
            raise
        except AnalysisError as error:
            return _alone(closed, refusal, error)
        if count.draws < FEWEST:
            return _alone(closed, refusal, too_slow(count, assumption))
        split, refused = _split(traced, subject, closed, count)
        kernels = more_draws(subject, assumption, count, kernels)
        if sum(kernel > 0 for kernel in kernels) < 3:
            return _alone(closed, refusal, dead(subject, kernels))
        return _Levels(traced, subject, assumption, closed, split, kernels).combined(
            variation(subject), (*told(refusal), *refused)
        )


def _closed_form(
    traced: TracedModel, model: nn.Module, assumption: Assumption
) -> tuple[Corrections | None, AnalysisError | None]:
    """The analytic corrections, or why there are none."""
    try:
        return Analytic().estimate(traced, model, None, assumption), None
    except AnalysisError as error:
        return None, error


def _split(
    traced: TracedModel, subject: Subject, closed: Corrections | None, count: Count
) -> tuple[Corrections | None, tuple[str, ...]]:
    """The jackknife's layers, or why there are none."""
    layers = None if closed is None else closed.layers
    try:
        return Jackknife().measured(traced, subject, layers, count.splitting), ()
    except AnalysisError as error:
        return None, (f"no factors by layer: {error.message}",)


def _alone(
    closed: Corrections | None, refusal: AnalysisError | None, error: AnalysisError
) -> Corrections:
    """The closed form without any measurement, saying so; an error where there is none."""
    if closed is None:
        assert refusal is not None
        kind = ZeroKernelError if isinstance(refusal, ZeroKernelError) else AnalysisError
        raise kind(
            f"nothing can be measured ({error.message}), and the closed form refuses: "
            f"{refusal.message}",
            advice=refusal.advice,
        ) from error
    first = f"WARNING: closed form alone, nothing was measured: {error.message}"
    rough = (
        "positions are taken as alike (rho = 1): far too high on most convolutions, and no bound "
        "where there are norms",
        *closed.assumptions[1:],
    )
    return replace(closed, assumptions=(first, *rough))


@dataclass(frozen=True, slots=True)
class _Levels:
    """Everything that was found, before it is put together.

    Attributes:
        traced: the model.
        subject: what was measured.
        assumption: under what.
        closed: the closed form's corrections, if any.
        split: the jackknife's, if any.
        kernels: K of every draw.
    """

    traced: TracedModel
    subject: Subject
    assumption: Assumption
    closed: Corrections | None
    split: Corrections | None
    kernels: Sequence[float]

    def combined(self, first: tuple[str, ...], notes: tuple[str, ...]) -> Corrections:
        """Measured levels, the split between layers, and what both rest on.

        Args:
            first: sentences to say before all others.
            notes: sentences to say behind them.
        """
        alive = [kernel for kernel in self.kernels if kernel > 0]
        measured, log = relative_variance(self.kernels), log_variance(alive)
        prior = self._prior()
        differs = prior is not None and (
            differ(measured, prior) or _heavier(log.value, prior.value, len(alive))
        )
        nu = measured if prior is None or differs else combine(measured, prior)
        layers = self._layers(shrink=prior is not None and not differs)
        if len(alive) < len(self.kernels):
            dead = len(self.kernels) - len(alive)
            notes += (f"{dead} draws are dead (K = 0); Var[log K] is without them",)
        if differs and prior is not None:
            notes += (self._difference(measured, prior),)
        drawn = len(self.kernels)
        return Corrections(
            layers=layers,
            nu=Estimate(nu.value, nu.stderr, drawn, Auto.name, Auto.reference),
            assumptions=(*first, *self._basis(prior, differs=differs), *notes, *_tail(nu, drawn)),
            log_variance=Estimate(log.value, log.stderr, drawn, Auto.name, Auto.reference),
            draws=0 if self.split is None else self.split.draws,
            per_layer=self.closed is not None or self.split is not None,
        )

    def _prior(self) -> Ratio | None:
        """The closed form's nu with its own error, where that is known to be small."""
        error = closed_form_error(self.traced)
        if self.closed is None or self.closed.nu is None or error is None:
            return None
        value = self.closed.nu.value
        return Ratio(value, error * value) if value <= 1.0 else None

    def _layers(self, *, shrink: bool) -> tuple[LayerCorrection, ...]:
        closed = None if self.closed is None else self.closed.layers
        if self.split is None:
            return marked(closed, self.subject, self.traced)
        if closed is None or not shrink:
            return self.split.layers
        return tuple(map(_shrunk, self.split.layers, closed))

    def _difference(self, measured: Ratio, prior: Ratio) -> str:
        """One sentence on a closed form that the draws contradict, with the layers."""
        found: list[tuple[float, str]] = []
        if self.split is not None and self.closed is not None:
            for at, flat in zip(self.split.layers, self.closed.layers, strict=True):
                if at.stderr and abs(at.kappa - flat.kappa) > 2 * at.stderr:
                    found.append((abs(at.kappa - flat.kappa), at.layer))
        names = ", ".join(name for _, name in sorted(found, reverse=True)[:NAMED])
        where = f"most at {names}" if names else "at no layer by itself"
        return (
            f"WARNING: closed form and draws differ: nu {prior.value:.3g} against "
            f"{measured.value:.3g} +- {measured.stderr:.2g}, {where}; the draws count"
        )

    def _basis(self, prior: Ratio | None, *, differs: bool) -> tuple[str, ...]:
        drawn, seed = len(self.kernels), self.subject.seed
        how = "a user's initialiser" if self.assumption.redraw else "Gaussian weights of the gain"
        statistics = "their batch's" if self.assumption.norms == "train" else "running"
        again = ""
        if self.split is None or self.split.draws == splitting_draws(drawn):
            again = f"; --draws {drawn} makes them again"
        lines = [
            f"nu and Var[log K] measured: {drawn} draws with seed {seed}{again}",
            f"{how}, all other parameters as built; norms on {statistics} statistics, dropout off",
        ]
        if prior is not None and not differs:
            lines.append(
                f"dense, so nu is combined with the closed form's, {prior.value:.3g} "
                f"+- {prior.stderr:.1g} (docs/ACCURACY.md)"
            )
        if self.split is not None:
            source = "closed form times factors" if self.closed else "shares"
            lines.append(
                f"layers: {source} of {self.split.draws} jackknife draws, scaled to the level"
            )
        elif self.closed is not None:
            lines.append("layers: the closed form's shares, scaled to the level")
        return tuple(lines)


def _heavier(log_variance: float, nu: float, draws: int) -> bool:
    """Whether a measured Var[log K] contradicts a nu, if ``log(1 + nu)`` is it to 25 %."""
    expected = math.log1p(nu)
    sampled = Ratio(log_variance, expected * math.sqrt(2.0 / draws))
    return differ(sampled, Ratio(expected, TAILS * expected))


def closed_form_error(traced: TracedModel) -> float | None:
    """Relative error of the closed form's nu on dense networks without positions; else None."""
    norms = {rule.name for rule in map(rule_for, traced.ops) if rule and "norm" in rule.name}
    if "batch_norm" in norms or any(y.op != "linear" or y.positions != 1 for y in traced.layers):
        return None
    return DENSE_NORMED if norms else DENSE


def closed_form_digits(traced: TracedModel) -> int:
    """Significant digits of the closed form's figures.

    3 on dense networks without norms, 2 with layer, group or RMS norms, 1 where there are
    positions or batch norms.
    """
    error = closed_form_error(traced)
    return 1 if error is None else 3 if error == DENSE else 2


def _shrunk(at: LayerCorrection, flat: LayerCorrection) -> LayerCorrection:
    """A dense layer's jackknife combined with its closed form, which is good there."""
    if not at.stderr or not flat.kappa > 0:
        return at
    found = combine(Ratio(at.kappa, at.stderr), Ratio(flat.kappa, LAYERWISE * flat.kappa))
    rho = at.rho * found.value / at.kappa if at.kappa > 0 else found.value / flat.kappa
    return replace(at, rho=rho, kappa=found.value, stderr=found.stderr)


def _tail(nu: Ratio, count: int) -> tuple[str, ...]:
    """A warning where the draws are too few for the tail of K."""
    if nu.stderr <= TRUSTED * nu.value:
        return ()
    return (
        f"WARNING: {count} draws are few for nu, which rare draws rule here: its own error is not "
        "to be trusted; read Var[log K], or give --seconds and --draws more",
    )
